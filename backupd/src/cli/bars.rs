//! Progress: a bar with rate and time left on a terminal, lines of JSON on request, else nothing. Counts only, no names.

use super::render;
use crate::clock::Stopwatch;
use backup_engine::Glob;
use backupd_api::{Event, Phase, Progress};
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// More lines of JSON than this a second help nobody.
const LINE_EVERY_MS: u64 = 200;
/// The count of what is to be read is not known yet.
const UNKNOWN: u64 = u64::MAX;

pub struct Bars {
    json: bool,
    bar: ProgressBar,
    watch: Stopwatch,
    shown: Mutex<Shown>,
    /// Bytes that a first look at the source counted.
    counted: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

/// What stands there now.
#[derive(Default)]
struct Shown {
    phase: Option<(Phase, Option<String>, bool)>,
    line_ms: Option<u64>,
}

impl Bars {
    pub fn new(json: bool) -> Self {
        let bar = if json { ProgressBar::hidden() } else { ProgressBar::no_length() };
        bar.enable_steady_tick(Duration::from_millis(120));
        Self {
            json,
            bar,
            watch: Stopwatch::start(),
            shown: Mutex::default(),
            counted: Arc::new(AtomicU64::new(UNKNOWN)),
            over: Arc::default(),
        }
    }

    /// On a terminal, counts beside the work what there is to read, so that the time left can be told.
    pub fn count(&self, path: &Path, excludes: &[String]) {
        if self.json || !std::io::stderr().is_terminal() {
            return;
        }
        let (counted, over) = (Arc::clone(&self.counted), Arc::clone(&self.over));
        let (path, excludes) = (path.to_owned(), excludes.to_vec());
        let count = move || {
            if let Some(bytes) = bytes_below(path, &excludes, &over) {
                counted.store(bytes, Ordering::Relaxed);
            }
        };
        // Without the thread there is no total, and nothing else is lost.
        let _ = std::thread::Builder::new().name("count".to_owned()).spawn(count);
    }

    pub fn show(&self, progress: &Progress) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = Some(self.counted.load(Ordering::Relaxed)).filter(|counted| *counted != UNKNOWN);
        let total = progress.total_bytes.or(counted.filter(|_| progress.phase == Phase::Read));
        let phase = Some((progress.phase, progress.store.clone(), total.is_some()));
        if self.json {
            let now = self.watch.elapsed_ms();
            let quiet = shown.line_ms.is_some_and(|before| now.saturating_sub(before) < LINE_EVERY_MS);
            if quiet && shown.phase == phase {
                return;
            }
            shown.line_ms = Some(now);
            // A reader that has gone is no error.
            let _ = render::json(&Event::Progress(Progress { total_bytes: total, ..progress.clone() }));
        } else if shown.phase != phase {
            let store = progress.store.as_ref().map(|s| format!(" ({s})")).unwrap_or_default();
            let template = match total {
                Some(_) => "{spinner} {msg} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
                None => "{spinner} {msg} {bytes} {bytes_per_sec}",
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                self.bar.set_style(style);
            }
            self.bar.set_message(format!("{}{store}", words(progress.phase)));
        }
        shown.phase = phase;
        if let Some(total) = total {
            self.bar.set_length(total.max(progress.done_bytes));
        }
        self.bar.set_position(progress.done_bytes);
    }

    /// A sentence above the bar.
    pub fn say(&self, sentence: &str) {
        if self.bar.is_hidden() {
            tell!("backupd: {sentence}");
        } else {
            self.bar.println(sentence);
        }
    }

    pub fn finish(&self) {
        self.over.store(true, Ordering::Relaxed);
        self.bar.finish_and_clear();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.finish();
    }
}

fn words(phase: Phase) -> &'static str {
    match phase {
        Phase::Quiesce => "waiting for a quiet point",
        Phase::Read => "reading and sealing",
        Phase::Send => "sending to the stores",
        Phase::Commit => "committing",
        Phase::Fetch => "reading from the store",
        Phase::Start => "starting the EMR on what came back",
        Phase::Compare => "comparing",
        Phase::Sign => "signing the report",
    }
}

/// Bytes of all files at or below a path; `None` when the work was over first.
fn bytes_below(path: PathBuf, excludes: &[String], over: &AtomicBool) -> Option<u64> {
    let patterns: Vec<Glob> =
        excludes.iter().filter_map(|text| Glob::parse(text.trim_matches('/').as_bytes(), false).ok()).collect();
    let top = path.clone();
    let excluded = |path: &Path| {
        let below = path.strip_prefix(&top).unwrap_or(path).as_os_str().as_bytes();
        patterns.iter().any(|pattern| pattern.fits(below))
    };
    let mut bytes = 0u64;
    let mut todo = vec![path];
    while let Some(path) = todo.pop() {
        if over.load(Ordering::Relaxed) {
            return None;
        }
        let Ok(meta) = path.symlink_metadata() else { continue };
        if meta.is_file() {
            bytes = bytes.saturating_add(meta.size());
        } else if meta.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            todo.extend(entries.filter(|path| !excluded(path)));
        }
    }
    Some(bytes)
}

impl backup_engine::Progress for Bars {
    fn report(&self, event: backup_engine::ProgressEvent<'_>) {
        let phase = match event.phase {
            backup_engine::Phase::Read => Phase::Read,
            backup_engine::Phase::Send => Phase::Send,
            backup_engine::Phase::Commit => Phase::Commit,
            backup_engine::Phase::Fetch => Phase::Fetch,
        };
        self.show(&Progress {
            phase,
            done_bytes: event.done_bytes,
            total_bytes: event.total_bytes,
            store: event.store.map(str::to_owned),
        });
    }
}
