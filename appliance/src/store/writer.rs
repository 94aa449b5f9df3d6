//! The writer thread: the only connection that writes. Jobs that wait together are committed together (one fsync), each
//! inside its own savepoint, so that the failure of one leaves the others untouched.
//!
//! A commit that holds nothing but audit entries of reads does not wait for the disk ([`Flush::Soon`]): it is in the log
//! file, which a killed process loses no byte of, and a second thread flushes that file at once. Only a machine that loses
//! power in between forgets these entries, and then the end of the chain as one piece. So does a PostgreSQL server that is
//! killed in between.

use super::StoreError;
use crate::db::{Connection, Flush};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Jobs in one commit at most: bounds how long the first of them waits.
const BATCH_MAX: usize = 64;

/// What is flushed after a commit that did not wait for the disk.
pub enum Log {
    /// SQLite's write-ahead log.
    File(PathBuf),
    /// PostgreSQL flushes its own.
    Server(Box<Connection>),
}

/// Runs with the open transaction (or with why there is none) and gives back what tells the caller, after the commit.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Finish + Send>;
type Finish = Box<dyn FnOnce(Result<(), StoreError>)>;

pub struct Writer {
    jobs: Option<mpsc::Sender<(Flush, Job)>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(connection: Connection, log: Log) -> Result<Writer, StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let flusher = Flusher::start(log)?;
        let thread = std::thread::Builder::new()
            .name("records-writer".into())
            .spawn(move || run(&connection, &inbox, &flusher))
            .map_err(StoreError::io("writer thread"))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues `job`; the receiver yields its result after its commit, which is on the disk unless it is flushed [`Flush::Soon`].
    pub fn submit<T, E, F>(&self, flush: Flush, job: F) -> oneshot::Receiver<Result<T, E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.map_err(E::from).and_then(|connection| in_savepoint(connection, job));
            Box::new(move |committed| {
                let told = match committed {
                    Ok(()) => result,
                    Err(error) => result.and_then(|_| Err(error.into())),
                };
                // A caller that went away does not undo what is committed.
                let _ = reply.send(told);
            })
        });
        if let Some(jobs) = &self.jobs {
            // A closed inbox drops the job and with it the reply: the caller sees `Closed`.
            let _ = jobs.send((flush, job));
        }
        answer
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The writer may itself drop the last store, inside a job: a thread cannot wait for itself.
            if thread.thread().id() != std::thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}

fn run(connection: &Connection, inbox: &mpsc::Receiver<(Flush, Job)>, flusher: &Flusher) {
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(std::iter::from_fn(|| inbox.try_recv().ok()).take(BATCH_MAX - 1));
        let strictest = batch.iter().map(|(flush, _)| *flush).max().unwrap_or(Flush::First);
        let flush = if flusher.failed() { Flush::First } else { strictest };
        commit_together(connection, flush, batch.into_iter().map(|(_, job)| job));
        if flush == Flush::Soon {
            flusher.ask();
        }
    }
}

fn commit_together(connection: &Connection, flush: Flush, batch: impl Iterator<Item = Job>) {
    let transaction = connection.begin_write(flush).map_err(StoreError::from);
    let mut finishes = Vec::with_capacity(batch.size_hint().0);
    for job in batch {
        finishes.push(job(transaction.clone().map(|()| connection)));
    }
    let committed = transaction.and_then(|()| connection.commit().map_err(StoreError::from));
    for finish in finishes {
        finish(committed.clone());
    }
}

/// Runs one job so that its failure, a panic included, undoes all it did and nothing else.
fn in_savepoint<T, E: From<StoreError>>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    connection.savepoint().map_err(StoreError::from)?;
    let result = catch_unwind(AssertUnwindSafe(|| job(connection))).unwrap_or_else(|_| {
        log::error!("store.write.panicked");
        Err(StoreError::Closed.into())
    });
    // After a full disk SQLite may have rolled the whole transaction back; then there is no savepoint left to end, and
    // the commit that follows fails for every job of the batch.
    if result.is_err() {
        connection.rollback_to_savepoint().map_err(StoreError::from)?;
    }
    connection.release_savepoint().map_err(StoreError::from)?;
    result
}

impl Log {
    fn flush(&self) -> Result<(), StoreError> {
        match self {
            Log::File(log) => {
                std::fs::File::open(log).and_then(|log| log.sync_data()).map_err(StoreError::io("write-ahead log"))
            }
            // A server that is away has lost what it had not flushed, and knows no more about it.
            Log::Server(connection) => match connection.flush() {
                Err(crate::db::Error::Unreachable) => Ok(()),
                flushed => Ok(flushed?),
            },
        }
    }
}

/// Flushes the log beside the writer, which need not wait for it.
struct Flusher {
    asked: mpsc::SyncSender<()>,
    failed: Arc<AtomicBool>,
}

impl Flusher {
    /// The thread ends with the last sender of questions.
    fn start(log: Log) -> Result<Flusher, StoreError> {
        let (asked, questions) = mpsc::sync_channel::<()>(1);
        let failed = Arc::new(AtomicBool::new(false));
        let has_failed = Arc::clone(&failed);
        let flush = move || {
            // What is asked for while the disk works is flushed together, after it.
            while questions.recv().is_ok() {
                if log.flush().is_err() && !has_failed.swap(true, Ordering::Relaxed) {
                    log::error!("store.flush.failed");
                }
            }
        };
        std::thread::Builder::new()
            .name("records-flush".into())
            .spawn(flush)
            .map_err(StoreError::io("flush thread"))?;
        Ok(Flusher { asked, failed })
    }

    fn ask(&self) {
        // Full: it is asked already, and flushes after this.
        let _ = self.asked.try_send(());
    }

    /// After a failed flush nobody is answered before the disk has it: a disk that fails again fails the commit.
    fn failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }
}
