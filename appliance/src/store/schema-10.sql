-- Rows of tables that another system wrote, and what they became: a repeated import finds them again.
CREATE TABLE imported_row (
    source      TEXT NOT NULL,                 -- the practice's name for the other system
    kind        TEXT NOT NULL,                 -- resource type
    number      TEXT NOT NULL,                 -- what names the row there
    id          TEXT NOT NULL,                 -- logical id here
    version     INTEGER NOT NULL,              -- as the import left it: a later one was changed by a person
    digest      BLOB NOT NULL CHECK (length(digest) = 32),  -- of what the row said
    PRIMARY KEY (source, kind, number)
) STRICT, WITHOUT ROWID;
