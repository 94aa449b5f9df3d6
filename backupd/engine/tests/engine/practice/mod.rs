//! A small source, a few folder stores, and how to compare trees.
#![allow(dead_code, reason = "each test file uses its part")]

use backup_engine::{
    Env, InitOptions, Initialized, NamedStore, NoProgress, Part, PartKind, RestoreRequest, SnapshotId, SnapshotOutcome,
    SnapshotRequest, SourceLease, Stop, StoreLocation, init, restore, snapshot,
};
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A practice with a source and stores in one temporary folder.
pub struct Practice {
    pub dir: TempDir,
    pub env: Env,
    pub made: Initialized,
    pub stores: Vec<NamedStore>,
}

pub fn folder_store(dir: &Path, name: &str) -> NamedStore {
    NamedStore::new(name, StoreLocation::Folder { path: dir.join(name) }.open().unwrap(), true)
}

impl Practice {
    pub async fn new(stores: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::real();
        for at in 0..stores {
            fs::create_dir(dir.path().join(format!("store-{at}"))).unwrap();
        }
        let stores: Vec<NamedStore> = (0..stores).map(|at| folder_store(dir.path(), &format!("store-{at}"))).collect();
        let made = init(&env, &stores, InitOptions::default()).await.unwrap();
        fs::create_dir(dir.path().join("source")).unwrap();
        Self { dir, env, made, stores }
    }

    pub fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn request(&self, quorum: u32) -> SnapshotRequest {
        SnapshotRequest {
            source: "emr".to_owned(),
            parts: vec![Part { name: "files".to_owned(), path: self.source(), kind: PartKind::Files }],
            excludes: Vec::new(),
            tag: Some("tag-of-the-test".to_owned()),
            facts: Some(b"facts-of-the-test".to_vec()),
            quorum,
            incomplete: false,
            lease: SourceLease::default(),
            state_dir: Some(self.state()),
            stop: Stop::default(),
        }
    }

    pub async fn snapshot(&self) -> SnapshotOutcome {
        settle().await;
        let request = self.request(self.stores.len() as u32);
        let outcome = snapshot(&self.env, &self.made.writer, &self.stores, request, &NoProgress).await.unwrap();
        assert!(outcome.durable && !outcome.partial);
        outcome
    }

    pub async fn restore_from(&self, store: &NamedStore, id: SnapshotId) -> PathBuf {
        let into = self.dir.path().join(format!("restored-{}-{}", store.name, &id.to_string()[..8]));
        let _ = fs::remove_dir_all(&into);
        let request = RestoreRequest { into: into.clone(), overwrite: false, ..RestoreRequest::default() };
        restore(&self.env, &self.made.open, store, id, request, &NoProgress).await.unwrap();
        into.join("files")
    }

    /// Every object of a store: name and file.
    pub fn objects(&self, store: &str) -> BTreeMap<String, PathBuf> {
        let root = self.dir.path().join(store);
        let mut found = BTreeMap::new();
        collect(&root, &root, &mut found);
        found
    }
}

/// A file that changed within the clock's tick is not remembered as unchanged.
pub async fn settle() {
    tokio::time::sleep(std::time::Duration::from_millis(80)).await;
}

fn collect(root: &Path, dir: &Path, found: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, found);
        } else {
            found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), path);
        }
    }
}

/// Whether the test may do what only root may; where not, `tests/run` is told that it did not run.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let reason = "only root may make devices, give files away and set attributes of the system";
        eprintln!("skipped: {reason}");
        if let Some(path) = std::env::var_os("HOLDFAST_SKIPS") {
            let mut file = fs::File::options().create(true).append(true).open(path).unwrap();
            file.write_all(format!("{test}\t{reason}\n").as_bytes()).unwrap();
        }
    }
    root
}

/// Bytes that do not compress, from a seed.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len.div_ceil(8))
        .flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(len)
        .collect()
}

/// A few documents of several sizes.
pub fn fill(source: &Path) {
    fs::create_dir_all(source.join("letters/2026")).unwrap();
    for at in 0..30u64 {
        let text = format!("Dear patient {at}, your next appointment is on day {at}.\n").repeat(50 + at as usize);
        fs::write(source.join(format!("letters/2026/letter-{at}.txt")), text).unwrap();
    }
    fs::write(source.join("scan.bin"), noise(7, 1_500_000)).unwrap();
    fs::write(source.join("empty"), b"").unwrap();
}

/// What two trees must agree on, entry by entry.
pub fn describe(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut found = BTreeMap::new();
    let mut links = BTreeMap::new();
    describe_below(root, root, &mut found, &mut links);
    found
}

fn describe_below(root: &Path, at: &Path, found: &mut BTreeMap<Vec<u8>, String>, links: &mut BTreeMap<u64, Vec<u8>>) {
    let meta = fs::symlink_metadata(at).unwrap();
    let name = at.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec();
    let kind = meta.file_type();
    let mut says = format!(
        "mode {:o} owner {}:{} mtime {}.{:09} xattrs {:?} ",
        meta.mode(),
        meta.uid(),
        meta.gid(),
        meta.mtime(),
        meta.mtime_nsec(),
        xattrs(at)
    );
    if !kind.is_dir() {
        let first = links.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        says += &format!("links {} first {first:?} ", meta.nlink());
    }
    if kind.is_file() {
        says += &format!("size {} hash {}", meta.len(), blake3::hash(&fs::read(at).unwrap()));
    } else if kind.is_symlink() {
        says += &format!("to {:?}", fs::read_link(at).unwrap());
    } else if kind.is_dir() {
        let mut names: Vec<PathBuf> = fs::read_dir(at).unwrap().map(|entry| entry.unwrap().path()).collect();
        names.sort();
        for path in names {
            describe_below(root, &path, found, links);
        }
    } else {
        says += &format!("fifo {} socket {} device {}", kind.is_fifo(), kind.is_socket(), meta.rdev());
    }
    found.insert(name, says);
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0u8; 4096];
    let len = rustix::fs::llistxattr(path, list.as_mut_slice()).unwrap_or(0);
    list.truncate(len);
    let mut found: Vec<_> = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0u8; 4096];
            let len = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
            value.truncate(len);
            (name.to_vec(), value)
        })
        .collect();
    found.sort();
    found
}
