//! Validation against R4's own definitions: which elements there are, how many, of which type, with which codes, and what
//! a reference may point to. Profiles and invariants are not checked.

use super::definition::{self, Element, Type};
use super::{date, narrative, types};
use crate::store::StoreError;
use serde_json::{Map, Value, json};

/// Findings of one resource at most: whoever sends rubbish learns no more from the thousandth.
const ISSUES_MAX: usize = 50;
/// The deepest nesting: FHIR's own recursive types stay far below.
const DEPTH_MAX: usize = 60;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issue {
    /// The word of R4's issue types.
    pub code: &'static str,
    pub sentence: &'static str,
    /// Path of element names with their places, never a value.
    pub path: String,
}

/// Everything that is wrong with a resource of this type.
pub fn issues(kind: &str, body: &Value) -> Vec<Issue> {
    let mut found = Findings(Vec::new());
    match (body.as_object(), definition::of(kind)) {
        _ if !types::is_told(kind) => found.add("not-supported", "this type is not kept here", kind),
        (Some(element), Some(definition)) => {
            if element.get("resourceType").and_then(Value::as_str) != Some(kind) {
                found.add("invalid", "must be the type named in the address", &format!("{kind}.resourceType"));
            }
            object(&mut found, definition, element, kind, 0);
        }
        _ => found.add("structure", "a resource must be a JSON object", kind),
    }
    found.0
}

/// Refuses a resource that R4 does not define, by the first thing that is wrong.
pub fn check(kind: &str, body: &Value) -> Result<(), StoreError> {
    match issues(kind, body).into_iter().next() {
        Some(issue) => Err(StoreError::invalid(issue.sentence, issue.path)),
        None => Ok(()),
    }
}

/// The answer of `$validate`.
pub fn outcome(kind: &str, body: Value) -> Value {
    let wrong = issues(kind, &body).into_iter().map(|issue| {
        json!({ "severity": "error", "code": issue.code, "diagnostics": issue.sentence, "expression": [issue.path] })
    });
    let mut issues: Vec<Value> = wrong.collect();
    if issues.is_empty() {
        issues.push(json!({ "severity": "information", "code": "informational", "diagnostics": "nothing is wrong" }));
    }
    json!({ "resourceType": "OperationOutcome", "issue": issues })
}

struct Findings(Vec<Issue>);

impl Findings {
    fn add(&mut self, code: &'static str, sentence: &'static str, path: &str) {
        if self.0.len() < ISSUES_MAX {
            self.0.push(Issue { code, sentence, path: path.to_owned() });
        }
    }

    fn full(&self) -> bool {
        self.0.len() >= ISSUES_MAX
    }
}

/// Checks an element that has elements of its own.
fn object(found: &mut Findings, definition: &Type, element: &Map<String, Value>, path: &str, depth: usize) {
    if found.full() {
        return;
    }
    if depth > DEPTH_MAX {
        return found.add("structure", "is nested too deeply", path);
    }
    if element.is_empty() {
        return found.add("structure", "an element must not be empty", path);
    }
    // How often each element is there, and how often with a value of its own: extensions alone make it present.
    let mut present = vec![(0u8, 0u8); definition.elements.len()];
    for (name, value) in element.iter().filter(|(name, _)| *name != "resourceType") {
        let inner = format!("{path}.{}", shown(name));
        let plain = name.strip_prefix('_').unwrap_or(name);
        if let Some((any, valued)) = definition.place(plain).and_then(|place| present.get_mut(place)) {
            *any = any.saturating_add(1);
            *valued = valued.saturating_add(u8::from(plain == name));
        }
        match definition.field(name) {
            Some((element, word)) => field(found, element, word, (value, &inner), depth),
            None => shadow(found, definition, (name, value), &inner, depth),
        }
    }
    for (element, (any, valued)) in definition.elements.iter().zip(present) {
        let path = || format!("{path}.{}", element.name.strip_suffix("[x]").unwrap_or(element.name));
        if element.required && any == 0 {
            found.add("required", "this element is required", &path());
        }
        if valued > 1 {
            found.add("structure", "only one type can be chosen", &path());
        }
    }
}

/// A name as an error may show it: an element's name has letters and digits only.
pub(super) fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect()
}

/// `_birthDate` holds the id and the extensions of `birthDate`.
fn shadow(found: &mut Findings, definition: &Type, (name, value): (&str, &Value), path: &str, depth: usize) {
    let of = name.strip_prefix('_').and_then(|name| definition.field(name));
    let primitive = of.is_some_and(|(_, word)| is_primitive(word));
    if !primitive {
        return found.add("structure", "this element does not exist", path);
    }
    let Some(inner) = definition::of("Element") else { return };
    match value {
        Value::Object(element) => object(found, inner, element, path, depth + 1),
        Value::Array(items) if of.is_some_and(|(element, _)| element.many) => {
            for (place, item) in items.iter().enumerate() {
                match item {
                    Value::Null => {}
                    Value::Object(element) => object(found, inner, element, &format!("{path}[{place}]"), depth + 1),
                    _ => found.add("structure", "must be an object", path),
                }
            }
        }
        _ => found.add("structure", "must be an object", path),
    }
}

fn field(found: &mut Findings, element: &Element, word: &str, (value, path): (&Value, &str), depth: usize) {
    match value {
        Value::Array(_) if !element.many => found.add("structure", "there is one of this, so it is no array", path),
        Value::Array(items) if items.is_empty() => found.add("structure", "an array must not be empty", path),
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                // Null keeps the place of a primitive that has extensions only.
                if !(item.is_null() && is_primitive(word)) {
                    one(found, element, word, (item, &format!("{path}[{place}]")), depth + 1);
                }
            }
        }
        _ if element.many => found.add("structure", "there can be several of this, so it is an array", path),
        value => one(found, element, word, (value, path), depth + 1),
    }
}

fn is_primitive(word: &str) -> bool {
    !word.contains('.') && word.starts_with(|c: char| c.is_ascii_lowercase())
}

fn one(found: &mut Findings, element: &Element, word: &str, (value, path): (&Value, &str), depth: usize) {
    let bare = definition::bare(word);
    if is_primitive(bare) {
        return primitive(found, element, bare, value, path);
    }
    let Some(object_value) = value.as_object() else {
        return found.add("structure", "must be an object", path);
    };
    if bare == "Resource" {
        return contained(found, object_value, path, depth);
    }
    let Some(definition) = definition::of(bare) else { return };
    object(found, definition, object_value, path, depth);
    if bare == "Reference" {
        reference(found, word, object_value, path);
    }
    if !element.codes.is_empty() && !coded(element.codes, bare, object_value) {
        found.add("code-invalid", "this code is not in the value set that R4 requires", path);
    }
}

/// A resource inside another: any type of R4, kept here or not.
fn contained(found: &mut Findings, element: &Map<String, Value>, path: &str, depth: usize) {
    let kind = element.get("resourceType").and_then(Value::as_str).unwrap_or_default();
    match definition::of(kind) {
        Some(definition) if types::is_kept(kind) => object(found, definition, element, path, depth),
        // The few types that are not kept have no table here.
        _ if ["Binary", "Parameters", "OperationOutcome", "AuditEvent"].contains(&kind) => {}
        _ => found.add("structure", "is not a resource of R4", &format!("{path}.resourceType")),
    }
}

/// What a reference may point to. Inside the resource, elsewhere, and by identifier alone it could be anything.
fn reference(found: &mut Findings, word: &str, element: &Map<String, Value>, path: &str) {
    let Some(text) = element.get("reference").and_then(Value::as_str) else { return };
    if text.starts_with('#') || text.starts_with("urn:") || text.contains('?') {
        return;
    }
    let relative = text.split("/_history/").next().unwrap_or(text);
    let mut parts = relative.rsplit('/');
    let (id, kind) = (parts.next().unwrap_or_default(), parts.next());
    let Some(kind) = kind else {
        return found.add("value", "a reference is written as Type/id", &format!("{path}.reference"));
    };
    let known = definition::of(kind).is_some() && types::is_kept(kind);
    if text.contains("://") && !known {
        return;
    }
    if super::check_id(id).is_err() {
        return found.add("value", "a reference is written as Type/id", &format!("{path}.reference"));
    }
    let targets = word.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let allowed = targets.is_none_or(|targets| targets.split(' ').any(|target| target == kind));
    if !allowed {
        found.add("value", "this may not point to that type", &format!("{path}.reference"));
    }
}

/// A concept is in a value set when one of its codings is; one without codings says nothing.
fn coded(value_set: &str, bare: &str, element: &Map<String, Value>) -> bool {
    let code =
        |element: &Value| element.get("code").and_then(Value::as_str).map(|code| definition::holds(value_set, code));
    match bare {
        "CodeableConcept" => {
            let codings = element.get("coding").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            let known: Vec<bool> = codings.iter().filter_map(code).collect();
            known.is_empty() || known.contains(&true)
        }
        "Coding" | "Quantity" => {
            element.get("code").and_then(Value::as_str).is_none_or(|code| definition::holds(value_set, code))
        }
        _ => true,
    }
}

fn primitive(found: &mut Findings, element: &Element, word: &str, value: &Value, path: &str) {
    let fits = match (word, value) {
        ("boolean", Value::Bool(_)) => Ok(()),
        ("boolean", _) => Err("must be true or false"),
        ("integer" | "unsignedInt" | "positiveInt", Value::Number(number)) => whole(word, number.as_i64()),
        ("decimal", Value::Number(_)) => Ok(()),
        ("integer" | "unsignedInt" | "positiveInt" | "decimal", _) => Err("must be a number"),
        (_, Value::String(text)) => text_fits(word, text),
        _ => Err("must be a text"),
    };
    if let Err(sentence) = fits {
        return found.add("value", sentence, path);
    }
    if let (false, Value::String(code)) = (element.codes.is_empty(), value)
        && word == "code"
        && !definition::holds(element.codes, code)
    {
        found.add("code-invalid", "this code is not in the value set that R4 requires", path);
    }
}

fn whole(word: &str, number: Option<i64>) -> Result<(), &'static str> {
    let least = match word {
        "unsignedInt" => 0,
        "positiveInt" => 1,
        _ => i64::from(i32::MIN),
    };
    match number {
        Some(number) if (least..=i64::from(i32::MAX)).contains(&number) => Ok(()),
        _ => Err("must be a whole number in its range"),
    }
}

fn text_fits(word: &str, text: &str) -> Result<(), &'static str> {
    let need = |fits: bool, sentence| if fits { Ok(()) } else { Err(sentence) };
    match word {
        _ if text.is_empty() => Err("a text must not be empty"),
        "code" => {
            let ends = text.starts_with(|c: char| c.is_ascii_whitespace())
                || text.ends_with(|c: char| c.is_ascii_whitespace());
            need(!ends && !text.contains("  "), "a code has no space at its ends")
        }
        "id" => super::check_id(text).map_err(|_| "must be 1 to 64 letters, digits, hyphens and dots"),
        "uri" | "url" | "canonical" | "oid" | "uuid" => {
            need(!text.contains(char::is_whitespace), "an address has no spaces")
        }
        "date" => need(text.len() <= 10 && date::parse(text).is_some(), "must be a date as FHIR writes it"),
        "dateTime" => need(date::parse(text).is_some(), "must be a date as FHIR writes it"),
        "instant" => need(text.len() >= 20 && date::parse(text).is_some(), "must be a moment with its time zone"),
        "time" => need(is_time(text), "must be a time of day"),
        "base64Binary" => need(is_base64(text), "must be base64"),
        "xhtml" => narrative::check(text),
        _ => need(text.len() <= 1 << 20, "is longer than 1 MiB"),
    }
}

fn is_time(text: &str) -> bool {
    chrono::NaiveTime::parse_from_str(text, "%H:%M:%S%.f").is_ok()
}

fn is_base64(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"+/=".contains(&b) || b.is_ascii_whitespace();
    text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(kind: &str, body: Value) -> Vec<(&'static str, String)> {
        issues(kind, &body).into_iter().map(|issue| (issue.code, issue.path)).collect()
    }

    #[test]
    fn what_r4_does_not_define_is_named_by_its_place() {
        let observation = |more: Value| {
            let mut body = json!({ "resourceType": "Observation", "status": "final", "code": { "text": "x" } });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            told("Observation", body)
        };
        assert_eq!(observation(json!({})), []);
        for (more, code, path) in [
            (json!({ "status": "finished" }), "code-invalid", "Observation.status"),
            (json!({ "status": ["final"] }), "structure", "Observation.status"),
            (json!({ "category": { "text": "x" } }), "structure", "Observation.category"),
            (json!({ "category": [] }), "structure", "Observation.category"),
            (json!({ "favourite": 1 }), "structure", "Observation.favourite"),
            (json!({ "_favourite": {} }), "structure", "Observation._favourite"),
            (json!({ "valueInteger": 1, "valueString": "x" }), "structure", "Observation.value"),
            (json!({ "valueQuantity": { "value": "1" } }), "value", "Observation.valueQuantity.value"),
            (json!({ "valueQuantity": { "comparator": "!" } }), "code-invalid", "Observation.valueQuantity.comparator"),
            (json!({ "effectiveDateTime": "yesterday" }), "value", "Observation.effectiveDateTime"),
            (json!({ "subject": { "reference": "Claim/1" } }), "value", "Observation.subject.reference"),
            (json!({ "subject": { "reference": "somebody" } }), "value", "Observation.subject.reference"),
            (json!({ "component": [{ "valueString": "x" }] }), "required", "Observation.component[0].code"),
            (
                json!({ "contained": [{ "resourceType": "Nonsense" }] }),
                "structure",
                "Observation.contained[0].resourceType",
            ),
            (json!({ "note": [{ "text": "" }] }), "value", "Observation.note[0].text"),
        ] {
            assert_eq!(observation(more.clone()), [(code, path.to_owned())], "{more}");
        }
        assert_eq!(told("Observation", json!({ "resourceType": "Observation" })).len(), 2);
        assert_eq!(told("Patient", json!([])), [("structure", "Patient".to_owned())]);
    }

    #[test]
    fn extensions_of_primitives_are_elements() {
        let body = json!({ "resourceType": "Patient", "birthDate": "1970-01-02", "_birthDate": { "id": "x" },
            "name": [{ "given": ["A", null], "_given": [null, { "extension": [{ "url": "http://x.example/y", "valueCode": "z" }] }] }] });
        assert_eq!(told("Patient", body), []);
        let body = json!({ "resourceType": "Patient", "_birthDate": { "extension": [{ "valueCode": "z" }] } });
        assert_eq!(told("Patient", body), [("required", "Patient._birthDate.extension[0].url".to_owned())]);
    }
}
