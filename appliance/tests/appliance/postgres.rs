//! What is true of a PostgreSQL database alone, and of the way from one kind of database to the other. Always on a real
//! server, whatever the other tests run on.

use crate::support::Cluster;
use appliance::access::{Actor, Role};
use appliance::attachments::Attachments;
use appliance::clock::Clock;
use appliance::db::postgres::Task;
use appliance::db::{Connection, Error, Place, Value, count};
use appliance::ops::facts::{Depth, compute};
use appliance::probe::Restored;
use appliance::relocate::{self, MOVED_FILE, RelocateError};
use appliance::seed;
use appliance::store::{ATTACHMENTS_DIR, DATABASE_FILE, Mode, Query, Store, StoreError, Tx, View};
use serde_json::json;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const NOW_MS: i64 = 1_780_000_000_000;

fn clinician() -> Actor {
    Actor::staff("u", "u", Role::Clinician)
}

fn write_patient(store: &Store, family: String) -> Result<String, StoreError> {
    let body = json!({ "resourceType": "Patient", "name": [{ "family": family }] });
    store.write_blocking(&clinician(), move |tx: &mut Tx<'_>| tx.create("Patient", body)).map(|stored| stored.id)
}

fn at(cluster: &Cluster, data_dir: &Path) -> Place {
    Place::new(data_dir, Some(cluster.database(data_dir)))
}

/// The database itself, past this program's rules.
fn connected(place: &Place) -> Connection {
    Connection::connect(place.server().unwrap(), Task::Write).unwrap()
}

fn filled(place: &Place) -> Store {
    let store = Store::open(place, Clock::manual(NOW_MS), Mode::New).unwrap();
    let plan = seed::Plan { patients: 12, seed: 7, zone: chrono_tz::UTC, practice_name: "Practice".into() };
    assert!(seed::run(&store, &plan, |_| ()).unwrap().attachments > 0);
    store
}

/// The server is killed while four threads write: what was acknowledged is there, what was refused says why, and the service
/// goes on without being started again.
#[test]
fn a_killed_server_loses_no_acknowledged_write_and_the_service_goes_on() {
    let cluster = Cluster::make();
    cluster.start();
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(at(&cluster, dir.path()), Clock::system(), Mode::New).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let (store, stop) = (store.clone(), Arc::clone(&stop));
            std::thread::spawn(move || {
                let (mut saved, mut refused) = (Vec::new(), 0);
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    match write_patient(&store, format!("Writer{writer}x{number}")) {
                        Ok(id) => saved.push(id),
                        Err(StoreError::Unreachable) => refused += 1,
                        Err(other) => panic!("{other:?}"),
                    }
                }
                (saved, refused)
            })
        })
        .collect();
    let entries = |store: &Store| store.internal_blocking(appliance::audit::head).map(|head| head.seq);
    for _ in 0..2 {
        let before = entries(&store).unwrap();
        while entries(&store).unwrap() < before + 50 {
            std::thread::yield_now();
        }
        cluster.kill();
        let reading = store.view_blocking(&clinician(), |view: &View<'_>| view.search(&Query::all("Patient")?));
        assert!(matches!(reading, Err(StoreError::Unreachable)), "{reading:?}");
        cluster.start();
    }
    let before = entries(&store).unwrap();
    while entries(&store).unwrap() < before + 50 {
        std::thread::yield_now();
    }
    stop.store(true, Ordering::Relaxed);
    let (mut saved, mut refused) = (Vec::new(), 0);
    for writer in writers {
        let (ids, count) = writer.join().unwrap();
        saved.extend(ids);
        refused += count;
    }
    assert!(saved.len() >= 150 && refused > 0, "{} saved, {refused} refused", saved.len());
    for id in &saved {
        store.view_blocking(&clinician(), |view: &View<'_>| view.read("Patient", id)).unwrap();
    }
    drop(store);
    let copy = dir.path().join("copy.sqlite");
    let source = Connection::connect(&Arc::new(cluster.database(dir.path())), Task::Read).unwrap();
    source.begin_read().unwrap();
    assert!(relocate::into_file(&source, &copy, &|| true).unwrap());
    appliance::audit::walk(&Connection::open(&copy).unwrap()).unwrap();
}

#[test]
fn a_server_that_is_not_there_is_told_and_makes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("postgresql://holdfast@/records?host={}", dir.path().display());
    let place = Place::new(dir.path(), Some(appliance::db::postgres::Server::parse(&url).unwrap()));
    for mode in [Mode::New, Mode::Exclusive, Mode::Beside] {
        assert!(matches!(Store::open(&place, Clock::system(), mode), Err(StoreError::Unreachable)));
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_database_that_orders_otherwise_is_refused_with_the_remedy() {
    let cluster = Cluster::shared();
    let admin = Connection::connect(&Arc::new(cluster.server("postgres")), Task::Read).unwrap();
    for (name, made, word) in [
        ("collated", "ENCODING 'UTF8' LC_COLLATE 'C.UTF-8' LC_CTYPE 'C.UTF-8'", "collation"),
        ("latin", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'", "encoding"),
        ("foreign_tables", "ENCODING 'UTF8'", ""),
        ("missing", "", "createdb"),
    ] {
        if !made.is_empty() {
            admin.execute_batch(&format!("CREATE DATABASE {name} TEMPLATE template0 {made}")).unwrap();
        }
        if word.is_empty() {
            let foreign = Connection::connect(&Arc::new(cluster.server(name)), Task::Write).unwrap();
            foreign.execute_batch("CREATE TABLE theirs (a int)").unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let refused = Store::open(Place::new(dir.path(), Some(cluster.server(name))), Clock::system(), Mode::New);
        let words = refused.err().unwrap().to_string();
        let expected = if word.is_empty() { "not a database of this program" } else { word };
        assert!(words.contains(expected), "{name}: {words}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
    }
}

#[test]
fn a_practice_that_goes_to_the_server_and_back_is_equal() {
    let cluster = Cluster::shared();
    let dir = tempfile::tempdir().unwrap();
    let server = at(cluster, dir.path());
    let file = server.in_file();
    drop(filled(&file));
    let before = Restored::open(dir.path()).facts().unwrap();
    let rows = |db: &Connection| count(&Connection::open(dir.path().join("kept.sqlite")).unwrap(), db).unwrap();
    std::fs::copy(file.file(), dir.path().join("kept.sqlite")).unwrap();
    let kept = rows(&Connection::open(dir.path().join("kept.sqlite")).unwrap());

    // Both there: nobody knows which is newer.
    let both = Store::open(&server, Clock::manual(NOW_MS), Mode::Exclusive);
    assert!(matches!(both, Err(StoreError::TwoDatabases)));
    let moved = relocate::to_server(&server).unwrap();
    assert_eq!(moved.audit_entries, before.audit_entries);
    assert_eq!(moved.rows, kept.iter().map(|table| table.rows).sum::<u64>());
    assert!(!file.file().exists() && dir.path().join(MOVED_FILE).exists(), "no setting brings back what is older");
    let gone = Store::open(&file, Clock::manual(NOW_MS), Mode::Exclusive);
    assert!(matches!(gone, Err(StoreError::Lost)));
    assert_eq!(rows(&connected(&server)), kept);

    // It goes on there, with the numbers of rows following those that came.
    let store = Store::open(&server, Clock::manual(NOW_MS + 1000), Mode::Exclusive).unwrap();
    let id = write_patient(&store, "Later".into()).unwrap();
    drop(store);
    std::fs::rename(dir.path().join(MOVED_FILE), file.file()).unwrap();
    assert!(matches!(relocate::to_server(&server), Err(RelocateError::ServerNotEmpty)));
    assert!(matches!(relocate::to_file(&server), Err(RelocateError::FileThere)));
    std::fs::remove_file(file.file()).unwrap();
    let back = relocate::to_file(&server).unwrap();
    assert_eq!(back.audit_entries, before.audit_entries + 1);
    let store = Store::open(&file, Clock::manual(NOW_MS + 2000), Mode::Exclusive).unwrap();
    let found = store.view_blocking(&clinician(), |view: &View<'_>| view.read("Patient", &id)).unwrap();
    assert!(found.body.contains("Later"));
    drop(store);
    let after = Restored::open(dir.path()).facts().unwrap();
    assert_eq!(after.resources["Patient"], before.resources["Patient"] + 1);
    let same = |facts: &appliance_api::Facts| {
        (facts.history_rows, facts.ledger_entries, facts.ledger_balance_cents, facts.attachments_digest.clone())
    };
    assert_eq!(same(&after), same(&before));
}

/// A copy while somebody writes is one moment, and equal to what it was made from.
#[test]
fn the_same_practice_has_the_same_facts_in_both() {
    let cluster = Cluster::shared();
    let (sqlite, postgres) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = at(cluster, postgres.path());
    drop(filled(&Place::from(sqlite.path())));
    drop(filled(&server));
    let copy = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(postgres.path().join("attachments"), copy.path().join("attachments")).unwrap();
    let source = connected(&server);
    source.begin_read().unwrap();
    assert!(relocate::into_file(&source, &copy.path().join(DATABASE_FILE), &|| true).unwrap());
    let (there, here) = (Restored::open(copy.path()).facts().unwrap(), Restored::open(sqlite.path()).facts().unwrap());
    // The server itself tells what its copy tells.
    let attachments = Attachments::existing(&postgres.path().join(ATTACHMENTS_DIR));
    assert_eq!(compute(&connected(&server), &attachments, Depth::Recorded).unwrap().facts, there);
    // Ids are drawn at random: what counts and sums, and what does not name them, is the same.
    assert_eq!(
        (there.schema_version, &there.resources, there.history_rows, there.audit_entries),
        (here.schema_version, &here.resources, here.history_rows, here.audit_entries)
    );
    assert_eq!(
        (there.ledger_entries, there.ledger_balance_cents, there.attachments, there.canary_sequence),
        (here.ledger_entries, here.ledger_balance_cents, here.attachments, here.canary_sequence)
    );
}

/// Blocks of 16 KiB, by which a backup finds again what it has.
fn blocks(file: &Path) -> Vec<[u8; 32]> {
    std::fs::read(file).unwrap().chunks(16 << 10).map(|block| *blake3::hash(block).as_bytes()).collect()
}

/// What a snapshot holds is what the server holds, whatever was changed, taken back or removed since the one before; and where
/// little changed, little of the file did.
#[test]
fn a_mirror_follows_every_change_and_moves_nothing_else() {
    let cluster = Cluster::shared();
    let dir = tempfile::tempdir().unwrap();
    let server = at(cluster, dir.path());
    let clock = Clock::manual(NOW_MS);
    drop(filled(&server));
    let store = Store::open(&server, clock, Mode::Exclusive).unwrap();
    let raw = connected(&server);
    let mirror = dir.path().join("mirror.sqlite");
    let attachments = Attachments::existing(&dir.path().join(ATTACHMENTS_DIR));
    let facts = |db: &Connection| compute(db, &attachments, Depth::Recorded).unwrap().facts;
    let dump = |db: &Connection| -> Vec<String> {
        let list = |table: String| {
            let columns = db.columns(&table).unwrap().join(", ");
            let mut statement = db.prepare(&format!("SELECT {columns} FROM {table}")).unwrap();
            let width = statement.column_names().len();
            let shown = |row: &appliance::db::Row<'_>| {
                (0..width)
                    .map(|at| row.get::<_, Value>(at))
                    .collect::<Result<Vec<_>, _>>()
                    .map(|row| format!("{table}{row:?}"))
            };
            statement.query_map([], shown).unwrap().collect::<Result<Vec<_>, _>>().unwrap()
        };
        let names = count(&Connection::open(&mirror).unwrap(), db).unwrap();
        let mut all: Vec<String> = names.into_iter().flat_map(|table| list(table.table)).collect();
        all.sort();
        all
    };
    let take = |number: usize| {
        let file = dir.path().join(format!("copy-{number}.sqlite"));
        raw.begin_read().unwrap();
        assert!(relocate::by_mirror(&raw, &mirror, &file, &|| true).unwrap());
        let copy = Connection::open(&file).unwrap();
        assert_eq!((facts(&copy), dump(&copy)), (facts(&raw), dump(&raw)), "copy {number}");
        raw.end_read().unwrap();
        assert_eq!(copy.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap(), "ok");
        blocks(&file)
    };
    let first = take(0);
    write_patient(&store, "Abel".into()).unwrap();
    let second = take(1);
    let known = second.iter().filter(|block| first.contains(block)).count();
    assert!(known * 10 >= second.len() * 8, "{known} of {} blocks are known", second.len());
    // Rows that change, come, go, and come twice.
    for (number, sql) in [
        "INSERT INTO login_failure (subject, at) VALUES ('a', 1), ('a', 1), ('b', 2)",
        "DELETE FROM login_failure WHERE subject = 'b'; DELETE FROM outbox",
        "UPDATE meta SET value = value || '!' WHERE key LIKE 'migrated%'; DELETE FROM ix_string WHERE value < 'm'",
        "INSERT INTO phrase (account, name, text) VALUES ('a', 'b', 'c'), ('a', 'a', 'é'), ('z', '', '')",
        "UPDATE resource SET deleted = 1 WHERE type = (SELECT id FROM resource_type WHERE name = 'Appointment')",
    ]
    .into_iter()
    .enumerate()
    {
        raw.execute_batch(sql).unwrap();
        take(2 + number);
    }
    drop(store);
    // Set back by its owner: the mirror is ahead, where nothing may be removed, and is made anew.
    raw.execute_batch("DROP TRIGGER audit_keep_d ON audit; DELETE FROM audit WHERE seq > 3").unwrap();
    take(20);
    // And so it is where it is damaged.
    let bytes = std::fs::read(&mirror).unwrap();
    let middle = bytes.len() / 2;
    std::fs::write(&mirror, [&bytes[..middle], &vec![0xff; bytes.len() - middle]].concat()).unwrap();
    raw.begin_read().unwrap();
    let file = dir.path().join("last.sqlite");
    assert!(relocate::by_mirror(&raw, &mirror, &file, &|| true).unwrap());
    assert_eq!(facts(&Connection::open(&file).unwrap()).resources, facts(&raw).resources);
    raw.end_read().unwrap();
}

#[test]
fn a_table_is_not_emptied_past_its_rule() {
    let cluster = Cluster::shared();
    let dir = tempfile::tempdir().unwrap();
    let server = at(cluster, dir.path());
    let store = filled(&server);
    let raw = connected(&server);
    for table in ["audit", "history", "ledger_posting", "ledger_entry", "consent_record"] {
        let rows: i64 = raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        for sql in [format!("TRUNCATE {table} CASCADE"), format!("DELETE FROM {table}")] {
            let refused = matches!(raw.execute_batch(&sql), Err(Error::Constraint(_)));
            // Nothing is taken from a table without a row.
            assert!(refused || (rows == 0 && sql.starts_with("DELETE")), "{sql}");
        }
    }
    drop(store);
}

/// Random letters, which the server cannot pack: more of them than one entry of an index holds.
#[test]
fn a_reference_that_is_too_long_is_an_error_of_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(at(Cluster::shared(), dir.path()), Clock::manual(NOW_MS), Mode::New).unwrap();
    let long: String = (0..200u32).map(|number| blake3::hash(&number.to_le_bytes()).to_hex().to_string()).collect();
    let key = long.clone();
    let refused = store.write_blocking(&clinician(), move |tx: &mut Tx<'_>| tx.remember(&key, "")).unwrap_err();
    assert!(matches!(refused, StoreError::Invalid { .. }), "{refused:?}");
    assert!(!refused.to_string().contains(&long[..16]));
    write_patient(&store, "Abel".into()).unwrap();
}

/// Neither database keeps a zero character in a text, and both say so alike.
#[test]
fn a_zero_character_is_an_error_of_the_input_in_both() {
    let cluster = Cluster::shared();
    let (sqlite, postgres) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let places = [Place::from(sqlite.path()), at(cluster, postgres.path())];
    let told = places.map(|place| {
        let store = Store::open(&place, Clock::manual(NOW_MS), Mode::New).unwrap();
        let kept = store.write_blocking(&clinician(), |tx: &mut Tx<'_>| tx.remember("a\0b", "c")).unwrap_err();
        let body = json!({ "resourceType": "Patient", "name": [{ "family": "Ab\0el" }] });
        let made = store.write_blocking::<_, StoreError, _>(&clinician(), |tx| tx.create("Patient", body).map(drop));
        let query = Query::parse("Patient", &[("family".to_owned(), "ab\0".to_owned())]).unwrap();
        let found =
            store.view_blocking(&clinician(), |view: &View<'_>| view.search(&query).map(|page| page.resources.len()));
        // And it goes on.
        write_patient(&store, "Abel".into()).unwrap();
        assert!(matches!(kept, StoreError::Invalid { .. }), "{kept:?}");
        format!("{kept:?} {made:?} {found:?}")
    });
    assert_eq!(told[0], told[1]);
}
