//! The end of an announced plan by a person's word: an order that takes out nothing of it.

use super::execute::publish;
use super::land::Land;
use super::stones::Stones;
use super::{GivenUp, put_everywhere};
use crate::env::Env;
use crate::error::Result;
use crate::store::{NamedMaintenanceStore, NamedStore};
use backup_format::condemned::{Plan, PlanName};
use backup_format::{ObjectHash, OpenKey, PrunerCredential};
use bytes::Bytes;

/// Ends the announced plan: nothing of it goes, and nobody waits for its grace or its writers any longer. Its number; `None`: none
/// is announced. What an order before it has left is taken out as before, by [`super::execute`].
pub async fn withdraw(
    env: &Env,
    open: &OpenKey,
    pruner: &PrunerCredential,
    stores: &[NamedMaintenanceStore],
) -> Result<Option<u64>> {
    let plain: Vec<NamedStore> = stores.iter().map(NamedMaintenanceStore::as_store).collect();
    // Nothing is deleted by it, so no loss stops it.
    let mut land = Land::read(open, &plain, &GivenUp::All).await?;
    let Some((name, _)) = land.condemned.announced.clone() else { return Ok(None) };
    if !publish(&plain, &land, name).await? {
        // Whoever was told that a snapshot is durable without having seen the plan had put its head before the plan lay everywhere: the
        // order must cover it.
        land = Land::read(open, &plain, &GivenUp::All).await?;
    }
    let mut order = order(&land, name, env.now_unix_ms());
    order.tombstones = Stones::of((open, pruner), (&plain, &land), &order).await?.replaced;
    let bytes = order.sign(pruner)?;
    put_everywhere(&plain, &order.name(&bytes).to_string(), &Bytes::from(bytes)).await?;
    log::info!(plan = name.number; "prune.withdrawn");
    Ok(Some(name.number))
}

/// It names late heads, as every order does, and all that the order before it took out: an index object that stays may name a pack
/// that went, and only the next plan replaces it.
fn order(land: &Land, withdrawn: PlanName, now: i64) -> Plan {
    let before = land.condemned.order.as_ref().map(|(_, order)| order);
    let all = |of: fn(&Plan) -> &Vec<ObjectHash>| before.map(of).cloned().unwrap_or_default();
    Plan {
        number: land.next_number(),
        executes: Some(withdrawn.hash),
        time_unix_ms: now,
        grace_ms: 0,
        chains: land.chains(),
        heads: land.late_and_left(),
        indexes: all(|order| &order.indexes),
        replacements: all(|order| &order.replacements),
        packs: all(|order| &order.packs),
        tombstones: Vec::new(),
    }
}
