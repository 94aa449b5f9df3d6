//! The routes under `/fhir/R4`.
//!
//! | request | answer |
//! |---|---|
//! | `GET metadata`, `GET openapi.json` | capability statement; the same routes as OpenAPI |
//! | `POST` (root) | transaction or batch bundle |
//! | `GET Type?...` | search, paged by `_count` and the bundle's `next` link |
//! | `POST Type/_search` | the same, with the parameters in a form |
//! | `POST Type`, `PUT Type/id` | create, update (`If-Match` required where the resource exists) |
//! | `PUT Type?condition` | update of what meets a condition; `POST Type` with `If-None-Exist`: create unless something does |
//! | `PATCH Type/id`, `DELETE Type/id` | JSON Patch; the end of a resource, whose versions are kept |
//! | `GET Type/id`, `GET Type/id/_history/version` | read, vread |
//! | `GET Type/id/_history`, `GET Type/_history` | versions, newest first |
//! | `Group/id/$export`, then `$export/job` and its files | bulk export as NDJSON |
//! | `Patient/id/$everything`, `Type/$validate`, `Patient/$match` | operations |
//! | `GET AuditEvent?...`, `GET AuditEvent/number` | the audit, for who may see it |
//! | `GET Binary/id`, `POST Binary` | an attachment's bytes; `X-Security-Context: Patient/id` says whose it is |

use super::outcome::Outcome;
use super::searchset::{self, Asked};
use super::shape::Shape;
use super::{
    audit_event, batch, capability, etag, etag_version, export, interact, json, negotiate, openapi, query_pairs,
};
use crate::access::{Action, Actor};
use crate::attachments::ATTACHMENT_BYTES_MAX;
use crate::store::{Expect, Query, Resource, Store, StoreError, Tx, View};
use crate::web::{Method, Policy, Route, Target};
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::format::{Item, StrftimeItems};
use serde_json::Value;
use std::sync::LazyLock;

/// Where the API lives.
pub const BASE: &str = "/fhir/R4";
/// The media type of every answer but an attachment's.
pub const MEDIA_TYPE: &str = "application/fhir+json; charset=utf-8";
/// The largest transaction, bytes; a long chart of the sample data has 4 MB.
const BUNDLE_BYTES_MAX: usize = 24 << 20;
/// The largest form of a search, bytes.
const FORM_BYTES_MAX: usize = 64 << 10;
/// Headers of an answer: room is made for them once.
const HEADERS_MAX: usize = 16;
/// The largest single resource, bytes.
pub(super) const RESOURCE_BYTES_MAX: usize = 4 << 20;

/// The API's route table.
pub fn routes(store: &Store) -> Vec<Route> {
    let store = || store.clone();
    let audit = |action| Policy::Permits(action, Target::AuditLog);
    vec![
        Route::fhir(Method::Get, "/fhir/R4/metadata", Policy::Public, metadata, store()),
        Route::fhir(Method::Get, "/fhir/R4/openapi.json", Policy::Public, description, store()),
        Route::fhir(Method::Post, "/fhir/R4", Policy::PerResource, transaction, store()),
        // Some clients end the base with a slash.
        Route::fhir(Method::Post, "/fhir/R4/", Policy::PerResource, transaction, store()),
        Route::fhir(Method::Post, "/fhir/R4/Binary", Policy::PerResource, create_binary, store()),
        Route::fhir(Method::Get, "/fhir/R4/Binary/{id}", Policy::PerResource, read_binary, store()),
        Route::fhir(Method::Get, "/fhir/R4/AuditEvent", audit(Action::Search), audit_event::search, store()),
        Route::fhir(
            Method::Post,
            "/fhir/R4/AuditEvent/_search",
            audit(Action::Search),
            audit_event::search_form,
            store(),
        ),
        Route::fhir(Method::Get, "/fhir/R4/AuditEvent/{id}", audit(Action::Read), audit_event::read, store()),
        Route::fhir(Method::Get, "/fhir/R4/{kind}", Policy::PerResource, search, store()),
        Route::fhir(Method::Post, "/fhir/R4/{kind}", Policy::PerResource, create, store()),
        Route::fhir(Method::Post, "/fhir/R4/{kind}/_search", Policy::PerResource, search_form, store()),
        Route::fhir(Method::Get, "/fhir/R4/{kind}/{id}", Policy::PerResource, read, store()),
        Route::fhir(Method::Put, "/fhir/R4/{kind}/{id}", Policy::PerResource, update, store()),
        Route::fhir(Method::Get, "/fhir/R4/{kind}/{id}/_history/{version}", Policy::PerResource, version, store()),
        Route::fhir(Method::Get, "/fhir/R4/{kind}/{id}/$export", Policy::PerResource, export::start, store()),
        Route::fhir(Method::Get, "/fhir/R4/$export/{job}", Policy::PerResource, export::manifest, store()),
        Route::fhir(Method::Get, "/fhir/R4/$export/{job}/{kind}", Policy::PerResource, export::file, store()),
        Route::fhir(Method::Delete, "/fhir/R4/$export/{job}", Policy::PerResource, export::forget, store()),
        Route::fhir(Method::Put, "/fhir/R4/{kind}", Policy::PerResource, interact::update_matching, store()),
        Route::fhir(Method::Patch, "/fhir/R4/{kind}/{id}", Policy::PerResource, interact::patch, store()),
        Route::fhir(Method::Delete, "/fhir/R4/{kind}/{id}", Policy::PerResource, interact::delete, store()),
        Route::fhir(Method::Get, "/fhir/R4/{kind}/_history", Policy::PerResource, interact::history_of_type, store()),
        Route::fhir(
            Method::Get,
            "/fhir/R4/{kind}/{id}/_history",
            Policy::PerResource,
            interact::history_of_one,
            store(),
        ),
        Route::fhir(
            Method::Get,
            "/fhir/R4/{kind}/{id}/$everything",
            Policy::PerResource,
            interact::everything,
            store(),
        ),
        Route::fhir(Method::Post, "/fhir/R4/{kind}/$validate", Policy::PerResource, interact::validate, store()),
        Route::fhir(
            Method::Post,
            "/fhir/R4/{kind}/{id}/$validate",
            Policy::PerResource,
            interact::validate_one,
            store(),
        ),
        Route::fhir(Method::Post, "/fhir/R4/{kind}/$match", Policy::PerResource, interact::match_patient, store()),
    ]
}

async fn metadata(State(store): State<Store>, headers: HeaderMap) -> Response {
    json_response(StatusCode::OK, capability::statement(store.clock().unix_ms(), &base_url(&headers)).to_string())
}

async fn description(State(store): State<Store>) -> Response {
    let mut response = json_response(StatusCode::OK, openapi::document(&routes(&store)).to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A change that came over the API.
pub(super) async fn write<T: Send + 'static>(
    store: &Store,
    actor: &Actor,
    job: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let outside = move |tx: &mut Tx<'_>| {
        tx.from_outside();
        job(tx)
    };
    store.write(actor, outside).await
}

async fn transaction(
    State(store): State<Store>,
    actor: Actor,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let mut bundle = parse(body, BUNDLE_BYTES_MAX).await?;
    if bundle.get("resourceType").is_some_and(|kind| kind == "Bundle") && bundle["type"] == "batch" {
        return Ok(json_response(StatusCode::OK, batch::run(&store, &actor, &headers, &mut bundle).await?));
    }
    let answer = write(&store, &actor, move |tx: &mut Tx<'_>| tx.transaction(bundle)).await?;
    Ok(json_response(StatusCode::OK, answer.to_string()))
}

pub(super) async fn search(
    State(store): State<Store>,
    actor: Actor,
    Path(kind): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    found(&store, &actor, &kind, raw.unwrap_or_default(), &headers).await
}

async fn search_form(
    State(store): State<Store>,
    actor: Actor,
    Path(kind): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let form = to_bytes(body, FORM_BYTES_MAX).await.map_err(|_| Outcome::too_large())?;
    let form = std::str::from_utf8(&form).map_err(|_| StoreError::invalid("is not a query", kind.as_str()))?;
    let raw = [raw.as_deref().unwrap_or_default(), form].join("&");
    found(&store, &actor, &kind, raw.trim_matches('&').to_owned(), &headers).await
}

async fn found(
    store: &Store,
    actor: &Actor,
    kind: &str,
    raw: String,
    headers: &HeaderMap,
) -> Result<Response, Outcome> {
    let base = base_url(headers);
    let mut pairs = query_pairs(&raw).ok_or_else(|| StoreError::invalid("is not a query", kind))?;
    // Our own addresses mean the same as what follows the base.
    let own = format!("{base}{BASE}/");
    pairs.iter_mut().for_each(|(_, value)| *value = value.replace(&own, ""));
    let shape = Shape::take(&mut pairs)?;
    let (query, ignored) = match negotiate::prefers(headers, "handling=lenient") {
        true => Query::parse_lenient(kind, &pairs)?,
        false => (Query::parse(kind, &pairs)?, Vec::new()),
    };
    let counts = shape == Shape::Count || query.counts_alone();
    let query = if counts { query.counted() } else { query.of_client() };
    let page = store.view(actor, move |view: &View<'_>| view.search(&query)).await?;
    let asked = Asked { base: &base, kind, raw: &raw, shape: &shape, ignored: &ignored };
    Ok(json_response(StatusCode::OK, searchset::bundle(&asked, &page)?))
}

pub(super) async fn create(
    State(store): State<Store>,
    actor: Actor,
    Path(kind): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let resource = parse(body, RESOURCE_BYTES_MAX).await?;
    let condition = headers.get("if-none-exist").map(|value| value.to_str().ok().and_then(condition));
    let condition = condition.map(|found| found.ok_or_else(|| StoreError::invalid("is not a query", "If-None-Exist")));
    let condition = condition.transpose()?;
    let job = move |tx: &mut Tx<'_>| {
        let found = match &condition {
            Some(pairs) => tx.matching(&kind, pairs)?,
            None => None,
        };
        match found {
            Some(found) => Ok((StatusCode::OK, found)),
            None => tx.create(&kind, resource).map(|stored| (StatusCode::CREATED, stored)),
        }
    };
    let (status, stored) = write(&store, &actor, job).await?;
    Ok(resource_response(status, stored, &headers))
}

pub(super) async fn read(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    let mut pairs = query_pairs(&raw.unwrap_or_default()).unwrap_or_default();
    let shape = Shape::take(&mut pairs)?;
    let mut found = store.view_one(&actor, move |view: &View<'_>| view.read(&kind, &id)).await?;
    let known = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok()).and_then(etag_version);
    if known == Some(found.version) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, etag(found.version))]).into_response());
    }
    if !matches!(shape, Shape::Whole | Shape::Count) {
        found.body = shape.body(&found.kind, &found.body)?;
    }
    Ok(resource_response(StatusCode::OK, found, &headers))
}

pub(super) async fn version(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id, version)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    let version: u32 = version.parse().map_err(|_| StoreError::NotFound)?;
    let found = store.view_one(&actor, move |view: &View<'_>| view.version(&kind, &id, version)).await?;
    Ok(resource_response(StatusCode::OK, found, &headers))
}

pub(super) async fn update(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let resource = parse(body, RESOURCE_BYTES_MAX).await?;
    if resource.get("id").and_then(Value::as_str) != Some(id.as_str()) {
        return Err(StoreError::invalid("must be the id in the address", format!("{kind}.id")).into());
    }
    let expect = interact::if_match(&headers)?.map_or(Expect::Nothing, Expect::Version);
    let stored = write(&store, &actor, move |tx: &mut Tx<'_>| tx.update(&kind, &id, resource, expect)).await?;
    let status = if stored.version == 1 { StatusCode::CREATED } else { StatusCode::OK };
    Ok(resource_response(status, stored, &headers))
}

async fn read_binary(State(store): State<Store>, actor: Actor, Path(id): Path<String>) -> Result<Response, Outcome> {
    let row = store.view(&actor, move |view: &View<'_>| view.attachment(&id)).await?;
    let media_type = HeaderValue::from_str(&row.media_type).map_err(|_| StoreError::Damaged("media type"))?;
    let attachments = store.attachments().clone();
    let read = tokio::task::spawn_blocking(move || attachments.read(&row));
    let bytes = read.await.map_err(|_| StoreError::Closed)??;
    // A file never runs as part of this site: it is downloaded, not sniffed, and sandboxed if it is opened anyway.
    let headers = [
        (header::CONTENT_TYPE, media_type),
        (header::CONTENT_DISPOSITION, HeaderValue::from_static("attachment")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("sandbox; default-src 'none'")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, bytes).into_response())
}

async fn create_binary(
    State(store): State<Store>,
    actor: Actor,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let patient = security_context(&headers)?;
    // Before the bytes are read: somebody who may not store them should not fill the disk with them.
    crate::access::authorize(&actor, Action::Create, crate::access::Object::resource("Binary"))
        .map_err(StoreError::from)?;
    let bytes = to_bytes(body, ATTACHMENT_BYTES_MAX).await.map_err(|_| Outcome::too_large())?;
    let attachments = store.attachments().clone();
    let staged = tokio::task::spawn_blocking(move || attachments.stage(&bytes));
    let staged = staged.await.map_err(|_| StoreError::Closed)??;
    let row = store.write(&actor, move |tx: &mut Tx<'_>| tx.attach(&staged, patient.as_deref())).await?;
    let location = format!("{}{BASE}/Binary/{}", base_url(&headers), row.id);
    let location = HeaderValue::from_str(&location).map_err(|_| StoreError::Closed)?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)]).into_response())
}

/// The patient whose file it is; `None` for nobody's. What is written otherwise is refused: the file would be nobody's unseen.
fn security_context(headers: &HeaderMap) -> Result<Option<String>, StoreError> {
    let Some(context) = headers.get("x-security-context") else { return Ok(None) };
    let id = context.to_str().ok().and_then(|context| context.strip_prefix("Patient/"));
    let id = id.filter(|id| super::check_id(id).is_ok()).map(str::to_owned);
    id.map(Some).ok_or_else(|| StoreError::invalid("must be Patient/id", "X-Security-Context"))
}

pub(super) async fn parse(body: Body, bytes_max: usize) -> Result<Value, Outcome> {
    let bytes = to_bytes(body, bytes_max).await.map_err(|_| Outcome::too_large())?;
    Ok(json::read(&bytes).map_err(StoreError::from)?)
}

pub(super) fn json_response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.reserve(HEADERS_MAX);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `If-None-Exist` holds a query, with or without the `?`.
fn condition(text: &str) -> Option<Vec<(String, String)>> {
    query_pairs(text.rsplit('?').next().unwrap_or(text))
}

pub(super) fn resource_response(status: StatusCode, resource: Resource, headers: &HeaderMap) -> Response {
    let (version, reference) = (resource.version, resource.reference());
    let mut response = match negotiate::prefers(headers, "return=minimal") {
        true => status.into_response(),
        false => json_response(status, resource.body),
    };
    let mut tell = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(name, value);
        }
    };
    tell(header::ETAG, &etag(version));
    tell(header::LAST_MODIFIED, &http_date(resource.updated_ms));
    if status == StatusCode::CREATED {
        tell(header::LOCATION, &format!("{}{BASE}/{reference}/_history/{version}", base_url(headers)));
    }
    response
}

fn http_date(unix_ms: i64) -> String {
    static FORMAT: LazyLock<Vec<Item<'static>>> =
        LazyLock::new(|| StrftimeItems::new("%a, %d %b %Y %H:%M:%S GMT").collect());
    let date = chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default();
    date.format_with_items(FORMAT.iter()).to_string()
}

/// `https://host` as the client wrote it, or nothing (then links are relative) when it is not a plain authority.
pub(super) fn base_url(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-:[]".contains(&b);
    if host.is_empty() || !host.bytes().all(plain) { String::new() } else { format!("https://{host}") }
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
