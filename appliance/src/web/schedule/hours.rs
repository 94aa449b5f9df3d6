//! Hours: the week of each practitioner, room and piece of equipment, their exceptions, and the practice's holidays.

use crate::access::{Action, Object, authorize};
use crate::dates;
use crate::scheduling::book::{self, Book, Kind, PRACTICE};
use crate::scheduling::hours::{DAYS, ENTRIES_MAX, Exception, Hours, Rule};
use crate::store::{Expect, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems};
use crate::web::form::{Form, FormError, percent_encode};
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use chrono::{NaiveDateTime, NaiveTime, Weekday};
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;

const STEPS: [i64; 7] = [5, 10, 15, 20, 30, 45, 60];

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Schedule"));
    vec![
        Route::new(Method::Get, "/schedule/hours", may(Action::Search), list, w()),
        Route::new(Method::Get, "/schedule/hours/of", may(Action::Search), one, w()),
        Route::new(Method::Post, "/schedule/hours/of", may(Action::Update), change, w()),
        Route::new(
            Method::Post,
            "/schedule/hours/places",
            Policy::Permits(Action::Create, Target::Resource("Location")),
            add_place,
            w(),
        ),
    ]
}

#[derive(Deserialize, Default)]
struct Of {
    #[serde(default)]
    actor: String,
}

fn days_said(days: &[Weekday]) -> String {
    let named: Vec<&str> =
        DAYS.iter().filter(|(.., d)| days.contains(d)).filter_map(|(_, name, _)| name.get(..3)).collect();
    named.join(", ")
}

fn rule_said(rule: &Rule) -> String {
    let mut said = format!("{} {}–{}", days_said(&rule.days), rule.from.format("%H:%M"), rule.until.format("%H:%M"));
    if rule.every_weeks > 1 {
        said.push_str(&format!(", every {} weeks", rule.every_weeks));
    }
    for (word, day) in [("from", rule.first), ("to", rule.last)] {
        if let Some(day) = day {
            said.push_str(&format!(", {word} {}", dates::long_day(day)));
        }
    }
    said
}

fn exception_said(exception: &Exception) -> String {
    let whole = |t: NaiveDateTime| t.time() == NaiveTime::MIN;
    let what = if exception.open { "Open" } else { "Closed" };
    let when = if whole(exception.from) && whole(exception.until) {
        let last = dates::day_before(exception.until.date());
        if last == exception.from.date() {
            dates::long_day(last)
        } else {
            format!("{} – {}", dates::long_day(exception.from.date()), dates::long_day(last))
        }
    } else {
        format!("{} – {}", exception.from.format("%-d %b %Y %H:%M"), exception.until.format("%-d %b %Y %H:%M"))
    };
    let because = if exception.reason.is_empty() { String::new() } else { format!(" ({})", exception.reason) };
    format!("{what} {when}{because}")
}

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let book =
        web.store().view::<_, StoreError, _>(&visit.actor, move |view: &View<'_>| Book::load(view, zone)).await?;
    let may_add = authorize(&visit.actor, Action::Create, Object::resource("Location")).is_ok();
    let today = dates::today(web.now(), zone);
    let row = |actor: &str, name: &str, hours: &Hours| {
        let next = hours.exceptions.iter().find(|e| e.until.date() >= today);
        html! { tr {
            th scope="row" { a href={ "/schedule/hours/of?actor=" (percent_encode(actor)) } { (name) } }
            td { @for rule in &hours.rules { (rule_said(rule)) br; } @if hours.rules.is_empty() { span.soft { "none entered" } } }
            td { @if let Some(next) = next { (exception_said(next)) } }
        } }
    };
    let table = |title: &str, kind: Kind| {
        html! {
            h2 { (title) }
            table.list { (layout::columns(&["Name", "Hours", "Next exception"]))
                tbody { @for c in book.of_kind(kind) { (row(&c.actor, &c.name, &c.hours)) } } }
        }
    };
    Ok(layout::page(
        &web,
        &visit,
        Section::Schedule,
        "Hours and holidays",
        None,
        &html! {
            div.head { h1 { "Hours and holidays" } a.button href="/schedule" { "Back to the schedule" } }
            p.soft { "Free times are computed from these hours. All times are in " (zone.name()) ", also on the days when the clocks change." }
            h2 { "The whole practice" }
            table.list { (layout::columns(&["Name", "Hours", "Next exception"]))
                tbody { tr {
                    th scope="row" { a href={ "/schedule/hours/of?actor=" (PRACTICE) } { "Holidays" } }
                    td { span.soft { "closed for everybody" } }
                    td { @if let Some(next) = book.practice.exceptions.iter().find(|e| e.until.date() >= today) { (exception_said(next)) } }
                } } }
            (table("Practitioners", Kind::Practitioner))
            (table("Rooms", Kind::Room))
            (table("Equipment", Kind::Equipment))
            @if may_add {
                section.panel {
                    h2 { "Add a room or a piece of equipment" }
                    form.inline method="post" action="/schedule/hours/places" {
                        (layout::csrf(&visit))
                        (fields::select("What", "kind", "room", &fields::pairs(&[("room", "Room"), ("equipment", "Equipment")]), true, &Problems::default()))
                        (Field::new("Name", "name", "").required().show(&Problems::default()))
                        button type="submit" { "Add" }
                    }
                }
            }
        },
    ))
}

async fn add_place(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let name = form.text("name").to_owned();
    if name.is_empty() || name.chars().count() > 80 {
        return Err(StoreError::invalid("give a name of at most 80 characters", "name").into());
    }
    let kind = if form.text("kind") == "equipment" { Kind::Equipment } else { Kind::Room };
    let store = move |tx: &mut Tx<'_>| tx.create("Location", book::location(kind, &name));
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect("/schedule/hours"))
}

async fn one(State(web): State<Web>, visit: Visit, UrlQuery(of): UrlQuery<Of>) -> Result<Markup, PageError> {
    page(&web, &visit, &of.actor, &Form::default(), &Problems::default()).await
}

async fn page(web: &Web, visit: &Visit, actor: &str, form: &Form, problems: &Problems) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let book =
        web.store().view::<_, StoreError, _>(&visit.actor, move |view: &View<'_>| Book::load(view, zone)).await?;
    let practice = actor == PRACTICE;
    let (name, hours, version, step) = if practice {
        ("Holidays of the practice".to_owned(), book.practice.clone(), book.practice_version, 10)
    } else {
        let calendar = book.calendar(actor).ok_or(PageError::NotFound)?;
        (calendar.name.clone(), calendar.hours.clone(), calendar.schedule.as_ref().map(|s| s.1), calendar.step_minutes)
    };
    let version = version.map(|v| v.to_string()).unwrap_or_default();
    let hidden = html! {
        (layout::csrf(visit))
        input type="hidden" name="actor" value=(actor);
        input type="hidden" name="version" value=(version);
    };
    Ok(layout::page(
        web,
        visit,
        Section::Schedule,
        &name,
        None,
        &html! {
            div.head { h1 { (name) } a.button href="/schedule/hours" { "All hours" } }
            (problems.summary())
            div.grid {
                @if !practice { (weekly(&hidden, &hours, step, form, problems)) }
                (exceptions(&hidden, &hours, practice, form, problems))
            }
        },
    ))
}

fn remove(hidden: &Markup, what: &str, index: usize, said: &str) -> Markup {
    html! {
        form.inline method="post" action="/schedule/hours/of" {
            (hidden) input type="hidden" name="index" value=(index);
            button.small type="submit" name="do" value={ "remove-" (what) } aria-label={ "Remove " (said) } { "Remove" }
        }
    }
}

fn weekly(hidden: &Markup, hours: &Hours, step: i64, form: &Form, problems: &Problems) -> Markup {
    let weeks: Vec<(String, String)> =
        [(1, "Every week"), (2, "Every 2nd week"), (3, "Every 3rd week"), (4, "Every 4th week")]
            .map(|(n, w)| (n.to_string(), w.to_owned()))
            .to_vec();
    let steps: Vec<(String, String)> = STEPS.iter().map(|m| (m.to_string(), format!("{m} minutes"))).collect();
    let field = |label, name| Field::new(label, name, form.text(name));
    chart::section(
        "Weekly hours",
        None,
        &html! {
            @if hours.rules.is_empty() { p.empty { "No hours yet: no free times are offered." } }
            ul.rows { @for (index, rule) in hours.rules.iter().enumerate() {
                li { span.what { (rule_said(rule)) } (remove(hidden, "rule", index, &rule_said(rule))) }
            } }
            details open[hours.rules.is_empty() || !problems.is_empty()] {
                summary { "Add hours" }
                form method="post" action="/schedule/hours/of" {
                    (hidden)
                    fieldset { legend { "Days" } div.checks { @for (code, name, _) in DAYS {
                        label.check { input type="checkbox" name={ "day-" (code) } value="yes" checked[form.text(&format!("day-{code}")) == "yes"]; (name) }
                    } } }
                    div.columns.narrow {
                        (field("From", "from").kind("time").required().show(problems))
                        (field("Until", "until").kind("time").required().show(problems))
                        (fields::select("Repeat", "weeks", if form.text("weeks").is_empty() { "1" } else { form.text("weeks") }, &weeks, true, problems))
                        (field("First day", "first").kind("date").show(problems))
                        (field("Last day", "last").kind("date").show(problems))
                    }
                    p.actions { button.primary type="submit" name="do" value="add-rule" { "Add hours" } }
                }
            }
            form.inline method="post" action="/schedule/hours/of" {
                (hidden)
                (fields::select("Offer a time every", "step", &step.to_string(), &steps, true, &Problems::default()))
                button.small type="submit" name="do" value="step" { "Set" }
            }
        },
    )
}

fn exceptions(hidden: &Markup, hours: &Hours, practice: bool, form: &Form, problems: &Problems) -> Markup {
    let field = |label, name| Field::new(label, name, form.text(name));
    let kinds = [("closed", "Closed"), ("open", "Open as well")];
    chart::section(
        if practice { "Holidays and closed days" } else { "Exceptions" },
        None,
        &html! {
            @if hours.exceptions.is_empty() { p.empty { "None." } }
            ul.rows { @for (index, exception) in hours.exceptions.iter().enumerate() {
                li { span.what { (exception_said(exception)) } (remove(hidden, "exception", index, &exception_said(exception))) }
            } }
            details open[!problems.is_empty()] {
                summary { "Add" }
                form method="post" action="/schedule/hours/of" {
                    (hidden)
                    div.columns.narrow {
                        @if practice { input type="hidden" name="kind" value="closed"; }
                        @else { (fields::select("What", "kind", if form.text("kind").is_empty() { "closed" } else { form.text("kind") }, &fields::pairs(&kinds), true, problems)) }
                        (field("First day", "from_day").kind("date").required().show(problems))
                        (field("Last day", "until_day").kind("date").hint("empty for one day").show(problems))
                        (field("From", "from_time").kind("time").hint("empty for the whole day").show(problems))
                        (field("Until", "until_time").kind("time").show(problems))
                    }
                    (field("Reason", "reason").hint("For example: holiday, course").show(problems))
                    p.actions { button.primary type="submit" name="do" value="add-exception" { "Add" } }
                }
            }
        },
    )
}

fn new_rule(form: &Form) -> Result<Rule, Problems> {
    let mut problems = Problems::default();
    let days: Vec<Weekday> =
        DAYS.iter().filter(|(code, ..)| form.text(&format!("day-{code}")) == "yes").map(|(.., d)| *d).collect();
    let (from, until) = (dates::parse_time(form.text("from")), dates::parse_time(form.text("until")));
    if days.is_empty() {
        problems.add("", "Choose at least one day.");
    }
    let optional =
        |name: &'static str, problems: &mut Problems| match (form.text(name), dates::parse_day(form.text(name))) {
            ("", _) => None,
            (_, None) => {
                problems.add(name, "Please enter the day as year-month-day.");
                None
            }
            (_, day) => day,
        };
    let (first, last) = (optional("first", &mut problems), optional("last", &mut problems));
    let every_weeks = form.text("weeks").parse().ok().filter(|w| (1..=4).contains(w)).unwrap_or(1);
    if every_weeks > 1 && first.is_none() {
        problems.add("first", "From which week on? Enter a first day.");
    }
    match (from, until) {
        (Some(from), Some(until)) if from < until && problems.is_empty() => {
            Ok(Rule { days, from, until, every_weeks, first, last })
        }
        (Some(from), Some(until)) if from >= until => {
            problems.add("until", "The end comes before the begin.");
            Err(problems)
        }
        _ => {
            problems.add("from", "Please enter times such as 08:00.");
            Err(problems)
        }
    }
}

fn new_exception(form: &Form) -> Result<Exception, Problems> {
    let mut problems = Problems::default();
    let first = dates::parse_day(form.text("from_day"));
    let last = if form.text("until_day").is_empty() { first } else { dates::parse_day(form.text("until_day")) };
    let time = |name: &str, otherwise| {
        if form.text(name).is_empty() { Some(otherwise) } else { dates::parse_time(form.text(name)) }
    };
    let whole = form.text("until_time").is_empty();
    let (from, until) = (time("from_time", NaiveTime::MIN), time("until_time", NaiveTime::MIN));
    let (Some(first), Some(last), Some(from), Some(until)) = (first, last, from, until) else {
        problems.add("from_day", "Please enter days as year-month-day and times such as 08:00.");
        return Err(problems);
    };
    let last = if whole { dates::day_after(last) } else { last };
    let (from, until) = (first.and_time(from), last.and_time(until));
    if from >= until || (until - from).num_days() > 400 {
        problems.add("until_day", "The end must come after the begin, and within a year.");
        return Err(problems);
    }
    let reason = form.text("reason").chars().take(100).collect();
    Ok(Exception { open: form.text("kind") == "open", from, until, reason })
}

/// What one press of a button changes.
enum Change {
    Rule(Rule),
    Exception(Exception),
    RemoveRule(usize),
    RemoveException(usize),
    Step(i64),
}

fn asked(form: &Form) -> Result<Change, Problems> {
    let index = || form.text("index").parse().unwrap_or(usize::MAX);
    match form.text("do") {
        "add-rule" => new_rule(form).map(Change::Rule),
        "add-exception" => new_exception(form).map(Change::Exception),
        "remove-rule" => Ok(Change::RemoveRule(index())),
        "remove-exception" => Ok(Change::RemoveException(index())),
        _ => Ok(Change::Step(form.text("step").parse().ok().filter(|s| STEPS.contains(s)).unwrap_or(10))),
    }
}

async fn change(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let actor = form.text("actor").to_owned();
    let change = match asked(&form) {
        Ok(change) => change,
        Err(problems) => {
            let page = page(&web, &visit, &actor, &form, &problems).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
        }
    };
    let version = match form.text("version") {
        "" => None,
        said => Some(said.parse().map_err(|_| PageError::Form(FormError::Malformed))?),
    };
    let (zone, whose) = (web.settings().zone, actor.clone());
    let store = move |tx: &mut Tx<'_>| apply(tx, zone, &whose, version, change);
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/schedule/hours/of?actor={}", percent_encode(&actor))))
}

fn apply(
    tx: &mut Tx<'_>,
    zone: chrono_tz::Tz,
    actor: &str,
    version: Option<u32>,
    change: Change,
) -> Result<(), StoreError> {
    let calendars = Book::load(tx, zone)?;
    let (id, mut schedule, expect) = match (actor == PRACTICE, calendars.calendar(actor)) {
        (true, _) if calendars.practice_version.is_some() => (PRACTICE.to_owned(), None, version),
        (true, _) => (PRACTICE.to_owned(), Some(book::schedule("", "The whole practice")), None),
        (false, Some(calendar)) => match &calendar.schedule {
            Some((id, _)) => (id.clone(), None, version),
            None => (
                crate::clock::new_id().map_err(StoreError::io("randomness"))?,
                Some(book::schedule(actor, &calendar.name)),
                None,
            ),
        },
        (false, None) => return Err(StoreError::NotFound),
    };
    if schedule.is_none() {
        schedule = Some(tx.read("Schedule", &id)?.json()?);
    }
    let Some(mut schedule) = schedule else { return Err(StoreError::NotFound) };
    let mut hours = Hours::read(&schedule);
    match change {
        Change::Rule(rule) => hours.rules.push(rule),
        Change::Exception(exception) => hours.exceptions.push(exception),
        Change::RemoveRule(index) if index < hours.rules.len() => drop(hours.rules.remove(index)),
        Change::RemoveException(index) if index < hours.exceptions.len() => drop(hours.exceptions.remove(index)),
        Change::RemoveRule(_) | Change::RemoveException(_) => return Err(StoreError::NotFound),
        Change::Step(minutes) => book::set_step(&mut schedule, minutes),
    }
    if hours.rules.len() + hours.exceptions.len() > ENTRIES_MAX {
        return Err(StoreError::invalid("has too many entries: remove those that are over", "Schedule"));
    }
    hours.write(&mut schedule);
    let expect = expect.map_or(Expect::Nothing, Expect::Version);
    tx.update("Schedule", &id, schedule, expect).map(drop)
}
