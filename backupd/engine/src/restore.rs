//! Restore from one store.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Phase, Progress, ProgressEvent};
use crate::read::{Place, Reader, chunks_of, is_below};
use crate::store::NamedStore;
use crate::survey::pack_name;
use crate::target::Target;
use backup_format::pack::{PackRecord, SegmentRecord};
use backup_format::segment::SegmentDecoder;
use backup_format::tree::{Extent, Node, NodeKind};
use backup_format::{ChunkId, ChunkKind, IdKey, OpenKey, RepositoryId, SnapshotId};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

/// What to restore, and where to.
#[derive(Debug, Clone, Default)]
pub struct RestoreRequest {
    /// The target directory; made when absent. Nothing outside of it is written.
    pub into: PathBuf,
    /// Paths from the snapshot's root (`PART/dir/file`), or below `top`; empty: everything.
    pub paths: Vec<Vec<u8>>,
    /// Whether files that exist may be replaced; otherwise one existing entry refuses the restore before it starts.
    pub overwrite: bool,
    /// Name of a part that stands for the whole snapshot where it is a directory: its content goes to the top of the
    /// target, its attributes to the target itself, and `paths` begin below it. Empty: none.
    pub top: Vec<u8>,
}

/// What was restored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOutcome {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    /// Bytes read from the store.
    pub bytes_fetched: u64,
    /// Attributes (owner, device, extended attribute) that this user or file system could not set.
    pub attributes_refused: u64,
    pub duration_ms: u64,
}

/// Pieces fetched and decoded at once.
const PARALLEL: usize = 3;
/// The most sealed bytes fetched in one piece, and the largest gap read through rather than around.
const PIECE_BYTES_MAX: u32 = 4 << 20;
const GAP_BYTES_MAX: u32 = 256 << 10;

/// Restores from this one store. Every chunk's id is recomputed before its bytes are written.
pub async fn restore(
    env: &Env,
    open: &OpenKey,
    store: &NamedStore,
    id: SnapshotId,
    request: RestoreRequest,
    progress: &dyn Progress,
) -> Result<RestoreOutcome> {
    let started = env.steady_ms();
    let (reader, manifest) = Reader::open(env, open, store, id).await?;
    let (root, target_itself) = top(&reader, manifest.root, &request).await?;
    let mut items: Vec<(Vec<u8>, Node)> = target_itself.map(|node| (TARGET.to_vec(), node)).into_iter().collect();
    reader
        .walk(root, &request.paths, &mut |path, node| {
            items.push((path.to_vec(), node.clone()));
            Ok(())
        })
        .await?;
    if let Some(at) = request.paths.iter().position(|path| !items.iter().any(|(found, _)| is_below(found, path))) {
        return Err(Error::new(ErrorKind::NotFound, format!("path number {} is not in the snapshot", at + 1)));
    }
    let into = request.into.clone();
    let target = Arc::new(env.blocking(move || Target::open(&into)).await?.map_err(|error| target_error(&error))?);
    let items = Arc::new(items);
    let (made_in, made, overwrite) = (Arc::clone(&target), Arc::clone(&items), request.overwrite);
    let mut outcome = env.blocking(move || make_entries(&made_in, &made, overwrite)).await??;
    let plan = plan(&reader, &items).await?;
    let mut fetched = 0;
    let total = items.iter().map(|(_, node)| size(node)).sum();
    let mut pieces = futures::stream::iter(plan.pieces(&reader).into_iter().map(|piece| {
        let (items, target) = (Arc::clone(&items), Arc::clone(&target));
        write_piece(&reader, piece, items, target)
    }))
    .buffer_unordered(PARALLEL);
    while let Some(done) = pieces.next().await {
        let (sealed, plain) = done?;
        fetched += sealed;
        outcome.bytes += plain;
        progress.report(ProgressEvent {
            phase: Phase::Fetch,
            done_bytes: outcome.bytes,
            total_bytes: Some(total),
            files: outcome.files,
            store: Some(&store.name),
        });
    }
    drop(pieces);
    outcome.attributes_refused = env.blocking(move || finish(&target, &items)).await??;
    outcome.bytes_fetched = fetched;
    outcome.duration_ms = env.steady_ms().saturating_sub(started);
    Ok(outcome)
}

/// Where the target itself stands among the paths of a restore.
const TARGET: &[u8] = b".";

/// Where the restore begins; and the directory whose attributes the target gets, when all of it is wanted.
async fn top(reader: &Reader<'_>, root: ChunkId, request: &RestoreRequest) -> Result<(ChunkId, Option<Node>)> {
    if request.top.is_empty() {
        return Ok((root, None));
    }
    let parts = reader.directory(root, 0).await?;
    let top = parts.into_iter().find_map(|node| match node.kind {
        NodeKind::Directory { root } if node.name == request.top => Some((root, node)),
        _ => None,
    });
    Ok(match top {
        Some((root, node)) => (root, request.paths.is_empty().then_some(node)),
        None => (root, None),
    })
}

fn size(node: &Node) -> u64 {
    if let NodeKind::File { size, .. } = node.kind { size } else { 0 }
}

fn target_error(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::AlreadyExists => Error::new(
            ErrorKind::Misconfigured,
            "the target already holds an entry of this snapshot: choose an empty folder or allow overwriting",
        ),
        _ => Error::io("writing the target", error),
    }
}

/// The first name of a hard-linked file; later names are links to it.
fn first_names(items: &[(Vec<u8>, Node)]) -> HashMap<(u64, u64), usize> {
    let mut first = HashMap::new();
    for (at, (_, node)) in items.iter().enumerate() {
        if let Some(link) = node.hard_link {
            first.entry(link).or_insert(at);
        }
    }
    first
}

/// Makes directories and empty files. Refuses before anything is written when an entry exists and must not be replaced.
fn make_entries(target: &Target, items: &[(Vec<u8>, Node)], overwrite: bool) -> Result<RestoreOutcome> {
    let mut outcome = RestoreOutcome::default();
    let failed = |error: io::Error| target_error(&error);
    if !overwrite && !target.is_empty().map_err(failed)? {
        for (path, node) in items {
            let directory = matches!(node.kind, NodeKind::Directory { .. });
            if !directory && target.exists(path).map_err(failed)? {
                return Err(failed(io::ErrorKind::AlreadyExists.into()));
            }
        }
    }
    let first = first_names(items);
    for (at, (path, node)) in items.iter().enumerate() {
        let linked = node.hard_link.and_then(|link| first.get(&link)).is_some_and(|first| *first != at);
        match &node.kind {
            NodeKind::Directory { .. } => {
                outcome.directories += 1;
                target.make_directory(path, overwrite).map_err(failed)?;
            }
            NodeKind::File { size, .. } if !linked => {
                outcome.files += 1;
                target.make_file(path, *size, overwrite).map_err(failed)?;
            }
            _ => outcome.files += 1,
        }
    }
    // Links and special files come last, so that no file can be written through one.
    for (at, (path, node)) in items.iter().enumerate() {
        let first = node.hard_link.and_then(|link| first.get(&link)).filter(|first| **first != at);
        let made = match (first.and_then(|first| items.get(*first)), &node.kind) {
            (Some((first, _)), _) => target.make_link(first, path, overwrite),
            (None, NodeKind::Directory { .. } | NodeKind::File { .. }) => Ok(()),
            (None, _) => match target.make_special(path, node, overwrite) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                    outcome.attributes_refused += 1;
                    Ok(())
                }
                made => made,
            },
        };
        made.map_err(failed)?;
    }
    Ok(outcome)
}

/// Attributes, deepest entries first, so that a directory's own time is set last; then everything is made durable.
fn finish(target: &Target, items: &[(Vec<u8>, Node)]) -> Result<u64> {
    let mut refused = 0;
    for (path, node) in items.iter().rev() {
        match target.set_attributes(path, node) {
            Ok(count) => refused += count,
            // A device that this user may not make.
            Err(error) if error.kind() == io::ErrorKind::NotFound => refused += 1,
            Err(error) => return Err(target_error(&error)),
        }
    }
    target.sync().map_err(|error| target_error(&error))?;
    Ok(refused)
}

/// Where a chunk goes: item, offset.
type Goes = (usize, u64);

/// For every segment, which chunks go where.
struct Plan(BTreeMap<Place, HashMap<ChunkId, Vec<Goes>>>);

async fn plan(reader: &Reader<'_>, items: &[(Vec<u8>, Node)]) -> Result<Plan> {
    let first = first_names(items);
    let mut plan = BTreeMap::<Place, HashMap<ChunkId, Vec<Goes>>>::new();
    for (at, (_, node)) in items.iter().enumerate() {
        let NodeKind::File { size, content } = &node.kind else { continue };
        if node.hard_link.and_then(|link| first.get(&link)).is_some_and(|first| *first != at) {
            continue;
        }
        let mut offset = 0;
        for extent in reader.extents(*size, content).await? {
            if let Extent::Data { id, .. } = extent {
                let place = *reader.places(&id).first().ok_or_else(|| reader.lost(&[]))?;
                plan.entry(place).or_default().entry(id).or_default().push((at, offset));
            }
            offset += extent.len();
        }
    }
    Ok(Plan(plan))
}

/// Neighbouring segments of one pack, fetched together.
struct Piece {
    segments: Vec<(Place, HashMap<ChunkId, Vec<Goes>>)>,
    from: u32,
    to: u32,
}

impl Plan {
    /// In pack order, so that each segment is fetched and decoded once.
    fn pieces(self, reader: &Reader<'_>) -> Vec<Piece> {
        let mut pieces: Vec<Piece> = Vec::new();
        for (place, wanted) in self.0 {
            let Some((_, record)) = reader.segment(place) else { continue };
            let (from, to) = (record.offset, record.offset + record.sealed_len);
            let joins = |piece: &&mut Piece| {
                piece.segments.first().is_some_and(|(first, _)| first.0 == place.0)
                    && from >= piece.to
                    && from - piece.to <= GAP_BYTES_MAX
                    && to - piece.from <= PIECE_BYTES_MAX
            };
            match pieces.last_mut().filter(joins) {
                Some(piece) => {
                    piece.to = to;
                    piece.segments.push((place, wanted));
                }
                None => pieces.push(Piece { segments: vec![(place, wanted)], from, to }),
            }
        }
        pieces
    }
}

/// What a worker needs to decode and write one segment.
struct SegmentWork {
    pack: PackRecord,
    slot: u32,
    record: SegmentRecord,
    sealed: Bytes,
    wanted: HashMap<ChunkId, Vec<Goes>>,
}

type Items = Arc<Vec<(Vec<u8>, Node)>>;

async fn write_piece(reader: &Reader<'_>, piece: Piece, items: Items, target: Arc<Target>) -> Result<(u64, u64)> {
    let Some((pack, _)) = piece.segments.first().and_then(|(place, _)| reader.segment(*place)) else {
        return Ok((0, 0));
    };
    let range = u64::from(piece.from)..u64::from(piece.to);
    let fetched = reader.store.store.get_range(&pack_name(&pack.name), range).await;
    let bytes = match fetched {
        Ok(bytes) => Some(bytes),
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => None,
        Err(error) => return Err(error),
    };
    let mut work = Vec::new();
    for (place, wanted) in piece.segments {
        let Some((pack, record)) = reader.segment(place) else { continue };
        let from = (record.offset - piece.from) as usize;
        let sealed = bytes.as_ref().map(|bytes| bytes.slice(from..from + record.sealed_len as usize));
        work.push(SegmentWork {
            // The segment list is not needed by the worker.
            pack: PackRecord { segments: Vec::new(), ..pack.clone() },
            slot: place.1,
            record: record.clone(),
            sealed: sealed.unwrap_or_default(),
            wanted,
        });
    }
    let fetched = u64::from(piece.to - piece.from);
    let (id_key, repository) = (reader.open.id_key().clone(), reader.open.repository());
    let (files, into) = (Arc::clone(&items), Arc::clone(&target));
    let (mut written, failed) =
        reader.env.blocking(move || write_segments(&id_key, repository, work, &files, &into)).await??;
    // What this pack could not give may lie in another one.
    for (id, goes) in failed {
        let bytes = reader.chunk(ChunkKind::Data, &id).await?;
        for (at, offset) in goes {
            written += write_at(&target, &items, at, offset, &bytes)?;
        }
    }
    Ok((fetched, written))
}

type Failed = Vec<(ChunkId, Vec<Goes>)>;

fn write_segments(
    id_key: &IdKey,
    repository: RepositoryId,
    work: Vec<SegmentWork>,
    items: &[(Vec<u8>, Node)],
    target: &Target,
) -> Result<(u64, Failed)> {
    let mut decoder = SegmentDecoder::new()?;
    let (mut written, mut failed) = (0, Vec::new());
    let mut open: Option<(usize, std::fs::File)> = None;
    for mut segment in work {
        let plain = segment
            .pack
            .opener(repository)
            .open(segment.slot, &segment.sealed)
            .and_then(|opened| decoder.decode(segment.record.compressed, opened, segment.record.plain_len()));
        if let Ok(plain) = plain {
            for (id, bytes) in chunks_of(&segment.record, &plain) {
                if !segment.wanted.contains_key(id) || id_key.chunk_id(ChunkKind::Data, bytes) != *id {
                    continue;
                }
                for (at, offset) in segment.wanted.remove(id).unwrap_or_default() {
                    let file = match open.take().filter(|(last, _)| *last == at) {
                        Some((_, file)) => file,
                        None => open_item(target, items, at)?,
                    };
                    file.write_all_at(bytes, offset).map_err(|error| target_error(&error))?;
                    written += bytes.len() as u64;
                    open = Some((at, file));
                }
            }
        }
        failed.extend(segment.wanted);
    }
    Ok((written, failed))
}

fn open_item(target: &Target, items: &[(Vec<u8>, Node)], at: usize) -> Result<std::fs::File> {
    let path = items.get(at).map(|(path, _)| path.as_slice()).unwrap_or_default();
    target.open_file(path).map_err(|error| target_error(&error))
}

fn write_at(target: &Target, items: &[(Vec<u8>, Node)], at: usize, offset: u64, bytes: &[u8]) -> Result<u64> {
    open_item(target, items, at)?.write_all_at(bytes, offset).map_err(|error| target_error(&error))?;
    Ok(bytes.len() as u64)
}
