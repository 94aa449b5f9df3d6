//! A template as a FHIR `Questionnaire`: the one that our editor writes, and those of other programs as far as they can be asked here.

use super::expression::Expression;
use super::template::{Choice, Condition, ITEMS_MAX, Item, Kind, Operator, Template, Unit};
use super::typed;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const SDC: &str = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-";
const CALCULATED: &str = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-calculatedExpression";
const PREFILL: &str = "urn:holdfast:prefill";
const FORMULA: &str = "text/x-holdfast-arithmetic";
const UNIT: &str = "http://hl7.org/fhir/StructureDefinition/questionnaire-unit";
const UNIT_OPTION: &str = "http://hl7.org/fhir/StructureDefinition/questionnaire-unitOption";
/// Sections inside of sections, and questions below questions.
const DEPTH_MAX: usize = 8;
/// Answers to choose from at most.
const OPTIONS_MAX: usize = 200;

fn text<'v>(body: &'v Value, name: &str) -> &'v str {
    body.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'v>(body: &'v Value, name: &str) -> &'v [Value] {
    body.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn flag(body: &Value, name: &str) -> bool {
    body.get(name) == Some(&Value::Bool(true))
}

/// The `value[x]` or `answer[x]` of an element, under the name of an answer.
fn typed_value(body: &Value, prefix: &str) -> Option<Map<String, Value>> {
    let (name, value) = body.as_object()?.iter().find(|(name, _)| name.starts_with(prefix))?;
    let kind = name.strip_prefix(prefix)?;
    Some(Map::from_iter([(format!("value{kind}"), value.clone())]))
}

impl Template {
    /// A `Questionnaire` as far as it can be asked; whether that is all of it, [`Template::unsupported`] says.
    pub fn read(questionnaire: &Value) -> Template {
        let mut left = ITEMS_MAX;
        let mut template = Template { items: read_items(questionnaire, list(questionnaire, "item"), 0, &mut left) };
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

    /// Why a `Questionnaire` cannot be filled in here; `None` where it can.
    pub fn unsupported(questionnaire: &Value) -> Option<String> {
        let mut names = BTreeSet::new();
        let items = list(questionnaire, "item");
        if items.is_empty() {
            return Some("It has no questions.".into());
        }
        if let Some(problem) = unsupported_items(questionnaire, items, 0, &mut names) {
            return Some(problem);
        }
        if names.len() > ITEMS_MAX {
            return Some(format!("It has more than {ITEMS_MAX} questions."));
        }
        unknown_question(items, &names)
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

fn read_items(questionnaire: &Value, items: &[Value], depth: usize, left: &mut usize) -> Vec<Item> {
    let mut found = Vec::new();
    for body in items {
        if *left == 0 || depth >= DEPTH_MAX {
            break;
        }
        *left -= 1;
        let mut item = read_item(questionnaire, body);
        item.items = read_items(questionnaire, list(body, "item"), depth + 1, left);
        found.push(item);
    }
    // The editor's own conditions are part of what is compared with what it writes.
    found.iter_mut().zip(items).for_each(|(item, body)| item.conditions = plain_conditions(body));
    found
}

fn read_item(questionnaire: &Value, body: &Value) -> Item {
    let kind = Kind::parse(text(body, "type")).unwrap_or(Kind::String);
    let mut item = Item::new(text(body, "linkId").to_owned(), text(body, "text"), kind);
    item.required = flag(body, "required");
    item.length_max = body.get("maxLength").and_then(Value::as_u64).and_then(|most| usize::try_from(most).ok());
    item.repeats = flag(body, "repeats") && (kind == Kind::Group || kind.is_choice());
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
            _ => {}
        }
    }
    // What is calculated is nobody's to change in any case.
    item.read_only = flag(body, "readOnly") && item.calculation.is_none();
    item
}

/// The answers to choose from: listed, or of a value set that the questionnaire contains.
fn options(questionnaire: &Value, body: &Value) -> Vec<Choice> {
    let listed = list(body, "answerOption").iter().filter_map(|option| typed_value(option, "value"));
    let values: Vec<Map<String, Value>> =
        listed.chain(contained(questionnaire, text(body, "answerValueSet"))).take(OPTIONS_MAX).collect();
    let code = |value: &Map<String, Value>| value.get("valueCoding").map(|coding| text(coding, "code").to_owned());
    let choice = |value: &Map<String, Value>| {
        let (key, label) = match value.values().next()? {
            Value::String(word) => (word.clone(), word.clone()),
            Value::Number(number) => (number.to_string(), number.to_string()),
            coding => {
                let (system, own) = (text(coding, "system"), text(coding, "code"));
                let shared = values.iter().filter(|other| code(other).as_deref() == Some(own)).count() > 1;
                let display = if text(coding, "display").is_empty() { own } else { text(coding, "display") };
                let key = if own.is_empty() {
                    display.to_owned()
                } else if shared {
                    format!("{system}|{own}")
                } else {
                    own.to_owned()
                };
                (key, display.to_owned())
            }
        };
        Some(Choice { key, label, value: value.clone().into() })
    };
    values.iter().filter_map(choice).collect()
}

fn contained<'v>(questionnaire: &'v Value, asked: &str) -> impl Iterator<Item = Map<String, Value>> + use<'v> {
    let id = asked.strip_prefix('#').filter(|id| !id.is_empty()).unwrap_or("\n").to_owned();
    let sets = list(questionnaire, "contained")
        .iter()
        .filter(move |one| text(one, "id") == id && text(one, "resourceType") == "ValueSet");
    let codings = sets.flat_map(|set| {
        let included = set.pointer("/compose/include").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let composed =
            included.iter().flat_map(|one| list(one, "concept").iter().map(move |c| (text(one, "system"), c)));
        let expanded = set.pointer("/expansion/contains").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        // What was expanded is what the set holds; without that, what it lists.
        let expanded: Vec<(&str, &Value)> = expanded.iter().map(|c| (text(c, "system"), c)).collect();
        if expanded.is_empty() { composed.collect() } else { expanded }
    });
    codings.map(|(system, concept)| {
        let parts = [("system", system), ("code", text(concept, "code")), ("display", text(concept, "display"))];
        let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
        let coding: Map<String, Value> = parts.map(|(name, text)| (name.to_owned(), text.into())).collect();
        Map::from_iter([("valueCoding".to_owned(), coding.into())])
    })
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
        Some(Condition { question: text(when, "question").to_owned(), operator, answer })
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
            let answer = match (operator, question.kind) {
                (Operator::Exists, _) => {
                    if given.values().next()? == &Value::Bool(true) { "yes" } else { "no" }.to_owned()
                }
                // By the practice's clock, which is known when it is asked.
                (_, Kind::DateTime) => given.values().next()?.as_str()?.to_owned(),
                _ => typed::typed(question, &given, chrono_tz::UTC).0,
            };
            Some(Condition { question: question.id.clone(), operator, answer })
        };
        item.conditions = list(body, "enableWhen").iter().filter_map(condition).collect();
        set_conditions(&mut item.items, list(body, "item"), template);
    }
}

fn unsupported_items(
    questionnaire: &Value,
    items: &[Value],
    depth: usize,
    names: &mut BTreeSet<String>,
) -> Option<String> {
    if depth >= DEPTH_MAX {
        return Some(format!("Its sections are nested more than {DEPTH_MAX} deep."));
    }
    for body in items {
        let label = if text(body, "text").is_empty() { text(body, "linkId") } else { text(body, "text") };
        if let Some(why) = unsupported_item(questionnaire, body) {
            return Some(format!("“{}” {why}.", label.chars().take(80).collect::<String>()));
        }
        if !names.insert(text(body, "linkId").to_owned()) {
            return Some(format!("The linkId “{}” is there twice.", text(body, "linkId")));
        }
        if let Some(problem) = unsupported_items(questionnaire, list(body, "item"), depth + 1, names) {
            return Some(problem);
        }
    }
    None
}

fn unsupported_item(questionnaire: &Value, body: &Value) -> Option<String> {
    let kind = text(body, "type");
    let Some(known) = Kind::parse(kind) else {
        return Some(format!("asks for an answer of type {kind}, which cannot be given here"));
    };
    if text(body, "linkId").is_empty() {
        return Some("has no linkId".into());
    }
    if flag(body, "repeats") && known != Kind::Group && !known.is_choice() {
        return Some(format!("may be answered several times; of type {kind} one answer can be given here"));
    }
    if flag(body, "repeats") && known != Kind::Group && !list(body, "item").is_empty() {
        return Some("may be answered several times and has questions below it".into());
    }
    if known.is_choice() {
        let strange = |option: &Value| {
            let kind = typed_value(option, "value").and_then(|value| value.keys().next().cloned());
            !kind.is_some_and(|kind| {
                matches!(kind.as_str(), "valueCoding" | "valueString" | "valueInteger" | "valueDate")
            })
        };
        if list(body, "answerOption").iter().any(strange) {
            return Some("offers answers other than codes, words, whole numbers and days".into());
        }
        match options(questionnaire, body).len() {
            0 => {
                return Some(
                    "lists no answers: a value set must be contained in the questionnaire and list its codes".into(),
                );
            }
            OPTIONS_MAX.. => return Some(format!("lists {OPTIONS_MAX} answers or more")),
            _ => {}
        }
    }
    if list(body, "enableWhen").iter().any(|when| when.get("answerReference").is_some()) {
        return Some("is asked by a reference".into());
    }
    if body.get("modifierExtension").is_some() {
        return Some("has a modifier extension".into());
    }
    let foreign = list(body, "extension").iter().find(|extension| {
        let url = text(extension, "url");
        let ours = url == CALCULATED && extension.pointer("/valueExpression/language") == Some(&FORMULA.into());
        let calculates = ["calculatedExpression", "enableWhenExpression", "answerExpression"]
            .iter()
            .any(|end| url == format!("{SDC}{end}"));
        calculates && !ours
    });
    foreign.map(|_| "is calculated or asked by an expression of another language".into())
}

/// A condition that asks for what is not there, or in a way that is none.
fn unknown_question(items: &[Value], names: &BTreeSet<String>) -> Option<String> {
    for body in items {
        for when in list(body, "enableWhen") {
            if !names.contains(text(when, "question")) || Operator::parse(text(when, "operator")).is_none() {
                return Some(format!(
                    "“{}” asks for “{}”, which is no question.",
                    text(body, "linkId"),
                    text(when, "question")
                ));
            }
        }
        if let Some(problem) = unknown_question(list(body, "item"), names) {
            return Some(problem);
        }
    }
    None
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
                when["answerString"] = c.answer.as_str().into();
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
