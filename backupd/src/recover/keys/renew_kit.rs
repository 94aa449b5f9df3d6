//! `backupd keys kit`: the recovery kit made current after a provider's key was changed, a store came or went, or a keyring was
//! written without it.

use super::super::init::{recover_commands, saved_file};
use super::super::kit::{Kit, KitStore, Place};
use super::super::note::KitNote;
use super::super::unlock::UnlockArgs;
use crate::cli::Usage;
use crate::settings::{ServeSettings, VerifierSettings};
use crate::{clock, secret, stores};
use anyhow::{Context, ensure};
use backup_engine::{CatalogKey, Env, WriterCredential, describe_keyring};
use bytes::Bytes;
use clap::Args;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Args)]
pub struct RenewKit {
    /// serve.toml of the practice: its stores and their keys go into the kit
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// verifier.toml; by default the one beside serve.toml
    #[arg(long, value_name = "FILE")]
    verifier_config: Option<PathBuf>,
    /// The recovery kit: its file, or the folder that holds it
    #[arg(long, value_name = "PATH")]
    kit: PathBuf,
    #[command(flatten)]
    unlock: UnlockArgs,
}

pub async fn renew(args: &RenewKit, json: bool) -> anyhow::Result<ExitCode> {
    let serve = ServeSettings::load(&args.config)?;
    let beside = args.config.with_file_name("verifier.toml");
    let verifier_file = args.verifier_config.clone().or_else(|| beside.is_file().then_some(beside));
    let verifier = verifier_file.as_deref().map(VerifierSettings::load).transpose()?;
    let file = Place::of(&std::path::absolute(&args.kit)?).file;
    let kit = Kit::read(&file)?;
    let catalog = catalog(&serve, &kit, args).await?;
    let mut kit = kit.with_keyring(&newest_keyring(&serve, &kit, &catalog).await?)?;
    let mut kept = Vec::new();
    for setting in &serve.stores {
        let own = verifier.as_ref().and_then(|v| v.stores.iter().find(|s| s.name == setting.name));
        let mut store = KitStore::of(setting, own)?;
        // The verifier's settings lie on another machine: what the kit has of them stays.
        if let (None, Ok(before)) = (&verifier, kit.store(&setting.name)) {
            store.take_verifiers(before);
        }
        kept.push(store);
    }
    kit.stores = kept;
    kit.practice.clone_from(&serve.practice);
    kit.serve_toml = saved_file(&serve, &serve.file)?;
    if let Some(verifier) = &verifier {
        kit.verifier_toml = Some(saved_file(&serve, &verifier.file)?);
    }
    kit.commands = recover_commands(&serve, &file);
    kit.made_unix_ms = clock::unix_ms();
    kit.replace(&file)?;
    KitNote::write(&kit, &catalog, &serve.file)?;
    let names: Vec<&str> = serve.stores.iter().map(|s| s.name.as_str()).collect();
    if json {
        say!(
            "{}",
            serde_json::json!({ "event": "kit-made", "kit": file.display().to_string(), "keyring": kit.keyring_number(), "stores": names })
        );
        return Ok(ExitCode::SUCCESS);
    }
    say!("{} is current: it opens {}.", file.display(), names.join(", "));
    say!("Put a copy in the place of every older one (safe, bank, second person), and destroy those.");
    Ok(ExitCode::SUCCESS)
}

/// The newest keyring of the stores that answer, or the kit's where none of theirs is as new. It is wrapped: nobody has to
/// unlock it.
async fn newest_keyring(serve: &ServeSettings, kit: &Kit, catalog: &CatalogKey) -> anyhow::Result<Bytes> {
    let (mut newest, mut number, mut last) = (None, 0, None);
    for store in stores::open_all(&serve.stores)? {
        let found = backup_engine::signed_keyring(catalog, std::slice::from_ref(&store)).await;
        match found.and_then(|keyring| Ok((describe_keyring(&keyring)?.0.number, keyring))) {
            Ok((found, keyring)) if newest.is_none() || found > number => (newest, number) = (Some(keyring), found),
            Ok(_) => {}
            Err(error) => {
                tell!("backupd: store {} shows no keyring: {error}", store.name);
                last = Some(error);
            }
        }
    }
    match (newest, last) {
        (Some(newest), _) => {
            let kept = kit.keyring().ok().filter(|_| kit.keyring_number() > number);
            Ok(kept.unwrap_or(newest))
        }
        (None, Some(error)) => Err(error).context(
            "no store shows its keyring, so whether the kit holds the newest cannot be told: the kit stays as it is. Try again \
             when a store answers",
        ),
        (None, None) => Err(Usage(format!("{} names no store", serve.file.display())).into()),
    }
}

/// The key of the note's hashes, from the writer's credential or, where systemd keeps that, from the keyring in the kit.
async fn catalog(serve: &ServeSettings, kit: &Kit, args: &RenewKit) -> anyhow::Result<CatalogKey> {
    let fits = |repository: String, path: &Path| {
        ensure!(
            repository == kit.repository,
            Usage(format!("{} is the kit of another repository than {}", args.kit.display(), path.display()))
        );
        Ok(())
    };
    if let Some(path) = serve.writer_credential.as_ref().filter(|path| path.is_file()) {
        let writer = WriterCredential::from_bytes(&secret::read(path)?)
            .with_context(|| format!("{} holds no writer credential", path.display()))?;
        fits(writer.repository().to_string(), path)?;
        return Ok(writer.catalog().clone());
    }
    let with = args.unlock.find(Some(&args.kit))?;
    let open = backup_engine::unlock_by(&Env::real(), kit.keyring()?, &with).await.context("the kit's keyring")?;
    fits(open.repository().to_string(), &args.config)?;
    Ok(open.catalog().clone())
}
