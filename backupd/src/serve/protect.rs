//! Does each store keep what it has, whatever somebody with this daemon's credentials does to it? Tried at start and once
//! a day on a sacrificial object.

use super::Daemon;
use crate::{clock, stores};
use backup_engine::Protection;

/// How often a store is tried.
const PROBE_EVERY_MS: i64 = 24 * 3600 * 1000;

impl Daemon {
    /// Tries every store that answers and was not tried for a day. What a store showed stays until it shows another.
    pub async fn probe_stores(&self) {
        for setting in &self.settings.stores {
            let now = clock::unix_ms();
            let due = self.view().stores.get(&setting.name).is_some_and(|seen| {
                let probed = seen.protection.map(|(_, at)| at);
                seen.asked
                    && seen.reachable == Some(true)
                    && probed.is_none_or(|at| now.saturating_sub(at) >= PROBE_EVERY_MS)
            });
            if !due {
                continue;
            }
            let name = setting.name.as_str();
            match stores::probe(setting, &self.env).await {
                Ok(found) => {
                    if found.protects() {
                        log::info!(store = name, found:? = found; "store.protected");
                    } else {
                        log::error!(store = name, found:? = found; "store.unprotected");
                    }
                    self.view().stores.entry(setting.name.clone()).or_default().protection = Some((found, now));
                }
                Err(error) => log::warn!(store = name, reason:% = error; "store.not-probed"),
            }
        }
        self.remember_stores();
    }
}

/// The word for clients.
pub fn word(found: Option<Protection>) -> backupd_api::StoreProtection {
    use backupd_api::StoreProtection::{Locked, Refused, Unknown, Unprotected};
    match found {
        None => Unknown,
        Some(Protection::Locked) => Locked,
        Some(Protection::Refused) => Refused,
        Some(Protection::LostByOverwrite | Protection::LostByDelete) => Unprotected,
    }
}
