//! Sources that misbehave: unreadable, vanishing and changing files.

use crate::practice::{Practice, fill, settle};
use backup_engine::source::{RealFs, SourceDir, SourceFile, SourceFs, SourceRoot, Stat, Xattrs};
use backup_engine::{Env, ErrorKind, NoProgress, Part, PartKind, SnapshotOutcome, VerifyRequest, snapshot, verify};
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

/// The fault model: reading a file named `eio` fails half way, one named `grows` has grown each time it is looked at,
/// one named `gone` is listed but cannot be opened any more.
struct Troubled;
struct TroubledDir(Box<dyn SourceDir>);
struct TroubledFile(Box<dyn SourceFile>, Vec<u8>);

impl SourceFs for Troubled {
    fn open(&self, path: &Path) -> io::Result<SourceRoot> {
        Ok(match RealFs.open(path)? {
            SourceRoot::Directory(dir) => SourceRoot::Directory(Box::new(TroubledDir(dir))),
            file => file,
        })
    }
}

impl SourceDir for TroubledDir {
    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }
    fn xattrs(&self) -> io::Result<Xattrs> {
        self.0.xattrs()
    }
    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        self.0.names()
    }
    fn stat_entry(&self, name: &[u8]) -> io::Result<Stat> {
        self.0.stat_entry(name)
    }
    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Ok(Box::new(TroubledDir(self.0.open_dir(name)?)))
    }
    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        if name == b"gone" {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Box::new(TroubledFile(self.0.open_file(name)?, name.to_vec())))
    }
    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        self.0.read_link(name)
    }
}

impl SourceFile for TroubledFile {
    fn stat(&self) -> io::Result<Stat> {
        let stat = self.0.stat()?;
        Ok(if self.1 == b"grows" { Stat { size: stat.size + 1, ..stat } } else { stat })
    }
    fn xattrs(&self) -> io::Result<Xattrs> {
        self.0.xattrs()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        if self.1 == b"eio" && offset > 0 {
            return Err(io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error()));
        }
        let short = if self.1 == b"eio" { 1000 } else { buffer.len() };
        self.0.read_at(&mut buffer[..short], offset)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        self.0.next_data(offset)
    }
}

/// One directory of many files, each holding its own name.
struct Crowded;
struct CrowdedDir(Box<dyn SourceDir>);
struct CrowdedFile(Vec<u8>, Box<dyn SourceFile>);
/// More than a segment may have chunks.
const CROWD: usize = 80_000;

impl SourceFs for Crowded {
    fn open(&self, path: &Path) -> io::Result<SourceRoot> {
        Ok(match RealFs.open(path)? {
            SourceRoot::Directory(dir) => SourceRoot::Directory(Box::new(CrowdedDir(dir))),
            file => file,
        })
    }
}

impl SourceDir for CrowdedDir {
    fn stat(&self) -> io::Result<Stat> {
        self.0.stat()
    }
    fn xattrs(&self) -> io::Result<Xattrs> {
        self.0.xattrs()
    }
    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        Ok((0..CROWD).map(|n| format!("{n:08}").into_bytes()).collect())
    }
    fn stat_entry(&self, _: &[u8]) -> io::Result<Stat> {
        self.0.stat_entry(b"eight")
    }
    fn open_dir(&self, _: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Err(io::ErrorKind::NotADirectory.into())
    }
    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(CrowdedFile(name.to_vec(), self.0.open_file(b"eight")?)))
    }
    fn read_link(&self, _: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::InvalidInput.into())
    }
}

impl SourceFile for CrowdedFile {
    fn stat(&self) -> io::Result<Stat> {
        self.1.stat()
    }
    fn xattrs(&self) -> io::Result<Xattrs> {
        self.1.xattrs()
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = self.0.get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        self.1.next_data(offset)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_a_few_bytes_fill_segments_with_records() {
    let practice = Practice::new(1).await;
    fs::create_dir_all(practice.source()).unwrap();
    fs::write(practice.source().join("eight"), b"8 bytes.").unwrap();
    let taken = take(&practice, &Env::real().with_fs(Arc::new(Crowded))).await;
    assert!(taken.durable && !taken.partial && taken.files == CROWD as u64);
    let all = VerifyRequest { read_data: true, snapshot: None };
    let checked = verify(&practice.env, &practice.made.open, &practice.stores[0], all, &NoProgress).await.unwrap();
    assert!(checked.snapshots == 1 && checked.missing.is_empty() && checked.corrupt.is_empty());
}

async fn take(practice: &Practice, env: &Env) -> SnapshotOutcome {
    settle().await;
    snapshot(env, &practice.made.writer, &practice.stores, practice.request(1), &NoProgress).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_makes_the_snapshot_partial_and_the_rest_is_taken() {
    let practice = Practice::new(1).await;
    fill(&practice.source());
    for name in ["eio", "grows", "gone"] {
        fs::write(practice.source().join(name), vec![b'a'; 5000]).unwrap();
    }
    let troubled = Env::real().with_fs(Arc::new(Troubled));
    for _ in 0..2 {
        // Twice: what went wrong must not be remembered as unchanged.
        let taken = take(&practice, &troubled).await;
        assert!(taken.durable && taken.partial);
        assert_eq!((taken.unreadable_files, taken.files), (3, 33));
    }
    let well = take(&practice, &practice.env).await;
    assert!(!well.partial && well.files == 35);
    let back = practice.restore_from(&practice.stores[0], well.id).await;
    assert_eq!(fs::read(back.join("eio")).unwrap(), vec![b'a'; 5000]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_part_and_a_wrong_request_are_refused_with_a_remedy() {
    let practice = Practice::new(1).await;
    let refused = |request| async {
        let result = snapshot(&practice.env, &practice.made.writer, &practice.stores, request, &NoProgress).await;
        result.unwrap_err()
    };
    let mut request = practice.request(1);
    request.parts[0].path = practice.dir.path().join("no-such-place");
    let error = refused(request).await;
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!error.to_string().contains("no-such-place"), "no path in an error: {error}");
    let error = refused(practice.request(2)).await;
    assert_eq!(error.to_string(), "the quorum is 2, but only 1 stores apart from each other count for it");
    let mut request = practice.request(1);
    request.parts.push(Part { name: "files".to_owned(), path: practice.source(), kind: PartKind::Files });
    assert_eq!(refused(request).await.kind(), ErrorKind::Misconfigured);
    let mut request = practice.request(1);
    request.parts[0].kind = PartKind::Pages { page_bytes: 1000 };
    assert_eq!(refused(request).await.kind(), ErrorKind::Misconfigured);
}

#[tokio::test]
async fn a_seeded_run_replays_exactly() {
    let run = async || {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("source");
        fill(&source);
        let fixed = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
        fs::File::options().write(true).open(source.join("scan.bin")).unwrap().set_modified(fixed).unwrap();
        let (env, _clock) = Env::seeded(42, 1_780_000_000_000);
        fs::create_dir(dir.path().join("store")).unwrap();
        let stores = [crate::practice::folder_store(dir.path(), "store")];
        let made = backup_engine::init(&env, &stores, backup_engine::InitOptions::default()).await.unwrap();
        let request = backup_engine::SnapshotRequest {
            source: "emr".to_owned(),
            parts: vec![Part { name: "scan".to_owned(), path: source.join("scan.bin"), kind: PartKind::Files }],
            excludes: Vec::new(),
            tag: None,
            facts: None,
            quorum: 1,
            incomplete: false,
            lease: backup_engine::SourceLease::default(),
            state_dir: None,
            stop: backup_engine::Stop::default(),
        };
        let taken = snapshot(&env, &made.writer, &stores, request, &NoProgress).await.unwrap();
        // The manifest holds the part's path, which differs from run to run.
        let mut sealed = stores[0].store.list("packs/").await.unwrap();
        sealed.extend(stores[0].store.list("index/").await.unwrap());
        assert_eq!(sealed.len(), 4);
        // Names hold the hashes; when a folder got them is the machine's own time.
        let sealed: Vec<(String, u64)> = sealed.into_iter().map(|object| (object.name, object.size)).collect();
        (made.repository, made.writer.to_bytes(), taken.taken_unix_ms, sealed)
    };
    assert_eq!(run().await, run().await);
}
