//! The client half of the operations socket.

use crate::{LINE_BYTES_MAX, PROTOCOL, Refusal, Request, Response};
use futures::{FutureExt, SinkExt, StreamExt};
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio_util::codec::{Framed, LinesCodec};

/// An answer later than this is a stuck appliance.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the EMR's operations socket does not answer: is `appliance serve` running? ({0})")]
    Connect(std::io::ErrorKind),
    #[error("the EMR's operations socket: {0}")]
    Socket(#[from] local_socket::SocketError),
    #[error("the EMR closed the connection in the middle of an answer")]
    Closed,
    #[error("the EMR did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    Timeout,
    #[error("the EMR's answer could not be understood")]
    Malformed,
    #[error("the EMR refused: {0}")]
    Refused(#[from] Refusal),
}

/// One connection to the operations socket. Dropping it thaws a lease that it holds.
pub struct Client {
    lines: Framed<UnixStream, LinesCodec>,
}

impl Client {
    /// Connects and exchanges hellos.
    pub async fn connect(socket: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(socket).await.map_err(|e| ClientError::Connect(e.kind()))?;
        let server = stream.peer_cred().map_err(|e| ClientError::Connect(e.kind()))?.uid();
        local_socket::check_server(socket, server)?;
        let mut client = Self { lines: Framed::new(stream, LinesCodec::new_with_max_length(LINE_BYTES_MAX)) };
        match client.ask(&Request::Hello { protocol: PROTOCOL }).await? {
            Response::Hello { protocol: PROTOCOL, .. } => Ok(client),
            Response::Hello { .. } => Err(Refusal::Protocol.into()),
            _ => Err(ClientError::Malformed),
        }
    }

    /// Whether the appliance still holds the other end: it closes it when a lease times out, and when it ends. Nothing is asked.
    pub fn is_open(&mut self) -> bool {
        // It says nothing unasked.
        self.lines.next().now_or_never().is_none()
    }

    /// Sends one request and waits for its answer; a refusal comes back as an error.
    pub async fn ask(&mut self, request: &Request) -> Result<Response, ClientError> {
        let line = serde_json::to_string(request).map_err(|_| ClientError::Malformed)?;
        self.lines.send(line).await.map_err(|_| ClientError::Closed)?;
        let answer = tokio::time::timeout(ANSWER_TIMEOUT, self.lines.next()).await.map_err(|_| ClientError::Timeout)?;
        let line = answer.ok_or(ClientError::Closed)?.map_err(|_| ClientError::Closed)?;
        match serde_json::from_str(&line).map_err(|_| ClientError::Malformed)? {
            Response::Refused { reason } => Err(reason.into()),
            response => Ok(response),
        }
    }
}
