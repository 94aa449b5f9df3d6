//! Where every chunk of a store lies, in little memory: about 45 bytes for a chunk.
//!
//! Copies of chunks are numbered in pack order, so that sorting numbers sorts by pack, segment and offset.

use crate::error::{Error, ErrorKind, Result};
use backup_format::pack::{PackRecord, SegmentOpener, SegmentRecord};
use backup_format::{ChunkId, ChunkKind, ObjectHash, RepositoryId};
use std::collections::HashMap;

/// One copy of a chunk: its number in pack order.
pub(crate) type CopyNumber = u32;

/// A hostile index could name one chunk a million times: further copies are not looked at.
const COPIES_MAX: usize = 8;
const FREE: u32 = u32::MAX;

/// A segment, and which copies are in it.
#[derive(Clone, Copy)]
pub(crate) struct SegmentPlace {
    pub(crate) pack: u32,
    /// Its number in the pack.
    pub(crate) slot: u32,
    pub(crate) offset: u32,
    pub(crate) sealed_len: u32,
    pub(crate) plain_len: u32,
    pub(crate) compressed: bool,
    first_copy: CopyNumber,
}

impl SegmentPlace {
    /// Where its sealed bytes end in the pack.
    pub(crate) fn end(&self) -> u32 {
        self.offset.saturating_add(self.sealed_len)
    }
}

/// A pack without its segments.
pub(crate) struct PackPlace {
    record: PackRecord,
    first_segment: u32,
}

/// All that the indexes of a store say.
pub(crate) struct Locations {
    packs: Vec<PackPlace>,
    segments: Vec<SegmentPlace>,
    ids: Vec<ChunkId>,
    /// Where each copy begins in its plain segment.
    starts: Vec<u32>,
    /// Open addressing over `ids`; equal ids follow each other.
    slots: Vec<u32>,
    seed: [u64; 2],
}

/// Collects what index objects say.
pub(crate) struct LocationsBuilder {
    made: Locations,
    /// Numbers of the packs by name.
    known: HashMap<ObjectHash, u32>,
}

impl LocationsBuilder {
    /// `seed` is random: who writes the ids must not know how they spread.
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        let made = Locations {
            packs: Vec::new(),
            segments: Vec::new(),
            ids: Vec::new(),
            starts: Vec::new(),
            slots: Vec::new(),
            seed,
        };
        Self { made, known: HashMap::new() }
    }

    /// Adds a pack, unless another index object said the same.
    pub(crate) fn add(&mut self, mut record: PackRecord) -> Result<()> {
        let number = small(self.made.packs.len())?;
        if let Some(before) = self.known.get(&record.name)
            && self.made.matches(*before, record.kind, &record.segments)
            && self.made.packs.get(*before as usize).is_some_and(|pack| pack.record.id == record.id)
        {
            return Ok(());
        }
        let first_segment = small(self.made.segments.len())?;
        for (slot, segment) in std::mem::take(&mut record.segments).into_iter().enumerate() {
            self.made.segments.push(SegmentPlace {
                pack: number,
                slot: slot as u32,
                offset: segment.offset,
                sealed_len: segment.sealed_len,
                plain_len: segment.plain_len() as u32,
                compressed: segment.compressed,
                first_copy: small(self.made.ids.len())?,
            });
            let mut start = 0;
            for (id, len) in segment.chunks {
                self.made.ids.push(id);
                self.made.starts.push(start);
                start += len;
            }
        }
        self.known.insert(record.name, number);
        self.made.packs.push(PackPlace { record, first_segment });
        Ok(())
    }

    /// Makes the chunks findable.
    pub(crate) fn finish(mut self) -> Locations {
        let made = &mut self.made;
        made.slots = vec![FREE; made.ids.len() + made.ids.len() / 2 + 1];
        for number in 0..made.ids.len() as u32 {
            made.enter(number);
        }
        self.made
    }
}

fn small(count: usize) -> Result<u32> {
    let many = || Error::new(ErrorKind::Misconfigured, "the repository has more chunks than this release can read");
    u32::try_from(count).ok().filter(|count| *count != FREE).ok_or_else(many)
}

impl Locations {
    fn home(&self, id: &ChunkId) -> usize {
        let word = |at: usize| {
            let mut word = [0u8; 8];
            word.iter_mut().zip(id.as_bytes().iter().skip(at)).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        };
        let [one, two] = self.seed;
        let mixed = u128::from(word(0) ^ one).wrapping_mul(u128::from(word(8) ^ two | 1));
        let hash = (mixed >> 64) as u64 ^ mixed as u64;
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    /// The slots where an id may be found, in order, up to the first free one (included).
    fn probe(&self, id: &ChunkId) -> impl Iterator<Item = usize> + use<> {
        let (home, len) = (self.home(id), self.slots.len());
        (home..len).chain(0..home)
    }

    fn enter(&mut self, number: CopyNumber) {
        let Some(id) = self.ids.get(number as usize).copied() else { return };
        let mut copies = 0;
        for slot in self.probe(&id) {
            let Some(there) = self.slots.get_mut(slot) else { return };
            if *there == FREE {
                *there = number;
                return;
            }
            copies += usize::from(self.ids.get(*there as usize) == Some(&id));
            if copies >= COPIES_MAX {
                return;
            }
        }
    }

    /// The copies of a chunk; several where it was written more than once.
    pub(crate) fn copies(&self, id: &ChunkId) -> impl Iterator<Item = CopyNumber> {
        let id = *id;
        self.probe(&id)
            .map_while(|slot| self.slots.get(slot).copied().filter(|number| *number != FREE))
            .filter(move |number| self.ids.get(*number as usize) == Some(&id))
            .take(COPIES_MAX)
    }

    /// The copy to try after this one.
    pub(crate) fn next_copy(&self, number: CopyNumber) -> Option<CopyNumber> {
        let id = self.id(number)?;
        self.copies(&id).skip_while(|copy| *copy != number).nth(1)
    }

    pub(crate) fn id(&self, number: CopyNumber) -> Option<ChunkId> {
        self.ids.get(number as usize).copied()
    }

    pub(crate) fn copies_count(&self) -> usize {
        self.ids.len()
    }

    /// The number of the segment that holds a copy.
    pub(crate) fn segment_of(&self, number: CopyNumber) -> usize {
        self.segments.partition_point(|segment| segment.first_copy <= number).saturating_sub(1)
    }

    pub(crate) fn segment(&self, segment: usize) -> Option<&SegmentPlace> {
        self.segments.get(segment)
    }

    /// The numbers of the copies in a segment.
    pub(crate) fn copies_in(&self, segment: usize) -> std::ops::Range<CopyNumber> {
        let end = self.segments.get(segment + 1).map_or(self.ids.len() as u32, |next| next.first_copy);
        self.segments.get(segment).map_or(0..0, |segment| segment.first_copy..end)
    }

    /// Where a copy lies in its plain segment.
    pub(crate) fn range(&self, segment: usize, number: CopyNumber) -> std::ops::Range<usize> {
        let start = self.starts.get(number as usize).copied().unwrap_or(0);
        let last = self.copies_in(segment).end == number + 1;
        let end = match self.segments.get(segment) {
            Some(place) if last => place.plain_len,
            _ => self.starts.get(number as usize + 1).copied().unwrap_or(start),
        };
        start as usize..end as usize
    }

    /// A pack without its segments.
    pub(crate) fn pack(&self, number: u32) -> Option<&PackRecord> {
        self.packs.get(number as usize).map(|pack| &pack.record)
    }

    pub(crate) fn packs_count(&self) -> usize {
        self.packs.len()
    }

    /// The numbers of a pack's segments.
    pub(crate) fn segments_of(&self, pack: u32) -> std::ops::Range<usize> {
        let first = |number: usize| self.packs.get(number).map(|pack| pack.first_segment as usize);
        let end = first(pack as usize + 1).unwrap_or(self.segments.len());
        first(pack as usize).map_or(0..0, |from| from..end)
    }

    pub(crate) fn opener(&self, segment: &SegmentPlace, repository: RepositoryId) -> Option<SegmentOpener> {
        self.pack(segment.pack).map(|pack| pack.opener(repository))
    }

    /// Whether a pack holds what these records say.
    pub(crate) fn matches(&self, pack: u32, kind: ChunkKind, records: &[SegmentRecord]) -> bool {
        let segments = self.segments_of(pack);
        self.pack(pack).is_some_and(|pack| pack.kind == kind)
            && segments.len() == records.len()
            && segments.zip(records).all(|(segment, record)| self.segment_matches(segment, record))
    }

    fn segment_matches(&self, segment: usize, record: &SegmentRecord) -> bool {
        let copies = self.copies_in(segment);
        let same = |place: &SegmentPlace| {
            (place.offset, place.sealed_len, place.compressed) == (record.offset, record.sealed_len, record.compressed)
        };
        self.segment(segment).is_some_and(same)
            && copies.len() == record.chunks.len()
            && copies.zip(&record.chunks).all(|(copy, (id, len))| {
                self.ids.get(copy as usize) == Some(id) && self.range(segment, copy).len() == *len as usize
            })
    }
}
