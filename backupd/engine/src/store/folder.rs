//! A folder of this machine or of a mounted share.
//!
//! A put is: temporary file, write, fsync, rename, fsync of the directory (and of every directory that was made).
//! `object_store`'s own folder form does not make new directories durable, so this one is ours.

use super::direct::Pieces;
use super::moves::Listed;
use super::removable::{MARKER, Root};
use super::{ListedObject, MaintenanceStore, READ_BYTES_MAX, Store};
use crate::error::{Error, ErrorKind, Result, io_kind};
use bytes::Bytes;
use futures::future::BoxFuture;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Ends the name of a file that is not yet an object.
const TEMPORARY: &str = ".part";

/// Objects as files below `root`.
pub(super) struct FolderStore {
    root: Root,
    buffers: Arc<Buffers>,
    pieces: Arc<Pieces>,
    /// Unfinished files below the root that a listing came across. The next put removes those that nobody is writing any more.
    leftovers: Arc<Mutex<Vec<PathBuf>>>,
    /// The root was there once. When it is away now, an unmounted share, no write may leave an empty store in its place.
    was_there: Arc<AtomicBool>,
}

impl FolderStore {
    pub(super) fn new(root: PathBuf) -> Self {
        Self::at(Root::Fixed(root))
    }

    /// A folder that counts as there only while it carries the marker of the store `name`.
    pub(super) fn removable(root: PathBuf, name: &str) -> Self {
        Self::at(Root::removable(root, name))
    }

    fn at(root: Root) -> Self {
        Self {
            root,
            buffers: Arc::default(),
            pieces: Arc::default(),
            leftovers: Arc::default(),
            was_there: Arc::default(),
        }
    }
}

/// An object's path below the root, by a name that can lead nowhere else.
fn below(name: &str) -> Result<PathBuf> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\0');
    if name.split('/').all(plain) {
        Ok(PathBuf::from(name))
    } else {
        Err(Error::new(ErrorKind::Misconfigured, "an object name is malformed"))
    }
}

impl Store for FolderStore {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (path, root, leftovers) = (below(name)?, self.root.clone(), Arc::clone(&self.leftovers));
            let (pieces, was_there) = (Arc::clone(&self.pieces), Arc::clone(&self.was_there));
            blocking(name, move || {
                let root = root.hold()?;
                let may_make = !was_there.load(Ordering::Relaxed);
                let left = std::mem::take(&mut *leftovers.lock().unwrap_or_else(PoisonError::into_inner));
                left.iter().for_each(|path| remove_leftover(&root.path().join(path)));
                put_durable((root.path(), may_make), &root.path().join(path), &bytes, &pieces)?;
                was_there.store(true, Ordering::Relaxed);
                Ok(())
            })
            .await
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let (path, root, buffers) = (below(name)?, self.root.clone(), Arc::clone(&self.buffers));
            blocking(name, move || {
                let root = root.hold()?;
                let file = File::open(root.path().join(path))?;
                let len = file.metadata()?.len();
                if len > READ_BYTES_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than any object"));
                }
                let len = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidData)?;
                read_exact(&file, len, 0, buffers).map_err(unreadable)
            })
            .await
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let (path, root, buffers) = (below(name)?, self.root.clone(), Arc::clone(&self.buffers));
            let len = usize::try_from(range.end.saturating_sub(range.start))
                .map_err(|_| Error::new(ErrorKind::Misconfigured, "the range is too long"))?;
            blocking(name, move || {
                let root = root.hold()?;
                read_exact(&File::open(root.path().join(path))?, len, range.start, buffers).map_err(unreadable)
            })
            .await
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(async move {
            let (root, prefix, leftovers) = (self.root.clone(), prefix.to_owned(), Arc::clone(&self.leftovers));
            let (listed, was_there) = (Listed::current(), Arc::clone(&self.was_there));
            blocking("the listing", move || {
                // An unmounted share looks like an absent root: that is not an empty store.
                let (mut found, mut left) = (Vec::new(), Vec::new());
                let held = root.hold()?;
                let root = held.path();
                let start = root.join(prefix.trim_end_matches('/'));
                let walked = walk(root, &start, (&mut found, &listed), &mut left);
                leftovers.lock().unwrap_or_else(PoisonError::into_inner).append(&mut left);
                match walked {
                    Err(error) if error.kind() == io::ErrorKind::NotFound && root.is_dir() => {}
                    result => result?,
                }
                was_there.store(true, Ordering::Relaxed);
                found.sort();
                Ok(found)
            })
            .await
        })
    }
}

impl MaintenanceStore for FolderStore {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        // A put renames over what is there.
        self.put(name, bytes)
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let (path, root) = (below(name)?, self.root.clone());
            blocking(name, move || {
                let root = root.hold()?;
                delete_durable(root.path(), &root.path().join(path))
            })
            .await
        })
    }
}

/// Buffers that were read into, kept for the next reads: fresh memory costs more than reading from the page cache.
#[derive(Default)]
struct Buffers(Mutex<Vec<Vec<u8>>>);

/// Buffers kept, and their sizes, bytes: one for each piece that a restore or a verification has under way.
const BUFFERS_KEPT: usize = 4;
const BUFFER_BYTES_MIN: usize = 256 << 10;
const BUFFER_BYTES_MAX: usize = 16 << 20;

/// Bytes in a buffer that goes back when the last reader is done with them.
struct Borrowed {
    buffer: Vec<u8>,
    len: usize,
    home: Arc<Buffers>,
}

impl AsRef<[u8]> for Borrowed {
    fn as_ref(&self) -> &[u8] {
        self.buffer.get(..self.len).unwrap_or_default()
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let mut kept = self.home.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() < BUFFERS_KEPT && buffer.len() <= BUFFER_BYTES_MAX {
            kept.push(buffer);
        }
    }
}

fn read_exact(file: &File, len: usize, at: u64, home: Arc<Buffers>) -> io::Result<Bytes> {
    if len < BUFFER_BYTES_MIN {
        // Small bytes may be kept for long, and must not keep a large buffer with them.
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, at)?;
        return Ok(Bytes::from(bytes));
    }
    let mut buffer = home.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
    if buffer.len() < len {
        buffer.resize(len, 0);
    }
    let mut borrowed = Borrowed { buffer, len, home };
    file.read_exact_at(borrowed.buffer.get_mut(..len).unwrap_or_default(), at)?;
    Ok(Bytes::from_owner(borrowed))
}

async fn blocking<T: Send + 'static>(what: &str, work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::new(ErrorKind::Retry, "a worker thread ended early").because(error))?;
    done.map_err(|error| {
        let kind = match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => ErrorKind::Damaged,
            io::ErrorKind::NotConnected => ErrorKind::Unreachable,
            _ => io_kind(&error),
        };
        Error::new(kind, format!("{what}: {error}"))
    })
}

/// An object of which the disk cannot read a place is damaged: trying again gives no other bytes, another copy may.
fn unreadable(error: io::Error) -> io::Error {
    if error.raw_os_error() == Some(Errno::IO.raw_os_error()) {
        return io::Error::new(io::ErrorKind::InvalidData, "the disk cannot read all of it");
    }
    error
}

static NEXT_TEMPORARY: AtomicU64 = AtomicU64::new(0);

fn put_durable(root: (&Path, bool), path: &Path, bytes: &[u8], pieces: &Pieces) -> io::Result<()> {
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_durable_folder(root, folder)?;
    let (mut file, temporary) = create_temporary(folder)?;
    let written = (|| {
        if !pieces.write(&temporary, bytes)? {
            file.write_all(bytes)?;
        }
        file.sync_all()?;
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        // The space of a failed write is given back at once.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn delete_durable(root: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        // An unmounted share has no folder: that does not mean that the object is out.
        Err(error) if error.kind() == io::ErrorKind::NotFound && root.is_dir() => return Ok(()),
        removed => removed?,
    }
    File::open(path.parent().ok_or(io::ErrorKind::InvalidInput)?)?.sync_all()
}

/// A new file that is locked while it is being written, so that what a killed writer left can be told from it.
fn create_temporary(folder: &Path) -> io::Result<(File, PathBuf)> {
    loop {
        let number = NEXT_TEMPORARY.fetch_add(1, Ordering::Relaxed);
        let temporary = folder.join(format!(".{}-{number}{TEMPORARY}", std::process::id()));
        let file = match File::create_new(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
            file => file?,
        };
        // Between the two calls somebody may have taken it for a leftover; a share without locks has no such somebody.
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive);
        if locked != Err(Errno::WOULDBLOCK) && file.metadata()?.nlink() > 0 {
            return Ok((file, temporary));
        }
    }
}

/// Removes an unfinished file unless somebody is writing it.
fn remove_leftover(path: &Path) {
    let Ok(file) = File::open(path) else { return };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    let same = |(ours, there): (fs::Metadata, fs::Metadata)| (ours.dev(), ours.ino()) == (there.dev(), there.ino());
    if file.metadata().and_then(|ours| Ok((ours, fs::metadata(path)?))).is_ok_and(same) {
        // It may have gone meanwhile, which is well.
        let _ = fs::remove_file(path);
    }
}

/// Makes a folder below the root, and the root itself where that may be.
fn make_durable_folder((root, may_make): (&Path, bool), folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if folder == root && !may_make {
        return Err(io::Error::new(io::ErrorKind::NotConnected, "the folder of the store is not there"));
    }
    if let Some(parent) = folder.parent() {
        if folder != root {
            make_durable_folder((root, may_make), parent)?;
        } else if !parent.is_dir() {
            fs::create_dir_all(parent)?;
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

fn walk(
    root: &Path,
    folder: &Path,
    (found, listed): (&mut Vec<ListedObject>, &Listed),
    leftovers: &mut Vec<PathBuf>,
) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            walk(root, &entry.path(), (found, listed), leftovers)?;
            continue;
        }
        listed.add(1);
        let path = entry.path();
        let Some(name) = path.strip_prefix(root).ok().and_then(Path::to_str) else { continue };
        if name.ends_with(TEMPORARY) {
            leftovers.push(PathBuf::from(name));
        } else if kind.is_file() && name != MARKER {
            match entry.metadata() {
                Ok(metadata) => found.push(ListedObject {
                    name: name.to_owned(),
                    size: metadata.len(),
                    modified_unix_ms: Some(metadata.mtime().saturating_mul(1000) + metadata.mtime_nsec() / 1_000_000),
                }),
                // It vanished between the two calls.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}
