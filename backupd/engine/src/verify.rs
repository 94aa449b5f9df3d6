//! Verify: without a key every name against its hash, with the open key everything a snapshot reaches.

use crate::ahead::{Ahead, Window, Worker, is_loss, run};
use crate::candidate::candidate_of;
use crate::condemned::{CONDEMNED, Condemned};
use crate::damage::is_listed;
use crate::descend::{Descent, Extents, Reached};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gaps::gaps;
use crate::heads::{read_manifest, read_signed};
use crate::keyring::{KEYRINGS, require_at};
use crate::locations::Locations;
use crate::progress::{Phase, Progress, ProgressEvent};
use crate::read::{Reader, read_index};
use crate::store::NamedStore;
use crate::survey::{
    FETCHES, HEADS, INDEXES, PACKS, SNAPSHOTS, TOMBSTONES, View, by_object, fetch, hash_in_name, pack_name,
    snapshot_name,
};
use backup_format::features::Purpose;
use backup_format::head::{Head, HeadName};
use backup_format::pack::open_pack;
use backup_format::segment::SegmentDecoder;
use backup_format::tree::{Extent, NodeKind};
use backup_format::{ChunkKind, IdKey, OpenKey, SnapshotId};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The name of an object in a store: opaque ids only.
pub type ObjectName = String;

/// How much to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Read every pack and recompute every chunk id; otherwise catalog, trees and presence by name and size.
    pub read_data: bool,
    /// One snapshot: what it needs of the store. `None`: all whose heads the store holds, and what their indexes name.
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

/// Whole packs under way at once.
const PACKS_AHEAD: Window = Window { requests_max: 8, bytes_max: 48 << 20 };
/// Heads and snapshots under way at once; they are small.
const SMALL_AHEAD: Window = Window { requests_max: FETCHES, bytes_max: 16 << 20 };

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
    let listed = store.store.list("").await?;
    let again = listed.iter().filter_map(|object| candidate_of(&object.name)).map(str::to_owned).collect();
    let mut listed = by_object(listed);
    let small = |name: &&String| [KEYRINGS, TOMBSTONES, CONDEMNED].iter().any(|prefix| name.starts_with(prefix));
    hash_all(store, listed.keys().filter(small).cloned().collect(), &mut outcome, progress).await?;
    let before = (outcome.missing.clone(), outcome.corrupt.clone());
    let (heads, condemned) = heads(open, store, &listed, &mut outcome).await?;
    let going = condemned.going();
    let wanted = match request.snapshot {
        Some(wanted) if heads.contains(&wanted) => {
            // Other heads are no matter of this one's.
            (outcome.missing, outcome.corrupt) = before;
            BTreeSet::from([wanted])
        }
        Some(wanted) => {
            return Err(Error::new(ErrorKind::NotFound, format!("this store holds no head of snapshot {wanted}")));
        }
        None => heads,
    };
    let one = request.snapshot.is_some();
    let excused = if one { BTreeSet::new() } else { excused(open, store, &listed, &condemned).await? };
    listed.retain(|name, _| name.starts_with(PACKS) || name.starts_with(SNAPSHOTS));
    // Index objects are compared with their names as they are read.
    let reader = Reader::load(env, open, store).await?;
    outcome.objects += reader.indexes.0;
    outcome.bytes_read += reader.indexes.1;
    let mut check = Check { reader: &reader, listed: &listed, again, one, excused, outcome, unread: Vec::new() };
    let reached = check.trees(&wanted).await?;
    // What a damaged index object says may stand in others too: one snapshot may do without it.
    if !one || reached.unknown > 0 || !check.unread.is_empty() {
        let bad = reader.bad_indexes.iter().filter(|bad| !going.contains(*bad));
        check.outcome.corrupt.extend(bad.cloned());
    }
    check.packs(&reached, request.read_data, progress).await?;
    let mut outcome = check.outcome;
    for names in [&mut outcome.missing, &mut outcome.corrupt] {
        names.sort();
        names.dedup();
    }
    Ok(outcome)
}

/// Packs that may be gone: they count as absent, or the newest order takes out an index object that names them. A lock may keep an index
/// object for long, and a writer that slept may have put one after its packs had gone.
async fn excused(
    open: &OpenKey,
    store: &NamedStore,
    listed: &BTreeMap<String, u64>,
    condemned: &Condemned,
) -> Result<BTreeSet<ObjectName>> {
    let going = condemned.going();
    let mut packs: BTreeSet<ObjectName> = condemned.packs().iter().map(pack_name).collect();
    for name in listed.keys().filter(|name| name.starts_with(INDEXES) && going.contains(*name)) {
        match read_index(open, store, name).await {
            Ok(records) => packs.extend(records.iter().map(|record| pack_name(&record.name))),
            // It is told when all of them are read.
            Err(error) if is_loss(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(packs)
}

/// The snapshots that the store's heads name, and what is being deleted.
async fn heads(
    open: &OpenKey,
    store: &NamedStore,
    listed: &BTreeMap<String, u64>,
    outcome: &mut VerifyOutcome,
) -> Result<(BTreeSet<SnapshotId>, Condemned)> {
    let jobs = listed.iter().filter(|(name, _)| name.starts_with(HEADS));
    let jobs = jobs.map(|(name, size)| (*size as usize, name.clone()));
    let read = |name: String| {
        async move {
            let head = match name.parse::<HeadName>() {
                Ok(parsed) => read_signed(open.catalog(), parsed, store).await,
                Err(error) => Err(error.into()),
            };
            (name, head)
        }
        .boxed()
    };
    let mut reads = Ahead::new(SMALL_AHEAD, jobs, read).all_at_once();
    let (mut ids, mut heads, mut unread) = (BTreeSet::new(), Vec::new(), Vec::new());
    while let Some((_share, (name, head))) = reads.next().await {
        outcome.objects += 1;
        outcome.bytes_read += listed.get(&name).copied().unwrap_or(0);
        match head {
            Ok(head) => heads.push((name, head)),
            Err(error) => unread.push((name, error)),
        }
    }
    let plans = listed.iter().filter(|(name, _)| name.starts_with(CONDEMNED));
    let views = [View { listing: Ok(plans.map(|(name, size)| (name.clone(), *size)).collect()) }];
    let condemned = Condemned::read(open.catalog(), std::slice::from_ref(store), &views, None).await;
    for (name, error) in unread {
        // A listing may be older than a deletion.
        let is_going = name.parse().is_ok_and(|head| condemned.takes_out(&head));
        if !(is_going && error.kind() == ErrorKind::NotFound) {
            outcome.note(name, error)?;
        }
    }
    for (name, head) in &heads {
        // What is being taken out, or never counted, need not be whole.
        if !name.parse().is_ok_and(|name| condemned.takes_out(&name)) && !is_late(open, store, &condemned, head).await {
            ids.insert(head.snapshot);
        }
    }
    let heads: Vec<Head> = heads.into_iter().map(|(_, head)| head).collect();
    let names = listed.keys().filter_map(|name| name.parse().ok());
    let missing = gaps(open.catalog(), std::slice::from_ref(store), names, &heads).await?;
    outcome.missing.extend(missing.iter().map(ToString::to_string));
    // The newest snapshot is never taken out, so somebody else has taken the heads; the first of all may also be on its way.
    if !holds(listed, HEADS) && holds(listed, SNAPSHOTS) {
        outcome.missing.push(format!("{HEADS}(no head names a snapshot that the store holds)"));
    }
    Ok((ids, condemned))
}

fn holds(listed: &BTreeMap<String, u64>, prefix: &str) -> bool {
    listed.keys().any(|name| name.starts_with(prefix))
}

async fn is_late(open: &OpenKey, store: &NamedStore, condemned: &Condemned, head: &Head) -> bool {
    if !condemned.is_late(head, None) {
        return false;
    }
    // One that cannot be read is looked at like any other, and found to be damaged.
    let read = read_manifest(open.catalog(), None, head.snapshot, store).await;
    read.is_ok_and(|(outer, _)| condemned.is_late(head, outer.plan_seen))
}

impl VerifyOutcome {
    /// Notes why something could not be read; a store that does not answer ends the verification instead.
    fn note(&mut self, name: ObjectName, error: Error) -> Result<()> {
        match error.kind() {
            ErrorKind::Unreachable | ErrorKind::Denied | ErrorKind::Retry | ErrorKind::Busy => return Err(error),
            ErrorKind::NotFound => self.missing.push(name),
            _ => self.corrupt.push(name),
        }
        Ok(())
    }
}

struct Check<'r, 'a> {
    reader: &'r Reader<'a>,
    listed: &'r BTreeMap<String, u64>,
    /// Objects that have further candidates.
    again: BTreeSet<String>,
    /// One snapshot is asked for, not the whole store.
    one: bool,
    /// Packs that are no loss when they are gone, unless something needs them.
    excused: BTreeSet<ObjectName>,
    outcome: VerifyOutcome,
    /// Snapshots of whose trees something could not be read.
    unread: Vec<SnapshotId>,
}

impl Check<'_, '_> {
    /// Goes down the trees of all snapshots; what two of them share is followed once.
    async fn trees(&mut self, snapshots: &BTreeSet<SnapshotId>) -> Result<Reached> {
        let mut descent = Descent::new(self.reader);
        descent.reached = Some(Reached::new(&self.reader.locations));
        for id in snapshots {
            self.outcome.snapshots += 1;
            self.outcome.objects += 1;
            let name = snapshot_name(&id.0);
            self.outcome.bytes_read += self.listed.get(&name).copied().unwrap_or(0);
            let (open, store) = (self.reader.open, self.reader.store);
            match read_manifest(open.catalog(), Some(open), *id, store).await {
                Ok((outer, _)) => descent.enter(&[(0, outer.root)]),
                Err(error) => {
                    self.outcome.note(name, error)?;
                    continue;
                }
            }
            if !self.tree(&mut descent).await? {
                self.unread.push(*id);
            }
        }
        let reached = descent.reached.take().unwrap_or_else(|| Reached::new(&self.reader.locations));
        if reached.unknown > 0 && self.reader.bad_indexes.is_empty() {
            self.outcome.missing.push(format!("{INDEXES}(no index names a chunk of the snapshot)"));
        }
        Ok(reached)
    }

    /// Whether everything of a tree could be read.
    async fn tree(&mut self, descent: &mut Descent<'_, '_>) -> Result<bool> {
        let mut whole = true;
        loop {
            let nodes = match descent.next().await {
                Ok(Some((_, nodes))) => nodes,
                Ok(None) => return Ok(whole),
                Err(error) if is_loss(&error) => {
                    whole = false;
                    continue;
                }
                Err(error) => return Err(error),
            };
            for node in nodes {
                match node.kind {
                    NodeKind::Directory { root } => descent.enter(&[(0, root)]),
                    NodeKind::File { size, content } => {
                        whole &= self.content(Extents::new(size, content), &mut descent.reached).await?;
                    }
                    _ => {}
                }
            }
        }
    }

    async fn content(&self, mut extents: Extents, reached: &mut Option<Reached>) -> Result<bool> {
        loop {
            match extents.next(self.reader, reached).await {
                Ok(None) => return Ok(true),
                Ok(Some(extents)) => {
                    for extent in extents {
                        if let (Extent::Data { id, .. }, Some(reached)) = (extent, reached.as_mut()) {
                            reached.reach(&self.reader.locations, &id);
                        }
                    }
                }
                Err(error) if is_loss(&error) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Looks at the packs that are reached: there and of the right size, and read where that is asked for.
    async fn packs(&mut self, reached: &Reached, read_data: bool, progress: &dyn Progress) -> Result<()> {
        let (mut checks, mut bad) = (Vec::new(), Vec::new());
        for number in 0..reached.packs.len() as u32 {
            let Some(pack) = self.reader.locations.pack(number) else { continue };
            let tree = pack.kind == ChunkKind::Tree;
            // Where a page could not be read every pack of trees is suspect, so that the right one is named.
            if !reached.packs.get(number as usize).is_some_and(|reached| *reached) && (self.unread.is_empty() || !tree)
            {
                continue;
            }
            let error = |kind| (number, Error::new(kind, "as the listing shows"));
            self.outcome.objects += 1;
            match self.listed.get(&pack_name(&pack.name)) {
                None => bad.push(error(ErrorKind::NotFound)),
                Some(size) if *size != u64::from(pack.bytes) => bad.push(error(ErrorKind::Damaged)),
                // Trees are always read: they are small, and they hold the names.
                Some(_) if read_data || tree => checks.push((pack.bytes as usize, number)),
                Some(_) => {}
            }
        }
        let found = Arc::new(Findings::default());
        self.read_packs(checks, &found, progress).await?;
        self.outcome.bytes_read += found.bytes.load(Ordering::Relaxed);
        bad.append(&mut found.bad.lock().unwrap_or_else(PoisonError::into_inner));
        let numbers: BTreeSet<u32> = bad.iter().map(|(number, _)| *number).collect();
        for (number, error) in bad {
            let Some(name) = self.reader.locations.pack(number).map(|pack| pack_name(&pack.name)) else { continue };
            // A snapshot is whole when each of its chunks lies whole in some pack; the whole store is only without damage.
            let excused = self.one || error.kind() == ErrorKind::NotFound && self.excused.contains(&name);
            if excused && self.unread.is_empty() && !self.needs(reached, number, &numbers) && is_loss(&error) {
                continue;
            }
            self.outcome.note(name, error)?;
        }
        if self.outcome.is_ok() {
            // Every object is what was written, and yet a tree cannot be followed: the writer made it so.
            self.outcome.corrupt.extend(self.unread.iter().map(|id| snapshot_name(&id.0)));
        }
        Ok(())
    }

    /// Whether a chunk that is reached lies in this pack and in no whole one.
    fn needs(&self, reached: &Reached, number: u32, bad: &BTreeSet<u32>) -> bool {
        let locations = &self.reader.locations;
        let whole = |copy| locations.segment(locations.segment_of(copy)).is_some_and(|at| !bad.contains(&at.pack));
        locations
            .segments_of(number)
            .flat_map(|segment| locations.copies_in(segment))
            .filter_map(|copy| locations.id(copy))
            .any(|id| reached.is_reached(locations, &id) && !locations.copies(&id).any(whole))
    }

    async fn read_packs(
        &self,
        checks: Vec<(usize, u32)>,
        found: &Arc<Findings>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let (reader, again) = (self.reader, &self.again);
        let fetch = move |number: u32| {
            async move {
                let name = reader.locations.pack(number).map(|pack| pack_name(&pack.name)).unwrap_or_default();
                let bytes = match again.contains(&name) {
                    true => fetch(reader.store, &name).await,
                    // The checker compares it with its name, on a thread of its own.
                    false => reader.store.store.get(&name).await,
                };
                match bytes {
                    Err(error) if !is_loss(&error) => Err(error),
                    bytes => Ok((number, bytes)),
                }
            }
            .boxed()
        };
        let (locations, findings) = (Arc::clone(&reader.locations), Arc::clone(found));
        let (id_key, seed) = (reader.open.id_key().clone(), reader.open.to_bytes());
        let make = Arc::new(move || {
            Ok(PackChecker {
                locations: Arc::clone(&locations),
                id_key: id_key.clone(),
                open: OpenKey::from_bytes(&seed)?,
                found: Arc::clone(&findings),
                decoder: SegmentDecoder::new()?,
                opened: Vec::new(),
                plain: Vec::new(),
            })
        });
        let before = self.outcome.bytes_read;
        let total: u64 = checks.iter().map(|(bytes, _)| *bytes as u64).sum();
        let mut seen = || {
            let done = before + found.bytes.load(Ordering::Relaxed);
            report(progress, done, Some(before + total), reader.store);
        };
        run(reader.env, Ahead::new(PACKS_AHEAD, checks.into_iter(), fetch), make, &mut seen).await
    }
}

/// What the checkers found.
#[derive(Default)]
struct Findings {
    bytes: AtomicU64,
    bad: Mutex<Vec<(u32, Error)>>,
}

/// Checks whole packs on one thread.
struct PackChecker {
    locations: Arc<Locations>,
    id_key: IdKey,
    open: OpenKey,
    found: Arc<Findings>,
    decoder: SegmentDecoder,
    opened: Vec<u8>,
    plain: Vec<u8>,
}

impl Worker<(u32, Result<Bytes>)> for PackChecker {
    fn work(&mut self, (number, fetched): (u32, Result<Bytes>)) -> Result<()> {
        let checked = fetched.and_then(|bytes| {
            self.found.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            self.check(number, &bytes)
        });
        if let Err(error) = checked {
            self.found.bad.lock().unwrap_or_else(PoisonError::into_inner).push((number, error));
        }
        Ok(())
    }
}

impl PackChecker {
    /// Compares a pack with its name, opens it by its own header, compares it with its index, decodes every segment
    /// and recomputes every id.
    fn check(&mut self, number: u32, bytes: &Bytes) -> Result<()> {
        let damaged = |what: &str| Error::new(ErrorKind::Damaged, format!("a pack {what}"));
        let locations = Arc::clone(&self.locations);
        let pack = locations.pack(number).ok_or_else(|| damaged("is not known"))?;
        let own = open_pack(bytes, self.open.repository(), self.open.open_seed())?;
        if own.name != pack.name {
            return Err(damaged("is not what was written"));
        }
        if !locations.matches(number, own.kind, &own.segments) {
            return Err(damaged("differs from its index"));
        }
        let opener = pack.opener(self.open.repository());
        for segment in locations.segments_of(number) {
            let Some(place) = locations.segment(segment) else { continue };
            let sealed = bytes.get(place.offset as usize..place.end() as usize);
            let sealed = sealed.ok_or_else(|| damaged("is shorter than its index says"))?;
            opener.open_into(place.slot, sealed, &mut self.opened)?;
            let len = place.plain_len as usize;
            let plain = self.decoder.decode_in(place.compressed, &self.opened, len, &mut self.plain)?;
            let same = |copy| {
                let chunk = plain.get(locations.range(segment, copy)).unwrap_or_default();
                locations.id(copy) == Some(self.id_key.chunk_id(own.kind, chunk))
            };
            if !locations.copies_in(segment).all(same) {
                return Err(damaged("holds a chunk that is not what its id says"));
            }
        }
        Ok(())
    }
}

fn report(progress: &dyn Progress, done_bytes: u64, total_bytes: Option<u64>, store: &NamedStore) {
    let phase = Phase::Fetch;
    progress.report(ProgressEvent { phase, done_bytes, total_bytes, files: 0, store: Some(&store.name) });
}

/// Whether one object is there and what its name says. Needs no key.
pub async fn is_whole(store: &NamedStore, object: &str) -> Result<bool> {
    match fetch(store, object).await {
        Ok(_) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Damaged) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether an object that was not whole is not whole still. One that is not listed any more is no damage.
pub async fn is_damaged_still(store: &NamedStore, object: &str) -> Result<bool> {
    match fetch(store, object).await {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(is_listed(store, object).await),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(true),
        Err(error) => Err(error),
    }
}

/// Reads every object of the store and compares it with the hash in its name. Needs no key.
pub async fn verify_keyless(_env: &Env, store: &NamedStore, progress: &dyn Progress) -> Result<VerifyOutcome> {
    let mut outcome = VerifyOutcome::default();
    let listed = by_object(store.store.list("").await?);
    hash_all(store, listed.into_keys().collect(), &mut outcome, progress).await?;
    outcome.missing.sort();
    outcome.corrupt.sort();
    Ok(outcome)
}

async fn hash_all(
    store: &NamedStore,
    names: Vec<String>,
    outcome: &mut VerifyOutcome,
    progress: &dyn Progress,
) -> Result<()> {
    let ours = names.into_iter().filter(|name| hash_in_name(name).is_some());
    let read = |name: String| async move {
        let bytes = fetch(store, &name).await;
        (name, bytes.map(|bytes| bytes.len() as u64))
    };
    let mut reads = futures::stream::iter(ours.map(read)).buffer_unordered(FETCHES / 2);
    while let Some((name, read)) = reads.next().await {
        outcome.objects += 1;
        match read {
            Ok(size) => outcome.bytes_read += size,
            // What is listed no longer went meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                outcome.missing.extend(is_listed(store, &name).await.then_some(name));
            }
            Err(error) => outcome.note(name, error)?,
        }
        report(progress, outcome.bytes_read, None, store);
    }
    Ok(())
}
