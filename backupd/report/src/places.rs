//! Which entry stands where, when objects of a log are put together again.
//!
//! Several may claim one place: one that was copied to a store and never acknowledged, because the folder was lost in between,
//! beside the one that came to stand there; or one that a store made up. The roots of signed checkpoints decide.

use crate::log::LogError;
use crate::merkle::{Hash, root_of};
use std::collections::BTreeMap;

/// So many ways to fill the doubtful places are tried.
const WAYS_MAX: u64 = 1024;

/// Entries by their place in the log and their leaf hash.
pub(crate) type Places = BTreeMap<u64, BTreeMap<Hash, Vec<u8>>>;
/// Those that claim one place.
type Claims<'a> = Vec<(&'a Hash, &'a Vec<u8>)>;

/// The entries that the heads (size and root) cover, in order. Where no place is in doubt the roots are left for the caller
/// to compare.
pub(crate) fn settle(places: &Places, heads: &BTreeMap<u64, Hash>) -> Result<Vec<(Hash, Vec<u8>)>, LogError> {
    let (mut chosen, mut leaves) = (Vec::new(), Vec::new());
    for (size, root) in heads {
        let from = leaves.len() as u64;
        let mut doubtful = Vec::new();
        for index in from..*size {
            let what = "a signed checkpoint covers it, but it is gone";
            let claims = places.get(&index).ok_or(LogError::Damaged { index, what })?;
            let claims: Claims<'_> = claims.iter().collect();
            let [(leaf, bytes), ..] = claims.as_slice() else { return Err(LogError::Damaged { index, what }) };
            leaves.push(**leaf);
            chosen.push((**leaf, (*bytes).clone()));
            if claims.len() > 1 {
                doubtful.push((index, claims));
            }
        }
        let mut way = 0;
        while !doubtful.is_empty() && root_of(&leaves) != *root {
            way += 1;
            if !fill(&doubtful, way, &mut leaves, &mut chosen) {
                let what = "several entries stand at one place, and no checkpoint tells which of them";
                return Err(LogError::Damaged { index: size.saturating_sub(1), what });
            }
        }
    }
    Ok(chosen)
}

/// Fills the doubtful places in the way of a number; false: there is no such way, or it is one too many.
fn fill(doubtful: &[(u64, Claims<'_>)], mut way: u64, leaves: &mut [Hash], chosen: &mut [(Hash, Vec<u8>)]) -> bool {
    if way >= WAYS_MAX {
        return false;
    }
    for (index, claims) in doubtful {
        let (count, at) = (claims.len() as u64, usize::try_from(*index).unwrap_or(usize::MAX));
        let claim = usize::try_from(way % count).ok().and_then(|claim| claims.get(claim));
        let (Some((leaf, bytes)), Some(to), Some(entry)) = (claim, leaves.get_mut(at), chosen.get_mut(at)) else {
            return false;
        };
        (*to, *entry) = (**leaf, (**leaf, (*bytes).clone()));
        way /= count;
    }
    way == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(leaves: &[&[u8]]) -> Places {
        let at = |leaves: &&[u8]| leaves.iter().map(|byte| ([*byte; 32], vec![*byte])).collect();
        (0..).zip(leaves.iter().map(at)).collect()
    }

    fn settled(places: &Places, size: u64, is: &[u8]) -> Option<Vec<u8>> {
        let leaves: Vec<Hash> = is.iter().map(|byte| [*byte; 32]).collect();
        let heads = BTreeMap::from([(size, root_of(&leaves))]);
        Some(settle(places, &heads).ok()?.into_iter().map(|(leaf, _)| leaf[0]).collect())
    }

    #[test]
    fn the_checkpoint_decides_between_entries_at_one_place() {
        let doubtful = places(&[&[1], &[2, 3], &[4], &[5, 6, 7], &[8, 9]]);
        for is in [[1, 2, 4, 5, 8], [1, 3, 4, 7, 9], [1, 2, 4, 6, 9]] {
            assert_eq!(settled(&doubtful, 5, &is), Some(is.to_vec()));
        }
        assert_eq!(
            settled(&doubtful, 4, &[1, 3, 4, 6]),
            Some(vec![1, 3, 4, 6]),
            "what no checkpoint covers is left out"
        );
        assert_eq!(settled(&doubtful, 5, &[1, 2, 4, 5, 7]), None);
        assert_eq!(settled(&doubtful, 6, &[1, 2, 4, 5, 8, 8]), None, "one is gone");
        let many = places(&[&[1, 2][..]; 64]);
        assert_eq!(settled(&many, 64, &[2; 64]), None, "what a store made up costs no endless search");
    }
}
