//! Deletions in the log of reports: plans with the decisions that persons signed about them, and what was deleted. Whose
//! keys count is for maintenance to say, as it carries plans out; here it counts that everything belongs together.

use super::Verifier;
use crate::failure;
use backup_report::{APPROVALS_NEEDED, DeletionDecision, DeletionDone, DeletionPlan, Digest, Entry, SignedDecision};
use backupd_api::{Failure, FailureKind};
use std::collections::BTreeSet;

fn wrong(error: impl std::fmt::Display) -> Failure {
    failure::new(FailureKind::Misconfigured, format!("the entry is not taken: {error}"))
}

impl Verifier {
    /// Adds a plan, once, and a decision about it.
    pub(super) async fn record_decision(&self, plan: &str, decision: &str) -> Result<(), Failure> {
        let document = DeletionPlan::parse(plan.as_bytes()).map_err(wrong)?;
        if document.repository != self.repository {
            return Err(wrong("the plan is about another repository"));
        }
        let signed = SignedDecision::check(decision.as_bytes(), plan.as_bytes()).map_err(wrong)?;
        if signed.fingerprint() == self.reports.key().fingerprint() {
            return Err(wrong("it is signed with the report key: a person decides with a key of their own"));
        }
        self.reports.append(plan.as_bytes()).await?;
        self.reports.append(decision.as_bytes()).await?;
        log::info!(plan = document.plan_id.as_str(), decision:? = signed.decision(); "prune.decision-recorded");
        Ok(())
    }

    /// Adds what became of a plan that two persons approved.
    pub(super) async fn record_deletion(&self, done: &str) -> Result<(), Failure> {
        let document = DeletionDone::parse(done.as_bytes()).map_err(wrong)?;
        if self.approvals(&document.plan_sha256).await?.len() < APPROVALS_NEEDED {
            return Err(wrong("the log holds no plan of this hash that two persons approved"));
        }
        self.reports.append(done.as_bytes()).await?;
        log::info!(plan = document.plan_id.as_str(); "prune.deletion-recorded");
        Ok(())
    }

    /// The keys that approved a plan which stands in the log.
    async fn approvals(&self, plan_sha256: &Digest) -> Result<BTreeSet<String>, Failure> {
        let guard = self.reports.open().await?;
        let (mut known, mut keys) = (false, BTreeSet::new());
        for (_, entry, bytes) in guard.iter().flat_map(backup_report::Log::entries).flatten() {
            match entry {
                Entry::DeletionPlan(_) => known |= Digest::sha256(&bytes) == *plan_sha256,
                Entry::DeletionDecision(decision)
                    if decision.plan_sha256() == plan_sha256 && decision.decision() == DeletionDecision::Approved =>
                {
                    keys.insert(decision.fingerprint().to_string());
                }
                _ => {}
            }
        }
        Ok(if known { keys } else { BTreeSet::new() })
    }
}
