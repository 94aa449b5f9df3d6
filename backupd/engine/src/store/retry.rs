//! Tries an operation again when its error says so.

use super::{LISTING_LIMIT, ListedObject, Store};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The first wait between two attempts; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// How a store that does not refuse, but is silent, is met.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// A listing that takes longer is not repeated: it is small and comes first, so it tells silence from a slow link.
    listing: Duration,
    /// What it then has for each further question until it answers one: whoever asks many would wait as many times.
    probe: Duration,
}

const PATIENCE: Patience = Patience { listing: LISTING_LIMIT, probe: Duration::from_secs(2) };

/// A few attempts with growing waits. A dead store fails within seconds; a silent one makes one operation wait, not all.
pub struct RetryStore<S: ?Sized = dyn Store> {
    pub(super) inner: Arc<S>,
    attempts: u32,
    silent: AtomicBool,
    patience: Patience,
}

impl<S: ?Sized> RetryStore<S> {
    #[must_use]
    pub fn new(inner: Arc<S>, attempts: u32) -> Self {
        Self { inner, attempts: attempts.max(1), silent: AtomicBool::new(false), patience: PATIENCE }
    }

    pub(super) async fn attempt<T, F: Future<Output = Result<T>>>(&self, operation: impl Fn() -> F) -> Result<T> {
        if self.silent.load(Ordering::Relaxed) {
            match tokio::time::timeout(self.patience.probe, operation()).await {
                Ok(Ok(done)) => {
                    self.silent.store(false, Ordering::Relaxed);
                    return Ok(done);
                }
                Ok(Err(error)) if error.kind() != ErrorKind::Unreachable => {
                    self.silent.store(false, Ordering::Relaxed);
                    return Err(error);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Error::new(ErrorKind::Unreachable, "the store is silent")),
            }
        }
        let mut wait = FIRST_WAIT;
        let mut left = self.attempts;
        loop {
            left -= 1;
            match operation().await {
                Err(error) if self.silent.load(Ordering::Relaxed) => return Err(error),
                Err(error) if left > 0 && matches!(error.kind(), ErrorKind::Retry | ErrorKind::Unreachable) => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                result => return result,
            }
        }
    }
}

impl<S: Store + ?Sized> Store for RetryStore<S> {
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
        Box::pin(async move {
            let list = || async {
                // Whoever waits for a listing may have given it up before the request's own limit.
                tokio::time::timeout(self.patience.listing, self.inner.list(prefix)).await.unwrap_or_else(|_| {
                    self.silent.store(true, Ordering::Relaxed);
                    Err(Error::new(ErrorKind::Unreachable, "the store did not list its objects in time"))
                })
            };
            self.attempt(list).await
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Does not answer until it is told to, and counts the questions.
    #[derive(Default)]
    struct Silent(AtomicU32, AtomicBool);

    impl Store for Silent {
        fn put<'a>(&'a self, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<()>> {
            Box::pin(std::future::pending())
        }

        fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Bytes>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(async {
                if self.1.load(Ordering::Relaxed) {
                    return Ok(Bytes::new());
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(Error::new(ErrorKind::Unreachable, "timed out"))
            })
        }

        fn get_range<'a>(&'a self, name: &'a str, _: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
            self.get(name)
        }

        fn list<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
            self.0.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::pending())
        }
    }

    #[tokio::test]
    async fn a_silent_store_is_waited_for_once() {
        let inner = Arc::new(Silent::default());
        let mut store = RetryStore::new(Arc::clone(&inner) as Arc<dyn Store>, 3);
        let ms = Duration::from_millis;
        store.patience = Patience { listing: ms(40), probe: ms(5) };
        for _ in 0..4 {
            assert_eq!(store.list("").await.unwrap_err().kind(), ErrorKind::Unreachable);
            assert_eq!(store.get("a").await.unwrap_err().kind(), ErrorKind::Unreachable);
        }
        assert_eq!(inner.0.load(Ordering::Relaxed), 8, "no question is repeated");
        inner.1.store(true, Ordering::Relaxed);
        assert!(store.get("a").await.is_ok() && !store.silent.load(Ordering::Relaxed), "it is heard at once");
    }
}
