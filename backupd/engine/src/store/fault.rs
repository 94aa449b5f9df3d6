//! Injects faults. The fault model: any operation may fail before or after it took effect; after a crash point every
//! further operation fails; a store may be dead from the start; stored bytes may be flipped. A put is atomic: an object
//! is there whole or not at all.

use super::{ListedObject, Store};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    /// Nothing answers.
    Dead,
    /// Put number `n` (from 0) and all later operations fail; put `n` takes effect first when `lands`.
    CrashAtPut {
        n: u64,
        lands: bool,
    },
    /// Puts fail because the store is full; the rest works.
    Full,
}

/// A store with one fault.
pub struct FaultStore<S: ?Sized = dyn Store> {
    pub(super) inner: Arc<S>,
    fault: Fault,
    puts: AtomicU64,
}

impl<S: ?Sized> FaultStore<S> {
    #[must_use]
    pub fn new(inner: Arc<S>, fault: Fault) -> Self {
        Self { inner, fault, puts: AtomicU64::new(0) }
    }

    /// Puts and other changes asked for so far.
    #[must_use]
    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }

    /// Runs a put, or another change of the store, as the fault lets it.
    pub(super) async fn change<F: Future<Output = Result<()>>>(&self, change: impl FnOnce() -> F) -> Result<()> {
        let number = self.puts.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::None => change().await,
            Fault::Full => Err(Error::new(ErrorKind::NoSpace, "injected fault: the store is full")),
            Fault::CrashAtPut { n, .. } if number < n => change().await,
            Fault::CrashAtPut { n, lands: true } if number == n => {
                change().await?;
                Err(dead_error())
            }
            Fault::Dead | Fault::CrashAtPut { .. } => Err(dead_error()),
        }
    }

    fn alive(&self) -> Result<()> {
        let dead = match self.fault {
            Fault::Dead => true,
            Fault::CrashAtPut { n, .. } => self.puts() > n,
            Fault::None | Fault::Full => false,
        };
        if dead { Err(dead_error()) } else { Ok(()) }
    }
}

fn dead_error() -> Error {
    Error::new(ErrorKind::Unreachable, "injected fault: the store does not answer")
}

impl<S: Store + ?Sized> Store for FaultStore<S> {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move { self.change(|| self.inner.put(name, bytes)).await })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            self.alive()?;
            self.inner.get(name).await
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            self.alive()?;
            self.inner.get_range(name, range).await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(async move {
            self.alive()?;
            self.inner.list(prefix).await
        })
    }
}
