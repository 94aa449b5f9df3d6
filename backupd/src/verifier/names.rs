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

    pub async fn ls(&self, snapshot: &str, path: Option<&str>, depth: Option<u32>) -> Result<Vec<LsRow>, Failure> {
        let info = self.find(snapshot).await?;
        let open = self.open_key();
        let view = self.view(&open, self.store_for(&info)?).await?;
        let tree = self.tree(&view, &info).await?;
        let depth = depth.map_or(usize::MAX, |depth| depth as usize);
        let mut rows = Vec::new();
        let mut visit =
            |path: &[u8], node: &backup_engine::Node| add(&mut rows, names::ls_row(path, node, &tree.owners));
        backup_engine::list(&view, &tree, bytes(path), depth, &mut visit).await.map_err(engine)?;
        Ok(rows)
    }

    pub async fn unreadable(&self, snapshot: &str) -> Result<Event, Failure> {
        let info = self.find(snapshot).await?;
        let store = self.store_for(&info)?;
        let found = backup_engine::unreadable(&self.env, &self.open_key(), store, info.id).await.map_err(engine)?;
        let row = |(path, reason): &(Vec<u8>, _)| names::unreadable_row(path, *reason);
        Ok(Event::Unreadable { count: found.count, files: found.listed.iter().map(row).collect() })
    }

    pub async fn diff(&self, before: &str, after: &str, path: Option<&str>) -> Result<Event, Failure> {
        let (before, after) = (self.find(before).await?, self.find(after).await?);
        let both = |store: &&NamedStore| before.stores.contains(&store.name) && after.stores.contains(&store.name);
        let store = self.stores.iter().find(both);
        let store = store.ok_or_else(|| failure::new(FailureKind::NotFound, "no one store holds both snapshots"))?;
        let open = self.open_key();
        let view = self.view(&open, store).await?;
        let (before, after) = (self.tree(&view, &before).await?, self.tree(&view, &after).await?);
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
        let (store, snapshots) = match snapshot {
            Some(snapshot) => {
                let info = self.find(snapshot).await?;
                (self.store_for(&info)?, vec![info])
            }
            None => self.fullest().await?,
        };
        let open = self.open_key();
        let view = self.view(&open, store).await?;
        let mut trees = Vec::new();
        for info in &snapshots {
            trees.push(self.tree(&view, info).await?);
        }
        let mut entries: Vec<FoundRow> = Vec::new();
        let mut visit = |found: &backup_engine::Found<'_>| add(&mut entries, names::found_row(found, &trees));
        backup_engine::find(&view, &trees, &wanted, &mut visit).await.map_err(engine)?;
        Ok(Event::Found { entries })
    }

    async fn fullest(&self) -> Result<(&NamedStore, Vec<SnapshotInfo>), Failure> {
        let heads = backup_engine::heads(&self.env, self.open_key().catalog(), &self.stores).await.map_err(engine)?;
        let holds =
            |store: &NamedStore| heads.snapshots.iter().filter(|info| info.stores.contains(&store.name)).count();
        let store = self.stores.iter().max_by_key(|store| holds(store));
        let store = store.ok_or_else(|| failure::new(FailureKind::NotFound, "no store is set"))?;
        let snapshots = heads.snapshots.iter().filter(|info| info.stores.contains(&store.name)).cloned().collect();
        Ok((store, snapshots))
    }
}
