//! Break-glass: a role that may not read the clinical record opens it for an hour, with a reason that an administrator reads.

use super::accounts::AccountError;
use crate::db::{Connection, OptionalExtension, params};

/// How long it lasts, seconds.
pub const LASTS_S: i64 = 3600;
/// A reason of fewer characters is none.
pub const REASON_CHARS_MIN: usize = 10;
const REASON_CHARS_MAX: usize = 500;

/// One time that somebody broke the glass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub id: String,
    pub account: String,
    pub name: String,
    pub reason: String,
    pub began: i64,
    pub ends: i64,
    pub reviewed: Option<i64>,
    pub verdict: String,
}

pub fn is_reason(text: &str) -> bool {
    (REASON_CHARS_MIN..=REASON_CHARS_MAX).contains(&text.trim().chars().count())
}

pub fn begin(db: &Connection, id: &str, account: &str, reason: &str, now: i64) -> Result<(), AccountError> {
    let sql = "INSERT INTO break_glass (id, account, reason, began, ends) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.execute(sql, params![id, account, reason.trim(), now, now + LASTS_S])?;
    Ok(())
}

/// Ends what an account has open.
pub fn end(db: &Connection, account: &str, now: i64) -> Result<(), AccountError> {
    db.execute("UPDATE break_glass SET ends = ?2 WHERE account = ?1 AND ends > ?2", params![account, now])?;
    Ok(())
}

/// When an account's emergency access ends; `None` when it has none.
pub fn until(db: &Connection, account: &str, now: i64) -> Result<Option<i64>, AccountError> {
    let sql =
        "SELECT ends FROM break_glass WHERE account = ?1 AND began <= ?2 AND ends > ?2 ORDER BY ends DESC LIMIT 1";
    Ok(db.prepare_cached(sql)?.query_row(params![account, now], |row| row.get(0)).optional()?)
}

/// The newest, those that nobody has looked at first.
pub fn list(db: &Connection) -> Result<Vec<Broken>, AccountError> {
    let sql = "SELECT b.id, b.account, a.display, b.reason, b.began, b.ends, b.reviewed, coalesce(b.verdict, '') \
               FROM break_glass b JOIN account a ON a.id = b.account ORDER BY b.reviewed IS NOT NULL, b.began DESC LIMIT 200";
    let mut statement = db.prepare_cached(sql)?;
    let row = |row: &crate::db::Row<'_>| {
        Ok(Broken {
            id: row.get(0)?,
            account: row.get(1)?,
            name: row.get(2)?,
            reason: row.get(3)?,
            began: row.get(4)?,
            ends: row.get(5)?,
            reviewed: row.get(6)?,
            verdict: row.get(7)?,
        })
    };
    Ok(statement.query_map([], row)?.collect::<Result<_, _>>()?)
}

/// Notes that `reviewer` looked at it. Nobody reviews oneself.
pub fn review(db: &Connection, id: &str, reviewer: &str, verdict: &str, now: i64) -> Result<bool, AccountError> {
    let sql = "UPDATE break_glass SET reviewed = ?3, reviewer = ?2, verdict = ?4 WHERE id = ?1 AND reviewed IS NULL AND account <> ?2";
    Ok(db.execute(sql, params![id, reviewer, now, verdict])? == 1)
}

/// Replaces an account's recovery codes.
pub fn set_recovery_codes(db: &Connection, account: &str, codes: &[String]) -> Result<(), AccountError> {
    db.execute("DELETE FROM recovery_code WHERE account = ?1", [account])?;
    for code in codes {
        let hash = service::auth::token_hash(&plain(code));
        db.execute(
            "INSERT INTO recovery_code (account, code_hash) VALUES (?1, ?2)",
            params![account, hash.as_slice()],
        )?;
    }
    Ok(())
}

/// Takes a recovery code: succeeds once for each.
pub fn take_recovery_code(db: &Connection, account: &str, code: &str, now: i64) -> Result<bool, AccountError> {
    let hash = service::auth::token_hash(&plain(code));
    let sql = "UPDATE recovery_code SET used = ?3 WHERE account = ?1 AND code_hash = ?2 AND used IS NULL";
    Ok(db.execute(sql, params![account, hash.as_slice(), now])? == 1)
}

/// Codes that are left.
pub fn recovery_codes_left(db: &Connection, account: &str) -> Result<i64, AccountError> {
    let sql = "SELECT count(*) FROM recovery_code WHERE account = ?1 AND used IS NULL";
    Ok(db.query_row(sql, [account], |row| row.get(0))?)
}

/// As people type it: capitals, spaces and hyphens do not matter.
fn plain(code: &str) -> String {
    code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::accounts::{self, tests as account_tests};
    use super::super::{Role, sessions};
    use super::*;

    #[test]
    fn a_recovery_code_is_good_once() {
        let db = account_tests::database();
        account_tests::add(&db, "anna", Role::Clinician);
        let id = accounts::credentials(&db, "anna").unwrap().unwrap().account.id;
        set_recovery_codes(&db, &id, &["abcd-efgh-jkmn".to_owned(), "pqrs-tuvw-xyz2".to_owned()]).unwrap();
        assert!(take_recovery_code(&db, &id, "ABCD EFGH jkmn", 5).unwrap());
        assert!(!take_recovery_code(&db, &id, "abcdefghjkmn", 6).unwrap());
        assert!(!take_recovery_code(&db, "somebody", "pqrs-tuvw-xyz2", 6).unwrap());
        assert_eq!(recovery_codes_left(&db, &id).unwrap(), 1);
    }

    #[test]
    fn the_glass_mends_after_an_hour_and_nobody_reviews_oneself() {
        let db = account_tests::database();
        account_tests::add(&db, "anna", Role::FrontDesk);
        let account = accounts::credentials(&db, "anna").unwrap().unwrap().account;
        sessions::open(&db, &account, ("token", "csrf"), "", 1000).unwrap();
        let capacity = |now| sessions::find(&db, "token", 86_400, now).unwrap().unwrap().actor.capacity_str();
        assert_eq!(capacity(1001), "front-desk");
        begin(&db, "b", &account.id, "Patient unconscious", 1002).unwrap();
        assert_eq!((capacity(1003), capacity(1002 + LASTS_S)), ("break-glass", "front-desk"));
        assert!(!review(&db, "b", &account.id, "fine", 2000).unwrap());
        assert!(review(&db, "b", "admin", "fine", 2000).unwrap() && !review(&db, "b", "other", "again", 2001).unwrap());
        end(&db, &account.id, 1500).unwrap();
        assert_eq!(capacity(1501), "front-desk");
        assert!(!is_reason("short") && is_reason("Patient unconscious"));
    }
}
