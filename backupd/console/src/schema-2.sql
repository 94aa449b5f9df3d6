-- Failed attempts by what they are counted by, in Unix seconds, in place of one count for each account.
CREATE TABLE sign_in_failures (
    subject TEXT NOT NULL,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX sign_in_failures_subject ON sign_in_failures (subject, at);
ALTER TABLE users DROP COLUMN failures;
ALTER TABLE users DROP COLUMN locked_until_ms;
