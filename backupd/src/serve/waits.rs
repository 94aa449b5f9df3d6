//! Why backups wait and what the last snapshot missed, kept over a restart: until the next snapshot nothing else knows it, and not
//! to know must not look like health.

use super::Daemon;
use super::spool::Full;
use agent_api::Pause;
use serde::{Deserialize, Serialize};

/// The jobs' note of it.
const NOTE: &str = "waits";

#[derive(Default, Serialize, Deserialize)]
struct Waits {
    paused: Option<Pause>,
    quorum_missed: bool,
    spool_full: Option<Full>,
}

impl Daemon {
    /// Keeps what is so now, where it has changed.
    pub(super) fn remember_waits(&self) {
        let text = {
            let mut view = self.view();
            let waits = Waits { paused: view.paused, quorum_missed: view.quorum_missed, spool_full: view.spool.full };
            let text = serde_json::to_string(&waits).unwrap_or_default();
            if text == view.remembered_waits {
                return;
            }
            view.remembered_waits.clone_from(&text);
            text
        };
        if let Err(error) = self.jobs().set_note(NOTE, &text) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }

    /// Takes over what was so before this start, as far as nothing shows now that it is over. What the stores show is seen at the
    /// first look.
    pub(super) fn recall_waits(&self) {
        let note = self.jobs().note(NOTE).ok().flatten();
        let waits: Waits = note.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        let has_room = self.disks_almost_full().is_empty();
        let mut view = self.view();
        match waits.paused {
            // Which sources give no copy has a note of its own.
            None | Some(Pause::SourceUnreachable) => {}
            Some(Pause::DiskAlmostFull) if has_room => {}
            Some(pause) => view.paused = Some(pause),
        }
        view.quorum_missed = waits.quorum_missed;
        view.spool.full = waits.spool_full.filter(|full| self.is_full_still(full));
    }
}
