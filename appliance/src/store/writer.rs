//! One connection writes. Jobs that wait together are committed together (one fsync), each inside its own savepoint, so that
//! the failure of one leaves the others untouched. A thread commits what must be on the disk before it is answered.
//!
//! A commit that holds nothing but audit entries of reads does not wait for the disk ([`Flush::Soon`]): it is in the log
//! file, which a killed process loses no byte of, and a second thread flushes that file at once. Only a machine that loses
//! power in between forgets these entries, and then the end of the chain as one piece. So does a PostgreSQL server that is
//! killed in between. Such a commit takes less time than waking a thread up, so whoever reads makes it, with the entries of
//! all who wait.

use super::StoreError;
use crate::clock;
use crate::db::{Connection, Flush};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::oneshot;

/// Jobs in one commit at most: bounds how long the first of them waits.
const BATCH_MAX: usize = 64;
/// Commits that one reader makes at most for others as well: it has its own answer to give.
const ROUNDS_MAX: usize = 4;
/// Reads whose entries the log takes, about forty megabytes of it, before it is moved into the database: everybody waits then.
const READS_IN_LOG: u32 = 8000;
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

/// Reads, and notes in the audit that it did. Such jobs alone need no savepoints: the only one that leaves something undone
/// could not tell the audit, and then none of those beside it is answered either.
type Read = Box<dyn FnOnce(Result<&Connection, StoreError>, Undo) -> (Finish, Result<(), StoreError>) + Send>;

/// What undoes a job that fails.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Undo {
    Savepoint,
    WholeTransaction,
}

pub struct Writer {
    jobs: Option<mpsc::Sender<Asked>>,
    thread: Option<JoinHandle<()>>,
    core: Arc<Core>,
}

/// Whoever holds it commits the entries of all reads that wait, at its end: also of the others', when its own request is
/// given up.
pub struct Turn<'w>(&'w Writer);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.commit_reads();
    }
}

enum Asked {
    Job(Job),
    Read(Read),
    /// Look after the entries of reads, and the log.
    Look,
}

/// What the thread and those who read share.
struct Core {
    connection: Mutex<Connection>,
    /// Entries of reads that wait for whoever holds the connection.
    reads: Mutex<Vec<Read>>,
    /// Reads in the log since it was last moved into the database.
    in_log: AtomicU32,
    flusher: Flusher,
    /// A server is asked over the network, for which no reader's thread waits.
    has_file: bool,
    /// Commits of anything but entries of reads; counted before anybody is told of them.
    changes: AtomicU64,
    /// Between a commit and telling of it: another process may believe for so long what it knew.
    told_after: Duration,
}

impl Writer {
    pub fn start(connection: Connection, log: Log, told_after: Duration) -> Result<Writer, StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let has_file = matches!(log, Log::File(_));
        let (connection, flusher) = (Mutex::new(connection), Flusher::start(log)?);
        let (reads, in_log, changes) = (Mutex::default(), AtomicU32::new(0), AtomicU64::new(0));
        let core = Arc::new(Core { connection, reads, in_log, flusher, has_file, changes, told_after });
        let shared = Arc::clone(&core);
        let thread = std::thread::Builder::new()
            .name("records-writer".into())
            .spawn(move || shared.run(&inbox))
            .map_err(StoreError::io("writer thread"))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread), core })
    }

    /// Queues `job`; the receiver yields its result after its commit, which is on the disk.
    pub fn submit<T, E, F>(&self, job: F) -> oneshot::Receiver<Result<T, E>>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = connection.map_err(E::from).and_then(|connection| in_savepoint(connection, job));
            tells(reply, result)
        });
        self.ask(Asked::Job(job));
        answer
    }

    /// Queues what only reads, and notes that it did; the receiver yields its result after its commit, which is on the disk
    /// right after. It waits until somebody commits it, the next who writes or whoever ends its [`Turn`].
    pub fn submit_read<T, F>(&self, job: F) -> (oneshot::Receiver<Result<T, StoreError>>, Option<Turn<'_>>)
    where
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |connection, undo| {
            let result = connection.and_then(|connection| match undo {
                Undo::Savepoint => in_savepoint(connection, job),
                Undo::WholeTransaction => caught(|| job(connection)),
            });
            let done = result.as_ref().map(drop).map_err(StoreError::clone);
            (tells(reply, result), done)
        });
        if !self.core.has_file || self.core.flusher.failed() {
            self.ask(Asked::Read(read));
            return (answer, None);
        }
        guard(&self.core.reads).push(read);
        (answer, Some(Turn(self)))
    }

    /// Commits of anything but entries of reads so far. As long as the number is the same, nobody who was told that something
    /// changed by this process was told so since.
    pub fn changes(&self) -> u64 {
        self.core.changes.load(Ordering::Acquire)
    }

    /// Commits the entries of reads that wait, on this thread unless another one is about to.
    fn commit_reads(&self) {
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
                // Whoever came meanwhile left its entry here.
                self.commit_reads();
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
            let (mut jobs, mut reads) = (Vec::new(), Vec::new());
            let waiting = std::iter::once(first).chain(std::iter::from_fn(|| inbox.try_recv().ok()));
            for asked in waiting.take(BATCH_MAX) {
                match asked {
                    Asked::Job(job) => jobs.push(job),
                    Asked::Read(read) => reads.push(read),
                    Asked::Look => {}
                }
            }
            let connection = guard(&self.connection);
            self.commit(&connection, jobs, reads);
            self.empty_log(&connection);
            drop(connection);
            // Whoever came while the connection was held left its entry here.
            self.commit_reads(usize::MAX);
        }
    }

    /// Commits these and the entries of reads that wait, while the connection is held.
    fn commit(&self, connection: &Connection, jobs: Vec<Job>, mut reads: Vec<Read>) {
        let room = BATCH_MAX.saturating_sub(jobs.len() + reads.len());
        let mut waiting = guard(&self.reads);
        let taken = waiting.len().min(room);
        reads.extend(waiting.drain(..taken));
        drop(waiting);
        self.in_log.fetch_add(taken as u32, Ordering::Relaxed);
        if jobs.is_empty() && reads.is_empty() {
            return;
        }
        let is_change = !jobs.is_empty();
        let flush = if is_change || self.flusher.failed() { Flush::First } else { Flush::Soon };
        let (committed, finishes) = commit_together(connection, flush, jobs, reads);
        if is_change {
            self.changes.fetch_add(1, Ordering::Release);
            if !self.told_after.is_zero() {
                clock::wait(self.told_after);
            }
        }
        for finish in finishes {
            finish(committed.clone());
        }
        if flush == Flush::Soon {
            self.flusher.ask();
        }
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
            self.commit(&connection, Vec::new(), Vec::new());
        }
        !guard(&self.reads).is_empty()
    }
}

/// Runs all of these in one transaction; how it ended, and what tells the callers of that.
fn commit_together(
    connection: &Connection,
    flush: Flush,
    jobs: Vec<Job>,
    reads: Vec<Read>,
) -> (Result<(), StoreError>, Vec<Finish>) {
    let transaction = connection.begin_write(flush).map_err(StoreError::from);
    if transaction.is_err() {
        // One that somebody left open ends here. What fails is told already.
        let _ = connection.rollback();
    }
    let open = || transaction.clone().map(|()| connection);
    let undo = if jobs.is_empty() { Undo::WholeTransaction } else { Undo::Savepoint };
    let mut finishes = Vec::with_capacity(jobs.len() + reads.len());
    finishes.extend(jobs.into_iter().map(|job| job(open())));
    let mut whole = Ok(());
    for read in reads {
        let (finish, done) = read(open(), undo);
        finishes.push(finish);
        if undo == Undo::WholeTransaction {
            whole = whole.and(done);
        }
    }
    let committed = match (transaction, whole) {
        (Ok(()), Ok(())) => connection.commit().map_err(StoreError::from),
        (Ok(()), Err(unnoted)) => connection.rollback().map_err(StoreError::from).and(Err(unnoted)),
        (Err(error), _) => Err(error),
    };
    (committed, finishes)
}

/// What tells the caller the result of a job, or that it was not committed.
fn tells<T, E>(reply: oneshot::Sender<Result<T, E>>, result: Result<T, E>) -> Finish
where
    T: 'static,
    E: From<StoreError> + 'static,
{
    Box::new(move |committed| {
        let told = match committed {
            Ok(()) => result,
            Err(error) => result.and_then(|_| Err(error.into())),
        };
        // A caller that went away does not undo what is committed.
        let _ = reply.send(told);
    })
}

/// Runs one job so that its failure, a panic included, undoes all it did and nothing else.
fn in_savepoint<T, E: From<StoreError>>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    connection.savepoint().map_err(StoreError::from)?;
    let result = caught(|| job(connection));
    // After a full disk SQLite may have rolled the whole transaction back; then there is no savepoint left to end, and
    // the commit that follows fails for every job of the batch.
    if result.is_err() {
        connection.rollback_to_savepoint().map_err(StoreError::from)?;
    }
    connection.release_savepoint().map_err(StoreError::from)?;
    result
}

/// Runs one job; a panic is its failure.
pub(super) fn caught<T, E: From<StoreError>>(job: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    catch_unwind(AssertUnwindSafe(job)).unwrap_or_else(|_| {
        log::error!("store.write.panicked");
        Err(StoreError::Closed.into())
    })
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
        (dir, Writer::start(connection, log, Duration::ZERO).unwrap())
    }

    fn add(connection: &Connection) -> Result<(), StoreError> {
        connection.execute("INSERT INTO entry DEFAULT VALUES", [])?;
        Ok(())
    }

    fn read(
        writer: &Writer,
        job: impl FnOnce(&Connection) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (noted, turn) = writer.submit_read(job);
        drop(turn);
        noted.blocking_recv().unwrap()
    }

    fn count(writer: &Writer) -> i64 {
        let count = |connection: &Connection| {
            connection.query_row("SELECT count(*) FROM entry", [], |row| row.get::<_, i64>(0)).map_err(StoreError::from)
        };
        writer.submit(count).blocking_recv().unwrap().unwrap()
    }

    #[test]
    fn entries_of_reads_are_committed_by_whoever_comes_next() {
        let (_dir, writer) = writer();
        let (mut waiting, turn) = writer.submit_read(add);
        let (beside, _turn) = writer.submit_read(add);
        assert!(waiting.try_recv().is_err(), "nobody has committed it");
        assert_eq!(count(&writer), 0, "a batch does what was asked of it first");
        assert!(waiting.blocking_recv().unwrap().is_ok() && beside.blocking_recv().unwrap().is_ok());
        drop(turn);
        assert!(read(&writer, add).is_ok());
        assert_eq!(count(&writer), 3);
    }

    #[test]
    fn readers_on_many_threads_lose_no_entry_and_fill_no_log() {
        const READERS: u32 = 8;
        let (dir, writer) = writer();
        let reader = || {
            for number in 0..READS_IN_LOG {
                assert!(read(&writer, add).is_ok(), "entry {number}");
            }
        };
        std::thread::scope(|scope| (0..READERS).for_each(|_| drop(scope.spawn(reader))));
        assert_eq!(count(&writer), i64::from(READERS * READS_IN_LOG));
        let log = std::fs::metadata(dir.path().join("records.sqlite-wal")).unwrap().len();
        assert!(log < 64 << 20, "{log} bytes of log");
    }

    #[test]
    fn of_reads_whose_entries_fail_none_is_answered_and_none_noted() {
        let (_dir, writer) = writer();
        let fails = |connection: &Connection| {
            add(connection)?;
            Err::<(), _>(StoreError::Audit)
        };
        let ((good, turn), (bad, _)) = (writer.submit_read(add), writer.submit_read(fails));
        drop(turn);
        assert!(matches!(good.blocking_recv().unwrap(), Err(StoreError::Audit)));
        assert!(matches!(bad.blocking_recv().unwrap(), Err(StoreError::Audit)));
        assert_eq!(count(&writer), 0);
        // Beside what somebody saves, each stands for itself.
        let ((bad, turn), saved) = (writer.submit_read(fails), writer.submit(add));
        assert!(saved.blocking_recv().unwrap().is_ok());
        assert!(bad.blocking_recv().unwrap().is_err());
        drop(turn);
        assert_eq!(count(&writer), 1);
        assert!(read(&writer, |_| -> Result<(), StoreError> { panic!("a bug in a reader") }).is_err());
        assert!(read(&writer, add).is_ok());
    }

    #[test]
    fn a_change_is_counted_before_it_is_told_and_a_read_is_none() {
        let (_dir, writer) = writer();
        let before = writer.changes();
        assert!(read(&writer, add).is_ok());
        assert_eq!(writer.changes(), before);
        assert!(writer.submit(add).blocking_recv().unwrap().is_ok());
        assert!(writer.changes() > before);
    }

    #[test]
    fn an_entry_that_comes_during_a_short_read_is_committed_after_it() {
        let (_dir, writer) = writer();
        let noted = writer.read_if_free(|_| {
            let (noted, turn) = writer.submit_read(add);
            drop(turn);
            noted
        });
        assert!(noted.ok().unwrap().try_recv().unwrap().is_ok(), "nobody else comes");
    }

    #[test]
    fn a_request_that_is_given_up_commits_for_those_beside_it() {
        let (_dir, writer) = writer();
        let (given_up, turn) = writer.submit_read(add);
        let (mut waiting, other) = writer.submit_read(add);
        drop(given_up);
        drop(turn);
        assert!(waiting.try_recv().unwrap().is_ok());
        drop(other);
        assert_eq!(count(&writer), 2);
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
        let noted = writer.submit(add);
        assert!(noted.blocking_recv().unwrap().is_ok());
        assert_eq!(count(&writer), 1);
    }

    #[test]
    fn a_transaction_that_was_left_open_fails_one_commit_alone() {
        let (_dir, writer) = writer();
        assert!(writer.read_if_free(|connection| connection.begin_read().unwrap()).is_ok());
        let failed = writer.submit(add);
        assert!(failed.blocking_recv().unwrap().is_err());
        let noted = writer.submit(add);
        assert!(noted.blocking_recv().unwrap().is_ok());
        assert_eq!(count(&writer), 1);
    }
}
