//! Tombstones: a pruner's signed word that a head was taken out on purpose.

use crate::certificate::{Certificate, Role};
use crate::credential::PrunerCredential;
use crate::error::{FormatError, Result};
use crate::head::parse_link_name;
use crate::ids::{IncarnationId, ObjectHash, SnapshotId, SourceId};
use crate::keys::CatalogKey;
use crate::wire::{Reader, put_no_extensions, put_preamble};
use crate::{FORMAT_VERSION, MAGIC_TOMBSTONE};
use std::str::FromStr;

/// The largest tombstone, bytes.
pub const TOMBSTONE_BYTES_MAX: usize = 16 << 10;
const DOMAIN: &[u8] = b"holdfast tombstone v1\0";
const WHAT: &str = "tombstone";
const PREFIX: &str = "tombstones/";

/// Why a snapshot was taken out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TombstoneReason {
    /// The retention rules no longer keep it.
    Retention,
    /// A person ordered it.
    Ordered,
    /// No store could give it back any more.
    Lost,
    /// It came after a deletion that its writer had not seen, and so never counted.
    Late,
    /// A reason that a later release gives.
    Other(u8),
}

impl TombstoneReason {
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Retention => 1,
            Self::Ordered => 2,
            Self::Lost => 3,
            Self::Late => 4,
            Self::Other(code) => code,
        }
    }

    pub(crate) fn from_code(code: u8) -> Result<Self> {
        match code {
            0 => Err(FormatError::Invalid { what: WHAT }),
            1 => Ok(Self::Retention),
            2 => Ok(Self::Ordered),
            3 => Ok(Self::Lost),
            4 => Ok(Self::Late),
            other => Ok(Self::Other(other)),
        }
    }
}

/// Stands in a chain for a head that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    pub counter: u64,
    /// The head that it stands for: the next link names it as its predecessor.
    pub head: ObjectHash,
    pub snapshot: SnapshotId,
    /// The deletion plan that took the snapshot out.
    pub plan: [u8; 32],
    pub time_unix_ms: i64,
    pub reason: TombstoneReason,
}

impl Tombstone {
    /// The signed bytes of the object.
    pub fn sign(&self, pruner: &PrunerCredential) -> Result<Vec<u8>> {
        if self.counter == 0 {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let mut out = Vec::new();
        put_preamble(&mut out, MAGIC_TOMBSTONE, FORMAT_VERSION);
        out.extend_from_slice(pruner.repository().as_bytes());
        out.extend_from_slice(self.source.as_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(self.snapshot.as_bytes());
        out.extend_from_slice(&self.plan);
        out.extend_from_slice(&self.time_unix_ms.to_le_bytes());
        out.push(self.reason.code());
        put_no_extensions(&mut out);
        pruner.certificate().put(&mut out);
        let signature = pruner.sign(&[DOMAIN, &out].concat());
        out.extend_from_slice(&signature);
        Ok(out)
    }

    /// Parses a tombstone and checks certificate and signature. A writer's certificate does not do.
    pub fn open(bytes: &[u8], catalog: &CatalogKey) -> Result<Self> {
        if bytes.len() > TOMBSTONE_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_TOMBSTONE, FORMAT_VERSION)?;
        if &reader.array()? != catalog.repository().as_bytes() {
            return Err(FormatError::OtherRepository { what: WHAT });
        }
        let tombstone = Self {
            source: SourceId(reader.array()?),
            incarnation: IncarnationId(reader.array()?),
            counter: reader.u64()?,
            head: ObjectHash(reader.array()?),
            snapshot: SnapshotId(reader.array()?),
            plan: reader.array()?,
            time_unix_ms: reader.i64()?,
            reason: TombstoneReason::from_code(reader.u8()?)?,
        };
        reader.extensions()?;
        let certificate = Certificate::parse(Role::Pruner, &mut reader)?;
        let signature = reader.array()?;
        reader.end()?;
        if tombstone.counter == 0 {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let signed = bytes.split_at(bytes.len() - 64).0;
        certificate.verify(catalog, &[DOMAIN, signed].concat(), &signature, WHAT)?;
        Ok(tombstone)
    }

    /// The object's name for these bytes.
    #[must_use]
    pub fn name(&self, bytes: &[u8]) -> TombstoneName {
        TombstoneName {
            source: self.source,
            incarnation: self.incarnation,
            counter: self.counter,
            hash: ObjectHash::of(bytes),
        }
    }
}

/// `tombstones/<source>/<incarnation>/<counter>-<hash>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TombstoneName {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    pub counter: u64,
    pub hash: ObjectHash,
}

impl std::fmt::Display for TombstoneName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}/{}/{:016x}-{}", self.source, self.incarnation, self.counter, self.hash)
    }
}

impl FromStr for TombstoneName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        let (source, incarnation, counter, hash) = parse_link_name(PREFIX, text, "tombstone name")?;
        Ok(Self { source, incarnation, counter, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{RepositorySecrets, WriterCredential};
    use crate::testing::rng;

    #[test]
    fn only_a_pruner_of_this_repository_signs_tombstones() {
        let mut rng = rng(5);
        let secrets = RepositorySecrets::generate(&mut rng, 0);
        let pruner = PrunerCredential::issue(&mut rng, &secrets);
        let pruner = PrunerCredential::from_bytes(&pruner.to_bytes()).unwrap();
        let tombstone = Tombstone {
            source: SourceId([1; 16]),
            incarnation: IncarnationId([2; 16]),
            counter: 7,
            head: ObjectHash([3; 32]),
            snapshot: SnapshotId([4; 32]),
            plan: [5; 32],
            time_unix_ms: -1,
            reason: TombstoneReason::Other(200),
        };
        let bytes = tombstone.sign(&pruner).unwrap();
        let open = secrets.open_key();
        assert_eq!(Tombstone::open(&bytes, open.catalog()), Ok(tombstone.clone()));
        let name = tombstone.name(&bytes);
        assert_eq!(name.to_string().parse(), Ok(name));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Tombstone::open(&changed, open.catalog()).is_err(), "byte {at}");
        }
        // A writer's certified key under its own certificate, with a pruner's message.
        let writer = WriterCredential::issue(&mut rng, &secrets);
        let mut forged = bytes.clone();
        let from = forged.len() - 64 - Certificate::BYTES;
        let mut certificate = Vec::new();
        writer.certificate().put(&mut certificate);
        forged[from..from + Certificate::BYTES].copy_from_slice(&certificate);
        let signed = forged.len() - 64;
        let signature = writer.sign(&[DOMAIN, &forged[..signed]].concat());
        forged[signed..].copy_from_slice(&signature);
        assert_eq!(Tombstone::open(&forged, open.catalog()), Err(FormatError::Signature { what: WHAT }));
        let other = RepositorySecrets::generate(&mut rng, 0).open_key();
        assert_eq!(Tombstone::open(&bytes, other.catalog()), Err(FormatError::OtherRepository { what: WHAT }));
    }
}
