//! The sockets of a daemon.

use crate::settings::TlsListen;
use anyhow::Context;
use backupd_api::{ACCESS_REFUSED, Connection, FailureKind, Incoming, Listener, WireError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Clients at one time; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// After a failed `accept` (no descriptors left) the loop waits, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often it is looked whether the socket file is still there.
pub const SOCKET_LOOK_EVERY: Duration = Duration::from_secs(5);

/// Binds the Unix socket, and the TLS listener when there is one. Makes the socket's folder.
pub async fn bind(socket: &Path, tls: Option<&TlsListen>) -> anyhow::Result<Vec<Listener>> {
    make_run_dir(socket)?;
    let unix =
        Listener::bind_unix(socket).with_context(|| format!("`socket` {} cannot be listened on", socket.display()))?;
    let mut listeners = vec![unix];
    if let Some((tls, listen)) = tls.and_then(|tls| Some((tls, tls.listen?))) {
        let read = |key: &str, path: &Path| {
            std::fs::read(path).with_context(|| format!("`tls.{key}` {} cannot be read", path.display()))
        };
        let (cert, key, ca) = (read("cert", &tls.cert)?, read("key", &tls.key)?, read("ca", &tls.ca)?);
        let listener = Listener::bind_tls(listen, &cert, &key, &ca)
            .await
            .with_context(|| format!("`tls.listen` {listen} cannot be listened on"))?;
        listeners.push(listener);
    }
    Ok(listeners)
}

/// The folder of a socket, made when absent, and nobody else's.
pub fn make_run_dir(socket: &Path) -> anyhow::Result<()> {
    let dir = socket.parent().unwrap_or(Path::new("/"));
    local_socket::prepare_folder(socket).with_context(|| format!("no socket can be in the folder {}", dir.display()))
}

/// Greets every client in a task of its own and hands those over that may ask.
pub async fn accept<F>(
    mut listener: Listener,
    allowed_uids: Vec<u32>,
    serve: impl Fn(Connection) -> F + Send + Sync + 'static,
) where
    F: Future<Output = Result<(), WireError>> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let serve = Arc::new(serve);
    let allowed = Arc::new(allowed_uids);
    let mut clients = tokio::task::JoinSet::new();
    let mut lost = false;
    while let Ok(slot) = slots.clone().acquire_owned().await {
        let Ok(accepted) = tokio::time::timeout(SOCKET_LOOK_EVERY, listener.accept()).await else {
            match listener.renew_if_lost() {
                Ok(renewed) => {
                    if renewed {
                        log::warn!("socket.renewed");
                    }
                    lost = false;
                }
                // It is tried again and again, and said once.
                Err(error) if !lost => {
                    log::error!(reason:% = error; "socket.lost");
                    lost = true;
                }
                Err(_) => {}
            }
            continue;
        };
        match accepted {
            Ok(incoming) => {
                let (serve, allowed) = (serve.clone(), allowed.clone());
                clients.spawn(async move {
                    let _slot = slot;
                    if let Some(connection) = admit(incoming, &allowed).await
                        && let Err(error) = serve(connection).await
                    {
                        log::debug!(reason:% = error; "client.lost");
                    }
                });
            }
            Err(error) => {
                log::warn!(reason:% = error; "client.accept-failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while clients.try_join_next().is_some() {}
    }
}

async fn admit(incoming: Incoming, allowed_uids: &[u32]) -> Option<Connection> {
    let mut connection = match incoming.greet().await {
        Ok(connection) => connection,
        Err(error) => {
            log::debug!(reason:% = error; "client.not-greeted");
            return None;
        }
    };
    if connection.admitted(allowed_uids) {
        return Some(connection);
    }
    log::warn!("client.refused");
    // The refusal answers the first request; a client that never asks needs none.
    let first = tokio::time::timeout(Duration::from_secs(10), connection.recv()).await;
    if matches!(first, Ok(Ok(Some(_)))) {
        let _ = connection.refuse(FailureKind::Denied, ACCESS_REFUSED).await;
    }
    None
}
