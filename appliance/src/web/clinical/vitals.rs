//! Vital signs: entered together, kept as one `Observation` each, shown as curves.

use crate::access::Action;
use crate::dates;
use crate::store::{Query, StoreError, Tx, View};
use crate::web::fields::{Field, Problems};
use crate::web::form::Form;
use crate::web::gate::{UrlQuery, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{list, text};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, merged, paging};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use chrono_tz::Tz;
use http::StatusCode;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

/// One vital sign: field, name, LOINC, unit, UCUM, least and most that a living person has.
struct Sign {
    field: &'static str,
    name: &'static str,
    loinc: &'static str,
    unit: &'static str,
    ucum: &'static str,
    least: f64,
    most: f64,
}

const SIGNS: [Sign; 8] = [
    Sign {
        field: "systolic",
        name: "Systolic",
        loinc: "8480-6",
        unit: "mmHg",
        ucum: "mm[Hg]",
        least: 40.0,
        most: 300.0,
    },
    Sign {
        field: "diastolic",
        name: "Diastolic",
        loinc: "8462-4",
        unit: "mmHg",
        ucum: "mm[Hg]",
        least: 20.0,
        most: 200.0,
    },
    Sign { field: "pulse", name: "Pulse", loinc: "8867-4", unit: "/min", ucum: "/min", least: 20.0, most: 300.0 },
    Sign {
        field: "temperature",
        name: "Temperature",
        loinc: "8310-5",
        unit: "°C",
        ucum: "Cel",
        least: 25.0,
        most: 45.0,
    },
    Sign {
        field: "saturation",
        name: "Oxygen saturation",
        loinc: "2708-6",
        unit: "%",
        ucum: "%",
        least: 30.0,
        most: 100.0,
    },
    Sign {
        field: "breaths",
        name: "Respiratory rate",
        loinc: "9279-1",
        unit: "/min",
        ucum: "/min",
        least: 4.0,
        most: 80.0,
    },
    Sign { field: "weight", name: "Weight", loinc: "29463-7", unit: "kg", ucum: "kg", least: 0.3, most: 400.0 },
    Sign { field: "height", name: "Height", loinc: "8302-2", unit: "cm", ucum: "cm", least: 20.0, most: 250.0 },
];
const PRESSURE: &str = "85354-9";
const BMI: &str = "39156-5";
const CATEGORY: &str = "http://terminology.hl7.org/CodeSystem/observation-category";
/// Points of a curve that can still be told apart.
const POINTS_MAX: usize = 200;
const ROWS_SHOWN: usize = 200;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Observation"));
    vec![
        Route::new(Method::Get, "/patients/{patient}/vitals", may(Action::Search), page, w()),
        Route::new(Method::Post, "/patients/{patient}/vitals", may(Action::Create), add, w()),
    ]
}

/// A measured value, at a moment in Unix seconds and as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    pub at: i64,
    pub value: f64,
    when: String,
}

impl Point {
    pub fn new(at: i64, value: f64, when: &str) -> Point {
        Point { at, value, when: when.to_owned() }
    }
}

/// The value of one code, wherever in an observation it stands.
pub fn measured(observation: &Value, loinc: &str, zone: Tz) -> Option<Point> {
    let coded =
        |concept: Option<&Value>| concept.is_some_and(|c| list(c, "coding").iter().any(|c| text(c, "/code") == loinc));
    if matches!(text(observation, "/status"), "entered-in-error" | "cancelled") {
        return None;
    }
    let own = coded(observation.get("code")).then(|| number(observation)).flatten();
    let part = || list(observation, "component").iter().find(|c| coded(c.get("code"))).and_then(number);
    let when = super::moment(observation);
    Some(Point::new(dates::moment_s(when, zone)?, own.or_else(part)?, when))
}

/// The number of a quantity.
pub fn number(holder: &Value) -> Option<f64> {
    holder.pointer("/valueQuantity/value").and_then(Value::as_number).and_then(|n| n.to_string().parse::<f64>().ok())
}

/// Everything measured, by sign, each in order of time; of two at one moment the one that was stored last comes last.
#[derive(Default)]
struct Measured {
    signs: [Vec<Point>; SIGNS.len()],
    bmi: Vec<Point>,
    /// Some of it stands in another record of the person.
    merged: bool,
}

impl Measured {
    /// Observations are read one after the other, as a device may have sent very many.
    fn read(view: &View<'_>, people: &[String], zone: Tz) -> Result<Measured, StoreError> {
        let query = Query::parse("Observation", &[("category".to_owned(), "vital-signs".to_owned())])?;
        let mut all = Measured::default();
        for (number, patient) in people.iter().enumerate() {
            view.each::<StoreError>(&query.clone().of_patient(patient), |observation| {
                all.add(&observation.json()?, zone);
                all.merged |= number > 0;
                Ok(())
            })?;
        }
        all.signs.iter_mut().chain([&mut all.bmi]).for_each(|points| points.sort_by_key(|point| point.at));
        Ok(all)
    }

    fn add(&mut self, observation: &Value, zone: Tz) {
        let found = |loinc| measured(observation, loinc, zone);
        self.bmi.extend(found(BMI));
        for (sign, points) in SIGNS.iter().zip(&mut self.signs) {
            points.extend(found(sign.loinc));
        }
    }

    fn of(&self, field: &str) -> &[Point] {
        SIGNS.iter().zip(&self.signs).find(|(sign, _)| sign.field == field).map_or(&[], |(_, points)| points)
    }

    /// Every value with its sign, the newest first.
    fn rows(&self) -> Vec<(&Sign, &Point)> {
        let each = SIGNS.iter().zip(&self.signs).rev();
        let mut rows: Vec<_> = each.flat_map(|(sign, points)| points.iter().map(move |point| (sign, point))).collect();
        rows.sort_by_key(|(_, point)| point.at);
        rows.reverse();
        rows
    }
}

#[derive(Deserialize, Default)]
struct Asked {
    /// The first row of the table of all values.
    #[serde(default)]
    from: usize,
}

async fn page(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    UrlQuery(asked): UrlQuery<Asked>,
) -> Result<Markup, PageError> {
    show(&web, &visit, &patient, (&Form::default(), &Problems::default()), asked.from).await
}

async fn show(
    web: &Web,
    visit: &Visit,
    patient: &str,
    (form, problems): (&Form, &Problems),
    from: usize,
) -> Result<Markup, PageError> {
    let (site, id, zone) = (web.clone(), patient.to_owned(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &id)?;
        let people = merged::people(view, &facts)?;
        Ok::<_, StoreError>(((banner, facts), Measured::read(view, &people, zone)?))
    };
    let ((banner, facts), all) = web.store().view(&visit.actor, read).await?;
    let may = chart::may_add(visit, &facts, "Observation");
    let rows = all.rows();
    let curve = |title: &str, unit: &str, lines: &[(&str, &[Point])]| {
        let any = lines.iter().any(|(_, points)| !points.is_empty());
        html! { @if any { section.panel { h2 { (title) span.soft { " " (unit) } } (chart_svg(web, title, lines)) } } }
    };
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        "Vital signs",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Vital signs" }
            div.head { h1 { "Vital signs" } div.tools { button type="button" data-print="" { "Print" } } }
            @if may { form.sheet.wide method="post" action={ "/patients/" (facts.id) "/vitals" } {
                (problems.summary())
                (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                div.columns.narrow { @for sign in &SIGNS {
                    (Field::new(&format!("{}, {}", sign.name, sign.unit), sign.field, form.text(sign.field)).show(problems))
                } }
                p.actions { button.primary type="submit" { "Save" } span.hint { "Leave empty what was not measured." } }
            } }
            div.grid.foot {
                (curve("Blood pressure", "mmHg", &[("Systolic", all.of("systolic")), ("Diastolic", all.of("diastolic"))]))
                (curve("Pulse", "/min", &[("Pulse", all.of("pulse"))]))
                (curve("Weight", "kg", &[("Weight", all.of("weight"))]))
                (curve("Body mass index", "kg/m²", &[("BMI", &all.bmi)]))
                (curve("Temperature", "°C", &[("Temperature", all.of("temperature"))]))
                (curve("Oxygen saturation", "%", &[("Saturation", all.of("saturation"))]))
            }
            @if all.merged { p.hint { "With what stands in another record of this person." } }
            @if rows.is_empty() && all.bmi.is_empty() { p.empty { "Nothing measured yet." } }
            @else { (table(&rows, &facts.id, from, zone)) }
        },
    ))
}

/// All values as a table: what a curve shows is there for everybody to read.
fn table(rows: &[(&Sign, &Point)], patient: &str, from: usize, zone: Tz) -> Markup {
    let (shown, paging) = paging::part(rows, from, ROWS_SHOWN);
    html! { details #values open[from > 0] { summary { "All values" }
        ul.rows { @for (sign, point) in shown { li {
            span.what { (sign.name) " " (point.value) " " (sign.unit) } span.when { (dates::show(&point.when, zone)) }
        } } }
        (paging.links(|from| format!("/patients/{patient}/vitals?from={from}#values")))
    } }
}

/// A curve of up to two lines, of their newest points. Sizes are attributes of SVG, so that no style is needed.
pub fn chart_svg(web: &Web, title: &str, lines: &[(&str, &[Point])]) -> Markup {
    const WIDTH: f64 = 520.0;
    const HEIGHT: f64 = 190.0;
    const LEFT: f64 = 44.0;
    const BOTTOM: f64 = 26.0;
    const COLOURS: [&str; 2] = ["#0b5563", "#a3161f"];
    let zone = web.settings().zone;
    let longest = lines.iter().map(|(_, points)| points.len()).max().unwrap_or(0);
    let newest =
        |points| -> &[Point] { <[Point]>::get(points, points.len().saturating_sub(POINTS_MAX)..).unwrap_or(points) };
    let lines: Vec<(&str, &[Point])> = lines.iter().map(|(name, points)| (*name, newest(points))).collect();
    let all = || lines.iter().flat_map(|(_, points)| points.iter());
    let (first, last) = (all().map(|p| p.at).min().unwrap_or(0), all().map(|p| p.at).max().unwrap_or(1));
    let (low, high) = all().fold((f64::MAX, f64::MIN), |(l, h), p| (l.min(p.value), h.max(p.value)));
    let margin = ((high - low) * 0.15).max(1.0);
    let (low, high) = ((low - margin).floor(), (high + margin).ceil());
    let span = (last - first).max(1) as f64;
    let x = |at: i64| {
        if first == last {
            (WIDTH + LEFT) / 2.0
        } else {
            LEFT + 8.0 + (at - first) as f64 / span * (WIDTH - LEFT - 20.0)
        }
    };
    let y = |value: f64| 8.0 + (high - value) / (high - low) * (HEIGHT - BOTTOM - 12.0);
    let fixed = |n: f64| format!("{n:.1}");
    let steps: Vec<f64> = (0..=4).map(|n| low + (high - low) * f64::from(n) / 4.0).collect();
    let said = lines
        .iter()
        .filter_map(|(name, points)| points.last().map(|last| format!("{name} last {}", last.value)))
        .collect::<Vec<_>>()
        .join(", ");
    let day = |at: i64| dates::local(at, zone).format("%-d %b %Y").to_string();
    html! {
        svg.curve viewBox="0 0 520 190" role="img" aria-label={ (title) ": " (said) } {
            @for step in &steps {
                line x1=(LEFT) x2=(WIDTH) y1=(fixed(y(*step))) y2=(fixed(y(*step))) stroke="#d3dde0" stroke-width="1" {}
                text x=(LEFT - 6.0) y=(fixed(y(*step) + 4.0)) text-anchor="end" font-size="12" fill="#52646b" { (format!("{step:.0}")) }
            }
            @for ((_, points), colour) in lines.iter().zip(COLOURS) {
                polyline points=(points.iter().map(|p| format!("{},{}", fixed(x(p.at)), fixed(y(p.value)))).collect::<Vec<_>>().join(" "))
                    fill="none" stroke=(colour) stroke-width="2" {}
                @for point in *points {
                    circle cx=(fixed(x(point.at))) cy=(fixed(y(point.value))) r="3.5" fill=(colour) { title { (point.value) ", " (dates::show_day(&point.when, zone)) } }
                }
            }
            text x=(LEFT) y=(HEIGHT - 6.0) font-size="12" fill="#52646b" { (day(first)) }
            @if first != last { text x=(WIDTH - 4.0) y=(HEIGHT - 6.0) text-anchor="end" font-size="12" fill="#52646b" { (day(last)) } }
        }
        @if longest > POINTS_MAX { p.hint { "The newest " (POINTS_MAX) " of " (longest) " are drawn." } }
        @if lines.len() > 1 { p.hint { @for ((name, _), colour) in lines.iter().zip(COLOURS) {
            svg.key viewBox="0 0 12 12" aria-hidden="true" { circle cx="6" cy="6" r="5" fill=(colour) {} } " " (name) " "
        } } }
    }
}

fn observation(code: (&str, &str), patient: &str, now: &str) -> Value {
    json!({
        "resourceType": "Observation", "status": "final",
        "category": [{"coding": [{"system": CATEGORY, "code": "vital-signs", "display": "Vital Signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": code.0, "display": code.1}], "text": code.1},
        "subject": {"reference": format!("Patient/{patient}")}, "effectiveDateTime": now,
    })
}

fn quantity(value: &str, unit: &str, ucum: &str) -> Value {
    let number = serde_json::from_str::<serde_json::Number>(value).map(Value::from).unwrap_or_default();
    json!({"value": number, "unit": unit, "system": "http://unitsofmeasure.org", "code": ucum})
}

async fn add(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    let mut given: Vec<(&Sign, String)> = Vec::new();
    for sign in &SIGNS {
        let said = form.text(sign.field).replace(',', ".");
        match said.parse::<f64>() {
            _ if said.is_empty() => {}
            Ok(value)
                if (sign.least..=sign.most).contains(&value)
                    && said.bytes().all(|b| b.is_ascii_digit() || b == b'.') =>
            {
                given.push((sign, said))
            }
            _ => problems.add(sign.field, format!("A number from {} to {}.", sign.least, sign.most)),
        }
    }
    let value = |field: &str| given.iter().find(|(s, _)| s.field == field).map(|(_, v)| v.clone());
    if value("systolic").is_some() != value("diastolic").is_some() {
        problems.add("diastolic", "Blood pressure has two numbers.");
    }
    if given.is_empty() {
        problems.add("", "Nothing was entered.");
    }
    if !problems.is_empty() {
        let page = show(&web, &visit, &patient, (&form, &problems), 0).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    }
    let bodies = bodies(&given, &patient, &web.now_fhir());
    let store = move |tx: &mut Tx<'_>| bodies.into_iter().try_for_each(|body| tx.create("Observation", body).map(drop));
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/vitals")))
}

fn bodies(given: &[(&Sign, String)], patient: &str, now: &str) -> Vec<Value> {
    let value = |field: &str| given.iter().find(|(s, _)| s.field == field);
    let mut bodies = Vec::new();
    let parts: Vec<Value> = ["systolic", "diastolic"]
        .into_iter()
        .filter_map(value)
        .map(|(sign, said)| {
            json!({
            "code": {"coding": [{"system": "http://loinc.org", "code": sign.loinc, "display": sign.name}]},
            "valueQuantity": quantity(said, sign.unit, sign.ucum)})
        })
        .collect();
    if !parts.is_empty() {
        let mut body = observation((PRESSURE, "Blood pressure"), patient, now);
        body["component"] = parts.into();
        bodies.push(body);
    }
    for (sign, said) in given.iter().filter(|(s, _)| !matches!(s.field, "systolic" | "diastolic")) {
        let mut body = observation((sign.loinc, sign.name), patient, now);
        body["valueQuantity"] = quantity(said, sign.unit, sign.ucum);
        bodies.push(body);
    }
    let number = |field: &str| value(field).and_then(|(_, v)| v.parse::<f64>().ok());
    if let (Some(weight), Some(height)) = (number("weight"), number("height")) {
        let mut body = observation((BMI, "Body mass index"), patient, now);
        body["valueQuantity"] = quantity(&format!("{:.1}", weight / (height / 100.0).powi(2)), "kg/m2", "kg/m2");
        bodies.push(body);
    }
    bodies
}
