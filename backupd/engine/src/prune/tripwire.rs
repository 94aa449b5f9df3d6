//! What looks like an attack in new snapshots: as long as nobody has looked, the old ones stay.

use super::PruneRequest;
use super::given_up::unfollowed;
use super::land::Land;
use super::mark::Mark;
use crate::ahead::is_loss;
use crate::diff::diff;
use crate::error::Result;
use crate::gaps::Gap;
use crate::heads::SnapshotInfo;
use crate::read::Reader;
use crate::view::View;
use backup_format::condemned::ChainMark;
use backup_format::{IncarnationId, SnapshotId};
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
    /// Heads are gone that no tombstone explains: what only they reached would go with them. `before` and `after`: the first and the
    /// last number of the chain, which `snapshot` names together with them.
    HeadGap,
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
    /// Whether somebody who looked at `seen` has looked at this: the same finding of the same snapshot, and no worse by more than a
    /// tenth, for what it is compared with may have gone.
    #[must_use]
    pub fn is_covered_by(&self, seen: &Self) -> bool {
        let tenth = seen.after / 10;
        let is_same = self.snapshot == seen.snapshot;
        let as_bad = match self.kind {
            // The source did not grow again, whichever snapshot is the newest by now.
            TripKind::SizeDrop => {
                self.after >= seen.after.saturating_sub(tenth)
                    && self.before <= seen.before.saturating_add(seen.before / 10)
            }
            TripKind::Entropy => is_same,
            TripKind::MassRemoval | TripKind::MassRename | TripKind::MassChange => {
                is_same && self.after <= seen.after.saturating_add(tenth)
            }
            TripKind::HeadGap => {
                chain_of(self) == chain_of(seen) && self.before >= seen.before && self.after <= seen.after
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
}

impl Default for Tripwire {
    fn default() -> Self {
        Self { size_drop_percent: 50, files_percent: 50, entropy_from: 950, compressed_to: 800, files_min: 20 }
    }
}

/// New content below this is too little to judge.
const NEW_BYTES_MIN: u64 = 1 << 20;
const DAY_MS: i64 = 86_400_000;
/// So many snapshots of a source are compared, each with the one before: those of a month, the first and the last of a day.
const COMPARED_MAX: usize = 62;

/// Looks at the last month of each source, whether its snapshots stay or go: what goes may be the last that is right. What people
/// have `looked` at trips no more, and divides what was before from what came since. With `since`, the chains of an announced
/// plan, only what came after them is looked at.
pub(super) async fn look(
    reader: &Reader<'_>,
    land: &Land,
    (request, looked): (&PruneRequest<'_>, &[Trip]),
    since: Option<&[ChainMark]>,
) -> Result<Vec<Trip>> {
    let looked: Vec<&Trip> = request.looked_at.iter().chain(looked).collect();
    let mut sources: BTreeMap<&str, Vec<&SnapshotInfo>> = BTreeMap::new();
    for info in land.readable() {
        sources.entry(&info.source).or_default().push(info);
    }
    let gaps = land.gaps.iter().filter(|_| since.is_none());
    let mut trips: Vec<Trip> = gaps.map(|gap| lost_heads(gap, land)).collect();
    for (source, all) in sources {
        let (compared, mark) = marked(reader, compared(&all, &looked, since)).await?;
        let Some((newest, before)) = compared.split_last().filter(|(_, before)| !before.is_empty()) else { continue };
        let largest = before.iter().map(|info| info.bytes_source).max().unwrap_or(0);
        let mut found = Vec::new();
        if newest.bytes_source * 100 < largest * (100 - request.tripwire.size_drop_percent.min(100)) {
            found.push((TripKind::SizeDrop, *newest, largest, newest.bytes_source));
        }
        found.extend(no_longer_compresses(&compared, &mark, &request.tripwire));
        found.extend(many_files(reader, &compared, &request.tripwire).await?);
        let trip = |(kind, info, before, after): Found<'_>| Trip {
            kind,
            source: source.to_owned(),
            snapshot: info.id,
            before,
            after,
        };
        trips.extend(found.into_iter().map(trip));
    }
    trips.retain(|trip| !looked.iter().any(|seen| trip.is_covered_by(seen)));
    Ok(trips)
}

/// What was found in a snapshot; before, and in it.
type Found<'l> = (TripKind, &'l SnapshotInfo, u64, u64);

/// Of one source's snapshots, oldest first, those that are compared.
fn compared<'l>(all: &[&'l SnapshotInfo], looked: &[&Trip], since: Option<&[ChainMark]>) -> Vec<&'l SnapshotInfo> {
    let is_covered = |info: &SnapshotInfo| {
        let chain = |mark: &&ChainMark| (mark.source, mark.incarnation) == (info.head.source, info.incarnation);
        since.is_some_and(|since| since.iter().find(chain).is_some_and(|mark| info.counter <= mark.counter))
    };
    let from = all.iter().rposition(|info| is_covered(info)).unwrap_or(0);
    let all = all.get(from..).unwrap_or_default();
    let day = |info: &SnapshotInfo| info.taken_unix_ms.div_euclid(DAY_MS);
    let begins = |at: usize| {
        at.checked_sub(1).and_then(|before| all.get(before)).is_none_or(|b| Some(day(b)) != all.get(at).map(|i| day(i)))
    };
    let is_looked_at = |info: &SnapshotInfo| looked.iter().any(|seen| seen.snapshot == info.id);
    let chosen = all.iter().enumerate().filter(|(at, info)| begins(*at) || begins(at + 1) || is_looked_at(info));
    let chosen: Vec<&SnapshotInfo> = chosen.map(|(_, info)| *info).collect();
    chosen.get(chosen.len().saturating_sub(COMPARED_MAX)..).unwrap_or_default().to_vec()
}

/// Follows those that can be followed to the end: one that goes may have lost a part.
async fn marked<'l>(reader: &Reader<'_>, mut all: Vec<&'l SnapshotInfo>) -> Result<(Vec<&'l SnapshotInfo>, Mark)> {
    let mark = match Mark::of(reader, &all).await {
        Err(error) if is_loss(&error) => {
            let lost = unfollowed(reader, &all).await?;
            all.retain(|info| !lost.contains(&info.id));
            Mark::of(reader, &all).await?
        }
        mark => mark?,
    };
    Ok((all, mark))
}

fn no_longer_compresses<'l>(compared: &[&'l SnapshotInfo], mark: &Mark, limits: &Tripwire) -> Vec<Found<'l>> {
    let (mut plain, mut sealed, mut found) = (0, 0, Vec::new());
    for (info, grown) in compared.iter().zip(&mark.growth) {
        let per_1000 = |sealed: u64, plain: u64| sealed * 1000 / plain.max(1);
        let (was, is) = (per_1000(sealed, plain), per_1000(grown.sealed, grown.plain));
        let much = grown.plain >= NEW_BYTES_MIN && grown.plain * 10 >= info.bytes_source;
        if plain > 0 && much && is >= limits.entropy_from && was <= limits.compressed_to {
            found.push((TripKind::Entropy, *info, was, is));
        }
        plain += grown.plain;
        sealed += grown.sealed;
    }
    found
}

async fn many_files<'l>(
    reader: &Reader<'_>,
    compared: &[&'l SnapshotInfo],
    limits: &Tripwire,
) -> Result<Vec<Found<'l>>> {
    let mut found = Vec::new();
    let mut view = None;
    for (base, info) in compared.iter().zip(compared.iter().skip(1)) {
        if base.files < limits.files_min {
            continue;
        }
        if view.is_none() {
            view = Some(View::open(reader.env, reader.open, reader.store).await?);
        }
        let Some(view) = &view else { continue };
        let trees = (view.tree(base.id, b"").await?, view.tree(info.id, b"").await?);
        let changed = diff(view, (&trees.0, &trees.1), b"", &mut |_| Ok(())).await?;
        let many = |count: u64| count * 100 >= base.files * limits.files_percent;
        if many(changed.removed) {
            let kind = if many(changed.added) { TripKind::MassRename } else { TripKind::MassRemoval };
            found.push((kind, *info, base.files, changed.removed));
        }
        if many(changed.modified + changed.retyped) {
            found.push((TripKind::MassChange, *info, base.files, changed.modified + changed.retyped));
        }
    }
    Ok(found)
}

fn lost_heads(gap: &Gap, land: &Land) -> Trip {
    let mut named = [0; 32];
    let (chain, numbers) = named.split_at_mut(IncarnationId::BYTES);
    chain.copy_from_slice(gap.incarnation.as_bytes());
    numbers.copy_from_slice(&[gap.first.to_le_bytes(), gap.last.to_le_bytes()].concat());
    let source = land.snapshots.iter().map(|(info, _)| info).find(|info| info.head.source == gap.source);
    Trip {
        kind: TripKind::HeadGap,
        source: source.map_or_else(|| "unknown".to_owned(), |info| info.source.clone()),
        snapshot: SnapshotId(named),
        before: gap.first,
        after: gap.last,
    }
}

fn chain_of(gap: &Trip) -> Option<&[u8]> {
    gap.snapshot.0.get(..IncarnationId::BYTES)
}
