//! The writer thread: the only connection that writes. Jobs that wait together are committed together (one fsync), each
//! inside its own savepoint, so that the failure of one leaves the others untouched.

use super::StoreError;
use rusqlite::Connection;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// Jobs in one commit at most: bounds how long the first of them waits.
const BATCH_MAX: usize = 64;

/// Runs with the open transaction (or with why there is none) and gives back what tells the caller, after the commit.
type Job = Box<dyn FnOnce(Result<&Connection, StoreError>) -> Finish + Send>;
type Finish = Box<dyn FnOnce(Result<(), StoreError>)>;

pub struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(connection: Connection) -> Result<Writer, StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("records-writer".into())
            .spawn(move || run(&connection, &inbox))
            .map_err(StoreError::io("writer thread"))?;
        Ok(Writer { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues `job`; the receiver yields its result after the commit that made it durable.
    pub fn submit<T, E, F>(&self, job: F) -> oneshot::Receiver<Result<T, E>>
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
            let _ = jobs.send(job);
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

fn run(connection: &Connection, inbox: &mpsc::Receiver<Job>) {
    while let Ok(first) = inbox.recv() {
        let mut batch = vec![first];
        batch.extend(std::iter::from_fn(|| inbox.try_recv().ok()).take(BATCH_MAX - 1));
        commit_together(connection, batch);
    }
}

fn commit_together(connection: &Connection, batch: Vec<Job>) {
    let transaction = match connection.execute_batch("BEGIN IMMEDIATE") {
        Ok(()) => Ok(()),
        Err(error) => Err(StoreError::from(error)),
    };
    let mut finishes = Vec::with_capacity(batch.len());
    for job in batch {
        finishes.push(job(transaction.clone().map(|()| connection)));
    }
    let committed = transaction.and_then(|()| connection.execute_batch("COMMIT").map_err(StoreError::from));
    if committed.is_err() && !connection.is_autocommit() {
        // The failed commit is what callers hear of; a failed rollback shows at the next BEGIN.
        let _ = connection.execute_batch("ROLLBACK");
    }
    for finish in finishes {
        finish(committed.clone());
    }
}

/// Runs one job so that its failure, a panic included, undoes all it did and nothing else.
fn in_savepoint<T, E: From<StoreError>>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<T, E> {
    connection.execute_batch("SAVEPOINT job").map_err(StoreError::from)?;
    let result = catch_unwind(AssertUnwindSafe(|| job(connection))).unwrap_or_else(|_| {
        log::error!("store.write.panicked");
        Err(StoreError::Closed.into())
    });
    let end = if result.is_ok() { "RELEASE job" } else { "ROLLBACK TO job; RELEASE job" };
    // After a full disk SQLite may have rolled the whole transaction back; then there is no savepoint left to end, and
    // the commit that follows fails for every job of the batch.
    connection.execute_batch(end).map_err(StoreError::from)?;
    result
}
