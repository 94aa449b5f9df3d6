//! Starting a backup, a drill or a deletion plan by button.

use crate::app::App;
use crate::audit::{self, Act};
use crate::daemons::Daemon;
use crate::jobs::{JobKind, ending};
use crate::poll;
use crate::web::{Answer, Call, Refusal, see};
use backupd_api::Request;
use std::sync::Arc;

pub async fn backup(call: Call) -> Answer {
    begin(&call, JobKind::Backup, None)?;
    see("/#activity")
}

pub async fn drill(call: Call) -> Answer {
    let store = Some(call.field("store").to_owned()).filter(|store| !store.is_empty());
    let picture = call.app.pictures.now();
    let known = |name: &String| {
        picture.serve.value().is_none_or(|view| view.status.stores.iter().any(|store| store.name == *name))
    };
    if !store.as_ref().is_none_or(known) {
        return Err(Refusal::Bad("there is no store of this name: choose one of the list".into()));
    }
    begin(&call, JobKind::Drill, store)?;
    see("/#activity")
}

pub async fn plan(call: Call) -> Answer {
    if call.app.settings.maintain.is_none() {
        return Err(Refusal::Bad("this console is not told where backupd maintain listens".into()));
    }
    begin(&call, JobKind::Plan, None)?;
    see("/deletions")
}

fn begin(call: &Call, kind: JobKind, store: Option<String>) -> Result<(), Refusal> {
    let who = call.caller()?.name.clone();
    let app = call.app.clone();
    let Some(id) = app.jobs.start(kind, &who, app.now_ms(), store.clone()) else {
        return Err(Refusal::Bad("one is running already: its progress stands on the posture page".into()));
    };
    let (started, daemon, request) = match kind {
        JobKind::Backup => (Act::BackupStarted, Daemon::Serve, Request::Snapshot { tag: None }),
        JobKind::Drill => (Act::DrillStarted, Daemon::Verifier, Request::Drill { store: store.clone() }),
        JobKind::Plan => (Act::PlanStarted, Daemon::Maintain, Request::PrunePlan),
    };
    let subject = store.unwrap_or_default();
    if let Err(error) = app.db.write(|tx| audit::append(tx, app.now_ms(), &who, started, &subject)) {
        app.jobs.end(id, app.now_ms(), Err(backupd_api::ClientError::Closed));
        return Err(error.into());
    }
    tokio::spawn(follow(app, id, kind, who, daemon, request));
    Ok(())
}

async fn follow(app: Arc<App>, id: u64, kind: JobKind, who: String, daemon: Daemon, request: Request) {
    let result = app.daemons.run(daemon, &request, |progress| app.jobs.progress(id, progress)).await;
    let act = match kind {
        JobKind::Backup => Act::BackupEnded,
        JobKind::Drill => Act::DrillEnded,
        JobKind::Plan => Act::PlanEnded,
    };
    // Recorded before it shows.
    if let Err(error) = app.db.write(|tx| audit::append(tx, app.now_ms(), &who, act, ending(&result))) {
        log::error!(error:% = error; "console.database-failed");
    }
    app.jobs.end(id, app.now_ms(), result);
    // What changed shows at once, not at the next look.
    for looked in [poll::serve(&app).await, poll::verifier(&app).await] {
        if let Err(error) = looked {
            log::error!(error:% = error; "console.database-failed");
        }
    }
}
