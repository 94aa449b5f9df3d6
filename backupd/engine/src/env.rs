//! The one door to clock, randomness, local files and threads.

use crate::error::{Error, ErrorKind, Result};
use crate::memory_state::MemoryStates;
use crate::source::{RealFs, SourceFs};
use crate::state::State;
use core::convert::Infallible;
use nix::unistd::{Gid, Group, Uid, User};
use rand_core::{TryCryptoRng, TryRng};
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time as the engine sees it.
pub trait Clock: Send + Sync {
    /// Unix time, milliseconds.
    fn now_unix_ms(&self) -> i64;
    /// A steady count of milliseconds; its zero has no meaning.
    fn steady_ms(&self) -> u64;
}

/// Where random bytes come from.
pub trait Entropy: Send + Sync {
    fn fill(&self, bytes: &mut [u8]);
}

/// What a machine calls its users and groups. A number without a name is not an error.
pub trait OwnerNames: Send + Sync {
    fn user(&self, uid: u32) -> Option<Vec<u8>>;
    fn group(&self, gid: u32) -> Option<Vec<u8>>;
    /// The number of a user's name on this machine.
    fn uid(&self, name: &[u8]) -> Option<u32>;
    /// The number of a group's name on this machine.
    fn gid(&self, name: &[u8]) -> Option<u32>;
}

/// The door. Cheap to clone.
#[derive(Clone)]
pub struct Env {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    fs: Arc<dyn SourceFs>,
    owner_names: Arc<dyn OwnerNames>,
    /// Local state, when it is not in folders.
    states: Option<MemoryStates>,
    workers: usize,
}

impl Env {
    /// The machine's own clock and randomness.
    #[must_use]
    pub fn real() -> Self {
        let workers = std::thread::available_parallelism().map_or(2, usize::from).clamp(1, 16);
        Self {
            clock: Arc::new(RealClock::new()),
            entropy: Arc::new(RealEntropy),
            fs: Arc::new(RealFs),
            owner_names: Arc::new(RealOwnerNames),
            states: None,
            workers,
        }
    }

    /// A seeded door: the clock stands still until it is moved, random bytes follow from the seed, and stages run on
    /// the calling thread, so that a run replays exactly.
    #[must_use]
    pub fn seeded(seed: u64, start_unix_ms: i64) -> (Self, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock(AtomicI64::new(start_unix_ms)));
        let stream = blake3::Hasher::new_derive_key("holdfast engine seeded randomness")
            .update(&seed.to_le_bytes())
            .finalize_xof();
        let entropy = Arc::new(SeededEntropy(Mutex::new(stream)));
        let env = Self {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            entropy,
            fs: Arc::new(RealFs),
            owner_names: Arc::new(RealOwnerNames),
            states: None,
            workers: 0,
        };
        (env, clock)
    }

    /// The same door with another file system behind it.
    #[must_use]
    pub fn with_fs(mut self, fs: Arc<dyn SourceFs>) -> Self {
        self.fs = fs;
        self
    }

    /// The same door with another list of users and groups behind it.
    #[must_use]
    pub fn with_owner_names(mut self, owner_names: Arc<dyn OwnerNames>) -> Self {
        self.owner_names = owner_names;
        self
    }

    /// The same door with another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same door with local state in memory.
    #[must_use]
    pub fn with_states(mut self, states: MemoryStates) -> Self {
        self.states = Some(states);
        self
    }

    /// The local state that lies at `dir`.
    pub(crate) fn open_state(&self, dir: &Path) -> Result<State> {
        match &self.states {
            Some(states) => State::simulated(states.of(dir)),
            None => State::open(dir, self.now_unix_ms()),
        }
    }

    /// What this machine calls its users and groups.
    #[must_use]
    pub fn owner_names(&self) -> Arc<dyn OwnerNames> {
        Arc::clone(&self.owner_names)
    }

    /// Local files of sources.
    #[must_use]
    pub fn fs(&self) -> Arc<dyn SourceFs> {
        Arc::clone(&self.fs)
    }

    #[must_use]
    pub fn now_unix_ms(&self) -> i64 {
        self.clock.now_unix_ms()
    }

    #[must_use]
    pub fn steady_ms(&self) -> u64 {
        self.clock.steady_ms()
    }

    /// Threads that may compress and seal at once; 0: everything on the calling thread.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A generator over this door's randomness.
    #[must_use]
    pub fn rng(&self) -> EnvRng {
        EnvRng(Arc::clone(&self.entropy))
    }

    /// Runs blocking work off the reactor; without workers at once, on the calling thread, so that a run replays exactly.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        if self.workers == 0 {
            return Ok(work());
        }
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|error| Error::new(ErrorKind::Retry, "a worker thread ended early").because(error))
    }

    /// Waits without blocking a thread.
    pub async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A generator over the door's randomness.
pub struct EnvRng(Arc<dyn Entropy>);

impl TryRng for EnvRng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> std::result::Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> std::result::Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> std::result::Result<(), Infallible> {
        self.0.fill(dst);
        Ok(())
    }
}

impl TryCryptoRng for EnvRng {}

struct RealClock(std::time::Instant);

impl RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door through which the engine sees time")]
    fn new() -> Self {
        Self(std::time::Instant::now())
    }
}

impl Clock for RealClock {
    #[expect(clippy::disallowed_methods, reason = "this is the door through which the engine sees time")]
    fn now_unix_ms(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn steady_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

struct RealOwnerNames;

impl OwnerNames for RealOwnerNames {
    fn user(&self, uid: u32) -> Option<Vec<u8>> {
        User::from_uid(Uid::from_raw(uid)).ok().flatten().map(|user| user.name.into_bytes())
    }

    fn group(&self, gid: u32) -> Option<Vec<u8>> {
        Group::from_gid(Gid::from_raw(gid)).ok().flatten().map(|group| group.name.into_bytes())
    }

    fn uid(&self, name: &[u8]) -> Option<u32> {
        User::from_name(std::str::from_utf8(name).ok()?).ok().flatten().map(|user| user.uid.as_raw())
    }

    fn gid(&self, name: &[u8]) -> Option<u32> {
        Group::from_name(std::str::from_utf8(name).ok()?).ok().flatten().map(|group| group.gid.as_raw())
    }
}

struct RealEntropy;

impl Entropy for RealEntropy {
    #[expect(clippy::disallowed_methods, reason = "this is the door through which the engine gets randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        if getrandom::fill(bytes).is_err() {
            // Without randomness no key may be made, and no caller could do better.
            log::error!("randomness.unavailable");
            std::process::abort();
        }
    }
}

/// A clock that a test moves.
pub struct ManualClock(AtomicI64);

impl ManualClock {
    /// Sets it, also backwards.
    pub fn set(&self, unix_ms: i64) {
        self.0.store(unix_ms, Ordering::SeqCst);
    }

    pub fn advance(&self, duration: Duration) {
        self.0.fetch_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_unix_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    fn steady_ms(&self) -> u64 {
        u64::try_from(self.now_unix_ms()).unwrap_or(0)
    }
}

struct SeededEntropy(Mutex<blake3::OutputReader>);

impl Entropy for SeededEntropy {
    fn fill(&self, bytes: &mut [u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fill(bytes);
    }
}
