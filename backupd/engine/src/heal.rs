//! Heal: what a scrub found damaged or missing at one store comes back from another, by name, its hash checked on the way
//! and read again where it was written. Needs no key. Damage never spreads: a copy that is not whole is no source.

use crate::ahead::is_loss;
use crate::candidate::put_candidate;
use crate::damage::Damage;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::scrub::StoreScrub;
use crate::store::{NamedMaintenanceStore, NamedStore};
use crate::survey::{HEADS, fetch};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// How an object was put right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealedBy {
    /// It was missing, and was written again.
    Put,
    /// It was damaged; a new version stands in its place.
    Replaced,
    /// It was damaged, and the store refuses to overwrite: a further candidate stands beside it.
    Candidate,
}

/// One object that was put right.
#[derive(Debug, Clone)]
pub struct Healed {
    pub store: String,
    pub object: String,
    /// The store that had it whole.
    pub from: String,
    pub by: HealedBy,
    pub bytes: u64,
}

/// What healing did.
#[derive(Debug, Default)]
pub struct HealOutcome {
    pub healed: Vec<Healed>,
    /// What could not be put right, and why: store, object. `Damaged`: no reachable store has it whole.
    pub left: Vec<(String, String, Error)>,
}

/// Heals what a scrub found. Heads come last: one stands at a store only when what it reaches does. What a store misses only by the
/// word of others, none of which has it whole, it does not miss: they have it damaged, and `found` says so then.
pub async fn heal(
    env: &Env,
    stores: &[NamedMaintenanceStore],
    found: &mut [StoreScrub],
    state_dir: &Path,
) -> Result<HealOutcome> {
    let damage = Damage::load(&Arc::new(env.open_state(state_dir)?));
    let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
    let mut outcome = HealOutcome::default();
    let mut made_up: BTreeSet<String> = BTreeSet::new();
    for seen in found.iter() {
        let Some(target) = stores.iter().find(|store| store.name == seen.store) else { continue };
        let mut wanted: Vec<(&String, bool)> = seen.corrupt.iter().map(|name| (name, true)).collect();
        wanted.extend(seen.missing.iter().map(|name| (name, false)));
        wanted.sort_by_key(|(name, _)| name.starts_with(HEADS));
        let mut lacks = false;
        for (name, corrupt) in wanted {
            let healed = match name.starts_with(HEADS) && lacks {
                true => Err(Error::new(ErrorKind::Retry, "the head waits for what it reaches")),
                false => one(target, &plain, name, (corrupt, &damage)).await,
            };
            match healed {
                Ok(healed) => {
                    damage.clear(&target.name, name);
                    outcome.healed.push(healed);
                }
                Err(error) if error.kind() == ErrorKind::Damaged && seen.by_others.contains(name) => {
                    made_up.insert(name.clone());
                }
                Err(error) => {
                    // What is lost everywhere is missed by no head more here than elsewhere.
                    lacks |= !is_loss(&error);
                    outcome.left.push((target.name.clone(), name.clone(), error));
                }
            }
        }
    }
    found.iter_mut().for_each(|seen| blame(seen, &made_up, &damage, &mut outcome));
    Ok(outcome)
}

/// Of what no store has whole: a store that lists it has it damaged, and the others that never had it do not miss it.
fn blame(seen: &mut StoreScrub, made_up: &BTreeSet<String>, damage: &Damage, outcome: &mut HealOutcome) {
    seen.missing.retain(|name| !(made_up.contains(name) && seen.by_others.contains(name)));
    let listed: Vec<&String> = made_up.iter().filter(|name| damage.is(&seen.store, name)).collect();
    for name in listed {
        if !seen.corrupt.contains(name) {
            seen.corrupt.push(name.clone());
            outcome.left.push((seen.store.clone(), name.clone(), nowhere_whole(name)));
        }
    }
}

async fn one(
    target: &NamedMaintenanceStore,
    stores: &[NamedStore],
    name: &str,
    (corrupt, damage): (bool, &Damage),
) -> Result<Healed> {
    let (from, bytes) = whole(stores, &target.name, name, damage).await?;
    let size = bytes.len() as u64;
    let by = write(target, name, bytes, corrupt).await?;
    Ok(Healed { store: target.name.clone(), object: name.to_owned(), from, by, bytes: size })
}

fn nowhere_whole(name: &str) -> Error {
    Error::new(ErrorKind::Damaged, format!("no store that answers has {name} whole"))
}

/// The object from the first other store that has it whole.
async fn whole(stores: &[NamedStore], not_at: &str, name: &str, damage: &Damage) -> Result<(String, Bytes)> {
    let mut last = nowhere_whole(name);
    for store in stores.iter().filter(|store| store.name != not_at) {
        match fetch(store, name).await {
            Ok(bytes) if !bytes.is_empty() => return Ok((store.name.clone(), bytes)),
            // A store that does not answer may have it: that is another word than lost.
            Err(error) if !is_loss(&error) => last = error,
            Err(error) => drop(damage.note_unread(store, name, error).await),
            Ok(_) => {}
        }
    }
    Err(last)
}

async fn write(target: &NamedMaintenanceStore, name: &str, bytes: Bytes, corrupt: bool) -> Result<HealedBy> {
    if !corrupt {
        target.store.put(name, bytes.clone()).await?;
        return if target.store.get(name).await? == bytes { Ok(HealedBy::Put) } else { Err(not_kept(name)) };
    }
    match target.store.replace(name, bytes.clone()).await {
        Ok(()) if target.store.get(name).await.is_ok_and(|there| there == bytes) => return Ok(HealedBy::Replaced),
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Fenced) => {}
        Err(error) => return Err(error),
    }
    put_candidate(target.store.as_ref(), name, bytes).await?;
    Ok(HealedBy::Candidate)
}

fn not_kept(name: &str) -> Error {
    Error::new(ErrorKind::Retry, format!("object {name} was written and reads otherwise: the store does not keep it"))
}
