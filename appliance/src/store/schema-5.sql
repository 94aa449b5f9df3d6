-- Programs that the practice registered, and their tokens: the database holds hashes, never what would log in.
CREATE TABLE smart_client (
    id          TEXT PRIMARY KEY,
    name        TEXT NOT NULL,
    jwks        TEXT NOT NULL,                 -- public keys
    scopes      TEXT NOT NULL,                 -- divided by spaces
    created_ms  INTEGER NOT NULL,
    disabled_ms INTEGER
) STRICT;
CREATE TABLE smart_token (
    token_hash  BLOB PRIMARY KEY,
    client      TEXT NOT NULL REFERENCES smart_client (id),
    scopes      TEXT NOT NULL,
    expires_ms  INTEGER NOT NULL
) STRICT;
-- Assertions that were used, until they are over: each is good once.
CREATE TABLE smart_assertion (
    client      TEXT NOT NULL,
    jti         TEXT NOT NULL,
    expires_ms  INTEGER NOT NULL,
    PRIMARY KEY (client, jti)
) STRICT, WITHOUT ROWID;
