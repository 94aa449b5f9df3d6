//! The downtime pack: what the office works with while it is cut off from the data center.
//!
//! ```text
//! every 30 minutes: records -> sheet (HTML, PDF) -> seal (one HTML file) -> data_dir/downtime/pack.html
//! an office computer pulls it with a credential of its own, and opens it without a network, with a password
//! ```
//!
//! The service keeps the key that the password gives, never the password: each pack has a key of its own, wrapped by it.

mod seal;
mod sheet;

pub use seal::{PASSWORD_GROUPS, new_password};
#[cfg(test)]
pub(crate) use sheet::gather;

use crate::access::{Actor, Program};
use crate::audit::{Action, Event};
use crate::db::{Connection, OptionalExtension};
use crate::store::{Store, StoreError, Tx, View};
use chrono_tz::Tz;
use seal::Key;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Applied by a migration of the store.
pub const SCHEMA: &str = include_str!("schema.sql");
const KEY: &str = "downtime-key";
const SALT: &str = "downtime-salt";
const SET: &str = "downtime-set-s";

/// `[downtime]` of the settings.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How often the pack is made.
    pub every_minutes: u32,
    /// Every active patient, or those on the schedule of the pack alone.
    pub all_patients: bool,
    /// Where the newest pack lies.
    pub file: PathBuf,
}

/// A computer that may pull the pack.
#[derive(Debug, Clone)]
pub struct Access {
    /// SHA-256 of the token, hex.
    pub id: String,
    pub name: String,
    pub created_s: i64,
    pub pulled_s: Option<i64>,
}

/// Makes the pack again and again. Without a password there is none.
pub async fn work(store: Store, plan: Plan, practice: String, zone: Tz) {
    loop {
        match make(&store, &plan, &practice, zone).await {
            Ok(true) => log::info!("downtime.made"),
            Ok(false) => {}
            Err(error) => log::error!(error = error.to_string().as_str(); "downtime.failed"),
        }
        tokio::time::sleep(Duration::from_secs(u64::from(plan.every_minutes) * 60)).await;
    }
}

/// Makes the pack; `false` where no password is set.
pub async fn make(store: &Store, plan: &Plan, practice: &str, zone: Tz) -> Result<bool, StoreError> {
    let Some(key) = store.internal(key).await? else { return Ok(false) };
    let (now_ms, all) = (store.clock().unix_ms(), plan.all_patients);
    let gather = move |view: &View<'_>| sheet::gather(view, (zone, now_ms / 1000), all);
    let sheet = store.view::<_, StoreError, _>(&Actor::program(Program::Downtime), gather).await?;
    let (file, practice) = (plan.file.clone(), practice.to_owned());
    let write = move || {
        let taken = seal::Taken::new(now_ms, zone);
        let pdf = sheet.pdf(&practice).map_err(|_| StoreError::Damaged("PDF"))?;
        let pack = seal::pack(&key, &taken, &practice, &sheet.html(&practice), &pdf)?;
        replace(&file, pack.as_bytes()).map_err(StoreError::io("downtime pack"))
    };
    tokio::task::spawn_blocking(write).await.unwrap_or(Err(StoreError::Closed))?;
    Ok(true)
}

/// The newest pack; `None` before the first.
pub fn newest(plan: &Plan) -> Result<Option<Vec<u8>>, StoreError> {
    match fs::read(&plan.file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("downtime pack")(error)),
    }
}

/// Age of the newest pack, seconds.
pub fn made_s(plan: &Plan) -> Option<i64> {
    let changed = fs::metadata(&plan.file).ok()?.modified().ok()?;
    let since = changed.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok()
}

fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    File::open(folder)?.sync_all()
}

fn setting(db: &Connection, key: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT value FROM practice_setting WHERE key = ?1";
    Ok(db.prepare_cached(sql)?.query_row([key], |row| row.get(0)).optional()?)
}

fn key(db: &Connection) -> Result<Option<Key>, StoreError> {
    let (Some(key), Some(salt)) = (setting(db, KEY)?, setting(db, SALT)?) else { return Ok(None) };
    Key::stored(&key, &salt).map(Some).ok_or(StoreError::Damaged("downtime key"))
}

/// When the password was set, Unix seconds.
pub fn password_set(db: &Connection) -> Result<Option<i64>, StoreError> {
    Ok(setting(db, SET)?.and_then(|text| text.parse().ok()))
}

/// Keeps what a password gives. Deriving it takes a while, so it comes derived.
pub fn set_password(tx: &Tx<'_>, key: &Key, now_s: i64) -> Result<(), StoreError> {
    let (key, salt) = key.to_stored();
    let sql = "INSERT INTO practice_setting (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";
    for (name, value) in [(KEY, key.as_str()), (SALT, &salt), (SET, &now_s.to_string())] {
        tx.connection().execute(sql, (name, value))?;
    }
    Ok(())
}

/// What a password gives under a fresh salt. Takes about half a second.
pub fn derive(password: &str) -> Result<Key, StoreError> {
    Key::derive(password)
}

/// Lets a computer in; its token is told once.
pub fn admit(tx: &Tx<'_>, name: &str, token: &str, now_s: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO downtime_access (token_hash, name, account, created_s) VALUES (?1, ?2, ?3, ?4)";
    tx.connection().execute(sql, (service::auth::token_hash(token), name, &tx.actor().id, now_s))?;
    Ok(())
}

/// Ends a computer's access.
pub fn dismiss(tx: &Tx<'_>, id: &str) -> Result<bool, StoreError> {
    Ok(tx.connection().execute("DELETE FROM downtime_access WHERE lower(hex(token_hash)) = ?1", [id])? == 1)
}

pub fn admitted(db: &Connection) -> Result<Vec<Access>, StoreError> {
    let sql = "SELECT lower(hex(token_hash)), name, created_s, pulled_s FROM downtime_access ORDER BY created_s, name";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([], |row| {
        Ok(Access { id: row.get(0)?, name: row.get(1)?, created_s: row.get(2)?, pulled_s: row.get(3)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The name of the computer to which a token belongs.
pub fn computer(db: &Connection, token: &str) -> Result<Option<String>, StoreError> {
    let sql = "SELECT name FROM downtime_access WHERE token_hash = ?1";
    let hash = service::auth::token_hash(token);
    Ok(db.prepare_cached(sql)?.query_row([hash], |row| row.get(0)).optional()?)
}

/// Notes that a computer has the pack now.
pub fn pulled(tx: &mut Tx<'_>, token: &str, now_s: i64) -> Result<(), StoreError> {
    let sql = "UPDATE downtime_access SET pulled_s = ?2 WHERE token_hash = ?1";
    tx.connection().prepare_cached(sql)?.execute((service::auth::token_hash(token), now_s))?;
    tx.note(Event::new(Action::Download, "downtime", ""));
    Ok(())
}
