//! One process at a time holds a data folder.

use super::StoreError;
use rustix::fs::{FlockOperation, flock};
use std::fs::File;
use std::path::Path;

/// An exclusive lock on a data folder; the kernel releases it when the process ends, however it ends.
pub struct DataLock {
    _file: File,
}

impl DataLock {
    pub fn acquire(data_dir: &Path) -> Result<DataLock, StoreError> {
        let path = data_dir.join("lock");
        let file = File::options().create(true).append(true).open(path).map_err(StoreError::io("lock file"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|error| match error {
            rustix::io::Errno::WOULDBLOCK => StoreError::InUse,
            other => StoreError::io("lock file")(other.into()),
        })?;
        Ok(DataLock { _file: file })
    }
}
