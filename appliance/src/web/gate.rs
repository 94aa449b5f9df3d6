//! What every request passes before its handler: session, lock, policy, forgery check, form, and on the way back the
//! security headers.

use super::form::{Form, FormError};
use super::known::{self, Moment};
use super::route::{Policy, Surface};
use super::{PageError, Web, login};
use crate::access::accounts::AccountError;
use crate::access::sessions::{self, Session, State as SessionState};
use crate::access::{Actor, Denied, Governs, Once, lockout, portal};
use crate::clock;
use crate::consents;
use crate::fhir::negotiate;
use crate::store::{self, StoreError};
use crate::web::reading::PatientFacts;
use axum::extract::{ConnectInfo, FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// The header that carries the CSRF token where there is no form.
pub const CSRF_HEADER: &str = "x-csrf-token";
/// The double-submit cookie of forms that are shown before anybody has logged in.
pub const FORM_COOKIE: &str = "__Host-holdfast-form";
/// The field with which a browser tells one filling-in of a form from another.
const ONCE: &str = "once";
/// FHIR transactions carry whole charts.
const FHIR_BYTES_MAX: usize = 32 << 20;

/// Which listener a request came by, and so which cookie is looked at: a browser sends the cookies of one host to all its
/// ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Staff,
    /// Strangers: no session at all.
    Public,
    Patients,
}

#[derive(Clone)]
pub struct Rule {
    pub web: Web,
    pub door: Door,
    pub policy: Policy,
    pub surface: Surface,
}

/// One request by one person: what a handler knows about who asks.
#[derive(Clone)]
pub struct Visit {
    pub session: Option<Arc<Session>>,
    pub actor: Actor,
    /// The token that this visitor's forms must carry.
    pub csrf: String,
    pub address: Option<IpAddr>,
    /// The cookie that says who has logged in with this browser before.
    pub device: Option<String>,
    /// Asked by htmx: answer with a fragment.
    pub fragment: bool,
    /// Path and query, to come back to after a login.
    pub here: String,
    /// The patient for whom somebody else acts in the portal.
    pub whom: Option<Arc<PatientFacts>>,
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        visit_of(parts).cloned()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Form {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Form>().cloned().unwrap_or_default())
    }
}

/// A query string that is not what a handler expects is answered with a page, not with the parser's words.
pub struct UrlQuery<T>(pub T);

impl<S: Send + Sync, T: serde::de::DeserializeOwned> FromRequestParts<S> for UrlQuery<T> {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(asked)| Self(asked))
            .map_err(|_| PageError::Query)
    }
}

/// The actor of the request, for handlers that need nothing else of a visit (FHIR).
impl<S: Send + Sync> FromRequestParts<S> for Actor {
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, PageError> {
        visit_of(parts).map(|visit| visit.actor.clone())
    }
}

fn visit_of(parts: &Parts) -> Result<&Visit, PageError> {
    parts.extensions.get::<Visit>().ok_or(PageError::Internal("visit"))
}

/// Why the gate did not let a request through.
enum Refusal {
    Denied(Denied),
    Locked(Option<Form>),
    Forged,
    Form(FormError),
    /// It held characters that no record holds; what is left of it.
    Cleaned(Form),
    Store(StoreError),
}

pub async fn gate(State(rule): State<Rule>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let visit = visit(&rule, &parts).await;
    // A body cannot be shared between threads, so it is kept apart while the session is looked up.
    let request = Request::from_parts(parts, body);
    let mut visit = match visit {
        Ok(visit) => visit,
        Err(error) => return finish(refuse(&rule, None, Refusal::Store(error))),
    };
    let is_stranger = rule.surface == Surface::Page && visit.session.is_none();
    let fresh_csrf = (is_stranger && cookie(request.headers(), FORM_COOKIE).is_none()).then(|| visit.csrf.clone());
    let mut response = match admit(&rule, &mut visit, request).await {
        Ok(request) => answer(&rule, visit, request, next).await,
        Err(refusal) => refuse(&rule, Some(&visit), refusal),
    };
    if let Some(csrf) = fresh_csrf {
        set_cookie(response.headers_mut(), FORM_COOKIE, &csrf, None);
    }
    finish(response)
}

/// A request that was let through.
async fn answer(rule: &Rule, visit: Visit, mut request: Request, next: Next) -> Response {
    if rule.surface == Surface::Fhir
        && let Some(outcome) = negotiate::refusal(&request)
    {
        return outcome.into_response();
    }
    request.extensions_mut().insert(visit);
    next.run(request).await
}

/// A request of a registered program: its token is all that it has, cookies are not looked at.
async fn app_visit(web: &Web, token: &str, request: &Parts) -> Result<Visit, StoreError> {
    let now_ms = web.store().clock().unix_ms();
    let actor = web.store().internal_one(|db| crate::access::smart::actor(db, token, now_ms))?;
    let actor = actor.unwrap_or_else(Actor::anonymous);
    let address = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let (csrf, here) = (String::new(), String::new());
    Ok(Visit { session: None, actor, csrf, address, device: None, fragment: false, here, whom: None })
}

async fn visit(rule: &Rule, request: &Parts) -> Result<Visit, StoreError> {
    let (web, headers) = (&rule.web, &request.headers);
    if let Some(token) = crate::fhir::smart::bearer(headers).filter(|_| rule.surface == Surface::Fhir) {
        return app_visit(web, token, request).await;
    }
    let (name, device) = match rule.door {
        Door::Staff => (Some(sessions::COOKIE), Some(lockout::DEVICE_COOKIE)),
        Door::Patients => (Some(portal::COOKIE), Some(lockout::PORTAL_DEVICE_COOKIE)),
        Door::Public => (None, None),
    };
    let device = device.and_then(|name| cookie(headers, name)).map(str::to_owned);
    let session = match name.and_then(|name| cookie(headers, name)) {
        Some(token) if rule.door == Door::Patients => find_patient(web, token).await?.map(Arc::new),
        Some(token) => find_session(web, token).await?,
        None => None,
    };
    let csrf = match &session {
        Some(session) => session.csrf.clone(),
        None => cookie(headers, FORM_COOKIE).map_or_else(service::auth::random_token, str::to_owned),
    };
    let actor = session.as_ref().map_or_else(Actor::anonymous, |s| s.actor.clone());
    let here = request.uri.path_and_query().map_or_else(|| "/".to_owned(), |p| p.as_str().to_owned());
    let address = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let fragment = headers.contains_key("hx-request") && !headers.contains_key("hx-boosted");
    let whom = session.as_ref().map(|session| whom(web, session)).transpose()?.flatten();
    Ok(Visit { session, actor, csrf, address, device, fragment, here, whom })
}

async fn find_session(web: &Web, token: &str) -> Result<Option<Arc<Session>>, StoreError> {
    let (idle_s, now, began) = (web.settings().idle_lock_s, web.now(), known::began());
    let moment = Moment { changes: web.store().changes(), now };
    if let Some(session) = web.known().find(moment, &service::auth::token_hash(token)) {
        return Ok(Some(session));
    }
    let session = web.store().internal_one(|db| sessions::find(db, token, idle_s, now)).map_err(store_error)?;
    let session = session.map(Arc::new);
    if let Some(session) = &session {
        web.known().keep(moment, began, session);
    }
    if let Some(session) = session.as_ref().filter(|s| s.touch_due(now)) {
        let seen = Arc::clone(session);
        web.write_accounts(&session.actor, move |db| sessions::touch(db, &seen, now)).await.map_err(store_error)?;
    }
    Ok(session)
}

async fn find_patient(web: &Web, token: &str) -> Result<Option<Session>, StoreError> {
    let now = web.now();
    let find = |db: &crate::db::Connection| {
        let session = portal::find(db, token, now)?;
        session
            .map(|found| found.heeding(|patient| Ok(!consents::permits(db, Governs::Proxies, patient, now * 1000)?)))
            .transpose()
    };
    let session = web.store().internal_one(find).map_err(store_error)?;
    if let Some(session) = session.as_ref().filter(|s| s.touch_due(now)) {
        let seen = session.clone();
        web.write_accounts(&session.actor, move |db| portal::touch(db, &seen, now)).await.map_err(store_error)?;
    }
    Ok(session)
}

/// The patient for whom a session acts by a grant.
fn whom(web: &Web, session: &Session) -> Result<Option<Arc<PatientFacts>>, StoreError> {
    let Some(proxy) = session.acting.as_ref().and_then(|acting| acting.proxy.as_ref()) else { return Ok(None) };
    let body = web.store().internal_one(|db| store::patient_body(db, &proxy.patient))?;
    Ok(body.map(|body| Arc::new(PatientFacts::read(&body))))
}

fn store_error(error: AccountError) -> StoreError {
    match error {
        AccountError::Store(error) => error,
        AccountError::Database(error) => error.into(),
        _ => StoreError::Damaged("accounts"),
    }
}

/// Checks the request; for a state-changing page request the form is read and replaces the body.
async fn admit(rule: &Rule, visit: &mut Visit, request: Request) -> Result<Request, Refusal> {
    let locked = visit.session.as_ref().is_some_and(|s| s.state == SessionState::Locked);
    let locked = locked && !matches!(rule.policy, Policy::Public | Policy::AnySession);
    if !locked {
        rule.policy.check(&visit.actor).map_err(Refusal::Denied)?;
    }
    if matches!(*request.method(), http::Method::GET | http::Method::HEAD) {
        return if locked { Err(Refusal::Locked(None)) } else { Ok(request) };
    }
    let token = request.headers().get(CSRF_HEADER).and_then(|v| v.to_str().ok()).map(str::to_owned);
    // A program's page elsewhere has a token, and no cookie that it could abuse.
    let program = rule.surface == Surface::Fhir && visit.session.is_none();
    if !program && !same_origin(request.headers()) {
        return Err(Refusal::Forged);
    }
    if rule.surface == Surface::Fhir {
        // Without a session there is no cookie that another site could abuse.
        let forged = visit.session.is_some() && !token.is_some_and(|t| token_fits(&t, &visit.csrf));
        return match (locked, forged) {
            (true, _) => Err(Refusal::Locked(None)),
            (_, true) => Err(Refusal::Forged),
            _ => Ok(limited(request)),
        };
    }
    let (mut parts, body) = request.into_parts();
    let mut to_read = Request::new(body);
    *to_read.headers_mut() = parts.headers.clone();
    let form = Form::read(to_read).await.map_err(Refusal::Form)?;
    let token = token.unwrap_or_else(|| form.raw("csrf").to_owned());
    let pre_login_cookie = visit.session.is_some() || cookie(&parts.headers, FORM_COOKIE).is_some();
    if !pre_login_cookie || !token_fits(&token, &visit.csrf) {
        return Err(Refusal::Forged);
    }
    if locked {
        return Err(Refusal::Locked(Some(form)));
    }
    if form.was_cleaned() {
        return Err(Refusal::Cleaned(form));
    }
    visit.actor.once = once(&visit.actor, form.text(ONCE)).map_err(Refusal::Store)?;
    parts.extensions.insert(form);
    Ok(Request::from_parts(parts, axum::body::Body::empty()))
}

/// What makes this sending of a form different from every other form, and from the same one sent again.
fn once(actor: &Actor, drawn: &str) -> Result<Option<Once>, StoreError> {
    if drawn.is_empty() || drawn.len() > 64 {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new_derive_key("holdfast appliance form sent v1");
    hasher.update(actor.id.as_bytes()).update(&[0]).update(drawn.as_bytes());
    let request = clock::random().map_err(StoreError::io("randomness"))?;
    Ok(Some(Once { form: *hasher.finalize().as_bytes(), request }))
}

fn limited(request: Request) -> Request {
    let (parts, body) = request.into_parts();
    Request::from_parts(parts, axum::body::Body::new(http_body_util::Limited::new(body, FHIR_BYTES_MAX)))
}

fn token_fits(given: &str, expected: &str) -> bool {
    service::auth::constant_time_eq(given.as_bytes(), expected.as_bytes())
}

/// Browsers say where a request comes from; programs do not, and have no cookie to abuse.
fn same_origin(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-site").is_none_or(|site| site == "same-origin" || site == "none")
}

fn refuse(rule: &Rule, visit: Option<&Visit>, refusal: Refusal) -> Response {
    if rule.surface == Surface::Fhir {
        return refuse_fhir(refusal);
    }
    let here = visit.map_or("/", |v| v.here.as_str());
    let fragment = visit.is_some_and(|v| v.fragment);
    match refusal {
        Refusal::Denied(Denied::NotLoggedIn) => login::go_to("/login", here, fragment),
        Refusal::Locked(Some(form)) => login::locked_form(&rule.web, visit, here, &form),
        Refusal::Cleaned(form) => login::cleaned_form(&rule.web, visit, here, &form),
        Refusal::Locked(None) => login::go_to("/unlock", here, fragment),
        Refusal::Denied(Denied::NotPermitted | Denied::Withheld) => PageError::Forbidden.into_response(),
        Refusal::Forged => PageError::Forged.into_response(),
        Refusal::Form(error) => PageError::Form(error).into_response(),
        Refusal::Store(error) => PageError::Store(error).into_response(),
    }
}

fn refuse_fhir(refusal: Refusal) -> Response {
    let (status, code, text) = match refusal {
        Refusal::Denied(Denied::NotLoggedIn) => (StatusCode::UNAUTHORIZED, "login", "log in first"),
        Refusal::Locked(_) => (StatusCode::UNAUTHORIZED, "login", "the session is locked: unlock it in the browser"),
        Refusal::Denied(Denied::NotPermitted | Denied::Withheld) => {
            (StatusCode::FORBIDDEN, "forbidden", "your role does not permit this")
        }
        Refusal::Forged => {
            (StatusCode::FORBIDDEN, "security", "a change needs the session's token in the header x-csrf-token")
        }
        Refusal::Form(_) | Refusal::Cleaned(_) => (StatusCode::BAD_REQUEST, "structure", "the body could not be read"),
        Refusal::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "transient", "the records are not available: try again"),
    };
    let outcome = serde_json::json!({
        "resourceType": "OperationOutcome",
        "issue": [{"severity": "error", "code": code, "diagnostics": text}],
    });
    (status, [(header::CONTENT_TYPE, "application/fhir+json")], outcome.to_string()).into_response()
}

const CONTENT_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                              form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The policy of a page whose forms lead on to these registered programs: browsers ask it about the whole way of a form.
pub fn content_policy_to(programs: &[&str]) -> Option<HeaderValue> {
    let sources: Vec<&str> = programs.iter().map(|url| crate::access::smart::origin(url)).collect();
    let with = format!("form-action 'self' {};", sources.join(" "));
    HeaderValue::from_str(&CONTENT_POLICY.replace("form-action 'self';", &with)).ok()
}

/// The headers of every answer. Handlers of static files have set their own caching before.
pub(super) fn finish(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 8] = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (header::STRICT_TRANSPORT_SECURITY, "max-age=31536000"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (HeaderName::from_static("permissions-policy"), "camera=(), microphone=(), geolocation=(), payment=(), usb=()"),
    ];
    let headers = response.headers_mut();
    headers.reserve(HEADERS.len() + 1);
    for (name, value) in HEADERS {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A cookie's value. A name that is sent twice counts as absent: somebody may have planted one.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut found = None;
    for line in headers.get_all(header::COOKIE) {
        for pair in line.to_str().ok()?.split(';') {
            let Some((key, value)) = pair.trim().split_once('=') else { continue };
            if key == name && found.replace(value).is_some() {
                return None;
            }
        }
    }
    found.filter(|v| (1..=256).contains(&v.len()))
}

/// Sets a cookie that only this host, only over TLS and only same-site requests carry; `max_age_s` of 0 deletes it.
pub fn set_cookie(headers: &mut HeaderMap, name: &str, value: &str, max_age_s: Option<i64>) {
    let age = max_age_s.map(|s| format!("; Max-Age={s}")).unwrap_or_default();
    let line = format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Strict{age}");
    if let Ok(line) = HeaderValue::from_str(&line) {
        headers.append(header::SET_COOKIE, line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_sent_twice_is_no_cookie() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, HeaderValue::from_static("a=1; __Host-holdfast=x; b=2"));
        assert_eq!(cookie(&headers, "__Host-holdfast"), Some("x"));
        headers.append(header::COOKIE, HeaderValue::from_static("__Host-holdfast=y"));
        assert_eq!(cookie(&headers, "__Host-holdfast"), None);
    }

    #[test]
    fn cookies_are_bound_to_this_host() {
        let mut headers = HeaderMap::new();
        set_cookie(&mut headers, sessions::COOKIE, "v", None);
        let line = headers[header::SET_COOKIE].to_str().unwrap();
        for part in ["__Host-", "Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
            assert!(line.contains(part), "{part}");
        }
        assert!(!line.contains("Domain"));
    }
}
