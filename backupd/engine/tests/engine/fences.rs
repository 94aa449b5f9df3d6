//! What a writer takes for a plan that came meanwhile, and for none: a snapshot told to be durable counts, and a plan that
//! was healed or lost holds nobody up.

use crate::practice::noise;
use crate::prune::{NOW_BYTES, Pruning, last};
use backup_engine::{Error, ErrorKind, ListedObject, NamedStore, Result, SnapshotId, Store, heads, note_damage};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use tokio::sync::Notify;

/// The object of the announced plan at a store.
fn plan_at(pruning: &Pruning, store: &str) -> (String, PathBuf) {
    pruning.practice.objects(store).into_iter().find(|(name, _)| name.starts_with("condemned/0")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_was_healed_beside_the_damaged_one_is_nothing_new() {
    let pruning = Pruning::new(2).await;
    pruning.history(2).await;
    pruning.announce(&last(1)).await.unwrap();
    let (_, path) = plan_at(&pruning, "store-0");
    let mut beside = path.clone().into_os_string();
    beside.push(".1");
    fs::copy(&path, beside).unwrap();
    fs::write(&path, b"damaged").unwrap();
    let taken = pruning.practice.snapshot().await;
    assert!(taken.stores.iter().all(|store| store.durable), "{:?}", taken.stores);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_no_store_has_whole_holds_no_backup_up() {
    let pruning = Pruning::new(2).await;
    pruning.history(2).await;
    pruning.announce(&last(1)).await.unwrap();
    let practice = &pruning.practice;
    for store in ["store-0", "store-1"] {
        let (name, path) = plan_at(&pruning, store);
        fs::write(path, b"damaged").unwrap();
        note_damage(&practice.env, &practice.state(), store, &[name], &[]).unwrap();
    }
    let taken = practice.snapshot().await;
    assert!(taken.stores.iter().all(|store| store.durable), "{:?}", taken.stores);
    assert!(taken.bytes_added > NOW_BYTES as u64, "nobody knows which packs the plan is about: all is written anew");
}

/// A store that gives nothing under a prefix so many times.
struct Silent {
    inner: Arc<dyn Store>,
    prefix: &'static str,
    left: AtomicU32,
}

impl Store for Silent {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.inner.put(name, bytes)
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        let counts = name.starts_with(self.prefix);
        let less = |left: u32| left.checked_sub(1).filter(|_| counts);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
            return Box::pin(async { Err(Error::new(ErrorKind::Unreachable, "no answer")) });
        }
        self.inner.get(name)
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        self.inner.list(prefix)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_is_listed_and_not_read_was_not_seen() {
    let pruning = Pruning::new(1).await;
    pruning.history(3).await;
    let plan = pruning.announce(&last(1)).await.unwrap();
    let inner = Arc::clone(&pruning.practice.stores[0].store);
    let silent = Silent { inner, prefix: "condemned/", left: 1.into() };
    let store = NamedStore::new("store-0", Arc::new(silent), true);
    // Content 0 lies in a pack that the plan is about, and nobody waits for a chain that begins now.
    let taken = pruning.other_writer_at(std::slice::from_ref(&store), "new", 0).await.unwrap();
    assert!(taken.durable);
    let (env, catalog) = (&pruning.practice.env, pruning.practice.made.open.catalog());
    let known = heads(env, catalog, &pruning.practice.stores).await.unwrap();
    let info = known.snapshots.iter().find(|info| info.id == taken.id).unwrap();
    assert_eq!(info.plan_seen, Some(plan.name.hash.0));
}

/// A writer sleeps before its heads while a plan is carried out, and one store is set back meanwhile to before the plan.
/// What it shows alone is no reason to say that the snapshot is durable there.
#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_one_store_shows_fences_the_head_at_all() {
    let pruning = Arc::new(Pruning::new(2).await);
    pruning.history(3).await;
    pruning.other_writer("slow", 70).await.unwrap();
    let over = Arc::new(Notify::new());
    let (inside, done) = (Arc::clone(&pruning), Arc::clone(&over));
    let work = async move {
        inside.carry_out_over_sleepers().await;
        for (_, path) in
            inside.practice.objects("store-1").into_iter().filter(|(name, _)| name.starts_with("condemned/"))
        {
            fs::remove_file(path).unwrap();
        }
        done.notify_one();
    };
    let asleep = Box::pin(async move { over.notified().await });
    let stores = [pruning.before(0, "heads/", Box::pin(work)), pruning.before(1, "heads/", asleep)];
    let taken = pruning.other_writer_at(&stores, "slow", 0).await.unwrap();
    assert!(taken.durable);
    assert!(pruning.snapshots().await.contains(&taken.id), "what is durable counts");
    for store in taken.stores.iter().filter(|store| store.durable) {
        let store = pruning.practice.stores.iter().find(|other| other.name == store.store).unwrap();
        let back = pruning.practice.restore_from(store, taken.id).await;
        assert_eq!(fs::read(back.join("now")).unwrap(), noise(0, NOW_BYTES));
    }
}

/// Not what leads to the content: the mark must get there. Nor the padding behind it.
fn spoil_content(pack: &Path) {
    let mut bytes = fs::read(pack).unwrap();
    if bytes.len() > NOW_BYTES {
        bytes[NOW_BYTES / 2] ^= 1;
        fs::write(pack, bytes).unwrap();
    }
}

/// A chunk lies in a pack that a plan is about and, since a writer brought it anew, in another, which is damaged at every
/// store by now: nobody has read it, and a listing does not show it.
#[tokio::test(flavor = "multi_thread")]
async fn the_last_whole_copy_of_a_chunk_is_not_deleted() {
    let pruning = Pruning::new(2).await;
    pruning.history(3).await;
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    let packs = || -> BTreeSet<String> {
        pruning.practice.objects("store-0").into_keys().filter(|name| name.starts_with("packs/")).collect()
    };
    let before = packs();
    // Content 1 was in the second snapshot alone, and in a pack of its own.
    let taken = pruning.other_writer("new", 1).await.unwrap();
    pruning.practice.snapshot().await;
    for name in packs().difference(&before) {
        for store in ["store-0", "store-1"] {
            spoil_content(&pruning.practice.objects(store)[name]);
        }
    }
    let execution = pruning.execute(&request).await;
    assert_eq!((execution.waiting, execution.snapshots), (None, 2));
    for store in &pruning.practice.stores {
        let back = pruning.practice.restore_from(store, taken.id).await;
        assert_eq!(fs::read(back.join("now")).unwrap(), noise(1, NOW_BYTES), "{}", store.name);
    }
}

type Saved = Vec<(PathBuf, Vec<u8>)>;

fn saved(pruning: &Pruning, store: &str, counts: impl Fn(&str) -> bool) -> Saved {
    let objects = pruning.practice.objects(store).into_iter().filter(|(name, _)| counts(name));
    objects.map(|(_, path)| (path.clone(), fs::read(path).unwrap())).collect()
}

fn put_back(saved: &Saved) {
    saved.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
}

async fn assert_back(pruning: &Pruning, store: usize, id: SnapshotId, content: u64) {
    let back = pruning.practice.restore_from(&pruning.practice.stores[store], id).await;
    assert_eq!(fs::read(back.join("now")).unwrap(), noise(content, NOW_BYTES));
}

/// A lock keeps a pack that an order takes out, and the index object that names it. Meanwhile the other pack, on account
/// of which that one could go, is damaged there.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_goes_on_leaves_the_last_copy_and_what_names_it() {
    let pruning = Pruning::new(2).await;
    pruning.history(3).await;
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    let is_locked = |name: &str| name.starts_with("packs/") || name.starts_with("index/");
    let locked = saved(&pruning, "store-0", is_locked);
    let before: BTreeSet<PathBuf> = locked.iter().map(|(path, _)| path.clone()).collect();
    let taken = pruning.other_writer("new", 1).await.unwrap();
    pruning.practice.snapshot().await;
    assert_eq!(pruning.execute(&request).await.snapshots, 2);
    put_back(&locked);
    let mut new = saved(&pruning, "store-0", |name| name.starts_with("packs/"));
    new.retain(|(path, _)| !before.contains(path));
    new.iter().for_each(|(path, _)| spoil_content(path));
    assert_back(&pruning, 0, taken.id, 1).await;
    let execution = pruning.execute(&request).await;
    assert!(execution.waiting.is_none() && execution.stores[0].objects > 0, "{execution:?}");
    assert_back(&pruning, 0, taken.id, 1).await;
    // Where both are whole again, nothing rests on it.
    put_back(&new);
    assert_eq!(pruning.execute(&request).await.stores[0].objects, 2, "the pack and what names it");
    assert_back(&pruning, 0, taken.id, 1).await;
}

/// A head and its packs are gone when a plan is made, so that no replacement names those packs; then a store is set back,
/// and they are there again.
#[tokio::test(flavor = "multi_thread")]
async fn what_came_back_since_the_plan_stays_named() {
    let pruning = Pruning::new(2).await;
    pruning.history(2).await;
    let before: BTreeSet<String> = pruning.practice.objects("store-0").into_keys().collect();
    let taken = pruning.other_writer("set-back", 50).await.unwrap();
    let is_gone = |name: &str| !before.contains(name) && !name.starts_with("index/");
    let gone = saved(&pruning, "store-0", is_gone);
    for (path, _) in gone.iter().chain(&saved(&pruning, "store-1", is_gone)) {
        fs::remove_file(path).unwrap();
    }
    pruning.other_writer("set-back", 51).await.unwrap();
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    pruning.other_writer("set-back", 51).await.unwrap();
    pruning.practice.snapshot().await;
    put_back(&gone);
    assert_back(&pruning, 0, taken.id, 50).await;
    let execution = pruning.execute(&request).await;
    assert!(execution.waiting.is_none() && execution.snapshots > 0, "{execution:?}");
    assert_back(&pruning, 0, taken.id, 50).await;
}
