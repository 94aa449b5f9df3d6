//! What the last walk saw, in tree order: unchanged files are taken from here instead of being read.
//!
//! One file of the local state for each source, read front to back beside the walk and written anew by it, so memory does
//! not grow with the tree. Blocks carry checksums; behind the first damaged block nothing is remembered. A file's content
//! may be taken from here while every pack of the index objects listed in front is still held.

use crate::source::{Stat, Xattrs};
use crate::state::{StateFile, StateWriter};
use backup_format::tree::{Content, parse_content, put_content};
use backup_format::wire::{Reader, put_bytes, put_varint};
use backup_format::{FormatError, ObjectHash};
use std::io;

const VERSION: u8 = 2;
const BLOCK_BYTES: usize = 64 << 10;
const BLOCK_BYTES_MAX: usize = 64 << 20;
const CHECK_BYTES: usize = 16;
const TAG_ENTER: u8 = 1;
const TAG_LEAVE: u8 = 2;
const TAG_FILE: u8 = 3;
const NAME_BYTES_MAX: usize = 255;

/// What must not have changed for a file to count as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    pub(crate) fn of(stat: &Stat) -> Self {
        Self { size: stat.size, mtime: stat.mtime, ctime: stat.ctime, device: stat.device, inode: stat.inode }
    }
}

/// A file as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) identity: Identity,
    pub(crate) xattrs: Xattrs,
    pub(crate) content: Content,
}

fn checksum(bytes: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    blake3::Hasher::new().update(bytes).finalize_xof().fill(&mut check);
    check
}

/// Writes what a walk sees.
pub(crate) struct Memo {
    /// `None` once writing has failed: the next backup then reads everything, no more.
    out: Option<StateWriter>,
    block: Vec<u8>,
    item: Vec<u8>,
}

impl Memo {
    /// `indexes` is written last by [`Memo::finish`]; it stands in a block of its own at the end.
    pub(crate) fn new(out: io::Result<StateWriter>) -> Self {
        let out = out.inspect_err(|error| log::warn!(error:% = error; "state.write-failed")).ok();
        Self { out, block: Vec::with_capacity(BLOCK_BYTES * 2), item: Vec::new() }
    }

    pub(crate) fn enter(&mut self, name: &[u8]) {
        self.item.clear();
        self.item.push(TAG_ENTER);
        put_bytes(&mut self.item, name);
        self.put();
    }

    pub(crate) fn leave(&mut self) {
        self.item.clear();
        self.item.push(TAG_LEAVE);
        put_bytes(&mut self.item, b"");
        self.put();
    }

    pub(crate) fn file(&mut self, name: &[u8], file: &Remembered) {
        self.item.clear();
        self.item.push(TAG_FILE);
        put_bytes(&mut self.item, name);
        encode(&mut self.item, file);
        self.put();
    }

    fn put(&mut self) {
        put_varint(&mut self.block, self.item.len() as u64);
        self.block.extend_from_slice(&self.item);
        if self.block.len() >= BLOCK_BYTES {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(out) = &mut self.out {
            let len = (self.block.len() as u32).to_le_bytes();
            let written =
                [len.as_slice(), &checksum(&self.block), &self.block].iter().try_for_each(|part| out.write(part));
            if let Err(error) = written {
                log::warn!(error:% = error; "state.write-failed");
                self.out = None;
            }
        }
        self.block.clear();
    }

    /// Puts the file in place. `indexes`: the index objects that name every chunk in it.
    pub(crate) fn finish(mut self, indexes: &[ObjectHash]) {
        if !self.block.is_empty() {
            self.flush();
        }
        let mut last = vec![VERSION];
        last.extend(indexes.iter().flat_map(|index| index.as_bytes().iter().copied()));
        let Some(mut out) = self.out else { return };
        let written = [last.as_slice(), &checksum(&last), &(last.len() as u32).to_le_bytes()]
            .iter()
            .try_for_each(|part| out.write(part))
            .and_then(|()| out.finish());
        if let Err(error) = written {
            log::warn!(error:% = error; "state.write-failed");
        }
    }
}

fn encode(out: &mut Vec<u8>, file: &Remembered) {
    let identity = &file.identity;
    put_varint(out, identity.size);
    for (seconds, ns) in [identity.mtime, identity.ctime] {
        out.extend_from_slice(&seconds.to_le_bytes());
        out.extend_from_slice(&ns.to_le_bytes());
    }
    put_varint(out, u64::from(identity.device.0));
    put_varint(out, u64::from(identity.device.1));
    put_varint(out, identity.inode);
    put_varint(out, file.xattrs.len() as u64);
    for (name, value) in &file.xattrs {
        put_bytes(out, name);
        put_bytes(out, value);
    }
    put_content(out, identity.size, &file.content);
}

/// Parses a file when its identity is this one.
fn parse_if(bytes: &[u8], wanted: &Identity) -> backup_format::Result<Option<Remembered>> {
    let mut reader = Reader::new(bytes, "remembered file");
    let number = |reader: &mut Reader<'_>| -> backup_format::Result<u32> {
        u32::try_from(reader.varint()?).map_err(|_| FormatError::Limit { what: "remembered file" })
    };
    let size = reader.varint()?;
    let mtime = (reader.i64()?, reader.u32()?);
    let ctime = (reader.i64()?, reader.u32()?);
    let device = (number(&mut reader)?, number(&mut reader)?);
    let identity = Identity { size, mtime, ctime, device, inode: reader.varint()? };
    if identity != *wanted {
        return Ok(None);
    }
    let mut xattrs = Vec::new();
    for _ in 0..reader.count(bytes.len())? {
        xattrs.push((reader.bytes(1 << 10)?.to_vec(), reader.bytes(1 << 17)?.to_vec()));
    }
    let (_, content) = parse_content(&mut reader)?;
    reader.end()?;
    Ok(Some(Remembered { identity, xattrs, content }))
}

/// An item at the front: what it is, and where its name and its rest lie in the block.
#[derive(Clone)]
struct Item {
    tag: u8,
    name: std::ops::Range<usize>,
    rest: std::ops::Range<usize>,
}

/// Follows the walk through what was seen last time.
pub(crate) struct Memory {
    file: Option<StateFile>,
    at: u64,
    end: u64,
    block: Vec<u8>,
    next: usize,
    item: Option<Item>,
}

impl Memory {
    /// Nothing is remembered.
    pub(crate) fn none() -> Self {
        Self { file: None, at: 0, end: 0, block: Vec::new(), next: 0, item: None }
    }

    /// Opens it; gives also the index objects on which it rests.
    pub(crate) fn open(file: StateFile) -> (Self, Vec<ObjectHash>) {
        match read_last(&file) {
            Ok(Some((end, indexes))) => {
                let mut memory = Self { file: Some(file), end, ..Self::none() };
                memory.advance();
                (memory, indexes)
            }
            _ => (Self::none(), Vec::new()),
        }
    }

    /// Loads the next item; at the end or behind damage there is none.
    fn advance(&mut self) {
        self.item = self.parse_next();
    }

    fn parse_next(&mut self) -> Option<Item> {
        while self.next >= self.block.len() {
            self.read_block()?;
        }
        let rest = self.block.get(self.next..)?;
        let mut reader = Reader::new(rest, "remembered");
        let len = reader.count(BLOCK_BYTES_MAX).ok()?;
        let from = self.next + (rest.len() - reader.remaining());
        let body = reader.take(len).ok()?;
        self.next = from + len;
        let mut inner = Reader::new(body, "remembered");
        let tag = inner.u8().ok()?;
        let name_len = inner.bytes(NAME_BYTES_MAX).ok()?.len();
        let name_end = from + (len - inner.remaining());
        Some(Item { tag, name: name_end - name_len..name_end, rest: name_end..from + len })
    }

    fn read_block(&mut self) -> Option<()> {
        let file = self.file.as_ref()?;
        (self.block, self.next) = (Vec::new(), 0);
        if self.at >= self.end {
            self.file = None;
            return None;
        }
        let head = file.read_at(self.at, 4 + CHECK_BYTES).ok()?;
        let (len, check) = head.split_first_chunk::<4>()?;
        let len = u32::from_le_bytes(*len) as usize;
        let body = self.at + head.len() as u64;
        let whole = len <= BLOCK_BYTES_MAX && body + len as u64 <= self.end;
        let block = if whole { file.read_at(body, len).ok() } else { None };
        match block.filter(|block| checksum(block).as_slice() == check) {
            Some(block) => {
                self.at = body + len as u64;
                self.block = block;
                Some(())
            }
            None => {
                log::warn!("state.remembered-damaged");
                self.file = None;
                None
            }
        }
    }

    fn tag(&self) -> Option<u8> {
        self.item.as_ref().map(|item| item.tag)
    }

    fn name(&self) -> &[u8] {
        self.item.as_ref().and_then(|item| self.block.get(item.name.clone())).unwrap_or_default()
    }

    /// Passes what comes before `name` in the directory where it stands; gives the tag of what then stands there.
    fn seek(&mut self, name: &[u8]) -> Option<u8> {
        loop {
            match self.tag()? {
                TAG_LEAVE => return None,
                _ if self.name() >= name => return if self.name() == name { self.tag() } else { None },
                TAG_ENTER => {
                    self.advance();
                    self.leave();
                }
                _ => self.advance(),
            }
        }
    }

    /// Goes into the directory of this name, if it was there.
    pub(crate) fn enter(&mut self, name: &[u8]) -> bool {
        let there = self.seek(name) == Some(TAG_ENTER);
        if there {
            self.advance();
        }
        there
    }

    /// Passes all that is left of the directory where it stands, and its end.
    pub(crate) fn leave(&mut self) {
        let mut depth = 1;
        while let Some(tag) = self.tag() {
            self.advance();
            match tag {
                TAG_ENTER => depth += 1,
                TAG_LEAVE => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// The file of this name, if it was there and nothing of its identity has changed.
    pub(crate) fn file(&mut self, name: &[u8], identity: &Identity) -> Option<Remembered> {
        if self.seek(name) != Some(TAG_FILE) {
            return None;
        }
        let rest = self.item.as_ref().and_then(|item| self.block.get(item.rest.clone())).unwrap_or_default();
        let found = parse_if(rest, identity).ok().flatten();
        self.advance();
        found
    }
}

/// Where the blocks end, and the index objects listed behind them.
fn read_last(file: &StateFile) -> io::Result<Option<(u64, Vec<ObjectHash>)>> {
    let len = file.len()?;
    let Some(at) = len.checked_sub(4) else { return Ok(None) };
    let Some(said) = file.read_at(at, 4)?.first_chunk::<4>().map(|len| u32::from_le_bytes(*len) as usize) else {
        return Ok(None);
    };
    let Some(end) = at.checked_sub(said as u64 + CHECK_BYTES as u64) else { return Ok(None) };
    let bytes = file.read_at(end, said + CHECK_BYTES)?;
    let Some((last, check)) = bytes.split_last_chunk::<CHECK_BYTES>() else { return Ok(None) };
    match last.split_first() {
        Some((&VERSION, hashes)) if &checksum(last) == check && hashes.len() % 32 == 0 => {
            let indexes = hashes.chunks_exact(32).filter_map(|hash| hash.first_chunk().map(|hash| ObjectHash(*hash)));
            Ok(Some((end, indexes.collect())))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;
    use backup_format::ChunkId;
    use backup_format::tree::Extent;

    /// A piece of data and a long hole.
    const SIZE: u64 = 70_000_000_009;

    fn identity(inode: u64) -> Identity {
        Identity { size: SIZE, mtime: (1, 2), ctime: (3, 4), device: (5, 6), inode }
    }

    fn remembered(inode: u64) -> Remembered {
        let id = ChunkId(*blake3::hash(&inode.to_le_bytes()).as_bytes());
        let content = match inode % 3 {
            0 => Content::Paged(id),
            _ => Content::Inline(vec![Extent::Data { id, len: 9 }, Extent::Hole { len: 70_000_000_000 }]),
        };
        let xattrs = if inode.is_multiple_of(2) { vec![(b"user.a".to_vec(), b"b".to_vec())] } else { Vec::new() };
        Remembered { identity: identity(inode), xattrs, content }
    }

    /// Directories a, b, c with files 000 to 999 each and one file beside them.
    fn written(state: &State) -> Vec<ObjectHash> {
        let mut memo = Memo::new(state.create_file("memo"));
        memo.enter(b"part");
        for dir in [b"a", b"b", b"c"] {
            memo.enter(dir);
            for at in 0..1000 {
                memo.file(format!("{at:03}").as_bytes(), &remembered(at));
            }
            memo.leave();
        }
        memo.file(b"z", &remembered(7));
        memo.leave();
        let indexes = vec![ObjectHash([1; 32]), ObjectHash([2; 32])];
        memo.finish(&indexes);
        indexes
    }

    #[test]
    fn what_was_seen_is_found_again_beside_additions_and_removals() {
        let state = State::memory();
        let indexes = written(&state);
        let (mut memory, found) = Memory::open(state.open_file("memo").unwrap());
        assert_eq!(found, indexes);
        assert!(memory.enter(b"part"));
        assert!(!memory.enter(b"Z-new") && memory.file(b"a-new", &identity(0)).is_none());
        assert!(memory.enter(b"b"), "a was removed");
        for at in (0..1000).filter(|at| at % 3 == 0) {
            assert_eq!(memory.file(format!("{at:03}").as_bytes(), &identity(at)), Some(remembered(at)));
            assert!(memory.file(format!("{at:03}-new").as_bytes(), &identity(at)).is_none());
        }
        memory.leave();
        assert_eq!(memory.file(b"z", &identity(7)), Some(remembered(7)), "c was passed");
        memory.leave();
        assert!(!memory.enter(b"part") && memory.file(b"z", &identity(7)).is_none());
    }

    #[test]
    fn a_changed_file_or_kind_is_not_taken() {
        let state = State::memory();
        written(&state);
        let (mut memory, _) = Memory::open(state.open_file("memo").unwrap());
        assert!(memory.enter(b"part"));
        assert!(memory.file(b"a", &identity(0)).is_none(), "a directory became a file");
        assert!(memory.enter(b"b"));
        assert!(memory.file(b"005", &Identity { ctime: (3, 5), ..identity(5) }).is_none());
        assert!(!memory.enter(b"006"), "a file became a directory");
        assert_eq!(memory.file(b"007", &identity(7)), Some(remembered(7)));
    }

    #[test]
    fn damage_anywhere_makes_it_forget_and_never_lie() {
        let state = State::memory();
        written(&state);
        let file = state.open_file("memo").unwrap();
        let bytes = file.read_at(0, file.len().unwrap() as usize).unwrap();
        for at in (0..bytes.len()).step_by(1009) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            let mut out = state.create_file("bad").unwrap();
            out.write(&bad).unwrap();
            out.finish().unwrap();
            let (mut memory, _) = Memory::open(state.open_file("bad").unwrap());
            if !memory.enter(b"part") {
                continue;
            }
            for dir in [b"a", b"b", b"c"] {
                if memory.enter(dir) {
                    for at in 0..1000 {
                        let found = memory.file(format!("{at:03}").as_bytes(), &identity(at));
                        assert!(found.is_none() || found == Some(remembered(at)));
                    }
                    memory.leave();
                }
            }
        }
        let (mut memory, indexes) = Memory::open(StateFile::Memory(std::sync::Arc::new(vec![1, 2])));
        assert!(indexes.is_empty() && !memory.enter(b"part"));
    }
}
