//! What lies under `condemned/`: deletion plans, the orders to execute them, retirements of chains.
//!
//! Writers read it at the start and again around the head; readers tell by it which heads count.

use crate::ahead::is_loss;
use crate::candidate::candidate_of;
use crate::error::{Error, ErrorKind, Result};
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{View, fetch_any, index_name, pack_name, snapshot_name, views};
use backup_format::condemned::{Plan, PlanName};
use backup_format::head::{Head, HeadName};
use backup_format::retirement::{Retirement, RetirementName};
use backup_format::{CatalogKey, IncarnationId, ObjectHash, SourceId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;

pub(crate) const CONDEMNED: &str = "condemned/";
/// A plan that was read once is kept in the state under this name and its hash.
const KEPT: &str = "plan-";

/// What the stores say together of deletions.
#[derive(Default)]
pub(crate) struct Condemned {
    /// Every name under `condemned/`, valid or not.
    pub(crate) names: BTreeSet<String>,
    /// The announced plan in force.
    pub(crate) announced: Option<(PlanName, Plan)>,
    /// The newest order.
    pub(crate) order: Option<(PlanName, Plan)>,
    /// Announced plans after the one that the order executes.
    later: BTreeSet<ObjectHash>,
    retired: BTreeMap<(SourceId, IncarnationId), u64>,
    /// Plans that every reachable store lists and none gives back whole: nobody knows which packs they are about.
    unreadable: BTreeSet<String>,
    /// Plans of which nobody could say anything just now: they may be in force.
    unheard: BTreeSet<String>,
}

impl Condemned {
    /// Reads what the listings name. A plan that no pruner of this repository signed is passed over: a store must not
    /// stop deduplication by a forged one.
    pub(crate) async fn read(
        catalog: &CatalogKey,
        stores: &[NamedStore],
        views: &[View],
        state: Option<&State>,
    ) -> Self {
        let listed = views.iter().filter_map(View::objects).flat_map(BTreeMap::keys);
        let names: BTreeSet<String> = listed.filter(|name| name.starts_with(CONDEMNED)).cloned().collect();
        let mut found = Self { names, ..Self::default() };
        let mut plans: Vec<PlanName> = found.names.iter().filter_map(|name| name.parse().ok()).collect();
        plans.sort_unstable_by(|a, b| b.cmp(a));
        for name in plans {
            let everywhere = views.iter().filter(|view| view.listing.is_ok()).all(|view| view.holds(&name.to_string()));
            match read_plan(catalog, stores, views, (name, state)).await {
                Ok(plan) => {
                    if found.take(name, plan) {
                        break;
                    }
                }
                Err(error) => {
                    log::warn!(object:% = name, error:% = error; "plan.passed-over");
                    // One that is not everywhere is not executed.
                    if everywhere && error.source_format().is_none() {
                        found.unreadable.insert(name.to_string());
                    }
                    if error.source_format().is_none() && !is_loss(&error) {
                        found.unheard.insert(name.to_string());
                    }
                }
            }
        }
        found.keep_only_what_is_in_force(state);
        found.read_retirements(catalog, stores, views).await;
        found
    }

    /// What was in force when a store last answered.
    pub(crate) fn recall(catalog: &CatalogKey, state: &State) -> Self {
        let kept = state.file_names().into_iter().filter(|name| name.starts_with(KEPT));
        let mut plans: Vec<(PlanName, Plan)> = kept
            .filter_map(|file| {
                let bytes = read_kept(state, &file)?;
                let plan = Plan::open(&bytes, catalog).ok()?;
                Some((plan.name(&bytes), plan))
            })
            .collect();
        plans.sort_unstable_by(|(a, _), (b, _)| b.cmp(a));
        let mut found = Self::default();
        let _all = plans.into_iter().find_map(|(name, plan)| found.take(name, plan).then_some(()));
        found
    }

    /// Takes in the next plan, newest first; whether it is the last that matters.
    fn take(&mut self, name: PlanName, plan: Plan) -> bool {
        let executed = plan.executes;
        self.later.insert(executed.unwrap_or(name.hash));
        match executed {
            Some(_) => self.order = Some((name, plan)),
            None => drop(self.announced.get_or_insert((name, plan))),
        }
        executed.is_some()
    }

    fn keep_only_what_is_in_force(&self, state: Option<&State>) {
        let Some(state) = state else { return };
        let mine: BTreeSet<String> =
            self.announced.iter().chain(&self.order).map(|(name, _)| format!("{KEPT}{}", name.hash)).collect();
        let old = |name: &&String| name.starts_with(KEPT) && !mine.contains(*name);
        state.file_names().iter().filter(old).for_each(|name| state.remove_file(name));
    }

    async fn read_retirements(&mut self, catalog: &CatalogKey, stores: &[NamedStore], views: &[View]) {
        let names: Vec<RetirementName> = self.names.iter().filter_map(|name| name.parse().ok()).collect();
        for name in names {
            let read = fetch_any(stores, views, &name.to_string()).await;
            let valid = read.and_then(|bytes| {
                let retirement = Retirement::open(&bytes, catalog)?;
                if retirement.name(&bytes) == name { Ok(retirement) } else { Err(misplaced()) }
            });
            match valid {
                Ok(retirement) => {
                    let chain = (retirement.source, retirement.incarnation);
                    let last = self.retired.entry(chain).or_insert(retirement.counter);
                    *last = (*last).min(retirement.counter);
                }
                Err(error) => log::warn!(object:% = name, error:% = error; "retirement.passed-over"),
            }
        }
    }

    /// Whether an object under `condemned/` was there when this was read, and what it says with it. A further candidate of
    /// a plan is that plan, healed, and nothing new.
    fn knows(&self, listed: &str) -> bool {
        let name = candidate_of(listed).unwrap_or(listed);
        self.names.contains(name) && !self.unheard.contains(name)
    }

    /// Whether a store shows a plan, an order or a retirement, signed and whole, that came after this was read.
    pub(crate) async fn is_outdone_at(&self, catalog: &CatalogKey, store: &NamedStore) -> bool {
        let store = std::slice::from_ref(store);
        let now = Self::read(catalog, store, &views(store, CONDEMNED).await, None).await;
        now.newest() > self.newest() || now.retired.keys().any(|chain| !self.retired.contains_key(chain))
    }

    fn newest(&self) -> Option<PlanName> {
        self.announced.iter().chain(&self.order).map(|(name, _)| *name).max()
    }

    pub(crate) fn unreadable(&self) -> impl Iterator<Item = &String> {
        self.unreadable.iter()
    }

    /// Refuses when a plan may be in force that could not be read just now, but for what is given up.
    pub(crate) fn require_all(&self, given_up: impl Fn(&str) -> bool) -> Result<()> {
        if !self.unreadable().all(|name| given_up(name)) {
            return Err(Error::new(ErrorKind::Damaged, "a deletion plan cannot be read: heal it before pruning"));
        }
        match self.unheard.first() {
            Some(name) => Err(Error::new(ErrorKind::Retry, format!("{name} could not be read: try again"))),
            None => Ok(()),
        }
    }

    /// The number of the newest order; 0: there was none.
    pub(crate) fn order_number(&self) -> u64 {
        self.order.as_ref().map_or(0, |(name, _)| name.number)
    }

    /// Packs that count as absent.
    pub(crate) fn packs(&self) -> HashSet<ObjectHash> {
        self.announced.iter().chain(&self.order).flat_map(|(_, plan)| plan.packs.iter().copied()).collect()
    }

    /// What the manifest says was seen.
    pub(crate) fn plan_seen(&self) -> Option<[u8; 32]> {
        let executed = || self.order.as_ref().and_then(|(_, order)| order.executes);
        self.announced.as_ref().map(|(name, _)| name.hash).or_else(executed).map(|plan| plan.0)
    }

    /// Names of objects that are being taken out: nobody copies them to a store that lacks them. An order takes out the plans
    /// before it, too: a store that refused to delete may have them still.
    pub(crate) fn going(&self) -> HashSet<String> {
        let Some((_, order)) = &self.order else { return HashSet::new() };
        let is_older = |name: &&String| name.parse::<PlanName>().is_ok_and(|plan| plan.number < order.number);
        let older = self.names.iter().filter(is_older).cloned();
        let heads = order.heads.iter().flat_map(|gone| [gone.head.to_string(), snapshot_name(&gone.snapshot.0)]);
        let (indexes, packs) = (order.indexes.iter().map(index_name), order.packs.iter().map(pack_name));
        let stones = order.tombstones.iter().map(ToString::to_string);
        heads.chain(indexes).chain(packs).chain(stones).chain(older).collect()
    }

    /// The last counter of a chain that has ended.
    pub(crate) fn retired_at(&self, source: SourceId, incarnation: IncarnationId) -> Option<u64> {
        self.retired.get(&(source, incarnation)).copied()
    }

    /// Whether a head does not count: its writer had not seen what was deleted. That its chain has ended says nothing: the
    /// head may have been acknowledged while the retirement was on its way.
    pub(crate) fn is_late(&self, head: &Head, plan_seen: Option<[u8; 32]>) -> bool {
        let Some((_, order)) = &self.order else { return false };
        let seen = plan_seen.is_some_and(|seen| self.later.contains(&ObjectHash(seen)));
        !seen && !order.covers(head.source, head.incarnation, head.counter)
    }

    /// Whether the newest order takes a head out.
    pub(crate) fn takes_out(&self, name: &HeadName) -> bool {
        let order = self.order.as_ref().map(|(_, order)| order);
        order.is_some_and(|order| order.heads.binary_search_by_key(name, |gone| gone.head).is_ok())
    }
}

fn misplaced() -> Error {
    Error::new(ErrorKind::Damaged, "it stands under another's name")
}

fn read_kept(state: &State, file: &str) -> Option<Bytes> {
    let file = state.open_file(file).ok()?;
    file.read_at(0, usize::try_from(file.len().ok()?).ok()?).ok().map(Bytes::from)
}

async fn read_plan(
    catalog: &CatalogKey,
    stores: &[NamedStore],
    views: &[View],
    (name, state): (PlanName, Option<&State>),
) -> Result<Plan> {
    let file = format!("{KEPT}{}", name.hash);
    let kept = state.and_then(|state| read_kept(state, &file)).filter(|bytes| ObjectHash::of(bytes) == name.hash);
    let (bytes, new) = match kept {
        Some(bytes) => (bytes, false),
        None => (fetch_any(stores, views, &name.to_string()).await?, true),
    };
    let plan = Plan::open(&bytes, catalog)?;
    if plan.name(&bytes) != name {
        return Err(misplaced());
    }
    if let Some(state) = state.filter(|_| new) {
        let keep = || -> io::Result<()> {
            let mut out = state.create_file(&file)?;
            out.write(&bytes)?;
            out.finish()
        };
        // It is only read again.
        if let Err(error) = keep() {
            log::warn!(error:% = error; "state.write-failed");
        }
    }
    Ok(plan)
}

/// Names of objects that an order takes out: that one of them is gone is no damage, and none of them needs a lock any
/// more. The newest order names all that earlier ones have left. What is only announced may be needed again, and is not
/// among them.
pub async fn condemned_objects(catalog: &CatalogKey, stores: &[NamedStore]) -> Result<BTreeSet<String>> {
    let views = views(stores, CONDEMNED).await;
    if let Some(error) = views.iter().find_map(|view| view.listing.as_ref().err()) {
        return Err(error.duplicate());
    }
    let condemned = Condemned::read(catalog, stores, &views, None).await;
    Ok(condemned.going().into_iter().collect())
}

/// Refuses when a store lists a plan or a retirement that was not known at the start.
pub(crate) async fn nothing_new(store: &NamedStore, known: &Condemned) -> Result<()> {
    let listed = match store.store.list(CONDEMNED).await {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        listed => listed?,
    };
    if listed.iter().all(|object| known.knows(&object.name)) {
        return Ok(());
    }
    Err(came_meanwhile())
}

/// Why a snapshot is not committed.
pub(crate) fn came_meanwhile() -> Error {
    Error::new(ErrorKind::Fenced, "a deletion plan came while this backup ran: it begins again with the plan")
}
