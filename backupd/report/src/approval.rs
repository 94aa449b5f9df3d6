//! The second person: an approval of a report, signed by the approver's own key, and the corrective action that follows
//! a report which did not pass. Both are entries of the log.

use crate::id::{Digest, ReportId};
use crate::key::{Fingerprint, KeyError, PublicKey, ReportSigner};
use crate::report::{record, to_canonical, words};
use crate::verdict::{ReportError, check, read_canonical};
use serde::{Deserialize, Serialize};

/// Why an approval does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// The bytes are no approval.
    #[error("not a signed-approval/1: {0}")]
    Malformed(ReportError),
    /// The report to approve is not in order.
    #[error("the report to approve is not in order: {0}")]
    Report(ReportError),
    /// The key in the approval is unusable, or did not sign it.
    #[error("the approval's signature: {0}")]
    Signature(#[from] KeyError),
    /// It approves another report.
    #[error("the approval belongs to another report")]
    OtherReport,
    /// It is about another deletion plan.
    #[error("the decision belongs to another deletion plan")]
    OtherPlan,
    /// The verifier's own key approved its own report.
    #[error("the approval is signed with the report's own key: an approval needs a second person")]
    SamePerson,
}

words! {
    /// What the approver decided.
    Decision {
        /// The report stands as evidence.
        Certified,
        /// It stands, and corrective actions are opened.
        CertifiedWithActions,
        /// It does not stand.
        Rejected,
    }
}

words! {
    /// In which role somebody acts.
    OwnerRole { Owner, PracticeIt, DataCenter }
}

/// Fields of this version of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum StatementSchema {
    #[serde(rename = "restore-approval/1")]
    V1,
}

/// Fields of this version of a signed approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum SignedSchema {
    #[serde(rename = "signed-approval/1")]
    V1,
}

/// What the approver signs: the canonical bytes of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    schema: StatementSchema,
    report_id: ReportId,
    report_sha256: Digest,
    decision: Decision,
    role: OwnerRole,
    signed_unix_ms: i64,
    /// The approver's 32-byte public key, hex.
    public_key: Digest,
}

/// The entry of the log: the statement and its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    schema: SignedSchema,
    statement: Statement,
    signature: SignatureHex,
}

/// A 64-byte signature, lower-case hex.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct SignatureHex([u8; 64]);

impl SignatureHex {
    pub(crate) fn of(signature: [u8; 64]) -> Self {
        Self(signature)
    }
}

impl TryFrom<String> for SignatureHex {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        let mut bytes = [0; 64];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| KeyError::SignatureLength)?;
        Ok(Self(bytes))
    }
}

impl From<SignatureHex> for String {
    fn from(signature: SignatureHex) -> String {
        hex::encode(signature.0)
    }
}

/// An approval whose signature was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    signed: Signed,
    key: PublicKey,
}

/// The key that a statement names, which must be the one that signed it.
pub(crate) fn signer_of(
    statement: &impl Serialize,
    named: &Digest,
    signature: &SignatureHex,
) -> Result<PublicKey, ApprovalError> {
    let mut key = [0; 32];
    hex::decode_to_slice(named.as_str(), &mut key).map_err(|_| KeyError::NotAKey)?;
    let key = PublicKey::from_bytes(&key)?;
    key.verify(&to_canonical(statement), &signature.0)?;
    Ok(key)
}

impl Approval {
    /// Approves a report with the approver's own key. Refuses a report that is not in order: nobody should sign one.
    /// Gives the entry's bytes.
    pub fn create(
        signer: &ReportSigner,
        report_bytes: &[u8],
        decision: Decision,
        role: OwnerRole,
        signed_unix_ms: i64,
    ) -> Result<Vec<u8>, ApprovalError> {
        let report = check(report_bytes).map_err(ApprovalError::Report)?;
        let statement = Statement {
            schema: StatementSchema::V1,
            report_id: report.report_id,
            report_sha256: Digest::sha256(report_bytes),
            decision,
            role,
            signed_unix_ms,
            public_key: Digest::of(signer.public_key().as_bytes()),
        };
        let signature = SignatureHex::of(signer.sign(&to_canonical(&statement)));
        Ok(to_canonical(&Signed { schema: SignedSchema::V1, statement, signature }))
    }

    /// Reads an approval and checks its signature with the key in it. Whose key that is, is another question: compare
    /// [`Approval::fingerprint`] with the one known of the person.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApprovalError> {
        let signed: Signed = read_canonical(bytes).map_err(ApprovalError::Malformed)?;
        let key = signer_of(&signed.statement, &signed.statement.public_key, &signed.signature)?;
        Ok(Self { signed, key })
    }

    /// As [`Approval::parse`], and that it is about exactly these report bytes and by another key than the report's.
    pub fn check(bytes: &[u8], report_bytes: &[u8], report_key: &PublicKey) -> Result<Self, ApprovalError> {
        let approval = Self::parse(bytes)?;
        if approval.signed.statement.report_sha256 != Digest::sha256(report_bytes) {
            return Err(ApprovalError::OtherReport);
        }
        if approval.key == *report_key {
            return Err(ApprovalError::SamePerson);
        }
        Ok(approval)
    }

    /// SHA-256 of the approved report's bytes.
    pub fn report_sha256(&self) -> &Digest {
        &self.signed.statement.report_sha256
    }

    /// The approved report.
    pub fn report_id(&self) -> &ReportId {
        &self.signed.statement.report_id
    }

    /// What was decided.
    pub fn decision(&self) -> Decision {
        self.signed.statement.decision
    }

    /// In which role.
    pub fn role(&self) -> OwnerRole {
        self.signed.statement.role
    }

    /// When, by the approver's clock, Unix milliseconds.
    pub fn signed_unix_ms(&self) -> i64 {
        self.signed.statement.signed_unix_ms
    }

    /// The approver's key.
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Its fingerprint.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }

    /// The exact bytes that the approver signed, and the detached signature: for a check with stock openssl.
    pub fn statement(&self) -> (Vec<u8>, [u8; 64]) {
        (to_canonical(&self.signed.statement), self.signed.signature.0)
    }
}

/// Fields of this version of a corrective action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ActionSchema {
    /// The first version.
    #[serde(rename = "corrective-action/1")]
    V1,
}

record! {
    /// What is done about a report: one entry when it is opened, another with the same id when it is closed.
    CorrectiveAction {
        /// `corrective-action/1`.
        schema: ActionSchema,
        /// The action's own id, a UUID of version 7.
        id: ReportId,
        /// The report that gave rise to it.
        report_id: ReportId,
        /// SHA-256 of that report's bytes.
        report_sha256: Digest,
        /// When it was opened, Unix milliseconds.
        opened_unix_ms: i64,
        /// Who has to act.
        owner_role: OwnerRole,
        /// When it was closed.
        closed_unix_ms: Option<i64>,
        /// SHA-256 of the report that shows the remedy; present exactly when closed.
        closing_report_sha256: Option<Digest>,
    }
}

impl CorrectiveAction {
    /// The entry's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_canonical(self)
    }

    pub(crate) fn well_formed(&self) -> Result<(), ReportError> {
        if self.closed_unix_ms.is_some() != self.closing_report_sha256.is_some() {
            return Err(ReportError::Contradiction("an action is closed exactly when a report shows the remedy"));
        }
        if self.closed_unix_ms.is_some_and(|closed| closed < self.opened_unix_ms) {
            return Err(ReportError::Contradiction("an action is closed before it is opened"));
        }
        Ok(())
    }
}
