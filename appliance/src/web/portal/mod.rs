//! The patient portal: pages for patients on a listener and with a cookie of their own, and what the staff does for it.
//!
//! Every page acts as [`crate::access::Capacity::Patient`] or, for somebody else, as [`crate::access::Capacity::Proxy`], bound to
//! one compartment: the store answers for every other as if it were not there, whatever an address says.

mod access_record;
mod consents;
pub mod desk;
mod documents;
mod forms;
mod login;
mod messages;
mod people;
pub mod proxies;
mod record;
mod visits;

#[cfg(test)]
mod consent_tests;
#[cfg(test)]
mod proxy_tests;
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
        consents::routes(web),
        messages::routes(web),
        access_record::routes(web),
        people::routes(web),
    ]
    .concat()
}

/// The patient whose session it is.
fn patient(visit: &Visit) -> Result<String, PageError> {
    visit.actor.patient().map(str::to_owned).ok_or(PageError::Forbidden)
}

/// Who acts, as the resources that they write name them: the patient, or who acts for the patient.
fn author(visit: &Visit, patient: &str) -> (String, String) {
    match visit.session.as_ref().and_then(|session| session.acting.as_ref()?.proxy.clone()) {
        Some(proxy) => (format!("RelatedPerson/{}", proxy.related), proxy.told()),
        None => (format!("Patient/{patient}"), super::forms::PATIENT.to_owned()),
    }
}

/// Whether a resource is something that a patient can rely on: not a draft, not a mistake.
fn is_valid(resource: &Value) -> bool {
    let status = super::reading::code(resource, "status");
    let verified = super::reading::code(resource, "verificationStatus");
    !matches!(status, "entered-in-error" | "preliminary" | "registered" | "cancelled" | "unknown" | "draft")
        && !matches!(verified, "entered-in-error" | "refuted")
}
