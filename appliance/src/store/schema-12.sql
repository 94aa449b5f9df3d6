-- The name of the file that holds an attachment (the BLAKE3 of what it holds), and the key that opens it. No file: it lies
-- plain under the name of its digest, as older releases kept it. A file without a key: the key is ended, and with it the file.
ALTER TABLE attachment ADD COLUMN file BLOB CHECK (file IS NULL OR length(file) = 32);
ALTER TABLE attachment ADD COLUMN key BLOB CHECK (key IS NULL OR length(key) = 32);
