//! Tells a large listing from a silent store: what has come so far earns it more time.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::timeout;

/// What each listed object adds to the limit: four seconds a page. A store that drips is not waited for longer than one
/// that is silent.
const PER_OBJECT: Duration = Duration::from_millis(4);
/// The most that all of them add. Others wait for this store: a listing without an end must not hold them up.
const EARNED_MAX: Duration = Duration::from_secs(100);

tokio::task_local! {
    static LISTED: Listed;
}

/// Objects that came so far, for everybody who waits for them.
#[derive(Clone, Default)]
pub(super) struct Listed(Arc<Count>);

#[derive(Default)]
struct Count {
    objects: AtomicU64,
    /// Whoever waits around this one.
    outer: Option<Listed>,
}

impl Listed {
    /// Of the operation that runs now; nobody may be waiting.
    pub(super) fn current() -> Self {
        LISTED.try_with(Self::clone).unwrap_or_default()
    }

    pub(super) fn add(&self, objects: u64) {
        self.0.objects.fetch_add(objects, Ordering::Relaxed);
        if let Some(outer) = &self.0.outer {
            outer.add(objects);
        }
    }
}

/// Waits for a listing for this time, and longer by what it has listed meanwhile; `None`: it was given up.
pub(crate) async fn while_it_lists<T>(limit: Duration, listing: impl Future<Output = T>) -> Option<T> {
    let listed = Listed(Arc::new(Count { objects: AtomicU64::new(0), outer: LISTED.try_with(Listed::clone).ok() }));
    let mut listing = pin!(LISTED.scope(listed.clone(), listing));
    let mut waited = Duration::ZERO;
    loop {
        let objects = u32::try_from(listed.0.objects.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let earned = PER_OBJECT.saturating_mul(objects).min(EARNED_MAX);
        let left = (limit + earned).saturating_sub(waited);
        if left.is_zero() {
            return None;
        }
        match timeout(left, &mut listing).await {
            Ok(done) => return Some(done),
            Err(_) => waited += left,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::sleep;

    /// Lists so many objects, one after another, each after this time.
    async fn lists(objects: u64, each: Duration) -> u64 {
        for _ in 0..objects {
            sleep(each).await;
            Listed::current().add(1);
        }
        objects
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_listing_that_goes_on_is_waited_for_and_one_that_drips_is_not() {
        let limit = Duration::from_secs(20);
        assert_eq!(while_it_lists(limit, lists(50_000, Duration::from_millis(2))).await, Some(50_000));
        let waited =
            timeout(limit + EARNED_MAX, while_it_lists(limit, lists(u64::MAX, Duration::from_millis(3)))).await;
        assert_eq!(waited.expect("one without an end is given up"), None);
        for each in [Duration::from_millis(50), Duration::from_secs(19), Duration::from_secs(60)] {
            let waited = timeout(2 * limit, while_it_lists(limit, lists(100_000, each))).await;
            assert_eq!(waited.expect("it is given up in time"), None);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_around_another_sees_the_same() {
        let inner = while_it_lists(Duration::from_secs(20), lists(25_000, Duration::from_millis(3)));
        assert_eq!(while_it_lists(Duration::from_secs(21), inner).await, Some(Some(25_000)));
    }
}
