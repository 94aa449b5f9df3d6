//! FHIR R4 on the wire: what is understood of a resource, and the routes under `/fhir/R4`.

pub mod alike;
mod audit_event;
mod batch;
pub mod capability;
pub mod compartment;
pub mod cors;
pub mod date;
pub mod definition;
mod export;
pub mod http;
mod interact;
pub mod json;
mod matching;
mod narrative;
pub mod negotiate;
mod openapi;
pub mod outcome;
pub mod params;
mod patch;
mod searchset;
mod shape;
pub mod signed;
pub mod smart;
pub mod transaction;
pub mod types;
pub mod validate;

use crate::store::StoreError;
use serde_json::{Map, Value};

/// The deepest nesting of a resource: FHIR's own recursive types stay far below.
const DEPTH_MAX: usize = 48;

/// Checks the shape that every resource must have, and gives its element.
///
/// # Errors
/// [`StoreError::Invalid`] with a path of element names, never a value.
pub fn check(kind: &str, body: Value) -> Result<Map<String, Value>, StoreError> {
    if !types::is_kept(kind) {
        return Err(StoreError::invalid("this type is not kept here", kind));
    }
    check_depth(&body, 0)?;
    validate::check(kind, &body)?;
    if kind == "Appointment" {
        let at = |name: &str| body.get(name).and_then(Value::as_str).and_then(crate::dates::unix_s);
        if at("start").zip(at("end")).is_some_and(|(start, end)| end < start) {
            return Err(StoreError::invalid("ends before it starts", "Appointment.end"));
        }
    }
    let Value::Object(element) = body else {
        return Err(StoreError::invalid("a resource must be a JSON object", kind));
    };
    if element.get("name").is_some_and(turns_text) {
        let sentence = "must not hold characters that turn the direction of text";
        return Err(StoreError::invalid(sentence, format!("{kind}.name")));
    }
    Ok(element)
}

/// Whether a text holds controls that make what follows read backwards: a name could pass for another one.
fn turns_text(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains(|c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')),
        Value::Array(items) => items.iter().any(turns_text),
        Value::Object(element) => element.values().any(turns_text),
        _ => false,
    }
}

/// Checks a logical id: 1 to 64 letters, digits, `-` and `.`.
pub fn check_id(id: &str) -> Result<(), StoreError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if (1..=64).contains(&id.len()) && id.bytes().all(allowed) {
        Ok(())
    } else {
        Err(StoreError::invalid("must be 1 to 64 letters, digits, hyphens and dots", "id"))
    }
}

fn check_depth(value: &Value, depth: usize) -> Result<(), StoreError> {
    if depth > DEPTH_MAX {
        return Err(StoreError::invalid("is nested too deeply", ""));
    }
    match value {
        Value::Array(items) => items.iter().try_for_each(|item| check_depth(item, depth + 1)),
        Value::Object(element) => element.values().try_for_each(|value| check_depth(value, depth + 1)),
        _ => Ok(()),
    }
}

/// The entity tag of a version, `W/"3"`.
pub fn etag(version: u32) -> String {
    format!("W/\"{version}\"")
}

/// The version in an entity tag, weak or strong.
pub fn etag_version(tag: &str) -> Option<u32> {
    tag.trim().trim_start_matches("W/").strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

/// The decoded pairs of a query string; `None` when an escape is not UTF-8 or cut off.
pub fn query_pairs(query: &str) -> Option<Vec<(String, String)>> {
    let parts = query.split('&').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// A text as the value of a search parameter.
pub fn escape(text: &str) -> String {
    text.replace('\\', r"\\").replace(',', r"\,").replace('|', r"\|").replace('$', r"\$")
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'+' => bytes.push(b' '),
            b'%' => {
                let pair = [rest.next()?, rest.next()?];
                let mut decoded = [0];
                hex::decode_to_slice(pair, &mut decoded).ok()?;
                bytes.extend(decoded);
            }
            other => bytes.push(other),
        }
    }
    String::from_utf8(bytes).ok()
}
