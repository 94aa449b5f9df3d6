//! Referrals: which are open, and writing one. What becomes of it is [`super::referral`].

use super::referral::{STEP, due, step_of, word};
use crate::access::Action;
use crate::dates;
use crate::scheduling::set_extension;
use crate::store::{Query, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems, area};
use crate::web::form::Form;
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{PatientFacts, concept, reference_id, text};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, current, merged, paging};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono_tz::Tz;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

const URGENCY: [(&str, &str); 3] = [("routine", "Routine"), ("urgent", "Urgent"), ("stat", "At once")];
/// SNOMED CT: patient referral.
const REFERRAL: &str = "3457005";
/// Referrals on a page.
const LISTED_MAX: usize = 100;
const LETTER_CHARS_MAX: usize = 20_000;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("ServiceRequest"));
    vec![
        Route::new(Method::Get, "/referrals", may(Action::Search), open_ones, w()),
        Route::new(Method::Get, "/patients/{patient}/referrals/new", may(Action::Create), new, w()),
        Route::new(Method::Post, "/patients/{patient}/referrals/new", may(Action::Create), add, w()),
    ]
}

#[derive(Deserialize, Default)]
struct Asked {
    /// The first referral of the page.
    #[serde(default)]
    from: usize,
}

/// Every referral whose answer is not back, by the database: orders of other kinds are as many as there are patients.
fn open(view: &View<'_>, zone: Tz) -> Result<Vec<Value>, StoreError> {
    let pairs = [("status", "active"), ("category", REFERRAL)].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut found = chart::jsons(&view.search(&Query::parse("ServiceRequest", &pairs)?)?.resources)?;
    found.retain(|referral| !matches!(step_of(referral), "" | "closed"));
    found.sort_by_cached_key(|referral| {
        let written = dates::moment_s(text(referral, "/authoredOn"), zone);
        (dates::moment_s(due(referral), zone).unwrap_or(i64::MAX), std::cmp::Reverse(written))
    });
    Ok(found)
}

/// All referrals whose answer is not back yet, the most overdue first, then the newest.
async fn open_ones(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<Asked>,
) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let read = move |view: &View<'_>| {
        let found = open(view, zone)?;
        let (shown, paging) = paging::part(&found, asked.from, LISTED_MAX);
        let mut listed = Vec::new();
        for referral in shown {
            let Some(id) = reference_id(referral, "/subject/reference", "Patient") else { continue };
            listed.push((referral.clone(), PatientFacts::read(&view.read("Patient", id)?.json()?)));
        }
        Ok::<_, StoreError>((listed, paging))
    };
    let (all, paging) = web.store().view(&visit.actor, read).await?;
    let today = dates::today(web.now(), zone).to_string();
    Ok(layout::page(
        &web,
        &visit,
        Section::Tasks,
        "Referrals",
        None,
        &html! {
            div.head { h1 { "Open referrals" } }
            @if all.is_empty() { p.empty { "Every referral is answered." } }
            @else { table.list {
                (layout::columns(&["Patient", "To", "For", "Answer due", "Stands at"]))
                tbody { @for (referral, patient) in &all { tr {
                    th scope="row" { a href={ "/patients/" (patient.id) "/referrals/" (text(referral, "/id")) } { (patient.full_name()) } }
                    td { (text(referral, "/performer/0/display")) }
                    td { (concept(referral.get("code"))) }
                    td { (dates::show_day(due(referral), zone)) @if !due(referral).is_empty() && due(referral) < today.as_str() { " " span.tag.alert { "overdue" } } }
                    td { (word(step_of(referral))) }
                } } }
            } }
            (paging.links(|from| format!("/referrals?from={from}")))
        },
    ))
}

/// The beginning of a letter: what a colleague needs to know, also of what stands in the same person's other records.
fn letter(view: &View<'_>, facts: &PatientFacts) -> Result<String, StoreError> {
    let people = merged::people(view, facts)?;
    let listed = |all: Vec<String>| match all.is_empty() {
        true => "- none recorded".to_owned(),
        false => all.iter().map(|words| format!("- {words}")).collect::<Vec<_>>().join("\n"),
    };
    let allergies = current::allergies(view, &people)?.into_iter().map(|allergy| allergy.text).collect();
    Ok(format!(
        "Dear colleague,\n\nthank you for seeing this patient.\n\nQuestion:\n\n\nProblems:\n{}\n\nMedication:\n{}\n\nAllergies:\n{}\n\nKind regards\n",
        listed(current::problems(view, &people)?),
        listed(current::medications(view, &people)?),
        listed(allergies),
    ))
}

async fn new(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    chart::require_open(&web, &visit, &patient).await?;
    let site = web.clone();
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &patient)?;
        let letter = letter(view, &facts)?;
        Ok::<_, StoreError>((banner, facts, letter))
    };
    let (banner, facts, letter) = web.store().view(&visit.actor, read).await?;
    let form = Form::from_fields([("letter".to_owned(), letter), ("urgency".to_owned(), "routine".to_owned())]);
    Ok(form_page(&web, &visit, &banner, &facts, &form, &Problems::default()))
}

fn form_page(
    web: &Web,
    visit: &Visit,
    banner: &Markup,
    facts: &PatientFacts,
    form: &Form,
    problems: &Problems,
) -> Markup {
    let field = |label, name| Field::new(label, name, form.text(name));
    layout::page(
        web,
        visit,
        Section::Patients,
        "Refer",
        Some(banner),
        &html! {
            div.head { h1 { "Refer the patient" } }
            (problems.summary())
            form.sheet method="post" action={ "/patients/" (facts.id) "/referrals/new" } {
                (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                div.columns {
                    (field("To", "to").required().hint("Name and place of the colleague").show(problems))
                    (field("For", "what").required().hint("For example: Cardiology, chest pain").show(problems))
                    (fields::select("Urgency", "urgency", form.text("urgency"), &fields::pairs(&URGENCY), true, problems))
                    (field("Answer due", "due").kind("date").show(problems))
                }
                (area("Letter", "letter", form.raw("letter"), 18, problems))
                (layout::save_or_cancel("Save the letter", &format!("/patients/{}", facts.id)))
            }
        },
    )
}

async fn add(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    for (name, sentence) in [("to", "Please say to whom."), ("what", "Please say what for.")] {
        if form.text(name).is_empty() || form.text(name).chars().count() > 200 {
            problems.add(name, sentence);
        }
    }
    if form.text("letter").is_empty() || form.raw("letter").chars().count() > LETTER_CHARS_MAX {
        problems.add("letter", "A letter has 1 to 20,000 characters.");
    }
    if !form.text("due").is_empty() && dates::parse_day(form.text("due")).is_none() {
        problems.add("due", "Please enter the day as year-month-day.");
    }
    let urgency = URGENCY.iter().find(|(key, _)| *key == form.text("urgency")).map_or("routine", |(key, _)| key);
    if !problems.is_empty() {
        let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, form_page(&web, &visit, &banner, &facts, &form, &problems))
            .into_response());
    }
    let display = visit.session.as_ref().map_or(visit.actor.name.as_str(), |s| s.display.as_str());
    let mut body = json!({
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "priority": urgency,
        "category": [{"coding": [{"system": "http://snomed.info/sct", "code": REFERRAL, "display": "Patient referral"}]}],
        "code": {"text": form.text("what")}, "subject": {"reference": format!("Patient/{patient}")}, "authoredOn": web.now_fhir(),
        "requester": {"display": display}, "performer": [{"display": form.text("to")}],
        "note": [{"text": form.raw("letter").trim_end()}],
    });
    if let Some(practitioner) = visit.session.as_ref().and_then(|s| s.practitioner.as_ref()) {
        body["requester"]["reference"] = format!("Practitioner/{practitioner}").into();
    }
    if let Some(day) = dates::parse_day(form.text("due")) {
        body["occurrencePeriod"] = json!({"end": day.to_string()});
    }
    set_extension(&mut body, STEP, Some(("valueCode", "written".into())));
    let store = move |tx: &mut Tx<'_>| tx.create("ServiceRequest", body);
    let stored = web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/referrals/{}", stored.id)))
}
