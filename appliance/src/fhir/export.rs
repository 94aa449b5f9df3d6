//! Bulk export of a group (`Group/id/$export`) as NDJSON. A job notes who is exported and the moment; its files are read from
//! the versions of that moment when they are fetched, so no copy of records lies anywhere.

use super::http::{BASE, base_url, json_response};
use super::outcome::Outcome;
use super::{date, negotiate, query_pairs, types};
use crate::access::{Action, Actor, Object};
use crate::clock;
use crate::db::{Connection, OptionalExtension};
use crate::store::{Store, StoreError, Tx, View};
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde_json::{Value, json};

/// Resources in one piece of a file.
const PIECE: u32 = 200;
/// A job is forgotten after a day.
const KEPT_MS: i64 = 24 * 3_600_000;
const NDJSON: &str = "application/fhir+ndjson";

/// What was asked for.
#[derive(Debug, Clone)]
struct Job {
    id: String,
    at_ms: i64,
    since_ms: i64,
    /// Empty for all.
    kinds: Vec<String>,
    /// What was asked, below the base address: `Group/7/$export?_type=Patient`.
    request: String,
    patients: Vec<String>,
}

/// `GET Group/id/$export`.
pub async fn start(
    State(store): State<Store>,
    actor: Actor,
    Path((kind, id)): Path<(String, String)>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    if kind != "Group" {
        return Err(StoreError::NotFound.into());
    }
    permit(&actor)?;
    if !negotiate::prefers(&headers, "respond-async") {
        return Err(StoreError::invalid("an export needs Prefer: respond-async", "Prefer").into());
    }
    let (mut since_ms, mut kinds) = (i64::MIN, Vec::new());
    let raw = raw.unwrap_or_default();
    for (name, value) in query_pairs(&raw).ok_or_else(|| StoreError::invalid("is not a query", "url"))? {
        match name.as_str() {
            "_outputFormat" if [NDJSON, "application/ndjson", "ndjson"].contains(&value.replace(' ', "+").as_str()) => {
            }
            "_since" => {
                let at = date::parse(&value.replace(' ', "+"));
                since_ms = at.ok_or_else(|| StoreError::invalid("must be an instant", "_since"))?.lo;
            }
            "_type" => {
                kinds = value.split(',').map(str::to_owned).collect();
                if !kinds.iter().all(|kind| types::is_kept(kind)) {
                    return Err(StoreError::invalid("names a type that is not kept here", "_type").into());
                }
            }
            _ => return Err(StoreError::invalid("an export knows _type, _since and _outputFormat", name).into()),
        }
    }
    let request = format!("Group/{id}/$export{}{raw}", if raw.is_empty() { "" } else { "?" });
    let patients = store.view(&actor, move |view: &View<'_>| members(&view.cohort(&id)?.json()?)).await?;
    let id = clock::new_id().map_err(StoreError::io("randomness"))?;
    let job = Job { id: id.clone(), at_ms: store.clock().unix_ms(), since_ms, kinds, request, patients };
    let owner = actor.id.clone();
    store.write(&actor, move |tx: &mut Tx<'_>| job.save(tx.connection(), &owner)).await?;
    let place = HeaderValue::from_str(&format!("{}{BASE}/$export/{id}", base_url(&headers)));
    let place = place.map_err(|_| StoreError::Closed)?;
    Ok((StatusCode::ACCEPTED, [(header::CONTENT_LOCATION, place)]).into_response())
}

/// The patients of a group that are not marked as having left it.
fn members(group: &Value) -> Result<Vec<String>, StoreError> {
    let members = group.get("member").and_then(Value::as_array).into_iter().flatten();
    let current = members.filter(|member| member.get("inactive") != Some(&Value::Bool(true)));
    let target = |member: &Value| member.pointer("/entity/reference").and_then(Value::as_str).map(str::to_owned);
    let mut ids: Vec<String> =
        current.filter_map(target).filter_map(|to| to.strip_prefix("Patient/").map(str::to_owned)).collect();
    ids.sort();
    ids.dedup();
    ids.iter().try_for_each(|id| super::check_id(id))?;
    Ok(ids)
}

/// `GET $export/job`: the files of an export.
pub async fn manifest(
    State(store): State<Store>,
    actor: Actor,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Outcome> {
    let job = load(&store, &actor, id).await?;
    permit(&actor)?;
    let (patients, at_ms) = (job.patients.clone(), job.at_ms);
    let list = move |view: &View<'_>| {
        let kinds = view.kinds_of(&patients)?;
        Ok::<_, StoreError>(kinds.into_iter().filter(|kind| view.may(Action::Search, kind)).collect::<Vec<_>>())
    };
    let kinds = store.view(&actor, list).await?;
    let base = format!("{}{BASE}", base_url(&headers));
    let wanted = |kind: &&String| job.kinds.is_empty() || job.kinds.contains(kind);
    let output: Vec<Value> = kinds
        .iter()
        .filter(wanted)
        .map(|kind| json!({ "type": kind, "url": format!("{base}/$export/{}/{kind}", job.id) }))
        .collect();
    let manifest = json!({
        "transactionTime": clock::instant(at_ms),
        "request": format!("{base}/{}", job.request),
        "requiresAccessToken": true,
        "output": output,
        "error": [],
    });
    let mut response = json_response(StatusCode::OK, manifest.to_string());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// `GET $export/job/Type`: one file, a resource a line.
pub async fn file(
    State(store): State<Store>,
    actor: Actor,
    Path((id, kind)): Path<(String, String)>,
) -> Result<Response, Outcome> {
    let job = load(&store, &actor, id).await?;
    permit(&actor)?;
    if !types::is_kept(&kind) || !(job.kinds.is_empty() || job.kinds.contains(&kind)) {
        return Err(StoreError::NotFound.into());
    }
    crate::access::authorize(&actor, Action::Search, Object::resource(&kind)).map_err(StoreError::from)?;
    // From the last patient to the first, each from its first row.
    let rest: Vec<String> = job.patients.iter().rev().cloned().collect();
    let pieces = futures::stream::try_unfold((rest, 0i64), move |(mut rest, after)| {
        let (store, actor, kind, job) = (store.clone(), actor.clone(), kind.clone(), job.clone());
        async move {
            let Some(patient) = rest.last().cloned() else { return Ok(None) };
            let asked = patient.clone();
            let read = move |view: &View<'_>| view.as_of(&kind, (&asked, after), (job.since_ms, job.at_ms), PIECE);
            let found = store.view(&actor, read).await?;
            let lines: String = found.iter().flat_map(|found| [found.body.as_str(), "\n"]).collect();
            let next = match found.last() {
                Some(last) if found.len() >= PIECE as usize => last.rid,
                _ => {
                    rest.pop();
                    0
                }
            };
            Ok::<_, StoreError>(Some((Bytes::from(lines), (rest, next))))
        }
    });
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(NDJSON)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, Body::from_stream(pieces)).into_response())
}

/// `DELETE $export/job`: forgets an export.
pub async fn forget(State(store): State<Store>, actor: Actor, Path(id): Path<String>) -> Result<Response, Outcome> {
    let job = load(&store, &actor, id).await?;
    let remove = move |tx: &mut Tx<'_>| {
        tx.connection().execute("DELETE FROM export_job WHERE id = ?1", [&job.id])?;
        Ok::<_, StoreError>(())
    };
    store.write(&actor, remove).await?;
    Ok(StatusCode::ACCEPTED.into_response())
}

/// Many patients at once are asked for by whoever may, before anything else is looked at.
fn permit(actor: &Actor) -> Result<(), StoreError> {
    Ok(crate::access::authorize(actor, Action::Read, Object::Cohort)?)
}

async fn load(store: &Store, actor: &Actor, id: String) -> Result<Job, StoreError> {
    let (owner, now) = (actor.id.clone(), store.clock().unix_ms());
    store.internal(move |db| Job::load(db, &id, &owner, now)).await?.ok_or(StoreError::NotFound)
}

impl Job {
    fn save(&self, db: &Connection, owner: &str) -> Result<(), StoreError> {
        db.execute("DELETE FROM export_job WHERE at_ms < ?1", [self.at_ms - KEPT_MS])?;
        let sql =
            "INSERT INTO export_job (id, owner, at_ms, since_ms, kinds, patients) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        // The request stands before the patients: neither it nor an id holds a space, and an id holds no slash.
        let (kinds, patients) =
            (self.kinds.join(" "), [std::slice::from_ref(&self.request), &self.patients].concat().join(" "));
        db.execute(sql, (&self.id, owner, self.at_ms, self.since_ms, kinds, patients))?;
        Ok(())
    }

    fn load(db: &Connection, id: &str, owner: &str, now_ms: i64) -> Result<Option<Job>, StoreError> {
        let sql = "SELECT at_ms, since_ms, kinds, patients FROM export_job WHERE id = ?1 AND owner = ?2 AND at_ms > ?3";
        let words = |text: String| -> Vec<String> {
            text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect()
        };
        let found = db.query_row(sql, (id, owner, now_ms - KEPT_MS), |row| {
            let (at_ms, since_ms, kinds) = (row.get(0)?, row.get(1)?, words(row.get(2)?));
            let (asked, patients): (Vec<String>, _) =
                words(row.get(3)?).into_iter().partition(|word| word.contains('/'));
            // A job of a release that did not keep its request.
            let request = asked.into_iter().next().unwrap_or_else(|| "Group/$export".into());
            Ok(Job { id: id.to_owned(), at_ms, since_ms, kinds, request, patients })
        });
        Ok(found.optional()?)
    }
}
