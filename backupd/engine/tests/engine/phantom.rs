//! A store that lists what it does not give back: it alone has it damaged, and the others lack nothing.

use crate::practice::{Practice, fill};
use backup_engine::{
    Env, ListedObject, MaintenanceStore, NamedMaintenanceStore, NamedStore, NoProgress, Result, ScrubRequest, Stop,
    Store, StoreLimits, StoreLocation, doubts, heal, list_all, losses, replicate, scrub, snapshot,
};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The fault model: while it lies, the listing shows one more object.
struct Phantom {
    inner: Arc<dyn Store>,
    name: String,
    lies: AtomicBool,
}

impl Store for Phantom {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.inner.put(name, bytes)
    }
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get(name)
    }
    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get_range(name, range)
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        async move {
            let mut listed = self.inner.list(prefix).await?;
            if self.lies.load(Ordering::SeqCst) && self.name.starts_with(prefix) {
                listed.push(ListedObject { name: self.name.clone(), size: 65536, modified_unix_ms: Some(1) });
                listed.sort();
            }
            Ok(listed)
        }
        .boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_store_lists_and_does_not_have_holds_back_no_other() {
    for kind in ["snapshots/", "index/", "packs/ab/", "keyring/0000000000000009-"] {
        let practice = Practice::new(3).await;
        fill(&practice.source());
        let first = practice.snapshot().await;
        let name = format!("{kind}{}", "ab".repeat(32));
        let inner = Arc::clone(&practice.stores[2].store);
        let liar = Arc::new(Phantom { inner, name: name.clone(), lies: AtomicBool::new(true) });
        let mut stores = practice.stores.clone();
        stores[2] = NamedStore::new("store-2", Arc::clone(&liar) as Arc<dyn Store>, true);
        for _ in 0..2 {
            let request = practice.request(2);
            let taken = snapshot(&practice.env, &practice.made.writer, &stores, request, &NoProgress).await.unwrap();
            assert!(taken.durable && taken.stores[0].durable && taken.stores[1].durable, "{kind}: {:?}", taken.stores);
        }
        let look =
            async || replicate(&practice.env, &practice.made.writer, &stores, Some(&practice.state())).await.unwrap();
        let done = look().await;
        assert!(done[0].complete && done[1].complete, "{kind}: {done:?}");
        let known = || doubts(&practice.env, &practice.state(), ["store-0", "store-2"].into_iter()).unwrap();
        assert!(!known().marks.contains_key("store-0"), "{kind}: nothing is damaged there");
        liar.lies.store(false, Ordering::SeqCst);
        let done = look().await;
        assert!(done.iter().all(|store| store.complete), "{kind}: {done:?}");
        assert!(known().marks.is_empty() && known().gone.is_empty(), "{kind}: {:?}", known());
        assert_eq!(losses(&practice.env, &practice.state()).unwrap(), BTreeMap::new(), "{kind}");
        practice.restore_from(&practice.stores[2], first.id).await;
    }
}

impl MaintenanceStore for Phantom {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.inner.put(name, bytes)
    }
    fn delete<'a>(&'a self, _name: &'a str) -> BoxFuture<'a, Result<()>> {
        async { Ok(()) }.boxed()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_takes_it_for_the_damage_of_the_store_that_lists_it() {
    for kind in ["snapshots/", "index/", "packs/ab/"] {
        let practice = Practice::new(3).await;
        fill(&practice.source());
        practice.snapshot().await;
        let name = format!("{kind}{}", "ab".repeat(32));
        let inner = Arc::clone(&practice.stores[2].store);
        let liar = Arc::new(Phantom { inner, name: name.clone(), lies: AtomicBool::new(true) });
        let mut stores: Vec<NamedMaintenanceStore> = ["store-0", "store-1"]
            .map(|store| {
                let place = StoreLocation::Folder { path: practice.dir.path().join(store) };
                NamedMaintenanceStore::new(store, place.open_for_maintenance(StoreLimits::default()).unwrap(), true)
            })
            .into();
        stores.push(NamedMaintenanceStore::new("store-2", Arc::clone(&liar) as Arc<dyn MaintenanceStore>, true));
        let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
        let (env, clock) = Env::seeded(3, 1_795_000_000_000);
        let mut looks = 0;
        let mut look = async || {
            looks += 1;
            clock.set(1_795_000_000_000 + looks * 3_600_000);
            let request = ScrubRequest {
                state_dir: practice.dir.path().join("maintain"),
                max_age: Duration::from_secs(30 * 86_400),
                bytes_max: u64::MAX,
                time_max: Duration::from_secs(600),
                condemned: BTreeSet::new(),
                others: list_all(&plain).await,
                stop: Stop::default(),
            };
            let mut found = scrub(&env, &plain, &request, &NoProgress).await.unwrap();
            let done = heal(&env, &stores, &mut found, &request.state_dir).await.unwrap();
            let left: Vec<String> = done.left.into_iter().map(|(store, ..)| store).collect();
            let seen: Vec<(Vec<String>, Vec<String>)> =
                found.into_iter().map(|seen| (seen.missing, seen.corrupt)).collect();
            (seen, left)
        };
        for _ in 0..2 {
            let (seen, left) = look().await;
            assert!(
                seen[..2].iter().all(|(missing, corrupt)| missing.is_empty() && corrupt.is_empty()),
                "{kind}: {seen:?}"
            );
            assert_eq!(seen[2], (Vec::new(), vec![name.clone()]), "{kind}");
            assert_eq!(left, ["store-2"], "{kind}");
        }
        liar.lies.store(false, Ordering::SeqCst);
        let (seen, left) = look().await;
        assert!(seen.iter().all(|(missing, corrupt)| missing.is_empty() && corrupt.is_empty()), "{kind}: {seen:?}");
        assert!(left.is_empty());
    }
}
