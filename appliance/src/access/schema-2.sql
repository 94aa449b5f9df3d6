-- Codes for the day when the authenticator is lost: each is good once, stored as its SHA-256.
CREATE TABLE recovery_code (
    account     TEXT NOT NULL REFERENCES account (id),
    code_hash   BLOB NOT NULL,
    used        INTEGER,
    PRIMARY KEY (account, code_hash)
) STRICT, WITHOUT ROWID;

-- Access in an emergency: with a reason, for an hour, looked at by an administrator afterwards.
CREATE TABLE break_glass (
    id          TEXT PRIMARY KEY,
    account     TEXT NOT NULL REFERENCES account (id),
    reason      TEXT NOT NULL,
    began       INTEGER NOT NULL,
    ends        INTEGER NOT NULL,
    reviewed    INTEGER,
    reviewer    TEXT,
    verdict     TEXT
) STRICT;
CREATE INDEX break_glass_account ON break_glass (account, ends);
