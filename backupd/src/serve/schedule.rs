//! What runs by itself: snapshots and scrubs by their schedules, and a look at the stores every minute.

use super::Daemon;
use crate::clock;
use crate::schedule::Schedule;
use std::sync::Arc;
use std::time::Duration;

pub const SCRUB_JOB: &str = "scrub";
/// What [`crate::progress::Activity`] shows while stores are brought up to date.
pub const CATCH_UP: &str = "replicate";
/// How often the stores are looked at, and a store that came back is brought up to date.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// How often new reports are looked for: one listing a store.
const PROOFS_EVERY: Duration = Duration::from_secs(15);
/// Sizes change slowly and cost a full listing: every so many looks.
const WEIGH_EVERY: u64 = 10;
/// The longest sleep of the job loop: a clock that is set must be noticed.
const NAP_MS_MAX: i64 = 5_000;

pub fn snapshot_job(source: &str) -> String {
    format!("snapshot:{source}")
}

/// Looks at the stores at once and then every minute.
pub async fn look_around(daemon: Arc<Daemon>) {
    let mut looks = 0;
    // It needs no store: what waits is told before the first of them has answered.
    daemon.weigh_spool().await;
    loop {
        tokio::select! {
            () = daemon.stop.cancelled() => return,
            () = look(&daemon, looks) => {}
        }
        looks += 1;
        tokio::select! {
            () = daemon.stop.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

/// Looks for reports that the verifier has put into the stores.
pub async fn look_for_proofs(daemon: Arc<Daemon>) {
    let mut names_before = None;
    loop {
        tokio::select! {
            () = daemon.stop.cancelled() => return,
            () = daemon.read_proofs(&mut names_before) => {}
        }
        tokio::select! {
            () = daemon.stop.cancelled() => return,
            () = tokio::time::sleep(PROOFS_EVERY) => {}
        }
    }
}

async fn look(daemon: &Daemon, looks: u64) {
    if let Err(error) = daemon.refresh().await {
        log::warn!(reason:% = error; "stores.not-seen");
    }
    let late = daemon.view().stores.values().any(|s| s.reachable == Some(true) && s.lag_snapshots > 0);
    if (late || daemon.spool_can_go()) && daemon.catch_up().await {
        let _ = daemon.refresh().await;
    }
    daemon.look_at_kept();
    daemon.look_at_kit();
    daemon.look_at_damage().await;
    daemon.probe_stores().await;
    if looks.is_multiple_of(WEIGH_EVERY) {
        daemon.weigh_stores().await;
        daemon.look_at_kit();
    }
}

/// Takes every snapshot when it is due.
pub async fn run_snapshots(daemon: Arc<Daemon>) {
    let sources = daemon.settings.sources.iter();
    let jobs = sources.map(|source| (snapshot_job(&source.name), source.schedule.clone(), Some(source.name.clone())));
    let jobs = jobs.collect();
    run_jobs(daemon, jobs).await;
}

/// Looks through the stores when it is due: beside the snapshots, which wait for no look that takes hours.
pub async fn run_scrubs(daemon: Arc<Daemon>) {
    let jobs = vec![(SCRUB_JOB.to_owned(), daemon.settings.scrub.clone(), None)];
    run_jobs(daemon, jobs).await;
}

/// Runs every job when it is due, one after the other. A job that was missed is due at once, and only once.
async fn run_jobs(daemon: Arc<Daemon>, jobs: Vec<(String, Schedule, Option<String>)>) {
    for (name, ..) in &jobs {
        if let Err(error) = daemon.jobs().register(name, clock::unix_ms()) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
    }
    loop {
        let now = clock::unix_ms();
        let due = |job: &(String, Schedule, Option<String>)| daemon.jobs().due_ms(&job.0, &job.1, now).ok().flatten();
        let next = jobs.iter().filter_map(|job| due(job).map(|at| (at, job))).min_by_key(|(at, _)| *at);
        let wait_ms = match next {
            Some((at, (_, _, source))) if at <= now => {
                tokio::select! {
                    () = daemon.stop.cancelled() => return,
                    () = run(&daemon, source.as_deref()) => {}
                }
                continue;
            }
            Some((at, _)) => at.saturating_sub(now).min(NAP_MS_MAX),
            None => NAP_MS_MAX,
        };
        tokio::select! {
            () = daemon.stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(wait_ms.unsigned_abs())) => {}
        }
    }
}

async fn run(daemon: &Daemon, source: Option<&str>) {
    match source.and_then(|name| daemon.settings.sources.iter().find(|s| s.name == name)) {
        Some(source) => {
            if let Err(failure) = daemon.take_snapshot(source, None).await {
                log::error!(source = source.name.as_str(), reason = failure.message.as_str(); "snapshot.failed");
            }
        }
        None => daemon.scrub().await,
    }
}
