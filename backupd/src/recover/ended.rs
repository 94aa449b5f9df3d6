//! The end of a recovery: what the person is told, and the note by which the same command, cut off at the last step or given
//! once more, knows that everything is in place.

use super::back::STAGING;
use super::choose::Chosen;
use super::kit::Kit;
use crate::cli::{EXIT_PARTIAL, Usage};
use crate::secret;
use crate::settings::ServeSettings;
use anyhow::{Context, ensure};
use backup_engine::SnapshotInfo;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// In the practice's folder, from the moment that all of it is in place.
const ENDED: &str = ".recovered";

#[derive(Serialize, Deserialize)]
pub struct Outcome {
    pub repository: String,
    pub practice: String,
    pub store: String,
    pub snapshots: Vec<String>,
    pub taken_unix_ms: i64,
    /// Those that lack records which could not be read when they were taken: the store holds no whole one, or it was asked for.
    #[serde(default)]
    pub partial: Vec<Taken>,
    /// Those whose settings and keys came in part from an older one.
    #[serde(default)]
    pub filled: Vec<Filled>,
    /// Kept files and folders that no snapshot brought back.
    #[serde(default)]
    pub kept_absent: Vec<String>,
    /// Those whose original was damaged already when they were taken.
    pub damaged: Vec<Taken>,
    /// Those whose machine had been set back to an earlier state when they were taken.
    #[serde(default)]
    pub set_back: Vec<SetBack>,
    pub skipped: Vec<Skipped>,
    /// Objects that the store does not have whole: of snapshots that may be newer than those that came back.
    #[serde(default)]
    pub unread: Vec<String>,
    /// Snapshots that another machine wrote beside those that came back.
    #[serde(default)]
    pub beside: Vec<Taken>,
    pub bytes: u64,
    pub into: String,
    /// What starts the daemons.
    pub commands: Vec<String>,
    /// Key files of maintenance, which are in no kit.
    pub absent: Vec<String>,
}

/// A snapshot.
#[derive(Serialize, Deserialize)]
pub struct Taken {
    pub id: String,
    pub source: String,
    pub taken_unix_ms: i64,
}

impl Taken {
    pub fn of(info: &SnapshotInfo) -> Self {
        Self { id: info.id.to_string(), source: info.source.clone(), taken_unix_ms: info.taken_unix_ms }
    }
}

/// A snapshot, and the older one that kept files came from.
#[derive(Serialize, Deserialize)]
pub struct Filled {
    #[serde(flatten)]
    pub taken: Taken,
    pub from: Taken,
    /// Below the practice's folder.
    pub files: Vec<String>,
}

/// A snapshot, and those that hold what it lacks.
#[derive(Serialize, Deserialize)]
pub struct SetBack {
    #[serde(flatten)]
    pub taken: Taken,
    pub lacks: Vec<String>,
}

impl SetBack {
    pub fn of(info: &SnapshotInfo) -> Option<Self> {
        let lacks = info.set_back.iter().flatten().map(ToString::to_string).collect();
        (!info.set_back.is_empty()).then(|| Self { taken: Taken::of(info), lacks })
    }
}

impl Filled {
    pub(super) fn of(chosen: &Chosen) -> Option<Self> {
        let (from, files) = chosen.filled.as_ref()?;
        let files = files.iter().map(|file| file.display().to_string()).collect();
        Some(Self { taken: Taken::of(&chosen.info), from: Taken::of(from), files })
    }
}

/// A snapshot newer than the one that came back.
#[derive(Serialize, Deserialize)]
pub struct Skipped {
    #[serde(flatten)]
    pub taken: Taken,
    pub why: Why,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// The store has lost a part of it.
    Damaged,
    /// It lacks records that could not be read when it was taken.
    Partial,
}

/// Whether a recovery has ended in this folder.
pub fn is_noted(dir: &Path) -> bool {
    dir.join(ENDED).is_file()
}

/// Everything is in place: notes that, removes what is left of the work, and tells.
pub fn end(dir: &Path, outcome: &Outcome, json: bool) -> anyhow::Result<ExitCode> {
    let text = serde_json::to_vec(outcome).context("the note of the recovery")?;
    secret::replace(&dir.join(ENDED), &text)?;
    clear_and_tell(dir, outcome, json)
}

/// The same command after its end. Where a daemon has run since, the folder is a practice in service, and what came back is
/// not its state any more.
pub fn again(dir: &Path, kit: &Kit, store: &str, snapshot: Option<&str>, json: bool) -> anyhow::Result<ExitCode> {
    let shown = dir.display();
    let text = fs::read(dir.join(ENDED)).context("the note of the recovery")?;
    let outcome: Outcome = serde_json::from_slice(&text).ok().with_context(|| {
        Usage(format!(
            "{shown} holds a recovered practice, and its note {ENDED} cannot be read: recover into an empty folder"
        ))
    })?;
    let same = outcome.repository == kit.repository
        && outcome.store == store
        && snapshot.is_none_or(|asked| outcome.snapshots.iter().any(|id| id.starts_with(asked)));
    let (practice, at) = (&outcome.practice, time(outcome.taken_unix_ms));
    ensure!(
        same,
        Usage(format!(
            "{shown} holds {practice} as of {at}, recovered from store {}: for another store, snapshot or practice, recover into an \
             empty folder",
            outcome.store
        ))
    );
    let serve = ServeSettings::load(&settings_path(dir, &kit.serve_toml.path))?;
    ensure!(
        !serve.state_dir.exists(),
        Usage(format!(
            "{shown} holds {practice}: it was recovered as of {at}, that had ended, and it has been started since. Start it: {}. To \
             recover it anew, recover into an empty folder",
            outcome.commands.join("; ")
        ))
    );
    tell!("backupd: the recovery into {shown} had ended already: everything is in place");
    clear_and_tell(dir, &outcome, json)
}

/// Where a settings file of the kit lies in the practice's folder.
pub fn settings_path(dir: &Path, saved: &str) -> PathBuf {
    let relative = Path::new(saved);
    if relative.is_absolute() { relative.to_owned() } else { dir.join(relative) }
}

fn clear_and_tell(dir: &Path, outcome: &Outcome, json: bool) -> anyhow::Result<ExitCode> {
    match fs::remove_dir_all(dir.join(STAGING)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context("the staging folder cannot be removed");
        }
        _ => {}
    }
    if json {
        outcome.tell_programs()
    } else {
        outcome.tell_people()
    }
    Ok(if outcome.is_whole() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_PARTIAL) })
}

pub fn time(unix_ms: i64) -> String {
    let taken = chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
    taken.format("%Y-%m-%d %H:%M:%SZ").to_string()
}

impl Outcome {
    /// Whether nothing is known to be missing that another snapshot or store may hold. A script goes by the exit code.
    fn is_whole(&self) -> bool {
        self.partial.is_empty()
            && self.kept_absent.is_empty()
            && self.damaged.is_empty()
            && self.set_back.is_empty()
            && self.skipped.is_empty()
            && self.unread.is_empty()
            && self.beside.is_empty()
    }

    fn tell_programs(&self) {
        let line = serde_json::json!({
            "event": "recovered",
            "repository": self.repository,
            "store": self.store,
            "snapshots": self.snapshots,
            "taken_unix_ms": self.taken_unix_ms,
            "partial": self.partial.iter().map(|taken| &taken.id).collect::<Vec<_>>(),
            "filled": self.filled,
            "kept_absent": self.kept_absent,
            "damaged_originals": self.damaged.iter().map(|taken| &taken.id).collect::<Vec<_>>(),
            "set_back": self.set_back,
            "skipped": self.skipped,
            "unread": self.unread,
            "beside": self.beside,
            "bytes": self.bytes,
            "into": self.into,
            "commands": self.commands,
        });
        say!("{line}");
    }

    fn tell_people(&self) {
        say!("{} is back in {} as of {}.", self.practice, self.into, time(self.taken_unix_ms));
        for taken in &self.partial {
            say!(
                "What came back of {} is of {} and LACKS records that could not be read when this snapshot was taken.",
                taken.source,
                time(taken.taken_unix_ms)
            );
            say!("`backupd ls --unreadable --snapshot {}` names them, once `verifier` runs.", taken.id);
            say!("Before anybody works with it, try another store of the kit, in another empty folder.");
        }
        for Filled { taken, from, files } in &self.filled {
            say!(
                "Settings or keys that this snapshot of {} lacks came from the one of {}. Take out what is no longer used:",
                taken.source,
                time(from.taken_unix_ms)
            );
            for file in files {
                say!("  {file}");
            }
        }
        if !self.kept_absent.is_empty() {
            say!(
                "`keep` in the settings of `serve` names these, and the snapshots did not have them. Make them anew, or"
            );
            say!("recover from another store of the kit into another empty folder and take them from there:");
            for kept in &self.kept_absent {
                say!("  {kept}");
            }
        }
        for taken in &self.damaged {
            say!(
                "The original of {} was damaged when this snapshot was taken (the alert source-damaged of {}).",
                taken.source,
                time(taken.taken_unix_ms)
            );
            say!(
                "An older one may hold what this one lacks: `backupd recover ... --snapshot ID` into another empty folder,"
            );
            say!("and compare before anybody works with this one.");
        }
        for SetBack { taken, lacks } in &self.set_back {
            say!(
                "When this snapshot of {} was taken the server had been set back to an earlier state (the alert source-set-back), and",
                taken.source
            );
            say!(
                "nobody had looked into it: an older one holds records that are NOT in what came back. Bring it back into another"
            );
            say!("empty folder and compare before anybody works with this one:");
            for id in lacks {
                say!("  backupd recover ... --snapshot {id}");
            }
        }
        if !self.skipped.is_empty() {
            say!(
                "{} newer snapshots are not whole in {}: what was entered after that time is missing.",
                self.skipped.len(),
                self.store
            );
            say!("Before you go on, try another store of the kit, in another empty folder.");
        }
        if !self.unread.is_empty() {
            say!(
                "{} snapshots of {} cannot be read and may be newer: what was entered after that time may be missing.",
                self.unread.len(),
                self.store
            );
            say!("Before you go on, try another store of the kit, in another empty folder. Damaged or gone:");
            for object in &self.unread {
                say!("  {object}");
            }
        }
        for taken in &self.beside {
            say!(
                "Another machine wrote snapshots of {} beside the one that came back, the last one on {}: what was entered there is NOT",
                taken.source,
                time(taken.taken_unix_ms)
            );
            say!("in it. Bring it back into another empty folder and compare before anybody works with this one:");
            say!("  backupd recover ... --snapshot {}", taken.id);
        }
        say!("Start the EMR with its settings, then:");
        for command in &self.commands {
            say!("  {command}");
        }
        if !self.absent.is_empty() {
            say!(
                "`maintain` has credentials of its own at each provider, which are in no kit. Make them anew there, and"
            );
            say!("before it is started put them into:");
            for file in &self.absent {
                say!("  {file}");
            }
        }
        say!("The next snapshot continues the history; other stores are brought up to date by themselves.");
    }
}
