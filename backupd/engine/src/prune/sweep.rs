//! What may go: packs without a chunk that is needed, packs that are worth rewriting, index objects that are replaced.

use super::copies::Copies;
use super::land::Land;
use super::mark::Mark;
use super::{PruneRequest, sorted};
use crate::ahead::is_loss;
use crate::error::Result;
use crate::locations::Locations;
use crate::read::{Reader, read_index};
use crate::survey::{FETCHES, INDEXES, PACKS, hash_in_name, index_name, pack_name};
use backup_format::pack::PackRecord;
use backup_format::{ChunkId, ChunkKind, ObjectHash};
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// Packs up to this size are small; so many of one kind are made into one.
const SMALL_PACK_BYTES: u32 = 256 << 10;
const SMALL_PACKS_MIN: usize = 16;
/// Index objects below this size are small; so many are merged.
const SMALL_INDEX_BYTES: u64 = 4 << 20;
const SMALL_INDEXES_MIN: usize = 16;

/// What may go and what must be written first.
pub(super) struct Sweep {
    /// All packs that go, rewritten ones included.
    pub(super) packs: Vec<ObjectHash>,
    /// Packs of which the chunks that are needed are written anew.
    pub(super) rewrite: Vec<ObjectHash>,
    /// Those chunks, in the order of their packs.
    pub(super) chunks: Vec<(ChunkKind, ChunkId)>,
    pub(super) rewritten_bytes: u64,
    /// Index objects that go.
    pub(super) indexes: Vec<ObjectHash>,
    /// What they say of packs that stay.
    pub(super) records: Vec<PackRecord>,
    pub(super) indexes_listed: usize,
}

/// How much of a pack is needed, in sealed bytes.
#[derive(Default, Clone, Copy)]
struct Use {
    live: u64,
}

impl Sweep {
    pub(super) async fn new(reader: &Reader<'_>, mark: &Mark, land: &Land, request: &PruneRequest<'_>) -> Result<Self> {
        let mut sweep = Self {
            packs: Vec::new(),
            rewrite: Vec::new(),
            chunks: Vec::new(),
            rewritten_bytes: 0,
            indexes: Vec::new(),
            records: Vec::new(),
            indexes_listed: 0,
        };
        if land.kept().is_empty() && land.lost_ids().is_empty() {
            // No snapshot yet, or none that could be judged: what is there belongs to one that is being taken. Where all that
            // would have stayed is given up, writers must learn what they can build on no longer.
            return Ok(sweep);
        }
        let kept = Kept::of(&reader.locations, mark, land);
        let used = sweep.choose_packs(&reader.locations, &kept, land, request);
        sweep.choose_indexes(reader, land, &used, request).await?;
        Ok(sweep)
    }

    /// Gives the packs that stay because something needs them.
    fn choose_packs(
        &mut self,
        locations: &Locations,
        kept: &Kept,
        land: &Land,
        request: &PruneRequest<'_>,
    ) -> BTreeSet<ObjectHash> {
        let (mut used, mut thin, mut small) = (BTreeSet::new(), Vec::new(), BTreeMap::<u8, Vec<u32>>::new());
        for number in 0..locations.packs_count() as u32 {
            let (Some(pack), Some(usage)) = (locations.pack(number), kept.uses.get(number as usize)) else { continue };
            if usage.live == 0 {
                continue;
            }
            used.insert(pack.name);
            if !land.somewhere(&pack_name(&pack.name), u64::from(pack.bytes)) {
                // Nobody could read it.
                continue;
            }
            if pack.bytes <= SMALL_PACK_BYTES {
                small.entry(pack.kind.code()).or_default().push(number);
            } else if usage.live * 100 < content(locations, number) * u64::from(request.rewrite_below_percent) {
                thin.push(number);
            }
        }
        let live = |number: &u32| kept.uses.get(*number as usize).map_or(0, |usage| usage.live);
        // The most is freed for the least by the emptiest.
        thin.sort_by_key(live);
        let many = small.into_values().filter(|packs| packs.len() >= SMALL_PACKS_MIN).flatten();
        let mut budget = request.rewrite_bytes_max;
        let mut numbers = Vec::new();
        for number in many.chain(thin) {
            if live(&number) <= budget {
                budget -= live(&number);
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        for number in numbers {
            let Some(pack) = locations.pack(number) else { continue };
            used.remove(&pack.name);
            self.rewrite.push(pack.name);
            self.rewritten_bytes += live(&number);
            for copy in locations.segments_of(number).flat_map(|segment| locations.copies_in(segment)) {
                if let Some(id) = locations.id(copy).filter(|_| kept.is_keeper(copy)) {
                    self.chunks.push((pack.kind, id));
                }
            }
        }
        let listed = land.listed(PACKS).into_keys().filter_map(hash_in_name);
        self.packs = sorted(listed.filter(|pack| !used.contains(pack)).collect());
        used
    }

    /// Index objects that name a pack that goes are replaced; so are small ones, when there are many.
    async fn choose_indexes(
        &mut self,
        reader: &Reader<'_>,
        land: &Land,
        used: &BTreeSet<ObjectHash>,
        request: &PruneRequest<'_>,
    ) -> Result<()> {
        let listed = land.listed(INDEXES);
        self.indexes_listed = listed.len();
        let going: HashSet<ObjectHash> = self.packs.iter().copied().collect();
        let small = listed.values().filter(|size| **size < SMALL_INDEX_BYTES).count() >= SMALL_INDEXES_MIN;
        let names: Vec<(ObjectHash, u64)> =
            listed.iter().filter_map(|(name, size)| Some((hash_in_name(name)?, *size))).collect();
        // A listing may be older than the deletion of what the newest order takes out.
        let ordered = &land.condemned.going();
        let read = |(hash, size): (ObjectHash, u64)| {
            async move {
                let name = index_name(&hash);
                match read_index(reader.open, reader.store, &name).await {
                    // It says nothing any more, and goes.
                    Err(error) if is_loss(&error) && (request.given_up.has(&name) || ordered.contains(&name)) => {
                        Ok((hash, size, None))
                    }
                    said => Ok::<_, crate::Error>((hash, size, Some(said?))),
                }
            }
            .boxed()
        };
        let mut reads = futures::stream::iter(names.into_iter().map(read)).buffered(FETCHES);
        let mut records: BTreeMap<ObjectHash, PackRecord> = BTreeMap::new();
        while let Some((hash, size, said)) = reads.try_next().await? {
            // A pack that nobody holds any more is said no longer, unless something needs it: it may come back.
            let gone = |record: &PackRecord| {
                let held = || land.somewhere(&pack_name(&record.name), u64::from(record.bytes));
                going.contains(&record.name) || !(used.contains(&record.name) || held())
            };
            let Some(said) = said else {
                self.indexes.push(hash);
                continue;
            };
            let merged = small && size < SMALL_INDEX_BYTES || said.iter().any(gone);
            if !merged {
                continue;
            }
            self.indexes.push(hash);
            records.extend(said.into_iter().filter(|record| !gone(record)).map(|record| (record.name, record)));
        }
        self.indexes = sorted(std::mem::take(&mut self.indexes));
        self.records = records.into_values().collect();
        Ok(())
    }
}

/// Sealed bytes of a pack's segments. Its padding is no waste that rewriting would free.
fn content(locations: &Locations, pack: u32) -> u64 {
    let segments = locations.segments_of(pack).filter_map(|segment| locations.segment(segment));
    segments.map(|segment| u64::from(segment.sealed_len)).sum()
}

/// Of each chunk that is reached, the copy that stays; and how much of each pack that makes.
pub(super) struct Kept {
    uses: Vec<Use>,
    keepers: Vec<u64>,
}

impl Kept {
    pub(super) fn of(locations: &Locations, mark: &Mark, land: &Land) -> Self {
        let everywhere: Vec<bool> = (0..locations.packs_count() as u32)
            .map(|number| {
                locations
                    .pack(number)
                    .is_some_and(|pack| land.everywhere(&pack_name(&pack.name), u64::from(pack.bytes)))
            })
            .collect();
        let mut kept = Self {
            uses: vec![Use::default(); locations.packs_count()],
            keepers: vec![0; locations.copies_count().div_ceil(64)],
        };
        for copy in 0..locations.copies_count() as u32 {
            let Some(id) = locations.id(copy) else { continue };
            if locations.copies(&id).next() != Some(copy) || !mark.reached.has(copy) {
                continue;
            }
            let pack_of = |copy: &u32| locations.segment(locations.segment_of(*copy)).map_or(0, |segment| segment.pack);
            let safe = |copy: &u32| everywhere.get(pack_of(copy) as usize).copied().unwrap_or(false);
            let size = |copy: &u32| locations.pack(pack_of(copy)).map_or(0, |pack| pack.bytes);
            // The larger pack stays; of equals the one that came first.
            match locations.copies(&id).filter(safe).max_by_key(|copy| (size(copy), std::cmp::Reverse(*copy))) {
                Some(copy) => kept.keep(locations, copy),
                // No copy is in every store: then all stay.
                None => locations.copies(&id).for_each(|copy| kept.keep(locations, copy)),
            }
        }
        kept
    }

    fn keep(&mut self, locations: &Locations, copy: u32) {
        if let Some(word) = self.keepers.get_mut(copy as usize / 64) {
            *word |= 1 << (copy % 64);
        }
        let number = locations.segment_of(copy);
        let Some(segment) = locations.segment(number) else { return };
        let len = locations.range(number, copy).len() as u64;
        let share = len * u64::from(segment.sealed_len) / u64::from(segment.plain_len.max(1));
        if let Some(usage) = self.uses.get_mut(segment.pack as usize) {
            // A chunk of nothing is needed too.
            usage.live += share.max(1);
        }
    }

    fn is_keeper(&self, copy: u32) -> bool {
        self.keepers.get(copy as usize / 64).is_some_and(|word| word & (1 << (copy % 64)) != 0)
    }
}

/// Packs that hold a chunk that is reached.
pub(super) fn reached<'l>(locations: &'l Locations, mark: &'l Mark) -> impl Iterator<Item = &'l PackRecord> {
    let numbers = (0..).zip(&mark.reached.packs).filter(|(_, reached)| **reached);
    numbers.filter_map(|(number, _)| locations.pack(number))
}

/// Of these packs those that hold a chunk that is reached and that no other pack holds, whole, in every store.
pub(super) async fn needed(
    locations: &Locations,
    mark: &Mark,
    packs: &[ObjectHash],
    copies: &mut Copies<'_>,
) -> Result<HashSet<ObjectHash>> {
    let there = |pack: &&ObjectHash| copies.land.size_of(&pack_name(pack)) > 0;
    let going: HashSet<&ObjectHash> = packs.iter().filter(there).collect();
    let pack_of = |copy: u32| {
        let segment = locations.segment(locations.segment_of(copy))?;
        locations.pack(segment.pack)
    };
    let mut safe: HashMap<ObjectHash, bool> = HashMap::new();
    let mut needed = HashSet::new();
    for copy in 0..locations.copies_count() as u32 {
        let Some((id, pack)) = locations.id(copy).zip(pack_of(copy)) else { continue };
        let is_reached = locations.copies(&id).next().is_some_and(|first| mark.reached.has(first));
        if !is_reached || !going.contains(&pack.name) || needed.contains(&pack.name) {
            continue;
        }
        let mut elsewhere = false;
        for other in locations.copies(&id).filter_map(pack_of).filter(|other| !going.contains(&other.name)) {
            elsewhere = match safe.get(&other.name) {
                Some(known) => *known,
                None => copies.are_everywhere(other).await?,
            };
            safe.insert(other.name, elsewhere);
            if elsewhere {
                break;
            }
        }
        if !elsewhere {
            needed.insert(pack.name);
        }
    }
    Ok(needed)
}
