//! A source machine's files. The fault model: reads fail, are short, are slow; files vanish, change and are refused while the
//! walk is under way; a directory lists an entry less.

use crate::faults::Fault;
use crate::machine::SimClock;
use crate::world::World;
use backup_engine::env::Clock;
use backup_engine::source::{SourceDir, SourceFile, SourceFs, SourceRoot, Stat, StatKind, Xattrs};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File(Arc<Vec<u8>>),
    Symlink(Vec<u8>),
    Fifo,
    Socket,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub kind: Kind,
    pub mode: u32,
    pub time: (i64, u32),
    pub inode: u64,
    pub links: u32,
    pub xattrs: Xattrs,
    /// Where a hole lies in it.
    pub hole: Option<(u64, u64)>,
}

/// Files by path. Directories are what paths go through.
pub type Tree = BTreeMap<String, Entry>;

/// What faults did during one walk.
#[derive(Debug, Clone, Default)]
pub struct Hurt {
    /// These may come back in any form, or not at all.
    pub paths: BTreeSet<String>,
    /// Something was not read as it was: the snapshot must say that it is partial.
    pub must_be_partial: bool,
}

pub struct Source {
    world: Arc<World>,
    clock: Arc<SimClock>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    tree: Tree,
    made: u64,
    hurt: Hurt,
}

const HOLE_BYTES: u64 = 128 << 10;

impl Source {
    pub fn new(world: &Arc<World>, clock: &Arc<SimClock>) -> Arc<Self> {
        let source = Arc::new(Self { world: Arc::clone(world), clock: Arc::clone(clock), inner: Mutex::default() });
        for _ in 0..world.with_rng(|rng| rng.within(3..20)) {
            source.write_some();
        }
        if world.strikes(Fault::OddKinds, 1000) {
            source.odd_kinds();
        }
        source
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the walk will find, unless something goes wrong.
    pub fn tree(&self) -> Tree {
        self.inner().tree.clone()
    }

    /// Nobody walks; what went wrong is over.
    pub fn rest(&self) {
        self.inner().hurt = Hurt::default();
    }

    pub fn hurt(&self) -> Hurt {
        self.inner().hurt.clone()
    }

    fn entry(&self, kind: Kind) -> Entry {
        let mut inner = self.inner();
        inner.made += 1;
        let now = self.clock.now_unix_ms();
        let time = (now.div_euclid(1000), now.rem_euclid(1000) as u32 * 1_000_000 + inner.made as u32 % 1_000_000);
        Entry { kind, mode: 0o640, time, inode: inner.made, links: 1, xattrs: Vec::new(), hole: None }
    }

    fn write(&self, path: String, content: Vec<u8>) {
        let entry = self.entry(Kind::File(Arc::new(content)));
        self.inner().tree.insert(path, entry);
    }

    fn write_some(&self) {
        let content = self.world.with_rng(|rng| match rng.below(20) {
            0 => Vec::new(),
            1 => {
                let len = rng.within(100_000..700_000) as usize;
                rng.noise(len)
            }
            2 => {
                let pages = rng.within(2..20) as usize;
                let mut database = b"SQLite format 3\0".to_vec();
                database.resize(16 << 10, 1);
                database.extend(rng.noise(pages << 14));
                database
            }
            _ => {
                let (word, times) = (rng.below(1000), rng.within(1..800) as usize);
                format!("letter {word} to patient {}\n", rng.below(100)).repeat(times).into_bytes()
            }
        });
        let path = self.world.with_rng(|rng| match rng.below(3) {
            0 => format!("letter-{}", rng.below(12)),
            1 => format!("letters/{}", rng.below(20)),
            _ => format!("letters/{}/{}", 2020 + rng.below(3), rng.below(9)),
        });
        // A file never takes a directory's place.
        let path =
            if path.starts_with("letters/20") && path.len() == "letters/2020".len() { path + ".txt" } else { path };
        self.write(path, content);
    }

    /// So large that index objects are written on the way.
    pub fn write_large(&self, megabytes: usize) {
        let content = self.world.with_rng(|rng| rng.noise(megabytes << 20));
        self.write("scan".to_owned(), content);
    }

    fn odd_kinds(&self) {
        let mut hole = vec![7u8; 3 * HOLE_BYTES as usize];
        hole[HOLE_BYTES as usize..2 * HOLE_BYTES as usize].fill(0);
        let mut sparse = self.entry(Kind::File(Arc::new(hole)));
        sparse.hole = Some((HOLE_BYTES, 2 * HOLE_BYTES));
        let mut attributed = self.entry(Kind::File(Arc::new(b"with attributes".to_vec())));
        attributed.xattrs = vec![(b"user.note".to_vec(), b"value".to_vec())];
        let mut linked = self.entry(Kind::File(Arc::new(b"under two names".to_vec())));
        linked.links = 2;
        let mut inner = self.inner();
        inner.tree.insert("odd/sparse".to_owned(), sparse);
        inner.tree.insert("odd/attributed".to_owned(), attributed);
        inner.tree.insert("odd/linked-1".to_owned(), linked.clone());
        inner.tree.insert("odd/other/linked-2".to_owned(), linked);
        drop(inner);
        for (name, kind) in [
            ("odd/symlink", Kind::Symlink(b"../letter-1".to_vec())),
            ("odd/fifo", Kind::Fifo),
            ("odd/socket", Kind::Socket),
        ] {
            let entry = self.entry(kind);
            self.inner().tree.insert(name.to_owned(), entry);
        }
    }

    /// People work.
    pub fn change(&self) {
        for _ in 0..self.world.with_rng(|rng| rng.within(0..5)) {
            if self.world.chance(750) {
                self.write_some();
                continue;
            }
            let names: Vec<String> =
                self.inner().tree.keys().filter(|name| !name.starts_with("odd/")).cloned().collect();
            if let Some(name) = self.world.with_rng(|rng| rng.pick(&names).cloned()) {
                self.inner().tree.remove(&name);
            }
        }
    }

    fn hurt_at(&self, path: &str, must_be_partial: bool) {
        let mut inner = self.inner();
        // The other name of a file that was read once takes its content too.
        let inode = inner.tree.get(path).map(|entry| entry.inode);
        let same: Vec<String> =
            inner.tree.iter().filter(|(_, entry)| Some(entry.inode) == inode).map(|(name, _)| name.clone()).collect();
        inner.hurt.paths.insert(path.to_owned());
        inner.hurt.paths.extend(same);
        inner.hurt.must_be_partial |= must_be_partial;
    }

    fn stat(&self, path: &str) -> io::Result<Stat> {
        let inner = self.inner();
        if let Some(entry) = inner.tree.get(path) {
            return Ok(stat_of(entry));
        }
        let below = format!("{path}/");
        if path.is_empty() || inner.tree.range(below.clone()..).next().is_some_and(|(name, _)| name.starts_with(&below))
        {
            let inode = u64::from_le_bytes(*blake3::hash(path.as_bytes()).as_bytes().first_chunk().expect("32 bytes"));
            return Ok(Stat { kind: StatKind::Directory, inode, mode: 0o750, ..stat_of(&directory()) });
        }
        Err(io::ErrorKind::NotFound.into())
    }

    fn names(&self, path: &str) -> Vec<String> {
        let below = if path.is_empty() { String::new() } else { format!("{path}/") };
        let inner = self.inner();
        let under = inner.tree.keys().filter_map(|name| name.strip_prefix(&below));
        under
            .filter_map(|rest| rest.split('/').next())
            .map(str::to_owned)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }
}

fn directory() -> Entry {
    Entry { kind: Kind::Fifo, mode: 0o750, time: (1, 0), inode: 0, links: 1, xattrs: Vec::new(), hole: None }
}

fn stat_of(entry: &Entry) -> Stat {
    let (kind, size) = match &entry.kind {
        Kind::File(content) => (StatKind::File, content.len() as u64),
        Kind::Symlink(target) => (StatKind::Symlink, target.len() as u64),
        Kind::Fifo => (StatKind::Fifo, 0),
        Kind::Socket => (StatKind::Socket, 0),
    };
    Stat {
        kind,
        mode: entry.mode,
        uid: 1000,
        gid: 1000,
        size,
        mtime: entry.time,
        ctime: entry.time,
        device: (8, 1),
        inode: entry.inode,
        links: entry.links,
        rdev: (0, 0),
        sparse: entry.hole.is_some(),
    }
}

/// The file system of a machine: one source at `/source`.
pub struct SimFs(pub Arc<Source>);

impl SourceFs for SimFs {
    fn open(&self, path: &Path) -> io::Result<SourceRoot> {
        if path == Path::new("/source") {
            // A snapshot that begins again reads everything again.
            self.0.inner().hurt.must_be_partial = false;
            return Ok(SourceRoot::Directory(Box::new(Place { source: Arc::clone(&self.0), path: String::new() })));
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

/// An open directory.
struct Place {
    source: Arc<Source>,
    path: String,
}

impl Place {
    fn below(&self, name: &[u8]) -> String {
        let name = String::from_utf8_lossy(name);
        if self.path.is_empty() { name.into_owned() } else { format!("{}/{name}", self.path) }
    }

    /// Looking at an entry may be refused, or find nothing.
    fn look(&self, path: &str) -> io::Result<Entry> {
        let (source, world) = (&self.source, &self.source.world);
        let entry = source.inner().tree.get(path).cloned();
        let Some(entry) = entry else { return Err(io::ErrorKind::NotFound.into()) };
        if world.strikes(Fault::Vanishes, 12) {
            source.hurt_at(path, true);
            return Err(io::ErrorKind::NotFound.into());
        }
        if world.strikes(Fault::Refused, 12) {
            source.hurt_at(path, true);
            // EACCES, ELOOP, ENAMETOOLONG
            let code = world.with_rng(|rng| rng.pick(&[13, 40, 36]).copied()).unwrap_or(13);
            return Err(io::Error::from_raw_os_error(code));
        }
        Ok(entry)
    }
}

impl SourceDir for Place {
    fn stat(&self) -> io::Result<Stat> {
        self.source.stat(&self.path)
    }

    fn xattrs(&self) -> io::Result<Xattrs> {
        Ok(Vec::new())
    }

    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = self.source.names(&self.path);
        if names.len() > 1 && self.source.world.strikes(Fault::EntryLost, 30) {
            let lost = names.remove(self.source.world.below(names.len() as u64) as usize);
            let path = self.below(lost.as_bytes());
            let below = format!("{path}/");
            let under: Vec<String> =
                self.source.inner().tree.keys().filter(|name| name.starts_with(&below)).cloned().collect();
            self.source.hurt_at(&path, false);
            under.iter().for_each(|path| self.source.hurt_at(path, false));
        }
        Ok(names.into_iter().map(String::into_bytes).collect())
    }

    fn stat_entry(&self, name: &[u8]) -> io::Result<Stat> {
        self.source.stat(&self.below(name))
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Ok(Box::new(Self { source: Arc::clone(&self.source), path: self.below(name) }))
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        let path = self.below(name);
        self.look(&path)?;
        Ok(Box::new(OpenFile { source: Arc::clone(&self.source), path }))
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        match self.look(&self.below(name))?.kind {
            Kind::Symlink(target) => Ok(target),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

struct OpenFile {
    source: Arc<Source>,
    path: String,
}

impl OpenFile {
    fn entry(&self) -> io::Result<Entry> {
        self.source.inner().tree.get(&self.path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn content(&self) -> io::Result<Arc<Vec<u8>>> {
        match self.entry()?.kind {
            Kind::File(content) => Ok(content),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Somebody writes to the file while it is read.
    fn changes(&self, content: &[u8]) {
        let mut content = content.to_vec();
        match self.source.world.below(3) {
            0 => content.extend_from_slice(b"one line more\n"),
            1 => content.truncate(content.len() / 2),
            _ => content.iter_mut().for_each(|byte| *byte ^= 1),
        }
        self.source.hurt_at(&self.path, true);
        let entry = self.source.entry(Kind::File(Arc::new(content)));
        if let Some(old) = self.source.inner().tree.get_mut(&self.path) {
            // The same file, written in place: its other name shows it too, and is left out of the comparison as well.
            *old = Entry { inode: old.inode, links: old.links, ..entry };
        }
    }
}

impl SourceFile for OpenFile {
    fn stat(&self) -> io::Result<Stat> {
        self.entry().map(|entry| stat_of(&entry))
    }

    fn xattrs(&self) -> io::Result<Xattrs> {
        self.entry().map(|entry| entry.xattrs)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = &self.source.world;
        let content = self.content()?;
        if world.strikes(Fault::ReadFails, 12) {
            self.source.hurt_at(&self.path, true);
            return Err(io::Error::from_raw_os_error(5));
        }
        if world.strikes(Fault::Slow, 12) {
            self.source.clock.pass(5_000);
        }
        let rest = content.get(offset as usize..).unwrap_or_default();
        let mut len = rest.len().min(buffer.len());
        if len > 1 && world.strikes(Fault::ShortRead, 60) {
            if world.chance(300) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            len = 1 + world.below(len as u64 - 1) as usize;
        }
        if let (Some(to), Some(from)) = (buffer.get_mut(..len), rest.get(..len)) {
            to.copy_from_slice(from);
        }
        if !self.path.starts_with("odd/") && world.strikes(Fault::ChangesWhileRead, 12) {
            self.changes(&content);
        }
        Ok(len)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let entry = self.entry()?;
        let size = stat_of(&entry).size;
        let (hole, end) = entry.hole.unwrap_or((size, size));
        Ok(match offset {
            at if at < hole => Some((at, hole)),
            at if at >= size || end >= size => None,
            at => Some((at.max(end), size)),
        })
    }
}
