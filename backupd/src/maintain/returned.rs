//! Stores that were away at the last look at them: a disk that is plugged in again, a provider that is back. They are asked again by
//! one small request, and looked at as soon as one answers, so that nobody is told until the next scheduled look that it is away,
//! and what that look would have found is found.

use super::Maintain;
use crate::clock;
use backupd_api::{Failure, StoreCondition};
use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

/// How often they are asked.
const ASK_EVERY_MS: i64 = 60_000;
/// A store that takes longer than this to answer is not back.
const ANSWER_MAX: Duration = Duration::from_secs(20);
/// A store that answers and then fails the look is looked at again no sooner: each look may read as much as a scheduled one.
const LOOK_EVERY_MS: i64 = 3_600_000;
/// Few objects, or none, have names that begin so.
const ASKED: &str = "condemned/";

#[derive(Default)]
pub struct Returns {
    asked_unix_ms: Option<i64>,
    /// When each store was last looked at because it was back.
    looked_unix_ms: BTreeMap<String, i64>,
}

/// Whether so much time has passed; a clock that was set back waits for nothing.
fn is_over(since: Option<i64>, wait_ms: i64, now: i64) -> bool {
    since.is_none_or(|since| now < since || now.saturating_sub(since) >= wait_ms)
}

impl Maintain {
    /// Looks at a store that was away and answers now; `None`: there is none.
    pub(super) async fn look_at_returned(&self) -> Option<Result<(), Failure>> {
        let now = clock::unix_ms();
        let returns = || self.returns.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_over(returns().asked_unix_ms, ASK_EVERY_MS, now) {
            return None;
        }
        returns().asked_unix_ms = Some(now);
        for store in &self.stores {
            let away =
                self.records.last_look(&store.name).is_some_and(|row| row.condition == StoreCondition::Unreachable);
            if !away || !is_over(returns().looked_unix_ms.get(&store.name).copied(), LOOK_EVERY_MS, now) {
                continue;
            }
            let plain = store.as_store();
            if !matches!(tokio::time::timeout(ANSWER_MAX, plain.store.list(ASKED)).await, Ok(Ok(_))) {
                continue;
            }
            log::info!(store = store.name.as_str(); "store.returned");
            let looked = self.look_and_heal(Some(&store.name), false).await;
            if looked.is_ok() {
                returns().looked_unix_ms.insert(store.name.clone(), now);
            }
            return Some(looked.map(drop));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_over_after_its_time_or_when_the_clock_was_set_back() {
        assert!(is_over(None, 10, 5));
        assert!(!is_over(Some(5), 10, 14) && is_over(Some(5), 10, 15));
        assert!(is_over(Some(5), 10, 4));
    }
}
