//! The transparency log in a folder: immutable entries, one signed checkpoint for each size.
//!
//! ```text
//! entries/000000000000-<leaf hash>.json    the exact bytes of entry 0; its name says what it must hash to
//! entries/000000000001-<leaf hash>.json
//! checkpoint-000000000001                  the signed head after entry 0
//! checkpoint-000000000002
//! lock                                     held while a process has the log open
//! ```
//!
//! **Life of an entry.** Bytes to a temporary file, fsync, rename, fsync of the folder; then the checkpoint in the same
//! way; only then is the entry acknowledged. A crash leaves a temporary file (removed), a torn entry without checkpoint
//! (removed: it was never acknowledged), or a whole entry without checkpoint (its checkpoint is signed at the next
//! open). An entry that a checkpoint covers is never removed: if it is gone or changed, opening fails and says so.
//!
//! Nothing is ever rewritten but bytes that are no longer what their name says, and Ed25519 is deterministic, so one size
//! has one checkpoint, and every object can be copied to a store under its name once.

use crate::entry::{Entry, EntryError};
use crate::key::ReportSigner;
use crate::merkle::{Hash, consistency_path, inclusion_path, leaf_hash, root_of};
use crate::note::{Checkpoint, NoteError, Origin};
use crate::proof::Proof;
use crate::salvage::salvage;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Prefix of every object name in a store.
const OBJECT_PREFIX: &str = "log/";
const ENTRIES: &str = "entries";
const TEMPORARY: &str = ".tmp-";
const LOCK: &str = "lock";

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The disk refused.
    #[error("the log's folder: {0}")]
    Io(#[from] io::Error),
    /// Another process has it open.
    #[error("the log is open in another process")]
    Busy,
    /// An acknowledged entry or a checkpoint is gone or changed.
    #[error("the log is damaged at entry {index}: {what}; rebuild it from a store's log/ objects into an empty folder")]
    Damaged {
        /// Where.
        index: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A checkpoint is not this log's.
    #[error(transparent)]
    Checkpoint(#[from] NoteError),
    /// The bytes may not stand in the log.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// No such entry or size.
    #[error("the log has no entry {0}")]
    NoSuchEntry(u64),
    /// A write failed half-way.
    #[error("an earlier write to the log failed: open it again")]
    Reopen,
    /// Rebuilding needs an empty folder.
    #[error("the folder is not empty: a log is rebuilt into an empty one only")]
    NotEmpty,
}

/// An open log. One process at a time; the folder's lock sees to it.
pub struct Log {
    dir: PathBuf,
    origin: Origin,
    leaves: Vec<Hash>,
    /// The newest checkpoint; `None` while the log is empty.
    checkpoint: Option<Vec<u8>>,
    failed: bool,
    lock: File,
}

impl Log {
    /// Opens the log, or begins one in a folder that is empty or absent, and repairs what a crash left. The names of
    /// all entries are checked against the newest checkpoint; bytes are re-hashed when they are read.
    pub fn open(dir: &Path, origin: Origin, signer: &ReportSigner) -> Result<Self, LogError> {
        make_folders(dir)?;
        let lock = lock(dir)?;
        remove_temporaries(dir)?;
        remove_temporaries(&dir.join(ENTRIES))?;
        let leaves = read_leaves(dir)?;
        let mut log = Self { dir: dir.to_owned(), origin, leaves, checkpoint: None, failed: false, lock };
        let covered = log.read_checkpoint(signer)?;
        log.check_tail(covered)?;
        if log.size() > covered {
            log.write_checkpoint(signer)?;
        }
        Ok(log)
    }

    /// Adds an entry (the exact bytes of a report, approval or corrective action, which are checked) and gives its
    /// index. Durable, with a signed checkpoint, when this returns. Bytes that are already in the log keep their index.
    pub fn append(&mut self, signer: &ReportSigner, bytes: &[u8]) -> Result<u64, LogError> {
        if self.failed {
            return Err(LogError::Reopen);
        }
        Entry::parse(bytes)?;
        let leaf = leaf_hash(bytes);
        if let Some(index) = self.index_of(&leaf) {
            return Ok(index);
        }
        let index = self.size();
        self.failed = true;
        write_once(&self.dir.join(ENTRIES), &entry_file(index, &leaf), bytes)?;
        self.leaves.push(leaf);
        self.write_checkpoint(signer)?;
        self.failed = false;
        Ok(index)
    }

    /// Whether the folder is still the one that was opened: somebody may have removed it, or put another in its place.
    pub fn is_there(&self) -> bool {
        let (held, found) = (self.lock.metadata(), fs::metadata(self.dir.join(LOCK)));
        let same = |held: &fs::Metadata, found: &fs::Metadata| (held.dev(), held.ino()) == (found.dev(), found.ino());
        matches!((held, found), (Ok(held), Ok(found)) if same(&held, &found)) && self.dir.join(ENTRIES).is_dir()
    }

    /// Number of entries.
    pub fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    /// Which log this is.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The leaf hashes in order.
    pub fn leaves(&self) -> &[Hash] {
        &self.leaves
    }

    /// The newest signed checkpoint; `None` while the log is empty.
    pub fn checkpoint(&self) -> Option<&[u8]> {
        self.checkpoint.as_deref()
    }

    /// Where exactly these bytes stand.
    pub fn find(&self, bytes: &[u8]) -> Option<u64> {
        self.index_of(&leaf_hash(bytes))
    }

    /// An entry's bytes, re-hashed.
    pub fn entry(&self, index: u64) -> Result<Vec<u8>, LogError> {
        let leaf = usize::try_from(index).ok().and_then(|i| self.leaves.get(i)).ok_or(LogError::NoSuchEntry(index))?;
        let bytes = fs::read(self.dir.join(ENTRIES).join(entry_file(index, leaf)))?;
        match leaf_hash(&bytes) == *leaf {
            true => Ok(bytes),
            false => Err(LogError::Damaged { index, what: "its bytes have changed" }),
        }
    }

    /// All entries in order with their bytes, re-hashed and checked.
    pub fn entries(&self) -> impl DoubleEndedIterator<Item = Result<(u64, Entry, Vec<u8>), LogError>> + '_ {
        (0..self.size()).map(|index| {
            let bytes = self.entry(index)?;
            Ok((index, Entry::parse(&bytes)?, bytes))
        })
    }

    /// The proof that an entry is in the log as the newest checkpoint shows it.
    pub fn inclusion_proof(&self, index: u64) -> Result<Proof, LogError> {
        let path = usize::try_from(index).ok().and_then(|i| inclusion_path(&self.leaves, i));
        match (path, &self.checkpoint) {
            (Some(path), Some(checkpoint)) => Ok(Proof { index, path, checkpoint: checkpoint.clone() }),
            _ => Err(LogError::NoSuchEntry(index)),
        }
    }

    /// The proof that the log of the first `old_size` entries is the beginning of this one.
    pub fn consistency_proof(&self, old_size: u64) -> Result<Vec<Hash>, LogError> {
        let path = usize::try_from(old_size).ok().and_then(|n| consistency_path(&self.leaves, n));
        path.ok_or(LogError::NoSuchEntry(old_size))
    }

    /// The objects that a store lacks, to be put in this order, each once under its name: entries first, then the
    /// newest checkpoint. `holds` says whether the store has an object of a name.
    pub fn objects_missing(&self, holds: impl Fn(&str) -> bool) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        let mut objects = Vec::new();
        for (index, leaf) in (0..).zip(&self.leaves) {
            let name = entry_object(index, leaf);
            if !holds(&name) {
                let bytes = if self.is_lost(index) { Vec::new() } else { self.entry(index)? };
                objects.push((name, bytes));
            }
        }
        if let Some(checkpoint) = &self.checkpoint {
            let name = format!("{OBJECT_PREFIX}{}", checkpoint_file(self.size()));
            if !holds(&name) {
                objects.push((name, checkpoint.clone()));
            }
        }
        Ok(objects)
    }

    /// Whether a store has all entries up to some one and none after it, as one has that did not answer for a time. One that has
    /// lost entries between others, or all of them, is not behind.
    pub fn is_ahead_of(&self, holds: impl Fn(&str) -> bool) -> bool {
        let held = (0..).zip(&self.leaves).map(|(index, leaf)| holds(&entry_object(index, leaf)));
        let mut held = held.skip_while(|held| *held).peekable();
        let begins = self.leaves.first().is_some_and(|leaf| holds(&entry_object(0, leaf)));
        begins && held.peek().is_some() && held.all(|held| !held)
    }

    /// The objects that came after the first `old_size` entries; see [`Log::objects_missing`].
    pub fn objects_since(&self, old_size: u64) -> Result<Vec<(String, Vec<u8>)>, LogError> {
        self.objects_missing(|name| match Object::of_name(name) {
            Some(Object::Entry(index, _)) => index < old_size,
            Some(Object::Checkpoint(size)) => size <= old_size,
            None => false,
        })
    }

    /// Writes a log from a store's objects into an empty folder and opens it. The objects are checked as
    /// [`crate::View::of_objects`] does.
    pub fn rebuild(
        dir: &Path,
        origin: Origin,
        signer: &ReportSigner,
        objects: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, LogError> {
        if dir.exists() && fs::read_dir(dir)?.next().is_some() {
            return Err(LogError::NotEmpty);
        }
        let view = crate::View::of_objects(objects, &signer.public_key(), &origin)?;
        make_folders(dir)?;
        for (index, (leaf, bytes)) in (0..).zip(view.leaves().iter().zip(view.entries())) {
            write_once(&dir.join(ENTRIES), &entry_file(index, leaf), bytes)?;
        }
        for (size, note) in view.checkpoints() {
            write_once(dir, &checkpoint_file(size), note)?;
        }
        Self::open(dir, origin, signer)
    }

    /// Writes what the objects of all stores together still prove into an empty folder and opens it; for when no store
    /// shows its log whole. An entry whose bytes are damaged everywhere keeps its place, without content.
    pub fn salvage(
        dir: &Path,
        origin: Origin,
        signer: &ReportSigner,
        objects: impl IntoIterator<Item = (String, Vec<u8>)>,
    ) -> Result<Self, LogError> {
        if dir.exists() && fs::read_dir(dir)?.next().is_some() {
            return Err(LogError::NotEmpty);
        }
        let found = salvage(objects, &signer.public_key(), &origin)?;
        make_folders(dir)?;
        for (index, (leaf, bytes)) in (0..).zip(&found.entries) {
            write_once(&dir.join(ENTRIES), &entry_file(index, leaf), bytes)?;
        }
        if let Some((size, note)) = &found.checkpoint {
            write_once(dir, &checkpoint_file(*size), note)?;
        }
        Self::open(dir, origin, signer)
    }

    /// Whether a store's object of this name tells of entries that this log does not have: somebody else may have added
    /// them, or the folder was set back. Nothing vouches for a name.
    pub fn is_behind(&self, name: &str) -> bool {
        match Object::of_name(name) {
            Some(Object::Entry(index, _)) => index >= self.size(),
            Some(Object::Checkpoint(size)) => size > self.size(),
            None => false,
        }
    }

    /// Whether a store's object of this name is said to hold an entry that stands nowhere in this log, and these are its bytes.
    pub fn lacks(&self, name: &str, bytes: &[u8]) -> bool {
        self.is_foreign(name)
            && matches!(Object::of_name(name), Some(Object::Entry(_, leaf)) if leaf_hash(bytes) == leaf)
    }

    /// Whether a store's object of this name is said to hold an entry that stands nowhere in this log.
    pub fn is_foreign(&self, name: &str) -> bool {
        matches!(Object::of_name(name), Some(Object::Entry(_, leaf)) if !self.leaves.contains(&leaf))
    }

    /// The names of those objects that show another history than this log, signed with the same key.
    pub fn other_histories<'a>(&self, objects: &'a [(String, Vec<u8>)], signer: &ReportSigner) -> Vec<&'a str> {
        let other = |(name, bytes): &&(String, Vec<u8>)| {
            let Some(Object::Checkpoint(size)) = Object::of_name(name) else { return false };
            let Ok(seen) = Checkpoint::verify_of(bytes, &signer.public_key(), &self.origin) else { return false };
            let own = usize::try_from(size).ok().and_then(|size| self.head(size));
            seen.size == size && own.is_some_and(|own| own != seen)
        };
        objects.iter().filter(other).map(|(name, _)| name.as_str()).collect()
    }

    /// The bytes of a checkpoint of this log, by the name of its object: there is one for each size.
    pub fn checkpoint_object(&self, name: &str, signer: &ReportSigner) -> Option<Vec<u8>> {
        match Object::of_name(name)? {
            Object::Checkpoint(size) if size > 0 => Some(self.head(usize::try_from(size).ok()?)?.sign(signer)),
            _ => None,
        }
    }

    /// The entries whose bytes in the folder are not, or no longer, what their name says.
    pub fn unreadable(&self) -> Vec<u64> {
        (0..self.size()).filter(|index| self.entry(*index).is_err()).collect()
    }

    /// Puts right in the folder what is not whole there and whole among the objects of stores.
    pub fn mend(&self, objects: &[(String, Vec<u8>)]) -> Result<(), LogError> {
        let unreadable = self.unreadable();
        for (name, bytes) in objects {
            let Some(Object::Entry(index, leaf)) = Object::of_name(name) else { continue };
            let own = usize::try_from(index).ok().and_then(|i| self.leaves.get(i)) == Some(&leaf);
            if own && unreadable.contains(&index) && leaf_hash(bytes) == leaf {
                write(&self.dir.join(ENTRIES), &entry_file(index, &leaf), bytes)?;
            }
        }
        Ok(())
    }

    /// The entries whose content is lost: their place in the history is proved all the same.
    pub fn lost(&self) -> Vec<u64> {
        (0..self.size()).filter(|index| self.is_lost(*index)).collect()
    }

    fn is_lost(&self, index: u64) -> bool {
        let leaf = usize::try_from(index).ok().and_then(|i| self.leaves.get(i));
        let file = leaf.map(|leaf| self.dir.join(ENTRIES).join(entry_file(index, leaf)));
        file.and_then(|file| fs::metadata(file).ok()).is_some_and(|found| found.len() == 0)
    }

    fn index_of(&self, leaf: &Hash) -> Option<u64> {
        self.leaves.iter().position(|l| l == leaf).map(|i| i as u64)
    }

    pub(crate) fn head(&self, size: usize) -> Option<Checkpoint> {
        let leaves = self.leaves.get(..size)?;
        Some(Checkpoint { origin: self.origin.clone(), size: size as u64, root: root_of(leaves) })
    }

    /// Takes the newest checkpoint, removing a torn one, and gives the size that it covers.
    fn read_checkpoint(&mut self, signer: &ReportSigner) -> Result<u64, LogError> {
        let mut sizes = Vec::new();
        for file in fs::read_dir(&self.dir)? {
            let name = file?.file_name();
            if let Some(size) = name.to_str().and_then(checkpoint_size) {
                sizes.push(size);
            }
        }
        sizes.sort_unstable();
        while let Some(size) = sizes.pop() {
            let damaged = |what| LogError::Damaged { index: size.saturating_sub(1), what };
            let head = usize::try_from(size).ok().and_then(|n| self.head(n));
            let file = self.dir.join(checkpoint_file(size));
            let note = fs::read(&file)?;
            let expected = head.as_ref().map(|h| h.sign(signer)).unwrap_or_default();
            if note != expected && expected.starts_with(&note) && size == self.size() {
                fs::remove_file(&file)?;
                sync_dir(&self.dir)?;
                continue;
            }
            let found = Checkpoint::verify_of(&note, &signer.public_key(), &self.origin)?;
            if head.is_none() {
                return Err(damaged("a signed checkpoint covers it, but it is gone"));
            }
            if head.is_none_or(|h| h != found) {
                return Err(damaged("the signed checkpoint has another root than the entries"));
            }
            self.checkpoint = Some(note);
            return Ok(size);
        }
        Ok(0)
    }

    /// Re-hashes the last covered entry and what stands behind it; removes a torn last entry that no checkpoint covers.
    fn check_tail(&mut self, covered: u64) -> Result<(), LogError> {
        for index in covered.saturating_sub(1)..self.size() {
            match self.entry(index) {
                Ok(_) => {}
                Err(LogError::Damaged { .. }) if index < covered && self.is_lost(index) => {}
                Err(LogError::Damaged { .. }) if index >= covered && index + 1 == self.size() => {
                    if let Some(leaf) = self.leaves.pop() {
                        fs::remove_file(self.dir.join(ENTRIES).join(entry_file(index, &leaf)))?;
                        sync_dir(&self.dir.join(ENTRIES))?;
                    }
                }
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    fn write_checkpoint(&mut self, signer: &ReportSigner) -> Result<(), LogError> {
        if let Some(head) = self.head(self.leaves.len()) {
            let note = head.sign(signer);
            write_once(&self.dir, &checkpoint_file(head.size), &note)?;
            self.checkpoint = Some(note);
        }
        Ok(())
    }
}

/// What an object of the log in a store is, by its name.
pub(crate) enum Object {
    Entry(u64, Hash),
    Checkpoint(u64),
}

impl Object {
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let name = name.strip_prefix(OBJECT_PREFIX)?;
        if let Some(size) = checkpoint_size(name) {
            return Some(Self::Checkpoint(size));
        }
        let (index, leaf) = entry_of_file(name.strip_prefix(ENTRIES)?.strip_prefix('/')?)?;
        Some(Self::Entry(index, leaf))
    }
}

fn entry_object(index: u64, leaf: &Hash) -> String {
    format!("{OBJECT_PREFIX}{ENTRIES}/{}", entry_file(index, leaf))
}

/// Twelve digits: names sort as the entries stand.
fn entry_file(index: u64, leaf: &Hash) -> String {
    format!("{index:012}-{}.json", hex::encode(leaf))
}

fn entry_of_file(name: &str) -> Option<(u64, Hash)> {
    let (index, leaf) = name.strip_suffix(".json")?.split_once('-')?;
    let mut hash = [0; 32];
    hex::decode_to_slice(leaf, &mut hash).ok()?;
    let index = index.parse().ok()?;
    (entry_file(index, &hash) == name).then_some((index, hash))
}

fn checkpoint_file(size: u64) -> String {
    format!("checkpoint-{size:012}")
}

fn checkpoint_size(name: &str) -> Option<u64> {
    let size = name.strip_prefix("checkpoint-")?.parse().ok()?;
    (checkpoint_file(size) == name).then_some(size)
}

/// A folder that a crash takes away would take its entries with it: its own name is made durable too.
fn make_folders(dir: &Path) -> io::Result<()> {
    if !dir.join(ENTRIES).is_dir() {
        fs::create_dir_all(dir.join(ENTRIES))?;
        sync_dir(dir)?;
        if let Some(parent) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
            sync_dir(parent)?;
        }
    }
    Ok(())
}

/// So often a held lock is tried again, and so long after each time.
const LOCK_TRIES: u32 = 200;
const LOCK_WAIT: Duration = Duration::from_millis(5);

/// A program that this process starts holds what this process held until it is loaded, even when that was closed meanwhile: a
/// lock that is let go of in a moment is no other writer's.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel has no lock with a time limit, and its holder is no part of a simulation"
)]
fn lock(dir: &Path) -> Result<File, LogError> {
    let lock = File::options().create(true).truncate(false).write(true).open(dir.join(LOCK))?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(fs::TryLockError::WouldBlock) => thread::sleep(LOCK_WAIT),
            Err(fs::TryLockError::Error(e)) => return Err(e.into()),
        }
    }
    Err(LogError::Busy)
}

/// The leaf hashes by the entries' names, which must count up from zero without gap or double.
fn read_leaves(dir: &Path) -> Result<Vec<Hash>, LogError> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir.join(ENTRIES))? {
        if let Some(entry) = file?.file_name().to_str().and_then(entry_of_file) {
            found.push(entry);
        }
    }
    found.sort_unstable();
    let mut leaves = Vec::with_capacity(found.len());
    for (index, leaf) in found {
        let expected = leaves.len() as u64;
        if index < expected {
            return Err(LogError::Damaged { index, what: "two entries stand at one place" });
        }
        if index > expected {
            return Err(LogError::Damaged { index: expected, what: "it is gone, and later ones are there" });
        }
        leaves.push(leaf);
    }
    Ok(leaves)
}

fn remove_temporaries(dir: &Path) -> io::Result<()> {
    for file in fs::read_dir(dir)? {
        let file = file?;
        if file.file_name().to_str().is_some_and(|n| n.starts_with(TEMPORARY)) {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

/// Writes a file durably under a name that no file has yet.
fn write_once(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    if dir.join(name).exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    write(dir, name, bytes)
}

/// Writes a file durably.
fn write(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{TEMPORARY}{name}"));
    let mut file = File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temporary, dir.join(name))?;
    sync_dir(dir)
}

fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
