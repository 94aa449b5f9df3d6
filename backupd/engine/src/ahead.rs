//! Reading ahead from a store within a window, and handing what came to worker threads.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::iter::Peekable;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Requests under way at first; more as soon as workers wait for a store.
const REQUESTS_FIRST: usize = 2;

/// How much may be under way at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) requests_max: usize,
    /// From the request until the bytes have been dealt with. One job may be larger: then it is alone.
    pub(crate) bytes_max: usize,
}

/// Bytes are counted in pieces of this size.
const UNIT_BYTES: usize = 4 << 10;

type Jobs<'f, J> = Box<dyn Iterator<Item = (usize, J)> + Send + 'f>;
type Fetch<'f, J, T> = Box<dyn Fn(J) -> BoxFuture<'f, T> + Send + Sync + 'f>;

/// A part of the window; whoever has it keeps that many bytes.
type Share = OwnedSemaphorePermit;

/// Fetches jobs, several at once, in whatever order they are done.
pub(crate) struct Ahead<'f, J, T> {
    jobs: Peekable<Jobs<'f, J>>,
    fetch: Fetch<'f, J, T>,
    running: FuturesUnordered<BoxFuture<'f, (Share, T)>>,
    window: Window,
    requests: usize,
    room: Arc<Semaphore>,
}

impl<'f, J: Send + 'f, T: Send + 'f> Ahead<'f, J, T> {
    /// `jobs` come with the bytes that each will take in memory.
    pub(crate) fn new(
        window: Window,
        jobs: impl Iterator<Item = (usize, J)> + Send + 'f,
        fetch: impl Fn(J) -> BoxFuture<'f, T> + Send + Sync + 'f,
    ) -> Self {
        let jobs: Jobs<'f, J> = Box::new(jobs);
        Self {
            jobs: jobs.peekable(),
            fetch: Box::new(fetch),
            running: FuturesUnordered::new(),
            window,
            requests: REQUESTS_FIRST.min(window.requests_max),
            room: Arc::new(Semaphore::new(units(window.bytes_max) as usize)),
        }
    }

    /// As many requests as the window allows.
    pub(crate) fn all_at_once(mut self) -> Self {
        self.requests = self.window.requests_max;
        self
    }

    fn widen(&mut self) {
        self.requests = (self.requests + 1).min(self.window.requests_max);
    }

    /// What is there next, and the part of the window that it takes.
    pub(crate) async fn next(&mut self) -> Option<(Share, T)> {
        while self.running.len() < self.requests {
            let Some((bytes, _)) = self.jobs.peek() else { break };
            let units = units((*bytes).min(self.window.bytes_max));
            let share = match Arc::clone(&self.room).try_acquire_many_owned(units) {
                Ok(share) => share,
                Err(_) if !self.running.is_empty() => break,
                Err(_) => Arc::clone(&self.room).acquire_many_owned(units).await.ok()?,
            };
            let (_, job) = self.jobs.next()?;
            let fetched = (self.fetch)(job);
            self.running.push(Box::pin(async move { (share, fetched.await) }));
        }
        self.running.next().await
    }
}

fn units(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

/// Takes what was fetched; lives on one thread.
pub(crate) trait Worker<T> {
    fn work(&mut self, job: T) -> Result<()>;
}

/// Runs fetched jobs through workers on as many threads as the door gives. `seen` is called after each job is handed on.
pub(crate) async fn run<'f, J: Send + 'f, T: Send + 'static, W: Worker<T> + 'static>(
    env: &Env,
    mut ahead: Ahead<'f, J, Result<T>>,
    make: Arc<dyn Fn() -> Result<W> + Send + Sync>,
    seen: &mut (dyn FnMut() + Send),
) -> Result<()> {
    if env.workers() == 0 {
        while let Some((_share, job)) = ahead.next().await {
            // A worker must not live across an await: it is not `Send`, and on this path it has nothing to reuse for.
            make()?.work(job?)?;
            seen();
        }
        return Ok(());
    }
    let (jobs, taken) = mpsc::channel::<(Share, T)>(1);
    let taken = Arc::new(Mutex::new(taken));
    let threads = (0..env.workers()).map(|_| {
        let (taken, make) = (Arc::clone(&taken), Arc::clone(&make));
        env.blocking(move || serve(&taken, &*make))
    });
    let feed = async move {
        loop {
            let next = tokio::select! {
                biased;
                // Workers that ended leave what was handed to them, and its part of the window: there may be no room ever again.
                () = jobs.closed() => break,
                next = ahead.next() => next,
            };
            let Some((share, job)) = next else { break };
            if jobs.capacity() > 0 {
                ahead.widen();
            }
            if jobs.send((share, job?)).await.is_err() {
                break;
            }
            seen();
        }
        Ok::<(), Error>(())
    };
    let (fed, served) = futures::future::join(feed, futures::future::join_all(threads)).await;
    for served in served {
        served??;
    }
    fed
}

fn serve<T, W: Worker<T>>(taken: &Mutex<mpsc::Receiver<(Share, T)>>, make: &dyn Fn() -> Result<W>) -> Result<()> {
    let lock = || taken.lock().unwrap_or_else(PoisonError::into_inner);
    let close = |error| {
        lock().close();
        error
    };
    let mut worker = make().map_err(close)?;
    loop {
        let job = lock().blocking_recv();
        let Some((share, job)) = job else { return Ok(()) };
        worker.work(job).map_err(close)?;
        drop(share);
    }
}

/// Work on some of the pieces, by their numbers.
type SplitWork<W> = dyn Fn(&mut W, std::ops::Range<usize>) -> Result<()> + Send + Sync;

/// Splits `count` pieces of work over the threads; each takes the next few until none is left.
pub(crate) async fn split<W: 'static>(
    env: &Env,
    count: usize,
    step: usize,
    make: Arc<dyn Fn() -> Result<W> + Send + Sync>,
    work: Arc<SplitWork<W>>,
) -> Result<()> {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let threads = env.workers().clamp(1, count.div_ceil(step).max(1));
    let threads = (0..threads).map(|_| {
        let (next, make, work) = (Arc::clone(&next), Arc::clone(&make), Arc::clone(&work));
        env.blocking(move || {
            let mut worker = make()?;
            loop {
                let from = next.fetch_add(step, std::sync::atomic::Ordering::Relaxed);
                if from >= count {
                    return Ok::<(), Error>(());
                }
                work(&mut worker, from..(from + step).min(count))?;
            }
        })
    });
    for done in futures::future::join_all(threads).await {
        done??;
    }
    Ok(())
}

/// An error that a worker met on a damaged or absent object, as opposed to one that ends everything.
pub(crate) fn is_loss(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::time::Duration;

    /// Fails, some time after it was given something to do.
    struct Failing;

    impl Worker<()> for Failing {
        fn work(&mut self, (): ()) -> Result<()> {
            std::thread::park_timeout(Duration::from_millis(100));
            Err(Error::new(ErrorKind::Damaged, "as it is meant to be"))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn when_every_worker_has_failed_nobody_waits_for_room() {
        let env = Env::real();
        let workers = env.workers();
        let window = Window { requests_max: 64, bytes_max: (workers + 2) * UNIT_BYTES };
        // Each worker has one, one lies between, and the last one wants all of the window.
        let sizes = std::iter::repeat_n(UNIT_BYTES, workers + 1).chain([window.bytes_max]);
        let ahead = Ahead::new(window, sizes.map(|bytes| (bytes, ())), |()| async { Ok(()) }.boxed()).all_at_once();
        let make = Arc::new(|| Ok(Failing));
        let mut seen = || ();
        let ran = run(&env, ahead, make, &mut seen);
        let ended = tokio::time::timeout(Duration::from_secs(60), ran).await.expect("it waits for ever");
        assert_eq!(ended.unwrap_err().kind(), ErrorKind::Damaged);
    }
}
