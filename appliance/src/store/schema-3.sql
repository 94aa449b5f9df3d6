-- Index rows are drawn from the body alone, so that they are removed by drawing them again: no second index by row. The
-- next start draws them all anew.
DROP TABLE ix_token;
DROP TABLE ix_string;
DROP TABLE ix_date;
DROP TABLE ix_ref;
CREATE TABLE ix_token (
    param INTEGER NOT NULL, code TEXT NOT NULL, patient INTEGER NOT NULL, rid INTEGER NOT NULL, system TEXT NOT NULL,
    PRIMARY KEY (param, code, patient, rid, system)
) STRICT, WITHOUT ROWID;
CREATE TABLE ix_string (
    param INTEGER NOT NULL, value TEXT NOT NULL,   -- folded
    patient INTEGER NOT NULL, rid INTEGER NOT NULL,
    exact TEXT NOT NULL,                           -- as written; empty where that is the folded form
    PRIMARY KEY (param, value, patient, rid, exact)
) STRICT, WITHOUT ROWID;
CREATE TABLE ix_date (
    param INTEGER NOT NULL, patient INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL, rid INTEGER NOT NULL,
    PRIMARY KEY (param, patient, lo, hi, rid)
) STRICT, WITHOUT ROWID;
CREATE INDEX ix_date_calendar ON ix_date (param, lo);
CREATE TABLE ix_ref (
    param INTEGER NOT NULL, target TEXT NOT NULL, patient INTEGER NOT NULL, rid INTEGER NOT NULL,
    PRIMARY KEY (param, target, patient, rid)
) STRICT, WITHOUT ROWID;
CREATE TABLE ix_quantity (
    param INTEGER NOT NULL, patient INTEGER NOT NULL, value REAL NOT NULL, rid INTEGER NOT NULL,
    system TEXT NOT NULL, code TEXT NOT NULL, unit TEXT NOT NULL,
    PRIMARY KEY (param, patient, value, rid, system, code, unit)
) STRICT, WITHOUT ROWID;
DELETE FROM meta WHERE key = 'index-parameters';

-- For `_lastUpdated`, and for the history of a type.
CREATE INDEX resource_updated ON resource (type, updated_ms);
CREATE INDEX history_updated ON history (updated_ms, rid);
