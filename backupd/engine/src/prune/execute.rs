//! Execution: wait until every writer has seen the plan, mark anew, put the order everywhere, delete.

use super::copies::Copies;
use super::land::Land;
use super::mark::Mark;
use super::stones::{Stones, replaced_at};
use super::tripwire::{self, Trip};
use super::{GivenUp, PruneRequest, put_everywhere, sweep, together};
use crate::ahead::is_loss;
use crate::candidate::candidate_of;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::heads::SnapshotInfo;
use crate::read::{Reader, read_index};
use crate::store::{NamedMaintenanceStore, NamedStore};
use crate::survey::{FETCHES, fetch, fetch_any, index_name, pack_name, snapshot_name};
use backup_format::condemned::{CondemnedHead, Plan, PlanName};
use backup_format::head::HeadName;
use backup_format::tombstone::TombstoneName;
use backup_format::{IncarnationId, ObjectHash, OpenKey, PrunerCredential, SnapshotId};
use bytes::Bytes;
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// Why nothing is deleted yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// The grace is not over.
    Grace { until_unix_ms: i64 },
    /// Writers that have made no snapshot since the plan: source and incarnation.
    Writers(Vec<(String, IncarnationId)>),
    /// What has come since the plan was announced looks like an attack: people look, and end the plan.
    Attack(Vec<Trip>),
}

/// What was deleted at a store.
#[derive(Debug)]
pub struct StorePruned {
    pub store: String,
    pub objects: u64,
    pub bytes: u64,
    /// Objects that a lock keeps: they are tried again by the next run.
    pub locked: u64,
    pub locked_bytes: u64,
    /// Why it ended early; the next run goes on.
    pub error: Option<Error>,
}

impl StorePruned {
    /// Nothing of the order is left there.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.locked == 0 && self.error.is_none()
    }
}

/// What came of an execution.
#[derive(Debug, Default)]
pub struct Execution {
    /// The plan that it was about.
    pub plan: Option<u64>,
    pub waiting: Option<Waiting>,
    /// Heads and packs of the order.
    pub snapshots: u64,
    pub packs: u64,
    /// Packs that were announced and that something reaches again.
    pub rescued: u64,
    pub stores: Vec<StorePruned>,
}

/// Executes the plan that is announced, or goes on with the newest order.
pub async fn execute(
    env: &Env,
    open: &OpenKey,
    pruner: &PrunerCredential,
    stores: &[NamedMaintenanceStore],
    request: &PruneRequest<'_>,
) -> Result<Execution> {
    let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
    let mut land = Land::read(open, &plain, &request.given_up).await?;
    let all = together(&plain);
    let mut execution = Execution::default();
    let announced = land.condemned.announced.clone();
    let (order, spared, stones) = match (announced, land.condemned.order.clone()) {
        (Some((name, plan)), _) => {
            execution.plan = Some(plan.number);
            let complete = publish(&plain, &land, name).await?;
            execution.waiting = if complete { waiting(env, &land, (name, &plan)) } else { Some(grace(env, &plan)) };
            if execution.waiting.is_some() {
                return Ok(execution);
            }
            let reader = Reader::load_with(env, open, (&all, &plain)).await?;
            let trips = attack(&reader, &land, request, &plan).await?;
            if !trips.is_empty() {
                execution.waiting = Some(Waiting::Attack(trips));
                return Ok(execution);
            }
            let (mut order, spared) =
                make_order((env, &reader), (&plain, &all, &mut land), (name, &plan), request).await?;
            let stones = Stones::of((open, pruner), (&plain, &land), &order).await?;
            order.tombstones.clone_from(&stones.replaced);
            execution.rescued = plan.packs.len().saturating_sub(order.packs.len()) as u64;
            let bytes = order.sign(pruner)?;
            put_everywhere(&plain, &order.name(&bytes).to_string(), &Bytes::from(bytes)).await?;
            log::info!(plan = plan.number, snapshots = order.heads.len(), packs = order.packs.len(); "prune.ordered");
            (order, spared, stones)
        }
        (None, Some((name, order))) => {
            execution.plan = Some(order.number);
            publish(&plain, &land, name).await?;
            let reader = Reader::load_with(env, open, (&all, &plain)).await?;
            let spared = Spared::of(&reader, (&plain, &all, &land), &order, &request.given_up).await?;
            let stones = Stones::of((open, pruner), (&plain, &land), &order).await?;
            (order, spared, stones)
        }
        (None, None) => return Ok(execution),
    };
    execution.snapshots = order.heads.len() as u64;
    execution.packs = order.packs.len() as u64;
    let deletion = Deletion { land: &land, order: &order, spared: &spared, stones: &stones.standing };
    let at = |at: usize| deletion.at(stores, at).boxed();
    execution.stores = futures::future::join_all((0..stores.len()).map(at)).await;
    for done in &execution.stores {
        log::info!(
            store = done.store.as_str(), objects = done.objects, bytes = done.bytes, locked = done.locked;
            "prune.deleted"
        );
    }
    Ok(execution)
}

/// Puts a plan or an order to stores that lack it; whether none did.
pub(super) async fn publish(stores: &[NamedStore], land: &Land, name: PlanName) -> Result<bool> {
    let name = name.to_string();
    let missing: Vec<NamedStore> =
        stores.iter().zip(&land.views).filter(|(_, view)| !view.holds(&name)).map(|(store, _)| store.clone()).collect();
    if !missing.is_empty() {
        let bytes = fetch_any(stores, &land.views, &name).await?;
        put_everywhere(&missing, &name, &bytes).await?;
    }
    Ok(missing.is_empty())
}

fn grace(env: &Env, plan: &Plan) -> Waiting {
    Waiting::Grace { until_unix_ms: env.now_unix_ms().saturating_add_unsigned(plan.grace_ms) }
}

/// What must happen first. The grace must be over by this clock and by that of a writer: one clock alone may be wrong.
fn waiting(env: &Env, land: &Land, (name, plan): (PlanName, &Plan)) -> Option<Waiting> {
    let until_unix_ms = plan.time_unix_ms.saturating_add_unsigned(plan.grace_ms);
    if env.now_unix_ms() < until_unix_ms {
        return Some(Waiting::Grace { until_unix_ms });
    }
    let writers = land.writers();
    let seen = |info: &&&SnapshotInfo| info.plan_seen == Some(name.hash.0);
    let blind: Vec<(String, IncarnationId)> =
        writers.iter().filter(|info| !seen(info)).map(|info| (info.source.clone(), info.incarnation)).collect();
    if !blind.is_empty() {
        return Some(Waiting::Writers(blind));
    }
    let by_writers = writers.iter().map(|info| info.taken_unix_ms).max().is_none_or(|newest| newest >= until_unix_ms);
    if by_writers || plan.grace_ms == 0 { None } else { Some(Waiting::Grace { until_unix_ms }) }
}

/// What looks like an attack since a plan was announced. What has lost a part is another matter, and spares every pack.
async fn attack(reader: &Reader<'_>, land: &Land, request: &PruneRequest<'_>, plan: &Plan) -> Result<Vec<Trip>> {
    match tripwire::look(reader, land, (request, &[]), Some(&plan.chains)).await {
        Err(error) if is_loss(&error) => Ok(Vec::new()),
        trips => trips,
    }
}

/// The order: of what was announced, all that nothing reaches and no rule, hold or proof keeps by now.
async fn make_order(
    (env, reader): (&Env, &Reader<'_>),
    (stores, all, land): (&[NamedStore], &NamedStore, &mut Land),
    (name, plan): (PlanName, &Plan),
    request: &PruneRequest<'_>,
) -> Result<(Plan, Spared)> {
    land.decide(request);
    if !request.given_up.is_nothing() {
        match land.give_up(reader, &request.given_up).await {
            // Then every pack is spared.
            Err(error) if is_loss(&error) => log::warn!(reason:% = error; "prune.loss-met"),
            done => done?,
        }
    }
    let announced: BTreeSet<SnapshotId> = plan.heads.iter().map(|gone| gone.snapshot).collect();
    land.keep_all_but(&announced);
    let still: HashSet<HeadName> = land.condemned_heads().into_iter().map(|gone| gone.head).collect();
    // Late heads never counted: they need no announcement.
    let mut heads: Vec<CondemnedHead> = plan.heads.iter().filter(|gone| still.contains(&gone.head)).copied().collect();
    heads.extend(land.condemned_heads().into_iter().filter(|gone| land.late.iter().any(|info| info.head == gone.head)));
    // What the order before this one took out, and a lock kept, or somebody brought back.
    heads.extend(land.left());
    heads.sort_unstable_by_key(|gone| gone.head);
    heads.dedup_by_key(|gone| gone.head);
    let spared = Spared::of(reader, (stores, all, land), plan, &request.given_up).await?;
    let order = Plan {
        number: land.next_number(),
        executes: Some(name.hash),
        time_unix_ms: env.now_unix_ms(),
        grace_ms: 0,
        chains: land.chains(),
        heads,
        indexes: plan.indexes.iter().filter(|index| !spared.indexes.contains(index)).copied().collect(),
        replacements: plan.replacements.clone(),
        packs: plan.packs.iter().filter(|pack| !spared.packs.contains(pack)).copied().collect(),
        tombstones: Vec::new(),
    };
    Ok((order, spared))
}

/// What a plan or an order lists and something reached rests on by now. An order that is gone on with was right when it was
/// made: what a lock kept since may be the last copy.
struct Spared {
    /// Packs that hold the only copy, in some store, of a chunk that is reached.
    packs: HashSet<ObjectHash>,
    /// Index objects that name such a pack, or one that stays and that no replacement names.
    indexes: HashSet<ObjectHash>,
}

impl Spared {
    /// What cannot be read may be found again: everything that it may reach or name stays, and the plan ends without it.
    fn all(plan: &Plan) -> Self {
        Self { packs: plan.packs.iter().copied().collect(), indexes: plan.indexes.iter().copied().collect() }
    }

    async fn of(
        reader: &Reader<'_>,
        (stores, all, land): (&[NamedStore], &NamedStore, &Land),
        plan: &Plan,
        given_up: &GivenUp,
    ) -> Result<Self> {
        let open = reader.open;
        if let Some(id) = land.stays_unread() {
            log::error!(snapshot:% = id; "prune.spares-all");
            return Ok(Self::all(plan));
        }
        if let Some(bad) = land.bad_indexes(reader).find(|bad| !given_up.has(bad)) {
            log::error!(object = bad.as_str(); "prune.spares-all");
            return Ok(Self::all(plan));
        }
        let mark = match Mark::of(reader, &land.kept()).await {
            Err(error) if is_loss(&error) => {
                log::error!(reason:% = error; "prune.spares-all");
                return Ok(Self::all(plan));
            }
            mark => mark?,
        };
        let mut copies = Copies::new(open, (stores, all, land), &plan.indexes);
        let packs = sweep::needed(&reader.locations, &mark, &plan.packs, &mut copies).await?;
        let going: HashSet<&ObjectHash> = plan.packs.iter().collect();
        // A pack that no store had when the plan was made is in no replacement, and may have come back since.
        let staying = sweep::reached(&reader.locations, &mark).filter(|pack| {
            !going.contains(&pack.name) && land.somewhere(&pack_name(&pack.name), u64::from(pack.bytes))
        });
        let named = staying.map(|pack| pack.name).chain(packs.iter().copied()).collect();
        let indexes = last_to_name(named, (open, all, land), plan, given_up).await?;
        Ok(Self { packs, indexes })
    }
}

/// A plan's index objects that name some of these packs, which none of its replacements names.
async fn last_to_name(
    mut packs: HashSet<ObjectHash>,
    (open, all, land): (&OpenKey, &NamedStore, &Land),
    plan: &Plan,
    given_up: &GivenUp,
) -> Result<HashSet<ObjectHash>> {
    let there: Vec<&ObjectHash> = plan.indexes.iter().filter(|index| land.size_of(&index_name(index)) > 0).collect();
    let mut indexes = HashSet::new();
    if there.is_empty() {
        return Ok(indexes);
    }
    for index in &plan.replacements {
        match read_index(open, all, &index_name(index)).await {
            Ok(said) => said.iter().for_each(|record| _ = packs.remove(&record.name)),
            Err(error) if is_loss(&error) => {}
            Err(error) => return Err(error),
        }
    }
    for index in there {
        let name = index_name(index);
        match read_index(open, all, &name).await {
            Err(error) if is_loss(&error) && given_up.has(&name) => {}
            // It may be healed.
            Err(error) if is_loss(&error) => drop(indexes.insert(*index)),
            said => indexes.extend(said?.iter().any(|record| packs.contains(&record.name)).then_some(*index)),
        }
    }
    Ok(indexes)
}

struct Deletion<'d> {
    land: &'d Land,
    order: &'d Plan,
    spared: &'d Spared,
    stones: &'d [(TombstoneName, Bytes)],
}

impl Deletion<'_> {
    async fn at(&self, stores: &[NamedMaintenanceStore], at: usize) -> StorePruned {
        let mut done = StorePruned {
            store: stores.get(at).map(|store| store.name.clone()).unwrap_or_default(),
            objects: 0,
            bytes: 0,
            locked: 0,
            locked_bytes: 0,
            error: None,
        };
        if let Some(store) = stores.get(at) {
            done.error = self.run(store, at, &mut done).await.err();
        }
        done
    }

    async fn run(&self, store: &NamedMaintenanceStore, at: usize, done: &mut StorePruned) -> Result<()> {
        let objects = self.land.views.get(at).and_then(|view| view.objects());
        let objects = objects.ok_or_else(|| Error::new(ErrorKind::Unreachable, "the store does not answer"))?;
        let mut copies: BTreeMap<String, Vec<(String, u64)>> = BTreeMap::new();
        for listed in store.store.list("").await? {
            // What was written beside a damaged object goes with it.
            let object = candidate_of(&listed.name).unwrap_or(&listed.name).to_owned();
            copies.entry(object).or_default().push((listed.name, listed.size));
        }
        for (name, bytes) in self.stones {
            let name = name.to_string();
            if !objects.contains_key(&name) {
                store.store.put(&name, bytes.clone()).await?;
            }
        }
        let held = copies.keys().filter_map(|name| name.parse().ok()).chain(self.stones.iter().map(|(name, _)| *name));
        let stones = replaced_at(held, self.order).collect();
        let kept: HashSet<SnapshotId> = self.land.kept().iter().map(|info| info.id).collect();
        let heads = self.order.heads.iter().map(|gone| gone.head.to_string()).collect();
        let gone = self.order.heads.iter().map(|gone| gone.snapshot).filter(|id| !kept.contains(id));
        let snapshots = gone.map(|id| snapshot_name(&id.0)).collect();
        let free = self.order.indexes.iter().filter(|index| !self.spared.indexes.contains(index));
        let mut indexes: Vec<String> = free.map(index_name).collect();
        let free = self.order.packs.iter().filter(|pack| !self.spared.packs.contains(pack));
        let mut packs: Vec<String> = free.map(pack_name).collect();
        let left = indexes.iter().chain(&packs).any(|name| copies.contains_key(name));
        if left && !self.is_replaced_at(&store.as_store()).await? {
            (indexes, packs) = (Vec::new(), Vec::new());
        }
        // The order of deletion is that of writing, backwards: a crash leaves what nothing names.
        for names in [heads, snapshots, indexes, packs, stones, self.older_plans()] {
            let there = names.iter().filter_map(|name| copies.get(name)).flatten().cloned().collect();
            self.delete(store, there, done).await?;
        }
        Ok(())
    }

    /// Whether a store gives all index objects back that say what stays true of those that go.
    async fn is_replaced_at(&self, store: &NamedStore) -> Result<bool> {
        for index in &self.order.replacements {
            match fetch(store, &index_name(index)).await {
                Err(error) if is_loss(&error) => return Ok(false),
                replacement => drop(replacement?),
            }
        }
        Ok(true)
    }

    /// Plans and orders before this one.
    fn older_plans(&self) -> Vec<String> {
        let names = self.land.condemned.names.iter().filter_map(|name| name.parse::<PlanName>().ok());
        names.filter(|name| name.number < self.order.number).map(|name| name.to_string()).collect()
    }

    async fn delete(
        &self,
        store: &NamedMaintenanceStore,
        names: Vec<(String, u64)>,
        done: &mut StorePruned,
    ) -> Result<()> {
        let one = |(name, size): (String, u64)| async move { (size, store.store.delete(&name).await) }.boxed();
        let mut running = futures::stream::iter(names.into_iter().map(one)).buffer_unordered(FETCHES);
        let mut failed = None;
        while let Some((size, deleted)) = running.next().await {
            match deleted {
                Ok(()) => {
                    done.objects += 1;
                    done.bytes += size;
                }
                Err(error) if error.kind() == ErrorKind::Denied => {
                    done.locked += 1;
                    done.locked_bytes += size;
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
