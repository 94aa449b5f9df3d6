//! The health fields that cross to data-center staff: closed enums, numbers, and ids of hosts, disks and stores that
//! match `[A-Za-z0-9._-]{1,64}`. Nothing about a patient can be expressed in them.
//!
//! `backupd serve` writes one JSON [`BackupHealth`] to every connection on its read-only health socket and closes it;
//! the agent reads only that. The agent serves [`HostHealth`] as `/health.json`.

mod label;
mod read;

pub use label::{Label, LabelError};
pub use read::{HEALTH_BYTES_MAX, ReadError, read_backup_health};

use serde::{Deserialize, Serialize};

/// The backup as data-center staff may see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackupHealth {
    pub schema: u32,
    /// When these fields were true, Unix seconds.
    pub at_unix_s: i64,
    pub activity: Activity,
    /// Age of the newest snapshot that is durable at the quorum; `None` before the first, and where a clock was wrong.
    pub durable_age_s: Option<u64>,
    /// The age at which the practice's policy calls a backup late.
    pub durable_age_s_max: u64,
    /// The age at which a store's newest passed drill is late; `None` where nobody drills.
    #[serde(default)]
    pub drill_age_s_max: Option<u64>,
    pub stores: Vec<StoreHealth>,
    /// How far the newest snapshot has come; `None` before the first.
    #[serde(default)]
    pub newest_state: Option<SnapshotState>,
    /// Encrypted bytes that wait on this server's own disk for a store.
    #[serde(default)]
    pub spool_bytes: u64,
    /// The age of the oldest snapshot that waits there and lies in no store.
    #[serde(default)]
    pub spool_age_s: Option<u64>,
    pub paused: Option<Pause>,
    /// Why a good copy of something may be on this host alone, however fresh the newest snapshot is.
    #[serde(default)]
    pub doubts: Vec<Doubt>,
}

/// Something that is open and makes the newest snapshot no safe copy of all that is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Doubt {
    /// The records themselves are damaged: what is left of them must not be lost as well.
    SourceDamaged,
    /// The newest snapshot is much smaller than those before it.
    SourceShrunk,
    /// The newest snapshot lacks what could not be read.
    SnapshotPartial,
    /// A file that a recovery needs is gone here.
    KeptMissing,
    /// Another machine writes as this practice: nobody knows which of the two has the newest records.
    SecondWriter,
    /// This machine, or its records alone, were set back to an earlier state: the stores hold records that it lacks, and it
    /// has newer ones of its own.
    SourceSetBack,
    /// The chain of snapshots misses one without a signed deletion, or two claim one place: what the stores hold is not what was
    /// sent.
    HistoryBroken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Activity {
    Idle,
    Snapshot,
    Replicate,
    Drill,
}

/// How far a snapshot has come: read, encrypted and on its way, complete in as many stores as the practice's rule asks for,
/// in all stores, proved by a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SnapshotState {
    Captured,
    Sealed,
    Durable,
    Full,
    Proved,
}

/// Why backups wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pause {
    DiskAlmostFull,
    SourceUnreachable,
    QuorumUnreachable,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreHealth {
    pub store: Label,
    pub state: StoreState,
    /// Snapshots that this store has yet to receive.
    pub lag_snapshots: u64,
    /// What these added.
    pub lag_bytes: u64,
    /// How far the newest snapshot is ahead of what it has.
    pub lag_s: u64,
    /// Whether it keeps what it has from whoever has the backup's credentials; `None` before it was tried.
    #[serde(default)]
    pub protected: Option<bool>,
    /// Age of the newest snapshot complete here; `None` before the first.
    pub complete_age_s: Option<u64>,
    /// Age of the newest passed drill from this store; `None` before the first.
    pub proved_age_s: Option<u64>,
    pub last_drill: Option<DrillResult>,
}

/// Four words that never mean each other, beside `ok`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreState {
    Ok,
    /// It does not answer.
    Unreachable,
    /// It answers but has not yet received the newest snapshot.
    Late,
    /// An object that it should hold is not there.
    Missing,
    /// An object that it holds has other bytes than its name says.
    Corrupt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DrillResult {
    Pass,
    Fail,
    Inconclusive,
}

/// One host as the agent sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostHealth {
    pub schema: u32,
    pub at_unix_s: i64,
    pub host: Label,
    pub asset: Option<Label>,
    pub rack: Option<Label>,
    pub unit: Option<Label>,
    pub uptime_s: u64,
    pub cpus: u32,
    pub load_1m: f64,
    pub memory_bytes_total: u64,
    pub memory_bytes_available: u64,
    pub disks: Vec<Disk>,
    pub filesystems: Vec<Filesystem>,
    pub sensors: Vec<Sensor>,
    pub clock: Clock,
    /// `None` when backupd's health socket does not answer: unknown, never healthy.
    pub backup: Option<BackupHealth>,
    pub verdict: Level,
    pub power_off_safe: PowerOff,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub device: Label,
    pub serial: Option<Label>,
    pub bay: Option<Label>,
    pub bytes: u64,
}

/// Usage of the filesystem that holds one of the roles' folders.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystem {
    pub role: FilesystemRole,
    pub bytes_total: u64,
    pub bytes_available: u64,
    pub inodes_total: u64,
    pub inodes_available: u64,
    /// Seconds until it is full at the rate of the last hour; `None` when it is not filling.
    pub full_in_s: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilesystemRole {
    Root,
    Records,
    Backup,
}

/// A kind of sensor that a co-located server should have, and whether it was found. `Absent` is never healthy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sensor {
    pub kind: SensorKind,
    pub state: SensorState,
    /// Degrees Celsius, per cent of wear, per cent of battery: by kind.
    pub value: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SensorKind {
    Temperature,
    Smart,
    Array,
    Ups,
    Ipmi,
    Watchdog,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SensorState {
    Ok,
    Warning,
    Critical,
    Absent,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    pub synchronized: bool,
    /// Estimated error of the system clock, microseconds; `None` when the kernel does not know.
    pub error_us: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Ok,
    Warning,
    Critical,
    Unknown,
}

/// May hands in the data center power this host off now?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerOff {
    /// The newest durable snapshot is fresh and nothing is running.
    Safe,
    /// A snapshot or a replication runs: wait until it ends.
    WaitForBackup,
    /// The backup is stale or unknown: call practice IT first.
    CallFirst,
}
