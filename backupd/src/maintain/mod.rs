//! `backupd maintain`: looks for damage in the stores and heals it. It holds no key of the repository; its store credentials
//! may put a new version of an object, which those of serve and verifier may not.

mod answer;
mod locks;
mod records;
mod run;

use crate::clock;
use crate::jobs::Jobs;
use crate::listen;
use crate::lock::StateLock;
use crate::offload::offload;
use crate::progress::Activity;
use crate::settings::MaintainSettings;
use crate::stores;
use anyhow::Context;
use backup_engine::{Env, NamedMaintenanceStore, Stop};
use records::Records;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub const MAINTAIN_JOB: &str = "maintain";
/// The longest sleep of the job loop: a clock that is set must be noticed.
const NAP_MS_MAX: i64 = 5_000;

/// The running daemon.
pub struct Maintain {
    pub settings: MaintainSettings,
    env: Env,
    stores: Vec<NamedMaintenanceStore>,
    jobs: Mutex<Jobs>,
    records: Records,
    short_locks: Mutex<locks::ShortLocks>,
    /// Held by a run: there is one at a time.
    work: tokio::sync::Mutex<()>,
    activity: Activity,
    pub stop: CancellationToken,
    /// The same wish for the engine.
    engine_stop: Stop,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(settings: MaintainSettings) -> anyhow::Result<()> {
    let _lock = StateLock::take(&settings.state_dir)?;
    let maintain = Arc::new(Maintain::open(settings)?);
    let listeners = listen::bind(&maintain.settings.socket, maintain.settings.tls.as_ref()).await?;
    let mut tasks = tokio::task::JoinSet::new();
    for listener in listeners {
        tasks.spawn(answer::serve(maintain.clone(), listener));
    }
    let jobs = offload({
        let maintain = maintain.clone();
        move || run_jobs(maintain)
    });
    service::ready();
    service::spawn_watchdog();
    log::info!(practice = maintain.settings.practice.as_str(), stores = maintain.stores.len(); "ready");
    service::shutdown().await;
    service::stopping();
    log::info!("stopping");
    maintain.engine_stop.stop();
    maintain.stop.cancel();
    let _ = jobs.await;
    tasks.shutdown().await;
    Ok(())
}

async fn run_jobs(maintain: Arc<Maintain>) {
    if let Err(error) = maintain.jobs().register(MAINTAIN_JOB, clock::unix_ms()) {
        log::error!(reason:% = error; "jobs.not-recorded");
    }
    loop {
        let now = clock::unix_ms();
        let due = maintain.next_ms(now);
        if due.is_some_and(|at| at <= now) {
            tokio::select! {
                () = maintain.stop.cancelled() => return,
                result = maintain.look_and_heal(None, false) => {
                    if let Err(failure) = result {
                        log::error!(reason = failure.message.as_str(); "maintain.not-run");
                    }
                }
            }
            continue;
        }
        let wait_ms = due.map_or(NAP_MS_MAX, |at| at.saturating_sub(now).min(NAP_MS_MAX));
        tokio::select! {
            () = maintain.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())) => {}
        }
    }
}

impl Maintain {
    fn open(settings: MaintainSettings) -> anyhow::Result<Self> {
        Ok(Self {
            stores: stores::open_all_for_maintenance(&settings.stores)?,
            jobs: Mutex::new(Jobs::open(&settings.state_dir).context("the jobs' history cannot be opened")?),
            records: Records::open(&settings.state_dir).context("the record of what was healed cannot be opened")?,
            short_locks: Mutex::default(),
            work: tokio::sync::Mutex::new(()),
            activity: Activity::default(),
            stop: CancellationToken::new(),
            engine_stop: Stop::default(),
            env: Env::real(),
            settings,
        })
    }

    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_ms(&self, now: i64) -> Option<i64> {
        self.jobs().due_ms(MAINTAIN_JOB, &self.settings.schedule, now).ok().flatten()
    }
}
