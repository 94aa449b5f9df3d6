//! What one batch of a restore makes: entries without an allocation of their own, and the copies of chunks that go into
//! them, 16 bytes each.

use crate::error::{Error, ErrorKind, Result};
use crate::locations::CopyNumber;
use crate::target::{Attributes, Directories};
use backup_format::tree::Node;
use backup_format::wire::{put_bytes, put_varint};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

/// A batch ends when it holds so many bytes. Each segment that several batches need is read by each of them, so a batch
/// is large: a tree of about 200,000 files is one.
pub(super) const BATCH_BYTES_MAX: usize = 28 << 20;

/// Byte strings after each other, each behind its length.
#[derive(Default)]
pub(super) struct Strings(Vec<u8>);

impl Strings {
    /// A name: at most 255 bytes.
    fn add_name(&mut self, name: &[u8]) -> Result<u32> {
        let at = u32::try_from(self.0.len()).map_err(|_| too_much())?;
        self.0.push(u8::try_from(name.len()).map_err(|_| too_much())?);
        self.0.extend_from_slice(name);
        Ok(at)
    }

    pub(super) fn name(&self, at: u32) -> &[u8] {
        let rest = self.0.get(at as usize..).unwrap_or_default();
        rest.split_first().and_then(|(len, rest)| rest.get(..usize::from(*len))).unwrap_or_default()
    }

    fn add_long(&mut self, bytes: &[u8]) -> Result<u32> {
        let at = u32::try_from(self.0.len()).map_err(|_| too_much())?;
        self.0.extend_from_slice(&u32::try_from(bytes.len()).map_err(|_| too_much())?.to_le_bytes());
        self.0.extend_from_slice(bytes);
        Ok(at)
    }

    pub(super) fn long(&self, at: u32) -> &[u8] {
        let rest = self.0.get(at as usize..).unwrap_or_default();
        let split = rest.split_first_chunk::<4>();
        split.and_then(|(len, rest)| rest.get(..u32::from_le_bytes(*len) as usize)).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

fn too_much() -> Error {
    Error::new(ErrorKind::Damaged, "the snapshot's tree is malformed: an entry is too large")
}

/// Directories by number, for the whole restore.
#[derive(Default)]
pub(super) struct DirectoryTable {
    /// Parent, name, and bytes of the path so far.
    places: Vec<(u32, u32, u32)>,
    names: Strings,
}

/// Longer paths are refused: a tree may hold the same directory below itself many times over.
const PATH_BYTES_MAX: u32 = 1 << 18;

impl Directories for DirectoryTable {
    fn place(&self, number: u32) -> Option<(u32, &[u8])> {
        let (parent, name, _) = *self.places.get((number as usize).checked_sub(1)?)?;
        Some((parent, self.names.name(name)))
    }
}

impl DirectoryTable {
    /// Gives a directory its number: parents have smaller ones.
    pub(super) fn add(&mut self, parent: u32, name: &[u8]) -> Result<u32> {
        let above = (parent as usize).checked_sub(1).and_then(|at| self.places.get(at)).map_or(0, |place| place.2);
        let path_bytes = above + name.len() as u32 + 1;
        if path_bytes > PATH_BYTES_MAX {
            return Err(crate::read::malformed());
        }
        let name = self.names.add_name(name)?;
        self.places.push((parent, name, path_bytes));
        u32::try_from(self.places.len()).map_err(|_| too_much())
    }

    /// Keeps a name for the whole restore.
    pub(super) fn add_name(&mut self, name: &[u8]) -> Result<u32> {
        self.names.add_name(name)
    }

    pub(super) fn name(&self, at: u32) -> &[u8] {
        self.names.name(at)
    }

    pub(super) fn count(&self) -> u32 {
        self.places.len() as u32
    }
}

/// Attributes with their extended part in the batch's strings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Meta {
    mtime_s: i64,
    mtime_ns: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: Option<u32>,
}

/// A regular file.
pub(super) struct Item {
    pub(super) directory: u32,
    pub(super) name: u32,
    pub(super) size: u64,
    pub(super) meta: Meta,
    /// Pieces of this batch that are not yet written.
    pub(super) left: AtomicU32,
    /// See the constants of [`state`].
    pub(super) state: AtomicU32,
}

/// What is known of a file of the target.
pub(super) mod state {
    /// It is made when its first piece comes.
    pub(crate) const ABSENT: u32 = 0;
    /// It is there and will be written to.
    pub(crate) const MADE: u32 = 1;
    /// It has all its attributes.
    pub(crate) const DONE: u32 = 2;
    /// Added to the others: more pieces come in the next batch.
    pub(crate) const OPEN_ENDED: u32 = 4;
    /// Added to the others: a piece of it is lost.
    pub(crate) const LOST: u32 = 8;
    /// Added to the others: it stood in the target before.
    pub(crate) const IN_PLACE: u32 = 16;
    /// Added to the others: its directory gave it an access list when it was made.
    pub(crate) const HANDED_ON: u32 = 32;
}

impl Item {
    pub(super) fn is(&self, bit: u32) -> bool {
        self.state.load(Ordering::Acquire) & bit != 0
    }

    pub(super) fn set(&self, bits: u32) {
        self.state.fetch_or(bits, Ordering::AcqRel);
    }
}

/// What kind of special file, its strings in the batch.
#[derive(Debug, Clone, Copy)]
pub(super) enum LeafKind {
    Symlink { target: u32 },
    Node { kind: rustix::fs::FileType, device: u64 },
}

/// A symbolic link, fifo, socket or device.
pub(super) struct Leaf {
    pub(super) directory: u32,
    pub(super) name: u32,
    pub(super) meta: Meta,
    pub(super) kind: LeafKind,
}

/// A further name of a file, and its first name: a directory and a name in the table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Link {
    pub(super) directory: u32,
    pub(super) name: u32,
    pub(super) first: (u32, u32),
}

/// A copy of a chunk, and where it goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    pub(super) copy: CopyNumber,
    pub(super) item: u32,
    pub(super) offset: u64,
}

/// One batch.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) table: DirectoryTable,
    /// Directories made by this batch and by earlier ones whose attributes are still to be set: ascending numbers.
    pub(super) directories: Vec<(u32, Meta)>,
    /// The first of them that is new.
    pub(super) new_directories: usize,
    pub(super) items: Vec<Item>,
    pub(super) leaves: Vec<Leaf>,
    pub(super) links: Vec<Link>,
    pub(super) strings: Strings,
    /// Where the first item's content goes on, when an earlier batch began it, and where the last one's is cut off.
    pub(super) first_from: u64,
    pub(super) last_to: u64,
    last_xattrs: Option<u32>,
}

impl Batch {
    /// Bytes that the batch takes, its plan apart.
    pub(super) fn bytes(&self) -> usize {
        self.items.len() * size_of::<Item>()
            + self.leaves.len() * size_of::<Leaf>()
            + self.links.len() * size_of::<Link>()
            + self.directories.len() * size_of::<(u32, Meta)>()
            + self.strings.len()
    }

    pub(super) fn add_name(&mut self, name: &[u8]) -> Result<u32> {
        self.strings.add_name(name)
    }

    pub(super) fn add_long(&mut self, bytes: &[u8]) -> Result<u32> {
        self.strings.add_long(bytes)
    }

    /// Keeps attributes; many files of one tree have the same extended ones.
    pub(super) fn meta(&mut self, node: &Node, (uid, gid): (u32, u32)) -> Result<Meta> {
        let xattrs = if node.xattrs.is_empty() { None } else { Some(self.xattrs(&node.xattrs)?) };
        Ok(Meta { mtime_s: node.mtime_s, mtime_ns: node.mtime_ns, mode: node.mode, uid, gid, xattrs })
    }

    fn xattrs(&mut self, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u32> {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, xattrs.len() as u64);
        for (name, value) in xattrs {
            put_bytes(&mut bytes, name);
            put_bytes(&mut bytes, value);
        }
        self.encoded_xattrs(&bytes)
    }

    /// Takes attributes over from an earlier batch.
    pub(super) fn carry(&mut self, from: &Self, meta: Meta) -> Result<Meta> {
        let xattrs = meta.xattrs.map(|at| self.encoded_xattrs(from.strings.long(at))).transpose()?;
        Ok(Meta { xattrs, ..meta })
    }

    fn encoded_xattrs(&mut self, bytes: &[u8]) -> Result<u32> {
        if let Some(last) = self.last_xattrs.filter(|last| self.strings.long(*last) == bytes) {
            return Ok(last);
        }
        let at = self.strings.add_long(bytes)?;
        self.last_xattrs = Some(at);
        Ok(at)
    }

    pub(super) fn attributes(&self, meta: &Meta) -> Attributes<'_> {
        Attributes {
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            mtime: (meta.mtime_s, meta.mtime_ns),
            xattrs: meta.xattrs.map_or(&[], |at| self.strings.long(at)),
        }
    }

    pub(super) fn item(&self, number: u32) -> Option<&Item> {
        self.items.get(number as usize)
    }
}

/// First names of files that have several: by device, inode and kind.
pub(super) type FirstNames = HashMap<(u64, u64, u8), (u32, u32)>;
