//! Consents in the browser: the practice's texts, signing one with a patient, what was signed, withdrawal.

#[cfg(test)]
mod tests;

use super::fields::{self, Field, Problems, area};
use super::form::{Form, FormError};
use super::gate::{UrlQuery, Visit};
use super::layout::{self, Section};
use super::login::redirect;
use super::reading::{PatientFacts, text, version};
use super::{Method, PageError, Policy, Route, Target, Web, chart};
use crate::access::{Action, Object, authorize};
use crate::audit;
use crate::consents::{self, Mark, POINTS_MAX, Record, Sealed, Text};
use crate::dates;
use crate::store::{Expect, Query, StoreError, Tx, View};
use crate::web::assets::ASSETS;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono::Months;
use http::{HeaderMap, StatusCode, header};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

const NEW: &str = "new";
const BODY_CHARS_MAX: usize = 30_000;
const GOVERNS: [(&str, &str); 2] = [
    ("none", "Nothing that this program enforces"),
    ("reminders", "Reminders by mail or short message leave only with it"),
];
const RELATIONS: [(&str, &str); 4] = [
    ("patient", "The patient"),
    ("parent", "A parent"),
    ("guardian", "A guardian"),
    ("proxy", "Somebody with power of attorney"),
];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Consent"));
    let texts = |action| Policy::Permits(action, Target::Resource("HealthcareService"));
    vec![
        Route::new(Method::Get, "/consents", texts(Action::Search), texts_page, w()),
        Route::new(Method::Get, "/consents/{text}", texts(Action::Update), edit_text, w()),
        Route::new(Method::Post, "/consents/{text}", texts(Action::Update), save_text, w()),
        Route::new(Method::Get, "/patients/{patient}/consents", may(Action::Search), list, w()),
        Route::new(Method::Get, "/patients/{patient}/consents/new", may(Action::Create), present, w()),
        Route::new(Method::Post, "/patients/{patient}/consents/new", may(Action::Create), sign, w()),
        Route::new(Method::Get, "/patients/{patient}/consents/{consent}", may(Action::Read), show, w()),
        Route::new(Method::Get, "/patients/{patient}/consents/{consent}/pdf", may(Action::Read), pdf, w()),
        Route::new(Method::Post, "/patients/{patient}/consents/{consent}", may(Action::Update), withdraw, w()),
    ]
}

async fn all_texts(web: &Web) -> Result<Vec<Text>, PageError> {
    Ok(web.store().internal(consents::texts).await?)
}

async fn texts_page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let all = all_texts(&web).await?;
    let may = authorize(&visit.actor, Action::Update, Object::resource("HealthcareService")).is_ok();
    let length = |months: i64| if months == 0 { "until withdrawn".to_owned() } else { format!("{months} months") };
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Consent texts",
        None,
        &html! {
            div.head { h1 { "Consent texts" } @if may { a.button.primary href="/consents/new" { "Write a text" } } }
            @if all.is_empty() { p.empty { "None yet. A practice administrator writes them; patients sign them from their chart." } }
            @else { table.list {
                (layout::columns(&["Title", "Version", "Good for", "State"]))
                tbody { @for t in &all { tr.past[!t.in_use] {
                    th scope="row" { @if may { a href={ "/consents/" (t.id) } { (t.title) } } @else { (t.title) } }
                    td { (t.version) } td { (length(t.months)) } td { (if t.in_use { "in use" } else { "retired" }) }
                } } }
            } }
        },
    ))
}

async fn edit_text(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Markup, PageError> {
    let own = id.clone();
    let found = if id == NEW {
        None
    } else {
        Some(web.store().internal(move |db| consents::text(db, &own)).await?.ok_or(PageError::NotFound)?)
    };
    let fields = match &found {
        Some(t) => [
            ("title", t.title.clone()),
            ("body", t.body.clone()),
            ("months", t.months.to_string()),
            ("governs", t.governs.clone()),
            ("in_use", if t.in_use { "yes".into() } else { String::new() }),
            ("version", t.version.to_string()),
        ],
        None => [
            ("title", String::new()),
            ("body", String::new()),
            ("months", "0".into()),
            ("governs", "none".into()),
            ("in_use", "yes".into()),
            ("version", "0".into()),
        ],
    };
    let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v)));
    Ok(text_form(&web, &visit, &id, &form, &Problems::default()))
}

fn text_form(web: &Web, visit: &Visit, id: &str, form: &Form, problems: &Problems) -> Markup {
    let governs = if form.text("governs").is_empty() { "none" } else { form.text("governs") };
    layout::page(
        web,
        visit,
        Section::Patients,
        "Consent text",
        None,
        &html! {
            div.head { h1 { (if id == NEW { "Write a consent text" } else { "A new version of this text" }) } }
            (problems.summary())
            form.sheet method="post" action={ "/consents/" (id) } {
                (layout::csrf(visit)) input type="hidden" name="version" value=(form.text("version"));
                (Field::new("Title", "title", form.text("title")).required().show(problems))
                (area("Text", "body", form.raw("body"), 16, problems))
                div.columns {
                    (Field::new("Good for months (0: until withdrawn)", "months", form.text("months")).kind("number").required().show(problems))
                    (fields::select("Governs", "governs", governs, &fields::pairs(&GOVERNS), true, problems))
                }
                label.check { input type="checkbox" name="in_use" value="yes" checked[form.text("in_use") == "yes"]; " In use" }
                p.hint { "What was signed before stays what it was: a change makes a new version for the next signature." }
                (layout::save_or_cancel("Save", "/consents"))
            }
        },
    )
}

async fn save_text(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    if form.text("title").is_empty() || form.text("title").chars().count() > 120 {
        problems.add("title", "Please give a title of at most 120 characters.");
    }
    if form.text("body").is_empty() || form.raw("body").chars().count() > BODY_CHARS_MAX {
        problems.add("body", "A text has 1 to 30,000 characters.");
    }
    let months = form.text("months").parse().ok().filter(|m| (0..=600).contains(m));
    if months.is_none() {
        problems.add("months", "A whole number from 0 to 600.");
    }
    let (Some(months), true) = (months, problems.is_empty()) else {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, text_form(&web, &visit, &id, &form, &problems)).into_response());
    };
    let fresh = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let store = move |tx: &mut Tx<'_>| {
        let id = if id == NEW { fresh } else { id };
        let newest = consents::text(tx.connection(), &id)?.map_or(0, |t| t.version);
        if form.text("version").parse() != Ok(newest) {
            return Err(StoreError::VersionConflict { current: u32::try_from(newest).unwrap_or(0) });
        }
        let text = Text {
            id: id.clone(),
            version: newest + 1,
            title: form.text("title").to_owned(),
            body: form.raw("body").trim_end().to_owned(),
            months,
            governs: if form.text("governs") == "reminders" { "reminders".into() } else { String::new() },
            in_use: form.text("in_use") == "yes",
        };
        consents::add_text(tx, &text)?;
        tx.note(audit::Event::new(audit::Action::Update, "consent-text", &id));
        Ok(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/consents"))
}

async fn list(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    let site = web.clone();
    let read = move |view: &View<'_>| {
        let found = chart::jsons(&view.search(&Query::all("Consent")?.of_patient(&patient).limit(200))?.resources)?;
        let mut all = Vec::new();
        for consent in found {
            let sealed = consents::is_sealed(view.connection(), text(&consent, "/id"))?;
            all.push((consent, sealed));
        }
        Ok::<_, StoreError>((chart::banner_in(&site, view, &patient)?, all, consents::texts(view.connection())?))
    };
    let ((banner, facts), mut found, texts) = web.store().view(&visit.actor, read).await?;
    found.sort_by_key(|(c, _)| std::cmp::Reverse(text(c, "/dateTime").to_owned()));
    let (zone, now_ms) = (web.settings().zone, web.now() * 1000);
    let may = authorize(&visit.actor, Action::Create, Object::resource("Consent")).is_ok();
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Consents",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Consents" }
            div.head { h1 { "Consents" } a.button href="/consents" { "Texts" } }
            @if found.is_empty() { p.empty { "Nothing was signed yet." } }
            @else { table.list {
                (layout::columns(&["Consent", "Signed", "Good until", "State"]))
                tbody { @for (consent, sealed) in &found { tr.past[!sealed || !consents::is_valid(consent, now_ms)] {
                    th scope="row" {
                        @if *sealed { a href={ "/patients/" (facts.id) "/consents/" (text(consent, "/id")) } { (text(consent, "/policyRule/text")) } }
                        @else { (text(consent, "/policyRule/text")) }
                    }
                    td { (dates::show(text(consent, "/dateTime"), zone)) }
                    td { (dates::show_day(text(consent, "/provision/period/end"), zone)) }
                    td { @if *sealed { (state(consent, now_ms)) } @else { span.tag.warn { "not signed here" } } }
                } } }
            } }
            @if may { section.panel { h2 { "Sign" }
                ul.rows.choices { @for t in texts.iter().filter(|t| t.in_use) { li {
                    span.what { (t.title) } a.button.small href={ "/patients/" (facts.id) "/consents/new?text=" (t.id) } { "Show and sign" }
                } } }
            } }
        },
    ))
}

fn state(consent: &Value, now_ms: i64) -> Markup {
    html! { @match (text(consent, "/status"), consents::is_valid(consent, now_ms)) {
        (_, true) => span.tag.calm { "valid" },
        ("active", false) => span.tag.warn { "expired" },
        ("inactive", _) => span.tag { "withdrawn" },
        (other, _) => span.tag { (other) },
    } }
}

#[derive(Deserialize, Default)]
struct Which {
    #[serde(default)]
    text: String,
}

async fn present(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    UrlQuery(which): UrlQuery<Which>,
) -> Result<Markup, PageError> {
    let form = Form::from_fields([("text".to_owned(), which.text)]);
    sign_page(&web, &visit, &patient, &form, &Problems::default()).await
}

async fn sign_page(
    web: &Web,
    visit: &Visit,
    patient: &str,
    form: &Form,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let id = form.text("text").to_owned();
    let shown = web
        .store()
        .internal(move |db| consents::text(db, &id))
        .await?
        .filter(|t| t.in_use)
        .ok_or(PageError::NotFound)?;
    let (banner, facts) = chart::banner(web, visit, patient).await?;
    let signer = if form.text("signer").is_empty() {
        format!("{} {}", facts.given, facts.family)
    } else {
        form.text("signer").to_owned()
    };
    let relation = if form.text("relation").is_empty() { "patient" } else { form.text("relation") };
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        &shown.title,
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › " a href={ "/patients/" (facts.id) "/consents" } { "Consents" } " › Sign" }
            div.head { h1 { (shown.title) } span.tag { "version " (shown.version) } }
            div.sheet { div.text { (shown.body) } }
            (problems.summary())
            form.sheet.foot method="post" action={ "/patients/" (facts.id) "/consents/new" } {
                (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                input type="hidden" name="text" value=(shown.id);
                // What was shown is what is signed: a version that came meanwhile is refused.
                input type="hidden" name="text_version" value=(shown.version);
                input type="hidden" name="strokes" value="" data-strokes="";
                div.columns {
                    (Field::new("Who signs", "signer", &signer).required().show(problems))
                    (fields::select("Signs as", "relation", relation, &fields::pairs(&RELATIONS), true, problems))
                }
                div.field { label for="pad" { "Signature" } canvas.pad #pad width="600" height="200" tabindex="0" aria-describedby="pad-hint" { }
                    p.hint #pad-hint { "Sign with a finger, a pen or the mouse. " button.small type="button" data-clear="" { "Clear" } } }
                (Field::new("Or type the full name", "typed", "").hint("Counts as the signature where nothing is drawn").show(problems))
                p.actions { button.primary type="submit" { "I agree and sign" } a.button href={ "/patients/" (facts.id) "/consents" } { "Not now" } }
            }
            script src=(ASSETS.sign.path) defer {}
        },
    ))
}

/// The strokes of the drawing field, or the typed name.
fn mark(form: &Form) -> Option<Mark> {
    let strokes: Vec<Vec<(u16, u16)>> = serde_json::from_str(form.raw("strokes")).unwrap_or_default();
    let points: usize = strokes.iter().map(Vec::len).sum();
    let inside = strokes.iter().flatten().all(|(x, y)| *x <= 600 && *y <= 200);
    match form.text("typed") {
        _ if (8..=POINTS_MAX).contains(&points) && inside => Some(Mark::Drawn(strokes)),
        "" => None,
        typed => Some(Mark::Typed(typed.chars().take(120).collect())),
    }
}

async fn sign(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    let mark = mark(&form);
    if mark.is_none() {
        problems.add("typed", "Please sign in the field above, or type the full name.");
    }
    if form.text("signer").is_empty() || form.text("signer").chars().count() > 120 {
        problems.add("signer", "Please enter who signs.");
    }
    if !RELATIONS.iter().any(|(key, _)| *key == form.text("relation")) {
        problems.add("relation", "Please choose one.");
    }
    let (Some(mark), true) = (mark, problems.is_empty()) else {
        let page = sign_page(&web, &visit, &patient, &form, &problems).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let device: String =
        headers.get(header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or("").chars().take(300).collect();
    let address = visit.address.map(|a| a.to_string()).unwrap_or_default();
    let witness = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let (owner, now, zone) = (patient.clone(), web.now_fhir(), web.settings().zone);
    let store = move |tx: &mut Tx<'_>| {
        let text =
            consents::text(tx.connection(), form.text("text"))?.filter(|t| t.in_use).ok_or(StoreError::NotFound)?;
        if form.text("text_version").parse() != Ok(text.version) {
            return Err(StoreError::VersionConflict { current: u32::try_from(text.version).unwrap_or(0) });
        }
        let facts = PatientFacts::read(&tx.read("Patient", &owner)?.json()?);
        let today = dates::today(tx.now_ms() / 1000, zone);
        let stored = tx.create("Consent", consent(&text, &owner, &now, today))?;
        let record = Record {
            consent: stored.id.clone(),
            text_id: text.id,
            text_version: text.version,
            title: text.title,
            body: text.body,
            patient: owner.clone(),
            patient_name: facts.full_name(),
            patient_birth: facts.birth.map(|d| d.to_string()).unwrap_or_default(),
            signer: form.text("signer").to_owned(),
            relation: form.text("relation").to_owned(),
            mark,
            signed_at: now,
            address,
            device,
            witness,
            witness_account: tx.actor().id.clone(),
        };
        consents::seal(tx.connection(), &record)?;
        tx.note(audit::Event::new(audit::Action::Sign, "Consent", &stored.id).of_patient(&owner));
        Ok::<_, StoreError>(stored.id)
    };
    let id = web.store().write(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/consents/{id}")))
}

fn consent(text: &Text, patient: &str, now: &str, today: chrono::NaiveDate) -> Value {
    let coding = |system: &str, code: &str| json!([{"system": system, "code": code}]);
    let mut body = json!({
        "resourceType": "Consent", "status": "active",
        "scope": {"coding": coding("http://terminology.hl7.org/CodeSystem/consentscope", "treatment")},
        "category": [{"coding": coding("http://loinc.org", "59284-0")}],
        "patient": {"reference": format!("Patient/{patient}")}, "dateTime": now,
        "policyRule": {"coding": [{"system": "urn:holdfast:consent-text", "version": text.version.to_string(), "code": text.id}], "text": text.title},
        "provision": {"type": "permit"},
    });
    let end = u32::try_from(text.months).ok().filter(|m| *m > 0).and_then(|m| today.checked_add_months(Months::new(m)));
    if let Some(end) = end {
        body["provision"]["period"] = json!({"start": now, "end": format!("{end}T00:00:00Z")});
    }
    body
}

async fn open(
    web: &Web,
    visit: &Visit,
    patient: &str,
    id: &str,
) -> Result<(Markup, PatientFacts, Value, Sealed), PageError> {
    let (site, owner, id) = (web.clone(), patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        let consent = chart::read_of(view, "Consent", &id, &owner)?;
        let sealed = consents::record(view.connection(), &id)?.ok_or(StoreError::NotFound)?;
        let (banner, facts) = chart::banner_in(&site, view, &owner)?;
        Ok::<_, StoreError>((banner, facts, consent, sealed))
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

async fn show(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let (banner, facts, consent, sealed) = open(&web, &visit, &patient, &id).await?;
    let broken = web.store().internal(consents::broken_at).await?;
    let (record, zone, now_ms) = (&sealed.record, web.settings().zone, web.now() * 1000);
    let row = |label: &str, value: &str| html! { div { dt { (label) } dd { (value) } } };
    let may = authorize(&visit.actor, Action::Update, Object::resource("Consent")).is_ok();
    let base = format!("/patients/{}/consents/{id}", facts.id);
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "What was signed",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › " a href={ "/patients/" (facts.id) "/consents" } { "Consents" } " › What was signed" }
            div.head { h1 { (record.title) } (state(&consent, now_ms))
                div.tools { a.button href={ (base) "/pdf" } { "PDF" } button type="button" data-print="" { "Print" } } }
            @if broken.is_some_and(|at| at <= sealed.seq) {
                div.notice.error role="alert" { p { "The seal is broken: this record or one before it was changed outside of this program. Tell your practice's IT." } }
            }
            div.sheet { div.text { (record.body) } }
            div.sheet.foot {
                @match &record.mark {
                    Mark::Drawn(strokes) => svg.signature viewBox="0 0 600 200" role="img" aria-label={ "Signature of " (record.signer) } {
                        @for stroke in strokes { polyline points=(stroke.iter().map(|(x, y)| format!("{x},{y}")).collect::<Vec<_>>().join(" ")) fill="none" stroke="#17262b" stroke-width="3" {} }
                    },
                    Mark::Typed(name) => p.typed { (name) },
                }
                dl.facts {
                    (row("Signed by", &format!("{}, {}", record.signer, RELATIONS.iter().find(|(k, _)| *k == record.relation).map_or("", |(_, w)| w))))
                    (row("Patient", &format!("{}, born {}", record.patient_name, record.patient_birth)))
                    (row("When", &dates::show(&record.signed_at, zone)))
                    (row("In the presence of", &record.witness))
                    (row("Version of the text", &record.text_version.to_string()))
                    (row("Device", &format!("{} {}", record.address, record.device)))
                    (row("Seal", &hex::encode(sealed.hash)))
                }
            }
            @if may && text(&consent, "/status") == "active" {
                form.sheet.foot method="post" action=(base) {
                    (layout::csrf(&visit)) (chart::form_identity(&facts.id, &version(&consent).to_string()))
                    (Field::new("Reason, as the patient says it", "reason", "").show(&Problems::default()))
                    p.actions { button type="submit" { "Withdraw this consent" } }
                }
            }
        },
    ))
}

async fn pdf(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Response, PageError> {
    let (owner, own) = (patient, id.clone());
    let read = move |view: &View<'_>| {
        chart::read_of(view, "Consent", &own, &owner)?;
        view.note(audit::Event::new(audit::Action::Export, "Consent", &own).of_patient(&owner));
        consents::record(view.connection(), &own)?.ok_or(StoreError::NotFound)
    };
    let sealed = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let headers = [
        (header::CONTENT_TYPE, "application/pdf".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"consent-{id}.pdf\"")),
    ];
    Ok((headers, consents::pdf::document(&web.settings().practice_name, &sealed)).into_response())
}

async fn withdraw(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let number = chart::checked_version(&form, &patient)?;
    let (owner, target, reason, now) =
        (patient.clone(), id, form.text("reason").chars().take(300).collect::<String>(), web.now_fhir());
    let save = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, "Consent", &target, &owner)?;
        if text(&body, "/status") != "active" {
            return Err(PageError::Form(FormError::Malformed));
        }
        body["status"] = "inactive".into();
        let withdrawn = json!({"url": "urn:holdfast:withdrawn", "extension": [{"url": "when", "valueInstant": now}, {"url": "reason", "valueString": if reason.is_empty() { "none given" } else { reason.as_str() }}]});
        body["extension"] = json!([withdrawn]);
        Ok(tx.update("Consent", &target, body, Expect::Version(number))?)
    };
    web.store().write(&visit.actor, save).await?;
    Ok(redirect(&format!("/patients/{patient}/consents")))
}
