//! Online booking: the pages that strangers see, on a listener of their own. They know no session and no record; what they
//! may do is what a visit type says.

mod pages;

#[cfg(test)]
mod tests;

use super::fields::Problems;
use super::form::Form;
use super::gate::{UrlQuery, Visit};
use super::{Method, PageError, Policy, Route, Web};
use crate::access::{Actor, Program};
use crate::dates;
use crate::messages::{self, Channel, Message};
use crate::scheduling::book::{Asker, Book, Door, Free};
use crate::scheduling::booking::{self, Choice, Wish};
use crate::scheduling::occupancy;
use crate::scheduling::online::{self, Proof, Request};
use crate::scheduling::slots::Span;
use crate::scheduling::visit::{Online, VisitType};
use crate::store::{Query, StoreError, Tx, View};
use crate::web::reading::{PatientFacts, text, version};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono::{Duration, NaiveDate};
use http::{HeaderMap, StatusCode, header};
use maud::Markup;
use serde::Deserialize;
use serde_json::{Value, json};

/// Days on one page of free times.
const PAGE_DAYS: i64 = 7;
/// A patient that nobody of the staff has looked at yet.
pub const ONLINE: &str = "urn:holdfast:registered-online";

/// The public pages' route table.
pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let (get, post) = (Method::Get, Method::Post);
    vec![
        Route::new(get, "/book", Policy::Public, offers, w()),
        Route::new(get, "/book/{visit}", Policy::Public, times, w()),
        Route::new(get, "/book/{visit}/{start}", Policy::Public, details, w()),
        Route::new(post, "/book/{visit}/{start}", Policy::Public, ask_for_code, w()),
        Route::new(post, "/book/code", Policy::Public, confirm, w()),
        Route::new(get, "/book/cancel/{token}", Policy::Public, cancel_page, w()),
        Route::new(post, "/book/cancel/{token}", Policy::Public, cancel, w()),
    ]
}

fn program() -> Actor {
    Actor::program(Program::OnlineBooking)
}

async fn load(web: &Web) -> Result<Book, PageError> {
    let zone = web.settings().zone;
    let read = move |db: &crate::db::Connection| Book::load(&Door(db), zone);
    Ok(web.store().internal::<_, StoreError, _>(read).await?)
}

/// A visit type that is offered online.
fn offered<'b>(book: &'b Book, id: &str) -> Result<&'b VisitType, PageError> {
    book.visit(id).filter(|v| v.active && v.online != Online::Off).ok_or(PageError::NotFound)
}

async fn offers(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let book = load(&web).await?;
    Ok(pages::offers(&web, &visit, &book))
}

#[derive(Deserialize, Default)]
struct From {
    #[serde(default)]
    day: String,
    #[serde(default)]
    with: String,
}

/// The first and the last moment at which a visit may begin.
fn reach(visit: &VisitType, now_s: i64) -> (i64, i64) {
    (now_s + visit.notice_hours * 3600, now_s + visit.horizon_days * 86_400)
}

async fn times(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    UrlQuery(from): UrlQuery<From>,
) -> Result<Markup, PageError> {
    let (zone, now) = (web.settings().zone, web.now());
    let read = move |db: &crate::db::Connection| {
        let book = Book::load(&Door(db), zone)?;
        let Ok(offer) = offered(&book, &id).cloned() else { return Err(StoreError::NotFound) };
        let (earliest, latest) = reach(&offer, now);
        let begin = dates::local(earliest, zone).date_naive();
        let end = dates::local(latest, zone).date_naive();
        let first = dates::parse_day(&from.day).unwrap_or(begin).clamp(begin, end);
        let mut days: Vec<(NaiveDate, Vec<Free>)> = Vec::new();
        for day in (0..PAGE_DAYS).map(|n| first + Duration::days(n)).filter(|d| *d <= end) {
            let free = book.free(db, &offer, &from.with, day, Asker { holder: "", now_s: now })?;
            let mut free: Vec<Free> = free.into_iter().filter(|f| (earliest..=latest).contains(&f.start_s)).collect();
            // With whom is chosen by who asks for nobody in particular: the first of those who are free.
            free.dedup_by_key(|f| f.start_s);
            days.push((day, free));
        }
        Ok((book, offer, days, (begin, first, end), from.with))
    };
    let (book, offer, days, reach, with) = web.store().internal(read).await?;
    Ok(pages::times(&web, &visit, &pages::Times { book: &book, offer: &offer, days: &days, reach, with: &with }))
}

/// A chosen time that may be asked for.
async fn chosen(web: &Web, id: &str, start_s: i64, with: &str) -> Result<(Book, VisitType), PageError> {
    let book = load(web).await?;
    let offer = offered(&book, id)?.clone();
    let (earliest, latest) = reach(&offer, web.now());
    let known = book.offering(&offer).any(|c| c.actor == with);
    if offer.online == Online::View || !known || !(earliest - 600..=latest).contains(&start_s) {
        return Err(PageError::NotFound);
    }
    Ok((book, offer))
}

async fn details(
    State(web): State<Web>,
    visit: Visit,
    Path((id, start)): Path<(String, i64)>,
    UrlQuery(from): UrlQuery<From>,
) -> Result<Markup, PageError> {
    let (book, offer) = chosen(&web, &id, start, &from.with).await?;
    let form = Form::from_fields([("with".to_owned(), from.with)]);
    Ok(pages::details(
        &web,
        &visit,
        &pages::Chosen { book: &book, offer: &offer, start_s: start },
        &form,
        &Problems::default(),
    ))
}

fn check(web: &Web, form: &Form, visit: &str, start_s: i64) -> Result<Request, Problems> {
    let mut problems = Problems::default();
    let birth = dates::parse_day(form.text("birth"));
    let today = dates::today(web.now(), web.settings().zone);
    for (name, sentence) in [("family", "Please enter your family name."), ("given", "Please enter your given name.")] {
        if form.text(name).is_empty() || form.text(name).chars().count() > 100 {
            problems.add(name, sentence);
        }
    }
    if birth.is_none_or(|d| d > today || today.years_since(d).unwrap_or(0) > 125) {
        problems.add("birth", "Please enter your birth date as year-month-day, for example 1960-05-06.");
    }
    let email = form.text("email");
    let plain = email.len() <= 200 && !email.chars().any(char::is_whitespace);
    if !plain || !email.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.')) {
        problems.add("email", "Please enter your e-mail address: the code is sent there.");
    }
    if form.text("phone").chars().filter(char::is_ascii_digit).count() < 5 || form.text("phone").len() > 40 {
        problems.add("phone", "Please enter a phone number under which we reach you.");
    }
    if form.text("reason").chars().count() > 200 {
        problems.add("reason", "Please shorten this to 200 characters.");
    }
    match birth {
        Some(birth) if problems.is_empty() => Ok(Request {
            visit: visit.to_owned(),
            start_s,
            practitioner: form.text("with").to_owned(),
            family: form.text("family").to_owned(),
            given: form.text("given").to_owned(),
            birth: birth.to_string(),
            email: email.to_owned(),
            phone: form.text("phone").to_owned(),
            reason: form.text("reason").to_owned(),
        }),
        _ => Err(problems),
    }
}

async fn ask_for_code(
    State(web): State<Web>,
    visit: Visit,
    Path((id, start)): Path<(String, i64)>,
    form: Form,
) -> Result<Response, PageError> {
    let (book, offer) = chosen(&web, &id, start, form.text("with")).await?;
    let shown = pages::Chosen { book: &book, offer: &offer, start_s: start };
    let request = match check(&web, &form, &id, start) {
        Ok(request) => request,
        Err(problems) => {
            return Ok(again(StatusCode::UNPROCESSABLE_ENTITY, pages::details(&web, &visit, &shown, &form, &problems)));
        }
    };
    let code = messages::new_code().map_err(|_| PageError::Internal("randomness"))?;
    let (token, now) = (service::auth::random_token(), web.now());
    let address = visit.address.map_or_else(|| "unknown".to_owned(), |a| a.to_string());
    let span = Span { from: start, until: start + offer.minutes * 60 };
    let (holder, practice) = (token.clone(), web.settings().practice_name.clone());
    let begin = move |tx: &mut Tx<'_>| {
        if !online::admit(tx.connection(), &address, &request.email, now)? {
            return Ok::<_, StoreError>(Begun::TooMany);
        }
        if occupancy::hold(tx.connection(), &[&request.practitioner], span, &holder, now)?.is_some() {
            return Ok(Begun::Taken);
        }
        online::keep(tx.connection(), &holder, &code, &request, now)?;
        let text = format!(
            "Your code is {code}.\n\nEnter it on the page where you chose your appointment. It is good for 15 minutes.\nIf you did not ask for it, you need not do anything.\n"
        );
        let message = Message { to: request.email.clone(), subject: format!("{practice}: your code {code}"), text };
        messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())?;
        Ok(Begun::CodeSent)
    };
    let mut problems = Problems::default();
    match web.store().write(&program(), begin).await? {
        Begun::CodeSent => Ok(pages::code(&web, &visit, &token, &Problems::default()).into_response()),
        Begun::TooMany => {
            problems.add("", "There were too many requests within an hour. Please try later, or call us.");
            Ok(again(StatusCode::TOO_MANY_REQUESTS, pages::details(&web, &visit, &shown, &form, &problems)))
        }
        Begun::Taken => {
            problems.add("", "This time was just taken. Please go back and choose another.");
            Ok(again(StatusCode::CONFLICT, pages::details(&web, &visit, &shown, &form, &problems)))
        }
    }
}

enum Begun {
    CodeSent,
    TooMany,
    Taken,
}

fn again(status: StatusCode, page: Markup) -> Response {
    (status, page).into_response()
}

/// What a right code led to.
enum Confirmed {
    Wrong,
    Over,
    Taken,
    /// This visit is for those who were here before.
    NotForNew,
    Done {
        start_s: i64,
        direct: bool,
    },
}

async fn confirm(State(web): State<Web>, visit: Visit, headers: HeaderMap, form: Form) -> Result<Response, PageError> {
    let token = form.text("token").to_owned();
    let code: String = form.text("code").chars().filter(char::is_ascii_digit).collect();
    let (zone, practice) = (web.settings().zone, web.settings().practice_name.clone());
    let (link, own, host) = (service::auth::random_token(), token.clone(), host(&headers));
    let store = move |tx: &mut Tx<'_>| {
        let request = match online::prove(tx.connection(), &own, &code, tx.now_ms() / 1000)? {
            Proof::Right(request) => request,
            Proof::Wrong => return Ok::<_, StoreError>(Confirmed::Wrong),
            Proof::Over => return Ok(Confirmed::Over),
        };
        let book = Book::load(tx, zone)?;
        finish(tx, &book, &request, &Answer { holder: &own, link: &link, host: &host, practice: &practice })
    };
    let mut problems = Problems::default();
    Ok(match web.store().write(&program(), store).await? {
        Confirmed::Done { start_s, direct } => pages::done(&web, start_s, direct).into_response(),
        Confirmed::Wrong => {
            problems.add("code", "This is not the code of our mail. Please look again.");
            again(StatusCode::UNPROCESSABLE_ENTITY, pages::code(&web, &visit, &token, &problems))
        }
        Confirmed::Over => again(
            StatusCode::GONE,
            pages::said(
                &web,
                "Please begin again",
                "The code is too old or was entered wrongly too often. Nothing was booked.",
            ),
        ),
        Confirmed::Taken => again(
            StatusCode::CONFLICT,
            pages::said(&web, "This time was just taken", "Nothing was booked. Please choose another time."),
        ),
        Confirmed::NotForNew => again(
            StatusCode::CONFLICT,
            pages::said(
                &web,
                "Please call us",
                "We could not find you in our records. Nothing was booked; please call us for your first appointment.",
            ),
        ),
    })
}

/// The address by which the visitor reached us, for the link in the mail.
fn host(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
    if plain { host.to_owned() } else { String::new() }
}

struct Answer<'a> {
    holder: &'a str,
    link: &'a str,
    host: &'a str,
    practice: &'a str,
}

fn finish(tx: &mut Tx<'_>, book: &Book, request: &Request, answer: &Answer<'_>) -> Result<Confirmed, StoreError> {
    let Ok(offer) = offered(book, &request.visit).cloned() else { return Ok(Confirmed::Over) };
    let known = known(tx, request)?;
    if known.is_none() && !offer.new_patients {
        return Ok(Confirmed::NotForNew);
    }
    // Whom nobody here has seen gets no firm appointment from a machine.
    let direct = offer.online == Online::Direct && known.is_some();
    let patient = match known {
        Some(id) => id,
        None => tx.create("Patient", new_patient(request))?.id,
    };
    let wish = Wish {
        patient: (format!("Patient/{patient}"), format!("{}, {}", request.family, request.given)),
        practitioner: request.practitioner.clone(),
        room: Choice::Suitable,
        equipment: Choice::Suitable,
        span: Span { from: request.start_s, until: request.start_s + offer.minutes * 60 },
        visit: Some(offer),
        status: if direct { "booked" } else { "pending" },
        reason: request.reason.clone(),
        all_the_same: String::new(),
        series: None,
        waiting: None,
        holder: answer.holder.to_owned(),
    };
    let Ok(stored) = booking::book(tx, book, &wish)? else { return Ok(Confirmed::Taken) };
    online::link(tx.connection(), answer.link, &stored.id, request.start_s)?;
    let when = dates::local(request.start_s, book.zone);
    let head = if direct {
        "Your appointment is booked"
    } else {
        "We received your request. We will answer by mail; until then the time is kept for you"
    };
    let text = format!(
        "{head}:\n{} at {}, {}.\n\nTo cancel it: https://{}/book/cancel/{}\n",
        dates::week_day(when.date_naive()),
        when.format("%H:%M"),
        answer.practice,
        answer.host,
        answer.link
    );
    let message =
        Message { to: request.email.clone(), subject: format!("{}: your appointment", answer.practice), text };
    messages::queue(tx, Channel::Mail, "", &message, tx.now_ms())?;
    Ok(Confirmed::Done { start_s: request.start_s, direct })
}

/// The one patient with this name and birth date whose record holds the proved mail address.
fn known(tx: &Tx<'_>, request: &Request) -> Result<Option<String>, StoreError> {
    let query = [("birthdate".to_owned(), request.birth.clone())];
    let same = |a: &str, b: &str| a.trim().to_lowercase() == b.trim().to_lowercase();
    let mut found = Vec::new();
    for stored in tx.search(&Query::parse("Patient", &query)?)?.resources {
        let facts = PatientFacts::read(&stored.json()?);
        if facts.active
            && same(&facts.family, &request.family)
            && same(&facts.email, &request.email)
            && !facts.email.is_empty()
        {
            found.push(facts.id);
        }
    }
    Ok(if found.len() == 1 { found.pop() } else { None })
}

fn new_patient(request: &Request) -> Value {
    let given: Vec<&str> = request.given.split_whitespace().collect();
    json!({
        "resourceType": "Patient", "active": true,
        "extension": [{"url": ONLINE, "valueBoolean": true}],
        "name": [{"use": "official", "family": request.family, "given": given}],
        "birthDate": request.birth, "gender": "unknown",
        "telecom": [{"system": "phone", "value": request.phone}, {"system": "email", "value": request.email}],
    })
}

async fn linked(web: &Web, token: &str) -> Result<(String, Value), PageError> {
    let (token, now) = (token.to_owned(), web.now());
    let read = move |view: &View<'_>| {
        let id = online::linked(view.connection(), &token, now)?.ok_or(StoreError::NotFound)?;
        Ok::<_, StoreError>((id.clone(), view.read("Appointment", &id)?.json()?))
    };
    Ok(web.store().view(&program(), read).await?)
}

async fn cancel_page(State(web): State<Web>, visit: Visit, Path(token): Path<String>) -> Result<Markup, PageError> {
    let (_, appointment) = linked(&web, &token).await?;
    Ok(pages::cancel(&web, &visit, &appointment))
}

async fn cancel(State(web): State<Web>, Path(token): Path<String>) -> Result<Markup, PageError> {
    let (id, appointment) = linked(&web, &token).await?;
    if !matches!(text(&appointment, "/status"), "booked" | "pending") {
        return Ok(pages::said(&web, "Nothing to cancel", "This appointment is not booked any more."));
    }
    let version = version(&appointment);
    let store = move |tx: &mut Tx<'_>| booking::cancel(tx, &id, version, "Cancelled online by the patient");
    web.store().write::<_, StoreError, _>(&program(), store).await?;
    Ok(pages::said(&web, "Cancelled", "Thank you for telling us. Somebody else can have this time now."))
}
