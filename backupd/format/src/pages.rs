//! Builds tree pages as a stream: entries or extents go in one by one, finished pages come out, memory stays at one page
//! a level. Where pages are cut follows from the items' own bytes, so the same content always gives the same pages and
//! a change moves few cuts.

use crate::error::FormatError;
use crate::ids::ChunkId;
use crate::segment::CHUNK_BYTES_MAX;
use crate::tree::{Content, Extent, INLINE_EXTENTS_MAX, Node, PAGE_VERSION, put_extent, put_node};
use crate::wire::{put_bytes, put_varint};

/// Page sizes: cut by content once past the first, always before the second.
const PAGE_BYTES_SOFT: usize = 8 << 10;
const PAGE_BYTES_HARD: usize = 256 << 10;
const CUT_MASK: u32 = 63;

/// Takes a finished page and gives its id.
pub type Emit<'a, E> = dyn FnMut(&[u8]) -> Result<ChunkId, E> + 'a;

/// What a page above says about a page below.
trait Key {
    fn join(&mut self, next: Self);
    fn put(&self, out: &mut Vec<u8>);
}

/// The first name of a directory page.
impl Key for Vec<u8> {
    fn join(&mut self, _next: Self) {}

    fn put(&self, out: &mut Vec<u8>) {
        put_bytes(out, self);
    }
}

/// The bytes that an extent page covers.
impl Key for u64 {
    fn join(&mut self, next: Self) {
        *self = self.saturating_add(next);
    }

    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, *self);
    }
}

/// The open page of one level.
struct Level<K> {
    body: Vec<u8>,
    items: usize,
    key: Option<K>,
    pages: usize,
    last: Option<ChunkId>,
}

struct Levels<K> {
    /// Page kinds of the lowest level and of those above.
    kinds: (u8, u8),
    levels: Vec<Level<K>>,
}

impl<K: Key> Levels<K> {
    fn new(kinds: (u8, u8)) -> Self {
        Self { kinds, levels: Vec::new() }
    }

    fn push<E>(&mut self, at: usize, item: &[u8], key: K, emit: &mut Emit<'_, E>) -> Result<(), E> {
        if self.level(at).items > 0 && self.level(at).body.len() + item.len() > PAGE_BYTES_HARD {
            self.flush(at, emit)?;
        }
        let level = self.level(at);
        level.body.extend_from_slice(item);
        level.items += 1;
        match &mut level.key {
            Some(before) => before.join(key),
            none => *none = Some(key),
        }
        if level.body.len() >= PAGE_BYTES_SOFT && may_cut(item) { self.flush(at, emit) } else { Ok(()) }
    }

    /// The level at this height, made when it is the first time that it is needed.
    fn level(&mut self, at: usize) -> &mut Level<K> {
        while self.levels.len() <= at {
            self.levels.push(Level { body: Vec::new(), items: 0, key: None, pages: 0, last: None });
        }
        // The loop has just made it.
        &mut self.levels[at]
    }

    fn flush<E>(&mut self, at: usize, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let kind = if at == 0 { self.kinds.0 } else { self.kinds.1 };
        let level = self.level(at);
        let mut page = Vec::with_capacity(level.body.len() + 12);
        page.extend_from_slice(&[PAGE_VERSION, kind]);
        put_varint(&mut page, level.items as u64);
        page.extend_from_slice(&level.body);
        let id = emit(&page)?;
        level.body.clear();
        level.items = 0;
        level.pages += 1;
        level.last = Some(id);
        let Some(key) = level.key.take() else { return Ok(()) };
        let mut above = Vec::new();
        key.put(&mut above);
        above.extend_from_slice(id.as_bytes());
        self.push(at + 1, &above, key, emit)
    }

    /// Ends every level; gives the root. An empty list has one empty page.
    fn finish<E>(mut self, emit: &mut Emit<'_, E>) -> Result<ChunkId, E> {
        let mut at = 0;
        loop {
            if self.level(at).items > 0 || self.level(at).pages == 0 {
                self.flush(at, emit)?;
            }
            let level = self.level(at);
            if let (1, Some(root)) = (level.pages, level.last) {
                return Ok(root);
            }
            at += 1;
        }
    }
}

/// Whether a page may end behind this item. It follows from the item alone, so that pages realign after a change.
fn may_cut(item: &[u8]) -> bool {
    let mut low = [0u8; 4];
    low.copy_from_slice(blake3::hash(item).as_bytes().split_at(4).0);
    u32::from_le_bytes(low) & CUT_MASK == 0
}

/// Builds a directory from its entries, names strictly ascending.
pub struct DirectoryBuilder {
    levels: Levels<Vec<u8>>,
    last: Option<Vec<u8>>,
    item: Vec<u8>,
}

impl Default for DirectoryBuilder {
    fn default() -> Self {
        Self { levels: Levels::new((1, 2)), last: None, item: Vec::new() }
    }
}

impl DirectoryBuilder {
    pub fn push<E: From<FormatError>>(&mut self, node: &Node, emit: &mut Emit<'_, E>) -> Result<(), E> {
        if self.last.as_ref().is_some_and(|before| *before >= node.name) {
            return Err(FormatError::Invalid { what: "directory order" }.into());
        }
        self.item.clear();
        put_node(&mut self.item, node)?;
        if self.item.len() > CHUNK_BYTES_MAX / 2 {
            return Err(FormatError::Limit { what: "directory entry" }.into());
        }
        self.levels.push(0, &self.item, node.name.clone(), emit)?;
        let last = self.last.get_or_insert_default();
        last.clear();
        last.extend_from_slice(&node.name);
        Ok(())
    }

    /// The root page's id.
    pub fn finish<E>(self, emit: &mut Emit<'_, E>) -> Result<ChunkId, E> {
        self.levels.finish(emit)
    }
}

/// Builds a file's content from its extents: inline when short, pages otherwise.
#[derive(Default)]
pub struct ContentBuilder {
    inline: Vec<Extent>,
    levels: Option<Levels<u64>>,
    item: Vec<u8>,
    size: u64,
}

impl ContentBuilder {
    /// Bytes covered so far.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn push<E>(&mut self, extent: Extent, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.size = self.size.saturating_add(extent.len());
        if self.levels.is_none() {
            self.inline.push(extent);
            if self.inline.len() <= INLINE_EXTENTS_MAX {
                return Ok(());
            }
            self.levels = Some(Levels::new((3, 4)));
            for extent in std::mem::take(&mut self.inline) {
                self.paged(extent, emit)?;
            }
            return Ok(());
        }
        self.paged(extent, emit)
    }

    fn paged<E>(&mut self, extent: Extent, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.item.clear();
        put_extent(&mut self.item, &extent);
        match &mut self.levels {
            Some(levels) => levels.push(0, &self.item, extent.len(), emit),
            None => Ok(()),
        }
    }

    pub fn finish<E>(self, emit: &mut Emit<'_, E>) -> Result<Content, E> {
        match self.levels {
            Some(levels) => Ok(Content::Paged(levels.finish(emit)?)),
            None => Ok(Content::Inline(self.inline)),
        }
    }
}

/// A whole directory at once.
pub fn build_directory<E: From<FormatError>>(nodes: &[Node], emit: &mut Emit<'_, E>) -> Result<ChunkId, E> {
    let mut builder = DirectoryBuilder::default();
    for node in nodes {
        builder.push(node, emit)?;
    }
    builder.finish(emit)
}

/// A whole file's content at once.
pub fn build_content<E>(extents: &[Extent], emit: &mut Emit<'_, E>) -> Result<Content, E> {
    let mut builder = ContentBuilder::default();
    for extent in extents {
        builder.push(*extent, emit)?;
    }
    builder.finish(emit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{NodeKind, Page};
    use std::collections::BTreeMap;
    use std::collections::HashMap;

    fn file(at: u64) -> Node {
        let id = ChunkId(*blake3::hash(&at.to_le_bytes()).as_bytes());
        let content = Content::Inline(vec![Extent::Data { id, len: 9 }]);
        Node {
            name: format!("letter-{at:07}").into_bytes(),
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            mtime_s: 1_700_000_000,
            mtime_ns: 5,
            xattrs: Vec::new(),
            hard_link: None,
            kind: NodeKind::File { size: 9, content },
        }
    }

    /// Pages by their id, and the root.
    fn build(nodes: &[Node]) -> (ChunkId, BTreeMap<ChunkId, Vec<u8>>) {
        let mut pages = BTreeMap::new();
        let mut emit = |page: &[u8]| {
            let id = ChunkId(*blake3::hash(page).as_bytes());
            pages.insert(id, page.to_vec());
            Ok::<_, FormatError>(id)
        };
        let mut builder = DirectoryBuilder::default();
        for node in nodes {
            builder.push(node, &mut emit).unwrap();
        }
        let root = builder.finish(&mut emit).unwrap();
        (root, pages)
    }

    fn names(root: ChunkId, pages: &BTreeMap<ChunkId, Vec<u8>>) -> Vec<Vec<u8>> {
        match Page::parse(&pages[&root]).unwrap() {
            Page::Directory(nodes) => nodes.into_iter().map(|node| node.name).collect(),
            Page::DirectoryIndex(below) => below.into_iter().flat_map(|(_, id)| names(id, pages)).collect(),
            _ => panic!("not a directory"),
        }
    }

    #[test]
    fn one_more_entry_changes_few_pages_and_no_order_is_lost() {
        let nodes: Vec<Node> = (0..20_000).filter(|at| *at != 7_777).map(file).collect();
        let mut more = nodes.clone();
        more.insert(7_777, file(7_777));
        let ((root, before), (root_after, after)) = (build(&nodes), build(&more));
        assert_eq!(names(root, &before).len(), 19_999);
        assert_eq!(names(root_after, &after), more.iter().map(|node| node.name.clone()).collect::<Vec<_>>());
        let fresh = after.keys().filter(|id| !before.contains_key(*id)).count();
        assert!(before.len() > 100 && fresh <= 5, "{fresh} of {} pages are new", before.len());
    }

    #[test]
    fn entries_out_of_order_are_refused() {
        let mut builder = DirectoryBuilder::default();
        let mut emit = |_: &[u8]| Ok::<_, FormatError>(ChunkId([0; 32]));
        builder.push(&file(2), &mut emit).unwrap();
        assert!(builder.push(&file(2), &mut emit).is_err());
        assert!(builder.push(&file(1), &mut emit).is_err());
    }

    #[test]
    fn content_is_inline_up_to_the_limit_and_paged_beyond() {
        for count in [0, 1, INLINE_EXTENTS_MAX, INLINE_EXTENTS_MAX + 1, 5000] {
            let mut pages = HashMap::new();
            let mut emit = |page: &[u8]| {
                let id = ChunkId(*blake3::hash(page).as_bytes());
                pages.insert(id, page.to_vec());
                Ok::<_, FormatError>(id)
            };
            let mut builder = ContentBuilder::default();
            for at in 0..count {
                let id = ChunkId(*blake3::hash(&at.to_le_bytes()).as_bytes());
                builder.push(Extent::Data { id, len: 16384 }, &mut emit).unwrap();
            }
            assert_eq!(builder.size(), count as u64 * 16384);
            match builder.finish(&mut emit).unwrap() {
                Content::Inline(extents) => assert!(extents.len() == count && count <= INLINE_EXTENTS_MAX),
                Content::Paged(root) => {
                    assert!(count > INLINE_EXTENTS_MAX);
                    let covered = match Page::parse(&pages[&root]).unwrap() {
                        Page::Extents(extents) => extents.iter().map(Extent::len).sum::<u64>(),
                        Page::ExtentIndex(below) => below.iter().map(|(covered, _)| covered).sum(),
                        _ => panic!("not extents"),
                    };
                    assert_eq!(covered, count as u64 * 16384);
                }
            }
        }
    }
}
