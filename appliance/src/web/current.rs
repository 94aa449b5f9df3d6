//! What holds of a patient now: the database selects it by status, and it is complete, however long the record.

use super::clinical::{Point, measured};
use super::merged;
use super::reading::{Allergy, active_allergies, code, concept, text};
use crate::store::{Query, StoreError, View};
use chrono_tz::Tz;
use serde_json::Value;

/// The allergies that count, the gravest first, in the records of these.
pub fn allergies(view: &View<'_>, people: &[String]) -> Result<Vec<Allergy>, StoreError> {
    let query = select("AllergyIntolerance", ("clinical-status:not", "inactive,resolved"))?;
    Ok(active_allergies(&merged::search(view, &query, people)?))
}

/// The problems that neither ended nor were ruled out.
pub fn problems(view: &View<'_>, people: &[String]) -> Result<Vec<String>, StoreError> {
    let query = select("Condition", ("clinical-status:not", "inactive,resolved,remission"))?;
    let mut found = merged::search(view, &query, people)?;
    found.retain(|problem| !matches!(code(problem, "verificationStatus"), "entered-in-error" | "refuted"));
    Ok(words(&found, |problem| concept(problem.get("code"))))
}

/// The medications that are taken.
pub fn medications(view: &View<'_>, people: &[String]) -> Result<Vec<String>, StoreError> {
    let found = merged::search(view, &select("MedicationRequest", ("status", "active"))?, people)?;
    Ok(words(&found, |medication| match concept(medication.get("medicationCodeableConcept")) {
        "" => text(medication, "/medicationReference/display"),
        named => named,
    }))
}

/// The newest value of a measurement, by its LOINC code.
pub fn value(view: &View<'_>, people: &[String], loinc: &str, zone: Tz) -> Result<Option<f64>, StoreError> {
    let query = select("Observation", ("code", loinc))?;
    let mut newest: Option<Point> = None;
    for patient in people {
        view.each::<StoreError>(&query.clone().of_patient(patient), |observation| {
            let found = measured(&observation.json()?, loinc, zone);
            // Of two at one moment the one that was stored last.
            newest = found.filter(|point| newest.as_ref().is_none_or(|last| last.at <= point.at)).or(newest.take());
            Ok(())
        })?;
    }
    Ok(newest.map(|point| point.value))
}

fn select(kind: &str, (name, value): (&str, &str)) -> Result<Query, StoreError> {
    Query::parse(kind, &[(name.to_owned(), value.to_owned())])
}

fn words(found: &[Value], said: fn(&Value) -> &str) -> Vec<String> {
    found.iter().map(said).filter(|words| !words.is_empty()).map(str::to_owned).collect()
}
