//! Locks that hold as long as what they lock is wanted: every object that a retained snapshot may reach is locked at
//! least until `wanted`. Retained is what no deletion plan condemns, so this needs no key.

use crate::candidate::candidate_of;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::store::versions::{Lock, LockMode, Version, VersionedStore};
use crate::store::{LockRule, NamedStore};
use crate::survey::hash_in_name;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeSet;

/// Locks asked for and moved at once.
const AT_ONCE: usize = 8;
/// Named when their locks cannot be set as wished; the others are counted.
const NAMED_MAX: usize = 16;

/// What a run over one store found and did.
#[derive(Debug, Default)]
pub struct LockOutcome {
    pub store: String,
    /// Versions of objects that must stay.
    pub versions: u64,
    /// Locks that were moved further away, or set where there was none.
    pub extended: u64,
    /// Versions that are locked for less than wanted, because the store refused: the invariant is broken.
    pub short: u64,
    /// Some of these, by object name.
    pub short_objects: Vec<String>,
    /// Versions that are locked long enough and in governance where compliance is wished for, because the store refused to
    /// raise the mode: whoever may bypass such a lock can delete them.
    pub mode_short: u64,
    /// Some of these, by object name.
    pub mode_short_objects: Vec<String>,
    /// The earliest day on which a lock of what must stay ends, after this run.
    pub earliest_until_unix_ms: Option<i64>,
    pub error: Option<Error>,
}

impl LockOutcome {
    /// Whether everything that must stay is locked as long as wanted, in the mode that is wanted.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.short == 0 && self.mode_short == 0 && self.error.is_none()
    }

    fn count(&mut self, name: String, result: Result<Extended>) {
        self.versions += 1;
        let refused = match result {
            Ok(Extended { until_unix_ms, moved, not_raised }) => {
                self.extended += u64::from(moved);
                let earliest = self.earliest_until_unix_ms.get_or_insert(until_unix_ms);
                *earliest = until_unix_ms.min(*earliest);
                let Some(refused) = not_raised else { return };
                note(&mut self.mode_short, &mut self.mode_short_objects, name);
                refused
            }
            Err(error) => {
                note(&mut self.short, &mut self.short_objects, name);
                error
            }
        };
        if refused.kind() != ErrorKind::Denied {
            self.error.get_or_insert(refused);
        }
    }
}

/// What a lock should be like.
#[derive(Debug, Clone, Copy)]
pub struct LockWish {
    pub rule: LockRule,
    /// A lock that ends before now and this, in milliseconds, is moved to the rule's full length. More than the time
    /// between two runs, and less than the rule's length.
    pub slack_ms: i64,
}

/// Moves the locks of one store. Versions that were overwritten or deleted by name are locked like the latest: where
/// somebody did that, they are what is worth having.
pub async fn extend_locks(
    env: &Env,
    store: &NamedStore,
    versions: &dyn VersionedStore,
    wish: LockWish,
    condemned: &BTreeSet<String>,
) -> LockOutcome {
    let mut outcome = LockOutcome { store: store.name.clone(), ..LockOutcome::default() };
    let all = match versions.versions("").await {
        Ok(all) => all,
        Err(error) => {
            outcome.error = Some(error);
            return outcome;
        }
    };
    let now = env.now_unix_ms();
    let stays = |version: &Version| !version.is_delete_marker && must_stay(&version.name, condemned);
    let runs = all.into_iter().filter(stays).map(|version| extend(versions, wish, now, version).boxed());
    let mut runs = futures::stream::iter(runs).buffer_unordered(AT_ONCE);
    while let Some((name, result)) = runs.next().await {
        outcome.count(name, result);
    }
    outcome.mode_short_objects.sort();
    outcome.short_objects.sort();
    outcome
}

fn note(count: &mut u64, names: &mut Vec<String>, name: String) {
    *count += 1;
    if names.len() < NAMED_MAX {
        names.push(name);
    }
}

/// Objects of the repository and of the log of proofs; the probe's own object is free to go.
fn must_stay(name: &str, condemned: &BTreeSet<String>) -> bool {
    let object = candidate_of(name).unwrap_or(name);
    (hash_in_name(object).is_some() || name.starts_with("log/")) && !condemned.contains(object)
}

/// A version that is locked long enough.
struct Extended {
    until_unix_ms: i64,
    moved: bool,
    /// Why its mode is laxer than wished.
    not_raised: Option<Error>,
}

async fn extend(
    versions: &dyn VersionedStore,
    wish: LockWish,
    now_unix_ms: i64,
    version: Version,
) -> (String, Result<Extended>) {
    let result = extend_one(versions, wish, now_unix_ms, &version).await;
    (version.name, result)
}

async fn extend_one(
    versions: &dyn VersionedStore,
    wish: LockWish,
    now_unix_ms: i64,
    version: &Version,
) -> Result<Extended> {
    let (name, id) = (version.name.as_str(), Some(version.id.as_str()));
    let enough = now_unix_ms.saturating_add(wish.slack_ms);
    let full = wish.rule.from_now(now_unix_ms);
    let Some(lock) = versions.lock(name, id).await? else {
        versions.set_lock(name, id, full).await?;
        return Ok(Extended { until_unix_ms: full.until_unix_ms, moved: true, not_raised: None });
    };
    // A lock that somebody set in the stricter mode keeps it: a store refuses to weaken it. One in the laxer mode becomes
    // as strict as is wished: what its holder may lift protects nothing from whoever has the credentials.
    let mode = lock.mode.stricter(wish.rule.mode);
    if lock.until_unix_ms >= enough && lock.mode == mode {
        return Ok(Extended { until_unix_ms: lock.until_unix_ms, moved: false, not_raised: None });
    }
    // Never shorter than it is.
    let until_unix_ms = lock.until_unix_ms.max(full.until_unix_ms);
    let Err(refused) = set(versions, (name, id), lock, Lock { mode, until_unix_ms }).await else {
        return Ok(Extended { until_unix_ms, moved: true, not_raised: None });
    };
    if lock.mode == mode {
        return Err(refused);
    }
    if lock.until_unix_ms >= enough {
        return Ok(Extended { until_unix_ms: lock.until_unix_ms, moved: false, not_raised: Some(refused) });
    }
    // A store that does not let this key change the mode may let it lock for longer, which is better than nothing.
    versions.set_lock(name, id, Lock { mode: lock.mode, until_unix_ms }).await?;
    Ok(Extended { until_unix_ms, moved: true, not_raised: Some(refused) })
}

/// Sets a lock that ends no earlier than the one that is there. A raised mode is asked for without any further right first: not
/// every store wants one, and not every key has it.
async fn set(versions: &dyn VersionedStore, (name, id): (&str, Option<&str>), old: Lock, new: Lock) -> Result<()> {
    match versions.set_lock(name, id, new).await {
        Err(error)
            if error.kind() == ErrorKind::Denied
                && (old.mode, new.mode) == (LockMode::Governance, LockMode::Compliance) =>
        {
            versions.raise_lock(name, id, new.until_unix_ms).await
        }
        set => set,
    }
}

#[cfg(test)]
mod tests;
