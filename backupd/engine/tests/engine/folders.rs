//! The conformance suite on folders.

use crate::conformance::{Shape, conforms};
use backup_engine::{ErrorKind, StoreLocation, mark_removable};
use bytes::Bytes;

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = StoreLocation::Folder { path: dir.path().join("store") };
    std::fs::create_dir(dir.path().join("store")).unwrap();
    conforms(&*store.open().unwrap(), Shape::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removable_folder_is_a_store() {
    let dir = tempfile::tempdir().unwrap();
    mark_removable(dir.path(), "disk-a").unwrap();
    let store = StoreLocation::Removable { path: dir.path().to_owned(), name: "disk-a".to_owned() };
    conforms(&*store.open().unwrap(), Shape::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_was_there_and_is_away_is_not_made_anew_by_a_write() {
    let dir = tempfile::tempdir().unwrap();
    let (root, away) = (dir.path().join("store"), dir.path().join("away"));
    let store = StoreLocation::Folder { path: root.clone() }.open().unwrap();
    store.put("heads/a", Bytes::from_static(b"first: the root is made")).await.unwrap();
    std::fs::rename(&root, &away).unwrap();
    for name in ["heads/b", "c"] {
        let refused = store.put(name, Bytes::from_static(b"x")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unreachable, "{refused}");
        assert!(!root.exists());
    }
    std::fs::rename(&away, &root).unwrap();
    store.put("heads/b", Bytes::from_static(b"x")).await.unwrap();
    assert_eq!(store.list("").await.unwrap().len(), 2);
}
