//! Restores from stores that break: what is said, what is left behind, and how it goes on.

use crate::practice::{Practice, describe, fill, folder_store, noise};
use backup_engine::{
    Error, ErrorKind, ListedObject, NamedStore, NoProgress, RestoreOutcome, RestoreRequest, Result, SnapshotId, Store,
    VerifyRequest, restore, verify,
};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The fault model: from the first read of a pack after `reads` others on, no part of a pack can be read any more.
struct Breaks {
    inner: Arc<dyn Store>,
    reads: u64,
    kind: ErrorKind,
    seen: AtomicU64,
}

impl Store for Breaks {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        self.inner.put(name, bytes)
    }
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        self.inner.get(name)
    }
    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        if self.seen.fetch_add(1, Ordering::SeqCst) >= self.reads {
            return Box::pin(async { Err(Error::new(self.kind, "injected fault: the pack cannot be read")) });
        }
        self.inner.get_range(name, range)
    }
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        self.inner.list(prefix)
    }
}

const NOTE: &str = ".holdfast-restore-unfinished";

async fn run(practice: &Practice, store: &NamedStore, id: SnapshotId, into: &Path) -> Result<RestoreOutcome> {
    let request = RestoreRequest { into: into.to_owned(), ..RestoreRequest::default() };
    restore(&practice.env, &practice.made.open, store, id, request, &NoProgress).await
}

/// Files with their contents in several packs, one of them in many pieces with another name.
async fn taken(stores: usize) -> (Practice, SnapshotId) {
    let practice = Practice::new(stores).await;
    fill(&practice.source());
    for at in 0..6u64 {
        fs::write(practice.source().join(format!("scan-{at}")), noise(at + 1, 2_000_000)).unwrap();
    }
    fs::write(practice.source().join("large"), noise(77, 14_000_000)).unwrap();
    fs::hard_link(practice.source().join("large"), practice.source().join("letters/large-again")).unwrap();
    let id = practice.snapshot().await.id;
    (practice, id)
}

/// Every file that stands in the target is whole; how many there are, and how many are missing.
fn whole_or_absent(source: &Path, target: &Path) -> (usize, usize) {
    let (mut here, mut absent) = (0, 0);
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        for entry in fs::read_dir(source.join(&below)).unwrap() {
            let path = below.join(entry.unwrap().file_name());
            if source.join(&path).is_dir() {
                todo.push(path);
            } else if !target.join(&path).exists() {
                absent += 1;
            } else {
                let same = fs::read(source.join(&path)).unwrap() == fs::read(target.join(&path)).unwrap();
                assert!(same, "{} is half-written", path.display());
                here += 1;
            }
        }
    }
    (here, absent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_breaks_off_is_named_and_no_half_written_file_stays() {
    let (practice, id) = taken(1).await;
    let good = &practice.stores[0];
    let mut interrupted = 0;
    for kind in [ErrorKind::Unreachable, ErrorKind::Retry] {
        for reads in [0, 2, 4, 7] {
            let breaks = Breaks { inner: Arc::clone(&good.store), reads, kind, seen: AtomicU64::new(0) };
            let store = NamedStore::new("the-shaky-one", Arc::new(breaks), true);
            let into = practice.dir.path().join(format!("into-{kind:?}-{reads}"));
            let error = run(&practice, &store, id, &into).await.unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains("at store the-shaky-one"), "{error}");
            let (here, absent) = whole_or_absent(&practice.source(), &into.join("files"));
            assert!(absent > 0);
            if into.join("files").exists() {
                assert!(into.join(NOTE).exists(), "it says that it did not finish");
                interrupted += usize::from(here > 0);
            }
            // The same again, from a store that works, goes on from there.
            let done = run(&practice, good, id, &into).await.unwrap();
            assert_eq!(done.files as usize, here + absent);
            assert_eq!(describe(&into.join("files")), describe(&practice.source()));
            assert!(!into.join(NOTE).exists());
            fs::remove_dir_all(&into).unwrap();
        }
    }
    assert!(interrupted >= 2, "it broke off in the middle: {interrupted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_in_one_store_leaves_no_file_with_a_hole_and_comes_from_another() {
    let (practice, id) = taken(2).await;
    // The largest packs are of data, and one of them holds a part of the large file.
    let mut packs: Vec<(u64, String)> = practice
        .objects("store-0")
        .into_iter()
        .filter(|(name, _)| name.starts_with("packs/"))
        .map(|(name, path)| (path.metadata().unwrap().len(), name))
        .collect();
    packs.sort();
    let (len, name) = packs.last().unwrap().clone();
    let file = fs::File::options().write(true).open(practice.dir.path().join("store-0").join(&name)).unwrap();
    file.write_all_at(&[0x55; 64], len / 2).unwrap();
    let into = practice.dir.path().join("into");
    let error = run(&practice, &practice.stores[0], id, &into).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    let said = error.to_string();
    assert!(said.contains("at store store-0") && said.contains(&name) && said.contains("another store"), "{said}");
    let (here, absent) = whole_or_absent(&practice.source(), &into.join("files"));
    assert!(here > 20 && (1..=3).contains(&absent), "everything else is there: {here}, {absent}");
    assert!(into.join(NOTE).exists());
    let done = run(&practice, &practice.stores[1], id, &into).await.unwrap();
    assert!(done.bytes < 15_000_000 && done.bytes_kept > 9_000_000, "only what was missing is written: {done:?}");
    assert_eq!(describe(&into.join("files")), describe(&practice.source()));
}

/// A disk that cannot read a place of a pack, as the folder store sees it: reading memory that is not there gives EIO.
#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_the_disk_cannot_read_is_damage_of_that_store() {
    let (practice, id) = taken(1).await;
    let packs = practice.objects("store-0").into_iter().filter(|(name, _)| name.starts_with("packs/"));
    let (name, path) = packs.max_by_key(|(_, path)| path.metadata().unwrap().len()).unwrap();
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    let store = folder_store(practice.dir.path(), "store-0");
    let into = practice.dir.path().join("into");
    let error = run(&practice, &store, id, &into).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Damaged);
    assert!(error.to_string().contains("at store store-0") && error.to_string().contains(&name), "{error}");
    whole_or_absent(&practice.source(), &into.join("files"));
    let all = VerifyRequest { read_data: true, snapshot: None };
    let checked = verify(&practice.env, &practice.made.open, &store, all, &NoProgress).await.unwrap();
    assert!(checked.corrupt.contains(&name) || checked.missing.contains(&name), "{checked:?}");
}
