//! The EMR started on restored data: a process of its own without network, or a unit behind a socket.

use crate::settings::Probe;
use appliance_api::{Client, ClientError};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};

/// A program that has not answered by then did not start.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const RETRY_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("the EMR's program cannot be started ({0})")]
    Spawn(std::io::ErrorKind),
    #[error("the EMR ended before it answered")]
    Ended,
    #[error("the EMR did not answer in time")]
    Timeout,
}

/// A running probe; ended when dropped.
pub struct Started {
    pub client: Client,
    _child: Option<Child>,
    socket: Option<PathBuf>,
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// Starts the EMR on `dir` and waits for its hello. `run_dir` is a short folder for the socket.
pub async fn start(probe: &Probe, dir: &Path, run_dir: &Path) -> Result<Started, ProbeError> {
    match probe {
        Probe::Socket { path, .. } => {
            let client = connect(path, None).await?;
            Ok(Started { client, _child: None, socket: None })
        }
        Probe::Spawn { program } => {
            let socket = run_dir.join(format!("drill-{}.sock", std::process::id()));
            let _ = std::fs::remove_file(&socket);
            let mut child = Command::new(program)
                .arg("probe")
                .arg(dir)
                .arg("--socket")
                .arg(&socket)
                .arg("--isolate")
                .env_clear()
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(|e| ProbeError::Spawn(e.kind()))?;
            let client = connect(&socket, Some(&mut child)).await;
            let started = client.map(|client| Started { client, _child: Some(child), socket: Some(socket.clone()) });
            if started.is_err() {
                let _ = std::fs::remove_file(&socket);
            }
            started
        }
    }
}

async fn connect(socket: &Path, mut child: Option<&mut Child>) -> Result<Client, ProbeError> {
    let connect = async {
        loop {
            match Client::connect(socket).await {
                Ok(client) => return Ok(client),
                // Not listening yet.
                Err(ClientError::Connect(_)) => {}
                Err(error) => {
                    log::warn!(reason:% = error; "probe.not-understood");
                    return Err(ProbeError::Ended);
                }
            }
            if let Some(child) = child.as_deref_mut()
                && !matches!(child.try_wait(), Ok(None))
            {
                return Err(ProbeError::Ended);
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    };
    tokio::time::timeout(START_TIMEOUT, connect).await.map_err(|_| ProbeError::Timeout)?
}

/// The version that the program states with `--version`; `None` for a unit, whose program is not known.
pub async fn version(probe: &Probe) -> Option<String> {
    let Probe::Spawn { program } = probe else { return None };
    let output = Command::new(program).arg("--version").env_clear().stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(10), output).await.ok()?.ok()?;
    String::from_utf8(output.stdout).ok()?.split_whitespace().nth(1).map(str::to_owned)
}
