//! Ctrl-C and SIGTERM: what runs ends cleanly, and says what is left to do.

use super::bars::Bars;
use backup_engine::{ErrorKind, Stop};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The person, or the system, ended it.
#[derive(Debug, thiserror::Error)]
#[error("stopped: {left}")]
pub struct Stopped {
    pub left: &'static str,
    pub exit_code: u8,
}

/// 128 and the signal's number, as a shell tells it.
const EXIT_INTERRUPTED: u8 = 130;
const EXIT_TERMINATED: u8 = 143;

/// Listens for both signals from the moment it is made.
pub struct Signals {
    /// The exit code of each signal so far, the last one.
    signals: watch::Receiver<(u32, u8)>,
    /// What runs ends by itself after the first signal.
    gentle: AtomicBool,
}

impl Signals {
    pub fn listen() -> std::io::Result<Self> {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (send, signals) = watch::channel((0, 0));
        tokio::spawn(async move {
            loop {
                let exit_code = tokio::select! {
                    _ = interrupt.recv() => EXIT_INTERRUPTED,
                    _ = terminate.recv() => EXIT_TERMINATED,
                };
                send.send_modify(|(count, last)| (*count, *last) = (*count + 1, exit_code));
            }
        });
        Ok(Self { signals, gentle: AtomicBool::new(false) })
    }

    /// Waits for the `count`th signal and tells its exit code.
    async fn signal(&self, count: u32) -> u8 {
        let mut signals = self.signals.clone();
        match signals.wait_for(|(so_far, _)| *so_far >= count).await {
            Ok(state) => state.1,
            // The listening task lives as long as the runtime.
            Err(_) => std::future::pending().await,
        }
    }

    /// Waits for the first signal.
    pub async fn first(&self) -> u8 {
        self.signal(1).await
    }

    /// Runs `work` until a signal comes: the first one, or the second for work that ends by itself.
    pub async fn run<T>(&self, work: impl Future<Output = anyhow::Result<T>>, left: &'static str) -> anyhow::Result<T> {
        tokio::pin!(work);
        let exit_code = tokio::select! {
            result = &mut work => return result,
            exit_code = self.first() => exit_code,
        };
        let stopped = || anyhow::Error::from(Stopped { left, exit_code });
        if !self.gentle.load(Ordering::SeqCst) {
            return Err(stopped());
        }
        tokio::select! {
            result = &mut work => result.map_err(|error| match error.downcast_ref::<backup_engine::Error>() {
                Some(told) if told.kind() == ErrorKind::Stopped => stopped(),
                _ => error,
            }),
            _ = self.signal(2) => Err(stopped()),
        }
    }

    /// From here on the work looks at the first signal itself.
    pub fn handled_here(&self) {
        self.gentle.store(true, Ordering::SeqCst);
    }

    /// Work that ends by itself when it is told to: a first signal is passed on, a second one ends it.
    pub async fn gently<T>(&self, bars: &Bars, stop: &Stop, work: impl Future<Output = T>) -> T {
        self.gentle.store(true, Ordering::SeqCst);
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => return result,
            _ = self.first() => {}
        }
        stop.stop();
        bars.say("stopping: what is stored so far is being recorded; once more stops at once");
        work.await
    }
}
