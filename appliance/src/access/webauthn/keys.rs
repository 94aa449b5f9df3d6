//! The keys of the staff, and the questions that are open.

use super::Credential;
use crate::access::accounts::AccountError;
use crate::clock;
use crate::db::{Connection, OptionalExtension, Row};
use crate::store::StoreError;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

/// Keys of one person.
pub const KEYS_MAX: i64 = 10;
/// A question is answered within this time, seconds: people look for their key.
pub const QUESTION_S: i64 = 300;
/// Open questions at one time; each follows a right password.
const QUESTIONS_MAX: usize = 1000;

/// A key on somebody's account.
#[derive(Debug, Clone)]
pub struct StaffKey {
    pub id: String,
    pub label: String,
    pub created: i64,
    pub used: Option<i64>,
    pub credential: Credential,
    /// When its counter was last behind, Unix seconds: there may be a copy of the key.
    pub copied: Option<i64>,
}

fn staff_key(row: &Row<'_>) -> crate::db::Result<StaffKey> {
    Ok(StaffKey {
        id: row.get(0)?,
        label: row.get(1)?,
        created: row.get(2)?,
        used: row.get(3)?,
        credential: Credential {
            id: row.get(4)?,
            public_key: row.get(5)?,
            counter: row.get(6)?,
            user_verified: row.get(7)?,
        },
        copied: row.get::<_, Option<String>>(8)?.and_then(|at| at.parse().ok()),
    })
}

const COLUMNS: &str = "id, label, created, used, credential, public_key, counter, user_verified, \
                       (SELECT value FROM practice_setting WHERE key = 'key-copied ' || webauthn_key.id)";

/// The keys of an account, oldest first.
pub fn of_account(db: &Connection, account: &str) -> Result<Vec<StaffKey>, AccountError> {
    let sql = format!("SELECT {COLUMNS} FROM webauthn_key WHERE account = ?1 ORDER BY created, id");
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map([account], staff_key)?;
    Ok(rows.collect::<crate::db::Result<_>>()?)
}

/// The key of an account that has this credential id.
pub fn find(db: &Connection, account: &str, credential: &[u8]) -> Result<Option<StaffKey>, AccountError> {
    let sql = format!("SELECT {COLUMNS} FROM webauthn_key WHERE account = ?1 AND credential = ?2");
    Ok(db.prepare_cached(&sql)?.query_row((account, credential), staff_key).optional()?)
}

/// Adds a key. `false` where somebody has it already, or the account has as many as it may.
pub fn insert(
    db: &Connection,
    account: &str,
    (id, label): (&str, &str),
    credential: &Credential,
    now: i64,
) -> Result<bool, AccountError> {
    let sql = "INSERT INTO webauthn_key (id, account, label, credential, public_key, counter, user_verified, created) \
               SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 \
               WHERE (SELECT count(*) FROM webauthn_key WHERE account = ?2) < ?9 ON CONFLICT (credential) DO NOTHING";
    let Credential { id: credential_id, public_key, counter, user_verified } = credential;
    let row = (id, account, label, credential_id, public_key, counter, user_verified, now, KEYS_MAX);
    Ok(db.execute(sql, row)? == 1)
}

/// Removes a key of an account. Whether it was there.
pub fn remove(db: &Connection, account: &str, id: &str) -> Result<bool, AccountError> {
    let removed = db.execute("DELETE FROM webauthn_key WHERE account = ?1 AND id = ?2", (account, id))? == 1;
    if removed {
        db.execute("DELETE FROM practice_setting WHERE key = ?1", [copied_key(id)])?;
    }
    Ok(removed)
}

/// Where it stands that a key may have a copy.
fn copied_key(id: &str) -> String {
    format!("key-copied {id}")
}

/// Keeps that a key's counter was behind, until the key is removed.
pub fn note_copy(db: &Connection, id: &str, now: i64) -> Result<(), AccountError> {
    let sql = "INSERT INTO practice_setting (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    db.execute(sql, (copied_key(id), now.to_string()))?;
    Ok(())
}

/// The accounts with a key that may have a copy.
pub fn accounts_with_copies(db: &Connection) -> Result<BTreeSet<String>, AccountError> {
    let sql = "SELECT account FROM webauthn_key k JOIN practice_setting s ON s.key = 'key-copied ' || k.id";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<crate::db::Result<_>>()?)
}

/// Keeps the counter of a use. `false` when another use was faster with the same or a later one.
pub fn take_counter(db: &Connection, key: &StaffKey, counter: u32, now: i64) -> Result<bool, AccountError> {
    let sql = "UPDATE webauthn_key SET counter = ?3, used = ?4 WHERE id = ?1 AND counter = ?2";
    Ok(db.execute(sql, (&key.id, key.credential.counter, counter, now))? == 1)
}

/// What a question is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// To log somebody in, whose password was right.
    Login { name: String, to: String },
    /// To add a key of this name to the account of whoever asks.
    Register { label: String },
}

/// A question that waits for its answer.
#[derive(Debug, Clone)]
pub struct Question {
    pub account: String,
    pub purpose: Purpose,
    pub challenge: [u8; 32],
    expires: i64,
}

/// The open questions. In memory: a restart ends them, and people are asked again.
#[derive(Default)]
pub struct Questions(Mutex<HashMap<String, Question>>);

impl Questions {
    /// Asks; gives the token under which the answer comes, and the challenge.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while too many are open.
    pub fn ask(&self, account: &str, purpose: Purpose, now: i64) -> Result<(String, [u8; 32]), StoreError> {
        let challenge = clock::random().map_err(StoreError::io("randomness"))?;
        let token = service::auth::random_token();
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, question| question.is_open(now));
        if open.len() >= QUESTIONS_MAX {
            return Err(StoreError::Busy);
        }
        let question = Question { account: account.to_owned(), purpose, challenge, expires: now + QUESTION_S };
        open.insert(token.clone(), question);
        Ok((token, challenge))
    }

    /// The question of this token, which is over with that: an answer is looked at once.
    pub fn take(&self, token: &str, now: i64) -> Option<Question> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.remove(token).filter(|question| question.is_open(now))
    }
}

impl Question {
    /// Also over where the clock was ahead when it was asked.
    fn is_open(&self, now: i64) -> bool {
        (self.expires - QUESTION_S..=self.expires).contains(&now)
    }
}
