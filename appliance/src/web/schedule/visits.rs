//! Visit types: their length, who offers them, where, and what strangers may do with them online.

use super::book::options;
use crate::access::{Action, Object, authorize};
use crate::scheduling::book::{Book, Kind};
use crate::scheduling::visit::{Online, VisitType};
use crate::store::{Expect, StoreError, Tx, View};
use crate::web::fields::{self, Field, Problems};
use crate::web::form::Form;
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::{Method, PageError, Policy, Route, Target, Web};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::json;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("HealthcareService"));
    vec![
        Route::new(Method::Get, "/schedule/visits", may(Action::Search), list, w()),
        Route::new(Method::Get, "/schedule/visits/{visit}", may(Action::Update), edit, w()),
        Route::new(Method::Post, "/schedule/visits/{visit}", may(Action::Update), save, w()),
    ]
}

/// In an address, instead of an id: one that does not exist yet.
const NEW: &str = "new";

async fn book(web: &Web, visit: &Visit) -> Result<Book, PageError> {
    let zone = web.settings().zone;
    Ok(web.store().view::<_, StoreError, _>(&visit.actor, move |view: &View<'_>| Book::load(view, zone)).await?)
}

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let book = book(&web, &visit).await?;
    let may = authorize(&visit.actor, Action::Update, Object::resource("HealthcareService")).is_ok();
    let names = |actors: &[String]| {
        actors.iter().filter_map(|a| Some(book.calendar(a)?.name.as_str())).collect::<Vec<_>>().join(", ")
    };
    let online = |mode: Online| Online::ALL.iter().find(|(m, ..)| *m == mode).map_or("", |(.., words)| words);
    Ok(layout::page(
        &web,
        &visit,
        Section::Schedule,
        "Visit types",
        None,
        &html! {
            div.head { h1 { "Visit types" } @if may { a.button.primary href="/schedule/visits/new" { "Add a visit type" } } }
            @if book.visits.is_empty() { p.empty { "None yet. A visit type has a length, those who offer it, and the room and equipment that it needs." } }
            @else { table.list {
                (layout::columns(&["Name", "Length", "Offered by", "Room", "Equipment", "Online"]))
                tbody { @for v in &book.visits { tr.past[!v.active] {
                    th scope="row" { @if may { a href={ "/schedule/visits/" (v.id) } { (v.name) } } @else { (v.name) } }
                    td { (v.minutes) " min" }
                    td { @if v.offered_by.is_empty() { "everybody" } @else { (names(&v.offered_by)) } }
                    td { (names(&v.rooms)) } td { (names(&v.equipment)) } td { (online(v.online)) }
                } } }
            } }
            p.foot { a.button.small href="/schedule" { "Back to the schedule" } }
        },
    ))
}

async fn edit(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Markup, PageError> {
    let book = book(&web, &visit).await?;
    let found = if id == NEW {
        VisitType { active: true, ..VisitType::plain() }
    } else {
        book.visit(&id).cloned().ok_or(PageError::NotFound)?
    };
    Ok(page(&web, &visit, &book, &id, &found, &Problems::default()))
}

fn page(web: &Web, visit: &Visit, book: &Book, id: &str, shown: &VisitType, problems: &Problems) -> Markup {
    let title = if id == NEW { "Add a visit type" } else { "Change a visit type" };
    let modes: Vec<(String, String)> =
        Online::ALL.iter().map(|(_, code, words)| ((*code).to_owned(), (*words).to_owned())).collect();
    let ticks = |legend: &str, hint: &str, prefix: &str, kind: Kind, chosen: &[String]| {
        html! { fieldset { legend { (legend) } @let all = options(book, kind);
            @if all.is_empty() { p.hint { "None is entered." } }
            div.checks { @for (actor, name) in all {
                label.check { input type="checkbox" name={ (prefix) (actor) } value="yes" checked[chosen.contains(&actor)]; (name) }
            } }
            p.hint { (hint) }
        } }
    };
    let (minutes, notice, horizon) =
        (shown.minutes.to_string(), shown.notice_hours.to_string(), shown.horizon_days.to_string());
    layout::page(
        web,
        visit,
        Section::Schedule,
        title,
        None,
        &html! {
            div.head { h1 { (title) } }
            (problems.summary())
            form.sheet method="post" action={ "/schedule/visits/" (id) } {
                (layout::csrf(visit)) input type="hidden" name="version" value=(shown.version);
                div.columns {
                    (Field::new("Name", "name", &shown.name).required().show(problems))
                    (Field::new("Length in minutes", "minutes", &minutes).kind("number").required().show(problems))
                }
                (Field::new("What the patient should know", "comment", &shown.comment).hint("Shown when it is booked online").show(problems))
                (ticks("Offered by", "None ticked: everybody who has hours.", "by-", Kind::Practitioner, &shown.offered_by))
                (ticks("Needs one of these rooms", "None ticked: no room is needed.", "in-", Kind::Room, &shown.rooms))
                (ticks("Needs one of these", "None ticked: no equipment is needed.", "eq-", Kind::Equipment, &shown.equipment))
                fieldset { legend { "Online" }
                    (fields::select("Online booking", "online", shown.online.code(), &modes, true, problems))
                    div.columns.narrow {
                        (Field::new("At least hours ahead", "notice", &notice).kind("number").required().show(problems))
                        (Field::new("At most days ahead", "horizon", &horizon).kind("number").required().show(problems))
                    }
                    label.check { input type="checkbox" name="new_patients" value="yes" checked[shown.new_patients]; " Also for people who were never here" }
                }
                label.check { input type="checkbox" name="active" value="yes" checked[shown.active]; " In use" }
                (layout::save_or_cancel("Save", "/schedule/visits"))
            }
        },
    )
}

fn filled(book: &Book, form: &Form) -> (VisitType, Problems) {
    let mut problems = Problems::default();
    let mut number = |name: &'static str, least: i64, most: i64| {
        let value = form.text(name).parse().ok().filter(|n| (least..=most).contains(n));
        if value.is_none() {
            problems.add(name, format!("A whole number from {least} to {most}."));
        }
        value.unwrap_or(least)
    };
    let (minutes, notice_hours, horizon_days) =
        (number("minutes", 5, 480), number("notice", 0, 24 * 60), number("horizon", 1, 365));
    let ticked = |prefix: &str, kind: Kind| {
        options(book, kind)
            .into_iter()
            .map(|(actor, _)| actor)
            .filter(|a| form.text(&format!("{prefix}{a}")) == "yes")
            .collect()
    };
    let visit = VisitType {
        version: form.text("version").parse().unwrap_or(0),
        name: form.text("name").to_owned(),
        comment: form.text("comment").to_owned(),
        active: form.text("active") == "yes",
        minutes,
        offered_by: ticked("by-", Kind::Practitioner),
        rooms: ticked("in-", Kind::Room),
        equipment: ticked("eq-", Kind::Equipment),
        online: Online::parse(form.text("online")),
        notice_hours,
        horizon_days,
        new_patients: form.text("new_patients") == "yes",
        ..VisitType::plain()
    };
    if visit.name.is_empty() || visit.name.chars().count() > 80 {
        problems.add("name", "Please give a name of at most 80 characters.");
    }
    (visit, problems)
}

async fn save(State(web): State<Web>, visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, PageError> {
    let book = book(&web, &visit).await?;
    let (shown, problems) = filled(&book, &form);
    if !problems.is_empty() {
        let page = page(&web, &visit, &book, &id, &shown, &problems);
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let store = move |tx: &mut Tx<'_>| {
        if id == NEW {
            let mut body = json!({});
            shown.write(&mut body);
            return tx.create("HealthcareService", body);
        }
        let mut body = tx.read("HealthcareService", &id)?.json()?;
        shown.write(&mut body);
        tx.update("HealthcareService", &id, body, Expect::Version(shown.version))
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect("/schedule/visits"))
}
