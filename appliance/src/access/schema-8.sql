-- With what kind of program and machine somebody logged in, as the list of sessions shows it.
ALTER TABLE session ADD COLUMN device TEXT NOT NULL DEFAULT '';
