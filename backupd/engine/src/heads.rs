//! The union of heads over stores, sources and incarnations.

use crate::ahead::is_loss;
use crate::condemned::{CONDEMNED, Condemned};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gaps::{Gap, gaps};
use crate::order::{Linked, follows, newest_first};
use crate::store::NamedStore;
use crate::survey::{self, FETCHES, HEADS, View, fetch, snapshot_name, views};
use backup_format::head::{Head, HeadName};
use backup_format::manifest::{InnerManifest, OuterManifest};
use backup_format::sealed::{PartsKind, open_parts};
use backup_format::{CatalogKey, IncarnationId, ObjectHash, OpenKey, SnapshotId, SourceId};
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: SnapshotId,
    pub source: String,
    pub incarnation: IncarnationId,
    pub counter: u64,
    pub taken_unix_ms: i64,
    pub partial: bool,
    pub files: u64,
    pub bytes_source: u64,
    pub bytes_added: u64,
    /// Only from [`heads_with_tags`].
    pub tag: Option<String>,
    /// Names of the stores that hold its head: those are complete for it.
    pub stores: Vec<String>,
    /// Another head claims the same counter of the same chain. An alarm; both are kept.
    pub forked: bool,
    /// Its head's name.
    pub head: HeadName,
    /// The heads that it names: its predecessor, or as the first of its incarnation those that its writer saw.
    pub follows: Vec<ObjectHash>,
    /// The newest deletion plan that its writer had seen.
    pub plan_seen: Option<[u8; 32]>,
    /// Its source had been set back to an earlier state, and nobody had looked into it: the snapshots that hold what it lacks.
    pub set_back: Vec<Option<SnapshotId>>,
}

/// What the stores say together.
#[derive(Debug)]
pub struct Heads {
    /// Newest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Heads that came after a deletion that their writer had not seen: they do not count.
    pub uncommitted: Vec<SnapshotInfo>,
    /// Heads that the newest order takes out and that are still there.
    pub going: Vec<SnapshotInfo>,
    /// Stores that did not answer.
    pub unreachable: Vec<(String, Error)>,
    /// Heads whose word does not count at a store, because they or their manifests are damaged or gone there.
    pub rejected: Vec<Rejected>,
    /// Counters of a chain without a head and without a tombstone: an alarm. Known only when every store answered.
    pub gaps: Vec<Gap>,
}

impl Heads {
    /// Of one store: what could not be read of a source, and may be newer than all that could: no later head of the same chain
    /// was read.
    pub fn unread(&self, source: SourceId) -> impl Iterator<Item = &Rejected> {
        let is_older = move |name: &HeadName| {
            let later = |info: &SnapshotInfo| info.head.counter > name.counter;
            let same = |info: &&SnapshotInfo| (info.head.source, info.head.incarnation) == (source, name.incarnation);
            self.snapshots.iter().filter(same).any(later)
        };
        let may_be_newer = move |name: &HeadName| name.source == source && !is_older(name);
        self.rejected.iter().filter(move |rejected| rejected.head.as_ref().is_some_and(may_be_newer))
    }
}

/// An object that makes a head not count at a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    pub store: String,
    pub object: String,
    /// The head that it makes not count; `None` where its name is none.
    pub head: Option<HeadName>,
    /// The head is there, and what it names is not.
    pub missing: bool,
}

/// Heads that were read before, with what their manifests say. A head's name holds its hash, so it is read once; that
/// its bytes are still whole is for a scrub to tell.
#[derive(Debug, Default)]
pub struct KnownHeads(Mutex<HashMap<HeadName, (SnapshotInfo, Head)>>);

impl KnownHeads {
    fn get(&self, name: &HeadName) -> Option<(SnapshotInfo, Head)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// What is no longer there is forgotten.
    fn keep(&self, names: &[HeadName], links: &[Linked]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let there: HashSet<&HeadName> = names.iter().collect();
        known.retain(|name, _| there.contains(name));
        for link in links {
            known.entry(link.name()).or_insert_with(|| (link.info.clone(), link.head.clone()));
        }
    }
}

/// The union of heads. An unreachable store is reported, not an error, unless none answers.
pub async fn heads(_env: &Env, catalog: &CatalogKey, stores: &[NamedStore]) -> Result<Heads> {
    union_of_heads((catalog, None), stores, None, None).await
}

/// The same for somebody who asks again and again: only what is new is read.
pub async fn heads_since(_env: &Env, catalog: &CatalogKey, stores: &[NamedStore], known: &KnownHeads) -> Result<Heads> {
    union_of_heads((catalog, None), stores, Some(known), None).await
}

/// The same with tags, for a holder of the open key.
pub async fn heads_with_tags(_env: &Env, open: &OpenKey, stores: &[NamedStore]) -> Result<Heads> {
    union_of_heads((open.catalog(), Some(open)), stores, None, None).await
}

/// The same with tags, for a pruner, who judges by the plans that it goes by: by an order that could not be read, a head
/// might be taken out as a late one.
pub(crate) async fn heads_everywhere(open: &OpenKey, stores: &[NamedStore], condemned: &Condemned) -> Result<Heads> {
    union_of_heads((open.catalog(), Some(open)), stores, None, Some(condemned)).await
}

async fn union_of_heads(
    (catalog, open): (&CatalogKey, Option<&OpenKey>),
    stores: &[NamedStore],
    known: Option<&KnownHeads>,
    condemned: Option<&Condemned>,
) -> Result<Heads> {
    let views = views(stores, HEADS).await;
    let mut found: BTreeMap<HeadName, Vec<usize>> = BTreeMap::new();
    let (mut rejected, mut bad) = (Vec::new(), Vec::new());
    for (at, (store, view)) in stores.iter().zip(&views).enumerate() {
        for name in view.objects().into_iter().flat_map(BTreeMap::keys) {
            match name.parse::<HeadName>() {
                Ok(parsed) => found.entry(parsed).or_default().push(at),
                Err(_) => {
                    rejected.push(Rejected {
                        store: store.name.clone(),
                        object: name.clone(),
                        head: None,
                        missing: false,
                    });
                }
            }
        }
    }
    let unreachable = unreachable(stores, views)?;
    let mut claims: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for name in found.keys() {
        claims.entry((name.source, name.incarnation, name.counter)).or_default().insert(name.hash);
    }
    let read = |(name, holders): (HeadName, Vec<usize>)| {
        let holders: Vec<&NamedStore> = holders.iter().filter_map(|at| stores.get(*at)).collect();
        async move {
            match known.and_then(|known| known.get(&name)) {
                Some((mut info, head)) => {
                    info.stores = holders.iter().map(|store| store.name.clone()).collect();
                    (name, (Some((info, head)), Vec::new()))
                }
                None => (name, read_head(catalog, open, name, holders).await),
            }
        }
        .boxed()
    };
    let mut linked = Vec::new();
    let names: Vec<HeadName> = found.keys().copied().collect();
    let mut reads = futures::stream::iter(found.into_iter().map(read)).buffered(FETCHES);
    while let Some((name, (snapshot, found))) = reads.next().await {
        bad.extend(found.into_iter().map(|rejected| (name, rejected)));
        if let Some((mut info, head)) = snapshot {
            let claimed = claims.get(&(head.source, head.incarnation, head.counter));
            info.forked = claimed.is_some_and(|hashes| hashes.len() > 1);
            linked.push(Linked { info, head, hash: name.hash });
        }
    }
    drop(reads);
    if let Some(known) = known {
        known.keep(&names, &linked);
    }
    let read_now;
    let condemned = match condemned {
        Some(condemned) => condemned,
        None => {
            let plans = survey::views(stores, CONDEMNED).await;
            read_now = Condemned::read(catalog, stores, &plans, None).await;
            &read_now
        }
    };
    // Of what is being taken out a lock may keep the head when its snapshot has gone.
    rejected.extend(bad.into_iter().filter(|(name, _)| !condemned.takes_out(name)).map(|(_, rejected)| rejected));
    let (mut snapshots, mut uncommitted, mut going, mut links) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for link in newest_first(linked) {
        let name = link.name();
        if condemned.takes_out(&name) {
            going.push(link.info);
        } else if condemned.is_late(&link.head, link.info.plan_seen) {
            uncommitted.push(link.info);
        } else {
            snapshots.push(link.info);
        }
        links.push(link.head);
    }
    // A head may lie only at a store that does not answer.
    let gaps =
        if unreachable.is_empty() { gaps(catalog, stores, names.into_iter(), &links).await? } else { Vec::new() };
    Ok(Heads { snapshots, uncommitted, going, unreachable, rejected, gaps })
}

fn unreachable(stores: &[NamedStore], views: Vec<View>) -> Result<Vec<(String, Error)>> {
    let mut down: Vec<(String, Error)> = stores
        .iter()
        .zip(views)
        .filter_map(|(store, view)| view.listing.err().map(|error| (store.name.clone(), error)))
        .collect();
    if down.len() == stores.len() {
        let first = down.pop().map(|(name, error)| error.context(name));
        return Err(first.unwrap_or_else(|| Error::new(ErrorKind::Misconfigured, "no store is given")));
    }
    Ok(down)
}

type ReadHead = (Option<(SnapshotInfo, Head)>, Vec<Rejected>);

pub(crate) async fn read_head(
    catalog: &CatalogKey,
    open: Option<&OpenKey>,
    name: HeadName,
    holders: Vec<&NamedStore>,
) -> ReadHead {
    let mut rejected = Vec::new();
    for store in &holders {
        match read_head_at(catalog, open, name, store).await {
            Ok((mut info, head)) => {
                info.stores = holders.iter().map(|store| store.name.clone()).collect();
                return (Some((info, head)), rejected);
            }
            // A store that went silent in between is neither damaged nor lacks anything.
            Err((object, error)) if is_loss(&error) => {
                let missing = error.kind() == ErrorKind::NotFound;
                rejected.push(Rejected { store: store.name.clone(), object, head: Some(name), missing });
            }
            Err(_) => {}
        }
    }
    (None, rejected)
}

async fn read_head_at(
    catalog: &CatalogKey,
    open: Option<&OpenKey>,
    name: HeadName,
    store: &NamedStore,
) -> std::result::Result<(SnapshotInfo, Head), (String, Error)> {
    let head = read_signed(catalog, name, store).await.map_err(|error| (name.to_string(), error))?;
    let object = snapshot_name(&head.snapshot.0);
    let (outer, inner) = read_manifest(catalog, open, head.snapshot, store).await.map_err(|error| (object, error))?;
    let info = SnapshotInfo {
        id: head.snapshot,
        source: outer.source,
        incarnation: head.incarnation,
        counter: head.counter,
        taken_unix_ms: outer.taken_unix_ms,
        partial: outer.partial,
        files: outer.files,
        bytes_source: outer.bytes_source,
        bytes_added: outer.bytes_added,
        tag: inner.and_then(|inner| inner.tag),
        stores: Vec::new(),
        forked: false,
        head: name,
        follows: follows(&head).copied().collect(),
        plan_seen: outer.plan_seen,
        set_back: outer.set_back,
    };
    Ok((info, head))
}

/// Reads a head, checks its signature and that it stands where it says.
pub(crate) async fn read_signed(catalog: &CatalogKey, name: HeadName, store: &NamedStore) -> Result<Head> {
    let bytes = fetch(store, &name.to_string()).await?;
    let head = Head::open(&bytes, catalog)?;
    if head.name(&bytes) == name {
        Ok(head)
    } else {
        Err(Error::new(ErrorKind::Damaged, "a head stands under another's name"))
    }
}

/// Reads a snapshot's manifests; the inner one only with the open key.
pub(crate) async fn read_manifest(
    catalog: &CatalogKey,
    open: Option<&OpenKey>,
    id: SnapshotId,
    store: &NamedStore,
) -> Result<(OuterManifest, Option<InnerManifest>)> {
    open_manifest(catalog, open, &fetch(store, &snapshot_name(&id.0)).await?)
}

/// The manifests in a snapshot object.
pub(crate) fn open_manifest(
    catalog: &CatalogKey,
    open: Option<&OpenKey>,
    bytes: &[u8],
) -> Result<(OuterManifest, Option<InnerManifest>)> {
    let parts = open_parts(PartsKind::Snapshot, catalog, bytes)?;
    let outer = OuterManifest::parse(&parts.catalog_part)?;
    let inner = match open {
        Some(open) => Some(InnerManifest::parse(&parts.open_part(open.open_seed())?)?),
        None => None,
    };
    Ok((outer, inner))
}
