//! "As it was": an administrator has one patient's record brought back from a snapshot; who treats compares and copies back.

use super::fields::{self, Field, Problems};
use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::reading::{concept, reference_id, text};
use super::{Method, PageError, Policy, Route, Target, Web, account, chart, dates, documents, practice};
use crate::access::{self, Action, Object};
use crate::attachments::{AttachmentRow, Staged};
use crate::audit::{self, Event};
use crate::clock;
use crate::look_back::compare::{DIFFERENCES_MAX, Difference, differences};
use crate::look_back::{Desk, Look, Old, OldFile, State as Brought, Then};
use crate::messages::{self, Channel, Message};
use crate::store::{Expect, Query, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use backupd_api::SnapshotRow;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Snapshots to choose from: more are found with `backupd snapshots`.
const SNAPSHOTS_SHOWN: usize = 200;
/// How soon a page that waits asks again, seconds.
const ASK_AGAIN_S: u32 = 2;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    // Whoever asks may take everything along; what is seen of it then, each role's own rights decide.
    let ask = Policy::Permits(Action::Read, Target::Practice);
    let see = Policy::Permits(Action::Read, Target::Resource("Patient"));
    let file = Policy::Permits(Action::Read, Target::Resource("Binary"));
    const ASK: &str = "/patients/{patient}/as-it-was";
    vec![
        Route::new(Method::Get, ASK, ask, ask_page, w()),
        Route::new(Method::Post, ASK, ask, begin, w()),
        Route::new(Method::Get, "/patients/{patient}/as-it-was/{look}", see, page, w()),
        Route::new(Method::Post, "/patients/{patient}/as-it-was/{look}/end", ask, end, w()),
        Route::new(Method::Post, "/patients/{patient}/as-it-was/{look}/copy", see, copy, w()),
        Route::new(Method::Get, "/patients/{patient}/as-it-was/{look}/files/{file}", file, download, w()),
    ]
}

/// On the chart: the way to ask, and what is held.
pub fn notice(web: &Web, patient: &str) -> Markup {
    let Some(desk) = web.settings().look_back.as_ref() else { return html! {} };
    let zone = web.settings().zone;
    html! { @for look in desk.of(patient) {
        div.notice.info role="status" { p {
            "This record as it was on " (moment(look.taken_ms, zone)) " can be looked at beside today's. "
            a href=(address(&look)) { "Compare" }
        } }
    } }
}

/// The button of the chart, for whoever may ask.
pub fn button(web: &Web, visit: &Visit, patient: &str) -> Markup {
    let may = access::authorize(&visit.actor, Action::Read, Object::Practice).is_ok();
    let open = web.settings().look_back.as_ref().is_some_and(Desk::is_open);
    html! { @if may && open { a.button href={ "/patients/" (patient) "/as-it-was" } { "As it was" } } }
}

fn address(look: &Look) -> String {
    format!("/patients/{}/as-it-was/{}", look.patient, look.id)
}

fn moment(unix_ms: i64, zone: chrono_tz::Tz) -> String {
    dates::show(&clock::instant(unix_ms), zone)
}

fn desk(web: &Web) -> Result<&Desk, PageError> {
    web.settings().look_back.as_ref().filter(|desk| desk.is_open()).ok_or(PageError::NotFound)
}

async fn ask_page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    ask_form(&web, &visit, &patient, "", &Problems::default()).await
}

async fn ask_form(
    web: &Web,
    visit: &Visit,
    patient: &str,
    chosen: &str,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let (banner, _) = chart::banner(web, visit, patient).await?;
    let zone = web.settings().zone;
    let desk = desk(web)?;
    let snapshots = desk.snapshots().await;
    let options = |snapshots: &[SnapshotRow]| -> Vec<(String, String)> {
        let shown = |row: &SnapshotRow| {
            let tag = row.tag.as_deref().map(|tag| format!(", {tag}")).unwrap_or_default();
            (row.id.clone(), format!("{}{tag}", moment(row.taken_unix_ms, zone)))
        };
        snapshots.iter().filter(|row| !row.partial).take(SNAPSHOTS_SHOWN).map(shown).collect()
    };
    let held = desk.of(patient);
    let body = html! {
        div.head { h1 { "As it was" } }
        (problems.summary())
        @if !held.is_empty() {
            ul { @for look in &held { li { a href=(address(look)) { "As it was on " (moment(look.taken_ms, zone)) } ", asked for by " (look.asked_by) } } }
        }
        @match &snapshots {
            Err(error) => div.notice.warn { p { (error) "." } },
            Ok(found) if found.is_empty() => p.empty { "There is no snapshot yet." },
            Ok(found) => {
                div.notice.info { p { "The record of this patient is brought back from a snapshot and stands beside today's for a few hours. Nothing of \
                    today's is changed. Each role sees of it what it sees of the record; the access record tells who asked and who looked." } }
                form.sheet method="post" action={ "/patients/" (patient) "/as-it-was" } data-no-guard {
                    (layout::csrf(visit)) (chart::form_identity(patient, ""))
                    (fields::select("As it was on", "snapshot", chosen, &options(found), true, problems))
                    (Field::new("Your password", "password", "").kind("password").required().autocomplete("current-password").show(problems))
                    (layout::save_or_cancel("Bring it back", &format!("/patients/{patient}")))
                }
            },
        }
    };
    Ok(layout::page(web, visit, Section::Patients, "As it was", Some(&banner), &body))
}

async fn begin(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    if !account::is_own_password(&web, &visit, form.raw("password")).await? {
        problems.add("password", account::NOT_OWN);
    }
    let snapshots = desk(&web)?.snapshots().await?;
    let snapshot = snapshots.into_iter().find(|row| row.id == form.text("snapshot"));
    if snapshot.is_none() {
        problems.add("snapshot", "Please choose a snapshot.");
    }
    let Some(snapshot) = snapshot.filter(|_| problems.is_empty()) else {
        let page = ask_form(&web, &visit, &patient, form.text("snapshot"), &problems).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let who = visit.session.as_ref().map(|session| session.display.clone()).unwrap_or_default();
    let (practice, teller) = (web.settings().practice_name.clone(), who.clone());
    let (owner, object) = (patient.clone(), snapshot.id.clone());
    let tell = move |tx: &mut Tx<'_>| {
        access::authorize(tx.actor(), Action::Read, Object::Practice)?;
        tx.note(Event::new(audit::Action::LookBack, "snapshot", &object).of_patient(&owner));
        if let Some(to) = practice::setting(tx.connection(), practice::ALERTS)? {
            let text = format!(
                "{teller} has brought back a patient's record from a snapshot, to look at it and copy from it."
            );
            let message = Message { to, subject: format!("{practice}: a record brought back"), text };
            messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())?;
        }
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, tell).await?;
    let begun = desk(&web)?.begin(web.store(), &patient, &snapshot, &who)?;
    Ok(redirect(&format!("/patients/{patient}/as-it-was/{begun}")))
}

fn held(web: &Web, patient: &str, look: &str) -> Result<Look, PageError> {
    desk(web)?.find(look, patient).ok_or(PageError::NotFound)
}

async fn end(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, look)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    access::authorize(&visit.actor, Action::Read, Object::Practice)?;
    desk(&web)?.end(&look, &patient);
    Ok(redirect(&format!("/patients/{patient}")))
}

/// A resource of then, of now, or of both.
struct Pair<'a> {
    kind: &'a str,
    id: &'a str,
    then: Option<(&'a Old, Value)>,
    now: Option<Value>,
}

impl Pair<'_> {
    fn differences(&self) -> Vec<Difference> {
        let none = Value::Null;
        let then = self.then.as_ref().map_or(&none, |(_, value)| value);
        differences(then, self.now.as_ref().unwrap_or(&none))
    }
}

async fn page(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, look)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let look = held(&web, &patient, &look)?;
    let zone = web.settings().zone;
    let head = html! { div.head { h1 { "As it was on " (moment(look.taken_ms, zone)) } } };
    let (banner, body) = match &look.state {
        Brought::Bringing => {
            let (banner, _) = chart::banner(&web, &visit, &patient).await?;
            let again = address(&look);
            let waiting = html! {
                (head)
                div role="status" hx-get=(again) hx-trigger={ "every " (ASK_AGAIN_S) "s" } hx-select="main" hx-target="main" hx-swap="outerHTML" {
                    p { "The record is on its way from the backup. This takes as long as a restore of the database." }
                }
                noscript { p { a href=(again) { "Look again" } } }
            };
            (banner, waiting)
        }
        Brought::Failed(error) => {
            let (banner, _) = chart::banner(&web, &visit, &patient).await?;
            (
                banner,
                html! { (head) div.notice.warn role="alert" { p { "It could not be brought back: " (error) "." } } (end_form(&visit, &look)) },
            )
        }
        Brought::Ready(then) => {
            let (banner, body) = beside(&web, &visit, &look, then).await?;
            (banner, html! { (head) (body) (end_form(&visit, &look)) })
        }
    };
    Ok(layout::page(&web, &visit, Section::Patients, "As it was", Some(&banner), &body))
}

fn end_form(visit: &Visit, look: &Look) -> Markup {
    let may = access::authorize(&visit.actor, Action::Read, Object::Practice).is_ok();
    html! { @if may { form method="post" action={ (address(look)) "/end" } data-no-guard {
        (layout::csrf(visit)) (chart::form_identity(&look.patient, ""))
        p.actions { button type="submit" { "End this look" } }
    } } }
}

/// The record of then beside today's, as far as the visitor's role may see both.
async fn beside(web: &Web, visit: &Visit, look: &Look, then: &Arc<Then>) -> Result<(Markup, Markup), PageError> {
    let (site, held, patient, guest) = (web.clone(), Arc::clone(then), look.patient.clone(), visit.clone());
    let (base, taken) = (address(look), look.snapshot.clone());
    let read = move |view: &View<'_>| {
        let (banner, _) = chart::banner_in(&site, view, &patient)?;
        view.note(Event::new(audit::Action::LookBack, "Patient", &taken).of_patient(&patient));
        let today = today(view, &patient, &held)?;
        let (pairs, hidden) = pairs(view, &held, &today);
        Ok::<_, StoreError>((banner, table(&site, &guest, (&patient, &base), &held, &pairs, hidden)))
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

/// Today's record, of the kinds that the visitor may read.
fn today(view: &View<'_>, patient: &str, then: &Then) -> Result<BTreeMap<(String, String), Value>, StoreError> {
    let kinds: BTreeSet<String> = view
        .kinds_of(&[patient.to_owned()])?
        .into_iter()
        .chain(then.resources.iter().map(|old| old.kind.clone()))
        .filter(|kind| view.may(Action::Search, kind) && view.may(Action::Read, kind))
        .collect();
    let mut found = BTreeMap::new();
    for kind in kinds {
        if kind == "Patient" {
            found.insert((kind, patient.to_owned()), view.read("Patient", patient)?.json()?);
            continue;
        }
        for resource in view.search(&Query::all(&kind)?.of_patient(patient))?.resources {
            found.insert((kind.clone(), resource.id.clone()), resource.json()?);
        }
    }
    Ok(found)
}

/// Every resource of then and now that the visitor may read, and how many of then the role keeps back.
fn pairs<'a>(view: &View<'_>, then: &'a Then, today: &'a BTreeMap<(String, String), Value>) -> (Vec<Pair<'a>>, usize) {
    let mut all = BTreeMap::<(&str, &str), Pair<'a>>::new();
    let mut hidden = 0;
    for old in &then.resources {
        if !view.may(Action::Read, &old.kind) {
            hidden += 1;
            continue;
        }
        let value = serde_json::from_str(&old.body).unwrap_or(Value::Null);
        let (kind, id) = (old.kind.as_str(), old.id.as_str());
        all.insert((kind, id), Pair { kind, id, then: Some((old, value)), now: None });
    }
    for ((kind, id), value) in today {
        let pair = all.entry((kind, id)).or_insert(Pair { kind, id, then: None, now: None });
        pair.now = Some(value.clone());
    }
    (all.into_values().collect(), hidden)
}

fn table(
    web: &Web,
    visit: &Visit,
    (patient, base): (&str, &str),
    then: &Then,
    pairs: &[Pair<'_>],
    hidden: usize,
) -> Markup {
    let lost_file = |pair: &Pair<'_>| {
        let file = pair.then.as_ref().and_then(|(_, value)| file_of(then, value));
        file.is_some_and(|file| !file.is_whole_today())
    };
    let told: Vec<(&Pair<'_>, Vec<Difference>)> = pairs
        .iter()
        .map(|pair| (pair, pair.differences()))
        .filter(|(pair, told)| !told.is_empty() || lost_file(pair))
        .collect();
    let same = pairs.len() - told.len();
    let lost = then.files.iter().filter(|file| !file.is_whole_today()).count();
    let may_read_files = access::authorize(&visit.actor, Action::Read, Object::resource("Binary")).is_ok();
    html! {
        p { "Entries that differ: " b { (told.len()) } ". As they were: " b { (same) } "."
            @if hidden > 0 { " Of kinds that your role does not read: " b { (hidden) } "; who treats the patient compares them." } }
        @if may_read_files && lost > 0 { div.notice.warn { p { "Files of then that are missing or damaged today: " b { (lost) } ". Copying their document back brings those that the snapshot held." } } }
        @if told.is_empty() { p.empty { "Nothing that you may see differs." } }
        @for (pair, told) in &told { (entry(web, visit, (patient, base), then, pair, told)) }
        (files(visit, base, then, pairs))
    }
}

fn entry(
    web: &Web,
    visit: &Visit,
    (patient, base): (&str, &str),
    then: &Then,
    pair: &Pair<'_>,
    told: &[Difference],
) -> Markup {
    let zone = web.settings().zone;
    let (word, class) = match (&pair.then, &pair.now) {
        (Some(_), Some(_)) if told.is_empty() => ("its file is missing or damaged today", "tag alert"),
        (Some(_), Some(_)) => ("changed since", "tag"),
        (Some(_), None) => ("gone today", "tag alert"),
        (None, _) => ("new since", "tag"),
    };
    let shown = pair.then.as_ref().map(|(_, value)| value).or(pair.now.as_ref());
    let title = shown.map(|value| summary(pair.kind, value)).unwrap_or_default();
    html! {
        section.panel aria-label={ (kind_word(pair.kind)) " " (title) } {
            h2 { (kind_word(pair.kind)) @if !title.is_empty() { ": " (title) } " " span class=(class) { (word) } }
            @if let Some((old, _)) = &pair.then { p.soft { "As written on " (moment(old.updated_ms, zone)) ", version " (old.version)
                @if old.damaged { ". The snapshot holds it damaged: it cannot be copied back" } } }
            @if !told.is_empty() { table.list {
                (layout::columns(&["Element", "Then", "Today"]))
                tbody { @for difference in told.iter().take(DIFFERENCES_MAX) { tr {
                    th scope="row" { (difference.element) }
                    @let (then, now) = said(difference, zone);
                    td { @match &then { Some(value) => del { (value) }, None => span.soft { "nothing" } } }
                    td { @match &now { Some(value) => ins { (value) }, None => span.soft { "nothing" } } }
                } } }
            } }
            @if told.len() > DIFFERENCES_MAX { p.soft { (told.len() - DIFFERENCES_MAX) " more elements differ." } }
            (copy_form(visit, (patient, base), then, pair, &title))
        }
    }
}

/// Both values; instants in the practice's zone, where that still tells them apart.
fn said(difference: &Difference, zone: chrono_tz::Tz) -> (Option<String>, Option<String>) {
    let shown = |value: &Option<String>| {
        value
            .as_ref()
            .map(|value| if dates::unix_s(value).is_some() { dates::show(value, zone) } else { value.clone() })
    };
    let (then, now) = (shown(&difference.then), shown(&difference.now));
    if then == now { (difference.then.clone(), difference.now.clone()) } else { (then, now) }
}

fn copy_form(visit: &Visit, (patient, base): (&str, &str), then: &Then, pair: &Pair<'_>, title: &str) -> Markup {
    let action = if pair.now.is_some() { Action::Update } else { Action::Create };
    let may = access::authorize(&visit.actor, action, Object::of_patient(pair.kind, patient)).is_ok();
    let Some((old, value)) = pair.then.as_ref().filter(|(old, _)| may && !old.damaged) else { return html! {} };
    let version = pair.now.as_ref().map_or(0, super::reading::version).to_string();
    let file = file_of(then, value).filter(|file| !file.is_whole_today());
    let label = format!("Copy back as a new version: {} {title}", kind_word(&old.kind));
    html! {
        form.inline method="post" action={ (base) "/copy" } data-no-guard {
            (layout::csrf(visit)) (chart::form_identity(patient, &version))
            input type="hidden" name="kind" value=(pair.kind); input type="hidden" name="entry" value=(pair.id);
            button type="submit" aria-label=(label.trim()) { "Copy back as a new version" }
            @if let Some(file) = file { " " span.soft { @if file.lent.is_some() { "with its file" } @else { "its file is lost in the snapshot too" } } }
        }
    }
}

/// The files of then, to be opened as they were.
fn files(visit: &Visit, base: &str, then: &Then, pairs: &[Pair<'_>]) -> Markup {
    if access::authorize(&visit.actor, Action::Read, Object::resource("Binary")).is_err() || then.files.is_empty() {
        return html! {};
    }
    let of: BTreeMap<&str, &Value> = pairs
        .iter()
        .filter_map(|pair| pair.then.as_ref())
        .filter_map(|(_, value)| Some((reference_id(value, "/content/0/attachment/url", "Binary")?, value)))
        .collect();
    html! {
        section.panel aria-label="Files" {
            h2 { "Files of then" }
            ul { @for file in &then.files { li {
                @let name = of.get(file.row.id.as_str()).map_or("File without a document", |document| documents::title(document));
                @if file.is_whole_today() || file.lent.is_some() { a href={ (base) "/files/" (file.row.id) } { (name) } }
                @else { (name) " " span.soft { "(lost)" } }
                " " span.soft { (documents::kind_word(&file.row.media_type)) @if !file.is_whole_today() { ", missing or damaged today" } }
            } } }
        }
    }
}

fn file_of<'a>(then: &'a Then, resource: &Value) -> Option<&'a OldFile> {
    then.file(reference_id(resource, "/content/0/attachment/url", "Binary")?)
}

/// What people call a type of resource.
fn kind_word(kind: &str) -> &str {
    match kind {
        "Patient" => "Registration",
        "RelatedPerson" => "Contact",
        "Coverage" => "Insurance",
        "AllergyIntolerance" => "Allergy",
        "Condition" => "Problem",
        "MedicationRequest" => "Medication",
        "Observation" => "Measurement",
        "DiagnosticReport" => "Report",
        "DocumentReference" => "Document",
        "QuestionnaireResponse" => "Form",
        "ServiceRequest" => "Referral or order",
        "Communication" => "Message",
        other => other,
    }
}

/// A few words that tell one entry from another.
fn summary(kind: &str, value: &Value) -> String {
    let words = match kind {
        "Patient" => super::reading::PatientFacts::read(value).full_name(),
        "DocumentReference" => documents::title(value).to_owned(),
        _ => ["code", "medicationCodeableConcept", "vaccineCode", "type", "category"]
            .into_iter()
            .map(|name| concept(value.get(name)))
            .chain([text(value, "/description"), text(value, "/title")])
            .find(|found| !found.is_empty())
            .unwrap_or_default()
            .to_owned(),
    };
    words.chars().take(80).collect()
}

async fn copy(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, look)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let version = chart::checked_version(&form, &patient)?;
    let look = held(&web, &patient, &look)?;
    let Brought::Ready(then) = &look.state else { return Err(PageError::NotFound) };
    let old = then.resource(form.text("kind"), form.text("entry")).filter(|old| !old.damaged);
    let old = old.ok_or(PageError::NotFound)?.clone();
    access::authorize(&visit.actor, Action::Read, Object::of_patient(&old.kind, &patient))?;
    let value: Value = serde_json::from_str(&old.body).map_err(|_| StoreError::Damaged("resource body"))?;
    let staged = match file_of(then, &value).and_then(|file| Some((file.row.id.clone(), file.lent.clone()?))) {
        Some((id, bytes)) => {
            access::authorize(&visit.actor, Action::Create, Object::of_patient("Binary", &patient))?;
            bring_back(&web, id, bytes).await?
        }
        None => None,
    };
    let (owner, snapshot) = (patient.clone(), look.snapshot.clone());
    let write = move |tx: &mut Tx<'_>| {
        if let Some((id, staged)) = &staged {
            tx.attach_as(id, staged, Some(&owner))?;
        }
        let expect = if version == 0 { Expect::Nothing } else { Expect::Version(version) };
        tx.update(&old.kind, &old.id, value, expect)?;
        tx.note(Event::new(audit::Action::LookBack, &old.kind, &snapshot).of_patient(&owner));
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, write).await?;
    Ok(redirect(&address(&look)))
}

/// Writes a lent file: where its row is there, the very file that the row names; else a new one, to be attached.
async fn bring_back(web: &Web, id: String, bytes: Vec<u8>) -> Result<Option<(String, Staged)>, StoreError> {
    let own = id.clone();
    let row = web.store().internal(move |db| AttachmentRow::load(db, &own)).await?;
    let attachments = web.store().attachments().clone();
    let write = move || match row {
        Some(row) => attachments.heal(&row, &bytes).map(|()| None),
        None => attachments.stage(&bytes).map(|staged| Some((id, staged))),
    };
    tokio::task::spawn_blocking(write).await.unwrap_or(Err(StoreError::Closed))
}

async fn download(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, look, file)): Path<(String, String, String)>,
) -> Result<Response, PageError> {
    let look = held(&web, &patient, &look)?;
    let Brought::Ready(then) = &look.state else { return Err(PageError::NotFound) };
    let found = then.file(&file).ok_or(PageError::NotFound)?.clone();
    let owner = patient.clone();
    access::authorize(&visit.actor, Action::Read, Object::of_patient("Binary", &patient))?;
    let tell = move |view: &View<'_>| {
        view.note(Event::new(audit::Action::Download, "Binary", &file).of_patient(&owner));
        Ok::<_, StoreError>(())
    };
    web.store().view(&visit.actor, tell).await?;
    let attachments = web.store().attachments().clone();
    let bytes = match (found.lent, found.today) {
        (Some(bytes), _) => bytes,
        (None, Some(row)) => {
            tokio::task::spawn_blocking(move || attachments.read(&row)).await.unwrap_or(Err(StoreError::Closed))?
        }
        (None, None) => return Err(PageError::NotFound),
    };
    documents::served("as-it-was", &found.row.media_type, bytes)
}
