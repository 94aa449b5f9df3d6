//! The console's view of the other programs: a connection for each question, and the last known answers.

use crate::settings::{DaemonAddress, Settings, SettingsError};
use agent_api::HostHealth;
use backupd_api::{
    Client, ClientError, Duty, Endpoint, Event, MaintainStatus, Progress, ReportRow, Request, ScheduledJob,
    SnapshotRow, Status, TlsIdentity, VerifierStatus,
};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use zeroize::Zeroizing;

/// A question for a page or a look; backups and drills have no limit besides the client's own.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    Serve,
    Verifier,
    Maintain,
}

pub struct Daemons {
    serve: Endpoint,
    verifier: Endpoint,
    maintain: Option<Endpoint>,
}

impl Daemons {
    pub fn new(settings: &Settings, file: &Path) -> Result<Self, SettingsError> {
        let maintain = settings.maintain.as_ref().map(|address| endpoint(address, file)).transpose()?;
        let (serve, verifier) = (endpoint(&settings.serve, file)?, endpoint(&settings.verifier, file)?);
        Ok(Self { serve, verifier, maintain })
    }

    /// Asks a short question.
    pub async fn ask(&self, daemon: Daemon, request: &Request) -> Result<Event, ClientError> {
        let ask = self.run(daemon, request, |_| {});
        tokio::time::timeout(QUESTION_TIMEOUT, ask).await.map_err(|_| ClientError::Timeout)?
    }

    /// Starts something long and follows it to its end.
    pub async fn run(
        &self,
        daemon: Daemon,
        request: &Request,
        progress: impl FnMut(Progress),
    ) -> Result<Event, ClientError> {
        let endpoint = match daemon {
            Daemon::Serve => &self.serve,
            Daemon::Verifier => &self.verifier,
            Daemon::Maintain => self.maintain.as_ref().ok_or(ClientError::Closed)?,
        };
        Client::connect(endpoint).await?.request(request, progress).await
    }
}

/// Why a question was not answered. The client's own words for a timeout name the limit of long requests, not ours.
pub fn reason(error: &ClientError) -> String {
    match error {
        ClientError::Timeout => "it did not answer in time".to_owned(),
        other => other.to_string(),
    }
}

fn endpoint(address: &DaemonAddress, file: &Path) -> Result<Endpoint, SettingsError> {
    match address {
        DaemonAddress::Unix(path) => Ok(Endpoint::Unix(path.clone())),
        DaemonAddress::Tls { host, port, ca, cert, key } => {
            let read = |name: &str, path: &Path| {
                std::fs::read(path).map_err(|e| SettingsError {
                    file: file.display().to_string(),
                    key: name.into(),
                    problem: format!("cannot be read ({})", e.kind()),
                    remedy: "name a PEM file that the console's user may read".into(),
                })
            };
            let addr = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
            let identity = TlsIdentity {
                ca_pem: read("ca", ca)?,
                cert_pem: read("cert", cert)?,
                key_pem: Zeroizing::new(read("key", key)?),
            };
            Ok(Endpoint::Tls { addr, server_name: host.clone(), identity })
        }
    }
}

/// The last answer of a daemon, and whether it answers now.
#[derive(Debug)]
pub struct Seen<T> {
    /// When it was asked last, Unix milliseconds, and what it said.
    pub last: Option<(i64, Arc<T>)>,
    /// Set while it does not answer.
    pub silent: Option<Silence>,
}

impl<T> Clone for Seen<T> {
    fn clone(&self) -> Self {
        Self { last: self.last.clone(), silent: self.silent.clone() }
    }
}

impl<T> Default for Seen<T> {
    fn default() -> Self {
        Self { last: None, silent: None }
    }
}

#[derive(Debug, Clone)]
pub struct Silence {
    pub since_ms: i64,
    /// Looks in a row without an answer.
    pub looks: u32,
    pub reason: String,
}

impl<T> Seen<T> {
    pub fn answered(&mut self, now_ms: i64, answer: T) {
        *self = Self { last: Some((now_ms, Arc::new(answer))), silent: None };
    }

    pub fn failed(&mut self, now_ms: i64, reason: String) {
        let before = self.silent.take();
        let (since_ms, looks) = before.map_or((now_ms, 0), |silence| (silence.since_ms, silence.looks));
        self.silent = Some(Silence { since_ms, looks: looks + 1, reason });
    }

    pub fn value(&self) -> Option<&T> {
        self.last.as_ref().map(|(_, value)| value.as_ref())
    }
}

#[derive(Debug)]
pub struct ServeView {
    pub status: Status,
    pub duties: Vec<Duty>,
    pub duties_sha256: String,
    pub jobs: Vec<ScheduledJob>,
}

#[derive(Debug)]
pub struct VerifierView {
    pub status: VerifierStatus,
    pub reports: Vec<ReportRow>,
}

/// Everything that was last known.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    pub serve: Seen<ServeView>,
    pub verifier: Seen<VerifierView>,
    pub maintain: Seen<MaintainStatus>,
    pub snapshots: Seen<Vec<SnapshotRow>>,
    /// In the settings' order, with the name by which an agent is known to alerts.
    pub agents: Vec<(String, Seen<HostHealth>)>,
}

#[derive(Default)]
pub struct Pictures(RwLock<Picture>);

impl Pictures {
    pub fn new(agents: Vec<String>) -> Self {
        let agents = agents.into_iter().map(|name| (name, Seen::default())).collect();
        Self(RwLock::new(Picture { agents, ..Picture::default() }))
    }

    /// A copy; the answers themselves are shared.
    pub fn now(&self) -> Picture {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn change<T>(&self, change: impl FnOnce(&mut Picture) -> T) -> T {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Reads everything that the posture page needs from `serve`.
pub async fn look_at_serve(daemons: &Daemons) -> Result<ServeView, ClientError> {
    let Event::Status(status) = daemons.ask(Daemon::Serve, &Request::Status).await? else {
        return Err(ClientError::Malformed);
    };
    let Event::Duties { duties, sha256 } = daemons.ask(Daemon::Serve, &Request::Duties).await? else {
        return Err(ClientError::Malformed);
    };
    let Event::Schedule { jobs } = daemons.ask(Daemon::Serve, &Request::Schedule).await? else {
        return Err(ClientError::Malformed);
    };
    Ok(ServeView { status: *status, duties, duties_sha256: sha256, jobs })
}

pub async fn look_at_verifier(daemons: &Daemons) -> Result<VerifierView, ClientError> {
    let Event::VerifierStatus(status) = daemons.ask(Daemon::Verifier, &Request::VerifierStatus).await? else {
        return Err(ClientError::Malformed);
    };
    let Event::Reports { mut reports } = daemons.ask(Daemon::Verifier, &Request::Reports).await? else {
        return Err(ClientError::Malformed);
    };
    // Newest first by the log, which only grows: the time in a report is that of a clock that may have been wrong, and a
    // report from the future must not hide the drills after it.
    reports.sort_by_key(|report| std::cmp::Reverse(report.log_index));
    Ok(VerifierView { status, reports })
}

pub async fn look_at_maintain(daemons: &Daemons) -> Result<MaintainStatus, ClientError> {
    match daemons.ask(Daemon::Maintain, &Request::MaintainStatus).await? {
        Event::MaintainStatus(status) => Ok(status),
        _ => Err(ClientError::Malformed),
    }
}

/// Newest first as `serve` orders them, by their links and not by their times.
pub async fn look_at_snapshots(daemons: &Daemons) -> Result<Vec<SnapshotRow>, ClientError> {
    let Event::Snapshots { snapshots } = daemons.ask(Daemon::Serve, &Request::Snapshots).await? else {
        return Err(ClientError::Malformed);
    };
    Ok(snapshots)
}

/// More than this is no health message.
const HOST_HEALTH_BYTES_MAX: usize = 1 << 20;

pub async fn look_at_agent(client: &reqwest::Client, url: &reqwest::Url) -> Result<HostHealth, String> {
    let url = url.join("/health.json").map_err(|_| "its address cannot be used".to_owned())?;
    let mut answer = client.get(url).send().await.map_err(|e| crate::fetch::reason(&e))?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status().as_u16()));
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|e| crate::fetch::reason(&e))? {
        body.extend_from_slice(&part);
        if body.len() > HOST_HEALTH_BYTES_MAX {
            return Err("its answer is too long".to_owned());
        }
    }
    serde_json::from_slice(&body).map_err(|_| "its answer could not be understood: install the same release".to_owned())
}
