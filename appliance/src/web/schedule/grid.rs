//! Day, week and room views: columns of time. Places come from classes (`gs`, `gn`), because the policy of the pages allows
//! no style in the markup.

use super::{Days, Line, actor_of, participant, read_days, reason, views};
use crate::access::Action;
use crate::dates;
use crate::scheduling::book::{Asker, Book, Calendar, Kind};
use crate::scheduling::occupancy::takes_time;
use crate::scheduling::slots::{self, Span};
use crate::store::{StoreError, View};
use crate::web::assets::ASSETS;
use crate::web::form::percent_encode;
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::reading::{code, text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web};
use axum::extract::State;
use chrono::{Datelike, Duration, NaiveDate, Timelike};
use maud::{Markup, html};
use serde::Deserialize;

/// One row of the grid, minutes.
const ROW_MINUTES: i64 = 5;
/// What is shown of a day at least, hours.
const SHOWN: (i64, i64) = (8, 17);
/// Columns at most: more cannot be read on any screen.
const COLUMNS_MAX: usize = 14;
/// Overlapping entries side by side; further ones share the last lane.
const LANES_MAX: usize = 4;
/// The length of the free times that are offered for a click.
const OFFER_MINUTES: i64 = 20;

/// The classes that place things in the grid, for the style sheet.
pub fn style() -> String {
    let rows = 24 * 60 / ROW_MINUTES;
    let mut css: String =
        (1..=rows).map(|n| format!(".gs{n}{{grid-row-start:{n}}}.gn{n}{{grid-row-end:span {n}}}")).collect();
    for lanes in 2..=LANES_MAX {
        for lane in 0..lanes {
            let (width, left) = (100 / lanes, 100 * lane / lanes);
            css.push_str(&format!(".lane{lane}of{lanes}{{width:{width}%;margin-left:{left}%}}"));
        }
    }
    css
}

pub fn routes(web: &Web) -> Vec<Route> {
    let may = Policy::Permits(Action::Search, Target::Resource("Appointment"));
    vec![Route::new(Method::Get, "/schedule/grid", may, page, web.clone())]
}

#[derive(Deserialize, Default)]
struct GridQuery {
    #[serde(default)]
    view: String,
    #[serde(default)]
    day: String,
    #[serde(default)]
    practitioner: String,
}

/// One column: a calendar on a day.
struct Column<'a> {
    title: String,
    calendar: &'a Calendar,
    day: NaiveDate,
    open: Vec<Span>,
    free: Vec<i64>,
}

fn monday(day: NaiveDate) -> NaiveDate {
    day - Duration::days(i64::from(day.weekday().num_days_from_monday()))
}

async fn page(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<GridQuery>) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let today = dates::today(web.now(), zone);
    let day = dates::parse_day(&asked.day).unwrap_or(today);
    let view_name = if matches!(asked.view.as_str(), "week" | "rooms") { asked.view.clone() } else { "day".to_owned() };
    let (first, last) = if view_name == "week" { (monday(day), monday(day) + Duration::days(6)) } else { (day, day) };
    let own = visit.session.as_ref().and_then(|s| s.practitioner.clone()).unwrap_or_default();
    let wanted = actor_of(if asked.practitioner.is_empty() { &own } else { &asked.practitioner });
    let (now, name) = (web.now(), view_name.clone());
    let read = move |view: &View<'_>| {
        let book = Book::load(view, zone)?;
        let whose = of_week(&book, &wanted).filter(|_| name == "week").map(|calendar| calendar.actor.clone());
        let found = read_days(view, (first, last), book, whose.as_deref())?;
        let markup = columns(view, &found, &name, (first, last), &wanted, now)?;
        Ok::<_, StoreError>((markup, found, wanted))
    };
    let ((grid, who), found, wanted) = web.store().view(&visit.actor, read).await?;
    let step = if view_name == "week" { 7 } else { 1 };
    let who = who.unwrap_or(wanted);
    let href =
        |day: NaiveDate| format!("/schedule/grid?view={view_name}&day={day}&practitioner={}", percent_encode(&who));
    let title = if view_name == "week" { format!("Week of {}", dates::long_day(first)) } else { dates::week_day(day) };
    Ok(layout::page(
        &web,
        &visit,
        Section::Schedule,
        "Calendar",
        None,
        &html! {
            div.head {
                h1 { (title) @if day == today { " " span.tag.calm { "Today" } } }
                (views(&view_name, day, &who))
                a.button.primary href={ "/schedule/book?day=" (day) } { "Book an appointment" }
            }
            div.bar {
                nav.days aria-label="Days" {
                    a.button href=(href(day - Duration::days(step))) { "‹ Previous" }
                    a.button href=(href(today)) aria-current=[(day == today).then_some("date")] { "Today" }
                    a.button href=(href(day + Duration::days(step))) { "Next ›" }
                }
                @if view_name == "week" { (choose(&found.book, &who, day)) }
            }
            (grid)
            p.hint #cal-status aria-live="polite" {
                "Drag an appointment to move it. With the keyboard: go to it with Tab, move it with Alt and the arrow keys, then \
                 press Enter. Times in " (zone.name()) "."
            }
            script src=(ASSETS.calendar.path) defer {}
        },
    ))
}

fn choose(book: &Book, who: &str, day: NaiveDate) -> Markup {
    html! {
        form.inline method="get" action="/schedule/grid" {
            input type="hidden" name="view" value="week";
            input type="hidden" name="day" value=(day);
            label for="who" { "Practitioner" }
            select #who name="practitioner" {
                @for c in book.of_kind(Kind::Practitioner) { option value=(c.actor) selected[c.actor == who] { (c.name) } }
            }
            button type="submit" { "Show" }
        }
    }
}

/// Whose week is shown.
fn of_week<'b>(book: &'b Book, wanted: &str) -> Option<&'b Calendar> {
    let chosen = book.calendar(wanted).filter(|c| c.kind == Kind::Practitioner);
    chosen.or_else(|| book.of_kind(Kind::Practitioner).next())
}

/// The grid of a view, and of whom it is where it shows one person.
fn columns(
    view: &View<'_>,
    found: &Days,
    name: &str,
    (first, last): (NaiveDate, NaiveDate),
    wanted: &str,
    now_s: i64,
) -> Result<(Markup, Option<String>), StoreError> {
    let book = &found.book;
    let column = |calendar, title: String, day| -> Result<Column<'_>, StoreError> {
        make(view, book, calendar, title, day, now_s)
    };
    let all: Vec<Column<'_>> = match name {
        "week" => {
            let Some(calendar) = of_week(book, wanted) else { return Ok((empty(), None)) };
            let days = first.iter_days().take_while(|d| *d <= last);
            let all = days
                .map(|day| column(calendar, day.format("%a %-d %b").to_string(), day))
                .collect::<Result<Vec<_>, _>>()?;
            // A free weekend takes no room.
            all.into_iter()
                .filter(|c| {
                    c.day.weekday().num_days_from_monday() < 5 || !c.open.is_empty() || !entries(found, c).is_empty()
                })
                .collect()
        }
        "rooms" => {
            let places = book.calendars.iter().filter(|c| c.kind != Kind::Practitioner);
            places.map(|c| column(c, c.name.clone(), first)).collect::<Result<_, _>>()?
        }
        _ => {
            let practitioners = book.of_kind(Kind::Practitioner);
            let all = practitioners.map(|c| column(c, c.name.clone(), first)).collect::<Result<Vec<_>, _>>()?;
            all.into_iter().filter(|c| !c.open.is_empty() || !entries(found, c).is_empty()).collect()
        }
    };
    let who = all.first().filter(|_| name == "week").map(|c| c.calendar.actor.clone());
    Ok((if all.is_empty() { empty() } else { grid(found, &all, now_s) }, who))
}

fn empty() -> Markup {
    html! { p.empty { "Nobody works on this day and nothing is booked. Hours are entered under " a href="/schedule/hours" { "Hours and holidays" } "." } }
}

fn make<'a>(
    view: &View<'_>,
    book: &'a Book,
    calendar: &'a Calendar,
    title: String,
    day: NaiveDate,
    now_s: i64,
) -> Result<Column<'a>, StoreError> {
    let open = if calendar.hours.is_known() { book.windows(calendar, day) } else { Vec::new() };
    let asker = Asker { holder: "", now_s };
    let busy =
        crate::scheduling::occupancy::busy(view.connection(), &calendar.actor, book.day(day), asker.holder, now_s)?;
    let free = if calendar.kind == Kind::Practitioner {
        slots::free(&open, &busy, OFFER_MINUTES * 60, OFFER_MINUTES * 60).into_iter().filter(|s| *s > now_s).collect()
    } else {
        Vec::new()
    };
    Ok(Column { title, calendar, day, open, free })
}

fn entries<'d>(found: &'d Days, column: &Column<'_>) -> Vec<&'d Line> {
    let here = |l: &&Line| l.day == column.day && l.actors.contains(&column.calendar.actor);
    found.lines.iter().filter(here).filter(|l| takes_time(&l.appointment)).collect()
}

/// Which hours the grid shows.
struct Frame {
    first: i64,
    last: i64,
}

impl Frame {
    fn of(found: &Days, columns: &[Column<'_>]) -> Frame {
        let zone = found.book.zone;
        let minute = |s: i64| minute_of(s, zone);
        let opens = columns.iter().flat_map(|c| &c.open).map(|s| (minute(s.from), minute(s.until - 1) + 1));
        let booked = columns.iter().flat_map(|c| entries(found, c)).map(|l| {
            let from = i64::from(l.start.num_seconds_from_midnight()) / 60;
            (from, from + l.minutes)
        });
        let (first, last) =
            opens.chain(booked).fold((SHOWN.0 * 60, SHOWN.1 * 60), |(a, b), (f, t)| (a.min(f), b.max(t)));
        Frame { first: first / 60 * 60, last: ((last + 59) / 60 * 60).min(24 * 60) }
    }

    /// The classes that place minutes `from` to `until` of a day.
    fn place(&self, from: i64, until: i64) -> String {
        let row = |m: i64| (m.clamp(self.first, self.last) - self.first) / ROW_MINUTES;
        let start = row(from);
        let span = (row(until + ROW_MINUTES - 1) - start).max(2);
        format!("gs{} gn{}", start + 1, span)
    }
}

fn minute_of(unix_s: i64, zone: chrono_tz::Tz) -> i64 {
    i64::from(dates::local(unix_s, zone).num_seconds_from_midnight()) / 60
}

fn grid(found: &Days, columns: &[Column<'_>], now_s: i64) -> Markup {
    let frame = Frame::of(found, columns);
    let hours = (frame.first / 60)..(frame.last / 60);
    html! {
        div.calendar data-first=(frame.first) data-row=(ROW_MINUTES) {
            div.times aria-hidden="true" { div.name {} div.rows-of {
                @for hour in hours { span class={ "hour " (frame.place(hour * 60, hour * 60 + 60)) } { (format!("{hour:02}:00")) } }
            } }
            @for column in columns.iter().take(COLUMNS_MAX) {
                section.column aria-label=(column.title) {
                    h2.name { (column.title) }
                    div.rows-of data-day=(column.day) data-actor=(column.calendar.actor) data-kind=(if column.calendar.kind == Kind::Practitioner { "practitioner" } else { "place" }) {
                        (body(found, column, &frame, now_s))
                    }
                }
            }
        }
        @if columns.len() > COLUMNS_MAX { p.hint { "Only the first " (COLUMNS_MAX) " of " (columns.len()) " columns are shown." } }
    }
}

fn body(found: &Days, column: &Column<'_>, frame: &Frame, now_s: i64) -> Markup {
    let zone = found.book.zone;
    let book_at = |s: i64| {
        let time = dates::local(s, zone).format("%H:%M").to_string();
        (
            format!(
                "/schedule/book?day={}&time={}&practitioner={}",
                column.day,
                percent_encode(&time),
                percent_encode(&column.calendar.actor)
            ),
            time,
        )
    };
    let lines = entries(found, column);
    let lanes = lanes(&lines);
    html! {
        @if column.calendar.hours.is_known() {
            @for span in &column.open { div class={ "open " (frame.place(minute_of(span.from, zone), minute_of(span.until - 1, zone) + 1)) } {} }
        }
        @for at in &column.free {
            @let (href, time) = book_at(*at);
            a href=(href) tabindex="-1" class={ "free " (frame.place(minute_of(*at, zone), minute_of(*at, zone) + OFFER_MINUTES)) } { "+ " (time) }
        }
        @for (line, lane) in lines.iter().zip(lanes) { (entry(found, line, frame, &lane, column)) }
        @if dates::local(now_s, zone).date_naive() == column.day {
            @let now = minute_of(now_s, zone);
            @if (frame.first..frame.last).contains(&now) { div class={ "now " (frame.place(now, now)) } {} }
        }
    }
}

fn entry(found: &Days, line: &Line, frame: &Frame, lane: &str, column: &Column<'_>) -> Markup {
    let appointment = &line.appointment;
    let from = i64::from(line.start.num_seconds_from_midnight()) / 60;
    let name = line.patient.as_ref().map_or_else(|| "no patient".to_owned(), |p| p.full_name());
    let others = if column.calendar.kind == Kind::Practitioner {
        &[Kind::Room, Kind::Equipment][..]
    } else {
        &[Kind::Practitioner][..]
    };
    let state = code(appointment, "status");
    html! {
        a href={ "/schedule/" (text(appointment, "/id")) }
            class={ "appt " (frame.place(from, from + line.minutes)) " " (lane) " is-" (state) }
            draggable="false"
            data-id=(text(appointment, "/id")) data-version=(version(appointment)) data-minutes=(line.minutes)
            data-patient=[participant(appointment, "Patient")] data-movable=[matches!(state, "booked" | "pending").then_some("")] {
            b { (line.start.format("%H:%M")) " " (name) }
            @if line.minutes >= 20 {
                span { (reason(appointment)) @let places = line.names(&found.book, others); @if !places.is_empty() { " · " (places) } }
            }
        }
    }
}

/// The lane of each line: overlapping ones stand side by side. Lines are in order of their start.
fn lanes(lines: &[&Line]) -> Vec<String> {
    let spans: Vec<(i64, i64)> = lines
        .iter()
        .map(|l| {
            let from = i64::from(l.start.num_seconds_from_midnight()) / 60;
            (from, from + l.minutes.max(2 * ROW_MINUTES))
        })
        .collect();
    let mut out = vec![String::new(); spans.len()];
    let mut group: Vec<(usize, usize)> = Vec::new();
    let mut ends: Vec<i64> = Vec::new();
    let mut close = |group: &mut Vec<(usize, usize)>, ends: &mut Vec<i64>| {
        let count = ends.len().min(LANES_MAX);
        for (index, lane) in group.drain(..) {
            if let Some(class) = out.get_mut(index).filter(|_| count > 1) {
                *class = format!("lane{}of{count}", lane.min(count - 1));
            }
        }
        ends.clear();
    };
    for (index, (from, until)) in spans.into_iter().enumerate() {
        if ends.iter().all(|end| *end <= from) {
            close(&mut group, &mut ends);
        }
        let lane = ends.iter().position(|end| *end <= from).unwrap_or(ends.len());
        match ends.get_mut(lane) {
            Some(end) => *end = until,
            None => ends.push(until),
        }
        group.push((index, lane));
    }
    close(&mut group, &mut ends);
    out
}
