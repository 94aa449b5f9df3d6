//! Does a store keep what it has? One sacrificial object is overwritten and deleted with the daemon's own credentials,
//! as whoever steals them would. Whatever the settings promise, this is what the store does.

use super::versions::VersionedStore;
use super::{MaintenanceStore, StoreLimits, StoreLocation};
use crate::env::Env;
use crate::error::{ErrorKind, Result};
use bytes::Bytes;
use rand_core::Rng;

/// The object's name. It is no object of a repository, and nothing ever reads it for its content.
const SACRIFICE: &str = "probe/sacrifice";

/// What these credentials can do to what the store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protection {
    /// Old bytes stay as versions, and a lock keeps these from being deleted.
    Locked,
    /// The credentials may neither overwrite nor delete. What other credentials can do is not seen from here.
    Refused,
    /// Overwriting an object loses the old bytes.
    LostByOverwrite,
    /// Deleting an object, or its versions, loses the bytes.
    LostByDelete,
}

impl Protection {
    /// Whether somebody with these credentials can destroy nothing.
    #[must_use]
    pub fn protects(self) -> bool {
        matches!(self, Self::Locked | Self::Refused)
    }
}

impl StoreLocation {
    /// Overwrites and deletes the sacrificial object as these credentials can. No other object is touched.
    pub async fn probe(&self, env: &Env, limits: StoreLimits) -> Result<Protection> {
        let store = self.open_for_maintenance(limits)?;
        let versions = self.open_versions(limits)?;
        probe(env, &*store, versions.as_deref()).await
    }
}

/// Whether the store refused, or did it.
fn was_done(result: Result<()>) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.kind(), ErrorKind::Denied | ErrorKind::Fenced) => Ok(false),
        Err(error) => Err(error),
    }
}

async fn probe(env: &Env, store: &dyn MaintenanceStore, versions: Option<&dyn VersionedStore>) -> Result<Protection> {
    let (first, second) = (random(env), random(env));
    // A folder that is away must not be made anew by what comes: one that was listed is not.
    store.list(SACRIFICE).await?;
    if !was_done(store.put(SACRIFICE, first.clone()).await)? {
        // That already was an overwrite: of the object of an earlier probe.
        let there = store.get(SACRIFICE).await?;
        let deleted = was_done(store.delete(SACRIFICE).await)?;
        return after_delete(store, versions, &there, deleted, Protection::Refused).await;
    }
    let overwritten = was_done(store.replace(SACRIFICE, second.clone()).await)?;
    if overwritten && kept(versions, &first).await?.is_none() {
        // Nothing is left lying about where it can be taken away.
        let _ = store.delete(SACRIFICE).await;
        return Ok(Protection::LostByOverwrite);
    }
    let latest = if overwritten { &second } else { &first };
    let deleted = was_done(store.delete(SACRIFICE).await)?;
    let otherwise = if overwritten || deleted { Protection::Locked } else { Protection::Refused };
    after_delete(store, versions, latest, deleted, otherwise).await
}

/// After a deletion by name: the bytes must be there still, and their version must refuse to be deleted for good.
async fn after_delete(
    store: &dyn MaintenanceStore,
    versions: Option<&dyn VersionedStore>,
    bytes: &Bytes,
    deleted: bool,
    otherwise: Protection,
) -> Result<Protection> {
    match kept(versions, bytes).await? {
        Some((versions, version)) => match was_done(versions.delete_version(SACRIFICE, Some(&version), true).await)? {
            true => Ok(Protection::LostByDelete),
            false => Ok(otherwise),
        },
        None if deleted => Ok(Protection::LostByDelete),
        // Without versions, the latest must be there as it was.
        None if store.get(SACRIFICE).await? == *bytes => Ok(otherwise),
        None => Ok(Protection::LostByDelete),
    }
}

/// The version of the sacrificial object that holds these bytes.
async fn kept<'a>(
    versions: Option<&'a dyn VersionedStore>,
    bytes: &Bytes,
) -> Result<Option<(&'a dyn VersionedStore, String)>> {
    let Some(store) = versions else { return Ok(None) };
    let all = match store.versions(SACRIFICE).await {
        Ok(all) => all,
        // The store knows no versions, or these credentials may not see them: nobody could bring them back.
        Err(error) if matches!(error.kind(), ErrorKind::Misconfigured | ErrorKind::Denied) => return Ok(None),
        Err(error) => return Err(error),
    };
    for version in all.iter().filter(|version| version.name == SACRIFICE && !version.is_delete_marker) {
        match store.get_version(SACRIFICE, &version.id).await {
            Ok(there) if there == *bytes => return Ok(Some((store, version.id.clone()))),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.context("the probe of the store")),
        }
    }
    Ok(None)
}

fn random(env: &Env) -> Bytes {
    let mut bytes = vec![0; 32];
    env.rng().fill_bytes(&mut bytes);
    bytes.into()
}
