//! Small disks, to be filled.

use anyhow::{Result, ensure};
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small file system of its own, unmounted at the end.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; `options` as of tmpfs.
    pub fn mount(at: &Path, options: &str) -> Result<Self> {
        std::fs::create_dir_all(at)?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status()?;
        ensure!(mounted.success(), "a tmpfs cannot be mounted: run the system tests as root");
        Ok(Self(at.to_owned()))
    }

    /// Takes room until `left` bytes are free, in a file that the caller removes to give it back.
    pub fn fill(&self, left: u64) -> Result<PathBuf> {
        let stat = rustix::fs::statvfs(&self.0)?;
        let free = stat.f_bavail * stat.f_frsize;
        let file = self.0.join("filler");
        let made = std::fs::OpenOptions::new().create(true).append(true).open(&file)?;
        let mut more = free.saturating_sub(left);
        // Others write too, so what was free a moment ago may not be.
        while more > 0 {
            let taken = rustix::fs::fallocate(&made, FallocateFlags::empty(), made.metadata()?.len(), more);
            match taken {
                Ok(()) => break,
                Err(Errno::NOSPC) => more /= 2,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(file)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        // A temporary folder that was removed while it was mounted has left its mount point.
        let _ = std::fs::remove_dir(&self.0);
    }
}
