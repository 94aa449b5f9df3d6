//! Bounds the operations under way at one store.

use super::uplink::Uplink;
use super::{ListedObject, Store};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// At most `n` operations at once, uploads over a line apart; the others wait their turn.
pub struct LimitStore<S: ?Sized = dyn Store> {
    pub(super) inner: Arc<S>,
    permits: Semaphore,
    /// Of a store beyond a line that may be slow.
    uplink: Option<Uplink>,
}

impl<S: ?Sized> LimitStore<S> {
    #[must_use]
    pub fn new(inner: Arc<S>, concurrency: usize) -> Self {
        Self { inner, permits: Semaphore::new(concurrency.max(1)), uplink: None }
    }

    /// Bounds the time of an upload, by what the line gives.
    pub(super) fn with_uplink(mut self, limit: Duration, concurrency: usize) -> Self {
        self.uplink = Some(Uplink::new(limit, concurrency.max(1)));
        self
    }

    /// A request that no slow line excuses.
    pub(super) async fn bounded<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        match &self.uplink {
            Some(uplink) => uplink.bounded(request).await,
            None => request.await,
        }
    }

    pub(super) async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.permits.acquire().await.map_err(|_| Error::new(ErrorKind::Retry, "the store was closed"))
    }
}

impl<S: Store + ?Sized> Store for LimitStore<S> {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if let Some(uplink) = &self.uplink {
                return uplink.put(&bytes, || self.inner.put(name, bytes.clone())).await;
            }
            let _permit = self.permit().await?;
            self.inner.put(name, bytes).await
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let _permit = self.permit().await?;
            self.bounded(self.inner.get(name)).await
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let _permit = self.permit().await?;
            self.bounded(self.inner.get_range(name, range)).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(async move {
            let _permit = self.permit().await?;
            self.inner.list(prefix).await
        })
    }
}
