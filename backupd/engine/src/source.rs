//! The source tree as the engine sees it: directories relative to open handles, never by path.

use rustix::fs::{AtFlags, Mode, OFlags, SeekFrom, Statx, StatxFlags};
use rustix::io::Errno;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// What the engine asks about an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    pub kind: StatKind,
    /// Permission bits, without the type.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub size: u64,
    pub mtime: (i64, u32),
    pub ctime: (i64, u32),
    pub device: (u32, u32),
    pub inode: u64,
    pub links: u32,
    /// Of a device node.
    pub rdev: (u32, u32),
    /// Fewer blocks than its size needs: it has holes.
    pub sparse: bool,
}

/// Extended attributes, sorted by name.
pub type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// The local file system, for reading sources.
pub trait SourceFs: Send + Sync {
    /// Opens a part's path: a directory or one file.
    fn open(&self, path: &Path) -> io::Result<SourceRoot>;
}

/// What a part's path turned out to be.
pub enum SourceRoot {
    Directory(Box<dyn SourceDir>),
    File(Box<dyn SourceFile>),
}

/// An open directory.
pub trait SourceDir: Send + Sync {
    fn stat(&self) -> io::Result<Stat>;
    fn xattrs(&self) -> io::Result<Xattrs>;
    /// Names of all entries, in any order.
    fn names(&self) -> io::Result<Vec<Vec<u8>>>;
    fn stat_entry(&self, name: &[u8]) -> io::Result<Stat>;
    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn SourceDir>>;
    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>>;
    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>>;
    /// Of an entry that cannot be opened: a symbolic link, a device, a fifo, a socket.
    fn xattrs_entry(&self, name: &[u8]) -> io::Result<Xattrs> {
        let _ = name;
        Ok(Vec::new())
    }
}

/// An open file.
pub trait SourceFile: Send {
    fn stat(&self) -> io::Result<Stat>;
    fn xattrs(&self) -> io::Result<Xattrs>;
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// The next range with data at or after `offset`; `None`: only a hole until the end.
    fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>>;
}

/// The machine's file system.
pub struct RealFs;

impl SourceFs for RealFs {
    fn open(&self, path: &Path) -> io::Result<SourceRoot> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        match stat_fd(&fd)?.kind {
            StatKind::Directory => Ok(SourceRoot::Directory(Box::new(RealDir(fd)))),
            StatKind::File => Ok(SourceRoot::File(Box::new(RealFile(fd.into())))),
            _ => Err(io::Error::from(io::ErrorKind::InvalidInput)),
        }
    }
}

struct RealDir(OwnedFd);
struct RealFile(std::fs::File);

/// Access times stay as they are where the user may ask for that.
fn open_beneath(dir: &OwnedFd, name: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    match rustix::fs::openat(dir, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => Ok(rustix::fs::openat(dir, name, flags, Mode::empty())?),
        result => Ok(result?),
    }
}

impl SourceDir for RealDir {
    fn stat(&self) -> io::Result<Stat> {
        stat_fd(&self.0)
    }

    fn xattrs(&self) -> io::Result<Xattrs> {
        xattrs_fd(&self.0)
    }

    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_vec());
            }
        }
        Ok(names)
    }

    fn stat_entry(&self, name: &[u8]) -> io::Result<Stat> {
        convert(&rustix::fs::statx(&self.0, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS)?)
    }

    fn open_dir(&self, name: &[u8]) -> io::Result<Box<dyn SourceDir>> {
        Ok(Box::new(Self(open_beneath(&self.0, name, OFlags::DIRECTORY)?)))
    }

    fn open_file(&self, name: &[u8]) -> io::Result<Box<dyn SourceFile>> {
        Ok(Box::new(RealFile(open_beneath(&self.0, name, OFlags::empty())?.into())))
    }

    fn read_link(&self, name: &[u8]) -> io::Result<Vec<u8>> {
        Ok(rustix::fs::readlinkat(&self.0, name, Vec::new())?.into_bytes())
    }

    fn xattrs_entry(&self, name: &[u8]) -> io::Result<Xattrs> {
        // There is no call relative to a directory; the way through /proc stays inside the open one.
        let path = [format!("/proc/self/fd/{}/", self.0.as_raw_fd()).as_bytes(), name].concat();
        let list = |list: &mut [u8]| rustix::fs::llistxattr(path.as_slice(), list);
        let value = |name: &[u8], value: &mut [u8]| rustix::fs::lgetxattr(path.as_slice(), name, value);
        match read_xattrs(list, value) {
            // Without /proc there is no way; the entry itself is not lost for that.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            found => found,
        }
    }
}

impl SourceFile for RealFile {
    fn stat(&self) -> io::Result<Stat> {
        stat_fd(&self.0)
    }

    fn xattrs(&self) -> io::Result<Xattrs> {
        xattrs_fd(&self.0)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<(u64, u64)>> {
        let start = match rustix::fs::seek(&self.0, SeekFrom::Data(offset)) {
            Err(Errno::NXIO) => return Ok(None),
            // A file system without holes.
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some((offset, u64::MAX))),
            start => start?,
        };
        Ok(Some((start, rustix::fs::seek(&self.0, SeekFrom::Hole(start))?)))
    }
}

fn stat_fd(fd: impl std::os::fd::AsFd) -> io::Result<Stat> {
    convert(&rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?)
}

fn convert(from: &Statx) -> io::Result<Stat> {
    use rustix::fs::FileType;
    let kind = match FileType::from_raw_mode(u32::from(from.stx_mode)) {
        FileType::RegularFile => StatKind::File,
        FileType::Directory => StatKind::Directory,
        FileType::Symlink => StatKind::Symlink,
        FileType::Fifo => StatKind::Fifo,
        FileType::Socket => StatKind::Socket,
        FileType::CharacterDevice => StatKind::CharDevice,
        FileType::BlockDevice => StatKind::BlockDevice,
        FileType::Unknown => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    Ok(Stat {
        kind,
        mode: u32::from(from.stx_mode) & 0o7777,
        uid: from.stx_uid,
        gid: from.stx_gid,
        size: from.stx_size,
        mtime: (from.stx_mtime.tv_sec, from.stx_mtime.tv_nsec),
        ctime: (from.stx_ctime.tv_sec, from.stx_ctime.tv_nsec),
        device: (from.stx_dev_major, from.stx_dev_minor),
        inode: from.stx_ino,
        links: from.stx_nlink,
        rdev: (from.stx_rdev_major, from.stx_rdev_minor),
        sparse: from.stx_blocks.saturating_mul(512) < from.stx_size,
    })
}

fn xattrs_fd(fd: impl std::os::fd::AsFd) -> io::Result<Xattrs> {
    read_xattrs(|list| rustix::fs::flistxattr(&fd, list), |name, value| rustix::fs::fgetxattr(&fd, name, value))
}

fn read_xattrs(
    list: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
    get: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
) -> io::Result<Xattrs> {
    let mut small = [0u8; 1024];
    let names = match list(&mut small) {
        Ok(0) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(Vec::new()),
        Ok(len) => small.get(..len).unwrap_or_default().to_vec(),
        Err(Errno::RANGE) => {
            let mut large = vec![0u8; 1 << 16];
            let len = list(&mut large)?;
            large.truncate(len);
            large
        }
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    let mut value = vec![0u8; 1 << 16];
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        match get(name, value.as_mut_slice()) {
            Ok(len) => found.push((name.to_vec(), value.get(..len).unwrap_or_default().to_vec())),
            // It vanished between the two calls, or is not ours to read.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort();
    Ok(found)
}
