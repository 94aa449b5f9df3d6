//! An oracle of search: a reading of the JSON that shares nothing with the index, asked the same questions. Queries are
//! drawn at random from what the sample bundles hold.

use crate::support;
use appliance::access::{Actor, Role};
use appliance::clock::Clock;
use appliance::import::bundles::{self, FileOutcome};
use appliance::store::{Mode, Query, Resource, Store, StoreError, View};
use chrono::{DateTime, NaiveDate};
use proptest::prelude::*;
use serde_json::Value;
use std::cmp::Ordering;
use std::path::Path;
use std::sync::LazyLock;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Form {
    Token,
    Text,
    Date,
    Reference,
    Number,
}
use Form::{Date, Number, Reference, Text, Token};

/// What each parameter reads, written by hand from the text of R4: element names divided by dots.
const TABLE: &[(&str, &str, Form, &[&str])] = &[
    ("Patient", "identifier", Token, &["identifier"]),
    ("Patient", "name", Text, &["name"]),
    ("Patient", "family", Text, &["name.family"]),
    ("Patient", "given", Text, &["name.given"]),
    ("Patient", "birthdate", Date, &["birthDate"]),
    ("Patient", "gender", Token, &["gender"]),
    ("Patient", "address-city", Text, &["address.city"]),
    ("Observation", "patient", Reference, &["subject"]),
    ("Observation", "category", Token, &["category"]),
    ("Observation", "code", Token, &["code"]),
    ("Observation", "status", Token, &["status"]),
    ("Observation", "date", Date, &["effectiveDateTime", "effectivePeriod", "effectiveInstant"]),
    ("Observation", "encounter", Reference, &["encounter"]),
    ("Observation", "value-quantity", Number, &["valueQuantity"]),
    ("Condition", "patient", Reference, &["subject"]),
    ("Condition", "category", Token, &["category"]),
    ("Condition", "clinical-status", Token, &["clinicalStatus"]),
    ("Condition", "code", Token, &["code"]),
    ("Condition", "onset-date", Date, &["onsetDateTime", "onsetPeriod"]),
    ("Encounter", "patient", Reference, &["subject"]),
    ("Encounter", "date", Date, &["period"]),
    ("Encounter", "class", Token, &["class"]),
    ("Encounter", "type", Token, &["type"]),
    ("Encounter", "service-provider", Reference, &["serviceProvider"]),
    ("DiagnosticReport", "patient", Reference, &["subject"]),
    ("DiagnosticReport", "category", Token, &["category"]),
    ("DiagnosticReport", "code", Token, &["code"]),
    ("DiagnosticReport", "date", Date, &["effectiveDateTime", "effectivePeriod"]),
    ("DiagnosticReport", "result", Reference, &["result"]),
    ("Procedure", "patient", Reference, &["subject"]),
    ("Procedure", "date", Date, &["performedDateTime", "performedPeriod"]),
    ("Procedure", "code", Token, &["code"]),
    ("MedicationRequest", "patient", Reference, &["subject"]),
    ("MedicationRequest", "intent", Token, &["intent"]),
    ("MedicationRequest", "status", Token, &["status"]),
    ("MedicationRequest", "authoredon", Date, &["authoredOn"]),
    ("Immunization", "patient", Reference, &["patient"]),
    ("Immunization", "date", Date, &["occurrenceDateTime"]),
    ("CarePlan", "patient", Reference, &["subject"]),
    ("CarePlan", "category", Token, &["category"]),
    ("CareTeam", "patient", Reference, &["subject"]),
    ("CareTeam", "status", Token, &["status"]),
    ("Claim", "patient", Reference, &["patient"]),
    ("Claim", "created", Date, &["created"]),
    ("Organization", "name", Text, &["name", "alias"]),
    ("Organization", "address", Text, &["address"]),
    ("Practitioner", "name", Text, &["name"]),
    ("Practitioner", "identifier", Token, &["identifier"]),
];

struct Sample {
    _dir: tempfile::TempDir,
    store: Store,
    /// In the order of creation.
    all: Vec<(String, String, Value)>,
}

static SAMPLE: LazyLock<Sample> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(support::place(dir.path()), Clock::manual(1_700_000_000_000), Mode::New).unwrap();
    for file in bundles::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).unwrap() {
        assert!(matches!(bundles::load(&store, &file), FileOutcome::Loaded(_)));
    }
    let sql = "SELECT t.name, r.id, r.body FROM resource r JOIN resource_type t ON t.id = r.type ORDER BY r.rid";
    let rows = store.internal_blocking(|db| {
        let mut statement = db.prepare(sql)?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
        Ok::<_, StoreError>(rows.collect::<Result<Vec<(String, String, String)>, _>>()?)
    });
    let json = |(kind, id, body): (String, String, String)| (kind, id, serde_json::from_str(&body).unwrap());
    let all = rows.unwrap().into_iter().map(json).collect();
    Sample { _dir: dir, store, all }
});

fn of(kind: &str) -> impl Iterator<Item = (&'static str, &'static Value)> {
    SAMPLE.all.iter().filter(move |(k, ..)| k == kind).map(|(_, id, body)| (id.as_str(), body))
}

fn walk<'v>(value: &'v Value, path: &[&str], out: &mut Vec<&'v Value>) {
    match (value, path) {
        (Value::Array(items), _) => items.iter().for_each(|item| walk(item, path, out)),
        (_, []) => out.push(value),
        (_, [name, rest @ ..]) => {
            if let Some(inner) = value.get(*name) {
                walk(inner, rest, out);
            }
        }
    }
}

fn values<'v>(body: &'v Value, paths: &[&str]) -> Vec<&'v Value> {
    let mut out = Vec::new();
    paths.iter().for_each(|path| walk(body, &path.split('.').collect::<Vec<_>>(), &mut out));
    out
}

fn tokens(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_owned();
    match value {
        Value::String(code) => vec![(String::new(), code.clone())],
        _ if value["coding"].is_array() => {
            value["coding"].as_array().unwrap().iter().map(|c| (text(c, "system"), text(c, "code"))).collect()
        }
        _ if value["code"].is_string() => vec![(text(value, "system"), text(value, "code"))],
        _ => vec![(text(value, "system"), text(value, "value"))],
    }
}

fn words(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Object(element) => element
            .iter()
            .filter(|(name, _)| !["use", "type", "period", "extension", "system"].contains(&name.as_str()))
            .flat_map(|(_, value)| words(value))
            .collect(),
        Value::Array(items) => items.iter().flat_map(words).collect(),
        _ => Vec::new(),
    }
}

fn plain(text: &str) -> String {
    let fold = |c: char| match c {
        'á' | 'à' | 'ã' => 'a',
        'é' | 'è' => 'e',
        'í' => 'i',
        'ó' => 'o',
        'ú' | 'ü' => 'u',
        'ñ' => 'n',
        other => other,
    };
    text.to_lowercase().chars().map(fold).collect()
}

/// The first millisecond, and the first one after.
fn span(text: &str) -> (i64, i64) {
    let midnight = |day: NaiveDate| day.and_hms_opt(0, 0, 0).unwrap().and_utc().timestamp_millis();
    let number = |range: std::ops::Range<usize>| text[range].parse::<u32>().unwrap();
    let date = |y: u32, m: u32, d: u32| NaiveDate::from_ymd_opt(i32::try_from(y).unwrap(), m, d).unwrap();
    match text.len() {
        4 => (midnight(date(number(0..4), 1, 1)), midnight(date(number(0..4) + 1, 1, 1))),
        7 => {
            let (y, m) = (number(0..4), number(5..7));
            let next = if m == 12 { date(y + 1, 1, 1) } else { date(y, m + 1, 1) };
            (midnight(date(y, m, 1)), midnight(next))
        }
        10 => {
            let day = date(number(0..4), number(5..7), number(8..10));
            (midnight(day), midnight(day.succ_opt().unwrap()))
        }
        _ => {
            let at = DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis();
            (at, at + if text.contains('.') { 1 } else { 1000 })
        }
    }
}

fn spans(value: &Value) -> Option<(i64, i64)> {
    match value {
        Value::String(text) => Some(span(text)),
        _ => {
            let side = |name: &str| value[name].as_str().map(span);
            let (start, end) = (side("start"), side("end"));
            (start.is_some() || end.is_some())
                .then(|| (start.map_or(i64::MIN / 4, |s| s.0), end.map_or(i64::MAX / 4, |e| e.1)))
        }
    }
}

/// The rule of R4 for ranges.
fn compares(prefix: &str, (lo, hi): (i64, i64), (from, until): (i64, i64)) -> bool {
    let contained = from <= lo && hi <= until;
    match prefix {
        "eq" | "" => contained,
        "ne" => !contained,
        "lt" => lo < from,
        "gt" => hi > until,
        "le" => lo < from || contained,
        "ge" => hi > until || contained,
        "sa" => lo >= until,
        "eb" => hi <= from,
        other => panic!("{other}"),
    }
}

#[derive(Clone, Debug)]
struct Condition {
    name: &'static str,
    form: Form,
    paths: &'static [&'static str],
    modifier: &'static str,
    prefix: &'static str,
    /// The alternatives, as they are sent.
    values: Vec<String>,
}

impl Condition {
    fn pair(&self) -> (String, String) {
        let values: Vec<_> = self.values.iter().map(|value| format!("{}{value}", self.prefix)).collect();
        (format!("{}{}", self.name, self.modifier), values.join(","))
    }

    fn holds(&self, body: &Value) -> bool {
        let found = values(body, self.paths);
        if self.modifier == ":missing" {
            return found.is_empty() == (self.values[0] == "true");
        }
        let any = self.values.iter().any(|wanted| found.iter().any(|value| self.one(value, wanted)));
        if self.modifier == ":not" { !any } else { any }
    }

    fn one(&self, value: &Value, wanted: &str) -> bool {
        match self.form {
            Token => tokens(value).iter().any(|(system, code)| match wanted.split_once('|') {
                None => code == wanted,
                Some((s, "")) => system == s,
                Some((s, c)) => system == s && code == c,
            }),
            Text => words(value).iter().any(|word| match self.modifier {
                ":exact" => word == wanted,
                ":contains" => plain(word).contains(&plain(wanted)),
                _ => plain(word).starts_with(&plain(wanted)),
            }),
            Date => spans(value).is_some_and(|found| compares(self.prefix, found, span(wanted))),
            Reference => {
                let to = value["reference"].as_str().unwrap_or_default();
                to == wanted || to.split_once('/').is_some_and(|(_, id)| id == wanted)
            }
            Number => {
                let number = value["value"].as_f64().unwrap();
                let wanted: f64 = wanted.parse().unwrap();
                match self.prefix {
                    "lt" => number < wanted,
                    "gt" => number > wanted,
                    "le" => number <= wanted,
                    "ge" => number >= wanted,
                    // Whole numbers are searched for: what rounds to it is equal.
                    "ne" => !(wanted - 0.5..wanted + 0.5).contains(&number),
                    _ => (wanted - 0.5..wanted + 0.5).contains(&number),
                }
            }
        }
    }
}

/// Draws a condition from numbers: a parameter of the type, a value that some resource holds, and a way to ask for it.
fn condition(kind: &'static str, seed: &[usize; 6]) -> Option<Condition> {
    let params: Vec<_> = TABLE.iter().filter(|(k, ..)| *k == kind).collect();
    let (_, name, form, paths) = *params[seed[0] % params.len()];
    let holding: Vec<&Value> = of(kind).flat_map(|(_, body)| values(body, paths)).collect();
    let (first, second) = (holding.get(seed[1] % holding.len().max(1))?, holding[seed[2] % holding.len()]);
    let (mut modifier, mut prefix) = ("", "");
    let written = |value: &Value| -> String {
        match form {
            Token => {
                let all = tokens(value);
                let (system, code) = &all[seed[3] % all.len()];
                match seed[4] % 4 {
                    0 => format!("{system}|{code}"),
                    1 if !system.is_empty() => format!("{system}|"),
                    _ => code.clone(),
                }
            }
            Text => {
                let all = words(value);
                let word = &all[seed[3] % all.len()];
                let letters: Vec<char> = word.chars().filter(|c| !",|\\$".contains(*c)).collect();
                let end = 1 + seed[4] % letters.len();
                match seed[5] % 3 {
                    0 => letters.iter().collect(),
                    1 => letters[..end].iter().collect::<String>().to_uppercase(),
                    _ => letters[seed[4] % letters.len()..].iter().collect(),
                }
            }
            Date => {
                let text = value.as_str().or(value["start"].as_str()).unwrap();
                let cut = [4, 7, 10, text.len()][seed[3] % 4];
                text[..cut.min(text.len())].to_owned()
            }
            Reference => {
                let to = value["reference"].as_str().unwrap();
                if seed[3].is_multiple_of(2) { to.to_owned() } else { to.split_once('/').unwrap().1.to_owned() }
            }
            Number => format!("{}", value["value"].as_f64().unwrap().round()),
        }
    };
    let mut values = vec![written(first)];
    if seed[4].is_multiple_of(3) {
        values.push(written(second));
    }
    match form {
        Token if seed[5].is_multiple_of(4) => modifier = ":not",
        Text => modifier = [":exact", "", ":contains"][seed[5] % 3],
        Date => prefix = ["", "eq", "ne", "lt", "gt", "le", "ge", "sa", "eb"][seed[5] % 9],
        Number => prefix = ["", "lt", "gt", "le", "ge", "ne"][seed[5] % 6],
        _ => {}
    }
    if seed[5] % 11 == 10 {
        (modifier, prefix, values) = (":missing", "", vec![(seed[4].is_multiple_of(2)).to_string()]);
    }
    Some(Condition { name, form, paths, modifier, prefix, values })
}

/// All pages of a search.
fn found(kind: &str, pairs: &[(String, String)], count: u32) -> Vec<Resource> {
    let actor = Actor::staff("u", "u", Role::Clinician);
    let mut pairs = pairs.to_vec();
    let (mut all, mut total) = (Vec::new(), None);
    pairs.extend([("_total".into(), "accurate".into()), ("_count".into(), count.to_string())]);
    loop {
        let query = Query::parse(kind, &pairs).unwrap_or_else(|error| panic!("{kind} {pairs:?}: {error}"));
        let page = SAMPLE.store.view_blocking(&actor, |view: &View<'_>| view.search(&query)).unwrap();
        assert!(page.resources.len() <= count as usize);
        assert_eq!(*total.get_or_insert(page.total), page.total);
        all.extend(page.resources);
        let Some(next) = page.next else { break };
        pairs.retain(|(name, _)| name != "_cursor");
        pairs.push(("_cursor".into(), next.to_string()));
    }
    assert_eq!(total.flatten(), Some(all.len() as u64), "{kind} {pairs:?}");
    all
}

fn ids(found: &[Resource]) -> Vec<&str> {
    found.iter().map(|resource| resource.id.as_str()).collect()
}

/// The sort key of a body in one direction: the least value, or the greatest.
fn key(body: &Value, form: Form, paths: &[&str], descending: bool) -> Option<(i64, String)> {
    let all = values(body, paths).into_iter().flat_map(|value| match form {
        Token => tokens(value).into_iter().map(|(_, code)| (0, code)).collect(),
        Text => words(value).into_iter().map(|word| (0, plain(&word))).collect(),
        Date => spans(value).map(|(lo, _)| (lo, String::new())).into_iter().collect(),
        Reference => vec![(0, value["reference"].as_str().unwrap().to_owned())],
        // Order of the bits is the order of numbers that are not negative.
        Number => vec![(value["value"].as_f64().unwrap().to_bits().cast_signed(), String::new())],
    });
    if descending { all.max() } else { all.min() }
}

fn kinds() -> Vec<&'static str> {
    let mut kinds: Vec<_> = TABLE.iter().map(|(kind, ..)| *kind).collect();
    kinds.dedup();
    kinds.retain(|kind| of(kind).next().is_some());
    kinds
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_searches_find_what_a_reading_finds(
        kind in 0usize..100,
        seeds in prop::collection::vec(any::<[usize; 6]>(), 1..4),
        count in prop::sample::select(vec![1u32, 3, 10, 100, 500]),
    ) {
        let kind = kinds()[kind % kinds().len()];
        let conditions: Vec<_> = seeds.iter().filter_map(|seed| condition(kind, seed)).collect();
        let expected: Vec<&str> =
            of(kind).filter(|(_, body)| conditions.iter().all(|c| c.holds(body))).map(|(id, _)| id).collect();
        // A page a row is slow, and says nothing more, where much is found.
        let count = if expected.len() > 60 { count.max(50) } else { count };
        let pairs: Vec<_> = conditions.iter().map(Condition::pair).collect();
        let answer = found(kind, &pairs, count);
        prop_assert_eq!(ids(&answer), expected, "{} {:?}", kind, pairs);
    }

    #[test]
    fn random_orders_are_kept_over_pages(
        kind in 0usize..100,
        seed in any::<[usize; 6]>(),
        keys in prop::collection::vec((any::<usize>(), any::<bool>()), 1..3),
        count in 5u32..80,
    ) {
        let kind = kinds()[kind % kinds().len()];
        let params: Vec<_> = TABLE.iter().filter(|(k, name, ..)| *k == kind && *name != "patient").collect();
        let keys: Vec<_> = keys.iter().map(|(at, down)| (params[at % params.len()], *down)).collect();
        let conditions: Vec<_> = condition(kind, &seed).into_iter().collect();
        let mut expected: Vec<(usize, &str, &Value)> = of(kind)
            .enumerate()
            .filter(|(_, (_, body))| conditions.iter().all(|c| c.holds(body)))
            .map(|(at, (id, body))| (at, id, body))
            .collect();
        expected.sort_by(|(at, _, a), (other, _, b)| {
            let by = keys.iter().map(|((_, _, form, paths), down)| {
                match (key(a, *form, paths, *down), key(b, *form, paths, *down)) {
                    (None, None) => Ordering::Equal,
                    (None, _) => Ordering::Greater,
                    (_, None) => Ordering::Less,
                    (a, b) if *down => b.cmp(&a),
                    (a, b) => a.cmp(&b),
                }
            });
            by.fold(Ordering::Equal, Ordering::then).then(at.cmp(other))
        });
        let sort: Vec<_> = keys.iter().map(|((_, name, ..), down)| format!("{}{name}", if *down { "-" } else { "" })).collect();
        let mut pairs: Vec<_> = conditions.iter().map(Condition::pair).collect();
        pairs.push(("_sort".into(), sort.join(",")));
        let expected: Vec<&str> = expected.into_iter().map(|(_, id, _)| id).collect();
        let answer = found(kind, &pairs, count);
        prop_assert_eq!(ids(&answer), expected, "{} {:?}", kind, pairs);
    }
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn chains_look_at_what_a_reference_points_to() {
    let patient = |id: &str| of("Patient").find(|(i, _)| *i == id).unwrap().1;
    let subject =
        |body: &'static Value| patient(body["subject"]["reference"].as_str().unwrap().split_once('/').unwrap().1);
    for (_, one) in of("Patient") {
        let (family, born) = (one["name"][0]["family"].as_str().unwrap(), one["birthDate"].as_str().unwrap());
        for (name, value) in
            [("patient.family", family), ("subject:Patient.birthdate", born), ("patient.name:exact", family)]
        {
            let expected: Vec<_> = of("Condition").filter(|(_, body)| subject(body) == one).map(|(id, _)| id).collect();
            assert_eq!(ids(&found("Condition", &pairs(&[(name, value)]), 50)), expected, "{name}={value}");
        }
    }
    let class = |body: &Value| {
        let id = body["encounter"]["reference"].as_str().unwrap_or_default().replace("Encounter/", "");
        of("Encounter").any(|(i, encounter)| i == id && encounter["class"]["code"] == "AMB")
    };
    let expected: Vec<_> = of("Observation").filter(|(_, body)| class(body)).map(|(id, _)| id).collect();
    assert!(!expected.is_empty());
    assert_eq!(ids(&found("Observation", &pairs(&[("encounter.class", "AMB")]), 500)), expected);
    for (name, value) in [("patient.general-practitioner.name", "x"), ("subject.favourite", "x"), ("code.name", "x")] {
        assert!(Query::parse("Condition", &pairs(&[(name, value)])).is_err(), "{name}");
    }
}

#[test]
fn includes_bring_what_is_referred_to_and_what_refers() {
    let actor = Actor::staff("u", "u", Role::Clinician);
    let page = |kind: &str, all: &[(&str, &str)]| {
        let query = Query::parse(kind, &pairs(&[all, &[("_count", "20")]].concat())).unwrap();
        SAMPLE.store.view_blocking(&actor, |view: &View<'_>| view.search(&query)).unwrap()
    };
    let sorted = |mut all: Vec<String>| {
        all.sort();
        all.dedup();
        all
    };
    let told = |included: &[Resource]| sorted(included.iter().map(Resource::reference).collect());
    let forward = page("Observation", &[("_include", "Observation:encounter"), ("_include", "Observation:patient")]);
    let expected = forward.resources.iter().flat_map(|found| {
        let body = found.json().unwrap();
        ["encounter", "subject"].map(|name| body[name]["reference"].as_str().unwrap().to_owned())
    });
    assert_eq!(told(&forward.included), sorted(expected.collect()));
    let patients = page("Observation", &[("_include", "Observation:*:Patient")]);
    assert!(!patients.included.is_empty() && patients.included.iter().all(|found| found.kind == "Patient"));
    for (kind, wanted, field) in
        [("Encounter", "Observation:encounter", "encounter"), ("Patient", "Encounter:subject", "subject")]
    {
        let back = page(kind, &[("_revinclude", wanted)]);
        let known: Vec<_> = back.resources.iter().map(Resource::reference).collect();
        let source = wanted.split(':').next().unwrap();
        let expected = of(source)
            .filter(|(_, body)| body[field]["reference"].as_str().is_some_and(|to| known.iter().any(|k| k == to)))
            .map(|(id, _)| format!("{source}/{id}"));
        assert_eq!(told(&back.included), sorted(expected.collect()), "{wanted}");
        assert!(!back.included.is_empty());
    }
    // Who may not read notes gets none by a detour.
    let desk = Actor::staff("d", "d", Role::FrontDesk);
    let query = Query::parse("Patient", &pairs(&[("_revinclude", "Encounter:subject")])).unwrap();
    let page = SAMPLE.store.view_blocking(&desk, |view: &View<'_>| view.search(&query)).unwrap();
    assert!(!page.resources.is_empty() && page.included.is_empty());
    let query = Query::parse("Appointment", &pairs(&[("appointment:Encounter.class", "AMB")]));
    assert!(query.is_err());
    let query = Query::parse("Claim", &pairs(&[("encounter.class", "AMB")])).unwrap();
    let asked = SAMPLE.store.view_blocking(&desk, |view: &View<'_>| view.search(&query));
    assert!(matches!(asked, Err(StoreError::Denied(_))), "a chain tells what its target holds");
}

#[test]
fn a_cursor_is_of_its_own_search_and_survives_changes() {
    let order = pairs(&[("_sort", "-date,code"), ("_count", "5")]);
    let actor = Actor::staff("u", "u", Role::Clinician);
    let view = |query: Query| SAMPLE.store.view_blocking(&actor, |view: &View<'_>| view.search(&query)).unwrap();
    let next = view(Query::parse("Observation", &order).unwrap()).next.unwrap().to_string();
    for other in
        [&[("_cursor", next.as_str())][..], &[("_sort", "code,date"), ("_cursor", &next)], &[("_cursor", "x!")]]
    {
        assert!(Query::parse("Observation", &pairs(other)).is_err(), "{other:?}");
    }
    let mut again = order.clone();
    again.push(("_cursor".into(), next));
    assert_eq!(view(Query::parse("Observation", &again).unwrap()).resources.len(), 5);
}

/// The searches that US Core 6.1 demands (SHALL) of the types that are kept.
const US_CORE: &[(&str, &[&str])] = &[
    ("Patient", &["_id", "identifier", "name", "birthdate+name", "gender+name"]),
    ("AllergyIntolerance", &["patient"]),
    ("CarePlan", &["patient+category"]),
    ("CareTeam", &["patient+status"]),
    ("Condition", &["patient", "patient+category"]),
    ("Coverage", &["patient"]),
    ("Device", &["patient"]),
    ("DiagnosticReport", &["patient", "patient+category", "patient+category+date", "patient+code"]),
    ("DocumentReference", &["_id", "patient", "patient+category", "patient+category+date", "patient+type"]),
    ("Encounter", &["_id", "patient", "date+patient"]),
    ("Goal", &["patient"]),
    ("Immunization", &["patient"]),
    ("Location", &["name", "address"]),
    ("MedicationDispense", &["patient"]),
    ("MedicationRequest", &["patient+intent", "patient+intent+status"]),
    ("Observation", &["patient+category", "patient+category+date", "patient+code"]),
    ("Organization", &["name", "address"]),
    ("Practitioner", &["name", "identifier"]),
    ("PractitionerRole", &["specialty", "practitioner"]),
    ("Procedure", &["patient", "patient+date"]),
    ("QuestionnaireResponse", &["_id", "patient"]),
    ("RelatedPerson", &["_id"]),
    ("ServiceRequest", &["_id", "patient", "patient+category", "patient+category+authored", "patient+code"]),
    ("Specimen", &["_id"]),
];

#[test]
fn every_search_that_us_core_demands_is_answered() {
    for (kind, searches) in US_CORE {
        for search in *searches {
            let values = search.split('+').map(|name| match name {
                "date" | "authored" => (name, "ge2010-01-01"),
                "birthdate" => (name, "1970-01-01"),
                name => (name, "x"),
            });
            let asked = pairs(&values.collect::<Vec<_>>());
            assert!(found(kind, &asked, 10).is_empty(), "{kind}?{search}");
            for (name, _) in asked.iter().filter(|(name, _)| ["date", "authored"].contains(&name.as_str())) {
                for prefix in ["gt", "lt", "ge", "le"] {
                    Query::parse(kind, &pairs(&[(name, &format!("{prefix}2020-01-01T00:00:00Z"))])).unwrap();
                }
            }
        }
        // Provenance of every kind of record.
        Query::parse(kind, &pairs(&[("_revinclude", "Provenance:target")])).unwrap();
    }
}
