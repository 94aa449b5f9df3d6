//! The recovery kit: one file that, with the paper key and one store, brings everything back. It belongs in a safe.

use super::keys::slot_name;
use crate::secret;
use crate::settings::{AzureAccessFile, StoreKind, StoreSetting};
use crate::stores;
use anyhow::{Context, ensure};
use backup_engine::{AzureAccess, NamedStore, StoreLocation, describe_keyring};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::{Zeroize, ZeroizeOnDrop};

const FORM: &str = "holdfast-recovery-kit/1";
/// In a folder that was named as the kit.
const FILE: &str = "kit.json";
const PAPER_KEY_FILE: &str = "paper-key.txt";

/// The kit. It has no Debug: it holds store credentials and the report key.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct Kit {
    pub form: String,
    pub practice: String,
    pub repository: String,
    pub made_unix_ms: i64,
    /// The wrapped keyring: useless without the paper key or the passphrase.
    pub keyring_base64: String,
    /// What opens this keyring; `backupd keys list` says what opens the newest.
    pub slots: Vec<String>,
    /// Seed of the key that signs restore reports, hex.
    pub report_key: String,
    /// Where serve.toml and verifier.toml lie below the practice's folder, and their texts when the kit was made.
    pub serve_toml: SavedFile,
    pub verifier_toml: Option<SavedFile>,
    pub stores: Vec<KitStore>,
    /// What to type, in order.
    pub commands: Vec<String>,
}

#[derive(Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct SavedFile {
    pub path: String,
    pub text: String,
}

/// A store with what is needed to reach it.
#[derive(Clone, Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct KitStore {
    pub name: String,
    pub site: String,
    pub provider: String,
    /// Set for a folder.
    pub path: Option<String>,
    /// Set for S3.
    pub s3: Option<KitS3>,
    /// Set for Azure Blob.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<KitAzure>,
    /// Set for Google Cloud Storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gcs: Option<KitGcs>,
}

#[derive(Clone, Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct KitS3 {
    pub endpoint: Option<String>,
    pub bucket: String,
    pub prefix: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    /// The verifier's own credentials, when they differ.
    pub verifier_access_key: Option<String>,
    pub verifier_secret_key: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct KitAzure {
    pub endpoint: Option<String>,
    pub account: String,
    pub container: String,
    pub prefix: String,
    /// Whether the keys are shared access signatures; otherwise they are the account's.
    pub signature: bool,
    pub key: String,
    /// The verifier's own, when it differs.
    pub verifier_key: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, Zeroize)]
#[serde(deny_unknown_fields)]
pub struct KitGcs {
    pub endpoint: Option<String>,
    pub bucket: String,
    pub prefix: String,
    pub service_account: String,
    /// The verifier's own, when it differs.
    pub verifier_service_account: Option<String>,
}

fn azure_key(store: &str, access: &AzureAccessFile) -> anyhow::Result<String> {
    let (AzureAccessFile::AccountKey(file) | AzureAccessFile::Signature(file)) = access;
    Ok(stores::key_file(store, file)?)
}

impl KitStore {
    /// A store as the writer's settings have it, and the verifier's credentials for it.
    pub fn of(setting: &StoreSetting, verifier: Option<&StoreSetting>) -> anyhow::Result<Self> {
        let mut kept = Self {
            name: setting.name.clone(),
            site: setting.site.clone(),
            provider: setting.provider.clone(),
            path: None,
            s3: None,
            azure: None,
            gcs: None,
        };
        let (name, verifier) = (&setting.name, verifier.map(|v| &v.kind));
        match &setting.kind {
            StoreKind::Folder { path, .. } => kept.path = Some(path.display().to_string()),
            StoreKind::S3 { endpoint, bucket, prefix, region, access_key_file, secret_key_file } => {
                let mut own = (None, None);
                if let Some(StoreKind::S3 { access_key_file, secret_key_file, .. }) = verifier {
                    own.0 = Some(stores::key_file(name, access_key_file)?);
                    own.1 = Some(stores::key_file(name, secret_key_file)?);
                }
                kept.s3 = Some(KitS3 {
                    endpoint: endpoint.clone(),
                    bucket: bucket.clone(),
                    prefix: prefix.clone(),
                    region: region.clone(),
                    access_key: stores::key_file(name, access_key_file)?,
                    secret_key: stores::key_file(name, secret_key_file)?,
                    verifier_access_key: own.0,
                    verifier_secret_key: own.1,
                });
            }
            StoreKind::Azure { endpoint, account, container, prefix, access } => {
                let own = match verifier {
                    Some(StoreKind::Azure { access, .. }) => Some(azure_key(name, access)?),
                    _ => None,
                };
                kept.azure = Some(KitAzure {
                    endpoint: endpoint.clone(),
                    account: account.clone(),
                    container: container.clone(),
                    prefix: prefix.clone(),
                    signature: matches!(access, AzureAccessFile::Signature(_)),
                    key: azure_key(name, access)?,
                    verifier_key: own,
                });
            }
            StoreKind::Gcs { endpoint, bucket, prefix, service_account_file } => {
                let own = match verifier {
                    Some(StoreKind::Gcs { service_account_file, .. }) => {
                        Some(stores::service_account(name, service_account_file)?)
                    }
                    _ => None,
                };
                kept.gcs = Some(KitGcs {
                    endpoint: endpoint.clone(),
                    bucket: bucket.clone(),
                    prefix: prefix.clone(),
                    service_account: stores::service_account(name, service_account_file)?,
                    verifier_service_account: own,
                });
            }
        }
        Ok(kept)
    }

    /// Keeps the verifier's own credentials of an earlier kit.
    pub fn take_verifiers(&mut self, before: &Self) {
        if let (Some(s3), Some(before)) = (&mut self.s3, &before.s3) {
            s3.verifier_access_key.clone_from(&before.verifier_access_key);
            s3.verifier_secret_key.clone_from(&before.verifier_secret_key);
        }
        if let (Some(azure), Some(before)) = (&mut self.azure, &before.azure) {
            azure.verifier_key.clone_from(&before.verifier_key);
        }
        if let (Some(gcs), Some(before)) = (&mut self.gcs, &before.gcs) {
            gcs.verifier_service_account.clone_from(&before.verifier_service_account);
        }
    }

    /// Opens the store, at another place when it has moved since the kit was made.
    pub fn open(&self, path: Option<&Path>, endpoint: Option<&str>) -> anyhow::Result<NamedStore> {
        let location = self.location(path, endpoint)?;
        let store = location.open().with_context(|| format!("store {}", self.name))?;
        Ok(NamedStore::new(self.name.clone(), store, true))
    }

    fn location(&self, path: Option<&Path>, endpoint: Option<&str>) -> anyhow::Result<StoreLocation> {
        if let Some(kept) = &self.path {
            ensure!(endpoint.is_none(), "store {} is a folder: --endpoint does not apply", self.name);
            return Ok(StoreLocation::Folder { path: path.map_or_else(|| PathBuf::from(kept), Path::to_owned) });
        }
        ensure!(path.is_none(), "store {} is not a folder: --path does not apply", self.name);
        let endpoint = |kept: &Option<String>| endpoint.map(str::to_owned).or_else(|| kept.clone());
        Ok(match (&self.s3, &self.azure, &self.gcs) {
            (Some(s3), None, None) => {
                let endpoint = endpoint(&s3.endpoint);
                StoreLocation::S3 {
                    allow_http: endpoint.as_deref().is_some_and(|e| e.starts_with("http://")),
                    endpoint,
                    bucket: s3.bucket.clone(),
                    prefix: s3.prefix.clone(),
                    region: s3.region.clone(),
                    access_key: s3.access_key.clone(),
                    secret_key: s3.secret_key.clone(),
                    session_token: None,
                }
            }
            (None, Some(azure), None) => StoreLocation::Azure {
                endpoint: endpoint(&azure.endpoint),
                account: azure.account.clone(),
                container: azure.container.clone(),
                prefix: azure.prefix.clone(),
                access: if azure.signature {
                    AzureAccess::Signature(azure.key.clone())
                } else {
                    AzureAccess::AccountKey(azure.key.clone())
                },
            },
            (None, None, Some(gcs)) => StoreLocation::Gcs {
                endpoint: endpoint(&gcs.endpoint),
                bucket: gcs.bucket.clone(),
                prefix: gcs.prefix.clone(),
                service_account: Some(gcs.service_account.clone()),
            },
            _ => anyhow::bail!("the kit's entry of store {} is not complete", self.name),
        })
    }
}

/// Where a kit is to be written: `FILE.json`, or a folder that then also gets the paper key.
pub struct Place {
    pub file: PathBuf,
    /// A file for the paper key beside the kit, when a folder was named.
    pub paper_key: Option<PathBuf>,
}

impl Place {
    pub fn of(path: &Path) -> Self {
        if path.extension().is_some_and(|e| e == "json") && !path.is_dir() {
            return Self { file: path.to_owned(), paper_key: None };
        }
        Self { file: path.join(FILE), paper_key: Some(path.join(PAPER_KEY_FILE)) }
    }
}

impl Kit {
    pub fn form() -> String {
        FORM.to_owned()
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("the kit cannot be written down")?;
        text.push('\n');
        let written = secret::write_new(path, text.as_bytes());
        text.zeroize();
        written
    }

    /// The same kit with another keyring and its slots.
    pub fn with_keyring(&self, keyring: &[u8]) -> anyhow::Result<Self> {
        // By its own form, since a kit is never copied otherwise.
        let mut kit: Self = serde_json::from_slice(&zeroize::Zeroizing::new(serde_json::to_vec(self)?))?;
        kit.keyring_base64 = STANDARD.encode(keyring);
        kit.slots = describe_keyring(keyring)?.1.iter().map(slot_name).collect();
        Ok(kit)
    }

    /// The number of its keyring; 0 where that is damaged.
    pub fn keyring_number(&self) -> u64 {
        let described = self.keyring().ok().and_then(|keyring| describe_keyring(&keyring).ok());
        described.map_or(0, |(header, _)| header.number)
    }

    /// Writes the kit in place of the one that is there.
    pub fn replace(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("the kit cannot be written down")?;
        text.push('\n');
        let written = secret::replace(path, text.as_bytes());
        text.zeroize();
        written
    }

    /// Reads a kit: its file, or the folder that holds it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = if path.is_dir() { path.join(FILE) } else { path.to_owned() };
        let bytes = match secret::read_kept(&file) {
            Ok(bytes) => bytes,
            // No word on the permissions of a file that is no kit: nobody should change those.
            Err(_) if std::fs::read(&file).is_ok_and(|bytes| serde_json::from_slice::<Self>(&bytes).is_err()) => {
                anyhow::bail!("{} is no recovery kit: name the file or folder that `init` made", file.display())
            }
            Err(error) => return Err(error),
        };
        let kit: Self = serde_json::from_slice(&bytes).map_err(|e| {
            anyhow::anyhow!("{} is no recovery kit (line {}, column {})", file.display(), e.line(), e.column())
        })?;
        ensure!(kit.form == FORM, "{} is a kit of another form: use the release that made it", file.display());
        Ok(kit)
    }

    pub fn keyring(&self) -> anyhow::Result<bytes::Bytes> {
        Ok(STANDARD.decode(&self.keyring_base64).context("the kit's keyring is damaged")?.into())
    }

    pub fn store(&self, name: &str) -> anyhow::Result<&KitStore> {
        let names: Vec<&str> = self.stores.iter().map(|s| s.name.as_str()).collect();
        self.stores
            .iter()
            .find(|s| s.name == name)
            .with_context(|| format!("the kit has no store `{name}`: it has {}", names.join(", ")))
    }
}
