//! The only door to wall time and randomness in this crate.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

/// Wall time in Unix milliseconds: the machine's, or one that a test sets.
#[derive(Clone, Debug)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    pub fn system() -> Clock {
        Clock(None)
    }

    /// A clock that stands still until [`Clock::set`].
    pub fn manual(unix_ms: i64) -> Clock {
        Clock(Some(Arc::new(AtomicI64::new(unix_ms))))
    }

    pub fn unix_ms(&self) -> i64 {
        self.0.as_ref().map_or_else(system_unix_ms, |set| set.load(Ordering::SeqCst))
    }

    /// Sets a manual clock; the system's clock is never changed.
    pub fn set(&self, unix_ms: i64) {
        if let Some(set) = &self.0 {
            set.store(unix_ms, Ordering::SeqCst);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the door itself")]
fn system_unix_ms() -> i64 {
    chrono::Utc::now().timestamp_millis()
}

/// A point on the monotonic clock, to measure how long something took.
#[expect(clippy::disallowed_methods, reason = "the door itself")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// Waits, where no condition says that something is over: another process knows none of this one.
#[expect(clippy::disallowed_methods, reason = "the door itself")]
pub fn wait(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Bytes from the operating system's random generator.
#[expect(clippy::disallowed_methods, reason = "the door itself")]
pub fn random<const N: usize>() -> Result<[u8; N], std::io::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| std::io::Error::other("no randomness"))?;
    Ok(bytes)
}

/// A random logical id of a resource: a version 4 UUID.
pub fn new_id() -> Result<String, std::io::Error> {
    Ok(uuid::Builder::from_random_bytes(random()?).into_uuid().to_string())
}

/// Unix milliseconds as a FHIR instant in UTC, `2024-05-06T07:08:09.010Z`.
pub fn instant(unix_ms: i64) -> String {
    chrono::DateTime::from_timestamp_millis(unix_ms)
        .unwrap_or(chrono::DateTime::UNIX_EPOCH)
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}
