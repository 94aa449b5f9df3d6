//! What the stores hold, by name and size, and what their index objects say together.

use crate::ahead::is_loss;
use crate::candidate::{candidate_of, whole_candidate};
use crate::catalog::Catalog;
use crate::condemned::{CONDEMNED, Condemned, nothing_new};
use crate::damage::Damage;
use crate::error::{Error, ErrorKind, Result};
use crate::gone;
use crate::held;
use crate::keyring::{KEYRINGS, is_foreign};
use crate::spool;
use crate::state::State;
use crate::store::moves::while_it_lists;
use crate::store::{LISTING_LIMIT, ListedObject, NamedStore, domains};
use backup_format::head::HeadName;
use backup_format::{CatalogKey, ChunkId, ObjectHash};
use bytes::Bytes;
use futures::FutureExt;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

/// A store's own limit comes first, where it has one.
const MARGIN: Duration = Duration::from_secs(1);
/// Objects fetched at once from one store.
pub(crate) const FETCHES: usize = 8;

/// Objects that are asked for by name before a store counts as having lost any.
const LOSSES_ASKED_FOR: usize = 4;

pub(crate) const PACKS: &str = "packs/";
pub(crate) const INDEXES: &str = "index/";
pub(crate) const SNAPSHOTS: &str = "snapshots/";
pub(crate) const HEADS: &str = "heads/";
pub(crate) const TOMBSTONES: &str = "tombstones/";

/// `packs/<first two digits>/<hash>`: folders stay small.
pub(crate) fn pack_name(hash: &ObjectHash) -> String {
    let hex = hash.to_string();
    format!("{PACKS}{}/{hex}", hex.get(..2).unwrap_or_default())
}

pub(crate) fn index_name(hash: &ObjectHash) -> String {
    format!("{INDEXES}{hash}")
}

pub(crate) fn snapshot_name(hash: &[u8; 32]) -> String {
    format!("{SNAPSHOTS}{}", ObjectHash(*hash))
}

/// The hash that ends an object's name; `None` for objects that are not the engine's.
pub(crate) fn hash_in_name(name: &str) -> Option<ObjectHash> {
    let ours = [PACKS, INDEXES, SNAPSHOTS, HEADS, TOMBSTONES, CONDEMNED, KEYRINGS]
        .iter()
        .any(|prefix| name.starts_with(prefix));
    let last = name.rsplit(['/', '-']).next()?;
    if ours { last.parse().ok() } else { None }
}

/// Chunk ids are uniform already.
#[derive(Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for part in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
            self.0 ^= u64::from_le_bytes(word);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

pub(crate) type IdSet = HashSet<ChunkId, BuildHasherDefault<IdHasher>>;

/// One store's listing, or why there is none.
pub(crate) struct View {
    pub(crate) listing: Result<BTreeMap<String, u64>>,
}

impl View {
    pub(crate) fn objects(&self) -> Option<&BTreeMap<String, u64>> {
        self.listing.as_ref().ok()
    }

    pub(crate) fn holds(&self, name: &str) -> bool {
        self.objects().is_some_and(|objects| objects.contains_key(name))
    }

    /// What was found damaged is not held.
    fn without(&mut self, store: &str, damage: &Damage) {
        if let Ok(objects) = &mut self.listing {
            objects.retain(|name, _| !damage.is(store, name));
        }
    }
}

/// A listing by object. One with further candidates counts as held with their size: they were written whole where the
/// object itself was damaged.
pub(crate) fn by_object(listed: Vec<ListedObject>) -> BTreeMap<String, u64> {
    let (candidates, objects): (Vec<_>, Vec<_>) =
        listed.into_iter().partition(|object| candidate_of(&object.name).is_some());
    let mut by_object: BTreeMap<String, u64> = objects.into_iter().map(|object| (object.name, object.size)).collect();
    for candidate in candidates {
        let name = candidate_of(&candidate.name).unwrap_or_default().to_owned();
        by_object.insert(name, candidate.size);
    }
    by_object
}

/// Lists every store at once.
pub(crate) async fn views(stores: &[NamedStore], prefix: &str) -> Vec<View> {
    let list = |store: NamedStore| {
        async move {
            let listing = match while_it_lists(LISTING_LIMIT + MARGIN, store.store.list(prefix)).await {
                Some(listing) => listing,
                None => Err(Error::new(ErrorKind::Unreachable, "the store did not list its objects in time")),
            };
            View { listing: listing.map(by_object) }
        }
        .boxed()
    };
    futures::future::join_all(stores.iter().cloned().map(list)).await
}

/// Fetches an object from the first store that holds it whole.
pub(crate) async fn fetch_any(stores: &[NamedStore], views: &[View], name: &str) -> Result<Bytes> {
    fetch_noting(stores, views, name, None).await
}

/// The same; what is found damaged on the way is noted.
pub(crate) async fn fetch_noting(
    stores: &[NamedStore],
    views: &[View],
    name: &str,
    damage: Option<&Damage>,
) -> Result<Bytes> {
    let mut last = Error::new(ErrorKind::NotFound, format!("no reachable store holds {name}"));
    for (store, _) in stores.iter().zip(views).filter(|(_, view)| view.holds(name)) {
        match fetch(store, name).await {
            Ok(bytes) => return Ok(bytes),
            Err(error) => {
                let error = match damage {
                    Some(damage) => damage.note_unread(store, name, error).await,
                    None => error,
                };
                // Where one did not answer, it is not known to be lost.
                if is_loss(&last) {
                    last = error;
                }
            }
        }
    }
    Err(last)
}

/// Fetches an object and compares it with the hash in its name; where it is damaged or gone its further candidates are
/// tried.
pub(crate) async fn fetch(store: &NamedStore, name: &str) -> Result<Bytes> {
    let mut got = store.store.get(name).await;
    let Some(hash) = hash_in_name(name) else { return got };
    let is_bad = match &got {
        Ok(bytes) => hash != ObjectHash::of(bytes),
        Err(error) => error.kind() == ErrorKind::Damaged,
    };
    if is_bad {
        // Damaged on the way, or at the store? A second look tells: what is damaged at a store drops out of its view.
        got = store.store.get(name).await;
    }
    let error = match got {
        Ok(bytes) if hash == ObjectHash::of(&bytes) => return Ok(bytes),
        Ok(_) => damaged(store, name),
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound) => error,
        Err(error) => return Err(error),
    };
    whole_candidate(store.store.as_ref(), name, hash).await?.ok_or(error)
}

pub(crate) fn damaged(store: &NamedStore, name: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("object {name} at store {} is not what was written", store.name))
}

/// What all reachable stores hold together. An object that was found damaged at a store is not held there.
pub(crate) struct Union {
    pub(crate) views: Vec<View>,
    /// Packs that index objects name and that some reachable store holds in full, with their sizes.
    pub(crate) packs: BTreeMap<String, u64>,
    /// Index, snapshot, head, tombstone and keyring objects of any reachable store.
    pub(crate) others: BTreeMap<String, u64>,
    pub(crate) heads: Vec<HeadName>,
    pub(crate) damage: Damage,
    /// Packs that index objects name and that no reachable store holds in full.
    lacking: BTreeSet<String>,
    /// There are such, or some object that was found damaged, or was seen before, is held by no reachable store.
    absent: bool,
    /// Heads in the spool that must not go to a store yet.
    waiting: BTreeSet<String>,
    /// Names of index objects that stores hold and that could not be read: which packs must be where is not known.
    unread: BTreeSet<String>,
    /// No store answers, and the spool does: what was there is taken to be there still.
    pub(crate) offline: bool,
    /// What is being deleted, and by which plan.
    pub(crate) condemned: Condemned,
}

impl Union {
    pub(crate) fn all_reachable(&self) -> bool {
        self.views.iter().all(|view| view.listing.is_ok())
    }

    /// How many failure domains that count for the quorum answer.
    pub(crate) fn counting(&self, stores: &[NamedStore]) -> usize {
        let answering = stores.iter().zip(&self.views).filter(|(_, view)| view.listing.is_ok());
        domains(answering.map(|(store, _)| store))
    }

    /// Packs that index objects name and that no reachable store holds.
    pub(crate) fn lacking(&self) -> &BTreeSet<String> {
        &self.lacking
    }

    /// Whether every pack that something at a store may name is known.
    pub(crate) fn knows_all_packs(&self, store: &NamedStore) -> bool {
        self.unread.is_empty() && self.damage.names_at(&store.name).is_empty()
    }

    /// Whether earlier heads must wait: what they reach is not known while an index object could not be read, and may lie
    /// whole only at a store that does not answer. What is lost at every store holds nothing back: a store without it is
    /// as good as the others.
    pub(crate) fn heads_wait(&self) -> bool {
        !self.unread.is_empty() || (self.absent && !self.all_reachable())
    }

    /// Whether something that a store lacks waits for a store that does not answer, or for an index object.
    pub(crate) fn something_waits(&self) -> bool {
        self.heads_wait() || !self.waiting.is_empty()
    }

    /// What a store lacks of everything that a snapshot may reach, in write order.
    pub(crate) fn missing_at(&self, view: &View) -> Vec<String> {
        let Some(objects) = view.objects() else { return Vec::new() };
        let rank = |name: &str| match name {
            _ if name.starts_with(KEYRINGS) => 0,
            _ if name.starts_with(PACKS) => 1,
            _ if name.starts_with(INDEXES) => 2,
            _ if name.starts_with(SNAPSHOTS) => 3,
            _ => 4,
        };
        let heads_wait = self.heads_wait();
        let mut missing: Vec<String> = self
            .packs
            .iter()
            .chain(&self.others)
            .filter(|(name, size)| objects.get(*name) != Some(size))
            .filter(|(name, _)| !(self.unread.contains(*name) || heads_wait && name.starts_with(HEADS)))
            .filter(|(name, _)| !self.waiting.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        missing.sort_by_key(|name| rank(name));
        missing
    }
}

/// Reads the catalog of all reachable stores; the local state's runs spare it what they cover already.
pub(crate) async fn union(key: &CatalogKey, stores: &[NamedStore], state: &Arc<State>) -> Result<(Union, Catalog)> {
    let mut views = views(stores, "").await;
    if views.iter().all(|view| view.listing.is_err()) {
        let first = views.into_iter().find_map(|view| view.listing.err());
        return Err(first.unwrap_or_else(|| Error::new(ErrorKind::Misconfigured, "no store is given")));
    }
    let offline = stores.iter().zip(&views).all(|(store, view)| store.is_spool() || view.listing.is_err());
    // Before what is damaged drops out: a plan that no store has whole is there all the same, and at the end nothing new.
    let condemned = match offline {
        true => Condemned::recall(key, state),
        false => Condemned::read(key, stores, &views, Some(state)).await,
    };
    let damage = Damage::load(state);
    let drop_damaged = |views: &mut [View]| {
        stores.iter().zip(views).for_each(|(store, view)| view.without(&store.name, &damage));
    };
    drop_damaged(&mut views);
    compare_sizes(stores, &views, &damage).await;
    drop_damaged(&mut views);
    let going = condemned.going();
    let indexes: HashSet<ObjectHash> = views
        .iter()
        .filter_map(View::objects)
        .flat_map(BTreeMap::keys)
        .filter(|name| name.starts_with(INDEXES) && !going.contains(*name))
        .filter_map(|name| hash_in_name(name))
        .collect();
    let mut catalog = Catalog::open(state);
    let lost = spool::lost_packs(state, stores, &views, offline);
    catalog.update(key, (stores, &views, &damage), (&indexes, offline.then_some(&lost))).await?;
    drop_damaged(&mut views);
    let mut others = BTreeMap::new();
    let mut held: HashMap<&str, HashSet<u64>> = HashMap::new();
    for (name, size) in views.iter().filter_map(View::objects).flatten().filter(|(name, _)| !going.contains(*name)) {
        if name.starts_with(PACKS) {
            held.entry(name).or_default().insert(*size);
        } else if hash_in_name(name).is_some() {
            others.insert(name.clone(), *size);
        }
    }
    for name in foreign_keyrings(key, stores, &views, &others).await {
        others.remove(&name);
    }
    // A chunk that lies only in packs that nobody holds is absent, and will be read and written again.
    let packs = catalog.mark_held(&held, offline, &condemned);
    let gone = |name: &String| !packs.contains_key(name) && !others.contains_key(name) && !going.contains(name);
    let lacking = catalog.lacking().clone();
    let absent = !lacking.is_empty() || damage.names().iter().any(gone);
    // One that is damaged wherever it lies will not be read tomorrow either: it is lost, and so are its packs.
    let unread = catalog.unread().iter().map(index_name).filter(|name| others.contains_key(name)).collect();
    let heads = others.keys().filter_map(|name| name.parse().ok()).collect();
    let waiting = spool::waiting(state, stores, &views, &others);
    let mut union = Union { views, packs, others, heads, damage, lacking, absent, waiting, unread, offline, condemned };
    // A snapshot that was seen may be what a head names that still stands.
    union.absent |= !gone::absent(state, &union).is_empty();
    Ok((union, catalog))
}

/// Keyrings that some store lacks, and that nobody with the repository's keys wrote: what one store made up is not handed on to
/// the others, where a lock might keep it for years.
async fn foreign_keyrings(
    key: &CatalogKey,
    stores: &[NamedStore],
    views: &[View],
    others: &BTreeMap<String, u64>,
) -> Vec<String> {
    let somewhere_lacking = |name: &str| views.iter().filter_map(View::objects).any(|there| !there.contains_key(name));
    let mut foreign = Vec::new();
    for name in others.keys().filter(|name| name.starts_with(KEYRINGS) && somewhere_lacking(name)) {
        if is_foreign(stores, views, key, name).await {
            log::warn!(object = name.as_str(); "keyring.not-handed-on");
            foreign.push(name.clone());
        }
    }
    foreign
}

/// Compares what each store holds with what it was last seen to hold: a loss is noted. `now` is when.
pub(crate) async fn note_losses(stores: &[NamedStore], state: &State, union: &Union, now_unix_ms: i64) {
    gone::note(stores, state, union).await;
    // While a store is silent nobody knows whether it has them; that the others lost them is known.
    let absent = if union.all_reachable() { Vec::new() } else { gone::absent(state, union) };
    // A spool is emptied.
    for (store, view) in stores.iter().zip(&union.views).filter(|(store, _)| !store.is_spool()) {
        let Some(objects) = view.objects() else { continue };
        let mut missing = union.missing_at(view);
        // What no other store holds is lost all the same.
        missing.extend(union.lacking.iter().chain(&absent).cloned());
        // What is damaged there is not lost.
        missing.retain(|name| !union.damage.is(&store.name, name) && !objects.contains_key(name));
        let lost = held::lost(state, &store.name, &missing);
        if is_gone(store, &lost).await {
            // An order to delete may have come since the plans were read: then the next survey tells.
            if nothing_new(store, &union.condemned).await.is_err() {
                continue;
            }
            let loss = held::Loss { objects: lost.len() as u64, at_unix_ms: now_unix_ms };
            held::note(state, &store.name, loss);
        }
        held::keep(state, &store.name, objects.keys());
    }
}

/// Whether a store lost any of these. A listing may be older than the object, so it is asked for some by name.
async fn is_gone(store: &NamedStore, lost: &[&String]) -> bool {
    for name in lost.iter().take(LOSSES_ASKED_FOR) {
        let got = store.store.get_range(name, 0..1).await;
        if got.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
            return true;
        }
    }
    false
}

/// An object of which two stores show different sizes is damaged at one of them: it is read at each.
async fn compare_sizes(stores: &[NamedStore], views: &[View], damage: &Damage) {
    let mut sizes: HashMap<&str, u64> = HashMap::new();
    let mut differ: BTreeSet<&str> = BTreeSet::new();
    for (name, size) in views.iter().filter_map(View::objects).flatten() {
        if hash_in_name(name).is_some() && *sizes.entry(name).or_insert(*size) != *size {
            differ.insert(name);
        }
    }
    for name in differ {
        for (store, _) in stores.iter().zip(views).filter(|(_, view)| view.holds(name)) {
            if fetch(store, name).await.is_err_and(|error| error.kind() == ErrorKind::Damaged) {
                damage.note(&store.name, name);
            }
        }
    }
}
