//! Links that are missing from the history of snapshots: told until a person has looked into it.
//!
//! A gap stays for as long as its chain does, so who has looked closes it by its name. One that grows has another name, and a
//! lost state forgets that anybody looked: both are told again.

use super::Daemon;
use crate::failure;
use backup_engine::Gap;
use backupd_api::{Failure, FailureKind};

fn note_key(subject: &str) -> String {
    format!("gap:{subject}")
}

impl Daemon {
    /// Those that nobody has looked into. What cannot be read of earlier looks closes nothing.
    pub(super) fn open_gaps(&self, gaps: &[Gap]) -> Vec<String> {
        let jobs = self.jobs();
        let is_closed = |subject: &String| {
            jobs.note(&note_key(subject)).unwrap_or_else(|error| {
                log::warn!(reason:% = error; "jobs.not-read");
                None
            })
        };
        gaps.iter().map(|gap| self.gap_subject(gap)).filter(|subject| is_closed(subject).is_none()).collect()
    }

    /// The source, its machine's chain, and the numbers in it that are missing, as `backupd snapshots` shows them.
    fn gap_subject(&self, gap: &Gap) -> String {
        let writer = self.writer();
        let is_it = |name: &&str| writer.catalog().source_id(name) == gap.source;
        let known = self.settings.sources.iter().map(|source| source.name.as_str()).find(is_it);
        let source = known.map_or_else(|| gap.source.to_string(), str::to_owned);
        let last = if gap.last > gap.first { format!("-{}", gap.last) } else { String::new() };
        format!("{source}/{}/{}{last}", gap.incarnation, gap.first)
    }

    /// Somebody has looked into it. `false`: no alert names that, nor has one that was closed: whoever says it once more, because
    /// maintenance has not heard of it yet, is not mistaken.
    pub(super) fn close_gap(&self, subject: &str) -> Result<bool, Failure> {
        let open = self.view().gaps.iter().any(|gap| gap == subject);
        if !open {
            return Ok(self.jobs().note(&note_key(subject)).ok().flatten().is_some());
        }
        let noted = self.jobs().set_note(&note_key(subject), "looked into");
        noted.map_err(|error| {
            log::error!(reason:% = error; "jobs.not-recorded");
            failure::new(FailureKind::Retry, "it could not be noted: look at the disk that holds the state of serve")
        })?;
        self.view().gaps.retain(|gap| gap != subject);
        log::warn!(subject; "history.gap-closed");
        Ok(true)
    }
}
