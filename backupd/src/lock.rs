//! One daemon to a state folder.

use rustix::fs::{FlockOperation, flock};
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Held as long as the daemon lives; the kernel frees it whatever ends the daemon.
#[derive(Debug)]
pub struct StateLock {
    _file: File,
}

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another backupd uses the state folder {}: stop it first, or give this one its own `state_dir`", .0.display())]
    Held(PathBuf),
    #[error("the state folder {} cannot be used ({kind}): check `state_dir` and its permissions", path.display())]
    Folder { path: PathBuf, kind: io::ErrorKind },
}

impl StateLock {
    /// Makes the folder (0700) when it is absent and locks it.
    pub fn take(dir: &Path) -> Result<Self, LockError> {
        let failed = |e: io::Error| LockError::Folder { path: dir.to_owned(), kind: e.kind() };
        DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed)?;
        let path = dir.join("lock");
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(failed)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(LockError::Held(dir.to_owned())),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let first = StateLock::take(&state).unwrap();
        let refusal = StateLock::take(&state).unwrap_err().to_string();
        assert!(refusal.contains("state_dir"), "{refusal}");
        drop(first);
        StateLock::take(&state).unwrap();
    }
}
