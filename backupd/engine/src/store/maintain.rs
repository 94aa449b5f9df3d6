//! What only maintenance may do. It is a trait of its own, so that the types of writer and verifier have no way to it:
//! what they hold is a `Store`, and no `Store` becomes a `MaintenanceStore` again.

use super::{FaultStore, LimitStore, PaceStore, RetryStore, Store, StoreLimits, StoreLocation, around};
use crate::error::Result;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::sync::Arc;

/// A store whose objects can be put right and taken out.
pub trait MaintenanceStore: Store {
    /// Writes a new version over an object whose bytes are damaged, as durably as `put` does. A store that refuses to
    /// overwrite says `Denied` or `Fenced`. A reader meanwhile sees the old bytes or the new ones, never a mixture.
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>>;
    /// Takes an object out: no reader and no listing sees it from now on. One that is not there is out already. A store
    /// that keeps it, because it is locked or because the key may not, says `Denied`.
    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>>;
}

/// A store as maintenance holds it.
#[derive(Clone)]
pub struct NamedMaintenanceStore {
    pub name: String,
    pub store: Arc<dyn MaintenanceStore>,
    /// Whether it counts for the quorum.
    pub counts_for_quorum: bool,
}

impl NamedMaintenanceStore {
    #[must_use]
    pub fn new(name: impl Into<String>, store: Arc<dyn MaintenanceStore>, counts_for_quorum: bool) -> Self {
        Self { name: name.into(), store, counts_for_quorum }
    }

    /// The same store as everybody else sees it.
    #[must_use]
    pub fn as_store(&self) -> super::NamedStore {
        super::NamedStore::new(self.name.clone(), Arc::clone(&self.store) as Arc<dyn Store>, self.counts_for_quorum)
    }
}

impl StoreLocation {
    /// The store for maintenance, with the limits and retries of `open`. Whether it may replace and delete is up to the
    /// store and the credentials of this location.
    pub fn open_for_maintenance(&self, limits: StoreLimits) -> Result<Arc<dyn MaintenanceStore>> {
        Ok(around(self.bare(limits)?, limits, self.is_remote()))
    }
}

impl<S: MaintenanceStore + ?Sized> MaintenanceStore for PaceStore<S> {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.turn(bytes.len()).await;
            self.inner.replace(name, bytes).await
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        self.inner.delete(name)
    }
}

impl<S: MaintenanceStore + ?Sized> MaintenanceStore for LimitStore<S> {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let _permit = self.permit().await?;
            self.inner.replace(name, bytes).await
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let _permit = self.permit().await?;
            self.bounded(self.inner.delete(name)).await
        })
    }
}

/// Both may be tried again: a second replacement writes the same bytes, and what is out is out.
impl<S: MaintenanceStore + ?Sized> MaintenanceStore for RetryStore<S> {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.attempt(|| self.inner.replace(name, bytes.clone())).await })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.attempt(|| self.inner.delete(name)).await })
    }
}

/// Every change counts as a put: a crash point may lie before or behind a deletion too.
impl<S: MaintenanceStore + ?Sized> MaintenanceStore for FaultStore<S> {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.change(|| self.inner.replace(name, bytes)).await })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.change(|| self.inner.delete(name)).await })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::store::Fault;

    fn folder() -> (tempfile::TempDir, Arc<dyn MaintenanceStore>) {
        let dir = tempfile::tempdir().unwrap();
        let store = StoreLocation::Folder { path: dir.path().to_owned() };
        let store = store.open_for_maintenance(StoreLimits::default()).unwrap();
        (dir, store)
    }

    #[tokio::test]
    async fn a_folder_replaces_and_deletes() {
        let (dir, store) = folder();
        store.put("packs/ab/abc", Bytes::from_static(b"damaged")).await.unwrap();
        store.replace("packs/ab/abc", Bytes::from_static(b"whole")).await.unwrap();
        assert_eq!(store.get("packs/ab/abc").await.unwrap(), "whole");
        assert_eq!(store.list("").await.unwrap().len(), 1, "no version of it stands beside");
        store.delete("packs/ab/abc").await.unwrap();
        assert_eq!(store.get("packs/ab/abc").await.unwrap_err().kind(), ErrorKind::NotFound);
        store.delete("packs/ab/abc").await.unwrap();
        store.delete("never/was").await.unwrap();
        assert!(store.list("").await.unwrap().is_empty());
        assert_eq!(store.delete("../outside").await.unwrap_err().kind(), ErrorKind::Misconfigured);
        drop(dir);
        assert_eq!(store.delete("packs/ab/abc").await.unwrap_err().kind(), ErrorKind::NotFound, "an absent store");
    }

    #[tokio::test]
    async fn a_crash_point_lies_before_or_behind_a_change() {
        for lands in [false, true] {
            let (_dir, inner) = folder();
            inner.put("a", Bytes::from_static(b"old")).await.unwrap();
            inner.put("b", Bytes::from_static(b"old")).await.unwrap();
            let store = FaultStore::new(Arc::clone(&inner), Fault::CrashAtPut { n: 1, lands });
            store.replace("a", Bytes::from_static(b"new")).await.unwrap();
            assert_eq!(store.delete("b").await.unwrap_err().kind(), ErrorKind::Unreachable);
            assert_eq!(store.replace("a", Bytes::new()).await.unwrap_err().kind(), ErrorKind::Unreachable);
            assert_eq!(inner.get("a").await.unwrap(), "new");
            assert_eq!(inner.get("b").await.is_err(), lands);
        }
    }
}
