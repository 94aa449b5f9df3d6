//! Where a folder store's files are. A disk or share that is away leaves an empty folder behind: a marker in the root
//! tells the store from its bare mount point.

use crate::error::{Error, ErrorKind, Result};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

/// The marker. No object has such a name.
pub(super) const MARKER: &str = "holdfast-store";
/// More than this is no marker.
const MARKER_BYTES_MAX: u64 = 256;

/// The root as the settings name it.
#[derive(Clone)]
pub(super) enum Root {
    Fixed(PathBuf),
    Removable { path: PathBuf, mark: Vec<u8> },
}

/// The root for one operation. A disk that goes meanwhile takes the operation with it: what is done through the open
/// folder can never end up on the mount point.
pub(super) struct Held {
    path: PathBuf,
    _open: Option<File>,
}

impl Root {
    pub(super) fn removable(path: PathBuf, name: &str) -> Self {
        Self::Removable { path, mark: mark(name) }
    }

    /// The root, when it is there.
    pub(super) fn hold(&self) -> io::Result<Held> {
        match self {
            Self::Fixed(path) => Ok(Held { path: path.clone(), _open: None }),
            Self::Removable { path, mark } => {
                let away = |_| io::Error::new(io::ErrorKind::NotConnected, "the disk or share is not there");
                let open = File::open(path).map_err(away)?;
                let path = PathBuf::from(format!("/proc/self/fd/{}", open.as_raw_fd()));
                match read_mark(&path) {
                    Ok(there) if there == *mark => Ok(Held { path, _open: Some(open) }),
                    Ok(_) => Err(io::Error::new(io::ErrorKind::NotConnected, "another store's disk is there")),
                    Err(error) => Err(away(error)),
                }
            }
        }
    }
}

impl Held {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

fn mark(name: &str) -> Vec<u8> {
    format!("holdfast store {name}\n").into_bytes()
}

fn read_mark(root: &Path) -> io::Result<Vec<u8>> {
    let mut there = Vec::new();
    File::open(root.join(MARKER))?.take(MARKER_BYTES_MAX).read_to_end(&mut there)?;
    Ok(there)
}

/// Makes a mounted disk or share the removable store `name`. Whether it was not so already.
pub fn mark_removable(path: &Path, name: &str) -> Result<bool> {
    let wrong = |what: &str| Err(Error::new(ErrorKind::Misconfigured, format!("store {name}: {what}")));
    if !path.is_dir() {
        return wrong("its folder is not there: plug in the disk or mount the share first");
    }
    match read_mark(path) {
        Ok(there) if there == mark(name) => return Ok(false),
        Ok(_) => return wrong("the disk carries the mark of another store: use one of its own, or that store's name"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("the marker of the store cannot be read", &error)),
    }
    let write = || {
        // The name comes last, so that a cut never leaves half a marker.
        let temporary = path.join(format!(".{MARKER}.part"));
        let mut file = File::create(&temporary)?;
        file.write_all(&mark(name))?;
        file.sync_all()?;
        fs::rename(&temporary, path.join(MARKER))?;
        File::open(path)?.sync_all()
    };
    write().map(|()| true).map_err(|error| Error::io("the marker of the store cannot be written", &error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Store, StoreLocation};
    use bytes::Bytes;

    fn store(path: &Path, name: &str) -> std::sync::Arc<dyn Store> {
        StoreLocation::Removable { path: path.to_owned(), name: name.to_owned() }.open().unwrap()
    }

    #[tokio::test]
    async fn a_disk_that_is_away_is_unreachable_and_its_mount_point_stays_empty() {
        let dir = tempfile::tempdir().unwrap();
        let (mount, away) = (dir.path().join("mount"), dir.path().join("away"));
        assert_eq!(mark_removable(&mount, "disk-a").unwrap_err().kind(), ErrorKind::Misconfigured);
        fs::create_dir(&mount).unwrap();
        assert!(mark_removable(&mount, "disk-a").unwrap() && !mark_removable(&mount, "disk-a").unwrap());
        let disk = store(&mount, "disk-a");
        disk.put("packs/aa/1", Bytes::from_static(b"one")).await.unwrap();
        assert_eq!(disk.list("").await.unwrap().len(), 1, "the marker is no object");

        fs::rename(&mount, &away).unwrap();
        for bare in [false, true] {
            if bare {
                fs::create_dir(&mount).unwrap();
            }
            let put = disk.put("packs/aa/2", Bytes::from_static(b"two")).await;
            assert_eq!(put.unwrap_err().kind(), ErrorKind::Unreachable);
            assert_eq!(disk.list("").await.unwrap_err().kind(), ErrorKind::Unreachable, "not an empty store");
            assert_eq!(
                disk.get("packs/aa/1").await.unwrap_err().kind(),
                ErrorKind::Unreachable,
                "not a missing object"
            );
        }
        assert_eq!(fs::read_dir(&mount).unwrap().count(), 0);

        fs::remove_dir(&mount).unwrap();
        fs::rename(&away, &mount).unwrap();
        assert_eq!(disk.get("packs/aa/1").await.unwrap(), "one", "it is back");
    }

    #[tokio::test]
    async fn two_disks_take_turns_at_one_place_and_are_never_mixed_up() {
        let dir = tempfile::tempdir().unwrap();
        mark_removable(dir.path(), "disk-a").unwrap();
        let refused = mark_removable(dir.path(), "disk-b").unwrap_err();
        assert!(refused.kind() == ErrorKind::Misconfigured && refused.to_string().contains("another store"));
        assert!(store(dir.path(), "disk-a").list("").await.is_ok());
        let other = store(dir.path(), "disk-b").list("").await.unwrap_err();
        assert!(other.kind() == ErrorKind::Unreachable && other.to_string().contains("another"), "{other}");
    }
}
