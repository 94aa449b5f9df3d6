//! SMART on FHIR for programs: `.well-known/smart-configuration`, tokens, introspection, revocation. What a person does for a
//! program (launch, consent) are pages, in `web/apps`.

use super::http::BASE;
use super::query_pairs;
use crate::access::smart::identity::{self, FHIR_USER, OPENID, SigningKey};
use crate::access::smart::{self, Client, Fresh, Given, Presented, Refused};
use crate::access::{Actor, Grant};
use crate::audit::{Action, Event, Outcome};
use crate::store::{Store, StoreError, Tx};
use crate::web::{Method, Policy, Route};
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use std::sync::Arc;

/// Where a person is asked.
pub const AUTHORIZE_PATH: &str = "/oauth/authorize";
pub const TOKEN_PATH: &str = "/oauth/token";
const INTROSPECT_PATH: &str = "/oauth/introspect";
const REVOKE_PATH: &str = "/oauth/revoke";
/// Where the service says what it can.
const CONFIGURATION: &str = "/fhir/R4/.well-known/smart-configuration";
/// The same for clients of OpenID Connect, who look below the issuer.
const OPENID_CONFIGURATION: &str = "/fhir/R4/.well-known/openid-configuration";
/// The keys that ID tokens are checked with.
const KEYS_PATH: &str = "/oauth/keys";
const FORM_BYTES_MAX: usize = 64 << 10;
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What the endpoints need: the records, and the addresses under which they are reached.
#[derive(Clone)]
struct Smart {
    store: Store,
    /// `https://name:port`, the first in links. An assertion must be made for one of them: what a client says in `Host` is no
    /// proof of where it wanted to go.
    bases: Arc<Vec<String>>,
}

/// The routes of the authorization server. `bases` are the addresses (`https://name:port`) of this service.
pub fn routes(store: &Store, bases: Vec<String>) -> Vec<Route> {
    let state = Smart { store: store.clone(), bases: Arc::new(bases) };
    vec![
        Route::fhir(Method::Get, CONFIGURATION, Policy::Public, configuration, state.clone()),
        Route::fhir(Method::Get, OPENID_CONFIGURATION, Policy::Public, openid_configuration, state.clone()),
        Route::fhir(Method::Get, KEYS_PATH, Policy::Public, keys, state.clone()),
        Route::fhir(Method::Post, TOKEN_PATH, Policy::Public, token, state.clone()),
        Route::fhir(Method::Post, INTROSPECT_PATH, Policy::Public, introspect, state.clone()),
        Route::fhir(Method::Post, REVOKE_PATH, Policy::Public, revoke, state),
    ]
}

/// The addresses of the authorization server, for the capability statement.
pub fn addresses(base: &str) -> [(&'static str, String); 4] {
    [
        ("authorize", format!("{base}{AUTHORIZE_PATH}")),
        ("token", format!("{base}{TOKEN_PATH}")),
        ("introspect", format!("{base}{INTROSPECT_PATH}")),
        ("revoke", format!("{base}{REVOKE_PATH}")),
    ]
}

async fn configuration(State(smart): State<Smart>) -> Response {
    let base = smart.bases.first().map(String::as_str).unwrap_or_default();
    let told = json!({
        "issuer": format!("{base}{BASE}"),
        "authorization_endpoint": format!("{base}{AUTHORIZE_PATH}"),
        "token_endpoint": format!("{base}{TOKEN_PATH}"),
        "introspection_endpoint": format!("{base}{INTROSPECT_PATH}"),
        "revocation_endpoint": format!("{base}{REVOKE_PATH}"),
        "jwks_uri": format!("{base}{KEYS_PATH}"),
        "grant_types_supported": ["authorization_code", "client_credentials", "refresh_token"],
        "response_types_supported": ["code"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post", "private_key_jwt"],
        "scopes_supported": [
            OPENID, FHIR_USER, "launch", "launch/patient", smart::ONLINE, smart::OFFLINE, "patient/*.cruds", "user/*.cruds",
            "system/*.cruds",
        ],
        "capabilities": [
            "launch-ehr", "launch-standalone", "client-public", "client-confidential-symmetric",
            "client-confidential-asymmetric", "context-ehr-patient", "context-standalone-patient", "permission-offline",
            "permission-online", "permission-patient", "permission-user", "permission-v1", "permission-v2",
            "sso-openid-connect",
        ],
    });
    answer(StatusCode::OK, &told)
}

/// OpenID Connect Discovery: only what a program needs that a person allowed to know who they are.
async fn openid_configuration(State(smart): State<Smart>) -> Response {
    let base = smart.bases.first().map(String::as_str).unwrap_or_default();
    let told = json!({
        "issuer": format!("{base}{BASE}"),
        "authorization_endpoint": format!("{base}{AUTHORIZE_PATH}"),
        "token_endpoint": format!("{base}{TOKEN_PATH}"),
        "jwks_uri": format!("{base}{KEYS_PATH}"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [identity::ALGORITHM],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"],
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": [OPENID, FHIR_USER],
        "claims_supported": ["iss", "sub", "aud", "iat", "exp", "nonce", "fhirUser"],
        "request_parameter_supported": false,
        "request_uri_parameter_supported": false,
        "authorization_response_iss_parameter_supported": true,
    });
    answer(StatusCode::OK, &told)
}

async fn keys(State(smart): State<Smart>) -> Result<Response, Response> {
    let key = signing_key(&smart).await.map_err(|_| unavailable())?;
    Ok(answer(StatusCode::OK, &json!({ "keys": [key.public()] })))
}

/// The practice's key, which is made when it is first asked for.
async fn signing_key(smart: &Smart) -> Result<SigningKey, StoreError> {
    if let Some(key) = smart.store.internal(identity::key).await? {
        return Ok(key);
    }
    let made = tokio::task::spawn_blocking(identity::generate).await.map_err(|_| StoreError::Closed)??;
    let job = move |tx: &mut Tx<'_>| {
        identity::store(tx.connection(), &made)?;
        identity::key(tx.connection())
    };
    smart.store.write::<_, StoreError, _>(&Actor::anonymous(), job).await?.ok_or(StoreError::Damaged("signing key"))
}

/// A request of a program's, read.
struct Asked(Vec<(String, String)>);

impl Asked {
    async fn read(body: Body) -> Result<Asked, Response> {
        let wrong = || refused(Refused::Request);
        let bytes = to_bytes(body, FORM_BYTES_MAX).await.map_err(|_| wrong())?;
        let pairs = std::str::from_utf8(&bytes).ok().and_then(query_pairs).ok_or_else(wrong)?;
        Ok(Asked(pairs))
    }

    fn text(&self, name: &str) -> &str {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()).unwrap_or_default()
    }

    fn given(&self, name: &str) -> Option<String> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(str::to_owned)
    }

    /// By what the program says who it is: one way, never two.
    fn presented(&self, headers: &HeaderMap) -> Result<Presented, Refused> {
        let assertion = match (self.given("client_assertion"), self.text("client_assertion_type")) {
            (Some(assertion), ASSERTION_TYPE) => Some(assertion),
            (None, "") => None,
            _ => return Err(Refused::Request),
        };
        let own =
            Presented { client: self.text("client_id").to_owned(), secret: self.given("client_secret"), assertion };
        let Some((client, secret)) = basic(headers) else { return Ok(own) };
        let contradicts = !own.client.is_empty() && own.client != client;
        if own.secret.is_some() || own.assertion.is_some() || contradicts {
            return Err(Refused::Request);
        }
        Ok(Presented { client, secret: Some(secret), assertion: None })
    }
}

/// Name and secret of `Authorization: Basic`, each encoded as in a form (RFC 6749, 2.3.1).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, value) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let pair = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(value.trim()).ok())??;
    let (name, secret) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    let mut decoded = query_pairs(&format!("{name}={secret}"))?;
    decoded.pop()
}

enum Way {
    Alone,
    Code,
    Refresh,
}

async fn token(State(smart): State<Smart>, headers: HeaderMap, body: Body) -> Result<Response, Response> {
    let asked = Asked::read(body).await?;
    let way = match asked.text("grant_type") {
        "client_credentials" => Way::Alone,
        "authorization_code" => Way::Code,
        "refresh_token" => Way::Refresh,
        _ => return Err(answer(StatusCode::BAD_REQUEST, &json!({ "error": "unsupported_grant_type" }))),
    };
    let presented = asked.presented(&headers).map_err(refused)?;
    let audiences: Vec<String> = smart.bases.iter().map(|base| format!("{base}{TOKEN_PATH}")).collect();
    let fresh = Fresh::random();
    let given = fresh.clone();
    let job = move |tx: &mut Tx<'_>| {
        let decided = match smart::authenticate(tx.connection(), &presented, &audiences, tx.now_ms())? {
            Ok(client) => decide(tx, &client, &asked, way, &given)?,
            Err(refused) => Err(refused),
        };
        tx.note(match &decided {
            Ok((given, _)) => Event::new(Action::Login, "app", &given.grant.client)
                .of_patient(given.grant.patient.as_deref().unwrap_or_default()),
            // A name that nobody proved is not written down.
            Err(_) => Event::new(Action::Login, "app", "").outcome(Outcome::Denied),
        });
        Ok::<_, StoreError>(decided)
    };
    let decided = smart.store.write(&Actor::anonymous(), job).await.map_err(|_| unavailable())?;
    let (given, words) = decided.map_err(refused)?;
    let mut told = response(&given, &fresh, &words);
    if given.identity.openid && given.nonce.is_some() {
        let issuer = format!("{}{BASE}", smart.bases.first().map(String::as_str).unwrap_or_default());
        let key = signing_key(&smart).await.map_err(|_| unavailable())?;
        let token = key.token(&issuer, &given, smart.store.clock().unix_ms() / 1000).map_err(|_| unavailable())?;
        told["id_token"] = token.into();
    }
    Ok(answer(StatusCode::OK, &told))
}

/// What is given, and the words that the answer adds to the scopes.
type Decided = Result<(Given, Vec<&'static str>), Refused>;

fn decide(tx: &Tx<'_>, client: &Client, asked: &Asked, way: Way, fresh: &Fresh) -> Result<Decided, StoreError> {
    let (db, now_ms) = (tx.connection(), tx.now_ms());
    let given = match way {
        Way::Alone => {
            smart::client_credentials(db, client, asked.text("scope"), &fresh.access, now_ms)?.map(Given::alone)
        }
        Way::Code => {
            let code = (asked.text("code"), asked.text("redirect_uri"), asked.text("code_verifier"));
            smart::exchange(db, client, code, fresh, now_ms)?
        }
        Way::Refresh => smart::refresh(db, client, (asked.text("refresh_token"), asked.text("scope")), fresh, now_ms)?,
    };
    Ok(given.map(|given| {
        let mut words = Vec::new();
        words.extend(given.grant.patient.is_some().then_some("launch/patient"));
        words.extend(given.refresh);
        words.extend(given.identity.words());
        (given, words)
    }))
}

/// The scopes on records, where there are any, and the other words.
fn joined(scopes: &str, words: &[&str]) -> String {
    let all = [scopes].into_iter().chain(words.iter().copied());
    all.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn response(given: &Given, fresh: &Fresh, words: &[&str]) -> Value {
    let Grant { scopes, patient, .. } = &given.grant;
    let scope = joined(&smart::scopes_text(scopes), words);
    let mut told = json!({
        "access_token": fresh.access, "token_type": "bearer", "expires_in": smart::TOKEN_S, "scope": scope,
    });
    if let Some(patient) = patient {
        told["patient"] = patient.as_str().into();
    }
    if given.refresh.is_some() {
        told["refresh_token"] = fresh.refresh.as_str().into();
    }
    told
}

/// RFC 7662: a program that proved itself is told of its own tokens; every other is as good as none.
async fn introspect(State(smart): State<Smart>, headers: HeaderMap, body: Body) -> Result<Response, Response> {
    let asked = Asked::read(body).await?;
    let presented = asked.presented(&headers).map_err(refused)?;
    if presented.secret.is_none() && presented.assertion.is_none() {
        return Err(refused(Refused::Client));
    }
    let addresses = |base: &String| [format!("{base}{TOKEN_PATH}"), format!("{base}{INTROSPECT_PATH}")];
    let audiences: Vec<String> = smart.bases.iter().flat_map(addresses).collect();
    let token = asked.text("token").to_owned();
    let job = move |tx: &mut Tx<'_>| {
        let client = match smart::authenticate(tx.connection(), &presented, &audiences, tx.now_ms())? {
            Ok(client) => client,
            Err(refused) => return Ok(Err(refused)),
        };
        let told = smart::introspect(tx.connection(), &client, &token, tx.now_ms())?;
        Ok::<_, StoreError>(Ok((client.id, told)))
    };
    let decided = smart.store.write(&Actor::anonymous(), job).await.map_err(|_| unavailable())?;
    let (client, told) = decided.map_err(refused)?;
    let Some(told) = told else { return Ok(answer(StatusCode::OK, &json!({ "active": false }))) };
    let scope = joined(&told.scope, &told.identity.words());
    let mut says = json!({ "active": true, "client_id": client, "scope": scope, "exp": told.expires_s });
    for (name, value) in [("sub", told.account), ("patient", told.patient)] {
        if let Some(value) = value {
            says[name] = value.into();
        }
    }
    says["token_type"] = if told.is_refresh { "refresh_token" } else { "bearer" }.into();
    Ok(answer(StatusCode::OK, &says))
}

/// RFC 7009: a token that is not known is revoked already.
async fn revoke(State(smart): State<Smart>, body: Body) -> Result<Response, Response> {
    let token = Asked::read(body).await?.text("token").to_owned();
    let job = move |tx: &mut Tx<'_>| smart::revoke(tx.connection(), &token, tx.now_ms());
    smart.store.write(&Actor::anonymous(), job).await.map_err(|_| unavailable())?;
    Ok(StatusCode::OK.into_response())
}

/// The token of `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && (1..=128).contains(&token.len())).then_some(token)
}

fn unavailable() -> Response {
    answer(StatusCode::SERVICE_UNAVAILABLE, &json!({ "error": "temporarily_unavailable" }))
}

fn refused(why: Refused) -> Response {
    let status = if why == Refused::Client { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
    answer(status, &json!({ "error": why.as_str() }))
}

fn answer(status: StatusCode, told: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, told.to_string()).into_response()
}
