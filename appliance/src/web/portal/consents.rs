//! Consents on the patient's own device: what the practice asks, signed by the patient or by who acts for them, what was signed,
//! and taking it back.

use super::super::consents::{self as pages, signing};
use super::super::fields::Problems;
use super::super::form::Form;
use super::super::gate::{UrlQuery, Visit};
use super::super::layout::{self, Portal};
use super::super::login::redirect;
use super::super::reading::{PatientFacts, text, version};
use super::super::{Method, PageError, Policy, Route, Target, Web, chart};
use super::patient;
use crate::access::Action;
use crate::access::proxy::Proxy;
use crate::consents::{self, Sealed, State as Standing, Text};
use crate::store::{StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use signing::{Signing, Where, Withdrawal};

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Consent"));
    vec![
        Route::new(Method::Get, "/consents", may(Action::Search), list, w()),
        Route::new(Method::Get, "/consents/new", may(Action::Create), present, w()),
        Route::new(Method::Post, "/consents/new", may(Action::Create), sign, w()),
        Route::new(Method::Get, "/consents/{consent}", may(Action::Read), show, w()),
        Route::new(Method::Get, "/consents/{consent}/pdf", may(Action::Read), pdf, w()),
        Route::new(Method::Post, "/consents/{consent}", may(Action::Update), withdraw, w()),
    ]
}

fn proxy(visit: &Visit) -> Option<Proxy> {
    visit.session.as_ref()?.acting.as_ref()?.proxy.clone()
}

fn place(visit: &Visit) -> Where {
    Where::Portal { by_proxy: proxy(visit).is_some() }
}

/// How many texts wait for a decision of this patient.
pub fn waiting(view: &View<'_>, patient: &str, now_ms: i64) -> Result<usize, StoreError> {
    let all = pages::all_of(view, patient)?;
    Ok(pages::waiting(&all, &consents::texts(view.connection())?, now_ms).len())
}

async fn list(State(web): State<Web>, visit: Visit) -> Result<Markup, PageError> {
    let (id, own) = (patient(&visit)?, patient(&visit)?);
    let read = move |view: &View<'_>| Ok((pages::all_of(view, &id)?, consents::texts(view.connection())?));
    let (all, texts) = web.store().view::<_, StoreError, _>(&visit.actor, read).await?;
    let (zone, now_ms) = (web.settings().zone, web.now() * 1000);
    let waiting = pages::waiting(&all, &texts, now_ms);
    // Whoever said no, took something back, or agreed to an older text may decide anew.
    let again = texts.iter().filter(|text| text.in_use && text.portal).filter(|text| {
        let standing = pages::standing(&all, text, now_ms);
        standing.is_some_and(|(state, version)| {
            matches!(state, Standing::Refused | Standing::Withdrawn)
                || state == Standing::Valid && version < text.version
        })
    });
    let again: Vec<&Text> = again.collect();
    let decide = |text: &Text, word: &str| {
        html! { a.button.small href={ "/consents/new?text=" (text.id) } aria-label={ (word) ": " (text.title) } { (word) } }
    };
    // Only what was sealed here was decided.
    let sealed: Vec<pages::Told> = all.into_iter().filter(|told| told.sealed).collect();
    Ok(layout::portal(
        &web,
        &visit,
        Portal::Consents,
        "Consents",
        &html! {
            div.head { h1 { "Consents" } }
            section.panel { h2 { "Waiting for a decision" }
                @if waiting.is_empty() { p.empty { "Nothing waits for you." } }
                ul.rows.choices { @for text in &waiting { li { span.what { (text.title) } (decide(text, "Read and decide")) } } }
            }
            h2 { "What was decided" }
            @if sealed.is_empty() { p.empty { "Nothing was signed yet." } }
            @else { (pages::table(&sealed, &own, None, zone, now_ms)) }
            @if !again.is_empty() { section.panel { h2 { "Decide anew" }
                ul.rows.choices { @for text in &again { li { span.what { (text.title) } (decide(text, "Read and decide anew")) } } }
            } }
        },
    ))
}

#[derive(Deserialize, Default)]
struct Which {
    #[serde(default)]
    text: String,
}

async fn present(State(web): State<Web>, visit: Visit, UrlQuery(which): UrlQuery<Which>) -> Result<Markup, PageError> {
    sign_page(&web, &visit, &which.text, &Problems::default()).await
}

/// Who signs: the name, and as what.
fn signer(visit: &Visit, facts: &PatientFacts) -> (String, String) {
    match proxy(visit) {
        Some(proxy) => (proxy.name, proxy.relation),
        None => (format!("{} {}", facts.given, facts.family), "patient".to_owned()),
    }
}

async fn facts_of(web: &Web, visit: &Visit) -> Result<PatientFacts, PageError> {
    let id = patient(visit)?;
    let read = move |view: &View<'_>| Ok(PatientFacts::read(&view.read("Patient", &id)?.json()?));
    Ok(web.store().view::<_, StoreError, _>(&visit.actor, read).await?)
}

async fn sign_page(web: &Web, visit: &Visit, id: &str, problems: &Problems) -> Result<Markup, PageError> {
    let id = id.to_owned();
    let found = web.store().internal(move |db| consents::text(db, &id)).await?;
    let shown = found.filter(|text| text.in_use && text.portal).ok_or(PageError::NotFound)?;
    let facts = facts_of(web, visit).await?;
    let (name, relation) = signer(visit, &facts);
    Ok(layout::portal(
        web,
        visit,
        Portal::Consents,
        &shown.title,
        &html! {
            p.crumbs { a href="/consents" { "Consents" } " › Decide" }
            div.head { h1 { (shown.title) } span.tag { "version " (shown.version) } }
            div.sheet { div.text { (shown.body) } }
            (problems.summary())
            @if place(visit).may_decide(shown.governs) {
                form.sheet.foot method="post" action="/consents/new" {
                    (layout::csrf(visit)) (chart::form_identity(&facts.id, "")) (signing::identity(&shown))
                    p { "You sign as " b { (name) } @if visit.whom.is_some() { " (" (relation) "), for " b { (facts.given) " " (facts.family) } } "." }
                    (signing::pad(problems))
                    (signing::actions("/consents"))
                    p.hint { "Kept with it: the text, your signature, the time, and from which address and device you signed. You can take it back here at any time." }
                }
                (signing::script())
            } @else {
                p.notice.warn { "This is about whom " (facts.given) " " (facts.family) " lets act in the portal. You cannot decide it: the patient does, here or at the practice." }
            }
        },
    ))
}

async fn sign(State(web): State<Web>, visit: Visit, headers: HeaderMap, form: Form) -> Result<Response, PageError> {
    let id = patient(&visit)?;
    chart::check_patient(&form, &id)?;
    let mut problems = Problems::default();
    let Some(mark) = signing::mark(&form, &mut problems) else {
        let page = sign_page(&web, &visit, form.text("text"), &problems).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let facts = facts_of(&web, &visit).await?;
    let (signer, relation) = signer(&visit, &facts);
    let signing = Signing {
        patient: id.clone(),
        performer: Some((super::author(&visit, &id).0, signer.clone())),
        circumstances: circumstances(&visit),
        signer,
        relation,
        mark,
        place: place(&visit),
        ..Signing::of(&web, &visit, &headers, &form)
    };
    let id = web.store().write(&visit.actor, move |tx: &mut Tx<'_>| signing.seal(tx)).await?;
    Ok(redirect(&format!("/consents/{id}")))
}

/// What is known of how somebody signed here, and no more.
fn circumstances(visit: &Visit) -> String {
    let mail = visit.session.as_ref().map_or("", |session| session.display.as_str());
    let who = match proxy(visit) {
        Some(proxy) => format!("{}, who acts for the patient in the portal as {}", proxy.name, proxy.relation),
        None => "the patient".to_owned(),
    };
    format!(
        "Shown and signed in the patient portal by {who}, logged in as {mail} with a password and a second factor, on their own \
         device. Nobody of the practice was present."
    )
}

async fn open(web: &Web, visit: &Visit, id: &str) -> Result<(pages::Told, Sealed, bool), PageError> {
    let (owner, id, place) = (patient(visit)?, id.to_owned(), place(visit));
    let read = move |view: &View<'_>| {
        let consent = chart::read_of(view, "Consent", &id, &owner)?;
        let sealed = consents::record(view.connection(), &id)?.ok_or(StoreError::NotFound)?;
        let may = place.may_decide(consents::governs_of(view.connection(), &sealed.record)?);
        let replaced = consents::replaced(view.connection(), &owner)?.contains(&id);
        Ok::<_, StoreError>((pages::Told { consent, sealed: true, replaced }, sealed, may))
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

async fn show(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Markup, PageError> {
    let (told, sealed, may) = open(&web, &visit, &id).await?;
    let consent = &told.consent;
    let base = format!("/consents/{id}");
    Ok(layout::portal(
        &web,
        &visit,
        Portal::Consents,
        "What was signed",
        &html! {
            p.crumbs { a href="/consents" { "Consents" } " › What was signed" }
            (signing::head(&sealed, (told.state(web.now() * 1000), consent), &base))
            (signing::shown(&sealed, consent, web.settings().zone))
            @if may && text(consent, "/status") == "active" {
                form.sheet.foot method="post" action=(base) {
                    (layout::csrf(&visit)) input type="hidden" name="version" value=(version(consent));
                    p { "It ends at once, for what happens from now on. What was signed stays readable." }
                    p.actions { button type="submit" { (signing::withdraw_word(&sealed)) } }
                }
            }
        },
    ))
}

async fn pdf(State(web): State<Web>, visit: Visit, Path(id): Path<String>) -> Result<Response, PageError> {
    signing::pdf(&web, &visit.actor, (&patient(&visit)?, &id)).await
}

async fn withdraw(
    State(web): State<Web>,
    visit: Visit,
    Path(id): Path<String>,
    form: Form,
) -> Result<Response, PageError> {
    let owner = patient(&visit)?;
    let number = form.text("version").parse().map_err(|_| PageError::Query)?;
    let by = proxy(&visit).map_or_else(|| "the patient".to_owned(), |proxy| proxy.told());
    let withdrawal = Withdrawal {
        patient: owner,
        id,
        version: number,
        reason: String::new(),
        by: format!("{by}, in the portal"),
        now: web.now_fhir(),
        place: place(&visit),
    };
    web.store().write(&visit.actor, move |tx: &mut Tx<'_>| withdrawal.save(tx)).await?;
    Ok(redirect("/consents"))
}
