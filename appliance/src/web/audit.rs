//! Who looked at what: the audit record for the practice's administrator, newest first.

use super::gate::{UrlQuery, Visit};
use super::layout::{self, Section};
use super::{Method, PageError, Policy, Route, Target, Web, dates};
use crate::access::Action;
use crate::store::{StoreError, View};
use axum::extract::State;
use maud::{Markup, html};
use serde::Deserialize;

const PAGE_ENTRIES: u32 = 100;

pub fn routes(web: &Web) -> Vec<Route> {
    vec![Route::new(Method::Get, "/audit", Policy::Permits(Action::Search, Target::AuditLog), page, web.clone())]
}

#[derive(Deserialize)]
struct AuditQuery {
    before: Option<u64>,
}

async fn page(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<AuditQuery>,
) -> Result<Markup, PageError> {
    // The newest page says whether the chain holds; older ones need not walk it again.
    let read = move |view: &View<'_>| {
        let broken = if asked.before.is_none() { view.audit_broken_at()? } else { None };
        Ok((view.audit_page(asked.before, PAGE_ENTRIES)?, broken))
    };
    let (entries, broken) = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let zone = web.settings().zone;
    let oldest = entries.last().map(|e| e.seq).filter(|seq| *seq > 1);
    Ok(layout::page(
        &web,
        &visit,
        Section::Audit,
        "Access record",
        None,
        &html! {
            div.head { h1 { "Access record" } }
            p.soft {
                "Every look at a record and every change, chained by hashes so that nothing can be taken out unnoticed."
            }
            @if let Some(seq) = broken {
                p role="alert" {
                    strong { "The chain is broken at entry " (seq) ": " }
                    "that entry or its neighbour was changed, added or taken out outside of this program. Tell your \
                     practice's IT; snapshots from before show what stood there."
                }
            } @else if asked.before.is_none() {
                p.soft { "Unbroken from the first entry to the last." }
            }
            table.list.audit {
                (layout::columns(&["No.", "When", "Who", "Did", "What", "Patient", "Outcome"]))
                tbody { @for entry in &entries {
                    tr {
                        td.number { (entry.seq) }
                        td { (dates::local(entry.at_ms / 1000, zone).format("%-d %b %Y %H:%M:%S")) }
                        td { (entry.actor_name) span.soft { " " (entry.capacity) } }
                        td { (entry.action) @if entry.matches != 1 { span.soft { " (" (entry.matches) ")" } } }
                        td { (entry.kind) span.soft title=(entry.object) { " " (short(&entry.object)) } }
                        td {
                            @if !entry.patient.is_empty() {
                                a href={ "/patients/" (entry.patient) } title=(entry.patient) { (short(&entry.patient)) }
                            }
                        }
                        td { span.tag.alert[entry.outcome != "done"].plain[entry.outcome == "done"] { (entry.outcome) } }
                    }
                } }
            }
            nav.pages aria-label="Pages" {
                @if asked.before.is_some() { a.button href="/audit" { "Newest" } }
                @if let Some(oldest) = oldest { a.button href={ "/audit?before=" (oldest) } { "Older" } }
            }
        },
    ))
}

/// The first eight characters of a UUID: enough for the eye, the rest is in the title.
fn short(id: &str) -> &str {
    match id.char_indices().nth(8) {
        Some((cut, _)) if id.len() == 36 => &id[..cut],
        _ => id,
    }
}
