//! The operations socket: the backup's door to the EMR.
//!
//! ```text
//! Quiesce -> canary -> copy of the database under one read transaction (WAL: writers go on) -> facts and golden answers
//!         from the copy itself -> paths handed over -> Thaw or the connection's end removes the copy
//! ```
//!
//! What could delay a clinician is only the copy (disk load, a longer WAL). It is over before the answer, its effect on
//! writers is measured ([`appliance_api::Quiesced::write_stall_us`]), and it is given up when a write waits for
//! [`appliance_api::LEASE_MS_MAX`]. Afterwards nothing of the EMR waits for the backup, so the staged copy
//! may stay as long as the connection lives, and at most [`STAGED_MS_MAX`]: a store behind a slow line needs hours.

pub mod facts;
pub mod golden;
pub(crate) mod room;
pub mod staging;
pub mod wire;

use crate::audit;
use crate::settings::Settings;
use crate::store::{Store, StoreError};
use appliance_api::{AuditHead, Quiesced, Refusal, Request, Response, STAGED_MS_MAX};
use staging::{Copy, Staging};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wire::Answering;

/// How far the facts of a copy stand behind what people wait for.
const FACTS_NICE: i32 = 10;

/// The socket's service.
pub struct Operations {
    store: Store,
    staging: Staging,
    /// One lease at a time: a second copy would only fill the disk.
    lease: Arc<Semaphore>,
    allowed_uids: Vec<u32>,
    /// Of the records that are open: an older one while an upgrade waits for its snapshot.
    schema_version: u32,
}

impl Operations {
    /// Removes what an earlier run left in the staging folder.
    pub fn new(store: Store, settings: &Settings) -> Result<Operations, StoreError> {
        let staging = Staging::open(settings)?;
        let allowed_uids = settings.ops_allowed_uids.clone();
        let schema_version = store.internal_blocking(crate::store::schema_version)?;
        Ok(Operations { store, staging, lease: Arc::new(Semaphore::new(1)), allowed_uids, schema_version })
    }

    /// Answers connections until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) {
        let uids = self.allowed_uids.clone();
        wire::serve(listener, uids, move || Lease { operations: Arc::clone(&self), held: None }).await;
    }
}

/// One connection, with the lease that it holds.
struct Lease {
    operations: Arc<Operations>,
    held: Option<Held>,
}

struct Held {
    id: String,
    /// Removed with everything in it when this is dropped.
    _copy: Copy,
    _permit: OwnedSemaphorePermit,
}

impl Answering for Lease {
    fn schema_version(&self) -> u32 {
        self.operations.schema_version
    }

    fn patience(&self) -> Option<Duration> {
        self.held.as_ref().map(|_| Duration::from_millis(STAGED_MS_MAX))
    }

    async fn answer(&mut self, request: Request) -> Result<Response, Refusal> {
        match request {
            Request::Hello { .. } => Err(Refusal::Malformed),
            Request::Quiesce { follows } => self.quiesce(follows).await,
            Request::Thaw { lease } => {
                let held = self.held.take_if(|held| held.id == lease).ok_or(Refusal::NoLease)?;
                drop(held);
                log::info!("ops.thawed");
                Ok(Response::Thawed)
            }
            Request::Facts => {
                let attachments = self.operations.store.attachments().clone();
                let computed = self
                    .operations
                    .store
                    .internal(move |db| facts::compute(db, &attachments, facts::Depth::Recorded))
                    .await
                    .map_err(refusal)?;
                Ok(Response::Facts(Box::new(computed.facts)))
            }
            Request::Golden { key, questions } => {
                let attachments = self.operations.store.attachments().clone();
                let answers = self
                    .operations
                    .store
                    .internal(move |db| golden::answers(db, &attachments, &key, &questions))
                    .await
                    .map_err(refusal)?;
                Ok(Response::Golden { answers })
            }
        }
    }
}

impl Lease {
    async fn quiesce(&mut self, asked: Option<AuditHead>) -> Result<Response, Refusal> {
        if self.held.is_some() {
            return Err(Refusal::Busy);
        }
        let operations = &self.operations;
        let permit = Arc::clone(&operations.lease).try_acquire_owned().map_err(|_| Refusal::Busy)?;
        let started = crate::clock::monotonic();
        let (copy, stall) = operations.staging.copy(&operations.store).await.map_err(refusal)?;
        let attachments = operations.store.attachments().clone();
        let database = copy.database();
        let examine = move || -> Result<_, StoreError> {
            let data = crate::db::sqlite::open_immutable(&database)?;
            // Of the copy, as the facts are. Where it cannot be read, nothing is said: that is damage, and told as such.
            let follows = asked.and_then(|head| audit::contains(&data, &head).ok());
            Ok((facts::examine(&data, &attachments)?, follows))
        };
        let examined = behind_pages(examine).await;
        let ((computed, golden_key, golden), follows) = examined.map_err(refusal)?;
        let (facts, mut damaged, damaged_attachments) =
            (computed.facts, computed.damaged, computed.damaged_attachments);
        if !operations.store.is_in_place() {
            log::error!("records.file-gone");
            damaged.insert(appliance_api::Damaged::Database);
        }
        let damaged = damaged.into_iter().collect();
        let parts = copy.parts(&operations.store);
        let (millis, stall_us) = (started.elapsed().as_millis(), u64::try_from(stall.as_micros()).unwrap_or(u64::MAX));
        log::info!(took_ms = millis as u64, write_stall_us = stall_us; "ops.quiesced");
        if follows == Some(false) {
            log::error!("records.set-back");
        }
        let lease = copy.id().to_owned();
        self.held = Some(Held { id: lease.clone(), _copy: copy, _permit: permit });
        let thaw_in_ms = STAGED_MS_MAX;
        let quiesced = Quiesced {
            lease,
            thaw_in_ms,
            write_stall_us: stall_us,
            parts,
            facts,
            damaged,
            damaged_attachments,
            golden_key,
            golden,
            follows,
        };
        Ok(Response::Quiesced(Box::new(quiesced)))
    }
}

/// Runs `job` on a thread of its own that gives way to those that answer people: reading all records for the facts takes
/// seconds of a processor. A thread cannot take its nice value back, so none of the runtime's is lent.
async fn behind_pages<T: Send + 'static>(
    job: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (told, answer) = tokio::sync::oneshot::channel();
    let run = move || {
        // Refused or not, the facts are needed.
        let _ = rustix::process::setpriority_process(None, FACTS_NICE);
        let _ = told.send(job());
    };
    let thread = std::thread::Builder::new().name("records-facts".into()).spawn(run);
    thread.map_err(StoreError::io("thread of the facts"))?;
    answer.await.unwrap_or(Err(StoreError::Closed))
}

/// The closed reason for the peer; the cause goes to the log, which holds no record content either.
pub(crate) fn refusal(error: StoreError) -> Refusal {
    if matches!(error, StoreError::Full) {
        log::warn!("ops.no-room");
        return Refusal::NoRoom;
    }
    log::error!(error = error.to_string().as_str(); "ops.failed");
    if matches!(error, StoreError::Newer { .. }) {
        return Refusal::Newer;
    }
    Refusal::Data
}
