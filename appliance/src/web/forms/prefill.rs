//! What a new form takes from the chart.

use crate::forms::{Answers, Template};
use crate::store::{StoreError, View};
use crate::web::reading::PatientFacts;
use crate::web::{current, merged};
use chrono::NaiveDate;
use chrono_tz::Tz;

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
            "allergies" => current::allergies(view, people)?.into_iter().map(|a| a.text).collect::<Vec<_>>().join(", "),
            "problems" => current::problems(view, people)?.join("\n"),
            "medications" => current::medications(view, people)?.join("\n"),
            "weight" => rounded(current::value(view, people, WEIGHT, zone)?),
            "height" => rounded(current::value(view, people, HEIGHT, zone)?),
            _ => String::new(),
        };
        if !said.is_empty() {
            answers.set(&item.id, &[], &said);
        }
    }
    answers.settle(template);
    Ok(answers)
}

/// Values from elsewhere come with many digits; one is what a form asks for.
fn rounded(value: Option<f64>) -> String {
    value.map(|number| format!("{number:.1}").trim_end_matches(".0").to_owned()).unwrap_or_default()
}
