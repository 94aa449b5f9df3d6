//! Who pays: a patient's insurance, with both sides of the card as pictures.

use super::fields::{self, Field, Problems};
use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::merge::{self, Merge};
use super::merged;
use super::reading::{PatientFacts, code, list, text, version};
use super::{Method, PageError, Policy, Route, Target, Web, chart, dates};
use crate::access::{Action, Object, authorize};
use crate::attachments::{AttachmentRow, Staged};
use crate::scheduling::extension;
use crate::store::{Expect, Query, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use maud::{Markup, html};
use serde_json::{Value, json};

/// The sides of a card: the form's field, the extension that points to the picture, the word.
const SIDES: [(&str, &str, &str); 2] = [
    ("front", "urn:holdfast:insurance-card-front", "Front of the card"),
    ("back", "urn:holdfast:insurance-card-back", "Back of the card"),
];
const RELATIONS: [(&str, &str); 4] =
    [("self", "The patient"), ("spouse", "Spouse"), ("parent", "Parent"), ("other", "Somebody else")];
const STATES: [(&str, &str); 2] = [("active", "In force"), ("cancelled", "Ended")];
const RELATION_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/subscriber-relationship";
const CLASS_SYSTEM: &str = "http://terminology.hl7.org/CodeSystem/coverage-class";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Coverage"));
    const ALL: &str = "/patients/{patient}/coverage";
    const ONE: &str = "/patients/{patient}/coverage/{coverage}";
    vec![
        Route::new(Method::Get, ALL, may(Action::Search), page, w()),
        Route::new(Method::Post, ALL, may(Action::Create), add, w()),
        Route::new(Method::Get, ONE, may(Action::Update), edit, w()),
        Route::new(Method::Post, ONE, may(Action::Update), save, w()),
        Route::new(Method::Get, "/patients/{patient}/coverage/{coverage}/card/{side}", may(Action::Read), card, w()),
    ]
}

fn payer(coverage: &Value) -> &str {
    text(coverage, "/payor/0/display")
}

fn group(coverage: &Value) -> &str {
    let of = |class: &&Value| text(class, "/type/coding/0/code") == "group";
    list(coverage, "class").iter().find(of).map_or("", |class| text(class, "/value"))
}

/// The form's fields with their labels and what is stored.
fn stored(coverage: &Value) -> [(&'static str, &'static str, String); 7] {
    [
        ("payer", "Insurance", payer(coverage).to_owned()),
        ("number", "Member number", text(coverage, "/subscriberId").to_owned()),
        ("group", "Group", group(coverage).to_owned()),
        ("relation", "Insured through", code(coverage, "relationship").to_owned()),
        ("from", "From", text(coverage, "/period/start").to_owned()),
        ("until", "Until", text(coverage, "/period/end").to_owned()),
        ("status", "State", code(coverage, "status").to_owned()),
    ]
}

async fn page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    let form =
        Form::from_fields([("relation".to_owned(), "self".to_owned()), ("status".to_owned(), "active".to_owned())]);
    show(&web, &visit, &patient, &form, &Problems::default()).await
}

async fn show(web: &Web, visit: &Visit, patient: &str, form: &Form, problems: &Problems) -> Result<Markup, PageError> {
    let (site, id) = (web.clone(), patient.to_owned());
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &id)?;
        let people = merged::people(view, &facts)?;
        let found = merged::search(view, &Query::all("Coverage")?, &people)?;
        Ok::<_, StoreError>((banner, facts, found))
    };
    let (banner, facts, mut all) = web.store().view(&visit.actor, read).await?;
    all.sort_by_key(|coverage| (code(coverage, "status") != "active", text(coverage, "/period/start").to_owned()));
    let may = |action| authorize(&visit.actor, action, Object::resource("Coverage")).is_ok();
    let action = format!("/patients/{patient}/coverage");
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        "Coverage",
        Some(&banner),
        &html! {
            div.head { h1 { "Coverage" } a.button href={ "/patients/" (facts.id) } { "Back to the chart" } }
            (problems.summary())
            @if all.is_empty() { p.empty { "No insurance recorded." } }
            @for coverage in &all { (one(web, &facts, coverage, may(Action::Update))) }
            @if chart::may_add(visit, &facts, "Coverage") {
                section.panel { h2 { "Add an insurance" } (sheet(visit, patient, (&action, ""), form, problems)) }
            }
        },
    ))
}

fn one(web: &Web, facts: &PatientFacts, coverage: &Value, may_change: bool) -> Markup {
    let zone = web.settings().zone;
    let owner = merged::owner(coverage, &facts.id);
    let base = format!("/patients/{owner}/coverage/{}", text(coverage, "/id"));
    let row = |label: &str, value: &str| html! { @if !value.is_empty() { div { dt { (label) } dd { (value) } } } };
    let word = |options: &[(&'static str, &'static str)], key: &str| {
        options.iter().find(|(k, _)| *k == key).map_or("", |(_, word)| *word)
    };
    let edit = may_change.then_some((base.as_str(), "Change"));
    chart::section(
        payer(coverage),
        edit,
        &html! {
            @if owner != facts.id { p { (merged::tag()) } }
            dl.facts {
                (row("Member number", text(coverage, "/subscriberId"))) (row("Group", group(coverage)))
                (row("Insured through", word(&RELATIONS, code(coverage, "relationship"))))
                (row("From", &dates::show_day(text(coverage, "/period/start"), zone)))
                (row("Until", &dates::show_day(text(coverage, "/period/end"), zone)))
                (row("State", word(&STATES, code(coverage, "status"))))
            }
            div.cards { @for (side, url, label) in SIDES { @if picture(coverage, url).is_some() {
                a href={ (base) "/card/" (side) } { img.card-photo src={ (base) "/card/" (side) } alt={ (label) " of " (payer(coverage)) } loading="lazy"; }
            } } }
        },
    )
}

/// The `Binary` behind a side of the card.
fn picture<'a>(coverage: &'a Value, url: &str) -> Option<&'a str> {
    extension(coverage, url, "valueAttachment").map(|found| text(found, "/url"))?.strip_prefix("Binary/")
}

fn sheet(visit: &Visit, patient: &str, (action, version): (&str, &str), form: &Form, problems: &Problems) -> Markup {
    let field = |label, name| Field::new(label, name, form.text(name));
    let choice = |label, name, options: &[(&str, &str)]| {
        fields::select(label, name, form.text(name), &fields::pairs(options), true, problems)
    };
    html! {
        form.sheet method="post" enctype="multipart/form-data" action=(action) {
            (layout::csrf(visit)) (chart::form_identity(patient, version))
            div.columns {
                (field("Insurance", "payer").required().show(problems))
                (field("Member number", "number").required().show(problems))
                (field("Group", "group").show(problems))
                (choice("Insured through", "relation", &RELATIONS))
                (field("From", "from").kind("date").show(problems))
                (field("Until", "until").kind("date").show(problems))
                (choice("State", "status", &STATES))
            }
            div.columns { @for (name, _, label) in SIDES {
                (Field::new(label, name, "").kind("file").hint("A photo (JPEG or PNG)").show(problems))
            } }
            (layout::save_or_cancel("Save", &format!("/patients/{patient}/coverage")))
        }
    }
}

fn check(form: &Form) -> Problems {
    let mut problems = Problems::default();
    for (name, what) in [("payer", "the insurance"), ("number", "the member number")] {
        if form.text(name).is_empty() {
            problems.add(name, format!("Please enter {what}."));
        }
    }
    for name in ["payer", "number", "group"] {
        if form.text(name).chars().count() > 200 {
            problems.add(name, "Please shorten this to 200 characters.");
        }
    }
    for name in ["from", "until"] {
        if !form.text(name).is_empty() && dates::parse_day(form.text(name)).is_none() {
            problems.add(name, "Please enter the date as year-month-day.");
        }
    }
    let (from, until) = (dates::parse_day(form.text("from")), dates::parse_day(form.text("until")));
    if from.zip(until).is_some_and(|(from, until)| until < from) {
        problems.add("until", "This is before the beginning.");
    }
    for (name, options) in [("relation", &RELATIONS[..]), ("status", &STATES)] {
        if !options.iter().any(|(key, _)| *key == form.text(name)) {
            problems.add(name, "Please choose one.");
        }
    }
    problems
}

/// Both sides that were sent, safe on the disk.
async fn stage(web: &Web, form: &Form, problems: &mut Problems) -> Result<Vec<(&'static str, Staged)>, PageError> {
    let mut staged = Vec::new();
    for (name, url, _) in SIDES {
        let Some(file) = form.upload(name) else { continue };
        let (attachments, bytes) = (web.store().attachments().clone(), file.bytes.clone());
        let kept = tokio::task::spawn_blocking(move || match crate::attachments::sniff(&bytes) {
            Some("image/jpeg" | "image/png") => attachments.stage(&bytes).map(Some),
            _ => Ok(None),
        });
        match kept.await.unwrap_or(Err(StoreError::Closed)) {
            Ok(Some(found)) => staged.push((url, found)),
            Ok(None) => problems.add(name, "This is no JPEG or PNG picture."),
            Err(StoreError::Invalid { what }) => {
                problems.add(name, format!("This was not accepted: {}.", what.sentence))
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(staged)
}

/// Lays the form over a coverage; what the form does not show stays.
fn apply(coverage: &mut Value, form: &Form) {
    coverage["status"] = form.text("status").into();
    coverage["payor"] = json!([{"display": form.text("payer")}]);
    coverage["subscriberId"] = form.text("number").into();
    coverage["relationship"] = json!({"coding": [{"system": RELATION_SYSTEM, "code": form.text("relation")}]});
    let mut classes: Vec<Value> =
        list(coverage, "class").iter().filter(|c| text(c, "/type/coding/0/code") != "group").cloned().collect();
    if !form.text("group").is_empty() {
        let kind = json!({"coding": [{"system": CLASS_SYSTEM, "code": "group"}]});
        classes.push(json!({"type": kind, "value": form.text("group")}));
    }
    let mut period = serde_json::Map::new();
    for (element, name) in [("start", "from"), ("end", "until")] {
        if !form.text(name).is_empty() {
            period.insert(element.into(), form.text(name).into());
        }
    }
    let Some(object) = coverage.as_object_mut() else { return };
    for (name, value, empty) in
        [("class", json!(classes), classes.is_empty()), ("period", json!(period), period.is_empty())]
    {
        match empty {
            true => drop(object.remove(name)),
            false => drop(object.insert(name.into(), value)),
        }
    }
}

/// Makes staged pictures the card's. Registration may, although it reads no other file of the record.
fn attach(
    tx: &mut Tx<'_>,
    coverage: &mut Value,
    patient: &str,
    staged: &[(&'static str, Staged)],
) -> Result<(), StoreError> {
    let mut extensions: Vec<Value> = list(coverage, "extension").to_vec();
    for (url, staged) in staged {
        let row: AttachmentRow = tx.attach_card(staged, patient)?;
        extensions.retain(|e| text(e, "/url") != *url);
        let attachment = json!({"contentType": row.media_type, "url": format!("Binary/{}", row.id), "size": row.bytes});
        extensions.push(json!({"url": url, "valueAttachment": attachment}));
    }
    if !extensions.is_empty() {
        coverage["extension"] = extensions.into();
    }
    Ok(())
}

async fn add(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = check(&form);
    let staged = if problems.is_empty() { stage(&web, &form, &mut problems).await? } else { Vec::new() };
    if !problems.is_empty() {
        let page = show(&web, &visit, &patient, &form, &problems).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let owner = patient.clone();
    let store = move |tx: &mut Tx<'_>| {
        let beneficiary = json!({"reference": format!("Patient/{owner}")});
        let mut coverage = json!({"resourceType": "Coverage", "beneficiary": beneficiary});
        apply(&mut coverage, &form);
        attach(tx, &mut coverage, &owner, &staged)?;
        tx.create("Coverage", coverage)
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/coverage")))
}

/// A coverage that must be this patient's.
fn belongs(coverage: Value, patient: &str) -> Result<Value, StoreError> {
    let owner = super::reading::reference_id(&coverage, "/beneficiary/reference", "Patient");
    if owner == Some(patient) { Ok(coverage) } else { Err(StoreError::NotFound) }
}

async fn edit(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let (site, owner, own) = (web.clone(), patient.clone(), id.clone());
    let read = move |view: &View<'_>| {
        let coverage = belongs(view.read("Coverage", &own)?.json()?, &owner)?;
        Ok::<_, StoreError>((chart::banner_in(&site, view, &owner)?.0, coverage))
    };
    let (banner, coverage) = web.store().view(&visit.actor, read).await?;
    let form = Form::from_fields(stored(&coverage).map(|(name, _, value)| (name.to_owned(), value)));
    let at = version(&coverage).to_string();
    Ok(edit_page(&web, &visit, &banner, (&patient, &id, &at), &form, &Problems::default()))
}

fn edit_page(
    web: &Web,
    visit: &Visit,
    banner: &Markup,
    (patient, id, version): (&str, &str, &str),
    form: &Form,
    problems: &Problems,
) -> Markup {
    let action = format!("/patients/{patient}/coverage/{id}");
    layout::page(
        web,
        visit,
        Section::Patients,
        "Change coverage",
        Some(banner),
        &html! {
            div.head { h1 { "Change coverage" } }
            (problems.summary())
            (sheet(visit, patient, (&action, version), form, problems))
            p.soft.foot { "A side of the card that is not chosen stays as it is." }
        },
    )
}

async fn save(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let opened = chart::checked_version(&form, &patient)?;
    let mut problems = check(&form);
    let staged = if problems.is_empty() { stage(&web, &form, &mut problems).await? } else { Vec::new() };
    if !problems.is_empty() {
        let (banner, _) = chart::banner(&web, &visit, &patient).await?;
        let page = edit_page(&web, &visit, &banner, (&patient, &id, form.text("version")), &form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let (owner, own, filled) = (patient.clone(), id.clone(), form.clone());
    let store = move |tx: &mut Tx<'_>| {
        let mut coverage = belongs(tx.read("Coverage", &own)?.json()?, &owner)?;
        apply(&mut coverage, &filled);
        attach(tx, &mut coverage, &owner, &staged)?;
        tx.update("Coverage", &own, coverage, Expect::Version(opened))
    };
    let back = format!("/patients/{patient}/coverage");
    match web.store().write::<_, StoreError, _>(&visit.actor, store).await {
        Ok(_) => Ok(redirect(&back)),
        Err(StoreError::VersionConflict { .. }) => merge_coverage(&web, &visit, (&patient, &id), (&form, opened)).await,
        Err(error) => Err(error.into()),
    }
}

/// Somebody else changed the coverage meanwhile. A picture that was chosen is chosen again afterwards: a browser gives no
/// page the right to keep it.
async fn merge_coverage(
    web: &Web,
    visit: &Visit,
    (patient, id): (&str, &str),
    (form, opened): (&Form, u32),
) -> Result<Response, PageError> {
    let (site, owner, own) = (web.clone(), patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        let current = belongs(view.read("Coverage", &own)?.json()?, &owner)?;
        let base = view.version("Coverage", &own, opened)?.json()?;
        Ok::<_, StoreError>((chart::banner_in(&site, view, &owner)?.0, base, current))
    };
    let (banner, base, current) = web.store().view(&visit.actor, read).await?;
    let fields = stored(&base).into_iter().zip(stored(&current)).map(|((name, label, base), (_, _, theirs))| {
        let words = match name {
            "relation" => fields::pairs(&RELATIONS),
            "status" => fields::pairs(&STATES),
            _ => Vec::new(),
        };
        merge::Field::new(name, label, &base, form.text(name), &theirs).words(words)
    });
    let (action, back) = (format!("/patients/{patient}/coverage/{id}"), format!("/patients/{patient}/coverage"));
    let merge = Merge {
        section: Section::Patients,
        banner: Some(&banner),
        what: "this coverage",
        action: &action,
        back: &back,
        patient,
        version: version(&current),
        saved: text(&current, "/meta/lastUpdated"),
        fields: fields.collect(),
        hidden: Vec::new(),
    };
    Ok(if merge.is_same() { redirect(&back) } else { merge.page(web, visit) })
}

/// A side of the card.
async fn card(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id, side)): Path<(String, String, String)>,
) -> Result<Response, PageError> {
    let (_, url, _) = SIDES.into_iter().find(|(name, ..)| *name == side).ok_or(PageError::NotFound)?;
    let read = move |view: &View<'_>| {
        let coverage = belongs(view.read("Coverage", &id)?.json()?, &patient)?;
        view.card(picture(&coverage, url).ok_or(StoreError::NotFound)?, &patient)
    };
    let row = web.store().view(&visit.actor, read).await?;
    let (attachments, media_type) = (web.store().attachments().clone(), row.media_type.clone());
    let bytes = tokio::task::spawn_blocking(move || attachments.read(&row)).await.unwrap_or(Err(StoreError::Closed))?;
    let media_type = HeaderValue::from_str(&media_type).map_err(|_| PageError::Internal("media type"))?;
    let policy = HeaderValue::from_static("default-src 'none'; sandbox");
    Ok(([(header::CONTENT_TYPE, media_type), (header::CONTENT_SECURITY_POLICY, policy)], bytes).into_response())
}
