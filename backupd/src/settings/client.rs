//! `cli.toml`: where the daemons are, for a person at a terminal. A daemon's own file does as well.

use super::{File, SettingsError};
use backupd_api::{Endpoint, TlsIdentity};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Where the daemons listen.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    pub serve: Option<Endpoint>,
    pub verifier: Option<Endpoint>,
    pub maintain: Option<Endpoint>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientSettings {
    serve: Option<String>,
    verifier: Option<String>,
    maintain: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl ClientSettings {
    /// Reads `cli.toml`, or takes the socket of a `serve.toml`, `verifier.toml` or `maintain.toml`.
    pub fn endpoints(path: &Path) -> Result<Endpoints, SettingsError> {
        let (_, any) = File::read::<toml::Table>(path)?;
        if any.contains_key("quorum") {
            let socket = super::ServeSettings::load(path)?.socket;
            return Ok(Endpoints { serve: Some(Endpoint::Unix(socket)), ..Endpoints::default() });
        }
        if any.contains_key("drill_schedule") {
            let socket = super::VerifierSettings::load(path)?.socket;
            return Ok(Endpoints { verifier: Some(Endpoint::Unix(socket)), ..Endpoints::default() });
        }
        if any.contains_key("maintain_schedule") {
            let socket = super::MaintainSettings::load(path)?.socket;
            return Ok(Endpoints { maintain: Some(Endpoint::Unix(socket)), ..Endpoints::default() });
        }
        let (file, toml) = File::read::<Self>(path)?;
        let identity = toml.identity(&file)?;
        let parse = |key: &str, text: Option<&String>| {
            text.map(|t| Endpoint::parse_with(&file.endpoint_text(t), identity.clone()))
                .transpose()
                .map_err(|e| file.error(key, "is no endpoint", e.to_string()))
        };
        Ok(Endpoints {
            serve: parse("serve", toml.serve.as_ref())?,
            verifier: parse("verifier", toml.verifier.as_ref())?,
            maintain: parse("maintain", toml.maintain.as_ref())?,
        })
    }

    /// Whether the file only says where the daemons are.
    pub fn is(path: &Path) -> bool {
        path.is_file() && File::read::<Self>(path).is_ok()
    }

    fn identity(&self, file: &File) -> Result<Option<TlsIdentity>, SettingsError> {
        let (Some(ca), Some(cert), Some(key)) = (&self.ca, &self.cert, &self.key) else { return Ok(None) };
        let read = |name: &str, path: &Path| {
            std::fs::read(file.path(path))
                .map_err(|e| file.error(name, format!("cannot be read ({})", e.kind()), "name a readable PEM file"))
        };
        Ok(Some(TlsIdentity {
            ca_pem: read("ca", ca)?,
            cert_pem: read("cert", cert)?,
            key_pem: read("key", key)?.into(),
        }))
    }
}
