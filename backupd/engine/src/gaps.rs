//! Gaps in chains of heads. A counter without a head needs a pruner's tombstone; without one, somebody took history away.

use crate::error::Result;
use crate::store::NamedStore;
use crate::survey::{FETCHES, TOMBSTONES, View, fetch_any, views};
use backup_format::head::{Head, HeadName};
use backup_format::tombstone::{Tombstone, TombstoneName};
use backup_format::{CatalogKey, IncarnationId, ObjectHash, SourceId};
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet};

/// Counters of one chain that have neither a head nor a valid tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    pub first: u64,
    pub last: u64,
}

impl std::fmt::Display for Gap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "heads/{}/{}/{:016x}", self.source, self.incarnation, self.first)?;
        if self.last > self.first { write!(f, " to {:016x}", self.last) } else { Ok(()) }
    }
}

type Chain = (SourceId, IncarnationId);

/// The gaps of what the stores hold together. `heads` are those that were read; a head that stands there unreadable
/// counts as there: it is corrupt, and that is another alarm.
pub(crate) async fn gaps(
    catalog: &CatalogKey,
    stores: &[NamedStore],
    names: impl Iterator<Item = HeadName>,
    heads: &[Head],
) -> Result<Vec<Gap>> {
    let mut chains: BTreeMap<Chain, BTreeSet<u64>> = BTreeMap::new();
    for name in names {
        chains.entry((name.source, name.incarnation)).or_default().insert(name.counter);
    }
    let open: Vec<Gap> = chains.iter().flat_map(|(chain, counters)| missing(*chain, counters)).collect();
    if open.is_empty() {
        return Ok(open);
    }
    let predecessors: BTreeMap<(Chain, u64), ObjectHash> = heads
        .iter()
        .filter_map(|head| Some((((head.source, head.incarnation), head.counter.checked_sub(1)?), head.predecessor?)))
        .collect();
    let mut explained: BTreeMap<Chain, Vec<(u64, u64)>> = BTreeMap::new();
    for stone in tombstones(catalog, stores, &open).await? {
        let chain = (stone.source, stone.incarnation);
        let expected = predecessors.get(&(chain, stone.last));
        if expected.is_none_or(|expected| *expected == stone.head) {
            explained.entry(chain).or_default().push((stone.first, stone.last));
        }
    }
    explained.values_mut().for_each(|runs| runs.sort_unstable());
    let runs = |gap: &Gap| explained.get(&(gap.source, gap.incarnation)).map(Vec::as_slice).unwrap_or_default();
    Ok(open.iter().flat_map(|gap| without(*gap, runs(gap))).collect())
}

/// What is left of a gap without these runs, which ascend.
fn without(gap: Gap, runs: &[(u64, u64)]) -> Vec<Gap> {
    let (mut left, mut next) = (Vec::new(), gap.first);
    for (first, last) in runs.iter().filter(|(first, last)| *first <= gap.last && *last >= gap.first) {
        if *first > next {
            left.push(Gap { first: next, last: first - 1, ..gap });
        }
        next = next.max(last.saturating_add(1));
    }
    if next <= gap.last {
        left.push(Gap { first: next, ..gap });
    }
    left
}

/// The runs of counters from 1 to the last that are not there.
fn missing(chain: Chain, there: &BTreeSet<u64>) -> Vec<Gap> {
    let (mut found, mut next) = (Vec::new(), 1);
    for counter in there {
        if *counter > next {
            found.push(Gap { source: chain.0, incarnation: chain.1, first: next, last: counter - 1 });
        }
        next = counter.saturating_add(1);
    }
    found
}

/// The valid tombstones that touch a gap.
async fn tombstones(catalog: &CatalogKey, stores: &[NamedStore], open: &[Gap]) -> Result<Vec<Tombstone>> {
    let views = views(stores, TOMBSTONES).await;
    let fills = |name: &TombstoneName| {
        open.iter().any(|gap| {
            (gap.source, gap.incarnation) == (name.source, name.incarnation)
                && name.first <= gap.last
                && name.last >= gap.first
        })
    };
    let names: BTreeSet<TombstoneName> = views
        .iter()
        .filter_map(View::objects)
        .flat_map(BTreeMap::keys)
        .filter_map(|name| name.parse().ok())
        .filter(fills)
        .collect();
    let read = |name: TombstoneName| {
        let views = &views;
        async move {
            let bytes = fetch_any(stores, views, &name.to_string()).await.ok()?;
            // One that is not valid fills no gap; the gap is the alarm.
            Tombstone::open(&bytes, catalog).ok().filter(|tombstone| tombstone.name(&bytes) == name)
        }
        .boxed()
    };
    Ok(futures::stream::iter(names.into_iter().map(read))
        .buffered(FETCHES)
        .filter_map(std::future::ready)
        .collect()
        .await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_of_runs_leave_what_they_do_not_stand_for() {
        let gap = Gap { source: SourceId([1; 16]), incarnation: IncarnationId([2; 16]), first: 5, last: 9 };
        let left = |runs: &[(u64, u64)]| -> Vec<(u64, u64)> {
            without(gap, runs).iter().map(|gap| (gap.first, gap.last)).collect()
        };
        assert_eq!(left(&[]), [(5, 9)]);
        assert_eq!(left(&[(5, 9)]), []);
        assert_eq!(left(&[(1, u64::MAX)]), []);
        assert_eq!(left(&[(1, 4), (10, 12)]), [(5, 9)]);
        assert_eq!(left(&[(1, 5), (7, 7), (9, 20)]), [(6, 6), (8, 8)]);
        assert_eq!(left(&[(6, 8), (6, 7), (7, 8)]), [(5, 5), (9, 9)]);
    }

    #[test]
    fn runs_of_missing_counters_are_found_without_counting_them() {
        let chain = (SourceId([1; 16]), IncarnationId([2; 16]));
        let of = |there: &[u64]| -> Vec<(u64, u64)> {
            missing(chain, &there.iter().copied().collect()).iter().map(|gap| (gap.first, gap.last)).collect()
        };
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[1, 2, 3]), []);
        assert_eq!(of(&[3, 4, 8]), [(1, 2), (5, 7)]);
        assert_eq!(of(&[1, u64::MAX]), [(2, u64::MAX - 1)]);
    }
}
