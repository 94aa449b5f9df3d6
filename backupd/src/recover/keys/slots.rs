//! Slots: one more, one less.

use super::super::unlock::UnlockArgs;
use super::list::slot_name;
use super::target::{Target, TargetArgs};
use crate::cli::{Usage, check_passphrase, new_passphrase};
use crate::secret;
use backup_engine::{MachineKey, PaperKey, Passphrase, SlotInfo, UnlockWith, add_shares, add_slot, remove_slot};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;
use zeroize::Zeroizing;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// A passphrase that you give, or one that is generated
    Passphrase,
    /// Forty letters to print and lock away
    PaperKey,
    /// Several texts for several people, some of whom together open the keyring
    Shares,
    /// A random secret for one machine, to be kept encrypted by systemd-creds
    MachineKey,
}

#[derive(Args)]
pub struct AddSlot {
    /// What opens the new slot
    kind: Kind,
    /// The new passphrase in a file (else BACKUPD_NEW_PASSPHRASE, else it is asked for twice)
    #[arg(long, value_name = "FILE", conflicts_with = "generate")]
    new_passphrase_file: Option<PathBuf>,
    /// Make a passphrase of 120 random bits and show it once
    #[arg(long)]
    generate: bool,
    /// How many shares open the slot
    #[arg(long, value_name = "N", default_value_t = 2)]
    needed: u8,
    /// How many shares are made
    #[arg(long, value_name = "N", default_value_t = 3)]
    of: u8,
    /// Write the new secret here (mode 0600) instead of showing it once; for shares, a folder
    #[arg(long, value_name = "PATH", required_if_eq("kind", "machine-key"))]
    out: Option<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    unlock: UnlockArgs,
}

#[derive(Args)]
pub struct RemoveSlot {
    /// The slot's id, from `backupd keys list`
    id: String,
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    unlock: UnlockArgs,
}

/// Texts that a person must keep, each with the name of its file.
type Secrets = Vec<(String, Zeroizing<String>)>;

pub async fn add(args: &AddSlot, json: bool) -> anyhow::Result<ExitCode> {
    let target = args.target.find().await?;
    if let Some(out) = args.out.as_ref().filter(|out| args.kind != Kind::Shares && out.exists()) {
        return Err(Usage(format!("{} exists already: nothing was changed", out.display())).into());
    }
    let with = args.unlock.find(target.kit_path())?;
    let mut rng = target.env.rng();
    let (written, slot, secrets) = if args.kind == Kind::Shares {
        let (written, slot, shares) = add_shares(&target.env, &target.stores, &with, (args.needed, args.of)).await?;
        let named = shares.iter().map(|share| (format!("share-{}.txt", share.number), share.to_text()));
        (written, slot, named.collect())
    } else {
        let (further, secret): (UnlockWith, Option<Zeroizing<String>>) = match args.kind {
            Kind::PaperKey => {
                let paper = PaperKey::generate(&mut rng);
                let text = paper.to_text();
                (UnlockWith::PaperKey(paper), Some(text))
            }
            Kind::MachineKey => {
                let machine = MachineKey::generate(&mut rng);
                let text = machine.to_text();
                (UnlockWith::Machine(machine), Some(text))
            }
            _ if args.generate => {
                let passphrase = Passphrase::generate(&mut rng);
                let text = Zeroizing::new(passphrase.expose().to_owned());
                (UnlockWith::Passphrase(passphrase), Some(text))
            }
            _ => (UnlockWith::Passphrase(given_passphrase(args)?), None),
        };
        let (written, slot) = add_slot(&target.env, &target.stores, &with, further).await?;
        (written, slot, secret.map(|text| (String::new(), text)).into_iter().collect::<Secrets>())
    };
    hand_over(args, &slot, &secrets, json)?;
    let updated = target.write_keys(&written)?;
    tell("slot-added", &slot, &target, &updated, json);
    Ok(ExitCode::SUCCESS)
}

fn given_passphrase(args: &AddSlot) -> anyhow::Result<Passphrase> {
    if let Some(file) = &args.new_passphrase_file {
        let bytes = secret::read(file)?;
        let text = std::str::from_utf8(&bytes)?.trim_end_matches(['\r', '\n']);
        check_passphrase(text)?;
        return Ok(Passphrase::new(text.to_owned()));
    }
    new_passphrase("BACKUPD_NEW_PASSPHRASE")
}

/// Shows or writes the secrets of the new slot. The slot stands already: a secret that could not be written is shown.
fn hand_over(args: &AddSlot, slot: &SlotInfo, secrets: &Secrets, json: bool) -> anyhow::Result<()> {
    for (name, text) in secrets {
        let out = args.out.as_ref().map(std::path::absolute).transpose()?;
        let path = out.map(|out| if name.is_empty() { out } else { out.join(name) });
        let line = match (args.kind, name.is_empty()) {
            (Kind::Shares, _) => format!("Slot {}, {} needed.\n{}\n", slot.id, args.needed, text.as_str()),
            _ => format!("{}\n", text.as_str()),
        };
        let line = Zeroizing::new(line);
        if let Some(path) = path {
            match secret::write_new(&path, line.as_bytes()) {
                Ok(()) => continue,
                Err(error) => tell!("backupd: {error:#}; so it is shown here, this once"),
            }
        }
        if json {
            say!("{}", serde_json::json!({"event": "secret", "slot": slot.id.to_string(), "text": text.as_str()}));
        } else {
            say!("\nShown this once; keep it apart from the other keys:\n\n    {}\n", text.as_str());
        }
    }
    if let (Kind::MachineKey, Some(out), false) = (args.kind, &args.out, json) {
        say!("Encrypt it for this machine, then remove the file:");
        say!("    systemd-creds encrypt --name=machine-key {} /etc/holdfast/keys/machine-key", out.display());
        say!("and load it in the unit: LoadCredentialEncrypted=machine-key:/etc/holdfast/keys/machine-key");
    }
    Ok(())
}

pub async fn remove(args: &RemoveSlot, json: bool) -> anyhow::Result<ExitCode> {
    let id = args.id.parse().map_err(|_| Usage(format!("{} is no slot id: see `backupd keys list`", args.id)))?;
    let target = args.target.find().await?;
    let with = args.unlock.find(target.kit_path())?;
    let newest = backup_engine::keyring_for(&target.env, &target.stores, &with).await?;
    let slot = backup_engine::describe_keyring(&newest)?.1.into_iter().find(|slot| slot.id == id);
    let written = remove_slot(&target.env, &target.stores, &with, id).await?;
    let updated = target.write_keys(&written)?;
    if let Some(slot) = slot {
        tell("slot-removed", &slot, &target, &updated, json);
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(event: &str, slot: &SlotInfo, target: &Target, updated: &[String], json: bool) {
    let stores: Vec<&str> = target.stores.iter().map(|store| store.name.as_str()).collect();
    let name = slot_name(slot);
    if json {
        let id = slot.id.to_string();
        say!("{}", serde_json::json!({"event": event, "slot": id, "key": name, "stores": stores, "updated": updated}));
        return;
    }
    say!("{} {name} at {}", if event == "slot-added" { "added" } else { "removed" }, stores.join(", "));
    for file in updated {
        say!("made current: {file}");
    }
    target.tell_kit();
}
