//! `backupd keys`: which keys there are, a rehearsal that proves each, further slots, further epochs. No existing secret
//! is ever shown.

mod epochs;
mod list;
mod pruner;
mod renew_kit;
mod slots;
mod target;

pub use list::slot_name;

use super::unlock::UnlockArgs;
use clap::{Args, Subcommand};
use std::process::ExitCode;
use target::TargetArgs;

#[derive(Args)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
    /// Answer in lines of JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum KeysCommand {
    /// List the slots that open the keyring, and the key files of this machine
    #[command(after_help = "Example: backupd keys list --repo /mnt/backup")]
    List(Plain),
    /// Prove that each slot opens the keyring, here and at every store; changes nothing
    #[command(
        visible_alias = "check",
        after_help = "Give every secret that you have; a slot whose secret was not given is not proved.\n\
                      Example: backupd keys rehearse --kit recovery-kit --passphrase-file passphrase.txt"
    )]
    Rehearse(Unlocking),
    /// Add a further way to open the keyring
    #[command(after_help = "Example: backupd keys add-slot shares --needed 2 --of 3 --out shares/ --config serve.toml")]
    AddSlot(slots::AddSlot),
    /// Take a way to open the keyring out of it
    #[command(
        after_help = "Who holds a copy of an older keyring still opens that one: rotate afterwards when a secret is in wrong hands.\n\
                      Example: backupd keys remove-slot 0f3a2b1c9d8e7f60 --repo /mnt/backup"
    )]
    RemoveSlot(slots::RemoveSlot),
    /// Begin a further epoch: what is written from now on is sealed to new keys
    #[command(
        after_help = "No stored byte changes, and what is stored stays readable with the old keys: a rotation protects the\n\
                      future only. Every store must answer.\n\
                      Example: backupd keys rotate --config serve.toml --kit recovery-kit"
    )]
    Rotate(Unlocking),
    /// Write this machine's key files anew from the keyring in force
    #[command(
        after_help = "Example, on the verifier's machine after a rotation: backupd keys refresh --config verifier.toml"
    )]
    Refresh(Unlocking),
    /// Make the recovery kit current: the newest keyring, and the stores of serve.toml with their keys as they are now
    #[command(after_help = "Example: backupd keys kit --config serve.toml --kit recovery-kit")]
    Kit(renew_kit::RenewKit),
    /// Make the credential with which `backupd maintain` signs deletion plans
    #[command(after_help = "Example: backupd keys pruner --config serve.toml --kit recovery-kit --out pruner.cred")]
    Pruner(pruner::Pruner),
    /// Show which epoch covers which bytes
    #[command(after_help = "Example: backupd keys epochs --repo /mnt/backup")]
    Epochs(Unlocking),
}

#[derive(Args)]
struct Plain {
    #[command(flatten)]
    target: TargetArgs,
}

#[derive(Args)]
struct Unlocking {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    unlock: UnlockArgs,
}

impl KeysArgs {
    pub fn json(&self) -> bool {
        self.json
    }
}

pub async fn keys(args: KeysArgs) -> anyhow::Result<ExitCode> {
    let json = args.json;
    match args.command {
        KeysCommand::List(args) => list::list(&args.target, json).await,
        KeysCommand::Rehearse(args) => list::rehearse(&args.target, &args.unlock, json).await,
        KeysCommand::AddSlot(args) => slots::add(&args, json).await,
        KeysCommand::RemoveSlot(args) => slots::remove(&args, json).await,
        KeysCommand::Rotate(args) => epochs::rotate(&args.target, &args.unlock, json).await,
        KeysCommand::Refresh(args) => epochs::refresh(&args.target, &args.unlock, json).await,
        KeysCommand::Kit(args) => renew_kit::renew(&args, json).await,
        KeysCommand::Pruner(args) => pruner::make(&args, json).await,
        KeysCommand::Epochs(args) => epochs::epochs(&args.target, &args.unlock, json).await,
    }
}
