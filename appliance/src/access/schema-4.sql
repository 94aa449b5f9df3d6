-- Patients who see their own record: accounts, invitations and sessions apart from those of the staff.
CREATE TABLE portal_account (
    id              TEXT PRIMARY KEY,          -- UUID
    patient         TEXT NOT NULL UNIQUE,      -- logical id of the one patient that it opens
    mail            TEXT NOT NULL UNIQUE,      -- the login name, lower case
    password        TEXT NOT NULL,             -- argon2id PHC string
    totp_secret     TEXT,                      -- base32; NULL where the second factor is a code by mail
    totp_step       INTEGER,                   -- last accepted step: a code is good once
    created         INTEGER NOT NULL,          -- Unix seconds, as all times here
    disabled        INTEGER
) STRICT;

-- One-time invitations: the token is stored as its SHA-256. The birth date is asked, so that a mail that went astray opens nothing.
CREATE TABLE portal_invite (
    token_hash      BLOB PRIMARY KEY,
    patient         TEXT NOT NULL,
    mail            TEXT NOT NULL,
    totp_secret     TEXT NOT NULL,             -- shown while the invitation is open, confirmed by a code
    wrong           INTEGER NOT NULL DEFAULT 0,
    expires         INTEGER NOT NULL,
    used            INTEGER
) STRICT;

-- Between password and second factor.
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
    csrf            TEXT NOT NULL,
    created         INTEGER NOT NULL,
    seen            INTEGER NOT NULL
) STRICT;
CREATE INDEX portal_session_account ON portal_session (account);
