//! The client's half.

use crate::wire::{HELLO_TIMEOUT, Lines, certificates, private_key, roots};
use crate::{Event, Failure, PROTOCOL, Progress, Request, WireError};
use rustls::pki_types::ServerName;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

/// A daemon at work repeats its progress every [`PROGRESS_EVERY`]; this long without a line means that it is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// How often a daemon at work shows that it lives.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(10);

/// Where a daemon listens.
#[derive(Clone)]
pub enum Endpoint {
    Unix(PathBuf),
    Tls {
        /// `host:port`.
        addr: String,
        /// The name that the daemon's certificate must carry.
        server_name: String,
        identity: TlsIdentity,
    },
}

/// PEM texts with which a client proves itself and checks the daemon.
#[derive(Clone)]
pub struct TlsIdentity {
    pub ca_pem: Vec<u8>,
    pub cert_pem: Vec<u8>,
    pub key_pem: Zeroizing<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("an endpoint is `unix:/absolute/path` or `tls://host:port`")]
    Form,
    #[error("a `tls://` endpoint needs `ca`, `cert` and `key`: a certificate that the practice's authority signed")]
    Identity,
}

impl Endpoint {
    /// Parses `unix:/path`; for `tls://host:port` use [`Endpoint::parse_with`].
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        Self::parse_with(text, None)
    }

    /// Parses `unix:/path` or `tls://host:port`, the latter with the client's certificate.
    pub fn parse_with(text: &str, identity: Option<TlsIdentity>) -> Result<Self, EndpointError> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(EndpointError::Form) };
        }
        let addr = text.strip_prefix("tls://").ok_or(EndpointError::Form)?;
        let (host, port) = addr.rsplit_once(':').ok_or(EndpointError::Form)?;
        let server_name = host.trim_matches(['[', ']']);
        if server_name.is_empty() || port.parse::<u16>().is_err() {
            return Err(EndpointError::Form);
        }
        let identity = identity.ok_or(EndpointError::Identity)?;
        Ok(Self::Tls { addr: addr.to_owned(), server_name: server_name.to_owned(), identity })
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls { addr, .. } => write!(f, "tls://{addr}"),
        }
    }
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("{endpoint} does not answer ({kind}): is the daemon running?")]
    Connect { endpoint: String, kind: io::ErrorKind },
    #[error("{endpoint} cannot be asked: {reason}")]
    Handshake { endpoint: String, reason: String },
    #[error(
        "the daemon speaks version {0} of the messages, this program {PROTOCOL}: install the same release on both sides"
    )]
    Protocol(u32),
    #[error("the daemon closed the connection before it answered")]
    Closed,
    #[error("the daemon does not answer: is it stopped, or the machine overloaded?")]
    Timeout,
    #[error("the daemon's answer could not be understood: install the same release on both sides")]
    Malformed,
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl From<WireError> for ClientError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Protocol(version) => Self::Protocol(version),
            WireError::Timeout => Self::Timeout,
            WireError::Malformed | WireError::TooLong => Self::Malformed,
            _ => Self::Closed,
        }
    }
}

/// A connection to a daemon. Requests are asked one after the other.
pub struct Client {
    lines: Lines,
}

impl Client {
    /// Connects and exchanges hellos.
    pub async fn connect(endpoint: &Endpoint) -> Result<Self, ClientError> {
        let mut lines = match endpoint {
            Endpoint::Unix(path) => {
                let stream = within(endpoint, UnixStream::connect(path)).await?;
                let server = stream.peer_cred().map_err(|e| handshake(endpoint, &e.kind()))?.uid();
                local_socket::check_server(path, server).map_err(|e| handshake(endpoint, &e))?;
                Lines::new(stream)
            }
            Endpoint::Tls { addr, server_name, identity } => {
                let config = tls_config(identity).map_err(|e| handshake(endpoint, &e))?;
                let name = ServerName::try_from(server_name.clone()).map_err(|e| handshake(endpoint, &e))?;
                let tcp = within(endpoint, TcpStream::connect(addr)).await?;
                let tls = tokio::time::timeout(HELLO_TIMEOUT, TlsConnector::from(config).connect(name, tcp));
                Lines::new(tls.await.map_err(|_| ClientError::Timeout)?.map_err(|e| handshake(endpoint, &e))?)
            }
        };
        lines.greet().await.map_err(|e| match e {
            WireError::Closed | WireError::Io(_) => handshake(endpoint, &"it closed the connection at the hello"),
            other => other.into(),
        })?;
        Ok(Self { lines })
    }

    /// Sends one request and waits for its answer; `progress` sees every report on the way. A failure that the daemon
    /// reports comes back as [`ClientError::Failed`].
    pub async fn request(
        &mut self,
        request: &Request,
        mut progress: impl FnMut(Progress),
    ) -> Result<Event, ClientError> {
        self.lines.send(request).await?;
        self.next(&mut progress).await
    }

    async fn next(&mut self, mut progress: impl FnMut(Progress)) -> Result<Event, ClientError> {
        loop {
            let line = tokio::time::timeout(SILENCE_MAX, self.lines.recv()).await.map_err(|_| ClientError::Timeout)?;
            match line?.ok_or(ClientError::Closed)? {
                Event::Progress(report) => progress(report),
                Event::Failed(failure) => return Err(failure.into()),
                event => return Ok(event),
            }
        }
    }
}

impl Client {
    /// Asks for a file that is lent and hands its pieces (base64) over as they come; `piece` says whether it wants more.
    ///
    /// # Errors
    /// [`ClientError::Closed`] when `piece` wanted no more.
    pub async fn borrow(&mut self, request: &Request, mut piece: impl FnMut(&str) -> bool) -> Result<(), ClientError> {
        let mut event = self.request(request, |_| ()).await?;
        loop {
            let Event::Lent { base64, last } = event else { return Err(ClientError::Malformed) };
            if !piece(&base64) {
                return Err(ClientError::Closed);
            }
            if last {
                return Ok(());
            }
            event = self.next(|_| ()).await?;
        }
    }
}

async fn within<T>(endpoint: &Endpoint, connect: impl Future<Output = io::Result<T>>) -> Result<T, ClientError> {
    let failed = |kind| ClientError::Connect { endpoint: endpoint.to_string(), kind };
    match tokio::time::timeout(HELLO_TIMEOUT, connect).await {
        Ok(stream) => stream.map_err(|e| failed(e.kind())),
        Err(_) => Err(failed(io::ErrorKind::TimedOut)),
    }
}

fn handshake(endpoint: &Endpoint, reason: &dyn std::fmt::Display) -> ClientError {
    ClientError::Handshake { endpoint: endpoint.to_string(), reason: reason.to_string() }
}

fn tls_config(identity: &TlsIdentity) -> Result<Arc<rustls::ClientConfig>, WireError> {
    let tls = |e: rustls::Error| WireError::Tls(e.to_string());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(tls)?
        .with_root_certificates(roots(&identity.ca_pem)?)
        .with_client_auth_cert(certificates(&identity.cert_pem)?, private_key(&identity.key_pem)?)
        .map_err(tls)?;
    Ok(Arc::new(config))
}
