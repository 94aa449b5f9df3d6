//! One appointment: what is known of it, moving it, cancelling it or the rest of its series.

use super::book::{options, refusal_words};
use super::{actor_of, participant, reason, word};
use crate::access::{Action, Object, authorize};
use crate::dates;
use crate::scheduling::book::{Book, Kind};
use crate::scheduling::booking::{self, Move, Refusal};
use crate::scheduling::occupancy::{self, takes_time};
use crate::scheduling::slots::Span;
use crate::scheduling::{OVERRIDE, SERIES, extension};
use crate::store::{Query, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems};
use crate::web::form::{Form, FormError};
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::merge::Merge;
use crate::web::reading::{code, list, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    vec![
        Route::new(Method::Get, "/schedule/{appointment}", may(Action::Read), show, w()),
        Route::new(Method::Post, "/schedule/{appointment}/move", may(Action::Update), reschedule, w()),
        Route::new(Method::Post, "/schedule/{appointment}/cancel", may(Action::Update), cancel, w()),
    ]
}

/// Where somebody tried to drag it.
#[derive(Deserialize, Default, Clone)]
struct Tried {
    #[serde(default)]
    day: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    with: String,
}

async fn show(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    UrlQuery(tried): UrlQuery<Tried>,
) -> Result<Markup, PageError> {
    let mut problems = Problems::default();
    if !tried.time.is_empty() {
        problems
            .add("time", "It could not be moved there. Choose another time, or give a reason to book all the same.");
    }
    let fields = [("day", tried.day), ("time", tried.time), ("with", tried.with)];
    let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v)));
    page(&web, &visit, &id, &form, &problems).await
}

async fn page(web: &Web, visit: &Visit, id: &str, form: &Form, problems: &Problems) -> Result<Markup, PageError> {
    let (zone, site, id) = (web.settings().zone, web.clone(), id.to_owned());
    let read = move |view: &View<'_>| {
        let appointment = view.read("Appointment", &id)?.json()?;
        let banner = banner(&site, view, &appointment)?;
        Ok::<_, StoreError>((Book::load(view, zone)?, banner, appointment))
    };
    let (book, banner, appointment) = web.store().view(&visit.actor, read).await?;
    let may_change = authorize(&visit.actor, Action::Update, Object::resource("Appointment")).is_ok();
    let ahead = matches!(code(&appointment, "status"), "booked" | "pending");
    Ok(layout::page(
        web,
        visit,
        Section::Schedule,
        "Appointment",
        banner.as_ref(),
        &html! {
            div.head { h1 { "Appointment" } span.tag.calm[takes_time(&appointment)] { (word(code(&appointment, "status"))) } }
            (problems.summary())
            div.grid {
                (details(&book, &appointment))
                @if may_change && ahead { (move_form(visit, &book, &appointment, form, problems)) (cancel_form(visit, &appointment)) }
            }
        },
    ))
}

/// The banner of the patient: of the record that goes on, where it was booked in one that was closed since.
fn banner(web: &Web, view: &View<'_>, appointment: &Value) -> Result<Option<Markup>, StoreError> {
    let Some(patient) = participant(appointment, "Patient") else { return Ok(None) };
    Ok(Some(chart::banner_in(web, view, view.person(patient)?.goes_on())?.0))
}

fn details(book: &Book, appointment: &Value) -> Markup {
    let names: Vec<&str> = list(appointment, "participant")
        .iter()
        .filter(|p| !text(p, "/actor/reference").starts_with("Patient/"))
        .map(|p| {
            let display = text(p, "/actor/display");
            book.calendar(text(p, "/actor/reference")).map_or(display, |c| c.name.as_str())
        })
        .filter(|name| !name.is_empty())
        .collect();
    let start = text(appointment, "/start");
    let day = dates::unix_s(start).map(|at| dates::local(at, book.zone).date_naive());
    let row = |label: &str, value: &Markup| html! { div { dt { (label) } dd { (value) } } };
    let overridden = extension(appointment, OVERRIDE, "valueString").and_then(Value::as_str).unwrap_or_default();
    chart::section(
        "Details",
        None,
        &html! {
            dl.facts {
                @if let Some(day) = day {
                    (row("When", &html! { a href={ "/schedule?day=" (day) } { (dates::week_day(day)) } ", " b { (dates::show(start, book.zone)) } }))
                }
                @if let Some(time) = occupancy::span(appointment).filter(|time| time.from < time.until) {
                    (row("Length", &html! { ((time.until - time.from) / 60) " minutes" }))
                }
                (row("With", &html! { (names.join(", ")) }))
                (row("Reason", &html! { (reason(appointment)) }))
                @if !overridden.is_empty() { (row("Booked all the same", &html! { (overridden) })) }
                @if extension(appointment, SERIES, "valueString").is_some() { (row("Series", &html! { "one of several" })) }
                @let cancelled = text(appointment, "/cancelationReason/text");
                @if !cancelled.is_empty() { (row("Cancelled because", &html! { (cancelled) })) }
            }
        },
    )
}

/// The practitioner, as a reference.
fn with(appointment: &Value) -> String {
    participant(appointment, "Practitioner").map(actor_of).unwrap_or_default()
}

fn move_form(visit: &Visit, book: &Book, appointment: &Value, form: &Form, problems: &Problems) -> Markup {
    let start = dates::unix_s(text(appointment, "/start")).unwrap_or(0);
    let local = dates::local(start, book.zone);
    let or =
        |name: &str, otherwise: String| if form.text(name).is_empty() { otherwise } else { form.text(name).to_owned() };
    let (day, time) = (or("day", local.date_naive().to_string()), or("time", local.format("%H:%M").to_string()));
    let who = with(appointment);
    let practitioner = or("with", who.clone());
    chart::section(
        "Move",
        None,
        &html! {
            form method="post" action={ "/schedule/" (text(appointment, "/id")) "/move" } {
                (layout::csrf(visit))
                (chart::form_identity(participant(appointment, "Patient").unwrap_or(""), &version(appointment).to_string()))
                input type="hidden" name="from" value=(who);
                div.columns.narrow {
                    (Field::new("Day", "day", &day).kind("date").required().show(problems))
                    (Field::new("Time", "time", &time).kind("time").required().show(problems))
                }
                (fields::select("Practitioner", "with", &practitioner, &options(book, Kind::Practitioner), true, problems))
                (Field::new("Book all the same, because", "all_the_same", form.text("all_the_same"))
                    .hint("Only where the calendar refuses: the reason is kept and audited.").show(problems))
                p.actions { button.primary type="submit" { "Move" } }
            }
        },
    )
}

fn cancel_form(visit: &Visit, appointment: &Value) -> Markup {
    chart::section(
        "Cancel",
        None,
        &html! {
            form method="post" action={ "/schedule/" (text(appointment, "/id")) "/cancel" } {
                (layout::csrf(visit))
                (chart::form_identity(participant(appointment, "Patient").unwrap_or(""), &version(appointment).to_string()))
                (Field::new("Reason", "reason", "").show(&Problems::default()))
                @if extension(appointment, SERIES, "valueString").is_some() {
                    label.check { input type="checkbox" name="rest" value="yes"; " This and all later appointments of the series" }
                }
                p.actions { button type="submit" { "Cancel the appointment" } }
            }
        },
    )
}

async fn reschedule(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let zone = web.settings().zone;
    let version: u32 = form.text("version").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let opened = version;
    let patient = form.text("patient").to_owned();
    let mut problems = Problems::default();
    let day = dates::parse_day(form.text("day"));
    let start = day.zip(dates::parse_time(form.text("time"))).and_then(|(day, time)| dates::instant(day, time, zone));
    let Some((day, start)) = day.zip(start) else {
        problems.add("time", "This day or time cannot be read, or does not exist because the clocks change.");
        return again(&web, &visit, &id, &form, &problems).await;
    };
    let (from, to) = (actor_of(form.text("from")), actor_of(form.text("with")));
    let (all_the_same, own) = (form.text("all_the_same").to_owned(), id.clone());
    let store = move |tx: &mut Tx<'_>| {
        let body = tx.read("Appointment", &own)?.json()?;
        if participant(&body, "Patient").unwrap_or("") != patient {
            return Err(PageError::WrongPatient);
        }
        let book = Book::load(tx, zone)?;
        let length = occupancy::span(&body).map_or(0, |s| s.until - s.from);
        let start = start.timestamp();
        let instead = (!to.is_empty() && from != to).then_some((from, to));
        let to = Move { version, span: Span { from: start, until: start + length }, instead, all_the_same };
        Ok(booking::reschedule(tx, &book, &own, &to)?
            .map(drop)
            .map_err(|refusal: Refusal| refusal_words(&book, &refusal)))
    };
    match web.store().write(&visit.actor, store).await {
        Err(PageError::Store(StoreError::VersionConflict { .. })) if !visit.fragment => {
            merge_move(&web, &visit, &id, (&form, opened)).await
        }
        Err(error) => Err(error),
        Ok(Ok(())) if visit.fragment => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Ok(())) => Ok(redirect(&format!("/schedule?day={day}"))),
        Ok(Err(words)) if visit.fragment => Ok((StatusCode::CONFLICT, words).into_response()),
        Ok(Err(words)) => {
            problems.add("time", words);
            again(&web, &visit, &id, &form, &problems).await
        }
    }
}

/// Somebody else moved the appointment meanwhile.
async fn merge_move(web: &Web, visit: &Visit, id: &str, (form, opened): (&Form, u32)) -> Result<Response, PageError> {
    let (zone, site, own) = (web.settings().zone, web.clone(), id.to_owned());
    let read = move |view: &View<'_>| {
        let current = view.read("Appointment", &own)?.json()?;
        let base = view.version("Appointment", &own, opened)?.json()?;
        let banner = banner(&site, view, &current)?;
        Ok::<_, StoreError>((Book::load(view, zone)?, banner, base, current))
    };
    let (book, banner, base, current) = web.store().view(&visit.actor, read).await?;
    let when = |appointment: &Value| {
        let local = dates::local(dates::unix_s(text(appointment, "/start")).unwrap_or(0), zone);
        (local.date_naive().to_string(), local.format("%H:%M").to_string())
    };
    let ((base_day, base_time), (day, time)) = (when(&base), when(&current));
    let field = crate::web::merge::Field::new;
    let fields = vec![
        field("day", "Day", &base_day, form.text("day"), &day),
        field("time", "Time", &base_time, form.text("time"), &time),
        field("with", "Practitioner", &with(&base), form.text("with"), &with(&current))
            .words(options(&book, Kind::Practitioner)),
    ];
    let (action, back) = (format!("/schedule/{id}/move"), format!("/schedule/{id}"));
    let merge = Merge {
        section: Section::Schedule,
        banner: banner.as_ref(),
        what: "this appointment",
        action: &action,
        back: &back,
        patient: participant(&current, "Patient").unwrap_or(""),
        version: version(&current),
        saved: text(&current, "/meta/lastUpdated"),
        fields,
        hidden: vec![("from", with(&current)), ("all_the_same", form.text("all_the_same").to_owned())],
    };
    Ok(if merge.is_same() { redirect(&format!("/schedule?day={day}")) } else { merge.page(web, visit) })
}

async fn again(web: &Web, visit: &Visit, id: &str, form: &Form, problems: &Problems) -> Result<Response, PageError> {
    let page = page(web, visit, id, form, problems).await?;
    Ok((StatusCode::CONFLICT, page).into_response())
}

async fn cancel(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let version = form.text("version").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let (patient, reason) =
        (form.text("patient").to_owned(), form.text("reason").chars().take(300).collect::<String>());
    let (rest, own) = (form.text("rest") == "yes", id.clone());
    let store = move |tx: &mut Tx<'_>| {
        let body = tx.read("Appointment", &id)?.json()?;
        if participant(&body, "Patient").unwrap_or("") != patient {
            return Err(PageError::WrongPatient);
        }
        let later = if rest { later_of_series(tx, &body, &patient)? } else { Vec::new() };
        booking::cancel(tx, &id, version, &reason)?;
        for (other, version) in later {
            booking::cancel(tx, &other, version, &reason)?;
        }
        Ok(dates::unix_s(text(&body, "/start")))
    };
    let start = match web.store().write(&visit.actor, store).await {
        Ok(start) => start,
        Err(PageError::Store(StoreError::VersionConflict { .. })) => {
            let mut problems = Problems::default();
            problems.add("", "Somebody else changed this appointment while you had it open. Look at it again, and cancel it if that is still right.");
            return again(&web, &visit, &own, &Form::default(), &problems).await;
        }
        Err(error) => return Err(error),
    };
    let day = start.map(|at| dates::local(at, web.settings().zone).date_naive().to_string()).unwrap_or_default();
    Ok(redirect(&format!("/schedule?day={day}")))
}

/// Id and version of the later appointments of the same series that are still booked.
fn later_of_series(tx: &Tx<'_>, body: &Value, patient: &str) -> Result<Vec<(String, u32)>, StoreError> {
    let series = extension(body, SERIES, "valueString").cloned();
    let start = dates::unix_s(text(body, "/start")).unwrap_or(i64::MAX);
    let found = tx.search(&Query::all("Appointment")?.of_patient(patient))?;
    let later = chart::jsons(&found.resources)?.into_iter().filter(|other| {
        series.is_some()
            && extension(other, SERIES, "valueString") == series.as_ref()
            && code(other, "status") == "booked"
            && dates::unix_s(text(other, "/start")).is_some_and(|at| at > start)
    });
    Ok(later.map(|other| (text(&other, "/id").to_owned(), version(&other))).collect())
}
