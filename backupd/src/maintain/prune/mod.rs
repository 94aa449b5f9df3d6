//! Prune by the daemon: a plan by the rules of the settings, two persons who sign that they agree, then announcement, grace
//! and deletion beside running backups.
//!
//! The keys are read for each step and forgotten after it. What was announced stands in the stores, what was decided in the
//! log of reports: a lost state folder loses a plan that nobody has decided about, and nothing else.

mod decide;
mod held;
mod history;
mod plan;
mod step;

pub use held::Held;

use super::Maintain;
use crate::settings::{PruneSettings, rule_text};
use crate::{clock, failure, secret};
use anyhow::Context;
use backup_engine::prune::GivenUp;
use backup_engine::retain::HoldScope;
use backup_engine::{HeadName, NamedMaintenanceStore, NamedStore, OpenKey, PrunerCredential};
use backup_report::{DeletionDecision, DeletionPlan, OpaqueId, Origin, PublicKey, SignedDecision};
use backupd_api::{
    Alert, AlertKind, Failure, FailureKind, PruneApprover, PruneDecision, PruneState, PruneStatus, Severity,
};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

pub const PLAN_JOB: &str = "prune-plan";
const OPEN_CREDENTIAL: &str = "open";
const PRUNER_CREDENTIAL: &str = "pruner";

/// What pruning needs besides the stores.
pub struct Pruning {
    pub settings: PruneSettings,
    /// The verifier's key: only what it signed is proved.
    report_key: PublicKey,
    repository: OpaqueId,
    origin: Origin,
    /// After a lost state folder the log is looked at once by itself.
    looked: AtomicBool,
    /// Held while a step goes on with a plan. Whoever decides about it waits.
    carrying: tokio::sync::Mutex<()>,
}

/// The keys of one step.
struct Keys {
    open: OpenKey,
    pruner: PrunerCredential,
}

impl Pruning {
    /// Checks at the start that everything is there; the keys are not kept.
    pub fn open(settings: PruneSettings) -> anyhow::Result<Self> {
        let keys = Keys::read(&settings)?;
        let pem = std::fs::read(&settings.report_key)
            .with_context(|| format!("`prune.report_key` {} cannot be read", settings.report_key.display()))?;
        let report_key = PublicKey::from_pem(&pem).context("`prune.report_key`")?;
        let repository = OpaqueId::parse(&keys.open.repository().to_string())?;
        let origin = Origin::of_repository(&repository);
        let (looked, carrying) = (AtomicBool::new(false), tokio::sync::Mutex::new(()));
        Ok(Self { report_key, origin, repository, settings, looked, carrying })
    }

    fn keys(&self) -> Result<Keys, Failure> {
        Keys::read(&self.settings).map_err(|error| failure::new(FailureKind::Misconfigured, format!("{error:#}")))
    }

    /// A decision as it is shown.
    fn told(&self, decision: &SignedDecision) -> PruneDecision {
        let fingerprint = decision.fingerprint().to_string();
        PruneDecision {
            approver: self.approver(&fingerprint).map(str::to_owned),
            approved: decision.decision() == DeletionDecision::Approved,
            signed_unix_ms: decision.signed_unix_ms(),
            fingerprint,
        }
    }

    /// Whether somebody signed it who may.
    fn counts(&self, decision: &SignedDecision) -> bool {
        self.approver(&decision.fingerprint().to_string()).is_some()
    }

    /// Who has this key.
    fn approver(&self, fingerprint: &str) -> Option<&str> {
        let found = self.settings.approvers.iter().find(|approver| approver.fingerprint.to_string() == fingerprint);
        found.map(|approver| approver.name.as_str())
    }
}

impl Keys {
    fn read(settings: &PruneSettings) -> anyhow::Result<Self> {
        let open = secret::load(settings.open_key.as_deref(), OPEN_CREDENTIAL).context("`prune.open_key`")?;
        let open = OpenKey::from_bytes(&open).context("`prune.open_key`")?;
        let pruner = secret::load(settings.pruner_credential.as_deref(), PRUNER_CREDENTIAL)
            .context("`prune.pruner_credential`: `backupd keys pruner` makes one")?;
        let pruner = PrunerCredential::from_bytes(&pruner).context("`prune.pruner_credential`")?;
        anyhow::ensure!(
            open.repository() == pruner.repository(),
            "`prune.open_key` and `prune.pruner_credential` belong to two repositories: make the credential with `backupd keys pruner`"
        );
        Ok(Self { open, pruner })
    }
}

impl Maintain {
    fn pruning(&self) -> Result<&Pruning, Failure> {
        self.pruning.as_ref().ok_or_else(|| {
            let message = format!(
                "{} has no [prune]: nothing is ever deleted; say there what is kept and who must agree",
                self.settings.file.display()
            );
            failure::new(FailureKind::Misconfigured, message)
        })
    }

    pub(super) fn plain_stores(&self) -> Vec<NamedStore> {
        self.stores.iter().map(NamedMaintenanceStore::as_store).collect()
    }

    /// What there is to show: the rules in force and the newest plan.
    pub fn prune_status(&self) -> Result<PruneStatus, Failure> {
        let now_unix_ms = clock::unix_ms();
        let Some(pruning) = &self.pruning else {
            return Ok(PruneStatus {
                now_unix_ms,
                enabled: false,
                rules: Vec::new(),
                holds: Vec::new(),
                approvers: Vec::new(),
                plan: None,
                next_plan_unix_ms: None,
            });
        };
        let policy = &pruning.settings.policy;
        let hold = |hold: &backup_engine::retain::Hold| {
            let what = match &hold.scope {
                HoldScope::Source(source) => format!("source {source}"),
                // A tag is record content.
                HoldScope::Tag(_) => "a tag".to_owned(),
                HoldScope::Snapshot(id) => format!("snapshot {id}"),
            };
            format!("{}: {what}, ordered by {} on {}", hold.reason, hold.placed_by, self.day(hold.placed_unix_ms))
        };
        let approver = |approver: &crate::settings::Approver| PruneApprover {
            name: approver.name.clone(),
            fingerprint: approver.fingerprint.to_string(),
        };
        Ok(PruneStatus {
            now_unix_ms,
            enabled: true,
            rules: policy.rules.iter().map(rule_text).collect(),
            holds: policy.holds.iter().map(hold).collect(),
            approvers: pruning.settings.approvers.iter().map(approver).collect(),
            plan: self.records.held().map(|held| held.plan),
            next_plan_unix_ms: self.next_plan_ms(now_unix_ms),
        })
    }

    pub fn next_plan_ms(&self, now: i64) -> Option<i64> {
        let pruning = self.pruning.as_ref()?;
        self.jobs().due_ms(PLAN_JOB, &pruning.settings.schedule, now).ok().flatten()
    }

    /// The key that reads what the stores hold; only who prunes has it.
    pub fn open_key(&self) -> Option<OpenKey> {
        self.pruning.as_ref()?.keys().ok().map(|keys| keys.open)
    }

    /// When the plan that is under way is looked at again.
    pub fn next_step_ms(&self) -> Option<i64> {
        let pruning = self.pruning.as_ref()?;
        match self.records.held() {
            Some(held) => held.next_unix_ms,
            None => (!pruning.looked.load(Ordering::Relaxed)).then_some(0),
        }
    }

    /// Objects that are gone, or go, on purpose: those of the newest order and of every order before. Whether the stores were
    /// asked now and these are all.
    pub async fn condemned(&self) -> (BTreeSet<String>, bool) {
        let mut all = false;
        if let Some(pruning) = &self.pruning {
            let named = match pruning.keys() {
                Ok(keys) => backup_engine::condemned_objects(keys.open.catalog(), &self.plain_stores())
                    .await
                    .map_err(|error| error.to_string()),
                Err(failure) => Err(failure.message),
            };
            match named {
                Ok(names) => {
                    all = true;
                    self.note_condemned(&names);
                }
                Err(reason) => log::warn!(reason = reason.as_str(); "prune.order-not-read"),
            }
        }
        match self.records.condemned() {
            Ok(names) => (names, all),
            Err(_) => (BTreeSet::new(), false),
        }
    }

    /// What nobody can bring back, and a person knows of.
    fn given_up(&self) -> GivenUp {
        GivenUp::These(self.records.given_up().unwrap_or_default())
    }

    /// A head that was there and that no store has any more: nobody knows what it reached, so it would go without a word.
    fn require_heads(&self) -> Result<(), Failure> {
        let known = |error: rusqlite::Error| crate::maintain::gaps::not_noted(&error);
        let (told, known) = (self.records.told().map_err(known)?, self.records.condemned().map_err(known)?);
        let lost = told.iter().filter(|name| name.parse::<HeadName>().is_ok() && !known.contains(*name)).count();
        if lost == 0 {
            return Ok(());
        }
        let message = format!(
            "{lost} heads that were there are gone from every store, and what only they reach would go with them: put them back, or say \
             `backupd looked-into` with the name of a store"
        );
        Err(failure::new(FailureKind::Damaged, message))
    }

    fn day(&self, unix_ms: i64) -> String {
        let time = chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
        time.with_timezone(&self.settings.zone).format("%Y-%m-%d").to_string()
    }

    fn note_condemned(&self, names: &BTreeSet<String>) {
        if let Err(error) = self.records.add_condemned(names) {
            log::error!(reason:% = error; "maintain.not-recorded");
        }
    }

    /// What looks like an attack stops a plan until two persons have looked. That no plan could be made, or that one is not
    /// carried out, is told, too: the stores fill.
    pub fn prune_alerts(&self) -> Vec<Alert> {
        let held = self.records.held();
        let attack = |plan: DeletionPlan| !plan.trips.is_empty();
        let is_stopped = |held: &&Held| match held.plan.state {
            PruneState::Proposed => held.document().is_ok_and(attack),
            PruneState::Announced => held.attacked,
            _ => false,
        };
        let is_open = |held: &&Held| {
            let states = [PruneState::Approved, PruneState::Announced, PruneState::Deleting, PruneState::Refused];
            states.contains(&held.plan.state)
        };
        let stuck = held.as_ref().filter(is_open).filter(|held| held.plan.problem.is_some());
        let unmade = self.jobs().last(PLAN_JOB).ok().flatten().filter(|last| self.pruning.is_some() && !last.ok);
        let alert = |kind, severity, since_unix_ms| Alert { kind, severity, subject: None, since_unix_ms };
        let stopped = held.as_ref().filter(is_stopped).map(|held| held.plan.made_unix_ms);
        let failed = stuck.map(|held| held.plan.made_unix_ms).or(unmade.map(|last| last.at_ms));
        let stopped = stopped.map(|since| alert(AlertKind::PruneStopped, Severity::Critical, since));
        stopped.into_iter().chain(failed.map(|since| alert(AlertKind::PruneFailed, Severity::Warning, since))).collect()
    }
}
