-- Accounts and sessions of the staff. Applied by the store's first migration, in the same database as the records, so
-- that a restored practice can log in.
CREATE TABLE account (
    id              TEXT PRIMARY KEY,          -- UUID
    name            TEXT NOT NULL UNIQUE,      -- login name, lower case
    display         TEXT NOT NULL,             -- what colleagues see
    role            TEXT NOT NULL CHECK (role IN ('front-desk', 'clinician', 'practice-admin')),
    practitioner    TEXT,                      -- id of the Practitioner resource this user is, if any
    password        TEXT NOT NULL,             -- argon2id PHC string
    totp_secret     TEXT NOT NULL,             -- base32
    totp_step       INTEGER,                   -- last accepted step: a code is good once
    created         INTEGER NOT NULL,          -- Unix seconds, as all times here
    disabled        INTEGER
) STRICT;

-- One-time invitations: the token is stored as its SHA-256.
CREATE TABLE invite (
    token_hash      BLOB PRIMARY KEY,
    role            TEXT NOT NULL,
    totp_secret     TEXT NOT NULL,             -- shown while the invitation is open, confirmed by a code
    expires         INTEGER NOT NULL,
    used            INTEGER
) STRICT;

-- Server-side sessions: the cookie's token is stored as its SHA-256.
CREATE TABLE session (
    token_hash      BLOB PRIMARY KEY,
    account         TEXT NOT NULL REFERENCES account (id),
    csrf            TEXT NOT NULL,
    created         INTEGER NOT NULL,
    seen            INTEGER NOT NULL,          -- last request by a person
    locked          INTEGER                    -- since when; unlocked by password
) STRICT;
CREATE INDEX session_account ON session (account);

-- Failed logins, by account name and by address, for the lockout.
CREATE TABLE login_failure (
    subject         TEXT NOT NULL,             -- 'user:<hash of name>' or 'address:<ip>'
    at              INTEGER NOT NULL
) STRICT;
CREATE INDEX login_failure_subject ON login_failure (subject, at);
