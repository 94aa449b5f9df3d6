//! A stranger books online: over the public router, with a mail server that speaks SMTP.

use crate::access::Role;
use crate::messages::mail::Mailer;
use crate::messages::{self, Channels, reminders};
use crate::settings::{MailSettings, MailTls};
use crate::web::form::percent_encode;
use crate::web::tests::{Answer, Site, hidden};
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpListener;
use tower::ServiceExt;

/// A mail server that keeps what it is given.
async fn mail_server() -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kept = Arc::new(Mutex::new(Vec::new()));
    let box_ = kept.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let box_ = box_.clone();
            tokio::spawn(async move {
                let (reader, mut writer) = stream.into_split();
                let mut lines = BufReader::new(reader).lines();
                writer.write_all(b"220 test\r\n").await.unwrap();
                let (mut data, mut inside) = (String::new(), false);
                while let Ok(Some(line)) = lines.next_line().await {
                    let answer: &[u8] = match line.split(' ').next().unwrap_or_default() {
                        "." if inside => {
                            inside = false;
                            box_.lock().unwrap().push(std::mem::take(&mut data));
                            b"250 kept\r\n"
                        }
                        _ if inside => {
                            data.push_str(&line);
                            data.push('\n');
                            continue;
                        }
                        "DATA" => {
                            inside = true;
                            b"354 go on\r\n"
                        }
                        "QUIT" => b"221 bye\r\n",
                        _ => b"250 well\r\n",
                    };
                    writer.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (port, kept)
}

struct Door {
    site: Site,
    doctor: String,
    visit: String,
    mails: Arc<Mutex<Vec<String>>>,
    channels: Channels,
}

impl Door {
    async fn new(online: &str) -> Door {
        let site = Site::new();
        let doctor =
            site.store("Practitioner", json!({"resourceType": "Practitioner", "name": [{"family": "Weiss"}]})).await;
        let doctor = format!("Practitioner/{doctor}");
        let repeat = json!({"duration": 180, "durationUnit": "min", "period": 1, "periodUnit": "wk",
            "dayOfWeek": ["mon", "tue", "wed", "thu", "fri"], "timeOfDay": ["09:00:00"]});
        site.store(
            "Schedule",
            json!({"resourceType": "Schedule", "actor": [{"reference": doctor}],
            "extension": [{"url": "urn:holdfast:weekly-hours", "valueTiming": {"repeat": repeat}}]}),
        )
        .await;
        let visit = site
            .store(
                "HealthcareService",
                json!({"resourceType": "HealthcareService", "name": "Check-up", "active": true, "extension": [
                {"url": "urn:holdfast:visit-minutes", "valueInteger": 60},
                {"url": "urn:holdfast:online-booking", "valueCode": online}]}),
            )
            .await;
        let (port, mails) = mail_server().await;
        let settings = MailSettings {
            host: "127.0.0.1".into(),
            port,
            tls: MailTls::None,
            from: "desk@example.org".into(),
            credentials: None,
            ca: None,
        };
        let channels = Channels { mail: Some(Mailer::new(&settings, "Test practice").unwrap()), ..Channels::default() };
        Door { site, doctor, visit, mails, channels }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let response = crate::web::public_app(&self.site.web).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        }
    }

    async fn get(&self, path: &str) -> Answer {
        let stranger = Site::nobody();
        self.send(Request::get(path).header(header::COOKIE, &stranger.cookie).body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let stranger = Site::nobody();
        let all = fields.iter().copied().chain([("csrf", stranger.csrf.as_str())]);
        let body: Vec<String> = all.map(|(n, v)| format!("{n}={}", percent_encode(v))).collect();
        let request = Request::post(path)
            .header(header::COOKIE, &stranger.cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body.join("&"))).unwrap()).await
    }

    /// The addresses of the times that are offered.
    async fn times(&self) -> Vec<String> {
        let page = self.get(&format!("/book/{}", self.visit)).await;
        assert_eq!(page.status, StatusCode::OK);
        let own = format!("/book/{}/", self.visit);
        page.body
            .split("href=\"")
            .skip(1)
            .filter(|p| p.starts_with(&own))
            .map(|p| p.split('"').next().unwrap().to_owned())
            .collect()
    }

    async fn ask(&self, time: &str, family: &str, email: &str) -> Answer {
        let path = time.split('?').next().unwrap();
        let fields = [
            ("with", self.doctor.as_str()),
            ("family", family),
            ("given", "Jo"),
            ("birth", "1960-05-06"),
            ("email", email),
            ("phone", "555 0100"),
        ];
        self.post(path, &fields).await
    }

    async fn last_mail(&self) -> String {
        messages::round(self.site.web.store(), &self.channels, &mut messages::Unrecorded::default()).await.unwrap();
        self.mails.lock().unwrap().last().cloned().unwrap_or_default().replace("=\n", "")
    }

    fn code(mail: &str) -> String {
        let at = mail.find("Your code is ").unwrap() + 13;
        mail[at..at + 6].to_owned()
    }

    async fn appointments(&self) -> Vec<Value> {
        let desk = self.site.session(Role::FrontDesk).await;
        let found = self.site.get(&desk, "/fhir/R4/Appointment").await.body;
        let bundle: Value = serde_json::from_str(&found).unwrap();
        bundle["entry"].as_array().cloned().unwrap_or_default().into_iter().map(|e| e["resource"].clone()).collect()
    }
}

#[tokio::test]
async fn a_stranger_asks_and_the_practice_answers() {
    let door = Door::new("request").await;
    let times = door.times().await;
    assert!(!times.is_empty());
    let asked = door.ask(&times[0], "Neumann", "jo@example.org").await;
    assert_eq!(asked.status, StatusCode::OK, "{}", asked.body);
    let token = hidden(&asked.body, "token").to_owned();
    assert!(!door.times().await.contains(&times[0]), "kept while the code is on its way");
    let code = Door::code(&door.last_mail().await);
    let wrong = if code == "000000" { "111111" } else { "000000" };
    assert_eq!(
        door.post("/book/code", &[("token", &token), ("code", wrong)]).await.status,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert!(door.appointments().await.is_empty(), "nothing without the code");
    let done = door.post("/book/code", &[("token", &token), ("code", &code)]).await;
    assert!(done.body.contains("We received your request"), "{}", done.body);
    assert_eq!(
        door.post("/book/code", &[("token", &token), ("code", &code)]).await.status,
        StatusCode::GONE,
        "a code is good once"
    );
    let stored = door.appointments().await;
    assert_eq!((stored.len(), &stored[0]["status"]), (1, &json!("pending")));
    let mail = door.last_mail().await;
    let link = mail.split("/book/cancel/").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();

    let desk = door.site.session(Role::FrontDesk).await;
    let inbox = door.site.get(&desk, "/schedule/inbox").await.body;
    assert!(inbox.contains("Neumann, Jo") && inbox.contains("new, not checked"), "{inbox}");
    let patient = hidden(&inbox, "patient").to_owned();
    let fields = [("patient", patient.as_str()), ("version", "1"), ("answer", "booked")];
    let path = format!("/schedule/inbox/{}", stored[0]["id"].as_str().unwrap());
    assert_eq!(door.site.post(&desk, &path, &fields).await.status, StatusCode::SEE_OTHER);
    assert!(door.last_mail().await.contains("confirmed"));
    assert!(door.get(&format!("/book/cancel/{link}")).await.body.contains("Cancel this appointment"));
    assert!(door.post(&format!("/book/cancel/{link}"), &[]).await.body.contains("Cancelled"));
    assert_eq!(door.appointments().await[0]["status"], "cancelled");
    assert!(door.times().await.contains(&times[0]), "free for somebody else");
    assert_eq!(door.get("/book/cancel/guess").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn direct_booking_is_for_those_whose_record_holds_the_proved_address() {
    let door = Door::new("direct").await;
    door.site
        .store(
            "Patient",
            json!({"resourceType": "Patient", "active": true, "birthDate": "1960-05-06",
        "name": [{"family": "Alt", "given": ["Jo"]}], "telecom": [{"system": "email", "value": "Alt@example.org"}]}),
        )
        .await;
    let times = door.times().await;
    for (at, family, email, status) in
        [(0, "Alt", "alt@example.org", "booked"), (1, "Alt", "other@example.org", "pending")]
    {
        let asked = door.ask(&times[at * 6], family, email).await;
        let token = hidden(&asked.body, "token").to_owned();
        let code = Door::code(&door.last_mail().await);
        assert_eq!(door.post("/book/code", &[("token", &token), ("code", &code)]).await.status, StatusCode::OK);
        assert_eq!(door.appointments().await[at]["status"], status, "{email}");
    }
}

#[tokio::test]
async fn a_mode_is_kept_to_and_the_door_has_limits() {
    let off = Door::new("off").await;
    assert_eq!(off.get(&format!("/book/{}", off.visit)).await.status, StatusCode::NOT_FOUND);
    let view = Door::new("view").await;
    let page = view.get(&format!("/book/{}", view.visit)).await.body;
    assert!(page.contains("09:00") && page.contains("please call us") && view.times().await.is_empty());
    let door = Door::new("request").await;
    assert_eq!(view.get("/patients").await.status, StatusCode::NOT_FOUND, "nothing of the staff's is on this listener");
    // Every sixth begins after the one before has ended.
    let times = door.times().await;
    let mut told = Vec::new();
    for time in times.iter().step_by(6).take(6) {
        told.push(door.ask(time, "Neumann", "jo@example.org").await.status);
    }
    assert_eq!(told[3..], [StatusCode::OK, StatusCode::TOO_MANY_REQUESTS, StatusCode::TOO_MANY_REQUESTS]);
    door.site.later(3601);
    assert_eq!(door.ask(&times[0], "Neumann", "jo@example.org").await.status, StatusCode::OK);
    // A code is guessed five times at most.
    let asked = door.ask(&times[6], "Neumann", "jo@example.org").await;
    let token = hidden(&asked.body, "token").to_owned();
    let code = Door::code(&door.last_mail().await);
    for _ in 0..5 {
        door.post("/book/code", &[("token", &token), ("code", "x")]).await;
    }
    assert_eq!(door.post("/book/code", &[("token", &token), ("code", &code)]).await.status, StatusCode::GONE);
    assert!(door.appointments().await.is_empty());
    let past = format!("/book/{}/{}", door.visit, 1_780_000_000);
    assert_eq!(door.ask(&past, "Neumann", "a@example.org").await.status, StatusCode::NOT_FOUND, "too soon");
}

#[tokio::test]
async fn a_reminder_leaves_once_and_not_for_what_is_cancelled() {
    let door = Door::new("off").await;
    let patient = |family: &str, email: &str| json!({"resourceType": "Patient", "name": [{"family": family}], "telecom": [{"system": "email", "value": email}]});
    let mut ids = Vec::new();
    for (n, family) in ["Abel", "Brandt"].into_iter().enumerate() {
        let patient = door.site.store("Patient", patient(family, &format!("{family}@example.org"))).await;
        ids.push(door.site.store("Appointment", json!({"resourceType": "Appointment", "status": "booked",
            "start": format!("2026-05-29T1{}:00:00Z", 4 + n), "end": format!("2026-05-29T1{}:30:00Z", 4 + n), "description": "Secret reason",
            "participant": [{"actor": {"reference": format!("Patient/{patient}")}, "status": "accepted"}]})).await);
    }
    let store = door.site.web.store();
    let plan = || {
        reminders::plan(
            store,
            &door.channels,
            chrono_tz::America::New_York,
            "Test practice",
            &reminders::Plan { hours: 24 },
        )
    };
    plan().await.unwrap();
    plan().await.unwrap();
    // One is cancelled between the planning and the sending.
    let id = ids[1].clone();
    let cancel = move |tx: &mut crate::store::Tx<'_>| crate::scheduling::booking::cancel(tx, &id, 1, "");
    store
        .write::<_, crate::store::StoreError, _>(&crate::access::Actor::program(crate::access::Program::Seed), cancel)
        .await
        .unwrap();
    assert_eq!(messages::round(store, &door.channels, &mut messages::Unrecorded::default()).await.unwrap(), 1);
    let mails = door.mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 1);
    assert!(
        mails[0].contains("Abel@example.org") && mails[0].contains("10:00") && !mails[0].contains("Secret"),
        "{}",
        mails[0]
    );
    door.site.later(600);
    plan().await.unwrap();
    assert_eq!(
        messages::round(store, &door.channels, &mut messages::Unrecorded::default()).await.unwrap(),
        0,
        "once is enough"
    );
}
