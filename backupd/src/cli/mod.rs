//! The command line: what a tired person types at night.

mod ask;
mod render;
mod standalone;

pub use render::{Bars, Usage};

use crate::recover;
use crate::settings::{ServeSettings, VerifierSettings};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Usage or configuration is wrong.
pub const EXIT_USAGE: u8 = 2;
/// The snapshot was taken, but some file could not be read.
pub const EXIT_PARTIAL: u8 = 3;

#[derive(Parser)]
#[command(
    name = "backupd",
    version,
    about = "Backups that prove themselves: snapshots to several stores, restores, signed restore reports",
    after_help = "Where the daemons are: --config cli.toml (or serve.toml, verifier.toml), BACKUPD_CONFIG, or --serve / --verifier.\n\
                  Exit codes: 0 done; 1 failed, damaged or not proved; 2 wrong usage or settings; 3 snapshot is partial."
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the daemon that takes snapshots and sends them to the stores
    Serve {
        /// Settings, serve.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Run the daemon that restores, drills and signs reports
    Verifier {
        /// Settings, verifier.toml
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Make a repository in every store, its keys and the recovery kit (asks no daemon)
    Init(recover::InitArgs),
    /// Take a snapshot now (asks `backupd serve`)
    Snapshot(SnapshotArgs),
    /// List snapshots and the stores that hold them (asks `backupd serve`, or the verifier)
    Snapshots(ListArgs),
    /// List names in a snapshot (asks `backupd verifier` on its own machine)
    Ls(LsArgs),
    /// Restore a snapshot or parts of it (asks `backupd verifier` on its own machine)
    Restore(RestoreArgs),
    /// Check that the stores hold what they should (asks `backupd verifier`)
    Verify(VerifyArgs),
    /// Restore from one store alone, start the EMR on it, sign a report (asks `backupd verifier`)
    Drill(DrillArgs),
    /// List reports, save one with its evidence, or hand in an approval (asks `backupd verifier`)
    Report(ReportArgs),
    /// List the keys of a practice, or prove that each unlocks (asks no daemon)
    Keys(recover::KeysArgs),
    /// Show every store: condition, what it holds, when it was proved (asks `backupd serve`)
    Stores(Plain),
    /// Show the practice's backup at a glance (asks `backupd serve`)
    Status(Plain),
    /// Bring a practice back on an empty machine from its recovery kit and one store (asks no daemon)
    Recover(recover::RecoverArgs),
}

/// Where to ask, and how to answer.
#[derive(Args, Clone)]
struct Ask {
    /// cli.toml, or the daemon's own serve.toml or verifier.toml
    #[arg(long, value_name = "FILE", env = "BACKUPD_CONFIG")]
    config: Option<PathBuf>,
    /// Where `backupd serve` listens: unix:/path
    #[arg(long, value_name = "ENDPOINT")]
    serve: Option<String>,
    /// Where `backupd verifier` listens: unix:/path
    #[arg(long, value_name = "ENDPOINT")]
    verifier: Option<String>,
    /// Answer in lines of JSON, progress included
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct Plain {
    #[command(flatten)]
    ask: Ask,
}

/// A repository without a daemon.
#[derive(Args, Clone)]
struct Repo {
    /// Work on this repository without a daemon: a folder or s3://bucket/prefix; passphrase in BACKUPD_PASSPHRASE
    #[arg(long, value_name = "DIR|URL")]
    repo: Option<String>,
}

#[derive(Args)]
struct SnapshotArgs {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    repo: Repo,
    /// A word to find the snapshot by
    #[arg(long)]
    tag: Option<String>,
    /// With --repo: leave out these names or paths
    #[arg(long, value_name = "NAME")]
    exclude: Vec<String>,
    /// With --repo: the folder to back up
    path: Option<PathBuf>,
}

#[derive(Args)]
struct ListArgs {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    repo: Repo,
}

/// Which snapshot.
#[derive(Args, Clone)]
struct Which {
    /// A snapshot's id, its beginning, or `latest`
    #[arg(long, value_name = "ID", default_value = "latest")]
    snapshot: String,
    /// The newest snapshot with this tag
    #[arg(long, conflicts_with = "snapshot")]
    tag: Option<String>,
}

#[derive(Args)]
struct LsArgs {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    which: Which,
    /// Only what is at or below this path
    path: Option<String>,
}

#[derive(Args)]
struct RestoreArgs {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    which: Which,
    /// From this store alone; otherwise from the first that gives it whole
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// The folder to restore into; nothing in it is replaced
    #[arg(long, value_name = "DIR")]
    into: PathBuf,
    /// Only these paths
    paths: Vec<String>,
}

#[derive(Args)]
struct VerifyArgs {
    #[command(flatten)]
    ask: Ask,
    #[command(flatten)]
    repo: Repo,
    /// Only this store
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
    /// Read every byte back instead of checking that everything is there
    #[arg(long)]
    read_data: bool,
}

#[derive(Args)]
struct DrillArgs {
    #[command(flatten)]
    ask: Ask,
    /// This store; otherwise the one that was proved longest ago
    #[arg(long, value_name = "NAME")]
    store: Option<String>,
}

#[derive(Args)]
struct ReportArgs {
    #[command(flatten)]
    ask: Ask,
    /// A report's id; without one, all are listed
    id: Option<String>,
    /// Save the report with everything that an auditor needs in this folder
    #[arg(long, value_name = "DIR", requires = "id")]
    out: Option<PathBuf>,
    /// Hand in an approval file made with `report-verify approve`
    #[arg(long, value_name = "FILE", requires = "id")]
    approval: Option<PathBuf>,
}

/// Runs the command; every way to fail has its exit code.
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("backupd: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    service::tls::install_provider();
    let json = wants_json(&cli.command);
    match runtime.block_on(dispatch(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            if json {
                say!("{}", render::failed_json(&error));
            }
            eprintln!("backupd: {error:#}");
            exit_code(&error)
        }
    }
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { config } => {
            service::log::init("backupd-serve");
            crate::serve::run(ServeSettings::load(&config)?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Verifier { config } => {
            service::log::init("backupd-verifier");
            crate::verifier::run(VerifierSettings::load(&config)?).await?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Init(args) if args.repo.is_some() => standalone::init(args).await,
        Command::Init(args) => recover::init(args).await,
        Command::Keys(args) => recover::keys(args).await,
        Command::Recover(args) => recover::recover(args).await,
        Command::Snapshot(args) if args.repo.repo.is_some() => standalone::snapshot(args).await,
        Command::Snapshots(args) if args.repo.repo.is_some() => standalone::snapshots(args).await,
        Command::Ls(args) if args.repo.repo.is_some() => standalone::ls(args).await,
        Command::Restore(args) if args.repo.repo.is_some() => standalone::restore(args).await,
        Command::Verify(args) if args.repo.repo.is_some() => standalone::verify(args).await,
        Command::Snapshot(args) => ask::snapshot(args).await,
        Command::Snapshots(args) => ask::snapshots(args).await,
        Command::Ls(args) => ask::ls(args).await,
        Command::Restore(args) => ask::restore(args).await,
        Command::Verify(args) => ask::verify(args).await,
        Command::Drill(args) => ask::drill(args).await,
        Command::Report(args) => ask::report(args).await,
        Command::Stores(args) => ask::stores(args).await,
        Command::Status(args) => ask::status(args).await,
    }
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Serve { .. } | Command::Verifier { .. } => false,
        Command::Init(args) => args.json,
        Command::Keys(args) => args.json(),
        Command::Recover(args) => args.json,
        Command::Snapshot(args) => args.ask.json,
        Command::Snapshots(args) => args.ask.json,
        Command::Ls(args) => args.ask.json,
        Command::Restore(args) => args.ask.json,
        Command::Verify(args) => args.ask.json,
        Command::Drill(args) => args.ask.json,
        Command::Report(args) => args.ask.json,
        Command::Stores(args) | Command::Status(args) => args.ask.json,
    }
}

/// Usage and settings give 2, everything else 1.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    use backup_engine::ErrorKind;
    use backupd_api::{ClientError, EndpointError, FailureKind};
    let misconfigured = error.chain().any(|cause| {
        cause.is::<crate::settings::SettingsError>()
            || cause.is::<EndpointError>()
            || cause.is::<render::Usage>()
            || cause.downcast_ref::<backup_engine::Error>().is_some_and(|e| e.kind() == ErrorKind::Misconfigured)
            || matches!(
                cause.downcast_ref::<ClientError>(),
                Some(ClientError::Failed(f)) if matches!(f.kind, FailureKind::Misconfigured | FailureKind::WrongDaemon)
            )
    });
    ExitCode::from(if misconfigured { EXIT_USAGE } else { 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent_and_every_verb_says_whom_it_asks() {
        Cli::command().debug_assert();
        let daemons = ["serve", "verifier"];
        for command in Cli::command().get_subcommands() {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let says = about.contains("(asks ");
            assert!(says || daemons.contains(&command.get_name()), "{}: {about}", command.get_name());
        }
    }

    #[test]
    fn the_contract_of_the_standalone_mode_parses() {
        for line in [
            "backupd init --repo /r",
            "backupd snapshot --repo /r --tag t --exclude x /p",
            "backupd snapshots --repo /r",
            "backupd restore --repo /r --tag t --into /d a b",
            "backupd verify --repo /r --read-data",
            "backupd ls --repo /r",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }
}
