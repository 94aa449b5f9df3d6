//! The server half of the socket's lines: hello first, then one answer a request.

use appliance_api::{LINE_BYTES_MAX, PROTOCOL, Refusal, Request, Response};
use futures::{SinkExt, StreamExt};
use local_socket::SocketError;
use std::future::Future;
use std::path::Path;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::{Framed, LinesCodec};

/// A connection that says nothing for this long, and holds nothing, is closed.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// How often it is looked whether the socket file is still there.
const SOCKET_LOOK_EVERY: Duration = Duration::from_secs(5);

/// What answers the requests of one connection. Dropped with the connection, and with it what it holds.
pub trait Answering: Send + 'static {
    /// The schema of the data that is open; 0 when it cannot be read.
    fn schema_version(&self) -> u32;
    /// How long the next request may take to come; `None` for the default.
    fn patience(&self) -> Option<Duration>;
    fn answer(&mut self, request: Request) -> impl Future<Output = Result<Response, Refusal>> + Send;
}

/// Binds `path` for this user (and its group), replacing the socket of a process that is gone.
///
/// # Errors
/// As the operating system; `AddrInUse` when a living process listens there, `PermissionDenied` with words when somebody
/// else may have prepared the folder.
pub fn bind(path: &Path) -> std::io::Result<UnixListener> {
    local_socket::prepare_folder(path).map_err(|error| match error {
        SocketError::Folder(kind) => kind.into(),
        refused => std::io::Error::new(std::io::ErrorKind::PermissionDenied, refused),
    })?;
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(std::io::ErrorKind::AddrInUse.into());
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // Who may use the socket is decided by the peer's user; the mode only has to let that peer connect.
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o666))?;
    Ok(listener)
}

/// A socket that somebody removed, as a cleaner of old files does, takes no connection any more: it is bound anew.
/// `lost`: that this cannot be done was said already.
fn renew_if_lost(listener: &mut UnixListener, lost: &mut bool) {
    let Some(path) = listener.local_addr().ok().and_then(|at| at.as_pathname().map(Path::to_owned)) else { return };
    if std::fs::symlink_metadata(&path).is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound) {
        match bind(&path) {
            Ok(renewed) => {
                log::warn!("ops.socket-renewed");
                *listener = renewed;
                *lost = false;
            }
            Err(error) if !*lost => {
                log::error!(reason = error.to_string().as_str(); "ops.socket-lost");
                *lost = true;
            }
            Err(_) => {}
        }
    }
}

/// Accepts connections for ever; each is answered by a fresh `A`.
pub async fn serve<A: Answering>(mut listener: UnixListener, allowed_uids: Vec<u32>, mut fresh: impl FnMut() -> A) {
    let own = rustix::process::geteuid().as_raw();
    let mut lost = false;
    loop {
        let Ok(accepted) = tokio::time::timeout(SOCKET_LOOK_EVERY, listener.accept()).await else {
            renew_if_lost(&mut listener, &mut lost);
            continue;
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                log::warn!(kind = error.kind().to_string().as_str(); "ops.accept-failed");
                // Out of descriptors, most likely: give connections time to end.
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let peer = stream.peer_cred().map(|peer| peer.uid()).ok();
        let allowed = peer.is_some_and(|uid| uid == own || allowed_uids.contains(&uid));
        if !allowed {
            log::warn!(uid = peer.unwrap_or(u32::MAX); "ops.peer-refused");
        }
        tokio::spawn(connection(stream, allowed, fresh()));
    }
}

async fn connection<A: Answering>(stream: UnixStream, allowed: bool, mut answering: A) {
    let mut lines = Framed::new(stream, LinesCodec::new_with_max_length(LINE_BYTES_MAX));
    let mut greeted = false;
    loop {
        let patience = answering.patience().unwrap_or(IDLE_MAX);
        let Ok(Some(Ok(line))) = tokio::time::timeout(patience, lines.next()).await else { return };
        let request = serde_json::from_str::<Request>(&line).map_err(|_| Refusal::Malformed);
        let response = match request {
            _ if !allowed => Err(Refusal::Peer),
            Err(reason) => Err(reason),
            Ok(Request::Hello { protocol: PROTOCOL }) => {
                greeted = true;
                let app_version = env!("CARGO_PKG_VERSION").to_owned();
                Ok(Response::Hello { protocol: PROTOCOL, app_version, schema_version: answering.schema_version() })
            }
            Ok(Request::Hello { .. }) => Err(Refusal::Protocol),
            Ok(_) if !greeted => Err(Refusal::Protocol),
            Ok(request) => {
                // A peer that goes away while a copy is made leaves nothing behind: the end of the line ends the work.
                tokio::select! {
                    response = answering.answer(request) => response,
                    _ = lines.next() => return,
                }
            }
        };
        let response = response.unwrap_or_else(|reason| Response::Refused { reason });
        let Ok(text) = serde_json::to_string(&response) else { return };
        if lines.send(text).await.is_err() || !allowed {
            return;
        }
    }
}
