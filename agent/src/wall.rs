//! The wall page: readable from three metres, by colour and by word, for people who may know nothing of the practice.

use crate::settings::Settings;
use crate::verdict::{Finding, findings, percent, word};
use agent_api::{BackupHealth, Disk, Filesystem, HostHealth, Label, Level, PowerOff, Sensor, SensorKind, SensorState};
use maud::{DOCTYPE, Markup, html};

/// The page's only style sheet, served as `/wall.css`.
pub const STYLE: &str = include_str!("wall.css");
/// The page asks again after so many seconds.
const REFRESH_S: u32 = 15;

pub fn page(health: &HostHealth, settings: &Settings) -> Markup {
    let found = findings(health, settings);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta http-equiv="refresh" content=(REFRESH_S);
                title { (health.host) ": " (word(&health.verdict)) }
                link rel="stylesheet" href="/wall.css";
            }
            body {
                header {
                    h1 { (health.host) }
                    p { (place(health)) }
                }
                (verdict(health.verdict))
                (power_off(health.power_off_safe, health.verdict, settings))
                (hands(&found))
                main {
                    (backup(health.backup.as_ref()))
                    (sensors(&health.sensors))
                    (filesystems(&health.filesystems))
                    (disks(&health.disks))
                    (host(health))
                }
            }
        }
    }
}

fn place(health: &HostHealth) -> String {
    let parts = [("asset", &health.asset), ("rack", &health.rack), ("unit", &health.unit)];
    let known: Vec<String> =
        parts.into_iter().filter_map(|(name, label)| Some(format!("{name} {}", label.as_ref()?))).collect();
    if known.is_empty() { "rack and unit: not set".to_owned() } else { known.join(" · ") }
}

fn verdict(level: Level) -> Markup {
    let (symbol, words) = match level {
        Level::Ok => ("✔", "OK"),
        Level::Warning => ("▲", "WARNING"),
        Level::Critical => ("✖", "CRITICAL"),
        Level::Unknown => ("?", "UNKNOWN"),
    };
    html! { p.verdict.(word(&level)) role="status" { span aria-hidden="true" { (symbol) } " " (words) } }
}

fn power_off(answer: PowerOff, verdict: Level, settings: &Settings) -> Markup {
    let (class, words, why) = match answer {
        PowerOff::Safe if verdict == Level::Critical => (
            "warning",
            "Power-off: loses nothing",
            "The newest backup is fresh and nothing runs. But power-off mends nothing of what is critical here: call first.",
        ),
        PowerOff::Safe => ("ok", "Power-off: SAFE now", "The newest backup is fresh and nothing runs."),
        PowerOff::WaitForBackup => {
            ("warning", "Power-off: WAIT", "A backup or a restore test runs. Wait until this page says SAFE.")
        }
        PowerOff::CallFirst => {
            let why = "The backup is late, unknown or no safe copy of what is here, or the disks are not all well. Ask the practice.";
            ("critical", "Power-off: NO, call first", why)
        }
    };
    html! {
        section.power.(class) {
            h2 { (words) }
            p { (why) }
            @if let Some(phone) = &settings.contact_phone { p.phone { "Practice IT: " (phone.as_str()) } }
        }
    }
}

fn hands(found: &[Finding]) -> Markup {
    html! {
        section.hands {
            h2 { "What hands may do now" }
            @if found.is_empty() { p { "Nothing. Everything that is watched is well." } }
            @else {
                ul { @for finding in found {
                    li.(word(&finding.level())) {
                        strong { (word(&finding.level()).to_uppercase()) ": " (finding.what()) }
                        " " span { (finding.hands()) }
                    }
                } }
            }
        }
    }
}

fn backup(backup: Option<&BackupHealth>) -> Markup {
    html! {
        section {
            h2 { "Backup" }
            @match backup {
                None => p.unknown { "unknown: the backup program does not answer" },
                Some(backup) => {
                    p {
                        (word(&backup.activity)) ", newest durable: " (age(backup.durable_age_s))
                        " (at most " (age(Some(backup.durable_age_s_max))) ")"
                    }
                    table {
                        tr {
                            th { "Store" } th { "State" } th { "Behind" }
                            th { "Complete" } th { "Proved" } th { "Last drill" }
                        }
                        @for store in &backup.stores { tr {
                            td { (store.store) }
                            td.(if store.state == agent_api::StoreState::Ok { "ok" } else { "warning" }) { (word(&store.state)) }
                            td { (store.lag_snapshots) }
                            td { (age(store.complete_age_s)) }
                            td { (age(store.proved_age_s)) }
                            td { @match &store.last_drill { Some(result) => (word(result)), None => "never" } }
                        } }
                    }
                }
            }
        }
    }
}

fn sensors(sensors: &[Sensor]) -> Markup {
    let unit = |kind| match kind {
        SensorKind::Temperature => " °C",
        SensorKind::Array => " missing",
        _ => " %",
    };
    html! {
        section {
            h2 { "Sensors" }
            table { @for sensor in sensors { tr {
                th { (word(&sensor.kind)) }
                td.(word(&sensor.state)) { (word(&sensor.state)) }
                td { @match sensor.value {
                    Some(value) => { (value) (unit(sensor.kind)) }
                    None if sensor.state == SensorState::Absent => "not found: not known to be healthy",
                    None => "",
                } }
            } } }
        }
    }
}

fn filesystems(filesystems: &[Filesystem]) -> Markup {
    html! {
        section {
            h2 { "Filesystems" }
            table {
                tr { th { "For" } th { "Free" } th { "Of" } th { "Full in" } }
                @for filesystem in filesystems { tr {
                    th { (word(&filesystem.role)) }
                    td { (percent(filesystem.bytes_available, filesystem.bytes_total)) " %" }
                    td { (size(filesystem.bytes_total)) }
                    td { @match filesystem.full_in_s { Some(s) => (age(Some(s))), None => "not filling" } }
                } }
            }
        }
    }
}

fn disks(disks: &[Disk]) -> Markup {
    let id = |label: &Option<Label>| label.as_ref().map_or("not known".to_owned(), Label::to_string);
    html! {
        section {
            h2 { "Disks" }
            table {
                tr { th { "Bay" } th { "Serial number" } th { "Device" } th { "Size" } }
                @for disk in disks { tr {
                    td { (id(&disk.bay)) } td { (id(&disk.serial)) } td { (disk.device) } td { (size(disk.bytes)) }
                } }
            }
        }
    }
}

fn host(health: &HostHealth) -> Markup {
    html! {
        section {
            h2 { "Host" }
            table {
                tr { th { "Up" } td { (age(Some(health.uptime_s))) } }
                tr { th { "Load" } td { (health.load_1m) " on " (health.cpus) " processors" } }
                tr { th { "Memory free" } td { (size(health.memory_bytes_available)) " of " (size(health.memory_bytes_total)) } }
                tr { th { "Clock" } td { @if health.clock.synchronized { "synchronized" } @else { "not synchronized" } } }
            }
        }
    }
}

/// A span of time in its largest unit: people before a rack need no seconds.
fn age(seconds: Option<u64>) -> String {
    match seconds {
        None => "never".to_owned(),
        Some(s @ ..120) => format!("{s} s"),
        Some(s @ ..7200) => format!("{} min", s / 60),
        Some(s @ ..172_800) => format!("{} h", s / 3600),
        Some(s) => format!("{} d", s / 86_400),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        1_000_000_000.. => format!("{} GB", bytes / 1_000_000_000),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::tests::{NOW, collector, fresh_backup, healthy_root, settings};

    #[test]
    fn says_level_and_power_off_in_words() {
        let settings = settings("contact_phone = '+49 30 1234'");
        let root = healthy_root();
        let mut collector = collector(root.path(), settings.clone());
        let safe = page(&collector.collect(NOW, Some(fresh_backup(NOW))), &settings).into_string();
        assert!(safe.contains("Power-off: SAFE now") && safe.contains("OK") && safe.contains("+49 30 1234"));
        assert!(safe.contains("not known to be healthy"), "absent sensors are not shown as absent");
        let unknown = page(&collector.collect(NOW, None), &settings).into_string();
        assert!(unknown.contains("Power-off: NO, call first") && unknown.contains("UNKNOWN"));
        assert!(unknown.contains("Do not power off. Call practice IT."));
        assert!(!unknown.contains("SAFE"));
    }
}
