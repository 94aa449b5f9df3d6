//! The log of reports: opened or found again in the stores, added to, copied to every store.

use super::{Verifier, drill};
use crate::failure;
use crate::serve::{LOG_PREFIX, drill_verdict, log_objects};
use backup_engine::NamedStore;
use backup_report::{Approval, Digest, Entry, Log, Reach, Report, approvals_of};
use backupd_api::{Client, DrillDone, Event, Failure, FailureKind, ReportRow, Request};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::MutexGuard;

/// Where the detached signatures lie in every store, beside the log's own objects.
const SIGNATURES: &str = "log/signatures/";
const ASK_SERVE_TIMEOUT: Duration = Duration::from_secs(5);

/// Objects of a store's log by name.
type Objects = Vec<(String, Vec<u8>)>;

#[derive(Default)]
struct LogsInStores {
    /// The longest log that one store holds whole, and its size.
    whole: Option<(u64, Objects)>,
    /// The objects of all stores together.
    all: Objects,
    /// How far any of them went.
    reach: Reach,
    /// Stores that answer and hold nothing of a log.
    without: usize,
}

impl Verifier {
    fn log_dir(&self) -> PathBuf {
        self.settings.state_dir.join("log")
    }

    /// Opens the log. An empty, damaged or outdated folder is filled again from the store that holds the longest one.
    pub(super) async fn open_log(&self) -> Result<MutexGuard<'_, Option<Log>>, Failure> {
        let mut guard = self.log.lock().await;
        // The state folder may be removed at any moment: what was opened then leads nowhere.
        if guard.as_ref().is_some_and(|log| !log.is_there()) {
            log::warn!("log.folder-gone");
            *guard = None;
        }
        if guard.is_none() {
            *guard = Some(self.find_log().await?);
        }
        Ok(guard)
    }

    async fn find_log(&self) -> Result<Log, Failure> {
        let failed =
            |e: &dyn std::fmt::Display| failure::new(FailureKind::Misconfigured, format!("the log of reports: {e}"));
        let found = self.logs_in_stores().await;
        let dir = self.log_dir();
        let Reach { signed, named } = found.reach;
        match Log::open(&dir, self.origin.clone(), &self.signer) {
            Ok(log) if log.size() > 0 && log.size() >= signed => return Ok(log),
            // A new log is begun only where most stores show that there is none yet.
            Ok(log) if log.size() == 0 && named == 0 && found.without * 2 > self.stores.len() => return Ok(log),
            // Nothing here and nothing found while most stores are silent: a new log might begin a second history. A log
            // that one store gives back is used, as a recovery from one store must be able to go on.
            Ok(log) if log.size() == 0 && named == 0 => {
                return Err(failure::new(
                    FailureKind::Retry,
                    "the log of reports is not here and most stores do not answer: try again when they do",
                ));
            }
            Ok(log) => drop(log),
            Err(error) => log::error!(reason:% = error; "log.not-readable"),
        }
        if named == 0 {
            return Err(failed(&"it is damaged here, and no store holds a copy"));
        }
        let aside = self.settings.state_dir.join("log.aside");
        let _ = std::fs::remove_dir_all(&aside);
        if dir.exists() {
            std::fs::rename(&dir, &aside).map_err(|e| failed(&e))?;
        }
        let origin = self.origin.clone();
        let log = match found.whole.filter(|(size, _)| *size >= signed) {
            Some((_, objects)) => Log::rebuild(&dir, origin, &self.signer, objects),
            None => Log::salvage(&dir, origin, &self.signer, found.all),
        };
        let log = log.map_err(|e| {
            failed(&format!(
                "{e}. No store holds it whole, and a new one under the same key would show two histories: put the missing \
                 object back under log/ from another copy of a store"
            ))
        })?;
        log::info!(entries = log.size(), lost = log.lost().len(); "log.rebuilt");
        Ok(log)
    }

    /// What the stores that answer hold of the log.
    async fn logs_in_stores(&self) -> LogsInStores {
        let key = self.signer.public_key();
        let mut found = LogsInStores::default();
        for store in &self.stores {
            let Ok(objects) = log_objects(store, &key, &self.origin).await else { continue };
            let reach = Reach::of(&objects, &key, &self.origin);
            found.without += usize::from(reach.named == 0);
            found.reach.signed = found.reach.signed.max(reach.signed);
            found.reach.named = found.reach.named.max(reach.named);
            match backup_report::View::of_objects(objects.clone(), &key, &self.origin) {
                Ok(view) if found.whole.as_ref().is_none_or(|(n, _)| *n < view.leaves().len() as u64) => {
                    found.whole = Some((view.leaves().len() as u64, objects.clone()));
                }
                Ok(_) => {}
                Err(error) => log::warn!(store = store.name.as_str(), reason:% = error; "store.log-not-valid"),
            }
            found.all.extend(objects);
        }
        found
    }

    /// Signs a report into the log and copies it to every store.
    pub(super) async fn publish(&self, report: Report) -> Result<DrillDone, Failure> {
        self.append(&report.to_bytes()).await?;
        log::info!(
            report = report.report_id.as_str(), store = report.store.name.as_str(), verdict:% = report.verdict;
            "drill.done"
        );
        Ok(drill::done(&report))
    }

    pub(super) async fn append(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut guard = self.open_log().await?;
        if let Some(log) = guard.as_mut()
            && let Err(error) = log.append(&self.signer, bytes)
        {
            // It is opened anew at the next use.
            *guard = None;
            return Err(failure::new(FailureKind::Retry, format!("the log of reports: {error}")));
        }
        if let Some(log) = guard.as_ref() {
            self.copy_log(log).await;
        }
        Ok(())
    }

    /// Puts into every store what it lacks of the log. A store that does not answer gets it next time.
    async fn copy_log(&self, log: &Log) {
        for store in &self.stores {
            let copied = async {
                let listed = store.store.list(LOG_PREFIX).await?;
                let held: BTreeSet<String> = listed.into_iter().map(|o| o.name).collect();
                let mut objects = log
                    .objects_missing(|name| held.contains(name))
                    .map_err(|e| backup_engine::Error::new(backup_engine::ErrorKind::Damaged, e.to_string()))?;
                objects.extend(self.signatures(log).filter(|(name, _)| !held.contains(name)));
                for (name, bytes) in objects {
                    store.store.put(&name, Bytes::from(bytes)).await?;
                }
                backup_engine::Result::Ok(())
            };
            if let Err(error) = copied.await {
                log::warn!(store = store.name.as_str(), reason:% = error; "store.log-not-copied");
            }
        }
    }

    /// Puts right what is damaged or missing of the log in one store.
    pub(super) async fn heal_log(&self, store: &NamedStore) -> Result<(), Failure> {
        let guard = self.open_log().await?;
        let Some(log) = guard.as_ref() else { return Ok(()) };
        let failed = |e: &backup_engine::Error| failure::from_engine(&e.duplicate().context(&store.name));
        let key = self.signer.public_key();
        let objects = log_objects(store, &key, &self.origin).await.map_err(|e| failed(&e))?;
        let damaged = backup_report::damaged(&objects, &key, &self.origin);
        let whole = |name: &str| objects.iter().any(|(n, bytes)| n == name && !bytes.is_empty());
        let whole = |name: &str| whole(name) && !damaged.iter().any(|bad| bad == name);
        let mut wanted = log.objects_missing(whole).map_err(|e| failure::new(FailureKind::Damaged, e.to_string()))?;
        wanted.extend(self.signatures(log).filter(|(name, _)| !whole(name)));
        for (name, bytes) in wanted.into_iter().filter(|(_, bytes)| !bytes.is_empty()) {
            backup_engine::put_over_damage(store, &name, Bytes::from(bytes)).await.map_err(|e| failed(&e))?;
            log::info!(store = store.name.as_str(), object = name.as_str(); "log.object-healed");
        }
        Ok(())
    }

    /// The detached signatures of all reports, as objects.
    fn signatures(&self, log: &Log) -> impl Iterator<Item = (String, Vec<u8>)> {
        log.entries().flatten().filter_map(|(_, entry, bytes)| match entry {
            Entry::Report(report) => {
                Some((format!("{SIGNATURES}{}.sig", report.report_id), self.signer.sign(&bytes).to_vec()))
            }
            _ => None,
        })
    }

    pub(super) async fn report_rows(&self) -> Result<Vec<ReportRow>, Failure> {
        let guard = self.open_log().await?;
        let Some(log) = guard.as_ref() else { return Ok(Vec::new()) };
        let mut rows = Vec::new();
        for (index, entry, bytes) in log.entries().rev().flatten() {
            let Entry::Report(report) = entry else { continue };
            rows.push(ReportRow {
                id: report.report_id.as_str().to_owned(),
                store: report.store.name.as_str().to_owned(),
                snapshot: report.snapshot.id.as_str().to_owned(),
                at_unix_ms: report.timing.ended_unix_ms,
                verdict: drill_verdict(report.verdict),
                source_damaged: drill::is_source_damaged(&report),
                rto_ms: report.rto.measured_ms,
                rpo_ms: report.rpo.measured_ms,
                log_index: index,
                approved: approvals_of(log, &bytes).is_ok_and(|a| !a.is_empty()),
            });
        }
        Ok(rows)
    }

    /// The files of a report's evidence; `all`: everything that an auditor needs, else report, signature and proof.
    pub(super) async fn evidence(&self, id: &str, all: bool) -> Result<Vec<(String, Vec<u8>)>, Failure> {
        let guard = self.open_log().await?;
        let (log, bytes) = find(guard.as_ref(), id)?;
        let signature = self.signer.sign(&bytes);
        let files = backup_report::evidence(&bytes, &signature, log, &self.signer.public_key())
            .map_err(|e| failure::new(FailureKind::Damaged, e.to_string()))?;
        let few = |name: &str| [".json", ".sig", ".proof"].iter().any(|end| name == format!("{id}{end}"));
        Ok(files.into_iter().filter(|(name, _)| all || few(name)).collect())
    }

    /// Adds an approval by a second person's key.
    pub(super) async fn approve(&self, id: &str, approval: &[u8]) -> Result<(), Failure> {
        {
            let guard = self.open_log().await?;
            let (_, bytes) = find(guard.as_ref(), id)?;
            Approval::check(approval, &bytes, &self.signer.public_key())
                .map_err(|e| failure::new(FailureKind::Misconfigured, format!("the approval: {e}")))?;
        }
        self.append(approval).await?;
        log::info!(report = id; "report.approved");
        Ok(())
    }

    /// The store that was drilled longest ago; one that never was comes first.
    pub(super) async fn whose_turn(&self) -> Result<String, Failure> {
        let rows = self.report_rows().await?;
        let last = |name: &str| rows.iter().filter(|r| r.store == name).map(|r| r.at_unix_ms).max();
        let turn = self.stores.iter().min_by_key(|s| last(&s.name));
        turn.map(|s| s.name.clone())
            .ok_or_else(|| failure::new(FailureKind::Misconfigured, "verifier.toml has no [[store]]"))
    }

    /// The hash of the duties in force, when `serve` tells them.
    pub(super) async fn duties_sha256(&self) -> Option<Digest> {
        let endpoint = self.settings.serve()?;
        let ask = async {
            let mut client = Client::connect(&endpoint).await.ok()?;
            match client.request(&Request::Duties, |_| ()).await.ok()? {
                Event::Duties { sha256, .. } => Digest::parse(&sha256).ok(),
                _ => None,
            }
        };
        tokio::time::timeout(ASK_SERVE_TIMEOUT, ask).await.ok().flatten()
    }
}

fn find<'a>(log: Option<&'a Log>, id: &str) -> Result<(&'a Log, Vec<u8>), Failure> {
    let absent = || failure::new(FailureKind::NotFound, "no report has this id: `backupd report` lists them");
    let log = log.ok_or_else(absent)?;
    for (_, entry, bytes) in log.entries().flatten() {
        if matches!(&entry, Entry::Report(report) if report.report_id.as_str() == id) {
            return Ok((log, bytes));
        }
    }
    Err(absent())
}
