//! What ran, how it ended, and what is due: kept in a small database in the state folder.
//!
//! Losing it loses nothing but this history: a job without history is due at its next time. A job whose time passed
//! while the daemon was down is due once, at once.

use crate::schedule::Schedule;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const SCHEMA: &str = "
    create table if not exists job (
        name text primary key,
        since_ms integer not null,
        last_ms integer,
        last_ok integer
    ) strict;
    create table if not exists note (key text primary key, value text not null) strict;
    pragma user_version = 1;";

/// The jobs' history.
pub struct Jobs {
    db: Connection,
    /// Starts of runs that a full or broken disk did not let be written down: without them a job would be due again at once, and
    /// the machine would be busiest just when it should be quiet.
    unrecorded: Mutex<BTreeMap<String, i64>>,
}

/// How a job last ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRun {
    pub at_ms: i64,
    pub ok: bool,
}

impl Jobs {
    /// Opens the database in `state_dir`. One that cannot be read is moved aside and begun anew.
    pub fn open(state_dir: &Path) -> rusqlite::Result<Self> {
        let path = state_dir.join("jobs.sqlite");
        Self::open_file(&path).or_else(|_| {
            let aside = state_dir.join("jobs.sqlite.unreadable");
            log::warn!("jobs.history-unreadable");
            let _ = std::fs::rename(&path, aside);
            for suffix in ["-wal", "-shm"] {
                let _ = std::fs::remove_file(state_dir.join(format!("jobs.sqlite{suffix}")));
            }
            Self::open_file(&path)
        })
    }

    fn open_file(path: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.execute_batch(SCHEMA)?;
        Ok(Self { db, unrecorded: Mutex::default() })
    }

    fn unrecorded(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, i64>> {
        self.unrecorded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a job known; its first time counts from now.
    pub fn register(&self, name: &str, now_ms: i64) -> rusqlite::Result<()> {
        self.db.execute("insert or ignore into job (name, since_ms) values (?1, ?2)", params![name, now_ms])?;
        Ok(())
    }

    /// Records the end of a run that began at `started_ms`.
    pub fn finished(&self, name: &str, started_ms: i64, ok: bool) -> rusqlite::Result<()> {
        self.unrecorded().insert(name.to_owned(), started_ms);
        self.db.execute(
            "insert into job (name, since_ms, last_ms, last_ok) values (?1, ?2, ?2, ?3)
             on conflict (name) do update set last_ms = excluded.last_ms, last_ok = excluded.last_ok",
            params![name, started_ms, ok],
        )?;
        self.unrecorded().remove(name);
        Ok(())
    }

    pub fn last(&self, name: &str) -> rusqlite::Result<Option<LastRun>> {
        let row = self.db.query_row("select last_ms, last_ok from job where name = ?1", [name], |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<bool>>(1)?))
        });
        Ok(row.optional()?.and_then(|(at, ok)| Some(LastRun { at_ms: at?, ok: ok? })))
    }

    /// When the job is due: the first time of its schedule after its last run (or after it became known). In the past
    /// when it was missed. A last run in the future was written by a clock that was ahead: nobody knows when it was, so the
    /// job is due now. Waiting for the old time would silence it for as long as the clock was wrong.
    pub fn due_ms(&self, name: &str, schedule: &Schedule, now_ms: i64) -> rusqlite::Result<Option<i64>> {
        let from: Option<i64> = self
            .db
            .query_row("select coalesce(last_ms, since_ms) from job where name = ?1", [name], |row| row.get(0))
            .optional()?;
        let from = self.unrecorded().get(name).copied().or(from);
        match from {
            Some(from) if from > now_ms => Ok(Some(now_ms)),
            _ => Ok(schedule.next_after_ms(from.unwrap_or(now_ms))),
        }
    }

    /// A small value that outlives the process: whose turn a drill is, what a scrub found.
    pub fn note(&self, key: &str) -> rusqlite::Result<Option<String>> {
        self.db.query_row("select value from note where key = ?1", [key], |row| row.get(0)).optional()
    }

    pub fn set_note(&self, key: &str, value: &str) -> rusqlite::Result<()> {
        self.db.execute("insert or replace into note (key, value) values (?1, ?2)", params![key, value])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: i64 = 60_000;
    /// 2026-11-22T10:00:00Z.
    const TEN: i64 = 1_795_341_600_000;

    #[test]
    fn a_missed_job_is_due_once_at_start() {
        let dir = tempfile::tempdir().unwrap();
        let hourly = Schedule::parse("0 * * * *", chrono_tz::UTC).unwrap();
        {
            let jobs = Jobs::open(dir.path()).unwrap();
            jobs.register("snapshot", TEN).unwrap();
            assert_eq!(jobs.due_ms("snapshot", &hourly, TEN).unwrap(), Some(TEN + 60 * MINUTE));
            jobs.finished("snapshot", TEN + 60 * MINUTE, true).unwrap();
        }
        // Down for five hours.
        let now = TEN + 6 * 60 * MINUTE + 1;
        let jobs = Jobs::open(dir.path()).unwrap();
        jobs.register("snapshot", now).unwrap();
        assert!(jobs.due_ms("snapshot", &hourly, now).unwrap().unwrap() <= now);
        jobs.finished("snapshot", now, false).unwrap();
        assert!(jobs.due_ms("snapshot", &hourly, now).unwrap().unwrap() > now, "it was due twice");
        assert_eq!(jobs.last("snapshot").unwrap(), Some(LastRun { at_ms: now, ok: false }));
    }

    #[test]
    fn a_run_that_a_full_disk_did_not_let_be_written_down_is_not_due_again_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let hourly = Schedule::parse("0 * * * *", chrono_tz::UTC).unwrap();
        let jobs = Jobs::open(dir.path()).unwrap();
        jobs.register("snapshot", TEN).unwrap();
        jobs.db.pragma_update(None, "query_only", true).unwrap();
        let now = TEN + 61 * MINUTE;
        assert!(jobs.due_ms("snapshot", &hourly, now).unwrap().unwrap() <= now);
        jobs.finished("snapshot", now, false).unwrap_err();
        assert_eq!(jobs.due_ms("snapshot", &hourly, now + 1).unwrap(), Some(TEN + 120 * MINUTE));
        jobs.db.pragma_update(None, "query_only", false).unwrap();
        jobs.finished("snapshot", now + 60 * MINUTE, true).unwrap();
        assert_eq!(jobs.due_ms("snapshot", &hourly, now + 60 * MINUTE).unwrap(), Some(TEN + 180 * MINUTE));
    }

    #[test]
    fn a_clock_set_back_silences_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let hourly = Schedule::parse("0 * * * *", chrono_tz::UTC).unwrap();
        let jobs = Jobs::open(dir.path()).unwrap();
        jobs.finished("snapshot", TEN, true).unwrap();
        let mut runs = 0;
        for minute in 0..180 {
            let now = TEN - 10 * 365 * 24 * 60 * MINUTE + minute * MINUTE;
            if jobs.due_ms("snapshot", &hourly, now).unwrap().unwrap() <= now {
                jobs.finished("snapshot", now, true).unwrap();
                runs += 1;
            }
        }
        assert_eq!(runs, 3, "at once, and then at each full hour");
    }

    #[test]
    fn an_unreadable_history_is_moved_aside() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("jobs.sqlite"), b"this is no database, but long enough to be looked at")
            .unwrap();
        let jobs = Jobs::open(dir.path()).unwrap();
        jobs.set_note("turn", "b").unwrap();
        assert_eq!(jobs.note("turn").unwrap().as_deref(), Some("b"));
        assert!(dir.path().join("jobs.sqlite.unreadable").exists());
    }
}
