//! Records of every released schema are upgraded, whole, and found again; and there is a way back.

use appliance::access::accounts::AccountError;
use appliance::access::{Actor, Governs, Role, portal};
use appliance::attachments::{older, seal};
use appliance::clock::Clock;
use appliance::consents;
use appliance::db::Connection;
use appliance::fhir;
use appliance::ops::facts::{Depth, compute};
use appliance::probe::Restored;
use appliance::store::{ATTACHMENTS_DIR, DATABASE_FILE, Mode, Query, SCHEMA_VERSION, Store, StoreError, View};
use appliance::upgrade::{self, UpgradeError};
use std::path::{Path, PathBuf};

/// The one file of the frozen records.
const LETTER: &[u8] = b"%PDF-1.4 a letter of long ago\n";

/// The last schema under which files lay as they came.
const PLAIN: u32 = 11;

/// Databases as releases of these schemas left them: never changed, and one more with every released schema.
fn frozen(schema: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/frozen/schema-{schema}.sqlite"))
}

/// A data folder that a release of schema `schema` left.
fn left_by(schema: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(frozen(schema), dir.path().join(DATABASE_FILE)).unwrap();
    let file = match schema {
        ..=PLAIN => LETTER.to_vec(),
        _ => seal::seal(&seal::FileKey::stored([7; 32]), LETTER).unwrap(),
    };
    let name = blake3::hash(&file).to_hex().to_string();
    let folder = dir.path().join(ATTACHMENTS_DIR).join(&name[..2]);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(&name[2..]), file).unwrap();
    dir
}

fn letter_name() -> String {
    blake3::hash(LETTER).to_hex().to_string()
}

/// Whether the letter lies in the folder as it is, under whatever name.
fn is_plain(dir: &Path) -> bool {
    let folders = std::fs::read_dir(dir.join(ATTACHMENTS_DIR)).unwrap().flatten();
    let mut files = folders.flat_map(|folder| std::fs::read_dir(folder.path()).unwrap().flatten());
    files
        .any(|file| std::fs::read(file.path()).unwrap().windows(8).any(|window| LETTER.windows(8).any(|l| l == window)))
}

fn clock() -> Clock {
    Clock::manual(1_700_000_100_000)
}

fn open(dir: &Path) -> Result<Store, StoreError> {
    Store::open(dir, clock(), Mode::Exclusive)
}

#[test]
fn every_released_schema_is_upgraded_and_searched() {
    for schema in 1..SCHEMA_VERSION {
        assert!(frozen(schema).is_file(), "schema {schema} was released, so a database of it is frozen");
        let dir = left_by(schema);
        let before = Restored::open(dir.path()).facts().unwrap();
        assert_eq!(before.schema_version, schema);
        for mode in [Mode::Exclusive, Mode::Beside] {
            let refused = Store::open(dir.path(), clock(), mode).err().unwrap();
            assert!(matches!(refused, StoreError::Older { found, .. } if found == schema), "{refused}");
        }
        upgrade::in_place(dir.path(), &clock()).unwrap();
        let store = open(dir.path()).unwrap();
        let actor = Actor::staff("u", "u", Role::Clinician);
        for (kind, name, value) in [
            ("Patient", "family", "mej"),
            ("Condition", "patient", "p"),
            ("Condition", "code", "1"),
            ("Condition", "patient.family", "Mejía"),
            ("DocumentReference", "patient", "p"),
        ] {
            let query = Query::parse(kind, &[(name.to_owned(), value.to_owned())]).unwrap();
            let found = store.view_blocking(&actor, |view: &View<'_>| view.search(&query)).unwrap();
            assert_eq!(found.resources.len(), 1, "schema {schema}: {kind}?{name}");
        }
        let old = store.view_blocking(&actor, |view: &View<'_>| view.version("Patient", "p", 1)).unwrap();
        assert!(old.body.contains("Abel"));
        let row = store.view_blocking(&actor, |view: &View<'_>| view.attachment("b")).unwrap();
        assert_eq!(store.attachments().read(&row).unwrap(), LETTER);
        assert!(!is_plain(dir.path()) && row.file_name() != Some(letter_name()), "schema {schema}: it is sealed");
        drop(store);
        let after = Restored::open(dir.path()).facts().unwrap();
        assert_eq!((after.schema_version, &after.resources), (SCHEMA_VERSION, &before.resources));
        let files = |facts: &appliance_api::Facts| (facts.attachments, facts.attachments_digest.clone());
        assert_eq!((after.history_rows, files(&after)), (before.history_rows, files(&before)));
    }
}

#[test]
fn accounts_of_the_portal_stay_and_their_sessions_end() {
    let dir = left_by(13);
    upgrade::in_place(dir.path(), &clock()).unwrap();
    let store = open(dir.path()).unwrap();
    let now = 1_700_000_100;
    let found = store
        .internal_blocking(move |db| {
            let account = portal::credentials(db, "ada@example.org")?.map(|found| found.account);
            let session = portal::find(db, "token", now)?.is_some();
            Ok::<_, AccountError>((account, session, portal::open_invite(db, "invite", now)?.proxy))
        })
        .unwrap();
    let account = found.0.unwrap();
    assert_eq!((account.id.as_str(), account.patient.is_some(), account.disabled), ("portal-1", true, false));
    assert_eq!((found.1, found.2), (false, None));
}

#[test]
fn what_patients_decided_is_drawn_from_what_they_signed() {
    let dir = left_by(14);
    upgrade::in_place(dir.path(), &clock()).unwrap();
    let store = open(dir.path()).unwrap();
    let day = |text: &str| fhir::date::parse(text).unwrap().lo;
    let permits = |now_ms: i64| {
        store.internal_blocking(move |db| consents::permits(db, Governs::Reminders, "p", now_ms)).unwrap()
    };
    // The first was taken back, the second signed after that and is good for a year.
    assert!(permits(day("2024-11-14")) && !permits(day("2024-11-15")));
    let told = store
        .internal_blocking(|db| {
            let all = "SELECT count(*), min(text), min(governs), sum(permits) FROM patient_decision";
            let decided: (i64, String, String, i64) =
                db.query_row(all, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
            let drawn = db.query_row::<String>("SELECT min(ends) FROM patient_decision", [], |row| row.get(0))?;
            Ok::<_, StoreError>((decided, drawn, consents::texts(db)?, consents::broken_at(db)?))
        })
        .unwrap();
    assert_eq!(told.0, (1, "r".into(), "reminders".into(), 1), "of what governs something, the newest alone");
    assert_eq!((told.1.as_str(), told.3), ("2024-11-15T00:00:00Z", None));
    // Texts mean what they meant: reminders leave only with them, and nobody was asked in the portal.
    assert!(told.2.len() == 2 && told.2.iter().all(|text| text.needed && !text.portal && text.in_use));
}

#[test]
fn an_upgrade_that_fails_leaves_the_records_to_the_older_release() {
    let dir = left_by(SCHEMA_VERSION - 1);
    let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    // Something that the last note of the upgrade meets, when every step is done.
    db.execute("INSERT INTO meta VALUES (?1, 'x')", [format!("migrated-to-{SCHEMA_VERSION}-ms")]).unwrap();
    let schema = "SELECT group_concat(sql, ';') FROM sqlite_schema";
    let told = |db: &Connection| db.query_row::<String>(schema, [], |row| row.get(0)).unwrap();
    let before = told(&db);
    let refused = upgrade::in_place(dir.path(), &clock()).unwrap_err().to_string();
    assert!(refused.contains("failed, and nothing was changed") && refused.contains("older release"), "{refused}");
    assert_eq!(told(&db), before, "not one step is left of it");
    // Nothing is undone of what was not done, and nothing that was written since is put aside.
    assert!(matches!(upgrade::undo(dir.path()), Err(UpgradeError::NotUpgraded(found)) if found == SCHEMA_VERSION - 1));
    assert!(!dir.path().join(upgrade::KEPT_DIR).join(upgrade::GIVEN_UP_FILE).exists());
    let facts = |db: &Connection| {
        let store = appliance::attachments::Attachments::existing(&dir.path().join(ATTACHMENTS_DIR));
        compute(db, &store, Depth::Rehashed).unwrap().facts
    };
    assert_eq!(facts(&db).schema_version, SCHEMA_VERSION - 1);
    db.execute("DELETE FROM meta WHERE key = ?1", [format!("migrated-to-{SCHEMA_VERSION}-ms")]).unwrap();
    drop(db);
    upgrade::in_place(dir.path(), &clock()).unwrap();
    open(dir.path()).unwrap();
}

#[test]
fn an_upgrade_is_undone_and_taken_again() {
    let dir = left_by(PLAIN);
    assert!(matches!(upgrade::undo(dir.path()), Err(UpgradeError::NothingKept)));
    let before = Restored::open(dir.path()).facts().unwrap();
    upgrade::in_place(dir.path(), &clock()).unwrap();
    let store = open(dir.path()).unwrap();
    assert!(matches!(upgrade::undo(dir.path()), Err(UpgradeError::Store(StoreError::InUse))));
    let actor = Actor::staff("u", "u", Role::Clinician);
    let newer = serde_json::json!({ "resourceType": "Patient", "name": [{ "family": "Later" }] });
    store.write_blocking::<_, StoreError, _>(&actor, move |tx| tx.create("Patient", newer)).unwrap();
    drop(store);
    assert_eq!(upgrade::undo(dir.path()).unwrap(), PLAIN);
    assert_eq!(Restored::open(dir.path()).facts().unwrap(), before);
    assert!(is_plain(dir.path()), "the older release finds its file where it was");
    let given_up = dir.path().join(upgrade::KEPT_DIR).join(upgrade::GIVEN_UP_FILE);
    let count = "SELECT count(*) FROM resource WHERE body LIKE '%Later%'";
    let later: i64 = Connection::open(given_up).unwrap().query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(later, 1, "what was written since is not thrown away");
    upgrade::in_place(dir.path(), &clock()).unwrap();
    open(dir.path()).unwrap();
    assert!(upgrade::settle(dir.path()).unwrap() && !upgrade::settle(dir.path()).unwrap());
    assert!(matches!(upgrade::undo(dir.path()), Err(UpgradeError::NothingKept)));
}

#[test]
fn sealing_that_was_interrupted_goes_on() {
    let dir = left_by(PLAIN);
    let name = letter_name();
    let plain = dir.path().join(ATTACHMENTS_DIR).join(&name[..2]).join(&name[2..]);
    upgrade::in_place(dir.path(), &clock()).unwrap();
    // As a crash between the row's commit and the removal leaves it, and one before the row's commit.
    for undo in ["UPDATE attachment SET bytes = bytes", "UPDATE attachment SET file = NULL, key = NULL"] {
        std::fs::write(&plain, LETTER).unwrap();
        let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        db.execute_batch(&format!("DELETE FROM meta WHERE key = 'attachments-sealed'; {undo}")).unwrap();
        let attachments = appliance::attachments::Attachments::existing(&dir.path().join(ATTACHMENTS_DIR));
        assert!(older::are_left(&db).unwrap());
        older::seal_all(&db, &attachments).unwrap();
        assert!(!older::are_left(&db).unwrap() && !is_plain(dir.path()), "{undo}");
        let facts = compute(&db, &attachments, Depth::Rehashed).unwrap().facts;
        assert_eq!((facts.attachments, facts.attachment_bytes), (1, LETTER.len() as u64));
    }
}

#[test]
fn a_file_that_was_lost_before_the_upgrade_stops_nothing() {
    let dir = left_by(PLAIN);
    std::fs::remove_dir_all(dir.path().join(ATTACHMENTS_DIR)).unwrap();
    upgrade::in_place(dir.path(), &clock()).unwrap();
    let store = open(dir.path()).unwrap();
    let actor = Actor::staff("u", "u", Role::Clinician);
    let row = store.view_blocking(&actor, |view: &View<'_>| view.attachment("b")).unwrap();
    assert!(matches!(store.attachments().read(&row), Err(StoreError::Damaged(_))));
    // Where a restore brings it back as it was, it is read.
    store.attachments().heal(&row, LETTER).unwrap();
    assert_eq!(store.attachments().read(&row).unwrap(), LETTER);
}

#[test]
fn a_database_with_a_broken_page_is_not_upgraded() {
    let dir = left_by(SCHEMA_VERSION - 1);
    let path = dir.path().join(DATABASE_FILE);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 2048].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(
        upgrade::in_place(dir.path(), &clock()),
        Err(UpgradeError::Store(StoreError::Damaged(_)) | UpgradeError::Failed { why: StoreError::Damaged(_), .. })
    ));
    assert_eq!(schema_of(&path), SCHEMA_VERSION - 1);
}

#[test]
fn restored_records_of_a_newer_release_are_refused_with_words() {
    let dir = left_by(SCHEMA_VERSION - 1);
    let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    db.execute_batch(&format!("PRAGMA user_version = {}", SCHEMA_VERSION + 1)).unwrap();
    drop(db);
    let refused = Restored::open(dir.path()).facts().unwrap_err();
    assert!(refused.to_string().contains("install that release"), "{refused}");
    let refused = upgrade::in_place(dir.path(), &clock()).unwrap_err();
    assert!(matches!(refused, UpgradeError::Failed { why: StoreError::Newer { .. }, .. }), "{refused}");
}

#[test]
fn restored_records_that_cannot_be_upgraded_prove_nothing() {
    let dir = left_by(3);
    let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
    db.execute_batch("CREATE TABLE practice_setting (in_the_way TEXT)").unwrap();
    drop(db);
    assert!(Restored::open(dir.path()).facts().is_err());
}

fn schema_of(database: &Path) -> u32 {
    Connection::open(database).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}
