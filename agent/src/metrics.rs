//! The Prometheus text form of [`HostHealth`]. Label values are words of closed enums or [`Label`]s, nothing else, so
//! no value ever needs escaping.

use crate::verdict::word;
use agent_api::{
    Activity, BackupHealth, Doubt, DrillResult, HostHealth, Label, Level, Pause, PowerOff, SensorState, SnapshotState,
    StoreState,
};
use std::fmt::Write;

/// All metrics of one look at the host.
pub fn render(health: &HostHealth) -> String {
    let mut text = Text::default();
    host(&mut text, health);
    storage(&mut text, health);
    sensors(&mut text, health);
    match &health.backup {
        None => text.gauge("holdfast_backup_known", "Whether backupd's health socket answers.", [(vec![], 0.0)]),
        Some(backup) => {
            text.gauge("holdfast_backup_known", "Whether backupd's health socket answers.", [(vec![], 1.0)]);
            backup_metrics(&mut text, backup);
        }
    }
    text.0
}

type Labels = Vec<(&'static str, String)>;

#[derive(Default)]
struct Text(String);

impl Text {
    /// One metric family; nothing at all without samples.
    fn gauge(&mut self, name: &str, help: &str, samples: impl IntoIterator<Item = (Labels, f64)>) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_none() {
            return;
        }
        // Writing to a string cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in samples {
            let labels: Vec<String> = labels.into_iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let _ = writeln!(self.0, "{name}{labels} {value}");
        }
    }

    fn number(&mut self, name: &str, help: &str, value: impl Into<Option<f64>>) {
        self.gauge(name, help, value.into().map(|value| (vec![], value)));
    }
}

fn host(text: &mut Text, health: &HostHealth) {
    let id = |label: &Option<Label>| label.as_ref().map(Label::to_string).unwrap_or_default();
    let labels = vec![
        ("host", health.host.to_string()),
        ("asset", id(&health.asset)),
        ("rack", id(&health.rack)),
        ("unit", id(&health.unit)),
    ];
    text.gauge("holdfast_host_info", "The host and where it stands.", [(labels, 1.0)]);
    let levels = [Level::Ok, Level::Warning, Level::Critical, Level::Unknown];
    text.gauge(
        "holdfast_host_verdict",
        "1 at the level that the host has now.",
        one_of("level", &levels, Some(health.verdict)),
    );
    let answers = [PowerOff::Safe, PowerOff::WaitForBackup, PowerOff::CallFirst];
    let help = "1 at the answer to: may this host be powered off now?";
    text.gauge("holdfast_power_off", help, one_of("answer", &answers, Some(health.power_off_safe)));
    text.number(
        "holdfast_observed_timestamp_seconds",
        "When these values were read.",
        as_f64(health.at_unix_s.max(0).cast_unsigned()),
    );
    text.number("holdfast_uptime_seconds", "Time since the host started.", as_f64(health.uptime_s));
    text.number("holdfast_cpus", "Processors.", f64::from(health.cpus));
    text.number("holdfast_load1", "Load average of one minute.", health.load_1m);
    text.number("holdfast_memory_size_bytes", "Memory of the host.", as_f64(health.memory_bytes_total));
    text.number(
        "holdfast_memory_available_bytes",
        "Memory that programs can still take.",
        as_f64(health.memory_bytes_available),
    );
    text.number(
        "holdfast_clock_synchronized",
        "1 when the clock follows a time server.",
        f64::from(u8::from(health.clock.synchronized)),
    );
    text.number(
        "holdfast_clock_error_seconds",
        "Bound of the clock's error, when known.",
        health.clock.error_us.map(|us| as_f64(us) / 1e6),
    );
}

fn storage(text: &mut Text, health: &HostHealth) {
    let disks = health.disks.iter().map(|disk| {
        let id = |label: &Option<Label>| label.as_ref().map(Label::to_string).unwrap_or_default();
        let labels = vec![("device", disk.device.to_string()), ("serial", id(&disk.serial)), ("bay", id(&disk.bay))];
        (labels, as_f64(disk.bytes))
    });
    text.gauge("holdfast_disk_size_bytes", "Size of each disk.", disks);
    let mut family = |name: &str, help: &str, value: &dyn Fn(&agent_api::Filesystem) -> Option<u64>| {
        let samples = health
            .filesystems
            .iter()
            .filter_map(|filesystem| Some((vec![("role", word(&filesystem.role))], as_f64(value(filesystem)?))));
        text.gauge(name, help, samples);
    };
    family("holdfast_filesystem_size_bytes", "Size of each filesystem.", &|f| Some(f.bytes_total));
    family("holdfast_filesystem_available_bytes", "Space that is left.", &|f| Some(f.bytes_available));
    family("holdfast_filesystem_inodes", "Inodes of each filesystem.", &|f| Some(f.inodes_total));
    family("holdfast_filesystem_inodes_available", "Inodes that are left.", &|f| Some(f.inodes_available));
    family("holdfast_filesystem_full_in_seconds", "Time until it is full, while it is filling.", &|f| f.full_in_s);
}

fn sensors(text: &mut Text, health: &HostHealth) {
    let states = [SensorState::Ok, SensorState::Warning, SensorState::Critical, SensorState::Absent];
    let samples = health.sensors.iter().flat_map(|sensor| {
        one_of("state", &states, Some(sensor.state)).into_iter().map(|(mut labels, value)| {
            labels.insert(0, ("kind", word(&sensor.kind)));
            (labels, value)
        })
    });
    text.gauge("holdfast_sensor_state", "1 at the state of each kind of sensor; absent is never healthy.", samples);
    let values = health.sensors.iter().filter_map(|sensor| Some((vec![("kind", word(&sensor.kind))], sensor.value?)));
    text.gauge("holdfast_sensor_value", "Degrees Celsius, missing members, per cent: by kind.", values);
}

fn backup_metrics(text: &mut Text, backup: &BackupHealth) {
    let activities = [Activity::Idle, Activity::Snapshot, Activity::Replicate, Activity::Drill];
    text.gauge(
        "holdfast_backup_activity",
        "1 at what backupd does now.",
        one_of("activity", &activities, Some(backup.activity)),
    );
    text.number(
        "holdfast_backup_durable_age_seconds",
        "Age of the newest durable snapshot.",
        backup.durable_age_s.map(as_f64),
    );
    text.number(
        "holdfast_backup_durable_age_max_seconds",
        "The age at which a backup is late.",
        as_f64(backup.durable_age_s_max),
    );
    text.number(
        "holdfast_drill_age_max_seconds",
        "The age at which a store's newest passed drill is late.",
        backup.drill_age_s_max.map(as_f64),
    );
    let states = [
        SnapshotState::Captured,
        SnapshotState::Sealed,
        SnapshotState::Durable,
        SnapshotState::Full,
        SnapshotState::Proved,
    ];
    text.gauge(
        "holdfast_backup_newest_state",
        "1 at how far the newest snapshot has come.",
        one_of("state", &states, backup.newest_state),
    );
    text.number(
        "holdfast_backup_spool_bytes",
        "Sealed bytes that wait on the server's own disk for a store.",
        as_f64(backup.spool_bytes),
    );
    text.number(
        "holdfast_backup_spool_age_seconds",
        "Age of the oldest snapshot that waits there and lies in no store.",
        backup.spool_age_s.map(as_f64),
    );
    let pauses = [Pause::DiskAlmostFull, Pause::SourceUnreachable, Pause::QuorumUnreachable];
    text.gauge(
        "holdfast_backup_paused",
        "1 at the reason for which backups wait.",
        one_of("reason", &pauses, backup.paused),
    );
    let doubts = [
        Doubt::SourceDamaged,
        Doubt::SourceShrunk,
        Doubt::SnapshotPartial,
        Doubt::KeptMissing,
        Doubt::SecondWriter,
        Doubt::SourceSetBack,
        Doubt::HistoryBroken,
    ];
    let open = |doubt: &Doubt| (vec![("reason", word(doubt))], f64::from(u8::from(backup.doubts.contains(doubt))));
    text.gauge(
        "holdfast_backup_doubt",
        "1 at each reason for which the newest snapshot is no safe copy of what is on this host.",
        doubts.iter().map(open).collect::<Vec<_>>(),
    );
    let states = [StoreState::Ok, StoreState::Unreachable, StoreState::Late, StoreState::Missing, StoreState::Corrupt];
    let results = [DrillResult::Pass, DrillResult::Fail, DrillResult::Inconclusive];
    let of_store = |store: &agent_api::StoreHealth, samples: Vec<(Labels, f64)>| {
        let name = store.store.to_string();
        samples.into_iter().map(move |(mut labels, value)| {
            labels.insert(0, ("store", name.clone()));
            (labels, value)
        })
    };
    let samples = backup.stores.iter().flat_map(|s| of_store(s, one_of("state", &states, Some(s.state))));
    text.gauge("holdfast_store_state", "1 at the state of each store.", samples);
    let samples = backup.stores.iter().flat_map(|s| of_store(s, one_of("result", &results, s.last_drill)));
    text.gauge("holdfast_store_last_drill", "1 at the result of each store's last restore drill.", samples);
    let mut family = |name: &str, help: &str, value: &dyn Fn(&agent_api::StoreHealth) -> Option<u64>| {
        let samples =
            backup.stores.iter().filter_map(|s| Some((vec![("store", s.store.to_string())], as_f64(value(s)?))));
        text.gauge(name, help, samples);
    };
    family("holdfast_store_lag_snapshots", "Snapshots that a store has yet to receive.", &|s| Some(s.lag_snapshots));
    family("holdfast_store_lag_bytes", "Bytes that these snapshots added.", &|s| Some(s.lag_bytes));
    family("holdfast_store_lag_seconds", "How far the newest snapshot is ahead of the store.", &|s| Some(s.lag_s));
    family(
        "holdfast_store_protected",
        "1 when a store keeps what it has from whoever has the backup's credentials.",
        &|s| s.protected.map(u64::from),
    );
    family("holdfast_store_complete_age_seconds", "Age of the newest snapshot complete there.", &|s| s.complete_age_s);
    family("holdfast_store_proved_age_seconds", "Age of the newest passed drill from there.", &|s| s.proved_age_s);
}

/// A sample for each word, 1 at the present one.
fn one_of<T: serde::Serialize + PartialEq>(key: &'static str, all: &[T], now: Option<T>) -> Vec<(Labels, f64)> {
    all.iter().map(|value| (vec![(key, word(value))], f64::from(u8::from(now.as_ref() == Some(value))))).collect()
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has no integers")]
fn as_f64(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{NOW, collector, fresh_backup, healthy_root, settings};
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn rendered(backup: Option<BackupHealth>) -> String {
        render(&collector(healthy_root().path(), settings("rack = 'r7'")).collect(NOW, backup))
    }

    #[test]
    fn says_what_is_known_and_leaves_out_what_is_not() {
        let text = rendered(Some(fresh_backup(NOW)));
        for line in [
            "holdfast_host_info{host=\"emr-1\",asset=\"\",rack=\"r7\",unit=\"\"} 1",
            "holdfast_power_off{answer=\"safe\"} 1",
            "holdfast_store_state{store=\"east\",state=\"ok\"} 1",
            "holdfast_sensor_state{kind=\"smart\",state=\"absent\"} 1",
            "holdfast_sensor_state{kind=\"smart\",state=\"ok\"} 0",
            "holdfast_backup_durable_age_seconds 120",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let unknown = rendered(None);
        assert!(unknown.contains("holdfast_backup_known 0") && !unknown.contains("durable_age"));
        assert!(unknown.contains("holdfast_power_off{answer=\"call-first\"} 1"));
    }

    #[test]
    fn promtool_accepts_every_metric() {
        if Command::new("promtool").arg("--version").output().is_err() {
            // tests/run names it; with CI=true a skipped test is a failure.
            if let Some(path) = std::env::var_os("HOLDFAST_SKIPS") {
                let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
                file.write_all(b"promtool_accepts_every_metric\tpromtool is missing (Debian: prometheus)\n").unwrap();
            }
            return;
        }
        for backup in [None, Some(fresh_backup(NOW))] {
            let mut promtool = Command::new("promtool")
                .args(["check", "metrics"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            promtool.stdin.take().unwrap().write_all(rendered(backup).as_bytes()).unwrap();
            let output = promtool.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.trim().is_empty(), "{said}");
        }
    }
}
