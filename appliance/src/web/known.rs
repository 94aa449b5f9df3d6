//! Sessions that were looked up a moment ago. A program asks hundreds of times a second with one token, and the answer is the
//! same until somebody changes something.

use crate::access::sessions::Session;
use crate::clock;
use crate::store::BELIEVED;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Sessions at the same time, at most; more are looked up each time.
const SESSIONS_MAX: usize = 1024;

/// What a session is depends on the records and the time alone, so it holds for one state of both.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// [`crate::store::Store::changes`], taken before the session was looked up.
    pub changes: u64,
    /// Unix seconds, as the session was asked for.
    pub now: i64,
}

#[derive(Default)]
pub struct Known(Mutex<Option<Of>>);

struct Of {
    moment: Moment,
    /// Before the first of them was looked up.
    since: Instant,
    /// By the token's hash.
    sessions: HashMap<[u8; 32], Arc<Session>>,
}

impl Known {
    pub fn find(&self, moment: Moment, token_hash: &[u8; 32]) -> Option<Arc<Session>> {
        let known = self.lock();
        let of = known.as_ref().filter(|of| of.moment == moment && of.since.elapsed() < BELIEVED)?;
        of.sessions.get(token_hash).cloned()
    }

    /// Keeps a session that was looked up after `began`.
    pub fn keep(&self, moment: Moment, began: Instant, session: &Arc<Session>) {
        let mut known = self.lock();
        if !known.as_ref().is_some_and(|of| of.moment == moment && of.since.elapsed() < BELIEVED) {
            *known = Some(Of { moment, since: began, sessions: HashMap::new() });
        }
        if let Some(of) = known.as_mut().filter(|of| of.sessions.len() < SESSIONS_MAX && of.since <= began) {
            of.sessions.insert(session.token_hash, Arc::clone(session));
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Of>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The moment before a session is looked up.
pub fn began() -> Instant {
    clock::monotonic()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::accounts::{self, NewAccount};
    use crate::access::{Role, sessions};
    use crate::clock::Clock;
    use crate::store::{Mode, Store, Tx};

    fn session(token: &str) -> Arc<Session> {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(crate::support::place(dir.path()), Clock::manual(1_000_000), Mode::New).unwrap();
        let open = |tx: &mut Tx<'_>| {
            let (practitioner, totp_step) = (None, None);
            let (id, name, display, role) = ("1", "anna", "Anna", Role::Clinician);
            let (password_hash, totp_secret) = ("!", "x");
            let new = NewAccount { id, name, display, role, practitioner, password_hash, totp_secret, totp_step };
            accounts::insert(tx.connection(), &new, 1000)?;
            let account = accounts::credentials(tx.connection(), "anna")?.unwrap().account;
            sessions::open(tx.connection(), &account, ("token", "csrf"), "", 1000)
        };
        store.write_blocking(&crate::access::Actor::anonymous(), open).unwrap();
        let found = store.internal_blocking(|db| sessions::find(db, token, 600, 1000)).unwrap();
        Arc::new(found.unwrap())
    }

    fn under(session: &Session, token_hash: [u8; 32]) -> Arc<Session> {
        let mut other = session.clone();
        other.token_hash = token_hash;
        Arc::new(other)
    }

    /// A time that is not too long ago for as long as a test takes.
    fn fresh() -> Instant {
        began().checked_add(std::time::Duration::from_secs(3600)).unwrap()
    }

    #[test]
    fn a_session_is_known_for_its_moment_and_not_for_long() {
        let (known, session) = (Known::default(), session("token"));
        let moment = Moment { changes: 7, now: 1000 };
        assert!(known.find(moment, &session.token_hash).is_none());
        known.keep(moment, fresh(), &session);
        assert!(known.find(moment, &session.token_hash).is_some());
        assert!(known.find(moment, &[0; 32]).is_none(), "another token");
        assert!(known.find(Moment { changes: 8, ..moment }, &session.token_hash).is_none(), "something was changed");
        assert!(known.find(Moment { now: 1001, ..moment }, &session.token_hash).is_none(), "it may be locked by now");
        let old = began().checked_sub(BELIEVED).unwrap();
        known.keep(Moment { changes: 8, ..moment }, old, &session);
        assert!(known.find(Moment { changes: 8, ..moment }, &session.token_hash).is_none(), "too long ago");
    }

    #[test]
    fn what_was_looked_up_earlier_does_not_count_as_newer() {
        let (known, session) = (Known::default(), session("token"));
        let moment = Moment { changes: 7, now: 1000 };
        let other = under(&session, [9; 32]);
        known.keep(moment, fresh(), &other);
        known.keep(moment, began(), &session);
        assert!(known.find(moment, &session.token_hash).is_none());
        assert!(known.find(moment, &[9; 32]).is_some());
    }

    #[test]
    fn there_are_not_more_than_fit() {
        let (known, session) = (Known::default(), session("token"));
        let moment = Moment { changes: 7, now: 1000 };
        let since = fresh();
        for number in 0..SESSIONS_MAX + 10 {
            let mut token_hash = [0; 32];
            token_hash[..8].copy_from_slice(&number.to_le_bytes());
            known.keep(moment, since, &under(&session, token_hash));
        }
        assert_eq!(known.lock().as_ref().unwrap().sessions.len(), SESSIONS_MAX);
    }
}
