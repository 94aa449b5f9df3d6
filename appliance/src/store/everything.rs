//! A patient's whole record, and whether anything refers to a resource.

use super::index::ParamIds;
use super::order::Cursor;
use super::resource::{self, Resource};
use super::search::Page;
use super::{StoreError, canonical};
use crate::db::{Connection, OptionalExtension};
use crate::fhir::params;
use crate::fhir::types::TYPES;
use serde_json::Value;
use std::collections::BTreeSet;

/// What `$everything` is asked for.
#[derive(Debug, Clone, Default)]
pub struct Everything {
    /// Only these types; empty for all.
    pub kinds: Vec<String>,
    pub since_ms: i64,
    pub after: Option<Cursor>,
    pub count: u32,
}

/// A page of these compartments in the order of creation, with what it refers to outside of any compartment.
pub(super) fn page(
    connection: &Connection,
    patients: &[i64],
    asked: &Everything,
    may: &dyn Fn(&str) -> bool,
) -> Result<Page, StoreError> {
    let mut page = Page { resources: Vec::new(), next: None, total: None, included: Vec::new(), cut: false };
    let patients: Vec<String> = patients.iter().map(i64::to_string).collect();
    let sql = format!(
        "SELECT r.rid, t.name FROM resource r JOIN resource_type t ON t.id = r.type \
         WHERE r.patient IN ({}) AND r.deleted = 0 AND r.rid > ?1 AND r.updated_ms >= ?2 ORDER BY r.rid",
        patients.join(", ")
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let after = asked.after.as_ref().map_or(0, Cursor::rid);
    let mut rows = statement.query((after, asked.since_ms))?;
    let mut last = 0;
    while let Some(row) = rows.next()? {
        let (rid, kind): (i64, String) = (row.get(0)?, row.get(1)?);
        if !may(&kind) || !(asked.kinds.is_empty() || asked.kinds.contains(&kind)) {
            continue;
        }
        if page.resources.len() >= asked.count as usize {
            page.next = Some(Cursor::new(Vec::new(), last));
            break;
        }
        page.resources.push(resource::load_row(connection, &kind, rid)?);
        last = rid;
    }
    if asked.kinds.is_empty() {
        page.included = referred(connection, &page.resources, may)?;
    }
    Ok(page)
}

/// What resources refer to that is in no patient's compartment: practitioners, organizations, medications.
fn referred(
    connection: &Connection,
    resources: &[Resource],
    may: &dyn Fn(&str) -> bool,
) -> Result<Vec<Resource>, StoreError> {
    let mut targets = BTreeSet::new();
    for resource in resources {
        references(&resource.json()?, &mut targets);
    }
    let mut found = Vec::new();
    for (kind, id) in targets {
        if !may(&kind) {
            continue;
        }
        found.extend(resource::load(connection, &kind, &id)?.filter(|found| found.patient == 0));
    }
    Ok(found)
}

fn references(value: &Value, found: &mut BTreeSet<(String, String)>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        Value::Object(element) => {
            for (name, value) in element {
                match value {
                    Value::String(text) if name == "reference" => {
                        let target = text.split("/_history/").next().and_then(|text| text.split_once('/'));
                        found.extend(target.map(|(kind, id)| (kind.to_owned(), id.to_owned())));
                    }
                    value => references(value, found),
                }
            }
        }
        _ => {}
    }
}

/// Whether a current resource, a file or the ledger refers to this one.
pub(super) fn is_referred_to(connection: &Connection, ids: &ParamIds, found: &Resource) -> Result<bool, StoreError> {
    if found.kind == "Patient" {
        let sql = "SELECT EXISTS (SELECT 1 FROM resource WHERE patient = ?1 AND rid <> ?1 AND deleted = 0) \
                   OR EXISTS (SELECT 1 FROM attachment WHERE patient = ?1) \
                   OR EXISTS (SELECT 1 FROM ledger_entry WHERE patient = ?1)";
        let filled: bool = connection.query_row(sql, [found.rid], |row| row.get(0))?;
        if filled {
            return Ok(true);
        }
    }
    let sql = "SELECT 1 FROM ix_ref WHERE param = ?1 AND target = ?2 AND rid <> ?3 LIMIT 1";
    let mut statement = connection.prepare_cached(sql)?;
    let names = canonical::names(connection, ids, found)?;
    let targets: Vec<String> = names.into_iter().chain([found.reference()]).collect();
    for param in TYPES.iter().flat_map(|kind| params::of(kind)).filter(|param| param.points_to(&found.kind)) {
        let id = ids.param_id(param.kind, param.name);
        for target in &targets {
            if statement.query_row((id, target, found.rid), |_| Ok(())).optional()?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
