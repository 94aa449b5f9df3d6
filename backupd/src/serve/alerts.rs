//! Alerts: computed from what is seen, each with the time since when it is so.

use super::{Daemon, duties};
use crate::settings::{StoreKind, StoreSetting, domains};
use crate::{clock, disk};
use backup_engine::SnapshotInfo;
use backupd_api::{Alert, AlertKind, DrillVerdict, DutyKind, KeptKind, Severity, StoreCondition, StoreRole};
use std::collections::BTreeSet;
use std::path::PathBuf;

type Raised = (AlertKind, Severity, Option<String>);

/// Snapshots that the newest one is compared with.
const COMPARED: usize = 2000;
/// A source below this size may halve at any time.
const SHRUNK_BYTES_MIN: u64 = 1 << 20;

/// The word by which a closed enum travels.
fn word<T: serde::Serialize>(value: T) -> String {
    serde_json::to_value(value).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
}

/// Whether the newest snapshot holds less than half of what an earlier one held: a database begun anew, a disk that is not
/// mounted, a mass deletion. Newest first.
fn shrunk<'a>(mut snapshots: impl Iterator<Item = &'a SnapshotInfo>) -> bool {
    let Some(newest) = snapshots.next() else { return false };
    let largest = snapshots.take(COMPARED).map(|snapshot| snapshot.bytes_source).max().unwrap_or(0);
    largest >= SHRUNK_BYTES_MIN && newest.bytes_source < largest / 2
}

impl Daemon {
    /// What is wrong now. An alert that was there at the last look keeps its beginning.
    pub fn alerts(&self) -> Vec<Alert> {
        let now = clock::unix_ms();
        let mut raised = self.backup_alerts(now);
        raised.extend(self.store_alerts(now));
        raised.extend(self.duty_alerts());
        raised.extend(self.contract_alerts(now));
        if !self.disks_almost_full().is_empty() {
            raised.push((AlertKind::DiskAlmostFull, Severity::Critical, None));
        }
        let mut view = self.view();
        let key = |r: &Raised| (r.0, r.2.clone());
        let before = view.alerts_since.clone();
        // Before the stores were looked at nobody knows that an alert is over.
        if view.looked {
            view.alerts_since.retain(|open, _| raised.iter().any(|r| key(r) == *open));
        }
        let alerts = raised
            .into_iter()
            .map(|r| {
                let since_unix_ms = *view.alerts_since.entry(key(&r)).or_insert(now);
                Alert { kind: r.0, severity: r.1, subject: r.2, since_unix_ms }
            })
            .collect();
        let since = (view.alerts_since != before).then(|| view.alerts_since.clone());
        drop(view);
        if let Some(since) = since {
            self.remember_alerts(&since);
        }
        alerts
    }

    fn backup_alerts(&self, now: i64) -> Vec<Raised> {
        let view = self.view();
        let mut raised = Vec::new();
        // Before the first snapshot, the age counts from the daemon's start.
        let newest = view.newest_durable(self).map_or(self.started_unix_ms, |s| s.taken_unix_ms);
        if clock::is_late(newest, now, self.settings.late_after_ms) {
            raised.push((AlertKind::BackupLate, Severity::Critical, None));
        }
        let down = |name: &str| view.stores.get(name).is_some_and(|s| s.reachable == Some(false));
        let up = domains(self.settings.stores.iter().filter(|s| !down(&s.name)));
        if up < self.settings.quorum as usize || view.quorum_missed {
            raised.push((AlertKind::QuorumUnreachable, Severity::Critical, None));
        }
        if view.spool.full.is_some() {
            raised.push((AlertKind::SpoolFull, Severity::Critical, None));
        }
        if view.spool.lost_unix_ms.is_some() {
            raised.push((AlertKind::SpoolLost, Severity::Critical, None));
        }
        for source in &view.sources_unreachable {
            raised.push((AlertKind::SourceUnreachable, Severity::Critical, Some(source.clone())));
        }
        for source in self.settings.sources.iter().filter(|source| view.is_source_damaged(&source.name)) {
            raised.push((AlertKind::SourceDamaged, Severity::Critical, Some(source.name.clone())));
        }
        for source in &self.settings.sources {
            if shrunk(view.own_of(&source.name).filter(|s| !s.partial)) {
                raised.push((AlertKind::SourceShrunk, Severity::Critical, Some(source.name.clone())));
            }
            if view.own_of(&source.name).next().is_some_and(|s| s.partial) {
                raised.push((AlertKind::SnapshotPartial, Severity::Warning, Some(source.name.clone())));
            }
            if view.has_second_writer(&source.name, now) {
                raised.push((AlertKind::SecondWriter, Severity::Critical, Some(source.name.clone())));
            }
        }
        for found in &view.set_back {
            raised.push((AlertKind::SourceSetBack, Severity::Critical, Some(self.subject_of(found))));
        }
        if let Some(kit) = &view.kit {
            let severity = if kit.opens_any { Severity::Warning } else { Severity::Critical };
            raised.extend(kit.stale.iter().map(|store| (AlertKind::KitStale, severity, Some(store.clone()))));
            if kit.older_keyring {
                raised.push((AlertKind::KitStale, Severity::Warning, None));
            }
        }
        let kinds: BTreeSet<KeptKind> = view.kept_gone.iter().map(|gone| gone.kind).collect();
        raised.extend(kinds.into_iter().map(|kind| (AlertKind::KeptMissing, Severity::Critical, Some(word(kind)))));
        if view.snapshots.iter().any(|s| s.forked) {
            raised.push((AlertKind::HeadFork, Severity::Critical, None));
        }
        for gap in &view.gaps {
            raised.push((AlertKind::HeadGap, Severity::Critical, Some(gap.clone())));
        }
        raised
    }

    fn store_alerts(&self, now: i64) -> Vec<Raised> {
        let view = self.view();
        let mut raised = Vec::new();
        for (name, store) in &view.stores {
            let subject = || Some(name.clone());
            match store.condition() {
                StoreCondition::Ok | StoreCondition::Unknown => {}
                StoreCondition::Unreachable => {
                    raised.push((AlertKind::StoreUnreachable, Severity::Critical, subject()))
                }
                StoreCondition::Late => raised.push((AlertKind::StoreLate, Severity::Warning, subject())),
                StoreCondition::Missing => raised.push((AlertKind::StoreMissing, Severity::Critical, subject())),
                StoreCondition::Corrupt => raised.push((AlertKind::StoreCorrupt, Severity::Critical, subject())),
            }
            // What was made good since is told all the same, beside whatever else is wrong now; and so is what is missing at a store
            // that holds wrong bytes as well.
            let lacks = store.missing.is_some() || store.gone.is_some() || store.open_loss(now).is_some();
            if store.condition() != StoreCondition::Missing && lacks {
                raised.push((AlertKind::StoreMissing, Severity::Critical, subject()));
            }
            if store.healed_unix_ms.is_some() {
                raised.push((AlertKind::StoreHealed, Severity::Warning, subject()));
            }
            let role = self.settings.store(name).map(|s| s.role);
            match (role, store.protection) {
                // A folder that this server can write was never said to be protection.
                (Some(StoreRole::Convenience) | None, _) | (_, None) => {}
                (_, Some((found, _))) if found.protects() => {}
                (Some(StoreRole::Quorum), _) => {
                    raised.push((AlertKind::StoreUnprotected, Severity::Critical, subject()));
                }
                (Some(StoreRole::Copy), _) => {
                    raised.push((AlertKind::StoreUnprotected, Severity::Warning, subject()));
                }
            }
            match store.proof.as_ref().map(|p| p.verdict) {
                Some(DrillVerdict::Fail) => raised.push((AlertKind::DrillFailed, Severity::Critical, subject())),
                Some(DrillVerdict::Inconclusive)
                    if store.proof.as_ref().is_some_and(|p| p.source_damaged.is_some() || p.nothing_sealed) => {}
                Some(DrillVerdict::Inconclusive) => {
                    raised.push((AlertKind::DrillFailed, Severity::Warning, subject()));
                }
                _ => {}
            }
            let drilled = store.proof.as_ref().and_then(|p| p.whole_unix_ms).unwrap_or(self.started_unix_ms);
            if self.report_key.is_some() && clock::is_late(drilled, now, self.settings.drill_late_after_ms) {
                raised.push((AlertKind::DrillLate, Severity::Warning, subject()));
            }
        }
        raised
    }

    /// Records may lie at a provider only under an agreement that is in force.
    fn contract_alerts(&self, now: i64) -> Vec<Raised> {
        let today = duties::today(&self.settings, now);
        let expired = |store: &&StoreSetting| store.baa.as_ref().is_some_and(|baa| baa.until < today);
        let stores = self.settings.stores.iter().filter(expired);
        stores.map(|store| (AlertKind::BaaExpired, Severity::Critical, Some(store.name.clone()))).collect()
    }

    fn duty_alerts(&self) -> Vec<Raised> {
        let mut raised = Vec::new();
        for duty in self.duties() {
            let subject = match (duty.kind, duty.store) {
                (DutyKind::StoreContract, Some(store)) => format!("store-contract.{store}"),
                (kind, _) => word(kind),
            };
            if duty.unassigned {
                raised.push((AlertKind::DutyUnassigned, Severity::Warning, Some(subject)));
            } else if duty.overdue {
                raised.push((AlertKind::DutyOverdue, Severity::Warning, Some(subject)));
            }
        }
        raised
    }

    /// The folders that this daemon writes to whose file systems have less than the reserve free.
    pub fn disks_almost_full(&self) -> Vec<PathBuf> {
        let own =
            self.settings.stores.iter().filter(|s| s.role == StoreRole::Convenience).filter_map(|s| match &s.kind {
                StoreKind::Folder { path, .. } => Some(path.clone()),
                StoreKind::S3 { .. } | StoreKind::Azure { .. } | StoreKind::Gcs { .. } => None,
            });
        let spool = self.settings.spool.as_ref().map(|spool| spool.path.clone());
        own.chain(spool)
            .chain([self.settings.state_dir.clone()])
            .filter(|path| disk::free_bytes(path).is_ok_and(|free| free < self.settings.disk_reserve_bytes))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::testing::snapshot;

    #[test]
    fn a_source_that_lost_most_of_its_records_is_noticed_until_it_has_them_again() {
        let sizes = |sizes: &[u64]| sizes.iter().map(|bytes| snapshot(0, *bytes)).collect::<Vec<_>>();
        assert!(!shrunk(sizes(&[]).iter()) && !shrunk(sizes(&[5 << 20]).iter()));
        assert!(!shrunk(sizes(&[3 << 20, 5 << 20, 5 << 20]).iter()), "it may shrink a little");
        assert!(shrunk(sizes(&[2 << 20, 5 << 20]).iter()));
        assert!(shrunk(sizes(&[2 << 20, 2 << 20, 5 << 20]).iter()), "a second small one does not make it right");
        assert!(!shrunk(sizes(&[5 << 20, 2 << 20, 5 << 20]).iter()));
        assert!(!shrunk(sizes(&[1, 1000]).iter()), "too small to tell");
    }
}
