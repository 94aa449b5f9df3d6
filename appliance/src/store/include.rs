//! `_include` and `_revinclude`: what the resources of a page refer to, and what refers to them, by one step.

use super::index::{self, ParamIds};
use super::query::{Include, Query};
use super::resource::{self, Resource};
use super::search::Page;
use super::{StoreError, canonical};
use crate::db::Connection;
use crate::fhir::params::{Form, Param};
use std::collections::BTreeSet;

/// Included resources of one page at most.
const INCLUDED_MAX: usize = 1_000;

/// Adds to `page` what the query's includes ask for and `may` permits, each resource once.
pub(super) fn add(
    connection: &Connection,
    ids: &ParamIds,
    query: &Query,
    page: &mut Page,
    may: &dyn Fn(&Resource) -> bool,
) -> Result<(), StoreError> {
    let mut known: BTreeSet<i64> = page.resources.iter().map(|resource| resource.rid).collect();
    for include in &query.includes {
        let found = match include.forward {
            true => targets(connection, ids, include, &page.resources)?,
            false => referring(connection, ids, include, &page.resources)?,
        };
        for resource in found {
            let wanted = include.target.as_deref().is_none_or(|target| !include.forward || resource.kind == target);
            if !wanted || !may(&resource) || !known.insert(resource.rid) {
                continue;
            }
            if page.included.len() >= INCLUDED_MAX {
                page.cut = true;
                return Ok(());
            }
            page.included.push(resource);
        }
    }
    Ok(())
}

/// What the page's resources refer to. A reference to what is not here is left out.
fn targets(
    connection: &Connection,
    ids: &ParamIds,
    include: &Include,
    page: &[Resource],
) -> Result<Vec<Resource>, StoreError> {
    let (mut wanted, mut named) = (BTreeSet::new(), BTreeSet::new());
    for found in page {
        let body = found.json()?;
        include.param.visit(&body, &mut |value| {
            if canonical::names_canonicals(include.param)
                && let Some(written) = value.as_str()
            {
                named.insert(written.to_owned());
            } else if let Some((kind, id)) = index::target(value).and_then(|target| target.split_once('/'))
                && include.param.points_to(kind)
            {
                wanted.insert((kind.to_owned(), id.to_owned()));
            }
        });
    }
    let loaded = wanted.iter().map(|(kind, id)| resource::load(connection, kind, id));
    let kinds = &include.param.targets;
    let meant = named.iter().flat_map(|written| kinds.iter().map(move |kind| (*kind, written)));
    let meant = meant.map(|(kind, written)| canonical::resolve(connection, ids, kind, written));
    loaded.chain(meant).filter_map(Result::transpose).collect()
}

/// What refers to the page's resources.
fn referring(
    connection: &Connection,
    ids: &ParamIds,
    include: &Include,
    page: &[Resource],
) -> Result<Vec<Resource>, StoreError> {
    let param = include.param;
    let mut found = Vec::new();
    for resource in page {
        let rids = match (param.form, resource.kind.as_str()) {
            (Form::Patient | Form::Subject, "Patient") => in_compartment(connection, ids, param, resource.rid)?,
            _ => {
                let mut rids = pointing(connection, ids, param, &resource.reference())?;
                if canonical::names_canonicals(param) {
                    for name in canonical::names(connection, ids, resource)? {
                        rids.extend(pointing(connection, ids, param, &name)?);
                    }
                }
                rids
            }
        };
        for rid in rids {
            if found.len() > INCLUDED_MAX {
                return Ok(found);
            }
            found.push(resource::load_row(connection, param.kind, rid)?);
        }
    }
    Ok(found)
}

fn in_compartment(
    connection: &Connection,
    ids: &ParamIds,
    param: &Param,
    patient: i64,
) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT rid FROM resource WHERE patient = ?1 AND type = ?2 AND deleted = 0 ORDER BY rid";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((patient, ids.type_id(param.kind)), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn pointing(connection: &Connection, ids: &ParamIds, param: &Param, target: &str) -> Result<Vec<i64>, StoreError> {
    let sql = "SELECT DISTINCT rid FROM ix_ref WHERE param = ?1 AND target = ?2 ORDER BY rid";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map((ids.param_id(param.kind, param.name), target), |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
