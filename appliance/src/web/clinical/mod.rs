//! What is measured and followed: vital signs with curves, results, immunizations, the timeline with its search, tasks and
//! referrals.

mod immunizations;
mod referral;
mod referrals;
pub mod results;
mod tasks;
mod timeline;
mod vitals;

#[cfg(test)]
mod long_tests;
#[cfg(test)]
mod tests;

pub use vitals::{Point, measured};

use super::reading::text;
use super::{Route, Web};
use serde_json::Value;

pub fn routes(web: &Web) -> Vec<Route> {
    [
        vitals::routes(web),
        results::routes(web),
        immunizations::routes(web),
        timeline::routes(web),
        tasks::routes(web),
        referrals::routes(web),
        referral::routes(web),
    ]
    .concat()
}

/// When something was, as precisely as it says.
pub fn moment(resource: &Value) -> &str {
    [
        "/effectiveDateTime",
        "/effectiveInstant",
        "/effectivePeriod/start",
        "/effectivePeriod/end",
        "/occurrenceDateTime",
        "/performedDateTime",
        "/performedPeriod/start",
        "/period/start",
        "/authoredOn",
        "/authored",
        "/date",
        "/recordedDate",
        "/onsetDateTime",
        "/issued",
        "/start",
        "/meta/lastUpdated",
    ]
    .into_iter()
    .map(|pointer| text(resource, pointer))
    .find(|t| !t.is_empty())
    .unwrap_or("")
}
