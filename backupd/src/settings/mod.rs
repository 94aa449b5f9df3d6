//! Settings files: TOML, unknown keys refused, paths relative to the file's folder, every error with file, key, remedy.

mod client;
mod error;
mod maintain;
mod prune;
mod serve;
pub mod span;
mod store;
mod tls;
mod verifier;

pub use client::{ClientSettings, Endpoints};
pub use error::SettingsError;
pub use maintain::MaintainSettings;
pub use prune::{Approver, PruneSettings, record_class, rule_text};
pub use serve::{DutySetting, ServeSettings, Source, SourceKind, SpoolSetting};
pub use store::{AzureAccessFile, StoreKind, StoreSetting, domains};
pub use tls::TlsListen;
pub use verifier::{Probe, VerifierSettings};

use backupd_api::{Endpoint, EndpointError};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// More than this is no settings file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A settings file as it lies on disk, with what is needed to resolve paths and to word errors.
pub struct File {
    pub path: PathBuf,
    dir: PathBuf,
}

impl File {
    /// Reads and parses; `T` has to refuse unknown keys.
    pub fn read<T: DeserializeOwned>(path: &Path) -> Result<(Self, T), SettingsError> {
        let whole = |problem: String, remedy: &str| SettingsError::new(path, "", problem, remedy);
        let absolute = std::path::absolute(path).map_err(|e| whole(e.to_string(), "give the path of a file"))?;
        let length = std::fs::metadata(&absolute)
            .map_err(|e| {
                whole(format!("cannot be read ({})", e.kind()), "give the path of a settings file with --config")
            })?
            .len();
        if length > FILE_BYTES_MAX {
            return Err(whole("is no settings file: it is larger than 1 MiB".to_owned(), "give another file"));
        }
        let text = std::fs::read_to_string(&absolute).map_err(|e| {
            whole(format!("cannot be read ({})", e.kind()), "check its permissions and that it is UTF-8 text")
        })?;
        let value = toml::from_str(&text).map_err(|e| SettingsError::from_toml(path, &text, &e))?;
        let dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
        Ok((Self { path: absolute, dir }, value))
    }

    /// A path of the file, resolved against the file's folder.
    pub fn path(&self, value: &Path) -> PathBuf {
        self.dir.join(value)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn error(
        &self,
        key: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> SettingsError {
        SettingsError::new(&self.path, key, problem, remedy)
    }

    /// An endpoint as written (`unix:path` may be relative to the file).
    pub fn endpoint_text(&self, text: &str) -> String {
        match text.strip_prefix("unix:") {
            Some(path) => format!("unix:{}", self.path(Path::new(path)).display()),
            None => text.to_owned(),
        }
    }

    /// An endpoint of another daemon that can be reached with this file's `[tls]`, or without any. A certificate is read when it
    /// is used.
    pub fn endpoint(&self, key: &str, text: &str, has_tls: bool) -> Result<String, SettingsError> {
        let text = self.endpoint_text(text);
        match Endpoint::parse(&text) {
            Ok(_) => Ok(text),
            Err(EndpointError::Identity) if has_tls => Ok(text),
            Err(EndpointError::Identity) => {
                Err(self.error(key, "is tls://, but there is no [tls]", "add [tls] with cert, key and ca"))
            }
            Err(EndpointError::Form) => {
                let daemon = key.rsplit('.').next().unwrap_or(key);
                let remedy = format!("write it as unix:/path/of/{daemon}.sock or tls://host:port");
                Err(self.error(key, "is no endpoint", remedy))
            }
        }
    }

    pub fn zone(&self, name: &str) -> Result<chrono_tz::Tz, SettingsError> {
        name.parse().map_err(|_| {
            self.error("time_zone", format!("`{name}` is no time zone"), "use an IANA name, for example Europe/Berlin")
        })
    }

    pub fn schedule(
        &self,
        key: &str,
        text: &str,
        zone: chrono_tz::Tz,
    ) -> Result<crate::schedule::Schedule, SettingsError> {
        crate::schedule::Schedule::parse(text, zone)
            .map_err(|e| self.error(key, format!("`{text}` is no schedule"), e.to_string()))
    }

    /// Names of stores and sources are shown outside the practice: ids only.
    pub fn label(&self, key: &str, name: &str) -> Result<agent_api::Label, SettingsError> {
        name.parse()
            .map_err(|_| self.error(key, "is not an id", "use 1 to 64 letters, digits, dots, underscores or hyphens"))
    }
}

#[cfg(test)]
mod tests;
