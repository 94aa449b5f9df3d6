//! A practice's records in another kind of database: from a file of SQLite's to a PostgreSQL server and back, and as the
//! file that every snapshot holds.
//!
//! Every row is copied in one transaction of both sides and nothing else is carried: the schema is made from the same steps.
//! The copy counts when it has as many rows in every table and its audit's chain is unbroken to the same head.

use crate::audit;
use crate::db::{self, Connection, Copied, Place, sqlite};
use crate::store::{DataLock, SCHEMA_VERSION, StoreError, make_bare, note_made, schema_version};
use crate::upgrade::{remove, sidecar};
use std::fs::{self, File};
use std::path::Path;

/// What is left of a file whose records went to a server: nothing reads it any more.
pub const MOVED_FILE: &str = "moved-to-server.sqlite";
/// Pages copied from the mirror at a time.
const MIRROR_STEP_PAGES: i32 = 2048;
/// What is not a whole copy yet.
const COPYING_FILE: &str = "records.copying";

#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "`database` in appliance.toml names no PostgreSQL database: set it, for one of the two sides is always that"
    )]
    NoServer,
    #[error(
        "the PostgreSQL database is not empty, and records are copied only into one that is: make it anew, or name another"
    )]
    ServerNotEmpty,
    #[error("records.sqlite is in the data folder already, and nothing is copied over it: move it away first")]
    FileThere,
    #[error("the copy is not equal to the records that it was made from, so it was given up; nothing was changed")]
    Unequal,
}

impl From<db::Error> for RelocateError {
    fn from(error: db::Error) -> RelocateError {
        RelocateError::Store(error.into())
    }
}

/// What was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relocated {
    pub tables: u64,
    pub rows: u64,
    pub audit_entries: u64,
}

/// Writes what `source` holds at the moment of its open transaction into a new file of SQLite's. Whether `goes_on` let it
/// come to the end.
pub fn into_file(source: &Connection, file: &Path, goes_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let target = sqlite::open_throwaway(file)?;
    // Not inside of the transaction, where it would say nothing.
    target.execute_batch("PRAGMA foreign_keys = 0")?;
    let transaction = target.transaction()?;
    make_bare(&transaction, schema_version(source)?)?;
    if db::copy(source, &transaction, goes_on)?.is_none() {
        return Ok(false);
    }
    transaction.commit()?;
    Ok(true)
}

/// [`into_file`] by way of `mirror`, a file that is kept from one time to the next: only rows that changed are written there,
/// so that its other pages, of which a backup needs no second copy, stay as they are.
pub fn by_mirror(
    source: &Connection,
    mirror: &Path,
    file: &Path,
    goes_on: &dyn Fn() -> bool,
) -> Result<bool, StoreError> {
    let followed = if mirror.is_file() { follow(source, mirror, goes_on) } else { Err(StoreError::NoDatabase) };
    match followed {
        Ok(true) => {}
        Ok(false) => return Ok(false),
        Err(error @ (StoreError::Unreachable | StoreError::Full)) => return Err(error),
        // Not there yet, of another schema, damaged, or ahead of records that were set back.
        Err(error) => {
            if !matches!(error, StoreError::NoDatabase) {
                log::warn!(reason:% = error; "mirror.made-anew");
            }
            for suffix in ["", "-wal", "-shm"] {
                remove(&sidecar(mirror, suffix)).map_err(StoreError::io("staging folder"))?;
            }
            let begun = sidecar(mirror, ".begun");
            remove(&begun).map_err(StoreError::io("staging folder"))?;
            if !into_file(source, &begun, goes_on)? {
                return Ok(false);
            }
            fs::rename(&begun, mirror).map_err(StoreError::io("staging folder"))?;
        }
    }
    let mirror = sqlite::open_to_read(mirror)?;
    let mirror = mirror.as_sqlite().ok_or(StoreError::Damaged("database"))?;
    Ok(mirror.copy_into(file, MIRROR_STEP_PAGES, goes_on)?)
}

fn follow(source: &Connection, mirror: &Path, goes_on: &dyn Fn() -> bool) -> Result<bool, StoreError> {
    let to = sqlite::open_existing(mirror)?;
    // The log keeps it whole when this process ends in between, and lets the other connection read what it was.
    to.execute_batch("PRAGMA journal_mode = wal; PRAGMA synchronous = normal; PRAGMA foreign_keys = 0")?;
    if schema_version(&to)? != schema_version(source)? {
        return Err(StoreError::Damaged("schema of the mirror"));
    }
    let before = sqlite::open_to_read(mirror)?;
    before.begin_read()?;
    before.schema_number()?;
    let transaction = to.transaction_to_write()?;
    if !db::follow(source, &before, &transaction, goes_on)? {
        return Ok(false);
    }
    transaction.commit()?;
    before.end_read()?;
    drop(before);
    to.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    let verdict: String = to.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(true) } else { Err(StoreError::Damaged("mirror")) }
}

/// Copies the records of `place`'s file into the server's empty database, and puts the file aside.
pub fn to_server(place: &Place) -> Result<Relocated, RelocateError> {
    place.server().ok_or(RelocateError::NoServer)?;
    let _lock = DataLock::acquire(place.data_dir())?;
    if !place.has_file() {
        return Err(StoreError::NoDatabase.into());
    }
    let source = sqlite::open_existing(&place.file())?;
    let target = place.open_to_write(true)?;
    target.check_server()?;
    if schema_version(&target)? != 0 {
        return Err(RelocateError::ServerNotEmpty);
    }
    source.begin_read()?;
    let found = schema_version(&source)?;
    if found != SCHEMA_VERSION {
        let known = SCHEMA_VERSION;
        let wrong = if found > known { StoreError::Newer { found, known } } else { StoreError::Older { found, known } };
        return Err(wrong.into());
    }
    let transaction = target.transaction_to_write()?;
    make_bare(&transaction, found)?;
    transaction.defer_references()?;
    let copied = db::copy(&source, &transaction, &|| true)?.ok_or(RelocateError::Unequal)?;
    let relocated = compared(&source, &transaction, &source, &copied)?;
    transaction.commit()?;
    source.end_read()?;
    // So that the first searches are planned by what is there.
    target.execute_batch("ANALYZE")?;
    source.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    drop(source);
    put_aside(place).map_err(StoreError::io("data folder"))?;
    note_made(place.data_dir()).map_err(StoreError::io("data folder"))?;
    Ok(relocated)
}

/// Copies the records of the server's database into `place`'s file, which is not there yet.
pub fn to_file(place: &Place) -> Result<Relocated, RelocateError> {
    place.server().ok_or(RelocateError::NoServer)?;
    let _lock = DataLock::acquire(place.data_dir())?;
    if place.has_file() {
        return Err(RelocateError::FileThere);
    }
    let source = place.open_to_write(true)?;
    source.begin_read()?;
    if schema_version(&source)? == 0 {
        return Err(StoreError::NoDatabase.into());
    }
    let copying = place.data_dir().join(COPYING_FILE);
    let _ = fs::remove_file(&copying);
    into_file(&source, &copying, &|| true)?;
    let copy = sqlite::open_existing(&copying)?;
    let copied = db::count(&copy, &copy)?;
    let relocated = compared(&source, &copy, &copy, &copied)?;
    let verdict: String = copy.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(RelocateError::Unequal);
    }
    drop(copy);
    source.end_read()?;
    let put_in_place = || -> std::io::Result<()> {
        File::open(&copying)?.sync_all()?;
        fs::rename(&copying, place.file())?;
        File::open(place.data_dir())?.sync_all()
    };
    put_in_place().map_err(StoreError::io("data folder"))?;
    note_made(place.data_dir()).map_err(StoreError::io("data folder"))?;
    Ok(relocated)
}

/// Compares two databases of which `sqlite` is SQLite's; `copied` was counted while rows were written.
fn compared(
    source: &Connection,
    copy: &Connection,
    sqlite: &Connection,
    copied: &[Copied],
) -> Result<Relocated, RelocateError> {
    let (here, there) = (db::count(sqlite, source)?, db::count(sqlite, copy)?);
    let (head, walked) = (audit::head(source)?, audit::walk(copy)?);
    if here != there || there != copied || head != walked {
        return Err(RelocateError::Unequal);
    }
    Ok(Relocated {
        tables: copied.len() as u64,
        rows: copied.iter().map(|table| table.rows).sum(),
        audit_entries: walked.seq,
    })
}

/// Takes the file's name away, so that no setting brings records back that are older than the server's.
fn put_aside(place: &Place) -> std::io::Result<()> {
    for suffix in ["-wal", "-shm"] {
        remove(&sidecar(&place.file(), suffix))?;
    }
    fs::rename(place.file(), place.data_dir().join(MOVED_FILE))?;
    File::open(place.data_dir())?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Actor, Role};
    use crate::clock::Clock;
    use crate::ops::facts::{Depth, compute};
    use crate::store::{ATTACHMENTS_DIR, DATABASE_FILE, Mode, Query, Store, View};
    use crate::support::Cluster;
    use crate::{attachments::Attachments, upgrade};

    /// The last schema that was released before records could be on a server.
    const BEFORE: u32 = 13;

    #[test]
    fn an_older_schema_is_upgraded_on_the_server_too_and_kept_as_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::new(dir.path(), Some(Cluster::shared().database(dir.path())));
        let name = format!("tests/fixtures/frozen/schema-{BEFORE}.sqlite");
        let frozen = dir.path().join("frozen.sqlite");
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), &frozen).unwrap();
        let frozen = sqlite::open_existing(&frozen).unwrap();
        let server = place.open_to_write(true).unwrap();
        let transaction = server.transaction_to_write().unwrap();
        make_bare(&transaction, BEFORE).unwrap();
        transaction.defer_references().unwrap();
        frozen.begin_read().unwrap();
        db::copy(&frozen, &transaction, &|| true).unwrap().unwrap();
        transaction.commit().unwrap();
        let attachments = Attachments::existing(&dir.path().join(ATTACHMENTS_DIR));
        let facts = |db: &Connection| compute(db, &attachments, Depth::Recorded).unwrap().facts;
        assert_eq!(facts(&server), facts(&frozen), "an older release would tell the same of it");
        drop(server);
        note_made(dir.path()).unwrap();

        let clock = Clock::manual(1_700_000_100_000);
        assert!(matches!(Store::open(&place, clock.clone(), Mode::Exclusive), Err(StoreError::Older { .. })));
        // One that fails leaves the server as it was, and nothing to undo.
        let in_the_way = "INSERT INTO meta (key, value) VALUES (?1, 'x')";
        let server = place.open_to_write(true).unwrap();
        server.execute(in_the_way, [format!("migrated-to-{SCHEMA_VERSION}-ms")]).unwrap();
        drop(server);
        let refused = upgrade::in_place(&place, &clock).unwrap_err();
        assert!(matches!(refused, upgrade::UpgradeError::Failed { found: BEFORE, .. }), "{refused}");
        assert!(matches!(upgrade::undo(&place), Err(upgrade::UpgradeError::NotUpgraded(BEFORE))));
        let server = place.open_to_write(true).unwrap();
        server.execute("DELETE FROM meta WHERE value = 'x'", []).unwrap();
        drop(server);
        upgrade::in_place(&place, &clock).unwrap();
        let kept = sqlite::open_existing(&dir.path().join(upgrade::KEPT_DIR).join(DATABASE_FILE)).unwrap();
        assert_eq!((schema_version(&kept).unwrap(), facts(&kept)), (BEFORE, facts(&frozen)));
        let store = Store::open(&place, clock, Mode::Exclusive).unwrap();
        let query = Query::parse("Patient", &[("family".to_owned(), "mej".to_owned())]).unwrap();
        let actor = Actor::staff("u", "u", Role::Clinician);
        let found = store.view_blocking(&actor, |view: &View<'_>| view.search(&query)).unwrap();
        assert_eq!(found.resources.len(), 1);
        let accounts = "SELECT count(*) FROM portal_account";
        let accounts =
            store.internal_blocking(|db| Ok::<_, StoreError>(db.query_row(accounts, [], |row| row.get::<_, i64>(0))?));
        assert_eq!(accounts.unwrap(), 1, "a step that moves rows moved them");
        assert!(matches!(upgrade::undo(&place), Err(upgrade::UpgradeError::AtServer)));
    }
}
