//! One connection writes. Jobs that wait together are committed together (one fsync), each inside its own savepoint, so that
//! the failure of one leaves the others untouched. A thread commits what must be on the disk before it is answered.
//!
//! A commit that holds nothing but audit entries of reads does not wait for the disk ([`Flush::Soon`]): it is in the log
//! file, which a killed process loses no byte of, and a second thread flushes that file at once. Only a machine that loses
//! power in between forgets these entries, and then the end of the chain as one piece. So does a PostgreSQL server that is
//! killed in between. Such a commit takes less time than waking a thread up, so whoever reads makes it, with the entries of
//! all who wait.

use super::StoreError;
use crate::db::{Connection, Flush};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Jobs in one commit at most: bounds how long the first of them waits.
const BATCH_MAX: usize = 64;
/// Commits that one reader makes at most for others as well: it has its own answer to give.
const ROUNDS_MAX: usize = 4;
/// Reads whose entries the log takes, about ten megabytes of it, before it is moved into the database: everybody waits then.
const READS_IN_LOG: u32 = 2000;
/// Between two flushes: under load one flush serves many commits.
const FLUSH_PAUSE: Duration = Duration::from_millis(1);

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
    jobs: Option<mpsc::Sender<Asked>>,
    thread: Option<JoinHandle<()>>,
    core: Arc<Core>,
}

enum Asked {
    Job(Flush, Job),
    /// Look after the entries of reads, and the log.
    Look,
}

/// What the thread and those who read share.
struct Core {
    connection: Mutex<Connection>,
    /// Entries of reads that wait for whoever holds the connection.
    reads: Mutex<Vec<Job>>,
    /// Reads in the log since it was last moved into the database.
    in_log: AtomicU32,
    flusher: Flusher,
    /// A server is asked over the network, for which no reader's thread waits.
    has_file: bool,
}

impl Writer {
    pub fn start(connection: Connection, log: Log) -> Result<Writer, StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let has_file = matches!(log, Log::File(_));
        let (connection, flusher) = (Mutex::new(connection), Flusher::start(log)?);
        let core = Arc::new(Core { connection, reads: Mutex::default(), in_log: AtomicU32::new(0), flusher, has_file });
        let shared = Arc::clone(&core);
        let thread = std::thread::Builder::new()
            .name("records-writer".into())
            .spawn(move || shared.run(&inbox))
            .map_err(StoreError::io("writer thread"))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread), core })
    }

    /// Queues `job`; the receiver yields its result after its commit, which is on the disk unless it is flushed [`Flush::Soon`].
    /// That one waits until somebody commits it, the next who writes or [`Writer::commit_reads`].
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
        if flush == Flush::Soon && self.core.has_file && !self.core.flusher.failed() {
            guard(&self.core.reads).push(job);
        } else {
            self.ask(Asked::Job(flush, job));
        }
        answer
    }

    /// Commits the entries of reads that wait, on this thread unless another one is about to.
    pub fn commit_reads(&self) {
        let rest = self.core.commit_reads(ROUNDS_MAX);
        if rest || self.core.in_log.load(Ordering::Relaxed) > READS_IN_LOG {
            self.ask(Asked::Look);
        }
    }

    /// Runs `job` on the connection that writes, whose pages are at hand, where that is a file's and nobody uses it now.
    pub fn read_if_free<T>(&self, job: impl FnOnce(&Connection) -> T) -> Result<T, impl FnOnce(&Connection) -> T> {
        let connection = if self.core.has_file { self.core.connection.try_lock().ok() } else { None };
        match connection {
            Some(connection) => {
                let result = catch_unwind(AssertUnwindSafe(|| job(&connection)));
                if result.is_err() {
                    // Nothing was written; a transaction that stays open fails the next one, which ends it.
                    let _ = connection.rollback();
                }
                drop(connection);
                Ok(result.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            }
            None => Err(job),
        }
    }

    pub fn has_file(&self) -> bool {
        self.core.has_file
    }

    fn ask(&self, asked: Asked) {
        if let Some(jobs) = &self.jobs {
            // A closed inbox drops the job and with it the reply: the caller sees `Closed`.
            let _ = jobs.send(asked);
        }
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

/// A job that panics is caught: nothing is left half done behind a lock.
fn guard<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    fn run(&self, inbox: &mpsc::Receiver<Asked>) {
        while let Ok(first) = inbox.recv() {
            let mut batch = Vec::new();
            let mut flush = Flush::Soon;
            let waiting = std::iter::once(first).chain(std::iter::from_fn(|| inbox.try_recv().ok()));
            for asked in waiting.take(BATCH_MAX) {
                if let Asked::Job(strict, job) = asked {
                    flush = flush.max(strict);
                    batch.push(job);
                }
            }
            let connection = guard(&self.connection);
            self.commit(&connection, flush, batch);
            self.empty_log(&connection);
            drop(connection);
            // Whoever came while the connection was held left its entry here.
            self.commit_reads(usize::MAX);
        }
    }

    /// Commits these and the entries of reads that wait, while the connection is held.
    fn commit(&self, connection: &Connection, flush: Flush, mut batch: Vec<Job>) {
        let asked = batch.len();
        let mut waiting = guard(&self.reads);
        let taken = waiting.len().min(BATCH_MAX.saturating_sub(asked));
        batch.extend(waiting.drain(..taken));
        drop(waiting);
        let flush = if self.flusher.failed() { Flush::First } else { flush };
        if !batch.is_empty() {
            commit_together(connection, flush, batch.into_iter());
            if flush == Flush::Soon {
                self.flusher.ask();
            }
        }
        self.in_log.fetch_add(taken as u32, Ordering::Relaxed);
    }

    /// Moves the log into the database when it is full. A commit of reads leaves that to the thread: it waits for the disk.
    fn empty_log(&self, connection: &Connection) {
        if self.has_file && self.in_log.load(Ordering::Relaxed) > READS_IN_LOG {
            self.in_log.store(0, Ordering::Relaxed);
            if connection.checkpoint().is_err() {
                log::error!("store.checkpoint.failed");
            }
        }
    }

    /// Commits the entries of reads, unless somebody else holds the connection: whoever does looks for them when it is done.
    /// Whether some are left after so many rounds.
    fn commit_reads(&self, rounds: usize) -> bool {
        for _ in 0..rounds {
            if guard(&self.reads).is_empty() {
                return false;
            }
            let connection = match self.connection.try_lock() {
                Ok(connection) => connection,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => return false,
            };
            self.commit(&connection, Flush::Soon, Vec::new());
        }
        !guard(&self.reads).is_empty()
    }
}

fn commit_together(connection: &Connection, flush: Flush, batch: impl Iterator<Item = Job>) {
    let transaction = connection.begin_write(flush).map_err(StoreError::from);
    if transaction.is_err() {
        // One that somebody left open ends here. What fails is told already.
        let _ = connection.rollback();
    }
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
        #[expect(clippy::disallowed_methods, reason = "nobody waits for this thread, only the disk is spared")]
        let flush = move || {
            // What is asked for while the disk works is flushed together, after it.
            while questions.recv().is_ok() {
                if log.flush().is_err() && !has_failed.swap(true, Ordering::Relaxed) {
                    log::error!("store.flush.failed");
                }
                std::thread::sleep(FLUSH_PAUSE);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("records.sqlite");
        let connection = crate::db::sqlite::open_to_write(&file).unwrap();
        connection.execute_batch("CREATE TABLE entry (number INTEGER PRIMARY KEY)").unwrap();
        let log = Log::File(dir.path().join("records.sqlite-wal"));
        (dir, Writer::start(connection, log).unwrap())
    }

    fn add(connection: &Connection) -> Result<(), StoreError> {
        connection.execute("INSERT INTO entry DEFAULT VALUES", [])?;
        Ok(())
    }

    fn count(writer: &Writer) -> i64 {
        let count = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM entry", [], |row| row.get::<_, i64>(0)).map_err(StoreError::from)
        };
        writer.submit(Flush::First, count).blocking_recv().unwrap().unwrap()
    }

    #[test]
    fn entries_of_reads_are_committed_by_whoever_comes_next() {
        let (_dir, writer) = writer();
        let mut waiting = writer.submit(Flush::Soon, add);
        assert!(waiting.try_recv().is_err(), "nobody has committed it");
        assert_eq!(count(&writer), 0, "a batch does what was asked of it first");
        assert!(waiting.blocking_recv().unwrap().is_ok());
        let own = writer.submit(Flush::Soon, add);
        writer.commit_reads();
        assert!(own.blocking_recv().unwrap().is_ok());
        assert_eq!(count(&writer), 2);
    }

    #[test]
    fn readers_on_many_threads_lose_no_entry_and_fill_no_log() {
        const READERS: u32 = 8;
        let (dir, writer) = writer();
        let read = || {
            for number in 0..READS_IN_LOG {
                let noted = writer.submit(Flush::Soon, add);
                writer.commit_reads();
                assert!(noted.blocking_recv().unwrap().is_ok(), "entry {number}");
            }
        };
        std::thread::scope(|scope| (0..READERS).for_each(|_| drop(scope.spawn(read))));
        assert_eq!(count(&writer), i64::from(READERS * READS_IN_LOG));
        let log = std::fs::metadata(dir.path().join("records.sqlite-wal")).unwrap().len();
        assert!(log < 64 << 20, "{log} bytes of log");
    }

    #[test]
    fn a_short_read_that_panics_leaves_the_connection_to_the_next() {
        let (_dir, writer) = writer();
        let read = |connection: &Connection| -> i64 {
            connection.begin_read().unwrap();
            panic!("a bug in a reader");
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| writer.read_if_free(read).is_ok()));
        assert!(panicked.is_err());
        let noted = writer.submit(Flush::First, add);
        assert!(noted.blocking_recv().unwrap().is_ok());
        assert_eq!(count(&writer), 1);
    }

    #[test]
    fn a_transaction_that_was_left_open_fails_one_commit_alone() {
        let (_dir, writer) = writer();
        assert!(writer.read_if_free(|connection| connection.begin_read().unwrap()).is_ok());
        let failed = writer.submit(Flush::First, add);
        assert!(failed.blocking_recv().unwrap().is_err());
        let noted = writer.submit(Flush::First, add);
        assert!(noted.blocking_recv().unwrap().is_ok());
        assert_eq!(count(&writer), 1);
    }
}
