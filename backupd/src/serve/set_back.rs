//! This machine was set back to an earlier state: told until a person has looked into it.

use super::Daemon;
use crate::failure;
use backup_engine::SetBack;
use backupd_api::{Failure, FailureKind};

impl Daemon {
    /// Takes over what the engine has noted. Only while the engine is held, or before it is used.
    pub(super) fn read_set_back(&self) {
        match backup_engine::set_back(&self.env, &self.engine_state()) {
            Ok(found) => self.view().set_back = found,
            Err(error) => log::warn!(reason:% = error; "state.not-read"),
        }
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
                "no alert `source-set-back` names that: `backupd status` shows what is open",
            )),
            Err(error) => Err(failure::from_engine(&error)),
        }
    }
}
