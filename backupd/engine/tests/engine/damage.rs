//! Damage never blocks: what is damaged is found, never spreads, is healed where another store has it whole, and where none
//! has, the next snapshot does without it and is whole everywhere.

use crate::practice::{Practice, describe, fill, noise, settle};
use backup_engine::store::{Fault, FaultStore};
use backup_engine::{
    Error, ErrorKind, ListedObject, NamedStore, NoProgress, RestoreRequest, Result, SnapshotId, SnapshotOutcome, Store,
    VerifyRequest, heads, note_damage, replicate, restore, snapshot, verify, verify_keyless,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

/// A store whose credentials create, but do not overwrite.
struct CreateOnly(Arc<dyn Store>);

impl Store for CreateOnly {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match self.0.get(name).await {
                Ok(there) if there != bytes => Err(Error::new(ErrorKind::Denied, "this key may not overwrite")),
                _ => self.0.put(name, bytes).await,
            }
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        self.0.get(name)
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        self.0.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        self.0.list(prefix)
    }
}

fn create_only(store: &NamedStore) -> NamedStore {
    NamedStore::new(store.name.clone(), Arc::new(CreateOnly(Arc::clone(&store.store))), true)
}

fn dead(store: &NamedStore) -> NamedStore {
    NamedStore::new(store.name.clone(), Arc::new(FaultStore::new(Arc::clone(&store.store), Fault::Dead)), true)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_claims_to_be_huge_is_damaged_and_is_not_read_into_memory() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let done = practice.snapshot().await;
    for prefix in ["heads/", "index/", "snapshots/", "packs/", "keyring"] {
        let root = practice.dir.path().join("store-0");
        let name = practice.objects("store-0").into_keys().find(|name| name.starts_with(prefix)).unwrap();
        let whole = fs::read(root.join(&name)).unwrap();
        // Sparse: it takes no room on the disk, and would take all of the memory.
        fs::OpenOptions::new().write(true).open(root.join(&name)).unwrap().set_len(300 << 30).unwrap();
        let found = verify_keyless(&practice.env, &practice.stores[0], &NoProgress).await.unwrap();
        assert!(prefix == "keyring" || found.corrupt == [name.clone()], "{prefix}: {found:?}");
        let into = practice.dir.path().join("into");
        let request = RestoreRequest {
            into: into.clone(),
            others: vec![practice.stores[1].clone()],
            ..RestoreRequest::default()
        };
        let restored =
            restore(&practice.env, &practice.made.open, &practice.stores[0], done.id, request, &NoProgress).await;
        assert!(restored.is_ok(), "{prefix}: {restored:?}");
        fs::remove_dir_all(into).unwrap();
        fs::write(root.join(&name), whole).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_says_by_the_right_word_what_a_store_does_not_have_whole() {
    let practice = Practice::new(1).await;
    fs::write(practice.source().join("scan"), noise(1, 200_000)).unwrap();
    let done = practice.snapshot().await;
    let say = async || {
        let request = RestoreRequest { into: practice.dir.path().join("into"), ..RestoreRequest::default() };
        let (env, open) = (&practice.env, &practice.made.open);
        restore(env, open, &practice.stores[0], done.id, request, &NoProgress).await.unwrap_err().to_string()
    };
    for (name, path) in practice.objects("store-0").into_iter().filter(|(name, _)| name.starts_with("packs/")) {
        let whole = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let said = say().await;
        assert!(said.contains(&format!("{name} is missing")), "{said}");
        fs::write(&path, vec![7; whole.len()]).unwrap();
        let said = say().await;
        assert!(said.contains(&format!("{name} is corrupt")), "{said}");
        fs::write(&path, whole).unwrap();
        let _ = fs::remove_dir_all(practice.dir.path().join("into"));
    }
}

/// Empties a store: what a new provider gives.
fn empty(practice: &Practice, store: &str) {
    let root = practice.dir.path().join(store);
    fs::remove_dir_all(&root).unwrap();
    fs::create_dir(&root).unwrap();
}

async fn take(practice: &Practice, stores: &[NamedStore], quorum: u32) -> SnapshotOutcome {
    settle().await;
    let (env, writer) = (&practice.env, &practice.made.writer);
    snapshot(env, writer, stores, practice.request(quorum), &NoProgress).await.unwrap()
}

async fn is_whole_at(practice: &Practice, store: &NamedStore, id: SnapshotId) {
    let request = VerifyRequest { read_data: true, snapshot: Some(id) };
    let found = verify(&practice.env, &practice.made.open, store, request, &NoProgress).await.unwrap();
    assert!(found.is_ok(), "{}: {found:?}", store.name);
    let back = practice.restore_from(store, id).await;
    assert_eq!(describe(&back), describe(&practice.source()));
}

fn a_pack_of(practice: &Practice, store: &str) -> (String, std::path::PathBuf) {
    let largest = |(_, path): &(String, std::path::PathBuf)| fs::metadata(path).unwrap().len();
    let packs = practice.objects(store).into_iter().filter(|(name, _)| name.starts_with("packs/"));
    packs.max_by_key(largest).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_damaged_at_the_only_store_left_blocks_no_snapshot() {
    for quorum in [1, 2, 3] {
        let practice = Practice::new(3).await;
        fill(&practice.source());
        fs::write(practice.source().join("scan"), noise(9, 900_000)).unwrap();
        practice.snapshot().await;
        // A recovery from one store: its objects alone are left, all of its packs are damaged, and nobody knows.
        fs::remove_dir_all(practice.state()).unwrap();
        empty(&practice, "store-1");
        empty(&practice, "store-2");
        let mut damaged = 0;
        for (name, path) in practice.objects("store-0") {
            if name.starts_with("packs/") {
                flip(&path);
                damaged += 1;
            }
        }
        assert!(damaged >= 2);
        let next = take(&practice, &practice.stores, quorum).await;
        assert!(next.durable && next.stores.iter().all(|store| store.durable), "quorum {quorum}: {:?}", next.stores);
        for store in &practice.stores {
            is_whole_at(&practice, store, next.id).await;
        }
        for store in &practice.stores[1..] {
            let clean = verify_keyless(&practice.env, store, &NoProgress).await.unwrap();
            assert!(clean.is_ok(), "damage does not spread");
            let seen = heads(&practice.env, practice.made.writer.catalog(), std::slice::from_ref(store)).await.unwrap();
            assert!(seen.gaps.is_empty(), "the history goes with it");
        }
        let again = take(&practice, &practice.stores, 3).await;
        assert_eq!((again.bytes_added, again.stores.iter().all(|store| store.durable)), (0, true));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_of_any_object_but_the_keyring_blocks_no_snapshot() {
    for kind in ["packs/", "index/", "snapshots/", "heads/"] {
        let practice = Practice::new(2).await;
        fill(&practice.source());
        practice.snapshot().await;
        let (_, path) = practice.objects("store-0").into_iter().find(|(name, _)| name.starts_with(kind)).unwrap();
        flip(&path);
        empty(&practice, "store-1");
        fs::write(practice.source().join("new"), b"new").unwrap();
        let next = take(&practice, &practice.stores, 2).await;
        assert!(next.stores.iter().all(|store| store.durable), "{kind}: {:?}", next.stores);
        for store in &practice.stores {
            is_whole_at(&practice, store, next.id).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_heads_is_no_empty_store() {
    let practice = Practice::new(1).await;
    let look =
        || verify(&practice.env, &practice.made.open, &practice.stores[0], VerifyRequest::default(), &NoProgress);
    assert!(look().await.unwrap().is_ok(), "nothing was ever taken");
    fill(&practice.source());
    practice.snapshot().await;
    assert!(look().await.unwrap().is_ok());
    fs::remove_dir_all(practice.dir.path().join("store-0/heads")).unwrap();
    let found = look().await.unwrap();
    assert!(found.missing.iter().any(|name| name.starts_with("heads/")), "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_healed_from_another_store_and_then_forgotten() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let taken = practice.snapshot().await;
    let (env, writer) = (&practice.env, &practice.made.writer);
    let (name, path) = a_pack_of(&practice, "store-0");
    let whole = fs::read(&path).unwrap();
    flip(&path);
    note_damage(env, &practice.state(), "store-0", std::slice::from_ref(&name), &[]).unwrap();
    let state = practice.state();
    let done = replicate(env, writer, &practice.stores, Some(&state)).await.unwrap();
    assert_eq!((done[0].objects_healed, done[1].objects_healed), (1, 0));
    assert!(done.iter().all(|store| store.complete));
    assert_eq!(fs::read(&path).unwrap(), whole);
    let done = replicate(env, writer, &practice.stores, Some(&state)).await.unwrap();
    assert!(done.iter().all(|store| store.complete && store.objects_copied == 0));
    is_whole_at(&practice, &practice.stores[0], taken.id).await;

    // Somebody else heals it: a look is enough.
    flip(&path);
    note_damage(env, &practice.state(), "store-0", &[name], &[]).unwrap();
    fs::write(&path, &whole).unwrap();
    let done = replicate(env, writer, &practice.stores, Some(&state)).await.unwrap();
    assert!(done.iter().all(|store| store.complete && store.objects_copied == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_overwriting_is_refused_a_further_candidate_is_written_and_read() {
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let taken = practice.snapshot().await;
    let (env, writer, state) = (&practice.env, &practice.made.writer, practice.state());
    let objects = practice.objects("store-0");
    // Everything at once, and of each kind; a truncated one needs no note.
    for (name, path) in &objects {
        flip(path);
        note_damage(env, &state, "store-0", std::slice::from_ref(name), &[]).unwrap();
    }
    let (_, pack) = a_pack_of(&practice, "store-0");
    fs::write(&pack, b"short").unwrap();
    let stores = [create_only(&practice.stores[0]), practice.stores[1].clone()];
    let done = replicate(env, writer, &stores, Some(&state)).await.unwrap();
    assert!(done.iter().all(|store| store.complete), "{done:?}");
    assert_eq!(done[0].objects_healed as usize, objects.len());
    let now = practice.objects("store-0");
    assert_eq!(now.len(), 2 * objects.len());
    assert!(objects.keys().all(|name| now.contains_key(&format!("{name}.1"))));
    let keyless = verify_keyless(env, &stores[0], &NoProgress).await.unwrap();
    assert!(keyless.is_ok() && keyless.objects as usize == objects.len(), "{keyless:?}");
    is_whole_at(&practice, &stores[0], taken.id).await;
    let seen = heads(env, writer.catalog(), &stores).await.unwrap();
    assert!(seen.rejected.is_empty() && seen.snapshots[0].stores.len() == 2);
    // A writer that has lost its state takes them for held, and adds nothing.
    fs::remove_dir_all(&state).unwrap();
    let next = take(&practice, &stores, 2).await;
    assert!(next.stores.iter().all(|store| store.durable) && next.bytes_added == 0);
    // A candidate may be damaged in its turn.
    let candidate = format!("{}.1", objects.keys().find(|name| name.starts_with("packs/")).unwrap());
    flip(&now[&candidate]);
    let name = candidate.trim_end_matches(".1").to_owned();
    let keyless = verify_keyless(env, &stores[0], &NoProgress).await.unwrap();
    assert_eq!(keyless.corrupt, std::slice::from_ref(&name));
    note_damage(env, &state, "store-0", std::slice::from_ref(&name), &[]).unwrap();
    let done = replicate(env, writer, &stores, Some(&state)).await.unwrap();
    assert_eq!(done[0].objects_healed, 1);
    assert!(practice.objects("store-0").contains_key(&format!("{name}.2")));
    is_whole_at(&practice, &stores[0], next.id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn earlier_heads_wait_for_a_store_that_may_hold_what_the_others_lack() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    let old = practice.snapshot().await;
    let (name, path) = a_pack_of(&practice, "store-0");
    flip(&path);
    empty(&practice, "store-1");
    let stores = [practice.stores[0].clone(), practice.stores[1].clone(), dead(&practice.stores[2])];
    fs::write(practice.source().join("new"), b"new").unwrap();
    let next = take(&practice, &stores, 2).await;
    assert!(next.durable && next.stores[0].durable && next.stores[1].durable);
    is_whole_at(&practice, &stores[1], next.id).await;
    let heads_at = |store: &str| practice.objects(store).keys().filter(|name| name.starts_with("heads/")).count();
    assert_eq!(heads_at("store-1"), 1, "the old head would promise what this store does not hold");
    let (env, writer, state) = (&practice.env, &practice.made.writer, practice.state());
    let done = replicate(env, writer, &practice.stores, Some(&state)).await.unwrap();
    assert!(done.iter().all(|store| store.complete), "{done:?}");
    assert_eq!((done[0].objects_healed, heads_at("store-1")), (1, 2));
    assert!(practice.objects("store-1").contains_key(&name));
    for store in &practice.stores {
        let request = VerifyRequest { read_data: true, snapshot: Some(old.id) };
        assert!(verify(env, &practice.made.open, store, request, &NoProgress).await.unwrap().is_ok());
        is_whole_at(&practice, store, next.id).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_falls_back_on_others_object_by_object() {
    let practice = Practice::new(3).await;
    fill(&practice.source());
    fs::write(practice.source().join("scan"), noise(9, 3_000_000)).unwrap();
    let taken = practice.snapshot().await;
    let into = practice.dir.path().join("back");
    let restored = async |stores: &[NamedStore]| {
        let _ = fs::remove_dir_all(&into);
        let request = RestoreRequest { into: into.clone(), others: stores[1..].to_vec(), ..RestoreRequest::default() };
        restore(&practice.env, &practice.made.open, &stores[0], taken.id, request, &NoProgress).await
    };
    // Each object is whole at one store only.
    let names: Vec<String> = practice.objects("store-0").into_keys().collect();
    for (at, name) in names.iter().enumerate() {
        for store in (0..3).filter(|store| at % 3 != *store) {
            flip(&practice.objects(&format!("store-{store}"))[name]);
        }
    }
    restored(&practice.stores).await.unwrap();
    assert_eq!(describe(&into.join("files")), describe(&practice.source()));
    let alone = restored(&practice.stores[..1]).await;
    assert_eq!(alone.unwrap_err().kind(), ErrorKind::Damaged);
    // One that does not answer, for a start.
    let practice = Practice::new(2).await;
    fill(&practice.source());
    let taken = practice.snapshot().await;
    let into = practice.dir.path().join("back");
    let request = RestoreRequest { into: into.clone(), others: practice.stores[1..].to_vec(), ..Default::default() };
    let first = dead(&practice.stores[0]);
    restore(&practice.env, &practice.made.open, &first, taken.id, request, &NoProgress).await.unwrap();
    assert_eq!(describe(&into.join("files")), describe(&practice.source()));
}

/// Spoils the first download of each object.
struct SpoilsOnce(Arc<dyn Store>, std::sync::Mutex<std::collections::BTreeSet<String>>);

impl Store for SpoilsOnce {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.0.put(name, bytes)
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let bytes = self.0.get(name).await?;
            let first = self.1.lock().unwrap().insert(name.to_owned());
            Ok(if first { bytes.slice(..bytes.len() / 2) } else { bytes })
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        self.0.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        self.0.list(prefix)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_download_is_no_damage() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    practice.snapshot().await;
    let spoils = SpoilsOnce(Arc::clone(&practice.stores[0].store), std::sync::Mutex::default());
    let line = NamedStore::new("store-0", Arc::new(spoils), true);
    fs::create_dir(practice.dir.path().join("new")).unwrap();
    let stores = [line, crate::practice::folder_store(practice.dir.path(), "new")];
    let done = replicate(&practice.env, &practice.made.writer, &stores, Some(&practice.state())).await.unwrap();
    assert!(done.iter().all(|store| store.complete && store.objects_healed == 0), "{done:?}");
    assert_eq!(practice.objects("new").len(), practice.objects("store-0").len());
    assert!(!practice.state().join("files/damage").exists(), "nothing is noted as damaged");
}
