//! The wall clock, for one-time codes and log lines only.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970; zero when the clock stands before it.
pub(crate) fn unix_s() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
