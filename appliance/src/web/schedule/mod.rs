//! The calendar: the day's list, the grids, booking, and what becomes of an appointment.

mod appointment;
mod book;
mod feed;
mod grid;
mod hours;
mod inbox;
mod visits;
mod waiting;

#[cfg(test)]
mod tests;

use super::form::{Form, FormError, percent_encode};
use super::gate::{UrlQuery, Visit};
use super::layout::{self, Section};
use super::login::redirect;
use super::reading::{PatientFacts, code, concept, list, reference_id, text, version};
use super::{Method, PageError, Policy, Route, Target, Web, chart, patients};
use crate::access::{Action, Object, authorize};
use crate::dates;
use crate::scheduling::book::{Book, Kind};
use crate::scheduling::occupancy::{span, takes_time};
use crate::store::{Expect, Query, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::Response;
use chrono::{NaiveDate, NaiveTime};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Stored status and its word, in the order of a visit.
const STATES: [(&str, &str); 9] = [
    ("waitlist", "Waiting for a time"),
    ("pending", "Requested"),
    ("booked", "Booked"),
    ("arrived", "Arrived"),
    ("checked-in", "Checked in"),
    ("fulfilled", "Done"),
    ("cancelled", "Cancelled"),
    ("noshow", "Did not come"),
    ("entered-in-error", "Entered in error"),
];

pub use grid::style as grid_style;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    let own = vec![
        Route::new(Method::Get, "/schedule", may(Action::Search), day_page, w()),
        Route::new(Method::Post, "/schedule/{appointment}", may(Action::Update), set_state, w()),
    ];
    [
        own,
        book::routes(web),
        grid::routes(web),
        appointment::routes(web),
        hours::routes(web),
        visits::routes(web),
        waiting::routes(web),
        inbox::routes(web),
        feed::routes(web),
    ]
    .concat()
}

#[derive(Deserialize, Default)]
struct DayQuery {
    #[serde(default)]
    day: String,
    #[serde(default)]
    practitioner: String,
}

/// One line of the day.
struct Line {
    appointment: Value,
    day: NaiveDate,
    start: NaiveTime,
    minutes: i64,
    patient: Option<PatientFacts>,
    /// Who sees the patient, and rooms and equipment, as references.
    actors: Vec<String>,
}

impl Line {
    /// The names of those of a kind who take part.
    fn names(&self, book: &Book, kinds: &[Kind]) -> String {
        let taking_part = self.actors.iter().filter_map(|a| book.calendar(a)).filter(|c| kinds.contains(&c.kind));
        taking_part.map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
    }
}

/// Appointments between two days, and the calendars.
struct Days {
    lines: Vec<Line>,
    book: Book,
}

fn participant<'a>(appointment: &'a Value, kind: &str) -> Option<&'a str> {
    list(appointment, "participant").iter().find_map(|p| reference_id(p, "/actor/reference", kind))
}

/// `Practitioner/...` of what a form or an address says; older links say the id alone.
fn actor_of(said: &str) -> String {
    if said.is_empty() || said.contains('/') { said.to_owned() } else { format!("Practitioner/{said}") }
}

fn word(state: &str) -> &str {
    STATES.iter().find(|(key, _)| *key == state).map_or(state, |(_, word)| word)
}

/// What an appointment is for: its own words first.
fn reason(appointment: &Value) -> &str {
    let own = text(appointment, "/description");
    let coded = [concept(appointment.pointer("/reasonCode/0")), concept(appointment.pointer("/serviceType/0"))];
    [own, coded[0], coded[1]].into_iter().find(|r| !r.is_empty()).unwrap_or("")
}

/// The appointments of some days: everybody's, or those in which `whose` takes part. Others are neither parsed nor their
/// patients read: a week of one practitioner is a small part of the practice's.
fn read_days(
    view: &View<'_>,
    (first, last): (NaiveDate, NaiveDate),
    book: Book,
    whose: Option<&str>,
) -> Result<Days, StoreError> {
    let zone = book.zone;
    let from = dates::day_start(first, zone).timestamp_millis();
    let until = dates::day_start(dates::day_after(last), zone).timestamp_millis();
    let mut stored = view.appointments_between(from, until)?;
    if let Some(actor) = whose {
        // Bodies are canonical JSON, which holds a reference as it is.
        stored.retain(|appointment| appointment.body.contains(actor));
    }
    let appointments = chart::jsons(&stored)?;
    // A time that was booked in a record which was closed since leads to the one that goes on.
    let mut goes_on: BTreeMap<String, String> = BTreeMap::new();
    for id in patients::named_in(&appointments) {
        match view.person(&id) {
            Ok(person) => drop(goes_on.insert(id, person.goes_on().to_owned())),
            Err(StoreError::NotFound) => {}
            Err(error) => return Err(error),
        }
    }
    let named: Vec<&str> = goes_on.values().map(String::as_str).collect();
    let mut patients: BTreeMap<String, PatientFacts> = BTreeMap::new();
    for ids in named.chunks(30) {
        let query = Query::parse("Patient", &[("_id".to_owned(), ids.join(","))])?;
        for patient in chart::jsons(&view.search(&query)?.resources)? {
            patients.insert(text(&patient, "/id").to_owned(), PatientFacts::read(&patient));
        }
    }
    let patient_of = |appointment: &Value| patients.get(goes_on.get(participant(appointment, "Patient")?)?).cloned();
    let line = |appointment: Value| {
        let span = span(&appointment)?;
        let references = list(&appointment, "participant").iter().map(|p| text(p, "/actor/reference").to_owned());
        Some(Line {
            day: dates::local(span.from, zone).date_naive(),
            start: dates::clock_time(text(&appointment, "/start"), zone)?,
            minutes: (span.until - span.from) / 60,
            patient: patient_of(&appointment),
            actors: references.collect(),
            appointment,
        })
    };
    Ok(Days { lines: appointments.into_iter().filter_map(line).collect(), book })
}

async fn day_page(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<DayQuery>,
) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let today = dates::today(web.now(), zone);
    let day = dates::parse_day(&asked.day).unwrap_or(today);
    let read = move |view: &View<'_>| read_days(view, (day, day), Book::load(view, zone)?, None);
    let found = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let list = show_day(&web, &visit, &found, day, &actor_of(&asked.practitioner));
    if visit.fragment {
        return Ok(list);
    }
    Ok(layout::page(&web, &visit, Section::Schedule, "Schedule", None, &html! { div #day { (list) } }))
}

/// The ways to look at the calendar.
fn views(current: &str, day: NaiveDate, practitioner: &str) -> Markup {
    let who = percent_encode(practitioner);
    let all = [
        ("list", "List", format!("/schedule?day={day}&practitioner={who}")),
        ("day", "Day", format!("/schedule/grid?view=day&day={day}")),
        ("week", "Week", format!("/schedule/grid?view=week&day={day}&practitioner={who}")),
        ("rooms", "Rooms", format!("/schedule/grid?view=rooms&day={day}")),
    ];
    html! {
        nav.days aria-label="Views" {
            @for (key, label, href) in all {
                a.button href=(href) aria-current=[(key == current).then_some("page")] { (label) }
            }
        }
    }
}

fn show_day(web: &Web, visit: &Visit, found: &Days, day: NaiveDate, practitioner: &str) -> Markup {
    let today = dates::today(web.now(), web.settings().zone);
    let may = |action| authorize(&visit.actor, action, Object::resource("Appointment")).is_ok();
    let href = |day: NaiveDate| format!("/schedule?day={day}&practitioner={}", percent_encode(practitioner));
    let step = |day: NaiveDate, label: &str, current: bool| {
        let current = current.then_some("date");
        html! {
            a.button href=(href(day)) hx-get=(href(day)) hx-target="#day" hx-push-url="true" aria-current=[current] { (label) }
        }
    };
    let whose = |l: &&Line| practitioner.is_empty() || l.actors.iter().any(|a| a == practitioner);
    let lines: Vec<&Line> = found.lines.iter().filter(whose).collect();
    let busy = lines.iter().filter(|l| takes_time(&l.appointment)).count();
    // Only those who have appointments this day, and the chosen one: a list of all would be long.
    let working = found
        .book
        .of_kind(Kind::Practitioner)
        .filter(|c| c.actor == practitioner || found.lines.iter().any(|l| l.actors.contains(&c.actor)));
    html! {
        div.head {
            h1 { (dates::week_day(day)) @if day == today { " " span.tag.calm { "Today" } } }
            (views("list", day, practitioner))
            @if may(Action::Create) { a.button.primary href={ "/schedule/book?day=" (day) } { "Book an appointment" } }
        }
        div.bar {
            nav.days aria-label="Days" {
                (step(dates::day_before(day), "‹ Previous day", false))
                (step(today, "Today", day == today))
                (step(dates::day_after(day), "Next day ›", false))
            }
            form.inline method="get" action="/schedule" {
                label for="day-input" { "Day" }
                input #day-input type="date" name="day" value=(day);
                label for="who" { "Practitioner" }
                select #who name="practitioner" {
                    option value="" { "Everybody" }
                    @for c in working { option value=(c.actor) selected[c.actor == practitioner] { (c.name) } }
                }
                button type="submit" { "Show" }
            }
        }
        @if lines.is_empty() { p.empty { "No appointments on this day." } }
        @else {
            table.list.day {
                caption.quiet {
                    (busy) @if busy == 1 { " appointment" } @else { " appointments" }
                    " · times in " (web.settings().zone.name())
                }
                (layout::columns(&["Time", "Patient", "Reason", "With", "State"]))
                tbody { @for line in lines { (show_line(web, visit, found, line, day, may(Action::Update))) } }
            }
        }
        p.foot.tools {
            button.small type="button" data-print="" { "Print this list" }
            a.button.small href="/schedule/inbox" { "Requests" }
            a.button.small href="/schedule/waiting" { "Waiting list" }
            a.button.small href="/schedule/hours" { "Hours and holidays" }
            a.button.small href="/schedule/visits" { "Visit types" }
            a.button.small href="/consents" { "Consent texts" }
            a.button.small href="/schedule/feeds" { "Calendar feeds" }
        }
    }
}

fn show_line(web: &Web, visit: &Visit, found: &Days, line: &Line, day: NaiveDate, may_change: bool) -> Markup {
    let today = dates::today(web.now(), web.settings().zone);
    let appointment = &line.appointment;
    let state = code(appointment, "status");
    let whose = participant(appointment, "Patient").unwrap_or("");
    let id = text(appointment, "/id");
    let place = line.names(&found.book, &[Kind::Room, Kind::Equipment]);
    let button = |to: &str, label: &str| html! { button.small type="submit" name="to" value=(to) { (label) } };
    html! {
        tr.past[!takes_time(appointment)] {
            td.time { a href={ "/schedule/" (id) } { b { (line.start.format("%H:%M")) } } span.soft { " " (line.minutes) " min" } }
            th scope="row" {
                @match &line.patient {
                    Some(patient) => { a href={ "/patients/" (patient.id) } { (patient.full_name()) }
                        @if let Some(birth) = patient.birth {
                            span.soft.unbroken { " " (dates::age(birth, today)) }
                            span.print-only { ", born " (dates::long_day(birth)) }
                        }
                        span.print-only { @if !patient.phone.is_empty() { br; (patient.phone) } } },
                    None => span.soft { "no patient" },
                }
            }
            td { (reason(appointment)) }
            td { (line.names(&found.book, &[Kind::Practitioner])) @if !place.is_empty() { br; span.soft { (place) } } }
            td { div.state {
                span.tag.calm[state == "arrived"].warn[state == "pending"] { (word(state)) }
                @if may_change && matches!(state, "booked" | "pending" | "arrived" | "checked-in") {
                    form.inline method="post" action={ "/schedule/" (id) } {
                        (layout::csrf(visit))
                        (chart::form_identity(whose, &version(appointment).to_string()))
                        input type="hidden" name="day" value=(day);
                        @match state {
                            "pending" => { (button("booked", "Approve")) (button("cancelled", "Decline")) }
                            "booked" => {
                                (button("arrived", "Arrived")) (button("cancelled", "Cancel")) (button("noshow", "Did not come"))
                            }
                            _ => { (button("fulfilled", "Done")) }
                        }
                    }
                }
            } }
        }
    }
}

async fn set_state(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let version = form.text("version").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let to = form.text("to").to_owned();
    if !STATES.iter().any(|(key, _)| *key == to) {
        return Err(PageError::Form(FormError::Malformed));
    }
    let patient = form.text("patient").to_owned();
    let (zone, practice) = (web.settings().zone, web.settings().practice_name.clone());
    let save = move |tx: &mut Tx<'_>| {
        let mut body = tx.read("Appointment", &id)?.json()?;
        if participant(&body, "Patient").unwrap_or("") != patient {
            return Err(PageError::WrongPatient);
        }
        if matches!(code(&body, "status"), "cancelled" | "noshow" | "entered-in-error") {
            // Its time may have been given to somebody else.
            return Err(PageError::Store(StoreError::invalid(
                "this appointment is over; book a new one",
                "Appointment.status",
            )));
        }
        let asked = code(&body, "status") == "pending";
        body["status"] = to.into();
        let stored = tx.update("Appointment", &id, body, Expect::Version(version))?;
        if asked {
            inbox::tell(tx, &stored.json()?, &patient, zone, &practice)?;
        }
        Ok(stored)
    };
    web.store().write(&visit.actor, save).await?;
    let day = dates::parse_day(form.text("day")).map(|d| d.to_string()).unwrap_or_default();
    Ok(redirect(&format!("/schedule?day={day}")))
}
