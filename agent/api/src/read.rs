//! Reading backupd's health socket.

use crate::BackupHealth;
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

/// More than this is not a health message.
pub const HEALTH_BYTES_MAX: u64 = 256 << 10;

#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("backupd's health socket does not answer ({0})")]
    Connect(std::io::ErrorKind),
    #[error("backupd's health socket: {0}")]
    Socket(#[from] local_socket::SocketError),
    #[error("backupd's health socket did not finish its answer in time")]
    Timeout,
    #[error("backupd's health message could not be understood: install the same release on both sides")]
    Malformed,
}

/// Reads one message: connect, read to the end, parse.
pub async fn read_backup_health(socket: &Path, timeout: Duration) -> Result<BackupHealth, ReadError> {
    let read = async {
        let stream = UnixStream::connect(socket).await.map_err(|e| ReadError::Connect(e.kind()))?;
        let server = stream.peer_cred().map_err(|e| ReadError::Connect(e.kind()))?.uid();
        local_socket::check_server(socket, server)?;
        let mut bytes = Vec::new();
        stream.take(HEALTH_BYTES_MAX).read_to_end(&mut bytes).await.map_err(|e| ReadError::Connect(e.kind()))?;
        serde_json::from_slice(&bytes).map_err(|_| ReadError::Malformed)
    };
    tokio::time::timeout(timeout, read).await.map_err(|_| ReadError::Timeout)?
}
