//! Answers to clients.

use super::{Verifier, lend};
use crate::offload::offload;
use crate::{clock, failure, listen, progress};
use backupd_api::{
    Alert, AlertKind, Connection, DrillVerdict, Event, EvidenceFile, Failure, FailureKind, Listener, Peer, Request,
    Severity, VerifierStatus, WireError,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::Arc;

pub async fn serve(verifier: Arc<Verifier>, listener: Listener) {
    let allowed = [verifier.settings.allowed_uids.as_slice(), &verifier.settings.lend_uids].concat();
    listen::accept(listener, allowed, move |connection| requests(verifier.clone(), connection)).await;
}

async fn requests(verifier: Arc<Verifier>, mut connection: Connection) -> Result<(), WireError> {
    // The EMR, which looks at its own records as they were: reports, drills and names of files are not its business.
    let only_lends = !connection.admitted(&verifier.settings.allowed_uids);
    while let Some(request) = connection.recv().await? {
        if only_lends && !matches!(request, Request::Lend { .. } | Request::Snapshots) {
            connection
                .refuse(FailureKind::Denied, "your user may look at the EMR's records, and at nothing else")
                .await?;
            continue;
        }
        if let (Request::Lend { snapshot, file }, Peer::Unix { .. }) = (&request, connection.peer()) {
            lend::answer(&verifier, &mut connection, snapshot.clone(), file.clone()).await?;
            continue;
        }
        let event = if request.names() && !matches!(connection.peer(), Peer::Unix { .. }) {
            Event::Failed(failure::new(
                FailureKind::Denied,
                "names of records are only told over the verifier's Unix socket: ask on its own machine",
            ))
        } else {
            // A task of its own: a client that goes away does not leave a drill half done. Everything else ends with it: nobody
            // wants to find records where a restore was given up.
            let goes_on = matches!(
                request,
                Request::Drill { .. }
                    | Request::Approve { .. }
                    | Request::RecordDecision { .. }
                    | Request::RecordDeletion { .. }
            );
            let (worker, stop) = (verifier.clone(), verifier.stop.child_token());
            let _end = (!goes_on).then(|| stop.clone().drop_guard());
            let work = offload(move || async move {
                tokio::select! {
                    () = stop.cancelled() => Err(failure::new(FailureKind::Retry, "the daemon is stopping")),
                    event = worker.answer(request) => event,
                }
            });
            match progress::follow(&mut connection, &verifier.activity, work).await? {
                Some(Ok(event)) => event,
                Some(Err(failed)) => Event::Failed(failed),
                None => Event::Failed(failure::new(FailureKind::Retry, "it ended early: look at the daemon's log")),
            }
        };
        connection.send(&event).await?;
    }
    Ok(())
}

impl Verifier {
    async fn answer(&self, request: Request) -> Result<Event, Failure> {
        Ok(match request {
            Request::Snapshots => Event::Snapshots { snapshots: self.snapshot_rows().await? },
            Request::SnapshotsAsOf { unix_ms, store } => {
                Event::Snapshots { snapshots: self.snapshot_rows_as_of(unix_ms, store.as_deref()).await? }
            }
            Request::Ls { snapshot, path, depth } => {
                Event::Ls { entries: self.ls(&snapshot, path.as_deref(), depth).await? }
            }
            Request::Unreadable { snapshot } => self.unreadable(&snapshot).await?,
            Request::Diff { before, after, path } => self.diff(&before, &after, path.as_deref()).await?,
            Request::Find { snapshot, wanted } => self.find_names(snapshot.as_deref(), &wanted).await?,
            Request::Restore { snapshot, store, into, paths, overwrite, as_of_unix_ms } => {
                let from = (store.as_deref(), as_of_unix_ms);
                Event::RestoreDone(self.restore(&snapshot, from, into, (paths, overwrite)).await?)
            }
            // Answered where pieces can be sent.
            Request::Lend { .. } => {
                return Err(failure::new(FailureKind::Denied, "files are lent over the Unix socket"));
            }
            Request::Verify { store, read_data } => Event::VerifyDone(self.verify(store.as_deref(), read_data).await?),
            Request::Drill { .. } if self.sandbox.try_lock().is_err() => {
                return Err(failure::new(
                    FailureKind::Busy,
                    "a drill is running: ask again when `backupd status` shows that it has ended",
                ));
            }
            Request::Drill { store } => Event::DrillDone(self.drill(store.as_deref()).await?),
            Request::Reports => Event::Reports { reports: self.report_rows().await? },
            Request::Report { id } => Event::Evidence { files: files(self.evidence(&id, false).await?) },
            Request::Evidence { id } => Event::Evidence { files: files(self.evidence(&id, true).await?) },
            Request::Approve { id, approval } => {
                self.approve(&id, &approval).await?;
                Event::Approved
            }
            Request::RecordDecision { plan, decision } => {
                self.record_decision(&plan, &decision).await?;
                Event::Recorded
            }
            Request::RecordDeletion { done } => {
                self.record_deletion(&done).await?;
                Event::Recorded
            }
            Request::VerifierStatus => Event::VerifierStatus(self.status().await?),
            Request::MaintainStatus
            | Request::Heal { .. }
            | Request::PruneStatus
            | Request::PrunePlan
            | Request::PruneDecide { .. }
            | Request::PruneExecute => {
                return Err(failure::new(
                    FailureKind::WrongDaemon,
                    "this is `backupd verifier`, which changes no store: ask `backupd maintain`",
                ));
            }
            Request::Snapshot { .. }
            | Request::Status
            | Request::Stores
            | Request::Schedule
            | Request::Duties
            | Request::LookAt { .. }
            | Request::LookedInto { .. } => {
                return Err(failure::new(
                    FailureKind::WrongDaemon,
                    "this is `backupd verifier`, which takes no snapshots: ask `backupd serve`",
                ));
            }
        })
    }

    async fn status(&self) -> Result<VerifierStatus, Failure> {
        // While a drill runs, its log is in use for moments only.
        let rows = self.report_rows().await?;
        let mut alerts = self.damage_alerts();
        for store in &self.stores {
            // Rows come newest first.
            let Some(last) = rows.iter().find(|r| r.store == store.name) else { continue };
            // Not the store's fault: `serve` tells of the source, and a folder seals nothing that could be compared.
            if last.source_damaged || last.nothing_sealed {
                continue;
            }
            let severity = match last.verdict {
                DrillVerdict::Pass => continue,
                DrillVerdict::Fail => Severity::Critical,
                DrillVerdict::Inconclusive => Severity::Warning,
            };
            let subject = Some(store.name.clone());
            alerts.push(Alert { kind: AlertKind::DrillFailed, severity, subject, since_unix_ms: last.at_unix_ms });
        }
        let log_size = self.reports.open().await?.as_ref().map_or(0, backup_report::Log::size);
        Ok(VerifierStatus {
            key_fingerprint: self.reports.key().fingerprint().to_string(),
            log_size,
            running: self.activity.now(),
            same_host_as_writer: self.settings.same_host_as_writer,
            next_drill_unix_ms: self.next_drill_ms(clock::unix_ms()),
            alerts,
        })
    }
}

fn files(files: Vec<(String, Vec<u8>)>) -> Vec<EvidenceFile> {
    files.into_iter().map(|(name, bytes)| EvidenceFile { name, base64: STANDARD.encode(bytes) }).collect()
}
