//! The answers that a value set inside of a questionnaire offers: all of what it says, or words why not.

use super::questionnaire::{list, text};
use serde_json::{Map, Value};

/// Value sets inside of value sets.
const DEPTH_MAX: usize = 8;

/// The codings of a contained value set (`#id`), in its order.
///
/// # Errors
/// What of it cannot be read, as the end of a sentence about the question.
pub(super) fn codings(questionnaire: &Value, asked: &str) -> Result<Vec<Value>, &'static str> {
    let Some(id) = asked.strip_prefix('#').filter(|id| !id.is_empty()) else {
        return Err("takes its answers from a value set that is not contained in the questionnaire");
    };
    let mut sets = list(questionnaire, "contained")
        .iter()
        .filter(|one| text(one, "id") == id && text(one, "resourceType") == "ValueSet");
    let set = sets.next().ok_or("takes its answers from a value set that is not contained in the questionnaire")?;
    if set.get("modifierExtension").is_some() || set.get("implicitRules").is_some() {
        return Err("has a value set with a modifier, which may mean anything");
    }
    let compose = set.get("compose").unwrap_or(&Value::Null);
    let mut found = match set.get("expansion") {
        Some(expansion) if !list(expansion, "contains").is_empty() => expanded(expansion)?,
        _ => composed(list(compose, "include"))?,
    };
    let is_expanded = set.get("expansion").is_some_and(|expansion| !list(expansion, "contains").is_empty());
    exclude(&mut found, list(compose, "exclude"), is_expanded)?;
    let mut seen = std::collections::BTreeSet::new();
    found.retain(|coding| seen.insert((text(coding, "system").to_owned(), text(coding, "code").to_owned())));
    Ok(found)
}

/// What was expanded is what the set holds; what is abstract only holds others.
fn expanded(expansion: &Value) -> Result<Vec<Value>, &'static str> {
    const PART: &str = "has a value set that is expanded in part only";
    let mut found = Vec::new();
    let entries = below(list(expansion, "contains"), 0, &mut found)?;
    let total = expansion.get("total").and_then(Value::as_u64).unwrap_or(0);
    let offset = expansion.get("offset").and_then(Value::as_u64).unwrap_or(0);
    let open = list(expansion, "extension").iter().any(|one| {
        let url = text(one, "url");
        (url.ends_with("/valueset-unclosed") || url.ends_with("/valueset-toocostly"))
            && one.get("valueBoolean") != Some(&Value::Bool(false))
    });
    if total > entries || offset > 0 || open { Err(PART) } else { Ok(found) }
}

/// Adds what can be chosen among these entries and below them; gives how many entries there are.
fn below(entries: &[Value], depth: usize, found: &mut Vec<Value>) -> Result<u64, &'static str> {
    if depth > DEPTH_MAX {
        return Err("has a value set that is nested too deep");
    }
    let mut count = 0;
    for entry in entries {
        count += 1;
        if entry.get("modifierExtension").is_some() {
            return Err("has a value set with a modifier, which may mean anything");
        }
        if entry.get("abstract") != Some(&Value::Bool(true)) && !text(entry, "code").is_empty() {
            found.push(coding(text(entry, "system"), entry));
        }
        count += below(list(entry, "contains"), depth + 1, found)?;
    }
    Ok(count)
}

fn composed(includes: &[Value]) -> Result<Vec<Value>, &'static str> {
    let mut found = Vec::new();
    for include in includes {
        listed(include)?;
        if list(include, "concept").is_empty() {
            return Err("has a value set that takes in a whole code system; it must list its codes");
        }
        found.extend(list(include, "concept").iter().map(|concept| coding(text(include, "system"), concept)));
    }
    Ok(found)
}

/// Whether a part of a value set says by itself what it means.
fn listed(part: &Value) -> Result<(), &'static str> {
    if part.get("modifierExtension").is_some() {
        return Err("has a value set with a modifier, which may mean anything");
    }
    if !list(part, "valueSet").is_empty() {
        return Err("has a value set that is made of other value sets; it must list its codes");
    }
    if !list(part, "filter").is_empty() {
        return Err("has a value set that chooses its codes by a filter; it must list them");
    }
    Ok(())
}

/// Takes out the codes that are listed as excluded, and all of a system that is. What is excluded otherwise is left out of an
/// expansion already.
fn exclude(found: &mut Vec<Value>, excludes: &[Value], is_expanded: bool) -> Result<(), &'static str> {
    for part in excludes {
        match listed(part) {
            Err(_) if is_expanded => continue,
            told => told?,
        }
        let codes = list(part, "concept");
        found.retain(|coding| {
            let is_code = codes.is_empty() || codes.iter().any(|code| text(code, "code") == text(coding, "code"));
            text(coding, "system") != text(part, "system") || !is_code
        });
    }
    Ok(())
}

fn coding(system: &str, concept: &Value) -> Value {
    let parts = [("system", system), ("code", text(concept, "code")), ("display", text(concept, "display"))];
    let parts = parts.into_iter().filter(|(_, text)| !text.is_empty());
    Map::from_iter(parts.map(|(name, text)| (name.to_owned(), text.into()))).into()
}
