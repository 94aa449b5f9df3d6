//! What every store has lost and people have given up. Without their word a loss stops every prune, for what a lost object reached
//! is not known: with it the rest of the history is pruned as before.

use super::land::Land;
use super::mark::Mark;
use super::together;
use crate::ahead::is_loss;
use crate::env::Env;
use crate::error::Result;
use crate::heads::{SnapshotInfo, read_signed};
use crate::locations::Locations;
use crate::read::Reader;
use crate::store::NamedStore;
use crate::survey::{fetch, pack_name, snapshot_name};
use backup_format::head::HeadName;
use backup_format::{CatalogKey, ChunkId, OpenKey};
use std::collections::BTreeSet;

/// So begins what stands for index objects that nobody can name any more; a number of chunks follows that no other one names.
const UNNAMED: &str = "index/unnamed-";

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

    /// The packs of a chunk that could not be read, when all of them are given up. One that no index object names was named by one that
    /// is lost, and is counted apart.
    pub(crate) fn packs_of(&self, locations: &Locations, id: &ChunkId) -> Option<Vec<String>> {
        let packs = locations.copies(id).filter_map(|copy| {
            let segment = locations.segment(locations.segment_of(copy))?;
            Some(pack_name(&locations.pack(segment.pack)?.name))
        });
        let packs: Vec<String> = packs.collect();
        let is_given_up = if packs.is_empty() { self.unnamed_max() > 0 } else { packs.iter().all(|pack| self.has(pack)) };
        is_given_up.then_some(packs)
    }

    /// So many chunks may be named by no index object. Of a further loss there are more: that is not given up.
    pub(super) fn unnamed_max(&self) -> u64 {
        match self {
            Self::Nothing => 0,
            Self::These(names) => {
                names.iter().filter_map(|name| name.strip_prefix(UNNAMED)?.parse().ok()).max().unwrap_or(0)
            }
            Self::All => u64::MAX,
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

/// Names everything that a plan cannot be made without giving up. Changes nothing.
pub async fn lost(env: &Env, open: &OpenKey, stores: &[NamedStore]) -> Result<BTreeSet<String>> {
    let all = together(stores);
    let land = Land::read(open, stores, &GivenUp::All).await?;
    let reader = Reader::load_with(env, open, (&all, stores)).await?;
    let snapshots: Vec<&SnapshotInfo> = land.snapshots.iter().rev().map(|(info, _)| info).collect();
    let mark = Mark::of(&reader, &snapshots, &land, &GivenUp::All).await?;
    let mut names: BTreeSet<String> = land.lost_ids().iter().map(|id| snapshot_name(&id.0)).collect();
    names.extend(land.bad_indexes(&reader).cloned());
    names.extend(mark.reached.lost_packs);
    if mark.reached.unknown > 0 {
        names.insert(format!("{UNNAMED}{}", mark.reached.unknown));
    }
    Ok(names)
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
