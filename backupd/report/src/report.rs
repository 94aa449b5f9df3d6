//! `restore-report/1`: the closed fields of a restore report, and the exact bytes that are signed.
//!
//! **Bytes.** UTF-8 JSON, fields in the order declared here, lists in ascending order, two spaces of indentation, one
//! line feed at the end; integers only, no floats. [`Report::to_bytes`] is the only way to make them, and
//! [`crate::check`] refuses bytes that it would not have made: one report has one form, hence one hash.

use crate::id::{Digest, Label, OpaqueId, ReportId, ResourceType, Version};
use serde::{Deserialize, Serialize};

macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }
    };
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $word:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name { $($(#[$vmeta])* $word),* }

        impl $name {
            /// Every word, in the order in which a report lists them.
            pub const ALL: &[Self] = &[$(Self::$word),*];
        }
    };
}

pub(crate) use {record, words};

/// Fields and rules of this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Schema {
    /// The first version.
    #[serde(rename = "restore-report/1")]
    V1,
}

record! {
    /// What one drill saw. Times are Unix milliseconds, durations milliseconds, sizes bytes.
    Report {
        /// `restore-report/1`.
        schema: Schema,
        /// The report's own id.
        report_id: ReportId,
        /// The verdict that the rule gives; [`crate::check`] recomputes it.
        verdict: Verdict,
        /// Which practice, as an id that says nothing.
        practice: OpaqueId,
        /// Which repository.
        repository: OpaqueId,
        /// What was restored.
        snapshot: Snapshot,
        /// The one store that everything came from.
        store: SourceStore,
        /// What the other stores showed at the same time; ascending by store.
        other_heads: Vec<OtherHeads>,
        /// When each phase ended.
        timing: Timing,
        /// Recovery time.
        rto: Rto,
        /// Recovery point.
        rpo: Rpo,
        /// Every check with its result; ascending, at most one a kind.
        checks: Vec<CheckRun>,
        /// Each fact sealed at snapshot time against the same fact of the restored data; ascending.
        facts: Vec<FactCompared>,
        /// Number of resources by type; ascending.
        resources: Vec<ResourceCompared>,
        /// Golden questions by kind; ascending.
        golden: Vec<GoldenCompared>,
        /// What re-hashing the store's objects gave; absent when not done.
        integrity: Option<Integrity>,
        /// What walking the restored audit chain gave; absent when not done.
        audit_chain: Option<AuditChain>,
        /// How much was restored.
        restored: Restored,
        /// Where and with what the drill ran.
        environment: Environment,
        /// SHA-256 of the list of duties (who is responsible for what) in force; absent when none is kept.
        duties_sha256: Option<Digest>,
    }
}

record! {
    /// The snapshot that was restored.
    Snapshot {
        /// The snapshot's id.
        id: OpaqueId,
        /// The name of the source in the settings, for example `emr`.
        source: Label,
        /// The writer incarnation that took it.
        incarnation: OpaqueId,
        /// Its number in that incarnation's chain.
        counter: u64,
        /// When it was taken.
        taken_unix_ms: i64,
        /// Hash of the signed head that names it.
        head_hash: Digest,
    }
}

words! {
    /// Technique of a store.
    StoreKind { Folder, S3, AzureBlob, Gcs }
}

record! {
    /// The store that was restored from.
    SourceStore {
        /// Its name in the settings.
        name: Label,
        /// Its technique.
        kind: StoreKind,
        /// Where it stands.
        site: Label,
        /// Who runs it.
        provider: Label,
        /// Whether it stands at another site than the server.
        apart: bool,
    }
}

words! {
    /// What another store showed.
    HeadsSeen {
        /// The heads were read and fit together.
        Read,
        /// Two heads with one number: a forked history.
        Forked,
        /// The store did not answer.
        Unreachable,
    }
}

record! {
    /// The newest head of the drilled source in another store.
    OtherHeads {
        /// That store's name in the settings.
        store: Label,
        /// What it showed.
        seen: HeadsSeen,
        /// Number of its newest head; absent when it has none or did not answer.
        newest_counter: Option<u64>,
        /// Hash of its newest head.
        newest_hash: Option<Digest>,
    }
}

record! {
    /// The phases of the drill. Measure with a monotonic clock and add to `declared_unix_ms`, so that a clock step
    /// during the drill cannot turn the order round. A phase that was not reached is absent, and so are all after it.
    Timing {
        /// The moment at which the loss was declared: RTO and RPO count from here.
        declared_unix_ms: i64,
        /// The restore began to read the store.
        restore_started_unix_ms: Option<i64>,
        /// All files were restored.
        data_done_unix_ms: Option<i64>,
        /// The EMR answered on the restored data.
        service_started_unix_ms: Option<i64>,
        /// The first golden question was answered rightly.
        first_golden_unix_ms: Option<i64>,
        /// The drill ended; never absent.
        ended_unix_ms: i64,
    }
}

record! {
    /// Recovery time: from the declaration until the first golden question was answered.
    Rto {
        /// The target.
        objective_ms: u64,
        /// Filled by [`Report::settle`] from the timing; absent when no golden question was answered.
        measured_ms: Option<u64>,
    }
}

record! {
    /// Recovery point: the declaration less the time of the newest restored canary.
    Rpo {
        /// The target.
        objective_ms: u64,
        /// Filled by [`Report::settle`]; absent without a canary, and when the canary is later than the declaration
        /// (two clocks disagree, so nothing was measured).
        measured_ms: Option<u64>,
        /// The newest canary in the restored data.
        canary: Option<Canary>,
    }
}

record! {
    /// A row without content that the EMR writes every minute.
    Canary {
        /// Its number.
        sequence: u64,
        /// When the EMR wrote it.
        written_unix_ms: i64,
    }
}

words! {
    /// What a drill does. A check that a report leaves out counts as not run.
    Check {
        /// Fetch, open and write every file from the one store.
        Restore,
        /// Re-hash what the store holds of this snapshot.
        Integrity,
        /// Start the real EMR on the restored data.
        ServiceStart,
        /// Compare the facts.
        Facts,
        /// Ask the golden questions.
        Golden,
        /// Walk the restored audit chain.
        AuditChain,
    }
}

words! {
    /// How a check ended.
    CheckResult { Passed, Failed, NotRun }
}

words! {
    /// Why a check failed or was not run.
    Reason {
        StoreUnreachable,
        StoreDenied,
        ObjectMissing,
        ObjectCorrupt,
        KeyMissing,
        NoSpace,
        ServiceDidNotStart,
        ServiceStopped,
        ValueDiffers,
        ChainBroken,
        NothingSealed,
        /// The source was damaged before the snapshot was taken: its state cannot be compared, and no store is to blame.
        SourceDamaged,
        TimeLimit,
        EarlierCheckFailed,
        Interrupted,
        InternalError,
    }
}

record! {
    /// One check and its result.
    CheckRun {
        /// Which check.
        check: Check,
        /// How it ended.
        result: CheckResult,
        /// Present exactly when it did not pass.
        reason: Option<Reason>,
    }
}

words! {
    /// What the EMR states about its data at snapshot time, and again after the restore.
    Fact {
        SchemaVersion,
        Resources,
        ResourcesDigest,
        HistoryRows,
        LedgerEntries,
        LedgerBalance,
        Attachments,
        AttachmentBytes,
        AttachmentsDigest,
        AuditEntries,
        AuditHead,
        NewestRecord,
        Canary,
    }
}

record! {
    /// Whether a fact is the same before and after. The values are not part of a report.
    FactCompared {
        /// Which fact.
        fact: Fact,
        /// Whether both values are the same.
        equal: bool,
    }
}

record! {
    /// How many resources of a type the snapshot stated and the restored data holds.
    ResourceCompared {
        /// The type.
        resource: ResourceType,
        /// Stated at snapshot time.
        stated: u64,
        /// Counted in the restored data.
        restored: u64,
    }
}

words! {
    /// The kinds of golden questions: what a clinician would ask of a restored EMR.
    GoldenKind { PatientById, AppointmentsOn, Note, AttachmentDigest, AuditHead }
}

record! {
    /// The golden questions of one kind.
    GoldenCompared {
        /// Which kind.
        kind: GoldenKind,
        /// Questions with answers that were sealed at snapshot time.
        sealed: u64,
        /// Of these, how many were asked of the restored EMR.
        asked: u64,
        /// Of these, how many gave the sealed answer.
        equal: u64,
    }
}

record! {
    /// What re-hashing the store's objects gave.
    Integrity {
        /// Objects of the snapshot that were looked at.
        objects: u64,
        /// Of these, how many the store lacks.
        missing: u64,
        /// Of these, how many hold other bytes than their name says.
        corrupt: u64,
    }
}

record! {
    /// What walking the restored audit chain gave.
    AuditChain {
        /// Entries walked.
        entries: u64,
        /// Whether each is linked to the one before.
        ok: bool,
    }
}

record! {
    /// How much was restored.
    Restored {
        /// Files.
        files: u64,
        /// Bytes of these files.
        bytes: u64,
        /// Bytes fetched from the store for them.
        bytes_fetched: u64,
    }
}

record! {
    /// Where and with what the drill ran.
    Environment {
        /// The verifier shares the writer's machine: weaker evidence, and the report says so.
        same_host_as_writer: bool,
        /// The drilled EMR had no network.
        network_isolated: bool,
        /// The program that restored and compared.
        backupd: Program,
        /// The EMR that was started.
        appliance: Program,
    }
}

record! {
    /// A program by version and by the bytes of its executable.
    Program {
        /// Its version.
        version: Version,
        /// SHA-256 of the executable; absent when it could not be read.
        sha256: Option<Digest>,
    }
}

words! {
    /// The verdict; see [`crate::verdict`] for the rule.
    Verdict { Pass, Fail, Inconclusive }
}

impl Report {
    /// Puts the lists in order, measures RTO and RPO from the times, states the verdict by rule, and checks the whole.
    /// Call it last, before [`Report::to_bytes`].
    pub fn settle(&mut self) -> Result<(), crate::ReportError> {
        self.other_heads.sort_by(|a, b| a.store.cmp(&b.store));
        self.checks.sort_by_key(|c| c.check);
        self.facts.sort_by_key(|f| f.fact);
        self.resources.sort_by(|a, b| a.resource.cmp(&b.resource));
        self.golden.sort_by_key(|g| g.kind);
        self.rto.measured_ms = self.rto_measured();
        self.rpo.measured_ms = self.rpo_measured();
        self.verdict = crate::verdict(self);
        crate::verdict::well_formed(self)
    }

    /// The exact bytes that are signed, logged and kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_canonical(self)
    }

    /// RTO as the times give it.
    pub(crate) fn rto_measured(&self) -> Option<u64> {
        elapsed(self.timing.declared_unix_ms, self.timing.first_golden_unix_ms?)
    }

    /// RPO as the canary gives it.
    pub(crate) fn rpo_measured(&self) -> Option<u64> {
        elapsed(self.rpo.canary.as_ref()?.written_unix_ms, self.timing.declared_unix_ms)
    }
}

fn elapsed(from_unix_ms: i64, to_unix_ms: i64) -> Option<u64> {
    to_unix_ms.checked_sub(from_unix_ms).and_then(|ms| u64::try_from(ms).ok())
}

/// The one form of a value: indented JSON and a line feed. Our types hold no map with other than string keys and
/// nothing that fails to serialize, so an empty result cannot arise; it would be refused by every reader.
pub(crate) fn to_canonical<T: Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
