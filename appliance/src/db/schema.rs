//! The number of the schema that a database has reached, and the steps from one to the next.

use super::{Backend, Connection, Error, Result, Row};

/// Marks a file as ours ("HfEM"), so that a foreign SQLite file is refused by name instead of being migrated.
const APPLICATION_ID: i64 = 0x4866_454d;

/// Where PostgreSQL keeps the number. The table is no part of the schema: no copy carries it.
const NUMBER_TABLE: &str =
    "CREATE TABLE holdfast_schema (number bigint NOT NULL); INSERT INTO holdfast_schema VALUES (0)";

impl Connection {
    /// The number of its schema, 0 for an empty database; `None` for one that another program made.
    pub fn schema_number(&self) -> Result<Option<u32>> {
        let (number, marked, tables) = match &self.backend {
            Backend::Sqlite(sqlite) => {
                let tables = "SELECT count(*) FROM sqlite_schema";
                let tables: u32 = self.query_row(tables, [], |row| row.get(0))?;
                (sqlite.number("user_version")?, sqlite.number("application_id")? == APPLICATION_ID, tables)
            }
            Backend::Postgres(_) => {
                let tables = "SELECT count(*), count(*) FILTER (WHERE c.relname = 'holdfast_schema') FROM pg_class c \
                              JOIN pg_namespace n ON n.oid = c.relnamespace \
                              WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm')";
                let (tables, marks): (u32, u32) = self.query_row(tables, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
                let number = "SELECT number FROM holdfast_schema";
                let number = if marks == 0 { 0 } else { self.query_row(number, [], |row| row.get(0))? };
                (number, marks > 0, tables)
            }
        };
        let number = u32::try_from(number).map_err(|_| Error::Column)?;
        Ok(if (number > 0 || tables > 0) && !marked { None } else { Some(number) })
    }

    /// Notes that the schema has this number now.
    pub fn set_schema_number(&self, number: u32) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => {
                sqlite.set_number("application_id", APPLICATION_ID)?;
                sqlite.set_number("user_version", number.into())
            }
            Backend::Postgres(_) => self.execute("UPDATE holdfast_schema SET number = ?1", [number]).map(drop),
        }
    }

    /// What a database needs before the first step.
    pub fn begin_schema(&self) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(session) => session.make_functions().and_then(|()| self.execute_batch(NUMBER_TABLE)),
        }
    }

    /// Runs a step. `moves_data`: there are rows that it brings along.
    pub fn run_step(&self, sql: &str, moves_data: bool) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.execute_batch(sql),
            Backend::Postgres(session) => session.make(sql, moves_data),
        }
    }

    /// Refuses a server's database that would not do as SQLite does.
    pub fn check_server(&self) -> Result<()> {
        let Backend::Postgres(_) = &self.backend else { return Ok(()) };
        let sql = "SELECT current_setting('server_version_num')::bigint, pg_encoding_to_char(encoding)::text, \
                   datcollate::text, datctype::text, datlocprovider::text FROM pg_database WHERE datname = current_database()";
        let row = |row: &Row<'_>| Ok((row.get(0)?, [row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?]));
        let (version, [encoding, collate, ctype, provider]): (i64, [String; 4]) = self.query_row(sql, [], row)?;
        if version < 150_000 {
            return Err(Error::Server("it is older than PostgreSQL 15"));
        }
        if encoding != "UTF8" {
            return Err(Error::Server(
                "its encoding is not UTF8: make it with `createdb --template=template0 --encoding=UTF8 --locale=C`",
            ));
        }
        let is_plain = |locale: String| matches!(locale.as_str(), "C" | "POSIX");
        if !is_plain(collate) || !is_plain(ctype) || provider == "i" {
            return Err(Error::Server(
                "its collation is not C, so that it would order and compare otherwise than the records are ordered: make it with \
                 `createdb --template=template0 --encoding=UTF8 --locale=C`",
            ));
        }
        let fsync: String = self.query_row("SELECT current_setting('fsync')", [], |row| row.get(0))?;
        if fsync != "on" {
            log::error!("database.fsync-off");
        }
        // The server's own log is no place for records either, and only its administrator can say so.
        for (setting, silent) in
            [("log_error_verbosity", "terse"), ("log_statement", "none"), ("log_min_duration_statement", "-1")]
        {
            let sql = "SELECT current_setting(?1)";
            let found: String = self.query_row(sql, [setting], |row| row.get(0))?;
            if found != silent {
                log::warn!(setting; "database.log-tells-values");
            }
        }
        Ok(())
    }
}
