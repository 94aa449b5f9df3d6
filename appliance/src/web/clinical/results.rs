//! Laboratory results: the newest value of each test, how it went before, and the reports.

use super::moment;
use super::vitals::{chart_svg, series};
use crate::access::Action;
use crate::dates;
use crate::store::{Query, StoreError, View};
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::reading::{concept, list, text};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, merged};
use axum::extract::{Path, State};
use maud::{Markup, html};
use serde_json::Value;
use std::collections::BTreeMap;

const READ_MAX: u32 = 500;

pub fn routes(web: &Web) -> Vec<Route> {
    let may = Policy::Permits(Action::Search, Target::Resource("DiagnosticReport"));
    vec![Route::new(Method::Get, "/patients/{patient}/results", may, page, web.clone())]
}

/// What an observation found, in words.
pub fn value(observation: &Value) -> String {
    let number = observation.pointer("/valueQuantity/value").map(|v| {
        // Results from elsewhere come with up to fifteen digits; four tell all that a laboratory knows.
        let shown = v.to_string();
        match shown.parse::<f64>() {
            Ok(n) if shown.len() > 7 => format!("{n:.2}"),
            _ => shown,
        }
    });
    let unit = text(observation, "/valueQuantity/unit");
    match number {
        Some(number) => format!("{number} {unit}").trim().to_owned(),
        None => [text(observation, "/valueString"), concept(observation.get("valueCodeableConcept"))]
            .into_iter()
            .find(|t| !t.is_empty())
            .unwrap_or("")
            .to_owned(),
    }
}

/// How a value stands to its reference range: the laboratory's own word.
fn flag(observation: &Value) -> &str {
    text(observation, "/interpretation/0/coding/0/code")
}

async fn page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    let (site, zone) = (web.clone(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let category = [("category".to_owned(), "laboratory".to_owned())];
        let (banner, facts) = chart::banner_in(&site, view, &patient)?;
        let people = merged::people(view, &facts)?;
        let found = merged::search(view, &Query::parse("Observation", &category)?.limit(READ_MAX), &people)?;
        let reports = merged::search(view, &Query::all("DiagnosticReport")?.limit(200), &people)?;
        Ok::<_, StoreError>(((banner, facts), found, reports))
    };
    let ((banner, facts), found, mut reports) = web.store().view(&visit.actor, read).await?;
    let mut tests: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for observation in &found {
        tests.entry(concept(observation.get("code")).to_owned()).or_default().push(observation);
    }
    for all in tests.values_mut() {
        all.sort_by_key(|o| std::cmp::Reverse(dates::unix_s(moment(o))));
    }
    reports.sort_by_key(|r| std::cmp::Reverse(moment(r).to_owned()));
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Results",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Results" }
            div.head { h1 { "Results" } div.tools { button type="button" data-print="" { "Print" } } }
            @if tests.is_empty() { p.empty { "No laboratory results." } }
            @else { table.list {
                (layout::columns(&["Test", "Newest", "Range", "When", "Before"]))
                tbody { @for (name, all) in &tests { (row(&web, &facts.id, name, all, zone)) } }
            } }
            @if !reports.is_empty() {
                h2 { "Reports" }
                ul.rows { @for report in reports.iter().take(50) { li {
                    span.what { (concept(report.get("code"))) @let said = text(report, "/conclusion"); @if !said.is_empty() { span.soft { " · " (said) } } (merged::mark(report, &facts.id)) }
                    span.when { (dates::show_day(moment(report), zone)) }
                } } }
            }
        },
    ))
}

fn row(web: &Web, patient: &str, name: &str, all: &[&Value], zone: chrono_tz::Tz) -> Markup {
    let Some(newest) = all.first() else { return html! {} };
    let marked = flag(newest);
    let code = list(newest.get("code").unwrap_or(&Value::Null), "coding").first().map_or("", |c| text(c, "/code"));
    let owned: Vec<Value> = all.iter().map(|o| (*o).clone()).collect();
    let points = series(&owned, code);
    html! { tr {
        th scope="row" { (name) }
        td { b { (value(newest)) } @if !matches!(marked, "" | "N") { " " span.tag.warn { (marked) } } (merged::mark(newest, patient)) }
        td { (text(newest, "/referenceRange/0/text")) }
        td { (dates::show_day(moment(newest), zone)) }
        td { @if all.len() > 1 { details { summary { (all.len() - 1) " earlier" }
            @if points.len() > 1 { (chart_svg(web, name, &[(name, points)])) }
            ul.rows { @for earlier in all.iter().skip(1).take(20) { li { span.what { (value(earlier)) (merged::mark(earlier, patient)) } span.when { (dates::show_day(moment(earlier), zone)) } } } }
        } } }
    } }
}
