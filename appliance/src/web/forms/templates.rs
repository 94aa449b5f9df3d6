//! The editor of templates: lines of text, with the form that they make beside them.

use super::questions::questions;
use crate::access::Action;
use crate::forms::{Answers, Template};
use crate::store::{Expect, Query, StoreError, Tx, View};
use crate::web::fields::{Field, Problems, area};
use crate::web::form::Form;
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{text, version};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::{Value, json};

/// In an address, instead of an id: one that does not exist yet.
const NEW: &str = "new";
const EXAMPLE: &str = "## Vital signs\nweight: Weight in kg | decimal | from weight\nheight: Height in cm | decimal | from height\n\
bmi: Body mass index | decimal | = weight / (height / 100) ^ 2\n## History\nreason: Reason for the visit | text | required\n\
smoker: Do you smoke? | choice: yes, no, former\npack: Pack years | integer | if smoker = yes\nmedication: Current medication | text | from medications\n";

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Questionnaire"));
    vec![
        Route::new(Method::Get, "/templates", may(Action::Search), list, w()),
        Route::new(Method::Post, "/templates/preview", may(Action::Update), preview, w()),
        Route::new(Method::Get, "/templates/{template}", may(Action::Update), edit, w()),
        Route::new(Method::Post, "/templates/{template}", may(Action::Update), save, w()),
    ]
}

/// All templates by title.
pub fn all(view: &View<'_>) -> Result<Vec<Value>, StoreError> {
    let found = view.search(&Query::all("Questionnaire")?)?;
    let mut all = chart::jsons(&found.resources)?;
    all.sort_by_cached_key(|t| (text(t, "/status") != "active", text(t, "/title").to_lowercase()));
    Ok(all)
}

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let found = web.store().view::<_, StoreError, _>(&visit.actor, |view: &View<'_>| all(view)).await?;
    Ok(layout::page(
        &web,
        &visit,
        Section::Templates,
        "Templates",
        None,
        &html! {
            div.head { h1 { "Templates" } div.tools { a.button href="/phrases" { "Phrases" } a.button.primary href="/templates/new" { "Write a template" } } }
            @if found.is_empty() { p.empty { "None yet. A template is a form that clinicians fill in: questions, sections, calculations." } }
            @else { table.list {
                (layout::columns(&["Title", "Questions", "State"]))
                tbody { @for template in &found { tr.past[text(template, "/status") != "active"] {
                    th scope="row" { a href={ "/templates/" (text(template, "/id")) } { (text(template, "/title")) } }
                    td { (Template::read(template).questions().len()) }
                    td { (if text(template, "/status") == "active" { "in use" } else { "retired" })
                        @if let Some(why) = Template::unsupported(template) { br; span.soft { "It cannot be filled in here: " (why) } } }
                } } }
            } }
        },
    ))
}

async fn edit(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Markup, PageError> {
    let mut foreign = None;
    let (title, lines, number, active) = if id == NEW {
        (String::new(), EXAMPLE.to_owned(), String::new(), true)
    } else {
        let own = id.clone();
        let read = move |view: &View<'_>| view.read("Questionnaire", &own)?.json();
        let found = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
        let active = text(&found, "/status") == "active";
        foreign = Some(found.clone()).filter(|found| !Template::read(found).is_ours(found));
        (text(&found, "/title").to_owned(), Template::read(&found).text(), version(&found).to_string(), active)
    };
    let fields = [
        ("title", title),
        ("lines", lines),
        ("version", number),
        ("active", if active { "yes".into() } else { String::new() }),
    ];
    let form = Form::from_fields(fields.map(|(n, v)| (n.to_owned(), v)));
    if let Some(found) = foreign {
        return Ok(foreign_page(&web, &visit, &id, &form, &found));
    }
    Ok(page(&web, &visit, &id, &form, &Problems::default()))
}

fn page(web: &Web, visit: &Visit, id: &str, form: &Form, problems: &Problems) -> Markup {
    let title = if id == NEW { "Write a template" } else { "Change a template" };
    layout::page(
        web,
        visit,
        Section::Templates,
        title,
        None,
        &html! {
            div.head { h1 { (title) } a.button href="/templates" { "All templates" } }
            (problems.summary())
            form #template method="post" action={ "/templates/" (id) } {
                (layout::csrf(visit)) input type="hidden" name="version" value=(form.text("version"));
                div.halves {
                    div.panel {
                        (Field::new("Title", "title", form.text("title")).required().show(problems))
                        (area("Lines", "lines", form.raw("lines"), 22, problems))
                        label.check { input type="checkbox" name="active" value="yes" checked[form.text("active") == "yes"]; " In use" }
                        p.actions { button.primary type="submit" { "Save" } }
                        details { summary { "How to write it" } (help()) }
                    }
                    div.panel { h2 { "What it looks like" }
                        div #preview aria-live="polite" hx-post="/templates/preview" hx-include="#template"
                            hx-trigger="load, keyup changed delay:500ms from:#lines" { (shown(form.raw("lines"))) }
                    }
                }
            }
        },
    )
}

/// A template of another program: its lines would say less than it does, so that it is looked at and taken into use here, and changed
/// where it comes from.
fn foreign_page(web: &Web, visit: &Visit, id: &str, form: &Form, found: &Value) -> Markup {
    let title = text(found, "/title");
    let title = if title.is_empty() { "Template of another program" } else { title };
    layout::page(
        web,
        visit,
        Section::Templates,
        title,
        None,
        &html! {
            div.head { h1 { (title) } a.button href="/templates" { "All templates" } }
            div.notice.info { p { "Another program made this template; it is changed there. Here it can be taken into use." } }
            @if let Some(why) = Template::unsupported(found) { div.notice.warn { p { "It cannot be filled in here: " (why) } } }
            form.sheet method="post" action={ "/templates/" (id) } {
                (layout::csrf(visit)) input type="hidden" name="version" value=(form.text("version"));
                input type="hidden" name="foreign" value="yes";
                label.check { input type="checkbox" name="active" value="yes" checked[form.text("active") == "yes"]; " In use" }
                p.actions { button.primary type="submit" { "Save" } }
            }
            section.panel { h2 { "What it looks like" }
                (questions(&Template::read(found), &Answers::new(web.settings().zone), &Default::default(), true)) }
        },
    )
}

fn help() -> Markup {
    html! {
        p { "One line is one question: " code { "name: Question | kind | more" } "." }
        ul {
            li { "Kinds: " code { "string" } ", " code { "text" } ", " code { "integer" } ", " code { "decimal" } ", " code { "date" } ", " code { "boolean" } ", " code { "choice: yes, no" } ", " code { "open-choice: yes, no" } " (or other words), " code { "dateTime" } ", " code { "time" } ", " code { "url" } ", " code { "quantity" } " (with a unit)." }
            li { code { "required" } " must be answered before the form is signed." }
            li { code { "if smoker = yes" } " is asked only then; " code { "!=" } " for the opposite. A quantity is compared with its unit: " code { "if weight = 80 kg" } "." }
            li { code { "= weight / (height / 100) ^ 2" } " is calculated." }
            li { code { "from medications" } " is filled in from the chart: " (crate::forms::template::SOURCES.join(", ")) "." }
            li { code { "## Title" } " begins a section; " code { "## Title (repeats)" } " one that can be filled in several times. " code { "> text" } " is shown as it is." }
        }
    }
}

fn shown(lines: &str) -> Markup {
    match Template::parse(lines) {
        Ok(template) => questions(&template, &Answers::new(chrono_tz::UTC), &Default::default(), true),
        Err(problem) => html! { p.problem { (problem) } },
    }
}

async fn preview(form: Form) -> Markup {
    shown(form.raw("lines"))
}

/// Takes a template of another program into use, or out of it.
async fn save_state(web: &Web, visit: &Visit, id: String, form: Form) -> Result<Response, PageError> {
    let store = move |tx: &mut Tx<'_>| {
        let mut body = tx.read("Questionnaire", &id)?.json()?;
        body["status"] = if form.text("active") == "yes" { "active" } else { "retired" }.into();
        let version = form.text("version").parse().map_err(|_| StoreError::VersionRequired)?;
        tx.update("Questionnaire", &id, body, Expect::Version(version))
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect("/templates"))
}

async fn save(State(web): State<Web>, visit: Visit, Path(id): Path<String>, form: Form) -> Result<Response, PageError> {
    if form.text("foreign") == "yes" && id != NEW {
        return save_state(&web, &visit, id, form).await;
    }
    let mut problems = Problems::default();
    if form.text("title").is_empty() || form.text("title").chars().count() > 100 {
        problems.add("title", "Please give a title of at most 100 characters.");
    }
    let template = Template::parse(form.raw("lines")).map_err(|problem| problems.add("lines", problem));
    if let Some(problem) = template.as_ref().ok().and_then(Template::unit_missing) {
        problems.add("lines", problem);
    }
    let (Ok(template), true) = (template, problems.is_empty()) else {
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page(&web, &visit, &id, &form, &problems)).into_response());
    };
    let store = move |tx: &mut Tx<'_>| {
        let mut body =
            if id == NEW { json!({"resourceType": "Questionnaire"}) } else { tx.read("Questionnaire", &id)?.json()? };
        body["status"] = if form.text("active") == "yes" { "active" } else { "retired" }.into();
        body["title"] = form.text("title").into();
        body["subjectType"] = json!(["Patient"]);
        body["item"] = template.write();
        if id == NEW {
            return tx.create("Questionnaire", body);
        }
        let version = form.text("version").parse().map_err(|_| StoreError::VersionRequired)?;
        tx.update("Questionnaire", &id, body, Expect::Version(version))
    };
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect("/templates"))
}
