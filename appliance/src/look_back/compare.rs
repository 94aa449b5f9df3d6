//! What differs between a resource as it was and as it is, element by element.

use super::labels;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Characters of a value that are shown.
const SHOWN_CHARS_MAX: usize = 400;
/// Differences that are shown of one resource.
pub const DIFFERENCES_MAX: usize = 60;

/// One element.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What people call it, such as `Name 2: family name`.
    pub element: String,
    pub then: Option<String>,
    pub now: Option<String>,
}

/// The elements that differ, in the order of their names. What a store writes by itself (version, time) and the text that is
/// drawn from the elements say nothing more.
pub fn differences(then: &Value, now: &Value) -> Vec<Difference> {
    let (then, now) = (leaves(then), leaves(now));
    let mut all: Vec<&Vec<Step>> = then.keys().chain(now.keys()).collect();
    all.sort_unstable();
    all.dedup();
    // The place in a list is told where there is more than one.
    let several: BTreeSet<Vec<Step>> = all.iter().flat_map(|at| lists(at)).collect();
    let both = all.into_iter().map(|at| (at, then.get(at), now.get(at)));
    both.filter(|(_, then, now)| then != now)
        .map(|(at, then, now)| Difference { element: words(at, &several), then: then.cloned(), now: now.cloned() })
        .collect()
}

/// A name or a place in a list. Places are ordered as numbers.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Name(String),
    At(usize),
}

/// The lists on the way to an element that is not the first in them.
fn lists(at: &[Step]) -> Vec<Vec<Step>> {
    let later = |(place, step): (usize, &Step)| match step {
        Step::At(1..) => at.get(..place).map(<[Step]>::to_vec),
        _ => None,
    };
    at.iter().enumerate().filter_map(later).collect()
}

fn words(at: &[Step], several: &BTreeSet<Vec<Step>>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for (place, step) in at.iter().enumerate() {
        match step {
            // Of what the whole entry is; further below it is the code of a coding.
            Step::Name(name) if place == 0 && name == "code" => parts.push("what".to_owned()),
            // That a word is given as one of several codings is no part of what people call it.
            Step::Name(name) if name == "coding" && place > 0 => {}
            Step::Name(name) => parts.push(labels::word(name)),
            Step::At(number) if several.contains(at.get(..place).unwrap_or_default()) => {
                if let Some(list) = parts.last_mut() {
                    list.push_str(&format!(" {}", number + 1));
                }
            }
            Step::At(_) => {}
        }
    }
    let Some((whole, parts)) = parts.split_first() else { return String::new() };
    labels::sentence(&if parts.is_empty() { whole.clone() } else { format!("{whole}: {}", parts.join(", ")) })
}

fn leaves(resource: &Value) -> BTreeMap<Vec<Step>, String> {
    let mut found = BTreeMap::new();
    // The depth of a stored resource is limited where it is stored; this needs no recursion all the same.
    let mut work = vec![(Vec::new(), resource)];
    while let Some((at, value)) = work.pop() {
        let below = |step: Step| [at.as_slice(), &[step]].concat();
        match value {
            Value::Object(object) => {
                for (name, inner) in object {
                    let own = at.is_empty() && matches!(name.as_str(), "meta" | "text" | "id" | "resourceType");
                    if !own {
                        work.push((below(Step::Name(name.clone())), inner));
                    }
                }
            }
            Value::Array(list) => {
                work.extend(list.iter().enumerate().map(|(place, inner)| (below(Step::At(place)), inner)));
            }
            leaf => drop(found.insert(at, shown(leaf))),
        }
    }
    found
}

fn shown(leaf: &Value) -> String {
    let whole = match leaf {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        other => other.to_string(),
    };
    match whole.char_indices().nth(SHOWN_CHARS_MAX) {
        // Two long texts that begin alike differ, and are told apart by their hash.
        Some((end, _)) => {
            let hash = blake3::hash(whole.as_bytes()).to_hex();
            format!("{}… ({} characters, {})", &whole[..end], whole.chars().count(), hash.get(..8).unwrap_or_default())
        }
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_changed_came_and_went_is_told_by_element() {
        let then = json!({
            "resourceType": "Patient", "id": "p", "meta": {"versionId": "1"}, "active": true,
            "name": [{"family": "Abel", "given": ["Ann", "Bea"]}], "birthDate": "1970-01-01",
        });
        let now = json!({
            "resourceType": "Patient", "id": "p", "meta": {"versionId": "7"}, "active": false,
            "name": [{"family": "Abel", "given": ["Ann"]}], "birthDate": "1970-01-01", "gender": "female",
        });
        let told: Vec<(String, Option<String>, Option<String>)> =
            differences(&then, &now).into_iter().map(|d| (d.element, d.then, d.now)).collect();
        let text = |t: &str| Some(t.to_owned());
        assert_eq!(
            told,
            [
                ("In use".to_owned(), text("yes"), text("no")),
                ("Sex".to_owned(), None, text("female")),
                ("Name: given name 2".to_owned(), text("Bea"), None),
            ]
        );
        assert!(differences(&then, &then).is_empty());
    }

    #[test]
    fn long_texts_that_begin_alike_differ() {
        let text = |end: &str| json!({"note": [{"text": format!("{}{end}", "ä".repeat(1000))}]});
        let told = differences(&text("x"), &text("y"));
        assert_eq!(told.len(), 1);
        assert_ne!(told[0].then, told[0].now);
        assert!(told[0].then.as_ref().unwrap().chars().count() < 500);
    }

    #[test]
    fn places_in_a_list_are_ordered_as_numbers() {
        let list = |n: usize| json!({"a": (0..n).map(|i| i.to_string()).collect::<Vec<_>>()});
        let told = differences(&list(12), &list(1));
        assert_eq!(told.first().unwrap().element, "A 2");
        assert_eq!(told.last().unwrap().element, "A 12");
    }
}
