//! An OpenAPI description of the API, drawn from the route table that the server itself works by.
//!
//! It is a contract: `tests/fhir/schemathesis.toml` has another program send what it permits and what it forbids, and compare
//! every answer with it.

mod schemas;

use super::types;
use crate::web::{Method, Policy, Route};
use schemas::{fhir, reference};
use serde_json::{Map, Value, json};

/// The description of these routes.
pub fn document(routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast appliance, FHIR R4",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "`{kind}` is a resource type, and what a body holds follows from it: `metadata` lists the types with their \
                search parameters, R4 their elements. Programs send a token, pages a session with its token in `x-csrf-token`.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "headers": headers(),
            "securitySchemes": {
                "session": { "type": "apiKey", "in": "cookie", "name": crate::access::sessions::COOKIE },
                "form": { "type": "apiKey", "in": "header", "name": crate::web::CSRF_HEADER },
                "program": { "type": "http", "scheme": "bearer" },
            },
        },
    })
}

/// What is told of an operation beside its route.
struct Told {
    /// Its `operationId`.
    id: &'static str,
    summary: &'static str,
    /// Types that `{kind}` may be here; empty for all.
    kinds: &'static [&'static str],
    query: &'static [&'static str],
    headers: &'static [&'static str],
    body: Option<Value>,
    answers: Vec<(u16, Value)>,
}

fn operation(route: &Route) -> Value {
    let told = told(route);
    let mut parameters = in_path(route.path, told.kinds);
    parameters.extend(told.query.iter().map(|name| schemas::query(name)));
    parameters.extend(told.headers.iter().map(|name| schemas::header(name)));
    let mut responses = Map::new();
    for (status, answer) in told.answers {
        responses.insert(status.to_string(), answer);
    }
    for status in refusals(route) {
        responses.entry(status.to_string()).or_insert_with(|| refused(*status));
    }
    let mut operation = json!({
        "operationId": told.id, "summary": told.summary, "parameters": parameters, "responses": responses,
    });
    if let Some(content) = told.body {
        // A search without a form is one without parameters.
        operation["requestBody"] = json!({ "required": told.id != "searchForm", "content": content });
    }
    operation["security"] = match (route.policy, route.method) {
        (Policy::Public, _) => json!([]),
        (_, Method::Get) => json!([{ "session": [] }, { "program": [] }]),
        _ => json!([{ "session": [], "form": [] }, { "program": [] }]),
    };
    operation
}

/// The table of operations. A route that it does not know is told with its address alone; a test keeps that from happening.
fn told(route: &Route) -> Told {
    let path = route.path.strip_prefix(super::http::BASE).unwrap_or(route.path);
    let plain =
        |id, summary| Told { id, summary, kinds: &[], query: &[], headers: &[], body: None, answers: Vec::new() };
    match (route.method, path) {
        (Method::Get, "/metadata") => Told {
            query: &["_format", "_pretty"],
            answers: vec![(200, answer("what is kept, and how it is searched", fhir("Resource")))],
            ..plain("metadata", "The capability statement")
        },
        (Method::Get, "/openapi.json") => Told {
            answers: vec![(
                200,
                answer("this document", json!({ "application/json": { "schema": { "type": "object" } } })),
            )],
            ..plain("openapi", "This description")
        },
        (Method::Post, "" | "/") => Told {
            body: Some(fhir("RequestBundle")),
            answers: vec![(200, answer("what came of each entry", fhir("Bundle")))],
            ..plain(if path.is_empty() { "bundle" } else { "bundleBelow" }, "A transaction or a batch")
        },
        (Method::Post, "/Binary") => Told {
            headers: &["X-Security-Context"],
            body: Some(json!({ "*/*": { "schema": {} } })),
            answers: vec![(201, json!({ "description": "stored", "headers": named(&["Location"]) }))],
            ..plain("storeFile", "Store a file")
        },
        (Method::Get, "/Binary/{id}") => Told {
            answers: vec![(
                200,
                answer("its bytes, with the type that it was stored with", json!({ "*/*": { "schema": {} } })),
            )],
            ..plain("readFile", "A file")
        },
        (Method::Get, "/AuditEvent") => Told {
            query: AUDIT_SEARCH,
            headers: &["Prefer"],
            answers: vec![(200, answer("what was found, the newest first", fhir("Bundle")))],
            ..plain("searchAudit", "Search the audit")
        },
        (Method::Post, "/AuditEvent/_search") => Told {
            headers: &["Prefer"],
            body: Some(json!({ "application/x-www-form-urlencoded": { "schema": reference("AuditForm") } })),
            answers: vec![(200, answer("what was found, the newest first", fhir("Bundle")))],
            ..plain("searchAuditForm", "Search the audit, with the parameters in a form")
        },
        (Method::Get, "/AuditEvent/{id}") => Told {
            query: &["_summary", "_elements", "_format", "_pretty"],
            answers: vec![(200, answer("the entry", fhir("Resource")))],
            ..plain("readAudit", "An entry of the audit, by its number")
        },
        (_, path) if path.contains('$') => operations(route.method, path, plain),
        _ => interactions(route.method, path, plain),
    }
}

const AUDIT_SEARCH: &[&str] = &[
    "patient",
    "date",
    "altid",
    "agent-name",
    "agent-role",
    "subtype",
    "outcome",
    "entity",
    "_id",
    "_count",
    "_sort",
    "_summary",
    "_elements",
    "_format",
    "_pretty",
];

type Plain = fn(&'static str, &'static str) -> Told;

fn interactions(method: Method, path: &str, plain: Plain) -> Told {
    const SEARCH: &[&str] = &[
        "_id",
        "_lastUpdated",
        "_sort",
        "_count",
        "_include",
        "_revinclude",
        "_summary",
        "_elements",
        "_total",
        "_format",
        "_pretty",
    ];
    const HISTORY: &[&str] = &["_count", "_since", "_format", "_pretty"];
    let found = || vec![(200, answer("what was found", fhir("Bundle")))];
    let versions = || vec![(200, answer("the versions, newest first", fhir("Bundle")))];
    match (method, path) {
        (Method::Get, "/{kind}") => {
            Told { query: SEARCH, headers: &["Prefer"], answers: found(), ..plain("search", "Search") }
        }
        (Method::Post, "/{kind}/_search") => Told {
            headers: &["Prefer"],
            body: Some(json!({ "application/x-www-form-urlencoded": { "schema": reference("SearchForm") } })),
            answers: found(),
            ..plain("searchForm", "Search, with the parameters in a form")
        },
        (Method::Post, "/{kind}") => Told {
            headers: &["If-None-Exist", "Prefer"],
            body: Some(fhir("Resource")),
            answers: vec![(200, stored("there already: what If-None-Exist found", &[])), (201, created())],
            ..plain("create", "Create")
        },
        (Method::Put, "/{kind}") => Told {
            query: &["_id"],
            headers: &["If-Match", "Prefer"],
            body: Some(fhir("Resource")),
            answers: vec![(200, stored("updated", &[])), (201, created())],
            ..plain("updateWhere", "Update what meets a condition, or create")
        },
        (Method::Get, "/{kind}/{id}") => Told {
            query: &["_summary", "_elements", "_format", "_pretty"],
            headers: &["If-None-Match"],
            answers: vec![
                (200, stored("the current version", &[])),
                (304, json!({ "description": "the version that If-None-Match names", "headers": named(&["ETag"]) })),
            ],
            ..plain("read", "Read")
        },
        (Method::Put, "/{kind}/{id}") => Told {
            headers: &["If-Match", "Prefer"],
            body: Some(fhir("Resource")),
            answers: vec![(200, stored("updated", &[])), (201, created())],
            ..plain("update", "Update, or create under this id")
        },
        (Method::Patch, "/{kind}/{id}") => Told {
            headers: &["If-Match", "Prefer"],
            body: Some(json!({ "application/json-patch+json": { "schema": reference("Patch") } })),
            answers: vec![(200, stored("updated", &[]))],
            ..plain("patch", "Change by a JSON Patch")
        },
        (Method::Delete, "/{kind}/{id}") => Told {
            headers: &["If-Match"],
            answers: vec![(204, json!({ "description": "deleted", "headers": named(&["ETag"]) }))],
            ..plain("delete", "Delete")
        },
        (Method::Get, "/{kind}/{id}/_history/{version}") => {
            Told { answers: vec![(200, stored("that version", &[]))], ..plain("vread", "Read a version") }
        }
        (Method::Get, "/{kind}/{id}/_history") => {
            Told { query: HISTORY, answers: versions(), ..plain("history", "The versions of a resource") }
        }
        (Method::Get, "/{kind}/_history") => {
            Told { query: HISTORY, answers: versions(), ..plain("historyOfType", "The versions of a type") }
        }
        _ => plain("", ""),
    }
}

fn operations(method: Method, path: &str, plain: Plain) -> Told {
    let findings = || {
        vec![(
            200,
            answer("the findings; one of severity `information` where nothing is wrong", fhir("OperationOutcome")),
        )]
    };
    let of_patient: &[&str] = &["Patient"];
    match (method, path) {
        (Method::Get, "/{kind}/{id}/$everything") => Told {
            kinds: of_patient,
            query: &["_count", "_since", "_type", "_format", "_pretty"],
            answers: vec![(200, answer("a page of the record", fhir("Bundle")))],
            ..plain("everything", "All of a patient's record")
        },
        (Method::Post, "/{kind}/$match") => Told {
            kinds: of_patient,
            body: Some(fhir("Sought")),
            answers: vec![(200, answer("candidates, the likeliest first", fhir("Bundle")))],
            ..plain("match", "Who this could be")
        },
        (Method::Post, "/{kind}/$validate") => Told {
            body: Some(fhir("Anything")),
            answers: findings(),
            ..plain("validate", "Say what is wrong, store nothing")
        },
        (Method::Post, "/{kind}/{id}/$validate") => Told {
            body: Some(fhir("Anything")),
            answers: findings(),
            ..plain("validateOne", "Say what is wrong, store nothing")
        },
        (Method::Get, "/{kind}/{id}/$export") => Told {
            kinds: &["Group"],
            query: &["_outputFormat", "_since", "_type"],
            headers: &["Prefer: respond-async"],
            answers: vec![(202, json!({ "description": "begun", "headers": named(&["Content-Location"]) }))],
            ..plain("export", "Export a group")
        },
        (Method::Get, "/$export/{job}") => Told {
            answers: vec![(
                200,
                answer("its files", json!({ "application/json": { "schema": reference("Manifest") } })),
            )],
            ..plain("exportFiles", "The files of an export")
        },
        (Method::Get, "/$export/{job}/{kind}") => Told {
            answers: vec![(
                200,
                answer("a resource a line", json!({ "application/fhir+ndjson": { "schema": { "type": "string" } } })),
            )],
            ..plain("exportFile", "A file of an export")
        },
        (Method::Delete, "/$export/{job}") => Told {
            answers: vec![(202, json!({ "description": "forgotten" }))],
            ..plain("exportForget", "Forget an export")
        },
        _ => plain("", ""),
    }
}

/// The statuses by which a request is refused.
fn refusals(route: &Route) -> &'static [u16] {
    match (route.policy, route.method) {
        (Policy::Public, _) => &[400, 406, 503],
        (_, Method::Get) => &[400, 401, 403, 404, 406, 410, 503],
        (_, Method::Delete) => &[400, 401, 403, 404, 406, 409, 410, 412, 503, 507],
        _ => &[400, 401, 403, 404, 406, 409, 410, 412, 413, 415, 422, 503, 507],
    }
}

fn refused(status: u16) -> Value {
    let reason = axum::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    answer(reason.unwrap_or("refused"), fhir("OperationOutcome"))
}

fn answer(description: &str, content: Value) -> Value {
    json!({ "description": description, "content": content })
}

/// An answer that holds a resource and names its version.
fn stored(description: &str, more: &[&str]) -> Value {
    let mut told =
        answer(&format!("{description}; without a body where `Prefer: return=minimal` was sent"), fhir("Resource"));
    told["headers"] = named(&[&["ETag", "Last-Modified"], more].concat());
    told
}

/// An answer that leads on to the resource: the links tell a program how.
fn created() -> Value {
    let mut told = stored("created", &["Location"]);
    let parameters = json!({ "kind": "$response.body#/resourceType", "id": "$response.body#/id" });
    let link = |id: &str| json!({ "operationId": id, "parameters": parameters });
    told["links"] = json!({ "read": link("read"), "history": link("history"), "delete": link("delete") });
    told
}

fn named(headers: &[&str]) -> Value {
    let all =
        headers.iter().map(|name| ((*name).to_owned(), json!({ "$ref": format!("#/components/headers/{name}") })));
    Value::Object(all.collect())
}

fn headers() -> Value {
    let header = |description: &str, pattern: &str| json!({ "description": description, "required": true, "schema": { "type": "string", "pattern": pattern } });
    json!({
        "ETag": header("the version, as If-Match takes it", "^W/\"[0-9]+\"$"),
        "Last-Modified": header("when it was stored", " GMT$"),
        "Location": header("where it is", "/fhir/R4/"),
        "Content-Location": header("where the export is", "/fhir/R4/\\$export/"),
    })
}

/// The names in braces, each with what it may be.
fn in_path(path: &str, kinds: &[&str]) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let schema = |name: &str| match name {
        "kind" if kinds.is_empty() => json!({ "type": "string", "enum": types::TYPES.as_slice() }),
        "kind" => json!({ "type": "string", "enum": kinds }),
        "version" => json!({ "type": "integer", "minimum": 1 }),
        _ => reference("Id"),
    };
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": schema(name) })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::store::{Mode, Store};
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_is_told_under_a_name_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let store =
            Store::open(crate::support::place(dir.path()), Clock::manual(1_700_000_000_000), Mode::New).unwrap();
        let routes = super::super::http::routes(&store);
        let names: BTreeSet<&str> = routes.iter().map(|route| told(route).id).collect();
        assert!(names.len() == routes.len() && !names.contains(""), "{names:?}");
        let text = document(&routes).to_string();
        for part in text.split("\"$ref\":\"#/").skip(1) {
            let pointer = part.split('"').next().unwrap();
            assert!(document(&routes).pointer(&format!("/{pointer}")).is_some(), "{pointer}");
        }
    }
}
