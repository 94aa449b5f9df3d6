//! A person's decision: checked, written to the log of reports by the verifier, and only then counted.

use super::Pruning;
use super::plan::busy;
use crate::maintain::Maintain;
use crate::{clock, failure};
use backup_report::{DeletionDecision, SignedDecision};
use backupd_api::{Client, ClientError, Event, Failure, FailureKind, PruneDecision, PruneState, Request};
use std::time::Duration;

const RECORD_TIMEOUT: Duration = Duration::from_secs(60);

fn none() -> Failure {
    failure::new(FailureKind::NotFound, "no plan waits for a decision: `backupd prune plan` makes one")
}

/// Nothing of it is deleted yet.
fn is_open(state: PruneState) -> bool {
    matches!(state, PruneState::Proposed | PruneState::Approved | PruneState::Announced)
}

impl Maintain {
    /// Takes a decision in. Two different persons' approvals make the plan go on; one refusal ends it, until it is carried out.
    pub async fn decide(&self, entry: &str) -> Result<(), Failure> {
        let pruning = self.pruning()?;
        let _deciding = self.deciding.lock().await;
        let mut held = self.records.held().filter(|held| is_open(held.plan.state)).ok_or_else(none)?;
        // A plan that is under way is not carried out while somebody ends it.
        let is_under_way = held.plan.state != PruneState::Proposed;
        let _work = match is_under_way.then(|| self.work.try_lock()) {
            Some(Err(_)) => return Err(busy()),
            work => work,
        };
        if is_under_way {
            held = self.records.held().filter(|held| is_open(held.plan.state)).ok_or_else(none)?;
        }
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
        let refuses = decision.decision() == DeletionDecision::Refused;
        // Who has approved may think better of it.
        let again = held.plan.decisions.iter().any(|before| before.fingerprint == fingerprint) && !refuses;
        if again || is_under_way && !refuses {
            let message = match is_under_way {
                true => "two persons have approved this plan already: it goes on".to_owned(),
                false => {
                    format!("{approver} has decided about this plan already: a second, different person is needed")
                }
            };
            return Err(failure::new(FailureKind::Denied, message));
        }
        if held.plan.state == PruneState::Announced && !self.is_announced(pruning).await? {
            let message = "the plan is being carried out: nothing can be taken back any more";
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
            DeletionDecision::Refused => {
                held.plan.state = PruneState::Refused;
                // The stores may hold it, and everybody waits for it there.
                held.next_unix_ms = is_under_way.then(clock::unix_ms);
                held.plan.waiting = None;
            }
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

    async fn is_announced(&self, pruning: &Pruning) -> Result<bool, Failure> {
        let keys = pruning.keys()?;
        let announced = backup_engine::prune::announced(&keys.open, &self.plain_stores()).await;
        Ok(announced.map_err(|error| failure::from_engine(&error))?.is_some())
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
