//! The records: one database, one connection that writes, many that read, every access authorized and audited.
//!
//! - [`Store::write`] runs a closure on a [`Tx`]: resource, history of the superseded version, index rows, outbox and audit
//!   entry commit together or not at all. Jobs that arrive while a commit runs share the next one.
//! - [`Store::view`] runs a closure on a [`View`] (one consistent read point) and appends what was read to the audit
//!   *before* it returns the result: a read whose audit cannot be written fails. These entries reach the disk right after.
//! - [`Store::internal`] reads tables that hold no records (accounts, sessions) without an audit entry.

mod adopt;
mod bound;
mod canonical;
mod chart;
mod error;
mod everything;
mod history;
mod include;
mod index;
mod ledger;
mod lock;
mod migrate;
mod once;
mod order;
mod outbox;
mod person;
mod query;
mod resource;
mod search;
mod tx;
mod view;
mod writer;

pub use adopt::Adopted;
pub use chart::{Chart, LISTED_MAX};
pub use error::{Reason, StoreError};
pub use everything::Everything;
pub use history::{Before, Version, Versions};
pub use ledger::{Entry as LedgerEntry, Posting};
pub use migrate::SCHEMA_VERSION;
pub use order::Cursor;
pub use person::Person;
pub use query::Query;
pub use resource::{Expect, Resource};
pub(crate) use resource::{patient_body, patient_rid as patient_row};
pub use search::Page;
pub use tx::Tx;
pub use view::{DamagedAttachment, View};

pub(crate) use index::fold;
pub(crate) use lock::DataLock;
pub(crate) use migrate::{make_bare, schema_version, upgrade};
pub(crate) use resource::{body_digest, load as load_resource};

use crate::access::Actor;
use crate::attachments::Attachments;
use crate::audit::Event;
use crate::clock::Clock;
use crate::db::{Connection, Place};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;

/// The database's file name in the data folder, and its name in a snapshot.
pub const DATABASE_FILE: &str = "records.sqlite";
/// The attachments' folder in the data folder, and its name in a snapshot.
pub const ATTACHMENTS_DIR: &str = "attachments";

/// Says that the database was made once.
const MADE_FILE: &str = "records.made";

/// How long a process may believe what it read, if it has not changed anything since ([`Store::changes`]): one of
/// [`Mode::Beside`] says only after this that it has changed something.
pub const BELIEVED: Duration = Duration::from_millis(100);

/// Readers at the same time; more wait. A practice has tens of users and a page takes a few milliseconds.
const READERS_MAX: usize = 8;

/// How a data folder is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The only process that writes records: `serve`, `import`, `seed`. Refused while another holds the folder.
    Exclusive,
    /// [`Mode::Exclusive`], and the database is made where there is none: `appliance init`, and nothing else. An unmounted
    /// disk looks like a practice without records, and would be backed up as one.
    New,
    /// Beside a running service, for accounts (`appliance user ...`). A lock of the database orders the writes.
    Beside,
}

/// The practice's records. Cheap to clone; the last clone's drop ends the writer and closes the database.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    place: Place,
    /// Device and inode of the database's file when it was opened; `None` where it is none.
    file: Option<(u64, u64)>,
    attachments: Attachments,
    clock: Clock,
    params: Arc<index::ParamIds>,
    /// Dropped before the writer: the last connection to close moves the log into the database file.
    idle_readers: Mutex<Vec<Connection>>,
    writer: writer::Writer,
    reader_slots: tokio::sync::Semaphore,
    /// Held as long as the store is open.
    _lock: Option<lock::DataLock>,
}

/// SQLite makes a database that is not there. One that was there and is gone must not be made anew, and none is made
/// unasked: the practice would look empty, and the backups of it too.
fn require(data_dir: &Path, is_there: bool, mode: Mode) -> Result<(), StoreError> {
    match (is_there, data_dir.join(MADE_FILE).exists()) {
        (true, _) => Ok(()),
        (false, true) => Err(StoreError::Lost),
        (false, false) if mode == Mode::New => Ok(()),
        (false, false) => Err(StoreError::NoDatabase),
    }
}

/// The same of a server's database, which a folder does not hold: a folder that never saw it is not its own, unless an
/// `appliance init` was cut off between the two.
fn require_at_server(data_dir: &Path, connection: &Connection, mode: Mode) -> Result<(), StoreError> {
    let is_there = schema_version(connection)? > 0;
    require(data_dir, is_there, mode)?;
    if !is_there || data_dir.join(MADE_FILE).exists() {
        return Ok(());
    }
    let is_unused = "SELECT NOT EXISTS (SELECT 1 FROM audit)";
    let cut_off = mode == Mode::New && connection.query_row(is_unused, [], |row| row.get(0))?;
    if cut_off { Ok(()) } else { Err(StoreError::NotItsFolder) }
}

fn file_of(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()))
}

/// Whether `place` holds a practice's database, of whatever schema.
pub fn is_begun(place: impl Into<Place>) -> Result<bool, StoreError> {
    let place = place.into();
    if place.server().is_none() && !place.has_file() {
        return Ok(false);
    }
    let is_made = place.server().is_none() || place.data_dir().join(MADE_FILE).exists();
    Ok(schema_version(&place.open_existing()?)? > 0 && is_made)
}

pub(crate) fn note_made(data_dir: &Path) -> std::io::Result<()> {
    let path = data_dir.join(MADE_FILE);
    if path.exists() {
        return Ok(());
    }
    std::fs::write(
        &path,
        "This folder belongs to the records of a practice, in records.sqlite or in the database that appliance.toml names. Where \
         these are gone, they are restored.\n",
    )?;
    std::fs::File::open(&path)?.sync_all()?;
    std::fs::File::open(data_dir)?.sync_all()
}

impl Store {
    /// Opens the records of `place`; in [`Mode::New`] it makes them where there are none.
    ///
    /// # Errors
    /// [`StoreError::NoDatabase`] when there is none, [`StoreError::Lost`] when it was here and is gone, [`StoreError::InUse`] when another process holds the folder,
    /// [`StoreError::Newer`] when a newer release wrote it, [`StoreError::Older`] when it has to be upgraded first.
    pub fn open(place: impl Into<Place>, clock: Clock, mode: Mode) -> Result<Store, StoreError> {
        let place = place.into();
        let (connection, lock) = Self::connect(&place, mode)?;
        match mode {
            Mode::New => migrate::make(&connection, clock.unix_ms())?,
            Mode::Exclusive | Mode::Beside => migrate::require(&connection)?,
        }
        let params = index::ParamIds::load(&connection)?;
        index::rebuild_if_outdated(&connection, &params)?;
        crate::consents::decisions::redraw_if_outdated(&connection)?;
        note_made(place.data_dir()).map_err(StoreError::io("data folder"))?;
        Self::of(connection, place, params, (clock, lock, mode != Mode::Beside))
    }

    /// The connection that writes, and the lock of the folder.
    fn connect(place: &Place, mode: Mode) -> Result<(Connection, Option<DataLock>), StoreError> {
        let (data_dir, alone) = (place.data_dir(), mode != Mode::Beside);
        // Before anything is written: the folder may be the bare mount point of a disk.
        if place.server().is_none() {
            require(data_dir, place.has_file(), mode)?;
        } else {
            // A restore left it, or a setting was not changed with the records: which of the two is newer, a person knows.
            if place.has_file() {
                return Err(StoreError::TwoDatabases);
            }
            let connection = place.open_to_read()?;
            connection.check_server()?;
            require_at_server(data_dir, &connection, mode)?;
        }
        if mode == Mode::New {
            std::fs::create_dir_all(data_dir).map_err(StoreError::io("data folder"))?;
        }
        let lock = alone.then(|| DataLock::acquire(data_dir)).transpose()?;
        Ok((place.open_to_write(alone)?, lock))
    }

    /// Opens records of an older schema as they are, for their backup before an upgrade and nothing else: no record can be
    /// stored or searched here.
    pub(crate) fn open_older(place: &Place, clock: Clock) -> Result<Store, StoreError> {
        let (connection, lock) = Self::connect(place, Mode::Exclusive)?;
        Self::of(connection, place.clone(), index::ParamIds::none(), (clock, lock, true))
    }

    fn of(
        connection: Connection,
        place: Place,
        params: index::ParamIds,
        (clock, lock, alone): (Clock, Option<lock::DataLock>, bool),
    ) -> Result<Store, StoreError> {
        let attachments = Attachments::open(&place.data_dir().join(ATTACHMENTS_DIR), alone)?;
        let log = match place.server() {
            None => writer::Log::File(log_of(&place.file())),
            Some(_) => writer::Log::Server(Box::new(place.open_to_read()?)),
        };
        let told_after = if alone { Duration::ZERO } else { BELIEVED };
        let writer = writer::Writer::start(connection, log, told_after)?;
        Ok(Store {
            inner: Arc::new(Inner {
                file: if place.server().is_none() { file_of(&place.file()) } else { None },
                place,
                attachments,
                clock,
                params: Arc::new(params),
                idle_readers: Mutex::new(Vec::new()),
                writer,
                reader_slots: tokio::sync::Semaphore::new(READERS_MAX),
                _lock: lock,
            }),
        })
    }

    /// Changes that this process has committed: of anything but entries of the audit about reads. What was read after this
    /// number was taken is so as long as it stays the same, and for as long as [`BELIEVED`].
    pub fn changes(&self) -> u64 {
        self.inner.writer.changes()
    }

    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Whether the database's name still leads to the file that is open here. One that was removed or replaced is served on
    /// until this process ends, and is gone then. A server keeps a database that is open.
    pub(crate) fn is_in_place(&self) -> bool {
        self.inner.place.server().is_some() || file_of(&self.inner.place.file()) == self.inner.file
    }

    /// Where the records are.
    pub(crate) fn place(&self) -> &Place {
        &self.inner.place
    }

    /// The files beside the database; stage a file here first, then [`Tx::attach`] it.
    pub fn attachments(&self) -> &Attachments {
        &self.inner.attachments
    }

    /// Runs `job` in one transaction on the writer thread. An error of `job` undoes all it did, and only that.
    pub async fn write<T, E, F>(&self, actor: &Actor, job: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = self.submit(actor, job);
        answer.await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// [`Store::write`] for a thread that is not inside the async runtime.
    pub fn write_blocking<T, E, F>(&self, actor: &Actor, job: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let answer = self.submit(actor, job);
        answer.blocking_recv().unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Runs `job` on one consistent read point, then appends what it read to the audit, then returns its result.
    pub async fn view<T, E, F>(&self, actor: &Actor, job: F) -> Result<T, E>
    where
        F: FnOnce(&View<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (inner, reader) = (Arc::clone(&self.inner), actor.clone());
        let (result, events) = self.apart(move || inner.view(&reader, job)).await?;
        self.note_reads(actor, events).await?;
        result
    }

    /// [`Store::view`] for what is found by its key. That takes a few pages of the database and less time than another
    /// thread needs to wake up, so it stays on this one; it is read where its audit entry is written, in one transaction.
    pub async fn view_one<T, E, F>(&self, actor: &Actor, job: F) -> Result<T, E>
    where
        F: FnOnce(&View<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if !self.inner.writer.has_file() {
            let (result, events) = self.inner.in_its_place(|| self.inner.view(actor, job))?;
            self.note_reads(actor, events).await?;
            return result;
        }
        self.commit_read(actor, move |tx| {
            let seen = writer::caught(|| {
                let view = View::new(tx.connection, tx.params, tx.actor(), tx.now_ms());
                let result = job(&view);
                Ok::<_, StoreError>((result, view.into_events()))
            });
            match seen {
                Ok((result, events)) => tx.audit_all(events).map(|()| result),
                // It told nothing and wrote nothing: those beside it are answered.
                Err(error) => Ok(Err(error.into())),
            }
        })
        .await?
    }

    /// [`Store::view`] for a thread that is not inside the async runtime.
    pub fn view_blocking<T, E, F>(&self, actor: &Actor, job: F) -> Result<T, E>
    where
        F: FnOnce(&View<'_>) -> Result<T, E>,
        E: From<StoreError> + Send + 'static,
    {
        let (result, events) = self.inner.view(actor, job)?;
        if !events.is_empty() {
            let (noted, turn) = self.submit_read(actor, move |tx| tx.audit_all(events));
            drop(turn);
            noted.blocking_recv().unwrap_or(Err(StoreError::Closed))?;
        }
        result
    }

    /// Reads tables that hold no records (accounts, sessions, invitations): not authorized, not audited.
    pub async fn internal<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        self.apart(move || inner.read(job)).await
    }

    /// Runs `job` on a thread that may wait, when one of the readers is free.
    async fn apart<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce() -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let _slot = self.inner.reader_slots.acquire().await.map_err(|_| StoreError::Closed)?;
        tokio::task::spawn_blocking(job).await.unwrap_or_else(|_| Err(StoreError::Closed.into()))
    }

    /// Tells the audit what was read, before anybody else is told.
    async fn note_reads(&self, actor: &Actor, events: Vec<Event>) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        self.commit_read(actor, move |tx| tx.audit_all(events)).await
    }

    /// Commits what only reads and tells the audit of it, together with whatever else of that kind is ready now.
    async fn commit_read<T, F>(&self, actor: &Actor, job: F) -> Result<T, StoreError>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (noted, turn) = self.submit_read(actor, job);
        if let Some(turn) = turn {
            // Other requests that are ready come to this point too: one commit serves all of them.
            tokio::task::yield_now().await;
            drop(turn);
        }
        noted.await.unwrap_or(Err(StoreError::Closed))
    }

    /// [`Store::internal`] for a thread that is not inside the async runtime.
    pub fn internal_blocking<T, E: From<StoreError>>(
        &self,
        job: impl FnOnce(&Connection) -> Result<T, E>,
    ) -> Result<T, E> {
        self.inner.read(job)
    }

    /// [`Store::internal_blocking`] for what is found by its key: no work for another thread.
    pub fn internal_one<T, E: From<StoreError>>(&self, job: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let read = |connection: &Connection| read_point(connection, job);
        match self.inner.writer.read_if_free(read) {
            Ok(result) => result?,
            Err(read) => self.inner.on_reader(read),
        }
    }

    /// Writes a canary: a row without content, whose age after a restore is the recovery point.
    pub async fn canary(&self) -> Result<(), StoreError> {
        let actor = Actor::program(crate::access::Program::Operations);
        self.write(&actor, |tx| tx.canary()).await
    }

    fn submit<T, E, F>(&self, actor: &Actor, job: F) -> oneshot::Receiver<Result<T, E>>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (params, actor, clock) = (Arc::clone(&self.inner.params), actor.clone(), self.inner.clock.clone());
        self.inner.writer.submit(move |connection| {
            let now_ms = clock.unix_ms();
            if let Some(once) = &actor.once {
                once::claim(connection, once, now_ms)?;
            }
            let mut tx = Tx::new(connection, &params, &actor, now_ms);
            let value = job(&mut tx)?;
            tx.finish()?;
            Ok(value)
        })
    }

    fn submit_read<T, F>(
        &self,
        actor: &Actor,
        job: F,
    ) -> (oneshot::Receiver<Result<T, StoreError>>, Option<writer::Turn<'_>>)
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
        T: Send + 'static,
    {
        let (params, actor, clock) = (Arc::clone(&self.inner.params), actor.reading(), self.inner.clock.clone());
        self.inner.writer.submit_read(move |connection| {
            let mut tx = Tx::new(connection, &params, &actor, clock.unix_ms());
            let value = job(&mut tx)?;
            tx.finish()?;
            Ok(value)
        })
    }
}

impl Inner {
    /// Runs `job` on this thread. A server may keep it waiting: then the runtime's other tasks go on beside it.
    fn in_its_place<T>(&self, job: impl FnOnce() -> T) -> T {
        use tokio::runtime::{Handle, RuntimeFlavor};
        let others_wait = Handle::try_current().is_ok_and(|now| now.runtime_flavor() == RuntimeFlavor::MultiThread);
        if self.place.server().is_some() && others_wait { tokio::task::block_in_place(job) } else { job() }
    }

    /// Runs `job` on one consistent read point; gives its result and what it read.
    fn view<T, E>(
        &self,
        actor: &Actor,
        job: impl FnOnce(&View<'_>) -> Result<T, E>,
    ) -> Result<(Result<T, E>, Vec<Event>), StoreError> {
        self.read(|connection| {
            let view = View::new(connection, &self.params, actor, self.clock.unix_ms());
            let result = job(&view);
            Ok((result, view.into_events()))
        })
    }

    /// Runs `job` inside one deferred read transaction, so that it sees one state of the records.
    fn read<T, E: From<StoreError>>(&self, job: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        self.on_reader(|connection| read_point(connection, job))
    }

    fn on_reader<T, E: From<StoreError>>(
        &self,
        job: impl FnOnce(&Connection) -> Result<Result<T, E>, E>,
    ) -> Result<T, E> {
        let idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.place.open_to_read().map_err(StoreError::from)?,
        };
        // A connection that cannot end its transaction is closed, which ends it.
        let result = job(&connection)?;
        let mut idle = self.idle_readers.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < READERS_MAX {
            idle.push(connection);
        }
        result
    }
}

/// Runs `job` inside one deferred read transaction. The outer error: the transaction could not be begun or ended.
fn read_point<T, E: From<StoreError>>(
    connection: &Connection,
    job: impl FnOnce(&Connection) -> Result<T, E>,
) -> Result<Result<T, E>, E> {
    connection.begin_read().map_err(StoreError::from)?;
    let result = job(connection);
    connection.end_read().map_err(StoreError::from)?;
    Ok(result)
}

/// SQLite's write-ahead log of a database.
fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}
