//! Time: the console's only door to it, so that tests can set the clock.

/// Where Unix milliseconds come from.
#[derive(Debug, Clone)]
pub enum Clock {
    Real,
    /// Set by a test.
    #[cfg(test)]
    Set(std::sync::Arc<std::sync::atomic::AtomicI64>),
}

impl Clock {
    pub fn now_ms(&self) -> i64 {
        match self {
            Self::Real => real_ms(),
            #[cfg(test)]
            Self::Set(ms) => ms.load(std::sync::atomic::Ordering::SeqCst),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
fn real_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
