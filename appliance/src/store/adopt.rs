//! Taking over what another installation of this program wrote: versions, times and bytes stay what they were.

use super::tx::Tx;
use super::{StoreError, index, resource};
use crate::access::{self, Object};
use crate::audit::{Action, Event};
use crate::fhir;
use serde_json::Value;

/// One version as it was written; an empty body says that it was deleted.
#[derive(Debug, Clone, Copy)]
pub struct Adopted<'a> {
    pub kind: &'a str,
    pub id: &'a str,
    pub version: u32,
    pub updated_ms: i64,
    pub body: &'a str,
}

impl Tx<'_> {
    /// Whether nothing was ever stored here.
    pub fn is_unused(&self) -> Result<bool, StoreError> {
        let sql = "SELECT NOT EXISTS (SELECT 1 FROM resource) AND NOT EXISTS (SELECT 1 FROM ledger_posting) \
                   AND NOT EXISTS (SELECT 1 FROM attachment)";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// Stores the current version of a resource under its own id and version.
    pub fn adopt(&mut self, adopted: &Adopted<'_>) -> Result<(), StoreError> {
        let Adopted { kind, id, version, updated_ms, body } = *adopted;
        access::authorize(self.actor(), access::Action::Create, Object::resource(kind))?;
        let type_id =
            self.params.type_id(kind).ok_or_else(|| StoreError::invalid("this type is not kept here", kind))?;
        fhir::check_id(id)?;
        let value = self.adopted_value(adopted)?;
        let sql = "INSERT INTO resource (type, id, version, updated_ms, patient, deleted, body, digest) \
                   VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7)";
        let row = (type_id, id, version, updated_ms, value.is_none(), body, resource::body_digest(body));
        let rid = self.connection.insert("rid", sql, row)?;
        let Some(value) = value else {
            // Whose it was stands in its last version, which follows.
            return self.belongs(rid, if kind == "Patient" { rid } else { 0 });
        };
        let patient = self.owner(kind, rid, &value)?;
        self.belongs(rid, patient)?;
        index::insert(self.connection, self.params, kind, (rid, patient), &value)?;
        if kind == "Appointment" {
            crate::scheduling::occupancy::settle(self, rid, id, &value)?;
        }
        let owner = resource::patient_id(self.connection, patient)?;
        self.note(Event::new(Action::Import, kind, id).of_patient(&owner));
        Ok(())
    }

    /// Stores a superseded version of a resource that was [`Tx::adopt`]ed.
    pub fn adopt_version(&mut self, adopted: &Adopted<'_>) -> Result<(), StoreError> {
        let Adopted { kind, id, version, updated_ms, body } = *adopted;
        let value = self.adopted_value(adopted)?;
        let sql = "SELECT rid, version, deleted FROM resource \
                   WHERE type = (SELECT id FROM resource_type WHERE name = ?1) AND id = ?2";
        let row = |row: &crate::db::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, u32>(1)?, row.get::<_, bool>(2)?));
        let (rid, current, deleted) = self.connection.prepare_cached(sql)?.query_row((kind, id), row)?;
        if version >= current {
            return Err(StoreError::invalid("an earlier version is later than the current one", kind));
        }
        let sql = "INSERT INTO history (rid, version, updated_ms, body) VALUES (?1, ?2, ?3, ?4)";
        self.connection.prepare_cached(sql)?.execute((rid, version, updated_ms, body))?;
        if let Some(value) = value.filter(|_| deleted) {
            let patient = self.owner(kind, rid, &value)?;
            self.belongs(rid, patient)?;
        }
        Ok(())
    }

    fn adopted_value(&self, adopted: &Adopted<'_>) -> Result<Option<Value>, StoreError> {
        if adopted.body.is_empty() {
            return Ok(None);
        }
        let wrong = || StoreError::invalid("does not hold what its line says", adopted.kind);
        let value: Value = serde_json::from_str(adopted.body).map_err(|_| wrong())?;
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let same = text("/resourceType") == adopted.kind
            && text("/id") == adopted.id
            && text("/meta/versionId") == adopted.version.to_string();
        if same { Ok(Some(value)) } else { Err(wrong()) }
    }

    /// Row of the patient whose it is, deleted ones included.
    fn owner(&self, kind: &str, rid: i64, value: &Value) -> Result<i64, StoreError> {
        if kind == "Patient" {
            return Ok(rid);
        }
        let Some(id) = index::patient_reference(value) else { return Ok(0) };
        let sql =
            "SELECT rid FROM resource WHERE type = (SELECT id FROM resource_type WHERE name = 'Patient') AND id = ?1";
        let found = self.connection.prepare_cached(sql)?.query_row([id], |row| row.get(0));
        found.map_err(|_| StoreError::invalid("refers to a patient who is not here", kind))
    }

    fn belongs(&self, rid: i64, patient: i64) -> Result<(), StoreError> {
        self.connection
            .prepare_cached("UPDATE resource SET patient = ?2 WHERE rid = ?1 AND patient <> ?2")?
            .execute((rid, patient))?;
        Ok(())
    }
}
