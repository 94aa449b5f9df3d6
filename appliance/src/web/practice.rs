//! What the practice decides about itself: where alerts go.

use super::fields::{Field, Problems};
use super::form::Form;
use super::gate::Visit;
use super::layout::{self, Section};
use super::login::redirect;
use super::{Method, PageError, Policy, Route, Target, Web};
use crate::access::Action;
use crate::audit::{self, Event};
use crate::db::{Connection, OptionalExtension};
use crate::store::{StoreError, Tx};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};

pub const ALERTS: &str = "alert-mail";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Users);
    vec![
        Route::new(Method::Get, "/practice", may(Action::Search), page, w()),
        Route::new(Method::Post, "/practice", may(Action::Update), save, w()),
    ]
}

/// A setting that is not empty.
pub fn setting(db: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT value FROM practice_setting WHERE key = ?1 AND value <> ''";
    Ok(db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
}

async fn page(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let read = |db: &Connection| Ok::<_, StoreError>([(ALERTS, setting(db, ALERTS)?)]);
    let found = web.store().internal(read).await?;
    let form = Form::from_fields(found.map(|(key, value)| (key.to_owned(), value.unwrap_or_default())));
    Ok(show(&web, &visit, &form, &Problems::default()))
}

fn show(web: &Web, visit: &Visit, form: &Form, problems: &Problems) -> Markup {
    layout::page(
        web,
        visit,
        Section::Users,
        "Practice",
        None,
        &html! {
            div.head { h1 { "Practice" } div.tools {
                a.button href="/practice/downtime" { "Downtime pack" }
                a.button href="/practice/import" { "Moving in" }
                a.button href="/practice/export" { "Export everything" }
            } }
            (problems.summary())
            form.sheet method="post" action="/practice" { (layout::csrf(visit))
                (Field::new("Alerts go to", ALERTS, form.text(ALERTS)).kind("email").hint("Emergency access and exports of everything are told there at once").show(problems))
                (layout::save_or_cancel("Save", "/users"))
            }
            p.soft.foot { "Name, time zone, idle lock, mail server and reminders stand in appliance.toml." }
        },
    )
}

async fn save(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let mut problems = Problems::default();
    let mail = form.text(ALERTS);
    if !mail.is_empty() && !mail.split_once('@').is_some_and(|(a, b)| !a.is_empty() && b.contains('.')) {
        problems.add(ALERTS, "This is not an e-mail address.");
    }
    if !problems.is_empty() {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&web, &visit, &form, &problems)).into_response());
    }
    let store = move |tx: &mut Tx<'_>| {
        let sql = "INSERT INTO practice_setting (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
        tx.connection().execute(sql, (ALERTS, form.text(ALERTS)))?;
        tx.note(Event::new(audit::Action::UserChange, "practice", ""));
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/practice"))
}
