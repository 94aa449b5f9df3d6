//! Signed checkpoints: C2SP `signed-note` (Ed25519, type 0x01) around a C2SP `tlog-checkpoint` body.
//!
//! ```text
//! holdfast/log/3f2a...            the origin
//! 8                               the number of entries
//! XcnaeacGWamtVZy3Ad7ZoqudgjqtL0lgz+Nw7/RgQyg=   the RFC 6962 root
//!
//! — holdfast/log/3f2a... base64(key id || signature over the three lines)
//! ```

use crate::key::{PublicKey, ReportSigner, SIGNATURE_BYTES};
use crate::merkle::Hash;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// A checkpoint longer than this is refused unread, bytes.
const NOTE_BYTES_MAX: usize = 64 << 10;
/// Signature lines looked at; the specification asks for at least 16.
const SIGNATURES_MAX: usize = 32;
/// Ed25519 as the note specification numbers it.
const ED25519: u8 = 1;
/// An em dash and a space begin a signature line.
const SIGNATURE_MARK: &str = "\u{2014} ";

/// Why bytes are not a checkpoint of this log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// Not a signed note with a checkpoint in it.
    #[error("not a signed checkpoint")]
    Malformed,
    /// The checkpoint of another log.
    #[error("the checkpoint belongs to another log")]
    OtherOrigin,
    /// No signature by this key.
    #[error("the checkpoint is not signed by this key")]
    NotSigned,
    /// A signature that claims to be by this key and is not.
    #[error("the checkpoint's signature is wrong")]
    WrongSignature,
    /// Not an origin.
    #[error("an origin has 1 to 128 characters of a-z, 0-9, dot, underscore, hyphen and slash")]
    BadOrigin,
}

/// The name of a log, the first line of each checkpoint and the key name of its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// Takes the text when it is valid: 1 to 128 of `a-z 0-9 . _ - /`.
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        let valid = (1..=128).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/'));
        if valid { Ok(Self(text.to_owned())) } else { Err(NoteError::BadOrigin) }
    }

    /// The log of a repository: `holdfast/log/<repository id>`.
    pub fn of_repository(repository: &crate::OpaqueId) -> Self {
        Self(format!("holdfast/log/{repository}"))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The head of a log at one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log.
    pub origin: Origin,
    /// Number of entries.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: Hash,
}

impl Checkpoint {
    /// The signed note. Ed25519 is deterministic: the same head always gives the same bytes.
    pub fn sign(&self, signer: &ReportSigner) -> Vec<u8> {
        let body = self.body();
        let id = key_id(self.origin.as_str(), &signer.public_key());
        let signature = STANDARD.encode([id.as_slice(), &signer.sign(body.as_bytes())].concat());
        format!("{body}\n{SIGNATURE_MARK}{} {signature}\n", self.origin).into_bytes()
    }

    /// Reads a signed note and checks the signature of this key. Signatures by other keys (witnesses) are ignored, as
    /// the specification asks.
    pub fn verify(note: &[u8], key: &PublicKey) -> Result<Self, NoteError> {
        let (checkpoint, signatures) = parse(note)?;
        let id = key_id(checkpoint.origin.as_str(), key);
        let mut signed = false;
        for (name, bytes) in signatures {
            let Some((line_id, signature)) = bytes.split_first_chunk::<4>() else { return Err(NoteError::Malformed) };
            if name == checkpoint.origin.as_str() && *line_id == id {
                if signature.len() != SIGNATURE_BYTES {
                    return Err(NoteError::WrongSignature);
                }
                key.verify(checkpoint.body().as_bytes(), signature).map_err(|_| NoteError::WrongSignature)?;
                signed = true;
            }
        }
        if signed { Ok(checkpoint) } else { Err(NoteError::NotSigned) }
    }

    /// As [`Checkpoint::verify`], and of this log.
    pub fn verify_of(note: &[u8], key: &PublicKey, origin: &Origin) -> Result<Self, NoteError> {
        let checkpoint = Self::verify(note, key)?;
        if checkpoint.origin == *origin { Ok(checkpoint) } else { Err(NoteError::OtherOrigin) }
    }

    fn body(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }
}

/// `SHA-256(name || 0x0A || 0x01 || key)`, the first four bytes.
fn key_id(name: &str, key: &PublicKey) -> [u8; 4] {
    let hash = Sha256::new().chain_update(name).chain_update([b'\n', ED25519]).chain_update(key.as_bytes()).finalize();
    let mut id = [0; 4];
    id.copy_from_slice(&hash[..4]);
    id
}

type SignatureLine<'a> = (&'a str, Vec<u8>);

fn parse(note: &[u8]) -> Result<(Checkpoint, Vec<SignatureLine<'_>>), NoteError> {
    if note.len() > NOTE_BYTES_MAX {
        return Err(NoteError::Malformed);
    }
    let text = std::str::from_utf8(note).map_err(|_| NoteError::Malformed)?;
    let (body, signatures) = text.rsplit_once("\n\n").ok_or(NoteError::Malformed)?;
    let checkpoint = parse_body(body)?;
    let lines = signatures.strip_suffix('\n').ok_or(NoteError::Malformed)?;
    let parsed: Vec<_> = lines.split('\n').take(SIGNATURES_MAX + 1).map(parse_signature).collect::<Result<_, _>>()?;
    if parsed.len() > SIGNATURES_MAX {
        return Err(NoteError::Malformed);
    }
    Ok((checkpoint, parsed))
}

fn parse_signature(line: &str) -> Result<SignatureLine<'_>, NoteError> {
    let (name, signature) =
        line.strip_prefix(SIGNATURE_MARK).and_then(|l| l.split_once(' ')).ok_or(NoteError::Malformed)?;
    let named = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
    let bytes = STANDARD.decode(signature).map_err(|_| NoteError::Malformed)?;
    if named { Ok((name, bytes)) } else { Err(NoteError::Malformed) }
}

/// Our checkpoints have exactly three lines; extension lines are refused because nothing of ours writes them.
fn parse_body(body: &str) -> Result<Checkpoint, NoteError> {
    let mut lines = body.split('\n');
    let (Some(origin), Some(size), Some(root), None) = (lines.next(), lines.next(), lines.next(), lines.next()) else {
        return Err(NoteError::Malformed);
    };
    let origin = Origin::parse(origin).map_err(|_| NoteError::Malformed)?;
    let size = parse_decimal(size).ok_or(NoteError::Malformed)?;
    let root = parse_hash(root).ok_or(NoteError::Malformed)?;
    Ok(Checkpoint { origin, size, root })
}

/// A decimal without sign, space or leading zero.
pub(crate) fn parse_decimal(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

/// Padded standard base64 of 32 bytes, in its one form.
pub(crate) fn parse_hash(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_id_and_signature_are_those_of_the_note_specification() {
        // The worked example of Go's golang.org/x/mod/sumdb/note.
        let key = STANDARD.decode("ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW").unwrap();
        let key = PublicKey::from_bytes(key[1..].try_into().unwrap()).unwrap();
        assert_eq!(hex::encode(key_id("PeterNeumann", &key)), "c74f20a3");
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let signature = STANDARD.decode(signature).unwrap();
        assert_eq!(signature[..4], key_id("PeterNeumann", &key));
        assert!(key.verify(text.as_bytes(), &signature[4..]).is_ok());
    }

    fn sample() -> (Checkpoint, ReportSigner) {
        let origin = Origin::parse("holdfast/log/00000000").unwrap();
        (Checkpoint { origin, size: 12, root: [9; 32] }, ReportSigner::from_seed(&[3; 32]))
    }

    #[test]
    fn every_changed_byte_is_refused() {
        let (checkpoint, signer) = sample();
        let note = checkpoint.sign(&signer);
        assert_eq!(Checkpoint::verify(&note, &signer.public_key()), Ok(checkpoint.clone()));
        for at in 0..note.len() {
            for flip in 1..=255u8 {
                let mut bent = note.clone();
                bent[at] ^= flip;
                assert!(Checkpoint::verify(&bent, &signer.public_key()).is_err(), "byte {at} xor {flip}");
            }
            assert!(Checkpoint::verify(&note[..at], &signer.public_key()).is_err(), "cut at {at}");
        }
        let other = ReportSigner::from_seed(&[4; 32]).public_key();
        assert_eq!(Checkpoint::verify(&note, &other), Err(NoteError::NotSigned));
        let origin = Origin::parse("holdfast/log/11111111").unwrap();
        assert_eq!(Checkpoint::verify_of(&note, &signer.public_key(), &origin), Err(NoteError::OtherOrigin));
    }

    #[test]
    fn a_witness_beside_our_signature_is_ignored() {
        let (checkpoint, signer) = sample();
        let mut note = checkpoint.sign(&signer);
        note.extend_from_slice("\u{2014} witness.example mJirIklj\n".as_bytes());
        assert_eq!(Checkpoint::verify(&note, &signer.public_key()), Ok(checkpoint));
    }
}
