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
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Lines of one template at most: a form of more is several forms.
const ITEMS_MAX: usize = 150;
const TEXT_CHARS_MAX: usize = 300;
const CALCULATED: &str = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-calculatedExpression";
const PREFILL: &str = "urn:holdfast:prefill";
const FORMULA: &str = "text/x-holdfast-arithmetic";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Group,
    Display,
    String,
    Text,
    Integer,
    Decimal,
    Date,
    Boolean,
    Choice,
}

impl Kind {
    const ALL: [(Kind, &'static str); 9] = [
        (Kind::Group, "group"),
        (Kind::Display, "display"),
        (Kind::String, "string"),
        (Kind::Text, "text"),
        (Kind::Integer, "integer"),
        (Kind::Decimal, "decimal"),
        (Kind::Date, "date"),
        (Kind::Boolean, "boolean"),
        (Kind::Choice, "choice"),
    ];

    pub fn code(self) -> &'static str {
        Kind::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, code)| code)
    }

    fn parse(code: &str) -> Option<Kind> {
        Kind::ALL.iter().find(|(_, c)| *c == code).map(|(kind, _)| *kind)
    }

    pub fn is_number(self) -> bool {
        matches!(self, Kind::Integer | Kind::Decimal)
    }
}

/// What a prefilled question takes from the chart.
pub const SOURCES: [&str; 9] =
    ["name", "birth-date", "age", "phone", "allergies", "problems", "medications", "weight", "height"];

/// Shown only where another question has, or has not, this answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    pub question: String,
    pub equal: bool,
    pub answer: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The name by which conditions and calculations speak of it.
    pub id: String,
    pub text: String,
    pub kind: Kind,
    pub options: Vec<String>,
    pub required: bool,
    /// Groups only.
    pub repeats: bool,
    pub condition: Option<Condition>,
    pub calculation: Option<Expression>,
    pub source: Option<String>,
    /// Groups only: one level.
    pub items: Vec<Item>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Template {
    pub items: Vec<Item>,
}

impl Item {
    fn new(id: String, text: &str, kind: Kind) -> Item {
        Item {
            id,
            text: text.trim().to_owned(),
            kind,
            options: Vec::new(),
            required: false,
            repeats: false,
            condition: None,
            calculation: None,
            source: None,
            items: Vec::new(),
        }
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
                format!("“{code}” is no kind of answer: string, text, integer, decimal, date, boolean or choice")
            })?;
        item.options = options.split(',').map(|o| o.trim().to_owned()).filter(|o| !o.is_empty()).collect();
        if (item.kind == Kind::Choice) != (item.options.len() >= 2) {
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
            self.condition = Some(Condition::parse(condition)?);
        } else {
            return Err(format!("“{part}” is not known: required, = calculation, from source, if name = answer"));
        }
        Ok(())
    }

    fn line(&self) -> String {
        if self.kind == Kind::Display {
            return format!("> {}", self.text);
        }
        let options = if self.options.is_empty() { String::new() } else { format!(": {}", self.options.join(", ")) };
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
        if let Some(c) = &self.condition {
            line.push_str(&format!(" | if {} {} {}", c.question, if c.equal { "=" } else { "!=" }, c.answer));
        }
        line
    }

    /// `ticked` says which questions are answered by a tick.
    fn write(&self, ticked: &dyn Fn(&str) -> bool) -> Value {
        let mut body = json!({"linkId": self.id, "text": self.text, "type": self.kind.code()});
        if self.required {
            body["required"] = true.into();
        }
        if self.repeats {
            body["repeats"] = true.into();
        }
        if !self.options.is_empty() {
            body["answerOption"] = self.options.iter().map(|o| json!({"valueString": o})).collect();
        }
        if let Some(c) = &self.condition {
            let mut when = json!({"question": c.question, "operator": if c.equal { "=" } else { "!=" }});
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

    /// An item of any program's `Questionnaire`: what is not understood becomes text.
    fn read(body: &Value) -> Item {
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
        let list = |name: &str| body.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let mut item =
            Item::new(text("linkId").to_owned(), text("text"), Kind::parse(text("type")).unwrap_or(Kind::String));
        item.required = body.get("required") == Some(&Value::Bool(true));
        item.repeats = body.get("repeats") == Some(&Value::Bool(true)) && item.kind == Kind::Group;
        item.options = list("answerOption")
            .iter()
            .filter_map(|o| o.get("valueString").or_else(|| o.pointer("/valueCoding/display"))?.as_str())
            .map(str::to_owned)
            .collect();
        item.condition = list("enableWhen").first().and_then(|when| {
            let answer = match (when.get("answerString"), when.get("answerBoolean")) {
                (Some(Value::String(answer)), _) => answer.clone(),
                (_, Some(Value::Bool(answer))) => {
                    if *answer {
                        "yes".into()
                    } else {
                        "no".into()
                    }
                }
                _ => return None,
            };
            let question = when.get("question")?.as_str()?.to_owned();
            Some(Condition { question, equal: when.get("operator").and_then(Value::as_str) != Some("!="), answer })
        });
        for extension in list("extension") {
            match extension.get("url").and_then(Value::as_str) {
                Some(CALCULATED) if extension.pointer("/valueExpression/language") == Some(&FORMULA.into()) => {
                    let formula = extension.pointer("/valueExpression/expression").and_then(Value::as_str);
                    item.calculation = formula.and_then(|f| Expression::parse(f).ok());
                }
                Some(PREFILL) => item.source = extension.get("valueCode").and_then(Value::as_str).map(str::to_owned),
                _ => {}
            }
        }
        if item.kind == Kind::Group {
            item.items = list("item").iter().map(Item::read).collect();
        }
        item
    }
}

impl Condition {
    fn parse(text: &str) -> Result<Condition, String> {
        let (sides, equal) = match text.split_once("!=") {
            Some(sides) => (sides, false),
            None => (text.split_once('=').ok_or("write a condition as: if name = answer")?, true),
        };
        Ok(Condition { question: sides.0.trim().to_owned(), equal, answer: sides.1.trim().to_owned() })
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
            if let Some(condition) = &item.condition {
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
        let below = |item: &Item| matches!(item.kind, Kind::Group);
        let mut found = Vec::new();
        for item in &self.items {
            if below(item) {
                found.extend(
                    item.items
                        .iter()
                        .filter(|i| !matches!(i.kind, Kind::Display | Kind::Group))
                        .map(|i| (i, item.repeats)),
                );
            } else if item.kind != Kind::Display {
                found.push((item, false));
            }
        }
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

    pub fn write(&self) -> Value {
        let ticked = |name: &str| self.questions().iter().any(|(i, _)| i.id == name && i.kind == Kind::Boolean);
        self.items.iter().map(|item| item.write(&ticked)).collect()
    }

    pub fn read(questionnaire: &Value) -> Template {
        let items = questionnaire.get("item").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        Template { items: items.iter().take(ITEMS_MAX).map(Item::read).collect() }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

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
