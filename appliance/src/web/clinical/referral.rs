//! One referral: the letter as it leaves the practice, and the way until the report is back. What is said on the way stays here.

use crate::access::{Action, Object, authorize};
use crate::dates;
use crate::scheduling::{extension, set_extension};
use crate::store::{Expect, Query, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems};
use crate::web::form::{Form, FormError};
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{self, PatientFacts, concept, list, reference_id, subject, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, documents, merged};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

/// Where a referral stands: written, sent, appointment made, report back, closed.
pub const STEP: &str = "urn:holdfast:referral-step";
const STEPS: [(&str, &str); 5] = [
    ("written", "Written"),
    ("sent", "Sent"),
    ("accepted", "Appointment made there"),
    ("answered", "Report received"),
    ("closed", "Closed"),
];
/// The report that came back: a document of the chart, or the name of what lies elsewhere.
const REPORT: &str = "urn:holdfast:referral-report";
/// Documents among which the report is chosen, the newest.
const OFFERED_MAX: usize = 100;
const REMARK_CHARS_MAX: usize = 1000;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("ServiceRequest"));
    const ONE: &str = "/patients/{patient}/referrals/{referral}";
    vec![
        Route::new(Method::Get, ONE, may(Action::Read), one, w()),
        Route::new(Method::Post, ONE, may(Action::Update), step, w()),
        Route::new(Method::Post, "/patients/{patient}/referrals/{referral}/reopen", may(Action::Update), reopen, w()),
    ]
}

pub fn step_of(referral: &Value) -> &str {
    extension(referral, STEP, "valueCode").and_then(Value::as_str).unwrap_or("")
}

pub fn word(step: &str) -> &str {
    STEPS.iter().find(|(key, _)| *key == step).map_or("Ordered", |(_, word)| word)
}

pub fn due(referral: &Value) -> &str {
    text(referral, "/occurrencePeriod/end")
}

/// What the page needs, read at one point.
struct Opened {
    banner: Markup,
    patient: PatientFacts,
    referral: Value,
    /// The document that is the report, where it is one of this person's and the visitor may read it.
    report: Option<Value>,
    /// Documents that may be the report: id and title.
    offered: Vec<(String, String)>,
}

async fn open(web: &Web, visit: &Visit, patient: &str, id: &str) -> Result<Opened, PageError> {
    let (site, patient, id) = (web.clone(), patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        let referral = chart::read_of(view, "ServiceRequest", &id, &patient)?;
        let (banner, facts) = chart::banner_in(&site, view, &patient)?;
        let mut opened = Opened { banner, patient: facts, referral, report: None, offered: Vec::new() };
        if view.may(Action::Search, "DocumentReference") {
            let mut files =
                merged::search(view, &Query::all("DocumentReference")?, &merged::people(view, &opened.patient)?)?;
            files.retain(|file| !reading::is_note(file) && text(file, "/status") != "entered-in-error");
            let named = report(&opened.referral).and_then(|said| reference_id(said, "/reference", "DocumentReference"));
            opened.report = files.iter().find(|file| Some(text(file, "/id")) == named).cloned();
            let zone = site.settings().zone;
            files.sort_by_cached_key(|file| std::cmp::Reverse(dates::moment_s(text(file, "/date"), zone)));
            opened.offered = files
                .iter()
                .take(OFFERED_MAX)
                .map(|file| {
                    let shown = format!("{}, {}", documents::title(file), dates::show_day(text(file, "/date"), zone));
                    (text(file, "/id").to_owned(), shown)
                })
                .collect();
        }
        Ok::<_, StoreError>(opened)
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

fn report(referral: &Value) -> Option<&Value> {
    extension(referral, REPORT, "valueReference")
}

async fn one(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let opened = open(&web, &visit, &patient, &id).await?;
    let form = Form::from_fields([("step".to_owned(), step_of(&opened.referral).to_owned())]);
    Ok(page(&web, &visit, &opened, &form, &Problems::default()))
}

fn page(web: &Web, visit: &Visit, opened: &Opened, form: &Form, problems: &Problems) -> Markup {
    let Opened { banner, patient, referral, .. } = opened;
    let now = step_of(referral);
    let may = authorize(&visit.actor, Action::Update, Object::resource("ServiceRequest")).is_ok();
    layout::page(
        web,
        visit,
        Section::Patients,
        "Referral",
        Some(banner),
        &html! {
            p.crumbs.screen-only { a href={ "/patients/" (patient.id) } { "Chart" } " › Referral" }
            div.head.screen-only { h1 { (concept(referral.get("code"))) } span.tag.calm { (word(now)) }
                div.tools { button type="button" data-print="" { "Print the letter" } } }
            (letter(web, patient, referral))
            section.foot.screen-only aria-labelledby="way" {
                h2 #way { "Where it stands" }
                p.hint { "This part is not printed with the letter." }
                (way(web, opened))
                @if may { (problems.summary()) (change(visit, opened, form, problems)) }
            }
        },
    )
}

/// The letter as it is printed: who writes, to whom, about whom.
fn letter(web: &Web, patient: &PatientFacts, referral: &Value) -> Markup {
    let (settings, zone) = (web.settings(), web.settings().zone);
    let words = list(referral, "note").first().map_or("", |n| text(n, "/text")).trim_end();
    let sender = text(referral, "/requester/display");
    let place = [patient.city.as_str(), &patient.state, &patient.postal].into_iter().filter(|part| !part.is_empty());
    let urgency = text(referral, "/priority");
    html! {
        div.sheet.letter {
            div.letterhead {
                p { b { (settings.practice_name) } }
                @for line in settings.practice_address.lines() { p { (line) } }
                @if !settings.practice_phone.is_empty() { p { "Phone " (settings.practice_phone) } }
            }
            p { (dates::show_day(text(referral, "/authoredOn"), zone)) }
            p { "To " b { (text(referral, "/performer/0/display")) } }
            div.about {
                p { "Patient: " b { (patient.full_name()) }
                    @if let Some(birth) = patient.birth { ", born " (dates::long_day(birth)) }
                    ", " (patient.gender_word()) }
                @if !patient.line.is_empty() { p { (patient.line) } }
                @let place = place.collect::<Vec<_>>(); @if !place.is_empty() { p { (place.join(", ")) } }
                @if !patient.phone.is_empty() { p { "Phone " (patient.phone) } }
            }
            p { b { "Referral: " (concept(referral.get("code"))) } @if matches!(urgency, "urgent" | "asap" | "stat") { " (urgent)" } }
            div.text { (words) }
            // Who signed with their own name already is not named twice.
            @if !words.ends_with(sender) { p.sender { (sender) } }
        }
    }
}

/// What was done and said so far.
fn way(web: &Web, opened: &Opened) -> Markup {
    let (referral, zone) = (&opened.referral, web.settings().zone);
    html! {
        p { b { (word(step_of(referral))) } @if !due(referral).is_empty() { span.soft { " · answer due " (dates::show_day(due(referral), zone)) } } }
        @if let Some(said) = report(referral) {
            p { "Report: "
                @match &opened.report {
                    Some(file) => a href={ "/patients/" (merged::owner(file, &opened.patient.id)) "/documents/" (text(file, "/id")) "/file" } { (documents::title(file)) },
                    None => (text(said, "/display")),
                }
            }
        }
        @for said in list(referral, "note").iter().skip(1) { article.note {
            header { b { (text(said, "/authorString")) } span.soft { " · " (dates::show(text(said, "/time"), zone)) } }
            div.text { (text(said, "/text")) } } }
    }
}

/// The next step, or the way back from the last one.
fn change(visit: &Visit, opened: &Opened, form: &Form, problems: &Problems) -> Markup {
    let Opened { patient, referral, offered, .. } = opened;
    let action = format!("/patients/{}/referrals/{}", patient.id, text(referral, "/id"));
    let identity = chart::form_identity(&patient.id, &version(referral).to_string());
    let remark = |label| Field { length_max: 1000, ..Field::new(label, "say", form.text("say")) };
    html! {
        @if text(referral, "/status") == "active" { form.sheet method="post" action=(action) {
            (layout::csrf(visit)) (identity)
            (fields::select("Stands at", "step", form.text("step"), &fields::pairs(&STEPS), true, problems))
            @if !offered.is_empty() { (fields::select("Report, a document of the chart", "document", form.text("document"), offered, false, problems)) }
            (Field::new(if offered.is_empty() { "Report" } else { "Or a report that lies elsewhere" }, "report", form.text("report"))
                .hint("What it is and where it lies. To have it in the chart, upload it there first").show(problems))
            (remark("Remark").show(problems))
            p.actions { button.primary type="submit" { "Save" }
                @if patient.goes_on.is_none() { a.button href={ "/patients/" (patient.id) "/documents/new" } { "Upload a document" } } }
        } } @else if text(referral, "/status") == "completed" { form.sheet method="post" action={ (action) "/reopen" } {
            (layout::csrf(visit)) (identity)
            (remark("Reason").required().show(problems))
            p.actions { button type="submit" { "Reopen" } }
        } }
    }
}

/// Which report a form names: nothing, a document that must be this person's, or words.
fn reported(form: &Form) -> Option<Value> {
    match (form.text("document"), form.text("report")) {
        ("", "") => None,
        ("", named) => Some(json!({"display": named})),
        (id, _) => Some(json!({"reference": format!("DocumentReference/{id}")})),
    }
}

async fn step(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let number = chart::checked_version(&form, &patient)?;
    let opened = open(&web, &visit, &patient, &id).await?;
    let step = STEPS
        .iter()
        .find(|(key, _)| *key == form.text("step"))
        .map(|(key, _)| *key)
        .ok_or(PageError::Form(FormError::Malformed))?;
    let mut problems = too_long(&form);
    let chosen = reported(&form);
    if step == "answered" && chosen.is_none() && report(&opened.referral).is_none() {
        let choose = if opened.offered.is_empty() { "Please say" } else { "Please choose the report above, or say" };
        problems.add("report", format!("{choose} here what it is and where it lies."));
    }
    if form.text("report").chars().count() > 200 {
        problems.add("report", "Please say it in at most 200 characters.");
    }
    if !problems.is_empty() {
        let page = page(&web, &visit, &opened, &form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let say = form.text("say").to_owned();
    let said = if say.is_empty() { word(step).to_owned() } else { format!("{}: {say}", word(step)) };
    let save = move |tx: &mut Tx<'_>, body: &mut Value| {
        set_extension(body, STEP, Some(("valueCode", step.into())));
        if let Some(mut chosen) = chosen {
            if let Some(document) = reference_id(&chosen, "/reference", "DocumentReference") {
                let (file, owner) =
                    (tx.read("DocumentReference", document)?.json()?, subject(body).unwrap_or_default());
                if !tx.person(owner)?.ids().iter().any(|record| Some(record.as_str()) == subject(&file)) {
                    return Err(StoreError::NotFound);
                }
                chosen["display"] = documents::title(&file).into();
            }
            set_extension(body, REPORT, Some(("valueReference", chosen)));
        }
        if step == "closed" {
            body["status"] = "completed".into();
        }
        Ok(())
    };
    go_on(&web, &visit, (&patient, &id, number), said, save).await
}

async fn reopen(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let number = chart::checked_version(&form, &patient)?;
    let mut problems = too_long(&form);
    if form.text("say").is_empty() {
        problems.add("say", "Please say why it is opened again.");
    }
    if !problems.is_empty() {
        let opened = open(&web, &visit, &patient, &id).await?;
        let page = page(&web, &visit, &opened, &form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let save = |_: &mut Tx<'_>, body: &mut Value| {
        if text(body, "/status") != "completed" {
            return Err(StoreError::invalid("only a closed referral is opened again", "ServiceRequest.status"));
        }
        body["status"] = "active".into();
        let back = if report(body).is_some() { "answered" } else { "sent" };
        set_extension(body, STEP, Some(("valueCode", back.into())));
        Ok(())
    };
    go_on(&web, &visit, (&patient, &id, number), format!("Reopened: {}", form.text("say")), save).await
}

fn too_long(form: &Form) -> Problems {
    let mut problems = Problems::default();
    if form.text("say").chars().count() > REMARK_CHARS_MAX {
        problems.add("say", "Please say it in at most 1,000 characters.");
    }
    problems
}

/// Stores a change of the referral with what is said of it.
async fn go_on(
    web: &Web,
    visit: &Visit,
    (patient, id, number): (&str, &str, u32),
    said: String,
    save: impl FnOnce(&mut Tx<'_>, &mut Value) -> Result<(), StoreError> + Send + 'static,
) -> Result<Response, PageError> {
    let (now, owner, target) = (web.now_fhir(), patient.to_owned(), id.to_owned());
    let display = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let store = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, "ServiceRequest", &target, &owner)?;
        save(tx, &mut body)?;
        if let Some(notes) = body.get_mut("note").and_then(Value::as_array_mut) {
            notes.push(json!({"authorString": display, "time": now, "text": said}));
        }
        tx.update("ServiceRequest", &target, body, Expect::Version(number))
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/referrals/{id}")))
}
