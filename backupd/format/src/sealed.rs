//! Size classes, and the container of index and snapshot objects: one part for the catalog key, one for the open key.

use crate::aead::{SlotCipher, SlotKey, TAG_BYTES};
use crate::error::{FormatError, Result};
use crate::ids::RepositoryId;
use crate::keys::CatalogKey;
use crate::seal::{OpenSeeds, SealKey, WRAPPED_KEY_BYTES};
use crate::wire::{Reader, put_preamble};
use crate::{FORMAT_VERSION, MAGIC_INDEX, MAGIC_SNAPSHOT};
use rand_core::CryptoRng;

/// Sizes that a sealed object may have, bytes: powers of four, so that a size says little.
pub const CLASSES: [usize; 5] = [64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20];
/// The largest object.
pub const OBJECT_BYTES_MAX: usize = 16 << 20;

pub(crate) const CONTEXT_CATALOG_PART: &str = "holdfast repository v1 2026-11 key of one catalog part";
const SALT_BYTES: usize = 32;
const HEADER_BYTES: usize = 4 + 2 + 2 + 4 + SALT_BYTES;
const LENGTHS_BYTES: usize = 8 + TAG_BYTES;
const FIXED_BYTES: usize = HEADER_BYTES + WRAPPED_KEY_BYTES + LENGTHS_BYTES + 3 * TAG_BYTES;
/// The most that both parts of one object may hold together, bytes.
pub const PARTS_BYTES_MAX: usize = OBJECT_BYTES_MAX - FIXED_BYTES;

const SLOT_LENGTHS: u32 = 0;
const SLOT_CATALOG: u32 = 1;
const SLOT_PADDING: u32 = 2;
const SLOT_OPEN: u32 = 0;

/// The smallest class that holds `bytes`.
#[must_use]
pub fn class_for(bytes: usize) -> Option<usize> {
    CLASSES.into_iter().find(|class| *class >= bytes)
}

/// What a two-part object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartsKind {
    Index,
    Snapshot,
}

impl PartsKind {
    fn magic(self) -> &'static [u8; 4] {
        match self {
            Self::Index => MAGIC_INDEX,
            Self::Snapshot => MAGIC_SNAPSHOT,
        }
    }

    fn what(self) -> &'static str {
        match self {
            Self::Index => "index object",
            Self::Snapshot => "snapshot object",
        }
    }

    fn binding(self, epoch: u32, repository: RepositoryId, salt: &[u8; SALT_BYTES]) -> Vec<u8> {
        let name: &[u8] = match self {
            Self::Index => b"holdfast.index\0",
            Self::Snapshot => b"holdfast.snapshot\0",
        };
        [name, &FORMAT_VERSION.to_le_bytes(), &epoch.to_le_bytes(), repository.as_bytes(), salt].concat()
    }
}

/// Seals both parts into one object of a size class.
pub fn seal_parts<R: CryptoRng + ?Sized>(
    rng: &mut R,
    kind: PartsKind,
    keys: (&CatalogKey, &SealKey),
    catalog_part: &[u8],
    open_part: &[u8],
) -> Result<Vec<u8>> {
    let (catalog, seal) = keys;
    let limit = FormatError::Limit { what: kind.what() };
    let used = FIXED_BYTES + catalog_part.len() + open_part.len();
    let class = class_for(used).ok_or(limit.clone())?;
    let mut salt = [0u8; SALT_BYTES];
    rng.fill_bytes(&mut salt);
    let mut open_key = [0u8; 32];
    rng.fill_bytes(&mut open_key);
    let open_key = SlotKey::from_bytes(open_key);
    let binding = kind.binding(seal.epoch(), catalog.repository(), &salt);
    let catalog_key = catalog.object_key(seal.epoch(), CONTEXT_CATALOG_PART, &salt, kind.what())?;

    let mut out = Vec::with_capacity(class);
    put_preamble(&mut out, kind.magic(), FORMAT_VERSION);
    out.extend_from_slice(&[0; 2]);
    out.extend_from_slice(&seal.epoch().to_le_bytes());
    out.extend_from_slice(&salt);
    out.extend_from_slice(&seal.wrap(rng, &open_key, &binding)?);
    let for_catalog = SlotCipher::new(&catalog_key, &binding);
    let for_open = SlotCipher::new(&open_key, &binding);
    let mut put = |cipher: &SlotCipher, slot, plain: &[u8]| {
        let from = out.len();
        out.extend_from_slice(plain);
        cipher.seal_tail(slot, &mut out, from)
    };
    let lengths = [(catalog_part.len() as u32).to_le_bytes(), (open_part.len() as u32).to_le_bytes()].concat();
    put(&for_catalog, SLOT_LENGTHS, &lengths)?;
    put(&for_catalog, SLOT_CATALOG, catalog_part)?;
    put(&for_open, SLOT_OPEN, open_part)?;
    put(&for_catalog, SLOT_PADDING, &vec![0; class - used])?;
    Ok(out)
}

/// A two-part object whose catalog part has been opened and whose padding has been checked.
pub struct OpenedParts<'a> {
    kind: PartsKind,
    /// The epoch that the object was sealed to.
    pub epoch: u32,
    binding: Vec<u8>,
    wrapped: &'a [u8],
    open_sealed: &'a [u8],
    /// The catalog part.
    pub catalog_part: Vec<u8>,
}

/// Opens what the catalog key opens.
pub fn open_parts<'a>(kind: PartsKind, catalog: &CatalogKey, bytes: &'a [u8]) -> Result<OpenedParts<'a>> {
    let what = kind.what();
    if bytes.len() > OBJECT_BYTES_MAX {
        return Err(FormatError::Limit { what });
    }
    let mut reader = Reader::new(bytes, what);
    reader.preamble(kind.magic(), FORMAT_VERSION)?;
    if !CLASSES.contains(&bytes.len()) || reader.u16()? != 0 {
        return Err(FormatError::Invalid { what });
    }
    let epoch = reader.u32()?;
    let salt: [u8; SALT_BYTES] = reader.array()?;
    let wrapped = reader.take(WRAPPED_KEY_BYTES)?;
    let binding = kind.binding(epoch, catalog.repository(), &salt);
    let cipher = SlotCipher::new(&catalog.object_key(epoch, CONTEXT_CATALOG_PART, &salt, what)?, &binding);
    let lengths = cipher.open(SLOT_LENGTHS, reader.take(LENGTHS_BYTES)?, what)?;
    let mut lengths = Reader::new(&lengths, what);
    let (catalog_len, open_len) = (lengths.u32()? as usize, lengths.u32()? as usize);
    if catalog_len > PARTS_BYTES_MAX || open_len > PARTS_BYTES_MAX {
        return Err(FormatError::Limit { what });
    }
    let catalog_part = cipher.open(SLOT_CATALOG, reader.take(catalog_len + TAG_BYTES)?, what)?;
    let open_sealed = reader.take(open_len + TAG_BYTES)?;
    let padding = cipher.open(SLOT_PADDING, reader.take(reader.remaining())?, what)?;
    // Without an early end it takes many bytes at once; most of an object is padding.
    if padding.iter().fold(0, |all, byte| all | byte) != 0 {
        return Err(FormatError::Invalid { what });
    }
    Ok(OpenedParts { kind, epoch, binding, wrapped, open_sealed, catalog_part })
}

/// What seals the padding, for the test vectors.
#[cfg(test)]
pub(crate) fn padding_key(kind: PartsKind, catalog: &CatalogKey, bytes: &[u8]) -> Result<(SlotKey, Vec<u8>)> {
    let mut reader = Reader::new(bytes, kind.what());
    reader.take(8)?;
    let (epoch, salt) = (reader.u32()?, reader.array()?);
    let key = catalog.object_key(epoch, CONTEXT_CATALOG_PART, &salt, kind.what())?;
    Ok((key, kind.binding(epoch, catalog.repository(), &salt)))
}

impl OpenedParts<'_> {
    /// Opens the part for the open key.
    pub fn open_part(&self, open: &OpenSeeds) -> Result<Vec<u8>> {
        let key = open.unwrap(self.epoch, self.wrapped, &self.binding, self.kind.what())?;
        SlotCipher::new(&key, &self.binding).open(SLOT_OPEN, self.open_sealed, self.kind.what())
    }
}
