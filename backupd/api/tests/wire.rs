//! Framing under hostile and careless peers, and mutual TLS.

use backupd_api::{
    Client, ClientError, Endpoint, EndpointError, Event, Failure, FailureKind, Listener, Peer, Phase, Progress,
    Request, TlsIdentity, WireError,
};
use std::path::Path;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

fn progress(done: u64) -> Progress {
    Progress { phase: Phase::Send, done_bytes: done, total_bytes: None, store: None }
}

/// Serves connections as a daemon does: two reports of progress, then an answer or a refusal.
async fn serve(listener: Listener) {
    while let Ok(incoming) = listener.accept().await {
        tokio::spawn(async move {
            let mut connection = incoming.greet().await?;
            while let Some(request) = connection.recv().await? {
                connection.send(&Event::Progress(progress(1))).await?;
                connection.send(&Event::Progress(progress(2))).await?;
                match request {
                    Request::Snapshots => connection.send(&Event::Snapshots { snapshots: Vec::new() }).await?,
                    _ => connection.refuse(FailureKind::WrongDaemon, "ask the verifier").await?,
                }
            }
            Ok::<_, WireError>(())
        });
    }
}

async fn raw(path: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(path).await.unwrap();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn several_requests_on_one_connection_each_with_progress() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    tokio::spawn(serve(Listener::bind_unix(&path).unwrap()));
    let mut client = Client::connect(&Endpoint::Unix(path)).await.unwrap();
    for _ in 0..2 {
        let mut seen = Vec::new();
        let answer = client.request(&Request::Snapshots, |p| seen.push(p.done_bytes)).await.unwrap();
        assert!(matches!(answer, Event::Snapshots { .. }));
        assert_eq!(seen, [1, 2]);
    }
    let refused = client.request(&Request::Reports, |_| ()).await.unwrap_err();
    assert!(matches!(refused, ClientError::Failed(Failure { kind: FailureKind::WrongDaemon, .. })));
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    tokio::spawn(serve(Listener::bind_unix(&path).unwrap()));
    let hello = b"{\"protocol\":1}\n";
    let mut long = hello.to_vec();
    long.resize(backupd_api::LINE_BYTES_MAX + 100, b'x');
    let cases: [&[u8]; 7] = [
        b"",
        b"\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"\xff\xfe\x00\n",
        b"{\"protocol\":1}\n{\"ask\":\"drill\",\"store\":null,\"extra\":1}\n",
        b"{\"protocol\":1}\n{\"ask\":\"no-such-thing\"}\n",
        &long,
    ];
    for case in cases {
        let answer = raw(&path, case).await;
        let lines = answer.split(|b| *b == b'\n').filter(|l| !l.is_empty()).count();
        // A peer that is cut off in the middle of a line may lose the hello as well.
        assert!(lines <= 1, "more than the hello was answered to {:?}", &case[..case.len().min(60)]);
    }
    Client::connect(&Endpoint::Unix(path)).await.expect("the daemon goes on");
}

#[tokio::test]
async fn another_version_is_refused_by_number() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"{\"protocol\":999}\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let Err(error) = Client::connect(&Endpoint::Unix(path)).await else { panic!("connected") };
    assert!(matches!(error, ClientError::Protocol(999)), "{error}");
}

#[tokio::test]
async fn a_dead_daemons_socket_file_is_replaced_but_no_other_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(Listener::bind_unix(&path).unwrap());
    assert!(!path.exists(), "a listener removes its socket");
    std::fs::write(&path, "precious").unwrap();
    assert!(Listener::bind_unix(&path).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
    let long = dir.path().join("x".repeat(120));
    assert!(matches!(Listener::bind_unix(&long), Err(WireError::PathTooLong(_))));
}

#[test]
fn endpoints_are_parsed_or_explained() {
    assert!(matches!(Endpoint::parse("unix:/run/x"), Ok(Endpoint::Unix(_))));
    for bad in ["", "unix:", "unix:x", "tls://", "tls://host", "tls://:1", "tls://h:99999", "http://h:1"] {
        assert!(matches!(Endpoint::parse(bad), Err(EndpointError::Form)), "{bad}");
    }
    assert!(matches!(Endpoint::parse("tls://host:1"), Err(EndpointError::Identity)));
}

struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    fn identity(&self, ca_pem: &str) -> TlsIdentity {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        TlsIdentity {
            ca_pem: ca_pem.as_bytes().to_vec(),
            cert_pem: certificate.pem().into_bytes(),
            key_pem: key.serialize_pem().into_bytes().into(),
        }
    }
}

#[tokio::test]
async fn mutual_tls_admits_only_the_practices_certificates() {
    let ours = Authority::new();
    let other = Authority::new();
    let daemon = ours.identity(&ours.pem);
    let listener =
        Listener::bind_tls("127.0.0.1:0".parse().unwrap(), &daemon.cert_pem, &daemon.key_pem, &daemon.ca_pem)
            .await
            .unwrap();
    let url = format!("tls://127.0.0.1:{}", listener.local_addr().unwrap().port());
    let seen = tokio::spawn(async move {
        let mut peers = Vec::new();
        for _ in 0..3 {
            if let Ok(mut connection) = listener.accept().await.unwrap().greet().await {
                assert!(connection.admitted(&[]));
                peers.push(connection.peer().clone());
                let _ = connection.recv().await;
                connection.send(&Event::Approved).await.unwrap();
            }
        }
        peers
    });
    let ask = async |identity| {
        let endpoint = Endpoint::parse_with(&url, Some(identity)).unwrap();
        Client::connect(&endpoint).await?.request(&Request::Status, |_| ()).await
    };
    assert!(matches!(ask(ours.identity(&ours.pem)).await, Ok(Event::Approved)));
    assert!(ask(other.identity(&ours.pem)).await.is_err(), "a stranger's certificate was admitted");
    assert!(ask(ours.identity(&other.pem)).await.is_err(), "the client trusted a stranger");
    let peers = seen.await.unwrap();
    assert!(matches!(peers.as_slice(), [Peer::Certificate { der }] if !der.is_empty()));
}
