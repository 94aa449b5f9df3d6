//! The verbs on one repository without a daemon: make it, take, list, restore, verify.

use super::args::{ListArgs, RestoreArgs, SnapshotArgs, VerifyArgs, Which};
use super::bars::Bars;
use super::render::{self, Usage};
use super::repo::{self, Repository, SOURCE, TOP};
use super::stop::Signals;
use super::{EXIT_PARTIAL, listing};
use crate::recover::{InitArgs, PASSPHRASE_VARIABLE};
use crate::sources::is_original_damaged;
use crate::verifier::{snapshot_row, verify_row};
use crate::{clock, names};
use anyhow::{Context, ensure};
use backup_engine::{
    Env, InitOptions, OpenKey, Part, PartKind, RestoreRequest, SnapshotInfo, SnapshotOutcome, SnapshotRequest,
    SourceLease, Stop, VerifyRequest,
};
use backupd_api::{Event, RestoreDone, SnapshotDone, SnapshotState, StoreCondition, StoreOutcome, VerifyDone};
use std::path::Path;
use std::process::ExitCode;

pub async fn init(args: InitArgs) -> anyhow::Result<ExitCode> {
    let place = args.repo.as_deref().context("--repo")?;
    let store = repo::store(place)?;
    let options = InitOptions { passphrase: Some(repo::new_passphrase(PASSPHRASE_VARIABLE)?) };
    let made = backup_engine::init(&Env::real(), std::slice::from_ref(&store), options).await?;
    Repository::open(place).await?.keep_writer(&made.writer);
    let paper = made.paper_key.to_text();
    if args.json {
        let (repository, paper) = (made.repository.to_string(), paper.as_str());
        say!("{}", serde_json::json!({"event": "initialized", "repository": repository, "paper_key": paper}));
    } else {
        say!("Repository {} is made.", made.repository);
        say!("It opens with the passphrase or with this paper key, shown this once:\n\n    {}\n", paper.as_str());
        say!("Next: backupd snapshot --repo {place} PATH");
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn snapshot(place: &str, args: SnapshotArgs, signals: &Signals) -> anyhow::Result<ExitCode> {
    let path = args.path.ok_or_else(|| Usage("name the folder or file to back up".to_owned()))?;
    let part = part(&std::path::absolute(&path)?)?;
    let repository = Repository::open(place).await?;
    let writer = repository.writer().await?;
    let watch = clock::Stopwatch::start();
    let bars = Bars::new(args.ask.json);
    bars.count(&part.path, &args.exclude);
    let stop = Stop::default();
    let request = SnapshotRequest {
        source: SOURCE.to_owned(),
        excludes: args.exclude.iter().map(|exclude| in_part(exclude, &part)).collect(),
        parts: vec![part],
        tag: args.tag,
        facts: None,
        quorum: 1,
        incomplete: false,
        lease: SourceLease::default(),
        state_dir: repository.engine_state(),
        stop: stop.clone(),
    };
    let stores = std::slice::from_ref(&repository.store);
    let work = backup_engine::snapshot(&repository.env, &writer, stores, request, &bars);
    let taken = signals.gently(&bars, &stop, work).await;
    bars.finish();
    let (done, partial) = done(taken?, watch.elapsed_ms());
    if args.ask.json {
        render::json(&Event::SnapshotDone(done.clone()))?;
    } else {
        render::snapshot_done(&done);
    }
    Ok(match done.state {
        _ if partial => ExitCode::from(EXIT_PARTIAL),
        state if state < SnapshotState::Durable => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

fn done(outcome: SnapshotOutcome, duration_ms: u64) -> (SnapshotDone, bool) {
    let store = |store: backup_engine::StoreOutcome| StoreOutcome {
        store: store.store,
        durable: store.durable,
        bytes_sent: store.bytes_sent,
        duration_ms: store.duration_ms,
        error: store.error.map(|error| error.to_string()),
    };
    let done = SnapshotDone {
        id: outcome.id.to_string(),
        counter: outcome.counter,
        state: if outcome.durable { SnapshotState::Full } else { SnapshotState::Sealed },
        spooled: outcome.spooled,
        partial: outcome.partial,
        unreadable: names::unreadable_counts(&outcome.unreadable),
        kept_gone: Vec::new(),
        source_damaged: false,
        files: outcome.files,
        bytes_source: outcome.bytes_source,
        bytes_added: outcome.bytes_added,
        write_stall_us: 0,
        duration_ms,
        stores: outcome.stores.into_iter().map(store).collect(),
    };
    (done, outcome.partial)
}

/// The whole folder, or the one file under its own name, as the one part of the snapshot.
fn part(path: &Path) -> anyhow::Result<Part> {
    let meta = std::fs::metadata(path)
        .map_err(|e| Usage(format!("what is to be backed up cannot be read ({}): check the path", e.kind())))?;
    let name = match path.file_name().and_then(|name| name.to_str()) {
        _ if meta.is_dir() => TOP.to_owned(),
        Some(name) if meta.is_file() => name.to_owned(),
        _ => anyhow::bail!(Usage("name a folder or a file to back up".to_owned())),
    };
    Ok(Part { name, path: path.to_owned(), kind: PartKind::Files })
}

/// A path of the folder as the snapshot has it; a bare name stays one.
fn in_part(exclude: &str, part: &Part) -> String {
    let below = part.path.to_str().and_then(|path| exclude.strip_prefix(path)).filter(|below| below.starts_with('/'));
    let plain = below.unwrap_or(exclude).trim_start_matches("./").trim_matches('/');
    if exclude.trim_end_matches('/').contains('/') { format!("{}/{plain}", part.name) } else { plain.to_owned() }
}

pub async fn snapshots(place: &str, args: ListArgs) -> anyhow::Result<ExitCode> {
    let repository = Repository::open_as_of(place, args.as_of.as_deref()).await?;
    let open = repository.unlock().await?;
    let rows: Vec<_> = repository.snapshots(&open).await?.into_iter().map(|info| snapshot_row(info, &[], 1)).collect();
    if args.ask.json {
        render::json(&Event::Snapshots { snapshots: rows })?;
    } else {
        render::snapshots(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

/// The snapshot that the options name.
pub async fn find(repository: &Repository, open: &OpenKey, which: &Which) -> anyhow::Result<SnapshotInfo> {
    let snapshots = repository.snapshots(open).await?;
    match &which.tag {
        Some(tag) => repo::tagged(&snapshots, tag),
        None => repo::pick(&snapshots, &which.snapshot),
    }
}

pub async fn restore(place: &str, args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let into = listing::target(&args.into)?;
    let repository = Repository::open_as_of(place, args.as_of.as_deref()).await?;
    let open = repository.unlock().await?;
    let info = find(&repository, &open, &args.which).await?;
    let watch = clock::Stopwatch::start();
    let bars = Bars::new(args.ask.json);
    let paths: Vec<Vec<u8>> = args.paths.iter().map(|path| listing::plain(path)).collect();
    let request = RestoreRequest {
        into,
        // `.` is everything.
        paths: if paths.iter().any(Vec::is_empty) { Vec::new() } else { paths },
        overwrite: args.overwrite,
        top: TOP.into(),
        ..RestoreRequest::default()
    };
    let restored = backup_engine::restore(&repository.env, &open, &repository.store, info.id, request, &bars).await;
    bars.finish();
    let outcome = restored?;
    let done = RestoreDone {
        files: outcome.files,
        bytes: outcome.bytes,
        bytes_fetched: outcome.bytes_fetched,
        duration_ms: watch.elapsed_ms(),
        skipped: outcome.attributes_refused,
        partial: info.partial,
        source_damaged: is_original_damaged(&repository.env, &open, &repository.store, info.id).await,
    };
    if args.ask.json {
        render::json(&Event::RestoreDone(done.clone()))?;
    } else {
        render::restore_done(&done);
    }
    Ok(restore_code(&done))
}

/// How a restore ends: what came back of a snapshot that is not whole may lack something.
pub fn restore_code(done: &RestoreDone) -> ExitCode {
    if done.partial || done.source_damaged { ExitCode::from(EXIT_PARTIAL) } else { ExitCode::SUCCESS }
}

pub async fn verify(place: &str, args: VerifyArgs) -> anyhow::Result<ExitCode> {
    ensure!(args.store.is_none(), Usage("--store belongs to a daemon: --repo names the one repository".to_owned()));
    let repository = Repository::open(place).await?;
    let open = repository.unlock().await?;
    let watch = clock::Stopwatch::start();
    let bars = Bars::new(args.ask.json);
    let request = VerifyRequest { read_data: args.read_data, snapshot: None };
    let verified = backup_engine::verify(&repository.env, &open, &repository.store, request, &bars).await;
    bars.finish();
    let row = verify_row(&repository.store.name, verified?, watch.elapsed_ms());
    let ok = row.condition == StoreCondition::Ok;
    let done = VerifyDone { stores: vec![row], gaps: Vec::new() };
    if args.ask.json {
        render::json(&Event::VerifyDone(done))?;
    } else {
        render::verify_done(&done);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
