//! What a store holds, in figures: no names.

use crate::env::Env;
use crate::error::Result;
use crate::heads::{SnapshotInfo, heads_with_tags};
use crate::read::read_index;
use crate::store::NamedStore;
use crate::survey::{FETCHES, INDEXES, IdSet, PACKS, SNAPSHOTS, by_object, pack_name};
use backup_format::pack::PackRecord;
use backup_format::{ChunkKind, OpenKey};
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, HashMap};

/// Figures of a repository at one store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// All objects in the store, those of other parts of the system included.
    pub objects: u64,
    pub bytes: u64,
    pub packs: u64,
    pub pack_bytes: u64,
    /// Packs by their size.
    pub classes: BTreeMap<u32, u64>,
    pub index_bytes: u64,
    pub snapshot_bytes: u64,
    /// Packs that no index names: what an interrupted snapshot left. The next one names or replaces them.
    pub unnamed_packs: u64,
    pub unnamed_bytes: u64,
    /// Different chunks of files, and of trees.
    pub data_chunks: u64,
    pub tree_chunks: u64,
    /// Their bytes before compression.
    pub data_bytes: u64,
    pub tree_bytes: u64,
    /// Sealed segments; what else a pack holds is padding and its own directory.
    pub segment_bytes: u64,
    pub segments: u64,
    /// Chunks that lie in more than one place.
    pub chunks_twice: u64,
    /// Bytes of all snapshots' files, as if each were stored whole.
    pub source_bytes: u64,
    /// Newest first.
    pub snapshots: Vec<SnapshotInfo>,
}

impl Stats {
    /// Bytes of all snapshots for one byte of different chunks.
    #[must_use]
    pub fn dedup_ratio(&self) -> Option<f64> {
        ratio(self.source_bytes, self.data_bytes)
    }

    /// Plain bytes for one byte of sealed segments.
    #[must_use]
    pub fn compression_ratio(&self) -> Option<f64> {
        ratio(self.data_bytes + self.tree_bytes, self.segment_bytes)
    }

    /// The share of packs that is neither a segment nor named: padding and pack directories.
    #[must_use]
    pub fn padding_share(&self) -> Option<f64> {
        let named = self.pack_bytes.saturating_sub(self.unnamed_bytes);
        ratio(named.saturating_sub(self.segment_bytes), named)
    }
}

impl Stats {
    fn count(&mut self, pack: &PackRecord, seen: &mut IdSet) {
        for segment in &pack.segments {
            self.segments += 1;
            self.segment_bytes += u64::from(segment.sealed_len);
            for (id, len) in &segment.chunks {
                if !seen.insert(*id) {
                    self.chunks_twice += 1;
                } else if pack.kind == ChunkKind::Tree {
                    self.tree_chunks += 1;
                    self.tree_bytes += u64::from(*len);
                } else {
                    self.data_chunks += 1;
                    self.data_bytes += u64::from(*len);
                }
            }
        }
    }
}

fn ratio(of: u64, to: u64) -> Option<f64> {
    (to > 0).then(|| of as f64 / to as f64)
}

/// Reads listing, index and manifests of one store.
pub async fn stats(env: &Env, open: &OpenKey, store: &NamedStore) -> Result<Stats> {
    let mut stats = Stats::default();
    let listed = store.store.list("").await?;
    let (mut unnamed, mut indexes): (HashMap<String, u64>, Vec<String>) = Default::default();
    for (name, size) in by_object(listed) {
        stats.objects += 1;
        stats.bytes += size;
        if name.starts_with(PACKS) {
            stats.packs += 1;
            stats.pack_bytes += size;
            *stats.classes.entry(u32::try_from(size).unwrap_or(u32::MAX)).or_default() += 1;
            unnamed.insert(name, size);
        } else if name.starts_with(INDEXES) {
            stats.index_bytes += size;
            indexes.push(name);
        } else if name.starts_with(SNAPSHOTS) {
            stats.snapshot_bytes += size;
        }
    }
    let mut seen = IdSet::default();
    let read = |name: String| async move { read_index(open, store, &name).await }.boxed();
    let mut reads = futures::stream::iter(indexes.into_iter().map(read)).buffered(FETCHES);
    while let Some(packs) = reads.next().await {
        for pack in packs? {
            // An index may name a pack twice, or one that is gone: only what is there counts.
            if unnamed.remove(&pack_name(&pack.name)).is_some() {
                stats.count(&pack, &mut seen);
            }
        }
    }
    drop(reads);
    stats.unnamed_packs = unnamed.len() as u64;
    stats.unnamed_bytes = unnamed.values().sum();
    stats.snapshots = heads_with_tags(env, open, std::slice::from_ref(store)).await?.snapshots;
    stats.source_bytes = stats.snapshots.iter().map(|snapshot| snapshot.bytes_source).sum();
    Ok(stats)
}
