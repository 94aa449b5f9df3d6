//! Consents in the browser: the practice's texts, signing one with a patient, what was signed, withdrawal. Patients do the same
//! in the portal (`web/portal/consents.rs`), with what stands in [`signing`].

pub mod signing;
mod texts;

#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
pub(super) mod tests;

use super::fields::{self, Field, Problems};
use super::form::Form;
use super::gate::{UrlQuery, Visit};
use super::layout::{self, Section};
use super::login::redirect;
use super::merged;
use super::reading::{PatientFacts, text, version};
use super::{Method, PageError, Policy, Route, Target, Web, chart};
use crate::access::{Action, Governs, Object, authorize};
use crate::consents::{self, Effect, Sealed, State as Standing, Text};
use crate::dates;
use crate::store::{Query, StoreError, Tx, View};
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use signing::{RELATIONS, Signing, Where};

pub fn routes(web: &Web) -> Vec<Route> {
    let w = || web.clone();
    let may = |action| Policy::Permits(action, Target::Resource("Consent"));
    let of_texts = |action| Policy::Permits(action, Target::Resource("HealthcareService"));
    vec![
        Route::new(Method::Get, "/consents", of_texts(Action::Search), texts::page, w()),
        Route::new(Method::Get, "/consents/{text}", of_texts(Action::Update), texts::edit, w()),
        Route::new(Method::Post, "/consents/{text}", of_texts(Action::Update), texts::save, w()),
        Route::new(Method::Get, "/patients/{patient}/consents", may(Action::Search), list, w()),
        Route::new(Method::Get, "/patients/{patient}/consents/new", may(Action::Create), present, w()),
        Route::new(Method::Post, "/patients/{patient}/consents/new", may(Action::Create), sign, w()),
        Route::new(Method::Get, "/patients/{patient}/consents/{consent}", may(Action::Read), show, w()),
        Route::new(Method::Get, "/patients/{patient}/consents/{consent}/pdf", may(Action::Read), pdf, w()),
        Route::new(Method::Post, "/patients/{patient}/consents/{consent}", may(Action::Update), withdraw, w()),
    ]
}

/// A consent as a page tells of it.
pub struct Told {
    pub consent: Value,
    /// It was signed here.
    pub sealed: bool,
    /// A later decision took its place.
    pub replaced: bool,
}

impl Told {
    pub fn state(&self, now_ms: i64) -> Standing {
        consents::state(&self.consent, self.replaced, now_ms)
    }
}

/// A patient's consents in all their records, the newest first.
pub fn all_of(view: &View<'_>, patient: &str) -> Result<Vec<Told>, StoreError> {
    let people = view.person(patient)?.ids();
    let replaced = consents::replaced(view.connection(), patient)?;
    let mut all = Vec::new();
    for consent in merged::search(view, &Query::all("Consent")?, &people)? {
        let id = text(&consent, "/id");
        let (sealed, replaced) = (consents::is_sealed(view.connection(), id)?, replaced.contains(id));
        all.push(Told { consent, sealed, replaced });
    }
    all.sort_by_key(|told| std::cmp::Reverse(text(&told.consent, "/dateTime").to_owned()));
    Ok(all)
}

/// What holds of a patient's decisions about a text, and the version that was signed; `None` where none was made.
pub fn standing(all: &[Told], text: &Text, now_ms: i64) -> Option<(Standing, i64)> {
    let of_it = |told: &&Told| told.sealed && consents::text_of(&told.consent) == Some(text.id.as_str());
    let states: Vec<(Standing, i64)> = all
        .iter()
        .filter(of_it)
        .map(|told| {
            let version = self::text(&told.consent, "/policyRule/coding/0/version").parse().unwrap_or(0);
            (told.state(now_ms), version)
        })
        .filter(|(state, _)| !matches!(state, Standing::Other | Standing::Replaced))
        .collect();
    // A no that still stands says more than a later one that was taken back.
    let refused = states.iter().find(|(state, _)| *state == Standing::Refused);
    refused.or(states.first()).copied()
}

/// Texts that a patient is asked for in the portal and has not decided about.
pub fn waiting<'t>(all: &[Told], texts: &'t [Text], now_ms: i64) -> Vec<&'t Text> {
    let decided = |text: &Text| {
        matches!(standing(all, text, now_ms), Some((Standing::Valid | Standing::Refused | Standing::Withdrawn, _)))
    };
    texts.iter().filter(|text| text.in_use && text.portal && !decided(text)).collect()
}

/// What the patient's decisions let happen, of what some text in use or some decision speaks of.
fn effects(view: &View<'_>, patient: &str, now_ms: i64) -> Result<Vec<(Governs, Effect)>, StoreError> {
    let spoken_of = "SELECT EXISTS (SELECT 1 FROM consent_text WHERE governs = ?1)";
    let mut found = Vec::new();
    for governs in Governs::ALL {
        let spoken: bool = view.connection().query_row(spoken_of, [governs.as_str()], |row| row.get(0))?;
        if spoken {
            found.push((governs, consents::effect(view.connection(), governs, patient, now_ms)?));
        }
    }
    Ok(found)
}

async fn list(State(web): State<Web>, visit: Visit, Path(patient): Path<String>) -> Result<Markup, PageError> {
    let (site, now_ms) = (web.clone(), web.now() * 1000);
    let read = move |view: &View<'_>| {
        let all = all_of(view, &patient)?;
        let effects = effects(view, &patient, now_ms)?;
        Ok::<_, StoreError>((
            chart::banner_in(&site, view, &patient)?,
            all,
            consents::texts(view.connection())?,
            effects,
        ))
    };
    let ((banner, facts), found, texts, effects) = web.store().view(&visit.actor, read).await?;
    let zone = web.settings().zone;
    let may = chart::may_add(&visit, &facts, "Consent");
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "Consents",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › Consents" }
            div.head { h1 { "Consents" } a.button href="/consents" { "Texts" } }
            @if !effects.is_empty() { ul.rows { @for (governs, effect) in &effects { li {
                span.what { (governs.told()) } (effect_tag(*effect))
            } } } }
            @if found.is_empty() { p.empty { "Nothing was signed yet." } }
            @else { (table(&found, &facts.id, Some("/patients"), zone, now_ms)) }
            @if may { section.panel { h2 { "Sign" }
                ul.rows.choices { @for t in texts.iter().filter(|t| t.in_use) { li {
                    span.what { (t.title) @if t.portal && standing(&found, t, now_ms).is_none() { " " span.tag { "asked in the portal" } } }
                    a.button.small href={ "/patients/" (facts.id) "/consents/new?text=" (t.id) } aria-label={ "Show and sign " (t.title) } { "Show and sign" }
                } } }
            } }
        },
    ))
}

fn effect_tag(effect: Effect) -> Markup {
    html! { @match effect {
        Effect::Permitted => span.tag.calm { "permitted" },
        Effect::Refused => span.tag.warn { "not permitted: refused or withdrawn" },
        Effect::NotAgreed => span.tag.warn { "not permitted: only with a consent, which nobody gave" },
    } }
}

/// What was decided, each leading on to what was signed: below `patients`, in the record in which it stands, or in the portal.
pub fn table(all: &[Told], chart: &str, patients: Option<&str>, zone: chrono_tz::Tz, now_ms: i64) -> Markup {
    let base = |consent| match patients {
        Some(patients) => format!("{patients}/{}/consents", merged::owner(consent, chart)),
        None => "/consents".to_owned(),
    };
    html! { table.list {
        (layout::columns(&["Consent", "Signed", "Good until", "State"]))
        tbody { @for told in all { @let consent = &told.consent; tr.past[!told.sealed || told.state(now_ms) != Standing::Valid] {
            th scope="row" {
                @if told.sealed { a href={ (base(consent)) "/" (text(consent, "/id")) } { (text(consent, "/policyRule/text")) } }
                @else { (text(consent, "/policyRule/text")) }
                (merged::mark(consent, chart))
            }
            td { (dates::show(text(consent, "/dateTime"), zone)) }
            td { (dates::show_day(text(consent, "/provision/period/end"), zone)) }
            td { @if told.sealed { (signing::tag(told.state(now_ms), consent)) } @else { span.tag.warn { "not signed here" } } }
        } } }
    } }
}

#[derive(Deserialize, Default)]
struct Which {
    #[serde(default)]
    text: String,
}

async fn present(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    UrlQuery(which): UrlQuery<Which>,
) -> Result<Markup, PageError> {
    chart::require_open(&web, &visit, &patient).await?;
    let form = Form::from_fields([("text".to_owned(), which.text)]);
    sign_page(&web, &visit, &patient, &form, &Problems::default()).await
}

async fn sign_page(
    web: &Web,
    visit: &Visit,
    patient: &str,
    form: &Form,
    problems: &Problems,
) -> Result<Markup, PageError> {
    let id = form.text("text").to_owned();
    let shown = web
        .store()
        .internal(move |db| consents::text(db, &id))
        .await?
        .filter(|t| t.in_use)
        .ok_or(PageError::NotFound)?;
    let (banner, facts) = chart::banner(web, visit, patient).await?;
    let signer = if form.text("signer").is_empty() {
        format!("{} {}", facts.given, facts.family)
    } else {
        form.text("signer").to_owned()
    };
    let relation = if form.text("relation").is_empty() { "patient" } else { form.text("relation") };
    Ok(layout::page(
        web,
        visit,
        Section::Patients,
        &shown.title,
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › " a href={ "/patients/" (facts.id) "/consents" } { "Consents" } " › Sign" }
            div.head { h1 { (shown.title) } span.tag { "version " (shown.version) } }
            div.sheet { div.text { (shown.body) } }
            (problems.summary())
            form.sheet.foot method="post" action={ "/patients/" (facts.id) "/consents/new" } {
                (layout::csrf(visit)) (chart::form_identity(&facts.id, ""))
                (signing::identity(&shown))
                div.columns {
                    (Field::new("Who signs", "signer", &signer).required().show(problems))
                    (fields::select("Signs as", "relation", relation, &fields::pairs(&RELATIONS), true, problems))
                }
                (signing::pad(problems))
                (signing::actions(&format!("/patients/{}/consents", facts.id)))
            }
            (signing::script())
        },
    ))
}

async fn sign(
    State(web): State<Web>,
    visit: Visit,
    Path(patient): Path<String>,
    headers: HeaderMap,
    form: Form,
) -> Result<Response, PageError> {
    chart::check_patient(&form, &patient)?;
    let mut problems = Problems::default();
    let mark = signing::mark(&form, &mut problems);
    if form.text("signer").is_empty() || form.text("signer").chars().count() > 120 {
        problems.add("signer", "Please enter who signs.");
    }
    if !RELATIONS.iter().any(|(key, _)| *key == form.text("relation")) {
        problems.add("relation", "Please choose one.");
    }
    let (Some(mark), true) = (mark, problems.is_empty()) else {
        let page = sign_page(&web, &visit, &patient, &form, &problems).await?;
        return Ok((StatusCode::UNPROCESSABLE_ENTITY, page).into_response());
    };
    let witness = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let (signer, relation) = (form.text("signer").to_owned(), form.text("relation").to_owned());
    let signing = Signing {
        patient: patient.clone(),
        performer: (relation == "patient").then(|| (format!("Patient/{patient}"), signer.clone())),
        signer,
        relation,
        mark,
        circumstances: format!("Shown and signed in the practice's own pages, in the presence of {witness}."),
        witness,
        place: Where::Practice,
        ..signing::Signing::of(&web, &visit, &headers, &form)
    };
    let id = web.store().write(&visit.actor, move |tx: &mut Tx<'_>| signing.seal(tx)).await?;
    Ok(redirect(&format!("/patients/{patient}/consents/{id}")))
}

async fn open(
    web: &Web,
    visit: &Visit,
    patient: &str,
    id: &str,
) -> Result<(Markup, PatientFacts, Told, Sealed), PageError> {
    let (site, owner, id) = (web.clone(), patient.to_owned(), id.to_owned());
    let read = move |view: &View<'_>| {
        let consent = chart::read_of(view, "Consent", &id, &owner)?;
        let sealed = consents::record(view.connection(), &id)?.ok_or(StoreError::NotFound)?;
        let (banner, facts) = chart::banner_in(&site, view, &owner)?;
        let replaced = consents::replaced(view.connection(), &owner)?.contains(&id);
        Ok::<_, StoreError>((banner, facts, Told { consent, sealed: true, replaced }, sealed))
    };
    Ok(web.store().view(&visit.actor, read).await?)
}

async fn show(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Markup, PageError> {
    let (banner, facts, told, sealed) = open(&web, &visit, &patient, &id).await?;
    let consent = &told.consent;
    let broken = web.store().internal(consents::broken_at).await?;
    let may = authorize(&visit.actor, Action::Update, Object::resource("Consent")).is_ok();
    let base = format!("/patients/{}/consents/{id}", facts.id);
    Ok(layout::page(
        &web,
        &visit,
        Section::Patients,
        "What was signed",
        Some(&banner),
        &html! {
            p.crumbs { a href={ "/patients/" (facts.id) } { "Chart" } " › " a href={ "/patients/" (facts.id) "/consents" } { "Consents" } " › What was signed" }
            (signing::head(&sealed, (told.state(web.now() * 1000), consent), &base))
            @if broken.is_some_and(|at| at <= sealed.seq) {
                div.notice.error role="alert" { p { "The seal is broken: this record or one before it was changed outside of this program. Tell your practice's IT." } }
            }
            (signing::shown(&sealed, consent, web.settings().zone))
            @if may && text(consent, "/status") == "active" {
                form.sheet.foot method="post" action=(base) {
                    (layout::csrf(&visit)) (chart::form_identity(&facts.id, &version(consent).to_string()))
                    (Field::new("Reason, as the patient says it", "reason", "").show(&Problems::default()))
                    p.actions { button type="submit" { (signing::withdraw_word(&sealed)) } }
                }
            }
        },
    ))
}

async fn pdf(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
) -> Result<Response, PageError> {
    signing::pdf(&web, &visit.actor, (&patient, &id)).await
}

async fn withdraw(
    State(web): State<Web>,
    visit: Visit,
    Path((patient, id)): Path<(String, String)>,
    form: Form,
) -> Result<Response, PageError> {
    let number = chart::checked_version(&form, &patient)?;
    let by = visit.session.as_ref().map_or(visit.actor.name.clone(), |s| s.display.clone());
    let withdrawal = signing::Withdrawal {
        patient: patient.clone(),
        id,
        version: number,
        reason: form.text("reason").chars().take(300).collect(),
        by: format!("{by}, in the practice"),
        now: web.now_fhir(),
        place: Where::Practice,
    };
    web.store().write(&visit.actor, move |tx: &mut Tx<'_>| withdrawal.save(tx)).await?;
    Ok(redirect(&format!("/patients/{patient}/consents")))
}
