//! Framing and the server's half: newline-delimited JSON over a Unix socket or mutual TLS.

use crate::{Event, Failure, FailureKind, LINE_BYTES_MAX, PROTOCOL, Request};
use futures::{SinkExt, StreamExt};
use local_socket::SocketError;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use rustls::server::WebPkiClientVerifier;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};

/// What a peer is told that may not use the socket.
pub const ACCESS_REFUSED: &str = "your user may not use this socket: add its uid to `allowed_uids` of the daemon";
/// Both sides have to have said hello within this time.
pub(crate) const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// A Unix socket's path may have this many bytes at most (`sun_path` without its final zero).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// First line of each direction.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hello {
    pub protocol: u32,
}

#[derive(Debug, thiserror::Error)]
pub enum WireError {
    #[error("the connection broke ({0})")]
    Io(io::ErrorKind),
    #[error("the peer closed the connection in the middle of a message")]
    Closed,
    #[error("the peer sent a line of more than {LINE_BYTES_MAX} bytes")]
    TooLong,
    #[error("the peer's message could not be understood")]
    Malformed,
    #[error(
        "the peer speaks version {0} of the messages, this program {PROTOCOL}: install the same release on both sides"
    )]
    Protocol(u32),
    #[error("the peer did not say hello in time")]
    Timeout,
    #[error("the peer showed no certificate of the practice's authority")]
    Certificate,
    #[error("the socket's path has {0} bytes and may have {SOCKET_PATH_BYTES_MAX}: choose a shorter run folder")]
    PathTooLong(usize),
    #[error(transparent)]
    Socket(#[from] SocketError),
    #[error("TLS settings: {0}")]
    Tls(String),
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

impl From<LinesCodecError> for WireError {
    fn from(error: LinesCodecError) -> Self {
        match error {
            LinesCodecError::MaxLineLengthExceeded => Self::TooLong,
            LinesCodecError::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::Malformed,
            LinesCodecError::Io(error) => error.into(),
        }
    }
}

/// Who is at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A process of this machine; the kernel vouches for the user.
    Unix { uid: u32 },
    /// A holder of a certificate that the practice's authority signed (DER).
    Certificate { der: Vec<u8> },
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Lines of JSON in both directions.
pub(crate) struct Lines(Framed<Box<dyn Stream>, LinesCodec>);

impl Lines {
    pub(crate) fn new(stream: impl Stream + 'static) -> Self {
        Self(Framed::new(Box::new(stream), LinesCodec::new_with_max_length(LINE_BYTES_MAX)))
    }

    pub(crate) async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), WireError> {
        let line = serde_json::to_string(message).map_err(|_| WireError::Malformed)?;
        if line.len() > LINE_BYTES_MAX {
            return Err(WireError::TooLong);
        }
        Ok(self.0.send(line).await?)
    }

    /// The next message, or `None` when the peer has closed the connection between two messages.
    pub(crate) async fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, WireError> {
        match self.0.next().await {
            None => Ok(None),
            Some(line) => serde_json::from_str(&line?).map(Some).map_err(|_| WireError::Malformed),
        }
    }

    /// Says hello and waits for the peer's.
    pub(crate) async fn greet(&mut self) -> Result<(), WireError> {
        let greet = async {
            self.send(&Hello { protocol: PROTOCOL }).await?;
            match self.recv::<Hello>().await?.ok_or(WireError::Closed)? {
                Hello { protocol: PROTOCOL } => Ok(()),
                Hello { protocol } => Err(WireError::Protocol(protocol)),
            }
        };
        tokio::time::timeout(HELLO_TIMEOUT, greet).await.map_err(|_| WireError::Timeout)?
    }
}

/// A listening socket of a daemon.
pub struct Listener(Inner);

enum Inner {
    Unix { listener: UnixListener, path: PathBuf },
    Tls { listener: TcpListener, acceptor: TlsAcceptor },
}

impl Listener {
    /// Listens on a Unix socket. A socket file that a dead daemon left is replaced; a living one keeps its own. Every user may connect (mode 0666); who may *ask* is decided by [`Peer::Unix`].
    pub fn bind_unix(path: &Path) -> Result<Self, WireError> {
        let bytes = path.as_os_str().len();
        if bytes > SOCKET_PATH_BYTES_MAX {
            return Err(WireError::PathTooLong(bytes));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(std::io::Error::from(std::io::ErrorKind::AddrInUse).into());
        }
        if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
            std::fs::remove_file(path)?;
        }
        let listener = unix_listener(path)?;
        Ok(Self(Inner::Unix { listener, path: path.to_owned() }))
    }

    /// A socket file that somebody removed, as a cleaner of old files does, takes no connection any more: it is bound anew.
    /// Whether that was so.
    pub fn renew_if_lost(&mut self) -> Result<bool, WireError> {
        let Inner::Unix { listener, path } = &mut self.0 else { return Ok(false) };
        if !std::fs::symlink_metadata(&*path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
            return Ok(false);
        }
        // The folder may be gone as well, and may meanwhile be somebody else's.
        local_socket::prepare_folder(path)?;
        *listener = unix_listener(path)?;
        Ok(true)
    }

    /// Listens for mutual TLS: a client must show a certificate that `ca_pem` signed.
    pub async fn bind_tls(addr: SocketAddr, cert_pem: &[u8], key_pem: &[u8], ca_pem: &[u8]) -> Result<Self, WireError> {
        let tls = |e: &dyn std::fmt::Display| WireError::Tls(e.to_string());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca_pem)?), provider.clone())
            .build()
            .map_err(|e| tls(&e))?;
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(cert_pem)?, private_key(key_pem)?)
            .map_err(|e| tls(&e))?;
        let listener = TcpListener::bind(addr).await?;
        Ok(Self(Inner::Tls { listener, acceptor: TlsAcceptor::from(Arc::new(config)) }))
    }

    /// Where a TLS listener listens (port 0 was replaced by a free one); `None` for a Unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.0 {
            Inner::Unix { .. } => None,
            Inner::Tls { listener, .. } => listener.local_addr().ok(),
        }
    }

    /// The next connection; it has still to be greeted, in a task of its own, so that a slow peer delays nobody.
    pub async fn accept(&self) -> Result<Incoming, WireError> {
        Ok(match &self.0 {
            Inner::Unix { listener, .. } => Incoming::Unix(listener.accept().await?.0),
            Inner::Tls { listener, acceptor } => Incoming::Tls(listener.accept().await?.0, acceptor.clone()),
        })
    }
}

fn unix_listener(path: &Path) -> Result<UnixListener, WireError> {
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Inner::Unix { path, .. } = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// An accepted connection before its greeting.
pub enum Incoming {
    Unix(UnixStream),
    Tls(TcpStream, TlsAcceptor),
}

impl Incoming {
    /// TLS handshake where there is one, then hello both ways.
    pub async fn greet(self) -> Result<Connection, WireError> {
        let (mut lines, peer) = match self {
            Self::Unix(stream) => {
                let uid = stream.peer_cred()?.uid();
                (Lines::new(stream), Peer::Unix { uid })
            }
            Self::Tls(stream, acceptor) => {
                let handshake = tokio::time::timeout(HELLO_TIMEOUT, acceptor.accept(stream));
                let stream = handshake.await.map_err(|_| WireError::Timeout)??;
                let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
                let der = chain.first().ok_or(WireError::Certificate)?.to_vec();
                (Lines::new(stream), Peer::Certificate { der })
            }
        };
        lines.greet().await?;
        Ok(Connection { lines, peer })
    }
}

/// A greeted connection, seen from the daemon.
pub struct Connection {
    lines: Lines,
    peer: Peer,
}

impl Connection {
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Whether the peer may ask at all: a user of the list, the daemon's own user, or a holder of a certificate.
    pub fn admitted(&self, allowed_uids: &[u32]) -> bool {
        match self.peer {
            Peer::Unix { uid } => uid == rustix::process::geteuid().as_raw() || allowed_uids.contains(&uid),
            Peer::Certificate { .. } => true,
        }
    }

    /// The next request; `None` when the client has gone.
    pub async fn recv(&mut self) -> Result<Option<Request>, WireError> {
        self.lines.recv().await
    }

    pub async fn send(&mut self, event: &Event) -> Result<(), WireError> {
        self.lines.send(event).await
    }

    /// Answers with [`Event::Failed`].
    pub async fn refuse(&mut self, kind: FailureKind, message: impl Into<String>) -> Result<(), WireError> {
        self.send(&Event::Failed(Failure { kind, message: message.into() })).await
    }
}

pub(crate) fn roots(ca_pem: &[u8]) -> Result<rustls::RootCertStore, WireError> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in certificates(ca_pem)? {
        roots.add(certificate).map_err(|e| WireError::Tls(e.to_string()))?;
    }
    Ok(roots)
}

pub(crate) fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, WireError> {
    let list: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match list {
        Ok(list) if !list.is_empty() => Ok(list),
        _ => Err(WireError::Tls("a certificate file holds no PEM certificate".to_owned())),
    }
}

pub(crate) fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, WireError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| WireError::Tls("a key file holds no PEM private key".to_owned()))
}
