//! The spool: backups go on while no store answers, and lose nothing that was ever durable when it is lost.

use crate::practice::{Practice, describe, fill, noise, settle};
use backup_engine::store::{Fault, FaultStore};
use backup_engine::{
    ErrorKind, NamedStore, NoProgress, SPOOL, SnapshotOutcome, Spool, VerifyRequest, foreign, heads, own_chains,
    replicate, snapshot, verify,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const ROOM: u64 = 64 << 20;

fn folder(practice: &Practice) -> PathBuf {
    let folder = practice.dir.path().join("spool");
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// As a daemon that has just started opens it.
fn spool(practice: &Practice, bytes_max: u64) -> Spool {
    Spool::folder(folder(practice), bytes_max).unwrap()
}

/// The stores, these of them dead, and the spool.
fn stores(practice: &Practice, dead: &[usize], spool: &Spool) -> Vec<NamedStore> {
    let see = |(at, store): (usize, &NamedStore)| {
        let fault = if dead.contains(&at) { Fault::Dead } else { Fault::None };
        NamedStore::new(store.name.clone(), Arc::new(FaultStore::new(Arc::clone(&store.store), fault)), true)
    };
    practice.stores.iter().enumerate().map(see).chain([spool.as_store()]).collect()
}

async fn take(practice: &Practice, stores: &[NamedStore]) -> backup_engine::Result<SnapshotOutcome> {
    settle().await;
    snapshot(&practice.env, &practice.made.writer, stores, practice.request(2), &NoProgress).await
}

async fn assert_whole(practice: &Practice, taken: &[(SnapshotOutcome, PathBuf)]) {
    for store in &practice.stores {
        let all = VerifyRequest { read_data: true, snapshot: None };
        let found = verify(&practice.env, &practice.made.open, store, all, &NoProgress).await.unwrap();
        assert!(found.is_ok(), "{}: missing {:?}, corrupt {:?}", store.name, found.missing, found.corrupt);
        for (outcome, source) in taken {
            let back = practice.restore_from(store, outcome.id).await;
            assert_eq!(describe(&back), describe(source), "{} of {}", outcome.counter, store.name);
        }
    }
}

/// What the source holds now, kept beside it.
fn kept(practice: &Practice, number: u64) -> PathBuf {
    let copy = practice.dir.path().join(format!("kept-{number}"));
    let status = std::process::Command::new("cp").arg("-a").arg(practice.source()).arg(&copy).status().unwrap();
    assert!(status.success());
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_go_on_into_the_spool_and_out_of_it_when_stores_return() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    let first = take(&practice, &stores(&practice, &[], &spool(&practice, ROOM))).await.unwrap();
    assert!(first.durable && !first.spooled && first.stores.len() == 3);
    assert_eq!(spool(&practice, ROOM).holds().await.unwrap().bytes, 0, "nobody needs it yet");
    let mut taken = vec![(first, kept(&practice, 1))];
    for number in 2..5 {
        fs::write(practice.source().join("today"), noise(number, 150_000)).unwrap();
        // Each by a daemon that was started anew. Of two stores that count one is not enough.
        let dead: &[usize] = if number == 4 { &[1, 2] } else { &[0, 1, 2] };
        let waiting = take(&practice, &stores(&practice, dead, &spool(&practice, ROOM))).await.unwrap();
        assert!(waiting.spooled && !waiting.durable && waiting.counter == number, "{waiting:?}");
        assert!(waiting.bytes_added < 1 << 20, "only what is new: {}", waiting.bytes_added);
        assert!(waiting.stores.iter().all(|store| store.store != SPOOL));
        taken.push((waiting, kept(&practice, number)));
        let all = stores(&practice, &[], &spool(&practice, ROOM));
        let seen = heads(&practice.env, practice.made.open.catalog(), &all).await.unwrap();
        let alone = seen.snapshots.iter().filter(|info| info.stores == [SPOOL]).count();
        assert_eq!(alone, [1, 2, 0][number as usize - 2], "a store that answers takes what waited as well");
    }
    let room = spool(&practice, ROOM);
    let holds = room.holds().await.unwrap();
    assert!(holds.snapshots == 3 && holds.bytes < 4 << 20, "{holds:?}");
    let all = stores(&practice, &[], &room);
    let done = replicate(&practice.env, &practice.made.writer, &all, Some(&practice.state())).await.unwrap();
    assert!(done.len() == 3 && done.iter().all(|store| store.complete), "{done:?}");
    assert_whole(&practice, &taken).await;
    room.clear().await.unwrap();
    assert_eq!(room.holds().await.unwrap(), backup_engine::Spooled::default());
    let last = take(&practice, &all).await.unwrap();
    assert!(last.durable && last.bytes_added == 0 && last.counter == 5, "{last:?}");
    // Once more without any store: what left the spool counts as held.
    let waiting = take(&practice, &stores(&practice, &[0, 1, 2], &room)).await.unwrap();
    assert!(waiting.spooled && waiting.bytes_added == 0 && waiting.counter == 6, "{waiting:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_spool_refuses_and_keeps_what_it_has() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    let first = take(&practice, &stores(&practice, &[], &spool(&practice, ROOM))).await.unwrap();
    let room = spool(&practice, 3 << 20);
    let dead = stores(&practice, &[0, 1, 2], &room);
    fs::write(practice.source().join("today"), noise(1, 300_000)).unwrap();
    assert!(take(&practice, &dead).await.unwrap().spooled);
    let held = kept(&practice, 1);
    fs::write(practice.source().join("scan"), noise(2, 6 << 20)).unwrap();
    let error = take(&practice, &dead).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("spool"), "{error}");
    assert!(room.holds().await.unwrap().bytes <= 3 << 20);
    // Nobody was sent that head: the chain stands where it stood, and what it holds stays this machine's.
    let source = practice.made.open.catalog().source_id("emr");
    let own = own_chains(&practice.env, &practice.state(), &[source]).unwrap();
    assert_eq!(own.get(&source).map(|own| own.incarnation), Some(first.incarnation));
    let seen = heads(&practice.env, practice.made.open.catalog(), &dead).await.unwrap();
    assert!(foreign(seen.snapshots.iter(), own.get(&source).copied(), 0).is_empty());
    // What did not fit is not in the way of what does.
    fs::remove_file(practice.source().join("scan")).unwrap();
    fs::write(practice.source().join("today"), noise(3, 300_000)).unwrap();
    let next = take(&practice, &dead).await.unwrap();
    assert!(next.spooled && (next.incarnation, next.counter) == (first.incarnation, 3), "{next:?}");
    let last = take(&practice, &stores(&practice, &[], &room)).await.unwrap();
    assert!(last.durable && !last.spooled, "{last:?}");
    let spooled = heads(&practice.env, practice.made.open.catalog(), &practice.stores).await.unwrap().snapshots;
    assert_eq!(spooled.len(), 4, "those that waited went out before the next");
    let back = practice.restore_from(&practice.stores[1], spooled[2].id).await;
    assert_eq!(describe(&back), describe(&held));
    assert_whole(&practice, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_spool_loses_only_what_was_never_durable() {
    for found_again in [false, true] {
        let practice = Practice::new(3).await;
        fill(&practice.source());
        let room = spool(&practice, ROOM);
        let first = take(&practice, &stores(&practice, &[], &room)).await.unwrap();
        let mut taken = vec![(first, kept(&practice, 1))];
        fs::write(practice.source().join("today"), noise(1, 300_000)).unwrap();
        assert!(take(&practice, &stores(&practice, &[0, 1, 2], &room)).await.unwrap().spooled);
        let aside = practice.dir.path().join("aside");
        fs::rename(folder(&practice), &aside).unwrap();
        folder(&practice);
        // Neither the stores nor the spool say anything: what it held is read from the source again.
        let again = take(&practice, &stores(&practice, &[0, 1, 2], &room)).await.unwrap();
        assert!(again.spooled && again.counter == 1 && again.bytes_added >= 300_000, "a new chain: {again:?}");
        taken.push((again, kept(&practice, 2)));
        if found_again {
            for entry in walk(&aside) {
                let to = folder(&practice).join(entry.strip_prefix(&aside).unwrap());
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(entry, to).unwrap();
            }
        }
        let all = stores(&practice, &[], &room);
        let last = take(&practice, &all).await.unwrap();
        assert!(last.durable && last.counter == 2, "{last:?}");
        let seen = heads(&practice.env, practice.made.open.catalog(), &all).await.unwrap();
        assert!(seen.gaps.is_empty() && seen.snapshots.iter().all(|info| !info.forked), "{seen:?}");
        assert_eq!(seen.snapshots.len(), if found_again { 4 } else { 3 });
        assert_whole(&practice, &taken).await;
    }
}

fn walk(dir: &std::path::Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_goes_to_no_store_that_may_lack_what_it_rests_on() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    let room = spool(&practice, ROOM);
    assert!(take(&practice, &stores(&practice, &[], &room)).await.unwrap().durable);
    fs::write(practice.source().join("today"), noise(2, 150_000)).unwrap();
    let waiting = take(&practice, &stores(&practice, &[0, 1, 2], &room)).await.unwrap();
    assert!(waiting.spooled);
    let held = kept(&practice, 2);
    // One store comes back as it was when it was new, the others are silent: nobody there has what the snapshot rests on.
    for kind in ["heads", "snapshots", "index", "packs"] {
        fs::remove_dir_all(practice.dir.path().join("store-2").join(kind)).unwrap();
    }
    let heads_at = |store: &str| practice.objects(store).keys().filter(|name| name.starts_with("heads/")).count();
    let state = practice.state();
    let catch_up = async |dead: &[usize], state: Option<&Path>| {
        let all = stores(&practice, dead, &room);
        let done = replicate(&practice.env, &practice.made.writer, &all, state).await.unwrap();
        done.into_iter().filter(|store| store.complete).count()
    };
    assert_eq!(catch_up(&[0, 1], Some(&state)).await, 0);
    assert_eq!(heads_at("store-2"), 0);
    // A state that was lost does not know what it rests on, so it waits for all.
    assert_eq!(catch_up(&[1], None).await, 0);
    assert_eq!((heads_at("store-0"), heads_at("store-2")), (1, 1));
    // A dead store holds back nothing once what is needed is seen.
    assert_eq!(catch_up(&[1], Some(&state)).await, 2);
    assert_eq!((heads_at("store-0"), heads_at("store-2")), (2, 2));
    room.clear().await.unwrap();
    assert_eq!(room.holds().await.unwrap().snapshots, 0);
    let all = stores(&practice, &[], &room);
    replicate(&practice.env, &practice.made.writer, &all, Some(&state)).await.unwrap();
    assert_whole(&practice, &[(waiting, held)]).await;
}
