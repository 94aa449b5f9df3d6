//! What a store with versions and locks can do beyond a `Store`. An overwrite or a deletion by name leaves the old
//! version behind; a lock keeps a version from everybody until its day.

use crate::error::Result;
use bytes::Bytes;
use futures::future::BoxFuture;

/// Who can end a lock before its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockMode {
    /// Nobody.
    Compliance,
    /// Whoever has the right to bypass it.
    Governance,
}

impl LockMode {
    /// Of two the one that fewer can end.
    pub(crate) fn stricter(self, other: Self) -> Self {
        if self == other { self } else { LockMode::Compliance }
    }
}

/// A version that stays until a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lock {
    pub mode: LockMode,
    pub until_unix_ms: i64,
}

/// How a bucket is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BucketSettings {
    /// Overwritten and deleted objects stay as older versions.
    pub versions: bool,
    /// Versions can be locked.
    pub locks: bool,
    /// What locks a new object that comes without a lock of its own: mode and days.
    pub new_objects: Option<(LockMode, u32)>,
}

/// One version of an object, or the mark that it was deleted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub name: String,
    /// As the store calls it.
    pub id: String,
    /// By the store's clock.
    pub written_unix_ms: i64,
    pub is_latest: bool,
    /// It holds no bytes: from here on the object counts as gone.
    pub is_delete_marker: bool,
    pub size: u64,
}

/// A store that keeps versions. Without `version` an operation is about the latest.
pub trait VersionedStore: Send + Sync {
    fn settings(&self) -> BoxFuture<'_, Result<BucketSettings>>;
    /// Every version and delete marker of every object whose name begins with `prefix`, the newest of a name first.
    fn versions<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Version>>>;
    fn get_version<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<Bytes>>;
    fn get_version_range<'a>(
        &'a self,
        name: &'a str,
        version: &'a str,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes>>;
    /// Writes an object that is locked from its first moment.
    fn put_locked<'a>(&'a self, name: &'a str, bytes: Bytes, lock: Lock) -> BoxFuture<'a, Result<()>>;
    fn lock<'a>(&'a self, name: &'a str, version: Option<&'a str>) -> BoxFuture<'a, Result<Option<Lock>>>;
    /// Locks a version, or moves the day of its lock further away. A store refuses an earlier day with `Denied`.
    fn set_lock<'a>(&'a self, name: &'a str, version: Option<&'a str>, lock: Lock) -> BoxFuture<'a, Result<()>>;
    /// Makes of a governance lock a compliance lock, where the credentials may end the former: some stores take that for ending
    /// it, and refuse `set_lock`. The same right would make the lock shorter, so `until_unix_ms` must be no earlier than it was.
    fn raise_lock<'a>(
        &'a self,
        name: &'a str,
        version: Option<&'a str>,
        until_unix_ms: i64,
    ) -> BoxFuture<'a, Result<()>>;
    /// A hold keeps a version without a day, until it is taken off.
    fn legal_hold<'a>(&'a self, name: &'a str, version: Option<&'a str>) -> BoxFuture<'a, Result<bool>>;
    fn set_legal_hold<'a>(&'a self, name: &'a str, version: Option<&'a str>, held: bool) -> BoxFuture<'a, Result<()>>;
    /// Deletes for good (`Some`), or by name, which leaves a delete marker. A locked version is `Denied`. `bypass`: ends a
    /// governance lock, where the credentials may.
    fn delete_version<'a>(&'a self, name: &'a str, version: Option<&'a str>, bypass: bool)
    -> BoxFuture<'a, Result<()>>;
}
