//! Maintenance and prune: scrub, heal, extend locks, announce and execute plans of deletion, beside everybody else.

use crate::auditor::{HELD, Verdict};
use crate::faults::Fault;
use crate::machine::SimClock;
use crate::scenario::Scene;
use crate::shelf::{Keeping, Shelf};
use crate::wire::{LOCKED, Process};
use crate::world::World;
use backup_engine::env::Clock;
use backup_engine::prune::{
    Approved, Execution, GivenUp, PruneRequest, Retire, StorePruned, Tripwire, Waiting, announce, execute, propose,
    retire_writers, withdraw,
};
use backup_engine::retain::{Hold, HoldScope, Keep, Policy, Rule};
use backup_engine::{
    Env, Error, ErrorKind, Listings, LockWish, MemoryStates, NamedMaintenanceStore, NamedStore, NoProgress,
    PrunerCredential, ScrubRequest, SnapshotId, Stop, StoreScrub, condemned_objects, extend_locks, heal, note_damage,
    scrub,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

const DAY_MS: i64 = 86_400_000;
/// Half of what the locks of new objects last.
const WISH: LockWish = LockWish { rule: LOCKED, slack_ms: 4 * DAY_MS };
const STATE: &str = "/maintain";

pub struct Upkeep {
    /// Of programs whose clock is right, and of maintenance.
    pub env: Env,
    pruner_env: Env,
    pruner_clock: Arc<SimClock>,
    credential: PrunerCredential,
    keep_last: u32,
    grace: Duration,
    proved: Mutex<BTreeMap<String, SnapshotId>>,
    snapshots_gone: AtomicU64,
    objects_gone: AtomicU64,
}

impl Upkeep {
    pub fn new(world: &Arc<World>, seed: u64, credential: PrunerCredential) -> Self {
        let env = |salt: u64, clock: &Arc<SimClock>| {
            let env = Env::seeded(seed ^ salt << 48, 0).0;
            env.with_clock(Arc::clone(clock) as Arc<dyn Clock>).with_states(MemoryStates::default())
        };
        let pruner_clock = SimClock::new(world);
        Self {
            env: env(1, &SimClock::new(world)),
            pruner_env: env(2, &pruner_clock),
            pruner_clock,
            credential,
            keep_last: world.with_rng(|rng| rng.within(1..5)) as u32,
            grace: Duration::from_secs(3600 * world.below(40)),
            proved: Mutex::default(),
            snapshots_gone: AtomicU64::new(0),
            objects_gone: AtomicU64::new(0),
        }
    }

    /// Snapshots and objects that were taken out.
    pub fn pruned(&self) -> (u64, u64) {
        (self.snapshots_gone.load(Ordering::Relaxed), self.objects_gone.load(Ordering::Relaxed))
    }

    fn request(&self) -> PruneRequest<'static> {
        let hold = Hold {
            scope: HoldScope::Tag(HELD.to_owned()),
            reason: "matter-1".to_owned(),
            placed_by: "owner".to_owned(),
            placed_unix_ms: 0,
        };
        PruneRequest {
            policy: Policy { rules: vec![Rule::new(Keep::Last(self.keep_last))], holds: vec![hold] },
            proved: self.proved.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            grace: self.grace,
            // People have looked at whatever tripped.
            tripwire: Tripwire {
                files_min: u64::MAX,
                size_drop_percent: 100,
                entropy_from: u64::MAX,
                ..Tripwire::default()
            },
            ..PruneRequest::default()
        }
    }
}

impl Scene {
    fn maintained(&self, process: &Arc<Process>) -> Vec<NamedMaintenanceStore> {
        process.maintained(&self.upkeep.env, &self.world, &self.shelves)
    }

    /// A pruner's run: what was announced is executed, or something new announced; writers that are waited for may be
    /// retired.
    pub async fn prune(&self) -> Verdict<()> {
        let process = self.process("pruner");
        let stores = self.maintained(&process);
        if self.world.strikes(Fault::ClockJump, 100) {
            self.upkeep.pruner_clock.jump(if self.world.chance(500) { 2 * DAY_MS } else { -2 * DAY_MS });
        }
        self.begin().await;
        process.run(self.prune_beside(&stores), None).await.unwrap_or(Ok(()))
    }

    async fn prune_beside(&self, stores: &[NamedMaintenanceStore]) -> Verdict<()> {
        let Ok(done) = self.execute(stores).await else { return Ok(()) };
        match done.waiting {
            None => self.announce(stores, 800).await.map(drop),
            Some(Waiting::Writers(blind)) if self.world.chance(400) => {
                let chains: Vec<_> = blind.into_iter().map(|(_, incarnation)| incarnation).collect();
                let which = if self.world.chance(500) { Retire::All } else { Retire::Chains(&chains) };
                let retired = self.retire(stores, which).await;
                self.world.note(format_args!("pruner retired {retired:?}"));
                if self.world.chance(500) {
                    let _ = self.execute(stores).await;
                }
                Ok(())
            }
            Some(_) if self.world.chance(150) => {
                let ended = self.withdraw(stores).await;
                self.world.note(format_args!("pruner withdrew {ended:?}"));
                Ok(())
            }
            Some(_) => Ok(()),
        }
    }

    async fn withdraw(&self, stores: &[NamedMaintenanceStore]) -> Result<Option<u64>, ErrorKind> {
        let upkeep = &self.upkeep;
        let ended = withdraw(&upkeep.pruner_env, &self.auditor.open, &upkeep.credential, stores).await;
        ended.map_err(|error| error.kind())
    }

    async fn retire(&self, stores: &[NamedMaintenanceStore], which: Retire<'_>) -> Result<u64, ErrorKind> {
        let upkeep = &self.upkeep;
        let retired = retire_writers(
            &upkeep.pruner_env,
            &self.auditor.open,
            &upkeep.credential,
            stores,
            (which, &GivenUp::Nothing),
        )
        .await;
        retired.map_err(|error| error.kind())
    }

    async fn execute(&self, stores: &[NamedMaintenanceStore]) -> Result<Execution, Error> {
        let upkeep = &self.upkeep;
        let beside = self.busy.load(Ordering::SeqCst) > 0;
        let request = upkeep.request();
        let done = execute(&upkeep.pruner_env, &self.auditor.open, &upkeep.credential, stores, &request).await;
        match &done {
            Ok(done) => {
                let objects: u64 = done.stores.iter().map(|store| store.objects).sum();
                upkeep.objects_gone.fetch_add(objects, Ordering::Relaxed);
                if objects > 0 {
                    upkeep.snapshots_gone.fetch_add(done.snapshots, Ordering::Relaxed);
                    if beside {
                        self.world.fired(Fault::PrunedBeside);
                    }
                }
                self.world.note(format_args!(
                    "pruner executed {:?}: waiting {:?}, {} snapshots, {} packs, {objects} objects deleted",
                    done.plan, done.waiting, done.snapshots, done.packs
                ));
            }
            Err(error) => self.world.note(format_args!("pruner executed nothing: {error}")),
        }
        done
    }

    /// People look at what would go, and agree to most of it. `None`: there is nothing to delete, or a store does not
    /// answer.
    async fn announce(
        &self,
        stores: &[NamedMaintenanceStore],
        agree_permille: u64,
    ) -> Verdict<Option<Result<bool, Error>>> {
        let (upkeep, open) = (&self.upkeep, &self.auditor.open);
        let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
        let request = upkeep.request();
        let proposal = match propose(&upkeep.pruner_env, open, &plain, &request).await {
            Ok(proposal) => proposal,
            Err(error) => return Ok(Some(Err(error))),
        };
        if self.world.chance(150)
            && agree_permille < 1000
            && let Some((info, _)) = self.world.with_rng(|rng| rng.pick(&proposal.snapshots).cloned())
            && self.auditor.proves(info.id)
        {
            self.world.note(format_args!("{} is proved", info.tag.unwrap_or_default()));
            // Each proof stands for a store of its own: the next one replaces none.
            upkeep.proved.lock().unwrap_or_else(PoisonError::into_inner).insert(info.id.to_string(), info.id);
            return Ok(None);
        }
        let mut snapshots = proposal.approval();
        snapshots.retain(|_| self.world.chance(agree_permille));
        self.auditor.agree(&proposal, &snapshots, &request.proved, upkeep.keep_last as usize)?;
        // Another pruner may have heard of a proof meanwhile.
        let request = upkeep.request();
        let approved = Approved { snapshots, trips: proposal.trips.clone() };
        let announced = announce(&upkeep.pruner_env, open, &upkeep.credential, stores, &request, &approved).await;
        match &announced {
            Ok(Some(plan)) => self.world.note(format_args!("pruner announced {plan:?}")),
            Ok(None) => self.world.note(format_args!("pruner has nothing to announce")),
            Err(error) => self.world.note(format_args!("pruner announced nothing: {error}")),
        }
        Ok(Some(announced.map(|plan| plan.is_some())))
    }

    /// Executes what was announced before the calm, at stores that nobody has repaired yet; whether something was deleted.
    pub async fn prune_as_it_is(&self) -> Verdict<bool> {
        let stores = self.maintained(&Process::new("pruner".to_owned(), None, BTreeSet::new()));
        let deleted = |done: Execution| done.stores.iter().any(|store| store.objects > 0);
        Ok(self.execute(&stores).await.is_ok_and(deleted))
    }

    /// I4: with everybody's help a plan is announced, seen and executed at every store. What is lost at every store must
    /// be healed first, and nothing can.
    pub async fn prune_in_peace(&self) -> Verdict<()> {
        self.machines().iter().for_each(|machine| machine.clock.set());
        self.upkeep.pruner_clock.set();
        let stores = self.maintained(&Process::new("pruner".to_owned(), None, BTreeSet::new()));
        let mut announced = false;
        for turn in 0..20 {
            let done = match self.execute(&stores).await {
                Ok(done) => done,
                Err(_) if self.auditor.is_something_lost() => return Ok(()),
                Err(error) => return Err(format!("I4: a plan is not executed in peace: {error}")),
            };
            match done.waiting {
                Some(Waiting::Grace { .. }) => tokio::time::sleep(Duration::from_secs(12 * 3600)).await,
                Some(Waiting::Writers(blind)) if turn % 2 == 1 => {
                    let chains: Vec<_> = blind.into_iter().map(|(_, incarnation)| incarnation).collect();
                    let retired = self.retire(&stores, Retire::Chains(&chains)).await;
                    retired.map_err(|error| format!("I4: writers are not retired in peace: {error:?}"))?;
                }
                Some(Waiting::Writers(_)) => {}
                Some(Waiting::Attack(trips)) => return Err(format!("I4: a plan is stopped in peace: {trips:?}")),
                None if done.stores.iter().any(|store| store.error.is_some()) => {
                    return Err(format!("I4: a deletion fails in peace: {:?}", done.stores));
                }
                None if !done.stores.iter().all(StorePruned::is_done) => {
                    // A lock keeps the rest, and nobody makes it longer.
                    tokio::time::sleep(Duration::from_millis(LOCKED.ms.unsigned_abs())).await;
                    continue;
                }
                None if announced => return Ok(()),
                None => match self.announce(&stores, 1000).await? {
                    Some(Ok(true)) => announced = true,
                    Some(Err(_)) if self.auditor.is_something_lost() => return Ok(()),
                    // How well a snapshot's new content compresses may depend on which of two copies of a chunk is looked at:
                    // near the limit it trips now and not before, and people look again.
                    Some(Err(error)) if error.kind() == ErrorKind::Denied => continue,
                    Some(Err(error)) => return Err(format!("I4: no plan is announced in peace: {error}")),
                    Some(Ok(false)) | None => return Ok(()),
                },
            }
            for machine in self.machines() {
                self.take_in_peace(&machine).await?;
            }
        }
        Err("I4: a plan is never executed".to_owned())
    }

    /// A run of maintenance: look for damage within a budget, heal, extend locks.
    pub async fn maintain(&self) -> Verdict<()> {
        let process = self.process("maintain");
        let stores = self.maintained(&process);
        let bytes_max = 1 << self.world.with_rng(|rng| rng.within(16..26));
        self.begin().await;
        let work = async {
            if let Ok((found, healed)) = self.look_and_heal(&stores, bytes_max).await {
                let damaged: usize = found.iter().map(|seen| seen.corrupt.len() + seen.missing.len()).sum();
                self.world.note(format_args!("maintain found {damaged}, healed {healed}"));
            }
            self.extend_all(&process, &stores).await
        };
        process.run(work, None).await.unwrap_or(Ok(false)).map(drop)
    }

    async fn look_and_heal(
        &self,
        stores: &[NamedMaintenanceStore],
        bytes_max: u64,
    ) -> Result<(Vec<StoreScrub>, usize), Error> {
        let env = &self.upkeep.env;
        let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
        let request = ScrubRequest {
            state_dir: STATE.into(),
            max_age: Duration::from_millis(1),
            bytes_max,
            time_max: Duration::MAX,
            condemned: condemned_objects(self.auditor.open.catalog(), &plain).await?,
            // These shelves give no dates, by which alone a store is judged beside the others.
            others: Listings::default(),
            stop: Stop::default(),
        };
        let mut found = scrub(env, &plain, &request, &NoProgress).await?;
        let healed = heal(env, stores, &mut found, Path::new(STATE)).await?;
        Ok((found, healed.healed.len()))
    }

    /// I8: what a run says of the locks is true. Whether all is locked as it should.
    async fn extend_all(&self, process: &Arc<Process>, stores: &[NamedMaintenanceStore]) -> Verdict<bool> {
        let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
        let Ok(condemned) = condemned_objects(self.auditor.open.catalog(), &plain).await else { return Ok(false) };
        let mut all = true;
        let locking = |shelf: &&Arc<Shelf>| shelf.keeping == Keeping::Versions;
        for (shelf, store) in self.shelves.iter().zip(&plain).filter(|(shelf, _)| locking(shelf)) {
            let (before, now) = (shelf.next_version(), self.upkeep.env.now_unix_ms());
            let wire = process.wire(&self.world, shelf);
            let done = extend_locks(&self.upkeep.env, store, &wire, WISH, &condemned).await;
            all &= done.holds();
            self.world.note(format_args!("maintain extended {} of {} locks", done.extended, done.versions));
            let mut short = shelf.short_locks(before, now + WISH.slack_ms);
            short.retain(|name| !condemned.contains(backup_engine::candidate_of(name).unwrap_or(name)));
            if let Some(name) = short.first().filter(|_| done.holds()) {
                return Err(format!("I8: {} says that its locks hold, and that of {name} does not", shelf.name));
            }
        }
        Ok(all)
    }

    /// I8: in peace every lock of what stays is moved. Then half of the lock's length passes.
    pub async fn lock_in_peace(&self) -> Verdict<()> {
        let process = Process::new("maintain".to_owned(), None, BTreeSet::new());
        if !self.extend_all(&process, &self.maintained(&process)).await? {
            return Err("I8: locks are not extended in peace".to_owned());
        }
        tokio::time::sleep(Duration::from_secs(2 * 24 * 3600)).await;
        Ok(())
    }

    /// I6, I9: what is damaged is named and healed, what is lacking comes from where it is whole.
    pub async fn repair(&self) -> Verdict<()> {
        let process = Process::new("maintain".to_owned(), None, BTreeSet::new());
        let stores = self.maintained(&process);
        let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
        let damaged: Vec<Vec<String>> = self.shelves.iter().map(|shelf| shelf.damaged()).collect();
        let looked = self.look_and_heal(&stores, u64::MAX).await;
        let (found, _) = looked.map_err(|error| format!("I9: maintenance in peace: {error}"))?;
        for ((shelf, seen), damaged) in self.shelves.iter().zip(&found).zip(damaged) {
            let named: BTreeSet<&String> = seen.corrupt.iter().collect();
            if named != damaged.iter().collect() {
                return Err(format!("I9: at {} {damaged:?} are damaged, and a scrub names {named:?}", shelf.name));
            }
            // What no store has whole is damaged still, and every writer must know.
            let left = shelf.damaged();
            for machine in self.machines() {
                let noted = note_damage(&machine.env, &machine.state_dir, &shelf.name, &left, &[]);
                noted.map_err(|error| format!("I9: damage is not noted: {error}"))?;
            }
        }
        // What one spool brings may be all that another one's snapshots lack.
        for machine in self.machines() {
            let sent = self.send_spooled(&machine, &process, &plain, Some(Path::new(STATE))).await;
            sent.map_err(|error| format!("I6: in peace: {error}"))?;
        }
        Ok(())
    }
}
