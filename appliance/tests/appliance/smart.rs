//! Programs with tokens of their own: what they prove, what they are granted, and what stays closed to them.

use crate::support;
use appliance::access::{Actor, Grant, Program, Role, grant::Scope, smart};
use appliance::clock::Clock;
use appliance::fhir;
use appliance::store::{Expect, Mode, Query, Store, StoreError, Tx, Versions, View};
use appliance::web::{self, Web};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tower::ServiceExt;

const BASE: &str = "https://emr.example:8443";
const NOW: i64 = 1_700_000_000;

/// A program with a key of its own, and the service that it asks.
struct App {
    _dir: tempfile::TempDir,
    store: Store,
    clock: Clock,
    router: Router,
    key: EcdsaKeyPair,
    number: std::cell::Cell<u32>,
}

fn base64(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

impl App {
    async fn registered(scopes: &'static str) -> App {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW * 1000);
        let store = Store::open(support::place(dir.path()), clock.clone(), Mode::New).unwrap();
        let key = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
        let point = key.public_key().as_ref()[1..].to_vec();
        let (x, y) = point.split_at(48);
        let jwks = json!({ "keys": [{ "kty": "EC", "crv": "P-384", "kid": "k", "x": base64(x), "y": base64(y) }] });
        let register = move |tx: &mut Tx<'_>| {
            let jwks = jwks.to_string();
            let lab = smart::Registration::backend("lab", "The laboratory", &jwks, scopes);
            smart::register(tx.connection(), &lab, tx.now_ms())
        };
        store.write::<_, StoreError, _>(&Actor::program(Program::CommandLine), register).await.unwrap();
        let settings = web::Settings {
            practice_name: "x".into(),
            practice_address: String::new(),
            practice_phone: String::new(),
            zone: chrono_tz::UTC,
            idle_lock_s: 600,
            bases: vec![BASE.to_owned()],
            portal: None,
            has_mail: true,
            downtime: None,
            look_back: None,
        };
        let routes = [fhir::http::routes(&store), fhir::smart::routes(&store, vec![BASE.to_owned()])].concat();
        let router = web::app(&Web::new(store.clone(), settings), routes);
        App { _dir: dir, store, clock, router, key, number: std::cell::Cell::new(0) }
    }

    fn assertion(&self, head: Value, change: impl FnOnce(&mut Value)) -> String {
        self.number.set(self.number.get() + 1);
        let mut claims = json!({
            "iss": "lab", "sub": "lab", "aud": format!("{BASE}/oauth/token"), "exp": self.clock.unix_ms() / 1000 + 120,
            "jti": format!("n{}", self.number.get()),
        });
        change(&mut claims);
        let signed = format!("{}.{}", base64(head.to_string()), base64(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64(signature.as_ref()))
    }

    async fn ask_token(&self, assertion: &str, scope: &str) -> (StatusCode, Value) {
        let form = format!(
            "grant_type=client_credentials&client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer\
             &client_assertion={assertion}&scope={}",
            scope.replace(' ', "+")
        );
        let request = Request::post("/oauth/token").header("content-type", "application/x-www-form-urlencoded");
        let response = self.router.clone().oneshot(request.body(Body::from(form)).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn token(&self, scope: &str) -> String {
        let assertion = self.assertion(json!({ "alg": "ES384", "kid": "k" }), |_| {});
        let (status, told) = self.ask_token(&assertion, scope).await;
        assert_eq!(
            (status, &told["expires_in"], &told["scope"]),
            (StatusCode::OK, &json!(300), &json!(scope)),
            "{told}"
        );
        told["access_token"].as_str().unwrap().to_owned()
    }

    async fn call(&self, token: &str, method: &str, path: &str, body: Value) -> StatusCode {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"))
            .header("content-type", "application/fhir+json")
            .body(if body.is_null() { Body::empty() } else { Body::from(body.to_string()) });
        self.router.clone().oneshot(request.unwrap()).await.unwrap().status()
    }
}

fn head() -> Value {
    json!({ "alg": "ES384", "kid": "k" })
}

#[tokio::test]
async fn an_assertion_is_believed_once_and_only_whole() {
    let app = App::registered("system/*.rs").await;
    let good = app.assertion(head(), |_| {});
    assert_eq!(app.ask_token(&good, "system/Patient.r").await.0, StatusCode::OK);
    let (status, told) = app.ask_token(&good, "system/Patient.r").await;
    assert_eq!((status, &told["error"]), (StatusCode::UNAUTHORIZED, &json!("invalid_client")), "sent twice");
    let mut cut = app.assertion(head(), |_| {});
    cut.truncate(cut.len() - 4);
    let other = EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).unwrap();
    let foreign = {
        let own = app.assertion(head(), |_| {});
        let signed = own.rsplit_once('.').unwrap().0.to_owned();
        let signature = other.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", base64(signature.as_ref()))
    };
    let unsigned = {
        let own = app.assertion(json!({ "alg": "none" }), |_| {});
        format!("{}.", own.rsplit_once('.').unwrap().0)
    };
    let bad = [
        ("cut off", cut),
        ("signed by another key", foreign),
        ("not signed", unsigned),
        ("another algorithm", app.assertion(json!({ "alg": "RS384", "kid": "k" }), |_| {})),
        ("another key id", app.assertion(json!({ "alg": "ES384", "kid": "x" }), |_| {})),
        (
            "for another server",
            app.assertion(head(), |claims| claims["aud"] = "https://other.example/oauth/token".into()),
        ),
        ("over", app.assertion(head(), |claims| claims["exp"] = (NOW - 1).into())),
        ("too long", app.assertion(head(), |claims| claims["exp"] = (NOW + 3600).into())),
        ("of an unknown program", app.assertion(head(), |claims| claims["iss"] = "nobody".into())),
        ("for somebody else", app.assertion(head(), |claims| claims["sub"] = "nobody".into())),
        ("without a number", app.assertion(head(), |claims| drop(claims.as_object_mut().unwrap().remove("jti")))),
        ("nothing", String::new()),
    ];
    for (why, assertion) in bad {
        let (status, told) = app.ask_token(&assertion, "system/Patient.r").await;
        assert!(status.is_client_error() && told["access_token"].is_null(), "{why}: {status} {told}");
    }
    for scope in ["system/*.cruds", "user/Patient.r", "", "system/Patient.r openid", "system/AuditEvent.r"] {
        let assertion = app.assertion(head(), |_| {});
        let (status, told) = app.ask_token(&assertion, scope).await;
        assert_eq!((status, &told["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_scope")), "{scope}");
    }
}

#[tokio::test]
async fn a_token_opens_what_its_scopes_name_until_it_ends() {
    let app = App::registered("system/Patient.cruds system/Observation.rs").await;
    let token = app.token("system/Patient.crs system/Observation.s").await;
    let patient = json!({ "resourceType": "Patient", "name": [{ "family": "Abel" }] });
    let condition = json!({ "resourceType": "Condition", "subject": { "reference": "Patient/x" } });
    for (method, path, body, expected) in [
        ("POST", "/fhir/R4/Patient", patient.clone(), 201),
        ("GET", "/fhir/R4/Patient?family=Abel", Value::Null, 200),
        ("GET", "/fhir/R4/Observation", Value::Null, 200),
        ("GET", "/fhir/R4/Observation/x", Value::Null, 403),
        ("GET", "/fhir/R4/Observation?patient.family=Abel", Value::Null, 200),
        ("GET", "/fhir/R4/Observation?encounter.class=AMB", Value::Null, 403),
        ("GET", "/fhir/R4/Condition", Value::Null, 403),
        ("POST", "/fhir/R4/Condition", condition, 403),
        ("PUT", "/fhir/R4/Patient?family=Abel", patient.clone(), 403),
        ("DELETE", "/fhir/R4/Patient/x", Value::Null, 403),
        ("GET", "/fhir/R4/AuditEvent", Value::Null, 403),
        // A token is for the API: pages know cookies alone.
        ("GET", "/patients", Value::Null, 303),
    ] {
        assert_eq!(app.call(&token, method, path, body).await, expected, "{method} {path}");
    }
    assert_eq!(app.call("guessed", "GET", "/fhir/R4/Patient", Value::Null).await, 401);
    app.clock.set((NOW + smart::TOKEN_S) * 1000);
    assert_eq!(app.call(&token, "GET", "/fhir/R4/Patient", Value::Null).await, 401, "five minutes are over");
    let token = app.token("system/Patient.rs").await;
    assert_eq!(app.call(&token, "GET", "/fhir/R4/Patient", Value::Null).await, 200);
    let request = Request::post("/oauth/revoke").header("content-type", "application/x-www-form-urlencoded");
    let revoke = request.body(Body::from(format!("token={token}"))).unwrap();
    assert_eq!(app.router.clone().oneshot(revoke).await.unwrap().status(), 200);
    assert_eq!(app.call(&token, "GET", "/fhir/R4/Patient", Value::Null).await, 401, "revoked");
    let token = app.token("system/Patient.rs").await;
    let disable = |tx: &mut Tx<'_>| smart::disable(tx.connection(), "lab", tx.now_ms());
    app.store.write::<_, StoreError, _>(&Actor::program(Program::CommandLine), disable).await.unwrap();
    assert_eq!(app.call(&token, "GET", "/fhir/R4/Patient", Value::Null).await, 401, "disabled");
    assert_eq!(app.ask_token(&app.assertion(head(), |_| {}), "system/Patient.rs").await.0, StatusCode::UNAUTHORIZED);
}

/// A clinician's program bound to one patient, and everything by which it could reach another.
#[test]
fn a_grant_of_one_patient_reaches_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(support::place(dir.path()), Clock::manual(NOW * 1000), Mode::New).unwrap();
    let import = Actor::program(Program::Import);
    let put = |actor: &Actor, kind: &'static str, id: &'static str, mut body: Value, expect: Expect| {
        body["resourceType"] = kind.into();
        body["id"] = id.into();
        store.write_blocking(actor, move |tx: &mut Tx<'_>| tx.update(kind, id, body, expect))
    };
    put(&import, "Organization", "o", json!({ "name": "Lab" }), Expect::Nothing).unwrap();
    for id in ["own", "other"] {
        put(&import, "Patient", id, json!({ "name": [{ "family": id }] }), Expect::Nothing).unwrap();
    }
    let observation = |patient: &str| {
        json!({ "status": "final", "code": { "text": "x" }, "subject": { "reference": format!("Patient/{patient}") },
                "performer": [{ "reference": "Organization/o" }] })
    };
    put(&import, "Observation", "mine", observation("own"), Expect::Nothing).unwrap();
    put(&import, "Observation", "theirs", observation("other"), Expect::Nothing).unwrap();
    let scopes = ["patient/*.cruds"].iter().map(|scope| Scope::parse(scope).unwrap()).collect();
    let grant = Grant { client: "app".into(), scopes, patient: Some("own".into()) };
    let app = Actor::staff("u", "u", Role::Clinician).with_grant(grant);
    let view =
        |job: &dyn Fn(&View<'_>) -> Result<usize, StoreError>| store.view_blocking(&app, |view: &View<'_>| job(view));
    let search = |kind: &str, pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let query = Query::parse(kind, &pairs).unwrap();
        view(&|view| view.search(&query).map(|page| page.resources.len() + page.included.len()))
    };
    assert!(view(&|view| view.read("Observation", "mine").map(|_| 1)).is_ok());
    assert!(view(&|view| view.read("Organization", "o").map(|_| 1)).is_ok(), "the directory is nobody's");
    let none = |found: Result<usize, StoreError>| matches!(found, Err(StoreError::NotFound | StoreError::Denied(_)));
    assert!(none(view(&|view| view.read("Observation", "theirs").map(|_| 1))));
    assert!(none(view(&|view| view.read("Patient", "other").map(|_| 1))));
    assert!(none(view(&|view| view.version("Observation", "theirs", 1).map(|_| 1))));
    for id in [Some("theirs".to_owned()), None] {
        let asked = Versions { kind: "Observation".into(), id, since_ms: 0, before: None, count: 10 };
        assert!(none(view(&|view| view.history(&asked).map(|found| found.0.len()))));
    }
    assert!(none(view(&|view| view.everything("other", &Default::default()).map(|page| page.resources.len()))));
    let between = (i64::MIN, i64::MAX);
    assert!(none(view(&|view| view.as_of("Observation", ("other", 0), between, 10).map(|found| found.len()))));
    assert_eq!(search("Observation", &[]).unwrap(), 1);
    assert_eq!(search("Patient", &[]).unwrap(), 1);
    assert_eq!(search("Observation", &[("patient", "other")]).unwrap(), 0);
    assert_eq!(search("Observation", &[("patient.family", "other")]).unwrap(), 0);
    assert_eq!(search("Observation", &[("_id", "mine,theirs")]).unwrap(), 1);
    assert_eq!(
        search("Organization", &[("_revinclude", "Observation:performer")]).unwrap(),
        2,
        "the organization and mine"
    );
    assert!(none(search("Observation", &[("encounter.class", "AMB")])));
    for (kind, id, body) in
        [("Observation", "new", observation("other")), ("Patient", "new", json!({ "active": true }))]
    {
        assert!(none(put(&app, kind, id, body, Expect::Nothing).map(|_| 1)), "{kind}");
    }
    assert!(none(put(&app, "Observation", "theirs", observation("own"), Expect::Version(1)).map(|_| 1)));
    assert!(none(put(&app, "Observation", "mine", observation("other"), Expect::Version(1)).map(|_| 1)));
    assert!(none(put(&app, "Organization", "o", json!({ "name": "Mine" }), Expect::Version(1)).map(|_| 1)));
    put(&app, "Observation", "mine", observation("own"), Expect::Version(1)).unwrap();
}
