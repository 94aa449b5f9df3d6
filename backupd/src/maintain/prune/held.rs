//! A plan as it is kept in the state folder.

use crate::failure;
use backup_engine::SnapshotId;
use backup_engine::prune::{Trip, TripKind};
use backup_report::{DeletionPlan, TripWord};
use backupd_api::{Failure, FailureKind, PrunePlan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A plan and what the daemon has still to do about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Held {
    pub plan: PrunePlan,
    /// When it is looked at again.
    pub next_unix_ms: Option<i64>,
    /// An entry about what was deleted that is not in the log yet.
    pub unrecorded: Option<String>,
    /// A refusal that is not in the log yet: it counts at once, whether the verifier answers or not.
    #[serde(default)]
    pub refusal: Option<String>,
    /// What came after its announcement looks like an attack.
    #[serde(default)]
    pub attacked: bool,
    /// Its number in the stores.
    #[serde(default)]
    pub announced: Option<u64>,
}

impl Held {
    /// The signed text's fields.
    pub fn document(&self) -> Result<DeletionPlan, Failure> {
        DeletionPlan::parse(self.plan.document.as_bytes()).map_err(|error| {
            failure::new(FailureKind::Damaged, format!("the plan that is kept here: {error}; make a new one"))
        })
    }

    pub fn approvals(&self) -> u32 {
        self.plan.decisions.iter().filter(|decision| decision.approved).count() as u32
    }
}

/// The snapshots that a plan says may go.
pub fn going(document: &DeletionPlan) -> BTreeSet<SnapshotId> {
    document.going.iter().filter_map(|gone| gone.id.as_str().parse().ok()).collect()
}

/// What its persons have looked at.
pub fn trips(document: &DeletionPlan) -> Vec<Trip> {
    let trip = |seen: &backup_report::PlanTrip| {
        Some(Trip {
            kind: kind(seen.kind),
            source: seen.source.as_str().to_owned(),
            snapshot: seen.snapshot.as_str().parse().ok()?,
            before: seen.before,
            after: seen.after,
        })
    };
    document.trips.iter().filter_map(trip).collect()
}

fn kind(word: TripWord) -> TripKind {
    match word {
        TripWord::SizeDrop => TripKind::SizeDrop,
        TripWord::Entropy => TripKind::Entropy,
        TripWord::MassRemoval => TripKind::MassRemoval,
        TripWord::MassRename => TripKind::MassRename,
        TripWord::MassChange => TripKind::MassChange,
        TripWord::HeadGap => TripKind::HeadGap,
    }
}

pub fn word(kind: TripKind) -> TripWord {
    match kind {
        TripKind::SizeDrop => TripWord::SizeDrop,
        TripKind::Entropy => TripWord::Entropy,
        TripKind::MassRemoval => TripWord::MassRemoval,
        TripKind::MassRename => TripWord::MassRename,
        TripKind::MassChange => TripWord::MassChange,
        TripKind::HeadGap => TripWord::HeadGap,
    }
}
