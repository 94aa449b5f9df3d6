//! SMART on FHIR, Backend Services: `.well-known/smart-configuration`, tokens for registered programs, revocation.

use super::http::BASE;
use super::query_pairs;
use crate::access::{Actor, smart};
use crate::audit::{Action, Event, Outcome};
use crate::store::{Store, StoreError, Tx};
use crate::web::{Method, Policy, Route};
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use std::sync::Arc;

const TOKEN_PATH: &str = "/oauth/token";
const REVOKE_PATH: &str = "/oauth/revoke";
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
    let path = "/fhir/R4/.well-known/smart-configuration";
    vec![
        Route::fhir(Method::Get, path, Policy::Public, configuration, state.clone()),
        Route::fhir(Method::Post, TOKEN_PATH, Policy::Public, token, state.clone()),
        Route::fhir(Method::Post, REVOKE_PATH, Policy::Public, revoke, state),
    ]
}

async fn configuration(State(smart): State<Smart>) -> Response {
    let base = smart.bases.first().map(String::as_str).unwrap_or_default();
    let told = json!({
        "issuer": format!("{base}{BASE}"),
        "token_endpoint": format!("{base}{TOKEN_PATH}"),
        "revocation_endpoint": format!("{base}{REVOKE_PATH}"),
        "grant_types_supported": ["client_credentials"],
        "token_endpoint_auth_methods_supported": ["private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "scopes_supported": ["system/*.cruds"],
        "capabilities": ["client-confidential-asymmetric", "permission-v1", "permission-v2"],
    });
    answer(StatusCode::OK, &told)
}

async fn token(State(smart): State<Smart>, body: Body) -> Result<Response, Response> {
    let form = form(body).await?;
    let text =
        |name: &str| form.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str()).unwrap_or_default();
    if text("grant_type") != "client_credentials" {
        return Err(refused(StatusCode::BAD_REQUEST, "unsupported_grant_type"));
    }
    if text("client_assertion_type") != ASSERTION_TYPE {
        return Err(refused(StatusCode::BAD_REQUEST, smart::Refused::Request.as_str()));
    }
    let audiences: Vec<String> = smart.bases.iter().map(|base| format!("{base}{TOKEN_PATH}")).collect();
    let (assertion, scope, fresh) =
        (text("client_assertion").to_owned(), text("scope").to_owned(), service::auth::random_token());
    let given = fresh.clone();
    let job = move |tx: &mut Tx<'_>| {
        let decided = smart::token(tx.connection(), (&assertion, &scope), &audiences, &given, tx.now_ms())?;
        tx.note(match &decided {
            Ok(grant) => Event::new(Action::Login, "app", &grant.client),
            // A name that nobody proved is not written down.
            Err(_) => Event::new(Action::Login, "app", "").outcome(Outcome::Denied),
        });
        Ok::<_, StoreError>(decided)
    };
    let decided = smart.store.write(&Actor::anonymous(), job).await.map_err(|_| unavailable())?;
    let grant = decided.map_err(|why| {
        let status = if why == smart::Refused::Client { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        refused(status, why.as_str())
    })?;
    let scopes: Vec<String> = grant.scopes.iter().map(ToString::to_string).collect();
    let told = json!({
        "access_token": fresh, "token_type": "bearer", "expires_in": smart::TOKEN_S, "scope": scopes.join(" "),
    });
    Ok(answer(StatusCode::OK, &told))
}

/// RFC 7009: a token that is not known is revoked already.
async fn revoke(State(smart): State<Smart>, body: Body) -> Result<Response, Response> {
    let form = form(body).await?;
    let token = form.into_iter().find(|(name, _)| name == "token").map(|(_, value)| value).unwrap_or_default();
    let job = move |tx: &mut Tx<'_>| smart::revoke(tx.connection(), &token);
    smart.store.write(&Actor::anonymous(), job).await.map_err(|_| unavailable())?;
    Ok(StatusCode::OK.into_response())
}

/// The token of `Authorization: Bearer`.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && (1..=128).contains(&token.len())).then_some(token)
}

async fn form(body: Body) -> Result<Vec<(String, String)>, Response> {
    let wrong = || refused(StatusCode::BAD_REQUEST, smart::Refused::Request.as_str());
    let bytes = to_bytes(body, FORM_BYTES_MAX).await.map_err(|_| wrong())?;
    std::str::from_utf8(&bytes).ok().and_then(query_pairs).ok_or_else(wrong)
}

fn unavailable() -> Response {
    refused(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable")
}

fn refused(status: StatusCode, word: &str) -> Response {
    answer(status, &json!({ "error": word }))
}

fn answer(status: StatusCode, told: &Value) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (status, headers, told.to_string()).into_response()
}
