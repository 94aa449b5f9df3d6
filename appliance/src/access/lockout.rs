//! Where the EMR keeps what [`service::lockout`] counts: failed tries of the staff and of patients, and the key that signs
//! the cookies of known browsers. The key lies with the records, so that a restored practice knows its browsers.

use super::accounts::AccountError;
use crate::db::{Connection, OptionalExtension, params};
pub use service::lockout::{Attempt, Counted, DEVICE_COOKIE_S};
use service::lockout::{Devices, Tally, subjects_of};
use std::net::IpAddr;

/// Says of a browser who of the staff has logged in with it. Opens nothing.
pub const DEVICE_COOKIE: &str = "__Host-holdfast-device";
/// The same of patients: a browser sends the cookies of one host to all its ports.
pub const PORTAL_DEVICE_COOKIE: &str = "__Host-holdfast-portal-device";

const DEVICE_KEY: &str = "known-devices-key";

struct Failures<'a>(&'a Connection);

impl Tally for Failures<'_> {
    type Error = AccountError;

    fn count(&self, subject: &str, from: i64, to: i64) -> Result<u32, AccountError> {
        let sql = "SELECT count(*) FROM login_failure WHERE subject = ?1 AND at BETWEEN ?2 AND ?3";
        Ok(self.0.prepare_cached(sql)?.query_row(params![subject, from, to], |row| row.get(0))?)
    }

    fn add(&self, subject: &str, at: i64) -> Result<(), AccountError> {
        self.0.execute("INSERT INTO login_failure (subject, at) VALUES (?1, ?2)", params![subject, at])?;
        Ok(())
    }

    fn take_back(&self, subject: &str, at: i64) -> Result<(), AccountError> {
        let sql = "DELETE FROM login_failure
                   WHERE rowid = (SELECT min(rowid) FROM login_failure WHERE subject = ?1 AND at = ?2)";
        self.0.execute(sql, params![subject, at])?;
        Ok(())
    }

    fn clear(&self, subject: &str) -> Result<(), AccountError> {
        self.0.execute("DELETE FROM login_failure WHERE subject = ?1", [subject])?;
        Ok(())
    }

    fn forget(&self, before: i64, after: i64) -> Result<(), AccountError> {
        self.0.execute("DELETE FROM login_failure WHERE at < ?1 OR at > ?2", [before, after])?;
        Ok(())
    }
}

/// Counts a try at a login page before it is made; `None` when it may not be made. `cookie` is the browser's device cookie.
pub fn admit(
    db: &Connection,
    name: &str,
    address: Option<IpAddr>,
    cookie: Option<&str>,
    now: i64,
) -> Result<Option<Counted>, AccountError> {
    let known = match cookie {
        Some(_) => devices(db)?.and_then(|devices| devices.known(cookie, name)),
        None => None,
    };
    Attempt::at_login(name, address, known.as_deref()).admit(&Failures(db), now)
}

/// Counts the password that is asked for again inside of a session.
pub fn admit_again(db: &Connection, token_hash: &[u8; 32], now: i64) -> Result<Option<Counted>, AccountError> {
    Attempt::in_session(token_hash).admit(&Failures(db), now)
}

/// The person is in.
pub fn succeeded(db: &Connection, counted: &Counted) -> Result<(), AccountError> {
    counted.succeeded(&Failures(db))
}

/// The password was right, and more is asked.
pub fn was_right(db: &Connection, counted: &Counted) -> Result<(), AccountError> {
    counted.was_right(&Failures(db))
}

/// The device cookie of a browser in which `name` has just logged in.
pub fn welcome(db: &Connection, cookie: Option<&str>, name: &str) -> Result<Option<String>, AccountError> {
    let sql = "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING";
    db.execute(sql, [DEVICE_KEY, &Devices::new_key()])?;
    Ok(devices(db)?.map(|devices| devices.welcome(cookie, name)))
}

/// Lets a person try again whom strangers keep out, whatever was counted of the name.
pub fn lift(db: &Connection, name: &str) -> Result<(), AccountError> {
    let (subject, beginning) = subjects_of(name);
    let sql = "DELETE FROM login_failure WHERE subject = ?1 OR substr(subject, 1, length(?2)) = ?2";
    db.execute(sql, [subject, beginning])?;
    Ok(())
}

/// How many failed tries are counted of a name, from anywhere.
pub fn counted(db: &Connection, name: &str) -> Result<u32, AccountError> {
    let (subject, beginning) = subjects_of(name);
    let sql = "SELECT count(*) FROM login_failure WHERE subject = ?1 OR substr(subject, 1, length(?2)) = ?2";
    Ok(db.prepare_cached(sql)?.query_row([subject, beginning], |row| row.get(0))?)
}

fn devices(db: &Connection) -> Result<Option<Devices>, AccountError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let key: Option<String> = db.query_row(sql, [DEVICE_KEY], |row| row.get(0)).optional()?;
    Ok(key.and_then(|key| Devices::new(&key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(crate::access::SCHEMA).unwrap();
        db.execute_batch("CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT").unwrap();
        db
    }

    fn address(n: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, n]))
    }

    #[test]
    fn the_database_counts_by_the_rules() {
        let db = database();
        let tries = |n: u8| (0..10).filter(|_| admit(&db, "anna", address(n), None, 1000).unwrap().is_some()).count();
        assert_eq!(tries(1), 5);
        let right = admit(&db, "anna", address(2), None, 1000).unwrap().unwrap();
        was_right(&db, &right).unwrap();
        assert_eq!(tries(2), 5, "a right password counts for nothing");
        let cookie = welcome(&db, None, "anna").unwrap();
        let known = admit(&db, "anna", address(1), cookie.as_deref(), 1000).unwrap().unwrap();
        succeeded(&db, &known).unwrap();
        assert_eq!(tries(1), 0, "the login of one browser opens no other");
        assert!(admit(&db, "anna", address(1), None, 1000 + 15 * 60 + 1).unwrap().is_some());
        assert_eq!(cookie, welcome(&db, cookie.as_deref(), "anna").unwrap(), "the key stays");
    }

    #[test]
    fn an_administrator_lifts_what_was_counted_of_a_name() {
        let db = database();
        for n in 0..40 {
            for _ in 0..5 {
                let _counted = admit(&db, "anna", address(n), None, 1000).unwrap();
            }
        }
        assert!(admit(&db, "anna", address(99), None, 1000).unwrap().is_none());
        for _ in 0..5 {
            assert!(admit(&db, "berta", address(99), None, 1000).unwrap().is_some());
        }
        assert!(counted(&db, "anna").unwrap() > 0 && counted(&db, "nobody").unwrap() == 0);
        lift(&db, " Anna").unwrap();
        assert_eq!(counted(&db, "anna").unwrap(), 0);
        assert!(admit(&db, "anna", address(99), None, 1000).unwrap().is_some());
        assert!(admit(&db, "berta", address(99), None, 1000).unwrap().is_none(), "of this name alone");
    }

    #[test]
    fn a_session_has_a_few_tries() {
        let db = database();
        assert_eq!((0..10).filter(|_| admit_again(&db, &[1; 32], 1000).unwrap().is_some()).count(), 5);
        assert!(admit_again(&db, &[2; 32], 1000).unwrap().is_some());
    }
}
