//! Prune where a store keeps some kind of object under a lock for longer than the order wants.

use crate::prune::{Pruning, last};
use backup_engine::store::MaintenanceStore;
use backup_engine::{ErrorKind, NamedMaintenanceStore, condemned_objects, doubts, losses};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeSet;
use std::sync::Arc;

/// A store that deletes nothing at all.
const ALL: &str = "all";

/// A store that keeps what begins so under a lock; plans go unless it is [`ALL`].
struct Locked(Arc<dyn MaintenanceStore>, &'static str);

impl backup_engine::Store for Locked {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, backup_engine::Result<()>> {
        self.0.put(name, bytes)
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        self.0.get(name)
    }

    fn get_range<'a>(
        &'a self,
        name: &'a str,
        range: std::ops::Range<u64>,
    ) -> BoxFuture<'a, backup_engine::Result<Bytes>> {
        self.0.get_range(name, range)
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, backup_engine::Result<Vec<backup_engine::ListedObject>>> {
        self.0.list(prefix)
    }
}

impl MaintenanceStore for Locked {
    fn replace<'a>(&'a self, _name: &'a str, _bytes: Bytes) -> BoxFuture<'a, backup_engine::Result<()>> {
        Box::pin(async { Err(backup_engine::Error::new(ErrorKind::Denied, "it is locked")) })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, backup_engine::Result<()>> {
        if self.1 != ALL && (name.starts_with("condemned/") || !name.starts_with(self.1)) {
            return self.0.delete(name);
        }
        Box::pin(async { Err(backup_engine::Error::new(ErrorKind::Denied, "it is locked")) })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lock_keeps_is_counted_and_tried_again() {
    let pruning = Pruning::new(2).await;
    pruning.history(3).await;
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    pruning.practice.snapshot().await;
    let locked: Arc<dyn MaintenanceStore> = Arc::new(Locked(Arc::clone(&pruning.stores[1].store), ""));
    let stores = [pruning.stores[0].clone(), NamedMaintenanceStore::new("store-1", locked, true)];
    let execution = pruning.try_execute(&stores, &request).await.unwrap();
    let done = &execution.stores[1];
    assert!(done.error.is_none() && done.locked > 4 && done.locked_bytes > 0, "{done:?}");
    // The heads are locked too, and count no longer.
    assert_eq!(pruning.snapshots().await.len(), 2);
    pruning.practice.snapshot().await;
    pruning.assert_whole().await;
    // A further plan takes over what is left.
    pruning.try_announce(&stores, &request).await.unwrap().unwrap();
    pruning.practice.snapshot().await;
    pruning.try_execute(&stores, &request).await.unwrap();
    assert_eq!(pruning.snapshots().await.len(), 2 + 1 - 1 + 1 - 1);
    // The lock ends.
    pruning.execute(&request).await;
    pruning.assert_whole().await;
    assert_eq!(pruning.count("store-0", "packs/"), pruning.count("store-1", "packs/"));
    assert_eq!(pruning.count("store-0", "heads/"), pruning.count("store-1", "heads/"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_locked_longer_than_its_snapshot_stops_no_later_prune() {
    let pruning = Pruning::new(1).await;
    pruning.history(3).await;
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    pruning.practice.snapshot().await;
    let locked: Arc<dyn MaintenanceStore> = Arc::new(Locked(Arc::clone(&pruning.stores[0].store), "heads/"));
    let stores = [NamedMaintenanceStore::new("store-0", locked, true)];
    for _ in 0..2 {
        let execution = pruning.try_execute(&stores, &request).await.unwrap();
        assert_eq!(execution.stores[0].locked, 2, "their snapshots are gone, the heads stay and are tried again");
        assert_eq!((pruning.count("store-0", "heads/"), pruning.count("store-0", "snapshots/")), (4, 2));
    }
    // The next plan takes over what is left.
    pruning.practice.snapshot().await;
    pruning.try_announce(&stores, &request).await.unwrap().unwrap();
    pruning.practice.snapshot().await;
    assert!(pruning.try_execute(&stores, &request).await.unwrap().stores[0].locked >= 2);
    pruning.execute(&request).await;
    pruning.assert_whole().await;
    assert_eq!(pruning.count("store-0", "heads/"), pruning.snapshots().await.len(), "the lock has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_that_is_locked_longer_than_its_head_is_named_by_every_later_order() {
    let pruning = Pruning::new(2).await;
    pruning.history(3).await;
    let request = last(1);
    pruning.announce(&request).await.unwrap();
    pruning.practice.snapshot().await;
    let locked: Arc<dyn MaintenanceStore> = Arc::new(Locked(Arc::clone(&pruning.stores[1].store), "snapshots/"));
    let stores = [pruning.stores[0].clone(), NamedMaintenanceStore::new("store-1", locked, true)];
    let all: BTreeSet<String> = pruning.practice.objects("store-1").into_keys().collect();
    assert_eq!(pruning.try_execute(&stores, &request).await.unwrap().stores[1].locked, 2);
    let catalog = pruning.practice.made.open.catalog();
    let condemned = || async { condemned_objects(catalog, &pruning.practice.stores).await.unwrap() };
    let there = |name: &&String| name.starts_with("snapshots/") && all.contains(*name);
    let left: Vec<String> = condemned().await.iter().filter(there).cloned().collect();
    assert_eq!(left.len(), 2);
    for _ in 0..2 {
        pruning.practice.snapshot().await;
        pruning.try_announce(&stores, &request).await.unwrap().unwrap();
        pruning.practice.snapshot().await;
        pruning.try_execute(&stores, &request).await.unwrap();
        let named = condemned().await;
        assert!(left.iter().all(|name| named.contains(name)), "scrub would miss them, and locks would go on for ever");
        assert!(left.iter().all(|name| !pruning.practice.objects("store-0").contains_key(name)), "none comes back");
    }
    pruning.execute(&request).await;
    let there = pruning.practice.objects("store-1");
    assert!(left.iter().all(|name| !there.contains_key(name)), "the lock has ended");
    assert_eq!(pruning.count("store-1", "snapshots/"), pruning.snapshots().await.len());
    pruning.assert_whole().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_deletes_nothing_makes_the_others_miss_nothing() {
    let pruning = Pruning::new(2).await;
    pruning.history(4).await;
    let locked: Arc<dyn MaintenanceStore> = Arc::new(Locked(Arc::clone(&pruning.stores[1].store), ALL));
    let stores = [pruning.stores[0].clone(), NamedMaintenanceStore::new("store-1", locked, true)];
    let practice = &pruning.practice;
    for _ in 0..2 {
        pruning.try_announce(&stores, &last(1)).await.unwrap().unwrap();
        practice.snapshot().await;
        let done = pruning.try_execute(&stores, &last(1)).await.unwrap();
        assert!(done.stores[0].is_done() && done.stores[1].locked > 0, "{done:?}");
        let plans = || pruning.count("store-0", "condemned/");
        let after = plans();
        practice.snapshot().await;
        assert!(losses(&practice.env, &practice.state()).unwrap().is_empty());
        assert!(doubts(&practice.env, &practice.state(), ["store-0"].into_iter()).unwrap().gone.is_empty());
        assert_eq!(plans(), after, "nobody brings an older plan back");
    }
    pruning.execute(&last(1)).await;
    pruning.assert_whole().await;
}
