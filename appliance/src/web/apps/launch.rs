//! From the chart: the programs that are started for this patient (SMART's EHR launch).

use crate::access::Governs;
use crate::access::smart::{self, Client};
use crate::audit::{self, Event};
use crate::consents;
use crate::fhir::http::BASE;
use crate::store::{StoreError, Tx, View};
use crate::web::form::{Form, percent_encode};
use crate::web::gate::{self, Visit};
use crate::web::layout::{self, Section};
use crate::web::login::redirect;
use crate::web::{PageError, Web, chart};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::header;
use maud::html;

async fn launchable(web: &Web) -> Result<Vec<Client>, PageError> {
    let mut all = web.store().internal(smart::list).await?;
    all.retain(|client| !client.disabled && !client.launch_url.is_empty());
    Ok(all)
}

/// Whether the patient lets programs of others see the record. Where not, they are refused whatever they are launched with.
async fn shares(web: &Web, patient: &str) -> Result<bool, PageError> {
    let (patient, now_ms) = (patient.to_owned(), web.now() * 1000);
    Ok(web.store().internal(move |db| consents::permits(db, Governs::Sharing, &patient, now_ms)).await?)
}

pub async fn page(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Response, PageError> {
    let (banner, facts) = chart::banner(&web, &visit, &patient).await?;
    let (all, shares) = (launchable(&web).await?, shares(&web, &facts.id).await?);
    let page = layout::page(
        &web,
        &visit,
        Section::Patients,
        "Apps",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Apps" }
            div.head { h1 { "Apps" } }
            @if all.is_empty() { p.empty { "No app is registered that starts from a chart. A practice administrator registers apps." } }
            @else if !shares { p.notice.warn { "The patient does not consent to programs outside the practice: no app sees this record. "
                a href={ "/patients/" (facts.id) "/consents" } { "Consents" } } }
            @else {
                p.soft { "An app is a program of somebody else's. It asks you before it sees anything of this record." }
                ul.rows.choices { @for client in &all { li {
                    span.what { b { (client.name) } span.soft { " · " (smart::origin(&client.launch_url)) } }
                    form.inline method="post" action={ "/patients/" (facts.id) "/apps" } target="_blank" rel="noopener" {
                        (layout::csrf(&visit)) (chart::form_identity(&facts.id, ""))
                        input type="hidden" name="app" value=(client.id);
                        button.small type="submit" aria-label={ "Open " (client.name) } { "Open" }
                    }
                } } }
            }
        },
    );
    let urls: Vec<&str> = all.iter().map(|client| client.launch_url.as_str()).collect();
    let policy = gate::content_policy_to(&urls).ok_or(PageError::Internal("content policy"))?;
    Ok(([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response())
}

pub async fn start(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let all = launchable(&web).await?;
    let client = all.into_iter().find(|client| client.id == form.text("app")).ok_or(PageError::NotFound)?;
    let owner = patient.clone();
    web.store().view::<_, StoreError, _>(&visit.actor, move |view: &View<'_>| view.read("Patient", &owner)).await?;
    let (token, account, id) = (service::auth::random_token(), visit.actor.id.clone(), client.id.clone());
    let given = token.clone();
    let store = move |tx: &mut Tx<'_>| {
        smart::launch(tx.connection(), (&id, &account, &patient), &given, tx.now_ms())?;
        tx.note(Event::new(audit::Action::Create, "app-launch", &id).of_patient(&patient));
        Ok::<_, StoreError>(())
    };
    web.store().write(&visit.actor, store).await?;
    let issuer = format!("{}{BASE}", web.settings().bases.first().map(String::as_str).unwrap_or_default());
    let glue = if client.launch_url.contains('?') { '&' } else { '?' };
    Ok(redirect(&format!("{}{glue}iss={}&launch={token}", client.launch_url, percent_encode(&issuer))))
}
