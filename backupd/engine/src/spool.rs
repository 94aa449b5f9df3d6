//! Room on the writer's own disk for what too few stores can take now.
//!
//! A spool is a store that holds only what is new: a head stands in it whose snapshot rests on what the stores hold
//! already. It counts for no quorum, so a snapshot that lies there alone is sealed and not durable. Catch-up reads it like
//! any other store and copies nothing to it. It has a limit; what is beyond is refused. It survives restarts, and losing it
//! loses what was never durable: the chain of heads then begins anew, and every later snapshot reads its sources again.

use crate::error::{Error, ErrorKind, Result};
use crate::state::State;
use crate::store::{ListedObject, MaintenanceStore, NamedStore, Store, StoreLimits, StoreLocation};
use crate::survey::{HEADS, INDEXES, PACKS, SNAPSHOTS, Union, View, hash_in_name, index_name};
use backup_format::ObjectHash;
use backup_format::head::HeadName;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, MutexGuard, PoisonError};
use tokio::sync::Mutex;

/// Its name among the stores. No store of the settings can have it.
pub const SPOOL: &str = "local spool";
/// The state's record of the packs that may lie in the spool alone, or nowhere.
const FILE: &str = "spooled";
/// Its record of the heads in the spool, and of the index objects that they rest on.
const RESTS: &str = "spool-rests";

/// A bounded spool.
#[derive(Clone)]
pub struct Spool(Arc<Bounded>);

/// What waits in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spooled {
    pub snapshots: u64,
    pub bytes: u64,
}

struct Bounded {
    inner: Arc<dyn MaintenanceStore>,
    bytes_max: u64,
    /// Bytes in it; `None`: to be counted.
    used: Mutex<Option<u64>>,
    /// What the newest catch-up saw in it and copied to where it was lacking.
    copied: std::sync::Mutex<Vec<String>>,
}

impl Spool {
    /// One in a folder, which is there already.
    pub fn folder(path: PathBuf, bytes_max: u64) -> Result<Self> {
        let folder = StoreLocation::Folder { path }.open_for_maintenance(StoreLimits::default())?;
        Ok(Self::new(folder, bytes_max))
    }

    /// Keeps at most `bytes_max` bytes in `inner`.
    #[must_use]
    pub fn new(inner: Arc<dyn MaintenanceStore>, bytes_max: u64) -> Self {
        Self(Arc::new(Bounded { inner, bytes_max, used: Mutex::new(None), copied: std::sync::Mutex::default() }))
    }

    /// As one of the stores that a backup or catch-up is given.
    #[must_use]
    pub fn as_store(&self) -> NamedStore {
        let bare = NamedStore::new(SPOOL, Arc::clone(&self.0) as Arc<dyn Store>, false);
        NamedStore { spool: Some(self.clone()), ..bare }
    }

    pub async fn holds(&self) -> Result<Spooled> {
        let listed = self.0.inner.list("").await?;
        let snapshots = listed.iter().filter(|object| object.name.starts_with(HEADS)).count() as u64;
        Ok(Spooled { snapshots, bytes: listed.iter().map(|object| object.size).sum() })
    }

    /// Takes out what the newest catch-up copied: for whoever knows that enough stores hold everything since. What a backup
    /// has put meanwhile stays, and a pack that no index names yet. A crash on the way leaves what nothing names.
    pub async fn clear(&self) -> Result<()> {
        let names = std::mem::take(&mut *self.copied());
        self.remove(names).await
    }

    fn copied(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.copied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What names others goes first.
    async fn remove(&self, mut names: Vec<String>) -> Result<()> {
        let mut used = self.0.used.lock().await;
        *used = None;
        let kinds = [HEADS, SNAPSHOTS, INDEXES];
        names.sort_by_key(|name| kinds.iter().position(|first| name.starts_with(first)).unwrap_or(kinds.len()));
        for name in names {
            match self.0.inner.delete(&name).await {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Bounded {
    async fn used(&self) -> Result<u64> {
        Ok(self.inner.list("").await?.iter().map(|object| object.size).sum())
    }

    async fn put_within(&self, name: &str, bytes: Bytes) -> Result<()> {
        let mut used = self.used.lock().await;
        let before = match *used {
            Some(bytes) => bytes,
            None => self.used().await?,
        };
        // What fails may have left a part.
        *used = None;
        let mut after = before.saturating_add(bytes.len() as u64);
        if after > self.bytes_max {
            // Somebody else may have removed something, or all of it.
            after = self.used().await?.saturating_add(bytes.len() as u64);
        }
        if after > self.bytes_max {
            let what = format!("the spool may hold {} bytes and is full: bring the stores back", self.bytes_max);
            return Err(Error::new(ErrorKind::NoSpace, what));
        }
        self.inner.put(name, bytes).await?;
        *used = Some(after);
        Ok(())
    }
}

impl Store for Bounded {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.put_within(name, bytes))
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get(name)
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        self.inner.list(prefix)
    }
}

/// Notes what of the spool no store lacks once this round of catch-up ends: what is known to belong to something, or goes, or
/// can be read no more.
pub(crate) fn note_copied(stores: &[NamedStore], union: &Union) {
    let going = union.condemned.going();
    let belongs =
        |name: &&String| union.packs.contains_key(*name) || union.others.contains_key(*name) || going.contains(*name);
    for (store, view) in stores.iter().zip(&union.views) {
        let Some(spool) = &store.spool else { continue };
        let there = view.objects().into_iter().flat_map(BTreeMap::keys).filter(belongs);
        *spool.copied() = there.cloned().chain(union.damage.names_at(&store.name)).collect();
    }
}

/// Frees what a killed backup left in the spool before any index named it.
pub(crate) async fn sweep(stores: &[NamedStore], union: &Union) {
    for (store, view) in stores.iter().zip(&union.views).filter(|(store, _)| store.is_spool()) {
        if union.knows_all_packs(store) {
            let packs = view.objects().into_iter().flat_map(BTreeMap::keys).filter(|name| name.starts_with(PACKS));
            take_back(stores, packs.filter(|name| !union.packs.contains_key(*name)).cloned().collect()).await;
        }
    }
}

/// Frees what a backup put that did not end there.
pub(crate) async fn take_back(stores: &[NamedStore], names: Vec<String>) {
    if names.is_empty() {
        return;
    }
    for spool in stores.iter().filter_map(|store| store.spool.as_ref()) {
        if let Err(error) = spool.remove(names.clone()).await {
            // It only takes room.
            log::warn!(error:% = error; "spool.not-freed");
        }
    }
}

/// Packs that the spool held and that it does not show now. Once a store answers, what is nowhere needs no memory.
pub(crate) fn lost_packs(state: &State, stores: &[NamedStore], views: &[View], offline: bool) -> BTreeSet<ObjectHash> {
    let (there, known) = (packs_in(stores, views), recall(state, FILE).unwrap_or_default());
    let lost = known.difference(&there).copied().collect();
    remember(state, FILE, &if offline { known.union(&there).copied().collect() } else { there });
    lost
}

/// Notes a head that will lie in the spool, and the index objects that its snapshot rests on.
pub(crate) fn note_rests(
    state: &State,
    (stores, union): (&[NamedStore], &Union),
    head: HeadName,
    indexes: &[ObjectHash],
) {
    let mut all: BTreeSet<ObjectHash> = indexes.iter().copied().chain([head.hash]).collect();
    if heads_in(stores, &union.views).next().is_some() {
        all.extend(recall(state, RESTS).unwrap_or_default());
    }
    remember(state, RESTS, &all);
}

/// Heads that lie in the spool alone and must wait. What they rest on lay in stores that answered when they were taken, and may
/// lie only where nothing answers now: a store that got such a head would hold a snapshot that it cannot restore.
pub(crate) fn waiting(
    state: &State,
    stores: &[NamedStore],
    views: &[View],
    others: &BTreeMap<String, u64>,
) -> BTreeSet<String> {
    let real = || stores.iter().zip(views).filter(|(store, _)| !store.is_spool());
    let alone = |name: &&String| !real().any(|(_, view)| view.holds(name));
    let alone: BTreeSet<String> = heads_in(stores, views).filter(alone).cloned().collect();
    let mut spools = stores.iter().zip(views).filter(|(store, _)| store.is_spool());
    if spools.any(|(_, view)| view.listing.is_ok()) && heads_in(stores, views).next().is_none() {
        remember(state, RESTS, &BTreeSet::new());
    }
    if alone.is_empty() || views.iter().all(|view| view.listing.is_ok()) {
        return BTreeSet::new();
    }
    let Some(rests) = recall(state, RESTS) else { return alone };
    let heads: BTreeSet<ObjectHash> =
        others.keys().filter(|name| name.starts_with(HEADS)).filter_map(|name| hash_in_name(name)).collect();
    let is_there = |hash: &ObjectHash| heads.contains(hash) || others.contains_key(&index_name(hash));
    if !rests.iter().all(is_there) {
        return alone;
    }
    // One of which nothing was noted rests on nobody knows what.
    alone.into_iter().filter(|name| hash_in_name(name).is_none_or(|hash| !rests.contains(&hash))).collect()
}

fn heads_in<'v>(stores: &'v [NamedStore], views: &'v [View]) -> impl Iterator<Item = &'v String> {
    let spools = stores.iter().zip(views).filter(|(store, _)| store.is_spool());
    spools.filter_map(|(_, view)| view.objects()).flat_map(BTreeMap::keys).filter(|name| name.starts_with(HEADS))
}

/// Packs in the spool, if there is one among the stores.
fn packs_in(stores: &[NamedStore], views: &[View]) -> BTreeSet<ObjectHash> {
    let spools = stores.iter().zip(views).filter(|(store, _)| store.is_spool());
    let names = spools.filter_map(|(_, view)| view.objects()).flat_map(BTreeMap::keys);
    names.filter(|name| name.starts_with(PACKS)).filter_map(|name| hash_in_name(name)).collect()
}

/// `None`: there is no such record, or it is damaged.
fn recall(state: &State, file: &str) -> Option<BTreeSet<ObjectHash>> {
    let noted = state.noted(file)?;
    Some(noted.as_chunks::<{ ObjectHash::BYTES }>().0.iter().map(|hash| ObjectHash(*hash)).collect())
}

/// Notes packs on their way: unless they turn up in the spool they are nowhere as far as this writer knows.
pub(crate) fn note(state: &State, packs: &[String]) {
    let mut all = recall(state, FILE).unwrap_or_default();
    all.extend(packs.iter().filter_map(|name| hash_in_name(name)));
    remember(state, FILE, &all);
}

/// Stores took them.
pub(crate) fn forget(state: &State, packs: &[String]) {
    let gone: BTreeSet<ObjectHash> = packs.iter().filter_map(|name| hash_in_name(name)).collect();
    let known = recall(state, FILE).unwrap_or_default();
    remember(state, FILE, &known.difference(&gone).copied().collect());
}

fn remember(state: &State, file: &str, hashes: &BTreeSet<ObjectHash>) {
    if recall(state, file).unwrap_or_default() == *hashes {
        return;
    }
    if hashes.is_empty() {
        state.remove_file(file);
        return;
    }
    let names: Vec<u8> = hashes.iter().flat_map(|hash| hash.0).collect();
    let _kept = state.note(file, &names);
}
