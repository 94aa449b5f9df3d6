//! The wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; zero when the clock stands before it.
pub fn unix_s() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
