//! A template as a FHIR `Questionnaire`: the one that our editor writes, and those of other programs as far as they can be asked here.

use super::expression::Expression;
use super::limits::Limits;
use super::template::{Choice, Condition, ITEMS_MAX, Item, Kind, Operator, Template, Unit};
use super::{typed, value_set};
use serde_json::{Map, Value, json};

pub(super) const CALCULATED: &str =
    "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-calculatedExpression";
const PREFILL: &str = "urn:holdfast:prefill";
pub(super) const FORMULA: &str = "text/x-holdfast-arithmetic";
const UNIT: &str = "http://hl7.org/fhir/StructureDefinition/questionnaire-unit";
const UNIT_OPTION: &str = "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption";
const HIDDEN: &str = "http://hl7.org/fhir/StructureDefinition/questionnaire-hidden";
const EXCLUSIVE: &str = "http://hl7.org/fhir/StructureDefinition/questionnaire-optionExclusive";
/// Sections inside of sections, and questions below questions.
pub(super) const DEPTH_MAX: usize = 8;
/// Answers to choose from at most.
pub(super) const OPTIONS_MAX: usize = 200;

pub(super) fn text<'v>(body: &'v Value, name: &str) -> &'v str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn list<'v>(body: &'v Value, name: &str) -> &'v [Value] {
    body.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn flag(body: &Value, name: &str) -> bool {
    body.get(name) == Some(&Value::Bool(true))
}

/// The `value[x]` or `answer[x]` of an element, under the name of an answer.
pub(super) fn typed_value(body: &Value, prefix: &str) -> Option<Map<String, Value>> {
    let (name, value) = body.as_object()?.iter().find(|(name, _)| name.starts_with(prefix))?;
    let kind = name.strip_prefix(prefix)?;
    Some(Map::from_iter([(format!("value{kind}"), value.clone())]))
}

impl Template {
    /// A `Questionnaire` as far as it can be asked; whether that is all of it, [`Template::unsupported`] says.
    pub fn read(questionnaire: &Value) -> Template {
        let mut left = ITEMS_MAX;
        let mut template =
            Template { items: read_items(questionnaire, list(questionnaire, "item"), (0, false), &mut left) };
        // What our editor wrote is answered by ticks.
        if template.written() != list(questionnaire, "item") || !template.has_lines() {
            tick_none(&mut template.items);
        }
        let known = template.clone();
        set_conditions(&mut template.items, list(questionnaire, "item"), &known);
        template
    }

    /// Whether the lines of our editor say all of it.
    pub fn is_ours(&self, questionnaire: &Value) -> bool {
        self.written() == list(questionnaire, "item") && self.has_lines()
    }

    fn has_lines(&self) -> bool {
        Template::parse(&self.text()).is_ok_and(|parsed| parsed.written() == self.written())
    }

    pub fn write(&self) -> Value {
        self.written().into()
    }

    fn written(&self) -> Vec<Value> {
        let ticked = |name: &str| self.find(name).is_some_and(|(item, _)| item.kind == Kind::Boolean);
        self.items.iter().map(|item| item.write(&ticked)).collect()
    }

    /// What a form of another system, whose template is not here, tells of its questions.
    pub fn of_response(response: &Value) -> Template {
        fn items(inside: &Value, depth: usize) -> Vec<Item> {
            let mut found: Vec<Item> = Vec::new();
            for one in list(inside, "item").iter().take(ITEMS_MAX).filter(|_| depth < DEPTH_MAX) {
                let id = text(one, "linkId");
                if let Some(before) = found.iter_mut().find(|item| item.id == id) {
                    before.repeats = true;
                    continue;
                }
                let group = one.get("answer").is_none();
                let words = if text(one, "text").is_empty() { id } else { text(one, "text") };
                let mut item = Item::new(id.to_owned(), words, if group { Kind::Group } else { Kind::Text });
                item.repeats = list(one, "answer").len() > 1;
                let below = list(one, "answer").first().filter(|_| !group).unwrap_or(one);
                item.items = items(below, depth + 1);
                found.push(item);
            }
            found
        }
        Template { items: items(response, 0) }
    }
}

fn tick_none(items: &mut [Item]) {
    for item in items {
        item.tick = false;
        tick_none(&mut item.items);
    }
}

/// Items at a depth; what stands in a hidden one is hidden.
fn read_items(questionnaire: &Value, items: &[Value], (depth, hidden): (usize, bool), left: &mut usize) -> Vec<Item> {
    let mut found = Vec::new();
    for body in items {
        if *left == 0 || depth >= DEPTH_MAX {
            break;
        }
        *left -= 1;
        let mut item = read_item(questionnaire, body);
        item.hidden |= hidden;
        item.items = read_items(questionnaire, list(body, "item"), (depth + 1, item.hidden), left);
        found.push(item);
    }
    // The editor's own conditions are part of what is compared with what it writes.
    found.iter_mut().zip(items).for_each(|(item, body)| item.conditions = plain_conditions(body));
    found
}

pub(super) fn read_item(questionnaire: &Value, body: &Value) -> Item {
    let kind = Kind::parse(text(body, "type")).unwrap_or(Kind::String);
    let mut item = Item::new(text(body, "linkId").to_owned(), text(body, "text"), kind);
    item.required = flag(body, "required");
    item.limits = Limits::read(body);
    item.any = text(body, "enableBehavior") == "any";
    item.options = options(questionnaire, body);
    let chosen = list(body, "answerOption").iter().filter(|option| flag(option, "initialSelected"));
    item.initial = list(body, "initial").iter().chain(chosen).filter_map(|one| typed_value(one, "value")).collect();
    for extension in list(body, "extension") {
        match text(extension, "url") {
            CALCULATED if extension.pointer("/valueExpression/language") == Some(&FORMULA.into()) => {
                let formula = extension.pointer("/valueExpression/expression").and_then(Value::as_str);
                item.calculation = formula.and_then(|f| Expression::parse(f).ok());
            }
            PREFILL => item.source = extension.get("valueCode").and_then(Value::as_str).map(str::to_owned),
            UNIT | UNIT_OPTION => {
                let coding = extension.get("valueCoding").unwrap_or(&Value::Null);
                let label =
                    if text(coding, "display").is_empty() { text(coding, "code") } else { text(coding, "display") };
                let (label, system) = (label.to_owned(), text(coding, "system").to_owned());
                item.units.push(Unit { label, system, code: text(coding, "code").to_owned() });
            }
            HIDDEN => item.hidden = flag(extension, "valueBoolean"),
            _ => {}
        }
    }
    let several = match kind {
        Kind::Boolean | Kind::Display => false,
        // One unit stands for all answers.
        Kind::Quantity => item.units.len() == 1,
        _ => true,
    };
    item.repeats = flag(body, "repeats") && several;
    // What is calculated is nobody's to change in any case.
    item.read_only = flag(body, "readOnly") && item.calculation.is_none();
    item
}

/// The answers to choose from: listed, or of a value set that the questionnaire contains.
pub(super) fn options(questionnaire: &Value, body: &Value) -> Vec<Choice> {
    let exclusive = |option: &Value| {
        list(option, "extension").iter().any(|one| text(one, "url") == EXCLUSIVE && flag(one, "valueBoolean"))
    };
    let listed =
        list(body, "answerOption").iter().filter_map(|option| Some((typed_value(option, "value")?, exclusive(option))));
    // What cannot be read whole offers nothing.
    let set = value_set::codings(questionnaire, text(body, "answerValueSet")).unwrap_or_default();
    let set = set.into_iter().map(|coding| (Map::from_iter([("valueCoding".to_owned(), coding)]), false));
    let values: Vec<(Map<String, Value>, bool)> = listed.chain(set).take(OPTIONS_MAX).collect();
    let shares = |code: &str| {
        let own =
            |value: &Map<String, Value>| value.get("valueCoding").is_some_and(|coding| text(coding, "code") == code);
        values.iter().filter(|(value, _)| own(value)).count() > 1
    };
    let choice = |(value, exclusive): &(Map<String, Value>, bool)| {
        let (key, label) = named(value.values().next()?, &shares);
        Some(Choice { key, label, value: value.clone().into(), exclusive: *exclusive })
    };
    values.iter().filter_map(choice).collect()
}

/// By what a form names an answer, and how it is shown; `shares` says which codes stand there more than once.
fn named(value: &Value, shares: &dyn Fn(&str) -> bool) -> (String, String) {
    match value {
        Value::String(word) => (word.clone(), word.clone()),
        Value::Number(number) => (number.to_string(), number.to_string()),
        coding => {
            let (system, own) = (text(coding, "system"), text(coding, "code"));
            let display = if text(coding, "display").is_empty() { own } else { text(coding, "display") };
            let key = match own {
                "" => display.to_owned(),
                own if shares(own) => format!("{system}|{own}"),
                own => own.to_owned(),
            };
            (key, display.to_owned())
        }
    }
}

/// The conditions whose answers are words.
fn plain_conditions(body: &Value) -> Vec<Condition> {
    let condition = |when: &Value| {
        let answer = match typed_value(when, "answer")?.into_iter().next()?.1 {
            Value::String(answer) => answer,
            Value::Bool(answer) => if answer { "yes" } else { "no" }.to_owned(),
            Value::Number(number) => number.to_string(),
            _ => return None,
        };
        let operator = Operator::parse(text(when, "operator"))?;
        Some(Condition { question: text(when, "question").to_owned(), operator, answer, unit: Unit::default() })
    };
    list(body, "enableWhen").iter().filter_map(condition).collect()
}

/// All conditions, their answers as the question that they ask has them.
fn set_conditions(items: &mut [Item], bodies: &[Value], template: &Template) {
    for (item, body) in items.iter_mut().zip(bodies) {
        let condition = |when: &Value| {
            let operator = Operator::parse(text(when, "operator"))?;
            let given = typed_value(when, "answer")?;
            let (question, _) = template.find(text(when, "question"))?;
            let unit = given.get("valueQuantity").map(Unit::of).unwrap_or_default();
            let answer = match (operator, question.kind) {
                (Operator::Exists, _) => {
                    if given.values().next()? == &Value::Bool(true) { "yes" } else { "no" }.to_owned()
                }
                // By the practice's clock, which is known when it is asked.
                (_, Kind::DateTime) => given.values().next()?.as_str()?.to_owned(),
                // Our editor writes number and unit as people do: 80 kg.
                (_, Kind::Quantity) if unit.label.is_empty() => {
                    let said = typed::typed(question, &given, chrono_tz::UTC).0;
                    let (number, unit) = said.trim().split_once(' ').unwrap_or((said.trim(), ""));
                    let (answer, unit) = (number.to_owned(), Unit::typed(unit));
                    return Some(Condition { question: question.id.clone(), operator, answer, unit });
                }
                _ => typed::typed(question, &given, chrono_tz::UTC).0,
            };
            Some(Condition { question: question.id.clone(), operator, answer, unit })
        };
        item.conditions = list(body, "enableWhen").iter().filter_map(condition).collect();
        set_conditions(&mut item.items, list(body, "item"), template);
    }
}

impl Item {
    /// As our editor writes it; `ticked` says which questions are answered by a tick.
    fn write(&self, ticked: &dyn Fn(&str) -> bool) -> Value {
        let mut body = json!({"linkId": self.id, "text": self.text, "type": self.kind.code()});
        if self.required {
            body["required"] = true.into();
        }
        if self.repeats {
            body["repeats"] = true.into();
        }
        if !self.options.is_empty() {
            body["answerOption"] = self.options.iter().map(|option| option.value.clone()).collect();
        }
        if let Some(c) = self.conditions.first() {
            let mut when = json!({"question": c.question, "operator": c.operator.code()});
            if ticked(&c.question) {
                when["answerBoolean"] = (c.answer == "yes").into();
            } else {
                when["answerString"] = c.told().into();
            }
            body["enableWhen"] = json!([when]);
        }
        let mut extensions = Vec::new();
        if let Some(calculation) = &self.calculation {
            extensions.push(
                json!({"url": CALCULATED, "valueExpression": {"language": FORMULA, "expression": calculation.text()}}),
            );
            body["readOnly"] = true.into();
        }
        if let Some(source) = &self.source {
            extensions.push(json!({"url": PREFILL, "valueCode": source}));
        }
        if !extensions.is_empty() {
            body["extension"] = extensions.into();
        }
        if !self.items.is_empty() {
            body["item"] = self.items.iter().map(|i| i.write(ticked)).collect();
        }
        body
    }
}
