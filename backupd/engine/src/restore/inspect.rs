//! Restoring in place: what stands in the target stays where it is what the snapshot has, and only the rest is written.

use super::batch::{Batch, Item, Wanted, state};
use super::target_result;
use super::write::{Shared, finish_item};
use crate::error::Result;
use crate::target::Handles;
use backup_format::ChunkKind;
use rustix::fs::{FallocateFlags, FileType, OFlags, SeekFrom};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Zeros are written in pieces of this size where a file system cannot make holes.
const ZEROS_BYTES: usize = 64 << 10;

/// Which parts of a plan are in the target already, a bit each.
pub(super) struct Kept(Vec<AtomicU64>);

impl Kept {
    pub(super) fn none(plan: &[Wanted]) -> Self {
        Self((0..plan.len().div_ceil(64)).map(|_| AtomicU64::new(0)).collect())
    }

    fn set(&self, at: usize, kept: bool) {
        if let Some(word) = self.0.get(at / 64) {
            let bit = 1u64 << (at % 64);
            if kept {
                word.fetch_or(bit, Ordering::Relaxed)
            } else {
                word.fetch_and(!bit, Ordering::Relaxed)
            };
        }
    }

    /// Whether a part need not be written.
    pub(super) fn is(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word.load(Ordering::Relaxed) >> (at % 64) & 1 == 1)
    }
}

/// Looks at files of the target, on one thread.
pub(super) struct Inspector {
    shared: Arc<Shared>,
    /// In the order of the tree: each item's parts follow each other.
    plan: Arc<Vec<Wanted>>,
    kept: Arc<Kept>,
    /// Whether a file of the right size and time counts as the right one. Not after a restore that did not finish: a
    /// power cut may have left the time and not the content.
    trust_times: bool,
    handles: Handles,
    buffer: Vec<u8>,
}

impl Inspector {
    pub(super) fn new(
        shared: &Arc<Shared>,
        plan: &Arc<Vec<Wanted>>,
        kept: &Arc<Kept>,
        trust_times: bool,
    ) -> Result<Self> {
        Ok(Self {
            shared: Arc::clone(shared),
            plan: Arc::clone(plan),
            kept: Arc::clone(kept),
            trust_times,
            handles: target_result(Handles::new(&shared.target))?,
            buffer: Vec::new(),
        })
    }

    /// Compares an item with what stands in its place. What is no file there, or cannot be used, is removed.
    pub(super) fn inspect(&mut self, number: u32) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let Some(item) = shared.batch.item(number) else { return Ok(()) };
        if item.is(state::MADE) && !item.is(state::IN_PLACE) {
            // An earlier batch began to write it anew.
            return Ok(());
        }
        let from = self.plan.partition_point(|wanted| wanted.item < number);
        let to = self.plan.partition_point(|wanted| wanted.item <= number);
        target_result(self.compare(number, item, from..to))
    }

    fn compare(&mut self, number: u32, item: &Item, parts: Range<usize>) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let name = shared.batch.strings.name(item.name);
        let handle = self.handles.get(&shared.batch.table, item.directory)?;
        let Some(stat) = handle.stat(name)? else { return Ok(()) };
        let file = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => handle.open_file(name, OFlags::RDONLY),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        };
        // Whoever may not read it may still replace it.
        let Ok(file) = file else { return handle.clear(name) };
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let mtime = shared.batch.attributes(&item.meta).mtime;
        let same_time = (stat.st_mtime, stat.st_mtime_nsec as u32) == (mtime.0, mtime.1);
        let gaps = gaps(&shared, number, item, self.plan.get(parts.clone()).unwrap_or_default());
        let same = if self.trust_times && same_time && size == item.size && !item.is(state::LOST) {
            parts.clone().for_each(|at| self.kept.set(at, true));
            true
        } else {
            self.compare_parts(&file, parts.clone())? && size == item.size && !has_data(&file, &gaps)?
        };
        if !same && !self.make_writable(item, name, stat.st_nlink > 1, &gaps)? {
            parts.for_each(|at| self.kept.set(at, false));
            return Ok(());
        }
        item.set(state::MADE | state::IN_PLACE);
        let kept = parts.filter(|at| self.kept.is(*at));
        let bytes: u64 = kept.clone().filter_map(|at| self.plan.get(at)).map(|wanted| shared.len(wanted) as u64).sum();
        shared.tally.kept.fetch_add(bytes, Ordering::Relaxed);
        let kept = kept.count() as u32;
        if item.left.fetch_sub(kept, Ordering::AcqRel) == kept {
            finish_item(&shared, item, &file)?;
        }
        Ok(())
    }

    /// Compares by ids; whether all parts are there.
    fn compare_parts(&mut self, file: &File, parts: Range<usize>) -> io::Result<bool> {
        let mut all = true;
        for at in parts {
            let Some(wanted) = self.plan.get(at).copied() else { continue };
            let len = self.shared.len(&wanted);
            if self.buffer.len() < len {
                self.buffer.resize(len, 0);
            }
            let buffer = self.buffer.get_mut(..len).unwrap_or_default();
            let same = match file.read_exact_at(buffer, wanted.offset) {
                Ok(()) => {
                    let id = self.shared.id_key.chunk_id(ChunkKind::Data, buffer);
                    self.shared.locations.id(wanted.copy) == Some(id)
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                // A place that cannot be read can perhaps be written.
                Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => false,
                Err(error) => return Err(error),
            };
            self.kept.set(at, same);
            all &= same;
        }
        Ok(all)
    }

    /// Makes the size and the holes right; `false` when the file cannot be written in place and was removed. A file with
    /// another name keeps its content: that name may be none of the snapshot's.
    fn make_writable(
        &mut self,
        item: &Item,
        name: &[u8],
        has_other_names: bool,
        gaps: &[Range<u64>],
    ) -> io::Result<bool> {
        let shared = Arc::clone(&self.shared);
        let handle = self.handles.get(&shared.batch.table, item.directory)?;
        let file = if has_other_names {
            Err(io::ErrorKind::InvalidInput.into())
        } else {
            handle.open_file(name, OFlags::RDWR)
        };
        let Ok(file) = file else {
            handle.clear(name)?;
            return Ok(false);
        };
        rustix::fs::ftruncate(&file, item.size)?;
        for gap in gaps {
            clear_range(&file, gap)?;
        }
        Ok(true)
    }
}

/// The holes of what this batch has of an item: where no part goes.
fn gaps(shared: &Shared, number: u32, item: &Item, parts: &[Wanted]) -> Vec<Range<u64>> {
    let batch: &Batch = &shared.batch;
    if item.is(state::LOST) {
        // Where a part is lost is not known to be a hole.
        return Vec::new();
    }
    let mut at = if number == 0 { batch.first_from } else { 0 };
    let end = if item.is(state::OPEN_ENDED) { batch.last_to } else { item.size };
    let mut gaps = Vec::new();
    for wanted in parts {
        if wanted.offset > at {
            gaps.push(at..wanted.offset);
        }
        at = wanted.offset + shared.len(wanted) as u64;
    }
    if end > at {
        gaps.push(at..end);
    }
    gaps
}

/// Where a file has data, from an offset on.
fn next_data(file: &File, from: u64) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, SeekFrom::Data(from)) {
        Ok(at) => Ok(Some(at)),
        Err(Errno::NXIO) => Ok(None),
        // A file system without holes.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(from)),
        Err(error) => Err(error.into()),
    }
}

fn has_data(file: &File, gaps: &[Range<u64>]) -> io::Result<bool> {
    for gap in gaps {
        if next_data(file, gap.start)?.is_some_and(|at| at < gap.end) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn clear_range(file: &File, gap: &Range<u64>) -> io::Result<()> {
    if next_data(file, gap.start)?.is_none_or(|at| at >= gap.end) {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, gap.start, gap.end - gap.start) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    let (zeros, mut at) = (vec![0; ZEROS_BYTES], gap.start);
    while at < gap.end {
        let len = usize::try_from(gap.end - at).unwrap_or(usize::MAX).min(zeros.len());
        file.write_all_at(zeros.get(..len).unwrap_or_default(), at)?;
        at += len as u64;
    }
    Ok(())
}
