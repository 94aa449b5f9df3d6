//! Everything of a patient in the order of time, and a search through what was written.

use super::moment;
use super::results::value;
use crate::access::{self, Action};
use crate::dates;
use crate::store::{Query, StoreError, View};
use crate::web::form::percent_encode;
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::reading::{concept, is_note, note_text, text};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, merged, paging};
use axum::extract::{Path, State};
use chrono_tz::Tz;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

/// Kinds on the timeline, with the words of its filter.
const KINDS: [(&str, &str); 12] = [
    ("Encounter", "Encounters"),
    ("DocumentReference", "Notes and documents"),
    ("QuestionnaireResponse", "Forms"),
    ("Condition", "Problems"),
    ("MedicationRequest", "Medications"),
    ("AllergyIntolerance", "Allergies"),
    ("Immunization", "Immunizations"),
    ("Procedure", "Procedures"),
    ("DiagnosticReport", "Reports"),
    ("Observation", "Measurements"),
    ("ServiceRequest", "Referrals and orders"),
    ("Appointment", "Appointments"),
];
const SHOWN_MAX: usize = 300;

pub fn routes(web: &Web) -> Vec<Route> {
    let may = Policy::Permits(Action::Search, Target::Resource("DocumentReference"));
    vec![Route::new(Method::Get, "/patients/{patient}/timeline", may, page, web.clone())]
}

#[derive(Deserialize, Default)]
struct Asked {
    #[serde(default)]
    q: String,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    from: usize,
}

/// What one entry says, and where it leads.
fn said(kind: &str, resource: &Value) -> String {
    let words = match kind {
        "Encounter" => [concept(resource.pointer("/reasonCode/0")), concept(resource.pointer("/type/0"))],
        "MedicationRequest" => {
            [concept(resource.get("medicationCodeableConcept")), text(resource, "/medicationReference/display")]
        }
        "Immunization" => [concept(resource.get("vaccineCode")), ""],
        "DocumentReference" => [text(resource, "/description"), concept(resource.get("type"))],
        "QuestionnaireResponse" => [text(resource, "/_questionnaire/extension/0/valueString"), "Form"],
        "Appointment" => [text(resource, "/description"), concept(resource.pointer("/serviceType/0"))],
        _ => [concept(resource.get("code")), ""],
    };
    let words = words.into_iter().find(|w| !w.is_empty()).unwrap_or(kind);
    let found = if kind == "Observation" { value(resource) } else { String::new() };
    if found.is_empty() { words.to_owned() } else { format!("{words}: {found}") }
}

fn leads(kind: &str, patient: &str, resource: &Value) -> Option<String> {
    let id = text(resource, "/id");
    let encounter = text(resource, "/context/encounter/0/reference").strip_prefix("Encounter/");
    match (kind, encounter) {
        ("Encounter", _) => Some(format!("/patients/{patient}/encounters/{id}")),
        ("DocumentReference", Some(encounter)) => Some(format!("/patients/{patient}/encounters/{encounter}")),
        ("QuestionnaireResponse", _) => Some(format!("/patients/{patient}/forms/{id}")),
        ("Appointment", _) => Some(format!("/schedule/{id}")),
        ("ServiceRequest", _) => Some(format!("/patients/{patient}/referrals/{id}")),
        _ => None,
    }
}

/// The words around what was searched for.
fn around(words: &str, wanted: &str) -> Option<String> {
    let plain: Vec<char> = words.chars().collect();
    let lower: String = plain.iter().flat_map(|c| c.to_lowercase().next()).collect();
    let at = lower.find(wanted)?;
    let at = lower.get(..at)?.chars().count();
    let from = at.saturating_sub(60);
    let shown: String = plain.iter().skip(from).take(60 + wanted.chars().count() + 80).collect();
    Some(format!("{}{}…", if from > 0 { "…" } else { "" }, shown.replace('\n', " ")))
}

/// All that an entry says in words, for the search.
fn words(kind: &str, resource: &Value) -> String {
    let mut all = said(kind, resource);
    if kind == "DocumentReference" && is_note(resource) {
        all = note_text(resource).unwrap_or(all);
    }
    if kind == "QuestionnaireResponse" {
        let answers = strings(resource.get("item").unwrap_or(&Value::Null));
        all = format!("{all} {answers}");
    }
    all
}

/// The texts of answers.
fn strings(items: &Value) -> String {
    match items {
        Value::Array(all) => all.iter().map(strings).collect::<Vec<_>>().join(" "),
        Value::Object(item) => item
            .iter()
            .map(|(name, value)| match (name.as_str(), value) {
                ("valueString" | "valueUri" | "text" | "display", Value::String(text)) => text.clone(),
                (_, Value::Array(_) | Value::Object(_)) => strings(value),
                _ => String::new(),
            })
            .filter(|t| !t.is_empty())
            .collect::<Vec<_>>()
            .join(" "),
        _ => String::new(),
    }
}

/// One entry, as much of it as the page shows: a record may hold very many.
struct Entry {
    label: &'static str,
    at: Option<i64>,
    when: String,
    said: String,
    leads: Option<String>,
    mark: Markup,
    /// The words around what was searched for.
    found: Option<String>,
}

/// What is asked for: the kind (all where there is none), and words.
struct Wanted {
    kind: Option<&'static str>,
    words: String,
}

impl Wanted {
    /// The entry of a resource in which the words stand.
    fn entry(
        &self,
        (kind, label): (&'static str, &'static str),
        resource: &Value,
        chart: &str,
        zone: Tz,
    ) -> Option<Entry> {
        let found = match self.words.as_str() {
            "" => None,
            wanted => Some(around(&words(kind, resource), wanted)?),
        };
        let when = moment(resource).to_owned();
        Some(Entry {
            label,
            at: dates::moment_s(&when, zone),
            when,
            said: said(kind, resource),
            leads: leads(kind, merged::owner(resource, chart), resource),
            mark: merged::mark(resource, chart),
            found,
        })
    }
}

/// All that fits in the records of these, the newest first; the first of `people` is whose chart it is.
fn entries(view: &View<'_>, people: &[String], wanted: &Wanted, zone: Tz) -> Result<Vec<Entry>, StoreError> {
    let chart = people.first().map_or("", String::as_str);
    let mut all = Vec::new();
    for each in KINDS.into_iter().filter(|(k, _)| wanted.kind.is_none_or(|kind| kind == *k)) {
        if !view.may(access::Action::Search, each.0) {
            continue;
        }
        for patient in people {
            view.each::<StoreError>(&Query::all(each.0)?.of_patient(patient), |resource| {
                all.extend(wanted.entry(each, &resource.json()?, chart, zone));
                Ok(())
            })?;
        }
    }
    all.sort_by_key(|entry| entry.at);
    all.reverse();
    Ok(all)
}

async fn page(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    UrlQuery(asked): UrlQuery<Asked>,
) -> Result<Markup, PageError> {
    let (site, id, zone) = (web.clone(), patient.clone(), web.settings().zone);
    let kind = KINDS.iter().find(|(k, _)| *k == asked.kind).map(|(k, _)| *k);
    let wanted = Wanted { kind, words: asked.q.trim().to_lowercase().chars().take(100).collect() };
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &id)?;
        let people = merged::people(view, &facts)?;
        Ok::<_, StoreError>((banner, facts, entries(view, &people, &wanted, zone)?))
    };
    let (banner, facts, entries) = web.store().view(&visit.actor, read).await?;
    let (shown, paging) = paging::part(&entries, asked.from, SHOWN_MAX);
    let address = format!("/patients/{patient}/timeline?q={}&kind={}", percent_encode(&asked.q), kind.unwrap_or(""));
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Timeline",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Timeline" }
            div.head { h1 { "Timeline" } div.tools { button type="button" data-print="" { "Print" } } }
            form.search role="search" method="get" action={ "/patients/" (facts.id) "/timeline" } {
                label for="q" { "Search in notes and entries" }
                div.row {
                    input #q type="search" name="q" value=(asked.q) maxlength="100" autocomplete="off";
                    select name="kind" aria-label="Kind" { option value="" { "Everything" }
                        @for (key, name) in KINDS { option value=(key) selected[Some(key) == kind] { (name) } } }
                    button type="submit" { "Search" }
                }
            }
            p.soft { (entries.len()) " entries, the newest first" }
            ol.timeline { @for entry in shown { li {
                span.when { (dates::show_day(&entry.when, zone)) }
                span.tag { (entry.label) }
                span.what {
                    @match &entry.leads { Some(href) => a href=(href) { (entry.said) }, None => (entry.said) }
                    (entry.mark)
                    @if let Some(found) = &entry.found { br; span.soft { (found) } }
                }
            } } }
            (paging.links(|from| format!("{address}&from={from}")))
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_is_shown_with_its_surroundings() {
        let note = format!("{} Lungs clear, İstanbul Fieber. {}", "x ".repeat(100), "y ".repeat(100));
        let found = around(&note, "fieber").unwrap();
        assert!(found.contains("Fieber") && found.starts_with('…') && found.chars().count() < 160, "{found}");
        assert_eq!(around("short", "long"), None);
    }
}
