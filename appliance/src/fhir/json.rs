//! Reads what a client sent as JSON, more strictly than the parser does: a key given twice would lose one of its values
//! without a word, and R4 allows no control characters in a string but tab, line feed and carriage return.

use super::validate::shown;
use crate::store::StoreError;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::fmt;

/// Under this key the parser hands out numbers with all the digits that were sent.
const NUMBER: &str = "$serde_json::private::Number";
const TWICE: &str = "is given twice in one object: send it once";
const CONTROL: &str = "holds a control character: R4 allows tab, line feed and carriage return only";

#[derive(Debug)]
pub enum Unread {
    Syntax { line: usize },
    Refused(StoreError),
}

impl From<Unread> for StoreError {
    fn from(unread: Unread) -> StoreError {
        match unread {
            Unread::Syntax { .. } => StoreError::invalid("is not JSON", "body"),
            Unread::Refused(error) => error,
        }
    }
}

/// The value of `bytes`. The parser stops at 128 levels; nothing here recurses further than it does.
///
/// # Errors
/// [`Unread::Refused`] names the place, with the resource's type in front where it was read before.
pub fn read(bytes: &[u8]) -> Result<Value, Unread> {
    let reading = Reading::default();
    let mut parser = serde_json::Deserializer::from_slice(bytes);
    let value = reading.deserialize(&mut parser).and_then(|value| parser.end().map(|()| value));
    value.map_err(|error| match reading.0.into_inner() {
        Some(refusal) => Unread::Refused(StoreError::invalid(refusal.sentence, refusal.path())),
        None => Unread::Syntax { line: error.line() },
    })
}

/// What was refused, once something was.
#[derive(Default)]
struct Reading(RefCell<Option<Refusal>>);

struct Refusal {
    sentence: &'static str,
    /// From the inside out.
    steps: Vec<String>,
    /// Type of the outermost object.
    root: Option<String>,
}

impl Refusal {
    fn path(&self) -> String {
        let steps = self.root.iter().chain(self.steps.iter().rev());
        let path = steps.fold(String::new(), |path, step| match path.is_empty() || step.starts_with('[') {
            true => path + step,
            false => path + "." + step,
        });
        if path.is_empty() { "body".to_owned() } else { path }
    }
}

impl Reading {
    fn refuse<E: Error>(&self, sentence: &'static str) -> E {
        *self.0.borrow_mut() = Some(Refusal { sentence, steps: Vec::new(), root: None });
        E::custom(sentence)
    }

    /// Notes the way out of what was refused.
    fn out_of(&self, step: String, root: Option<&Map<String, Value>>) {
        if let Some(refusal) = self.0.borrow_mut().as_mut() {
            refusal.steps.push(step);
            refusal.root = root.and_then(|map| map.get("resourceType")).and_then(Value::as_str).map(shown);
        }
    }

    fn text<E: Error>(&self, text: &str) -> Result<(), E> {
        let control = |c: char| c < ' ' && !matches!(c, '\t' | '\n' | '\r');
        if text.contains(control) { Err(self.refuse(CONTROL)) } else { Ok(()) }
    }
}

impl<'de> DeserializeSeed<'de> for &Reading {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &Reading {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    // Whole numbers come so, all others under their key.
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.text(text).map(|()| Value::String(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        loop {
            let next = items.next_element_seed(self);
            match next.inspect_err(|_| self.out_of(format!("[{}]", values.len()), None))? {
                Some(value) => values.push(value),
                None => return Ok(Value::Array(values)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if key == NUMBER && map.is_empty() {
                return fields.next_value::<String>()?.parse().map(Value::Number).map_err(A::Error::custom);
            }
            let value = match map.contains_key(&key) {
                true => Err(self.refuse(TWICE)),
                false => self.text(&key).and_then(|()| fields.next_value_seed(self)),
            };
            let value = value.inspect_err(|_| self.out_of(shown(&key), Some(&map)))?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        match read(text.as_bytes()) {
            Err(Unread::Refused(StoreError::Invalid { what })) => what.path,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn a_key_given_twice_is_named_by_its_path() {
        for (text, path) in [
            (r#"{"resourceType":"Patient","gender":"male","gender":"female"}"#, "Patient.gender"),
            (r#"{"resourceType":"Patient","name":[{},{"family":"a","family":"a"}]}"#, "Patient.name[1].family"),
            (r#"{"a":{"b":1,"\u0062":2}}"#, "a.b"),
            (
                r#"{"resourceType":"Bundle","entry":[{"resource":{"resourceType":"Patient","id":"1","id":"2"}}]}"#,
                "Bundle.entry[0].resource.id",
            ),
        ] {
            assert_eq!(refused(text), path);
        }
    }

    #[test]
    fn control_characters_are_refused_as_r4_says() {
        for escape in ["\\u0000", "\\u0008", "\\u000b", "\\u000c", "\\u001f"] {
            assert_eq!(
                refused(&format!(r#"{{"resourceType":"Basic","text":{{"div":"a{escape}"}}}}"#)),
                "Basic.text.div"
            );
            assert_eq!(refused(&format!(r#"{{"x{escape}":1}}"#)), "x");
        }
        assert!(read(r#"{"a":"\t\n\r\u007f\u0085é"}"#.as_bytes()).is_ok());
    }

    #[test]
    fn everything_else_is_read_as_the_parser_reads_it() {
        let text = r#"{"i":1,"m":-5,"z":-0,"max":18446744073709551616,"n":1.50,"big":123456789012345678901234567890.10,"e":-1e-7,"null":null,"b":[true,false,[],{}],"s":"\"é"}"#;
        assert_eq!(read(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(read(text.as_bytes()).unwrap().to_string(), text);
        for bad in ["", "{", "{} x", "[1,]", "\u{1}", "{\"a\":01}", &"[".repeat(100_000)] {
            assert!(matches!(read(bad.as_bytes()), Err(Unread::Syntax { .. })), "{bad:.20}");
        }
    }
}
