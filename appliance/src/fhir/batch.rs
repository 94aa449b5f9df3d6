//! Batch bundles: each entry is a request of its own, carried out and refused by itself.

use super::audit_event;
use super::http::{self, BASE};
use super::interact;
use super::outcome::Outcome;
use super::types::AUDIT;
use crate::access::Actor;
use crate::store::{Store, StoreError};
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Entries of one batch at most: each is a commit of its own.
const ENTRIES_MAX: usize = 500;

/// Carries out a batch in the order of its entries.
pub async fn run(store: &Store, actor: &Actor, base: &HeaderMap, bundle: &mut Value) -> Result<String, Outcome> {
    let entries = match bundle.get_mut("entry").map(Value::take) {
        None => Vec::new(),
        Some(Value::Array(entries)) if entries.len() <= ENTRIES_MAX => entries,
        Some(Value::Array(_)) => {
            return Err(StoreError::invalid("a batch has at most 500 entries", "Bundle.entry").into());
        }
        Some(_) => return Err(StoreError::invalid("must be an array", "Bundle.entry").into()),
    };
    let mut answers = Vec::with_capacity(entries.len());
    for entry in entries {
        let response = match request(store, actor, base, entry).await {
            Ok(response) => response,
            Err(outcome) => outcome.into_response(),
        };
        answers.push(answer(response).await);
    }
    Ok(format!(r#"{{"resourceType":"Bundle","type":"batch-response","entry":[{}]}}"#, answers.join(",")))
}

/// One entry, by the handlers that answer the same request alone.
async fn request(store: &Store, actor: &Actor, base: &HeaderMap, mut entry: Value) -> Result<Response, Outcome> {
    let wrong = |sentence| Outcome::from(StoreError::invalid(sentence, "Bundle.entry.request"));
    let body = entry.get_mut("resource").map(Value::take);
    let text = |name: &str| entry.pointer(&format!("/request/{name}")).and_then(Value::as_str);
    let (Some(method), Some(url)) = (text("method"), text("url")) else {
        return Err(wrong("method and url are required"));
    };
    let url = url.split_once(&format!("{BASE}/")).map_or(url, |(_, rest)| rest).trim_start_matches('/');
    let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query.to_owned())));
    let mut headers = HeaderMap::new();
    headers.extend(base.get(header::HOST).map(|host| (header::HOST, host.clone())));
    for (name, from) in [("if-match", "ifMatch"), ("if-none-exist", "ifNoneExist"), ("if-none-match", "ifNoneMatch")] {
        if let Some(value) = text(from).and_then(|value| HeaderValue::from_str(value).ok()) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    let (state, actor, query) = (State(store.clone()), actor.clone(), RawQuery(query));
    let body = || Body::from(body.unwrap_or_default().to_string());
    let parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    let owned = |part: &String| part.clone();
    match (method, parts.as_slice()) {
        ("GET", [kind]) if kind == AUDIT => audit_event::search(state, actor, query, headers).await,
        ("GET", [kind, id]) if kind == AUDIT => audit_event::read(state, actor, Path(owned(id)), query).await,
        ("GET", [kind]) => http::search(state, actor, Path(owned(kind)), query, headers).await,
        ("GET", [kind, id]) => http::read(state, actor, Path((owned(kind), owned(id))), query, headers).await,
        ("GET", [kind, id, history, version]) if history == "_history" => {
            http::version(state, actor, Path((owned(kind), owned(id), owned(version))), headers).await
        }
        ("GET", [kind, id, operation]) if operation == "_history" => {
            interact::history_of_one(state, actor, Path((owned(kind), owned(id))), query, headers).await
        }
        ("POST", [kind]) => http::create(state, actor, Path(owned(kind)), headers, body()).await,
        ("PUT", [kind]) => interact::update_matching(state, actor, Path(owned(kind)), query, headers, body()).await,
        ("PUT", [kind, id]) => http::update(state, actor, Path((owned(kind), owned(id))), headers, body()).await,
        ("DELETE", [kind, id]) => interact::delete(state, actor, Path((owned(kind), owned(id))), headers).await,
        _ => Err(wrong("this request is not carried out in a batch")),
    }
}

/// The entry that tells what came of a request.
async fn answer(response: Response) -> String {
    let (parts, body) = response.into_parts();
    let text = |name: HeaderName| parts.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut told = json!({ "status": status(parts.status) });
    for (name, value) in [("location", text(header::LOCATION)), ("etag", text(header::ETAG))] {
        if let Some(value) = value {
            told[name] = value.into();
        }
    }
    let bytes = to_bytes(body, usize::MAX).await.unwrap_or_default();
    // Handlers answer text of their own making.
    let body = String::from_utf8_lossy(&bytes);
    match (body.is_empty(), parts.status.is_success()) {
        (true, _) => format!(r#"{{"response":{told}}}"#),
        (false, true) => format!(r#"{{"resource":{body},"response":{told}}}"#),
        (false, false) => {
            let told = told.to_string();
            let head = told.strip_suffix('}').unwrap_or(&told);
            format!(r#"{{"response":{head},"outcome":{body}}}}}"#)
        }
    }
}

fn status(status: StatusCode) -> String {
    format!("{} {}", status.as_str(), status.canonical_reason().unwrap_or_default())
}
