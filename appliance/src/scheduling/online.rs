//! Bookings by strangers: a code by mail proves the address, limits keep the door usable, and a link cancels.

use crate::db::{Connection, OptionalExtension};
use crate::store::StoreError;
use serde::{Deserialize, Serialize};

/// A code is good for this long, seconds, and for this many guesses.
pub const CODE_S: i64 = 900;
const GUESSES_MAX: i64 = 5;
/// Codes that one address of the network, one mail address, and all together may ask for in an hour.
const PER_HOUR: [(&str, i64); 3] = [("address", 10), ("mail", 4), ("all", 300)];
const HOUR_S: i64 = 3600;

/// Who wants to come, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub visit: String,
    pub start_s: i64,
    pub practitioner: String,
    pub family: String,
    pub given: String,
    pub birth: String,
    pub email: String,
    pub phone: String,
    pub reason: String,
}

/// Notes one more request for a code; `false` when there were too many within the hour.
pub fn admit(db: &Connection, address: &str, mail: &str, now_s: i64) -> Result<bool, StoreError> {
    db.prepare_cached("DELETE FROM online_attempt WHERE at_s < ?1")?.execute([now_s - HOUR_S])?;
    let subjects = [("address", address), ("mail", mail), ("all", "")];
    for (kind, subject) in subjects {
        let limit = PER_HOUR.iter().find(|(k, _)| *k == kind).map_or(0, |(_, limit)| *limit);
        let sql = "SELECT count(*) FROM online_attempt WHERE subject = ?1";
        let count: i64 = db.prepare_cached(sql)?.query_row([hashed(kind, subject)], |row| row.get(0))?;
        if count >= limit {
            return Ok(false);
        }
    }
    for (kind, subject) in subjects {
        let sql = "INSERT INTO online_attempt (subject, at_s) VALUES (?1, ?2)";
        db.prepare_cached(sql)?.execute((hashed(kind, subject), now_s))?;
    }
    Ok(true)
}

fn hashed(kind: &str, subject: &str) -> String {
    hex::encode(service::auth::token_hash(&format!("{kind}:{}", subject.to_lowercase())))
}

/// Keeps a request until its code is entered.
pub fn keep(db: &Connection, token: &str, code: &str, request: &Request, now_s: i64) -> Result<(), StoreError> {
    db.prepare_cached("DELETE FROM online_request WHERE expires_s <= ?1")?.execute([now_s])?;
    let details =
        serde_json::to_string(request).map_err(|_| StoreError::invalid("cannot be written as JSON", "request"))?;
    let sql =
        "INSERT INTO online_request (token_hash, code_hash, details, guesses, expires_s) VALUES (?1, ?2, ?3, 0, ?4)";
    let hashes = (service::auth::token_hash(token), service::auth::token_hash(&format!("{token}{code}")));
    db.prepare_cached(sql)?.execute((hashes.0, hashes.1, details, now_s + CODE_S))?;
    Ok(())
}

/// What became of a code.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    Right(Box<Request>),
    Wrong,
    /// Unknown, too old, or guessed too often: to be begun anew.
    Over,
}

/// Checks a code; a right one is used up, a wrong one is counted.
pub fn prove(db: &Connection, token: &str, code: &str, now_s: i64) -> Result<Proof, StoreError> {
    let hash = service::auth::token_hash(token);
    let sql = "SELECT code_hash, details, guesses FROM online_request WHERE token_hash = ?1 AND expires_s > ?2";
    let row = |row: &crate::db::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found: Option<([u8; 32], String, i64)> = db.prepare_cached(sql)?.query_row((hash, now_s), row).optional()?;
    let Some((code_hash, details, guesses)) = found else { return Ok(Proof::Over) };
    if guesses >= GUESSES_MAX {
        return Ok(Proof::Over);
    }
    let given = service::auth::token_hash(&format!("{token}{code}"));
    if !service::auth::constant_time_eq(&given, &code_hash) {
        db.prepare_cached("UPDATE online_request SET guesses = guesses + 1 WHERE token_hash = ?1")?.execute([hash])?;
        return Ok(Proof::Wrong);
    }
    db.prepare_cached("DELETE FROM online_request WHERE token_hash = ?1")?.execute([hash])?;
    let request = serde_json::from_str(&details).map_err(|_| StoreError::Damaged("online request"))?;
    Ok(Proof::Right(Box::new(request)))
}

/// Remembers the link by which an appointment is cancelled.
pub fn link(db: &Connection, token: &str, appointment: &str, expires_s: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO appointment_link (token_hash, appointment, expires_s) VALUES (?1, ?2, ?3)";
    db.prepare_cached(sql)?.execute((service::auth::token_hash(token), appointment, expires_s))?;
    Ok(())
}

/// The appointment that a link is for.
pub fn linked(db: &Connection, token: &str, now_s: i64) -> Result<Option<String>, StoreError> {
    let sql = "SELECT appointment FROM appointment_link WHERE token_hash = ?1 AND expires_s > ?2";
    Ok(db.prepare_cached(sql)?.query_row((service::auth::token_hash(token), now_s), |row| row.get(0)).optional()?)
}
