//! What the engine notices and goes on from, told to the person at the terminal: its warnings hold no names.

use log::kv::{Error, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use std::fmt::Write;

/// Only the engine's own events: those of libraries may hold addresses and paths.
const ENGINE: &str = "backup_engine";

struct Warnings;

/// A second call changes nothing.
pub fn show() {
    if log::set_logger(&Warnings).is_ok() {
        log::set_max_level(LevelFilter::Warn);
    }
}

impl Log for Warnings {
    fn enabled(&self, metadata: &Metadata) -> bool {
        metadata.level() <= LevelFilter::Warn && metadata.target().starts_with(ENGINE)
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            let mut line = format!("backupd: {}", record.args());
            // Writing to a string cannot fail; a value that cannot be shown is left out.
            let _ = record.key_values().visit(&mut Pairs(&mut line));
            tell!("{}", line.escape_debug());
        }
    }

    fn flush(&self) {}
}

struct Pairs<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Pairs<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), Error> {
        write!(self.0, " {key}={value}").map_err(Error::from)
    }
}
