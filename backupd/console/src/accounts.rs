//! Accounts of the console: none is shared with the EMR. A person signs in with a name, a password and a one-time code.

use crate::audit::{self, Act};
use crate::db::{Db, DbError};
use crate::lockout::{self, Origin};
use crate::roles::Role;
use rusqlite::{Connection, OptionalExtension, Transaction};
use service::auth::{
    TOTP_STEPS_AHEAD_MAX, Totp, constant_time_eq, hash_password, random_token, token_hash, verify_password,
};
use service::lockout::Counted;
use std::sync::OnceLock;

pub const PASSWORD_CHARS_MIN: usize = 12;
/// A password longer than this only makes the hash slow.
const PASSWORD_BYTES_MAX: usize = 1024;
pub const INVITE_MS: i64 = 24 * 3_600_000;
/// A session ends after this time even when it is used.
pub const SESSION_MS_MAX: i64 = 12 * 3_600_000;
/// A session whose times lie further ahead than this was opened or used while the clock was wrong. It is over: until the
/// time caught up it would never be idle.
const SKEW_MS: i64 = 60_000;
/// The name under which people find the account in their authenticator program.
pub const ISSUER: &str = "Holdfast console";

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("a name is 2 to 32 lower-case letters, digits, dots or hyphens and starts with a letter")]
    Name,
    #[error("this name is taken: choose another")]
    Taken,
    #[error("a password needs at least {PASSWORD_CHARS_MIN} characters and at most {PASSWORD_BYTES_MAX} bytes")]
    Password,
    #[error("there is no such account: `console user list` shows them")]
    Unknown,
    #[error("this invitation is used, has expired or never existed: ask for a new one")]
    Invite,
    #[error("the code does not fit: scan the square again and type the code that the authenticator shows now")]
    Code,
    /// One answer for every reason, so that it teaches nothing about which accounts exist.
    #[error(
        "name, password or code is wrong, or the code was used before, or there were too many attempts (then wait 15 \
         minutes, or use a browser in which you have signed in before)"
    )]
    Refused,
    #[error(transparent)]
    Db(#[from] DbError),
}

impl From<rusqlite::Error> for AccountError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Db(error.into())
    }
}

/// A person who is signed in.
#[derive(Debug, Clone)]
pub struct Caller {
    pub name: String,
    pub role: Role,
    /// The token that every change must carry.
    pub csrf: String,
}

#[derive(Debug, Clone)]
pub struct Account {
    pub name: String,
    pub role: Role,
    pub created_ms: i64,
    pub disabled: bool,
    /// Somebody has tried the name so often that only browsers which know the person get in.
    pub besieged: bool,
}

/// Makes an account at once and returns its one-time-code secret (base32).
pub fn create(db: &Db, now_ms: i64, name: &str, role: Role, password: &str) -> Result<String, AccountError> {
    check_name(name)?;
    check_password(password)?;
    let (hash, totp) = (hash_password(password), Totp::generate_secret());
    db.write_blocking(|tx| {
        insert(tx, now_ms, name, role, &hash, &totp, 0)?;
        audit::append(tx, now_ms, "command line", Act::AccountCreated, name)?;
        Ok(totp)
    })
}

/// Makes a one-time invitation, good for a day; returns its token, of which only a hash is kept.
pub fn invite(db: &Db, now_ms: i64, role: Role) -> Result<String, AccountError> {
    let token = random_token();
    db.write_blocking(|tx| {
        tx.execute(
            "INSERT INTO invites (token_hash, role, totp, expires_ms) VALUES (?1, ?2, ?3, ?4)",
            (token_hash(&token), role.word(), Totp::generate_secret(), now_ms + INVITE_MS),
        )?;
        audit::append(tx, now_ms, "command line", Act::AccountInvited, role.word())
    })?;
    Ok(token)
}

/// What the invitation's page shows.
pub struct Invitation {
    pub role: Role,
    pub totp: String,
}

pub fn invitation(db: &Connection, now_ms: i64, token: &str) -> Result<Invitation, AccountError> {
    let row: Option<(String, String)> = db
        .query_row(
            "SELECT role, totp FROM invites WHERE token_hash = ?1 AND used_ms IS NULL AND expires_ms > ?2",
            (token_hash(token), now_ms),
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (role, totp) = row.ok_or(AccountError::Invite)?;
    Ok(Invitation { role: Role::from_word(&role).ok_or(AccountError::Invite)?, totp })
}

/// Turns an invitation into an account. Blocks for the password's hash.
pub fn accept(db: &Db, now_ms: i64, token: &str, name: &str, password: &str, code: &str) -> Result<(), AccountError> {
    check_name(name)?;
    check_password(password)?;
    let invite = db.write_blocking(|tx| invitation(tx, now_ms, token))?;
    let step = Totp::verify(&invite.totp, &digits(code), None).ok_or(AccountError::Code)?;
    let hash = hash_password(password);
    db.write_blocking(|tx| {
        let used = tx.execute(
            "UPDATE invites SET used_ms = ?2 WHERE token_hash = ?1 AND used_ms IS NULL AND expires_ms > ?2",
            (token_hash(token), now_ms),
        )?;
        if used != 1 {
            return Err(AccountError::Invite);
        }
        insert(tx, now_ms, name, invite.role, &hash, &invite.totp, i64::try_from(step).unwrap_or(i64::MAX))?;
        Ok(audit::append(tx, now_ms, name, Act::AccountCreated, name)?)
    })
}

fn insert(
    db: &Connection,
    now_ms: i64,
    name: &str,
    role: Role,
    hash: &str,
    totp: &str,
    step: i64,
) -> Result<(), AccountError> {
    let inserted = db.execute(
        "INSERT INTO users (name, role, password, totp, totp_step, created_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (name) DO NOTHING",
        (name, role.word(), hash, totp, step, now_ms),
    )?;
    if inserted == 1 { Ok(()) } else { Err(AccountError::Taken) }
}

pub fn list(db: &Connection, now_ms: i64) -> rusqlite::Result<Vec<Account>> {
    let mut statement =
        db.prepare("SELECT name, role, created_ms, disabled_ms IS NOT NULL FROM users ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get(2)?, row.get(3)?)))?;
    let mut accounts = Vec::new();
    for row in rows {
        let (name, role, created_ms, disabled): (String, _, _, _) = row?;
        let besieged = lockout::besieged(db, now_ms, &name)?;
        accounts.extend(Role::from_word(&role).map(|role| Account { name, role, created_ms, disabled, besieged }));
    }
    Ok(accounts)
}

/// Lets a person sign in again whom failed attempts, their own or somebody else's, keep out.
pub fn unlock(db: &Db, now_ms: i64, name: &str) -> Result<(), AccountError> {
    db.write_blocking(|tx| {
        let sql = "SELECT EXISTS (SELECT 1 FROM users WHERE name = ?1)";
        if !tx.query_row(sql, [name], |row| row.get::<_, bool>(0))? {
            return Err(AccountError::Unknown);
        }
        lockout::lift(tx, name)?;
        Ok(audit::append(tx, now_ms, "command line", Act::AccountUnlocked, name)?)
    })
}

/// Ends every session of the account and lets nobody sign in with it.
pub fn disable(db: &Db, now_ms: i64, name: &str) -> Result<(), AccountError> {
    db.write_blocking(|tx| {
        let changed = tx.execute("UPDATE users SET disabled_ms = ?2 WHERE name = ?1", (name, now_ms))?;
        if changed != 1 {
            return Err(AccountError::Unknown);
        }
        tx.execute("DELETE FROM sessions WHERE user = (SELECT id FROM users WHERE name = ?1)", [name])?;
        Ok(audit::append(tx, now_ms, "command line", Act::AccountDisabled, name)?)
    })
}

/// What a browser gets that has signed in.
#[derive(Debug)]
pub struct SignedIn {
    /// The session's token.
    pub token: String,
    /// The cookie by which the browser is known next time.
    pub device: Option<String>,
}

/// Checks name, password and code, and starts a session. Blocks for the password's hash.
///
/// The attempt is counted before the password is looked at, so that attempts made at once do not escape the bound. One
/// that is over it is not looked at, for an unknown name as for a known one; else a hash is computed for both, so that the
/// time taken tells nothing.
pub fn sign_in(
    db: &Db,
    now_ms: i64,
    from: Origin<'_>,
    name: &str,
    password: &str,
    code: &str,
) -> Result<SignedIn, AccountError> {
    let admit =
        |tx: &Transaction<'_>| Ok::<_, AccountError>((lockout::admit(tx, now_ms, name, from)?, find(tx, name)?));
    let (counted, found) = db.write_blocking(admit)?;
    let result = match &counted {
        None => None,
        Some(counted) => {
            let hash = found.as_ref().map_or_else(|| decoy().to_owned(), |user| user.password.clone());
            let fits = password.len() <= PASSWORD_BYTES_MAX && verify_password(password, &hash);
            let user = found.as_ref().filter(|user| fits && !user.disabled);
            db.write_blocking(|tx| enter(tx, now_ms, from, (name, code), user, counted))?
        }
    };
    if let Some(signed_in) = result {
        return Ok(signed_in);
    }
    // A name that is no account may be a password typed into the wrong field: it is never recorded.
    let who = if found.is_some() { name } else { "unknown" };
    db.write_blocking(|tx| audit::append(tx, now_ms, who, Act::SignInRefused, ""))?;
    Err(AccountError::Refused)
}

/// Whose password was right: the code, and the session.
fn enter(
    tx: &Transaction<'_>,
    now_ms: i64,
    from: Origin<'_>,
    (name, code): (&str, &str),
    user: Option<&User>,
    counted: &Counted,
) -> Result<Option<SignedIn>, AccountError> {
    let Some(user) = user else { return Ok(None) };
    let last = u64::try_from(user.totp_step).ok();
    let Some(step) = Totp::verify(&user.totp, &digits(code), last) else { return Ok(None) };
    let step = i64::try_from(step).unwrap_or(i64::MAX);
    // The step is spent in the same statement that checks it: two requests with one code cannot both pass.
    let spent = tx.execute(
        "UPDATE users SET totp_step = ?2
         WHERE id = ?1 AND (totp_step < ?2 OR totp_step > ?2 + ?3) AND disabled_ms IS NULL",
        (user.id, step, TOTP_STEPS_AHEAD_MAX),
    )?;
    if spent != 1 {
        return Ok(None);
    }
    let device = lockout::succeeded(tx, counted, name, from)?;
    let token = start_session(tx, now_ms, user.id)?;
    audit::append(tx, now_ms, name, Act::SignIn, "")?;
    Ok(Some(SignedIn { token, device }))
}

struct User {
    id: i64,
    password: String,
    totp: String,
    totp_step: i64,
    disabled: bool,
}

fn find(db: &Connection, name: &str) -> rusqlite::Result<Option<User>> {
    let sql = "SELECT id, password, totp, totp_step, disabled_ms IS NOT NULL FROM users WHERE name = ?1";
    db.query_row(sql, [name], |row| {
        Ok(User {
            id: row.get(0)?,
            password: row.get(1)?,
            totp: row.get(2)?,
            totp_step: row.get(3)?,
            disabled: row.get(4)?,
        })
    })
    .optional()
}

fn decoy() -> &'static str {
    static DECOY: OnceLock<String> = OnceLock::new();
    DECOY.get_or_init(|| hash_password(&random_token()))
}

fn start_session(db: &Connection, now_ms: i64, user: i64) -> rusqlite::Result<String> {
    let token = random_token();
    let sql = "DELETE FROM sessions WHERE created_ms < ?1 OR max(created_ms, seen_ms) > ?2";
    db.execute(sql, [now_ms - SESSION_MS_MAX, now_ms + SKEW_MS])?;
    db.execute(
        "INSERT INTO sessions (token_hash, user, csrf, created_ms, seen_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
        (token_hash(&token), user, random_token(), now_ms),
    )?;
    Ok(token)
}

/// The caller of a session that is neither idle nor too old; `touch` says that a person did something.
pub fn session(
    db: &Connection,
    now_ms: i64,
    idle_ms: i64,
    token: &str,
    touch: bool,
) -> rusqlite::Result<Option<Caller>> {
    let hash = token_hash(token);
    let row: Option<(String, String, String)> = db
        .query_row(
            "SELECT u.name, u.role, s.csrf FROM sessions s JOIN users u ON u.id = s.user
             WHERE s.token_hash = ?1 AND u.disabled_ms IS NULL AND s.seen_ms > ?2 AND s.created_ms > ?3
                AND max(s.created_ms, s.seen_ms) <= ?4",
            (hash, now_ms - idle_ms, now_ms - SESSION_MS_MAX, now_ms + SKEW_MS),
            |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
        )
        .optional()?;
    let Some((name, role, csrf)) = row else {
        db.execute("DELETE FROM sessions WHERE token_hash = ?1", [hash])?;
        return Ok(None);
    };
    let Some(role) = Role::from_word(&role) else { return Ok(None) };
    if touch {
        // Once a second is exact enough and spares the disk.
        db.execute("UPDATE sessions SET seen_ms = ?2 WHERE token_hash = ?1 AND seen_ms < ?2 - 1000", (hash, now_ms))?;
    }
    Ok(Some(Caller { name, role, csrf }))
}

pub fn sign_out(db: &Connection, now_ms: i64, token: &str, who: &str) -> rusqlite::Result<()> {
    db.execute("DELETE FROM sessions WHERE token_hash = ?1", [token_hash(token)])?;
    audit::append(db, now_ms, who, Act::SignOut, "")
}

/// Enrols the fingerprint of an owner's approval key. False when the account has one already, or the key belongs to
/// another account.
pub fn enrol_key(db: &Connection, now_ms: i64, who: &str, fingerprint: &str) -> rusqlite::Result<bool> {
    let changed = db.execute(
        "UPDATE OR IGNORE users SET approval_key = ?2 WHERE name = ?1 AND role = ?3 AND approval_key IS NULL",
        (who, fingerprint, Role::Owner.word()),
    )?;
    if changed == 1 {
        audit::append(db, now_ms, who, Act::ApprovalKeyEnrolled, fingerprint)?;
    }
    Ok(changed == 1)
}

/// Names and fingerprints of every owner's approval key.
pub fn approval_keys(db: &Connection) -> rusqlite::Result<Vec<(String, String)>> {
    db.prepare_cached("SELECT name, approval_key FROM users WHERE approval_key IS NOT NULL ORDER BY name")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

pub fn csrf_fits(caller: &Caller, sent: &str) -> bool {
    constant_time_eq(caller.csrf.as_bytes(), sent.as_bytes())
}

/// Authenticators show codes in two groups; people type the space.
fn digits(code: &str) -> String {
    code.split_whitespace().collect()
}

fn check_name(name: &str) -> Result<(), AccountError> {
    let fits = (2..=32).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-'));
    if fits { Ok(()) } else { Err(AccountError::Name) }
}

fn check_password(password: &str) -> Result<(), AccountError> {
    let fits = password.chars().count() >= PASSWORD_CHARS_MIN && password.len() <= PASSWORD_BYTES_MAX;
    if fits { Ok(()) } else { Err(AccountError::Password) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "a calm long password";

    fn db() -> (tempfile::TempDir, Db) {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        (folder, db)
    }

    fn code(secret: &str) -> String {
        Totp::current_code(secret).unwrap()
    }

    /// Signs in from an address, with a browser that nobody has used.
    fn sign_in(db: &Db, now_ms: i64, name: &str, password: &str, code: &str) -> Result<String, AccountError> {
        let from = Origin { address: [192, 0, 2, 1].into(), device: None };
        super::sign_in(db, now_ms, from, name, password, code).map(|signed_in| signed_in.token)
    }

    fn caller(db: &Db, now_ms: i64, token: &str) -> Option<Caller> {
        db.write_blocking(|tx| session(tx, now_ms, 900_000, token, true)).unwrap()
    }

    #[test]
    fn a_code_opens_one_session_and_a_session_ends() {
        let (_folder, db) = db();
        let now = 1_000_000_000_000;
        let secret = create(&db, now, "anna", Role::Owner, PASSWORD).unwrap();
        let code = code(&secret);
        assert!(matches!(sign_in(&db, now, "anna", "another password", &code), Err(AccountError::Refused)));
        let token = sign_in(&db, now, "anna", PASSWORD, &code).unwrap();
        assert!(matches!(sign_in(&db, now, "anna", PASSWORD, &code), Err(AccountError::Refused)), "replay");
        assert_eq!(caller(&db, now, &token).unwrap().role, Role::Owner);
        assert!(caller(&db, now + 899_000, &token).is_some(), "used within the idle time");
        assert!(caller(&db, now + 899_000 + 900_000, &token).is_none(), "idle");
        assert!(caller(&db, now, &token).is_none(), "an ended session does not come back");
    }

    #[test]
    fn a_session_ends_after_half_a_day_even_when_it_is_used() {
        let (_folder, db) = db();
        let secret = create(&db, 0, "anna", Role::Owner, PASSWORD).unwrap();
        let token = sign_in(&db, 1, "anna", PASSWORD, &code(&secret)).unwrap();
        let mut now = 1;
        while now < SESSION_MS_MAX {
            assert!(caller(&db, now, &token).is_some());
            now += 800_000;
        }
        assert!(caller(&db, now, &token).is_none());
    }

    #[test]
    fn whoever_keeps_guessing_keeps_nobody_out_of_their_own_browser() {
        let (_folder, db) = db();
        let secret = create(&db, 0, "anna", Role::Auditor, PASSWORD).unwrap();
        let from = |last: u8, device| Origin { address: [192, 0, 2, last].into(), device };
        let enter = |at, from, password: &str| super::sign_in(&db, at, from, "anna", password, &code(&secret));
        let unspend = || {
            let again = |tx: &Transaction<'_>| tx.execute("UPDATE users SET totp_step = 0", []);
            db.write_blocking(|tx| again(tx)).unwrap();
        };
        let device = enter(10, from(1, None), PASSWORD).unwrap().device.unwrap();
        unspend();
        // As a wrong password is counted, without the time that its hash takes.
        let guess =
            |last| db.write_blocking(|tx| lockout::admit(tx, 20, "anna", from(last, None)).map(|c| c.is_some()));
        assert_eq!((1..=200).filter(|last| guess(*last).unwrap()).count(), 100);
        assert!(db.write_blocking(|tx| list(tx, 20)).unwrap()[0].besieged);
        assert!(enter(30, from(250, None), PASSWORD).is_err(), "a browser that is new to her");
        let own = enter(30, from(1, Some(&device)), PASSWORD).unwrap();
        assert_eq!(own.device.as_ref(), Some(&device));
        unspend();
        // The cookie gives a few tries and nothing else.
        for _ in 0..5 {
            assert!(enter(40, from(1, Some(&device)), "wrong wrong wrong").is_err());
        }
        assert!(enter(40, from(1, Some(&device)), PASSWORD).is_err());
        unlock(&db, 50, "anna").unwrap();
        assert!(enter(50, from(250, None), PASSWORD).is_ok(), "the server's administrator lets her in");
        assert!(matches!(unlock(&db, 50, "bert"), Err(AccountError::Unknown)));
    }

    #[test]
    fn five_failures_from_one_place_lock_it_even_for_the_right_password() {
        let (_folder, db) = db();
        let secret = create(&db, 0, "anna", Role::Auditor, PASSWORD).unwrap();
        for _ in 0..5 {
            assert!(sign_in(&db, 10, "anna", "wrong wrong wrong", &code(&secret)).is_err());
        }
        let later = 15 * 60_000;
        assert!(sign_in(&db, later, "anna", PASSWORD, &code(&secret)).is_err(), "locked");
        assert!(sign_in(&db, later + 1010, "anna", PASSWORD, &code(&secret)).is_ok(), "the lock ends");
    }

    #[test]
    fn a_session_from_a_clock_that_was_ahead_is_over() {
        let (_folder, db) = db();
        let now = 1_000_000_000_000;
        let secret = create(&db, now, "anna", Role::Owner, PASSWORD).unwrap();
        let token = sign_in(&db, now + 90_000_000, "anna", PASSWORD, &code(&secret)).unwrap();
        assert!(caller(&db, now + 90_000_000 - SKEW_MS, &token).is_some(), "a small step back signs nobody out");
        assert!(caller(&db, now, &token).is_none());
        assert!(caller(&db, now + 90_000_000, &token).is_none(), "an ended session does not come back");
    }

    #[test]
    fn a_code_used_while_the_clock_was_ahead_locks_nobody_out() {
        let (_folder, db) = db();
        let secret = create(&db, 0, "anna", Role::Owner, PASSWORD).unwrap();
        let ahead = |tx: &Connection| tx.execute("UPDATE users SET totp_step = totp_step + 100000000", []);
        db.write_blocking(|tx| ahead(tx)).unwrap();
        assert!(sign_in(&db, 1, "anna", PASSWORD, &code(&secret)).is_ok());
        assert!(sign_in(&db, 1, "anna", PASSWORD, &code(&secret)).is_err(), "a code was accepted twice");
    }

    #[test]
    fn a_disabled_account_loses_its_session() {
        let (_folder, db) = db();
        let secret = create(&db, 0, "anna", Role::PracticeIt, PASSWORD).unwrap();
        let token = sign_in(&db, 1, "anna", PASSWORD, &code(&secret)).unwrap();
        disable(&db, 2, "anna").unwrap();
        assert!(caller(&db, 3, &token).is_none());
        assert!(matches!(disable(&db, 2, "bert"), Err(AccountError::Unknown)));
        assert!(db.write_blocking(|tx| list(tx, 3)).unwrap()[0].disabled);
    }

    #[test]
    fn an_invitation_makes_one_account() {
        let (_folder, db) = db();
        let token = invite(&db, 0, Role::Owner).unwrap();
        let secret = db.write_blocking(|tx| invitation(tx, 1, &token)).unwrap().totp;
        assert!(matches!(accept(&db, 1, &token, "anna", PASSWORD, "000000x"), Err(AccountError::Code)));
        assert!(matches!(accept(&db, 1, &token, "anna", "short", &code(&secret)), Err(AccountError::Password)));
        assert!(matches!(accept(&db, 1, &token, "Jane Doe", PASSWORD, &code(&secret)), Err(AccountError::Name)));
        accept(&db, 1, &token, "anna", PASSWORD, &code(&secret)).unwrap();
        assert!(matches!(accept(&db, 1, &token, "bert", PASSWORD, &code(&secret)), Err(AccountError::Invite)));
        let old = invite(&db, 0, Role::Owner).unwrap();
        assert!(db.write_blocking(|tx| invitation(tx, INVITE_MS, &old)).is_err());
    }

    #[test]
    fn what_was_typed_as_an_unknown_name_is_not_recorded() {
        let (_folder, db) = db();
        assert!(sign_in(&db, 1, "my-secret-password", "x", "1").is_err());
        let entries = db.write_blocking(|tx| audit::page(tx, i64::MAX, 10)).unwrap();
        assert!(entries.iter().all(|e| !e.who.contains("secret") && !e.subject.contains("secret")));
        assert_eq!(entries[0].who, "unknown");
    }
}
