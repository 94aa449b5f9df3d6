//! Every run moves the locks of what must stay further away, at each store that locks, and raises their mode to the settings'.

use super::Maintain;
use crate::settings::StoreSetting;
use crate::{clock, stores};
use backup_engine::LockOutcome;
use backupd_api::{Alert, AlertKind, Severity};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

/// Stores where something that must stay is not locked long enough, or not in the mode that is asked for, and since when either
/// is known.
pub type ShortLocks = BTreeMap<(AlertKind, String), i64>;

impl Maintain {
    /// Moves the locks of one store, or of all; those of what goes on purpose run out.
    pub async fn extend_locks(&self, only: Option<&str>, condemned: &BTreeSet<String>) {
        let wanted = |setting: &&StoreSetting| only.is_none_or(|only| setting.name == only);
        for setting in self.settings.stores.iter().filter(wanted) {
            match stores::locks(setting) {
                Ok(None) => {}
                Ok(Some(stores::Locking { store, versions, wish })) => {
                    let done = backup_engine::extend_locks(&self.env, &store, &*versions, wish, condemned).await;
                    self.note_locks(&done);
                }
                Err(error) => log::error!(store = setting.name.as_str(), reason:% = error; "locks.not-extended"),
            }
        }
    }

    fn note_locks(&self, done: &LockOutcome) {
        let (store, until) = (done.store.as_str(), done.earliest_until_unix_ms.unwrap_or(0));
        if let Some(error) = &done.error {
            log::error!(store = store, reason:% = error; "locks.not-extended");
        }
        for object in &done.short_objects {
            log::error!(store = store, object = object.as_str(); "locks.too-short");
        }
        for object in &done.mode_short_objects {
            log::error!(store = store, object = object.as_str(); "locks.mode-short");
        }
        log::info!(
            store = store, versions = done.versions, extended = done.extended, short = done.short,
            mode_short = done.mode_short, until_unix_ms = until;
            "locks.extended"
        );
        let mut short = self.short_locks();
        // What a store did not say may be either; it was not all seen to hold.
        let holds = [
            (AlertKind::LocksShort, done.short == 0 && done.error.is_none()),
            (AlertKind::LockModeShort, done.mode_short == 0),
        ];
        for (kind, holds) in holds {
            let key = (kind, store.to_owned());
            if !holds {
                short.entry(key).or_insert_with(clock::unix_ms);
            } else if done.error.is_none() {
                short.remove(&key);
            }
        }
    }

    fn short_locks(&self) -> MutexGuard<'_, ShortLocks> {
        self.short_locks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is not locked long enough, or in too lax a mode, is an alert until it is.
    pub fn lock_alerts(&self) -> Vec<Alert> {
        let alert = |((kind, store), since_unix_ms): (&(AlertKind, String), &i64)| Alert {
            kind: *kind,
            severity: Severity::Critical,
            subject: Some(store.clone()),
            since_unix_ms: *since_unix_ms,
        };
        self.short_locks().iter().map(alert).collect()
    }
}
