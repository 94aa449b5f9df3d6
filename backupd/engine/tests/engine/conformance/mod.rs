//! What the engine asks of every kind of store. One function; each kind of store is run through it.

use backup_engine::{ErrorKind, ListedObject, Store};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

/// What a run costs and what the store under test cannot do.
#[derive(Clone, Copy)]
pub struct Shape {
    /// Objects of the large listing: more than any store gives in one page.
    pub listed: usize,
    /// A plain put over an object with other bytes replaces it.
    pub overwrites: bool,
}

impl Default for Shape {
    fn default() -> Self {
        Self { listed: 1100, overwrites: true }
    }
}

/// Names as the format has them, and some that only a careless client gets wrong.
const ODD_NAMES: [&str; 6] = [
    "heads/1a35ac047f30164c/0715a481dbaea6b6/0000000000000001-a1a8ec29ae6bb026",
    "log/tile/0/x001/234.p/5",
    "odd/space in it",
    "odd/plus+and&and=and;",
    "odd/percent%20sign",
    "odd/\u{fc}ml\u{e4}ut",
];

/// Every property in turn, on a store that is empty at the start. Panics with what is broken.
pub async fn conforms(store: &dyn Store, shape: Shape) {
    nothing_is_there(store).await;
    bytes_come_back(store).await;
    same_bytes_again_succeed(store, shape).await;
    odd_names(store).await;
    puts_at_once(store).await;
    large_listing(store, shape).await;
}

async fn kind_of<T: std::fmt::Debug>(result: backup_engine::Result<T>) -> ErrorKind {
    result.expect_err("it must be refused").kind()
}

async fn nothing_is_there(store: &dyn Store) {
    assert_eq!(store.list("").await.unwrap(), [], "a new store is empty, and that is no error");
    assert_eq!(store.list("packs/").await.unwrap(), []);
    assert_eq!(kind_of(store.get("packs/none").await).await, ErrorKind::NotFound);
    assert_eq!(kind_of(store.get_range("packs/none", 0..4).await).await, ErrorKind::NotFound);
}

async fn bytes_come_back(store: &dyn Store) {
    let body: Bytes = (0..300_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    store.put("packs/aa/large", body.clone()).await.unwrap();
    assert_eq!(store.get("packs/aa/large").await.unwrap(), body);
    let len = body.len() as u64;
    for range in [0..1, 4096..8192, len - 1..len, 0..len] {
        let expected = body.slice(range.start as usize..range.end as usize);
        assert_eq!(store.get_range("packs/aa/large", range.clone()).await.unwrap(), expected, "{range:?}");
    }
    for beyond in [len - 4..len + 4, len + 4..len + 8] {
        let kind = kind_of(store.get_range("packs/aa/large", beyond.clone()).await).await;
        assert_eq!(kind, ErrorKind::Damaged, "{beyond:?} is not all there: that is no silent store");
    }
    store.put("packs/aa/empty", Bytes::new()).await.unwrap();
    assert_eq!(kind_of(store.get_range("packs/aa/empty", 0..4).await).await, ErrorKind::Damaged);
    assert_eq!(store.get("packs/aa/empty").await.unwrap(), "");
    let there: Vec<(String, u64)> =
        store.list("packs/").await.unwrap().into_iter().map(|object| (object.name, object.size)).collect();
    assert_eq!(there, [("packs/aa/empty".to_owned(), 0), ("packs/aa/large".to_owned(), len)]);
}

async fn same_bytes_again_succeed(store: &dyn Store, shape: Shape) {
    let body = Bytes::from_static(b"written twice");
    for _ in 0..2 {
        store.put("index/twice", body.clone()).await.unwrap();
    }
    assert_eq!(store.get("index/twice").await.unwrap(), body);
    if shape.overwrites {
        store.put("index/twice", Bytes::from_static(b"healed")).await.unwrap();
        assert_eq!(store.get("index/twice").await.unwrap(), "healed");
    }
}

async fn odd_names(store: &dyn Store) {
    for name in ODD_NAMES {
        let body = Bytes::copy_from_slice(name.as_bytes());
        store.put(name, body.clone()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(store.get(name).await.unwrap(), body, "{name}");
        assert_eq!(store.get_range(name, 1..4).await.unwrap(), body.slice(1..4), "{name}");
    }
    let names = |listed: Vec<ListedObject>| listed.into_iter().map(|object| object.name).collect::<Vec<_>>();
    let mut odd: Vec<&str> = ODD_NAMES.into_iter().filter(|name| name.starts_with("odd/")).collect();
    odd.sort_unstable();
    assert_eq!(names(store.list("odd/").await.unwrap()), odd);
    let all = names(store.list("").await.unwrap());
    assert!(all.is_sorted() && ODD_NAMES.iter().all(|name| all.contains(&(*name).to_owned())), "{all:?}");
    // A folder's name is no beginning of a name.
    store.put("odder/one", Bytes::new()).await.unwrap();
    assert_eq!(store.list("odd/").await.unwrap().len(), odd.len());
}

async fn puts_at_once(store: &dyn Store) {
    // Two writers with the same object: both succeed, and it is whole.
    let body = Bytes::from(vec![7; 70_000]);
    let same = (0..8).map(|_| store.put("keyring/same", body.clone()));
    futures::future::try_join_all(same).await.unwrap();
    assert_eq!(store.get("keyring/same").await.unwrap(), body);
    // Many new names in new folders.
    let many = (0..32u8).map(|n| async move {
        let name = format!("at-once/{n:02}/object");
        store.put(&name, Bytes::from(vec![n; 5_000])).await.map(|()| name)
    });
    for name in futures::future::try_join_all(many).await.unwrap() {
        let there = store.get(&name).await.unwrap();
        assert!(there.len() == 5_000 && there.iter().all(|byte| name.contains(&format!("{byte:02}"))), "{name}");
    }
}

async fn large_listing(store: &dyn Store, shape: Shape) {
    let names: Vec<String> = (0..shape.listed).map(|n| format!("listed/{n:05}")).collect();
    let puts = names.iter().map(|name| store.put(name, Bytes::from_static(b"x")));
    futures::stream::iter(puts).buffer_unordered(16).try_collect::<Vec<()>>().await.unwrap();
    let listed = store.list("listed/").await.unwrap();
    assert!(listed.iter().map(|object| &object.name).eq(&names), "{} of {}", listed.len(), names.len());
    assert!(listed.iter().all(|object| object.size == 1));
}
