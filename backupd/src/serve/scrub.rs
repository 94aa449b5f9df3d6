//! Scrub: every object of every store against the hash in its name, without any key, least recently looked at first and
//! within a budget. What it finds is remembered. All of one store is read only when there is reason to doubt it.

use super::Daemon;
use super::schedule::SCRUB_JOB;
use crate::stores::StoreView;
use crate::{clock, failure, reports};
use backup_engine::{Doubts, Listings, NamedStore, ScrubRequest, Stop};
use backupd_api::{Failure, FailureKind, SnapshotDone, StoreCondition};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Objects looked at by name for one question.
const NAMED_MAX: usize = 1000;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Found {
    missing: Option<String>,
    corrupt: Option<String>,
}

fn note_key(store: &str) -> String {
    format!("scrub:{store}")
}

/// By store, what is damaged there.
type Marks = BTreeMap<String, BTreeSet<String>>;

fn sound_key(store: &str) -> String {
    format!("sound:{store}")
}

fn healed_key(store: &str) -> String {
    format!("healed:{store}")
}

fn whole_key(store: &str) -> String {
    format!("whole:{store}")
}

impl Daemon {
    /// Looks at every store in turn, at all of one that lost something and that somebody waits for.
    pub async fn scrub(&self) {
        let _busy = self.activity.begin("scrub");
        let started = clock::unix_ms();
        let mut ok = true;
        for store in &self.stores {
            let began = clock::unix_ms();
            if !self.has_open_loss(&store.name) {
                ok &= self.scrub_part(store).await;
                continue;
            }
            let whole = self.scrub_store(store).await;
            ok &= whole;
            if whole {
                let _engine = self.engine.lock().await;
                if self.bring_up_to_date().await.contains(&store.name) {
                    self.note_whole(&store.name, began);
                }
            }
        }
        if let Err(error) = self.jobs().finished(SCRUB_JOB, started, ok) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    /// Re-hashes what of a store is due; whether it was whole. What was damaged before is looked at in every run.
    async fn scrub_part(&self, store: &NamedStore) -> bool {
        let budget = &self.settings.scrub_budget;
        let request = ScrubRequest {
            // Apart from the engine's: a backup waits for no scrub.
            state_dir: self.settings.state_dir.join("scrub"),
            max_age: budget.max_age,
            bytes_max: budget.bytes_max,
            time_max: budget.time_max,
            condemned: BTreeSet::new(),
            others: Listings::default(),
            stop: Stop::default(),
        };
        let seen = match backup_engine::scrub(&self.env, std::slice::from_ref(store), &request, &self.activity).await {
            Ok(mut seen) => seen.pop().unwrap_or_default(),
            Err(error) => {
                log::warn!(store = store.name.as_str(), reason:% = error; "store.scrub-failed");
                return false;
            }
        };
        let damaged_reports = self.damaged_reports(store).await;
        for object in seen.corrupt.iter().chain(&damaged_reports) {
            log::error!(store = store.name.as_str(), object = object.as_str(); "store.object-damaged");
        }
        log::info!(
            store = store.name.as_str(), objects = seen.objects, checked = seen.checked, bytes = seen.bytes_read,
            overdue = seen.overdue; "store.scrubbed"
        );
        if let Some(error) = &seen.error {
            log::warn!(store = store.name.as_str(), reason:% = error; "store.scrub-failed");
        }
        // What is missing shows where all stores are compared: a snapshot does that.
        let corrupt = seen.corrupt.first().or(damaged_reports.first()).cloned();
        let corrupt = if corrupt.is_none() { self.damaged_still(store).await } else { corrupt };
        let whole = corrupt.is_none() && seen.error.is_none();
        if corrupt.is_some() || whole {
            self.take_in_damage(store, &Found { missing: None, corrupt }).await;
        }
        self.note_damage(&store.name, &seen.corrupt, &[]).await;
        whole
    }

    /// The object that makes a store count as damaged, unless it is whole again: a part of the store may not have held it.
    async fn damaged_still(&self, store: &NamedStore) -> Option<String> {
        let object = self.view().stores.get(&store.name).and_then(|seen| seen.corrupt.clone())?;
        // The log's own objects are looked at in every run.
        if object.starts_with(reports::PREFIX) || !backup_engine::is_damaged_still(store, &object).await.unwrap_or(true)
        {
            return None;
        }
        Some(object)
    }

    /// Re-hashes one store and remembers what is found; whether everything was looked at and whole. It takes as long as the
    /// store is large, so it does not hold the engine: a backup waits for no scrub.
    async fn scrub_store(&self, store: &NamedStore) -> bool {
        match backup_engine::verify_keyless(&self.env, store, &self.activity).await {
            Ok(outcome) => {
                let damaged_reports = self.damaged_reports(store).await;
                for object in outcome.missing.iter().chain(&outcome.corrupt).chain(&damaged_reports) {
                    log::error!(store = store.name.as_str(), object = object.as_str(); "store.object-damaged");
                }
                log::info!(store = store.name.as_str(), objects = outcome.objects, bytes = outcome.bytes_read; "store.scrubbed");
                let corrupt = outcome.corrupt.first().or(damaged_reports.first()).cloned();
                let found = Found { missing: outcome.missing.first().cloned(), corrupt };
                self.take_in_damage(store, &found).await;
                self.note_damage(&store.name, &outcome.corrupt, &[]).await;
                outcome.is_ok() && damaged_reports.is_empty()
            }
            Err(error) => {
                log::warn!(store = store.name.as_str(), reason:% = error; "store.scrub-failed");
                false
            }
        }
    }

    /// Looks at one store because somebody else found damage there: re-hashes it, heals what another store has whole, and
    /// looks again. Whether it is whole now.
    pub async fn look_at(&self, name: &str) -> Option<bool> {
        let store = self.stores.iter().find(|store| store.name == name)?;
        let began = clock::unix_ms();
        let was_whole = {
            let _busy = self.activity.begin("scrub");
            self.scrub_store(store).await
        };
        // What is missing shows in no store alone: catch-up compares them all.
        let complete = {
            self.catching_up().stop();
            let _engine = self.engine.lock().await;
            self.bring_up_to_date().await.contains(&store.name)
        };
        if complete {
            self.view().stores.entry(name.to_owned()).or_default().lacks_nothing_unix_ms = Some(began);
        }
        let whole = was_whole || {
            let _busy = self.activity.begin("scrub");
            self.scrub_store(store).await
        };
        if whole && complete {
            self.note_whole(name, began);
        }
        Some(whole && complete)
    }

    /// The same for these objects alone; none: for all.
    pub async fn look_at_some(&self, name: &str, objects: &[String]) -> Option<bool> {
        if objects.is_empty() {
            return self.look_at(name).await;
        }
        let store = self.stores.iter().find(|store| store.name == name)?;
        let (mut damaged, mut whole) = (Vec::new(), Vec::new());
        for object in objects.iter().take(NAMED_MAX) {
            match backup_engine::is_whole(store, object).await {
                Ok(true) => whole.push(object.clone()),
                Ok(false) => damaged.push(object.clone()),
                Err(error) => log::warn!(store = name, reason:% = error; "store.scrub-failed"),
            }
        }
        if let Some(first) = damaged.first() {
            for object in &damaged {
                log::error!(store = name, object = object.as_str(); "store.object-damaged");
            }
            let missing = self.view().stores.get(name).and_then(|seen| seen.missing.clone());
            self.remember(name, &Found { missing, corrupt: Some(first.clone()) });
        }
        self.note_damage(name, &damaged, &whole).await;
        Some(damaged.is_empty() && objects.len() <= NAMED_MAX)
    }

    /// The next snapshot then takes what is damaged at a store for absent, and heals it from another.
    async fn note_damage(&self, store: &str, damaged: &[String], whole: &[String]) {
        let _engine = self.engine.lock().await;
        let noted = backup_engine::note_damage(&self.env, &self.engine_state(), store, damaged, whole);
        if let Err(error) = noted {
            log::warn!(reason:% = error; "state.write-failed");
        }
        self.read_damage();
    }

    /// Takes in what is known to be damaged: of another damage than before nobody knows which snapshots it belongs to. Only
    /// while the engine is held. Gives the marks of the damage.
    pub(super) fn read_damage(&self) -> Marks {
        let names = self.stores.iter().map(|store| store.name.as_str());
        let known = backup_engine::doubts(&self.env, &self.engine_state(), names).unwrap_or_else(|error| {
            log::warn!(reason:% = error; "state.not-read");
            Doubts::default()
        });
        let mut healed = Vec::new();
        let untold = known.gone.iter().find(|(_, looked)| !**looked).map(|(name, _)| name.clone());
        let changed: Vec<String> = {
            let mut view = self.view();
            let has_gone = !known.gone.is_empty();
            view.gone = known.gone.into_keys().collect();
            let changes = |store: &&NamedStore| {
                let seen = view.stores.entry(store.name.clone()).or_default();
                (seen.gone, seen.has_gone) = (untold.clone(), has_gone);
                let before = std::mem::replace(&mut seen.damaged, known.damaged.get(&store.name).cloned());
                if before.is_some() && seen.damaged.is_none() {
                    healed.push(store.name.clone());
                }
                seen.sound.knows(known.marks.get(&store.name).unwrap_or(&BTreeSet::new()))
            };
            self.stores.iter().filter(changes).map(|store| store.name.clone()).collect()
        };
        self.keep_sound(changed.iter());
        healed.iter().for_each(|store| self.note_healed(store));
        known.marks
    }

    /// A snapshot was taken while just this damage was known: it rests on none of it, at whatever store has it in the end.
    pub(super) fn note_sound(&self, done: &SnapshotDone, known: &Marks) {
        if self.read_damage() != *known {
            return;
        }
        {
            let mut view = self.view();
            let listed = view.snapshots.iter().map(|info| info.id.to_string()).collect();
            let stores = self.stores.iter().map(|store| store.name.clone());
            stores.for_each(|name| view.stores.entry(name).or_default().sound.took(&done.id, &listed));
        }
        self.keep_sound(known.keys());
    }

    fn keep_sound<'s>(&self, stores: impl Iterator<Item = &'s String>) {
        for name in stores {
            let sound = self.view().stores.get(name).map(|seen| seen.sound.clone()).unwrap_or_default();
            let text = serde_json::to_string(&sound).unwrap_or_default();
            if let Err(error) = self.jobs().set_note(&sound_key(name), &text) {
                log::error!(reason:% = error; "jobs.not-recorded");
            }
        }
    }

    /// Somebody has looked into what a store lost, or lacks: it is looked at, and the alert closes where it holds everything. What
    /// this very look finds gone was not known to whoever asked, and stays open. `None`: no such alert names this store.
    pub(super) async fn close_loss(&self, store: &str) -> Option<Result<(), Failure>> {
        let is_missing = |seen: &StoreView| seen.condition() == StoreCondition::Missing || seen.gone.is_some();
        let open = self.view().stores.get(store).is_some_and(is_missing) || self.has_open_loss(store);
        if !open {
            return None;
        }
        let told = self.untold_gone().await;
        let began = clock::unix_ms();
        let whole = self.look_at(store).await?;
        // What is damaged is an alert of its own; this one is about what is not there.
        let complete = whole || self.view().stores.get(store).is_some_and(|seen| seen.complete_since(began));
        let closed = match complete {
            true => self.close_gone(&told).await,
            false => Ok(false),
        };
        let closed = match closed {
            Ok(closed) => closed,
            Err(failed) => return Some(Err(failed)),
        };
        if closed {
            self.note_whole(store, began);
        }
        let message = match closed {
            // Some of what a drill misses shows to nobody without the open key.
            true if self.view().stores.get(store).is_some_and(is_missing) => {
                "the newest drill from this store missed something: `backupd drill` it again"
            }
            true if self.has_open_loss(store) => "more was gone than was told, and is back now: say it once more",
            false if complete => {
                "more is gone from every store than was told: look at the journal, then say it once more"
            }
            true => {
                log::warn!(store = store; "store.loss-closed");
                return Some(Ok(()));
            }
            false => "the store does not hold everything yet, or did not answer: `backupd heal`, then say it once more",
        };
        Some(Err(failure::new(FailureKind::Retry, message)))
    }

    /// What no store holds any more and nobody has looked into.
    async fn untold_gone(&self) -> BTreeSet<String> {
        let _engine = self.engine.lock().await;
        let known = backup_engine::doubts(&self.env, &self.engine_state(), std::iter::empty()).unwrap_or_default();
        known.gone.into_iter().filter(|(_, looked)| !looked).map(|(name, _)| name).collect()
    }

    /// A person knows that these are gone for good. `false`: there is more.
    async fn close_gone(&self, told: &BTreeSet<String>) -> Result<bool, Failure> {
        if !self.untold_gone().await.is_subset(told) {
            return Ok(false);
        }
        let _engine = self.engine.lock().await;
        backup_engine::close_gone(&self.env, &self.engine_state()).map_err(|error| failure::from_engine(&error))?;
        self.read_damage();
        Ok(true)
    }

    /// Remembers what was found; what was damaged before and is whole now was put right.
    async fn take_in_damage(&self, store: &NamedStore, found: &Found) {
        let before = self.view().stores.get(&store.name).and_then(|seen| seen.corrupt.clone());
        let ended = before.filter(|object| found.corrupt.is_none() && !object.starts_with(reports::PREFIX));
        self.remember(&store.name, found);
        if let Some(object) = ended
            && backup_engine::is_whole(store, &object).await.unwrap_or(false)
        {
            self.note_healed(&store.name);
        }
    }

    /// What was damaged at a store is whole again: who looks only at alerts that are open would never hear of it.
    pub(super) fn note_healed(&self, store: &str) {
        let since = {
            let mut view = self.view();
            *view.stores.entry(store.to_owned()).or_default().healed_unix_ms.get_or_insert_with(clock::unix_ms)
        };
        if let Err(error) = self.jobs().set_note(&healed_key(store), &since.to_string()) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    /// Somebody has looked into that; `false`: nothing of it is open.
    pub(super) fn close_healed(&self, store: &str) -> Result<bool, Failure> {
        let is_open = self.view().stores.get(store).is_some_and(|seen| seen.healed_unix_ms.is_some());
        if is_open {
            self.jobs().set_note(&healed_key(store), "").map_err(|error| {
                log::error!(reason:% = error; "jobs.not-recorded");
                failure::new(
                    FailureKind::Retry,
                    "it could not be noted: look at the disk that holds the state of serve",
                )
            })?;
            self.view().stores.entry(store.to_owned()).or_default().healed_unix_ms = None;
        }
        Ok(is_open)
    }

    fn has_open_loss(&self, store: &str) -> bool {
        self.view().stores.get(store).is_some_and(|seen| seen.open_loss(clock::unix_ms()).is_some())
    }

    /// A look at every object that began then found all of them whole and none lacking. Kept, so that it answers a loss after a
    /// restart, too.
    fn note_whole(&self, store: &str, began: i64) {
        if let Err(error) = self.jobs().set_note(&whole_key(store), &began.to_string()) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        self.view().stores.entry(store.to_owned()).or_default().looked_unix_ms = Some(began);
    }

    /// Objects of the log of reports that do not hold what they must. A store that does not list them now is told as
    /// unreachable elsewhere.
    async fn damaged_reports(&self, store: &NamedStore) -> Vec<String> {
        let (Some(key), Some(origin)) = (&self.report_key, self.log_origin()) else { return Vec::new() };
        match reports::objects(store, key, &origin).await {
            Ok(objects) => backup_report::damaged(&objects, key, &origin),
            Err(_) => Vec::new(),
        }
    }

    /// Looks again at the object that made a store count as damaged. When it is whole again somebody has healed the
    /// store: it is scrubbed at once, so that the alert closes, or names what is still wrong.
    pub async fn look_at_damage(&self) {
        for store in &self.stores {
            let damaged = self.view().stores.get(&store.name).and_then(|seen| seen.damaged_object().cloned());
            let Some(object) = damaged else { continue };
            let is_missing =
                self.view().stores.get(&store.name).is_some_and(|seen| seen.missing.as_ref() == Some(&object));
            let whole = match object.starts_with(reports::PREFIX) {
                true => !self.damaged_reports(store).await.contains(&object),
                false if is_missing => backup_engine::is_whole(store, &object).await.unwrap_or(false),
                false => !backup_engine::is_damaged_still(store, &object).await.unwrap_or(true),
            };
            if !whole {
                continue;
            }
            log::info!(store = store.name.as_str(), object = object.as_str(); "store.object-whole-again");
            let by_scrub = |seen: &StoreView| seen.damaged.as_ref() != Some(&object);
            if self.view().stores.get(&store.name).is_some_and(by_scrub) {
                let _busy = self.activity.begin("scrub");
                self.scrub_store(store).await;
            } else {
                self.note_damage(&store.name, &[], &[object]).await;
            }
        }
    }

    fn remember(&self, store: &str, found: &Found) {
        let text = serde_json::to_string(found).unwrap_or_default();
        if let Err(error) = self.jobs().set_note(&note_key(store), &text) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        self.show(store, found);
    }

    fn show(&self, store: &str, found: &Found) {
        let mut view = self.view();
        let entry = view.stores.entry(store.to_owned()).or_default();
        (entry.missing, entry.corrupt) = (found.missing.clone(), found.corrupt.clone());
    }

    /// Takes over what the last scrubs before this start found.
    pub fn recall_scrubs(&self) {
        for store in &self.settings.stores {
            let note = self.jobs().note(&note_key(&store.name)).ok().flatten();
            let found = note.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            self.show(&store.name, &found);
            let whole = self.jobs().note(&whole_key(&store.name)).ok().flatten();
            let looked = whole.and_then(|text| text.parse().ok());
            let healed = self.jobs().note(&healed_key(&store.name)).ok().flatten();
            let healed = healed.and_then(|text| text.parse().ok());
            self.view().stores.entry(store.name.clone()).or_default().healed_unix_ms = healed;
            let sound = self.jobs().note(&sound_key(&store.name)).ok().flatten();
            let sound = sound.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
            self.view().stores.entry(store.name.clone()).or_default().sound = sound;
            self.view().stores.entry(store.name.clone()).or_default().looked_unix_ms = looked;
        }
    }
}
