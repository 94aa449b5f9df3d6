//! The one place where AES-256-GCM is used.
//!
//! Every key given to [`SlotCipher`] is used for one object only, so a nonce is the slot's number and is never random.
//!
//! Two implementations that share no code: `aes-gcm` seals, `aws-lc-rs` opens. The writer opens each pack again before the
//! index names it, so a fault of either one, or of the processor, shows while the content can still be read from its
//! source. Opening is several times as fast as sealing: a restore and a verification are the longer ways.

use crate::error::{FormatError, Result};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce};
use aws_lc_rs::aead as opening;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Bytes that sealing adds.
pub const TAG_BYTES: usize = 16;

/// A 256-bit key used for the slots of one object.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SlotKey(pub(crate) [u8; 32]);

impl SlotKey {
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key for one object under a long-lived key: BLAKE3 in derive-key mode over `key || salt`.
    #[must_use]
    pub fn derive(context: &str, key: &[u8; 32], salt: &[u8; 32]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        hasher.update(key);
        hasher.update(salt);
        Self(*hasher.finalize().as_bytes())
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

/// Seals and opens the numbered slots of one object.
pub struct SlotCipher {
    sealer: Aes256Gcm,
    /// `None` only when the library refuses a key of 32 bytes, which it never does: then nothing opens.
    opener: Option<opening::LessSafeKey>,
    aad: Vec<u8>,
}

impl SlotCipher {
    /// `binding` names format, kind, repository and object; the slot's number is appended to it for each slot.
    #[must_use]
    pub fn new(key: &SlotKey, binding: &[u8]) -> Self {
        let mut aad = binding.to_vec();
        aad.extend_from_slice(&[0; 4]);
        let opener = opening::UnboundKey::new(&opening::AES_256_GCM, &key.0).ok().map(opening::LessSafeKey::new);
        Self { sealer: Aes256Gcm::new((&key.0).into()), opener, aad }
    }

    fn parts(&self, slot: u32) -> ([u8; 12], Vec<u8>) {
        let mut nonce = [0u8; 12];
        nonce[8..].copy_from_slice(&slot.to_be_bytes());
        let mut aad = self.aad.clone();
        let at = aad.len() - 4;
        aad[at..].copy_from_slice(&slot.to_be_bytes());
        (nonce, aad)
    }

    /// Seals `out[from..]` in place and appends the tag.
    pub fn seal_tail(&self, slot: u32, out: &mut Vec<u8>, from: usize) -> Result<()> {
        let (nonce, aad) = self.parts(slot);
        let plain = out.get_mut(from..).ok_or(FormatError::Limit { what: "sealed slot" })?;
        let tag = self
            .sealer
            .encrypt_inout_detached(&Nonce::from(nonce), &aad, plain.into())
            .map_err(|_| FormatError::Limit { what: "sealed slot" })?;
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Opens `sealed` (ciphertext and tag) into a new buffer.
    pub fn open(&self, slot: u32, sealed: &[u8], what: &'static str) -> Result<Vec<u8>> {
        let mut plain = Vec::new();
        self.open_into(slot, sealed, &mut plain, what)?;
        Ok(plain)
    }

    /// Opens `sealed` into `plain`, whose old content is dropped.
    pub fn open_into(&self, slot: u32, sealed: &[u8], plain: &mut Vec<u8>, what: &'static str) -> Result<()> {
        let (nonce, aad) = self.parts(slot);
        let split = sealed.len().checked_sub(TAG_BYTES).ok_or(FormatError::Truncated { what })?;
        let (body, tag) = sealed.split_at(split);
        plain.resize(body.len(), 0);
        let nonce = opening::Nonce::assume_unique_for_key(nonce);
        let opener = self.opener.as_ref().ok_or(FormatError::Sealed { what })?;
        opener
            .open_separate_gather(nonce, opening::Aad::from(&aad), body, tag, plain)
            .map_err(|_| FormatError::Sealed { what })
    }
}
