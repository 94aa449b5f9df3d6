//! Documentation from templates: the editor of templates, and forms in a patient's chart from draft to signature.

mod asked;
mod fill;
mod phrases;
pub mod prefill;
mod questions;
pub mod templates;

#[cfg(test)]
mod tests;

pub use asked::{new_response, template_of, title};
pub use fill::{chosen_template, push_extension, received, section};
pub use questions::{Told, answered, questions};

use super::reading::text;
use super::{Route, Web};
use crate::access::Actor;
use crate::forms::AMENDS;
use crate::scheduling::extension;
use serde_json::{Value, json};

/// Who signed a form and when; the same for who co-signed it.
pub const SIGNED: &str = "urn:holdfast:signed";
pub const COSIGNED: &str = "urn:holdfast:cosigned";
/// How a patient who signed or wrote is named.
pub const PATIENT: &str = "the patient";
/// The identifier system of our accounts.
pub const ACCOUNT: &str = "urn:holdfast:account";

pub fn routes(web: &Web) -> Vec<Route> {
    [templates::routes(web), fill::routes(web), phrases::routes(web)].concat()
}

pub fn is_draft(response: &Value) -> bool {
    text(response, "/status") == "in-progress"
}

/// A signature as an extension's parts.
pub fn signature(url: &str, actor: &Actor, display: &str, now: &str) -> Value {
    json!({"url": url, "extension": [
        {"url": "who", "valueReference": {"identifier": {"system": ACCOUNT, "value": actor.id}, "display": display}},
        {"url": "when", "valueInstant": now},
    ]})
}

/// Name, account and time of a signature.
pub fn signed(response: &Value, url: &str) -> Option<(String, String, String)> {
    let parts = extension(response, url, "extension")?.as_array()?;
    let part = |name: &str| parts.iter().find(|p| text(p, "/url") == name);
    let who = part("who")?;
    let account = text(who, "/valueReference/identifier/value").to_owned();
    Some((text(who, "/valueReference/display").to_owned(), account, text(part("when")?, "/valueInstant").to_owned()))
}
