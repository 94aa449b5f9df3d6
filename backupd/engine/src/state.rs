//! Local state that can be rebuilt: what index objects said, what the source looked like, where a chain stands.
//!
//! Small records lie in sled; long ones are immutable files that are read front to back or by block (`run.rs`,
//! `remembered.rs`), each with its own checksums, written beside and renamed. Nothing here is synced but the chain's
//! record: deleting it at any moment loses nothing. The index is then read from the stores, the sources are read again,
//! and the writer begins a new chain.

use crate::error::{Error, ErrorKind, Result};
use crate::memory_state::{MemoryState, Taken};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The records and files.
pub(crate) struct State {
    backing: Backing,
    _lock: Lock,
}

/// Held while the state is open, so that two backups never share one chain.
enum Lock {
    Alone,
    File(#[expect(dead_code, reason = "closing it is what counts")] File),
    Memory(#[expect(dead_code, reason = "dropping it is what counts")] Taken),
}

enum Backing {
    Memory(MemoryState),
    Folder { dir: PathBuf, opened_unix_ms: i64, opening: Mutex<Option<Opening>>, database: OnceLock<Opened> },
}

type Opening = JoinHandle<Opened>;
/// The small records, or why there are none.
type Opened = std::result::Result<sled::Db, Unopened>;

/// Asked of sled; it uses up to four times as much.
const CACHE_BYTES: u64 = 1 << 20;
const CHECK_BYTES: usize = 16;
const NOTE_HASH_BYTES: usize = 32;
const DATABASE: &str = "records";
const FILES: &str = "files";
/// sled lets go of its lock somewhat after it was dropped. Whoever opens it next waits so often, so long.
const LOCK_TRIES: u32 = 500;
const LOCK_PAUSE: Duration = Duration::from_millis(10);
/// Ends the name of a file that is not finished.
const UNFINISHED: &str = ".part";

impl State {
    /// State for one run only.
    pub(crate) fn memory() -> Self {
        Self { backing: Backing::Memory(MemoryState::default()), _lock: Lock::Alone }
    }

    /// State of a simulated machine.
    pub(crate) fn simulated(memory: MemoryState) -> Result<Self> {
        let taken = memory.take().ok_or_else(in_use)?;
        Ok(Self { backing: Backing::Memory(memory), _lock: Lock::Memory(taken) })
    }

    /// Opens the state below `dir`; what does not open is moved aside and begun anew. What an ended run left unfinished
    /// is removed.
    pub(crate) fn open(dir: &Path, now_unix_ms: i64) -> Result<Self> {
        let failed = |error: io::Error| Error::io("the state directory", &error);
        let files = dir.join(FILES);
        std::fs::create_dir_all(&files).map_err(failed)?;
        let lock = File::create(dir.join("lock")).map_err(failed)?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return Err(in_use());
        }
        for entry in std::fs::read_dir(&files).map_err(failed)?.flatten() {
            if entry.file_name().to_string_lossy().ends_with(UNFINISHED) {
                std::fs::remove_file(entry.path()).map_err(failed)?;
            }
        }
        let (opening, database, opened_unix_ms) = (Mutex::default(), OnceLock::new(), now_unix_ms);
        let backing = Backing::Folder { dir: dir.to_owned(), opened_unix_ms, opening, database };
        Ok(Self { backing, _lock: Lock::File(lock) })
    }

    /// The small records will be wanted. sled writes and syncs while it opens, so it does that beside the walk; who only
    /// reads notes spares it.
    pub(crate) fn prepare(&self) {
        if let Backing::Folder { dir, opened_unix_ms, opening, .. } = &self.backing {
            let (dir, now_unix_ms) = (dir.clone(), *opened_unix_ms);
            let begun = std::thread::spawn(move || open_or_begin(&dir, now_unix_ms));
            *opening.lock().unwrap_or_else(PoisonError::into_inner) = Some(begun);
        }
    }

    /// A record, if it is there and whole.
    pub(crate) fn load(&self, key: &[u8]) -> Option<Vec<u8>> {
        let stored = match &self.backing {
            Backing::Memory(memory) => memory.load(key),
            Backing::Folder { .. } => self.database()?.get(key).ok().flatten().map(|value| value.to_vec()),
        }?;
        let (value, check) = stored.split_last_chunk::<CHECK_BYTES>()?;
        (check == &checksum(value)).then(|| value.to_vec())
    }

    /// Keeps a record; `durably`: it survives a power cut once this returns.
    pub(crate) fn store(&self, key: &[u8], value: &[u8], durably: bool) -> Result<()> {
        let stored = [value, &checksum(value)].concat();
        let failed = |error: &io::Error| Error::io("the state directory", error);
        if let Backing::Memory(memory) = &self.backing {
            return memory.store(key, stored, durably).map_err(|error| failed(&error));
        }
        let database = self.database();
        let database = database.ok_or_else(|| Error::new(ErrorKind::Retry, "the state directory cannot be used"))?;
        let kept = database.insert(key, stored).and_then(|_| if durably { database.flush() } else { Ok(0) });
        kept.map(|_| ()).map_err(|error| match error {
            sled::Error::Io(error) => failed(&error),
            other => Error::new(ErrorKind::Retry, format!("the state directory: {other}")),
        })
    }

    fn opened(&self) -> Option<&Opened> {
        let Backing::Folder { dir, opened_unix_ms, opening, database } = &self.backing else { return None };
        let opened = database.get_or_init(|| {
            let opening = opening.lock().unwrap_or_else(PoisonError::into_inner).take();
            match opening {
                Some(opening) => opening.join().unwrap_or(Err(Unopened::Unusable)),
                None => open_or_begin(dir, *opened_unix_ms),
            }
        });
        Some(opened)
    }

    fn database(&self) -> Option<&sled::Db> {
        self.opened()?.as_ref().ok()
    }

    /// Refuses a state whose records another one still has locked: what stands in them is not known, and is not lost.
    pub(crate) fn require_unlocked(&self) -> Result<()> {
        if matches!(self.opened(), Some(Err(Unopened::Locked))) { Err(in_use()) } else { Ok(()) }
    }

    /// Names of all finished files.
    pub(crate) fn file_names(&self) -> Vec<String> {
        match &self.backing {
            Backing::Memory(memory) => memory.file_names(),
            Backing::Folder { dir, .. } => {
                let listed = std::fs::read_dir(dir.join(FILES)).into_iter().flatten().flatten();
                let mut names: Vec<String> = listed
                    .filter_map(|entry| entry.file_name().into_string().ok())
                    .filter(|name| !name.ends_with(UNFINISHED))
                    .collect();
                names.sort();
                names
            }
        }
    }

    pub(crate) fn open_file(&self, name: &str) -> io::Result<StateFile> {
        match &self.backing {
            Backing::Memory(memory) => memory.file(name).map(StateFile::Memory),
            Backing::Folder { dir, .. } => Ok(StateFile::Disk(File::open(dir.join(FILES).join(name))?)),
        }
    }

    /// Begins a file; it is there under its name, in place of an older one, when it is finished.
    pub(crate) fn create_file(&self, name: &str) -> io::Result<StateWriter> {
        match &self.backing {
            Backing::Memory(memory) => {
                Ok(StateWriter::Memory { bytes: Vec::new(), name: name.to_owned(), memory: memory.clone() })
            }
            Backing::Folder { dir, .. } => {
                let path = dir.join(FILES).join(name);
                let unfinished = dir.join(FILES).join(format!("{name}{UNFINISHED}"));
                let file = BufWriter::with_capacity(256 << 10, File::create(&unfinished)?);
                Ok(StateWriter::Disk { file, unfinished, path, done: false })
            }
        }
    }

    /// What was kept under a name with its hash behind it; `None`: nothing, or it is damaged.
    pub(crate) fn noted(&self, name: &str) -> Option<Vec<u8>> {
        let file = self.open_file(name).ok()?;
        let mut bytes = file.read_at(0, usize::try_from(file.len().ok()?).ok()?).ok()?;
        let (content, hash) = bytes.split_last_chunk::<NOTE_HASH_BYTES>()?;
        let whole = blake3::hash(content).as_bytes() == hash;
        bytes.truncate(bytes.len() - NOTE_HASH_BYTES);
        whole.then_some(bytes)
    }

    /// Keeps it. A state that cannot be written is no reason to stop a snapshot: it is logged, and the caller may go on.
    pub(crate) fn note(&self, name: &str, content: &[u8]) -> io::Result<()> {
        let kept = self.create_file(name).and_then(|mut file| {
            file.write(content)?;
            file.write(blake3::hash(content).as_bytes())?;
            file.finish()
        });
        kept.inspect_err(|error| log::warn!(error:% = error; "state.write-failed"))
    }

    pub(crate) fn remove_file(&self, name: &str) {
        match &self.backing {
            Backing::Memory(memory) => memory.remove_file(name),
            Backing::Folder { dir, .. } => {
                if let Err(error) = std::fs::remove_file(dir.join(FILES).join(name)) {
                    log::warn!(error:% = error; "state.remove-failed");
                }
            }
        }
    }
}

/// A finished file of the state.
pub(crate) enum StateFile {
    Disk(File),
    Memory(Arc<Vec<u8>>),
}

impl StateFile {
    pub(crate) fn len(&self) -> io::Result<u64> {
        match self {
            Self::Disk(file) => Ok(file.metadata()?.len()),
            Self::Memory(bytes) => Ok(bytes.len() as u64),
        }
    }

    /// Exactly `len` bytes.
    pub(crate) fn read_at(&self, at: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::Disk(file) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, at)?;
                Ok(bytes)
            }
            Self::Memory(bytes) => {
                let at = usize::try_from(at).map_err(|_| io::ErrorKind::UnexpectedEof)?;
                let end = at.checked_add(len).ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(bytes.get(at..end).ok_or(io::ErrorKind::UnexpectedEof)?.to_vec())
            }
        }
    }
}

/// A file of the state that is being written. Dropped unfinished, it leaves nothing.
pub(crate) enum StateWriter {
    Disk { file: BufWriter<File>, unfinished: PathBuf, path: PathBuf, done: bool },
    Memory { bytes: Vec<u8>, name: String, memory: MemoryState },
}

impl StateWriter {
    pub(crate) fn write(&mut self, part: &[u8]) -> io::Result<()> {
        match self {
            Self::Disk { file, .. } => file.write_all(part),
            Self::Memory { bytes, .. } => {
                bytes.extend_from_slice(part);
                Ok(())
            }
        }
    }

    /// Not synced: the file carries checksums and can be rebuilt.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match &mut self {
            Self::Disk { file, unfinished, path, done } => {
                file.flush()?;
                std::fs::rename(unfinished, path)?;
                *done = true;
            }
            Self::Memory { bytes, name, memory } => memory.put_file(std::mem::take(name), std::mem::take(bytes))?,
        }
        Ok(())
    }
}

impl Drop for StateWriter {
    fn drop(&mut self) {
        if let Self::Disk { unfinished, done: false, .. } = self {
            // Nothing more can be done about it here; the next opening removes it.
            let _ = std::fs::remove_file(unfinished);
        }
    }
}

fn in_use() -> Error {
    Error::new(ErrorKind::Fenced, "another backup is using this state directory: wait for it")
}

fn checksum(value: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    blake3::Hasher::new().update(value).finalize_xof().fill(&mut check);
    check
}

impl Drop for State {
    /// The lock must not be let go while sled is still being opened.
    fn drop(&mut self) {
        if let Backing::Folder { opening, .. } = &self.backing
            && let Some(opening) = opening.lock().unwrap_or_else(PoisonError::into_inner).take()
        {
            let _ = opening.join();
        }
    }
}

/// Why sled did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unopened {
    /// Its last user has not let go of it.
    Locked,
    /// The disk is full, or what was damaged cannot be moved aside.
    Unusable,
    Damaged,
}

/// What is damaged is moved aside, and begun anew.
fn open_or_begin(dir: &Path, now_unix_ms: i64) -> Opened {
    let place = dir.join(DATABASE);
    for _ in 0..LOCK_TRIES {
        match open_sled(&place) {
            Err(Unopened::Locked) => std::thread::park_timeout(LOCK_PAUSE),
            Err(Unopened::Damaged) => {
                log::warn!("state.rebuilt");
                let aside = dir.join(format!("{DATABASE}.damaged-{now_unix_ms}"));
                std::fs::rename(&place, aside).map_err(|_| Unopened::Unusable)?;
                return open_sled(&place);
            }
            opened => return opened,
        }
    }
    log::warn!("state.locked");
    Err(Unopened::Locked)
}

/// What sled says of a file that another one has locked.
const LOCKED: &str = "could not acquire lock";

impl From<sled::Error> for Unopened {
    fn from(error: sled::Error) -> Self {
        let is_full = matches!(&error, sled::Error::Io(error) if error.kind() == io::ErrorKind::StorageFull);
        if error.to_string().contains(LOCKED) {
            return Self::Locked;
        }
        log::warn!(reason:% = error; "state.not-opened");
        if is_full { Self::Unusable } else { Self::Damaged }
    }
}

/// sled may panic on what it finds; that counts as damage.
fn open_sled(place: &Path) -> Opened {
    let place = place.to_owned();
    let opened = std::panic::catch_unwind(move || {
        let config = sled::Config::new().path(place).cache_capacity(CACHE_BYTES).flush_every_ms(None);
        let database = config.open()?;
        // Touching it finds damage that opening alone does not.
        database.get(b"probe")?;
        Ok(database)
    });
    opened.unwrap_or(Err(Unopened::Damaged))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moved_aside(dir: &Path) -> usize {
        let names = std::fs::read_dir(dir).unwrap().flatten().map(|entry| entry.file_name());
        names.filter(|name| name.to_string_lossy().contains("damaged")).count()
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "its last user lets go of it a while later")]
    fn records_that_are_still_locked_are_waited_for_and_not_damaged() {
        let dir = tempfile::tempdir().unwrap();
        State::open(dir.path(), 0).unwrap().store(b"chain", b"7", true).unwrap();
        let held = std::fs::File::open(dir.path().join(DATABASE).join("db")).unwrap();
        for prepared in [false, true] {
            rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
            let state = State::open(dir.path(), 0).unwrap();
            if prepared {
                state.prepare();
            }
            let held = held.try_clone().unwrap();
            let letting_go = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(150));
                rustix::fs::flock(&held, FlockOperation::Unlock).unwrap();
            });
            assert_eq!(state.load(b"chain").as_deref(), Some(b"7".as_slice()));
            letting_go.join().unwrap();
        }
        assert_eq!(moved_aside(dir.path()), 0);
    }

    #[test]
    fn records_that_stay_locked_are_in_use_and_not_empty() {
        let dir = tempfile::tempdir().unwrap();
        State::open(dir.path(), 0).unwrap().store(b"chain", b"7", true).unwrap();
        let held = std::fs::File::open(dir.path().join(DATABASE).join("db")).unwrap();
        rustix::fs::flock(&held, FlockOperation::LockExclusive).unwrap();
        let state = State::open(dir.path(), 0).unwrap();
        assert_eq!(state.require_unlocked().unwrap_err().kind(), ErrorKind::Fenced);
        drop((state, held));
        let state = State::open(dir.path(), 0).unwrap();
        state.require_unlocked().unwrap();
        assert_eq!(state.load(b"chain").as_deref(), Some(b"7".as_slice()));
        assert_eq!(moved_aside(dir.path()), 0);
    }

    #[test]
    fn who_only_reads_notes_opens_no_records() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), 0).unwrap();
        state.note("notes", b"something").unwrap();
        assert_eq!(state.noted("notes").as_deref(), Some(b"something".as_slice()));
        drop(state);
        assert!(!dir.path().join(DATABASE).exists());
    }
}
