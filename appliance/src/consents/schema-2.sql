-- What a text governs beside reminders, what holds while a patient has not decided, and whether the portal asks for it. SQLite
-- changes no rule of a column: the texts move into a table that has the wider one.
ALTER TABLE consent_text RENAME TO consent_text_before;
CREATE TABLE consent_text (
    id          TEXT NOT NULL,
    version     INTEGER NOT NULL,
    title       TEXT NOT NULL,
    body        TEXT NOT NULL,
    months      INTEGER NOT NULL,              -- how long a signature is good; 0 for as long as it is not withdrawn
    governs     TEXT NOT NULL CHECK (governs IN ('', 'reminders', 'sharing', 'proxies')),
    needed      INTEGER NOT NULL DEFAULT 1,    -- 1: only with it; 0: unless the patient refused or withdrew it
    portal      INTEGER NOT NULL DEFAULT 0,    -- 1: patients are asked for it in the portal
    in_use      INTEGER NOT NULL,
    account     TEXT NOT NULL,                 -- who wrote it
    created_ms  INTEGER NOT NULL,
    PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;
INSERT INTO consent_text (id, version, title, body, months, governs, needed, portal, in_use, account, created_ms)
    SELECT id, version, title, body, months, governs, 1, 0, in_use, account, created_ms FROM consent_text_before;
DROP TABLE consent_text_before;
CREATE TRIGGER consent_text_keep_d BEFORE DELETE ON consent_text BEGIN SELECT RAISE(ABORT, 'append-only'); END;

-- What a patient decided last about each text that governs something: drawn from the sealed records and their resources, so that
-- every request can ask for it.
CREATE TABLE patient_decision (
    patient     INTEGER NOT NULL,              -- row of the patient
    text        TEXT NOT NULL,
    governs     TEXT NOT NULL,                 -- by the version that was signed
    permits     INTEGER NOT NULL,              -- 0: refused, or withdrawn
    ends        TEXT NOT NULL,                 -- RFC 3339, UTC; empty for no end
    PRIMARY KEY (patient, text)
) STRICT, WITHOUT ROWID;
INSERT INTO patient_decision (patient, text, governs, permits, ends)
    SELECT r.patient, t.id, t.governs, CASE json_extract(r.body, '$.status') WHEN 'active' THEN 1 ELSE 0 END,
           CASE json_extract(r.body, '$.status') WHEN 'active' THEN coalesce(json_extract(r.body, '$.provision.period.end'), '') ELSE '' END
    FROM (SELECT max(s.seq) AS seq FROM consent_record s
          JOIN resource x ON x.id = s.consent AND x.deleted = 0 AND x.patient <> 0
          JOIN resource_type k ON k.id = x.type AND k.name = 'Consent'
          WHERE json_extract(x.body, '$.status') IN ('active', 'inactive', 'rejected')
          GROUP BY x.patient, json_extract(s.record, '$.text_id')) newest
    JOIN consent_record c ON c.seq = newest.seq
    JOIN resource r ON r.id = c.consent
    JOIN resource_type y ON y.id = r.type AND y.name = 'Consent'
    JOIN consent_text t ON t.id = json_extract(c.record, '$.text_id')
        AND t.version = CAST(json_extract(c.record, '$.text_version') AS INTEGER)
    WHERE t.governs <> '';
