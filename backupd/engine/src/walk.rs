//! The walk: follows the scout's events, reads what has changed, and builds the tree's pages as it goes.

use crate::backup::{Part, UnreadableCounts};
use crate::chunker::{Chunker, Cut, Piece};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::Intake;
use crate::remembered::{Identity, Memo, Memory, Remembered};
use crate::scout::{Event, Excludes, scout};
use crate::source::{SourceDir, SourceFile, Stat, StatKind, Xattrs};
use backup_format::ChunkId;
use backup_format::ChunkKind;
use backup_format::manifest::{UNREADABLE_LISTED_MAX, UnreadableReason};
use backup_format::pages::{ContentBuilder, DirectoryBuilder};
use backup_format::tree::{Content, Extent, Node, NodeKind, is_plain_name};
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// A file changed so shortly before it was looked at may change again without showing it: it is not remembered.
const RACY_NS: i128 = 50_000_000;

/// How far the walk is, read from outside while it runs; and the wish that it ends early.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) bytes: AtomicU64,
    pub(crate) files: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// What the walk found.
#[derive(Default)]
pub(crate) struct Walked {
    pub(crate) root: Option<ChunkId>,
    pub(crate) files: u64,
    pub(crate) bytes_source: u64,
    pub(crate) bytes_read: u64,
    pub(crate) unreadable_count: u64,
    pub(crate) reasons: UnreadableCounts,
    pub(crate) unreadable: Vec<(Vec<u8>, UnreadableReason)>,
    /// Numbers of all owners and groups.
    pub(crate) users: BTreeSet<u32>,
    pub(crate) groups: BTreeSet<u32>,
}

impl Walked {
    /// Something that is not as it was asked for. All are counted; the first are listed.
    pub(crate) fn note(&mut self, path: Vec<u8>, reason: UnreadableReason) {
        self.unreadable_count += 1;
        self.reasons.count(reason);
        if self.unreadable.len() < UNREADABLE_LISTED_MAX {
            self.unreadable.push((path, reason));
        }
    }
}

/// A directory that the walk is in.
struct Frame {
    name: Vec<u8>,
    stat: Option<Stat>,
    xattrs: Xattrs,
    dir: Option<Arc<dyn SourceDir>>,
    builder: DirectoryBuilder,
    cut: Cut,
    /// Whether the memory of the last walk stands in this directory too.
    remembered: bool,
    path_len: usize,
}

/// Everything that one walk needs.
pub(crate) struct Walk<'a, 'b> {
    pub(crate) intake: &'a mut Intake<'b>,
    pub(crate) memory: Memory,
    /// Whether every chunk of the memory is present for certain.
    pub(crate) trusted: bool,
    pub(crate) memo: Memo,
    pub(crate) counters: &'a Counters,
    pub(crate) now_unix_ms: i64,
    pub(crate) chunker: Chunker,
    links: HashMap<((u32, u32), u64), (u64, Content)>,
    path: Vec<u8>,
    walked: Walked,
}

impl<'a, 'b> Walk<'a, 'b> {
    pub(crate) fn new(
        intake: &'a mut Intake<'b>,
        (memory, trusted): (Memory, bool),
        memo: Memo,
        counters: &'a Counters,
        now_unix_ms: i64,
    ) -> Self {
        Self {
            intake,
            memory,
            trusted,
            memo,
            counters,
            now_unix_ms,
            chunker: Chunker::new(),
            links: HashMap::new(),
            path: Vec::new(),
            walked: Walked::default(),
        }
    }

    /// Walks all parts, in the order of their names; gives what was found and what to remember of it.
    pub(crate) fn run(mut self, env: &Env, parts: &[Part], excludes: &Excludes) -> Result<(Walked, Memo)> {
        let fs = env.fs();
        let top = |remembered| Frame {
            name: Vec::new(),
            stat: None,
            xattrs: Vec::new(),
            dir: None,
            builder: DirectoryBuilder::default(),
            cut: Cut::Content,
            remembered,
            path_len: 0,
        };
        let mut frames = vec![top(true)];
        scout(&*fs, parts, excludes, env.workers() > 0, |events| {
            while let Some(event) = events.next()? {
                if self.counters.stop.load(Ordering::Relaxed) {
                    return Err(Error::new(
                        ErrorKind::Stopped,
                        "stopped: what was sent is kept, the next backup goes on",
                    ));
                }
                self.event(&mut frames, event)?;
            }
            Ok(())
        })?;
        let Some(root) = frames.pop().filter(|_| frames.is_empty()) else {
            return Err(Error::new(ErrorKind::Retry, "reading the source ended early"));
        };
        let intake = &mut *self.intake;
        self.walked.root = Some(root.builder.finish(&mut |page| intake.put(ChunkKind::Tree, page))?);
        self.report();
        Ok((self.walked, self.memo))
    }

    fn event(&mut self, frames: &mut Vec<Frame>, event: Event) -> Result<()> {
        let Some(here) = frames.last_mut() else { return Ok(()) };
        match event {
            Event::Enter { name, stat, dir, xattrs, cut } => {
                let remembered = here.remembered && self.memory.enter(&name);
                self.memo.enter(&name);
                let path_len = self.path.len();
                if path_len > 0 {
                    self.path.push(b'/');
                }
                self.path.extend_from_slice(&name);
                let (stat, dir) = (Some(stat), Some(dir));
                let builder = DirectoryBuilder::default();
                frames.push(Frame { name, stat, xattrs, dir, builder, cut, remembered, path_len });
                Ok(())
            }
            Event::Leave => self.leave(frames),
            Event::Failed { name, error } => {
                self.unreadable(&name, &error);
                Ok(())
            }
            Event::Entry { name, stat } => match self.entry(here, name, &stat)? {
                Some(node) => self.push(here, &node),
                None => Ok(()),
            },
            Event::File { name, stat, file, cut } => {
                // A part that is one file is always looked at: there is no directory to remember it in.
                match self.read_file(&*file, &stat, &name, cut)? {
                    Some((node, _)) => self.push(here, &Node { name, ..node }),
                    None => Ok(()),
                }
            }
        }
    }

    fn leave(&mut self, frames: &mut Vec<Frame>) -> Result<()> {
        let (Some(frame), Some(above)) = (frames.pop(), frames.last_mut()) else { return Ok(()) };
        if frame.remembered {
            self.memory.leave();
        }
        self.memo.leave();
        self.path.truncate(frame.path_len);
        let intake = &mut *self.intake;
        let root = frame.builder.finish(&mut |page| intake.put(ChunkKind::Tree, page))?;
        let Some(stat) = frame.stat else { return Ok(()) };
        let made = node(&stat, frame.xattrs, NodeKind::Directory { root });
        self.push(above, &Node { name: frame.name, ..made })
    }

    fn push(&mut self, frame: &mut Frame, node: &Node) -> Result<()> {
        self.walked.users.insert(node.uid);
        self.walked.groups.insert(node.gid);
        let intake = &mut *self.intake;
        frame.builder.push(node, &mut |page| intake.put(ChunkKind::Tree, page))
    }

    fn report(&self) {
        self.counters.bytes.store(self.walked.bytes_source, Ordering::Relaxed);
        self.counters.files.store(self.walked.files, Ordering::Relaxed);
    }

    fn unreadable(&mut self, name: &[u8], error: &io::Error) {
        let reason = match error.kind() {
            io::ErrorKind::NotFound => UnreadableReason::Vanished,
            io::ErrorKind::PermissionDenied => UnreadableReason::Denied,
            _ => UnreadableReason::Io,
        };
        self.note(name, reason);
    }

    fn note(&mut self, name: &[u8], reason: UnreadableReason) {
        let path = if self.path.is_empty() { name.to_vec() } else { [&self.path, b"/".as_slice(), name].concat() };
        self.walked.note(path, reason);
    }

    /// The node of an entry that is no directory; `None` when it could not be read.
    fn entry(&mut self, frame: &Frame, name: Vec<u8>, stat: &Stat) -> Result<Option<Node>> {
        let Some(dir) = frame.dir.as_deref() else { return Ok(None) };
        let found = match stat.kind {
            StatKind::File => return self.file(frame, dir, name, stat),
            StatKind::Symlink => dir.read_link(&name).map(|target| NodeKind::Symlink { target }),
            StatKind::Fifo => Ok(NodeKind::Fifo),
            StatKind::CharDevice => Ok(NodeKind::CharDevice { major: stat.rdev.0, minor: stat.rdev.1 }),
            StatKind::BlockDevice => Ok(NodeKind::BlockDevice { major: stat.rdev.0, minor: stat.rdev.1 }),
            StatKind::Socket | StatKind::Directory => Ok(NodeKind::Socket),
        };
        match found.and_then(|kind| Ok((kind, dir.xattrs_entry(&name)?))) {
            Ok((kind, xattrs)) => {
                self.walked.files += 1;
                Ok(Some(Node { name, ..node(stat, xattrs, kind) }))
            }
            Err(error) => {
                self.unreadable(&name, &error);
                Ok(None)
            }
        }
    }

    fn file(&mut self, frame: &Frame, dir: &dyn SourceDir, name: Vec<u8>, stat: &Stat) -> Result<Option<Node>> {
        let known = if frame.remembered { self.memory.file(&name, &Identity::of(stat)) } else { None };
        if let Some(known) = known.filter(|known| self.is_present(&known.content)) {
            self.walked.files += 1;
            self.walked.bytes_source += stat.size;
            self.count();
            self.memo.file(&name, &known);
            let kind = NodeKind::File { size: stat.size, content: known.content };
            return Ok(Some(Node { name, ..node(stat, known.xattrs, kind) }));
        }
        let file = match dir.open_file(&name) {
            Ok(file) => file,
            Err(error) => {
                self.unreadable(&name, &error);
                return Ok(None);
            }
        };
        let Some((made, remembered)) = self.read_file(&*file, stat, &name, frame.cut)? else { return Ok(None) };
        if let Some(remembered) = remembered {
            self.memo.file(&name, &remembered);
        }
        Ok(Some(Node { name, ..made }))
    }

    fn count(&mut self) {
        if self.walked.files.is_multiple_of(256) {
            self.report();
        }
    }

    /// Whether all chunks of a remembered content are still there.
    fn is_present(&self, content: &Content) -> bool {
        self.trusted
            || match content {
                Content::Inline(extents) => extents.iter().all(|extent| match extent {
                    Extent::Data { id, .. } => self.intake.knows(id),
                    Extent::Hole { .. } => true,
                }),
                // What its pages say cannot be looked up here: the file is read again.
                Content::Paged(_) => false,
            }
    }

    /// Reads an open file; also what to remember of it, unless it changed meanwhile.
    fn read_file(
        &mut self,
        file: &dyn SourceFile,
        listed: &Stat,
        name: &[u8],
        cut: Cut,
    ) -> Result<Option<(Node, Option<Remembered>)>> {
        // Looked at again: between the scout and here it may have been written in peace.
        let (stat, xattrs) = match file.stat().and_then(|stat| Ok((stat, file.xattrs()?))) {
            Ok((stat, _)) if stat.kind != StatKind::File => {
                self.note(name, UnreadableReason::Changed);
                return Ok(None);
            }
            Ok(opened) => opened,
            Err(error) => {
                self.unreadable(name, &error);
                return Ok(None);
            }
        };
        let link = (stat.device, stat.inode);
        let linked = self.links.get(&link).filter(|_| stat.links > 1).cloned();
        let read = match linked {
            Some(linked) => Ok(linked),
            None => self.cut(file, &stat, cut)?,
        };
        let (size, content) = match read {
            Ok(read) => read,
            Err(error) => {
                self.unreadable(name, &error);
                return Ok(None);
            }
        };
        let same = file.stat().is_ok_and(|now| Identity::of(&now) == Identity::of(&stat)) && size == stat.size;
        if !same {
            self.note(name, UnreadableReason::Changed);
        } else if stat.links > 1 {
            self.links.insert(link, (size, content.clone()));
        }
        self.walked.files += 1;
        self.walked.bytes_source += size;
        self.count();
        let keep = same && Identity::of(listed) == Identity::of(&stat) && !self.is_racy(&stat);
        let remembered = keep.then(|| Remembered {
            identity: Identity::of(&stat),
            xattrs: xattrs.clone(),
            content: content.clone(),
        });
        Ok(Some((node(&stat, xattrs, NodeKind::File { size, content }), remembered)))
    }

    /// Takes a file's content in; gives its size and its extents.
    fn cut(&mut self, file: &dyn SourceFile, stat: &Stat, cut: Cut) -> Result<io::Result<(u64, Content)>> {
        let (intake, walked, counters) = (&mut *self.intake, &mut self.walked, self.counters);
        let (mut builder, done) = (ContentBuilder::default(), walked.bytes_source);
        let read = self.chunker.cut_file(file, (stat.size, stat.sparse), cut, &mut |piece| {
            let extent = match piece {
                Piece::Hole(len) => Extent::Hole { len },
                Piece::Data(bytes) => {
                    walked.bytes_read += bytes.len() as u64;
                    Extent::Data { id: intake.put(ChunkKind::Data, bytes)?, len: bytes.len() as u32 }
                }
            };
            builder.push(extent, &mut |page| intake.put(ChunkKind::Tree, page))?;
            // A large file shows its progress and can be stopped in the middle.
            counters.bytes.store(done + builder.size(), Ordering::Relaxed);
            if counters.stop.load(Ordering::Relaxed) {
                return Err(Error::new(ErrorKind::Stopped, "stopped: what was sent is kept, the next backup goes on"));
            }
            Ok::<_, Error>(())
        })?;
        if let Err(error) = read {
            return Ok(Err(error));
        }
        let size = builder.size();
        Ok(Ok((size, builder.finish(&mut |page| intake.put(ChunkKind::Tree, page))?)))
    }

    fn is_racy(&self, stat: &Stat) -> bool {
        let (seconds, ns) = stat.ctime.max(stat.mtime);
        let changed = i128::from(seconds) * 1_000_000_000 + i128::from(ns);
        changed + RACY_NS > i128::from(self.now_unix_ms) * 1_000_000
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
