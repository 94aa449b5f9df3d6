//! The HTTP/1.1 loop of every daemon: hyper with our limits around an axum router.

use crate::addresses::{Addresses, Entered};
use crate::linger::Lingering;
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use std::convert::Infallible;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

/// After a failed `accept` (no descriptors left) the loop waits, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// More places than this no process has descriptors for.
const CONNECTIONS_MAX: u32 = 1 << 16;

/// What one listener gives to all of its clients together and to each.
#[derive(Debug, Clone)]
pub struct Limits {
    /// From the first byte of a connection, or the end of the last answer, to the end of the next request's head; also for
    /// the TLS handshake.
    pub header_timeout: Duration,
    /// Open connections; further clients wait in the kernel's queue. Below the usual limit of 1024 open files.
    pub connections_max: u32,
    /// Of these, connections of one address, so that one client shuts out no other. For a further one the address's own
    /// connection that waits longest for a request is closed; where all are being answered, the new one is closed at once.
    /// A whole practice may come from one address.
    pub connections_per_address_max: u32,
    /// Header lines of one request.
    pub headers_max: usize,
    /// Bytes buffered for one request's head.
    pub header_bytes_max: usize,
    pub keep_alive: bool,
    /// How long running requests may go on after `shutdown`.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_timeout: Duration::from_secs(10),
            connections_max: 768,
            connections_per_address_max: 256,
            headers_max: 64,
            header_bytes_max: 64 << 10,
            keep_alive: true,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// Serves `router` on `listener` until `shutdown` resolves, then lets running requests end within the drain time.
///
/// Every request carries [`ConnectInfo<SocketAddr>`]. Errors of single connections end only these.
pub async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    router: Router,
    limits: Limits,
    shutdown: impl Future<Output = ()>,
) {
    let (ending, _) = watch::channel(false);
    let places = limits.connections_max.clamp(1, CONNECTIONS_MAX);
    let connections = Arc::new(Semaphore::new(places as usize));
    let addresses = Arc::new(Addresses::default());
    let loop_ = Loop { acceptor: tls.map(TlsAcceptor::from), router, limits: Arc::new(limits) };
    tokio::pin!(shutdown);
    loop {
        let (permit, stream, peer) = tokio::select! {
            () = &mut shutdown => break,
            accepted = next(&listener, &connections) => match accepted {
                Some(accepted) => accepted,
                None => break,
            },
        };
        match addresses.enter(peer.ip(), loop_.limits.connections_per_address_max) {
            Some(entered) => {
                let place = Place { _permit: permit, entered };
                tokio::spawn(loop_.clone().connection(stream, peer, ending.subscribe(), place));
            }
            None => log::debug!("http.address-has-too-many-connections"),
        }
    }
    drop(listener);
    ending.send_replace(true);
    // Every connection gives its place back at its end: all places free means that all have ended.
    let _ = tokio::time::timeout(loop_.limits.drain_timeout, connections.acquire_many(places)).await;
}

/// The next connection with its place under the cap; `None` when the cap's semaphore is closed, which nobody does.
async fn next(
    listener: &TcpListener,
    connections: &Arc<Semaphore>,
) -> Option<(OwnedSemaphorePermit, TcpStream, SocketAddr)> {
    let permit = connections.clone().acquire_owned().await.ok()?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return Some((permit, stream, peer)),
            // The client was gone before we took it.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
            Err(error) => {
                log::warn!(kind:? = error.kind(); "http.accept-failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// What a connection takes: a place among all, and one of its address.
struct Place {
    _permit: OwnedSemaphorePermit,
    entered: Entered,
}

#[derive(Clone)]
struct Loop {
    acceptor: Option<TlsAcceptor>,
    router: Router,
    limits: Arc<Limits>,
}

impl Loop {
    async fn connection(self, stream: TcpStream, peer: SocketAddr, ending: watch::Receiver<bool>, place: Place) {
        // Small answers should leave at once; a refusal changes nothing but speed.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = &self.acceptor else { return self.requests(stream, peer, ending, &place.entered).await };
        let handshake = tokio::time::timeout(self.limits.header_timeout, acceptor.accept(stream));
        let accepted = tokio::select! {
            accepted = handshake => accepted,
            () = place.entered.leave() => return log::debug!("http.idle-connection-made-room"),
        };
        match accepted {
            Ok(Ok(stream)) => self.requests(stream, peer, ending, &place.entered).await,
            Ok(Err(error)) => log::debug!(kind:? = error.kind(); "http.handshake-failed"),
            Err(_) => log::debug!("http.handshake-timeout"),
        }
    }

    async fn requests<S>(&self, stream: S, peer: SocketAddr, mut ending: watch::Receiver<bool>, entered: &Entered)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let service = service_fn(|mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            let turn = entered.turn();
            // A router is always ready: `call` needs no `poll_ready`.
            let answer = self.router.clone().call(request.map(|body| Body::new(Lingering::new(body))));
            async move { Ok::<_, Infallible>(answer.await?.map(|body| turn.until_sent(body))) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_headers(self.limits.headers_max)
            .max_buf_size(self.limits.header_bytes_max.max(8192))
            .keep_alive(self.limits.keep_alive)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let next = tokio::select! {
            ended = &mut connection => Next::Ended(ended),
            // The one change of this value, or the loop's end.
            _ = ending.changed() => Next::Drain,
            () = entered.leave() => Next::Leave,
        };
        let ended = match next {
            Next::Ended(ended) => ended,
            Next::Drain => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            Next::Leave => {
                connection.as_mut().graceful_shutdown();
                match tokio::time::timeout(Duration::ZERO, connection.as_mut()).await {
                    Ok(ended) => ended,
                    // Its request came just now: it is answered before the connection ends.
                    Err(_) if entered.is_busy() => connection.await,
                    Err(_) => return log::debug!("http.idle-connection-made-room"),
                }
            }
        };
        if let Err(error) = ended {
            log::debug!(timeout = error.is_timeout(), parse = error.is_parse(); "http.connection-ended");
        }
    }
}

/// What comes first to a connection.
enum Next {
    Ended(hyper::Result<()>),
    Drain,
    Leave,
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::oneshot;

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    async fn start(limits: Limits) -> (SocketAddr, oneshot::Sender<()>, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }))
            .route(
                "/slow",
                get(|| async {
                    tokio::time::sleep(Duration::from_millis(300)).await;
                    "done"
                }),
            )
            .route("/refused", post(|| async { StatusCode::PAYLOAD_TOO_LARGE }));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, None, router, limits, async {
            let _ = stopped.await;
        }));
        (addr, stop, task)
    }

    async fn ask(addr: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_handler_sees_the_clients_address() {
        let (addr, _stop, _task) = start(Limits::default()).await;
        let answer = ask(addr, REQUEST).await;
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("127.0.0.1"), "{answer}");
    }

    #[tokio::test]
    async fn a_client_that_never_ends_its_header_is_cut_off() {
        let limits = Limits { header_timeout: Duration::from_millis(200), ..Limits::default() };
        let (addr, _stop, _task) = start(limits).await;
        let mut slow = TcpStream::connect(addr).await.unwrap();
        slow.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), slow.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is still open after 5 s");
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn connections_above_the_cap_wait_for_a_place() {
        let limits = Limits { connections_max: 2, ..Limits::default() };
        let (addr, _stop, _task) = start(limits).await;
        let first = TcpStream::connect(addr).await.unwrap();
        let _second = TcpStream::connect(addr).await.unwrap();
        let third = tokio::spawn(ask(addr, REQUEST));
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert!(!third.is_finished(), "a third connection was served beside two open ones");
        drop(first);
        let answer = tokio::time::timeout(Duration::from_secs(5), third).await.unwrap().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// From another address of the loopback range.
    async fn from(address: [u8; 4], to: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from((address, 0))).unwrap();
        socket.connect(to).await.unwrap()
    }

    #[tokio::test]
    async fn one_address_shuts_out_no_other() {
        let limits = Limits { connections_max: 4, connections_per_address_max: 2, ..Limits::default() };
        let (addr, _stop, _task) = start(limits).await;
        let mut greedy = Vec::new();
        for _ in 0..20 {
            greedy.push(from([127, 0, 0, 2], addr).await);
        }
        let answer = tokio::time::timeout(Duration::from_secs(5), ask(addr, REQUEST)).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        // The places that were not taken are free again; the greedy one has its own two and no more.
        let mut closed = 0;
        for mut stream in greedy {
            let ended = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut [0; 1])).await;
            closed += usize::from(ended.is_ok());
        }
        assert_eq!(closed, 18);
    }

    #[tokio::test]
    async fn idle_connections_of_an_address_shut_out_nobody_behind_it() {
        let (addr, _stop, _task) = start(Limits::default()).await;
        let mut idle = Vec::new();
        for _ in 0..256 {
            idle.push(TcpStream::connect(addr).await.unwrap());
        }
        // The first one has been answered since, so it has not waited longest; a begun head is no request yet.
        idle[0].write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        idle[0].read_exact(&mut [0; 12]).await.unwrap();
        idle[1].write_all(b"GET / HT").await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        for _ in 0..3 {
            let answer = tokio::time::timeout(Duration::from_secs(5), ask(addr, REQUEST)).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(5), idle[1].read_to_end(&mut rest)).await;
        assert!(closed.is_ok() && rest.is_empty(), "the one that waited longest is still open");
        let next = tokio::time::timeout(Duration::from_millis(50), idle[2].read(&mut [0; 1])).await;
        assert!(next.is_err(), "more were closed than needed");
    }

    #[tokio::test]
    async fn a_connection_between_two_requests_makes_room_and_one_being_answered_does_not() {
        let limits = Limits { connections_per_address_max: 1, ..Limits::default() };
        let (addr, _stop, _task) = start(limits).await;
        let mut kept = TcpStream::connect(addr).await.unwrap();
        kept.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        kept.read_exact(&mut [0; 12]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let running = tokio::spawn(ask(addr, b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"));
        let closed = tokio::time::timeout(Duration::from_secs(5), kept.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "the idle one is still open");
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut refused = TcpStream::connect(addr).await.unwrap();
        assert!(matches!(refused.read(&mut [0; 1]).await, Ok(0) | Err(_)));
        assert!(running.await.unwrap().ends_with("done"));
    }

    #[tokio::test]
    async fn too_many_headers_are_refused() {
        let (addr, _stop, _task) = start(Limits { headers_max: 8, ..Limits::default() }).await;
        let mut request = b"GET / HTTP/1.1\r\n".to_vec();
        (0..20).for_each(|n| request.extend(format!("x-{n}: 1\r\n").bytes()));
        request.extend(b"\r\n");
        assert!(ask(addr, &request).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn a_client_refused_in_its_upload_reads_why() {
        let (addr, _stop, _task) = start(Limits::default()).await;
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let length = 30 << 20;
        let head =
            format!("POST /refused HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        // The whole body first, as simple clients do: a closed connection would be an error here.
        stream.write_all(&vec![b'x'; length]).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }

    #[tokio::test]
    async fn a_running_request_ends_after_shutdown() {
        let (addr, stop, task) = start(Limits::default()).await;
        let running = tokio::spawn(ask(addr, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
        stop.send(()).unwrap();
        assert!(running.await.unwrap().ends_with("done"));
        task.await.unwrap();
        assert!(TcpStream::connect(addr).await.is_err(), "it still listens");
    }
}
