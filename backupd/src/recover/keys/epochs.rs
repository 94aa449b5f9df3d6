//! Epochs: a further one, key files made current, and which one covers which bytes.

use super::super::unlock::UnlockArgs;
use super::target::{Target, TargetArgs};
use crate::clock;
use backup_engine::Rewritten;
use std::process::ExitCode;

pub async fn rotate(target: &TargetArgs, unlock: &UnlockArgs, json: bool) -> anyhow::Result<ExitCode> {
    let target = target.find().await?;
    let with = unlock.find(target.kit_path())?;
    let written = backup_engine::rotate(&target.env, &target.stores, &with).await?;
    tell("rotated", &target, &written, json)
}

pub async fn refresh(target: &TargetArgs, unlock: &UnlockArgs, json: bool) -> anyhow::Result<ExitCode> {
    let target = target.find().await?;
    let with = unlock.find(target.kit_path())?;
    let written = backup_engine::in_force(&target.env, &target.stores, &with).await?;
    tell("refreshed", &target, &written, json)
}

fn tell(event: &str, target: &Target, written: &Rewritten, json: bool) -> anyhow::Result<ExitCode> {
    let (epoch, number) = (written.header.newest_epoch, written.header.number);
    let updated = target.write_keys(written)?;
    if json {
        say!("{}", serde_json::json!({"event": event, "epoch": epoch, "keyring": number, "updated": updated}));
        return Ok(ExitCode::SUCCESS);
    }
    if event == "rotated" {
        say!("Epoch {epoch} has begun: what is written from now on is sealed to new keys.");
        say!("What is stored already stays as it is, readable with the old keys: this protects the future only.");
    }
    for file in &updated {
        say!("made current: {file}");
    }
    if updated.is_empty() {
        say!("No key file of this machine had to be made current.");
    }
    if event == "rotated" {
        say!(
            "`backupd serve` and `backupd verifier` take a replaced key file at their next snapshot or request; where systemd"
        );
        say!("loads the keys (LoadCredential), restart the units. Other machines: `backupd keys refresh` on each.");
    }
    if event == "rotated" || target.kit.is_some() {
        target.tell_kit();
    }
    Ok(ExitCode::SUCCESS)
}

/// Figures of every store: they hold the same packs, unless one is late.
pub async fn epochs(target: &TargetArgs, unlock: &UnlockArgs, json: bool) -> anyhow::Result<ExitCode> {
    let target = target.find().await?;
    let with = unlock.find(target.kit_path())?;
    for store in &target.stores {
        let open =
            backup_engine::unlock(&target.env, store, &with).await.map_err(|error| error.context(&store.name))?;
        for used in backup_engine::epochs(&target.env, &open, store).await? {
            let since = used.since_unix_ms.map(clock::day);
            if json {
                let line = serde_json::json!({
                    "event": "epoch", "store": store.name, "epoch": used.epoch, "since_unix_ms": used.since_unix_ms,
                    "packs": used.packs, "bytes": used.bytes,
                });
                say!("{line}");
            } else {
                let since = since.unwrap_or_else(|| "an unknown day".to_owned());
                say!("{}: epoch {} since {since}: {} packs, {} bytes", store.name, used.epoch, used.packs, used.bytes);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
