//! What may stand in the log: six kinds of entry, each with its own closed schema.

use crate::approval::{Approval, ApprovalError, CorrectiveAction};
use crate::deletion::{DeletionDone, DeletionPlan, SignedDecision};
use crate::report::Report;
use crate::verdict::{ReportError, check, read_canonical};
use serde::Deserialize;

/// Why bytes may not stand in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Of no kind that this version knows. Not damage: a later version may have written it.
    #[error("an entry of a kind that this version does not know")]
    UnknownKind,
    /// A report that is not in order.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// An approval that is not in order.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
}

/// The kinds of entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum EntryKind {
    /// A restore report.
    #[serde(rename = "restore-report/1")]
    Report,
    /// A second person's decision about a report.
    #[serde(rename = "signed-approval/1")]
    Approval,
    /// What is done about a report that did not pass.
    #[serde(rename = "corrective-action/1")]
    CorrectiveAction,
    /// What of the history is to go.
    #[serde(rename = "deletion-plan/1")]
    DeletionPlan,
    /// A person's decision about a deletion plan.
    #[serde(rename = "signed-deletion-decision/1")]
    DeletionDecision,
    /// What became of a deletion plan.
    #[serde(rename = "deletion-done/1")]
    DeletionDone,
}

/// One entry, read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// A restore report whose verdict is the rule's.
    Report(Box<Report>),
    /// An approval whose signature is that of the key in it.
    Approval(Box<Approval>),
    /// A corrective action.
    CorrectiveAction(CorrectiveAction),
    /// A deletion plan.
    DeletionPlan(Box<DeletionPlan>),
    /// A decision whose signature is that of the key in it.
    DeletionDecision(Box<SignedDecision>),
    /// What became of a plan.
    DeletionDone(Box<DeletionDone>),
}

impl Entry {
    /// Reads and checks an entry's bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, EntryError> {
        #[derive(Deserialize)]
        struct Head {
            schema: EntryKind,
        }
        match serde_json::from_slice::<Head>(bytes).map_err(|_| EntryError::UnknownKind)?.schema {
            EntryKind::Report => Ok(Self::Report(Box::new(check(bytes)?))),
            EntryKind::Approval => Ok(Self::Approval(Box::new(Approval::parse(bytes)?))),
            EntryKind::CorrectiveAction => {
                let action: CorrectiveAction = read_canonical(bytes)?;
                action.well_formed()?;
                Ok(Self::CorrectiveAction(action))
            }
            EntryKind::DeletionPlan => Ok(Self::DeletionPlan(Box::new(DeletionPlan::parse(bytes)?))),
            EntryKind::DeletionDecision => Ok(Self::DeletionDecision(Box::new(SignedDecision::parse(bytes)?))),
            EntryKind::DeletionDone => Ok(Self::DeletionDone(Box::new(DeletionDone::parse(bytes)?))),
        }
    }

    /// The entry's kind.
    pub fn kind(&self) -> EntryKind {
        match self {
            Self::Report(_) => EntryKind::Report,
            Self::Approval(_) => EntryKind::Approval,
            Self::CorrectiveAction(_) => EntryKind::CorrectiveAction,
            Self::DeletionPlan(_) => EntryKind::DeletionPlan,
            Self::DeletionDecision(_) => EntryKind::DeletionDecision,
            Self::DeletionDone(_) => EntryKind::DeletionDone,
        }
    }
}
