//! Key slots, epochs, feature flags, and chains that somebody cut.

use crate::practice::{Practice, describe, fill, noise, settle};
use backup_engine::store::{Fault, FaultStore};
use backup_engine::{
    ErrorKind, NamedStore, NoProgress, OpenKey, RestoreRequest, SnapshotId, SnapshotOutcome, UnlockWith, VerifyRequest,
    WriterCredential, add_shares, add_slot, describe_keyring, epochs, heads, keyring, rehearse, remove_slot, replicate,
    restore, rotate, signed_keyring, snapshot, unlock, verify,
};
use backup_format::features::Features;
use backup_format::head::{Head, HeadName};
use backup_format::keyring::{Keyring, seal};
use backup_format::tombstone::{Tombstone, TombstoneReason};
use backup_format::{
    MachineKey, ObjectHash, PaperKey, Passphrase, PrunerCredential, RepositorySecrets, Share, SlotKind, Unlock,
};
use std::fs;
use std::sync::Arc;

fn paper(practice: &Practice) -> UnlockWith {
    UnlockWith::PaperKey(PaperKey::from_text(&practice.made.paper_key.to_text()).unwrap())
}

async fn snapshot_with(practice: &Practice, writer: &WriterCredential) -> SnapshotOutcome {
    settle().await;
    snapshot(&practice.env, writer, &practice.stores, practice.request(1), &NoProgress).await.unwrap()
}

async fn restores(practice: &Practice, open: &OpenKey, id: SnapshotId) -> backup_engine::Result<()> {
    let into = practice.dir.path().join(format!("back-{id}"));
    let _ = fs::remove_dir_all(&into);
    let request = RestoreRequest { into: into.clone(), ..RestoreRequest::default() };
    restore(&practice.env, open, &practice.stores[0], id, request, &NoProgress).await?;
    assert_eq!(describe(&into.join("files")), describe(&practice.source()));
    Ok(())
}

/// The repository's secrets, as only a holder of the paper key has them.
async fn secrets(practice: &Practice) -> (RepositorySecrets, u64, Vec<backup_format::Slot>) {
    let bytes = keyring(&practice.env, &practice.stores[0]).await.unwrap();
    let ring = Keyring::parse(&bytes).unwrap();
    let secrets = ring.open(&Unlock::Paper(&practice.made.paper_key)).unwrap();
    (secrets, ring.header().number, ring.slots().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_slot_alone_opens_and_the_last_one_stays() {
    let practice = Practice::new(2).await;
    let (env, stores, with) = (&practice.env, &practice.stores, paper(&practice));
    fill(&practice.source());
    let id = snapshot_with(&practice, &practice.made.writer).await.id;
    let passphrase = UnlockWith::Passphrase(Passphrase::new("correct horse".to_owned()));
    let machine = UnlockWith::Machine(MachineKey::generate(&mut env.rng()));
    add_slot(env, stores, &with, passphrase.clone()).await.unwrap();
    add_slot(env, stores, &passphrase, machine.clone()).await.unwrap();
    let (_, shares_slot, shares) = add_shares(env, stores, &machine, (2, 3)).await.unwrap();
    assert_eq!((shares_slot.kind, shares_slot.shares, shares.len()), (SlotKind::Shares, Some((2, 3)), 3));
    let typed: Vec<Share> = shares.iter().map(|share| Share::from_text(&share.to_text()).unwrap()).collect();
    let pair = |a: usize, b: usize| UnlockWith::Shares(vec![typed[a].clone(), typed[b].clone()]);
    let ring = keyring(env, &stores[1]).await.unwrap();
    let before = practice.objects("store-0");
    let mut opened = Vec::new();
    for one in [&with, &passphrase, &machine, &pair(0, 1), &pair(2, 0), &pair(1, 2)] {
        let open = unlock(env, &stores[0], one).await.unwrap();
        restores(&practice, &open, id).await.unwrap();
        let (repository, slot) = rehearse(env, ring.clone(), one).await.unwrap();
        assert_eq!(repository, practice.made.repository);
        opened.push(slot.id);
    }
    opened.dedup();
    let slots = describe_keyring(&ring).unwrap().1;
    assert_eq!(opened, slots.iter().map(|slot| slot.id).collect::<Vec<_>>(), "each by its own slot");
    assert!(practice.objects("store-0") == before, "a rehearsal changes nothing");
    for wrong in [
        UnlockWith::Passphrase(Passphrase::new("correct horsE".to_owned())),
        UnlockWith::Shares(vec![typed[0].clone()]),
        UnlockWith::Shares(vec![typed[0].clone(), typed[0].clone()]),
    ] {
        assert!(rehearse(env, ring.clone(), &wrong).await.is_err());
    }
    // Slots go one by one; what is gone opens the keyring in force no more, and the last one cannot go.
    for slot in &slots[..3] {
        remove_slot(env, stores, &pair(0, 1), slot.id).await.unwrap();
    }
    for gone in [&with, &passphrase, &machine] {
        assert_eq!(unlock(env, &stores[0], gone).await.err().unwrap().kind(), ErrorKind::Denied);
    }
    let refused = remove_slot(env, stores, &pair(0, 1), slots[3].id).await.err().unwrap();
    assert!(refused.to_string().contains("the last slot"), "{refused}");
    let open = unlock(env, &stores[1], &pair(1, 2)).await.unwrap();
    restores(&practice, &open, id).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_rewrites_nothing_and_parts_the_old_key_from_the_new_bytes() {
    let practice = Practice::new(2).await;
    let (env, stores) = (&practice.env, &practice.stores);
    fill(&practice.source());
    fs::write(practice.source().join("large"), noise(3, 3 << 20)).unwrap();
    let old = &practice.made;
    let first = snapshot_with(&practice, &old.writer).await;
    let before = practice.objects("store-0");
    let rotated = rotate(env, stores, &paper(&practice)).await.unwrap();
    let (writer, open) = (rotated.renew(&old.writer).unwrap(), rotated.open_key());
    let writer = WriterCredential::from_bytes(&writer.to_bytes()).unwrap();
    let open = OpenKey::from_bytes(&open.to_bytes()).unwrap();
    let after = practice.objects("store-0");
    assert_eq!(after.len(), before.len() + 1, "a keyring is all that a rotation writes");
    assert_eq!((writer.seal_key().epoch(), writer.certificate().key), (2, old.writer.certificate().key));
    restores(&practice, &open, first.id).await.unwrap();

    // Deduplication goes on across the epochs, also for a writer that lost its state.
    let unchanged = snapshot_with(&practice, &writer).await;
    assert_eq!(unchanged.bytes_added, 0);
    fs::remove_dir_all(practice.state()).unwrap();
    assert_eq!(snapshot_with(&practice, &writer).await.bytes_added, 0);
    fs::write(practice.source().join("more"), noise(4, 100_000)).unwrap();
    let second = snapshot_with(&practice, &writer).await;
    assert!(second.bytes_added > 0 && second.bytes_added < 1 << 20, "{}", second.bytes_added);
    restores(&practice, &open, second.id).await.unwrap();

    // The old open key still reads what was sealed before, and names why it reads no more.
    let refused = restores(&practice, &old.open, second.id).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Misconfigured);
    assert!(refused.to_string().contains("epoch 2") && refused.to_string().contains("keys rotate"), "{refused}");

    let uses = epochs(env, &open, &stores[0]).await.unwrap();
    let numbers: Vec<u32> = uses.iter().map(|used| used.epoch).collect();
    assert_eq!(numbers, [1, 2]);
    assert!(uses.iter().all(|used| used.packs > 0 && used.since_unix_ms.is_some()));
    let packs = practice.objects("store-0").into_iter().filter(|(name, _)| name.starts_with("packs/"));
    let bytes: u64 = packs.map(|(_, path)| fs::metadata(path).unwrap().len()).sum();
    assert_eq!(uses.iter().map(|used| used.bytes).sum::<u64>(), bytes, "every byte belongs to an epoch");

    // A writer that did not get its new credential goes on, sealed to the epoch that it knows.
    fs::remove_dir_all(practice.state()).unwrap();
    fs::write(practice.source().join("late"), b"late").unwrap();
    let late = snapshot_with(&practice, &old.writer).await;
    restores(&practice, &open, late.id).await.unwrap();
    let checked = verify(env, &open, &stores[0], VerifyRequest { read_data: true, snapshot: None }, &NoProgress).await;
    assert!(checked.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_that_breaks_off_loses_nothing_and_may_be_tried_again() {
    for lands in [false, true] {
        let practice = Practice::new(2).await;
        let (env, stores) = (&practice.env, &practice.stores);
        fill(&practice.source());
        let crash = FaultStore::new(Arc::clone(&stores[1].store), Fault::CrashAtPut { n: 0, lands });
        let broken = [stores[0].clone(), NamedStore::new("store-1", Arc::new(crash), true)];
        let refused = rotate(env, &broken, &paper(&practice)).await.err().unwrap();
        assert!(refused.to_string().contains("go on working"), "{refused}");
        // Between the keyring and the credentials: the old files work at both stores.
        let old = snapshot_with(&practice, &practice.made.writer).await;
        assert!(old.stores.iter().all(|store| store.durable));
        restores(&practice, &practice.made.open, old.id).await.unwrap();
        let rotated = rotate(env, stores, &paper(&practice)).await.unwrap();
        let writer = rotated.renew(&practice.made.writer).unwrap();
        fs::write(practice.source().join("new"), b"new").unwrap();
        let new = snapshot_with(&practice, &writer).await;
        for (store, id) in [(0, old.id), (1, new.id)] {
            let open = unlock(env, &stores[store], &paper(&practice)).await.unwrap();
            let into = practice.dir.path().join(format!("again-{id}"));
            let request = RestoreRequest { into, ..RestoreRequest::default() };
            restore(env, &open, &stores[store], id, request, &NoProgress).await.unwrap();
        }
    }
    // A store that does not answer stops a rotation before anything is written.
    let practice = Practice::new(2).await;
    let dead = FaultStore::new(Arc::clone(&practice.stores[1].store), Fault::Dead);
    let stores = [practice.stores[0].clone(), NamedStore::new("store-1", Arc::new(dead), true)];
    let before = practice.objects("store-0");
    let refused = rotate(&practice.env, &stores, &paper(&practice)).await.err().unwrap();
    assert!(refused.to_string().contains("every store must answer") && practice.objects("store-0") == before);
}

/// Writes a further keyring with these flags.
async fn flag(practice: &Practice, features: Features) {
    let (secrets, number, slots) = secrets(practice).await;
    let bytes = seal(&mut practice.env.rng(), &secrets, number + 1, features, &slots).unwrap();
    let name = format!("keyring/{:016x}-{}", number + 1, ObjectHash::of(&bytes));
    practice.stores[0].store.put(&name, bytes.into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reader_writer_and_check_each_stop_at_their_unknown_feature_and_call_nothing_damaged() {
    let practice = Practice::new(1).await;
    let (env, store) = (&practice.env, &practice.stores[0]);
    fill(&practice.source());
    let id = snapshot_with(&practice, &practice.made.writer).await.id;
    let check = VerifyRequest::default;
    let open = &practice.made.open;
    let file = UnlockWith::OpenKeyFile(open.to_bytes());
    for (features, reads, writes, checks) in [
        (Features { read: 0, write: 1 << 5, check: 0 }, true, false, true),
        (Features { read: 0, write: 0, check: 1 << 6 }, true, true, false),
        (Features { read: 1 << 7, write: 0, check: 0 }, false, false, false),
    ] {
        flag(&practice, features).await;
        let says = |what: &str, error: Option<backup_engine::Error>, allowed: bool| match error {
            None => assert!(allowed, "{what}"),
            Some(error) => {
                assert!(!allowed && error.kind() == ErrorKind::Misconfigured, "{what}: {error}");
                let text = error.to_string();
                assert!(text.contains(" feature ") && text.contains("nothing is damaged"), "{what}: {text}");
            }
        };
        settle().await;
        let request = practice.request(1);
        let taken = snapshot(env, &practice.made.writer, &practice.stores, request, &NoProgress).await;
        says("write", taken.err(), writes);
        let copied = replicate(env, &practice.made.writer, &practice.stores, None).await;
        says("replicate", copied.err(), writes);
        says("read", restores(&practice, open, id).await.err(), reads);
        says("unlock", unlock(env, store, &file).await.err(), reads);
        says("unlock", unlock(env, store, &paper(&practice)).await.err(), reads);
        says("check", verify(env, open, store, check(), &NoProgress).await.err(), checks);
        let rotated = rotate(env, &practice.stores, &paper(&practice)).await;
        says("rotate", rotated.err(), writes);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_keyring_stops_nobody_who_holds_a_key() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    let first = snapshot_with(&practice, &practice.made.writer).await;
    // What a store could make up: another authority's keyring with the highest number, and noise.
    let (secrets, _, slots) = secrets(&practice).await;
    let mut bytes =
        seal(&mut practice.env.rng(), &secrets, u64::MAX, Features { write: 1, ..Features::default() }, &slots)
            .unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    for bytes in [bytes, b"noise".to_vec()] {
        let name = format!("keyring/{:016x}-{}", u64::MAX, ObjectHash::of(&bytes));
        practice.stores[0].store.put(&name, bytes.into()).await.unwrap();
    }
    let second = snapshot_with(&practice, &practice.made.writer).await;
    restores(&practice, &practice.made.open, first.id).await.unwrap();
    assert_eq!(second.counter, 2);
    let in_force = signed_keyring(practice.made.open.catalog(), &practice.stores).await.unwrap();
    assert_eq!(in_force, practice.made.keyring, "the stores' word is not taken for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_keyring_is_not_handed_on_to_the_other_stores() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    snapshot_with(&practice, &practice.made.writer).await;
    let forged = b"what one store made up".to_vec();
    let name = format!("keyring/{:016x}-{}", 7, ObjectHash::of(&forged));
    practice.stores[0].store.put(&name, forged.into()).await.unwrap();
    snapshot_with(&practice, &practice.made.writer).await;
    let keyrings = |store| practice.objects(store).keys().filter(|name| name.starts_with("keyring/")).count();
    assert_eq!((keyrings("store-0"), keyrings("store-1")), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_link_is_an_alarm_unless_a_pruner_signed_for_it() {
    let practice = Practice::new(1).await;
    let (env, store, open) = (&practice.env, &practice.stores[0], &practice.made.open);
    fill(&practice.source());
    for _ in 0..3 {
        snapshot_with(&practice, &practice.made.writer).await;
    }
    let look = || async { heads(env, open.catalog(), &practice.stores).await.unwrap().gaps };
    assert_eq!(look().await, []);
    let objects = practice.objects("store-0");
    let second =
        objects.keys().filter_map(|name| name.parse::<HeadName>().ok()).find(|name| name.counter == 2).unwrap();
    let path = &objects[&second.to_string()];
    let head = Head::open(&fs::read(path).unwrap(), open.catalog()).unwrap();
    fs::remove_file(path).unwrap();
    let gaps = look().await;
    assert_eq!(gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>(), [(2, 2)]);
    let checked = verify(env, open, store, VerifyRequest::default(), &NoProgress).await.unwrap();
    assert_eq!(checked.missing, [gaps[0].to_string()]);
    let (mine, ..) = secrets(&practice).await;
    let other = RepositorySecrets::generate(&mut env.rng(), 0);
    let stone = |hash, pruner: &PrunerCredential| {
        let tombstone = Tombstone {
            source: head.source,
            incarnation: head.incarnation,
            first: head.counter,
            last: head.counter,
            head: hash,
            snapshot: head.snapshot,
            plan: [1; 32],
            time_unix_ms: 0,
            reason: TombstoneReason::Retention,
        };
        let bytes = tombstone.sign(pruner).unwrap();
        (tombstone.name(&bytes).to_string(), bytes)
    };
    let pruner = PrunerCredential::issue(&mut env.rng(), &mine);
    let foreign = PrunerCredential::issue(&mut env.rng(), &other);
    for (name, bytes) in [stone(second.hash, &foreign), stone(ObjectHash([9; 32]), &pruner)] {
        store.store.put(&name, bytes.into()).await.unwrap();
        assert_eq!(look().await, gaps, "another repository's pruner, or another head, fills nothing");
    }
    let (name, bytes) = stone(second.hash, &pruner);
    store.store.put(&name, bytes.into()).await.unwrap();
    assert_eq!(look().await, []);
    assert!(verify(env, open, store, VerifyRequest::default(), &NoProgress).await.unwrap().is_ok());
}
