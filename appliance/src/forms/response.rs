//! Answers as the items of a `QuestionnaireResponse`, and back.

use super::answers::{Answers, REPEATS_MAX, Said};
use super::template::{Item, Kind, Template};
use super::typed;
use chrono_tz::Tz;
use serde_json::{Value, json};

impl Answers {
    /// The items of a `QuestionnaireResponse`. An answer that is not of its kind is kept as text: a draft loses nothing, and is
    /// not signed.
    pub fn write(&self, template: &Template) -> Value {
        self.write_items(&template.items, &mut Vec::new()).into()
    }

    fn write_items(&self, items: &[Item], path: &mut Vec<usize>) -> Vec<Value> {
        let mut written = Vec::new();
        for item in items {
            let mut element = json!({"linkId": item.id});
            if !item.text.is_empty() {
                element["text"] = item.text.as_str().into();
            }
            if item.kind != Kind::Group {
                written.extend(self.write_one(item, element, path));
                continue;
            }
            for index in 0..self.count(item, path) {
                let depth = path.len();
                path.extend(item.repeats.then_some(index));
                let inside = self.write_items(&item.items, path);
                path.truncate(depth);
                if !inside.is_empty() || item.repeats && self.count(item, path) > 1 {
                    let mut group = element.clone();
                    // FHIR knows no empty list.
                    if !inside.is_empty() {
                        group["item"] = inside.into();
                    }
                    written.push(group);
                }
            }
        }
        written
    }

    fn write_one(&self, item: &Item, mut element: Value, path: &mut Vec<usize>) -> Option<Value> {
        let said = self.said(&item.id, path).filter(|said| !said.texts.is_empty() && item.kind != Kind::Display)?;
        let several = if item.repeats { said.texts.len() } else { 1 };
        let answer = |text: &String| {
            typed::value(item, text, &said.unit, self.zone).unwrap_or_else(|| {
                let words = if said.unit.is_empty() { text.clone() } else { format!("{text} {}", said.unit) };
                json!({"valueString": words})
            })
        };
        let mut answers: Vec<Value> = said.texts.iter().take(several).map(answer).collect();
        let inside = self.write_items(&item.items, path);
        if let Some(first) = answers.first_mut().filter(|_| !inside.is_empty()) {
            first["item"] = inside.into();
        }
        element["answer"] = answers.into();
        Some(element)
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

    /// What a `QuestionnaireResponse` says.
    pub fn read(template: &Template, response: &Value, zone: Tz) -> Answers {
        let mut answers = Answers::new(zone);
        answers.read_items(&template.items, response, &mut Vec::new());
        answers
    }

    fn read_items(&mut self, items: &[Item], inside: &Value, path: &mut Vec<usize>) {
        let list = |value: &Value, name: &str| value.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
        let all = list(inside, "item");
        for item in items {
            let mut own = all.iter().filter(|one| one.get("linkId").and_then(Value::as_str) == Some(&item.id));
            if item.kind == Kind::Group && item.repeats {
                let mut count = 0;
                for one in own.take(REPEATS_MAX) {
                    path.push(count);
                    self.read_items(&item.items, one, path);
                    path.pop();
                    count += 1;
                }
                self.repeats.insert((item.id.clone(), path.clone()), count.max(1));
            } else if item.kind == Kind::Group {
                own.for_each(|one| self.read_items(&item.items, one, path));
            } else if let Some(one) = own.next() {
                let given = list(one, "answer");
                let said =
                    given.iter().filter_map(Value::as_object).map(|answer| typed::typed(item, answer, self.zone));
                let (texts, units): (Vec<String>, Vec<String>) = said.filter(|(text, _)| !text.is_empty()).unzip();
                if !texts.is_empty() {
                    let unit = units.into_iter().next().unwrap_or_default();
                    self.given.insert((item.id.clone(), path.clone()), Said { texts, unit });
                }
                given.iter().for_each(|answer| self.read_items(&item.items, answer, path));
            }
        }
    }
}
