//! What the log of reports tells: rows, evidence, whose turn it is; what persons add to it.

use super::{Verifier, drill};
use crate::failure;
use crate::serve::drill_verdict;
use backup_report::{Approval, Digest, Entry, Log, Report, approvals_of};
use backupd_api::{Client, DrillDone, Event, Failure, FailureKind, ReportRow, Request};
use std::time::Duration;

const ASK_SERVE_TIMEOUT: Duration = Duration::from_secs(5);

impl Verifier {
    /// Signs a report into the log and copies it to every store.
    pub(super) async fn publish(&self, report: Report) -> Result<DrillDone, Failure> {
        self.reports.append(&report.to_bytes()).await?;
        log::info!(
            report = report.report_id.as_str(), store = report.store.name.as_str(), verdict:% = report.verdict;
            "drill.done"
        );
        Ok(drill::done(&report))
    }

    pub(super) async fn report_rows(&self) -> Result<Vec<ReportRow>, Failure> {
        let guard = self.reports.open().await?;
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
                nothing_sealed: drill::is_nothing_sealed(&report),
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
        let guard = self.reports.open().await?;
        let (log, bytes) = find(guard.as_ref(), id)?;
        let signature = self.reports.sign(&bytes);
        let files = backup_report::evidence(&bytes, &signature, log, &self.reports.key())
            .map_err(|e| failure::new(FailureKind::Damaged, e.to_string()))?;
        let few = |name: &str| [".json", ".sig", ".proof"].iter().any(|end| name == format!("{id}{end}"));
        Ok(files.into_iter().filter(|(name, _)| all || few(name)).collect())
    }

    /// Adds an approval by a second person's key.
    pub(super) async fn approve(&self, id: &str, approval: &[u8]) -> Result<(), Failure> {
        {
            let guard = self.reports.open().await?;
            let (_, bytes) = find(guard.as_ref(), id)?;
            Approval::check(approval, &bytes, &self.reports.key())
                .map_err(|e| failure::new(FailureKind::Misconfigured, format!("the approval: {e}")))?;
        }
        self.reports.append(approval).await?;
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
