//! Listing slots and key files, and the rehearsal that proves each slot.

use super::super::unlock::UnlockArgs;
use super::target::{Target, TargetArgs};
use crate::secret;
use backup_engine::{CatalogKey, OpenKey, SlotInfo, SlotKind, UnlockWith, WriterCredential, describe_keyring};
use bytes::Bytes;
use std::path::Path;
use std::process::ExitCode;

/// One line of the answer.
struct Row {
    key: String,
    place: String,
    ok: bool,
    note: String,
}

fn row(key: impl Into<String>, place: impl Into<String>, ok: bool, note: impl Into<String>) -> Row {
    Row { key: key.into(), place: place.into(), ok, note: note.into() }
}

fn tell(rows: &[Row], json: bool) -> ExitCode {
    for row in rows {
        if json {
            let line =
                serde_json::json!({"event": "key", "key": row.key, "place": row.place, "ok": row.ok, "note": row.note});
            say!("{line}");
        } else {
            say!("{:7} {} at {}: {}", if row.ok { "ok" } else { "NOT OK" }, row.key, row.place, row.note);
        }
    }
    if rows.iter().all(|row| row.ok) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a slot is called: its kind and its id.
pub fn slot_name(slot: &SlotInfo) -> String {
    let kind = match slot.kind {
        SlotKind::Passphrase => "passphrase".to_owned(),
        SlotKind::Paper => "paper-key".to_owned(),
        SlotKind::Shares => {
            slot.shares.map_or_else(|| "shares".to_owned(), |(needed, of)| format!("shares {needed}-of-{of}"))
        }
        SlotKind::Machine => "machine-key".to_owned(),
        SlotKind::Unknown(code) => format!("kind {code} of another release"),
    };
    format!("{kind} {}", slot.id)
}

/// The keyrings at hand: that of the kit, and that of every store or why it cannot be had.
async fn keyrings(
    target: &Target,
    catalog: Option<&CatalogKey>,
) -> anyhow::Result<Vec<(String, backup_engine::Result<Bytes>)>> {
    let mut found = Vec::new();
    if let Some((_, kit)) = &target.kit {
        found.push(("kit".to_owned(), Ok(kit.keyring()?)));
    }
    for store in &target.stores {
        let keyring = match catalog {
            Some(catalog) => backup_engine::signed_keyring(catalog, std::slice::from_ref(store)).await,
            None => backup_engine::keyring(&target.env, store).await,
        };
        found.push((store.name.clone(), keyring));
    }
    Ok(found)
}

/// The catalog key of whatever one of the secrets opens.
async fn opened(target: &Target, given: &[UnlockWith]) -> Option<CatalogKey> {
    for with in given {
        let keyring = backup_engine::keyring_for(&target.env, &target.stores, with).await;
        let kept = || target.kit.as_ref().and_then(|(_, kit)| kit.keyring().ok());
        let Some(keyring) = keyring.ok().or_else(kept) else { continue };
        if let Ok(open) = backup_engine::unlock_by(&target.env, keyring, with).await {
            return Some(open.catalog().clone());
        }
    }
    None
}

/// Keyrings that somebody else put into a store. Only a key file of this machine, or a secret, tells them from the
/// repository's own.
async fn foreign(target: &Target, catalog: Option<&CatalogKey>) -> Vec<Row> {
    let Some(catalog) = catalog else { return Vec::new() };
    let mut rows = Vec::new();
    for store in &target.stores {
        // What cannot be listed has a row already.
        for name in backup_engine::foreign_keyrings(catalog, store).await.unwrap_or_default() {
            let note = format!("{name} is not signed by this repository: somebody else writes into the store");
            rows.push(row("keyring", store.name.clone(), false, note));
        }
    }
    rows
}

/// The highest number of all keyrings that were found.
fn newest(keyrings: &[(String, backup_engine::Result<Bytes>)]) -> Option<(u64, Bytes)> {
    let numbered = |bytes: &Bytes| Some((describe_keyring(bytes).ok()?.0.number, bytes.clone()));
    keyrings.iter().filter_map(|(_, bytes)| numbered(bytes.as_ref().ok()?)).max_by_key(|(number, _)| *number)
}

pub async fn list(target: &TargetArgs, json: bool) -> anyhow::Result<ExitCode> {
    let target = target.find().await?;
    let catalog = target.catalog();
    let keyrings = keyrings(&target, catalog.as_ref()).await?;
    let mut rows = Vec::new();
    let in_force = newest(&keyrings);
    if let Some((_, bytes)) = &in_force {
        let (header, slots) = describe_keyring(bytes)?;
        for slot in slots {
            let day = crate::clock::day(slot.made_unix_ms);
            let note = format!("made {day}; prove it with `backupd keys rehearse`");
            rows.push(row(slot_name(&slot), format!("keyring {}", header.number), true, note));
        }
        let repository = header.repository.to_string();
        if let Some(path) = &target.writer {
            let read = secret::read(path).and_then(|bytes| {
                let key = WriterCredential::from_bytes(&bytes)?;
                Ok((key.repository().to_string(), key.seal_key().epoch()))
            });
            rows.push(file_row("writer credential", path, read, &repository, header.newest_epoch));
        }
        if let Some(path) = &target.open {
            let read = secret::read(path).and_then(|bytes| {
                let key = OpenKey::from_bytes(&bytes)?;
                Ok((key.repository().to_string(), key.catalog().newest_epoch()))
            });
            rows.push(file_row("open key", path, read, &repository, header.newest_epoch));
        }
    }
    let number = in_force.map_or(0, |(number, _)| number);
    rows.extend(keyrings.into_iter().map(|(place, bytes)| keyring_row(&place, bytes, number)));
    rows.extend(foreign(&target, catalog.as_ref()).await);
    Ok(tell(&rows, json))
}

fn keyring_row(place: &str, bytes: backup_engine::Result<Bytes>, newest: u64) -> Row {
    match bytes.and_then(|bytes| Ok(describe_keyring(&bytes)?.0)) {
        Ok(header) if header.number == newest => {
            row("keyring", place, true, format!("number {newest}, epoch {}", header.newest_epoch))
        }
        // The kit still opens with the secrets that it was made for; a store is brought up to date by the next snapshot.
        Ok(header) if place == "kit" => {
            let note = format!("number {} of {newest}: `backupd keys kit` makes it current", header.number);
            row("keyring", place, true, note)
        }
        Ok(header) => row("keyring", place, false, format!("number {} of {newest}: the store is late", header.number)),
        Err(error) => row("keyring", place, false, error.to_string()),
    }
}

fn file_row(key: &str, path: &Path, read: anyhow::Result<(String, u32)>, repository: &str, newest: u32) -> Row {
    let place = path.display().to_string();
    match read {
        Ok((id, _)) if id != repository => row(key, place, false, "belongs to another repository"),
        Ok((_, epoch)) if epoch < newest => {
            row(key, place, false, format!("knows epoch {epoch} of {newest}: `backupd keys refresh` makes it current"))
        }
        Ok((_, epoch)) => row(key, place, true, format!("epoch {epoch}")),
        Err(error) => row(key, place, false, format!("{error:#}")),
    }
}

/// Every given secret against the keyring of the kit and of every store; every slot must have been opened by one.
pub async fn rehearse(target: &TargetArgs, unlock: &UnlockArgs, json: bool) -> anyhow::Result<ExitCode> {
    let target = target.find().await?;
    let mut given = unlock.all(target.kit_path())?;
    if given.is_empty() {
        given.push(unlock.find(target.kit_path())?);
    }
    let catalog = match target.catalog() {
        Some(catalog) => Some(catalog),
        None => opened(&target, &given).await,
    };
    let keyrings = keyrings(&target, catalog.as_ref()).await?;
    let mut rows = Vec::new();
    for (place, bytes) in &keyrings {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                rows.push(row("keyring", place, false, error.to_string()));
                continue;
            }
        };
        let (header, slots) = describe_keyring(bytes)?;
        let proved = prove(&target, bytes, &given, place, &mut rows).await;
        for slot in slots {
            let opened = proved.contains(&slot);
            let note = if opened {
                format!("opens keyring {}", header.number)
            } else {
                "its secret was not given, so it is not proved".to_owned()
            };
            rows.push(row(slot_name(&slot), place, opened, note));
        }
    }
    rows.extend(foreign(&target, catalog.as_ref()).await);
    Ok(tell(&rows, json))
}

/// The slots that the given secrets open; a secret that opens none is a row of its own.
async fn prove(
    target: &Target,
    keyring: &Bytes,
    given: &[UnlockWith],
    place: &str,
    rows: &mut Vec<Row>,
) -> Vec<SlotInfo> {
    let mut proved = Vec::new();
    for with in given {
        match backup_engine::rehearse(&target.env, keyring.clone(), with).await {
            Ok((_, slot)) => proved.push(slot),
            Err(error) => rows.push(row(secret_name(with), place, false, error.to_string())),
        }
    }
    proved
}

fn secret_name(with: &UnlockWith) -> &'static str {
    match with {
        UnlockWith::Passphrase(_) => "the given passphrase",
        UnlockWith::PaperKey(_) => "the given paper key",
        UnlockWith::Shares(_) => "the given shares",
        UnlockWith::Machine(_) => "the given machine key",
        UnlockWith::OpenKeyFile(_) => "the given open key file",
    }
}
