//! One answer, between what a person types and what FHIR keeps: each kind of question has its own type in both directions.

use super::template::{Item, Kind, Unit};
use crate::dates;
use chrono::{DateTime, NaiveDateTime, NaiveTime};
use chrono_tz::Tz;
use serde_json::{Map, Number, Value, json};
use std::cmp::Ordering;

const LOCAL: &str = "%Y-%m-%dT%H:%M";

/// The element of an answer, such as `{"valueInteger": 3}`; `None` for what is not of the question's kind.
pub fn value(item: &Item, said: &str, unit: &str, zone: Tz) -> Option<Value> {
    Some(match item.kind {
        Kind::Group | Kind::Display => return None,
        Kind::String | Kind::Text => json!({"valueString": said}),
        Kind::Boolean if matches!(said, "yes" | "no") => json!({"valueBoolean": said == "yes"}),
        Kind::Boolean => return None,
        Kind::Integer => json!({"valueInteger": plain(said).parse::<i32>().ok()?}),
        Kind::Decimal => json!({"valueDecimal": number(said)?}),
        Kind::Date => json!({"valueDate": dates::parse_day(said)?.to_string()}),
        Kind::DateTime => json!({"valueDateTime": moment(said, zone)?}),
        Kind::Time => json!({"valueTime": time(said)?.format("%H:%M:%S").to_string()}),
        Kind::Url if said.contains(':') && !said.contains(char::is_whitespace) => json!({"valueUri": said}),
        Kind::Url => return None,
        Kind::Choice => item.option(said)?.value.clone(),
        Kind::OpenChoice => {
            item.option(said).map_or_else(|| json!({"valueString": said}), |option| option.value.clone())
        }
        Kind::Quantity => json!({"valueQuantity": quantity(item, number(said)?, unit)?}),
    })
}

/// What is wrong with an answer that is no value of its kind.
pub fn problem(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer => "Please enter a whole number.",
        Kind::Decimal => "Please enter a number.",
        Kind::Date => "Please enter the date as year-month-day.",
        Kind::DateTime => {
            "Please enter date and time as year-month-day and hour:minute, a time that there is on that day."
        }
        Kind::Time => "Please enter the time as hour:minute.",
        Kind::Url => "Please enter a whole address, such as https://example.org.",
        Kind::Quantity => "Please enter a number, and its unit.",
        _ => "Please choose one of the answers.",
    }
}

fn plain(said: &str) -> String {
    said.trim().replace(',', ".")
}

/// The digits as they were typed: 80.0 is not 80.
pub fn number(said: &str) -> Option<Number> {
    let plain = plain(said);
    plain.parse::<f64>().ok().filter(|n| n.is_finite())?;
    serde_json::from_str::<Number>(&plain).ok()
}

pub fn time(said: &str) -> Option<NaiveTime> {
    dates::parse_time(said).or_else(|| NaiveTime::parse_from_str(said.trim(), "%H:%M:%S").ok())
}

/// A moment of the practice's clock as an instant; a day, month or year alone stays what it is.
fn moment(said: &str, zone: Tz) -> Option<String> {
    let said = said.trim();
    let local = NaiveDateTime::parse_from_str(said, LOCAL)
        .or_else(|_| NaiveDateTime::parse_from_str(said, "%Y-%m-%dT%H:%M:%S"));
    match local {
        Ok(local) => Some(dates::to_fhir(dates::instant(local.date(), local.time(), zone)?)),
        Err(_) => {
            let whole =
                matches!(said.len(), 4 | 7 | 10) && !said.contains('T') && crate::fhir::date::parse(said).is_some();
            whole.then(|| said.to_owned())
        }
    }
}

fn quantity(item: &Item, value: Number, unit: &str) -> Option<Value> {
    let mut quantity = Map::from_iter([("value".to_owned(), Value::from(value))]);
    match item.units.as_slice() {
        [] if unit.is_empty() => {}
        [] => drop(quantity.insert("unit".into(), unit.into())),
        units => {
            let only = units.first().filter(|_| units.len() == 1);
            quantity.extend(only.or_else(|| units.iter().find(|known| known.key() == unit))?.elements());
        }
    }
    Some(quantity.into())
}

impl Unit {
    /// The unit of a `Quantity`.
    pub fn of(quantity: &Value) -> Unit {
        let text = |name: &str| quantity.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (unit, code) = (text("unit"), text("code"));
        Unit { label: if unit.is_empty() { code.clone() } else { unit }, system: text("system"), code }
    }

    /// A unit as a person types it.
    pub fn typed(text: &str) -> Unit {
        Unit { label: text.trim().to_owned(), ..Unit::default() }
    }

    /// Whether both are one unit: by system and code where both have a code, else by their words. Nothing is converted.
    pub fn is(&self, other: &Unit) -> bool {
        match (self.code.as_str(), other.code.as_str()) {
            ("", "") => self.label == other.label,
            ("", code) => self.label == other.label || self.label == code,
            (code, "") => self.label == other.label || other.label == code,
            (own, code) => own == code && self.system == other.system,
        }
    }

    /// By what a form names it.
    pub fn key(&self) -> &str {
        if self.code.is_empty() { &self.label } else { &self.code }
    }

    fn elements(&self) -> impl Iterator<Item = (String, Value)> {
        let parts = [("unit", &self.label), ("system", &self.system), ("code", &self.code)];
        parts
            .into_iter()
            .filter(|(_, text)| !text.is_empty())
            .map(|(name, text)| (name.to_owned(), text.as_str().into()))
    }
}

/// What an answer says as it would be typed, and its unit.
pub fn typed(item: &Item, answer: &Map<String, Value>, zone: Tz) -> (String, String) {
    let Some((name, value)) = answer.iter().find(|(name, _)| name.starts_with("value")) else {
        return Default::default();
    };
    if let Some(option) = item.options.iter().find(|option| option.is(name, value)) {
        return (option.key.clone(), String::new());
    }
    let said = match value {
        Value::String(text) => match item.kind {
            Kind::DateTime => local(text, zone),
            Kind::Time => text.strip_suffix(":00").filter(|rest| rest.contains(':')).unwrap_or(text).to_owned(),
            _ => text.clone(),
        },
        Value::Number(number) => number.to_string(),
        Value::Bool(ticked) => if *ticked { "yes" } else { "no" }.to_owned(),
        other => {
            let text = |name: &str| other.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            if let Some(number) = other.get("value") {
                let unit = Unit::of(other);
                let known = item.units.iter().find(|known| known.is(&unit));
                return (number.to_string(), known.map_or(unit.label.as_str(), Unit::key).to_owned());
            }
            ["display", "code", "reference", "title", "url"].into_iter().find_map(text).unwrap_or_default().to_owned()
        }
    };
    (said, String::new())
}

/// An instant by the practice's clock, as a browser's field has it.
pub fn local(fhir: &str, zone: Tz) -> String {
    match DateTime::parse_from_rfc3339(fhir) {
        Ok(at) => {
            let local = at.with_timezone(&zone).format("%Y-%m-%dT%H:%M:%S").to_string();
            local.strip_suffix(":00").unwrap_or(&local).to_owned()
        }
        Err(_) => fhir.to_owned(),
    }
}

/// How two answers to a question of this kind stand to each other; `None` where they cannot be compared.
pub fn compare(kind: Kind, said: &str, other: &str) -> Option<Ordering> {
    match kind {
        Kind::Integer | Kind::Decimal | Kind::Quantity => {
            plain(said).parse::<f64>().ok()?.partial_cmp(&plain(other).parse::<f64>().ok()?)
        }
        // A clock's texts are ordered as its times are.
        Kind::Date | Kind::DateTime | Kind::Time => Some(said.trim().cmp(other.trim())),
        _ => Some(said.to_lowercase().cmp(&other.to_lowercase())),
    }
}
