-- Forms that were saved, by what a browser gave them: one that is sent again after a lost connection is saved once.
CREATE TABLE form_sent (
    once        BLOB PRIMARY KEY,              -- hash of who sent it and what the browser drew
    request     BLOB NOT NULL,                 -- the one request that saved it
    at_ms       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX form_sent_at ON form_sent (at_ms);
