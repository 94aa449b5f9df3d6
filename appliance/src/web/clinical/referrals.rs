//! Referrals: a letter, and the way until the answer is back.

use crate::access::{Action, Object, authorize};
use crate::dates;
use crate::scheduling::{extension, set_extension};
use crate::store::{Expect, Query, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems, area};
use crate::web::form::{Form, FormError};
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{PatientFacts, concept, list, reference_id, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, current, merged, paging};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono_tz::Tz;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

/// Where a referral stands: written, sent, appointment made, report back, closed.
const STEP: &str = "urn:holdfast:referral-step";
const STEPS: [(&str, &str); 5] = [
    ("written", "Written"),
    ("sent", "Sent"),
    ("accepted", "Appointment made there"),
    ("answered", "Report received"),
    ("closed", "Closed"),
];
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
        Route::new(Method::Get, "/patients/{patient}/referrals/{referral}", may(Action::Read), one, w()),
        Route::new(Method::Post, "/patients/{patient}/referrals/{referral}", may(Action::Update), step, w()),
    ]
}

fn step_of(referral: &Value) -> &str {
    extension(referral, STEP, "valueCode").and_then(Value::as_str).unwrap_or("")
}

fn word(step: &str) -> &str {
    STEPS.iter().find(|(key, _)| *key == step).map_or("Ordered", |(_, word)| word)
}

fn due(referral: &Value) -> &str {
    text(referral, "/occurrencePeriod/end")
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

async fn one(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let (site, zone) = (web.clone(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let referral = chart::read_of(view, "ServiceRequest", &id, &patient)?;
        Ok::<_, StoreError>((chart::banner_in(&site, view, &patient)?, referral))
    };
    let ((banner, facts), referral) = web.store().view(&visit.actor, read).await?;
    let notes = list(&referral, "note");
    let now = step_of(&referral);
    let may = authorize(&visit.actor, Action::Update, Object::resource("ServiceRequest")).is_ok();
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Referral",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Referral" }
            div.head { h1 { (concept(referral.get("code"))) } span.tag.calm { (word(now)) }
                div.tools { button type="button" data-print="" { "Print the letter" } } }
            p { "To " b { (text(&referral, "/performer/0/display")) } span.soft { " · " (dates::show_day(text(&referral, "/authoredOn"), zone))
                @if !due(&referral).is_empty() { " · answer due " (dates::show_day(due(&referral), zone)) } } }
            div.sheet { div.text { (notes.first().map_or("", |n| text(n, "/text"))) } }
            @for said in notes.iter().skip(1) { article.note {
                header { b { (text(said, "/authorString")) } span.soft { " · " (dates::show(text(said, "/time"), zone)) } } div.text { (text(said, "/text")) } } }
            @if may && text(&referral, "/status") == "active" {
                form.sheet.foot method="post" action={ "/patients/" (facts.id) "/referrals/" (text(&referral, "/id")) } {
                    (layout::csrf(&visit)) (chart::form_identity(&facts.id, &version(&referral).to_string()))
                    (fields::select("Stands at", "step", now, &fields::pairs(&STEPS), true, &Problems::default()))
                    (Field::new("Remark", "say", "").show(&Problems::default()))
                    p.actions { button.primary type="submit" { "Save" } }
                }
            }
        },
    ))
}

async fn step(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let number = chart::checked_version(&form, &patient)?;
    let step = STEPS
        .iter()
        .find(|(key, _)| *key == form.text("step"))
        .map(|(key, _)| *key)
        .ok_or(PageError::Form(FormError::Malformed))?;
    let (say, now) = (form.text("say").chars().take(1000).collect::<String>(), web.now_fhir());
    let display = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let (owner, target) = (patient.clone(), id.clone());
    let save = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, "ServiceRequest", &target, &owner)?;
        set_extension(&mut body, STEP, Some(("valueCode", step.into())));
        if step == "closed" {
            body["status"] = "completed".into();
        }
        let said = if say.is_empty() { word(step).to_owned() } else { format!("{}: {say}", word(step)) };
        if let Some(notes) = body.get_mut("note").and_then(Value::as_array_mut) {
            notes.push(json!({"authorString": display, "time": now, "text": said}));
        }
        tx.update("ServiceRequest", &target, body, Expect::Version(number))
    };
    web.store().write(&visit.actor, save).await?;
    Ok(redirect(&format!("/patients/{patient}/referrals/{id}")))
}
