//! The production engine in a seeded, single-threaded world: several writers, a verifier, catch-up, maintenance that scrubs,
//! heals and extends locks, a pruner, and three to five stores, in which whatever the catalog of faults knows goes wrong,
//! and an auditor who knows the truth. Time is virtual, chance comes from the seed, so a failure prints its seed and replays.
//!
//! `HOLDFAST_SIM_SEEDS` (90): how many seeds; `HOLDFAST_SIM_FIRST` (0): the first one; `HOLDFAST_SIM_SEED`: this one alone,
//! with every event printed.

mod auditor;
mod byzantine;
mod faults;
mod locks;
mod machine;
mod rng;
mod scenario;
mod shelf;
mod source;
mod upkeep;
mod wire;
mod world;

use faults::Fault;
use scenario::{Told, run};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 90;

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What all seeds of a run tell together.
#[derive(Default)]
struct Sum {
    counts: BTreeMap<Fault, u64>,
    snapshots: u64,
    spooled: u64,
    /// Snapshots and objects that were taken out.
    pruned: (u64, u64),
    failures: Vec<String>,
}

impl Sum {
    fn add(&mut self, told: Told) {
        told.counts.into_iter().for_each(|(fault, count)| *self.counts.entry(fault).or_default() += count);
        self.snapshots += told.snapshots;
        self.spooled += told.spooled;
        self.pruned = (self.pruned.0 + told.pruned.0, self.pruned.1 + told.pruned.1);
    }
}

/// So many failures are enough for one run.
const FAILURES_SHOWN: u64 = 20;

/// Runs seeds on as many threads as the machine has; each seed on one.
fn run_all(seeds: std::ops::Range<u64>) -> Sum {
    let (next, failed, end) = (AtomicU64::new(seeds.start), AtomicU64::new(0), seeds.end);
    let sum: Mutex<Sum> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        return;
                    }
                    if failed.load(Ordering::Relaxed) >= FAILURES_SHOWN {
                        return;
                    }
                    let ran = std::panic::catch_unwind(|| run(seed, false));
                    let mut sum = sum.lock().expect("no thread panics with it");
                    match ran {
                        Ok(Ok(told)) => sum.add(told),
                        ran => {
                            let what =
                                ran.map_or_else(|_| Some("panicked".to_owned()), Result::err).unwrap_or_default();
                            failed.fetch_add(1, Ordering::Relaxed);
                            eprintln!("seed {seed}: {what}");
                            sum.failures.push(format!("seed {seed}: {what}"));
                        }
                    }
                }
            });
        }
    });
    sum.into_inner().expect("no thread panics with it")
}

#[test]
fn whatever_goes_wrong_every_invariant_holds() {
    if let Some(seed) = setting("HOLDFAST_SIM_SEED") {
        let told = run(seed, true).map(|told| told.trace);
        assert!(told.is_ok(), "seed {seed}: {}", told.unwrap_err());
        return;
    }
    let (first, seeds) = (setting("HOLDFAST_SIM_FIRST").unwrap_or(0), setting("HOLDFAST_SIM_SEEDS").unwrap_or(SEEDS));
    let Sum { counts, snapshots, spooled, pruned: (gone, objects), failures } = run_all(first..first + seeds);
    println!(
        "extra: {seeds} seeds, {snapshots} snapshots taken, {spooled} of them waited in a spool, {gone} taken out again with {objects} objects, {} faults",
        counts.values().sum::<u64>()
    );
    for fault in Fault::ALL {
        println!("F{:02} {fault:?}: {}", fault.number(), counts.get(fault).copied().unwrap_or(0));
    }
    assert!(
        failures.is_empty(),
        "{} seeds failed; HOLDFAST_SIM_SEED=N replays one:\n{}",
        failures.len(),
        failures.join("\n")
    );
    let idle = seeds >= 20 && (gone < seeds / 2 || objects < seeds);
    assert!(!idle, "the pruner hardly ever came to delete something");
    assert!(seeds < 20 || spooled > seeds / 10, "hardly anything ever waited in a spool");
    // Every fault must really happen, or nothing is proved about it.
    let least = if seeds >= 100_000 { 1000 } else { u64::from(seeds >= 40) };
    let rare: Vec<&Fault> = Fault::ALL.iter().filter(|fault| counts.get(fault).copied().unwrap_or(0) < least).collect();
    assert!(rare.is_empty(), "these faults happened fewer than {least} times: {rare:?}");
}

#[test]
fn a_seed_replays_to_the_same_trace() {
    for seed in [3, 17, 40, 41, 99] {
        let [first, second] = [run(seed, false), run(seed, false)].map(|told| told.map(|told| told.trace));
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(run(1, false).map(|told| told.trace), run(2, false).map(|told| told.trace));
}
