//! Reading a snapshot's facts and names with the open key.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::store::NamedStore;
use backup_format::{OpenKey, SnapshotId};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    File,
    Directory,
    Symlink,
    Fifo,
    Socket,
    CharDevice,
    BlockDevice,
}

/// One entry of a snapshot. Record content: only for a holder of the open key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Path from the snapshot's root, without a leading slash; not always UTF-8.
    pub path: Vec<u8>,
    pub kind: EntryKind,
    pub size: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime_unix_ns: i128,
}

/// The facts sealed into a snapshot.
pub async fn facts(env: &Env, open: &OpenKey, store: &NamedStore, id: SnapshotId) -> Result<Option<Vec<u8>>> {
    let _ = (env, open, store, id);
    Err(Error::new(crate::ErrorKind::Retry, "not ready"))
}

/// Every entry at or below `prefix` (a path; empty: everything), in tree order.
pub async fn ls(
    env: &Env,
    open: &OpenKey,
    store: &NamedStore,
    id: SnapshotId,
    prefix: &[u8],
) -> Result<Vec<Entry>> {
    let _ = (env, open, store, id, prefix);
    Err(Error::new(crate::ErrorKind::Retry, "not ready"))
}
