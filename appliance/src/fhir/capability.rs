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
            "documentation": "Search results are ordered by creation unless `_sort` says otherwise, and paged with `_count` \
                and the `next` link; `_include`, `_revinclude` and chains go one step. Unknown parameters are refused unless \
                `Prefer: handling=lenient` is sent. An update must name the version it replaces in `If-Match`.",
            "security": { "cors": false, "description": "Staff session; writes need the header x-csrf-token." },
            "resource": resources,
            "interaction": [{ "code": "transaction" }],
            "searchParam": [
                { "name": "_id", "type": "token" },
                { "name": "_lastUpdated", "type": "date" },
                { "name": "_sort", "type": "special" },
                { "name": "_count", "type": "special" },
                { "name": "_include", "type": "special" },
                { "name": "_revinclude", "type": "special" },
                { "name": "_summary", "type": "special" },
                { "name": "_elements", "type": "special" },
                { "name": "_total", "type": "special" },
            ],
        }],
    })
}

fn resource(kind: &str) -> Value {
    let searched: Vec<Value> =
        params::of(kind).iter().map(|param| json!({ "name": param.name, "type": param.form.as_str() })).collect();
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
        "searchInclude": includes(kind),
        "searchRevInclude": revincludes(kind),
        "searchParam": searched,
    })
}

/// The references of a type that a search can follow.
fn includes(kind: &str) -> Vec<String> {
    params::of(kind).iter().filter(|param| param.form.refers()).map(|param| format!("{kind}:{}", param.name)).collect()
}

/// The references to a type that a search can follow back. Those that may point anywhere are named once, by `Provenance`.
fn revincludes(kind: &str) -> Vec<String> {
    let points = |param: &&params::Param| param.form.refers() && param.targets.contains(&kind);
    let named = params::all().filter(points).map(|param| format!("{}:{}", param.kind, param.name));
    named.chain(["Provenance:target".to_owned()]).collect()
}
