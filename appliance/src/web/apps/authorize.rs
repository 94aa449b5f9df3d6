//! The page where a person lets a program act for them: OAuth 2 authorization code with PKCE, as SMART on FHIR asks for it.
//!
//! Nothing goes back to an address that is not registered for the program. Everything else that is wrong goes back to the
//! program as an error, with its `state` and our name (`iss`, RFC 9207), so that it cannot take one server's answer for
//! another's.

use crate::access::grant::Scope;
use crate::access::sessions::State as SessionState;
use crate::access::smart::identity::NONCE_BYTES_MAX;
use crate::access::smart::{self, Client, Consent, Identity, Kind, Refresh};
use crate::audit::{self, Event};
use crate::fhir::http::BASE;
use crate::store::{StoreError, Tx, View};
use crate::web::fields::{Field, Problems};
use crate::web::form::{Form, percent_encode};
use crate::web::gate::{self, UrlQuery, Visit};
use crate::web::login::{self, redirect};
use crate::web::reading::PatientFacts;
use crate::web::{PageError, Web, chart, dates, layout, patients};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use maud::{Markup, html};
use serde::Deserialize;

/// What a program may send along, bytes.
const STATE_BYTES_MAX: usize = 1024;
/// Patients that the choice shows.
const FOUND_MAX: u32 = 20;

/// The request of a program, and what the person chose on the way.
#[derive(Deserialize, Default, Clone)]
#[serde(default)]
pub struct Asked {
    response_type: String,
    client_id: String,
    redirect_uri: String,
    scope: String,
    state: String,
    aud: String,
    code_challenge: String,
    code_challenge_method: String,
    launch: String,
    nonce: String,
    /// The patient whom the person chose, and what was typed to find them.
    chosen: String,
    find: String,
}

impl Asked {
    fn of_form(form: &Form) -> Self {
        let text = |name: &str| form.text(name).to_owned();
        Self {
            response_type: text("response_type"),
            client_id: text("client_id"),
            redirect_uri: text("redirect_uri"),
            scope: text("scope"),
            state: text("state"),
            aud: text("aud"),
            code_challenge: text("code_challenge"),
            code_challenge_method: text("code_challenge_method"),
            launch: text("launch"),
            nonce: text("nonce"),
            chosen: text("chosen"),
            find: String::new(),
        }
    }

    /// What the program asked, without the person's choices.
    fn parameters(&self) -> [(&'static str, &str); 10] {
        [
            ("response_type", &self.response_type),
            ("client_id", &self.client_id),
            ("redirect_uri", &self.redirect_uri),
            ("scope", &self.scope),
            ("state", &self.state),
            ("aud", &self.aud),
            ("code_challenge", &self.code_challenge),
            ("code_challenge_method", &self.code_challenge_method),
            ("launch", &self.launch),
            ("nonce", &self.nonce),
        ]
    }

    fn fields(&self) -> Markup {
        html! { @for (name, value) in self.parameters() { @if !value.is_empty() { input type="hidden" name=(name) value=(value); } } }
    }

    fn choose(&self, patient: &str) -> String {
        let given = self.parameters().into_iter().filter(|(_, value)| !value.is_empty());
        let all = given.chain([("chosen", patient)]).map(|(name, value)| format!("{name}={}", percent_encode(value)));
        format!("{}?{}", crate::fhir::smart::AUTHORIZE_PATH, all.collect::<Vec<_>>().join("&"))
    }
}

/// A request that can be granted.
struct Request {
    client: Client,
    scopes: Vec<Scope>,
    refresh: Option<&'static str>,
    identity: Identity,
    /// Whom the grant is about; `None` while nobody is chosen.
    patient: Option<String>,
    needs_patient: bool,
}

/// The words of RFC 6749 for what is sent back.
type Wrong = &'static str;

async fn client_of(web: &Web, asked: &Asked) -> Result<Client, PageError> {
    let id = asked.client_id.clone();
    let found = web.store().internal(move |db| smart::client(db, &id)).await?;
    // An address that is nearly a registered one is another address.
    let good = |client: &Client| client.kind != Kind::Backend && client.redirects.contains(&asked.redirect_uri);
    found.filter(good).ok_or(PageError::UnknownApp)
}

async fn read(web: &Web, account: &str, client: Client, asked: &Asked) -> Result<Result<Request, Wrong>, PageError> {
    if asked.response_type != "code" {
        return Ok(Err("unsupported_response_type"));
    }
    let ours = web.settings().bases.iter().any(|base| asked.aud.trim_end_matches('/') == format!("{base}{BASE}"));
    // Without S256 a code that is overheard is worth a token.
    let proof = asked.code_challenge_method == "S256" && smart::is_challenge(&asked.code_challenge);
    if !ours || !proof || asked.state.len() > STATE_BYTES_MAX || asked.nonce.len() > NONCE_BYTES_MAX {
        return Ok(Err("invalid_request"));
    }
    let words = || asked.scope.split_whitespace();
    // What is not known here or not registered is left out, and the answer says what is granted.
    let within = |scope: &Scope| !scope.is_system() && client.scopes.iter().any(|own| own.covers(scope));
    let scopes: Vec<Scope> = words().filter_map(Scope::parse).filter(within).collect();
    let identity = Identity::asked(&asked.scope, client.identity);
    // A program may want to know who the person is, and nothing else.
    if scopes.is_empty() && !identity.openid {
        return Ok(Err("invalid_scope"));
    }
    let refresh = match (words().any(|w| w == smart::OFFLINE) && client.offline, words().any(|w| w == smart::ONLINE)) {
        (true, _) => Some(smart::OFFLINE),
        (false, true) => Some(smart::ONLINE),
        _ => None,
    };
    let needs_patient = words().any(|word| word == "launch/patient") || scopes.iter().any(Scope::is_patient);
    let chosen = Some(asked.chosen.clone()).filter(|chosen| needs_patient && !chosen.is_empty());
    let patient = match asked.launch.as_str() {
        "" => chosen,
        launch => {
            let (id, account, launch, now_ms) =
                (client.id.clone(), account.to_owned(), launch.to_owned(), web.now() * 1000);
            let find = move |db: &crate::db::Connection| smart::launched(db, (&id, &account), &launch, now_ms);
            match web.store().internal(find).await? {
                Some(patient) => Some(patient),
                None => return Ok(Err("invalid_request")),
            }
        }
    };
    Ok(Ok(Request { client, scopes, refresh, identity, patient, needs_patient }))
}

/// Sends the browser back to the program.
fn back(web: &Web, asked: &Asked, name: &str, value: &str) -> Response {
    let issuer = format!("{}{BASE}", web.settings().bases.first().map(String::as_str).unwrap_or_default());
    let mut told = vec![(name, value), ("iss", issuer.as_str())];
    told.extend((!asked.state.is_empty()).then_some(("state", asked.state.as_str())));
    let query: Vec<String> = told.iter().map(|(name, value)| format!("{name}={}", percent_encode(value))).collect();
    let glue = if asked.redirect_uri.contains('?') { '&' } else { '?' };
    redirect(&format!("{}{glue}{}", asked.redirect_uri, query.join("&")))
}

pub async fn ask(
    State(web): State<Web>,
    visit: Visit,
    UrlQuery(asked): UrlQuery<Asked>,
    headers: HeaderMap,
) -> Result<Response, PageError> {
    let client = client_of(&web, &asked).await?;
    match &visit.session {
        // The cookie of the session is not sent with what another site begins: from a page of ours it is.
        None if headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site" || site == "same-site") => {
            return Ok(hop(&web, &visit, &client).into_response());
        }
        None => return Ok(login::go_to("/login", &visit.here, false)),
        Some(session) if session.state == SessionState::Locked => {
            return Ok(login::go_to("/unlock", &visit.here, false));
        }
        Some(_) => {}
    }
    let request = match read(&web, &visit.actor.id, client, &asked).await? {
        Ok(request) => request,
        Err(wrong) => return Ok(back(&web, &asked, "error", wrong)),
    };
    let page = match (&request.patient, request.needs_patient) {
        (None, true) => choose(&web, &visit, &request, &asked).await?,
        _ => consent(&web, &visit, &request, &asked).await?,
    };
    let policy = gate::content_policy_to(&[&asked.redirect_uri]).ok_or(PageError::Internal("content policy"))?;
    Ok(([(header::CONTENT_SECURITY_POLICY, policy)], page).into_response())
}

/// One step through a page of ours.
fn hop(web: &Web, visit: &Visit, client: &Client) -> Markup {
    layout::hop(
        &web.settings().practice_name,
        &visit.here,
        &html! { p { b { (client.name) } " asks for access." } p.actions { a.button.primary href=(visit.here) { "Continue" } } },
    )
}

async fn choose(web: &Web, visit: &Visit, request: &Request, asked: &Asked) -> Result<Markup, PageError> {
    let typed: String = asked.find.chars().take(100).collect();
    let mut found = Vec::new();
    if !typed.trim_matches([' ', ',', ';']).is_empty() {
        let query = patients::query(&typed)?.first(FOUND_MAX, "-_lastUpdated")?;
        let search = move |view: &View<'_>| chart::jsons(&view.search(&query)?.resources);
        let all: Vec<_> = web.store().view::<_, StoreError, _>(&visit.actor, search).await?;
        found = all.iter().map(PatientFacts::read).collect();
        found.sort_by_cached_key(|p| (p.family.to_lowercase(), p.given.to_lowercase(), p.birth));
    }
    Ok(layout::card(
        &web.settings().practice_name,
        "Which patient?",
        &html! {
            p { b { (request.client.name) } " asks for access to the record of one patient." }
            form method="get" action=(crate::fhir::smart::AUTHORIZE_PATH) {
                (asked.fields())
                (Field::new("Find a patient", "find", &typed).required()
                    .hint("Name, birth date (1960-05-06) or record number").show(&Problems::default()))
                p.actions { button type="submit" { "Search" } }
            }
            @if !typed.is_empty() && found.is_empty() { p.empty { "Nobody found." } }
            ul.rows { @for patient in &found { li {
                span.what { a href=(asked.choose(&patient.id)) { (patient.full_name()) } }
                span.when { @if let Some(birth) = patient.birth { (dates::long_day(birth)) } " · " (patient.short_number()) }
            } } }
            (answers(visit, asked, false))
        },
    ))
}

async fn consent(web: &Web, visit: &Visit, request: &Request, asked: &Asked) -> Result<Markup, PageError> {
    let patient = match request.patient.clone() {
        Some(id) => {
            let read =
                move |view: &View<'_>| Ok::<_, StoreError>(PatientFacts::read(&view.read("Patient", &id)?.json()?));
            Some(web.store().view(&visit.actor, read).await?)
        }
        None => None,
    };
    let display = visit.session.as_ref().map_or("", |s| s.display.as_str());
    Ok(layout::card(
        &web.settings().practice_name,
        "Let this app act for you?",
        &html! {
            p { b { (request.client.name) } " asks to act for " b { (display) } ", as far as your role permits:" }
            ul.scopes { @for scope in &request.scopes { li { (super::words(scope)) } } }
            @if let Some(patient) = &patient {
                p.chosen { "Patient: " b { (patient.full_name()) }
                    @if let Some(birth) = patient.birth { ", born " (dates::long_day(birth)) } ", no. " (patient.short_number()) }
                @if asked.launch.is_empty() { p { a href=(asked.choose("")) { "Another patient" } } }
            }
            @if request.identity.openid { p { "It is told that it is you" @if request.identity.fhir_user { ", with your entry in the directory of this practice" } "." } }
            @match request.refresh {
                Some(smart::OFFLINE) => p.notice.warn { "It stays connected while you are away, for 90 days at most. Under Your account you can end this." },
                Some(_) => p.hint { "It stays connected until you log out." },
                None => p.hint { "For a few minutes." },
            }
            p.hint { "The answer goes to " code { (smart::origin(&asked.redirect_uri)) } }
            (answers(visit, asked, true))
        },
    ))
}

fn answers(visit: &Visit, asked: &Asked, complete: bool) -> Markup {
    html! {
        form method="post" action=(crate::fhir::smart::AUTHORIZE_PATH) data-no-guard="" {
            (layout::csrf(visit)) (asked.fields())
            input type="hidden" name="chosen" value=(asked.chosen);
            p.actions {
                @if complete { button.primary type="submit" name="do" value="allow" { "Allow" } }
                button type="submit" name="do" value="refuse" { "Refuse" }
            }
        }
    }
}

pub async fn decide(State(web): State<Web>, visit: Visit, form: Form) -> Result<Response, PageError> {
    let asked = Asked::of_form(&form);
    let client = client_of(&web, &asked).await?;
    let request = match read(&web, &visit.actor.id, client, &asked).await? {
        Ok(request) => request,
        Err(wrong) => return Ok(back(&web, &asked, "error", wrong)),
    };
    if form.text("do") != "allow" {
        return Ok(back(&web, &asked, "error", "access_denied"));
    }
    if request.needs_patient && request.patient.is_none() {
        return Err(PageError::Query);
    }
    let session = visit.session.as_ref().ok_or(PageError::Forbidden)?;
    let refresh = match request.refresh {
        Some(smart::OFFLINE) => Refresh::Offline,
        Some(_) => {
            let ends_ms = (web.now() + session.remaining_s(web.now())) * 1000;
            Refresh::Online { session: session.csrf.clone(), ends_ms }
        }
        None => Refresh::None,
    };
    let consent = Consent {
        client: request.client.id,
        account: visit.actor.id.clone(),
        patient: request.patient,
        scopes: request.scopes,
        identity: request.identity,
        nonce: asked.nonce.clone(),
        refresh,
        redirect: asked.redirect_uri.clone(),
        challenge: asked.code_challenge.clone(),
    };
    let id = crate::clock::new_id().map_err(|_| PageError::Internal("randomness"))?;
    let (code, launch) = (service::auth::random_token(), asked.launch.clone());
    let given = code.clone();
    let store = move |tx: &mut Tx<'_>| {
        if !launch.is_empty() && !smart::take_launch(tx.connection(), &launch)? {
            return Ok(false);
        }
        if let Some(patient) = &consent.patient {
            // Who may not read the patient hands nobody on to them.
            tx.read("Patient", patient)?;
        }
        smart::allow(tx.connection(), &id, &consent, &given, tx.now_ms())?;
        let patient = consent.patient.as_deref().unwrap_or_default();
        tx.note(Event::new(audit::Action::Create, "app-grant", &id).of_patient(patient));
        Ok::<_, StoreError>(true)
    };
    Ok(match web.store().write(&visit.actor, store).await? {
        true => back(&web, &asked, "code", &code),
        false => back(&web, &asked, "error", "invalid_request"),
    })
}
