//! The server loop: bounded connections, bounded header time, an end that lets requests finish.

use crate::bucket::Buckets;
use crate::keys::KeyCheck;
use anyhow::Context;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const CONNECTIONS_MAX: usize = 256;
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How long requests in flight may take after the signal to end.
const GRACE: Duration = Duration::from_secs(10);
/// Pause after a failed accept (out of descriptors), so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub async fn serve(listen: SocketAddr, buckets: Buckets, auth: SimpleAuth) -> anyhow::Result<()> {
    let mut builder = S3ServiceBuilder::new(buckets);
    builder.set_auth(auth);
    builder.set_access(KeyCheck);
    let service = builder.build();
    let mut term = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;
    let mut int = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("--listen {listen}: the address cannot be used; choose a free port"))?;
    let address = listener.local_addr().context("the listener has no address")?;
    say(std::io::stdout(), format_args!("listening on http://{address}"));
    sd_notify::notify(&[sd_notify::NotifyState::Ready]).ok();

    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &permits) => accepted,
            _ = term.recv() => break,
            _ = int.recv() => break,
        };
        match accepted {
            Ok((stream, permit)) => answer(stream, permit, service.clone(), &graceful),
            Err(error) => {
                say(std::io::stderr(), format_args!("accept failed: {error}"));
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
        say(std::io::stderr(), format_args!("some requests did not end within {} s and were cut", GRACE.as_secs()));
    }
    Ok(())
}

/// That its log is full never ends the service.
fn say(mut out: impl Write, line: std::fmt::Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

/// The permit comes first: above the limit, new connections wait in the kernel's queue.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    Ok((stream, permit))
}

fn answer(stream: TcpStream, permit: OwnedSemaphorePermit, service: S3Service, graceful: &GracefulShutdown) {
    stream.set_nodelay(true).ok();
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        // A client that breaks off is no event of ours.
        let _ = connection.await;
        drop(permit);
    });
}
