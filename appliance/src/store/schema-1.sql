-- Layout: integer ids everywhere, the patient in the key of every index row, history of superseded versions only.
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

-- Names of resource types and search parameters, so that the file explains itself to a later reader.
CREATE TABLE resource_type (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE param (id INTEGER PRIMARY KEY, type TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (type, name)) STRICT;

CREATE TABLE resource (
    rid         INTEGER PRIMARY KEY,
    type        INTEGER NOT NULL REFERENCES resource_type (id),
    id          TEXT NOT NULL,                 -- the logical id of FHIR
    version     INTEGER NOT NULL,
    updated_ms  INTEGER NOT NULL,              -- Unix milliseconds, as all times here
    patient     INTEGER NOT NULL,              -- rid of the patient whose compartment this is in; 0 = none
    deleted     INTEGER NOT NULL DEFAULT 0,
    body        TEXT NOT NULL,                 -- the JSON as served, id and meta included
    UNIQUE (type, id)
) STRICT;
CREATE INDEX resource_of_patient ON resource (patient, type);
CREATE INDEX resource_of_type ON resource (type);

-- Superseded versions only: the current one is in resource.
CREATE TABLE history (
    rid         INTEGER NOT NULL REFERENCES resource (rid),
    version     INTEGER NOT NULL,
    updated_ms  INTEGER NOT NULL,
    body        TEXT NOT NULL,
    PRIMARY KEY (rid, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE ix_token (
    param INTEGER NOT NULL, code TEXT NOT NULL, patient INTEGER NOT NULL, rid INTEGER NOT NULL, system TEXT NOT NULL,
    PRIMARY KEY (param, code, patient, rid, system)
) STRICT, WITHOUT ROWID;
CREATE TABLE ix_string (
    param INTEGER NOT NULL, value TEXT NOT NULL, patient INTEGER NOT NULL, rid INTEGER NOT NULL,
    PRIMARY KEY (param, value, patient, rid)
) STRICT, WITHOUT ROWID;
CREATE TABLE ix_date (
    param INTEGER NOT NULL, patient INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL, rid INTEGER NOT NULL,
    PRIMARY KEY (param, patient, lo, hi, rid)
) STRICT, WITHOUT ROWID;
CREATE INDEX ix_date_calendar ON ix_date (param, lo);
CREATE TABLE ix_ref (
    param INTEGER NOT NULL, target TEXT NOT NULL, rid INTEGER NOT NULL,
    PRIMARY KEY (param, target, rid)
) STRICT, WITHOUT ROWID;
-- To remove a resource's index rows when a newer version replaces them.
CREATE INDEX ix_token_rid ON ix_token (rid);
CREATE INDEX ix_string_rid ON ix_string (rid);
CREATE INDEX ix_date_rid ON ix_date (rid);
CREATE INDEX ix_ref_rid ON ix_ref (rid);

CREATE TABLE attachment (
    id          TEXT PRIMARY KEY,              -- the logical id of Binary
    digest      BLOB NOT NULL CHECK (length(digest) = 32),  -- BLAKE3 of the bytes, and the file's name
    bytes       INTEGER NOT NULL,
    media_type  TEXT NOT NULL,
    patient     INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL
) STRICT;
CREATE INDEX attachment_digest ON attachment (digest);

-- Double entry: the entries of one posting sum to zero; nothing is changed afterwards, a mistake is reversed.
CREATE TABLE ledger_posting (
    id INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, actor TEXT NOT NULL, kind TEXT NOT NULL, reference TEXT NOT NULL
) STRICT;
CREATE TABLE ledger_entry (
    id INTEGER PRIMARY KEY, posting INTEGER NOT NULL REFERENCES ledger_posting (id),
    account TEXT NOT NULL, patient INTEGER NOT NULL, cents INTEGER NOT NULL
) STRICT;
CREATE INDEX ledger_entry_account ON ledger_entry (account, patient);

CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY,           -- 1, 2, 3 ... without a gap
    at_ms       INTEGER NOT NULL,
    actor       TEXT NOT NULL,
    actor_name  TEXT NOT NULL,
    capacity    TEXT NOT NULL,
    action      TEXT NOT NULL,
    kind        TEXT NOT NULL,
    object      TEXT NOT NULL,
    patient     TEXT NOT NULL,
    outcome     TEXT NOT NULL,
    matches     INTEGER NOT NULL,
    hash        BLOB NOT NULL CHECK (length(hash) = 32)     -- over the previous hash and every column above
) STRICT;
CREATE INDEX audit_patient ON audit (patient) WHERE patient <> '';

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY, created_ms INTEGER NOT NULL, channel TEXT NOT NULL, payload TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'sent', 'failed')), tries INTEGER NOT NULL
) STRICT;
CREATE INDEX outbox_waiting ON outbox (id) WHERE state = 'waiting';

CREATE TABLE canary (sequence INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL) STRICT;

-- Bundles that `appliance import` has loaded, so that a repeated import adds nothing twice.
CREATE TABLE imported (digest BLOB PRIMARY KEY, at_ms INTEGER NOT NULL, resources INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TRIGGER ledger_posting_keep_u BEFORE UPDATE ON ledger_posting BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER ledger_posting_keep_d BEFORE DELETE ON ledger_posting BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER ledger_entry_keep_u BEFORE UPDATE ON ledger_entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER ledger_entry_keep_d BEFORE DELETE ON ledger_entry BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER audit_keep_u BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER audit_keep_d BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER history_keep_u BEFORE UPDATE ON history BEGIN SELECT RAISE(ABORT, 'append-only'); END;
CREATE TRIGGER history_keep_d BEFORE DELETE ON history BEGIN SELECT RAISE(ABORT, 'append-only'); END;
