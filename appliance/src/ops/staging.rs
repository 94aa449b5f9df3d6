//! The consistent copy.

use super::room;
use crate::clock;
use crate::db::Connection;
use crate::settings::Settings;
use crate::store::{ATTACHMENTS_DIR, DATABASE_FILE, Store, StoreError};
use appliance_api::{LEASE_MS_MAX, Part, PartKind};
use std::fs;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pages copied at a time; between two steps the copy can be abandoned.
const STEP_PAGES: i32 = 2048;
/// How often a write is timed while the copy runs.
const STALL_PROBE_EVERY: Duration = Duration::from_millis(50);

/// The folder in which copies are made. The program's umask gives its group, in which the backup is, and nobody else the
/// right to read them.
pub struct Staging {
    folder: PathBuf,
    config_files: Vec<(PathBuf, PathBuf)>,
}

/// One copy; dropping it removes it.
pub struct Copy {
    id: String,
    folder: PathBuf,
}

/// SQLite's log, empty in every copy: what is restored over or beside the files of a run that was killed must not meet that
/// run's log, which SQLite would take for its own.
const LOG_FILE: &str = "records.sqlite-wal";

/// Where the last copy of a server's records stays, so that the next one writes the difference alone: in the data folder, which
/// the backup does not read.
const MIRROR_DIR: &str = "mirror";

impl Staging {
    /// Opens the folder and removes what an earlier run left in it.
    pub fn open(settings: &Settings) -> Result<Staging, StoreError> {
        let folder = settings.staging_dir.clone();
        fs::create_dir_all(&folder).map_err(StoreError::io("staging folder"))?;
        for leftover in fs::read_dir(&folder).map_err(StoreError::io("staging folder"))?.flatten() {
            // Only what looks like a lease is ours to remove.
            if leftover.file_name().to_str().is_some_and(|name| uuid::Uuid::parse_str(name).is_ok()) {
                fs::remove_dir_all(leftover.path()).map_err(StoreError::io("staging folder"))?;
            }
        }
        let mirror = settings.data_dir.join(MIRROR_DIR);
        if settings.database.is_none() && mirror.exists() {
            // Nothing follows the records into it any more.
            fs::remove_dir_all(&mirror).map_err(StoreError::io("mirror"))?;
        }
        let [cert, key] = &settings.tls_as_written;
        let config_files = vec![
            (settings.file.clone(), PathBuf::from("appliance.toml")),
            (settings.tls_cert.clone(), place(cert, "tls/cert.pem")),
            (settings.tls_key.clone(), place(key, "tls/key.pem")),
        ];
        Ok(Staging { folder, config_files })
    }

    /// Copies the database and the configuration; tells how long a write took at most meanwhile.
    pub async fn copy(&self, store: &Store) -> Result<(Copy, Duration), StoreError> {
        let bytes = database_bytes(store).await?;
        let mirror = store.place().data_dir().join(MIRROR_DIR).join(DATABASE_FILE);
        if store.place().server().is_some() && !mirror.is_file() {
            room::check(store.place().data_dir(), bytes)?;
        }
        room::check(&self.folder, bytes)?;
        let id = clock::new_id().map_err(StoreError::io("randomness"))?;
        let copy = Copy { folder: self.folder.join(&id), id };
        fs::create_dir(&copy.folder).map_err(StoreError::io("staging folder"))?;
        // The newest canary in the copy is then as old as the copy. A database that can take none is copied all the same.
        passed_over(store.canary().await)?;
        // Set when the caller goes away: the blocking copy ends at its next step.
        fs::write(copy.folder.join(LOG_FILE), []).map_err(StoreError::io("staging folder"))?;
        let abandoned = Abandon(Arc::new(AtomicBool::new(false)));
        let (source, target, flag) = (store.clone(), copy.database(), Arc::clone(&abandoned.0));
        let copying = tokio::task::spawn_blocking(move || copy_database(&source, &mirror, &target, &flag));
        let stall = timed_writes(store, copying).await?;
        self.copy_config(&copy.folder.join("config")).map_err(StoreError::io("configuration"))?;
        Ok((copy, stall))
    }

    fn copy_config(&self, into: &Path) -> std::io::Result<()> {
        for (from, name) in &self.config_files {
            let to = into.join(name);
            fs::create_dir_all(to.parent().unwrap_or(into))?;
            // Records are backed up whatever else is gone: whoever keeps these files with the snapshots tells that.
            match fs::read(from) {
                // Not the mode of the original: the key is for its owner only, and the backup reads as a member of the group.
                Ok(bytes) => fs::write(to, bytes)?,
                Err(error) => {
                    log::error!(file:% = name.display(), reason:% = error.kind(); "staging.configuration-unreadable")
                }
            }
        }
        Ok(())
    }
}

impl Copy {
    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn database(&self) -> PathBuf {
        self.folder.join(DATABASE_FILE)
    }

    /// What to back up. The attachments are read where they are: they are immutable, and those that are added meanwhile
    /// belong to no row of the copy.
    pub fn parts(&self, store: &Store) -> Vec<Part> {
        let part = |name: &str, path: PathBuf, kind| Part { name: name.to_owned(), path, kind };
        vec![
            part(DATABASE_FILE, self.database(), PartKind::Pages),
            part(LOG_FILE, self.folder.join(LOG_FILE), PartKind::Files),
            part(ATTACHMENTS_DIR, store.attachments().root().to_owned(), PartKind::Files),
            part("config", self.folder.join("config"), PartKind::Files),
        ]
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            log::warn!(kind = error.kind().to_string().as_str(); "ops.staging-not-removed");
        }
    }
}

struct Abandon(Arc<AtomicBool>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A path as written in the settings keeps its place below the configuration; others get a fixed one.
fn place(written: &Path, otherwise: &str) -> PathBuf {
    if written.components().all(|part| matches!(part, Component::Normal(_))) {
        written.to_owned()
    } else {
        PathBuf::from(otherwise)
    }
}

async fn database_bytes(store: &Store) -> Result<u64, StoreError> {
    if store.place().server().is_some() {
        let sql = "SELECT pg_database_size(current_database())";
        return store.internal(move |db| Ok(db.query_row(sql, [], |row| row.get(0))?)).await;
    }
    let size = |suffix: &str| {
        let mut path = store.place().file().into_os_string();
        path.push(suffix);
        fs::metadata(path).map_or(0, |found| found.len())
    };
    Ok(size("").saturating_add(size("-wal")))
}

/// Copies under one read transaction of the source: its state is that of one moment, however long the copy takes, and
/// writers do not wait for it. What is on a server becomes a file as well: whoever restores it needs no server.
fn copy_database(store: &Store, mirror: &Path, target: &Path, abandoned: &AtomicBool) -> Result<(), StoreError> {
    store.internal_blocking(|source: &Connection| {
        let goes_on = || !abandoned.load(Ordering::Relaxed);
        let Some(file) = source.as_sqlite() else {
            fs::create_dir_all(mirror.parent().unwrap_or(target)).map_err(StoreError::io("mirror"))?;
            return match crate::relocate::by_mirror(source, mirror, target, &goes_on)? {
                true => Ok(()),
                false => Err(StoreError::Closed),
            };
        };
        // `internal` has begun a deferred transaction; the first read fixes its moment.
        let begun = source.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()));
        if begun.is_err_and(|error| is_damage(&error.into())) {
            return copy_bytes(&store.place().file(), target);
        }
        match file.copy_into(target, STEP_PAGES, &goes_on)? {
            true => Ok(()),
            false => Err(StoreError::Closed),
        }
    })
}

/// Not even its first page is one of a database: what is left of the file is kept as it is.
fn copy_bytes(database: &Path, target: &Path) -> Result<(), StoreError> {
    fs::copy(database, target).map(|_| ()).map_err(StoreError::io("staging folder"))
}

fn is_damage(error: &StoreError) -> bool {
    matches!(error, StoreError::Damaged(_) | StoreError::Database(_) | StoreError::Audit)
}

/// Damage stops no copy: it is the moment when a copy matters. It is told by whoever examines the copy.
fn passed_over(written: Result<(), StoreError>) -> Result<(), StoreError> {
    written.or_else(|error| if is_damage(&error) { Ok(()) } else { Err(error) })
}

/// Times a small write again and again until the copy is done; the longest is what a clinician would have waited.
async fn timed_writes(
    store: &Store,
    mut copying: tokio::task::JoinHandle<Result<(), StoreError>>,
) -> Result<Duration, StoreError> {
    let mut longest = Duration::ZERO;
    loop {
        let started = clock::monotonic();
        // A write that waits this long ends the copy: dropping `copying`'s owner tells it to stop at its next step.
        let written = tokio::time::timeout(Duration::from_millis(LEASE_MS_MAX), store.canary()).await;
        passed_over(written.map_err(|_| StoreError::Busy)?)?;
        longest = longest.max(started.elapsed());
        tokio::select! {
            done = &mut copying => return done.unwrap_or(Err(StoreError::Closed)).map(|()| longest),
            () = tokio::time::sleep(STALL_PROBE_EVERY) => {}
        }
    }
}
