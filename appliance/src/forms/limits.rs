//! What an answer must keep to beside its type, and what keeps a form from being complete.

use super::answers::{Answers, Place};
use super::questionnaire::{list, text, typed_value};
use super::template::{Item, Kind, Template, Unit};
use super::typed;
use crate::dates;
use chrono_tz::Tz;
use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;

pub(super) const HL7: &str = "http://hl7.org/fhir/StructureDefinition/";

/// The limits of R4's extensions `minValue`, `maxValue`, `minLength`, `maxDecimalPlaces`, `questionnaire-minOccurs` and
/// `questionnaire-maxOccurs`, and of `maxLength`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    pub length_max: Option<usize>,
    length_min: Option<usize>,
    decimals_max: Option<usize>,
    pub answers_min: Option<usize>,
    pub answers_max: Option<usize>,
    least: Option<Bound>,
    most: Option<Bound>,
    /// How an answer is written, in the words of the questionnaire's author.
    pub format: Option<String>,
}

/// The value of `minValue` or `maxValue`, such as `{"valueInteger": 3}`.
type Bound = Map<String, Value>;

impl Limits {
    pub(super) fn read(body: &Value) -> Limits {
        let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
        let mut limits = Limits { length_max: body.get("maxLength").and_then(number), ..Limits::default() };
        for extension in list(body, "extension") {
            let Some(name) = text(extension, "url").strip_prefix(HL7) else { continue };
            let whole = || extension.get("valueInteger").and_then(number);
            match name {
                "minLength" => limits.length_min = whole(),
                "maxDecimalPlaces" => limits.decimals_max = whole(),
                "questionnaire-minOccurs" => limits.answers_min = whole(),
                "questionnaire-maxOccurs" => limits.answers_max = whole(),
                "minValue" => limits.least = Some(bound(extension)),
                "maxValue" => limits.most = Some(bound(extension)),
                "entryFormat" => {
                    limits.format = extension.get("valueString").and_then(Value::as_str).map(str::to_owned)
                }
                _ => {}
            }
        }
        limits
    }

    /// Whether an answer of this kind can be held to the least and the most: a number that was calculated, or one of another
    /// unit than the answers have, is none that can be compared.
    pub(super) fn can_be_kept(&self, item: &Item) -> bool {
        let kept = |bound: &Bound| {
            let Some((name, value)) = bound.iter().next() else { return false };
            match item.kind {
                Kind::Integer | Kind::Decimal => matches!(name.as_str(), "valueInteger" | "valueDecimal"),
                Kind::Date | Kind::DateTime => matches!(name.as_str(), "valueDate" | "valueDateTime"),
                Kind::Time => name == "valueTime",
                Kind::Quantity => match (item.units.as_slice(), name.as_str()) {
                    ([_], "valueInteger" | "valueDecimal") => true,
                    ([_, ..], "valueQuantity") => item.units.iter().all(|unit| unit.is(&Unit::of(value))),
                    _ => false,
                },
                _ => false,
            }
        };
        self.least.iter().chain(&self.most).all(kept)
    }

    fn problem(&self, item: &Item, said: &str, zone: Tz) -> Option<String> {
        let length = said.chars().count();
        if matches!(item.kind, Kind::String | Kind::Text | Kind::Url) {
            if let Some(most) = self.length_max.filter(|most| length > *most) {
                return Some(format!("Please shorten this to {}.", counted(most, "character")));
            }
            if let Some(least) = self.length_min.filter(|least| length < *least) {
                return Some(format!("Please enter at least {}.", counted(least, "character")));
            }
        }
        let is_number = matches!(item.kind, Kind::Integer | Kind::Decimal | Kind::Quantity);
        let places = said.split_once(['.', ',']).map_or(0, |(_, places)| places.trim().len());
        match self.decimals_max.filter(|most| is_number && places > *most) {
            Some(0) => return Some("Please enter a whole number.".into()),
            Some(most) => return Some(format!("Please enter at most {} after the point.", counted(most, "digit"))),
            None => {}
        }
        let against = |bound: &Option<Bound>| {
            let shown = typed::typed(item, bound.as_ref()?, zone).0;
            Some((compared(item.kind, said, &shown)?, shown.replace('T', " ")))
        };
        let words = match item.kind {
            Kind::Date | Kind::DateTime | Kind::Time => ["not before", "not after"],
            _ => ["at least", "at most"],
        };
        let unit = item.units.first().map(|unit| format!(" {}", unit.label)).unwrap_or_default();
        match (against(&self.least), against(&self.most)) {
            (Some((Ordering::Less, least)), _) => Some(format!("This must be {} {least}{unit}.", words[0])),
            (_, Some((Ordering::Greater, most))) => Some(format!("This must be {} {most}{unit}.", words[1])),
            _ => None,
        }
    }
}

fn counted(many: usize, what: &str) -> String {
    format!("{many} {what}{}", if many == 1 { "" } else { "s" })
}

fn bound(extension: &Value) -> Bound {
    typed_value(extension, "value").unwrap_or_default()
}

/// How an answer stands to a limit. A limit that names only a year or a month is kept by every day in it.
fn compared(kind: Kind, said: &str, limit: &str) -> Option<Ordering> {
    let said = match kind {
        Kind::Date => dates::parse_day(said)?.to_string(),
        Kind::Time => typed::time(said)?.format("%H:%M:%S").to_string(),
        Kind::DateTime => said.trim().to_owned(),
        _ => return typed::compare(kind, said, limit),
    };
    let both = said.len().min(limit.len());
    Some(said.get(..both)?.cmp(limit.get(..both)?))
}

impl Answers {
    /// What keeps the form from being complete.
    pub fn problems(&self, template: &Template) -> BTreeMap<Place, String> {
        let mut found = BTreeMap::new();
        self.walk(template, &mut |item, path, asked| {
            if asked && let Some(problem) = self.problem(template, item, path) {
                found.insert((item.id.clone(), path.to_vec()), problem);
            }
        });
        found
    }

    fn problem(&self, template: &Template, item: &Item, path: &[usize]) -> Option<String> {
        let texts = self.texts(&item.id, path);
        if matches!(item.kind, Kind::Group | Kind::Display) || item.is_fixed() {
            return None;
        }
        if texts.is_empty() {
            return (item.required && item.calculation.is_none()).then(|| "This must be answered.".to_owned());
        }
        let unit = self.unit(&item.id, path);
        if texts.iter().any(|text| typed::value(item, text, unit, self.zone).is_none()) {
            return Some(typed::problem(item.kind).to_owned());
        }
        if item.kind == Kind::Quantity && item.units.is_empty() && unit.is_empty() {
            let counted = template.counted_in(item);
            if let [first, ..] = counted.as_slice() {
                return Some(format!("Please enter its unit, such as {first}: other questions depend on it."));
            }
        }
        let many = item.repeats.then_some(texts.len());
        if let Some(least) = item.limits.answers_min.filter(|least| many.is_some_and(|many| many < *least)) {
            return Some(format!("Please give at least {}.", counted(least, "answer")));
        }
        if let Some(most) = item.limits.answers_max.filter(|most| many.is_some_and(|many| many > *most)) {
            return Some(format!("Please give at most {}.", counted(most, "answer")));
        }
        if let Some(alone) = texts.iter().filter_map(|text| item.option(text)).find(|o| o.exclusive && texts.len() > 1)
        {
            return Some(format!("“{}” stands alone: please choose nothing beside it.", alone.label));
        }
        texts.iter().find_map(|text| item.limits.problem(item, text, self.zone))
    }
}
