//! Messages between a patient and the practice: `Communication`s in the patient's compartment. What the staff says to each other
//! stays in tasks, which no patient reads.

use super::super::fields::{Problems, area};
use super::super::form::Form;
use super::super::gate::{UrlQuery, Visit};
use super::super::layout::{self, Portal};
use super::super::login::redirect;
use super::super::reading::{reference_id, text};
use super::super::{Method, PageError, Policy, Route, Target, Web, dates};
use super::{patient, record};
use crate::access::{Action, Role};
use crate::store::{Query, StoreError, Tx, View};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono_tz::Tz;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

pub const TEXT_CHARS_MAX: usize = 5000;
/// Messages of one patient within a day.
const DAILY_MAX: usize = 20;
/// Messages on a page.
const SHOWN_MAX: usize = 100;
const ROLE: &str = "urn:holdfast:role";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Communication"));
    vec![
        Route::new(Method::Get, "/messages", may(Action::Search), page, w()),
        Route::new(Method::Post, "/messages", may(Action::Create), send, w()),
    ]
}

/// One message as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Written by the patient, or by somebody who acts for them.
    pub own: bool,
    /// Who wrote it, as a reference; empty for the staff.
    pub sender: String,
    pub from: String,
    pub sent: String,
    pub text: String,
}

/// The messages between a patient and the practice, oldest first. Other communications about the patient are none.
pub fn conversation(all: &[Value], patient: &str, zone: Tz) -> Vec<Told> {
    let by = |message: &Value, kind: &str| reference_id(message, "/sender/reference", kind).map(str::to_owned);
    let own =
        |message: &Value| by(message, "Patient").as_deref() == Some(patient) || by(message, "RelatedPerson").is_some();
    let to = |message: &Value| reference_id(message, "/recipient/0/reference", "Patient") == Some(patient);
    let mut found: Vec<Told> = all
        .iter()
        .filter(|message| text(message, "/status") == "completed" && (own(message) || to(message)))
        .map(|message| Told {
            own: own(message),
            sender: text(message, "/sender/reference").to_owned(),
            from: text(message, "/sender/display").to_owned(),
            sent: text(message, "/sent").to_owned(),
            text: text(message, "/payload/0/contentString").to_owned(),
        })
        .collect();
    found.sort_by_key(|told| dates::moment_s(&told.sent, zone));
    found
}

/// A conversation as both sides see it: the newest messages, or those before the newest `newer`; the one whose reference is `own` is
/// called `own_name`. `address` is that of the page.
pub fn shown(told: &[Told], zone: Tz, (own, own_name): (&str, &str), (address, newer): (&str, usize)) -> Markup {
    let newer = newer.min(told.len().saturating_sub(1) / SHOWN_MAX * SHOWN_MAX);
    let until = told.len() - newer;
    let from = until.saturating_sub(SHOWN_MAX);
    let way = |newer: usize, label: &str| html! { nav.pages aria-label=(label) { a.button href={ (address) "?newer=" (newer) } { (label) } } };
    html! {
        @if from > 0 { (way(told.len() - from, &format!("{from} earlier messages"))) }
        @for one in told.get(from..until).unwrap_or(&[]) { article.note {
            header { b { (if one.sender == own { own_name } else { one.from.as_str() }) } span.soft { " · " (dates::show(&one.sent, zone)) } }
            div.text { (one.text) }
        } }
        @if until < told.len() { (way(newer.saturating_sub(SHOWN_MAX), &format!("{} newer messages", told.len() - until))) }
    }
}

/// Which messages are asked for.
#[derive(Deserialize, Default)]
pub struct Asked {
    /// How many of the newest are passed over.
    #[serde(default)]
    pub newer: usize,
}

/// A task for a role, about a patient and what came from `requester` (a reference and a name).
pub fn task(patient: &str, what: &str, role: Role, focus: &str, (requester, now): (&(String, String), &str)) -> Value {
    let name = if role == Role::FrontDesk { "Front desk" } else { "Clinicians" };
    json!({
        "resourceType": "Task", "status": "requested", "intent": "order", "description": what, "authoredOn": now,
        "for": {"reference": format!("Patient/{patient}")}, "focus": {"reference": focus},
        "owner": {"identifier": {"system": ROLE, "value": role.as_str()}, "display": name},
        "requester": {"reference": requester.0, "display": requester.1},
    })
}

async fn page(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<Asked>) -> Result<Markup, PageError> {
    show(&web, &visit, ("", &Problems::default()), asked.newer).await
}

async fn show(
    web: &Web,
    visit: &Visit,
    (typed, problems): (&str, &Problems),
    newer: usize,
) -> Result<Markup, PageError> {
    let (id, zone) = (patient(visit)?, web.settings().zone);
    let own = super::author(visit, &id).0;
    let read = move |view: &View<'_>| {
        Ok::<_, StoreError>(conversation(&record::all_of(view, "Communication", &id)?, &id, zone))
    };
    let told = web.store().view(&visit.actor, read).await?;
    Ok(layout::portal(
        web,
        visit,
        Portal::Messages,
        "Messages",
        &html! {
            div.head { h1 { "Messages" } }
            (problems.summary())
            (shown(&told, zone, (&own, "You"), ("/messages", newer)))
            @if told.is_empty() { p.empty { "No messages yet." } }
            form.sheet method="post" action="/messages" { (layout::csrf(visit))
                (area("Your message", "text", typed, 5, problems))
                p.actions { button.primary type="submit" { "Send" } }
                p.hint { "Not for emergencies: somebody reads it on the next working day." }
            }
        },
    ))
}

async fn send(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let words = form.raw("text").trim().to_owned();
    let mut problems = Problems::default();
    if words.is_empty() || words.chars().count() > TEXT_CHARS_MAX {
        problems.add("text", "Please write up to 5000 characters.");
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, (form.raw("text"), &problems), 0).await?)
            .into_response());
    }
    let (id, now, now_s, zone) = (patient(&visit)?, web.now_fhir(), web.now(), web.settings().zone);
    let author = super::author(&visit, &id);
    // A patient's own name says no more than that it is the patient.
    let display = if visit.whom.is_some() { author.1.clone() } else { "Patient".to_owned() };
    let store = move |tx: &mut Tx<'_>| {
        let a_day_ago = crate::clock::instant((now_s - 86_400) * 1000);
        let query = Query::parse("Communication", &[("sent".to_owned(), format!("gt{a_day_ago}"))])?.of_patient(&id);
        let of_today = super::super::chart::jsons(&tx.search(&query)?.resources)?;
        if conversation(&of_today, &id, zone).iter().filter(|told| told.own).count() >= DAILY_MAX {
            return Ok(false);
        }
        let reference = format!("Patient/{id}");
        let message = json!({
            "resourceType": "Communication", "status": "completed", "subject": {"reference": reference},
            "sender": {"reference": author.0, "display": display}, "sent": now, "payload": [{"contentString": words}],
        });
        let stored = tx.create("Communication", message)?;
        let focus = format!("Communication/{}", stored.id);
        tx.create("Task", task(&id, "A patient wrote a message", Role::FrontDesk, &focus, (&author, &now)))?;
        Ok::<_, StoreError>(true)
    };
    if !web.store().write(&visit.actor, store).await? {
        problems.add("", "These are very many messages for one day. Please call us.");
        return Ok((StatusCode::TOO_MANY_REQUESTS, show(&web, &visit, (form.raw("text"), &problems), 0).await?)
            .into_response());
    }
    Ok(redirect("/messages"))
}
