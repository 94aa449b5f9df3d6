-- The first 16 bytes of the body's BLAKE3: a body that was changed past this program, or by a bad disk, is noticed.
ALTER TABLE resource ADD COLUMN digest BLOB;   -- NULL: written by schema 1
