//! Which epoch covers which bytes, from the index of one store.

use crate::env::Env;
use crate::error::Result;
use crate::store::NamedStore;
use crate::survey::{FETCHES, INDEXES, PACKS, by_object, fetch, pack_name};
use backup_format::OpenKey;
use backup_format::index::parse_catalog;
use backup_format::sealed::{PartsKind, open_parts};
use futures::{FutureExt, StreamExt};
use std::collections::{BTreeMap, HashSet};

/// One epoch and what is sealed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochUse {
    pub epoch: u32,
    /// Unix milliseconds; `None` for an epoch that the key at hand does not hold.
    pub since_unix_ms: Option<i64>,
    /// Packs that an index names and that the store holds, and their bytes.
    pub packs: u64,
    pub bytes: u64,
}

/// Every epoch, oldest first.
pub async fn epochs(_env: &Env, open: &OpenKey, store: &NamedStore) -> Result<Vec<EpochUse>> {
    let held = by_object(store.store.list(PACKS).await?);
    let mut uses: BTreeMap<u32, EpochUse> = BTreeMap::new();
    for (epoch, since) in open.epochs() {
        uses.insert(*epoch, EpochUse { epoch: *epoch, since_unix_ms: Some(*since), packs: 0, bytes: 0 });
    }
    let read = |name: String| {
        async move {
            let bytes = fetch(store, &name).await?;
            Ok::<_, crate::Error>(parse_catalog(&open_parts(PartsKind::Index, open.catalog(), &bytes)?.catalog_part)?)
        }
        .boxed()
    };
    let listed = by_object(store.store.list(INDEXES).await?);
    let mut reads = futures::stream::iter(listed.into_keys().map(read)).buffered(FETCHES);
    let mut seen = HashSet::new();
    while let Some(packs) = reads.next().await {
        for pack in packs? {
            // Several index objects may name one pack.
            if held.contains_key(&pack_name(&pack.name)) && seen.insert(pack.name) {
                let unknown = EpochUse { epoch: pack.epoch, since_unix_ms: None, packs: 0, bytes: 0 };
                let found = uses.entry(pack.epoch).or_insert(unknown);
                found.packs += 1;
                found.bytes += u64::from(pack.bytes);
            }
        }
    }
    Ok(uses.into_values().collect())
}
