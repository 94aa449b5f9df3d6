//! A log as a store shows it: its objects, checked without the log's folder; and the comparison of what several stores
//! show, which finds a log that was rolled back or that shows different histories to different people.

use crate::id::Label;
use crate::key::PublicKey;
use crate::log::{LogError, Object};
use crate::merkle::{Hash, leaf_hash, root_of};
use crate::note::{Checkpoint, Origin};
use crate::places::{Places, settle};
use std::collections::BTreeMap;

/// A log rebuilt from objects, every byte of it checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    leaves: Vec<Hash>,
    entries: Vec<Vec<u8>>,
    checkpoints: BTreeMap<u64, Vec<u8>>,
}

impl View {
    /// Takes a store's objects `(name, bytes)`, in any order; other names than the log's are passed over. Every
    /// checkpoint must be signed and have the root of the entries that it covers, and every covered entry must be there
    /// and hash to its name. Entries behind the newest checkpoint are left out: nothing vouches for them yet, and a
    /// store could have invented them.
    pub fn of_objects(
        objects: impl IntoIterator<Item = (String, Vec<u8>)>,
        key: &PublicKey,
        origin: &Origin,
    ) -> Result<Self, LogError> {
        let (mut places, mut checkpoints) = (Places::new(), BTreeMap::new());
        for (name, bytes) in objects {
            match Object::of_name(&name) {
                Some(Object::Entry(index, leaf)) => drop(places.entry(index).or_default().insert(leaf, bytes)),
                Some(Object::Checkpoint(size)) => drop(checkpoints.insert(size, bytes)),
                None => {}
            }
        }
        let mut heads = BTreeMap::new();
        for (size, note) in &checkpoints {
            heads.insert(*size, Checkpoint::verify_of(note, key, origin)?.root);
        }
        let mut view = Self { leaves: Vec::new(), entries: Vec::new(), checkpoints };
        for (index, (leaf, bytes)) in (0..).zip(settle(&places, &heads)?) {
            // Without content: it was lost before the log was recovered, which the view's owner tells.
            if !bytes.is_empty() && leaf_hash(&bytes) != leaf {
                return Err(LogError::Damaged { index, what: "its bytes are not those that its name says" });
            }
            view.leaves.push(leaf);
            view.entries.push(bytes);
        }
        view.check_checkpoints(key, origin)?;
        Ok(view)
    }

    /// The leaf hashes in order.
    pub fn leaves(&self) -> &[Hash] {
        &self.leaves
    }

    /// The entries' bytes in order.
    pub fn entries(&self) -> &[Vec<u8>] {
        &self.entries
    }

    /// The places of entries whose content is lost; that they stood there is proved all the same.
    pub fn lost(&self) -> Vec<u64> {
        (0..).zip(&self.entries).filter(|(_, bytes)| bytes.is_empty()).map(|(index, _)| index).collect()
    }

    /// The checkpoints by size.
    pub fn checkpoints(&self) -> impl Iterator<Item = (u64, &[u8])> {
        self.checkpoints.iter().map(|(size, note)| (*size, note.as_slice()))
    }

    fn check_checkpoints(&self, key: &PublicKey, origin: &Origin) -> Result<(), LogError> {
        for (size, note) in self.checkpoints() {
            let head = Checkpoint::verify_of(note, key, origin)?;
            let damaged = |what| LogError::Damaged { index: size.saturating_sub(1), what };
            if head.size != size {
                return Err(damaged("the checkpoint's name and content differ"));
            }
            let covered = usize::try_from(size).ok().and_then(|n| self.leaves.get(..n));
            let covered = covered.ok_or(damaged("a signed checkpoint covers it, but it is gone"))?;
            if root_of(covered) != head.root {
                return Err(damaged("the signed checkpoint has another root than the entries"));
            }
        }
        Ok(())
    }
}

/// A checkpoint and where it was seen: a store, a paper, another person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Where.
    pub place: Label,
    /// The signed note's bytes.
    pub checkpoint: Vec<u8>,
}

/// What does not fit between the checkpoints that were seen and the log at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// Not a checkpoint of this log by this key.
    #[error("{0}: not a checkpoint signed for this log")]
    NotSigned(Label),
    /// The log at hand is shorter than the place has seen: it was rolled back, or entries are lost.
    #[error("{place}: shows {size} signed entries, the log at hand has fewer: it was rolled back")]
    RolledBack {
        /// Where.
        place: Label,
        /// Entries seen there.
        size: u64,
    },
    /// The same size with another root: the signer has shown two histories.
    #[error("{place}: shows another history at {size} entries")]
    SplitView {
        /// Where.
        place: Label,
        /// At which size.
        size: u64,
    },
}

/// Compares checkpoints seen in several places with each other, and with the leaves of the log at hand when there is
/// one. Empty: they all show one history. A place that is behind is no disagreement. Without the leaves, checkpoints of
/// different sizes cannot be told apart from a split view.
pub fn compare_checkpoints(
    seen: &[Seen],
    leaves: Option<&[Hash]>,
    key: &PublicKey,
    origin: &Origin,
) -> Vec<Disagreement> {
    let mut found = Vec::new();
    let mut roots: BTreeMap<u64, Hash> = BTreeMap::new();
    for Seen { place, checkpoint } in seen {
        let Ok(head) = Checkpoint::verify_of(checkpoint, key, origin) else {
            found.push(Disagreement::NotSigned(place.clone()));
            continue;
        };
        let ours = usize::try_from(head.size).ok().and_then(|n| leaves?.get(..n)).map(root_of);
        if ours.is_none() && leaves.is_some() {
            found.push(Disagreement::RolledBack { place: place.clone(), size: head.size });
        }
        let known = *roots.entry(head.size).or_insert(ours.unwrap_or(head.root));
        if known != head.root {
            found.push(Disagreement::SplitView { place: place.clone(), size: head.size });
        }
    }
    found
}
