//! Encounters and their notes: a draft is saved until its author signs it; afterwards only an addendum is possible.

use super::cosign::Requests;
use super::fields::{self, Field, Problems};
use super::form::{Form, FormError};
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::reading::{self, PatientFacts, code, concept, list, text, version};
use super::{Method, PageError, Policy, Route, Target, Web, chart, dates, merged};
use crate::access::{Action, Actor, Object, authorize};
use crate::audit;
use crate::store::{Expect, Query, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

/// The identifier system of our accounts in `author`.
const ACCOUNT: &str = "urn:holdfast:account";
const NOTE_CHARS_MAX: usize = 100_000;
const CLASSES: [(&str, &str); 4] =
    [("AMB", "In the practice"), ("VR", "By video"), ("HH", "At home"), ("EMER", "Emergency")];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let encounter = |action| Policy::Permits(action, Target::Resource("Encounter"));
    let note = |action| Policy::Permits(action, Target::Resource("DocumentReference"));
    const ONE: &str = "/patients/{patient}/encounters/{encounter}";
    const NOTE: &str = "/patients/{patient}/encounters/{encounter}/notes/{note}";
    const SIGN: &str = "/patients/{patient}/encounters/{encounter}/notes/{note}/sign";
    vec![
        Route::new(Method::Get, "/patients/{patient}/encounters/new", encounter(Action::Create), new_encounter, w()),
        Route::new(Method::Post, "/patients/{patient}/encounters/new", encounter(Action::Create), start_encounter, w()),
        Route::new(Method::Get, ONE, encounter(Action::Read), encounter_page, w()),
        Route::new(Method::Post, ONE, encounter(Action::Update), finish_encounter, w()),
        Route::new(
            Method::Post,
            "/patients/{patient}/encounters/{encounter}/notes",
            note(Action::Create),
            add_note,
            w(),
        ),
        Route::new(Method::Get, NOTE, note(Action::Update), edit_note, w()),
        Route::new(Method::Post, NOTE, note(Action::Update), save_note, w()),
        Route::new(Method::Post, SIGN, note(Action::Sign), sign_note, w()),
    ]
}

/// The encounters on the chart, newest first, and the notes that belong to none.
pub fn section(web: &Web, visit: &Visit, patient: &PatientFacts, encounters: &[Value], notes: &[Value]) -> Markup {
    let zone = web.settings().zone;
    let base = |encounter| format!("/patients/{}/encounters", merged::owner(encounter, &patient.id));
    let mut ordered: Vec<&Value> = encounters.iter().collect();
    ordered.sort_by_key(|e| std::cmp::Reverse(text(e, "/period/start").to_owned()));
    let rows: Vec<Markup> = ordered
        .iter()
        .map(|encounter| {
            let reference = format!("Encounter/{}", text(encounter, "/id"));
            let own = notes.iter().filter(|n| text(n, "/context/encounter/0/reference") == reference);
            let (drafts, all) = own.fold((0, 0), |(d, a), n| (d + usize::from(is_draft(n)), a + 1));
            html! {
                span.what {
                    a href={ (base(encounter)) "/" (text(encounter, "/id")) } { (title(encounter)) }
                    @if all > 0 { span.soft { " · " (all) @if all == 1 { " note" } @else { " notes" } } }
                    @if drafts > 0 { " " span.tag.warn { "unsigned" } }
                    (merged::mark(encounter, &patient.id))
                }
                span.when {
                    @if code(encounter, "status") == "in-progress" { span.tag.calm { "open" } " " }
                    (dates::show_day(text(encounter, "/period/start"), zone))
                }
            }
        })
        .collect();
    let may = chart::may_add(visit, patient, "Encounter");
    let add = format!("/patients/{}/encounters/new", patient.id);
    chart::section(
        "Encounters",
        may.then_some((add.as_str(), "Start")),
        &chart::folded(&rows, "No encounters recorded."),
    )
}

fn title(encounter: &Value) -> &str {
    let reason = concept(encounter.pointer("/reasonCode/0"));
    let kind = concept(encounter.pointer("/type/0"));
    [reason, kind].into_iter().find(|t| !t.is_empty()).unwrap_or("Encounter")
}

fn is_draft(note: &Value) -> bool {
    code(note, "docStatus") == "preliminary"
}

/// Whether `actor` wrote this note.
fn is_author(note: &Value, actor: &Actor) -> bool {
    list(note, "author")
        .iter()
        .any(|a| text(a, "/identifier/system") == ACCOUNT && text(a, "/identifier/value") == actor.id)
}

async fn new_encounter(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    chart::require_open(&web, &visit, &patient).await?;
    let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
    Ok(encounter_form(&web, &visit, &banner, &facts, &Form::default(), &Problems::default()))
}

fn encounter_form(
    web: &Web,
    visit: &Visit,
    banner: &Markup,
    patient: &PatientFacts,
    form: &Form,
    problems: &Problems,
) -> Markup {
    let class = if form.text("class").is_empty() { "AMB" } else { form.text("class") };
    layout::page(
        web,
        visit,
        Section::Patients,
        "Start an encounter",
        Some(banner),
        &html! {
            div.head { h1 { "Start an encounter" } }
            (problems.summary())
            form.sheet method="post" action={ "/patients/" (patient.id) "/encounters/new" } {
                (layout::csrf(visit)) (chart::form_identity(&patient.id, ""))
                (Field::new("Reason", "reason", form.text("reason")).required()
                    .hint("Why the patient is here, for example: Cough for two weeks").show(problems))
                (fields::select("Where", "class", class, &fields::pairs(&CLASSES), true, problems))
                (layout::save_or_cancel("Start", &format!("/patients/{}", patient.id)))
            }
        },
    )
}

async fn start_encounter(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    if form.text("reason").is_empty() || form.text("reason").chars().count() > 500 {
        problems.add("reason", "Please enter a reason of at most 500 characters.");
    }
    let Some((class, shown)) = CLASSES.iter().find(|(key, _)| *key == form.text("class")) else {
        return Err(PageError::Form(FormError::Malformed));
    };
    if !problems.is_empty() {
        let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
        let page = encounter_form(&web, &visit, &banner, &facts, &form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let mut body = json!({
        "resourceType": "Encounter", "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": class, "display": shown},
        "subject": {"reference": format!("Patient/{patient}")},
        "period": {"start": web.now_fhir()},
        "reasonCode": [{"text": form.text("reason")}],
    });
    if let Some(practitioner) = visit.session.as_ref().and_then(|s| s.practitioner.as_ref()) {
        body["participant"] = json!([{"individual": {"reference": format!("Practitioner/{practitioner}")}}]);
    }
    let store = move |tx: &mut Tx<'_>| tx.create("Encounter", body);
    let stored = web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/encounters/{}", stored.id)))
}

/// What the page of an encounter needs, read at one point.
struct Opened {
    banner: Markup,
    patient: PatientFacts,
    encounter: Value,
    notes: Vec<Value>,
    requests: Requests,
}

async fn open(web: &Web, visit: &Visit, patient: String, id: String) -> Result<Opened, PageError> {
    let site = web.clone();
    let read = move |view: &View<'_>| {
        let encounter = chart::read_of(view, "Encounter", &id, &patient)?;
        let wanted = [("encounter".to_owned(), format!("Encounter/{id}"))];
        let query = Query::parse("DocumentReference", &wanted)?.of_patient(&patient);
        let notes = chart::jsons(&view.search(&query)?.resources)?;
        let requests = Requests::read(view, &patient)?;
        let (banner, patient) = chart::banner_in(&site, view, &patient)?;
        Ok::<_, StoreError>(Opened { banner, patient, encounter, notes, requests })
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

async fn encounter_page(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let opened = open(&web, &visit, patient, id).await?;
    Ok(show_encounter(&web, &visit, &opened, &Form::default(), &Problems::default()))
}

fn show_encounter(web: &Web, visit: &Visit, opened: &Opened, form: &Form, problems: &Problems) -> Markup {
    let Opened { banner, patient, encounter, notes, requests } = opened;
    let zone = web.settings().zone;
    let base = format!("/patients/{}/encounters/{}", patient.id, text(encounter, "/id"));
    let is_open = code(encounter, "status") == "in-progress";
    let class = [text(encounter, "/class/display"), text(encounter, "/class/code")];
    let mut texts: Vec<&Value> = notes.iter().filter(|n| reading::is_note(n)).collect();
    texts.sort_by_key(|n| text(n, "/date").to_owned());
    let (mains, addenda): (Vec<&Value>, Vec<&Value>) = texts.into_iter().partition(|n| appended_to(n).is_none());
    layout::page(
        web,
        visit,
        Section::Patients,
        "Encounter",
        Some(banner),
        &html! {
            p.crumbs { a href={ "/patients/" (patient.id) } { "Chart" } " › Encounter" }
            div.head {
                h1 { (title(encounter)) }
                @if is_open { form method="post" action=(base) {
                    (layout::csrf(visit)) (chart::form_identity(&patient.id, &version(encounter).to_string()))
                    button type="submit" { "Finish the encounter" }
                } }
            }
            p.soft {
                (dates::show(text(encounter, "/period/start"), zone))
                @if let Some(class) = class.into_iter().find(|c| !c.is_empty()) { " · " (class) }
                " · " (if is_open { "open" } else { code(encounter, "status") })
            }
            h2 { "Notes" }
            @if mains.is_empty() { p.empty { "No note yet." } }
            @for note in &mains {
                (show_note(web, visit, &base, note, requests))
                @for addendum in addenda.iter().filter(|a| appended_to(a) == Some(text(note, "/id"))) {
                    div.addendum { (show_note(web, visit, &base, addendum, requests)) }
                }
            }
            @if chart::may_add(visit, patient, "DocumentReference") {
                section.panel {
                    h2 { "Write a note" }
                    (problems.summary())
                    form method="post" action={ (base) "/notes" } {
                        (layout::csrf(visit)) (chart::form_identity(&patient.id, ""))
                        (fields::area("Note", "note", form.raw("note"), 10, problems))
                        p.actions {
                            button.primary type="submit" { "Save as draft" }
                            span.hint { "A draft is visible to all clinicians; you sign it when it is complete." }
                        }
                    }
                }
            }
        },
    )
}

fn appended_to(note: &Value) -> Option<&str> {
    let relation = list(note, "relatesTo").iter().find(|r| text(r, "/code") == "appends")?;
    reading::reference_id(relation, "/target/reference", "DocumentReference")
}

fn show_note(web: &Web, visit: &Visit, base: &str, note: &Value, requests: &Requests) -> Markup {
    let zone = web.settings().zone;
    let id = text(note, "/id");
    let draft = is_draft(note);
    let may_append = authorize(&visit.actor, Action::Create, Object::resource("DocumentReference")).is_ok();
    let words = reading::note_text(note).unwrap_or_else(|| "This note has no text that can be shown here.".into());
    let authors: Vec<&str> =
        list(note, "author").iter().map(|a| text(a, "/display")).filter(|d| !d.is_empty()).collect();
    html! {
        article.note.draft[draft] id={ "note-" (id) } {
            header {
                b { @if appended_to(note).is_some() { "Addendum" } @else { (kind_of(note)) } }
                span.soft {
                    " · " (dates::show(text(note, "/date"), zone))
                    @if !authors.is_empty() { " · " (authors.join(", ")) }
                }
                @if draft { " " span.tag.warn { "Draft, not signed" } }
                @else if code(note, "docStatus") == "final" { " " span.tag.calm { "Signed" } }
            }
            div.text { (words) }
            @if draft && is_author(note, &visit.actor) {
                p.actions { a.button href={ (base) "/notes/" (id) } { "Edit or sign" } }
            }
            (requests.shown(web, visit, (reading::subject(note).unwrap_or(""), &format!("{base}/notes/{id}")), note))
            @if !draft && appended_to(note).is_none() && may_append {
                details { summary { "Write an addendum" }
                    form method="post" action={ (base) "/notes" } {
                        (layout::csrf(visit)) (chart::form_identity(reading::subject(note).unwrap_or(""), ""))
                        input type="hidden" name="appends" value=(id);
                        div.field {
                            label for={ "add-" (id) } { "Addendum" }
                            textarea id={ "add-" (id) } name="note" rows="4" required {}
                        }
                        p.actions { button type="submit" { "Save as draft" } }
                    }
                }
            }
        }
    }
}

fn kind_of(note: &Value) -> &str {
    match concept(note.get("type")) {
        "" => "Note",
        kind => kind,
    }
}

async fn finish_encounter(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let version = chart::checked_version(&form, &patient)?;
    let (now, owner, target) = (web.now_fhir(), patient.clone(), id.clone());
    let save = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, "Encounter", &target, &owner)?;
        body["status"] = "finished".into();
        if !body["period"].is_object() {
            body["period"] = json!({});
        }
        body["period"]["end"] = now.into();
        tx.update("Encounter", &target, body, Expect::Version(version))
    };
    web.store().write(&visit.actor, save).await?;
    Ok(redirect(&format!("/patients/{patient}/encounters/{id}")))
}

fn check_note(form: &Form) -> Problems {
    let mut problems = Problems::default();
    if form.text("note").is_empty() {
        problems.add("note", "A note without text cannot be saved.");
    } else if form.raw("note").chars().count() > NOTE_CHARS_MAX {
        problems.add("note", "A note may have 100,000 characters at most; please divide it.");
    }
    problems
}

async fn add_note(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, encounter)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let problems = check_note(&form);
    if !problems.is_empty() {
        let opened = open(&web, &visit, patient, encounter).await?;
        let page = show_encounter(&web, &visit, &opened, &form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let appends = form.text("appends").to_owned();
    let body = note_body(&visit, &form, &patient, &encounter, &web.now_fhir());
    let (owner, within) = (patient.clone(), encounter.clone());
    let store = move |tx: &mut Tx<'_>| {
        // Both must be this patient's: a mixed address or a planted field saves nothing.
        chart::read_of_tx(tx, "Encounter", &within, &owner)?;
        if !appends.is_empty() {
            let signed = chart::read_of_tx(tx, "DocumentReference", &appends, &owner)?;
            if is_draft(&signed) {
                return Err(StoreError::invalid("a draft is edited, not appended to", "DocumentReference.docStatus"));
            }
        }
        tx.create("DocumentReference", body)
    };
    let stored = web.store().write(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/encounters/{encounter}/notes/{}", stored.id)))
}

fn note_body(visit: &Visit, form: &Form, patient: &str, encounter: &str, now: &str) -> Value {
    let session = visit.session.as_ref();
    let mut author = json!({
        "identifier": {"system": ACCOUNT, "value": visit.actor.id},
        "display": session.map_or(visit.actor.name.as_str(), |s| s.display.as_str()),
    });
    if let Some(practitioner) = session.and_then(|s| s.practitioner.as_ref()) {
        author["reference"] = format!("Practitioner/{practitioner}").into();
    }
    let loinc = json!({"system": "http://loinc.org", "code": "11506-3", "display": "Progress note"});
    let mut body = json!({
        "resourceType": "DocumentReference", "status": "current", "docStatus": "preliminary",
        "type": {"coding": [loinc], "text": "Progress note"},
        "category": [{"coding": [{"system": "http://hl7.org/fhir/us/core/CodeSystem/us-core-documentreference-category",
            "code": "clinical-note"}]}],
        "subject": {"reference": format!("Patient/{patient}")},
        "date": now, "author": [author],
        "content": [{"attachment": attachment(form.raw("note"))}],
        "context": {"encounter": [{"reference": format!("Encounter/{encounter}")}]},
    });
    if !form.text("appends").is_empty() {
        let target = format!("DocumentReference/{}", form.text("appends"));
        body["relatesTo"] = json!([{"code": "appends", "target": {"reference": target}}]);
    }
    body
}

fn attachment(note: &str) -> Value {
    json!({"contentType": "text/plain; charset=utf-8", "data": STANDARD.encode(note.trim_end())})
}

type NotePath = Path<(String, String, String)>;

async fn edit_note(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, encounter, id)): NotePath,
) -> Result<Markup, PageError> {
    let note = editable(&web, &visit, &patient, &id).await?;
    let (banner, _) = chart::banner(&web, &visit, &patient).await?;
    let fields = [("note", reading::note_text(&note).unwrap_or_default()), ("version", version(&note).to_string())];
    let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v)));
    let base = format!("/patients/{patient}/encounters/{encounter}");
    Ok(note_page(&web, &visit, &banner, &patient, &base, &id, &form, &Problems::default()))
}

/// A draft of the visitor's own.
async fn editable(web: &Web, visit: &Visit, patient: &str, id: &str) -> Result<Value, PageError> {
    let (owner, id) = (patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| chart::read_of(view, "DocumentReference", &id, &owner);
    let note = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    may_edit(&note, &visit.actor)?;
    Ok(note)
}

fn may_edit(note: &Value, actor: &Actor) -> Result<(), StoreError> {
    if !is_draft(note) {
        return Err(StoreError::invalid(
            "a signed note is not changed; write an addendum",
            "DocumentReference.docStatus",
        ));
    }
    if !is_author(note, actor) {
        return Err(StoreError::invalid("only its author edits or signs a draft", "DocumentReference.author"));
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "one form, three callers; a struct would name the same eight things")]
fn note_page(
    web: &Web,
    visit: &Visit,
    banner: &Markup,
    patient: &str,
    base: &str,
    id: &str,
    form: &Form,
    problems: &Problems,
) -> Markup {
    let action = format!("{base}/notes/{id}");
    layout::page(
        web,
        visit,
        Section::Patients,
        "Note",
        Some(banner),
        &html! {
            p.crumbs { a href={ "/patients/" (patient) } { "Chart" } " › " a href=(base) { "Encounter" } " › Note" }
            div.head { h1 { "Note" } span.tag.warn { "Draft, not signed" } }
            (problems.summary())
            form method="post" action=(action) {
                (layout::csrf(visit)) (chart::form_identity(patient, form.text("version")))
                (fields::area("Note", "note", form.raw("note"), 18, problems))
                p.actions {
                    button type="submit" { "Save draft" }
                    button.primary type="submit" formaction={ (action) "/sign" } { "Save and sign" }
                    a.button.quiet href=(base) { "Back to the encounter" }
                }
                p.hint { "Signing makes the note final. Afterwards it cannot be changed; an addendum can be written." }
            }
        },
    )
}

async fn save_note(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, encounter, id)): NotePath,
    form: Form,
) -> Result<Response, PageError> {
    store_note(&web, &visit, (patient, encounter, id), &form, false).await
}

async fn sign_note(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, encounter, id)): NotePath,
    form: Form,
) -> Result<Response, PageError> {
    store_note(&web, &visit, (patient, encounter, id), &form, true).await
}

async fn store_note(
    web: &Web,
    visit: &Visit,
    (patient, encounter, id): (String, String, String),
    form: &Form,
    sign: bool,
) -> Result<Response, PageError> {
    let version = chart::checked_version(form, &patient)?;
    let base = format!("/patients/{patient}/encounters/{encounter}");
    let problems = check_note(form);
    if !problems.is_empty() {
        let (banner, _) = chart::banner(web, visit, &patient).await?;
        let page = note_page(web, visit, &banner, &patient, &base, &id, form, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let (now, words, actor) = (web.now_fhir(), form.raw("note").to_owned(), visit.actor.clone());
    let (owner, target) = (patient.clone(), id.clone());
    let save = move |tx: &mut Tx<'_>| {
        let mut body = chart::read_of_tx(tx, "DocumentReference", &target, &owner)?;
        may_edit(&body, &actor)?;
        body["content"] = json!([{"attachment": attachment(&words)}]);
        body["date"] = now.into();
        if sign {
            body["docStatus"] = "final".into();
            body["authenticator"] = body["author"][0].clone();
            tx.note(audit::Event::new(audit::Action::Sign, "DocumentReference", &target).of_patient(&owner));
        }
        tx.update("DocumentReference", &target, body, Expect::Version(version))
    };
    match web.store().write(&visit.actor, save).await {
        Ok(_) if sign => Ok(redirect(&base)),
        Ok(_) => Ok(redirect(&format!("{base}/notes/{id}"))),
        Err(StoreError::VersionConflict { .. }) => {
            // What was typed must survive: the page shows it again and sends the writer to look at the other state.
            let mut problems = Problems::default();
            problems.add(
                "",
                "This note was changed in another window meanwhile. Nothing was saved: open the encounter in a \
                              new window, compare, and copy what you need.",
            );
            let (banner, _) = chart::banner(web, visit, &patient).await?;
            let page = note_page(web, visit, &banner, &patient, &base, &id, form, &problems);
            Ok((StatusCode::CONFLICT, page).into_response())
        }
        Err(error) => Err(error.into()),
    }
}
