//! A snapshot: read once, seal once, send to every store, commit when the quorum holds it.

use crate::env::Env;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::store::NamedStore;
use backup_format::{SnapshotId, WriterCredential};
use std::path::PathBuf;

/// How a part's files are cut into chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// Content-defined chunks.
    Files,
    /// Fixed chunks of this many bytes, for databases and images.
    Pages { page_bytes: u32 },
}

/// One tree of a snapshot.
#[derive(Debug, Clone)]
pub struct Part {
    /// Its top-level name in the snapshot.
    pub name: String,
    /// A directory or a single file.
    pub path: PathBuf,
    pub kind: PartKind,
}

/// What to take.
#[derive(Debug, Clone)]
pub struct SnapshotRequest {
    /// The source's name, e.g. `emr`. Part of the catalog, not sealed.
    pub source: String,
    pub parts: Vec<Part>,
    /// Paths below a part, `PART/dir/file`, or bare names without a slash: neither they nor what is in them is taken.
    pub excludes: Vec<String>,
    /// Sealed in the inner manifest.
    pub tag: Option<String>,
    /// Sealed in the inner manifest.
    pub facts: Option<Vec<u8>>,
    /// How many counting stores must hold the snapshot before it is durable.
    pub quorum: u32,
    /// Rebuildable local state; `None`: none is kept, and every source file is read.
    pub state_dir: Option<PathBuf>,
}

/// What came of a snapshot at one store.
#[derive(Debug)]
pub struct StoreOutcome {
    pub store: String,
    pub counts_for_quorum: bool,
    /// The store holds everything that the snapshot reaches, and its head.
    pub durable: bool,
    pub bytes_sent: u64,
    pub duration_ms: u64,
    pub error: Option<Error>,
}

/// What came of a snapshot.
#[derive(Debug)]
pub struct SnapshotOutcome {
    pub id: SnapshotId,
    pub counter: u64,
    pub taken_unix_ms: i64,
    /// At least `quorum` counting stores are durable.
    pub durable: bool,
    /// Some file could not be read, vanished or changed: the snapshot is incomplete.
    pub partial: bool,
    pub unreadable_files: u64,
    pub files: u64,
    pub bytes_source: u64,
    /// Bytes of source files that had to be read (the others were known by their state).
    pub bytes_read: u64,
    /// Sealed bytes of packs and index objects that this snapshot added to each store.
    pub bytes_added: u64,
    pub duration_ms: u64,
    pub stores: Vec<StoreOutcome>,
}

/// Takes a snapshot. `Err` only when no store at all could take it or the request is wrong; a missed quorum is
/// `Ok` with `durable == false`, and `replicate` or the next snapshot completes it.
pub async fn snapshot(
    env: &Env,
    writer: &WriterCredential,
    stores: &[NamedStore],
    request: SnapshotRequest,
    progress: &dyn Progress,
) -> Result<SnapshotOutcome> {
    let _ = (env, writer, stores, request, progress);
    Err(Error::new(crate::ErrorKind::Retry, "not ready"))
}
