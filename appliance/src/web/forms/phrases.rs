//! Smart phrases: words of one's own that grow into text while it is typed.

use crate::access::Action;
use crate::store::{StoreError, Tx};
use crate::web::fields::{Field, Problems, area};
use crate::web::form::Form;
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::{Method, PageError, Policy, Route, Target, Web};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use maud::{Markup, html};
use serde_json::Value;

/// Phrases of one person at most, and their length.
const PHRASES_MAX: i64 = 300;
const CHARS_MAX: usize = 4000;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("QuestionnaireResponse"));
    vec![
        Route::new(Method::Get, "/phrases", may(Action::Search), list, w()),
        Route::new(Method::Post, "/phrases", may(Action::Create), save, w()),
        Route::new(Method::Get, "/phrases.json", may(Action::Search), words, w()),
    ]
}

async fn own(web: &Web, visit: &Visit) -> Result<Vec<(String, String)>, PageError> {
    let account = visit.actor.id.clone();
    let read = move |db: &crate::db::Connection| {
        let mut statement = db.prepare_cached("SELECT name, text FROM phrase WHERE account = ?1 ORDER BY name")?;
        let rows = statement.query_map([account], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok::<_, StoreError>(rows.collect::<Result<Vec<_>, _>>()?)
    };
    Ok(web.store().internal(read).await?)
}

async fn words(State(web): State<Web>, visit: Visit) -> Result<Response, PageError> {
    let all = own(&web, &visit).await?;
    let body: serde_json::Map<String, Value> = all.into_iter().map(|(name, text)| (name, text.into())).collect();
    Ok(([(header::CONTENT_TYPE, "application/json")], Value::from(body).to_string()).into_response())
}

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let all = own(&web, &visit).await?;
    Ok(page(&web, &visit, &all, &Form::default(), &Problems::default()))
}

fn page(web: &Web, visit: &Visit, all: &[(String, String)], form: &Form, problems: &Problems) -> Markup {
    layout::page(
        web,
        visit,
        Section::Templates,
        "Phrases",
        None,
        &html! {
            div.head { h1 { "Phrases" } a.button href="/templates" { "Templates" } }
            p.soft { "Type a dot, the word and a space in a text of a form, and it becomes the phrase: " code { ".lungs " } }
            @if !all.is_empty() { table.list {
                (layout::columns(&["Word", "Phrase", ""]))
                tbody { @for (name, text) in all { tr {
                    th scope="row" { code { "." (name) } } td { (text) }
                    td { form.inline method="post" action="/phrases" { (layout::csrf(visit)) input type="hidden" name="name" value=(name);
                        button.small type="submit" name="do" value="remove" aria-label={ "Remove " (name) } { "Remove" } } }
                } } }
            } }
            section.panel { h2 { "Add or change" } (problems.summary())
                form method="post" action="/phrases" { (layout::csrf(visit))
                    (Field::new("Word", "name", form.text("name")).required().hint("Small letters, digits and hyphens").show(problems))
                    (area("Phrase", "text", form.raw("text"), 4, problems))
                    p.actions { button.primary type="submit" name="do" value="save" { "Save" } }
                }
            }
        },
    )
}

async fn save(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let (account, name, text) =
        (visit.actor.id.clone(), form.text("name").to_owned(), form.raw("text").trim_end().to_owned());
    let mut problems = Problems::default();
    let plain = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if name.is_empty() || name.len() > 30 || !plain {
        problems.add("name", "Small letters, digits and hyphens only, at most 30.");
    }
    let remove = form.text("do") == "remove";
    if !remove && (text.is_empty() || text.chars().count() > CHARS_MAX) {
        problems.add("text", format!("A phrase has 1 to {CHARS_MAX} characters."));
    }
    if !problems.is_empty() {
        let all = own(&web, &visit).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page(&web, &visit, &all, &form, &problems)).into_response());
    }
    let store = move |tx: &mut Tx<'_>| {
        let db = tx.connection();
        if remove {
            db.execute("DELETE FROM phrase WHERE account = ?1 AND name = ?2", (account, name))?;
            return Ok(());
        }
        let count: i64 =
            db.query_row("SELECT count(*) FROM phrase WHERE account = ?1", [&account], |row| row.get(0))?;
        if count >= PHRASES_MAX {
            return Err(StoreError::invalid("there are too many phrases: remove some first", "phrases"));
        }
        let sql = "INSERT INTO phrase (account, name, text) VALUES (?1, ?2, ?3) ON CONFLICT (account, name) DO UPDATE SET text = excluded.text";
        db.execute(sql, (account, name, text))?;
        Ok(())
    };
    web.store().write(&visit.actor, store).await?;
    Ok(redirect("/phrases"))
}
