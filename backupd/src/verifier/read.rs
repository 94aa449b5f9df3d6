//! Snapshots, names and restores: what a holder of the read key may see. Names go over the Unix socket alone.

use super::Verifier;
use crate::clock::Stopwatch;
use crate::failure;
use crate::sources::is_original_damaged;
use crate::stores;
use backup_engine::{ErrorKind, NamedStore, RestoreRequest, SnapshotInfo};
use backupd_api::{DrillVerdict, Failure, FailureKind, RestoreDone, SnapshotRow, SnapshotState};
use std::path::PathBuf;

/// The word for the newest whole snapshot.
const LATEST: &str = "latest";

impl Verifier {
    pub async fn snapshot_rows(&self) -> Result<Vec<SnapshotRow>, Failure> {
        let heads = backup_engine::heads_with_tags(&self.env, &self.open_key(), &self.stores).await;
        let heads = heads.map_err(|e| failure::from_engine(&e))?;
        let passed: Vec<String> = self
            .report_rows()
            .await
            .unwrap_or_default()
            .into_iter()
            .filter(|r| r.verdict == DrillVerdict::Pass)
            .map(|r| r.snapshot)
            .collect();
        let all = self.stores.len();
        Ok(heads.snapshots.into_iter().map(|info| row(info, &passed, all)).collect())
    }

    /// What the stores with versions held at a time.
    pub async fn snapshot_rows_as_of(&self, unix_ms: i64, store: Option<&str>) -> Result<Vec<SnapshotRow>, Failure> {
        let past = self.as_of(unix_ms, store).await?;
        let heads = backup_engine::heads_with_tags(&self.env, &self.open_key(), &past).await;
        let heads = heads.map_err(|e| failure::from_engine(&e))?;
        Ok(heads.snapshots.into_iter().map(|info| row(info, &[], past.len())).collect())
    }

    /// The stores with versions as they were at a time. One that does not answer is left out while another does.
    async fn as_of(&self, unix_ms: i64, store: Option<&str>) -> Result<Vec<NamedStore>, Failure> {
        let (mut past, mut failed) = (Vec::new(), None);
        for setting in self.settings.stores.iter().filter(|s| store.is_none_or(|name| s.name == name)) {
            match stores::as_of(setting, unix_ms).await {
                Ok(opened) => past.extend(opened),
                Err(error) => {
                    log::warn!(store = setting.name.as_str(), reason:% = error; "store.versions-not-listed");
                    failed = Some(failure::from_engine(&error));
                }
            }
        }
        match failed {
            _ if !past.is_empty() => Ok(past),
            Some(failed) => Err(failed),
            None => Err(failure::new(
                FailureKind::Misconfigured,
                "as of a time is for stores with versions, and none is meant that keeps them: only S3 does",
            )),
        }
    }

    /// The snapshot that a person means: `latest`, an id, or the beginning of one that is unambiguous.
    pub async fn find(&self, wanted: &str) -> Result<SnapshotInfo, Failure> {
        self.find_in(wanted, &self.stores).await
    }

    async fn find_in(&self, wanted: &str, stores: &[NamedStore]) -> Result<SnapshotInfo, Failure> {
        let heads = backup_engine::heads(&self.env, self.open_key().catalog(), stores).await;
        let snapshots = heads.map_err(|e| failure::from_engine(&e))?.snapshots;
        choose(snapshots, wanted)
    }

    /// Restores from the named store alone, which no other is asked beside, as it may be silent; without a name, from the best
    /// that holds the snapshot, and object by object from the others what that one does not have whole. As of a time: from
    /// what stores with versions held then.
    pub async fn restore(
        &self,
        snapshot: &str,
        (store, as_of_unix_ms): (Option<&str>, Option<i64>),
        into: PathBuf,
        (paths, overwrite): (Vec<String>, bool),
    ) -> Result<RestoreDone, Failure> {
        // Somebody needs the records: no drill is waited for.
        let _busy = self.activity.begin("restore");
        if !into.is_absolute() {
            return Err(failure::new(FailureKind::Misconfigured, "the target must be an absolute path"));
        }
        if let Some(name) = store.filter(|name| self.store(name).is_none()) {
            let message = format!("no store is named `{name}`: `backupd stores` lists them");
            return Err(failure::new(FailureKind::NotFound, message));
        }
        let stores = match as_of_unix_ms {
            Some(unix_ms) => self.as_of(unix_ms, store).await?,
            None => self.stores.iter().filter(|s| store.is_none_or(|name| s.name == name)).cloned().collect(),
        };
        let info = self.find_in(snapshot, &stores).await?;
        let mut candidates: Vec<&NamedStore> = stores.iter().filter(|s| info.stores.contains(&s.name)).collect();
        // The best one first: where nothing was found damaged.
        candidates.sort_by_key(|store| self.is_damaged(&store.name));
        let mut last = failure::new(FailureKind::NotFound, "no store holds this snapshot");
        for (attempt, store) in candidates.iter().enumerate() {
            let others =
                candidates.iter().filter(|other| other.name != store.name).map(|other| (*other).clone()).collect();
            let request = RestoreRequest {
                into: into.clone(),
                paths: paths.iter().map(|p| p.trim_matches('/').as_bytes().to_vec()).collect(),
                overwrite: overwrite || attempt > 0,
                others,
                ..RestoreRequest::default()
            };
            match self.restore_from(store, &info, request).await {
                Ok(done) => return Ok(done),
                Err(error)
                    if !matches!(error.kind(), ErrorKind::Misconfigured | ErrorKind::NoSpace | ErrorKind::Stopped) =>
                {
                    log::error!(store = store.name.as_str(), reason:% = error; "restore.store-failed");
                    last = failure::from_engine(&error);
                }
                Err(error) => return Err(failure::from_engine(&error)),
            }
        }
        Err(last)
    }

    async fn restore_from(
        &self,
        store: &NamedStore,
        info: &SnapshotInfo,
        request: RestoreRequest,
    ) -> backup_engine::Result<RestoreDone> {
        let watch = Stopwatch::start();
        let outcome =
            backup_engine::restore(&self.env, &self.open_key(), store, info.id, request, &self.activity).await?;
        log::info!(store = store.name.as_str(), files = outcome.files, bytes = outcome.bytes; "restore.done");
        Ok(RestoreDone {
            files: outcome.files,
            bytes: outcome.bytes,
            bytes_fetched: outcome.bytes_fetched,
            duration_ms: watch.elapsed_ms(),
            skipped: outcome.attributes_refused,
            partial: info.partial,
            source_damaged: is_original_damaged(&self.env, &self.open_key(), store, info.id).await,
        })
    }
}

/// Picks from snapshots in order of age, newest first.
pub fn choose(snapshots: Vec<SnapshotInfo>, wanted: &str) -> Result<SnapshotInfo, Failure> {
    let absent = |message: &str| failure::new(FailureKind::NotFound, message);
    if wanted == LATEST {
        let newest = snapshots.into_iter().find(|s| !s.partial);
        return newest.ok_or_else(|| absent("there is no whole snapshot yet: name a partial one by its id"));
    }
    let mut fits = snapshots.into_iter().filter(|s| wanted.len() >= 6 && s.id.to_string().starts_with(wanted));
    match (fits.next(), fits.next()) {
        (Some(info), None) => Ok(info),
        (Some(_), Some(_)) => Err(absent("more than one snapshot begins so: give more digits of the id")),
        (None, _) => Err(absent(
            "no snapshot has this id, of which at least 6 digits are needed: `backupd snapshots` lists them; `latest` is the newest whole one",
        )),
    }
}

/// A snapshot as the messages tell it; `passed`: ids that a drill proved, `all`: how many stores there are.
pub fn row(info: SnapshotInfo, passed: &[String], all: usize) -> SnapshotRow {
    let id = info.id.to_string();
    let state = if passed.contains(&id) {
        SnapshotState::Proved
    } else if info.stores.len() >= all {
        SnapshotState::Full
    } else {
        SnapshotState::Sealed
    };
    SnapshotRow {
        source: info.source,
        incarnation: info.incarnation.to_string(),
        other_machine: false,
        counter: info.counter,
        taken_unix_ms: info.taken_unix_ms,
        tag: info.tag,
        partial: info.partial,
        state,
        files: info.files,
        bytes_source: info.bytes_source,
        bytes_added: info.bytes_added,
        stores: info.stores,
        id,
    }
}
