//! Reads what pages show out of FHIR JSON. Total: whatever another program stored, these give text or nothing.

use super::registration::{Part, Row};
use chrono::NaiveDate;
use serde_json::Value;

/// The identifier system of record numbers that this practice gives.
pub const RECORD_NUMBER: &str = "urn:holdfast:record-number";
const LOINC: &str = "http://loinc.org";

/// The text at a JSON pointer, or empty. Field names of FHIR hold nothing that a pointer escapes, so that it is followed
/// without the copies that `Value::pointer` makes: a page asks some thousand times.
pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    let step = |at: &'a Value, name: &str| match at {
        Value::Object(fields) => fields.get(name),
        Value::Array(all) => all.get(name.parse::<usize>().ok()?),
        _ => None,
    };
    pointer.split('/').skip(1).try_fold(value, step).and_then(Value::as_str).unwrap_or("")
}

/// The elements of an array, or none.
pub fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What a `CodeableConcept` says: its text, else its first display, else its first code.
pub fn concept(value: Option<&Value>) -> &str {
    let Some(value) = value else { return "" };
    ["/text", "/coding/0/display", "/coding/0/code"]
        .into_iter()
        .map(|pointer| text(value, pointer))
        .find(|t| !t.is_empty())
        .unwrap_or("")
}

/// The code of a `CodeableConcept` or code, e.g. of a status.
pub fn code<'a>(value: &'a Value, name: &str) -> &'a str {
    match value.get(name) {
        Some(Value::String(code)) => code,
        Some(_) => text(value, &format!("/{name}/coding/0/code")),
        None => "",
    }
}

/// The version of a resource.
pub fn version(resource: &Value) -> u32 {
    text(resource, "/meta/versionId").parse().unwrap_or(0)
}

/// The logical id in a reference to `kind`, given as `Kind/id`.
pub fn reference_id<'a>(value: &'a Value, pointer: &str, kind: &str) -> Option<&'a str> {
    text(value, pointer).strip_prefix(kind)?.strip_prefix('/')
}

/// The patient of a clinical resource.
pub fn subject(resource: &Value) -> Option<&str> {
    reference_id(resource, "/subject/reference", "Patient")
        .or_else(|| reference_id(resource, "/patient/reference", "Patient"))
}

/// What the pages show of a patient.
#[derive(Clone, Debug, Default)]
pub struct PatientFacts {
    pub id: String,
    pub version: u32,
    pub family: String,
    pub given: String,
    pub birth: Option<NaiveDate>,
    pub gender: String,
    pub number: String,
    pub phone: String,
    pub email: String,
    pub line: String,
    pub city: String,
    pub state: String,
    pub postal: String,
    pub deceased: Option<String>,
    pub active: bool,
    /// The numbers that registration enters, apart from the practice's own record number.
    pub identifiers: Vec<Row>,
    pub contacts: Vec<Row>,
    /// The record that goes on, where this one was merged into another: known to who asked the store for it
    /// ([`super::merged`]), not to the resource alone.
    pub goes_on: Option<String>,
}

impl PatientFacts {
    pub fn read(patient: &Value) -> Self {
        let names = list(patient, "name");
        let name = names.iter().find(|n| text(n, "/use") == "official").or(names.first()).unwrap_or(&Value::Null);
        let given: Vec<&str> = list(name, "given").iter().filter_map(Value::as_str).collect();
        let family = text(name, "/family");
        let telecom = |system: &str| {
            let found = list(patient, "telecom").iter().find(|t| text(t, "/system") == system);
            found.map_or("", |t| text(t, "/value")).to_owned()
        };
        let deceased = match (patient.get("deceasedDateTime"), patient.get("deceasedBoolean")) {
            (Some(Value::String(at)), _) => Some(at.clone()),
            (_, Some(Value::Bool(true))) => Some(String::new()),
            _ => None,
        };
        Self {
            id: text(patient, "/id").to_owned(),
            version: version(patient),
            family: if family.is_empty() { text(name, "/text").to_owned() } else { family.to_owned() },
            given: given.join(" "),
            birth: NaiveDate::parse_from_str(text(patient, "/birthDate"), "%Y-%m-%d").ok(),
            gender: text(patient, "/gender").to_owned(),
            number: record_number(patient).to_owned(),
            phone: telecom("phone"),
            email: telecom("email"),
            line: text(patient, "/address/0/line/0").to_owned(),
            city: text(patient, "/address/0/city").to_owned(),
            state: text(patient, "/address/0/state").to_owned(),
            postal: text(patient, "/address/0/postalCode").to_owned(),
            deceased,
            active: patient.get("active") != Some(&Value::Bool(false)),
            identifiers: Part::Identifiers.rows(patient),
            contacts: Part::Contacts.rows(patient),
            goes_on: None,
        }
    }

    pub fn full_name(&self) -> String {
        if self.given.is_empty() { self.family.clone() } else { format!("{}, {}", self.family, self.given) }
    }

    pub fn gender_word(&self) -> &str {
        if self.gender.is_empty() { "not recorded" } else { &self.gender }
    }

    /// The number as people say it; imported records have UUIDs, of which eight digits are enough for the eye.
    pub fn short_number(&self) -> &str {
        match self.number.char_indices().nth(8) {
            Some((cut, _)) if self.number.len() == 36 => &self.number[..cut],
            _ if self.number.is_empty() => "none",
            _ => &self.number,
        }
    }
}

fn record_number(patient: &Value) -> &str {
    let identifiers = list(patient, "identifier");
    let ours = identifiers.iter().find(|i| text(i, "/system") == RECORD_NUMBER);
    let medical = || identifiers.iter().find(|i| text(i, "/type/coding/0/code") == "MR");
    ours.or_else(medical).or(identifiers.first()).map_or("", |i| text(i, "/value"))
}

/// An allergy on the banner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allergy {
    pub text: String,
    pub high_risk: bool,
    /// "No known allergies": a statement, which is more than the absence of one.
    pub is_absence: bool,
}

impl Allergy {
    /// How loudly the banner says it.
    pub fn weight(&self) -> &'static str {
        match (self.is_absence, self.high_risk) {
            (true, _) => "calm",
            (false, true) => "alert",
            (false, false) => "warn",
        }
    }
}

/// SNOMED CT codes for "no known ..." statements.
const ABSENCES: [&str; 4] = ["716186003", "409137002", "429625007", "428607008"];

/// The allergies that count: active ones that nobody marked as refuted or entered in error.
pub fn active_allergies<'a>(resources: impl IntoIterator<Item = &'a Value>) -> Vec<Allergy> {
    let mut found: Vec<Allergy> = resources
        .into_iter()
        .filter(|a| !matches!(code(a, "clinicalStatus"), "inactive" | "resolved"))
        .filter(|a| !matches!(code(a, "verificationStatus"), "entered-in-error" | "refuted"))
        .map(|a| Allergy {
            text: concept(a.get("code")).to_owned(),
            high_risk: text(a, "/criticality") == "high",
            is_absence: ABSENCES.contains(&text(a, "/code/coding/0/code")),
        })
        .collect();
    found.sort_by(|a, b| b.high_risk.cmp(&a.high_risk).then_with(|| a.text.cmp(&b.text)));
    found.dedup();
    found
}

/// Whether a document is a note written in here or elsewhere as text, rather than a file.
pub fn is_note(document: &Value) -> bool {
    let coding = |concept: &Value, system: &str, wanted: &str| {
        list(concept, "coding").iter().any(|c| text(c, "/system") == system && text(c, "/code") == wanted)
    };
    let inline_text = text(document, "/content/0/attachment/contentType").starts_with("text/plain")
        && document.pointer("/content/0/attachment/data").is_some();
    inline_text || document.get("type").is_some_and(|t| coding(t, LOINC, "11506-3"))
}

/// The words of a note: its inline base64 text.
pub fn note_text(document: &Value) -> Option<String> {
    use base64::Engine;
    let data = document.pointer("/content/0/attachment/data")?.as_str()?;
    let bytes = base64::engine::general_purpose::STANDARD.decode(data).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn hostile_and_empty_resources_give_empty_facts() {
        for odd in [json!(null), json!([]), json!({"name": 5}), json!({"name": [{"given": "x"}], "identifier": {}})] {
            let facts = PatientFacts::read(&odd);
            assert_eq!((facts.full_name().as_str(), facts.short_number()), ("", "none"));
        }
    }

    #[test]
    fn only_allergies_that_count_are_on_the_banner() {
        let allergy = |name: &str, status: &str, verification: &str, criticality: &str| {
            json!({"code": {"text": name}, "criticality": criticality,
                "clinicalStatus": {"coding": [{"code": status}]},
                "verificationStatus": {"coding": [{"code": verification}]}})
        };
        let all = [
            allergy("Latex", "active", "confirmed", "low"),
            allergy("Penicillin", "active", "confirmed", "high"),
            allergy("Dust", "resolved", "confirmed", "low"),
            allergy("Typo", "active", "entered-in-error", "high"),
        ];
        let shown: Vec<String> = active_allergies(&all).into_iter().map(|a| a.text).collect();
        assert_eq!(shown, ["Penicillin", "Latex"]);
    }

    #[test]
    fn a_record_number_of_ours_wins() {
        let patient = json!({"identifier": [
            {"type": {"coding": [{"code": "MR"}]}, "value": "3f2b8c1e-0000-4000-8000-000000000000"},
            {"system": RECORD_NUMBER, "value": "100042"}]});
        assert_eq!(PatientFacts::read(&patient).short_number(), "100042");
    }
}
