//! What the stores were last seen to hold, kept over a restart. A store that does not answer has not lost what it held, and how far
//! it is behind cannot be asked of it: without a memory, a restart during an outage would make guesses of both. The stores rebuild
//! it as they answer.

use super::Daemon;
use super::view::View;
use crate::stores::StoreView;
use backup_engine::{HeadName, ObjectHash, Protection, SnapshotInfo};
use backupd_api::AlertKind;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The notes, beside the jobs' history.
const STORES: &str = "stores-seen";
const ALERTS: &str = "alerts-since";
/// The newest snapshots are kept; older ones are known again when the stores that hold them answer.
const SNAPSHOTS_MAX: usize = 2000;

#[derive(Default, Serialize, Deserialize)]
struct Seen {
    stores: BTreeMap<String, SeenStore>,
    /// Newest first.
    snapshots: Vec<SeenSnapshot>,
}

#[derive(Serialize, Deserialize)]
struct SeenStore {
    reachable: bool,
    complete_unix_ms: Option<i64>,
    lag_snapshots: u64,
    lag_bytes: u64,
    lag_ms: u64,
    #[serde(default)]
    silent_because: Option<String>,
    #[serde(default)]
    behind_because: Option<String>,
    bytes: Option<u64>,
    protection: Option<Kept>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kept {
    Locked,
    Refused,
    LostByOverwrite,
    LostByDelete,
}

/// Ids as they are written everywhere. The tag is sealed, and is not kept.
#[derive(Serialize, Deserialize)]
struct SeenSnapshot {
    id: String,
    head: String,
    source: String,
    taken_unix_ms: i64,
    partial: bool,
    files: u64,
    bytes_source: u64,
    bytes_added: u64,
    stores: Vec<String>,
    forked: bool,
    follows: Vec<String>,
    plan_seen: Option<String>,
    set_back: Vec<Option<String>>,
}

#[derive(Serialize, Deserialize)]
struct Since {
    kind: AlertKind,
    subject: Option<String>,
    since_unix_ms: i64,
}

impl Daemon {
    /// Keeps what is known now, where it has changed.
    pub(super) fn remember_stores(&self) {
        let text = {
            let mut view = self.view();
            let text = serde_json::to_string(&Seen::of(&view)).unwrap_or_default();
            if text == view.remembered {
                return;
            }
            view.remembered.clone_from(&text);
            text
        };
        if let Err(error) = self.jobs().set_note(STORES, &text) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    /// Takes over what was known before this start, for as long as nothing else is.
    pub(super) fn recall_stores(&self) {
        let note = |key| self.jobs().note(key).ok().flatten();
        let seen: Option<Seen> = note(STORES).and_then(|text| serde_json::from_str(&text).ok());
        let since: Option<Vec<Since>> = note(ALERTS).and_then(|text| serde_json::from_str(&text).ok());
        let mut view = self.view();
        if let Some(mut seen) = seen {
            for setting in &self.settings.stores {
                if let Some(store) = seen.stores.remove(&setting.name) {
                    store.tell(view.stores.entry(setting.name.clone()).or_default());
                }
            }
            let is_store = |name: &String| self.settings.store(name).is_some();
            view.snapshots = seen.snapshots.into_iter().filter_map(SeenSnapshot::info).collect();
            view.snapshots.iter_mut().for_each(|snapshot| snapshot.stores.retain(is_store));
        }
        let since = since.into_iter().flatten();
        view.alerts_since = since.map(|alert| ((alert.kind, alert.subject), alert.since_unix_ms)).collect();
        self.tell_apart(&mut view);
    }

    /// Keeps since when each alert is open.
    pub(super) fn remember_alerts(&self, alerts: &BTreeMap<(AlertKind, Option<String>), i64>) {
        let since = |((kind, subject), since): (&(AlertKind, Option<String>), &i64)| Since {
            kind: *kind,
            subject: subject.clone(),
            since_unix_ms: *since,
        };
        let all: Vec<Since> = alerts.iter().map(since).collect();
        if let Err(error) = self.jobs().set_note(ALERTS, &serde_json::to_string(&all).unwrap_or_default()) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }
}

impl Seen {
    fn of(view: &View) -> Self {
        let known = view.stores.iter().filter_map(|(name, seen)| Some((name.clone(), SeenStore::of(seen)?)));
        Self {
            stores: known.collect(),
            snapshots: view.snapshots.iter().take(SNAPSHOTS_MAX).map(SeenSnapshot::of).collect(),
        }
    }
}

impl SeenStore {
    fn of(seen: &StoreView) -> Option<Self> {
        let protection = seen.protection.map(|(found, _)| match found {
            Protection::Locked => Kept::Locked,
            Protection::Refused => Kept::Refused,
            Protection::LostByOverwrite => Kept::LostByOverwrite,
            Protection::LostByDelete => Kept::LostByDelete,
        });
        seen.known.then_some(Self {
            reachable: seen.reachable?,
            complete_unix_ms: seen.complete_unix_ms,
            lag_snapshots: seen.lag_snapshots,
            lag_bytes: seen.lag_bytes,
            lag_ms: seen.lag_ms,
            silent_because: seen.silent_because.clone(),
            behind_because: seen.behind_because.clone(),
            bytes: seen.bytes,
            protection,
        })
    }

    fn tell(self, seen: &mut StoreView) {
        seen.known = true;
        seen.reachable = Some(self.reachable);
        seen.complete_unix_ms = self.complete_unix_ms;
        (seen.lag_snapshots, seen.lag_bytes, seen.lag_ms) = (self.lag_snapshots, self.lag_bytes, self.lag_ms);
        (seen.silent_because, seen.behind_because) = (self.silent_because, self.behind_because);
        seen.bytes = self.bytes;
        let found = self.protection.map(|kept| match kept {
            Kept::Locked => Protection::Locked,
            Kept::Refused => Protection::Refused,
            Kept::LostByOverwrite => Protection::LostByOverwrite,
            Kept::LostByDelete => Protection::LostByDelete,
        });
        // It is tried again at the first look.
        seen.protection = found.map(|found| (found, 0));
    }
}

impl SeenSnapshot {
    fn of(info: &SnapshotInfo) -> Self {
        Self {
            id: info.id.to_string(),
            head: info.head.to_string(),
            source: info.source.clone(),
            taken_unix_ms: info.taken_unix_ms,
            partial: info.partial,
            files: info.files,
            bytes_source: info.bytes_source,
            bytes_added: info.bytes_added,
            stores: info.stores.clone(),
            forked: info.forked,
            follows: info.follows.iter().map(ToString::to_string).collect(),
            plan_seen: info.plan_seen.map(|plan| ObjectHash(plan).to_string()),
            set_back: info.set_back.iter().map(|lacks| lacks.map(|id| id.to_string())).collect(),
        }
    }

    /// `None`: that is not what was written here.
    fn info(self) -> Option<SnapshotInfo> {
        let head: HeadName = self.head.parse().ok()?;
        let plan = match self.plan_seen {
            Some(plan) => Some(plan.parse::<ObjectHash>().ok()?.0),
            None => None,
        };
        Some(SnapshotInfo {
            id: self.id.parse().ok()?,
            source: self.source,
            incarnation: head.incarnation,
            counter: head.counter,
            taken_unix_ms: self.taken_unix_ms,
            partial: self.partial,
            files: self.files,
            bytes_source: self.bytes_source,
            bytes_added: self.bytes_added,
            tag: None,
            stores: self.stores,
            forked: self.forked,
            head,
            follows: self.follows.iter().map(|hash| hash.parse().ok()).collect::<Option<_>>()?,
            plan_seen: plan,
            set_back: self.set_back.into_iter().map(|id| id.and_then(|id| id.parse().ok())).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::testing::snapshot;

    #[test]
    fn what_was_seen_is_read_as_it_was_written() {
        let mut info = snapshot(7, 300);
        info.stores = vec!["north".to_owned()];
        info.follows = vec![ObjectHash([3; 32])];
        info.plan_seen = Some([4; 32]);
        info.set_back = vec![None, Some(info.id)];
        let mut view = View { snapshots: vec![info.clone()], ..View::default() };
        let north = StoreView {
            known: true,
            reachable: Some(false),
            lag_snapshots: 3,
            lag_ms: 5,
            bytes: Some(9),
            protection: Some((Protection::LostByDelete, 77)),
            ..StoreView::default()
        };
        view.stores.insert("north".to_owned(), north);
        // Of one that never answered nothing is known.
        view.stores.insert("west".to_owned(), StoreView { reachable: Some(false), ..StoreView::default() });
        let text = serde_json::to_string(&Seen::of(&view)).unwrap();
        let mut read: Seen = serde_json::from_str(&text).unwrap();
        assert_eq!(read.snapshots.pop().and_then(SeenSnapshot::info), Some(info));
        assert!(!read.stores.contains_key("west"));
        let mut told = StoreView::default();
        read.stores.remove("north").unwrap().tell(&mut told);
        assert_eq!((told.reachable, told.lag_snapshots, told.lag_ms, told.bytes), (Some(false), 3, 5, Some(9)));
        assert_eq!(told.protection, Some((Protection::LostByDelete, 0)));
    }
}
