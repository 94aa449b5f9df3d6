//! What each store was last seen to hold, so that what a store loses is told and not only made good: a provider that loses
//! everything is refilled by the next snapshot, which alone nobody would notice. Losing these notes loses only that.

use crate::env::Env;
use crate::error::Result;
use crate::state::State;
use backup_format::wire::{Reader, put_bytes, put_varint};
use std::collections::BTreeMap;
use std::path::Path;

/// Where the losses of all stores are noted.
const LOSSES: &str = "losses";
/// An object is known by so much of its name's hash.
const MARK_BYTES: usize = 8;

type Mark = [u8; MARK_BYTES];

/// What a store lost, at the last time that it lost anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Objects that it was seen to hold and that were gone.
    pub objects: u64,
    /// When this was seen.
    pub at_unix_ms: i64,
}

/// Those of `missing` that the store was seen to hold.
pub(crate) fn lost<'a>(state: &State, store: &str, missing: &'a [String]) -> Vec<&'a String> {
    if missing.is_empty() {
        return Vec::new();
    }
    let held = state.noted(&file_of(store)).unwrap_or_default();
    let (marks, _) = held.as_chunks::<MARK_BYTES>();
    missing.iter().filter(|name| marks.binary_search(&mark(name)).is_ok()).collect()
}

/// Keeps what the store holds now. A state that cannot be written is no reason to stop.
pub(crate) fn keep<'a>(state: &State, store: &str, names: impl Iterator<Item = &'a String>) {
    let mut marks: Vec<Mark> = names.map(|name| mark(name)).collect();
    marks.sort_unstable();
    marks.dedup();
    let _kept = state.note(&file_of(store), marks.as_flattened());
}

/// Notes that a store lost something.
pub(crate) fn note(state: &State, store: &str, loss: Loss) {
    log::error!(store = store, objects = loss.objects; "store.objects-lost");
    let mut all = losses_in(state);
    all.insert(store.to_owned(), loss);
    let mut out = Vec::new();
    put_varint(&mut out, all.len() as u64);
    for (store, loss) in &all {
        put_bytes(&mut out, store.as_bytes());
        put_varint(&mut out, loss.objects);
        put_varint(&mut out, u64::try_from(loss.at_unix_ms).unwrap_or(0));
    }
    let _kept = state.note(LOSSES, &out);
}

/// The last loss of every store that ever lost anything, from the local state.
pub fn losses(env: &Env, state_dir: &Path) -> Result<BTreeMap<String, Loss>> {
    Ok(losses_in(&env.open_state(state_dir)?))
}

fn losses_in(state: &State) -> BTreeMap<String, Loss> {
    let parse = || {
        let bytes = state.noted(LOSSES)?;
        let mut reader = Reader::new(&bytes, "notes of losses");
        let mut all = BTreeMap::new();
        for _ in 0..reader.varint().ok()? {
            let store = String::from_utf8(reader.bytes(usize::MAX).ok()?.to_vec()).ok()?;
            let objects = reader.varint().ok()?;
            let at_unix_ms = i64::try_from(reader.varint().ok()?).ok()?;
            all.insert(store, Loss { objects, at_unix_ms });
        }
        Some(all)
    };
    parse().unwrap_or_default()
}

fn file_of(store: &str) -> String {
    format!("held-{}", blake3::hash(store.as_bytes()).to_hex().get(..16).unwrap_or_default())
}

fn mark(name: &str) -> Mark {
    let hash = blake3::hash(name.as_bytes());
    hash.as_bytes().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_held_and_is_missing_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), 0).unwrap();
        let names: Vec<String> = (0..100).map(|number| format!("packs/aa/{number}")).collect();
        assert!(lost(&state, "north", &names).is_empty(), "nothing is known of it");
        keep(&state, "north", names.iter().take(60));
        assert_eq!(lost(&state, "north", &names[50..]).len(), 10);
        assert!(lost(&state, "south", &names).is_empty());
        let (first, second) = (Loss { objects: 3, at_unix_ms: 5 }, Loss { objects: 7, at_unix_ms: 9 });
        note(&state, "north", first);
        note(&state, "south", first);
        note(&state, "north", second);
        let all = BTreeMap::from([("north".to_owned(), second), ("south".to_owned(), first)]);
        assert_eq!(losses_in(&state), all);
        let file = dir.path().join("files").join(file_of("north"));
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(lost(&state, "north", &names).is_empty(), "damaged notes are none");
    }
}
