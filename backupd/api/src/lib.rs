//! The messages of `backupd serve`, `backupd verifier` and `backupd maintain`: one set over a Unix socket (peer credentials checked) or
//! mutual TLS. One connection carries newline-delimited JSON: the client writes one [`Request`], the daemon answers with
//! any number of [`Event::Progress`] lines and then exactly one other [`Event`].
//!
//! No message that a console can ask for holds a path, a file name or record content: requests of names
//! ([`Request::names`]) and their answers are only for the Unix socket of the verifier.

mod client;
mod names;
mod prune;
mod status;
mod wire;

pub use client::{Client, ClientError, Endpoint, EndpointError, PROGRESS_EVERY, TlsIdentity};
pub use names::*;
pub use prune::*;
pub use status::*;
pub use wire::{ACCESS_REFUSED, Connection, Incoming, Listener, Peer, WireError};

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The version of these messages.
pub const PROTOCOL: u32 = 1;
/// The longest line either side accepts, bytes.
pub const LINE_BYTES_MAX: usize = 8 << 20;

/// What a client asks. `serve` answers the first group, `verifier` the second, `maintain` the third; each refuses the others'
/// by name.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    // serve
    Snapshot {
        tag: Option<String>,
    },
    Status,
    Stores,
    Schedule,
    Duties,
    /// Damage was found in this store: look at all of it, and heal what another store has whole. With `objects`: look at these
    /// alone, so that the next snapshot does not rest on what is damaged.
    LookAt {
        store: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        objects: Vec<String>,
    },
    /// Somebody has looked into the alert `source-set-back` or `head-gap` with this subject: it is closed.
    LookedInto {
        subject: String,
    },
    // both
    Snapshots,
    // verifier
    /// What the stores with versions held at a time, past overwrites and deletions; `None`: all of these stores.
    SnapshotsAsOf {
        unix_ms: i64,
        store: Option<String>,
    },
    Ls {
        snapshot: String,
        path: Option<String>,
        /// How many levels below the path; `None`: all.
        depth: Option<u32>,
    },
    /// The files that a snapshot could not take as they were.
    Unreadable {
        snapshot: String,
    },
    Diff {
        before: String,
        after: String,
        path: Option<String>,
    },
    Find {
        /// `None`: in all snapshots.
        snapshot: Option<String>,
        wanted: FindWanted,
    },
    Restore {
        snapshot: String,
        store: Option<String>,
        into: PathBuf,
        paths: Vec<String>,
        /// Whether what differs in the target may be written over.
        overwrite: bool,
        /// From stores with versions as they were then.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_of_unix_ms: Option<i64>,
    },
    /// One file of the EMR's records as they were, for the EMR to look at and no longer there when it has been sent. Only
    /// over the verifier's Unix socket.
    Lend {
        snapshot: String,
        file: Lent,
    },
    Verify {
        store: Option<String>,
        read_data: bool,
    },
    /// Restore from one store, start the real EMR on it, compare, sign. `None`: the store whose turn it is.
    Drill {
        store: Option<String>,
    },
    Reports,
    /// One report with its signature and proof, as stored.
    Report {
        id: String,
    },
    /// Everything an auditor needs for one report, as named files.
    Evidence {
        id: String,
    },
    /// Adds an owner's approval of a report (an Ed25519 signature by the owner's own key over the report's SHA-256).
    Approve {
        id: String,
        approval: Vec<u8>,
    },
    /// Adds a deletion plan and a person's signed decision about it to the log.
    RecordDecision {
        plan: String,
        decision: String,
    },
    /// Adds what became of a deletion plan, which stands in the log with two persons' approvals.
    RecordDeletion {
        done: String,
    },
    VerifierStatus,
    // maintain
    MaintainStatus,
    /// Look for damage now, and heal what is found.
    Heal {
        store: Option<String>,
        /// Every object, not only what is due.
        all: bool,
    },
    /// What is planned to be deleted, and how far that has come.
    PruneStatus,
    /// Make a new deletion plan now. Changes no store.
    PrunePlan,
    /// A person's signed decision about the plan, as `report-verify decide` makes it.
    PruneDecide {
        decision: String,
    },
    /// Go on with the approved plan now.
    PruneExecute,
}

impl Request {
    /// Whether the answer holds names of records: only told on the verifier's own machine.
    #[must_use]
    pub fn names(&self) -> bool {
        matches!(
            self,
            Self::Ls { .. }
                | Self::Unreadable { .. }
                | Self::Diff { .. }
                | Self::Find { .. }
                | Self::Restore { .. }
                | Self::Lend { .. }
        )
    }
}

/// What a daemon answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    Progress(Progress),
    SnapshotDone(SnapshotDone),
    Status(Box<Status>),
    Stores {
        stores: Vec<StoreStatus>,
    },
    Schedule {
        jobs: Vec<ScheduledJob>,
    },
    Duties {
        duties: Vec<Duty>,
        sha256: String,
    },
    LookedAt {
        /// The store holds everything, and all of it is what was written; or the objects that were named are.
        whole: bool,
    },
    AlertClosed,
    Snapshots {
        snapshots: Vec<SnapshotRow>,
    },
    Ls {
        entries: Vec<LsRow>,
    },
    Unreadable {
        count: u64,
        files: Vec<UnreadableRow>,
    },
    /// Several lines where there is much to tell; the last one has `done`.
    Diff {
        changes: Vec<DiffRow>,
        done: Option<DiffDone>,
    },
    Found {
        entries: Vec<FoundRow>,
    },
    RestoreDone(RestoreDone),
    /// A piece of a lent file, in order; the last one says so.
    Lent {
        base64: String,
        last: bool,
    },
    VerifyDone(VerifyDone),
    DrillDone(DrillDone),
    Reports {
        reports: Vec<ReportRow>,
    },
    Evidence {
        files: Vec<EvidenceFile>,
    },
    Approved,
    /// The entries stand in the log.
    Recorded,
    Prune(Box<PruneStatus>),
    VerifierStatus(VerifierStatus),
    MaintainStatus(MaintainStatus),
    HealDone {
        stores: Vec<MaintainStore>,
    },
    Failed(Failure),
}

/// What is lent of the EMR's records: their places in a snapshot are fixed, and nothing else of one is handed out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Lent {
    /// The database.
    Records,
    /// An attachment, by the name of its file: 64 digits of hex.
    Attachment { name: String },
}

/// Why a request failed: a kind that says what to do next, and a sentence without record content.
#[derive(Debug, Clone, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureKind {
    /// Try again later.
    Retry,
    /// Something else is running that excludes this.
    Busy,
    /// Stored bytes are wrong or gone; the message names the object, never a file.
    Damaged,
    /// A setting, key or argument is wrong; the message says which.
    Misconfigured,
    /// The caller may not ask this, or not here.
    Denied,
    NotFound,
    /// The other daemon answers this request.
    WrongDaemon,
    NoSpace,
}
