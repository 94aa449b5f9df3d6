//! Answers with names of records: over the Unix socket alone.

use super::Verifier;
use crate::{failure, names};
use backup_engine::{NamedStore, OpenKey, SnapshotInfo, Tree, View};
use backupd_api::{DiffRow, Event, Failure, FailureKind, FindWanted, FoundRow, LsRow};

/// An answer with more rows would not fit a line; the caller asks for less instead.
const ROWS_MAX: usize = 20_000;

fn engine(error: backup_engine::Error) -> Failure {
    failure::from_engine(&error)
}

/// Adds a row, or refuses the question.
fn add<T>(rows: &mut Vec<T>, row: T) -> backup_engine::Result<()> {
    if rows.len() >= ROWS_MAX {
        let words = format!("more than {ROWS_MAX} entries are too many for one answer: name a folder, or ask for less");
        return Err(backup_engine::Error::new(backup_engine::ErrorKind::Misconfigured, words));
    }
    rows.push(row);
    Ok(())
}

fn bytes(path: Option<&str>) -> &[u8] {
    path.unwrap_or_default().trim_matches('/').as_bytes()
}

impl Verifier {
    async fn tree(&self, view: &View<'_>, info: &SnapshotInfo) -> Result<Tree, Failure> {
        view.tree(info.id, b"").await.map_err(engine)
    }

    async fn view<'s>(&'s self, open: &'s OpenKey, store: &'s NamedStore) -> Result<View<'s>, Failure> {
        View::open(&self.env, open, store).await.map_err(engine)
    }

    /// Asks the stores that hold all of these snapshots, first those where nothing was found damaged, until one answers.
    async fn of_any<T>(
        &self,
        snapshots: &[SnapshotInfo],
        ask: impl AsyncFn(&NamedStore) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let holds = |store: &&NamedStore| snapshots.iter().all(|info| info.stores.contains(&store.name));
        let mut stores: Vec<&NamedStore> = self.stores.iter().filter(holds).collect();
        stores.sort_by_key(|store| self.is_damaged(&store.name));
        let mut last = failure::new(FailureKind::NotFound, "no one store holds all of that");
        for store in stores {
            match ask(store).await {
                // The question is the same for every store.
                Err(failed) if failed.kind == FailureKind::Misconfigured => return Err(failed),
                Err(failed) => {
                    log::warn!(store = store.name.as_str(), reason = failed.message.as_str(); "store.not-read");
                    last = failed;
                }
                answered => return answered,
            }
        }
        Err(last)
    }

    pub async fn ls(&self, snapshot: &str, path: Option<&str>, depth: Option<u32>) -> Result<Vec<LsRow>, Failure> {
        let info = self.find(snapshot).await?;
        let depth = depth.map_or(usize::MAX, |depth| depth as usize);
        let open = self.open_key();
        let ask = async |store: &NamedStore| {
            let view = self.view(&open, store).await?;
            let tree = self.tree(&view, &info).await?;
            let mut rows = Vec::new();
            let mut visit =
                |path: &[u8], node: &backup_engine::Node| add(&mut rows, names::ls_row(path, node, &tree.owners));
            backup_engine::list(&view, &tree, bytes(path), depth, &mut visit).await.map_err(engine)?;
            Ok(rows)
        };
        self.of_any(std::slice::from_ref(&info), ask).await
    }

    pub async fn unreadable(&self, snapshot: &str) -> Result<Event, Failure> {
        let info = self.find(snapshot).await?;
        let open = self.open_key();
        let ask = async |store: &NamedStore| {
            backup_engine::unreadable(&self.env, &open, store, info.id).await.map_err(engine)
        };
        let found = self.of_any(std::slice::from_ref(&info), ask).await?;
        let row = |(path, reason): &(Vec<u8>, _)| names::unreadable_row(path, *reason);
        Ok(Event::Unreadable { count: found.count, files: found.listed.iter().map(row).collect() })
    }

    pub async fn diff(&self, before: &str, after: &str, path: Option<&str>) -> Result<Event, Failure> {
        let both = [self.find(before).await?, self.find(after).await?];
        self.of_any(&both, async |store| self.diff_at(store, &both, path).await).await
    }

    async fn diff_at(
        &self,
        store: &NamedStore,
        [before, after]: &[SnapshotInfo; 2],
        path: Option<&str>,
    ) -> Result<Event, Failure> {
        let open = self.open_key();
        let view = self.view(&open, store).await?;
        let (before, after) = (self.tree(&view, before).await?, self.tree(&view, after).await?);
        let mut changes: Vec<DiffRow> = Vec::new();
        let mut visit = |difference: &backup_engine::Difference<'_>| add(&mut changes, names::diff_row(difference));
        let summary = backup_engine::diff(&view, (&before, &after), bytes(path), &mut visit).await.map_err(engine)?;
        Ok(Event::Diff { changes, done: Some(names::diff_done(&summary)) })
    }

    /// Searches one snapshot, or all that the store with the most of them holds.
    pub async fn find_names(&self, snapshot: Option<&str>, wanted: &FindWanted) -> Result<Event, Failure> {
        let wanted = names::wanted(wanted).map_err(|error| match error.downcast::<backup_engine::Error>() {
            Ok(error) => engine(error),
            Err(error) => failure::new(FailureKind::Misconfigured, error.to_string()),
        })?;
        let snapshots = match snapshot {
            Some(snapshot) => vec![self.find(snapshot).await?],
            None => self.fullest().await?,
        };
        self.of_any(&snapshots, async |store| self.find_names_at(store, &snapshots, &wanted).await).await
    }

    async fn find_names_at(
        &self,
        store: &NamedStore,
        snapshots: &[SnapshotInfo],
        wanted: &backup_engine::Wanted,
    ) -> Result<Event, Failure> {
        let open = self.open_key();
        let view = self.view(&open, store).await?;
        let mut trees = Vec::new();
        for info in snapshots {
            trees.push(self.tree(&view, info).await?);
        }
        let mut entries: Vec<FoundRow> = Vec::new();
        let mut visit = |found: &backup_engine::Found<'_>| add(&mut entries, names::found_row(found, &trees));
        backup_engine::find(&view, &trees, wanted, &mut visit).await.map_err(engine)?;
        Ok(Event::Found { entries })
    }

    /// All snapshots that the store with the most of them holds.
    async fn fullest(&self) -> Result<Vec<SnapshotInfo>, Failure> {
        let heads = backup_engine::heads(&self.env, self.open_key().catalog(), &self.stores).await.map_err(engine)?;
        let held = |store: &NamedStore| {
            let snapshots = heads.snapshots.iter().filter(|info| info.stores.contains(&store.name));
            snapshots.cloned().collect::<Vec<_>>()
        };
        Ok(self.stores.iter().map(held).max_by_key(Vec::len).unwrap_or_default())
    }
}
