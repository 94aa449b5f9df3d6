//! Answers to clients.

use super::Maintain;
use crate::offload::offload;
use crate::{clock, failure, listen, progress};
use backupd_api::{Connection, Event, Failure, FailureKind, Listener, MaintainStatus, PruneStatus, Request, WireError};
use std::sync::Arc;

/// Healed objects that a status tells.
const HEALED_TOLD: u32 = 20;

pub async fn serve(maintain: Arc<Maintain>, listener: Listener) {
    let allowed = maintain.settings.allowed_uids.clone();
    listen::accept(listener, allowed, move |connection| requests(maintain.clone(), connection)).await;
}

async fn requests(maintain: Arc<Maintain>, mut connection: Connection) -> Result<(), WireError> {
    while let Some(request) = connection.recv().await? {
        // A task of its own: a client that goes away does not leave a run half done.
        let worker = maintain.clone();
        let work = offload(move || async move {
            tokio::select! {
                () = worker.stop.cancelled() => Err(failure::new(FailureKind::Retry, "the daemon is stopping")),
                event = worker.answer(request) => event,
            }
        });
        let event = match progress::follow(&mut connection, &maintain.activity, work).await? {
            Some(Ok(event)) => event,
            Some(Err(failed)) => Event::Failed(failed),
            None => Event::Failed(failure::new(FailureKind::Retry, "it ended early: look at the daemon's log")),
        };
        connection.send(&event).await?;
    }
    Ok(())
}

impl Maintain {
    async fn answer(&self, request: Request) -> Result<Event, Failure> {
        match request {
            Request::MaintainStatus => Ok(Event::MaintainStatus(self.status())),
            Request::Heal { store, all } => {
                Ok(Event::HealDone { stores: self.look_and_heal(store.as_deref(), all).await? })
            }
            Request::LookedInto { subject } => {
                self.looked_into(&subject).await?;
                Ok(Event::AlertClosed)
            }
            Request::PruneStatus => self.prune_status().map(prune),
            Request::PrunePlan => {
                self.make_plan(false).await?;
                self.prune_status().map(prune)
            }
            Request::PruneDecide { decision } => {
                self.decide(&decision).await?;
                self.prune_status().map(prune)
            }
            Request::PruneExecute => {
                self.prune_step(true).await?;
                self.prune_status().map(prune)
            }
            _ => Err(failure::new(
                FailureKind::WrongDaemon,
                "this is `backupd maintain`, which heals and prunes the stores: ask `backupd serve` or the verifier",
            )),
        }
    }

    fn status(&self) -> MaintainStatus {
        let stores = self.store_rows();
        MaintainStatus {
            now_unix_ms: clock::unix_ms(),
            running: self.activity.now(),
            next_unix_ms: self.next_ms(clock::unix_ms()),
            alerts: self.alerts(&stores),
            stores,
            healed: self.records.healed(HEALED_TOLD).unwrap_or_default(),
        }
    }
}

fn prune(status: PruneStatus) -> Event {
    Event::Prune(Box::new(status))
}
