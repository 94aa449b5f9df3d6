//! Sealing a key to the repository's public key: X-Wing, the hybrid of X25519 and ML-KEM-768.
//!
//! Records stay secret for decades, so no key in a store rests on X25519 alone.

use crate::aead::{SlotCipher, SlotKey, TAG_BYTES};
use crate::error::{FormatError, Result};
use rand_core::CryptoRng;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use x_wing::{Ciphertext, Decapsulate, DecapsulationKey, Decapsulator, Encapsulate, EncapsulationKey, KeyExport};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The public key, bytes.
pub const SEAL_KEY_BYTES: usize = x_wing::ENCAPSULATION_KEY_SIZE;
/// A wrapped key: the KEM ciphertext and the sealed 32-byte key.
pub const WRAPPED_KEY_BYTES: usize = x_wing::CIPHERTEXT_SIZE + 32 + TAG_BYTES;

pub(crate) const CONTEXT: &str = "holdfast repository v1 2026-11 key wrapped to the seal key";
const WHAT: &str = "wrapped key";

/// An X-Wing public key: wraps, never opens.
#[derive(Clone)]
pub(crate) struct WrapKey(EncapsulationKey);

impl WrapKey {
    pub(crate) fn from_bytes(bytes: &[u8], what: &'static str) -> Result<Self> {
        EncapsulationKey::try_from(bytes).map(Self).map_err(|_| FormatError::Invalid { what })
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes().to_vec()
    }

    pub(crate) fn wrap<R: CryptoRng + ?Sized>(&self, rng: &mut R, key: &SlotKey, binding: &[u8]) -> Result<Vec<u8>> {
        let (ciphertext, shared) = self.0.encapsulate_with_rng(rng);
        let mut out = ciphertext.to_vec();
        let from = out.len();
        out.extend_from_slice(key.expose());
        wrapping_cipher(&shared.into(), binding).seal_tail(0, &mut out, from)?;
        Ok(out)
    }
}

/// The public half of one epoch: seals, never opens.
#[derive(Clone)]
pub struct SealKey {
    epoch: u32,
    key: WrapKey,
}

impl SealKey {
    pub fn from_bytes(epoch: u32, bytes: &[u8]) -> Result<Self> {
        Ok(Self { epoch, key: WrapKey::from_bytes(bytes, "seal key")? })
    }

    /// The epoch that everything sealed with this key belongs to.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.key.to_bytes()
    }

    /// Wraps `key`; `binding` must be the binding of the object that carries the result.
    pub fn wrap<R: CryptoRng + ?Sized>(&self, rng: &mut R, key: &SlotKey, binding: &[u8]) -> Result<Vec<u8>> {
        self.key.wrap(rng, key, binding)
    }
}

/// An X-Wing private key, as its 32-byte seed.
#[derive(Clone)]
pub(crate) struct OpenSeed {
    seed: [u8; 32],
    /// Made at the first use: whoever opens one key opens many. It wipes itself.
    expanded: OnceLock<DecapsulationKey>,
    /// Keys that were unwrapped, by the hash of what was: the same objects lie in every store, and decapsulation is most of
    /// what reading them costs. They wipe themselves.
    unwrapped: Arc<Mutex<HashMap<[u8; 32], SlotKey>>>,
}

/// So many unwrapped keys are kept.
const UNWRAPPED_MAX: usize = 4096;

impl Zeroize for OpenSeed {
    fn zeroize(&mut self) {
        self.seed.zeroize();
        self.expanded = OnceLock::new();
        self.unwrapped = Arc::default();
    }
}

impl Drop for OpenSeed {
    fn drop(&mut self) {
        self.zeroize();
    }
}

impl ZeroizeOnDrop for OpenSeed {}

impl OpenSeed {
    pub(crate) fn from_bytes(seed: [u8; 32]) -> Self {
        Self { seed, expanded: OnceLock::new(), unwrapped: Arc::default() }
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.seed
    }

    fn expanded(&self) -> &DecapsulationKey {
        self.expanded.get_or_init(|| DecapsulationKey::from(self.seed))
    }

    pub(crate) fn wrap_key(&self) -> WrapKey {
        WrapKey(self.expanded().encapsulation_key().clone())
    }

    pub(crate) fn seal_key(&self, epoch: u32) -> SealKey {
        SealKey { epoch, key: self.wrap_key() }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], SlotKey>> {
        self.unwrapped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn unwrap(&self, wrapped: &[u8], binding: &[u8]) -> Result<SlotKey> {
        if wrapped.len() != WRAPPED_KEY_BYTES {
            return Err(FormatError::Truncated { what: WHAT });
        }
        let asked = *blake3::Hasher::new().update(wrapped).update(binding).finalize().as_bytes();
        if let Some(key) = self.known().get(&asked) {
            return Ok(key.clone());
        }
        let key = self.decapsulate(wrapped, binding)?;
        let mut known = self.known();
        if known.len() >= UNWRAPPED_MAX {
            known.clear();
        }
        known.insert(asked, key.clone());
        Ok(key)
    }

    fn decapsulate(&self, wrapped: &[u8], binding: &[u8]) -> Result<SlotKey> {
        let (ciphertext, sealed) = wrapped.split_at(x_wing::CIPHERTEXT_SIZE);
        let ciphertext = Ciphertext::try_from(ciphertext).map_err(|_| FormatError::Truncated { what: WHAT })?;
        let shared = self.expanded().decapsulate(&ciphertext);
        let plain = Zeroizing::new(wrapping_cipher(&shared.into(), binding).open(0, sealed, WHAT)?);
        let key: [u8; 32] = plain.as_slice().try_into().map_err(|_| FormatError::Invalid { what: WHAT })?;
        Ok(SlotKey::from_bytes(key))
    }
}

/// The private halves of all epochs. Each is expanded only when it is used.
#[derive(Clone, Default, Zeroize, ZeroizeOnDrop)]
pub struct OpenSeeds(Vec<(u32, OpenSeed)>);

impl OpenSeeds {
    /// The seed of one epoch alone.
    #[must_use]
    pub fn single(epoch: u32, seed: [u8; 32]) -> Self {
        Self(vec![(epoch, OpenSeed::from_bytes(seed))])
    }

    pub(crate) fn push(&mut self, epoch: u32, seed: OpenSeed) {
        self.0.push((epoch, seed));
    }

    pub(crate) fn of(&self, epoch: u32) -> Option<&OpenSeed> {
        self.0.iter().find(|(number, _)| *number == epoch).map(|(_, seed)| seed)
    }

    /// The public key of the newest epoch, which seals what a reader writes anew.
    #[must_use]
    pub fn seal_key(&self) -> Option<SealKey> {
        self.0.last().map(|(epoch, seed)| seed.seal_key(*epoch))
    }

    /// Opens a key that was wrapped to `epoch` in an object of the kind `what`.
    pub fn unwrap(&self, epoch: u32, wrapped: &[u8], binding: &[u8], what: &'static str) -> Result<SlotKey> {
        self.of(epoch).ok_or(FormatError::UnknownEpoch { what, epoch })?.unwrap(wrapped, binding)
    }
}

fn wrapping_cipher(shared: &[u8; 32], binding: &[u8]) -> SlotCipher {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT);
    hasher.update(shared);
    SlotCipher::new(&SlotKey::from_bytes(*hasher.finalize().as_bytes()), binding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::rng;

    #[test]
    fn a_key_that_was_unwrapped_before_opens_for_the_same_object_alone() {
        let seeds = OpenSeeds::single(1, [7; 32]);
        let key = SlotKey::from_bytes([9; 32]);
        let wrapped = seeds.seal_key().unwrap().wrap(&mut rng(5), &key, b"object").unwrap();
        for _ in 0..2 {
            assert_eq!(seeds.unwrap(1, &wrapped, b"object", WHAT).unwrap().expose(), key.expose());
            assert!(seeds.unwrap(1, &wrapped, b"another", WHAT).is_err());
            let mut bad = wrapped.clone();
            bad[0] ^= 1;
            assert!(seeds.unwrap(1, &bad, b"object", WHAT).is_err());
        }
    }
}
