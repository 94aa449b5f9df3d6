//! The schemas of the description: what every resource has, what may be asked, and what is answered.

use super::super::types;
use serde_json::{Value, json};

pub(super) fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// A body of this schema, in FHIR's media type.
pub(super) fn fhir(name: &str) -> Value {
    json!({ "application/fhir+json": { "schema": reference(name) } })
}

pub(super) fn all() -> Value {
    json!({
        "Id": { "type": "string", "pattern": "^[A-Za-z0-9.-]{1,64}$" },
        "Anything": {
            "description": "A resource, or `Parameters` with one named `resource`; what it is not, the answer says",
            "type": ["object", "array", "string", "number", "boolean", "null"],
        },
        "Resource": {
            "type": "object",
            "required": ["resourceType"],
            "properties": { "resourceType": { "type": "string" }, "id": reference("Id"), "meta": { "type": "object" } },
        },
        "Bundle": bundle(),
        "RequestBundle": {
            "type": "object",
            "required": ["resourceType", "type"],
            "properties": {
                "resourceType": { "const": "Bundle" },
                "type": { "enum": ["transaction", "batch"] },
                "entry": { "type": "array", "items": { "type": "object" } },
            },
        },
        "OperationOutcome": outcome(),
        "Patch": patch(),
        "SearchForm": {
            "description": "As in an address: those of every type, and the type's own",
            "type": "object",
            "properties": { "_id": { "type": "string", "minLength": 1 }, "_count": { "type": "integer", "minimum": 0 } },
        },
        "AuditForm": {
            "description": "As in an address",
            "type": "object",
            "properties": { "patient": { "type": "string", "pattern": "^(Patient/)?[A-Za-z0-9.-]{1,64}$" }, "_count": { "type": "integer", "minimum": 1 } },
        },
        "Sought": {
            "description": "A `Patient`, or `Parameters` with `resource`, `count` and `onlyCertainMatches`",
            "type": "object",
            "required": ["resourceType"],
            "properties": { "resourceType": { "enum": ["Patient", "Parameters"] } },
        },
        "Manifest": {
            "type": "object",
            "required": ["transactionTime", "request", "requiresAccessToken", "output", "error"],
            "properties": {
                "transactionTime": { "type": "string", "format": "date-time" },
                "requiresAccessToken": { "const": true },
                "output": { "type": "array", "items": {
                    "type": "object",
                    "required": ["type", "url"],
                    "properties": { "type": { "enum": types::TYPES.as_slice() }, "url": { "type": "string" } },
                } },
            },
        },
    })
}

fn bundle() -> Value {
    let link = json!({
        "type": "object",
        "required": ["relation", "url"],
        "properties": { "relation": { "enum": ["self", "next"] }, "url": { "type": "string" } },
    });
    let kinds = ["searchset", "history", "transaction-response", "batch-response"];
    json!({
        "type": "object",
        "required": ["resourceType", "type"],
        "properties": {
            "resourceType": { "const": "Bundle" },
            "type": { "enum": kinds },
            "total": { "type": "integer", "minimum": 0 },
            "link": { "type": "array", "items": link },
            "entry": { "type": "array", "items": {
                "type": "object",
                "properties": {
                    "fullUrl": { "type": "string" },
                    "resource": reference("Resource"),
                    "search": { "type": "object", "required": ["mode"], "properties": { "mode": { "enum": ["match", "include", "outcome"] } } },
                    "response": { "type": "object", "required": ["status"], "properties": { "status": { "type": "string", "pattern": "^[1-5][0-9]{2}" } } },
                },
            } },
        },
    })
}

fn outcome() -> Value {
    json!({
        "type": "object",
        "required": ["resourceType", "issue"],
        "properties": {
            "resourceType": { "const": "OperationOutcome" },
            "issue": { "type": "array", "minItems": 1, "items": {
                "type": "object",
                "required": ["severity", "code", "diagnostics"],
                "properties": {
                    "severity": { "enum": ["error", "warning", "information"] },
                    "code": { "type": "string" },
                    "diagnostics": { "type": "string" },
                    "expression": { "type": "array", "items": { "type": "string" } },
                },
            } },
        },
    })
}

fn patch() -> Value {
    let pointer = json!({ "type": "string", "pattern": "^(/[^/]*)*$" });
    let step = |names: &[&str], needs: &[&str]| {
        let required = [&["op", "path"], needs].concat();
        json!({
            "type": "object",
            "required": required,
            "properties": { "op": { "enum": names }, "path": pointer, "from": pointer, "value": {} },
        })
    };
    let steps =
        [step(&["add", "replace", "test"], &["value"]), step(&["remove"], &[]), step(&["move", "copy"], &["from"])];
    json!({ "type": "array", "maxItems": 256, "items": { "oneOf": steps } })
}

/// A parameter of an address.
pub(super) fn query(name: &str) -> Value {
    let text = |description: &str| (description.to_owned(), json!({ "type": "string", "minLength": 1 }));
    let (description, schema) = match name {
        "_count" => {
            ("entries of one page".into(), json!({ "type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32 }))
        }
        "_pretty" => ("taken, and makes no difference".into(), json!({ "type": "string" })),
        "_format" => {
            ("answers are JSON".into(), json!({ "enum": ["json", "application/json", "application/fhir+json"] }))
        }
        "_summary" => ("a part of each resource".into(), json!({ "enum": ["true", "false", "text", "data", "count"] })),
        "_total" => ("whether to count".into(), json!({ "enum": ["none", "estimate", "accurate"] })),
        "_id" => ("logical ids, divided by commas".into(), json!({ "type": "string", "minLength": 1 })),
        "_outputFormat" => {
            ("NDJSON".into(), json!({ "enum": ["application/fhir+ndjson", "application/ndjson", "ndjson"] }))
        }
        "_since" => ("changed since".into(), json!({ "type": "string", "format": "date-time" })),
        "_type" => (
            "types, divided by commas".into(),
            json!({ "type": "array", "minItems": 1, "items": { "enum": types::TYPES.as_slice() } }),
        ),
        "_lastUpdated" => {
            ("a date, with or without a prefix such as `ge`".into(), json!({ "type": "string", "format": "date" }))
        }
        "_elements" => ("elements to answer, divided by commas".into(), json!({ "type": "string" })),
        "_sort" => text("parameters, divided by commas; `-` turns the order around"),
        "_include" => text("`Type:parameter` whose target comes along"),
        "_revinclude" => text("`Type:parameter` that points here and comes along"),
        other => text(other),
    };
    let mut told = json!({ "name": name, "in": "query", "description": description, "schema": schema });
    if name == "_type" {
        (told["style"], told["explode"]) = ("form".into(), false.into());
    }
    told
}

/// A header of a request; `Name: value` for one that must be sent so.
pub(super) fn header(name: &str) -> Value {
    let version = json!({ "type": "string", "pattern": "^W/\"[1-9][0-9]{0,8}\"$", "examples": ["W/\"1\""] });
    let (description, schema) = match name {
        "If-Match" => ("the version that is replaced; required where the resource exists", version),
        "If-None-Match" => (
            "a version that is known already; one that is none of ours is left out",
            json!({ "type": "string", "examples": ["W/\"1\""] }),
        ),
        "If-None-Exist" => (
            "a query: nothing is created where something meets it",
            json!({ "type": "string", "pattern": "^_id=[A-Za-z0-9.-]{1,64}$", "examples": ["_id=nobody"] }),
        ),
        "X-Security-Context" => (
            "whose file it is",
            json!({ "type": "string", "pattern": "^Patient/[A-Za-z0-9.-]{1,64}$", "examples": ["Patient/nobody"] }),
        ),
        "Prefer: respond-async" => ("an export runs by itself", json!({ "const": "respond-async" })),
        _ => (
            "a wish that is not known is left out; `return=minimal` answers without a body",
            json!({ "anyOf": [{ "enum": ["return=representation", "handling=strict", "handling=lenient"] }, { "type": "string" }] }),
        ),
    };
    let (name, required) = name.split_once(':').map_or((name, false), |(name, _)| (name, true));
    json!({ "name": name, "in": "header", "required": required, "description": description, "schema": schema })
}
