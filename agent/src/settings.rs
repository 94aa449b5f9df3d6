//! `agent.toml`.

use agent_api::{Label, SensorKind};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Everything that the agent is told. Paths are absolute after [`Settings::load`].
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default = "listen_default")]
    pub listen: SocketAddr,
    /// PEM files; with both the pages are served over TLS.
    pub tls_cert: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// The kernel's host name when absent.
    pub host: Option<Label>,
    pub asset: Option<Label>,
    pub rack: Option<Label>,
    pub unit: Option<Label>,
    /// Whom hands in the data center call; shown on the wall page only.
    pub contact_phone: Option<Phone>,
    /// backupd's read-only health socket.
    pub health_socket: Option<PathBuf>,
    #[serde(default)]
    pub filesystems: Filesystems,
    /// Inventory: a disk's serial number and the bay that it sits in. A listed disk that is not found is an alert.
    #[serde(default)]
    pub disks: BTreeMap<Label, Label>,
    /// Sensors that this host is known to have: each that is then not found is a warning.
    #[serde(default)]
    pub sensors_expected: Vec<SensorKind>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filesystems {
    pub records: Option<PathBuf>,
    pub backup: Option<PathBuf>,
}

/// A telephone number: digits, spaces and `+ ( ) / -`, at most 32 characters.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Phone(String);

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("{0}: cannot be read: {1}. Pass the agent's settings with --config FILE.")]
    Read(PathBuf, std::io::Error),
    #[error("{file}, line {line}: `{key}`: {problem}: correct it or remove it")]
    Parse { file: PathBuf, line: usize, key: String, problem: String },
    #[error("{0}: tls_cert and tls_key belong together: set both or none.")]
    HalfTls(PathBuf),
    #[error(
        "{0}: listen = \"{1}\" is reachable from other machines: set tls_cert and tls_key, or listen on 127.0.0.1."
    )]
    OpenWithoutTls(PathBuf, SocketAddr),
}

impl Settings {
    /// Reads and checks the file; relative paths in it start at the file's folder.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path).map_err(|e| SettingsError::Read(path.to_owned(), e))?;
        let mut settings: Self = toml::from_str(&text).map_err(|error| {
            let wrong = service::settings::Wrong::new(&text, &error);
            let key = wrong.key_or_syntax();
            SettingsError::Parse { file: path.to_owned(), line: wrong.line, key, problem: wrong.problem }
        })?;
        if settings.tls_cert.is_some() != settings.tls_key.is_some() {
            return Err(SettingsError::HalfTls(path.to_owned()));
        }
        if settings.tls_cert.is_none() && !settings.listen.ip().is_loopback() {
            return Err(SettingsError::OpenWithoutTls(path.to_owned(), settings.listen));
        }
        let folder = path.parent().unwrap_or(Path::new("."));
        let paths = [
            &mut settings.tls_cert,
            &mut settings.tls_key,
            &mut settings.health_socket,
            &mut settings.filesystems.records,
            &mut settings.filesystems.backup,
        ];
        for path in paths.into_iter().flatten() {
            *path = folder.join(&path);
        }
        Ok(settings)
    }
}

impl Phone {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Phone {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let fits = (1..=32).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b' ' | b'+' | b'(' | b')' | b'/' | b'-'));
        if fits { Ok(Self(text)) } else { Err("a telephone number has digits, spaces and + ( ) / - only, at most 32") }
    }
}

fn listen_default() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 8445))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.toml");
        std::fs::write(&file, text).unwrap();
        Settings::load(&file)
    }

    #[test]
    fn errors_name_file_key_and_remedy() {
        for (text, key) in
            [("listen = 5", "listen"), ("lisen = 1", "lisen"), ("contact_phone = \"x\"", "contact_phone")]
        {
            let told = load(text).unwrap_err().to_string();
            assert!(told.contains("agent.toml, line 1") && told.contains(&format!("`{key}`")), "{told}");
            assert!(told.contains("correct it"), "{told}");
        }
    }

    #[test]
    fn an_empty_file_listens_on_loopback() {
        assert!(load("").unwrap().listen.ip().is_loopback());
    }

    #[test]
    fn paths_start_at_the_files_folder() {
        let settings = load("health_socket = 'run/health.sock'\n[filesystems]\nrecords = '/srv'\n").unwrap();
        assert!(settings.health_socket.unwrap().is_absolute());
        assert_eq!(settings.filesystems.records.unwrap(), Path::new("/srv"));
    }

    #[test]
    fn refusals_say_what_to_do() {
        for (text, words) in [
            ("rak = 'r7'", "unknown field"),
            ("rack = 'Jane Doe'", "1 to 64 letters"),
            ("contact_phone = 'ask Jane'", "telephone"),
            ("tls_cert = 'a.pem'", "set both or none"),
            ("listen = '0.0.0.0:8445'", "set tls_cert and tls_key"),
        ] {
            let error = load(text).unwrap_err().to_string();
            assert!(error.contains("agent.toml") && error.contains(words), "{text}: {error}");
        }
    }
}
