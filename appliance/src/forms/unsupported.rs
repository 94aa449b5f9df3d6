//! Why a `Questionnaire` of another program cannot be filled in here: what is not asked rightly is not asked.

use super::limits::HL7;
use super::questionnaire::{
    CALCULATED, DEPTH_MAX, FORMULA, OPTIONS_MAX, flag, list, options, read_item, text, typed_value,
};
use super::template::{ITEMS_MAX, Item, Kind, Operator, Template, Unit};
use super::value_set;
use serde_json::Value;
use std::collections::BTreeSet;

const SDC: &str = "http://hl7.org/fhir/uv/sdc/StructureDefinition/sdc-questionnaire-";
/// Extensions that are expressions or rules of another language.
const EXPRESSIONS: [&str; 5] = [
    "calculatedExpression",
    "enableWhenExpression",
    "answerExpression",
    "answerOptionsToggleExpression",
    "targetConstraint",
];

impl Template {
    /// Why a `Questionnaire` cannot be filled in here; `None` where it can.
    pub fn unsupported(questionnaire: &Value) -> Option<String> {
        let mut names = BTreeSet::new();
        let items = list(questionnaire, "item");
        if items.is_empty() {
            return Some("It has no questions.".into());
        }
        if questionnaire.get("modifierExtension").is_some() || questionnaire.get("implicitRules").is_some() {
            return Some("It has a modifier that is not known here and may change what it means.".into());
        }
        if let Some(why) = rule(questionnaire) {
            return Some(format!("It {why}."));
        }
        if let Some(problem) = unsupported_items(questionnaire, items, 0, &mut names) {
            return Some(problem);
        }
        if names.len() > ITEMS_MAX {
            return Some(format!("It has more than {ITEMS_MAX} questions."));
        }
        unknown_question(items, &names).or_else(|| unit_elsewhere(items, &Template::read(questionnaire)))
    }
}

fn labelled(body: &Value, why: &str) -> String {
    let label = if text(body, "text").is_empty() { text(body, "linkId") } else { text(body, "text") };
    format!("“{}” {why}.", label.chars().take(80).collect::<String>())
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
        if let Some(why) = unsupported_item(questionnaire, body) {
            return Some(labelled(body, &why));
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
    let item = read_item(questionnaire, body);
    if flag(body, "repeats") && !item.repeats && known != Kind::Display {
        return Some(format!("may be answered several times; of type {kind} one answer can be given here"));
    }
    if item.repeats && known != Kind::Group && !list(body, "item").is_empty() {
        return Some("may be answered several times and has questions below it".into());
    }
    if known.is_choice()
        && let Some(why) = unknown_answers(questionnaire, body)
    {
        return Some(why);
    }
    if list(body, "enableWhen").iter().any(|when| when.get("answerReference").is_some()) {
        return Some("is asked by a reference".into());
    }
    let inside = ["enableWhen", "answerOption", "initial"].into_iter().flat_map(|name| list(body, name));
    if std::iter::once(body).chain(inside).any(|part| part.get("modifierExtension").is_some()) {
        return Some("has a modifier extension".into());
    }
    if !item.limits.can_be_kept(&item) {
        return Some("has a least or a most value to which its answers cannot be held here".into());
    }
    rule(body)
}

fn unknown_answers(questionnaire: &Value, body: &Value) -> Option<String> {
    let strange = |option: &Value| {
        let kind = typed_value(option, "value").and_then(|value| value.keys().next().cloned());
        !kind.is_some_and(|kind| matches!(kind.as_str(), "valueCoding" | "valueString" | "valueInteger" | "valueDate"))
    };
    if list(body, "answerOption").iter().any(strange) {
        return Some("offers answers other than codes, words, whole numbers and days".into());
    }
    if let Some(Err(why)) =
        body.get("answerValueSet").map(|set| value_set::codings(questionnaire, set.as_str().unwrap_or_default()))
    {
        return Some(why.into());
    }
    match options(questionnaire, body).len() {
        0 => Some("lists no answers: a value set must be contained in the questionnaire and list its codes".into()),
        OPTIONS_MAX.. => Some(format!("lists {OPTIONS_MAX} answers or more")),
        _ => None,
    }
}

/// A rule that an answer, or the whole form, must keep to and that is not understood here.
fn rule(body: &Value) -> Option<String> {
    list(body, "extension").iter().find_map(|extension| {
        let url = text(extension, "url");
        if let Some(name) = url.strip_prefix(SDC) {
            let ours = url == CALCULATED && extension.pointer("/valueExpression/language") == Some(&FORMULA.into());
            return match name {
                _ if EXPRESSIONS.contains(&name) && !ours => {
                    Some("is calculated, asked or checked by an expression of another language".into())
                }
                "minQuantity" | "maxQuantity" => {
                    Some("has a least or a most value to which its answers cannot be held here".into())
                }
                "subQuestionnaire" => Some("stands for another questionnaire".into()),
                _ => None,
            };
        }
        match url.strip_prefix(HL7)? {
            "questionnaire-constraint" => Some("is checked by an expression of another language".to_owned()),
            "regex" => Some("has a pattern (regex) to which its answers cannot be held here".to_owned()),
            "questionnaire-unitValueSet" => Some("takes its units from a value set".to_owned()),
            _ => None,
        }
    })
}

/// A condition that asks for what is not there, or in a way that is none.
fn unknown_question(items: &[Value], names: &BTreeSet<String>) -> Option<String> {
    for body in items {
        for when in list(body, "enableWhen") {
            if !names.contains(text(when, "question")) || Operator::parse(text(when, "operator")).is_none() {
                let (id, question) = (text(body, "linkId"), text(when, "question"));
                return Some(format!("“{id}” asks for “{question}”, which is no question."));
            }
        }
        if let Some(problem) = unknown_question(list(body, "item"), names) {
            return Some(problem);
        }
    }
    None
}

/// A condition on a quantity in a unit in which it cannot be answered: nothing would ever meet it.
fn unit_elsewhere(items: &[Value], template: &Template) -> Option<String> {
    for body in items {
        for when in list(body, "enableWhen") {
            let question = template.find(text(when, "question")).map(|(item, _)| item);
            let Some(question) = question.filter(|item| item.kind == Kind::Quantity) else { continue };
            if let Some(why) = strange_unit(when, question) {
                return Some(labelled(body, &format!("depends on “{}”{why}", question.text)));
            }
        }
        if let Some(problem) = unit_elsewhere(list(body, "item"), template) {
            return Some(problem);
        }
    }
    None
}

fn strange_unit(when: &Value, question: &Item) -> Option<String> {
    let (name, value) = typed_value(when, "answer")?.into_iter().next()?;
    let unit = match name.as_str() {
        "valueQuantity" => Unit::of(&value),
        "valueInteger" | "valueDecimal" => Unit::default(),
        // Whether there is an answer, and the words of our own editor.
        _ => return None,
    };
    match unit.label.as_str() {
        _ if question.units.is_empty() || question.units.iter().any(|own| own.is(&unit)) => None,
        "" => Some(" by a number without its unit".into()),
        label => Some(format!(" in {label}, a unit in which that cannot be answered")),
    }
}
