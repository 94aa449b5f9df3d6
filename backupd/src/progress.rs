//! What runs now, and how far it is: written by the engine's threads, read by every connection.

use crate::clock;
use backup_engine::ProgressEvent;
use backupd_api::{Connection, Event, PROGRESS_EVERY, Phase, Progress, Running, WireError};
use std::time::Duration;
use tokio::sync::watch;

/// A terminal does not need more reports than this a second.
const TICK: Duration = Duration::from_millis(200);

/// The one place that says what a daemon is at: of what runs at once, what was begun last.
#[derive(Default)]
pub struct Activity(watch::Sender<Vec<(u64, Running)>>);

/// Marks the daemon busy until it is dropped.
pub struct Busy<'a> {
    activity: &'a Activity,
    number: u64,
}

impl Activity {
    pub fn begin(&self, what: &str) -> Busy<'_> {
        let running = Running { what: what.to_owned(), since_unix_ms: clock::unix_ms(), progress: None };
        let mut number = 0;
        self.0.send_modify(|all| {
            number = all.last().map_or(0, |(last, _)| last + 1);
            all.push((number, running));
        });
        Busy { activity: self, number }
    }

    pub fn now(&self) -> Option<Running> {
        self.0.borrow().last().map(|(_, running)| running.clone())
    }

    pub fn set(&self, progress: Progress) {
        self.0.send_modify(|all| {
            if let Some((_, running)) = all.last_mut() {
                running.progress = Some(progress);
            }
        });
    }

    /// Enters a phase that the engine does not report itself.
    pub fn phase(&self, phase: Phase, store: Option<&str>) {
        self.set(Progress { phase, done_bytes: 0, total_bytes: None, store: store.map(str::to_owned) });
    }
}

impl backup_engine::Progress for Activity {
    fn report(&self, event: ProgressEvent<'_>) {
        let phase = match event.phase {
            backup_engine::Phase::Read => Phase::Read,
            backup_engine::Phase::Send => Phase::Send,
            backup_engine::Phase::Commit => Phase::Commit,
            backup_engine::Phase::Fetch => Phase::Fetch,
        };
        self.set(Progress {
            phase,
            done_bytes: event.done_bytes,
            total_bytes: event.total_bytes,
            store: event.store.map(str::to_owned),
        });
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.activity.0.send_modify(|all| all.retain(|(number, _)| *number != self.number));
    }
}

/// Sends progress to a client until `work` ends. The work is a task of its own: a client that goes away stops nothing.
pub async fn follow<T>(
    connection: &mut Connection,
    activity: &Activity,
    mut work: tokio::task::JoinHandle<T>,
) -> Result<Option<T>, WireError> {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut sent: Option<Progress> = None;
    let mut quiet = Duration::ZERO;
    loop {
        tokio::select! {
            done = &mut work => return Ok(done.ok()),
            _ = tick.tick() => {}
        }
        quiet += TICK;
        let progress = activity.now().and_then(|running| running.progress);
        if progress == sent && quiet < PROGRESS_EVERY {
            continue;
        }
        let waiting = Progress { phase: Phase::Quiesce, done_bytes: 0, total_bytes: None, store: None };
        connection.send(&Event::Progress(progress.clone().unwrap_or(waiting))).await?;
        (sent, quiet) = (progress, Duration::ZERO);
    }
}
