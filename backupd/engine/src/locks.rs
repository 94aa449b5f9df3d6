//! Locks that hold as long as what they lock is wanted: every object that a retained snapshot may reach is locked at
//! least until `wanted`. Retained is what no deletion plan condemns, so this needs no key.

use crate::candidate::candidate_of;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::store::versions::{Lock, Version, VersionedStore};
use crate::store::{LockRule, NamedStore};
use crate::survey::hash_in_name;
use futures::{FutureExt, StreamExt};
use std::collections::BTreeSet;

/// Locks asked for and moved at once.
const AT_ONCE: usize = 8;
/// Named when their locks cannot be moved; the others are counted.
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
    /// The earliest day on which a lock of what must stay ends, after this run.
    pub earliest_until_unix_ms: Option<i64>,
    pub error: Option<Error>,
}

impl LockOutcome {
    /// Whether everything that must stay is locked as long as wanted.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.short == 0 && self.error.is_none()
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
        outcome.versions += 1;
        match result {
            Ok(Extended { until_unix_ms, moved }) => {
                outcome.extended += u64::from(moved);
                let earliest = outcome.earliest_until_unix_ms.get_or_insert(until_unix_ms);
                *earliest = until_unix_ms.min(*earliest);
            }
            Err(error) => {
                outcome.short += 1;
                if outcome.short_objects.len() < NAMED_MAX {
                    outcome.short_objects.push(name);
                }
                if error.kind() != ErrorKind::Denied {
                    outcome.error.get_or_insert(error);
                }
            }
        }
    }
    outcome.short_objects.sort();
    outcome
}

/// Objects of the repository and of the log of proofs; the probe's own object is free to go.
fn must_stay(name: &str, condemned: &BTreeSet<String>) -> bool {
    let object = candidate_of(name).unwrap_or(name);
    (hash_in_name(object).is_some() || name.starts_with("log/")) && !condemned.contains(object)
}

struct Extended {
    until_unix_ms: i64,
    moved: bool,
}

async fn extend(
    versions: &dyn VersionedStore,
    wish: LockWish,
    now_unix_ms: i64,
    version: Version,
) -> (String, Result<Extended>) {
    let run = async {
        let lock = versions.lock(&version.name, Some(&version.id)).await?;
        let enough = now_unix_ms.saturating_add(wish.slack_ms);
        // A lock that somebody set in the stricter mode keeps it: a store refuses to weaken it. One in the laxer mode becomes
        // as strict as is wished: what its holder may lift protects nothing from whoever has the credentials.
        let mode = lock.map_or(wish.rule.mode, |lock| lock.mode.stricter(wish.rule.mode));
        if let Some(lock) = lock.filter(|lock| lock.until_unix_ms >= enough && lock.mode == mode) {
            return Ok(Extended { until_unix_ms: lock.until_unix_ms, moved: false });
        }
        let further = Lock { mode, ..wish.rule.from_now(now_unix_ms) };
        // Never shorter than it is.
        let until_unix_ms = lock.map_or(0, |lock| lock.until_unix_ms).max(further.until_unix_ms);
        let further = Lock { until_unix_ms, ..further };
        let set = versions.set_lock(&version.name, Some(&version.id), further).await;
        // A store that does not let this key change the mode may let it lock for longer, which is better than nothing.
        if let (Err(_), Some(lock)) = (&set, lock.filter(|lock| lock.mode != mode && lock.until_unix_ms < enough)) {
            versions.set_lock(&version.name, Some(&version.id), Lock { mode: lock.mode, ..further }).await?;
        }
        set.map(|()| Extended { until_unix_ms, moved: true })
    };
    let result = run.await;
    (version.name, result)
}
