//! The patient's documents: letters, scans, signed notes, as files to take home.

use super::super::gate::Visit;
use super::super::layout::{self, Portal};
use super::super::reading::{is_note, text};
use super::super::{Method, PageError, Policy, Route, Target, Web, dates, documents};
use super::{patient, record};
use crate::access::Action;
use crate::store::{StoreError, View};
use axum::extract::{Path, State};
use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("DocumentReference"));
    vec![
        Route::new(Method::Get, "/documents", may(Action::Search), list, w()),
        Route::new(Method::Get, "/documents/{document}/file", may(Action::Read), file, w()),
    ]
}

/// Whether the practice stands by a document: a draft is nobody's yet, and what was replaced or mistaken is not handed out.
fn is_final(document: &Value) -> bool {
    text(document, "/status") == "current"
        && !matches!(text(document, "/docStatus"), "preliminary" | "entered-in-error")
}

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let id = patient(&visit)?;
    let read = move |view: &View<'_>| record::all_of(view, "DocumentReference", &id);
    let mut all = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    all.retain(is_final);
    all.sort_by_key(|document| std::cmp::Reverse(text(document, "/date").to_owned()));
    let zone = web.settings().zone;
    Ok(layout::portal(
        &web,
        &visit,
        Portal::Documents,
        "Documents",
        &html! {
            div.head { h1 { "Documents" } }
            @if all.is_empty() { p.empty { "There are no documents yet." } }
            @else { table.list {
                (layout::columns(&["Document", "Kind", "Date"]))
                tbody { @for document in &all { tr {
                    th scope="row" { a href={ "/documents/" (text(document, "/id")) "/file" } { (documents::title(document)) } }
                    td { (if is_note(document) { "Note" } else { documents::kind_word(text(document, "/content/0/attachment/contentType")) }) }
                    td { (dates::show_day(text(document, "/date"), zone)) }
                } } }
            } }
        },
    ))
}

async fn file(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Response, PageError> {
    let owner = patient(&visit)?;
    documents::send(&web, &visit.actor, (&owner, &id), is_final).await
}
