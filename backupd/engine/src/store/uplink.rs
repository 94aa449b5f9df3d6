//! Uploads over a slow line. Eight packs at once over 8 Mbit/s take more than a minute each, and would be given up, sent again
//! and given up again. What does not end in time is sent again alone and with more time; a line that is fast gets more at once.

use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// So much longer an upload may take that has the line for itself: a full pack over half a megabit.
pub(super) const ALONE: u32 = 4;
/// What is smaller says little about the line.
const TELLING_BYTES: usize = 1 << 20;

/// What is known of the line to one store.
struct Line {
    running: usize,
    allowed: usize,
    /// Whoever has the line has it alone, and longer.
    alone: bool,
    /// Nothing went through, not even alone: the store is silent.
    silent: bool,
    /// Counts the times that something was learned, so that eight that end together teach once.
    lessons: u64,
}

pub(super) struct Uplink {
    limit: Duration,
    most: usize,
    line: Mutex<Line>,
    freed: Notify,
}

/// Within a quarter of the limit, within half of it, or later.
#[derive(Clone, Copy)]
enum Pace {
    Quick,
    Fair,
    Slow,
}

/// A place among those who upload.
struct Place<'u>(&'u Uplink, u64);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.line().running -= 1;
        self.0.freed.notify_waiters();
    }
}

impl Uplink {
    pub(super) fn new(limit: Duration, most: usize) -> Self {
        let line = Line { running: 0, allowed: most, alone: false, silent: false, lessons: 0 };
        Self { limit, most, line: Mutex::new(line), freed: Notify::new() }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uploads, as often as the line has something to teach.
    pub(super) async fn put<F: Future<Output = Result<()>>>(&self, bytes: &Bytes, put: impl Fn() -> F) -> Result<()> {
        loop {
            let (place, limit) = self.enter().await?;
            match self.timed(limit, put()).await {
                Some((_, Err(error))) => return Err(error),
                Some((pace, Ok(()))) => {
                    if bytes.len() >= TELLING_BYTES {
                        self.went(pace);
                    }
                    return Ok(());
                }
                None => self.stalled(place.1)?,
            }
        }
    }

    /// How an upload went; `None`: it did not end within the limit.
    async fn timed(&self, limit: Duration, put: impl Future<Output = Result<()>>) -> Option<(Pace, Result<()>)> {
        let mut put = std::pin::pin!(put);
        let quarter = self.limit / 4;
        for (pace, time) in [(Pace::Quick, quarter), (Pace::Fair, quarter), (Pace::Slow, limit - 2 * quarter)] {
            if let Ok(done) = tokio::time::timeout(time, put.as_mut()).await {
                return Some((pace, done));
            }
        }
        None
    }

    /// Another request than an upload.
    pub(super) async fn bounded<T>(&self, request: impl Future<Output = Result<T>>) -> Result<T> {
        let late = |_| Error::new(ErrorKind::Unreachable, "the store did not answer in time");
        tokio::time::timeout(self.limit, request).await.map_err(late)?
    }

    /// Waits for a place; gives how long an upload may take. One asks whether a silent store is heard again, and nobody waits for that.
    async fn enter(&self) -> Result<(Place<'_>, Duration)> {
        let asked = self.line().lessons;
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            freed.as_mut().enable();
            {
                let mut line = self.line();
                if line.silent && (line.lessons != asked || line.running > 0) {
                    return Err(silent());
                }
                if line.running < line.allowed {
                    line.running += 1;
                    let limit = if line.alone { self.limit * ALONE } else { self.limit };
                    return Ok((Place(self, line.lessons), limit));
                }
            }
            freed.await;
        }
    }

    fn went(&self, pace: Pace) {
        let mut line = self.line();
        line.silent = false;
        match pace {
            Pace::Quick => {
                line.alone = false;
                line.allowed = (line.allowed + 1).min(self.most);
            }
            Pace::Fair => {}
            Pace::Slow => line.allowed = line.allowed.saturating_sub(1).max(1),
        }
    }

    /// Whether to try again.
    fn stalled(&self, lessons: u64) -> Result<()> {
        let mut line = self.line();
        if line.lessons != lessons {
            return if line.silent { Err(silent()) } else { Ok(()) };
        }
        line.lessons += 1;
        line.allowed = 1;
        if line.alone || line.silent {
            (line.alone, line.silent) = (false, true);
            return Err(silent());
        }
        line.alone = true;
        Ok(())
    }
}

fn silent() -> Error {
    Error::new(ErrorKind::Unreachable, "the store did not take an object in time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::join_all;
    use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
    use tokio::time::Instant;

    /// A line that all uploads share.
    struct Shared {
        bytes_per_s: AtomicU64,
        running: AtomicUsize,
        sent: AtomicU64,
    }

    impl Shared {
        async fn send(&self, bytes: u64) -> Result<()> {
            self.running.fetch_add(1, Ordering::SeqCst);
            let _end = scopeguard(&self.running);
            let mut left = bytes as f64;
            while left > 0.0 {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let rate = self.bytes_per_s.load(Ordering::SeqCst) as f64;
                let part = rate / 10.0 / self.running.load(Ordering::SeqCst) as f64;
                self.sent.fetch_add(part as u64, Ordering::SeqCst);
                left -= part;
            }
            Ok(())
        }
    }

    struct End<'a>(&'a AtomicUsize);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    fn scopeguard(running: &AtomicUsize) -> End<'_> {
        End(running)
    }

    const PACK: u64 = 16 << 20;

    async fn send_all(packs: usize, bytes_per_s: u64) -> (Vec<Result<()>>, Duration, u64) {
        let line = Shared { bytes_per_s: bytes_per_s.into(), running: 0.into(), sent: 0.into() };
        let uplink = Uplink::new(Duration::from_secs(60), 8);
        let bytes = Bytes::from(vec![0; PACK as usize]);
        let began = Instant::now();
        let one = || uplink.put(&bytes, || line.send(PACK));
        let done = join_all((0..packs).map(|_| one())).await;
        (done, began.elapsed(), line.sent.load(Ordering::SeqCst))
    }

    #[tokio::test(start_paused = true)]
    async fn packs_arrive_over_every_line_and_little_is_sent_twice() {
        for bytes_per_s in [100_000_000, 2_000_000, 1_000_000, 400_000, 100_000] {
            let (done, took, sent) = send_all(20, bytes_per_s).await;
            assert!(done.iter().all(Result::is_ok), "{bytes_per_s}");
            let needed = Duration::from_secs(20 * PACK / bytes_per_s);
            assert!(took < needed + Duration::from_secs(100), "{bytes_per_s}: {took:?}");
            assert!(sent < 20 * PACK + 62 * bytes_per_s.min(2_000_000) + PACK, "{bytes_per_s}: {sent}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_store_is_given_up_and_heard_again() {
        let line = Shared { bytes_per_s: 0.into(), running: 0.into(), sent: 0.into() };
        let uplink = Uplink::new(Duration::from_secs(60), 8);
        let bytes = Bytes::from(vec![0; PACK as usize]);
        let began = Instant::now();
        let done = join_all((0..20).map(|_| uplink.put(&bytes, || line.send(PACK)))).await;
        assert!(done.iter().all(|done| done.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unreachable)));
        assert!(began.elapsed() < Duration::from_secs(310), "{:?}", began.elapsed());
        let began = Instant::now();
        assert!(uplink.put(&bytes, || line.send(PACK)).await.is_err());
        assert!(began.elapsed() < Duration::from_secs(70), "{:?}", began.elapsed());
        line.bytes_per_s.store(100_000_000, Ordering::SeqCst);
        let began = Instant::now();
        let done = join_all((0..20).map(|_| uplink.put(&bytes, || line.send(PACK)))).await;
        assert_eq!(done.iter().filter(|done| done.is_ok()).count(), 1, "one asks");
        let done = join_all((0..20).map(|_| uplink.put(&bytes, || line.send(PACK)))).await;
        assert!(done.iter().all(Result::is_ok) && began.elapsed() < Duration::from_secs(10));
    }
}
