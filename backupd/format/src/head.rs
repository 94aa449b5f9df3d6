//! Heads: signed, tiny, one chain for each source and incarnation of a writer.

use crate::certificate::{Certificate, Role};
use crate::credential::WriterCredential;
use crate::error::{FormatError, Result};
use crate::ids::{IncarnationId, ObjectHash, SnapshotId, SourceId};
use crate::keys::CatalogKey;
use crate::wire::{Reader, put_no_extensions, put_preamble, put_varint};
use crate::{FORMAT_VERSION, MAGIC_HEAD};
use std::str::FromStr;

/// The most heads that the first head of an incarnation names.
pub const SEEN_MAX: usize = 256;
/// The largest head, bytes.
pub const HEAD_BYTES_MAX: usize = 16 << 10;
const DOMAIN: &[u8] = b"holdfast head v1\0";
const WHAT: &str = "head";
const PREFIX: &str = "heads/";

/// One link of a chain. It holds opaque ids only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    /// From 1, without gaps.
    pub counter: u64,
    pub snapshot: SnapshotId,
    /// The hash of the head before; `None` only for counter 1.
    pub predecessor: Option<ObjectHash>,
    /// Counter 1 only: the latest heads that the writer saw.
    pub seen: Vec<ObjectHash>,
}

impl Head {
    fn body(&self, catalog: &CatalogKey, certificate: &Certificate) -> Vec<u8> {
        let mut out = Vec::new();
        put_preamble(&mut out, MAGIC_HEAD, FORMAT_VERSION);
        out.extend_from_slice(catalog.repository().as_bytes());
        out.extend_from_slice(self.source.as_bytes());
        out.extend_from_slice(self.incarnation.as_bytes());
        out.extend_from_slice(&self.counter.to_le_bytes());
        out.extend_from_slice(self.snapshot.as_bytes());
        out.push(u8::from(self.predecessor.is_some()));
        if let Some(predecessor) = &self.predecessor {
            out.extend_from_slice(predecessor.as_bytes());
        }
        put_varint(&mut out, self.seen.len() as u64);
        for seen in &self.seen {
            out.extend_from_slice(seen.as_bytes());
        }
        put_no_extensions(&mut out);
        certificate.put(&mut out);
        out
    }

    /// The signed bytes of the object.
    pub fn sign(&self, writer: &WriterCredential) -> Result<Vec<u8>> {
        if self.seen.len() > SEEN_MAX || !self.is_consistent() {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let mut out = self.body(writer.catalog(), writer.certificate());
        let signature = writer.sign(&[DOMAIN, &out].concat());
        out.extend_from_slice(&signature);
        Ok(out)
    }

    fn is_consistent(&self) -> bool {
        self.counter >= 1
            && (self.counter == 1) == self.predecessor.is_none()
            && (self.counter == 1 || self.seen.is_empty())
    }

    /// Parses a head and checks certificate and signature.
    pub fn open(bytes: &[u8], catalog: &CatalogKey) -> Result<Self> {
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_HEAD, FORMAT_VERSION)?;
        if &reader.array()? != catalog.repository().as_bytes() {
            return Err(FormatError::OtherRepository { what: WHAT });
        }
        let mut head = Self {
            source: SourceId(reader.array()?),
            incarnation: IncarnationId(reader.array()?),
            counter: reader.u64()?,
            snapshot: SnapshotId(reader.array()?),
            predecessor: if reader.flag()? { Some(ObjectHash(reader.array()?)) } else { None },
            seen: Vec::new(),
        };
        for _ in 0..reader.count(SEEN_MAX)? {
            head.seen.push(ObjectHash(reader.array()?));
        }
        reader.extensions()?;
        let certificate = Certificate::parse(Role::Writer, &mut reader)?;
        let signature = reader.array()?;
        reader.end()?;
        if !head.is_consistent() {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let signed = bytes.split_at(bytes.len() - 64).0;
        certificate.verify(catalog, &[DOMAIN, signed].concat(), &signature, WHAT)?;
        Ok(head)
    }

    /// The object's name for these bytes.
    #[must_use]
    pub fn name(&self, bytes: &[u8]) -> HeadName {
        HeadName {
            source: self.source,
            incarnation: self.incarnation,
            counter: self.counter,
            hash: ObjectHash::of(bytes),
        }
    }
}

/// `heads/<source>/<incarnation>/<counter>-<hash>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadName {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    pub counter: u64,
    pub hash: ObjectHash,
}

impl std::fmt::Display for HeadName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}/{}/{:016x}-{}", self.source, self.incarnation, self.counter, self.hash)
    }
}

impl FromStr for HeadName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        let (source, incarnation, counter, hash) = parse_link_name(PREFIX, text, "head name")?;
        Ok(Self { source, incarnation, counter, hash })
    }
}

/// `<prefix><source>/<incarnation>/<16 hex digits>-<hash>` in its one form.
pub(crate) fn parse_link_name(
    prefix: &str,
    text: &str,
    what: &'static str,
) -> Result<(SourceId, IncarnationId, u64, ObjectHash)> {
    let (source, incarnation, rest) = parse_chain_name(prefix, text, what)?;
    let (counter, hash) = rest.split_once('-').ok_or(FormatError::Invalid { what })?;
    Ok((source, incarnation, parse_counter(counter, what)?, hash.parse()?))
}

/// `<prefix><source>/<incarnation>/<rest>`.
pub(crate) fn parse_chain_name<'t>(
    prefix: &str,
    text: &'t str,
    what: &'static str,
) -> Result<(SourceId, IncarnationId, &'t str)> {
    let bad = || FormatError::Invalid { what };
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(bad());
    }
    let mut parts = text.strip_prefix(prefix).ok_or_else(bad)?.splitn(3, '/');
    let source = parts.next().ok_or_else(bad)?.parse()?;
    let incarnation = parts.next().ok_or_else(bad)?.parse()?;
    Ok((source, incarnation, parts.next().ok_or_else(bad)?))
}

/// 16 hex digits.
pub(crate) fn parse_counter(text: &str, what: &'static str) -> Result<u64> {
    let digits = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u64::from_str_radix(text, 16).ok().filter(|_| digits).ok_or(FormatError::Invalid { what })
}
