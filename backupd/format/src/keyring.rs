//! The keyring: every secret of the repository, wrapped by independent slots. Losing one slot loses nothing.

use crate::aead::{SlotCipher, SlotKey, TAG_BYTES};
use crate::error::{FormatError, Result};
use crate::ids::RepositoryId;
use crate::keys::{Authority, IdKey, RepositorySecrets};
use crate::paper::PaperKey;
use crate::seal::OpenSeed;
use crate::wire::{Reader, put_preamble};
use crate::{KEYRING_VERSION, MAGIC_KEYRING};
use argon2::{Algorithm, Argon2, Params, Version};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Memory of the passphrase derivation, KiB.
pub const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
/// Passes of the passphrase derivation.
pub const ARGON2_PASSES: u32 = 3;
/// The most slots that a keyring may have.
pub const SLOTS_MAX: usize = 32;

const ARGON2_MEMORY_KIB_MAX: u32 = 1024 * 1024;
const ARGON2_PASSES_MAX: u32 = 64;
const SECRETS_BYTES: usize = 32 * 4;
const WRAPPED_ROOT_BYTES: usize = 32 + TAG_BYTES;
const WHAT: &str = "keyring";
const CONTEXT_PAPER: &str = "holdfast keyring v1 2026-11 slot key from a paper key";
const CONTEXT_SECRETS: &str = "holdfast keyring v1 2026-11 key of the secrets";
const DOMAIN: &[u8] = b"holdfast.keyring.v1\0";

/// A passphrase, zeroized on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

/// What opens a keyring.
pub enum Unlock<'a> {
    Passphrase(&'a Passphrase),
    Paper(&'a PaperKey),
}

/// Kinds of slots. Unknown kinds are skipped: another release may have added one beside those that this one opens.
const SLOT_PASSPHRASE: u8 = 1;
const SLOT_PAPER: u8 = 2;
/// Reserved for shares (3) and a systemd credential or TPM (4).
const SLOT_BODY_BYTES: usize = 32 + 12 + WRAPPED_ROOT_BYTES;

struct Slot {
    kind: u8,
    salt: [u8; 32],
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    wrapped: [u8; WRAPPED_ROOT_BYTES],
}

/// A parsed keyring.
pub struct Keyring<'a> {
    repository: RepositoryId,
    salt: [u8; 32],
    slots: Vec<Slot>,
    binding: &'a [u8],
    secrets: &'a [u8],
}

/// Wraps `secrets` for each way of unlocking.
pub fn seal<R: CryptoRng + ?Sized>(rng: &mut R, secrets: &RepositorySecrets, slots: &[Unlock<'_>]) -> Result<Vec<u8>> {
    if slots.is_empty() || slots.len() > SLOTS_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    let mut root = Zeroizing::new([0u8; 32]);
    rng.fill_bytes(root.as_mut());
    let mut salt = [0u8; 32];
    rng.fill_bytes(&mut salt);
    let mut out = Vec::new();
    put_preamble(&mut out, MAGIC_KEYRING, KEYRING_VERSION);
    out.extend_from_slice(secrets.repository.as_bytes());
    out.extend_from_slice(&salt);
    out.push(slots.len() as u8);
    for unlock in slots {
        put_slot(rng, &mut out, secrets.repository, unlock, &root)?;
    }
    let binding = out.clone();
    let from = out.len();
    out.extend_from_slice(secrets.id_key.expose());
    out.extend_from_slice(secrets.catalog_key.as_ref());
    out.extend_from_slice(secrets.open.expose());
    out.extend_from_slice(secrets.authority.expose());
    SlotCipher::new(&SlotKey::derive(CONTEXT_SECRETS, &root, &salt), &binding).seal_tail(0, &mut out, from)?;
    Ok(out)
}

fn put_slot<R: CryptoRng + ?Sized>(
    rng: &mut R,
    out: &mut Vec<u8>,
    repository: RepositoryId,
    unlock: &Unlock<'_>,
    root: &[u8; 32],
) -> Result<()> {
    let mut slot =
        Slot { kind: SLOT_PAPER, salt: [0; 32], memory_kib: 0, passes: 0, lanes: 0, wrapped: [0; WRAPPED_ROOT_BYTES] };
    rng.fill_bytes(&mut slot.salt);
    if let Unlock::Passphrase(_) = unlock {
        (slot.kind, slot.memory_kib, slot.passes, slot.lanes) = (SLOT_PASSPHRASE, ARGON2_MEMORY_KIB, ARGON2_PASSES, 1);
    }
    let key = slot.key(unlock)?;
    let mut wrapped = root.to_vec();
    SlotCipher::new(&key, &slot.binding(repository)).seal_tail(0, &mut wrapped, 0)?;
    out.push(slot.kind);
    out.extend_from_slice(&(SLOT_BODY_BYTES as u16).to_le_bytes());
    out.extend_from_slice(&slot.salt);
    for number in [slot.memory_kib, slot.passes, slot.lanes] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&wrapped);
    Ok(())
}

impl Slot {
    fn parse(kind: u8, body: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(body, WHAT);
        let slot = Self {
            kind,
            salt: reader.array()?,
            memory_kib: reader.u32()?,
            passes: reader.u32()?,
            lanes: reader.u32()?,
            wrapped: reader.array()?,
        };
        reader.end()?;
        // Limits before any work: a hostile keyring must not make us allocate or compute without end.
        if slot.memory_kib > ARGON2_MEMORY_KIB_MAX || slot.passes > ARGON2_PASSES_MAX || slot.lanes > 16 {
            return Err(FormatError::Limit { what: WHAT });
        }
        Ok(slot)
    }

    fn binding(&self, repository: RepositoryId) -> Vec<u8> {
        let mut binding = [DOMAIN, repository.as_bytes(), &[self.kind], &self.salt].concat();
        for number in [self.memory_kib, self.passes, self.lanes] {
            binding.extend_from_slice(&number.to_le_bytes());
        }
        binding
    }

    fn key(&self, unlock: &Unlock<'_>) -> Result<SlotKey> {
        match unlock {
            Unlock::Paper(paper) => {
                let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_PAPER);
                hasher.update(paper.expose()).update(&self.salt);
                Ok(SlotKey::from_bytes(*hasher.finalize().as_bytes()))
            }
            Unlock::Passphrase(passphrase) => {
                let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(32))
                    .map_err(|_| FormatError::Derivation)?;
                let mut key = Zeroizing::new([0u8; 32]);
                Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                    .hash_password_into(passphrase.0.as_bytes(), &self.salt, key.as_mut())
                    .map_err(|_| FormatError::Derivation)?;
                Ok(SlotKey::from_bytes(*key))
            }
        }
    }
}

impl<'a> Keyring<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_KEYRING, KEYRING_VERSION)?;
        let repository = RepositoryId(reader.array()?);
        let salt = reader.array()?;
        let count = usize::from(reader.u8()?);
        if count == 0 || count > SLOTS_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let mut slots = Vec::new();
        for _ in 0..count {
            let kind = reader.u8()?;
            let len = usize::from(reader.u16()?);
            let body = reader.take(len)?;
            if matches!(kind, SLOT_PASSPHRASE | SLOT_PAPER) {
                slots.push(Slot::parse(kind, body)?);
            }
        }
        let secrets_len = SECRETS_BYTES + TAG_BYTES;
        if reader.remaining() != secrets_len {
            return Err(FormatError::Truncated { what: WHAT });
        }
        let (binding, secrets) = bytes.split_at(bytes.len() - secrets_len);
        Ok(Self { repository, salt, slots, binding, secrets })
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// Tries every slot of the fitting kind.
    pub fn open(&self, unlock: &Unlock<'_>) -> Result<RepositorySecrets> {
        let kind = match unlock {
            Unlock::Passphrase(_) => SLOT_PASSPHRASE,
            Unlock::Paper(_) => SLOT_PAPER,
        };
        for slot in self.slots.iter().filter(|slot| slot.kind == kind) {
            let key = slot.key(unlock)?;
            let cipher = SlotCipher::new(&key, &slot.binding(self.repository));
            if let Ok(root) = cipher.open(0, &slot.wrapped, WHAT) {
                return self.open_with_root(&Zeroizing::new(root));
            }
        }
        Err(FormatError::Sealed { what: WHAT })
    }

    fn open_with_root(&self, root: &[u8]) -> Result<RepositorySecrets> {
        let root: &[u8; 32] = root.try_into().map_err(|_| FormatError::Invalid { what: WHAT })?;
        let key = SlotKey::derive(CONTEXT_SECRETS, root, &self.salt);
        let plain = Zeroizing::new(SlotCipher::new(&key, self.binding).open(0, self.secrets, WHAT)?);
        let mut reader = Reader::new(&plain, WHAT);
        let secrets = RepositorySecrets {
            repository: self.repository,
            id_key: IdKey::from_bytes(reader.array()?),
            catalog_key: Zeroizing::new(reader.array()?),
            open: OpenSeed::from_bytes(reader.array()?),
            authority: Authority::from_bytes(reader.array()?),
        };
        reader.end()?;
        Ok(secrets)
    }
}
