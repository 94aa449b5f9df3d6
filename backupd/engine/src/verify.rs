//! Verify: without a key every name against its hash, with the open key everything a snapshot reaches.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::NamedStore;
use backup_format::{OpenKey, SnapshotId};

/// The name of an object in a store: opaque ids only.
pub type ObjectName = String;

/// How much to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyRequest {
    /// Read every pack and recompute every chunk id; otherwise catalog, trees and presence by name and size.
    pub read_data: bool,
    /// One snapshot; `None`: all whose heads the store holds.
    pub snapshot: Option<SnapshotId>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerifyOutcome {
    /// Objects checked.
    pub objects: u64,
    pub bytes_read: u64,
    pub snapshots: u64,
    pub missing: Vec<ObjectName>,
    pub corrupt: Vec<ObjectName>,
}

impl VerifyOutcome {
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.missing.is_empty() && self.corrupt.is_empty()
    }
}

/// Verifies what the snapshots reach at this store.
pub async fn verify(
    env: &Env,
    open: &OpenKey,
    store: &NamedStore,
    request: VerifyRequest,
    progress: &dyn Progress,
) -> Result<VerifyOutcome> {
    let _ = (env, open, store, request, progress);
    Err(Error::new(crate::ErrorKind::Retry, "not ready"))
}

/// Reads every object of the store and compares it with the hash in its name. Needs no key.
pub async fn verify_keyless(env: &Env, store: &NamedStore, progress: &dyn Progress) -> Result<VerifyOutcome> {
    let _ = (env, store, progress);
    Err(Error::new(crate::ErrorKind::Retry, "not ready"))
}
