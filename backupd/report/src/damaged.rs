//! Objects of a log in a store that do not hold what they must, and what stands in for them: where a store refuses to
//! overwrite, the whole bytes are written beside the damaged ones, under the same name with a number behind it.

use crate::entry::Entry;
use crate::key::PublicKey;
use crate::log::Object;
use crate::merkle::leaf_hash;
use crate::note::{Checkpoint, Origin};
use std::collections::BTreeMap;

type Objects = Vec<(String, Vec<u8>)>;

/// How to tell whether an object is whole.
struct Judge<'a> {
    /// Reports by id, for their signatures.
    reports: BTreeMap<String, Vec<u8>>,
    key: &'a PublicKey,
    origin: &'a Origin,
}

impl<'a> Judge<'a> {
    fn of(objects: &[(String, Vec<u8>)], key: &'a PublicKey, origin: &'a Origin) -> Self {
        let report = |(name, bytes): &(String, Vec<u8>)| match (Object::of_name(plain(name))?, Entry::parse(bytes)) {
            (Object::Entry(_, leaf), Ok(Entry::Report(report))) if leaf_hash(bytes) == leaf => {
                Some((report.report_id.to_string(), bytes.clone()))
            }
            _ => None,
        };
        Self { reports: objects.iter().filter_map(report).collect(), key, origin }
    }

    /// An entry hashes to its name, a checkpoint is the key's own and of the size in its name, a signature is the key's own
    /// over its report. What is none of these is nobody's to judge.
    fn is_whole(&self, name: &str, bytes: &[u8]) -> bool {
        match Object::of_name(name) {
            Some(Object::Entry(_, leaf)) => leaf_hash(bytes) == leaf,
            Some(Object::Checkpoint(size)) => {
                Checkpoint::verify_of(bytes, self.key, self.origin).is_ok_and(|head| head.size == size)
            }
            None => {
                let id = name.rsplit('/').next().and_then(|file| file.strip_suffix(".sig"));
                id.and_then(|id| self.reports.get(id)).is_none_or(|report| self.key.verify(report, bytes).is_ok())
            }
        }
    }
}

/// The name without the number of a further candidate.
fn plain(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((plain, number)) if number.len() == 1 && number.bytes().all(|digit| digit.is_ascii_digit()) => plain,
        _ => name,
    }
}

/// A store's objects, each once: the first that is whole among the object itself and its further candidates.
#[must_use]
pub fn first_whole(mut objects: Objects, key: &PublicKey, origin: &Origin) -> Objects {
    // A name stands before the same name with a number behind it.
    objects.sort();
    let judge = Judge::of(&objects, key, origin);
    let mut chosen: BTreeMap<String, (bool, Vec<u8>)> = BTreeMap::new();
    for (name, bytes) in objects {
        let name = plain(&name).to_owned();
        let whole = judge.is_whole(&name, &bytes);
        match chosen.get(&name) {
            Some((true, _)) => {}
            Some((false, _)) if !whole => {}
            _ => drop(chosen.insert(name, (whole, bytes))),
        }
    }
    chosen.into_iter().map(|(name, (_, bytes))| (name, bytes)).collect()
}

/// The names of those objects of a log that do not hold what they must, after [`first_whole`]. An entry without content is
/// none of them: it may have been lost before the log was recovered, and who has the log knows.
#[must_use]
pub fn damaged(objects: &[(String, Vec<u8>)], key: &PublicKey, origin: &Origin) -> Vec<String> {
    let judge = Judge::of(objects, key, origin);
    let is_lost =
        |name: &str, bytes: &[u8]| bytes.is_empty() && matches!(Object::of_name(name), Some(Object::Entry(..)));
    let damaged = |(name, bytes): &&(String, Vec<u8>)| !judge.is_whole(name, bytes) && !is_lost(name, bytes);
    objects.iter().filter(damaged).map(|(name, _)| name.clone()).collect()
}
