//! What all parts of one simulated run share: chance, virtual time, the trace, the counts of faults.

use crate::faults::Fault;
use crate::rng::Rng;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Arguments;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Unix milliseconds at which every run begins.
pub const BEGIN_UNIX_MS: i64 = 1_790_000_000_000;

pub struct World {
    start: tokio::time::Instant,
    shared: Mutex<Shared>,
    loud: bool,
}

struct Shared {
    rng: Rng,
    trace: blake3::Hasher,
    counts: BTreeMap<Fault, u64>,
    enabled: BTreeSet<Fault>,
    /// How often a request meets a fault.
    permille: u64,
}

impl World {
    pub fn new(seed: u64, loud: bool) -> Arc<Self> {
        let mut rng = Rng::new(seed);
        // Each run has its own mixture: few faults at once go deeper than all of them.
        let share = [150, 300, 500, 800][rng.below(4) as usize];
        let enabled = Fault::ALL.iter().copied().filter(|_| rng.chance(share)).collect();
        let permille = [3, 10, 30, 80][rng.below(4) as usize];
        let trace = blake3::Hasher::new();
        let shared = Mutex::new(Shared { rng, trace, counts: BTreeMap::new(), enabled, permille });
        Arc::new(Self { start: tokio::time::Instant::now(), shared, loud })
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual milliseconds since the run began.
    pub fn ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }

    pub fn with_rng<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.shared().rng)
    }

    pub fn below(&self, end: u64) -> u64 {
        self.with_rng(|rng| rng.below(end))
    }

    pub fn next(&self) -> u64 {
        self.with_rng(Rng::next)
    }

    pub fn is_enabled(&self, fault: Fault) -> bool {
        self.shared().enabled.contains(&fault)
    }

    pub fn chance(&self, permille: u64) -> bool {
        self.with_rng(|rng| rng.chance(permille))
    }

    /// Whether this fault strikes now, with a chance of its own. Counted.
    pub fn strikes(&self, fault: Fault, permille: u64) -> bool {
        let mut shared = self.shared();
        let struck = shared.enabled.contains(&fault) && shared.rng.chance(permille);
        drop(shared);
        if struck {
            self.fired(fault);
        }
        struck
    }

    /// The fault that a request meets, of those that could happen to it. Not counted: it may come to nothing.
    pub fn meets(&self, possible: &[Fault]) -> Option<Fault> {
        let mut shared = self.shared();
        let permille = shared.permille;
        if !shared.rng.chance(permille) {
            return None;
        }
        let enabled: Vec<Fault> = possible.iter().copied().filter(|fault| shared.enabled.contains(fault)).collect();
        shared.rng.pick(&enabled).copied()
    }

    pub fn fired(&self, fault: Fault) {
        *self.shared().counts.entry(fault).or_default() += 1;
        self.note(format_args!("fault {fault:?}"));
    }

    pub fn count(&self, fault: Fault) -> u64 {
        self.shared().counts.get(&fault).copied().unwrap_or(0)
    }

    /// From now on nothing goes wrong.
    pub fn calm(&self) {
        let mut shared = self.shared();
        shared.enabled.clear();
        shared.permille = 0;
    }

    /// Writes into the trace.
    pub fn note(&self, what: Arguments<'_>) {
        let line = format!("{} {what}", self.ms());
        if self.loud {
            eprintln!("{line}");
        }
        let mut shared = self.shared();
        shared.trace.update(line.as_bytes());
        shared.trace.update(b"\n");
    }

    pub fn end(&self) -> (BTreeMap<Fault, u64>, String) {
        let shared = self.shared();
        (shared.counts.clone(), shared.trace.finalize().to_hex().to_string())
    }
}
