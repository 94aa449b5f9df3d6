//! Records of every released schema are migrated forward, whole, and found again.

use appliance::access::{self, Actor, Role};
use appliance::clock::Clock;
use appliance::probe::Restored;
use appliance::store::{DATABASE_FILE, Mode, Query, SCHEMA_VERSION, Store, View};
use appliance::{consents, forms, scheduling};
use rusqlite::Connection;

/// The schemas as they were released, up to the last before this one; a released step is never changed.
const STEPS: [&[&str]; 10] = [
    &[include_str!("../../src/store/schema-1.sql"), access::SCHEMA],
    &[include_str!("../../src/store/schema-2.sql")],
    &[include_str!("../../src/store/schema-3.sql")],
    &[include_str!("../../src/store/schema-4.sql")],
    &[scheduling::SCHEMA],
    &[forms::SCHEMA, consents::SCHEMA, access::SCHEMA_2],
    &[include_str!("../../src/store/schema-5.sql")],
    &[access::SCHEMA_3],
    &[access::SCHEMA_4],
    &[include_str!("../../src/store/schema-10.sql")],
];

/// A database as a release of schema `version` left it, with one patient, one superseded version and one condition.
fn written_by(version: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    STEPS[..version].iter().copied().flatten().for_each(|step| db.execute_batch(step).unwrap());
    db.pragma_update(None, "application_id", 0x4866_454d).unwrap();
    db.pragma_update(None, "user_version", u32::try_from(version).unwrap()).unwrap();
    let body = |version: u32, family: &str| {
        format!(
            r#"{{"resourceType":"Patient","id":"p","meta":{{"versionId":"{version}"}},"name":[{{"family":"{family}"}}]}}"#
        )
    };
    let condition =
        r#"{"resourceType":"Condition","id":"c","subject":{"reference":"Patient/p"},"code":{"coding":[{"code":"1"}]}}"#;
    db.execute_batch("INSERT INTO resource_type VALUES (1, 'Patient'), (9, 'Condition')").unwrap();
    let sql =
        "INSERT INTO resource (rid, type, id, version, updated_ms, patient, body) VALUES (?1, ?2, ?3, ?4, 5, 1, ?5)";
    db.execute(sql, (1, 1, "p", 2, body(2, "Mejía"))).unwrap();
    db.execute(sql, (2, 9, "c", 1, condition)).unwrap();
    db.execute("INSERT INTO history VALUES (1, 1, 4, ?1)", [body(1, "Abel")]).unwrap();
    dir
}

#[test]
fn every_released_schema_is_migrated_and_searched() {
    for version in 1..=STEPS.len() {
        let dir = written_by(version);
        let before = Restored::open(dir.path()).facts().unwrap();
        let store = Store::open(dir.path(), Clock::manual(1_700_000_000_000), Mode::Exclusive).unwrap();
        let actor = Actor::staff("u", "u", Role::Clinician);
        for (kind, name, value) in [
            ("Patient", "family", "mej"),
            ("Condition", "patient", "p"),
            ("Condition", "code", "1"),
            ("Condition", "patient.family", "Mejía"),
        ] {
            let query = Query::parse(kind, &[(name.to_owned(), value.to_owned())]).unwrap();
            let found = store.view_blocking(&actor, |view: &View<'_>| view.search(&query)).unwrap();
            assert_eq!(found.resources.len(), 1, "schema {version}: {kind}?{name}");
        }
        let old = store.view_blocking(&actor, |view: &View<'_>| view.version("Patient", "p", 1)).unwrap();
        assert!(old.body.contains("Abel"));
        drop(store);
        let after = Restored::open(dir.path()).facts().unwrap();
        assert_eq!((after.schema_version, &after.resources), (SCHEMA_VERSION, &before.resources));
        assert_eq!((after.history_rows, &after.resources_digest), (1, &before.resources_digest));
    }
}
