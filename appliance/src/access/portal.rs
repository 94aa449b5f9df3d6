//! Accounts of patients and of those who act for them ([`super::proxy`]): invitation, login in two steps, session. Their own
//! tables and their own cookie: nothing of the staff's opens them, and they open nothing of the staff's.
//!
//! ```text
//! chart -> invitation (one-time link, birth date asked) -> account: password + authenticator or code by mail
//! mail address + password -> step -> code -> session -> Actor bound to one patient -> authorize(...)
//! ```
//!
//! Every function works inside a transaction of the store; times are Unix seconds given by the caller.

use super::accounts::AccountError;
use super::proxy::{self, Proxy};
use super::sessions::{ABSOLUTE_S, SKEW_S, Session};
use super::{Actor, lockout};
use crate::db::{Connection, OptionalExtension, Row, params};

/// The cookie of a patient's session.
pub const COOKIE: &str = "__Host-holdfast-portal";
/// A patient's session ends after so long without a request, seconds: it may be a borrowed computer.
pub const IDLE_S: i64 = 20 * 60;
/// How long an invitation is good.
pub const INVITE_S: i64 = 7 * 86_400;
/// How long the second step of a login may take.
const STEP_S: i64 = 15 * 60;
/// Wrong answers before an invitation or a step is over.
const WRONG_MAX: u32 = 5;

/// An account, without secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub id: String,
    /// Whose own it is; `None` for somebody who acts for others alone.
    pub patient: Option<String>,
    pub mail: String,
    /// Whether the second factor is an authenticator; a code by mail otherwise.
    pub authenticator: bool,
    pub created: i64,
    pub disabled: bool,
}

/// What is needed to check a login. No Debug: it carries the password hash and the TOTP secret.
pub struct Credentials {
    pub account: Account,
    pub password_hash: String,
    pub totp_secret: Option<String>,
    pub totp_step: Option<u64>,
}

const COLUMNS: &str = "a.id, a.patient, a.mail, a.totp_secret IS NOT NULL, a.created, a.disabled";

fn account(row: &Row<'_>) -> crate::db::Result<Account> {
    Ok(Account {
        id: row.get(0)?,
        patient: row.get(1)?,
        mail: row.get(2)?,
        authenticator: row.get(3)?,
        created: row.get(4)?,
        disabled: row.get::<_, Option<i64>>(5)?.is_some(),
    })
}

/// The form of a mail address that is stored and compared; `None` for what is none.
pub fn mail_address(typed: &str) -> Option<String> {
    let mail = typed.trim().to_lowercase();
    let plain = mail.len() <= 200 && !mail.chars().any(|c| c.is_whitespace() || c.is_control());
    let whole =
        mail.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !host.contains('@'));
    (plain && whole).then_some(mail)
}

/// Under what name the failed tries of an address are counted, apart from those of the staff.
pub fn counted_name(mail: &str) -> String {
    format!("portal {}", mail.trim())
}

/// Lets somebody try again whom strangers keep out.
pub fn unlock(db: &Connection, account: &Account) -> Result<(), AccountError> {
    lockout::lift(db, &counted_name(&account.mail))
}

/// The account of a patient.
pub fn of_patient(db: &Connection, patient: &str) -> Result<Option<Account>, AccountError> {
    let sql = format!("SELECT {COLUMNS} FROM portal_account a WHERE a.patient = ?1");
    Ok(db.prepare_cached(&sql)?.query_row([patient], account).optional()?)
}

/// The account and its secrets by mail address; one that was ended is found too, the caller refuses it.
pub fn credentials(db: &Connection, typed: &str) -> Result<Option<Credentials>, AccountError> {
    let Some(mail) = mail_address(typed) else { return Ok(None) };
    load(db, "a.mail", &mail)
}

fn load(db: &Connection, column: &str, value: &str) -> Result<Option<Credentials>, AccountError> {
    let sql =
        format!("SELECT {COLUMNS}, a.password, a.totp_secret, a.totp_step FROM portal_account a WHERE {column} = ?1");
    let row = |row: &Row<'_>| {
        Ok(Credentials {
            account: account(row)?,
            password_hash: row.get(6)?,
            totp_secret: row.get(7)?,
            totp_step: row.get::<_, Option<i64>>(8)?.and_then(|step| u64::try_from(step).ok()),
        })
    };
    Ok(db.prepare_cached(&sql)?.query_row([value], row).optional()?)
}

/// An account as it is set up; the password is already hashed.
pub struct NewAccount<'a> {
    pub id: &'a str,
    pub patient: &'a str,
    pub mail: &'a str,
    pub password_hash: &'a str,
    /// `None`: the second factor is a code by mail.
    pub totp_secret: Option<&'a str>,
    pub totp_step: Option<u64>,
    /// The patient's birth date, where it was proved: an account of somebody of this birth date and address who acts for others
    /// becomes theirs, and what waits for them is given to it.
    pub birth: Option<&'a str>,
}

/// By what an account is opened; the password is already hashed.
pub struct Secrets<'a> {
    /// The id of the account, where it is a new one.
    pub id: &'a str,
    pub password_hash: &'a str,
    /// `None`: the second factor is a code by mail.
    pub totp_secret: Option<&'a str>,
    pub totp_step: Option<u64>,
}

/// Sets up a patient's account, or anew where there is one: then its sessions end.
///
/// # Errors
/// [`AccountError::MailTaken`] when somebody else's account has this address.
pub fn set_up(db: &Connection, new: &NewAccount<'_>, now: i64) -> Result<(), AccountError> {
    let mail = mail_address(new.mail).ok_or(AccountError::BadMail)?;
    let NewAccount { id, patient, password_hash, totp_secret, totp_step, .. } = *new;
    let secrets = Secrets { id, password_hash, totp_secret, totp_step };
    let holder = load(db, "a.mail", &mail)?.map(|found| found.account);
    let own = of_patient(db, patient)?;
    let account = match (holder, own) {
        (Some(holder), _) if holder.patient.as_deref().is_some_and(|other| other != patient) => {
            return Err(AccountError::MailTaken);
        }
        // Somebody who acts for others becomes a patient who logs in.
        (Some(holder), None) if holder.patient.is_none() => {
            let proved = new.birth.map(|birth| proxy::is_of(db, &holder.id, birth)).transpose()?;
            if proved != Some(true) {
                return Err(AccountError::MailTaken);
            }
            db.execute("UPDATE portal_account SET patient = ?2 WHERE id = ?1", [holder.id.as_str(), patient])?;
            renew(db, &holder.id, &secrets)?;
            holder.id
        }
        (Some(holder), Some(own)) if holder.id != own.id => return Err(AccountError::MailTaken),
        (_, Some(own)) => {
            db.execute("UPDATE portal_account SET mail = ?2 WHERE id = ?1", [&own.id, &mail])?;
            renew(db, &own.id, &secrets)?;
            own.id
        }
        (_, None) => {
            insert(db, (id, Some(patient), &mail), &secrets, now)?;
            id.to_owned()
        }
    };
    match new.birth {
        Some(birth) => proxy::link(db, &account, (&mail, birth), now),
        None => Ok(()),
    }
}

/// Makes an account: id, whose own it is, address.
pub(super) fn insert(
    db: &Connection,
    (id, patient, mail): (&str, Option<&str>, &str),
    new: &Secrets<'_>,
    now: i64,
) -> Result<(), AccountError> {
    let sql = "INSERT INTO portal_account (id, patient, mail, password, totp_secret, totp_step, created) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    db.execute(sql, params![id, patient, mail, new.password_hash, new.totp_secret, step_of(new), now])?;
    Ok(())
}

/// Gives an account new secrets: its sessions end, and it is open again where it was ended.
pub(super) fn renew(db: &Connection, account: &str, new: &Secrets<'_>) -> Result<(), AccountError> {
    end_sessions(db, account)?;
    let sql =
        "UPDATE portal_account SET password = ?2, totp_secret = ?3, totp_step = ?4, disabled = NULL WHERE id = ?1";
    db.execute(sql, params![account, new.password_hash, new.totp_secret, step_of(new)])?;
    Ok(())
}

fn step_of(new: &Secrets<'_>) -> Option<i64> {
    new.totp_step.and_then(|step| i64::try_from(step).ok())
}

fn end_sessions(db: &Connection, account: &str) -> Result<(), AccountError> {
    db.execute("DELETE FROM portal_session WHERE account = ?1", [account])?;
    db.execute("DELETE FROM portal_step WHERE account = ?1", [account])?;
    Ok(())
}

/// Ends a patient's access, with its sessions and open invitations. Who acts for the patient keeps doing so; the patient's own
/// account does not act for others any more either.
pub fn end(db: &Connection, patient: &str, now: i64) -> Result<(), AccountError> {
    if let Some(own) = of_patient(db, patient)? {
        end_sessions(db, &own.id)?;
        let sql = "UPDATE portal_account SET disabled = ?2 WHERE id = ?1 AND disabled IS NULL";
        db.execute(sql, params![own.id, now])?;
    }
    let sql = "UPDATE portal_invite SET used = ?2 WHERE patient = ?1 AND proxy IS NULL AND used IS NULL";
    db.execute(sql, params![patient, now])?;
    Ok(())
}

/// An open invitation.
pub struct Invite {
    pub patient: String,
    /// The grant of who acts for the patient; `None` for the patient.
    pub proxy: Option<String>,
    pub mail: String,
    pub totp_secret: String,
}

/// Whom an invitation is for, and where it goes.
#[derive(Clone, Copy)]
pub struct Invited<'a> {
    pub patient: &'a str,
    /// The grant of who acts for the patient; `None` for the patient.
    pub proxy: Option<&'a str>,
    pub mail: &'a str,
}

/// Invites somebody; an older open invitation of theirs ends.
pub fn invite(
    db: &Connection,
    token: &str,
    whom: Invited<'_>,
    totp_secret: &str,
    now: i64,
) -> Result<(), AccountError> {
    let mail = mail_address(whom.mail).ok_or(AccountError::BadMail)?;
    let sql = "DELETE FROM portal_invite WHERE expires < ?1 OR patient = ?2 AND proxy IS NOT DISTINCT FROM ?3";
    db.execute(sql, params![now, whom.patient, whom.proxy])?;
    let sql = "INSERT INTO portal_invite (token_hash, patient, proxy, mail, totp_secret, expires) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let hash = service::auth::token_hash(token);
    db.execute(sql, params![hash.as_slice(), whom.patient, whom.proxy, mail, totp_secret, now + INVITE_S])?;
    Ok(())
}

/// Until when the invitation of a patient, or of who acts for them, is open.
pub fn invited_until(
    db: &Connection,
    patient: &str,
    proxy: Option<&str>,
    now: i64,
) -> Result<Option<i64>, AccountError> {
    let sql = "SELECT expires FROM portal_invite \
               WHERE patient = ?1 AND proxy IS NOT DISTINCT FROM ?4 AND used IS NULL AND expires >= ?2 AND wrong < ?3";
    Ok(db.prepare_cached(sql)?.query_row(params![patient, now, WRONG_MAX, proxy], |row| row.get(0)).optional()?)
}

const INVITE_OPEN: &str = "token_hash = ?1 AND used IS NULL AND expires >= ?2 AND wrong < ?3";

/// The invitation of a link.
///
/// # Errors
/// [`AccountError::BadLink`] when it is unknown, used, over or was answered wrongly too often.
pub fn open_invite(db: &Connection, token: &str, now: i64) -> Result<Invite, AccountError> {
    let sql = format!("SELECT patient, proxy, mail, totp_secret FROM portal_invite WHERE {INVITE_OPEN}");
    let row = |row: &Row<'_>| {
        Ok(Invite { patient: row.get(0)?, proxy: row.get(1)?, mail: row.get(2)?, totp_secret: row.get(3)? })
    };
    let hash = service::auth::token_hash(token);
    let found = db.query_row(&sql, params![hash.as_slice(), now, WRONG_MAX], row).optional()?;
    found.ok_or(AccountError::BadLink)
}

/// Uses the invitation up; fails when somebody else did so first.
pub fn take_invite(db: &Connection, token: &str, now: i64) -> Result<(), AccountError> {
    let hash = service::auth::token_hash(token);
    let sql = format!("UPDATE portal_invite SET used = ?2 WHERE {INVITE_OPEN}");
    let taken = db.execute(&sql, params![hash.as_slice(), now, WRONG_MAX])?;
    if taken == 1 { Ok(()) } else { Err(AccountError::BadLink) }
}

/// Notes that an invitation was answered with another birth date.
pub fn wrong_invite(db: &Connection, token: &str) -> Result<(), AccountError> {
    let hash = service::auth::token_hash(token);
    db.execute("UPDATE portal_invite SET wrong = wrong + 1 WHERE token_hash = ?1", [hash.as_slice()])?;
    Ok(())
}

/// Begins the second step of a login whose password was right; `code` is what was mailed.
pub fn begin_step(
    db: &Connection,
    account: &str,
    token: &str,
    code: Option<&str>,
    now: i64,
) -> Result<(), AccountError> {
    db.execute("DELETE FROM portal_step WHERE expires < ?1 OR account = ?2", params![now, account])?;
    let sql = "INSERT INTO portal_step (token_hash, account, code_hash, expires) VALUES (?1, ?2, ?3, ?4)";
    let hash = service::auth::token_hash(token);
    // With the step's own token: six digits alone would be found from their hash.
    let code = code.map(|code| service::auth::token_hash(&format!("{token}{code}")).to_vec());
    db.execute(sql, params![hash.as_slice(), account, code, now + STEP_S])?;
    Ok(())
}

/// What the second step expects.
pub struct Step {
    pub credentials: Credentials,
    code_hash: Option<Vec<u8>>,
}

impl Step {
    /// Whether this is the code that was mailed; for an authenticator the caller asks [`service::auth::Totp`].
    pub fn is_mailed(&self, token: &str, code: &str) -> bool {
        let own = service::auth::token_hash(&format!("{token}{code}"));
        self.code_hash.as_deref().is_some_and(|hash| service::auth::constant_time_eq(hash, &own))
    }

    pub fn by_mail(&self) -> bool {
        self.code_hash.is_some()
    }
}

/// An open second step.
pub fn step(db: &Connection, token: &str, now: i64) -> Result<Option<Step>, AccountError> {
    let sql = "SELECT account, code_hash FROM portal_step WHERE token_hash = ?1 AND expires >= ?2 AND wrong < ?3";
    let hash = service::auth::token_hash(token);
    let row = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let found: Option<(String, Option<Vec<u8>>)> =
        db.query_row(sql, params![hash.as_slice(), now, WRONG_MAX], row).optional()?;
    let Some((account, code_hash)) = found else { return Ok(None) };
    let credentials = load(db, "a.id", &account)?.filter(|found| !found.account.disabled);
    Ok(credentials.map(|credentials| Step { credentials, code_hash }))
}

pub fn wrong_step(db: &Connection, token: &str) -> Result<(), AccountError> {
    let hash = service::auth::token_hash(token);
    db.execute("UPDATE portal_step SET wrong = wrong + 1 WHERE token_hash = ?1", [hash.as_slice()])?;
    Ok(())
}

/// Uses the step up, and the TOTP step where there is one: each is good once, also when two requests race.
pub fn finish_step(db: &Connection, account: &str, token: &str, totp_step: Option<u64>) -> Result<bool, AccountError> {
    let hash = service::auth::token_hash(token);
    if db
        .execute("DELETE FROM portal_step WHERE token_hash = ?1 AND wrong < ?2", params![hash.as_slice(), WRONG_MAX])?
        != 1
    {
        return Ok(false);
    }
    let Some(step) = totp_step else { return Ok(true) };
    let Ok(step) = i64::try_from(step) else { return Ok(false) };
    // As for the staff: a step that a wrong clock stored far ahead does not count.
    let sql = "UPDATE portal_account SET totp_step = ?2 \
               WHERE id = ?1 AND (totp_step IS NULL OR totp_step < ?2 OR totp_step > ?2 + ?3)";
    Ok(db.execute(sql, params![account, step, service::auth::TOTP_STEPS_AHEAD_MAX])? == 1)
}

/// Opens a session under a new token. It acts for the account's own patient; where that is nobody, for the only one there is;
/// where there are several, for nobody until one is chosen.
pub fn open(db: &Connection, account: &str, token: &str, csrf: &str, now: i64) -> Result<(), AccountError> {
    let sql = "DELETE FROM portal_session WHERE created <= ?1 OR seen < ?2 OR created > ?3 OR seen > ?3";
    db.execute(sql, [now - ABSOLUTE_S, now - IDLE_S, now + SKEW_S])?;
    let sql = "INSERT INTO portal_session (token_hash, account, csrf, created, seen) VALUES (?1, ?2, ?3, ?4, ?4)";
    let hash = service::auth::token_hash(token);
    db.execute(sql, params![hash.as_slice(), account, csrf, now])?;
    let own = load(db, "a.id", account)?.is_some_and(|found| found.account.patient.is_some());
    if let ([only], false) = (proxy::of_account(db, account, now)?.as_slice(), own) {
        proxy::act(db, &hash, (account, Some(&only.id)), csrf, now)?;
    }
    Ok(())
}

/// Whom a session acts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acting {
    pub account: String,
    /// The account's own patient.
    pub own: Option<String>,
    /// The grant by which it acts; `None` for the own patient, or for nobody.
    pub proxy: Option<Proxy>,
    /// For whom it may act.
    pub choices: Vec<Proxy>,
}

/// The session of a cookie's token; `None` when there is none, it is over, or its account was ended. Where the grant by which it
/// acted holds no more, it acts for nobody: never for somebody else instead.
pub fn find(db: &Connection, token: &str, now: i64) -> Result<Option<Session>, AccountError> {
    let token_hash = service::auth::token_hash(token);
    let sql = "SELECT s.csrf, s.created, s.seen, s.acting, a.id, a.patient, a.mail FROM portal_session s \
               JOIN portal_account a ON a.id = s.account \
               WHERE s.token_hash = ?1 AND s.created > ?2 AND s.seen >= ?3 AND s.created <= ?4 AND s.seen <= ?4 \
               AND a.disabled IS NULL";
    type Found = (String, (i64, i64), Option<String>, String, Option<String>, String);
    let row = |row: &Row<'_>| -> crate::db::Result<Found> {
        Ok((row.get(0)?, (row.get(1)?, row.get(2)?), row.get(3)?, row.get(4)?, row.get(5)?, row.get(6)?))
    };
    let limits = params![token_hash.as_slice(), now - ABSOLUTE_S, now - IDLE_S, now + SKEW_S];
    let found = db.prepare_cached(sql)?.query_row(limits, row).optional()?;
    let Some((csrf, times, acting, account, own, mail)) = found else { return Ok(None) };
    let choices = proxy::of_account(db, &account, now)?;
    let proxy = acting.as_ref().and_then(|id| choices.iter().find(|proxy| proxy.id == *id)).cloned();
    let actor = match (&acting, &proxy, &own) {
        (_, Some(proxy), _) => Actor::of_proxy(&account, proxy),
        (None, None, Some(own)) => Actor::of_patient(&account, own),
        _ => Actor::of_nobody(&account),
    };
    let acting = Acting { account, own, proxy, choices };
    Ok(Some(Session::of_portal(token_hash, actor, acting, mail, csrf, times)))
}

/// Notes that the patient was here.
pub fn touch(db: &Connection, session: &Session, now: i64) -> Result<(), AccountError> {
    let sql = "UPDATE portal_session SET seen = CASE WHEN seen < ?2 THEN ?2 ELSE seen END WHERE token_hash = ?1";
    db.prepare_cached(sql)?.execute(params![session.token_hash.as_slice(), now])?;
    Ok(())
}

pub fn close(db: &Connection, token_hash: &[u8; 32]) -> Result<(), AccountError> {
    db.execute("DELETE FROM portal_session WHERE token_hash = ?1", [token_hash.as_slice()])?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: NewAccount<'static> = NewAccount {
        id: "account",
        patient: "p",
        mail: " Ada@Example.org ",
        password_hash: "x",
        totp_secret: None,
        totp_step: None,
        birth: None,
    };

    const ADA: Invited<'static> = Invited { patient: "p", proxy: None, mail: "ada@example.org" };

    fn database() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(super::super::SCHEMA_4).unwrap();
        db.execute_batch(super::super::SCHEMA_6).unwrap();
        db
    }

    #[test]
    fn one_address_is_one_patients() {
        let db = database();
        set_up(&db, &NEW, 1000).unwrap();
        assert_eq!(credentials(&db, "ADA@example.org").unwrap().unwrap().account.patient.as_deref(), Some("p"));
        let other = NewAccount { id: "other", patient: "q", ..NEW };
        assert!(matches!(set_up(&db, &other, 1000), Err(AccountError::MailTaken)));
        for bad in ["", "ada", "@example.org", "ada@host", "a b@example.org", "a@b@example.org"] {
            assert!(mail_address(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_session_is_bound_to_its_patient_and_ends_when_idle_or_ended() {
        let db = database();
        set_up(&db, &NEW, 1000).unwrap();
        open(&db, "account", "token", "csrf", 1000).unwrap();
        let session = find(&db, "token", 1000 + IDLE_S).unwrap().unwrap();
        assert_eq!(session.actor.patient(), Some("p"));
        assert!(find(&db, "token", 1001 + IDLE_S).unwrap().is_none());
        touch(&db, &session, 1500).unwrap();
        assert!(find(&db, "token", 1500 + IDLE_S).unwrap().is_some());
        assert!(find(&db, "csrf", 1000).unwrap().is_none());
        assert!(find(&db, "token", 1500 - SKEW_S).unwrap().is_some());
        assert!(find(&db, "token", 1499 - SKEW_S).unwrap().is_none(), "used while the clock was ahead");
        end(&db, "p", 1600).unwrap();
        assert!(find(&db, "token", 1600).unwrap().is_none());
        // Set up anew: nobody's old session comes back.
        set_up(&db, &NEW, 1700).unwrap();
        assert!(find(&db, "token", 1700).unwrap().is_none());
    }

    #[test]
    fn an_invitation_is_good_once_and_not_for_guessing() {
        let db = database();
        invite(&db, "first", ADA, "SECRET", 1000).unwrap();
        invite(&db, "token", ADA, "SECRET", 1000).unwrap();
        assert!(open_invite(&db, "first", 1000).is_err(), "the newer one ends the older one");
        assert!(open_invite(&db, "token", 1001 + INVITE_S).is_err());
        take_invite(&db, "token", 1000).unwrap();
        assert!(take_invite(&db, "token", 1000).is_err() && open_invite(&db, "token", 1000).is_err());
        invite(&db, "guessed", ADA, "SECRET", 1000).unwrap();
        for _ in 0..WRONG_MAX {
            open_invite(&db, "guessed", 1000).unwrap();
            wrong_invite(&db, "guessed").unwrap();
        }
        assert!(open_invite(&db, "guessed", 1000).is_err() && take_invite(&db, "guessed", 1000).is_err());
    }

    #[test]
    fn a_code_is_good_once_for_its_own_step() {
        let db = database();
        set_up(&db, &NEW, 1000).unwrap();
        begin_step(&db, "account", "one", Some("123456"), 1000).unwrap();
        let found = step(&db, "one", 1000).unwrap().unwrap();
        assert!(
            found.is_mailed("one", "123456") && !found.is_mailed("one", "123457") && !found.is_mailed("two", "123456")
        );
        assert!(finish_step(&db, "account", "one", None).unwrap());
        assert!(!finish_step(&db, "account", "one", None).unwrap());
        begin_step(&db, "account", "two", Some("123456"), 1000).unwrap();
        for _ in 0..WRONG_MAX {
            wrong_step(&db, "two").unwrap();
        }
        assert!(step(&db, "two", 1000).unwrap().is_none() && !finish_step(&db, "account", "two", None).unwrap());
        begin_step(&db, "account", "three", None, 1000).unwrap();
        assert!(!step(&db, "three", 1000).unwrap().unwrap().is_mailed("three", ""));
        assert!(step(&db, "three", 1001 + STEP_S).unwrap().is_none());
        assert!(finish_step(&db, "account", "three", Some(7)).unwrap());
        begin_step(&db, "account", "four", None, 1000).unwrap();
        assert!(!finish_step(&db, "account", "four", Some(7)).unwrap(), "a TOTP step is good once");
        begin_step(&db, "account", "five", None, 1000).unwrap();
        assert!(finish_step(&db, "account", "five", Some(4)).unwrap(), "a step of a clock that was ahead locks out");
    }
}
