//! What stands in the record: the start page, and the summary.

use super::super::gate::Visit;
use super::super::layout::{self, Portal};
use super::super::login::redirect;
use super::super::reading::{self, PatientFacts, code, concept, text};
use super::super::{Method, PageError, Policy, Route, Target, Web, chart, dates};
use super::{is_valid, patient, visits};
use crate::access::Action;
use crate::store::{Query, StoreError, View};
use crate::web::clinical::{moment, results};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde_json::Value;

/// Earlier results of a test beside the newest.
const EARLIER_SHOWN: usize = 100;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |kind| Policy::Permits(Action::Search, Target::Resource(kind));
    vec![
        // Also for somebody who has not chosen yet for whom.
        Route::new(Method::Get, "/", Policy::LoggedIn, start, w()),
        Route::new(Method::Get, "/record", may("Condition"), record, w()),
    ]
}

/// All of a kind in the patient's own compartment.
pub fn all_of(view: &View<'_>, kind: &str, patient: &str) -> Result<Vec<Value>, StoreError> {
    chart::jsons(&view.search(&Query::all(kind)?.of_patient(patient))?.resources)
}

async fn start(State(web): State<Web>, visit: Visit) -> Result<Response, PageError> {
    let Ok(id) = patient(&visit) else { return Ok(redirect("/people")) };
    let (now, zone) = (web.now(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let facts = PatientFacts::read(&view.read("Patient", &id)?.json()?);
        let ahead = visits::ahead(&all_of(view, "Appointment", &id)?, now, zone);
        // Who acts in appointments alone is told of nothing else, not even whether it is there.
        let reached = view.may(Action::Search, "QuestionnaireResponse") && view.may(Action::Search, "Communication");
        let more = match reached {
            true => {
                let forms = all_of(view, "QuestionnaireResponse", &id)?;
                let waiting = forms.iter().filter(|form| super::forms::is_waiting(form, &id)).count();
                let consents = super::consents::waiting(view, &id, now * 1000)?;
                Some((
                    waiting,
                    consents,
                    super::messages::conversation(&all_of(view, "Communication", &id)?, &id, zone),
                ))
            }
            false => None,
        };
        Ok::<_, StoreError>((facts, ahead, more))
    };
    let (facts, ahead, more) = web.store().view(&visit.actor, read).await?;
    let own = super::author(&visit, &facts.id).0;
    let page = layout::portal(
        &web,
        &visit,
        Portal::Start,
        "Welcome",
        &html! {
            div.head { h1 { @if visit.whom.is_some() { "For " } @else { "Welcome, " } (facts.given) " " (facts.family) } }
            div.grid {
                section.panel { h2 { "Next appointment" }
                    @match ahead.first() {
                        Some(next) => p.chosen { (dates::show(text(next, "/start"), zone)) br; (visits::what(next)) },
                        None => p.empty { "None is booked." },
                    }
                    p { a.button href="/appointments" { "Appointments" } }
                }
                @if let Some((waiting, consents, told)) = &more {
                section.panel { h2 { "To fill in before " @if visit.whom.is_some() { "the" } @else { "your" } " visit" }
                    @if *waiting == 0 { p.empty { "Nothing waits for you." } }
                    @else { p { b { (waiting) } @if *waiting == 1 { " form waits for you." } @else { " forms wait for you." } } }
                    p { a.button href="/forms" { "Forms" } }
                }
                @if *consents > 0 { section.panel { h2 { "To decide" }
                    p { b { (consents) } @if *consents == 1 { " consent is asked of you." } @else { " consents are asked of you." } }
                    p { a.button href="/consents" { "Consents" } }
                } }
                section.panel { h2 { "Messages" }
                    @match told.last() {
                        Some(last) => p { "The last one is from " b { (if last.sender == own { "you" } else { last.from.as_str() }) } ", " (dates::show(&last.sent, zone)) "." },
                        None => p.empty { "No messages." },
                    }
                    p { a.button href="/messages" { "Messages" } }
                }
                }
            }
            p.hint { "In an emergency call the emergency number. This page is not watched around the clock." }
        },
    );
    Ok(page.into_response())
}

/// What the summary shows.
struct Summary {
    facts: PatientFacts,
    allergies: Vec<Value>,
    problems: Vec<Value>,
    medications: Vec<Value>,
    immunizations: Vec<Value>,
    tests: results::Tests,
    reports: Vec<Value>,
}

async fn record(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let (id, zone) = (patient(&visit)?, web.settings().zone);
    let read = move |view: &View<'_>| {
        let valid = |kind: &str| {
            let mut all = all_of(view, kind, &id)?;
            all.retain(is_valid);
            all.sort_by_cached_key(|one| std::cmp::Reverse(dates::moment_s(newest(one), zone)));
            Ok::<_, StoreError>(all)
        };
        Ok::<_, StoreError>(Summary {
            facts: PatientFacts::read(&view.read("Patient", &id)?.json()?),
            allergies: valid("AllergyIntolerance")?,
            problems: valid("Condition")?,
            medications: valid("MedicationRequest")?,
            immunizations: valid("Immunization")?,
            tests: results::tests(view, &Query::all("Observation")?, std::slice::from_ref(&id), (is_told, zone))?,
            reports: valid("DiagnosticReport")?,
        })
    };
    let summary = web.store().view(&visit.actor, read).await?;
    let title = match &visit.whom {
        Some(whom) => format!("Record of {} {}", whom.given, whom.family),
        None => "My record".to_owned(),
    };
    Ok(layout::portal(&web, &visit, Portal::Record, &title, &shown(&web, &title, &summary)))
}

/// Whether a measurement is final and says something.
fn is_told(observation: &Value) -> bool {
    is_valid(observation) && !results::value(observation).is_empty()
}

fn newest(resource: &Value) -> &str {
    let dated = ["/onsetDateTime", "/authoredOn", "/occurrenceDateTime", "/recordedDate"];
    let own = dated.into_iter().map(|pointer| text(resource, pointer)).find(|date| !date.is_empty());
    own.unwrap_or_else(|| moment(resource))
}

fn shown(web: &Web, title: &str, summary: &Summary) -> Markup {
    let (zone, facts) = (web.settings().zone, &summary.facts);
    let section = |title: &str, rows: Vec<Markup>, empty: &str| {
        html! { section.panel { h2 { (title) } (chart::folded(&rows, empty)) } }
    };
    let row = |what: &str, tag: &str, when: &str| {
        html! { span.what { (what) @if !tag.is_empty() { " " span.tag { (tag) } } } span.when { (dates::show_day(when, zone)) } }
    };
    let dated = |all: &[Value], name: &str| -> Vec<Markup> {
        all.iter().map(|one| row(concept(one.get(name)), "", newest(one))).collect()
    };
    let problems = summary.problems.iter().map(|p| {
        let state = code(p, "clinicalStatus");
        row(concept(p.get("code")), if state == "active" { "" } else { state }, newest(p))
    });
    let medications = summary.medications.iter().map(|m| {
        let (name, state) = (concept(m.get("medicationCodeableConcept")), code(m, "status"));
        let name = if name.is_empty() { text(m, "/medicationReference/display") } else { name };
        let taken = text(m, "/dosageInstruction/0/text");
        let what = if taken.is_empty() { name.to_owned() } else { format!("{name} · {taken}") };
        row(&what, if state == "active" { "" } else { state }, newest(m))
    });
    let allergies = reading::active_allergies(&summary.allergies);
    let allergies = allergies.iter().map(|a| html! { span.what { span class={ "tag " (a.weight()) } { (a.text) } } });
    html! {
        div.head { h1 { (title) } div.tools { button type="button" data-print="" { "Print" } } }
        p { b { (facts.given) " " (facts.family) } @if let Some(birth) = facts.birth { ", born " (dates::long_day(birth)) } ", record no. " (facts.short_number()) }
        div.grid {
            (section("Allergies", allergies.collect(), "None recorded."))
            (section("Problems", problems.collect(), "None recorded."))
            (section("Medications", medications.collect(), "None recorded."))
            (section("Immunizations", dated(&summary.immunizations, "vaccineCode"), "None recorded."))
            (section("Reports", dated(&summary.reports, "code"), "No reports yet."))
        }
        section.panel { h2 { "Results" } (values(web, &summary.tests)) }
        p.hint { "Is something wrong or unclear? Please write to us under Messages." }
    }
}

/// The newest value of each test, and what it was before.
fn values(web: &Web, tests: &results::Tests) -> Markup {
    let zone = web.settings().zone;
    html! {
        @if tests.is_empty() { p.empty { "No results yet." } }
        @else { table.list {
            (layout::columns(&["Test", "Newest", "Usual range", "When", "Before"]))
            tbody { @for (name, all) in tests { @if let Some((last, earlier)) = all.split_first() { tr {
                th scope="row" { (name) }
                td { b { (last.value) } }
                td { (last.range) }
                td { (dates::show_day(&last.when, zone)) }
                td { @if !earlier.is_empty() { details { summary { (earlier.len()) " earlier" }
                    ul.rows { @for finding in earlier.iter().take(EARLIER_SHOWN) { li { span.what { (finding.value) } span.when { (dates::show_day(&finding.when, zone)) } } } }
                    @if earlier.len() > EARLIER_SHOWN { p.hint { (earlier.len() - EARLIER_SHOWN) " more are older. Ask us for them under Messages." } }
                } } }
            } } } }
        } }
    }
}
