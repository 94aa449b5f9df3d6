//! Moving in from tables: nothing comes in twice, nothing is lost without a word, nothing that a person changed is overwritten.

use crate::support;
use appliance::access::{Actor, Program, Role};
use appliance::clock::Clock;
use appliance::import::{self, Counts, Dates, Encoding, Input, Options, Report, Table};
use appliance::store::{Expect, Mode, Query, Store, StoreError, Tx, View};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const NOW_MS: i64 = 1_780_000_000_000;

struct Move {
    dir: tempfile::TempDir,
    store: Store,
    options: Options,
}

impl Move {
    fn new() -> Move {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(support::place(dir.path().join("data")), Clock::manual(NOW_MS), Mode::New).unwrap();
        fs::create_dir_all(dir.path().join("in/documents/letters")).unwrap();
        let staff = json!({"resourceType": "Practitioner", "identifier": [{"system": "urn:x", "value": "7"}],
            "name": [{"family": "Rossi", "given": ["Ada"], "prefix": ["Dr."]}]});
        let seed = Actor::program(Program::Seed);
        store
            .write_blocking::<_, StoreError, _>(&seed, move |tx: &mut Tx<'_>| tx.create("Practitioner", staff))
            .unwrap();
        let options = Options {
            source: "old".into(),
            encoding: Encoding::Unicode,
            dates: Dates::Iso,
            zone: chrono_tz::Europe::Berlin,
        };
        Move { dir, store, options }
    }

    fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.dir.path().join("in").join(name), bytes).unwrap();
    }

    fn run(&self, dry: bool) -> Report {
        let plan =
            import::plan(&self.store, &Input::folder(&self.dir.path().join("in")).unwrap(), &self.options).unwrap();
        let report = match dry {
            true => plan.dry_run(&self.store).unwrap(),
            false => plan.carry_out(&self.store, &Actor::program(Program::Import), |_| ()).unwrap(),
        };
        for counts in report.tables.values() {
            let told = counts.new + counts.changed + counts.same + counts.kept + counts.refused;
            assert_eq!(counts.rows, told, "every row is told of exactly once: {report:?}");
        }
        report
    }

    fn all(&self, kind: &str) -> Vec<Value> {
        let reader = Actor::staff("u", "u", Role::Clinician);
        let query = Query::all(kind).unwrap();
        let found = self.store.view_blocking(&reader, |view: &View<'_>| view.search(&query)).unwrap();
        found.resources.iter().map(|found| found.json().unwrap()).collect()
    }
}

const PATIENTS: &str = "number,family,given,birth,gender,phone,city\n\
    17,Abel,\"Jo Ann\",1960-05-06,f,030 12345,Bern\n18,Brandt,Max,1970-01-02,m,,\n";
const APPOINTMENTS: &str = "number;patient;day;time;minutes;practitioner;status;reason\n\
    1;17;2027-03-01;09:00;20;Dr. Rossi;;Check\n2;18;2020-03-01;09:00;30;7;;\n3;17;2020-03-01;09:00;30;7;cancelled;\n";
const DOCUMENTS: &str =
    "number,patient,file,day,description\n1,17,letters/1.pdf,2020-02-03,Letter\n2,18,note.txt,2020-02-03,Note\n";

fn good() -> Move {
    let moving = Move::new();
    moving.put("patients.csv", PATIENTS);
    moving.put("appointments.csv", APPOINTMENTS);
    moving.put("documents.csv", DOCUMENTS);
    moving.put("documents/letters/1.pdf", b"%PDF-1.4 letter");
    moving.put("documents/note.txt", "Grüße");
    moving
}

/// The paths of all files below a folder.
fn walk(dir: &Path) -> std::collections::BTreeSet<std::path::PathBuf> {
    let entries = fs::read_dir(dir).unwrap().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { [path].into() }).collect()
}

fn counts(rows: u64, new: u64, changed: u64, same: u64, kept: u64) -> Counts {
    Counts { rows, new, changed, same, kept, refused: 0 }
}

#[test]
fn a_dry_run_changes_nothing_and_a_repetition_adds_nothing() {
    let moving = good();
    let dry = moving.run(true);
    assert!(dry.is_whole() && moving.all("Patient").is_empty());
    assert!(fs::read_dir(moving.dir.path().join("data/attachments")).unwrap().next().is_none(), "no file was written");
    let first = moving.run(false);
    assert_eq!((&first.tables, first.is_whole()), (&dry.tables, true), "the dry run told what would be done");
    let files = walk(&moving.dir.path().join("data/attachments"));
    let again = moving.run(false);
    for (table, rows) in [(Table::Patients, 2), (Table::Appointments, 3), (Table::Documents, 2)] {
        assert_eq!(first.tables[&table], counts(rows, rows, 0, 0, 0));
        assert_eq!(again.tables[&table], counts(rows, 0, 0, rows, 0));
    }
    assert_eq!(walk(&moving.dir.path().join("data/attachments")), files, "a repetition adds no file");
    let patients = moving.all("Patient");
    assert_eq!((patients.len(), moving.all("Appointment").len(), moving.all("DocumentReference").len()), (2, 3, 2));
    let abel = patients.iter().find(|p| p["name"][0]["family"] == "Abel").unwrap();
    assert_eq!(abel["name"][0]["given"], json!(["Jo", "Ann"]));
    assert_eq!((&abel["gender"], &abel["telecom"][0]["value"]), (&json!("female"), &json!("030 12345")));
    let visits = moving.all("Appointment");
    let visit = visits.iter().find(|a| a["identifier"][0]["value"] == "1").unwrap();
    assert_eq!(
        (&visit["start"], &visit["status"]),
        (&json!("2027-03-01T08:00:00Z"), &json!("booked")),
        "in the practice's zone"
    );
    assert_eq!(visit["participant"][1]["actor"]["display"], "Dr. Ada Rossi");
    assert_eq!(visits.iter().filter(|a| a["status"] == "fulfilled").count(), 1, "what is over took place");
    drop(moving.store);
    // What was brought in is part of the facts, its files included.
    let facts = support::restored(moving.dir.path().join("data")).facts().unwrap();
    assert_eq!((facts.attachments, facts.resources["Patient"]), (2, 2));
}

#[test]
fn a_corrected_row_changes_what_it_became_and_never_what_a_person_wrote() {
    let moving = good();
    moving.run(false);
    moving.put("patients.csv", PATIENTS.replace("Bern", "Basel").replace("1970-01-02", "1970-01-03"));
    moving.put("documents/note.txt", "Grüße, korrigiert");
    let abel = moving.all("Patient").into_iter().find(|p| p["name"][0]["family"] == "Abel").unwrap();
    let (id, mut body) = (abel["id"].as_str().unwrap().to_owned(), abel);
    body["telecom"][0]["value"] = json!("030 99999");
    let desk = Actor::staff("u", "u", Role::FrontDesk);
    let change = move |tx: &mut Tx<'_>| tx.update("Patient", &id, body, Expect::Version(1));
    moving.store.write_blocking::<_, StoreError, _>(&desk, change).unwrap();
    let dry = moving.run(true);
    let report = moving.run(false);
    assert_eq!(dry.tables, report.tables);
    assert_eq!(report.tables[&Table::Patients], counts(2, 0, 1, 0, 1));
    assert_eq!(report.tables[&Table::Documents], counts(2, 0, 1, 1, 0));
    assert!(report.doubts.iter().any(|(table, flaw)| *table == Table::Patients && flaw.line == 2));
    let patients = moving.all("Patient");
    let of = |family: &str| patients.iter().find(|p| p["name"][0]["family"] == family).unwrap();
    assert_eq!(
        (&of("Abel")["telecom"][0]["value"], &of("Abel")["address"][0]["city"]),
        (&json!("030 99999"), &json!("Bern"))
    );
    assert_eq!(of("Brandt")["birthDate"], "1970-01-03");
}

#[test]
fn a_number_never_turns_one_person_into_another() {
    let moving = good();
    moving.run(false);
    moving.put("patients.csv", PATIENTS.replace("17,Abel,\"Jo Ann\",1960-05-06", "17,Zimmer,Eva,1991-01-01"));
    for dry in [true, false] {
        let report = moving.run(dry);
        let told: Vec<(u64, &str)> = report.flaws.iter().map(|(_, flaw)| (flaw.line, flaw.column)).collect();
        // What points to that number may be of either.
        assert_eq!(told, [(2, "number"), (2, "patient"), (4, "patient"), (2, "patient")], "{report:?}");
        assert_eq!(report.tables[&Table::Patients].refused, 1);
    }
    assert!(moving.all("Patient").iter().all(|patient| patient["name"][0]["family"] != "Zimmer"));
}

#[test]
fn a_number_that_stands_twice_is_nobodys_whatever_else_is_wrong_with_one_of_its_rows() {
    let moving = good();
    let twice = PATIENTS.replace("1960-05-06", "1960-15-06") + "17,Other,Eve,1981-01-01,f,,\n";
    moving.put("patients.csv", &twice);
    moving.put("appointments.csv", format!("{APPOINTMENTS}2;18;2020-03-02;09:00;30;7;;\n"));
    for dry in [true, false] {
        let report = moving.run(dry);
        let told: Vec<(Table, u64, &str)> =
            report.flaws.iter().map(|(table, flaw)| (*table, flaw.line, flaw.column)).collect();
        let (patients, appointments) = (Table::Patients, Table::Appointments);
        assert_eq!(
            told,
            [
                (patients, 2, "number"),
                (patients, 4, "number"),
                (appointments, 2, "patient"),
                (appointments, 3, "number"),
                (appointments, 4, "patient"),
                (appointments, 5, "number"),
                (Table::Documents, 2, "patient"),
            ]
        );
    }
    assert_eq!((moving.all("Patient").len(), moving.all("Appointment").len()), (1, 0));
    // Corrected, all of it comes in, to the right person.
    moving.put("patients.csv", PATIENTS);
    moving.put("appointments.csv", APPOINTMENTS);
    let report = moving.run(false);
    assert!(report.is_whole(), "{report:?}");
    assert_eq!((moving.all("Patient").len(), moving.all("Appointment").len()), (2, 3));
}

#[test]
fn every_kind_of_bad_row_is_told_and_costs_nothing_but_itself() {
    let moving = good();
    moving.put(
        "patients.csv",
        format!("{PATIENTS}19,Cole,C,1.1.1980,m,,\n21,Dorn,D,1980-01-01,m,,\n21,Eck,E,1981-01-01,f,,\n20,Abel,Jo Ann,1960-05-06,f,,\n"),
    );
    moving.put(
        "appointments.csv",
        format!("{APPOINTMENTS}4;19;2027-03-01;09:00;20;;;\n5;99;2027-03-01;09:00;20;;;\n6;17;2027-03-01;09:00;20;Nobody;;\n"),
    );
    let documents = "3,17,absent.pdf,2020-02-03,x\n4,17,empty.txt,2020-02-03,x\n5,17,page.html,2020-02-03,x\n6,17,link.txt,2020-02-03,x\n7,17,letters,2020-02-03,x\n";
    moving.put("documents.csv", format!("{DOCUMENTS}{documents}"));
    moving.put("documents/empty.txt", "");
    moving.put("documents/page.html", b"MZ\0\x01program");
    moving.put("outside.txt", "outside");
    std::os::unix::fs::symlink(
        moving.dir.path().join("in/outside.txt"),
        moving.dir.path().join("in/documents/link.txt"),
    )
    .unwrap();
    for dry in [true, false] {
        let report = moving.run(dry);
        let told: Vec<(Table, u64, &str)> =
            report.flaws.iter().map(|(table, flaw)| (*table, flaw.line, flaw.column)).collect();
        assert_eq!(
            told,
            [
                (Table::Patients, 4, "birth"),
                (Table::Patients, 5, "number"),
                (Table::Patients, 6, "number"),
                (Table::Appointments, 5, "patient"),
                (Table::Appointments, 6, "patient"),
                (Table::Appointments, 7, "practitioner"),
                (Table::Documents, 4, "file"),
                (Table::Documents, 5, "file"),
                (Table::Documents, 6, "file"),
                (Table::Documents, 7, "file"),
                (Table::Documents, 8, "file"),
            ]
        );
        assert!(
            report.doubts.iter().any(|(table, flaw)| *table == Table::Patients && flaw.line == 7),
            "who may be one person"
        );
        assert_eq!(report.tables[&Table::Patients].new + report.tables[&Table::Patients].same, 3);
    }
    assert_eq!(
        (moving.all("Patient").len(), moving.all("Appointment").len(), moving.all("DocumentReference").len()),
        (3, 3, 2)
    );
    // The corrected row comes in, and nothing else a second time.
    moving.put("patients.csv", format!("{PATIENTS}19,Cole,C,1980-01-01,m,,\n20,Abel,Jo Ann,1960-05-06,f,,\n"));
    let report = moving.run(false);
    assert_eq!(report.tables[&Table::Patients], counts(4, 1, 0, 3, 0));
    assert_eq!(report.tables[&Table::Appointments].new, 1, "and with it the appointment that waited for it");
}

#[test]
fn a_table_that_is_bad_as_a_whole_leaves_the_others() {
    let moving = good();
    moving.put("appointments.csv", "number;patient;when;minutes\n1;17;2027-03-01;20\n");
    let report = moving.run(false);
    let told: Vec<&str> = report.flaws.iter().map(|(_, flaw)| flaw.sentence.as_str()).collect();
    assert!(
        told.iter().any(|sentence| sentence.contains("`when`"))
            && told.iter().any(|sentence| sentence.contains("missing"))
    );
    assert_eq!(report.tables.keys().collect::<Vec<_>>(), [&Table::Patients, &Table::Documents]);
    for (source, dir) in [("Old System", "in"), ("old", "in/documents")] {
        let options = Options { source: source.into(), ..moving.options.clone() };
        let input = Input::folder(&moving.dir.path().join(dir));
        assert!(input.and_then(|input| import::plan(&moving.store, &input, &options)).is_err(), "{source} {dir}");
    }
    assert!(Input::folder(Path::new("/nowhere")).is_err());
}
