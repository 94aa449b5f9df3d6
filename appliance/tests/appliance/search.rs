//! Search on the sample bundles, compared with a brute-force reading of the JSON that shares nothing with the index.

use crate::support;
use appliance::access::{Actor, Role};
use appliance::clock::Clock;
use appliance::import::bundles::{self, FileOutcome};
use appliance::store::{Mode, Query, Store, StoreError, View};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

fn fixtures() -> (tempfile::TempDir, Store, BTreeMap<String, u64>) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(support::place(dir.path()), Clock::system(), Mode::New).unwrap();
    let mut counts = BTreeMap::new();
    for file in bundles::files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")).unwrap() {
        match bundles::load(&store, &file) {
            FileOutcome::Loaded(loaded) => {
                loaded.into_iter().for_each(|(kind, n)| *counts.entry(kind).or_default() += n)
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(bundles::load(&store, &file), FileOutcome::AlreadyLoaded));
    }
    (dir, store, counts)
}

fn everything(store: &Store) -> Vec<(String, String, Value)> {
    let sql = "SELECT t.name, r.id, r.body FROM resource r JOIN resource_type t ON t.id = r.type ORDER BY r.rid";
    store
        .internal_blocking(|db| {
            let mut statement = db.prepare(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, String>(2)?)))?;
            let rows = rows.collect::<Result<Vec<_>, _>>()?;
            Ok::<_, StoreError>(rows)
        })
        .unwrap()
        .into_iter()
        .map(|(kind, id, body): (String, String, String)| (kind, id, serde_json::from_str(&body).unwrap()))
        .collect()
}

/// All pages of a search, by ids; a page holds seven, so that paging is tried as well.
fn found(store: &Store, kind: &str, pairs: &[(&str, &str)]) -> Vec<String> {
    let actor = Actor::staff("u", "u", Role::Clinician);
    let pairs = pairs.iter().chain(&[("_count", "7")]);
    let pairs: Vec<_> = pairs.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut query = Query::parse(kind, &pairs).unwrap();
    let mut ids = Vec::new();
    loop {
        let asked = query.clone();
        let page = store.view_blocking(&actor, |view: &View<'_>| view.search(&asked)).unwrap();
        assert!(page.resources.len() <= 7);
        ids.extend(page.resources.into_iter().map(|resource| resource.id));
        match page.next {
            Some(next) => query = query.after(next),
            None => return ids,
        }
    }
}

/// All texts under `key`, wherever they are.
fn texts<'v>(value: &'v Value, key: &str, out: &mut BTreeSet<&'v str>) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| texts(item, key, out)),
        Value::Object(element) => element.iter().for_each(|(name, value)| match value {
            Value::String(text) if name == key => drop(out.insert(text)),
            value => texts(value, key, out),
        }),
        _ => {}
    }
}

fn has(value: &Value, key: &str, wanted: impl Fn(&str) -> bool) -> bool {
    let mut found = BTreeSet::new();
    texts(value, key, &mut found);
    found.into_iter().any(wanted)
}

#[test]
fn every_resource_of_the_bundles_is_there_with_its_references_rewritten() {
    let (_dir, store, counts) = fixtures();
    let all = everything(&store);
    let mut stored = BTreeMap::<String, u64>::new();
    all.iter().for_each(|(kind, ..)| *stored.entry(kind.clone()).or_default() += 1);
    assert_eq!(stored, counts);
    assert_eq!((counts["Patient"], all.len() > 100), (3, true));
    let known: BTreeSet<_> = all.iter().map(|(kind, id, _)| format!("{kind}/{id}")).collect();
    for (kind, _, body) in &all {
        let mut references = BTreeSet::new();
        texts(body, "reference", &mut references);
        for reference in references {
            assert!(reference.starts_with('#') || known.contains(reference), "{kind}: {reference}");
        }
    }
}

#[test]
fn searches_find_what_a_reading_of_the_json_finds() {
    let (_dir, store, _) = fixtures();
    let all = everything(&store);
    let patients: Vec<_> = all.iter().filter(|(kind, ..)| kind == "Patient").map(|(_, id, _)| id.clone()).collect();
    let scan = |kind: &str, keep: &dyn Fn(&Value) -> bool| -> Vec<String> {
        all.iter().filter(|(k, _, body)| k == kind && keep(body)).map(|(_, id, _)| id.clone()).collect()
    };
    let mut nonempty = 0;
    let mut same = |kind: &str, pairs: &[(&str, &str)], keep: &dyn Fn(&Value) -> bool| {
        let expected = scan(kind, keep);
        nonempty += usize::from(!expected.is_empty());
        assert_eq!(found(&store, kind, pairs), expected, "{kind} {pairs:?}");
    };
    for patient in &patients {
        let reference = format!("Patient/{patient}");
        let of = |body: &Value| {
            has(&body["subject"], "reference", |r| r == reference)
                || has(&body["patient"], "reference", |r| r == reference)
        };
        for kind in
            ["Observation", "Condition", "Encounter", "Immunization", "Claim", "ExplanationOfBenefit", "Procedure"]
        {
            same(kind, &[("patient", patient)], &of);
            let name =
                if ["Immunization", "Claim", "ExplanationOfBenefit"].contains(&kind) { "patient" } else { "subject" };
            same(kind, &[(name, &reference)], &of);
        }
        for code in ["8302-2", "29463-7", "8462-4", "0000-0"] {
            let system = format!("http://loinc.org|{code}");
            let keep = |body: &Value| of(body) && has(&body["code"], "code", |c| c == code);
            same("Observation", &[("patient", patient), ("code", code)], &keep);
            same("Observation", &[("patient", patient), ("code", &system)], &keep);
            same("Observation", &[("code", &system)], &|body| has(&body["code"], "code", |c| c == code));
        }
        for year in ["2010", "2014", "2017", "2019"] {
            let at = |body: &Value| body["effectiveDateTime"].as_str().unwrap_or("").to_owned();
            same("Observation", &[("patient", patient), ("date", year)], &|body| {
                of(body) && at(body).starts_with(year)
            });
            let ge = format!("ge{year}");
            same("Observation", &[("patient", patient), ("date", &ge)], &|body| of(body) && at(body).as_str() >= year);
            let lt = format!("lt{year}");
            same("Observation", &[("patient", patient), ("date", &lt)], &|body| {
                of(body) && !at(body).is_empty() && at(body).as_str() < year
            });
        }
    }
    same("Observation", &[("category", "vital-signs")], &|body| has(&body["category"], "code", |c| c == "vital-signs"));
    same("Encounter", &[("class", "AMB,WELLNESS")], &|body| {
        ["AMB", "WELLNESS"].contains(&body["class"]["code"].as_str().unwrap())
    });
    same("Encounter", &[("status", "finished")], &|body| body["status"] == "finished");
    same("Patient", &[("gender", "female")], &|body| body["gender"] == "female");
    same("Patient", &[("birthdate", "lt2000")], &|body| body["birthDate"].as_str().unwrap() < "2000");
    same("Patient", &[("family", "mej")], &|body| body["name"][0]["family"].as_str().unwrap().starts_with("Mej"));
    same("Organization", &[("name:contains", "hospital")], &|body| {
        body["name"].as_str().unwrap().to_lowercase().contains("hospital")
    });
    let encounter = all.iter().find(|(kind, ..)| kind == "Encounter").unwrap().1.clone();
    let reference = format!("Encounter/{encounter}");
    same("Observation", &[("encounter", &encounter)], &|body| body["encounter"]["reference"] == reference.as_str());
    same("Patient", &[("_id", &patients[0])], &|body| body["id"] == patients[0].as_str());
    assert!(nonempty > 30, "only {nonempty} searches found anything: the comparison says little");
}

#[test]
fn an_unknown_parameter_is_refused_not_ignored() {
    for (kind, name) in
        [("Patient", "favourite"), ("Observation", "code:below"), ("Patient", "patient"), ("Nonsense", "_id")]
    {
        let refused = Query::parse(kind, &[(name.to_owned(), "1".to_owned())]);
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{kind}?{name}");
    }
}

#[test]
fn a_file_that_fails_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(support::place(dir.path().join("data")), Clock::system(), Mode::New).unwrap();
    let good = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/bundle-1.json")).unwrap();
    let mut bundle: Value = serde_json::from_slice(&good).unwrap();
    let last = bundle["entry"].as_array().unwrap().len() - 1;
    bundle["entry"][last]["resource"]["resourceType"] = "Nonsense".into();
    let cut = good[..good.len() / 2].to_vec();
    for bytes in [bundle.to_string().into_bytes(), cut, b"[]".to_vec(), Vec::new()] {
        let file = dir.path().join("bundle.json");
        std::fs::write(&file, bytes).unwrap();
        assert!(matches!(bundles::load(&store, &file), FileOutcome::Failed(_)));
        assert_eq!(everything(&store).len(), 0);
    }
}

#[test]
fn an_index_drawn_by_another_release_is_rebuilt() {
    let (dir, store, _) = fixtures();
    let expected = found(&store, "Observation", &[("category", "vital-signs")]);
    assert!(!expected.is_empty());
    drop(store);
    let raw = support::raw(dir.path());
    raw.execute_batch("DELETE FROM ix_token; UPDATE meta SET value = 'older' WHERE key = 'index-parameters'").unwrap();
    drop(raw);
    let store = Store::open(support::place(dir.path()), Clock::system(), Mode::New).unwrap();
    assert_eq!(found(&store, "Observation", &[("category", "vital-signs")]), expected);
}
