//! Reading a snapshot with the open key, from one store.

use crate::ahead::{Ahead, Window, is_loss};
use crate::candidate::{CANDIDATES_MAX, candidate_name};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::heads::{open_manifest, read_manifest};
use crate::keyring::require_at;
use crate::list::kind_and_size;
use crate::locations::{CopyNumber, Locations, LocationsBuilder, SegmentPlace};
use crate::store::NamedStore;
use crate::survey::{FETCHES, INDEXES, by_object, fetch, pack_name, snapshot_name};
use backup_format::features::Purpose;
use backup_format::index::{parse_catalog, parse_open};
use backup_format::manifest::{InnerManifest, OuterManifest};
use backup_format::pack::PackRecord;
use backup_format::sealed::{PartsKind, open_parts};
use backup_format::segment::SegmentDecoder;
use backup_format::tree::{Node, NodeKind, PAGE_LEVELS_MAX, Page};
use backup_format::{ChunkId, ChunkKind, OpenKey, SnapshotId};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand_core::Rng;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::ops::Range;
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
    let (kind, size) = kind_and_size(node);
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

/// Plain segments kept for reading pages and single chunks, bytes.
const CACHED_BYTES_MAX: usize = 16 << 20;
/// Index objects fetched at once, bytes: their records take about as much again.
const INDEX_WINDOW: Window = Window { requests_max: FETCHES, bytes_max: 16 << 20 };

/// All that one store's indexes say, and how to get chunks from it.
pub(crate) struct Reader<'a> {
    pub(crate) env: &'a Env,
    pub(crate) open: &'a OpenKey,
    pub(crate) store: &'a NamedStore,
    /// Where to look for what this store does not have whole.
    others: &'a [NamedStore],
    pub(crate) locations: Arc<Locations>,
    cache: Mutex<SegmentCache>,
    decoder: Mutex<SegmentDecoder>,
    /// Packs that were asked for at this store and are not there: of what is lost, the right word is told.
    missing: Mutex<BTreeSet<String>>,
    /// Index objects that could not be read.
    pub(crate) bad_indexes: Vec<String>,
    /// Index objects, and their bytes.
    pub(crate) indexes: (u64, u64),
}

/// The plain segments that were used last.
#[derive(Default)]
struct SegmentCache {
    segments: HashMap<usize, Arc<Vec<u8>>>,
    order: VecDeque<usize>,
    bytes: usize,
}

impl SegmentCache {
    fn keep(&mut self, segment: usize, plain: &Arc<Vec<u8>>) {
        if self.segments.insert(segment, Arc::clone(plain)).is_none() {
            self.bytes += plain.len();
            self.order.push_back(segment);
        }
        while self.bytes > CACHED_BYTES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.bytes -= self.segments.remove(&oldest).map_or(0, |plain| plain.len());
        }
    }
}

impl<'a> Reader<'a> {
    /// Opens a snapshot at a store.
    pub(crate) async fn open(
        env: &'a Env,
        open: &'a OpenKey,
        store: &'a NamedStore,
        id: SnapshotId,
    ) -> Result<(Self, OuterManifest)> {
        let (reader, manifest, _) = Self::open_with(env, open, (store, &[]), id).await?;
        Ok((reader, manifest))
    }

    /// The same with other stores to fall back on, object by object.
    pub(crate) async fn open_with(
        env: &'a Env,
        open: &'a OpenKey,
        (store, others): (&'a NamedStore, &'a [NamedStore]),
        id: SnapshotId,
    ) -> Result<(Self, OuterManifest, InnerManifest)> {
        let bytes = fetch_from(store, others, &snapshot_name(&id.0)).await;
        let (manifest, inner) =
            open_manifest(open.catalog(), Some(open), &bytes.map_err(|error| snapshot_error(error, id))?)?;
        Ok((Self::load_with(env, open, (store, others)).await?, manifest, inner.unwrap_or_default()))
    }

    /// Reads every index object of the store.
    pub(crate) async fn load(env: &'a Env, open: &'a OpenKey, store: &'a NamedStore) -> Result<Self> {
        Self::load_with(env, open, (store, &[])).await
    }

    /// The same with other stores to fall back on.
    pub(crate) async fn load_with(
        env: &'a Env,
        open: &'a OpenKey,
        (store, others): (&'a NamedStore, &'a [NamedStore]),
    ) -> Result<Self> {
        require_at(store, open.catalog(), Purpose::Read).await.or_else(|error| fall_back(error, others))?;
        let listed = store.store.list(INDEXES).await.map(by_object);
        let mut listed = listed.or_else(|error| fall_back(error, others).map(|()| BTreeMap::new()))?;
        for other in others {
            // One that does not answer is no reason to go without the rest.
            listed.extend(other.store.list(INDEXES).await.map(by_object).unwrap_or_default());
        }
        let indexes = (listed.len() as u64, listed.values().sum());
        let jobs = listed.into_iter().map(|(name, size)| (size as usize, name));
        let read = |name: String| {
            async move {
                let records = fetch_from(store, others, &name).await.and_then(|bytes| open_index(open, &bytes));
                (name, records)
            }
            .boxed()
        };
        let mut reads = Ahead::new(INDEX_WINDOW, jobs, read).all_at_once();
        let mut found = LocationsBuilder::new([env.rng().next_u64(), env.rng().next_u64()]);
        let mut bad_indexes = Vec::new();
        while let Some((_share, (name, records))) = reads.next().await {
            match records {
                Ok(records) => records.into_iter().try_for_each(|record| found.add(record))?,
                Err(error) if is_loss(&error) => bad_indexes.push(name),
                Err(error) => return Err(error),
            }
        }
        drop(reads);
        let (locations, decoder) = (Arc::new(found.finish()), Mutex::new(SegmentDecoder::new()?));
        Ok(Self {
            env,
            open,
            store,
            others,
            locations,
            cache: Mutex::default(),
            decoder,
            missing: Mutex::default(),
            bad_indexes,
            indexes,
        })
    }

    /// What to say when no copy of a chunk can be read. `copy`: one that was tried.
    pub(crate) fn lost(&self, copy: Option<CopyNumber>) -> Error {
        let locations = &self.locations;
        let segment = copy.and_then(|copy| locations.segment(locations.segment_of(copy)));
        let object = segment.and_then(|segment| locations.pack(segment.pack)).map(|pack| pack_name(&pack.name));
        let object = object.or_else(|| self.bad_indexes.first().cloned());
        let missing = self.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let what = match object {
            None => "an index object is missing".to_owned(),
            Some(name) if missing.contains(&name) => format!("object {name} is missing"),
            Some(name) => format!("object {name} is corrupt"),
        };
        let remedy = "restore from another store and heal this one";
        Error::new(ErrorKind::Damaged, format!("at store {} {what}: {remedy}", self.store.name))
    }

    /// Where a pack may lie, best place first: under its own name here and at the other stores, then as each further
    /// candidate.
    pub(crate) fn place(&self, level: usize, pack: &PackRecord) -> Option<(&NamedStore, String)> {
        let stores = self.stores();
        let store = match (level % stores).checked_sub(1) {
            None => self.store,
            Some(other) => self.others.get(other)?,
        };
        let name = pack_name(&pack.name);
        match u32::try_from(level / stores).ok()? {
            0 => Some((store, name)),
            number if number <= CANDIDATES_MAX => Some((store, candidate_name(&name, number))),
            _ => None,
        }
    }

    /// A range of a pack; `None` where it cannot be had.
    pub(crate) async fn range_at(&self, level: usize, pack: &PackRecord, range: Range<u64>) -> Result<Option<Bytes>> {
        let Some((store, name)) = self.place(level, pack) else { return Ok(None) };
        match store.store.get_range(&name, range).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if level == 0 && error.kind() == ErrorKind::NotFound => {
                self.missing.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
                Ok(None)
            }
            Err(error) if is_loss(&error) || !self.others.is_empty() => Ok(None),
            Err(error) => Err(error.context(format!("at store {}", store.name))),
        }
    }

    pub(crate) fn stores(&self) -> usize {
        1 + self.others.len()
    }

    /// The levels of [`Self::place`].
    pub(crate) fn levels(&self) -> usize {
        (1 + CANDIDATES_MAX as usize) * self.stores()
    }

    /// A chunk's bytes, its id recomputed; every copy at every place is tried.
    pub(crate) async fn chunk(&self, kind: ChunkKind, id: &ChunkId) -> Result<Vec<u8>> {
        let mut tried = None;
        for level in 0..self.levels() {
            if let Some(bytes) = self.chunk_at(level, (kind, id), &mut tried).await? {
                return Ok(bytes);
            }
        }
        Err(self.lost(tried))
    }

    async fn chunk_at(
        &self,
        level: usize,
        (kind, id): (ChunkKind, &ChunkId),
        tried: &mut Option<CopyNumber>,
    ) -> Result<Option<Vec<u8>>> {
        for copy in self.locations.copies(id) {
            *tried = Some(copy);
            let number = self.locations.segment_of(copy);
            let Some(segment) = self.locations.segment(number) else { continue };
            let Some(pack) = self.locations.pack(segment.pack).filter(|pack| pack.kind == kind) else { continue };
            let plain = match self.plain_segment(level, number, (segment, pack)).await {
                Ok(Some(plain)) => plain,
                Ok(None) => continue,
                Err(error) if is_loss(&error) => continue,
                Err(error) => return Err(error),
            };
            let bytes = plain.get(self.locations.range(number, copy)).unwrap_or_default();
            if self.open.id_key().chunk_id(kind, bytes) == *id {
                return Ok(Some(bytes.to_vec()));
            }
        }
        Ok(None)
    }

    async fn plain_segment(
        &self,
        level: usize,
        number: usize,
        (segment, pack): (&SegmentPlace, &PackRecord),
    ) -> Result<Option<Arc<Vec<u8>>>> {
        // What was kept came from a place at which it could be opened; its chunks are checked by whoever asks.
        if level == 0
            && let Some(known) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).segments.get(&number)
        {
            return Ok(Some(Arc::clone(known)));
        }
        let range = u64::from(segment.offset)..u64::from(segment.end());
        let Some(sealed) = self.range_at(level, pack, range).await? else { return Ok(None) };
        let opened = pack.opener(self.open.repository()).open(segment.slot, &sealed)?;
        let mut decoder = self.decoder.lock().unwrap_or_else(PoisonError::into_inner);
        let plain = Arc::new(decoder.decode(segment.compressed, opened, segment.plain_len as usize)?);
        drop(decoder);
        self.cache.lock().unwrap_or_else(PoisonError::into_inner).keep(number, &plain);
        Ok(Some(plain))
    }

    pub(crate) async fn page(&self, id: &ChunkId) -> Result<Page> {
        Ok(Page::parse(&self.chunk(ChunkKind::Tree, id).await?)?)
    }

    /// One entry of a directory; only the pages on the way to it are read.
    pub(crate) async fn look_up(&self, root: ChunkId, name: &[u8]) -> Result<Option<Node>> {
        let mut page = root;
        for _ in 0..=PAGE_LEVELS_MAX {
            match self.page(&page).await? {
                Page::Directory(nodes) => {
                    let found = nodes.binary_search_by(|node| node.name.as_slice().cmp(name));
                    return Ok(found.ok().and_then(|at| nodes.into_iter().nth(at)));
                }
                Page::DirectoryIndex(below) => {
                    let after = below.partition_point(|(first, _)| first.as_slice() <= name);
                    match after.checked_sub(1).and_then(|at| below.get(at)) {
                        Some((_, id)) => page = *id,
                        None => return Ok(None),
                    }
                }
                _ => return Err(malformed()),
            }
        }
        Err(malformed())
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

pub(crate) fn malformed() -> Error {
    Error::new(ErrorKind::Damaged, "the snapshot's tree is malformed")
}

pub(crate) async fn read_index(open: &OpenKey, store: &NamedStore, name: &str) -> Result<Vec<PackRecord>> {
    open_index(open, &fetch(store, name).await?)
}

fn open_index(open: &OpenKey, bytes: &[u8]) -> Result<Vec<PackRecord>> {
    let parts = open_parts(PartsKind::Index, open.catalog(), bytes)?;
    let catalog = parse_catalog(&parts.catalog_part)?;
    Ok(parse_open(&catalog, &parts.open_part(open.open_seed())?)?)
}

/// Fetches an object from the first of these stores that has it whole; the error is that of the first.
async fn fetch_from(store: &NamedStore, others: &[NamedStore], name: &str) -> Result<Bytes> {
    let error = match fetch(store, name).await {
        Ok(bytes) => return Ok(bytes),
        Err(error) => error,
    };
    for other in others {
        if let Ok(bytes) = fetch(other, name).await {
            log::warn!(store = store.name.as_str(), object = name, from = other.name.as_str(); "read.fell-back");
            return Ok(bytes);
        }
    }
    Err(error)
}

/// What a store does not answer matters less when there are others.
fn fall_back(error: Error, others: &[NamedStore]) -> Result<()> {
    if others.is_empty() || error.kind() == ErrorKind::Misconfigured { Err(error) } else { Ok(()) }
}
