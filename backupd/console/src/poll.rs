//! Looks at every daemon again and again, keeps what it says, and turns what is wrong into alerts.

use crate::alerts::state::{CONSOLE, Fact, Look};
use crate::app::App;
use crate::daemons::{self, Picture, Seen, ServeView, Silence, VerifierView};
use crate::heartbeat::Beat;
use crate::words::word;
use agent_api::{HostHealth, Level};
use backupd_api::{Alert, AlertKind, DrillVerdict, Severity};
use std::sync::Arc;
use std::time::Duration;

/// A daemon that restarts misses one look; two in a row are an alert.
const SILENT_LOOKS: u32 = 2;

pub const MAINTAIN: &str = "maintain";
/// Names of agents begin with it.
const AGENT: &str = "agent-";

/// Starts one task for each daemon; they run until the process ends.
pub fn start(app: &Arc<App>) {
    tokio::spawn(every(app.clone(), |app| async move { serve(&app).await }));
    tokio::spawn(every(app.clone(), |app| async move { verifier(&app).await }));
    if app.settings.maintain.is_some() {
        tokio::spawn(every(app.clone(), |app| async move { maintain(&app).await }));
    }
    for index in 0..app.settings.agents.len() {
        tokio::spawn(every(app.clone(), move |app| async move { agent(&app, index).await }));
    }
    tokio::spawn(every(app.clone(), |app| async move { reconcile(&app, CONSOLE, &Look::Silent(&[])) }));
}

async fn every<F>(app: Arc<App>, look: impl Fn(Arc<App>) -> F)
where
    F: Future<Output = rusqlite::Result<()>>,
{
    let mut ticks = tokio::time::interval(Duration::from_secs(app.settings.poll_s.into()));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = look(app.clone()).await {
            log::error!(error:% = error; "console.database-failed");
        }
    }
}

pub async fn serve(app: &App) -> rusqlite::Result<()> {
    let answer = daemons::look_at_serve(&app.daemons).await.map_err(|e| daemons::reason(&e));
    let seen = note(app, |picture| &mut picture.serve, answer);
    let facts = seen.value().map(serve_facts).unwrap_or_default();
    settle(app, "serve", &seen, &facts)?;
    if let (None, Some(view)) = (&seen.silent, seen.value()) {
        beat(app, Beat::Durable, view.status.last_durable.clone()).await?;
    }
    Ok(())
}

pub async fn verifier(app: &App) -> rusqlite::Result<()> {
    let answer = daemons::look_at_verifier(&app.daemons).await.map_err(|e| daemons::reason(&e));
    let seen = note(app, |picture| &mut picture.verifier, answer);
    let facts = seen.value().map(|view| alert_facts(&view.status.alerts)).unwrap_or_default();
    settle(app, "verifier", &seen, &facts)?;
    if let (None, Some(view)) = (&seen.silent, seen.value()) {
        beat(app, Beat::Proved, newest_pass(view)).await?;
    }
    Ok(())
}

pub async fn maintain(app: &App) -> rusqlite::Result<()> {
    let answer = daemons::look_at_maintain(&app.daemons).await.map_err(|e| daemons::reason(&e));
    let seen = note(app, |picture| &mut picture.maintain, answer);
    let facts = seen.value().map(|status| alert_facts(&status.alerts)).unwrap_or_default();
    settle(app, MAINTAIN, &seen, &facts)
}

pub async fn agent(app: &App, index: usize) -> rusqlite::Result<()> {
    let Some(url) = app.settings.agents.get(index) else { return Ok(()) };
    let answer = daemons::look_at_agent(&app.agent_client, url).await;
    let name = agent_name(url);
    let seen = app.pictures.change(|picture| {
        picture.agents.get_mut(index).map(|(_, seen)| {
            change(seen, app.now_ms(), answer);
            seen.clone()
        })
    });
    let Some(seen) = seen else { return Ok(()) };
    let facts = seen.value().map(host_facts).unwrap_or_default();
    settle(app, &name, &seen, &facts)
}

fn note<T>(app: &App, part: fn(&mut Picture) -> &mut Seen<T>, answer: Result<T, String>) -> Seen<T> {
    app.pictures.change(|picture| {
        let seen = part(picture);
        change(seen, app.now_ms(), answer);
        seen.clone()
    })
}

fn change<T>(seen: &mut Seen<T>, now_ms: i64, answer: Result<T, String>) {
    match answer {
        Ok(answer) => seen.answered(now_ms, answer),
        Err(reason) => seen.failed(now_ms, reason),
    }
}

/// Takes a look into account: `facts` when the daemon answered, its silence otherwise.
fn settle<T>(app: &App, source: &str, seen: &Seen<T>, facts: &[Fact]) -> rusqlite::Result<()> {
    match &seen.silent {
        None => reconcile(app, source, &Look::Whole(facts)),
        Some(Silence { looks, .. }) if *looks < SILENT_LOOKS => Ok(()),
        Some(Silence { since_ms, .. }) => {
            // Without an agent health is unknown, without maintenance damage waits; without serve or verifier nothing is
            // backed up or proved.
            let waits = source.starts_with(AGENT) || source == MAINTAIN;
            let severity = if waits { Severity::Warning } else { Severity::Critical };
            let silent = [Fact::new(AlertKind::DaemonUnreachable, severity, Some(source), *since_ms)];
            reconcile(app, source, &Look::Silent(&silent))
        }
    }
}

fn reconcile(app: &App, source: &str, look: &Look<'_>) -> rusqlite::Result<()> {
    let written = app.db.write(|tx| app.rules.reconcile(tx, app.now_ms(), source, look));
    app.unwritten.note(app.now_ms(), source, &written);
    written
}

async fn beat(app: &App, beat: Beat, news: Option<String>) -> rusqlite::Result<()> {
    match (&app.heartbeat, news) {
        (Some(heartbeat), Some(news)) => heartbeat.tell(app, beat, &news).await,
        _ => Ok(()),
    }
}

/// The report of the newest pass in the log's order, whatever times the reports carry.
fn newest_pass(view: &VerifierView) -> Option<String> {
    view.reports.iter().find(|report| report.verdict == DrillVerdict::Pass).map(|report| report.id.clone())
}

fn alert_facts(alerts: &[Alert]) -> Vec<Fact> {
    alerts.iter().map(|a| Fact::new(a.kind, a.severity, a.subject.as_deref(), a.since_unix_ms)).collect()
}

/// What serve says, and every duty that nobody holds or whose review is past.
fn serve_facts(view: &ServeView) -> Vec<Fact> {
    let mut facts = alert_facts(&view.status.alerts);
    let named: Vec<AlertKind> = facts.iter().map(|fact| fact.kind).collect();
    for duty in &view.duties {
        let kind = match (duty.unassigned, duty.overdue) {
            (true, _) => AlertKind::DutyUnassigned,
            (false, true) => AlertKind::DutyOverdue,
            (false, false) => continue,
        };
        // serve names duties itself; this stands in when it does not.
        if !named.contains(&kind) {
            let subject = duty.store.as_ref().map_or_else(|| word(&duty.kind), |s| format!("{}:{s}", word(&duty.kind)));
            facts.push(Fact::new(kind, Severity::Warning, Some(&subject), view.status.now_unix_ms));
        }
    }
    facts
}

fn host_facts(host: &HostHealth) -> Vec<Fact> {
    let critical = host.verdict == Level::Critical;
    let fact = || {
        let since_ms = host.at_unix_s.saturating_mul(1000);
        Fact::new(AlertKind::HostCritical, Severity::Critical, Some(host.host.as_str()), since_ms)
    };
    critical.then(fact).into_iter().collect()
}

/// The name of an agent in alerts: made of its address, because a silent agent cannot say its host id.
pub fn agent_name(url: &reqwest::Url) -> String {
    let host = url.host_str().unwrap_or("unknown").trim_matches(['[', ']']);
    url.port_or_known_default().map_or_else(|| format!("{AGENT}{host}"), |port| format!("{AGENT}{host}:{port}"))
}
