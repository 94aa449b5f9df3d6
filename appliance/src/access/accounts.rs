//! Accounts of the staff, and invitations. Failed logins are counted in [`super::lockout`].
//!
//! Every function works inside a transaction of the store (`&Connection`); times are Unix seconds given by the caller.
//! Slow password hashing never runs in here: a transaction must not wait 100 ms for argon2.

use super::Role;
use crate::db::{Connection, OptionalExtension, Row, params};

/// How long an invitation is good.
pub const INVITE_S: i64 = 72 * 3600;
/// The shortest password. Length beats composition rules (NIST SP 800-63B asks for 8; staff get two factors on top).
pub const PASSWORD_CHARS_MIN: usize = 12;
/// Longer input would only burn time in argon2.
pub const PASSWORD_CHARS_MAX: usize = 256;

#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    #[error("the account database refused: {0}")]
    Database(#[from] crate::db::Error),
    #[error("a user of this name exists already; choose another name")]
    NameTaken,
    #[error("nobody else administers the practice: make another user an administrator first")]
    LastAdministrator,
    #[error("no user has this name; `appliance user list` shows all")]
    UnknownUser,
    #[error("nobody logs in to the portal with this address")]
    UnknownMail,
    #[error("a login name has 2 to 32 characters of a-z, 0-9, dot, dash and underscore, and begins with a letter")]
    BadName,
    #[error("a password needs at least {PASSWORD_CHARS_MIN} characters; several words make a good one")]
    PasswordTooShort,
    #[error("a password may have {PASSWORD_CHARS_MAX} characters at most")]
    PasswordTooLong,
    #[error("the display name is empty or longer than 80 characters")]
    BadDisplay,
    #[error("this invitation is unknown, used or expired; ask for a new one (`appliance user invite`)")]
    BadInvite,
    #[error("this is not an e-mail address")]
    BadMail,
    #[error("another patient's account has this address; choose another one")]
    MailTaken,
    #[error("somebody with another birth date logs in with this address, or their access was ended")]
    MailOfAnother,
    #[error("nobody was granted this, or it was withdrawn")]
    UnknownProxy,
    #[error(
        "the patient's consents keep out whoever acts for them: the patient agrees or takes the refusal back first, under Consents"
    )]
    KeptOut,
    #[error("this link is unknown, used or too old; please ask the practice for a new one")]
    BadLink,
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
}

/// An account as the pages show it: without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: String,
    pub name: String,
    pub display: String,
    pub role: Role,
    /// The `Practitioner` resource that this user is.
    pub practitioner: Option<String>,
    pub created: i64,
    pub disabled: bool,
}

/// What is needed to check a login. No Debug: it carries the password hash and the TOTP secret.
pub struct Credentials {
    pub account: Account,
    pub password_hash: String,
    pub totp_secret: String,
    pub totp_step: Option<u64>,
}

/// A new account; the password is already hashed.
pub struct NewAccount<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub display: &'a str,
    pub role: Role,
    pub practitioner: Option<&'a str>,
    pub password_hash: &'a str,
    pub totp_secret: &'a str,
    /// The step of the code that proved the enrolment: the same code must not log in again.
    pub totp_step: Option<u64>,
}

const COLUMNS: &str = "id, name, display, role, practitioner, created, disabled";

fn account(row: &Row<'_>) -> crate::db::Result<Account> {
    let role: String = row.get(3)?;
    let role = role.parse().map_err(|_| crate::db::Error::Column)?;
    Ok(Account {
        id: row.get(0)?,
        name: row.get(1)?,
        display: row.get(2)?,
        role,
        practitioner: row.get(4)?,
        created: row.get(5)?,
        disabled: row.get::<_, Option<i64>>(6)?.is_some(),
    })
}

/// The form of a login name that is stored and compared: trimmed, lower case.
pub fn login_name(typed: &str) -> Result<String, AccountError> {
    let name = typed.trim().to_ascii_lowercase();
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    let letter_first = name.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if (2..=32).contains(&name.len()) && letter_first && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(AccountError::BadName)
    }
}

/// Refuses passwords that are too short to be one, or too long to be typed.
pub fn check_password_form(password: &str) -> Result<(), AccountError> {
    match password.chars().count() {
        n if n < PASSWORD_CHARS_MIN => Err(AccountError::PasswordTooShort),
        n if n > PASSWORD_CHARS_MAX => Err(AccountError::PasswordTooLong),
        _ => Ok(()),
    }
}

pub fn insert(db: &Connection, new: &NewAccount<'_>, now: i64) -> Result<(), AccountError> {
    let display = new.display.trim();
    if display.is_empty() || display.chars().count() > 80 {
        return Err(AccountError::BadDisplay);
    }
    let step = new.totp_step.and_then(|s| i64::try_from(s).ok());
    let inserted = db.execute(
        "INSERT INTO account (id, name, display, role, practitioner, password, totp_secret, totp_step, created)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (name) DO NOTHING",
        params![
            new.id,
            login_name(new.name)?,
            display,
            new.role.as_str(),
            new.practitioner,
            new.password_hash,
            new.totp_secret,
            step,
            now
        ],
    )?;
    if inserted == 1 { Ok(()) } else { Err(AccountError::NameTaken) }
}

pub fn list(db: &Connection) -> Result<Vec<Account>, AccountError> {
    let mut statement = db.prepare_cached(&format!("SELECT {COLUMNS} FROM account ORDER BY name"))?;
    let rows = statement.query_map([], account)?;
    Ok(rows.collect::<crate::db::Result<_>>()?)
}

/// The account and its secrets by login name; disabled accounts are found too, the caller refuses them.
pub fn credentials(db: &Connection, name: &str) -> Result<Option<Credentials>, AccountError> {
    let Ok(name) = login_name(name) else { return Ok(None) };
    let sql = format!("SELECT {COLUMNS}, password, totp_secret, totp_step FROM account WHERE name = ?1");
    let found = db
        .prepare_cached(&sql)?
        .query_row([name], |row| {
            Ok(Credentials {
                account: account(row)?,
                password_hash: row.get(7)?,
                totp_secret: row.get(8)?,
                totp_step: row.get::<_, Option<i64>>(9)?.and_then(|s| u64::try_from(s).ok()),
            })
        })
        .optional()?;
    Ok(found)
}

/// Disables or enables an account; disabling ends its sessions and what it allowed programs at once.
pub fn set_disabled(db: &Connection, name: &str, disabled: bool, now: i64) -> Result<(), AccountError> {
    let at = disabled.then_some(now);
    let changed = db.execute("UPDATE account SET disabled = ?2 WHERE name = ?1", params![login_name(name)?, at])?;
    if changed == 0 {
        return Err(AccountError::UnknownUser);
    }
    db.execute("DELETE FROM session WHERE account IN (SELECT id FROM account WHERE disabled IS NOT NULL)", [])?;
    if disabled {
        let id: String =
            db.query_row("SELECT id FROM account WHERE name = ?1", [login_name(name)?], |row| row.get(0))?;
        super::smart::end_of_account(db, &id, now * 1000)?;
    }
    Ok(())
}

/// Gives a user another role; gives the account's id, `None` where the role was that already. Sessions, and what was allowed
/// programs, end at once: nothing goes on in a role that is no more.
///
/// # Errors
/// [`AccountError::LastAdministrator`] where nobody would administer the practice afterwards.
pub fn set_role(db: &Connection, name: &str, role: Role, now: i64) -> Result<Option<String>, AccountError> {
    let account = credentials(db, name)?.ok_or(AccountError::UnknownUser)?.account;
    if account.role == role {
        return Ok(None);
    }
    if account.role == Role::PracticeAdmin {
        let sql = "SELECT count(*) FROM account WHERE role = ?1 AND disabled IS NULL AND id <> ?2";
        let others: i64 = db.query_row(sql, [account.role.as_str(), &account.id], |row| row.get(0))?;
        if others == 0 {
            return Err(AccountError::LastAdministrator);
        }
    }
    db.execute("UPDATE account SET role = ?2 WHERE id = ?1", [account.id.as_str(), role.as_str()])?;
    db.execute("DELETE FROM session WHERE account = ?1", [&account.id])?;
    super::emergency::end(db, &account.id, now)?;
    super::smart::end_of_account(db, &account.id, now * 1000)?;
    Ok(Some(account.id))
}

/// Takes a TOTP step: succeeds once for each step and never for an older one, also when two requests race. A last step so
/// far ahead that it came from a wrong clock does not count ([`service::auth::TOTP_STEPS_AHEAD_MAX`]).
pub fn take_totp_step(db: &Connection, account_id: &str, step: u64) -> Result<bool, AccountError> {
    let Ok(step) = i64::try_from(step) else { return Ok(false) };
    let taken = db.execute(
        "UPDATE account SET totp_step = ?2
         WHERE id = ?1 AND (totp_step IS NULL OR totp_step < ?2 OR totp_step > ?2 + ?3)",
        params![account_id, step, service::auth::TOTP_STEPS_AHEAD_MAX],
    )?;
    Ok(taken == 1)
}

/// An open invitation.
pub struct Invite {
    pub role: Role,
    pub totp_secret: String,
}

pub fn insert_invite(
    db: &Connection,
    token: &str,
    role: Role,
    totp_secret: &str,
    now: i64,
) -> Result<(), AccountError> {
    db.execute("DELETE FROM invite WHERE expires < ?1", [now])?;
    db.execute(
        "INSERT INTO invite (token_hash, role, totp_secret, expires) VALUES (?1, ?2, ?3, ?4)",
        params![service::auth::token_hash(token).as_slice(), role.as_str(), totp_secret, now + INVITE_S],
    )?;
    Ok(())
}

pub fn invite(db: &Connection, token: &str, now: i64) -> Result<Invite, AccountError> {
    let hash = service::auth::token_hash(token);
    let found: Option<(String, String)> = db
        .query_row(
            "SELECT role, totp_secret FROM invite WHERE token_hash = ?1 AND used IS NULL AND expires >= ?2",
            params![hash.as_slice(), now],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()?;
    let (role, totp_secret) = found.ok_or(AccountError::BadInvite)?;
    Ok(Invite { role: role.parse().map_err(|_| AccountError::BadInvite)?, totp_secret })
}

/// Uses the invitation up; fails when somebody else did so first.
pub fn take_invite(db: &Connection, token: &str, now: i64) -> Result<(), AccountError> {
    let hash = service::auth::token_hash(token);
    let taken = db.execute(
        "UPDATE invite SET used = ?2 WHERE token_hash = ?1 AND used IS NULL AND expires >= ?2",
        params![hash.as_slice(), now],
    )?;
    if taken == 1 { Ok(()) } else { Err(AccountError::BadInvite) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(crate::access::SCHEMA).unwrap();
        db.execute_batch(crate::access::SCHEMA_2).unwrap();
        db.execute_batch(include_str!("../store/schema-5.sql")).unwrap();
        db.execute_batch(crate::access::SCHEMA_3).unwrap();
        db.execute_batch(crate::access::SCHEMA_8).unwrap();
        db
    }

    pub(crate) fn add(db: &Connection, name: &str, role: Role) -> String {
        let id = format!("id-{name}");
        let new = NewAccount {
            id: &id,
            name,
            display: "Some Body",
            role,
            practitioner: None,
            password_hash: "x",
            totp_secret: "JBSWY3DPEHPK3PXP",
            totp_step: None,
        };
        insert(db, &new, 1000).unwrap();
        id
    }

    #[test]
    fn names_are_unique_whatever_the_case() {
        let db = database();
        add(&db, "Anna", Role::Clinician);
        let again = NewAccount {
            id: "other",
            name: " ANNA",
            display: "A",
            role: Role::FrontDesk,
            practitioner: None,
            password_hash: "x",
            totp_secret: "A",
            totp_step: None,
        };
        assert!(matches!(insert(&db, &again, 1), Err(AccountError::NameTaken)));
        assert!(credentials(&db, "aNNa ").unwrap().is_some());
        for bad in ["", "a", "1abc", "a b", "a/b", "ä-umlaut", "x".repeat(33).as_str()] {
            assert!(matches!(login_name(bad), Err(AccountError::BadName)), "{bad}");
        }
    }

    #[test]
    fn a_role_changes_with_all_that_was_done_in_it_and_never_the_last_administrators() {
        let db = database();
        let (anna, _) = (add(&db, "anna", Role::PracticeAdmin), add(&db, "berta", Role::Clinician));
        assert!(matches!(set_role(&db, "anna", Role::Clinician, 1), Err(AccountError::LastAdministrator)));
        assert!(matches!(set_role(&db, "nobody", Role::Clinician, 1), Err(AccountError::UnknownUser)));
        assert_eq!(set_role(&db, "anna", Role::PracticeAdmin, 1).unwrap(), None);
        set_role(&db, "berta", Role::PracticeAdmin, 1).unwrap();
        set_disabled(&db, "berta", true, 1).unwrap();
        assert!(
            matches!(set_role(&db, "anna", Role::Clinician, 1), Err(AccountError::LastAdministrator)),
            "an ended one"
        );
        set_disabled(&db, "berta", false, 1).unwrap();
        let account = credentials(&db, "anna").unwrap().unwrap().account;
        crate::access::sessions::open(&db, &account, ("token", "csrf"), "", 1).unwrap();
        assert_eq!(set_role(&db, "anna", Role::FrontDesk, 2).unwrap(), Some(anna));
        assert!(crate::access::sessions::find(&db, "token", 600, 2).unwrap().is_none());
        assert_eq!(credentials(&db, "anna").unwrap().unwrap().account.role, Role::FrontDesk);
    }

    #[test]
    fn a_code_is_good_once_and_never_backwards() {
        let db = database();
        let id = add(&db, "anna", Role::Clinician);
        assert!(take_totp_step(&db, &id, 100).unwrap());
        assert!(!take_totp_step(&db, &id, 100).unwrap());
        assert!(!take_totp_step(&db, &id, 99).unwrap());
        assert!(take_totp_step(&db, &id, 101).unwrap());
    }

    #[test]
    fn a_step_of_a_clock_that_was_ahead_is_given_up() {
        let db = database();
        let id = add(&db, "anna", Role::Clinician);
        assert!(take_totp_step(&db, &id, 3_000).unwrap());
        assert!(!take_totp_step(&db, &id, 2_998).unwrap());
        assert!(take_totp_step(&db, &id, 100).unwrap());
        assert!(!take_totp_step(&db, &id, 100).unwrap(), "a code was accepted twice");
    }

    #[test]
    fn an_invitation_works_once_and_expires() {
        let db = database();
        insert_invite(&db, "token", Role::PracticeAdmin, "SECRET", 1000).unwrap();
        assert!(matches!(invite(&db, "other", 1000), Err(AccountError::BadInvite)));
        assert!(matches!(invite(&db, "token", 1001 + INVITE_S), Err(AccountError::BadInvite)));
        assert_eq!(invite(&db, "token", 1000).unwrap().role, Role::PracticeAdmin);
        take_invite(&db, "token", 1000).unwrap();
        assert!(matches!(take_invite(&db, "token", 1000), Err(AccountError::BadInvite)));
        assert!(matches!(invite(&db, "token", 1000), Err(AccountError::BadInvite)));
    }
}
