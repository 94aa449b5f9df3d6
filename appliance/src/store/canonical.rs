//! Canonical addresses: how a response names its questionnaire. An element holds `url`, `url|version` or `Type/id`; the index
//! holds it as written, without its version, and, where it names none, with an empty one (`url|`).

use super::StoreError;
use super::index::ParamIds;
use super::query::{Clause, Query, Test};
use super::resource::{self, Resource};
use crate::db::Connection;
use crate::fhir::params::{self, Form, Param};
use serde_json::Value;
use std::borrow::Cow;

/// Resources of one address that are looked at: its versions.
const SAME_MAX: u32 = 50;

/// What the index holds of a canonical.
pub(super) fn rows(written: &str) -> [Cow<'_, str>; 2] {
    match written.split_once('|') {
        Some((url, _)) => [Cow::Borrowed(written), Cow::Borrowed(url)],
        None => [Cow::Borrowed(written), Cow::Owned(format!("{written}|"))],
    }
}

/// The parameter by which the addresses of a type are indexed.
pub(super) fn url_of(kind: &str) -> Option<&'static Param> {
    params::find(kind, "url").filter(|param| param.form == Form::Uri)
}

/// Every name by which others refer to a resource, beside `Type/id`.
pub(super) fn names(connection: &Connection, ids: &ParamIds, found: &Resource) -> Result<Vec<String>, StoreError> {
    let Some(param) = url_of(&found.kind) else { return Ok(Vec::new()) };
    let body = found.json()?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    let (url, version) = (text("url"), text("version"));
    if url.is_empty() {
        return Ok(Vec::new());
    }
    // Of the only one with this address every version is meant: it has had them all.
    if with_url(connection, ids, param, url)?.len() < 2 {
        return Ok(vec![url.to_owned()]);
    }
    let versioned = (!version.is_empty()).then(|| format!("{url}|{version}"));
    Ok(versioned.into_iter().chain([format!("{url}|")]).collect())
}

fn with_url(connection: &Connection, ids: &ParamIds, param: &Param, url: &str) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT DISTINCT rid FROM ix_token WHERE param = ?1 AND code = ?2 ORDER BY rid LIMIT ?3";
    let mut statement = connection.prepare_cached(sql)?;
    let parameters = (ids.param_id(param.kind, param.name), super::index::cut(url), SAME_MAX);
    let rows = statement.query_map(parameters, |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// What a canonical means: of several versions the one that it names, and without one that which was written last.
pub(super) fn resolve(
    connection: &Connection,
    ids: &ParamIds,
    kind: &str,
    written: &str,
) -> Result<Option<Resource>, StoreError> {
    let (url, version) = written.split_once('|').unwrap_or((written, ""));
    if let Some(id) = url.strip_prefix(kind).and_then(|rest| rest.strip_prefix('/')) {
        return resource::load(connection, kind, id);
    }
    let Some(param) = url_of(kind) else { return Ok(None) };
    let mut newest: Option<Resource> = None;
    for rid in with_url(connection, ids, param, url)? {
        let found = resource::load_row(connection, kind, rid)?;
        let body = found.json()?;
        let is = |name: &str, wanted: &str| body.get(name).and_then(Value::as_str).unwrap_or_default() == wanted;
        let fits = is("url", url) && (version.is_empty() || is("version", version));
        if fits && newest.as_ref().is_none_or(|newest| newest.updated_ms <= found.updated_ms) {
            newest = Some(found);
        }
    }
    Ok(newest)
}

/// The same search, in which `Type/id` of what has an address means whoever names that as well.
pub(super) fn widened(connection: &Connection, ids: &ParamIds, query: &Query) -> Result<Option<Query>, StoreError> {
    let may_name =
        |clause: &Clause| matches!(clause, Clause::Param(param, Test::Reference(_)) if names_canonicals(param));
    if !query.clauses.iter().any(may_name) {
        return Ok(None);
    }
    let mut query = query.clone();
    for clause in query.clauses.iter_mut().filter(|clause| may_name(clause)) {
        let Clause::Param(_, Test::Reference(targets)) = clause else { continue };
        for target in targets.clone() {
            let Some((kind, id)) = target.split_once('/').filter(|(kind, _)| url_of(kind).is_some()) else { continue };
            if let Some(found) = resource::load(connection, kind, id)? {
                targets.extend(names(connection, ids, &found)?);
            }
        }
    }
    Ok(Some(query))
}

/// Whether the references of a parameter may be canonicals.
pub(super) fn names_canonicals(param: &Param) -> bool {
    param.form == Form::Reference && param.targets.iter().any(|kind| url_of(kind).is_some())
}
