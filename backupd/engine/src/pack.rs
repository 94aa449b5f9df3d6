//! From chunks to sealed packs: deduplicate, fill segments, compress on worker threads, seal, reopen.

use crate::catalog::Known;
use crate::class::{Class, SEGMENT_BYTES, SMALL_SEGMENT_BYTES};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{is_due, plan_pack};
use crate::room::{Permitted, Room};
use backup_format::pack::{CHUNK_RECORD_BYTES, capacity, seal_pack_into, segment_cost};
use backup_format::sealed::OBJECT_BYTES_MAX;
use backup_format::segment::{EncodedSegment, SEGMENT_CHUNKS_MAX, SegmentDecoder, SegmentEncoder};
use backup_format::{ChunkId, ChunkKind, IdKey, RepositoryId, SealKey};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// On segments of this size level 2 is smaller than level 3 on segments of 1 MiB, for two thirds of the time.
const COMPRESSION_LEVEL: i32 = 2;
/// Of the packs that the tail fills before its last, smaller ones.
const TAIL_PACK_BYTES: usize = capacity(4 << 20);

struct PlainSegment {
    class: Class,
    chunks: Vec<(ChunkId, u32)>,
    plain: Vec<u8>,
}

/// Seals packs as soon as enough segments are there. Shared by the workers.
pub(crate) struct Sealer {
    env: Env,
    seal: SealKey,
    repository: RepositoryId,
    /// Packs are kept apart by kind: data, tree.
    pending: [Mutex<Vec<EncodedSegment>>; 2],
    /// Bounded by the room that each pack takes.
    packs: UnboundedSender<Permitted>,
    room: Arc<Room>,
    /// Buffers of the longest segments, to be used again: they are most of what is allocated and freed on every thread, and
    /// the allocator would hold half as much again for them.
    spare: Mutex<Vec<Vec<u8>>>,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
}

impl Sealer {
    pub(crate) fn new(
        env: Env,
        seal: SealKey,
        repository: RepositoryId,
        (packs, room): (UnboundedSender<Permitted>, Arc<Room>),
    ) -> Self {
        Self {
            env,
            seal,
            repository,
            pending: [Mutex::default(), Mutex::default()],
            packs,
            room,
            spare: Mutex::default(),
            failure: Mutex::default(),
            failed: AtomicBool::new(false),
        }
    }

    fn pending(&self, kind: ChunkKind) -> &Mutex<Vec<EncodedSegment>> {
        let [data, tree] = &self.pending;
        match kind {
            ChunkKind::Data => data,
            ChunkKind::Tree => tree,
        }
    }

    fn add(&self, kind: ChunkKind, segment: EncodedSegment) -> Result<()> {
        self.pending(kind).lock().unwrap_or_else(PoisonError::into_inner).push(segment);
        self.seal_ready(kind, false)
    }

    /// Waits for room first: segments that were taken out and wait with each worker would be a pack's memory more for each.
    fn seal_ready(&self, kind: ChunkKind, last: bool) -> Result<()> {
        while self.is_due(kind, last) {
            let mut permit = Room::enter(&self.room);
            let segments = self.take(kind, last)?;
            if segments.is_empty() {
                return Ok(());
            }
            let (buffer, keys) = (std::mem::take(&mut permit.buffer), (&self.seal, self.repository));
            let pack = seal_pack_into(buffer, &mut self.env.rng(), keys, kind, segments)?;
            pack.reopen(self.repository)?;
            let gone = |_| Error::new(ErrorKind::Retry, "sending ended early");
            self.packs.send(Permitted { pack, permit }).map_err(gone)?;
        }
        Ok(())
    }

    fn is_due(&self, kind: ChunkKind, last: bool) -> bool {
        let pending = self.pending(kind).lock().unwrap_or_else(PoisonError::into_inner);
        is_due(pending.iter().map(segment_cost).sum(), last)
    }

    /// The segments of the next pack; none where another worker took them meanwhile.
    fn take(&self, kind: ChunkKind, last: bool) -> Result<Vec<EncodedSegment>> {
        let mut pending = self.pending(kind).lock().unwrap_or_else(PoisonError::into_inner);
        if last {
            split_tail(&mut pending)?;
        }
        let costs: Vec<usize> = pending.iter().map(segment_cost).collect();
        let mut chosen = plan_pack(&costs, last).into_iter().peekable();
        let all = std::mem::take(&mut *pending).into_iter().enumerate();
        let (taken, left): (Vec<_>, Vec<_>) = all.partition(|(at, _)| chosen.next_if_eq(at).is_some());
        *pending = left.into_iter().map(|(_, segment)| segment).collect();
        Ok(taken.into_iter().map(|(_, segment)| segment).collect())
    }

    fn fail(&self, error: Error) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.store(true, Ordering::SeqCst);
    }

    fn check(&self) -> Result<()> {
        if self.failed.load(Ordering::SeqCst)
            && let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref()
        {
            return Err(error.duplicate());
        }
        Ok(())
    }

    fn work(&self, jobs: &Mutex<Receiver<PlainSegment>>) {
        let _guard = WorkerGuard { sealer: self, jobs };
        let mut encoder = match SegmentEncoder::new(COMPRESSION_LEVEL) {
            Ok(encoder) => encoder,
            Err(error) => return self.fail(error.into()),
        };
        loop {
            let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            if let Err(error) = self.encode(&mut encoder, job) {
                // Keep taking jobs, so that the reader is never stuck; it sees the failure at its next chunk.
                self.fail(error);
            }
        }
    }

    fn encode(&self, encoder: &mut SegmentEncoder, mut job: PlainSegment) -> Result<()> {
        let segment = match job.class {
            Class::Raw => EncodedSegment::raw(job.chunks, job.plain)?,
            Class::Json | Class::Markup | Class::Other | Class::Tree => {
                let segment = encoder.encode(job.chunks, &mut job.plain)?;
                self.put_back(job.plain);
                segment
            }
        };
        self.add(job.class.kind(), segment)
    }

    /// Room for the plain bytes of a segment.
    fn buffer(&self, class: Class) -> Vec<u8> {
        let spare = || self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let used = if class.bytes_max() == SEGMENT_BYTES { spare() } else { None };
        used.unwrap_or_else(|| Vec::with_capacity(class.bytes_max()))
    }

    fn put_back(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() == SEGMENT_BYTES {
            buffer.clear();
            self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }

    /// Where much does not compress, packs fill faster than stores take them: the memory is theirs.
    fn let_go(&self) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// The last segments: of those that no pack of 1 MiB holds, as many are cut smaller as full packs of the class above leave
/// over, so that the tail is not mostly padding.
fn split_tail(pending: &mut Vec<EncodedSegment>) -> Result<()> {
    let total: usize = pending.iter().map(segment_cost).sum();
    if total > OBJECT_BYTES_MAX * 3 / 4 || pending.iter().all(|one| segment_cost(one) <= SMALL_SEGMENT_BYTES) {
        return Ok(());
    }
    let mut left_over = total % TAIL_PACK_BYTES;
    let (mut encoder, mut decoder) = (SegmentEncoder::new(COMPRESSION_LEVEL)?, SegmentDecoder::new()?);
    let mut pieces = Vec::new();
    while left_over > 0 {
        let Some(at) = pending.iter().rposition(|one| segment_cost(one) > SMALL_SEGMENT_BYTES) else { break };
        let segment = pending.remove(at);
        left_over = left_over.saturating_sub(segment_cost(&segment));
        split(segment, &mut encoder, &mut decoder, &mut pieces)?;
    }
    pending.append(&mut pieces);
    Ok(())
}

/// Cuts a segment into ones of at most [`SMALL_SEGMENT_BYTES`].
fn split(
    segment: EncodedSegment,
    encoder: &mut SegmentEncoder,
    decoder: &mut SegmentDecoder,
    pieces: &mut Vec<EncodedSegment>,
) -> Result<()> {
    let plain_len = segment.chunks.iter().map(|(_, len)| *len as usize).sum();
    let plain = decoder.decode(segment.compressed, segment.body, plain_len)?;
    let (mut chunks, mut from, mut at) = (Vec::new(), 0, 0);
    for (id, len) in segment.chunks {
        let end = at + len as usize;
        if end - from + chunks.len() * CHUNK_RECORD_BYTES > SMALL_SEGMENT_BYTES && at > from {
            let mut piece = plain.get(from..at).unwrap_or_default().to_vec();
            pieces.push(encoder.encode(std::mem::take(&mut chunks), &mut piece)?);
            from = at;
        }
        chunks.push((id, len));
        at = end;
    }
    pieces.push(encoder.encode(chunks, &mut plain.get(from..).unwrap_or_default().to_vec())?);
    Ok(())
}

/// Takes over when a worker panics: the reader must not wait for it, and must hear of it.
struct WorkerGuard<'a> {
    sealer: &'a Sealer,
    jobs: &'a Mutex<Receiver<PlainSegment>>,
}

impl Drop for WorkerGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.sealer.fail(Error::new(ErrorKind::Retry, "a worker thread ended early"));
            while self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().is_ok() {}
        }
    }
}

enum Lane {
    Here(Box<SegmentEncoder>),
    Workers(SyncSender<PlainSegment>),
}

#[derive(Default)]
struct OpenSegment {
    number: u32,
    chunks: Vec<(ChunkId, u32)>,
    plain: Vec<u8>,
}

/// Takes chunks in; only those that are not known go on.
pub(crate) struct Intake<'a> {
    id_key: &'a IdKey,
    sealer: &'a Sealer,
    lane: Lane,
    known: Known,
    open: [OpenSegment; 5],
}

impl Intake<'_> {
    pub(crate) fn knows(&self, id: &ChunkId) -> bool {
        self.known.contains(id)
    }

    /// Gives a chunk's id, and keeps the chunk when no pack holds it yet.
    pub(crate) fn put(&mut self, kind: ChunkKind, bytes: &[u8]) -> Result<ChunkId> {
        let id = self.id_key.chunk_id(kind, bytes);
        if self.known.insert(id) {
            self.sealer.check()?;
            let class = Class::of(kind, bytes);
            // Of tiny chunks the records are the larger part.
            let open = self.open(class);
            let records = (open.chunks.len() + 1) * CHUNK_RECORD_BYTES;
            let full = open.plain.len() + bytes.len() + records > class.bytes_of(open.number);
            if full || open.chunks.len() >= SEGMENT_CHUNKS_MAX {
                self.hand_on(class)?;
            }
            let sealer = self.sealer;
            let open = self.open(class);
            if open.plain.capacity() == 0 {
                open.plain = sealer.buffer(class);
            }
            open.plain.extend_from_slice(bytes);
            open.chunks.push((id, bytes.len() as u32));
        }
        Ok(id)
    }

    fn open(&mut self, class: Class) -> &mut OpenSegment {
        let [json, markup, other, raw, tree] = &mut self.open;
        match class {
            Class::Json => json,
            Class::Markup => markup,
            Class::Other => other,
            Class::Raw => raw,
            Class::Tree => tree,
        }
    }

    fn hand_on(&mut self, class: Class) -> Result<()> {
        let open = self.open(class);
        let number = open.number.wrapping_add(1);
        let segment = std::mem::replace(open, OpenSegment { number, ..OpenSegment::default() });
        if segment.chunks.is_empty() {
            return Ok(());
        }
        if class == Class::Raw {
            self.sealer.let_go();
        }
        let job = PlainSegment { class, chunks: segment.chunks, plain: segment.plain };
        match &mut self.lane {
            Lane::Here(encoder) => self.sealer.encode(encoder, job),
            Lane::Workers(jobs) => jobs.send(job).map_err(|_| Error::new(ErrorKind::Retry, "the workers ended early")),
        }
    }

    /// Hands the last segments on; gives back what is known.
    fn finish(mut self) -> Result<Known> {
        for class in Class::ALL {
            self.hand_on(class)?;
        }
        Ok(self.known)
    }
}

/// Runs `read` with an intake; when it returns, everything that it took in has been sealed. Also when it was stopped:
/// what was read until then need not be sent again.
pub(crate) fn run<T>(
    sealer: &Sealer,
    id_key: &IdKey,
    known: Known,
    read: impl FnOnce(&mut Intake<'_>) -> Result<T>,
) -> Result<(T, Known)> {
    let workers = sealer.env.workers();
    let through = |lane: Lane| {
        let mut intake = Intake { id_key, sealer, lane, known, open: Default::default() };
        let result = read(&mut intake);
        Ok((result, intake.finish()?))
    };
    let result: Result<(Result<T>, Known)> = if workers == 0 {
        through(Lane::Here(Box::new(SegmentEncoder::new(COMPRESSION_LEVEL)?)))
    } else {
        let (jobs, taken) = sync_channel(1);
        let taken = Mutex::new(taken);
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| sealer.work(&taken));
            }
            through(Lane::Workers(jobs))
        })
    };
    sealer.check()?;
    let (result, known) = result?;
    sealer.seal_ready(ChunkKind::Data, true)?;
    sealer.seal_ready(ChunkKind::Tree, true)?;
    Ok((result?, known))
}
