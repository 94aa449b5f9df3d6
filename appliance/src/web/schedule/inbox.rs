//! What strangers asked for online: approve or decline. Either way the patient hears of it.

use super::{participant, reason};
use crate::access::Action;
use crate::dates;
use crate::messages::{self, Channel, Message};
use crate::scheduling::book::Book;
use crate::store::{Expect, Query, StoreError, Tx, View};
use crate::web::form::{Form, FormError};
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::online::ONLINE;
use crate::web::paging::Paging;
use crate::web::reading::{PatientFacts, code, list, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, paging};
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

/// Requests on a page.
const LISTED_MAX: usize = 100;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    vec![
        Route::new(Method::Get, "/schedule/inbox", may(Action::Search), page, w()),
        Route::new(Method::Post, "/schedule/inbox/{appointment}", may(Action::Update), decide, w()),
    ]
}

/// Appointments that are asked for, each with its patient.
type Requests = Vec<(Value, Value)>;

/// What waits for an answer, the soonest first, and of it the page that begins with `from`.
fn read(view: &View<'_>, zone: chrono_tz::Tz, from: usize) -> Result<(Book, Requests, Paging), StoreError> {
    let query = Query::parse("Appointment", &[("status".to_owned(), "pending".to_owned())])?;
    let mut pending = chart::jsons(&view.search(&query)?.resources)?;
    pending.retain(|appointment| participant(appointment, "Patient").is_some());
    pending.sort_by_cached_key(|appointment| dates::moment_s(text(appointment, "/start"), zone));
    let (shown, paging) = paging::part(&pending, from, LISTED_MAX);
    let mut all = Vec::new();
    for appointment in shown {
        let Some(id) = participant(appointment, "Patient") else { continue };
        all.push((appointment.clone(), view.read("Patient", view.person(id)?.goes_on())?.json()?));
    }
    Ok((Book::load(view, zone)?, all, paging))
}

#[derive(Deserialize, Default)]
struct Asked {
    /// The first request of the page.
    #[serde(default)]
    from: usize,
}

async fn page(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<Asked>) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let read = move |view: &View<'_>| read(view, zone, asked.from);
    let (book, all, paging) = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let new = |patient: &Value| crate::scheduling::extension(patient, ONLINE, "valueBoolean").is_some();
    Ok(layout::page(
        &web,
        &visit,
        Section::Schedule,
        "Requests",
        None,
        &html! {
            div.head { h1 { "Requests" } a.button href="/schedule" { "Back to the schedule" } }
            p.soft { "Asked for online. The time is kept until you answer; the patient gets a mail either way." }
            @if all.is_empty() { p.empty { "Nothing waits for an answer." } }
            @else { table.list {
                (layout::columns(&["When", "Patient", "For", "With", "Answer"]))
                tbody { @for (appointment, patient) in &all {
                    @let facts = PatientFacts::read(patient);
                    tr {
                        td.time { a href={ "/schedule/" (text(appointment, "/id")) } { (dates::show(text(appointment, "/start"), zone)) } }
                        th scope="row" { a href={ "/patients/" (facts.id) } { (facts.full_name()) }
                            @if new(patient) { " " span.tag.warn { "new, not checked" } }
                            br; span.soft { @if let Some(birth) = facts.birth { "born " (dates::long_day(birth)) ", " } (facts.phone) } }
                        td { (reason(appointment)) }
                        td { (names(&book, appointment)) }
                        td { form.inline method="post" action={ "/schedule/inbox/" (text(appointment, "/id")) } {
                            (layout::csrf(&visit)) (chart::form_identity(participant(appointment, "Patient").unwrap_or(""), &version(appointment).to_string()))
                            button.small.primary type="submit" name="answer" value="booked" { "Approve" }
                            button.small type="submit" name="answer" value="cancelled" { "Decline" }
                        } }
                    }
                } }
            } }
            (paging.links(|from| format!("/schedule/inbox?from={from}")))
        },
    ))
}

fn names(book: &Book, appointment: &Value) -> String {
    let references = list(appointment, "participant").iter().map(|p| text(p, "/actor/reference"));
    references.filter_map(|r| Some(book.calendar(r)?.name.as_str())).collect::<Vec<_>>().join(", ")
}

async fn decide(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let version = form.text("version").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let answer = form.text("answer").to_owned();
    if !matches!(answer.as_str(), "booked" | "cancelled") {
        return Err(PageError::Form(FormError::Malformed));
    }
    let (patient, zone, practice) =
        (form.text("patient").to_owned(), web.settings().zone, web.settings().practice_name.clone());
    let store = move |tx: &mut Tx<'_>| {
        let mut body = tx.read("Appointment", &id)?.json()?;
        if participant(&body, "Patient") != Some(&patient) {
            return Err(PageError::WrongPatient);
        }
        if code(&body, "status") != "pending" {
            return Err(StoreError::invalid("this request was answered already", "Appointment.status").into());
        }
        body["status"] = answer.as_str().into();
        let stored = tx.update("Appointment", &id, body, Expect::Version(version))?.json()?;
        tell(tx, &stored, &patient, zone, &practice)?;
        Ok::<_, PageError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/schedule/inbox"))
}

/// Queues the answer to a request for the patient who has a mail address.
pub fn tell(
    tx: &mut Tx<'_>,
    appointment: &Value,
    patient: &str,
    zone: chrono_tz::Tz,
    practice: &str,
) -> Result<(), StoreError> {
    let email = PatientFacts::read(&tx.read("Patient", patient)?.json()?).email;
    if email.is_empty() {
        return Ok(());
    }
    let when = dates::show(text(appointment, "/start"), zone);
    let text = if code(appointment, "status") == "booked" {
        format!("Your appointment is confirmed: {when}, {practice}.\n")
    } else {
        format!(
            "Unfortunately we cannot offer you the appointment on {when}. Please choose another time, or call us.\n\n{practice}\n"
        )
    };
    let message = Message { to: email, subject: format!("{practice}: your request"), text };
    messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())
}
