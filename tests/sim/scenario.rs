//! One run: rounds in which everything may go wrong at once, then calm, repair, and the auditor's last look.

use crate::auditor::{Auditor, Verdict};
use crate::faults::Fault;
use crate::machine::Machine;
use crate::shelf::Shelf;
use crate::source::Hurt;
use crate::wire::Process;
use crate::world::World;
use backup_engine::{
    Env, Held, InitOptions, MachineKey, NamedStore, NoProgress, PaperKey, UnlockWith, add_slot, init, recover_writer,
    remove_slot, replicate, snapshot, verify,
};
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a run has to say at its end.
pub struct Told {
    pub counts: BTreeMap<Fault, u64>,
    pub trace: String,
    pub snapshots: u64,
}

/// Runs a seed; an invariant that does not hold is an error.
pub fn run(seed: u64, loud: bool) -> Verdict<Told> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let told = runtime.block_on(async {
        let world = World::new(seed, loud);
        let mut scene = Scene::new(seed, &world).await?;
        scene.play().await?;
        let (counts, trace) = world.end();
        Ok(Told { counts, trace, snapshots: scene.taken.load(Ordering::Relaxed) })
    });
    runtime.shutdown_background();
    told
}

struct Scene {
    world: Arc<World>,
    seed: u64,
    shelves: Vec<Arc<Shelf>>,
    auditor: Auditor,
    machines: Vec<Machine>,
    quorum: u32,
    paper: PaperKey,
    tags: AtomicU64,
    taken: AtomicU64,
}

impl Scene {
    async fn new(seed: u64, world: &Arc<World>) -> Verdict<Self> {
        let env = Env::seeded(seed, crate::world::BEGIN_UNIX_MS).0;
        let stores = world.with_rng(|rng| rng.within(3..6)) as usize;
        let safe = world.below(stores as u64) as usize;
        let shelves: Vec<Arc<Shelf>> =
            (0..stores).map(|at| Arc::new(Shelf::new(format!("store-{at}"), at == safe))).collect();
        let direct: Vec<NamedStore> = shelves.iter().map(crate::shelf::Direct::to).collect();
        let text = |error: backup_engine::Error| error.to_string();
        let made = init(&env, &direct, InitOptions::default()).await.map_err(text)?;
        let auditor = Auditor::new(env.clone(), made.open, &shelves);
        let writers = world.with_rng(|rng| rng.within(1..4));
        let mut machines = Vec::new();
        let mut writer = Arc::new(made.writer);
        let shared = world.chance(300);
        for at in 0..writers {
            if at > 0 {
                let with = UnlockWith::PaperKey(made.paper_key.clone());
                writer = Arc::new(recover_writer(&env, made.keyring.clone(), &with).await.map_err(text)?);
            }
            let source = if shared { "emr".to_owned() } else { format!("emr-{at}") };
            machines.push(Machine::new(world, seed ^ (at + 1) << 40, format!("writer-{at}"), source, &writer));
        }
        let quorum = world.with_rng(|rng| rng.within(1..stores as u64)) as u32;
        world.note(format_args!("seed {seed}: {stores} stores, {writers} writers, quorum {quorum}"));
        Ok(Self {
            world: Arc::clone(world),
            seed,
            shelves,
            auditor,
            machines,
            quorum,
            paper: made.paper_key,
            tags: AtomicU64::new(0),
            taken: AtomicU64::new(0),
        })
    }

    async fn play(&mut self) -> Verdict<()> {
        for round in 0..self.world.with_rng(|rng| rng.within(3..9)) {
            self.world.note(format_args!("round {round}"));
            self.before_round();
            self.round().await?;
            self.auditor.check_chains(self.copied()).await?;
            if self.world.chance(300) {
                self.auditor.check_stores().await?;
            }
            for shelf in &self.shelves {
                shelf.end_day();
                shelf.decay(&self.world);
            }
        }
        self.calm().await
    }

    fn copied(&self) -> bool {
        self.machines.iter().any(|machine| machine.copied.load(Ordering::SeqCst))
    }

    /// What happens to the machines themselves.
    fn before_round(&mut self) {
        for machine in &self.machines {
            machine.source.rest();
            machine.source.change();
            if self.world.chance(20) {
                machine.source.write_large(9);
            }
            hurt_state(&self.world, machine);
            if self.world.strikes(Fault::ClockJump, 120) {
                let ten_years = 10 * 365 * 86_400_000;
                machine.clock.jump(if self.world.chance(500) { ten_years } else { -ten_years });
            }
            if self.world.strikes(Fault::ClockDrifts, 120) {
                machine.clock.drift(self.world.below(400) as i64 - 200);
            }
        }
        if self.machines.len() < 4 && self.world.strikes(Fault::MachineCopied, 150) {
            let at = self.world.below(self.machines.len() as u64) as usize;
            let name = format!("copy-{}", self.machines.len());
            if let Some(machine) = self.machines.get(at) {
                let copy = machine.copy(self.seed ^ (self.world.below(1 << 20) + 50) << 40, name);
                self.machines.push(copy);
            }
        }
    }

    /// Everybody at once.
    async fn round(&self) -> Verdict<()> {
        let mut work: Vec<BoxFuture<'_, Verdict<()>>> = Vec::new();
        let shared = |machine: &Machine| {
            self.machines.iter().filter(|other| Arc::ptr_eq(&other.source, &machine.source)).count() > 1
        };
        for machine in &self.machines {
            if !self.world.chance(800) {
                continue;
            }
            let twice = self.world.strikes(Fault::TwoDaemons, 150);
            let alone = !twice && !shared(machine);
            work.push(self.take(machine, alone).boxed());
            if twice {
                work.push(self.take(machine, alone).boxed());
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
        futures::future::join_all(work).await.into_iter().collect()
    }

    async fn begin(&self) {
        let wait = self.world.below(400);
        tokio::time::sleep(Duration::from_millis(wait)).await;
    }

    /// A program's run; it may be killed on the way, or see only some of the stores.
    fn process(&self, name: &str) -> Arc<Process> {
        let kill = self.world.is_enabled(Fault::Kill) && self.world.chance(300);
        let kill = kill.then(|| self.world.below(40));
        let parted = self.world.is_enabled(Fault::Diverged) && self.world.chance(150);
        let blind: BTreeSet<String> =
            self.shelves.iter().filter(|_| parted && self.world.chance(400)).map(|shelf| shelf.name.clone()).collect();
        Process::new(name.to_owned(), kill, blind)
    }

    async fn take(&self, machine: &Machine, alone: bool) -> Verdict<()> {
        let process = self.process(&machine.name);
        let stores = process.stores(&self.world, &self.shelves);
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
                let told = (outcome.counter, outcome.durable, outcome.partial);
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
        let Some(machine) = self.machines.first() else { return Ok(()) };
        let process = self.process("maintain");
        let stores = process.stores(&self.world, &self.shelves);
        self.begin().await;
        process.run(replicate(&self.auditor.env, &machine.writer, &stores, None), None).await;
        Ok(())
    }

    async fn verify_one(&self) -> Verdict<()> {
        let dies = self.world.strikes(Fault::VerifierDies, 500).then(|| self.world.below(20));
        let process = Process::new("verifier".to_owned(), dies, BTreeSet::new());
        let stores = process.stores(&self.world, &self.shelves);
        let Some(store) = self.world.with_rng(|rng| rng.pick(&stores).cloned()) else { return Ok(()) };
        self.begin().await;
        let auditor = &self.auditor;
        process.run(verify(&auditor.env, &auditor.open, &store, crate::auditor::all(), &NoProgress), None).await;
        Ok(())
    }

    async fn look_through(&self) -> Verdict<()> {
        let process = Process::new("reader".to_owned(), None, BTreeSet::new());
        let stores = process.stores(&self.world, &self.shelves);
        let Some(store) = self.world.with_rng(|rng| rng.pick(&stores).cloned()) else { return Ok(()) };
        self.begin().await;
        process.run(self.auditor.look_through(&store), None).await.unwrap_or(Ok(()))
    }

    /// A further slot, and out with it again, while the others work.
    async fn remove_a_slot(&self) -> Verdict<()> {
        let process = Process::new("keys".to_owned(), None, BTreeSet::new());
        let stores = process.stores(&self.world, &self.shelves);
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
        for machine in &self.machines {
            machine.source.rest();
            machine.states.with(&machine.state_dir, |held| (held.refuses, held.refuses_sync) = (None, None));
        }
        // Requests of programs that were killed may still be on their way.
        tokio::time::sleep(Duration::from_secs(120)).await;
        self.auditor.check_stores().await?;
        self.auditor.check_names().await?;
        self.repair().await?;
        for machine in &self.machines {
            self.take_in_peace(machine).await?;
        }
        self.repair().await?;
        self.auditor.check_stores().await?;
        self.auditor.check_end().await?;
        self.auditor.check_chains(self.copied()).await
    }

    /// I4: whatever happened before, a run in peace ends well; I11: and one more has nothing to add; I10: nothing is left.
    async fn take_in_peace(&self, machine: &Machine) -> Verdict<()> {
        for again in [false, true] {
            let process = Process::new(machine.name.clone(), None, BTreeSet::new());
            let stores = process.stores(&self.world, &self.shelves);
            let tag = format!("tag-{}", self.tags.fetch_add(1, Ordering::SeqCst));
            self.auditor.begins(&tag, machine.source.tree());
            let request = machine.request(&tag, self.quorum);
            let taken = snapshot(&machine.env, &machine.writer, &stores, request, &NoProgress).await;
            let taken = taken.map_err(|error| format!("I4: {} in peace: {error}", machine.name))?;
            if !taken.durable || taken.partial || taken.stores.iter().any(|store| !store.durable) {
                return Err(format!("I4: {} in peace: {taken:?}", machine.name));
            }
            if again && taken.bytes_added > 0 {
                return Err(format!("I11: {} added {} bytes of nothing new", machine.name, taken.bytes_added));
            }
            self.auditor.ended(&tag, Hurt::default(), true, Some(&taken))?;
        }
        let left: Vec<String> = machine
            .state()
            .files
            .into_keys()
            .filter(|name| !["run-", "walk-", "damage"].iter().any(|kept| name.starts_with(kept)))
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("I10: {} left {left:?} behind", machine.name)) }
    }

    /// I6, I9: what is damaged goes, what is lacking comes from where it is whole.
    async fn repair(&self) -> Verdict<()> {
        for shelf in &self.shelves {
            shelf.altered().iter().for_each(|name| shelf.alter(name, None));
        }
        let Some(machine) = self.machines.first() else { return Ok(()) };
        let process = Process::new("maintain".to_owned(), None, BTreeSet::new());
        let stores = process.stores(&self.world, &self.shelves);
        let done = replicate(&self.auditor.env, &machine.writer, &stores, None).await;
        let done = done.map_err(|error| format!("I6: catch-up in peace: {error}"))?;
        match done.iter().find(|store| !store.complete) {
            Some(store) => Err(format!("I6: catch-up in peace: {store:?}")),
            None => Ok(()),
        }
    }
}

/// What happens to a machine's local state between two runs.
fn hurt_state(world: &World, machine: &Machine) {
    let earlier = machine.remember();
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
            if world.chance(500) {
                (held.records, held.synced, held.files) = Default::default();
            } else {
                held.files.values_mut().for_each(|bytes| *bytes = Arc::new(b"no sense".to_vec()));
                held.records.values_mut().for_each(|bytes| *bytes = b"no sense".to_vec());
            }
        }
    });
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
