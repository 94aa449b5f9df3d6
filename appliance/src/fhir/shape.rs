//! How much of a resource is answered: `_summary` and `_elements`.

use super::definition::{self, Element, Type};
use crate::store::StoreError;
use serde_json::{Map, Value, json};

/// Elements named in one request.
const ELEMENTS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Shape {
    /// The stored bytes.
    #[default]
    Whole,
    Summary,
    Text,
    Data,
    /// No resources, only how many there are.
    Count,
    Elements(Vec<String>),
}

impl Shape {
    /// Takes what speaks of the answer's form out of the parameters of a request.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a value that R4 does not know.
    pub fn take(pairs: &mut Vec<(String, String)>) -> Result<Shape, StoreError> {
        let mut shape = Shape::Whole;
        for (name, value) in pairs.iter() {
            match name.as_str() {
                "_summary" => shape = Shape::summary(value)?,
                "_elements" => {
                    let named = value.split(',').map(|name| name.rsplit('.').next().unwrap_or(name).to_owned());
                    shape = Shape::Elements(named.take(ELEMENTS_MAX).collect());
                }
                _ => {}
            }
        }
        pairs.retain(|(name, _)| !matches!(name.as_str(), "_summary" | "_elements" | "_format" | "_pretty"));
        Ok(shape)
    }

    fn summary(value: &str) -> Result<Shape, StoreError> {
        match value {
            "true" => Ok(Shape::Summary),
            "false" => Ok(Shape::Whole),
            "text" => Ok(Shape::Text),
            "data" => Ok(Shape::Data),
            "count" => Ok(Shape::Count),
            _ => Err(StoreError::invalid("must be true, false, text, data or count", "_summary")),
        }
    }

    /// The body as it is answered; one that lost something says so in its tag.
    pub fn body(&self, kind: &str, stored: &str) -> Result<String, StoreError> {
        if matches!(self, Shape::Whole | Shape::Count) {
            return Ok(stored.to_owned());
        }
        let damaged = || StoreError::Damaged("resource body");
        let Ok(Value::Object(whole)) = serde_json::from_str(stored) else { return Err(damaged()) };
        let Some(definition) = definition::of(kind) else { return Ok(stored.to_owned()) };
        let mut kept: Map<String, Value> = whole
            .into_iter()
            .filter(|(name, _)| self.keeps(definition, name))
            .map(|(name, value)| match self {
                Shape::Summary => summarized(definition, name, value),
                _ => (name, value),
            })
            .collect();
        tag(&mut kept);
        serde_json::to_string(&kept).map_err(|_| damaged())
    }

    fn keeps(&self, definition: &Type, name: &str) -> bool {
        let plain = name.strip_prefix('_').unwrap_or(name);
        if matches!(plain, "resourceType" | "id" | "meta") {
            return true;
        }
        let Some((element, _)) = definition.field(plain) else { return false };
        let needed = element.required || element.modifier;
        match self {
            Shape::Whole | Shape::Count => true,
            Shape::Summary => element.summary,
            Shape::Text => plain == "text" || needed,
            Shape::Data => plain != "text",
            Shape::Elements(named) => needed || named.iter().any(|wanted| wanted == plain || wanted == stem(element)),
        }
    }
}

fn stem(element: &Element) -> &'static str {
    element.name.strip_suffix("[x]").unwrap_or(element.name)
}

/// Leaves out what is no part of a summary inside elements that the type itself defines; data types stay whole.
fn summarized(definition: &Type, name: String, value: Value) -> (String, Value) {
    let inner = definition.field(&name).map(|(_, word)| word).filter(|word| word.contains('.'));
    match inner.and_then(definition::of) {
        Some(inner) => (name, summary(inner, value)),
        None => (name, value),
    }
}

fn summary(definition: &Type, value: Value) -> Value {
    match value {
        Value::Array(items) => items.into_iter().map(|item| summary(definition, item)).collect(),
        Value::Object(element) => {
            let kept = element.into_iter().filter(|(name, _)| {
                let plain = name.strip_prefix('_').unwrap_or(name);
                definition.field(plain).is_some_and(|(element, _)| element.summary)
            });
            Value::Object(kept.map(|(name, value)| summarized(definition, name, value)).collect())
        }
        other => other,
    }
}

fn tag(body: &mut Map<String, Value>) {
    let subsetted =
        json!({ "system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED" });
    let meta = body.entry("meta").or_insert_with(|| json!({}));
    match meta.get_mut("tag") {
        Some(Value::Array(tags)) => tags.push(subsetted),
        _ => meta["tag"] = json!([subsetted]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shaped(shape: &Shape, body: &Value) -> Value {
        serde_json::from_str(&shape.body("Observation", &body.to_string()).unwrap()).unwrap()
    }

    #[test]
    fn a_part_keeps_what_it_must_and_says_that_it_is_one() {
        let body = json!({
            "resourceType": "Observation", "id": "1", "meta": { "versionId": "1" }, "status": "final",
            "text": { "status": "generated", "div": "<div/>" }, "code": { "text": "x" }, "note": [{ "text": "n" }],
            "valueQuantity": { "value": 1 }, "interpretation": [{ "text": "i" }],
            "component": [{ "code": { "text": "c" }, "valueString": "v", "interpretation": [{ "text": "i" }] }],
        });
        let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
        let summary = shaped(&Shape::Summary, &body);
        assert_eq!(names(&summary), "resourceType id meta status code valueQuantity component");
        assert_eq!(names(&summary["component"][0]), "code valueString");
        assert_eq!(summary["meta"]["tag"][0]["code"], "SUBSETTED");
        assert_eq!(names(&shaped(&Shape::Text, &body)), "resourceType id meta status text code");
        assert!(!names(&shaped(&Shape::Data, &body)).contains("text"));
        let some = shaped(&Shape::Elements(vec!["value".into(), "note".into()]), &body);
        assert_eq!(names(&some), "resourceType id meta status code note valueQuantity");
        assert_eq!(shaped(&Shape::Whole, &body), body);
    }
}
