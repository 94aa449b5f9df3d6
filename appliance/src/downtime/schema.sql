-- Office computers that pull the downtime pack: the token is stored as its SHA-256.
CREATE TABLE downtime_access (
    token_hash  BLOB PRIMARY KEY,
    name        TEXT NOT NULL,                 -- what the practice calls the computer
    account     TEXT NOT NULL,                 -- who let it in
    created_s   INTEGER NOT NULL,
    pulled_s    INTEGER                        -- when it last had the pack
) STRICT;
