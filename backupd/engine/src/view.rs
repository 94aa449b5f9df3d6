//! Looking into snapshots with the open key: by path, by page, by range of bytes. Nothing is read that is not asked for.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::heads::read_manifest;
use crate::read::Reader;
use crate::recent::Recent;
use crate::store::NamedStore;
use backup_format::manifest::{Owners, UnreadableReason};
use backup_format::tree::{Content, Extent, Node, NodeKind, PAGE_LEVELS_MAX, Page};
use backup_format::{ChunkId, ChunkKind, OpenKey, SnapshotId};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of pages and of file chunks that are kept, each.
const PAGES_BYTES_MAX: usize = 32 << 20;
const CHUNKS_BYTES_MAX: usize = 32 << 20;

/// A repository at one store, opened for looking into its snapshots.
pub struct View<'a> {
    pub(crate) reader: Reader<'a>,
    pages: Mutex<Recent<ChunkId, Arc<Page>>>,
    chunks: Mutex<Recent<ChunkId, Arc<Vec<u8>>>>,
}

/// The tree of one snapshot.
#[derive(Debug, Clone)]
pub struct Tree {
    pub id: SnapshotId,
    /// The directory in which paths begin.
    pub root: Node,
    /// What the source machine called the owners of its files.
    pub owners: Arc<Owners>,
}

/// Files that a snapshot could not take as they were.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unreadable {
    /// All of them.
    pub count: u64,
    /// Path and reason of the first ones; the list has a limit, the count has none.
    pub listed: Vec<(Vec<u8>, UnreadableReason)>,
}

/// Pages that hold entries, in name order. One page of them is in memory at a time.
#[derive(Debug, Clone, Default)]
pub struct Leaves(Vec<ChunkId>);

impl Leaves {
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'a> View<'a> {
    /// Reads the store's index.
    pub async fn open(env: &'a Env, open: &'a OpenKey, store: &'a NamedStore) -> Result<Self> {
        let reader = Reader::load(env, open, store).await?;
        let (pages, chunks) = (Recent::new(PAGES_BYTES_MAX), Recent::new(CHUNKS_BYTES_MAX));
        Ok(Self { reader, pages: Mutex::new(pages), chunks: Mutex::new(chunks) })
    }

    /// A snapshot's tree. Where its root holds a directory named `top`, paths begin there; `top` may be empty.
    pub async fn tree(&self, id: SnapshotId, top: &[u8]) -> Result<Tree> {
        let open = self.reader.open;
        let (manifest, inner) = read_manifest(open.catalog(), Some(open), id, self.reader.store).await?;
        let mut root = root_node(manifest.root, manifest.taken_unix_ms);
        if !top.is_empty()
            && let Some(found) = self.entry(manifest.root, top).await?
            && matches!(found.kind, NodeKind::Directory { .. })
        {
            root = found;
        }
        Ok(Tree { id, root, owners: Arc::new(inner.unwrap_or_default().owners) })
    }

    /// What stands at a path; the empty path is the tree's root.
    pub async fn look_up(&self, tree: &Tree, path: &[u8]) -> Result<Option<Node>> {
        let mut node = tree.root.clone();
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let NodeKind::Directory { root } = node.kind else { return Ok(None) };
            match self.entry(root, name).await? {
                Some(found) => node = found,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    /// One entry of a directory, by as many pages as its tree has levels.
    pub async fn entry(&self, directory: ChunkId, name: &[u8]) -> Result<Option<Node>> {
        let mut id = directory;
        for _ in 0..=PAGE_LEVELS_MAX {
            match &*self.page(&id).await? {
                Page::Directory(nodes) => {
                    let found = nodes.binary_search_by(|node| node.name.as_slice().cmp(name)).ok();
                    return Ok(found.and_then(|at| nodes.get(at)).cloned());
                }
                Page::DirectoryIndex(below) => {
                    let after = below.partition_point(|(first, _)| first.as_slice() <= name);
                    match after.checked_sub(1).and_then(|at| below.get(at)) {
                        Some((_, page)) => id = *page,
                        None => return Ok(None),
                    }
                }
                Page::Extents(_) | Page::ExtentIndex(_) => return Err(malformed()),
            }
        }
        Err(malformed())
    }

    /// The pages of a directory that hold its entries.
    pub async fn leaves(&self, directory: ChunkId) -> Result<Leaves> {
        let mut level = vec![directory];
        for _ in 0..=PAGE_LEVELS_MAX {
            let mut below = Vec::new();
            for id in &level {
                match &*self.page(id).await? {
                    // Pages of one level are of one kind: the first tells.
                    Page::Directory(_) if below.is_empty() => return Ok(Leaves(level)),
                    Page::DirectoryIndex(pages) => below.extend(pages.iter().map(|(_, id)| *id)),
                    _ => return Err(malformed()),
                }
            }
            level = below;
        }
        Err(malformed())
    }

    /// The entries on one page of a directory.
    pub async fn leaf(&self, leaves: &Leaves, at: usize) -> Result<Option<Arc<Page>>> {
        let Some(id) = leaves.0.get(at) else { return Ok(None) };
        let page = self.page(id).await?;
        if matches!(*page, Page::Directory(_)) { Ok(Some(page)) } else { Err(malformed()) }
    }

    /// Bytes of a file from `offset`, at most `len` and at most to its end. Holes read as zeros.
    pub async fn read(&self, node: &Node, offset: u64, len: usize) -> Result<Vec<u8>> {
        let NodeKind::File { size, content } = &node.kind else {
            return Err(Error::new(ErrorKind::Misconfigured, "this is no file: only files have bytes"));
        };
        let end = offset.saturating_add(len as u64).min(*size);
        let mut out = Vec::with_capacity(usize::try_from(end.saturating_sub(offset)).unwrap_or(0).min(len));
        let mut at = offset;
        while at < end {
            let (extent, begins) = self.extent_at(content, at).await?;
            let skip = at.checked_sub(begins).filter(|skip| *skip < extent.len()).ok_or_else(malformed)?;
            let take = (extent.len() - skip).min(end - at);
            match extent {
                Extent::Hole { .. } => out.resize(out.len() + take as usize, 0),
                Extent::Data { id, .. } => {
                    let bytes = self.data(&id).await?;
                    let from = skip as usize;
                    out.extend_from_slice(bytes.get(from..from + take as usize).ok_or_else(malformed)?);
                }
            }
            at += take;
        }
        Ok(out)
    }

    /// The extent that covers an offset, and where it begins.
    async fn extent_at(&self, content: &Content, offset: u64) -> Result<(Extent, u64)> {
        let mut id = match content {
            Content::Inline(extents) => return covering(extents, 0, offset).ok_or_else(malformed),
            Content::Paged(root) => *root,
        };
        let mut begins = 0u64;
        for _ in 0..=PAGE_LEVELS_MAX {
            match &*self.page(&id).await? {
                Page::Extents(extents) => return covering(extents, begins, offset).ok_or_else(malformed),
                Page::ExtentIndex(below) => {
                    let mut next = None;
                    for (covered, page) in below {
                        let ends = begins.checked_add(*covered).ok_or_else(malformed)?;
                        if offset < ends {
                            next = Some(*page);
                            break;
                        }
                        begins = ends;
                    }
                    id = next.ok_or_else(malformed)?;
                }
                Page::Directory(_) | Page::DirectoryIndex(_) => return Err(malformed()),
            }
        }
        Err(malformed())
    }

    /// A page, from the store or from the pages read last.
    pub(crate) async fn page(&self, id: &ChunkId) -> Result<Arc<Page>> {
        if let Some(page) = self.pages.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(page);
        }
        let bytes = self.reader.chunk(ChunkKind::Tree, id).await?;
        let page = Arc::new(Page::parse(&bytes)?);
        // A parsed page takes a few times its bytes.
        let cost = bytes.len() * 4;
        self.pages.lock().unwrap_or_else(PoisonError::into_inner).put(*id, Arc::clone(&page), cost);
        Ok(page)
    }

    async fn data(&self, id: &ChunkId) -> Result<Arc<Vec<u8>>> {
        if let Some(chunk) = self.chunks.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            return Ok(chunk);
        }
        let chunk = Arc::new(self.reader.chunk(ChunkKind::Data, id).await?);
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner).put(*id, Arc::clone(&chunk), chunk.len());
        Ok(chunk)
    }
}

/// The files that a snapshot could not take as they were. Record content: only for a holder of the open key.
pub async fn unreadable(_env: &Env, open: &OpenKey, store: &NamedStore, id: SnapshotId) -> Result<Unreadable> {
    let (_, inner) = read_manifest(open.catalog(), Some(open), id, store).await?;
    let inner = inner.unwrap_or_default();
    Ok(Unreadable { count: inner.unreadable_count, listed: inner.unreadable })
}

/// A snapshot's root has no entry of its own.
fn root_node(root: ChunkId, taken_unix_ms: i64) -> Node {
    Node {
        name: Vec::new(),
        mode: 0o755,
        uid: 0,
        gid: 0,
        mtime_s: taken_unix_ms.div_euclid(1000),
        mtime_ns: 0,
        xattrs: Vec::new(),
        hard_link: None,
        kind: NodeKind::Directory { root },
    }
}

fn covering(extents: &[Extent], begins: u64, offset: u64) -> Option<(Extent, u64)> {
    let mut at = begins;
    for extent in extents {
        let ends = at.checked_add(extent.len())?;
        if offset < ends {
            return Some((*extent, at));
        }
        at = ends;
    }
    None
}

pub(crate) fn malformed() -> Error {
    Error::new(ErrorKind::Damaged, "the snapshot's tree is malformed")
}
