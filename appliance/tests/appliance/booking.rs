//! Many clients, one calendar, over real connections: nobody is booked twice, whichever door is used.

use crate::support;
use appliance::access::accounts::{self, AccountError, NewAccount};
use appliance::access::{Actor, Program, Role, sessions};
use appliance::clock::Clock;
use appliance::store::{Mode, Store, StoreError, Tx};
use appliance::{fhir, web};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const NOW_S: i64 = 1_780_000_000;
const CLIENTS: usize = 64;
/// Free times of the one day on which all want to come.
const TIMES: usize = 24;
const TOKEN: &str = "a-session-of-the-front-desk";
const CSRF: &str = "the-token-of-its-forms";

async fn request(address: SocketAddr, method: &str, path: &str, kind: &str, body: String) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let cookie = format!("{}={TOKEN}", sessions::COOKIE);
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncookie: {cookie}\r\nx-csrf-token: {CSRF}\r\ncontent-type: {kind}\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.split(' ').nth(1).unwrap().parse().unwrap(), answer)
}

async fn create(store: &Store, kind: &'static str, body: Value) -> String {
    let create = move |tx: &mut Tx<'_>| tx.create(kind, body);
    store.write::<_, StoreError, _>(&Actor::program(Program::Seed), create).await.unwrap().id
}

async fn desk(store: &Store) {
    let open = |tx: &mut Tx<'_>| {
        let new = NewAccount {
            id: "desk",
            name: "desk",
            display: "Desk",
            role: Role::FrontDesk,
            practitioner: None,
            password_hash: "!",
            totp_secret: "x",
            totp_step: None,
        };
        accounts::insert(tx.connection(), &new, NOW_S)?;
        let account = accounts::credentials(tx.connection(), "desk")?.unwrap().account;
        sessions::open(tx.connection(), &account, (TOKEN, CSRF), "", NOW_S)
    };
    store.write::<_, AccountError, _>(&Actor::program(Program::CommandLine), open).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixty_four_clients_want_the_same_times_and_nobody_is_booked_twice() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(support::place(dir.path()), Clock::manual(NOW_S * 1000), Mode::New).unwrap();
    desk(&store).await;
    let doctor =
        create(&store, "Practitioner", json!({"resourceType": "Practitioner", "name": [{"family": "W"}]})).await;
    let mut patients = Vec::new();
    for n in 0..CLIENTS {
        patients.push(
            create(&store, "Patient", json!({"resourceType": "Patient", "name": [{"family": format!("P{n}")}]})).await,
        );
    }
    let settings = web::Settings {
        practice_name: "Test".into(),
        practice_address: String::new(),
        practice_phone: String::new(),
        zone: chrono_tz::UTC,
        idle_lock_s: 600,
        bases: Vec::new(),
        portal: None,
        has_mail: true,
        downtime: None,
        look_back: None,
    };
    let app = web::app(&web::Web::new(store.clone(), settings), fhir::http::routes(&store));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(service::http::serve(listener, None, app, service::http::Limits::default(), async {
        stopped.await.ok();
    }));

    let mut clients = Vec::new();
    for (n, patient) in patients.into_iter().enumerate() {
        let doctor = doctor.clone();
        clients.push(tokio::spawn(async move {
            let mut booked = 0;
            for at in 0..TIMES {
                // Half begin a few minutes later: an overlap is enough.
                let (hour, minute) = (8 + at / 3, (at % 3) * 20 + (n % 2) * 7);
                let (status, answer) = if n % 3 == 0 {
                    let body = json!({
                        "resourceType": "Appointment", "status": "booked",
                        "start": format!("2026-06-10T{hour:02}:{minute:02}:00Z"),
                        "end": format!("2026-06-10T{hour:02}:{:02}:00Z", minute + 12),
                        "participant": [
                            {"actor": {"reference": format!("Patient/{patient}")}, "status": "accepted"},
                            {"actor": {"reference": format!("Practitioner/{doctor}")}, "status": "accepted"}],
                    });
                    request(address, "POST", "/fhir/R4/Appointment", "application/fhir+json", body.to_string()).await
                } else {
                    let body = format!(
                        "patient={patient}&practitioner={doctor}&day=2026-06-10&time={hour:02}%3A{minute:02}&minutes=10"
                    );
                    request(address, "POST", "/schedule/book", "application/x-www-form-urlencoded", body).await
                };
                match status {
                    201 | 303 => booked += 1,
                    409 => {}
                    other => panic!("{other}: {answer}"),
                }
            }
            booked
        }));
    }
    let mut booked = 0;
    for client in clients {
        booked += client.await.unwrap();
    }
    let day_ms = 1_781_049_600_000; // 2026-06-10T00:00:00Z
    let read = move |view: &appliance::store::View<'_>| view.appointments_between(day_ms, day_ms + 86_400_000);
    let stored = store.view::<_, StoreError, _>(&Actor::program(Program::Probe), read).await.unwrap();
    assert_eq!(stored.len(), booked, "what was confirmed is what is stored");
    let mut spans = BTreeMap::new();
    for appointment in &stored {
        let body: Value = serde_json::from_str(&appointment.body).unwrap();
        assert_eq!(body["status"], "booked");
        let previous =
            spans.insert(body["start"].as_str().unwrap().to_owned(), body["end"].as_str().unwrap().to_owned());
        assert!(previous.is_none(), "two at {}", body["start"]);
    }
    let order: Vec<_> = spans.iter().collect();
    for pair in order.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{} runs into {}", pair[0].0, pair[1].0);
    }
    assert!(booked >= TIMES, "every time was given to somebody: {booked}");
    stop.send(()).unwrap();
    server.await.unwrap();
}
