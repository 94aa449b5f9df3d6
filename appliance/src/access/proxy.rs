//! People who act for patients in the portal: a parent, a guardian, a carer. The practice grants it, with a reach and an end, and
//! withdraws it.
//!
//! ```text
//! chart -> grant -> invitation (one-time link, the proxy's own birth date asked) -> account -> session acts for one patient
//! ```
//!
//! Every function works inside a transaction of the store; times are Unix seconds given by the caller. Whether a grant holds
//! is asked at every request ([`super::portal::find`]): one that was withdrawn or is over opens nothing from that moment on.

use super::accounts::AccountError;
use super::portal;
use crate::db::{Connection, OptionalExtension, Row, params};

/// How far somebody reaches who acts for a patient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reach {
    /// What the patient sees and does in the portal.
    All,
    /// To see and cancel appointments, and nothing of the record.
    Appointments,
}

impl Reach {
    pub fn as_str(self) -> &'static str {
        match self {
            Reach::All => "all",
            Reach::Appointments => "appointments",
        }
    }

    pub fn parse(word: &str) -> Option<Reach> {
        [Reach::All, Reach::Appointments].into_iter().find(|reach| reach.as_str() == word)
    }
}

/// Relations, with the code that FHIR has for each (v3-RoleCode) where it has one.
pub const RELATIONS: [(&str, Option<&str>); 8] = [
    ("mother", Some("MTH")),
    ("father", Some("FTH")),
    ("guardian", Some("GUARD")),
    ("partner", Some("SIGOTHR")),
    ("daughter or son", Some("CHILD")),
    ("relative", Some("FAMMEMB")),
    ("health care agent", Some("HPOWATT")),
    ("carer", None),
];

/// Somebody who acts for a patient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    pub id: String,
    pub patient: String,
    /// The `RelatedPerson` who it is.
    pub related: String,
    /// `None` until the invitation was used.
    pub account: Option<String>,
    pub name: String,
    /// `1990-02-03`.
    pub birth: String,
    pub mail: String,
    pub relation: String,
    pub reach: Reach,
    pub granted: i64,
    /// From then on it opens nothing.
    pub ends: i64,
    pub withdrawn: bool,
}

impl Proxy {
    pub fn holds(&self, now: i64) -> bool {
        !self.withdrawn && self.ends > now
    }

    /// As everybody sees who acted: `Eva Adams (mother)`.
    pub fn told(&self) -> String {
        format!("{} ({})", self.name, self.relation)
    }
}

pub(super) const COLUMNS: &str = "p.id, p.patient, p.related, p.account, p.name, p.birth, p.mail, p.relation, p.scope, p.granted, \
                                  p.ends, p.withdrawn";

/// A row of [`COLUMNS`], which begin at column `at`.
pub(super) fn row(row: &Row<'_>, at: usize) -> crate::db::Result<Proxy> {
    let scope: String = row.get(at + 8)?;
    Ok(Proxy {
        id: row.get(at)?,
        patient: row.get(at + 1)?,
        related: row.get(at + 2)?,
        account: row.get(at + 3)?,
        name: row.get(at + 4)?,
        birth: row.get(at + 5)?,
        mail: row.get(at + 6)?,
        relation: row.get(at + 7)?,
        // The narrower one for a word that nobody wrote.
        reach: Reach::parse(&scope).unwrap_or(Reach::Appointments),
        granted: row.get(at + 9)?,
        ends: row.get(at + 10)?,
        withdrawn: row.get::<_, Option<i64>>(at + 11)?.is_some(),
    })
}

/// Writes a grant down. Its address and birth date decide to whose account it belongs: [`owner_of`].
pub fn grant(db: &Connection, new: &Proxy) -> Result<(), AccountError> {
    let sql = "INSERT INTO portal_proxy (id, patient, related, account, name, birth, mail, relation, scope, granted, ends) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let Proxy { id, patient, related, account, name, birth, mail, relation, reach, granted, ends, .. } = new;
    let row = params![id, patient, related, account, name, birth, mail, relation, reach.as_str(), granted, ends];
    db.execute(sql, row)?;
    Ok(())
}

/// Everybody who was granted to act for a patient and not withdrawn, also those whose time is over.
pub fn of_patient(db: &Connection, patient: &str) -> Result<Vec<Proxy>, AccountError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM portal_proxy p WHERE p.patient = ?1 AND p.withdrawn IS NULL ORDER BY p.name, p.id"
    );
    list(db, &sql, params![patient])
}

/// For whom an account may act now.
pub fn of_account(db: &Connection, account: &str, now: i64) -> Result<Vec<Proxy>, AccountError> {
    let sql = format!(
        "SELECT {COLUMNS} FROM portal_proxy p WHERE p.account = ?1 AND p.withdrawn IS NULL AND p.ends > ?2 ORDER BY p.granted, p.id"
    );
    list(db, &sql, params![account, now])
}

fn list(db: &Connection, sql: &str, asked: &[&dyn crate::db::ToSql]) -> Result<Vec<Proxy>, AccountError> {
    let mut statement = db.prepare_cached(sql)?;
    Ok(statement.query_map(asked, |found| row(found, 0))?.collect::<Result<_, _>>()?)
}

/// A grant about this patient that was not withdrawn.
///
/// # Errors
/// [`AccountError::UnknownProxy`] where there is none: also for one that is another patient's.
pub fn load(db: &Connection, patient: &str, id: &str) -> Result<Proxy, AccountError> {
    of_patient(db, patient)?.into_iter().find(|proxy| proxy.id == id).ok_or(AccountError::UnknownProxy)
}

/// Ends a grant, with its open invitation.
pub fn withdraw(db: &Connection, proxy: &Proxy, now: i64) -> Result<(), AccountError> {
    db.execute("UPDATE portal_proxy SET withdrawn = ?2 WHERE id = ?1 AND withdrawn IS NULL", params![proxy.id, now])?;
    db.execute("UPDATE portal_invite SET used = ?2 WHERE proxy = ?1 AND used IS NULL", params![proxy.id, now])?;
    Ok(())
}

/// What an address is to somebody who shall act for a patient.
#[derive(Debug, PartialEq, Eq)]
pub enum Owner {
    /// Nobody logs in with it yet.
    Nobody,
    /// An account whose person has acted for others under this birth date, or that is the own one of this patient, whose
    /// birth date the caller compares.
    Proxy(String),
    Patient {
        account: String,
        patient: String,
    },
}

/// Whose the address is.
///
/// # Errors
/// [`AccountError::MailOfAnother`] when somebody of another birth date logs in with it, or its account was ended: a slip of the
/// pen must not open a record to a stranger.
pub fn owner_of(db: &Connection, mail: &str, birth: &str) -> Result<Owner, AccountError> {
    let Some(found) = portal::credentials(db, mail)? else { return Ok(Owner::Nobody) };
    let account = found.account;
    match account.patient {
        _ if account.disabled => Err(AccountError::MailOfAnother),
        Some(patient) => Ok(Owner::Patient { account: account.id, patient }),
        None if is_of(db, &account.id, birth)? => Ok(Owner::Proxy(account.id)),
        None => Err(AccountError::MailOfAnother),
    }
}

/// Whether an account that acts for others is that of somebody of this birth date.
pub(super) fn is_of(db: &Connection, account: &str, birth: &str) -> Result<bool, AccountError> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE birth <> ?2) FROM portal_proxy WHERE account = ?1";
    let (all, others): (i64, i64) = db.query_row(sql, [account, birth], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(all > 0 && others == 0)
}

/// Gives an account every grant that waits for somebody with this address and birth date; their invitations are used up.
pub(super) fn link(db: &Connection, account: &str, (mail, birth): (&str, &str), now: i64) -> Result<(), AccountError> {
    let waiting = "mail = ?1 AND birth = ?2 AND account IS NULL AND withdrawn IS NULL";
    let sql = format!(
        "UPDATE portal_invite SET used = ?3 WHERE used IS NULL AND proxy IN (SELECT id FROM portal_proxy WHERE {waiting})"
    );
    db.execute(&sql, params![mail, birth, now])?;
    let sql = format!("UPDATE portal_proxy SET account = ?3 WHERE {waiting}");
    db.execute(&sql, params![mail, birth, account])?;
    Ok(())
}

/// The birth date that an invitation of this grant asks for, and its address.
pub fn invited(db: &Connection, id: &str, now: i64) -> Result<Option<Proxy>, AccountError> {
    let sql = format!("SELECT {COLUMNS} FROM portal_proxy p WHERE p.id = ?1");
    let found = db.prepare_cached(&sql)?.query_row([id], |found| row(found, 0)).optional()?;
    Ok(found.filter(|proxy| proxy.holds(now)))
}

/// Sets up the account of somebody who acts for others, or anew where there is one: then its sessions end.
///
/// # Errors
/// [`AccountError::MailTaken`] when somebody else has this address by now.
pub fn set_up(db: &Connection, proxy: &Proxy, new: &portal::Secrets<'_>, now: i64) -> Result<(), AccountError> {
    let account = match owner_of(db, &proxy.mail, &proxy.birth) {
        Ok(Owner::Nobody) => {
            portal::insert(db, (new.id, None, &proxy.mail), new, now)?;
            new.id.to_owned()
        }
        Ok(Owner::Proxy(account)) => {
            portal::renew(db, &account, new)?;
            account
        }
        Ok(Owner::Patient { .. }) | Err(AccountError::MailOfAnother) => return Err(AccountError::MailTaken),
        Err(error) => return Err(error),
    };
    link(db, &account, (&proxy.mail, &proxy.birth), now)
}

/// Lets a session act for somebody, under a new token of its forms: one that was drawn for somebody else is refused.
/// `id` is a grant of this account; `None` the account's own patient.
pub fn act(
    db: &Connection,
    session: &[u8; 32],
    (account, id): (&str, Option<&str>),
    csrf: &str,
    now: i64,
) -> Result<Option<Proxy>, AccountError> {
    let proxy = match id {
        Some(id) => {
            let found = of_account(db, account, now)?.into_iter().find(|proxy| proxy.id == id);
            Some(found.ok_or(AccountError::UnknownProxy)?)
        }
        None => None,
    };
    let sql = "UPDATE portal_session SET acting = ?2, csrf = ?3 WHERE token_hash = ?1";
    db.execute(sql, params![session.as_slice(), id, csrf])?;
    Ok(proxy)
}
