//! Where restored records lie during a drill: for the daemon's own user alone, and gone afterwards.

use anyhow::Context;
use std::io;
use std::path::{Path, PathBuf};

/// Restored data; a probe unit looks there.
const RESTORED: &str = "restored";

/// Restored records; removed when dropped.
pub struct Sandbox(PathBuf);

impl Sandbox {
    pub fn make(dir: &Path) -> anyhow::Result<Self> {
        remove_leftovers(dir)?;
        crate::secret::make_private_dir(dir)?;
        let restored = dir.join(RESTORED);
        crate::secret::make_private_dir(&restored)?;
        Ok(Self(restored))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            log::error!(reason:% = error.kind(); "sandbox.not-removed");
        }
    }
}

/// Removes what a killed daemon left of a drill.
pub fn remove_leftovers(dir: &Path) -> anyhow::Result<()> {
    remove(&dir.join(RESTORED)).with_context(|| format!("restored records in {} cannot be removed", dir.display()))
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn restored_records_are_private_and_do_not_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("sandbox");
        std::fs::create_dir_all(root.join("restored/old")).unwrap();
        let sandbox = Sandbox::make(&root).unwrap();
        assert!(!root.join("restored/old").exists(), "an earlier drill's records were left");
        assert_eq!(std::fs::metadata(sandbox.path()).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(sandbox.path().join("x"), "record").unwrap();
        drop(sandbox);
        assert!(!root.join("restored").exists());
    }
}
