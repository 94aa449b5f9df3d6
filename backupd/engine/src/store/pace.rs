//! Holds uploads to a rate, so that a backup leaves the practice's line to the practice.

use super::{ListedObject, Store};
use crate::error::Result;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;

/// Puts wait in line, each for the time that its bytes take at the rate. An object is then sent in one go.
pub struct PaceStore<S: ?Sized = dyn Store> {
    pub(super) inner: Arc<S>,
    /// `None`: as fast as it goes.
    bytes_per_s: Option<u64>,
    line: Mutex<()>,
}

impl<S: ?Sized> PaceStore<S> {
    #[must_use]
    pub fn new(inner: Arc<S>, bytes_per_s: Option<u64>) -> Self {
        Self { inner, bytes_per_s, line: Mutex::new(()) }
    }

    pub(super) async fn turn(&self, bytes: usize) {
        let Some(rate) = self.bytes_per_s else { return };
        let micros = (bytes as u128).saturating_mul(1_000_000) / u128::from(rate.max(1));
        let _first_in_line = self.line.lock().await;
        tokio::time::sleep(Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))).await;
    }
}

impl<S: Store + ?Sized> Store for PaceStore<S> {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.turn(bytes.len()).await;
            self.inner.put(name, bytes).await
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    /// Takes everything at once and remembers when.
    #[derive(Default)]
    struct Fast(std::sync::Mutex<Vec<Instant>>);

    impl Store for Fast {
        fn put<'a>(&'a self, _: &'a str, _: Bytes) -> BoxFuture<'a, Result<()>> {
            self.0.lock().unwrap().push(Instant::now());
            Box::pin(async { Ok(()) })
        }

        fn get<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Bytes>> {
            Box::pin(async { Ok(Bytes::new()) })
        }

        fn get_range<'a>(&'a self, name: &'a str, _: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
            self.get(name)
        }

        fn list<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
            Box::pin(async { Ok(Vec::new()) })
        }
    }

    #[tokio::test]
    async fn uploads_keep_to_the_rate_and_downloads_are_free() {
        let inner = Arc::new(Fast::default());
        let store = PaceStore::new(Arc::clone(&inner) as Arc<dyn Store>, Some(1_000_000));
        let started = Instant::now();
        let puts = (0..4).map(|_| store.put("a", Bytes::from(vec![0; 20_000])));
        futures::future::join_all(puts).await;
        let at: Vec<Duration> = inner.0.lock().unwrap().iter().map(|at| *at - started).collect();
        for (n, at) in at.iter().enumerate() {
            assert!(*at >= Duration::from_millis(20 * (n as u64 + 1)), "put {n} came after {at:?}");
        }
        let slow = PaceStore::new(inner as Arc<dyn Store>, Some(1));
        // Seven bytes take seven seconds.
        let put = tokio::time::timeout(Duration::from_millis(30), slow.put("b", Bytes::from_static(b"7 bytes")));
        let mut put = std::pin::pin!(put);
        assert!(futures::poll!(&mut put).is_pending());
        slow.get("a").await.unwrap();
        slow.list("").await.unwrap();
        assert!(put.await.is_err());
    }
}
