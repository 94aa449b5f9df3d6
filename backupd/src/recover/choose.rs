//! Which snapshot of each source comes back: the newest whose records the store has whole. Settings and keys that it lacks
//! come from an older one, because what was entered since is worth more than a file that has not changed.
//!
//! A daemon that lost its state folder no longer knows what a kept folder held before, and so neither lacks nor carries it: then the
//! last snapshot from before that is the older one.

use super::back::Recovery;
use super::ended::{Skipped, Taken, Why, time};
use super::layout;
use crate::cli::{Bars, Usage};
use crate::sources::PRACTICE_PART;
use anyhow::{Context, ensure};
use backup_engine::{Error, ErrorKind, Rejected, RestoreRequest, Result, SnapshotInfo, Unreadable};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// In the staging folder: settings and keys of older snapshots, by source. No source is named so.
const OLDER: &str = ".older";

/// So many are asked for kept files. What a whole one does not have, no other whole one is asked for; a partial one may have it.
const OLDER_MAX: usize = 16;

/// What could not be read when a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    Nothing,
    /// Kept files only: settings, keys, certificates.
    Kept,
    /// Of the records.
    Records,
}

impl Lack {
    /// Of a partial snapshot. Kept files that were gone are on no list: it is partial without naming one.
    fn of(unreadable: &Unreadable) -> Self {
        let all_named = unreadable.count == unreadable.listed.len() as u64;
        let is_kept = |path: &[u8]| path.split(|byte| *byte == b'/').next() == Some(PRACTICE_PART.as_bytes());
        let kept_only = all_named && unreadable.listed.iter().all(|(path, _)| is_kept(path));
        if kept_only { Self::Kept } else { Self::Records }
    }
}

/// The snapshot that comes back, and lies in the staging folder.
pub(super) struct Chosen {
    pub(super) info: SnapshotInfo,
    pub(super) lack: Lack,
    /// Where the kept files that it lacks come from, and which those are.
    pub(super) filled: Option<(SnapshotInfo, Vec<PathBuf>)>,
    pub(super) bytes: u64,
    /// Objects of snapshots that may be newer, which this store does not have whole.
    pub(super) unread: Vec<String>,
    /// The newest snapshot of each other machine that wrote beside the one of `info`.
    pub(super) beside: Vec<SnapshotInfo>,
}

/// The snapshots of one source.
pub(super) struct Candidates {
    /// Newest first.
    snapshots: Vec<SnapshotInfo>,
    unread: Vec<Rejected>,
}

/// Where the older kept files of a source lie until they are put into place.
pub(super) fn older(staging: &Path, info: &SnapshotInfo) -> PathBuf {
    staging.join(OLDER).join(&info.source)
}

fn remove_if_there(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("the staging folder"),
        _ => Ok(()),
    }
}

/// The store has lost a part of it: another snapshot may be whole.
fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound)
}

impl Recovery {
    /// The snapshots of every source, newest first.
    pub(super) async fn candidates(&self) -> anyhow::Result<Vec<Candidates>> {
        let heads = backup_engine::heads(&self.env, self.open.catalog(), std::slice::from_ref(&self.store)).await?;
        let mut snapshots = heads.snapshots.clone();
        if let Some(from) = &self.from {
            let fits = |s: &SnapshotInfo| s.id.to_string().starts_with(from.as_str());
            let at = snapshots.iter().position(fits);
            let at = at.with_context(|| format!("store {} holds no snapshot {from}", self.store.name))?;
            ensure!(
                snapshots.iter().filter(|s| fits(s)).count() == 1,
                Usage(format!("--snapshot {from}: several begin so, give more digits"))
            );
            snapshots.drain(..at);
        }
        let mut by_source: BTreeMap<String, Vec<SnapshotInfo>> = BTreeMap::new();
        for info in snapshots {
            by_source.entry(info.source.clone()).or_default().push(info);
        }
        ensure!(!by_source.is_empty(), "store {} holds no snapshot: try another store of the kit", self.store.name);
        let unread = |source: &str| heads.unread(self.open.catalog().source_id(source)).cloned().collect();
        let of_source = |(source, snapshots): (String, _)| Candidates { snapshots, unread: unread(&source) };
        Ok(by_source.into_iter().map(of_source).collect())
    }

    /// Fetches the newest with whole records; where the store has lost a part of it, the one before. Where none is, the newest of
    /// those that lacked records when they were taken: less than everything is more than nothing, and it is told.
    pub(super) async fn newest_whole(
        &self,
        Candidates { snapshots, unread }: Candidates,
        staging: &Path,
        skipped: &mut Vec<Skipped>,
    ) -> anyhow::Result<Chosen> {
        let mut chosen = self.first_whole(&snapshots, staging, skipped).await?;
        // Who asked for one by its id knows of others.
        if self.from.is_none() {
            let (own, began) = (chosen.info.incarnation, chosen.info.taken_unix_ms);
            let foreign = backup_engine::foreign(
                snapshots.iter(),
                Some(backup_engine::OwnChain { incarnation: own, taken_unix_ms: None }),
                began,
            );
            let mut machines = BTreeSet::new();
            let is_newest = |info: &&SnapshotInfo| foreign.contains(&info.head) && machines.insert(info.incarnation);
            chosen.beside = snapshots.iter().filter(is_newest).cloned().collect();
            chosen.unread = unread.into_iter().map(|rejected| rejected.object).collect();
        }
        Ok(chosen)
    }

    async fn first_whole(
        &self,
        candidates: &[SnapshotInfo],
        staging: &Path,
        skipped: &mut Vec<Skipped>,
    ) -> anyhow::Result<Chosen> {
        let (mut lacking, mut last) = (Vec::new(), None);
        for (at, info) in candidates.iter().enumerate() {
            let lack = self.lack(info).await;
            if matches!(lack, Ok(Lack::Records)) && !self.is_asked(info) {
                lacking.push(info);
                continue;
            }
            match self.chosen(info, lack, &candidates[at + 1..], staging).await {
                Ok(chosen) => {
                    skipped.extend(lacking.iter().map(|info| passed_over(info)));
                    return Ok(chosen);
                }
                Err(error) => last = Some(self.next_after(error, info, staging, skipped)?),
            }
        }
        for info in lacking {
            match self.chosen(info, Ok(Lack::Records), &[], staging).await {
                Ok(chosen) => return Ok(chosen),
                Err(error) => last = Some(self.next_after(error, info, staging, skipped)?),
            }
        }
        let gone = || format!("store {} has no snapshot that is whole: try another store of the kit", self.store.name);
        Err(last.map_or_else(|| anyhow::anyhow!(gone()), |error| anyhow::Error::from(error).context(gone())))
    }

    /// What somebody asked for by its id is what comes back, also when it lacked records.
    fn is_asked(&self, info: &SnapshotInfo) -> bool {
        self.from.as_ref().is_some_and(|from| info.id.to_string().starts_with(from))
    }

    async fn chosen(
        &self,
        info: &SnapshotInfo,
        lack: Result<Lack>,
        before: &[SnapshotInfo],
        staging: &Path,
    ) -> Result<Chosen> {
        let lack = lack?;
        let bytes = self.fetch(info, &staging.join(&info.source), Vec::new()).await?;
        let info = info.clone();
        let mut chosen = Chosen { info, lack, filled: None, bytes, unread: Vec::new(), beside: Vec::new() };
        let info = &chosen.info;
        let may_have = |older: &&SnapshotInfo| lack != Lack::Nothing || older.incarnation != info.incarnation;
        let (partial, whole): (Vec<_>, Vec<_>) = before.iter().filter(may_have).partition(|older| older.partial);
        for whole in whole.into_iter().take(1).chain(partial).take(OLDER_MAX) {
            let (into, practice) = (older(staging, whole), PRACTICE_PART.as_bytes().to_vec());
            match self.fetch(whole, &into, vec![practice]).await {
                Ok(bytes) => {
                    let [theirs, ours] = [into, staging.join(&info.source)].map(|dir| dir.join(PRACTICE_PART));
                    let new = layout::leave_new(&theirs, &ours);
                    let new = new.map_err(|error| Error::new(ErrorKind::Retry, format!("{error:#}")))?;
                    chosen.bytes += bytes;
                    if !new.is_empty() {
                        chosen.filled = Some((whole.clone(), new));
                        break;
                    }
                    drop(fs::remove_dir_all(older(staging, whole)));
                }
                Err(error) if is_lost(&error) => drop(fs::remove_dir_all(&into)),
                Err(error) => return Err(error),
            }
        }
        Ok(chosen)
    }

    /// The error of a snapshot that this store has lost a part of, when the search goes on with another one.
    fn next_after(
        &self,
        error: Error,
        info: &SnapshotInfo,
        staging: &Path,
        skipped: &mut Vec<Skipped>,
    ) -> anyhow::Result<Error> {
        if !is_lost(&error) {
            return Err(error).context(format!("store {}", self.store.name));
        }
        tell!("backupd: snapshot {} of {} is not whole here: {error}", info.id, time(info.taken_unix_ms));
        tell!("backupd: going back to the one before; another store of the kit may have the newer one");
        remove_if_there(&staging.join(&info.source))?;
        skipped.push(Skipped { taken: Taken::of(info), why: Why::Damaged });
        Ok(error)
    }

    async fn lack(&self, info: &SnapshotInfo) -> Result<Lack> {
        if !info.partial {
            return Ok(Lack::Nothing);
        }
        Ok(Lack::of(&backup_engine::unreadable(&self.env, &self.open, &self.store, info.id).await?))
    }

    async fn fetch(&self, info: &SnapshotInfo, into: &Path, paths: Vec<Vec<u8>>) -> Result<u64> {
        let restore = async || {
            let bars = Bars::new(self.json);
            let (into, paths) = (into.to_owned(), paths.clone());
            let request = RestoreRequest { into, paths, overwrite: false, ..RestoreRequest::default() };
            let restored = backup_engine::restore(&self.env, &self.open, &self.store, info.id, request, &bars).await;
            bars.finish();
            restored.map(|outcome| outcome.bytes)
        };
        match restore().await {
            // What an interrupted attempt left is of another snapshot: of this one the restore would have gone on.
            Err(error)
                if self.resumed && error.kind() == ErrorKind::Misconfigured && fs::remove_dir_all(into).is_ok() =>
            {
                restore().await
            }
            restored => restored,
        }
    }
}

fn passed_over(info: &SnapshotInfo) -> Skipped {
    tell!(
        "backupd: snapshot {} of {} lacks files of the records: passed over; `--snapshot` with its id brings back what it has",
        info.id,
        time(info.taken_unix_ms)
    );
    Skipped { taken: Taken::of(info), why: Why::Partial }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_engine::UnreadableReason;

    #[test]
    fn a_snapshot_lacks_records_unless_all_that_it_lacks_is_named_and_kept() {
        let lack = |count, paths: &[&str]| {
            let listed = paths.iter().map(|path| (path.as_bytes().to_vec(), UnreadableReason::Denied)).collect();
            Lack::of(&Unreadable { count, listed })
        };
        let [practice, records] = [format!("{PRACTICE_PART}/ca/ca.key"), "attachments/scan".to_owned()];
        assert_eq!(lack(0, &[]), Lack::Kept);
        assert_eq!(lack(1, &[&practice]), Lack::Kept);
        assert_eq!(lack(2, &[&practice, &records]), Lack::Records);
        assert_eq!(lack(2, &[&practice]), Lack::Records, "the list has a limit");
        assert_eq!(lack(1, &[&format!("{PRACTICE_PART}s/x")]), Lack::Records);
    }
}
