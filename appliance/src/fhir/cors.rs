//! Pages of registered public programs ask across sites: the browser is told that they may, for the API and the endpoints of
//! OAuth, with a token and never with a cookie.

use super::http::BASE;
use crate::access::smart;
use crate::store::Store;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Middleware around every route.
pub async fn allow(State(store): State<Store>, request: Request<Body>, next: Next) -> Response {
    let path = request.uri().path();
    // The page where a person is asked is no endpoint for scripts.
    let open = path.starts_with(BASE) || path.starts_with("/oauth/") && path != super::smart::AUTHORIZE_PATH;
    let Some(origin) = request.headers().get(header::ORIGIN).filter(|_| open).cloned() else {
        return next.run(request).await;
    };
    let preflight =
        *request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let told = origin.to_str().unwrap_or_default().to_owned();
    let known = store.internal(move |db| smart::is_browser_origin(db, &told)).await.unwrap_or(false);
    let mut response = match preflight && known {
        true => StatusCode::NO_CONTENT.into_response(),
        false => next.run(request).await,
    };
    if known {
        answer(response.headers_mut(), origin, preflight);
    }
    response
}

fn answer(headers: &mut HeaderMap, origin: HeaderValue, preflight: bool) {
    const PREFLIGHT: [(HeaderName, &str); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
        (
            header::ACCESS_CONTROL_ALLOW_HEADERS,
            "authorization, content-type, accept, prefer, if-match, if-none-exist, x-security-context",
        ),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ];
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    headers.insert(
        header::ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("etag, location, last-modified, content-location"),
    );
    if preflight {
        PREFLIGHT.into_iter().for_each(|(name, value)| drop(headers.insert(name, HeaderValue::from_static(value))));
    }
}
