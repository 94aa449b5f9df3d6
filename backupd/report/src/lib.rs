//! Evidence that a restore worked: the restore report and its rule, its signature, the transparency log that holds it,
//! proofs that anybody can check with stock tools, and a second person's approval.
//!
//! Shape of use, for the one who runs a drill:
//!
//! ```text
//! let mut report = Report { .. };                 // what was seen, in closed fields
//! report.settle()?;                               // sorts, measures RTO and RPO, states the verdict
//! let bytes = report.to_bytes();                  // these exact bytes are signed and logged
//! let signature = signer.sign(&bytes);            // 64 bytes, the file `<id>.sig`
//! let index = log.append(&signer, &bytes)?;       // durable, with a new signed checkpoint
//! for (name, object) in log.objects_missing(|name| store_has(name))? { store.put(name, object) }
//! let files = evidence(&bytes, &signature, &log, &signer.public_key())?;   // for an auditor
//! ```
//!
//! No type in this crate can carry free text: every string is a closed word or a validated id.

mod approval;
mod damaged;
mod deletion;
mod entry;
mod evidence;
mod fork;
mod id;
mod key;
mod log;
mod merkle;
mod note;
mod places;
mod proof;
mod render;
mod report;
mod salvage;
mod verdict;
mod verify;
mod view;

pub use approval::{ActionSchema, Approval, ApprovalError, CorrectiveAction, Decision, OwnerRole};
pub use damaged::{damaged, first_whole};
pub use deletion::{
    APPROVALS_NEEDED, DeletionDecision, DeletionDone, DeletionPlan, DoneSchema, GoingSnapshot, KeepKind, PlanFigures,
    PlanRule, PlanSchema, PlanTrip, SignedDecision, StoreDone, TripWord,
};
pub use entry::{Entry, EntryError, EntryKind};
pub use evidence::{EvidenceError, approvals_of, evidence};
pub use id::{Digest, IdError, Label, OpaqueId, ReportId, ResourceType, Version};
pub use key::{Fingerprint, KeyError, PublicKey, ReportSigner, SIGNATURE_BYTES};
pub use log::{Log, LogError};
pub use merkle::{Hash, consistency_path, inclusion_path, leaf_hash, root_of, verify_consistency, verify_inclusion};
pub use note::{Checkpoint, NoteError, Origin};
pub use proof::{Proof, ProofError};
pub use render::{render_html, render_text, time_text};
pub use report::{
    AuditChain, Canary, Check, CheckResult, CheckRun, Environment, Fact, FactCompared, GoldenCompared, GoldenKind,
    HeadsSeen, Integrity, OtherHeads, Program, Reason, Report, ResourceCompared, Restored, Rpo, Rto, Schema, Snapshot,
    SourceStore, StoreKind, Timing, Verdict,
};
pub use salvage::Reach;
pub use verdict::{Finding, ReportError, check, findings, verdict};
pub use verify::{Bundle, Outcome, Verified, VerifyError, verify};
pub use view::{Disagreement, Seen, View, compare_checkpoints};
