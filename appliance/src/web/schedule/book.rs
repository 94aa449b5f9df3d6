//! Booking by the staff: for whom, what for, when; free times are offered, other times need a reason.

use super::actor_of;
use crate::access::{Action, Object, authorize};
use crate::dates;
use crate::scheduling::book::{Asker, Book, Kind};
use crate::scheduling::booking::{self, Choice, Refusal, Wish};
use crate::scheduling::occupancy::{self, Clash};
use crate::scheduling::series;
use crate::scheduling::slots::Span;
use crate::scheduling::visit::VisitType;
use crate::store::{StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems};
use crate::web::form::{Form, percent_encode};
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::PatientFacts;
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, patients};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::NaiveDate;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

const LENGTHS: [i64; 10] = [5, 10, 15, 20, 30, 45, 60, 90, 120, 180];
const WEEKS: [(&str, &str); 5] =
    [("0", "Once"), ("1", "Every week"), ("2", "Every 2 weeks"), ("4", "Every 4 weeks"), ("12", "Every 12 weeks")];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    vec![
        Route::new(Method::Get, "/schedule/book", may(Action::Create), booking_page, w()),
        Route::new(Method::Post, "/schedule/book", may(Action::Create), book, w()),
        Route::new(Method::Get, "/schedule/free", may(Action::Search), free_times, w()),
        Route::new(Method::Post, "/schedule/hold", may(Action::Create), hold, w()),
    ]
}

#[derive(Deserialize, Default)]
struct BookingQuery {
    #[serde(default)]
    patient: String,
    #[serde(default)]
    practitioner: String,
    #[serde(default)]
    day: String,
    #[serde(default)]
    time: String,
    #[serde(default)]
    visit: String,
    #[serde(default)]
    waiting: String,
    #[serde(default)]
    reason: String,
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
    chart::require_open(&web, &visit, &asked.patient).await?;
    let today = dates::today(web.now(), web.settings().zone);
    let day = dates::parse_day(&asked.day).unwrap_or(today);
    let own = visit.session.as_ref().and_then(|s| s.practitioner.clone()).unwrap_or_default();
    let practitioner = if asked.practitioner.is_empty() { own } else { asked.practitioner };
    let fields = [
        ("day", day.to_string()),
        ("practitioner", actor_of(&practitioner)),
        ("minutes", "30".into()),
        ("time", asked.time),
        ("visit", asked.visit),
        ("waiting", asked.waiting),
        ("reason", asked.reason),
        ("holder", service::auth::random_token()),
    ];
    let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v)));
    booking_form(&web, &visit, &asked.patient, &form, &Problems::default()).await
}

/// First step of a booking: for whom.
async fn choose_patient(web: &Web, visit: &Visit, asked: &BookingQuery) -> Result<Markup, PageError> {
    let typed: String = asked.q.chars().take(100).collect();
    let found = if typed.trim().is_empty() { Vec::new() } else { patients::find(web, visit, &typed, 20).await? };
    let kept = [("day", &asked.day), ("time", &asked.time), ("practitioner", &asked.practitioner)];
    let query: String = kept.iter().map(|(n, v)| format!("&{n}={}", percent_encode(v))).collect();
    let may_register = authorize(&visit.actor, Action::Create, Object::resource("Patient")).is_ok();
    let choices = html! {
        @if !typed.trim().is_empty() && found.is_empty() { p.empty { "Nobody found." } }
        ul.rows.choices {
            @for patient in &found {
                li { span.what {
                    a href={ "/schedule/book?patient=" (patient.id) (query) } { (patient.full_name()) }
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
                @for (name, value) in kept { input type="hidden" name=(name) value=(value); }
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

/// Names of calendars of a kind, for a select.
pub fn options(book: &Book, kind: Kind) -> Vec<(String, String)> {
    book.of_kind(kind).map(|c| (c.actor.clone(), c.name.clone())).collect()
}

async fn booking_form(
    web: &Web,
    visit: &Visit,
    patient: &str,
    form: &Form,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let (site, id, filled, now) = (web.clone(), patient.to_owned(), form.clone(), web.now());
    let read = move |view: &View<'_>| {
        let book = Book::load(view, zone)?;
        let free = offered(view, &book, &filled, now)?;
        Ok::<_, StoreError>((chart::banner_in(&site, view, &id)?, book, free))
    };
    let ((banner, facts), book, free) = web.store().view(&visit.actor, read).await?;
    let back = format!("/schedule?day={}", percent_encode(form.text("day")));
    Ok(layout::page(
        web,
        visit,
        Section::Schedule,
        "Book an appointment",
        Some(&banner),
        &html! {
            div.head { h1 { "Book an appointment" } }
            (problems.summary())
            form.sheet.wide #booking method="post" action="/schedule/book" {
                (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                @for name in ["waiting", "holder"] { input type="hidden" name=(name) value=(form.text(name)); }
                div.sides {
                    div {
                        (what_and_when(&book, form, problems))
                        (more(&book, form, problems))
                        (layout::save_or_cancel("Book", &back))
                    }
                    div.panel {
                        div #free aria-live="polite" hx-get="/schedule/free" hx-include="#visit, #practitioner, #day, #minutes, [name=holder]"
                            hx-trigger="change from:#visit, change from:#practitioner, change from:#day, change from:#minutes" {
                            (free_list(&book, form, &free))
                        }
                        p.hint #held aria-live="polite" {}
                    }
                }
            }
        },
    ))
}

fn what_and_when(book: &Book, form: &Form, problems: &Problems) -> Markup {
    let visits = book.visits.iter().filter(|v| v.active);
    let visits: Vec<_> = visits.map(|v| (v.id.clone(), format!("{}, {} min", v.name, v.minutes))).collect();
    let lengths: Vec<(String, String)> = LENGTHS.iter().map(|m| (m.to_string(), format!("{m} minutes"))).collect();
    let practitioners = options(book, Kind::Practitioner);
    html! {
        @if !visits.is_empty() { (fields::select("Visit type", "visit", form.text("visit"), &visits, false, problems)) }
        (fields::select("Practitioner", "practitioner", form.text("practitioner"), &practitioners, true, problems))
        div.columns.narrow {
            (Field::new("Day", "day", form.text("day")).kind("date").required().show(problems))
            (fields::select("Length", "minutes", form.text("minutes"), &lengths, true, problems))
            (Field::new("Time", "time", form.text("time")).kind("time").hint("or choose a free time").show(problems))
        }
        (Field::new("Reason", "reason", form.text("reason")).hint("For example: Blood pressure check").show(problems))
    }
}

fn more(book: &Book, form: &Form, problems: &Problems) -> Markup {
    let places = |kind: Kind| {
        let mut all = vec![("any".to_owned(), "As the visit type needs".to_owned()), ("none".into(), "None".into())];
        all.extend(options(book, kind));
        all
    };
    let chosen = |name| if form.text(name).is_empty() { "any" } else { form.text(name) };
    let weeks = if form.text("weeks").is_empty() { "0" } else { form.text("weeks") };
    let count = if form.text("count").is_empty() { "6" } else { form.text("count") };
    let open = !form.text("all_the_same").is_empty() || !problems.is_empty();
    html! {
        @if book.of_kind(Kind::Room).chain(book.of_kind(Kind::Equipment)).next().is_some() {
            div.columns {
                (fields::select("Room", "room", chosen("room"), &places(Kind::Room), false, problems))
                (fields::select("Equipment", "equipment", chosen("equipment"), &places(Kind::Equipment), false, problems))
            }
        }
        details open[open] {
            summary { "Series, or a time that is taken" }
            div.columns {
                (fields::select("Repeat", "weeks", weeks, &fields::pairs(&WEEKS), false, problems))
                (Field::new("How many appointments", "count", count).kind("number").show(problems))
            }
            label.check { input type="checkbox" name="skip" value="yes" checked[form.text("skip") == "yes"];
                " Leave out the days that are not free" }
            (Field::new("Book all the same, because", "all_the_same", form.text("all_the_same"))
                .hint("Double bookings and times outside of the hours need a reason; it is kept and audited.").show(problems))
        }
    }
}

/// What a form offers: the free times of its day, or why there are none.
enum Offered {
    Times(Vec<i64>, bool),
    Choose,
    NoHours,
}

fn plain_or_type(book: &Book, form: &Form) -> VisitType {
    let minutes = form.text("minutes").parse().ok().filter(|m| LENGTHS.contains(m)).unwrap_or(30);
    book.visit(form.text("visit")).cloned().unwrap_or_else(|| VisitType { minutes, ..VisitType::plain() })
}

fn offered(view: &View<'_>, book: &Book, form: &Form, now_s: i64) -> Result<Offered, StoreError> {
    let practitioner = actor_of(form.text("practitioner"));
    let (Some(day), Some(calendar)) = (dates::parse_day(form.text("day")), book.calendar(&practitioner)) else {
        return Ok(Offered::Choose);
    };
    if !calendar.hours.is_known() {
        return Ok(Offered::NoHours);
    }
    let asker = Asker { holder: form.text("holder"), now_s };
    let visit = VisitType { offered_by: Vec::new(), ..plain_or_type(book, form) };
    let free = book.free(view.connection(), &visit, &practitioner, day, asker)?;
    let open = !book.windows(calendar, day).is_empty();
    Ok(Offered::Times(free.into_iter().map(|f| f.start_s).collect(), open))
}

fn free_list(book: &Book, form: &Form, offered: &Offered) -> Markup {
    let shown = |s: i64| dates::local(s, book.zone).format("%H:%M").to_string();
    let wanted = dates::parse_time(form.text("time")).map(|t| t.format("%H:%M").to_string());
    html! {
        h2 { "Free times" @if let Some(day) = dates::parse_day(form.text("day")) { span.soft { " " (dates::week_day(day)) } } }
        @match offered {
            Offered::Choose => p.empty { "Choose a practitioner to see when there is time." },
            Offered::NoHours => p.empty { "No hours are entered for this practitioner: type the time." },
            Offered::Times(times, open) if times.is_empty() => p.empty {
                @if *open { "Nothing is free on this day." } @else { "There are no hours on this day." }
            },
            Offered::Times(times, _) => fieldset.times {
                legend.quiet { "Choose one" }
                @for at in times {
                    label.chip { input type="radio" name="slot" value=(at) checked[wanted.as_deref() == Some(shown(*at).as_str())]
                        hx-post="/schedule/hold" hx-include="#booking" hx-target="#held" hx-trigger="change"; span { (shown(*at)) } }
                }
            },
        }
    }
}

async fn free_times(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<Vec<(String, String)>>,
) -> Result<Markup, PageError> {
    let (zone, now) = (web.settings().zone, web.now());
    // The time that was typed or chosen before belongs to another day.
    let form = Form::from_fields(asked.into_iter().filter(|(name, _)| name != "slot"));
    let filled = form.clone();
    let read = move |view: &View<'_>| {
        let book = Book::load(view, zone)?;
        let free = offered(view, &book, &filled, now)?;
        Ok::<_, StoreError>((book, free))
    };
    let (book, free) = web.store().view(&visit.actor, read).await?;
    Ok(free_list(&book, &form, &free))
}

/// Keeps the chosen time for whoever is filling in the form.
async fn hold(State(web): State<Web>, visit: Visit, form: Form) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let Some(start_s) = form.text("slot").parse::<i64>().ok().filter(|s| (0..1 << 40).contains(s)) else {
        return Err(PageError::Form(crate::web::form::FormError::Malformed));
    };
    let practitioner = actor_of(form.text("practitioner"));
    let (holder, filled) = (form.text("holder").to_owned(), form.clone());
    if holder.len() < 20 {
        return Err(PageError::Form(crate::web::form::FormError::Malformed));
    }
    let keep = move |tx: &mut Tx<'_>| {
        let minutes = plain_or_type(&Book::load(tx, zone)?, &filled).minutes;
        let span = Span { from: start_s, until: start_s + minutes * 60 };
        occupancy::hold(tx.connection(), &[&practitioner], span, &holder, tx.now_ms() / 1000)
    };
    let clash = web.store().write::<_, StoreError, _>(&visit.actor, keep).await?;
    let until = dates::local(web.now() + occupancy::HOLD_S, zone).format("%H:%M").to_string();
    let at = dates::local(start_s, zone).format("%H:%M").to_string();
    Ok(html! {
        @match clash {
            None => { (at) " is kept for you until " (until) "." },
            Some(_) => b { (at) " was just taken. Choose another time." },
        }
    })
}

/// What was asked for, checked as far as the form alone tells.
struct Asked {
    day: NaiveDate,
    first: Span,
    weeks: u32,
    count: u32,
    skip: bool,
    practitioner: String,
}

fn check(web: &Web, form: &Form, minutes_of_visit: Option<i64>) -> Result<Asked, Problems> {
    let zone = web.settings().zone;
    let mut problems = Problems::default();
    let minutes = minutes_of_visit.or_else(|| form.text("minutes").parse().ok().filter(|m| LENGTHS.contains(m)));
    if form.text("practitioner").is_empty() {
        problems.add("practitioner", "Please choose a practitioner.");
    }
    if minutes.is_none() {
        problems.add("minutes", "Please choose a length.");
    }
    for name in ["reason", "all_the_same"] {
        if form.text(name).chars().count() > 300 {
            problems.add(
                if name == "reason" { "reason" } else { "all_the_same" },
                "Please shorten this to 300 characters.",
            );
        }
    }
    let weeks = form.text("weeks").parse().unwrap_or(0);
    let count = if weeks == 0 { 1 } else { form.text("count").parse().unwrap_or(0) };
    if !(1..=series::COUNT_MAX).contains(&count) {
        problems.add("count", format!("A series has 2 to {} appointments.", series::COUNT_MAX));
    }
    let day = dates::parse_day(form.text("day"));
    let chosen = form.text("slot").parse::<i64>().ok().filter(|s| (0..1 << 40).contains(s));
    let start = match (form.text("time"), chosen, day) {
        ("", Some(slot), Some(day)) if dates::local(slot, zone).date_naive() == day => Some(slot),
        (typed, _, Some(day)) => match dates::parse_time(typed) {
            Some(time) => {
                let at = dates::instant(day, time, zone);
                if at.is_none() {
                    problems.add("time", "This time does not exist on this day: the clocks are put forward.");
                }
                at.map(|at| at.timestamp())
            }
            None => {
                problems.add("time", "Please choose a free time, or enter one, for example 14:30.");
                None
            }
        },
        (_, _, None) => {
            problems.add("day", "Please enter the day as year-month-day.");
            None
        }
    };
    if start.is_some_and(|at| at < web.now() - 86_400) {
        problems.add("day", "This day is in the past.");
    }
    match (start, minutes, day) {
        (Some(start), Some(minutes), Some(day)) if problems.is_empty() => Ok(Asked {
            day,
            first: Span { from: start, until: start + minutes * 60 },
            weeks,
            count,
            skip: form.text("skip") == "yes",
            practitioner: actor_of(form.text("practitioner")),
        }),
        _ => Err(problems),
    }
}

fn choice(said: &str) -> Choice {
    match said {
        "" | "any" => Choice::Suitable,
        "none" => Choice::None,
        actor => Choice::One(actor.to_owned()),
    }
}

async fn book(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let patient = form.text("patient").to_owned();
    if patient.is_empty() {
        return Err(PageError::WrongPatient);
    }
    let (zone, filled, site) = (web.settings().zone, form.clone(), web.clone());
    let series_id = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let owner = patient.clone();
    let store = move |tx: &mut Tx<'_>| {
        tx.require_open(&owner)?;
        let book = Book::load(tx, zone)?;
        let asked = match check(&site, &filled, book.visit(filled.text("visit")).map(|v| v.minutes)) {
            Ok(asked) => asked,
            Err(problems) => return Ok::<_, BookError>(Err(problems)),
        };
        Ok(Ok(store_all(tx, book, &asked, &filled, &series_id)?))
    };
    let problems = match web.store().write(&visit.actor, store).await {
        Ok(Ok(day)) => return Ok(redirect(&format!("/schedule?day={day}"))),
        Ok(Err(problems)) => {
            let page = booking_form(&web, &visit, &patient, &form, &problems).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
        Err(BookError::Refused(refused, book)) => refused_words(&book, &refused),
        Err(BookError::Store(error)) => return Err(error.into()),
    };
    let page = booking_form(&web, &visit, &patient, &form, &problems).await?;
    Ok((StatusCode::CONFLICT, page).into_response())
}

/// A refusal is an error to the store, so that a series of which one day is taken leaves nothing behind.
enum BookError {
    Refused(Vec<(NaiveDate, Refusal)>, Box<Book>),
    Store(StoreError),
}

impl From<StoreError> for BookError {
    fn from(error: StoreError) -> Self {
        BookError::Store(error)
    }
}

fn store_all(tx: &mut Tx<'_>, book: Book, asked: &Asked, form: &Form, series_id: &str) -> Result<NaiveDate, BookError> {
    let patient = form.text("patient");
    let facts = PatientFacts::read(&tx.read("Patient", patient)?.json()?);
    let (id, version) = form.text("waiting").split_once(' ').unwrap_or_default();
    let waiting = version.parse().ok().map(|version| (id.to_owned(), version));
    let wish = Wish {
        patient: (format!("Patient/{patient}"), facts.full_name()),
        visit: book.visit(form.text("visit")).cloned(),
        practitioner: asked.practitioner.clone(),
        room: choice(form.text("room")),
        equipment: choice(form.text("equipment")),
        span: asked.first,
        status: "booked",
        reason: form.text("reason").to_owned(),
        all_the_same: form.text("all_the_same").to_owned(),
        series: (asked.count > 1).then(|| series_id.to_owned()),
        waiting,
        holder: form.text("holder").to_owned(),
    };
    if book.calendar(&wish.practitioner).is_none_or(|c| c.kind != Kind::Practitioner) {
        return Err(StoreError::NotFound.into());
    }
    let length = asked.first.until - asked.first.from;
    let time = dates::local(asked.first.from, book.zone).time();
    let (mut refused, mut done) = (Vec::new(), 0);
    for day in series::days(asked.day, asked.weeks, asked.count) {
        let from = if day == asked.day {
            Some(asked.first.from)
        } else {
            dates::instant(day, time, book.zone).map(|t| t.timestamp())
        };
        let Some(from) = from else {
            refused.push((day, Refusal::Closed));
            continue;
        };
        let wish = Wish {
            span: Span { from, until: from + length },
            waiting: wish.waiting.clone().filter(|_| done == 0),
            ..wish.clone()
        };
        match booking::book(tx, &book, &wish)? {
            Ok(_) => done += 1,
            Err(refusal) => refused.push((day, refusal)),
        }
    }
    if refused.is_empty() || (asked.skip && done > 0) {
        Ok(asked.day)
    } else {
        Err(BookError::Refused(refused, Box::new(book)))
    }
}

/// The calendar's refusals in words.
pub fn refusal_words(book: &Book, refusal: &Refusal) -> String {
    let at = |s: i64| dates::local(s, book.zone).format("%H:%M").to_string();
    match refusal {
        Refusal::Busy(Clash { actor, span, held }) => {
            let (from, to) = (at(span.from), at(span.until));
            let name = book.calendar(actor).map_or("This patient", |c| c.name.as_str());
            if *held {
                format!(
                    "Somebody is just booking {name} from {from} to {to}. Wait five minutes, or choose another time."
                )
            } else {
                format!("Taken: {name} has an appointment from {from} to {to}.")
            }
        }
        Refusal::Closed => "This is outside of the hours.".into(),
        Refusal::NoPlace(Kind::Equipment) => "No equipment for this visit type is free at this time.".into(),
        Refusal::NoPlace(_) => "No room for this visit type is free at this time.".into(),
    }
}

fn refused_words(book: &Book, refused: &[(NaiveDate, Refusal)]) -> Problems {
    let mut problems = Problems::default();
    match refused {
        [(_, only)] => problems.add("time", refusal_words(book, only)),
        all => {
            let days: Vec<String> = all
                .iter()
                .map(|(day, why)| format!("{}: {}", dates::long_day(*day), refusal_words(book, why)))
                .collect();
            problems.add("", format!("Nothing was booked. {}", days.join(" ")));
            problems.add("count", "Not all days are free. Leave these out, or give a reason to book all the same.");
        }
    }
    problems
}
