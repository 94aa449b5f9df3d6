//! One run: look at each store within its budget, then heal what was found.

use super::gaps::LetOff;
use super::{MAINTAIN_JOB, Maintain};
use crate::{clock, failure};
use backup_engine::{HealOutcome, Listings, ScrubRequest, StoreScrub};
use backupd_api::{
    Alert, AlertKind, Client, Event, Failure, FailureKind, HealedBy, HealedRow, MaintainStore, Request, Severity,
    StoreCondition,
};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// What a store has yet to receive is for `serve` to send: nothing is left to heal there.
pub fn is_in_order(condition: StoreCondition) -> bool {
    matches!(condition, StoreCondition::Ok | StoreCondition::Late)
}

/// How long `serve` may take to hear of damage.
const SERVE_LIMIT: Duration = Duration::from_secs(120);
/// Ids of objects that are told; the log has all.
const LEFT_TOLD: usize = 8;

impl Maintain {
    fn engine_state(&self) -> PathBuf {
        self.settings.state_dir.join("engine")
    }

    /// Looks at one store or all, and heals. `all`: every object, whatever the budget.
    pub async fn look_and_heal(&self, store: Option<&str>, all: bool) -> Result<Vec<MaintainStore>, Failure> {
        self.look(store, all, None).await
    }

    /// The same; `let_off`: somebody has looked into it.
    pub(super) async fn look(
        &self,
        store: Option<&str>,
        all: bool,
        let_off: Option<&LetOff>,
    ) -> Result<Vec<MaintainStore>, Failure> {
        if let Some(name) = store.filter(|name| !self.stores.iter().any(|store| store.name == *name)) {
            let message = format!("there is no store `{name}`: `backupd stores` lists them");
            return Err(failure::new(FailureKind::NotFound, message));
        }
        let Ok(_work) = self.work.try_lock() else {
            let message = "a look for damage is running: ask again when `backupd status` shows that it has ended";
            return Err(failure::new(FailureKind::Busy, message));
        };
        let _busy = self.activity.begin(MAINTAIN_JOB);
        let started = clock::unix_ms();
        let result = self.run_now(store, all, let_off).await;
        let ok = result.as_ref().is_ok_and(|rows| rows.iter().all(|row| is_in_order(row.condition)));
        if store.is_none()
            && let Err(error) = self.jobs().finished(MAINTAIN_JOB, started, ok)
        {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        result
    }

    async fn run_now(
        &self,
        only: Option<&str>,
        all: bool,
        let_off: Option<&LetOff>,
    ) -> Result<Vec<MaintainStore>, Failure> {
        let mut others = backup_engine::list_all(&self.plain_stores()).await;
        self.end_let_off(&others).await;
        let (condemned, all_condemned) = self.condemned().await;
        // What an order took out that could not be read is lacking on purpose.
        if others.name_deletions() && !all_condemned {
            others = Listings::default();
        }
        if others.packs_differ() {
            others = others.without(&self.unnamed_packs().await);
        }
        let mut found = Vec::new();
        for store in self.stores.iter().filter(|store| only.is_none_or(|only| store.name == only)) {
            let everything = Duration::from_millis(1);
            let request = ScrubRequest {
                state_dir: self.engine_state(),
                max_age: if all { everything } else { self.settings.max_age },
                bytes_max: if all { u64::MAX } else { self.settings.bytes_for(&store.name) },
                time_max: if all { Duration::MAX } else { self.settings.time_max },
                condemned: condemned.clone(),
                others: others.clone(),
                stop: self.engine_stop.clone(),
            };
            let looked = backup_engine::scrub(&self.env, &[store.as_store()], &request, &self.activity).await;
            found.extend(looked.map_err(|e| failure::from_engine(&e))?);
        }
        // What goes on purpose is not brought back, nor put right while a lock keeps it.
        for seen in &mut found {
            seen.corrupt.retain(|name| !condemned.contains(name));
        }
        if let Some(LetOff::Gap(gap)) = let_off {
            self.let_off(gap, &mut found)?;
        }
        let healed = backup_engine::heal(&self.env, &self.stores, &mut found, &self.engine_state()).await;
        let mut healed = healed.map_err(|e| failure::from_engine(&e))?;
        if let Some(LetOff::Lost) = let_off {
            self.let_off_lost(&mut found, &mut healed)?;
        }
        let left = healed.left.iter().map(|(_, name, _)| name).collect();
        if let Err(error) = self.records.tell(&left) {
            log::error!(reason:% = error; "maintain.not-recorded");
        }
        self.record(&healed);
        self.tell_serve(&found, &healed).await;
        self.extend_locks(only, &condemned).await;
        Ok(found.iter().map(|seen| self.note(seen, &healed)).collect())
    }

    /// What was given up, or could not be brought back, and is whole somewhere again.
    async fn end_let_off(&self, listed: &Listings) {
        let back = async {
            let mut back = BTreeSet::new();
            for name in self.records.given_up()?.into_iter().chain(self.records.told()?) {
                for store in self.stores.iter().filter(|_| listed.hold(&name)) {
                    if backup_engine::is_whole(&store.as_store(), &name).await.unwrap_or(false) {
                        back.insert(name.clone());
                    }
                }
            }
            self.records.end_let_off(|name| back.contains(name))
        };
        if let Err(error) = back.await {
            log::error!(reason:% = error; "maintain.not-recorded");
        }
    }

    /// Packs that belong to no snapshot, as far as a key is here to tell.
    async fn unnamed_packs(&self) -> BTreeSet<String> {
        let Some(open) = self.open_key() else { return BTreeSet::new() };
        let stores = self.plain_stores();
        let unnamed = backup_engine::unnamed_packs(&self.env, open.catalog(), &stores, &self.engine_state()).await;
        unnamed.unwrap_or_else(|error| {
            log::warn!(reason:% = error; "index.not-read");
            BTreeSet::new()
        })
    }

    /// What is damaged at a store and could not be put right is told to `serve`: the next snapshot then reads the source
    /// again and does not rest on it. A snapshot under way is waited for, and not for ever: the next look tells it again.
    async fn tell_serve(&self, found: &[StoreScrub], outcome: &HealOutcome) {
        let Some(endpoint) = &self.settings.serve else { return };
        let tell = async {
            for seen in found {
                let is_left =
                    |name: &&String| outcome.left.iter().any(|(store, left, _)| *store == seen.store && left == *name);
                let objects: Vec<String> = seen.corrupt.iter().filter(is_left).cloned().collect();
                if objects.is_empty() {
                    continue;
                }
                let request = Request::LookAt { store: seen.store.clone(), objects };
                let endpoint = self.settings.endpoint(endpoint)?;
                match Client::connect(&endpoint).await?.request(&request, |_| ()).await? {
                    Event::LookedAt { .. } => {}
                    _ => anyhow::bail!("serve gave another answer than was asked for"),
                }
            }
            anyhow::Ok(())
        };
        let told = tokio::time::timeout(SERVE_LIMIT, tell).await;
        let told = told.unwrap_or_else(|_| Err(anyhow::anyhow!("serve did not answer in time")));
        if let Err(error) = told {
            log::warn!(reason:% = error; "serve.did-not-look");
        }
    }

    /// One line of the log and one of the record for each object.
    fn record(&self, outcome: &HealOutcome) {
        for healed in &outcome.healed {
            let by = match healed.by {
                backup_engine::HealedBy::Put => HealedBy::Put,
                backup_engine::HealedBy::Replaced => HealedBy::Replaced,
                backup_engine::HealedBy::Candidate => HealedBy::Candidate,
            };
            log::warn!(
                store = healed.store.as_str(), object = healed.object.as_str(), from = healed.from.as_str(), by:? = by,
                bytes = healed.bytes; "store.object-healed"
            );
            let row = HealedRow {
                at_unix_ms: clock::unix_ms(),
                store: healed.store.clone(),
                object: healed.object.clone(),
                from: healed.from.clone(),
                by,
                bytes: healed.bytes,
            };
            if let Err(error) = self.records.add(&row) {
                log::error!(reason:% = error; "maintain.not-recorded");
            }
        }
        for (store, object, error) in &outcome.left {
            log::error!(store = store.as_str(), object = object.as_str(), reason:% = error; "store.object-not-healed");
        }
    }

    fn note(&self, seen: &StoreScrub, outcome: &HealOutcome) -> MaintainStore {
        let left: Vec<&String> =
            outcome.left.iter().filter(|(store, ..)| *store == seen.store).map(|(_, object, _)| object).collect();
        let is_left = |names: &[String]| names.iter().any(|name| left.contains(&name));
        let condition = if is_left(&seen.corrupt) {
            StoreCondition::Corrupt
        } else if is_left(&seen.missing) {
            StoreCondition::Missing
        } else if seen.error.is_some() {
            StoreCondition::Unreachable
        } else if seen.late {
            StoreCondition::Late
        } else {
            StoreCondition::Ok
        };
        if let Some(error) = &seen.error {
            log::warn!(store = seen.store.as_str(), reason:% = error; "store.not-looked-at");
        }
        let now = clock::unix_ms();
        // What goes on is as old as it was.
        let before = self.records.last_look(&seen.store).filter(|row| row.condition == condition);
        let row = MaintainStore {
            store: seen.store.clone(),
            condition,
            since_unix_ms: before.map(|row| row.since_unix_ms).filter(|since| *since > 0).unwrap_or(now),
            looked_unix_ms: Some(now),
            objects: seen.objects,
            bytes: seen.bytes,
            checked: seen.checked,
            bytes_read: seen.bytes_read,
            verified_since_unix_ms: seen.verified_since_unix_ms,
            overdue: seen.overdue,
            missing: seen.missing.len() as u64,
            corrupt: seen.corrupt.len() as u64,
            healed: outcome.healed.iter().filter(|healed| healed.store == seen.store).count() as u64,
            healed_ever: self.records.healed_at(&seen.store).unwrap_or(0),
            left: left.into_iter().take(LEFT_TOLD).cloned().collect(),
        };
        log::info!(
            store = row.store.as_str(), condition:? = row.condition, objects = row.objects, checked = row.checked,
            bytes = row.bytes_read, missing = row.missing, corrupt = row.corrupt, healed = row.healed,
            overdue = row.overdue; "store.looked-at"
        );
        if let Err(error) = self.records.looked(&row) {
            log::error!(reason:% = error; "maintain.not-recorded");
        }
        row
    }

    /// What the last runs saw, in the settings' order.
    pub fn store_rows(&self) -> Vec<MaintainStore> {
        let never = |store: &str| MaintainStore {
            store: store.to_owned(),
            condition: StoreCondition::Ok,
            since_unix_ms: 0,
            looked_unix_ms: None,
            objects: 0,
            bytes: 0,
            checked: 0,
            bytes_read: 0,
            verified_since_unix_ms: None,
            overdue: 0,
            missing: 0,
            corrupt: 0,
            healed: 0,
            healed_ever: 0,
            left: Vec::new(),
        };
        self.stores.iter().map(|s| self.records.last_look(&s.name).unwrap_or_else(|| never(&s.name))).collect()
    }

    /// Damage that is left is an alert until it is gone, and what was put right until somebody has looked into it.
    pub fn alerts(&self, rows: &[MaintainStore]) -> Vec<Alert> {
        let alert = |row: &MaintainStore| {
            let kind = match row.condition {
                StoreCondition::Corrupt => AlertKind::StoreCorrupt,
                StoreCondition::Missing => AlertKind::StoreMissing,
                StoreCondition::Unreachable => AlertKind::StoreUnreachable,
                StoreCondition::Ok | StoreCondition::Late | StoreCondition::Unknown => return None,
            };
            let severity = if kind == AlertKind::StoreUnreachable { Severity::Warning } else { Severity::Critical };
            let subject = Some(row.store.clone());
            Some(Alert { kind, severity, subject, since_unix_ms: row.since_unix_ms })
        };
        let damage = rows.iter().filter_map(alert).chain(self.healed_alerts());
        damage.chain(self.lock_alerts()).chain(self.prune_alerts()).collect()
    }
}
