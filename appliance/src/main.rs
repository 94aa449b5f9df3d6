//! The EMR's program: the service and the commands around it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

use anyhow::Context;
use appliance::access::app_cli::{self, AppCommand};
use appliance::access::cli::UserCommand;
use appliance::access::portal_cli::{self, PortalCommand};
use appliance::access::{Actor, Program};
use appliance::clock::Clock;
use appliance::db::Place;
use appliance::export;
use appliance::import::{self, ImportCommand};
use appliance::settings::Settings;
use appliance::store::{Mode, Store};
use appliance::{probe, relocate, seed, serve, store, upgrade};
use clap::{Parser, Subcommand, ValueEnum};
use service::{say, tell};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "appliance", version, about = "The practice's medical records")]
struct Cli {
    /// Settings of the service
    #[arg(long, global = true, default_value = "appliance.toml", value_name = "FILE")]
    config: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Begin a new practice: make its empty database. Records that are there stay as they are
    Init,
    /// Run the service; the database has to be there
    Serve,
    /// Move in: bring in what another system wrote, while the service is stopped
    Import {
        #[command(subcommand)]
        command: ImportCommand,
    },
    /// Write everything that the practice has into a new folder; the service may run meanwhile
    Export {
        /// The folder, which is made
        dir: PathBuf,
    },
    /// Fill an empty practice with made-up records while the service is stopped
    Seed {
        /// How many patients
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        patients: u32,
        /// The same number gives the same practice
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// Open restored data read-only and answer for it on a socket
    Probe {
        /// Folder with records.sqlite and attachments, as restored
        dir: PathBuf,
        /// Unix socket to answer on
        #[arg(long, value_name = "PATH")]
        socket: PathBuf,
        /// Cut this process off from every network first
        #[arg(long)]
        isolate: bool,
        /// A user, besides this process's own, who may ask
        #[arg(long, value_name = "UID")]
        allow_uid: Vec<u32>,
    },
    /// The database of the records
    Database {
        #[command(subcommand)]
        command: DatabaseCommand,
    },
    /// What the last upgrade to a newer schema left, while the service is stopped
    Upgrade {
        #[command(subcommand)]
        command: UpgradeCommand,
    },
    /// Programs that may read and write records by themselves
    App {
        #[command(subcommand)]
        command: AppCommand,
    },
    /// Patients' access to their own record
    Portal {
        #[command(subcommand)]
        command: PortalCommand,
    },
    /// Users of the records
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
}

#[derive(Subcommand)]
enum DatabaseCommand {
    /// Copy all records from one kind of database to the other, while the service is stopped
    Copy {
        #[arg(value_enum)]
        direction: CopyDirection,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum CopyDirection {
    /// From records.sqlite into the empty PostgreSQL database that `database` names
    ToServer,
    /// From the PostgreSQL database into records.sqlite, which is not there yet
    ToFile,
}

#[derive(Subcommand)]
enum UpgradeCommand {
    /// Put the records of before the upgrade back, for the release that wrote them
    Undo,
    /// Give up the way back: remove the older records, to free their room
    Keep,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Records are for this user, and for the group through which the backup reads them.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o027));
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            tell!("appliance: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if let Command::Probe { isolate: true, .. } = &cli.command {
        // Before the log, the runtime or anything else starts a thread.
        probe::isolate()?;
    }
    service::log::init("appliance");
    match cli.command {
        Command::Init => init(&Settings::load(&cli.config)?),
        Command::Database { command } => database(&Settings::load(&cli.config)?.place(), &command),
        Command::Serve => serve::run(Settings::load(&cli.config)?).map(|()| ExitCode::SUCCESS),
        Command::Import { command } => {
            let settings = Settings::load(&cli.config)?;
            let store = Store::open(settings.place(), Clock::system(), Mode::Exclusive)?;
            let whole = import::run(&store, command, settings.time_zone)?;
            Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Export { dir } => export_all(&Settings::load(&cli.config)?, &dir),
        Command::Seed { patients, seed } => seed_practice(&cli.config, patients, seed),
        Command::Probe { dir, socket, allow_uid, .. } => {
            serve::run_probe(&dir, &socket, allow_uid).map(|()| ExitCode::SUCCESS)
        }
        Command::App { command } => {
            let store = Store::open(Settings::load(&cli.config)?.place(), Clock::system(), Mode::Beside)?;
            app_cli::run(&store, command, &mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Portal { command } => {
            let settings = Settings::load(&cli.config)?;
            let store = Store::open(settings.place(), Clock::system(), Mode::Beside)?;
            portal_cli::run(&store, command, &settings.practice_name, &mut std::io::stdout())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Upgrade { command } => upgrade_command(&Settings::load(&cli.config)?.place(), &command),
        Command::User { command } => user(&cli.config, command),
    }
}

fn init(settings: &Settings) -> anyhow::Result<ExitCode> {
    let (place, data_dir) = (settings.place(), settings.data_dir.display());
    if store::is_begun(&place)? {
        say!("a practice's records are in {data_dir} already: nothing was changed");
        return Ok(ExitCode::SUCCESS);
    }
    Store::open(&place, Clock::system(), Mode::New)?;
    match place.server() {
        None => say!("the empty database of a new practice is in {data_dir}"),
        Some(_) => {
            say!("the empty database of a new practice is on the PostgreSQL server; its attachments go to {data_dir}")
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn database(place: &Place, command: &DatabaseCommand) -> anyhow::Result<ExitCode> {
    let DatabaseCommand::Copy { direction } = command;
    let done = match direction {
        CopyDirection::ToServer => relocate::to_server(place)?,
        CopyDirection::ToFile => relocate::to_file(place)?,
    };
    say!("{} rows of {} tables are copied, and compared with where they came from", done.rows, done.tables);
    say!("the audit's chain is whole: {} entries", done.audit_entries);
    match direction {
        CopyDirection::ToServer => {
            let moved = place.data_dir().join(relocate::MOVED_FILE);
            say!("the service works with the PostgreSQL database from now on; the old file is {}", moved.display());
        }
        CopyDirection::ToFile => say!("take `database` out of appliance.toml before you start the service"),
    }
    Ok(ExitCode::SUCCESS)
}

fn export_all(settings: &Settings, dir: &Path) -> anyhow::Result<ExitCode> {
    let store = Store::open(settings.place(), Clock::system(), Mode::Beside)?;
    let progress = indicatif::ProgressBar::no_length();
    let mut folder =
        export::Folder::create(dir).context("the folder of the export: choose one that does not exist yet")?;
    let actor = Actor::program(Program::CommandLine);
    let made =
        export::everything(&store, &actor, &settings.practice_name, &mut folder, |done| progress.set_position(done))?;
    progress.finish_and_clear();
    say!("{} resources and {} files", made.facts.resources.values().sum::<u64>(), made.facts.attachments);
    say!("the folder is not encrypted: keep it as you keep the records");
    if made.damaged_attachments > 0 {
        tell!("{} files are missing or damaged and are not in the export", made.damaged_attachments);
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn upgrade_command(place: &Place, command: &UpgradeCommand) -> anyhow::Result<ExitCode> {
    let data_dir = place.data_dir();
    match command {
        UpgradeCommand::Undo => {
            let schema = upgrade::undo(place)?;
            say!(
                "the records are as they were before the upgrade (schema {schema}): install the release that wrote them before \
                 you start the service"
            );
            let given_up = data_dir.join(upgrade::KEPT_DIR).join(upgrade::GIVEN_UP_FILE);
            say!("what was written since is in {}", given_up.display());
        }
        UpgradeCommand::Keep if upgrade::settle(data_dir)? => say!("the older records are removed"),
        UpgradeCommand::Keep => say!("there are no older records here"),
    }
    Ok(ExitCode::SUCCESS)
}

fn seed_practice(config: &Path, patients: u32, number: u64) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(config)?;
    let store = Store::open(settings.place(), Clock::system(), Mode::Exclusive)?;
    let progress = indicatif::ProgressBar::new(u64::from(patients));
    let plan = seed::Plan { patients, seed: number, zone: settings.time_zone, practice_name: settings.practice_name };
    let seeded = seed::run(&store, &plan, |done| progress.set_position(done)).context("the practice was not filled")?;
    progress.finish_and_clear();
    say!("{} resources and {} documents for {patients} patients", seeded.resources, seeded.attachments);
    Ok(ExitCode::SUCCESS)
}

fn user(config: &Path, command: UserCommand) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(config)?;
    let store = Store::open(settings.place(), Clock::system(), Mode::Beside)?;
    let host = settings.public_names.first().cloned().unwrap_or_else(|| settings.listen.ip().to_string());
    let base_url = format!("https://{host}:{}", settings.listen.port());
    appliance::access::cli::run(&store, command, &base_url, &settings.practice_name, &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}
