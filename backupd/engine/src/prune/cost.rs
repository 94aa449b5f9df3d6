//! What a prune costs and saves, before it is done.

use super::land::Land;
use super::sweep::Sweep;
use crate::survey::{index_name, pack_name, snapshot_name};
use backup_format::head::HeadName;

/// What a provider takes, in dollars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    pub put_per_1000: f64,
    pub get_per_1000: f64,
    pub list_per_1000: f64,
    pub egress_per_gb: f64,
    pub storage_per_gb_month: f64,
}

impl Default for Prices {
    /// What large providers ask for their standard class.
    fn default() -> Self {
        Self {
            put_per_1000: 0.005,
            get_per_1000: 0.0004,
            list_per_1000: 0.005,
            egress_per_gb: 0.09,
            storage_per_gb_month: 0.023,
        }
    }
}

/// Requests, bytes and money over all stores.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cost {
    pub puts: u64,
    pub gets: u64,
    pub lists: u64,
    pub deletes: u64,
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub bytes_freed: u64,
    pub dollars: f64,
    /// What no longer has to be stored.
    pub dollars_saved_per_month: f64,
}

const GB: f64 = 1e9;
const LISTED_AT_ONCE: usize = 1000;

fn is_next(a: &HeadName, b: &HeadName) -> bool {
    (a.source, a.incarnation, a.counter.checked_add(1)) == (b.source, b.incarnation, Some(b.counter))
}

pub(super) fn of(land: &Land, sweep: &Sweep, prices: &Prices) -> Cost {
    let stores = land.views.len() as u64;
    let listed: usize =
        land.views.iter().filter_map(|view| view.objects()).map(|o| o.len().div_ceil(LISTED_AT_ONCE)).sum();
    let heads = land.condemned_heads();
    let runs = heads.chunk_by(|a, b| is_next(&a.head, &b.head)).count();
    // New packs take up to a quarter more than what is in them.
    let new_packs = sweep.rewritten_bytes.div_ceil(8 << 20);
    let new_indexes = sweep.records.len().div_ceil(1000) as u64;
    let written = sweep.rewritten_bytes + sweep.rewritten_bytes / 8 + new_indexes * (1 << 20);
    let objects = sweep.packs.iter().map(pack_name).chain(sweep.indexes.iter().map(index_name));
    let snapshots = heads.iter().map(|gone| snapshot_name(&gone.snapshot.0));
    let freed: u64 = objects.chain(snapshots).map(|name| land.size_of(&name)).sum();
    let mut cost = Cost {
        // Packs, index objects, plan, order, a tombstone for each run of heads.
        puts: stores * (new_packs + new_indexes + 2 + runs as u64),
        gets: sweep.rewrite.len() as u64 + sweep.indexes_listed as u64 + land.snapshots.len() as u64,
        // Announcing and executing each list every store.
        lists: 2 * (listed as u64 + 2 * stores),
        deletes: stores * (sweep.packs.len() + sweep.indexes.len() + 2 * heads.len()) as u64,
        bytes_read: sweep.rewritten_bytes,
        bytes_written: stores * written,
        bytes_freed: stores * freed.saturating_sub(written),
        ..Cost::default()
    };
    let thousands = |count: u64| count as f64 / 1000.0;
    cost.dollars = thousands(cost.puts) * prices.put_per_1000
        + thousands(cost.gets) * prices.get_per_1000
        + thousands(cost.lists) * prices.list_per_1000
        + cost.bytes_read as f64 / GB * prices.egress_per_gb;
    cost.dollars_saved_per_month = cost.bytes_freed as f64 / GB * prices.storage_per_gb_month;
    cost
}
