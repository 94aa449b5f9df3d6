//! Prune: what no rule keeps is taken out, beside running backups, restores and catch-up, without a lock.
//!
//! `propose` reads and says what would go and why. `announce` rewrites half-empty packs, merges index objects and puts
//! the plan into every store. `execute`, after the grace and when every writer has seen the plan, marks anew and deletes;
//! `withdraw` ends a plan before that.

mod copies;
mod cost;
mod execute;
mod given_up;
mod land;
mod mark;
mod repack;
mod stones;
mod sweep;
mod tripwire;
mod withdraw;

pub use cost::{Cost, Prices};
pub use execute::{Execution, StorePruned, Waiting, execute};
pub use given_up::{GivenUp, lost};
pub use tripwire::{Trip, TripKind, Tripwire};
pub use withdraw::withdraw;

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::heads::SnapshotInfo;
use crate::read::Reader;
use crate::retain::{Policy, Received, Verdict, Zone, utc};
use crate::store::{NamedMaintenanceStore, NamedStore, TogetherStore};
use crate::survey::pack_name;
use backup_format::condemned::{PLAN_PACKS_MAX, Plan, PlanName};
use backup_format::retirement::Retirement;
use backup_format::{IncarnationId, ObjectHash, OpenKey, PrunerCredential, SnapshotId, SourceId};
use bytes::Bytes;
use land::Land;
use mark::Mark;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use sweep::Sweep;

/// Which chains of heads end, so that deletions need not wait for their writers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retire<'i> {
    None,
    /// These.
    Chains(&'i [IncarnationId]),
    /// Those whose newest head is so much older than the newest of their source.
    Silent(Duration),
    /// All: every writer begins a new chain, and a backup that runs now begins again.
    All,
}

/// What to prune by.
pub struct PruneRequest<'z> {
    pub policy: Policy,
    /// Where days begin.
    pub zone: Zone<'z>,
    /// The snapshot that was last proved of each store.
    pub proved: BTreeMap<String, SnapshotId>,
    /// When the log first named a snapshot.
    pub first_seen: BTreeMap<SnapshotId, i64>,
    /// Whether the dates that stores give to heads count beside those of their writers. Not for a folder that may be a
    /// copy with new dates.
    pub store_dates: bool,
    /// Time between announcement and execution.
    pub grace: Duration,
    pub retire: Retire<'z>,
    /// Bytes that may be rewritten to free half-empty packs; 0: none is.
    pub rewrite_bytes_max: u64,
    /// A pack of which less than so much is still used is rewritten.
    pub rewrite_below_percent: u8,
    pub tripwire: Tripwire,
    /// What two persons have looked at before.
    pub looked_at: Vec<Trip>,
    pub prices: Prices,
    /// What is lost and stops no plan.
    pub given_up: GivenUp,
}

impl Default for PruneRequest<'_> {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            zone: &utc,
            proved: BTreeMap::new(),
            first_seen: BTreeMap::new(),
            store_dates: false,
            grace: Duration::from_secs(24 * 3600),
            retire: Retire::None,
            rewrite_bytes_max: 1 << 30,
            rewrite_below_percent: 50,
            tripwire: Tripwire::default(),
            looked_at: Vec::new(),
            prices: Prices::default(),
            given_up: GivenUp::Nothing,
        }
    }
}

/// What would go, and why the rest stays.
#[derive(Debug)]
pub struct Proposal {
    /// Every snapshot with its reasons, newest first; without one it goes.
    pub snapshots: Vec<(SnapshotInfo, Verdict)>,
    /// Of these, what every store has lost and is given up.
    pub lost: BTreeSet<SnapshotId>,
    /// Heads that never counted, and go.
    pub late: Vec<SnapshotInfo>,
    /// Heads of the last order that a store has kept so far, because they are locked.
    pub left: Vec<SnapshotInfo>,
    pub packs: u64,
    /// Bytes of the packs that go, rewritten ones included, in one store.
    pub pack_bytes: u64,
    pub packs_rewritten: u64,
    /// Bytes of rewritten packs that are still used.
    pub rewritten_bytes: u64,
    pub indexes: u64,
    pub indexes_merged: u64,
    pub cost: Cost,
    /// What looks like an attack: it needs two persons before anything goes.
    pub trips: Vec<Trip>,
    /// A plan that is announced already.
    pub announced: Option<PlanName>,
    /// When each snapshot came, as it was judged.
    pub received: BTreeMap<SnapshotId, Received>,
}

impl Proposal {
    /// Snapshots that go.
    pub fn going(&self) -> impl Iterator<Item = &SnapshotInfo> {
        self.snapshots.iter().filter(|(_, verdict)| !verdict.is_kept()).map(|(info, _)| info)
    }

    /// What an approval is about: the snapshots that go.
    #[must_use]
    pub fn approval(&self) -> BTreeSet<SnapshotId> {
        self.going().map(|info| info.id).collect()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.going().next().is_none() && self.late.is_empty() && self.packs == 0 && self.indexes_merged == 0
    }
}

/// What people agreed to.
#[derive(Debug, Clone, Default)]
pub struct Approved {
    /// Snapshots that may go; others stay whatever the rules say.
    pub snapshots: BTreeSet<SnapshotId>,
    /// What tripped, as two persons have looked at it. Anything else stops the plan again.
    pub trips: Vec<Trip>,
}

/// An announced plan.
#[derive(Debug)]
pub struct Announced {
    pub name: PlanName,
    pub snapshots: u64,
    pub packs: u64,
    pub packs_written: u64,
    pub bytes_written: u64,
    pub indexes_written: u64,
    pub retired: u64,
}

/// Everything that was found out, with what it was read through.
struct Found<'a> {
    land: Land,
    sweep: Sweep,
    reader: Reader<'a>,
}

fn together(stores: &[NamedStore]) -> NamedStore {
    NamedStore::new("all stores", Arc::new(TogetherStore::new(stores)), false)
}

impl<'a> Found<'a> {
    async fn new(
        env: &'a Env,
        open: &'a OpenKey,
        (stores, all): (&'a [NamedStore], &'a NamedStore),
        request: &PruneRequest<'_>,
        approved: Option<&BTreeSet<SnapshotId>>,
    ) -> Result<Self> {
        let mut land = Land::read(open, stores, &request.given_up).await?;
        land.decide(request);
        // What one store has damaged another has whole: what comes from all is asked for at each when it is not whole.
        let reader = Reader::load_with(env, open, (all, stores)).await?;
        land.give_up(&reader, &request.given_up).await?;
        if let Some(approved) = approved {
            land.keep_all_but(approved);
        }
        if let Some(id) = land.stays_unread() {
            // What it reaches would go without a word.
            let message = format!("snapshot {id} is lost, and what was approved does not name it: make a new plan");
            return Err(Error::new(ErrorKind::Damaged, message));
        }
        let mark = Mark::of(&reader, &land.kept()).await?;
        let sweep = Sweep::new(&reader, &mark, &land, request).await?;
        Ok(Self { land, sweep, reader })
    }
}

/// Says what would go. Changes nothing.
pub async fn propose(env: &Env, open: &OpenKey, stores: &[NamedStore], request: &PruneRequest<'_>) -> Result<Proposal> {
    let all = together(stores);
    let found = Found::new(env, open, (stores, &all), request, None).await?;
    let trips = tripwire::look(&found.reader, &found.land, (request, &[]), None).await?;
    Ok(proposal(found, trips, request))
}

fn proposal(found: Found<'_>, trips: Vec<Trip>, request: &PruneRequest<'_>) -> Proposal {
    let Found { land, sweep, .. } = found;
    let cost = cost::of(&land, &sweep, &request.prices);
    Proposal {
        packs: sweep.packs.len() as u64,
        pack_bytes: sweep.packs.iter().map(|pack| land.size_of(&pack_name(pack))).sum(),
        packs_rewritten: sweep.rewrite.len() as u64,
        rewritten_bytes: sweep.rewritten_bytes,
        indexes: sweep.indexes_listed as u64,
        indexes_merged: sweep.indexes.len() as u64,
        cost,
        trips,
        announced: land.condemned.announced.as_ref().map(|(name, _)| *name),
        lost: land.lost_ids(),
        late: land.late,
        left: land.going,
        received: land.received,
        snapshots: land.snapshots,
    }
}

/// Rewrites, merges and announces. `None`: there is nothing to delete. Refused while an announced plan waits, and when
/// something looks like an attack and nobody agreed.
pub async fn announce(
    env: &Env,
    open: &OpenKey,
    pruner: &PrunerCredential,
    stores: &[NamedMaintenanceStore],
    request: &PruneRequest<'_>,
    approved: &Approved,
) -> Result<Option<Announced>> {
    let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
    let all = together(&plain);
    let found = Found::new(env, open, (&plain, &all), request, Some(&approved.snapshots)).await?;
    if let Some((name, _)) = &found.land.condemned.announced {
        let message = format!("deletion plan {} is announced already: execute it first", name.number);
        return Err(Error::new(ErrorKind::Fenced, message));
    }
    if !tripwire::look(&found.reader, &found.land, (request, &approved.trips), None).await?.is_empty() {
        let message = "new snapshots look like an attack: nothing is deleted until two persons agree";
        return Err(Error::new(ErrorKind::Denied, message));
    }
    let heads = found.land.condemned_heads();
    if heads.is_empty() && found.sweep.packs.is_empty() && found.sweep.indexes.is_empty() {
        return Ok(None);
    }
    let written = repack::rewrite(env, open, &found.reader, &found.sweep, &plain).await?;
    let replacements = repack::merge(env, open, &found.reader, &found.sweep, &written, &plain).await?;
    let retiring = retire(env, pruner, &plain, &found.land, request.retire).await?;
    let mut packs = found.sweep.packs.clone();
    packs.truncate(PLAN_PACKS_MAX);
    let plan = Plan {
        number: found.land.next_number(),
        executes: None,
        time_unix_ms: env.now_unix_ms(),
        grace_ms: u64::try_from(request.grace.as_millis()).unwrap_or(u64::MAX),
        chains: found.land.chains(),
        heads,
        indexes: found.sweep.indexes.clone(),
        replacements,
        packs,
        tombstones: Vec::new(),
    };
    let bytes = plan.sign(pruner)?;
    let name = plan.name(&bytes);
    put_everywhere(&plain, &name.to_string(), &Bytes::from(bytes)).await?;
    log::info!(
        plan = plan.number, snapshots = plan.heads.len(), packs = plan.packs.len(), indexes = plan.indexes.len();
        "prune.announced"
    );
    Ok(Some(Announced {
        name,
        snapshots: plan.heads.len() as u64,
        packs: plan.packs.len() as u64,
        packs_written: written.len() as u64,
        bytes_written: written.iter().map(|record| u64::from(record.bytes)).sum(),
        indexes_written: plan.replacements.len() as u64,
        retired: retiring,
    }))
}

/// Puts an object to every store; a plan that one of them lacks does not count.
async fn put_everywhere(stores: &[NamedStore], name: &str, bytes: &Bytes) -> Result<()> {
    for store in stores {
        store.store.put(name, bytes.clone()).await.map_err(|error| error.context(&store.name))?;
    }
    Ok(())
}

/// Ends chains of heads whose writers will not come back, or shall begin anew: an announced plan no longer waits for them.
pub async fn retire_writers(
    env: &Env,
    open: &OpenKey,
    pruner: &PrunerCredential,
    stores: &[NamedMaintenanceStore],
    (which, given_up): (Retire<'_>, &GivenUp),
) -> Result<u64> {
    let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
    let land = Land::read(open, &plain, given_up).await?;
    retire(env, pruner, &plain, &land, which).await
}

/// Signs the end of chains that still wait for a word of their writer.
async fn retire(
    env: &Env,
    pruner: &PrunerCredential,
    stores: &[NamedStore],
    land: &Land,
    which: Retire<'_>,
) -> Result<u64> {
    let ended: Vec<(SourceId, IncarnationId, u64)> = land.to_retire(which);
    for (source, incarnation, counter) in &ended {
        let retirement = Retirement {
            source: *source,
            incarnation: *incarnation,
            counter: *counter,
            time_unix_ms: env.now_unix_ms(),
        };
        let bytes = retirement.sign(pruner)?;
        let name = retirement.name(&bytes).to_string();
        put_everywhere(stores, &name, &Bytes::from(bytes)).await?;
    }
    Ok(ended.len() as u64)
}

fn sorted(mut hashes: Vec<ObjectHash>) -> Vec<ObjectHash> {
    hashes.sort_unstable();
    hashes.dedup();
    hashes
}
