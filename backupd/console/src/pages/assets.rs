//! Style sheet and script, inside the program. Their names carry a digest, so that browsers may keep them for ever.

use crate::web::{Answer, Call, Refusal};
use axum::http::header;
use axum::response::IntoResponse;
use sha2::{Digest, Sha256};
use std::sync::LazyLock;

const CSS: &str = include_str!("../../assets/console.css");
/// htmx 2.0.11, unchanged; its licence lies beside it.
const HTMX: &str = include_str!("../../assets/htmx.min.js");
const ICON: &str = include_str!("../../assets/icon.svg");

pub static CSS_NAME: LazyLock<String> = LazyLock::new(|| named("console", CSS, "css"));
pub static HTMX_NAME: LazyLock<String> = LazyLock::new(|| named("htmx", HTMX, "js"));
pub static ICON_NAME: LazyLock<String> = LazyLock::new(|| named("icon", ICON, "svg"));

fn named(stem: &str, text: &str, extension: &str) -> String {
    let digest = hex::encode(Sha256::digest(text.as_bytes()));
    format!("{stem}.{}.{extension}", digest.get(..12).unwrap_or_default())
}

pub async fn show(call: Call) -> Answer {
    let name = call.path("name");
    let (kind, text) = if name == *CSS_NAME {
        ("text/css; charset=utf-8", CSS)
    } else if name == *HTMX_NAME {
        ("text/javascript; charset=utf-8", HTMX)
    } else if name == *ICON_NAME {
        ("image/svg+xml", ICON)
    } else {
        return Err(Refusal::NotFound);
    };
    let headers = [(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, text).into_response())
}
