//! Going down a tree page by page, in memory that does not grow with the tree.
//!
//! What is still to be read is a stack of pages. It stays short whatever a hostile tree looks like: of a page with many
//! directories only a few are taken at once, fewer the longer the stack is, and the page is read again for the rest.

use crate::error::Result;
use crate::locations::Locations;
use crate::read::{Reader, malformed};
use backup_format::ChunkId;
use backup_format::tree::{Content, Extent, Node, NodeKind, PAGE_LEVELS_MAX, Page};

/// The stack grows like the square root of the depth times this.
const PENDING: usize = 1 << 16;
/// Directories of one page that wait at once, at most.
const PENDING_OF_PAGE: usize = 64;

/// A page that is still to be read, from entry `at` on.
struct Step {
    directory: u32,
    page: ChunkId,
    level: usize,
    at: usize,
    /// What the page above says: its first name, and the name that it ends before.
    first: Option<Box<[u8]>>,
    until: Option<Box<[u8]>>,
}

/// A tree on the way down. Directories are known by numbers that the caller gives.
pub(crate) struct Descent<'r, 'a> {
    reader: &'r Reader<'a>,
    steps: Vec<Step>,
    /// When set, no page is read twice, and what was reached is noted.
    pub(crate) reached: Option<Reached>,
}

impl<'r, 'a> Descent<'r, 'a> {
    pub(crate) fn new(reader: &'r Reader<'a>) -> Self {
        Self { reader, steps: Vec::new(), reached: None }
    }

    /// Reads these directories next, the first one first.
    pub(crate) fn enter(&mut self, directories: &[(u32, ChunkId)]) {
        for (directory, root) in directories.iter().rev() {
            self.push(Step { directory: *directory, page: *root, level: 0, at: 0, first: None, until: None });
        }
    }

    fn push(&mut self, step: Step) {
        let new = match &mut self.reached {
            Some(reached) if step.at == 0 => reached.reach(&self.reader.locations, &step.page),
            _ => true,
        };
        if new {
            self.steps.push(step);
        }
    }

    /// Directories of which something is still to be read.
    pub(crate) fn pending(&self) -> impl Iterator<Item = u32> {
        self.steps.iter().map(|step| step.directory)
    }

    /// The next entries, and the directory that they are in. After an error the descent goes on with the next page.
    pub(crate) async fn next(&mut self) -> Result<Option<(u32, Vec<Node>)>> {
        while let Some(step) = self.steps.pop() {
            match self.reader.page(&step.page).await? {
                Page::Directory(nodes) => {
                    if step.at == 0 {
                        let names = [nodes.first(), nodes.last()].map(|node| node.map(|node| node.name.as_slice()));
                        step.check(names)?;
                    }
                    return Ok(Some((step.directory, self.take(step, nodes))));
                }
                Page::DirectoryIndex(below) if step.level < PAGE_LEVELS_MAX => self.index(step, below)?,
                _ => return Err(malformed()),
            }
        }
        Ok(None)
    }

    /// Takes entries as long as not too many of them are directories.
    fn take(&mut self, mut step: Step, mut nodes: Vec<Node>) -> Vec<Node> {
        nodes.drain(..step.at.min(nodes.len()));
        let allowed = (PENDING / (self.steps.len() + 1)).clamp(1, PENDING_OF_PAGE);
        let mut directories = 0;
        let end = nodes.iter().position(|node| {
            directories += usize::from(matches!(node.kind, NodeKind::Directory { .. }));
            directories > allowed
        });
        if let Some(end) = end {
            nodes.truncate(end);
            step.at += end;
            self.steps.push(step);
        }
        nodes
    }

    fn index(&mut self, step: Step, below: Vec<(Vec<u8>, ChunkId)>) -> Result<()> {
        if step.at == 0 {
            step.check([below.first(), below.last()].map(|entry| entry.map(|(name, _)| name.as_slice())))?;
        }
        let mut rest = below.into_iter().skip(step.at);
        let (first, page) = rest.next().ok_or_else(malformed)?;
        let next = rest.next().map(|(name, _)| name.into_boxed_slice());
        let child = Step {
            directory: step.directory,
            page,
            level: step.level + 1,
            at: 0,
            first: Some(first.into_boxed_slice()),
            until: next.clone().or_else(|| step.until.clone()),
        };
        if next.is_some() {
            self.steps.push(Step { at: step.at + 1, ..step });
        }
        self.push(child);
        Ok(())
    }
}

impl Step {
    /// A page below an index holds something, begins as the index says, and ends before the next page begins: so names
    /// ascend over all pages, none comes twice, and every page brings the end nearer.
    fn check(&self, [first, last]: [Option<&[u8]>; 2]) -> Result<()> {
        let begins = self.level == 0 || first.is_some() && first == self.first.as_deref();
        let ends = match (last, &self.until) {
            (Some(last), Some(until)) => last < until.as_ref(),
            _ => true,
        };
        if begins && ends { Ok(()) } else { Err(malformed()) }
    }
}

/// A file's content, one page of extents at a time.
pub(crate) struct Extents {
    inline: Option<Vec<Extent>>,
    steps: Vec<ExtentStep>,
}

struct ExtentStep {
    page: ChunkId,
    level: usize,
    at: usize,
    /// Bytes that the page must cover.
    covers: u64,
}

impl Extents {
    pub(crate) fn new(size: u64, content: Content) -> Self {
        match content {
            Content::Inline(extents) => Self { inline: Some(extents), steps: Vec::new() },
            Content::Paged(page) => {
                Self { inline: None, steps: vec![ExtentStep { page, level: 0, at: 0, covers: size }] }
            }
        }
    }

    /// The next extents. What pages say of each other must add up, so that the whole covers the file's size.
    pub(crate) async fn next(
        &mut self,
        reader: &Reader<'_>,
        reached: &mut Option<Reached>,
    ) -> Result<Option<Vec<Extent>>> {
        if let Some(extents) = self.inline.take() {
            return Ok(Some(extents));
        }
        while let Some(step) = self.steps.pop() {
            if step.at == 0 && reached.as_mut().is_some_and(|reached| !reached.reach(&reader.locations, &step.page)) {
                continue;
            }
            match reader.page(&step.page).await? {
                Page::Extents(extents) if adds_up(extents.iter().map(Extent::len), &step) => {
                    return Ok(Some(extents));
                }
                Page::ExtentIndex(below) if step.level < PAGE_LEVELS_MAX => {
                    let lengths = || below.iter().map(|(covers, _)| *covers);
                    if step.at == 0 && (below.is_empty() || !adds_up(lengths(), &step)) {
                        return Err(malformed());
                    }
                    let (covers, page) = *below.get(step.at).ok_or_else(malformed)?;
                    let level = step.level + 1;
                    if step.at + 1 < below.len() {
                        self.steps.push(ExtentStep { at: step.at + 1, ..step });
                    }
                    self.steps.push(ExtentStep { page, level, at: 0, covers });
                }
                _ => return Err(malformed()),
            }
        }
        Ok(None)
    }
}

/// No part may be empty: an endless tree of nothing would be walked for ever.
fn adds_up(mut lengths: impl Iterator<Item = u64>, step: &ExtentStep) -> bool {
    lengths.try_fold(0u64, |sum, len| if len == 0 { None } else { sum.checked_add(len) }) == Some(step.covers)
}

/// Which copies and packs something reaches, a bit each.
pub(crate) struct Reached {
    copies: Vec<u64>,
    pub(crate) packs: Vec<bool>,
    /// Chunks that no index names.
    pub(crate) unknown: u64,
}

impl Reached {
    pub(crate) fn new(locations: &Locations) -> Self {
        Self {
            copies: vec![0; locations.copies_count().div_ceil(64)],
            packs: vec![false; locations.packs_count()],
            unknown: 0,
        }
    }

    /// Whether the chunk was noted.
    pub(crate) fn is_reached(&self, locations: &Locations, id: &ChunkId) -> bool {
        locations.copies(id).next().is_some_and(|first| self.has(first))
    }

    /// The same, by the chunk's first copy.
    pub(crate) fn has(&self, first: u32) -> bool {
        self.copies.get(first as usize / 64).is_some_and(|word| word & (1u64 << (first % 64)) != 0)
    }

    /// Notes a chunk and every pack that holds it; whether it is new.
    pub(crate) fn reach(&mut self, locations: &Locations, id: &ChunkId) -> bool {
        let Some(first) = locations.copies(id).next() else {
            self.unknown += 1;
            return true;
        };
        let Some(word) = self.copies.get_mut(first as usize / 64) else { return true };
        let bit = 1u64 << (first % 64);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        for copy in locations.copies(id) {
            let pack = locations.segment(locations.segment_of(copy)).map(|segment| segment.pack as usize);
            if let Some(pack) = pack.and_then(|pack| self.packs.get_mut(pack)) {
                *pack = true;
            }
        }
        true
    }
}
