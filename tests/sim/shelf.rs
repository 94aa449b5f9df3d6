//! A store's own disk. The fault model: bytes at rest change, go, or are set back to an earlier day; a put that was
//! acknowledged may be forgotten or stand under another name. What should be there is kept beside what is.

use crate::faults::Fault;
use crate::world::World;
use backup_engine::{Error, ErrorKind, ListedObject, NamedStore, Result, Store};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub type Objects = BTreeMap<String, Bytes>;

pub struct Shelf {
    pub name: String,
    /// Nothing is ever lost here.
    pub safe: bool,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    objects: Objects,
    /// Every object that this store took, as it came.
    honest: Objects,
    /// Earlier days.
    days: Vec<Objects>,
    /// What ails the store, and for how many requests.
    condition: Option<(Fault, u64)>,
    damaged: bool,
}

impl Shelf {
    pub fn new(name: String, safe: bool) -> Self {
        Self { name, safe, inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn put(&self, name: &str, bytes: Bytes) -> bool {
        let mut inner = self.inner();
        inner.honest.insert(name.to_owned(), bytes.clone());
        inner.objects.insert(name.to_owned(), bytes).is_some()
    }

    /// Takes an object and forgets it.
    pub fn lose(&self, name: &str, bytes: Bytes) {
        let mut inner = self.inner();
        inner.honest.insert(name.to_owned(), bytes);
        inner.objects.remove(name);
        inner.damaged = true;
    }

    pub fn get(&self, name: &str) -> Option<Bytes> {
        self.inner().objects.get(name).cloned()
    }

    pub fn list(&self, prefix: &str) -> Vec<(String, u64)> {
        let inner = self.inner();
        let under = inner.objects.iter().filter(|(name, _)| name.starts_with(prefix));
        under.map(|(name, bytes)| (name.clone(), bytes.len() as u64)).collect()
    }

    pub fn names(&self) -> Vec<String> {
        self.inner().objects.keys().cloned().collect()
    }

    /// Puts bytes under a name behind the store's back; `None` takes the object away.
    pub fn alter(&self, name: &str, bytes: Option<Bytes>) {
        let mut inner = self.inner();
        inner.damaged = true;
        match bytes {
            Some(bytes) => inner.objects.insert(name.to_owned(), bytes),
            None => inner.objects.remove(name),
        };
    }

    /// Objects whose bytes are not what came, by name.
    pub fn altered(&self) -> Vec<String> {
        let inner = self.inner();
        let wrong = |(name, bytes): &(&String, &Bytes)| inner.honest.get(*name) != Some(*bytes);
        inner.objects.iter().filter(wrong).map(|(name, _)| name.clone()).collect()
    }

    /// Names of all objects that ever came.
    pub fn taken(&self) -> Vec<String> {
        self.inner().honest.keys().cloned().collect()
    }

    /// Names of those that are there as they came.
    pub fn whole(&self) -> Vec<String> {
        let inner = self.inner();
        let whole = inner.objects.iter().filter(|(name, bytes)| inner.honest.get(*name) == Some(bytes));
        whole.map(|(name, _)| name.clone()).collect()
    }

    /// Whether everything that came is there and as it came.
    pub fn is_clean(&self) -> bool {
        let inner = self.inner();
        inner.objects == inner.honest
    }

    /// Whether anything was ever lost or changed here.
    pub fn was_damaged(&self) -> bool {
        self.inner().damaged
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
        let at = inner.days.len().saturating_sub(days);
        inner.objects = inner.days.get(at).cloned().unwrap_or_default();
    }

    pub fn ail(&self, condition: Option<(Fault, u64)>) {
        self.inner().condition = condition;
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
        self.0.put(name, bytes);
        Box::pin(std::future::ready(Ok(())))
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
