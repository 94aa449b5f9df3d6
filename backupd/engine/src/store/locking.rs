//! Locks every new object from its first moment.

use super::versions::{Lock, LockMode, VersionedStore};
use super::{ListedObject, MaintenanceStore, Store};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Range;
use std::sync::Arc;

const DAY_MS: i64 = 86_400_000;

/// How objects are locked, and for how long from now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LockRule {
    pub mode: LockMode,
    pub ms: i64,
}

impl LockRule {
    #[must_use]
    pub fn days(mode: LockMode, days: u32) -> Self {
        Self { mode, ms: i64::from(days).saturating_mul(DAY_MS) }
    }

    /// A lock that begins now.
    #[must_use]
    pub fn from_now(self, now_unix_ms: i64) -> Lock {
        Lock { mode: self.mode, until_unix_ms: now_unix_ms.saturating_add(self.ms) }
    }
}

/// A store whose puts are locked.
pub struct LockingStore {
    inner: Arc<dyn MaintenanceStore>,
    versions: Arc<dyn VersionedStore>,
    rule: LockRule,
    env: Env,
}

impl LockingStore {
    /// `versions` is the same store once more.
    #[must_use]
    pub fn new(inner: Arc<dyn MaintenanceStore>, versions: Arc<dyn VersionedStore>, rule: LockRule, env: Env) -> Self {
        Self { inner, versions, rule, env }
    }
}

impl Store for LockingStore {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let lock = self.rule.from_now(self.env.now_unix_ms());
            let Err(error) = self.versions.put_locked(name, bytes.clone(), lock).await else { return Ok(()) };
            // A key that may create but not overwrite is refused when an earlier attempt landed unseen.
            let refused = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Fenced);
            if refused && self.get(name).await.is_ok_and(|there| there == bytes) { Ok(()) } else { Err(error) }
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get(name)
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        self.inner.list(prefix)
    }
}

impl MaintenanceStore for LockingStore {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.put(name, bytes)
    }

    /// For good, every version of it: a deletion by name would only hide what goes on being stored and paid for. While one of
    /// them is locked nothing is hidden either, so that whoever lists the store sees what it keeps.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let all = self.versions.versions(name).await?;
            let now = self.env.now_unix_ms();
            let mine: Vec<_> = all.into_iter().filter(|version| version.name == name).collect();
            for version in mine.iter().filter(|version| !version.is_delete_marker) {
                let lock = self.versions.lock(name, Some(&version.id)).await?;
                if lock.is_some_and(|lock| lock.until_unix_ms > now) {
                    return Err(Error::new(ErrorKind::Denied, format!("a lock keeps {name}")));
                }
            }
            for version in &mine {
                self.versions.delete_version(name, Some(&version.id), false).await?;
            }
            Ok(())
        })
    }
}
