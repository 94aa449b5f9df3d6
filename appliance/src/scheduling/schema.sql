-- Who is busy when: drawn from the appointments in the transaction that stores them, so that it never disagrees with them.
CREATE TABLE occupied (
    actor       TEXT NOT NULL,                 -- as the participant says it, 'Practitioner/...'
    start_s     INTEGER NOT NULL,              -- Unix seconds
    end_s       INTEGER NOT NULL,
    rid         INTEGER NOT NULL,              -- the appointment's row
    PRIMARY KEY (actor, start_s, rid)
) STRICT, WITHOUT ROWID;
CREATE INDEX occupied_rid ON occupied (rid);
CREATE TRIGGER occupied_no_more AFTER UPDATE OF deleted ON resource WHEN new.deleted <> 0
BEGIN DELETE FROM occupied WHERE rid = new.rid; END;

-- A time that somebody is just about to book: ends by itself.
CREATE TABLE slot_hold (
    actor       TEXT NOT NULL,
    start_s     INTEGER NOT NULL,
    end_s       INTEGER NOT NULL,
    holder      TEXT NOT NULL,                 -- SHA-256 of what the holder was given, hex
    expires_s   INTEGER NOT NULL,
    PRIMARY KEY (actor, start_s, holder)
) STRICT, WITHOUT ROWID;

-- Calendar feeds: the address's secret is stored as its SHA-256.
CREATE TABLE calendar_feed (
    token_hash  BLOB PRIMARY KEY,
    actor       TEXT NOT NULL,                 -- whose calendar, 'Practitioner/...'
    account     TEXT NOT NULL,                 -- who asked for it
    created_s   INTEGER NOT NULL
) STRICT;

ALTER TABLE outbox ADD COLUMN due_ms INTEGER NOT NULL DEFAULT 0;   -- not before
ALTER TABLE outbox ADD COLUMN reference TEXT NOT NULL DEFAULT '';  -- what it is about, 'Appointment/...'
ALTER TABLE outbox ADD COLUMN problem TEXT NOT NULL DEFAULT '';    -- why the last try failed, in our own words
CREATE INDEX outbox_reference ON outbox (reference) WHERE reference <> '';

-- Online booking: what waits for its code, how often somebody asked, and the links by which appointments are cancelled.
CREATE TABLE online_request (
    token_hash  BLOB PRIMARY KEY,
    code_hash   BLOB NOT NULL,
    details     TEXT NOT NULL,                 -- who wants to come and when; gone after the code or 15 minutes
    guesses     INTEGER NOT NULL,
    expires_s   INTEGER NOT NULL
) STRICT;
CREATE TABLE online_attempt (subject TEXT NOT NULL, at_s INTEGER NOT NULL) STRICT;
CREATE INDEX online_attempt_subject ON online_attempt (subject);
CREATE TABLE appointment_link (
    token_hash  BLOB PRIMARY KEY,
    appointment TEXT NOT NULL,
    expires_s   INTEGER NOT NULL
) STRICT;

-- What the practice decides about itself, beside appliance.toml.
CREATE TABLE practice_setting (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;

INSERT INTO occupied (actor, start_s, end_s, rid)
SELECT DISTINCT json_extract(p.value, '$.actor.reference'), unixepoch(json_extract(r.body, '$.start')),
    unixepoch(json_extract(r.body, '$.end')), r.rid
FROM resource r JOIN resource_type t ON t.id = r.type, json_each(r.body, '$.participant') p
WHERE t.name = 'Appointment' AND r.deleted = 0
    AND json_extract(r.body, '$.status') IN ('pending', 'booked', 'arrived', 'checked-in', 'fulfilled')
    AND substr(json_extract(p.value, '$.actor.reference'), 1, instr(json_extract(p.value, '$.actor.reference'), '/'))
        IN ('Patient/', 'Practitioner/', 'Location/', 'Device/', 'PractitionerRole/')
    AND coalesce(json_extract(p.value, '$.status'), '') <> 'declined'
    AND unixepoch(json_extract(r.body, '$.start')) < unixepoch(json_extract(r.body, '$.end'));
