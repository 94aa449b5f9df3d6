//! Where the console keeps what [`service::lockout`] counts, and the key that signs the cookies of known browsers.

use crate::db::{remember, remembered};
use rusqlite::{Connection, Error};
use service::lockout::{Attempt, Counted, Devices, Tally, is_besieged, subjects_of};
use std::net::IpAddr;

/// Says of a browser who has signed in with it. Opens nothing.
pub const DEVICE_COOKIE: &str = "__Host-holdfast-console-device";

const DEVICE_KEY: &str = "known-devices-key";

/// From where somebody signs in.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    pub address: IpAddr,
    /// The browser's device cookie.
    pub device: Option<&'a str>,
}

struct Failures<'a>(&'a Connection);

impl Tally for Failures<'_> {
    type Error = Error;

    fn count(&self, subject: &str, from: i64, to: i64) -> Result<u32, Error> {
        let sql = "SELECT count(*) FROM sign_in_failures WHERE subject = ?1 AND at BETWEEN ?2 AND ?3";
        self.0.prepare_cached(sql)?.query_row((subject, from, to), |row| row.get(0))
    }

    fn add(&self, subject: &str, at: i64) -> Result<(), Error> {
        self.0.execute("INSERT INTO sign_in_failures (subject, at) VALUES (?1, ?2)", (subject, at)).map(drop)
    }

    fn take_back(&self, subject: &str, at: i64) -> Result<(), Error> {
        let sql = "DELETE FROM sign_in_failures
                   WHERE rowid = (SELECT min(rowid) FROM sign_in_failures WHERE subject = ?1 AND at = ?2)";
        self.0.execute(sql, (subject, at)).map(drop)
    }

    fn clear(&self, subject: &str) -> Result<(), Error> {
        self.0.execute("DELETE FROM sign_in_failures WHERE subject = ?1", [subject]).map(drop)
    }

    fn forget(&self, before: i64, after: i64) -> Result<(), Error> {
        self.0.execute("DELETE FROM sign_in_failures WHERE at < ?1 OR at > ?2", [before, after]).map(drop)
    }
}

/// Counts an attempt before it is made; `None` when it may not be made.
pub fn admit(db: &Connection, now_ms: i64, name: &str, from: Origin<'_>) -> Result<Option<Counted>, Error> {
    let known = devices(db)?.and_then(|devices| devices.known(from.device, name));
    Attempt::at_login(name, Some(from.address), known.as_deref()).admit(&Failures(db), now_ms / 1000)
}

/// The person is in: the device cookie of their browser.
pub fn succeeded(db: &Connection, counted: &Counted, name: &str, from: Origin<'_>) -> Result<Option<String>, Error> {
    counted.succeeded(&Failures(db))?;
    if remembered(db, DEVICE_KEY)?.is_none() {
        remember(db, DEVICE_KEY, &Devices::new_key())?;
    }
    Ok(devices(db)?.map(|devices| devices.welcome(from.device, name)))
}

/// Whether somebody has spent the day's tries of this name, so that only known browsers get in with it.
pub fn besieged(db: &Connection, now_ms: i64, name: &str) -> Result<bool, Error> {
    is_besieged(&Failures(db), name, now_ms / 1000)
}

/// Lets a person try again whom strangers keep out.
pub fn lift(db: &Connection, name: &str) -> Result<(), Error> {
    let (subject, beginning) = subjects_of(name);
    let sql = "DELETE FROM sign_in_failures WHERE subject = ?1 OR substr(subject, 1, length(?2)) = ?2";
    db.execute(sql, [subject, beginning]).map(drop)
}

fn devices(db: &Connection) -> Result<Option<Devices>, Error> {
    Ok(remembered(db, DEVICE_KEY)?.and_then(|key| Devices::new(&key)))
}
