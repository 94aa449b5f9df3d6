//! `backupd maintain`: looks for damage in the stores and heals it, extends locks, and carries out deletion plans that two
//! persons approved. Its store credentials may put a new version of an object, which those of serve and verifier may not.
//! Only where it prunes does it read keys of the repository, for each step anew.

mod answer;
mod gaps;
mod healed;
mod locks;
mod prune;
mod records;
mod returned;
mod run;

pub use run::is_in_order;

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
use backupd_api::{Failure, FailureKind};
use prune::{PLAN_JOB, Pruning};
use records::Records;
use returned::Returns;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub const MAINTAIN_JOB: &str = "maintain";
/// The longest sleep of the job loop: a clock that is set must be noticed.
const NAP_MS_MAX: i64 = 5_000;
const NAP_MS_MIN: i64 = 500;

/// The running daemon.
pub struct Maintain {
    pub settings: MaintainSettings,
    env: Env,
    stores: Vec<NamedMaintenanceStore>,
    jobs: Mutex<Jobs>,
    records: Records,
    short_locks: Mutex<locks::ShortLocks>,
    returns: Mutex<Returns>,
    /// `None`: nothing is ever deleted.
    pruning: Option<Pruning>,
    /// Held while the plan that is kept is read and changed: a decision need not wait for a run.
    deciding: tokio::sync::Mutex<()>,
    /// A plan was decided about: the job loop looks at once.
    wake: tokio::sync::Notify,
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
    for job in [MAINTAIN_JOB, PLAN_JOB] {
        if let Err(error) = maintain.jobs().register(job, clock::unix_ms()) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }
    loop {
        let ran = tokio::select! {
            () = maintain.stop.cancelled() => return,
            ran = maintain.run_due() => ran,
        };
        match ran {
            Some(Ok(())) => continue,
            // Somebody has asked for a run: the job waits for its end.
            Some(Err(failed)) if failed.kind == FailureKind::Busy => {}
            // Whatever it was, it is not tried again at once.
            Some(Err(failed)) => log::error!(reason = failed.message.as_str(); "maintain.not-run"),
            None => {}
        }
        let now = clock::unix_ms();
        let wait_ms =
            maintain.due_ms(now).map_or(NAP_MS_MAX, |at| at.saturating_sub(now)).clamp(NAP_MS_MIN, NAP_MS_MAX);
        tokio::select! {
            () = maintain.stop.cancelled() => return,
            () = maintain.wake.notified() => {}
            () = tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())) => {}
        }
    }
}

impl Maintain {
    fn open(settings: MaintainSettings) -> anyhow::Result<Self> {
        let file = settings.file.display().to_string();
        let pruning = settings.prune.clone().map(Pruning::open).transpose().with_context(|| file)?;
        Ok(Self {
            pruning,
            deciding: tokio::sync::Mutex::new(()),
            wake: tokio::sync::Notify::new(),
            stores: stores::open_all_for_maintenance(&settings.stores)?,
            jobs: Mutex::new(Jobs::open(&settings.state_dir).context("the jobs' history cannot be opened")?),
            records: Records::open(&settings.state_dir).context("the record of what was healed cannot be opened")?,
            short_locks: Mutex::default(),
            returns: Mutex::default(),
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

    /// When something is to be done next.
    fn due_ms(&self, now: i64) -> Option<i64> {
        [self.next_ms(now), self.next_plan_ms(now), self.next_step_ms()].into_iter().flatten().min()
    }

    /// Does one thing that is due; `None`: nothing is.
    async fn run_due(&self) -> Option<Result<(), Failure>> {
        let now = clock::unix_ms();
        let is_due = |at: Option<i64>| at.is_some_and(|at| at <= now);
        if is_due(self.next_ms(now)) {
            Some(self.look_and_heal(None, false).await.map(drop))
        } else if is_due(self.next_step_ms()) {
            Some(self.prune_step(false).await)
        } else if is_due(self.next_plan_ms(now)) {
            Some(self.make_plan(true).await)
        } else {
            self.look_at_returned().await
        }
    }
}
