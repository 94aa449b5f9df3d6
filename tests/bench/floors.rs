//! What the kernel alone takes: the floor under an unchanged snapshot (walk) and under a restore (create and write).
//!
//! ```text
//! floors walk DIR            getdents and statx of a whole tree, two threads
//! floors create FROM TO      directories and files of the same names and sizes as FROM's, two threads, zeros, no times; flushed at
//!                            the end, as a restore is
//! floors tree DIR FILES      makes a tree of that many files, a hundred a directory, one distinct line each
//! ```
//!
//! Each prints one line of JSON: files, bytes, seconds, cpu_seconds.

use anyhow::{Context, bail};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, StatxFlags};
use std::ffi::{CString, OsStr};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

const THREADS: usize = 2;
const FILES_PER_DIRECTORY: usize = 100;
/// One item of work: at most so many files or so many bytes of one directory.
const BATCH_FILES: usize = 64;
const BATCH_BYTES: u64 = 4 << 20;
const BUFFER_BYTES: usize = 1 << 20;

struct File {
    name: CString,
    bytes: u64,
    mode: Mode,
}

struct Directory {
    path: PathBuf,
    files: Vec<File>,
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let clock = Clock::start();
    let (files, bytes, clock) = match arguments.as_slice() {
        ["walk", dir] => {
            let (files, bytes) = totals(&walk(Path::new(dir))?);
            (files, bytes, clock)
        }
        ["create", from, to] => {
            let tree = walk(Path::new(from))?;
            let clock = Clock::start();
            create(&tree, Path::new(from), Path::new(to))?;
            let (files, bytes) = totals(&tree);
            (files, bytes, clock)
        }
        ["tree", dir, files] => (make_tree(Path::new(dir), files.parse().context("FILES is a number")?)?, 0, clock),
        _ => bail!("usage: floors walk DIR | create FROM TO | tree DIR FILES"),
    };
    let (seconds, cpu_seconds) = clock.seconds();
    println!(
        "{{\"files\": {files}, \"bytes\": {bytes}, \"seconds\": {seconds:.4}, \"cpu_seconds\": {cpu_seconds:.4}}}"
    );
    Ok(())
}

struct Clock(rustix::time::Timespec, rustix::time::Timespec);

impl Clock {
    fn start() -> Self {
        let read = rustix::time::clock_gettime;
        Self(read(rustix::time::ClockId::Monotonic), read(rustix::time::ClockId::ProcessCPUTime))
    }

    /// Wall and CPU seconds since the start.
    fn seconds(&self) -> (f64, f64) {
        let (now, s) = (Self::start(), |t: rustix::time::Timespec| t.tv_sec as f64 + t.tv_nsec as f64 / 1e9);
        (s(now.0) - s(self.0), s(now.1) - s(self.1))
    }
}

fn totals(tree: &[Directory]) -> (usize, u64) {
    let files = tree.iter().flat_map(|d| &d.files);
    (files.clone().count(), files.map(|f| f.bytes).sum())
}

/// Directories that wait, and how many threads are inside one.
#[derive(Default)]
struct Waiting {
    directories: Vec<PathBuf>,
    busy: usize,
}

/// All directories of a tree with their files, in no order.
fn walk(root: &Path) -> anyhow::Result<Vec<Directory>> {
    let waiting = Mutex::new(Waiting { directories: vec![root.to_owned()], busy: 0 });
    let changed = Condvar::new();
    let work = || -> anyhow::Result<Vec<Directory>> {
        let mut found = Vec::new();
        while let Some(path) = next(&waiting, &changed) {
            let mut below = Vec::new();
            let read = read_directory(&path, &mut below);
            let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.directories.append(&mut below);
            waiting.busy -= 1;
            drop(waiting);
            changed.notify_all();
            found.push(read?);
        }
        Ok(found)
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        let mut all = Vec::new();
        for thread in threads {
            all.append(&mut thread.join().map_err(|_| anyhow::anyhow!("a thread of the walk ended early"))??);
        }
        Ok(all)
    })
}

fn next(waiting: &Mutex<Waiting>, changed: &Condvar) -> Option<PathBuf> {
    let mut waiting = waiting.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        if let Some(path) = waiting.directories.pop() {
            waiting.busy += 1;
            return Some(path);
        }
        if waiting.busy == 0 {
            return None;
        }
        waiting = changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

fn read_directory(path: &Path, below: &mut Vec<PathBuf>) -> anyhow::Result<Directory> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut buffer = Vec::with_capacity(64 << 10);
    let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
    let mut files = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let stat = rustix::fs::statx(&fd, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?;
        match FileType::from_raw_mode(stat.stx_mode.into()) {
            FileType::Directory => below.push(path.join(OsStr::from_bytes(name.to_bytes()))),
            FileType::RegularFile => {
                let mode = Mode::from_raw_mode(stat.stx_mode.into());
                files.push(File { name: name.to_owned(), bytes: stat.stx_size, mode });
            }
            _ => {}
        }
    }
    Ok(Directory { path: path.to_owned(), files })
}

fn create(tree: &[Directory], from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut order: Vec<&Directory> = tree.iter().collect();
    order.sort_by(|a, b| a.path.cmp(&b.path));
    let mut work = Vec::new();
    for directory in order {
        let path = to.join(directory.path.strip_prefix(from)?);
        std::fs::create_dir_all(&path)?;
        work.extend(batches(&directory.files).into_iter().map(|files| (path.clone(), files)));
    }
    let taken = AtomicUsize::new(0);
    in_threads(|| {
        let zeros = vec![0; BUFFER_BYTES];
        while let Some((path, files)) = work.get(taken.fetch_add(1, Ordering::Relaxed)) {
            let fd = open_directory(path)?;
            for file in *files {
                write_file(&fd, file, &zeros)?;
            }
        }
        Ok(())
    })?;
    Ok(rustix::fs::syncfs(open_readable(to)?)?)
}

fn open_readable(path: &Path) -> anyhow::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn batches(files: &[File]) -> Vec<&[File]> {
    let (mut out, mut rest) = (Vec::new(), files);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |f: &&File| {
            bytes += f.bytes;
            bytes <= BATCH_BYTES
        };
        let count = rest.iter().take(BATCH_FILES).take_while(fits).count().max(1);
        let (batch, others) = rest.split_at(count);
        out.push(batch);
        rest = others;
    }
    out
}

fn open_directory(path: &Path) -> anyhow::Result<OwnedFd> {
    Ok(rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn write_file(directory: &OwnedFd, file: &File, zeros: &[u8]) -> anyhow::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory.as_fd(), &file.name, flags, file.mode)?;
    let mut left = file.bytes;
    while left > 0 {
        let piece = &zeros[..usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len())];
        left -= rustix::io::write(&fd, piece)? as u64;
    }
    Ok(())
}

fn make_tree(root: &Path, files: usize) -> anyhow::Result<usize> {
    let taken = AtomicUsize::new(0);
    in_threads(|| {
        loop {
            let number = taken.fetch_add(1, Ordering::Relaxed);
            let first = number * FILES_PER_DIRECTORY;
            if first >= files {
                return Ok(());
            }
            let path = root.join(format!("{:03}", number / 100)).join(format!("{:02}", number % 100));
            std::fs::create_dir_all(&path)?;
            let fd = open_directory(&path)?;
            for n in first..files.min(first + FILES_PER_DIRECTORY) {
                let line = format!("record {n}\n");
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o640);
                let fd =
                    rustix::fs::openat(&fd, std::ffi::OsString::from_vec(format!("{n}").into_bytes()), flags, mode)?;
                rustix::io::write(&fd, line.as_bytes())?;
            }
        }
    })?;
    Ok(files)
}

fn in_threads(work: impl Fn() -> anyhow::Result<()> + Sync) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(&work)).collect();
        for thread in threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread ended early"))??;
        }
        Ok(())
    })
}
