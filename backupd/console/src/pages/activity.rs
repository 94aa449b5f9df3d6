//! What runs now and what people started lately.

use crate::app::App;
use crate::daemons::Picture;
use crate::jobs::{Job, JobKind, JobState};
use crate::pages::layout::Column::Text;
use crate::pages::layout::{Mood, badge, columns, sentence, when, when_or};
use crate::words::{bytes, count, duration, moment, short_id, span};
use backupd_api::{DrillVerdict, Phase, Progress, Running, ScheduledJob, SnapshotDone, StoreRole};
use maud::{Markup, html};

/// Shown for this long after a job has ended.
const SHOWN_MS: i64 = 30 * 60_000;

/// Whether something runs, so that the page refreshes faster.
pub fn busy(app: &App, picture: &Picture) -> bool {
    app.jobs.list().iter().any(Job::running) || running(picture).next().is_some()
}

fn running(picture: &Picture) -> impl Iterator<Item = &Running> {
    let serve = picture.serve.value().filter(|_| picture.serve.silent.is_none());
    let verifier = picture.verifier.value().filter(|_| picture.verifier.silent.is_none());
    let serve = serve.and_then(|view| view.status.running.as_ref());
    serve.into_iter().chain(verifier.and_then(|view| view.status.running.as_ref()))
}

pub fn block(app: &App, picture: &Picture) -> Markup {
    let jobs: Vec<Job> = app
        .jobs
        .list()
        .into_iter()
        .filter(|job| job.ended_ms().is_none_or(|ended| app.now_ms() - ended < SHOWN_MS))
        .take(4)
        .collect();
    let ours = jobs.iter().any(Job::running);
    let next = picture.serve.value().and_then(|view| view.status.next_snapshot_unix_ms);
    let listed = picture.serve.value().is_some_and(|view| !view.jobs.is_empty());
    let next_drill = picture.verifier.value().and_then(|view| view.status.next_drill_unix_ms);
    let paused = picture.serve.value().and_then(|view| view.status.paused.clone());
    html! {
        @if let Some(paused) = paused {
            div.notice.bad role="alert" { p { strong { "Backups wait." } " " (sentence(&paused)) } }
        }
        @for job in &jobs { (one(app, job)) }
        // Started by the schedule or the command line: what the console started is shown above.
        @if !ours {
            @for running in running(picture) {
                div.job role="status" {
                    p {
                        (badge(Mood::Plain, "Running")) " " strong { (sentence(&running.what)) } " Since "
                        (when(app, running.since_unix_ms)) "."
                    }
                    (bar(running.progress.as_ref()))
                }
            }
        }
        @if let Some(view) = picture.serve.value() { (schedule(app, &view.jobs)) }
        p.small {
            @match next {
                Some(at) if !listed => { "Next backup by schedule: " (upcoming(app, at)) ". " }
                None if !listed => { "No backup is scheduled. " }
                _ => {}
            }
            @match next_drill {
                Some(at) => { "Next drill by schedule: " (upcoming(app, at)) "." }
                None => { "No drill is scheduled." }
            }
        }
    }
}

/// The last job of a kind, while it is worth a word.
pub fn of_kind(app: &App, kind: JobKind) -> Markup {
    let recent = |job: &Job| job.ended_ms().is_none_or(|ended| app.now_ms() - ended < SHOWN_MS);
    let last = app.jobs.list().into_iter().find(|job| job.kind == kind).filter(recent);
    html! { @if let Some(job) = last { (one(app, &job)) } }
}

fn schedule(app: &App, jobs: &[ScheduledJob]) -> Markup {
    html! {
        @if !jobs.is_empty() {
            table.tight {
                (columns(&[Text("By schedule"), Text("Last run"), Text("Next run")]))
                tbody { @for job in jobs {
                    tr {
                        td { (job.name) br; span.small { code { (job.cron) } " " (job.zone) } }
                        td {
                            @match (job.last_ok, job.last_unix_ms) {
                                (Some(true), _) => { (badge(Mood::Good, "Done")) " " }
                                (Some(false), _) => { (badge(Mood::Bad, "Did not work")) " " }
                                (None, _) => {}
                            }
                            (when_or(app, job.last_unix_ms, "not yet"))
                        }
                        td { @match job.next_unix_ms { Some(at) => { (upcoming(app, at)) }, None => "–" } }
                    }
                } }
            }
        }
    }
}

fn upcoming(app: &App, at_ms: i64) -> Markup {
    let ahead = at_ms - app.now_ms();
    let text = if ahead <= 0 { "due now".to_owned() } else { format!("in {}", span(ahead)) };
    html! { time title=(moment(at_ms, app.settings.time_zone)) { (text) } }
}

fn one(app: &App, job: &Job) -> Markup {
    let name = match (job.kind, &job.store) {
        (JobKind::Backup, _) => "Backup".to_owned(),
        (JobKind::Drill, Some(store)) => format!("Restore drill from {store}"),
        (JobKind::Drill, None) => "Restore drill from the store whose turn it is".to_owned(),
        (JobKind::Plan, _) => "Deletion plan".to_owned(),
    };
    html! {
        div.job role="status" {
            @match &job.state {
                JobState::Running(progress) => {
                    p {
                        (badge(Mood::Plain, "Running")) " " strong { (name) } ", started by " (job.started_by) " "
                        (when(app, job.started_ms))
                    }
                    (bar(progress.as_ref()))
                }
                JobState::Failed(at, reason) => {
                    p {
                        (badge(Mood::Bad, "Did not work")) " " strong { (name) } ", started by " (job.started_by)
                        ", ended " (when(app, *at))
                    }
                    p { (sentence(reason)) }
                }
                JobState::Planned(at, going) => {
                    p {
                        (badge(Mood::Good, "Done")) " " strong { (name) } ", started by " (job.started_by) ", ended "
                        (when(app, *at)) ": " (count(*going, "snapshot", "snapshots")) " would go. "
                        a href="/deletions" { "Look at it" }
                    }
                }
                JobState::Backup(at, done) => { (backup(app, job, *at, done)) }
                JobState::Drill(at, done) => {
                    @let (mood, word) = verdict(done.verdict);
                    p {
                        (badge(mood, word)) " " strong { "Restore drill from " (done.store) } ", started by "
                        (job.started_by) ", ended " (when(app, *at))
                    }
                    p {
                        (bytes(done.bytes)) " restored in " (duration(done.restore_ms)) "; "
                        (done.facts_equal) " of " (done.facts_compared) " facts and " (done.golden_equal) " of "
                        (done.golden_compared) " answers equal. "
                        @for check in &done.not_passed { "Not passed: " (check) ". " }
                        a href={ "/reports/" (done.report_id) } { "Open the signed report" }
                    }
                }
            }
        }
    }
}

fn backup(app: &App, job: &Job, at_ms: i64, done: &SnapshotDone) -> Markup {
    let durable = done.stores.iter().filter(|store| store.durable).count() as u64;
    let good = durable > 0 && !done.partial && done.stores.iter().all(|store| store.durable);
    html! {
        p {
            @if good { (badge(Mood::Good, "Done")) } @else { (badge(Mood::Warn, "Done, with gaps")) }
            " " strong { "Backup " (done.counter) } ", started by " (job.started_by) ", ended " (when(app, at_ms))
        }
        p {
            (count(done.files, "file", "files")) ", " (bytes(done.bytes_source)) "; " (bytes(done.bytes_added))
            " new to each store. "
            "Complete at " (durable) " of " (done.stores.len()) " stores after " (duration(done.duration_ms)) ". "
            "The EMR waited " (duration(done.write_stall_us / 1000)) " for writing."
            @if done.partial { " Some files could not be read: this backup is incomplete." }
        }
        @for store in done.stores.iter().filter(|store| !store.durable) {
            p.small {
                strong { (store.store) } ": " (sentence(store.error.as_deref().unwrap_or("not complete there yet")))
            }
        }
    }
}

fn bar(progress: Option<&Progress>) -> Markup {
    let Some(progress) = progress else { return html! { p.small { "Waiting for its turn…" } } };
    let done = progress.done_bytes;
    html! {
        @match progress.total_bytes.filter(|total| *total > 0) {
            Some(total) => { progress max=(total) value=(done.min(total)) { (done * 100 / total) " %" } }
            None => { progress {} }
        }
        p.small {
            (phase(progress.phase))
            @if let Some(store) = &progress.store { " · " (store) }
            @if done > 0 { " · " (bytes(done)) }
            @if let Some(total) = progress.total_bytes { " of " (bytes(total)) }
        }
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Quiesce => "Asking the EMR for a consistent point",
        Phase::Read => "Reading what changed",
        Phase::Send => "Sending sealed data to the stores",
        Phase::Commit => "Committing the snapshot",
        Phase::Fetch => "Fetching from the store",
        Phase::Start => "Starting the EMR on the restored data",
        Phase::Compare => "Comparing facts and answers",
        Phase::Sign => "Signing the report",
    }
}

pub fn verdict(verdict: DrillVerdict) -> (Mood, &'static str) {
    match verdict {
        DrillVerdict::Pass => (Mood::Good, "Pass"),
        DrillVerdict::Fail => (Mood::Bad, "Fail"),
        DrillVerdict::Inconclusive => (Mood::Warn, "Inconclusive"),
    }
}

pub fn role(role: StoreRole) -> &'static str {
    match role {
        StoreRole::Quorum => "counts",
        StoreRole::Copy => "further copy",
        StoreRole::Convenience => "convenience only",
    }
}

pub fn id(id: &str) -> Markup {
    html! { code title=(id) { (short_id(id)) } }
}
