//! The whole router in process: every route against every role, and the attacks that a session must survive.

use super::gate::FORM_COOKIE;
use super::*;
use crate::access::accounts::{self, NewAccount};
use crate::access::{Role, sessions};
use crate::clock::Clock;
use crate::store::{Mode, StoreError, Tx};
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(in crate::web) const NOW_S: i64 = 1_780_000_000;
pub(in crate::web) const IDLE_S: i64 = 600;
pub(in crate::web) const PASSWORD: &str = "correct horse battery staple";

pub(in crate::web) struct Site {
    pub(in crate::web) web: Web,
    app: Router,
    pub(in crate::web) clock: Clock,
    _dir: tempfile::TempDir,
}

#[derive(Clone)]
pub(in crate::web) struct Browser {
    pub(in crate::web) cookie: String,
    pub(in crate::web) csrf: String,
}

pub(in crate::web) struct Answer {
    pub(in crate::web) status: StatusCode,
    pub(in crate::web) headers: http::HeaderMap,
    pub(in crate::web) body: String,
    pub(in crate::web) bytes: bytes::Bytes,
}

impl Answer {
    pub(in crate::web) fn location(&self) -> &str {
        self.headers.get(header::LOCATION).map_or("", |v| v.to_str().unwrap())
    }

    pub(in crate::web) fn cookie(&self, name: &str) -> Option<String> {
        let lines = self.headers.get_all(header::SET_COOKIE).iter();
        let values = lines.filter_map(|l| l.to_str().unwrap().strip_prefix(&format!("{name}=")).map(str::to_owned));
        values.map(|v| v.split(';').next().unwrap().to_owned()).next_back()
    }
}

impl Site {
    pub(in crate::web) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_S * 1000);
        let store = Store::open(crate::support::place(dir.path()), clock.clone(), Mode::New).unwrap();
        let downtime = crate::downtime::Plan {
            every_minutes: 30,
            all_patients: false,
            file: dir.path().join("downtime/pack.html"),
        };
        let web = Web::new(
            store,
            Settings {
                practice_name: "Test practice".into(),
                practice_address: "1 Elm Street\nSpringfield".into(),
                practice_phone: "+1 555 010 2000".into(),
                zone: chrono_tz::America::New_York,
                idle_lock_s: IDLE_S,
                bases: vec!["https://emr.example".into()],
                portal: Some("https://portal.example".into()),
                has_mail: true,
                downtime: Some(downtime),
                look_back: None,
            },
        );
        let app = app(&web, programs(&web));
        Self { web, app, clock, _dir: dir }
    }

    /// The same practice, with records of then to look at.
    pub(in crate::web) fn give_desk(&mut self, make: impl FnOnce(&std::path::Path) -> crate::look_back::Desk) {
        let settings = Settings { look_back: Some(make(self._dir.path())), ..self.web.settings().clone() };
        self.web = Web::new(self.web.store().clone(), settings);
        self.app = app(&self.web, programs(&self.web));
    }

    /// The same records, as `appliance user` opens them while the service runs.
    pub(in crate::web) fn beside(&self) -> Store {
        Store::open(crate::support::place(self._dir.path()), self.clock.clone(), Mode::Beside).unwrap()
    }

    pub(in crate::web) fn later(&self, seconds: i64) {
        self.clock.set(self.clock.unix_ms() + seconds * 1000);
    }

    pub(in crate::web) async fn add_user(&self, name: &str, role: Role, hash: &str, secret: &str) -> String {
        let id = format!("id-{name}");
        let (name, hash, secret, own) = (name.to_owned(), hash.to_owned(), secret.to_owned(), id.clone());
        let insert = move |db: &crate::db::Connection| {
            let new = NewAccount {
                id: &own,
                name: &name,
                display: "Test Person",
                role,
                practitioner: None,
                password_hash: &hash,
                totp_secret: &secret,
                totp_step: None,
            };
            accounts::insert(db, &new, NOW_S)
        };
        self.web.write_accounts(&Actor::program(crate::access::Program::CommandLine), insert).await.unwrap();
        id
    }

    /// A session without the 0.1 s of argon2; the login itself has its own tests.
    pub(in crate::web) async fn session(&self, role: Role) -> Browser {
        let name = format!("{}{}", role.as_str(), service::auth::random_token().to_lowercase().replace(['_', '-'], ""));
        self.add_user(&name[..20], role, "!", "x").await;
        self.session_of(&name[..20]).await
    }

    pub(in crate::web) async fn session_of(&self, name: &str) -> Browser {
        let (token, csrf) = (service::auth::random_token(), service::auth::random_token());
        let (name, fresh, form, now) = (name.to_owned(), token.clone(), csrf.clone(), self.web.now());
        let open = move |db: &crate::db::Connection| {
            let account = accounts::credentials(db, &name)?.unwrap().account;
            sessions::open(db, &account, (&fresh, &form), "Firefox on Linux", now)
        };
        self.web.write_accounts(&Actor::anonymous(), open).await.unwrap();
        Browser { cookie: format!("{}={token}", sessions::COOKIE), csrf }
    }

    pub(in crate::web) fn nobody() -> Browser {
        Browser { cookie: format!("{FORM_COOKIE}=formtoken"), csrf: "formtoken".into() }
    }

    pub(in crate::web) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.app.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = String::from_utf8_lossy(&bytes).into_owned();
        Answer { status: parts.status, headers: parts.headers, body, bytes }
    }

    pub(in crate::web) async fn get(&self, browser: &Browser, path: &str) -> Answer {
        self.send(Request::get(path).header(header::COOKIE, &browser.cookie).body(Body::empty()).unwrap()).await
    }

    pub(in crate::web) async fn post(&self, browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Answer {
        let all = fields.iter().copied().chain([("csrf", browser.csrf.as_str())]);
        let body: Vec<String> = all.map(|(n, v)| format!("{n}={}", form::percent_encode(v))).collect();
        self.post_raw(browser, path, body.join("&")).await
    }

    pub(in crate::web) async fn post_raw(&self, browser: &Browser, path: &str, body: String) -> Answer {
        let request = Request::post(path)
            .header(header::COOKIE, &browser.cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    pub(in crate::web) async fn store(&self, kind: &'static str, body: Value) -> String {
        let seed = Actor::program(crate::access::Program::Seed);
        let create = move |tx: &mut Tx<'_>| tx.create(kind, body);
        self.web.store().write::<_, StoreError, _>(&seed, create).await.unwrap().id
    }

    pub(in crate::web) async fn patient(&self, family: &str) -> String {
        self.store(
            "Patient",
            json!({"resourceType": "Patient", "name": [{"family": family, "given": ["Jo"]}],
            "birthDate": "1960-05-06", "gender": "female"}),
        )
        .await
    }

    pub(in crate::web) async fn read(&self, kind: &'static str, id: &str) -> Value {
        let (id, seed) = (id.to_owned(), Actor::program(crate::access::Program::Probe));
        let read = move |view: &crate::store::View<'_>| view.read(kind, &id)?.json();
        self.web.store().view::<_, StoreError, _>(&seed, read).await.unwrap()
    }
}

/// The value of a hidden field in a page.
pub(in crate::web) fn hidden<'a>(page: &'a str, name: &str) -> &'a str {
    let from = page.find(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no field {name}"));
    let value = &page[from..];
    let start = value.find("value=\"").unwrap() + 7;
    let end = value[start..].find('"').unwrap();
    &value[start..start + end]
}

/// What programs ask: the API, and the endpoints of OAuth.
fn programs(web: &Web) -> Vec<Route> {
    let oauth = crate::fhir::smart::routes(web.store(), web.settings().bases.clone());
    [crate::fhir::http::routes(web.store()), oauth].concat()
}

fn all_routes(site: &Site) -> Vec<Route> {
    [routes(&site.web), programs(&site.web)].concat()
}

/// A concrete address of a route.
fn address(route: &Route) -> String {
    route
        .path
        .replace("{kind}", "Patient")
        .split('/')
        .map(|s| if s.starts_with('{') { "x" } else { s })
        .collect::<Vec<_>>()
        .join("/")
}

async fn call(site: &Site, route: &Route, browser: &Browser) -> Answer {
    let request = Request::builder()
        .method(route.method.as_str())
        .uri(address(route))
        .header(header::COOKIE, &browser.cookie)
        .header(CSRF_HEADER, &browser.csrf);
    site.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn every_route_that_is_not_public_refuses_strangers() {
    let site = Site::new();
    let public = ["/login", "/invite/{token}", "/assets/{file}", "/calendar/{token}", "/downtime/pack"];
    let described = [
        "/fhir/R4/metadata",
        "/fhir/R4/openapi.json",
        "/fhir/R4/.well-known/smart-configuration",
        "/fhir/R4/.well-known/openid-configuration",
        "/oauth/keys",
    ];
    // Each asks for a proof of its own, and the page leads to the login: `apps/tests.rs`, `keys_tests.rs`.
    let oauth =
        ["/oauth/authorize", "/oauth/token", "/oauth/introspect", "/oauth/revoke", "/login/key", "/login/key/answer"];
    let door =
        ["/book", "/book/{visit}", "/book/{visit}/{start}", "/book/code", "/book/cancel/{token}", "/assets/{file}"];
    for route in public_routes(&site.web) {
        assert!(door.contains(&route.path), "{} is on the public listener without being on the list", route.path);
    }
    for route in all_routes(&site) {
        if route.policy == Policy::Public {
            let listed = [&public[..], &described, &oauth].iter().any(|list| list.contains(&route.path));
            assert!(listed, "{} is public without being on the list", route.path);
            continue;
        }
        for browser in [Site::nobody(), Browser { cookie: format!("{}=guess", sessions::COOKIE), csrf: "x".into() }] {
            let answer = call(&site, &route, &browser).await;
            let refused = answer.status == StatusCode::UNAUTHORIZED
                || answer.status == StatusCode::SEE_OTHER && answer.location().starts_with("/login");
            assert!(refused, "{} {} answered {} to a stranger", route.method.as_str(), route.path, answer.status);
        }
    }
}

#[tokio::test]
async fn every_route_keeps_to_its_policy_for_every_role() {
    let site = Site::new();
    for role in Role::ALL {
        let browser = site.session(role).await;
        let actor = Actor::staff("x", "x", role);
        for route in all_routes(&site) {
            if ["/lock", "/logout"].contains(&route.path) {
                continue; // They end the session that the rest of the table needs.
            }
            let answer = call(&site, &route, &browser).await;
            let denied = answer.status == StatusCode::FORBIDDEN;
            if route.surface == Surface::Page {
                let what = format!("{role}: {} {}", route.method.as_str(), route.path);
                let own_check = ["/unlock"].contains(&route.path);
                assert!(
                    own_check || denied == route.policy.check(&actor).is_err(),
                    "{what} answered {}",
                    answer.status
                );
            }
        }
    }
}

/// Written by hand, apart from the table: what nobody may slip into a role.
#[tokio::test]
async fn roles_stay_within_their_work() {
    let site = Site::new();
    let clinical = [
        "/problems/",
        "/medications/",
        "/encounters/",
        "/documents/",
        "/forms/",
        "/templates",
        "/phrases",
        "/vitals",
        "/results",
        "/immunizations",
        "/timeline",
        "referrals",
    ];
    for route in all_routes(&site) {
        let denied = |role| route.policy.check(&Actor::staff("x", "x", role)).is_err();
        if clinical.iter().any(|part| route.path.contains(part)) {
            assert!(denied(Role::FrontDesk) && denied(Role::PracticeAdmin), "{}", route.path);
            assert!(!denied(Role::Clinician), "{}", route.path);
        }
        if route.path.starts_with("/audit") || route.path.starts_with("/users") {
            assert!(
                denied(Role::FrontDesk) && denied(Role::Clinician) && !denied(Role::PracticeAdmin),
                "{}",
                route.path
            );
        }
        if route.path.contains("/allergies/") {
            assert!(denied(Role::FrontDesk) && denied(Role::PracticeAdmin), "{}", route.path);
        }
        if route.method != Method::Get && route.surface == Surface::Page {
            assert_ne!(route.policy, Policy::PerResource, "{}", route.path);
        }
    }
}

#[tokio::test]
async fn a_change_without_the_sessions_token_is_refused() {
    let site = Site::new();
    let mut browser = site.session(Role::Clinician).await;
    let stranger = site.session(Role::Clinician).await;
    for token in ["", "wrong", stranger.csrf.as_str()] {
        browser.csrf = token.to_owned();
        for route in all_routes(&site).iter().filter(|r| r.method != Method::Get && r.policy != Policy::Public) {
            let admitted = route.policy.check(&Actor::staff("x", "x", Role::Clinician)).is_ok();
            let answer = call(&site, route, &browser).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{} {admitted}", route.path);
        }
    }
    let patient = site.patient("Doe").await;
    let body = format!("patient={patient}&what=Asthma");
    let answer = site.post_raw(&stranger, &format!("/patients/{patient}/problems/new"), body).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn every_answer_carries_the_security_headers() {
    let site = Site::new();
    let browser = site.session(Role::Clinician).await;
    for path in ["/login", "/patients", "/schedule", "/nonsense", "/users", "/fhir/R4/Patient", "/patients/none"] {
        let answer = site.get(&browser, path).await;
        let policy = answer.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store", "{path}");
        assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
    }
    let css = site.get(&browser, &assets::ASSETS.css.path).await;
    assert!(css.headers[header::CACHE_CONTROL].to_str().unwrap().contains("immutable"));
}

#[tokio::test]
async fn pages_load_nothing_from_elsewhere_and_run_nothing_inline() {
    let site = Site::new();
    let browser = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let own = format!("/patients/{patient}");
    let book = format!("/schedule/book?patient={patient}");
    for path in ["/login", "/schedule", "/schedule/grid", "/schedule/hours", "/patients", "/patients/new", &own, &book]
    {
        let page = site.get(&browser, path).await.body;
        for bad in ["http://", "https://", "<style", " style=", "onclick", "onload", "javascript:"] {
            assert!(!page.contains(bad), "{path} contains {bad}");
        }
        assert!(!page.contains("<script>"), "{path} has an inline script");
    }
}

#[tokio::test]
async fn hostile_text_is_shown_and_never_run() {
    let site = Site::new();
    let browser = site.session(Role::Clinician).await;
    let attack = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";
    let fields =
        [("family", attack), ("given", attack), ("birth", "1960-05-06"), ("gender", "female"), ("line", attack)];
    let chart = site.post(&browser, "/patients/new", &fields).await;
    let chart = chart.location().to_owned();
    let patient = chart.rsplit('/').next().unwrap().to_owned();
    site.post(&browser, &format!("{chart}/problems/new"), &[("patient", &patient), ("what", attack)]).await;
    site.post(
        &browser,
        &format!("{chart}/allergies/new"),
        &[("patient", &patient), ("what", attack), ("risk", "high")],
    )
    .await;
    let started = site
        .post(
            &browser,
            &format!("{chart}/encounters/new"),
            &[("patient", &patient), ("reason", attack), ("class", "AMB")],
        )
        .await;
    let encounter = started.location().to_owned();
    let note = site
        .post(
            &browser,
            &format!("{encounter}/notes"),
            &[("patient", &patient), ("note", &format!("</textarea>{attack}"))],
        )
        .await;
    assert_eq!(note.status, StatusCode::SEE_OTHER, "{}", note.body);
    for path in [
        &chart,
        &encounter,
        note.location(),
        "/patients",
        &format!("{chart}/edit"),
        &format!("/patients?q={}", form::percent_encode(attack)),
    ] {
        let page = site.get(&browser, path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        for raw in ["<script>alert", "<img src=x", "</textarea><script"] {
            assert!(!page.body.contains(raw), "{path} contains {raw}");
        }
    }
}

#[tokio::test]
async fn a_form_of_one_patient_never_saves_to_another() {
    let site = Site::new();
    let browser = site.session(Role::Clinician).await;
    let (a, b) = (site.patient("Aa").await, site.patient("Bb").await);
    let add = site.post(&browser, &format!("/patients/{b}/problems/new"), &[("patient", &a), ("what", "Asthma")]).await;
    assert_eq!(add.status, StatusCode::CONFLICT);
    let problem = site
        .store(
            "Condition",
            json!({"resourceType": "Condition", "code": {"text": "Gout"},
        "subject": {"reference": format!("Patient/{a}")}}),
        )
        .await;
    let mixed = site.get(&browser, &format!("/patients/{b}/problems/{problem}")).await;
    assert_eq!(mixed.status, StatusCode::NOT_FOUND);
    let fields = [("patient", b.as_str()), ("version", "1"), ("status", "resolved")];
    let save = site.post(&browser, &format!("/patients/{b}/problems/{problem}"), &fields).await;
    assert_eq!(save.status, StatusCode::NOT_FOUND);
    let encounter = site
        .store(
            "Encounter",
            json!({"resourceType": "Encounter", "status": "in-progress",
        "class": {"code": "AMB"}, "subject": {"reference": format!("Patient/{a}")}}),
        )
        .await;
    let path = format!("/patients/{b}/encounters/{encounter}/notes");
    let note = site.post(&browser, &path, &[("patient", &b), ("note", "For whom?")]).await;
    assert_eq!(note.status, StatusCode::NOT_FOUND);
    assert!(!site.get(&browser, &format!("/patients/{b}")).await.body.contains("Gout"));
}

#[tokio::test]
async fn the_same_person_is_not_registered_twice_by_accident() {
    let site = Site::new();
    let browser = site.session(Role::FrontDesk).await;
    let fields = [("family", "Müller"), ("given", "Jo"), ("birth", "1960-05-06"), ("gender", "female")];
    assert_eq!(site.post(&browser, "/patients/new", &fields).await.status, StatusCode::SEE_OTHER);
    let hint = site.post(&browser, "/patients/new", &fields).await;
    assert_eq!(hint.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(hint.body.contains("registered already"));
    let sure = site.post(&browser, "/patients/new", &[&fields[..], &[("another", "yes")]].concat()).await;
    assert_eq!(sure.status, StatusCode::SEE_OTHER);
    let list = site.get(&browser, "/patients?q=mul").await.body;
    assert!(list.contains("100001") && list.contains("100002"), "{list}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_book_one_time_exactly_one_succeeds() {
    let site = std::sync::Arc::new(Site::new());
    let browser = site.session(Role::FrontDesk).await;
    let doctor =
        site.store("Practitioner", json!({"resourceType": "Practitioner", "name": [{"family": "Weiss"}]})).await;
    let mut patients = Vec::new();
    for n in 0..16 {
        patients.push(site.patient(&format!("P{n}")).await);
    }
    let tasks: Vec<_> = patients
        .into_iter()
        .enumerate()
        .map(|(n, patient)| {
            let (site, browser, doctor) = (site.clone(), browser.clone(), doctor.clone());
            tokio::spawn(async move {
                // All overlap: 10:00, 10:05, 10:10 ... of 60 minutes each, within one hour.
                let time = format!("10:{:02}", (n % 4) * 5);
                let fields = [
                    ("patient", patient.as_str()),
                    ("practitioner", &doctor),
                    ("day", "2026-06-10"),
                    ("time", &time),
                    ("minutes", "60"),
                ];
                site.post(&browser, "/schedule/book", &fields).await.status
            })
        })
        .collect();
    let mut booked = 0;
    for task in tasks {
        match task.await.unwrap() {
            StatusCode::SEE_OTHER => booked += 1,
            status => assert_eq!(status, StatusCode::CONFLICT),
        }
    }
    assert_eq!(booked, 1);
    let day = site.get(&browser, "/schedule?day=2026-06-10").await.body;
    assert!(day.contains("1 appointment "), "{day}");
}

#[tokio::test]
async fn a_signed_note_is_final_and_only_its_author_signs() {
    let site = Site::new();
    let (author, other) = (site.session(Role::Clinician).await, site.session(Role::Clinician).await);
    let patient = site.patient("Doe").await;
    let own = ("patient", patient.as_str());
    let base = format!("/patients/{patient}/encounters");
    let encounter = site
        .post(&author, &format!("{base}/new"), &[own, ("reason", "Cough"), ("class", "AMB")])
        .await
        .location()
        .to_owned();
    let note =
        site.post(&author, &format!("{encounter}/notes"), &[own, ("note", "First draft")]).await.location().to_owned();
    let fields = |version: &'static str, words: &'static str| [own, ("version", version), ("note", words)];
    assert_eq!(
        site.post(&other, &format!("{note}/sign"), &fields("1", "Forged")).await.status,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(site.post(&author, &note, &fields("1", "Second draft")).await.status, StatusCode::SEE_OTHER);
    let stale = site.post(&author, &format!("{note}/sign"), &fields("1", "Stale window")).await;
    assert_eq!(stale.status, StatusCode::CONFLICT);
    assert!(stale.body.contains("Stale window"), "what was typed is lost");
    assert_eq!(site.post(&author, &format!("{note}/sign"), &fields("2", "Signed text")).await.location(), encounter);
    assert_eq!(site.post(&author, &note, &fields("3", "Changed afterwards")).await.status, StatusCode::BAD_REQUEST);
    let page = site.get(&other, &encounter).await.body;
    assert!(page.contains("Signed text") && page.contains("Signed</span>") && !page.contains("Changed afterwards"));
    let id = note.rsplit('/').next().unwrap();
    let addendum = site.post(&other, &format!("{encounter}/notes"), &[own, ("note", "I add"), ("appends", id)]).await;
    assert_eq!(addendum.status, StatusCode::SEE_OTHER);
    assert!(site.get(&author, &encounter).await.body.contains("Addendum"));
}

fn multipart(fields: &[(&str, &str)], file: (&str, &[u8])) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in fields {
        body.extend(format!("--XX\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n").bytes());
    }
    let head = format!(
        "--XX\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{}\"\r\ncontent-type: text/html\r\n\r\n",
        file.0
    );
    body.extend(head.bytes());
    body.extend(file.1);
    body.extend(b"\r\n--XX--\r\n");
    body
}

async fn upload(site: &Site, browser: &Browser, patient: &str, file: (&str, &[u8])) -> Answer {
    let fields = [("csrf", browser.csrf.as_str()), ("patient", patient), ("description", "A scan")];
    let request = Request::post(format!("/patients/{patient}/documents/new"))
        .header(header::COOKIE, &browser.cookie)
        .header(header::CONTENT_TYPE, "multipart/form-data; boundary=XX");
    site.send(request.body(Body::from(multipart(&fields, file))).unwrap()).await
}

#[tokio::test]
async fn an_upload_comes_back_as_it_was_and_cannot_escape() {
    let site = Site::new();
    let browser = site.session(Role::Clinician).await;
    let (patient, other) = (site.patient("Doe").await, site.patient("Roe").await);
    let pdf = b"%PDF-1.4\nhello".as_slice();
    assert_eq!(
        upload(&site, &browser, &patient, ("../../../etc/cron.d/x.pdf", pdf)).await.status,
        StatusCode::SEE_OTHER
    );
    let chart = site.get(&browser, &format!("/patients/{patient}")).await.body;
    let from = chart.find("/documents/").unwrap() + "/documents/".len();
    let rest = &chart[from..];
    let link = rest.find("/file").map(|to| rest[..to].rsplit('/').next().unwrap().to_owned()).unwrap();
    let file = site.get(&browser, &format!("/patients/{patient}/documents/{link}/file")).await;
    assert_eq!(file.body.as_bytes(), pdf);
    assert_eq!(file.headers[header::CONTENT_TYPE], "application/pdf");
    assert_eq!(file.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    let disposition = file.headers[header::CONTENT_DISPOSITION].to_str().unwrap();
    assert!(disposition.starts_with("attachment; filename=\"x.pdf\""), "{disposition}");
    let foreign = site.get(&browser, &format!("/patients/{other}/documents/{link}/file")).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    // HTML under any name is plain text at most.
    let html = upload(&site, &browser, &other, ("x.pdf", b"<html><script>alert(1)</script>")).await;
    assert_eq!(html.status, StatusCode::SEE_OTHER);
    let stored = site.web.store().clone();
    let read = move |view: &crate::store::View<'_>| {
        Ok::<_, StoreError>(view.connection().query_row(
            "SELECT count(*) FROM attachment WHERE media_type LIKE 'text/html%'",
            [],
            |r| r.get::<_, u32>(0),
        )?)
    };
    assert_eq!(stored.view(&Actor::program(crate::access::Program::Probe), read).await.unwrap(), 0);
    let unknown = upload(&site, &browser, &other, ("x.exe", b"MZ\x00\x01\x02\xff")).await;
    assert_eq!(unknown.status, StatusCode::UNPROCESSABLE_ENTITY);
    let without_token = Browser { csrf: "x".into(), ..browser.clone() };
    assert_eq!(upload(&site, &without_token, &patient, ("x.pdf", pdf)).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn too_much_is_refused() {
    let site = Site::new();
    let browser = site.session(Role::Clinician).await;
    let patient = site.patient("Doe").await;
    let body = format!("csrf={}&note={}", browser.csrf, "x".repeat(form::FORM_BYTES_MAX));
    assert_eq!(site.post_raw(&browser, "/patients/new", body).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    let scan = vec![b'x'; 5 << 20];
    assert_eq!(upload(&site, &browser, &patient, ("x.txt", &scan)).await.status, StatusCode::SEE_OTHER);
    let large = vec![b'x'; form::UPLOAD_BYTES_MAX + form::FORM_BYTES_MAX + 1];
    assert_eq!(upload(&site, &browser, &patient, ("x.txt", &large)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn what_a_role_may_not_see_is_not_in_its_pages() {
    let site = Site::new();
    let patient = site.patient("Doe").await;
    let subject = json!({"reference": format!("Patient/{patient}")});
    site.store(
        "Condition",
        json!({"resourceType": "Condition", "code": {"text": "Secret condition"}, "subject": subject}),
    )
    .await;
    site.store(
        "AllergyIntolerance",
        json!({"resourceType": "AllergyIntolerance", "code": {"text": "Latex"}, "patient": subject}),
    )
    .await;
    let chart = format!("/patients/{patient}");
    for role in [Role::FrontDesk, Role::PracticeAdmin] {
        let browser = site.session(role).await;
        let page = site.get(&browser, &chart).await.body;
        assert!(!page.contains("Secret condition") && page.contains("Latex"), "{role}");
        for kind in ["Condition", "DocumentReference", "Encounter"] {
            assert_eq!(
                site.get(&browser, &format!("/fhir/R4/{kind}")).await.status,
                StatusCode::FORBIDDEN,
                "{role} {kind}"
            );
        }
    }
    let clinician = site.session(Role::Clinician).await;
    assert!(site.get(&clinician, &chart).await.body.contains("Secret condition"));
}

#[tokio::test]
async fn what_is_not_there_is_told_in_the_askers_language() {
    let site = Site::new();
    let clinician = site.session(Role::Clinician).await;
    for path in ["/patients?page=-1", "/patients?page=two"] {
        let answer = site.get(&clinician, path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
        assert!(answer.body.contains("<h1>") && !answer.body.contains("deserialize"), "{}", answer.body);
    }
    let none = site.get(&clinician, "/fhir/R4/Patient/x/y/z").await;
    let request = Request::delete("/fhir/R4/metadata").header(header::COOKIE, &clinician.cookie);
    let method = site.send(request.body(Body::empty()).unwrap()).await;
    for (answer, status) in [(none, StatusCode::NOT_FOUND), (method, StatusCode::METHOD_NOT_ALLOWED)] {
        let outcome: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, &outcome["resourceType"]), (status, &json!("OperationOutcome")));
    }
    assert!(site.get(&clinician, "/fhir/R4x").await.body.contains("<h1>"));
}
