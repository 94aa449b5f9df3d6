//! What looks like an attack in new snapshots: as long as nobody has looked, the old ones stay.

use super::land::Land;
use super::mark::{Growth, Mark};
use crate::diff::diff;
use crate::error::Result;
use crate::heads::SnapshotInfo;
use crate::read::Reader;
use crate::view::View;
use backup_format::SnapshotId;
use std::collections::BTreeMap;

/// What a trip is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TripKind {
    /// The source is much smaller than it was.
    SizeDrop,
    /// What is new does not compress, and what was there did.
    Entropy,
    /// Many files are gone.
    MassRemoval,
    /// Many files are gone and as many others have come.
    MassRename,
    /// Many files have other content.
    MassChange,
}

/// One finding: figures only, no names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trip {
    pub kind: TripKind,
    pub source: String,
    /// The newer snapshot.
    pub snapshot: SnapshotId,
    /// Bytes, files, or bytes of sealed for 1000 bytes of plain content.
    pub before: u64,
    pub after: u64,
}

impl Trip {
    /// Whether somebody who looked at `seen` has looked at this: the same finding of the same source, and since then no
    /// worse by more than a tenth. The newest snapshot is another every few minutes.
    #[must_use]
    pub fn is_covered_by(&self, seen: &Self) -> bool {
        let tenth = seen.after / 10;
        let as_bad = match self.kind {
            TripKind::SizeDrop => self.after >= seen.after.saturating_sub(tenth),
            // What was sealed does not change: it must be the same snapshot.
            TripKind::Entropy => self.snapshot == seen.snapshot,
            TripKind::MassRemoval | TripKind::MassRename | TripKind::MassChange => {
                self.after <= seen.after.saturating_add(tenth)
            }
        };
        self.kind == seen.kind && self.source == seen.source && as_bad
    }
}

/// Limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tripwire {
    pub size_drop_percent: u64,
    /// Of the older snapshot's files.
    pub files_percent: u64,
    /// Sealed for 1000 plain bytes: from so many on it does not compress, up to so many it did.
    pub entropy_from: u64,
    pub compressed_to: u64,
    /// Sources with fewer files are not looked at.
    pub files_min: u64,
    /// Snapshots that count as new.
    pub newest: usize,
}

impl Default for Tripwire {
    fn default() -> Self {
        Self {
            size_drop_percent: 50,
            files_percent: 50,
            entropy_from: 950,
            compressed_to: 800,
            files_min: 20,
            newest: 8,
        }
    }
}

/// New content below this is too little to judge.
const NEW_BYTES_MIN: u64 = 1 << 20;

/// Compares the newest snapshots of each source, as far as they stay, with what was before.
pub(super) async fn look(reader: &Reader<'_>, land: &Land, mark: &Mark, limits: &Tripwire) -> Result<Vec<Trip>> {
    let growth: BTreeMap<SnapshotId, Growth> = mark.growth.iter().map(|grown| (grown.id, *grown)).collect();
    let mut sources: BTreeMap<&str, Vec<&SnapshotInfo>> = BTreeMap::new();
    for info in land.kept() {
        sources.entry(&info.source).or_default().push(info);
    }
    let mut trips = Vec::new();
    let mut view = None;
    for (source, kept) in sources {
        let trip = |kind, info: &SnapshotInfo, before, after| Trip {
            kind,
            source: source.to_owned(),
            snapshot: info.id,
            before,
            after,
        };
        let (old, new) = kept.split_at(kept.len().saturating_sub(limits.newest.max(1)));
        let largest = kept.iter().map(|info| info.bytes_source).max().unwrap_or(0);
        let base = old.last().or(new.first()).copied();
        let (Some(newest), Some(base)) = (kept.last(), base) else { continue };
        if newest.bytes_source * 100 < largest * (100 - limits.size_drop_percent.min(100)) {
            trips.push(trip(TripKind::SizeDrop, newest, largest, newest.bytes_source));
        }
        for (before, info) in kept.iter().zip(kept.iter().skip(1)).rev().take(limits.newest) {
            let (Some(was), Some(is)) = (ratio_until(&growth, &kept, before.id), growth.get(&info.id)) else {
                continue;
            };
            let now = is.sealed * 1000 / is.plain.max(1);
            let much = is.plain >= NEW_BYTES_MIN && is.plain * 10 >= info.bytes_source;
            if much && now >= limits.entropy_from && was <= limits.compressed_to {
                trips.push(trip(TripKind::Entropy, info, was, now));
            }
        }
        if base.id == newest.id || base.files < limits.files_min {
            continue;
        }
        if view.is_none() {
            view = Some(View::open(reader.env, reader.open, reader.store).await?);
        }
        let Some(view) = &view else { continue };
        let trees = (view.tree(base.id, b"").await?, view.tree(newest.id, b"").await?);
        let found = diff(view, (&trees.0, &trees.1), b"", &mut |_| Ok(())).await?;
        let many = |count: u64| count * 100 >= base.files * limits.files_percent;
        if many(found.removed) {
            let kind = if many(found.added) { TripKind::MassRename } else { TripKind::MassRemoval };
            trips.push(trip(kind, newest, base.files, found.removed));
        }
        if many(found.modified + found.retyped) {
            trips.push(trip(TripKind::MassChange, newest, base.files, found.modified + found.retyped));
        }
    }
    Ok(trips)
}

/// How well all that had come until a snapshot compressed.
fn ratio_until(growth: &BTreeMap<SnapshotId, Growth>, kept: &[&SnapshotInfo], until: SnapshotId) -> Option<u64> {
    let upto = kept.iter().position(|info| info.id == until)? + 1;
    let grown = || kept.iter().take(upto).filter_map(|info| growth.get(&info.id));
    let plain: u64 = grown().map(|grown| grown.plain).sum();
    (plain > 0).then(|| grown().map(|grown| grown.sealed).sum::<u64>() * 1000 / plain)
}
