//! Catch-up: copying sealed objects by name to stores that lack them.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::keys::require;
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{FETCHES, HEADS, INDEXES, SNAPSHOTS, Union, damaged, fetch, union};
use backup_format::WriterCredential;
use backup_format::features::Purpose;
use futures::{FutureExt, StreamExt, TryStreamExt};
use std::path::Path;
use std::sync::Arc;

/// What catch-up did at one store.
#[derive(Debug)]
pub struct StoreCatchUp {
    pub store: String,
    pub objects_copied: u64,
    pub bytes_copied: u64,
    /// The store now holds every object and head that any reachable store holds.
    pub complete: bool,
    pub error: Option<Error>,
}

/// Brings every reachable store up to the union of all, in write order.
pub async fn replicate(
    env: &Env,
    writer: &WriterCredential,
    stores: &[NamedStore],
    state_dir: Option<&Path>,
) -> Result<Vec<StoreCatchUp>> {
    let state = Arc::new(match state_dir {
        Some(dir) => State::open(dir, env.now_unix_ms())?,
        None => State::memory(),
    });
    let (union, _) = union(writer.catalog(), stores, &state).await?;
    require(stores, &union.views, writer.catalog(), Purpose::Write).await?;
    let catch_up = |at: usize| {
        let (store, view) = (stores.get(at), union.views.get(at));
        let union = &union;
        async move {
            let (Some(store), Some(view)) = (store, view) else { return None };
            let mut done = StoreCatchUp {
                store: store.name.clone(),
                objects_copied: 0,
                bytes_copied: 0,
                complete: false,
                error: None,
            };
            if let Err(error) = &view.listing {
                done.error = Some(error.duplicate());
                return Some(done);
            }
            let missing = union.missing_at(view);
            match copy_in_order(stores, union, at, &missing, &mut done).await {
                Ok(()) => done.complete = true,
                Err(error) => done.error = Some(error),
            }
            Some(done)
        }
        .boxed()
    };
    Ok(futures::future::join_all((0..stores.len()).map(catch_up)).await.into_iter().flatten().collect())
}

async fn copy_in_order(
    stores: &[NamedStore],
    union: &Union,
    to: usize,
    names: &[String],
    done: &mut StoreCatchUp,
) -> Result<()> {
    for group in in_groups(names) {
        let one = |name: String| async move { copy_known(stores, union, to, &name).await }.boxed();
        let owned = group.to_vec();
        let copies = owned.into_iter().map(one);
        let mut copies = futures::stream::iter(copies).buffer_unordered(FETCHES);
        while let Some(bytes) = copies.try_next().await? {
            done.objects_copied += 1;
            done.bytes_copied += bytes;
        }
    }
    Ok(())
}

/// Splits names in write order where one kind of object must be complete before the next begins.
pub(crate) fn in_groups(names: &[String]) -> impl Iterator<Item = &[String]> {
    let kind = |name: &str| [INDEXES, SNAPSHOTS, HEADS].iter().position(|prefix| name.starts_with(prefix));
    names.chunk_by(move |a, b| kind(a) == kind(b))
}

async fn copy_known(stores: &[NamedStore], union: &Union, to: usize, name: &str) -> Result<u64> {
    let holders: Vec<usize> =
        union.views.iter().enumerate().filter(|(_, view)| view.holds(name)).map(|(at, _)| at).collect();
    copy(stores, &holders, to, name).await
}

/// Copies one object's sealed bytes from the first holder whose copy is whole: damage never spreads.
pub(crate) async fn copy(stores: &[NamedStore], holders: &[usize], to: usize, name: &str) -> Result<u64> {
    let Some(target) = stores.get(to) else {
        return Err(Error::new(ErrorKind::Misconfigured, "no such store"));
    };
    let mut last = Error::new(ErrorKind::NotFound, format!("no reachable store holds {name}"));
    for holder in holders.iter().filter(|at| **at != to).filter_map(|at| stores.get(*at)) {
        match fetch(holder, name).await {
            Ok(bytes) if bytes.is_empty() => last = damaged(holder, name),
            Ok(bytes) => {
                let size = bytes.len() as u64;
                target.store.put(name, bytes).await?;
                return Ok(size);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
