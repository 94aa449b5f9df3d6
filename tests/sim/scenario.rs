//! One run: rounds in which everything may go wrong at once, then calm, repair, prune, and the auditor's last look.

use crate::auditor::{Auditor, Verdict};
use crate::faults::Fault;
use crate::machine::Machine;
use crate::shelf::{Keeping, Shelf};
use crate::source::Hurt;
use crate::upkeep::Upkeep;
use crate::wire::{Nap, Process};
use crate::world::World;
use backup_engine::{
    Env, Held, InitOptions, MachineKey, NamedStore, NoProgress, PaperKey, UnlockWith, add_slot, doubts, init,
    issue_pruner, recover_writer, remove_slot, replicate, snapshot, verify,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What a run has to say at its end.
pub struct Told {
    pub counts: BTreeMap<Fault, u64>,
    pub trace: String,
    pub snapshots: u64,
    /// How many of them had to wait in a spool.
    pub spooled: u64,
    /// Snapshots and objects that were taken out.
    pub pruned: (u64, u64),
}

/// Runs a seed; an invariant that does not hold is an error.
pub fn run(seed: u64, loud: bool) -> Verdict<Told> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let told = runtime.block_on(async {
        let scene = played(seed, loud).await?;
        let (counts, trace) = scene.world.end();
        let (snapshots, spooled) = (scene.taken.load(Ordering::Relaxed), scene.spooled.load(Ordering::Relaxed));
        Ok(Told { counts, trace, snapshots, spooled, pruned: scene.upkeep.pruned() })
    });
    runtime.shutdown_background();
    told
}

/// A practice at the end of its run.
pub async fn played(seed: u64, loud: bool) -> Verdict<Scene> {
    let world = World::new(seed, loud);
    let scene = Scene::new(seed, &world).await?;
    scene.play().await?;
    Ok(scene)
}

pub struct Scene {
    pub world: Arc<World>,
    seed: u64,
    pub shelves: Vec<Arc<Shelf>>,
    pub auditor: Auditor,
    machines: Mutex<Vec<Arc<Machine>>>,
    pub upkeep: Upkeep,
    quorum: u32,
    pub paper: PaperKey,
    tags: AtomicU64,
    taken: AtomicU64,
    spooled: AtomicU64,
    /// Programs that read or write beside a prune.
    pub busy: AtomicU64,
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Stores of a run: one is safe, some keep versions or refuse changes, some have a clock that is a day off.
pub fn shelves(world: &Arc<World>) -> Vec<Arc<Shelf>> {
    let stores = world.with_rng(|rng| rng.within(3..6)) as usize;
    let safe = world.below(stores as u64) as usize;
    let shelf = |at: usize| {
        let keeping = match world.below(10) {
            0 | 1 if world.is_enabled(Fault::Locked) => Keeping::WriteOnce(3 * DAY.as_millis() as i64),
            2..5 => Keeping::Versions,
            _ => Keeping::Plain,
        };
        let day = DAY.as_millis() as i64;
        let skew = match world.strikes(Fault::StoreClock, 200) {
            true if world.chance(500) => day,
            true => -day,
            false => 0,
        };
        Arc::new(Shelf::new(format!("store-{at}"), at == safe, (keeping, skew), world))
    };
    (0..stores).map(shelf).collect()
}

impl Scene {
    async fn new(seed: u64, world: &Arc<World>) -> Verdict<Self> {
        let env = Env::seeded(seed, crate::world::BEGIN_UNIX_MS).0;
        let shelves = shelves(world);
        let stores = shelves.len();
        let direct: Vec<NamedStore> = shelves.iter().map(crate::shelf::Direct::to).collect();
        let text = |error: backup_engine::Error| error.to_string();
        let made = init(&env, &direct, InitOptions::default()).await.map_err(text)?;
        let auditor = Auditor::new(env.clone(), made.open, &shelves);
        let paper = UnlockWith::PaperKey(made.paper_key.clone());
        let pruner = issue_pruner(&env, made.keyring.clone(), &paper).await.map_err(text)?;
        let writers = world.with_rng(|rng| rng.within(1..4));
        let mut machines = Vec::new();
        let mut writer = Arc::new(made.writer);
        let shared = world.chance(300);
        for at in 0..writers {
            if at > 0 {
                writer = Arc::new(recover_writer(&env, made.keyring.clone(), &paper).await.map_err(text)?);
            }
            let source = if shared { "emr".to_owned() } else { format!("emr-{at}") };
            let name = format!("writer-{at}");
            machines.push(Arc::new(Machine::new(world, seed ^ (at + 1) << 40, name, source, &writer)));
        }
        let quorum = world.with_rng(|rng| rng.within(1..stores as u64)) as u32;
        world.note(format_args!("seed {seed}: {stores} stores, {writers} writers, quorum {quorum}"));
        Ok(Self {
            world: Arc::clone(world),
            seed,
            shelves,
            auditor,
            machines: Mutex::new(machines),
            upkeep: Upkeep::new(world, seed, pruner),
            quorum,
            paper: made.paper_key,
            tags: AtomicU64::new(0),
            taken: AtomicU64::new(0),
            spooled: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        })
    }

    pub fn machines(&self) -> Vec<Arc<Machine>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn play(&self) -> Verdict<()> {
        for round in 0..self.world.with_rng(|rng| rng.within(3..9)) {
            self.world.note(format_args!("round {round}"));
            let sleeps = self.world.is_enabled(Fault::WriterSleeps) && self.world.chance(250);
            if sleeps { self.while_one_sleeps().await? } else { self.day(250).await? }
        }
        self.calm().await
    }

    /// A writer is suspended for a week in the middle of its snapshot. Meanwhile the others work on, and prune. It is none
    /// that was copied: a plan says by counter how far it has read a chain, so the late head of a machine whose copy went
    /// on is taken for one that was read (SPEC 7.1). Nobody is told that it is durable, and the fork is an alarm.
    async fn while_one_sleeps(&self) -> Verdict<()> {
        let mut machines = self.machines();
        machines.retain(|machine| !machine.copied.load(Ordering::SeqCst));
        let Some(machine) = self.world.with_rng(|rng| rng.pick(&machines).cloned()) else { return Ok(()) };
        let before = ["heads/", "heads/", "snapshots/", "index/", "packs/"];
        let before = self.world.with_rng(|rng| rng.pick(&before).copied()).unwrap_or("heads/");
        let nap = Nap { before, after: self.world.chance(300), length: 7 * DAY };
        machine.asleep.store(true, Ordering::SeqCst);
        let nights = async {
            for _ in 0..4 {
                self.day(900).await?;
                tokio::time::sleep(DAY).await;
            }
            Ok(())
        };
        let (slept, nights) = futures::join!(self.take(&machine, false, Some(nap)), nights);
        machine.asleep.store(false, Ordering::SeqCst);
        slept.and(nights)
    }

    /// Everybody works; then the stores' disks have their night.
    async fn day(&self, prune_permille: u64) -> Verdict<()> {
        self.before_round();
        self.round(prune_permille).await?;
        self.check_chains().await?;
        if self.world.chance(300) {
            self.auditor.check_stores().await?;
        }
        for shelf in &self.shelves {
            shelf.end_day();
            shelf.decay(&self.world);
        }
        let hours = self.world.below(12) as u32;
        tokio::time::sleep(HOUR * hours).await;
        Ok(())
    }

    async fn check_chains(&self) -> Verdict<()> {
        let machines = self.machines();
        let copied = machines.iter().any(|machine| machine.copied.load(Ordering::SeqCst));
        let spools: Vec<Arc<Shelf>> = machines.iter().map(|machine| Arc::clone(&machine.spool)).collect();
        self.auditor.check_chains(&spools, copied).await
    }

    /// What happens to the machines themselves; one that sleeps rests.
    fn before_round(&self) {
        let machines = self.machines();
        let asleep = |machine: &Machine| {
            let is = |other: &&Arc<Machine>| Arc::ptr_eq(&other.source, &machine.source);
            machines.iter().filter(is).any(|other| other.asleep.load(Ordering::SeqCst))
        };
        for machine in machines.iter().filter(|machine| !asleep(machine)) {
            machine.source.rest();
            machine.source.change();
            if self.world.chance(20) {
                machine.source.write_large(9);
            }
            if hurt_state(&self.world, machine) {
                machine.spool.wipe();
                self.auditor.spool_lost.store(true, Ordering::SeqCst);
            }
            if self.world.strikes(Fault::ClockJump, 120) {
                let ten_years = 10 * 365 * 86_400_000;
                machine.clock.jump(if self.world.chance(500) { ten_years } else { -ten_years });
            }
            if self.world.strikes(Fault::ClockDrifts, 120) {
                machine.clock.drift(self.world.below(400) as i64 - 200);
            }
        }
        if machines.len() < 4 && self.world.strikes(Fault::MachineCopied, 150) {
            let at = self.world.below(machines.len() as u64) as usize;
            let name = format!("copy-{}", machines.len());
            if let Some(machine) = machines.get(at).filter(|machine| !machine.asleep.load(Ordering::SeqCst)) {
                let copy = machine.copy(&self.world, self.seed ^ (self.world.below(1 << 20) + 50) << 40, name);
                self.machines.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::new(copy));
            }
        }
    }

    /// Everybody at once.
    async fn round(&self, prune_permille: u64) -> Verdict<()> {
        let machines = self.machines();
        let mut work: Vec<BoxFuture<'_, Verdict<()>>> = Vec::new();
        let shared =
            |machine: &Machine| machines.iter().filter(|other| Arc::ptr_eq(&other.source, &machine.source)).count() > 1;
        for machine in machines.iter().filter(|machine| !machine.asleep.load(Ordering::SeqCst)) {
            if !self.world.chance(800) {
                continue;
            }
            let twice = self.world.strikes(Fault::TwoDaemons, 150);
            let alone = !twice && !shared(machine);
            work.push(self.take(machine, alone, None).boxed());
            if twice {
                work.push(self.take(machine, alone, None).boxed());
            }
        }
        if self.world.chance(250) {
            work.push(self.catch_up().boxed());
        }
        if self.world.chance(250) {
            work.push(self.verify_one().boxed());
        }
        if self.world.chance(250) {
            work.push(self.look_through().boxed());
        }
        if self.world.strikes(Fault::SlotRemoved, 150) {
            work.push(self.remove_a_slot().boxed());
        }
        if self.world.chance(prune_permille) {
            work.push(self.prune().boxed());
            if self.world.strikes(Fault::TwoDaemons, 150) {
                work.push(self.prune().boxed());
            }
        }
        if self.world.chance(250) {
            work.push(self.maintain().boxed());
        }
        futures::future::join_all(work).await.into_iter().collect()
    }

    pub async fn begin(&self) {
        let wait = self.world.below(400);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    /// A program's run; it may be killed on the way, or see only some of the stores.
    pub fn process(&self, name: &str) -> Arc<Process> {
        let kill = self.world.is_enabled(Fault::Kill) && self.world.chance(300);
        let kill = kill.then(|| self.world.below(40));
        let parted = self.world.is_enabled(Fault::Diverged) && self.world.chance(150);
        // Some of the stores, or each of them.
        let of = if self.world.chance(300) { 1000 } else { 400 };
        let blind: BTreeSet<String> =
            self.shelves.iter().filter(|_| parted && self.world.chance(of)).map(|shelf| shelf.name.clone()).collect();
        Process::new(name.to_owned(), kill, blind)
    }

    /// A program counts as busy until what is given is dropped.
    fn is_busy(&self) -> impl Drop + '_ {
        struct Busy<'a>(&'a AtomicU64);
        impl Drop for Busy<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::SeqCst);
            }
        }
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(&self.busy)
    }

    pub fn stores(&self, process: &Arc<Process>) -> Vec<NamedStore> {
        process.stores(&self.upkeep.env, &self.world, &self.shelves)
    }

    async fn take(&self, machine: &Machine, alone: bool, nap: Option<Nap>) -> Verdict<()> {
        let _busy = self.is_busy();
        let process = match nap {
            Some(nap) => Process::new(machine.name.clone(), None, BTreeSet::new()).will_nap(nap),
            None => self.process(&machine.name),
        };
        let mut stores = self.stores(&process);
        stores.push(process.spool(&self.world, &machine.spool).as_store());
        let warned = self.world.strikes(Fault::PowerWarning, 60).then(|| Duration::from_secs(60));
        self.begin().await;
        let tag = format!("tag-{}", self.tags.fetch_add(1, Ordering::SeqCst));
        self.auditor.begins(&tag, machine.source.tree());
        let request = machine.request(&tag, self.quorum);
        if warned.is_some() && self.world.chance(500) {
            request.stop.stop();
        }
        let taking = snapshot(&machine.env, &machine.writer, &stores, request, &NoProgress);
        let outcome = process.run(taking, warned).await;
        let outcome = match &outcome {
            Some(Ok(outcome)) => {
                let told = (outcome.counter, outcome.durable, outcome.partial, outcome.spooled);
                self.spooled.fetch_add(u64::from(outcome.spooled), Ordering::Relaxed);
                self.world.note(format_args!("{} took {tag} {told:?}", machine.name));
                self.taken.fetch_add(1, Ordering::Relaxed);
                Some(outcome)
            }
            Some(Err(error)) => {
                self.world.note(format_args!("{} failed {tag}: {:?} {error}", machine.name, error.kind()));
                None
            }
            None => None,
        };
        self.auditor.ended(&tag, machine.source.hurt(), alone, outcome)
    }

    async fn catch_up(&self) -> Verdict<()> {
        let machines = self.machines();
        let Some(machine) = self.world.with_rng(|rng| rng.pick(&machines).cloned()) else { return Ok(()) };
        let _busy = self.is_busy();
        let process = self.process("catch-up");
        let stores = self.stores(&process);
        self.begin().await;
        let _ = process.run(self.send_spooled(&machine, &process, &stores, None), None).await;
        Ok(())
    }

    /// Catch-up, and an empty spool once enough stores hold everything.
    pub async fn send_spooled(
        &self,
        machine: &Machine,
        process: &Arc<Process>,
        stores: &[NamedStore],
        state: Option<&Path>,
    ) -> Verdict<()> {
        let spool = process.spool(&self.world, &machine.spool);
        let all: Vec<NamedStore> = stores.iter().cloned().chain([spool.as_store()]).collect();
        let done = replicate(&self.upkeep.env, &machine.writer, &all, state).await;
        let done = done.map_err(|error| format!("catch-up: {error}"))?;
        if done.iter().filter(|store| store.complete).count() >= self.quorum as usize {
            spool.clear().await.map_err(|error| format!("the spool is not emptied: {error}"))?;
        }
        match done.iter().find(|store| !store.complete) {
            Some(store) => Err(format!("catch-up: {store:?}")),
            None => Ok(()),
        }
    }

    async fn verify_one(&self) -> Verdict<()> {
        let dies = self.world.strikes(Fault::VerifierDies, 500).then(|| self.world.below(20));
        let _busy = self.is_busy();
        let process = Process::new("verifier".to_owned(), dies, BTreeSet::new());
        let stores = self.stores(&process);
        let Some(store) = self.world.with_rng(|rng| rng.pick(&stores).cloned()) else { return Ok(()) };
        self.begin().await;
        let auditor = &self.auditor;
        process.run(verify(&auditor.env, &auditor.open, &store, crate::auditor::all(), &NoProgress), None).await;
        Ok(())
    }

    async fn look_through(&self) -> Verdict<()> {
        let _busy = self.is_busy();
        let process = Process::new("reader".to_owned(), None, BTreeSet::new());
        let stores = self.stores(&process);
        let Some(store) = self.world.with_rng(|rng| rng.pick(&stores).cloned()) else { return Ok(()) };
        self.begin().await;
        process.run(self.auditor.look_through(&store), None).await.unwrap_or(Ok(()))
    }

    /// A further slot, and out with it again, while the others work.
    async fn remove_a_slot(&self) -> Verdict<()> {
        let process = Process::new("keys".to_owned(), None, BTreeSet::new());
        let stores = self.stores(&process);
        self.begin().await;
        let (env, paper) = (&self.auditor.env, UnlockWith::PaperKey(self.paper.clone()));
        let machine = UnlockWith::Machine(MachineKey::generate(&mut env.rng()));
        if let Ok((_, slot)) = add_slot(env, &stores, &paper, machine).await {
            // Where a store does not answer it stays: the next keyring takes it out.
            let _ = remove_slot(env, &stores, &paper, slot.id).await;
        }
        Ok(())
    }

    /// Nothing goes wrong any more: what was damaged is named and put back, and everything comes to rest.
    async fn calm(&self) -> Verdict<()> {
        self.world.calm();
        self.world.note(format_args!("calm"));
        self.shelves.iter().for_each(|shelf| shelf.ail(None));
        for machine in self.machines() {
            machine.spool.ail(None);
            machine.source.rest();
            machine.states.with(&machine.state_dir, |held| (held.refuses, held.refuses_sync) = (None, None));
        }
        // Requests of programs that were killed may still be on their way.
        tokio::time::sleep(Duration::from_secs(120)).await;
        let back = self.auditor.check_stores().await?;
        self.auditor.check_names().await?;
        if self.prune_as_it_is().await? {
            self.auditor.check_nothing_went(&back).await?;
        }
        self.repair().await?;
        self.auditor.caught_up.store(true, Ordering::SeqCst);
        for machine in self.machines() {
            self.take_in_peace(&machine).await?;
        }
        self.repair().await?;
        self.prune_in_peace().await?;
        self.repair().await?;
        self.auditor.check_stores().await?;
        self.auditor.check_end().await?;
        self.check_chains().await?;
        self.lock_in_peace().await?;
        self.auditor.check_locks(&self.world).await
    }

    /// I4: whatever happened before, a run in peace ends well; I11: and one more has nothing to add; I10: nothing is left.
    pub async fn take_in_peace(&self, machine: &Machine) -> Verdict<()> {
        for again in [false, true] {
            let process = Process::new(machine.name.clone(), None, BTreeSet::new());
            let mut stores = self.stores(&process);
            stores.push(process.spool(&self.world, &machine.spool).as_store());
            let tag = format!("tag-{}", self.tags.fetch_add(1, Ordering::SeqCst));
            self.auditor.begins(&tag, machine.source.tree());
            let request = machine.request(&tag, self.quorum);
            let taken = snapshot(&machine.env, &machine.writer, &stores, request, &NoProgress).await;
            let taken = taken.map_err(|error| format!("I4: {} in peace: {error}", machine.name))?;
            if !taken.durable || taken.partial || taken.spooled || taken.stores.iter().any(|store| !store.durable) {
                return Err(format!("I4: {} in peace: {taken:?}", machine.name));
            }
            // A writer's index keeps one place of a chunk: while that is condemned, the chunk may be sent more than once.
            let planned = self
                .shelves
                .iter()
                .any(|shelf| shelf.list("condemned/").iter().any(|(name, _)| !name.contains("retired")));
            // The same of a chunk of which one place is in a pack that every store has lost, and that an index still names.
            let known =
                doubts(&machine.env, &machine.state_dir, std::iter::empty()).map_err(|error| error.to_string())?;
            let lost = known.gone.keys().any(|name| name.starts_with("packs/"));
            if again && taken.bytes_added > 0 && !planned && !lost {
                return Err(format!("I11: {} added {} bytes of nothing new", machine.name, taken.bytes_added));
            }
            self.auditor.ended(&tag, Hurt::default(), true, Some(&taken))?;
        }
        let left: Vec<String> = machine
            .state()
            .files
            .into_keys()
            .filter(|name| {
                let kept = ["run-", "walk-", "damage", "plan-", "held-", "losses", "spool"];
                !kept.iter().any(|kept| name.starts_with(kept))
            })
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("I10: {} left {left:?} behind", machine.name)) }
    }
}

/// What happens to a machine's local state between two runs; whether its spool is lost as well.
fn hurt_state(world: &World, machine: &Machine) -> bool {
    let earlier = machine.remember();
    let mut spool_lost = false;
    machine.states.with(&machine.state_dir, |held| {
        (held.refuses, held.refuses_sync) = (None, None);
        if world.strikes(Fault::SyncFails, 80) {
            held.refuses_sync = Some(io::ErrorKind::Other);
        }
        if world.strikes(Fault::StateFull, 60) {
            held.refuses = Some(io::ErrorKind::StorageFull);
        }
        if world.strikes(Fault::StateReadOnly, 60) {
            held.refuses = Some(io::ErrorKind::ReadOnlyFilesystem);
        }
        if world.strikes(Fault::PowerCut, 120) {
            held.records = held.synced.clone();
            let names: Vec<String> = held.files.keys().cloned().collect();
            let reorder = world.strikes(Fault::ReorderedState, 500);
            for (at, name) in names.iter().enumerate() {
                // In order the later ones go; out of order any of them.
                let goes = if reorder { world.chance(500) } else { at * 2 >= names.len() };
                if goes {
                    held.files.remove(name);
                }
            }
        }
        if world.strikes(Fault::TornState, 80) {
            with_a_file(world, held, |bytes| bytes.truncate(bytes.len() / 2));
        }
        if world.strikes(Fault::BitFlip, 80) {
            let at = world.next();
            with_a_file(world, held, |bytes| flip(bytes, at));
            if let Some(record) = held.records.values_mut().next() {
                flip(record, at);
            }
        }
        if let Some(earlier) = earlier {
            if world.strikes(Fault::RenameLost, 80) {
                let names: Vec<String> = earlier.files.keys().cloned().collect();
                if let Some(name) = world.with_rng(|rng| rng.pick(&names).cloned())
                    && let Some(bytes) = earlier.files.get(&name)
                {
                    held.files.insert(name, Arc::clone(bytes));
                }
            }
            if world.strikes(Fault::LostWrite, 60) {
                (held.records, held.synced, held.files) = (earlier.records.clone(), earlier.records, earlier.files);
                machine.copied.store(true, Ordering::SeqCst);
            }
        }
        if world.strikes(Fault::StateLost, 60) {
            spool_lost = world.chance(400);
            if world.chance(500) {
                (held.records, held.synced, held.files) = Default::default();
            } else {
                held.files.values_mut().for_each(|bytes| *bytes = Arc::new(b"no sense".to_vec()));
                held.records.values_mut().for_each(|bytes| *bytes = b"no sense".to_vec());
            }
        }
        spool_lost |= world.strikes(Fault::StateLost, 30);
    });
    spool_lost
}

fn flip(bytes: &mut [u8], at: u64) {
    let at = at as usize % bytes.len().max(1);
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 0x20;
    }
}

fn with_a_file(world: &World, held: &mut Held, hurt: impl FnOnce(&mut Vec<u8>)) {
    let names: Vec<String> = held.files.keys().cloned().collect();
    if let Some(name) = world.with_rng(|rng| rng.pick(&names).cloned())
        && let Some(bytes) = held.files.get_mut(&name)
    {
        let mut copy = bytes.to_vec();
        hurt(&mut copy);
        *bytes = Arc::new(copy);
    }
}
