//! `serve.toml`.

use super::store::{StoreToml, stores};
use super::{File, SettingsError, StoreSetting, TlsListen, domains};
use crate::schedule::Schedule;
use backupd_api::DutyKind;
use chrono::NaiveDate;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Backups pause when less than this would stay free, unless the settings say otherwise.
const DISK_RESERVE_BYTES: u64 = 2_000_000_000;
/// Objects that are due are re-hashed at this time, unless the settings say otherwise.
const SCRUB_SCHEDULE: &str = "20 3 * * *";
/// One full pack and what belongs to it would not fit into less.
const SPOOL_BYTES_MIN: u64 = 64 << 20;

/// The checked settings of `backupd serve`.
#[derive(Debug, Clone)]
pub struct ServeSettings {
    pub file: PathBuf,
    pub practice: String,
    pub zone: chrono_tz::Tz,
    /// The place where the server stands.
    pub site: String,
    /// `None`: the systemd credential `writer`.
    pub writer_credential: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub health_socket: Option<PathBuf>,
    pub allowed_uids: Vec<u32>,
    /// Users who may ask for a snapshot and for nothing else: that of an EMR, before it upgrades its records.
    pub snapshot_uids: Vec<u32>,
    /// Users who may have a store looked at and ask for nothing else: that of maintenance, which finds damage.
    pub look_uids: Vec<u32>,
    pub tls: Option<TlsListen>,
    pub quorum: u32,
    pub spool: Option<SpoolSetting>,
    pub disk_reserve_bytes: u64,
    /// A durable snapshot older than this is late, milliseconds.
    pub late_after_ms: i64,
    /// A store without a passed drill for this long raises an alert, milliseconds.
    pub drill_late_after_ms: i64,
    pub scrub: Schedule,
    pub scrub_budget: ScrubBudget,
    /// The verifier's public report key: reports found in the stores count only when it signed them.
    pub report_key: Option<PathBuf>,
    /// The folder that `recover` makes anew; kept files lie in it and are put back at the same place below it.
    pub practice_dir: PathBuf,
    /// Files and folders that travel with every snapshot so that `recover` can put them back, beside this file itself.
    pub keep: Vec<PathBuf>,
    pub sources: Vec<Source>,
    pub stores: Vec<StoreSetting>,
    pub duties: Vec<DutySetting>,
}

/// How much of a store one scrub reads.
#[derive(Debug, Clone, Copy)]
pub struct ScrubBudget {
    /// Everything is read at least so often, as far as the limits let it.
    pub max_age: Duration,
    pub bytes_max: u64,
    pub time_max: Duration,
}

/// Where snapshots wait while too few stores answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpoolSetting {
    pub path: PathBuf,
    pub bytes_max: u64,
}

/// Something that is backed up on a schedule.
#[derive(Debug, Clone)]
pub struct Source {
    pub name: String,
    pub kind: SourceKind,
    pub schedule: Schedule,
}

#[derive(Debug, Clone)]
pub enum SourceKind {
    /// The EMR, through its operations socket. `data_dir`: where `recover` puts its data back.
    Appliance {
        ops_socket: PathBuf,
        data_dir: Option<PathBuf>,
    },
    Folder {
        path: PathBuf,
        excludes: Vec<String>,
    },
}

/// Who is responsible for one thing.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DutySetting {
    pub kind: DutyKind,
    pub store: Option<String>,
    #[serde(default)]
    pub party: String,
    #[serde(default)]
    pub deputy: String,
    #[serde(default)]
    pub phone: String,
    /// Day of the next review, `YYYY-MM-DD`.
    #[serde(default)]
    pub review: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ServeToml {
    practice: String,
    time_zone: String,
    site: String,
    writer_credential: Option<PathBuf>,
    state_dir: PathBuf,
    socket: PathBuf,
    health_socket: Option<PathBuf>,
    #[serde(default)]
    allowed_uids: Vec<u32>,
    #[serde(default)]
    snapshot_uids: Vec<u32>,
    #[serde(default)]
    look_uids: Vec<u32>,
    quorum: u32,
    disk_reserve_bytes: Option<u64>,
    late_after_s: Option<u32>,
    drill_late_after_s: Option<u32>,
    scrub_schedule: Option<String>,
    #[serde(default = "scrub_max_age_days")]
    scrub_max_age_days: u32,
    scrub_bytes_max: Option<u64>,
    #[serde(default = "scrub_time_max_s")]
    scrub_time_max_s: u64,
    report_key: Option<PathBuf>,
    practice_dir: Option<PathBuf>,
    #[serde(default)]
    keep: Vec<PathBuf>,
    tls: Option<TlsListen>,
    spool: Option<SpoolSetting>,
    #[serde(default)]
    source: Vec<SourceToml>,
    #[serde(default)]
    store: Vec<StoreToml>,
    #[serde(default)]
    duty: Vec<DutySetting>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceToml {
    name: String,
    kind: SourceWord,
    schedule: String,
    ops_socket: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    path: Option<PathBuf>,
    #[serde(default)]
    excludes: Vec<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SourceWord {
    Appliance,
    Folder,
}

fn scrub_max_age_days() -> u32 {
    30
}

fn scrub_time_max_s() -> u64 {
    3600
}

fn scrub_budget(file: &File, toml: &ServeToml) -> Result<ScrubBudget, SettingsError> {
    let limits = [
        ("scrub_max_age_days", u64::from(toml.scrub_max_age_days)),
        ("scrub_bytes_max", toml.scrub_bytes_max.unwrap_or(u64::MAX)),
        ("scrub_time_max_s", toml.scrub_time_max_s),
    ];
    if let Some((key, _)) = limits.iter().find(|(_, limit)| *limit == 0) {
        return Err(file.error(*key, "is 0: nothing could ever be looked at in time", "give at least 1"));
    }
    Ok(ScrubBudget {
        max_age: Duration::from_secs(u64::from(toml.scrub_max_age_days) * 86_400),
        bytes_max: toml.scrub_bytes_max.unwrap_or(u64::MAX),
        time_max: Duration::from_secs(toml.scrub_time_max_s),
    })
}

impl ServeSettings {
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let (file, toml) = File::read::<ServeToml>(path)?;
        let zone = file.zone(&toml.time_zone)?;
        file.label("site", &toml.site)?;
        let scrub_budget = scrub_budget(&file, &toml)?;
        let stores = stores(&file, toml.store)?;
        let countable = domains(stores.iter().filter(|s| s.always_there()));
        if toml.quorum == 0 || toml.quorum as usize > countable {
            return Err(file.error(
                "quorum",
                format!("is {} but {countable} stores that are apart count and can be sent to at any time", toml.quorum),
                "use 1 up to the number of stores with the role `quorum` that are not removable and have no upload window; those at \
                 one site of one provider are lost together and count as one",
            ));
        }
        let sources = sources(&file, toml.source, zone)?;
        duties(&file, &toml.duty, &stores)?;
        let practice_dir = match &toml.practice_dir {
            Some(dir) => normal(&file.path(dir)),
            None => common_folder(&file, &toml.keep),
        };
        if toml.tls.as_ref().is_some_and(|tls| tls.listen.is_none()) {
            return Err(file.error("tls.listen", "is missing", "write an address and port, such as \"0.0.0.0:9441\""));
        }
        let scrub = toml.scrub_schedule.unwrap_or_else(|| SCRUB_SCHEDULE.to_owned());
        Ok(Self {
            practice: toml.practice,
            zone,
            site: toml.site,
            writer_credential: toml.writer_credential.map(|p| file.path(&p)),
            state_dir: file.path(&toml.state_dir),
            socket: file.path(&toml.socket),
            health_socket: toml.health_socket.map(|p| file.path(&p)),
            allowed_uids: toml.allowed_uids,
            snapshot_uids: toml.snapshot_uids,
            look_uids: toml.look_uids,
            tls: toml.tls.map(|t| t.resolve(&file)),
            quorum: toml.quorum,
            spool: spool(&file, toml.spool)?,
            disk_reserve_bytes: toml.disk_reserve_bytes.unwrap_or(DISK_RESERVE_BYTES),
            late_after_ms: i64::from(toml.late_after_s.unwrap_or(26 * 3600)) * 1000,
            drill_late_after_ms: i64::from(toml.drill_late_after_s.unwrap_or(32 * 24 * 3600)) * 1000,
            scrub: file.schedule("scrub_schedule", &scrub, zone)?,
            scrub_budget,
            report_key: toml.report_key.map(|p| file.path(&p)),
            keep: keep(&file, &practice_dir, &toml.keep)?,
            practice_dir,
            sources,
            stores,
            duties: toml.duty,
            file: file.path,
        })
    }

    pub fn store(&self, name: &str) -> Option<&StoreSetting> {
        self.stores.iter().find(|s| s.name == name)
    }
}

fn spool(file: &File, spool: Option<SpoolSetting>) -> Result<Option<SpoolSetting>, SettingsError> {
    let Some(spool) = spool else { return Ok(None) };
    if spool.bytes_max < SPOOL_BYTES_MIN {
        let problem = format!("is less than {SPOOL_BYTES_MIN}");
        return Err(file.error("spool.bytes_max", problem, "give it room for some days of new records"));
    }
    Ok(Some(SpoolSetting { path: normal(&file.path(&spool.path)), ..spool }))
}

fn sources(file: &File, list: Vec<SourceToml>, zone: chrono_tz::Tz) -> Result<Vec<Source>, SettingsError> {
    if list.is_empty() {
        return Err(file.error("source", "there is none", "add at least one [[source]]"));
    }
    let mut names = BTreeSet::new();
    let mut out = Vec::new();
    for source in list {
        let name = String::from(file.label("source.name", &source.name)?);
        if !names.insert(name.clone()) {
            return Err(file.error("source.name", format!("`{name}` is there twice"), "give each source its own name"));
        }
        let missing = |key: &str| {
            file.error(format!("source.{key}"), format!("is missing for source `{name}`"), format!("add `{key} = ...`"))
        };
        let foreign = |key: &str| {
            file.error(
                format!("source.{key}"),
                format!("does not belong to this kind of source (`{name}`)"),
                "remove the key",
            )
        };
        let kind = match source.kind {
            SourceWord::Appliance if source.path.is_some() => return Err(foreign("path")),
            SourceWord::Appliance if !source.excludes.is_empty() => return Err(foreign("excludes")),
            SourceWord::Appliance => SourceKind::Appliance {
                ops_socket: file.path(&source.ops_socket.ok_or_else(|| missing("ops_socket"))?),
                data_dir: source.data_dir.map(|p| file.path(&p)),
            },
            SourceWord::Folder if source.ops_socket.is_some() => return Err(foreign("ops_socket")),
            SourceWord::Folder if source.data_dir.is_some() => return Err(foreign("data_dir")),
            SourceWord::Folder => SourceKind::Folder {
                path: file.path(&source.path.ok_or_else(|| missing("path"))?),
                excludes: source.excludes,
            },
        };
        out.push(Source { name, kind, schedule: file.schedule("source.schedule", &source.schedule, zone)? });
    }
    Ok(out)
}

/// This file and the files of `keep`, all below the practice's folder.
fn keep(file: &File, practice_dir: &Path, list: &[PathBuf]) -> Result<Vec<PathBuf>, SettingsError> {
    let mut out = vec![normal(&file.path)];
    for path in list {
        out.push(normal(&file.path(path)));
    }
    match out.iter().find(|path| !path.starts_with(practice_dir)) {
        None => Ok(out),
        Some(path) => Err(file.error(
            "keep",
            format!("{} lies outside {}", path.display(), practice_dir.display()),
            "set `practice_dir` to the folder that holds all that `recover` has to put back",
        )),
    }
}

/// The deepest folder that holds this file and all kept ones.
fn common_folder(file: &File, keep: &[PathBuf]) -> PathBuf {
    let mut dir = normal(file.dir());
    while !keep.iter().all(|path| normal(&file.path(path)).starts_with(&dir)) && dir.pop() {}
    dir
}

/// An absolute path without `.` and `..`, by its words alone.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            std::path::Component::CurDir => {}
            std::path::Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

fn duties(file: &File, list: &[DutySetting], stores: &[StoreSetting]) -> Result<(), SettingsError> {
    for duty in list {
        let is_contract = duty.kind == DutyKind::StoreContract;
        match &duty.store {
            Some(_) if !is_contract => {
                return Err(file.error("duty.store", "belongs to `store-contract` only", "remove the key"));
            }
            None if is_contract => {
                return Err(file.error("duty.store", "is missing", "name the store whose contract is meant"));
            }
            Some(name) if !stores.iter().any(|s| &s.name == name) => {
                return Err(file.error(
                    "duty.store",
                    format!("no store is named `{name}`"),
                    "use the name of a [[store]]",
                ));
            }
            _ => {}
        }
        if !duty.review.is_empty() && duty.review.parse::<NaiveDate>().is_err() {
            return Err(file.error("duty.review", format!("`{}` is no day", duty.review), "write it as YYYY-MM-DD"));
        }
    }
    Ok(())
}
