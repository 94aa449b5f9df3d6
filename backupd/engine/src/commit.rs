//! Committing: at every store packs, then index, then snapshot, then head; index only when the quorum has the packs.

use crate::ahead::is_loss;
use crate::backup::StoreOutcome;
use crate::condemned::{came_meanwhile, nothing_new};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gone;
use crate::held;
use crate::keyring::KEYRINGS;
use crate::replicate::{copy, in_groups};
use crate::send::{Fleet, Gate, Lane};
use crate::spool::SPOOL;
use crate::state::State;
use crate::store::{NamedStore, domains};
use crate::survey::{FETCHES, PACKS, Union, damaged};
use backup_format::CatalogKey;
use bytes::Bytes;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long the others are waited for once the quorum has the head. They are then *late*, and caught up another time.
const STRAGGLER_LIMIT: Duration = Duration::from_secs(10);

/// Everything that a store must hold for the head to be written there.
pub(crate) struct Commit<'a> {
    pub(crate) env: &'a Env,
    pub(crate) catalog: &'a CatalogKey,
    pub(crate) stores: &'a [NamedStore],
    pub(crate) union: &'a Union,
    pub(crate) fleet: &'a Fleet,
    pub(crate) packs: &'a [String],
    pub(crate) indexes: &'a [(String, Option<Bytes>)],
    pub(crate) snapshot: (String, Bytes),
    pub(crate) head: (String, Bytes),
    /// Whether any store was ever asked to take the head.
    pub(crate) head_sent: AtomicBool,
    pub(crate) quorum: u32,
    pub(crate) started_ms: u64,
}

impl Commit<'_> {
    /// Keeps what the stores hold now, so that a later loss is noticed.
    pub(crate) fn keep_held(&self, state: &State, outcomes: &[StoreOutcome]) {
        let written = self.indexes.iter().map(|(name, _)| name).chain([&self.snapshot.0, &self.head.0]);
        let written: Vec<&String> = self.packs.iter().chain(written).collect();
        if outcomes.iter().any(|outcome| outcome.durable && outcome.store != SPOOL) {
            gone::add_seen(state, written.iter().copied());
        }
        let stores = self.stores.iter().zip(&self.union.views).zip(outcomes);
        for ((_, view), outcome) in stores.filter(|((store, _), outcome)| outcome.durable && !store.is_spool()) {
            // What had to wait was not copied.
            let copied = self.union.missing_at(view);
            let there = view.objects().into_iter().flat_map(BTreeMap::keys).chain(&copied);
            held::keep(state, &outcome.store, there.chain(written.iter().copied()));
        }
    }
}

/// Commits at every store; one outcome each, in the stores' order.
pub(crate) async fn commit(plan: &Commit<'_>) -> Vec<StoreOutcome> {
    let gate = Gate::new(plan.quorum, plan.stores.len());
    let one = |at: usize| {
        let gate = &gate;
        async move { (at, commit_at(plan, at, gate).await, plan.env.steady_ms()) }.boxed()
    };
    let mut running: FuturesUnordered<_> = (0..plan.stores.len()).map(one).collect();
    let mut results: Vec<Option<(Result<()>, u64)>> = plan.stores.iter().map(|_| None).collect();
    loop {
        let next = if counting(plan.stores, &results) >= plan.quorum.max(1) as usize {
            match tokio::time::timeout(STRAGGLER_LIMIT, running.next()).await {
                Ok(next) => next,
                Err(_) => break,
            }
        } else {
            running.next().await
        };
        let Some((at, result, ended)) = next else { break };
        if let Some(slot) = results.get_mut(at) {
            *slot = Some((result, ended));
        }
    }
    drop(running);
    fence_all(plan, &mut results).await;
    let unhealed = heal_found(plan).await;
    let late = || (Err(Error::new(ErrorKind::Retry, "the store is late: it will be caught up")), plan.env.steady_ms());
    plan.stores
        .iter()
        .zip(results)
        .enumerate()
        .map(|(at, (store, result))| {
            let (mut result, ended) = result.unwrap_or_else(late);
            if let Some((_, object)) = unhealed.iter().find(|(at, _)| *at == store.name) {
                result = result.and(Err(damaged(store, object)));
            }
            StoreOutcome {
                store: store.name.clone(),
                counts_for_quorum: store.counts_for_quorum,
                durable: result.is_ok(),
                bytes_sent: lane(plan, at).map_or(0, Lane::bytes_sent),
                duration_ms: ended.saturating_sub(plan.started_ms),
                error: result.err(),
            }
        })
        .collect()
}

/// A plan that one store shows is in force at all of them: a store that lost it, or was set back, shows nothing new, and the
/// head does not count there either. A store's word alone fences nobody else: it must show what a pruner signed. The spool
/// knows no plans.
async fn fence_all(plan: &Commit<'_>, results: &mut [Option<(Result<()>, u64)>]) {
    let mut came = false;
    for (store, result) in plan.stores.iter().zip(&*results) {
        let fenced = matches!(result, Some((Err(error), _)) if error.kind() == ErrorKind::Fenced);
        came = came || fenced && plan.union.condemned.is_outdone_at(plan.catalog, store).await;
    }
    for (_, result) in plan.stores.iter().zip(results).filter(|(store, _)| came && !store.is_spool()) {
        if let Some((result @ Ok(()), _)) = result {
            *result = Err(came_meanwhile());
        }
    }
}

fn counting(stores: &[NamedStore], results: &[Option<(Result<()>, u64)>]) -> usize {
    let durable = stores.iter().zip(results).filter(|(_, result)| matches!(result, Some((Ok(()), _))));
    domains(durable.map(|(store, _)| store))
}

fn lane<'a>(plan: &Commit<'a>, at: usize) -> Option<&'a Lane> {
    plan.fleet.lanes.get(at).and_then(Option::as_ref)
}

async fn commit_at(plan: &Commit<'_>, at: usize, gate: &Gate) -> Result<()> {
    let packs = packs_at(plan, at).await;
    gate.settle(packs.as_ref().ok().map(|(store, ..)| *store));
    let (store, lane, later) = packs?;
    gate.pass().await;
    if plan.rests_on_lost() {
        let what = "an earlier object is damaged at every store that holds it: the sources must be read again";
        return Err(Error::new(ErrorKind::Damaged, what));
    }
    for group in in_groups(&later) {
        copy_group(plan, at, group).await?;
    }
    for (name, bytes) in plan.indexes.iter().filter(|(name, _)| !lane.sent(name)) {
        match bytes {
            Some(bytes) => put(store, lane, name, bytes).await?,
            // An earlier one that this store missed.
            None => copy_group(plan, at, std::slice::from_ref(name)).await?,
        }
    }
    put(store, lane, &plan.snapshot.0, &plan.snapshot.1).await?;
    // What was taken for present may be deleted by a plan that was not known. After the head too: this machine may have
    // slept between looking and writing.
    nothing_new(store, &plan.union.condemned).await?;
    plan.head_sent.store(true, Ordering::SeqCst);
    put(store, lane, &plan.head.0, &plan.head.1).await?;
    nothing_new(store, &plan.union.condemned).await
}

/// Brings all packs to the store, those of earlier snapshots first; gives what must follow them.
async fn packs_at<'a>(plan: &Commit<'a>, at: usize) -> Result<(&'a NamedStore, &'a Lane, Vec<String>)> {
    let (Some(store), Some(view)) = (plan.stores.get(at), plan.union.views.get(at)) else {
        return Err(Error::new(ErrorKind::Misconfigured, "no such store"));
    };
    if let Err(error) = &view.listing {
        return Err(error.duplicate());
    }
    let Some(lane) = lane(plan, at) else {
        return Err(Error::new(ErrorKind::Unreachable, "the store does not answer"));
    };
    lane.drained().await?;
    let early = |name: &String| name.starts_with(PACKS) || name.starts_with(KEYRINGS);
    // A spool takes what is new.
    let lacks = if store.is_spool() { Vec::new() } else { plan.union.missing_at(view) };
    let (early, later): (Vec<String>, Vec<String>) = lacks.into_iter().partition(early);
    copy_group(plan, at, &early).await?;
    let missed: Vec<String> = plan.packs.iter().filter(|name| !lane.sent(name)).cloned().collect();
    copy_group(plan, at, &missed).await?;
    Ok((store, lane, later))
}

async fn copy_group(plan: &Commit<'_>, at: usize, names: &[String]) -> Result<()> {
    let one = |name: String| {
        async move {
            let bytes = copy(plan.stores, (&plan.holders(&name), at), &name, &plan.union.damage).await?;
            if let Some(lane) = lane(plan, at) {
                lane.note_sent(&name, bytes);
            }
            Ok::<(), Error>(())
        }
        .boxed()
    };
    let owned = names.to_vec();
    let mut copies = futures::stream::iter(owned.into_iter().map(one)).buffer_unordered(FETCHES);
    let mut lost = None;
    while let Some(copied) = copies.next().await {
        match copied {
            // All that is damaged is found at once, so that the next attempt does without all of it.
            Err(error) if is_loss(&error) => lost = Some(error),
            copied => copied?,
        }
    }
    lost.map_or(Ok(()), Err)
}

impl Commit<'_> {
    /// Stores that hold an object, as far as is known.
    fn holders(&self, name: &str) -> Vec<usize> {
        let held = |at: usize, store: &NamedStore| {
            let listed = self.union.views.get(at).is_some_and(|view| view.holds(name));
            let whole = listed && !self.union.damage.is(&store.name, name);
            whole || lane(self, at).is_some_and(|lane| lane.sent(name))
        };
        self.stores.iter().enumerate().filter(|(at, store)| held(*at, store)).map(|(at, _)| at).collect()
    }

    /// Whether something that the snapshot may rest on turned out to be damaged wherever it lies.
    fn rests_on_lost(&self) -> bool {
        self.union.damage.fresh().iter().any(|(_, name)| self.holders(name).is_empty())
    }
}

/// Heals what was found damaged on the way where another store has it whole; gives what is left.
async fn heal_found(plan: &Commit<'_>) -> Vec<(String, String)> {
    for (store, name) in plan.union.damage.fresh() {
        let to = plan.stores.iter().position(|other| other.name == store);
        let holders = plan.holders(&name);
        if let Some(to) = to.filter(|_| !holders.is_empty())
            && let Err(error) = copy(plan.stores, (&holders, to), &name, &plan.union.damage).await
        {
            log::warn!(store = store.as_str(), object = name.as_str(), error:% = error; "store.not-healed");
        }
    }
    plan.union.damage.fresh()
}

async fn put(store: &NamedStore, lane: &Lane, name: &str, bytes: &Bytes) -> Result<()> {
    store.store.put(name, bytes.clone()).await?;
    lane.note_sent(name, bytes.len() as u64);
    Ok(())
}
