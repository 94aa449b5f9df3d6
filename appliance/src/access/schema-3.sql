-- Programs that act for a person: how they prove themselves, where an answer may go, where they are launched.
ALTER TABLE smart_client ADD COLUMN kind TEXT NOT NULL DEFAULT 'backend'
    CHECK (kind IN ('backend', 'public', 'symmetric', 'asymmetric'));
ALTER TABLE smart_client ADD COLUMN secret_hash BLOB;            -- SHA-256 of a random secret
ALTER TABLE smart_client ADD COLUMN redirects TEXT NOT NULL DEFAULT '';  -- divided by spaces
ALTER TABLE smart_client ADD COLUMN launch_url TEXT NOT NULL DEFAULT '';

-- What a person allowed a program.
CREATE TABLE smart_grant (
    id          TEXT PRIMARY KEY,
    client      TEXT NOT NULL REFERENCES smart_client (id),
    account     TEXT NOT NULL REFERENCES account (id),
    patient     TEXT,                          -- logical id of whom patient scopes are bound to
    scopes      TEXT NOT NULL,                 -- divided by spaces
    refresh     TEXT NOT NULL CHECK (refresh IN ('none', 'online', 'offline')),
    session     TEXT,                          -- of an online grant: ends with this session
    began_ms    INTEGER NOT NULL,
    ends_ms     INTEGER NOT NULL,
    ended_ms    INTEGER
) STRICT;
CREATE INDEX smart_grant_account ON smart_grant (account, ends_ms);

-- Codes, refresh tokens and launches are kept until they are over, used or not: a second use is noticed.
CREATE TABLE smart_code (
    code_hash   BLOB PRIMARY KEY,
    grant_id    TEXT NOT NULL REFERENCES smart_grant (id),
    redirect    TEXT NOT NULL,
    challenge   TEXT NOT NULL,                 -- S256
    expires_ms  INTEGER NOT NULL,
    used_ms     INTEGER
) STRICT;
CREATE TABLE smart_refresh (
    token_hash  BLOB PRIMARY KEY,
    grant_id    TEXT NOT NULL REFERENCES smart_grant (id),
    expires_ms  INTEGER NOT NULL,
    used_ms     INTEGER
) STRICT;
CREATE INDEX smart_refresh_grant ON smart_refresh (grant_id);
CREATE TABLE smart_launch (
    token_hash  BLOB PRIMARY KEY,
    client      TEXT NOT NULL REFERENCES smart_client (id),
    account     TEXT NOT NULL REFERENCES account (id),
    patient     TEXT NOT NULL,
    expires_ms  INTEGER NOT NULL
) STRICT;

-- NULL for a program that acts by itself.
ALTER TABLE smart_token ADD COLUMN grant_id TEXT REFERENCES smart_grant (id);
CREATE INDEX smart_token_grant ON smart_token (grant_id);
