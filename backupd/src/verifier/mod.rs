//! `backupd verifier`: restores, drills, signs. It holds the read key; it writes nothing to a store but its log.

mod answer;
mod compare;
mod deletions;
mod drill;
mod evidence;
mod heads;
mod lend;
mod names;
mod probe;
mod read;
mod sandbox;
mod verify;

pub use drill::{is_nothing_sealed, is_source_damaged};
pub use read::{choose, row as snapshot_row};
pub use verify::row as verify_row;

use crate::clock;
use crate::jobs::Jobs;
use crate::listen;
use crate::lock::StateLock;
use crate::offload::offload;
use crate::progress::Activity;
use crate::reload::Reloaded;
use crate::reports::Reports;
use crate::settings::VerifierSettings;
use crate::stores;
use anyhow::Context;
use backup_engine::{Env, NamedStore, OpenKey};
use backup_report::{OpaqueId, Origin, ReportSigner};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const OPEN_CREDENTIAL: &str = "open";
const REPORT_CREDENTIAL: &str = "report";
pub const DRILL_JOB: &str = "drill";
/// The longest sleep of the job loop: a clock that is set must be noticed.
const NAP_MS_MAX: i64 = 5_000;

/// The running daemon.
pub struct Verifier {
    pub settings: VerifierSettings,
    env: Env,
    open: Reloaded<OpenKey>,
    stores: Vec<NamedStore>,
    jobs: Mutex<Jobs>,
    reports: Reports,
    repository: OpaqueId,
    /// Held by drill, restore and verify: they exclude each other, so that a drill's times mean something.
    sandbox: tokio::sync::Mutex<()>,
    /// Stores that were found whole after a drill had failed: they are proved next, out of turn.
    healed: Mutex<BTreeSet<String>>,
    /// Stores that were found damaged: `serve` is asked to heal them, and they are verified again.
    damaged: Mutex<BTreeSet<String>>,
    pub activity: Activity,
    pub stop: CancellationToken,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: VerifierSettings) -> anyhow::Result<()> {
    let _lock = StateLock::take(&settings.state_dir)?;
    let verifier = Arc::new(Verifier::open(settings)?);
    sandbox::remove_leftovers(&verifier.settings.sandbox_dir)?;
    lend::remove_leftovers(&verifier.settings.state_dir).context("lent records cannot be removed")?;
    let listeners = listen::bind(&verifier.settings.socket, verifier.settings.tls.as_ref()).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        tasks.spawn(answer::serve(verifier.clone(), listener));
    }
    let jobs = offload({
        let verifier = verifier.clone();
        move || run_jobs(verifier)
    });
    service::ready();
    service::spawn_watchdog();
    log::info!(host = verifier.settings.host.as_str(), stores = verifier.stores.len(); "ready");
    service::shutdown().await;
    service::stopping();
    log::info!("stopping");
    verifier.stop.cancel();
    let _ = jobs.await;
    tasks.shutdown().await;
    sandbox::remove_leftovers(&verifier.settings.sandbox_dir)
}

async fn run_jobs(verifier: Arc<Verifier>) {
    if let Err(error) = verifier.jobs().register(DRILL_JOB, clock::unix_ms()) {
        log::error!(reason:% = error; "jobs.not-recorded");
    }
    loop {
        let now = clock::unix_ms();
        let due = verifier.next_drill_ms(now);
        let damaged = verifier.damaged().pop_first();
        if let Some(store) = damaged {
            tokio::select! {
                () = verifier.stop.cancelled() => return,
                () = verifier.have_healed(&store) => {}
            }
            continue;
        }
        let healed = verifier.healed().pop_first();
        if healed.is_some() || due.is_some_and(|at| at <= now) {
            tokio::select! {
                () = verifier.stop.cancelled() => return,
                result = verifier.drill(healed.as_deref()) => {
                    if let Err(failure) = result {
                        log::error!(reason = failure.message.as_str(); "drill.not-run");
                    }
                }
            }
            continue;
        }
        let wait_ms = due.map_or(NAP_MS_MAX, |at| at.saturating_sub(now).min(NAP_MS_MAX));
        tokio::select! {
            () = verifier.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())) => {}
        }
    }
}

impl Verifier {
    fn open(settings: VerifierSettings) -> anyhow::Result<Self> {
        let file = settings.file.display().to_string();
        let open = Reloaded::<OpenKey>::open(settings.open_key.as_deref(), OPEN_CREDENTIAL)
            .with_context(|| format!("{file}: `open_key`"))?;
        let signer = crate::secret::load(settings.report_key.as_deref(), REPORT_CREDENTIAL)
            .with_context(|| format!("{file}: `report_key`"))?;
        let signer = ReportSigner::from_key_file(&signer).with_context(|| format!("{file}: `report_key`"))?;
        let stores = stores::open_all(&settings.stores)?;
        let repository = OpaqueId::parse(&open.current().repository().to_string())?;
        Ok(Self {
            reports: Reports::new(&settings.state_dir, Origin::of_repository(&repository), signer, stores.clone()),
            stores,
            jobs: Mutex::new(Jobs::open(&settings.state_dir).context("the jobs' history cannot be opened")?),
            repository,
            sandbox: tokio::sync::Mutex::new(()),
            healed: Mutex::default(),
            damaged: Mutex::default(),
            activity: Activity::default(),
            stop: CancellationToken::new(),
            env: Env::real(),
            open,
            settings,
        })
    }

    /// The read key: a replaced file is taken at the next request.
    fn open_key(&self) -> Arc<OpenKey> {
        self.open.current()
    }

    fn healed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.healed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.damaged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn next_drill_ms(&self, now: i64) -> Option<i64> {
        self.jobs().due_ms(DRILL_JOB, &self.settings.drill, now).ok().flatten()
    }

    fn store(&self, name: &str) -> Option<&NamedStore> {
        self.stores.iter().find(|s| s.name == name)
    }
}
