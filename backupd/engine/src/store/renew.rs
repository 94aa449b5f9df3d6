//! Credentials that are replaced while the daemon runs: when a store refuses, they are read again, and new ones are tried
//! at once.

use super::{ListedObject, Store, StoreLimits, StoreLocation};
use crate::error::{ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Reads where the store is and what opens it, as it is now.
type Read = Box<dyn Fn() -> Result<StoreLocation> + Send + Sync>;

/// A store that is opened again when its credentials have changed.
pub struct RenewStore {
    read: Read,
    limits: StoreLimits,
    held: Mutex<(StoreLocation, Arc<dyn Store>)>,
}

impl RenewStore {
    pub fn open(read: impl Fn() -> Result<StoreLocation> + Send + Sync + 'static, limits: StoreLimits) -> Result<Self> {
        let location = read()?;
        let store = location.open_with(limits)?;
        Ok(Self { read: Box::new(read), limits, held: Mutex::new((location, store)) })
    }

    fn current(&self) -> Arc<dyn Store> {
        Arc::clone(&self.held.lock().unwrap_or_else(PoisonError::into_inner).1)
    }

    /// The store with other credentials than it was refused with, when there are any.
    fn renewed(&self, refused: &Arc<dyn Store>) -> Option<Arc<dyn Store>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&held.1, refused) {
            return Some(Arc::clone(&held.1));
        }
        // A key file that cannot be read now leaves the refusal as it is.
        let location = (self.read)().ok().filter(|location| *location != held.0)?;
        let store = location.open_with(self.limits).ok()?;
        log::info!("store.credentials-renewed");
        *held = (location, Arc::clone(&store));
        Some(store)
    }

    async fn run<T, F: Future<Output = Result<T>>>(&self, operation: impl Fn(Arc<dyn Store>) -> F) -> Result<T> {
        let store = self.current();
        match operation(Arc::clone(&store)).await {
            Err(error) if error.kind() == ErrorKind::Denied => match self.renewed(&store) {
                Some(renewed) => operation(renewed).await,
                None => Err(error),
            },
            done => done,
        }
    }
}

impl Store for RenewStore {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let put = |store: Arc<dyn Store>| {
                let bytes = bytes.clone();
                async move { store.put(name, bytes).await }
            };
            self.run(put).await
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(self.run(move |store| async move { store.get(name).await }))
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let get = |store: Arc<dyn Store>| {
                let range = range.clone();
                async move { store.get_range(name, range).await }
            };
            self.run(get).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(self.run(move |store| async move { store.list(prefix).await }))
    }
}
