//! What is wrong, how bad it is, what hands in the data center may do about it, and whether power-off is safe now.

use crate::settings::Settings;
use agent_api::{
    Activity, BackupHealth, Doubt, DrillResult, Filesystem, FilesystemRole, HostHealth, Label, Level, Pause, PowerOff,
    Sensor, SensorKind, SensorState, StoreHealth, StoreState,
};

/// A health message older than this tells nothing about now.
const BACKUP_MESSAGE_AGE_S_MAX: i64 = 120;
/// Free space in per cent.
const FREE_PERCENT_WARNING: u64 = 10;
const FREE_PERCENT_CRITICAL: u64 = 5;
const FULL_IN_S_WARNING: u64 = 24 * 3600;
const FULL_IN_S_CRITICAL: u64 = 4 * 3600;
const MEMORY_PERCENT_WARNING: u64 = 5;
const LOAD_PER_CPU_WARNING: f64 = 4.0;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    BackupUnknown,
    BackupLate,
    BackupPaused(Pause),
    /// The newest snapshot is no safe copy of all that is here.
    Doubt(Doubt),
    Store {
        store: Label,
        state: StoreState,
    },
    DrillFailed {
        store: Label,
    },
    /// The last drill proved nothing, the last that did is too long ago, or there was none.
    Unproved {
        store: Label,
    },
    Filesystem {
        role: FilesystemRole,
        level: Level,
    },
    FilesystemUnknown {
        role: FilesystemRole,
    },
    Sensor {
        kind: SensorKind,
        state: SensorState,
    },
    DiskGone {
        serial: Label,
        bay: Label,
    },
    MemoryLow,
    MemoryUnknown,
    LoadHigh,
    ClockUnsynchronized,
}

/// Everything that is wrong, the worst first.
pub fn findings(health: &HostHealth, settings: &Settings) -> Vec<Finding> {
    let mut found = backup_findings(health.backup.as_ref());
    found.extend(health.filesystems.iter().filter_map(filesystem_finding));
    let wanted = [
        (FilesystemRole::Root, true),
        (FilesystemRole::Records, settings.filesystems.records.is_some()),
        (FilesystemRole::Backup, settings.filesystems.backup.is_some()),
    ];
    for (role, wanted) in wanted {
        if wanted && !health.filesystems.iter().any(|filesystem| filesystem.role == role) {
            found.push(Finding::FilesystemUnknown { role });
        }
    }
    found.extend(health.sensors.iter().filter_map(|sensor| sensor_finding(sensor, settings)));
    for (serial, bay) in &settings.disks {
        if !health.disks.iter().any(|disk| disk.serial.as_ref() == Some(serial)) {
            found.push(Finding::DiskGone { serial: serial.clone(), bay: bay.clone() });
        }
    }
    if health.memory_bytes_total == 0 {
        found.push(Finding::MemoryUnknown);
    } else if percent(health.memory_bytes_available, health.memory_bytes_total) < MEMORY_PERCENT_WARNING {
        found.push(Finding::MemoryLow);
    }
    if health.load_1m > LOAD_PER_CPU_WARNING * f64::from(health.cpus.max(1)) {
        found.push(Finding::LoadHigh);
    }
    if !health.clock.synchronized {
        found.push(Finding::ClockUnsynchronized);
    }
    found.sort_by_key(|finding| std::cmp::Reverse(urgency(finding.level())));
    found
}

/// Critical outweighs unknown, unknown outweighs a warning.
pub fn verdict(health: &HostHealth, settings: &Settings) -> Level {
    findings(health, settings).first().map_or(Level::Ok, Finding::level)
}

/// Whether hands may switch this host off: only when the newest durable snapshot is fresh and nothing runs.
pub fn power_off(health: &HostHealth) -> PowerOff {
    let Some(backup) = &health.backup else { return PowerOff::CallFirst };
    if backup.activity != Activity::Idle {
        return PowerOff::WaitForBackup;
    }
    // An array without all of its members may not come up again.
    let array_ill = health.sensors.iter().any(|sensor| {
        sensor.kind == SensorKind::Array && matches!(sensor.state, SensorState::Warning | SensorState::Critical)
    });
    // However fresh the newest snapshot is: the only good copy of something may be on these disks.
    let unproved = backup.stores.iter().any(|store| store.last_drill == Some(DrillResult::Fail));
    let doubted = !backup.doubts.is_empty() || unproved;
    if is_late(backup) || backup.paused.is_some() || doubted || array_ill {
        PowerOff::CallFirst
    } else {
        PowerOff::Safe
    }
}

/// Whether the message is about now.
pub fn is_current(backup: &BackupHealth, now_unix_s: i64) -> bool {
    now_unix_s.saturating_sub(backup.at_unix_s).saturating_abs() <= BACKUP_MESSAGE_AGE_S_MAX
}

impl Finding {
    pub fn level(&self) -> Level {
        match self {
            Self::BackupUnknown | Self::FilesystemUnknown { .. } | Self::MemoryUnknown => Level::Unknown,
            Self::BackupLate | Self::DrillFailed { .. } | Self::DiskGone { .. } => Level::Critical,
            // It may be one file that changed while it was read, and whole again at the next snapshot.
            Self::Doubt(Doubt::SnapshotPartial) => Level::Warning,
            Self::Doubt(_) => Level::Critical,
            Self::BackupPaused(Pause::SourceUnreachable) => Level::Warning,
            Self::BackupPaused(Pause::DiskAlmostFull | Pause::QuorumUnreachable) => Level::Critical,
            Self::Store { state: StoreState::Missing | StoreState::Corrupt, .. } => Level::Critical,
            Self::Store { .. } | Self::Unproved { .. } => Level::Warning,
            Self::Filesystem { level, .. } => *level,
            Self::Sensor { state: SensorState::Critical, .. } => Level::Critical,
            Self::Sensor { .. } | Self::MemoryLow | Self::LoadHigh | Self::ClockUnsynchronized => Level::Warning,
        }
    }

    /// A short statement of the fact.
    pub fn what(&self) -> String {
        match self {
            Self::BackupUnknown => "backup: state unknown".to_owned(),
            Self::BackupLate => "backup: late".to_owned(),
            Self::BackupPaused(pause) => format!("backup: paused ({})", word(pause)),
            Self::Doubt(doubt) => format!("backup: not a safe copy ({})", word(doubt)),
            Self::Store { store, state } => format!("store {store}: {}", word(state)),
            Self::DrillFailed { store } => format!("store {store}: the last restore drill failed"),
            Self::Unproved { store } => format!("store {store}: no restore drill has passed lately"),
            Self::Filesystem { role, .. } => format!("filesystem {}: filling up", word(role)),
            Self::FilesystemUnknown { role } => format!("filesystem {}: cannot be looked at", word(role)),
            Self::Sensor { kind, state } => format!("{}: {}", word(kind), word(state)),
            Self::DiskGone { serial, bay } => format!("bay {bay}: disk {serial} is not found"),
            Self::MemoryLow => "memory: almost used up".to_owned(),
            Self::MemoryUnknown => "memory: cannot be looked at".to_owned(),
            Self::LoadHigh => "load: very high".to_owned(),
            Self::ClockUnsynchronized => "clock: follows no time server".to_owned(),
        }
    }

    /// What hands in the data center may do now.
    pub fn hands(&self) -> &'static str {
        match self {
            Self::BackupUnknown | Self::BackupLate | Self::Doubt(_) | Self::DrillFailed { .. } => {
                "Do not power off. Call practice IT."
            }
            Self::BackupPaused(Pause::QuorumUnreachable) | Self::Store { state: StoreState::Unreachable, .. } => {
                "Check uplink cable, switch port and link light. Then call practice IT."
            }
            Self::BackupPaused(_) | Self::Store { .. } | Self::Unproved { .. } => {
                "Nothing to do here. Practice IT must look."
            }
            Self::Filesystem { .. } | Self::FilesystemUnknown { .. } => {
                "Nothing to do here. Call practice IT; do not remove disks."
            }
            Self::Sensor { kind: SensorKind::Temperature, .. } => {
                "Check airflow, fans, blanking panels and room temperature."
            }
            Self::Sensor { kind: SensorKind::Array, .. } => {
                "Do not pull any disk and do not power off. Call practice IT for the bay to replace."
            }
            Self::Sensor { kind: SensorKind::Ups, .. } => {
                "Check mains and power cords. Call practice IT before power fails."
            }
            Self::Sensor { .. } => "Tell practice IT; the sensor should be there.",
            Self::DiskGone { .. } => {
                "Check that the disk sits firmly in its bay. Do not move other disks. Call practice IT."
            }
            Self::MemoryLow | Self::MemoryUnknown | Self::LoadHigh => "Nothing to do here. Practice IT must look.",
            Self::ClockUnsynchronized => "Check the uplink; tell practice IT.",
        }
    }
}

/// The word that an enum has in JSON, metrics and pages alike.
pub fn word<T: serde::Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "unknown".to_owned(),
    }
}

/// How much of `whole` is `part`, per cent, rounded down.
pub fn percent(part: u64, whole: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(whole.max(1))).unwrap_or(100)
}

fn backup_findings(backup: Option<&BackupHealth>) -> Vec<Finding> {
    let Some(backup) = backup else { return vec![Finding::BackupUnknown] };
    let mut found = Vec::new();
    if is_late(backup) {
        found.push(Finding::BackupLate);
    }
    found.extend(backup.paused.map(Finding::BackupPaused));
    found.extend(backup.doubts.iter().copied().map(Finding::Doubt));
    for store in &backup.stores {
        if store.state != StoreState::Ok {
            found.push(Finding::Store { store: store.store.clone(), state: store.state });
        }
        if store.last_drill == Some(DrillResult::Fail) {
            found.push(Finding::DrillFailed { store: store.store.clone() });
        } else if is_unproved(store, backup.drill_age_s_max) {
            found.push(Finding::Unproved { store: store.store.clone() });
        }
    }
    found
}

fn is_late(backup: &BackupHealth) -> bool {
    backup.durable_age_s.is_none_or(|age_s| age_s > backup.durable_age_s_max)
}

/// Where drills are held, each store has to have passed one lately.
fn is_unproved(store: &StoreHealth, drill_age_s_max: Option<u64>) -> bool {
    let Some(max) = drill_age_s_max else { return false };
    store.last_drill != Some(DrillResult::Pass) || store.proved_age_s.is_none_or(|age_s| age_s > max)
}

fn filesystem_finding(filesystem: &Filesystem) -> Option<Finding> {
    let free = percent(filesystem.bytes_available, filesystem.bytes_total);
    // Some filesystems (btrfs) count no inodes.
    let free_inodes = match filesystem.inodes_total {
        0 => 100,
        total => percent(filesystem.inodes_available, total),
    };
    let full_in_s = filesystem.full_in_s.unwrap_or(u64::MAX);
    let level = if free.min(free_inodes) < FREE_PERCENT_CRITICAL || full_in_s < FULL_IN_S_CRITICAL {
        Level::Critical
    } else if free.min(free_inodes) < FREE_PERCENT_WARNING || full_in_s < FULL_IN_S_WARNING {
        Level::Warning
    } else {
        return None;
    };
    Some(Finding::Filesystem { role: filesystem.role, level })
}

fn sensor_finding(sensor: &Sensor, settings: &Settings) -> Option<Finding> {
    let bad = match sensor.state {
        SensorState::Ok => false,
        SensorState::Warning | SensorState::Critical => true,
        SensorState::Absent => settings.sensors_expected.contains(&sensor.kind),
    };
    bad.then_some(Finding::Sensor { kind: sensor.kind, state: sensor.state })
}

fn urgency(level: Level) -> u8 {
    match level {
        Level::Ok => 0,
        Level::Warning => 1,
        Level::Unknown => 2,
        Level::Critical => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{NOW, collector, fresh_backup, healthy_root, settings};

    fn with_backup(change: impl FnOnce(&mut BackupHealth)) -> HostHealth {
        let mut backup = fresh_backup(NOW);
        change(&mut backup);
        collector(healthy_root().path(), settings("")).collect(NOW, Some(backup))
    }

    #[test]
    fn power_off_is_safe_only_beside_a_fresh_idle_backup() {
        assert_eq!(with_backup(|_| {}).power_off_safe, PowerOff::Safe);
        assert_eq!(with_backup(|b| b.activity = Activity::Replicate).power_off_safe, PowerOff::WaitForBackup);
        assert_eq!(with_backup(|b| b.activity = Activity::Drill).power_off_safe, PowerOff::WaitForBackup);
        assert_eq!(with_backup(|b| b.durable_age_s = None).power_off_safe, PowerOff::CallFirst);
        assert_eq!(with_backup(|b| b.durable_age_s = Some(901)).power_off_safe, PowerOff::CallFirst);
        assert_eq!(with_backup(|b| b.paused = Some(Pause::DiskAlmostFull)).power_off_safe, PowerOff::CallFirst);
        let drill_failed = with_backup(|b| b.stores[0].last_drill = Some(DrillResult::Fail));
        assert_eq!(drill_failed.power_off_safe, PowerOff::CallFirst, "what came back from there was not the records");
    }

    #[test]
    fn a_fresh_backup_of_doubtful_records_makes_no_power_off_safe() {
        use Doubt::*;
        for doubt in [SourceDamaged, SourceShrunk, SnapshotPartial, KeptMissing, SecondWriter, SourceSetBack] {
            let health = with_backup(|b| b.doubts = vec![doubt]);
            let level = if doubt == SnapshotPartial { Level::Warning } else { Level::Critical };
            assert_eq!((health.power_off_safe, health.verdict), (PowerOff::CallFirst, level), "{doubt:?}");
            let found = findings(&health, &settings(""));
            assert!(found[0].hands().starts_with("Do not power off"), "{found:?}");
        }
        let later = with_backup(|b| (b.doubts, b.activity) = (vec![SourceDamaged], Activity::Snapshot));
        assert_ne!(later.power_off_safe, PowerOff::Safe);
    }

    #[test]
    fn levels_follow_what_is_wrong() {
        assert_eq!(with_backup(|_| {}).verdict, Level::Ok);
        assert_eq!(with_backup(|b| b.stores[0].state = StoreState::Unreachable).verdict, Level::Warning);
        assert_eq!(with_backup(|b| b.stores[0].state = StoreState::Corrupt).verdict, Level::Critical);
        assert_eq!(with_backup(|b| b.stores[0].last_drill = Some(DrillResult::Fail)).verdict, Level::Critical);
        assert_eq!(with_backup(|b| b.durable_age_s = None).verdict, Level::Critical);
    }

    #[test]
    fn a_store_that_no_drill_proved_lately_is_a_warning() {
        let drilled = |change: fn(&mut StoreHealth)| with_backup(|b| change(&mut b.stores[0])).verdict;
        assert_eq!(drilled(|s| s.last_drill = Some(DrillResult::Inconclusive)), Level::Warning);
        assert_eq!(drilled(|s| (s.last_drill, s.proved_age_s) = (None, None)), Level::Warning);
        assert_eq!(drilled(|s| s.proved_age_s = Some(86_401)), Level::Warning);
        let nobody_drills = with_backup(|b| {
            b.drill_age_s_max = None;
            (b.stores[0].last_drill, b.stores[0].proved_age_s) = (None, None);
        });
        assert_eq!(nobody_drills.verdict, Level::Ok);
    }

    #[test]
    fn a_listed_disk_that_is_gone_is_critical() {
        let settings = settings("[disks]\nGONE-1 = 'bay-2'");
        let health = collector(healthy_root().path(), settings.clone()).collect(NOW, Some(fresh_backup(NOW)));
        assert_eq!(health.verdict, Level::Critical);
        assert!(findings(&health, &settings)[0].what().contains("bay-2"));
    }

    #[test]
    fn critical_outweighs_unknown_and_unknown_a_warning() {
        let root = healthy_root();
        std::fs::remove_file(root.path().join("run/systemd/timesync/synchronized")).unwrap();
        let unknown = collector(root.path(), settings("")).collect(NOW, None);
        assert_eq!(unknown.verdict, Level::Unknown);
        let critical = collector(root.path(), settings("[disks]\nG = 'b'")).collect(NOW, None);
        assert_eq!(critical.verdict, Level::Critical);
    }

    #[test]
    fn a_full_disk_is_critical() {
        let filesystem = |available, full_in_s| Filesystem {
            role: FilesystemRole::Records,
            bytes_total: 1000,
            bytes_available: available,
            inodes_total: 0,
            inodes_available: 0,
            full_in_s,
        };
        let level = |f: &Filesystem| filesystem_finding(f).map(|finding| finding.level());
        assert_eq!(level(&filesystem(500, None)), None);
        assert_eq!(level(&filesystem(99, None)), Some(Level::Warning));
        assert_eq!(level(&filesystem(49, None)), Some(Level::Critical));
        assert_eq!(level(&filesystem(500, Some(3600))), Some(Level::Critical));
        assert_eq!(level(&filesystem(500, Some(40_000))), Some(Level::Warning));
    }
}
