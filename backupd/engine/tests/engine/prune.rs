//! Prune beside everything else: nothing that a snapshot reaches is ever lost, whatever stops, sleeps or comes late.

use crate::practice::{Practice, describe, folder_store, noise, settle};
use backup_engine::prune::{
    Approved, GivenUp, PruneRequest, Retire, StorePruned, Tripwire, Waiting, announce, execute, propose, retire_writers,
};
use backup_engine::retain::{Hold, HoldScope, Keep, Policy, Reason, Rule};
use backup_engine::store::{Fault, FaultStore, MaintenanceStore};
use backup_engine::{
    Env, ErrorKind, Initialized, NamedMaintenanceStore, NamedStore, NoProgress, OpenKey, PaperKey, PrunerCredential,
    SnapshotId, SnapshotOutcome, StoreLimits, StoreLocation, UnlockWith, VerifyRequest, WriterCredential, heads,
    issue_pruner, replicate, snapshot, verify, verify_keyless,
};
use backup_format::head::HeadName;
use backup_format::tombstone::TombstoneName;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A file that all snapshots share, and one that is another in each.
const SHARED_BYTES: usize = 40_000;
pub(crate) const NOW_BYTES: usize = 60_000;

pub(crate) struct Pruning {
    pub(crate) practice: Practice,
    pub(crate) stores: Vec<NamedMaintenanceStore>,
    pub(crate) pruner: PrunerCredential,
}

pub(crate) fn last(count: u32) -> PruneRequest<'static> {
    PruneRequest {
        policy: Policy { rules: vec![Rule::new(Keep::Last(count))], holds: Vec::new() },
        grace: Duration::ZERO,
        tripwire: Tripwire { files_min: u64::MAX, size_drop_percent: 100, ..Tripwire::default() },
        ..PruneRequest::default()
    }
}

fn maintained(dir: &Path, name: &str) -> NamedMaintenanceStore {
    let location = StoreLocation::Folder { path: dir.join(name) };
    NamedMaintenanceStore::new(name, location.open_for_maintenance(StoreLimits::default()).unwrap(), true)
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

impl Pruning {
    pub(crate) async fn new(stores: usize) -> Self {
        let practice = Practice::new(stores).await;
        let stores = practice.stores.iter().map(|store| maintained(practice.dir.path(), &store.name)).collect();
        let keyring = practice.made.keyring.clone();
        let paper = PaperKey::from_text(&practice.made.paper_key.to_text()).unwrap();
        let pruner = issue_pruner(&practice.env, keyring, &UnlockWith::PaperKey(paper)).await.unwrap();
        Self { practice, stores, pruner }
    }

    /// The same stores, source and state in another folder.
    fn copied(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(self.practice.dir.path(), dir.path());
        let made = &self.practice.made;
        let made = Initialized {
            repository: made.repository,
            writer: WriterCredential::from_bytes(&made.writer.to_bytes()).unwrap(),
            open: OpenKey::from_bytes(&made.open.to_bytes()).unwrap(),
            keyring: made.keyring.clone(),
            paper_key: PaperKey::from_text(&made.paper_key.to_text()).unwrap(),
        };
        let names = self.stores.iter().map(|store| store.name.as_str());
        let stores = names.clone().map(|name| folder_store(dir.path(), name)).collect();
        let maintained = names.map(|name| maintained(dir.path(), name)).collect();
        let pruner = PrunerCredential::from_bytes(&self.pruner.to_bytes()).unwrap();
        Self { practice: Practice { dir, env: Env::real(), made, stores }, stores: maintained, pruner }
    }

    /// A file that only this snapshot has beside one that all share.
    pub(crate) async fn history(&self, count: u64) -> Vec<SnapshotOutcome> {
        let mut taken = Vec::new();
        fs::write(self.practice.source().join("always"), noise(99, SHARED_BYTES)).unwrap();
        for at in 0..count {
            fs::write(self.practice.source().join("now"), noise(at, NOW_BYTES)).unwrap();
            taken.push(self.practice.snapshot().await);
        }
        taken
    }

    pub(crate) async fn announce(&self, request: &PruneRequest<'_>) -> Option<backup_engine::prune::Announced> {
        self.try_announce(&self.stores, request).await.unwrap()
    }

    pub(crate) async fn try_announce(
        &self,
        stores: &[NamedMaintenanceStore],
        request: &PruneRequest<'_>,
    ) -> backup_engine::Result<Option<backup_engine::prune::Announced>> {
        let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
        let open = &self.practice.made.open;
        let proposal = propose(&self.practice.env, open, &plain, request).await?;
        let approved = Approved { snapshots: proposal.approval(), trips: proposal.trips.clone() };
        announce(&self.practice.env, open, &self.pruner, stores, request, &approved).await
    }

    pub(crate) async fn execute(&self, request: &PruneRequest<'_>) -> backup_engine::prune::Execution {
        self.try_execute(&self.stores, request).await.unwrap()
    }

    pub(crate) async fn try_execute(
        &self,
        stores: &[NamedMaintenanceStore],
        request: &PruneRequest<'_>,
    ) -> backup_engine::Result<backup_engine::prune::Execution> {
        execute(&self.practice.env, &self.practice.made.open, &self.pruner, stores, request).await
    }

    /// The whole life of a plan that takes out two snapshots, while some writer is asleep for longer than anybody waits.
    pub(crate) async fn carry_out_over_sleepers(&self) {
        let request = last(1);
        self.announce(&request).await.unwrap();
        self.practice.snapshot().await;
        self.retire(Retire::All).await;
        let execution = self.execute(&request).await;
        assert_eq!((execution.waiting, execution.snapshots), (None, 2));
        assert!(execution.packs > 0);
    }

    /// A store that does some work right before its first put of some kind.
    pub(crate) fn before(&self, at: usize, prefix: &'static str, work: BoxFuture<'static, ()>) -> NamedStore {
        self.when(at, Moment::Put(prefix), work)
    }

    fn when(&self, at: usize, moment: Moment, work: BoxFuture<'static, ()>) -> NamedStore {
        let inner = Arc::clone(&self.practice.stores[at].store);
        let interrupted = Interrupted { inner, moment, work: tokio::sync::Mutex::new(Some(work)) };
        NamedStore::new(format!("store-{at}"), Arc::new(interrupted), true)
    }

    pub(crate) async fn retire(&self, which: Retire<'_>) -> u64 {
        let (env, open) = (&self.practice.env, &self.practice.made.open);
        retire_writers(env, open, &self.pruner, &self.stores, (which, &GivenUp::Nothing)).await.unwrap()
    }

    /// Every store by itself holds all that its heads reach.
    pub(crate) async fn assert_whole(&self) {
        let all = VerifyRequest { read_data: true, snapshot: None };
        for store in &self.practice.stores {
            let found =
                verify(&self.practice.env, &self.practice.made.open, store, all.clone(), &NoProgress).await.unwrap();
            assert!(found.is_ok(), "{}: missing {:?}, corrupt {:?}", store.name, found.missing, found.corrupt);
            assert!(verify_keyless(&self.practice.env, store, &NoProgress).await.unwrap().is_ok());
        }
        let known = heads(&self.practice.env, self.practice.made.open.catalog(), &self.practice.stores).await.unwrap();
        assert!(known.gaps.is_empty(), "{:?}", known.gaps);
    }

    pub(crate) async fn snapshots(&self) -> Vec<SnapshotId> {
        let known = heads(&self.practice.env, self.practice.made.open.catalog(), &self.practice.stores).await.unwrap();
        known.snapshots.iter().map(|info| info.id).collect()
    }

    fn bytes(&self, store: &str) -> u64 {
        self.practice.objects(store).values().map(|path| fs::metadata(path).unwrap().len()).sum()
    }

    pub(crate) fn count(&self, store: &str, prefix: &str) -> usize {
        self.practice.objects(store).keys().filter(|name| name.starts_with(prefix)).count()
    }

    /// Another machine's writer: its own state, and a source of its own.
    pub(crate) async fn other_writer(&self, state: &str, content: u64) -> backup_engine::Result<SnapshotOutcome> {
        self.other_writer_at(&self.practice.stores, state, content).await
    }

    pub(crate) async fn other_writer_at(
        &self,
        stores: &[NamedStore],
        state: &str,
        content: u64,
    ) -> backup_engine::Result<SnapshotOutcome> {
        let source = self.practice.dir.path().join(format!("source-{state}"));
        fs::create_dir_all(&source).unwrap();
        fs::write(source.join("now"), noise(content, NOW_BYTES)).unwrap();
        settle().await;
        let mut request = self.practice.request(1);
        request.source = state.to_owned();
        request.parts[0].path = source;
        request.state_dir = Some(self.practice.dir.path().join(format!("state-{state}")));
        snapshot(&self.practice.env, &self.practice.made.writer, stores, request, &NoProgress).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_rule_keeps_goes_and_the_rest_is_restored_from_every_store() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(5).await;
    let before = pruning.bytes("store-0");
    let request = last(2);
    let plain = &pruning.practice.stores;
    let proposal = propose(&pruning.practice.env, &pruning.practice.made.open, plain, &request).await.unwrap();
    assert_eq!((proposal.going().count(), proposal.snapshots.len()), (3, 5));
    assert!(proposal.packs > 0 && proposal.cost.puts > 0 && proposal.cost.dollars > 0.0);
    assert!(proposal.snapshots[0].1.reasons.contains(&Reason::Rule(0)));
    assert_eq!(pruning.bytes("store-0"), before, "a proposal changes nothing");

    let announced = pruning.announce(&request).await.unwrap();
    assert_eq!(announced.snapshots, 3);
    assert_eq!(pruning.count("store-0", "heads/"), 5, "an announcement deletes nothing");
    let waiting = pruning.execute(&request).await.waiting;
    assert!(matches!(&waiting, Some(Waiting::Writers(blind)) if blind.len() == 1), "{waiting:?}");

    let seen = pruning.practice.snapshot().await;
    let execution = pruning.execute(&request).await;
    assert_eq!((execution.waiting, execution.snapshots), (None, 3));
    assert!(execution.stores.iter().all(StorePruned::is_done));
    pruning.assert_whole().await;
    assert_eq!(pruning.snapshots().await, [seen.id, taken[4].id, taken[3].id]);
    for store in ["store-0", "store-1"] {
        assert_eq!((pruning.count(store, "heads/"), pruning.count(store, "tombstones/")), (3, 1));
        assert!(pruning.bytes(store) < before, "{} before, {} after", before, pruning.bytes(store));
    }
    let back = pruning.practice.restore_from(&pruning.practice.stores[1], taken[3].id).await;
    assert_eq!(fs::read(back.join("now")).unwrap(), noise(3, NOW_BYTES));
    // What is done is not done again, and the next run finds nothing.
    assert!(pruning.execute(&request).await.stores.iter().all(|done| done.objects == 0));
    let next = pruning.practice.snapshot().await;
    let back = pruning.practice.restore_from(&pruning.practice.stores[0], next.id).await;
    assert_eq!(describe(&back), describe(&pruning.practice.source()));
    assert_eq!(next.bytes_added, 0, "the writer still knows what is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_do_not_pile_up_and_a_gap_stays_a_gap() {
    let pruning = Pruning::new(2).await;
    let practice = &pruning.practice;
    pruning.history(3).await;
    let stones = |store: &str| -> Vec<(u64, u64)> {
        let names = practice.objects(store).into_keys().filter_map(|name| name.parse::<TombstoneName>().ok());
        let mut stones: Vec<(u64, u64)> = names.map(|name| (name.first, name.last)).collect();
        stones.sort_unstable();
        stones
    };
    let prune = || async {
        pruning.announce(&last(1)).await.unwrap();
        practice.snapshot().await;
        pruning.execute(&last(1)).await
    };
    prune().await;
    assert_eq!(stones("store-0"), [(1, 2)]);
    prune().await;
    assert_eq!((stones("store-0"), stones("store-1")), (vec![(1, 3)], vec![(1, 3)]));
    // One store lost it, another shows a name that nobody signed.
    let objects = practice.objects("store-1");
    let (name, path) = objects.iter().find(|(name, _)| name.starts_with("tombstones/")).unwrap();
    fs::remove_file(path).unwrap();
    let made_up = name.replace("/1-3-", "/1-ff-");
    practice.stores[1].store.put(&made_up, Bytes::from_static(b"no tombstone")).await.unwrap();
    assert!(prune().await.stores.iter().all(StorePruned::is_done));
    assert_eq!((stones("store-0"), stones("store-1")), (vec![(1, 4)], vec![(1, 4), (1, 255)]));
    fs::remove_file(practice.objects("store-1").remove(&made_up).unwrap()).unwrap();
    pruning.assert_whole().await;
    // Somebody takes a head away: no later tombstone hides it.
    let gone = practice.snapshot().await.counter;
    practice.snapshot().await;
    for store in ["store-0", "store-1"] {
        let head = |name: &String| name.parse::<HeadName>().is_ok_and(|name| name.counter == gone);
        fs::remove_file(practice.objects(store).into_iter().find(|(name, _)| head(name)).unwrap().1).unwrap();
    }
    for _ in 0..2 {
        prune().await;
        let known = heads(&practice.env, practice.made.open.catalog(), &practice.stores).await.unwrap();
        assert_eq!(known.gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>(), [(gone, gone)]);
    }
    let stones = stones("store-0");
    assert!(stones.len() == 2 && stones[0] == (1, gone - 1) && stones[1].0 == gone + 1, "{gone}: {stones:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_cut_short_at_one_store_stays_named_when_index_objects_merge() {
    let pruning = Pruning::new(2).await;
    // So many index objects that all of them merge.
    pruning.history(17).await;
    let mut packs = pruning.practice.objects("store-0");
    packs.retain(|name, _| name.starts_with("packs/"));
    let shared = packs.into_values().max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    fs::File::options().write(true).open(shared).unwrap().set_len(700).unwrap();
    pruning.announce(&last(2)).await.unwrap();
    pruning.practice.snapshot().await;
    let execution = pruning.execute(&last(2)).await;
    assert!(execution.stores.iter().all(|done| done.objects > 17 && done.is_done()), "{execution:?}");
    let practice = &pruning.practice;
    replicate(&practice.env, &practice.made.writer, &practice.stores, Some(&practice.state())).await.unwrap();
    pruning.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_order_takes_out_need_not_be_whole() {
    let pruning = Pruning::new(1).await;
    pruning.history(4).await;
    let mut kept = pruning.practice.objects("store-0");
    kept.retain(|name, _| name.starts_with("heads/") || name.starts_with("index/"));
    let kept: Vec<_> = kept.into_values().map(|path| (fs::read(&path).unwrap(), path)).collect();
    pruning.announce(&last(1)).await.unwrap();
    pruning.practice.snapshot().await;
    assert!(pruning.execute(&last(1)).await.stores[0].is_done());
    // A lock keeps heads and index objects for longer than what they name.
    kept.iter().for_each(|(bytes, path)| fs::write(path, bytes).unwrap());
    let (env, open, stores) = (&pruning.practice.env, &pruning.practice.made.open, &pruning.practice.stores);
    let seen = heads(env, open.catalog(), stores).await.unwrap();
    assert!(seen.rejected.is_empty() && seen.snapshots.len() == 2, "{seen:?}");
    let all = VerifyRequest { read_data: true, snapshot: None };
    let found = verify(env, open, &stores[0], all, &NoProgress).await.unwrap();
    assert!(found.is_ok(), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_store_has_damaged_stops_no_prune_while_another_has_it_whole() {
    let pruning = Pruning::new(2).await;
    pruning.history(4).await;
    for (name, path) in pruning.practice.objects("store-0") {
        if name.starts_with("packs/") {
            let mut bytes = fs::read(&path).unwrap();
            for at in (0..bytes.len()).step_by(997) {
                bytes[at] ^= 1;
            }
            fs::write(path, bytes).unwrap();
        }
    }
    pruning.announce(&last(1)).await.unwrap();
    pruning.practice.snapshot().await;
    let execution = pruning.execute(&last(1)).await;
    assert_eq!((execution.waiting, execution.snapshots), (None, 3));
    let id = *pruning.snapshots().await.last().unwrap();
    pruning.practice.restore_from(&pruning.practice.stores[1], id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prune_takes_out_during_a_listing_is_not_lost() {
    let pruning = Arc::new(Pruning::new(2).await);
    pruning.history(3).await;
    // Another machine's writer has seen what is there.
    pruning.other_writer("slow", 70).await.unwrap();
    let inside = Arc::clone(&pruning);
    let work: BoxFuture<'static, ()> = Box::pin(async move { inside.carry_out_over_sleepers().await });
    let store = pruning.when(0, Moment::Listing, work);
    // Whether it is taken or begins anew does not matter here.
    let _ = pruning.other_writer_at(&[store, pruning.practice.stores[1].clone()], "slow", 71).await;
    let practice = &pruning.practice;
    let noted = || backup_engine::losses(&practice.env, &practice.dir.path().join("state-slow")).unwrap();
    assert!(noted().is_empty(), "{:?}", noted());
    pruning.other_writer("slow", 72).await.unwrap();
    assert!(noted().is_empty(), "{:?}", noted());
    // What goes without an order is lost.
    let (name, path) = practice.objects("store-0").into_iter().find(|(name, _)| name.starts_with("packs/")).unwrap();
    fs::remove_file(path).unwrap();
    pruning.other_writer("slow", 73).await.unwrap();
    assert_eq!(noted().get("store-0").map(|loss| loss.objects), Some(1), "{name}");
}

#[tokio::test(flavor = "multi_thread")]
async fn holds_and_proofs_keep_a_snapshot_also_between_plan_and_execution() {
    let pruning = Pruning::new(1).await;
    let taken = pruning.history(4).await;
    let mut request = last(1);
    request.proved.insert("store-0".to_owned(), taken[1].id);
    assert_eq!(pruning.announce(&request).await.unwrap().snapshots, 2, "the newest proved one stays");
    pruning.practice.snapshot().await;
    request.policy.holds.push(Hold {
        scope: HoldScope::Snapshot(taken[0].id),
        reason: "matter-12".to_owned(),
        placed_by: "owner".to_owned(),
        placed_unix_ms: 0,
    });
    let execution = pruning.execute(&request).await;
    assert_eq!((execution.snapshots, execution.waiting), (1, None));
    assert!(execution.rescued > 0, "what the held one reaches stays");
    pruning.assert_whole().await;
    let left = pruning.snapshots().await;
    assert!(left.contains(&taken[0].id) && left.contains(&taken[1].id) && !left.contains(&taken[2].id));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_goes_that_nobody_approved_or_while_a_store_is_down() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(4).await;
    let request = last(1);
    let approved = Approved { snapshots: BTreeSet::from([taken[0].id]), trips: Vec::new() };
    let dead: Arc<dyn MaintenanceStore> = Arc::new(FaultStore::new(Arc::clone(&pruning.stores[1].store), Fault::Dead));
    let down = [pruning.stores[0].clone(), NamedMaintenanceStore::new("store-1", dead, true)];
    let error = pruning.try_announce(&down, &request).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unreachable && error.to_string().contains("every store must answer"), "{error}");
    let (env, open) = (&pruning.practice.env, &pruning.practice.made.open);
    let announced = announce(env, open, &pruning.pruner, &pruning.stores, &request, &approved).await.unwrap().unwrap();
    assert_eq!(announced.snapshots, 1);
    pruning.practice.snapshot().await;
    assert!(pruning.try_execute(&down, &request).await.is_err());
    assert_eq!(pruning.execute(&request).await.snapshots, 1);
    pruning.assert_whole().await;
    assert_eq!(pruning.snapshots().await.len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_has_not_seen_the_plan_holds_it_up_until_it_is_retired() {
    let pruning = Pruning::new(1).await;
    pruning.history(3).await;
    let asleep = pruning.other_writer("asleep", 7).await.unwrap();
    let mut request = last(1);
    pruning.announce(&request).await.unwrap();
    pruning.practice.snapshot().await;
    let waiting = pruning.execute(&request).await.waiting;
    assert!(
        matches!(&waiting, Some(Waiting::Writers(blind)) if blind == &[("asleep".to_owned(), incarnation(&pruning, asleep.id).await)])
    );
    // A person decides that the machine is gone: its chain is retired with the next plan.
    pruning.practice.snapshot().await;
    request.retire = Retire::Silent(Duration::ZERO);
    let error = pruning.try_announce(&pruning.stores, &request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "one plan at a time");
    let chain = [incarnation(&pruning, asleep.id).await];
    assert_eq!(pruning.retire(Retire::Chains(&chain)).await, 1);
    let execution = pruning.execute(&request).await;
    assert_eq!((execution.waiting, execution.snapshots), (None, 2));
    // It wakes up: a new chain, complete.
    let awake = pruning.other_writer("asleep", 8).await.unwrap();
    assert_eq!(awake.counter, 1);
    pruning.assert_whole().await;
    assert!(pruning.snapshots().await.contains(&awake.id));
}

async fn incarnation(pruning: &Pruning, id: SnapshotId) -> backup_engine::IncarnationId {
    let catalog = pruning.practice.made.open.catalog();
    let known = heads(&pruning.practice.env, catalog, &pruning.practice.stores).await.unwrap();
    known.snapshots.iter().find(|info| info.id == id).unwrap().incarnation
}

/// When a store does its work.
enum Moment {
    /// Before the first put of names that begin so.
    Put(&'static str),
    /// In the middle of the first listing, which takes long: what it says of plans was read before, the rest after it.
    Listing,
}

/// See [`Pruning::before`].
struct Interrupted {
    inner: Arc<dyn backup_engine::Store>,
    moment: Moment,
    work: tokio::sync::Mutex<Option<BoxFuture<'static, ()>>>,
}

impl backup_engine::Store for Interrupted {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, backup_engine::Result<()>> {
        Box::pin(async move {
            if let Moment::Put(prefix) = self.moment
                && name.starts_with(prefix)
                && let Some(work) = self.work.lock().await.take()
            {
                work.await;
            }
            self.inner.put(name, bytes).await
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        self.inner.get(name)
    }

    fn get_range<'a>(
        &'a self,
        name: &'a str,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        self.inner.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, backup_engine::Result<Vec<backup_engine::ListedObject>>> {
        Box::pin(async move {
            let before = self.inner.list(prefix).await?;
            let Moment::Listing = self.moment else { return Ok(before) };
            let Some(work) = self.work.lock().await.take() else { return Ok(before) };
            work.await;
            let is_plan = |object: &backup_engine::ListedObject| object.name.starts_with("condemned/");
            let mut listed: Vec<_> = before.into_iter().filter(is_plan).collect();
            listed.extend(self.inner.list(prefix).await?.into_iter().filter(|object| !is_plan(object)));
            Ok(listed)
        })
    }
}

/// The whole life of a plan while a writer is stopped before it puts something of `prefix`. The writer's snapshot rests
/// on a file that only snapshots which go had.
async fn a_plan_comes_and_goes_before(prefix: &'static str, first_backup: bool) {
    let pruning = Arc::new(Pruning::new(1).await);
    pruning.history(3).await;
    if !first_backup {
        pruning.other_writer("slow", 70).await.unwrap();
    }
    let inside = Arc::clone(&pruning);
    let store = pruning.before(0, prefix, Box::pin(async move { inside.carry_out_over_sleepers().await }));
    // Content 0 was in the oldest snapshot alone: it is taken for present, and deleted while this backup runs.
    let outcome = pruning.other_writer_at(std::slice::from_ref(&store), "slow", 0).await.unwrap();
    assert!(outcome.durable);
    pruning.assert_whole().await;
    assert!(pruning.snapshots().await.contains(&outcome.id));
    let back = pruning.practice.restore_from(&pruning.practice.stores[0], outcome.id).await;
    assert_eq!(fs::read(back.join("now")).unwrap(), noise(0, NOW_BYTES));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_first_backup_begins_again_with_the_plan() {
    a_plan_comes_and_goes_before("snapshots/", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_paused_for_a_week_begins_again_on_a_new_chain() {
    a_plan_comes_and_goes_before("snapshots/", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_arrives_late_does_not_count() {
    // The writer falls asleep between its last look and its head.
    a_plan_comes_and_goes_before("heads/", true).await;
    a_plan_comes_and_goes_before("heads/", false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_change_loses_nothing_and_the_next_run_finishes() {
    let template = Pruning::new(2).await;
    let taken = template.history(3).await;
    let request = last(1);
    let mut crashed = 0;
    for n in 0..200_u64 {
        let pruning = template.copied();
        // Change number `step` at one of the stores fails, before or after it took effect.
        let (at, step) = ((n % 2) as usize, n / 2);
        let mut stores = pruning.stores.clone();
        let fault = Fault::CrashAtPut { n: step, lands: (n + step) % 2 == 0 };
        let inner: Arc<dyn MaintenanceStore> = Arc::new(FaultStore::new(Arc::clone(&stores[at].store), fault));
        stores[at] = NamedMaintenanceStore::new(stores[at].name.clone(), inner, true);
        let announced = pruning.try_announce(&stores, &request).await;
        pruning.practice.snapshot().await;
        let executed = pruning.try_execute(&stores, &request).await;
        pruning.assert_whole().await;
        let clean = announced.is_ok_and(|announced| announced.is_some())
            && executed.is_ok_and(|done| !done.stores.is_empty() && done.stores.iter().all(StorePruned::is_done));
        if clean {
            break;
        }
        crashed += 1;
        // The writer went on beside the wreck; the next runs finish.
        for _ in 0..2 {
            let again = pruning.try_announce(&pruning.stores, &request).await;
            assert!(again.is_ok() || again.is_err_and(|error| error.kind() == ErrorKind::Fenced));
            pruning.practice.snapshot().await;
            pruning.execute(&request).await;
        }
        pruning.assert_whole().await;
        let left = pruning.snapshots().await;
        assert!(!left.contains(&taken[0].id) && !left.contains(&taken[1].id), "step {n}: {}", left.len());
        let newest = pruning.practice.restore_from(&pruning.practice.stores[at], left[0]).await;
        assert_eq!(describe(&newest), describe(&pruning.practice.source()));
    }
    assert!((10..200).contains(&crashed), "{crashed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_pruners_do_not_get_in_each_others_way() {
    let pruning = Arc::new(Pruning::new(2).await);
    pruning.history(4).await;
    let (request, other) = (last(2), last(1));
    let both =
        futures::join!(pruning.try_announce(&pruning.stores, &request), pruning.try_announce(&pruning.stores, &other));
    assert!(both.0.is_ok() || both.1.is_ok());
    for _ in 0..3 {
        pruning.practice.snapshot().await;
        let both = futures::join!(
            pruning.try_execute(&pruning.stores, &request),
            pruning.try_execute(&pruning.stores, &request)
        );
        both.0.unwrap();
        both.1.unwrap();
        pruning.assert_whole().await;
    }
    assert!(pruning.snapshots().await.len() < 7);
    assert!(pruning.count("store-0", "condemned/") <= 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn catch_up_brings_nothing_back_that_is_being_deleted() {
    let pruning = Pruning::new(2).await;
    pruning.history(3).await;
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    pruning.practice.snapshot().await;
    // The second store fails in the middle of its deletions.
    let inner: Arc<dyn MaintenanceStore> =
        Arc::new(FaultStore::new(Arc::clone(&pruning.stores[1].store), Fault::CrashAtPut { n: 3, lands: false }));
    let stores = [pruning.stores[0].clone(), NamedMaintenanceStore::new("store-1", inner, true)];
    let execution = pruning.try_execute(&stores, &request).await.unwrap();
    assert!(execution.stores[0].is_done() && execution.stores[1].error.is_some());
    let (first, second) = (pruning.bytes("store-0"), pruning.bytes("store-1"));
    assert!(first < second);
    let practice = &pruning.practice;
    for done in replicate(&practice.env, &practice.made.writer, &practice.stores, None).await.unwrap() {
        assert!(done.complete, "{:?}", done.error);
    }
    let packs = pruning.count("store-0", "packs/");
    practice.snapshot().await;
    assert_eq!(pruning.count("store-0", "packs/"), packs, "nothing came back");
    assert_eq!(pruning.count("store-0", "heads/"), 3);
    pruning.assert_whole().await;
    pruning.execute(&request).await;
    assert_eq!(pruning.count("store-1", "packs/"), packs);
    pruning.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_while_its_chain_is_being_retired_counts() {
    let pruning = Pruning::new(1).await;
    pruning.history(3).await;
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    // The pruner has read the chain and not yet put the retirement when the snapshot is taken.
    let earlier = pruning.copied();
    assert_eq!(earlier.retire(Retire::All).await, 1);
    let taken = pruning.practice.snapshot().await;
    assert!(taken.durable);
    let condemned = |pruning: &Pruning| pruning.practice.dir.path().join("store-0/condemned");
    copy_folder(&condemned(&earlier), &condemned(&pruning));
    assert!(pruning.snapshots().await.contains(&taken.id));
    assert_eq!(pruning.execute(&request).await.snapshots, 2);
    pruning.assert_whole().await;
    assert!(pruning.snapshots().await.contains(&taken.id));
    assert_eq!(pruning.practice.snapshot().await.counter, 1, "the chain has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_empty_packs_are_rewritten_and_index_objects_merged() {
    let pruning = Pruning::new(1).await;
    let source = pruning.practice.source();
    // Forty snapshots make forty small packs of data, as many of trees, and as many index objects.
    for at in 0..40u64 {
        fs::write(source.join(format!("letter-{at}")), noise(at, 20_000)).unwrap();
        pruning.practice.snapshot().await;
    }
    fs::write(source.join("large-gone"), noise(77, 9 << 20)).unwrap();
    fs::write(source.join("large-kept"), noise(78, 1 << 20)).unwrap();
    pruning.practice.snapshot().await;
    fs::remove_file(source.join("large-gone")).unwrap();
    pruning.practice.snapshot().await;
    let (packs, indexes) = (pruning.count("store-0", "packs/"), pruning.count("store-0", "index/"));
    let request = last(1);
    let announced = pruning.announce(&request).await.unwrap();
    assert!(announced.packs_written >= 1 && announced.indexes_written == 1, "{announced:?}");
    pruning.practice.snapshot().await;
    pruning.execute(&request).await;
    pruning.assert_whole().await;
    let after = (pruning.count("store-0", "packs/"), pruning.count("store-0", "index/"));
    assert!(after.0 <= 6 && after.1 <= 2, "{packs} packs and {indexes} index objects became {after:?}");
    let newest = pruning.snapshots().await[0];
    let back = pruning.practice.restore_from(&pruning.practice.stores[0], newest).await;
    assert_eq!(describe(&back), describe(&source));
    // Without a budget nothing is rewritten.
    let mut frugal = last(1);
    frugal.rewrite_bytes_max = 0;
    fs::remove_file(source.join("letter-3")).unwrap();
    pruning.practice.snapshot().await;
    let plain = &pruning.practice.stores;
    let proposal = propose(&pruning.practice.env, &pruning.practice.made.open, plain, &frugal).await.unwrap();
    assert_eq!(proposal.packs_rewritten, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_ended_backup_left_goes_too_and_a_lost_state_loses_nothing() {
    let pruning = Pruning::new(1).await;
    pruning.history(2).await;
    let bytes = noise(5, 65_536);
    let name = blake3::hash(&bytes).to_hex();
    let folder: PathBuf = pruning.practice.dir.path().join("store-0/packs").join(&name[..2]);
    fs::create_dir_all(&folder).unwrap();
    let stray = folder.join(name.as_str());
    fs::write(&stray, &bytes).unwrap();
    let request = last(9);
    assert_eq!(pruning.announce(&request).await.unwrap().packs, 1);
    fs::remove_dir_all(pruning.practice.state()).unwrap();
    pruning.practice.snapshot().await;
    // The old chain cannot say any more that it has seen the plan.
    assert!(matches!(pruning.execute(&request).await.waiting, Some(Waiting::Writers(_))));
    assert_eq!(pruning.retire(Retire::Silent(Duration::from_millis(1))).await, 1);
    assert_eq!(pruning.execute(&request).await.waiting, None);
    assert!(!stray.exists());
    pruning.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_is_waited_for() {
    let pruning = Pruning::new(1).await;
    pruning.history(3).await;
    let (env, clock) = Env::seeded(3, 4_000_000_000_000);
    let mut request = last(1);
    request.grace = Duration::from_secs(3600);
    let open = &pruning.practice.made.open;
    let proposal = propose(&env, open, &pruning.practice.stores, &request).await.unwrap();
    let approved = Approved { snapshots: proposal.approval(), trips: proposal.trips.clone() };
    announce(&env, open, &pruning.pruner, &pruning.stores, &request, &approved).await.unwrap().unwrap();
    pruning.practice.snapshot().await;
    let waiting = execute(&env, open, &pruning.pruner, &pruning.stores, &request).await.unwrap().waiting;
    assert_eq!(waiting, Some(Waiting::Grace { until_unix_ms: 4_000_000_000_000 + 3_600_000 }));
    // This clock jumps; the writer's does not agree.
    clock.advance(Duration::from_secs(7200));
    let waiting = execute(&env, open, &pruning.pruner, &pruning.stores, &request).await.unwrap().waiting;
    assert!(matches!(waiting, Some(Waiting::Grace { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn age_is_by_the_dates_of_the_stores_where_that_is_asked() {
    let pruning = Pruning::new(2).await;
    let taken = pruning.history(3).await;
    let (env, open) = (&pruning.practice.env, &pruning.practice.made.open);
    let heads = heads(env, open.catalog(), &pruning.practice.stores).await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    // The stores took one a day; their writer says that all came at once.
    for (at, outcome) in (1..).zip(&taken) {
        let info = heads.snapshots.iter().find(|info| info.id == outcome.id).unwrap();
        for store in ["store-0", "store-1"] {
            let file = fs::File::open(pruning.practice.dir.path().join(store).join(info.head.to_string())).unwrap();
            let written = file.metadata().unwrap().modified().unwrap();
            file.set_modified(written + day * at).unwrap();
        }
    }
    let daily = |store_dates| {
        let policy = Policy { rules: vec![Rule::new(Keep::Daily(2))], holds: Vec::new() };
        PruneRequest { policy, store_dates, ..last(1) }
    };
    let going = async |store_dates| {
        let plain = &pruning.practice.stores;
        let proposal = propose(env, open, plain, &daily(store_dates)).await.unwrap();
        proposal.going().map(|info| info.id).collect::<Vec<_>>()
    };
    assert!(!going(false).await.is_empty(), "the writer's own date: one day, or two at midnight");
    assert_eq!(going(true).await, [taken[0].id]);
}
