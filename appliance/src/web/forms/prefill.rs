//! What a new form takes from the chart.

use crate::dates;
use crate::forms::{Answers, Template};
use crate::store::{Query, StoreError, View};
use crate::web::merged;
use crate::web::reading::{PatientFacts, active_allergies, code, concept, text};
use chrono::NaiveDate;
use chrono_tz::Tz;
use serde_json::Value;

/// LOINC codes of body weight and height.
const WEIGHT: &str = "29463-7";
const HEIGHT: &str = "8302-2";

pub fn answers(
    view: &View<'_>,
    template: &Template,
    patient: &str,
    (today, zone): (NaiveDate, Tz),
) -> Result<Answers, StoreError> {
    let mut answers = Answers::initial(template, zone);
    let facts = PatientFacts::read(&view.read("Patient", patient)?.json()?);
    let people = &merged::people(view, &facts)?;
    for (item, repeated) in template.questions() {
        let Some(source) = item.source.as_deref().filter(|_| !repeated) else { continue };
        let said = match source {
            "name" => facts.full_name(),
            "birth-date" => facts.birth.map(|d| d.to_string()).unwrap_or_default(),
            "age" => facts.birth.and_then(|d| today.years_since(d)).map(|y| y.to_string()).unwrap_or_default(),
            "phone" => facts.phone.clone(),
            "allergies" => {
                let all = of(view, "AllergyIntolerance", people)?;
                active_allergies(&all).into_iter().map(|a| a.text).collect::<Vec<_>>().join(", ")
            }
            "problems" => active(&of(view, "Condition", people)?, "clinicalStatus", |c| concept(c.get("code"))),
            "medications" => active(&of(view, "MedicationRequest", people)?, "status", |m| {
                concept(m.get("medicationCodeableConcept"))
            }),
            "weight" => newest(view, people, WEIGHT)?,
            "height" => newest(view, people, HEIGHT)?,
            _ => String::new(),
        };
        if !said.is_empty() {
            answers.set(&item.id, &[], &said);
        }
    }
    answers.settle(template);
    Ok(answers)
}

fn of(view: &View<'_>, kind: &str, people: &[String]) -> Result<Vec<Value>, StoreError> {
    merged::search(view, &Query::all(kind)?.limit(200), people)
}

fn active(all: &[Value], status: &str, words: fn(&Value) -> &str) -> String {
    let shown = all.iter().filter(|r| code(r, status) == "active").map(words).filter(|w| !w.is_empty());
    shown.collect::<Vec<_>>().join("\n")
}

fn newest(view: &View<'_>, people: &[String], loinc: &str) -> Result<String, StoreError> {
    let query = Query::parse("Observation", &[("code".to_owned(), loinc.to_owned())])?.limit(500);
    let all = merged::search(view, &query, people)?;
    let last = all.iter().max_by_key(|o| dates::unix_s(text(o, "/effectiveDateTime")));
    let value = last.and_then(|o| o.pointer("/valueQuantity/value")).map(Value::to_string);
    // Weights from elsewhere come with many digits; one is what a form asks for.
    let number = value.and_then(|v| v.parse::<f64>().ok());
    Ok(number.map(|n| format!("{:.1}", n).trim_end_matches(".0").to_owned()).unwrap_or_default())
}
