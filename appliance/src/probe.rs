//! `appliance probe DIR`: restored data, opened read-only and asked what it is.

use crate::attachments::Attachments;
use crate::db::{Connection, sqlite};
use crate::ops::wire::{self, Answering};
use crate::ops::{facts, golden, refusal};
use crate::store::{ATTACHMENTS_DIR, DATABASE_FILE, SCHEMA_VERSION, StoreError, schema_version, upgrade};
use appliance_api::{Facts, Refusal, Request, Response};
use nix::sched::{CloneFlags, unshare};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::UnixListener;

/// Restored data. Every question opens it anew: nothing is remembered that the disk no longer says.
#[derive(Debug, Clone)]
pub struct Restored {
    dir: PathBuf,
    schema_version: u32,
}

impl Restored {
    /// Opens `dir` as restored: `records.sqlite`, `attachments/`, `config/`. Damaged data is opened too, and refused
    /// when it is asked.
    pub fn open(dir: &Path) -> Restored {
        let schema = golden::open_restored(dir).and_then(|db| schema_version(&db)).unwrap_or(0);
        Restored { dir: dir.to_owned(), schema_version: schema }
    }

    /// Facts from scratch: the database checked page by page, the audit chain walked, every attachment hashed.
    pub fn facts(&self) -> Result<Facts, StoreError> {
        let db = self.connect()?;
        check_integrity(&db)?;
        let facts = facts::compute(&db, &self.attachments(), facts::Depth::Rehashed)?.facts;
        if facts.schema_version < SCHEMA_VERSION {
            // What an older release wrote is told as that release told it, and must come over to this one.
            self.comes_over(&facts)?;
        }
        Ok(facts)
    }

    /// Answers golden questions.
    pub fn golden(
        &self,
        key: &appliance_api::GoldenKey,
        questions: &[appliance_api::GoldenQuestion],
    ) -> Result<Vec<Option<String>>, StoreError> {
        golden::answers(&self.connect()?, &self.attachments(), key, questions)
    }

    /// Upgrades a copy, as the service will where this is put back, and compares what must not change.
    fn comes_over(&self, facts: &Facts) -> Result<(), StoreError> {
        let copy =
            Apart::copy(&self.dir.join(DATABASE_FILE)).map_err(StoreError::io("copy of the restored database"))?;
        // Nothing of it is kept.
        let db = sqlite::open_throwaway(&copy.database())?;
        upgrade(&db, facts.newest_record_unix_ms)?;
        let after = facts::compute(&db, &self.attachments(), facts::Depth::Recorded)?.facts;
        let kept = |facts: &Facts| {
            let (files, audit) = ((facts.attachments, facts.attachment_bytes), facts.audit_head.clone());
            (
                facts.resources.clone(),
                facts.history_rows,
                facts.ledger_entries,
                facts.ledger_balance_cents,
                files,
                audit,
            )
        };
        if kept(&after) == kept(facts) { Ok(()) } else { Err(StoreError::Damaged("upgrade of the restored data")) }
    }

    fn connect(&self) -> Result<Connection, StoreError> {
        let db = golden::open_restored(&self.dir)?;
        let found = schema_version(&db)?;
        if found == 0 {
            return Err(StoreError::Damaged("database empty"));
        }
        if found > SCHEMA_VERSION {
            return Err(StoreError::Newer { found, known: SCHEMA_VERSION });
        }
        Ok(db)
    }

    fn attachments(&self) -> Attachments {
        Attachments::existing(&self.dir.join(ATTACHMENTS_DIR))
    }
}

/// A copy of restored records for this process alone, gone when dropped.
struct Apart(PathBuf);

impl Apart {
    fn copy(database: &Path) -> std::io::Result<Apart> {
        use std::os::unix::fs::DirBuilderExt;
        // The restored folder may be read-only here; a drilled unit has a temporary folder of its own.
        let apart = Apart(std::env::temp_dir().join(format!("holdfast-probe-{}", crate::clock::new_id()?)));
        std::fs::DirBuilder::new().mode(0o700).create(&apart.0)?;
        std::fs::copy(database, apart.database())?;
        // As it was restored, perhaps for reading only.
        std::fs::set_permissions(apart.database(), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        Ok(apart)
    }

    fn database(&self) -> PathBuf {
        self.0.join(DATABASE_FILE)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            log::warn!(kind = error.kind().to_string().as_str(); "probe.copy-not-removed");
        }
    }
}

fn check_integrity(db: &Connection) -> Result<(), StoreError> {
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict == "ok" { Ok(()) } else { Err(StoreError::Damaged("database")) }
}

/// Answers on `listener` until the task is dropped.
pub async fn serve(listener: UnixListener, restored: Restored, allowed_uids: Vec<u32>) {
    wire::serve(listener, allowed_uids, move || Probe(restored.clone())).await;
}

struct Probe(Restored);

impl Answering for Probe {
    fn schema_version(&self) -> u32 {
        self.0.schema_version
    }

    fn patience(&self) -> Option<Duration> {
        None
    }

    async fn answer(&mut self, request: Request) -> Result<Response, Refusal> {
        let restored = self.0.clone();
        let work = move || match request {
            Request::Facts => restored.facts().map(|facts| Response::Facts(Box::new(facts))).map_err(refusal),
            Request::Golden { key, questions } => {
                restored.golden(&key, &questions).map(|answers| Response::Golden { answers }).map_err(refusal)
            }
            Request::Quiesce { .. } => Err(Refusal::ReadOnly),
            Request::Thaw { .. } => Err(Refusal::NoLease),
            Request::Hello { .. } => Err(Refusal::Malformed),
        };
        tokio::task::spawn_blocking(work).await.unwrap_or(Err(Refusal::Data))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IsolateError {
    #[error("the probe cannot be cut off from the network ({0}): allow user namespaces, or run it in its own unit")]
    Unshare(nix::errno::Errno),
    #[error("the probe cannot give up its capabilities ({0}): run it in its own unit")]
    Capabilities(std::io::Error),
    #[error("the probe's user cannot be mapped ({0}): allow user namespaces, or run it in its own unit")]
    Map(std::io::ErrorKind),
}

/// Moves this process into its own user and network namespace: restored records can reach no network, not even
/// loopback. Call it before the first thread is started. Where no user namespace is to be had, as on a hardened server, root
/// takes the network namespace alone and gives up the capabilities that could leave it.
pub fn isolate() -> Result<(), IsolateError> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid().as_raw());
    if let Err(error) = unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET) {
        return if uid.is_root() { without_capabilities() } else { Err(IsolateError::Unshare(error)) };
    }
    // The own user keeps its number, so that peers of the same user are still recognised on the socket.
    let uid = uid.as_raw();
    let map = |file: &str, text: String| std::fs::write(file, text).map_err(|error| IsolateError::Map(error.kind()));
    map("/proc/self/setgroups", "deny".into())?;
    map("/proc/self/uid_map", format!("{uid} {uid} 1"))?;
    map("/proc/self/gid_map", format!("{gid} {gid} 1"))
}

fn without_capabilities() -> Result<(), IsolateError> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(IsolateError::Unshare)?;
    // Nor does any program that it might be brought to start get them back.
    set_no_new_privs(true).map_err(|error| IsolateError::Capabilities(error.into()))?;
    let none = CapabilitySet::empty();
    let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, sets).map_err(|error| IsolateError::Capabilities(error.into()))
}
