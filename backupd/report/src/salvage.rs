//! The way on when no store shows its log whole: from what all of them together still hold.
//!
//! The name of an entry says what it hashes to, so the newest signed checkpoint proves the history even where the bytes of
//! an entry are damaged: that entry is then kept without content. What no checkpoint covers is taken only with the
//! report's own signature beside it. A history that cannot be proved as far as any checkpoint reached is refused: to begin
//! anew under the same key would show two histories.

use crate::entry::Entry;
use crate::key::PublicKey;
use crate::log::{LogError, Object};
use crate::merkle::{Hash, leaf_hash, root_of};
use crate::note::{Checkpoint, Origin};
use crate::places::{Places, settle};
use std::collections::{BTreeMap, BTreeSet};

/// How far a log went, as its objects in a store say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    /// Entries under the largest checkpoint that is signed: nobody else can make it.
    pub signed: u64,
    /// Entries that any name speaks of, whatever the object holds.
    pub named: u64,
}

impl Reach {
    pub fn of(objects: &[(String, Vec<u8>)], key: &PublicKey, origin: &Origin) -> Self {
        let mut reach = Self::default();
        for (name, bytes) in objects {
            match Object::of_name(name) {
                Some(Object::Entry(index, _)) => reach.named = reach.named.max(index.saturating_add(1)),
                Some(Object::Checkpoint(size)) => {
                    reach.named = reach.named.max(size);
                    if Checkpoint::verify_of(bytes, key, origin).is_ok_and(|head| head.size == size) {
                        reach.signed = reach.signed.max(size);
                    }
                }
                None => {}
            }
        }
        reach
    }
}

/// What can be proved: leaves in order, bytes where they are whole, and the newest checkpoint.
pub(crate) struct Salvaged {
    pub(crate) entries: Vec<(Hash, Vec<u8>)>,
    pub(crate) checkpoint: Option<(u64, Vec<u8>)>,
}

#[derive(Default)]
struct Found {
    /// The bytes are empty where no store has them whole.
    entries: Places,
    checkpoints: BTreeMap<u64, (Checkpoint, Vec<u8>)>,
    /// How far any checkpoint reached, damaged ones too.
    reached: u64,
    signatures: BTreeSet<Vec<u8>>,
}

/// `objects`: those of every store that answers, signatures of reports included.
pub(crate) fn salvage(
    objects: impl IntoIterator<Item = (String, Vec<u8>)>,
    key: &PublicKey,
    origin: &Origin,
) -> Result<Salvaged, LogError> {
    let found = gather(objects, key, origin);
    let (size, note) = match found.checkpoints.last_key_value() {
        Some((size, (_, note))) => (*size, Some((*size, note.clone()))),
        None => (0, None),
    };
    let gone = |index| LogError::Damaged { index, what: "a signed checkpoint covers it, but it is gone" };
    let newest = found.checkpoints.last_key_value().map(|(size, (head, _))| (*size, head.root));
    let mut entries = settle(&found.entries, &newest.into_iter().collect())?;
    let leaves: Vec<Hash> = entries.iter().map(|(leaf, _)| *leaf).collect();
    if found.checkpoints.get(&size).is_some_and(|(head, _)| root_of(&leaves) != head.root) {
        let what = "the signed checkpoint has another root than the entries";
        return Err(LogError::Damaged { index: size.saturating_sub(1), what });
    }
    while let Some(next) = vouched(&found, entries.len() as u64, key) {
        entries.push(next);
    }
    if (entries.len() as u64) < found.reached {
        return Err(gone(entries.len() as u64));
    }
    Ok(Salvaged { entries, checkpoint: note })
}

fn gather(objects: impl IntoIterator<Item = (String, Vec<u8>)>, key: &PublicKey, origin: &Origin) -> Found {
    let mut found = Found::default();
    for (name, bytes) in objects {
        match Object::of_name(&name) {
            Some(Object::Entry(index, leaf)) => {
                let kept = found.entries.entry(index).or_default().entry(leaf).or_default();
                if kept.is_empty() && leaf_hash(&bytes) == leaf {
                    *kept = bytes;
                }
            }
            Some(Object::Checkpoint(size)) => {
                found.reached = found.reached.max(size);
                if let Ok(head) = Checkpoint::verify_of(&bytes, key, origin)
                    && head.size == size
                {
                    found.checkpoints.insert(size, (head, bytes));
                }
            }
            None if name.ends_with(".sig") => drop(found.signatures.insert(bytes)),
            None => {}
        }
    }
    found
}

/// The entry at a place that no checkpoint covers, if it is a report that the log's own key has signed.
fn vouched(found: &Found, index: u64, key: &PublicKey) -> Option<(Hash, Vec<u8>)> {
    let signed = |bytes: &Vec<u8>| {
        let report = matches!(Entry::parse(bytes), Ok(Entry::Report(_)));
        report && found.signatures.iter().any(|signature| key.verify(bytes, signature).is_ok())
    };
    let (leaf, bytes) = found.entries.get(&index)?.iter().find(|(_, bytes)| signed(bytes))?;
    Some((*leaf, bytes.clone()))
}
