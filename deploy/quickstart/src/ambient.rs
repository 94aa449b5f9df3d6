//! The one door to clock and randomness of this program.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "this module is the door")]
pub fn now() -> SystemTime {
    SystemTime::now()
}

#[expect(clippy::disallowed_methods, reason = "this module is the door")]
pub fn instant() -> Instant {
    Instant::now()
}

/// Seconds since 1970.
pub fn unix_s() -> u64 {
    now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs())
}

/// Fills `bytes` from the kernel's generator.
#[expect(clippy::disallowed_methods, reason = "this module is the door")]
pub fn random(bytes: &mut [u8]) -> anyhow::Result<()> {
    getrandom::fill(bytes).map_err(|error| anyhow::anyhow!("the kernel gives no random bytes: {error}"))
}
