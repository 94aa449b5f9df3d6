//! `backupd keys pruner`: the credential with which `backupd maintain` signs deletion plans.

use super::super::unlock::UnlockArgs;
use super::target::TargetArgs;
use crate::cli::Usage;
use crate::secret;
use anyhow::{Context, ensure};
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct Pruner {
    /// Where the credential goes; `prune.pruner_credential` of maintain.toml names it
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also write the open key here, for `prune.open_key`: a mark of what is still needed follows the records' trees
    #[arg(long, value_name = "FILE")]
    open_key: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    unlock: UnlockArgs,
}

pub async fn make(args: &Pruner, json: bool) -> anyhow::Result<ExitCode> {
    for path in [Some(&args.out), args.open_key.as_ref()].into_iter().flatten() {
        ensure!(!path.exists(), Usage(format!("{} exists already: it is not replaced", path.display())));
    }
    let target = args.target.find().await?;
    let with = args.unlock.find(target.kit_path())?;
    let store = target.stores.first().context("the practice has no store")?;
    let keyring = backup_engine::keyring_for(&target.env, std::slice::from_ref(store), &with).await?;
    let pruner = backup_engine::issue_pruner(&target.env, keyring, &with).await?;
    let open = match &args.open_key {
        Some(path) => Some((path, backup_engine::unlock(&target.env, store, &with).await?)),
        None => None,
    };
    secret::write_new(&args.out, &pruner.to_bytes())?;
    if let Some((path, open)) = &open {
        secret::write_new(path, &open.to_bytes())?;
    }
    let files = [Some(&args.out), open.as_ref().map(|(path, _)| *path)];
    let files: Vec<String> = files.into_iter().flatten().map(|path| path.display().to_string()).collect();
    if json {
        say!("{}", serde_json::json!({"event": "pruner-made", "files": files}));
    } else {
        say!("{}: give it to `backupd maintain` alone; it signs deletion plans, and reads nothing.", files.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}
