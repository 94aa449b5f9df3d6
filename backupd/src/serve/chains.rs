//! Which snapshots are this machine's: its own chain of each source and what that chain follows. A copy of the server, or the
//! old one switched on again after a recovery, writes to the same stores; its snapshots are kept, and are no backup of what is
//! entered here. Another host's sources are its own affair: only the sources of these settings are looked at.

use super::{Daemon, view::View};
use backup_engine::SnapshotInfo;
use std::collections::BTreeSet;

/// Another machine is told of for so long after its last snapshot: stopping it ends the alert.
const TOLD_MS: i64 = 7 * 24 * 3_600_000;

impl Daemon {
    /// Reads from the engine's state where the chains stand. Only while the engine is held, or before it is used.
    pub(super) fn read_chains(&self) {
        let writer = self.writer();
        let ids: Vec<_> = self.settings.sources.iter().map(|s| writer.catalog().source_id(&s.name)).collect();
        match backup_engine::own_chains(&self.env, &self.engine_state(), &ids) {
            Ok(chains) => {
                let mut view = self.view();
                for (source, id) in self.settings.sources.iter().zip(&ids) {
                    if let Some(chain) = chains.get(id) {
                        view.own_chains.insert(source.name.clone(), *chain);
                    }
                }
            }
            Err(error) => log::warn!(reason:% = error; "state.not-read"),
        }
    }

    /// Tells the snapshots of other machines apart, after every look at the stores.
    pub(super) fn tell_apart(&self, view: &mut View) {
        // The snapshot under way may have begun a chain that is not known yet.
        if view.taking {
            return;
        }
        let mut foreign = BTreeSet::new();
        for source in &self.settings.sources {
            let of_source = view.snapshots.iter().filter(|s| s.source == source.name);
            let own = view.own_chains.get(&source.name).copied();
            foreign.extend(backup_engine::foreign(of_source, own, self.started_unix_ms));
        }
        view.foreign = foreign;
    }
}

impl View {
    pub(super) fn is_foreign(&self, info: &SnapshotInfo) -> bool {
        self.foreign.contains(&info.head)
    }

    /// This machine's snapshots, newest first.
    pub(super) fn own(&self) -> impl Iterator<Item = &SnapshotInfo> + Clone {
        self.snapshots.iter().filter(|info| !self.is_foreign(info))
    }

    /// The same of one source.
    pub(super) fn own_of<'a>(&'a self, source: &str) -> impl Iterator<Item = &'a SnapshotInfo> + Clone {
        self.own().filter(move |info| info.source == source)
    }

    /// Whether another machine has lately written snapshots of this source.
    pub(super) fn has_second_writer(&self, source: &str, now_ms: i64) -> bool {
        let of_source = self.snapshots.iter().filter(|info| info.source == source && self.is_foreign(info));
        // One with a time in the future was written by a clock that is ahead, and is told of too.
        of_source.map(|info| info.taken_unix_ms).any(|taken| now_ms.saturating_sub(taken) <= TOLD_MS)
    }
}
