//! A call to an outside watcher after each new durable snapshot and each passed drill: when the calls stop, the watcher
//! notices, even if this building has lost its power.

use crate::app::App;
use crate::db::{remember, remembered};
use crate::settings::{Settings, SettingsError};
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_MS: i64 = 30_000;
/// So many ids that were told are remembered: when the newest snapshot loses a store, an older one is the newest durable
/// one again, and that is no news.
const TOLD_MAX: usize = 32;

pub struct Heartbeat {
    url: reqwest::Url,
    client: reqwest::Client,
    state: Mutex<HeartbeatState>,
    calling: tokio::sync::Mutex<()>,
}

/// What the alerts page shows.
#[derive(Debug, Clone, Default)]
pub struct HeartbeatState {
    pub sent: u64,
    pub failed: u64,
    pub last_sent_ms: Option<i64>,
    pub last_failed_ms: Option<i64>,
    pub last_error: Option<String>,
}

/// What is worth a beat: once for each snapshot and each report, by their ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    Durable,
    Proved,
}

impl Beat {
    fn key(self) -> &'static str {
        match self {
            Self::Durable => "heartbeat.durable",
            Self::Proved => "heartbeat.proved",
        }
    }
}

impl Heartbeat {
    pub fn new(settings: &Settings, file: &Path) -> Result<Option<Self>, SettingsError> {
        let Some(url) = settings.heartbeat_url.clone() else { return Ok(None) };
        let client = crate::fetch::client(TIMEOUT, None).map_err(|e| SettingsError {
            file: file.display().to_string(),
            key: "heartbeat_url".into(),
            problem: e.to_string(),
            remedy: "install the system's certificate authorities (package ca-certificates)".into(),
        })?;
        Ok(Some(Self { url, client, state: Mutex::default(), calling: tokio::sync::Mutex::default() }))
    }

    pub fn state(&self) -> HeartbeatState {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls when the id `news` was not told before; a failed call is made again at the next look after a pause.
    pub async fn tell(&self, app: &App, beat: Beat, news: &str) -> rusqlite::Result<()> {
        let _one_at_a_time = self.calling.lock().await;
        let before = app.db.read(|db| remembered(db, beat.key()))?.unwrap_or_default();
        let pause = self.state().last_failed_ms.is_some_and(|at| app.now_ms() - at < RETRY_MS);
        if before.split(' ').any(|told| told == news) || pause {
            return Ok(());
        }
        let result = match self.client.get(self.url.clone()).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("it answered {}", answer.status().as_u16())),
            Err(error) => Err(crate::fetch::reason(&error)),
        };
        let now_ms = app.now_ms();
        if result.is_ok() {
            let told: Vec<&str> = [news].into_iter().chain(before.split(' ')).take(TOLD_MAX).collect();
            app.db.write(|tx| remember(tx, beat.key(), &told.join(" ")))?;
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(()) => {
                state.sent += 1;
                (state.last_sent_ms, state.last_failed_ms, state.last_error) = (Some(now_ms), None, None);
            }
            Err(reason) => {
                log::warn!(reason = reason.as_str(); "heartbeat.failed");
                state.failed += 1;
                (state.last_failed_ms, state.last_error) = (Some(now_ms), Some(reason));
            }
        }
        Ok(())
    }
}
