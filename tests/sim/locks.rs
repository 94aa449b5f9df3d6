//! A store with versions and locks, over the same way as everything else.

use crate::shelf::Version as Kept;
use crate::wire::{CHANGE_FAULTS, Fate, Wire};
use backup_engine::store::versions::{BucketSettings, Lock, LockMode, Version, VersionedStore};
use backup_engine::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Range;

fn told((version, is_latest): (Kept, bool)) -> Version {
    Version {
        size: version.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
        id: version.number.to_string(),
        written_unix_ms: version.written_unix_ms,
        is_delete_marker: version.bytes.is_none(),
        name: version.name,
        is_latest,
    }
}

fn none() -> Error {
    Error::new(ErrorKind::NotFound, "simulated: no such version")
}

impl Wire {
    /// A request that only asks, or changes nothing but a lock.
    async fn ask(&self, what: &str, name: &str) -> Result<()> {
        match self.fate(what, name, 100, &CHANGE_FAULTS).await {
            Fate::Refuse(error) => Err(error),
            Fate::Die(_) => self.die().await,
            Fate::Unanswered(_) | Fate::Spoil(_) | Fate::Serve => Ok(()),
        }
    }

    fn kept(&self, version: Option<&str>) -> Result<Kept> {
        let number = version.and_then(|number| number.parse().ok());
        number.and_then(|number| self.shelf.version(number)).ok_or_else(none)
    }
}

impl VersionedStore for Wire {
    fn settings(&self) -> BoxFuture<'_, Result<BucketSettings>> {
        Box::pin(std::future::ready(Ok(BucketSettings { versions: true, locks: true, new_objects: None })))
    }

    fn versions<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<Version>>> {
        Box::pin(async move {
            self.ask("versions", prefix).await?;
            Ok(self.shelf.versions(prefix).into_iter().map(told).collect())
        })
    }

    fn get_version<'a>(&'a self, name: &'a str, version: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            self.ask("get version", name).await?;
            self.kept(Some(version))?.bytes.ok_or_else(none)
        })
    }

    fn get_version_range<'a>(
        &'a self,
        name: &'a str,
        version: &'a str,
        range: Range<u64>,
    ) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let bytes = self.get_version(name, version).await?;
            let there = range.end <= bytes.len() as u64;
            if there { Ok(bytes.slice(range.start as usize..range.end as usize)) } else { Err(none()) }
        })
    }

    fn put_locked<'a>(&'a self, name: &'a str, bytes: Bytes, lock: Lock) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put_as(name, bytes, Some(lock)))
    }

    fn lock<'a>(&'a self, name: &'a str, version: Option<&'a str>) -> BoxFuture<'a, Result<Option<Lock>>> {
        Box::pin(async move {
            self.ask("lock?", name).await?;
            Ok(self.kept(version)?.lock)
        })
    }

    fn set_lock<'a>(&'a self, name: &'a str, version: Option<&'a str>, lock: Lock) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let fate = self.fate("lock", name, 100, &CHANGE_FAULTS).await;
            let number = self.kept(version)?.number;
            match fate {
                Fate::Refuse(error) => Err(error),
                Fate::Die(_) => self.die().await,
                Fate::Unanswered(error) => self.shelf.set_lock(number, lock).and(Err(error)),
                Fate::Serve | Fate::Spoil(_) => self.shelf.set_lock(number, lock),
            }
        })
    }

    /// These stores let every key raise a mode.
    fn raise_lock<'a>(
        &'a self,
        name: &'a str,
        version: Option<&'a str>,
        until_unix_ms: i64,
    ) -> BoxFuture<'a, Result<()>> {
        self.set_lock(name, version, Lock { mode: LockMode::Compliance, until_unix_ms })
    }

    fn legal_hold<'a>(&'a self, name: &'a str, _: Option<&'a str>) -> BoxFuture<'a, Result<bool>> {
        Box::pin(async move { self.ask("hold?", name).await.map(|()| false) })
    }

    fn set_legal_hold<'a>(&'a self, _: &'a str, _: Option<&'a str>, _: bool) -> BoxFuture<'a, Result<()>> {
        let refused = Error::new(ErrorKind::Denied, "simulated: this key may set no hold");
        Box::pin(std::future::ready(Err(refused)))
    }

    fn delete_version<'a>(&'a self, name: &'a str, version: Option<&'a str>, _: bool) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let fate = self.fate("delete version", name, 0, &CHANGE_FAULTS).await;
            let number = self.kept(version).map(|kept| kept.number);
            let delete = || number.map_or(Ok(()), |number| self.shelf.delete_version(name, number));
            match fate {
                Fate::Refuse(error) => Err(error),
                Fate::Die(_) => self.die().await,
                Fate::Unanswered(error) => delete().and(Err(error)),
                Fate::Serve | Fate::Spoil(_) => delete(),
            }
        })
    }
}
