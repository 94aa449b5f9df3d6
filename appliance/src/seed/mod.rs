//! `appliance seed`: a made-up practice, the same for the same number. No name, address or history is a person's.

mod calendar;
mod chart;
mod choose;
mod pdf;
mod words;

use crate::access::{Actor, Program};
use crate::store::{Expect, Store, StoreError, Tx};
use choose::Chooser;
use chrono::{DateTime, NaiveDate};
use serde_json::{Value, json};

/// What to make.
#[derive(Debug, Clone)]
pub struct Plan {
    pub patients: u32,
    pub seed: u64,
    /// The zone of the practice's opening hours.
    pub zone: chrono_tz::Tz,
    pub practice_name: String,
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seeded {
    pub resources: u64,
    pub attachments: u64,
}

/// Names and ids of those who work here.
pub(crate) struct Staff {
    pub id: String,
    pub display: String,
}

/// Fills the store, one transaction a patient; `progress` hears how many are done.
///
/// # Errors
/// [`StoreError::Invalid`] when the same practice was made here before: nothing is added twice.
pub fn run(store: &Store, plan: &Plan, mut progress: impl FnMut(u64)) -> Result<Seeded, StoreError> {
    let today = today(store, plan.zone);
    let mut seeded = Seeded::default();
    let staff = practice(store, plan, &mut seeded)?;
    let mut calendar = calendar::Calendar::new(plan.zone, today, staff.len());
    for number in 0..plan.patients {
        let mut chooser = Chooser::new(plan.seed, &format!("patient {number}"));
        let mut chart = chart::Chart::make(&mut chooser, number, today, &staff);
        calendar.book(&mut chooser, &mut chart, &staff);
        write_chart(store, chart, &mut seeded)?;
        progress(u64::from(number) + 1);
    }
    Ok(seeded)
}

fn today(store: &Store, zone: chrono_tz::Tz) -> NaiveDate {
    let now = DateTime::from_timestamp_millis(store.clock().unix_ms()).unwrap_or_default();
    now.with_timezone(&zone).date_naive()
}

/// The organization, its place and its practitioners.
fn practice(store: &Store, plan: &Plan, seeded: &mut Seeded) -> Result<Vec<Staff>, StoreError> {
    let mut chooser = Chooser::new(plan.seed, "practice");
    let organization = chooser.id();
    let mut resources = vec![
        (
            organization.clone(),
            json!({
                "resourceType": "Organization", "active": true, "name": plan.practice_name,
                "telecom": [{ "system": "phone", "value": "555-0100" }],
            }),
        ),
        (
            chooser.id(),
            json!({
                "resourceType": "Location", "status": "active", "name": plan.practice_name,
                "managingOrganization": { "reference": format!("Organization/{organization}") },
            }),
        ),
    ];
    let mut staff = Vec::new();
    let (mut given, mut family) = (words::GIVEN.to_vec(), words::FAMILY.to_vec());
    for (index, specialty) in words::SPECIALTIES.iter().enumerate() {
        let (given, family) = (chooser.take(&mut given), chooser.take(&mut family));
        let id = chooser.id();
        resources.push((
            id.clone(),
            json!({
                "resourceType": "Practitioner", "active": true,
                "identifier": [{ "system": "urn:holdfast:staff-number", "value": (index + 1).to_string() }],
                "name": [{ "family": family, "given": [given], "prefix": ["Dr."] }],
            }),
        ));
        resources.push((
            chooser.id(),
            json!({
                "resourceType": "PractitionerRole", "active": true,
                "practitioner": { "reference": format!("Practitioner/{id}") },
                "organization": { "reference": format!("Organization/{organization}") },
                "specialty": [{ "text": specialty }],
            }),
        ));
        staff.push(Staff { id, display: format!("Dr. {given} {family}") });
    }
    resources.extend(calendar::practice(&mut chooser, &staff));
    seeded.resources += resources.len() as u64;
    store.write_blocking(&Actor::program(Program::Seed), move |tx: &mut Tx<'_>| {
        if tx.read("Organization", &organization).is_ok() {
            return Err(StoreError::invalid("this practice was made here before: choose another seed", "--seed"));
        }
        resources.into_iter().try_for_each(|(id, body)| put(tx, &id, body))
    })?;
    Ok(staff)
}

fn write_chart(store: &Store, chart: chart::Chart, seeded: &mut Seeded) -> Result<(), StoreError> {
    let mut staged = Vec::with_capacity(chart.documents.len());
    for document in &chart.documents {
        staged.push(store.attachments().stage(&document.bytes)?);
    }
    seeded.attachments += staged.len() as u64;
    seeded.resources += (chart.resources.len() + chart.documents.len()) as u64;
    store.write_blocking(&Actor::program(Program::Seed), move |tx: &mut Tx<'_>| {
        for (id, body) in chart.resources {
            put(tx, &id, body)?;
        }
        for (document, staged) in chart.documents.into_iter().zip(staged) {
            let row = tx.attach_as(&document.binary, &staged, Some(&chart.patient))?;
            let url = format!("Binary/{}", row.id);
            let attachment =
                json!({ "contentType": row.media_type, "url": url, "size": row.bytes, "title": document.title });
            let mut body = document.body;
            if let Some(element) = body.as_object_mut() {
                element.insert("content".into(), json!([{ "attachment": attachment }]));
            }
            put(tx, &document.id, body)?;
        }
        chart.postings.iter().try_for_each(|posting| tx.post(posting))
    })
}

fn put(tx: &mut Tx<'_>, id: &str, body: Value) -> Result<(), StoreError> {
    let kind = body.get("resourceType").and_then(Value::as_str).unwrap_or_default().to_owned();
    tx.update(&kind, id, body, Expect::Nothing).map(|_| ())
}
