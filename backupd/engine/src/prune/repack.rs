//! Writing anew: chunks of half-empty packs into full ones, many index objects into few.

use super::put_everywhere;
use super::sweep::Sweep;
use crate::backup::seal_index;
use crate::catalog::{Catalog, Known};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::pack::{Sealer, run};
use crate::read::Reader;
use crate::room::Room;
use crate::send::packs_in_memory;
use crate::state::State;
use crate::store::NamedStore;
use crate::survey::{hash_in_name, pack_name};
use backup_format::index::INDEX_PACKS_MAX;
use backup_format::pack::PackRecord;
use backup_format::{ChunkKind, ObjectHash, OpenKey, SealKey};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Plain bytes that are taken into memory at once.
const BATCH_BYTES: usize = 64 << 20;

fn seal_key(open: &OpenKey) -> Result<SealKey> {
    let none = || Error::new(ErrorKind::Misconfigured, "the open key file holds no epoch");
    open.open_seed().seal_key().ok_or_else(none)
}

/// Reads the chunks that stay of rewritten packs, seals them into new packs, and puts those to every store.
pub(super) async fn rewrite(
    env: &Env,
    open: &OpenKey,
    reader: &Reader<'_>,
    sweep: &Sweep,
    stores: &[NamedStore],
) -> Result<Vec<PackRecord>> {
    let (mut written, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (kind, id) in &sweep.chunks {
        let chunk = reader.chunk(*kind, id).await?;
        bytes += chunk.len();
        batch.push((*kind, chunk));
        if bytes >= BATCH_BYTES {
            bytes = 0;
            written.extend(seal_batch(env, open, std::mem::take(&mut batch), stores).await?);
        }
    }
    if !batch.is_empty() {
        written.extend(seal_batch(env, open, batch, stores).await?);
    }
    Ok(written)
}

async fn seal_batch(
    env: &Env,
    open: &OpenKey,
    batch: Vec<(ChunkKind, Vec<u8>)>,
    stores: &[NamedStore],
) -> Result<Vec<PackRecord>> {
    let (packs, mut sealed) = mpsc::unbounded_channel();
    let room = match env.workers() {
        // Nobody could make room while the caller's own thread waits for it.
        0 => Room::new(usize::MAX),
        _ => Room::new(packs_in_memory(stores.len())),
    };
    let sealer = Sealer::new(env.clone(), seal_key(open)?, open.repository(), (packs, room));
    let id_key = open.id_key().clone();
    let sealing = env.blocking(move || {
        let known = Known::new(Catalog::open(&Arc::new(State::memory())));
        run(&sealer, &id_key, known, |intake| {
            // Each goes when it has been taken in.
            batch.into_iter().try_for_each(|(kind, bytes)| intake.put(kind, &bytes).map(drop))
        })
    });
    let putting = async move {
        let mut records = Vec::new();
        while let Some(pack) = sealed.recv().await {
            let (record, bytes) = pack.into_parts();
            put_everywhere(stores, &pack_name(&record.name), &bytes).await?;
            records.push(record);
        }
        Ok::<_, Error>(records)
    };
    // Where a store fails, that is what ended the sealing too.
    let (sealed, records) = futures::join!(sealing, putting);
    let records = records?;
    sealed??;
    Ok(records)
}

/// Writes the index objects that say what is still true of those that go, and of the new packs.
pub(super) async fn merge(
    env: &Env,
    open: &OpenKey,
    reader: &Reader<'_>,
    sweep: &Sweep,
    written: &[PackRecord],
    stores: &[NamedStore],
) -> Result<Vec<ObjectHash>> {
    let seal = seal_key(open)?;
    let records: Vec<PackRecord> = sweep.records.iter().chain(written).cloned().collect();
    let mut replacements = Vec::new();
    for group in records.chunks(INDEX_PACKS_MAX) {
        for (name, bytes, _) in seal_index(env, (reader.open.catalog(), &seal), group)? {
            let bytes: Bytes = bytes;
            put_everywhere(stores, &name, &bytes).await?;
            replacements.extend(hash_in_name(&name));
        }
    }
    Ok(super::sorted(replacements))
}
