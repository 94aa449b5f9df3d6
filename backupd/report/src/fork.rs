//! What a store still shows of a history that came to its end: its signer was set back, and went on from an earlier entry.

use crate::key::PublicKey;
use crate::log::{Log, Object};
use crate::merkle::{Hash, root_of};
use crate::note::Checkpoint;
use std::collections::BTreeMap;

/// So many ways to put one history together are tried: a store may make up any number of names.
const WAYS_MAX: usize = 64;

impl Log {
    /// The names of the entries that a checkpoint shows beyond the point at which this log went another way, in order: it bears
    /// the signature of this log's key, and its root is that of a beginning of this log and these entries. None where the
    /// checkpoint is this log's own or shows nothing that the names tell.
    pub fn fork<'n>(&self, names: &[&'n str], checkpoint: &[u8], key: &PublicKey) -> Vec<&'n str> {
        let Ok(head) = Checkpoint::verify_of(checkpoint, key, self.origin()) else { return Vec::new() };
        let own = self.leaves();
        // Nobody else can sign one that is not: whatever names a store makes up, no more is looked for.
        if usize::try_from(head.size).ok().and_then(|size| self.head(size)).as_ref() == Some(&head) {
            return Vec::new();
        }
        let mut others: BTreeMap<u64, Vec<(Hash, &'n str)>> = BTreeMap::new();
        for name in names {
            if let Some(Object::Entry(index, leaf)) = Object::of_name(name)
                && index < head.size
                && usize::try_from(index).ok().and_then(|index| own.get(index)) != Some(&leaf)
            {
                others.entry(index).or_default().push((leaf, name));
            }
        }
        // From the newest entry down to where the two histories part.
        let mut tails: Vec<Vec<(Hash, &'n str)>> = vec![Vec::new()];
        for index in (0..head.size).rev() {
            let Some(claims) = others.get(&index).filter(|claims| claims.len() * tails.len() <= WAYS_MAX) else {
                break;
            };
            let before = |claim: &(Hash, &'n str)| {
                tails.iter().map(|tail| [&[*claim], tail.as_slice()].concat()).collect::<Vec<_>>()
            };
            tails = claims.iter().flat_map(before).collect();
            let Some(begin) = usize::try_from(index).ok().and_then(|index| own.get(..index)) else { continue };
            let shown = |tail: &&Vec<(Hash, &'n str)>| {
                let leaves: Vec<Hash> = begin.iter().chain(tail.iter().map(|(leaf, _)| leaf)).copied().collect();
                root_of(&leaves) == head.root
            };
            if let Some(tail) = tails.iter().find(shown) {
                return tail.iter().map(|(_, name)| *name).collect();
            }
        }
        Vec::new()
    }

    /// Whether this is the name of a checkpoint.
    pub fn is_checkpoint(name: &str) -> bool {
        matches!(Object::of_name(name), Some(Object::Checkpoint(_)))
    }
}
