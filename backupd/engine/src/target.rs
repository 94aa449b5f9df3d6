//! Writing a restored tree: everything relative to open directories of the target, nothing outside of it, no link
//! followed.
//!
//! A directory is opened from its parent's handle by one plain name (the tree's parser lets no other pass) and never
//! through a link, so that a handle can only be that of a directory below the target, whatever stands there and whoever
//! renames it meanwhile.

use backup_format::wire::Reader;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

/// Directories that one worker keeps open.
const HANDLES_MAX: usize = 64;
/// The capability of a program: a change of owner or content would take it away again.
const SET_ID_BITS: u32 = 0o6000;
/// Access lists: an entry's own, and the one that a directory hands on to what is made in it.
const ACCESS_LIST: &str = "system.posix_acl_access";
const DEFAULT_LIST: &str = "system.posix_acl_default";

/// The directory that a restore writes into.
pub(crate) struct Target(OwnedFd);

impl Target {
    /// Opens the target, made when absent.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.0
    }

    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}

/// Directories by number: 0 is the target itself, each other one has a name in its parent.
pub(crate) trait Directories {
    /// The parent's number and the name in it; `None` for the target.
    fn place(&self, number: u32) -> Option<(u32, &[u8])>;
}

/// An open directory.
pub(crate) struct Handle {
    fd: OwnedFd,
    used: u64,
    /// Owner and mode of what is made here, once something was.
    made: Option<Standing>,
    /// Whether what is made here gets an access list of this directory, once that was asked.
    hands_on: Option<bool>,
}

/// Owner and mode of a file as it stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    owner: (u32, u32),
    mode: u32,
}

impl Standing {
    pub(crate) fn of(fd: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(fd)?;
        Ok(Self { owner: (stat.st_uid, stat.st_gid), mode: stat.st_mode & 0o7777 })
    }
}

/// The directories that one worker has open.
pub(crate) struct Handles {
    open: HashMap<u32, Handle>,
    tick: u64,
}

fn open_directory(parent: &OwnedFd, name: &[u8]) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

impl Handles {
    pub(crate) fn new(target: &Target) -> io::Result<Self> {
        let root = Handle { fd: target.0.try_clone()?, used: u64::MAX, made: None, hands_on: None };
        Ok(Self { open: HashMap::from([(0, root)]), tick: 0 })
    }

    /// The directory with this number, opened from the nearest one that is open already.
    pub(crate) fn get(&mut self, directories: &dyn Directories, number: u32) -> io::Result<&mut Handle> {
        self.tick += 1;
        let mut path = Vec::new();
        let mut at = number;
        while !self.open.contains_key(&at) {
            let (parent, _) = directories.place(at).ok_or(io::ErrorKind::InvalidInput)?;
            path.push(at);
            at = parent;
        }
        // Only the last ones of a long way down are worth keeping.
        let mut above: Option<OwnedFd> = None;
        while let Some(next) = path.pop() {
            let (parent, name) = directories.place(next).ok_or(io::ErrorKind::InvalidInput)?;
            let parent = match &above {
                Some(fd) => fd,
                None => &self.open.get(&parent).ok_or(io::ErrorKind::InvalidInput)?.fd,
            };
            let fd = open_directory(parent, name)?;
            above = if path.len() < HANDLES_MAX / 2 {
                self.keep(next, fd);
                None
            } else {
                Some(fd)
            };
        }
        let tick = self.tick;
        let handle = self.open.get_mut(&number).ok_or(io::ErrorKind::InvalidInput)?;
        if number != 0 {
            handle.used = tick;
        }
        Ok(handle)
    }

    fn keep(&mut self, number: u32, fd: OwnedFd) {
        if self.open.len() >= HANDLES_MAX
            && let Some(oldest) = self.open.iter().min_by_key(|(_, handle)| handle.used).map(|(number, _)| *number)
        {
            self.open.remove(&oldest);
        }
        self.open.insert(number, Handle { fd, used: self.tick, made: None, hands_on: None });
    }
}

/// What a restored entry gets beside its content.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attributes<'x> {
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: (i64, u32),
    /// Names and values, as in a tree page: a count, then pairs of byte strings.
    pub(crate) xattrs: &'x [u8],
}

/// A special file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Special<'t> {
    Symlink(&'t [u8]),
    Node(FileType, u64),
}

impl Special<'_> {
    /// Device nodes are for privileged users only.
    pub(crate) fn is_device(&self) -> bool {
        matches!(self, Self::Node(FileType::CharacterDevice | FileType::BlockDevice, _))
    }
}

impl Handle {
    pub(crate) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// What stands under a name, if anything.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a directory, private until its attributes are set; one that is there is made writable for us.
    pub(crate) fn make_directory(&self, name: &[u8], overwrite: bool) -> io::Result<()> {
        let private = Mode::RWXU;
        match rustix::fs::mkdirat(&self.fd, name, private) {
            Err(Errno::EXIST) => {}
            made => return Ok(made?),
        }
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            if stat.st_mode & private.bits() != private.bits() {
                // Whether it was allowed shows when something is made in it.
                let mode = Mode::from_raw_mode(stat.st_mode & 0o7777 | private.bits());
                let _ = self.open_path(name).and_then(|fd| Ok(rustix::fs::chmod(by_descriptor(&fd), mode)?));
            }
            return Ok(());
        }
        if !overwrite {
            return Err(Errno::EXIST.into());
        }
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?;
        Ok(rustix::fs::mkdirat(&self.fd, name, private)?)
    }

    /// Removes what stands under a name; a directory only when it is empty.
    pub(crate) fn clear(&self, name: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => Ok(rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?),
            Err(Errno::NOENT) => Ok(()),
            done => Ok(done?),
        }
    }

    /// Makes a new file, private until its attributes are set.
    pub(crate) fn make_file(&mut self, name: &[u8], overwrite: bool) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let make = || rustix::fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR);
        let fd = match make() {
            Err(Errno::EXIST) if overwrite => {
                self.clear(name)?;
                make()?
            }
            made => made?,
        };
        if self.made.is_none() {
            self.made = Some(Standing::of(&fd)?);
        }
        Ok(fd.into())
    }

    /// Opens a file of the target again.
    pub(crate) fn open_file(&self, name: &[u8], flags: OFlags) -> io::Result<File> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty())?;
        if FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) != FileType::RegularFile {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(fd.into())
    }

    fn open_path(&self, name: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?)
    }

    /// Owner and mode of the files that are made here, if one was.
    pub(crate) fn made(&self) -> Option<Standing> {
        self.made
    }

    /// Whether files that are made here have an access list from the start: the target may be a folder whose default list
    /// gives its content to others, and that is not how the files were.
    pub(crate) fn hands_on(&mut self) -> bool {
        let fd = &self.fd;
        *self.hands_on.get_or_insert_with(|| rustix::fs::fgetxattr(fd, DEFAULT_LIST, &mut [0u8; 0][..]).is_ok())
    }

    pub(crate) fn make_link(&self, name: &[u8], to: (&OwnedFd, &[u8])) -> io::Result<()> {
        Ok(rustix::fs::linkat(to.0, to.1, &self.fd, name, AtFlags::empty())?)
    }

    /// Makes a symbolic link, fifo, socket or device.
    pub(crate) fn make_special(&self, name: &[u8], special: Special<'_>) -> io::Result<()> {
        match special {
            Special::Symlink(target) => Ok(rustix::fs::symlinkat(target, &self.fd, name)?),
            Special::Node(kind, device) => {
                Ok(rustix::fs::mknodat(&self.fd, name, kind, Mode::RUSR | Mode::WUSR, device)?)
            }
        }
    }

    /// Sets the attributes of a special file that was just made; returns how many were refused.
    pub(crate) fn set_special(&mut self, name: &[u8], special: Special<'_>, to: Attributes<'_>) -> io::Result<u64> {
        let mut refused = Refused::default();
        let (owner, group) = (Some(Uid::from_raw(to.uid)), Some(Gid::from_raw(to.gid)));
        let owned = refused.note(rustix::fs::chownat(&self.fd, name, owner, group, AtFlags::SYMLINK_NOFOLLOW))?;
        let mode = matches!(special, Special::Node(..)).then(|| allowed_mode(to.mode, owned));
        if mode.is_some() || !to.xattrs.is_empty() {
            let fd = self.open_path(name)?;
            let path = by_descriptor(&fd);
            if let Some(mode) = mode {
                if self.hands_on() {
                    refused.note_absent(rustix::fs::removexattr(path.as_str(), ACCESS_LIST))?;
                }
                refused.note(rustix::fs::chmod(path.as_str(), mode))?;
            }
            for (key, value) in Xattrs::of(to.xattrs) {
                refused.note_xattr(rustix::fs::setxattr(path.as_str(), key, value, XattrFlags::empty()))?;
            }
        }
        refused.note(rustix::fs::utimensat(&self.fd, name, &times(to.mtime), AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(refused.0)
    }

    /// Sets a directory's attributes and takes away others, which it may have from the directory above or from before;
    /// returns how many were refused.
    pub(crate) fn set_own(&self, to: Attributes<'_>) -> io::Result<u64> {
        let refused = remove_other_xattrs(&self.fd, to)?;
        Ok(refused + set_attributes(&self.fd, None, to)?)
    }
}

/// The way to an entry that is open only as a place: operations on it cannot be led elsewhere.
fn by_descriptor(fd: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

fn times(mtime: (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: mtime.0, tv_nsec: mtime.1.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Set-id bits only with the right owner: another owner must not lend its rights.
fn allowed_mode(mode: u32, owned: bool) -> Mode {
    Mode::from_raw_mode(if owned { mode } else { mode & !SET_ID_BITS })
}

/// Sets all attributes of an open file or directory; `now` says how it stands, if that is known. The order matters: a
/// new owner takes set-id bits and capabilities away, and `user.` attributes need the permission to write.
pub(crate) fn set_attributes(fd: impl AsFd, now: Option<Standing>, to: Attributes<'_>) -> io::Result<u64> {
    let mut refused = Refused::default();
    let (mut owned, given) = (true, now.map(|now| now.owner) != Some((to.uid, to.gid)));
    if given {
        owned = refused.note(rustix::fs::fchown(&fd, Some(Uid::from_raw(to.uid)), Some(Gid::from_raw(to.gid))))?;
    }
    let users = |(key, _): &(&[u8], &[u8])| key.starts_with(b"user.");
    for (key, value) in Xattrs::of(to.xattrs).filter(users) {
        refused.note_xattr(rustix::fs::fsetxattr(&fd, key, value, XattrFlags::empty()))?;
    }
    // Set-id bits that were right went with the change of owner.
    if given || now.map(|now| now.mode) != Some(to.mode) {
        refused.note(rustix::fs::fchmod(&fd, allowed_mode(to.mode, owned)))?;
    }
    for (key, value) in Xattrs::of(to.xattrs).filter(|pair| !users(pair)) {
        refused.note_xattr(rustix::fs::fsetxattr(&fd, key, value, XattrFlags::empty()))?;
    }
    refused.note(rustix::fs::futimens(&fd, &times(to.mtime)))?;
    Ok(refused.0)
}

/// Takes away the extended attributes that an entry must not have; returns how many could not be. Those that the machine
/// itself gives, such as labels, are left alone.
pub(crate) fn remove_other_xattrs(fd: impl AsFd, to: Attributes<'_>) -> io::Result<u64> {
    let mut refused = Refused::default();
    if matches!(rustix::fs::flistxattr_query(&fd), Ok(0) | Err(Errno::OPNOTSUPP)) {
        return Ok(0);
    }
    let mut list = vec![0u8; 64 << 10];
    let len = rustix::fs::flistxattr(&fd, list.as_mut_slice())?;
    list.truncate(len);
    let ours = |name: &[u8]| {
        [b"user.".as_slice(), b"trusted.", b"system.posix_acl_", b"security.capability"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    for name in list.split(|byte| *byte == 0).filter(|name| ours(name)) {
        if !Xattrs::of(to.xattrs).any(|(key, _)| key == name) {
            refused.note_absent(rustix::fs::fremovexattr(&fd, name))?;
        }
    }
    Ok(refused.0)
}

/// Takes away the access list that a file has from its directory; returns how many could not be.
pub(crate) fn remove_handed_on(fd: impl AsFd) -> io::Result<u64> {
    let mut refused = Refused::default();
    refused.note_absent(rustix::fs::fremovexattr(fd, ACCESS_LIST))?;
    Ok(refused.0)
}

/// Counts attributes that this user or file system may not set.
#[derive(Default)]
struct Refused(u64);

impl Refused {
    /// Whether it was set.
    fn note(&mut self, result: rustix::io::Result<()>) -> io::Result<bool> {
        match result {
            Ok(()) => Ok(true),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {
                self.0 += 1;
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What is to go may not be there.
    fn note_absent(&mut self, result: rustix::io::Result<()>) -> io::Result<bool> {
        match result {
            Err(Errno::NODATA) => Ok(true),
            result => self.note_xattr(result),
        }
    }

    /// A file system may also have too little room for attributes, or none for such long ones.
    fn note_xattr(&mut self, result: rustix::io::Result<()>) -> io::Result<bool> {
        match result {
            Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE | Errno::NODATA) => self.note(Err(Errno::OPNOTSUPP)),
            result => self.note(result),
        }
    }
}

/// Goes over extended attributes as a tree page has them.
struct Xattrs<'x> {
    reader: Reader<'x>,
    left: usize,
}

impl<'x> Xattrs<'x> {
    fn of(bytes: &'x [u8]) -> Self {
        let mut reader = Reader::new(bytes, "extended attributes");
        let left = if bytes.is_empty() { 0 } else { reader.count(bytes.len()).unwrap_or(0) };
        Self { reader, left }
    }
}

impl<'x> Iterator for Xattrs<'x> {
    type Item = (&'x [u8], &'x [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        Some((self.reader.bytes(usize::MAX).ok()?, self.reader.bytes(usize::MAX).ok()?))
    }
}
