//! Deletions: the plan that says what of the history goes, the decisions that persons sign about exactly that plan, and what
//! was deleted in the end. All three are entries of the log.
//!
//! A plan that shrinks the history needs two persons: two decisions to approve, by different keys. Whose keys count is
//! another question; whoever executes compares fingerprints with those that the practice has set.

use crate::approval::{ApprovalError, SignatureHex, signer_of};
use crate::id::{Digest, Label, OpaqueId, ReportId};
use crate::key::{Fingerprint, PublicKey, ReportSigner};
use crate::report::{record, to_canonical, words};
use crate::verdict::{ReportError, read_canonical_upto};
use serde::{Deserialize, Serialize};

/// No plan is longer, bytes.
const PLAN_BYTES_MAX: usize = 3 << 20;
/// How many persons must approve a plan that shrinks the history.
pub const APPROVALS_NEEDED: usize = 2;

words! {
    /// What a rule counts.
    KeepKind { Last, Hourly, Daily, Weekly, Monthly, Yearly, Within, Tagged }
}

words! {
    /// What looked like an attack.
    TripWord { SizeDrop, Entropy, MassRemoval, MassRename, MassChange, HeadGap }
}

/// Fields of this version of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlanSchema {
    /// The first version.
    #[serde(rename = "deletion-plan/1")]
    V1,
}

record! {
    /// What of the history goes, and by which rules. Times are Unix milliseconds, sizes bytes.
    DeletionPlan {
        /// `deletion-plan/1`.
        schema: PlanSchema,
        /// The plan's own id, a UUID of version 7.
        plan_id: ReportId,
        /// Which repository.
        repository: OpaqueId,
        /// When it was made.
        made_unix_ms: i64,
        /// The rules in force, in the settings' order.
        rules: Vec<PlanRule>,
        /// Orders to delete nothing of something, ascending.
        holds: Vec<Label>,
        /// Snapshots that there are.
        snapshots: u64,
        /// Those that go, newest first.
        going: Vec<GoingSnapshot>,
        /// What looks like an attack: whoever approves has looked at it.
        trips: Vec<PlanTrip>,
        /// Time between announcement and deletion.
        grace_ms: u64,
        /// What goes with them, and what it costs.
        figures: PlanFigures,
    }
}

record! {
    /// A rule as the plan was made by it.
    PlanRule {
        /// The source that it is about; absent: every source.
        source: Option<Label>,
        /// What it counts.
        keep: KeepKind,
        /// How many; of `within` milliseconds, of `tagged` 0.
        count: u64,
        /// The class of records that it is there for.
        record_class: Option<Label>,
    }
}

record! {
    /// A snapshot that no rule keeps.
    GoingSnapshot {
        /// Its id.
        id: OpaqueId,
        /// Its source.
        source: Label,
        /// When it was taken, by the writer's clock.
        taken_unix_ms: i64,
        /// When it came, by the log and the stores.
        received_unix_ms: i64,
    }
}

record! {
    /// A finding of the tripwire.
    PlanTrip {
        /// What.
        kind: TripWord,
        /// Of which source.
        source: Label,
        /// In which snapshot.
        snapshot: OpaqueId,
        /// Bytes, files, or bytes of sealed for 1000 bytes of content; before.
        before: u64,
        /// And after.
        after: u64,
    }
}

record! {
    /// How much goes, and what it costs; money in millionths of the prices' currency.
    PlanFigures {
        /// Packs that go from each store.
        packs: u64,
        /// Their bytes.
        pack_bytes: u64,
        /// Of these, written anew for what of them is still needed.
        packs_rewritten: u64,
        /// Bytes written anew.
        rewritten_bytes: u64,
        /// Index objects that are merged.
        indexes_merged: u64,
        /// Bytes freed, over all stores.
        bytes_freed: u64,
        /// Requests that write.
        puts: u64,
        /// Requests that read.
        gets: u64,
        /// Requests that list.
        lists: u64,
        /// Requests that delete.
        deletes: u64,
        /// What the requests and the traffic cost once.
        cost_millionths: u64,
        /// What no longer has to be paid each month.
        saved_millionths_per_month: u64,
    }
}

impl DeletionPlan {
    /// Reads a plan's exact bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let plan: Self = read_canonical_upto(bytes, PLAN_BYTES_MAX)?;
        if plan.going.len() as u64 > plan.snapshots {
            return Err(ReportError::Contradiction("more snapshots go than there are"));
        }
        if !plan.holds.is_sorted_by(|a, b| a < b) {
            return Err(ReportError::Contradiction("holds are doubled or out of order"));
        }
        Ok(plan)
    }

    /// The exact bytes that are signed about and logged.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_canonical(self)
    }

    /// How many persons have to approve.
    pub fn approvals_needed(&self) -> usize {
        if self.going.is_empty() && self.trips.is_empty() { 0 } else { APPROVALS_NEEDED }
    }
}

words! {
    /// What a person decided about a plan.
    DeletionDecision { Approved, Refused }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum StatementSchema {
    #[serde(rename = "deletion-decision/1")]
    V1,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum SignedSchema {
    #[serde(rename = "signed-deletion-decision/1")]
    V1,
}

/// What a person signs: the canonical bytes of this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Statement {
    schema: StatementSchema,
    plan_id: ReportId,
    plan_sha256: Digest,
    decision: DeletionDecision,
    signed_unix_ms: i64,
    /// The person's 32-byte public key, hex.
    public_key: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signed {
    schema: SignedSchema,
    statement: Statement,
    signature: SignatureHex,
}

/// A person's decision about a plan, its signature checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedDecision {
    signed: Signed,
    key: PublicKey,
}

impl SignedDecision {
    /// Decides about a plan with the person's own key; gives the entry's bytes.
    pub fn create(
        signer: &ReportSigner,
        plan_bytes: &[u8],
        decision: DeletionDecision,
        signed_unix_ms: i64,
    ) -> Result<Vec<u8>, ReportError> {
        let plan = DeletionPlan::parse(plan_bytes)?;
        let statement = Statement {
            schema: StatementSchema::V1,
            plan_id: plan.plan_id,
            plan_sha256: Digest::sha256(plan_bytes),
            decision,
            signed_unix_ms,
            public_key: Digest::of(signer.public_key().as_bytes()),
        };
        let signature = SignatureHex::of(signer.sign(&to_canonical(&statement)));
        Ok(to_canonical(&Signed { schema: SignedSchema::V1, statement, signature }))
    }

    /// Reads a decision and checks its signature with the key in it. Whose key that is, is another question.
    pub fn parse(bytes: &[u8]) -> Result<Self, ApprovalError> {
        let signed: Signed = read_canonical_upto(bytes, PLAN_BYTES_MAX).map_err(ApprovalError::Malformed)?;
        let key = signer_of(&signed.statement, &signed.statement.public_key, &signed.signature)?;
        Ok(Self { signed, key })
    }

    /// As [`SignedDecision::parse`], and that it is about exactly these bytes of a plan.
    pub fn check(bytes: &[u8], plan_bytes: &[u8]) -> Result<Self, ApprovalError> {
        let decision = Self::parse(bytes)?;
        if decision.signed.statement.plan_sha256 != Digest::sha256(plan_bytes) {
            return Err(ApprovalError::OtherPlan);
        }
        Ok(decision)
    }

    /// The plan.
    pub fn plan_id(&self) -> &ReportId {
        &self.signed.statement.plan_id
    }

    /// SHA-256 of the plan's bytes.
    pub fn plan_sha256(&self) -> &Digest {
        &self.signed.statement.plan_sha256
    }

    /// What was decided.
    pub fn decision(&self) -> DeletionDecision {
        self.signed.statement.decision
    }

    /// When, by the person's clock, Unix milliseconds.
    pub fn signed_unix_ms(&self) -> i64 {
        self.signed.statement.signed_unix_ms
    }

    /// The fingerprint of the person's key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DoneSchema {
    /// The first version.
    #[serde(rename = "deletion-done/1")]
    V1,
}

record! {
    /// What became of a plan: written when its order was carried out at every store, and once more when what a lock had kept
    /// is gone too.
    DeletionDone {
        /// `deletion-done/1`.
        schema: DoneSchema,
        /// The plan.
        plan_id: ReportId,
        /// SHA-256 of its bytes.
        plan_sha256: Digest,
        /// When.
        done_unix_ms: i64,
        /// Snapshots of the order.
        snapshots: u64,
        /// Packs of the order.
        packs: u64,
        /// Packs that were announced and that something reached again.
        rescued: u64,
        /// What was deleted, by store, ascending.
        stores: Vec<StoreDone>,
    }
}

record! {
    /// What was deleted at one store.
    StoreDone {
        /// The store's name in the settings.
        store: Label,
        /// Objects that are gone.
        objects: u64,
        /// Their bytes.
        bytes: u64,
        /// Objects that a lock keeps for now.
        locked: u64,
    }
}

impl DeletionDone {
    /// Reads the entry's exact bytes.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReportError> {
        let done: Self = read_canonical_upto(bytes, PLAN_BYTES_MAX)?;
        match done.stores.is_sorted_by(|a, b| a.store < b.store) {
            true => Ok(done),
            false => Err(ReportError::Contradiction("stores are doubled or out of order")),
        }
    }

    /// The entry's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        to_canonical(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> DeletionPlan {
        DeletionPlan {
            schema: PlanSchema::V1,
            plan_id: ReportId::parse("01912d68-783e-7a03-8467-000000000003").unwrap(),
            repository: OpaqueId::parse("00112233445566778899aabbccddeeff").unwrap(),
            made_unix_ms: 1,
            rules: vec![PlanRule { source: None, keep: KeepKind::Daily, count: 7, record_class: None }],
            holds: Vec::new(),
            snapshots: 2,
            going: vec![GoingSnapshot {
                id: OpaqueId::parse(&"ab".repeat(32)).unwrap(),
                source: Label::parse("emr").unwrap(),
                taken_unix_ms: -1,
                received_unix_ms: 0,
            }],
            trips: Vec::new(),
            grace_ms: 5,
            figures: PlanFigures {
                packs: 1,
                pack_bytes: 2,
                packs_rewritten: 0,
                rewritten_bytes: 0,
                indexes_merged: 0,
                bytes_freed: 6,
                puts: 1,
                gets: 1,
                lists: 1,
                deletes: 1,
                cost_millionths: 1,
                saved_millionths_per_month: 1,
            },
        }
    }

    #[test]
    fn a_decision_is_about_exactly_one_plan_by_one_key() {
        let (bytes, signer) = (plan().to_bytes(), ReportSigner::from_seed(&[3; 32]));
        let decision = SignedDecision::create(&signer, &bytes, DeletionDecision::Approved, 9).unwrap();
        let checked = SignedDecision::check(&decision, &bytes).unwrap();
        assert_eq!(checked.fingerprint(), signer.public_key().fingerprint());
        assert_eq!((checked.decision(), checked.signed_unix_ms()), (DeletionDecision::Approved, 9));
        let other = DeletionPlan { grace_ms: 0, ..plan() }.to_bytes();
        assert_eq!(SignedDecision::check(&decision, &other), Err(ApprovalError::OtherPlan));
        let refused = String::from_utf8(decision.clone()).unwrap().replace("\"approved\"", "\"refused\"");
        assert!(matches!(SignedDecision::parse(refused.as_bytes()), Err(ApprovalError::Signature(_))));
        for at in 0..decision.len() {
            let mut changed = decision.clone();
            changed[at] ^= 1;
            assert!(SignedDecision::check(&changed, &bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_plan_has_one_form_and_says_how_many_must_agree() {
        let bytes = plan().to_bytes();
        assert_eq!(DeletionPlan::parse(&bytes).unwrap(), plan());
        assert!(DeletionPlan::parse(&[bytes.as_slice(), b"\n"].concat()).is_err());
        assert!(DeletionPlan::parse(&DeletionPlan { snapshots: 0, ..plan() }.to_bytes()).is_err());
        assert_eq!(plan().approvals_needed(), 2);
        assert_eq!(DeletionPlan { going: Vec::new(), ..plan() }.approvals_needed(), 0);
    }
}
