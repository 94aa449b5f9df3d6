//! When the console cannot write its database, on a full disk for example, no alert is opened or sent any more. That itself is
//! told, from memory, through every channel.

use crate::alerts::deliver::Sender;
use crate::alerts::state::{AlertRow, CONSOLE, What};
use backupd_api::{AlertKind, Severity};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Since when the alerts of a source cannot be written. Where nothing changes nothing is written: that another source's look went
/// well says nothing.
#[derive(Default)]
pub struct Unwritten(Mutex<BTreeMap<String, i64>>);

impl Unwritten {
    pub fn note<T, E>(&self, now_ms: i64, source: &str, written: &Result<T, E>) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match written {
            Ok(_) => _ = since.remove(source),
            Err(_) => _ = since.entry(source.to_owned()).or_insert(now_ms),
        }
    }

    fn since(&self) -> Option<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied()
    }
}

/// What one channel was told of it: nothing of this can be written down either.
#[derive(Default)]
pub struct Told {
    /// Since when it was so, as it was told, and when that was.
    told: Option<(i64, i64)>,
    tried_ms: Option<i64>,
}

const RETRY_MS: i64 = 15_000;

impl Told {
    /// Tells what is to be told now, if anything.
    pub async fn keep_up(&mut self, unwritten: &Unwritten, sender: &Sender, now_ms: i64, repeat_ms: i64) {
        let waits = self.tried_ms.is_some_and(|tried| (0..RETRY_MS).contains(&(now_ms - tried)));
        let Some((since_ms, what)) = self.due(unwritten.since(), now_ms, repeat_ms).filter(|_| !waits) else { return };
        let closed_ms = (what == What::Closed).then_some(now_ms);
        match sender.tell(-now_ms, now_ms, &row(since_ms, now_ms, closed_ms), what).await {
            Ok(()) => {
                self.told = (what != What::Closed).then_some((since_ms, now_ms));
                self.tried_ms = None;
            }
            Err(reason) => {
                log::warn!(reason = reason.as_str(); "alert.send-failed");
                self.tried_ms = Some(now_ms);
            }
        }
    }

    fn due(&self, since: Option<i64>, now_ms: i64, repeat_ms: i64) -> Option<(i64, What)> {
        match (since, self.told) {
            (Some(since), None) => Some((since, What::Opened)),
            (Some(_), Some((since, told))) => (now_ms - told >= repeat_ms).then_some((since, What::Repeated)),
            (None, Some((since, _))) => Some((since, What::Closed)),
            (None, None) => None,
        }
    }
}

/// It has no number, since no database knows it.
fn row(since_ms: i64, now_ms: i64, closed_ms: Option<i64>) -> AlertRow {
    AlertRow {
        id: 0,
        source: CONSOLE.to_owned(),
        kind: AlertKind::ConsoleUnwritable,
        severity: Severity::Critical,
        subject: CONSOLE.to_owned(),
        since_ms,
        opened_ms: since_ms,
        sent_ms: now_ms,
        repeats: 0,
        acknowledged_ms: None,
        acknowledged_by: None,
        closed_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_told_once_and_again_after_a_while_and_when_it_is_over() {
        let (unwritten, mut told) = (Unwritten::default(), Told::default());
        assert_eq!(told.due(unwritten.since(), 0, 100), None);
        unwritten.note(5, "serve", &Err::<(), _>(()));
        unwritten.note(6, "serve", &Err::<(), _>(()));
        unwritten.note(6, "verifier", &Ok::<_, ()>(()));
        assert_eq!(told.due(unwritten.since(), 6, 100), Some((5, What::Opened)));
        told.told = Some((5, 6));
        assert_eq!(told.due(unwritten.since(), 105, 100), None);
        assert_eq!(told.due(unwritten.since(), 106, 100), Some((5, What::Repeated)));
        unwritten.note(107, "serve", &Ok::<_, ()>(()));
        assert_eq!(told.due(unwritten.since(), 107, 100), Some((5, What::Closed)));
    }
}
