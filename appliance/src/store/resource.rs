//! A stored resource and the rows it lives in.

use super::StoreError;
use crate::db::{Connection, OptionalExtension, Row};
use serde_json::Value;

/// One version of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    pub(crate) rid: i64,
    /// The FHIR type, `Patient`.
    pub kind: String,
    /// The logical id.
    pub id: String,
    /// From 1.
    pub version: u32,
    pub updated_ms: i64,
    /// Row of the patient in whose compartment it is; 0 for none.
    pub(crate) patient: i64,
    /// The JSON as served: canonical bytes with `id` and `meta` included.
    pub body: String,
}

/// What an update expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Exactly this version (`If-Match`); of a deleted resource the version that says so.
    Version(u32),
    /// Nothing: the client chose the id of a new resource.
    Nothing,
}

impl Resource {
    /// The body as a JSON value.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the stored bytes are no longer JSON.
    pub fn json(&self) -> Result<Value, StoreError> {
        serde_json::from_str(&self.body).map_err(|_| StoreError::Damaged("resource body"))
    }

    /// `Type/id`.
    pub fn reference(&self) -> String {
        format!("{}/{}", self.kind, self.id)
    }
}

pub(super) const COLUMNS: &str = "r.rid, t.name, r.id, r.version, r.updated_ms, r.patient, r.body";
pub(super) const TABLES: &str = "resource r JOIN resource_type t ON t.id = r.type";

pub(super) fn from_row(row: &Row<'_>) -> crate::db::Result<Resource> {
    Ok(Resource {
        rid: row.get(0)?,
        kind: row.get(1)?,
        id: row.get(2)?,
        version: row.get(3)?,
        updated_ms: row.get(4)?,
        patient: row.get(5)?,
        body: row.get(6)?,
    })
}

/// The current version, or `None`.
pub(crate) fn load(connection: &Connection, kind: &str, id: &str) -> Result<Option<Resource>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM {TABLES} WHERE t.name = ?1 AND r.id = ?2 AND r.deleted = 0");
    Ok(connection.prepare_cached(&sql)?.query_row((kind, id), from_row).optional()?)
}

/// The body of a patient, for the line on every page of the portal that says for whom somebody acts: what the page itself reads
/// is noted by its view.
pub(crate) fn patient_body(connection: &Connection, id: &str) -> Result<Option<Value>, StoreError> {
    load(connection, "Patient", id)?.map(|found| found.json()).transpose()
}

/// The current version in row `rid`, which is one of `kind`.
pub(super) fn load_row(connection: &Connection, kind: &str, rid: i64) -> Result<Resource, StoreError> {
    let sql = "SELECT id, version, updated_ms, patient, body FROM resource WHERE rid = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([rid], |row| {
        Ok(Resource {
            rid,
            kind: kind.to_owned(),
            id: row.get(0)?,
            version: row.get(1)?,
            updated_ms: row.get(2)?,
            patient: row.get(3)?,
            body: row.get(4)?,
        })
    })?)
}

/// A superseded version, or `None`.
pub(super) fn load_version(
    current: Resource,
    connection: &Connection,
    version: u32,
) -> Result<Option<Resource>, StoreError> {
    let sql = "SELECT updated_ms, body FROM history WHERE rid = ?1 AND version = ?2";
    let found = connection
        .prepare_cached(sql)?
        .query_row((current.rid, version), |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    Ok(found.map(|(updated_ms, body)| Resource { version, updated_ms, body, ..current }))
}

/// The logical id of the patient in row `rid`; empty for 0.
pub(super) fn patient_id(connection: &Connection, rid: i64) -> Result<String, StoreError> {
    if rid == 0 {
        return Ok(String::new());
    }
    let sql = "SELECT id FROM resource WHERE rid = ?1";
    Ok(connection.prepare_cached(sql)?.query_row([rid], |row| row.get(0)).optional()?.unwrap_or_default())
}

/// Row of the patient with this logical id.
pub(crate) fn patient_rid(connection: &Connection, id: &str) -> Result<Option<i64>, StoreError> {
    let sql = "SELECT r.rid FROM resource r JOIN resource_type t ON t.id = r.type \
               WHERE t.name = 'Patient' AND r.id = ?1 AND r.deleted = 0";
    Ok(connection.prepare_cached(sql)?.query_row([id], |row| row.get(0)).optional()?)
}

/// What is kept beside a body, so that a change which did not go through this program is noticed.
pub fn body_digest(body: &str) -> [u8; 16] {
    let mut digest = [0; 16];
    blake3::Hasher::new().update(body.as_bytes()).finalize_xof().fill(&mut digest);
    digest
}
