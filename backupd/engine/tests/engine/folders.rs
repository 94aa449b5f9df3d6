//! The conformance suite on folders.

use crate::conformance::{Shape, conforms};
use backup_engine::{StoreLocation, mark_removable};

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
