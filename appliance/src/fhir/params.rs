//! The search parameters, as a table: what the capability statement declares, the index holds and a search accepts.
//! `definitions/search.tsv` is drawn from R4's own definitions; `definitions/search.txt` names what is drawn.

use serde_json::Value;
use std::collections::HashMap;
use std::sync::LazyLock;

/// The table; its bytes decide whether an index was drawn by the same one.
pub const TABLE: &str = include_str!("../../definitions/search.tsv");

/// How a parameter's values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Token,
    String,
    Date,
    Quantity,
    Uri,
    Reference,
    /// A reference to a patient that is the resource's compartment: answered by the store's own column.
    Patient,
    /// As [`Form::Patient`], but the element may name something else than a patient, which the index holds.
    Subject,
}

impl Form {
    /// The word in a capability statement.
    pub fn as_str(self) -> &'static str {
        match self {
            Form::Token => "token",
            Form::String => "string",
            Form::Date => "date",
            Form::Quantity => "quantity",
            Form::Uri => "uri",
            Form::Reference | Form::Patient | Form::Subject => "reference",
        }
    }

    fn of(word: &str) -> Option<Form> {
        Some(match word {
            "token" => Form::Token,
            "string" => Form::String,
            "date" => Form::Date,
            "quantity" => Form::Quantity,
            "uri" => Form::Uri,
            "reference" => Form::Reference,
            "patient" => Form::Patient,
            "subject" => Form::Subject,
            _ => return None,
        })
    }

    /// Whether the values are references, so that the parameter can be chained and included.
    pub fn refers(self) -> bool {
        matches!(self, Form::Reference | Form::Patient | Form::Subject)
    }
}

/// One search parameter of one type.
#[derive(Debug)]
pub struct Param {
    pub kind: &'static str,
    pub name: &'static str,
    pub form: Form,
    /// Types that a reference may point to; `*` alone for any.
    pub targets: Vec<&'static str>,
    /// The system of every code of a token that is written without one; empty where codes bring theirs.
    pub system: &'static str,
    paths: Vec<Path>,
}

/// A path of element names below the resource.
#[derive(Debug)]
struct Path(Vec<Step>);

#[derive(Debug)]
struct Step {
    name: &'static str,
    /// Only elements that hold this: `telecom[system=phone]`.
    only: Option<(&'static str, &'static str)>,
}

static PARAMS: LazyLock<HashMap<&'static str, Vec<Param>>> = LazyLock::new(|| {
    let mut all = HashMap::<_, Vec<Param>>::new();
    for param in TABLE.lines().filter_map(Param::parse) {
        all.entry(param.kind).or_default().push(param);
    }
    all
});

/// The parameters of one type, by name.
pub fn of(kind: &str) -> &'static [Param] {
    PARAMS.get(kind).map_or(&[], Vec::as_slice)
}

/// The parameter of a type with this name.
pub fn find(kind: &str, name: &str) -> Option<&'static Param> {
    of(kind).iter().find(|param| param.name == name)
}

/// Every parameter, in the table's order.
pub fn all() -> impl Iterator<Item = &'static Param> {
    super::types::TYPES.iter().flat_map(|kind| of(kind))
}

impl Param {
    fn parse(line: &'static str) -> Option<Param> {
        let mut fields = line.split('\t');
        let (kind, name) = (fields.next()?, fields.next()?);
        let form = Form::of(fields.next()?)?;
        let targets = fields.next()?.split_whitespace().collect();
        let system = fields.next()?;
        let paths = fields.next()?.split_whitespace().map(Path::parse).collect::<Option<_>>()?;
        Some(Param { kind, name, form, targets, system, paths })
    }

    /// Whether a reference of this parameter may point to `kind`.
    pub fn points_to(&self, kind: &str) -> bool {
        self.targets.iter().any(|target| *target == "*" || *target == kind)
    }

    /// Every value of `body` that this parameter reads.
    pub fn visit<'v>(&self, body: &'v Value, found: &mut dyn FnMut(&'v Value)) {
        self.paths.iter().for_each(|path| visit(body, &path.0, found));
    }
}

impl Path {
    fn parse(text: &'static str) -> Option<Path> {
        let step = |step: &'static str| match step.split_once('[') {
            None => Some(Step { name: step, only: None }),
            Some((name, rest)) => Some(Step { name, only: Some(rest.strip_suffix(']')?.split_once('=')?) }),
        };
        text.split('.').map(step).collect::<Option<_>>().map(Path)
    }
}

fn visit<'v>(value: &'v Value, steps: &[Step], found: &mut dyn FnMut(&'v Value)) {
    if let Value::Array(items) = value {
        return items.iter().for_each(|item| visit(item, steps, found));
    }
    let Some((step, rest)) = steps.split_first() else { return found(value) };
    let Some(inner) = value.get(step.name) else { return };
    match (step.only, inner) {
        (None, inner) => visit(inner, rest, found),
        (Some(only), Value::Array(items)) => {
            items.iter().filter(|item| holds(item, only)).for_each(|item| visit(item, rest, found));
        }
        (Some(only), inner) if holds(inner, only) => visit(inner, rest, found),
        (Some(_), _) => {}
    }
}

fn holds(value: &Value, (name, wanted): (&str, &str)) -> bool {
    value.get(name).and_then(Value::as_str) == Some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_line_of_the_table_is_understood() {
        assert_eq!(TABLE.lines().count(), all().count());
        for param in all() {
            assert!(!param.paths.is_empty(), "{} {}", param.kind, param.name);
            assert_eq!(param.form.refers(), !param.targets.is_empty(), "{} {}", param.kind, param.name);
        }
    }

    #[test]
    fn a_path_reads_through_arrays_and_conditions() {
        let body = json!({ "telecom": [
            { "system": "phone", "value": "1" }, { "system": "email", "value": "2" }, { "system": "phone", "value": "3" },
        ]});
        let mut found = Vec::new();
        find("Patient", "phone").unwrap().visit(&body, &mut |value| found.push(value["value"].as_str().unwrap()));
        assert_eq!(found, ["1", "3"]);
    }
}
