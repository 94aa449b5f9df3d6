-- People who act for patients in the portal: parents, carers. An account is a patient's own, somebody's who acts for others, or
-- both. Sessions and unfinished logins end with the upgrade, during which nobody is served.
DROP TABLE portal_session;
DROP TABLE portal_step;
ALTER TABLE portal_account RENAME TO portal_account_before;
CREATE TABLE portal_account (
    id              TEXT PRIMARY KEY,          -- UUID
    patient         TEXT UNIQUE,               -- logical id of the patient whose own it is; NULL for one who acts for others alone
    mail            TEXT NOT NULL UNIQUE,      -- the login name, lower case
    password        TEXT NOT NULL,             -- argon2id PHC string
    totp_secret     TEXT,                      -- base32; NULL where the second factor is a code by mail
    totp_step       INTEGER,                   -- last accepted step: a code is good once
    created         INTEGER NOT NULL,          -- Unix seconds, as all times here
    disabled        INTEGER
) STRICT;
INSERT INTO portal_account SELECT id, patient, mail, password, totp_secret, totp_step, created, disabled FROM portal_account_before;
DROP TABLE portal_account_before;

-- For whom somebody acts: granted by the practice, for a time, and withdrawn by it.
CREATE TABLE portal_proxy (
    id              TEXT PRIMARY KEY,          -- UUID
    patient         TEXT NOT NULL,             -- logical id of the patient
    related         TEXT NOT NULL,             -- logical id of the RelatedPerson who acts
    account         TEXT REFERENCES portal_account (id),  -- NULL until the invitation was used
    name            TEXT NOT NULL,             -- of who acts, as everybody sees it
    birth           TEXT NOT NULL,             -- of who acts: asked by the invitation
    mail            TEXT NOT NULL,             -- lower case
    relation        TEXT NOT NULL,             -- code of v3-RoleCode
    scope           TEXT NOT NULL CHECK (scope IN ('all', 'appointments')),
    granted         INTEGER NOT NULL,
    ends            INTEGER NOT NULL,          -- from then on it opens nothing
    withdrawn       INTEGER
) STRICT;
CREATE INDEX portal_proxy_patient ON portal_proxy (patient);
CREATE INDEX portal_proxy_account ON portal_proxy (account);

-- An invitation is a patient's, or of somebody who acts for one.
ALTER TABLE portal_invite ADD COLUMN proxy TEXT REFERENCES portal_proxy (id);

CREATE TABLE portal_step (
    token_hash      BLOB PRIMARY KEY,
    account         TEXT NOT NULL REFERENCES portal_account (id),
    code_hash       BLOB,                      -- of the code that was mailed; NULL for an authenticator
    wrong           INTEGER NOT NULL DEFAULT 0,
    expires         INTEGER NOT NULL
) STRICT;
CREATE TABLE portal_session (
    token_hash      BLOB PRIMARY KEY,
    account         TEXT NOT NULL REFERENCES portal_account (id),
    csrf            TEXT NOT NULL,             -- new whenever it acts for somebody else: no form goes to the wrong record
    acting          TEXT REFERENCES portal_proxy (id),    -- NULL: for the account's own patient
    created         INTEGER NOT NULL,
    seen            INTEGER NOT NULL
) STRICT;
CREATE INDEX portal_session_account ON portal_session (account);
