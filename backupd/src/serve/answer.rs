//! Answers to clients.

use super::{Daemon, duties};
use crate::offload::offload;
use crate::{failure, listen, progress};
use backupd_api::{Connection, Event, Failure, FailureKind, Listener, Request, SnapshotDone, WireError};
use std::sync::Arc;

pub async fn serve(daemon: Arc<Daemon>, listener: Listener) {
    let settings = &daemon.settings;
    let allowed = [settings.allowed_uids.as_slice(), &settings.snapshot_uids, &settings.look_uids].concat();
    listen::accept(listener, allowed, move |connection| requests(daemon.clone(), connection)).await;
}

async fn requests(daemon: Arc<Daemon>, mut connection: Connection) -> Result<(), WireError> {
    // Somebody whom the settings name for one thing alone learns nothing about stores and schedules.
    let everything = connection.admitted(&daemon.settings.allowed_uids);
    let snapshots = connection.admitted(&daemon.settings.snapshot_uids);
    let looks = connection.admitted(&daemon.settings.look_uids);
    while let Some(request) = connection.recv().await? {
        let may = match &request {
            Request::Snapshot { .. } => everything || snapshots,
            Request::LookAt { .. } => everything || looks,
            _ => everything,
        };
        if !may {
            let thing = if snapshots { "a snapshot" } else { "a look at a store" };
            let message = format!("your user may ask for {thing} here, and for nothing else");
            connection.refuse(FailureKind::Denied, &message).await?;
            continue;
        }
        let event = answer(&daemon, &mut connection, request).await?;
        connection.send(&event).await?;
    }
    Ok(())
}

async fn answer(daemon: &Arc<Daemon>, connection: &mut Connection, request: Request) -> Result<Event, WireError> {
    Ok(match request {
        Request::Snapshot { tag } => {
            let worker = daemon.clone();
            let work = offload(move || snapshot_all(worker, tag));
            match progress::follow(connection, &daemon.activity, work).await? {
                Some(Ok(done)) => Event::SnapshotDone(done),
                Some(Err(failed)) => Event::Failed(failed),
                None => Event::Failed(failure::new(FailureKind::Retry, "the snapshot ended early: look at the log")),
            }
        }
        Request::Status => Event::Status(Box::new(daemon.status())),
        Request::Stores => Event::Stores { stores: daemon.store_statuses() },
        Request::Schedule => Event::Schedule { jobs: daemon.schedule() },
        Request::Duties => {
            let duties = daemon.duties();
            Event::Duties { sha256: duties::sha256(&duties), duties }
        }
        Request::LookAt { store, objects } => {
            let worker = daemon.clone();
            let work = offload(move || async move {
                tokio::select! {
                    () = worker.stop.cancelled() => None,
                    whole = worker.look_at_some(&store, &objects) => Some(whole),
                }
            });
            match progress::follow(connection, &daemon.activity, work).await?.flatten() {
                Some(Some(whole)) => Event::LookedAt { whole },
                Some(None) => {
                    Event::Failed(failure::new(FailureKind::NotFound, "serve.toml has no store of this name"))
                }
                None => Event::Failed(failure::new(FailureKind::Retry, "the daemon is stopping")),
            }
        }
        Request::LookedInto { subject } => {
            let worker = daemon.clone();
            let work = offload(move || async move {
                tokio::select! {
                    () = worker.stop.cancelled() => Err(failure::new(FailureKind::Retry, "the daemon is stopping")),
                    closed = worker.looked_into(&subject) => closed,
                }
            });
            match progress::follow(connection, &daemon.activity, work).await? {
                Some(Ok(())) => Event::AlertClosed,
                Some(Err(failed)) => Event::Failed(failed),
                None => Event::Failed(failure::new(FailureKind::Retry, "it ended early: look at the log")),
            }
        }
        Request::Snapshots => Event::Snapshots { snapshots: daemon.snapshot_rows() },
        Request::SnapshotsAsOf { .. }
        | Request::Ls { .. }
        | Request::Unreadable { .. }
        | Request::Diff { .. }
        | Request::Find { .. }
        | Request::Restore { .. }
        | Request::Lend { .. }
        | Request::Verify { .. }
        | Request::Drill { .. }
        | Request::Reports
        | Request::Report { .. }
        | Request::Evidence { .. }
        | Request::Approve { .. }
        | Request::RecordDecision { .. }
        | Request::RecordDeletion { .. }
        | Request::VerifierStatus => Event::Failed(failure::new(
            FailureKind::WrongDaemon,
            "this is `backupd serve`, which cannot read snapshots: ask `backupd verifier`",
        )),
        Request::MaintainStatus
        | Request::Heal { .. }
        | Request::PruneStatus
        | Request::PrunePlan
        | Request::PruneDecide { .. }
        | Request::PruneExecute => Event::Failed(failure::new(
            FailureKind::WrongDaemon,
            "this is `backupd serve`, which neither heals nor prunes a store: ask `backupd maintain`",
        )),
    })
}

impl Daemon {
    /// Closes the alert that somebody has looked into, where a person's word or a look at a store closes it.
    async fn looked_into(&self, subject: &str) -> Result<(), Failure> {
        if self.close_gap(subject)? {
            return Ok(());
        }
        let healed = self.close_healed(subject)?;
        match self.close_loss(subject).await {
            Some(closed) => closed,
            None if healed => Ok(()),
            None => self.close_set_back(subject).await,
        }
    }
}

/// Every source in turn; the answer is the first source's, unless a later one failed.
async fn snapshot_all(daemon: Arc<Daemon>, tag: Option<String>) -> Result<SnapshotDone, Failure> {
    let mut first = None;
    for source in &daemon.settings.sources {
        let taking = daemon.take_snapshot(source, tag.clone());
        let done = tokio::select! {
            () = daemon.stop.cancelled() => {
                return Err(failure::new(FailureKind::Retry, "the daemon is stopping"));
            }
            done = taking => done?,
        };
        first.get_or_insert(done);
    }
    first.ok_or_else(|| failure::new(FailureKind::Misconfigured, "serve.toml has no [[source]]"))
}
