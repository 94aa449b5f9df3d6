//! Golden questions: what a clinician would ask of a restored EMR, answered as keyed hashes so that neither a report nor
//! a log can hold an answer.

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Key of the answers' hashes, hex, 32 random bytes for each snapshot. It travels only sealed, beside the facts.
#[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(transparent)]
pub struct GoldenKey(String);

impl std::fmt::Debug for GoldenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GoldenKey(..)")
    }
}

impl GoldenKey {
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(hex::encode(bytes))
    }

    /// The key's 32 bytes, or `None` when the text is not 64 hex digits.
    pub fn bytes(&self) -> Option<[u8; 32]> {
        let mut out = [0; 32];
        hex::decode_to_slice(&self.0, &mut out).ok()?;
        Some(out)
    }
}

/// A question. The ids in it are record content: they travel sealed, and are never logged.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case", deny_unknown_fields)]
pub enum GoldenQuestion {
    /// The canonical JSON of one patient.
    PatientById { id: String },
    /// The ids, times and states of a day's appointments, in order; the day as `YYYY-MM-DD` in the practice's zone.
    AppointmentsOn { day: String },
    /// The canonical JSON of one note (a `DocumentReference` or `Composition`).
    Note { kind: String, id: String },
    /// The BLAKE3 of one attachment's bytes, re-hashed from disk.
    AttachmentDigest { id: String },
    /// The head of the audit chain.
    AuditHead,
}

/// A question with the hash of the answer that was true at snapshot time.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenQuery {
    pub question: GoldenQuestion,
    pub expected: String,
}

impl std::fmt::Debug for GoldenQuestion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PatientById { .. } => "PatientById(..)",
            Self::AppointmentsOn { .. } => "AppointmentsOn(..)",
            Self::Note { .. } => "Note(..)",
            Self::AttachmentDigest { .. } => "AttachmentDigest(..)",
            Self::AuditHead => "AuditHead",
        })
    }
}

impl std::fmt::Debug for GoldenQuery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.question.fmt(f)
    }
}

/// The keyed hash of an answer's bytes, hex: what both sides compare.
pub fn answer_hash(key: &[u8; 32], answer: &[u8]) -> String {
    blake3::keyed_hash(key, answer).to_hex().to_string()
}
