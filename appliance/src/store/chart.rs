//! What the pages of one patient and of one day show.

use super::index::ParamIds;
use super::resource::{self, Resource};
use super::{StoreError, View};
use crate::access;
use crate::audit::{Action, Event};
use crate::db::Connection;

/// A patient with the parts of the record that the actor's role may see; a part that it may not see is empty.
#[derive(Debug, Clone)]
pub struct Chart {
    pub patient: Resource,
    pub allergies: Vec<Resource>,
    pub problems: Vec<Resource>,
    pub medications: Vec<Resource>,
    pub encounters: Vec<Resource>,
    pub documents: Vec<Resource>,
    pub appointments: Vec<Resource>,
}

impl Chart {
    /// Adds what stands in a record that was merged into this one.
    pub fn append(&mut self, merged: Chart) {
        self.allergies.extend(merged.allergies);
        self.problems.extend(merged.problems);
        self.medications.extend(merged.medications);
        self.encounters.extend(merged.encounters);
        self.documents.extend(merged.documents);
        self.appointments.extend(merged.appointments);
    }
}

/// Rows of one kind that a chart lists at most; the rest is found by search.
const LISTED_MAX: u32 = 500;

pub(super) fn load(view: &View<'_>, patient: Resource) -> Result<Chart, StoreError> {
    let list = |kind: &str| -> Result<Vec<Resource>, StoreError> {
        if !view.may(access::Action::Search, kind) {
            return Ok(Vec::new());
        }
        let found = newest_of(view.connection, patient.rid, kind)?;
        view.note(Event::new(Action::Search, kind, "").of_patient(&patient.id).matches(found.len() as u64));
        Ok(found)
    };
    Ok(Chart {
        allergies: list("AllergyIntolerance")?,
        problems: list("Condition")?,
        medications: list("MedicationRequest")?,
        encounters: list("Encounter")?,
        documents: list("DocumentReference")?,
        appointments: list("Appointment")?,
        patient,
    })
}

/// Resources of one kind in a patient's compartment, last created first.
pub(super) fn newest_of(connection: &Connection, patient: i64, kind: &str) -> Result<Vec<Resource>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE r.patient = ?1 AND t.name = ?2 AND r.deleted = 0 ORDER BY r.rid DESC LIMIT ?3",
        resource::COLUMNS,
        resource::TABLES
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map((patient, kind, LISTED_MAX), resource::from_row)?.collect::<Result<_, _>>()?)
}

pub(super) fn appointments_between(
    connection: &Connection,
    params: &ParamIds,
    from_ms: i64,
    until_ms: i64,
) -> Result<Vec<Resource>, StoreError> {
    let Some(param) = params.param_id("Appointment", "date") else { return Ok(Vec::new()) };
    let sql = format!(
        "SELECT {} FROM ix_date d JOIN resource r ON r.rid = d.rid JOIN resource_type t ON t.id = r.type \
         WHERE d.param = ?1 AND d.lo >= ?2 AND d.lo < ?3 AND r.deleted = 0 ORDER BY d.lo, r.id",
        resource::COLUMNS
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map((param, from_ms, until_ms), resource::from_row)?.collect::<Result<_, _>>()?)
}
