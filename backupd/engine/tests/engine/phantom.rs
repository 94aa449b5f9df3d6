//! A store that lists what it does not give back: it alone has it damaged, and the others lack nothing.

use crate::practice::{Practice, fill};
use backup_engine::{ListedObject, NamedStore, NoProgress, Result, Store, doubts, losses, replicate, snapshot};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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
                listed.push(ListedObject::undated(self.name.clone(), 65536));
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
