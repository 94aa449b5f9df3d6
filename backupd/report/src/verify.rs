//! The whole verification of one report, as an auditor wants it: signature, log, verdict, approvals.

use crate::approval::{Approval, ApprovalError};
use crate::key::{Fingerprint, KeyError, PublicKey};
use crate::note::Checkpoint;
use crate::proof::{Proof, ProofError};
use crate::report::Report;
use crate::verdict::{ReportError, check};

/// The files of one report.
#[derive(Debug, Clone, Default)]
pub struct Bundle {
    /// The report's exact bytes.
    pub report: Vec<u8>,
    /// The detached signature, 64 bytes.
    pub signature: Vec<u8>,
    /// The signer's public key, PEM.
    pub public_key: Vec<u8>,
    /// The proof that the report is in the log.
    pub proof: Vec<u8>,
    /// Each approval, with the proof that it is in the log when there is one.
    pub approvals: Vec<(Vec<u8>, Option<Vec<u8>>)>,
}

/// Whether the signer is the one that the auditor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything holds and the signer is known.
    Verified,
    /// Everything holds, but the key is known from the bundle only: anybody could have made it.
    SignerUnknown,
}

/// Why a report does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The public key file.
    #[error("the public key: {0}")]
    Key(KeyError),
    /// The signature file.
    #[error("the report's signature: {0}")]
    Signature(KeyError),
    /// The report's content.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The report's proof.
    #[error("the log: {0}")]
    Proof(#[from] ProofError),
    /// An approval.
    #[error("approval {0}: {1}")]
    Approval(usize, ApprovalError),
    /// An approval's proof.
    #[error("approval {0} in the log: {1}")]
    ApprovalProof(usize, ProofError),
}

/// A report that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Whether the signer is known.
    pub outcome: Outcome,
    /// The report; its verdict is the rule's.
    pub report: Report,
    /// The signer.
    pub fingerprint: Fingerprint,
    /// The report's place in the log, from 0.
    pub index: u64,
    /// The signed head of the log that covers it.
    pub checkpoint: Checkpoint,
    /// Each approval with its place in the log, when proved.
    pub approvals: Vec<(Approval, Option<u64>)>,
}

/// Checks everything. `trusted` is the signer's fingerprint as known from elsewhere: without it, or with another, the
/// outcome can be [`Outcome::SignerUnknown`] at best.
pub fn verify(bundle: &Bundle, trusted: Option<Fingerprint>) -> Result<Verified, VerifyError> {
    let key = PublicKey::from_pem(&bundle.public_key).map_err(VerifyError::Key)?;
    key.verify(&bundle.report, &bundle.signature).map_err(VerifyError::Signature)?;
    let report = check(&bundle.report)?;
    let proof = Proof::parse(&bundle.proof)?;
    let checkpoint = proof.verify(&bundle.report, &key)?;
    let mut approvals = Vec::new();
    for (n, (bytes, proof)) in (1..).zip(&bundle.approvals) {
        let approval = Approval::check(bytes, &bundle.report, &key).map_err(|e| VerifyError::Approval(n, e))?;
        let index = proof.as_ref().map(|proof| approval_index(proof, bytes, &key)).transpose();
        approvals.push((approval, index.map_err(|e| VerifyError::ApprovalProof(n, e))?));
    }
    let fingerprint = key.fingerprint();
    let outcome = if trusted == Some(fingerprint) { Outcome::Verified } else { Outcome::SignerUnknown };
    Ok(Verified { outcome, report, fingerprint, index: proof.index, checkpoint, approvals })
}

fn approval_index(proof: &[u8], approval: &[u8], key: &PublicKey) -> Result<u64, ProofError> {
    let proof = Proof::parse(proof)?;
    proof.verify(approval, key)?;
    Ok(proof.index)
}
