//! The day's appointments, booking, and what becomes of an appointment.
//!
//! Double booking is refused inside the write transaction that stores the appointment: all writes pass one writer, so
//! that of two bookings of the same time exactly one succeeds.

use super::fields::{self, Field, Problems};
use super::form::{Form, FormError, percent_encode};
use super::gate::{UrlQuery, Visit};
use super::layout::{self, Section};
use super::login::redirect;
use super::reading::{PatientFacts, code, concept, list, reference_id, text, version};
use super::{Method, PageError, Policy, Route, Target, Web, chart, dates, patients};
use crate::access::{Action, Object, authorize};
use crate::store::{Expect, Query, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Duration, NaiveDate, NaiveTime, Utc};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The longest appointment, and so how far back an overlap can begin.
const MINUTES_MAX: i64 = 8 * 60;
const LENGTHS: [i64; 8] = [10, 15, 20, 30, 45, 60, 90, 120];
/// Stored status and its word, in the order of a visit.
const STATES: [(&str, &str); 6] = [
    ("booked", "Booked"),
    ("arrived", "Arrived"),
    ("fulfilled", "Done"),
    ("cancelled", "Cancelled"),
    ("noshow", "Did not come"),
    ("entered-in-error", "Entered in error"),
];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    vec![
        Route::new(Method::Get, "/schedule", may(Action::Search), day_page, w()),
        Route::new(Method::Get, "/schedule/book", may(Action::Create), booking_page, w()),
        Route::new(Method::Post, "/schedule/book", may(Action::Create), book, w()),
        Route::new(Method::Get, "/schedule/taken", may(Action::Search), taken_page, w()),
        Route::new(Method::Post, "/schedule/{appointment}", may(Action::Update), set_state, w()),
    ]
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
    start: NaiveTime,
    minutes: i64,
    patient: Option<PatientFacts>,
    practitioner: String,
}

struct Day {
    lines: Vec<Line>,
    /// Practitioners of the practice: id and name, by name.
    practitioners: Vec<(String, String)>,
}

fn participant<'a>(appointment: &'a Value, kind: &str) -> Option<&'a str> {
    list(appointment, "participant").iter().find_map(|p| reference_id(p, "/actor/reference", kind))
}

/// Whether an appointment takes up its time.
fn takes_time(appointment: &Value) -> bool {
    !matches!(code(appointment, "status"), "cancelled" | "noshow" | "entered-in-error" | "waitlist" | "proposed")
}

fn span(appointment: &Value) -> Option<(i64, i64)> {
    let start = dates::unix_s(text(appointment, "/start"))?;
    let minutes = appointment.get("minutesDuration").and_then(Value::as_i64).unwrap_or(0);
    let end = dates::unix_s(text(appointment, "/end")).unwrap_or(start + minutes * 60);
    Some((start, end.max(start)))
}

fn practitioner_name(practitioner: &Value) -> String {
    let facts = PatientFacts::read(practitioner);
    let prefix = text(practitioner, "/name/0/prefix/0");
    [prefix, &facts.given, &facts.family].into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join(" ")
}

fn practitioners(view: &View<'_>) -> Result<Vec<(String, String)>, StoreError> {
    let found = view.search(&Query::all("Practitioner")?.limit(500))?;
    let mut all: Vec<(String, String)> = chart::jsons(&found.resources)?
        .iter()
        .filter(|p| p.get("active") != Some(&Value::Bool(false)))
        .map(|p| (text(p, "/id").to_owned(), practitioner_name(p)))
        .collect();
    all.sort_by_key(|(_, name)| name.to_lowercase());
    Ok(all)
}

fn read_day(view: &View<'_>, day: NaiveDate, zone: chrono_tz::Tz) -> Result<Day, StoreError> {
    let from = dates::day_start(day, zone).timestamp_millis();
    let until = dates::day_start(dates::day_after(day), zone).timestamp_millis();
    let appointments = chart::jsons(&view.appointments_between(from, until)?)?;
    let mut patients: BTreeMap<String, PatientFacts> = BTreeMap::new();
    for ids in patients::named_in(&appointments).chunks(50) {
        let query = Query::parse("Patient", &[("_id".to_owned(), ids.join(","))])?.limit(50);
        for patient in chart::jsons(&view.search(&query)?.resources)? {
            patients.insert(text(&patient, "/id").to_owned(), PatientFacts::read(&patient));
        }
    }
    let practitioners = practitioners(view)?;
    let line = |appointment: Value| {
        let (start, end) = span(&appointment)?;
        let practitioner = participant(&appointment, "Practitioner").unwrap_or("").to_owned();
        Some(Line {
            start: dates::clock_time(text(&appointment, "/start"), zone)?,
            minutes: (end - start) / 60,
            patient: participant(&appointment, "Patient").and_then(|id| patients.get(id).cloned()),
            practitioner,
            appointment,
        })
    };
    Ok(Day { lines: appointments.into_iter().filter_map(line).collect(), practitioners })
}

async fn day_page(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<DayQuery>,
) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let today = dates::today(web.now(), zone);
    let day = dates::parse_day(&asked.day).unwrap_or(today);
    let read = move |view: &View<'_>| read_day(view, day, zone);
    let found = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let list = show_day(&web, &visit, &found, day, &asked.practitioner);
    if visit.fragment {
        return Ok(list);
    }
    Ok(layout::page(&web, &visit, Section::Schedule, "Schedule", None, &html! { div #day { (list) } }))
}

fn show_day(web: &Web, visit: &Visit, found: &Day, day: NaiveDate, practitioner: &str) -> Markup {
    let today = dates::today(web.now(), web.settings().zone);
    let may = |action| authorize(&visit.actor, action, Object::resource("Appointment")).is_ok();
    let href = |day: NaiveDate| format!("/schedule?day={day}&practitioner={}", percent_encode(practitioner));
    let step = |day: NaiveDate, label: &str, current: bool| {
        let current = current.then_some("date");
        html! {
            a.button href=(href(day)) hx-get=(href(day)) hx-target="#day" hx-push-url="true" aria-current=[current] { (label) }
        }
    };
    let lines: Vec<&Line> =
        found.lines.iter().filter(|l| practitioner.is_empty() || l.practitioner == practitioner).collect();
    let busy = lines.iter().filter(|l| takes_time(&l.appointment)).count();
    // Only those who have appointments this day, and the chosen one: a list of all would be long.
    let working = found
        .practitioners
        .iter()
        .filter(|(id, _)| id == practitioner || found.lines.iter().any(|l| &l.practitioner == id));
    html! {
        div.head {
            h1 { (dates::week_day(day)) @if day == today { " " span.tag.calm { "Today" } } }
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
                    @for (id, name) in working { option value=(id) selected[id == practitioner] { (name) } }
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
                (layout::columns(&["Time", "Patient", "Reason", "Practitioner", "State"]))
                tbody { @for line in lines { (show_line(web, visit, found, line, day, may(Action::Update))) } }
            }
        }
    }
}

fn show_line(web: &Web, visit: &Visit, found: &Day, line: &Line, day: NaiveDate, may_change: bool) -> Markup {
    let today = dates::today(web.now(), web.settings().zone);
    let appointment = &line.appointment;
    let state = code(appointment, "status");
    let word = STATES.iter().find(|(key, _)| *key == state).map_or(state, |(_, word)| word);
    let name = found.practitioners.iter().find(|(id, _)| *id == line.practitioner).map_or("", |(_, name)| name);
    let reason = [
        text(appointment, "/description"),
        concept(appointment.pointer("/reasonCode/0")),
        concept(appointment.pointer("/serviceType/0")),
    ];
    let whose = participant(appointment, "Patient").unwrap_or("");
    let button = |to: &str, label: &str| html! { button.small type="submit" name="to" value=(to) { (label) } };
    html! {
        tr.past[!takes_time(appointment)] {
            td.time { b { (line.start.format("%H:%M")) } span.soft { " " (line.minutes) " min" } }
            th scope="row" {
                @match &line.patient {
                    Some(patient) => { a href={ "/patients/" (patient.id) } { (patient.full_name()) }
                        @if let Some(birth) = patient.birth { span.soft.unbroken { " " (dates::age(birth, today)) } } },
                    None => span.soft { "no patient" },
                }
            }
            td { (reason.into_iter().find(|r| !r.is_empty()).unwrap_or("")) }
            td { (name) }
            td { div.state {
                span.tag.calm[state == "arrived"] { (word) }
                @if may_change && matches!(state, "booked" | "pending" | "arrived" | "checked-in") {
                    form.inline method="post" action={ "/schedule/" (text(appointment, "/id")) } {
                        (layout::csrf(visit))
                        (chart::form_identity(whose, &version(appointment).to_string()))
                        input type="hidden" name="day" value=(day);
                        @if matches!(state, "booked" | "pending") {
                            (button("arrived", "Arrived"))
                            (button("cancelled", "Cancel"))
                            (button("noshow", "Did not come"))
                        } @else { (button("fulfilled", "Done")) }
                    }
                }
            } }
        }
    }
}

#[derive(Deserialize, Default)]
struct BookingQuery {
    #[serde(default)]
    patient: String,
    #[serde(default)]
    day: String,
    #[serde(default)]
    practitioner: String,
    #[serde(default)]
    q: String,
}

async fn booking_page(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<BookingQuery>,
) -> Result<Markup, PageError> {
    if asked.patient.is_empty() {
        return choose_patient(&web, &visit, &asked).await;
    }
    let today = dates::today(web.now(), web.settings().zone);
    let day = dates::parse_day(&asked.day).unwrap_or(today);
    let own = visit.session.as_ref().and_then(|s| s.practitioner.clone()).unwrap_or_default();
    let practitioner = if asked.practitioner.is_empty() { own } else { asked.practitioner };
    let fields =
        [("day", day.to_string()), ("practitioner", practitioner), ("minutes", "30".into()), ("time", String::new())];
    let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v)));
    booking_form(&web, &visit, &asked.patient, &form, &Problems::default()).await
}

/// First step of a booking: for whom.
async fn choose_patient(web: &Web, visit: &Visit, asked: &BookingQuery) -> Result<Markup, PageError> {
    let typed: String = asked.q.chars().take(100).collect();
    let found = if typed.trim().is_empty() { Vec::new() } else { patients::find(web, visit, &typed, 20).await? };
    let day = percent_encode(&asked.day);
    let may_register = authorize(&visit.actor, Action::Create, Object::resource("Patient")).is_ok();
    let choices = html! {
        @if !typed.trim().is_empty() && found.is_empty() { p.empty { "Nobody found." } }
        ul.rows.choices {
            @for patient in &found {
                li { span.what {
                    a href={ "/schedule/book?patient=" (patient.id) "&day=" (day) } { (patient.full_name()) }
                    @if let Some(birth) = patient.birth { span.soft { " · born " (dates::long_day(birth)) } }
                    span.soft { " · no. " (patient.short_number()) }
                } }
            }
        }
    };
    if visit.fragment {
        return Ok(choices);
    }
    Ok(layout::page(
        web,
        visit,
        Section::Schedule,
        "Book an appointment",
        None,
        &html! {
            div.head { h1 { "Book an appointment" }
                @if may_register { a.button href="/patients/new" { "Register a new patient" } }
            }
            form.search role="search" method="get" action="/schedule/book" {
                input type="hidden" name="day" value=(asked.day);
                label for="q" { "For whom?" }
                div.row {
                    input #q type="search" name="q" value=(typed) autofocus autocomplete="off" spellcheck="false"
                        maxlength="100"
                        hx-get="/schedule/book" hx-include="closest form" hx-trigger="input changed delay:200ms, search"
                        hx-target="#choices" hx-sync="this:replace";
                    button type="submit" { "Search" }
                }
                p.hint { "Name, birth date (1960-05-06) or record number." }
            }
            div #choices aria-live="polite" { (choices) }
        },
    ))
}

async fn booking_form(
    web: &Web,
    visit: &Visit,
    patient: &str,
    form: &Form,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let day = dates::parse_day(form.text("day")).unwrap_or_else(|| dates::today(web.now(), zone));
    let (site, id) = (web.clone(), patient.to_owned());
    let read =
        move |view: &View<'_>| Ok::<_, StoreError>((chart::banner_in(&site, view, &id)?, read_day(view, day, zone)?));
    let ((banner, facts), found) = web.store().view(&visit.actor, read).await?;
    let practitioner = form.text("practitioner");
    let lengths: Vec<(String, String)> = LENGTHS.iter().map(|m| (m.to_string(), format!("{m} minutes"))).collect();
    let taken = taken(&found, practitioner, day);
    Ok(layout::page(
        web,
        visit,
        Section::Schedule,
        "Book an appointment",
        Some(&banner),
        &html! {
            div.head { h1 { "Book an appointment" } }
            (problems.summary())
            div.sides {
                form.sheet method="post" action="/schedule/book" {
                    (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                    (fields::select("Practitioner", "practitioner", practitioner, &found.practitioners, true, problems))
                    div.columns.narrow {
                        (Field::new("Day", "day", form.text("day")).kind("date").required().show(problems))
                        (Field::new("Time", "time", form.text("time")).kind("time").required().show(problems))
                        (fields::select("Length", "minutes", form.text("minutes"), &lengths, true, problems))
                    }
                    (Field::new("Reason", "reason", form.text("reason"))
                        .hint("For example: Blood pressure check").show(problems))
                    (layout::save_or_cancel("Book", &format!("/schedule?day={}", day)))
                }
                // Asked for again when practitioner or day change.
                aside.panel aria-live="polite" hx-get="/schedule/taken" hx-include="#practitioner, #day"
                    hx-trigger="change from:#practitioner, change from:#day" { (taken) }
            }
        },
    ))
}

async fn taken_page(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<DayQuery>,
) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let day = dates::parse_day(&asked.day).unwrap_or_else(|| dates::today(web.now(), zone));
    let read = move |view: &View<'_>| read_day(view, day, zone);
    let found = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    Ok(taken(&found, &asked.practitioner, day))
}

/// The times of a practitioner's day that are taken.
fn taken(found: &Day, practitioner: &str, day: NaiveDate) -> Markup {
    let name = found.practitioners.iter().find(|(id, _)| id == practitioner).map(|(_, name)| name.as_str());
    let lines = || found.lines.iter().filter(|l| l.practitioner == practitioner && takes_time(&l.appointment));
    html! {
        h2 { @match name { Some(name) => { "Taken: " (name) ", " (dates::long_day(day)) }, None => "Taken times" } }
        @if name.is_none() { p.empty { "Choose a practitioner to see which times are taken." } }
        @else if lines().next().is_none() { p.empty { "Nothing is booked on this day yet." } }
        @else {
            ul.rows {
                @for line in lines() { li { (line.start.format("%H:%M")) " – " (end_of(line).format("%H:%M")) } }
            }
        }
    }
}

fn end_of(line: &Line) -> NaiveTime {
    line.start.overflowing_add_signed(Duration::minutes(line.minutes)).0
}

/// What was asked for, checked.
struct Wish {
    patient: String,
    practitioner: String,
    start: DateTime<Utc>,
    minutes: i64,
    reason: String,
}

fn check(web: &Web, form: &Form) -> Result<Wish, Problems> {
    let zone = web.settings().zone;
    let mut problems = Problems::default();
    let day = dates::parse_day(form.text("day"));
    let time = dates::parse_time(form.text("time"));
    let minutes = form.text("minutes").parse().ok().filter(|m| LENGTHS.contains(m));
    if form.text("practitioner").is_empty() {
        problems.add("practitioner", "Please choose a practitioner.");
    }
    if day.is_none() {
        problems.add("day", "Please enter the day as year-month-day.");
    }
    if time.is_none() {
        problems.add("time", "Please enter the time, for example 14:30.");
    }
    if minutes.is_none() {
        problems.add("minutes", "Please choose a length.");
    }
    if form.text("reason").chars().count() > 300 {
        problems.add("reason", "Please shorten this to 300 characters.");
    }
    let start = day.zip(time).and_then(|(day, time)| dates::instant(day, time, zone));
    if day.is_some() && time.is_some() && start.is_none() {
        problems.add("time", "This time does not exist on this day: the clocks are put forward.");
    }
    if start.is_some_and(|at| at.timestamp() < web.now() - 86_400) {
        problems.add("day", "This day is in the past.");
    }
    match (start, minutes) {
        (Some(start), Some(minutes)) if problems.is_empty() => Ok(Wish {
            patient: form.text("patient").to_owned(),
            practitioner: form.text("practitioner").to_owned(),
            start,
            minutes,
            reason: form.text("reason").to_owned(),
        }),
        _ => Err(problems),
    }
}

/// Who is busy at the wished time.
enum Clash {
    Practitioner(i64, i64),
    Patient(i64, i64),
}

async fn book(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let patient = form.text("patient").to_owned();
    if patient.is_empty() {
        return Err(PageError::WrongPatient);
    }
    let zone = web.settings().zone;
    let wish = match check(&web, &form) {
        Ok(wish) => wish,
        Err(problems) => {
            let page = booking_form(&web, &visit, &patient, &form, &problems).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    };
    let day = dates::local(wish.start.timestamp(), zone).date_naive();
    let store = move |tx: &mut Tx<'_>| store_booking(tx, &wish);
    let clash = web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    let Some(clash) = clash else { return Ok(redirect(&format!("/schedule?day={day}"))) };
    let mut problems = Problems::default();
    let at = |s: i64| dates::local(s, zone).format("%H:%M").to_string();
    match clash {
        Clash::Practitioner(from, to) => {
            problems
                .add("time", format!("Taken: this practitioner has an appointment from {} to {}.", at(from), at(to)));
        }
        Clash::Patient(from, to) => {
            problems.add("time", format!("This patient has another appointment from {} to {}.", at(from), at(to)));
        }
    }
    let page = booking_form(&web, &visit, &patient, &form, &problems).await?;
    Ok((StatusCode::CONFLICT, page).into_response())
}

fn accepted(reference: String, display: &str) -> Value {
    json!({"actor": {"reference": reference, "display": display}, "status": "accepted"})
}

/// Stores the appointment unless practitioner or patient are busy.
fn store_booking(tx: &mut Tx<'_>, wish: &Wish) -> Result<Option<Clash>, StoreError> {
    let start = wish.start.timestamp();
    let end = start + wish.minutes * 60;
    for other in tx.appointments_between((start - MINUTES_MAX * 60) * 1000, end * 1000)? {
        let other = other.json()?;
        let Some((from, to)) = span(&other).filter(|(from, to)| *from < end && *to > start) else { continue };
        if !takes_time(&other) {
            continue;
        }
        if participant(&other, "Practitioner") == Some(&wish.practitioner) {
            return Ok(Some(Clash::Practitioner(from, to)));
        }
        if participant(&other, "Patient") == Some(&wish.patient) {
            return Ok(Some(Clash::Patient(from, to)));
        }
    }
    let patient = PatientFacts::read(&tx.read("Patient", &wish.patient)?.json()?);
    let practitioner = practitioner_name(&tx.read("Practitioner", &wish.practitioner)?.json()?);
    let mut body = json!({
        "resourceType": "Appointment", "status": "booked",
        "start": dates::to_fhir(wish.start),
        "end": dates::to_fhir(wish.start + Duration::minutes(wish.minutes)),
        "minutesDuration": wish.minutes,
        "participant": [
            accepted(format!("Patient/{}", wish.patient), &patient.full_name()),
            accepted(format!("Practitioner/{}", wish.practitioner), &practitioner),
        ],
    });
    if !wish.reason.is_empty() {
        body["description"] = wish.reason.clone().into();
    }
    tx.create("Appointment", body)?;
    Ok(None)
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
        body["status"] = to.into();
        Ok(tx.update("Appointment", &id, body, Expect::Version(version))?)
    };
    web.store().write(&visit.actor, save).await?;
    let day = dates::parse_day(form.text("day")).map(|d| d.to_string()).unwrap_or_default();
    Ok(redirect(&format!("/schedule?day={day}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cancelled_takes_no_time() {
        for (status, takes) in [("booked", true), ("arrived", true), ("cancelled", false), ("noshow", false)] {
            assert_eq!(takes_time(&json!({"status": status})), takes, "{status}");
        }
    }

    #[test]
    fn the_span_of_an_appointment_needs_no_end() {
        let at = |body: Value| span(&body).map(|(from, to)| to - from);
        assert_eq!(at(json!({"start": "2024-05-06T10:00:00Z", "end": "2024-05-06T10:30:00Z"})), Some(1800));
        assert_eq!(at(json!({"start": "2024-05-06T10:00:00+02:00", "minutesDuration": 20})), Some(1200));
        assert_eq!(at(json!({"start": "2024-05-06T10:00:00Z", "end": "2024-05-06T09:00:00Z"})), Some(0));
        assert_eq!(at(json!({"start": "nonsense"})), None);
    }
}
