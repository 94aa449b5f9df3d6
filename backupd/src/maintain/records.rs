//! What was seen and healed: kept in a small database in the state folder. One line for each object that was put right,
//! the last look at each store, the newest deletion plan. Losing it loses this history and a plan that nobody has decided about.

use super::prune::Held;
use backupd_api::{HealedRow, MaintainStore};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

const SCHEMA: &str = "
    create table if not exists healed (id integer primary key, store text not null, row text not null) strict;
    create table if not exists looked (store text primary key, row text not null) strict;
    create table if not exists held (one integer primary key check (one = 1), row text not null) strict;
    create table if not exists condemned (name text primary key) strict;
    create table if not exists let_off (name text primary key) strict;
    create table if not exists told (name text primary key) strict;
    create table if not exists seen (store text primary key, upto integer not null) strict;
    pragma user_version = 1;";

pub struct Records(Mutex<Connection>);

impl Records {
    /// Opens the database in `state_dir`. One that cannot be read is moved aside and begun anew.
    pub fn open(state_dir: &Path) -> rusqlite::Result<Self> {
        let path = state_dir.join("maintain.sqlite");
        Self::open_file(&path).or_else(|_| {
            log::warn!("maintain.history-unreadable");
            let _ = std::fs::rename(&path, state_dir.join("maintain.sqlite.unreadable"));
            for suffix in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(state_dir.join(format!("maintain.sqlite{suffix}")));
            }
            Self::open_file(&path)
        })
    }

    fn open_file(path: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.execute_batch(SCHEMA)?;
        Ok(Self(Mutex::new(db)))
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, row: &HealedRow) -> rusqlite::Result<()> {
        let text = serde_json::to_string(row).unwrap_or_default();
        self.db().execute("insert into healed (store, row) values (?1, ?2)", params![row.store, text]).map(drop)
    }

    /// The newest, newest first.
    pub fn healed(&self, most: u32) -> rusqlite::Result<Vec<HealedRow>> {
        let db = self.db();
        let mut query = db.prepare("select row from healed order by id desc limit ?1")?;
        let rows = query.query_map([most], |row| row.get::<_, String>(0))?;
        Ok(rows.flatten().filter_map(|text| serde_json::from_str(&text).ok()).collect())
    }

    pub fn healed_at(&self, store: &str) -> rusqlite::Result<u64> {
        let count: i64 =
            self.db().query_row("select count(*) from healed where store = ?1", [store], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// When the first object was put right that nobody has looked into.
    pub fn healed_unseen(&self, store: &str) -> rusqlite::Result<Option<i64>> {
        let query = "select row from healed where store = ?1
            and id > coalesce((select upto from seen where store = ?1), 0) order by id limit 1";
        let row: Option<String> = self.db().query_row(query, [store], |row| row.get(0)).optional()?;
        // One that cannot be read was healed all the same.
        Ok(row.map(|text| serde_json::from_str::<HealedRow>(&text).map_or(0, |row| row.at_unix_ms)))
    }

    /// Somebody has looked into all that was put right so far.
    pub fn healed_seen(&self, store: &str) -> rusqlite::Result<()> {
        let sql = "insert or replace into seen (store, upto) select ?1, max(id) from healed where store = ?1";
        self.db().execute(sql, [store]).map(drop)
    }

    pub fn looked(&self, row: &MaintainStore) -> rusqlite::Result<()> {
        let text = serde_json::to_string(row).unwrap_or_default();
        let sql = "insert or replace into looked (store, row) values (?1, ?2)";
        self.db().execute(sql, params![row.store, text]).map(drop)
    }

    /// The newest deletion plan.
    pub fn held(&self) -> Option<Held> {
        let text: String = self.db().query_row("select row from held", [], |row| row.get(0)).ok()?;
        serde_json::from_str(&text).ok()
    }

    /// Keeps a deletion plan in place of the one before.
    pub fn hold(&self, held: &Held) -> rusqlite::Result<()> {
        let text = serde_json::to_string(held).unwrap_or_default();
        self.db().execute("insert or replace into held (one, row) values (1, ?1)", params![text]).map(drop)
    }

    /// Notes objects that go on purpose.
    pub fn add_condemned(&self, names: &BTreeSet<String>) -> rusqlite::Result<()> {
        let mut db = self.db();
        let change = db.transaction()?;
        for name in names {
            change.execute("insert or ignore into condemned (name) values (?1)", [name])?;
        }
        change.commit()
    }

    /// Notes objects that nobody can bring back, and that a person knows of.
    pub fn let_off(&self, names: &BTreeSet<String>) -> rusqlite::Result<()> {
        let mut db = self.db();
        let change = db.transaction()?;
        for name in names {
            change.execute("insert or ignore into let_off (name) values (?1)", [name])?;
        }
        change.commit()
    }

    /// What is there again, and whole, is missed again when it goes.
    pub fn end_let_off(&self, is_there: impl Fn(&str) -> bool) -> rusqlite::Result<()> {
        for name in self.told()?.iter().filter(|name| is_there(name)) {
            self.db().execute("delete from told where name = ?1", [name])?;
        }
        for name in self.given_up()?.iter().filter(|name| is_there(name)) {
            self.db().execute("delete from let_off where name = ?1", [name])?;
        }
        Ok(())
    }

    pub fn condemned(&self) -> rusqlite::Result<BTreeSet<String>> {
        let db = self.db();
        let mut query = db.prepare("select name from condemned union select name from let_off")?;
        let rows = query.query_map([], |row| row.get(0))?;
        rows.collect()
    }

    /// Objects that nobody can bring back, and that a person knows of.
    pub fn given_up(&self) -> rusqlite::Result<BTreeSet<String>> {
        let db = self.db();
        let mut query = db.prepare("select name from let_off")?;
        query.query_map([], |row| row.get(0))?.collect()
    }

    /// What a look could not bring back is told from now on.
    pub fn tell(&self, names: &BTreeSet<&String>) -> rusqlite::Result<()> {
        let mut db = self.db();
        let change = db.transaction()?;
        for name in names {
            change.execute("insert or ignore into told (name) values (?1)", [name])?;
        }
        change.commit()
    }

    /// What looks so far could not bring back.
    pub fn told(&self) -> rusqlite::Result<BTreeSet<String>> {
        let db = self.db();
        let mut query = db.prepare("select name from told")?;
        query.query_map([], |row| row.get(0))?.collect()
    }

    pub fn last_look(&self, store: &str) -> Option<MaintainStore> {
        let query = "select row from looked where store = ?1";
        let text: String = self.db().query_row(query, [store], |row| row.get(0)).ok()?;
        serde_json::from_str(&text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backupd_api::HealedBy;

    #[test]
    fn what_was_healed_is_kept_newest_first_and_an_unreadable_history_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        let row = |at_unix_ms, store: &str| HealedRow {
            at_unix_ms,
            store: store.to_owned(),
            object: "packs/ab/abc".to_owned(),
            from: "south".to_owned(),
            by: HealedBy::Replaced,
            bytes: 65536,
        };
        let records = Records::open(dir.path()).unwrap();
        for (at, store) in [(1, "north"), (2, "west"), (3, "north")] {
            records.add(&row(at, store)).unwrap();
        }
        drop(records);
        let records = Records::open(dir.path()).unwrap();
        assert_eq!(records.healed(2).unwrap(), [row(3, "north"), row(2, "west")]);
        assert_eq!(records.healed_at("north").unwrap(), 2);
        assert_eq!((records.healed_unseen("north").unwrap(), records.healed_unseen("south").unwrap()), (Some(1), None));
        records.healed_seen("north").unwrap();
        assert_eq!((records.healed_unseen("north").unwrap(), records.healed_unseen("west").unwrap()), (None, Some(2)));
        records.add(&row(4, "north")).unwrap();
        assert_eq!(records.healed_unseen("north").unwrap(), Some(4), "the next one is told again");
        drop(records);
        for suffix in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("maintain.sqlite{suffix}")));
        }
        std::fs::write(dir.path().join("maintain.sqlite"), b"no database, but long enough to be looked at").unwrap();
        assert!(Records::open(dir.path()).unwrap().healed(9).unwrap().is_empty());
        assert!(dir.path().join("maintain.sqlite.unreadable").exists());
    }
}
