//! One patient's record to take along: a FHIR bundle for programs, a page for people, and the files.

use super::Sink;
use crate::attachments::{AttachmentRow, Attachments};
use crate::audit::{Action, Event};
use crate::fhir::types::TYPES;
use crate::store::{Query, StoreError, View};
use crate::web::reading::{self, PatientFacts, code, concept, list, text};
use crate::web::registration::Part;
use crate::{access, clock, dates};
use chrono_tz::Tz;
use maud::{DOCTYPE, Markup, html};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Resources of one patient at most.
const RESOURCES_MAX: usize = 200_000;
/// Values that an observation's row shows.
const PARTS_MAX: usize = 12;

/// What is exported of a patient.
pub struct Record {
    resources: Vec<Value>,
    files: Vec<AttachmentRow>,
}

/// All that the actor's role may see of a patient.
pub fn gather(view: &View<'_>, patient: &str) -> Result<Record, StoreError> {
    let mut resources = vec![view.read("Patient", patient)?.json()?];
    for kind in TYPES.iter().filter(|k| **k != "Patient" && view.may(access::Action::Search, k)) {
        view.each(&Query::all(kind)?.of_patient(patient), |found| {
            resources.push(found.json()?);
            match resources.len() > RESOURCES_MAX {
                true => {
                    let told = "this record is too large for one file: export it by the FHIR API";
                    Err(StoreError::invalid(told, "Patient"))
                }
                false => Ok(()),
            }
        })?;
    }
    let files = if view.may(access::Action::Read, "Binary") { view.attachments_of(patient)? } else { Vec::new() };
    let matches = resources.len() as u64;
    view.note(Event::new(Action::Export, "Patient", patient).of_patient(patient).matches(matches));
    Ok(Record { resources, files })
}

/// Writes bundle, page and files. Blocks on the disk.
pub fn write(
    record: &Record,
    attachments: &Attachments,
    (practice, zone, now_ms): (&str, Tz, i64),
    sink: &mut dyn Sink,
) -> Result<(), StoreError> {
    let mut lost = Vec::new();
    for row in &record.files {
        match attachments.read(row) {
            Ok(bytes) => sink.file(&file_name(row), bytes)?,
            Err(StoreError::Damaged(_)) => lost.push(row.id.as_str()),
            Err(error) => return Err(error),
        }
    }
    let entries: Vec<Value> = record.resources.iter().map(|resource| json!({"resource": resource})).collect();
    let bundle = json!({
        "resourceType": "Bundle", "type": "collection", "timestamp": clock::instant(now_ms), "entry": entries,
    });
    sink.file("record.json", bundle.to_string().into_bytes())?;
    let page = page(record, &lost, practice, zone, now_ms);
    sink.file("record.html", page.into_string().into_bytes())
}

/// The name of a file in the archive: its `Binary`'s id, with what its bytes are.
fn file_name(row: &AttachmentRow) -> String {
    let ending = match row.media_type.split(';').next().unwrap_or_default() {
        "application/pdf" => "pdf",
        "image/png" => "png",
        "image/jpeg" => "jpg",
        "image/tiff" => "tif",
        "application/dicom" => "dcm",
        "audio/ogg" => "ogg",
        "audio/wav" => "wav",
        "audio/webm" => "webm",
        "text/plain" => "txt",
        _ => "bin",
    };
    format!("files/{}.{ending}", row.id)
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1a1f24}\
    h1{margin-bottom:0}h2{border-bottom:1px solid #999;margin-top:2em}table{border-collapse:collapse;width:100%}\
    td,th{text-align:left;vertical-align:top;padding:.3em .6em .3em 0;border-bottom:1px solid #ddd}\
    td.when{white-space:nowrap;width:11em}pre{white-space:pre-wrap;font:inherit;margin:.3em 0}.soft{color:#555}";

fn page(record: &Record, lost: &[&str], practice: &str, zone: Tz, now_ms: i64) -> Markup {
    let none = Value::Null;
    let facts = PatientFacts::read(record.resources.first().unwrap_or(&none));
    let mut kinds = BTreeMap::<&str, Vec<&Value>>::new();
    for resource in record.resources.iter().skip(1) {
        kinds.entry(text(resource, "/resourceType")).or_default().push(resource);
    }
    let names: BTreeMap<&str, String> = record.files.iter().map(|row| (row.id.as_str(), file_name(row))).collect();
    const FIRST: [(&str, &str); 10] = [
        ("AllergyIntolerance", "Allergies"),
        ("Condition", "Problems"),
        ("MedicationRequest", "Medications"),
        ("Immunization", "Immunizations"),
        ("Observation", "Measurements and results"),
        ("DiagnosticReport", "Reports"),
        ("Encounter", "Encounters"),
        ("DocumentReference", "Notes and documents"),
        ("QuestionnaireResponse", "Forms"),
        ("Appointment", "Appointments"),
    ];
    let others = kinds.keys().copied().filter(|kind| !FIRST.iter().any(|(known, _)| known == kind));
    let sections: Vec<(&str, &str)> = FIRST.into_iter().chain(others.map(|kind| (kind, kind))).collect();
    let row =
        |label: &str, value: &str| html! { @if !value.is_empty() { tr { th scope="row" { (label) } td { (value) } } } };
    html! {
        (DOCTYPE)
        html lang="en" {
            head { meta charset="utf-8"; meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Record of " (facts.full_name()) } style { (maud::PreEscaped(STYLE)) } }
            body {
                h1 { (facts.full_name()) }
                p.soft { "Record at " (practice) ", as of " (dates::show(&clock::instant(now_ms), zone)) }
                table {
                    (row("Born", &facts.birth.map(dates::long_day).unwrap_or_default())) (row("Sex", facts.gender_word()))
                    (row("Record number", &facts.number)) (row("Phone", &facts.phone)) (row("E-mail", &facts.email))
                    (row("Address", &[facts.line.as_str(), &facts.postal, &facts.city, &facts.state].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(", ")))
                    @for (part, rows) in [(Part::Identifiers, &facts.identifiers), (Part::Contacts, &facts.contacts)] {
                        @for (label, value) in rows.iter().map(|entry| entry.shown(part)) { (row(&label, &value)) }
                    }
                }
                @for (kind, title) in sections { @if let Some(found) = kinds.get(kind) {
                    h2 { (title) }
                    table { @for resource in found { tr {
                        td.when { (dates::show(when(resource), zone)) }
                        td { (what(resource, &names, lost)) }
                    } } }
                } }
                p.soft { "record.json holds the same as HL7 FHIR R4, for programs; files/ holds the documents." }
            }
        }
    }
}

fn when(resource: &Value) -> &str {
    const DATES: [&str; 12] = [
        "/start",
        "/effectiveDateTime",
        "/occurrenceDateTime",
        "/onsetDateTime",
        "/authoredOn",
        "/authored",
        "/recordedDate",
        "/date",
        "/dateTime",
        "/period/start",
        "/issued",
        "/created",
    ];
    DATES.into_iter().map(|at| text(resource, at)).find(|date| !date.is_empty()).unwrap_or_default()
}

/// What a resource says, in a row.
fn what(resource: &Value, names: &BTreeMap<&str, String>, lost: &[&str]) -> Markup {
    let titles = ["code", "medicationCodeableConcept", "vaccineCode", "type", "category"];
    let coded = titles.into_iter().map(|name| concept(resource.get(name)).to_owned());
    let listed = |name: &str| list(resource, name).iter().map(|one| concept(Some(one))).collect::<Vec<_>>().join(", ");
    let plain = ["/description", "/title", "/medicationReference/display"].map(|at| text(resource, at).to_owned());
    let title = coded.chain(plain).chain([listed("type"), listed("reasonCode")]).find(|title| !title.is_empty());
    let status =
        ["clinicalStatus", "status"].into_iter().map(|name| code(resource, name)).find(|status| !status.is_empty());
    let details =
        [text(resource, "/dosageInstruction/0/text"), concept(resource.pointer("/reaction/0/manifestation/0"))];
    let file = reading::reference_id(resource, "/content/0/attachment/url", "Binary");
    html! {
        (title.unwrap_or_default())
        @for detail in details { @if !detail.is_empty() { ": " (detail) } }
        @for value in values(resource) { div { (value) } }
        @if let Some(status) = status { " " span.soft { "(" (status) ")" } }
        @if let Some(note) = reading::note_text(resource) { pre { (note) } }
        @for answer in answers(resource) { div { (answer) } }
        @if let Some(id) = file {
            @match (names.get(id), lost.contains(&id)) {
                (Some(name), false) => div { a href=(name) { (name) } },
                _ => div { "The file is missing or damaged." },
            }
        }
    }
}

/// Measured values, those of components included.
fn values(resource: &Value) -> Vec<String> {
    let one = |value: &Value| {
        let number = value.pointer("/valueQuantity/value").map(Value::to_string);
        let unit = text(value, "/valueQuantity/unit");
        number.map(|number| format!("{number} {unit}")).or_else(|| {
            let said = [text(value, "/valueString"), concept(value.get("valueCodeableConcept"))];
            said.into_iter().find(|said| !said.is_empty()).map(str::to_owned)
        })
    };
    let parts = list(resource, "component").iter().take(PARTS_MAX);
    let parts = parts.filter_map(|part| Some(format!("{}: {}", concept(part.get("code")), one(part)?)));
    one(resource).into_iter().chain(parts).collect()
}

/// The answers of a form, with their questions.
fn answers(resource: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<&Value> = list(resource, "item").iter().rev().collect();
    while let Some(item) = open.pop() {
        let said: Vec<String> = list(item, "answer")
            .iter()
            .filter_map(|answer| answer.as_object()?.iter().find(|(name, _)| name.starts_with("value")))
            .map(|(_, value)| match value {
                Value::String(said) => said.clone(),
                Value::Object(quantity) if quantity.contains_key("value") => {
                    let number = quantity.get("value").map(Value::to_string).unwrap_or_default();
                    format!("{number} {}", text(value, "/unit")).trim().to_owned()
                }
                Value::Object(_) => [text(value, "/display"), text(value, "/code")].join(" ").trim().to_owned(),
                Value::Bool(true) => "yes".to_owned(),
                Value::Bool(false) => "no".to_owned(),
                other => other.to_string(),
            })
            .collect();
        if !said.is_empty() {
            found.push(format!("{}: {}", text(item, "/text"), said.join(", ")));
        }
        // What stands below a question is kept with its answer.
        open.extend(list(item, "answer").iter().flat_map(|answer| list(answer, "item")).rev());
        open.extend(list(item, "item").iter().rev());
    }
    found
}
