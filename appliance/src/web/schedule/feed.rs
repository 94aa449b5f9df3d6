//! Calendar feeds: an address that a phone's calendar reads. It tells when somebody is busy and where, never with whom.

use super::book::options;
use super::{actor_of, participant};
use crate::access::{Action, Actor, Program};
use crate::audit::{self, Event};
use crate::dates;
use crate::db::OptionalExtension;
use crate::scheduling::book::{Book, Kind};
use crate::scheduling::ical::{self, Entry};
use crate::scheduling::occupancy::{span, takes_time};
use crate::store::{StoreError, Tx, View};
use crate::web::fields::{self, Problems};
use crate::web::form::{Form, FormError};
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use maud::{Markup, html};

/// What a feed shows, days back and ahead.
const SHOWN_DAYS: (i64, i64) = (7, 120);

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Appointment"));
    vec![
        Route::new(Method::Get, "/schedule/feeds", may(Action::Search), list, w()),
        Route::new(Method::Post, "/schedule/feeds", may(Action::Update), make, w()),
        Route::new(Method::Post, "/schedule/feeds/end", may(Action::Update), end, w()),
        // The address is the secret; phones cannot log in.
        Route::new(Method::Get, "/calendar/{token}", Policy::Public, feed, w()),
    ]
}

/// A feed of the visitor's: what its address is stored as, whose it is, since when.
type Row = (String, String, i64);

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    page(&web, &visit, None).await
}

async fn page(web: &Web, visit: &Visit, fresh: Option<&str>) -> Result<Markup, PageError> {
    let (zone, account) = (web.settings().zone, visit.actor.id.clone());
    let read = move |view: &View<'_>| {
        let sql =
            "SELECT hex(token_hash), actor, created_s FROM calendar_feed WHERE account = ?1 ORDER BY created_s DESC";
        let mut statement = view.connection().prepare_cached(sql)?;
        let rows = statement.query_map([account], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        Ok::<_, StoreError>((Book::load(view, zone)?, rows.collect::<Result<Vec<Row>, _>>()?))
    };
    let (book, feeds) = web.store().view(&visit.actor, read).await?;
    let name = |actor: &str| book.calendar(actor).map_or_else(|| actor.to_owned(), |c| c.name.clone());
    Ok(layout::page(
        web,
        visit,
        Section::Schedule,
        "Calendar feeds",
        None,
        &html! {
            div.head { h1 { "Calendar feeds" } a.button href="/schedule" { "Back to the schedule" } }
            p { "A feed shows a calendar on a phone: when somebody is busy and in which room. It holds no name and no reason." }
            @if let Some(link) = fresh {
                div.notice.warn { p { "This address is shown only once. Whoever knows it can read when the calendar is busy." } }
                p { code.copy { (link) } }
            }
            @if !feeds.is_empty() { table.list {
                (layout::columns(&["Calendar", "Since", ""]))
                tbody { @for (hash, actor, created) in &feeds { tr {
                    th scope="row" { (name(actor)) }
                    td { (dates::long_day(dates::local(*created, zone).date_naive())) }
                    td { form.inline method="post" action="/schedule/feeds/end" {
                        (layout::csrf(visit)) input type="hidden" name="feed" value=(hash);
                        button.small type="submit" { "End" }
                    } }
                } } }
            } }
            section.panel { h2 { "Make a feed" }
                form.inline method="post" action="/schedule/feeds" {
                    (layout::csrf(visit))
                    (fields::select("Calendar", "actor", "", &options(&book, Kind::Practitioner), true, &Problems::default()))
                    button.primary type="submit" { "Make an address" }
                }
            }
        },
    ))
}

async fn make(State(web): State<Web>, visit: Visit, headers: HeaderMap, form: Form) -> Result<Markup, PageError> {
    let actor = actor_of(form.text("actor"));
    let id = actor.strip_prefix("Practitioner/").ok_or(PageError::Form(FormError::Malformed))?.to_owned();
    let token = service::auth::random_token();
    let (hash, account, now) = (service::auth::token_hash(&token), visit.actor.id.clone(), web.now());
    let store = move |tx: &mut Tx<'_>| {
        tx.read("Practitioner", &id)?;
        let sql = "INSERT INTO calendar_feed (token_hash, actor, account, created_s) VALUES (?1, ?2, ?3, ?4)";
        tx.connection().execute(sql, (hash, &actor, account, now))?;
        tx.note(Event::new(audit::Action::Export, "Schedule", &id));
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, store).await?;
    let host = headers.get(header::HOST).and_then(|h| h.to_str().ok()).unwrap_or("");
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'));
    page(&web, &visit, Some(&format!("https://{}/calendar/{token}", if plain { host } else { "" }))).await
}

async fn end(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (feed, account) = (form.text("feed").to_owned(), visit.actor.id.clone());
    let store = move |tx: &mut Tx<'_>| {
        tx.connection()
            .execute("DELETE FROM calendar_feed WHERE hex(token_hash) = ?1 AND account = ?2", (feed, account))?;
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/schedule/feeds"))
}

async fn feed(State(web): State<Web>, Path(token): Path<String>) -> Result<Response, PageError> {
    let hash = service::auth::token_hash(&token);
    let find = move |db: &crate::db::Connection| {
        let sql = "SELECT f.actor FROM calendar_feed f JOIN account a ON a.id = f.account WHERE f.token_hash = ?1 AND a.disabled IS NULL";
        Ok::<_, StoreError>(db.query_row(sql, [hash], |row| row.get::<_, String>(0)).optional()?)
    };
    let actor = web.store().internal(find).await?.ok_or(PageError::NotFound)?;
    let (zone, now) = (web.settings().zone, web.now());
    let read = move |view: &View<'_>| entries(view, zone, &actor, now);
    let (name, entries) = web.store().view::<_, StoreError, _>(&Actor::program(Program::Feed), read).await?;
    let headers = [(header::CONTENT_TYPE, "text/calendar; charset=utf-8")];
    Ok((headers, ical::calendar(&name, &entries)).into_response())
}

fn entries(view: &View<'_>, zone: chrono_tz::Tz, actor: &str, now_s: i64) -> Result<(String, Vec<Entry>), StoreError> {
    let book = Book::load(view, zone)?;
    let (from, until) = (now_s - SHOWN_DAYS.0 * 86_400, now_s + SHOWN_DAYS.1 * 86_400);
    let mut entries = Vec::new();
    for stored in view.appointments_between(from * 1000, until * 1000)? {
        let appointment = stored.json()?;
        let takes_part = participant(&appointment, "Practitioner").map(actor_of).as_deref() == Some(actor);
        let Some(span) = span(&appointment).filter(|_| takes_part && takes_time(&appointment)) else { continue };
        let place = participant(&appointment, "Location").and_then(|id| book.calendar(&format!("Location/{id}")));
        entries.push(Entry {
            uid: uid(text(&appointment, "/id")),
            version: version(&appointment),
            changed_s: stored.updated_ms / 1000,
            from_s: span.from,
            until_s: span.until,
            summary: "Busy".into(),
            place: place.map(|c| c.name.clone()).unwrap_or_default(),
        });
    }
    Ok((book.calendar(actor).map(|c| c.name.clone()).unwrap_or_default(), entries))
}

/// Stable, and not the record's own id: what leaves for a phone leads back to nothing here.
fn uid(id: &str) -> String {
    let digest = blake3::derive_key("holdfast appliance calendar feed uid v1", id.as_bytes());
    format!("{}@holdfast", digest.iter().take(12).map(|b| format!("{b:02x}")).collect::<String>())
}
