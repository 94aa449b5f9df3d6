//! `Patient/$match`: candidates by identifier, birth date and name, scored by what agrees and what contradicts.

use crate::store::{Query, Resource, StoreError, View};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Candidates that are looked at; a family name as a whole practice shares it finds more than anybody reads.
const CANDIDATES_MAX: u32 = 200;
const COUNT_DEFAULT: usize = 10;
const COUNT_MAX: usize = 50;

/// What the caller wants besides the patient.
pub struct Wishes {
    certain_only: bool,
    count: usize,
}

/// A patient who could be the one.
pub struct Match {
    patient: Resource,
    /// 0 to 1.
    score: f64,
}

impl Wishes {
    pub fn read(body: &Value) -> Wishes {
        let parameters = body.get("parameter").and_then(Value::as_array);
        let find =
            |name: &str| parameters.into_iter().flatten().find(|p| p.get("name").and_then(Value::as_str) == Some(name));
        let certain_only = find("onlyCertainMatches").and_then(|p| p.get("valueBoolean")?.as_bool()).unwrap_or(false);
        let count = find("count").and_then(|p| p.get("valueInteger")?.as_u64());
        let count = count.and_then(|count| usize::try_from(count).ok()).unwrap_or(COUNT_DEFAULT).min(COUNT_MAX);
        Wishes { certain_only, count }
    }
}

impl Match {
    fn grade(&self) -> &'static str {
        match self.score {
            score if score >= 0.95 => "certain",
            score if score >= 0.75 => "probable",
            score if score >= 0.5 => "possible",
            _ => "certainly-not",
        }
    }

    /// The entry of the answer's bundle.
    pub fn entry(&self, base: &str) -> String {
        let full = Value::from(format!("{base}/{}", self.patient.reference()));
        let search = json!({
            "extension": [{ "url": "http://hl7.org/fhir/StructureDefinition/match-grade", "valueCode": self.grade() }],
            "mode": "match", "score": (self.score * 100.0).round() / 100.0,
        });
        format!(r#"{{"fullUrl":{full},"resource":{},"search":{search}}}"#, self.patient.body)
    }
}

/// Who `sought` could be, the likeliest first.
pub fn find(view: &View<'_>, sought: &Value, wishes: &Wishes) -> Result<Vec<Match>, StoreError> {
    if sought.get("resourceType").and_then(Value::as_str) != Some("Patient") {
        return Err(StoreError::invalid("must be a Patient", "resource"));
    }
    let wanted = Traits::of(sought);
    let mut candidates = BTreeMap::new();
    for pair in wanted.searches() {
        let query = Query::parse("Patient", &[pair])?.limit(CANDIDATES_MAX);
        for found in view.search(&query)?.resources {
            candidates.insert(found.id.clone(), found);
        }
    }
    let mut matches = Vec::new();
    for patient in candidates.into_values() {
        let score = wanted.likeness(&Traits::of(&patient.json()?));
        let found = Match { patient, score };
        if score >= 0.5 && (!wishes.certain_only || found.grade() == "certain") {
            matches.push(found);
        }
    }
    matches.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.patient.id.cmp(&b.patient.id)));
    matches.truncate(wishes.count);
    Ok(matches)
}

/// What tells people apart.
struct Traits {
    identifiers: Vec<(String, String)>,
    family: Vec<String>,
    given: Vec<String>,
    birth: String,
    gender: String,
    phones: Vec<String>,
    places: Vec<String>,
}

impl Traits {
    fn of(patient: &Value) -> Traits {
        let list = |name: &str| patient.get(name).and_then(Value::as_array).into_iter().flatten();
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let names = |name: &Value, part: &str| -> Vec<String> {
            match name.get(part) {
                Some(Value::String(one)) => vec![crate::store::fold(one)],
                Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).map(crate::store::fold).collect(),
                _ => Vec::new(),
            }
        };
        let digits = |value: String| value.chars().filter(char::is_ascii_digit).collect::<String>();
        let identifiers = list("identifier").map(|one| (text(one, "system"), text(one, "value")));
        let phones = list("telecom").filter(|one| text(one, "system") == "phone").map(|one| digits(text(one, "value")));
        Traits {
            identifiers: identifiers.filter(|(_, value)| !value.is_empty()).collect(),
            family: list("name").flat_map(|name| names(name, "family")).collect(),
            given: list("name").flat_map(|name| names(name, "given")).collect(),
            birth: text(patient, "birthDate"),
            gender: text(patient, "gender"),
            phones: phones.filter(|phone| phone.len() >= 6).collect(),
            places: list("address").map(|one| text(one, "postalCode")).filter(|code| !code.is_empty()).collect(),
        }
    }

    /// The searches that find candidates: each alone would do.
    fn searches(&self) -> Vec<(String, String)> {
        let escaped =
            |text: &str| text.replace('\\', r"\\").replace(',', r"\,").replace('|', r"\|").replace('$', r"\$");
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let mut all = Vec::new();
        for (system, value) in self.identifiers.iter().take(8) {
            let system = if system.is_empty() { String::new() } else { format!("{}|", escaped(system)) };
            all.push(pair("identifier", format!("{system}{}", escaped(value))));
        }
        if !self.birth.is_empty() {
            all.push(pair("birthdate", self.birth.clone()));
        }
        all.extend(
            self.family.iter().filter(|name| !name.is_empty()).take(4).map(|name| pair("family", escaped(name))),
        );
        all
    }

    /// The weight of what agrees in the weight of what both tell; a shared identifier decides, a contradicted birth date halves.
    fn likeness(&self, other: &Traits) -> f64 {
        if self.identifiers.iter().any(|one| !one.0.is_empty() && other.identifiers.contains(one)) {
            return 1.0;
        }
        let shares = |a: &[String], b: &[String]| a.iter().any(|one| b.contains(one));
        let same = |a: &str, b: &str| (!a.is_empty() && !b.is_empty()).then(|| a == b);
        let both = |a: &[String], b: &[String]| (!a.is_empty() && !b.is_empty()).then(|| shares(a, b));
        let told = [
            (0.30, both(&self.family, &other.family)),
            (0.20, both(&self.given, &other.given)),
            (0.30, same(&self.birth, &other.birth)),
            (0.05, same(&self.gender, &other.gender)),
            (0.10, both(&self.phones, &other.phones)),
            (0.05, both(&self.places, &other.places)),
        ];
        let total: f64 = told.iter().filter(|(_, agrees)| agrees.is_some()).map(|(weight, _)| weight).sum();
        let agreed: f64 = told.iter().filter(|(_, agrees)| *agrees == Some(true)).map(|(weight, _)| weight).sum();
        // Little told is little known: a family name alone is no match.
        let score = if total > 0.0 { agreed / total.max(0.6) } else { 0.0 };
        if same(&self.birth, &other.birth) == Some(false) { score / 2.0 } else { score.min(0.99) }
    }
}
