//! The bytes of a Holdfast repository: no I/O, no clock; randomness is handed in. `SPEC.md` says the same in prose.
//!
//! Every parser is total: limits first, no index, no panic, `parse(bytes) -> Result`. An unknown version is refused by
//! name and never called damage.

pub mod aead;
pub mod certificate;
pub mod condemned;
pub mod credential;
pub mod error;
pub mod features;
pub mod head;
pub mod ids;
pub mod index;
pub mod keyring;
pub mod keys;
mod letters;
pub mod machine;
pub mod manifest;
pub mod pack;
pub mod pages;
pub mod paper;
pub mod retirement;
#[cfg(test)]
mod samples;
pub mod seal;
pub mod sealed;
pub mod segment;
pub mod share;
pub mod slot;
#[cfg(test)]
mod testing;
pub mod tombstone;
#[cfg(test)]
mod totality;
pub mod tree;
#[cfg(test)]
mod vectors;
pub mod wire;

pub use certificate::{Certificate, Role};
pub use credential::{OpenKey, PrunerCredential, RepositorySecrets, WriterCredential};
pub use error::{FormatError, Result};
pub use ids::{ChunkId, IncarnationId, ObjectHash, RepositoryId, SlotId, SnapshotId, SourceId};
pub use keyring::{Keyring, Passphrase};
pub use keys::{CatalogKey, ChunkKind, IdKey};
pub use machine::MachineKey;
pub use paper::PaperKey;
pub use seal::{OpenSeeds, SealKey};
pub use share::Share;
pub use slot::{Slot, SlotKind, Unlock};

/// The version of every object of the repository: 1.0. What was written before the first release says 0.1.
pub const FORMAT_VERSION: u16 = 0x0100;
/// The version of the keyring.
pub const KEYRING_VERSION: u16 = 0x0100;
/// The version of writer credentials, open key files and pruner credentials.
pub const KEY_FILE_VERSION: u16 = 0x0100;

pub const MAGIC_KEYRING: &[u8; 4] = b"HFkr";
pub const MAGIC_WRITER: &[u8; 4] = b"HFwc";
pub const MAGIC_OPEN_KEY: &[u8; 4] = b"HFok";
pub const MAGIC_PACK: &[u8; 4] = b"HFpk";
pub const MAGIC_INDEX: &[u8; 4] = b"HFix";
pub const MAGIC_SNAPSHOT: &[u8; 4] = b"HFsn";
pub const MAGIC_HEAD: &[u8; 4] = b"HFhd";
pub const MAGIC_TOMBSTONE: &[u8; 4] = b"HFts";
pub const MAGIC_PRUNER: &[u8; 4] = b"HFpr";
pub const MAGIC_PLAN: &[u8; 4] = b"HFdp";
pub const MAGIC_RETIREMENT: &[u8; 4] = b"HFrt";
