//! The verbs on one repository without a daemon: a folder or a bucket, a passphrase, a state folder.

use super::render::{self, Bars, Usage};
use super::{EXIT_PARTIAL, ListArgs, LsArgs, RestoreArgs, SnapshotArgs, VerifyArgs, Which, ask};
use crate::recover::{InitArgs, merge, passphrase_or_ask, passphrase_variable};
use crate::verifier::{choose, ls_row, snapshot_row, verify_row};
use crate::{clock, secret};
use anyhow::{Context, bail, ensure};
use backup_engine::{
    Env, InitOptions, NamedStore, OpenKey, Part, PartKind, RestoreRequest, SnapshotInfo, SnapshotRequest, Stop,
    StoreLocation, UnlockWith, VerifyRequest, WriterCredential,
};
use backupd_api::{Event, RestoreDone, SnapshotDone, SnapshotState, StoreCondition, StoreOutcome, VerifyDone};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The one store's and source's name.
const REPO: &str = "repo";
const SOURCE: &str = "files";
/// Name of the folder in the snapshot; `ls` and `restore` show paths below it.
const PART: &str = "files";
/// Restored here first, then moved to the top of the target.
const STAGING: &str = ".backupd-restoring";
const WRITER_FILE: &str = "writer.cred";

struct Standalone {
    env: Env,
    store: NamedStore,
    state: PathBuf,
}

impl Standalone {
    /// Opens a repository that has to be there.
    fn open(repo: Option<&str>) -> anyhow::Result<Self> {
        let repo = repo.context("--repo")?;
        let here = !matches!(location(repo)?, StoreLocation::Folder { path } if !path.is_dir());
        ensure!(here, Usage(format!("there is no repository at {repo}: make one with `backupd init --repo {repo}`")));
        Self::at(repo)
    }

    fn at(repo: &str) -> anyhow::Result<Self> {
        let location = location(repo)?;
        let canonical = match &location {
            StoreLocation::Folder { path } => path.display().to_string(),
            StoreLocation::S3 { .. } => repo.to_owned(),
        };
        let id = blake3::hash(canonical.as_bytes()).to_hex();
        let state = state_root()?.join(id.get(..16).unwrap_or_default());
        Ok(Self { env: Env::real(), store: NamedStore::new(REPO, location.open()?, true), state })
    }

    async fn unlock(&self) -> anyhow::Result<OpenKey> {
        let with = UnlockWith::Passphrase(passphrase_or_ask("Passphrase: ")?);
        Ok(backup_engine::unlock(&self.env, &self.store, &with).await?)
    }

    /// The writer's keys from the state folder, so that a snapshot derives nothing slowly; made anew when they are gone.
    async fn writer(&self) -> anyhow::Result<WriterCredential> {
        let path = self.state.join(WRITER_FILE);
        if path.exists() {
            return Ok(WriterCredential::from_bytes(&secret::read(&path)?)?);
        }
        let with = UnlockWith::Passphrase(passphrase_or_ask("Passphrase: ")?);
        let keyring = backup_engine::keyring(&self.env, &self.store).await?;
        let writer = backup_engine::recover_writer(&self.env, keyring, &with).await?;
        secret::write_new(&path, &writer.to_bytes())?;
        Ok(writer)
    }

    async fn rows(&self, open: &OpenKey) -> anyhow::Result<Vec<SnapshotInfo>> {
        let stores = std::slice::from_ref(&self.store);
        Ok(backup_engine::heads_with_tags(&self.env, open, stores).await?.snapshots)
    }

    async fn find(&self, open: &OpenKey, which: &Which) -> anyhow::Result<SnapshotInfo> {
        let snapshots = self.rows(open).await?;
        let wanted = match &which.tag {
            Some(tag) => {
                let rows: Vec<_> = snapshots.iter().cloned().map(|info| snapshot_row(info, &[], 1)).collect();
                ask::newest_tagged(&rows, tag)?
            }
            None => which.snapshot.clone(),
        };
        Ok(choose(snapshots, &wanted)?)
    }
}

fn location(repo: &str) -> anyhow::Result<StoreLocation> {
    for later in ["az://", "gs://"] {
        ensure!(
            !repo.starts_with(later),
            Usage(format!("{later} is not supported by this release: use a folder or s3://bucket/prefix"))
        );
    }
    let Some(rest) = repo.strip_prefix("s3://") else {
        ensure!(!repo.contains("://"), Usage("--repo is a folder or s3://bucket/prefix".to_owned()));
        return Ok(StoreLocation::Folder { path: std::path::absolute(repo)? });
    };
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    ensure!(!bucket.is_empty(), Usage("--repo s3://bucket/prefix: the bucket is missing".to_owned()));
    let variable = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let needed = |name: &str| variable(name).ok_or_else(|| Usage(format!("set {name} for an s3:// repository")));
    let endpoint = variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL"));
    Ok(StoreLocation::S3 {
        allow_http: endpoint.as_deref().is_some_and(|e| e.starts_with("http://")),
        endpoint,
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        region: variable("AWS_REGION")
            .or_else(|| variable("AWS_DEFAULT_REGION"))
            .unwrap_or_else(|| "us-east-1".to_owned()),
        access_key: needed("AWS_ACCESS_KEY_ID")?,
        secret_key: needed("AWS_SECRET_ACCESS_KEY")?,
    })
}

/// `BACKUPD_STATE`, else the user's state folder.
fn state_root() -> anyhow::Result<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(state) = variable("BACKUPD_STATE") {
        return Ok(std::path::absolute(state)?);
    }
    let home = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|h| h.join(".local/state")));
    Ok(home.ok_or_else(|| Usage("set BACKUPD_STATE to a folder for the state".to_owned()))?.join("backupd"))
}

pub async fn init(args: InitArgs) -> anyhow::Result<ExitCode> {
    let it = Standalone::at(args.repo.as_deref().context("--repo")?)?;
    let passphrase = match passphrase_variable() {
        Some(passphrase) => passphrase,
        None => passphrase_or_ask("New passphrase: ")?,
    };
    let stores = std::slice::from_ref(&it.store);
    let made = backup_engine::init(&it.env, stores, InitOptions { passphrase: Some(passphrase) }).await?;
    secret::replace(&it.state.join(WRITER_FILE), &made.writer.to_bytes())?;
    let paper = made.paper_key.to_text();
    if args.json {
        let (repository, paper) = (made.repository.to_string(), paper.as_str());
        say!("{}", serde_json::json!({"event": "initialized", "repository": repository, "paper_key": paper}));
    } else {
        say!("Repository {} is made.", made.repository);
        say!("It opens with the passphrase or with this paper key, shown this once:\n\n    {}\n", paper.as_str());
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn snapshot(args: SnapshotArgs) -> anyhow::Result<ExitCode> {
    let it = Standalone::open(args.repo.repo.as_deref())?;
    let path = args.path.ok_or_else(|| Usage("name the folder to back up".to_owned()))?;
    let part = part(&std::path::absolute(&path)?)?;
    let writer = it.writer().await?;
    let watch = clock::Stopwatch::start();
    let bars = Bars::new(args.ask.json);
    let request = SnapshotRequest {
        source: SOURCE.to_owned(),
        parts: vec![part],
        excludes: args.exclude,
        tag: args.tag,
        facts: None,
        quorum: 1,
        state_dir: Some(it.state.join("engine")),
        stop: Stop::default(),
    };
    let stores = std::slice::from_ref(&it.store);
    let taken = tokio::select! {
        taken = backup_engine::snapshot(&it.env, &writer, stores, request, &bars) => taken,
        _ = tokio::signal::ctrl_c() => {
            bars.finish();
            bail!("stopped: nothing is lost, the next snapshot goes on from here");
        }
    };
    bars.finish();
    let outcome = taken?;
    let done = SnapshotDone {
        id: outcome.id.to_string(),
        counter: outcome.counter,
        state: if outcome.durable { SnapshotState::Full } else { SnapshotState::Sealed },
        partial: outcome.partial,
        files: outcome.files,
        bytes_source: outcome.bytes_source,
        bytes_added: outcome.bytes_added,
        write_stall_us: 0,
        duration_ms: watch.elapsed_ms(),
        stores: outcome
            .stores
            .into_iter()
            .map(|s| StoreOutcome {
                store: s.store,
                durable: s.durable,
                bytes_sent: s.bytes_sent,
                duration_ms: s.duration_ms,
                error: s.error.map(|e| e.to_string()),
            })
            .collect(),
    };
    let code = match &done {
        done if done.partial => ExitCode::from(EXIT_PARTIAL),
        done if done.state < SnapshotState::Durable => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    };
    if args.ask.json {
        render::json(&Event::SnapshotDone(done))?;
    } else {
        render::snapshot_done(&done);
    }
    Ok(code)
}

/// The whole folder as the one part of the snapshot.
fn part(path: &Path) -> anyhow::Result<Part> {
    let meta = std::fs::symlink_metadata(path)
        .map_err(|e| Usage(format!("the folder to back up cannot be read ({})", e.kind())))?;
    ensure!(meta.is_dir(), Usage("name a folder to back up".to_owned()));
    Ok(Part { name: PART.to_owned(), path: path.to_owned(), kind: PartKind::Files })
}

/// A path of the folder as the snapshot has it.
fn in_part(path: &str) -> Vec<u8> {
    format!("{PART}/{}", path.trim_start_matches("./").trim_matches('/')).trim_end_matches('/').as_bytes().to_vec()
}

pub async fn snapshots(args: ListArgs) -> anyhow::Result<ExitCode> {
    let it = Standalone::open(args.repo.repo.as_deref())?;
    let open = it.unlock().await?;
    let rows: Vec<_> = it.rows(&open).await?.into_iter().map(|info| snapshot_row(info, &[], 1)).collect();
    if args.ask.json {
        render::json(&Event::Snapshots { snapshots: rows })?;
    } else {
        render::snapshots(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn ls(args: LsArgs) -> anyhow::Result<ExitCode> {
    let it = Standalone::open(args.repo.repo.as_deref())?;
    let open = it.unlock().await?;
    let info = it.find(&open, &args.which).await?;
    let prefix = in_part(args.path.as_deref().unwrap_or_default());
    let entries = backup_engine::ls(&it.env, &open, &it.store, info.id, &prefix).await?;
    let mut rows = Vec::new();
    for mut row in entries.into_iter().map(ls_row) {
        if let Some(path) = row.path.strip_prefix(PART).and_then(|p| p.strip_prefix('/')) {
            row.path = path.to_owned();
            rows.push(row);
        }
    }
    if args.ask.json {
        render::json(&Event::Ls { entries: rows })?;
    } else {
        render::entries(&rows);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn restore(args: RestoreArgs) -> anyhow::Result<ExitCode> {
    let it = Standalone::open(args.repo.repo.as_deref())?;
    let open = it.unlock().await?;
    let info = it.find(&open, &args.which).await?;
    let watch = clock::Stopwatch::start();
    let bars = Bars::new(args.ask.json);
    let into = std::path::absolute(&args.into)?;
    let staging = into.join(STAGING);
    if staging.exists() {
        std::fs::remove_dir_all(&staging).context("what an earlier restore left cannot be removed")?;
    }
    let request = RestoreRequest {
        into: staging.clone(),
        paths: args.paths.iter().map(|p| in_part(p)).collect(),
        overwrite: false,
    };
    let restored = backup_engine::restore(&it.env, &open, &it.store, info.id, request, &bars).await;
    bars.finish();
    let outcome = restored?;
    let kept = if staging.join(PART).is_dir() { merge(&staging.join(PART), &into)? } else { 0 };
    std::fs::remove_dir_all(&staging).context("the folder of the restore cannot be removed")?;
    ensure!(kept == 0, "{kept} files were there already and stay as they are: restore into an empty folder");
    let done = RestoreDone {
        files: outcome.files,
        bytes: outcome.bytes,
        bytes_fetched: outcome.bytes_fetched,
        duration_ms: watch.elapsed_ms(),
        skipped: outcome.attributes_refused,
    };
    if args.ask.json {
        render::json(&Event::RestoreDone(done))?;
    } else {
        render::restore_done(&done);
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn verify(args: VerifyArgs) -> anyhow::Result<ExitCode> {
    let it = Standalone::open(args.repo.repo.as_deref())?;
    let open = it.unlock().await?;
    let watch = clock::Stopwatch::start();
    let bars = Bars::new(args.ask.json);
    let request = VerifyRequest { read_data: args.read_data, snapshot: None };
    let verified = backup_engine::verify(&it.env, &open, &it.store, request, &bars).await;
    bars.finish();
    let row = verify_row(&it.store.name, verified?, watch.elapsed_ms());
    let ok = row.condition == StoreCondition::Ok;
    let done = VerifyDone { stores: vec![row] };
    if args.ask.json {
        render::json(&Event::VerifyDone(done))?;
    } else {
        render::verify_done(&done);
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
