//! A template as its author writes it, and as FHIR keeps it.
//!
//! ```text
//! ## Vital signs
//! > Measured after five minutes of rest.
//! weight: Weight in kg | decimal | required | from weight
//! height: Height in cm | decimal
//! bmi: Body mass index | decimal | = weight / (height / 100) ^ 2
//! ## Habits
//! smoker: Do you smoke? | choice: yes, no, former
//! pack: Pack years | integer | if smoker = yes
//! ## Operations (repeats)
//! what: Operation | string
//! year: Year | integer
//! ```

use super::expression::Expression;
use super::limits::Limits;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Lines of one template at most: a form of more is several forms.
pub(super) const ITEMS_MAX: usize = 150;
const TEXT_CHARS_MAX: usize = 300;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Group,
    Display,
    String,
    Text,
    Integer,
    Decimal,
    Date,
    DateTime,
    Time,
    Boolean,
    Url,
    Choice,
    OpenChoice,
    Quantity,
}

impl Kind {
    const ALL: [(Kind, &'static str); 14] = [
        (Kind::Group, "group"),
        (Kind::Display, "display"),
        (Kind::String, "string"),
        (Kind::Text, "text"),
        (Kind::Integer, "integer"),
        (Kind::Decimal, "decimal"),
        (Kind::Date, "date"),
        (Kind::DateTime, "dateTime"),
        (Kind::Time, "time"),
        (Kind::Boolean, "boolean"),
        (Kind::Url, "url"),
        (Kind::Choice, "choice"),
        (Kind::OpenChoice, "open-choice"),
        (Kind::Quantity, "quantity"),
    ];

    pub fn code(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, code)| code)
    }

    pub(super) fn parse(code: &str) -> Option<Kind> {
        Kind::ALL.iter().find(|(_, c)| *c == code).map(|(kind, _)| *kind)
    }

    pub fn is_number(self) -> bool {
        matches!(self, Kind::Integer | Kind::Decimal)
    }

    pub fn is_choice(self) -> bool {
        matches!(self, Kind::Choice | Kind::OpenChoice)
    }
}

/// What a prefilled question takes from the chart.
pub const SOURCES: [&str; 9] =
    ["name", "birth-date", "age", "phone", "allergies", "problems", "medications", "weight", "height"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Exists,
    Equal,
    NotEqual,
    Greater,
    Less,
    NotLess,
    NotGreater,
}

impl Operator {
    const ALL: [(Operator, &'static str); 7] = [
        (Operator::Exists, "exists"),
        (Operator::Equal, "="),
        (Operator::NotEqual, "!="),
        (Operator::Greater, ">"),
        (Operator::Less, "<"),
        (Operator::NotLess, ">="),
        (Operator::NotGreater, "<="),
    ];

    pub fn code(self) -> &'static str {
        Operator::ALL.iter().find(|(operator, _)| *operator == self).map_or("", |(_, code)| code)
    }

    pub(super) fn parse(code: &str) -> Option<Operator> {
        Operator::ALL.iter().find(|(_, c)| *c == code).map(|(operator, _)| *operator)
    }
}

/// Asked only where another question has such an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub question: String,
    pub operator: Operator,
    /// As it would be typed; a moment as FHIR says it.
    pub answer: String,
    /// Of a quantity.
    pub unit: Unit,
}

/// An answer to choose.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice {
    /// By what a form names it.
    pub key: String,
    pub label: String,
    /// The element that is stored, such as `{"valueCoding": ...}`.
    pub value: Value,
    /// Whoever chooses it chooses nothing beside it.
    pub exclusive: bool,
}

impl Choice {
    pub(super) fn word(word: &str) -> Choice {
        let value = serde_json::json!({"valueString": word});
        Choice { key: word.to_owned(), label: word.to_owned(), value, exclusive: false }
    }

    /// Whether a stored answer is this one: of a coding, system and code tell it.
    pub fn is(&self, name: &str, value: &Value) -> bool {
        let Some(own) = self.value.get(name) else { return false };
        match (own, value) {
            (Value::Object(own), Value::Object(other)) => {
                ["system", "code"].into_iter().all(|part| own.get(part) == other.get(part))
                    && (own.contains_key("code") || own.get("display") == other.get("display"))
            }
            (own, other) => own == other,
        }
    }
}

/// A unit of a quantity; without a label it is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unit {
    pub label: String,
    pub system: String,
    pub code: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The name by which conditions and calculations speak of it.
    pub id: String,
    pub text: String,
    pub kind: Kind,
    pub options: Vec<Choice>,
    /// Of a quantity: one is fixed, several are chosen from, none is typed.
    pub units: Vec<Unit>,
    pub required: bool,
    pub read_only: bool,
    /// Shown to nobody, with all that stands in it: its answers stay what they were at the beginning.
    pub hidden: bool,
    pub limits: Limits,
    /// Of groups, and of questions with several answers.
    pub repeats: bool,
    pub conditions: Vec<Condition>,
    /// Whether one condition is enough.
    pub any: bool,
    /// Answered by a tick, which says no by its absence; otherwise yes and no are chosen.
    pub tick: bool,
    pub initial: Vec<Map<String, Value>>,
    pub calculation: Option<Expression>,
    pub source: Option<String>,
    /// Below a question they are asked once it is answered.
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Template {
    pub items: Vec<Item>,
}

impl Item {
    pub(super) fn new(id: String, text: &str, kind: Kind) -> Item {
        Item {
            id,
            text: text.trim().to_owned(),
            kind,
            options: Vec::new(),
            units: Vec::new(),
            required: false,
            read_only: false,
            hidden: false,
            limits: Limits::default(),
            repeats: false,
            conditions: Vec::new(),
            any: false,
            tick: kind == Kind::Boolean,
            initial: Vec::new(),
            calculation: None,
            source: None,
            items: Vec::new(),
        }
    }

    /// The unit that an answer's own words name.
    pub fn unit(&self, said: &str) -> Unit {
        match self.units.as_slice() {
            [only] => only.clone(),
            units => units.iter().find(|unit| unit.key() == said).cloned().unwrap_or_else(|| Unit::typed(said)),
        }
    }

    /// Whether nobody changes its answers here.
    pub fn is_fixed(&self) -> bool {
        self.read_only || self.hidden
    }

    /// The answer that a form names, or that somebody typed as it is shown.
    pub fn option(&self, said: &str) -> Option<&Choice> {
        let named = self.options.iter().find(|option| option.key == said);
        named.or_else(|| self.options.iter().find(|option| self.kind == Kind::OpenChoice && option.label == said))
    }

    /// `id: Label | kind | ...`
    fn parse(line: &str) -> Result<Item, String> {
        let mut parts = line.split('|').map(str::trim);
        let head = parts.next().unwrap_or_default();
        let (id, text) = head.split_once(':').ok_or("write it as name: Question | kind")?;
        let (id, text) = (id.trim(), text.trim());
        let plain = id.starts_with(|c: char| c.is_ascii_lowercase())
            && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !plain || id.len() > 40 {
            return Err("the name before the colon has small letters, digits and hyphens only".into());
        }
        if text.is_empty() {
            return Err("the question after the colon is missing".into());
        }
        let mut item = Item::new(id.to_owned(), text, Kind::String);
        let kind = parts.next().unwrap_or("string");
        let (code, options) = kind.split_once(':').unwrap_or((kind, ""));
        item.kind =
            Kind::parse(code.trim()).filter(|k| !matches!(k, Kind::Group | Kind::Display)).ok_or_else(|| {
                format!(
                    "“{code}” is no kind of answer: string, text, integer, decimal, quantity, date, dateTime, time, boolean, url, choice or \
                     open-choice"
                )
            })?;
        item.tick = item.kind == Kind::Boolean;
        item.options = options.split(',').map(str::trim).filter(|o| !o.is_empty()).map(Choice::word).collect();
        if item.kind.is_choice() != (item.options.len() >= 2) {
            return Err("a choice lists at least two answers, as in choice: yes, no".into());
        }
        for part in parts.filter(|p| !p.is_empty()) {
            item.add(part)?;
        }
        Ok(item)
    }

    fn add(&mut self, part: &str) -> Result<(), String> {
        if part == "required" {
            self.required = true;
        } else if let Some(formula) = part.strip_prefix('=') {
            if !self.kind.is_number() {
                return Err("only a decimal or an integer is calculated".into());
            }
            self.calculation = Some(Expression::parse(formula)?);
        } else if let Some(source) = part.strip_prefix("from ").map(str::trim) {
            if !SOURCES.contains(&source) {
                return Err(format!("“from {source}” is not known: {}", SOURCES.join(", ")));
            }
            self.source = Some(source.to_owned());
        } else if let Some(condition) = part.strip_prefix("if ") {
            self.conditions = vec![Condition::parse(condition)?];
        } else {
            return Err(format!("“{part}” is not known: required, = calculation, from source, if name = answer"));
        }
        Ok(())
    }

    fn line(&self) -> String {
        if self.kind == Kind::Display {
            return format!("> {}", self.text);
        }
        let words: Vec<&str> = self.options.iter().map(|option| option.label.as_str()).collect();
        let options = if words.is_empty() { String::new() } else { format!(": {}", words.join(", ")) };
        let mut line = format!("{}: {} | {}{options}", self.id, self.text, self.kind.code());
        if self.required {
            line.push_str(" | required");
        }
        if let Some(calculation) = &self.calculation {
            line.push_str(&format!(" | = {}", calculation.text()));
        }
        if let Some(source) = &self.source {
            line.push_str(&format!(" | from {source}"));
        }
        if let Some(c) = self.conditions.first() {
            line.push_str(&format!(" | if {} {} {}", c.question, c.operator.code(), c.told()));
        }
        line
    }
}

impl Condition {
    /// Its answer as our editor writes it.
    pub(super) fn told(&self) -> String {
        if self.unit.label.is_empty() { self.answer.clone() } else { format!("{} {}", self.answer, self.unit.label) }
    }

    fn parse(text: &str) -> Result<Condition, String> {
        let (sides, operator) = match text.split_once("!=") {
            Some(sides) => (sides, Operator::NotEqual),
            None => (text.split_once('=').ok_or("write a condition as: if name = answer")?, Operator::Equal),
        };
        let (question, answer) = (sides.0.trim().to_owned(), sides.1.trim().to_owned());
        Ok(Condition { question, operator, answer, unit: Unit::default() })
    }
}

impl Template {
    /// # Errors
    /// What is wrong, with the number of the line.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut template = Template::default();
        let mut group: Option<Item> = None;
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            let at = |problem: String| format!("Line {number}: {problem}.");
            if line.chars().count() > TEXT_CHARS_MAX {
                return Err(at(format!("a line has at most {TEXT_CHARS_MAX} characters")));
            }
            if number > ITEMS_MAX {
                return Err(at(format!("a template has at most {ITEMS_MAX} lines")));
            }
            if line.is_empty() {
                continue;
            }
            if let Some(title) = line.strip_prefix("##") {
                template.items.extend(group.take());
                let repeats = title.trim_end().strip_suffix("(repeats)");
                let mut item = Item::new(format!("section-{number}"), repeats.unwrap_or(title), Kind::Group);
                item.repeats = repeats.is_some();
                group = Some(item);
                continue;
            }
            let item = match line.strip_prefix('>') {
                Some(words) => Item::new(format!("note-{number}"), words, Kind::Display),
                None => Item::parse(line).map_err(at)?,
            };
            match &mut group {
                Some(group) => group.items.push(item),
                None => template.items.push(item),
            }
        }
        template.items.extend(group);
        template.check()?;
        Ok(template)
    }

    /// Names are there once, and what conditions and calculations speak of exists.
    fn check(&self) -> Result<(), String> {
        let mut names = BTreeSet::new();
        let questions: Vec<(&Item, bool)> = self.questions();
        for (item, _) in &questions {
            if !names.insert(item.id.as_str()) {
                return Err(format!("The name “{}” is used twice.", item.id));
            }
        }
        if names.is_empty() {
            return Err("Write at least one question.".into());
        }
        let find = |name: &str| questions.iter().find(|(item, _)| item.id == name);
        for (item, _) in &questions {
            for condition in &item.conditions {
                match find(&condition.question) {
                    None => {
                        return Err(format!("“{}” asks for “{}”, which is no question.", item.id, condition.question));
                    }
                    Some((_, true)) => {
                        return Err(format!(
                            "“{}” stands in a section that repeats; no condition can ask for it.",
                            condition.question
                        ));
                    }
                    Some(_) => {}
                }
            }
            for name in item.calculation.iter().flat_map(Expression::names) {
                let usable = find(name)
                    .is_some_and(|(used, repeated)| used.kind.is_number() && !repeated && used.calculation.is_none());
                if !usable {
                    return Err(format!(
                        "“{}” calculates with “{name}”, which is no number that somebody enters once.",
                        item.id
                    ));
                }
            }
        }
        Ok(())
    }

    /// All questions, each with whether it stands in a section that repeats.
    pub fn questions(&self) -> Vec<(&Item, bool)> {
        fn below<'t>(items: &'t [Item], repeated: bool, found: &mut Vec<(&'t Item, bool)>) {
            for item in items {
                if !matches!(item.kind, Kind::Group | Kind::Display) {
                    found.push((item, repeated));
                }
                below(&item.items, repeated || item.kind == Kind::Group && item.repeats, found);
            }
        }
        let mut found = Vec::new();
        below(&self.items, false, &mut found);
        found
    }

    /// An item by its name, with the sections around it that repeat, from the outside.
    pub fn find(&self, id: &str) -> Option<(&Item, Vec<&str>)> {
        fn below<'t>(items: &'t [Item], id: &str, around: &mut Vec<&'t str>) -> Option<&'t Item> {
            for item in items {
                if item.id == id {
                    return Some(item);
                }
                let repeats = item.kind == Kind::Group && item.repeats;
                around.extend(repeats.then_some(item.id.as_str()));
                if let Some(found) = below(&item.items, id, around) {
                    return Some(found);
                }
                around.truncate(around.len() - usize::from(repeats));
            }
            None
        }
        let mut around = Vec::new();
        below(&self.items, id, &mut around).map(|item| (item, around))
    }

    /// Says where a quantity is compared with a number alone: which unit is meant, nobody knows.
    pub fn unit_missing(&self) -> Option<String> {
        self.questions().into_iter().find_map(|(item, _)| {
            let bare = |c: &&Condition| {
                let asked = self.find(&c.question).is_some_and(|(question, _)| question.kind == Kind::Quantity);
                asked && !c.answer.contains(' ')
            };
            let c = item.conditions.iter().find(bare)?;
            let (id, question, sign, answer) = (&item.id, &c.question, c.operator.code(), &c.answer);
            Some(format!(
                "“{id}” compares a quantity with a number alone; write its unit too: if {question} {sign} {answer} kg."
            ))
        })
    }

    /// The units in which conditions speak of a quantity.
    pub fn counted_in(&self, question: &Item) -> Vec<String> {
        fn below(items: &[Item], question: &str, found: &mut Vec<String>) {
            for item in items {
                let own = item.conditions.iter().filter(|c| c.question == question && c.operator != Operator::Exists);
                found.extend(own.map(|c| c.unit.label.clone()).filter(|label| !label.is_empty()));
                below(&item.items, question, found);
            }
        }
        let mut found = Vec::new();
        below(&self.items, &question.id, &mut found);
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The text from which [`Template::parse`] makes it again.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for item in &self.items {
            if item.kind == Kind::Group {
                lines.push(format!("## {}{}", item.text, if item.repeats { " (repeats)" } else { "" }));
                lines.extend(item.items.iter().map(Item::line));
            } else {
                lines.push(item.line());
            }
        }
        lines.join("\n") + "\n"
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    pub const TEXT: &str = "## Vital signs\n> Measured after five minutes of rest.\n\
        weight: Weight in kg | decimal | required | from weight\nheight: Height in cm | decimal\n\
        bmi: Body mass index | decimal | = weight / (height / 100) ^ 2\n## Habits\n\
        smoker: Do you smoke? | choice: yes, no, former\npack: Pack years | integer | if smoker = yes\n\
        ## Operations (repeats)\nwhat: Operation | string\nyear: Year | integer\n";

    #[test]
    fn text_and_questionnaire_are_two_forms_of_one_thing() {
        let template = Template::parse(TEXT).unwrap();
        assert_eq!(template.text(), TEXT);
        let read = Template::read(&json!({"resourceType": "Questionnaire", "item": template.write()}));
        assert_eq!(read, template);
        assert_eq!(template.questions().len(), 7);
    }

    #[test]
    fn says_what_is_wrong_and_where() {
        for (bad, words) in [
            ("what", "Line 1"),
            ("ok: Fine\nA: Not fine | string", "Line 2"),
            ("a: A | colour", "no kind of answer"),
            ("a: A | choice: one", "at least two"),
            ("a: A\na: B", "used twice"),
            ("a: A | string | if b = yes", "no question"),
            ("a: A | decimal | = b * 2", "calculates with"),
            ("a: A | string | = 1 + 1", "only a decimal"),
            ("a: A | string | from moon", "not known"),
            ("## Only a title", "at least one question"),
            ("## R (repeats)\nx: X | integer\n## S\ny: Y | string | if x = 1", "repeats"),
        ] {
            let told = Template::parse(bad).unwrap_err();
            assert!(told.contains(words), "{bad}: {told}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_understood_or_refused(text in "([a-z#>:|=, ()!]{0,20}\n){0,6}") {
            if let Ok(template) = Template::parse(&text) {
                prop_assert_eq!(Template::parse(&template.text()).map(|t| t.questions().len()), Ok(template.questions().len()));
            }
        }
    }
}
