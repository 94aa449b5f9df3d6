//! A bucket that refuses: to change a lock's mode, as Ceph does without the right to bypass, to change one with it, or any lock.

use super::{LockOutcome, LockWish, extend_locks};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::store::versions::{BucketSettings, Lock, LockMode, Version, VersionedStore};
use crate::store::{LockRule, NamedStore, StoreLocation};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Mutex;

const DAY_MS: i64 = 86_400_000;

/// What the key at this bucket is refused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Refuses {
    Nothing,
    ModesWithoutBypass,
    Modes,
    Everything,
}

/// How it refuses, the locks of versions by their objects' names, and for which of them the right to bypass was used.
struct Bucket {
    refuses: Refuses,
    with: ErrorKind,
    locks: Mutex<BTreeMap<String, Lock>>,
    bypassed: Mutex<BTreeSet<String>>,
}

impl Bucket {
    fn change(&self, name: &str, lock: Lock, bypass: bool) -> Result<()> {
        let mut locks = self.locks.lock().unwrap();
        let old = locks[name];
        assert!(lock.until_unix_ms >= old.until_unix_ms, "{name}: a lock would become shorter");
        assert!(!bypass || (old.mode, lock.mode) == (LockMode::Governance, LockMode::Compliance), "{name}: {lock:?}");
        if bypass {
            self.bypassed.lock().unwrap().insert(name.to_owned());
        }
        let from = if old.mode == lock.mode {
            Refuses::Everything
        } else if bypass {
            Refuses::Modes
        } else {
            Refuses::ModesWithoutBypass
        };
        if self.refuses >= from {
            return Err(Error::new(self.with, "refused"));
        }
        locks.insert(name.to_owned(), lock);
        Ok(())
    }
}

fn unused<T: Send + 'static>() -> BoxFuture<'static, Result<T>> {
    Box::pin(std::future::ready(Err(Error::new(ErrorKind::Misconfigured, "nobody asks for this here"))))
}

impl VersionedStore for Bucket {
    fn settings(&self) -> BoxFuture<'_, Result<BucketSettings>> {
        unused()
    }

    fn versions<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Version>>> {
        let version = |name: &String| Version {
            name: name.clone(),
            id: "1".to_owned(),
            written_unix_ms: 0,
            is_latest: true,
            is_delete_marker: false,
            size: 1,
        };
        let all = self.locks.lock().unwrap().keys().map(version).collect();
        Box::pin(std::future::ready(Ok(all)))
    }

    fn get_version<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        unused()
    }

    fn get_version_range<'a>(&'a self, _: &'a str, _: &'a str, _: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        unused()
    }

    fn put_locked<'a>(&'a self, _: &'a str, _: Bytes, _: Lock) -> BoxFuture<'a, Result<()>> {
        unused()
    }

    fn lock<'a>(&'a self, name: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Result<Option<Lock>>> {
        let lock = self.locks.lock().unwrap().get(name).copied();
        Box::pin(std::future::ready(Ok(lock)))
    }

    fn set_lock<'a>(&'a self, name: &'a str, _: Option<&'a str>, lock: Lock) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(self.change(name, lock, false)))
    }

    fn raise_lock<'a>(&'a self, name: &'a str, _: Option<&'a str>, until: i64) -> BoxFuture<'a, Result<()>> {
        let raised = Lock { mode: LockMode::Compliance, until_unix_ms: until };
        Box::pin(std::future::ready(self.change(name, raised, true)))
    }

    fn legal_hold<'a>(&'a self, _: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Result<bool>> {
        unused()
    }

    fn set_legal_hold<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: bool) -> BoxFuture<'a, Result<()>> {
        unused()
    }

    fn delete_version<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: bool) -> BoxFuture<'a, Result<()>> {
        unused()
    }
}

fn object(n: u8) -> String {
    format!("packs/{n:02x}/{}", format!("{n:02x}").repeat(32))
}

/// Three objects: in governance for 20 days and for 5, in compliance for 20. Wished are at least 15, up to 30, in compliance.
async fn extended(refuses: Refuses, with: ErrorKind) -> (LockOutcome, Vec<(LockMode, i64)>, usize) {
    let (env, _) = Env::seeded(1, 1_800_000_000_000);
    let now = env.now_unix_ms();
    let (governance, compliance) = (LockMode::Governance, LockMode::Compliance);
    let locks = [(governance, 20), (governance, 5), (compliance, 20)]
        .into_iter()
        .enumerate()
        .map(|(n, (mode, days))| (object(u8::try_from(n).unwrap()), Lock { mode, until_unix_ms: now + days * DAY_MS }));
    let bucket = Bucket { refuses, with, locks: Mutex::new(locks.collect()), bypassed: Mutex::default() };
    let folder = StoreLocation::Folder { path: std::env::temp_dir() }.open().unwrap();
    let wish = LockWish { rule: LockRule::days(compliance, 30), slack_ms: 15 * DAY_MS };
    let outcome = extend_locks(&env, &NamedStore::new("a", folder, true), &bucket, wish, &BTreeSet::new()).await;
    let days = |lock: &Lock| (lock.until_unix_ms - now) / DAY_MS;
    let after = bucket.locks.lock().unwrap().values().map(|lock| (lock.mode, days(lock))).collect();
    let bypassed = bucket.bypassed.lock().unwrap().len();
    (outcome, after, bypassed)
}

#[tokio::test]
async fn a_governance_lock_is_raised_with_the_right_to_bypass_where_the_store_wants_that() {
    for (refuses, bypassed) in [(Refuses::Nothing, 0), (Refuses::ModesWithoutBypass, 2)] {
        let (done, after, used) = extended(refuses, ErrorKind::Denied).await;
        assert!(done.holds(), "{done:?}");
        assert_eq!((done.versions, done.extended, done.short, done.mode_short), (3, 2, 0, 0));
        let compliance = LockMode::Compliance;
        assert_eq!(after, [(compliance, 30), (compliance, 30), (compliance, 20)]);
        assert_eq!(used, bypassed, "the right is used for nothing else");
    }
}

#[tokio::test]
async fn a_mode_that_is_not_raised_is_told_apart_from_a_time_that_is_short() {
    let (done, after, _) = extended(Refuses::Modes, ErrorKind::Denied).await;
    assert!(!done.holds() && done.error.is_none(), "{done:?}");
    assert_eq!((done.versions, done.extended, done.short, done.mode_short), (3, 1, 0, 2));
    assert_eq!(done.mode_short_objects, [object(0), object(1)]);
    // The time of the one that was short is moved all the same.
    let governance = LockMode::Governance;
    assert_eq!(after, [(governance, 20), (governance, 30), (LockMode::Compliance, 20)]);

    // Where nothing may be changed, the one is short of time and the other of its mode.
    let (done, after, _) = extended(Refuses::Everything, ErrorKind::Denied).await;
    assert_eq!((done.extended, done.short, done.mode_short), (0, 1, 1), "{done:?}");
    assert_eq!((done.short_objects, done.mode_short_objects), (vec![object(1)], vec![object(0)]));
    assert_eq!(after[..2], [(governance, 20), (governance, 5)]);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_asked_to_bypass_anything() {
    let (done, _, used) = extended(Refuses::Everything, ErrorKind::Unreachable).await;
    assert!(done.error.is_some_and(|error| error.kind() == ErrorKind::Unreachable));
    assert_eq!((done.short, done.mode_short, used), (1, 1, 0));
}
