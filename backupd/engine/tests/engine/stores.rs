//! Several stores, dead stores, crashes, damage, lost state.

use crate::practice::{Practice, describe, fill, noise, settle};
use backup_engine::store::{Fault, FaultStore};
use backup_engine::{
    Env, Error, ErrorKind, KnownHeads, ListedObject, NamedStore, NoProgress, Stop, Store, UnlockWith, VerifyRequest,
    close_gone, doubts, heads, heads_since, keyring, losses, recover_writer, replicate, replicate_until, snapshot,
    unlock, verify, verify_keyless,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

fn faulty(store: &NamedStore, fault: Fault) -> NamedStore {
    NamedStore::new(store.name.clone(), Arc::new(FaultStore::new(Arc::clone(&store.store), fault)), true)
}

fn all(read_data: bool) -> VerifyRequest {
    VerifyRequest { read_data, snapshot: None }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_snapshot_uploads_a_manifest_and_a_head_and_reads_no_file() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    settle().await;
    let first = practice.snapshot().await;
    let before = practice.objects("store-0");
    let second = practice.snapshot().await;
    let after = practice.objects("store-0");
    assert_eq!((second.counter, second.bytes_added, second.bytes_read), (2, 0, 0));
    assert_eq!((second.files, second.bytes_source), (first.files, first.bytes_source));
    let new: Vec<&String> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert_eq!(new.len(), 2, "{new:?}");
    assert!(new.iter().any(|name| name.starts_with("heads/")) && new.iter().any(|name| name.starts_with("snapshots/")));
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_that_are_lost_together_count_as_one() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    let at = |place: [&'static str; 3], dead: &'static [usize]| {
        let fault = |at: usize| if dead.contains(&at) { Fault::Dead } else { Fault::None };
        let stores = practice.stores.iter().enumerate();
        stores.map(|(n, store)| faulty(store, fault(n)).in_domain(place[n].to_owned())).collect::<Vec<_>>()
    };
    let take = |stores: Vec<NamedStore>| {
        let (env, writer, request) = (&practice.env, &practice.made.writer, practice.request(2));
        async move { snapshot(env, writer, &stores, request, &NoProgress).await }
    };
    let apart = take(at(["north", "south", "east"], &[2])).await.unwrap();
    assert!(apart.durable, "{apart:?}");
    let together = take(at(["north", "north", "south"], &[2])).await.unwrap();
    assert!(!together.durable, "both are in the building that burns: {together:?}");
    assert_eq!(together.stores.iter().filter(|store| store.durable).count(), 2);
    assert!(take(at(["north", "north", "south"], &[0])).await.unwrap().durable);
    let error = take(at(["north"; 3], &[])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misconfigured, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_snapshot_uploads_only_what_changed() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    fs::write(practice.source().join("large"), noise(5, 6 << 20)).unwrap();
    let first = practice.snapshot().await;
    assert!(first.bytes_added > 7 << 20);
    let mut content = noise(5, 6 << 20);
    content[3_000_000..3_000_010].copy_from_slice(b"different!");
    fs::write(practice.source().join("large"), &content).unwrap();
    let second = practice.snapshot().await;
    assert!(second.bytes_added <= 1 << 20, "one chunk, pages, an index: {}", second.bytes_added);
    let back = practice.restore_from(&practice.stores[0], second.id).await;
    assert_eq!(describe(&back), describe(&practice.source()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_or_damaged_state_directory_loses_nothing() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    practice.snapshot().await;
    fs::remove_dir_all(practice.state()).unwrap();
    let second = practice.snapshot().await;
    assert_eq!((second.bytes_added, second.counter), (0, 1), "dedups from the index, on a chain of its own");
    assert!(second.bytes_read > 0);
    let mut damaged = 0;
    for folder in ["records", "files"] {
        for entry in fs::read_dir(practice.state().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::write(path, b"this is no database").unwrap();
                damaged += 1;
            }
        }
    }
    assert!(damaged >= 3, "records, an index run and what the walk remembers: {damaged}");
    let third = practice.snapshot().await;
    assert_eq!(third.bytes_added, 0);
    let seen = heads(&practice.env, practice.made.writer.catalog(), &practice.stores).await.unwrap();
    assert_eq!(seen.snapshots.len(), 3);
    assert!(seen.snapshots.iter().all(|snapshot| !snapshot.forked) && seen.rejected.is_empty());
    let checked =
        verify(&practice.env, &practice.made.open, &practice.stores[0], all(true), &NoProgress).await.unwrap();
    assert!(checked.is_ok() && checked.snapshots == 3);
}

/// The local index is merged when it has many parts. A damaged block in one of them is met there, before anything is sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_local_index_that_is_damaged_when_it_is_merged_is_read_again_at_once() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    for at in 0..9 {
        fs::write(practice.source().join(format!("more-{at}")), noise(at, 5000)).unwrap();
        practice.snapshot().await;
    }
    let files = fs::read_dir(practice.state().join("files")).unwrap().map(|entry| entry.unwrap().path());
    let is_run = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().starts_with("run-");
    let mut runs: Vec<PathBuf> = files.filter(is_run).collect();
    runs.sort();
    assert_eq!(runs.len(), 9);
    let mut bytes = fs::read(&runs[8]).unwrap();
    bytes[0] ^= 1;
    fs::write(&runs[8], bytes).unwrap();
    assert_eq!(practice.snapshot().await.bytes_added, 0);
    assert_eq!(practice.snapshot().await.bytes_added, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_again_reads_only_new_heads() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    practice.snapshot().await;
    let known = KnownHeads::default();
    let look =
        async || heads_since(&practice.env, practice.made.writer.catalog(), &practice.stores, &known).await.unwrap();
    assert_eq!(look().await.snapshots.len(), 1);
    let first = practice.objects("store-0").into_iter().find(|(name, _)| name.starts_with("heads/")).unwrap().1;
    fs::write(&first, b"not read again").unwrap();
    practice.snapshot().await;
    let seen = look().await;
    assert_eq!((seen.snapshots.len(), seen.rejected.len()), (2, 0));
    let anew = heads(&practice.env, practice.made.writer.catalog(), &practice.stores).await.unwrap();
    assert_eq!((anew.snapshots.len(), anew.rejected.len()), (1, 1));
    fs::remove_file(&first).unwrap();
    let seen = look().await;
    assert_eq!((seen.snapshots.len(), seen.gaps.len()), (1, 1), "what is gone is forgotten, and is a gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_store_among_three_neither_stops_the_others_nor_stays_behind() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    let [a, b, c] = [0, 1, 2].map(|at: usize| practice.stores[at].clone());
    let stores = [a.clone(), faulty(&b, Fault::Dead), c.clone()];
    let taken =
        snapshot(&practice.env, &practice.made.writer, &stores, practice.request(2), &NoProgress).await.unwrap();
    assert!(taken.durable);
    assert_eq!(taken.stores.iter().map(|store| store.durable).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(taken.stores[1].error.as_ref().map(backup_engine::Error::kind), Some(ErrorKind::Unreachable));
    let seen = heads(&practice.env, practice.made.writer.catalog(), &stores).await.unwrap();
    assert_eq!((seen.snapshots[0].stores.len(), seen.unreachable.len()), (2, 1));

    let done = replicate(&practice.env, &practice.made.writer, &practice.stores, None).await.unwrap();
    assert!(done.iter().all(|store| store.complete));
    assert!(done[1].objects_copied > 3 && done[0].objects_copied == 0);
    assert_eq!(
        practice.objects("store-1").keys().collect::<Vec<_>>(),
        practice.objects("store-0").keys().collect::<Vec<_>>()
    );
    let back = practice.restore_from(&b, taken.id).await;
    assert_eq!(describe(&back), describe(&practice.source()));
}

/// A store whose credentials expire: it lists, and refuses to give index objects so many times.
struct Refuses {
    inner: Arc<dyn Store>,
    left: AtomicU32,
}

impl Store for Refuses {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, backup_engine::Result<()>> {
        self.inner.put(name, bytes)
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        let refused = name.starts_with("index/")
            && self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if refused {
            return Box::pin(std::future::ready(Err(Error::new(ErrorKind::Denied, "the credentials have expired"))));
        }
        self.inner.get(name)
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        self.inner.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, backup_engine::Result<Vec<ListedObject>>> {
        self.inner.list(prefix)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_is_not_handed_on_while_an_index_object_could_not_be_read() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let stores = [practice.stores[0].clone(), faulty(&practice.stores[1], Fault::Dead)];
    let taken =
        snapshot(&practice.env, &practice.made.writer, &stores, practice.request(1), &NoProgress).await.unwrap();
    // Each index object is refused when the catalog is read, and given when it is to be copied.
    let indexes = practice.objects("store-0").keys().filter(|name| name.starts_with("index/")).count();
    let inner = Arc::clone(&practice.stores[0].store);
    let refuses = Arc::new(Refuses { inner, left: AtomicU32::new(indexes as u32) });
    let stores = [NamedStore::new("store-0", refuses, true), practice.stores[1].clone()];
    let copied = |done: Vec<backup_engine::StoreCatchUp>| done.into_iter().nth(1).unwrap();
    let done = copied(replicate(&practice.env, &practice.made.writer, &stores, None).await.unwrap());
    assert!(!done.complete, "{done:?}");
    let there = practice.objects("store-1");
    assert!(!there.keys().any(|name| name.starts_with("heads/") || name.starts_with("index/")), "{:?}", there.keys());
    let done = copied(replicate(&practice.env, &practice.made.writer, &stores, None).await.unwrap());
    assert!(done.complete, "{done:?}");
    let back = practice.restore_from(&practice.stores[1], taken.id).await;
    assert_eq!(describe(&back), describe(&practice.source()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_returned_store_is_caught_up_by_the_next_snapshot() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let stores = [practice.stores[0].clone(), faulty(&practice.stores[1], Fault::CrashAtPut { n: 0, lands: true })];
    let first =
        snapshot(&practice.env, &practice.made.writer, &stores, practice.request(1), &NoProgress).await.unwrap();
    assert!(first.durable && !first.stores[1].durable);
    fs::write(practice.source().join("more"), b"more").unwrap();
    let second = practice.snapshot().await;
    assert_eq!(second.counter, 2);
    for id in [first.id, second.id] {
        practice.restore_from(&practice.stores[1], id).await;
    }
    assert_eq!(practice.objects("store-1").len(), practice.objects("store-0").len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_store_is_filled_in_turns_and_makes_way_in_between() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let first = snapshot(&practice.env, &practice.made.writer, &practice.stores[..1], practice.request(1), &NoProgress)
        .await
        .unwrap();
    let (env, writer, state) = (&practice.env, &practice.made.writer, practice.state());
    let stop = Stop::default();
    stop.stop();
    // As the store lists them: what is being written when a turn ends is none of them yet.
    let names = async |at: usize| {
        let listed = practice.stores[at].store.list("").await.unwrap();
        listed.into_iter().map(|object| object.name).collect::<BTreeSet<_>>()
    };
    let mut turns = 0;
    loop {
        let before = names(1).await;
        let done = replicate_until(env, writer, &practice.stores, Some(&state), &stop).await.unwrap();
        turns += 1;
        if done[1].objects_copied == 0 {
            break;
        }
        assert_eq!(done[1].error.as_ref().map(backup_engine::Error::kind), Some(ErrorKind::Stopped));
        assert!(names(1).await.is_superset(&before), "what is copied stays");
        // A copy that was under way when its turn ended may land during the next one.
        assert!(turns <= 2 * names(0).await.len(), "a turn that copies nothing new");
    }
    assert!(turns > 2, "{turns}");
    assert_eq!(names(1).await, names(0).await);
    practice.restore_from(&practice.stores[1], first.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missed_quorum_is_said_and_no_store_is_an_error() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let one = [practice.stores[0].clone(), faulty(&practice.stores[1], Fault::Dead)];
    let taken = snapshot(&practice.env, &practice.made.writer, &one, practice.request(2), &NoProgress).await.unwrap();
    assert!(!taken.durable && taken.stores[0].durable);
    let full = [faulty(&practice.stores[0], Fault::Full), faulty(&practice.stores[1], Fault::Full)];
    fs::write(practice.source().join("more"), b"more").unwrap();
    let refused = snapshot(&practice.env, &practice.made.writer, &full, practice.request(1), &NoProgress).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NoSpace);
    let none = [faulty(&practice.stores[0], Fault::Dead)];
    let refused = snapshot(&practice.env, &practice.made.writer, &none, practice.request(1), &NoProgress).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Unreachable);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_at_any_put_leaves_the_last_snapshot_whole_and_the_next_run_finishes() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let good = practice.snapshot().await;
    for n in 0..12u64 {
        for lands in [false, true] {
            fs::write(practice.source().join("new"), noise(100 + n * 2 + u64::from(lands), 300_000)).unwrap();
            settle().await;
            let fault = FaultStore::new(Arc::clone(&practice.stores[0].store), Fault::CrashAtPut { n, lands });
            let stores = [NamedStore::new("store-0", Arc::new(fault), true)];
            let crashed =
                snapshot(&practice.env, &practice.made.writer, &stores, practice.request(1), &NoProgress).await;
            let whole = |snapshot| VerifyRequest { read_data: true, snapshot };
            let (env, open, store) = (&practice.env, &practice.made.open, &practice.stores[0]);
            let still = verify(env, open, store, whole(Some(good.id)), &NoProgress).await.unwrap();
            assert!(still.is_ok(), "put {n}: {still:?}");
            let next = practice.snapshot().await;
            let all = verify(env, open, store, whole(None), &NoProgress).await.unwrap();
            assert!(all.is_ok(), "put {n}: {all:?}");
            let seen = heads(env, open.catalog(), &practice.stores).await.unwrap();
            assert!(seen.snapshots[0].id == next.id && seen.snapshots.iter().all(|snapshot| !snapshot.forked));
            if crashed.is_ok() {
                assert!(n >= 4, "packs, index, snapshot and head are at least four puts");
                return;
            }
        }
    }
    panic!("a snapshot of one file takes fewer puts than this");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_byte_in_any_object_is_noticed_and_named_and_another_store_restores() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let taken = practice.snapshot().await;
    let (env, open) = (&practice.env, &practice.made.open);
    let [first, second] = [&practice.stores[0], &practice.stores[1]];
    let clean = verify_keyless(env, first, &NoProgress).await.unwrap();
    assert!(clean.is_ok() && clean.objects as usize == practice.objects("store-0").len());
    for (name, path) in practice.objects("store-0") {
        let whole = fs::read(&path).unwrap();
        for at in [0, 5, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            fs::write(&path, &flipped).unwrap();
            let keyless = verify_keyless(env, first, &NoProgress).await.unwrap();
            assert_eq!(keyless.corrupt, std::slice::from_ref(&name), "byte {at}");
        }
        let with_key = verify(env, open, first, all(true), &NoProgress).await.unwrap();
        assert!(with_key.corrupt.contains(&name), "{name}: {with_key:?}");
        fs::remove_file(&path).unwrap();
        if name.starts_with("packs/") {
            let gone = verify(env, open, first, all(false), &NoProgress).await.unwrap();
            assert!(gone.missing.contains(&name), "{name}: {gone:?}");
        }
        fs::write(&path, &whole).unwrap();
    }
    for (_, path) in practice.objects("store-0").iter().filter(|(name, _)| name.starts_with("packs/")) {
        fs::write(path, b"").unwrap();
    }
    let back = practice.restore_from(second, taken.id).await;
    assert_eq!(describe(&back), describe(&practice.source()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paper_key_opens_and_makes_a_writer_that_goes_on() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    practice.snapshot().await;
    let (env, store) = (&practice.env, &practice.stores[0]);
    let paper = UnlockWith::PaperKey(practice.made.paper_key.clone());
    let open = unlock(env, store, &paper).await.unwrap();
    assert_eq!(open.to_bytes(), practice.made.open.to_bytes());
    let wrong = UnlockWith::Passphrase(backup_engine::Passphrase::new("no such slot".to_owned()));
    assert_eq!(unlock(env, store, &wrong).await.err().unwrap().kind(), ErrorKind::Denied);
    let file = UnlockWith::OpenKeyFile(practice.made.open.to_bytes());
    assert!(unlock(env, store, &file).await.is_ok());
    let ring = keyring(env, store).await.unwrap();
    assert_eq!(recover_writer(env, ring.clone(), &file).await.err().unwrap().kind(), ErrorKind::Denied);
    let writer = recover_writer(env, ring, &paper).await.unwrap();
    let mut request = practice.request(1);
    request.state_dir = Some(practice.dir.path().join("new-state"));
    let taken = snapshot(env, &writer, &practice.stores, request, &NoProgress).await.unwrap();
    assert_eq!((taken.bytes_added, taken.counter), (0, 1));
    assert_eq!(heads(env, open.catalog(), &practice.stores).await.unwrap().snapshots.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_backups_never_share_one_state() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    fs::create_dir_all(practice.state()).unwrap();
    let lock = fs::File::create(practice.state().join("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let refused =
        snapshot(&practice.env, &practice.made.writer, &practice.stores, practice.request(1), &NoProgress).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::Fenced);
}

#[test]
fn every_operation_may_run_on_any_thread() {
    fn send<T: Send>(_: impl FnOnce() -> T) {}
    let practice = || -> &'static Practice { unreachable!() };
    send(|| snapshot(&practice().env, &practice().made.writer, &practice().stores, practice().request(1), &NoProgress));
    send(|| verify(&practice().env, &practice().made.open, &practice().stores[0], all(true), &NoProgress));
    send(|| replicate(&practice().env, &practice().made.writer, &practice().stores, None));
    send(|| {
        let request = backup_engine::RestoreRequest { into: "/".into(), ..backup_engine::RestoreRequest::default() };
        let id = backup_engine::SnapshotId([0; 32]);
        backup_engine::restore(&practice().env, &practice().made.open, &practice().stores[0], id, request, &NoProgress)
    });
    send(|| heads(&practice().env, practice().made.open.catalog(), &practice().stores));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_set_back_ten_years_hides_no_snapshot_and_breaks_no_chain() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let now = 1_790_000_000_000;
    let (env, clock) = Env::seeded(7, now);
    let take = async |name: &str| {
        fs::write(practice.source().join("latest"), name).unwrap();
        let writer = &practice.made.writer;
        snapshot(&env, writer, &practice.stores, practice.request(1), &NoProgress).await.unwrap()
    };
    take("first").await;
    clock.set(now - 10 * 365 * 86_400_000);
    let second = take("second").await;
    let newest = async || heads(&env, practice.made.open.catalog(), &practice.stores).await.unwrap().snapshots;
    assert_eq!((newest().await[0].id, second.counter), (second.id, 2));
    // The state is lost as well: a new chain, which still follows what it saw.
    fs::remove_dir_all(practice.state()).unwrap();
    let third = take("third").await;
    assert_eq!((newest().await[0].id, third.counter), (third.id, 1));
    clock.set(now);
    let fourth = take("fourth").await;
    let all = newest().await;
    assert_eq!((all[0].id, all.len()), (fourth.id, 4));
    assert!(all.iter().all(|snapshot| !snapshot.forked));
    let back = practice.restore_from(&practice.stores[0], fourth.id).await;
    assert_eq!(fs::read(back.join("latest")).unwrap(), b"fourth");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_writer_left_unfinished_goes_with_the_next_put_and_what_is_being_written_stays() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let folder = practice.dir.path().join("store-0/packs/ab");
    fs::create_dir_all(&folder).unwrap();
    let (left, busy) = (folder.join(".1-0.part"), folder.join(".2-0.part"));
    fs::write(&left, noise(1, 5000)).unwrap();
    let writing = fs::File::create(&busy).unwrap();
    rustix::fs::flock(&writing, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let taken = practice.snapshot().await;
    assert!(!left.exists() && busy.exists());
    practice.restore_from(&practice.stores[0], taken.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_store_loses_is_noted_when_it_is_made_good() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    practice.snapshot().await;
    fs::write(practice.source().join("more"), noise(9, 3 << 20)).unwrap();
    practice.snapshot().await;
    let noted = || losses(&practice.env, &practice.state()).unwrap();
    assert_eq!(noted(), BTreeMap::new(), "what the first snapshot sent and the second found is no loss");
    let before = practice.objects("store-1");
    let packs = before.keys().filter(|name| name.starts_with("packs/")).count() as u64;
    fs::remove_dir_all(practice.dir.path().join("store-1").join("packs")).unwrap();
    practice.snapshot().await;
    assert_eq!(noted().get("store-1").map(|loss| loss.objects), Some(packs));
    assert_eq!(practice.objects("store-1").keys().filter(|name| name.starts_with("packs/")).count() as u64, packs);
    // All of it, heads and keyring too, and made good by a catch-up.
    let all = practice.objects("store-1").len() as u64;
    fs::remove_dir_all(practice.dir.path().join("store-1")).unwrap();
    fs::create_dir(practice.dir.path().join("store-1")).unwrap();
    replicate(&practice.env, &practice.made.writer, &practice.stores, Some(&practice.state())).await.unwrap();
    assert_eq!(noted().get("store-1").map(|loss| loss.objects), Some(all));
    assert!(!noted().contains_key("store-0"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_only_store_loses_is_noted_too() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    practice.snapshot().await;
    practice.snapshot().await;
    let noted = || losses(&practice.env, &practice.state()).unwrap();
    assert_eq!(noted(), BTreeMap::new());
    let pack = practice.objects("store-0").into_iter().find(|(name, _)| name.starts_with("packs/")).unwrap();
    fs::remove_file(pack.1).unwrap();
    // The source is read again, so the next snapshot is whole; that something went is told all the same.
    let taken = practice.snapshot().await;
    assert_eq!(noted().get("store-0").map(|loss| loss.objects), Some(1));
    practice.restore_from(&practice.stores[0], taken.id).await;
    let at = noted()["store-0"].at_unix_ms;
    practice.snapshot().await;
    assert_eq!(noted()["store-0"].at_unix_ms, at, "told once");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_all_stores_but_a_silent_one_lose_is_noted_at_once() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    practice.snapshot().await;
    let look = async || {
        let (writer, stores) = (&practice.made.writer, &practice.stores);
        replicate(&practice.env, writer, stores, Some(&practice.state())).await.unwrap();
        losses(&practice.env, &practice.state()).unwrap()
    };
    let silent = |name: &str| practice.dir.path().join(name);
    fs::rename(silent("store-2"), silent("away")).unwrap();
    assert_eq!(look().await, BTreeMap::new(), "silence is no loss");
    for store in ["store-0", "store-1"] {
        let lost = |name: &str| name.starts_with("index/") || name.starts_with("snapshots/");
        practice
            .objects(store)
            .into_iter()
            .filter(|(name, _)| lost(name))
            .for_each(|(_, path)| fs::remove_file(path).unwrap());
    }
    let told = look().await;
    assert_eq!(told.keys().collect::<Vec<_>>(), ["store-0", "store-1"]);
    assert!(told.values().all(|loss| loss.objects == 2), "{told:?}");
    assert_eq!(look().await, told, "told once");
    // Nobody says that they are gone everywhere: the silent store brings them back.
    let gone = || doubts(&practice.env, &practice.state(), std::iter::empty()).unwrap().gone;
    assert!(gone().is_empty());
    fs::rename(silent("away"), silent("store-2")).unwrap();
    assert_eq!(look().await, told);
    assert!(gone().is_empty());
    assert_eq!(practice.objects("store-0").len(), practice.objects("store-2").len());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_store_loses_is_noted_until_somebody_has_looked_into_it() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    practice.snapshot().await;
    fs::write(practice.source().join("more"), noise(9, 3 << 20)).unwrap();
    practice.snapshot().await;
    let all_gone = || doubts(&practice.env, &practice.state(), std::iter::empty()).unwrap().gone;
    let untold = || all_gone().into_iter().filter(|(_, looked)| !looked).map(|(name, _)| name).collect::<Vec<_>>();
    let look = async || {
        let (writer, stores) = (&practice.made.writer, &practice.stores);
        replicate(&practice.env, writer, stores, Some(&practice.state())).await.unwrap();
    };
    let take_out = |names: &[String], stores: &[&str]| {
        for store in stores {
            let objects = practice.objects(store);
            names.iter().for_each(|name| fs::remove_file(&objects[name]).unwrap());
        }
    };
    let some = |kind: &str| practice.objects("store-0").into_keys().find(|name| name.starts_with(kind)).unwrap();
    assert!(all_gone().is_empty());
    let lost = [some("index/"), some("snapshots/")];
    take_out(&lost, &["store-0"]);
    look().await;
    assert!(all_gone().is_empty(), "the other store has them");
    take_out(&lost, &["store-0", "store-1"]);
    look().await;
    assert_eq!(untold(), lost);
    close_gone(&practice.env, &practice.state()).unwrap();
    let before = practice.objects("store-0");
    let taken = practice.snapshot().await;
    assert!(untold().is_empty() && all_gone().len() == 2, "{:?}", all_gone());
    practice.restore_from(&practice.stores[0], taken.id).await;
    // A pack that comes back is gone no longer.
    // One that an index names: the packs of the index that is gone belong to nothing any more.
    let is_new = |name: &String| name.starts_with("packs/") && !before.contains_key(name);
    let pack = practice.objects("store-0").into_keys().find(is_new).unwrap();
    let path = practice.objects("store-0").remove(&pack).unwrap();
    let bytes = fs::read(&path).unwrap();
    take_out(std::slice::from_ref(&pack), &["store-0", "store-1"]);
    look().await;
    assert_eq!(untold(), [pack]);
    fs::write(&path, bytes).unwrap();
    look().await;
    assert!(untold().is_empty() && all_gone().len() == 2);
    // What the newest snapshot put itself is known as well.
    let before = practice.objects("store-0");
    fs::write(practice.source().join("newest"), noise(11, 200_000)).unwrap();
    practice.snapshot().await;
    let is_new = |name: &String| name.starts_with("index/") && !before.contains_key(name);
    let newest: Vec<String> = practice.objects("store-0").into_keys().filter(is_new).collect();
    assert_eq!(newest.len(), 1);
    take_out(&newest, &["store-0", "store-1"]);
    look().await;
    assert_eq!(untold(), newest);
}
