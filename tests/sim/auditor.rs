//! Knows the truth: what each source held when a snapshot was begun, what each store was given, what people agreed to
//! delete. Its invariants are I1 to I6 and I8 to I11 of the reliability plan. I7 is `reports.rs`, I12 `drill.rs`, I13
//! `second_reader.rs` and the frozen repositories of `tests/golden.rs`.

use crate::faults::Fault;
use crate::shelf::{Direct, Keeping, Shelf};
use crate::source::{Entry, Hurt, Kind, Tree};
use crate::wire::Process;
use crate::world::World;
use backup_engine::prune::Proposal;
use backup_engine::store::AsOfStore;
use backup_engine::{
    Env, Error, Heads, NamedStore, NoProgress, Node, NodeKind, OpenKey, Page, SnapshotId, SnapshotInfo,
    SnapshotOutcome, VerifyRequest, View, candidate_of, heads, heads_with_tags, verify, verify_keyless,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An invariant that does not hold.
pub type Verdict<T> = Result<T, String>;

/// A snapshot that was begun.
struct Truth {
    tree: Tree,
    hurt: Hurt,
    /// Where the engine said that it is durable.
    claims: BTreeSet<String>,
    /// What was said of it, and whether that is partial. An attempt that had to begin again may have left another one.
    taken: Option<(SnapshotId, bool)>,
    /// What happened to the source meanwhile is known.
    ended: bool,
}

/// What people said of snapshots. An attempt that had to begin again may have left one with the same tag, so this goes by
/// what they saw: a proof of the one keeps the other no longer than the rules do.
#[derive(Default)]
struct Said {
    /// They agreed that it goes.
    may_go: BTreeSet<SnapshotId>,
    /// It was proved.
    proved: BTreeSet<SnapshotId>,
}

/// A hold is on the snapshots with this tag from the beginning.
pub const HELD: &str = "tag-1";

pub struct Auditor {
    pub env: Env,
    pub open: OpenKey,
    pub shelves: Vec<Arc<Shelf>>,
    truths: Mutex<BTreeMap<String, Truth>>,
    said: Mutex<Said>,
    /// What came back, by store and by what had happened to the store until then.
    seen: Mutex<BTreeSet<(String, SnapshotId, u64)>>,
    verified: Mutex<BTreeMap<String, (u64, usize)>>,
    /// What each snapshot's sealed manifest calls it.
    tags: Mutex<BTreeMap<SnapshotId, Option<String>>>,
    /// Every store was caught up in peace.
    pub caught_up: AtomicBool,
    /// Some spool is gone: a head that waited in it may have been named already.
    pub spool_lost: AtomicBool,
}

/// Why a snapshot is not what it should be.
enum Flaw {
    /// The engine said so.
    Error(Error),
    /// It gave something else and did not say so.
    Wrong(String),
}

impl From<Error> for Flaw {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Auditor {
    pub fn new(env: Env, open: OpenKey, shelves: &[Arc<Shelf>]) -> Self {
        let shelves = shelves.to_vec();
        let (seen, verified, tags) = (Mutex::default(), Mutex::default(), Mutex::default());
        let (caught_up, spool_lost) = (false.into(), false.into());
        let (truths, said) = (Mutex::default(), Mutex::default());
        Self { env, open, shelves, truths, said, seen, verified, tags, caught_up, spool_lost }
    }

    fn truths(&self) -> MutexGuard<'_, BTreeMap<String, Truth>> {
        self.truths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn direct(&self) -> Vec<NamedStore> {
        self.shelves.iter().map(Direct::to).collect()
    }

    pub fn begins(&self, tag: &str, tree: Tree) {
        let truth = Truth { tree, hurt: Hurt::default(), claims: BTreeSet::new(), taken: None, ended: false };
        self.truths().insert(tag.to_owned(), truth);
    }

    /// Somebody proves a snapshot; false: it is to go already.
    pub fn proves(&self, id: SnapshotId) -> bool {
        let mut said = self.said();
        let stays = !said.may_go.contains(&id);
        if stays {
            said.proved.insert(id);
        }
        stays
    }

    /// I3: people agree that these go. A proof or a hold keeps them, and so many of each source stay. What was proved only
    /// after they had been told stays all the same.
    pub fn agree(
        &self,
        proposal: &Proposal,
        approved: &BTreeSet<SnapshotId>,
        proved: &BTreeMap<String, SnapshotId>,
        least: usize,
    ) -> Verdict<()> {
        let mut stay: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        let mut said = self.said();
        for (info, verdict) in &proposal.snapshots {
            let (all, kept) = stay.entry(&info.source).or_default();
            *all += 1;
            *kept += usize::from(verdict.is_kept());
            let tag = info.tag.as_deref().unwrap_or_default();
            let goes = !verdict.is_kept();
            if goes && (tag == HELD || proved.values().any(|id| *id == info.id)) {
                return Err(format!("I3: {tag} is proved or held, and a plan takes it out"));
            }
            if goes && approved.contains(&info.id) && !said.proved.contains(&info.id) {
                said.may_go.insert(info.id);
            }
        }
        match stay.iter().find(|(_, (all, kept))| *kept < least.min(*all)) {
            Some((source, (all, kept))) => Err(format!("I3: of {all} snapshots of {source} {kept} stay")),
            None => Ok(()),
        }
    }

    /// Whether nobody agreed that a snapshot goes.
    fn is_retained(&self, id: SnapshotId) -> bool {
        !self.said().may_go.contains(&id)
    }

    /// A snapshot has ended; `alone`: nobody else walked the same source meanwhile.
    pub fn ended(&self, tag: &str, hurt: Hurt, alone: bool, outcome: Option<&SnapshotOutcome>) -> Verdict<()> {
        let mut truths = self.truths();
        let Some(truth) = truths.get_mut(tag) else { return Err(format!("{tag} was never begun")) };
        (truth.hurt, truth.ended) = (hurt, true);
        let Some(outcome) = outcome else { return Ok(()) };
        if alone && truth.hurt.must_be_partial && !outcome.partial {
            return Err(format!("I1: {tag} says that it is whole, and files could not be read"));
        }
        if truth.hurt.paths.is_empty() && outcome.partial {
            return Err(format!("{tag} says that it is partial, and every file could be read"));
        }
        let durable = outcome.stores.iter().filter(|store| store.durable);
        truth.claims = durable.map(|store| store.store.clone()).collect();
        truth.taken = Some((outcome.id, outcome.partial));
        Ok(())
    }

    /// The heads of a store with their tags. A snapshot's id is the hash of what says its tag, so that is opened once for all
    /// stores: it takes most of the time.
    async fn heads_of(&self, store: &NamedStore) -> backup_engine::Result<Heads> {
        let only = std::slice::from_ref(store);
        let mut found = heads(&self.env, self.open.catalog(), only).await?;
        let known = || self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        let new = found.snapshots.iter().any(|info| !known().contains_key(&info.id));
        if new {
            found = heads_with_tags(&self.env, &self.open, only).await?;
            known().extend(found.snapshots.iter().map(|info| (info.id, info.tag.clone())));
        }
        let known = known();
        found.snapshots.iter_mut().for_each(|info| info.tag = known.get(&info.id).cloned().flatten());
        Ok(found)
    }

    /// I1, I2: every head of every store restores what its source held, from that store alone; where the store has lost or
    /// changed something, it may fail, but never gives anything else. Gives what came back: store and snapshot.
    pub async fn check_stores(&self) -> Verdict<BTreeSet<(String, SnapshotId)>> {
        let lost = self.is_something_lost();
        let mut back = BTreeSet::new();
        for (shelf, store) in self.shelves.iter().zip(self.direct()) {
            if let Some(outrage) = shelf.outrage() {
                return Err(format!("I8: {outrage}"));
            }
            let clean = shelf.is_clean() && !lost && !self.may_lack(shelf);
            let (restored, failed) = self.check_store(shelf, &store, clean).await?;
            back.extend(restored.into_iter().map(|id| (shelf.name.clone(), id)));
            let now = (shelf.changes(), shelf.names().len());
            let before = self.verified.lock().unwrap_or_else(PoisonError::into_inner).insert(shelf.name.clone(), now);
            if before == Some(now) {
                continue;
            }
            let seen = verify(&self.env, &self.open, &store, all(), &NoProgress).await;
            let (whole, what) = match &seen {
                Ok(seen) => (seen.is_ok(), format!("{seen:?}")),
                Err(error) => (false, error.to_string()),
            };
            if whole && !failed.is_empty() {
                return Err(format!("I9: verify finds nothing at {}, and {failed:?} do not come back", shelf.name));
            }
            // A store that lacks a head of a chain has a gap; it may be no store's fault before all are caught up.
            let gaps_alone = seen.is_ok_and(|seen| {
                seen.corrupt.is_empty() && seen.missing.iter().all(|name| name.starts_with("heads/"))
            });
            if clean && !whole && !gaps_alone {
                return Err(format!("I9: {} is as it was written, and verify says {what}", shelf.name));
            }
        }
        Ok(back)
    }

    /// I3 at every store by itself, whatever it lost before: what came back before a deletion comes back after it.
    pub async fn check_nothing_went(&self, before: &BTreeSet<(String, SnapshotId)>) -> Verdict<()> {
        let after = self.check_stores().await?;
        let mut gone = before.iter().filter(|back| !after.contains(*back) && self.is_retained(back.1));
        match gone.next() {
            Some((store, id)) => {
                let tag = self.tag_of(*id);
                Err(format!("I3: {tag} came back from {store} before the deletion, and does not now"))
            }
            None => Ok(()),
        }
    }

    /// I8: after somebody with every credential deleted whatever no lock keeps, what was retained comes back from the
    /// versions that are left.
    pub async fn check_locks(&self, world: &Arc<World>) -> Verdict<()> {
        for shelf in self.shelves.iter().filter(|shelf| shelf.keeping == Keeping::Versions) {
            let direct = Direct::to(shelf);
            let found = self.heads_of(&direct).await;
            let found = found.map_err(|error| format!("I8: {}: {error}", shelf.name))?.snapshots;
            let mut whole = Vec::new();
            let view = View::open(&self.env, &self.open, &direct).await;
            for info in found.iter().filter(|info| self.is_retained(info.id)) {
                if self.comes_back(shelf, &view, info).await.is_ok() {
                    whole.push(info);
                }
            }
            let then = shelf.now_unix_ms();
            shelf.attack();
            let process = Process::new("reader".to_owned(), None, BTreeSet::new());
            let wire = Arc::new(process.wire(world, shelf));
            let left = AsOfStore::open(wire, then).await.map_err(|error| format!("I8: {}: {error}", shelf.name))?;
            let left = NamedStore::new(shelf.name.clone(), Arc::new(left), true);
            let view = View::open(&self.env, &self.open, &left).await.map_err(|error| format!("I8: {error}"))?;
            for info in whole {
                let tag = info.tag.as_deref().unwrap_or_default();
                match self.shows(&view, info).await {
                    Ok(()) => {}
                    Err(Flaw::Wrong(what)) => return Err(format!("I2: from the versions of {}: {what}", shelf.name)),
                    Err(Flaw::Error(error)) => {
                        return Err(format!("I8: an attacker at {} destroyed {tag}: {error}", shelf.name));
                    }
                }
            }
        }
        Ok(())
    }

    /// A download that came damaged is taken for damage of the store until somebody reads it again. Until catch-up in peace
    /// a head may so stand at a store that lacks what only the other has: it was thought to be lost. Or it was lost, and came
    /// back with a store that was set back.
    fn may_lack(&self, shelf: &Shelf) -> bool {
        if self.caught_up.load(Ordering::SeqCst) {
            return false;
        }
        let taken: BTreeSet<String> = shelf.taken().into_iter().collect();
        let doubted = shelf.met(Fault::WrongBytes);
        let lacks = |other: &Arc<Shelf>| {
            other.whole().iter().any(|name| !taken.contains(name) && (doubted || other.has_returned(name)))
        };
        self.shelves.iter().any(lacks)
    }

    /// Whether something that a store took is whole at none. Catch-up then makes the others no better than that store.
    pub fn is_something_lost(&self) -> bool {
        let object = |name: String| candidate_of(&name).map(str::to_owned).unwrap_or(name);
        let whole: BTreeSet<String> = self.shelves.iter().flat_map(|shelf| shelf.whole()).map(object).collect();
        self.shelves.iter().flat_map(|shelf| shelf.taken()).map(object).any(|name| !whole.contains(&name))
    }

    /// Whether a snapshot is whole at no store any more, and none that never lost anything had promised it. Its head goes
    /// on to the others: what is lost at every store holds nothing back.
    async fn is_lost(&self, info: &SnapshotInfo) -> bool {
        let tag = info.tag.clone().unwrap_or_default();
        let claims = self.truths().get(&tag).map(|truth| truth.claims.clone()).unwrap_or_default();
        if self.shelves.iter().any(|shelf| claims.contains(&shelf.name) && !shelf.was_damaged()) {
            return false;
        }
        // What a damaged pack still gives is no pack that others could be healed with.
        for (shelf, store) in self.shelves.iter().zip(self.direct()) {
            if shelf.damaged().is_empty() && self.restores(&store, info).await.is_ok() {
                return false;
            }
        }
        true
    }

    /// The snapshots whose content comes back, and those whose does not.
    async fn check_store(
        &self,
        shelf: &Shelf,
        store: &NamedStore,
        clean: bool,
    ) -> Verdict<(Vec<SnapshotId>, Vec<String>)> {
        let found = match self.heads_of(store).await {
            Ok(found) => found,
            Err(error) if clean => return Err(format!("I1: the heads of {}: {error}", shelf.name)),
            Err(_) => return Ok((Vec::new(), Vec::new())),
        };
        if clean && let Some(rejected) = found.rejected.first() {
            return Err(format!("I1: {} at {} is as it was written, and is refused", rejected.object, shelf.name));
        }
        let (mut restored, mut failed) = (Vec::new(), Vec::new());
        let view = View::open(&self.env, &self.open, store).await;
        for info in found.snapshots.iter().filter(|info| self.has_ended(info)) {
            match self.comes_back(shelf, &view, info).await {
                Ok(()) => restored.push(info.id),
                Err(Flaw::Wrong(what)) => return Err(format!("I2: from {}: {what}", shelf.name)),
                Err(Flaw::Error(error)) if clean => {
                    let tag = info.tag.as_deref().unwrap_or_default();
                    return Err(format!("I1: {} holds the head of {tag} and does not restore it: {error}", shelf.name));
                }
                Err(Flaw::Error(_)) => failed.extend(info.tag.clone()),
            }
        }
        let there: BTreeSet<SnapshotId> = found.snapshots.iter().map(|info| info.id).collect();
        let truths = self.truths();
        let promised = truths.iter().filter(|(_, truth)| clean && truth.claims.contains(&shelf.name));
        let mut gone = promised.filter_map(|(tag, truth)| Some((tag, truth.taken?.0)));
        match gone.find(|(_, id)| !there.contains(id) && self.is_retained(*id)) {
            Some((tag, _)) => Err(format!("I1, I3: {tag} was durable at {} and is not there", shelf.name)),
            None => Ok((restored, failed)),
        }
    }

    fn tag_of(&self, id: SnapshotId) -> String {
        self.tags.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned().flatten().unwrap_or_default()
    }

    /// The head of a snapshot stands before its writer has told what changed under it.
    fn has_ended(&self, info: &SnapshotInfo) -> bool {
        let tag = info.tag.clone().unwrap_or_default();
        self.truths().get(&tag).is_none_or(|truth| truth.ended)
    }

    async fn restores(&self, store: &NamedStore, info: &SnapshotInfo) -> Result<(), Flaw> {
        self.shows(&View::open(&self.env, &self.open, store).await?, info).await
    }

    /// The same by a view that serves for all snapshots. What came back once is not read again while the store only grows.
    async fn comes_back(
        &self,
        shelf: &Shelf,
        view: &backup_engine::Result<View<'_>>,
        info: &SnapshotInfo,
    ) -> Result<(), Flaw> {
        let seen = (shelf.name.clone(), info.id, shelf.changes());
        let known = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(&seen) {
            return Ok(());
        }
        match view {
            Ok(view) => self.shows(view, info).await?,
            Err(error) => return Err(Flaw::Error(error.duplicate())),
        }
        known().insert(seen);
        Ok(())
    }

    /// Whether a view of a store shows what a snapshot's source held.
    async fn shows(&self, view: &View<'_>, info: &SnapshotInfo) -> Result<(), Flaw> {
        let tag = info.tag.clone().unwrap_or_default();
        let truth = self.truths().get(&tag).map(|truth| (truth.tree.clone(), truth.hurt.clone(), truth.taken));
        let Some((tree, hurt, taken)) = truth else {
            return Err(Flaw::Wrong(format!("there is a snapshot {tag:?} that nobody took")));
        };
        if taken.is_some_and(|(id, partial)| id == info.id && partial != info.partial) {
            return Err(Flaw::Wrong(format!("{tag} says another thing about being partial than when it was taken")));
        }
        compare(view, info.id, &tree, &hurt).await.map_err(|flaw| match flaw {
            Flaw::Wrong(what) => Flaw::Wrong(format!("{tag}: {what}")),
            error => error,
        })
    }

    /// I2 once more, over a way that is not to be trusted either.
    pub async fn look_through(&self, store: &NamedStore) -> Verdict<()> {
        let Ok(found) = heads_with_tags(&self.env, &self.open, std::slice::from_ref(store)).await else {
            return Ok(());
        };
        for info in found.snapshots.iter().filter(|info| self.has_ended(info)).take(3) {
            if let Err(Flaw::Wrong(what)) = self.restores(store, info).await {
                return Err(format!("I2: from {} over a bad line: {what}", store.name));
            }
        }
        Ok(())
    }

    /// I9: without any key, verification names exactly the objects that are not what came.
    pub async fn check_names(&self) -> Verdict<()> {
        for (shelf, store) in self.shelves.iter().zip(self.direct()) {
            let found = verify_keyless(&self.env, &store, &NoProgress).await.map_err(|error| error.to_string())?;
            let altered = shelf.damaged();
            if found.corrupt != altered || !found.missing.is_empty() {
                return Err(format!("I9: at {} {altered:?} are altered, and verify names {found:?}", shelf.name));
            }
        }
        Ok(())
    }

    /// I5: one counter of one chain never gets two heads; where copied machines made some, everybody hears of it.
    pub async fn check_chains(&self, spools: &[Arc<Shelf>], copied: bool) -> Verdict<()> {
        let mut claims: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for shelf in self.shelves.iter().chain(spools) {
            for name in shelf.names().into_iter().filter(|name| name.starts_with("heads/")) {
                // A further candidate is the same head once more.
                let name = candidate_of(&name).unwrap_or(&name);
                if let Some((link, hash)) = name.rsplit_once('-') {
                    claims.entry(link.to_owned()).or_default().insert(hash.to_owned());
                }
            }
        }
        let forks = claims.iter().filter(|(_, hashes)| hashes.len() > 1).count();
        if forks > 0 && !copied {
            let forked: Vec<_> = claims.into_iter().filter(|(_, hashes)| hashes.len() > 1).collect();
            return Err(format!("I5: two heads for one counter: {forked:?}"));
        }
        let stores: Vec<NamedStore> = self.shelves.iter().chain(spools).map(Direct::to).collect();
        let found = heads(&self.env, self.open.catalog(), &stores).await.map_err(|error| error.to_string())?;
        let all = found.snapshots.iter().chain(&found.uncommitted).chain(&found.going);
        let said: BTreeSet<_> = all.filter(|info| info.forked).map(|info| (info.incarnation, info.counter)).collect();
        if said.len() != forks {
            return Err(format!("I5: there are {forks} forks, and {} are told", said.len()));
        }
        let spotless = self.shelves.iter().all(|shelf| !shelf.was_damaged());
        let excused = copied || self.spool_lost.load(Ordering::SeqCst);
        if spotless && !excused && !found.gaps.is_empty() {
            return Err(format!("I5: nothing was taken away, and there are gaps: {:?}", found.gaps));
        }
        Ok(())
    }

    /// I1, I6 at the end: what a store that never lost anything holds, every store restores; and so does that store.
    pub async fn check_end(&self) -> Verdict<()> {
        let safe = |at: &usize| self.shelves.get(*at).is_some_and(|shelf| !shelf.was_damaged());
        let mut kept = BTreeSet::new();
        for (_, store) in self.direct().into_iter().enumerate().filter(|(at, _)| safe(at)) {
            let found = self.heads_of(&store).await;
            let found = found.map_err(|error| error.to_string())?.snapshots.into_iter();
            let retained = found.filter(|info| self.is_retained(info.id));
            kept.extend(retained.map(|info| info.id));
        }
        for (shelf, store) in self.shelves.iter().zip(self.direct()) {
            let found = self.heads_of(&store).await;
            let found = found.map_err(|error| format!("I6: {}: {error}", shelf.name))?.snapshots;
            let there: BTreeSet<_> = found.iter().map(|info| info.id).collect();
            if let Some(lacking) = kept.iter().find(|id| !there.contains(id)) {
                return Err(format!("I6: {} was caught up and lacks the head of {lacking}", shelf.name));
            }
            let view = View::open(&self.env, &self.open, &store).await;
            for info in found.iter().filter(|info| kept.contains(&info.id)) {
                match self.comes_back(shelf, &view, info).await {
                    Ok(()) => {}
                    Err(Flaw::Wrong(what)) => return Err(format!("I2: from {}: {what}", shelf.name)),
                    Err(Flaw::Error(_)) if self.is_lost(info).await => {}
                    Err(Flaw::Error(error)) => {
                        let tag = info.tag.as_deref().unwrap_or_default();
                        return Err(format!("I6: {} does not restore {tag}: {error}", shelf.name));
                    }
                }
            }
        }
        Ok(())
    }
}

pub fn all() -> VerifyRequest {
    VerifyRequest { read_data: true, snapshot: None }
}

async fn compare(view: &View<'_>, id: SnapshotId, tree: &Tree, hurt: &Hurt) -> Result<(), Flaw> {
    let mut found = BTreeSet::new();
    let root = view.tree(id, b"files").await?.root;
    let mut open = vec![(String::new(), root)];
    while let Some((path, node)) = open.pop() {
        if let NodeKind::Directory { root } = node.kind {
            let leaves = view.leaves(root).await?;
            for at in 0..leaves.len() {
                let page = view.leaf(&leaves, at).await?;
                let Some(Page::Directory(nodes)) = page.as_deref() else { continue };
                for below in nodes {
                    let name = String::from_utf8_lossy(&below.name);
                    let path = if path.is_empty() { name.into_owned() } else { format!("{path}/{name}") };
                    open.push((path, below.clone()));
                }
            }
            continue;
        }
        if !hurt.paths.contains(&path) {
            let Some(entry) = tree.get(&path) else {
                return Err(Flaw::Wrong(format!("{path} was never there")));
            };
            same(view, &path, &node, entry).await?;
        }
        found.insert(path);
    }
    match tree.keys().find(|path| !found.contains(*path) && !hurt.paths.contains(*path)) {
        Some(lost) => Err(Flaw::Wrong(format!("{lost} is not in it"))),
        None => Ok(()),
    }
}

async fn same(view: &View<'_>, path: &str, node: &Node, entry: &Entry) -> Result<(), Flaw> {
    let alike = match (&node.kind, &entry.kind) {
        (NodeKind::File { size, .. }, Kind::File(content)) => {
            *size == content.len() as u64 && view.read(node, 0, content.len()).await? == **content
        }
        (NodeKind::Symlink { target }, Kind::Symlink(expected)) => target == expected,
        (NodeKind::Fifo, Kind::Fifo) | (NodeKind::Socket, Kind::Socket) => true,
        _ => false,
    };
    let meta = (node.mode, (node.mtime_s, node.mtime_ns)) == (entry.mode, entry.time);
    let attributes = node.xattrs == entry.xattrs || !matches!(entry.kind, Kind::File(_));
    let linked = node.hard_link.is_some() == (entry.links > 1);
    if alike && meta && attributes && linked {
        Ok(())
    } else {
        Err(Flaw::Wrong(format!(
            "{path} is not what it was (content {alike}, meta {meta}, attributes {attributes}, links {linked})"
        )))
    }
}
