//! Static files, compiled in. Their paths carry a hash of the content, so browsers may keep them for good.

use super::{Method, PageError, Policy, Route, Web};
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use http::header;
use std::borrow::Cow;
use std::sync::LazyLock;

const CSS: &str = include_str!("../../assets/holdfast.css");
const APP_JS: &str = include_str!("../../assets/holdfast.js");
const HTMX_JS: &str = include_str!("../../assets/htmx-2.0.11.min.js");
const CALENDAR_JS: &str = include_str!("../../assets/calendar.js");
const FORMS_JS: &str = include_str!("../../assets/forms.js");
const KEYS_JS: &str = include_str!("../../assets/keys.js");
const SIGN_JS: &str = include_str!("../../assets/sign.js");
const ICON: &str = include_str!("../../assets/icon.svg");

/// A file with its hashed name.
pub struct Asset {
    pub path: String,
    kind: &'static str,
    content: Cow<'static, str>,
}

fn asset(stem: &str, extension: &str, kind: &'static str, content: impl Into<Cow<'static, str>>) -> Asset {
    let content = content.into();
    let hash = blake3::hash(content.as_bytes()).to_hex();
    Asset { path: format!("/assets/{stem}-{}.{extension}", &hash[..12]), kind, content }
}

pub struct Assets {
    pub css: Asset,
    pub app: Asset,
    pub calendar: Asset,
    pub forms: Asset,
    pub keys: Asset,
    pub sign: Asset,
    pub htmx: Asset,
    pub icon: Asset,
}

pub static ASSETS: LazyLock<Assets> = LazyLock::new(|| Assets {
    css: asset("holdfast", "css", "text/css; charset=utf-8", format!("{CSS}{}", super::schedule::grid_style())),
    app: asset("holdfast", "js", "text/javascript; charset=utf-8", APP_JS),
    calendar: asset("calendar", "js", "text/javascript; charset=utf-8", CALENDAR_JS),
    forms: asset("forms", "js", "text/javascript; charset=utf-8", FORMS_JS),
    keys: asset("keys", "js", "text/javascript; charset=utf-8", KEYS_JS),
    sign: asset("sign", "js", "text/javascript; charset=utf-8", SIGN_JS),
    htmx: asset("htmx", "js", "text/javascript; charset=utf-8", HTMX_JS),
    icon: asset("icon", "svg", "image/svg+xml", ICON),
});

pub fn routes(_: &Web) -> Vec<Route> {
    vec![Route::new(Method::Get, "/assets/{file}", Policy::Public, serve, ())]
}

async fn serve(Path(file): Path<String>) -> Result<Response, PageError> {
    let scripts = [&ASSETS.app, &ASSETS.calendar, &ASSETS.forms, &ASSETS.keys, &ASSETS.sign, &ASSETS.htmx];
    let mut all = scripts.into_iter().chain([&ASSETS.css, &ASSETS.icon]);
    let asset = all.find(|a| a.path.strip_prefix("/assets/") == Some(&file)).ok_or(PageError::NotFound)?;
    let headers = [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, asset.content.as_ref()).into_response())
}
