//! Alerts from a daemon's words to a mail and a webhook that arrive, and the heartbeat.
//!
//! The daemon here is a fake on the real wire. Its faults: it names an alert, it stops naming it, it stops answering.
//! The mail server speaks SMTP over a socket; the web server can answer 500.

use crate::alerts::deliver;
use crate::alerts::state;
use crate::poll;
use crate::roles::Role;
use crate::testing::{Console, text};
use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::any;
use backupd_api::{Alert, AlertKind, Connection, Event, Listener, Request, Severity, Status};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const SECRET: &str = "a webhook secret of the test";

pub fn status() -> Status {
    Status {
        practice: "Harbor Street Practice".into(),
        repository: "r1".into(),
        now_unix_ms: 1,
        started_unix_ms: 1,
        last_snapshot: None,
        last_durable: None,
        last_durable_unix_ms: None,
        stores: Vec::new(),
        sites_apart: 0,
        quorum_needed: 2,
        spool: None,
        running: None,
        next_snapshot_unix_ms: None,
        paused: None,
        alerts: Vec::new(),
    }
}

/// Answers as `serve` does, with the status that the test sets.
fn fake_serve(console: &Console, status: Arc<Mutex<Status>>) -> tokio::task::JoinHandle<()> {
    let listener = Listener::bind_unix(&console.folder.path().join("serve.sock")).unwrap();
    tokio::spawn(async move {
        while let Ok(incoming) = listener.accept().await {
            let status = status.clone();
            tokio::spawn(async move { answer(incoming.greet().await.unwrap(), &status).await });
        }
    })
}

async fn answer(mut connection: Connection, status: &Mutex<Status>) {
    while let Ok(Some(request)) = connection.recv().await {
        let event = match request {
            Request::Status => Event::Status(Box::new(status.lock().unwrap().clone())),
            Request::Duties => Event::Duties { duties: Vec::new(), sha256: String::new() },
            Request::Schedule => Event::Schedule { jobs: Vec::new() },
            _ => return,
        };
        connection.send(&event).await.unwrap();
    }
}

/// A mail server: one thread of SMTP for each connection, every mail kept.
async fn smtp() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (port, mails) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
    let kept = mails.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, kept.clone()));
        }
    });
    (port, mails)
}

async fn converse(stream: TcpStream, mails: Arc<Mutex<Vec<String>>>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    write.write_all(b"220 test\r\n").await.unwrap();
    while let Ok(Some(line)) = lines.next_line().await {
        let reply = match line.split(' ').next().unwrap_or_default().to_ascii_uppercase().as_str() {
            "EHLO" | "MAIL" | "RCPT" | "NOOP" => "250 ok\r\n",
            "DATA" => {
                write.write_all(b"354 go on\r\n").await.unwrap();
                let mut mail = String::new();
                while let Ok(Some(line)) = lines.next_line().await {
                    if line == "." {
                        break;
                    }
                    mail.push_str(&line);
                    mail.push('\n');
                }
                mails.lock().unwrap().push(mail);
                "250 kept\r\n"
            }
            "QUIT" => "221 bye\r\n",
            _ => "500 what\r\n",
        };
        write.write_all(reply.as_bytes()).await.unwrap();
    }
}

/// A web server that keeps what it was sent; `healthy` decides between 200 and 500.
pub async fn web() -> (String, Arc<Mutex<Vec<(HeaderMap, Bytes)>>>, Arc<AtomicBool>) {
    let (kept, healthy) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(true)));
    let (seen, fine) = (kept.clone(), healthy.clone());
    let router = Router::new().fallback(any(move |headers: HeaderMap, body: Bytes| {
        let fine = fine.load(Ordering::SeqCst);
        if fine {
            seen.lock().unwrap().push((headers, body));
        }
        async move { if fine { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR } }
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, kept, healthy)
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what} did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_store_arrives_by_mail_and_webhook_until_it_closes() {
    let (port, mails) = smtp().await;
    let (url, hooks, healthy) = web().await;
    let secrets = tempfile::tempdir().unwrap();
    let secret = secrets.path().join("secret");
    std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
    let mut console = Console::new(&format!(
        "[mail]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"holdfast@practice.example\"\n\
         to = [\"it@practice.example\", \"owner@practice.example\"]\n\
         [webhook]\nurl = \"{url}\"\nsecret = \"{}\"\n",
        secret.display()
    ));
    let wrong = Arc::new(Mutex::new(status()));
    let since_unix_ms = console.app.now_ms();
    wrong.lock().unwrap().alerts.push(Alert {
        kind: AlertKind::StoreUnreachable,
        severity: Severity::Critical,
        subject: Some("provider-north".into()),
        since_unix_ms,
    });
    let daemon = fake_serve(&console, wrong.clone());
    // The webhook's failure holds up no mail.
    healthy.store(false, Ordering::SeqCst);
    poll::serve(&console.app).await.unwrap();
    poll::serve(&console.app).await.unwrap();
    for sender in console.senders.drain(..) {
        tokio::spawn(deliver::run(console.app.clone(), sender));
    }
    let mail = until("the mail", || mails.lock().unwrap().first().cloned()).await;
    for part in [
        "To: it@practice.example, owner@practice.example",
        "Subject: [Holdfast] Critical",
        "provider-north",
        "What to do",
    ] {
        assert!(mail.contains(part), "{mail}");
    }
    healthy.store(true, Ordering::SeqCst);
    console.clock.fetch_add(60_000, Ordering::SeqCst);
    let (headers, body) = until("the webhook", || hooks.lock().unwrap().first().cloned()).await;
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(&body);
    let expected = format!("sha256={}", hex::encode(mac.finalize().into_bytes()));
    assert_eq!(headers["x-holdfast-signature"], expected.as_str());
    let message: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((&message["event"], &message["kind"]), (&"opened".into(), &"store-unreachable".into()));
    wrong.lock().unwrap().alerts.clear();
    poll::serve(&console.app).await.unwrap();
    until("the closing mail", || mails.lock().unwrap().iter().find(|mail| mail.contains("Closed:")).cloned()).await;
    let count = mails.lock().unwrap().len();
    assert_eq!(count, 2, "one mail when it opens, one when it closes");
    daemon.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_console_that_cannot_write_says_so_and_says_when_it_can_again() {
    let (port, mails) = smtp().await;
    let mut console = Console::new(&format!(
        "[mail]\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"none\"\nfrom = \"holdfast@practice.example\"\n\
         to = [\"it@practice.example\"]\n"
    ));
    let wrong = Arc::new(Mutex::new(status()));
    let daemon = fake_serve(&console, wrong.clone());
    for sender in console.senders.drain(..) {
        tokio::spawn(deliver::run(console.app.clone(), sender));
    }
    let writable = |is: bool| console.app.db.read(|db| db.pragma_update(None, "query_only", !is)).unwrap();
    writable(false);
    wrong.lock().unwrap().alerts.push(Alert {
        kind: AlertKind::StoreCorrupt,
        severity: Severity::Critical,
        subject: Some("provider-north".into()),
        since_unix_ms: 1,
    });
    poll::serve(&console.app).await.unwrap_err();
    let find = |what: &str| mails.lock().unwrap().iter().find(|mail| mail.contains(what)).cloned();
    until("the mail from memory", || find("records and sends no other alerts")).await;
    writable(true);
    poll::serve(&console.app).await.unwrap();
    until("what could not be told", || find("A store returned an object with changed bytes")).await;
    until("its end", || find("Closed: The console cannot write")).await;
    daemon.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_falls_silent_is_an_alert_after_two_looks_and_keeps_the_others_open() {
    let console = Console::new("");
    let wrong = Arc::new(Mutex::new(status()));
    wrong.lock().unwrap().alerts.push(Alert {
        kind: AlertKind::BackupLate,
        severity: Severity::Warning,
        subject: None,
        since_unix_ms: 1,
    });
    let daemon = fake_serve(&console, wrong);
    poll::serve(&console.app).await.unwrap();
    daemon.abort();
    let _ = daemon.await;
    poll::serve(&console.app).await.unwrap();
    let kinds =
        || -> Vec<AlertKind> { console.app.db.read(state::open).unwrap().iter().map(|alert| alert.kind).collect() };
    assert_eq!(kinds(), [AlertKind::BackupLate], "a restart misses one look");
    poll::serve(&console.app).await.unwrap();
    assert_eq!(kinds(), [AlertKind::DaemonUnreachable, AlertKind::BackupLate]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_new_durable_snapshot_beats_once_and_failures_are_counted() {
    let (url, beats, healthy) = web().await;
    let console = Console::new(&format!("heartbeat_url = \"{url}\"\n"));
    let state = Arc::new(Mutex::new(status()));
    let daemon = fake_serve(&console, state.clone());
    let count = || beats.lock().unwrap().len();
    poll::serve(&console.app).await.unwrap();
    assert_eq!(count(), 0, "nothing is durable yet");
    let durable = |id: &str| state.lock().unwrap().last_durable = Some(id.to_owned());
    durable("one");
    poll::serve(&console.app).await.unwrap();
    poll::serve(&console.app).await.unwrap();
    assert_eq!(count(), 1);
    healthy.store(false, Ordering::SeqCst);
    durable("two");
    poll::serve(&console.app).await.unwrap();
    let beat = console.app.heartbeat.as_ref().unwrap().state();
    assert_eq!((beat.sent, beat.failed), (1, 1));
    let person = console.person("anna", Role::Owner).await;
    assert!(text(console.get("/alerts", Some(&person)).await).await.contains("It answered 500"));
    healthy.store(true, Ordering::SeqCst);
    console.clock.fetch_add(60_000, Ordering::SeqCst);
    poll::serve(&console.app).await.unwrap();
    assert_eq!(count(), 2, "it is told later");
    durable("one");
    poll::serve(&console.app).await.unwrap();
    assert_eq!(count(), 2, "an older one is no news");
    daemon.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn hands_in_the_data_center_read_nothing_about_the_practice() {
    let console = Console::new("");
    let daemon = fake_serve(&console, Arc::new(Mutex::new(status())));
    poll::serve(&console.app).await.unwrap();
    let owner = console.person("anna", Role::Owner).await;
    assert!(text(console.get("/hosts", Some(&owner)).await).await.contains("Harbor Street Practice"));
    let hands = console.person("hands", Role::DataCenter).await;
    for path in ["/hosts", "/", "/reports", "/alerts", "/nothing"] {
        let page = text(console.get(path, Some(&hands)).await).await;
        assert!(!page.contains("Harbor Street"), "{path}");
        for other in ["\"/snapshots\"", "\"/reports\"", "\"/alerts\"", "\"/record\"", "\"/accounts\""] {
            assert!(!page.contains(other), "{path} links to {other}");
        }
    }
    daemon.abort();
}
