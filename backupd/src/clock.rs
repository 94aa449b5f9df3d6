//! Time, waiting and randomness of the daemon: the only door to them in this crate (the engine has its own `Env`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Unix milliseconds; 0 when the clock stands before 1970.
pub fn unix_ms() -> i64 {
    #[expect(clippy::disallowed_methods, reason = "the one place where this crate reads the wall clock")]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
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
