//! Tries an operation again when its error says so.

use super::{ListedObject, Store};
use crate::error::{ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// The first wait between two attempts; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// A few attempts with growing waits. A dead store fails within seconds.
pub struct RetryStore {
    inner: Arc<dyn Store>,
    attempts: u32,
}

impl RetryStore {
    #[must_use]
    pub fn new(inner: Arc<dyn Store>, attempts: u32) -> Self {
        Self { inner, attempts: attempts.max(1) }
    }

    async fn attempt<T, F: Future<Output = Result<T>>>(&self, operation: impl Fn() -> F) -> Result<T> {
        let mut wait = FIRST_WAIT;
        let mut left = self.attempts;
        loop {
            left -= 1;
            match operation().await {
                Err(error) if left > 0 && matches!(error.kind(), ErrorKind::Retry | ErrorKind::Unreachable) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                result => return result,
            }
        }
    }
}

impl Store for RetryStore {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.attempt(|| self.inner.put(name, bytes.clone())).await })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move { self.attempt(|| self.inner.get(name)).await })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move { self.attempt(|| self.inner.get_range(name, range.clone())).await })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(async move { self.attempt(|| self.inner.list(prefix)).await })
    }
}
