//! Tree pages: directories and long chunk lists, paged so that one change rewrites few pages.
//!
//! Pages are chunks of kind `Tree`. The same content always makes the same bytes, so that unchanged pages deduplicate
//! although the writer cannot read them back.

use crate::error::{FormatError, Result};
use crate::ids::ChunkId;
use crate::segment::CHUNK_BYTES_MAX;
use crate::wire::{Reader, put_bytes, put_no_extensions, put_varint};

/// The version byte in front of every page.
pub const PAGE_VERSION: u8 = 1;
/// The longest entry name, bytes.
pub const ENTRY_NAME_BYTES_MAX: usize = 255;
/// The longest symbolic link target, bytes.
pub const LINK_TARGET_BYTES_MAX: usize = 4096;
/// The most extended attributes of one entry, and their size limits, bytes.
pub const XATTRS_MAX: usize = 1024;
pub const XATTR_VALUE_BYTES_MAX: usize = 64 << 10;
/// How deep directories and page levels may be nested.
pub const PAGE_LEVELS_MAX: usize = 16;
/// Extents kept in the entry itself; longer lists have pages of their own.
pub const INLINE_EXTENTS_MAX: usize = 16;

const WHAT: &str = "tree page";

/// A piece of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    Data { id: ChunkId, len: u32 },
    Hole { len: u64 },
}

impl Extent {
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Data { len, .. } => u64::from(*len),
            Self::Hole { len } => *len,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    Inline(Vec<Extent>),
    /// The root of a page tree of extents.
    Paged(ChunkId),
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
    File { size: u64, content: Content },
    Directory { root: ChunkId },
    Symlink { target: Vec<u8> },
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

/// One directory entry with everything that a POSIX restore needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub name: Vec<u8>,
    /// Permission bits with set-id and sticky, without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    /// Sorted by name; access control lists and capabilities are among them.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Device and inode, only where several names share one file.
    pub hard_link: Option<(u64, u64)>,
    pub kind: NodeKind,
}

/// A parsed page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Page {
    Directory(Vec<Node>),
    /// First name and id of each page below.
    DirectoryIndex(Vec<(Vec<u8>, ChunkId)>),
    Extents(Vec<Extent>),
    /// Bytes covered by and id of each page below.
    ExtentIndex(Vec<(u64, ChunkId)>),
}

/// Whether a name may stand in a directory. Hostile names are refused by the parser, before anything is created.
#[must_use]
pub fn is_plain_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= ENTRY_NAME_BYTES_MAX
        && name != b"."
        && name != b".."
        && !name.iter().any(|byte| matches!(byte, b'/' | 0))
}

pub(crate) fn put_extent(out: &mut Vec<u8>, extent: &Extent) {
    match extent {
        Extent::Data { id, len } => {
            put_varint(out, u64::from(*len) << 1);
            out.extend_from_slice(id.as_bytes());
        }
        Extent::Hole { len } => {
            out.push(1);
            put_varint(out, *len);
        }
    }
}

fn parse_extent(reader: &mut Reader<'_>) -> Result<Extent> {
    let head = reader.varint()?;
    let extent = if head & 1 == 0 {
        let len = u32::try_from(head >> 1).map_err(|_| FormatError::Limit { what: WHAT })?;
        if len as usize > CHUNK_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        Extent::Data { id: ChunkId(reader.array()?), len }
    } else if head == 1 {
        Extent::Hole { len: reader.varint()? }
    } else {
        return Err(reader.invalid());
    };
    if extent.is_empty() { Err(reader.invalid()) } else { Ok(extent) }
}

pub(crate) fn put_node(out: &mut Vec<u8>, node: &Node) -> Result<()> {
    if !is_plain_name(&node.name) || node.xattrs.len() > XATTRS_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    put_bytes(out, &node.name);
    out.push(match &node.kind {
        NodeKind::File { .. } => 1,
        NodeKind::Directory { .. } => 2,
        NodeKind::Symlink { .. } => 3,
        NodeKind::Fifo => 4,
        NodeKind::Socket => 5,
        NodeKind::CharDevice { .. } => 6,
        NodeKind::BlockDevice { .. } => 7,
    });
    for number in [node.mode, node.uid, node.gid] {
        put_varint(out, u64::from(number));
    }
    out.extend_from_slice(&node.mtime_s.to_le_bytes());
    put_varint(out, u64::from(node.mtime_ns));
    put_varint(out, node.xattrs.len() as u64);
    for (name, value) in &node.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    out.push(u8::from(node.hard_link.is_some()));
    if let Some((device, inode)) = node.hard_link {
        put_varint(out, device);
        put_varint(out, inode);
    }
    put_no_extensions(out);
    match &node.kind {
        NodeKind::File { size, content } => put_content(out, *size, content),
        NodeKind::Directory { root } => out.extend_from_slice(root.as_bytes()),
        NodeKind::Symlink { target } => put_bytes(out, target),
        NodeKind::Fifo | NodeKind::Socket => {}
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            put_varint(out, u64::from(*major));
            put_varint(out, u64::from(*minor));
        }
    }
    Ok(())
}

/// A file's size and content, as entries hold them.
pub fn put_content(out: &mut Vec<u8>, size: u64, content: &Content) {
    put_varint(out, size);
    match content {
        Content::Inline(extents) => {
            put_varint(out, extents.len() as u64 + 1);
            for extent in extents {
                put_extent(out, extent);
            }
        }
        Content::Paged(root) => {
            out.push(0);
            out.extend_from_slice(root.as_bytes());
        }
    }
}

fn parse_node(reader: &mut Reader<'_>) -> Result<Node> {
    let name = reader.bytes(ENTRY_NAME_BYTES_MAX)?.to_vec();
    if !is_plain_name(&name) {
        return Err(FormatError::Invalid { what: "entry name" });
    }
    let code = reader.u8()?;
    let (mode, uid, gid) = (reader.number32()?, reader.number32()?, reader.number32()?);
    let (mtime_s, mtime_ns) = (reader.i64()?, reader.number32()?);
    if mode > 0o7777 || mtime_ns >= 1_000_000_000 {
        return Err(reader.invalid());
    }
    let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    for _ in 0..reader.count(XATTRS_MAX)? {
        let name = reader.bytes(ENTRY_NAME_BYTES_MAX)?.to_vec();
        if name.contains(&0) || xattrs.last().is_some_and(|(before, _)| before >= &name) {
            return Err(reader.invalid());
        }
        xattrs.push((name, reader.bytes(XATTR_VALUE_BYTES_MAX)?.to_vec()));
    }
    let hard_link = if reader.flag()? { Some((reader.varint()?, reader.varint()?)) } else { None };
    reader.extensions()?;
    let kind = match code {
        1 => {
            let (size, content) = parse_content(reader)?;
            NodeKind::File { size, content }
        }
        2 => NodeKind::Directory { root: ChunkId(reader.array()?) },
        3 => NodeKind::Symlink { target: parse_target(reader)? },
        4 => NodeKind::Fifo,
        5 => NodeKind::Socket,
        6 => NodeKind::CharDevice { major: reader.number32()?, minor: reader.number32()? },
        7 => NodeKind::BlockDevice { major: reader.number32()?, minor: reader.number32()? },
        _ => return Err(reader.invalid()),
    };
    Ok(Node { name, mode, uid, gid, mtime_s, mtime_ns, xattrs, hard_link, kind })
}

fn parse_target(reader: &mut Reader<'_>) -> Result<Vec<u8>> {
    let target = reader.bytes(LINK_TARGET_BYTES_MAX)?.to_vec();
    if target.is_empty() || target.contains(&0) { Err(reader.invalid()) } else { Ok(target) }
}

/// The inverse of [`put_content`]: extents must add up to the size.
pub fn parse_content(reader: &mut Reader<'_>) -> Result<(u64, Content)> {
    let size = reader.varint()?;
    let count = reader.count(INLINE_EXTENTS_MAX + 1)?;
    let content = match count.checked_sub(1) {
        None => Content::Paged(ChunkId(reader.array()?)),
        Some(extents) => {
            let extents = (0..extents).map(|_| parse_extent(reader)).collect::<Result<Vec<_>>>()?;
            let sum = extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.len()));
            if sum != Some(size) {
                return Err(reader.invalid());
            }
            Content::Inline(extents)
        }
    };
    Ok((size, content))
}

impl Page {
    /// Parses one page.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > CHUNK_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        let version = reader.u8()?;
        if version != PAGE_VERSION {
            return Err(FormatError::UnknownVersion {
                what: WHAT,
                version: u16::from(version) << 8,
                known: u16::from(PAGE_VERSION) << 8,
            });
        }
        let kind = reader.u8()?;
        // An entry takes at least one byte, so a count beyond the page's size is a lie.
        let count = reader.count(bytes.len())?;
        let page = match kind {
            1 => Self::Directory(parse_ascending(&mut reader, count, parse_node, |node| &node.name)?),
            2 => {
                let entry = |reader: &mut Reader<'_>| {
                    Ok((reader.bytes(ENTRY_NAME_BYTES_MAX)?.to_vec(), ChunkId(reader.array()?)))
                };
                Self::DirectoryIndex(parse_ascending(&mut reader, count, entry, |entry| &entry.0)?)
            }
            3 => Self::Extents((0..count).map(|_| parse_extent(&mut reader)).collect::<Result<_>>()?),
            4 => {
                let entry = |_| Ok((reader.varint()?, ChunkId(reader.array()?)));
                Self::ExtentIndex((0..count).map(entry).collect::<Result<_>>()?)
            }
            _ => return Err(reader.invalid()),
        };
        reader.end()?;
        Ok(page)
    }
}

fn parse_ascending<T>(
    reader: &mut Reader<'_>,
    count: usize,
    mut entry: impl FnMut(&mut Reader<'_>) -> Result<T>,
    name: impl Fn(&T) -> &Vec<u8>,
) -> Result<Vec<T>> {
    let mut entries: Vec<T> = Vec::new();
    for _ in 0..count {
        let next = entry(reader)?;
        if entries.last().is_some_and(|before| name(before) >= name(&next)) {
            return Err(reader.invalid());
        }
        entries.push(next);
    }
    Ok(entries)
}
