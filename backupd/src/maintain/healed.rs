//! What was put right is told until a person has looked into it. A store that loses or damages objects does so for a reason:
//! a failing disk, or somebody with a key that can delete there, whom a silent heal would hide.

use super::Maintain;
use crate::failure;
use backupd_api::{Alert, AlertKind, Failure, FailureKind, Severity};

impl Maintain {
    pub(super) fn healed_alerts(&self) -> Vec<Alert> {
        let alert = |store: &str| {
            let since_unix_ms = self.records.healed_unseen(store).unwrap_or_else(|error| {
                log::error!(reason:% = error; "maintain.record-not-read");
                None
            })?;
            let (kind, severity) = (AlertKind::StoreHealed, Severity::Warning);
            Some(Alert { kind, severity, subject: Some(store.to_owned()), since_unix_ms })
        };
        self.stores.iter().filter_map(|store| alert(&store.name)).collect()
    }

    /// Somebody has looked into what was put right at a store so far. `false`: nothing that is open names that.
    pub(super) fn close_healed(&self, subject: &str) -> Result<bool, Failure> {
        let close = || {
            if !self.stores.iter().any(|store| store.name == subject) || self.records.healed_unseen(subject)?.is_none()
            {
                return Ok(false);
            }
            self.records.healed_seen(subject).map(|()| true)
        };
        close().map_err(|error: rusqlite::Error| {
            log::error!(reason:% = error; "maintain.not-recorded");
            failure::new(FailureKind::Retry, "it could not be noted: look at the disk that holds the state of maintain")
        })
    }
}
