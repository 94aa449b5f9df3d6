//! The capability statement, drawn from the tables that the server itself works by.

use super::{audit_event, params, smart, types};
use crate::clock;
use serde_json::{Value, json};

/// How one comes in: by SMART for programs, at the addresses below `base`, and by the staff's own session.
fn security(base: &str) -> Value {
    const URIS: &str = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris";
    const SERVICES: &str = "http://terminology.hl7.org/CodeSystem/restful-security-service";
    let uris: Vec<Value> =
        smart::addresses(base).into_iter().map(|(url, value)| json!({ "url": url, "valueUri": value })).collect();
    json!({
        "extension": [{ "url": URIS, "extension": uris }],
        "cors": true,
        "service": [{ "coding": [{ "system": SERVICES, "code": "SMART-on-FHIR" }], "text": "OAuth2 using SMART-on-FHIR profile" }],
        "description": "Programs: SMART on FHIR (.well-known/smart-configuration). The staff's session: writes need the header \
            x-csrf-token. Origins of registered public programs may ask across sites, with tokens alone.",
    })
}

/// The statement, dated `now_ms`, of the service at `base`.
pub fn statement(now_ms: i64, base: &str) -> Value {
    let resources: Vec<Value> = types::TYPES.iter().map(|kind| resource(kind)).chain([audit()]).collect();
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
            "security": security(base),
            "resource": resources,
            "interaction": [{ "code": "transaction" }, { "code": "batch" }],
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

const INTERACTIONS: [&str; 9] =
    ["read", "vread", "update", "patch", "delete", "history-instance", "history-type", "create", "search-type"];

/// The operations of a type, by the definitions that R4 gives them.
fn operations(kind: &str) -> Vec<Value> {
    let named = |name: &str, of: &str| json!({ "name": name, "definition": format!("http://hl7.org/fhir/OperationDefinition/{of}-{name}") });
    let mut operations = vec![named("validate", "Resource")];
    if kind == "Patient" {
        operations.extend([named("everything", "Patient"), named("match", "Patient")]);
    }
    if kind == "Group" {
        let definition = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition/group-export";
        operations.push(json!({ "name": "export", "definition": definition }));
    }
    operations
}

fn resource(kind: &str) -> Value {
    let searched: Vec<Value> =
        params::of(kind).iter().map(|param| json!({ "name": param.name, "type": param.form.as_str() })).collect();
    let interactions: Vec<Value> = INTERACTIONS.iter().map(|code| json!({ "code": code })).collect();
    json!({
        "type": kind,
        "interaction": interactions,
        "versioning": "versioned-update",
        "readHistory": true,
        "updateCreate": true,
        "conditionalCreate": true,
        "conditionalUpdate": true,
        "conditionalDelete": "not-supported",
        "referencePolicy": ["literal"],
        "searchInclude": includes(kind),
        "searchRevInclude": revincludes(kind),
        "searchParam": searched,
        "operation": operations(kind),
    })
}

/// The audit: read by who may see it, and written by nobody.
fn audit() -> Value {
    let searched: Vec<Value> =
        audit_event::PARAMS.iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect();
    json!({
        "type": types::AUDIT,
        "documentation": "For practice administrators. The newest first; `altid` is who acted, `agent-role` in what capacity, `subtype` \
            this program's own word for what was done. Of what every type is asked with, `_id`, `_count`, `_sort=-date`, `_summary` and \
            `_elements`.",
        "interaction": [{ "code": "read" }, { "code": "search-type" }],
        "versioning": "no-version",
        "readHistory": false,
        "updateCreate": false,
        "conditionalCreate": false,
        "conditionalUpdate": false,
        "conditionalDelete": "not-supported",
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
