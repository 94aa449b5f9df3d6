-- What somebody exports of a group: no copies are made, the files are read from the versions of that moment.
CREATE TABLE export_job (
    id          TEXT PRIMARY KEY,
    owner       TEXT NOT NULL,                 -- the actor's id: a job is nobody else's
    at_ms       INTEGER NOT NULL,
    since_ms    INTEGER NOT NULL,
    kinds       TEXT NOT NULL,                 -- divided by spaces; empty for all
    patients    TEXT NOT NULL                  -- logical ids, divided by spaces
) STRICT;
