//! The keyring: every secret of the repository, wrapped by independent slots. Losing one slot loses nothing.
//!
//! Every keyring has a root of its own, wrapped to a public key of each slot. So a further epoch, a further slot or one
//! slot less needs only one of the slots at hand, and a slot that was taken out opens no later keyring.

use crate::aead::{SlotCipher, SlotKey, TAG_BYTES};
use crate::certificate::verify;
use crate::credential::RepositorySecrets;
use crate::error::{FormatError, Result};
use crate::features::Features;
use crate::ids::RepositoryId;
use crate::keys::CatalogKey;
use crate::slot::{SLOTS_MAX, Slot, Unlock};
use crate::wire::{Reader, put_preamble};
use crate::{KEYRING_VERSION, MAGIC_KEYRING};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

pub use crate::slot::Passphrase;

/// The largest keyring, bytes.
pub const KEYRING_BYTES_MAX: usize = 1 << 20;

const WHAT: &str = "keyring";
pub(crate) const CONTEXT_SECRETS: &str = "holdfast keyring v1 2026-11 key of the secrets";
const DOMAIN_SIGNATURE: &[u8] = b"holdfast keyring v1\0";
const SIGNATURE_BYTES: usize = 64;
const SLOT_SECRETS: u32 = 0;

/// What anyone may know of a repository: the clear beginning of its keyring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub repository: RepositoryId,
    /// From 1; the keyring with the highest number is in force. The object's name repeats it.
    pub number: u64,
    pub features: Features,
    /// Writers seal to this epoch.
    pub newest_epoch: u32,
}

/// A parsed keyring.
pub struct Keyring<'a> {
    header: Header,
    salt: [u8; 32],
    slots: Vec<Slot>,
    binding: &'a [u8],
    secrets: &'a [u8],
    signed: &'a [u8],
    signature: [u8; SIGNATURE_BYTES],
}

/// Wraps `secrets` for each slot, under a new root.
pub fn seal<R: CryptoRng + ?Sized>(
    rng: &mut R,
    secrets: &RepositorySecrets,
    number: u64,
    features: Features,
    slots: &[Slot],
) -> Result<Vec<u8>> {
    if slots.is_empty() || slots.len() > SLOTS_MAX {
        return Err(FormatError::Limit { what: WHAT });
    }
    let mut root = Zeroizing::new([0u8; 32]);
    rng.fill_bytes(root.as_mut());
    let mut salt = [0u8; 32];
    rng.fill_bytes(&mut salt);
    let mut out = Vec::new();
    put_preamble(&mut out, MAGIC_KEYRING, KEYRING_VERSION);
    out.extend_from_slice(secrets.repository().as_bytes());
    for field in [number, features.read, features.write, features.check] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    out.extend_from_slice(&secrets.newest_epoch().to_le_bytes());
    out.extend_from_slice(&salt);
    out.push(slots.len() as u8);
    for slot in slots {
        slot.put_wrapping(rng, &mut out, secrets.repository(), &salt, &root)?;
    }
    let binding = out.clone();
    let mut plain = Zeroizing::new(Vec::with_capacity(secrets.room()));
    secrets.put(&mut plain);
    let from = out.len();
    out.reserve(plain.len() + TAG_BYTES + SIGNATURE_BYTES);
    out.extend_from_slice(&plain);
    secrets_cipher(&root, &salt, &binding).seal_tail(SLOT_SECRETS, &mut out, from)?;
    let signature = secrets.authority.sign(&[DOMAIN_SIGNATURE, &out].concat());
    out.extend_from_slice(&signature);
    Ok(out)
}

fn secrets_cipher(root: &[u8; 32], salt: &[u8; 32], binding: &[u8]) -> SlotCipher {
    SlotCipher::new(&SlotKey::derive(CONTEXT_SECRETS, root, salt), binding)
}

impl<'a> Keyring<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        if bytes.len() > KEYRING_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_KEYRING, KEYRING_VERSION)?;
        let header = Header {
            repository: RepositoryId(reader.array()?),
            number: reader.u64()?,
            features: Features { read: reader.u64()?, write: reader.u64()?, check: reader.u64()? },
            newest_epoch: reader.u32()?,
        };
        let salt = reader.array()?;
        let count = usize::from(reader.u8()?);
        if count == 0 || count > SLOTS_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let slots = (0..count).map(|_| Slot::parse(&mut reader)).collect::<Result<Vec<_>>>()?;
        let (signed, signature) =
            bytes.split_last_chunk::<SIGNATURE_BYTES>().ok_or(FormatError::Truncated { what: WHAT })?;
        let at = bytes.len() - reader.remaining();
        let (binding, secrets) = signed.split_at_checked(at).ok_or(FormatError::Truncated { what: WHAT })?;
        Ok(Self { header, salt, slots, binding, secrets, signed, signature: *signature })
    }

    #[must_use]
    pub fn header(&self) -> Header {
        self.header
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.header.repository
    }

    /// All slots, also those of kinds that this release does not know.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Checks that the repository's own authority wrote this keyring; for those who cannot open it.
    pub fn check(&self, catalog: &CatalogKey) -> Result<()> {
        if self.header.repository != catalog.repository() {
            return Err(FormatError::OtherRepository { what: WHAT });
        }
        self.check_signature(catalog.authority())
    }

    fn check_signature(&self, authority: &[u8; 32]) -> Result<()> {
        verify(authority, &[DOMAIN_SIGNATURE, self.signed].concat(), &self.signature, WHAT)
    }

    /// Tries every slot of the fitting kind.
    pub fn open(&self, unlock: &Unlock<'_>) -> Result<RepositorySecrets> {
        self.open_slot(unlock).map(|(secrets, _)| secrets)
    }

    /// The same, and which slot it was.
    pub fn open_slot(&self, unlock: &Unlock<'_>) -> Result<(RepositorySecrets, &Slot)> {
        for slot in self.slots.iter().filter(|slot| unlock.fits(slot)) {
            if let Some(root) = slot.unwrap_root(unlock, self.header.repository, &self.salt)? {
                return Ok((self.open_with_root(&root)?, slot));
            }
        }
        Err(FormatError::Sealed { what: WHAT })
    }

    fn open_with_root(&self, root: &SlotKey) -> Result<RepositorySecrets> {
        let cipher = secrets_cipher(root.expose(), &self.salt, self.binding);
        let plain = Zeroizing::new(cipher.open(SLOT_SECRETS, self.secrets, WHAT)?);
        let mut reader = Reader::new(&plain, WHAT);
        let secrets = RepositorySecrets::parse(self.header.repository, &mut reader)?;
        reader.end()?;
        if secrets.newest_epoch() != self.header.newest_epoch {
            return Err(FormatError::Invalid { what: WHAT });
        }
        self.check_signature(&secrets.authority.public())?;
        Ok(secrets)
    }
}
