//! Who looked at my record: drawn from the practice's access record, by day and person.

use super::super::gate::Visit;
use super::super::layout::{self, Portal};
use super::super::{Method, PageError, Policy, Route, Target, Web, dates};
use super::patient;
use crate::access::{Action, accounts};
use crate::audit::Entry;
use crate::store::{StoreError, View};
use axum::extract::State;
use chrono::NaiveDate;
use maud::{Markup, html};
use std::collections::{BTreeMap, BTreeSet};

/// Entries that the page draws from, the newest.
const ENTRIES_MAX: u32 = 5_000;

pub fn routes(web: &Web) -> Vec<Route> {
    let may = Policy::Permits(Action::Read, Target::Resource("Patient"));
    vec![Route::new(Method::Get, "/access", may, page, web.clone())]
}

/// What one person did in one day.
#[derive(Default)]
struct Done {
    who: String,
    role: &'static str,
    verbs: BTreeSet<&'static str>,
    kinds: BTreeSet<&'static str>,
}

fn verb(entry: &Entry) -> &'static str {
    match (entry.outcome.as_str(), entry.action.as_str()) {
        ("denied", _) => "was refused",
        (_, "read" | "search") => "looked at",
        (_, "download" | "export") => "took a copy of",
        (_, "send") => "sent",
        _ => "wrote",
    }
}

fn words(kind: &str) -> &'static str {
    match kind {
        "Patient" | "RelatedPerson" | "Coverage" => "personal details",
        "Appointment" | "Schedule" => "appointments",
        "AllergyIntolerance" => "allergies",
        "Condition" => "problems",
        "MedicationRequest" | "MedicationStatement" | "MedicationAdministration" => "medications",
        "Observation" | "DiagnosticReport" => "results",
        "DocumentReference" | "Binary" | "Composition" => "documents",
        "Questionnaire" | "QuestionnaireResponse" => "forms",
        "Task" | "Communication" => "messages and tasks",
        "Consent" => "consents",
        "Claim" | "Account" | "Invoice" | "ExplanationOfBenefit" => "bills",
        "app-grant" | "app-launch" | "app" => "access by an app",
        "portal" => "this account",
        "portal-proxy" => "who acts for you",
        _ => "other parts",
    }
}

/// Who acted, in words, and as what. `proxy` is the account of who looks, where it is not the patient.
fn who(entry: &Entry, names: &BTreeMap<String, String>, proxy: Option<&str>) -> (String, &'static str) {
    let named = || {
        let display = names.get(&entry.actor).cloned().unwrap_or_else(|| "A former member of staff".into());
        // The record names the program by which somebody acted.
        match entry.actor_name.split_once(" by ") {
            Some((_, program)) => format!("{display}, by {program}"),
            None => display,
        }
    };
    match entry.capacity.as_str() {
        "proxy" if proxy == Some(&entry.actor) => ("You".into(), ""),
        "proxy" => (entry.actor_name.clone(), if proxy.is_some() { "acts for the patient" } else { "acts for you" }),
        "patient" if proxy.is_some() => ("The patient".into(), ""),
        "patient" => ("You".into(), ""),
        "front-desk" => (named(), "front desk"),
        "clinician" => (named(), "clinician"),
        "practice-admin" => (named(), "administration"),
        "break-glass" => (named(), "emergency access"),
        "app" => (entry.actor_name.clone(), "a program"),
        "online-booking" | "calendar-feed" => ("Online booking".into(), "automatic"),
        "messages" => ("Reminders".into(), "automatic"),
        _ => ("The practice's own programs".into(), "automatic"),
    }
}

async fn page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let (id, zone) = (patient(&visit)?, web.settings().zone);
    let read = move |view: &View<'_>| {
        let entries = view.access_record(&id, ENTRIES_MAX)?;
        let names = accounts::list(view.connection()).unwrap_or_default();
        Ok::<_, StoreError>((entries, names.into_iter().map(|a| (a.id, a.display)).collect::<BTreeMap<_, _>>()))
    };
    let (entries, names) = web.store().view(&visit.actor, read).await?;
    let proxy = visit.whom.as_ref().map(|_| visit.actor.id.as_str());
    let mut days: BTreeMap<NaiveDate, BTreeMap<(String, &'static str), Done>> = BTreeMap::new();
    for entry in &entries {
        let (person, role) = who(entry, &names, proxy);
        let day = dates::local(entry.at_ms / 1000, zone).date_naive();
        let done = days.entry(day).or_default().entry((person.clone(), role)).or_default();
        (done.who, done.role) = (person, role);
        done.verbs.insert(verb(entry));
        done.kinds.insert(words(&entry.kind));
    }
    let joined = |set: &BTreeSet<&'static str>| set.iter().copied().collect::<Vec<_>>().join(", ");
    Ok(layout::portal(
        &web,
        &visit,
        Portal::Access,
        "Who looked",
        &html! {
            div.head { h1 { "Who looked at " @if proxy.is_some() { "this" } @else { "my" } " record" } }
            p.soft { "Every look and every change is recorded. If something surprises you, please write to us." }
            @if days.is_empty() { p.empty { "Nobody yet." } }
            @else { table.list {
                (layout::columns(&["Day", "Who", "As", "Did", "With"]))
                tbody { @for (day, people) in days.iter().rev() { @for done in people.values() { tr {
                    td { (dates::long_day(*day)) }
                    th scope="row" { (done.who) }
                    td { (done.role) }
                    td { (joined(&done.verbs)) }
                    td { (joined(&done.kinds)) }
                } } } }
            } }
            @if entries.len() as u32 == ENTRIES_MAX { p.hint { "Older entries are not shown; ask us for them." } }
        },
    ))
}
