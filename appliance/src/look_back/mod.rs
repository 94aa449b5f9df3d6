//! A patient's record as it was in a snapshot.
//!
//! The verifier alone can read a snapshot: it lends this program the database of one, over its socket. What it held about the
//! one patient is taken out and kept in memory for some hours; the database is removed at once. So a restart, or the end of a
//! look, leaves nothing behind, and nobody sees another patient's record of then.

pub mod compare;
mod labels;
mod then;

pub use then::{Old, OldFile, Then};

use crate::attachments::AttachmentRow;
use crate::clock;
use crate::store::{DATABASE_FILE, Store, StoreError};
use backupd_api::{Client, ClientError, Endpoint, Event, Lent, Request, SnapshotRow};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// A look ends by itself after this long.
pub const LASTS: Duration = Duration::from_secs(4 * 3600);
/// Looks at one time: each holds a record in memory.
const LOOKS_MAX: usize = 16;
/// Where borrowed files lie while they are read, in the data folder. Not part of a snapshot.
const BORROWED_DIR: &str = "look-back";
/// Bytes of attachments that one look holds: those that are gone or damaged today.
const FILES_BYTES_MAX: usize = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("the backup's verifier does not answer on this machine: {0}")]
    Verifier(#[from] ClientError),
    #[error("this patient was not in the records of that snapshot")]
    NoPatient,
    #[error("too many records are looked at: end one first")]
    TooMany,
    #[error("the record of then is too large to be looked at here: ask for a restore of the snapshot")]
    TooLarge,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a look so far.
#[derive(Clone)]
pub enum State {
    /// The database is on its way.
    Bringing,
    Ready(Arc<Then>),
    Failed(Arc<LookError>),
}

/// One patient's record in one snapshot.
#[derive(Clone)]
pub struct Look {
    pub id: String,
    pub patient: String,
    pub snapshot: String,
    /// When the snapshot was taken.
    pub taken_ms: i64,
    /// Who asked for it, as colleagues see them.
    pub asked_by: String,
    pub state: State,
}

/// Where looks are asked for and held. Cheap to clone.
#[derive(Clone)]
pub struct Desk(Arc<Inner>);

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Desk")
    }
}

struct Inner {
    verifier: Option<PathBuf>,
    borrowed: PathBuf,
    looks: Mutex<Vec<Look>>,
    /// A database at a time: each takes the room of the whole practice.
    bringing: Semaphore,
}

impl Desk {
    /// Removes what an earlier run had borrowed.
    ///
    /// # Errors
    /// As the operating system.
    pub fn open(data_dir: &Path, verifier: Option<PathBuf>) -> Result<Desk, StoreError> {
        let borrowed = data_dir.join(BORROWED_DIR);
        remove(&borrowed).map_err(StoreError::io("borrowed records"))?;
        let (looks, bringing) = (Mutex::default(), Semaphore::new(1));
        Ok(Desk(Arc::new(Inner { verifier, borrowed, looks, bringing })))
    }

    /// Whether there is a verifier to ask.
    pub fn is_open(&self) -> bool {
        self.0.verifier.is_some()
    }

    fn looks(&self) -> MutexGuard<'_, Vec<Look>> {
        self.0.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn verifier(&self) -> Result<Client, LookError> {
        // Without one the pages offer no look.
        let socket = self.0.verifier.clone().ok_or(ClientError::Closed)?;
        Ok(Client::connect(&Endpoint::Unix(socket)).await?)
    }

    /// The snapshots that a look may be taken at, newest first.
    ///
    /// # Errors
    /// [`LookError::Verifier`].
    pub async fn snapshots(&self) -> Result<Vec<SnapshotRow>, LookError> {
        match self.verifier().await?.request(&Request::Snapshots, |_| ()).await? {
            Event::Snapshots { snapshots } => Ok(snapshots),
            _ => Err(ClientError::Malformed.into()),
        }
    }

    /// Begins a look; it is brought in the background.
    ///
    /// # Errors
    /// [`LookError::TooMany`], or no randomness.
    pub fn begin(
        &self,
        store: &Store,
        patient: &str,
        snapshot: &SnapshotRow,
        asked_by: &str,
    ) -> Result<String, LookError> {
        let id = clock::new_id().map_err(StoreError::io("randomness"))?;
        let look = Look {
            id: id.clone(),
            patient: patient.to_owned(),
            snapshot: snapshot.id.clone(),
            taken_ms: snapshot.taken_unix_ms,
            asked_by: asked_by.to_owned(),
            state: State::Bringing,
        };
        {
            let mut looks = self.looks();
            if looks.len() >= LOOKS_MAX {
                return Err(LookError::TooMany);
            }
            looks.push(look.clone());
        }
        let (desk, store) = (self.clone(), store.clone());
        tokio::spawn(async move {
            let brought = desk.bring(&look, &store).await;
            let state = match brought {
                Ok(then) => State::Ready(Arc::new(then)),
                Err(error) => {
                    log::warn!(reason = error.to_string().as_str(); "look-back.failed");
                    State::Failed(Arc::new(error))
                }
            };
            // One that was ended meanwhile is not there any more.
            desk.looks().iter_mut().filter(|held| held.id == look.id).for_each(|held| held.state = state.clone());
            tokio::time::sleep(LASTS).await;
            desk.end(&look.id, &look.patient);
        });
        Ok(id)
    }

    /// The look with this id, where it is about this patient.
    pub fn find(&self, id: &str, patient: &str) -> Option<Look> {
        self.looks().iter().find(|look| look.id == id && look.patient == patient).cloned()
    }

    /// The looks at one patient's record.
    pub fn of(&self, patient: &str) -> Vec<Look> {
        self.looks().iter().filter(|look| look.patient == patient).cloned().collect()
    }

    /// Forgets a look. Whether it was there.
    pub fn end(&self, id: &str, patient: &str) -> bool {
        let mut looks = self.looks();
        let before = looks.len();
        looks.retain(|look| look.id != id || look.patient != patient);
        looks.len() < before
    }

    async fn bring(&self, look: &Look, store: &Store) -> Result<Then, LookError> {
        let _turn = self.0.bringing.acquire().await.map_err(|_| StoreError::Closed)?;
        let folder = Borrowed::make(&self.0.borrowed)?;
        let database = folder.0.join(DATABASE_FILE);
        let mut verifier = self.verifier().await?;
        borrow(&mut verifier, look, Lent::Records, &database).await?;
        let patient = look.patient.clone();
        let read = move || then::read(&database, &patient);
        let mut then = tokio::task::spawn_blocking(read).await.unwrap_or(Err(StoreError::Closed.into()))?;
        let attachments = store.attachments();
        let mut bytes_left = FILES_BYTES_MAX;
        for file in &mut then.files {
            file.today = today(store, &file.row).await?;
            let Some(name) = file.row.file_name().filter(|_| !file.is_whole_today()) else { continue };
            let target = folder.0.join("attachment");
            match borrow(&mut verifier, look, Lent::Attachment { name }, &target).await {
                Ok(()) => {}
                // The snapshot did not have it whole either: the others are looked at all the same.
                Err(LookError::Verifier(ClientError::Failed(_))) => {
                    remove_file(&target).map_err(StoreError::io("borrowed file"))?;
                    continue;
                }
                Err(error) => return Err(error),
            }
            let lent = std::fs::read(&target).map_err(StoreError::io("borrowed file"))?;
            remove_file(&target).map_err(StoreError::io("borrowed file"))?;
            bytes_left = bytes_left.checked_sub(lent.len()).ok_or(LookError::TooLarge)?;
            file.lent = attachments.opened(&file.row, lent).ok();
        }
        Ok(then)
    }
}

/// The row that keeps the bytes of `then` today, where they can be read.
async fn today(store: &Store, then: &AttachmentRow) -> Result<Option<AttachmentRow>, StoreError> {
    let (id, digest, attachments) = (then.id.clone(), then.digest, store.attachments().clone());
    let find = move |db: &crate::db::Connection| {
        let row = AttachmentRow::load(db, &id)?.filter(|row| row.digest == digest);
        Ok(row.filter(|row| attachments.read(row).is_ok()))
    };
    store.internal(find).await
}

fn remove_file(file: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes a lent file to `target`.
async fn borrow(verifier: &mut Client, look: &Look, file: Lent, target: &Path) -> Result<(), LookError> {
    let mut out = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(target)
        .map_err(StoreError::io("borrowed file"))?;
    let mut failed = None;
    let request = Request::Lend { snapshot: look.snapshot.clone(), file };
    let told = verifier
        .borrow(&request, |piece| {
            let Ok(bytes) = STANDARD.decode(piece) else { return false };
            failed = out.write_all(&bytes).err();
            failed.is_none()
        })
        .await;
    match (told, failed) {
        (_, Some(error)) => Err(StoreError::io("borrowed file")(error).into()),
        (told, None) => Ok(told?),
    }
}

/// A folder for borrowed files, for this user alone; gone when dropped.
struct Borrowed(PathBuf);

impl Borrowed {
    fn make(folder: &Path) -> Result<Borrowed, StoreError> {
        remove(folder).map_err(StoreError::io("borrowed records"))?;
        std::fs::DirBuilder::new().mode(0o700).create(folder).map_err(StoreError::io("borrowed records"))?;
        Ok(Borrowed(folder.to_owned()))
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            log::error!(kind = error.kind().to_string().as_str(); "look-back.not-removed");
        }
    }
}

fn remove(folder: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A desk for tests of the pages, which know no verifier.
#[cfg(test)]
impl Desk {
    pub fn holding(data_dir: &Path, look: Look) -> Desk {
        let desk = Desk::open(data_dir, Some(data_dir.join("no-verifier.sock"))).unwrap();
        desk.looks().push(look);
        desk
    }
}
