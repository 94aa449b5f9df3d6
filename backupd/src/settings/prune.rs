//! `[prune]` of `maintain.toml`: what is kept and why, who must agree, and the keys for it. Without rules nothing goes.

use super::{File, SettingsError, span};
use crate::schedule::Schedule;
use backup_engine::SnapshotId;
use backup_engine::retain::{Basis, Hold, HoldScope, Keep, Policy, Rule, STATUTES};
use backup_report::{Fingerprint, Label};
use chrono::{NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The checked `[prune]`.
#[derive(Debug, Clone)]
pub struct PruneSettings {
    /// `None`: the systemd credential `open`.
    pub open_key: Option<PathBuf>,
    /// `None`: the systemd credential `pruner`.
    pub pruner_credential: Option<PathBuf>,
    /// The public half of the verifier's key: only what it signed is proved.
    pub report_key: PathBuf,
    /// Where `backupd verifier` listens, which writes the log.
    pub verifier: String,
    pub schedule: Schedule,
    pub grace: Duration,
    pub retire_silent: Duration,
    pub rewrite_bytes_max: u64,
    pub policy: Policy,
    pub approvers: Vec<Approver>,
}

/// Whose decision about a plan counts.
#[derive(Debug, Clone)]
pub struct Approver {
    pub name: String,
    pub fingerprint: Fingerprint,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PruneToml {
    open_key: Option<PathBuf>,
    pruner_credential: Option<PathBuf>,
    report_key: PathBuf,
    verifier: String,
    plan_schedule: String,
    #[serde(default = "grace")]
    grace: String,
    #[serde(default = "retire_silent")]
    retire_silent: String,
    #[serde(default = "rewrite_bytes_max")]
    rewrite_bytes_max: u64,
    #[serde(default)]
    keep: Vec<KeepToml>,
    #[serde(default)]
    hold: Vec<HoldToml>,
    #[serde(default)]
    approver: Vec<ApproverToml>,
}

fn grace() -> String {
    "24h".to_owned()
}

fn retire_silent() -> String {
    "7d".to_owned()
}

fn rewrite_bytes_max() -> u64 {
    1 << 30
}

/// One set of rules; each count is a rule of its own.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeepToml {
    source: Option<String>,
    last: Option<u32>,
    hourly: Option<u32>,
    daily: Option<u32>,
    weekly: Option<u32>,
    monthly: Option<u32>,
    yearly: Option<u32>,
    within: Option<String>,
    #[serde(default)]
    tags: Vec<String>,
    record_class: Option<String>,
    statute: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldToml {
    /// The case or matter, as the practice numbers it: an id, no sentence.
    id: String,
    source: Option<String>,
    tag: Option<String>,
    snapshot: Option<String>,
    placed_by: String,
    since: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproverToml {
    name: String,
    fingerprint: String,
}

impl PruneSettings {
    pub(super) fn resolve(
        file: &File,
        toml: PruneToml,
        zone: chrono_tz::Tz,
        has_tls: bool,
    ) -> Result<Self, SettingsError> {
        let verifier = file.endpoint("prune.verifier", &toml.verifier, has_tls)?;
        let mut rules = Vec::new();
        for keep in toml.keep {
            rules.extend(keep.rules(file)?);
        }
        let holds = toml.hold.into_iter().map(|hold| hold.resolve(file, zone)).collect::<Result<_, _>>()?;
        Ok(Self {
            open_key: toml.open_key.map(|path| file.path(&path)),
            pruner_credential: toml.pruner_credential.map(|path| file.path(&path)),
            report_key: file.path(&toml.report_key),
            verifier,
            schedule: file.schedule("prune.plan_schedule", &toml.plan_schedule, zone)?,
            grace: length(file, "prune.grace", &toml.grace)?,
            retire_silent: length(file, "prune.retire_silent", &toml.retire_silent)?,
            rewrite_bytes_max: toml.rewrite_bytes_max,
            policy: Policy { rules, holds },
            approvers: approvers(file, toml.approver)?,
        })
    }
}

fn length(file: &File, key: &str, text: &str) -> Result<Duration, SettingsError> {
    span::parse(text).ok_or_else(|| file.error(key, format!("`{text}` is no length of time"), span::REMEDY))
}

fn id(file: &File, key: &str, text: &str) -> Result<(), SettingsError> {
    file.label(key, text).map(|_| ())
}

impl KeepToml {
    fn rules(self, file: &File) -> Result<Vec<Rule>, SettingsError> {
        if let Some(source) = &self.source {
            id(file, "prune.keep.source", source)?;
        }
        if let Some(class) = &self.record_class {
            id(file, "prune.keep.record_class", class)?;
        }
        let counted = [
            ("last", self.last, Keep::Last as fn(u32) -> Keep),
            ("hourly", self.hourly, Keep::Hourly),
            ("daily", self.daily, Keep::Daily),
            ("weekly", self.weekly, Keep::Weekly),
            ("monthly", self.monthly, Keep::Monthly),
            ("yearly", self.yearly, Keep::Yearly),
        ];
        let mut keeps = Vec::new();
        for (key, count, keep) in counted {
            match count {
                Some(0) => {
                    let remedy = "give at least 1, or leave the key out";
                    return Err(file.error(format!("prune.keep.{key}"), "is 0: it would keep nothing", remedy));
                }
                Some(count) => keeps.push(keep(count)),
                None => {}
            }
        }
        if let Some(text) = &self.within {
            let ms = length(file, "prune.keep.within", text)?.as_millis();
            keeps.push(Keep::Within(u64::try_from(ms).unwrap_or(u64::MAX)));
        }
        for tag in self.tags {
            if tag.is_empty() {
                return Err(file.error("prune.keep.tags", "holds an empty tag", "name a tag, or remove it"));
            }
            keeps.push(Keep::Tagged(tag));
        }
        let known = STATUTES.iter().find(|statute| Some(statute.record_class) == self.record_class.as_deref());
        if keeps.is_empty() {
            // A known class of records says by itself how long.
            let Some(statute) = known.filter(|_| self.statute.is_none()) else {
                let classes: Vec<&str> = STATUTES.iter().map(|statute| statute.record_class).collect();
                let remedy = format!(
                    "add `last`, `hourly`, `daily`, `weekly`, `monthly`, `yearly`, `within` or `tags`, or give `record_class` \
                     alone as one of {}",
                    classes.join(", ")
                );
                return Err(file.error("prune.keep", "keeps nothing", remedy));
            };
            return Ok(vec![statute.rule(self.source)]);
        }
        let basis = match (self.record_class, self.statute) {
            (None, None) => None,
            (Some(record_class), None) if known.is_none() => {
                Some(Basis { record_class, statute: "the practice's own rule".to_owned() })
            }
            (Some(record_class), statute) => {
                let citation = || known.map(|statute| statute.citation.to_owned()).unwrap_or_default();
                Some(Basis { record_class, statute: statute.unwrap_or_else(citation) })
            }
            (None, Some(_)) => {
                let remedy = "add `record_class`: the class of records that the statute is about";
                return Err(file.error("prune.keep.statute", "stands alone", remedy));
            }
        };
        let rule = |keep| Rule { source: self.source.clone(), keep, basis: basis.clone() };
        Ok(keeps.into_iter().map(rule).collect())
    }
}

impl HoldToml {
    fn resolve(self, file: &File, zone: chrono_tz::Tz) -> Result<Hold, SettingsError> {
        id(file, "prune.hold.id", &self.id)?;
        if self.placed_by.trim().is_empty() {
            return Err(file.error("prune.hold.placed_by", "is empty", "name the person who ordered the hold"));
        }
        let scope = match (self.source, self.tag, self.snapshot) {
            (Some(source), None, None) => HoldScope::Source(source),
            (None, Some(tag), None) => HoldScope::Tag(tag),
            (None, None, Some(text)) => {
                let parsed: Option<SnapshotId> = text.parse().ok();
                HoldScope::Snapshot(parsed.ok_or_else(|| {
                    let remedy = "give the whole id, 64 hex digits: `backupd snapshots --json` shows it";
                    file.error("prune.hold.snapshot", "is no snapshot's id", remedy)
                })?)
            }
            _ => {
                let remedy = "give exactly one of `source`, `tag` and `snapshot`";
                return Err(file.error("prune.hold", "must say what is held", remedy));
            }
        };
        let day = NaiveDate::parse_from_str(&self.since, "%Y-%m-%d")
            .map_err(|_| file.error("prune.hold.since", "is no day", "write YYYY-MM-DD"))?;
        let midnight = day.and_time(NaiveTime::MIN).and_local_timezone(zone).earliest();
        let placed_unix_ms = midnight.map_or(0, |time| time.timestamp_millis());
        Ok(Hold { scope, reason: self.id, placed_by: self.placed_by, placed_unix_ms })
    }
}

fn approvers(file: &File, all: Vec<ApproverToml>) -> Result<Vec<Approver>, SettingsError> {
    let mut found: Vec<Approver> = Vec::new();
    for ApproverToml { name, fingerprint } in all {
        if name.trim().is_empty() {
            return Err(file.error("prune.approver.name", "is empty", "name the person"));
        }
        let fingerprint: Fingerprint = fingerprint.parse().map_err(|_| {
            let remedy = "`report-verify fingerprint owner.pub` shows it; so does the console, once a key is enrolled";
            file.error("prune.approver.fingerprint", format!("of {name} is no fingerprint"), remedy)
        })?;
        if found.iter().any(|other| other.name == name || other.fingerprint == fingerprint) {
            let remedy = "two different persons have to agree, each with a key of their own";
            return Err(file.error("prune.approver", format!("{name} or their key is listed twice"), remedy));
        }
        found.push(Approver { name, fingerprint });
    }
    Ok(found)
}

/// A rule as people read it: `daily 14 of emr (hipaa-documentation, 45 CFR 164.316(b)(2)(i))`.
pub fn rule_text(rule: &Rule) -> String {
    let mut text = match &rule.keep {
        Keep::Last(n) => format!("last {n}"),
        Keep::Hourly(n) => format!("hourly {n}"),
        Keep::Daily(n) => format!("daily {n}"),
        Keep::Weekly(n) => format!("weekly {n}"),
        Keep::Monthly(n) => format!("monthly {n}"),
        Keep::Yearly(n) => format!("yearly {n}"),
        Keep::Within(ms) => format!("within {}", span::text(Duration::from_millis(*ms))),
        // A tag is record content.
        Keep::Tagged(_) => "a tag".to_owned(),
    };
    if let Some(source) = &rule.source {
        text += &format!(" of {source}");
    }
    if let Some(basis) = &rule.basis {
        text += &format!(" ({}, {})", basis.record_class, basis.statute);
    }
    text
}

/// A rule's class of records, as far as a log entry may hold it.
pub fn record_class(rule: &Rule) -> Option<Label> {
    rule.basis.as_ref().and_then(|basis| Label::parse(&basis.record_class).ok())
}
