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
    for tombstone in tombstones(catalog, stores, &open).await? {
        let chain = (tombstone.source, tombstone.incarnation);
        let expected = predecessors.get(&(chain, tombstone.counter));
        if expected.is_none_or(|expected| *expected == tombstone.head) {
            chains.entry(chain).or_default().insert(tombstone.counter);
        }
    }
    Ok(chains.iter().flat_map(|(chain, counters)| missing(*chain, counters)).collect())
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

/// The valid tombstones that lie in a gap.
async fn tombstones(catalog: &CatalogKey, stores: &[NamedStore], open: &[Gap]) -> Result<Vec<Tombstone>> {
    let views = views(stores, TOMBSTONES).await;
    let fills = |name: &TombstoneName| {
        open.iter().any(|gap| {
            (gap.source, gap.incarnation) == (name.source, name.incarnation)
                && (gap.first..=gap.last).contains(&name.counter)
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
