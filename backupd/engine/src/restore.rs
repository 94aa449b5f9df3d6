//! Restore from one store.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::NamedStore;
use backup_format::{OpenKey, SnapshotId};
use std::path::PathBuf;

/// What to restore, and where to.
#[derive(Debug, Clone)]
pub struct RestoreRequest {
    /// The target directory; made when absent. Nothing outside of it is written.
    pub into: PathBuf,
    /// Paths from the snapshot's root (`PART/dir/file`); empty: everything.
    pub paths: Vec<Vec<u8>>,
    /// Whether files that exist may be replaced; otherwise one existing entry refuses the restore before it starts.
    pub overwrite: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RestoreOutcome {
    pub files: u64,
    pub directories: u64,
    pub bytes: u64,
    /// Bytes read from the store.
    pub bytes_fetched: u64,
    /// Attributes (owner, device, extended attribute) that this user or file system could not set.
    pub attributes_refused: u64,
    pub duration_ms: u64,
}

/// Restores from this one store. Every chunk's id is recomputed before its bytes are written.
pub async fn restore(
    env: &Env,
    open: &OpenKey,
    store: &NamedStore,
    id: SnapshotId,
    request: RestoreRequest,
    progress: &dyn Progress,
) -> Result<RestoreOutcome> {
    let _ = (env, open, store, id, request, progress);
    Err(Error::new(crate::ErrorKind::Retry, "not ready"))
}
