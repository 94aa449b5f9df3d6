//! What the EMR offers to the backup over its operations socket: quiesce (a lease), facts and the probe.
//!
//! One connection carries newline-delimited JSON: the client writes one [`Request`] a line, the server answers each with
//! one [`Response`] line. What could delay a clinician is over before the answer: the consistent copy is made under a read
//! transaction while writers go on, and nothing of the EMR waits for the backup afterwards. So a lease lives as long as its
//! connection (the staged copy is read for as long as a slow store needs); a dead backup's ends with it, a stuck one's after
//! [`STAGED_MS_MAX`]. The same messages are spoken by the running service (`quiesce`) and by `appliance probe DIR` (`golden`).

mod client;
mod golden;

pub use client::{Client, ClientError};
pub use golden::{GoldenKey, GoldenQuery, GoldenQuestion, answer_hash};

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The version of these messages; a peer that speaks another is refused by name.
pub const PROTOCOL: u32 = 1;
/// The longest line either side accepts, bytes.
pub const LINE_BYTES_MAX: usize = 8 << 20;
/// A clinician's write that waits this long for the copy ends the lease by itself, milliseconds.
pub const LEASE_MS_MAX: u64 = 30_000;
/// A staged copy is removed after this long without a message of its holder, milliseconds (6 hours).
pub const STAGED_MS_MAX: u64 = 6 * 3_600_000;

/// What a client asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// First line of every connection.
    Hello { protocol: u32 },
    /// Make a consistent copy of the database in the appliance's staging folder and hold the attachments still.
    Quiesce {
        /// Where the audit stood in the last snapshot: [`Quiesced::follows`] says whether the copy goes on from there. An
        /// older EMR passes over it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        follows: Option<AuditHead>,
    },
    /// End the lease and remove the staged copy. Closing the connection does the same.
    Thaw { lease: String },
    /// The facts of the data that is open (live, or restored under the probe).
    Facts,
    /// Answer golden questions, each as a hash under the key (see [`answer_hash`]).
    Golden { key: GoldenKey, questions: Vec<GoldenQuestion> },
}

/// What the appliance answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Response {
    Hello {
        protocol: u32,
        app_version: String,
        schema_version: u32,
    },
    Quiesced(Box<Quiesced>),
    Thawed,
    Facts(Box<Facts>),
    /// One hash a question, in the order asked; `None` where the question has no answer in this data.
    Golden {
        answers: Vec<Option<String>>,
    },
    Refused {
        reason: Refusal,
    },
}

/// Why a request was not carried out. Closed, so that nothing of a record can be in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    #[error("this program speaks another version of the messages: install the same release on both sides")]
    Protocol,
    #[error("the peer's user may not use this socket: add it to the allowed users in appliance.toml")]
    Peer,
    #[error("staging would leave less than 10 % or 2 GB of the disk free: free some room")]
    NoRoom,
    #[error("another lease is held: wait until it thaws")]
    Busy,
    #[error("no such lease: it has thawed")]
    NoLease,
    #[error("only the running service can quiesce; this is a read-only probe")]
    ReadOnly,
    #[error("the data cannot be read: look at the appliance's log")]
    Data,
    #[error("a newer release wrote this data: install that release here")]
    Newer,
    #[error("the request could not be understood")]
    Malformed,
}

/// A consistent point: what to back up and what was true there.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quiesced {
    pub lease: String,
    /// How long the staged copy stays if its holder says nothing more; the connection's end removes it at once.
    pub thaw_in_ms: u64,
    /// How long writers waited for the copy, microseconds.
    pub write_stall_us: u64,
    pub parts: Vec<Part>,
    pub facts: Facts,
    /// What of the original is broken. The copy is taken all the same: what is left is worth more then.
    pub damaged: Vec<Damaged>,
    /// How many attachments are gone or did not match when this copy was taken.
    #[serde(default)]
    pub damaged_attachments: u64,
    pub golden_key: GoldenKey,
    pub golden: Vec<GoldenQuery>,
    /// Whether the copy's audit contains the entry that was asked for. `None`: nothing was asked, or it cannot be read. An
    /// older client did not ask, and does not know the field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follows: Option<bool>,
}

/// Where the audit's chain ended at some time. As it only grows, it contains this entry ever after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditHead {
    /// The entry's number; 0 for a chain without entries.
    pub sequence: u64,
    /// Hex.
    pub hash: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Damaged {
    /// An entry does not continue the chain of hashes.
    AuditChain,
    /// Debits and credits do not add up to nothing.
    Ledger,
    /// A file is gone or does not hold what was stored.
    Attachments,
    /// A record is not what was written.
    Records,
    /// A page of the database cannot be read, or its file was removed or replaced under the running EMR: facts and golden
    /// answers may be missing, the copy is made all the same.
    Database,
}

/// One folder or file of the consistent point, with the name that it has in the snapshot.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Top-level name in the snapshot: `records.sqlite`, `attachments`, `config`.
    pub name: String,
    pub path: PathBuf,
    pub kind: PartKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartKind {
    /// A database file of fixed pages: chunk it aligned to `PAGE_BYTES`.
    Pages,
    /// Ordinary files and folders.
    Files,
}

/// What is true of the data, recomputed after every restore and compared. Holds counts and digests, never content.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    pub schema_version: u32,
    /// Resources that are not deleted, by FHIR type.
    pub resources: BTreeMap<String, u64>,
    pub history_rows: u64,
    pub ledger_entries: u64,
    pub ledger_balance_cents: i64,
    pub attachments: u64,
    pub attachment_bytes: u64,
    /// BLAKE3 over the sorted attachment digests, hex. Recomputing it re-hashes every attachment's bytes.
    pub attachments_digest: String,
    /// BLAKE3 over every current resource (type, id, version, body) in key order; a deleted one has an empty body; and
    /// every row that the practice keeps beside them (accounts, settings, messages), hex.
    pub resources_digest: String,
    pub audit_entries: u64,
    /// Head of the audit hash chain, hex; the chain is walked when the facts are computed.
    pub audit_head: String,
    /// Newest change of any resource, Unix milliseconds; 0 when there is none.
    pub newest_record_unix_ms: i64,
    /// The newest canary: a row without content that the EMR writes at start and every 60 s.
    pub canary_sequence: u64,
    pub canary_unix_ms: i64,
}

impl Facts {
    /// Where the audit ends; `None` where it could not be read.
    pub fn audit(&self) -> Option<AuditHead> {
        let hash = self.audit_head.clone();
        (!hash.is_empty()).then_some(AuditHead { sequence: self.audit_entries, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request as the releases before `follows` read it.
    #[derive(Debug, Deserialize)]
    #[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
    enum Before {
        Quiesce,
    }

    #[test]
    fn both_sides_of_a_quiesce_understand_a_release_that_does_not_know_follows() {
        let asked = AuditHead { sequence: 7, hash: "ab".into() };
        let text = serde_json::to_string(&Request::Quiesce { follows: Some(asked.clone()) }).unwrap();
        assert!(matches!(serde_json::from_str(&text), Ok(Before::Quiesce)), "{text}");
        let Ok(Request::Quiesce { follows: Some(read) }) = serde_json::from_str(&text) else { panic!("{text}") };
        assert_eq!(read, asked);
        let text = serde_json::to_string(&Request::Quiesce { follows: None }).unwrap();
        assert_eq!(text, r#"{"ask":"quiesce"}"#);
        assert!(matches!(serde_json::from_str(&text), Ok(Request::Quiesce { follows: None })));
        // Not asked, the answer has no word more than before; and one without it is read.
        let quiesced = Quiesced {
            lease: String::new(),
            thaw_in_ms: 0,
            write_stall_us: 0,
            parts: Vec::new(),
            facts: Facts::default(),
            damaged: Vec::new(),
            damaged_attachments: 0,
            golden_key: GoldenKey::new([0; 32]),
            golden: Vec::new(),
            follows: None,
        };
        let text = serde_json::to_string(&quiesced).unwrap();
        assert!(!text.contains("follows"), "{text}");
        assert_eq!(serde_json::from_str::<Quiesced>(&text).unwrap().follows, None);
    }
}
