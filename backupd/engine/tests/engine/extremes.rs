//! Files longer than 32 bits count, paths longer than the kernel takes at once, names of any bytes.

use crate::practice::{Practice, noise};
use backup_engine::{EntryKind, NoProgress, RestoreRequest, SnapshotId, ls, restore};
use rustix::fs::{Mode, OFlags, SeekFrom};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Where a file has data, in steps of this file system's blocks; the rest is holes.
fn data(file: &File) -> Vec<(u64, u64)> {
    let (mut ranges, mut at) = (Vec::new(), 0);
    while let Ok(begin) = rustix::fs::seek(file, SeekFrom::Data(at)) {
        at = rustix::fs::seek(file, SeekFrom::Hole(begin)).unwrap();
        ranges.push((begin, at));
    }
    ranges
}

/// The pieces of a file beyond 2^32 bytes: at its beginning, across 2^32, between, and in its last bytes.
fn pieces() -> [(u64, Vec<u8>); 4] {
    let four_gib = 1u64 << 32;
    [
        (0, noise(1, 300_000)),
        (four_gib - 100_001, noise(2, 250_000)),
        (four_gib + (1 << 30) + 7, b"one word".to_vec()),
        (LENGTH - 5_000, noise(3, 5_000)),
    ]
}

const LENGTH: u64 = (7 << 30) + 12_345;

fn check(path: &Path) {
    let file = File::open(path).unwrap();
    let meta = file.metadata().unwrap();
    assert_eq!(meta.len(), LENGTH);
    assert!(meta.blocks() * 512 < 4 << 20, "{} blocks: its holes are holes", meta.blocks());
    let mut expected = pieces().into_iter().collect::<Vec<_>>();
    for (from, to) in data(&file) {
        let mut found = vec![0; (to - from) as usize];
        file.read_exact_at(&mut found, from).unwrap();
        let mut wanted = vec![0; found.len()];
        for (at, bytes) in &mut expected {
            if (from..to).contains(at) {
                let start = (*at - from) as usize;
                let len = bytes.len().min(wanted.len() - start);
                wanted[start..start + len].copy_from_slice(&bytes[..len]);
                *at += len as u64;
                bytes.drain(..len);
            }
        }
        assert!(found == wanted, "bytes {from} to {to} differ");
    }
    assert!(expected.iter().all(|(_, bytes)| bytes.is_empty()), "a piece is not there");
}

async fn run(practice: &Practice, id: SnapshotId, into: &Path, overwrite: bool) -> u64 {
    let request = RestoreRequest { into: into.to_owned(), overwrite, ..RestoreRequest::default() };
    let (env, open) = (&practice.env, &practice.made.open);
    restore(env, open, &practice.stores[0], id, request, &NoProgress).await.unwrap().bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_more_than_two_to_the_32_bytes_comes_back_with_its_holes() {
    let practice = Practice::new(1).await;
    let file = File::create(practice.source().join("image")).unwrap();
    for (at, bytes) in pieces() {
        file.write_all_at(&bytes, at).unwrap();
    }
    assert_eq!(file.metadata().unwrap().len(), LENGTH);
    // A file that is nothing but a hole, one byte longer than 32 bits count.
    File::create(practice.source().join("hole")).unwrap().set_len((1 << 32) + 1).unwrap();
    let taken = practice.snapshot().await;
    assert_eq!(taken.bytes_source, LENGTH + (1 << 32) + 1);
    assert!(taken.bytes_read < 2 << 20, "holes are not read: {}", taken.bytes_read);
    let back = practice.restore_from(&practice.stores[0], taken.id).await;
    check(&back.join("image"));
    let hole = fs::metadata(back.join("hole")).unwrap();
    assert_eq!((hole.len(), hole.blocks()), ((1 << 32) + 1, 0));
    // In place: one byte beyond 2^32 is put right, and what was written into a hole goes.
    let spoilt = File::options().write(true).open(back.join("image")).unwrap();
    spoilt.write_all_at(b"!", (1 << 32) + 10).unwrap();
    spoilt.write_all_at(b"in a hole", 6 << 30).unwrap();
    let written = run(&practice, taken.id, back.parent().unwrap(), true).await;
    assert!(0 < written && written < 1 << 20, "{written}");
    check(&back.join("image"));
}

/// Names that only bytes can hold; each fills what a name may have.
fn name(level: usize) -> Vec<u8> {
    let mut name = format!("{level}\n\u{1b}[31m ").into_bytes();
    name.extend([b'\xff', b'\x01', b'\\', b'"', b'*']);
    name.resize(255, b'a' + (level % 26) as u8);
    name
}

const LEVELS: usize = 40;

fn open(above: &OwnedFd, name: &[u8], flags: OFlags) -> OwnedFd {
    rustix::fs::openat(above, name, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR).unwrap()
}

/// Goes down all levels, seeing each directory.
fn descend(top: &Path, mut see: impl FnMut(&OwnedFd, usize)) -> OwnedFd {
    let mut at = OwnedFd::from(File::open(top).unwrap());
    for level in 0..LEVELS {
        see(&at, level);
        at = open(&at, &name(level), OFlags::DIRECTORY);
    }
    at
}

fn read(directory: &OwnedFd, name: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::from(open(directory, name, OFlags::RDONLY)).read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_longer_than_4096_bytes_and_names_of_any_bytes_come_back() {
    let practice = Practice::new(1).await;
    let bottom = descend(&practice.source(), |directory, level| {
        rustix::fs::mkdirat(directory, name(level), Mode::RWXU).unwrap();
    });
    let write = OFlags::CREATE | OFlags::WRONLY;
    File::from(open(&bottom, b"deep", write)).write_all(b"ten thousand bytes down").unwrap();
    File::from(open(&bottom, &name(LEVELS), write)).write_all(b"").unwrap();
    rustix::fs::symlinkat("deep", &bottom, "link").unwrap();
    rustix::fs::linkat(
        &bottom,
        "deep",
        File::open(practice.source()).unwrap(),
        "shallow",
        rustix::fs::AtFlags::empty(),
    )
    .unwrap();
    rustix::fs::fchmod(&bottom, Mode::from_raw_mode(0o510)).unwrap();
    let mtime = rustix::fs::fstat(&bottom).unwrap().st_mtime_nsec;

    let taken = practice.snapshot().await;
    let (env, open_key, store) = (&practice.env, &practice.made.open, &practice.stores[0]);
    let listed = ls(env, open_key, store, taken.id, b"").await.unwrap();
    let deep = listed.iter().find(|entry| entry.path.ends_with(b"/deep")).unwrap();
    assert!(deep.path.len() > 10_000 && deep.kind == EntryKind::File);

    let whole = practice.dir.path().join("whole");
    run(&practice, taken.id, &whole, false).await;
    let one = practice.dir.path().join("one");
    let request = RestoreRequest { into: one.clone(), paths: vec![deep.path.clone()], ..RestoreRequest::default() };
    assert_eq!(restore(env, open_key, store, taken.id, request, &NoProgress).await.unwrap().files, 1);
    for (top, names) in [(&whole, 3), (&one, 1)] {
        let bottom = descend(&top.join("files"), |directory, level| {
            let found = rustix::fs::Dir::read_from(directory).unwrap().map(|entry| entry.unwrap());
            let found = found.map(|entry| entry.file_name().to_bytes().to_vec()).filter(|name| !name.starts_with(b"."));
            let mut expected = vec![name(level)];
            expected.extend((level == 0 && names == 3).then(|| b"shallow".to_vec()));
            let mut found: Vec<_> = found.collect();
            found.sort();
            assert_eq!(found, expected);
        });
        assert_eq!(read(&bottom, b"deep"), b"ten thousand bytes down");
        let stat = rustix::fs::fstat(&bottom).unwrap();
        assert_eq!((stat.st_mode & 0o7777, stat.st_mtime_nsec), (0o510, mtime));
        if names == 3 {
            assert_eq!(read(&bottom, &name(LEVELS)), b"");
            assert_eq!(rustix::fs::readlinkat(&bottom, "link", Vec::new()).unwrap().to_bytes(), b"deep");
            let (deep, shallow) = (rustix::fs::statat(&bottom, "deep", rustix::fs::AtFlags::empty()).unwrap(), top);
            assert_eq!(deep.st_ino, fs::metadata(shallow.join("files/shallow")).unwrap().ino());
        }
    }
    // In place too: what is right stays, what is gone comes back.
    let bottom = descend(&whole.join("files"), |_, _| ());
    rustix::fs::unlinkat(&bottom, "deep", rustix::fs::AtFlags::empty()).unwrap();
    run(&practice, taken.id, &whole, true).await;
    assert_eq!(read(&bottom, b"deep"), b"ten thousand bytes down");
}
