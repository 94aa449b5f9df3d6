//! Looking into a repository without a daemon: ls, diff, find, stats.

use super::args::{DiffArgs, FindArgs, LsArgs, StatsArgs};
use super::render;
use super::repo::{self, Repository, TOP};
use super::{listing, standalone};
use crate::{clock, names};
use backup_engine::{Change, Stats, Tree, View};
use backupd_api::{Event, FindWanted};
use indicatif::HumanBytes;
use std::process::ExitCode;

/// Rows of one line of JSON.
const BATCH: usize = 1000;

/// Gathers rows into lines of JSON.
struct Batches<T, F: Fn(Vec<T>) -> Event> {
    rows: Vec<T>,
    event: F,
}

impl<T, F: Fn(Vec<T>) -> Event> Batches<T, F> {
    fn new(event: F) -> Self {
        Self { rows: Vec::new(), event }
    }

    fn add(&mut self, row: T) {
        self.rows.push(row);
        if self.rows.len() >= BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        // Serializing these shapes does not fail.
        let _ = render::json(&(self.event)(std::mem::take(&mut self.rows)));
    }
}

pub async fn ls(place: &str, args: LsArgs) -> anyhow::Result<ExitCode> {
    let repository = Repository::open(place).await?;
    let open = repository.unlock().await?;
    let info = standalone::find(&repository, &open, &args.which).await?;
    if args.unreadable {
        let unreadable = backup_engine::unreadable(&repository.env, &open, &repository.store, info.id).await?;
        let files: Vec<_> =
            unreadable.listed.iter().map(|(path, reason)| names::unreadable_row(path, *reason)).collect();
        if args.ask.json {
            render::json(&Event::Unreadable { count: unreadable.count, files })?;
        } else {
            listing::show_unreadable(unreadable.count, &files);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let view = View::open(&repository.env, &open, &repository.store).await?;
    let tree = view.tree(info.id, TOP.as_bytes()).await?;
    let path = args.path.as_deref().map(listing::plain).unwrap_or_default();
    let depth = args.depth.map_or(usize::MAX, |depth| depth as usize);
    let mut batches = Batches::new(|entries| Event::Ls { entries });
    backup_engine::list(&view, &tree, &path, depth, &mut |path, node| {
        let row = names::ls_row(path, node, &tree.owners);
        if args.ask.json {
            batches.add(row)
        } else {
            listing::show_entry(&row, args.long)
        }
        Ok(())
    })
    .await?;
    if args.ask.json {
        batches.flush();
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn diff(place: &str, args: DiffArgs) -> anyhow::Result<ExitCode> {
    let repository = Repository::open(place).await?;
    let open = repository.unlock().await?;
    let snapshots = repository.snapshots(&open).await?;
    let (before, after) = (repo::pick(&snapshots, &args.before)?, repo::pick(&snapshots, &args.after)?);
    let view = View::open(&repository.env, &open, &repository.store).await?;
    let before = view.tree(before.id, TOP.as_bytes()).await?;
    let after = view.tree(after.id, TOP.as_bytes()).await?;
    let path = args.path.as_deref().map(listing::plain).unwrap_or_default();
    let mut batches = Batches::new(|changes| Event::Diff { changes, done: None });
    let summary = backup_engine::diff(&view, (&before, &after), &path, &mut |difference| {
        if args.times || difference.change != Change::Time {
            let row = names::diff_row(difference);
            if args.ask.json { batches.add(row) } else { listing::show_difference(&row) }
        }
        Ok(())
    })
    .await?;
    let done = names::diff_done(&summary);
    if args.ask.json {
        render::json(&Event::Diff { changes: batches.rows, done: Some(done) })?;
    } else {
        listing::show_diff_done(&done);
    }
    Ok(ExitCode::SUCCESS)
}

/// What the options of `find` ask for.
pub fn find_wanted(args: &FindArgs) -> anyhow::Result<FindWanted> {
    let now = clock::unix_ms();
    let time = |text: &Option<String>| text.as_deref().map(|text| listing::time(text, now)).transpose();
    let size = |text: &Option<String>| text.as_deref().map(listing::size).transpose();
    Ok(FindWanted {
        name: args.name.as_deref().map(listing::text).transpose()?,
        ignore_case: args.ignore_case,
        kinds: args.kinds.as_deref().map(listing::kinds).transpose()?.unwrap_or_default(),
        bytes_min: size(&args.larger)?,
        bytes_max: size(&args.smaller)?,
        since_unix_ms: time(&args.newer)?,
        until_unix_ms: time(&args.older)?,
    })
}

pub async fn find(place: &str, args: FindArgs) -> anyhow::Result<ExitCode> {
    let wanted = names::wanted(&find_wanted(&args)?)?;
    let repository = Repository::open(place).await?;
    let open = repository.unlock().await?;
    let mut snapshots = repository.snapshots(&open).await?;
    if let Some(tag) = &args.tag {
        snapshots = vec![repo::tagged(&snapshots, tag)?];
    } else if let Some(id) = &args.snapshot {
        snapshots = vec![repo::pick(&snapshots, id)?];
    }
    let view = View::open(&repository.env, &open, &repository.store).await?;
    let mut trees: Vec<Tree> = Vec::new();
    for info in &snapshots {
        trees.push(view.tree(info.id, TOP.as_bytes()).await?);
    }
    let mut batches = Batches::new(|entries| Event::Found { entries });
    let mut count = 0u64;
    backup_engine::find(&view, &trees, &wanted, &mut |found| {
        count += 1;
        let row = names::found_row(found, &trees);
        if args.ask.json {
            batches.add(row)
        } else {
            listing::show_found(&row)
        }
        Ok(())
    })
    .await?;
    if args.ask.json {
        batches.flush();
    } else if count == 0 {
        tell!("Nothing fits in {} snapshots.", trees.len());
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn stats(args: StatsArgs) -> anyhow::Result<ExitCode> {
    let repository = Repository::open(&args.repo).await?;
    let open = repository.unlock().await?;
    let stats = backup_engine::stats(&repository.env, &open, &repository.store).await?;
    if args.json {
        say!("{}", stats_json(&repository.id.to_string(), &stats));
    } else {
        show_stats(&repository.id.to_string(), &stats);
    }
    Ok(ExitCode::SUCCESS)
}

fn stats_json(id: &str, stats: &Stats) -> serde_json::Value {
    let classes: serde_json::Map<String, serde_json::Value> =
        stats.classes.iter().map(|(bytes, count)| (bytes.to_string(), (*count).into())).collect();
    let snapshot = |info: &backup_engine::SnapshotInfo| {
        serde_json::json!({
            "id": info.id.to_string(), "taken_unix_ms": info.taken_unix_ms, "tag": info.tag, "partial": info.partial,
            "files": info.files, "bytes_source": info.bytes_source, "bytes_added": info.bytes_added,
        })
    };
    serde_json::json!({
        "event": "stats", "repository": id, "objects": stats.objects, "bytes": stats.bytes,
        "packs": stats.packs, "pack_bytes": stats.pack_bytes, "packs_by_bytes": classes,
        "packs_unnamed": stats.unnamed_packs, "bytes_unnamed": stats.unnamed_bytes,
        "index_bytes": stats.index_bytes, "snapshot_bytes": stats.snapshot_bytes,
        "data_chunks": stats.data_chunks, "data_bytes": stats.data_bytes,
        "tree_chunks": stats.tree_chunks, "tree_bytes": stats.tree_bytes, "chunks_twice": stats.chunks_twice,
        "segments": stats.segments, "segment_bytes": stats.segment_bytes, "source_bytes": stats.source_bytes,
        "dedup_ratio": stats.dedup_ratio(), "compression_ratio": stats.compression_ratio(),
        "padding_share": stats.padding_share(),
        "snapshots": stats.snapshots.iter().map(snapshot).collect::<Vec<_>>(),
    })
}

fn show_stats(id: &str, stats: &Stats) {
    let times = |ratio: Option<f64>| ratio.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2} times"));
    say!("Repository {id}: {} in {} objects", HumanBytes(stats.bytes), stats.objects);
    say!("Snapshots: {}, together {} of files", stats.snapshots.len(), HumanBytes(stats.source_bytes));
    say!(
        "Chunks: {} of files ({}), {} of trees ({})",
        stats.data_chunks,
        HumanBytes(stats.data_bytes),
        stats.tree_chunks,
        HumanBytes(stats.tree_bytes)
    );
    say!("Sharing saves: {}; compression saves: {}", times(stats.dedup_ratio()), times(stats.compression_ratio()));
    say!(
        "Packs: {} ({}), of them padding and directories {:.1} %",
        stats.packs,
        HumanBytes(stats.pack_bytes),
        stats.padding_share().unwrap_or(0.0) * 100.0
    );
    for (bytes, count) in &stats.classes {
        say!("  {count:>8} of {}", HumanBytes(u64::from(*bytes)));
    }
    say!("Index: {}; snapshots and heads: {}", HumanBytes(stats.index_bytes), HumanBytes(stats.snapshot_bytes));
    if stats.unnamed_packs > 0 {
        say!(
            "{} packs ({}) are named by no index: an interrupted snapshot left them",
            stats.unnamed_packs,
            HumanBytes(stats.unnamed_bytes)
        );
    }
    if stats.snapshots.is_empty() {
        say!("There is no snapshot yet: backupd snapshot --repo ... PATH");
        return;
    }
    say!();
    render::added(&stats.snapshots);
}
