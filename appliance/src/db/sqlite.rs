//! SQLite: one file, through rusqlite.

use super::{Connection, Error, Flush, Params, Result, ValueRef};
use rusqlite::OpenFlags;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::config::DbConfig;
use std::cell::Cell;
use std::ops::DerefMut;
use std::path::Path;
use std::time::Duration;

/// How long a statement waits for another process's write, e.g. `appliance user invite` beside the service.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Statements that a connection keeps understood.
const STATEMENTS: usize = 128;
/// Pages in the log before they are moved into the database.
const LOG_PAGES: i64 = 1000;

pub struct Database {
    connection: rusqlite::Connection,
    flush: Cell<Flush>,
}

pub(super) enum Statement<'c> {
    Cached(rusqlite::CachedStatement<'c>),
    Once(rusqlite::Statement<'c>),
}

/// The connection that writes the records.
pub fn open_to_write(file: &Path) -> Result<Connection> {
    let sqlite = rusqlite::Connection::open(file)?;
    sqlite.busy_timeout(BUSY_TIMEOUT)?;
    // 4096 is the size of a disk's and the page cache's page: a one-row change rewrites (and a snapshot carries) 4 KiB.
    // FHIR bodies of 1 to 4 KB overflow a page rarely enough that larger pages only made changes more expensive.
    sqlite.pragma_update(None, "page_size", 4096)?;
    sqlite.pragma_update(None, "journal_mode", "wal")?;
    // FULL: a commit is on the disk when a clinician sees "saved".
    sqlite.pragma_update(None, "synchronous", "full")?;
    sqlite.pragma_update(None, "foreign_keys", true)?;
    plan_once(&sqlite)?;
    sqlite.pragma_update(None, "trusted_schema", false)?;
    sqlite.pragma_update(None, "cache_size", -16_384)?;
    // A log that grew while a copy was made gives its room back.
    sqlite.pragma_update(None, "journal_size_limit", 64 << 20)?;
    sqlite.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(Database::new(sqlite).into())
}

/// A connection that reads the records beside the one that writes them.
pub fn open_to_read(file: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = rusqlite::Connection::open_with_flags(file, flags)?;
    sqlite.busy_timeout(BUSY_TIMEOUT)?;
    sqlite.pragma_update(None, "query_only", true)?;
    plan_once(&sqlite)?;
    sqlite.pragma_update(None, "trusted_schema", false)?;
    sqlite.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(Database::new(sqlite).into())
}

/// A file that has to be there.
pub fn open_existing(file: &Path) -> Result<Connection> {
    let sqlite = rusqlite::Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    Ok(Database::new(sqlite).into())
}

/// A file that nothing changes: no lock, no journal, nothing is created beside it.
pub fn open_immutable(file: &Path) -> Result<Connection> {
    let mut uri = String::from("file:");
    for byte in std::os::unix::ffi::OsStrExt::as_bytes(file.as_os_str()) {
        match byte {
            b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            byte if byte.is_ascii_alphanumeric() => uri.push(char::from(*byte)),
            byte => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let sqlite = rusqlite::Connection::open_with_flags(uri, flags)?;
    sqlite.pragma_update(None, "trusted_schema", false)?;
    // Rows of a damaged page are checked before they are believed.
    sqlite.pragma_update(None, "cell_size_check", true)?;
    Ok(Database::new(sqlite).into())
}

/// A file that is thrown away when a crash cuts its making off: it needs neither journal nor fsync.
pub fn open_throwaway(file: &Path) -> Result<Connection> {
    let sqlite = rusqlite::Connection::open(file)?;
    sqlite.pragma_update(None, "journal_mode", "off")?;
    sqlite.pragma_update(None, "synchronous", "off")?;
    Ok(Database::new(sqlite).into())
}

/// A statement keeps its plan whatever values are bound. Otherwise each new value of a read by id planned it anew, which
/// cost more than the read.
fn plan_once(sqlite: &rusqlite::Connection) -> Result<()> {
    Ok(sqlite.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true).map(drop)?)
}

impl Database {
    pub(super) fn new(connection: rusqlite::Connection) -> Database {
        Database { connection, flush: Cell::new(Flush::First) }
    }

    pub(super) fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        Ok(Statement::Once(self.connection.prepare(sql)?))
    }

    pub(super) fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        Ok(Statement::Cached(self.connection.prepare_cached(sql)?))
    }

    pub(super) fn execute_batch(&self, sql: &str) -> Result<()> {
        Ok(self.connection.execute_batch(sql)?)
    }

    /// The number of the row that was added last.
    pub(super) fn last_row(&self) -> i64 {
        self.connection.last_insert_rowid()
    }

    /// The few statements around every job are parsed once.
    pub(super) fn run(&self, sql: &str) -> Result<()> {
        Ok(self.connection.prepare_cached(sql)?.raw_execute().map(drop)?)
    }

    pub(super) fn rollback(&self) -> Result<()> {
        if self.connection.is_autocommit() { Ok(()) } else { self.execute_batch("ROLLBACK") }
    }

    /// NORMAL leaves the log unflushed at a commit, and the next commit under FULL flushes all of it. Only under FULL does a
    /// commit move a full log into the database, which waits for the disk.
    pub(super) fn set_flush(&self, flush: Flush) -> Result<()> {
        if self.flush.get() == flush {
            return Ok(());
        }
        // Takes effect while it is parsed: no statement for the cache.
        let (synchronous, log_pages) = if flush == Flush::Soon { ("normal", 0) } else { ("full", LOG_PAGES) };
        self.connection.pragma_update(None, "synchronous", synchronous)?;
        self.connection.pragma_update(None, "wal_autocheckpoint", log_pages)?;
        self.flush.set(flush);
        Ok(())
    }

    pub(super) fn checkpoint(&self) -> Result<()> {
        Ok(self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }

    /// A number that the file carries, of the program's choice: `user_version`, `application_id`.
    pub fn number(&self, name: &str) -> Result<i64> {
        Ok(self.connection.pragma_query_value(None, name, |row| row.get(0))?)
    }

    pub fn set_number(&self, name: &str, number: i64) -> Result<()> {
        Ok(self.connection.pragma_update(None, name, number)?)
    }

    /// Copies the whole database into a new file, as it is at one moment, a few pages at a time; `goes_on` is asked between
    /// them. Whether it went on to the end.
    pub fn copy_into(&self, file: &Path, pages: i32, goes_on: &dyn Fn() -> bool) -> Result<bool> {
        let mut target = open_throwaway(file)?;
        let target = target.sqlite_mut().ok_or(Error::Refused(super::Code::Misuse))?;
        let backup = Backup::new(&self.connection, &mut target.connection)?;
        loop {
            match backup.step(pages)? {
                StepResult::Done => return Ok(true),
                StepResult::More if goes_on() => {}
                StepResult::More => return Ok(false),
                _ => return Err(Error::Busy),
            }
        }
    }
}

impl<'c> Statement<'c> {
    fn inner(&mut self) -> &mut rusqlite::Statement<'c> {
        match self {
            Statement::Cached(statement) => statement.deref_mut(),
            Statement::Once(statement) => statement,
        }
    }

    fn bind(&mut self, params: impl Params) -> Result<&mut rusqlite::Statement<'c>> {
        let statement = self.inner();
        let mut place = 0;
        params.bind(&mut |value| {
            place += 1;
            if let ValueRef::Text(text) = value
                && text.contains(&0)
            {
                return Err(Error::ZeroCharacter);
            }
            Ok(statement.raw_bind_parameter(place, value)?)
        })?;
        if place != statement.parameter_count() {
            return Err(Error::Refused(super::Code::Misuse));
        }
        Ok(statement)
    }

    pub(super) fn execute(&mut self, params: impl Params) -> Result<usize> {
        Ok(self.bind(params)?.raw_execute()?)
    }

    pub(super) fn query(&mut self, params: impl Params) -> Result<rusqlite::Rows<'_>> {
        Ok(self.bind(params)?.raw_query())
    }

    pub(super) fn column_names(&self) -> Vec<String> {
        let statement: &rusqlite::Statement<'c> = match self {
            Statement::Cached(statement) => statement,
            Statement::Once(statement) => statement,
        };
        statement.column_names().map(str::to_owned).collect()
    }
}

impl<'v> From<rusqlite::types::ValueRef<'v>> for ValueRef<'v> {
    fn from(value: rusqlite::types::ValueRef<'v>) -> ValueRef<'v> {
        use rusqlite::types::ValueRef as Sqlite;
        match value {
            Sqlite::Null => ValueRef::Null,
            Sqlite::Integer(number) => ValueRef::Integer(number),
            Sqlite::Real(number) => ValueRef::Real(number),
            Sqlite::Text(text) => ValueRef::Text(text),
            Sqlite::Blob(bytes) => ValueRef::Blob(bytes),
        }
    }
}

impl rusqlite::ToSql for ValueRef<'_> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        use rusqlite::types::ValueRef as Sqlite;
        Ok(rusqlite::types::ToSqlOutput::Borrowed(match self {
            ValueRef::Null => Sqlite::Null,
            ValueRef::Integer(number) => Sqlite::Integer(*number),
            ValueRef::Real(number) => Sqlite::Real(*number),
            ValueRef::Text(text) => Sqlite::Text(text),
            ValueRef::Blob(bytes) => Sqlite::Blob(bytes),
        }))
    }
}
