//! Time, waiting and randomness of the daemon: the only door to them in this crate (the engine has its own `Env`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix milliseconds; 0 when the clock stands before 1970.
pub fn unix_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the wall clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}

/// Clocks of two machines may differ by so much that nobody needs to know.
const SKEW_MS: i64 = 120_000;

/// How long ago `then` was. `None` where it lies ahead: a clock was wrong when it was written, or is wrong now, and nobody
/// knows how old it is.
pub fn age_ms(then_ms: i64, now_ms: i64) -> Option<u64> {
    let age = now_ms.saturating_sub(then_ms);
    if age < -SKEW_MS { None } else { Some(u64::try_from(age).unwrap_or(0)) }
}

/// Whether something is older than it may be. What is of unknown age counts as too old.
pub fn is_late(then_ms: i64, now_ms: i64, age_ms_max: i64) -> bool {
    age_ms(then_ms, now_ms).is_none_or(|age| age > u64::try_from(age_ms_max).unwrap_or(0))
}

/// A point on the monotonic clock, for durations.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    pub fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the monotonic clock")]
        let now = std::time::Instant::now();
        Self(now)
    }

    pub fn elapsed(self) -> Duration {
        self.0.elapsed()
    }

    pub fn elapsed_ms(self) -> u64 {
        u64::try_from(self.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The day of a moment, in UTC.
pub fn day(unix_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default().format("%Y-%m-%d").to_string()
}

/// Random bytes from the kernel.
pub fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut bytes = [0; N];
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate takes randomness")]
    getrandom::fill(&mut bytes).map_err(|_| std::io::Error::other("the kernel gives no random bytes"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_ahead_is_of_unknown_age_and_late() {
        assert_eq!(age_ms(1_000, 61_000), Some(60_000));
        assert_eq!(age_ms(61_000, 1_000), Some(0), "two clocks are never quite the same");
        assert_eq!(age_ms(400 * 86_400_000, 1_000), None);
        assert!(is_late(400 * 86_400_000, 1_000, 900_000));
        assert!(is_late(0, 900_001, 900_000) && !is_late(0, 900_000, 900_000));
    }
}
