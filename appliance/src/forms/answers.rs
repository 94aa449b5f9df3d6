//! Answers to a template: from a form's fields, to and from a `QuestionnaireResponse`.

use super::template::{Item, Kind, Template};
use crate::dates;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Repetitions of a section at most.
const REPEATS_MAX: usize = 20;
const ANSWER_CHARS_MAX: usize = 20_000;

/// What was answered, as it was typed: by question and, in a section that repeats, by repetition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    given: BTreeMap<(String, usize), String>,
    repeats: BTreeMap<String, usize>,
}

impl Answers {
    /// From a form's fields: `a.NAME`, `a.NAME.2`, and `n.SECTION` for how often a section is there.
    pub fn from_fields<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>) -> Answers {
        let mut answers = Answers::default();
        for (name, value) in fields {
            if let Some(name) = name.strip_prefix("a.") {
                let (id, index) =
                    name.split_once('.').map_or((name, 0), |(id, n)| (id, n.parse().unwrap_or(REPEATS_MAX)));
                if index < REPEATS_MAX && !value.trim().is_empty() {
                    answers.set(id, index, value.trim_end());
                }
            } else if let Some(section) = name.strip_prefix("n.") {
                let count = value.parse().unwrap_or(1);
                answers.repeats.insert(section.to_owned(), usize::clamp(count, 1, REPEATS_MAX));
            }
        }
        answers
    }

    pub fn set(&mut self, id: &str, index: usize, value: &str) {
        self.given.insert((id.to_owned(), index), value.chars().take(ANSWER_CHARS_MAX).collect());
    }

    pub fn text(&self, id: &str, index: usize) -> &str {
        self.given.get(&(id.to_owned(), index)).map_or("", String::as_str)
    }

    /// How often a section is there.
    pub fn count(&self, section: &Item) -> usize {
        if section.repeats { self.repeats.get(&section.id).copied().unwrap_or(1) } else { 1 }
    }

    pub fn add_one(&mut self, section: &Item) {
        let count = self.count(section) + 1;
        self.repeats.insert(section.id.clone(), count.min(REPEATS_MAX));
    }

    pub fn number(&self, id: &str) -> Option<f64> {
        self.text(id, 0).trim().replace(',', ".").parse().ok()
    }

    /// Whether a question is asked, given the answers to others.
    pub fn is_asked(&self, item: &Item) -> bool {
        let Some(condition) = &item.condition else { return true };
        let given = self.text(&condition.question, 0);
        // An unticked box says no.
        let said = if given.is_empty() && condition.answer == "no" { "no" } else { given };
        (said.to_lowercase() == condition.answer.to_lowercase()) == condition.equal
    }

    /// Fills in what the template calculates, and drops answers to what is not asked.
    pub fn settle(&mut self, template: &Template) {
        let mut calculated = Vec::new();
        for (item, _) in template.questions() {
            if let Some(formula) = &item.calculation {
                let value = formula.value(&|name| self.number(name));
                let shown =
                    value.map(|v| if item.kind == Kind::Integer { format!("{v:.0}") } else { format!("{:.1}", v) });
                calculated.push((item.id.clone(), shown.unwrap_or_default()));
            }
        }
        for (id, shown) in calculated {
            if shown.is_empty() { drop(self.given.remove(&(id, 0))) } else { self.set(&id, 0, &shown) }
        }
        let hidden: Vec<String> =
            template.questions().iter().filter(|(i, _)| !self.is_asked(i)).map(|(i, _)| i.id.clone()).collect();
        self.given.retain(|(id, _), _| !hidden.contains(id));
    }

    /// What keeps the form from being complete: by question and repetition.
    pub fn problems(&self, template: &Template) -> BTreeMap<(String, usize), &'static str> {
        let mut found = BTreeMap::new();
        for item in &template.items {
            let (inside, count) = if item.kind == Kind::Group {
                (item.items.as_slice(), self.count(item))
            } else {
                (std::slice::from_ref(item), 1)
            };
            for index in 0..count {
                for question in inside.iter().filter(|q| self.is_asked(q)) {
                    if let Some(problem) = problem(question, self.text(&question.id, index)) {
                        found.insert((question.id.clone(), index), problem);
                    }
                }
            }
        }
        found
    }

    /// The items of a `QuestionnaireResponse`. An answer that is not of its kind is kept as text: a draft loses nothing.
    pub fn write(&self, template: &Template) -> Value {
        let mut items = Vec::new();
        for item in &template.items {
            if item.kind != Kind::Group {
                items.extend(self.write_one(item, 0));
                continue;
            }
            for index in 0..self.count(item) {
                let inside: Vec<Value> = item.items.iter().filter_map(|q| self.write_one(q, index)).collect();
                if !inside.is_empty() || item.repeats {
                    let mut group = json!({"linkId": item.id, "text": item.text});
                    // FHIR knows no empty list.
                    if !inside.is_empty() {
                        group["item"] = inside.into();
                    }
                    items.push(group);
                }
            }
        }
        items.into()
    }

    /// Puts the items into a `QuestionnaireResponse`; FHIR knows no empty list.
    pub fn put(&self, template: &Template, response: &mut Value) {
        let items = self.write(template);
        let Some(response) = response.as_object_mut() else { return };
        response.remove("item");
        if items.as_array().is_some_and(|i| !i.is_empty()) {
            response.insert("item".into(), items);
        }
    }

    fn write_one(&self, question: &Item, index: usize) -> Option<Value> {
        let said = self.text(&question.id, index);
        if said.is_empty() || question.kind == Kind::Display {
            return None;
        }
        let plain = said.replace(',', ".");
        let answer = match question.kind {
            Kind::Integer => plain.parse::<i64>().ok().map(|n| json!({"valueInteger": n})),
            // The digits as they were typed: 80.0 is not 80.
            Kind::Decimal if plain.parse::<f64>().is_ok_and(f64::is_finite) => {
                serde_json::from_str::<serde_json::Number>(&plain).ok().map(|n| json!({"valueDecimal": n}))
            }
            Kind::Date => dates::parse_day(said).map(|d| json!({"valueDate": d.to_string()})),
            Kind::Boolean => Some(json!({"valueBoolean": said == "yes"})),
            _ => None,
        };
        let answer = answer.unwrap_or_else(|| json!({"valueString": said}));
        Some(json!({"linkId": question.id, "text": question.text, "answer": [answer]}))
    }

    /// What a `QuestionnaireResponse` says.
    pub fn read(response: &Value) -> Answers {
        let mut answers = Answers::default();
        let list = |value: &Value| value.get("item").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut seen: BTreeMap<String, usize> = BTreeMap::new();
        for item in list(response) {
            let id = item.get("linkId").and_then(Value::as_str).unwrap_or_default().to_owned();
            if item.get("answer").is_some() {
                answers.read_one(&item, 0);
                continue;
            }
            let count = seen.entry(id.clone()).or_default();
            for inside in list(&item) {
                answers.read_one(&inside, *count);
            }
            *count += 1;
            answers.repeats.insert(id, (*count).min(REPEATS_MAX));
        }
        answers
    }

    fn read_one(&mut self, item: &Value, index: usize) {
        let Some(answer) = item.pointer("/answer/0").and_then(Value::as_object) else { return };
        let said = match answer.iter().next() {
            Some((_, Value::String(text))) => text.clone(),
            Some((_, Value::Number(number))) => number.to_string(),
            Some((_, Value::Bool(ticked))) => {
                if *ticked {
                    "yes".into()
                } else {
                    "no".into()
                }
            }
            Some((_, other)) => other.get("display").and_then(Value::as_str).unwrap_or_default().to_owned(),
            None => return,
        };
        self.set(item.get("linkId").and_then(Value::as_str).unwrap_or_default(), index, &said);
    }
}

fn problem(question: &Item, said: &str) -> Option<&'static str> {
    if said.is_empty() {
        return (question.required && question.calculation.is_none() && question.kind != Kind::Display)
            .then_some("This must be answered.");
    }
    let plain = said.replace(',', ".");
    match question.kind {
        Kind::Integer if plain.parse::<i64>().is_err() => Some("Please enter a whole number."),
        Kind::Decimal if !plain.parse::<f64>().is_ok_and(f64::is_finite) => Some("Please enter a number."),
        Kind::Date if dates::parse_day(said).is_none() => Some("Please enter the date as year-month-day."),
        Kind::Choice if !question.options.iter().any(|o| o == said) => Some("Please choose one of the answers."),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::tests::TEXT;
    use super::*;

    fn answers(fields: &[(&str, &str)]) -> Answers {
        Answers::from_fields(fields.iter().copied())
    }

    #[test]
    fn answers_go_into_a_response_and_come_back() {
        let template = Template::parse(TEXT).unwrap();
        let mut given = answers(&[
            ("a.weight", "80.0"),
            ("a.height", "200"),
            ("a.smoker", "yes"),
            ("a.pack", "12"),
            ("n.section-9", "2"),
            ("a.what.0", "Appendix"),
            ("a.year.0", "1999"),
            ("a.what.1", "Knee"),
            ("a.evil", "x"),
        ]);
        let section = template.items.iter().find(|i| i.repeats).unwrap();
        given.repeats.insert(section.id.clone(), 2);
        given.settle(&template);
        assert_eq!(given.text("bmi", 0), "20.0");
        assert!(given.problems(&template).is_empty());
        let items = given.write(&template);
        assert!(items.to_string().contains("\"valueDecimal\":80.0"), "the digits as typed: {items}");
        assert!(!items.to_string().contains("evil"), "what the template does not ask is not stored");
        let read = Answers::read(&json!({"item": items}));
        assert_eq!((read.text("what", 1), read.count(section), read.text("year", 0)), ("Knee", 2, "1999"));
        assert_eq!(read.write(&template), items);
    }

    #[test]
    fn what_is_not_asked_is_neither_kept_nor_missed() {
        let template = Template::parse(
            "smoker: Smoker? | choice: yes, no\npack: Pack years | integer | required | if smoker = yes\n",
        )
        .unwrap();
        let mut given = answers(&[("a.smoker", "no"), ("a.pack", "7")]);
        given.settle(&template);
        assert!(given.problems(&template).is_empty() && !given.write(&template).to_string().contains("pack"));
        let given = answers(&[("a.smoker", "yes")]);
        assert_eq!(given.problems(&template).len(), 1);
    }

    #[test]
    fn a_draft_keeps_what_is_not_right_yet() {
        let template =
            Template::parse("n: N | integer\nd: D | date\nt: T | boolean\nu: U | string | if t = no").unwrap();
        let given = answers(&[("a.n", "about 5"), ("a.d", "spring"), ("a.u", "x")]);
        let read = Answers::read(&json!({"item": given.write(&template)}));
        assert_eq!((read.text("n", 0), read.text("d", 0)), ("about 5", "spring"));
        assert_eq!(given.problems(&template).len(), 2);
        assert!(given.is_asked(&template.items[3]), "an unticked box says no");
    }
}
