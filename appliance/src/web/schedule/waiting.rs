//! The waiting list: who wants a time that there is not yet, and what has become free.

use super::book::options;
use super::{actor_of, participant, reason};
use crate::access::Action;
use crate::dates;
use crate::scheduling::book::{Asker, Book, Kind};
use crate::scheduling::visit::VisitType;
use crate::store::{Query, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems};
use crate::web::form::{Form, FormError, percent_encode};
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::paging::Paging;
use crate::web::reading::{PatientFacts, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, paging};
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

/// Days ahead in which a free time is looked for.
const AHEAD_DAYS: usize = 14;
/// Entries on a page.
const LISTED_MAX: usize = 100;
const PRIORITIES: [(&str, &str); 3] = [("1", "Urgent"), ("5", "Normal"), ("9", "Whenever")];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    vec![
        Route::new(Method::Get, "/schedule/waiting", may(Action::Search), list, w()),
        Route::new(Method::Get, "/schedule/waiting/new", may(Action::Create), new, w()),
        Route::new(Method::Post, "/schedule/waiting/new", may(Action::Create), add, w()),
        Route::new(Method::Post, "/schedule/waiting/{appointment}/remove", may(Action::Update), remove, w()),
    ]
}

/// One who waits, and the first time that would fit.
struct Waiting {
    entry: Value,
    /// The record that goes on, where the entry stands in one that was closed.
    patient: PatientFacts,
    fits: Option<(i64, String)>,
}

/// Who waits, by urgency and then for how long, and of them the page that begins with `from`: a time is looked for only for whom the
/// page shows.
fn read(
    view: &View<'_>,
    zone: chrono_tz::Tz,
    (now_s, from): (i64, usize),
) -> Result<(Book, Vec<Waiting>, Paging), StoreError> {
    let book = Book::load(view, zone)?;
    let query = Query::parse("Appointment", &[("status".to_owned(), "waitlist".to_owned())])?;
    let mut entries = chart::jsons(&view.search(&query)?.resources)?;
    entries.retain(|entry| participant(entry, "Patient").is_some());
    entries.sort_by_cached_key(|entry| (urgency(entry), dates::moment_s(text(entry, "/created"), zone)));
    let (shown, paging) = paging::part(&entries, from, LISTED_MAX);
    let mut all = Vec::new();
    for entry in shown {
        let Some(id) = participant(entry, "Patient") else { continue };
        let patient = PatientFacts::read(&view.read("Patient", view.person(id)?.goes_on())?.json()?);
        let fits = first_fit(view, &book, entry, now_s)?;
        all.push(Waiting { entry: entry.clone(), patient, fits });
    }
    Ok((book, all, paging))
}

/// 1 is the most urgent, as in calendars; who says none waits with the others.
fn urgency(entry: &Value) -> u64 {
    entry.get("priority").and_then(Value::as_u64).filter(|priority| *priority > 0).unwrap_or(5)
}

fn first_fit(view: &View<'_>, book: &Book, entry: &Value, now_s: i64) -> Result<Option<(i64, String)>, StoreError> {
    let minutes = entry.get("minutesDuration").and_then(Value::as_i64).unwrap_or(30).clamp(5, 480);
    let service = participant(entry, "HealthcareService").and_then(|id| book.visit(id)).cloned();
    let visit = service.unwrap_or_else(|| VisitType { minutes, ..VisitType::plain() });
    let practitioner = participant(entry, "Practitioner").map(actor_of).unwrap_or_default();
    let today = dates::today(now_s, book.zone);
    for day in today.iter_days().take(AHEAD_DAYS) {
        let free = book.free(view.connection(), &visit, &practitioner, day, Asker { holder: "", now_s })?;
        if let Some(first) = free.into_iter().next() {
            return Ok(Some((first.start_s, first.practitioner)));
        }
    }
    Ok(None)
}

#[derive(Deserialize, Default)]
struct Asked {
    /// The first entry of the page.
    #[serde(default)]
    from: usize,
}

async fn list(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<Asked>) -> Result<Markup, PageError> {
    let (zone, now) = (web.settings().zone, web.now());
    let read = move |view: &View<'_>| read(view, zone, (now, asked.from));
    let (book, all, paging) = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let offer = |w: &Waiting| {
        let (at, who) = w.fits.as_ref()?;
        let local = dates::local(*at, zone);
        let href = format!(
            "/schedule/book?patient={}&day={}&time={}&practitioner={}&visit={}&reason={}&waiting={}",
            w.patient.id,
            local.date_naive(),
            percent_encode(&local.format("%H:%M").to_string()),
            percent_encode(who),
            participant(&w.entry, "HealthcareService").unwrap_or(""),
            percent_encode(text(&w.entry, "/description")),
            percent_encode(&format!("{} {}", text(&w.entry, "/id"), version(&w.entry))),
        );
        let name = book.calendar(who).map_or("", |c| c.name.as_str());
        Some(
            html! { a.button.small.primary href=(href) { "Offer " (local.format("%a %-d %b %H:%M")) } " " span.soft { (name) } },
        )
    };
    Ok(layout::page(
        &web,
        &visit,
        Section::Schedule,
        "Waiting list",
        None,
        &html! {
            div.head { h1 { "Waiting list" } div.tools { a.button href="/schedule" { "Back to the schedule" } } }
            p.soft { "To add somebody, open the patient's chart and choose “Waiting list”. The first time within " (AHEAD_DAYS) " days that fits is offered." }
            @if all.is_empty() { p.empty { "Nobody is waiting." } }
            @else { table.list {
                (layout::columns(&["Patient", "Phone", "For", "Since", "First free time", ""]))
                tbody { @for w in &all { tr {
                    th scope="row" { a href={ "/patients/" (w.patient.id) } { (w.patient.full_name()) }
                        @if urgency(&w.entry) == 1 { " " span.tag.alert { "Urgent" } } }
                    td { (w.patient.phone) }
                    td { (reason(&w.entry)) @if let Some(c) = participant(&w.entry, "Practitioner").and_then(|p| book.calendar(&actor_of(p))) { br; span.soft { (c.name) } } }
                    td { (dates::show_day(text(&w.entry, "/created"), zone)) }
                    td { @match offer(w) { Some(offer) => (offer), None => span.soft { "none" } } }
                    td { form.inline method="post" action={ "/schedule/waiting/" (text(&w.entry, "/id")) "/remove" } {
                        (layout::csrf(&visit)) (chart::form_identity(participant(&w.entry, "Patient").unwrap_or(""), &version(&w.entry).to_string()))
                        button.small type="submit" { "Remove" }
                    } }
                } } }
            } }
            (paging.links(|from| format!("/schedule/waiting?from={from}")))
        },
    ))
}

#[derive(Deserialize, Default)]
struct Whose {
    #[serde(default)]
    patient: String,
}

async fn new(State(web): State<Web>, visit: Visit, UrlQuery(whose): UrlQuery<Whose>) -> Result<Markup, PageError> {
    chart::require_open(&web, &visit, &whose.patient).await?;
    let (zone, site, id) = (web.settings().zone, web.clone(), whose.patient);
    let read =
        move |view: &View<'_>| Ok::<_, StoreError>((chart::banner_in(&site, view, &id)?, Book::load(view, zone)?));
    let ((banner, facts), book) = web.store().view(&visit.actor, read).await?;
    let visits: Vec<_> = book
        .visits
        .iter()
        .filter(|v| v.active)
        .map(|v| (v.id.clone(), format!("{}, {} min", v.name, v.minutes)))
        .collect();
    let none = Problems::default();
    Ok(layout::page(
        &web,
        &visit,
        Section::Schedule,
        "Waiting list",
        Some(&banner),
        &html! {
            div.head { h1 { "Put on the waiting list" } }
            form.sheet method="post" action="/schedule/waiting/new" {
                (layout::csrf(&visit)) (chart::form_identity(&facts.id, ""))
                div.columns {
                    (fields::select("Visit type", "visit", "", &visits, false, &none))
                    (fields::select("With", "practitioner", "", &options(&book, Kind::Practitioner), false, &none))
                    (fields::select("How urgent", "priority", "5", &fields::pairs(&PRIORITIES), true, &none))
                }
                (Field::new("Reason", "reason", "").show(&none))
                (layout::save_or_cancel("Put on the list", "/schedule/waiting"))
            }
        },
    ))
}

async fn add(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (zone, now) = (web.settings().zone, web.now_fhir());
    let patient = form.text("patient").to_owned();
    if patient.is_empty() {
        return Err(PageError::WrongPatient);
    }
    let store = move |tx: &mut Tx<'_>| {
        let book = Book::load(tx, zone)?;
        let facts = PatientFacts::read(&tx.read("Patient", &patient)?.json()?);
        let service = book.visit(form.text("visit"));
        let entry = |reference: String, display: &str| json!({"actor": {"reference": reference, "display": display}, "status": "needs-action"});
        let mut participants = vec![entry(format!("Patient/{patient}"), &facts.full_name())];
        if let Some(c) = book.calendar(&actor_of(form.text("practitioner"))) {
            participants.push(entry(c.actor.clone(), &c.name));
        }
        let mut body = json!({
            "resourceType": "Appointment", "status": "waitlist", "created": now,
            "priority": form.text("priority").parse::<u32>().ok().filter(|p| *p <= 9).unwrap_or(5),
        });
        if let Some(service) = service {
            body["serviceType"] = json!([{"text": service.name}]);
            body["minutesDuration"] = service.minutes.into();
            participants.push(entry(format!("HealthcareService/{}", service.id), &service.name));
        }
        if !form.text("reason").is_empty() {
            body["description"] = form.text("reason").chars().take(300).collect::<String>().into();
        }
        body["participant"] = participants.into();
        tx.create("Appointment", body)
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect("/schedule/waiting"))
}

async fn remove(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let version = form.text("version").parse().map_err(|_| PageError::Form(FormError::Malformed))?;
    let patient = form.text("patient").to_owned();
    let store = move |tx: &mut Tx<'_>| {
        let body = tx.read("Appointment", &id)?.json()?;
        if participant(&body, "Patient") != Some(&patient) {
            return Err(PageError::WrongPatient);
        }
        Ok(crate::scheduling::booking::cancel(tx, &id, version, "")?)
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/schedule/waiting"))
}
