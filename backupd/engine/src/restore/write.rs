//! Writing: what a worker does with a piece of a pack. A file whose content lies in one segment is made, written and
//! finished at once; others stay open as long as pieces of them are near.

use super::batch::{Batch, Item, Wanted, state};
use super::{target_error, target_result};
use crate::ahead::Worker;
use crate::error::Result;
use crate::locations::{Locations, SegmentPlace};
use crate::target::{Handle, Handles, Standing, Target, remove_handed_on, remove_other_xattrs, set_attributes};
use backup_format::segment::SegmentDecoder;
use backup_format::{ChunkKind, IdKey, RepositoryId};
use bytes::Bytes;
use rustix::fs::{Advice, OFlags};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Files that stay open because more pieces of them are to come.
const OPEN_FILES_MAX: usize = 32;

/// Shorter runs are left to the kernel's own time: writing each of many small files alone costs more than it saves.
const WRITE_SOON_BYTES_MIN: usize = 128 << 10;

/// A piece of a pack, fetched; without bytes when the store could not give it whole.
pub(super) struct Fetched {
    pub(super) plan: Range<usize>,
    pub(super) from: u32,
    pub(super) bytes: Option<Bytes>,
}

/// What all workers of one batch share.
pub(super) struct Shared {
    pub(super) locations: Arc<Locations>,
    pub(super) id_key: IdKey,
    pub(super) repository: RepositoryId,
    pub(super) target: Arc<Target>,
    pub(super) batch: Batch,
    pub(super) overwrite: bool,
    pub(super) open_files: OpenFiles,
    /// What could not be read where it was looked for.
    pub(super) failed: Mutex<Vec<Wanted>>,
    pub(super) tally: Tally,
}

impl Shared {
    /// Bytes of a wanted chunk.
    pub(super) fn len(&self, wanted: &Wanted) -> usize {
        self.locations.range(self.locations.segment_of(wanted.copy), wanted.copy).len()
    }
}

/// Counts that grow while a restore runs.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) bytes: AtomicU64,
    /// Bytes that stood in the target already.
    pub(super) kept: AtomicU64,
    pub(super) refused: AtomicU64,
}

/// Files that several segments go into.
#[derive(Default)]
pub(super) struct OpenFiles(Mutex<Vec<(u32, Arc<File>)>>);

impl OpenFiles {
    /// The open file of an item; `open` opens it when it is not there, one at a time. Those used last are kept.
    fn get(&self, number: u32, open: impl FnOnce() -> io::Result<File>) -> io::Result<Arc<File>> {
        let mut files = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = files.iter().position(|(item, _)| *item == number).map(|at| files.remove(at));
        let (_, file) = match found {
            Some(found) => found,
            None => (number, Arc::new(open()?)),
        };
        if files.len() >= OPEN_FILES_MAX {
            files.remove(0);
        }
        files.push((number, Arc::clone(&file)));
        Ok(file)
    }

    fn forget(&self, number: u32) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(item, _)| *item != number);
    }
}

/// One run of bytes of a segment that goes into one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Run {
    item: u32,
    offset: u64,
    start: usize,
    len: usize,
    /// How many wanted copies it is made of.
    pieces: u32,
}

/// Decodes segments and writes what is wanted of them.
pub(super) struct Writer {
    shared: Arc<Shared>,
    plan: Arc<Vec<Wanted>>,
    handles: Handles,
    decoder: SegmentDecoder,
    opened: Vec<u8>,
    plain: Vec<u8>,
    runs: Vec<Run>,
}

impl Worker<Fetched> for Writer {
    fn work(&mut self, piece: Fetched) -> Result<()> {
        let plan = Arc::clone(&self.plan);
        let shared = Arc::clone(&self.shared);
        let mut rest = plan.get(piece.plan).unwrap_or_default();
        while let Some(first) = rest.first() {
            let number = shared.locations.segment_of(first.copy);
            let end = shared.locations.copies_in(number).end;
            let (wanted, after) = rest.split_at(rest.partition_point(|wanted| wanted.copy < end));
            rest = after;
            let place = shared.locations.segment(number);
            let sealed = place.zip(piece.bytes.as_ref()).and_then(|(place, bytes)| {
                let from = place.offset.checked_sub(piece.from)? as usize;
                Some((place, bytes.get(from..from + place.sealed_len as usize)?))
            });
            let decoded = sealed.is_some_and(|(place, sealed)| self.decode(place, sealed));
            self.write(number, wanted, decoded)?;
        }
        Ok(())
    }
}

impl Writer {
    pub(super) fn new(shared: &Arc<Shared>, plan: &Arc<Vec<Wanted>>) -> Result<Self> {
        Ok(Self {
            shared: Arc::clone(shared),
            plan: Arc::clone(plan),
            handles: target_result(Handles::new(&shared.target))?,
            decoder: SegmentDecoder::new()?,
            opened: Vec::new(),
            plain: Vec::new(),
            runs: Vec::new(),
        })
    }

    /// Opens and decompresses a segment; its plain bytes are then in `plain`.
    fn decode(&mut self, place: &SegmentPlace, sealed: &[u8]) -> bool {
        let Some(opener) = self.shared.locations.opener(place, self.shared.repository) else { return false };
        if opener.open_into(place.slot, sealed, &mut self.opened).is_err() {
            return false;
        }
        let len = place.plain_len as usize;
        if !place.compressed {
            std::mem::swap(&mut self.opened, &mut self.plain);
            return self.plain.len() == len;
        }
        self.decoder.decode_in(true, &self.opened, len, &mut self.plain).is_ok()
    }

    /// Writes what is wanted of one segment; wanted copies are in order.
    fn write(&mut self, segment: usize, wanted: &[Wanted], decoded: bool) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let locations = &shared.locations;
        let mut failed = Vec::new();
        let mut checked = None;
        self.runs.clear();
        for wanted in wanted {
            let range = locations.range(segment, wanted.copy);
            if checked.is_none_or(|(copy, _)| copy != wanted.copy) {
                let bytes = self.plain.get(range.clone()).filter(|_| decoded);
                let same = |bytes| locations.id(wanted.copy) == Some(shared.id_key.chunk_id(ChunkKind::Data, bytes));
                checked = Some((wanted.copy, bytes.is_some_and(same)));
            }
            if checked.is_some_and(|(_, good)| good) {
                let (item, offset, start, len) = (wanted.item, wanted.offset, range.start, range.len());
                self.runs.push(Run { item, offset, start, len, pieces: 1 });
            } else {
                failed.push(*wanted);
            }
        }
        if !failed.is_empty() {
            shared.failed.lock().unwrap_or_else(PoisonError::into_inner).extend(failed);
        }
        self.join_runs();
        let runs = std::mem::take(&mut self.runs);
        for runs in runs.chunk_by(|a, b| a.item == b.item) {
            self.write_item(runs)?;
        }
        self.runs = runs;
        Ok(())
    }

    /// Sorts by file and offset, and joins what follows each other both there and here: pages of a database are many.
    fn join_runs(&mut self) {
        self.runs.sort_unstable();
        self.runs.dedup_by(|next, run| {
            let joins = run.item == next.item
                && run.offset + run.len as u64 == next.offset
                && run.start + run.len == next.start;
            if joins {
                run.len += next.len;
                run.pieces += next.pieces;
            }
            joins
        });
    }

    fn write_item(&mut self, runs: &[Run]) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let Some((number, item)) = runs.first().and_then(|run| Some((run.item, shared.batch.item(run.item)?))) else {
            return Ok(());
        };
        let pieces: u32 = runs.iter().map(|run| run.pieces).sum();
        let alone = item.state.load(Ordering::Acquire) == state::ABSENT && item.left.load(Ordering::Acquire) == pieces;
        let result = if alone { self.write_whole(item, runs) } else { self.write_part(number, item, runs, pieces) };
        target_result(result)?;
        shared.tally.bytes.fetch_add(runs.iter().map(|run| run.len as u64).sum(), Ordering::Relaxed);
        Ok(())
    }

    /// All of a new file is here: nobody else has anything to write to it.
    fn write_whole(&mut self, item: &Item, runs: &[Run]) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let batch = &shared.batch;
        let handle = self.handles.get(&batch.table, item.directory)?;
        let file = handle.make_file(batch.strings.name(item.name), shared.overwrite)?;
        let standing = handle.made();
        item.set(made(handle));
        item.left.store(0, Ordering::Release);
        if runs.first().is_some_and(|run| runs.len() > 1 || run.len as u64 != item.size) {
            rustix::fs::ftruncate(&file, item.size)?;
        }
        self.put(&file, runs)?;
        let refused = if item.is(state::HANDED_ON) { remove_handed_on(&file)? } else { 0 };
        let refused = refused + set_attributes(&file, standing, batch.attributes(&item.meta))?;
        item.set(state::DONE);
        shared.tally.refused.fetch_add(refused, Ordering::Relaxed);
        Ok(())
    }

    fn write_part(&mut self, number: u32, item: &Item, runs: &[Run], pieces: u32) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let file = shared.open_files.get(number, || open_item(&mut self.handles, &shared, item))?;
        self.put(&file, runs)?;
        let last = item.left.fetch_sub(pieces, Ordering::AcqRel) == pieces;
        if last {
            shared.open_files.forget(number);
            finish_item(&shared, item, &file)?;
        }
        Ok(())
    }

    fn put(&self, file: &File, runs: &[Run]) -> io::Result<()> {
        for run in runs {
            let bytes = self.plain.get(run.start..run.start + run.len).unwrap_or_default();
            file.write_all_at(bytes, run.offset)?;
            if run.len >= WRITE_SOON_BYTES_MIN {
                // The kernel begins to write these pages to the disk now, beside the decoding of what comes next; at the
                // end, when everything is flushed, little is left to do. Only advice: whether it is taken is no matter.
                let _ = rustix::fs::fadvise(file, run.offset, NonZeroU64::new(run.len as u64), Advice::DontNeed);
            }
        }
        Ok(())
    }
}

/// Opens an item's file, made with its full size when it is not there.
fn open_item(handles: &mut Handles, shared: &Shared, item: &Item) -> io::Result<File> {
    let batch = &shared.batch;
    let name = batch.strings.name(item.name);
    let handle = handles.get(&batch.table, item.directory)?;
    if item.is(state::MADE) {
        return handle.open_file(name, OFlags::WRONLY);
    }
    let file = handle.make_file(name, shared.overwrite)?;
    rustix::fs::ftruncate(&file, item.size)?;
    item.set(made(handle));
    Ok(file)
}

/// What is known of a file that was just made in a directory.
fn made(directory: &mut Handle) -> u32 {
    if directory.hands_on() { state::MADE | state::HANDED_ON } else { state::MADE }
}

/// Sets the attributes of a file that has all its content.
pub(super) fn finish_item(shared: &Shared, item: &Item, file: &File) -> io::Result<()> {
    if item.is(state::OPEN_ENDED | state::LOST) {
        return Ok(());
    }
    let attributes = shared.batch.attributes(&item.meta);
    let mut refused = match item {
        item if item.is(state::IN_PLACE) => remove_other_xattrs(file, attributes)?,
        item if item.is(state::HANDED_ON) => remove_handed_on(file)?,
        _ => 0,
    };
    refused += set_attributes(file, Some(Standing::of(file)?), attributes)?;
    item.set(state::DONE);
    shared.tally.refused.fetch_add(refused, Ordering::Relaxed);
    Ok(())
}

/// Makes an item that no segment goes into: an empty file, or one that is all hole.
pub(super) fn make_empty(handles: &mut Handles, shared: &Shared, item: &Item) -> Result<()> {
    let file = open_item(handles, shared, item).map_err(|error| target_error(&error))?;
    target_result(finish_item(shared, item, &file))
}
