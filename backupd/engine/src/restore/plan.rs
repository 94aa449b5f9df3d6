//! From a tree to batches: which entries come next, and which copies of chunks they need.

use super::batch::{BATCH_BYTES_MAX, Batch, FirstNames, Item, Leaf, LeafKind, Link, Wanted, state};
use crate::descend::{Descent, Extents};
use crate::error::{Error, ErrorKind, Result};
use crate::locations::CopyNumber;
use crate::read::Reader;
use crate::unfinished::NOTE;
use backup_format::ChunkId;
use backup_format::tree::{Extent, Node, NodeKind};
use rustix::fs::{FileType, makedev};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU32;

/// Counts over all batches.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    pub(super) files: u64,
    pub(super) directories: u64,
    /// Chunks that no index names.
    pub(super) unknown_chunks: u64,
}

/// Numbers that users and groups of the snapshot have on this machine, where they are others.
#[derive(Debug, Default)]
pub(super) struct Renumbered {
    pub(super) users: HashMap<u32, u32>,
    pub(super) groups: HashMap<u32, u32>,
}

impl Renumbered {
    pub(super) fn of(&self, node: &Node) -> (u32, u32) {
        let find = |numbers: &HashMap<u32, u32>, number: u32| numbers.get(&number).copied().unwrap_or(number);
        (find(&self.users, node.uid), find(&self.groups, node.gid))
    }
}

/// Goes down the wanted part of a tree.
pub(super) struct Planner<'r, 'a> {
    reader: &'r Reader<'a>,
    descent: Descent<'r, 'a>,
    /// Entries that are still to be taken, the next one last, and the directories that they are in.
    waiting: Vec<(u32, Node)>,
    /// Directories of the entries taken last, to be entered when the page is done.
    entered: Vec<(u32, ChunkId)>,
    /// The rest of the last item's content, and where it goes on.
    content: Option<(Extents, u64)>,
    first_names: FirstNames,
    pub(super) owners: Renumbered,
    pub(super) counts: Counts,
}

impl<'r, 'a> Planner<'r, 'a> {
    /// The whole tree below `root`, into the target itself.
    pub(super) fn whole(reader: &'r Reader<'a>, root: ChunkId, owners: Renumbered) -> Self {
        let mut descent = Descent::new(reader);
        descent.enter(&[(0, root)]);
        Self {
            reader,
            descent,
            waiting: Vec::new(),
            entered: Vec::new(),
            content: None,
            first_names: FirstNames::new(),
            owners,
            counts: Counts::default(),
        }
    }

    /// Only these paths. Every one of them is looked up before anything is written.
    pub(super) async fn of_paths(
        reader: &'r Reader<'a>,
        (root, owners): (ChunkId, Renumbered),
        paths: &[Vec<u8>],
        batch: &mut Batch,
    ) -> Result<Self> {
        let mut this = Self::whole(reader, root, owners);
        this.descent = Descent::new(reader);
        let mut above: HashMap<Vec<u8>, (u32, ChunkId)> = HashMap::new();
        let mut taken: HashSet<Vec<u8>> = HashSet::new();
        let clean = |path: &Vec<u8>| -> Vec<u8> {
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/')
        };
        let mut cleaned: Vec<(Vec<u8>, usize)> = paths.iter().enumerate().map(|(at, path)| (clean(path), at)).collect();
        // Shorter ones first: what lies below another wanted path comes with it.
        cleaned.sort_by_key(|(path, _)| path.len());
        for (path, at) in cleaned {
            let not_there =
                || Error::new(ErrorKind::NotFound, format!("path number {} is not in the snapshot", at + 1));
            let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
            let (last, dirs) = names.split_last().ok_or_else(not_there)?;
            let (mut directory, mut page, mut walked) = (0, root, Vec::new());
            let mut covered = false;
            for name in dirs {
                walked.extend_from_slice(name);
                covered |= taken.contains(&walked);
                (directory, page) = match above.get(&walked) {
                    Some(known) => *known,
                    None => {
                        let node = reader.look_up(page, name).await?.ok_or_else(not_there)?;
                        let NodeKind::Directory { root } = node.kind else { return Err(not_there()) };
                        // What comes with a directory above is only looked up.
                        let number = if covered { 0 } else { this.directory(batch, directory, &node)? };
                        *above.entry(walked.clone()).or_insert((number, root))
                    }
                };
                walked.push(b'/');
            }
            let node = reader.look_up(page, last).await?.ok_or_else(not_there)?;
            if !covered && taken.insert(path.clone()) {
                this.waiting.push((directory, node));
            }
        }
        Ok(this)
    }

    fn directory(&mut self, batch: &mut Batch, parent: u32, node: &Node) -> Result<u32> {
        let number = batch.table.add(parent, &node.name)?;
        let meta = batch.meta(node, self.owners.of(node))?;
        batch.directories.push((number, meta));
        self.counts.directories += 1;
        Ok(number)
    }

    /// Fills a batch and its plan; whether there is more.
    pub(super) async fn fill(&mut self, batch: &mut Batch, plan: &mut Vec<Wanted>) -> Result<bool> {
        let full = |batch: &Batch, plan: &Vec<Wanted>| batch.bytes() + size_of_val(plan.as_slice()) >= BATCH_BYTES_MAX;
        loop {
            while let Some((content, offset)) = &mut self.content {
                let Some(extents) = content.next(self.reader, &mut None).await? else {
                    self.content = None;
                    break;
                };
                let reached = *offset + extents.iter().map(Extent::len).sum::<u64>();
                let from = std::mem::replace(offset, reached);
                self.pieces(batch, plan, from, &extents)?;
                if full(batch, plan) {
                    batch.last_to = reached;
                    batch.items.last().iter().for_each(|item| item.set(state::OPEN_ENDED));
                    return Ok(true);
                }
            }
            if full(batch, plan) {
                return Ok(true);
            }
            if let Some((directory, node)) = self.waiting.pop() {
                self.entry(batch, directory, node)?;
                continue;
            }
            self.descent.enter(&std::mem::take(&mut self.entered));
            match self.descent.next().await? {
                Some((directory, nodes)) => self.waiting.extend(nodes.into_iter().rev().map(|node| (directory, node))),
                None => return Ok(false),
            }
        }
    }

    fn pieces(&mut self, batch: &Batch, plan: &mut Vec<Wanted>, mut offset: u64, extents: &[Extent]) -> Result<()> {
        let Some((number, item)) = batch.items.len().checked_sub(1).and_then(|at| Some((at, batch.items.get(at)?)))
        else {
            return Ok(());
        };
        for extent in extents {
            if let Extent::Data { id, .. } = extent {
                match self.reader.locations.copies(id).next() {
                    Some(copy) => {
                        plan.push(Wanted { copy, item: number as u32, offset });
                        item.left.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                    None => {
                        self.counts.unknown_chunks += 1;
                        item.set(state::LOST);
                    }
                }
            }
            offset += extent.len();
        }
        Ok(())
    }

    fn entry(&mut self, batch: &mut Batch, directory: u32, node: Node) -> Result<()> {
        if let NodeKind::Directory { root } = node.kind {
            let number = self.directory(batch, directory, &node)?;
            self.entered.push((number, root));
            return Ok(());
        }
        if directory == 0 && node.name == NOTE {
            // Somebody took a snapshot of the target of a restore: the note is not part of what was restored there.
            return Ok(());
        }
        self.counts.files += 1;
        if self.is_further_name(batch, directory, &node)? {
            return Ok(());
        }
        let (name, meta) = (batch.add_name(&node.name)?, batch.meta(&node, self.owners.of(&node))?);
        let special = |kind, device| LeafKind::Node { kind, device };
        let kind = match node.kind {
            NodeKind::File { size, content } => {
                let (left, state) = (AtomicU32::new(0), AtomicU32::new(state::ABSENT));
                batch.items.push(Item { directory, name, size, meta, left, state });
                self.content = Some((Extents::new(size, content), 0));
                return Ok(());
            }
            NodeKind::Symlink { target } => LeafKind::Symlink { target: batch.add_long(&target)? },
            NodeKind::CharDevice { major, minor } => special(FileType::CharacterDevice, makedev(major, minor)),
            NodeKind::BlockDevice { major, minor } => special(FileType::BlockDevice, makedev(major, minor)),
            NodeKind::Socket => special(FileType::Socket, 0),
            NodeKind::Fifo | NodeKind::Directory { .. } => special(FileType::Fifo, 0),
        };
        batch.leaves.push(Leaf { directory, name, meta, kind });
        Ok(())
    }

    /// Whether the entry is a further name of a file that has been taken; then it becomes a link. Only entries of one
    /// kind share a file: a hostile tree must not make a name of a file lead to a symbolic link.
    fn is_further_name(&mut self, batch: &mut Batch, directory: u32, node: &Node) -> Result<bool> {
        let Some((device, inode)) = node.hard_link else { return Ok(false) };
        let key = (device, inode, kind_code(&node.kind));
        if let Some(first) = self.first_names.get(&key).copied() {
            let name = batch.add_name(&node.name)?;
            batch.links.push(Link { directory, name, first });
            return Ok(true);
        }
        let name = batch.table.add_name(&node.name)?;
        self.first_names.insert(key, (directory, name));
        Ok(false)
    }

    /// The next batch after one that is done: directories that are complete are given back with their batch, the others
    /// go on, and so does a file whose content is not complete.
    pub(super) fn turn_over(&self, done: &mut Batch) -> Result<Batch> {
        let mut open = vec![false; done.table.count() as usize + 1];
        let item = self.content.as_ref().and(done.items.last());
        let pending = self.descent.pending().chain(self.entered.iter().map(|(number, _)| *number));
        let pending = pending.chain(self.waiting.iter().map(|(number, _)| *number));
        for mut number in pending.chain(item.map(|item| item.directory)) {
            while let Some(flag) = open.get_mut(number as usize).filter(|flag| !**flag) {
                *flag = true;
                number = crate::target::Directories::place(&done.table, number).map_or(0, |(parent, _)| parent);
            }
        }
        let mut next = Batch::default();
        let is_open = |number: u32| open.get(number as usize).copied().unwrap_or(false);
        for (number, meta) in done.directories.iter().filter(|(number, _)| is_open(*number)) {
            let meta = next.carry(done, *meta)?;
            next.directories.push((*number, meta));
        }
        next.new_directories = next.directories.len();
        if let Some(item) = item {
            let (name, meta) = (next.add_name(done.strings.name(item.name))?, next.carry(done, item.meta)?);
            let kept = item.state.load(std::sync::atomic::Ordering::Acquire) & !state::OPEN_ENDED;
            let (left, state) = (AtomicU32::new(0), AtomicU32::new(kept));
            next.items.push(Item { directory: item.directory, name, size: item.size, meta, left, state });
            next.first_from = done.last_to;
        }
        done.directories.retain(|(number, _)| !is_open(*number));
        next.table = std::mem::take(&mut done.table);
        Ok(next)
    }
}

fn kind_code(kind: &NodeKind) -> u8 {
    match kind {
        NodeKind::File { .. } => 1,
        NodeKind::Directory { .. } => 2,
        NodeKind::Symlink { .. } => 3,
        NodeKind::Fifo => 4,
        NodeKind::Socket => 5,
        NodeKind::CharDevice { .. } => 6,
        NodeKind::BlockDevice { .. } => 7,
    }
}

/// Neighbouring segments of one pack, fetched together.
pub(super) struct Piece {
    /// Which part of the plan it serves.
    pub(super) plan: std::ops::Range<usize>,
    pub(super) pack: u32,
    pub(super) from: u32,
    pub(super) to: u32,
}

/// The most sealed bytes fetched in one piece, and the largest gap read through rather than around.
const PIECE_BYTES_MAX: u32 = 2 << 20;
const GAP_BYTES_MAX: u32 = 128 << 10;

/// The piece that begins at `at` of a sorted plan.
pub(super) fn piece_at(locations: &crate::locations::Locations, plan: &[Wanted], at: usize) -> Option<Piece> {
    let mut piece: Option<Piece> = None;
    let mut next = at;
    while let Some(wanted) = plan.get(next) {
        let number = locations.segment_of(wanted.copy);
        let segment = locations.segment(number)?;
        let joins = piece.as_ref().is_none_or(|piece| {
            piece.pack == segment.pack
                && segment.offset >= piece.to
                && segment.offset - piece.to <= GAP_BYTES_MAX
                && segment.end() - piece.from <= PIECE_BYTES_MAX
        });
        if !joins {
            break;
        }
        let end: CopyNumber = locations.copies_in(number).end;
        next += plan.get(next..).unwrap_or_default().partition_point(|wanted| wanted.copy < end);
        let from = piece.as_ref().map_or(segment.offset, |piece| piece.from);
        piece = Some(Piece { plan: at..next, pack: segment.pack, from, to: segment.end() });
    }
    piece
}
