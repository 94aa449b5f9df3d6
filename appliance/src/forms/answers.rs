//! Answers to a template: from a form's fields, to and from a `QuestionnaireResponse`.

use super::template::{Condition, Item, Kind, Operator, Template};
use super::typed;
use chrono_tz::Tz;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Repetitions of a section at most.
pub(super) const REPEATS_MAX: usize = 20;
const ANSWER_CHARS_MAX: usize = 20_000;
/// Answers to one question at most.
const SEVERAL_MAX: usize = 60;
/// Fields that one form sends at most, some less than the gate lets through.
const FIELDS_MAX: usize = 360;

/// A question, and in which repetition of each section around it that repeats.
pub type Place = (String, Vec<usize>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) texts: Vec<String>,
    /// Of a quantity.
    pub(super) unit: String,
}

/// What was answered, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    pub(super) given: BTreeMap<Place, Said>,
    pub(super) repeats: BTreeMap<Place, usize>,
    /// By whose clock times are typed.
    pub(super) zone: Tz,
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
        answers.begin(template, None);
        answers
    }

    /// Gives all questions, or those inside of one repetition of a section, the answers with which they begin.
    fn begin(&mut self, template: &Template, within: Option<(&str, &[usize])>) {
        let (mut found, zone) = (Vec::new(), self.zone);
        self.walk(template, &mut |item, path, _| {
            let inside = within.is_none_or(|(section, at)| {
                path.starts_with(at) && template.find(&item.id).is_some_and(|(_, around)| around.contains(&section))
            });
            if !item.initial.is_empty() && inside {
                let said = item.initial.iter().map(|value| typed::typed(item, value, zone));
                let (texts, units): (Vec<String>, Vec<String>) = said.unzip();
                let unit = units.into_iter().next().unwrap_or_default();
                found.push(((item.id.clone(), path.to_vec()), Said { texts, unit }));
            }
        });
        for (place, said) in found {
            self.given.entry(place).or_insert(said);
        }
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
                    if texts.len() < SEVERAL_MAX {
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

    pub(super) fn said(&self, id: &str, path: &[usize]) -> Option<&Said> {
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
        if !section.repeats || section.kind != Kind::Group {
            return 1;
        }
        let least = section.limits.answers_min.unwrap_or(1).clamp(1, REPEATS_MAX);
        self.repeats.get(&(section.id.clone(), path.to_vec())).copied().unwrap_or(1).max(least)
    }

    /// Adds a repetition of the section that a button names, unless the form is as large as one may be.
    pub fn add_one(&mut self, template: &Template, button: &str) {
        let Some((id, path)) = place(button) else { return };
        let Some((section, _)) = template.find(&id).filter(|(item, _)| item.kind == Kind::Group && item.repeats) else {
            return;
        };
        let mut grown = self.clone();
        let count = self.count(section, &path) + 1;
        if count > section.limits.answers_max.unwrap_or(REPEATS_MAX).min(REPEATS_MAX) {
            return;
        }
        let fresh = [path.as_slice(), &[count - 1]].concat();
        grown.repeats.insert((id, path), count);
        grown.begin(template, Some((&section.id, &fresh)));
        let mut fields = 0;
        grown.walk(template, &mut |item, path, _| {
            fields += if item.repeats { item.options.len().max(grown.texts(&item.id, path).len() + 1) } else { 1 };
        });
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
        let mut met = item.conditions.iter().map(|condition| self.meets_in(template, condition, (path, groups)));
        item.conditions.is_empty() || if item.any { met.any(|met| met) } else { met.all(|met| met) }
    }

    /// Whether a condition of an item is met now, in the repetition in which it stands.
    pub fn meets(&self, template: &Template, item: &Item, condition: &Condition, path: &[usize]) -> bool {
        let mut groups = template.find(&item.id).map(|(_, around)| around).unwrap_or_default();
        if item.kind == Kind::Group && item.repeats {
            groups.push(&item.id);
        }
        self.meets_in(template, condition, (path, &groups))
    }

    fn meets_in(&self, template: &Template, condition: &Condition, (path, groups): (&[usize], &[&str])) -> bool {
        let Some((question, around)) = template.find(&condition.question) else { return false };
        let shared = around.iter().zip(groups).take_while(|(one, two)| one == two).count();
        let near = path.get(..shared).unwrap_or_default();
        // In the repetition around both; where the question repeats by itself, any of its answers counts.
        let mut said: Vec<(&str, &str)> = Vec::new();
        for ((_, at), one) in self.given.iter().filter(|((id, at), _)| *id == question.id && at.starts_with(near)) {
            if around.len() != shared || at.as_slice() == near {
                said.extend(one.texts.iter().map(|text| (text.as_str(), one.unit.as_str())));
            }
        }
        self.is_met(condition, question, &said)
    }

    /// Whether answers, each with its unit, meet a condition. R4 asks whether one of them is equal, greater and so on: what is
    /// counted in another unit is none of these, and nothing is converted.
    fn is_met(&self, condition: &Condition, question: &Item, said: &[(&str, &str)]) -> bool {
        let wanted = self.wanted(condition, question);
        // An unticked box says no.
        let said = if said.is_empty() && question.tick { &[("no", "")][..] } else { said };
        let found = |fits: fn(Ordering) -> bool| {
            let same = |unit: &str| question.kind != Kind::Quantity || question.unit(unit).is(&condition.unit);
            let mut counted = said.iter().filter(|(_, unit)| same(unit));
            counted.any(|(one, _)| typed::compare(question.kind, one, &wanted).is_some_and(fits))
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

    /// What was typed as a listed answer is shown, is that answer; each is chosen once.
    fn name_options(&mut self, template: &Template) {
        for (item, _) in template.questions().into_iter().filter(|(item, _)| item.kind.is_choice()) {
            for (_, said) in self.given.iter_mut().filter(|((id, _), _)| *id == item.id) {
                let mut named: Vec<String> = Vec::new();
                for text in &said.texts {
                    let text = item.option(text).map_or(text, |option| &option.key);
                    if !named.contains(text) {
                        named.push(text.clone());
                    }
                }
                said.texts = named;
            }
        }
    }

    /// Takes the answers that nobody may change from what is stored.
    pub fn keep_fixed(&mut self, template: &Template, stored: &Answers) {
        let fixed = |id: &str| template.find(id).is_some_and(|(item, _)| item.is_fixed());
        let hidden = |id: &str| template.find(id).is_some_and(|(item, _)| item.hidden);
        self.given.retain(|(id, _), _| !fixed(id));
        self.repeats.retain(|(id, _), _| !hidden(id));
        let given = stored.given.iter().filter(|((id, _), _)| fixed(id));
        self.given.extend(given.map(|(place, said)| (place.clone(), said.clone())));
        let repeats = stored.repeats.iter().filter(|((id, _), _)| hidden(id));
        self.repeats.extend(repeats.map(|(place, count)| (place.clone(), *count)));
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
}
