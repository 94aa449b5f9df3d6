//! Tries an operation again when its error says so.

use super::moves::while_it_lists;
use super::{LISTING_LIMIT, ListedObject, Store};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::future::Future;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// How long is waited between two attempts, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Backoff {
    /// Attempts when the store does not answer, the first included.
    attempts: u32,
    /// The first wait then; it doubles.
    first: Duration,
    /// The first wait when the store asks for fewer requests; it doubles up to `busy_max`.
    busy_first: Duration,
    busy_max: Duration,
    /// All waits of one operation for a store that asks for fewer requests: a storm passes, and nothing is wrong.
    busy_total: Duration,
}

impl Backoff {
    pub(super) fn of(attempts: u32) -> Self {
        Self {
            attempts: attempts.max(1),
            first: Duration::from_millis(100),
            busy_first: Duration::from_millis(500),
            busy_max: Duration::from_secs(15),
            busy_total: Duration::from_secs(120),
        }
    }
}

/// The waits of one operation.
struct Waits {
    left: u32,
    next: Duration,
    busy_next: Duration,
    busy_left: Duration,
}

impl Waits {
    fn of(backoff: Backoff) -> Self {
        let Backoff { attempts, first, busy_first, busy_total, .. } = backoff;
        Self { left: attempts - 1, next: first, busy_next: busy_first, busy_left: busy_total }
    }

    /// How long to wait after an error of this kind; `None`: it is not tried again.
    fn after(&mut self, kind: ErrorKind, backoff: Backoff) -> Option<Duration> {
        match kind {
            ErrorKind::Busy if !self.busy_left.is_zero() => {
                let wait = self.busy_next.min(self.busy_left);
                self.busy_left -= wait;
                self.busy_next = (self.busy_next * 2).min(backoff.busy_max);
                Some(wait)
            }
            ErrorKind::Retry | ErrorKind::Unreachable if self.left > 0 => {
                self.left -= 1;
                let wait = self.next;
                self.next *= 2;
                Some(wait)
            }
            _ => None,
        }
    }
}

/// Spreads waits, so that many who were refused together do not come back together.
pub(super) struct Jitter(AtomicU64);

impl Jitter {
    pub(super) fn seeded(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    /// Between half of the wait and all of it.
    fn spread(&self, wait: Duration) -> Duration {
        // SplitMix64: any step of the counter gives an unrelated number.
        let mut z = self.0.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = f64::from((z >> 40) as u32) / f64::from(1u32 << 24);
        wait.mul_f64(0.5 + part / 2.0)
    }
}

/// A client that panics over one request must not take the work for every other store along.
async fn guarded<T>(operation: impl Future<Output = Result<T>>) -> Result<T> {
    let broken = |_| Err(Error::new(ErrorKind::Unreachable, "the store's client broke over this request: see the log"));
    AssertUnwindSafe(operation).catch_unwind().await.unwrap_or_else(broken)
}

/// Tries an operation again as long as its errors say that this may help.
pub(super) async fn attempts<T, F: Future<Output = Result<T>>>(
    backoff: Backoff,
    jitter: &Jitter,
    operation: impl Fn() -> F,
) -> Result<T> {
    let mut waits = Waits::of(backoff);
    loop {
        match guarded(operation()).await {
            Err(error) => match waits.after(error.kind(), backoff) {
                Some(wait) => tokio::time::sleep(jitter.spread(wait)).await,
                None => return Err(error),
            },
            done => return done,
        }
    }
}

/// How a store that does not refuse, but is silent, is met.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// A listing that takes longer, without having listed much, is not repeated: it comes first and tells silence.
    listing: Duration,
    /// What it then has for each further question until it answers one: whoever asks many would wait as many times.
    probe: Duration,
}

const PATIENCE: Patience = Patience { listing: LISTING_LIMIT, probe: Duration::from_secs(2) };

/// A few attempts with growing waits. A dead store fails within seconds; a silent one makes one operation wait, not all.
pub struct RetryStore<S: ?Sized = dyn Store> {
    pub(super) inner: Arc<S>,
    backoff: Backoff,
    jitter: Jitter,
    silent: AtomicBool,
    patience: Patience,
}

impl<S: ?Sized> RetryStore<S> {
    #[must_use]
    pub fn new(inner: Arc<S>, attempts: u32) -> Self {
        let (backoff, jitter) = (Backoff::of(attempts), Jitter::seeded(0));
        Self { inner, backoff, jitter, silent: AtomicBool::new(false), patience: PATIENCE }
    }

    /// With waits that no other process repeats.
    #[must_use]
    pub fn with_jitter(mut self, seed: u64) -> Self {
        self.jitter = Jitter::seeded(seed);
        self
    }

    pub(super) async fn attempt<T, F: Future<Output = Result<T>>>(&self, operation: impl Fn() -> F) -> Result<T> {
        if self.silent.load(Ordering::Relaxed) {
            match tokio::time::timeout(self.patience.probe, guarded(operation())).await {
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
        let mut waits = Waits::of(self.backoff);
        loop {
            match guarded(operation()).await {
                Err(error) if self.silent.load(Ordering::Relaxed) => return Err(error),
                Err(error) => match waits.after(error.kind(), self.backoff) {
                    Some(wait) => tokio::time::sleep(self.jitter.spread(wait)).await,
                    None => return Err(error),
                },
                done => return done,
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
                while_it_lists(self.patience.listing, self.inner.list(prefix)).await.unwrap_or_else(|| {
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

    #[test]
    fn waits_grow_are_bounded_and_differ() {
        let backoff = Backoff::of(3);
        let mut waits = Waits::of(backoff);
        let dead: Vec<_> = std::iter::from_fn(|| waits.after(ErrorKind::Unreachable, backoff)).collect();
        assert_eq!(dead, [Duration::from_millis(100), Duration::from_millis(200)]);
        let mut waits = Waits::of(backoff);
        let busy: Vec<_> = std::iter::from_fn(|| waits.after(ErrorKind::Busy, backoff)).collect();
        assert!(busy.len() > 8 && busy.iter().sum::<Duration>() == backoff.busy_total, "{busy:?}");
        assert!(busy.iter().all(|wait| *wait <= backoff.busy_max));
        for kind in [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Damaged, ErrorKind::NoSpace] {
            assert_eq!(Waits::of(backoff).after(kind, backoff), None, "{kind:?} is not better the next time");
        }
        let (one, other) = (Jitter::seeded(1), Jitter::seeded(2));
        let wait = Duration::from_secs(8);
        let spread = |jitter: &Jitter| (0..50).map(|_| jitter.spread(wait)).collect::<Vec<_>>();
        let (first, second) = (spread(&one), spread(&other));
        assert!(first.iter().chain(&second).all(|waited| (wait / 2..=wait).contains(waited)));
        assert_ne!(first, second);
        assert!(first.iter().max().unwrap().saturating_sub(*first.iter().min().unwrap()) > wait / 4, "they spread");
    }

    /// Asks for fewer requests so many times, then works.
    struct Storm(AtomicU32);

    #[tokio::test]
    async fn a_storm_of_refusals_passes() {
        let quick = Duration::from_millis(2);
        let backoff = Backoff { busy_first: quick, busy_max: 4 * quick, busy_total: 50 * quick, ..Backoff::of(1) };
        let storm = Storm(AtomicU32::new(9));
        let ask = || async {
            match storm.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)) {
                Ok(_) => Err(Error::new(ErrorKind::Busy, "slow down")),
                Err(_) => Ok(()),
            }
        };
        attempts(backoff, &Jitter::seeded(7), ask).await.unwrap();
        storm.0.store(u32::MAX, Ordering::Relaxed);
        assert_eq!(attempts(backoff, &Jitter::seeded(7), ask).await.unwrap_err().kind(), ErrorKind::Busy);
        assert!(u32::MAX - storm.0.load(Ordering::Relaxed) < 20, "it does not answer a storm with another");
    }

    #[tokio::test]
    async fn a_client_that_breaks_over_a_request_is_an_error_of_its_store() {
        let asked = AtomicU32::new(0);
        let broken = || async {
            asked.fetch_add(1, Ordering::Relaxed);
            panic!("request valid")
        };
        let done: Result<()> = attempts(Backoff::of(2), &Jitter::seeded(1), broken).await;
        assert_eq!((done.unwrap_err().kind(), asked.load(Ordering::Relaxed)), (ErrorKind::Unreachable, 2));
        let store = RetryStore::new(Arc::new(Silent::default()), 2);
        let done: Result<()> = store.attempt(broken).await;
        assert_eq!((done.unwrap_err().kind(), asked.load(Ordering::Relaxed)), (ErrorKind::Unreachable, 4));
    }
}
