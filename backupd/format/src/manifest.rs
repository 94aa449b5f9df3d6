//! Snapshot objects: the outer manifest for the catalog key, the inner one for the open key.

use crate::error::{FormatError, Result};
use crate::ids::{ChunkId, IncarnationId, SnapshotId};
use crate::wire::{Reader, put_bytes, put_extension, put_no_extensions, put_varint};
use std::collections::BTreeMap;

/// The longest source name, tag and part name, bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The longest facts, bytes.
pub const FACTS_BYTES_MAX: usize = 4 << 20;
/// How many unreadable files are listed; the count goes on.
pub const UNREADABLE_LISTED_MAX: usize = 10_000;
/// The most users, and the most groups, whose names are kept.
pub const OWNERS_MAX: usize = 65_536;
/// The longest path in a manifest, bytes.
pub const PATH_BYTES_MAX: usize = 1 << 16;
/// The most parts of a source.
pub const PARTS_MAX: usize = 1024;

/// Key of [`OuterManifest::set_back`] in the extension map. A reader may ignore it.
pub const SET_BACK_KEY: u64 = 4;
/// How many of them are listed; the newest are.
pub const SET_BACK_MAX: usize = 64;

/// What a holder of the catalog key may know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OuterManifest {
    pub source: String,
    pub incarnation: IncarnationId,
    pub counter: u64,
    pub predecessor: Option<SnapshotId>,
    pub taken_unix_ms: i64,
    /// The tree's root page.
    pub root: ChunkId,
    pub partial: bool,
    pub files: u64,
    pub bytes_source: u64,
    pub bytes_added: u64,
    /// The newest deletion plan that the writer had seen.
    pub plan_seen: Option<[u8; 32]>,
    /// The source had been set back to an earlier state, and nobody had looked into it: the snapshots that hold what this one
    /// lacks, `None` for one that could not be named. It stands in the chain, so that it outlives the machine.
    pub set_back: Vec<Option<SnapshotId>>,
}

/// Why a file is not in the snapshot as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnreadableReason {
    Denied,
    Vanished,
    Changed,
    Io,
}

/// One part of the source as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartRecord {
    pub name: Vec<u8>,
    /// 0: content-defined chunks; else fixed chunks of so many bytes.
    pub page_bytes: u32,
    /// Where the part was on the source machine.
    pub path: Vec<u8>,
}

/// What only a holder of the open key may know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InnerManifest {
    pub tag: Option<String>,
    pub facts: Option<Vec<u8>>,
    pub parts: Vec<PartRecord>,
    pub unreadable_count: u64,
    pub unreadable: Vec<(Vec<u8>, UnreadableReason)>,
    pub owners: Owners,
}

/// What the source machine called its users and groups. Pages hold numbers only, so that they are the same on every run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owners {
    /// Names by user number.
    pub users: BTreeMap<u32, Vec<u8>>,
    /// Names by group number.
    pub groups: BTreeMap<u32, Vec<u8>>,
}

impl Owners {
    /// Both tables, each cut to the format's limit: a name that is left out costs only its name.
    fn put(&self, out: &mut Vec<u8>) {
        for names in [&self.users, &self.groups] {
            let fitting = || names.iter().filter(|(_, name)| is_owner_name(name)).take(OWNERS_MAX);
            put_varint(out, fitting().count() as u64);
            for (number, name) in fitting() {
                put_varint(out, u64::from(*number));
                put_bytes(out, name);
            }
        }
    }

    fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { users: parse_names(reader)?, groups: parse_names(reader)? })
    }
}

fn parse_names(reader: &mut Reader<'_>) -> Result<BTreeMap<u32, Vec<u8>>> {
    let mut names = BTreeMap::new();
    for _ in 0..reader.count(OWNERS_MAX)? {
        let number = reader.number32()?;
        let name = reader.bytes(NAME_BYTES_MAX)?;
        let ascends = names.last_key_value().is_none_or(|(before, _)| *before < number);
        if !ascends || !is_owner_name(name) {
            return Err(reader.invalid());
        }
        names.insert(number, name.to_vec());
    }
    Ok(names)
}

fn is_owner_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.iter().any(|byte| matches!(byte, 0 | b':' | b'\n'))
}

impl OuterManifest {
    pub fn encode(&self) -> Result<Vec<u8>> {
        if self.source.len() > NAME_BYTES_MAX {
            return Err(FormatError::Limit { what: "source name" });
        }
        let mut out = Vec::new();
        put_bytes(&mut out, self.source.as_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        put_varint(&mut out, self.counter);
        put_option(&mut out, self.predecessor.as_ref().map(|id| id.0.as_slice()));
        out.extend_from_slice(&self.taken_unix_ms.to_le_bytes());
        out.extend_from_slice(self.root.as_bytes());
        out.push(u8::from(self.partial));
        for number in [self.files, self.bytes_source, self.bytes_added] {
            put_varint(&mut out, number);
        }
        put_option(&mut out, self.plan_seen.as_ref().map(<[u8; 32]>::as_slice));
        self.put_set_back(&mut out);
        Ok(out)
    }

    fn put_set_back(&self, out: &mut Vec<u8>) {
        if self.set_back.is_empty() {
            return put_no_extensions(out);
        }
        let newest = &self.set_back[self.set_back.len().saturating_sub(SET_BACK_MAX)..];
        let mut value = Vec::new();
        put_varint(&mut value, newest.len() as u64);
        newest.iter().for_each(|id| put_option(&mut value, id.as_ref().map(|id| id.0.as_slice())));
        put_extension(out, SET_BACK_KEY, &value);
    }

    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "outer manifest");
        let mut manifest = Self {
            source: reader.text(NAME_BYTES_MAX)?,
            incarnation: IncarnationId(reader.array()?),
            counter: reader.varint()?,
            predecessor: if reader.flag()? { Some(SnapshotId(reader.array()?)) } else { None },
            taken_unix_ms: reader.i64()?,
            root: ChunkId(reader.array()?),
            partial: reader.flag()?,
            files: reader.varint()?,
            bytes_source: reader.varint()?,
            bytes_added: reader.varint()?,
            plan_seen: if reader.flag()? { Some(reader.array()?) } else { None },
            set_back: Vec::new(),
        };
        if let Some(value) = reader.extension(Some(SET_BACK_KEY))? {
            manifest.set_back = parse_set_back(value)?;
        }
        reader.end()?;
        Ok(manifest)
    }
}

fn parse_set_back(value: &[u8]) -> Result<Vec<Option<SnapshotId>>> {
    let mut reader = Reader::new(value, "outer manifest");
    let count = reader.count(SET_BACK_MAX)?;
    let mut id = || Ok(if reader.flag()? { Some(SnapshotId(reader.array()?)) } else { None });
    let ids = (0..count).map(|_| id()).collect::<Result<Vec<_>>>()?;
    reader.end()?;
    Ok(ids)
}

impl InnerManifest {
    pub fn encode(&self) -> Result<Vec<u8>> {
        let limit = FormatError::Limit { what: "inner manifest" };
        let too_long = self.tag.as_ref().is_some_and(|tag| tag.len() > NAME_BYTES_MAX)
            || self.facts.as_ref().is_some_and(|facts| facts.len() > FACTS_BYTES_MAX)
            || self.parts.len() > PARTS_MAX
            || self.unreadable.len() > UNREADABLE_LISTED_MAX;
        if too_long {
            return Err(limit);
        }
        let mut out = Vec::new();
        put_optional_bytes(&mut out, self.tag.as_ref().map(String::as_bytes));
        put_optional_bytes(&mut out, self.facts.as_deref());
        put_varint(&mut out, self.parts.len() as u64);
        for part in &self.parts {
            put_bytes(&mut out, &part.name);
            put_varint(&mut out, u64::from(part.page_bytes));
            put_bytes(&mut out, &part.path);
        }
        put_varint(&mut out, self.unreadable_count);
        put_varint(&mut out, self.unreadable.len() as u64);
        for (path, reason) in &self.unreadable {
            put_bytes(&mut out, path);
            out.push(match reason {
                UnreadableReason::Denied => 1,
                UnreadableReason::Vanished => 2,
                UnreadableReason::Changed => 3,
                UnreadableReason::Io => 4,
            });
        }
        self.owners.put(&mut out);
        put_no_extensions(&mut out);
        Ok(out)
    }

    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "inner manifest");
        let tag = if reader.flag()? { Some(reader.text(NAME_BYTES_MAX)?) } else { None };
        let facts = if reader.flag()? { Some(reader.bytes(FACTS_BYTES_MAX)?.to_vec()) } else { None };
        let mut manifest = Self { tag, facts, ..Self::default() };
        for _ in 0..reader.count(PARTS_MAX)? {
            manifest.parts.push(PartRecord {
                name: reader.bytes(NAME_BYTES_MAX)?.to_vec(),
                page_bytes: reader.count(u32::MAX as usize)? as u32,
                path: reader.bytes(PATH_BYTES_MAX)?.to_vec(),
            });
        }
        manifest.unreadable_count = reader.varint()?;
        for _ in 0..reader.count(UNREADABLE_LISTED_MAX)? {
            let path = reader.bytes(PATH_BYTES_MAX)?.to_vec();
            let reason = match reader.u8()? {
                1 => UnreadableReason::Denied,
                2 => UnreadableReason::Vanished,
                3 => UnreadableReason::Changed,
                4 => UnreadableReason::Io,
                _ => return Err(reader.invalid()),
            };
            manifest.unreadable.push((path, reason));
        }
        manifest.owners = Owners::parse(&mut reader)?;
        reader.extensions()?;
        reader.end()?;
        Ok(manifest)
    }
}

fn put_option(out: &mut Vec<u8>, fixed: Option<&[u8]>) {
    out.push(u8::from(fixed.is_some()));
    out.extend_from_slice(fixed.unwrap_or_default());
}

fn put_optional_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(set_back: Vec<Option<SnapshotId>>) -> OuterManifest {
        OuterManifest {
            source: "emr".to_owned(),
            incarnation: IncarnationId([1; 16]),
            counter: 7,
            predecessor: None,
            taken_unix_ms: 5,
            root: ChunkId([2; 32]),
            partial: false,
            files: 1,
            bytes_source: 2,
            bytes_added: 3,
            plan_seen: None,
            set_back,
        }
    }

    #[test]
    fn what_a_set_back_source_lacks_comes_back_and_is_bounded() {
        let id = |n: u8| Some(SnapshotId([n; 32]));
        for set_back in [vec![], vec![None], vec![id(1), None, id(2)]] {
            let manifest = manifest(set_back);
            assert_eq!(OuterManifest::parse(&manifest.encode().unwrap()).unwrap(), manifest);
        }
        let many = manifest((0..100).map(id).collect());
        let read = OuterManifest::parse(&many.encode().unwrap()).unwrap();
        assert_eq!(read.set_back, (36..100).map(id).collect::<Vec<_>>(), "the newest are listed");
        // A list that does not end where it says, or of an odd flag, is refused.
        let whole = manifest(vec![id(1)]).encode().unwrap();
        for (at, with) in [(whole.len() - 33, 2), (whole.len() - 34, 2), (whole.len() - 34, 65)] {
            let mut bytes = whole.clone();
            bytes[at] = with;
            assert!(OuterManifest::parse(&bytes).is_err(), "{at} {with}");
        }
    }
}
