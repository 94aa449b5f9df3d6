//! From a request to a handler: session, cross-site checks and the route's policy come first, the headers that protect
//! the browser last.

use crate::accounts::{self, Caller, csrf_fits};
use crate::app::App;
use crate::db::DbError;
use crate::lockout;
use crate::pages::layout;
use crate::routes::{Policy, Route, Verb};
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, FromRequest, Multipart, Query, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Form, RequestExt};
use maud::Markup;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The prefix makes browsers insist on HTTPS, the path `/` and no domain.
pub const COOKIE: &str = "__Host-holdfast-console";
/// A form field, and the name of the header that scripts may send instead.
pub const CSRF_FIELD: &str = "_csrf";
/// Enough for any form and any approval.
const BODY_BYTES_MAX: usize = 256 << 10;
const FIELDS_MAX: usize = 32;

pub type Answer = Result<Response, Refusal>;

/// Why a request is not answered as asked.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("sign in first")]
    SignIn,
    #[error("your role does not allow this")]
    Forbidden,
    #[error("this form is out of date or came from another site: go back, reload the page, and try again")]
    CrossSite,
    #[error("there is nothing at this address")]
    NotFound,
    #[error("{0}")]
    Bad(String),
    #[error("{0}")]
    Unavailable(String),
    #[error("the console's database could not be used: look at the console's journal")]
    Internal,
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        DbError::from(error).into()
    }
}

impl From<DbError> for Refusal {
    fn from(error: DbError) -> Self {
        log::error!(error:% = error; "console.database-failed");
        Self::Internal
    }
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::SignIn => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::CrossSite => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Bad(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// An admitted request.
pub struct Call {
    pub app: Arc<App>,
    pub address: IpAddr,
    /// Present on every route that is not public, and on a public one when somebody is signed in.
    pub caller: Option<Caller>,
    /// The session's token.
    pub token: Option<String>,
    /// The cookie that says who has signed in with this browser before.
    pub device: Option<String>,
    path: Vec<(String, String)>,
    query: Vec<(String, String)>,
    fields: Vec<(String, Bytes)>,
}

impl Call {
    pub fn caller(&self) -> Result<&Caller, Refusal> {
        self.caller.as_ref().ok_or(Refusal::SignIn)
    }

    pub fn path(&self, name: &str) -> &str {
        find(&self.path, name).unwrap_or_default()
    }

    pub fn query(&self, name: &str) -> Option<&str> {
        find(&self.query, name)
    }

    /// A text field of the form; empty when absent or not UTF-8.
    pub fn field(&self, name: &str) -> &str {
        std::str::from_utf8(self.file(name)).unwrap_or_default()
    }

    /// An uploaded file's bytes; empty when absent.
    pub fn file(&self, name: &str) -> &[u8] {
        self.fields.iter().find(|(field, _)| field == name).map_or(&[], |(_, value)| value)
    }
}

fn find<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// Admits the request, runs the route's handler, and protects the answer.
pub async fn dispatch(app: Arc<App>, route: &'static Route, request: Request) -> Response {
    let headers = request.headers().clone();
    let (caller, token) = match who(&app, &headers) {
        Ok(found) => found,
        Err(refusal) => return protect(refused(&app, None, &headers, &refusal)),
    };
    let answer = match admit(&app, route, request, caller.clone(), token).await {
        Ok(call) => (route.handler)(call).await,
        Err(refusal) => Err(refusal),
    };
    protect(answer.unwrap_or_else(|refusal| refused(&app, caller.as_ref(), &headers, &refusal)))
}

pub async fn not_found(app: Arc<App>, request: Request) -> Response {
    let caller = who(&app, request.headers()).ok().and_then(|(caller, _)| caller);
    protect(refused(&app, caller.as_ref(), request.headers(), &Refusal::NotFound))
}

async fn admit(
    app: &Arc<App>,
    route: &Route,
    mut request: Request,
    caller: Option<Caller>,
    token: Option<String>,
) -> Result<Call, Refusal> {
    // Before the body is read: who may not use the route sends nothing.
    permit(route.policy, caller.as_ref())?;
    let device = cookie(request.headers(), lockout::DEVICE_COOKIE);
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let path = request.extract_parts::<RawPathParams>().await.map_err(|_| Refusal::NotFound)?;
    let path = path.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let query = request.extract_parts::<Query<Vec<(String, String)>>>().await.map(|Query(q)| q).unwrap_or_default();
    let mut fields = Vec::new();
    if route.verb == Verb::Post {
        same_site(request.headers())?;
        let header_token = request.headers().get("x-csrf-token").and_then(|v| v.to_str().ok()).map(str::to_owned);
        fields = read_fields(request).await?;
        if let (Policy::SignedIn | Policy::May(_), Some(caller)) = (route.policy, &caller) {
            let field = fields.iter().find(|(name, _)| name == CSRF_FIELD);
            let field_token = field.and_then(|(_, value)| std::str::from_utf8(value).ok());
            let sent = header_token.as_deref().or(field_token).ok_or(Refusal::CrossSite)?;
            if !csrf_fits(caller, sent) {
                return Err(Refusal::CrossSite);
            }
        }
    }
    let address = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    Ok(Call { app: app.clone(), address, caller, token, device, path, query, fields })
}

fn permit(policy: Policy, caller: Option<&Caller>) -> Result<(), Refusal> {
    match (policy, caller) {
        (Policy::Public(_), _) | (Policy::SignedIn, Some(_)) => Ok(()),
        (Policy::May(action), Some(caller)) if caller.role.may(action) => Ok(()),
        (Policy::May(_), Some(_)) => Err(Refusal::Forbidden),
        (Policy::SignedIn | Policy::May(_), None) => Err(Refusal::SignIn),
    }
}

/// The caller of the session in the cookie. A page that refreshes itself does not keep a session alive.
fn who(app: &App, headers: &HeaderMap) -> Result<(Option<Caller>, Option<String>), Refusal> {
    let Some(token) = cookie(headers, COOKIE) else { return Ok((None, None)) };
    let touch = !headers.contains_key("hx-request");
    let caller = app.db.write(|tx| accounts::session(tx, app.now_ms(), app.idle_ms(), &token, touch))?;
    Ok((caller, Some(token)))
}

fn cookie(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == wanted)
        .map(|(_, value)| value.to_owned())
}

/// A change must come from our own pages; browsers say where a request comes from.
fn same_site(headers: &HeaderMap) -> Result<(), Refusal> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let site = headers.get("sec-fetch-site").and_then(|value| value.to_str().ok());
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(Refusal::CrossSite);
    }
    match (text(header::ORIGIN), text(header::HOST)) {
        (None, _) => Ok(()),
        (Some(origin), Some(host)) if origin.split_once("://").is_some_and(|(_, from)| from == host) => Ok(()),
        _ => Err(Refusal::CrossSite),
    }
}

async fn read_fields(request: Request) -> Result<Vec<(String, Bytes)>, Refusal> {
    let bad = || Refusal::Bad("the form could not be read: go back, reload the page, and try again".to_owned());
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let multipart = kind.starts_with("multipart/form-data");
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, BODY_BYTES_MAX).await.map_err(|_| {
        Refusal::Bad(format!("what you sent has more than {} KiB: choose the right file", BODY_BYTES_MAX >> 10))
    })?;
    if body.is_empty() {
        return Ok(Vec::new());
    }
    let request = Request::from_parts(parts, Body::from(body));
    if !multipart {
        let Form(fields) = Form::<Vec<(String, String)>>::from_request(request, &()).await.map_err(|_| bad())?;
        return Ok(fields.into_iter().take(FIELDS_MAX).map(|(name, value)| (name, Bytes::from(value))).collect());
    }
    let mut fields = Vec::new();
    let mut parts = Multipart::from_request(request, &()).await.map_err(|_| bad())?;
    while let Some(part) = parts.next_field().await.map_err(|_| bad())? {
        let name = part.name().unwrap_or_default().to_owned();
        fields.push((name, part.bytes().await.map_err(|_| bad())?));
        if fields.len() > FIELDS_MAX {
            return Err(bad());
        }
    }
    Ok(fields)
}

fn refused(app: &App, caller: Option<&Caller>, headers: &HeaderMap, refusal: &Refusal) -> Response {
    let by_script = headers.contains_key("hx-request");
    if matches!(refusal, Refusal::SignIn) {
        let (name, status) =
            if by_script { ("hx-redirect", StatusCode::UNAUTHORIZED) } else { ("location", StatusCode::SEE_OTHER) };
        return (status, [(name, "/sign-in")]).into_response();
    }
    (refusal.status(), layout::refusal(app, caller, refusal)).into_response()
}

/// Headers on every answer.
fn protect(mut response: Response) -> Response {
    const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                          form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("strict-transport-security", "max-age=31536000"),
        ("x-content-type-options", "nosniff"),
        // Stricter would make browsers send `Origin: null` with our own forms.
        ("referrer-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
    ] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

pub fn page(markup: Markup) -> Answer {
    Ok(markup.into_response())
}

/// After a change: the browser loads `to` anew.
pub fn see(to: &str) -> Answer {
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response())
}
