//! A person's decision: checked and written to the log of reports by the verifier. An approval counts only then; a refusal at once.

use super::plan::busy;
use super::{Held, Pruning};
use crate::maintain::Maintain;
use crate::{clock, failure};
use backup_report::SignedDecision;
use backupd_api::{Client, ClientError, Event, Failure, FailureKind, PruneDecision, PruneState, Request};
use std::time::Duration;

const RECORD_TIMEOUT: Duration = Duration::from_secs(60);
/// So long a decision waits for a step that is under way.
const STEP_WAIT: Duration = Duration::from_secs(8);

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
        // A step that goes on with the plan right now ends first: it may only look what the plan waits for.
        let carrying = tokio::time::timeout(STEP_WAIT, pruning.carrying.lock()).await;
        let _carrying = carrying.map_err(|_| busy())?;
        let mut held = self.records.held().filter(|held| is_open(held.plan.state)).ok_or_else(none)?;
        let decision = SignedDecision::check(entry.as_bytes(), held.plan.document.as_bytes()).map_err(|error| {
            let message = format!("the decision: {error}; make it about the plan that `backupd prune show` shows now");
            failure::new(FailureKind::Misconfigured, message)
        })?;
        let row = self.may_decide(pruning, &held, &decision)?;
        if row.approved {
            // What does not stand in the log does not count.
            self.record_decision(pruning, &held.plan.document, entry).await?;
            held.plan.recorded = true;
            held.plan.decisions.push(row);
            if held.approvals() >= held.plan.needed {
                held.plan.state = PruneState::Approved;
                held.next_unix_ms = Some(clock::unix_ms());
            }
        } else {
            // It counts at once; the next step tells the log, and ends the plan in the stores.
            held.plan.decisions.push(row);
            held.refusal = Some(entry.to_owned());
            (held.plan.state, held.plan.waiting) = (PruneState::Refused, None);
            held.plan.recorded = false;
            held.next_unix_ms = Some(clock::unix_ms());
        }
        self.keep(&held)?;
        log::info!(
            plan = held.plan.id.as_str(), approvals = held.approvals(), needed = held.plan.needed,
            state:? = held.plan.state; "prune.decided"
        );
        self.wake.notify_one();
        Ok(())
    }

    /// The decision as it is kept, when it may count.
    fn may_decide(&self, pruning: &Pruning, held: &Held, decision: &SignedDecision) -> Result<PruneDecision, Failure> {
        let row = pruning.told(decision);
        let Some(approver) = &row.approver else {
            let message = format!(
                "the key {} is none of those that may decide: whoever keeps {} adds it as [[prune.approver]]",
                row.fingerprint,
                self.settings.file.display()
            );
            return Err(failure::new(FailureKind::Denied, message));
        };
        // Who has approved may think better of it.
        if row.approved && held.plan.state != PruneState::Proposed {
            let message = "two persons have approved this plan already: it goes on";
            return Err(failure::new(FailureKind::Denied, message));
        }
        if row.approved && held.plan.decisions.iter().any(|before| before.fingerprint == row.fingerprint) {
            let message =
                format!("{approver} has decided about this plan already: a second, different person is needed");
            return Err(failure::new(FailureKind::Denied, message));
        }
        Ok(row)
    }

    pub(super) async fn record_decision(&self, pruning: &Pruning, plan: &str, decision: &str) -> Result<(), Failure> {
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
