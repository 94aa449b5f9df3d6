//! Tombstones: a pruner's signed word that a head was taken out on purpose, or a run of heads.

use crate::certificate::{Certificate, Role};
use crate::credential::PrunerCredential;
use crate::error::{FormatError, Result};
use crate::head::{parse_chain_name, parse_counter};
use crate::ids::{IncarnationId, ObjectHash, SnapshotId, SourceId};
use crate::keys::CatalogKey;
use crate::wire::{Reader, put_extension, put_no_extensions, put_preamble};
use crate::{FORMAT_VERSION, MAGIC_TOMBSTONE};
use std::str::FromStr;

/// The largest tombstone, bytes.
pub const TOMBSTONE_BYTES_MAX: usize = 16 << 10;
const DOMAIN: &[u8] = b"holdfast tombstone v1\0";
const WHAT: &str = "tombstone";
const PREFIX: &str = "tombstones/";
/// The extension that says the first counter of a run. Who does not understand it must not take the run for its last head.
const FIRST: u64 = 1;

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

/// Stands in a chain for a head that is gone, or for a run of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tombstone {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    /// The first counter that it stands for; that of a single head is `last`.
    pub first: u64,
    /// The last counter that it stands for.
    pub last: u64,
    /// The last head that it stands for: the next link names it as its predecessor.
    pub head: ObjectHash,
    /// The last head's snapshot.
    pub snapshot: SnapshotId,
    /// The deletion plan that took the snapshot out.
    pub plan: [u8; 32],
    pub time_unix_ms: i64,
    pub reason: TombstoneReason,
}

impl Tombstone {
    /// The signed bytes of the object.
    pub fn sign(&self, pruner: &PrunerCredential) -> Result<Vec<u8>> {
        if self.first == 0 || self.first > self.last {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let mut out = Vec::new();
        put_preamble(&mut out, MAGIC_TOMBSTONE, FORMAT_VERSION);
        out.extend_from_slice(pruner.repository().as_bytes());
        out.extend_from_slice(self.source.as_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.last.to_le_bytes());
        out.extend_from_slice(self.head.as_bytes());
        out.extend_from_slice(self.snapshot.as_bytes());
        out.extend_from_slice(&self.plan);
        out.extend_from_slice(&self.time_unix_ms.to_le_bytes());
        out.push(self.reason.code());
        match self.first == self.last {
            true => put_no_extensions(&mut out),
            false => put_extension(&mut out, FIRST, &self.first.to_le_bytes()),
        }
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
        let mut tombstone = Self {
            source: SourceId(reader.array()?),
            incarnation: IncarnationId(reader.array()?),
            first: 0,
            last: reader.u64()?,
            head: ObjectHash(reader.array()?),
            snapshot: SnapshotId(reader.array()?),
            plan: reader.array()?,
            time_unix_ms: reader.i64()?,
            reason: TombstoneReason::from_code(reader.u8()?)?,
        };
        tombstone.first = match reader.extension(Some(FIRST))? {
            None => tombstone.last,
            Some(first) => match first.try_into().map(u64::from_le_bytes) {
                // A run of one has one form, without the extension.
                Ok(first) if first < tombstone.last => first,
                _ => return Err(FormatError::Invalid { what: WHAT }),
            },
        };
        let certificate = Certificate::parse(Role::Pruner, &mut reader)?;
        let signature = reader.array()?;
        reader.end()?;
        if tombstone.first == 0 {
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
            first: self.first,
            last: self.last,
            hash: ObjectHash::of(bytes),
        }
    }
}

/// `tombstones/<source>/<incarnation>/<counter>-<hash>`, or of a run `.../<first counter>-<last counter>-<hash>`: a listing
/// tells which runs there are. The counters of a run have no leading zeros, so that no name is much longer than that of a
/// head: some stores keep no longer ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TombstoneName {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    pub first: u64,
    pub last: u64,
    pub hash: ObjectHash,
}
impl std::fmt::Display for TombstoneName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}/{}/", self.source, self.incarnation)?;
        match self.first == self.last {
            true => write!(f, "{:016x}-{}", self.last, self.hash),
            false => write!(f, "{:x}-{:x}-{}", self.first, self.last, self.hash),
        }
    }
}

impl FromStr for TombstoneName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        let what = "tombstone name";
        let (source, incarnation, rest) = parse_chain_name(PREFIX, text, what)?;
        let (counters, hash) = rest.rsplit_once('-').ok_or(FormatError::Invalid { what })?;
        let (first, last) = match counters.split_once('-') {
            None => parse_counter(counters, what).map(|counter| (counter, counter))?,
            Some((first, last)) => (parse_short_counter(first, what)?, parse_short_counter(last, what)?),
        };
        // A run of one has one form, without a dash.
        if counters.contains('-') != (first < last) {
            return Err(FormatError::Invalid { what });
        }
        Ok(Self { source, incarnation, first, last, hash: hash.parse()? })
    }
}

/// Hexadecimal digits without leading zeros.
fn parse_short_counter(text: &str, what: &'static str) -> Result<u64> {
    let counter = u64::from_str_radix(text, 16).ok();
    counter.filter(|counter| format!("{counter:x}") == text).ok_or(FormatError::Invalid { what })
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
            first: 7,
            last: 7,
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
        let run = Tombstone { first: 3, ..tombstone.clone() };
        let run_bytes = run.sign(&pruner).unwrap();
        assert_eq!(Tombstone::open(&run_bytes, open.catalog()), Ok(run.clone()));
        let run_name = run.name(&run_bytes);
        assert_eq!(run_name.to_string().parse(), Ok(run_name));
        assert_eq!((run_name.first, run_name.last), (3, 7));
        for other in ["7-7", "03-7", "3-07", "+3-7", "-7", "3-", "0000000000000003-0000000000000007"] {
            let other = run_name.to_string().replace("/3-7-", &format!("/{other}-"));
            assert!(other.parse::<TombstoneName>().is_err(), "a run has one name: {other}");
        }
        // Ten years of a snapshot every five minutes.
        let longest = TombstoneName { first: 1, last: 1 << 20, ..run_name }.to_string();
        assert!(longest.len() <= name.to_string().len(), "{longest}");
        for (first, last) in [(0, 7), (8, 7), (0, 0)] {
            assert!(Tombstone { first, last, ..tombstone.clone() }.sign(&pruner).is_err());
        }
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
