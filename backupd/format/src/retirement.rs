//! Retirements: a pruner's signed word that a chain of heads has ended, so that deletions need not wait for its writer.

use crate::certificate::{Certificate, Role};
use crate::credential::PrunerCredential;
use crate::error::{FormatError, Result};
use crate::head::parse_link_name;
use crate::ids::{IncarnationId, ObjectHash, SourceId};
use crate::keys::CatalogKey;
use crate::wire::{Reader, put_no_extensions, put_preamble};
use crate::{FORMAT_VERSION, MAGIC_RETIREMENT};
use std::str::FromStr;

/// The largest retirement, bytes.
pub const RETIREMENT_BYTES_MAX: usize = 16 << 10;
const DOMAIN: &[u8] = b"holdfast retirement v1\0";
const WHAT: &str = "retirement";
const PREFIX: &str = "condemned/retired/";

/// Ends a chain. Its heads up to the counter stay; a later one does not count, and its writer begins a new chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retirement {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    /// The last counter that counts.
    pub counter: u64,
    pub time_unix_ms: i64,
}

impl Retirement {
    /// The signed bytes of the object.
    pub fn sign(&self, pruner: &PrunerCredential) -> Result<Vec<u8>> {
        if self.counter == 0 {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let mut out = Vec::new();
        put_preamble(&mut out, MAGIC_RETIREMENT, FORMAT_VERSION);
        out.extend_from_slice(pruner.repository().as_bytes());
        out.extend_from_slice(self.source.as_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(&self.time_unix_ms.to_le_bytes());
        put_no_extensions(&mut out);
        pruner.certificate().put(&mut out);
        let signature = pruner.sign(&[DOMAIN, &out].concat());
        out.extend_from_slice(&signature);
        Ok(out)
    }

    /// Parses a retirement and checks certificate and signature. A writer's certificate does not do.
    pub fn open(bytes: &[u8], catalog: &CatalogKey) -> Result<Self> {
        if bytes.len() > RETIREMENT_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_RETIREMENT, FORMAT_VERSION)?;
        if &reader.array()? != catalog.repository().as_bytes() {
            return Err(FormatError::OtherRepository { what: WHAT });
        }
        let retirement = Self {
            source: SourceId(reader.array()?),
            incarnation: IncarnationId(reader.array()?),
            counter: reader.u64()?,
            time_unix_ms: reader.i64()?,
        };
        reader.extensions()?;
        let certificate = Certificate::parse(Role::Pruner, &mut reader)?;
        let signature = reader.array()?;
        reader.end()?;
        if retirement.counter == 0 {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let signed = bytes.split_at(bytes.len() - 64).0;
        certificate.verify(catalog, &[DOMAIN, signed].concat(), &signature, WHAT)?;
        Ok(retirement)
    }

    /// The object's name for these bytes.
    #[must_use]
    pub fn name(&self, bytes: &[u8]) -> RetirementName {
        RetirementName {
            source: self.source,
            incarnation: self.incarnation,
            counter: self.counter,
            hash: ObjectHash::of(bytes),
        }
    }
}

/// `condemned/retired/<source>/<incarnation>/<counter>-<hash>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RetirementName {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    pub counter: u64,
    pub hash: ObjectHash,
}

impl std::fmt::Display for RetirementName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}/{}/{:016x}-{}", self.source, self.incarnation, self.counter, self.hash)
    }
}

impl FromStr for RetirementName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        let (source, incarnation, counter, hash) = parse_link_name(PREFIX, text, "retirement name")?;
        Ok(Self { source, incarnation, counter, hash })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::sample;

    #[test]
    fn only_a_pruner_of_this_repository_retires_a_chain() {
        let sample = sample(5);
        let catalog = sample.open.catalog();
        let (retirement, bytes) = (&sample.retirement, &sample.retirement_bytes);
        assert_eq!(Retirement::open(bytes, catalog).as_ref(), Ok(retirement));
        let name = retirement.name(bytes);
        assert_eq!(name.to_string().parse(), Ok(name));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Retirement::open(&changed, catalog).is_err(), "byte {at}");
        }
        let other = crate::samples::sample(6);
        assert_eq!(Retirement::open(bytes, other.open.catalog()), Err(FormatError::OtherRepository { what: WHAT }));
        // A tombstone's signature under a retirement's bytes would need the same message.
        assert!(Retirement::open(&sample.tombstone_bytes, catalog).is_err());
    }
}
