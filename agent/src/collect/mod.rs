//! Reads the host's health from `/proc`, `/sys` and `statvfs`, as an unprivileged user. What cannot be read is reported
//! as absent or unknown, never as healthy.

mod clock;
mod disks;
mod filesystems;
mod proc;
mod sensors;

use crate::settings::Settings;
use crate::verdict;
use agent_api::{BackupHealth, HostHealth, Label, Level, PowerOff};
use filesystems::History;
use std::path::{Path, PathBuf};

/// Version of [`HostHealth`].
const SCHEMA: u32 = 1;

/// Collects again and again; keeps the past hour's use of each filesystem for the forecast.
pub struct Collector {
    /// `/`, or in tests a folder with a made-up `proc` and `sys`.
    root: PathBuf,
    settings: Settings,
    history: History,
    /// How much room a folder's filesystem has; in tests a made-up one, whatever the machine's own disk is like.
    room: fn(&Path) -> Option<filesystems::Room>,
}

impl Collector {
    pub fn new(root: &Path, settings: Settings) -> Self {
        Self { root: root.to_owned(), settings, history: History::default(), room: filesystems::room }
    }

    /// One look at everything, at `now_unix_s`. Blocks on the kernel's files for some milliseconds.
    pub fn collect(&mut self, now_unix_s: i64, backup: Option<BackupHealth>) -> HostHealth {
        let root = &self.root;
        let memory = proc::memory(root);
        let mut health = HostHealth {
            schema: SCHEMA,
            at_unix_s: now_unix_s,
            host: self.settings.host.clone().unwrap_or_else(|| proc::host_name(root)),
            asset: self.settings.asset.clone().or_else(|| proc::asset_tag(root)),
            rack: self.settings.rack.clone(),
            unit: self.settings.unit.clone(),
            uptime_s: proc::uptime_s(root),
            cpus: proc::cpus(root),
            load_1m: proc::load_1m(root),
            memory_bytes_total: memory.total,
            memory_bytes_available: memory.available,
            disks: disks::disks(root, &self.settings.disks),
            filesystems: filesystems::filesystems(
                (root, self.room),
                &self.settings.filesystems,
                &mut self.history,
                now_unix_s,
            ),
            sensors: sensors::sensors(root),
            clock: clock::clock(root, now_unix_s),
            backup: backup.filter(|backup| verdict::is_current(backup, now_unix_s)),
            verdict: Level::Unknown,
            power_off_safe: PowerOff::CallFirst,
        };
        health.verdict = verdict::verdict(&health, &self.settings);
        health.power_off_safe = verdict::power_off(&health);
        health
    }
}

/// A small file of the kernel as trimmed text; `None` when it is not there, not readable or empty.
fn read_line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn read_number(path: &Path) -> Option<i64> {
    read_line(path)?.parse().ok()
}

/// What hardware says of itself, when it can be an id: inner spaces become hyphens, everything else must already fit.
fn hardware_label(text: &str) -> Option<Label> {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\0').replace(' ', "-").parse().ok()
}

/// The names in a folder, sorted; none when it is not there.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use agent_api::{Activity, SensorKind, SensorState, StoreHealth, StoreState};

    /// A made-up root: each pair is a file below it and its content.
    pub(crate) fn fake_root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    /// A collector on a made-up root whose filesystem is half full.
    pub(crate) fn collector(root: &Path, settings: Settings) -> Collector {
        let half_full = |path: &Path| {
            let half = filesystems::Room {
                bytes_total: 1 << 40,
                bytes_available: 1 << 39,
                inodes_total: 1 << 20,
                inodes_available: 1 << 19,
            };
            path.exists().then_some(half)
        };
        Collector { room: half_full, ..Collector::new(root, settings) }
    }

    pub(crate) fn settings(text: &str) -> Settings {
        toml::from_str(text).unwrap()
    }

    /// A backup that gives nobody a reason to worry.
    pub(crate) fn fresh_backup(at_unix_s: i64) -> BackupHealth {
        BackupHealth {
            schema: 1,
            at_unix_s,
            activity: Activity::Idle,
            durable_age_s: Some(120),
            durable_age_s_max: 900,
            drill_age_s_max: Some(86_400),
            stores: vec![StoreHealth {
                store: "east".parse().unwrap(),
                state: StoreState::Ok,
                lag_snapshots: 0,
                lag_bytes: 0,
                lag_s: 0,
                protected: Some(true),
                complete_age_s: Some(120),
                proved_age_s: Some(4000),
                last_drill: Some(agent_api::DrillResult::Pass),
            }],
            newest_state: Some(agent_api::SnapshotState::Full),
            spool_bytes: 0,
            spool_age_s: None,
            paused: None,
            doubts: Vec::new(),
        }
    }

    pub(crate) const NOW: i64 = 1_800_000_000;

    /// A host on which everything but the sensors is well.
    pub(crate) fn healthy_root() -> tempfile::TempDir {
        let root = fake_root(&[
            ("proc/uptime", "3600.52 7000.00\n"),
            ("proc/loadavg", "0.50 0.40 0.30 1/234 5678\n"),
            ("proc/meminfo", "MemTotal:       16000000 kB\nMemFree: 1 kB\nMemAvailable:    9000000 kB\n"),
            ("proc/cpuinfo", "processor\t: 0\nmodel name: x\nprocessor\t: 1\n"),
            ("proc/sys/kernel/hostname", "emr-1\n"),
            ("sys/block/sda/size", "1000\n"),
            ("sys/block/sda/device/model", "x\n"),
            ("sys/block/sda/device/vpd_pg80", "\0\u{1}\0\u{8}  S3R1AL "),
            ("sys/block/vda/serial", "V-1\n"),
            ("sys/block/vda/size", "8\n"),
            ("sys/block/vda/device/uevent", "\n"),
            ("sys/block/loop0/size", "8\n"),
            ("run/systemd/timesync/synchronized", ""),
        ]);
        let marker = std::fs::File::options().write(true).open(root.path().join("run/systemd/timesync/synchronized"));
        let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(NOW).unwrap() - 60);
        marker.unwrap().set_modified(at).unwrap();
        root
    }

    #[test]
    fn reads_a_host() {
        let root = healthy_root();
        let mut collector = collector(root.path(), settings("rack = 'r7'\n[disks]\nS3R1AL = 'bay-4'\n"));
        let health = collector.collect(NOW, Some(fresh_backup(NOW)));
        assert_eq!(health.host.as_str(), "emr-1");
        assert_eq!((health.uptime_s, health.cpus, health.load_1m), (3600, 2, 0.5));
        assert_eq!((health.memory_bytes_total, health.memory_bytes_available), (16_384_000_000, 9_216_000_000));
        let disks: Vec<_> = health
            .disks
            .iter()
            .map(|d| {
                (d.device.as_str(), d.serial.as_ref().map(Label::as_str), d.bay.as_ref().map(Label::as_str), d.bytes)
            })
            .collect();
        assert_eq!(disks, [("sda", Some("S3R1AL"), Some("bay-4"), 512_000), ("vda", Some("V-1"), None, 4096)]);
        assert!(health.clock.synchronized);
        assert_eq!(health.power_off_safe, PowerOff::Safe);
    }

    #[test]
    fn a_host_that_says_nothing_is_unknown_and_not_to_be_switched_off() {
        let root = fake_root(&[]);
        let health = collector(root.path(), settings("")).collect(NOW, None);
        assert_eq!((health.verdict, health.power_off_safe), (Level::Unknown, PowerOff::CallFirst));
        assert!(!health.clock.synchronized);
        assert_eq!(health.sensors.len(), 6);
        assert!(health.sensors.iter().all(|s| s.state == SensorState::Absent && s.value.is_none()));
    }

    #[test]
    fn an_old_health_message_counts_as_none() {
        let root = healthy_root();
        let health = collector(root.path(), settings("")).collect(NOW, Some(fresh_backup(NOW - 3600)));
        assert!(health.backup.is_none());
        assert_eq!(health.power_off_safe, PowerOff::CallFirst);
    }

    #[test]
    fn an_expected_sensor_that_is_absent_is_a_warning() {
        let root = healthy_root();
        let quiet = collector(root.path(), settings("")).collect(NOW, Some(fresh_backup(NOW)));
        assert_eq!(quiet.verdict, Level::Ok);
        let expecting = settings("sensors_expected = ['temperature']");
        let missed = collector(root.path(), expecting).collect(NOW, Some(fresh_backup(NOW)));
        assert_eq!(missed.verdict, Level::Warning);
        assert!(missed.sensors.iter().any(|s| s.kind == SensorKind::Temperature && s.state == SensorState::Absent));
    }
}
