//! R4's definitions of its types, as a table drawn by `definitions/generate.py`: which elements a type has, how many, of
//! which types, with which codes, and which of them make a summary.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

const ELEMENTS: &str = include_str!("../../definitions/elements.tsv");
const CODES: &str = include_str!("../../definitions/codes.tsv");

/// One element of a type.
#[derive(Debug)]
pub struct Element {
    /// `value[x]` for a choice of types.
    pub name: &'static str,
    pub required: bool,
    pub many: bool,
    /// Part of a summary.
    pub summary: bool,
    /// Changes the meaning of what is around it.
    pub modifier: bool,
    /// Words of types divided by `|`, such as `Reference(Patient Group)|CodeableConcept`.
    pub types: &'static str,
    /// Name of the value set that a code must be from; empty for any.
    pub codes: &'static str,
}

/// A resource type, a data type, or an element with elements of its own (`Patient.contact`).
#[derive(Debug, Default)]
pub struct Type {
    pub elements: Vec<Element>,
    /// JSON name to the element's place and the type word that the name means.
    fields: HashMap<String, (usize, &'static str)>,
}

static TYPES: LazyLock<HashMap<&'static str, Type>> = LazyLock::new(|| {
    let mut types = HashMap::<&'static str, Type>::new();
    let mut current = "";
    for line in ELEMENTS.lines() {
        match line.strip_prefix('\t') {
            None => {
                current = line;
                types.entry(line).or_default();
            }
            Some(line) => {
                if let (Some(kind), Some(element)) = (types.get_mut(current), Element::parse(line)) {
                    kind.add(element);
                }
            }
        }
    }
    types
});

static VALUE_SETS: LazyLock<HashMap<&'static str, HashSet<&'static str>>> = LazyLock::new(|| {
    let line = |line: &'static str| {
        let mut fields = line.split('\t');
        let (name, _system) = (fields.next()?, fields.next()?);
        Some((name, fields.next()?.split(' ').collect()))
    };
    CODES.lines().filter_map(line).collect()
});

/// The definition of a type; `None` for a primitive type and for what does not exist.
pub fn of(name: &str) -> Option<&'static Type> {
    TYPES.get(name)
}

/// Whether a value set holds a code. A value set that the table does not list holds everything.
pub fn holds(value_set: &str, code: &str) -> bool {
    VALUE_SETS.get(value_set).is_none_or(|codes| codes.contains(code))
}

/// The name of a type without the targets of a reference.
pub fn bare(word: &str) -> &str {
    word.split('(').next().unwrap_or(word)
}

impl Element {
    fn parse(line: &'static str) -> Option<Element> {
        let mut fields = line.split('\t');
        let (name, shape) = (fields.next()?, fields.next()?);
        let (types, codes) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        Some(Element {
            name,
            required: !shape.starts_with('0'),
            many: shape.contains('*'),
            summary: shape.contains('S'),
            modifier: shape.contains('M'),
            types,
            codes,
        })
    }
}

impl Type {
    fn add(&mut self, element: Element) {
        let place = self.elements.len();
        match element.name.strip_suffix("[x]") {
            None => drop(self.fields.insert(element.name.to_owned(), (place, element.types))),
            Some(stem) => {
                for word in element.types.split('|') {
                    self.fields.insert(choice(stem, word), (place, word));
                }
            }
        }
        self.elements.push(element);
    }

    /// The element that a JSON name means, with the type of its value.
    pub fn field(&self, name: &str) -> Option<(&Element, &'static str)> {
        let (place, word) = self.fields.get(name)?;
        Some((self.elements.get(*place)?, word))
    }

    /// The place of that element among [`Type::elements`].
    pub fn place(&self, name: &str) -> Option<usize> {
        self.fields.get(name).map(|(place, _)| *place)
    }
}

/// `value` and `Quantity` make `valueQuantity`.
fn choice(stem: &str, word: &str) -> String {
    let mut name = stem.to_owned();
    let mut letters = bare(word).chars();
    name.extend(letters.next().map(|first| first.to_ascii_uppercase()));
    name.extend(letters);
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kept_type_is_defined_down_to_its_leaves() {
        let primitive = |word: &str| word.starts_with(|c: char| c.is_ascii_lowercase());
        for kind in crate::fhir::types::TYPES {
            assert!(of(kind).is_some_and(|kind| kind.elements.len() > 3), "{kind}");
        }
        for (name, kind) in TYPES.iter() {
            for element in &kind.elements {
                for word in element.types.split('|').map(bare) {
                    let known = primitive(word) || word == "Resource" || of(word).is_some();
                    assert!(known, "{name}.{}: {word}", element.name);
                }
                assert!(element.codes.is_empty() || VALUE_SETS.contains_key(element.codes), "{name}.{}", element.name);
            }
        }
    }

    #[test]
    fn names_find_their_elements() {
        let observation = of("Observation").unwrap();
        let (element, word) = observation.field("valueQuantity").unwrap();
        assert_eq!((element.name, word, element.required), ("value[x]", "Quantity", false));
        let (status, _) = observation.field("status").unwrap();
        assert!(status.required && status.summary && status.modifier && holds(status.codes, "final"));
        assert!(!holds(status.codes, "finished") && observation.field("value").is_none());
        assert_eq!(of("Questionnaire.item").unwrap().field("item").unwrap().1, "Questionnaire.item");
    }
}
