//! Reading a snapshot with the open key, from one store.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::heads::read_manifest;
use crate::keys::require_at;
use crate::store::NamedStore;
use crate::survey::{FETCHES, INDEXES, IdMap, fetch, pack_name};
use backup_format::features::Purpose;
use backup_format::index::{parse_catalog, parse_open};
use backup_format::manifest::OuterManifest;
use backup_format::pack::{PackRecord, SegmentRecord};
use backup_format::sealed::{PartsKind, open_parts};
use backup_format::segment::SegmentDecoder;
use backup_format::tree::{Content, Extent, Node, NodeKind, PAGE_LEVELS_MAX, Page};
use backup_format::{ChunkId, ChunkKind, OpenKey, SnapshotId};
use futures::StreamExt;
use futures::future::BoxFuture;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One entry of a snapshot. Record content: only for a holder of the open key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the snapshot's root, without a leading slash; not always UTF-8.
    pub path: Vec<u8>,
    pub kind: EntryKind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_unix_ns: i128,
}

/// The facts sealed into a snapshot.
pub async fn facts(_env: &Env, open: &OpenKey, store: &NamedStore, id: SnapshotId) -> Result<Option<Vec<u8>>> {
    let (_, inner) = read_manifest(open.catalog(), Some(open), id, store).await.map_err(|e| snapshot_error(e, id))?;
    Ok(inner.and_then(|inner| inner.facts))
}

/// Every entry at or below `prefix` (a path; empty: everything), in tree order.
pub async fn ls(env: &Env, open: &OpenKey, store: &NamedStore, id: SnapshotId, prefix: &[u8]) -> Result<Vec<Entry>> {
    let (reader, manifest) = Reader::open(env, open, store, id).await?;
    let wanted = if prefix.is_empty() { Vec::new() } else { vec![prefix.to_vec()] };
    let mut entries = Vec::new();
    reader
        .walk(manifest.root, &wanted, &mut |path, node| {
            if wanted.is_empty() || wanted.iter().any(|wanted| is_below(path, wanted)) {
                entries.push(entry(path, node));
            }
            Ok(())
        })
        .await?;
    Ok(entries)
}

fn entry(path: &[u8], node: &Node) -> Entry {
    let (kind, size) = match &node.kind {
        NodeKind::File { size, .. } => (EntryKind::File, *size),
        NodeKind::Directory { .. } => (EntryKind::Directory, 0),
        NodeKind::Symlink { target } => (EntryKind::Symlink, target.len() as u64),
        NodeKind::Fifo => (EntryKind::Fifo, 0),
        NodeKind::Socket => (EntryKind::Socket, 0),
        NodeKind::CharDevice { .. } => (EntryKind::CharDevice, 0),
        NodeKind::BlockDevice { .. } => (EntryKind::BlockDevice, 0),
    };
    Entry {
        path: path.to_vec(),
        kind,
        size,
        mode: node.mode,
        uid: node.uid,
        gid: node.gid,
        mtime_unix_ns: i128::from(node.mtime_s) * 1_000_000_000 + i128::from(node.mtime_ns),
    }
}

fn snapshot_error(error: Error, id: SnapshotId) -> Error {
    match error.kind() {
        ErrorKind::NotFound => Error::new(ErrorKind::NotFound, format!("this store does not hold snapshot {id}")),
        _ => error,
    }
}

/// Whether `path` is `top` or lies below it.
pub(crate) fn is_below(path: &[u8], top: &[u8]) -> bool {
    let top = top.strip_suffix(b"/").unwrap_or(top);
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.first() == Some(&b'/'))
}

/// A place of a chunk: pack and segment by their numbers in the reader.
pub(crate) type Place = (u32, u32);

const CACHED_SEGMENTS: usize = 32;

/// All that one store's indexes say, and how to get chunks from it.
pub(crate) struct Reader<'a> {
    pub(crate) env: &'a Env,
    pub(crate) open: &'a OpenKey,
    pub(crate) store: &'a NamedStore,
    pub(crate) packs: Vec<PackRecord>,
    places: IdMap<Place>,
    /// Further places of chunks that lie in several packs.
    more: HashMap<ChunkId, Vec<Place>>,
    cache: Mutex<SegmentCache>,
    /// Index objects that could not be read.
    pub(crate) bad_indexes: Vec<String>,
}

#[derive(Default)]
struct SegmentCache {
    segments: HashMap<Place, Arc<Vec<u8>>>,
    order: VecDeque<Place>,
}

impl<'a> Reader<'a> {
    /// Opens a snapshot at a store.
    pub(crate) async fn open(
        env: &'a Env,
        open: &'a OpenKey,
        store: &'a NamedStore,
        id: SnapshotId,
    ) -> Result<(Self, OuterManifest)> {
        let (manifest, _) =
            read_manifest(open.catalog(), Some(open), id, store).await.map_err(|error| snapshot_error(error, id))?;
        Ok((Self::load(env, open, store).await?, manifest))
    }

    /// Reads every index object of the store.
    pub(crate) async fn load(env: &'a Env, open: &'a OpenKey, store: &'a NamedStore) -> Result<Self> {
        require_at(store, open.catalog(), Purpose::Read).await?;
        let listed = store.store.list(INDEXES).await?;
        let read = |name: String| async move {
            let records = read_index(open, store, &name).await;
            (name, records)
        };
        let mut reads = futures::stream::iter(listed.into_iter().map(|object| read(object.name))).buffered(FETCHES);
        let (mut packs, mut bad_indexes): (Vec<PackRecord>, Vec<String>) = Default::default();
        while let Some((name, records)) = reads.next().await {
            match records {
                Ok(records) => packs.extend(records),
                Err(error) if error.kind() == ErrorKind::Damaged => bad_indexes.push(name),
                Err(error) => return Err(error),
            }
        }
        drop(reads);
        let (mut places, mut more): (IdMap<Place>, HashMap<ChunkId, Vec<Place>>) = Default::default();
        for (number, pack) in packs.iter().enumerate() {
            for (segment, record) in pack.segments.iter().enumerate() {
                let place = (number as u32, segment as u32);
                for (id, _) in &record.chunks {
                    if let Some(before) = places.insert(*id, place).filter(|before| *before != place) {
                        more.entry(*id).or_default().push(before);
                    }
                }
            }
        }
        Ok(Self { env, open, store, packs, places, more, cache: Mutex::default(), bad_indexes })
    }

    /// Where a chunk lies; several places where it was written more than once.
    pub(crate) fn places(&self, id: &ChunkId) -> Vec<Place> {
        let mut places: Vec<Place> = self.places.get(id).copied().into_iter().collect();
        places.extend(self.more.get(id).into_iter().flatten());
        places
    }

    pub(crate) fn segment(&self, place: Place) -> Option<(&PackRecord, &SegmentRecord)> {
        let pack = self.packs.get(place.0 as usize)?;
        Some((pack, pack.segments.get(place.1 as usize)?))
    }

    /// What to say when no place gives a chunk.
    pub(crate) fn lost(&self, places: &[Place]) -> Error {
        let object = places.first().and_then(|place| self.segment(*place)).map(|(pack, _)| pack_name(&pack.name));
        let object = object.or_else(|| self.bad_indexes.first().cloned());
        let what = object
            .map_or_else(|| "an index object is gone".to_owned(), |name| format!("object {name} is damaged or gone"));
        let remedy = "restore from another store and heal this one";
        Error::new(ErrorKind::Damaged, format!("at store {} {what}: {remedy}", self.store.name))
    }

    /// A chunk's bytes, its id recomputed; every place is tried.
    pub(crate) async fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>> {
        let places = self.places(id);
        for place in &places {
            let Some((pack, record)) = self.segment(*place).filter(|(pack, _)| pack.kind == kind) else { continue };
            let plain = match self.plain_segment(*place, pack, record).await {
                Ok(plain) => plain,
                Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => continue,
                Err(error) => return Err(error),
            };
            for (found, bytes) in chunks_of(record, &plain) {
                if found == id && self.open.id_key().chunk_id(kind, bytes) == *id {
                    return Ok(bytes.to_vec());
                }
            }
        }
        Err(self.lost(&places))
    }

    async fn plain_segment(&self, place: Place, pack: &PackRecord, record: &SegmentRecord) -> Result<Arc<Vec<u8>>> {
        if let Some(known) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).segments.get(&place) {
            return Ok(Arc::clone(known));
        }
        let from = u64::from(record.offset);
        let range = from..from + u64::from(record.sealed_len);
        let sealed = self.store.store.get_range(&pack_name(&pack.name), range).await?;
        let opened = pack.opener(self.open.repository()).open(place.1, &sealed)?;
        let plain = Arc::new(SegmentDecoder::new()?.decode(record.compressed, opened, record.plain_len())?);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.order.len() >= CACHED_SEGMENTS
            && let Some(oldest) = cache.order.pop_front()
        {
            cache.segments.remove(&oldest);
        }
        cache.order.push_back(place);
        cache.segments.insert(place, Arc::clone(&plain));
        Ok(plain)
    }

    async fn page(&self, id: &ChunkId) -> Result<Page> {
        Ok(Page::parse(&self.chunk(ChunkKind::Tree, id).await?)?)
    }

    /// All entries of a directory.
    pub(crate) fn directory(&self, root: ChunkId, level: usize) -> BoxFuture<'_, Result<Vec<Node>>> {
        Box::pin(async move {
            match self.page(&root).await? {
                Page::Directory(nodes) => Ok(nodes),
                Page::DirectoryIndex(below) if level < PAGE_LEVELS_MAX => {
                    let mut nodes: Vec<Node> = Vec::new();
                    for (_, id) in below {
                        let more = self.directory(id, level + 1).await?;
                        let ascending = match (nodes.last(), more.first()) {
                            (Some(before), Some(next)) => before.name < next.name,
                            _ => true,
                        };
                        if !ascending {
                            return Err(malformed());
                        }
                        nodes.extend(more);
                    }
                    Ok(nodes)
                }
                _ => Err(malformed()),
            }
        })
    }

    /// All extents of a file's content, which must add up to its size.
    pub(crate) async fn extents(&self, size: u64, content: &Content) -> Result<Vec<Extent>> {
        let extents = match content {
            Content::Inline(extents) => extents.clone(),
            Content::Paged(root) => self.extent_pages(*root, 0).await?,
        };
        let sum = extents.iter().try_fold(0u64, |sum, extent| sum.checked_add(extent.len()));
        if sum == Some(size) { Ok(extents) } else { Err(malformed()) }
    }

    fn extent_pages(&self, root: ChunkId, level: usize) -> BoxFuture<'_, Result<Vec<Extent>>> {
        Box::pin(async move {
            match self.page(&root).await? {
                Page::Extents(extents) => Ok(extents),
                Page::ExtentIndex(below) if level < PAGE_LEVELS_MAX => {
                    let mut extents = Vec::new();
                    for (_, id) in below {
                        extents.extend(self.extent_pages(id, level + 1).await?);
                    }
                    Ok(extents)
                }
                _ => Err(malformed()),
            }
        })
    }

    /// Visits every entry that is wanted, above or below a wanted path, parents first.
    pub(crate) async fn walk(
        &self,
        root: ChunkId,
        wanted: &[Vec<u8>],
        visit: &mut (dyn FnMut(&[u8], &Node) -> Result<()> + Send),
    ) -> Result<()> {
        let take = |path: &[u8]| {
            wanted.is_empty() || wanted.iter().any(|wanted| is_below(path, wanted) || is_below(wanted, path))
        };
        let mut stack = vec![(Vec::new(), root)];
        // Directories are visited in a stack's order; entries of one directory in name order.
        while let Some((prefix, root)) = stack.pop() {
            let nodes = self.directory(root, 0).await?;
            let mut below = Vec::new();
            for node in nodes {
                let path =
                    if prefix.is_empty() { node.name.clone() } else { [&prefix, b"/".as_slice(), &node.name].concat() };
                if !take(&path) {
                    continue;
                }
                visit(&path, &node)?;
                if let NodeKind::Directory { root } = node.kind {
                    if path.len() > PATH_BYTES_MAX {
                        return Err(malformed());
                    }
                    below.push((path, root));
                }
            }
            stack.extend(below.into_iter().rev());
        }
        Ok(())
    }
}

/// Longer paths are not followed: a tree that contains itself would never end.
const PATH_BYTES_MAX: usize = 1 << 18;

fn malformed() -> Error {
    Error::new(ErrorKind::Damaged, "the snapshot's tree is malformed")
}

/// Pairs each chunk id with its bytes in the plain segment.
pub(crate) fn chunks_of<'a>(
    record: &'a SegmentRecord,
    plain: &'a [u8],
) -> impl Iterator<Item = (&'a ChunkId, &'a [u8])> {
    let mut rest = plain;
    record.chunks.iter().map_while(move |(id, len)| {
        let (chunk, tail) = rest.split_at_checked(*len as usize)?;
        rest = tail;
        Some((id, chunk))
    })
}

pub(crate) async fn read_index(open: &OpenKey, store: &NamedStore, name: &str) -> Result<Vec<PackRecord>> {
    let bytes = fetch(store, name).await?;
    let parts = open_parts(PartsKind::Index, open.catalog(), &bytes)?;
    let catalog = parse_catalog(&parts.catalog_part)?;
    Ok(parse_open(&catalog, &parts.open_part(open.open_seed())?)?)
}
