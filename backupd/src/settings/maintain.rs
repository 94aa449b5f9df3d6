//! `maintain.toml`.

use super::store::{StoreToml, stores};
use super::{File, SettingsError, StoreSetting, TlsListen};
use crate::schedule::Schedule;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The checked settings of `backupd maintain`.
#[derive(Debug, Clone)]
pub struct MaintainSettings {
    pub practice: String,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub allowed_uids: Vec<u32>,
    pub tls: Option<TlsListen>,
    pub schedule: Schedule,
    /// Every object of every store is read at least so often, as far as the budget lets it.
    pub max_age: Duration,
    /// The longest that one run spends on one store.
    pub time_max: Duration,
    pub stores: Vec<StoreSetting>,
    bytes_max: Option<u64>,
    money_max: Option<f64>,
    egress_per_gb: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MaintainToml {
    practice: String,
    time_zone: String,
    state_dir: PathBuf,
    socket: PathBuf,
    #[serde(default)]
    allowed_uids: Vec<u32>,
    maintain_schedule: String,
    #[serde(default = "max_age_days")]
    max_age_days: u32,
    #[serde(default = "time_max_s")]
    time_max_s: u64,
    bytes_max: Option<u64>,
    money_max: Option<f64>,
    #[serde(default)]
    egress_per_gb: BTreeMap<String, f64>,
    tls: Option<TlsListen>,
    #[serde(default)]
    store: Vec<StoreToml>,
}

fn max_age_days() -> u32 {
    30
}

fn time_max_s() -> u64 {
    3600
}

impl MaintainSettings {
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let (file, toml) = File::read::<MaintainToml>(path)?;
        let zone = file.zone(&toml.time_zone)?;
        if toml.max_age_days == 0 || toml.time_max_s == 0 {
            let key = if toml.max_age_days == 0 { "max_age_days" } else { "time_max_s" };
            return Err(file.error(key, "is 0: nothing could ever be looked at in time", "give at least 1"));
        }
        let stores = stores(&file, toml.store)?;
        for (name, price) in &toml.egress_per_gb {
            if !stores.iter().any(|store| store.name == *name) {
                let remedy = "name a store of this file, or remove the line";
                return Err(file.error("egress_per_gb", format!("names `{name}`, which is no [[store]]"), remedy));
            }
            if !is_amount(*price) {
                return Err(file.error("egress_per_gb", format!("has no price for `{name}`"), "give 0 or more"));
            }
        }
        if toml.money_max.is_some_and(|money| !is_amount(money)) {
            return Err(file.error("money_max", "is no amount of money", "give 0 or more, or leave the key out"));
        }
        Ok(Self {
            practice: toml.practice,
            state_dir: file.path(&toml.state_dir),
            socket: file.path(&toml.socket),
            allowed_uids: toml.allowed_uids,
            tls: toml.tls.map(|t| t.resolve(&file)),
            schedule: file.schedule("maintain_schedule", &toml.maintain_schedule, zone)?,
            max_age: Duration::from_secs(u64::from(toml.max_age_days) * 86_400),
            time_max: Duration::from_secs(toml.time_max_s),
            stores,
            bytes_max: toml.bytes_max,
            money_max: toml.money_max,
            egress_per_gb: toml.egress_per_gb,
        })
    }

    /// Bytes that one run may read from a store: its own limit, and what the money buys there.
    pub fn bytes_for(&self, store: &str) -> u64 {
        let limit = self.bytes_max.unwrap_or(u64::MAX);
        let price = self.egress_per_gb.get(store).copied().unwrap_or(0.0);
        match self.money_max {
            // Rounded down; a number too large for u64 is u64::MAX.
            Some(money) if price > 0.0 => limit.min((money / price * 1e9) as u64),
            _ => limit,
        }
    }
}

fn is_amount(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(change: impl Fn(String) -> String) -> Result<MaintainSettings, SettingsError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("maintain.toml");
        std::fs::write(&path, change(include_str!("maintain.example.toml").to_owned())).unwrap();
        MaintainSettings::load(&path)
    }

    #[test]
    fn money_limits_what_is_read_where_reading_costs() {
        let settings = load(|text| text).unwrap();
        assert_eq!(settings.max_age, Duration::from_secs(30 * 86_400));
        assert_eq!(settings.bytes_for("east"), 20_000_000_000, "2.00 at 0.10 a gigabyte");
        let settings = load(|text| text.replace("money_max = 2.0", "")).unwrap();
        assert_eq!(settings.bytes_for("east"), 50_000_000_000);
        assert_eq!(settings.bytes_for("cellar"), 50_000_000_000);
    }

    #[test]
    fn wrong_settings_name_their_key() {
        for (from, to, key) in [
            ("money_max = 2.0", "money_max = -1.0", "money_max"),
            ("money_max = 2.0", "money_max = nan", "money_max"),
            ("east = 0.1", "west = 0.1", "egress_per_gb"),
            ("max_age_days = 30", "max_age_days = 0", "max_age_days"),
            ("time_max_s = 3600", "time_max_s = 0", "time_max_s"),
            ("practice =", "unknown = 1\npractice =", "unknown"),
        ] {
            let error = load(|text| text.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }
}
