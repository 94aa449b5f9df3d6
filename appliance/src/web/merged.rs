//! The other records of the person whose chart it is: what stands in them is the same person's, and is shown with it. Each entry
//! stays in its own record, under whose address it is read and changed. Nothing new is entered in one that was closed.

use super::chart::jsons;
use super::reading::{PatientFacts, list, reference_id, subject, text};
use crate::store::{Query, StoreError, View};
use maud::{Markup, html};
use serde_json::Value;

/// The patient and every other record of the same person; the patient first.
pub fn people(view: &View<'_>, patient: &PatientFacts) -> Result<Vec<String>, StoreError> {
    Ok(view.person(&patient.id)?.ids())
}

/// What is shown of a patient, with the record that goes on where this one was closed.
pub fn facts(view: &View<'_>, patient: &Value) -> Result<PatientFacts, StoreError> {
    let facts = PatientFacts::read(patient);
    let goes_on = view.person(&facts.id)?.merged_into().map(str::to_owned);
    Ok(PatientFacts { goes_on, ..facts })
}

/// What a query finds in the records of these.
pub fn search(view: &View<'_>, query: &Query, people: &[String]) -> Result<Vec<Value>, StoreError> {
    let mut found = Vec::new();
    for patient in people {
        found.extend(jsons(&view.search(&query.clone().of_patient(patient))?.resources)?);
    }
    Ok(found)
}

/// In whose record an entry of this chart stands.
pub fn owner<'a>(resource: &'a Value, chart: &'a str) -> &'a str {
    let named = || reference_id(resource, "/beneficiary/reference", "Patient");
    let booked = || list(resource, "participant").iter().find_map(|p| reference_id(p, "/actor/reference", "Patient"));
    subject(resource).or_else(named).or_else(booked).unwrap_or(chart)
}

/// Says that an entry stands in another record of the person than the one whose chart it is.
pub fn mark(resource: &Value, chart: &str) -> Markup {
    let own =
        text(resource, "/resourceType") == "Appointment" && has(resource, chart) || owner(resource, chart) == chart;
    html! { @if !own { " " (tag()) } }
}

pub fn tag() -> Markup {
    html! { span.tag { "from another record" } }
}

fn has(appointment: &Value, patient: &str) -> bool {
    list(appointment, "participant").iter().any(|p| reference_id(p, "/actor/reference", "Patient") == Some(patient))
}
