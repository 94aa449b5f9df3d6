//! Whether what a deletion would rest on is there: the other pack that holds a chunk, and an index object that names it,
//! read at every store. A listing shows no damage, and what is deleted may be the last whole copy.

use super::land::Land;
use crate::ahead::is_loss;
use crate::error::Result;
use crate::read::read_index;
use crate::store::NamedStore;
use crate::survey::{INDEXES, fetch, hash_in_name, index_name, pack_name};
use backup_format::pack::PackRecord;
use backup_format::{ObjectHash, OpenKey};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Looks at packs, each once.
pub(super) struct Copies<'c> {
    pub(super) open: &'c OpenKey,
    pub(super) stores: &'c [NamedStore],
    /// The same, as one.
    pub(super) all: &'c NamedStore,
    pub(super) land: &'c Land,
    /// Index objects that go: what they say counts no longer.
    pub(super) going: HashSet<ObjectHash>,
    named_by: Option<BTreeMap<ObjectHash, Vec<ObjectHash>>>,
    seen: HashMap<(usize, String), bool>,
}

impl<'c> Copies<'c> {
    pub(super) fn new(
        open: &'c OpenKey,
        (stores, all, land): (&'c [NamedStore], &'c NamedStore, &'c Land),
        going: &[ObjectHash],
    ) -> Self {
        let going = going.iter().copied().collect();
        Self { open, stores, all, land, going, named_by: None, seen: HashMap::new() }
    }

    /// Whether every store gives a pack back whole, and an index object that says what is in it.
    pub(super) async fn are_everywhere(&mut self, pack: &PackRecord) -> Result<bool> {
        let name = pack_name(&pack.name);
        if !self.land.everywhere(&name, u64::from(pack.bytes)) {
            return Ok(false);
        }
        let indexes = self.indexes_of(&pack.name).await?;
        for at in 0..self.stores.len() {
            let mut is_named = false;
            for index in &indexes {
                is_named = is_named || self.is_whole(at, index_name(index)).await;
            }
            if !is_named || !self.is_whole(at, name.clone()).await {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn indexes_of(&mut self, pack: &ObjectHash) -> Result<Vec<ObjectHash>> {
        if self.named_by.is_none() {
            let mut named_by: BTreeMap<ObjectHash, Vec<ObjectHash>> = BTreeMap::new();
            let indexes = self.land.listed(INDEXES).into_keys().filter_map(hash_in_name);
            for index in indexes.filter(|index| !self.going.contains(index)) {
                let said = match read_index(self.open, self.all, &index_name(&index)).await {
                    // It names nothing any more.
                    Err(error) if is_loss(&error) => continue,
                    said => said?,
                };
                for record in said {
                    named_by.entry(record.name).or_default().push(index);
                }
            }
            self.named_by = Some(named_by);
        }
        Ok(self.named_by.as_ref().and_then(|named_by| named_by.get(pack)).cloned().unwrap_or_default())
    }

    /// One that cannot be read now is as good as none: what would rest on it stays, and the next plan names it again.
    async fn is_whole(&mut self, at: usize, name: String) -> bool {
        let Some(store) = self.stores.get(at) else { return false };
        if let Some(known) = self.seen.get(&(at, name.clone())) {
            return *known;
        }
        let got = fetch(store, &name).await;
        if let Err(error) = &got {
            log::warn!(store = store.name.as_str(), object = name.as_str(), error:% = error; "prune.rests-on-no-copy");
        }
        self.seen.insert((at, name), got.is_ok());
        got.is_ok()
    }
}
