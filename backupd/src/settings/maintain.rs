//! `maintain.toml`.

use super::prune::PruneToml;
use super::store::{StoreToml, stores};
use super::{File, PruneSettings, SettingsError, StoreSetting, TlsListen};
use crate::schedule::Schedule;
use anyhow::Context;
use backupd_api::{Endpoint, TlsIdentity};
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
    /// Where `serve` listens: it is told of damage that cannot be put right.
    pub serve: Option<String>,
    pub file: PathBuf,
    /// Where days of the rules begin.
    pub zone: chrono_tz::Tz,
    /// `None`: nothing is ever deleted.
    pub prune: Option<PruneSettings>,
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
    serve: Option<String>,
    prune: Option<PruneToml>,
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
        let has_tls = toml.tls.is_some();
        let serve = toml.serve.as_deref().map(|text| file.endpoint("serve", text, has_tls)).transpose()?;
        let prune = toml.prune.map(|prune| PruneSettings::resolve(&file, prune, zone, has_tls)).transpose()?;
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
            serve,
            file: file.path,
            zone,
            prune,
            bytes_max: toml.bytes_max,
            money_max: toml.money_max,
            egress_per_gb: toml.egress_per_gb,
        })
    }

    /// Another daemon's endpoint, with this one's certificate as it is now.
    pub fn endpoint(&self, text: &str) -> anyhow::Result<Endpoint> {
        let identity = match &self.tls {
            Some(tls) => {
                let read =
                    |path: &Path| std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()));
                Some(TlsIdentity {
                    ca_pem: read(&tls.ca)?,
                    cert_pem: read(&tls.cert)?,
                    key_pem: read(&tls.key)?.into(),
                })
            }
            None => None,
        };
        Ok(Endpoint::parse_with(text, identity)?)
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
    fn rules_are_data_and_without_them_everything_stays() {
        let prune = load(|text| text).unwrap().prune.unwrap();
        let rules: Vec<String> = prune.policy.rules.iter().map(crate::settings::rule_text).collect();
        assert_eq!(rules[..3], ["hourly 48", "daily 35", "weekly 13"]);
        assert_eq!(rules[4], "within 1w");
        assert_eq!(rules[5], "yearly 11 of emr (medicare-advantage, 42 CFR 422.504(d))");
        assert_eq!(rules[6], "yearly 30 of emr (minors, Cal. Health & Safety Code 123145)");
        let hold = &prune.policy.holds[0];
        assert_eq!(
            (hold.reason.as_str(), hold.placed_unix_ms),
            ("matter-2026-17", 1_793_574_000_000),
            "midnight there"
        );
        assert_eq!((prune.grace.as_secs(), prune.approvers.len()), (86_400, 2));
        let bare = load(|text| {
            let (before, prune) = text.split_once("[[prune.keep]]").unwrap();
            assert!(prune.contains("[[prune.hold]]"));
            before.to_owned()
        });
        let bare = bare.unwrap().prune.unwrap();
        assert!(bare.policy.rules.is_empty() && bare.policy.holds.is_empty() && bare.approvers.is_empty());
        let none = load(|text| text.split_once("[prune]").unwrap().0.to_owned()).unwrap();
        assert!(none.prune.is_none());
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
            ("grace = \"24h\"", "grace = \"soon\"", "prune.grace"),
            ("\"0 4 * * SUN\"", "\"weekly\"", "prune.plan_schedule"),
            ("unix:run/verifier.sock", "run/verifier.sock", "prune.verifier"),
            ("unix:run/verifier.sock", "tls://verifier:9442", "prune.verifier"),
            ("hourly = 48", "hourly = 0", "prune.keep.hourly"),
            ("within = \"7d\"", "within = \"7y\"", "prune.keep.within"),
            ("within = \"7d\"", "tags = [\"\"]", "prune.keep.tags"),
            ("\"medicare-advantage\"", "\"some-class\"", "prune.keep"),
            ("record_class = \"minors\"\n", "", "prune.keep.statute"),
            ("since = \"2026-11-02\"", "since = \"recently\"", "prune.hold.since"),
            ("id = \"matter-2026-17\"", "id = \"Doe v. practice\"", "prune.hold.id"),
            ("placed_by = \"Dr. Oakley Owner\"", "placed_by = \" \"", "prune.hold.placed_by"),
            ("source = \"emr\"\nplaced", "source = \"emr\"\ntag = \"t\"\nplaced", "prune.hold"),
            ("source = \"emr\"\nplaced", "snapshot = \"3f\"\nplaced", "prune.hold.snapshot"),
            ("name = \"Ira Tech\"", "name = \"Dr. Oakley Owner\"", "prune.approver"),
            ("fingerprint = \"0f1e", "fingerprint = \"0f", "prune.approver.fingerprint"),
        ] {
            assert!(include_str!("maintain.example.toml").contains(from), "the example lost {from}");
            let error = load(|text| text.replacen(from, to, 1)).unwrap_err().to_string();
            assert!(error.contains("maintain.toml") && error.contains(&format!("`{key}`")), "{key}: {error}");
        }
    }
}
