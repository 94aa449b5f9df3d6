//! The patient portal: pages for patients on a listener and with a cookie of their own, and what the staff does for it.
//!
//! Every page acts as [`crate::access::Capacity::Patient`], bound to one compartment: the store answers for every other as if
//! it were not there, whatever an address says.

mod access_record;
pub mod desk;
mod documents;
mod forms;
mod login;
mod messages;
mod record;
mod visits;

#[cfg(test)]
mod tests;

use super::gate::Visit;
use super::{PageError, Route, Web};
use serde_json::Value;

/// The portal's route table.
pub fn routes(web: &Web) -> Vec<Route> {
    [
        login::routes(web),
        record::routes(web),
        documents::routes(web),
        visits::routes(web),
        forms::routes(web),
        messages::routes(web),
        access_record::routes(web),
    ]
    .concat()
}

/// The patient whose session it is.
fn patient(visit: &Visit) -> Result<String, PageError> {
    visit.actor.patient().map(str::to_owned).ok_or(PageError::Forbidden)
}

/// Whether a resource is something that a patient can rely on: not a draft, not a mistake.
fn is_valid(resource: &Value) -> bool {
    let status = super::reading::code(resource, "status");
    let verified = super::reading::code(resource, "verificationStatus");
    !matches!(status, "entered-in-error" | "preliminary" | "registered" | "cancelled" | "unknown" | "draft")
        && !matches!(verified, "entered-in-error" | "refuted")
}
