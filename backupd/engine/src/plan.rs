//! Which segments share a pack, so that little of it is padding.

use backup_format::pack::{PACK_SEGMENTS_MAX, capacity};
use backup_format::sealed::{CLASSES, OBJECT_BYTES_MAX};

/// So much more than a pack holds is collected first: there is then something that fits the room at its end.
const CHOICE_BYTES: usize = 2 << 20;
/// Segments among which the end of a pack is chosen: all their choices are tried.
const CHOICES: usize = 10;

/// Whether segments of so many bytes make a pack.
pub(crate) fn is_due(total: usize, last: bool) -> bool {
    if last { total > 0 } else { total > capacity(OBJECT_BYTES_MAX) + CHOICE_BYTES }
}

/// Which segments go into the next pack, by their places in order; none while more segments should come first. A tail
/// (`last`) is split over smaller classes, so that above 1 MiB no more than about an eighth is padding.
pub(crate) fn plan_pack(costs: &[usize], last: bool) -> Vec<usize> {
    let full = capacity(OBJECT_BYTES_MAX);
    let total: usize = costs.iter().sum();
    let all = || (0..costs.len()).collect();
    if total > full && is_due(total, last) {
        let fitting = fill(costs, full);
        // One that is too large for any class is for sealing to refuse.
        return if fitting.is_empty() { vec![0] } else { fitting };
    }
    if !last {
        return Vec::new();
    }
    let Some(class) = CLASSES.into_iter().find(|class| total <= capacity(*class)) else { return Vec::new() };
    if class <= 1 << 20 || total * 8 >= class * 7 {
        return all();
    }
    let smaller = CLASSES.into_iter().rev().filter(|candidate| *candidate < class);
    smaller.map(|class| fill(costs, capacity(class))).find(|fitting| !fitting.is_empty()).unwrap_or_else(all)
}

/// Segments in their order while much room is left; of those that come next the choice that fills the rest best.
fn fill(costs: &[usize], mut room: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    for (at, cost) in costs.iter().enumerate().take(PACK_SEGMENTS_MAX - CHOICES) {
        if *cost + CHOICE_BYTES > room {
            break;
        }
        room -= cost;
        taken.push(at);
    }
    let next: Vec<(usize, usize)> = costs.iter().copied().enumerate().skip(taken.len()).take(CHOICES).collect();
    let members = |set: u32| next.iter().enumerate().filter(move |(bit, _)| set >> bit & 1 == 1).map(|(_, one)| one);
    let cost = |set: u32| members(set).map(|(_, cost)| cost).sum::<usize>();
    let best = (0..1u32 << next.len()).filter(|set| cost(*set) <= room).max_by_key(|set| cost(*set));
    taken.extend(best.into_iter().flat_map(members).map(|(at, _)| *at));
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the plans make of segments that come one after another: bytes that are padding, and the number of packs.
    fn packed(costs: &[usize]) -> (usize, usize) {
        let (mut pending, mut padding, mut packs, mut left) = (Vec::new(), 0, 0, costs.iter().sum::<usize>());
        let mut coming = costs.iter();
        loop {
            let next = coming.next();
            pending.extend(next);
            loop {
                let chosen = plan_pack(&pending, next.is_none());
                if chosen.is_empty() {
                    break;
                }
                let bytes: usize = chosen.iter().map(|at| pending[*at]).sum();
                let class = CLASSES.into_iter().find(|class| bytes <= capacity(*class)).unwrap();
                (padding, packs, left) = (padding + capacity(class) - bytes, packs + 1, left - bytes);
                let mut at = 0;
                pending.retain(|_| {
                    at += 1;
                    !chosen.contains(&(at - 1))
                });
            }
            if next.is_none() {
                assert_eq!((left, pending.len()), (0, 0), "every segment goes into one pack");
                return (padding, packs);
            }
        }
    }

    #[test]
    fn full_packs_are_full_and_a_tail_is_split() {
        // Segments as a database, pictures and documents make them.
        let mixed: Vec<usize> = (0..4000usize).map(|n| 90_000 + n * 2_654_435_761 % 600_000).collect();
        let total: usize = mixed.iter().sum();
        let (padding, packs) = packed(&mixed);
        assert!(padding * 200 < total, "{padding} of {total} is padding");
        assert!(packs < total / OBJECT_BYTES_MAX + 12, "{packs} packs");
        for tail in [1usize, 70_000, 300_000, 1_000_000, 1_100_000, 4_300_000, 9_000_000, 16_000_000] {
            let segments = vec![tail.min(250_000); tail.div_ceil(250_000)];
            let (padding, _) = packed(&segments);
            assert!(tail < 1 << 20 || padding * 2 < segments.iter().sum(), "{tail}: {padding}");
        }
    }

    #[test]
    fn one_that_fits_no_pack_is_handed_on_to_be_refused() {
        assert_eq!(plan_pack(&[], true), Vec::<usize>::new());
        assert_eq!(plan_pack(&[OBJECT_BYTES_MAX + CHOICE_BYTES], false), [0]);
    }
}
