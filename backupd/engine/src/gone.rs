//! What no store holds any more though something may need it: packs that an index names, and index objects, snapshots and
//! keyrings that were seen. A store's loss is told by what the others hold; this is what all of them lost. Losing these notes
//! loses only that.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::KEYRINGS;
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{INDEXES, SNAPSHOTS, Union, View, hash_in_name};
use backup_format::wire::{Reader, put_bytes, put_varint};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

/// What was seen at the stores, and by which order.
const SEEN: &str = "held-names";
const GONE: &str = "losses-gone";
/// Objects asked for by name: a listing may be older than they are.
const ASKED_FOR: usize = 32;

/// Names, and of each whether somebody has looked into it.
type Names = BTreeMap<String, bool>;

/// Takes in what the stores hold, when all of them answer.
pub(crate) async fn note(stores: &[NamedStore], state: &State, union: &Union) {
    if union.offline || !union.all_reachable() {
        return;
    }
    let now = seen_now(stores, union, &read(state, SEEN).unwrap_or_default().1);
    let order = union.condemned.order_number();
    let before = noted(state);
    let damaged = union.damage.names();
    let mut gone: BTreeSet<String> = union.lacking().iter().filter(|name| !damaged.contains(*name)).cloned().collect();
    gone.extend(absent(state, union));
    let fresh: Vec<&String> = gone.iter().filter(|name| !before.contains_key(*name)).collect();
    if is_somewhere(stores, &fresh).await {
        return;
    }
    for name in fresh {
        log::error!(object = name.as_str(); "object.gone-everywhere");
    }
    let gone = gone.into_iter().map(|name| (before.get(&name).copied().unwrap_or(false), name));
    let _gone = write(state, GONE, order, &gone.map(|(looked, name)| (name, looked)).collect());
    let _seen = write(state, SEEN, order, &now.into_iter().map(|name| (name, false)).collect());
}

/// What was seen, or is noted as gone, and is at no store that answers, though nobody takes it out. Which packs these are the
/// index says anew each time.
pub(crate) fn absent(state: &State, union: &Union) -> Vec<String> {
    if union.offline {
        return Vec::new();
    }
    let (seen_by, mut seen) = read(state, SEEN).unwrap_or_default();
    // Of an order that came and went in between nobody knows what it took out.
    if union.condemned.order_number().saturating_sub(seen_by) > 2 {
        seen.clear();
    }
    let (going, damaged) = (union.condemned.going(), union.damage.names());
    let named = seen.into_keys().chain(noted(state).into_keys().filter(|name| is_kept(name)));
    let listed = |name: &String| union.views.iter().filter_map(View::objects).any(|there| there.contains_key(name));
    named.filter(|name| !(listed(name) || going.contains(name) || damaged.contains(name))).collect()
}

/// A snapshot put these to a store.
pub(crate) fn add_seen<'n>(state: &State, names: impl Iterator<Item = &'n String>) {
    let Some((order, mut seen)) = read(state, SEEN) else { return };
    seen.extend(names.filter(|name| is_kept(name)).map(|name| (name.clone(), false)));
    let _noted = write(state, SEEN, order, &seen);
}

fn is_kept(name: &str) -> bool {
    [INDEXES, SNAPSHOTS, KEYRINGS].iter().any(|kind| name.starts_with(kind))
}

/// What a store lists counts as seen when another one does, too, or it was seen before: one may list what never was. What a
/// snapshot put is added by it.
fn seen_now(stores: &[NamedStore], union: &Union, before: &Names) -> BTreeSet<String> {
    // What the spool lets go of was nowhere else.
    let real = stores.iter().zip(&union.views).filter(|(store, _)| !store.is_spool());
    let views: Vec<_> = real.filter_map(|(_, view)| view.objects()).collect();
    let listed = |name: &String| views.iter().filter(|view| view.contains_key(name)).take(2).count();
    let enough = views.len().min(2);
    let names = views.iter().flat_map(|view| view.keys());
    let names = names.filter(|name| is_kept(name) && hash_in_name(name).is_some());
    names.filter(|name| before.contains_key(*name) || listed(name) >= enough).cloned().collect()
}

/// Whether a store has one of these all the same.
async fn is_somewhere(stores: &[NamedStore], names: &[&String]) -> bool {
    for name in names.iter().take(ASKED_FOR) {
        for store in stores.iter().filter(|store| !store.is_spool()) {
            let got = store.store.get_range(name, 0..1).await;
            if !got.is_err_and(|error| error.kind() == ErrorKind::NotFound) {
                return true;
            }
        }
    }
    false
}

/// What no store holds any more, and whether somebody has looked into it.
pub(crate) fn noted(state: &State) -> Names {
    read(state, GONE).unwrap_or_default().1
}

/// Somebody has looked into all that is gone now.
pub fn close_gone(env: &Env, state_dir: &Path) -> Result<()> {
    let state = env.open_state(state_dir)?;
    if let Some((order, mut names)) = read(&state, GONE) {
        names.values_mut().for_each(|looked| *looked = true);
        write(&state, GONE, order, &names).map_err(|error| Error::io("the state directory", &error))?;
    }
    Ok(())
}

fn read(state: &State, file: &str) -> Option<(u64, Names)> {
    let noted = state.noted(file)?;
    let mut reader = Reader::new(&noted, "notes of what was seen");
    let order = reader.varint().ok()?;
    let mut names = Names::new();
    while reader.remaining() > 0 {
        let looked = reader.flag().ok()?;
        names.insert(String::from_utf8(reader.bytes(usize::MAX).ok()?.to_vec()).ok()?, looked);
    }
    Some((order, names))
}

fn write(state: &State, file: &str, order: u64, names: &Names) -> io::Result<()> {
    if read(state, file).is_some_and(|before| before == (order, names.clone())) {
        return Ok(());
    }
    let mut out = Vec::new();
    put_varint(&mut out, order);
    for (name, looked) in names {
        out.push(u8::from(*looked));
        put_bytes(&mut out, name.as_bytes());
    }
    state.note(file, &out)
}
