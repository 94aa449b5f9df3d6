//! Everything that a request or a background task needs.

use crate::accounts::{self, AccountError, SignedIn};
use crate::alerts::deliver::Sender;
use crate::alerts::mail::Mailer;
use crate::alerts::state::{Channel, Rules};
use crate::alerts::unwritten::Unwritten;
use crate::alerts::webhook::Hook;
use crate::clock::Clock;
use crate::daemons::{Daemons, Pictures};
use crate::db::{Db, DbError};
use crate::heartbeat::Heartbeat;
use crate::jobs::Jobs;
use crate::lockout::Origin;
use crate::poll;
use crate::settings::{Settings, SettingsError};
use crate::throttle::Throttle;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Passwords hashed at once: each takes 64 MiB.
const HASHES_MAX: usize = 2;
const AGENT_TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Db(#[from] DbError),
    #[error("the console's database: {0}")]
    Sqlite(#[from] rusqlite::Error),
}

pub struct App {
    pub settings: Settings,
    pub db: Db,
    pub clock: Clock,
    pub daemons: Daemons,
    pub pictures: Pictures,
    pub jobs: Jobs,
    pub rules: Rules,
    pub unwritten: Unwritten,
    pub heartbeat: Option<Heartbeat>,
    pub agent_client: reqwest::Client,
    pub throttle: Throttle,
    hashes: Semaphore,
}

impl App {
    /// `file` is the settings' path, for errors. The senders are to be run by [`crate::alerts::deliver::run`].
    pub fn new(settings: Settings, file: &Path, clock: Clock) -> Result<(Arc<Self>, Vec<Sender>), StartError> {
        let mut senders = Vec::new();
        let console = settings.public_url.as_ref().map(ToString::to_string);
        if let Some(mail) = &settings.mail {
            senders.push(Sender::Mail(Mailer::new(mail, settings.time_zone, console, file)?));
        }
        if let Some(hook) = &settings.webhook {
            senders.push(Sender::Webhook(Hook::new(hook, file)?));
        }
        let channels = [(Channel::Mail, settings.mail.is_some()), (Channel::Webhook, settings.webhook.is_some())];
        let channels = channels.into_iter().filter_map(|(channel, set)| set.then_some(channel)).collect();
        let agent_client =
            crate::fetch::client(AGENT_TIMEOUT, settings.agents_ca.as_deref()).map_err(|e| SettingsError {
                file: file.display().to_string(),
                key: "agents_ca".into(),
                problem: e.to_string(),
                remedy: "name a PEM file with the authority's certificate".into(),
            })?;
        let agents: Vec<String> = settings.agents.iter().map(poll::agent_name).collect();
        let db = Db::open(&settings.data_dir)?;
        let rules = Rules { channels, repeat_ms: i64::from(settings.repeat_s) * 1000 };
        let maintain = settings.maintain.as_ref().map(|_| poll::MAINTAIN.to_owned());
        let daemons = ["serve".to_owned(), "verifier".to_owned()].into_iter().chain(maintain);
        let sources: Vec<String> = agents.iter().cloned().chain(daemons).collect();
        db.write_blocking(|tx| rules.retire_sources(tx, clock.now_ms(), &sources))?;
        let app = Self {
            daemons: Daemons::new(&settings, file)?,
            heartbeat: Heartbeat::new(&settings, file)?,
            pictures: Pictures::new(agents),
            jobs: Jobs::default(),
            throttle: Throttle::default(),
            hashes: Semaphore::new(HASHES_MAX),
            settings,
            db,
            clock,
            rules,
            unwritten: Unwritten::default(),
            agent_client,
        };
        Ok((Arc::new(app), senders))
    }

    pub fn now_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub fn idle_ms(&self) -> i64 {
        i64::from(self.settings.idle_s) * 1000
    }

    /// Name, password and code for a session; few at a time, away from the tasks that serve pages.
    pub async fn sign_in(
        self: &Arc<Self>,
        (address, device): (IpAddr, Option<String>),
        name: String,
        password: String,
        code: String,
    ) -> Result<SignedIn, AccountError> {
        let app = self.clone();
        let work = move || {
            let from = Origin { address, device: device.as_deref() };
            accounts::sign_in(&app.db, app.now_ms(), from, &name, &password, &code)
        };
        self.hash(work).await
    }

    pub async fn accept(
        self: &Arc<Self>,
        token: String,
        name: String,
        password: String,
        code: String,
    ) -> Result<(), AccountError> {
        let app = self.clone();
        self.hash(move || accounts::accept(&app.db, app.now_ms(), &token, &name, &password, &code)).await
    }

    async fn hash<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, AccountError> + Send + 'static,
    ) -> Result<T, AccountError> {
        // A closed semaphore or a failed task is not reachable; refusing is the safe answer to both.
        let _permit = self.hashes.acquire().await.map_err(|_| AccountError::Refused)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| AccountError::Refused)?
    }
}
