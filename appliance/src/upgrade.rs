//! From the schema of an older release to this one's, with two ways back.
//!
//! ```text
//! older schema found -> the operations socket answers (and nothing else) -> `backupd serve` takes a snapshot, durable
//!   -> database checked page by page -> kept beside as it is -> all steps in one transaction -> plain attachments sealed
//!   -> the service begins
//! ```
//!
//! Whatever fails before the commit, the file is what it was, and the older release goes on with it. After it, `appliance
//! upgrade undo` puts the kept file back; and the snapshot is in every store.

use crate::attachments::{Attachments, older as plain};
use crate::clock::Clock;
use crate::db::{Connection, Place, sqlite};
use crate::ops::{Operations, room, wire};
use crate::settings::Settings;
use crate::store::{self, ATTACHMENTS_DIR, DATABASE_FILE, DataLock, SCHEMA_VERSION, Store, StoreError, schema_version};
use backupd_api::{Client, ClientError, Endpoint, Event, FailureKind, Request, SnapshotState};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Where the database stays as it was, in the data folder. Not part of a snapshot: the one before the upgrade holds it.
pub const KEPT_DIR: &str = "before-upgrade";
/// What an undone upgrade leaves of the upgraded database, in [`KEPT_DIR`].
pub const GIVEN_UP_FILE: &str = "given-up.sqlite";

/// The backup daemon starts after this program, and reads its local state first.
const DAEMON_PATIENCE: Duration = Duration::from_secs(60);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the records have schema {found} and this release writes {SCHEMA_VERSION}: they are upgraded only after a snapshot, and \
         {why}. Nothing was changed, and the older release can go on. Or set `upgrade_without_snapshot = true` in [backup] of \
         appliance.toml: the upgrade keeps the old file beside the new one, but no copy elsewhere"
    )]
    NoSnapshot { found: u32, why: NoSnapshot },
    #[error(
        "the upgrade of the records from schema {found} to {SCHEMA_VERSION} failed, and nothing was changed: {why}. Put right what is \
         named here and start again. Until then, or where nothing is named that you can put right, start the older release, which \
         goes on with the records as they are, and have this message looked into"
    )]
    Failed { found: u32, why: StoreError },
    #[error(
        "the records have schema {SCHEMA_VERSION} now, and some attachments of the older release are not sealed yet: {0}. Put that \
         right and start again, it goes on where it stopped; `appliance upgrade undo` is the way back"
    )]
    NotSealed(StoreError),
    #[error("the operations socket cannot be made ({0}): choose a folder of this user as ops_socket in appliance.toml")]
    Socket(std::io::ErrorKind),
    #[error(
        "no older database is kept in this data folder: an upgrade that is not of this place, or was kept, is undone with `backupd restore`"
    )]
    NothingKept,
    #[error(
        "the records have schema {0}, as before the upgrade: it failed or was undone, so nothing was to be undone and nothing was \
         changed. The release that writes schema {0} goes on with them"
    )]
    NotUpgraded(u32),
    #[error(
        "the records are in a PostgreSQL database, where nothing is put back in place: before-upgrade/records.sqlite in the data \
         folder is a copy of what they were. Name an empty database in appliance.toml, move that file to records.sqlite in the data \
         folder, and copy it there with the older release's `appliance database copy to-server`"
    )]
    AtServer,
}

/// Why there is no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum NoSnapshot {
    #[error("[backup] in appliance.toml names no `serve_socket` of `backupd serve`")]
    NotSet,
    #[error("`backupd serve` did not take it: {0}")]
    Asked(#[from] ClientError),
    #[error("the snapshot is not in enough stores yet: see `backupd status`, and start again when the stores answer")]
    NotDurable,
    #[error("some files could not be read for the snapshot: see the log of `backupd serve`")]
    Partial,
    #[error(
        "`backupd serve` took a snapshot of something else: name this EMR's ops_socket in a [[source]] of serve.toml"
    )]
    Elsewhere,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgraded {
    pub from: u32,
    /// There is a durable snapshot of the records as they were.
    pub snapshot: bool,
}

/// Upgrades the records of `settings` where an older release wrote them. Called by the service before it opens them.
pub async fn before_serving(settings: &Settings, clock: &Clock) -> Result<Option<Upgraded>, UpgradeError> {
    let Some(from) = older(&settings.place())? else {
        return seal_what_is_left(settings).await.map(|()| None);
    };
    log::info!(from = from, to = SCHEMA_VERSION; "upgrade.begun");
    let snapshot = match snapshot(settings, clock).await {
        Ok(()) => true,
        Err(Ended::Snapshot(why)) if settings.backup.upgrade_without_snapshot => {
            log::warn!(reason = why.to_string().as_str(); "upgrade.without-snapshot");
            false
        }
        Err(Ended::Snapshot(why)) => return Err(UpgradeError::NoSnapshot { found: from, why }),
        Err(Ended::Other(error)) => return Err(error),
    };
    let (place, clock) = (settings.place(), clock.clone());
    let work = tokio::task::spawn_blocking(move || in_place(place, &clock));
    work.await.unwrap_or(Err(StoreError::Closed.into())).inspect_err(|_| log::error!(from = from; "upgrade.failed"))?;
    log::info!(from = from, to = SCHEMA_VERSION, snapshot = snapshot; "upgrade.done");
    Ok(Some(Upgraded { from, snapshot }))
}

/// Goes on with an upgrade that was interrupted while it sealed attachments.
async fn seal_what_is_left(settings: &Settings) -> Result<(), UpgradeError> {
    let place = settings.place();
    if place.server().is_none() && !place.has_file() {
        return Ok(());
    }
    let left = |db: &Connection| Ok::<_, StoreError>(schema_version(db)? == SCHEMA_VERSION && plain::are_left(db)?);
    if left(&place.open_existing().map_err(StoreError::from)?)? {
        // It may take longer than the service manager waits.
        service::status("sealing the attachments of an older release");
        service::ready();
        let work = tokio::task::spawn_blocking(move || {
            let _lock = DataLock::acquire(place.data_dir())?;
            let connection = place.open_to_write(true).map_err(StoreError::from)?;
            seal_attachments(place.data_dir(), &connection).map_err(UpgradeError::NotSealed)
        });
        work.await.unwrap_or(Err(StoreError::Closed.into()))?;
    }
    Ok(())
}

fn seal_attachments(data_dir: &Path, connection: &Connection) -> Result<(), StoreError> {
    let attachments = Attachments::open(&data_dir.join(ATTACHMENTS_DIR), true)?;
    let sealed = plain::seal_all(connection, &attachments)?;
    log::info!(files = sealed; "attachments.sealed");
    Ok(())
}

/// The schema of the records in `place`, where it is older than this release's.
fn older(place: &Place) -> Result<Option<u32>, StoreError> {
    if place.server().is_none() && !place.has_file() {
        return Ok(None);
    }
    let found = schema_version(&place.open_existing()?)?;
    Ok((1..SCHEMA_VERSION).contains(&found).then_some(found))
}

enum Ended {
    Snapshot(NoSnapshot),
    Other(UpgradeError),
}

impl From<StoreError> for Ended {
    fn from(error: StoreError) -> Ended {
        Ended::Other(error.into())
    }
}

/// Asks `backupd serve` for a snapshot, which comes back for the records through the operations socket.
async fn snapshot(settings: &Settings, clock: &Clock) -> Result<(), Ended> {
    let socket = settings.backup.serve_socket.as_deref().ok_or(Ended::Snapshot(NoSnapshot::NotSet))?;
    let store = Store::open_older(&settings.place(), clock.clone())?;
    let listener =
        wire::bind(&settings.ops_socket).map_err(|error| Ended::Other(UpgradeError::Socket(error.kind())))?;
    let operations = Arc::new(Operations::new(store.clone(), settings)?);
    let before = canaries(&store).await?;
    let serving = tokio::spawn(operations.serve(listener));
    // Whoever waits for this program before it starts the backup daemon goes on: the socket that that one needs answers.
    service::status("the records are of an older release: waiting for a snapshot before they are upgraded");
    service::ready();
    let taken = ask(socket, settings.backup.upgrade_without_snapshot).await;
    serving.abort();
    let _ = serving.await;
    let read = canaries(&store).await? > before;
    match taken {
        Ok(()) if !read => Err(Ended::Snapshot(NoSnapshot::Elsewhere)),
        taken => taken.map_err(Ended::Snapshot),
    }
}

/// Every consistent copy begins with a canary, and here nothing else writes one.
async fn canaries(store: &Store) -> Result<i64, StoreError> {
    let newest = "SELECT coalesce(max(sequence), 0) FROM canary";
    store.internal(move |db| Ok(db.query_row(newest, [], |row| row.get(0))?)).await
}

async fn ask(socket: &Path, dispensable: bool) -> Result<(), NoSnapshot> {
    let endpoint = Endpoint::Unix(socket.to_owned());
    let started = crate::clock::monotonic();
    let patience = if dispensable { Duration::ZERO } else { DAEMON_PATIENCE };
    loop {
        match taken(&endpoint).await {
            // Not there yet, or at work on a snapshot of its own.
            Err(NoSnapshot::Asked(error)) if passes(&error) && started.elapsed() < patience => {}
            told => return told,
        }
        tokio::time::sleep(ASK_AGAIN_AFTER).await;
    }
}

fn passes(error: &ClientError) -> bool {
    match error {
        ClientError::Connect { .. } | ClientError::Closed => true,
        ClientError::Failed(failure) => matches!(failure.kind, FailureKind::Busy),
        _ => false,
    }
}

async fn taken(endpoint: &Endpoint) -> Result<(), NoSnapshot> {
    let request = Request::Snapshot { tag: Some(format!("before-schema-{SCHEMA_VERSION}")) };
    let event = Client::connect(endpoint).await?.request(&request, |_| ()).await?;
    let Event::SnapshotDone(done) = event else { return Err(ClientError::Malformed.into()) };
    if done.state < SnapshotState::Durable {
        return Err(NoSnapshot::NotDurable);
    }
    if done.partial { Err(NoSnapshot::Partial) } else { Ok(()) }
}

/// Keeps the database as it is, brings it to this release's schema and seals what lies plain. Blocks on the disk.
///
/// # Errors
/// Before the commit, whatever it is, the records are as they were; after it ([`UpgradeError::NotSealed`]), the next start goes on.
pub fn in_place(place: impl Into<Place>, clock: &Clock) -> Result<(), UpgradeError> {
    let place = place.into();
    let data_dir = place.data_dir();
    let _lock = DataLock::acquire(data_dir)?;
    let connection = place.open_to_write(true).map_err(StoreError::from)?;
    let found = schema_version(&connection)?;
    migrate(&place, &connection, clock).map_err(|why| UpgradeError::Failed { found, why })?;
    seal_attachments(data_dir, &connection).map_err(UpgradeError::NotSealed)
}

fn migrate(place: &Place, connection: &Connection, clock: &Clock) -> Result<(), StoreError> {
    if place.server().is_none() {
        check_pages(connection)?;
        keep(place.data_dir(), connection)?;
    } else {
        keep_copy(place.data_dir(), connection)?;
    }
    store::upgrade(connection, clock.unix_ms())
}

/// A database with a broken page is restored, not upgraded: what was read wrong would be written anew.
fn check_pages(connection: &Connection) -> Result<(), StoreError> {
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged("database")) }
}

/// Copies the database file as it is: whole or not at all, and over the one of an earlier upgrade.
fn keep(data_dir: &Path, connection: &Connection) -> Result<(), StoreError> {
    into_one_file(connection)?;
    let (database, kept) = (data_dir.join(DATABASE_FILE), data_dir.join(KEPT_DIR));
    let bytes = fs::metadata(&database).map_err(StoreError::io("database"))?.len();
    // Two times: the copy, and at most as much again for the log of the one transaction.
    room::check(data_dir, bytes.saturating_mul(2))?;
    let copy = || -> std::io::Result<()> {
        fs::create_dir_all(&kept)?;
        let begun = kept.join("copying");
        fs::copy(&database, &begun)?;
        File::open(&begun)?.sync_all()?;
        fs::rename(&begun, kept.join(DATABASE_FILE))?;
        File::open(&kept)?.sync_all()?;
        File::open(data_dir)?.sync_all()
    };
    copy().map_err(StoreError::io("older database"))
}

/// Keeps what a server holds as a file, which every release reads that knows its schema.
fn keep_copy(data_dir: &Path, connection: &Connection) -> Result<(), StoreError> {
    let kept = data_dir.join(KEPT_DIR);
    fs::create_dir_all(&kept).map_err(StoreError::io("older database"))?;
    let begun = kept.join("copying");
    remove(&begun).map_err(StoreError::io("older database"))?;
    connection.begin_read()?;
    crate::relocate::into_file(connection, &begun, &|| true)?;
    connection.end_read()?;
    let put_in_place = || -> std::io::Result<()> {
        File::open(&begun)?.sync_all()?;
        fs::rename(&begun, kept.join(DATABASE_FILE))?;
        File::open(&kept)?.sync_all()?;
        File::open(data_dir)?.sync_all()
    };
    put_in_place().map_err(StoreError::io("older database"))
}

/// Moves what stands in the log into the database file.
fn into_one_file(connection: &Connection) -> Result<(), StoreError> {
    let busy: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(StoreError::Busy) }
}

/// Puts the database of before the upgrade back, while the service is stopped. What was written since stays in
/// [`GIVEN_UP_FILE`]. The schema that the records have then.
///
/// # Errors
/// [`UpgradeError::NothingKept`] and [`UpgradeError::NotUpgraded`]; a repetition after an interruption goes on.
pub fn undo(place: impl Into<Place>) -> Result<u32, UpgradeError> {
    let place = place.into();
    if place.server().is_some() {
        return Err(at_server(&place));
    }
    let data_dir = place.data_dir();
    let _lock = DataLock::acquire(data_dir)?;
    let (database, folder) = (data_dir.join(DATABASE_FILE), data_dir.join(KEPT_DIR));
    let kept = folder.join(DATABASE_FILE);
    if !kept.is_file() {
        return Err(UpgradeError::NothingKept);
    }
    let older = sqlite::open_existing(&kept).map_err(StoreError::from)?;
    check_pages(&older)?;
    let schema = schema_version(&older)?;
    if database.is_file() {
        let current = Connection::open(&database).map_err(StoreError::from)?;
        into_one_file(&current)?;
        // A copy is kept before the first step: it is no sign that there was a last one.
        if schema_version(&current)? == schema {
            return Err(UpgradeError::NotUpgraded(schema));
        }
        // The older release knows no sealed files; an interrupted undo may have put its database back already.
        if schema_version(&current)? == SCHEMA_VERSION {
            let attachments = Attachments::open(&data_dir.join(ATTACHMENTS_DIR), true)?;
            plain::lay_open(&older, &current, &attachments)?;
        }
    }
    drop(older);
    let put_back = || -> std::io::Result<()> {
        for suffix in ["-wal", "-shm"] {
            for file in [&database, &kept] {
                remove(&sidecar(file, suffix))?;
            }
        }
        let given_up = folder.join(GIVEN_UP_FILE);
        if database.is_file() {
            remove(&given_up)?;
            fs::hard_link(&database, &given_up)?;
        }
        fs::rename(&kept, &database)?;
        File::open(&folder)?.sync_all()?;
        File::open(data_dir)?.sync_all()
    };
    put_back().map_err(StoreError::io("older database"))?;
    Ok(schema)
}

/// The way back from an upgrade of a server's database, where there was one.
fn at_server(place: &Place) -> UpgradeError {
    let kept = sqlite::open_existing(&place.data_dir().join(KEPT_DIR).join(DATABASE_FILE)).map_err(StoreError::from);
    let kept = kept.and_then(|kept| schema_version(&kept));
    let current = place.open_existing().map_err(StoreError::from).and_then(|server| schema_version(&server));
    match (kept, current) {
        (Ok(kept), Ok(current)) if kept == current => UpgradeError::NotUpgraded(current),
        // A server that does not answer hides no way back.
        _ => UpgradeError::AtServer,
    }
}

/// Gives up the way back: removes the older database and what an undone upgrade left. Whether there was any.
pub fn settle(data_dir: &Path) -> Result<bool, UpgradeError> {
    let folder = data_dir.join(KEPT_DIR);
    if !folder.exists() {
        return Ok(false);
    }
    fs::remove_dir_all(&folder).map_err(StoreError::io("older database"))?;
    Ok(true)
}

/// The file beside a database that its name and a suffix name.
pub(crate) fn sidecar(database: &Path, suffix: &str) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Removes a file; one that is not there is removed already.
pub(crate) fn remove(file: &Path) -> std::io::Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
