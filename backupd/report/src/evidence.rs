//! The evidence bundle: everything that an auditor needs for one report, as named files.

use crate::entry::Entry;
use crate::id::Digest;
use crate::key::{PublicKey, SIGNATURE_BYTES};
use crate::log::{Log, LogError};
use crate::verdict::{ReportError, check};

/// The verification script, for stock bash and openssl.
const VERIFY_SH: &str = include_str!("../verify.sh");
const README: &str = include_str!("evidence.txt");

/// Why there is no bundle.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// The report's bytes.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The report is not in the log.
    #[error("the report is not in the log")]
    NotInLog,
}

/// The files `(name, bytes)` for one report, approvals included; `<id>` is the report's id.
///
/// `<id>.json .sig .pub .proof`, `checkpoint`, `<id>.approval-N.json .proof .statement .sig .pub`, `verify.sh`,
/// `README.txt`.
pub fn evidence(
    report_bytes: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
    log: &Log,
    key: &PublicKey,
) -> Result<Vec<(String, Vec<u8>)>, EvidenceError> {
    let report = check(report_bytes)?;
    let index = log.find(report_bytes).ok_or(EvidenceError::NotInLog)?;
    let proof = log.inclusion_proof(index)?;
    let id = report.report_id.as_str();
    let mut files = vec![
        (format!("{id}.json"), report_bytes.to_vec()),
        (format!("{id}.sig"), signature.to_vec()),
        (format!("{id}.pub"), key.to_pem().into_bytes()),
        (format!("{id}.proof"), proof.to_bytes()),
        ("checkpoint".to_owned(), proof.checkpoint.clone()),
    ];
    for (n, index) in (1..).zip(approvals_of(log, report_bytes)?) {
        let bytes = log.entry(index)?;
        let Entry::Approval(approval) = Entry::parse(&bytes).map_err(LogError::from)? else { continue };
        let (statement, signature) = approval.statement();
        let name = |ext: &str| format!("{id}.approval-{n}.{ext}");
        files.push((name("json"), bytes));
        files.push((name("proof"), log.inclusion_proof(index)?.to_bytes()));
        files.push((name("statement"), statement));
        files.push((name("sig"), signature.to_vec()));
        files.push((name("pub"), approval.public_key().to_pem().into_bytes()));
    }
    files.push(("verify.sh".to_owned(), VERIFY_SH.as_bytes().to_vec()));
    files.push(("README.txt".to_owned(), readme(id).into_bytes()));
    Ok(files)
}

/// Places in the log of the approvals of exactly these report bytes, oldest first.
pub fn approvals_of(log: &Log, report_bytes: &[u8]) -> Result<Vec<u64>, LogError> {
    let sha256 = Digest::sha256(report_bytes);
    let from = log.find(report_bytes).map_or(0, |i| i + 1);
    let mut found = Vec::new();
    for index in from..log.size() {
        match Entry::parse(&log.entry(index)?) {
            Ok(Entry::Approval(a)) if *a.report_sha256() == sha256 => found.push(index),
            _ => {}
        }
    }
    Ok(found)
}

fn readme(id: &str) -> String {
    README.replace("{id}", id)
}
