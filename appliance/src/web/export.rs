//! Everything of one patient as a FHIR bundle: for another practice, or for the patient.

use super::gate::Visit;
use super::{Method, PageError, Policy, Route, Target, Web, chart};
use crate::access::Action;
use crate::audit::{self, Event};
use crate::clock;
use crate::fhir::types::TYPES;
use crate::store::{Query, StoreError, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::{Value, json};

const PAGE: u32 = 500;
/// Resources of one patient at most.
const RESOURCES_MAX: usize = 200_000;

pub fn routes(web: &Web) -> Vec<Route> {
    // Who may write the record may hand it on; who broke the glass may only read it.
    let may = Policy::Permits(Action::Create, Target::Resource("DocumentReference"));
    vec![Route::new(Method::Get, "/patients/{patient}/export", may, export, web.clone())]
}

/// All that the actor's role may see of a patient.
fn everything(view: &View<'_>, patient: &str) -> Result<Vec<Value>, StoreError> {
    let mut all = vec![view.read("Patient", patient)?.json()?];
    for kind in TYPES.iter().filter(|k| **k != "Patient" && view.may(Action::Search, k)) {
        let mut query = Query::all(kind)?.of_patient(patient).limit(PAGE);
        loop {
            let page = view.search(&query)?;
            all.extend(chart::jsons(&page.resources)?);
            if all.len() > RESOURCES_MAX {
                return Err(StoreError::invalid(
                    "this record is too large for one file: export it by the FHIR API",
                    "Patient",
                ));
            }
            match page.next {
                Some(next) => query = query.after(next),
                None => break,
            }
        }
    }
    view.note(Event::new(audit::Action::Export, "Patient", patient).of_patient(patient).matches(all.len() as u64));
    Ok(all)
}

async fn export(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Response, PageError> {
    let id = patient.clone();
    let all = web.store().view::<_, StoreError, _>(&visit.actor, move |view: &View<'_>| everything(view, &id)).await?;
    let entries: Vec<Value> = all.into_iter().map(|resource| json!({"resource": resource})).collect();
    let bundle = json!({"resourceType": "Bundle", "type": "collection", "timestamp": clock::instant(web.now() * 1000), "entry": entries});
    let headers = [
        (header::CONTENT_TYPE, "application/fhir+json; charset=utf-8".to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"patient-{patient}.json\"")),
    ];
    Ok((headers, bundle.to_string()).into_response())
}
