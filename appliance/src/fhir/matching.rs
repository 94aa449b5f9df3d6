//! `Patient/$match`: candidates by identifier, birth date and name, scored by what agrees and what contradicts.

use super::alike;
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
        let query = Query::parse("Patient", &[pair])?.first(CANDIDATES_MAX, "-_lastUpdated")?;
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
        let escaped = super::escape;
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
        // However it was typed, a name begins as it does; and it may stand in the other field.
        let heads =
            self.family.iter().map(|name| name.chars().filter(|c| c.is_alphabetic()).take(3).collect::<String>());
        all.extend(heads.filter(|head| head.chars().count() >= 2).take(4).map(|head| pair("name", head)));
        all
    }

    /// The weight of what agrees in the weight of what both tell; a shared identifier decides, a contradicted birth date halves.
    fn likeness(&self, other: &Traits) -> f64 {
        if self.identifiers.iter().any(|one| !one.0.is_empty() && other.identifiers.contains(one)) {
            return 1.0;
        }
        let both = |a: &[String], b: &[String]| {
            (!a.is_empty() && !b.is_empty()).then(|| if a.iter().any(|one| b.contains(one)) { 1.0 } else { 0.0 })
        };
        let told_by = |a: &str, b: &str| !a.is_empty() && !b.is_empty();
        let gender = told_by(&self.gender, &other.gender).then(|| if self.gender == other.gender { 1.0 } else { 0.0 });
        let day = |text: &str| crate::dates::parse_day(text);
        let birth = told_by(&self.birth, &other.birth)
            .then(|| f64::from(alike::births(day(&self.birth), day(&other.birth))) / 100.0);
        let (phone, place) = (both(&self.phones, &other.phones), both(&self.places, &other.places));
        let told = [(0.45, self.names_like(other)), (0.35, birth), (0.05, gender), (0.10, phone), (0.05, place)];
        let known = told.iter().filter_map(|(weight, agrees)| agrees.map(|agrees| (weight, agrees)));
        let (total, agreed) = known.fold((0.0, 0.0), |(t, a), (weight, agrees)| (t + weight, a + weight * agrees));
        // Little told is little known: a name alone is no match, and name and birth date alone make nobody certain.
        let most = if phone == Some(1.0) || place == Some(1.0) { 0.99 } else { 0.94 };
        let score = (agreed / f64::max(total, 0.8)).min(most);
        if birth == Some(0.0) { score / 2.0 } else { score }
    }

    /// 0 to 1: the likeliest pair of names, also where family and given name stand in each other's place.
    fn names_like(&self, other: &Traits) -> Option<f64> {
        let best = |a: &[String], b: &[String]| {
            a.iter().flat_map(|one| b.iter().map(|two| alike::names(one, two))).max().map(f64::from)
        };
        let half = |a: Option<f64>, b: Option<f64>| Some((a? + b.or(a)?) / 200.0);
        let straight = half(best(&self.family, &other.family), best(&self.given, &other.given));
        let crossed = match (best(&self.family, &other.given), best(&self.given, &other.family)) {
            (Some(a), Some(b)) => Some(a.min(b) / 100.0),
            _ => None,
        };
        let like = [straight, crossed].into_iter().flatten().reduce(f64::max)?;
        // Names that share few letters are others.
        Some(if like < 0.6 { 0.0 } else { like })
    }
}
