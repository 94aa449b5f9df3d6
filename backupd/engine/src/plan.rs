//! Which segments share a pack, so that little of it is padding.

use backup_format::pack::{PACK_SEGMENTS_MAX, capacity};
use backup_format::sealed::{CLASSES, OBJECT_BYTES_MAX};

/// So much more than a pack holds is collected at most while nothing fits the room at its end.
const CHOICE_BYTES: usize = 4 << 20;
/// Room at the end that is not worth waiting for another segment.
const WASTE_BYTES: usize = OBJECT_BYTES_MAX / 512;
/// Segments among which the end of a pack is chosen: all their choices are tried.
const CHOICES: usize = 14;

/// Whether segments of so many bytes may make a pack.
pub(crate) fn is_due(total: usize, last: bool) -> bool {
    if last { total > 0 } else { total > capacity(OBJECT_BYTES_MAX) }
}

/// Which segments go into the next pack, by their places in order; none while more segments should come first. A tail
/// (`last`) is split over smaller classes, so that above 1 MiB no more than about an eighth is padding.
pub(crate) fn plan_pack(costs: &[usize], last: bool) -> Vec<usize> {
    let full = capacity(OBJECT_BYTES_MAX);
    let total: usize = costs.iter().sum();
    let all = || (0..costs.len()).collect();
    if total > full {
        let fitting = fill(costs, full);
        let waste = full - fitting.iter().filter_map(|at| costs.get(*at)).sum::<usize>();
        // One that is too large for any class is for sealing to refuse.
        if fitting.is_empty() {
            return vec![0];
        }
        let may_wait = !last && total <= full + CHOICE_BYTES;
        return if waste > WASTE_BYTES && may_wait { Vec::new() } else { fitting };
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

/// Segments in their order until the room that is left is a part of what the next ones cost; of these the choice that fills it
/// best.
fn fill(costs: &[usize], mut room: usize) -> Vec<usize> {
    let mut taken = Vec::new();
    let first = costs.len().saturating_sub(CHOICES).min(PACK_SEGMENTS_MAX - CHOICES);
    for (at, (cost, choices)) in costs.iter().zip(costs.windows(CHOICES)).enumerate().take(first) {
        if *cost > room || room <= choices.iter().sum::<usize>() / 4 * 3 {
            break;
        }
        room -= cost;
        taken.push(at);
    }
    let next: Vec<(usize, usize)> = costs.iter().copied().enumerate().skip(taken.len()).take(CHOICES).collect();
    let members = |set: u32| next.iter().enumerate().filter(move |(bit, _)| set >> bit & 1 == 1).map(|(_, one)| one);
    let mut sums = vec![0usize];
    for (_, cost) in &next {
        sums.extend_from_within(..);
        let half = sums.len() / 2;
        sums.iter_mut().skip(half).for_each(|sum| *sum += cost);
    }
    let best = (0..).zip(&sums).filter(|(_, sum)| **sum <= room).max_by_key(|(_, sum)| **sum).map(|(set, _)| set);
    taken.extend(best.into_iter().flat_map(members).map(|(at, _)| *at));
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;

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
        // Segments of a database: as long as each other but for what is taken off so that they are not.
        let alike: Vec<usize> = (0..800u32)
            .map(|n| Class::Other.bytes_of(n) * 27 / 100 + n.wrapping_mul(0x85eb_ca6b) as usize % 30_000)
            .collect();
        let (padding, _) = packed(&alike);
        assert!(padding * 200 < alike.iter().sum(), "{padding} is padding");
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
