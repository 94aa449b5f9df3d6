//! Verify: every object that the snapshots reach, with the read key; what is found is remembered and alarmed.

use super::Verifier;
use crate::clock::Stopwatch;
use crate::failure;
use backup_engine::{ErrorKind, NamedStore, SnapshotInfo, VerifyOutcome, VerifyRequest};
use backupd_api::{
    Alert, AlertKind, Client, DrillVerdict, Event, Failure, FailureKind, Request, Severity, StoreCondition, VerifyDone,
    VerifyStore,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Ids of missing objects in one answer, and of damaged ones; a destroyed store would name every one it ever held.
const DAMAGED_MAX: usize = 1000;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Found {
    missing: Option<String>,
    corrupt: Option<String>,
    at_unix_ms: i64,
}

/// What the stores hold together.
struct History {
    /// There is a snapshot.
    begun: bool,
    /// There was one, and no store that answers holds any now.
    emptied: bool,
    /// Stores that lack the newest snapshot of some source, and another store holds it.
    late: BTreeSet<String>,
    /// Links that every store lacks, as heads' names: none of them is to blame, and none can be healed from another.
    gaps: Vec<String>,
}

impl Verifier {
    /// Verifies one store, or all of them in turn.
    pub async fn verify(&self, store: Option<&str>, read_data: bool) -> Result<VerifyDone, Failure> {
        let _busy = self.activity.begin("verify");
        let chosen: Vec<&NamedStore> = self.stores.iter().filter(|s| store.is_none_or(|name| s.name == name)).collect();
        if chosen.is_empty() {
            return Err(failure::new(FailureKind::NotFound, "no store has this name: `backupd stores` lists them"));
        }
        let history = self.history().await;
        let mut stores = Vec::new();
        for store in chosen {
            stores.push(self.verify_store(store, read_data, &history).await?);
        }
        let hurt = |row: &&VerifyStore| matches!(row.condition, StoreCondition::Corrupt | StoreCondition::Missing);
        self.damaged().extend(stores.iter().filter(hurt).map(|row| row.store.clone()));
        self.note_healed(&stores).await?;
        Ok(VerifyDone { stores, gaps: history.gaps })
    }

    /// What the stores hold together. Gaps are judged when all answer, and else as they were the last time.
    async fn history(&self) -> History {
        const NOTE: &str = "gaps";
        const BEGUN: &str = "begun";
        let heads = backup_engine::heads(&self.env, self.open_key().catalog(), &self.stores).await;
        let any = heads.as_ref().is_ok_and(|heads| !heads.snapshots.is_empty());
        let begun_before = self.jobs().note(BEGUN).ok().flatten().is_some();
        if any
            && !begun_before
            && let Err(error) = self.jobs().set_note(BEGUN, "1")
        {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        let begun = any || begun_before;
        let emptied = begun_before && heads.as_ref().is_ok_and(|heads| heads.snapshots.is_empty());
        let late = heads.as_ref().map(|heads| self.late(&heads.snapshots)).unwrap_or_default();
        let gaps = match heads {
            Ok(heads) if heads.unreachable.is_empty() => {
                let gaps: Vec<String> = heads.gaps.iter().map(ToString::to_string).collect();
                for gap in &gaps {
                    log::error!(heads = gap.as_str(); "history.gap");
                }
                let text = serde_json::to_string(&gaps).unwrap_or_default();
                if let Err(error) = self.jobs().set_note(NOTE, &text) {
                    log::error!(reason:% = error; "jobs.not-recorded");
                }
                gaps
            }
            _ => {
                let note = self.jobs().note(NOTE).ok().flatten();
                note.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
            }
        };
        History { begun, emptied, late, gaps }
    }

    /// Stores without the newest snapshot of some source.
    fn late(&self, newest_first: &[SnapshotInfo]) -> BTreeSet<String> {
        let mut sources = BTreeSet::new();
        let newest = newest_first.iter().filter(|info| sources.insert(info.head.source));
        let lacks = |info: &SnapshotInfo| {
            let names = self.stores.iter().map(|store| store.name.clone());
            names.filter(|name| !info.stores.contains(name)).collect::<Vec<_>>()
        };
        newest.flat_map(lacks).collect()
    }

    /// Has a store healed in which damage was found, and verifies it again. The verifier itself changes no store but for
    /// the log of reports: `serve`, which holds no read key, looks and heals.
    pub(super) async fn have_healed(&self, store: &str) {
        let Some(named) = self.store(store) else { return };
        if let Err(failure) = self.reports.heal(named).await {
            log::warn!(store = store, reason = failure.message.as_str(); "log.not-healed");
        }
        let Some(endpoint) = self.settings.serve() else { return };
        let request = Request::LookAt { store: store.to_owned(), objects: Vec::new() };
        let ask = async { Client::connect(&endpoint).await?.request(&request, |_| ()).await };
        match ask.await {
            Ok(Event::LookedAt { whole: true }) => {}
            Ok(Event::LookedAt { whole: false }) => return log::error!(store = store; "store.not-healed"),
            Ok(_) => return log::warn!(store = store; "serve.did-not-look"),
            Err(error) => return log::warn!(store = store, reason:% = error; "serve.did-not-look"),
        }
        match self.verify_store(named, true, &self.history().await).await {
            Ok(row) => {
                if let Err(failure) = self.note_healed(&[row]).await {
                    log::warn!(reason = failure.message.as_str(); "log.not-readable");
                }
            }
            Err(failure) => log::warn!(store = store, reason = failure.message.as_str(); "store.not-verified"),
        }
    }

    /// Only a passed drill ends what a failed one began: whoever has healed a store need not wait for its turn.
    async fn note_healed(&self, stores: &[VerifyStore]) -> Result<(), Failure> {
        let rows = self.report_rows().await?;
        for store in stores.iter().filter(|store| store.condition == StoreCondition::Ok) {
            // Rows come newest first.
            let last = rows.iter().find(|row| row.store == store.store);
            if last.is_some_and(|row| row.verdict == DrillVerdict::Fail) {
                log::info!(store = store.store.as_str(); "drill.again-after-healing");
                self.healed().insert(store.store.clone());
            }
        }
        Ok(())
    }

    /// What one store says. One that refuses, or cannot be asked, keeps nobody from hearing of the others.
    async fn verify_store(
        &self,
        store: &NamedStore,
        read_data: bool,
        history: &History,
    ) -> Result<VerifyStore, Failure> {
        let watch = Stopwatch::start();
        let request = VerifyRequest { read_data, snapshot: None };
        match backup_engine::verify(&self.env, &self.open_key(), store, request, &self.activity).await {
            Ok(mut outcome) => {
                outcome.missing.retain(|object| !history.gaps.contains(object));
                if history.emptied && outcome.snapshots == 0 {
                    outcome.missing.push("heads/(no store holds any snapshot any more)".to_owned());
                }
                let reports = if read_data { self.verify_log(store, &mut outcome).await } else { 0 };
                self.remember_verify(&store.name, outcome.missing.first(), outcome.corrupt.first());
                log_found(&store.name, &outcome);
                // Nothing of it is damaged, and it holds nothing.
                let empty = history.begun && outcome.snapshots == 0;
                let row = row(&store.name, outcome, watch.elapsed_ms());
                let behind = history.late.contains(&store.name);
                let reason = if empty {
                    "it holds no snapshot, and other stores do".to_owned()
                } else if behind {
                    "it lacks the newest snapshot, and another store holds it".to_owned()
                } else {
                    format!("it lacks the newest reports ({reports} objects of the log): they are copied to it now")
                };
                let late = row.condition == StoreCondition::Ok && (empty || behind || reports > 0);
                let is_late = |row| VerifyStore { condition: StoreCondition::Late, reason: Some(reason), ..row };
                Ok(if late { is_late(row) } else { row })
            }
            Err(error) if error.kind() == ErrorKind::Stopped => Err(failure::from_engine(&error.context(&store.name))),
            Err(error) => {
                log::warn!(store = store.name.as_str(), reason:% = error; "store.not-verified");
                let silent = row(&store.name, VerifyOutcome::default(), watch.elapsed_ms());
                let damaged = error.kind() == ErrorKind::Damaged;
                let condition = if damaged { StoreCondition::Corrupt } else { StoreCondition::Unreachable };
                Ok(VerifyStore { condition, reason: Some(error.to_string()), ..silent })
            }
        }
    }

    /// The log of reports in a store, beside the snapshots. Answers how many objects it lacks because it did not answer when they
    /// were written: those, it gets at once.
    async fn verify_log(&self, store: &NamedStore, outcome: &mut VerifyOutcome) -> usize {
        let Ok(seen) = self.reports.look(store).await else { return 0 };
        outcome.objects += seen.objects;
        outcome.bytes_read += seen.bytes;
        outcome.corrupt.extend(seen.corrupt);
        if !seen.is_behind {
            outcome.missing.extend(seen.missing);
            return 0;
        }
        if let Err(failure) = self.reports.heal(store).await {
            log::warn!(store = store.name.as_str(), reason = failure.message.as_str(); "log.not-healed");
        }
        seen.missing.len()
    }

    /// Keeps what the last look at a store found.
    pub(super) fn remember_verify(&self, store: &str, missing: Option<&String>, corrupt: Option<&String>) {
        let before = self.last_verify(store);
        // What was found and is still there is as old as it was.
        let goes_on = |was: &Option<String>, is: Option<&String>| is.is_some() && was.is_some();
        let same = goes_on(&before.missing, missing) || goes_on(&before.corrupt, corrupt);
        let at_unix_ms = if same { before.at_unix_ms } else { crate::clock::unix_ms() };
        let found = Found { missing: missing.cloned(), corrupt: corrupt.cloned(), at_unix_ms };
        let text = serde_json::to_string(&found).unwrap_or_default();
        if let Err(error) = self.jobs().set_note(&format!("verify:{store}"), &text) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    fn last_verify(&self, store: &str) -> Found {
        let note = self.jobs().note(&format!("verify:{store}")).ok().flatten();
        note.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    /// Whether the last look at a store found something damaged or missing.
    pub(super) fn is_damaged(&self, store: &str) -> bool {
        let found = self.last_verify(store);
        found.missing.is_some() || found.corrupt.is_some()
    }

    /// Alerts from the last looks at the stores.
    pub(super) fn damage_alerts(&self) -> Vec<Alert> {
        let mut alerts = Vec::new();
        for store in &self.stores {
            let found = self.last_verify(&store.name);
            let kinds = [(AlertKind::StoreCorrupt, found.corrupt), (AlertKind::StoreMissing, found.missing)];
            for kind in kinds.into_iter().filter_map(|(kind, object)| object.map(|_| kind)) {
                alerts.push(Alert {
                    kind,
                    severity: Severity::Critical,
                    subject: Some(store.name.clone()),
                    since_unix_ms: found.at_unix_ms,
                });
            }
        }
        alerts
    }
}

/// One line for each object, by its word.
pub(super) fn log_found(store: &str, outcome: &VerifyOutcome) {
    for object in outcome.missing.iter().take(DAMAGED_MAX) {
        log::error!(store = store, object = object.as_str(); "store.object-missing");
    }
    for object in outcome.corrupt.iter().take(DAMAGED_MAX) {
        log::error!(store = store, object = object.as_str(); "store.object-damaged");
    }
}

/// What a verification found, as the messages tell it.
pub fn row(store: &str, outcome: VerifyOutcome, duration_ms: u64) -> VerifyStore {
    let condition = if !outcome.corrupt.is_empty() {
        StoreCondition::Corrupt
    } else if !outcome.missing.is_empty() {
        StoreCondition::Missing
    } else {
        StoreCondition::Ok
    };
    let first = |mut names: Vec<String>| {
        names.sort();
        names.dedup();
        names.truncate(DAMAGED_MAX);
        names
    };
    VerifyStore {
        store: store.to_owned(),
        objects: outcome.objects,
        bytes_read: outcome.bytes_read,
        condition,
        reason: None,
        missing: first(outcome.missing),
        damaged: first(outcome.corrupt),
        duration_ms,
    }
}
