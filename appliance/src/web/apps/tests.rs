//! A person lets a program act: the whole way, and every way that is closed.

use crate::access::Role;
use crate::access::smart::{self, Kind, Registration};
use crate::store::{StoreError, Tx};
use crate::web::form::percent_encode;
use crate::web::tests::{Answer, Browser, Site, hidden};
use axum::body::Body;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

const BASE: &str = "https://emr.example";
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const BACK: &str = "http://127.0.0.1:4000/back";
const SECRET: &str = "a-secret-of-this-test";

/// A practice with two patients, two public programs and one with a secret.
struct Practice {
    site: Site,
    doctor: Browser,
    own: String,
    other: String,
}

impl Practice {
    async fn open() -> Practice {
        let site = Site::new();
        let register = |tx: &mut Tx<'_>| {
            let app = Registration {
                id: "growth",
                name: "Growth charts",
                kind: Kind::Public,
                jwks: "",
                secret: "",
                scopes: "patient/*.cruds user/Patient.rs user/Appointment.rs offline_access",
                redirects: BACK,
                launch_url: "https://growth.example/launch",
            };
            smart::register(tx.connection(), &app, tx.now_ms())?;
            let other = Registration { id: "other", name: "Another", redirects: "https://other.example/back", ..app };
            smart::register(tx.connection(), &other, tx.now_ms())?;
            let server = Registration { id: "server", name: "Server", kind: Kind::Symmetric, secret: SECRET, ..app };
            smart::register(tx.connection(), &server, tx.now_ms())
        };
        let actor = crate::access::Actor::program(crate::access::Program::CommandLine);
        site.web.store().write::<_, StoreError, _>(&actor, register).await.unwrap();
        let (own, other) = (site.patient("Okonkwa").await, site.patient("Secretperson").await);
        for patient in [&own, &other] {
            let body = json!({"resourceType": "Observation", "status": "final", "code": {"text": "Weight"},
                "subject": {"reference": format!("Patient/{patient}")}});
            site.store("Observation", body).await;
        }
        let doctor = site.session(Role::Clinician).await;
        Practice { site, doctor, own, other }
    }

    fn challenge() -> String {
        BASE64_URL_SAFE_NO_PAD.encode(service::auth::token_hash(VERIFIER))
    }

    /// The parameters of a good request; each test changes one.
    fn asked(&self) -> Vec<(&'static str, String)> {
        vec![
            ("response_type", "code".into()),
            ("client_id", "growth".into()),
            ("redirect_uri", BACK.into()),
            ("scope", "launch/patient patient/*.rs offline_access".into()),
            ("state", "the state".into()),
            ("aud", format!("{BASE}/fhir/R4")),
            ("code_challenge", Self::challenge()),
            ("code_challenge_method", "S256".into()),
            ("chosen", self.own.clone()),
        ]
    }

    async fn ask(&self, asked: &[(&str, String)]) -> Answer {
        self.site.get(&self.doctor, &address(asked)).await
    }

    async fn decide(&self, asked: &[(&'static str, String)], word: &'static str) -> Answer {
        let fields: Vec<(&str, &str)> =
            asked.iter().map(|(name, value)| (*name, value.as_str())).chain([("do", word)]).collect();
        self.site.post(&self.doctor, "/oauth/authorize", &fields).await
    }

    /// A code for a good request with changes.
    async fn code(&self, changes: &[(&'static str, &str)]) -> String {
        let asked = changed(self.asked(), changes);
        let answer = self.decide(&asked, "allow").await;
        part(answer.location(), "code").unwrap_or_else(|| panic!("{} {}", answer.status, answer.location()))
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)], basic: Option<&str>) -> (StatusCode, Value) {
        let body: Vec<String> = fields.iter().map(|(n, v)| format!("{n}={}", percent_encode(v))).collect();
        let mut request = Request::post(path).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(pair) = basic {
            request = request.header(header::AUTHORIZATION, format!("Basic {}", BASE64_STANDARD.encode(pair)));
        }
        let answer = self.site.send(request.body(Body::from(body.join("&"))).unwrap()).await;
        (answer.status, serde_json::from_str(&answer.body).unwrap_or(Value::Null))
    }

    async fn trade(&self, code: &str, changes: &[(&'static str, &str)]) -> (StatusCode, Value) {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", BACK),
            ("code_verifier", VERIFIER),
            ("client_id", "growth"),
        ];
        let fields: Vec<(&str, &str)> = fields
            .iter()
            .map(|(name, value)| (*name, changes.iter().find(|(n, _)| n == name).map_or(*value, |(_, v)| *v)))
            .collect();
        self.post("/oauth/token", &fields, None).await
    }

    async fn renew(&self, token: &str, client: &str) -> (StatusCode, Value) {
        let fields = [("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", client)];
        self.post("/oauth/token", &fields, None).await
    }

    async fn fhir(&self, token: &str, path: &str) -> Answer {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {token}"));
        self.site.send(request.body(Body::empty()).unwrap()).await
    }
}

fn changed(mut asked: Vec<(&'static str, String)>, changes: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    for (name, value) in changes {
        asked.retain(|(own, _)| own != name);
        asked.push((name, (*value).to_owned()));
    }
    asked
}

fn address(asked: &[(&str, String)]) -> String {
    let all: Vec<String> = asked.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    format!("/oauth/authorize?{}", all.join("&"))
}

/// A parameter of an address.
fn part(url: &str, name: &str) -> Option<String> {
    let pairs = crate::fhir::query_pairs(url.split_once('?')?.1)?;
    pairs.into_iter().find(|(own, _)| own == name).map(|(_, value)| value)
}

fn text(told: &Value, name: &str) -> String {
    told[name].as_str().unwrap_or_else(|| panic!("no {name} in {told}")).to_owned()
}

#[tokio::test]
async fn a_program_gets_what_was_allowed_for_the_patient_who_was_chosen() {
    let practice = Practice::open().await;
    let page = practice.ask(&practice.asked()).await;
    assert_eq!(page.status, StatusCode::OK);
    for told in ["Growth charts", "Okonkwa", "Test Person", "90 days", "http://127.0.0.1:4000"] {
        assert!(page.body.contains(told), "{told}");
    }
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("form-action 'self' http://127.0.0.1:4000;") && !policy.contains("unsafe"), "{policy}");
    let back = practice.decide(&practice.asked(), "allow").await;
    let to = back.location();
    assert!(back.status == StatusCode::SEE_OTHER && to.starts_with(&format!("{BACK}?")), "{to}");
    assert_eq!(part(to, "state").as_deref(), Some("the state"));
    assert_eq!(part(to, "iss").as_deref(), Some("https://emr.example/fhir/R4"));
    let (status, told) = practice.trade(&part(to, "code").unwrap(), &[]).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    assert_eq!(told["scope"], "patient/*.rs launch/patient offline_access");
    assert_eq!((&told["patient"], &told["expires_in"]), (&json!(practice.own), &json!(300)));
    let token = text(&told, "access_token");
    let bundle: Value = serde_json::from_str(&practice.fhir(&token, "/fhir/R4/Observation").await.body).unwrap();
    assert_eq!(bundle["entry"].as_array().unwrap().len(), 1, "only of the patient who was chosen");
    for (path, expected) in [
        (format!("/fhir/R4/Patient/{}", practice.own), 200),
        (format!("/fhir/R4/Patient/{}", practice.other), 404),
        (format!("/fhir/R4/Patient/{}/$everything", practice.other), 404),
        ("/fhir/R4/AuditEvent".to_owned(), 403),
        ("/patients".to_owned(), 303),
    ] {
        assert_eq!(practice.fhir(&token, &path).await.status.as_u16(), expected, "{path}");
    }
    let other = practice.fhir(&token, &format!("/fhir/R4/Observation?patient={}", practice.other)).await;
    assert!(!other.body.contains("Weight"), "{}", other.body);
    practice.site.later(301);
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::UNAUTHORIZED);
    let (_, told) = practice.renew(&text(&told, "refresh_token"), "growth").await;
    assert_eq!(practice.fhir(&text(&told, "access_token"), "/fhir/R4/Observation").await.status, StatusCode::OK);
}

#[tokio::test]
async fn nothing_is_sent_to_an_address_that_is_not_the_programs_own() {
    let practice = Practice::open().await;
    for changes in [
        [("client_id", "nobody")],
        [("redirect_uri", "https://evil.example/back")],
        [("redirect_uri", "http://127.0.0.1:4000/back/")],
        [("redirect_uri", "http://127.0.0.1:4000/back?x=1")],
        [("redirect_uri", "")],
        // Another program's address is not this one's.
        [("redirect_uri", "https://other.example/back")],
    ] {
        let asked = changed(practice.asked(), &changes);
        for answer in [practice.ask(&asked).await, practice.decide(&asked, "allow").await] {
            assert_eq!((answer.status, answer.location()), (StatusCode::BAD_REQUEST, ""), "{changes:?}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_told_to_the_program() {
    let practice = Practice::open().await;
    let long = "x".repeat(1025);
    for (changes, word) in [
        ([("response_type", "token")], "unsupported_response_type"),
        ([("code_challenge_method", "plain")], "invalid_request"),
        ([("code_challenge_method", "")], "invalid_request"),
        ([("code_challenge", "")], "invalid_request"),
        ([("code_challenge", VERIFIER.trim_start_matches('d'))], "invalid_request"),
        ([("aud", "https://other.example/fhir/R4")], "invalid_request"),
        ([("aud", "")], "invalid_request"),
        ([("scope", "")], "invalid_scope"),
        ([("scope", "openid fhirUser")], "invalid_scope"),
        ([("scope", "system/*.rs")], "invalid_scope"),
        ([("scope", "user/Condition.rs")], "invalid_scope"),
        ([("launch", "guessed")], "invalid_request"),
        ([("state", long.as_str())], "invalid_request"),
    ] {
        let asked = changed(practice.asked(), &changes);
        for answer in [practice.ask(&asked).await, practice.decide(&asked, "allow").await] {
            assert_eq!(part(answer.location(), "error").as_deref(), Some(word), "{changes:?} {}", answer.status);
            assert!(part(answer.location(), "code").is_none());
        }
    }
    let refused = practice.decide(&practice.asked(), "refuse").await;
    assert_eq!(part(refused.location(), "error").as_deref(), Some("access_denied"));
    assert_eq!(part(refused.location(), "state").as_deref(), Some("the state"));
    let forged = Browser { csrf: "guessed".into(), ..practice.doctor.clone() };
    let fields: Vec<(&str, &str)> = vec![("do", "allow")];
    assert_eq!(practice.site.post(&forged, "/oauth/authorize", &fields).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_code_is_good_once_for_its_program_its_address_and_its_verifier() {
    let practice = Practice::open().await;
    for changes in [
        &[("code_verifier", "another-verifier-that-is-long-enough-to-be-one-really")][..],
        &[("code_verifier", "")],
        &[("code_verifier", &Practice::challenge())],
        &[("redirect_uri", "https://other.example/back")],
        // Mixed up: the code of one program in the hands of another.
        &[("client_id", "other"), ("redirect_uri", "https://other.example/back")],
        &[("client_id", "other")],
    ] {
        let code = practice.code(&[]).await;
        let (status, told) = practice.trade(&code, changes).await;
        assert_eq!((status, &told["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_grant")), "{changes:?}");
        let (status, _) = practice.trade(&code, &[]).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "a code that came back wrong is over: {changes:?}");
    }
    let code = practice.code(&[]).await;
    let (_, told) = practice.trade(&code, &[]).await;
    let (token, refresh) = (text(&told, "access_token"), text(&told, "refresh_token"));
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::OK);
    assert_eq!(practice.trade(&code, &[]).await.1["error"], "invalid_grant");
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::UNAUTHORIZED, "stolen code");
    assert_eq!(practice.renew(&refresh, "growth").await.0, StatusCode::BAD_REQUEST);
    let late = practice.code(&[]).await;
    practice.site.later(smart::CODE_S);
    assert_eq!(practice.trade(&late, &[]).await.1["error"], "invalid_grant", "a minute is over");
}

#[tokio::test]
async fn a_refresh_token_is_new_at_each_use_and_a_second_use_ends_all() {
    let practice = Practice::open().await;
    let (_, told) = practice.trade(&practice.code(&[]).await, &[]).await;
    let first = text(&told, "refresh_token");
    let (_, told) = practice.renew(&first, "growth").await;
    let (second, token) = (text(&told, "refresh_token"), text(&told, "access_token"));
    assert_ne!(first, second);
    assert_eq!(practice.renew(&first, "growth").await.1["error"], "invalid_grant");
    assert_eq!(practice.renew(&second, "growth").await.1["error"], "invalid_grant", "the thief's and the owner's end");
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::UNAUTHORIZED);
    // In the hands of another program it is as bad.
    let (_, told) = practice.trade(&practice.code(&[]).await, &[]).await;
    let token = text(&told, "refresh_token");
    assert_eq!(practice.renew(&token, "other").await.1["error"], "invalid_grant");
    assert_eq!(practice.renew(&token, "growth").await.1["error"], "invalid_grant");
    // Fewer scopes can be asked, more cannot.
    let (_, told) = practice.trade(&practice.code(&[]).await, &[]).await;
    let token = text(&told, "refresh_token");
    let ask = |scope: &'static str, token: String| {
        let practice = &practice;
        async move {
            let fields =
                [("grant_type", "refresh_token"), ("refresh_token", &token), ("client_id", "growth"), ("scope", scope)];
            practice.post("/oauth/token", &fields, None).await
        }
    };
    assert_eq!(ask("patient/*.cruds", token.clone()).await.1["error"], "invalid_scope");
    let (_, told) = ask("patient/Patient.r", token).await;
    let narrow = text(&told, "access_token");
    assert_eq!(practice.fhir(&narrow, "/fhir/R4/Observation").await.status, StatusCode::FORBIDDEN);
    assert_eq!(practice.fhir(&narrow, &format!("/fhir/R4/Patient/{}", practice.own)).await.status, StatusCode::OK);
    // Nobody used it for a month.
    practice.site.later(31 * 86_400);
    assert_eq!(practice.renew(&text(&told, "refresh_token"), "growth").await.1["error"], "invalid_grant");
}

#[tokio::test]
async fn what_was_allowed_ends_with_the_session_the_account_or_the_wish() {
    let practice = Practice::open().await;
    let online = [("scope", "patient/*.rs online_access")];
    let (_, told) = practice.trade(&practice.code(&online).await, &[]).await;
    let (token, refresh) = (text(&told, "access_token"), text(&told, "refresh_token"));
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::OK);
    let page = practice.site.get(&practice.doctor, "/account/apps").await.body;
    assert!(page.contains("Growth charts"));
    // Somebody else cannot end it, its giver can.
    let stranger = practice.site.session(Role::Clinician).await;
    let grant = hidden(&page, "grant").to_owned();
    let ended = practice.site.post(&stranger, "/account/apps", &[("grant", &grant)]).await;
    assert_eq!(ended.status, StatusCode::NOT_FOUND);
    practice.site.post(&practice.doctor, "/account/apps", &[("grant", &grant)]).await;
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(practice.renew(&refresh, "growth").await.0, StatusCode::BAD_REQUEST);
    // Without a wish for more there is one short token.
    let (_, told) = practice.trade(&practice.code(&[("scope", "patient/*.rs")]).await, &[]).await;
    assert!(told["refresh_token"].is_null(), "{told}");
    let (_, told) = practice.trade(&practice.code(&online).await, &[]).await;
    let (token, refresh) = (text(&told, "access_token"), text(&told, "refresh_token"));
    practice.site.post(&practice.doctor, "/logout", &[]).await;
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::UNAUTHORIZED, "logged out");
    assert_eq!(practice.renew(&refresh, "growth").await.0, StatusCode::BAD_REQUEST);
    let doctor = practice.site.session(Role::Clinician).await;
    let practice = Practice { doctor, ..practice };
    let (_, told) = practice.trade(&practice.code(&[]).await, &[]).await;
    let admin = practice.site.session(Role::PracticeAdmin).await;
    practice.site.post(&admin, "/apps/end", &[("app", "growth")]).await;
    let token = text(&told, "access_token");
    assert_eq!(practice.fhir(&token, "/fhir/R4/Observation").await.status, StatusCode::UNAUTHORIZED, "program ended");
    assert_eq!(practice.renew(&text(&told, "refresh_token"), "growth").await.1["error"], "invalid_client");
    assert_eq!(practice.ask(&practice.asked()).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_program_never_gets_more_than_the_role_of_who_allows_it() {
    let practice = Practice::open().await;
    let doctor = practice.site.session(Role::FrontDesk).await;
    let practice = Practice { doctor, ..practice };
    let scope = "patient/*.cruds user/Patient.rs";
    let (_, told) = practice.trade(&practice.code(&[("scope", scope)]).await, &[]).await;
    let token = text(&told, "access_token");
    for (path, expected) in [
        ("/fhir/R4/Observation".to_owned(), 403),
        ("/fhir/R4/DocumentReference".to_owned(), 403),
        (format!("/fhir/R4/Patient/{}", practice.own), 200),
        // By the scope on what the person sees, all that they register.
        (format!("/fhir/R4/Patient/{}", practice.other), 200),
    ] {
        assert_eq!(practice.fhir(&token, &path).await.status.as_u16(), expected, "{path}");
    }
    // The record says who and by what.
    let audit = practice.site.session(Role::PracticeAdmin).await;
    assert!(practice.site.get(&audit, "/audit").await.body.contains("by Growth charts"));
}

#[tokio::test]
async fn a_chart_starts_a_program_for_its_patient_and_its_person_alone() {
    let practice = Practice::open().await;
    let chart = format!("/patients/{}/apps", practice.own);
    let page = practice.site.get(&practice.doctor, &chart).await;
    assert!(page.body.contains("Growth charts"));
    let policy = page.headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("form-action 'self' https://growth.example"), "{policy}");
    let begin = async || {
        let fields = [("patient", practice.own.as_str()), ("app", "growth")];
        let to = practice.site.post(&practice.doctor, &chart, &fields).await.location().to_owned();
        assert!(to.starts_with("https://growth.example/launch?"), "{to}");
        assert_eq!(part(&to, "iss").as_deref(), Some("https://emr.example/fhir/R4"));
        part(&to, "launch").unwrap()
    };
    let launch = begin().await;
    // Whatever the program says: the patient is that of the launch.
    let asked = [("launch", launch.as_str()), ("scope", "launch patient/*.rs"), ("chosen", &practice.other)];
    let page = practice.ask(&changed(practice.asked(), &asked)).await;
    assert!(page.body.contains("Okonkwa") && !page.body.contains("Secretperson"));
    let code = practice.code(&asked).await;
    assert_eq!(practice.trade(&code, &[]).await.1["patient"], json!(practice.own));
    let again = practice.decide(&changed(practice.asked(), &asked), "allow").await;
    assert_eq!(part(again.location(), "error").as_deref(), Some("invalid_request"), "a launch is good once");
    let launch = begin().await;
    let stolen = changed(practice.asked(), &[("launch", &launch)]);
    let stranger = practice.site.session(Role::Clinician).await;
    let answer = practice.site.get(&stranger, &address(&stolen)).await;
    assert_eq!(part(answer.location(), "error").as_deref(), Some("invalid_request"), "of another person");
    let other = [("client_id", "other"), ("redirect_uri", "https://other.example/back"), ("launch", launch.as_str())];
    let answer = practice.ask(&changed(practice.asked(), &other)).await;
    assert_eq!(part(answer.location(), "error").as_deref(), Some("invalid_request"), "of another program");
    practice.site.later(301);
    let answer = practice.ask(&stolen).await;
    assert!(answer.location().starts_with("/unlock") || part(answer.location(), "error").is_some(), "five minutes");
}

#[tokio::test]
async fn who_is_not_logged_in_is_asked_to_and_comes_back() {
    let practice = Practice::open().await;
    let asked = address(&practice.asked());
    let answer = practice.site.get(&Site::nobody(), &asked).await;
    assert!(answer.location().starts_with("/login?to=%2Foauth%2Fauthorize"), "{}", answer.location());
    // From another site the browser leaves the cookie out: one step through a page of ours brings it back.
    let request = Request::get(&asked).header("sec-fetch-site", "cross-site").body(Body::empty()).unwrap();
    let answer = practice.site.send(request).await;
    assert!(answer.status == StatusCode::OK && answer.body.contains("http-equiv=\"refresh\""), "{}", answer.body);
    // Nobody chosen: the page finds patients, and the choice leads on.
    let unchosen = changed(practice.asked(), &[("chosen", "")]);
    let page = practice.ask(&[unchosen.clone(), vec![("find", "Okonkwa".into())]].concat()).await;
    assert!(page.body.contains(&format!("chosen={}", practice.own)) && !page.body.contains("value=\"allow\""));
    assert_eq!(practice.decide(&unchosen, "allow").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_program_with_a_secret_proves_it_and_asks_about_its_own_tokens() {
    let practice = Practice::open().await;
    let code = || async { practice.code(&[("client_id", "server")]).await };
    let fields = |code: &str| {
        [("grant_type", "authorization_code"), ("code", code), ("redirect_uri", BACK), ("code_verifier", VERIFIER)]
            .map(|(n, v)| (n.to_owned(), v.to_owned()))
    };
    let trade = async |code: String, more: &[(&str, &str)], basic: Option<&str>| {
        let own = fields(&code);
        let all: Vec<(&str, &str)> =
            own.iter().map(|(n, v)| (n.as_str(), v.as_str())).chain(more.iter().copied()).collect();
        practice.post("/oauth/token", &all, basic).await
    };
    for (more, basic) in [
        (&[("client_id", "server")][..], None),
        (&[("client_id", "server"), ("client_secret", "wrong")], None),
        (&[], Some("server:wrong")),
        (&[("client_id", "growth")], Some("server:a-secret-of-this-test")),
        (&[("client_secret", SECRET)], Some("server:a-secret-of-this-test")),
        // A public program has no secret that it could show.
        (&[("client_id", "growth"), ("client_secret", SECRET)], None),
    ] {
        let (status, told) = trade(code().await, more, basic).await;
        assert!(status.is_client_error() && told["access_token"].is_null(), "{more:?} {basic:?} {told}");
    }
    let with_body = trade(code().await, &[("client_id", "server"), ("client_secret", SECRET)], None).await;
    assert_eq!(with_body.0, StatusCode::OK);
    let (status, told) = trade(code().await, &[], Some("server:a-secret-of-this-test")).await;
    assert_eq!(status, StatusCode::OK, "{told}");
    let (access, refresh) = (text(&told, "access_token"), text(&told, "refresh_token"));
    let own = Some("server:a-secret-of-this-test");
    let (_, told) = practice.post("/oauth/introspect", &[("token", &access)], own).await;
    assert_eq!(
        (&told["active"], &told["client_id"], &told["patient"]),
        (&json!(true), &json!("server"), &json!(practice.own))
    );
    assert_eq!(practice.post("/oauth/introspect", &[("token", &refresh)], own).await.1["token_type"], "refresh_token");
    assert_eq!(practice.post("/oauth/introspect", &[("token", "guessed")], own).await.1, json!({"active": false}));
    let (_, foreign) = practice.trade(&practice.code(&[]).await, &[]).await;
    let foreign = text(&foreign, "access_token");
    assert_eq!(practice.post("/oauth/introspect", &[("token", &foreign)], own).await.1, json!({"active": false}));
    let open = practice.post("/oauth/introspect", &[("token", &access), ("client_id", "growth")], None).await;
    assert_eq!(open.0, StatusCode::UNAUTHORIZED, "a public program proves nothing");
    practice.post("/oauth/revoke", &[("token", &refresh)], None).await;
    assert_eq!(practice.post("/oauth/introspect", &[("token", &access)], own).await.1, json!({"active": false}));
    assert_eq!(practice.fhir(&access, "/fhir/R4/Observation").await.status, StatusCode::UNAUTHORIZED, "revoked");
}

/// The claims of an ID token whose signature a key of the service's key set proves.
async fn claims(practice: &Practice, token: &str) -> Value {
    let keys = practice.site.get(&Site::nobody(), "/oauth/keys").await;
    let keys: Value = serde_json::from_str(&keys.body).unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let decoded = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).unwrap();
    let json = |text: &str| serde_json::from_slice::<Value>(&decoded(text)).unwrap();
    let (head, claims) = signed.split_once('.').unwrap();
    let head = json(head);
    assert_eq!((&head["alg"], &head["kid"]), (&json!("RS256"), &keys["keys"][0]["kid"]));
    let (n, e) = (decoded(&text(&keys["keys"][0], "n")), decoded(&text(&keys["keys"][0], "e")));
    let key = aws_lc_rs::signature::RsaPublicKeyComponents { n, e };
    let scheme = &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256;
    key.verify(scheme, signed.as_bytes(), &decoded(signature)).expect("a key of the key set signed it");
    assert!(key.verify(scheme, b"something else", &decoded(signature)).is_err());
    json(claims)
}

#[tokio::test]
async fn who_the_person_is_is_told_to_a_program_that_they_let_know() {
    let practice = Practice::open().await;
    let register = |tx: &mut Tx<'_>| {
        let app = Registration {
            id: "rounds",
            name: "Ward rounds",
            kind: Kind::Public,
            jwks: "",
            secret: "",
            scopes: "patient/*.rs openid fhirUser offline_access",
            redirects: BACK,
            launch_url: "",
        };
        smart::register(tx.connection(), &app, tx.now_ms())?;
        tx.connection().execute("UPDATE account SET practitioner = 'dr-1'", [])?;
        Ok::<_, StoreError>(())
    };
    let actor = crate::access::Actor::program(crate::access::Program::CommandLine);
    practice.site.web.store().write(&actor, register).await.unwrap();
    let trade = async |changes: &[(&'static str, &str)]| {
        let changes = [changes, &[("client_id", "rounds"), ("nonce", "n-0S6_WzA2Mj")]].concat();
        practice.trade(&practice.code(&changes).await, &[("client_id", "rounds")]).await.1
    };
    let asked = changed(practice.asked(), &[("client_id", "rounds"), ("scope", "openid fhirUser patient/*.rs")]);
    assert!(practice.ask(&asked).await.body.contains("It is told that it is you, with your entry in the directory"));
    let told = trade(&[("scope", "openid fhirUser patient/*.rs offline_access")]).await;
    assert_eq!(told["scope"], "patient/*.rs launch/patient offline_access openid fhirUser");
    let known = claims(&practice, &text(&told, "id_token")).await;
    let now = practice.site.web.now();
    assert_eq!(
        (&known["iss"], &known["aud"], &known["nonce"], &known["fhirUser"]),
        (
            &json!("https://emr.example/fhir/R4"),
            &json!("rounds"),
            &json!("n-0S6_WzA2Mj"),
            &json!("https://emr.example/fhir/R4/Practitioner/dr-1")
        )
    );
    assert_eq!((&known["iat"], &known["exp"]), (&json!(now), &json!(now + 300)));
    assert!(text(&known, "sub").starts_with("id-clinician"));
    let refreshed = practice.renew(&text(&told, "refresh_token"), "rounds").await.1;
    assert!(refreshed["id_token"].is_null() && refreshed["access_token"].is_string(), "{refreshed}");
    // To know who it is and nothing else opens no record.
    let told = trade(&[("scope", "openid")]).await;
    assert_eq!(told["scope"], "openid");
    let own = claims(&practice, &text(&told, "id_token")).await;
    assert!(own["fhirUser"].is_null() && own["sub"] == known["sub"]);
    let path = format!("/fhir/R4/Patient/{}", practice.own);
    assert_eq!(practice.fhir(&text(&told, "access_token"), &path).await.status, StatusCode::FORBIDDEN);
    // Without `openid` nobody is named, and one that is not registered for it is not told.
    assert!(trade(&[("scope", "fhirUser patient/*.rs")]).await["id_token"].is_null());
    let code = practice.code(&[("scope", "openid fhirUser patient/*.rs")]).await;
    let (_, told) = practice.trade(&code, &[]).await;
    assert!(told["id_token"].is_null() && told["scope"] == "patient/*.rs launch/patient", "{told}");
    let long = changed(practice.asked(), &[("nonce", &"x".repeat(257))]);
    assert_eq!(part(practice.ask(&long).await.location(), "error").as_deref(), Some("invalid_request"));
    // What a client of OpenID Connect looks for, below the issuer.
    let found = practice.site.get(&Site::nobody(), "/fhir/R4/.well-known/openid-configuration").await;
    let found: Value = serde_json::from_str(&found.body).unwrap();
    assert_eq!((&found["issuer"], &found["jwks_uri"]), (&known["iss"], &json!("https://emr.example/oauth/keys")));
}

#[tokio::test]
async fn an_administrator_registers_and_nobody_else() {
    let practice = Practice::open().await;
    let admin = practice.site.session(Role::PracticeAdmin).await;
    let form = [
        ("name", "Kidney \"app\" <b>"),
        ("kind", "symmetric"),
        ("scopes", "patient/Observation.read launch"),
        ("redirects", "https://kidney.example/back\nhttps://kidney.example/other"),
    ];
    let answer = practice.site.post(&admin, "/apps/new", &form).await;
    assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "launch is not a scope on records");
    let mut form = form;
    form[2].1 = "patient/Observation.read user/Patient.rs";
    let answer = practice.site.post(&admin, "/apps/new", &form).await;
    assert!(answer.status == StatusCode::OK && answer.body.contains("shown only once"), "{}", answer.body);
    assert!(practice.site.get(&admin, "/apps").await.body.contains("Kidney &quot;app&quot; &lt;b&gt;"));
    let knowing = [&form[..], &[("identity", "yes")]].concat();
    assert_eq!(practice.site.post(&admin, "/apps/new", &knowing).await.status, StatusCode::OK);
    assert_eq!(practice.site.get(&admin, "/apps").await.body.matches("user/Patient.rs openid fhirUser").count(), 1);
    for bad in
        [("redirects", "http://kidney.example/back"), ("redirects", ""), ("kind", "backend"), ("scopes", "system/*.rs")]
    {
        let changed: Vec<(&str, &str)> = form.iter().map(|f| if f.0 == bad.0 { bad } else { *f }).collect();
        let answer = practice.site.post(&admin, "/apps/new", &changed).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{bad:?}");
    }
    for role in [Role::FrontDesk, Role::Clinician] {
        let other = practice.site.session(role).await;
        assert_eq!(practice.site.post(&other, "/apps/new", &form).await.status, StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn pages_of_public_programs_may_ask_across_sites_and_no_others() {
    let practice = Practice::open().await;
    let ask = async |method: &str, path: &str, origin: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ORIGIN, origin)
            .header("sec-fetch-site", "cross-site")
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "GET");
        let answer = practice.site.send(request.body(Body::empty()).unwrap()).await;
        (answer.status, answer.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN).map(|v| v.to_str().unwrap().to_owned()))
    };
    let known = Some("https://other.example".to_owned());
    assert_eq!(
        ask("OPTIONS", "/fhir/R4/Patient", "https://other.example").await,
        (StatusCode::NO_CONTENT, known.clone())
    );
    assert_eq!(ask("GET", "/fhir/R4/metadata", "https://other.example").await, (StatusCode::OK, known.clone()));
    assert_eq!(ask("POST", "/oauth/token", "https://other.example").await, (StatusCode::BAD_REQUEST, known));
    for (path, origin) in [
        ("/fhir/R4/Patient", "https://evil.example"),
        ("/fhir/R4/Patient", "https://other.example.evil.example"),
        ("/fhir/R4/Patient", "null"),
        ("/patients", "https://other.example"),
        ("/oauth/authorize", "https://other.example"),
    ] {
        for method in ["GET", "OPTIONS"] {
            assert_eq!(ask(method, path, origin).await.1, None, "{method} {path} {origin}");
        }
    }
    // No answer to another site ever carries a cookie's rights.
    let request = Request::get("/fhir/R4/metadata").header(header::ORIGIN, "https://other.example");
    let answer = practice.site.send(request.body(Body::empty()).unwrap()).await;
    assert!(!answer.headers.contains_key(header::ACCESS_CONTROL_ALLOW_CREDENTIALS));
}
