//! The times of a drill, from which a report's RTO and RPO follow.

use backup_engine::Env;
use backup_report::{Canary, Timing};

/// A drill under way. The wall clock is read once, when the loss is declared; from there on a steady clock counts, so that a
/// clock that is set in the middle changes no figure.
pub struct Course {
    env: Env,
    steady_ms: u64,
    declared_unix_ms: i64,
}

impl Course {
    /// Everything is lost from now on.
    pub fn declare(env: &Env) -> Self {
        Self { env: env.clone(), steady_ms: env.steady_ms(), declared_unix_ms: env.now_unix_ms() }
    }

    pub fn declared_unix_ms(&self) -> i64 {
        self.declared_unix_ms
    }

    /// Milliseconds of this moment on the drill's own clock.
    pub fn now(&self) -> i64 {
        let elapsed = self.env.steady_ms().saturating_sub(self.steady_ms);
        self.declared_unix_ms.saturating_add(i64::try_from(elapsed).unwrap_or(i64::MAX))
    }

    /// The times of a drill in which nothing was reached yet.
    pub fn timing(&self) -> Timing {
        Timing {
            declared_unix_ms: self.declared_unix_ms,
            restore_started_unix_ms: None,
            data_done_unix_ms: None,
            service_started_unix_ms: None,
            first_golden_unix_ms: None,
            ended_unix_ms: self.declared_unix_ms,
        }
    }
}

/// The newest canary of restored records, as they tell it; none was ever written where its number is 0.
pub fn canary(sequence: u64, written_unix_ms: i64) -> Option<Canary> {
    (sequence > 0).then_some(Canary { sequence, written_unix_ms })
}
