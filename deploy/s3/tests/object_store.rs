//! The server as the backup sees it: the real program, asked through the `object_store` crate.

mod support;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as Key;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, RetryConfig};
use std::process::Command;
use std::time::Duration;
use support::{OWNER, Server, WRITER};

trait Store {
    /// The bucket as a client with this key has it.
    fn store(&self, key: (&str, &str)) -> AmazonS3;
}

impl Store for Server {
    fn store(&self, key: (&str, &str)) -> AmazonS3 {
        let retry = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(5), ..Default::default() };
        AmazonS3Builder::new()
            .with_endpoint(&self.url)
            .with_allow_http(true)
            .with_bucket_name("practice")
            .with_region("us-east-1")
            .with_access_key_id(key.0)
            .with_secret_access_key(key.1)
            .with_retry(retry)
            .build()
            .unwrap()
    }
}

fn create() -> object_store::PutOptions {
    PutMode::Create.into()
}

#[tokio::test]
async fn puts_gets_ranges_and_deletes() {
    let server = Server::start();
    let store = server.store(OWNER);
    let key = Key::from("packs/00/abc");
    let body = Bytes::from((0..100_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    store.put(&key, PutPayload::from_bytes(body.clone())).await.unwrap();
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), body);
    assert_eq!(store.get_range(&key, 4096..8192).await.unwrap(), body.slice(4096..8192));
    assert_eq!(store.head(&key).await.unwrap().size, 400_000);
    assert_eq!(std::fs::read(server.folder.path().join("root/practice/packs/00/abc")).unwrap(), body);
    store.delete(&key).await.unwrap();
    assert!(matches!(store.get(&key).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn says_that_a_key_is_too_long() {
    let server = Server::start();
    let store = server.store(OWNER);
    // The longest name of a repository: a retired writer's, and its copy beside a damaged one.
    let longest =
        Key::from(format!("condemned/retired/{0}/{0}/{1}-{2}.1", "a".repeat(32), "0".repeat(16), "b".repeat(64)));
    store.put(&longest, PutPayload::from_static(b"x")).await.unwrap();
    assert_eq!(store.get(&longest).await.unwrap().bytes().await.unwrap(), "x");
    let listed: Vec<_> = store.list(None).map_ok(|meta| meta.location).try_collect().await.unwrap();
    assert_eq!(listed, [longest]);
    // That of a run of snapshots that were taken out, after ten years of one every five minutes, and a copy of it.
    let run = Key::from(format!("tombstones/{0}/{0}/1-100000-{1}.1", "a".repeat(32), "b".repeat(64)));
    store.put(&run, PutPayload::from_static(b"x")).await.unwrap();
    assert_eq!(store.get(&run).await.unwrap().bytes().await.unwrap(), "x");
    let error = store.put(&Key::from("k".repeat(200)), PutPayload::from_static(b"x")).await.unwrap_err();
    assert!(error.to_string().contains("KeyTooLong"), "{error}");
}

#[tokio::test]
async fn lists_more_than_one_page() {
    let server = Server::start();
    let store = server.store(WRITER);
    let names: Vec<Key> = (0..1100).map(|n| Key::from(format!("index/{n:04}"))).collect();
    futures::stream::iter(&names)
        .map(|name| store.put(name, PutPayload::from_static(b"x")))
        .buffer_unordered(8)
        .try_collect::<Vec<_>>()
        .await
        .unwrap();
    store.put(&Key::from("packs/other"), PutPayload::from_static(b"y")).await.unwrap();
    let prefix = Key::from("index");
    let mut listed: Vec<Key> = store.list(Some(&prefix)).map_ok(|meta| meta.location).try_collect().await.unwrap();
    listed.sort();
    assert_eq!(listed, names);
}

#[tokio::test]
async fn refuses_a_wrong_secret_and_an_unknown_key() {
    let server = Server::start();
    let key = Key::from("a");
    server.store(OWNER).put(&key, PutPayload::from_static(b"x")).await.unwrap();
    for wrong in [(OWNER.0, "not-the-owner-secret-99"), ("stranger", OWNER.1)] {
        let store = server.store(wrong);
        assert!(store.get(&key).await.is_err(), "{wrong:?} read");
        assert!(store.put(&Key::from("b"), PutPayload::from_static(b"x")).await.is_err(), "{wrong:?} wrote");
    }
    assert!(matches!(server.store(OWNER).get(&Key::from("b")).await, Err(Error::NotFound { .. })));
}

#[tokio::test]
async fn a_writers_key_neither_deletes_nor_overwrites() {
    let server = Server::start();
    let store = server.store(WRITER);
    let key = Key::from("heads/1");
    store.put(&key, PutPayload::from_static(b"first")).await.unwrap();
    assert!(matches!(
        store.put_opts(&key, PutPayload::from_static(b"second"), create()).await,
        Err(Error::AlreadyExists { .. })
    ));
    assert!(matches!(store.put(&key, PutPayload::from_static(b"second")).await, Err(Error::PermissionDenied { .. })));
    assert!(matches!(store.delete(&key).await, Err(Error::PermissionDenied { .. })));
    assert_eq!(store.get(&key).await.unwrap().bytes().await.unwrap(), "first");
}

#[tokio::test]
async fn one_of_many_creations_wins() {
    let server = Server::start();
    let store = server.store(OWNER);
    let key = Key::from("heads/1");
    let results: Vec<_> = futures::stream::iter(0..32u8)
        .map(|n| store.put_opts(&key, PutPayload::from_bytes(Bytes::from(vec![n; 70_000])), create()))
        .buffer_unordered(16)
        .collect()
        .await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let body = store.get(&key).await.unwrap().bytes().await.unwrap();
    assert!(body.len() == 70_000 && body.iter().all(|byte| *byte == body[0]));
}

#[tokio::test]
async fn keeps_what_it_answered_across_a_kill() {
    let mut server = Server::start();
    server.store(OWNER).put(&Key::from("a/b"), PutPayload::from_static(b"kept")).await.unwrap();
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    assert_eq!(std::fs::read(server.folder.path().join("root/practice/a/b")).unwrap(), b"kept");
}

#[test]
fn does_not_listen_beyond_this_machine_unless_told() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_s3-server"))
        .args(["--listen", "0.0.0.0:0", "--access-key-file", "none", "--root"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--allow-remote"));
}
