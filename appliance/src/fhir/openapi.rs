//! An OpenAPI description of the API, drawn from the route table that the server itself works by.

use super::types;
use crate::web::{Method, Policy, Route};
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
        "info": { "title": "Holdfast appliance, FHIR R4", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": {
            "schemas": {
                "Resource": {
                    "type": "object",
                    "required": ["resourceType"],
                    "properties": { "resourceType": { "type": "string" }, "id": { "type": "string" } },
                },
                "OperationOutcome": {
                    "type": "object",
                    "required": ["resourceType", "issue"],
                    "properties": {
                        "resourceType": { "const": "OperationOutcome" },
                        "issue": { "type": "array", "minItems": 1, "items": { "type": "object" } },
                    },
                },
            },
            "securitySchemes": {
                "session": { "type": "apiKey", "in": "cookie", "name": crate::access::sessions::COOKIE },
                "form": { "type": "apiKey", "in": "header", "name": crate::web::CSRF_HEADER },
                "program": { "type": "http", "scheme": "bearer" },
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "parameters": parameters(route.path),
        "responses": {
            "default": outcome(),
            "2XX": { "description": "carried out", "content": { "application/fhir+json": { "schema": reference("Resource") } } },
        },
    });
    let changes = route.method != Method::Get;
    if matches!(route.method, Method::Post | Method::Put | Method::Patch) {
        operation["requestBody"] = json!({ "required": true, "content": content(route) });
    }
    operation["security"] = match (route.policy, changes) {
        (Policy::Public, _) => json!([]),
        (_, false) => json!([{ "session": [] }, { "program": [] }]),
        (_, true) => json!([{ "session": [], "form": [] }, { "program": [] }]),
    };
    operation
}

fn content(route: &Route) -> Value {
    let resource = json!({ "schema": reference("Resource") });
    match route.path {
        path if path.ends_with("/_search") => {
            json!({ "application/x-www-form-urlencoded": { "schema": { "type": "object" } } })
        }
        path if path.ends_with("/Binary") => json!({ "*/*": { "schema": { "type": "string", "format": "binary" } } }),
        _ if route.method == Method::Patch => {
            json!({ "application/json-patch+json": { "schema": { "type": "array", "items": { "type": "object" } } } })
        }
        _ => json!({ "application/fhir+json": resource }),
    }
}

/// The names in braces, each with what it may be.
fn parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let schema = |name: &str| match name {
        "kind" => json!({ "type": "string", "enum": types::TYPES.as_slice() }),
        "version" => json!({ "type": "integer", "minimum": 1 }),
        _ => json!({ "type": "string", "pattern": "^[A-Za-z0-9.-]{1,64}$" }),
    };
    names.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": schema(name) })).collect()
}

fn outcome() -> Value {
    let content = json!({ "application/fhir+json": { "schema": reference("OperationOutcome") } });
    json!({ "description": "refused", "content": content })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}
