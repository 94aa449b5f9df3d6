//! Scrub with memory and budget, and heal, over real folders.

use crate::practice::{Practice, fill, noise};
use backup_engine::{
    Env, ErrorKind, HealedBy, Listings, MaintenanceStore, NamedMaintenanceStore, NamedStore, NoProgress, ScrubRequest,
    Stop, Store, StoreLimits, StoreLocation, StoreScrub, heal, list_all, scrub, snapshot, verify_keyless,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const DAY: i64 = 86_400_000;
const NOW: i64 = 1_795_000_000_000;

fn request(practice: &Practice) -> ScrubRequest {
    ScrubRequest {
        state_dir: practice.dir.path().join("maintain"),
        max_age: Duration::from_secs(30 * 86_400),
        bytes_max: u64::MAX,
        time_max: Duration::from_secs(600),
        condemned: BTreeSet::new(),
        others: Listings::default(),
        stop: Stop::default(),
    }
}

fn for_maintenance(practice: &Practice) -> Vec<NamedMaintenanceStore> {
    let open = |store: &NamedStore| {
        let place = StoreLocation::Folder { path: practice.dir.path().join(&store.name) };
        let opened = place.open_for_maintenance(StoreLimits::default()).unwrap();
        NamedMaintenanceStore::new(store.name.clone(), opened, true)
    };
    practice.stores.iter().map(open).collect()
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

async fn look(env: &Env, practice: &Practice, request: &ScrubRequest) -> Vec<StoreScrub> {
    scrub(env, &practice.stores, request, &NoProgress).await.unwrap()
}

async fn filled(stores: usize) -> Practice {
    let practice = Practice::new(stores).await;
    fill(&practice.source());
    for at in 0..4 {
        fs::write(practice.source().join(format!("scan-{at}")), noise(at, 1_000_000)).unwrap();
        practice.snapshot().await;
    }
    practice
}

#[tokio::test(flavor = "multi_thread")]
async fn a_round_takes_max_age_begins_with_the_least_recent_and_survives_restarts() {
    let practice = filled(1).await;
    let (env, clock) = Env::seeded(3, NOW);
    let all = practice.objects("store-0").len() as u64;
    let mut request = request(&practice);
    let first = look(&env, &practice, &request).await.remove(0);
    assert!(first.checked >= 1 && first.checked < all / 2, "a day's part of 30: {} of {all}", first.checked);
    assert_eq!((first.objects, first.verified_since_unix_ms, first.overdue), (all, None, 0));
    let (mut checked, mut days) = (first.checked, 0);
    loop {
        days += 1;
        clock.set(NOW + days * DAY);
        let seen = look(&env, &practice, &request).await.remove(0);
        checked += seen.checked;
        if let Some(since) = seen.verified_since_unix_ms {
            assert!(
                since >= NOW && (all..all * 3 / 2).contains(&checked) && days > 5,
                "{since} {checked} {all} {days}"
            );
            break;
        }
        assert!(days < 30, "{checked} of {all}");
    }
    // Nobody came for two months: all is overdue, and read as far as the budget lets it.
    clock.set(NOW + 90 * DAY);
    request.bytes_max = 5_000_000;
    let seen = look(&env, &practice, &request).await.remove(0);
    assert!(seen.overdue > 0 && seen.bytes_read <= 5_000_000 && seen.checked > 0, "{seen:?}");
    request.bytes_max = u64::MAX;
    let seen = look(&env, &practice, &request).await.remove(0);
    assert_eq!((seen.overdue, seen.verified_since_unix_ms), (0, Some(NOW + 90 * DAY)));
    // A lost memory costs a round, nothing else.
    fs::remove_dir_all(&request.state_dir).unwrap();
    let seen = look(&env, &practice, &request).await.remove(0);
    assert!(seen.checked < all / 2 && seen.missing.is_empty() && seen.verified_since_unix_ms.is_none());
    clock.set(NOW + 150 * DAY);
    request.stop.stop();
    assert_eq!(look(&env, &practice, &request).await.remove(0).checked, 1, "a stop ends it after an object");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_and_missing_objects_come_back_from_another_store() {
    let practice = filled(3).await;
    let (env, clock) = Env::seeded(3, NOW);
    let request = ScrubRequest { max_age: Duration::from_millis(1), ..request(&practice) };
    assert!(look(&env, &practice, &request).await.iter().all(|seen| seen.corrupt.is_empty()));
    let objects = practice.objects("store-0");
    let names: Vec<&String> = objects.keys().collect();
    let (mut corrupt, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for (at, name) in names.iter().enumerate() {
        match at % 3 {
            0 => {
                flip(&objects[*name]);
                corrupt.insert((*name).clone());
            }
            1 => {
                fs::remove_file(&objects[*name]).unwrap();
                missing.insert((*name).clone());
            }
            _ => {}
        }
    }
    // One is damaged at two stores, one is lost at all.
    let twice = corrupt.first().unwrap().clone();
    flip(&practice.objects("store-1")[&twice]);
    let lost = corrupt.last().unwrap().clone();
    flip(&practice.objects("store-1")[&lost]);
    flip(&practice.objects("store-2")[&lost]);
    clock.set(NOW + DAY);
    let mut found = look(&env, &practice, &request).await;
    assert_eq!(found[0].corrupt.iter().cloned().collect::<BTreeSet<_>>(), corrupt);
    assert_eq!(found[0].missing.iter().cloned().collect::<BTreeSet<_>>(), missing);
    assert_eq!((found[1].corrupt.len(), found[2].corrupt.len()), (2, 1));
    let done = heal(&env, &for_maintenance(&practice), &mut found, &request.state_dir).await.unwrap();
    assert_eq!(done.healed.len(), corrupt.len() - 1 + missing.len() + 1);
    assert!(
        done.healed.iter().all(
            |healed| healed.by == if missing.contains(&healed.object) { HealedBy::Put } else { HealedBy::Replaced }
        )
    );
    let first = done.healed.iter().find(|healed| healed.object == twice && healed.store == "store-0").unwrap();
    assert_eq!(first.from, "store-2", "the other copy is damaged as well");
    assert!(done.left.iter().all(|(_, name, error)| *name == lost && error.kind() == ErrorKind::Damaged));
    assert_eq!(done.left.len(), 3);
    for store in &practice.stores {
        let whole = verify_keyless(&practice.env, store, &NoProgress).await.unwrap();
        assert_eq!((whole.corrupt.as_slice(), whole.missing.len()), (std::slice::from_ref(&lost), 0));
    }
    // What is left is looked at first in the next run, and is told until it is whole.
    clock.set(NOW + DAY + 1);
    let patient = ScrubRequest { max_age: Duration::from_secs(30 * 86_400), ..request };
    let found = look(&env, &practice, &patient).await;
    assert!(found.iter().all(|seen| seen.corrupt == std::slice::from_ref(&lost)), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plan_condemned_is_not_missing() {
    let practice = filled(2).await;
    let (env, _clock) = Env::seeded(3, NOW);
    let mut request = request(&practice);
    look(&env, &practice, &request).await;
    let (name, path) = practice.objects("store-0").into_iter().find(|(name, _)| name.starts_with("packs/")).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(look(&env, &practice, &request).await[0].missing, std::slice::from_ref(&name));
    request.condemned.insert(name);
    assert!(look(&env, &practice, &request).await[0].missing.is_empty());
    request.condemned.clear();
    assert!(look(&env, &practice, &request).await[0].missing.is_empty(), "it is forgotten");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_others_hold_is_missing_where_it_was_never_seen_and_what_comes_later_is_not() {
    let practice = filled(3).await;
    let (env, _clock) = Env::seeded(3, NOW);
    // Nobody has looked before: no memory tells what was there.
    for name in practice.objects("store-0").into_iter().filter(|(name, _)| !name.starts_with("keyring/")) {
        fs::remove_file(&name.1).unwrap();
        let request = ScrubRequest { others: list_all(&practice.stores).await, ..request(&practice) };
        let newest_head = name.0.starts_with("heads/") && name.0.contains("/0000000000000004-");
        let mut found = look(&env, &practice, &request).await;
        let expected = if newest_head { Vec::new() } else { vec![name.0.clone()] };
        assert_eq!((&found[0].missing, found[0].late), (&expected, newest_head), "{}", name.0);
        assert!(found[1..].iter().all(|seen| seen.missing.is_empty() && !seen.late), "{found:?}");
        let done = heal(&env, &for_maintenance(&practice), &mut found, &request.state_dir).await.unwrap();
        assert!(done.left.is_empty() && done.healed.iter().all(|healed| healed.by == HealedBy::Put));
        if newest_head {
            fs::copy(practice.dir.path().join("store-1").join(&name.0), &name.1).unwrap();
        }
        fs::remove_dir_all(&request.state_dir).unwrap();
    }
    // A store that a snapshot has not reached yet is late and misses nothing.
    fs::write(practice.source().join("new"), noise(9, 400_000)).unwrap();
    let two = snapshot(&practice.env, &practice.made.writer, &practice.stores[1..], practice.request(2), &NoProgress);
    assert!(two.await.unwrap().durable);
    let request = ScrubRequest { others: list_all(&practice.stores).await, ..request(&practice) };
    let found = look(&env, &practice, &request).await;
    assert_eq!((found[0].missing.len(), found[0].late), (0, true), "{:?}", found[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_no_index_names_is_missing_nowhere_where_a_key_can_tell() {
    let practice = filled(3).await;
    let (env, _clock) = Env::seeded(3, NOW);
    let left = noise(77, 70_000);
    let hash = blake3::hash(&left).to_hex().to_string();
    let name = format!("packs/{}/{hash}", &hash[..2]);
    let path = practice.dir.path().join("store-1").join(&name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, &left).unwrap();
    // It came before the newest head.
    fs::File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).unwrap();
    let (lost, at) = practice.objects("store-0").into_iter().find(|(name, _)| name.starts_with("packs/")).unwrap();
    fs::remove_file(at).unwrap();
    let others = list_all(&practice.stores).await;
    assert!(others.packs_differ());
    let missing = |found: Vec<StoreScrub>| -> Vec<BTreeSet<String>> {
        found.into_iter().map(|seen| seen.missing.into_iter().collect()).collect()
    };
    let keyless = ScrubRequest { others: others.clone(), ..request(&practice) };
    let both = BTreeSet::from([lost.clone(), name.clone()]);
    let expected = [both, BTreeSet::new(), BTreeSet::from([name.clone()])];
    assert_eq!(missing(look(&env, &practice, &keyless).await), expected);
    let catalog = practice.made.open.catalog();
    let unnamed = backup_engine::unnamed_packs(&env, catalog, &practice.stores, &keyless.state_dir).await.unwrap();
    assert_eq!(unnamed, BTreeSet::from([name]));
    let with_key = ScrubRequest { others: others.without(&unnamed), ..request(&practice) };
    let found = missing(look(&env, &practice, &with_key).await);
    assert_eq!(found, [BTreeSet::from([lost]), BTreeSet::new(), BTreeSet::new()]);
    // An index that cannot be read might name it.
    for store in ["store-0", "store-1", "store-2"] {
        let all = practice.objects(store);
        flip(all.iter().find(|(name, _)| name.starts_with("index/")).map(|(_, path)| path).unwrap());
    }
    fs::remove_dir_all(&keyless.state_dir).unwrap();
    let unnamed = backup_engine::unnamed_packs(&env, catalog, &practice.stores, &keyless.state_dir).await.unwrap();
    assert!(unnamed.is_empty());
}

/// Locked: what stands can be neither written over nor deleted.
struct Locked(Arc<dyn MaintenanceStore>);

impl Store for Locked {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, backup_engine::Result<()>> {
        self.0.put(name, bytes)
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        self.0.get(name)
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        self.0.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, backup_engine::Result<Vec<backup_engine::ListedObject>>> {
        self.0.list(prefix)
    }
}

impl MaintenanceStore for Locked {
    fn replace<'a>(&'a self, _: &'a str, _: Bytes) -> BoxFuture<'a, backup_engine::Result<()>> {
        Box::pin(async { Err(backup_engine::Error::new(ErrorKind::Denied, "locked")) })
    }

    fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, backup_engine::Result<()>> {
        Box::pin(async { Err(backup_engine::Error::new(ErrorKind::Denied, "locked")) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn at_a_locked_store_a_candidate_is_written() {
    let practice = filled(2).await;
    let (env, clock) = Env::seeded(3, NOW);
    let request = ScrubRequest { max_age: Duration::from_millis(1), ..request(&practice) };
    let (name, path) = practice.objects("store-0").into_iter().find(|(name, _)| name.starts_with("packs/")).unwrap();
    flip(&path);
    clock.set(NOW + DAY);
    let mut found = look(&env, &practice, &request).await;
    let mut stores = for_maintenance(&practice);
    stores[0].store = Arc::new(Locked(Arc::clone(&stores[0].store)));
    let done = heal(&env, &stores, &mut found, &request.state_dir).await.unwrap();
    assert_eq!((done.healed.len(), done.healed[0].by), (1, HealedBy::Candidate));
    assert!(practice.objects("store-0").contains_key(&format!("{name}.1")));
    clock.set(NOW + 2 * DAY);
    let found = look(&env, &practice, &request).await;
    assert!(found[0].corrupt.is_empty() && found[0].missing.is_empty());
}
