//! The console's own database: accounts, sessions, alerts and the record of actions. It holds no record content and no
//! repository key, and shares nothing with the EMR.

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Step `n` brings a database from schema `n` to `n + 1`. A released step is never changed.
const SCHEMAS: [&str; 2] = [include_str!("schema.sql"), include_str!("schema-2.sql")];

#[derive(Debug, thiserror::Error)]
pub enum DbError {
    #[error("{path}: cannot be used ({kind}): the console's user must own the folder `data_dir`")]
    Folder { path: PathBuf, kind: std::io::ErrorKind },
    #[error("the console's database was written by a newer release (schema {0}): install that release")]
    Newer(i64),
    #[error("the console's database: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

pub struct Db {
    connection: Mutex<Connection>,
}

impl Db {
    /// Opens or makes `console.db` in `data_dir` (0700).
    pub fn open(data_dir: &Path) -> Result<Self, DbError> {
        let folder = |e: std::io::Error| DbError::Folder { path: data_dir.to_path_buf(), kind: e.kind() };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(folder)?;
        std::fs::set_permissions(data_dir, std::fs::Permissions::from_mode(0o700)).map_err(folder)?;
        Self::with(Connection::open(data_dir.join("console.db"))?)
    }

    fn with(mut connection: Connection) -> Result<Self, DbError> {
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let version: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let reached = usize::try_from(version).ok().filter(|reached| *reached <= SCHEMAS.len());
        for (step, number) in SCHEMAS.iter().zip(1_i64..).skip(reached.ok_or(DbError::Newer(version))?) {
            tx.execute_batch(step)?;
            tx.pragma_update(None, "user_version", number)?;
        }
        tx.commit()?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    /// Runs `work` in one transaction; an error rolls it back. Blocks: from async code call [`Db::write`].
    pub fn write_blocking<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = work(&tx)?;
        tx.commit()?;
        Ok(value)
    }

    /// One transaction, from a task of a multi-threaded runtime.
    pub fn write<T, E: From<rusqlite::Error>>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        tokio::task::block_in_place(|| self.write_blocking(work))
    }

    pub fn read<T, E: From<rusqlite::Error>>(&self, work: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        tokio::task::block_in_place(|| {
            let connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
            work(&connection)
        })
    }
}

/// A small remembered value, such as the newest snapshot for which the heartbeat was sent.
pub fn remembered(db: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    db.query_row("SELECT value FROM remembered WHERE key = ?1", [key], |row| row.get(0)).optional()
}

pub fn remember(db: &Connection, key: &str, value: &str) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO remembered (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_is_private_and_a_newer_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let db = Db::open(&data).unwrap();
        assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
        db.write_blocking(|tx| tx.pragma_update(None, "user_version", 99)).unwrap();
        drop(db);
        assert!(matches!(Db::open(&data), Err(DbError::Newer(99))));
    }

    #[test]
    fn a_database_of_the_first_schema_keeps_its_accounts() {
        let folder = tempfile::tempdir().unwrap();
        let old = Connection::open(folder.path().join("console.db")).unwrap();
        old.execute_batch(SCHEMAS[0]).unwrap();
        old.execute_batch(
            "INSERT INTO users (name, role, password, totp, failures, locked_until_ms, created_ms)
             VALUES ('anna', 'owner', 'x', 'y', 5, 1, 1); PRAGMA user_version = 1",
        )
        .unwrap();
        drop(old);
        let db = Db::open(folder.path()).unwrap();
        let accounts = db.write_blocking(|tx| crate::accounts::list(tx, 1)).unwrap();
        assert_eq!((accounts.len(), accounts[0].name.as_str()), (1, "anna"));
        drop(db);
        Db::open(folder.path()).unwrap();
    }

    #[test]
    fn the_record_of_actions_cannot_be_changed_by_a_statement() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        db.write_blocking(|tx| crate::audit::append(tx, 1, "a", crate::audit::Act::SignIn, "")).unwrap();
        assert!(db.write_blocking(|tx| tx.execute("UPDATE audit SET who = 'b'", [])).is_err());
        assert!(db.write_blocking(|tx| tx.execute("DELETE FROM audit", [])).is_err());
    }
}
