//! Tasks and what is said about them: the practice's inbox. A task is for somebody or for a role, about a patient or not.

use crate::access::accounts::{self, Account};
use crate::access::{Action, Object, Role, authorize};
use crate::dates;
use crate::store::{Expect, Query, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems, area};
use crate::web::form::{Form, FormError};
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{PatientFacts, list, reference_id, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, cosign, paging};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono_tz::Tz;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::BTreeMap;

const ACCOUNT: &str = "urn:holdfast:account";
const ROLE: &str = "urn:holdfast:role";
/// Tasks on a page.
const LISTED_MAX: u32 = 100;
/// States in which there is something to do, and those in which there is nothing any more.
const OPEN: &str = "requested,received,accepted,ready,in-progress,on-hold,draft";
const DONE: &str = "completed,cancelled,rejected,failed";
const STATES: [(&str, &str); 4] =
    [("requested", "New"), ("in-progress", "In work"), ("completed", "Done"), ("cancelled", "Not needed")];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Task"));
    vec![
        Route::new(Method::Get, "/tasks", may(Action::Search), page, w()),
        Route::new(Method::Get, "/tasks/new", may(Action::Create), new, w()),
        Route::new(Method::Post, "/tasks/new", may(Action::Create), add, w()),
        Route::new(Method::Get, "/tasks/{task}", may(Action::Read), one, w()),
        Route::new(Method::Post, "/tasks/{task}", may(Action::Update), change, w()),
    ]
}

#[derive(Deserialize, Default)]
struct Asked {
    #[serde(default)]
    show: String,
    #[serde(default)]
    patient: String,
    /// The first task of the page.
    #[serde(default)]
    from: usize,
    /// Where a page of what is done begins.
    #[serde(default)]
    after: String,
}

fn is_open(task: &Value) -> bool {
    OPEN.split(',').any(|state| state == text(task, "/status"))
}

fn for_me(task: &Value, visit: &Visit) -> bool {
    let own =
        text(task, "/owner/identifier/system") == ACCOUNT && text(task, "/owner/identifier/value") == visit.actor.id;
    let role = text(task, "/owner/identifier/system") == ROLE
        && Some(text(task, "/owner/identifier/value")) == visit.actor.role().map(Role::as_str);
    own || role
}

fn due(task: &Value) -> &str {
    text(task, "/restriction/period/end")
}

/// The tasks of a page: the database selects them by state. What is open is complete; what is done is so many at a time, the last
/// changed first, with where the next page begins.
fn read(view: &View<'_>, asked: &Asked) -> Result<(Vec<Value>, Option<String>), StoreError> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let mut pairs = vec![pair("status", if asked.show == "done" { DONE } else { OPEN })];
    if asked.show == "done" {
        pairs.extend([pair("_sort", "-_lastUpdated"), pair("_count", &LISTED_MAX.to_string())]);
        pairs.extend((!asked.after.is_empty()).then(|| pair("_cursor", &asked.after)));
    }
    let found = view.search(&Query::parse("Task", &pairs)?)?;
    Ok((chart::jsons(&found.resources)?, found.next.map(|next| next.to_string())))
}

/// The names of the patients whom tasks are about.
fn names(view: &View<'_>, tasks: &[Value]) -> Result<BTreeMap<String, String>, StoreError> {
    let ids: Vec<&str> = tasks.iter().filter_map(|t| reference_id(t, "/for/reference", "Patient")).collect();
    let mut names = BTreeMap::new();
    for chunk in ids.chunks(30) {
        let query = Query::parse("Patient", &[("_id".to_owned(), chunk.join(","))])?;
        for patient in chart::jsons(&view.search(&query)?.resources)? {
            let facts = PatientFacts::read(&patient);
            names.insert(facts.id.clone(), facts.full_name());
        }
    }
    Ok(names)
}

/// What is most urgent first: by priority, then what is due soonest, then what was given last.
fn by_urgency(tasks: &mut [Value], zone: Tz) {
    let rank = |task: &Value| match text(task, "/priority") {
        "stat" => 0,
        "asap" => 1,
        "urgent" => 2,
        _ => 3,
    };
    let at = |when: &str| dates::moment_s(when, zone);
    tasks.sort_by_cached_key(|task| {
        (rank(task), at(due(task)).unwrap_or(i64::MAX), Reverse(at(text(task, "/authoredOn"))))
    });
}

async fn page(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<Asked>) -> Result<Markup, PageError> {
    let show = if matches!(asked.show.as_str(), "all" | "done") { asked.show.clone() } else { "mine".to_owned() };
    let (zone, from, own) = (web.settings().zone, asked.from, visit.clone());
    let (which, asked) = (show.clone(), Asked { show: show.clone(), ..asked });
    let select = move |view: &View<'_>| {
        let (mut tasks, next) = read(view, &asked)?;
        tasks.retain(|task| which != "mine" || for_me(task, &own));
        if which != "done" {
            by_urgency(&mut tasks, zone);
        }
        let (shown, paging) = paging::part(&tasks, from, LISTED_MAX as usize);
        Ok::<_, StoreError>((names(view, shown)?, shown.to_vec(), paging, next))
    };
    let (names, tasks, paging, next) = web.store().view(&visit.actor, select).await?;
    let tab = |key: &str, label: &str| html! { a.button href={ "/tasks?show=" (key) } aria-current=[(key == show).then_some("page")] { (label) } };
    Ok(layout::page(
        &web,
        &visit,
        Section::Tasks,
        "Tasks",
        None,
        &html! {
            div.head { h1 { "Tasks" } nav.days aria-label="Which" { (tab("mine", "For me")) (tab("all", "All open")) (tab("done", "Done")) }
                @if authorize(&visit.actor, Action::Search, Object::resource("ServiceRequest")).is_ok() { a.button href="/referrals" { "Open referrals" } }
                a.button.primary href="/tasks/new" { "New task" } }
            @if tasks.is_empty() { p.empty { "Nothing to do here." } }
            @else { (table(&web, &tasks, &names)) }
            (paging.links(|from| format!("/tasks?show={show}&from={from}")))
            @if let Some(next) = next { nav.pages aria-label="Pages" { a.button href={ "/tasks?show=done&after=" (next) } { "Older ones" } } }
        },
    ))
}

fn table(web: &Web, tasks: &[Value], names: &BTreeMap<String, String>) -> Markup {
    let zone = web.settings().zone;
    let today = dates::today(web.now(), zone).to_string();
    let late = |task: &Value| {
        is_open(task) && !due(task).is_empty() && due(task).get(..10).unwrap_or_default() < today.as_str()
    };
    html! { table.list {
        (layout::columns(&["Task", "About", "For", "Due", "State"]))
        tbody { @for task in tasks { tr {
            th scope="row" { a href={ "/tasks/" (text(task, "/id")) } { (text(task, "/description")) }
                @let said = list(task, "note").len(); @if said > 0 { span.soft { " · " (said) @if said == 1 { " answer" } @else { " answers" } } } }
            td { @if let Some(id) = reference_id(task, "/for/reference", "Patient") { a href={ "/patients/" (id) } { (names.get(id).map_or("patient", String::as_str)) } } }
            td { (text(task, "/owner/display")) }
            td { (dates::show_day(due(task), zone)) @if late(task) { " " span.tag.alert { "late" } } }
            td { span.tag { (STATES.iter().find(|(k, _)| *k == text(task, "/status")).map_or(text(task, "/status"), |(_, w)| w)) } }
        } } }
    } }
}

/// Whom a task can be given to: everybody with access, and the roles that work with tasks.
async fn owners(web: &Web) -> Result<Vec<(String, String)>, PageError> {
    let all: Vec<Account> = web.store().internal(accounts::list).await?;
    let roles = [(Role::FrontDesk, "Front desk"), (Role::Clinician, "Clinicians")];
    let roles = roles.iter().map(|(role, name)| (format!("role {}", role.as_str()), (*name).to_owned()));
    let people = all.iter().filter(|a| !a.disabled && a.role != Role::PracticeAdmin);
    Ok(roles.chain(people.map(|a| (format!("account {}", a.id), a.display.clone()))).collect())
}

async fn new(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<Asked>) -> Result<Response, PageError> {
    let form = Form::from_fields([("patient".to_owned(), asked.patient)]);
    Ok(form_page(&web, &visit, &form, &Problems::default()).await?.into_response())
}

async fn form_page(web: &Web, visit: &Visit, form: &Form, problems: &Problems) -> Result<Markup, PageError> {
    let owners = owners(web).await?;
    let banner = match form.text("patient") {
        "" => None,
        patient => Some(chart::banner(web, visit, patient).await?.0),
    };
    Ok(layout::page(
        web,
        visit,
        Section::Tasks,
        "New task",
        banner.as_ref(),
        &html! {
            div.head { h1 { "New task" } }
            (problems.summary())
            form.sheet method="post" action="/tasks/new" {
                (layout::csrf(visit)) (chart::form_identity(form.text("patient"), ""))
                (Field::new("What is to be done", "what", form.text("what")).required().show(problems))
                div.columns {
                    (fields::select("For", "owner", form.text("owner"), &owners, true, problems))
                    (Field::new("Due", "due", form.text("due")).kind("date").show(problems))
                }
                (layout::save_or_cancel("Give the task", "/tasks"))
            }
        },
    ))
}

async fn add(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    let owners = owners(&web).await?;
    let owner = owners.iter().find(|(key, _)| key == form.text("owner"));
    if form.text("what").is_empty() || form.text("what").chars().count() > 500 {
        problems.add("what", "Please say in at most 500 characters what is to be done.");
    }
    if owner.is_none() {
        problems.add("owner", "Please choose for whom.");
    }
    if !form.text("due").is_empty() && dates::parse_day(form.text("due")).is_none() {
        problems.add("due", "Please enter the day as year-month-day.");
    }
    let (Some((key, name)), true) = (owner, problems.is_empty()) else {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, form_page(&web, &visit, &form, &problems).await?).into_response());
    };
    let (system, value) = match key.split_once(' ') {
        Some(("role", role)) => (ROLE, role),
        Some((_, account)) => (ACCOUNT, account),
        None => return Err(PageError::Form(FormError::Malformed)),
    };
    let mut body = json!({
        "resourceType": "Task", "status": "requested", "intent": "order", "description": form.text("what"), "authoredOn": web.now_fhir(),
        "owner": {"identifier": {"system": system, "value": value}, "display": name}, "requester": writer(&visit),
    });
    if let Some(day) = dates::parse_day(form.text("due")) {
        body["restriction"] = json!({"period": {"end": day.to_string()}});
    }
    let patient = form.text("patient").to_owned();
    if !patient.is_empty() {
        body["for"] = json!({"reference": format!("Patient/{patient}")});
    }
    let store = move |tx: &mut Tx<'_>| tx.create("Task", body);
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect("/tasks"))
}

fn writer(visit: &Visit) -> Value {
    let display = visit.session.as_ref().map_or(visit.actor.name.as_str(), |s| s.display.as_str());
    json!({"identifier": {"system": ACCOUNT, "value": visit.actor.id}, "display": display})
}

async fn one(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Markup, PageError> {
    let (site, zone) = (web.clone(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let task = view.read("Task", &id)?.json()?;
        let banner =
            reference_id(&task, "/for/reference", "Patient").map(|p| chart::banner_in(&site, view, p)).transpose()?;
        let leads = cosign::leads(view, &task)?;
        Ok::<_, StoreError>((task, banner, leads))
    };
    let (task, banner, leads) = web.store().view(&visit.actor, read).await?;
    let (banner, facts) = banner.unzip();
    let none = Problems::default();
    Ok(layout::page(
        &web,
        &visit,
        Section::Tasks,
        "Task",
        banner.as_ref(),
        &html! {
            div.head { h1 { (text(&task, "/description")) } a.button href="/tasks" { "All tasks" } }
            p.soft { "For " b { (text(&task, "/owner/display")) } ", from " (text(&task, "/requester/display")) ", " (dates::show(text(&task, "/authoredOn"), zone))
                @if !due(&task).is_empty() { ", due " (dates::show_day(due(&task), zone)) } }
            @if let Some(to) = &leads { p { a.button.primary href=(to) { "Open what is to be co-signed" } } }
            @else if let Some(patient) = &facts { (came_from_patient(&task, &patient.id)) }
            @for said in list(&task, "note") { article.note {
                header { b { (text(said, "/authorString")) } span.soft { " · " (dates::show(text(said, "/time"), zone)) } }
                div.text { (text(said, "/text")) }
            } }
            form.sheet method="post" action={ "/tasks/" (text(&task, "/id")) } {
                (layout::csrf(&visit)) (chart::form_identity(facts.as_ref().map_or("", |f| f.id.as_str()), &version(&task).to_string()))
                (fields::select("State", "status", text(&task, "/status"), &fields::pairs(&STATES), true, &none))
                (area("Answer", "say", "", 4, &none))
                p.actions { button.primary type="submit" formnovalidate { "Save" } }
            }
        },
    ))
}

/// A link to what a patient sent.
fn came_from_patient(task: &Value, patient: &str) -> Markup {
    let focus = text(task, "/focus/reference");
    html! {
        @if focus.starts_with("Communication/") {
            p { a.button href={ "/patients/" (patient) "/messages" } { "Read and answer the message" } }
        } @else if let Some(form) = focus.strip_prefix("QuestionnaireResponse/") {
            p { a.button href={ "/patients/" (patient) "/forms/" (form) } { "Open the form" } }
        }
    }
}

async fn change(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let number = form.text("version").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let status = form.text("status").to_owned();
    if !STATES.iter().any(|(key, _)| *key == status) || form.raw("say").chars().count() > 5000 {
        return Err(PageError::Form(FormError::Malformed));
    }
    let (patient, say, now) = (form.text("patient").to_owned(), form.raw("say").trim().to_owned(), web.now_fhir());
    let display = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let target = id.clone();
    let save = move |tx: &mut Tx<'_>| {
        let mut body = tx.read("Task", &target)?.json()?;
        if reference_id(&body, "/for/reference", "Patient").unwrap_or("") != patient {
            return Err(PageError::WrongPatient);
        }
        if status == "completed" && is_open(&body) {
            cosign::check_done(tx, &body)?;
        }
        body["status"] = status.into();
        if !say.is_empty() {
            let said = json!({"authorString": display, "time": now, "text": say});
            match body.get_mut("note").and_then(Value::as_array_mut) {
                Some(notes) => notes.push(said),
                None => body["note"] = json!([said]),
            }
        }
        Ok(tx.update("Task", &target, body, Expect::Version(number))?)
    };
    web.store().write(&visit.actor, save).await?;
    Ok(redirect(&format!("/tasks/{id}")))
}
