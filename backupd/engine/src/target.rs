//! Writing a restored tree: everything relative to the target's handle, nothing outside of it, no link followed.

use backup_format::tree::{Node, NodeKind};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, makedev};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Longer paths are opened in steps.
const STEP_BYTES: usize = 3000;

/// The directory that a restore writes into.
pub(crate) struct Target(OwnedFd);

fn resolve() -> ResolveFlags {
    ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS
}

impl Target {
    /// Opens the target, made when absent.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(path)?;
        Ok(Self(rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    pub(crate) fn is_empty(&self) -> io::Result<bool> {
        for entry in rustix::fs::Dir::read_from(&self.0)? {
            if !matches!(entry?.file_name().to_bytes(), b"." | b"..") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open_at(&self, path: &[u8], flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mut base: Option<OwnedFd> = None;
        let mut rest = path;
        while rest.len() > STEP_BYTES {
            let cut = rest.iter().take(STEP_BYTES).rposition(|byte| *byte == b'/').ok_or(Errno::NAMETOOLONG)?;
            let (step, tail) = rest.split_at(cut);
            let dir = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let next = rustix::fs::openat2(base.as_ref().unwrap_or(&self.0), step, dir, Mode::empty(), resolve())?;
            (base, rest) = (Some(next), tail.strip_prefix(b"/").unwrap_or(tail));
        }
        Ok(rustix::fs::openat2(base.as_ref().unwrap_or(&self.0), rest, flags, mode, resolve())?)
    }

    /// The directory of an entry, and its name there.
    fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(OwnedFd, &'p [u8])> {
        let dir = OFlags::RDONLY | OFlags::DIRECTORY;
        match path.iter().rposition(|byte| *byte == b'/') {
            Some(cut) => {
                let (above, name) = path.split_at(cut);
                Ok((self.open_at(above, dir, Mode::empty())?, name.strip_prefix(b"/").unwrap_or(name)))
            }
            None => Ok((self.open_at(b".", dir, Mode::empty())?, path)),
        }
    }

    pub(crate) fn exists(&self, path: &[u8]) -> io::Result<bool> {
        match self.open_at(path, OFlags::PATH, Mode::empty()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) if error.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Makes a directory, private until its attributes are set.
    pub(crate) fn make_directory(&self, path: &[u8], overwrite: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        match rustix::fs::mkdirat(&dir, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    return Ok(());
                }
                if !overwrite {
                    return Err(Errno::EXIST.into());
                }
                rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
                Ok(rustix::fs::mkdirat(&dir, name, Mode::RWXU)?)
            }
            result => Ok(result?),
        }
    }

    /// Removes what stands in the way, unless it is a directory.
    fn clear(dir: &OwnedFd, name: &[u8], overwrite: bool) -> io::Result<()> {
        if overwrite {
            match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Makes a file of its full size, all hole.
    pub(crate) fn make_file(&self, path: &[u8], size: u64, overwrite: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        Self::clear(&dir, name, overwrite)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR)?;
        if size > 0 { Ok(rustix::fs::ftruncate(&fd, size)?) } else { Ok(()) }
    }

    pub(crate) fn open_file(&self, path: &[u8]) -> io::Result<File> {
        Ok(self.open_at(path, OFlags::WRONLY, Mode::empty())?.into())
    }

    pub(crate) fn make_link(&self, first: &[u8], path: &[u8], overwrite: bool) -> io::Result<()> {
        let ((from, from_name), (dir, name)) = (self.parent(first)?, self.parent(path)?);
        Self::clear(&dir, name, overwrite)?;
        Ok(rustix::fs::linkat(&from, from_name, &dir, name, AtFlags::empty())?)
    }

    /// Makes a symbolic link, fifo, socket or device.
    pub(crate) fn make_special(&self, path: &[u8], node: &Node, overwrite: bool) -> io::Result<()> {
        let (dir, name) = self.parent(path)?;
        Self::clear(&dir, name, overwrite)?;
        let (kind, device) = match &node.kind {
            NodeKind::Symlink { target } => return Ok(rustix::fs::symlinkat(target.as_slice(), &dir, name)?),
            NodeKind::CharDevice { major, minor } => (FileType::CharacterDevice, makedev(*major, *minor)),
            NodeKind::BlockDevice { major, minor } => (FileType::BlockDevice, makedev(*major, *minor)),
            NodeKind::Socket => (FileType::Socket, 0),
            _ => (FileType::Fifo, 0),
        };
        Ok(rustix::fs::mknodat(&dir, name, kind, Mode::RUSR | Mode::WUSR, device)?)
    }

    /// Sets owner, mode, extended attributes and time; returns how many were refused.
    pub(crate) fn set_attributes(&self, path: &[u8], node: &Node) -> io::Result<u64> {
        let (dir, name) = self.parent(path)?;
        let mut refused = 0;
        let mut note = |result: std::result::Result<(), Errno>| match result {
            Ok(()) => Ok(()),
            Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL) => {
                refused += 1;
                Ok(())
            }
            Err(error) => Err(io::Error::from(error)),
        };
        let (owner, group) = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        note(rustix::fs::chownat(&dir, name, owner, group, AtFlags::SYMLINK_NOFOLLOW))?;
        let symlink = matches!(node.kind, NodeKind::Symlink { .. });
        if !symlink {
            // After the owner: changing it clears set-id bits.
            note(rustix::fs::chmodat(&dir, name, Mode::from_raw_mode(node.mode), AtFlags::empty()))?;
        }
        if !node.xattrs.is_empty() && matches!(node.kind, NodeKind::File { .. } | NodeKind::Directory { .. }) {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK;
            match self.open_at(path, flags, Mode::empty()) {
                Ok(file) => {
                    for (key, value) in &node.xattrs {
                        note(rustix::fs::fsetxattr(&file, key.as_slice(), value, XattrFlags::empty()))?;
                    }
                }
                Err(_) => note(Err(Errno::ACCESS))?,
            }
        }
        let time = Timespec { tv_sec: node.mtime_s, tv_nsec: node.mtime_ns.into() };
        let times = Timestamps { last_access: time, last_modification: time };
        note(rustix::fs::utimensat(&dir, name, &times, AtFlags::SYMLINK_NOFOLLOW))?;
        Ok(refused)
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.0)?)
    }
}
