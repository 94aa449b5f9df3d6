//! From chunks to sealed packs: deduplicate, fill segments, compress on worker threads, seal, reopen.

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::survey::IdSet;
use backup_format::pack::{SealedPack, plan_pack, seal_pack, segment_cost};
use backup_format::sealed::OBJECT_BYTES_MAX;
use backup_format::segment::{EncodedSegment, SegmentEncoder};
use backup_format::{ChunkId, ChunkKind, IdKey, RepositoryId, SealKey};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use tokio::sync::mpsc::Sender;

/// Plain bytes of a segment: one that does not compress still fits a pack of 1 MiB.
const SEGMENT_BYTES: usize = 960 << 10;
/// Level 3: level 1 is a quarter faster and a tenth larger on text.
const COMPRESSION_LEVEL: i32 = 3;

struct PlainSegment {
    kind: ChunkKind,
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
    packs: Sender<SealedPack>,
    failure: Mutex<Option<Error>>,
    failed: AtomicBool,
}

impl Sealer {
    pub(crate) fn new(env: Env, seal: SealKey, repository: RepositoryId, packs: Sender<SealedPack>) -> Self {
        Self {
            env,
            seal,
            repository,
            pending: [Mutex::default(), Mutex::default()],
            packs,
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

    /// Takes segments out under the lock, seals outside of it.
    fn seal_ready(&self, kind: ChunkKind, last: bool) -> Result<()> {
        loop {
            let segments: Vec<EncodedSegment> = {
                let mut pending = self.pending(kind).lock().unwrap_or_else(PoisonError::into_inner);
                let costs: Vec<usize> = pending.iter().map(segment_cost).collect();
                if !last && costs.iter().sum::<usize>() < OBJECT_BYTES_MAX / 2 {
                    return Ok(());
                }
                match plan_pack(&costs, last) {
                    Some(count) => pending.drain(..count.min(costs.len())).collect(),
                    None => return Ok(()),
                }
            };
            let pack = seal_pack(&mut self.env.rng(), &self.seal, self.repository, kind, segments)?;
            pack.reopen(self.repository)?;
            let gone = |_| Error::new(ErrorKind::Retry, "sending ended early");
            self.packs.blocking_send(pack).map_err(gone)?;
        }
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
        self.add(job.kind, encoder.encode(job.chunks, job.plain)?)
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
    known: IdSet,
    open: [OpenSegment; 2],
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
            let [data, tree] = &mut self.open;
            let open = match kind {
                ChunkKind::Data => data,
                ChunkKind::Tree => tree,
            };
            let full = (!open.plain.is_empty() && open.plain.len() + bytes.len() > SEGMENT_BYTES)
                .then(|| std::mem::take(open));
            if open.plain.capacity() == 0 {
                open.plain.reserve(SEGMENT_BYTES);
            }
            open.plain.extend_from_slice(bytes);
            open.chunks.push((id, bytes.len() as u32));
            if let Some(full) = full {
                self.hand_on(kind, full)?;
            }
        }
        Ok(id)
    }

    fn hand_on(&mut self, kind: ChunkKind, segment: OpenSegment) -> Result<()> {
        let job = PlainSegment { kind, chunks: segment.chunks, plain: segment.plain };
        match &mut self.lane {
            Lane::Here(encoder) => self.sealer.encode(encoder, job),
            Lane::Workers(jobs) => jobs.send(job).map_err(|_| Error::new(ErrorKind::Retry, "the workers ended early")),
        }
    }

    fn finish(mut self) -> Result<()> {
        for kind in [ChunkKind::Data, ChunkKind::Tree] {
            let [data, tree] = &mut self.open;
            let open = std::mem::take(if kind == ChunkKind::Data { data } else { tree });
            if !open.chunks.is_empty() {
                self.hand_on(kind, open)?;
            }
        }
        Ok(())
    }
}

/// Runs `read` with an intake; when it returns, everything that it took in has been sealed.
pub(crate) fn run<T>(
    sealer: &Sealer,
    id_key: &IdKey,
    known: IdSet,
    read: impl FnOnce(&mut Intake<'_>) -> Result<T>,
) -> Result<T> {
    let workers = sealer.env.workers();
    let through = |lane: Lane| {
        let mut intake = Intake { id_key, sealer, lane, known, open: Default::default() };
        let result = read(&mut intake)?;
        intake.finish()?;
        Ok(result)
    };
    let result: Result<T> = if workers == 0 {
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
    let result = result?;
    sealer.seal_ready(ChunkKind::Data, true)?;
    sealer.seal_ready(ChunkKind::Tree, true)?;
    Ok(result)
}
