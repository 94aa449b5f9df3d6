//! A machine that writes snapshots: its clock, its files, its local state, its credential.

use crate::shelf::{Keeping, Shelf};
use crate::source::{SimFs, Source};
use crate::world::{BEGIN_UNIX_MS, World};
use backup_engine::env::Clock;
use backup_engine::{Env, Held, MemoryStates, Part, PartKind, SnapshotRequest, SourceLease, Stop, WriterCredential};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Virtual time as one machine sees it.
pub struct SimClock {
    world: Arc<World>,
    offset_ms: AtomicI64,
    /// Parts in a thousand by which it runs fast.
    drift: AtomicI64,
    passed_ms: AtomicI64,
}

impl SimClock {
    pub fn new(world: &Arc<World>) -> Arc<Self> {
        Arc::new(Self {
            world: Arc::clone(world),
            offset_ms: AtomicI64::new(0),
            drift: AtomicI64::new(0),
            passed_ms: AtomicI64::new(0),
        })
    }

    pub fn jump(&self, ms: i64) {
        self.offset_ms.fetch_add(ms, Ordering::SeqCst);
    }

    /// Somebody sets it.
    pub fn set(&self) {
        self.offset_ms.store(0, Ordering::SeqCst);
        self.drift(0);
    }

    pub fn drift(&self, permille: i64) {
        self.drift.store(permille, Ordering::SeqCst);
    }

    /// Time that a blocked thread spends: nobody else's passes.
    pub fn pass(&self, ms: i64) {
        self.passed_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now_unix_ms(&self) -> i64 {
        BEGIN_UNIX_MS + self.offset_ms.load(Ordering::SeqCst) + self.steady_ms() as i64
    }

    fn steady_ms(&self) -> u64 {
        let now = self.world.ms() as i64;
        (now + now * self.drift.load(Ordering::SeqCst) / 1000 + self.passed_ms.load(Ordering::SeqCst)) as u64
    }
}

pub struct Machine {
    pub name: String,
    pub env: Env,
    pub clock: Arc<SimClock>,
    pub source: Arc<Source>,
    pub source_name: String,
    pub writer: Arc<WriterCredential>,
    pub states: MemoryStates,
    pub state_dir: PathBuf,
    /// Where snapshots wait while too few stores answer.
    pub spool: Arc<Shelf>,
    /// Its local state may have stood twice, or be older than it was: then forks are nobody's fault.
    pub copied: AtomicBool,
    /// It is suspended: nothing happens on it.
    pub asleep: AtomicBool,
    earlier: Mutex<Option<Held>>,
}

impl Machine {
    pub fn new(
        world: &Arc<World>,
        seed: u64,
        name: String,
        source_name: String,
        writer: &Arc<WriterCredential>,
    ) -> Self {
        let clock = SimClock::new(world);
        let source = Source::new(world, &clock);
        Self::with_source(world, seed, (name, source_name), writer, (clock, source))
    }

    fn with_source(
        world: &Arc<World>,
        seed: u64,
        (name, source_name): (String, String),
        writer: &Arc<WriterCredential>,
        (clock, source): (Arc<SimClock>, Arc<Source>),
    ) -> Self {
        let states = MemoryStates::default();
        let env = Env::seeded(seed, 0)
            .0
            .with_clock(Arc::clone(&clock) as Arc<dyn Clock>)
            .with_fs(Arc::new(SimFs(Arc::clone(&source))))
            .with_states(states.clone());
        let writer = Arc::clone(writer);
        let state_dir = PathBuf::from("/state");
        Self {
            name,
            env,
            clock,
            source,
            source_name,
            writer,
            states,
            state_dir,
            spool: Arc::new(Shelf::new("spool".to_owned(), true, (Keeping::Plain, 0), world)),
            copied: false.into(),
            asleep: false.into(),
            earlier: Mutex::default(),
        }
    }

    /// The same machine once more, with everything that it remembers.
    pub fn copy(&self, world: &Arc<World>, seed: u64, name: String) -> Self {
        let parts = (Arc::clone(&self.clock), Arc::clone(&self.source));
        let copy = Self::with_source(world, seed, (name, self.source_name.clone()), &self.writer, parts);
        copy.put_state(self.state());
        copy.copied.store(true, Ordering::SeqCst);
        self.copied.store(true, Ordering::SeqCst);
        copy
    }

    pub fn state(&self) -> Held {
        self.states.with(&self.state_dir, |held| held.clone())
    }

    /// Sets records and files; whoever uses the state goes on using it.
    pub fn put_state(&self, from: Held) {
        self.states.with(&self.state_dir, |held| {
            (held.records, held.synced, held.files) = (from.records, from.synced, from.files);
        });
    }

    /// Keeps the state as it is now; gives the one that was kept before.
    pub fn remember(&self) -> Option<Held> {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner).replace(self.state())
    }

    pub fn request(&self, tag: &str, quorum: u32) -> SnapshotRequest {
        SnapshotRequest {
            source: self.source_name.clone(),
            parts: vec![Part { name: "files".to_owned(), path: "/source".into(), kind: PartKind::Files }],
            excludes: Vec::new(),
            tag: Some(tag.to_owned()),
            facts: Some(tag.as_bytes().to_vec()),
            quorum,
            incomplete: false,
            lease: SourceLease::default(),
            state_dir: Some(self.state_dir.clone()),
            stop: Stop::default(),
        }
    }
}
