//! Taking everything along: what was exported and read into an empty practice is what it was.

use crate::support;
use appliance::access::{Actor, Program, Role};
use appliance::clock::Clock;
use appliance::consents::{self, Text};
use appliance::db::Connection;
use appliance::export::adopt::{AdoptError, Adoption, adopt};
use appliance::export::{self, Folder, Manifest};
use appliance::seed;
use appliance::store::{Expect, Mode, Query, Store, StoreError, Tx, View};
use appliance_api::Facts;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

const NOW_MS: i64 = 1_780_000_000_000;

struct Practice {
    dir: tempfile::TempDir,
    store: Option<Store>,
    clock: Clock,
}

impl Practice {
    /// Made-up records, with something of every kind that an export holds.
    fn filled() -> Practice {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(NOW_MS);
        let store = Store::open(support::place(dir.path().join("data")), clock.clone(), Mode::New).unwrap();
        let plan = seed::Plan { patients: 8, seed: 5, zone: chrono_tz::UTC, practice_name: "Practice".into() };
        assert!(seed::run(&store, &plan, |_| ()).unwrap().attachments > 0);
        let doctor = Actor::staff("u", "u", Role::Clinician);
        let change = |tx: &mut Tx<'_>| {
            let page = tx.search(&Query::all("Appointment")?.first(3, "_id")?)?;
            for found in &page.resources {
                let mut body = found.json()?;
                body["description"] = json!("Changed");
                tx.update("Appointment", &found.id, body, Expect::Version(found.version))?;
            }
            Ok::<_, StoreError>(())
        };
        clock.set(NOW_MS + 5_000);
        store.write_blocking(&doctor, change).unwrap();
        clock.set(NOW_MS + 9_000);
        // Deleted, and deleted and brought back.
        let admin = Actor::staff("a", "a", Role::PracticeAdmin);
        let deletions = |tx: &mut Tx<'_>| {
            for again in [false, true] {
                let body = json!({"resourceType": "Location", "status": "active", "name": "Room"});
                let room = tx.create("Location", body.clone())?;
                let version = tx.delete("Location", &room.id, None)?;
                if again {
                    tx.update("Location", &room.id, body, Expect::Version(version))?;
                }
            }
            let text = Text {
                id: "t".into(),
                version: 1,
                title: "Photographs".into(),
                body: "I agree".into(),
                months: 12,
                governs: None,
                needed: true,
                portal: false,
                in_use: true,
            };
            consents::add_text(tx, &text)?;
            tx.connection().execute(
                "INSERT INTO practice_setting VALUES ('alert-mail', 'a@example.org'), ('consent-signing-key', '00')",
                [],
            )?;
            Ok::<_, StoreError>(())
        };
        store.write_blocking(&admin, deletions).unwrap();
        Practice { dir, store: Some(store), clock }
    }

    fn store(&self) -> &Store {
        self.store.as_ref().unwrap()
    }

    fn export(&self, name: &str) -> (PathBuf, Manifest) {
        let into = self.dir.path().join(name);
        let actor = Actor::program(Program::CommandLine);
        let mut folder = Folder::create(&into).unwrap();
        let manifest = export::everything(self.store(), &actor, "Practice", &mut folder, |_| ()).unwrap();
        (into, manifest)
    }

    fn empty(&self, name: &str) -> (PathBuf, Store) {
        let data = self.dir.path().join(name);
        let store = Store::open(support::place(&data), self.clock.clone(), Mode::New).unwrap();
        (data, store)
    }
}

fn read(store: &Store, dir: &Path) -> Result<Adoption, AdoptError> {
    adopt(store, &Actor::program(Program::Import), dir, false)
}

/// What must be the same; who looked at what, and the canaries, are each installation's own.
fn comparable(data: &Path) -> Facts {
    let facts = support::restored(data).facts().unwrap();
    Facts { audit_entries: 0, audit_head: String::new(), canary_sequence: 0, canary_unix_ms: 0, ..facts }
}

#[test]
fn what_was_exported_and_read_in_again_has_equal_facts() {
    let mut practice = Practice::filled();
    let (dir, manifest) = practice.export("export");
    let (data, new) = practice.empty("new");
    let read_in = read(&new, &dir).unwrap();
    assert!(read_in.versions >= 5 && read_in.attachments > 0 && read_in.postings > 0, "{read_in:?}");
    // Found as before, by search and by patient.
    let doctor = Actor::staff("u", "u", Role::Clinician);
    let changed = Query::parse("Appointment", &[("date".to_owned(), "ge2000".to_owned())]).unwrap();
    let seen = |store: &Store| -> Vec<Value> {
        let found = store.view_blocking(&doctor, |view: &View<'_>| view.search(&changed)).unwrap();
        found.resources.iter().map(|found| found.json().unwrap()).collect()
    };
    let (mut before, mut after) = (seen(practice.store()), seen(&new));
    for list in [&mut before, &mut after] {
        list.sort_by_key(|appointment| appointment["id"].to_string());
    }
    assert_eq!(before, after);
    drop(new);
    practice.store = None;
    // The one row that stays: the key with which this installation seals.
    let db = support::raw(&data);
    assert_eq!(db.execute("INSERT INTO practice_setting VALUES ('consent-signing-key', '00')", []).unwrap(), 1);
    drop(db);
    let (old, new) = (comparable(&practice.dir.path().join("data")), comparable(&data));
    assert!(old.history_rows >= 5 && old.ledger_entries > 0 && old.attachments > 0);
    assert_eq!(old, new);
    assert_eq!(manifest.facts.resources_digest, new.resources_digest);
    // Schedules are drawn from what came in.
    let db = support::raw(&data);
    let occupied =
        |db: &Connection| db.query_row("SELECT count(*) FROM occupied", [], |row| row.get::<_, i64>(0)).unwrap();
    let there = support::raw(practice.dir.path().join("data"));
    assert_eq!(occupied(&db), occupied(&there));
    if !support::is_postgres() {
        assert_eq!(db.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
    }
}

#[test]
fn an_export_holds_no_secret_and_is_checked_with_stock_tools() {
    let practice = Practice::filled();
    let (dir, manifest) = practice.export("export");
    let sums: String = manifest.parts.iter().map(|part| format!("{}  {}\n", part.sha256, part.path)).collect();
    fs::write(dir.join("SUMS"), sums).unwrap();
    let told =
        std::process::Command::new("sha256sum").args(["-c", "--quiet", "SUMS"]).current_dir(&dir).status().unwrap();
    assert!(told.success());
    let settings = fs::read_to_string(dir.join("tables/practice_setting-0001.ndjson")).unwrap();
    assert!(settings.contains("alert-mail") && !settings.contains("signing-key"));
    assert!(Folder::create(&dir).is_err(), "nothing is written over");
}

#[test]
fn what_is_not_whole_changes_nothing() {
    let practice = Practice::filled();
    let (dir, manifest) = practice.export("export");
    let (_, new) = practice.empty("new");
    let part = |prefix: &str| manifest.parts.iter().find(|part| part.path.starts_with(prefix)).unwrap().path.clone();
    let flip = |path: &Path| {
        let mut bytes = fs::read(path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    for path in [part("resources/Patient"), part("history/"), part("ledger"), part("attachments-")] {
        flip(&dir.join(&path));
        assert!(matches!(read(&new, &dir), Err(AdoptError::Changed(told)) if told == path), "{path}");
        flip(&dir.join(&path));
    }
    let file = fs::read_dir(dir.join("attachments")).unwrap().next().unwrap().unwrap().path();
    flip(&file);
    assert!(matches!(read(&new, &dir), Err(AdoptError::Changed(_))));
    flip(&file);
    let text = fs::read_to_string(dir.join("manifest.json")).unwrap();
    let other = |from: &str, to: &str| {
        fs::write(dir.join("manifest.json"), text.replacen(from, to, 1)).unwrap();
        read(&new, &dir).unwrap_err()
    };
    assert!(matches!(other("\"version\": 1", "\"version\": 2"), AdoptError::Newer(2)));
    assert!(matches!(other("holdfast-export", "another"), AdoptError::Manifest));
    assert!(matches!(other(&part("ledger"), "../ledger"), AdoptError::Manifest));
    let schema = format!("\"schema\": {}", manifest.schema);
    assert!(matches!(other(&schema, "\"schema\": 999"), AdoptError::Schema(999)));
    fs::write(dir.join("manifest.json"), &text).unwrap();
    let rows = |db: &Connection| {
        Ok::<_, StoreError>(db.query_row("SELECT count(*) FROM resource", [], |row| row.get::<_, i64>(0))?)
    };
    assert_eq!(new.internal_blocking(rows).unwrap(), 0, "nothing of all that came in");
    read(&new, &dir).unwrap();
    assert!(matches!(read(&new, &dir), Err(AdoptError::Used)));
}

#[test]
fn a_file_that_is_gone_is_told_and_the_rest_is_exported() {
    let practice = Practice::filled();
    let folder = fs::read_dir(practice.dir.path().join("data/attachments")).unwrap().next().unwrap().unwrap().path();
    let file = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(file).unwrap();
    let (dir, manifest) = practice.export("export");
    assert_eq!(manifest.damaged_attachments, 1);
    let (_, new) = practice.empty("new");
    assert!(matches!(read(&new, &dir), Err(AdoptError::Damaged(1))));
    let read_in = adopt(&new, &Actor::program(Program::Import), &dir, true).unwrap();
    assert_eq!(read_in.attachments + 1, manifest.facts.attachments);
}

#[test]
fn only_an_administrator_takes_everything_along() {
    let practice = Practice::filled();
    for actor in [
        Actor::staff("u", "u", Role::Clinician),
        Actor::staff("u", "u", Role::FrontDesk),
        Actor::program(Program::Operations),
        Actor::program(Program::App),
        Actor::anonymous(),
    ] {
        let mut folder = Folder::create(&practice.dir.path().join(actor.capacity_str())).unwrap();
        let told = export::everything(practice.store(), &actor, "Practice", &mut folder, |_| ());
        assert!(matches!(told, Err(StoreError::Denied(_))), "{actor:?}");
    }
}
