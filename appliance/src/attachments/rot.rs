//! Whether the files still hold what was stored: looked at before each snapshot, so that a file that rotted here is known by
//! name here, and no store is blamed for it later.
//!
//! A file's name is the hash of what it holds, so no key is needed. Reading all of them for every snapshot would load the disk:
//! read are those that were never read by this process or look changed since (which are those that a backup reads as well), the
//! newest first, and then, after a week, each again.

use super::{AttachmentRow, Attachments};
use crate::clock;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One look ends after this time and goes on at the next snapshot.
const LOOK_TIME: Duration = Duration::from_secs(20);
/// A whole file is read again after this time.
const AGAIN_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);
const BUFFER_BYTES: usize = 256 << 10;

/// What the last looks showed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    /// By a file's name.
    files: HashMap<[u8; 32], Look>,
    /// Ids of the attachments that were gone or rotten at the last look.
    damaged: Vec<String>,
}

#[derive(Debug, Clone, Copy)]
struct Look {
    stamp: Stamp,
    whole: bool,
    at: Instant,
}

/// What tells a file that was changed, without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            bytes: meta.len(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

impl Looks {
    fn held(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Attachments {
    /// Looks at the files of these rows, which are all that there are. Gives the ids of those that are gone or do not hold what was
    /// stored. Blocks on the disk.
    pub(crate) fn look_for_rot(&self, rows: &[AttachmentRow]) -> Vec<String> {
        let now = clock::monotonic();
        let before = std::mem::take(&mut self.looks.held().files);
        let (mut known, mut unread) = (HashMap::new(), HashMap::new());
        for file in rows.iter().filter(|row| self.is_there(row)).filter_map(AttachmentRow::file) {
            let Some(stamp) = Stamp::of(&self.path(file)) else { continue };
            match before.get(file).filter(|look| look.stamp == stamp) {
                Some(look) => {
                    known.insert(*file, *look);
                    if now.saturating_duration_since(look.at) > AGAIN_AFTER {
                        unread.insert(*file, (false, stamp));
                    }
                }
                None => drop(unread.insert(*file, (true, stamp))),
            }
        }
        let mut unread: Vec<_> = unread.into_iter().collect();
        unread.sort_unstable_by_key(|(_, (new, stamp))| std::cmp::Reverse((*new, stamp.modified)));
        for (file, (_, stamp)) in unread {
            let at = clock::monotonic();
            if at.saturating_duration_since(now) > LOOK_TIME {
                break;
            }
            known.insert(file, Look { stamp, whole: holds(&self.path(&file), &file), at });
        }
        let damaged = |row: &&AttachmentRow| {
            let rotten = row.file().is_some_and(|file| known.get(file).is_some_and(|look| !look.whole));
            rotten || !self.is_there(row)
        };
        let damaged: Vec<String> = rows.iter().filter(damaged).map(|row| row.id.clone()).collect();
        *self.looks.held() = Seen { files: known, damaged: damaged.clone() };
        damaged
    }

    /// Ids of what the last look found.
    pub(crate) fn damaged_at_last_look(&self) -> Vec<String> {
        self.looks.held().damaged.clone()
    }

    /// Whether a file is there and holds what was stored, as it is now. Reads it.
    pub(crate) fn is_whole(&self, row: &AttachmentRow) -> bool {
        self.is_there(row) && row.file().is_some_and(|file| holds(&self.path(file), file))
    }
}

/// Whether a file holds what its name says. One that the disk does not give does not.
fn holds(path: &Path, name: &[u8; 32]) -> bool {
    let Ok(mut file) = File::open(path) else { return false };
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return hasher.finalize().as_bytes() == name,
            Ok(read) => drop(hasher.update(buffer.get(..read).unwrap_or_default())),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachments::Kept;

    #[test]
    fn a_file_of_the_right_size_with_other_bytes_is_found_and_found_whole_again() {
        let dir = tempfile::tempdir().unwrap();
        let attachments = Attachments::open(&dir.path().join("a"), true).unwrap();
        let row = |id: &str, text: &str| {
            let staged = attachments.stage(text.as_bytes()).unwrap();
            AttachmentRow {
                id: id.to_owned(),
                digest: staged.digest,
                bytes: staged.bytes,
                media_type: staged.media_type.to_owned(),
                patient: 1,
                created_ms: 0,
                kept: Kept::Sealed(staged.sealed),
            }
        };
        let rows = [row("one", "a letter"), row("two", "another letter"), row("three", "a third")];
        assert_eq!(attachments.look_for_rot(&rows), [""; 0]);
        let path = |row: &AttachmentRow| attachments.path(row.file().unwrap());
        let whole = fs::read(path(&rows[1])).unwrap();
        let mut rotten = whole.clone();
        rotten[20] ^= 1;
        fs::write(path(&rows[1]), &rotten).unwrap();
        fs::remove_file(path(&rows[2])).unwrap();
        assert!(attachments.is_there(&rows[1]), "its size tells nothing");
        assert_eq!(attachments.look_for_rot(&rows), ["two", "three"]);
        assert_eq!(attachments.clone().look_for_rot(&rows), ["two", "three"], "nothing was read again");
        assert_eq!(attachments.damaged_at_last_look(), ["two", "three"]);
        fs::write(path(&rows[1]), &whole).unwrap();
        assert!(attachments.is_whole(&rows[1]) && !attachments.is_whole(&rows[2]));
        assert_eq!(attachments.look_for_rot(&rows), ["three"]);
    }
}
