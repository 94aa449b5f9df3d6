//! Deletion plans: a pruner's signed list of what it will take out, which every writer reads before it commits.
//!
//! A plan is announced first. Later an order of the same form, which names the announced plan, says what of it is really
//! taken out; nothing is deleted before the order lies in every store.

use crate::certificate::{Certificate, Role};
use crate::credential::PrunerCredential;
use crate::error::{FormatError, Result};
use crate::head::HeadName;
use crate::ids::{IncarnationId, ObjectHash, SnapshotId, SourceId};
use crate::keys::CatalogKey;
use crate::tombstone::{TombstoneName, TombstoneReason};
use crate::wire::{Reader, put_extension, put_no_extensions, put_preamble, put_varint};
use crate::{FORMAT_VERSION, MAGIC_PLAN};
use std::str::FromStr;

/// The largest plan, bytes.
pub const PLAN_BYTES_MAX: usize = 16 << 20;
/// The most chains that a plan names.
pub const PLAN_CHAINS_MAX: usize = 65_536;
/// The most heads that one plan takes out.
pub const PLAN_HEADS_MAX: usize = 16_384;
/// The most index objects of one plan, taken out or put in their place.
pub const PLAN_INDEXES_MAX: usize = 65_536;
/// The most packs that one plan takes out.
pub const PLAN_PACKS_MAX: usize = 131_072;
/// The most tombstones of one order.
pub const PLAN_TOMBSTONES_MAX: usize = 8192;
/// The extension that lists tombstones. Who does not understand it would copy them back to where they are gone.
const TOMBSTONES: u64 = 1;
const TOMBSTONE_ENTRY_BYTES: usize = 80;
const DOMAIN: &[u8] = b"holdfast deletion plan v1\0";
const WHAT: &str = "deletion plan";
const PREFIX: &str = "condemned/";

/// How far the mark had read one chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainMark {
    pub source: SourceId,
    pub incarnation: IncarnationId,
    /// The highest counter that the mark knew of.
    pub counter: u64,
}

/// A head that is to be taken out, and with it its snapshot object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CondemnedHead {
    pub head: HeadName,
    pub snapshot: SnapshotId,
    pub reason: TombstoneReason,
}

/// What a pruner takes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// From 1; each plan of a repository has a higher number than those before it.
    pub number: u64,
    /// The announced plan that this is the order to execute; `None`: this one is announced.
    pub executes: Option<ObjectHash>,
    pub time_unix_ms: i64,
    /// Time that must pass between announcement and execution, milliseconds.
    pub grace_ms: u64,
    /// Every chain that the mark read: heads above its counter are not covered by this plan.
    pub chains: Vec<ChainMark>,
    pub heads: Vec<CondemnedHead>,
    /// Index objects that are to be taken out.
    pub indexes: Vec<ObjectHash>,
    /// Index objects that say what the others said and is still true: no index may go where one of these is missing.
    pub replacements: Vec<ObjectHash>,
    pub packs: Vec<ObjectHash>,
    /// Tombstones in whose place one of a longer run stands. Only an order names some.
    pub tombstones: Vec<TombstoneName>,
}

fn put_hashes(out: &mut Vec<u8>, hashes: &[ObjectHash]) {
    put_varint(out, hashes.len() as u64);
    hashes.iter().for_each(|hash| out.extend_from_slice(hash.as_bytes()));
}

fn hashes(reader: &mut Reader<'_>, max: usize) -> Result<Vec<ObjectHash>> {
    let count = reader.count(max)?;
    let mut found = Vec::with_capacity(count.min(reader.remaining() / ObjectHash::BYTES));
    for _ in 0..count {
        found.push(ObjectHash(reader.array()?));
    }
    Ok(found)
}

fn put_tombstones(out: &mut Vec<u8>, names: &[TombstoneName]) {
    if names.is_empty() {
        return put_no_extensions(out);
    }
    let mut value = Vec::with_capacity(names.len() * TOMBSTONE_ENTRY_BYTES);
    for name in names {
        value.extend_from_slice(name.source.as_bytes());
        value.extend_from_slice(name.incarnation.as_bytes());
        value.extend_from_slice(&name.first.to_le_bytes());
        value.extend_from_slice(&name.last.to_le_bytes());
        value.extend_from_slice(name.hash.as_bytes());
    }
    put_extension(out, TOMBSTONES, &value);
}

fn tombstones(reader: &mut Reader<'_>) -> Result<Vec<TombstoneName>> {
    let Some(value) = reader.extension(Some(TOMBSTONES))? else { return Ok(Vec::new()) };
    // An empty list has one form, no extension.
    if value.is_empty() {
        return Err(FormatError::Invalid { what: WHAT });
    }
    if value.len() > PLAN_TOMBSTONES_MAX * TOMBSTONE_ENTRY_BYTES {
        return Err(FormatError::Limit { what: WHAT });
    }
    let mut names = Vec::with_capacity(value.len() / TOMBSTONE_ENTRY_BYTES);
    let mut reader = Reader::new(value, WHAT);
    while reader.remaining() > 0 {
        names.push(TombstoneName {
            source: SourceId(reader.array()?),
            incarnation: IncarnationId(reader.array()?),
            first: reader.u64()?,
            last: reader.u64()?,
            hash: ObjectHash(reader.array()?),
        });
    }
    Ok(names)
}

fn ascends<T: Ord>(items: &[T]) -> bool {
    items.is_sorted_by(|a, b| a < b)
}

impl Plan {
    fn is_consistent(&self) -> bool {
        let counters = self.chains.iter().map(|chain| chain.counter).chain(self.heads.iter().map(|h| h.head.counter));
        self.number > 0
            && counters.min().is_none_or(|least| least > 0)
            && self.chains.is_sorted_by(|a, b| (a.source, a.incarnation) < (b.source, b.incarnation))
            && self.heads.is_sorted_by(|a, b| a.head < b.head)
            && [&self.indexes, &self.replacements, &self.packs].iter().all(|hashes| ascends(hashes))
            && ascends(&self.tombstones)
            && self.tombstones.iter().all(|stone| (1..=stone.last).contains(&stone.first))
            && (self.executes.is_some() || self.tombstones.is_empty())
    }

    fn is_small(&self) -> bool {
        self.chains.len() <= PLAN_CHAINS_MAX
            && self.heads.len() <= PLAN_HEADS_MAX
            && self.indexes.len() <= PLAN_INDEXES_MAX
            && self.replacements.len() <= PLAN_INDEXES_MAX
            && self.packs.len() <= PLAN_PACKS_MAX
            && self.tombstones.len() <= PLAN_TOMBSTONES_MAX
    }

    /// The signed bytes of the object. All lists must ascend strictly.
    pub fn sign(&self, pruner: &PrunerCredential) -> Result<Vec<u8>> {
        if !self.is_small() {
            return Err(FormatError::Limit { what: WHAT });
        }
        if !self.is_consistent() {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let mut out = Vec::new();
        put_preamble(&mut out, MAGIC_PLAN, FORMAT_VERSION);
        out.extend_from_slice(pruner.repository().as_bytes());
        out.extend_from_slice(&self.number.to_le_bytes());
        out.push(u8::from(self.executes.is_some()));
        out.extend_from_slice(self.executes.as_ref().map_or(&[], |plan| plan.as_bytes().as_slice()));
        out.extend_from_slice(&self.time_unix_ms.to_le_bytes());
        out.extend_from_slice(&self.grace_ms.to_le_bytes());
        put_varint(&mut out, self.chains.len() as u64);
        for chain in &self.chains {
            out.extend_from_slice(chain.source.as_bytes());
            out.extend_from_slice(chain.incarnation.as_bytes());
            out.extend_from_slice(&chain.counter.to_le_bytes());
        }
        put_varint(&mut out, self.heads.len() as u64);
        for CondemnedHead { head, snapshot, reason } in &self.heads {
            out.extend_from_slice(head.source.as_bytes());
            out.extend_from_slice(head.incarnation.as_bytes());
            out.extend_from_slice(&head.counter.to_le_bytes());
            out.extend_from_slice(head.hash.as_bytes());
            out.extend_from_slice(snapshot.as_bytes());
            out.push(reason.code());
        }
        put_hashes(&mut out, &self.indexes);
        put_hashes(&mut out, &self.replacements);
        put_hashes(&mut out, &self.packs);
        put_tombstones(&mut out, &self.tombstones);
        pruner.certificate().put(&mut out);
        let signature = pruner.sign(&[DOMAIN, &out].concat());
        out.extend_from_slice(&signature);
        if out.len() > PLAN_BYTES_MAX { Err(FormatError::Limit { what: WHAT }) } else { Ok(out) }
    }

    /// Parses a plan and checks certificate and signature. A writer's certificate does not do.
    pub fn open(bytes: &[u8], catalog: &CatalogKey) -> Result<Self> {
        if bytes.len() > PLAN_BYTES_MAX {
            return Err(FormatError::Limit { what: WHAT });
        }
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_PLAN, FORMAT_VERSION)?;
        if &reader.array()? != catalog.repository().as_bytes() {
            return Err(FormatError::OtherRepository { what: WHAT });
        }
        let mut plan = Self {
            number: reader.u64()?,
            executes: if reader.flag()? { Some(ObjectHash(reader.array()?)) } else { None },
            time_unix_ms: reader.i64()?,
            grace_ms: reader.u64()?,
            chains: Vec::new(),
            heads: Vec::new(),
            indexes: Vec::new(),
            replacements: Vec::new(),
            packs: Vec::new(),
            tombstones: Vec::new(),
        };
        for _ in 0..reader.count(PLAN_CHAINS_MAX)? {
            let (source, incarnation) = (SourceId(reader.array()?), IncarnationId(reader.array()?));
            plan.chains.push(ChainMark { source, incarnation, counter: reader.u64()? });
        }
        for _ in 0..reader.count(PLAN_HEADS_MAX)? {
            let head = HeadName {
                source: SourceId(reader.array()?),
                incarnation: IncarnationId(reader.array()?),
                counter: reader.u64()?,
                hash: ObjectHash(reader.array()?),
            };
            let snapshot = SnapshotId(reader.array()?);
            plan.heads.push(CondemnedHead { head, snapshot, reason: TombstoneReason::from_code(reader.u8()?)? });
        }
        plan.indexes = hashes(&mut reader, PLAN_INDEXES_MAX)?;
        plan.replacements = hashes(&mut reader, PLAN_INDEXES_MAX)?;
        plan.packs = hashes(&mut reader, PLAN_PACKS_MAX)?;
        plan.tombstones = tombstones(&mut reader)?;
        let certificate = Certificate::parse(Role::Pruner, &mut reader)?;
        let signature = reader.array()?;
        reader.end()?;
        if !plan.is_consistent() {
            return Err(FormatError::Invalid { what: WHAT });
        }
        let signed = bytes.split_at(bytes.len() - 64).0;
        certificate.verify(catalog, &[DOMAIN, signed].concat(), &signature, WHAT)?;
        Ok(plan)
    }

    /// The object's name for these bytes.
    #[must_use]
    pub fn name(&self, bytes: &[u8]) -> PlanName {
        PlanName { number: self.number, hash: ObjectHash::of(bytes) }
    }

    /// Whether the mark behind the plan knew of a head.
    #[must_use]
    pub fn covers(&self, source: SourceId, incarnation: IncarnationId, counter: u64) -> bool {
        let found = self.chains.binary_search_by_key(&(source, incarnation), |mark| (mark.source, mark.incarnation));
        found.ok().and_then(|at| self.chains.get(at)).is_some_and(|mark| counter <= mark.counter)
    }
}

/// `condemned/<16 hex digits: number>-<hash>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanName {
    pub number: u64,
    pub hash: ObjectHash,
}

impl std::fmt::Display for PlanName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{:016x}-{}", self.number, self.hash)
    }
}

impl FromStr for PlanName {
    type Err = FormatError;

    fn from_str(text: &str) -> Result<Self> {
        let bad = || FormatError::Invalid { what: "deletion plan name" };
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(bad());
        }
        let (number, hash) = text.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')).ok_or_else(bad)?;
        if number.len() != 16 || !number.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(bad());
        }
        Ok(Self { number: u64::from_str_radix(number, 16).map_err(|_| bad())?, hash: hash.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::sample;

    #[test]
    fn a_plan_says_the_same_after_a_round_trip_and_no_byte_of_it_may_change() {
        let sample = sample(5);
        let catalog = sample.open.catalog();
        assert_eq!(Plan::open(&sample.plan_bytes, catalog), Ok(sample.plan.clone()));
        assert_eq!(Plan::open(&sample.order_bytes, catalog), Ok(sample.order.clone()));
        let announced = Plan { executes: None, ..sample.order.clone() };
        assert!(announced.sign(&sample.pruner).is_err(), "tombstones go by an order alone");
        let name = sample.plan.name(&sample.plan_bytes);
        assert_eq!(name.to_string().parse(), Ok(name));
        for at in 0..sample.plan_bytes.len() {
            let mut changed = sample.plan_bytes.clone();
            changed[at] ^= 1;
            assert!(Plan::open(&changed, catalog).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_plan_covers_the_heads_that_its_mark_knew() {
        let plan = sample(5).plan;
        let mark = plan.chains[0];
        assert!(plan.covers(mark.source, mark.incarnation, mark.counter));
        assert!(!plan.covers(mark.source, mark.incarnation, mark.counter + 1));
        assert!(!plan.covers(mark.source, IncarnationId([0xee; 16]), 1), "a chain that it did not know");
    }

    #[test]
    fn lists_out_of_order_are_not_signed() {
        let sample = sample(5);
        let mut plan = sample.plan.clone();
        plan.packs.reverse();
        assert_eq!(plan.sign(&sample.pruner), Err(FormatError::Invalid { what: WHAT }));
        plan.packs = (0..=PLAN_PACKS_MAX as u64)
            .map(|at| {
                let mut hash = [0; 32];
                hash[..8].copy_from_slice(&at.to_be_bytes());
                ObjectHash(hash)
            })
            .collect();
        assert_eq!(plan.sign(&sample.pruner), Err(FormatError::Limit { what: WHAT }));
    }
}
