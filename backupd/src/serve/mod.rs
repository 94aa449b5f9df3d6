//! `backupd serve`: takes snapshots, sends them to every store, knows how each store stands. It holds no read key.

mod alerts;
mod answer;
mod captures;
mod chains;
mod duties;
mod gaps;
mod health;
mod kept;
mod proofs;
mod protect;
mod remember;
mod schedule;
mod scrub;
mod set_back;
mod snapshot;
mod spool;
mod view;
mod waits;

pub use proofs::drill_verdict;

use crate::clock;
use crate::jobs::Jobs;
use crate::listen;
use crate::lock::StateLock;
use crate::offload::offload;
use crate::progress::Activity;
use crate::reload::Reloaded;
use crate::settings::ServeSettings;
use crate::stores;
use anyhow::Context;
use backup_engine::{Env, KnownHeads, NamedStore, Spool, Stop, WriterCredential};
use backup_report::PublicKey;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use view::{Looks, View};

/// The systemd credential with the writer's keys.
const WRITER_CREDENTIAL: &str = "writer";

/// The running daemon.
pub struct Daemon {
    pub settings: ServeSettings,
    env: Env,
    writer: Reloaded<WriterCredential>,
    stores: Vec<NamedStore>,
    spool: Option<Spool>,
    jobs: Mutex<Jobs>,
    view: Mutex<View>,
    /// Which look at the stores is the newest.
    looks: Mutex<Looks>,
    /// Heads read before: each look reads what is new.
    known: KnownHeads,
    report_key: Option<PublicKey>,
    /// Held by whatever writes through the engine: snapshot, catch-up and the notes of a scrub exclude each other.
    engine: tokio::sync::Mutex<()>,
    /// Ends the catch-up under way.
    catching_up: Mutex<Stop>,
    pub activity: Activity,
    started_unix_ms: i64,
    pub stop: CancellationToken,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: ServeSettings) -> anyhow::Result<()> {
    let _lock = StateLock::take(&settings.state_dir)?;
    let daemon = Arc::new(Daemon::open(settings)?);
    let listeners = listen::bind(&daemon.settings.socket, daemon.settings.tls.as_ref()).await?;
    let health = daemon.settings.health_socket.as_deref().map(health::bind).transpose()?;
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        tasks.spawn(answer::serve(daemon.clone(), listener));
    }
    if let Some(listener) = health {
        tasks.spawn(health::serve(daemon.clone(), listener));
    }
    let looking = offload({
        let daemon = daemon.clone();
        move || schedule::look_around(daemon)
    });
    let proofs = offload({
        let daemon = daemon.clone();
        move || schedule::look_for_proofs(daemon)
    });
    let jobs = offload({
        let daemon = daemon.clone();
        move || schedule::run_snapshots(daemon)
    });
    let scrubs = offload({
        let daemon = daemon.clone();
        move || schedule::run_scrubs(daemon)
    });
    service::ready();
    service::spawn_watchdog();
    log::info!(stores = daemon.stores.len(), sources = daemon.settings.sources.len(); "ready");
    service::shutdown().await;
    service::stopping();
    log::info!("stopping");
    daemon.stop.cancel();
    // Whatever uses the engine sees `stop` and drops its work: a repository is whole at every moment.
    let _ = tokio::join!(looking, proofs, jobs, scrubs);
    tasks.shutdown().await;
    if let Some(path) = &daemon.settings.health_socket {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

impl Daemon {
    fn open(settings: ServeSettings) -> anyhow::Result<Self> {
        let writer = Reloaded::open(settings.writer_credential.as_deref(), WRITER_CREDENTIAL)
            .with_context(|| format!("{}: `writer_credential`", settings.file.display()))?;
        let report_key = match &settings.report_key {
            None => None,
            Some(path) => {
                let pem =
                    std::fs::read(path).with_context(|| format!("`report_key` {} cannot be read", path.display()))?;
                Some(PublicKey::from_pem(&pem).with_context(|| format!("`report_key` {}", path.display()))?)
            }
        };
        let stores = stores::open_all(&settings.stores)?;
        let spool = settings.spool.as_ref().map(spool::open).transpose()?;
        let jobs = Jobs::open(&settings.state_dir).context("the jobs' history cannot be opened")?;
        let daemon = Self {
            env: Env::real(),
            writer,
            stores,
            spool,
            jobs: Mutex::new(jobs),
            view: Mutex::new(View::default()),
            looks: Mutex::default(),
            known: KnownHeads::default(),
            report_key,
            engine: tokio::sync::Mutex::new(()),
            catching_up: Mutex::default(),
            activity: Activity::default(),
            started_unix_ms: clock::unix_ms(),
            stop: CancellationToken::new(),
            settings,
        };
        daemon.recall_scrubs();
        daemon.recall_captures();
        daemon.read_losses();
        daemon.read_damage();
        daemon.read_set_back();
        daemon.read_chains();
        daemon.recall_stores();
        daemon.recall_spool();
        daemon.recall_waits();
        Ok(daemon)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The writer's keys: a replaced file is taken at once, so at the next snapshot.
    fn writer(&self) -> Arc<WriterCredential> {
        self.writer.current()
    }

    fn catching_up(&self) -> MutexGuard<'_, Stop> {
        self.catching_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Held before the view.
    fn looks(&self) -> MutexGuard<'_, Looks> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn engine_state(&self) -> std::path::PathBuf {
        self.settings.state_dir.join("engine")
    }
}
