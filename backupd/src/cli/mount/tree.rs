//! What the mount shows: `snapshots/<time>-<id>`, `tags/<tag>`, `latest`, and below each snapshot its files.

use super::door::Question;
use super::inodes::{Inodes, What};
use crate::cli::repo::TOP;
use backup_engine::{Error, ErrorKind, Leaves, Node, NodeKind, Page, SnapshotInfo, Tree, View};
use fuser::{
    Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus,
    ReplyXattr,
};
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Snapshots never change.
const VALID: Duration = Duration::from_secs(24 * 3600);
const GENERATION: Generation = Generation(0);
/// Digits of a snapshot's id in its folder's name.
const ID_DIGITS: usize = 8;
/// Positions in a directory: page and entry on it, after `.` and `..`.
const ENTRY_BITS: u32 = 20;
const AFTER_SELF: u64 = 1;
const AFTER_PARENT: u64 = 2;
const FIRST_ENTRY: u64 = 3;

/// All snapshots of a repository, as the kernel sees them.
pub struct Mounted<'v> {
    view: &'v View<'v>,
    snapshots: Vec<SnapshotInfo>,
    /// Names in the three folders of the mount's own.
    top: Vec<(Vec<u8>, What)>,
    by_time: Vec<(Vec<u8>, What)>,
    by_tag: Vec<(Vec<u8>, What)>,
    trees: Mutex<HashMap<usize, Tree>>,
    inodes: Mutex<Inodes>,
    open: Mutex<OpenDirectories>,
}

#[derive(Default)]
struct OpenDirectories {
    last: u64,
    listings: HashMap<u64, Arc<Listing>>,
}

/// An open directory.
struct Listing {
    ino: u64,
    parent: u64,
    entries: Entries,
}

enum Entries {
    Own(Vec<(Vec<u8>, What)>),
    Snapshot { snapshot: usize, leaves: Leaves },
}

/// One entry for the kernel's buffer, and the position after it.
struct Row {
    name: Vec<u8>,
    what: What,
    position: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

type Answer<T> = Result<T, Errno>;

/// The kernel's word for an error; the sentence, which holds no name, goes to the terminal.
fn failed(error: &Error) -> Errno {
    tell!("backupd: {error}");
    match error.kind() {
        ErrorKind::Denied => Errno::EACCES,
        ErrorKind::Unreachable | ErrorKind::Retry | ErrorKind::Busy => Errno::EAGAIN,
        _ => Errno::EIO,
    }
}

impl<'v> Mounted<'v> {
    /// `snapshots`: newest first.
    pub fn new(view: &'v View<'v>, snapshots: Vec<SnapshotInfo>) -> Self {
        let names: Vec<Vec<u8>> = snapshots.iter().map(folder_name).collect();
        let to = |above: &str, at: usize| {
            let name = names.get(at).map(Vec::as_slice).unwrap_or_default();
            What::Link([above.as_bytes(), b"snapshots/", name].concat().into())
        };
        let mut by_tag = BTreeMap::new();
        for (at, info) in snapshots.iter().enumerate() {
            if let Some(name) = info.tag.as_deref().and_then(tag_name) {
                by_tag.entry(name).or_insert_with(|| to("../", at));
            }
        }
        let mut top = vec![(b"snapshots".to_vec(), What::Snapshots), (b"tags".to_vec(), What::Tags)];
        let whole = snapshots.iter().position(|info| !info.partial);
        top.extend(whole.map(|at| (b"latest".to_vec(), to("", at))));
        let by_time = names.iter().enumerate().map(|(at, name)| (name.clone(), What::Snapshot(at))).collect();
        Self {
            view,
            snapshots,
            top,
            by_time,
            by_tag: by_tag.into_iter().collect(),
            trees: Mutex::default(),
            inodes: Mutex::new(Inodes::new()),
            open: Mutex::default(),
        }
    }

    pub fn count(&self) -> usize {
        self.snapshots.len()
    }

    pub async fn answer(&self, question: Question) {
        match question {
            Question::LookUp { parent, name, reply } => match self.look_up(parent, &name).await {
                Ok(attributes) => reply.entry(&VALID, &attributes, GENERATION),
                Err(errno) => reply.error(errno),
            },
            Question::Forget { ino, count } => lock(&self.inodes).forget(ino, count),
            Question::Attributes { ino, reply } => match self.attributes_of(ino).await {
                Ok(attributes) => reply.attr(&VALID, &attributes),
                Err(errno) => reply.error(errno),
            },
            Question::Target { ino, reply } => match self.target(ino) {
                Ok(target) => reply.data(&target),
                Err(errno) => reply.error(errno),
            },
            Question::OpenDirectory { ino, reply } => match self.open_directory(ino).await {
                Ok(handle) => {
                    reply.opened(FileHandle(handle), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE)
                }
                Err(errno) => reply.error(errno),
            },
            Question::CloseDirectory { handle } => {
                lock(&self.open).listings.remove(&handle);
            }
            Question::Names { handle, after, reply } => self.names(handle, after, reply).await,
            Question::Entries { handle, after, reply } => self.entries(handle, after, reply).await,
            Question::Bytes { ino, offset, len, reply } => match self.bytes(ino, offset, len).await {
                Ok(bytes) => reply.data(&bytes),
                Err(errno) => reply.error(errno),
            },
            Question::Xattr { ino, name, room, reply } => match self.xattr(ino, &name) {
                Ok(value) => give(&value, room, reply),
                Err(errno) => reply.error(errno),
            },
            Question::XattrNames { ino, room, reply } => match self.node(ino) {
                Ok(node) => {
                    let names =
                        node.iter().flat_map(|node| &node.xattrs).flat_map(|(name, _)| [name.as_slice(), b"\0"]);
                    give(&names.collect::<Vec<_>>().concat(), room, reply);
                }
                Err(errno) => reply.error(errno),
            },
        }
    }

    fn what(&self, ino: u64) -> Answer<What> {
        lock(&self.inodes).what(ino).ok_or(Errno::ESTALE)
    }

    /// The entry of a snapshot behind a number; `None` for what is the mount's own.
    fn node(&self, ino: u64) -> Answer<Option<Arc<Node>>> {
        Ok(if let What::Entry { node, .. } = self.what(ino)? { Some(node) } else { None })
    }

    async fn tree(&self, snapshot: usize) -> Answer<Tree> {
        if let Some(tree) = lock(&self.trees).get(&snapshot) {
            return Ok(tree.clone());
        }
        let id = self.snapshots.get(snapshot).ok_or(Errno::ESTALE)?.id;
        let tree = self.view.tree(id, TOP.as_bytes()).await.map_err(|error| failed(&error))?;
        lock(&self.trees).insert(snapshot, tree.clone());
        Ok(tree)
    }

    /// The directory that an entry or a snapshot's root is.
    async fn directory(&self, what: &What) -> Answer<(usize, Node)> {
        match what {
            What::Snapshot(at) => Ok((*at, self.tree(*at).await?.root)),
            What::Entry { snapshot, node } => Ok((*snapshot, Node::clone(node))),
            _ => Err(Errno::ENOTDIR),
        }
    }

    async fn look_up(&self, parent: u64, name: &[u8]) -> Answer<FileAttr> {
        let own = |entries: &[(Vec<u8>, What)]| {
            entries.iter().find(|(known, _)| known == name).map(|(_, what)| what.clone()).ok_or(Errno::ENOENT)
        };
        let found = match self.what(parent)? {
            What::Top => own(&self.top)?,
            What::Snapshots => own(&self.by_time)?,
            What::Tags => own(&self.by_tag)?,
            above => {
                let (snapshot, node) = self.directory(&above).await?;
                let NodeKind::Directory { root } = node.kind else { return Err(Errno::ENOTDIR) };
                let node = self.view.entry(root, name).await.map_err(|error| failed(&error))?;
                What::Entry { snapshot, node: Arc::new(node.ok_or(Errno::ENOENT)?) }
            }
        };
        // Attributes first: an answer that fails must not count as a look-up.
        let mut attributes = self.attributes(&found).await?;
        attributes.ino = INodeNo(lock(&self.inodes).look_up(parent, name, &found));
        Ok(attributes)
    }

    async fn attributes_of(&self, ino: u64) -> Answer<FileAttr> {
        let mut attributes = self.attributes(&self.what(ino)?).await?;
        attributes.ino = INodeNo(ino);
        Ok(attributes)
    }

    async fn attributes(&self, what: &What) -> Answer<FileAttr> {
        Ok(match what {
            What::Entry { node, .. } => node_attributes(node),
            What::Snapshot(at) => node_attributes(&self.tree(*at).await?.root),
            What::Link(target) => own_attributes(FileType::Symlink, 0o777, target.len() as u64),
            What::Top | What::Snapshots | What::Tags => own_attributes(FileType::Directory, 0o755, 0),
        })
    }

    fn target(&self, ino: u64) -> Answer<Vec<u8>> {
        match self.what(ino)? {
            What::Link(target) => Ok(target.to_vec()),
            What::Entry { node, .. } => match &node.kind {
                NodeKind::Symlink { target } => Ok(target.clone()),
                _ => Err(Errno::EINVAL),
            },
            _ => Err(Errno::EINVAL),
        }
    }

    async fn open_directory(&self, ino: u64) -> Answer<u64> {
        let entries = match self.what(ino)? {
            What::Top => Entries::Own(self.top.clone()),
            What::Snapshots => Entries::Own(self.by_time.clone()),
            What::Tags => Entries::Own(self.by_tag.clone()),
            what => {
                let (snapshot, node) = self.directory(&what).await?;
                let NodeKind::Directory { root } = node.kind else { return Err(Errno::ENOTDIR) };
                Entries::Snapshot { snapshot, leaves: self.view.leaves(root).await.map_err(|error| failed(&error))? }
            }
        };
        let listing = Arc::new(Listing { ino, parent: lock(&self.inodes).parent(ino), entries });
        let mut open = lock(&self.open);
        open.last += 1;
        let handle = open.last;
        open.listings.insert(handle, listing);
        Ok(handle)
    }

    fn listing(&self, handle: u64) -> Answer<Arc<Listing>> {
        lock(&self.open).listings.get(&handle).cloned().ok_or(Errno::EBADF)
    }

    async fn names(&self, handle: u64, after: u64, mut reply: ReplyDirectory) {
        let mut add = |inodes: &mut Inodes, listing: &Listing, row: &Row| {
            let ino = row.number(inodes, listing);
            reply.add(INodeNo(ino), row.position, file_type(&row.what), OsStr::from_bytes(&row.name))
        };
        match self.fill(handle, after, &mut add).await {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    async fn entries(&self, handle: u64, after: u64, mut reply: ReplyDirectoryPlus) {
        let mut add = |inodes: &mut Inodes, listing: &Listing, row: &Row| {
            let ino = row.number(inodes, listing);
            let mut attributes = match &row.what {
                What::Entry { node, .. } => node_attributes(node),
                What::Link(target) => own_attributes(FileType::Symlink, 0o777, target.len() as u64),
                _ => own_attributes(FileType::Directory, 0o755, 0),
            };
            attributes.ino = INodeNo(ino);
            // The root of a snapshot is looked up by itself: its attributes are not at hand here.
            let valid = if matches!(row.what, What::Snapshot(_)) { Duration::ZERO } else { VALID };
            let name = OsStr::from_bytes(&row.name);
            let full = reply.add(INodeNo(ino), row.position, name, &valid, &attributes, GENERATION);
            if !full && row.position > AFTER_PARENT {
                inodes.look_up(listing.ino, &row.name, &row.what);
            }
            full
        };
        match self.fill(handle, after, &mut add).await {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    /// Adds entries from a position on until `add` says that the buffer is full, at most to the end of a page.
    async fn fill(
        &self,
        handle: u64,
        after: u64,
        add: &mut (dyn FnMut(&mut Inodes, &Listing, &Row) -> bool + Send),
    ) -> Answer<()> {
        let listing = self.listing(handle)?;
        for (name, position) in [(b".".as_slice(), AFTER_SELF), (b"..", AFTER_PARENT)] {
            let row = Row { name: name.to_vec(), what: What::Top, position };
            if after < position && add(&mut lock(&self.inodes), &listing, &row) {
                return Ok(());
            }
        }
        let next = after.checked_sub(FIRST_ENTRY).map_or(0, |last| last + 1);
        let (mut page, mut entry) = (next >> ENTRY_BITS, next & ((1 << ENTRY_BITS) - 1));
        let mut added = false;
        while !added {
            let rows = match &listing.entries {
                Entries::Own(own) if page == 0 => own_rows(own),
                Entries::Own(_) => return Ok(()),
                Entries::Snapshot { snapshot, leaves } => {
                    let at = usize::try_from(page).map_err(|_| Errno::EINVAL)?;
                    match self.view.leaf(leaves, at).await.map_err(|error| failed(&error))?.as_deref() {
                        Some(Page::Directory(nodes)) => page_rows(*snapshot, nodes, page, entry),
                        _ => return Ok(()),
                    }
                }
            };
            let mut inodes = lock(&self.inodes);
            for row in rows.iter().filter(|row| row.position >= FIRST_ENTRY + (page << ENTRY_BITS | entry)) {
                if add(&mut inodes, &listing, row) {
                    return Ok(());
                }
                added = true;
            }
            (page, entry) = (page + 1, 0);
        }
        Ok(())
    }

    async fn bytes(&self, ino: u64, offset: u64, len: u32) -> Answer<Vec<u8>> {
        let node = self.node(ino)?.ok_or(Errno::EISDIR)?;
        self.view.read(&node, offset, len as usize).await.map_err(|error| failed(&error))
    }

    fn xattr(&self, ino: u64, name: &[u8]) -> Answer<Vec<u8>> {
        let node = self.node(ino)?.ok_or(Errno::ENODATA)?;
        let found = node.xattrs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.clone()).ok_or(Errno::ENODATA)
    }
}

impl Row {
    fn number(&self, inodes: &Inodes, listing: &Listing) -> u64 {
        match self.position {
            AFTER_SELF => listing.ino,
            AFTER_PARENT => listing.parent,
            _ => inodes.number(listing.ino, &self.name, &self.what),
        }
    }
}

fn own_rows(own: &[(Vec<u8>, What)]) -> Vec<Row> {
    let row = |(at, (name, what)): (usize, &(Vec<u8>, What))| Row {
        name: name.clone(),
        what: what.clone(),
        position: FIRST_ENTRY + at as u64,
    };
    own.iter().enumerate().map(row).collect()
}

/// The entries of a page from one on.
fn page_rows(snapshot: usize, nodes: &[Node], page: u64, first: u64) -> Vec<Row> {
    let row = |(at, node): (usize, &Node)| Row {
        name: node.name.clone(),
        what: What::Entry { snapshot, node: Arc::new(node.clone()) },
        position: FIRST_ENTRY + (page << ENTRY_BITS | at as u64),
    };
    nodes.iter().enumerate().skip(usize::try_from(first).unwrap_or(usize::MAX)).map(row).collect()
}

/// Gives an attribute, its length, or the word that there is too little room.
fn give(value: &[u8], room: u32, reply: ReplyXattr) {
    match u32::try_from(value.len()) {
        Ok(len) if room == 0 => reply.size(len),
        Ok(len) if len <= room => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}

fn file_type(what: &What) -> FileType {
    match what {
        What::Entry { node, .. } => node_type(node),
        What::Link(_) => FileType::Symlink,
        What::Top | What::Snapshots | What::Tags | What::Snapshot(_) => FileType::Directory,
    }
}

fn node_type(node: &Node) -> FileType {
    match node.kind {
        NodeKind::File { .. } => FileType::RegularFile,
        NodeKind::Directory { .. } => FileType::Directory,
        NodeKind::Symlink { .. } => FileType::Symlink,
        NodeKind::Fifo => FileType::NamedPipe,
        NodeKind::Socket => FileType::Socket,
        NodeKind::CharDevice { .. } => FileType::CharDevice,
        NodeKind::BlockDevice { .. } => FileType::BlockDevice,
    }
}

fn node_attributes(node: &Node) -> FileAttr {
    let (size, rdev) = match &node.kind {
        NodeKind::File { size, .. } => (*size, 0),
        NodeKind::Symlink { target } => (target.len() as u64, 0),
        NodeKind::CharDevice { major, minor } | NodeKind::BlockDevice { major, minor } => {
            (0, u32::try_from(rustix::fs::makedev(*major, *minor)).unwrap_or(0))
        }
        _ => (0, 0),
    };
    let time = moment(node.mtime_s, node.mtime_ns);
    // How many names a file has is not kept; that it has several is.
    let nlink = if node.hard_link.is_some() || matches!(node.kind, NodeKind::Directory { .. }) { 2 } else { 1 };
    FileAttr {
        ino: INodeNo(0),
        size,
        blocks: size.div_ceil(512),
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind: node_type(node),
        perm: (node.mode & 0o7777) as u16,
        nlink,
        uid: node.uid,
        gid: node.gid,
        rdev,
        blksize: 128 << 10,
        flags: 0,
    }
}

fn moment(seconds: i64, ns: u32) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let second = if seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
    second.and_then(|second| second.checked_add(Duration::from_nanos(ns.into()))).unwrap_or(UNIX_EPOCH)
}

fn own_attributes(kind: FileType, perm: u16, size: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 2,
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// `2026-11-25T15-51-26Z-d293a37e`: sorts by time, and fits every file system.
fn folder_name(info: &SnapshotInfo) -> Vec<u8> {
    let time = chrono::DateTime::from_timestamp_millis(info.taken_unix_ms)
        .map_or_else(|| "unknown".to_owned(), |time| time.format("%Y-%m-%dT%H-%M-%SZ").to_string());
    let id = info.id.to_string();
    format!("{time}-{}", id.get(..ID_DIGITS).unwrap_or(&id)).into_bytes()
}

/// A tag as a file name; one that cannot be any has no link.
fn tag_name(tag: &str) -> Option<Vec<u8>> {
    let name = tag.replace(['/', '\0'], "_");
    (!matches!(name.as_str(), "" | "." | "..") && name.len() <= 255).then(|| name.into_bytes())
}
