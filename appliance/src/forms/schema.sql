-- Phrases of a clinician: ".word " in a text becomes the phrase.
CREATE TABLE phrase (
    account     TEXT NOT NULL,
    name        TEXT NOT NULL,
    text        TEXT NOT NULL,
    PRIMARY KEY (account, name)
) STRICT, WITHOUT ROWID;
