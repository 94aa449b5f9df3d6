//! What `backupd maintain` says of deletions: the plan, who decided what about it, and how far it has come.

use crate::status::{message, words};
use serde::{Deserialize, Serialize};

words! {
    /// How far a plan has come.
    PruneState {
        /// Waiting for two persons, or for one more.
        Proposed,
        /// Two persons agreed, or the plan takes out no snapshot; it is not announced yet.
        Approved,
        /// It lies in every store: writers have to see it, and the grace has to pass.
        Announced,
        /// It was carried out, and a lock keeps something at some store for now.
        Deleting,
        Done,
        Refused,
        /// Nothing is to go.
        Empty,
    }
}

message! {
    /// One snapshot in a plan.
    PruneRow {
        id: String,
        source: String,
        taken_unix_ms: i64,
        /// When it came, by the log and the stores: its age is counted from here.
        received_unix_ms: i64,
        goes: bool,
        /// Why it stays, in words of the settings; empty when it goes.
        reasons: Vec<String>,
    }
}

message! {
    /// A person's decision.
    PruneDecision {
        /// The name in the settings; `None` when the key is not among them any more.
        approver: Option<String>,
        fingerprint: String,
        approved: bool,
        signed_unix_ms: i64,
    }
}

message! {
    /// What was deleted at one store so far.
    PruneStore { store: String, objects: u64, bytes: u64, locked: u64, locked_bytes: u64, error: Option<String> }
}

message! {
    /// Why an announced plan is not carried out yet.
    PruneWaiting {
        /// The grace ends then.
        until_unix_ms: Option<i64>,
        /// Sources of writers that have made no snapshot since the announcement.
        writers: Vec<String>,
    }
}

message! {
    PrunePlan {
        id: String,
        state: PruneState,
        made_unix_ms: i64,
        /// The exact text that is signed: a `deletion-plan/1` of backup-report.
        document: String,
        /// SHA-256 of that text.
        sha256: String,
        /// How many persons have to approve.
        needed: u32,
        decisions: Vec<PruneDecision>,
        /// Snapshots that go, and the newest of those that stay, newest first.
        rows: Vec<PruneRow>,
        /// How many stay in all.
        kept: u64,
        waiting: Option<PruneWaiting>,
        stores: Vec<PruneStore>,
        /// Why the last step did not work; it is tried again.
        problem: Option<String>,
        /// Rules and holds that fit no snapshot.
        #[serde(default)]
        notes: Vec<String>,
        /// Whether plan, decisions and outcome stand in the log of reports.
        recorded: bool,
    }
}

message! { PruneApprover { name: String, fingerprint: String } }

message! {
    PruneStatus {
        now_unix_ms: i64,
        /// Whether this daemon may prune at all.
        enabled: bool,
        /// The rules, as people read them.
        rules: Vec<String>,
        /// Holds: id, what they are about, by whom and since when.
        holds: Vec<String>,
        approvers: Vec<PruneApprover>,
        plan: Option<PrunePlan>,
        next_plan_unix_ms: Option<i64>,
    }
}
