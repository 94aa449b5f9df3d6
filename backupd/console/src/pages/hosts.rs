//! Servers with their place in the data center. This is all that data-center staff see: health, and nothing else.

use crate::app::App;
use crate::daemons::Seen;
use crate::pages::layout::Column::{Number, Text};
use crate::pages::layout::{Mood, badge, columns, live, page as frame, sentence, when};
use crate::web::{Answer, Call, page};
use crate::words::{bytes, count, span};
use agent_api::{
    BackupHealth, Filesystem, FilesystemRole, HostHealth, Level, PowerOff, Sensor, SensorKind, SensorState, StoreState,
};
use maud::{Markup, html};

/// A host whose own report is older than this is unknown, whatever it said.
const STALE_S: i64 = 300;

pub async fn show(call: Call) -> Answer {
    let app = &call.app;
    let picture = app.pictures.now();
    let body = html! {
        p.lead { "Health of the servers and where they stand. Nothing here is about a patient." }
        @if picture.agents.is_empty() {
            p.empty {
                "No agent is set: add the address of each host's agent under " code { "agents" } " in console.toml."
            }
        }
        (live("hosts", "/hosts", 10, html! {
            div.cards { @for (name, seen) in &picture.agents { (host(app, name, seen)) } }
        }))
    };
    page(frame(app, call.caller()?, "/hosts", "Hosts", body))
}

fn host(app: &App, name: &str, seen: &Seen<HostHealth>) -> Markup {
    let Some((_, health)) = &seen.last else {
        return html! {
            article.card {
                h2 { (name) }
                @match &seen.silent {
                    None => p { "Asking for the first time…" }
                    Some(silent) => {
                        p {
                            (badge(Mood::Bad, "Unknown")) " The agent has not answered for "
                            (span(app.now_ms() - silent.since_ms)) "."
                        }
                        p.small { (sentence(&silent.reason)) }
                    }
                }
            }
        };
    };
    let old = app.now_ms() / 1000 - health.at_unix_s > STALE_S;
    let (mood, text) = if seen.silent.is_some() || old { (Mood::Bad, "Unknown") } else { verdict(health.verdict) };
    html! {
        article.card {
            h2 { (health.host) " " (badge(mood, text)) }
            @if let Some(silent) = &seen.silent {
                p.notice.bad {
                    "The agent has not answered for " (span(app.now_ms() - silent.since_ms))
                    ": what stands here is from " (when(app, health.at_unix_s * 1000)) "."
                }
            }
            dl.facts {
                dt { "Place" } dd { (place(health)) }
                dt { "Asset" } dd { (health.asset.as_ref().map_or("not set", |asset| asset.as_str())) }
                dt { "Power off now?" } dd { (power(health.power_off_safe, mood)) }
                dt { "Running" } dd {
                    "for " (span_s(health.uptime_s)) ", load "
                    (format!("{:.2}", health.load_1m)) " on " (count(health.cpus.into(), "core", "cores"))
                }
                dt { "Memory" } dd {
                    (bytes(health.memory_bytes_available)) " free of " (bytes(health.memory_bytes_total))
                }
                dt { "Clock" } dd {
                    @if health.clock.synchronized { (badge(Mood::Good, "Synchronized")) } @else {
                        (badge(Mood::Warn, "Not synchronized"))
                    }
                }
            }
            (filesystems(&health.filesystems))
            (disks(health))
            (sensors(&health.sensors))
            (backup(health.backup.as_ref()))
            p.small { "Reported " (when(app, health.at_unix_s * 1000)) "." }
        }
    }
}

fn verdict(level: Level) -> (Mood, &'static str) {
    match level {
        Level::Ok => (Mood::Good, "Healthy"),
        Level::Warning => (Mood::Warn, "Warning"),
        Level::Critical => (Mood::Bad, "Critical"),
        Level::Unknown => (Mood::Warn, "Unknown"),
    }
}

fn place(health: &HostHealth) -> Markup {
    html! {
        @match (&health.rack, &health.unit) {
            (Some(rack), Some(unit)) => { "rack " strong { (rack) } ", unit " strong { (unit) } }
            (Some(rack), None) => { "rack " strong { (rack) } ", unit not set" }
            (None, Some(unit)) => { "rack not set, unit " strong { (unit) } }
            (None, None) => { (badge(Mood::Warn, "Not set")) " Set rack and unit in agent.toml." }
        }
    }
}

fn power(power: PowerOff, mood: Mood) -> Markup {
    if mood == Mood::Bad {
        return badge(Mood::Bad, "Call practice IT first");
    }
    match power {
        PowerOff::Safe => badge(Mood::Good, "Safe"),
        PowerOff::WaitForBackup => badge(Mood::Warn, "Wait: a backup is running"),
        PowerOff::CallFirst => badge(Mood::Bad, "Call practice IT first"),
    }
}

fn filesystems(filesystems: &[Filesystem]) -> Markup {
    html! {
        @if !filesystems.is_empty() {
            h3 { "Space" }
            table.tight {
                (columns(&[Text("Filesystem"), Text("Used"), Number("Free"), Text("Full in")]))
                tbody { @for fs in filesystems {
                    @let used = fs.bytes_total.saturating_sub(fs.bytes_available);
                    tr {
                        td {
                            (role(fs.role))
                        }
                        td {
                            meter min="0" max=(fs.bytes_total.max(1)) high=(fs.bytes_total / 10 * 8) value=(used) {}
                            " " (used.saturating_mul(100) / fs.bytes_total.max(1)) " %"
                        }
                        td.number { (bytes(fs.bytes_available)) }
                        td {
                            (fs.full_in_s.map_or_else(|| "not filling".to_owned(), span_s))
                        }
                    }
                } }
            }
        }
    }
}

fn role(role: FilesystemRole) -> &'static str {
    match role {
        FilesystemRole::Root => "system",
        FilesystemRole::Records => "records",
        FilesystemRole::Backup => "backup",
    }
}

fn span_s(s: u64) -> String {
    span(i64::try_from(s).unwrap_or(i64::MAX).saturating_mul(1000))
}

fn disks(health: &HostHealth) -> Markup {
    html! {
        @if !health.disks.is_empty() {
            h3 { "Disks" }
            table.tight {
                (columns(&[Text("Bay"), Text("Serial number"), Text("Device"), Number("Size")]))
                tbody { @for disk in &health.disks {
                    tr {
                        td { (disk.bay.as_ref().map_or("not set", |bay| bay.as_str())) }
                        td { (disk.serial.as_ref().map_or("unknown", |serial| serial.as_str())) }
                        td { (disk.device) }
                        td.number { (bytes(disk.bytes)) }
                    }
                } }
            }
        }
    }
}

fn sensors(sensors: &[Sensor]) -> Markup {
    html! {
        @if !sensors.is_empty() {
            h3 { "Sensors" }
            ul.inline { @for sensor in sensors { li { (self::sensor(sensor)) } } }
        }
    }
}

fn sensor(sensor: &Sensor) -> Markup {
    let (name, unit) = match sensor.kind {
        SensorKind::Temperature => ("Temperature", " °C"),
        SensorKind::Smart => ("Disk wear", " %"),
        SensorKind::Array => ("Array", ""),
        SensorKind::Ups => ("UPS battery", " %"),
        SensorKind::Ipmi => ("IPMI", ""),
        SensorKind::Watchdog => ("Watchdog", ""),
    };
    let value = sensor.value.map(|value| format!(" {value:.0}{unit}")).unwrap_or_default();
    match sensor.state {
        SensorState::Ok => badge(Mood::Good, &format!("{name}{value}")),
        SensorState::Warning => badge(Mood::Warn, &format!("{name}{value}")),
        SensorState::Critical => badge(Mood::Bad, &format!("{name}{value}")),
        SensorState::Absent => badge(Mood::Plain, &format!("{name}: absent")),
    }
}

fn backup(backup: Option<&BackupHealth>) -> Markup {
    let age = |s: Option<u64>, none: &str| {
        let text = |s| format!("{} ago", span_s(s));
        s.map_or_else(|| none.to_owned(), text)
    };
    html! {
        h3 { "Backup" }
        @match backup {
            None => p { (badge(Mood::Bad, "Unknown")) " backupd does not answer the agent." }
            Some(backup) => {
                p {
                    @let late = backup.durable_age_s.is_none_or(|age| age > backup.durable_age_s_max);
                    (badge(if late { Mood::Bad } else { Mood::Good }, if late { "Late" } else { "Fresh" }))
                    " Newest safe backup: " (age(backup.durable_age_s, "none yet")) "."
                }
                ul.inline { @for store in &backup.stores {
                    li {
                        (store_state(store.state, store.store.as_str())) span.small {
                            " drill passed " (age(store.proved_age_s, "never"))
                        }
                    }
                } }
            }
        }
    }
}

fn store_state(state: StoreState, name: &str) -> Markup {
    match state {
        StoreState::Ok => badge(Mood::Good, &format!("{name}: ok")),
        StoreState::Unreachable => badge(Mood::Bad, &format!("{name}: unreachable")),
        StoreState::Late => badge(Mood::Warn, &format!("{name}: late")),
        StoreState::Missing => badge(Mood::Bad, &format!("{name}: objects missing")),
        StoreState::Corrupt => badge(Mood::Bad, &format!("{name}: objects corrupt")),
    }
}
