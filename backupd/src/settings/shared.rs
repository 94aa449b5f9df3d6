//! What the settings of both daemons share: stores and the TLS listener.

use super::{File, SettingsError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;

/// A store of the practice.
#[derive(Debug, Clone)]
pub struct StoreSetting {
    pub name: String,
    pub kind: StoreKind,
    /// The place where it stands, a short id; a store at the server's own site is not apart.
    pub site: String,
    pub provider: String,
    /// A folder that the server itself can write: never counts for the quorum.
    pub convenience: bool,
}

#[derive(Debug, Clone)]
pub enum StoreKind {
    Folder {
        path: PathBuf,
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
}

impl StoreKind {
    pub fn word(&self) -> &'static str {
        match self {
            Self::Folder { .. } => "folder",
            Self::S3 { .. } => "s3",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKindWord {
    Folder,
    S3,
}

/// `[[store]]` as written.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreToml {
    pub name: String,
    pub kind: StoreKindWord,
    pub site: String,
    pub provider: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub convenience: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_file: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_file: Option<PathBuf>,
}

impl StoreToml {
    fn check(self, file: &File) -> Result<StoreSetting, SettingsError> {
        let name = String::from(file.label("store.name", &self.name)?);
        file.label("store.site", &self.site)?;
        file.label("store.provider", &self.provider)?;
        let missing = |key: &str| {
            file.error(
                format!("store.{key}"),
                format!("is missing for store `{name}`"),
                format!("add `{key} = ...` to this [[store]]"),
            )
        };
        let foreign = |key: &str, kind: &str| {
            file.error(
                format!("store.{key}"),
                format!("does not belong to a {kind} store (`{name}`)"),
                "remove the key",
            )
        };
        let kind = match self.kind {
            StoreKindWord::Folder => {
                let s3 = [
                    ("endpoint", self.endpoint.is_some()),
                    ("bucket", self.bucket.is_some()),
                    ("prefix", self.prefix.is_some()),
                    ("region", self.region.is_some()),
                    ("access_key_file", self.access_key_file.is_some()),
                    ("secret_key_file", self.secret_key_file.is_some()),
                ];
                if let Some((key, _)) = s3.iter().find(|(_, set)| *set) {
                    return Err(foreign(key, "folder"));
                }
                StoreKind::Folder { path: file.path(&self.path.ok_or_else(|| missing("path"))?) }
            }
            StoreKindWord::S3 => {
                if self.path.is_some() {
                    return Err(foreign("path", "s3"));
                }
                StoreKind::S3 {
                    endpoint: self.endpoint,
                    bucket: self.bucket.ok_or_else(|| missing("bucket"))?,
                    prefix: self.prefix.unwrap_or_default(),
                    region: self.region.unwrap_or_else(|| "us-east-1".to_owned()),
                    access_key_file: file.path(&self.access_key_file.ok_or_else(|| missing("access_key_file"))?),
                    secret_key_file: file.path(&self.secret_key_file.ok_or_else(|| missing("secret_key_file"))?),
                }
            }
        };
        if self.convenience && matches!(kind, StoreKind::S3 { .. }) {
            return Err(file.error("store.convenience", format!("is only for folders (`{name}`)"), "remove the key"));
        }
        Ok(StoreSetting { name, kind, site: self.site, provider: self.provider, convenience: self.convenience })
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

/// `[tls]` as written: a listener for clients of other machines.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsListen {
    /// `None`: nobody connects; the certificate is only shown to other daemons.
    pub listen: Option<SocketAddr>,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Clients have to show a certificate that this authority signed.
    pub ca: PathBuf,
}

impl TlsListen {
    pub(super) fn resolve(self, file: &File) -> Self {
        Self { listen: self.listen, cert: file.path(&self.cert), key: file.path(&self.key), ca: file.path(&self.ca) }
    }
}
