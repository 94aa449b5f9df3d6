//! Walking the parts of a source: directories in name order, unchanged files by their remembered state.

use crate::backup::{Part, PartKind};
use crate::chunker::{Chunker, Cut};
use crate::error::{Error, Result};
use crate::pack::Intake;
use crate::source::{SourceDir, SourceFile, SourceFs, SourceRoot, Stat, StatKind, Xattrs};
use crate::state::{State, Table};
use backup_format::manifest::{UNREADABLE_LISTED_MAX, UnreadableReason};
use backup_format::tree::{Extent, Node, NodeKind, build_content, build_directory, is_plain_name};
use backup_format::wire::{Reader, put_bytes, put_varint};
use backup_format::{ChunkId, ChunkKind, FormatError};
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Directories nested deeper than this are not entered; the snapshot is then partial.
const DEPTH_MAX: usize = 256;
/// A file changed so shortly before it was looked at may change again without showing it: it is not remembered.
const RACY_NS: i128 = 50_000_000;
const RECORD_VERSION: u8 = 1;

/// How far the walk is; read from outside while it runs.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) bytes: AtomicU64,
    pub(crate) files: AtomicU64,
}

/// What the walk found.
#[derive(Default)]
pub(crate) struct Walked {
    pub(crate) root: Option<ChunkId>,
    pub(crate) files: u64,
    pub(crate) bytes_source: u64,
    pub(crate) bytes_read: u64,
    pub(crate) unreadable_count: u64,
    pub(crate) unreadable: Vec<(Vec<u8>, UnreadableReason)>,
}

/// What must not have changed for a file to count as unchanged.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Identity {
    size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    fn of(stat: &Stat) -> Self {
        Self { size: stat.size, mtime: stat.mtime, ctime: stat.ctime, device: stat.device, inode: stat.inode }
    }
}

#[derive(Clone)]
struct Remembered {
    identity: Identity,
    xattrs: Xattrs,
    extents: Vec<Extent>,
}

type Record = HashMap<Vec<u8>, Remembered>;

/// Everything that one walk needs.
pub(crate) struct Walk<'a, 'b> {
    pub(crate) fs: &'a dyn SourceFs,
    pub(crate) intake: &'a mut Intake<'b>,
    pub(crate) state: &'a State,
    pub(crate) source: &'a str,
    pub(crate) excludes: &'a [String],
    pub(crate) counters: &'a Counters,
    pub(crate) now_unix_ms: i64,
    pub(crate) chunker: Chunker,
    pub(crate) links: HashMap<((u32, u32), u64), Vec<Extent>>,
    pub(crate) walked: Walked,
}

impl<'a, 'b> Walk<'a, 'b> {
    /// Walks all parts and gives the root's id.
    pub(crate) fn run(mut self, parts: &[Part]) -> Result<Walked> {
        let mut nodes = Vec::new();
        for part in parts {
            let opened = self.fs.open(&part.path).map_err(|error| {
                Error::io(&format!("the part {:?} of the source cannot be opened", part.name), &error)
            })?;
            let cut = match part.kind {
                PartKind::Files => Cut::Content,
                PartKind::Pages { page_bytes } => Cut::Fixed(page_bytes as usize),
            };
            let name = part.name.as_bytes().to_vec();
            let node = match opened {
                SourceRoot::Directory(dir) => {
                    let stat = dir.stat().map_err(|error| Error::io("a part of the source", &error))?;
                    self.directory(&*dir, &stat, &name, cut, 0)?
                }
                SourceRoot::File(file) => {
                    let stat = file.stat().map_err(|error| Error::io("a part of the source", &error))?;
                    self.read_file(&*file, &stat, &name, cut)?.map(|(node, _)| node)
                }
            };
            nodes.extend(node.map(|node| Node { name, ..node }));
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        self.walked.root = Some(self.build_pages(&nodes)?);
        self.report();
        Ok(self.walked)
    }

    fn build_pages(&mut self, nodes: &[Node]) -> Result<ChunkId> {
        with_pages(self.intake, |emit| build_directory(nodes, emit))
    }

    fn report(&self) {
        self.counters.bytes.store(self.walked.bytes_source, Ordering::Relaxed);
        self.counters.files.store(self.walked.files, Ordering::Relaxed);
    }

    fn unreadable(&mut self, path: &[u8], error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => UnreadableReason::Vanished,
            io::ErrorKind::PermissionDenied => UnreadableReason::Denied,
            _ => UnreadableReason::Io,
        };
        self.note(path, reason);
    }

    fn note(&mut self, path: &[u8], reason: UnreadableReason) {
        self.walked.unreadable_count += 1;
        if self.walked.unreadable.len() < UNREADABLE_LISTED_MAX {
            self.walked.unreadable.push((path.to_vec(), reason));
        }
    }

    fn excluded(&self, name: &[u8], path: &[u8]) -> bool {
        self.excludes.iter().any(|exclude| {
            let exclude = exclude.trim_matches('/').as_bytes();
            if exclude.contains(&b'/') { exclude == path } else { exclude == name }
        })
    }

    /// A directory's node, its content taken in; `None` when it could not be read at all.
    fn directory(
        &mut self,
        dir: &dyn SourceDir,
        stat: &Stat,
        path: &[u8],
        cut: Cut,
        depth: usize,
    ) -> Result<Option<Node>> {
        let listed = dir.names().and_then(|names| Ok((names, dir.xattrs()?)));
        let (mut names, xattrs) = match listed {
            Ok(listed) => listed,
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(None);
            }
        };
        names.sort_unstable();
        let key = record_key(self.source, path);
        let stored = self.state.load(Table::Directory, &key);
        let before = stored.as_deref().and_then(|bytes| parse_record(bytes).ok()).unwrap_or_default();
        let mut after = Vec::new();
        let mut nodes = Vec::with_capacity(names.len());
        for name in names {
            let path = [path, b"/", &name].concat();
            if self.excluded(&name, &path) {
                continue;
            }
            if let Some(node) = self.entry(dir, &name, &path, cut, depth, (&before, &mut after))? {
                nodes.push(node);
            }
        }
        let root = self.build_pages(&nodes)?;
        let record = encode_record(&after);
        if stored.as_deref() != Some(record.as_slice()) {
            self.state.store(Table::Directory, &key, &record);
        }
        Ok(Some(node(stat, xattrs, NodeKind::Directory { root })))
    }

    fn entry(
        &mut self,
        dir: &dyn SourceDir,
        name: &[u8],
        path: &[u8],
        cut: Cut,
        depth: usize,
        (before, after): (&Record, &mut Vec<(Vec<u8>, Remembered)>),
    ) -> Result<Option<Node>> {
        let stat = match dir.stat_entry(name) {
            Ok(stat) => stat,
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(None);
            }
        };
        let made = match stat.kind {
            StatKind::Directory if depth >= DEPTH_MAX => Err(io::Error::from(io::ErrorKind::InvalidInput)),
            StatKind::Directory => match dir.open_dir(name) {
                Ok(child) => Ok(self.directory(&*child, &stat, path, cut, depth + 1)?),
                Err(error) => Err(error),
            },
            StatKind::File => return self.file(dir, name, path, &stat, cut, (before, after)),
            StatKind::Symlink => dir.read_link(name).map(|target| Some(self.special(&stat, target))),
            _ => Ok(Some(self.special(&stat, Vec::new()))),
        };
        match made {
            Ok(made) => Ok(made.map(|made| Node { name: name.to_vec(), ..made })),
            Err(error) => {
                self.unreadable(path, &error);
                Ok(None)
            }
        }
    }

    fn special(&mut self, stat: &Stat, target: Vec<u8>) -> Node {
        self.walked.files += 1;
        let (major, minor) = stat.rdev;
        let kind = match stat.kind {
            StatKind::Symlink => NodeKind::Symlink { target },
            StatKind::Fifo => NodeKind::Fifo,
            StatKind::CharDevice => NodeKind::CharDevice { major, minor },
            StatKind::BlockDevice => NodeKind::BlockDevice { major, minor },
            StatKind::Socket | StatKind::File | StatKind::Directory => NodeKind::Socket,
        };
        node(stat, Vec::new(), kind)
    }

    fn file(
        &mut self,
        dir: &dyn SourceDir,
        name: &[u8],
        path: &[u8],
        stat: &Stat,
        cut: Cut,
        (before, after): (&Record, &mut Vec<(Vec<u8>, Remembered)>),
    ) -> Result<Option<Node>> {
        if let Some(known) = before.get(name).filter(|known| known.identity == Identity::of(stat))
            && known.extents.iter().all(|extent| match extent {
                Extent::Data { id, .. } => self.intake.knows(id),
                Extent::Hole { .. } => true,
            })
        {
            self.walked.files += 1;
            self.walked.bytes_source += stat.size;
            after.push((name.to_vec(), known.clone()));
            let content = with_pages(self.intake, |emit| build_content(known.extents.clone(), emit))?;
            let made = node(stat, known.xattrs.clone(), NodeKind::File { size: stat.size, content });
            return Ok(Some(Node { name: name.to_vec(), ..made }));
        }
        let file = match dir.open_file(name) {
            Ok(file) => file,
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(None);
            }
        };
        let Some((made, remembered)) = self.read_file(&*file, stat, path, cut)? else { return Ok(None) };
        after.extend(remembered.map(|remembered| (name.to_vec(), remembered)));
        Ok(Some(Node { name: name.to_vec(), ..made }))
    }

    /// Reads an open file; also what to remember of it, unless it changed meanwhile.
    fn read_file(
        &mut self,
        file: &dyn SourceFile,
        listed: &Stat,
        path: &[u8],
        cut: Cut,
    ) -> Result<Option<(Node, Option<Remembered>)>> {
        let opened = match file.stat().and_then(|stat| Ok((stat, file.xattrs()?))) {
            Ok((stat, _)) if stat.kind != StatKind::File => {
                self.note(path, UnreadableReason::Changed);
                return Ok(None);
            }
            Ok(opened) => opened,
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(None);
            }
        };
        let (stat, xattrs) = opened;
        let link = (stat.device, stat.inode);
        let extents = match self.links.get(&link).filter(|_| stat.links > 1) {
            Some(extents) => Ok(extents.clone()),
            None => self.cut(file, &stat, cut)?,
        };
        let extents = match extents {
            Ok(extents) => extents,
            Err(error) => {
                self.unreadable(path, &error);
                return Ok(None);
            }
        };
        let size = extents.iter().map(Extent::len).sum();
        let same = file.stat().is_ok_and(|now| Identity::of(&now) == Identity::of(&stat))
            && Identity::of(listed) == Identity::of(&stat)
            && size == stat.size;
        if !same {
            self.note(path, UnreadableReason::Changed);
        } else if stat.links > 1 {
            self.links.insert(link, extents.clone());
        }
        self.walked.files += 1;
        self.walked.bytes_source += size;
        if self.walked.files.is_multiple_of(64) || size > 8 << 20 {
            self.report();
        }
        let content = with_pages(self.intake, |emit| build_content(extents.clone(), emit))?;
        let keep = same && !self.is_racy(&stat);
        let remembered = keep.then(|| Remembered { identity: Identity::of(&stat), xattrs: xattrs.clone(), extents });
        Ok(Some((node(&stat, xattrs, NodeKind::File { size, content }), remembered)))
    }

    fn cut(&mut self, file: &dyn SourceFile, stat: &Stat, cut: Cut) -> Result<io::Result<Vec<Extent>>> {
        let (intake, read) = (&mut *self.intake, &mut self.walked.bytes_read);
        self.chunker.cut_file(file, stat.sparse, cut, &mut |piece| {
            *read += piece.len() as u64;
            let id = intake.put(ChunkKind::Data, piece)?;
            Ok::<_, Error>(Extent::Data { id, len: piece.len() as u32 })
        })
    }

    fn is_racy(&self, stat: &Stat) -> bool {
        let (seconds, ns) = stat.ctime.max(stat.mtime);
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        changed + RACY_NS > i128::from(self.now_unix_ms) * 1_000_000
    }
}

/// Runs a page builder whose pages go into the intake; keeps the engine's error apart from the format's.
fn with_pages<T>(
    intake: &mut Intake<'_>,
    build: impl FnOnce(&mut backup_format::tree::EmitPage<'_>) -> backup_format::Result<T>,
) -> Result<T> {
    let mut failed = None;
    let built = build(&mut |page| {
        intake.put(ChunkKind::Tree, &page).map_err(|error| {
            failed = Some(error);
            FormatError::Invalid { what: "tree page" }
        })
    });
    match failed {
        Some(error) => Err(error),
        None => Ok(built?),
    }
}

fn node(stat: &Stat, xattrs: Xattrs, kind: NodeKind) -> Node {
    let shared = stat.links > 1 && stat.kind != StatKind::Directory;
    let device = u64::from(stat.device.0) << 32 | u64::from(stat.device.1);
    Node {
        name: Vec::new(),
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime_s: stat.mtime.0,
        mtime_ns: stat.mtime.1,
        xattrs,
        hard_link: shared.then_some((device, stat.inode)),
        kind,
    }
}

/// Whether a part's name may stand at the top of a snapshot.
pub(crate) fn is_part_name(name: &str) -> bool {
    is_plain_name(name.as_bytes())
}

fn record_key(source: &str, path: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(source.len() as u64).to_le_bytes()).update(source.as_bytes()).update(path);
    *hasher.finalize().as_bytes()
}

fn encode_record(files: &[(Vec<u8>, Remembered)]) -> Vec<u8> {
    let mut out = vec![RECORD_VERSION];
    put_varint(&mut out, files.len() as u64);
    for (name, file) in files {
        put_bytes(&mut out, name);
        let identity = &file.identity;
        put_varint(&mut out, identity.size);
        for (seconds, ns) in [identity.mtime, identity.ctime] {
            out.extend_from_slice(&seconds.to_le_bytes());
            out.extend_from_slice(&ns.to_le_bytes());
        }
        put_varint(&mut out, u64::from(identity.device.0));
        put_varint(&mut out, u64::from(identity.device.1));
        put_varint(&mut out, identity.inode);
        put_varint(&mut out, file.xattrs.len() as u64);
        for (name, value) in &file.xattrs {
            put_bytes(&mut out, name);
            put_bytes(&mut out, value);
        }
        put_varint(&mut out, file.extents.len() as u64);
        for extent in &file.extents {
            put_varint(&mut out, extent.len());
            match extent {
                Extent::Data { id, .. } => {
                    out.push(1);
                    out.extend_from_slice(id.as_bytes());
                }
                Extent::Hole { .. } => out.push(0),
            }
        }
    }
    out
}

fn parse_record(bytes: &[u8]) -> backup_format::Result<Record> {
    let mut reader = Reader::new(bytes, "directory record");
    if reader.u8()? != RECORD_VERSION {
        return Err(reader.invalid());
    }
    let mut record = Record::new();
    for _ in 0..reader.count(bytes.len())? {
        let name = reader.bytes(1 << 10)?.to_vec();
        let size = reader.varint()?;
        let mtime = (reader.i64()?, reader.u32()?);
        let ctime = (reader.i64()?, reader.u32()?);
        let device = (reader.count(u32::MAX as usize)? as u32, reader.count(u32::MAX as usize)? as u32);
        let identity = Identity { size, mtime, ctime, device, inode: reader.varint()? };
        let mut xattrs = Vec::new();
        for _ in 0..reader.count(bytes.len())? {
            xattrs.push((reader.bytes(1 << 10)?.to_vec(), reader.bytes(1 << 17)?.to_vec()));
        }
        let mut extents = Vec::new();
        for _ in 0..reader.count(bytes.len())? {
            let len = reader.varint()?;
            extents.push(if reader.flag()? {
                Extent::Data { id: ChunkId(reader.array()?), len: u32::try_from(len).unwrap_or(u32::MAX) }
            } else {
                Extent::Hole { len }
            });
        }
        record.insert(name, Remembered { identity, xattrs, extents });
    }
    reader.end()?;
    Ok(record)
}
