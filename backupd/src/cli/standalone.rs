//! The verbs on one repository without a daemon: a folder or a bucket, a passphrase, a state folder.

use super::render::{self, Bars, Usage};
use super::{EXIT_PARTIAL, ListArgs, LsArgs, RestoreArgs, SnapshotArgs, VerifyArgs, Which, ask};
use crate::recover::{InitArgs, passphrase_or_ask, passphrase_variable};
use crate::verifier::{choose, ls_row, snapshot_row, verify_row};
use crate::{clock, secret};
use anyhow::{Context, bail, ensure};
use backup_engine::{
    Env, InitOptions, NamedStore, OpenKey, Part, PartKind, RestoreRequest, SnapshotInfo, SnapshotRequest, StoreLocation,
    UnlockWith, VerifyRequest, WriterCredential,
};
use backupd_api::{Event, RestoreDone, SnapshotDone, SnapshotState, StoreCondition, StoreOutcome, VerifyDone};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The one store's and source's name.
const REPO: &str = "repo";
const SOURCE: &str = "files";
const WRITER_FILE: &str = "writer.cred";

struct Standalone {
    env: Env,
    store: NamedStore,
    state: PathBuf,
}

impl Standalone {
    fn open(repo: Option<&str>) -> anyhow::Result<Self> {
        let repo = repo.context("--repo")?;
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
        ensure!(!repo.starts_with(later), Usage(format!("{later} is not supported by this release: use a folder or s3://bucket/prefix")));
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
        region: variable("AWS_REGION").or_else(|| variable("AWS_DEFAULT_REGION")).unwrap_or_else(|| "us-east-1".to_owned()),
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
    let it = Standalone::open(args.repo.as_deref())?;
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
        println!("{}", serde_json::json!({"event": "initialized", "repository": repository, "paper_key": paper}));
    } else {
        println!("Repository {} is made.", made.repository);
        println!("It opens with the passphrase or with this paper key, shown this once:\n\n    {}\n", paper.as_str());
    }
    Ok(ExitCode::SUCCESS)
}

pub async fn snapshot(args: SnapshotArgs) -> anyhow::Result<ExitCode> {
    let it = Standalone::open(args.repo.repo.as_deref())?;
    let path = args.path.ok_or_else(|| Usage("name the folder to back up".to_owned()))?;
    let parts = parts(&std::path::absolute(&path)?)?;
    let writer = it.writer().await?;
    let watch = clock::Stopwatch::start();
    let bars = Bars::new(args.ask.json);
    let request = SnapshotRequest {
        source: SOURCE.to_owned(),
        parts,
        excludes: args.exclude,
        tag: args.tag,
        facts: None,
        quorum: 1,
        state_dir: Some(it.state.join("engine")),
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

/// What is in the folder, each at the top of the snapshot, so that a restore gives the folder's content back as it was.
fn parts(path: &Path) -> anyhow::Result<Vec<Part>> {
    let part = |path: PathBuf| {
        let name = path.file_name().and_then(|n| n.to_str()).map(str::to_owned);
        let name = name.context("the names directly in the folder must be UTF-8: back up their parent instead")?;
        anyhow::Ok(Part { name, path, kind: PartKind::Files })
    };
    let meta = std::fs::symlink_metadata(path).map_err(|e| Usage(format!("the folder to back up cannot be read ({})", e.kind())))?;
    if !meta.is_dir() {
        return Ok(vec![part(path.to_owned())?]);
    }
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(path).context("the folder to back up cannot be read")? {
        parts.push(part(entry?.path())?);
    }
    parts.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(parts)
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
    let prefix = args.path.unwrap_or_default();
    let prefix = prefix.trim_matches('/').as_bytes();
    let entries = backup_engine::ls(&it.env, &open, &it.store, info.id, prefix).await?;
    let rows: Vec<_> = entries.into_iter().map(ls_row).collect();
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
    let request = RestoreRequest {
        into: std::path::absolute(&args.into)?,
        paths: args.paths.iter().map(|p| p.trim_matches('/').as_bytes().to_vec()).collect(),
        overwrite: false,
    };
    let restored = backup_engine::restore(&it.env, &open, &it.store, info.id, request, &bars).await;
    bars.finish();
    let outcome = restored?;
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
