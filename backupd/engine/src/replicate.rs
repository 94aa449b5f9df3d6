//! Catch-up: copying sealed objects by name to stores that lack them, or hold them damaged.

use crate::ahead::is_loss;
use crate::backup::Stop;
use crate::candidate::put_whole;
use crate::damage::Damage;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::keyring::require;
use crate::spool::{SPOOL, note_copied};
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{FETCHES, HEADS, INDEXES, SNAPSHOTS, Union, damaged, fetch, note_losses, union};
use backup_format::WriterCredential;
use backup_format::features::Purpose;
use futures::{FutureExt, StreamExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What catch-up did at one store.
#[derive(Debug)]
pub struct StoreCatchUp {
    pub store: String,
    pub objects_copied: u64,
    pub bytes_copied: u64,
    /// Of these, objects that were damaged there before.
    pub objects_healed: u64,
    /// The store now holds every object and head that any reachable store holds whole.
    pub complete: bool,
    /// Why it does not.
    pub error: Option<Error>,
}

/// Rounds of catch-up: what one finds damaged, the next takes for missing.
const ROUNDS: usize = 3;
const LOOK_FOR_STOP: Duration = Duration::from_millis(500);
/// What is under way may end within this time.
const STOP_GRACE: Duration = Duration::from_secs(15);

/// Brings every reachable store up to the union of all, in write order, and heals what was found damaged where another
/// store has it whole.
pub async fn replicate(
    env: &Env,
    writer: &WriterCredential,
    stores: &[NamedStore],
    state_dir: Option<&Path>,
) -> Result<Vec<StoreCatchUp>> {
    replicate_until(env, writer, stores, state_dir, &Stop::default()).await
}

/// The same for somebody who has something else to do in between: a store that is far behind, or new, takes long. What is
/// copied stays, and the next call goes on from there.
pub async fn replicate_until(
    env: &Env,
    writer: &WriterCredential,
    stores: &[NamedStore],
    state_dir: Option<&Path>,
    stop: &Stop,
) -> Result<Vec<StoreCatchUp>> {
    let state = Arc::new(match state_dir {
        Some(dir) => env.open_state(dir)?,
        None => State::memory(),
    });
    Damage::load(&state).look_again(stores).await;
    let mut done: Vec<StoreCatchUp> = stores
        .iter()
        .map(|store| StoreCatchUp {
            store: store.name.clone(),
            objects_copied: 0,
            bytes_copied: 0,
            objects_healed: 0,
            complete: false,
            error: None,
        })
        .collect();
    for _ in 0..ROUNDS {
        let (union, _) = union(writer.catalog(), stores, &state).await?;
        note_losses(stores, &state, &union, env.now_unix_ms()).await;
        if !union.offline {
            require(stores, &union.views, writer.catalog(), Purpose::Write).await?;
        }
        note_copied(stores, &union);
        let rounds = done.iter_mut().enumerate().map(|(at, done)| one_store((stores, stop), &union, at, done).boxed());
        futures::future::join_all(rounds).await;
        if union.damage.fresh().is_empty() || stop.is_stopped() {
            break;
        }
    }
    done.retain(|done| done.store != SPOOL);
    Ok(done)
}

/// One store's round.
async fn one_store((stores, stop): (&[NamedStore], &Stop), union: &Union, at: usize, done: &mut StoreCatchUp) {
    let Some(view) = union.views.get(at) else { return };
    if stores.get(at).is_some_and(|store| store.is_spool()) {
        return;
    }
    let caught_up = match &view.listing {
        Ok(_) => copy_in_order((stores, stop), union, at, &union.missing_at(view), done).await,
        Err(error) => Err(error.duplicate()),
    };
    let waits = || {
        let silent = stores.iter().zip(&union.views).filter(|(_, view)| view.listing.is_err());
        let silent: Vec<&str> = silent.map(|(store, _)| store.name.as_str()).collect();
        let what = match silent.is_empty() {
            true => "an index object could not be read, and snapshots wait for it".to_owned(),
            false => format!(
                "snapshots wait for {}, where more of them may lie: one that is gone for good has to leave the settings",
                silent.join(", ")
            ),
        };
        Error::new(ErrorKind::Retry, what)
    };
    done.error = caught_up.err().or_else(|| union.something_waits().then(waits));
    done.complete = done.error.is_none();
}

async fn copy_in_order(
    (stores, stop): (&[NamedStore], &Stop),
    union: &Union,
    to: usize,
    names: &[String],
    done: &mut StoreCatchUp,
) -> Result<()> {
    for group in in_groups(names) {
        let one = |name: String| {
            async move {
                let damaged = stores.get(to).is_some_and(|store| union.damage.is(&store.name, &name));
                (damaged, copy(stores, (&holders(stores, union, &name), to), &name, &union.damage).await)
            }
            .boxed()
        };
        let owned = group.to_vec();
        let mut copies = futures::stream::iter(owned.into_iter().map(one)).buffer_unordered(FETCHES);
        let mut lost = None;
        loop {
            let next = tokio::select! {
                next = copies.next() => next,
                () = makes_way(stop) => return Err(stopped()),
            };
            let Some((damaged, copied)) = next else { break };
            match copied {
                Ok(bytes) => {
                    done.objects_copied += 1;
                    done.bytes_copied += bytes;
                    done.objects_healed += u64::from(damaged);
                }
                // The others of the group are no worse for it; what must come after all of them waits.
                Err(error) if is_loss(&error) => lost = Some(error),
                Err(error) => return Err(error),
            }
            if stop.is_stopped() {
                return Err(stopped());
            }
        }
        if let Some(error) = lost {
            return Err(error);
        }
    }
    Ok(())
}

fn stopped() -> Error {
    Error::new(ErrorKind::Stopped, "catch-up makes way: it goes on later")
}

/// Whoever asked for a stop waits for what is under way, and not for a store that is slow or silent.
async fn makes_way(stop: &Stop) {
    while !stop.is_stopped() {
        tokio::time::sleep(LOOK_FOR_STOP).await;
    }
    tokio::time::sleep(STOP_GRACE).await;
}

/// The spool first: it is near.
fn holders(stores: &[NamedStore], union: &Union, name: &str) -> Vec<usize> {
    let held = union.views.iter().enumerate().filter(|(_, view)| view.holds(name)).map(|(at, _)| at);
    let (mut near, far): (Vec<usize>, Vec<usize>) =
        held.partition(|at| stores.get(*at).is_some_and(|store| store.is_spool()));
    near.extend(far);
    near
}

/// Splits names in write order where one kind of object must be complete before the next begins.
pub(crate) fn in_groups(names: &[String]) -> impl Iterator<Item = &[String]> {
    let kind = |name: &str| [INDEXES, SNAPSHOTS, HEADS].iter().position(|prefix| name.starts_with(prefix));
    names.chunk_by(move |a, b| kind(a) == kind(b))
}

/// Copies one object's sealed bytes from the first holder whose copy is whole: damage never spreads, and is noted.
pub(crate) async fn copy(
    stores: &[NamedStore],
    (holders, to): (&[usize], usize),
    name: &str,
    damage: &Damage,
) -> Result<u64> {
    let Some(target) = stores.get(to) else {
        return Err(Error::new(ErrorKind::Misconfigured, "no such store"));
    };
    let mut last = Error::new(ErrorKind::NotFound, format!("no reachable store holds {name}"));
    for holder in holders.iter().filter(|at| **at != to).filter_map(|at| stores.get(*at)) {
        match fetch(holder, name).await {
            Ok(bytes) if bytes.is_empty() => last = damaged(holder, name),
            Ok(bytes) => {
                let size = bytes.len() as u64;
                put_whole(target, name, bytes, damage.is(&target.name, name)).await?;
                damage.clear(&target.name, name);
                return Ok(size);
            }
            Err(error) => last = damage.note_unread(holder, name, error).await,
        }
    }
    Err(last)
}
