//! A person's decision: checked, written to the log of reports by the verifier, and only then counted.

use super::Pruning;
use crate::maintain::Maintain;
use crate::{clock, failure};
use backup_report::{DeletionDecision, SignedDecision};
use backupd_api::{Client, ClientError, Event, Failure, FailureKind, PruneDecision, PruneState, Request};
use std::time::Duration;

const RECORD_TIMEOUT: Duration = Duration::from_secs(60);

impl Maintain {
    /// Takes a decision in. Two different persons' approvals make the plan go on; one refusal ends it.
    pub async fn decide(&self, entry: &str) -> Result<(), Failure> {
        let pruning = self.pruning()?;
        let _deciding = self.deciding.lock().await;
        let none =
            || failure::new(FailureKind::NotFound, "no plan waits for a decision: `backupd prune plan` makes one");
        let mut held = self.records.held().filter(|held| held.plan.state == PruneState::Proposed).ok_or_else(none)?;
        let decision = SignedDecision::check(entry.as_bytes(), held.plan.document.as_bytes()).map_err(|error| {
            let message = format!("the decision: {error}; make it about the plan that `backupd prune show` shows now");
            failure::new(FailureKind::Misconfigured, message)
        })?;
        let fingerprint = decision.fingerprint().to_string();
        let Some(approver) = pruning.approver(&fingerprint) else {
            let message = format!(
                "the key {fingerprint} is none of those that may decide: whoever keeps {} adds it as [[prune.approver]]",
                self.settings.file.display()
            );
            return Err(failure::new(FailureKind::Denied, message));
        };
        if held.plan.decisions.iter().any(|before| before.fingerprint == fingerprint) {
            let message =
                format!("{approver} has decided about this plan already: a second, different person is needed");
            return Err(failure::new(FailureKind::Denied, message));
        }
        self.record_decision(pruning, &held.plan.document, entry).await?;
        held.plan.decisions.push(PruneDecision {
            approver: Some(approver.to_owned()),
            fingerprint,
            approved: decision.decision() == DeletionDecision::Approved,
            signed_unix_ms: decision.signed_unix_ms(),
        });
        held.plan.recorded = true;
        match decision.decision() {
            DeletionDecision::Refused => held.plan.state = PruneState::Refused,
            DeletionDecision::Approved if held.approvals() >= held.plan.needed => {
                held.plan.state = PruneState::Approved;
                held.next_unix_ms = Some(clock::unix_ms());
            }
            DeletionDecision::Approved => {}
        }
        self.keep(&held)?;
        log::info!(
            plan = held.plan.id.as_str(), approvals = held.approvals(), needed = held.plan.needed,
            state:? = held.plan.state; "prune.decided"
        );
        self.wake.notify_one();
        Ok(())
    }

    async fn record_decision(&self, pruning: &Pruning, plan: &str, decision: &str) -> Result<(), Failure> {
        let request = Request::RecordDecision { plan: plan.to_owned(), decision: decision.to_owned() };
        self.ask_verifier(pruning, request).await
    }

    /// Has the verifier write to the log, which it alone signs.
    pub(super) async fn ask_verifier(&self, pruning: &Pruning, request: Request) -> Result<(), Failure> {
        let not_recorded = |error: &dyn std::fmt::Display| {
            let message = format!("the log of reports did not take it, so it does not count yet: {error}");
            failure::new(FailureKind::Retry, message)
        };
        let endpoint = self.settings.endpoint(&pruning.settings.verifier).map_err(|error| not_recorded(&error))?;
        let ask = async { Client::connect(&endpoint).await?.request(&request, |_| ()).await };
        match tokio::time::timeout(RECORD_TIMEOUT, ask).await {
            Ok(Ok(Event::Recorded)) => Ok(()),
            Ok(Ok(_)) => Err(not_recorded(&ClientError::Malformed)),
            Ok(Err(error)) => Err(not_recorded(&error)),
            Err(_) => Err(not_recorded(&ClientError::Timeout)),
        }
    }
}
