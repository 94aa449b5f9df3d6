//! Server-side sessions. The browser holds a random token, the database its hash: who reads the database cannot log in.

use super::accounts::{Account, AccountError};
use super::portal::Acting;
use super::{Actor, Capacity, Role};
use crate::db::{Connection, OptionalExtension, params};

/// `__Host-` makes the browser insist on Secure, Path=/ and no Domain.
pub const COOKIE: &str = "__Host-holdfast";
/// A session ends this long after login, whatever happens in it.
pub const ABSOLUTE_S: i64 = 12 * 3600;
/// A session whose times lie further ahead than this was opened or used while the clock was wrong. It is over: until the
/// time caught up it would neither lock nor end.
pub(super) const SKEW_S: i64 = 60;
/// `seen` is written at most this often, so that reading pages does not mean one write each.
const SEEN_GRAIN_S: i64 = 15;

/// A session as a request sees it.
#[derive(Clone)]
pub struct Session {
    pub token_hash: [u8; 32],
    pub actor: Actor,
    pub display: String,
    pub practitioner: Option<String>,
    /// Whom a session of the portal acts for; `None` for the staff's.
    pub acting: Option<Acting>,
    /// Expected in every state-changing request of this session.
    pub csrf: String,
    pub state: State,
    created: i64,
    seen: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Open,
    /// Idle for too long, or locked by hand: only unlocking and logging out are possible.
    Locked,
}

impl Session {
    /// A session of the portal; `times` are when it was opened and last used. It has no lock: it ends when it is idle.
    pub(super) fn of_portal(
        token_hash: [u8; 32],
        actor: Actor,
        acting: Acting,
        display: String,
        csrf: String,
        (created, seen): (i64, i64),
    ) -> Self {
        let (acting, state) = (Some(acting), State::Open);
        Self { token_hash, actor, display, practitioner: None, acting, csrf, state, created, seen }
    }

    /// Without the people whose consent keeps out who acts for them: a session that acted for one of them acts for nobody.
    pub(crate) fn heeding(
        mut self,
        keeps_out: impl Fn(&str) -> Result<bool, AccountError>,
    ) -> Result<Self, AccountError> {
        let Some(acting) = &mut self.acting else { return Ok(self) };
        let mut open = Vec::new();
        for choice in std::mem::take(&mut acting.choices) {
            if !keeps_out(&choice.patient)? {
                open.push(choice);
            }
        }
        acting.choices = open;
        if acting.proxy.as_ref().is_some_and(|proxy| acting.choices.iter().all(|choice| choice.id != proxy.id)) {
            acting.proxy = None;
            self.actor = Actor::of_nobody(&acting.account);
        }
        Ok(self)
    }

    /// Whether [`touch`] would write anything.
    pub fn touch_due(&self, now: i64) -> bool {
        self.state == State::Open && now - self.seen >= SEEN_GRAIN_S
    }

    /// Seconds until the session ends for good.
    pub fn remaining_s(&self, now: i64) -> i64 {
        (self.created + ABSOLUTE_S - now).max(0)
    }
}

/// Opens a session for an account that has proved itself. `token` is new for each login: a token planted in the browser
/// before the login never becomes a session. `device` is [`device`] of the browser.
pub fn open(
    db: &Connection,
    account: &Account,
    (token, csrf): (&str, &str),
    device: &str,
    now: i64,
) -> Result<(), AccountError> {
    // Also those from the future, before their time comes and they are good again.
    let sql = "DELETE FROM session WHERE created <= ?1 OR created > ?2 OR seen > ?2";
    db.execute(sql, [now - ABSOLUTE_S, now + SKEW_S])?;
    db.execute(
        "INSERT INTO session (token_hash, account, csrf, created, seen, device) VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
        params![service::auth::token_hash(token).as_slice(), account.id, csrf, now, device],
    )?;
    Ok(())
}

/// The session of a cookie's token; `None` when there is none, it is over, or its account is disabled.
pub fn find(db: &Connection, token: &str, idle_lock_s: i64, now: i64) -> Result<Option<Session>, AccountError> {
    let token_hash = service::auth::token_hash(token);
    let mut statement = db.prepare_cached(
        "SELECT s.csrf, s.created, s.seen, s.locked, a.id, a.name, a.role, a.display, a.practitioner,
            EXISTS (SELECT 1 FROM break_glass b WHERE b.account = a.id AND b.began <= ?3 AND b.ends > ?3)
         FROM session s JOIN account a ON a.id = s.account
         WHERE s.token_hash = ?1 AND s.created > ?2 AND s.created <= ?4 AND s.seen <= ?4 AND a.disabled IS NULL",
    )?;
    let found = statement
        .query_row(params![token_hash.as_slice(), now - ABSOLUTE_S, now, now + SKEW_S], |row| {
            let (seen, locked): (i64, Option<i64>) = (row.get(2)?, row.get(3)?);
            let idle = now - seen > idle_lock_s;
            let role: Option<Role> = row.get::<_, String>(6)?.parse().ok();
            Ok(role.map(|role| {
                Ok::<_, crate::db::Error>(Session {
                    token_hash,
                    actor: Actor {
                        id: row.get(4)?,
                        name: row.get(5)?,
                        capacity: if row.get(9)? { Capacity::Emergency(role) } else { Capacity::Staff(role) },
                        grant: None,
                        once: None,
                    },
                    display: row.get(7)?,
                    practitioner: row.get(8)?,
                    acting: None,
                    csrf: row.get(0)?,
                    state: if idle || locked.is_some() { State::Locked } else { State::Open },
                    created: row.get(1)?,
                    seen,
                })
            }))
        })
        .optional()?
        .flatten();
    Ok(found.transpose()?)
}

/// Notes that a person was here.
pub fn touch(db: &Connection, session: &Session, now: i64) -> Result<(), AccountError> {
    db.prepare_cached(
        "UPDATE session SET seen = CASE WHEN seen < ?2 THEN ?2 ELSE seen END WHERE token_hash = ?1 AND locked IS NULL",
    )?
    .execute(params![session.token_hash.as_slice(), now])?;
    Ok(())
}

pub fn lock(db: &Connection, session: &Session, now: i64) -> Result<(), AccountError> {
    db.execute("UPDATE session SET locked = ?2 WHERE token_hash = ?1", params![session.token_hash.as_slice(), now])?;
    Ok(())
}

/// Unlocks after the account's password was checked again, under a new token: a token copied from the browser while
/// nobody was watching is worth nothing afterwards.
pub fn unlock(db: &Connection, session: &Session, token: &str, now: i64) -> Result<(), AccountError> {
    db.execute(
        "UPDATE session SET token_hash = ?2, seen = ?3, locked = NULL WHERE token_hash = ?1",
        params![session.token_hash.as_slice(), service::auth::token_hash(token).as_slice(), now],
    )?;
    Ok(())
}

pub fn close(db: &Connection, token_hash: &[u8; 32]) -> Result<(), AccountError> {
    db.execute("DELETE FROM session WHERE token_hash = ?1", [token_hash.as_slice()])?;
    Ok(())
}

/// An open session, for the list of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Names it in a form; opens nothing.
    pub id: String,
    pub account: String,
    pub name: String,
    pub display: String,
    pub role: String,
    /// What is known of program and machine; empty for one from before it was noted.
    pub device: String,
    pub created: i64,
    pub seen: i64,
    pub locked: bool,
}

fn id_of(token_hash: &[u8]) -> String {
    hex::encode(blake3::hash(token_hash).as_bytes().iter().take(16).copied().collect::<Vec<u8>>())
}

/// The sessions that are open, of one account or of all, the last used first.
pub fn list(db: &Connection, account: Option<&str>, idle_lock_s: i64, now: i64) -> Result<Vec<Listed>, AccountError> {
    let sql = "SELECT s.token_hash, a.id, a.name, a.display, a.role, s.device, s.created, s.seen, s.locked IS NOT NULL \
               FROM session s JOIN account a ON a.id = s.account \
               WHERE s.created > ?1 AND s.created <= ?2 AND s.seen <= ?2 AND a.disabled IS NULL AND (?3 = '' OR a.id = ?3) \
               ORDER BY s.seen DESC, s.token_hash";
    let mut statement = db.prepare_cached(sql)?;
    let asked = params![now - ABSOLUTE_S, now + SKEW_S, account.unwrap_or_default()];
    let rows = statement.query_map(asked, |row| {
        let seen = row.get(7)?;
        Ok(Listed {
            id: id_of(&row.get::<_, Vec<u8>>(0)?),
            account: row.get(1)?,
            name: row.get(2)?,
            display: row.get(3)?,
            role: row.get(4)?,
            device: row.get(5)?,
            created: row.get(6)?,
            seen,
            locked: row.get::<_, bool>(8)? || now - seen > idle_lock_s,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The [`Listed::id`] of a session.
pub fn listed_id(session: &Session) -> String {
    id_of(&session.token_hash)
}

/// Ends the session of this id, of one account or of any; gives whose it was.
pub fn end(db: &Connection, id: &str, account: Option<&str>) -> Result<Option<String>, AccountError> {
    let mut statement = db.prepare_cached("SELECT token_hash, account FROM session WHERE ?1 = '' OR account = ?1")?;
    let rows = statement.query_map([account.unwrap_or_default()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(Vec<u8>, String)> = rows.collect::<Result<_, _>>()?;
    let Some((token_hash, owner)) = rows.into_iter().find(|(token_hash, _)| id_of(token_hash) == id) else {
        return Ok(None);
    };
    db.execute("DELETE FROM session WHERE token_hash = ?1", [token_hash.as_slice()])?;
    Ok(Some(owner))
}

/// The kind of program and machine that a browser says it is: never its whole word, which tells people apart.
pub fn device(agent: &str) -> String {
    const PROGRAMS: [(&str, &str); 6] = [
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    ];
    const MACHINES: [(&str, &str); 7] = [
        ("iPhone", "an iPhone"),
        ("iPad", "an iPad"),
        ("Android", "Android"),
        ("Windows", "Windows"),
        ("CrOS", "a Chromebook"),
        ("Mac OS X", "a Mac"),
        ("Linux", "Linux"),
    ];
    let known =
        |table: &[(&str, &'static str)]| table.iter().find(|(mark, _)| agent.contains(mark)).map(|(_, word)| *word);
    match (known(&PROGRAMS), known(&MACHINES)) {
        (Some(program), Some(machine)) => format!("{program} on {machine}"),
        (Some(program), None) => program.to_owned(),
        (None, Some(machine)) => format!("Another program on {machine}"),
        (None, None) => "Another program".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::accounts::{self, tests as account_tests};
    use super::*;

    const IDLE: i64 = 600;

    fn logged_in() -> (Connection, Account) {
        let db = account_tests::database();
        account_tests::add(&db, "anna", Role::Clinician);
        let account = accounts::credentials(&db, "anna").unwrap().unwrap().account;
        open(&db, &account, ("token", "csrf"), "Firefox on Linux", 1000).unwrap();
        (db, account)
    }

    #[test]
    fn a_session_ends_after_twelve_hours_however_busy() {
        let (db, _) = logged_in();
        let end = 1000 + ABSOLUTE_S;
        let mut now = 1000;
        while now < end {
            let session = find(&db, "token", IDLE, now).unwrap().unwrap();
            assert_eq!(session.state, State::Open);
            touch(&db, &session, now).unwrap();
            now += IDLE;
        }
        assert!(find(&db, "token", IDLE, end).unwrap().is_none());
    }

    #[test]
    fn an_idle_session_locks_and_unlocks_under_a_new_token() {
        let (db, _) = logged_in();
        let session = find(&db, "token", IDLE, 1001 + IDLE).unwrap().unwrap();
        assert_eq!(session.state, State::Locked);
        touch(&db, &session, 1001 + IDLE).unwrap();
        unlock(&db, &session, "fresh", 1001 + IDLE).unwrap();
        assert!(find(&db, "token", IDLE, 1001 + IDLE).unwrap().is_none());
        assert_eq!(find(&db, "fresh", IDLE, 1001 + IDLE).unwrap().unwrap().state, State::Open);
    }

    #[test]
    fn a_locked_session_stays_locked_when_requests_arrive() {
        let (db, _) = logged_in();
        let session = find(&db, "token", IDLE, 1000).unwrap().unwrap();
        lock(&db, &session, 1000).unwrap();
        touch(&db, &session, 1020).unwrap();
        assert_eq!(find(&db, "token", IDLE, 1020).unwrap().unwrap().state, State::Locked);
    }

    #[test]
    fn a_session_from_a_clock_that_was_ahead_is_over() {
        let (db, account) = logged_in();
        assert!(find(&db, "token", IDLE, 1000 - SKEW_S).unwrap().is_some(), "a small step back logs nobody out");
        assert!(find(&db, "token", IDLE, 999 - SKEW_S).unwrap().is_none());
        // Opened in time, used while the clock was ahead.
        let session = find(&db, "token", IDLE, 1000).unwrap().unwrap();
        touch(&db, &session, 9000).unwrap();
        assert!(find(&db, "token", IDLE, 2000).unwrap().is_none());
        // The next login ends it for good.
        open(&db, &account, ("fresh", "csrf"), "", 2000).unwrap();
        assert!(find(&db, "token", IDLE, 9000).unwrap().is_none());
        assert!(find(&db, "fresh", IDLE, 2000).unwrap().is_some());
    }

    #[test]
    fn a_session_is_listed_and_ended_by_a_name_that_opens_nothing() {
        let (db, account) = logged_in();
        account_tests::add(&db, "berta", Role::FrontDesk);
        let other = accounts::credentials(&db, "berta").unwrap().unwrap().account;
        open(&db, &other, ("theirs", "csrf"), "", 1100).unwrap();
        let all = list(&db, None, IDLE, 1700).unwrap();
        assert_eq!(all.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["berta", "anna"]);
        assert!(all[1].locked && !all[0].locked && all[1].device == "Firefox on Linux", "{all:?}");
        assert!(find(&db, &all[1].id, IDLE, 1000).unwrap().is_none());
        assert_eq!(list(&db, Some(&account.id), IDLE, 1700).unwrap().len(), 1);
        assert_eq!(end(&db, &all[0].id, Some(&account.id)).unwrap(), None, "another one's");
        assert_eq!(end(&db, &all[0].id, None).unwrap(), Some(other.id));
        assert_eq!(end(&db, &all[0].id, None).unwrap(), None);
        assert!(
            find(&db, "theirs", IDLE, 1200).unwrap().is_none() && find(&db, "token", IDLE, 1200).unwrap().is_some()
        );
        assert!(list(&db, None, IDLE, 1001 + ABSOLUTE_S).unwrap().is_empty(), "those that are over are none");
    }

    #[test]
    fn a_browser_is_known_by_its_kind_alone() {
        for (agent, kind) in [
            ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:142.0) Gecko/20100101 Firefox/142.0", "Firefox on Windows"),
            (
                "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 Edg/140.0",
                "Edge on Windows",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605 Version/18.0 Mobile Safari/604.1",
                "Safari on an iPhone",
            ),
            (
                "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36",
                "Chrome on Linux",
            ),
            (
                "Mozilla/5.0 (Linux; Android 15) AppleWebKit/537.36 Chrome/140.0 Mobile Safari/537.36",
                "Chrome on Android",
            ),
            ("curl/8.5.0", "Another program"),
            ("", "Another program"),
        ] {
            assert_eq!(device(agent), kind);
        }
    }

    #[test]
    fn the_database_never_holds_the_token() {
        let (db, _) = logged_in();
        let stored: Vec<u8> = db.query_row("SELECT token_hash FROM session", [], |r| r.get(0)).unwrap();
        assert_ne!(stored, b"token");
        assert!(find(&db, &hex::encode(&stored), IDLE, 1000).unwrap().is_none());
    }

    #[test]
    fn disabling_an_account_ends_its_sessions() {
        let (db, _) = logged_in();
        accounts::set_disabled(&db, "anna", true, 1001).unwrap();
        assert!(find(&db, "token", IDLE, 1002).unwrap().is_none());
        accounts::set_disabled(&db, "anna", false, 1003).unwrap();
        assert!(find(&db, "token", IDLE, 1004).unwrap().is_none(), "enabling must not revive old sessions");
    }
}
