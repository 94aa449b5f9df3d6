//! A run: one immutable, sorted file of chunk ids, with a filter in front. The dedup index is a few of them.
//!
//! Resident per run: the fences (8 bytes for each block of 4 KiB), the filter (10 bits an id) once it is first asked, and
//! the table of packs. An absent id costs a look at one cache line of the filter; a present one one read of a block.
//!
//! Layout: blocks (4 KiB: records of 40 bytes sorted by id, zeros, checksum) | filter | fences | tables | footer.
//! A file that is not whole is refused; the index is then read from the stores again.

use crate::state::{StateFile, StateWriter};
use backup_format::{ChunkId, ObjectHash};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Where a chunk lies: the pack's number in the run's table, and its segment there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) pack: u32,
    pub(crate) segment: u32,
}

/// A pack that a run names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RunPack {
    pub(crate) name: ObjectHash,
    pub(crate) bytes: u32,
}

/// What a run covers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tables {
    /// The index objects whose chunks are all in it.
    pub(crate) indexes: Vec<ObjectHash>,
    pub(crate) packs: Vec<RunPack>,
}

const MAGIC: &[u8; 8] = b"HFrun\0\0\x01";
const BLOCK_BYTES: usize = 4096;
const RECORD_BYTES: usize = 40;
const CHECK_BYTES: usize = 16;
const BLOCK_RECORDS: usize = (BLOCK_BYTES - CHECK_BYTES) / RECORD_BYTES;
const FOOTER_BYTES: usize = 8 + 4 * 8 + CHECK_BYTES;
/// Bits of the filter for each id, and how many of them an id sets: about 1 % of absent ids cost a read.
const FILTER_BITS_PER_ID: u64 = 10;
const FILTER_PROBES: u32 = 6;
const LINE_BYTES: usize = 64;
/// Blocks kept in memory for each run.
const CACHED_BLOCKS: usize = 1024;

fn checksum(parts: &[&[u8]]) -> [u8; CHECK_BYTES] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut check = [0; CHECK_BYTES];
    hasher.finalize_xof().fill(&mut check);
    check
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let found = bytes.get(at..).and_then(|tail| tail.first_chunk::<8>());
    found.map_or(0, |word| u64::from_le_bytes(*word))
}

/// The filter's line of an id, and the bits in it. Ids are uniform: their own bytes serve as hashes.
fn line_of(id: &ChunkId, lines: u64) -> usize {
    ((u128::from(word(id.as_bytes(), 8)) * u128::from(lines)) >> 64) as usize * LINE_BYTES
}

fn bits_of(id: &ChunkId) -> impl Iterator<Item = (usize, u8)> {
    let bits = word(id.as_bytes(), 16);
    (0..FILTER_PROBES).map(move |probe| {
        let bit = (bits >> (9 * probe)) as usize & (8 * LINE_BYTES - 1);
        (bit / 8, 1 << (bit % 8))
    })
}

fn filter_lines(ids: u64) -> u64 {
    (ids * FILTER_BITS_PER_ID).div_ceil(8 * LINE_BYTES as u64).max(1)
}

/// Writes a run from ids in ascending order. Equal ids all stay: a chunk may lie in several packs, and some of them be lost.
pub(crate) struct RunWriter {
    out: StateWriter,
    block: Vec<u8>,
    fences: Vec<u8>,
    filter: Vec<u8>,
    last: Option<ChunkId>,
    records: u64,
}

impl RunWriter {
    /// `ids_max`: at most so many ids will come.
    pub(crate) fn new(out: StateWriter, ids_max: u64) -> Self {
        let filter = vec![0; filter_lines(ids_max) as usize * LINE_BYTES];
        Self { out, block: Vec::with_capacity(BLOCK_BYTES), fences: Vec::new(), filter, last: None, records: 0 }
    }

    pub(crate) fn push(&mut self, id: &ChunkId, spot: Spot) -> io::Result<()> {
        if self.last.is_some_and(|last| last > *id) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.last = Some(*id);
        let line = line_of(id, (self.filter.len() / LINE_BYTES) as u64);
        for (byte, bit) in bits_of(id) {
            if let Some(byte) = self.filter.get_mut(line + byte) {
                *byte |= bit;
            }
        }
        if self.block.is_empty() {
            self.fences.extend_from_slice(id.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        }
        self.block.extend_from_slice(id.as_bytes());
        self.block.extend_from_slice(&spot.pack.to_le_bytes());
        self.block.extend_from_slice(&spot.segment.to_le_bytes());
        self.records += 1;
        if self.block.len() == BLOCK_RECORDS * RECORD_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.block.resize(BLOCK_BYTES - CHECK_BYTES, 0);
        let check = checksum(&[&self.block]);
        self.block.extend_from_slice(&check);
        self.out.write(&self.block)?;
        self.block.clear();
        Ok(())
    }

    pub(crate) fn finish(mut self, tables: &Tables) -> io::Result<()> {
        self.flush()?;
        let mut meta = Vec::new();
        meta.extend_from_slice(&(tables.indexes.len() as u64).to_le_bytes());
        for index in &tables.indexes {
            meta.extend_from_slice(index.as_bytes());
        }
        for pack in &tables.packs {
            meta.extend_from_slice(pack.name.as_bytes());
            meta.extend_from_slice(&pack.bytes.to_le_bytes());
        }
        let mut footer = MAGIC.to_vec();
        for number in [self.records, self.filter.len() as u64, self.fences.len() as u64, meta.len() as u64] {
            footer.extend_from_slice(&number.to_le_bytes());
        }
        footer.extend_from_slice(&checksum(&[&self.fences, &meta, &footer]));
        // The filter has a checksum of its own: it is read later than the rest.
        let filter_check = checksum(&[&self.filter]);
        for part in [&self.filter, filter_check.as_slice(), &self.fences, &meta, &footer] {
            self.out.write(part)?;
        }
        self.out.finish()
    }
}

/// An open run.
pub(crate) struct Run {
    file: StateFile,
    records: u64,
    filter_bytes: usize,
    filter: OnceLock<Option<Vec<u8>>>,
    fences: Vec<u64>,
    tables: Tables,
    cache: Mutex<std::collections::HashMap<usize, std::sync::Arc<Vec<u8>>>>,
    /// A block could not be read whole.
    damaged: AtomicBool,
    #[cfg(test)]
    reads: std::sync::atomic::AtomicU64,
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a run of the local index is not whole")
}

impl Run {
    pub(crate) fn open(file: StateFile) -> io::Result<Self> {
        let len = file.len()?;
        let at = len.checked_sub(FOOTER_BYTES as u64).ok_or_else(broken)?;
        let footer = file.read_at(at, FOOTER_BYTES)?;
        let (said, check) = footer.split_last_chunk::<CHECK_BYTES>().ok_or_else(broken)?;
        if !said.starts_with(MAGIC) {
            return Err(broken());
        }
        let [records, filter, fences, meta] = [8, 16, 24, 32].map(|at| word(said, at));
        let blocks = records.div_ceil(BLOCK_RECORDS as u64);
        let sum =
            [blocks.checked_mul(BLOCK_BYTES as u64), Some(filter), Some(CHECK_BYTES as u64), Some(fences), Some(meta)];
        let sum = sum.into_iter().try_fold(FOOTER_BYTES as u64, |sum, part| sum.checked_add(part?));
        if sum != Some(len) || fences != blocks * 8 || filter % LINE_BYTES as u64 != 0 || filter == 0 {
            return Err(broken());
        }
        let after_filter = blocks * BLOCK_BYTES as u64 + filter + CHECK_BYTES as u64;
        let rest = file.read_at(after_filter, (fences + meta) as usize)?;
        let (fence_bytes, meta_bytes) = rest.split_at_checked(fences as usize).ok_or_else(broken)?;
        if &checksum(&[fence_bytes, meta_bytes, said]) != check {
            return Err(broken());
        }
        let fences = fence_bytes.chunks_exact(8).map(|fence| fence.first_chunk().map_or(0, |f| u64::from_be_bytes(*f)));
        Ok(Self {
            records,
            filter_bytes: filter as usize,
            filter: OnceLock::new(),
            fences: fences.collect(),
            tables: parse_tables(meta_bytes).ok_or_else(broken)?,
            file,
            cache: Mutex::default(),
            damaged: AtomicBool::new(false),
            #[cfg(test)]
            reads: std::sync::atomic::AtomicU64::new(0),
        })
    }

    pub(crate) fn tables(&self) -> &Tables {
        &self.tables
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }

    fn may_hold(&self, id: &ChunkId) -> bool {
        let blocks = self.fences.len() as u64 * BLOCK_BYTES as u64;
        let filter = self.filter.get_or_init(|| {
            let bytes = self.file.read_at(blocks, self.filter_bytes + CHECK_BYTES).ok()?;
            let (filter, check) = bytes.split_last_chunk::<CHECK_BYTES>()?;
            (&checksum(&[filter]) == check).then(|| filter.to_vec())
        });
        // Without its filter a run is slow, not wrong.
        let Some(filter) = filter else { return true };
        let line = line_of(id, (filter.len() / LINE_BYTES) as u64);
        bits_of(id).all(|(byte, bit)| filter.get(line + byte).is_some_and(|found| found & bit != 0))
    }

    /// The chunk's spot. A block that cannot be read or is damaged holds nothing: the chunk is then written again.
    #[cfg(test)]
    pub(crate) fn find(&self, id: &ChunkId) -> Option<Spot> {
        self.find_where(id, |_| true)
    }

    pub(crate) fn holds(&self, id: &ChunkId) -> bool {
        self.find_where(id, |_| true).is_some()
    }

    /// The first of an id's places that will do.
    pub(crate) fn find_where(&self, id: &ChunkId, will_do: impl Fn(Spot) -> bool) -> Option<Spot> {
        if !self.may_hold(id) {
            return None;
        }
        let first = u64::from_be_bytes(*id.as_bytes().first_chunk::<8>()?);
        // Ids that begin alike may lie over the end of a block.
        let mut at = self.fences.partition_point(|fence| *fence < first).saturating_sub(1);
        while self.fences.get(at).is_some_and(|fence| *fence <= first) {
            let block = self.block(at)?;
            let count = self.records_in(at);
            let (mut low, mut high) = (0, count);
            while low < high {
                let middle = (low + high) / 2;
                if record(&block, middle)?.0 < *id { low = middle + 1 } else { high = middle }
            }
            while low < count {
                match record(&block, low)? {
                    (found, spot) if found == *id && will_do(spot) => return Some(spot),
                    (found, _) if found == *id => low += 1,
                    _ => break,
                }
            }
            at += 1;
        }
        None
    }

    fn records_in(&self, block: usize) -> usize {
        let before = block as u64 * BLOCK_RECORDS as u64;
        self.records.saturating_sub(before).min(BLOCK_RECORDS as u64) as usize
    }

    fn block(&self, at: usize) -> Option<std::sync::Arc<Vec<u8>>> {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(block) = cache.get(&at) {
            return Some(std::sync::Arc::clone(block));
        }
        let block = std::sync::Arc::new(self.read_block(at)?);
        if cache.len() >= CACHED_BLOCKS {
            cache.clear();
        }
        cache.insert(at, std::sync::Arc::clone(&block));
        Some(block)
    }

    fn read_block(&self, at: usize) -> Option<Vec<u8>> {
        #[cfg(test)]
        self.reads.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let block = self.file.read_at(at as u64 * BLOCK_BYTES as u64, BLOCK_BYTES).ok()?;
        let (body, check) = block.split_last_chunk::<CHECK_BYTES>()?;
        if &checksum(&[body]) == check {
            Some(block)
        } else {
            log::warn!("index.block-damaged");
            self.damaged.store(true, Ordering::Relaxed);
            None
        }
    }

    /// Whether a block was found damaged: what it holds is only known again from the index objects of the stores.
    pub(crate) fn is_damaged(&self) -> bool {
        self.damaged.load(Ordering::Relaxed)
    }

    /// All records in order, block by block; damaged blocks are an error.
    pub(crate) fn records_from(&self) -> RunIter<'_> {
        RunIter { run: self, block: Vec::new(), at_block: 0, at: 0 }
    }
}

fn record(block: &[u8], at: usize) -> Option<(ChunkId, Spot)> {
    let bytes = block.get(at * RECORD_BYTES..(at + 1) * RECORD_BYTES)?;
    let (id, rest) = bytes.split_first_chunk::<32>()?;
    let (pack, rest) = rest.split_first_chunk::<4>()?;
    let segment = rest.first_chunk::<4>()?;
    Some((ChunkId(*id), Spot { pack: u32::from_le_bytes(*pack), segment: u32::from_le_bytes(*segment) }))
}

fn parse_tables(bytes: &[u8]) -> Option<Tables> {
    let (count, rest) = bytes.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let (indexes, packs) = rest.split_at_checked(count.checked_mul(32)?)?;
    let indexes = indexes.chunks_exact(32).filter_map(|hash| hash.first_chunk().map(|hash| ObjectHash(*hash)));
    let packs = packs.chunks_exact(36).filter_map(|pack| {
        let (name, bytes) = pack.split_first_chunk::<32>()?;
        Some(RunPack { name: ObjectHash(*name), bytes: u32::from_le_bytes(*bytes.first_chunk()?) })
    });
    Some(Tables { indexes: indexes.collect(), packs: packs.collect() })
}

/// Reads a run from front to back.
pub(crate) struct RunIter<'a> {
    run: &'a Run,
    block: Vec<u8>,
    at_block: usize,
    at: usize,
}

impl RunIter<'_> {
    pub(crate) fn next(&mut self) -> io::Result<Option<(ChunkId, Spot)>> {
        if self.block.is_empty() || self.at >= self.run.records_in(self.at_block - 1) {
            if self.at_block >= self.run.fences.len() {
                return Ok(None);
            }
            self.block = self.run.read_block(self.at_block).ok_or_else(broken)?;
            (self.at_block, self.at) = (self.at_block + 1, 0);
        }
        let found = record(&self.block, self.at).ok_or_else(broken)?;
        self.at += 1;
        Ok(Some(found))
    }
}

/// Merges runs into one: tables joined, pack numbers moved.
pub(crate) fn merge(runs: &[&Run], out: StateWriter) -> io::Result<()> {
    let mut tables = Tables::default();
    let mut shifts = Vec::new();
    for run in runs {
        shifts.push(u32::try_from(tables.packs.len()).map_err(|_| broken())?);
        tables.indexes.extend_from_slice(&run.tables.indexes);
        tables.packs.extend_from_slice(&run.tables.packs);
    }
    let mut writer = RunWriter::new(out, runs.iter().map(|run| run.records()).sum());
    let mut iters: Vec<RunIter<'_>> = runs.iter().map(|run| run.records_from()).collect();
    let mut heap = std::collections::BinaryHeap::new();
    let mut advance = |at: usize, heap: &mut std::collections::BinaryHeap<_>| -> io::Result<()> {
        if let (Some(iter), Some(shift)) = (iters.get_mut(at), shifts.get(at))
            && let Some((id, spot)) = iter.next()?
        {
            heap.push(std::cmp::Reverse((id, at, spot.pack.saturating_add(*shift), spot.segment)));
        }
        Ok(())
    };
    for at in 0..runs.len() {
        advance(at, &mut heap)?;
    }
    while let Some(std::cmp::Reverse((id, at, pack, segment))) = heap.pop() {
        writer.push(&id, Spot { pack, segment })?;
        advance(at, &mut heap)?;
    }
    writer.finish(&tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::State;

    fn id(at: u64) -> ChunkId {
        ChunkId(*blake3::hash(&at.to_le_bytes()).as_bytes())
    }

    fn write(state: &State, name: &str, ids: &mut Vec<(ChunkId, Spot)>, tables: &Tables) -> Run {
        ids.sort_by_key(|(id, _)| *id);
        let mut writer = RunWriter::new(state.create_file(name).unwrap(), ids.len() as u64);
        for (id, spot) in ids {
            writer.push(id, *spot).unwrap();
        }
        writer.finish(tables).unwrap();
        Run::open(state.open_file(name).unwrap()).unwrap()
    }

    fn spots(range: std::ops::Range<u64>) -> Vec<(ChunkId, Spot)> {
        range.map(|at| (id(at), Spot { pack: (at % 7) as u32, segment: at as u32 })).collect()
    }

    #[test]
    fn every_id_is_found_where_it_was_put_and_no_other() {
        let state = State::memory();
        for count in [0u64, 1, 2, 101, 102, 5_000] {
            let run = write(&state, "run", &mut spots(0..count), &Tables::default());
            for at in 0..count {
                assert_eq!(run.find(&id(at)), Some(Spot { pack: (at % 7) as u32, segment: at as u32 }));
            }
            assert!((count..count + 5_000).all(|at| run.find(&id(at)).is_none()));
            let read = (count..count + 10_000).filter(|at| run.may_hold(&id(*at))).count();
            assert!(count < 5_000 || read < 400, "the filter lets {read} of 10000 absent ids through");
        }
    }

    #[test]
    fn ids_that_begin_alike_are_told_apart_over_blocks() {
        let state = State::memory();
        let alike = |at: u16| {
            let mut id = [7; 32];
            id[30..].copy_from_slice(&at.to_be_bytes());
            ChunkId(id)
        };
        let mut ids: Vec<_> = (0..1000).map(|at| (alike(at), Spot { pack: 0, segment: u32::from(at) })).collect();
        let run = write(&state, "run", &mut ids, &Tables::default());
        assert!((0..1000).all(|at| run.find(&alike(at)).is_some_and(|spot| spot.segment == u32::from(at))));
        assert_eq!(run.find(&alike(1000)), None);
    }

    #[test]
    fn merged_runs_say_what_both_said() {
        let state = State::memory();
        let tables = |from: u8| Tables {
            indexes: vec![ObjectHash([from; 32])],
            packs: (0..7).map(|at| RunPack { name: ObjectHash([from + at; 32]), bytes: 1 << 16 }).collect(),
        };
        let runs = [
            write(&state, "a", &mut spots(0..3_000), &tables(10)),
            write(&state, "b", &mut spots(2_000..6_000), &tables(50)),
        ];
        merge(&runs.each_ref(), state.create_file("c").unwrap()).unwrap();
        let merged = Run::open(state.open_file("c").unwrap()).unwrap();
        assert_eq!((merged.records(), merged.tables().packs.len(), merged.tables().indexes.len()), (7_000, 14, 2));
        let name = |spot: Spot| merged.tables().packs[spot.pack as usize].name;
        for at in 0..6_000 {
            // A chunk that both hold is found at either place: one pack may be lost.
            for (held, from) in [(at < 3_000, 10), (at >= 2_000, 50)] {
                let wanted = ObjectHash([from + (at % 7) as u8; 32]);
                assert_eq!(merged.find_where(&id(at), |spot| name(spot) == wanted).is_some(), held, "{at}");
            }
        }
    }

    #[test]
    fn a_run_that_is_cut_or_changed_is_refused_or_finds_nothing_wrong() {
        let state = State::memory();
        write(&state, "run", &mut spots(0..500), &Tables::default());
        let whole = state.open_file("run").unwrap();
        let bytes = whole.read_at(0, whole.len().unwrap() as usize).unwrap();
        for cut in [0, 1, 100, bytes.len() - 1] {
            let mut writer = state.create_file("cut").unwrap();
            writer.write(&bytes[..cut]).unwrap();
            writer.finish().unwrap();
            assert!(Run::open(state.open_file("cut").unwrap()).is_err());
        }
        for at in (0..bytes.len()).step_by(97) {
            let mut bad = bytes.clone();
            bad[at] ^= 0x20;
            let mut writer = state.create_file("bad").unwrap();
            writer.write(&bad).unwrap();
            writer.finish().unwrap();
            let Ok(run) = Run::open(state.open_file("bad").unwrap()) else { continue };
            for number in 0..500 {
                let found = run.find(&id(number));
                assert!(found.is_none_or(|spot| spot.segment == number as u32));
            }
        }
    }

    /// Ids in ascending order, spread evenly, and one that lies between two of them.
    fn spread(at: u64, of: u64) -> (ChunkId, ChunkId) {
        let first = (u64::MAX / of).saturating_mul(at);
        let mut id = [0; 32];
        blake3::Hasher::new().update(&at.to_le_bytes()).finalize_xof().fill(&mut id);
        id[..8].copy_from_slice(&first.to_be_bytes());
        let mut absent = id;
        absent[8..].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31).wrapping_add(7));
        (ChunkId(id), ChunkId(absent))
    }

    /// What a run of so many ids costs; in bytes of memory, reads, and (printed only) time.
    fn cost_of(count: u64) {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), 0).unwrap();
        let mut writer = RunWriter::new(state.create_file("run").unwrap(), count);
        for at in 0..count {
            writer.push(&spread(at, count).0, Spot { pack: (at / 100) as u32, segment: 0 }).unwrap();
        }
        writer.finish(&Tables::default()).unwrap();
        let env = crate::Env::real();
        let timed = |what: &str, ids: u64, work: &mut dyn FnMut()| {
            let from = env.steady_ms();
            work();
            println!("{what}: {:.2} us each", (env.steady_ms() - from) as f64 * 1000.0 / ids as f64);
        };
        let mut opened = None;
        timed("open", 1, &mut || opened = Some(Run::open(state.open_file("run").unwrap()).unwrap()));
        let run = opened.unwrap();
        let reads = || run.reads.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(reads(), 0, "opening reads no block");
        let samples = 20_000.min(count);
        let step = count / samples;
        timed("absent", samples, &mut || {
            assert!((0..samples).all(|at| run.find(&spread(at * step, count).1).is_none()));
        });
        assert!(reads() < samples / 25, "the filter lets {} of {samples} absent ids through", reads());
        let before = reads();
        timed("present, cold", samples, &mut || {
            assert!((0..samples).all(|at| run.find(&spread(at * step, count).0).is_some()));
        });
        assert!(reads() - before <= samples, "one read for a cold id: {} of {samples}", reads() - before);
        let before = reads();
        let near = samples.min(CACHED_BLOCKS as u64 / 2);
        let touch = || assert!((0..near).all(|at| run.find(&spread(at * step, count).0).is_some()));
        touch();
        let after_once = reads();
        timed("present, warm", near, &mut || touch());
        assert_eq!(reads(), after_once, "a warm id costs no read ({} before)", after_once - before);
        let resident = run.filter_bytes + run.fences.len() * 8 + CACHED_BLOCKS * BLOCK_BYTES;
        println!("{count} ids: {} MB resident, {} MB on disk", resident >> 20, run.file.len().unwrap() >> 20);
        assert!(resident as u64 <= (12 << 20) + count * 3 / 2, "{resident} bytes for {count} ids");
    }

    #[test]
    fn a_cold_id_costs_one_read_a_warm_or_absent_one_none() {
        cost_of(300_000);
    }

    /// 4 GB of disk: for the nightly run.
    #[test]
    #[ignore = "writes 4 GB"]
    fn a_hundred_million_ids_fit_in_memory() {
        cost_of(100_000_000);
    }
}
