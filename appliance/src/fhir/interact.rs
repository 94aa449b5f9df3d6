//! Interactions beside read, search, create and update: history, delete, patch, conditional update, and the operations.

use super::http::{BASE, RESOURCE_BYTES_MAX, base_url, json_response, parse, resource_response};
use super::outcome::Outcome;
use super::searchset::{self, Asked};
use super::shape::Shape;
use super::{date, etag, etag_version, matching, patch, query_pairs, validate};
use crate::access::Actor;
use crate::clock;
use crate::store::{Before, Cursor, Everything, Expect, Resource, Store, StoreError, Tx, Version, Versions, View};
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// Entries of one page of a history or of a whole record.
const COUNT_DEFAULT: u32 = 100;
const COUNT_MAX: u32 = 1_000;

/// The version that `If-Match` names.
pub fn if_match(headers: &HeaderMap) -> Result<Option<u32>, StoreError> {
    let Some(tag) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let version = tag.to_str().ok().and_then(etag_version);
    version.map(Some).ok_or_else(|| StoreError::invalid("must be W/\"version\"", "If-Match"))
}

/// `PUT Type?condition`: updates the one that meets the condition, creates one where none does.
pub async fn update_matching(
    State(store): State<Store>,
    actor: Actor,
    Path(kind): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let resource = parse(body, RESOURCE_BYTES_MAX).await?;
    let pairs = query_pairs(&raw.unwrap_or_default()).ok_or_else(|| StoreError::invalid("is not a query", "url"))?;
    let version = if_match(&headers)?;
    let job = move |tx: &mut Tx<'_>| update_where(tx, &kind, &pairs, resource, version);
    let stored = super::http::write(&store, &actor, job).await?;
    let status = if stored.version == 1 { StatusCode::CREATED } else { StatusCode::OK };
    Ok(resource_response(status, stored, &headers))
}

/// The update of what a condition finds, inside a transaction.
pub fn update_where(
    tx: &mut Tx<'_>,
    kind: &str,
    pairs: &[(String, String)],
    mut resource: Value,
    version: Option<u32>,
) -> Result<Resource, StoreError> {
    let given = resource.get("id").and_then(Value::as_str).map(str::to_owned);
    match (tx.matching(kind, pairs)?, given) {
        (Some(found), given) => {
            if given.is_some_and(|given| given != found.id) {
                return Err(StoreError::invalid("is not the id of what the condition finds", format!("{kind}.id")));
            }
            if let Some(element) = resource.as_object_mut() {
                element.insert("id".into(), found.id.as_str().into());
            }
            tx.update(kind, &found.id, resource, Expect::Version(version.unwrap_or(found.version)))
        }
        (None, Some(given)) => tx.update(kind, &given, resource, Expect::Nothing),
        (None, None) => tx.create(kind, resource),
    }
}

/// `DELETE Type/id`.
pub async fn delete(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    let expected = if_match(&headers)?;
    let version = super::http::write(&store, &actor, move |tx: &mut Tx<'_>| tx.delete(&kind, &id, expected)).await?;
    Ok((StatusCode::NO_CONTENT, [(header::ETAG, etag(version))]).into_response())
}

/// `PATCH Type/id` with a JSON Patch. `If-Match` is asked for as it is for an update.
pub async fn patch(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    let operations = parse(body, RESOURCE_BYTES_MAX).await?;
    let expected = if_match(&headers)?;
    let job = move |tx: &mut Tx<'_>| {
        let current = tx.read(&kind, &id)?;
        let patched = patch::apply(current.json()?, &operations)?;
        if patched.get("id").and_then(Value::as_str) != Some(&id) {
            return Err(StoreError::invalid("a patch does not change the id", format!("{kind}.id")));
        }
        tx.update(&kind, &id, patched, Expect::Version(expected.unwrap_or(current.version)))
    };
    let stored = super::http::write(&store, &actor, job).await?;
    Ok(resource_response(StatusCode::OK, stored, &headers))
}

/// `GET Type/id/_history`.
pub async fn history_of_one(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    history(&store, &actor, (kind, Some(id)), &raw.unwrap_or_default(), &headers).await
}

/// `GET Type/_history`.
pub async fn history_of_type(
    State(store): State<Store>,
    actor: Actor,
    Path(kind): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    history(&store, &actor, (kind, None), &raw.unwrap_or_default(), &headers).await
}

async fn history(
    store: &Store,
    actor: &Actor,
    (kind, id): (String, Option<String>),
    raw: &str,
    headers: &HeaderMap,
) -> Result<Response, Outcome> {
    if !super::types::is_kept(&kind) {
        return Err(StoreError::NotFound.into());
    }
    let mut asked = Versions { kind, id, since_ms: i64::MIN, before: None, count: COUNT_DEFAULT };
    for (name, value) in query_pairs(raw).ok_or_else(|| StoreError::invalid("is not a query", "url"))? {
        match name.as_str() {
            "_count" => asked.count = count(&value)?,
            "_since" => asked.since_ms = since(&value)?,
            "_cursor" => {
                let before = Before::parse(&value).ok_or_else(|| StoreError::invalid("is no cursor", "_cursor"))?;
                asked.before = Some(before);
            }
            "_format" | "_pretty" => {}
            _ => return Err(StoreError::invalid("a history knows _count and _since", name).into()),
        }
    }
    let place = match &asked.id {
        Some(id) => format!("{}/{id}/_history", asked.kind),
        None => format!("{}/_history", asked.kind),
    };
    let (versions, next) = store.view(actor, move |view: &View<'_>| view.history(&asked)).await?;
    let base = format!("{}{BASE}", base_url(headers));
    let mut links = format!(r#"{{"relation":"self","url":{}}}"#, Value::from(format!("{base}/{place}")));
    if let Some(next) = next {
        let kept = raw.split('&').filter(|part| !part.is_empty() && !part.starts_with("_cursor="));
        let query = kept.chain([format!("_cursor={next}").as_str()]).collect::<Vec<_>>().join("&");
        links += &format!(r#",{{"relation":"next","url":{}}}"#, Value::from(format!("{base}/{place}?{query}")));
    }
    let entries: Vec<String> = versions.iter().map(|version| version_entry(&base, version)).collect();
    let entries = if entries.is_empty() { String::new() } else { format!(r#","entry":[{}]"#, entries.join(",")) };
    let bundle = format!(r#"{{"resourceType":"Bundle","type":"history","link":[{links}]{entries}}}"#);
    Ok(json_response(StatusCode::OK, bundle))
}

fn version_entry(base: &str, Version { resource, deleted }: &Version) -> String {
    let (method, status, url) = match (deleted, resource.version) {
        (true, _) => ("DELETE", "204", resource.reference()),
        (false, 1) => ("POST", "201", resource.kind.clone()),
        (false, _) => ("PUT", "200", resource.reference()),
    };
    let body = if *deleted { String::new() } else { format!(r#""resource":{},"#, resource.body) };
    let response = json!({
        "status": status, "etag": etag(resource.version), "lastModified": clock::instant(resource.updated_ms),
    });
    let full = Value::from(format!("{base}/{}", resource.reference()));
    let request = json!({ "method": method, "url": url });
    format!(r#"{{"fullUrl":{full},{body}"request":{request},"response":{response}}}"#)
}

fn count(value: &str) -> Result<u32, StoreError> {
    let count: u32 = value.parse().map_err(|_| StoreError::invalid("must be a whole number", "_count"))?;
    Ok(count.clamp(1, COUNT_MAX))
}

fn since(value: &str) -> Result<i64, StoreError> {
    let at = date::parse(&value.replace(' ', "+"));
    Ok(at.ok_or_else(|| StoreError::invalid("must be an instant", "_since"))?.lo)
}

/// `GET Patient/id/$everything`.
pub async fn everything(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    if kind != "Patient" {
        return Err(StoreError::NotFound.into());
    }
    let raw = raw.unwrap_or_default();
    let mut asked = Everything { count: COUNT_DEFAULT, since_ms: i64::MIN, ..Everything::default() };
    for (name, value) in query_pairs(&raw).ok_or_else(|| StoreError::invalid("is not a query", "url"))? {
        match name.as_str() {
            "_count" => asked.count = count(&value)?,
            "_since" => asked.since_ms = since(&value)?,
            "_type" => asked.kinds = value.split(',').map(str::to_owned).collect(),
            "_cursor" => {
                let after = Cursor::parse(&value).ok_or_else(|| StoreError::invalid("is no cursor", "_cursor"))?;
                asked.after = Some(after);
            }
            "_format" | "_pretty" => {}
            _ => return Err(StoreError::invalid("$everything knows _count, _since and _type", name).into()),
        }
    }
    let place = format!("Patient/{id}/$everything");
    let page = store.view(&actor, move |view: &View<'_>| view.everything(&id, &asked)).await?;
    let base = base_url(&headers);
    let asked = Asked { base: &base, kind: &place, raw: &raw, shape: &Shape::Whole, ignored: &[] };
    Ok(json_response(StatusCode::OK, searchset::bundle(&asked, &page)?))
}

/// `POST Type/$validate` and `POST Type/id/$validate`: says what is wrong, and stores nothing.
pub async fn validate(
    State(_): State<Store>,
    _: Actor,
    Path(kind): Path<String>,
    body: Body,
) -> Result<Response, Outcome> {
    if !super::types::is_kept(&kind) {
        return Err(StoreError::NotFound.into());
    }
    let body = parse(body, RESOURCE_BYTES_MAX).await?;
    Ok(json_response(StatusCode::OK, validate::outcome(&kind, parameter(body)?).to_string()))
}

/// [`validate`] with an id in the address.
pub async fn validate_one(
    state: State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    body: Body,
) -> Result<Response, Outcome> {
    super::check_id(&id)?;
    validate(state, actor, Path(kind), body).await
}

/// The resource of an operation: the body itself, or the parameter `resource` of a `Parameters`.
fn parameter(body: Value) -> Result<Value, StoreError> {
    if body.get("resourceType").and_then(Value::as_str) != Some("Parameters") {
        return Ok(body);
    }
    let parameters = body.get("parameter").and_then(Value::as_array).cloned().unwrap_or_default();
    let named = |parameter: &Value| parameter.get("name").and_then(Value::as_str) == Some("resource");
    let found = parameters.into_iter().find(named).and_then(|mut found| found.get_mut("resource").map(Value::take));
    found.ok_or_else(|| StoreError::invalid("is required", "Parameters.parameter.where(name='resource')"))
}

/// `POST Patient/$match`: who this could be, the likeliest first.
pub async fn match_patient(
    State(store): State<Store>,
    actor: Actor,
    Path(kind): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Outcome> {
    if kind != "Patient" {
        return Err(StoreError::NotFound.into());
    }
    let body = parse(body, RESOURCE_BYTES_MAX).await?;
    let wishes = matching::Wishes::read(&body);
    let sought = parameter(body)?;
    let found = store.view(&actor, move |view: &View<'_>| matching::find(view, &sought, &wishes)).await?;
    let base = format!("{}{BASE}", base_url(&headers));
    let entries: Vec<String> = found.iter().map(|found| found.entry(&base)).collect();
    let entries = if entries.is_empty() { String::new() } else { format!(r#","entry":[{}]"#, entries.join(",")) };
    let bundle = format!(r#"{{"resourceType":"Bundle","type":"searchset","total":{}{entries}}}"#, found.len());
    Ok(json_response(StatusCode::OK, bundle))
}
