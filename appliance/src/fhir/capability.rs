//! The capability statement, drawn from the tables that the server itself works by.

use super::{params, types};
use crate::clock;
use serde_json::{Value, json};

/// The statement, dated `now_ms`.
pub fn statement(now_ms: i64) -> Value {
    let resources: Vec<Value> = types::TYPES.iter().map(|kind| resource(kind)).collect();
    json!({
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": clock::instant(now_ms),
        "kind": "instance",
        "software": { "name": "Holdfast appliance", "version": env!("CARGO_PKG_VERSION") },
        "implementation": { "description": "The records of this practice" },
        "fhirVersion": "4.0.1",
        "format": ["json"],
        "rest": [{
            "mode": "server",
            "documentation": "Search results are ordered by creation and paged with `_count` and the `next` link. \
                Unknown parameters are refused. An update must name the version it replaces in `If-Match`.",
            "security": { "cors": false, "description": "Staff session; writes need the header x-csrf-token." },
            "resource": resources,
            "interaction": [{ "code": "transaction" }],
            "searchParam": [
                { "name": "_id", "type": "token" },
                { "name": "_lastUpdated", "type": "date" },
            ],
        }],
    })
}

fn resource(kind: &str) -> Value {
    let mut searched: Vec<Value> =
        params::of(kind).map(|param| json!({ "name": param.name, "type": param.form.as_str() })).collect();
    if kind != "Patient" {
        searched.extend(["patient", "subject"].map(|name| json!({ "name": name, "type": "reference" })));
    }
    let interactions: Vec<Value> =
        ["read", "vread", "update", "create", "search-type"].iter().map(|code| json!({ "code": code })).collect();
    json!({
        "type": kind,
        "interaction": interactions,
        "versioning": "versioned-update",
        "readHistory": true,
        "updateCreate": true,
        "conditionalCreate": false,
        "conditionalDelete": "not-supported",
        "referencePolicy": ["literal"],
        "searchParam": searched,
    })
}
