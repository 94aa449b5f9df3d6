//! Tombstones of an order: one for each run of counters that is gone, in place of those that it grew from. So there are
//! never many more of them than heads.

use super::land::Land;
use crate::ahead::is_loss;
use crate::error::Result;
use crate::heads::SnapshotInfo;
use crate::store::NamedStore;
use crate::survey::{FETCHES, HEADS, TOMBSTONES, fetch_any};
use backup_format::condemned::{PLAN_TOMBSTONES_MAX, Plan};
use backup_format::head::HeadName;
use backup_format::tombstone::{Tombstone, TombstoneName, TombstoneReason};
use backup_format::{CatalogKey, IncarnationId, ObjectHash, OpenKey, PrunerCredential, SnapshotId, SourceId};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Chain = (SourceId, IncarnationId);

/// Counters that are gone: a head of the order, or what a tombstone stands for already.
struct Piece {
    first: u64,
    last: u64,
    head: ObjectHash,
    snapshot: SnapshotId,
    reason: TombstoneReason,
    stone: Option<(TombstoneName, Bytes)>,
}

/// What stands for the heads of an order.
pub(super) struct Stones {
    /// Every store must hold them before anything goes.
    pub(super) standing: Vec<(TombstoneName, Bytes)>,
    /// In their place these stand; ascending, as many as an order has room for.
    pub(super) replaced: Vec<TombstoneName>,
}

impl Stones {
    /// They are the same however often an order is executed by one pruner.
    pub(super) async fn of(
        (open, pruner): (&OpenKey, &PrunerCredential),
        (stores, land): (&[NamedStore], &Land),
        order: &Plan,
    ) -> Result<Self> {
        let chains = Chains::of(land, order);
        let mut runs = Self { standing: Vec::new(), replaced: Vec::new() };
        for ((chain, _), mut pieces) in chains.pieces((open.catalog(), stores), land, order).await? {
            pieces.retain(|piece| chains.continues(chain, piece));
            pieces.sort_by_key(|piece| (piece.first, piece.last));
            let mut rest = pieces.into_iter().peekable();
            while let Some(piece) = rest.next() {
                let mut last = piece.last;
                let mut run = vec![piece];
                while let Some(next) = rest.next_if(|next| next.first <= last.saturating_add(1)) {
                    last = last.max(next.last);
                    run.push(next);
                }
                runs.stand_for(chain, run, (pruner, order))?;
            }
        }
        // What an earlier order replaced goes until it is gone everywhere.
        let earlier = land.condemned.order.iter().flat_map(|(_, order)| &order.tombstones);
        runs.replaced.extend(earlier.filter(|name| land.size_of(&name.to_string()) > 0));
        runs.replaced.sort_unstable();
        runs.replaced.dedup();
        runs.replaced.truncate(PLAN_TOMBSTONES_MAX);
        Ok(runs)
    }

    /// One tombstone for a run: the one that stands for all of it, or a new one.
    fn stand_for(&mut self, chain: Chain, run: Vec<Piece>, (pruner, order): (&PrunerCredential, &Plan)) -> Result<()> {
        let first = run.iter().map(|piece| piece.first).min().unwrap_or_default();
        let Some(last) = run.iter().max_by_key(|piece| piece.last) else { return Ok(()) };
        let is_whole = |piece: &&Piece| piece.first == first && piece.last == last.last;
        let whole = run.iter().filter(is_whole).find_map(|piece| piece.stone.clone());
        let standing = match whole {
            Some(stone) => stone,
            None => {
                let stone = Tombstone {
                    source: chain.0,
                    incarnation: chain.1,
                    first,
                    last: last.last,
                    head: last.head,
                    snapshot: last.snapshot,
                    plan: order.executes.unwrap_or(ObjectHash([0; 32])).0,
                    time_unix_ms: order.time_unix_ms,
                    reason: last.reason,
                };
                let bytes = stone.sign(pruner)?;
                (stone.name(&bytes), Bytes::from(bytes))
            }
        };
        let replaced = run.into_iter().filter_map(|piece| piece.stone).map(|(name, _)| name);
        self.replaced.extend(replaced.filter(|name| *name != standing.0));
        self.standing.push(standing);
        Ok(())
    }
}

/// The heads that stay.
struct Chains {
    staying: BTreeMap<Chain, BTreeSet<u64>>,
    /// What the head with a counter names as the one before it.
    predecessors: HashMap<(Chain, u64), ObjectHash>,
}

/// A chain and the last head that stays before some counters: what is gone between two heads that stay.
type Between = (Chain, Option<u64>);

impl Chains {
    fn of(land: &Land, order: &Plan) -> Self {
        let goes = |name: &HeadName| order.heads.binary_search_by_key(name, |gone| gone.head).is_ok();
        let mut staying: BTreeMap<Chain, BTreeSet<u64>> = BTreeMap::new();
        for name in land.listed(HEADS).into_keys().filter_map(|name| name.parse::<HeadName>().ok()) {
            if !goes(&name) {
                staying.entry((name.source, name.incarnation)).or_default().insert(name.counter);
            }
        }
        // The first of a chain has none, and names heads of other chains.
        let stays = land.snapshots.iter().map(|(info, _)| info).filter(|info| info.counter > 1 && !goes(&info.head));
        let predecessor =
            |info: &SnapshotInfo| Some((((info.head.source, info.incarnation), info.counter), *info.follows.first()?));
        Self { staying, predecessors: stays.filter_map(predecessor).collect() }
    }

    fn stays(&self, chain: Chain, counter: u64) -> bool {
        self.staying.get(&chain).is_some_and(|staying| staying.contains(&counter))
    }

    fn between(&self, chain: Chain, counter: u64) -> Between {
        let before = self.staying.get(&chain).and_then(|staying| staying.range(..counter).next_back());
        (chain, before.copied())
    }

    /// Whether the head after a piece names its last head as the one before; otherwise it stands for nothing, and must
    /// not make a longer run as worthless.
    fn continues(&self, chain: Chain, piece: &Piece) -> bool {
        let next = piece.last.checked_add(1).and_then(|next| self.predecessors.get(&(chain, next)));
        next.is_none_or(|expected| *expected == piece.head)
    }

    /// What is gone wherever a head goes now, or several tombstones stand.
    async fn pieces(
        &self,
        (catalog, stores): (&CatalogKey, &[NamedStore]),
        land: &Land,
        order: &Plan,
    ) -> Result<BTreeMap<Between, Vec<Piece>>> {
        let mut pieces: BTreeMap<Between, Vec<Piece>> = BTreeMap::new();
        for gone in &order.heads {
            let (chain, counter) = ((gone.head.source, gone.head.incarnation), gone.head.counter);
            if !self.stays(chain, counter) {
                let (first, last, head) = (counter, counter, gone.head.hash);
                let piece = Piece { first, last, head, snapshot: gone.snapshot, reason: gone.reason, stone: None };
                pieces.entry(self.between(chain, counter)).or_default().push(piece);
            }
        }
        let mut stones: BTreeMap<Between, Vec<TombstoneName>> = BTreeMap::new();
        for name in land.listed(TOMBSTONES).into_keys().filter_map(|name| name.parse::<TombstoneName>().ok()) {
            stones.entry(self.between((name.source, name.incarnation), name.last)).or_default().push(name);
        }
        stones.retain(|between, stones| stones.len() > 1 || pieces.contains_key(between));
        let read = |(between, name): (Between, TombstoneName)| {
            async move { read(catalog, stores, land, name).await.map(|piece| (between, piece)) }.boxed()
        };
        let names: Vec<_> = stones
            .into_iter()
            .flat_map(|(between, names)| names.into_iter().map(move |name| (between, name)))
            .collect();
        let mut reads = futures::stream::iter(names.into_iter().map(read)).buffered(FETCHES);
        while let Some(read) = reads.next().await {
            let (between, piece) = read?;
            pieces.entry(between).or_default().extend(piece);
        }
        Ok(pieces)
    }
}

/// Those of an order's tombstones that may go at a store: by the names that it holds, another stands for them there.
pub(super) fn replaced_at(held: impl Iterator<Item = TombstoneName>, order: &Plan) -> impl Iterator<Item = String> {
    let mut standing: BTreeMap<Chain, Vec<(u64, u64)>> = BTreeMap::new();
    for name in held.filter(|name| order.tombstones.binary_search(name).is_err()) {
        standing.entry((name.source, name.incarnation)).or_default().push((name.first, name.last));
    }
    for runs in standing.values_mut() {
        runs.sort_unstable();
        // How far those go that begin here or before.
        let mut furthest = 0;
        runs.iter_mut().for_each(|(_, last)| {
            furthest = furthest.max(*last);
            *last = furthest;
        });
    }
    let is_replaced = move |name: &&TombstoneName| {
        let runs = standing.get(&(name.source, name.incarnation)).map(Vec::as_slice).unwrap_or_default();
        let before = runs.partition_point(|(first, _)| *first <= name.first);
        before.checked_sub(1).and_then(|at| runs.get(at)).is_some_and(|(_, last)| *last >= name.last)
    };
    order.tombstones.iter().filter(is_replaced).map(TombstoneName::to_string)
}

/// A tombstone that is whole somewhere. Another is none, and goes on saying so.
async fn read(catalog: &CatalogKey, stores: &[NamedStore], land: &Land, name: TombstoneName) -> Result<Option<Piece>> {
    let bytes = match fetch_any(stores, &land.views, &name.to_string()).await {
        Err(error) if is_loss(&error) => return Ok(None),
        bytes => bytes?,
    };
    let stone = Tombstone::open(&bytes, catalog).ok().filter(|stone| stone.name(&bytes) == name);
    Ok(stone.map(|stone| Piece {
        first: stone.first,
        last: stone.last,
        head: stone.head,
        snapshot: stone.snapshot,
        reason: stone.reason,
        stone: Some((name, bytes)),
    }))
}
