//! The records of one person: those that were merged into one another, by whatever chain of links and from whichever of them
//! one looks. Consents, access, charts, the downtime pack and reminders all ask here, so that they get one answer.

use super::resource::{self, Resource};
use super::{StoreError, Tx, View};
use crate::access::{Action, Capacity, Program};
use crate::db::Connection;
use serde_json::Value;

/// Records of one person at most. More are refused when they are linked, so that none is ever left out.
const RECORDS_MAX: usize = 64;

/// The records of one person at a moment.
#[derive(Debug, Clone)]
pub struct Person {
    /// Row and logical id; the record that was asked for comes first.
    records: Vec<(i64, String)>,
    /// The closed record and the one that it was merged into.
    merges: Vec<(i64, i64)>,
}

impl Person {
    /// The person whose record is in this row, which is theirs alone where nothing was merged.
    pub(crate) fn load(connection: &Connection, row: i64) -> Result<Person, StoreError> {
        let mut person = Person { records: Vec::new(), merges: Vec::new() };
        let mut open = vec![row];
        while let Some(row) = open.pop() {
            if person.records.iter().any(|(known, _)| *known == row) || person.records.len() > RECORDS_MAX {
                continue;
            }
            let Some(found) = patient_in(connection, row)? else { continue };
            let mut next = Vec::new();
            for (kind, other) in merges(&found.json()?) {
                // A link to a record that is not here leads nowhere.
                next.extend(resource::patient_rid(connection, other)?.map(|other| edge(kind, row, other)));
            }
            next.extend(linking_to(connection, &found)?);
            person.records.push((row, found.id));
            open.extend(next.iter().flat_map(|(closed, kept)| [*closed, *kept]));
            person.merges.extend(next);
        }
        Ok(person)
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = i64> {
        self.records.iter().map(|(row, _)| *row)
    }

    /// The logical ids, that of the record that was asked for first.
    pub fn ids(&self) -> Vec<String> {
        self.records.iter().map(|(_, id)| id.clone()).collect()
    }

    /// The record that goes on: into it the one that was asked for was merged, or it is that one itself.
    pub fn goes_on(&self) -> &str {
        let Some((first, _)) = self.records.first() else { return "" };
        let (mut at, mut passed) = (*first, vec![*first]);
        while let Some((_, kept)) = self.merges.iter().find(|(closed, kept)| *closed == at && !passed.contains(kept)) {
            at = *kept;
            passed.push(at);
        }
        self.records.iter().find(|(row, _)| *row == at).map_or("", |(_, id)| id)
    }

    /// The record that goes on, where it is another one than that which was asked for.
    pub fn merged_into(&self) -> Option<&str> {
        let own = self.records.first().map_or("", |(_, id)| id);
        Some(self.goes_on()).filter(|kept| *kept != own)
    }

    fn retain(&mut self, keep: impl Fn(i64) -> bool) {
        self.records.retain(|(row, _)| keep(*row));
        self.merges.retain(|(closed, kept)| keep(*closed) && keep(*kept));
    }
}

/// The links of a patient that merge records, with their kind and the other record's id.
pub(crate) fn merges(patient: &Value) -> impl Iterator<Item = (&str, &str)> {
    let links = patient.get("link").and_then(Value::as_array).into_iter().flatten();
    links.filter_map(|link| {
        let kind = link.get("type")?.as_str().filter(|kind| matches!(*kind, "replaces" | "replaced-by"))?;
        Some((kind, link.pointer("/other/reference")?.as_str()?.strip_prefix("Patient/")?))
    })
}

/// Which of both is closed, and which goes on.
fn edge(kind: &str, own: i64, other: i64) -> (i64, i64) {
    if kind == "replaces" { (other, own) } else { (own, other) }
}

/// Merges that another record tells and this one does not, as where one side was imported.
fn linking_to(connection: &Connection, patient: &Resource) -> Result<Vec<(i64, i64)>, StoreError> {
    let sql = "SELECT rid FROM ix_ref WHERE param = (SELECT id FROM param WHERE type = 'Patient' AND name = 'link') AND target = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let rows = statement.query_map([patient.reference()], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>()?;
    let mut found = Vec::new();
    for row in rows.into_iter().filter(|row| *row != patient.rid) {
        let Some(other) = patient_in(connection, row)? else { continue };
        let body = other.json()?;
        found.extend(merges(&body).filter(|(_, id)| *id == patient.id).map(|(kind, _)| edge(kind, row, patient.rid)));
    }
    Ok(found)
}

fn patient_in(connection: &Connection, row: i64) -> Result<Option<Resource>, StoreError> {
    let found = resource::load_row(connection, "Patient", row);
    match found {
        // A deleted one has no body.
        Ok(found) => Ok(Some(found).filter(|found| !found.body.is_empty())),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

impl View<'_> {
    /// The records of a person, as far as the actor may reach them: whoever is bound to one record has that one alone.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] where there is no such patient.
    pub fn person(&self, patient: &str) -> Result<Person, StoreError> {
        self.permit(Action::Read, "Patient", patient)?;
        let row = resource::patient_rid(self.connection, patient)?.ok_or(StoreError::NotFound)?;
        self.bounds().check(Action::Read, "Patient", row)?;
        let mut person = Person::load(self.connection, row)?;
        person.retain(|other| other == row || self.bounds().check(Action::Read, "Patient", other).is_ok());
        Ok(person)
    }
}

impl Tx<'_> {
    /// The records of a person: for a rule of the store, which holds whoever writes.
    pub fn person(&self, patient: &str) -> Result<Person, StoreError> {
        let row = resource::patient_rid(self.connection, patient)?.ok_or(StoreError::NotFound)?;
        Person::load(self.connection, row)
    }

    /// Refuses to begin something in a record that was merged into another one.
    ///
    /// # Errors
    /// [`StoreError::Merged`] names the record that goes on.
    pub fn require_open(&self, patient: &str) -> Result<(), StoreError> {
        refuse_closed(&self.person(patient)?)
    }

    /// [`Tx::require_open`] for a resource that comes into the record in row `patient`. What was entered there before is changed
    /// and added to there; what moves in from elsewhere happened, and who has access to a closed record alone writes and answers
    /// there. Appointments have a rule of their own.
    pub(super) fn check_goes_on(&self, kind: &str, patient: i64, value: &Value) -> Result<(), StoreError> {
        let moves_in = matches!(self.actor().capacity, Capacity::Program(Program::Import | Program::Seed));
        let from_portal = matches!(self.actor().capacity, Capacity::Patient | Capacity::Proxy(_));
        let is_talk = matches!(kind, "Communication" | "Task");
        if patient == 0 || matches!(kind, "Patient" | "Appointment") || is_talk || moves_in || from_portal {
            return Ok(());
        }
        let person = Person::load(self.connection, patient)?;
        if person.merged_into().is_some() && !self.adds_to_own(patient, value)? {
            return refuse_closed(&person);
        }
        Ok(())
    }

    /// Whether this is an addendum to a document, or the next version of a form, of the same record.
    fn adds_to_own(&self, patient: i64, value: &Value) -> Result<bool, StoreError> {
        let related = value.get("relatesTo").and_then(Value::as_array).into_iter().flatten();
        let appended = related.filter_map(|relation| relation.pointer("/target/reference"));
        let amended = crate::scheduling::extension(value, crate::forms::AMENDS, "valueReference");
        let amended = amended.and_then(|reference| reference.get("reference"));
        for reference in appended.chain(amended).filter_map(Value::as_str) {
            let Some((kind, id)) = reference.split_once('/') else { continue };
            if resource::load(self.connection, kind, id)?.is_some_and(|earlier| earlier.patient == patient) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Refuses a link by which a person would have more records than are followed.
    pub(super) fn check_links(&self, patient: i64) -> Result<(), StoreError> {
        let person = Person::load(self.connection, patient)?;
        if person.records.len() > RECORDS_MAX {
            let told = "joins more than 64 records of one person: leave the oldest ones apart";
            return Err(StoreError::invalid(told, "Patient.link"));
        }
        Ok(())
    }
}

fn refuse_closed(person: &Person) -> Result<(), StoreError> {
    match person.merged_into() {
        Some(kept) => Err(StoreError::Merged { goes_on: kept.to_owned() }),
        None => Ok(()),
    }
}
