//! A store's own disk. The fault model: bytes at rest change, go, or are set back to an earlier day; a put that was
//! acknowledged may be forgotten or stand under another name; its clock is off by a day. What should be there is kept
//! beside what is. Some stores keep versions and locks, some refuse to overwrite and delete for a while.

use crate::faults::Fault;
use crate::world::{BEGIN_UNIX_MS, World};
use backup_engine::store::versions::Lock;
use backup_engine::{Error, ErrorKind, ListedObject, NamedStore, Result, Store, candidate_of};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub type Objects = BTreeMap<String, Bytes>;

/// Whether bytes are the same; those that nobody touched are shared, and need no look.
fn same(a: &Bytes, b: &Bytes) -> bool {
    (a.as_ptr(), a.len()) == (b.as_ptr(), b.len()) || a == b
}

/// What a store does with what it holds already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keeping {
    /// It overwrites and deletes what it is told.
    Plain,
    /// Overwriting and deleting leave the older versions behind, which locks keep.
    Versions,
    /// Nothing is overwritten, and nothing deleted for so many milliseconds after it came.
    WriteOnce(i64),
}

/// One version of an object at a store that keeps them.
#[derive(Clone)]
pub struct Version {
    pub name: String,
    pub number: u64,
    /// `None`: a delete marker.
    pub bytes: Option<Bytes>,
    pub written_unix_ms: i64,
    pub lock: Option<Lock>,
}

pub struct Shelf {
    pub name: String,
    /// Nothing is ever lost here.
    pub safe: bool,
    pub keeping: Keeping,
    /// How far the store's own clock is off.
    skew_ms: i64,
    world: Arc<World>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: Objects,
    /// Every object that this store took and nobody took out, as it came.
    honest: Objects,
    /// What was taken out, as it had come.
    out: Objects,
    /// When objects came.
    came: BTreeMap<String, i64>,
    /// Oldest first.
    versions: Vec<Version>,
    numbers: u64,
    /// Earlier days.
    days: Vec<Objects>,
    /// What ails the store, and for how many requests.
    condition: Option<(Fault, u64)>,
    damaged: bool,
    /// What was gone and came back.
    returned: BTreeSet<String>,
    /// How often something that was there became another thing, or went.
    changes: u64,
    /// What no store would let happen, and somebody tried.
    outrage: Option<String>,
    /// Every checkpoint of the log of reports that ever came.
    checkpoints: BTreeSet<Bytes>,
}

impl Inner {
    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers - 1
    }
}

impl Shelf {
    pub fn new(name: String, safe: bool, (keeping, skew_ms): (Keeping, i64), world: &Arc<World>) -> Self {
        Self { name, safe, keeping, skew_ms, world: Arc::clone(world), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a fault has happened in this run.
    pub fn met(&self, fault: Fault) -> bool {
        self.world.count(fault) > 0
    }

    /// By the store's own clock.
    pub fn now_unix_ms(&self) -> i64 {
        BEGIN_UNIX_MS + self.world.ms() as i64 + self.skew_ms
    }

    /// Takes an object; whether there was one.
    pub fn put(&self, name: &str, bytes: Bytes, lock: Option<Lock>) -> Result<bool> {
        let now = self.now_unix_ms();
        let mut inner = self.inner();
        if let (Keeping::WriteOnce(_), Some(there)) = (self.keeping, inner.objects.get(name)) {
            // The clients take a refusal for success where the object is there as it should be.
            return if *there == bytes { Ok(true) } else { Err(self.refuses("overwrites nothing")) };
        }
        if lock.is_some_and(|lock| lock.until_unix_ms <= now) {
            return Err(Error::new(ErrorKind::Misconfigured, "simulated: a lock must end in the future"));
        }
        if self.keeping == Keeping::Versions {
            let number = inner.next_number();
            let bytes = Some(bytes.clone());
            inner.versions.push(Version { name: name.to_owned(), number, bytes, written_unix_ms: now, lock });
        }
        if name.starts_with("log/checkpoint-") {
            inner.checkpoints.insert(bytes.clone());
        }
        inner.changes += u64::from(inner.objects.get(name).is_some_and(|there| *there != bytes));
        inner.came.insert(name.to_owned(), now);
        inner.honest.insert(name.to_owned(), bytes.clone());
        Ok(inner.objects.insert(name.to_owned(), bytes).is_some())
    }

    fn refuses(&self, what: &str) -> Error {
        self.world.fired(Fault::Locked);
        Error::new(ErrorKind::Denied, format!("simulated: {} {what}", self.name))
    }

    /// Takes an object out.
    pub fn delete(&self, name: &str) -> Result<()> {
        let now = self.now_unix_ms();
        let mut inner = self.inner();
        if let Keeping::WriteOnce(ms) = self.keeping
            && inner.came.get(name).is_some_and(|came| came + ms > now)
        {
            return Err(self.refuses("deletes nothing yet"));
        }
        if self.keeping == Keeping::Versions {
            let number = inner.next_number();
            let marker = Version { name: name.to_owned(), number, bytes: None, written_unix_ms: now, lock: None };
            inner.versions.push(marker);
        }
        inner.changes += 1;
        inner.objects.remove(name);
        if let Some(bytes) = inner.honest.remove(name) {
            inner.out.insert(name.to_owned(), bytes);
        }
        Ok(())
    }

    /// Newest first, by name.
    pub fn versions(&self, prefix: &str) -> Vec<(Version, bool)> {
        let mut found: Vec<Version> =
            self.inner().versions.iter().filter(|version| version.name.starts_with(prefix)).cloned().collect();
        found.sort_by(|a, b| a.name.cmp(&b.name).then(b.number.cmp(&a.number)));
        let mut last = None;
        let latest = |version: Version| {
            let is_latest = last.as_ref() != Some(&version.name);
            last = Some(version.name.clone());
            (version, is_latest)
        };
        found.into_iter().map(latest).collect()
    }

    pub fn version(&self, number: u64) -> Option<Version> {
        self.inner().versions.iter().find(|version| version.number == number).cloned()
    }

    /// Takes out a version for good, unless a lock keeps it. What was below it is the object from now on.
    pub fn delete_version(&self, name: &str, number: u64) -> Result<()> {
        let now = self.now_unix_ms();
        let mut inner = self.inner();
        let kept = |version: &&Version| version.lock.is_some_and(|lock| lock.until_unix_ms > now);
        if inner.versions.iter().filter(|version| version.number == number).any(|version| kept(&version)) {
            return Err(self.refuses("deletes no locked version"));
        }
        inner.versions.retain(|version| version.number != number);
        inner.changes += 1;
        let latest = inner.versions.iter().rfind(|version| version.name == name);
        match latest.and_then(|version| version.bytes.clone()) {
            Some(bytes) => drop(inner.objects.insert(name.to_owned(), bytes)),
            None => {
                inner.objects.remove(name);
                if let Some(bytes) = inner.honest.remove(name) {
                    inner.out.insert(name.to_owned(), bytes);
                }
            }
        }
        Ok(())
    }

    /// Locks a version. A lock that holds is never made weaker, and nobody should try.
    pub fn set_lock(&self, number: u64, lock: Lock) -> Result<()> {
        let now = self.now_unix_ms();
        let mut inner = self.inner();
        let found = inner.versions.iter_mut().find(|version| version.number == number);
        let Some(version) = found.filter(|version| version.bytes.is_some()) else {
            return Err(Error::new(ErrorKind::NotFound, "simulated: no such version"));
        };
        let holds = version.lock.is_some_and(|old| old.until_unix_ms > now && lock.until_unix_ms < old.until_unix_ms);
        if holds || lock.until_unix_ms <= now {
            let what = format!("the lock of {} at {} would become shorter", version.name, self.name);
            inner.outrage.get_or_insert(what);
            return Err(self.refuses("makes no lock shorter"));
        }
        version.lock = Some(lock);
        Ok(())
    }

    /// Versions that came before `number` and whose lock ends before a time.
    pub fn short_locks(&self, number: u64, until_unix_ms: i64) -> Vec<String> {
        let inner = self.inner();
        let there = inner.versions.iter().filter(|version| version.bytes.is_some() && version.number < number);
        let short = there.filter(|version| version.lock.is_none_or(|lock| lock.until_unix_ms < until_unix_ms));
        short.map(|version| version.name.clone()).collect()
    }

    pub fn changes(&self) -> u64 {
        self.inner().changes
    }

    /// The number of the version that comes next.
    pub fn next_version(&self) -> u64 {
        self.inner().numbers
    }

    /// Somebody with every credential deletes whatever no lock keeps.
    pub fn attack(&self) {
        let now = self.now_unix_ms();
        let mut inner = self.inner();
        inner.versions.retain(|version| version.lock.is_some_and(|lock| lock.until_unix_ms > now));
        inner.objects.clear();
        inner.damaged = true;
    }

    /// What somebody tried that must never be tried.
    pub fn outrage(&self) -> Option<String> {
        self.inner().outrage.clone()
    }

    /// Takes an object and forgets it.
    pub fn lose(&self, name: &str, bytes: Bytes) {
        let mut inner = self.inner();
        inner.honest.insert(name.to_owned(), bytes);
        inner.changes += 1;
        inner.objects.remove(name);
        inner.damaged = true;
    }

    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.inner().objects.get(name).cloned()
    }

    pub fn list(&self, prefix: &str) -> Vec<(String, u64)> {
        let inner = self.inner();
        let from = inner.objects.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        let under = from.take_while(|(name, _)| name.starts_with(prefix));
        under.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.inner().objects.keys().cloned().collect()
    }

    /// Puts bytes under a name behind the store's back; `None` takes the object away.
    pub fn alter(&self, name: &str, bytes: Option<Bytes>) {
        let mut inner = self.inner();
        inner.damaged = true;
        inner.changes += 1;
        match bytes {
            Some(bytes) => inner.objects.insert(name.to_owned(), bytes),
            None => inner.objects.remove(name),
        };
    }

    /// Objects whose bytes are not what came, by name.
    pub fn altered(&self) -> Vec<String> {
        let inner = self.inner();
        let wrong = |(name, bytes): &(&String, &Bytes)| {
            !inner.honest.get(*name).or_else(|| inner.out.get(*name)).is_some_and(|came| same(came, bytes))
        };
        inner.objects.iter().filter(wrong).map(|(name, _)| name.clone()).collect()
    }

    /// Of these those that have no whole further candidate beside them: whoever verifies must name them.
    pub fn damaged(&self) -> Vec<String> {
        let altered = self.altered();
        let inner = self.inner();
        let whole = |name: &str| {
            let honest = inner.honest.get(name).or_else(|| inner.out.get(name));
            let there = |number| inner.objects.get(&format!("{name}.{number}"));
            honest.is_some_and(|honest| (1..=8).filter_map(there).any(|beside| same(beside, honest)))
        };
        altered.into_iter().filter(|name| candidate_of(name).is_none() && !whole(name)).collect()
    }

    /// Names of all objects that came and that nobody took out.
    pub fn taken(&self) -> Vec<String> {
        self.inner().honest.keys().cloned().collect()
    }

    /// Names of those that are there as they came.
    pub fn whole(&self) -> Vec<String> {
        let inner = self.inner();
        let as_it_came = |name: &str, bytes: &Bytes| inner.honest.get(name).is_some_and(|came| same(came, bytes));
        let whole = inner.objects.iter().filter(|(name, bytes)| as_it_came(name, bytes));
        whole.map(|(name, _)| name.clone()).collect()
    }

    /// Whether everything that came is there and as it came.
    pub fn is_clean(&self) -> bool {
        let inner = self.inner();
        let pairs = || inner.objects.iter().zip(&inner.honest);
        inner.objects.len() == inner.honest.len() && pairs().all(|(is, came)| is.0 == came.0 && same(is.1, came.1))
    }

    /// Whether anything was ever lost or changed here.
    pub fn was_damaged(&self) -> bool {
        self.inner().damaged
    }

    /// Every checkpoint of the log of reports that this store ever showed.
    pub fn checkpoints(&self) -> BTreeSet<Bytes> {
        self.inner().checkpoints.clone()
    }

    pub fn end_day(&self) {
        let mut inner = self.inner();
        let today = inner.objects.clone();
        inner.days.push(today);
    }

    /// Sets the store back by so many days; what came since is still held against it.
    pub fn roll_back(&self, days: usize) {
        let mut inner = self.inner();
        inner.damaged = true;
        inner.changes += 1;
        let at = inner.days.len().saturating_sub(days);
        let then = inner.days.get(at).cloned().unwrap_or_default();
        let back: Vec<String> = then.keys().filter(|name| !inner.objects.contains_key(*name)).cloned().collect();
        inner.returned.extend(back);
        inner.objects = then;
    }

    /// Whether an object was gone here and came back when the store was set back once more.
    pub fn has_returned(&self, name: &str) -> bool {
        self.inner().returned.contains(name)
    }

    /// All is gone, and nobody holds it against the disk.
    pub fn wipe(&self) {
        let mut inner = self.inner();
        (inner.objects, inner.honest) = (Objects::new(), Objects::new());
    }

    pub fn ail(&self, condition: Option<(Fault, u64)>) {
        self.inner().condition = condition;
    }

    /// Whether something ails the store that lasts.
    pub fn ails(&self) -> bool {
        self.inner().condition.is_some()
    }

    /// What ails the store at this request.
    pub fn condition(&self) -> Option<Fault> {
        let mut inner = self.inner();
        let (fault, left) = inner.condition?;
        inner.condition = left.checked_sub(1).map(|left| (fault, left));
        Some(fault)
    }

    /// One at-rest fault, if it is this run's to have any.
    pub fn decay(&self, world: &World) {
        if self.safe {
            return;
        }
        let names = self.names();
        let some = |world: &World| world.with_rng(|rng| rng.pick(&names).cloned());
        if world.strikes(Fault::BitFlip, 250)
            && let Some((name, bytes)) = some(world).and_then(|name| Some((name.clone(), self.get(&name)?)))
        {
            let mut bytes = bytes.to_vec();
            let at = world.below(bytes.len() as u64) as usize;
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << world.below(8);
            }
            self.alter(&name, Some(bytes.into()));
        }
        if world.strikes(Fault::Tampered, 200) {
            for _ in 0..=world.below(4) {
                let Some(name) = some(world) else { break };
                let bytes = world.chance(400).then(|| world.with_rng(|rng| Bytes::from(rng.noise(500))));
                self.alter(&name, bytes);
            }
        }
        if world.strikes(Fault::StoreLost, 40) {
            names.iter().for_each(|name| self.alter(name, None));
        }
        if world.strikes(Fault::RolledBack, 120) {
            self.roll_back(1 + world.below(4) as usize);
        }
    }
}

/// A store without any way to it: what the auditor sees.
pub struct Direct(Arc<Shelf>);

impl Direct {
    pub fn to(shelf: &Arc<Shelf>) -> NamedStore {
        NamedStore::new(shelf.name.clone(), Arc::new(Self(Arc::clone(shelf))), true)
    }

    fn found(&self, name: &str) -> Result<Bytes> {
        self.0.get(name).ok_or_else(|| Error::new(ErrorKind::NotFound, format!("object {name} is not there")))
    }
}

impl Store for Direct {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(std::future::ready(self.0.put(name, bytes, None).map(drop)))
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(std::future::ready(self.found(name)))
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        let short = || Error::new(ErrorKind::Damaged, format!("object {name} is shorter than its index says"));
        let part = self.found(name).and_then(|bytes| {
            let there = range.end <= bytes.len() as u64;
            if there { Ok(bytes.slice(range.start as usize..range.end as usize)) } else { Err(short()) }
        });
        Box::pin(std::future::ready(part))
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        let listed = self.0.list(prefix).into_iter().map(|(name, size)| ListedObject::undated(name, size));
        Box::pin(std::future::ready(Ok(listed.collect())))
    }
}
