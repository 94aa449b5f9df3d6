//! `verifier.toml`.

use super::store::{StoreToml, stores};
use super::{File, SettingsError, StoreSetting, TlsListen};
use crate::schedule::Schedule;
use backupd_api::{Endpoint, TlsIdentity};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The checked settings of `backupd verifier`.
#[derive(Debug, Clone)]
pub struct VerifierSettings {
    pub file: PathBuf,
    pub practice: String,
    /// Id of the machine that the verifier runs on.
    pub host: String,
    pub site: String,
    /// `None`: the systemd credential `open`.
    pub open_key: Option<PathBuf>,
    /// `None`: the systemd credential `report`.
    pub report_key: Option<PathBuf>,
    pub state_dir: PathBuf,
    pub socket: PathBuf,
    pub allowed_uids: Vec<u32>,
    /// Users who may see what snapshots there are and borrow the EMR's records of one, and nothing else: that of the EMR.
    pub lend_uids: Vec<u32>,
    pub tls: Option<TlsListen>,
    pub drill: Schedule,
    pub targets: Targets,
    pub sandbox_dir: PathBuf,
    pub probe: Probe,
    /// Whether `backupd serve` runs on the same machine: a report says so.
    pub same_host_as_writer: bool,
    /// Where `backupd serve` listens, `unix:` or `tls://`: reports then name the duties in force.
    serve: Option<String>,
    pub stores: Vec<StoreSetting>,
}

/// What a restore has to meet to pass, milliseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    #[serde(default = "rpo_ms")]
    pub rpo_ms: u64,
    #[serde(default = "rto_ms")]
    pub rto_ms: u64,
}

impl Default for Targets {
    fn default() -> Self {
        Self { rpo_ms: rpo_ms(), rto_ms: rto_ms() }
    }
}

fn rpo_ms() -> u64 {
    15 * 60 * 1000
}

fn rto_ms() -> u64 {
    4 * 60 * 60 * 1000
}

/// How the EMR is started on restored data.
#[derive(Debug, Clone)]
pub enum Probe {
    /// The verifier starts `PROGRAM probe DIR --socket S --isolate` itself.
    Spawn { program: PathBuf },
    /// The service manager starts it when the verifier connects; data stands in `sandbox_dir/restored`. `isolated`:
    /// its unit has no network, which a report then states.
    Socket { path: PathBuf, isolated: bool },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerifierToml {
    practice: String,
    time_zone: String,
    host: String,
    site: String,
    open_key: Option<PathBuf>,
    report_key: Option<PathBuf>,
    state_dir: PathBuf,
    socket: PathBuf,
    #[serde(default)]
    allowed_uids: Vec<u32>,
    #[serde(default)]
    lend_uids: Vec<u32>,
    drill_schedule: String,
    sandbox_dir: PathBuf,
    same_host_as_writer: bool,
    #[serde(default)]
    targets: Targets,
    probe: ProbeToml,
    serve: Option<String>,
    tls: Option<TlsListen>,
    #[serde(default)]
    store: Vec<StoreToml>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeToml {
    mode: ProbeMode,
    program: Option<PathBuf>,
    path: Option<PathBuf>,
    #[serde(default)]
    isolated: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProbeMode {
    Spawn,
    Socket,
}

impl VerifierSettings {
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        let (file, toml) = File::read::<VerifierToml>(path)?;
        let zone = file.zone(&toml.time_zone)?;
        file.label("host", &toml.host)?;
        file.label("site", &toml.site)?;
        let probe = match (toml.probe.mode, toml.probe.program, toml.probe.path) {
            (ProbeMode::Spawn, Some(program), None) => Probe::Spawn { program: file.path(&program) },
            (ProbeMode::Socket, None, Some(path)) => {
                Probe::Socket { path: file.path(&path), isolated: toml.probe.isolated }
            }
            (ProbeMode::Spawn, ..) => {
                return Err(file.error(
                    "probe.program",
                    "mode `spawn` needs `program` and nothing else",
                    "name the appliance's program",
                ));
            }
            (ProbeMode::Socket, ..) => {
                return Err(file.error(
                    "probe.path",
                    "mode `socket` needs `path` and nothing else",
                    "name the probe's socket",
                ));
            }
        };
        if toml.targets.rpo_ms == 0 || toml.targets.rto_ms == 0 {
            return Err(file.error(
                "targets",
                "a target of 0 can never be met",
                "give milliseconds, or leave the key out",
            ));
        }
        let has_tls = toml.tls.is_some();
        let serve = toml.serve.as_deref().map(|text| file.endpoint("serve", text, has_tls)).transpose()?;
        Ok(Self {
            practice: toml.practice,
            host: toml.host,
            site: toml.site,
            open_key: toml.open_key.map(|p| file.path(&p)),
            report_key: toml.report_key.map(|p| file.path(&p)),
            state_dir: file.path(&toml.state_dir),
            socket: file.path(&toml.socket),
            allowed_uids: toml.allowed_uids,
            lend_uids: toml.lend_uids,
            tls: toml.tls.map(|t| t.resolve(&file)),
            drill: file.schedule("drill_schedule", &toml.drill_schedule, zone)?,
            targets: toml.targets,
            sandbox_dir: file.path(&toml.sandbox_dir),
            probe,
            same_host_as_writer: toml.same_host_as_writer,
            serve,
            stores: stores(&file, toml.store)?,
            file: file.path,
        })
    }

    /// How to reach `serve`, with the certificate as it is now. `None`: not set, or the certificate cannot be read.
    pub fn serve(&self) -> Option<Endpoint> {
        let read = |path: &Path| std::fs::read(path).ok();
        let identity = self.tls.as_ref().and_then(|tls| {
            Some(TlsIdentity { ca_pem: read(&tls.ca)?, cert_pem: read(&tls.cert)?, key_pem: read(&tls.key)?.into() })
        });
        Endpoint::parse_with(self.serve.as_deref()?, identity).ok()
    }
}
