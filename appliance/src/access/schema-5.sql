-- Passkeys and security keys of the staff: public keys, nothing that would log in by itself.
CREATE TABLE webauthn_key (
    id              TEXT PRIMARY KEY,          -- UUID
    account         TEXT NOT NULL REFERENCES account (id),
    label           TEXT NOT NULL,             -- what its owner calls it
    credential      BLOB NOT NULL UNIQUE,      -- the id that the key gave itself
    public_key      BLOB NOT NULL,             -- COSE, as the key wrote it
    counter         INTEGER NOT NULL,          -- at its last use
    user_verified   INTEGER NOT NULL,          -- it knew the person when it was registered
    created         INTEGER NOT NULL,          -- Unix seconds
    used            INTEGER
) STRICT;
CREATE INDEX webauthn_key_account ON webauthn_key (account);
