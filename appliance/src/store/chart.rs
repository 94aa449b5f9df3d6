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
    /// There are more encounters, documents or appointments than the newest [`LISTED_MAX`].
    pub cut: bool,
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
        self.cut |= merged.cut;
    }
}

/// Encounters, documents and appointments that a chart lists, each: the newest. Allergies, problems and medications are all there.
pub const LISTED_MAX: u32 = 500;

pub(super) fn load(view: &View<'_>, patient: Resource) -> Result<Chart, StoreError> {
    let mut cut = false;
    let mut list = |kind: &str, by: Option<&str>| -> Result<Vec<Resource>, StoreError> {
        if !view.may(access::Action::Search, kind) {
            return Ok(Vec::new());
        }
        let mut found = match by {
            None => all_of(view.connection, patient.rid, kind)?,
            Some(date) => newest_of(view, patient.rid, (kind, date))?,
        };
        if by.is_some() && found.len() > LISTED_MAX as usize {
            found.truncate(LISTED_MAX as usize);
            cut = true;
        }
        view.note(Event::new(Action::Search, kind, "").of_patient(&patient.id).matches(found.len() as u64));
        Ok(found)
    };
    Ok(Chart {
        allergies: list("AllergyIntolerance", None)?,
        problems: list("Condition", None)?,
        medications: list("MedicationRequest", None)?,
        encounters: list("Encounter", Some("date"))?,
        documents: list("DocumentReference", Some("date"))?,
        appointments: list("Appointment", Some("date"))?,
        patient,
        cut,
    })
}

/// All resources of one kind in a patient's compartment, last created first.
pub(super) fn all_of(connection: &Connection, patient: i64, kind: &str) -> Result<Vec<Resource>, StoreError> {
    let sql = format!(
        "SELECT {} FROM {} WHERE r.patient = ?1 AND t.name = ?2 AND r.deleted = 0 ORDER BY r.rid DESC",
        resource::COLUMNS,
        resource::TABLES
    );
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_map((patient, kind), resource::from_row)?.collect::<Result<_, _>>()?)
}

/// The newest of one kind by a parameter of dates, one more than a chart lists; what has no date comes last.
fn newest_of(view: &View<'_>, patient: i64, (kind, date): (&str, &str)) -> Result<Vec<Resource>, StoreError> {
    let param =
        view.params.param_id(kind, date).ok_or_else(|| StoreError::invalid("this type has no such date", kind))?;
    let sql = format!(
        "SELECT {} FROM {} \
         LEFT JOIN (SELECT rid, max(lo) AS at FROM ix_date WHERE param = ?3 AND patient = ?1 GROUP BY rid) d ON d.rid = r.rid \
         WHERE r.patient = ?1 AND t.name = ?2 AND r.deleted = 0 ORDER BY d.at IS NULL, d.at DESC, r.rid DESC LIMIT ?4",
        resource::COLUMNS,
        resource::TABLES
    );
    let mut statement = view.connection.prepare_cached(&sql)?;
    let values = (patient, kind, param, LISTED_MAX + 1);
    Ok(statement.query_map(values, resource::from_row)?.collect::<Result<_, _>>()?)
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
