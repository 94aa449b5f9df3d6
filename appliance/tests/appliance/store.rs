//! Properties of the records that a practice relies on, tried on the real database.

use crate::support;
use appliance::access::{Actor, Program, Role};
use appliance::audit::Action;
use appliance::clock::Clock;
use appliance::db::{Connection, Place};
use appliance::probe::Restored;
use appliance::store::{self, DATABASE_FILE, Expect, LedgerEntry, Mode, Posting, Query, Store, StoreError, Tx, View};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;

const NOON: i64 = 1_700_000_000_000;

fn open(dir: &Path) -> Store {
    Store::open(support::place(dir), Clock::manual(NOON), Mode::New).unwrap()
}

fn clinician() -> Actor {
    Actor::staff("u1", "dr.house", Role::Clinician)
}

fn patient(family: &str) -> Value {
    json!({ "resourceType": "Patient", "name": [{ "family": family, "given": ["Ada"] }], "birthDate": "1980-02-03" })
}

fn write<T: Send + 'static>(
    store: &Store,
    job: impl FnOnce(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    store.write_blocking(&clinician(), job)
}

fn audit_words(store: &Store) -> Vec<(String, String, String)> {
    let admin = Actor::staff("u9", "admin", Role::PracticeAdmin);
    let entries = store.view_blocking(&admin, |view: &View<'_>| view.audit_page(None, 1000)).unwrap();
    entries.into_iter().rev().map(|entry| (entry.action, entry.kind, entry.outcome)).collect()
}

fn count(store: &Store, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    store.internal_blocking(|db| db.query_row(&sql, [], |row| row.get(0)).map_err(StoreError::from)).unwrap()
}

#[test]
fn what_was_written_is_read_and_its_old_version_kept() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let first = write(&store, |tx| tx.create("Patient", patient("Mejía"))).unwrap();
    let id = first.id.clone();
    let second = write(&store, move |tx| {
        let mut body = tx.read("Patient", &id)?.json()?;
        body["gender"] = "female".into();
        tx.update("Patient", &id, body, Expect::Version(1))
    })
    .unwrap();
    assert_eq!((second.version, second.json().unwrap()["meta"]["versionId"].clone()), (2, json!("2")));
    let (read, old) = store
        .view_blocking(&clinician(), |view: &View<'_>| {
            Ok::<_, StoreError>((view.read("Patient", &first.id)?, view.version("Patient", &first.id, 1)?))
        })
        .unwrap();
    assert_eq!(read, second);
    assert_eq!(old.body, first.body);
    assert_eq!((count(&store, "history"), count(&store, "resource")), (1, 1));
}

#[test]
fn an_update_of_another_version_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stored = write(&store, |tx| tx.create("Patient", patient("Abel"))).unwrap();
    let id = stored.id.clone();
    for (expect, version_told) in [(Expect::Version(2), Some(1)), (Expect::Nothing, None)] {
        let id = id.clone();
        match (write(&store, move |tx| tx.update("Patient", &id, patient("Other"), expect)), version_told) {
            (Err(StoreError::VersionConflict { current }), Some(version)) => assert_eq!(current, version),
            (Err(StoreError::VersionRequired), None) => {}
            (other, _) => panic!("{other:?}"),
        }
    }
    let found = store.view_blocking(&clinician(), |view: &View<'_>| view.read("Patient", &id)).unwrap();
    assert_eq!(found, stored);
    assert_eq!(count(&store, "history"), 0);
}

#[test]
fn a_transaction_is_carried_out_whole_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let entry = |url: &str, body: Value| {
        let request = json!({ "method": "POST", "url": body["resourceType"] });
        json!({ "fullUrl": url, "resource": body, "request": request })
    };
    let condition = |subject: &str| json!({ "resourceType": "Condition", "subject": { "reference": subject } });
    let bundle = |subject: &str| {
        let entries = [entry("urn:uuid:c", condition(subject)), entry("urn:uuid:p", patient("Abel"))];
        json!({ "resourceType": "Bundle", "type": "transaction", "entry": entries })
    };
    let before = count(&store, "audit");
    for broken in [bundle("urn:uuid:nobody"), bundle("Patient/nobody"), bundle("Patient?name=nobody")] {
        let refused = write(&store, move |tx| tx.transaction(broken));
        assert!(matches!(refused, Err(StoreError::Invalid { .. })), "{refused:?}");
        assert_eq!((count(&store, "resource"), count(&store, "ix_string"), count(&store, "audit")), (0, 0, before));
    }
    let good = bundle("urn:uuid:p");
    let answer = write(&store, move |tx| tx.transaction(good)).unwrap();
    let location = |n: usize| answer["entry"][n]["response"]["location"].as_str().unwrap().to_owned();
    assert!(location(0).starts_with("Condition/") && location(1).starts_with("Patient/"));
    let patient_id = location(1).split('/').nth(1).unwrap().to_owned();
    let chart = store.view_blocking(&clinician(), |view: &View<'_>| view.chart(&patient_id)).unwrap();
    assert_eq!(chart.problems[0].json().unwrap()["subject"]["reference"], json!(format!("Patient/{patient_id}")));
}

#[test]
fn conditional_references_and_creates_find_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let doctor = json!({ "resourceType": "Practitioner", "identifier": [{ "system": "npi", "value": "42" }] });
    let bundle = || {
        json!({ "resourceType": "Bundle", "type": "transaction", "entry": [
            { "fullUrl": "urn:uuid:d", "resource": doctor.clone(),
              "request": { "method": "POST", "url": "Practitioner", "ifNoneExist": "identifier=npi|42" } },
            { "resource": { "resourceType": "PractitionerRole",
                            "practitioner": { "reference": "Practitioner?identifier=npi|42" } },
              "request": { "method": "POST", "url": "PractitionerRole" } },
        ]})
    };
    for _ in 0..2 {
        let bundle = bundle();
        write(&store, move |tx| tx.transaction(bundle)).unwrap_err();
        // A clinician may not add to the directory: the whole transaction is refused.
    }
    for _ in 0..2 {
        let bundle = bundle();
        store.write_blocking(&Actor::program(Program::Import), move |tx: &mut Tx<'_>| tx.transaction(bundle)).unwrap();
    }
    let all = |kind: &str| {
        let query = Query::all(kind).unwrap();
        store.view_blocking(&clinician(), |view: &View<'_>| view.search(&query)).unwrap().resources
    };
    assert_eq!((all("Practitioner").len(), all("PractitionerRole").len()), (1, 2));
    let target = format!("Practitioner/{}", all("Practitioner")[0].id);
    assert_eq!(all("PractitionerRole")[1].json().unwrap()["practitioner"]["reference"], json!(target));
}

#[test]
fn reads_writes_and_refusals_are_in_the_audit() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stored = write(&store, |tx| tx.create("Patient", patient("Abel"))).unwrap();
    store.view_blocking(&clinician(), |view: &View<'_>| view.read("Patient", &stored.id)).unwrap();
    let desk = Actor::staff("u2", "desk", Role::FrontDesk);
    let refused = store.view_blocking(&desk, |view: &View<'_>| view.search(&Query::all("Condition")?));
    assert!(matches!(refused, Err(StoreError::Denied(_))));
    let told =
        |action: Action, kind: &str, outcome: &str| (action.as_str().to_owned(), kind.to_owned(), outcome.to_owned());
    let expected = [
        told(Action::Create, "Patient", "done"),
        told(Action::Read, "Patient", "done"),
        told(Action::Search, "Condition", "denied"),
    ];
    assert_eq!(audit_words(&store), expected);
}

#[test]
fn a_request_whose_audit_cannot_be_written_fails() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let stored = write(&store, |tx| tx.create("Patient", patient("Abel"))).unwrap();
    let saboteur = support::raw(dir.path());
    let (refuse, relent) = match support::is_postgres() {
        false => ("CREATE TRIGGER no BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'no'); END", "DROP TRIGGER no"),
        true => (
            "CREATE TRIGGER no BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION append_only()",
            "DROP TRIGGER no ON audit",
        ),
    };
    saboteur.execute_batch(refuse).unwrap();
    let created = write(&store, |tx| tx.create("Patient", patient("Brandt")));
    assert!(matches!(created, Err(StoreError::Audit)), "{created:?}");
    let read = store.view_blocking(&clinician(), |view: &View<'_>| view.read("Patient", &stored.id));
    assert!(matches!(read, Err(StoreError::Audit)), "{read:?}");
    assert_eq!(count(&store, "resource"), 1);
    saboteur.execute_batch(relent).unwrap();
    store.view_blocking(&clinician(), |view: &View<'_>| view.read("Patient", &stored.id)).unwrap();
}

#[test]
fn a_changed_removed_or_inserted_audit_entry_breaks_the_chain() {
    let tamperings = [
        "UPDATE audit SET actor_name = 'nobody' WHERE seq = 2",
        "UPDATE audit SET at_ms = at_ms + 1 WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 2",
        "DELETE FROM audit WHERE seq = 1",
        "UPDATE audit SET kind = 'Patien', object = 't' || object WHERE seq = 2",
    ];
    for tampering in tamperings {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for family in ["Abel", "Brandt", "Castillo"] {
            write(&store, move |tx| tx.create("Patient", patient(family))).unwrap();
        }
        drop(store);
        let file = support::as_file(dir.path());
        assert_eq!(Restored::open(&file).facts().unwrap().audit_entries, 3);
        let saboteur = Connection::open(file.join(DATABASE_FILE)).unwrap();
        saboteur.execute_batch("DROP TRIGGER audit_keep_u; DROP TRIGGER audit_keep_d;").unwrap();
        saboteur.execute_batch(tampering).unwrap();
        drop(saboteur);
        let facts = Restored::open(&file).facts();
        assert!(matches!(facts, Err(StoreError::Damaged("audit chain"))), "{tampering}: {facts:?}");
    }
}

#[test]
fn audit_history_and_ledger_cannot_be_changed_through_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    write(&store, |tx| tx.create("Patient", patient("Abel"))).unwrap();
    for sql in ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"] {
        let changed = write(&store, move |tx| tx.connection().execute_batch(sql).map_err(StoreError::from));
        assert!(changed.is_err(), "{sql}");
    }
}

#[test]
fn a_posting_must_balance() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let posting = |cents: i64| Posting {
        kind: "charge".into(),
        reference: "Encounter/1".into(),
        patient: String::new(),
        entries: vec![
            LedgerEntry { account: "receivable".into(), cents: 100 },
            LedgerEntry { account: "revenue".into(), cents },
        ],
    };
    let actor = Actor::program(Program::Seed);
    let (unequal, equal) = (posting(-99), posting(-100));
    store.write_blocking(&actor, move |tx: &mut Tx<'_>| tx.post(&unequal)).unwrap_err();
    store.write_blocking(&actor, move |tx: &mut Tx<'_>| tx.post(&equal)).unwrap();
    drop(store);
    let facts = support::restored(dir.path()).facts().unwrap();
    assert_eq!((facts.ledger_entries, facts.ledger_balance_cents), (2, 100));
}

#[test]
fn one_process_at_a_time_and_no_newer_schema() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let second = Store::open(support::place(dir.path()), Clock::system(), Mode::Exclusive).err();
    assert!(matches!(second, Some(StoreError::InUse)));
    if support::is_postgres() {
        // On another data folder: the database itself is held.
        let other = tempfile::tempdir().unwrap();
        std::fs::copy(dir.path().join("records.made"), other.path().join("records.made")).unwrap();
        let place = Place::new(other.path(), support::place(dir.path()).server().map(|server| (**server).clone()));
        let third = Store::open(place, Clock::system(), Mode::Exclusive).err();
        assert!(matches!(third, Some(StoreError::Held)), "{third:?}");
    }
    drop(Store::open(support::place(dir.path()), Clock::system(), Mode::Beside).unwrap());
    drop(store);
    let raw = support::raw(dir.path());
    raw.set_schema_number(99).unwrap();
    drop(raw);
    let newer = Store::open(support::place(dir.path()), Clock::system(), Mode::Exclusive).err();
    assert!(matches!(newer, Some(StoreError::Newer { found: 99, .. })));
}

#[test]
fn a_failing_job_leaves_those_committed_with_it_untouched() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let store = store.clone();
            std::thread::spawn(move || {
                for round in 0..20 {
                    let fails = (thread + round) % 3 == 0;
                    let done = write(&store, move |tx| {
                        let stored = tx.create("Patient", patient("Abel"))?;
                        if fails { Err(StoreError::Busy) } else { Ok(stored) }
                    });
                    assert_eq!(done.is_err(), fails);
                }
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    let expected = (0..8).flat_map(|t| (0..20).map(move |r| (t + r) % 3 != 0)).filter(|ok| *ok).count();
    assert_eq!(count(&store, "resource"), i64::try_from(expected).unwrap());
    assert_eq!(count(&store, "audit"), i64::try_from(expected).unwrap());
    drop(store);
    support::restored(dir.path()).facts().unwrap();
}

#[test]
fn attachments_are_what_they_look_like_and_never_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(store.attachments().stage(b"MZ\x90\x00\x03").is_err());
    assert!(store.attachments().stage(b"").is_err());
    let pdf = store.attachments().stage(b"%PDF-1.4 words").unwrap();
    assert_eq!(pdf.media_type, "application/pdf");
    let html = store.attachments().stage(b"<script>alert(1)</script>").unwrap();
    assert_eq!(html.media_type, "text/plain; charset=utf-8");
    let row = write(&store, move |tx| tx.attach(&pdf, None)).unwrap();
    assert_eq!(store.attachments().read(&row).unwrap(), b"%PDF-1.4 words");
    let name = row.file_name().unwrap();
    let file = dir.path().join("attachments").join(&name[..2]).join(&name[2..]);
    let sealed = std::fs::read(&file).unwrap();
    assert_eq!(blake3::hash(&sealed).to_hex().as_str(), name, "the name is that of what the file holds");
    assert!(!sealed.windows(8).any(|window| b"%PDF-1.4 words".windows(8).any(|words| words == window)));
    // The same bytes twice are two files: the folder does not tell that somebody has what somebody else has.
    let again = store.attachments().stage(b"%PDF-1.4 words").unwrap();
    assert_ne!(hex::encode(again.sealed.file), name);
    std::fs::write(&file, b"%PDF-1.4 other").unwrap();
    assert!(matches!(store.attachments().read(&row), Err(StoreError::Damaged(_))));
    assert!(store.attachments().heal(&row, b"%PDF-1.4 other").is_err());
    store.attachments().heal(&row, b"%PDF-1.4 words").unwrap();
    assert_eq!(std::fs::read(&file).unwrap(), sealed);
    // A row whose key is ended is the end of its file, whoever has the file.
    let end = "UPDATE attachment SET key = NULL WHERE id = ?1";
    let id = row.id.clone();
    write(&store, move |tx| Ok(tx.connection().execute(end, [id])?)).unwrap();
    let id = row.id.clone();
    let actor = clinician();
    let ended = store.view_blocking(&actor, move |view: &View<'_>| view.attachment(&id)).unwrap();
    assert!(matches!(store.attachments().read(&ended), Err(StoreError::NotFound)));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        Just(json!("urn:uuid:1")),
        Just(json!("Patient?identifier=1")),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        let name = prop_oneof![
            "[a-z]{1,6}",
            prop::sample::select(vec![
                "resourceType",
                "id",
                "meta",
                "name",
                "identifier",
                "entry",
                "request",
                "resource",
                "method",
                "url",
                "reference",
                "subject",
                "participant",
                "actor",
                "period",
                "start",
                "coding",
                "code",
                "fullUrl",
                "type",
            ])
            .prop_map(str::to_owned),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

#[test]
fn a_database_that_is_gone_is_never_begun_anew() {
    if support::is_postgres() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        let whole = support::raw(dir.path());
        // Made anew by somebody, without anything in it.
        whole.execute_batch("DROP SCHEMA public CASCADE; CREATE SCHEMA public").unwrap();
        for mode in [Mode::Beside, Mode::Exclusive, Mode::New] {
            let opened = Store::open(support::place(dir.path()), Clock::manual(0), mode);
            assert!(matches!(opened, Err(StoreError::Lost)), "{mode:?}");
        }
        assert_eq!(whole.schema_number().unwrap(), Some(0), "nothing is made");
        return;
    }
    for lose in [|file: &Path| std::fs::remove_file(file), |file: &Path| std::fs::write(file, "")] {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path()));
        for suffix in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(dir.path().join(format!("{DATABASE_FILE}{suffix}")));
        }
        lose(&dir.path().join(DATABASE_FILE)).unwrap();
        let before = std::fs::metadata(dir.path().join(DATABASE_FILE)).is_ok();
        let opened = Store::open(support::place(dir.path()), Clock::manual(0), Mode::Beside);
        assert!(matches!(opened, Err(StoreError::Lost)));
        let begun = Store::open(support::place(dir.path()), Clock::manual(0), Mode::New);
        assert!(matches!(begun, Err(StoreError::Lost)), "not even where somebody asks for a new practice");
        assert_eq!(std::fs::metadata(dir.path().join(DATABASE_FILE)).is_ok(), before, "nothing is touched");
    }
}

#[test]
fn a_folder_without_a_database_is_no_practice_until_somebody_begins_one() {
    let dir = tempfile::tempdir().unwrap();
    // A bare mount point, or none: what `appliance serve` sees of a disk that is not mounted.
    for data in [dir.path().to_owned(), dir.path().join("not-mounted")] {
        for mode in [Mode::Exclusive, Mode::Beside] {
            let refused = Store::open(support::place(&data), Clock::manual(0), mode).err().unwrap();
            assert!(matches!(refused, StoreError::NoDatabase), "{refused}");
            for remedy in ["mount", "backupd recover", "appliance init"] {
                assert!(refused.to_string().contains(remedy), "{refused}");
            }
        }
        assert!(!data.exists() || std::fs::read_dir(&data).unwrap().next().is_none(), "nothing was written");
        assert!(!store::is_begun(support::place(&data)).unwrap());
    }
    if support::is_postgres() {
        // What an `init` leaves that was cut off: a database, and a folder that does not know of it.
        drop(open(dir.path()));
        std::fs::remove_file(dir.path().join("records.made")).unwrap();
        let refused = Store::open(support::place(dir.path()), Clock::manual(0), Mode::Exclusive);
        assert!(matches!(refused, Err(StoreError::NotItsFolder)));
        assert!(!store::is_begun(support::place(dir.path())).unwrap());
        let store = open(dir.path());
        write(&store, |tx| tx.create("Patient", patient("Abel"))).unwrap();
        drop(store);
        // With a record in it, it is another folder: the disk that holds its attachments is not mounted.
        std::fs::remove_file(dir.path().join("records.made")).unwrap();
        for mode in [Mode::Exclusive, Mode::New] {
            let refused = Store::open(support::place(dir.path()), Clock::manual(0), mode);
            assert!(matches!(refused, Err(StoreError::NotItsFolder)));
        }
        return;
    }
    // What an `init` leaves that was cut off: a file of SQLite's without a table.
    let database = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    database.execute_batch("PRAGMA journal_mode = WAL; VACUUM").unwrap();
    drop(database);
    let cut_off = Store::open(support::place(dir.path()), Clock::manual(0), Mode::Exclusive);
    assert!(matches!(cut_off, Err(StoreError::NoDatabase)));
    drop(Store::open(support::place(dir.path()), Clock::manual(0), Mode::New).unwrap());
    assert!(store::is_begun(support::place(dir.path())).unwrap());
    drop(Store::open(support::place(dir.path()), Clock::manual(0), Mode::Exclusive).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_search_panics_and_none_reaches_sql(name in "[a-z_:.]{0,20}", value in "\\PC{0,40}") {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for kind in ["Patient", "Observation", "Appointment", "Nonsense'; DROP TABLE resource; --"] {
            let names = ["name", "code", "date", "patient", "_id", "_lastUpdated", "_count", "_cursor", "actor"];
            for name in names.into_iter().chain([name.as_str()]) {
                if let Ok(query) = Query::parse(kind, &[(name.to_owned(), value.clone())]) {
                    store.view_blocking(&clinician(), |view: &View<'_>| view.search(&query)).unwrap();
                }
            }
        }
    }

    #[test]
    fn no_resource_or_bundle_panics(mut bodies in prop::collection::vec(json_value(), 1..20)) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for body in &mut bodies {
            let (resource, mut bundle) = (body.clone(), body.clone());
            if let Some(object) = bundle.as_object_mut() {
                object.insert("resourceType".into(), "Bundle".into());
                object.insert("type".into(), "transaction".into());
            }
            let mut typed = resource.clone();
            if let Some(object) = typed.as_object_mut() {
                object.insert("resourceType".into(), "Patient".into());
            }
            let _ = write(&store, move |tx| tx.create("Patient", resource));
            let _ = write(&store, move |tx| tx.create("Patient", typed));
            let _ = write(&store, move |tx| tx.transaction(bundle));
        }
    }
}
