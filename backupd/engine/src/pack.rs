//! From chunks to sealed packs: deduplicate, fill segments, compress on worker threads, seal, reopen.

use crate::catalog::Known;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::{is_due, plan_pack};
use backup_format::pack::{CHUNK_RECORD_BYTES, PackRecord, SealedPack, seal_pack_into, segment_cost};
use backup_format::sealed::OBJECT_BYTES_MAX;
use backup_format::segment::{EncodedSegment, SegmentDecoder, SegmentEncoder};
use backup_format::{ChunkId, ChunkKind, IdKey, RepositoryId, SealKey};
use bytes::Bytes;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::mpsc::UnboundedSender;

/// Plain bytes of a segment of content that compresses: longer ones compress better, shorter ones read faster alone.
const SEGMENT_BYTES: usize = 2 << 20;
/// Of one that does not compress: nothing is gained by length, and small ones leave little room at the end of a pack.
const RAW_SEGMENT_BYTES: usize = 320 << 10;
/// Of tree pages, and of the last ones: even one that does not compress fits a pack of 1 MiB.
const SMALL_SEGMENT_BYTES: usize = 960 << 10;
/// On segments of this size level 2 is as small as level 3 on segments of 1 MiB, for two thirds of the time.
const COMPRESSION_LEVEL: i32 = 2;

/// What a segment collects: they are kept apart because one kind of neighbour spoils the other's compression. Of small
/// documents in one folder, kept apart by their first byte, a twenty-fifth is saved and no time is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// What begins as JSON does.
    Json,
    /// What begins as XML and HTML do.
    Markup,
    Other,
    Raw,
    Tree,
}

impl Class {
    const ALL: [Self; 5] = [Self::Json, Self::Markup, Self::Other, Self::Raw, Self::Tree];

    fn of(kind: ChunkKind, bytes: &[u8]) -> Self {
        match (kind, bytes.first()) {
            (ChunkKind::Tree, _) => Self::Tree,
            (ChunkKind::Data, _) if is_raw(bytes) => Self::Raw,
            (ChunkKind::Data, Some(b'{' | b'[')) => Self::Json,
            (ChunkKind::Data, Some(b'<')) => Self::Markup,
            (ChunkKind::Data, _) => Self::Other,
        }
    }

    fn kind(self) -> ChunkKind {
        match self {
            Self::Json | Self::Markup | Self::Other | Self::Raw => ChunkKind::Data,
            Self::Tree => ChunkKind::Tree,
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Self::Json | Self::Markup | Self::Other => SEGMENT_BYTES,
            Self::Raw => RAW_SEGMENT_BYTES,
            Self::Tree => SMALL_SEGMENT_BYTES,
        }
    }
}

/// Bytes looked at to tell whether a chunk compresses, in so many places.
const SAMPLE_BYTES: usize = 1024;
const SAMPLES: usize = 4;
/// Shorter chunks are not looked at: documents and pages of databases, where looking costs more than it saves.
const RAW_BYTES_MIN: usize = 32 << 10;
/// Bits per byte above which a sample does not compress; random bytes come to 7.95 in a sample of this size.
const RAW_BITS: f32 = 7.85;

/// Whether compression would gain nothing, by the entropy of a few samples.
fn is_raw(bytes: &[u8]) -> bool {
    if bytes.len() < RAW_BYTES_MIN {
        return false;
    }
    let mut counts = [0u16; 256];
    let step = (bytes.len() - SAMPLE_BYTES) / (SAMPLES - 1);
    for at in 0..SAMPLES {
        for byte in bytes.get(at * step..at * step + SAMPLE_BYTES).unwrap_or_default() {
            if let Some(count) = counts.get_mut(usize::from(*byte)) {
                *count += 1;
            }
        }
    }
    let total = (SAMPLE_BYTES * SAMPLES) as f32;
    let bits: f32 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f32::from(*count) / total;
            -share * share.log2()
        })
        .sum();
    bits > RAW_BITS
}

struct PlainSegment {
    class: Class,
    chunks: Vec<(ChunkId, u32)>,
    plain: Vec<u8>,
}

/// Room for so many sealed packs: their bytes in memory are bounded, however slow the stores are. Buffers are used
/// again: fresh memory costs as much as sealing.
pub(crate) struct Room {
    free: Mutex<(usize, Vec<Vec<u8>>)>,
    changed: Condvar,
}

impl Room {
    pub(crate) fn new(packs: usize) -> Arc<Self> {
        Arc::new(Self { free: Mutex::new((packs.max(1), Vec::new())), changed: Condvar::new() })
    }

    /// Waits for room; a buffer comes with it.
    fn enter(room: &Arc<Self>) -> Permit {
        let free = room.free.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = room.changed.wait_while(free, |free| free.0 == 0).unwrap_or_else(PoisonError::into_inner);
        free.0 -= 1;
        Permit { room: Arc::clone(room), buffer: free.1.pop().unwrap_or_default() }
    }
}

/// The room that one pack takes until it is dropped; its buffer goes back with it.
struct Permit {
    room: Arc<Room>,
    buffer: Vec<u8>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut free = self.room.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.0 += 1;
        free.1.push(std::mem::take(&mut self.buffer));
        self.room.changed.notify_one();
    }
}

/// A sealed pack with its room.
pub(crate) struct Permitted {
    pack: SealedPack,
    permit: Permit,
}

impl Permitted {
    /// What the index says of it, and its bytes; the room is free again when the last store has let go of them.
    pub(crate) fn into_parts(mut self) -> (PackRecord, Bytes) {
        self.permit.buffer = self.pack.bytes;
        (self.pack.record, Bytes::from_owner(self.permit))
    }
}

impl AsRef<[u8]> for Permit {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
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

    fn encode(&self, encoder: &mut SegmentEncoder, job: PlainSegment) -> Result<()> {
        let segment = match job.class {
            Class::Raw => EncodedSegment::raw(job.chunks, job.plain)?,
            Class::Json | Class::Markup | Class::Other | Class::Tree => encoder.encode(job.chunks, job.plain)?,
        };
        self.add(job.class.kind(), segment)
    }
}

/// Of the last segments those that no pack of 1 MiB holds are cut smaller, so that the tail is not mostly padding.
fn split_tail(pending: &mut Vec<EncodedSegment>) -> Result<()> {
    let costs: Vec<usize> = pending.iter().map(segment_cost).collect();
    let total: usize = costs.iter().sum();
    if total > OBJECT_BYTES_MAX * 3 / 4 || costs.iter().all(|cost| *cost <= SMALL_SEGMENT_BYTES) {
        return Ok(());
    }
    let (mut encoder, mut decoder) = (SegmentEncoder::new(COMPRESSION_LEVEL)?, SegmentDecoder::new()?);
    for segment in std::mem::take(pending) {
        if segment_cost(&segment) <= SMALL_SEGMENT_BYTES {
            pending.push(segment);
            continue;
        }
        let plain_len = segment.chunks.iter().map(|(_, len)| *len as usize).sum();
        let plain = decoder.decode(segment.compressed, segment.body, plain_len)?;
        let (mut chunks, mut from, mut at) = (Vec::new(), 0, 0);
        for (id, len) in segment.chunks {
            let end = at + len as usize;
            if end - from + chunks.len() * CHUNK_RECORD_BYTES > SMALL_SEGMENT_BYTES && at > from {
                let piece = plain.get(from..at).unwrap_or_default().to_vec();
                pending.push(encoder.encode(std::mem::take(&mut chunks), piece)?);
                from = at;
            }
            chunks.push((id, len));
            at = end;
        }
        pending.push(encoder.encode(chunks, plain.get(from..).unwrap_or_default().to_vec())?);
    }
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
            let records = (self.open(class).chunks.len() + 1) * CHUNK_RECORD_BYTES;
            if self.open(class).plain.len() + bytes.len() + records > class.bytes_max() {
                self.hand_on(class)?;
            }
            let open = self.open(class);
            if open.plain.capacity() == 0 {
                open.plain.reserve(class.bytes_max());
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
        let segment = std::mem::take(self.open(class));
        if segment.chunks.is_empty() {
            return Ok(());
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
        let (jobs, taken) = sync_channel(workers);
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
