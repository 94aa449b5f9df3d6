//! Who looked at what, for the practice's administrator: filtered, exported, and proved by its chain of hashes.

use super::form::percent_encode;
use super::gate::{UrlQuery, Visit};
use super::layout::{self, Section};
use super::reading::PatientFacts;
use super::{Method, PageError, Policy, Route, Target, Web, dates};
use crate::access::Action;
use crate::access::accounts;
use crate::attachments::Attachments;
use crate::audit::{self, Filter};
use crate::store::{DamagedAttachment, StoreError, View};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;
use maud::{Markup, html};
use serde::Deserialize;

const PAGE_ENTRIES: u32 = 100;
/// Entries of one export at most: a year of a busy practice is exported by months.
const EXPORT_ENTRIES: u32 = 100_000;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = Policy::Permits(Action::Search, Target::AuditLog);
    vec![Route::new(Method::Get, "/audit", may, page, w()), Route::new(Method::Get, "/audit/export", may, export, w())]
}

#[derive(Deserialize, Default, Clone)]
struct Asked {
    before: Option<u64>,
    #[serde(default)]
    who: String,
    #[serde(default)]
    patient: String,
    #[serde(default)]
    action: String,
    #[serde(default)]
    outcome: String,
    #[serde(default)]
    capacity: String,
    #[serde(default)]
    from: String,
    #[serde(default)]
    until: String,
}

impl Asked {
    fn filter(&self, zone: chrono_tz::Tz) -> Filter {
        let start = |day: &str| dates::parse_day(day).map(|d| dates::day_start(d, zone).timestamp_millis());
        let end =
            |day: &str| dates::parse_day(day).map(|d| dates::day_start(dates::day_after(d), zone).timestamp_millis());
        Filter {
            before: self.before,
            actor: self.who.trim().to_owned(),
            // People paste the address of a chart as well as its id.
            patient: self.patient.trim().rsplit('/').next().unwrap_or_default().to_owned(),
            action: self.action.clone(),
            outcome: self.outcome.clone(),
            capacity: self.capacity.clone(),
            from_ms: start(&self.from),
            until_ms: end(&self.until),
            ..Filter::default()
        }
    }

    fn query(&self) -> String {
        let all = [
            ("who", &self.who),
            ("patient", &self.patient),
            ("action", &self.action),
            ("outcome", &self.outcome),
            ("capacity", &self.capacity),
            ("from", &self.from),
            ("until", &self.until),
        ];
        let given = all.iter().filter(|(_, v)| !v.is_empty());
        given.map(|(n, v)| format!("&{n}={}", percent_encode(v))).collect()
    }
}

async fn page(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<Asked>) -> Result<Markup, PageError> {
    let zone = web.settings().zone;
    let (filter, filtered) = (asked.filter(zone), !asked.query().is_empty());
    // The newest page says whether the chain holds; older ones need not walk it again.
    let proved = asked.before.is_none() && !filtered;
    let attachments = web.store().attachments().clone();
    let read = move |view: &View<'_>| {
        let broken = if proved { view.audit_broken_at()? } else { None };
        let head = audit::head(view.connection())?;
        let users = accounts::list(view.connection()).unwrap_or_default();
        let rotten = rotten(view, &attachments)?;
        Ok((view.audit_entries(&filter, PAGE_ENTRIES, audit::Action::Read)?, broken, head, users, rotten))
    };
    let (entries, broken, head, users, rotten) = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let oldest = entries.last().map(|e| e.seq).filter(|seq| *seq > 1 && entries.len() as u32 == PAGE_ENTRIES);
    let query = asked.query();
    Ok(layout::page(
        &web,
        &visit,
        Section::Audit,
        "Access record",
        None,
        &html! {
            div.head { h1 { "Access record" } a.button href={ "/audit/export?x=" (query) } { "Export as CSV" } }
            p.soft {
                "Every look at a record and every change, chained by hashes so that nothing can be taken out unnoticed."
            }
            @if let Some(seq) = broken {
                p role="alert" {
                    strong { "The chain is broken at entry " (seq) ": " }
                    "that entry or its neighbour was changed, added or taken out outside of this program. Tell your \
                     practice's IT; snapshots from before show what stood there."
                }
            } @else if proved {
                p.soft { "Unbroken from the first entry to the last. Head " (head.seq) ": " code { (hex::encode(head.hash)) } }
            }
            (damaged_documents(&rotten, zone))
            (filters(&asked, &users))
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
            @if entries.is_empty() { p.empty { "No entry fits." } }
            nav.pages aria-label="Pages" {
                @if asked.before.is_some() { a.button href={ "/audit?x=" (query) } { "Newest" } }
                @if let Some(oldest) = oldest { a.button href={ "/audit?before=" (oldest) (query) } { "Older" } }
            }
        },
    ))
}

/// Damaged documents with the names of their patients, which the administrator may see.
fn rotten(view: &View<'_>, attachments: &Attachments) -> Result<Vec<(DamagedAttachment, String)>, StoreError> {
    let named = |file: DamagedAttachment| {
        let name = match view.read("Patient", &file.patient) {
            Ok(patient) => PatientFacts::read(&patient.json()?).full_name(),
            Err(StoreError::NotFound | StoreError::Gone { .. } | StoreError::Damaged(_)) => String::new(),
            Err(error) => return Err(error),
        };
        Ok((file, name))
    };
    view.damaged_attachments(attachments)?.into_iter().map(named).collect()
}

/// What the backup found broken on this server: named here, where it leaks nothing, and nowhere else.
fn damaged_documents(rotten: &[(DamagedAttachment, String)], zone: chrono_tz::Tz) -> Markup {
    html! {
        @if !rotten.is_empty() {
            div role="alert" {
                p {
                    strong { (rotten.len()) @if rotten.len() == 1 { " file is" } @else { " files are" } " damaged on this server." }
                    " The backup did not do this: the file was gone or changed here before it was read. An earlier snapshot has it \
                     whole: look at the patient's record as it was before, and have the file brought back."
                }
                ul { @for (file, name) in rotten {
                    li {
                        @if file.patient.is_empty() { "Nobody's" }
                        @else { a href={ "/patients/" (file.patient) } { @if name.is_empty() { (file.patient) } @else { (name) } } }
                        ": file of " (dates::local(file.created_ms / 1000, zone).format("%-d %b %Y %H:%M"))
                        ", " (file.media_type) ", " (file.bytes.div_ceil(1024)) " KB"
                    }
                } }
            }
        }
    }
}

fn filters(asked: &Asked, users: &[accounts::Account]) -> Markup {
    let outcomes = ["done", "denied", "failed"];
    html! {
        form.bar method="get" action="/audit" {
            div.columns.narrow.filters {
                div.field { label for="who" { "Who" } select #who name="who" { option value="" { "Everybody" }
                    @for user in users { option value=(user.id) selected[user.id == asked.who] { (user.display) } } } }
                div.field { label for="action" { "Did" } select #action name="action" { option value="" { "Anything" }
                    @for action in audit::Action::WORDS { option value=(action) selected[action == asked.action] { (action) } } } }
                div.field { label for="outcome" { "Outcome" } select #outcome name="outcome" { option value="" { "Any" }
                    @for outcome in outcomes { option value=(outcome) selected[outcome == asked.outcome] { (outcome) } } } }
                div.field { label for="patient" { "Patient's id" } input #patient name="patient" value=(asked.patient) autocomplete="off" maxlength="200"; }
                div.field { label for="from" { "From" } input #from type="date" name="from" value=(asked.from); }
                div.field { label for="until" { "Until" } input #until type="date" name="until" value=(asked.until); }
            }
            @if !asked.capacity.is_empty() { input type="hidden" name="capacity" value=(asked.capacity); }
            p.actions { button type="submit" { "Filter" } a.button.quiet href="/audit" { "Show all" } }
        }
    }
}

/// A field of a CSV file. A value that a spreadsheet would take for a formula is made text.
fn cell(text: &str) -> String {
    let risky = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("\"{}{}\"", if risky { "'" } else { "" }, text.replace('"', "\"\""))
}

async fn export(State(web): State<Web>, visit: Visit, UrlQuery(asked): UrlQuery<Asked>) -> Result<Response, PageError> {
    let filter = asked.filter(web.settings().zone);
    let read = move |view: &View<'_>| view.audit_entries(&filter, EXPORT_ENTRIES, audit::Action::Export);
    let found = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let mut csv = String::from("number,time,user,name,capacity,action,kind,object,patient,outcome,records,hash\r\n");
    for e in &found {
        let texts = [&e.actor, &e.actor_name, &e.capacity, &e.action, &e.kind, &e.object, &e.patient, &e.outcome];
        let cells: Vec<String> = texts.iter().map(|t| cell(t)).collect();
        csv.push_str(&format!(
            "{},{},{},{},{}\r\n",
            e.seq,
            crate::clock::instant(e.at_ms),
            cells.join(","),
            e.matches,
            hex::encode(e.hash)
        ));
    }
    let headers = [
        (header::CONTENT_TYPE, "text/csv; charset=utf-8"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"access-record.csv\""),
    ];
    Ok((headers, csv).into_response())
}

/// The first eight characters of a UUID: enough for the eye, the rest is in the title.
fn short(id: &str) -> &str {
    match id.char_indices().nth(8) {
        Some((cut, _)) if id.len() == 36 => &id[..cut],
        _ => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spreadsheet_runs_nothing_of_an_export() {
        assert_eq!(cell("=HYPERLINK(\"x\")"), "\"'=HYPERLINK(\"\"x\"\")\"");
        assert_eq!(cell("plain"), "\"plain\"");
    }
}
