//! Verify: without a key every name against its hash, with the open key everything a snapshot reaches.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gaps::gaps;
use crate::heads::{read_manifest, read_signed};
use crate::keys::{KEYRINGS, require_at};
use crate::progress::{Phase, Progress, ProgressEvent};
use crate::read::{Place, Reader, chunks_of};
use crate::store::{ListedObject, NamedStore};
use crate::survey::{FETCHES, HEADS, INDEXES, TOMBSTONES, fetch, hash_in_name, pack_name, snapshot_name};
use backup_format::features::Purpose;
use backup_format::head::HeadName;
use backup_format::pack::{PackRecord, open_pack};
use backup_format::segment::SegmentDecoder;
use backup_format::tree::{Extent, NodeKind};
use backup_format::{ChunkId, ChunkKind, IdKey, ObjectHash, OpenKey, SnapshotId};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};

/// The name of an object in a store: opaque ids only.
pub type ObjectName = String;

/// How much to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Read every pack and recompute every chunk id; otherwise catalog, trees and presence by name and size.
    pub read_data: bool,
    /// One snapshot; `None`: all whose heads the store holds.
    pub snapshot: Option<SnapshotId>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyOutcome {
    /// Objects checked.
    pub objects: u64,
    pub bytes_read: u64,
    pub snapshots: u64,
    pub missing: Vec<ObjectName>,
    pub corrupt: Vec<ObjectName>,
}

impl VerifyOutcome {
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.missing.is_empty() && self.corrupt.is_empty()
    }
}

/// Packs read and decoded at once.
const PARALLEL: usize = 2;

/// Verifies what the snapshots reach at this store.
pub async fn verify(
    env: &Env,
    open: &OpenKey,
    store: &NamedStore,
    request: VerifyRequest,
    progress: &dyn Progress,
) -> Result<VerifyOutcome> {
    require_at(store, open.catalog(), Purpose::Check).await?;
    let mut outcome = VerifyOutcome::default();
    let listed: BTreeMap<String, u64> =
        store.store.list("").await?.into_iter().map(|object| (object.name, object.size)).collect();
    let small = |name: &&String| [KEYRINGS, INDEXES, HEADS, TOMBSTONES].iter().any(|prefix| name.starts_with(prefix));
    let objects = listed.iter().filter(|(name, _)| small(name)).map(|(name, size)| (name.clone(), *size));
    hash_all(store, objects.collect(), &mut outcome, progress).await?;
    let reader = Reader::load(env, open, store).await?;
    let mut check = Check { reader, listed: &listed, outcome, seen: BTreeSet::new(), packs: BTreeSet::new() };
    for id in snapshots(open, store, &listed, &mut check.outcome, request.snapshot).await? {
        check.snapshot(id).await?;
    }
    check.packs(request.read_data, progress).await?;
    let mut outcome = check.outcome;
    for names in [&mut outcome.missing, &mut outcome.corrupt] {
        names.sort();
        names.dedup();
    }
    Ok(outcome)
}

/// The snapshots that the store's heads name.
async fn snapshots(
    open: &OpenKey,
    store: &NamedStore,
    listed: &BTreeMap<String, u64>,
    outcome: &mut VerifyOutcome,
    wanted: Option<SnapshotId>,
) -> Result<BTreeSet<SnapshotId>> {
    let (mut ids, mut heads) = (BTreeSet::new(), Vec::new());
    for name in listed.keys().filter(|name| name.starts_with(HEADS)) {
        let head = match name.parse::<HeadName>() {
            Ok(parsed) => read_signed(open.catalog(), parsed, store).await,
            Err(error) => Err(error.into()),
        };
        match head {
            Ok(head) => {
                ids.insert(head.snapshot);
                heads.push(head);
            }
            Err(error) if error.kind() == ErrorKind::Unreachable => return Err(error),
            Err(_) => outcome.corrupt.push(name.clone()),
        }
    }
    let names = listed.keys().filter_map(|name| name.parse().ok());
    let missing = gaps(open.catalog(), std::slice::from_ref(store), names, &heads).await?;
    outcome.missing.extend(missing.iter().map(ToString::to_string));
    match wanted {
        Some(wanted) if ids.contains(&wanted) => Ok(BTreeSet::from([wanted])),
        Some(wanted) => Err(Error::new(ErrorKind::NotFound, format!("this store holds no head of snapshot {wanted}"))),
        None => Ok(ids),
    }
}

struct Check<'a> {
    reader: Reader<'a>,
    listed: &'a BTreeMap<String, u64>,
    outcome: VerifyOutcome,
    /// Directory and content roots that have been followed already.
    seen: BTreeSet<ChunkId>,
    /// Packs that the snapshots reach, by their number.
    packs: BTreeSet<u32>,
}

impl Check<'_> {
    /// Notes why something could not be read; an unreachable store ends the verification instead.
    fn note(&mut self, name: String, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Unreachable | ErrorKind::Denied | ErrorKind::Retry => return Err(error),
            ErrorKind::NotFound => self.outcome.missing.push(name),
            _ => self.outcome.corrupt.push(name),
        }
        Ok(())
    }

    async fn snapshot(&mut self, id: SnapshotId) -> Result<()> {
        self.outcome.snapshots += 1;
        self.outcome.objects += 1;
        let name = snapshot_name(&id.0);
        self.outcome.bytes_read += self.listed.get(&name).copied().unwrap_or(0);
        let (open, store) = (self.reader.open, self.reader.store);
        let root = match read_manifest(open.catalog(), Some(open), id, store).await {
            Ok((outer, _)) => outer.root,
            Err(error) => return self.note(name, error),
        };
        let mut below = vec![root];
        while let Some(directory) = below.pop() {
            if !self.seen.insert(directory) {
                continue;
            }
            self.reach(&directory);
            let nodes = match self.reader.directory(directory, 0).await {
                Ok(nodes) => nodes,
                Err(error) => {
                    self.lost(&directory, error)?;
                    continue;
                }
            };
            for node in nodes {
                match node.kind {
                    NodeKind::Directory { root } => below.push(root),
                    NodeKind::File { size, content } => match self.reader.extents(size, &content).await {
                        Ok(extents) => self.extents(&extents),
                        Err(error) => self.lost(&directory, error)?,
                    },
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn extents(&mut self, extents: &[Extent]) {
        for extent in extents {
            if let Extent::Data { id, .. } = extent {
                self.reach(id);
            }
        }
    }

    /// Notes the packs of a chunk. A chunk that no index knows is a loss by itself.
    fn reach(&mut self, id: &ChunkId) {
        let places = self.reader.places(id);
        if places.is_empty() {
            let lost = self.reader.bad_indexes.clone();
            let unknown = || vec![format!("{INDEXES}(no index names a chunk of the snapshot)")];
            self.outcome.missing.extend(if lost.is_empty() { unknown() } else { lost });
        }
        self.packs.extend(places.iter().map(|place: &Place| place.0));
    }

    /// A tree page could not be read: its packs are looked at one by one, so that the right one is named.
    fn lost(&mut self, page: &ChunkId, error: Error) -> Result<()> {
        if matches!(error.kind(), ErrorKind::Unreachable | ErrorKind::Denied | ErrorKind::Retry) {
            return Err(error);
        }
        let reader = &self.reader;
        // A page below the given one may be the damaged one: every pack of trees is suspect and will be read.
        let trees = reader.packs.iter().enumerate().filter(|(_, pack)| pack.kind == ChunkKind::Tree);
        self.packs.extend(trees.map(|(number, _)| number as u32));
        self.packs.extend(reader.places(page).iter().map(|place| place.0));
        Ok(())
    }

    async fn packs(&mut self, read_data: bool, progress: &dyn Progress) -> Result<()> {
        let mut checks = Vec::new();
        for number in &self.packs {
            let Some(pack) = self.reader.packs.get(*number as usize) else { continue };
            let name = pack_name(&pack.name);
            self.outcome.objects += 1;
            match self.listed.get(&name) {
                None => self.outcome.missing.push(name),
                Some(size) if *size != u64::from(pack.bytes) => self.outcome.corrupt.push(name),
                // Trees are always read: they are small, and they hold the names.
                Some(_) if read_data || pack.kind == ChunkKind::Tree => checks.push((name, pack.clone())),
                Some(_) => {}
            }
        }
        let (store, env, open) = (self.reader.store, self.reader.env, self.reader.open);
        let read = |(name, record): (String, PackRecord)| async move {
            let checked = match fetch(store, &name).await {
                Ok(bytes) => {
                    let (id_key, repository) = (open.id_key().clone(), open.repository());
                    let seed = open.to_bytes();
                    let size = bytes.len() as u64;
                    let work = move || check_pack(&bytes, &record, (&id_key, repository), &seed);
                    env.blocking(work).await.and_then(|checked| checked).map(|()| size)
                }
                Err(error) => Err(error),
            };
            (name, checked)
        };
        let mut reads = futures::stream::iter(checks.into_iter().map(read)).buffer_unordered(PARALLEL);
        let mut bad = Vec::new();
        while let Some((name, checked)) = reads.next().await {
            match checked {
                Ok(size) => self.outcome.bytes_read += size,
                Err(error) => bad.push((name, error)),
            }
            report(progress, &self.outcome, store);
        }
        drop(reads);
        for (name, error) in bad {
            self.note(name, error)?;
        }
        Ok(())
    }
}

/// Opens a pack by its own header, compares it with its index, decodes every segment and recomputes every id.
fn check_pack(
    bytes: &Bytes,
    record: &PackRecord,
    (id_key, repository): (&IdKey, backup_format::RepositoryId),
    open_key: &[u8],
) -> Result<()> {
    let damaged = |what: &str| Err(Error::new(ErrorKind::Damaged, format!("a pack {what}")));
    let open = OpenKey::from_bytes(open_key)?;
    let own = open_pack(bytes, repository, open.open_seed())?;
    if own.segments != record.segments || own.kind != record.kind {
        return damaged("differs from its index");
    }
    let (opener, mut decoder) = (record.opener(repository), SegmentDecoder::new()?);
    for (slot, segment) in record.segments.iter().enumerate() {
        let from = segment.offset as usize;
        let Some(sealed) = bytes.get(from..from + segment.sealed_len as usize) else {
            return damaged("is shorter than its index says");
        };
        let opened = opener.open(slot as u32, sealed)?;
        let plain = decoder.decode(segment.compressed, opened, segment.plain_len())?;
        if chunks_of(segment, &plain).any(|(id, chunk)| id_key.chunk_id(own.kind, chunk) != *id) {
            return damaged("holds a chunk that is not what its id says");
        }
    }
    Ok(())
}

fn report(progress: &dyn Progress, outcome: &VerifyOutcome, store: &NamedStore) {
    progress.report(ProgressEvent {
        phase: Phase::Fetch,
        done_bytes: outcome.bytes_read,
        total_bytes: None,
        files: 0,
        store: Some(&store.name),
    });
}

/// Reads every object of the store and compares it with the hash in its name. Needs no key.
pub async fn verify_keyless(_env: &Env, store: &NamedStore, progress: &dyn Progress) -> Result<VerifyOutcome> {
    let mut outcome = VerifyOutcome::default();
    let listed = store.store.list("").await?;
    hash_all(
        store,
        listed.into_iter().map(|ListedObject { name, size }| (name, size)).collect(),
        &mut outcome,
        progress,
    )
    .await?;
    outcome.missing.sort();
    outcome.corrupt.sort();
    Ok(outcome)
}

async fn hash_all(
    store: &NamedStore,
    objects: Vec<(String, u64)>,
    outcome: &mut VerifyOutcome,
    progress: &dyn Progress,
) -> Result<()> {
    let ours = objects.into_iter().filter_map(|(name, _)| hash_in_name(&name).map(|hash| (name, hash)));
    let read = |(name, hash): (String, ObjectHash)| async move {
        let bytes = store.store.get(&name).await;
        (name, bytes.map(|bytes| (bytes.len() as u64, ObjectHash::of(&bytes) == hash)))
    };
    let mut reads = futures::stream::iter(ours.map(read)).buffer_unordered(FETCHES / 2);
    while let Some((name, read)) = reads.next().await {
        outcome.objects += 1;
        match read {
            Ok((size, same)) => {
                outcome.bytes_read += size;
                if !same {
                    outcome.corrupt.push(name);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => outcome.missing.push(name),
            Err(error) => return Err(error),
        }
        report(progress, outcome, store);
    }
    Ok(())
}
