-- Who a person is, told to a program that they allow it (OpenID Connect).
ALTER TABLE smart_grant ADD COLUMN identity TEXT NOT NULL DEFAULT '';  -- `openid`, `openid fhirUser`, or nothing
ALTER TABLE smart_code ADD COLUMN nonce TEXT NOT NULL DEFAULT '';      -- what the program sent along for its ID token
