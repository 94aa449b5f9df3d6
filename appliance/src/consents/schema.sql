-- Texts to which patients consent: a change is a new version, what was signed stays what it was.
CREATE TABLE consent_text (
    id          TEXT NOT NULL,
    version     INTEGER NOT NULL,
    title       TEXT NOT NULL,
    body        TEXT NOT NULL,
    months      INTEGER NOT NULL,              -- how long a signature is good; 0 for as long as it is not withdrawn
    governs     TEXT NOT NULL CHECK (governs IN ('', 'reminders')),  -- what may happen only with it
    in_use      INTEGER NOT NULL,
    account     TEXT NOT NULL,                 -- who wrote it
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;

-- What was signed, as it was shown: text, signature and circumstances in one record, sealed by the server's key and chained
-- to the record before it.
CREATE TABLE consent_record (
    seq         INTEGER PRIMARY KEY,
    consent     TEXT NOT NULL,                 -- id of the Consent resource
    record      TEXT NOT NULL,                 -- JSON, the very bytes that are sealed
    previous    BLOB NOT NULL CHECK (length(previous) = 32),
    hash        BLOB NOT NULL CHECK (length(hash) = 32),
    signature   BLOB NOT NULL CHECK (length(signature) = 64),
    public_key  BLOB NOT NULL CHECK (length(public_key) = 32)
) STRICT;
CREATE INDEX consent_record_consent ON consent_record (consent);
CREATE TRIGGER consent_record_keep_u BEFORE UPDATE ON consent_record BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER consent_record_keep_d BEFORE DELETE ON consent_record BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER consent_text_keep_d BEFORE DELETE ON consent_text BEGIN SELECT RAISE(ABORT, 'append-only'); END;
