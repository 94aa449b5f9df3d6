CREATE TABLE users (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL,
    password TEXT NOT NULL,
    totp TEXT NOT NULL,
    -- The newest 30-second step whose code was used: an older or equal code is refused.
    totp_step INTEGER NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    locked_until_ms INTEGER NOT NULL DEFAULT 0,
    disabled_ms INTEGER,
    -- Fingerprint of the key with which an owner signs approvals; set once.
    approval_key TEXT UNIQUE,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE invites (
    token_hash BLOB PRIMARY KEY,
    role TEXT NOT NULL,
    totp TEXT NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms INTEGER
) STRICT;

CREATE TABLE sessions (
    token_hash BLOB PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES users (id),
    csrf TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    who TEXT NOT NULL,
    act TEXT NOT NULL,
    subject TEXT NOT NULL,
    hash BLOB NOT NULL
) STRICT;
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'append only'); END;
CREATE TRIGGER audit_keeps_words BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'append only'); END;

CREATE TABLE alerts (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    severity TEXT NOT NULL,
    since_ms INTEGER NOT NULL,
    opened_ms INTEGER NOT NULL,
    sent_ms INTEGER NOT NULL,
    repeats INTEGER NOT NULL DEFAULT 0,
    acknowledged_ms INTEGER,
    acknowledged_by TEXT,
    closed_ms INTEGER
) STRICT;
-- One open alert for one fact.
CREATE UNIQUE INDEX alerts_open ON alerts (source, kind, subject) WHERE closed_ms IS NULL;

CREATE TABLE alert_events (
    alert INTEGER NOT NULL REFERENCES alerts (id),
    at_ms INTEGER NOT NULL,
    what TEXT NOT NULL,
    who TEXT
) STRICT;
CREATE INDEX alert_events_alert ON alert_events (alert, at_ms);

-- Messages that wait to be sent: written in the transaction of the event, so that a restart loses none.
CREATE TABLE deliveries (
    id INTEGER PRIMARY KEY,
    alert INTEGER NOT NULL REFERENCES alerts (id),
    what TEXT NOT NULL,
    channel TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    next_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    done_ms INTEGER,
    gave_up_ms INTEGER,
    error TEXT
) STRICT;
CREATE INDEX deliveries_waiting ON deliveries (channel, next_ms) WHERE done_ms IS NULL AND gave_up_ms IS NULL;

CREATE TABLE remembered (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
