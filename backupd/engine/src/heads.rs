//! The union of heads over stores, sources and incarnations.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::store::NamedStore;
use backup_format::{CatalogKey, IncarnationId, OpenKey, SnapshotId};

/// One snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    pub id: SnapshotId,
    pub source: String,
    pub incarnation: IncarnationId,
    pub counter: u64,
    pub taken_unix_ms: i64,
    pub partial: bool,
    pub files: u64,
    pub bytes_source: u64,
    pub bytes_added: u64,
    /// Only from [`heads_with_tags`].
    pub tag: Option<String>,
    /// Names of the stores that hold its head: those are complete for it.
    pub stores: Vec<String>,
    /// Another head claims the same counter of the same chain. An alarm; both are kept.
    pub forked: bool,
}

/// What the stores say together.
#[derive(Debug)]
pub struct Heads {
    /// Newest first.
    pub snapshots: Vec<SnapshotInfo>,
    /// Stores that did not answer.
    pub unreachable: Vec<(String, Error)>,
    /// Heads and manifests that are there and not valid: store and object name.
    pub rejected: Vec<(String, String)>,
}

/// The union of heads. An unreachable store is reported, not an error, unless none answers.
pub async fn heads(env: &Env, catalog: &CatalogKey, stores: &[NamedStore]) -> Result<Heads> {
    let _ = (env, catalog, stores);
    Err(Error::new(crate::ErrorKind::Retry, "not ready"))
}

/// The same with tags, for a holder of the open key.
pub async fn heads_with_tags(env: &Env, open: &OpenKey, stores: &[NamedStore]) -> Result<Heads> {
    heads(env, open.catalog(), stores).await
}
