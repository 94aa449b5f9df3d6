//! The database under the records, behind one small interface: all of this program speaks to [`Connection`], and what
//! differs from one database to another stands in this module.
//!
//! The texts of SQL are one for all: places are written `?1`, what is there already is passed over with `ON CONFLICT DO
//! NOTHING`, and a new row's number is what [`Connection::insert`] gives.

mod copy;
mod error;
mod place;
pub mod postgres;
mod schema;
pub mod sqlite;
mod value;

pub use copy::{Copied, copy, count, follow};

pub use error::{Code, Error, OptionalExtension, Result};
pub use place::Place;
pub(crate) use value::params;
pub use value::{Binder, FromSql, Params, ToSql, Value, ValueRef, params_from_iter};

use std::path::Path;
use std::sync::Arc;

/// When a transaction's changes are on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flush {
    /// Right after the answer: entries of the audit about reads.
    Soon,
    /// Before the answer: all that somebody was told is saved.
    First,
}

/// An open database.
pub struct Connection {
    backend: Backend,
}

enum Backend {
    Sqlite(sqlite::Database),
    Postgres(postgres::Session),
}

/// A statement with places for values.
pub struct Statement<'c>(OneOf<sqlite::Statement<'c>, postgres::Statement<'c>>);

/// What a statement finds, a row at a time.
pub struct Rows<'s>(OneOf<rusqlite::Rows<'s>, postgres::Rows<'s>>);

/// One row, until the next is asked for.
pub struct Row<'r>(OneOf<&'r rusqlite::Row<'r>, postgres::Row<'r>>);

enum OneOf<S, P> {
    Sqlite(S),
    Postgres(P),
}

/// Rows, each made into something.
pub struct Mapped<'s, F> {
    rows: Rows<'s>,
    map: F,
}

/// Several statements that count together or not at all. Dropped without [`Transaction::commit`], it undoes them.
pub struct Transaction<'c> {
    connection: &'c Connection,
    open: bool,
}

impl Connection {
    /// A file of SQLite's, made where it is not there.
    pub fn open(file: impl AsRef<Path>) -> Result<Connection> {
        Ok(sqlite::Database::new(rusqlite::Connection::open(file)?).into())
    }

    #[cfg(test)]
    pub fn open_in_memory() -> Result<Connection> {
        Ok(sqlite::Database::new(rusqlite::Connection::open_in_memory()?).into())
    }

    /// A database of a PostgreSQL server.
    pub fn connect(server: &Arc<postgres::Server>, task: postgres::Task) -> Result<Connection> {
        Ok(Connection { backend: Backend::Postgres(postgres::Session::open(server, task)?) })
    }

    /// A statement that is used once.
    pub fn prepare(&self, sql: &str) -> Result<Statement<'_>> {
        Ok(Statement(match &self.backend {
            Backend::Sqlite(sqlite) => OneOf::Sqlite(sqlite.prepare(sql)?),
            Backend::Postgres(session) => OneOf::Postgres(session.prepare(sql)?),
        }))
    }

    /// A statement that is used again and again: it is understood once.
    pub fn prepare_cached(&self, sql: &str) -> Result<Statement<'_>> {
        Ok(Statement(match &self.backend {
            Backend::Sqlite(sqlite) => OneOf::Sqlite(sqlite.prepare_cached(sql)?),
            Backend::Postgres(session) => OneOf::Postgres(session.prepare(sql)?),
        }))
    }

    /// Carries out one statement; gives how many rows it changed.
    pub fn execute(&self, sql: &str, params: impl Params) -> Result<usize> {
        self.prepare(sql)?.execute(params)
    }

    /// The first row that a statement finds.
    ///
    /// # Errors
    /// [`Error::NoRows`] where it finds none.
    pub fn query_row<T>(&self, sql: &str, params: impl Params, map: impl FnOnce(&Row<'_>) -> Result<T>) -> Result<T> {
        self.prepare(sql)?.query_row(params, map)
    }

    /// Carries out statements without values, divided by semicolons.
    pub fn execute_batch(&self, sql: &str) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.execute_batch(sql),
            Backend::Postgres(session) => session.execute_batch(sql),
        }
    }

    /// Adds one row to a table whose rows are numbered in the column `key`, and gives the row's number.
    pub fn insert(&self, key: &str, sql: &str, params: impl Params) -> Result<i64> {
        match &self.backend {
            Backend::Sqlite(sqlite) => {
                sqlite.prepare_cached(sql)?.execute(params)?;
                Ok(sqlite.last_row())
            }
            Backend::Postgres(_) => {
                self.prepare_cached(&format!("{sql} RETURNING {key}"))?.query_row(params, |row| row.get(0))
            }
        }
    }

    /// Columns of a table, in their order.
    pub fn columns(&self, table: &str) -> Result<Vec<String>> {
        let sql = match &self.backend {
            Backend::Sqlite(_) => "SELECT name FROM pragma_table_info(?1) ORDER BY cid",
            Backend::Postgres(_) => {
                "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?1) AND attnum > 0 AND NOT attisdropped \
                 AND attname <> 'rowid' ORDER BY attnum"
            }
        };
        let mut statement = self.prepare(sql)?;
        statement.query_map([table], |row| row.get(0))?.collect()
    }

    /// Begins to read: until [`Connection::end_read`] the records are those of one moment, that of the first read.
    pub fn begin_read(&self) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.run("BEGIN"),
            Backend::Postgres(session) => session.begin_read(),
        }
    }

    pub fn end_read(&self) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.run("ROLLBACK"),
            Backend::Postgres(session) => session.rollback(),
        }
    }

    /// Begins to write, as the only one who does.
    pub fn begin_write(&self, flush: Flush) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.set_flush(flush).and_then(|()| sqlite.run("BEGIN IMMEDIATE")),
            Backend::Postgres(session) => session.begin_write(flush),
        }
    }

    /// Commits what was written; where that fails, nothing of it is left.
    pub fn commit(&self) -> Result<()> {
        let committed = match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.run("COMMIT"),
            Backend::Postgres(session) => session.commit(),
        };
        if committed.is_err() {
            // The failed commit is what callers hear of; a failed rollback shows at the next beginning.
            let _ = self.rollback();
        }
        committed
    }

    /// Undoes what was written, where a transaction is open.
    pub fn rollback(&self) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.rollback(),
            Backend::Postgres(session) => session.rollback(),
        }
    }

    /// Marks where [`Connection::rollback_to_savepoint`] goes back to.
    pub fn savepoint(&self) -> Result<()> {
        self.unanswered("SAVEPOINT job")
    }

    pub fn rollback_to_savepoint(&self) -> Result<()> {
        self.unanswered("ROLLBACK TO job")
    }

    /// Ends the last savepoint; what was written since is part of the transaction.
    pub fn release_savepoint(&self) -> Result<()> {
        self.unanswered("RELEASE job")
    }

    fn unanswered(&self, sql: &str) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.run(sql),
            Backend::Postgres(session) => session.later(sql),
        }
    }

    /// A transaction that may begin with reading.
    pub fn transaction(&self) -> Result<Transaction<'_>> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.run("BEGIN")?,
            // Whoever reads there before the lock sees what others change afterwards.
            Backend::Postgres(session) => session.begin_write(Flush::First)?,
        }
        Ok(Transaction { connection: self, open: true })
    }

    /// A transaction during which nobody else writes.
    pub fn transaction_to_write(&self) -> Result<Transaction<'_>> {
        self.begin_write(Flush::First)?;
        Ok(Transaction { connection: self, open: true })
    }

    /// Brings to the disk what was committed with [`Flush::Soon`], on a connection beside the one that writes.
    pub fn flush(&self) -> Result<()> {
        match &self.backend {
            // Its log is a file, which whoever writes it flushes.
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(session) => session.flush(),
        }
    }

    /// Moves as much of the log into the database as nobody reads from; a server does that by itself.
    pub fn checkpoint(&self) -> Result<()> {
        match &self.backend {
            Backend::Sqlite(sqlite) => sqlite.checkpoint(),
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// The SQLite database, for what only files can do.
    pub(crate) fn as_sqlite(&self) -> Option<&sqlite::Database> {
        if let Backend::Sqlite(sqlite) = &self.backend { Some(sqlite) } else { None }
    }

    fn sqlite_mut(&mut self) -> Option<&mut sqlite::Database> {
        if let Backend::Sqlite(sqlite) = &mut self.backend { Some(sqlite) } else { None }
    }
}

impl From<sqlite::Database> for Connection {
    fn from(sqlite: sqlite::Database) -> Connection {
        Connection { backend: Backend::Sqlite(sqlite) }
    }
}

impl Statement<'_> {
    /// Carries the statement out; gives how many rows it changed.
    pub fn execute(&mut self, params: impl Params) -> Result<usize> {
        match &mut self.0 {
            OneOf::Sqlite(statement) => statement.execute(params),
            OneOf::Postgres(statement) => statement.execute(params),
        }
    }

    pub fn query(&mut self, params: impl Params) -> Result<Rows<'_>> {
        Ok(Rows(match &mut self.0 {
            OneOf::Sqlite(statement) => OneOf::Sqlite(statement.query(params)?),
            OneOf::Postgres(statement) => OneOf::Postgres(statement.query(params)?),
        }))
    }

    /// The first row that it finds.
    ///
    /// # Errors
    /// [`Error::NoRows`] where it finds none.
    pub fn query_row<T>(&mut self, params: impl Params, map: impl FnOnce(&Row<'_>) -> Result<T>) -> Result<T> {
        let mut rows = Rows(match &mut self.0 {
            OneOf::Sqlite(statement) => OneOf::Sqlite(statement.query(params)?),
            OneOf::Postgres(statement) => OneOf::Postgres(statement.query_first(params)?),
        });
        let row = rows.next()?.ok_or(Error::NoRows)?;
        map(&row)
    }

    pub fn query_map<T, F>(&mut self, params: impl Params, map: F) -> Result<Mapped<'_, F>>
    where
        F: FnMut(&Row<'_>) -> Result<T>,
    {
        Ok(Mapped { rows: self.query(params)?, map })
    }

    /// The names of the columns that it finds.
    pub fn column_names(&self) -> Vec<String> {
        match &self.0 {
            OneOf::Sqlite(statement) => statement.column_names(),
            OneOf::Postgres(statement) => statement.column_names(),
        }
    }
}

impl Rows<'_> {
    /// The next row; `None` after the last.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<Row<'_>>> {
        Ok(match &mut self.0 {
            OneOf::Sqlite(rows) => rows.next()?.map(|row| Row(OneOf::Sqlite(row))),
            OneOf::Postgres(rows) => rows.next()?.map(|row| Row(OneOf::Postgres(row))),
        })
    }
}

impl<'r> Row<'r> {
    /// The column as what it is.
    pub fn get_ref(&self, column: usize) -> Result<ValueRef<'r>> {
        match &self.0 {
            OneOf::Sqlite(row) => Ok(row.get_ref(column)?.into()),
            OneOf::Postgres(row) => row.get_ref(column),
        }
    }

    /// The column as a `T`; the first parameter is there to be left open, as in `get::<_, String>(0)`.
    pub fn get<I: ColumnIndex, T: FromSql>(&self, column: I) -> Result<T> {
        T::read(self.get_ref(column.number())?)
    }
}

/// What names a column: its number, from 0.
pub trait ColumnIndex {
    fn number(self) -> usize;
}

impl ColumnIndex for usize {
    fn number(self) -> usize {
        self
    }
}

impl<T, F: FnMut(&Row<'_>) -> Result<T>> Iterator for Mapped<'_, F> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match self.rows.next() {
            Ok(row) => row.map(|row| (self.map)(&row)),
            Err(error) => Some(Err(error)),
        }
    }
}

impl Transaction<'_> {
    pub fn commit(mut self) -> Result<()> {
        self.open = false;
        self.connection.commit()
    }
}

impl std::ops::Deref for Transaction<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        self.connection
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            // A connection that cannot end it is closed at last, which ends it.
            let _ = self.connection.rollback();
        }
    }
}
