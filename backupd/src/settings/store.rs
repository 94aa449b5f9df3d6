//! `[[store]]` of both daemons.

use super::{File, SettingsError};
use backup_engine::LockRule;
use backup_engine::store::address::{check_endpoint, check_name, check_prefix};
use backup_engine::store::versions::LockMode;
use backupd_api::StoreRole;
use chrono::{DateTime, NaiveDate, NaiveTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A slip of the pen must not lock records for a lifetime.
const LOCK_DAYS_MAX: u32 = 3650;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum LockWord {
    Compliance,
    Governance,
}

/// A store of the practice.
#[derive(Debug, Clone)]
pub struct StoreSetting {
    pub name: String,
    pub kind: StoreKind,
    /// The place where it stands, a short id; a store at the server's own site is not apart.
    pub site: String,
    pub provider: String,
    /// What the provider calls the region, when it has any.
    pub region: Option<String>,
    /// The account at the provider that the contract is about.
    pub account: Option<String>,
    /// The business associate agreement with the provider.
    pub baa: Option<Baa>,
    pub role: StoreRole,
    pub upload_bytes_per_s: Option<u64>,
    /// How each new object is locked.
    pub lock: Option<LockRule>,
    /// Nothing is sent outside of this time of the day.
    pub upload_window: Option<UploadWindow>,
}

impl StoreSetting {
    /// Whether a snapshot in it counts for the quorum.
    pub fn counts(&self) -> bool {
        self.role == StoreRole::Quorum
    }

    /// What may be lost as one: a building, or an account that is closed. Stores of one domain count as one for the quorum.
    pub fn domain(&self) -> (&str, &str) {
        (&self.site, &self.provider)
    }

    /// Whether it can be sent to at any time.
    pub fn always_there(&self) -> bool {
        self.upload_window.is_none() && !matches!(self.kind, StoreKind::Folder { removable: true, .. })
    }

    /// Whether it may be sent to now.
    pub fn takes_uploads(&self, now_unix_ms: i64, zone: chrono_tz::Tz) -> bool {
        self.upload_window.is_none_or(|window| window.is_open(now_unix_ms, zone))
    }
}

/// How many failure domains count for the quorum among these stores.
pub fn domains<'a>(stores: impl Iterator<Item = &'a StoreSetting>) -> usize {
    stores.filter(|store| store.counts()).map(StoreSetting::domain).collect::<BTreeSet<_>>().len()
}

/// A contract under which the provider may hold records: where to find it, and its last day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Baa {
    pub reference: String,
    pub until: NaiveDate,
}

/// From one time of the day to another, over midnight when the end comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadWindow {
    from: NaiveTime,
    to: NaiveTime,
}

impl UploadWindow {
    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-')?;
        let time = |text: &str| NaiveTime::parse_from_str(text.trim(), "%H:%M").ok();
        let window = Self { from: time(from)?, to: time(to)? };
        (window.from != window.to).then_some(window)
    }

    fn is_open(self, now_unix_ms: i64, zone: chrono_tz::Tz) -> bool {
        let now = DateTime::from_timestamp_millis(now_unix_ms).unwrap_or_default().with_timezone(&zone).time();
        let (after, before) = (self.from <= now, now < self.to);
        if self.from < self.to { after && before } else { after || before }
    }
}

impl std::fmt::Display for UploadWindow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.from.format("%H:%M"), self.to.format("%H:%M"))
    }
}

#[derive(Debug, Clone)]
pub enum StoreKind {
    Folder {
        path: PathBuf,
        /// A disk or share that comes and goes.
        removable: bool,
    },
    S3 {
        /// `None`: the region's own endpoint.
        endpoint: Option<String>,
        bucket: String,
        prefix: String,
        region: String,
        access_key_file: PathBuf,
        secret_key_file: PathBuf,
    },
    Azure {
        /// `None`: the account's own endpoint.
        endpoint: Option<String>,
        account: String,
        container: String,
        prefix: String,
        access: AzureAccessFile,
    },
    Gcs {
        endpoint: Option<String>,
        bucket: String,
        prefix: String,
        service_account_file: PathBuf,
    },
}

/// Where the key to an Azure container is.
#[derive(Debug, Clone)]
pub enum AzureAccessFile {
    AccountKey(PathBuf),
    Signature(PathBuf),
}

impl StoreKind {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "folder",
            Self::S3 { .. } => "s3",
            Self::Azure { .. } => "azure",
            Self::Gcs { .. } => "gcs",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KindWord {
    Folder,
    S3,
    Azure,
    Gcs,
}

impl KindWord {
    fn text(self) -> &'static str {
        match self {
            Self::Folder => "folder",
            Self::S3 => "s3",
            Self::Azure => "azure",
            Self::Gcs => "gcs",
        }
    }
}

/// `[[store]]` as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreToml {
    pub name: String,
    pub kind: KindWord,
    pub site: String,
    pub provider: String,
    role: Option<StoreRole>,
    account: Option<String>,
    baa: Option<String>,
    baa_until: Option<String>,
    upload_bytes_per_s: Option<u64>,
    upload_window: Option<String>,
    lock_days: Option<u32>,
    lock_mode: Option<LockWord>,
    path: Option<PathBuf>,
    removable: Option<bool>,
    endpoint: Option<String>,
    bucket: Option<String>,
    container: Option<String>,
    prefix: Option<String>,
    region: Option<String>,
    access_key_file: Option<PathBuf>,
    secret_key_file: Option<PathBuf>,
    account_key_file: Option<PathBuf>,
    signature_file: Option<PathBuf>,
    service_account_file: Option<PathBuf>,
}

/// One `[[store]]` while it is checked, with the words for what is wrong in it.
struct Checked<'a> {
    file: &'a File,
    name: &'a str,
}

impl Checked<'_> {
    fn error(&self, key: &str, problem: impl std::fmt::Display, remedy: impl Into<String>) -> SettingsError {
        self.file.error(format!("store.{key}"), format!("{problem} (store `{}`)", self.name), remedy)
    }

    fn wants<T>(&self, key: &str, value: Option<T>) -> Result<T, SettingsError> {
        value.ok_or_else(|| self.error(key, "is missing", format!("add `{key} = ...` to this [[store]]")))
    }
}

impl StoreToml {
    fn check(self, file: &File) -> Result<StoreSetting, SettingsError> {
        let name = String::from(file.label("store.name", &self.name)?);
        file.label("store.site", &self.site)?;
        file.label("store.provider", &self.provider)?;
        for (key, label) in [("store.region", &self.region), ("store.account", &self.account)] {
            label.as_deref().map(|label| file.label(key, label)).transpose()?;
        }
        let checked = Checked { file, name: &name };
        self.no_foreign_keys(&checked)?;
        self.address(&checked)?;
        let role = self.role.unwrap_or(StoreRole::Quorum);
        if role == StoreRole::Convenience && self.kind != KindWord::Folder {
            return Err(checked.error("role", "`convenience` is only for folders", "use `quorum` or `copy`"));
        }
        if self.upload_bytes_per_s == Some(0) {
            let remedy = "give a number above 0, or leave the key out";
            return Err(checked.error("upload_bytes_per_s", "of 0 would never send anything", remedy));
        }
        let upload_window = self.upload_window.as_deref().map(|text| {
            let remedy = "write it as \"20:00-06:00\", two different times in the practice's time zone";
            UploadWindow::parse(text).ok_or_else(|| checked.error("upload_window", "is no time of the day", remedy))
        });
        let upload_window = upload_window.transpose()?;
        let baa = self.baa(&checked)?;
        let lock = self.lock(&checked)?;
        let (site, provider, region) = (self.site.clone(), self.provider.clone(), self.region.clone());
        let (account, upload_bytes_per_s) = (self.account.clone(), self.upload_bytes_per_s);
        let kind = self.kind(&checked)?;
        Ok(StoreSetting {
            name,
            kind,
            site,
            provider,
            region,
            account,
            baa,
            role,
            upload_bytes_per_s,
            lock,
            upload_window,
        })
    }

    fn lock(&self, checked: &Checked<'_>) -> Result<Option<LockRule>, SettingsError> {
        let mode = match self.lock_mode {
            None | Some(LockWord::Compliance) => LockMode::Compliance,
            Some(LockWord::Governance) => LockMode::Governance,
        };
        match (self.lock_days, self.lock_mode) {
            (None, None) => Ok(None),
            (None, Some(_)) => checked.wants("lock_days", None),
            (Some(days), _) if (1..=LOCK_DAYS_MAX).contains(&days) => Ok(Some(LockRule::days(mode, days))),
            (Some(days), _) => {
                let remedy = format!("give 1 to {LOCK_DAYS_MAX} days: nobody ends a compliance lock before its day");
                Err(checked.error("lock_days", format!("is {days}"), remedy))
            }
        }
    }

    fn baa(&self, checked: &Checked<'_>) -> Result<Option<Baa>, SettingsError> {
        match (&self.baa, &self.baa_until) {
            (None, None) => Ok(None),
            (Some(reference), Some(until)) => {
                checked.file.label("store.baa", reference)?;
                let until = until.parse().map_err(|_| {
                    checked.error("baa_until", format!("`{until}` is no day"), "write it as YYYY-MM-DD")
                })?;
                Ok(Some(Baa { reference: reference.clone(), until }))
            }
            (Some(_), None) => checked.wants("baa_until", None),
            (None, Some(_)) => checked.wants("baa", None),
        }
    }

    /// What is no address stops at the first look, and not every backup later.
    fn address(&self, checked: &Checked<'_>) -> Result<(), SettingsError> {
        let names = [("bucket", &self.bucket), ("container", &self.container)];
        let name = |(part, name): (&'static str, &Option<String>)| name.as_deref().map(|name| check_name(part, name));
        let mut looked = vec![self.endpoint.as_deref().map(check_endpoint), self.prefix.as_deref().map(check_prefix)];
        looked.extend(names.map(name));
        match looked.into_iter().flatten().find_map(Result::err) {
            None => Ok(()),
            Some(wrong) => Err(checked.error(wrong.part, "is malformed", wrong.remedy)),
        }
    }

    /// A key of another kind of store is a mistake, not a remark.
    fn no_foreign_keys(&self, checked: &Checked<'_>) -> Result<(), SettingsError> {
        use KindWord::{Azure, Folder, Gcs, S3};
        let keys: [(&str, bool, &[KindWord]); 14] = [
            ("path", self.path.is_some(), &[Folder]),
            ("removable", self.removable.is_some(), &[Folder]),
            ("endpoint", self.endpoint.is_some(), &[S3, Azure, Gcs]),
            ("bucket", self.bucket.is_some(), &[S3, Gcs]),
            ("container", self.container.is_some(), &[Azure]),
            ("prefix", self.prefix.is_some(), &[S3, Azure, Gcs]),
            ("region", self.region.is_some(), &[S3, Azure, Gcs]),
            ("lock_days", self.lock_days.is_some(), &[S3]),
            ("lock_mode", self.lock_mode.is_some(), &[S3]),
            ("access_key_file", self.access_key_file.is_some(), &[S3]),
            ("secret_key_file", self.secret_key_file.is_some(), &[S3]),
            ("account_key_file", self.account_key_file.is_some(), &[Azure]),
            ("signature_file", self.signature_file.is_some(), &[Azure]),
            ("service_account_file", self.service_account_file.is_some(), &[Gcs]),
        ];
        match keys.iter().find(|(_, set, kinds)| *set && !kinds.contains(&self.kind)) {
            None => Ok(()),
            Some((key, ..)) => {
                let problem = format!("does not belong to a {} store", self.kind.text());
                Err(checked.error(key, problem, "remove the key"))
            }
        }
    }

    fn kind(self, checked: &Checked<'_>) -> Result<StoreKind, SettingsError> {
        let path = |path: PathBuf| checked.file.path(&path);
        Ok(match self.kind {
            KindWord::Folder => StoreKind::Folder {
                path: path(checked.wants("path", self.path)?),
                removable: self.removable.unwrap_or(false),
            },
            KindWord::S3 => StoreKind::S3 {
                endpoint: self.endpoint,
                bucket: checked.wants("bucket", self.bucket)?,
                prefix: self.prefix.unwrap_or_default(),
                region: self.region.unwrap_or_else(|| "us-east-1".to_owned()),
                access_key_file: path(checked.wants("access_key_file", self.access_key_file)?),
                secret_key_file: path(checked.wants("secret_key_file", self.secret_key_file)?),
            },
            KindWord::Azure => StoreKind::Azure {
                endpoint: self.endpoint,
                account: checked.wants("account", self.account)?,
                container: checked.wants("container", self.container)?,
                prefix: self.prefix.unwrap_or_default(),
                access: match (self.account_key_file, self.signature_file) {
                    (None, Some(file)) => AzureAccessFile::Signature(path(file)),
                    (Some(file), None) => AzureAccessFile::AccountKey(path(file)),
                    (Some(_), Some(_)) => {
                        let remedy = "keep `signature_file`: an account key may delete everything";
                        return Err(checked.error("account_key_file", "stands beside `signature_file`", remedy));
                    }
                    (None, None) => checked.wants("signature_file", None)?,
                },
            },
            KindWord::Gcs => StoreKind::Gcs {
                endpoint: self.endpoint,
                bucket: checked.wants("bucket", self.bucket)?,
                prefix: self.prefix.unwrap_or_default(),
                service_account_file: path(checked.wants("service_account_file", self.service_account_file)?),
            },
        })
    }
}

pub(super) fn stores(file: &File, list: Vec<StoreToml>) -> Result<Vec<StoreSetting>, SettingsError> {
    if list.is_empty() {
        return Err(file.error("store", "there is none", "add at least one [[store]]"));
    }
    let mut names = BTreeSet::new();
    let mut out = Vec::new();
    for store in list {
        if !names.insert(store.name.clone()) {
            return Err(file.error(
                "store.name",
                format!("`{}` is there twice", store.name),
                "give each store its own name",
            ));
        }
        out.push(store.check(file)?);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_window_is_a_time_of_the_day_in_the_practices_zone() {
        let berlin = chrono_tz::Europe::Berlin;
        let at = |text: &str| DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis();
        let night = UploadWindow::parse("20:00-06:00").unwrap();
        for (time, open) in [
            ("2026-11-25T19:59:00+01:00", false),
            ("2026-11-25T20:00:00+01:00", true),
            ("2026-11-26T00:30:00+01:00", true),
            ("2026-11-26T05:59:59+01:00", true),
            ("2026-11-26T06:00:00+01:00", false),
            // Summer time: the same hour of the wall clock.
            ("2026-07-01T18:30:00+00:00", true),
            ("2026-11-25T18:30:00+00:00", false),
        ] {
            assert_eq!(night.is_open(at(time), berlin), open, "{time}");
        }
        let day = UploadWindow::parse("12:00 - 13:30").unwrap();
        assert!(day.is_open(at("2026-11-25T13:29:00+01:00"), berlin));
        assert!(!day.is_open(at("2026-11-25T13:30:00+01:00"), berlin));
        for bad in ["", "20:00", "20:00-20:00", "25:00-06:00", "8pm-6am"] {
            assert_eq!(UploadWindow::parse(bad), None, "{bad}");
        }
    }
}
