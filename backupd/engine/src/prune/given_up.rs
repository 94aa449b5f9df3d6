//! What every store has lost and people have given up. Without their word a loss stops every prune, for what a lost object reached
//! is not known. With it a snapshot that is lost, or has lost part of its tree, goes as a whole by the next plan that two persons approve.
//! No pack ever goes while a snapshot that stays cannot be followed to the end.

use super::land::Land;
use super::mark::Mark;
use super::together;
use crate::ahead::is_loss;
use crate::env::Env;
use crate::error::Result;
use crate::heads::{SnapshotInfo, read_signed};
use crate::read::Reader;
use crate::store::NamedStore;
use crate::survey::{fetch, snapshot_name};
use backup_format::head::HeadName;
use backup_format::{CatalogKey, OpenKey, SnapshotId};
use std::collections::BTreeSet;

/// So begins the name of a snapshot in what is given up, whether its head, its own object or part of its tree is lost.
const SNAPSHOT: &str = "lost-snapshot/";
/// So begins the name of another object: no object's own name, for that somebody gave it up ends no alert about it.
const OBJECT: &str = "lost-object/";

/// What people have given up, as [`lost`] names it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum GivenUp {
    #[default]
    Nothing,
    These(BTreeSet<String>),
    /// Whatever is lost.
    All,
}

impl GivenUp {
    pub(super) fn is_nothing(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::These(names) => names.is_empty(),
            Self::All => false,
        }
    }

    fn names(&self, name: &str) -> bool {
        match self {
            Self::Nothing => false,
            Self::These(names) => names.contains(name),
            Self::All => true,
        }
    }

    /// An index object, a plan or an order.
    pub(crate) fn has(&self, object: &str) -> bool {
        self.names(&format!("{OBJECT}{object}"))
    }

    pub(super) fn has_snapshot(&self, id: SnapshotId) -> bool {
        self.names(&name_of(id))
    }

    /// The snapshot of a head that stands while the snapshot itself is lost at every store and given up. `known`: what was read.
    /// `came`: when the head came to a store. What only the lost object said is not known of it. Where no store gives the head itself
    /// back whole, nobody knows which snapshot it names: its object's hash stands for the id.
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
        let id = head.as_ref().map_or(SnapshotId(name.hash.0), |head| head.snapshot);
        if !self.has_snapshot(id) || head.is_some() && is_somewhere(stores, &snapshot_name(&id.0)).await? {
            return Ok(None);
        }
        let source = known.iter().find(|info| info.head.source == name.source).map(|info| info.source.clone());
        Ok(Some(SnapshotInfo {
            id,
            source: source.unwrap_or_else(|| "unknown".to_owned()),
            incarnation: name.incarnation,
            counter: name.counter,
            taken_unix_ms: came.unwrap_or_default(),
            partial: true,
            files: 0,
            bytes_source: 0,
            bytes_added: 0,
            tag: None,
            stores: Vec::new(),
            forked: false,
            head: name,
            follows: head.iter().flat_map(crate::order::follows).copied().collect(),
            plan_seen: None,
            set_back: Vec::new(),
        }))
    }
}

fn name_of(id: SnapshotId) -> String {
    format!("{SNAPSHOT}{id}")
}

/// Names everything that a plan cannot be made without giving up. Changes nothing.
pub async fn lost(env: &Env, open: &OpenKey, stores: &[NamedStore]) -> Result<BTreeSet<String>> {
    let all = together(stores);
    let land = Land::read(open, stores, &GivenUp::All).await?;
    let reader = Reader::load_with(env, open, (&all, stores)).await?;
    let mut names: BTreeSet<String> = land.lost_ids().into_iter().map(name_of).collect();
    let objects = land.bad_indexes(&reader).chain(land.condemned.unreadable());
    names.extend(objects.map(|name| format!("{OBJECT}{name}")));
    let snapshots: Vec<&SnapshotInfo> = land.snapshots.iter().map(|(info, _)| info).collect();
    names.extend(unfollowed(&reader, &snapshots).await?.into_iter().map(name_of));
    Ok(names)
}

/// Which of these cannot be followed to the end, each by itself: what two of them share would be followed once.
pub(super) async fn unfollowed(reader: &Reader<'_>, snapshots: &[&SnapshotInfo]) -> Result<BTreeSet<SnapshotId>> {
    let mut lost = BTreeSet::new();
    for info in snapshots {
        match Mark::of(reader, std::slice::from_ref(info)).await {
            Ok(_) => {}
            Err(error) if is_loss(&error) => drop(lost.insert(info.id)),
            Err(error) => return Err(error),
        }
    }
    Ok(lost)
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
