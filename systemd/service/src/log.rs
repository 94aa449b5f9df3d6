//! Logging as events: the message is an event's name (`snapshot.committed`), everything else a key-value.
//!
//! Under systemd the events go to the journal with their fields; elsewhere standard error gets readable lines:
//! `HH:MM:SS level event key=value` (UTC).

use crate::clock;
use log::kv::{Error, Key, Value, VisitSource};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// Set to `debug` or `trace` to see more of our own events; `warn` or `error` to see less.
const LEVEL_VARIABLE: &str = "HOLDFAST_LOG";

/// Crates whose events are ours. Libraries may put addresses and object names into theirs, so only their warnings pass.
const OURS: [&str; 10] =
    ["agent", "appliance", "backup", "backupd", "console", "holdfast", "quickstart", "report", "s3", "service"];

/// Starts logging for `program`. Call it once, first; a second call changes nothing.
pub fn init(program: &'static str) {
    let level = std::env::var(LEVEL_VARIABLE).ok().and_then(|text| text.parse().ok()).unwrap_or(LevelFilter::Info);
    let sink = if connected_to_journal() { journal(program) } else { Sink::Terminal };
    if log::set_boxed_logger(Box::new(Events { level, sink })).is_ok() {
        log::set_max_level(level.max(LevelFilter::Warn));
    }
}

/// The event that every daemon logs once, when it listens.
const READY: &str = "ready";
static SAID_READY: AtomicBool = AtomicBool::new(false);

/// Whether the event `ready` has been logged by this process.
pub(crate) fn said_ready() -> bool {
    SAID_READY.load(Ordering::Relaxed)
}

enum Sink {
    Journal(JournalLog),
    Terminal,
}

struct Events {
    level: LevelFilter,
    sink: Sink,
}

fn journal(program: &'static str) -> Sink {
    match JournalLog::empty() {
        Ok(journal) => {
            Sink::Journal(journal.with_syslog_identifier(program.to_owned()).with_extra_fields([("PROGRAM", program)]))
        }
        Err(_) => Sink::Terminal,
    }
}

impl Log for Events {
    fn enabled(&self, metadata: &Metadata) -> bool {
        let level_max = if is_ours(metadata.target()) { self.level } else { self.level.min(LevelFilter::Warn) };
        metadata.level() <= level_max
    }

    fn log(&self, record: &Record) {
        if !self.enabled(record.metadata()) {
            return;
        }
        if record.args().as_str() == Some(READY) {
            SAID_READY.store(true, Ordering::Relaxed);
        }
        match &self.sink {
            Sink::Journal(journal) => journal.log(record),
            Sink::Terminal => {
                // A closed standard error must not end the service.
                let _ = writeln!(std::io::stderr().lock(), "{}", line(record, clock::unix_s()));
            }
        }
    }

    fn flush(&self) {}
}

fn is_ours(target: &str) -> bool {
    let root = target.split("::").next().unwrap_or(target);
    let root = root.split(['_', '.']).next().unwrap_or(root);
    OURS.contains(&root)
}

/// One readable line; `unix_s` is the time of the event.
fn line(record: &Record, unix_s: u64) -> String {
    let (hours, minutes, seconds) = (unix_s / 3600 % 24, unix_s / 60 % 60, unix_s % 60);
    let level = match record.level() {
        Level::Error => "error",
        Level::Warn => "warn ",
        Level::Info => "info ",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    let mut text = format!("{hours:02}:{minutes:02}:{seconds:02} {level} {}", escaped(&record.args().to_string()));
    // Writing to a string cannot fail; a value that cannot be shown is left out.
    let _ = record.key_values().visit(&mut Pairs(&mut text));
    text
}

struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        let value = value.to_string();
        let plain = !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"');
        let written = if plain { write!(self.0, " {key}={value}") } else { write!(self.0, " {key}={value:?}") };
        written.map_err(Error::from)
    }
}

/// An event may carry text from outside: it must not be able to begin a line of its own.
fn escaped(text: &str) -> String {
    if text.contains(char::is_control) { text.escape_debug().to_string() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(message: &str, key_values: &[(&str, &str)]) -> String {
        let source: &dyn log::kv::Source = &key_values;
        line(&Record::builder().level(Level::Warn).args(format_args!("{message}")).key_values(source).build(), 86_399)
    }

    #[test]
    fn an_event_is_one_line_with_its_fields() {
        assert_eq!(
            shown("store.late", &[("store", "east"), ("lag", "2")]),
            "23:59:59 warn  store.late store=east lag=2"
        );
        assert_eq!(shown("x", &[("why", "no answer")]), "23:59:59 warn  x why=\"no answer\"");
        assert_eq!(shown("a\nforged", &[("k", "v\nw")]), "23:59:59 warn  a\\nforged k=\"v\\nw\"");
    }

    #[test]
    fn libraries_pass_only_warnings() {
        let events = Events { level: LevelFilter::Info, sink: Sink::Terminal };
        let enabled = |target, level| events.enabled(&Metadata::builder().target(target).level(level).build());
        assert!(enabled("backup_engine::store", Level::Info));
        assert!(enabled("appliance", Level::Info));
        assert!(!enabled("hyper_util::client", Level::Info));
        assert!(enabled("rustls::server", Level::Warn));
        assert!(!enabled("backupd", Level::Debug));
    }
}
