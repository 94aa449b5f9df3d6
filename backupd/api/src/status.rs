//! The answers' shapes. Times are Unix milliseconds, sizes bytes.

use serde::{Deserialize, Serialize};

macro_rules! message {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
    };
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $word:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vmeta])* $word),* }
    };
}

pub(crate) use {message, words};

words! {
    /// The phase that a long request is in.
    Phase { Quiesce, Read, Send, Commit, Fetch, Start, Compare, Sign }
}

message! {
    Progress { phase: Phase, done_bytes: u64, total_bytes: Option<u64>, store: Option<String> }
}

words! {
    /// How far a snapshot has come: read, encrypted and on its way, durable at the quorum, at all stores, proved by a drill.
    SnapshotState { Captured, Sealed, Durable, Full, Proved }
}

message! {
    SnapshotDone {
        id: String,
        counter: u64,
        state: SnapshotState,
        /// It waits in the spool for more stores.
        spooled: bool,
        /// Some file could not be read: the snapshot is incomplete and does not count for RPO.
        partial: bool,
        /// How many files, by reason.
        unreadable: Unreadable,
        /// Settings and keys that a recovery needs and that are gone from their places.
        kept_gone: Vec<KeptGone>,
        /// The source said that its original is damaged: it is whole as a snapshot, and not as records.
        source_damaged: bool,
        files: u64,
        bytes_source: u64,
        /// Sealed bytes that this snapshot added to each store.
        bytes_added: u64,
        write_stall_us: u64,
        duration_ms: u64,
        stores: Vec<StoreOutcome>,
    }
}

words! {
    /// What a file that travels with every snapshot is.
    KeptKind {
        ServeSettings,
        VerifierSettings,
        MaintainSettings,
        CommandLineSettings,
        EmrSettings,
        ConsoleSettings,
        AgentSettings,
        OtherSettings,
        Key,
        Certificate,
        CertificateFolder,
        Other,
    }
}

/// A file that every snapshot has to carry and that cannot be read at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeptGone {
    pub kind: KeptKind,
    /// Its last known copy travels in its place.
    pub carried: bool,
}

message! {
    /// Files that could not be taken as they were: counts only.
    Unreadable { denied: u64, vanished: u64, changed: u64, input_output: u64 }
}

message! {
    StoreOutcome { store: String, durable: bool, bytes_sent: u64, duration_ms: u64, error: Option<String> }
}

words! {
    /// Four words that never mean each other, beside `ok`, and `unknown` where it was not asked yet.
    StoreCondition { Ok, Unreachable, Late, Missing, Corrupt, Unknown }
}

words! {
    StoreRole {
        /// Counts for the quorum.
        Quorum,
        /// Holds everything and is not waited for.
        Copy,
        /// A folder that the server itself can write: handy, never protection.
        Convenience,
    }
}

words! {
    /// What the daemon's own credentials can do to what a store holds, as last tried.
    StoreProtection {
        Unknown,
        /// Old bytes stay as versions that a lock keeps.
        Locked,
        /// The store refuses to overwrite and to delete.
        Refused,
        /// Overwriting or deleting loses what was there.
        Unprotected,
    }
}

message! {
    /// The business associate agreement with a store's provider.
    Baa { reference: String, until: String, expired: bool }
}

/// What an earlier `serve`, which does not say, always took for granted.
fn yes() -> bool {
    true
}

message! {
    StoreStatus {
        name: String,
        kind: String,
        site: String,
        provider: String,
        region: Option<String>,
        /// The account at the provider.
        account: Option<String>,
        baa: Option<Baa>,
        protection: StoreProtection,
        /// Sent to only at this time of the day, `HH:MM-HH:MM` in the practice's zone.
        upload_window: Option<String>,
        /// Standing at another site than the server.
        apart: bool,
        role: StoreRole,
        condition: StoreCondition,
        /// It has answered once, now or before a restart. Else how far it is behind and what it holds is not known.
        #[serde(default = "yes")]
        known: bool,
        /// Snapshots that it has yet to receive, what these added, and how far the newest is ahead of what it has.
        lag_snapshots: u64,
        lag_bytes: u64,
        lag_ms: u64,
        bytes: Option<u64>,
        complete_unix_ms: Option<i64>,
        proved_unix_ms: Option<i64>,
        /// An object id when the condition is missing or corrupt.
        object: Option<String>,
        /// Why it is unreachable or late, where that is known.
        #[serde(default)]
        reason: Option<String>,
        /// When it was seen to have lost something that is there again: until everything was found there, or somebody has looked.
        #[serde(default)]
        lost_unix_ms: Option<i64>,
    }
}

message! {
    Status {
        practice: String,
        repository: String,
        now_unix_ms: i64,
        started_unix_ms: i64,
        last_snapshot: Option<SnapshotRow>,
        /// Id and time of the newest snapshot that is whole and durable; the newest by the snapshots' links.
        last_durable: Option<String>,
        last_durable_unix_ms: Option<i64>,
        stores: Vec<StoreStatus>,
        /// Distinct sites, apart from the server's, that hold the newest durable snapshot.
        sites_apart: u32,
        quorum_needed: u32,
        /// `None`: the settings have none.
        spool: Option<SpoolStatus>,
        running: Option<Running>,
        next_snapshot_unix_ms: Option<i64>,
        /// Why backups wait, when they do.
        paused: Option<String>,
        alerts: Vec<Alert>,
    }
}

message! {
    /// What waits on the server's own disk while too few stores answer.
    SpoolStatus {
        snapshots: u64,
        bytes: u64,
        bytes_max: u64,
        /// When the oldest was taken of those that lie in no store.
        since_unix_ms: Option<i64>,
    }
}

message! { Running { what: String, since_unix_ms: i64, progress: Option<Progress> } }

words! { Severity { Warning, Critical } }

words! {
    /// What is wrong. Closed: an alert holds no free text.
    AlertKind {
        BackupLate,
        QuorumUnreachable,
        StoreUnreachable,
        StoreLate,
        StoreMissing,
        StoreCorrupt,
        /// A store had lost or damaged objects, and they were brought back from another one. Open until somebody says that
        /// it was looked into.
        StoreHealed,
        DrillFailed,
        DrillLate,
        DiskAlmostFull,
        /// Too few stores answer, and the spool has no room: no backup is taken.
        SpoolFull,
        /// Snapshots that waited in the spool are nowhere. They were never durable.
        SpoolLost,
        SourceUnreachable,
        SourceDamaged,
        /// The newest snapshot is much smaller than those before it.
        SourceShrunk,
        SnapshotPartial,
        /// A file that every snapshot has to carry is gone; the subject says of which kind it is.
        KeptMissing,
        /// This machine, or its records alone, were set back to an earlier state: the subject is the snapshot that holds
        /// what is lacking, or the source's name. Open until somebody says that it was looked into.
        SourceSetBack,
        /// Another machine writes snapshots of this machine's source.
        SecondWriter,
        /// The recovery kit does not hold a store as it is reached now.
        KitStale,
        DutyUnassigned,
        DutyOverdue,
        /// Whoever has the daemon's credentials for a store can destroy what it holds.
        StoreUnprotected,
        /// Something at a store that must stay is not locked as long as the settings ask for.
        LocksShort,
        /// Something at a store that must stay is locked in governance, and the settings ask for compliance.
        LockModeShort,
        /// New snapshots look like an attack: a deletion plan waits until two persons have looked.
        PruneStopped,
        /// No deletion plan could be made, or the approved one cannot be carried out: the stores fill.
        PruneFailed,
        /// The business associate agreement of a store is past its last day.
        BaaExpired,
        HeadFork,
        /// Snapshots are missing from the history, and nobody signed for their deletion: the subject names source, chain and
        /// numbers. Open until somebody says that it was looked into.
        HeadGap,
        DaemonUnreachable,
        /// The console cannot write its database: it neither opens nor sends any other alert.
        ConsoleUnwritable,
        HostCritical,
        Test,
    }
}

message! { Alert { kind: AlertKind, severity: Severity, subject: Option<String>, since_unix_ms: i64 } }

message! {
    SnapshotRow {
        id: String,
        source: String,
        /// One life of a writer's local state: a machine that lost it, or another one, has a new one.
        incarnation: String,
        /// Another machine wrote it beside this one: it does not count as this machine's backup. Only `serve` can tell.
        other_machine: bool,
        counter: u64,
        taken_unix_ms: i64,
        tag: Option<String>,
        partial: bool,
        state: SnapshotState,
        files: u64,
        bytes_source: u64,
        bytes_added: u64,
        stores: Vec<String>,
    }
}

message! { ScheduledJob { name: String, cron: String, zone: String, last_unix_ms: Option<i64>, last_ok: Option<bool>, next_unix_ms: Option<i64> } }

words! {
    /// What somebody must be responsible for.
    DutyKind { Backup, Restore, Keys, Hardware, StoreContract, ReportApproval }
}

message! {
    Duty {
        kind: DutyKind,
        /// The store, for `store-contract`.
        store: Option<String>,
        party: String,
        deputy: String,
        phone: String,
        /// Day of the next review, `YYYY-MM-DD`.
        review: String,
        unassigned: bool,
        overdue: bool,
    }
}

message! {
    RestoreDone {
        files: u64,
        bytes: u64,
        bytes_fetched: u64,
        duration_ms: u64,
        skipped: u64,
        /// The snapshot is partial: files that could not be read when it was taken are not in it.
        partial: bool,
        /// Records were damaged at the source when the snapshot was taken; they came back as they were.
        source_damaged: bool,
    }
}

message! {
    VerifyDone {
        stores: Vec<VerifyStore>,
        /// Heads that every store lacks and whose deletion nobody signed: no store is to blame.
        gaps: Vec<String>,
    }
}

message! {
    VerifyStore {
        store: String,
        objects: u64,
        bytes_read: u64,
        condition: StoreCondition,
        /// Why it is unreachable or late.
        reason: Option<String>,
        /// Ids of objects that are not there.
        #[serde(default)]
        missing: Vec<String>,
        /// Ids of objects that hold wrong bytes.
        damaged: Vec<String>,
        duration_ms: u64,
    }
}

message! {
    DrillDone {
        report_id: String,
        store: String,
        verdict: DrillVerdict,
        snapshot: String,
        bytes: u64,
        restore_ms: u64,
        rto_ms: Option<u64>,
        rpo_ms: Option<u64>,
        facts_compared: u32,
        facts_equal: u32,
        golden_compared: u32,
        golden_equal: u32,
        /// The checks that did not pass, as `check: result, reason` in the report's own words.
        not_passed: Vec<String>,
    }
}

words! { DrillVerdict { Pass, Fail, Inconclusive } }

message! {
    ReportRow {
        id: String,
        store: String,
        snapshot: String,
        at_unix_ms: i64,
        verdict: DrillVerdict,
        /// The source was damaged before the snapshot was taken: the store is not to blame.
        source_damaged: bool,
        /// Everything came back whole, and the source, a folder, seals nothing to compare it with.
        #[serde(default)]
        nothing_sealed: bool,
        rto_ms: Option<u64>,
        rpo_ms: Option<u64>,
        log_index: u64,
        approved: bool,
    }
}

message! { EvidenceFile { name: String, base64: String } }

message! {
    VerifierStatus {
        key_fingerprint: String,
        log_size: u64,
        running: Option<Running>,
        /// Whether the verifier shares the writer's machine; a report says so.
        same_host_as_writer: bool,
        next_drill_unix_ms: Option<i64>,
        alerts: Vec<Alert>,
    }
}

message! {
    /// What maintenance last saw of a store, and what it put right. Object names are opaque ids.
    MaintainStore {
        store: String,
        condition: StoreCondition,
        /// Since when each look has found this condition.
        #[serde(default)]
        since_unix_ms: i64,
        /// When it was last looked at.
        looked_unix_ms: Option<i64>,
        objects: u64,
        bytes: u64,
        /// Read in the last run.
        checked: u64,
        bytes_read: u64,
        /// No object was read longer ago than this; `None` while some were never read.
        verified_since_unix_ms: Option<i64>,
        /// Objects that were read longer ago than the settings ask for: the budget is too small.
        overdue: u64,
        /// Found in the last run, by their two words.
        missing: u64,
        corrupt: u64,
        /// Of these, put right in the last run; and in all runs.
        healed: u64,
        healed_ever: u64,
        /// Objects that could not be put right: the first few.
        left: Vec<String>,
    }
}

words! {
    /// How an object was put right: written again, a new version in its place, or a further candidate beside it.
    HealedBy { Put, Replaced, Candidate }
}

message! {
    HealedRow { at_unix_ms: i64, store: String, object: String, from: String, by: HealedBy, bytes: u64 }
}

message! {
    MaintainStatus {
        now_unix_ms: i64,
        running: Option<Running>,
        next_unix_ms: Option<i64>,
        stores: Vec<MaintainStore>,
        /// The newest first.
        healed: Vec<HealedRow>,
        alerts: Vec<Alert>,
    }
}
