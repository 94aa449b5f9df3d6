//! What every store has lost and people have given up. Without their word a loss stops every prune, for what a lost object reached
//! is not known: with it the rest of the history is pruned as before.

use crate::ahead::is_loss;
use crate::error::Result;
use crate::heads::{SnapshotInfo, read_signed};
use crate::locations::Locations;
use crate::store::NamedStore;
use crate::survey::{INDEXES, fetch, pack_name, snapshot_name};
use backup_format::head::HeadName;
use backup_format::{CatalogKey, ChunkId};
use std::collections::BTreeSet;

/// Which lost objects people have given up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GivenUp {
    #[default]
    Nothing,
    /// These, by their names.
    These(BTreeSet<String>),
    /// Whatever no store gives back whole.
    All,
}

impl GivenUp {
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::These(names) => names.contains(name),
            Self::All => true,
        }
    }

    /// Whether a chunk that could not be read lies, as far as anybody knows, only in what is given up. One that no index object names
    /// may have been named by one that is.
    pub(crate) fn has_chunk(&self, locations: &Locations, id: &ChunkId) -> bool {
        let mut packs = locations.copies(id).filter_map(|copy| {
            let segment = locations.segment(locations.segment_of(copy))?;
            locations.pack(segment.pack)
        });
        match packs.next() {
            None => self.has_index(),
            Some(first) => self.has(&pack_name(&first.name)) && packs.all(|pack| self.has(&pack_name(&pack.name))),
        }
    }

    pub(super) fn has_index(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::These(names) => names.iter().any(|name| name.starts_with(INDEXES)),
            Self::All => true,
        }
    }

    /// The snapshot of a head that stands while the snapshot itself is lost at every store and given up. `known`: what was read.
    /// `came`: when the head came to a store. What only the lost object said is not known of it.
    pub(super) async fn lost_snapshot(
        &self,
        (catalog, stores): (&CatalogKey, &[NamedStore]),
        name: HeadName,
        known: &[SnapshotInfo],
        came: Option<i64>,
    ) -> Result<Option<SnapshotInfo>> {
        let mut head = None;
        for store in stores {
            match read_signed(catalog, name, store).await {
                Ok(read) => head = head.or(Some(read)),
                Err(error) if is_loss(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(head) = head else { return Ok(None) };
        let object = snapshot_name(&head.snapshot.0);
        if !self.has(&object) || is_somewhere(stores, &object).await? {
            return Ok(None);
        }
        let source = known.iter().find(|info| info.head.source == name.source).map(|info| info.source.clone());
        Ok(Some(SnapshotInfo {
            id: head.snapshot,
            source: source.unwrap_or_else(|| "unknown".to_owned()),
            incarnation: head.incarnation,
            counter: head.counter,
            taken_unix_ms: came.unwrap_or_default(),
            partial: true,
            files: 0,
            bytes_source: 0,
            bytes_added: 0,
            tag: None,
            stores: Vec::new(),
            forked: false,
            head: name,
            follows: crate::order::follows(&head).copied().collect(),
            plan_seen: None,
            set_back: Vec::new(),
        }))
    }
}

/// Whether a store gives an object back whole. One that does not answer may.
async fn is_somewhere(stores: &[NamedStore], name: &str) -> Result<bool> {
    for store in stores {
        match fetch(store, name).await {
            Ok(_) => return Ok(true),
            Err(error) if is_loss(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}
