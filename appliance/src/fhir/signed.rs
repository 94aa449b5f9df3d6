//! What was signed stays as it was signed, whoever writes; and over the API nobody signs for somebody else.

use crate::store::StoreError;
use serde_json::{Map, Value};

/// Extensions that only the pages write: they are signatures.
const SIGNATURES: [&str; 2] = ["urn:holdfast:signed", "urn:holdfast:cosigned"];

/// How a kind of record is signed.
struct Rule {
    /// The element that says so.
    state: &'static str,
    /// What stays from then on.
    fixed: &'static [&'static str],
    /// From each state that counts as signed to those that may follow. None of them leads back.
    next: &'static [(&'static str, &'static [&'static str])],
}

fn rule(kind: &str) -> Option<Rule> {
    const ENDED: &[&str] = &["entered-in-error"];
    Some(match kind {
        "DocumentReference" => Rule {
            state: "docStatus",
            fixed: &["content", "subject", "author", "authenticator", "date", "type", "context"],
            next: &[
                ("final", &["final", "entered-in-error"]),
                ("amended", &["amended", "entered-in-error"]),
                ("entered-in-error", ENDED),
            ],
        },
        "Composition" => Rule {
            state: "status",
            fixed: &["section", "subject", "author", "attester", "date", "title", "type"],
            next: &[
                ("final", &["final", "amended", "entered-in-error"]),
                ("amended", &["amended", "entered-in-error"]),
                ("entered-in-error", ENDED),
            ],
        },
        "QuestionnaireResponse" => Rule {
            state: "status",
            fixed: &["item", "subject", "author", "authored", "questionnaire"],
            next: &[
                ("completed", &["completed", "amended", "entered-in-error"]),
                ("amended", &["amended", "entered-in-error"]),
                ("entered-in-error", ENDED),
            ],
        },
        // What was signed stands in its sealed record; the resource is withdrawn, and no more.
        "Consent" => Rule {
            state: "status",
            fixed: &["patient", "dateTime", "performer", "policyRule", "provision"],
            next: &[
                ("proposed", &["proposed", "active", "rejected", "inactive", "entered-in-error"]),
                ("active", &["active", "rejected", "inactive", "entered-in-error"]),
                ("rejected", &["rejected", "entered-in-error"]),
                ("inactive", &["inactive", "entered-in-error"]),
                ("entered-in-error", ENDED),
            ],
        },
        _ => return None,
    })
}

/// The states that may follow, if the record is signed.
fn followers(rule: &Rule, record: &Value) -> Option<&'static [&'static str]> {
    let state = record.get(rule.state).and_then(Value::as_str)?;
    rule.next.iter().find(|(signed, _)| *signed == state).map(|(_, next)| *next)
}

/// Checks a new version of a record against the one before; `Null`: there was none.
pub fn check(kind: &str, current: &Value, new: &Map<String, Value>) -> Result<(), StoreError> {
    // Notes hang on it: they must not come to hang on another patient.
    if kind == "Encounter" && current.get("subject").is_some_and(|subject| new.get("subject") != Some(subject)) {
        return Err(StoreError::invalid("an encounter stays with its patient", "Encounter.subject"));
    }
    let Some(rule) = rule(kind) else { return Ok(()) };
    let Some(next) = followers(&rule, current) else { return Ok(()) };
    let state = new.get(rule.state).and_then(Value::as_str).unwrap_or_default();
    if !next.contains(&state) {
        let sentence = "what was signed stays signed, or is entered in error, for good";
        return Err(StoreError::invalid(sentence, format!("{kind}.{}", rule.state)));
    }
    if let Some(name) = rule.fixed.iter().find(|name| current.get(**name) != new.get(**name)) {
        let sentence = "a signed note is not changed: write an addendum";
        return Err(StoreError::invalid(sentence, format!("{kind}.{name}")));
    }
    let after = signatures(new.get("extension"));
    if !signatures(current.get("extension")).iter().all(|signature| after.contains(signature)) {
        return Err(StoreError::invalid("a signature is not changed", format!("{kind}.extension")));
    }
    Ok(())
}

/// A signed record is entered in error, and not deleted.
pub fn check_delete(kind: &str, current: &Value) -> Result<(), StoreError> {
    match rule(kind).and_then(|rule| followers(&rule, current).map(|_| rule.state)) {
        None => Ok(()),
        Some(state) => {
            let sentence = "what was signed is not deleted: mark it as entered in error";
            Err(StoreError::invalid(sentence, format!("{kind}.{state}")))
        }
    }
}

/// Checks what comes over the API: signatures are made on the pages, where somebody is asked. `own` is the reference of whoever
/// is logged in; a program that brings notes in from elsewhere has none.
pub fn check_outside(
    kind: &str,
    current: &Value,
    new: &Map<String, Value>,
    own: Option<&str>,
) -> Result<(), StoreError> {
    if signatures(current.get("extension")) != signatures(new.get("extension")) {
        let sentence = "a signature is made where the form is filled in, and not over this interface";
        return Err(StoreError::invalid(sentence, format!("{kind}.extension")));
    }
    let signs = kind == "DocumentReference"
        && new.get("docStatus").is_some_and(|state| state == "final" || state == "amended")
        && current.get("authenticator") != new.get("authenticator");
    let by = new.get("authenticator").and_then(|by| by.get("reference")).and_then(Value::as_str);
    if signs && own.is_some_and(|own| by.is_some() && by != Some(own)) {
        let sentence = "nobody signs a note for somebody else";
        return Err(StoreError::invalid(sentence, "DocumentReference.authenticator"));
    }
    Ok(())
}

fn signatures(extensions: Option<&Value>) -> Vec<&Value> {
    let all = extensions.and_then(Value::as_array).into_iter().flatten();
    let is_one = |extension: &&Value| SIGNATURES.iter().any(|url| extension.get("url").is_some_and(|own| own == url));
    all.filter(is_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn what_was_signed_goes_forward_only_and_keeps_what_it_said() {
        let note = json!({"docStatus": "final", "content": ["a"], "author": ["me"]});
        let changed = |name: &str, value: Value| {
            let mut new = map(note.clone());
            new.insert(name.into(), value);
            new
        };
        let kind = "DocumentReference";
        assert!(check(kind, &note, &map(note.clone())).is_ok());
        assert!(check(kind, &note, &changed("status", "superseded".into())).is_ok());
        assert!(check(kind, &note, &changed("content", json!(["b"]))).is_err());
        assert!(check(kind, &note, &changed("docStatus", "preliminary".into())).is_err());
        let error = changed("docStatus", "entered-in-error".into());
        assert!(check(kind, &note, &error).is_ok());
        // By way of the error nothing comes back either.
        let mut other = error.clone();
        other.insert("content".into(), json!(["b"]));
        assert!(check(kind, &Value::Object(error.clone()), &other).is_err());
        assert!(check(kind, &Value::Object(error), &map(note.clone())).is_err());
        assert!(check_delete(kind, &note).is_err() && check_delete(kind, &json!({"docStatus": "preliminary"})).is_ok());
        for (kind, signed, back) in [
            ("Composition", "final", "preliminary"),
            ("QuestionnaireResponse", "completed", "in-progress"),
            ("Consent", "inactive", "active"),
            ("Consent", "entered-in-error", "active"),
        ] {
            assert!(check(kind, &json!({"status": signed}), &map(json!({"status": back}))).is_err(), "{kind}");
            assert!(check(kind, &json!({"status": signed}), &map(json!({"status": signed}))).is_ok(), "{kind}");
        }
        assert!(check("Consent", &json!({"status": "active"}), &map(json!({"status": "inactive"}))).is_ok());
        let visit = json!({"subject": {"reference": "Patient/a"}});
        assert!(check("Encounter", &visit, &map(json!({"subject": {"reference": "Patient/b"}}))).is_err());
        assert!(check("Encounter", &visit, &map(visit.clone())).is_ok());
    }

    #[test]
    fn over_the_api_nobody_makes_or_changes_a_signature() {
        let by = |url: &str, who: &str| json!({"status": "completed", "extension": [{"url": url, "who": who}]});
        let (mine, other) = (by(SIGNATURES[0], "me"), by(SIGNATURES[0], "other"));
        let plain = json!({"status": "completed"});
        let kind = "QuestionnaireResponse";
        assert!(check(kind, &mine, &map(other.clone())).is_err() && check(kind, &mine, &map(plain.clone())).is_err());
        assert!(check(kind, &plain, &map(mine.clone())).is_ok(), "the page signs");
        assert!(check_outside(kind, &Value::Null, &map(mine.clone()), None).is_err());
        assert!(check_outside(kind, &plain, &map(mine.clone()), None).is_err());
        assert!(check_outside(kind, &mine, &map(mine.clone()), None).is_ok());
        assert!(check_outside(kind, &Value::Null, &map(by("urn:other", "x")), None).is_ok());
        let note = map(json!({"docStatus": "final", "authenticator": {"reference": "Practitioner/ada"}}));
        let kind = "DocumentReference";
        assert!(check_outside(kind, &Value::Null, &note, Some("Practitioner/dana")).is_err());
        assert!(check_outside(kind, &Value::Null, &note, Some("Practitioner/ada")).is_ok());
        assert!(check_outside(kind, &Value::Null, &note, None).is_ok(), "a program brings it from elsewhere");
        assert!(check_outside(kind, &Value::Object(note.clone()), &note, Some("Practitioner/dana")).is_ok());
    }
}
