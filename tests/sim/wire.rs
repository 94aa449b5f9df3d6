//! The way from a program to a store. The fault model: an answer is late, lost, short or wrong; the store refuses; the
//! program dies before or after its request took effect, or sleeps for a week before it makes it.

use crate::faults::Fault;
use crate::shelf::{Keeping, Shelf};
use crate::world::World;
use backup_engine::store::versions::{Lock, LockMode};
use backup_engine::store::{LimitStore, LockingStore, MaintenanceStore, RetryStore};
use backup_engine::{
    Env, Error, ErrorKind, ListedObject, LockRule, NamedMaintenanceStore, NamedStore, Result, Spool, Store,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// As the real clients have it.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const ATTEMPTS: u32 = 3;
const CONCURRENCY: usize = 8;
const DAY_MS: i64 = 86_400_000;
/// How long new objects are locked at stores that lock.
pub const LOCKED: LockRule = LockRule { mode: LockMode::Compliance, ms: 8 * DAY_MS };

const SPOOL_BYTES: u64 = 4 << 20;

/// A machine that is suspended right before a request, or right after it.
#[derive(Debug, Clone, Copy)]
pub struct Nap {
    /// What it is about to write.
    pub before: &'static str,
    pub after: bool,
    pub length: Duration,
}

/// One run of a program.
pub struct Process {
    pub name: String,
    /// Stores that it cannot see.
    pub blind_to: BTreeSet<String>,
    dead: AtomicBool,
    /// Requests until it is killed; negative: it is not.
    left: AtomicI64,
    died: Notify,
    nap: Mutex<Option<Nap>>,
    /// Suspended until then.
    wakes: Mutex<Option<tokio::time::Instant>>,
}

impl Process {
    pub fn new(name: String, kill_after: Option<u64>, blind_to: BTreeSet<String>) -> Arc<Self> {
        let left = AtomicI64::new(kill_after.map_or(-1, |requests| requests as i64));
        let (nap, wakes) = (Mutex::default(), Mutex::default());
        Arc::new(Self { name, blind_to, dead: AtomicBool::new(false), left, died: Notify::new(), nap, wakes })
    }

    /// Once it will be suspended.
    pub fn will_nap(self: Arc<Self>, nap: Nap) -> Arc<Self> {
        *self.nap.lock().unwrap_or_else(PoisonError::into_inner) = Some(nap);
        self
    }

    /// All requests of a suspended machine wait.
    async fn rest(&self, world: &World, name: &str, after: bool) {
        let is_due = |nap: &mut Nap| nap.after == after && name.starts_with(nap.before);
        let due = self.nap.lock().unwrap_or_else(PoisonError::into_inner).take_if(is_due);
        if let Some(due) = due {
            world.fired(Fault::WriterSleeps);
            let until = tokio::time::Instant::now() + due.length;
            *self.wakes.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        }
        let until = *self.wakes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(until) = until {
            tokio::time::sleep_until(until).await;
        }
    }

    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// Runs until it ends or the program is killed, or its time is up.
    pub async fn run<T>(&self, work: impl Future<Output = T>, limit: Option<Duration>) -> Option<T> {
        let limit = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
        };
        let done = tokio::select! {
            biased;
            () = self.died.notified() => None,
            done = work => Some(done),
            () = limit => None,
        };
        self.dead.store(true, Ordering::SeqCst);
        done
    }

    /// The stores as this program sees them, wrapped as the real ones are. `env` has the clock by which locks are set: one
    /// that is far off is refused by every store that locks.
    pub fn stores(self: &Arc<Self>, env: &Env, world: &Arc<World>, shelves: &[Arc<Shelf>]) -> Vec<NamedStore> {
        self.maintained(env, world, shelves).iter().map(NamedMaintenanceStore::as_store).collect()
    }

    /// The same for maintenance.
    pub fn maintained(
        self: &Arc<Self>,
        env: &Env,
        world: &Arc<World>,
        shelves: &[Arc<Shelf>],
    ) -> Vec<NamedMaintenanceStore> {
        let see = |shelf: &Arc<Shelf>| {
            let wire = Arc::new(self.wire(world, shelf));
            let bare: Arc<dyn MaintenanceStore> = if shelf.keeping == Keeping::Versions {
                Arc::new(LockingStore::new(Arc::clone(&wire) as _, wire, LOCKED, env.clone()))
            } else {
                wire
            };
            let limited = LimitStore::new(bare, CONCURRENCY);
            NamedMaintenanceStore::new(shelf.name.clone(), Arc::new(RetryStore::new(Arc::new(limited), ATTEMPTS)), true)
        };
        shelves.iter().map(see).collect()
    }

    /// A machine's own spool, over a way that is as bad as any other. It has room for a day or two.
    pub fn spool(self: &Arc<Self>, world: &Arc<World>, shelf: &Arc<Shelf>) -> Spool {
        Spool::new(Arc::new(self.wire(world, shelf)), SPOOL_BYTES)
    }

    /// A way to one store without anything around it.
    pub fn wire(self: &Arc<Self>, world: &Arc<World>, shelf: &Arc<Shelf>) -> Wire {
        Wire { world: Arc::clone(world), shelf: Arc::clone(shelf), process: Arc::clone(self) }
    }
}

pub struct Wire {
    pub world: Arc<World>,
    pub shelf: Arc<Shelf>,
    pub process: Arc<Process>,
}

/// What becomes of a request.
pub enum Fate {
    Serve,
    Refuse(Error),
    /// It takes effect, and the answer is lost.
    Unanswered(Error),
    Spoil(Fault),
    /// The program dies here; whether the request takes effect.
    Die(bool),
}

fn refuse(kind: ErrorKind, why: &str) -> Error {
    Error::new(kind, format!("simulated: {why}"))
}

fn silent() -> Error {
    refuse(ErrorKind::Unreachable, "the answer did not come in time")
}

impl Wire {
    pub async fn fate(&self, what: &str, name: &str, bytes: usize, spoils: &[Fault]) -> Fate {
        let process = &self.process;
        if process.dead.load(Ordering::SeqCst) {
            return Fate::Refuse(refuse(ErrorKind::Unreachable, "the program is dead"));
        }
        if what == "put" {
            process.rest(&self.world, name, false).await;
        }
        self.world.note(format_args!("{} {} {what} {name}", process.name, self.shelf.name));
        let left = process.left.fetch_sub(1, Ordering::SeqCst);
        let mut wait = Duration::from_millis(1 + self.world.below(30));
        if left == 0 {
            tokio::time::sleep(wait).await;
            return Fate::Die(self.world.chance(500));
        }
        let mut fate = Fate::Serve;
        if process.blind_to.contains(&self.shelf.name) {
            self.world.fired(Fault::Diverged);
            fate = Fate::Refuse(silent());
        } else if let Some(condition) = self.shelf.condition() {
            (wait, fate) = self.ailing(condition, what, bytes, wait);
        } else if let Some(fault) = self.world.meets(spoils) {
            self.begins(fault);
            self.world.fired(fault);
            (wait, fate) = match fault {
                Fault::AmbiguousPut => (wait * 10, Fate::Unanswered(silent())),
                fault if CONDITIONS.contains(&fault) => self.ailing(fault, what, bytes, wait),
                fault => (wait, Fate::Spoil(fault)),
            };
        }
        if wait > REQUEST_LIMIT {
            wait = REQUEST_LIMIT;
            fate = if self.world.chance(500) { Fate::Unanswered(silent()) } else { Fate::Refuse(silent()) };
        }
        tokio::time::sleep(wait).await;
        fate
    }

    /// A fault that lasts begins.
    fn begins(&self, fault: Fault) {
        if CONDITIONS.contains(&fault) {
            self.shelf.ail(Some((fault, 1 + self.world.below(25))));
        }
    }

    fn ailing(&self, condition: Fault, what: &str, bytes: usize, wait: Duration) -> (Duration, Fate) {
        match condition {
            Fault::Storm if self.world.chance(700) => (wait, Fate::Refuse(refuse(ErrorKind::Unreachable, "503"))),
            Fault::CredentialsExpire => (wait, Fate::Refuse(refuse(ErrorKind::Denied, "the credentials have expired"))),
            Fault::Quota if what == "put" => (wait, Fate::Refuse(refuse(ErrorKind::NoSpace, "the quota is reached"))),
            Fault::NoAnswer if self.world.chance(300) => (REQUEST_LIMIT, Fate::Refuse(silent())),
            Fault::NoAnswer => (wait, Fate::Refuse(refuse(ErrorKind::Unreachable, "no connection"))),
            Fault::Throttled => (wait + Duration::from_millis(bytes as u64), Fate::Serve),
            Fault::Slow => (wait * 1000, Fate::Serve),
            _ => (wait, Fate::Serve),
        }
    }

    pub async fn die(&self) -> ! {
        self.world.fired(Fault::Kill);
        self.process.kill();
        std::future::pending().await
    }

    fn found(&self, name: &str) -> Result<Bytes> {
        self.shelf.get(name).ok_or_else(|| refuse(ErrorKind::NotFound, name))
    }

    fn land(&self, name: &str, bytes: Bytes, lock: Option<Lock>) -> Result<()> {
        if self.shelf.put(name, bytes, lock)? {
            self.world.fired(Fault::PutNotConditional);
        }
        Ok(())
    }

    pub async fn put_as(&self, name: &str, bytes: Bytes, lock: Option<Lock>) -> Result<()> {
        let spoils = if self.shelf.safe { &PUT_FAULTS[2..] } else { &PUT_FAULTS };
        match self.fate("put", name, bytes.len(), spoils).await {
            Fate::Refuse(error) => return Err(error),
            Fate::Unanswered(error) => {
                self.land(name, bytes, lock)?;
                return Err(error);
            }
            Fate::Die(lands) => {
                if lands {
                    let _ = self.land(name, bytes, lock);
                }
                self.die().await
            }
            Fate::Spoil(Fault::LostWrite) => self.shelf.lose(name, bytes),
            Fate::Spoil(Fault::MisdirectedWrite) => self.misdirect(name, bytes),
            Fate::Serve | Fate::Spoil(_) => self.land(name, bytes, lock)?,
        }
        self.process.rest(&self.world, name, true).await;
        Ok(())
    }

    /// Another object's place takes these bytes; their own stays empty.
    fn misdirect(&self, name: &str, bytes: Bytes) {
        let names = self.shelf.names();
        if let Some(other) = self.world.with_rng(|rng| rng.pick(&names).cloned()) {
            self.shelf.alter(&other, Some(bytes.clone()));
        }
        self.shelf.lose(name, bytes);
    }

    fn spoiled(&self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        let at = self.world.below(bytes.len() as u64) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 0x40;
        }
        bytes.into()
    }
}

/// Faults that last for some requests.
const CONDITIONS: [Fault; 6] =
    [Fault::Storm, Fault::CredentialsExpire, Fault::Quota, Fault::NoAnswer, Fault::Throttled, Fault::Slow];

/// The first two never happen to a safe store.
const PUT_FAULTS: [Fault; 9] = [
    Fault::LostWrite,
    Fault::MisdirectedWrite,
    Fault::Storm,
    Fault::AmbiguousPut,
    Fault::CredentialsExpire,
    Fault::Quota,
    Fault::NoAnswer,
    Fault::Throttled,
    Fault::Slow,
];
/// Of a deletion, or of a lock that is moved.
pub const CHANGE_FAULTS: [Fault; 4] = [Fault::Storm, Fault::AmbiguousPut, Fault::CredentialsExpire, Fault::NoAnswer];
const GET_FAULTS: [Fault; 7] = [
    Fault::Storm,
    Fault::CredentialsExpire,
    Fault::NoAnswer,
    Fault::Throttled,
    Fault::Slow,
    Fault::TruncatedBody,
    Fault::WrongBytes,
];
const LIST_FAULTS: [Fault; 6] =
    [Fault::Storm, Fault::CredentialsExpire, Fault::NoAnswer, Fault::Slow, Fault::StaleList, Fault::Leftovers];

impl Store for Wire {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put_as(name, bytes, None))
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let size = self.shelf.get(name).map_or(0, |bytes| bytes.len());
            match self.fate("get", name, size, &GET_FAULTS).await {
                Fate::Refuse(error) | Fate::Unanswered(error) => Err(error),
                Fate::Die(_) => self.die().await,
                Fate::Spoil(Fault::TruncatedBody) => self.found(name).map(|bytes| bytes.slice(..bytes.len() / 2)),
                Fate::Spoil(Fault::WrongBytes) => self.found(name).map(|bytes| self.spoiled(&bytes)),
                Fate::Serve | Fate::Spoil(_) => self.found(name),
            }
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let cut = |bytes: Bytes| {
                let short = || refuse(ErrorKind::Damaged, "shorter than asked for");
                let (from, to) = (range.start as usize, range.end as usize);
                if from <= to && to <= bytes.len() { Ok(bytes.slice(from..to)) } else { Err(short()) }
            };
            let size = (range.end - range.start) as usize;
            match self.fate("range", name, size, &GET_FAULTS).await {
                Fate::Refuse(error) | Fate::Unanswered(error) => Err(error),
                Fate::Die(_) => self.die().await,
                // The clients compare the length of what comes with what was asked for.
                Fate::Spoil(Fault::TruncatedBody) => Err(refuse(ErrorKind::Damaged, "shorter than asked for")),
                Fate::Spoil(Fault::WrongBytes) => self.found(name).and_then(cut).map(|bytes| self.spoiled(&bytes)),
                Fate::Serve | Fate::Spoil(_) => self.found(name).and_then(cut),
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(async move {
            let fate = self.fate("list", prefix, 1000, &LIST_FAULTS).await;
            let mut listed = self.shelf.list(prefix);
            match fate {
                Fate::Refuse(error) | Fate::Unanswered(error) => return Err(error),
                Fate::Die(_) => self.die().await,
                Fate::Spoil(Fault::StaleList) => {
                    listed.retain(|_| !self.world.chance(150));
                    if let Some(twice) = self.world.with_rng(|rng| rng.pick(&listed).cloned()) {
                        listed.push(twice);
                        listed.sort();
                    }
                }
                Fate::Spoil(Fault::Leftovers) => {
                    let names = ["packs/ab/.1-0.part", "packs/ab/upload~1", "index/", "streams/x", "lost+found"];
                    let under = names.iter().filter(|name| name.starts_with(prefix));
                    listed.extend(under.map(|name| ((*name).to_owned(), 17)));
                    listed.sort();
                }
                Fate::Serve | Fate::Spoil(_) => {}
            }
            Ok(listed.into_iter().map(|(name, size)| ListedObject::undated(name, size)).collect())
        })
    }
}

impl MaintenanceStore for Wire {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put_as(name, bytes, None))
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match self.fate("delete", name, 0, &CHANGE_FAULTS).await {
                Fate::Refuse(error) => Err(error),
                Fate::Unanswered(error) => self.shelf.delete(name).and(Err(error)),
                Fate::Die(lands) => {
                    if lands {
                        let _ = self.shelf.delete(name);
                    }
                    self.die().await
                }
                Fate::Serve | Fate::Spoil(_) => self.shelf.delete(name),
            }
        })
    }
}
