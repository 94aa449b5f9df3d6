//! The order of a search's results, and the place in it where a page ends.

use super::index::ParamIds;
use crate::db::{Value as Sql, ValueRef};
use crate::fhir::params::{self, Form, Param};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// One key of `_sort`.
#[derive(Debug, Clone, Copy)]
pub struct Order {
    by: By,
    descending: bool,
}

#[derive(Debug, Clone, Copy)]
enum By {
    Id,
    Updated,
    Param(&'static Param),
}

/// Where a page begins: after the resource with these sort keys, in this row. It stays right when resources are added or
/// removed between two pages. To clients it is one opaque word.
#[derive(Debug, Clone, PartialEq)]
pub struct Cursor {
    keys: Vec<Key>,
    rid: i64,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Key {
    Number(i64),
    Real(f64),
    Text(String),
}

/// Cursors that are longer were not made here: a key has 200 bytes at most.
const CURSOR_BYTES_MAX: usize = 4096;

impl Order {
    /// `name` or `-name`.
    pub(super) fn parse(kind: &str, text: &str) -> Result<Order, &'static str> {
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let by = match name {
            "_id" => By::Id,
            "_lastUpdated" => By::Updated,
            name => By::Param(params::find(kind, name).ok_or("this type cannot be sorted by that parameter")?),
        };
        Ok(Order { by, descending })
    }

    /// The table that holds the key's rows with its column, and what stands for "has none": what has none comes last.
    fn column(self, param: &Param) -> (&'static str, &'static str, Key) {
        let text = |table, column| {
            let last = if self.descending { "" } else { "\u{10ffff}\u{10ffff}" };
            (table, column, Key::Text(last.to_owned()))
        };
        match param.form {
            Form::Token | Form::Uri => text("ix_token", "code"),
            Form::String => text("ix_string", "value"),
            Form::Reference | Form::Subject => text("ix_ref", "target"),
            Form::Date => ("ix_date", "lo", Key::Number(if self.descending { i64::MIN } else { i64::MAX })),
            Form::Quantity => ("ix_quantity", "value", Key::Real(if self.descending { f64::MIN } else { f64::MAX })),
            Form::Patient => ("resource", "patient", Key::Number(0)),
        }
    }

    /// The expression of the key, and the join that it needs, if any. `bind` gives a value a place in the statement.
    pub(super) fn expression(
        self,
        number: usize,
        ids: &ParamIds,
        patient: Option<i64>,
        bind: &mut dyn FnMut(Sql) -> String,
    ) -> (String, String) {
        let param = match self.by {
            By::Id => return ("r.id".into(), String::new()),
            By::Updated => return ("r.updated_ms".into(), String::new()),
            By::Param(param) if param.form == Form::Patient => return ("r.patient".into(), String::new()),
            By::Param(param) => param,
        };
        let (table, column, none) = self.column(param);
        let id = bind(ids.param_id(param.kind, param.name).unwrap_or(-1).into());
        let of_patient = patient.map(|rid| format!(" AND patient = {}", bind(rid.into()))).unwrap_or_default();
        let none = bind(none.into());
        // Of several values the one that comes first in this order counts.
        let pick = if self.descending { "max" } else { "min" };
        let join = format!(
            " LEFT JOIN (SELECT rid, {pick}({column}) AS v FROM {table} WHERE param = {id}{of_patient} GROUP BY rid) \
             k{number} ON k{number}.rid = r.rid"
        );
        (format!("coalesce(k{number}.v, {none})"), join)
    }

    pub(super) fn direction(self) -> &'static str {
        if self.descending { "DESC" } else { "ASC" }
    }

    pub(super) fn beyond(self) -> &'static str {
        if self.descending { "<" } else { ">" }
    }

    fn holds(self, key: &Key) -> bool {
        let by = match self.by {
            By::Id => return matches!(key, Key::Text(_)),
            By::Updated => return matches!(key, Key::Number(_)),
            By::Param(param) => param,
        };
        match key {
            Key::Text(_) => !matches!(by.form, Form::Date | Form::Quantity | Form::Patient),
            Key::Number(_) => matches!(by.form, Form::Date | Form::Patient),
            Key::Real(_) => by.form == Form::Quantity,
        }
    }
}

impl Cursor {
    pub(super) fn new(keys: Vec<Key>, rid: i64) -> Cursor {
        Cursor { keys, rid }
    }

    pub fn parse(text: &str) -> Option<Cursor> {
        if text.len() > CURSOR_BYTES_MAX {
            return None;
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let Value::Array(parts) = serde_json::from_slice(&bytes).ok()? else { return None };
        let (rid, keys) = parts.split_last()?;
        let keys = keys.iter().map(Key::parse).collect::<Option<_>>()?;
        Some(Cursor { keys, rid: rid.as_i64().filter(|rid| *rid >= 0)? })
    }

    /// Whether it was made by a search in this order.
    pub(super) fn fits(&self, order: &[Order]) -> bool {
        self.keys.len() == order.len() && self.keys.iter().zip(order).all(|(key, order)| order.holds(key))
    }

    pub(super) fn keys(&self) -> &[Key] {
        &self.keys
    }

    pub(super) fn rid(&self) -> i64 {
        self.rid
    }
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts: Vec<Value> = self.keys.iter().map(Key::json).collect();
        parts.push(self.rid.into());
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(Value::from(parts).to_string()))
    }
}

impl Key {
    pub(super) fn read(value: ValueRef<'_>) -> crate::db::Result<Key> {
        match value {
            ValueRef::Integer(number) => Ok(Key::Number(number)),
            ValueRef::Real(number) => Ok(Key::Real(number)),
            ValueRef::Text(_) => Ok(Key::Text(value.as_str()?.to_owned())),
            ValueRef::Null | ValueRef::Blob(_) => Err(crate::db::Error::Column),
        }
    }

    /// A real's bits, so that no rounding moves the place where a page ends.
    fn json(&self) -> Value {
        match self {
            Key::Number(number) => (*number).into(),
            Key::Real(number) => vec![Value::from(number.to_bits())].into(),
            Key::Text(text) => text.as_str().into(),
        }
    }

    fn parse(value: &Value) -> Option<Key> {
        match value {
            Value::Number(number) => number.as_i64().map(Key::Number),
            Value::String(text) => Some(Key::Text(text.clone())),
            Value::Array(bits) => {
                let number = f64::from_bits(bits.first()?.as_u64()?);
                number.is_finite().then_some(Key::Real(number))
            }
            _ => None,
        }
    }
}

impl From<Key> for Sql {
    fn from(key: Key) -> Sql {
        match key {
            Key::Number(number) => number.into(),
            Key::Real(number) => number.into(),
            Key::Text(text) => text.into(),
        }
    }
}
