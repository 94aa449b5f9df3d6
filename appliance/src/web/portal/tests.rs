//! The portal as a patient uses it, and every way to somebody else's record.

use crate::access::accounts::AccountError;
use crate::access::{Actor, Program, Role, lockout, portal, portal_cli, sessions};
use crate::store::{StoreError, Tx};
use crate::web::form::percent_encode;
use crate::web::tests::{Answer, Browser, Site, hidden};
use crate::web::{Method, Policy, Route, portal_app, portal_routes};
use axum::body::Body;
use http::{Request, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

pub(super) const PASSWORD: &str = "correct horse battery staple";

pub(super) struct Practice {
    pub site: Site,
    pub ada: String,
    pub bob: String,
}

impl Practice {
    /// Two patients, each with something of every kind that the portal shows. Everything of Bob's says SECRET.
    pub async fn open() -> Practice {
        let site = Site::new();
        let (ada, bob) = (site.patient("Adams").await, site.patient("SECRETperson").await);
        for (patient, mark) in [(&ada, "of Ada"), (&bob, "SECRET")] {
            let of = json!({"reference": format!("Patient/{patient}")});
            let code = json!({"text": mark});
            let kinds = [
                ("AllergyIntolerance", json!({"patient": of, "code": code})),
                ("Condition", json!({"subject": of, "code": code})),
                (
                    "MedicationRequest",
                    json!({"subject": of, "status": "active", "intent": "order", "medicationCodeableConcept": code}),
                ),
                (
                    "Immunization",
                    json!({"patient": of, "status": "completed", "vaccineCode": code, "occurrenceDateTime": "2024-05-06"}),
                ),
                ("Observation", json!({"subject": of, "status": "final", "code": code, "valueString": mark})),
                ("DiagnosticReport", json!({"subject": of, "status": "final", "code": code})),
            ];
            for (kind, mut body) in kinds {
                body["resourceType"] = kind.into();
                site.store(kind, body).await;
            }
        }
        Practice { site, ada, bob }
    }

    pub async fn note(&self, patient: &str, words: &str, state: &str) -> String {
        use base64::Engine;
        let data = base64::engine::general_purpose::STANDARD.encode(words);
        let body = json!({"resourceType": "DocumentReference", "status": "current", "docStatus": state, "description": words,
            "subject": {"reference": format!("Patient/{patient}")}, "date": "2026-05-01T08:00:00Z",
            "content": [{"attachment": {"contentType": "text/plain", "data": data}}]});
        self.site.store("DocumentReference", body).await
    }

    pub async fn appointment(&self, patient: &str, start: &str) -> String {
        let body = json!({"resourceType": "Appointment", "status": "booked", "start": start, "end": start.replace(":00:00Z", ":20:00Z"),
            "serviceType": [{"text": "Check-up"}],
            "participant": [{"actor": {"reference": format!("Patient/{patient}")}, "status": "accepted"}]});
        self.site.store("Appointment", body).await
    }

    /// A form that waits for the patient.
    pub async fn form(&self, patient: &str) -> String {
        let template = json!({"resourceType": "Questionnaire", "status": "active", "title": "Before the visit",
            "item": [{"linkId": "why", "text": "Why do you come?", "type": "string", "required": true}]});
        let template = self.site.store("Questionnaire", template).await;
        let doctor = self.site.session(Role::Clinician).await;
        let fields = [("patient", patient), ("template", template.as_str())];
        let given = self.site.post(&doctor, &format!("/patients/{patient}/portal/form"), &fields).await;
        assert_eq!(given.status, StatusCode::SEE_OTHER, "{}", given.body);
        self.newest("QuestionnaireResponse").await["id"].as_str().unwrap().to_owned()
    }

    pub async fn newest(&self, kind: &'static str) -> Value {
        let all = self.all(kind).await;
        all.last().unwrap_or_else(|| panic!("no {kind}")).clone()
    }

    pub async fn all(&self, kind: &'static str) -> Vec<Value> {
        let probe = Actor::program(Program::Probe);
        let read = move |view: &crate::store::View<'_>| {
            let query = crate::store::Query::all(kind)?;
            view.search(&query)?.resources.iter().map(crate::store::Resource::json).collect::<Result<Vec<Value>, _>>()
        };
        self.site.web.store().view::<_, StoreError, _>(&probe, read).await.unwrap()
    }

    /// A session without the 0.1 s of argon2; the login itself has its own test.
    pub async fn session(&self, patient: &str) -> Browser {
        let (token, csrf) = (service::auth::random_token(), service::auth::random_token());
        let (fresh, form, patient, now) = (token.clone(), csrf.clone(), patient.to_owned(), self.site.web.now());
        let open = move |db: &crate::db::Connection| {
            if portal::of_patient(db, &patient)?.is_none() {
                let (id, mail) = (format!("account-{patient}"), format!("{patient}@example.org"));
                let new = portal::NewAccount {
                    id: &id,
                    patient: &patient,
                    mail: &mail,
                    password_hash: "!",
                    totp_secret: None,
                    totp_step: None,
                    birth: None,
                };
                portal::set_up(db, &new, now)?;
            }
            portal::open(db, &format!("account-{patient}"), &fresh, &form, now)
        };
        self.site.web.write_accounts(&Actor::anonymous(), open).await.unwrap();
        Browser { cookie: format!("{}={token}", portal::COOKIE), csrf }
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let (parts, body) = portal_app(&self.site.web).oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: String::from_utf8_lossy(&bytes).into_owned(),
            bytes,
        }
    }

    pub async fn get(&self, browser: &Browser, path: &str) -> Answer {
        self.send(Request::get(path).header(header::COOKIE, &browser.cookie).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, browser: &Browser, path: &str, fields: &[(&str, &str)]) -> Answer {
        let all = fields.iter().copied().chain([("csrf", browser.csrf.as_str())]);
        let body: Vec<String> = all.map(|(n, v)| format!("{n}={}", percent_encode(v))).collect();
        let request = Request::post(path)
            .header(header::COOKIE, &browser.cookie)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body.join("&"))).unwrap()).await
    }

    pub async fn mails(&self) -> Vec<String> {
        let read = |db: &crate::db::Connection| {
            let mut statement = db.prepare("SELECT payload FROM outbox ORDER BY id")?;
            Ok::<_, StoreError>(statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?)
        };
        self.site.web.store().internal(read).await.unwrap()
    }

    async fn invite(&self, patient: &str, mail: &str) -> String {
        let desk = self.site.session(Role::FrontDesk).await;
        let fields = [("patient", patient), ("mail", mail), ("do", "invite")];
        let answer = self.site.post(&desk, &format!("/patients/{patient}/portal"), &fields).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        assert!(!answer.body.contains("/invite/"), "the link is the patient's alone");
        let mail = self.mails().await.pop().unwrap();
        let from = mail.find("/invite/").unwrap();
        mail[from..].chars().take_while(|c| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_')).collect()
    }
}

#[tokio::test]
async fn a_long_record_shows_the_newest_value_and_what_holds_now() {
    let practice = Practice::open().await;
    let of = json!({"reference": format!("Patient/{}", practice.ada)});
    let value = |value: f64, at: &str| {
        json!({"resourceType": "Observation", "status": "final", "subject": of, "effectiveDateTime": at,
            "code": {"text": "Potassium"}, "valueQuantity": {"value": value, "unit": "mmol/l"}})
    };
    let allergy = |name: &str, status: &str| {
        json!({"resourceType": "AllergyIntolerance", "patient": of, "code": {"text": name},
            "clinicalStatus": {"coding": [{"code": status}]}})
    };
    let mut all: Vec<Value> = (0..520).map(|_| value(4.1, "2020-01-01T08:00:00Z")).collect();
    all.extend((0..520).map(|_| allergy("Dust", "resolved")));
    all.extend([value(7.7, "2026-05-27"), allergy("Penicillin", "active")]);
    let create = move |tx: &mut Tx<'_>| {
        all.into_iter().try_for_each(|body| {
            let kind = body["resourceType"].as_str().unwrap().to_owned();
            tx.create(&kind, body).map(drop)
        })
    };
    practice.site.web.store().write::<_, StoreError, _>(&Actor::program(Program::Seed), create).await.unwrap();
    let ada = practice.session(&practice.ada).await;
    let record = practice.get(&ada, "/record").await.body;
    assert!(record.contains("<b>7.7 mmol/l</b>") && record.contains("520 earlier"), "{record}");
    assert!(record.contains("420 more are older") && record.contains("Penicillin"), "{record}");
}

/// Every address of a table with ids of somebody else's in it.
pub(super) fn address(route: &Route, ids: &[(&str, &str)]) -> String {
    let part = |part: &str| match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
        Some(name) => ids.iter().find(|(own, _)| *own == name).map_or("x", |(_, id)| *id).to_owned(),
        None => part.to_owned(),
    };
    route.path.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn a_patient_sees_the_own_record_and_nothing_of_anybody_elses() {
    let practice = Practice::open().await;
    let (own_note, _) = (
        practice.note(&practice.ada, "of Ada", "final").await,
        practice.note(&practice.ada, "DRAFT", "preliminary").await,
    );
    let note = practice.note(&practice.bob, "SECRET", "final").await;
    practice.appointment(&practice.ada, "2030-05-06T09:00:00Z").await;
    let appointment = practice.appointment(&practice.bob, "2030-05-06T10:00:00Z").await;
    practice.form(&practice.ada).await;
    let form = practice.form(&practice.bob).await;
    let bob = practice.session(&practice.bob).await;
    practice.post(&bob, "/messages", &[("text", "SECRET")]).await;
    let ada = practice.session(&practice.ada).await;
    let own = practice.get(&ada, "/record").await;
    assert!(own.body.contains("of Ada") && own.body.contains("Adams"), "{}", own.body);
    assert_eq!(own.body.matches("of Ada").count(), 7, "of every kind, and the value of the test");
    let file = practice.get(&ada, &format!("/documents/{own_note}/file")).await;
    assert!(file.status == StatusCode::OK && file.body == "of Ada");
    let documents = practice.get(&ada, "/documents").await.body;
    assert!(documents.contains("of Ada") && !documents.contains("DRAFT"), "{documents}");
    // Every route with the other patient's ids.
    let consent = practice.signed(&practice.bob, "SECRET").await;
    let ids = [("document", note.as_str()), ("appointment", &appointment), ("form", &form), ("consent", &consent)];
    for route in portal_routes(&practice.site.web) {
        if ["/login", "/logout", "/invite/{token}", "/login/code"].contains(&route.path) {
            continue;
        }
        let path = address(&route, &ids);
        let mut fields = vec![("version", "1"), ("text", "hello"), ("do", "send"), ("a.why", "SECRET")];
        fields.push(("patient", &practice.ada));
        let answer = match route.method {
            Method::Get => practice.get(&ada, &path).await,
            _ => practice.post(&ada, &path, &fields).await,
        };
        assert!(!answer.body.contains("SECRET"), "{} {path}", route.method.as_str());
        if route.path.contains('{') && !route.path.starts_with("/assets") {
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{} {path}", route.method.as_str());
        }
    }
    assert_eq!(practice.site.read("Appointment", &appointment).await["status"], "booked");
    assert_eq!(practice.site.read("QuestionnaireResponse", &form).await["status"], "in-progress");
    assert_eq!(practice.site.read("Consent", &consent).await["status"], "active");
    // And the store says the same, whatever a handler might ask.
    let (actor, other) = (Actor::of_patient("account", &practice.ada), practice.bob.clone());
    let everything = move |view: &crate::store::View<'_>| {
        assert!(view.read("Patient", &other).is_err() && view.read("DocumentReference", &note).is_err());
        assert!(view.everything(&other, &Default::default()).is_err() && view.access_record(&other, 10).is_err());
        for kind in
            ["Patient", "Condition", "DocumentReference", "Appointment", "Communication", "QuestionnaireResponse"]
        {
            let found = view.search(&crate::store::Query::all(kind)?)?;
            assert!(!found.resources.is_empty() || kind == "Communication", "{kind}");
            assert!(found.resources.iter().all(|r| !r.body.contains(&other)), "{kind}");
        }
        Ok::<_, StoreError>(())
    };
    practice.site.web.store().view(&actor, everything).await.unwrap();
}

#[tokio::test]
async fn strangers_and_the_staffs_cookies_open_nothing_and_the_other_way_round() {
    let practice = Practice::open().await;
    let patient = practice.session(&practice.ada).await;
    let token = patient.cookie.split_once('=').unwrap().1.to_owned();
    let staff = practice.site.session(Role::Clinician).await;
    let planted = Browser {
        cookie: format!("{}={}", portal::COOKIE, staff.cookie.split_once('=').unwrap().1),
        csrf: staff.csrf.clone(),
    };
    for route in portal_routes(&practice.site.web) {
        let public = ["/login", "/login/code", "/invite/{token}", "/assets/{file}"].contains(&route.path);
        assert_eq!(route.policy == Policy::Public, public, "{}", route.path);
        if public {
            continue;
        }
        for browser in [&Site::nobody(), &staff, &planted] {
            let path = address(&route, &[]);
            let answer = match route.method {
                Method::Get => practice.get(browser, &path).await,
                _ => practice.post(browser, &path, &[]).await,
            };
            let refused = answer.location().starts_with("/login") || answer.status == StatusCode::FORBIDDEN;
            assert!(refused, "{} {} answered {}", route.method.as_str(), route.path, answer.status);
        }
    }
    // The patient's token under either name is nobody at the staff's door.
    for name in [portal::COOKIE, sessions::COOKIE] {
        let browser = Browser { cookie: format!("{name}={token}"), csrf: patient.csrf.clone() };
        for path in ["/patients", &format!("/patients/{}", practice.ada), "/fhir/R4/Patient"] {
            let status = practice.site.get(&browser, path).await.status;
            assert!(matches!(status, StatusCode::SEE_OTHER | StatusCode::UNAUTHORIZED), "{path} {status}");
        }
    }
}

#[tokio::test]
async fn an_invitation_opens_an_account_to_whom_it_was_meant_for() {
    let practice = Practice::open().await;
    let link = practice.invite(&practice.ada, "Ada@example.org").await;
    let nobody = Site::nobody();
    assert_eq!(practice.get(&nobody, &link).await.status, StatusCode::OK);
    let fields =
        |birth: &'static str| [("birth", birth), ("password", PASSWORD), ("again", PASSWORD), ("factor", "mail")];
    let wrong = practice.post(&nobody, &link, &fields("1970-01-01")).await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.body.contains("not the birth date"));
    let made = practice.post(&nobody, &link, &fields("1960-05-06")).await;
    assert_eq!((made.status, made.location()), (StatusCode::SEE_OTHER, "/login"), "{}", made.body);
    assert_eq!(practice.post(&nobody, &link, &fields("1960-05-06")).await.status, StatusCode::BAD_REQUEST, "used");
    // Five wrong dates end a link.
    let link = practice.invite(&practice.bob, "bob@example.org").await;
    for _ in 0..5 {
        practice.post(&nobody, &link, &fields("1970-01-01")).await;
    }
    assert_eq!(practice.post(&nobody, &link, &fields("1960-05-06")).await.status, StatusCode::BAD_REQUEST);
    // Login: password, then the mailed code, each wrong one told alike.
    for (mail, password) in [("ada@example.org", "wrong password here"), ("nobody@example.org", PASSWORD)] {
        let answer = practice.post(&nobody, "/login", &[("mail", mail), ("password", password)]).await;
        assert!(
            answer.status == StatusCode::UNPROCESSABLE_ENTITY && answer.body.contains("is not right"),
            "{}",
            answer.body
        );
    }
    let step = practice.post(&nobody, "/login", &[("mail", "ADA@example.org"), ("password", PASSWORD)]).await;
    assert_eq!(step.status, StatusCode::OK, "{}", step.body);
    let token = hidden(&step.body, "token").to_owned();
    let mail = practice.mails().await.pop().unwrap();
    let code: String = mail.split("code ").nth(1).unwrap().chars().filter(char::is_ascii_digit).take(6).collect();
    let other = if code == "000000" { "111111" } else { "000000" };
    let answer = practice.post(&nobody, "/login/code", &[("token", &token), ("code", other)]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
    let entered = practice.post(&nobody, "/login/code", &[("token", &token), ("code", &code)]).await;
    assert_eq!((entered.status, entered.location()), (StatusCode::SEE_OTHER, "/"), "{}", entered.body);
    let line = entered.headers.get_all(header::SET_COOKIE).iter().next().unwrap().to_str().unwrap();
    assert!(
        line.starts_with(portal::COOKIE) && line.contains("HttpOnly") && line.contains("SameSite=Strict"),
        "{line}"
    );
    let ada = Browser { cookie: line.split(';').next().unwrap().to_owned(), csrf: String::new() };
    let page = practice.get(&ada, "/").await;
    assert!(page.status == StatusCode::OK && page.body.contains("Adams"));
    let again = practice.post(&nobody, "/login/code", &[("token", &token), ("code", &code)]).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY, "a code is good once");
    // The desk ends the access: the session too.
    let desk = practice.site.session(Role::FrontDesk).await;
    let fields = [("patient", practice.ada.as_str()), ("do", "end")];
    practice.site.post(&desk, &format!("/patients/{}/portal", practice.ada), &fields).await;
    assert!(practice.get(&ada, "/").await.location().starts_with("/login"));
    let answer = practice.post(&nobody, "/login", &[("mail", "ada@example.org"), ("password", PASSWORD)]).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "ended");
}

#[tokio::test]
async fn an_idle_session_ends_and_too_many_failures_lock_the_address() {
    let practice = Practice::open().await;
    let ada = practice.session(&practice.ada).await;
    practice.site.later(portal::IDLE_S - 5);
    assert_eq!(practice.get(&ada, "/record").await.status, StatusCode::OK);
    practice.site.later(portal::IDLE_S + 1);
    assert!(practice.get(&ada, "/record").await.location().starts_with("/login"));
    let nobody = Site::nobody();
    let hash = practice.site.web.hash_password(PASSWORD.to_owned()).await.unwrap();
    let patient = practice.bob.clone();
    let set_up = move |db: &crate::db::Connection| {
        let new = portal::NewAccount {
            id: "bob",
            patient: &patient,
            mail: "bob@example.org",
            password_hash: &hash,
            totp_secret: None,
            totp_step: None,
            birth: None,
        };
        portal::set_up(db, &new, 1000)?;
        Ok::<_, AccountError>(())
    };
    practice.site.web.write_accounts(&Actor::anonymous(), set_up).await.unwrap();
    for _ in 0..5 {
        practice.post(&nobody, "/login", &[("mail", "bob@example.org"), ("password", "wrong")]).await;
    }
    let answer = practice.post(&nobody, "/login", &[("mail", "bob@example.org"), ("password", PASSWORD)]).await;
    assert!(answer.body.contains("too many attempts"), "{}", answer.body);
    // The desk lets him try again, and that is in the access record.
    let desk = practice.site.session(Role::FrontDesk).await;
    let path = format!("/patients/{}/portal", practice.bob);
    assert!(practice.site.get(&desk, &path).await.body.contains("failed logins are counted"));
    let unlocked = practice.site.post(&desk, &path, &[("patient", practice.bob.as_str()), ("do", "unlock")]).await;
    assert_eq!(unlocked.status, StatusCode::SEE_OTHER, "{}", unlocked.body);
    assert!(!practice.site.get(&desk, &path).await.body.contains("failed login"));
    let answer = practice.post(&nobody, "/login", &[("mail", "bob@example.org"), ("password", PASSWORD)]).await;
    assert!(answer.body.contains("Enter the code"), "{}", answer.body);
    let entries = practice.site.web.store().internal(|db| crate::audit::search(db, &Default::default(), 100)).await;
    let noted = entries.unwrap().into_iter().find(|entry| entry.kind == "unlock").unwrap();
    assert_eq!((noted.object.as_str(), &noted.patient), ("bob", &practice.bob));
    for _ in 0..5 {
        practice.post(&nobody, "/login", &[("mail", "bob@example.org"), ("password", "wrong")]).await;
    }
    let answer = practice.post(&nobody, "/login", &[("mail", "bob@example.org"), ("password", PASSWORD)]).await;
    assert!(answer.body.contains("too many attempts"), "{}", answer.body);
    // So does the command, whoever it is that can be found by the address.
    let store = practice.site.web.store().clone();
    let lift =
        move || (portal_cli::unlock(&store, " BOB@example.org"), portal_cli::unlock(&store, "nobody@example.org"));
    let lifted = tokio::task::spawn_blocking(lift).await.unwrap();
    assert!(lifted.0.is_ok() && matches!(lifted.1, Err(AccountError::UnknownMail)));
    let answer = practice.post(&nobody, "/login", &[("mail", "bob@example.org"), ("password", PASSWORD)]).await;
    assert!(answer.body.contains("Enter the code"), "{}", answer.body);
    for _ in 0..5 {
        practice.post(&nobody, "/login", &[("mail", "bob@example.org"), ("password", "wrong")]).await;
    }
    // A browser in which this patient has logged in before is not locked with it.
    let welcome = |db: &crate::db::Connection| lockout::welcome(db, None, "portal bob@example.org");
    let device = practice.site.web.write_accounts(&Actor::anonymous(), welcome).await.unwrap().unwrap();
    let cookie = format!("{}; {}={device}", nobody.cookie, lockout::PORTAL_DEVICE_COOKIE);
    let own = Browser { cookie, csrf: nobody.csrf.clone() };
    let answer = practice.post(&own, "/login", &[("mail", "bob@example.org"), ("password", PASSWORD)]).await;
    assert!(answer.body.contains("Enter the code"), "{}", answer.body);
}

#[tokio::test]
async fn a_form_goes_to_the_patient_and_comes_back_signed() {
    let practice = Practice::open().await;
    let form = practice.form(&practice.ada).await;
    let chart = practice.site.session(Role::Clinician).await;
    assert!(practice.site.get(&chart, &format!("/patients/{}", practice.ada)).await.body.contains("with the patient"));
    let ada = practice.session(&practice.ada).await;
    assert!(practice.get(&ada, "/").await.body.contains("form waits for you"));
    let path = format!("/forms/{form}");
    let page = practice.get(&ada, &path).await.body;
    let version = hidden(&page, "version").to_owned();
    let empty = practice.post(&ada, &path, &[("version", &version), ("do", "send")]).await;
    assert_eq!(empty.status, StatusCode::UNPROCESSABLE_ENTITY, "a required question");
    let kept = practice.post(&ada, &path, &[("version", &version), ("do", "save"), ("a.why", "Cough")]).await;
    assert_eq!(kept.location(), path);
    let stale = practice.post(&ada, &path, &[("version", &version), ("do", "send"), ("a.why", "Old")]).await;
    assert_eq!(stale.status, StatusCode::CONFLICT);
    let version = hidden(&practice.get(&ada, &path).await.body, "version").to_owned();
    let sent = practice.post(&ada, &path, &[("version", &version), ("do", "send"), ("a.why", "Cough")]).await;
    assert_eq!((sent.status, sent.location()), (StatusCode::SEE_OTHER, "/forms"), "{}", sent.body);
    let stored = practice.site.read("QuestionnaireResponse", &form).await;
    assert_eq!(
        (&stored["status"], &stored["item"][0]["answer"][0]["valueString"]),
        (&json!("completed"), &json!("Cough"))
    );
    let again = practice.post(&ada, &path, &[("version", "3"), ("do", "send"), ("a.why", "Changed")]).await;
    assert_eq!(again.status, StatusCode::BAD_REQUEST, "what was sent stays");
    assert!(practice.get(&ada, &path).await.body.contains("Cough"));
    assert!(practice.site.get(&chart, "/tasks").await.body.contains("A form came back: Before the visit"));
    assert!(
        practice
            .site
            .get(&chart, &format!("/patients/{}/forms/{form}", practice.ada))
            .await
            .body
            .contains("the patient")
    );
}

#[tokio::test]
async fn messages_go_both_ways_and_tasks_stay_with_the_staff() {
    let practice = Practice::open().await;
    let ada = practice.session(&practice.ada).await;
    let sent = practice.post(&ada, "/messages", &[("text", "May I travel? <script>")]).await;
    assert_eq!(sent.status, StatusCode::SEE_OTHER, "{}", sent.body);
    let desk = practice.site.session(Role::FrontDesk).await;
    let inbox = practice.site.get(&desk, "/tasks").await.body;
    assert!(inbox.contains("A patient wrote a message"), "{inbox}");
    let task = practice.newest("Task").await;
    let (id, patient) = (task["id"].as_str().unwrap(), practice.ada.as_str());
    assert!(
        practice.site.get(&desk, &format!("/tasks/{id}")).await.body.contains(&format!("/patients/{patient}/messages"))
    );
    let fields = [("patient", patient), ("version", "1"), ("status", "in-progress"), ("say", "INTERNAL remark")];
    practice.site.post(&desk, &format!("/tasks/{id}"), &fields).await;
    let thread = practice.site.get(&desk, &format!("/patients/{patient}/messages")).await.body;
    assert!(thread.contains("May I travel? &lt;script&gt;"), "{thread}");
    let fields = [("patient", patient), ("text", "Yes, you may.")];
    let answered = practice.site.post(&desk, &format!("/patients/{patient}/messages"), &fields).await;
    assert_eq!(answered.status, StatusCode::SEE_OTHER, "{}", answered.body);
    assert_eq!(practice.site.read("Task", id).await["status"], "completed");
    let seen = practice.get(&ada, "/messages").await.body;
    assert!(seen.contains("Yes, you may.") && seen.contains("Test Person") && !seen.contains("INTERNAL"), "{seen}");
    let mail = practice.mails().await.pop().unwrap();
    assert!(mail.contains("a message waits for you") && !mail.contains("travel") && !mail.contains("Yes"), "{mail}");
    let other = practice.session(&practice.bob).await;
    assert!(!practice.get(&other, "/messages").await.body.contains("travel"));
    // Nobody fills the inbox in a night.
    for _ in 0..19 {
        practice.post(&ada, "/messages", &[("text", "again")]).await;
    }
    assert_eq!(practice.post(&ada, "/messages", &[("text", "again")]).await.status, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn an_appointment_is_cancelled_once_and_before_it_begins() {
    let practice = Practice::open().await;
    let id = practice.appointment(&practice.ada, "2030-05-06T09:00:00Z").await;
    let past = practice.appointment(&practice.ada, "2020-05-06T09:00:00Z").await;
    let ada = practice.session(&practice.ada).await;
    let page = practice.get(&ada, "/appointments").await.body;
    assert!(page.contains("Check-up") && page.contains(&format!("/appointments/{id}/cancel")));
    assert!(!page.contains(&format!("/appointments/{past}/cancel")));
    let late = practice.post(&ada, &format!("/appointments/{past}/cancel"), &[("version", "1")]).await;
    assert_eq!(late.status, StatusCode::BAD_REQUEST);
    let cancel = format!("/appointments/{id}/cancel");
    assert_eq!(practice.post(&ada, &cancel, &[("version", "1")]).await.status, StatusCode::SEE_OTHER);
    assert_eq!(practice.site.read("Appointment", &id).await["status"], "cancelled");
    assert_eq!(practice.post(&ada, &cancel, &[("version", "2")]).await.status, StatusCode::BAD_REQUEST);
    let forged = Browser { csrf: "guessed".into(), ..ada };
    let other = practice.appointment(&practice.ada, "2030-05-07T09:00:00Z").await;
    let answer = practice.post(&forged, &format!("/appointments/{other}/cancel"), &[("version", "1")]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_patient_sees_who_looked() {
    let practice = Practice::open().await;
    let doctor = practice.site.session(Role::Clinician).await;
    practice.site.get(&doctor, &format!("/patients/{}", practice.ada)).await;
    practice.site.get(&doctor, &format!("/patients/{}", practice.bob)).await;
    let ada = practice.session(&practice.ada).await;
    practice.get(&ada, "/record").await;
    let page = practice.get(&ada, "/access").await.body;
    for told in ["Test Person", "clinician", "looked at", "You", "problems"] {
        assert!(page.contains(told), "{told}: {page}");
    }
    assert!(!page.contains("SECRET") && !page.contains(&practice.bob));
}

#[tokio::test]
async fn portal_pages_load_nothing_from_elsewhere_and_say_what_they_are() {
    let practice = Practice::open().await;
    let ada = practice.session(&practice.ada).await;
    for path in ["/", "/record", "/documents", "/appointments", "/forms", "/messages", "/access"] {
        let page = practice.get(&ada, path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}");
        let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{path}");
        assert_eq!(page.headers[header::CACHE_CONTROL], "no-store");
        assert!(
            !page.body.contains("style=") && !page.body.contains("onclick") && !page.body.contains("http://"),
            "{path}"
        );
        assert_eq!(page.body.matches("<h1>").count(), 1, "{path}");
    }
    let body = |tx: &mut Tx<'_>| tx.read("Patient", "nobody").map(drop);
    let refused = practice.site.web.store().write::<_, StoreError, _>(&Actor::of_patient("a", "nobody"), body).await;
    assert!(matches!(refused, Err(StoreError::NotFound)));
}
