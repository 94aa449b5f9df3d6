//! Records that were merged into a chart, followed all the way: what stands in them is the same person's, and is shown with it.
//! Each entry stays in its own record, under whose address it is read and changed.

use super::chart::jsons;
use super::reading::{self, PatientFacts, list, reference_id, subject, text};
use crate::store::{Query, StoreError, View};
use maud::{Markup, html};
use serde_json::Value;

/// Records merged into one another that are followed.
const FOLLOWED_MAX: usize = 16;

/// The patient and every record that was merged into this one, also by way of others; the patient first.
pub fn people(view: &View<'_>, patient: &PatientFacts) -> Result<Vec<String>, StoreError> {
    let (mut found, mut open) = (vec![patient.id.clone()], patient.merged.clone());
    while let Some(id) = open.pop() {
        if found.len() > FOLLOWED_MAX || found.contains(&id) {
            continue;
        }
        match view.read("Patient", &id) {
            Ok(other) => open.extend(reading::merged_into(&other.json()?).map(str::to_owned)),
            Err(StoreError::NotFound | StoreError::Gone { .. }) => continue,
            Err(error) => return Err(error),
        }
        found.push(id);
    }
    Ok(found)
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
    let booked = || list(resource, "participant").iter().find_map(|p| reference_id(p, "/actor/reference", "Patient"));
    subject(resource).or_else(booked).unwrap_or(chart)
}

/// Says that an entry stands in a record that was merged into this chart.
pub fn mark(resource: &Value, chart: &str) -> Markup {
    let own =
        text(resource, "/resourceType") == "Appointment" && has(resource, chart) || owner(resource, chart) == chart;
    html! { @if !own { " " span.tag { "from the merged record" } } }
}

fn has(appointment: &Value, patient: &str) -> bool {
    list(appointment, "participant").iter().any(|p| reference_id(p, "/actor/reference", "Patient") == Some(patient))
}
