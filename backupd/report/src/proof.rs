//! The proof file of one entry: C2SP `tlog-proof@v1`.
//!
//! ```text
//! c2sp.org/tlog-proof@v1
//! index 5                         the entry's place in the log, from 0
//! vBoGQ7EuTS18d5GPROD095qDi2z57FtcKD4fTYhZnms=    the siblings, leaf to root, one a line
//! ...
//!                                 an empty line, then the signed checkpoint as it is
//! holdfast/log/3f2a...
//! ```

use crate::key::PublicKey;
use crate::merkle::{Hash, leaf_hash, verify_inclusion};
use crate::note::{Checkpoint, NoteError, parse_decimal, parse_hash};
use base64::{Engine as _, engine::general_purpose::STANDARD};

const HEAD: &str = "c2sp.org/tlog-proof@v1\n";
/// A tree of 2^64 leaves has paths of 64 hashes.
const PATH_MAX: usize = 64;
/// A proof longer than this is refused unread, bytes.
const PROOF_BYTES_MAX: usize = 128 << 10;

/// Why bytes do not prove that an entry is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// Not a proof file.
    #[error("not a tlog-proof file")]
    Malformed,
    /// The checkpoint in it is not the log's.
    #[error("the proof's checkpoint: {0}")]
    Checkpoint(#[from] NoteError),
    /// The path does not lead from the entry to the checkpoint's root.
    #[error("the proof does not lead from these bytes to the signed checkpoint")]
    NotIncluded,
}

/// That one entry is in a log of a certain head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The entry's place, from 0.
    pub index: u64,
    /// Siblings from the leaf to the root.
    pub path: Vec<Hash>,
    /// The signed checkpoint, as it is.
    pub checkpoint: Vec<u8>,
}

impl Proof {
    /// The file's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!("{HEAD}index {}\n", self.index);
        for hash in &self.path {
            text.push_str(&STANDARD.encode(hash));
            text.push('\n');
        }
        text.push('\n');
        [text.as_bytes(), &self.checkpoint].concat()
    }

    /// Reads the file. Says nothing about truth yet: see [`Proof::verify`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ProofError> {
        if bytes.len() > PROOF_BYTES_MAX {
            return Err(ProofError::Malformed);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| ProofError::Malformed)?;
        let rest = text.strip_prefix(HEAD).ok_or(ProofError::Malformed)?;
        let (head, checkpoint) = rest.split_once("\n\n").ok_or(ProofError::Malformed)?;
        let mut lines = head.split('\n');
        let index = lines.next().and_then(|l| l.strip_prefix("index ")).and_then(parse_decimal);
        let path: Vec<Hash> =
            lines.take(PATH_MAX + 1).map(parse_hash).collect::<Option<_>>().ok_or(ProofError::Malformed)?;
        if path.len() > PATH_MAX {
            return Err(ProofError::Malformed);
        }
        let index = index.ok_or(ProofError::Malformed)?;
        Ok(Self { index, path, checkpoint: checkpoint.as_bytes().to_vec() })
    }

    /// Checks the checkpoint's signature and that the path leads from exactly these entry bytes to its root. Gives
    /// the checkpoint.
    pub fn verify(&self, entry: &[u8], key: &PublicKey) -> Result<Checkpoint, ProofError> {
        let checkpoint = Checkpoint::verify(&self.checkpoint, key)?;
        let included = verify_inclusion(&leaf_hash(entry), self.index, checkpoint.size, &self.path, &checkpoint.root);
        if included { Ok(checkpoint) } else { Err(ProofError::NotIncluded) }
    }
}
