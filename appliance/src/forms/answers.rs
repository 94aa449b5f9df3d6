//! Answers to a template: from a form's fields, to and from a `QuestionnaireResponse`.

use super::template::{Condition, Item, Kind, Operator, Template};
use super::typed;
use chrono_tz::Tz;
use serde_json::{Value, json};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Repetitions of a section at most.
const REPEATS_MAX: usize = 20;
const ANSWER_CHARS_MAX: usize = 20_000;
/// Answers to one question at most.
const SEVERAL_MAX: usize = 60;
/// Fields that one form sends at most, some less than the gate lets through.
const FIELDS_MAX: usize = 360;

/// A question, and in which repetition of each section around it that repeats.
pub type Place = (String, Vec<usize>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Said {
    texts: Vec<String>,
    /// Of a quantity.
    unit: String,
}

/// What was answered, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    given: BTreeMap<Place, Said>,
    repeats: BTreeMap<Place, usize>,
    /// By whose clock times are typed.
    zone: Tz,
}

/// The name of a form's field: `a.NAME`, `a.NAME.2`, `a.NAME.2.0`; `u.` is the unit, `n.` how often a section is there. Other
/// programs name their questions as they like, so that what is no letter or digit is written as its bytes.
pub fn field_name(letter: char, id: &str, path: &[usize]) -> String {
    let mut name = format!("{letter}.");
    for byte in id.bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') => name.push(char::from(b)),
            b => name.push_str(&format!("~{b:02x}")),
        }
    }
    path.iter().for_each(|at| name.push_str(&format!(".{at}")));
    name
}

/// What a field's name says, without its letter.
fn place(name: &str) -> Option<Place> {
    let mut parts = name.split('.');
    let (mut id, mut rest) = (Vec::new(), parts.next()?.bytes());
    while let Some(byte) = rest.next() {
        match byte {
            b'~' => id.push(u8::from_str_radix(std::str::from_utf8(&[rest.next()?, rest.next()?]).ok()?, 16).ok()?),
            byte => id.push(byte),
        }
    }
    let path: Option<Vec<usize>> = parts.map(|part| part.parse().ok().filter(|at| *at < REPEATS_MAX)).collect();
    Some((String::from_utf8(id).ok()?, path?))
}

impl Answers {
    pub fn new(zone: Tz) -> Answers {
        Answers { given: BTreeMap::new(), repeats: BTreeMap::new(), zone }
    }

    /// What a new form begins with.
    pub fn initial(template: &Template, zone: Tz) -> Answers {
        let mut answers = Answers::new(zone);
        let mut found = Vec::new();
        answers.walk(template, &mut |item, path, _| {
            if !item.initial.is_empty() {
                let said = item.initial.iter().map(|value| typed::typed(item, value, zone));
                let (texts, units): (Vec<String>, Vec<String>) = said.unzip();
                found.push(((item.id.clone(), path.to_vec()), Said { texts, unit: units.concat() }));
            }
        });
        answers.given.extend(found);
        answers
    }

    pub fn from_fields<'f>(fields: impl Iterator<Item = (&'f str, &'f str)>, zone: Tz) -> Answers {
        let mut answers = Answers::new(zone);
        for (name, value) in fields {
            let Some((letter, place)) = name.split_once('.').and_then(|(letter, name)| Some((letter, place(name)?)))
            else {
                continue;
            };
            let value: String = value.trim_end().chars().take(ANSWER_CHARS_MAX).collect();
            match letter {
                "a" if !value.trim().is_empty() => {
                    let texts = &mut answers.given.entry(place).or_default().texts;
                    if texts.len() < SEVERAL_MAX && !texts.contains(&value) {
                        texts.push(value);
                    }
                }
                "u" if !value.trim().is_empty() => {
                    answers.given.entry(place).or_default().unit = value.trim().to_owned()
                }
                "n" => drop(answers.repeats.insert(place, value.parse().unwrap_or(1).clamp(1, REPEATS_MAX))),
                _ => {}
            }
        }
        // A unit without a number says nothing.
        answers.given.retain(|_, said| !said.texts.is_empty());
        answers
    }

    pub fn set(&mut self, id: &str, path: &[usize], value: &str) {
        let texts = vec![value.chars().take(ANSWER_CHARS_MAX).collect()];
        self.given.insert((id.to_owned(), path.to_vec()), Said { texts, unit: String::new() });
    }

    fn said(&self, id: &str, path: &[usize]) -> Option<&Said> {
        self.given.get(&(id.to_owned(), path.to_vec()))
    }

    /// All answers to a question: several where it is a choice of several.
    pub fn texts(&self, id: &str, path: &[usize]) -> &[String] {
        self.said(id, path).map_or(&[], |said| &said.texts)
    }

    pub fn text(&self, id: &str, path: &[usize]) -> &str {
        self.texts(id, path).first().map_or("", String::as_str)
    }

    pub fn unit(&self, id: &str, path: &[usize]) -> &str {
        self.said(id, path).map_or("", |said| &said.unit)
    }

    /// An answer in words, as it is read.
    pub fn words(&self, item: &Item, path: &[usize]) -> String {
        let words = |text: &String| match item.kind {
            Kind::DateTime => text.replace('T', " "),
            _ => {
                item.options.iter().find(|option| option.key == *text).map_or_else(|| text.clone(), |o| o.label.clone())
            }
        };
        let all = self.texts(&item.id, path).iter().map(words).collect::<Vec<_>>().join(", ");
        let unit = match (item.units.as_slice(), self.unit(&item.id, path)) {
            ([only], _) => only.label.as_str(),
            (units, key) => units.iter().find(|unit| unit.key() == key).map_or(key, |unit| &unit.label),
        };
        if all.is_empty() || unit.is_empty() { all } else { format!("{all} {unit}") }
    }

    /// How often a section is there.
    pub fn count(&self, section: &Item, path: &[usize]) -> usize {
        let key = || (section.id.clone(), path.to_vec());
        if section.repeats && section.kind == Kind::Group { self.repeats.get(&key()).copied().unwrap_or(1) } else { 1 }
    }

    /// Adds a repetition of the section that a button names, unless the form is as large as one may be.
    pub fn add_one(&mut self, template: &Template, button: &str) {
        let Some((id, path)) = place(button) else { return };
        let Some((section, _)) = template.find(&id).filter(|(item, _)| item.kind == Kind::Group && item.repeats) else {
            return;
        };
        let mut grown = self.clone();
        let count = self.count(section, &path) + 1;
        grown.repeats.insert((id, path), count.min(REPEATS_MAX));
        let mut fields = 0;
        grown.walk(template, &mut |item, _, _| fields += if item.repeats { item.options.len().max(1) } else { 1 });
        if fields <= FIELDS_MAX {
            *self = grown;
        }
    }

    pub fn number(&self, id: &str) -> Option<f64> {
        self.text(id, &[]).trim().replace(',', ".").parse().ok()
    }

    /// Every item with where it stands and whether it is asked: a section once for each repetition. What stands below a question is
    /// asked once that is answered.
    pub fn walk<'t>(&self, template: &'t Template, see: &mut dyn FnMut(&'t Item, &[usize], bool)) {
        self.walk_items(template, &template.items, (&mut Vec::new(), &mut Vec::new()), true, see);
    }

    fn walk_items<'t>(
        &self,
        template: &'t Template,
        items: &'t [Item],
        (path, groups): (&mut Vec<usize>, &mut Vec<&'t str>),
        asked: bool,
        see: &mut dyn FnMut(&'t Item, &[usize], bool),
    ) {
        for item in items {
            let own = asked && self.is_asked(template, item, (path, groups));
            if item.kind == Kind::Group && item.repeats {
                for index in 0..self.count(item, path) {
                    path.push(index);
                    groups.push(&item.id);
                    see(item, path, own);
                    self.walk_items(template, &item.items, (path, groups), own, see);
                    groups.pop();
                    path.pop();
                }
                continue;
            }
            see(item, path, own);
            let below = own && (item.kind == Kind::Group || !self.texts(&item.id, path).is_empty());
            self.walk_items(template, &item.items, (path, groups), below, see);
        }
    }

    /// Whether an item's own conditions are met, in the repetition in which it stands.
    fn is_asked(&self, template: &Template, item: &Item, (path, groups): (&[usize], &[&str])) -> bool {
        let mut met = item.conditions.iter().map(|condition| {
            let Some((question, around)) = template.find(&condition.question) else { return false };
            let shared = around.iter().zip(groups).take_while(|(one, two)| one == two).count();
            let near = path.get(..shared).unwrap_or_default();
            // In the repetition around both; where the question repeats by itself, any of its answers counts.
            let said: Vec<&str> = match around.len() == shared {
                true => self.texts(&question.id, near).iter().map(String::as_str).collect(),
                false => {
                    let same = self.given.iter().filter(|((id, at), _)| *id == question.id && at.starts_with(near));
                    same.flat_map(|(_, said)| said.texts.iter().map(String::as_str)).collect()
                }
            };
            self.is_met(condition, question, &said)
        });
        item.conditions.is_empty() || if item.any { met.any(|met| met) } else { met.all(|met| met) }
    }

    fn is_met(&self, condition: &Condition, question: &Item, said: &[&str]) -> bool {
        let wanted = self.wanted(condition, question);
        // An unticked box says no.
        let said = if said.is_empty() && question.tick { &["no"][..] } else { said };
        let found = |fits: fn(Ordering) -> bool| {
            said.iter().any(|one| typed::compare(question.kind, one, &wanted).is_some_and(fits))
        };
        match condition.operator {
            Operator::Exists => said.is_empty() != (wanted == "yes"),
            Operator::Equal => found(Ordering::is_eq),
            Operator::NotEqual => !found(Ordering::is_eq),
            Operator::Greater => found(Ordering::is_gt),
            Operator::Less => found(Ordering::is_lt),
            Operator::NotLess => found(Ordering::is_ge),
            Operator::NotGreater => found(Ordering::is_le),
        }
    }

    /// The answer that a condition asks for, as it would be typed.
    pub fn wanted(&self, condition: &Condition, question: &Item) -> String {
        match question.kind {
            Kind::DateTime => typed::local(&condition.answer, self.zone),
            _ => condition.answer.clone(),
        }
    }

    /// Fills in what the template calculates, and drops answers to what is not asked.
    pub fn settle(&mut self, template: &Template) {
        self.name_options(template);
        let mut calculated = Vec::new();
        for (item, repeated) in template.questions() {
            if let Some(formula) = &item.calculation {
                let value = formula.value(&|name| self.number(name));
                let shown =
                    value.map(|v| if item.kind == Kind::Integer { format!("{v:.0}") } else { format!("{:.1}", v) });
                let path = if repeated { vec![0] } else { Vec::new() };
                calculated.push((item.id.clone(), path, shown.unwrap_or_default()));
            }
        }
        for (id, path, shown) in calculated {
            if shown.is_empty() { drop(self.given.remove(&(id, path))) } else { self.set(&id, &path, &shown) }
        }
        // What is dropped may be what another question is asked by.
        loop {
            let mut hidden: Vec<Place> = Vec::new();
            self.walk(template, &mut |item, path, asked| {
                if !asked {
                    hidden.push((item.id.clone(), path.to_vec()));
                }
            });
            let before = self.given.len();
            for (id, path) in &hidden {
                self.given.remove(&(id.clone(), path.clone()));
                // The same name is there for a section that repeats: once again, where it is asked again.
                if let Some((_, around)) = path.split_last() {
                    self.repeats.remove(&(id.clone(), around.to_vec()));
                }
            }
            if self.given.len() == before {
                return;
            }
        }
    }

    /// What was typed as a listed answer is shown, is that answer.
    fn name_options(&mut self, template: &Template) {
        for (item, _) in template.questions().into_iter().filter(|(item, _)| item.kind == Kind::OpenChoice) {
            for (_, said) in self.given.iter_mut().filter(|((id, _), _)| *id == item.id) {
                for text in &mut said.texts {
                    *text = item.option(text).map_or_else(|| text.clone(), |option| option.key.clone());
                }
            }
        }
    }

    /// Takes the answers that nobody may change from what is stored.
    pub fn keep_read_only(&mut self, template: &Template, stored: &Answers) {
        let mut fixed: Vec<Place> = Vec::new();
        self.walk(template, &mut |item, path, _| {
            if item.read_only {
                fixed.push((item.id.clone(), path.to_vec()));
            }
        });
        for place in fixed {
            match stored.given.get(&place) {
                Some(said) => drop(self.given.insert(place, said.clone())),
                None => drop(self.given.remove(&place)),
            }
        }
    }

    /// What keeps the form from being complete.
    pub fn problems(&self, template: &Template) -> BTreeMap<Place, String> {
        let mut found = BTreeMap::new();
        self.walk(template, &mut |item, path, asked| {
            if asked && let Some(problem) = self.problem(item, path) {
                found.insert((item.id.clone(), path.to_vec()), problem);
            }
        });
        found
    }

    fn problem(&self, item: &Item, path: &[usize]) -> Option<String> {
        let texts = self.texts(&item.id, path);
        if matches!(item.kind, Kind::Group | Kind::Display) || item.read_only {
            return None;
        }
        if texts.is_empty() {
            return (item.required && item.calculation.is_none()).then(|| "This must be answered.".to_owned());
        }
        let unit = self.unit(&item.id, path);
        if texts.iter().any(|text| typed::value(item, text, unit, self.zone).is_none()) {
            return Some(typed::problem(item.kind).to_owned());
        }
        let most = item.length_max.filter(|most| texts.iter().any(|text| text.chars().count() > *most))?;
        Some(format!("Please shorten this to {most} characters."))
    }

    /// What differs from other answers: where, and what those say.
    pub fn differences(&self, template: &Template, other: &Answers) -> Vec<(Place, String)> {
        let mut found = BTreeMap::new();
        for one in [self, other] {
            one.walk(template, &mut |item, path, _| {
                let (own, theirs) = (self.words(item, path), other.words(item, path));
                if own != theirs {
                    found.insert((item.id.clone(), path.to_vec()), theirs);
                }
            });
        }
        found.into_iter().collect()
    }

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
