//! Immunizations: what was given, when, and from which lot.

use crate::access::Action;
use crate::dates;
use crate::store::{Query, StoreError, Tx, View};
use crate::web::fields::{Field, Problems};
use crate::web::form::Form;
use crate::web::gate::Visit;
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::reading::{concept, text};
use crate::web::{Method, PageError, Policy, Route, Target, Web, chart, merged};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use maud::{Markup, html};
use serde_json::json;

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Immunization"));
    vec![
        Route::new(Method::Get, "/patients/{patient}/immunizations", may(Action::Search), page, w()),
        Route::new(Method::Post, "/patients/{patient}/immunizations", may(Action::Create), add, w()),
    ]
}

async fn page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    show(&web, &visit, &patient, &Form::default(), &Problems::default()).await
}

async fn show(web: &Web, visit: &Visit, patient: &str, form: &Form, problems: &Problems) -> Result<Markup, PageError> {
    let (site, id, zone) = (web.clone(), patient.to_owned(), web.settings().zone);
    let read = move |view: &View<'_>| {
        let (banner, facts) = chart::banner_in(&site, view, &id)?;
        let people = merged::people(view, &facts)?;
        let found = merged::search(view, &Query::all("Immunization")?, &people)?;
        Ok::<_, StoreError>(((banner, facts), found))
    };
    let ((banner, facts), mut found) = web.store().view(&visit.actor, read).await?;
    found.sort_by_key(|i| std::cmp::Reverse(dates::moment_s(super::moment(i), zone)));
    let field = |label, name| Field::new(label, name, form.text(name));
    let today = dates::today(web.now(), zone).to_string();
    let day = if form.text("day").is_empty() { today.as_str() } else { form.text("day") };
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        "Immunizations",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Immunizations" }
            div.head { h1 { "Immunizations" } div.tools { button type="button" data-print="" { "Print" } } }
            @if found.is_empty() { p.empty { "No immunizations recorded." } }
            @else { table.list {
                (layout::columns(&["Vaccine", "When", "Dose", "Lot", "State"]))
                tbody { @for given in &found { tr {
                    th scope="row" { (concept(given.get("vaccineCode"))) (merged::mark(given, &facts.id)) }
                    td { (dates::show_day(super::moment(given), zone)) }
                    td { (given.pointer("/protocolApplied/0/doseNumberPositiveInt").map(ToString::to_string).unwrap_or_default()) }
                    td { (text(given, "/lotNumber")) } td { (text(given, "/status")) }
                } } }
            } }
            @if chart::may_add(visit, &facts, "Immunization") {
                section.panel { h2 { "Record an immunization" } (problems.summary())
                    form method="post" action={ "/patients/" (facts.id) "/immunizations" } {
                        (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                        (field("Vaccine", "what").required().hint("For example: Tetanus, diphtheria, pertussis (Boostrix)").show(problems))
                        div.columns.narrow {
                            (Field::new("Day", "day", day).kind("date").required().show(problems))
                            (field("Dose number", "dose").show(problems))
                            (field("Lot number", "lot").show(problems))
                            (field("Site", "site").hint("For example: left upper arm").show(problems))
                        }
                        p.actions { button.primary type="submit" { "Save" } }
                    }
                }
            }
        },
    ))
}

async fn add(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    let today = dates::today(web.now(), web.settings().zone);
    let day = dates::parse_day(form.text("day")).filter(|d| *d <= today);
    if form.text("what").is_empty() {
        problems.add("what", "Please say which vaccine.");
    }
    if day.is_none() {
        problems.add("day", "Please enter a day that is not in the future.");
    }
    let dose = form.text("dose").parse::<u32>().ok().filter(|d| (1..=20).contains(d));
    if dose.is_none() && !form.text("dose").is_empty() {
        problems.add("dose", "A whole number from 1 to 20.");
    }
    let (Some(day), true) = (day, problems.is_empty()) else {
        let page = show(&web, &visit, &patient, &form, &problems).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let mut body = json!({
        "resourceType": "Immunization", "status": "completed", "vaccineCode": {"text": form.text("what")},
        "patient": {"reference": format!("Patient/{patient}")}, "occurrenceDateTime": day.to_string(),
        "recorded": web.now_fhir(), "primarySource": true,
    });
    if let Some(dose) = dose {
        body["protocolApplied"] = json!([{"doseNumberPositiveInt": dose}]);
    }
    for (element, name) in [("lotNumber", "lot")] {
        if !form.text(name).is_empty() {
            body[element] = form.text(name).into();
        }
    }
    if !form.text("site").is_empty() {
        body["site"] = json!({"text": form.text("site")});
    }
    let store = move |tx: &mut Tx<'_>| tx.create("Immunization", body);
    web.store().write::<_, StoreError, _>(&visit.actor, store).await?;
    Ok(redirect(&format!("/patients/{patient}/immunizations")))
}
