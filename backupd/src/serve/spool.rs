//! The spool: where snapshots wait on this server's own disk while too few stores answer.

use super::Daemon;
use crate::settings::{SpoolSetting, domains};
use crate::{clock, secret};
use anyhow::Context;
use backup_engine::{NamedStore, SPOOL, SnapshotInfo, Spool, Spooled};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The note of what waits, beside the jobs' history.
const NOTE: &str = "spool";

/// What is known of the spool.
#[derive(Default)]
pub struct SpoolView {
    pub holds: Spooled,
    /// The last snapshot found no room in it.
    pub full: Option<Full>,
    /// When snapshots were missed that waited in it.
    pub lost_unix_ms: Option<i64>,
    /// When the oldest of those was taken that lie in no store.
    pub since_unix_ms: Option<i64>,
}

/// What the spool held and might hold when a snapshot found no room: with less in it, or a higher limit, nobody knows that the
/// next one finds none.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Full {
    bytes: u64,
    bytes_max: u64,
}

/// Survives restarts, so that a lost spool is noticed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// Ids of snapshots that lie nowhere else.
    waiting: Vec<String>,
    /// Ids of those that waited and are nowhere.
    #[serde(default)]
    lost: Vec<String>,
    lost_unix_ms: Option<i64>,
}

impl Note {
    /// Takes in what lies in the spool alone now; `is_there`: in the spool, or where a store was last seen to hold it. How many
    /// snapshots are newly lost.
    fn look(&mut self, alone: Vec<String>, is_there: impl Fn(&String) -> bool, now: i64) -> usize {
        let gone: Vec<String> = self.waiting.drain(..).filter(|id| !is_there(id)).collect();
        let newly = gone.len();
        self.waiting = alone;
        // A disk that was not mounted, or a store that had received it and was silent.
        let found = self.lost.iter().any(&is_there);
        self.lost.retain(|id| !is_there(id));
        self.lost.extend(gone);
        if newly > 0 {
            self.lost_unix_ms = Some(now);
        } else if found && self.lost.is_empty() {
            self.lost_unix_ms = None;
        }
        newly
    }

    /// A snapshot that is durable and was taken after the loss holds what the lost ones held.
    fn make_good(&mut self, durable_unix_ms: Option<i64>) {
        if self.lost_unix_ms.is_some_and(|lost| durable_unix_ms.is_some_and(|durable| durable > lost)) {
            self.lost_unix_ms = None;
        }
        if self.lost_unix_ms.is_none() {
            self.lost.clear();
        }
    }
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
        let holds = match spool.holds().await {
            Ok(holds) => holds,
            Err(error) => return log::error!(reason:% = error; "spool.unreadable"),
        };
        let needless = holds.bytes == 0 && self.quorum_answers();
        let mut view = self.view();
        view.spool.holds = holds;
        view.spool.full = view.spool.full.filter(|full| holds.bytes >= full.bytes && !needless);
    }

    /// Whether the last snapshot found no room.
    pub(super) async fn note_spool_full(&self, full: bool) {
        self.view().spool.full = None;
        if let Some(setting) = self.settings.spool.as_ref().filter(|_| full) {
            self.weigh_spool().await;
            let mut view = self.view();
            view.spool.full = Some(Full { bytes: view.spool.holds.bytes, bytes_max: setting.bytes_max });
        }
    }

    /// Whether that of before this start may still be so.
    pub(super) fn is_full_still(&self, full: &Full) -> bool {
        self.settings.spool.as_ref().is_some_and(|setting| setting.bytes_max <= full.bytes_max)
    }

    fn quorum_answers(&self) -> bool {
        let view = self.view();
        let answers = |name: &str| view.stores.get(name).is_some_and(|seen| seen.asked && seen.reachable == Some(true));
        domains(self.settings.stores.iter().filter(|store| answers(&store.name))) >= self.settings.quorum as usize
    }

    /// Whether what waits could go: enough stores answer.
    pub(super) fn spool_can_go(&self) -> bool {
        self.view().spool.holds.bytes > 0 && self.quorum_answers()
    }

    /// Empties the spool once as many counting stores as the quorum asks for hold everything.
    pub(super) async fn empty_spool(&self, complete: &[String]) {
        let Some(spool) = &self.spool else { return };
        let complete = complete.iter().filter_map(|name| self.settings.store(name));
        let enough = domains(complete) >= self.settings.quorum as usize;
        let Some(holds) = spool.holds().await.ok().filter(|holds| enough && holds.bytes > 0) else { return };
        // From here on nothing waits, so nothing is missed: not even where the stores go silent before the next look.
        self.forget_waiting();
        match spool.clear().await {
            Ok(()) => log::info!(snapshots = holds.snapshots, bytes = holds.bytes; "spool.sent"),
            Err(error) => log::warn!(reason:% = error; "spool.not-emptied"),
        }
        self.view().spool.full = None;
        self.weigh_spool().await;
        self.remember_waits();
    }

    fn forget_waiting(&self) {
        self.change_waiting(Vec::clear);
    }

    /// Notes a snapshot that has just been put into the spool: the next look at the stores may take long.
    pub(super) fn note_spooled(&self, id: &str) {
        self.change_waiting(|waiting| waiting.push(id.to_owned()));
    }

    fn change_waiting(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut looks = self.looks();
        looks.outdate();
        let before = self.spool_note();
        let mut note = before.clone();
        change(&mut note.waiting);
        self.keep_spool_note(&before, note);
    }

    /// Notes which snapshots wait. One that waited and is neither in the spool nor where any store was seen to hold it is lost with
    /// the spool, whoever answers now: it was never durable, and is told until a later snapshot is.
    pub(super) fn note_spool(&self, alone: Alone, spool_answers: bool, known: &[SnapshotInfo]) {
        let before = self.spool_note();
        let mut note = before.clone();
        // A spool that does not answer has lost nothing yet.
        if spool_answers {
            self.view().spool.since_unix_ms = alone.since_unix_ms;
            let known: BTreeSet<String> = known.iter().map(|snapshot| snapshot.id.to_string()).collect();
            let lost = note.look(alone.ids, |id| known.contains(id), clock::unix_ms());
            if lost > 0 {
                log::error!(snapshots = lost; "spool.lost");
            }
        }
        note.make_good(self.view().newest_durable(self).map(|snapshot| snapshot.taken_unix_ms));
        self.view().spool.lost_unix_ms = note.lost_unix_ms;
        self.keep_spool_note(&before, note);
    }

    /// What waited and what was lost before this start, until the spool has been looked at.
    pub(super) fn recall_spool(&self) {
        let note = self.spool_note();
        let mut view = self.view();
        let waits = view.snapshots.iter().filter(|snapshot| note.waiting.contains(&snapshot.id.to_string()));
        view.spool.since_unix_ms = waits.map(|snapshot| snapshot.taken_unix_ms).min();
        view.spool.lost_unix_ms = note.lost_unix_ms;
    }

    fn spool_note(&self) -> Note {
        let text = self.jobs().note(NOTE).ok().flatten();
        text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn keep_spool_note(&self, before: &Note, note: Note) {
        if note != *before
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

    #[test]
    fn what_waited_and_is_nowhere_is_lost_until_it_turns_up_or_a_later_snapshot_is_durable() {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let looked = |note: &mut Note, alone: &[&str], there: &[&str], now| {
            note.look(ids(alone), |id| there.contains(&id.as_str()), now)
        };
        let mut note = Note::default();
        assert_eq!(looked(&mut note, &["a", "b"], &["a", "b"], 1), 0);
        assert_eq!(looked(&mut note, &["b"], &["a", "b"], 2), 0, "a store has received it");
        assert_eq!(looked(&mut note, &["c"], &["c"], 3), 1);
        assert_eq!((note.lost_unix_ms, note.lost.clone()), (Some(3), ids(&["b"])));
        assert_eq!(looked(&mut note, &["c"], &["c"], 4), 0, "it is told once");
        assert_eq!(looked(&mut note, &[], &[], 5), 1);
        assert_eq!(looked(&mut note, &["c"], &["c"], 6), 0);
        assert_eq!(note.lost_unix_ms, Some(5), "one came back, one is lost still");
        assert_eq!(looked(&mut note, &["b", "c"], &["b", "c"], 7), 0);
        assert_eq!(note, Note { waiting: ids(&["b", "c"]), ..Note::default() });
        looked(&mut note, &[], &[], 8);
        note.make_good(Some(8));
        assert_eq!(note.lost_unix_ms, Some(8), "that one may have been taken before");
        note.make_good(Some(9));
        assert_eq!(note, Note::default());
        let old: Note = serde_json::from_str(r#"{"waiting":["a"],"lost_unix_ms":4}"#).unwrap();
        assert_eq!((old.waiting, old.lost_unix_ms), (ids(&["a"]), Some(4)));
    }
}
