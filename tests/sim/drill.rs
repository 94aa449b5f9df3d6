//! I12: the RTO and RPO that a report states are the truth. The records lie in a practice whose stores fail, and drills go on
//! over the same bad ways; clocks are set in the middle of everything. The daemon's own code takes the times of a drill and
//! settles, writes and reads the report.
//!
//! Two clocks that disagree are one thing that no drill can know: the stated RPO then is wrong by exactly as much as they
//! differ, and where that would make it negative, it is not stated.

use crate::auditor::Verdict;
use crate::faults::Fault;
use crate::machine::{Machine, SimClock};
use crate::sample;
use crate::scenario::shelves;
use crate::shelf::{Direct, Shelf};
use crate::wire::Process;
use crate::world::{BEGIN_UNIX_MS, World};
use backup_engine::env::Clock;
use backup_engine::{
    Env, InitOptions, NamedStore, NoProgress, OpenKey, RestoreRequest, SnapshotId, facts, heads, init, restore,
    snapshot,
};
use backup_report::check;
use backupd::course::{Course, canary};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const SEEDS: u64 = 60;
/// The EMR writes a canary so often.
const CANARY_MS: u64 = 60_000;

struct Practice {
    world: Arc<World>,
    shelves: Vec<Arc<Shelf>>,
    machine: Machine,
    env: Env,
    clock: Arc<SimClock>,
    open: OpenKey,
    /// Of each snapshot's newest canary: when it was really written, and how far the EMR's clock was ahead.
    truths: BTreeMap<SnapshotId, (u64, i64)>,
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// How far a clock is ahead of the truth.
fn ahead(clock: &SimClock, world: &World) -> i64 {
    clock.now_unix_ms() - BEGIN_UNIX_MS - world.ms() as i64
}

impl Practice {
    async fn new(seed: u64) -> Verdict<Self> {
        let world = World::new(seed ^ 0xd411 << 32, std::env::var_os("HOLDFAST_SIM_SEED").is_some());
        let shelves = shelves(&world);
        let clock = SimClock::new(&world);
        let env = Env::seeded(seed, 0).0.with_clock(Arc::clone(&clock) as Arc<dyn Clock>);
        let direct: Vec<NamedStore> = shelves.iter().map(Direct::to).collect();
        let made = init(&env, &direct, InitOptions::default()).await.map_err(text)?;
        let machine = Machine::new(&world, seed, "writer".to_owned(), "emr".to_owned(), &Arc::new(made.writer));
        Ok(Self { world, shelves, machine, env, clock, open: made.open, truths: BTreeMap::new() })
    }

    fn stores(&self, name: &str) -> Vec<NamedStore> {
        Process::new(name.to_owned(), None, BTreeSet::new()).stores(&self.env, &self.world, &self.shelves)
    }

    async fn take(&mut self, at: u64) {
        self.machine.source.rest();
        self.machine.source.change();
        let written = self.world.ms() / CANARY_MS * CANARY_MS;
        let skew = ahead(&self.machine.clock, &self.world);
        let mut request = self.machine.request(&format!("tag-{at}"), 1);
        let claimed = BEGIN_UNIX_MS + written as i64 + skew;
        request.facts = Some(format!("{} {claimed}", written / CANARY_MS).into_bytes());
        let stores = self.stores("writer");
        let taken = snapshot(&self.machine.env, &self.machine.writer, &stores, request, &NoProgress).await;
        if let Ok(taken) = taken {
            self.truths.insert(taken.id, (written, skew));
        }
    }

    /// A drill; `None`: it did not come so far as to measure anything.
    async fn drill(&self, at: u32) -> Verdict<Option<(u64, Option<u64>)>> {
        let stores = self.stores("verifier");
        let store = self.world.with_rng(|rng| rng.pick(&stores).cloned()).ok_or("a store")?;
        let (declared, skew) = (self.world.ms(), ahead(&self.clock, &self.world));
        let course = Course::declare(&self.env);
        let mut report = sample::report(at);
        report.timing = course.timing();
        let Ok(found) = heads(&self.env, self.open.catalog(), std::slice::from_ref(&store)).await else {
            return Ok(None);
        };
        let Some(info) = found.snapshots.iter().find(|info| !info.partial) else { return Ok(None) };
        let Some((written, emr_skew)) = self.truths.get(&info.id) else { return Ok(None) };
        let sandbox = tempfile::tempdir().map_err(text)?;
        report.timing.restore_started_unix_ms = Some(course.now());
        let request = RestoreRequest { into: sandbox.path().to_owned(), overwrite: true, ..RestoreRequest::default() };
        if restore(&self.env, &self.open, &store, info.id, request, &NoProgress).await.is_err() {
            return Ok(None);
        }
        report.timing.data_done_unix_ms = Some(course.now());
        let Ok(Some(told)) = facts(&self.env, &self.open, &store, info.id).await else { return Ok(None) };
        self.seconds(8).await;
        report.timing.service_started_unix_ms = Some(course.now());
        self.seconds(3).await;
        report.timing.first_golden_unix_ms = Some(course.now());
        let answered = self.world.ms();
        self.seconds(30).await;
        let told = String::from_utf8(told).map_err(text)?;
        let (sequence, claimed) = told.split_once(' ').ok_or("facts")?;
        report.rpo.canary = canary(sequence.parse().map_err(text)?, claimed.parse().map_err(text)?);
        report.timing.ended_unix_ms = course.now();
        report.settle().map_err(text)?;
        let stated = check(&report.to_bytes()).map_err(text)?;

        let rto = answered - declared;
        if stated.rto.measured_ms != Some(rto) {
            return Err(format!("I12: the report says RTO {:?} ms, and it was {rto}", stated.rto.measured_ms));
        }
        let lost = (declared - written) as i64;
        // The first minute has no canary.
        let rpo = if *written == 0 { None } else { u64::try_from(lost + skew - emr_skew).ok() };
        if stated.rpo.measured_ms != rpo {
            return Err(format!("I12: the report says RPO {:?} ms, and {lost} were lost", stated.rpo.measured_ms));
        }
        Ok(Some((rto, rpo.filter(|_| skew == *emr_skew))))
    }

    /// Some seconds pass, and somebody may set the verifier's clock.
    async fn seconds(&self, most: u64) {
        if self.world.strikes(Fault::ClockJump, 200) {
            self.clock.jump(self.world.below(7_200_000) as i64 - 3_600_000);
        }
        tokio::time::sleep(Duration::from_millis(self.world.below(most * 1000))).await;
    }
}

/// Gives drills that measured something, and those of them whose clocks agreed.
async fn play(seed: u64) -> Verdict<(u64, u64)> {
    let mut practice = Practice::new(seed).await?;
    let (mut measured, mut agreed) = (0, 0);
    for at in 0..practice.world.with_rng(|rng| rng.within(4..10)) {
        if practice.world.strikes(Fault::ClockJump, 150) {
            practice.machine.clock.jump(practice.world.below(7_200_000) as i64 - 3_600_000);
        }
        if practice.world.chance(200) {
            [&practice.machine.clock, &practice.clock].iter().for_each(|clock| clock.set());
        }
        let pause = CANARY_MS + practice.world.below(4 * 3_600_000);
        tokio::time::sleep(Duration::from_millis(pause)).await;
        if practice.world.chance(800) {
            practice.take(at).await;
        }
        tokio::time::sleep(Duration::from_millis(practice.world.below(3_600_000))).await;
        if let Some((_, rpo)) = practice.drill(at as u32).await? {
            measured += 1;
            agreed += u64::from(rpo.is_some());
        }
        practice.shelves.iter().for_each(|shelf| shelf.end_day());
        practice.shelves.iter().for_each(|shelf| shelf.decay(&practice.world));
    }
    Ok((measured, agreed))
}

#[test]
fn a_report_states_the_true_recovery_time_and_point() {
    let ran = crate::each(0..SEEDS, |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.map_err(text)?.block_on(play(seed))
    });
    let failures: Vec<String> =
        ran.iter().filter_map(|(seed, ran)| Some(format!("seed {seed}: {}", ran.as_ref().err()?))).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let sum = |of: fn(&(u64, u64)) -> u64| ran.iter().filter_map(|(_, ran)| ran.as_ref().ok().map(of)).sum::<u64>();
    let (measured, agreed) = (sum(|ran| ran.0), sum(|ran| ran.1));
    println!("extra: {measured} drills measured, {agreed} of them with clocks that agree");
    assert!(
        measured > 2 * SEEDS && agreed > SEEDS && agreed < measured,
        "{measured} drills, {agreed} with clocks that agree"
    );
}
