//! The spool: where snapshots wait on this server's own disk while too few stores answer.

use super::Daemon;
use crate::settings::{SpoolSetting, domains};
use crate::{clock, secret};
use anyhow::Context;
use backup_engine::{NamedStore, SPOOL, SnapshotInfo, Spool, Spooled};
use serde::{Deserialize, Serialize};

/// The note of what waits, beside the jobs' history.
const NOTE: &str = "spool";

/// What is known of the spool.
#[derive(Default)]
pub struct SpoolView {
    pub holds: Spooled,
    /// The last snapshot found no room in it.
    pub full: bool,
    /// When snapshots were missed that waited in it.
    pub lost_unix_ms: Option<i64>,
    /// When the oldest of those was taken that lie in no store.
    pub since_unix_ms: Option<i64>,
}

/// Survives restarts, so that a lost spool is noticed.
#[derive(Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Ids of snapshots that lie nowhere else.
    waiting: Vec<String>,
    lost_unix_ms: Option<i64>,
}

pub fn open(setting: &SpoolSetting) -> anyhow::Result<Spool> {
    secret::make_private_dir(&setting.path)
        .with_context(|| format!("`spool.path` {} cannot be made", setting.path.display()))?;
    Ok(Spool::folder(setting.path.clone(), setting.bytes_max)?)
}

/// Snapshots that lie in the spool alone.
#[derive(Default)]
pub struct Alone {
    ids: Vec<String>,
    since_unix_ms: Option<i64>,
}

/// Takes the spool out of the stores that hold a snapshot's head: it is none. What lies in it alone.
pub fn set_apart(snapshots: &mut [SnapshotInfo]) -> Alone {
    let mut alone = Alone::default();
    for snapshot in snapshots {
        let all = snapshot.stores.len();
        snapshot.stores.retain(|name| name != SPOOL);
        if snapshot.stores.is_empty() && all > 0 {
            alone.ids.push(snapshot.id.to_string());
            let taken = snapshot.taken_unix_ms;
            alone.since_unix_ms = Some(alone.since_unix_ms.map_or(taken, |since| since.min(taken)));
        }
    }
    alone
}

impl Daemon {
    /// The same stores and the spool, for whoever reads or writes through the engine.
    pub(super) fn with_spool(&self, mut stores: Vec<NamedStore>) -> Vec<NamedStore> {
        self.keep_spool_folder();
        stores.extend(self.spool.as_ref().map(Spool::as_store));
        stores
    }

    /// A spool whose folder was removed holds nothing, and is no store that does not answer: it is made anew, so that what waited
    /// in it is seen to be lost, and the next snapshot has room.
    fn keep_spool_folder(&self) {
        let Some(setting) = self.settings.spool.as_ref().filter(|setting| !setting.path.is_dir()) else { return };
        log::error!("spool.folder-gone");
        if let Err(error) = secret::make_private_dir(&setting.path) {
            log::error!(reason:% = format!("{error:#}"); "spool.folder-not-made");
        }
    }

    pub(super) async fn weigh_spool(&self) {
        let Some(spool) = &self.spool else { return };
        match spool.holds().await {
            Ok(holds) => self.view().spool.holds = holds,
            Err(error) => log::error!(reason:% = error; "spool.unreadable"),
        }
    }

    /// Whether what waits could go: enough stores answer.
    pub(super) fn spool_can_go(&self) -> bool {
        let view = self.view();
        let answers = |name: &str| view.stores.get(name).is_some_and(|seen| seen.reachable == Some(true));
        let up = domains(self.settings.stores.iter().filter(|store| answers(&store.name)));
        view.spool.holds.bytes > 0 && up >= self.settings.quorum as usize
    }

    /// Empties the spool once as many counting stores as the quorum asks for hold everything.
    pub(super) async fn empty_spool(&self, complete: &[String]) {
        let Some(spool) = &self.spool else { return };
        let complete = complete.iter().filter_map(|name| self.settings.store(name));
        let enough = domains(complete) >= self.settings.quorum as usize;
        let Some(holds) = spool.holds().await.ok().filter(|holds| enough && holds.bytes > 0) else { return };
        match spool.clear().await {
            Ok(()) => log::info!(snapshots = holds.snapshots, bytes = holds.bytes; "spool.sent"),
            Err(error) => log::warn!(reason:% = error; "spool.not-emptied"),
        }
        self.view().spool.full = false;
        self.weigh_spool().await;
    }

    /// Notes which snapshots wait. One that waited and is nowhere, while every store answers, is lost with the spool: it
    /// was never durable, and is told until a later snapshot is.
    pub(super) fn note_spool(&self, alone: Alone, all_answer: bool, known: &[SnapshotInfo]) {
        self.view().spool.since_unix_ms = alone.since_unix_ms;
        let before: Note =
            self.jobs().note(NOTE).ok().flatten().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let is_there = |id: &String| known.iter().any(|snapshot| snapshot.id.to_string() == *id);
        let gone: Vec<&String> = before.waiting.iter().filter(|id| !is_there(id)).collect();
        let mut note = Note { waiting: alone.ids, lost_unix_ms: before.lost_unix_ms };
        if all_answer && !gone.is_empty() {
            log::error!(snapshots = gone.len(); "spool.lost");
            note.lost_unix_ms = Some(clock::unix_ms());
        } else if !all_answer {
            note.waiting.extend(gone.into_iter().cloned());
        }
        let durable = self.view().newest_durable(self).map(|snapshot| snapshot.taken_unix_ms);
        note.lost_unix_ms = note.lost_unix_ms.filter(|lost| durable.is_none_or(|durable| durable <= *lost));
        self.view().spool.lost_unix_ms = note.lost_unix_ms;
        if note != before
            && let Err(error) = self.jobs().set_note(NOTE, &serde_json::to_string(&note).unwrap_or_default())
        {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::testing::snapshot;

    #[test]
    fn what_lies_in_the_spool_alone_waits_and_the_spool_is_no_store() {
        let mut snapshots = [snapshot(2, 1), snapshot(1, 1), snapshot(0, 1)];
        for (snapshot, stores) in snapshots.iter_mut().zip([vec![SPOOL], vec!["east", SPOOL], vec!["east"]]) {
            snapshot.stores = stores.into_iter().map(str::to_owned).collect();
        }
        let (newest, alone) = (snapshots[0].taken_unix_ms, set_apart(&mut snapshots));
        assert_eq!((alone.ids.len(), alone.since_unix_ms), (1, Some(newest)));
        assert_eq!(snapshots.map(|snapshot| snapshot.stores.len()), [0, 1, 1]);
    }
}
