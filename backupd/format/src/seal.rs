//! Sealing a key to the repository's public key: X-Wing, the hybrid of X25519 and ML-KEM-768.
//!
//! Records stay secret for decades, so no key in a store rests on X25519 alone.

use crate::aead::{SlotCipher, SlotKey, TAG_BYTES};
use crate::error::{FormatError, Result};
use rand_core::CryptoRng;
use x_wing::{Ciphertext, Decapsulate, DecapsulationKey, Decapsulator, Encapsulate, EncapsulationKey, KeyExport};

/// The public key, bytes.
pub const SEAL_KEY_BYTES: usize = x_wing::ENCAPSULATION_KEY_SIZE;
/// A wrapped key: the KEM ciphertext and the sealed 32-byte key.
pub const WRAPPED_KEY_BYTES: usize = x_wing::CIPHERTEXT_SIZE + 32 + TAG_BYTES;

const CONTEXT: &str = "holdfast repository v1 2026-11 key wrapped to the seal key";

/// The public half: seals, never opens.
#[derive(Clone)]
pub struct SealKey(EncapsulationKey);

impl SealKey {
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        EncapsulationKey::try_from(bytes).map(Self).map_err(|_| FormatError::Invalid { what: "seal key" })
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }

    /// Wraps `key`; `binding` must be the binding of the object that carries the result.
    pub fn wrap<R: CryptoRng + ?Sized>(&self, rng: &mut R, key: &SlotKey, binding: &[u8]) -> Result<Vec<u8>> {
        let (ciphertext, shared) = self.0.encapsulate_with_rng(rng);
        let mut out = ciphertext.to_vec();
        let from = out.len();
        out.extend_from_slice(key.expose());
        wrapping_cipher(&shared.into(), binding).seal_tail(0, &mut out, from)?;
        Ok(out)
    }
}

/// The private half, as its 32-byte seed.
pub struct OpenSeed(DecapsulationKey);

impl OpenSeed {
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(DecapsulationKey::from(seed))
    }

    #[must_use]
    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    #[must_use]
    pub fn seal_key(&self) -> SealKey {
        SealKey(self.0.encapsulation_key().clone())
    }

    /// Opens a wrapped key.
    pub fn unwrap(&self, wrapped: &[u8], binding: &[u8]) -> Result<SlotKey> {
        const WHAT: &str = "wrapped key";
        if wrapped.len() != WRAPPED_KEY_BYTES {
            return Err(FormatError::Truncated { what: WHAT });
        }
        let (ciphertext, sealed) = wrapped.split_at(x_wing::CIPHERTEXT_SIZE);
        let ciphertext = Ciphertext::try_from(ciphertext).map_err(|_| FormatError::Truncated { what: WHAT })?;
        let shared = self.0.decapsulate(&ciphertext);
        let plain = zeroize::Zeroizing::new(wrapping_cipher(&shared.into(), binding).open(0, sealed, WHAT)?);
        let key: [u8; 32] = plain.as_slice().try_into().map_err(|_| FormatError::Invalid { what: WHAT })?;
        Ok(SlotKey::from_bytes(key))
    }
}

fn wrapping_cipher(shared: &[u8; 32], binding: &[u8]) -> SlotCipher {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(shared);
    SlotCipher::new(&SlotKey::from_bytes(*hasher.finalize().as_bytes()), binding)
}
