//! A note in the target while a restore runs. A restore that was killed can simply be run again: the note says which one
//! it was, and that files of the right size and time may not be right, for a power cut may have kept the one and lost the
//! other.

use crate::error::{Error, ErrorKind, Result};
use crate::restore::target_result;
use crate::target::Target;
use backup_format::SnapshotId;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Seek, Write};

/// Its name in the target. An entry of that name at the top of a snapshot is a note too, and is not restored.
pub(crate) const NOTE: &[u8] = b".holdfast-restore-unfinished";
/// The note is this line, the snapshot's id, and a line for whoever finds it.
const FIRST_LINE: &str = "holdfast restore 1";
const NOTE_BYTES_MAX: u64 = 4096;

/// What an earlier restore left in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Earlier {
    /// Nothing: none ran, or it finished.
    Finished,
    /// A restore of this snapshot, or of one that the note does not name any more.
    Unfinished(Option<SnapshotId>),
}

/// Reads the note that an earlier restore left.
pub(crate) fn earlier(target: &Target) -> Result<Earlier> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = match rustix::fs::openat(target.fd(), NOTE, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(Errno::NOENT) => return Ok(Earlier::Finished),
        Err(error) => return Err(crate::restore::target_error(&error.into())),
    };
    let mut text = String::new();
    // A note that was cut short still says that a restore did not finish.
    let _ = file.take(NOTE_BYTES_MAX).read_to_string(&mut text);
    let mut lines = text.lines();
    let id = (lines.next() == Some(FIRST_LINE)).then(|| lines.next()).flatten().and_then(|line| line.parse().ok());
    Ok(Earlier::Unfinished(id))
}

/// The note of a running restore. It stays when the restore does not finish.
pub(crate) struct Note(File);

impl Note {
    /// Writes the note, durably, before anything else. Only one restore may write into a target.
    pub(crate) fn write(target: &Target, id: SnapshotId) -> Result<Self> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let open = || rustix::fs::openat(target.fd(), NOTE, flags, Mode::RUSR | Mode::WUSR);
        let mut file = File::from(target_result(open().map_err(io::Error::from))?);
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::AGAIN) => {
                let message = "another restore is writing into this target: wait for it or choose another folder";
                return Err(Error::new(ErrorKind::Fenced, message));
            }
            // A file system without locks.
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            locked => target_result(locked.map_err(io::Error::from))?,
        }
        let text = format!("{FIRST_LINE}\n{id}\nA restore into this folder has not finished: run it again.\n");
        let mut write = || {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            File::from(target.fd().try_clone()?).sync_all()
        };
        target_result(write())?;
        Ok(Self(file))
    }

    /// Takes the note away; everything must be durable.
    pub(crate) fn remove(self, target: &Target) -> Result<()> {
        let removed = rustix::fs::unlinkat(target.fd(), NOTE, rustix::fs::AtFlags::empty());
        drop(self.0);
        target_result(removed.map_err(io::Error::from))
    }
}
