//! `backupd keys`: which keys there are, and the rehearsal that proves each of them. No secret is ever shown.

use super::kit::Kit;
use super::unlock::UnlockArgs;
use anyhow::Context;
use backup_engine::{Env, OpenKey, UnlockWith, WriterCredential};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// List what opens the keyring, and the key files of this machine
    List(ListKeys),
    /// Prove that the paper key (and the passphrase) open the keyring of the kit and of every store
    Check(CheckKeys),
}

#[derive(Args)]
struct ListKeys {
    /// The recovery kit
    #[arg(long, value_name = "PATH")]
    kit: PathBuf,
    /// serve.toml: also look at the key files of this machine
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer in lines of JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct CheckKeys {
    /// The recovery kit
    #[arg(long, value_name = "PATH")]
    kit: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
    /// Answer in lines of JSON
    #[arg(long)]
    json: bool,
}

impl KeysArgs {
    pub fn json(&self) -> bool {
        match &self.command {
            KeysCommand::List(args) => args.json,
            KeysCommand::Check(args) => args.json,
        }
    }
}

/// One line of the answer.
struct Row {
    key: String,
    place: String,
    ok: bool,
    note: String,
}

pub async fn keys(args: KeysArgs) -> anyhow::Result<ExitCode> {
    let (rows, json) = match args.command {
        KeysCommand::List(args) => (list(&args)?, args.json),
        KeysCommand::Check(args) => (check(&args).await?, args.json),
    };
    for row in &rows {
        if json {
            let line =
                serde_json::json!({"event": "key", "key": row.key, "place": row.place, "ok": row.ok, "note": row.note});
            say!("{line}");
        } else {
            say!("{:10} {} at {}: {}", if row.ok { "ok" } else { "NOT OK" }, row.key, row.place, row.note);
        }
    }
    Ok(if rows.iter().all(|r| r.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn list(args: &ListKeys) -> anyhow::Result<Vec<Row>> {
    let kit = Kit::read(&args.kit)?;
    let row = |key: &str, place: &str, ok, note: &str| Row {
        key: key.to_owned(),
        place: place.to_owned(),
        ok,
        note: note.to_owned(),
    };
    let mut rows: Vec<Row> = kit
        .slots
        .iter()
        .map(|slot| row(slot, "keyring", true, "opens the keyring; prove it with `keys check`"))
        .collect();
    let Some(config) = &args.config else { return Ok(rows) };
    let serve = crate::settings::ServeSettings::load(config)?;
    let beside = config.with_file_name("verifier.toml");
    let verifier = beside.is_file().then(|| crate::settings::VerifierSettings::load(&beside)).transpose()?;
    if let Some(path) = &serve.writer_credential {
        let repository = crate::secret::read(path)
            .and_then(|bytes| Ok(WriterCredential::from_bytes(&bytes)?.repository().to_string()));
        rows.push(file_row("writer credential", path, repository, &kit));
    }
    if let Some(path) = verifier.and_then(|v| v.open_key) {
        let repository =
            crate::secret::read(&path).and_then(|bytes| Ok(OpenKey::from_bytes(&bytes)?.repository().to_string()));
        rows.push(file_row("open key", &path, repository, &kit));
    }
    Ok(rows)
}

fn file_row(key: &str, path: &std::path::Path, repository: anyhow::Result<String>, kit: &Kit) -> Row {
    let (ok, note) = match repository {
        Ok(id) if id == kit.repository => (true, "belongs to the kit's repository".to_owned()),
        Ok(_) => (false, "belongs to another repository".to_owned()),
        Err(error) => (false, format!("{error:#}")),
    };
    Row { key: key.to_owned(), place: path.display().to_string(), ok, note }
}

/// Every slot against the keyring of the kit and of every store that answers.
async fn check(args: &CheckKeys) -> anyhow::Result<Vec<Row>> {
    let env = Env::real();
    let kit = Kit::read(&args.kit)?;
    let mut rows = Vec::new();
    for slot in &kit.slots {
        let with = match slot.as_str() {
            "paper-key" => args.unlock.paper_key(&args.kit)?.map(UnlockWith::PaperKey),
            "passphrase" => args.unlock.passphrase()?.map(UnlockWith::Passphrase),
            _ => None,
        };
        let Some(with) = with else {
            rows.push(Row {
                key: slot.clone(),
                place: "keyring".to_owned(),
                ok: false,
                note: "was not given, so not proved".to_owned(),
            });
            continue;
        };
        let opened = backup_engine::recover_writer(&env, kit.keyring()?, &with).await.map(|w| w.repository());
        rows.push(proved(slot, "kit", opened, &kit));
        for store in &kit.stores {
            let opened = match store.open(None, None).context("the store") {
                Ok(store) => backup_engine::unlock(&env, &store, &with).await.map(|k| k.repository()),
                Err(error) => {
                    Err(backup_engine::Error::new(backup_engine::ErrorKind::Misconfigured, format!("{error:#}")))
                }
            };
            rows.push(proved(slot, &store.name, opened, &kit));
        }
    }
    Ok(rows)
}

fn proved(slot: &str, place: &str, opened: backup_engine::Result<backup_engine::RepositoryId>, kit: &Kit) -> Row {
    let (ok, note) = match opened {
        Ok(id) if id.to_string() == kit.repository => (true, "opens the keyring".to_owned()),
        Ok(_) => (false, "opens the keyring of another repository".to_owned()),
        Err(error) => (false, error.to_string()),
    };
    Row { key: slot.to_owned(), place: place.to_owned(), ok, note }
}
