//! Objects that were found damaged, by store. What is noted here drops out of that store's view: it is missing there, is
//! copied from no such place, and counts as held by nobody when no other store has it whole. Losing the notes loses
//! nothing: who reads such an object next finds it again.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::gone;
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{by_object, damaged, fetch};
use backup_format::wire::{Reader, put_bytes, put_varint};
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const FILE: &str = "damage";
/// Objects looked at again at once.
const LOOKS: usize = 4;

/// Hexadecimal digits by which an object is known to who is told of the damage.
const MARK_DIGITS: usize = 16;
/// A store that is damaged in more places is damaged as a whole.
const MARKS_MAX: usize = 4096;

type Notes = BTreeMap<String, BTreeSet<String>>;

/// The notes, kept in the state as they change.
pub(crate) struct Damage {
    state: Arc<State>,
    notes: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    all: Notes,
    /// What was found since these notes were read.
    fresh: Vec<(String, String)>,
}

impl Damage {
    pub(crate) fn load(state: &Arc<State>) -> Self {
        let all = read(state).unwrap_or_default();
        Self { state: Arc::clone(state), notes: Mutex::new(Noted { all, fresh: Vec::new() }) }
    }

    fn notes(&self) -> MutexGuard<'_, Noted> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is(&self, store: &str, name: &str) -> bool {
        self.notes().all.get(store).is_some_and(|names| names.contains(name))
    }

    /// Findings of all stores.
    pub(crate) fn count(&self) -> usize {
        self.notes().all.values().map(BTreeSet::len).sum()
    }

    /// Every object that is damaged at some store.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        self.notes().all.values().flatten().cloned().collect()
    }

    pub(crate) fn names_at(&self, store: &str) -> BTreeSet<String> {
        self.notes().all.get(store).cloned().unwrap_or_default()
    }

    /// What was found since the notes were read and has not been put right.
    pub(crate) fn fresh(&self) -> Vec<(String, String)> {
        self.notes().fresh.clone()
    }

    pub(crate) fn note(&self, store: &str, name: &str) {
        let mut notes = self.notes();
        if notes.all.entry(store.to_owned()).or_default().insert(name.to_owned()) {
            log::error!(store = store, object = name; "store.object-damaged");
            notes.fresh.push((store.to_owned(), name.to_owned()));
            self.keep(&notes.all);
        }
    }

    /// A store did not give back whole what its listing shows. One that lists what it does not have, and goes on doing so,
    /// has it damaged: nobody else lacks it.
    pub(crate) async fn note_unread(&self, store: &NamedStore, name: &str, error: Error) -> Error {
        let is_phantom = error.kind() == ErrorKind::NotFound && is_listed(store, name).await;
        if is_phantom || error.kind() == ErrorKind::Damaged {
            self.note(&store.name, name);
        }
        if is_phantom { damaged(store, name) } else { error }
    }

    /// The object was seen whole.
    pub(crate) fn clear(&self, store: &str, name: &str) {
        let mut notes = self.notes();
        if notes.all.get_mut(store).is_some_and(|names| names.remove(name)) {
            log::info!(store = store, object = name; "store.object-whole-again");
            notes.fresh.retain(|(at, object)| (at.as_str(), object.as_str()) != (store, name));
            notes.all.retain(|_, names| !names.is_empty());
            self.keep(&notes.all);
        }
    }

    /// A state that cannot be written is no reason to stop: the damage will be found again.
    fn keep(&self, notes: &Notes) {
        let mut out = Vec::new();
        let all = notes.values().map(BTreeSet::len).sum::<usize>();
        put_varint(&mut out, all as u64);
        for (store, names) in notes {
            for name in names {
                put_bytes(&mut out, store.as_bytes());
                put_bytes(&mut out, name.as_bytes());
            }
        }
        let _kept = self.state.note(FILE, &out);
    }

    /// Looks again at everything that was found damaged at a store: somebody may have put it right.
    pub(crate) async fn look_again(&self, stores: &[NamedStore]) {
        let noted = self.notes().all.clone();
        let all =
            stores.iter().flat_map(|store| noted.get(&store.name).into_iter().flatten().map(move |name| (store, name)));
        let look = |(store, name): (&NamedStore, &String)| {
            let (store, name) = (store.clone(), name.clone());
            async move {
                match fetch(&store, &name).await {
                    Ok(_) => self.clear(&store.name, &name),
                    // What is gone is no longer damaged: it is missing, and the listing says so.
                    Err(error) if error.kind() == ErrorKind::NotFound && !is_listed(&store, &name).await => {
                        self.clear(&store.name, &name);
                    }
                    Err(_) => {}
                }
            }
            .boxed()
        };
        let looks: Vec<_> = all.map(look).collect();
        futures::stream::iter(looks).buffer_unordered(LOOKS).collect::<Vec<()>>().await;
    }
}

/// Whether a store lists an object that it was just asked for.
pub(crate) async fn is_listed(store: &NamedStore, name: &str) -> bool {
    let folder = name.rfind('/').and_then(|at| name.get(..=at)).unwrap_or_default();
    store.store.list(folder).await.is_ok_and(|listed| by_object(listed).contains_key(name))
}

fn read(state: &State) -> Option<Notes> {
    let noted = state.noted(FILE)?;
    let mut reader = Reader::new(&noted, "notes of damage");
    let mut notes = Notes::new();
    for _ in 0..reader.varint().ok()? {
        let store = String::from_utf8(reader.bytes(usize::MAX).ok()?.to_vec()).ok()?;
        let name = String::from_utf8(reader.bytes(usize::MAX).ok()?.to_vec()).ok()?;
        notes.entry(store).or_default().insert(name);
    }
    Some(notes)
}

/// What a scrub saw at one store: objects that are damaged, and objects that are whole.
pub fn note_damage(env: &Env, state_dir: &Path, store: &str, damaged: &[String], whole: &[String]) -> Result<()> {
    let damage = Damage::load(&Arc::new(env.open_state(state_dir)?));
    damaged.iter().for_each(|name| damage.note(store, name));
    whole.iter().for_each(|name| damage.clear(store, name));
    Ok(())
}

/// What the local state knows of damage and loss.
#[derive(Debug, Default)]
pub struct Doubts {
    /// By store, what is damaged there and gone everywhere, a mark for each object; of very many one for all of them.
    pub marks: BTreeMap<String, BTreeSet<String>>,
    /// By store, the first object that is damaged there.
    pub damaged: BTreeMap<String, String>,
    /// What no store holds any more, and whether somebody has looked into it.
    pub gone: BTreeMap<String, bool>,
}

/// What is known of damage and loss at these stores.
pub fn doubts<'s>(env: &Env, state_dir: &Path, stores: impl Iterator<Item = &'s str>) -> Result<Doubts> {
    let state = env.open_state(state_dir)?;
    let (damaged, gone) = (read(&state).unwrap_or_default(), gone::noted(&state));
    let marks = |store: &str| {
        let names: BTreeSet<&String> = damaged.get(store).into_iter().flatten().chain(gone.keys()).collect();
        (!names.is_empty()).then(|| (store.to_owned(), marks_of(&names)))
    };
    let first = |(store, names): (&String, &BTreeSet<String>)| Some((store.clone(), names.first()?.clone()));
    Ok(Doubts { damaged: damaged.iter().filter_map(first).collect(), marks: stores.filter_map(marks).collect(), gone })
}

fn marks_of(names: &BTreeSet<&String>) -> BTreeSet<String> {
    let short = |hash: blake3::Hash| hash.to_hex().chars().take(MARK_DIGITS).collect();
    if names.len() <= MARKS_MAX {
        return names.iter().map(|name| short(blake3::hash(name.as_bytes()))).collect();
    }
    let mut all = blake3::Hasher::new();
    for name in names {
        all.update(name.as_bytes()).update(b"\0");
    }
    BTreeSet::from([short(all.finalize())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_kept_and_cleared_and_damaged_notes_are_none() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Arc::new(State::open(dir.path(), 0).unwrap());
        let damage = Damage::load(&open());
        damage.note("north", "packs/aa/1");
        damage.note("north", "packs/aa/2");
        damage.note("south", "packs/aa/1");
        damage.clear("north", "packs/aa/2");
        assert_eq!(damage.fresh().len(), 2);
        drop(damage);
        let damage = Damage::load(&open());
        assert!(
            damage.is("north", "packs/aa/1") && damage.is("south", "packs/aa/1") && !damage.is("north", "packs/aa/2")
        );
        assert!(damage.fresh().is_empty());
        assert_eq!(damage.names().len(), 1);
        drop(damage);
        let file = dir.path().join("files").join(FILE);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[3] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        assert!(Damage::load(&open()).names().is_empty());
    }
}
