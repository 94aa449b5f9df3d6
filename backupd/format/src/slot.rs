//! Key slots: independent ways to one keyring. Each has an X-Wing key pair that follows from its secret, and the
//! keyring's root is wrapped to the public half; so a keyring is written anew without the secrets of its slots.

use crate::aead::SlotKey;
use crate::error::{FormatError, Result};
use crate::ids::RepositoryId;
use crate::letters;
use crate::machine::MachineKey;
use crate::paper::PaperKey;
use crate::seal::{OpenSeed, SEAL_KEY_BYTES, WRAPPED_KEY_BYTES, WrapKey};
use crate::share::{self, Share};
use crate::wire::Reader;
use crate::{FORMAT_VERSION, ids};
use argon2::{Algorithm, Argon2, Params, Version};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Memory of the passphrase derivation, KiB.
pub const ARGON2_MEMORY_KIB: u32 = 64 * 1024;
/// Passes of the passphrase derivation.
pub const ARGON2_PASSES: u32 = 3;
/// The most slots that a keyring may have.
pub const SLOTS_MAX: usize = 32;
/// The most that a reader lets a keyring ask of the passphrase derivation.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 1024 * 1024;
pub const ARGON2_PASSES_MAX: u32 = 64;
pub const ARGON2_LANES_MAX: u32 = 16;

const PARAMETERS_BYTES_MAX: usize = 1024;
const SALT_BYTES: usize = 32;
const WHAT: &str = "keyring slot";
const DOMAIN: &[u8] = b"holdfast keyring slot v1\0";
pub(crate) const CONTEXT_PASSPHRASE: &str = "holdfast keyring v1 2026-11 slot seed from a passphrase";
pub(crate) const CONTEXT_PAPER: &str = "holdfast keyring v1 2026-11 slot seed from a paper key";
pub(crate) const CONTEXT_SHARES: &str = "holdfast keyring v1 2026-11 slot seed from shares";
pub(crate) const CONTEXT_MACHINE: &str = "holdfast keyring v1 2026-11 slot seed from a machine key";

/// A passphrase, zeroized on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    /// Twenty-four letters of Crockford's base 32, so 120 random bits.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut secret = Zeroizing::new([0u8; 15]);
        rng.fill_bytes(secret.as_mut_slice());
        Self(letters::to_text(secret.as_slice(), &[]).to_string())
    }

    /// For showing it once, when it was generated.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }
}

/// What opens a keyring.
pub enum Unlock<'a> {
    Passphrase(&'a Passphrase),
    Paper(&'a PaperKey),
    /// As many shares of one slot as it takes.
    Shares(&'a [Share]),
    Machine(&'a MachineKey),
}

impl Unlock<'_> {
    fn kind(&self) -> SlotKind {
        match self {
            Self::Passphrase(_) => SlotKind::Passphrase,
            Self::Paper(_) => SlotKind::Paper,
            Self::Shares(_) => SlotKind::Shares,
            Self::Machine(_) => SlotKind::Machine,
        }
    }

    pub(crate) fn fits(&self, slot: &Slot) -> bool {
        let named = match self {
            // Shares say which slot they belong to.
            Self::Shares(shares) => shares.iter().all(|share| share.slot == slot.id),
            _ => true,
        };
        named && slot.kind == self.kind()
    }
}

/// Kinds of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotKind {
    Passphrase,
    Paper,
    /// Some of several shares together.
    Shares,
    /// A random secret in a file, meant for a systemd credential.
    Machine,
    /// Another release made it: it is carried along, and not opened.
    Unknown(u8),
}

impl SlotKind {
    fn code(self) -> u8 {
        match self {
            Self::Passphrase => 1,
            Self::Paper => 2,
            Self::Shares => 3,
            Self::Machine => 4,
            Self::Unknown(code) => code,
        }
    }

    fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Passphrase,
            2 => Self::Paper,
            3 => Self::Shares,
            4 => Self::Machine,
            other => Self::Unknown(other),
        }
    }
}

/// One slot: what is needed to wrap a root to it, and how its secret becomes its key.
#[derive(Clone)]
pub struct Slot {
    pub kind: SlotKind,
    pub id: ids::SlotId,
    pub made_unix_ms: i64,
    key: WrapKey,
    parameters: Vec<u8>,
    /// Empty for a slot that no keyring holds yet.
    wrapped: Vec<u8>,
}

/// How a passphrase becomes a key.
#[derive(Clone, Copy)]
struct Cost {
    memory_kib: u32,
    passes: u32,
    lanes: u32,
}

impl Slot {
    /// A slot for a secret. A passphrase costs 64 MiB and most of a second.
    pub fn new<R: CryptoRng + ?Sized>(rng: &mut R, unlock: &Unlock<'_>, made_unix_ms: i64) -> Result<Self> {
        let mut id = [0; 8];
        rng.fill_bytes(&mut id);
        let mut salt = [0; SALT_BYTES];
        rng.fill_bytes(&mut salt);
        let mut parameters = salt.to_vec();
        if let Unlock::Passphrase(_) = unlock {
            for number in [ARGON2_MEMORY_KIB, ARGON2_PASSES, 1] {
                parameters.extend_from_slice(&number.to_le_bytes());
            }
        }
        let key = seed(unlock, &parameters)?.wrap_key();
        let id = ids::SlotId(id);
        Ok(Self { kind: unlock.kind(), id, made_unix_ms, key, parameters, wrapped: Vec::new() })
    }

    /// A slot for `total` shares, any `threshold` of which open it.
    pub fn new_shares<R: CryptoRng + ?Sized>(
        rng: &mut R,
        threshold: u8,
        total: u8,
        made_unix_ms: i64,
    ) -> Result<(Self, Vec<Share>)> {
        let mut id = [0; 8];
        rng.fill_bytes(&mut id);
        let id = ids::SlotId(id);
        let mut parameters = vec![0; SALT_BYTES];
        rng.fill_bytes(&mut parameters);
        parameters.extend_from_slice(&[threshold, total]);
        let shares = share::split(rng, id, threshold, total)?;
        let key = seed(&Unlock::Shares(&shares), &parameters)?.wrap_key();
        Ok((Self { kind: SlotKind::Shares, id, made_unix_ms, key, parameters, wrapped: Vec::new() }, shares))
    }

    /// How many shares open the slot, and how many there are; `None` for a slot of another kind.
    #[must_use]
    pub fn shares(&self) -> Option<(u8, u8)> {
        if self.kind == SlotKind::Shares { parse_shares(&self.parameters).ok() } else { None }
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        let kind = SlotKind::from_code(reader.u8()?);
        let id = ids::SlotId(reader.array()?);
        let made_unix_ms = reader.i64()?;
        let key = WrapKey::from_bytes(reader.take(SEAL_KEY_BYTES)?, WHAT)?;
        let wrapped = reader.take(WRAPPED_KEY_BYTES)?.to_vec();
        let len = usize::from(reader.u16()?);
        if len > PARAMETERS_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let parameters = reader.take(len)?.to_vec();
        let slot = Self { kind, id, made_unix_ms, key, parameters, wrapped };
        slot.check_parameters()?;
        Ok(slot)
    }

    /// Limits before any work: a hostile keyring must not make us allocate or compute without end.
    fn check_parameters(&self) -> Result<()> {
        match self.kind {
            SlotKind::Passphrase => parse_cost(&self.parameters).map(drop),
            SlotKind::Shares => parse_shares(&self.parameters).map(drop),
            SlotKind::Paper | SlotKind::Machine if self.parameters.len() != SALT_BYTES => {
                Err(FormatError::Invalid { what: WHAT })
            }
            _ => Ok(()),
        }
    }

    fn binding(&self, repository: RepositoryId, keyring_salt: &[u8; 32]) -> Vec<u8> {
        let mut binding = [DOMAIN, &FORMAT_VERSION.to_le_bytes(), repository.as_bytes(), keyring_salt].concat();
        binding.push(self.kind.code());
        binding.extend_from_slice(self.id.as_bytes());
        binding.extend_from_slice(&self.parameters);
        binding
    }

    /// Appends the slot, a root wrapped to it.
    pub(crate) fn put_wrapping<R: CryptoRng + ?Sized>(
        &self,
        rng: &mut R,
        out: &mut Vec<u8>,
        repository: RepositoryId,
        keyring_salt: &[u8; 32],
        root: &[u8; 32],
    ) -> Result<()> {
        let binding = self.binding(repository, keyring_salt);
        out.push(self.kind.code());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(&self.made_unix_ms.to_le_bytes());
        out.extend_from_slice(&self.key.to_bytes());
        out.extend_from_slice(&self.key.wrap(rng, &SlotKey::from_bytes(*root), &binding)?);
        let len = u16::try_from(self.parameters.len()).map_err(|_| FormatError::Limit { what: WHAT })?;
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.parameters);
        Ok(())
    }

    /// The root; `None` when the secret is not this slot's.
    pub(crate) fn unwrap_root(
        &self,
        unlock: &Unlock<'_>,
        repository: RepositoryId,
        keyring_salt: &[u8; 32],
    ) -> Result<Option<SlotKey>> {
        let seed = seed(unlock, &self.parameters)?;
        if seed.wrap_key().to_bytes() != self.key.to_bytes() {
            return Ok(None);
        }
        seed.unwrap(&self.wrapped, &self.binding(repository, keyring_salt)).map(Some)
    }
}

fn parse_cost(parameters: &[u8]) -> Result<([u8; SALT_BYTES], Cost)> {
    let mut reader = Reader::new(parameters, WHAT);
    let salt = reader.array()?;
    let cost = Cost { memory_kib: reader.u32()?, passes: reader.u32()?, lanes: reader.u32()? };
    reader.end()?;
    if cost.memory_kib > ARGON2_MEMORY_KIB_MAX || cost.passes > ARGON2_PASSES_MAX || cost.lanes > ARGON2_LANES_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    Ok((salt, cost))
}

fn parse_shares(parameters: &[u8]) -> Result<(u8, u8)> {
    let mut reader = Reader::new(parameters, WHAT);
    reader.take(SALT_BYTES)?;
    let (threshold, total) = (reader.u8()?, reader.u8()?);
    reader.end()?;
    share::check_counts(threshold, total)?;
    Ok((threshold, total))
}

/// The seed of the slot's key pair.
fn seed(unlock: &Unlock<'_>, parameters: &[u8]) -> Result<OpenSeed> {
    let derive = |context: &str, secret: &[u8]| {
        let salt = parameters.get(..SALT_BYTES).ok_or(FormatError::Truncated { what: WHAT })?;
        let hash = blake3::Hasher::new_derive_key(context).update(secret).update(salt).finalize();
        Ok(OpenSeed::from_bytes(*hash.as_bytes()))
    };
    match unlock {
        Unlock::Paper(paper) => derive(CONTEXT_PAPER, paper.expose()),
        Unlock::Shares(shares) => derive(CONTEXT_SHARES, &share::combine(shares)?),
        Unlock::Machine(machine) => derive(CONTEXT_MACHINE, machine.expose()),
        Unlock::Passphrase(passphrase) => {
            let (salt, cost) = parse_cost(parameters)?;
            let params =
                Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).map_err(|_| FormatError::Derivation)?;
            let mut key = Zeroizing::new([0u8; 32]);
            Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
                .hash_password_into(passphrase.0.as_bytes(), &salt, key.as_mut())
                .map_err(|_| FormatError::Derivation)?;
            derive(CONTEXT_PASSPHRASE, key.as_ref())
        }
    }
}
