//! The end of an announced plan by a person's word: an order that takes out nothing of it.

use super::execute::publish;
use super::land::Land;
use super::stones::Stones;
use super::{GivenUp, put_everywhere, sorted};
use crate::env::Env;
use crate::error::Result;
use crate::store::{NamedMaintenanceStore, NamedStore};
use crate::survey::{index_name, pack_name};
use backup_format::condemned::{Plan, PlanName};
use backup_format::{ObjectHash, OpenKey, PrunerCredential};
use bytes::Bytes;

/// The number of the plan that is announced and not carried out.
pub async fn announced(open: &OpenKey, stores: &[NamedStore]) -> Result<Option<u64>> {
    let land = Land::read(open, stores, &GivenUp::All).await?;
    Ok(land.condemned.announced.map(|(name, _)| name.number))
}

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

/// It names late heads, and what the order before it has left, as every order does.
fn order(land: &Land, withdrawn: PlanName, now: i64) -> Plan {
    let before = land.condemned.order.as_ref().map(|(_, order)| order);
    let left = |of: fn(&Plan) -> &Vec<ObjectHash>, name: fn(&ObjectHash) -> String| -> Vec<ObjectHash> {
        let listed = before.into_iter().flat_map(of).filter(|hash| land.size_of(&name(hash)) > 0);
        sorted(listed.copied().collect())
    };
    Plan {
        number: land.next_number(),
        executes: Some(withdrawn.hash),
        time_unix_ms: now,
        grace_ms: 0,
        chains: land.chains(),
        heads: land.late_and_left(),
        indexes: left(|order| &order.indexes, index_name),
        replacements: before.map(|order| order.replacements.clone()).unwrap_or_default(),
        packs: left(|order| &order.packs, pack_name),
        tombstones: Vec::new(),
    }
}
