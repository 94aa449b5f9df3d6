//! Many files from a simulated source: memory must not grow with their number.

use backup_engine::source::{SourceDir, SourceFile, SourceFs, SourceRoot, Stat, StatKind, Xattrs};
use backup_engine::{
    Env, InitOptions, NamedStore, NoProgress, Part, PartKind, SnapshotRequest, SourceLease, Stop, StoreLocation,
};
use backup_engine::{init, snapshot};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Directories of a thousand small files each, every file with content of its own. Nothing of it exists on a disk.
struct Simulated {
    directories: u64,
}

struct Top(u64);
struct Folder(u64);
struct Small(u64);

const FILES: u64 = 1000;

fn stat(kind: StatKind, inode: u64, size: u64) -> Stat {
    Stat {
        kind,
        mode: 0o644,
        uid: 1000,
        gid: 1000,
        size,
        mtime: (1_700_000_000, 1),
        ctime: (1_700_000_000, 1),
        device: (1, 1),
        inode,
        links: 1,
        rdev: (0, 0),
        sparse: false,
    }
}

fn number(name: &[u8]) -> u64 {
    std::str::from_utf8(name).unwrap().trim_start_matches(char::is_alphabetic).parse().unwrap()
}

impl SourceFs for Simulated {
    fn open(&self, _path: &Path) -> io::Result<SourceRoot> {
        Ok(SourceRoot::Directory(Box::new(Top(self.directories))))
    }
}

impl SourceDir for Top {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat(StatKind::Directory, 1, 0))
    }
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }
    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        Ok((0..self.0).map(|at| format!("patient{at:07}").into_bytes()).collect())
    }
    fn stat_entry(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(stat(StatKind::Directory, 2 + number(name), 0))
    }
    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Ok(Box::new(Folder(number(name))))
    }
    fn open_file(&self, _name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn read_link(&self, _name: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl SourceDir for Folder {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat(StatKind::Directory, 2 + self.0, 0))
    }
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }
    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        Ok((0..FILES).map(|at| format!("letter{at:04}").into_bytes()).collect())
    }
    fn stat_entry(&self, name: &[u8]) -> io::Result<Stat> {
        Ok(stat(StatKind::File, (1 << 40) + self.0 * FILES + number(name), 16))
    }
    fn open_dir(&self, _name: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Err(io::ErrorKind::NotFound.into())
    }
    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(Small(self.0 * FILES + number(name))))
    }
    fn read_link(&self, _name: &[u8]) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::NotFound.into())
    }
}

impl SourceFile for Small {
    fn stat(&self) -> io::Result<Stat> {
        Ok(stat(StatKind::File, (1 << 40) + self.0, 16))
    }
    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = format!("{:016}", self.0);
        let rest = content.as_bytes().get(offset as usize..).unwrap_or_default();
        let len = rest.len().min(buffer.len());
        buffer[..len].copy_from_slice(&rest[..len]);
        Ok(len)
    }
    fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        Ok((offset < 16).then_some((offset, 16)))
    }
}

/// The most memory that this process has had, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Backs up twice: everything new, then nothing.
async fn back_up(directories: u64) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("store")).unwrap();
    let place = StoreLocation::Folder { path: dir.path().join("store") };
    let stores = [NamedStore::new("store", place.open().unwrap(), true)];
    let env = Env::real().with_fs(Arc::new(Simulated { directories }));
    let made = init(&env, &stores, InitOptions::default()).await.unwrap();
    let request = || SnapshotRequest {
        source: "many".to_owned(),
        parts: vec![Part { name: "files".to_owned(), path: "/simulated".into(), kind: PartKind::Files }],
        excludes: Vec::new(),
        tag: None,
        facts: None,
        quorum: 1,
        incomplete: false,
        lease: SourceLease::default(),
        state_dir: Some(dir.path().join("state")),
        stop: Stop::default(),
    };
    let first = snapshot(&env, &made.writer, &stores, request(), &NoProgress).await.unwrap();
    assert_eq!((first.files, first.bytes_read), (directories * FILES, directories * FILES * 16));
    println!("{} files: first {} ms, peak {} MB", first.files, first.duration_ms, peak() >> 20);
    let second = snapshot(&env, &made.writer, &stores, request(), &NoProgress).await.unwrap();
    assert_eq!((second.files, second.bytes_read, second.bytes_added), (first.files, 0, 0));
    println!("{} files: unchanged {} ms, peak {} MB", second.files, second.duration_ms, peak() >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_files_are_taken_once() {
    back_up(60).await;
}

/// Some minutes and a few GB of disk: for the nightly run, in a process of its own.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "ten million files"]
async fn ten_million_files_need_no_more_memory_than_a_million() {
    back_up(10_000).await;
    assert!(peak() < 400 << 20, "peak memory {} MB", peak() >> 20);
}
