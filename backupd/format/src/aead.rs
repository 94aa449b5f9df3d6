//! The one place where AES-256-GCM is used.
//!
//! Every key given to [`SlotCipher`] is used for one object only, so a nonce is the slot's number and is never random.

use crate::error::{FormatError, Result};
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
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
    cipher: Aes256Gcm,
    aad: Vec<u8>,
}

impl SlotCipher {
    /// `binding` names format, kind, repository and object; the slot's number is appended to it for each slot.
    #[must_use]
    pub fn new(key: &SlotKey, binding: &[u8]) -> Self {
        let mut aad = binding.to_vec();
        aad.extend_from_slice(&[0; 4]);
        Self { cipher: Aes256Gcm::new((&key.0).into()), aad }
    }

    fn parts(&self, slot: u32) -> (Nonce<aes_gcm::aead::consts::U12>, Vec<u8>) {
        let mut nonce = [0u8; 12];
        nonce[8..].copy_from_slice(&slot.to_be_bytes());
        let mut aad = self.aad.clone();
        let at = aad.len() - 4;
        aad[at..].copy_from_slice(&slot.to_be_bytes());
        (nonce.into(), aad)
    }

    /// Seals `out[from..]` in place and appends the tag.
    pub fn seal_tail(&self, slot: u32, out: &mut Vec<u8>, from: usize) -> Result<()> {
        let (nonce, aad) = self.parts(slot);
        let plain = out.get_mut(from..).ok_or(FormatError::Limit { what: "sealed slot" })?;
        let tag = self
            .cipher
            .encrypt_inout_detached(&nonce, &aad, plain.into())
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
        let tag = Tag::try_from(tag).map_err(|_| FormatError::Truncated { what })?;
        plain.clear();
        plain.extend_from_slice(body);
        self.cipher
            .decrypt_inout_detached(&nonce, &aad, plain.as_mut_slice().into(), &tag)
            .map_err(|_| FormatError::Sealed { what })
    }
}
