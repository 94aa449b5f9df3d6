//! Versions of resources: what was, who is gone, and what a type looked like at a moment.

use super::StoreError;
use super::index::ParamIds;
use super::resource::Resource;
use crate::consents::decisions::Withheld;
use crate::db::{Connection, OptionalExtension, Value as Sql};

/// One version; a deletion is one too.
#[derive(Debug, Clone)]
pub struct Version {
    pub resource: Resource,
    pub deleted: bool,
}

/// Where a page of a history begins: after this version, newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Before {
    updated_ms: i64,
    rid: i64,
    version: u32,
}

impl Before {
    const ALL: Before = Before { updated_ms: i64::MAX, rid: i64::MAX, version: u32::MAX };

    pub fn parse(text: &str) -> Option<Before> {
        let mut parts = text.splitn(3, '-');
        let mut next = || parts.next()?.parse::<i64>().ok();
        let (updated_ms, rid, version) = (next()?, next()?, next()?);
        Some(Before { updated_ms, rid, version: version.try_into().ok()? })
    }
}

impl std::fmt::Display for Before {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.updated_ms, self.rid, self.version)
    }
}

/// What a history is asked for.
#[derive(Debug, Clone)]
pub struct Versions {
    pub kind: String,
    /// Of one resource, or of all of the type.
    pub id: Option<String>,
    pub since_ms: i64,
    pub before: Option<Before>,
    pub count: u32,
}

/// Up to `count` versions, newest first, and where the next page begins. Those of patients who keep the actor out are left out:
/// `kept` says who, and where the index holds to whom else a resource belongs.
pub(super) fn page(
    connection: &Connection,
    asked: &Versions,
    kept: Option<(&Withheld, Option<i64>)>,
) -> Result<(Vec<Version>, Option<Before>), StoreError> {
    let mut values: Vec<Sql> = asked.id.iter().map(|id| id.clone().into()).collect();
    let mut one = if asked.id.is_some() { " AND r.id = ?7".to_owned() } else { String::new() };
    if let Some((withheld, beside)) = kept {
        let mut bind = |value| {
            values.push(value);
            format!("?{}", values.len() + 6)
        };
        one += &format!(" AND {}", withheld.of_resource("r", beside, &mut bind));
    }
    let part = |from: &str, v: &str| {
        format!(
            "SELECT r.rid, r.id, {v}.version, {v}.updated_ms, r.patient, {v}.body FROM {from} \
             WHERE r.type = (SELECT id FROM resource_type WHERE name = ?1) AND {v}.updated_ms >= ?2 \
             AND ({v}.updated_ms, r.rid, {v}.version) < (?3, ?4, ?5){one}"
        )
    };
    let sql = format!(
        "{} UNION ALL {} ORDER BY 4 DESC, 1 DESC, 3 DESC LIMIT ?6",
        part("resource r", "r"),
        part("history h JOIN resource r ON r.rid = h.rid", "h")
    );
    let from = asked.before.unwrap_or(Before::ALL);
    let limit = i64::from(asked.count) + 1;
    let mut statement = connection.prepare_cached(&sql)?;
    let fixed = crate::db::params![asked.kind, asked.since_ms, from.updated_ms, from.rid, from.version, limit];
    let mut all: Vec<&dyn crate::db::ToSql> = fixed.to_vec();
    all.extend(values.iter().map(|value| value as &dyn crate::db::ToSql));
    let rows = statement.query_map(all.as_slice(), |row| {
        let body: String = row.get(5)?;
        let deleted = body.is_empty();
        let (rid, id, version) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (updated_ms, patient) = (row.get(3)?, row.get(4)?);
        let resource = Resource { rid, kind: asked.kind.clone(), id, version, updated_ms, patient, body };
        Ok(Version { resource, deleted })
    })?;
    let mut found = rows.collect::<Result<Vec<_>, _>>()?;
    let more = found.len() > asked.count as usize;
    found.truncate(asked.count as usize);
    let next = found.last().filter(|_| more).map(|last| Before {
        updated_ms: last.resource.updated_ms,
        rid: last.resource.rid,
        version: last.resource.version,
    });
    Ok((found, next))
}

/// The current version of a resource, or that it is gone.
pub(super) fn current(
    connection: &Connection,
    params: &ParamIds,
    kind: &str,
    id: &str,
) -> Result<Option<Version>, StoreError> {
    let Some(type_id) = params.type_id(kind) else { return Ok(None) };
    let sql = "SELECT rid, version, updated_ms, patient, body, deleted FROM resource WHERE type = ?1 AND id = ?2";
    let found = connection.prepare_cached(sql)?.query_row((type_id, id), |row| {
        let resource = Resource {
            rid: row.get(0)?,
            kind: kind.to_owned(),
            id: id.to_owned(),
            version: row.get(1)?,
            updated_ms: row.get(2)?,
            patient: row.get(3)?,
            body: row.get(4)?,
        };
        Ok(Version { resource, deleted: row.get::<_, i64>(5)? != 0 })
    });
    Ok(found.optional()?)
}

/// Resources of `kind` in the compartment of `patient` as they were at `at_ms`, in the order of their rows, after row `after`: those that `keep` lets pass.
pub(super) fn as_of(
    connection: &Connection,
    kind: &str,
    (patient, after): (i64, i64),
    (since_ms, at_ms): (i64, i64),
    (count, keep): (u32, &dyn Fn(&Resource) -> bool),
) -> Result<Vec<Resource>, StoreError> {
    let sql = "SELECT rid FROM resource WHERE patient = ?1 \
               AND type = (SELECT id FROM resource_type WHERE name = ?2) AND rid > ?3 ORDER BY rid";
    let version = "SELECT id, version, updated_ms, body FROM ( \
                     SELECT version, updated_ms, body FROM history WHERE rid = ?1 UNION ALL \
                     SELECT version, updated_ms, body FROM resource WHERE rid = ?1) v, \
                     (SELECT id FROM resource WHERE rid = ?1) r \
                   WHERE updated_ms <= ?2 ORDER BY version DESC LIMIT 1";
    let mut rids = connection.prepare_cached(sql)?;
    let mut version = connection.prepare_cached(version)?;
    let mut found = Vec::new();
    let mut rows = rids.query((patient, kind, after))?;
    while let Some(row) = rows.next()? {
        let rid: i64 = row.get(0)?;
        let then = version.query_row((rid, at_ms), |row| {
            let (id, version, updated_ms, body) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
            Ok(Resource { rid, kind: kind.to_owned(), id, version, updated_ms, patient, body })
        });
        let wanted = |then: &Resource| !then.body.is_empty() && then.updated_ms >= since_ms && keep(then);
        found.extend(then.optional()?.filter(wanted));
        if found.len() >= count as usize {
            break;
        }
    }
    Ok(found)
}
