//! What differs between two trees. Pages with the same id hold the same entries and are skipped unread, so the work is
//! in proportion to the difference and to the height of the trees, not to their size.

use crate::error::Result;
use crate::list::{join, not_there};
use crate::view::{Tree, View, malformed};
use backup_format::ChunkId;
use backup_format::tree::{Content, Extent, Node, NodeKind, PAGE_LEVELS_MAX, Page};
use std::cmp::Ordering;
use std::collections::HashSet;

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Added,
    Removed,
    /// Other content, link target or device number.
    Modified,
    /// A file where a directory was, and the like.
    Type,
    /// The same content with other permissions, owners or extended attributes.
    Attributes,
    /// Only another time.
    Time,
}

/// One entry that differs.
#[derive(Debug)]
pub struct Difference<'d> {
    pub path: &'d [u8],
    pub change: Change,
    pub before: Option<&'d Node>,
    pub after: Option<&'d Node>,
    /// Bytes of a modified file's chunks that it did not have before.
    pub new_bytes: u64,
}

/// Counts of entries, and bytes of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffSummary {
    pub added: u64,
    pub removed: u64,
    pub modified: u64,
    pub retyped: u64,
    pub attributes: u64,
    pub times: u64,
    pub bytes_added: u64,
    pub bytes_removed: u64,
    /// New bytes in modified files.
    pub bytes_modified: u64,
    /// Pages that had to be looked at.
    pub pages: u64,
}

/// What is called for every difference.
pub type VisitDifference<'v> = dyn FnMut(&Difference<'_>) -> Result<()> + Send + 'v;

/// Compares what stands at `path` (empty: everything) in two trees, in the order of paths.
pub async fn diff(
    view: &View<'_>,
    (before, after): (&Tree, &Tree),
    path: &[u8],
    visit: &mut VisitDifference<'_>,
) -> Result<DiffSummary> {
    let nodes = (view.look_up(before, path).await?, view.look_up(after, path).await?);
    if nodes.0.is_none() && nodes.1.is_none() {
        return Err(not_there());
    }
    let mut walk = Walk { view, visit, summary: DiffSummary::default() };
    let mut stack = Vec::new();
    stack.extend(walk.entry(path.to_vec(), nodes.0.as_ref(), nodes.1.as_ref()).await?);
    while let Some(level) = stack.last_mut() {
        match walk.next(level).await? {
            Some((before, after)) => {
                let name = before.as_ref().or(after.as_ref()).map(|node| node.name.as_slice()).unwrap_or_default();
                let path = join(&level.path, name)?;
                stack.extend(walk.entry(path, before.as_ref(), after.as_ref()).await?);
            }
            None => {
                stack.pop();
            }
        }
    }
    Ok(walk.summary)
}

/// Two directories of one path, as far as they have been compared.
struct Level {
    path: Vec<u8>,
    before: Side,
    after: Side,
}

/// What is ahead in one of them; the next comes last. Pages wait unread until they must be opened.
#[derive(Default)]
struct Side {
    ahead: Vec<Ahead>,
    last: Option<Vec<u8>>,
}

enum Ahead {
    Page { first: Vec<u8>, id: ChunkId, height: usize },
    Entry(Node),
}

/// What to do about the two things ahead.
enum Step {
    Skip,
    Open { before: bool, after: bool },
    Take { before: bool, after: bool },
}

struct Walk<'w, 'a, 'v> {
    view: &'w View<'a>,
    visit: &'w mut VisitDifference<'v>,
    summary: DiffSummary,
}

impl Walk<'_, '_, '_> {
    /// The next pair of entries that differ; a side without the name is `None`.
    async fn next(&mut self, level: &mut Level) -> Result<Option<(Option<Node>, Option<Node>)>> {
        loop {
            match step(level.before.ahead.last(), level.after.ahead.last()) {
                None => return Ok(None),
                Some(Step::Skip) => {
                    level.before.ahead.pop();
                    level.after.ahead.pop();
                }
                Some(Step::Open { before, after }) => {
                    if before {
                        self.open(&mut level.before).await?;
                    }
                    if after {
                        self.open(&mut level.after).await?;
                    }
                }
                Some(Step::Take { before, after }) => {
                    let before = if before { level.before.take()? } else { None };
                    let after = if after { level.after.take()? } else { None };
                    if before != after {
                        return Ok(Some((before, after)));
                    }
                }
            }
        }
    }

    /// Replaces the page ahead by what is on it.
    async fn open(&mut self, side: &mut Side) -> Result<()> {
        let Some(Ahead::Page { id, height, .. }) = side.ahead.pop() else { return Ok(()) };
        self.summary.pages += 1;
        match &*self.view.page(&id).await? {
            Page::Directory(nodes) => side.ahead.extend(nodes.iter().rev().cloned().map(Ahead::Entry)),
            Page::DirectoryIndex(below) => {
                let height = height.checked_sub(1).ok_or_else(malformed)?;
                let page = |(first, id): &(Vec<u8>, ChunkId)| Ahead::Page { first: first.clone(), id: *id, height };
                side.ahead.extend(below.iter().rev().map(page));
            }
            Page::Extents(_) | Page::ExtentIndex(_) => return Err(malformed()),
        }
        Ok(())
    }

    /// How many levels of pages lie below a directory's root page.
    async fn height(&mut self, root: ChunkId) -> Result<usize> {
        let mut id = root;
        for height in 0..=PAGE_LEVELS_MAX {
            match &*self.view.page(&id).await? {
                Page::Directory(_) => return Ok(height),
                Page::DirectoryIndex(below) => id = below.first().ok_or_else(malformed)?.1,
                Page::Extents(_) | Page::ExtentIndex(_) => return Err(malformed()),
            }
        }
        Err(malformed())
    }

    async fn side(&mut self, node: Option<&Node>) -> Result<Side> {
        let Some(NodeKind::Directory { root }) = node.map(|node| &node.kind) else { return Ok(Side::default()) };
        let height = self.height(*root).await?;
        Ok(Side { ahead: vec![Ahead::Page { first: Vec::new(), id: *root, height }], last: None })
    }

    /// Tells what differs at one path; directories that differ inside are given back to be entered.
    async fn entry(&mut self, path: Vec<u8>, before: Option<&Node>, after: Option<&Node>) -> Result<Option<Level>> {
        let (change, new_bytes) = match (before, after) {
            (Some(before), Some(after)) => self.compare(before, after).await?,
            (Some(_), None) => (Some(Change::Removed), 0),
            (None, Some(_)) => (Some(Change::Added), 0),
            (None, None) => (None, 0),
        };
        // The root has no path to be shown by.
        if let Some(change) = change
            && !path.is_empty()
        {
            self.summary.count(change, before, after, new_bytes);
            (self.visit)(&Difference { path: &path, change, before, after, new_bytes })?;
        }
        let roots = (directory(before), directory(after));
        if roots.0 == roots.1 {
            return Ok(None);
        }
        let (before, after) = (self.side(before).await?, self.side(after).await?);
        Ok(Some(Level { path, before, after }))
    }

    async fn compare(&mut self, before: &Node, after: &Node) -> Result<(Option<Change>, u64)> {
        let changed = match (&before.kind, &after.kind) {
            (NodeKind::File { content: old, size: old_size }, NodeKind::File { content: new, size }) => {
                if (old_size, old) != (size, new) {
                    return Ok((Some(Change::Modified), self.new_bytes(old, new).await?));
                }
                false
            }
            (NodeKind::Directory { .. }, NodeKind::Directory { .. }) => false,
            (old, new) if std::mem::discriminant(old) == std::mem::discriminant(new) => old != new,
            _ => return Ok((Some(Change::Type), 0)),
        };
        let attributes = |node: &Node| (node.mode, node.uid, node.gid);
        Ok(if changed {
            (Some(Change::Modified), 0)
        } else if attributes(before) != attributes(after) || before.xattrs != after.xattrs {
            (Some(Change::Attributes), 0)
        } else if (before.mtime_s, before.mtime_ns) != (after.mtime_s, after.mtime_ns) {
            (Some(Change::Time), 0)
        } else {
            (None, 0)
        })
    }

    /// Bytes of chunks that `new` has and `old` has not. Pages that both have are not opened.
    async fn new_bytes(&mut self, old: &Content, new: &Content) -> Result<u64> {
        let (mut old, mut new) = (Pieces::of(old), Pieces::of(new));
        for _ in 0..=PAGE_LEVELS_MAX {
            let shared: HashSet<ChunkId> = old.pages.iter().copied().collect();
            let common: HashSet<ChunkId> = new.pages.iter().copied().filter(|id| shared.contains(id)).collect();
            for pieces in [&mut old, &mut new] {
                pieces.pages.retain(|id| !common.contains(id));
                self.open_pieces(pieces).await?;
            }
            if old.pages.is_empty() && new.pages.is_empty() {
                break;
            }
        }
        let had: HashSet<ChunkId> = old.chunks.into_iter().map(|(id, _)| id).collect();
        let mut counted = HashSet::new();
        let fresh = new.chunks.into_iter().filter(|(id, _)| !had.contains(id) && counted.insert(*id));
        Ok(fresh.map(|(_, len)| u64::from(len)).sum())
    }

    async fn open_pieces(&mut self, pieces: &mut Pieces) -> Result<()> {
        for id in std::mem::take(&mut pieces.pages) {
            self.summary.pages += 1;
            match &*self.view.page(&id).await? {
                Page::Extents(extents) => pieces.chunks.extend(extents.iter().filter_map(chunk)),
                Page::ExtentIndex(below) => pieces.pages.extend(below.iter().map(|(_, id)| *id)),
                Page::Directory(_) | Page::DirectoryIndex(_) => return Err(malformed()),
            }
        }
        Ok(())
    }
}

/// What a file's content is made of, as far as it was opened.
struct Pieces {
    pages: Vec<ChunkId>,
    chunks: Vec<(ChunkId, u32)>,
}

impl Pieces {
    fn of(content: &Content) -> Self {
        match content {
            Content::Inline(extents) => Self { pages: Vec::new(), chunks: extents.iter().filter_map(chunk).collect() },
            Content::Paged(root) => Self { pages: vec![*root], chunks: Vec::new() },
        }
    }
}

fn chunk(extent: &Extent) -> Option<(ChunkId, u32)> {
    match extent {
        Extent::Data { id, len } => Some((*id, *len)),
        Extent::Hole { .. } => None,
    }
}

fn directory(node: Option<&Node>) -> Option<ChunkId> {
    match node?.kind {
        NodeKind::Directory { root } => Some(root),
        _ => None,
    }
}

impl Side {
    /// The entry ahead. Names must ascend: a tree that does not end would otherwise be followed for ever.
    fn take(&mut self) -> Result<Option<Node>> {
        let Some(Ahead::Entry(node)) = self.ahead.pop() else { return Ok(None) };
        if self.last.as_ref().is_some_and(|last| *last >= node.name) {
            return Err(malformed());
        }
        self.last = Some(node.name.clone());
        Ok(Some(node))
    }
}

fn step(before: Option<&Ahead>, after: Option<&Ahead>) -> Option<Step> {
    use Ahead::{Entry, Page};
    Some(match (before, after) {
        (None, None) => return None,
        (Some(Page { .. }), None) => Step::Open { before: true, after: false },
        (Some(Entry(_)), None) => Step::Take { before: true, after: false },
        (None, Some(Page { .. })) => Step::Open { before: false, after: true },
        (None, Some(Entry(_))) => Step::Take { before: false, after: true },
        (Some(ahead), Some(other)) => both(ahead, other),
    })
}

fn both(before: &Ahead, after: &Ahead) -> Step {
    use Ahead::{Entry, Page};
    match (before, after) {
        (Page { id: old, .. }, Page { id: new, .. }) if old == new => Step::Skip,
        (Page { first: old, height: a, .. }, Page { first: new, height: b, .. }) => match old.cmp(new) {
            // Of two that begin alike the higher one is opened first: the other may be the same as one on it.
            Ordering::Equal => Step::Open { before: a >= b, after: b >= a },
            order => Step::Open { before: order == Ordering::Less, after: order == Ordering::Greater },
        },
        (Entry(old), Page { first, .. }) if old.name < *first => Step::Take { before: true, after: false },
        (Entry(_), Page { .. }) => Step::Open { before: false, after: true },
        (Page { first, .. }, Entry(new)) if new.name < *first => Step::Take { before: false, after: true },
        (Page { .. }, Entry(_)) => Step::Open { before: true, after: false },
        (Entry(old), Entry(new)) => {
            let order = old.name.cmp(&new.name);
            Step::Take { before: order != Ordering::Greater, after: order != Ordering::Less }
        }
    }
}

impl DiffSummary {
    fn count(&mut self, change: Change, before: Option<&Node>, after: Option<&Node>, new_bytes: u64) {
        let size = |node: Option<&Node>| match node.map(|node| &node.kind) {
            Some(NodeKind::File { size, .. }) => *size,
            _ => 0,
        };
        match change {
            Change::Added => {
                self.added += 1;
                self.bytes_added += size(after);
            }
            Change::Removed => {
                self.removed += 1;
                self.bytes_removed += size(before);
            }
            Change::Modified => {
                self.modified += 1;
                self.bytes_modified += new_bytes;
            }
            Change::Type => {
                self.retyped += 1;
                self.bytes_added += size(after);
                self.bytes_removed += size(before);
            }
            Change::Attributes => self.attributes += 1,
            Change::Time => self.times += 1,
        }
    }
}
