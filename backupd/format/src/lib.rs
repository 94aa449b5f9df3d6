//! The bytes of a Holdfast repository: no I/O, no clock; randomness is handed in. `SPEC.md` says the same in prose.
//!
//! Every parser is total: limits first, no index, no panic, `parse(bytes) -> Result`. An unknown version is refused by
//! name and never called damage.

pub mod aead;
pub mod error;
pub mod head;
pub mod ids;
pub mod index;
pub mod keyring;
pub mod keys;
pub mod manifest;
pub mod pack;
pub mod pages;
pub mod paper;
#[cfg(test)]
mod samples;
pub mod seal;
pub mod sealed;
pub mod segment;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod totality;
pub mod tree;
#[cfg(test)]
mod vectors;
pub mod wire;

pub use error::{FormatError, Result};
pub use ids::{ChunkId, IncarnationId, ObjectHash, RepositoryId, SnapshotId, SourceId};
pub use keyring::Passphrase;
pub use keys::{CatalogKey, ChunkKind, IdKey, OpenKey, RepositorySecrets, WriterCertificate, WriterCredential};
pub use paper::PaperKey;
pub use seal::SealKey;

/// The version of every object of the repository.
pub const FORMAT_VERSION: u16 = 1;
/// The version of the keyring.
pub const KEYRING_VERSION: u16 = 1;
/// The version of writer credentials and open key files.
pub const KEY_FILE_VERSION: u16 = 1;

pub const MAGIC_KEYRING: &[u8; 4] = b"HFkr";
pub const MAGIC_WRITER: &[u8; 4] = b"HFwc";
pub const MAGIC_OPEN_KEY: &[u8; 4] = b"HFok";
pub const MAGIC_PACK: &[u8; 4] = b"HFpk";
pub const MAGIC_INDEX: &[u8; 4] = b"HFix";
pub const MAGIC_SNAPSHOT: &[u8; 4] = b"HFsn";
pub const MAGIC_HEAD: &[u8; 4] = b"HFhd";
