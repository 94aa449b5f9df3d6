//! This machine, or the EMR's records alone, were set back to an earlier state: told until a person has looked into it.
//!
//! The machine is noticed by the engine, by its chain. The records are noticed by their audit, which only grows: what was its
//! end at the last snapshot is part of it ever after, unless the records are older ones, or others.

use super::Daemon;
use crate::failure;
use appliance_api::AuditHead;
use backup_engine::{SetBack, SnapshotId};
use backupd_api::{Failure, FailureKind};
use serde::{Deserialize, Serialize};

/// What is remembered of a source's last snapshot. No record content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Last {
    pub audit: AuditHead,
    /// The snapshot that holds what would be lacking.
    snapshot: String,
    /// That the records do not go on from there is noted already.
    told: bool,
}

fn note_key(source: &str) -> String {
    format!("audit:{source}")
}

impl Daemon {
    /// Takes over what the engine has noted. Only while the engine is held, or before it is used.
    pub(super) fn read_set_back(&self) {
        match backup_engine::set_back(&self.env, &self.engine_state()) {
            Ok(found) => self.view().set_back = found,
            Err(error) => log::warn!(reason:% = error; "state.not-read"),
        }
    }

    /// Where the source's audit ended in the last snapshot. Without memory of it, nothing is asked and nothing is said.
    pub(super) fn last_audit(&self, source: &str) -> Option<Last> {
        let note = self.jobs().note(&note_key(source)).unwrap_or_else(|error| {
            log::warn!(reason:% = error; "jobs.not-read");
            None
        });
        serde_json::from_str(&note?).ok()
    }

    /// Remembers where the audit ended in the snapshot that was just taken.
    pub(super) fn remember_audit(&self, source: &str, audit: AuditHead, snapshot: SnapshotId) {
        self.set_last(source, &Last { audit, snapshot: snapshot.to_string(), told: false });
    }

    fn set_last(&self, source: &str, last: &Last) {
        let text = serde_json::to_string(last).unwrap_or_default();
        if let Err(error) = self.jobs().set_note(&note_key(source), &text) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    /// The records do not contain what the last snapshot of them held: noted before that is forgotten, and once for each
    /// snapshot, whether or not the next one succeeds. `false`: it could not be noted, so the next one must find it again.
    /// Only while the engine is held.
    pub(super) fn note_records_set_back(&self, source: &str, last: &Last) -> bool {
        // What is not the id of a snapshot was never written here.
        let Ok(snapshot) = last.snapshot.parse() else { return true };
        if last.told {
            return true;
        }
        let id = self.writer().catalog().source_id(source);
        if let Err(error) = backup_engine::note_set_back(&self.env, &self.engine_state(), id, snapshot) {
            log::error!(error:% = error; "state.write-failed");
            return false;
        }
        self.set_last(source, &Last { told: true, ..last.clone() });
        self.read_set_back();
        true
    }

    /// What an alert names: the snapshot that has what this machine lacks; where none could be read, the source.
    pub(super) fn subject_of(&self, found: &SetBack) -> String {
        let writer = self.writer();
        let is_it = |name: &str| writer.catalog().source_id(name) == found.source;
        let source =
            || self.settings.sources.iter().find(|source| is_it(&source.name)).map(|source| source.name.clone());
        found.snapshot.map(|id| id.to_string()).or_else(source).unwrap_or_default()
    }

    /// Somebody has looked into it.
    pub(super) async fn close_set_back(&self, subject: &str) -> Result<(), Failure> {
        // A store that is being filled makes way.
        self.catching_up().stop();
        let _engine = self.engine.lock().await;
        let is_it = |found: &SetBack| self.subject_of(found) == subject;
        let closed = backup_engine::close_set_back(&self.env, &self.engine_state(), is_it);
        self.read_set_back();
        match closed {
            Ok(true) => {
                log::warn!("source.set-back-closed");
                Ok(())
            }
            Ok(false) => Err(failure::new(
                FailureKind::NotFound,
                "no alert `source-set-back`, `head-gap`, `store-missing` or `store-healed` of this daemon names that: `backupd status` shows \
                 what is open. One that the verifier has raised closes with its next `backupd verify` that finds everything",
            )),
            Err(error) => Err(failure::from_engine(&error)),
        }
    }
}
