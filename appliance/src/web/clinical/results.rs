//! Laboratory results: the newest value of each test, how it went before, and the reports.

use super::moment;
use super::vitals::{Point, chart_svg, number};
use crate::access::Action;
use crate::dates;
use crate::store::{Query, StoreError, View};
use crate::web::form::percent_encode;
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::reading::{concept, text};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, merged, paging};
use axum::extract::{Path, State};
use chrono_tz::Tz;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Earlier results of a test beside the newest; the page of the test has all.
const EARLIER_SHOWN: usize = 20;
const FINDINGS_SHOWN: usize = 100;
const REPORTS_SHOWN: usize = 50;

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

/// One result, as much of it as pages show: a record may hold very many.
pub struct Finding {
    pub value: String,
    pub range: String,
    pub when: String,
    at: Option<i64>,
    number: Option<f64>,
    unit: String,
    /// How it stands to its reference range: the laboratory's own word.
    flag: String,
    mark: Markup,
}

/// The findings of each test, by its name, the newest first; of two at one moment the one that was stored last.
pub type Tests = BTreeMap<String, Vec<Finding>>;

impl Finding {
    fn read(observation: &Value, chart: &str, zone: Tz) -> Finding {
        let when = moment(observation).to_owned();
        Finding {
            value: value(observation),
            range: text(observation, "/referenceRange/0/text").to_owned(),
            at: dates::moment_s(&when, zone),
            when,
            number: number(observation),
            unit: text(observation, "/valueQuantity/unit").to_owned(),
            flag: text(observation, "/interpretation/0/coding/0/code").to_owned(),
            mark: merged::mark(observation, chart),
        }
    }

    fn row(&self, zone: Tz) -> Markup {
        html! {
            span.what { (self.value) @if !matches!(self.flag.as_str(), "" | "N") { " " span.tag.warn { (self.flag) } } (self.mark) }
            span.when { (dates::show_day(&self.when, zone)) }
        }
    }
}

/// What the query finds in the records of these and what counts, by test; the first of `people` is whose chart it is.
pub fn tests(
    view: &View<'_>,
    query: &Query,
    people: &[String],
    (counts, zone): (fn(&Value) -> bool, Tz),
) -> Result<Tests, StoreError> {
    let chart = people.first().map_or("", String::as_str);
    let mut tests = Tests::new();
    for patient in people {
        view.each::<StoreError>(&query.clone().of_patient(patient), |observation| {
            let observation = observation.json()?;
            if counts(&observation) {
                let name = concept(observation.get("code")).to_owned();
                tests.entry(name).or_default().push(Finding::read(&observation, chart, zone));
            }
            Ok(())
        })?;
    }
    for all in tests.values_mut() {
        all.sort_by_key(|finding| finding.at);
        all.reverse();
    }
    Ok(tests)
}

/// A report, as much of it as the page shows.
struct Report {
    name: String,
    conclusion: String,
    when: String,
    at: Option<i64>,
    mark: Markup,
}

fn reports(view: &View<'_>, people: &[String], chart: &str, zone: Tz) -> Result<Vec<Report>, StoreError> {
    let mut all = Vec::new();
    for patient in people {
        view.each::<StoreError>(&Query::all("DiagnosticReport")?.of_patient(patient), |report| {
            let report = report.json()?;
            let when = moment(&report).to_owned();
            all.push(Report {
                name: concept(report.get("code")).to_owned(),
                conclusion: text(&report, "/conclusion").to_owned(),
                at: dates::moment_s(&when, zone),
                when,
                mark: merged::mark(&report, chart),
            });
            Ok(())
        })?;
    }
    all.sort_by_key(|report| report.at);
    all.reverse();
    Ok(all)
}

#[derive(Deserialize, Default)]
struct Asked {
    /// The one test whose results are asked for; of all where it is empty.
    #[serde(default)]
    test: String,
    /// The first result of the test, or the first report.
    #[serde(default)]
    from: usize,
}

async fn page(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    UrlQuery(asked): UrlQuery<Asked>,
) -> Result<Markup, PageError> {
    let (site, zone) = (web.clone(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let category = Query::parse("Observation", &[("category".to_owned(), "laboratory".to_owned())])?;
        let (banner, facts) = chart::banner_in(&site, view, &patient)?;
        let people = merged::people(view, &facts)?;
        let valid = |observation: &Value| text(observation, "/status") != "entered-in-error";
        let tests = tests(view, &category, &people, (valid, zone))?;
        let reports = reports(view, &people, &facts.id, zone)?;
        Ok::<_, StoreError>((banner, facts.id, tests, reports))
    };
    let (banner, patient, tests, reports) = web.store().view(&visit.actor, read).await?;
    let body = match tests.get(&asked.test).filter(|_| !asked.test.is_empty()) {
        Some(all) => one_test(&web, &patient, (&asked.test, all), asked.from),
        None => all_tests(&web, &patient, &tests, (&reports, asked.from)),
    };
    Ok(layout::page(&web, &visit, Section::Patients, "Results", Some(&banner), &body))
}

fn all_tests(web: &Web, patient: &str, tests: &Tests, (reports, from): (&[Report], usize)) -> Markup {
    let zone = web.settings().zone;
    let (shown, paging) = paging::part(reports, from, REPORTS_SHOWN);
    html! {
        p.crumbs { a href={ "/patients/" (patient) } { "Chart" } " › Results" }
        div.head { h1 { "Results" } div.tools { button type="button" data-print="" { "Print" } } }
        @if tests.is_empty() { p.empty { "No laboratory results." } }
        @else { table.list {
            (layout::columns(&["Test", "Newest", "Range", "When", "Before"]))
            tbody { @for (name, all) in tests { (row(web, patient, name, all)) } }
        } }
        @if !reports.is_empty() {
            h2 #reports { "Reports" }
            ul.rows { @for report in shown { li {
                span.what { (report.name) @if !report.conclusion.is_empty() { span.soft { " · " (report.conclusion) } } (report.mark) }
                span.when { (dates::show_day(&report.when, zone)) }
            } } }
            (paging.links(|from| format!("/patients/{patient}/results?from={from}#reports")))
        }
    }
}

fn row(web: &Web, patient: &str, name: &str, all: &[Finding]) -> Markup {
    let zone = web.settings().zone;
    let Some((newest, earlier)) = all.split_first() else { return html! {} };
    html! { tr {
        th scope="row" { (name) }
        td { b { (newest.value) } @if !matches!(newest.flag.as_str(), "" | "N") { " " span.tag.warn { (newest.flag) } } (newest.mark) }
        td { (newest.range) }
        td { (dates::show_day(&newest.when, zone)) }
        td { @if !earlier.is_empty() { details { summary { (earlier.len()) " earlier" }
            (curve(web, name, all))
            ul.rows { @for finding in earlier.iter().take(EARLIER_SHOWN) { li { (finding.row(zone)) } } }
            @if earlier.len() > EARLIER_SHOWN { p {
                a href={ "/patients/" (patient) "/results?test=" (percent_encode(name)) } { (earlier.len() - EARLIER_SHOWN) " more" }
            } }
        } } }
    } }
}

/// All results of one test.
fn one_test(web: &Web, patient: &str, (name, all): (&str, &[Finding]), from: usize) -> Markup {
    let (shown, paging) = paging::part(all, from, FINDINGS_SHOWN);
    html! {
        p.crumbs { a href={ "/patients/" (patient) } { "Chart" } " › " a href={ "/patients/" (patient) "/results" } { "Results" } " › " (name) }
        div.head { h1 { (name) } div.tools { button type="button" data-print="" { "Print" } } }
        (curve(web, name, all))
        ul.rows { @for finding in shown { li { (finding.row(web.settings().zone)) } } }
        (paging.links(|from| format!("/patients/{patient}/results?test={}&from={from}", percent_encode(name))))
    }
}

/// How a value went, of those in the unit of the newest.
fn curve(web: &Web, name: &str, all: &[Finding]) -> Markup {
    let unit = all.first().map_or("", |newest| newest.unit.as_str());
    let same = all.iter().rev().filter(|finding| finding.unit == unit);
    let points: Vec<Point> = same.filter_map(|f| Some(Point::new(f.at?, f.number?, &f.when))).collect();
    html! { @if points.len() > 1 { (chart_svg(web, name, &[(name, &points)])) } }
}
