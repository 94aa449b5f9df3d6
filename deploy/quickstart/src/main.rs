//! `quickstart`: the whole system on one machine, for a first look and for tests. It builds the programs, makes a practice
//! in one folder, starts the programs as separate processes that talk only through their real interfaces, takes a
//! backup, restores it from each store alone, and says what came back.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod ambient;
mod answers;
mod authority;
mod bundles;
mod chain;
mod child;
mod configure;
mod files;
mod layout;
mod lock;
mod login;
mod output;
mod place;
mod ports;
mod practice;
mod programs;
mod recover;
mod running;
mod secrets;
mod steps;
mod supervise;
mod table;
mod typed;
mod users;

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// The whole of Holdfast on this machine: an EMR with a made-up practice, backups to three stores, a proven restore from
/// each, the console and the health page.
///
/// Everything lies in one folder and listens on this machine only. It is a demonstration: no store is off-site.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = false)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The practice's folder; it is made when it is missing.
    #[arg(long, value_name = "DIR", default_value = "./practice", global = true)]
    dir: PathBuf,
    #[command(flatten)]
    start: Start,
}

#[derive(Debug, Args)]
pub struct Start {
    /// End after the drills; exit code 0 only if every verdict is pass.
    #[arg(long)]
    once: bool,
    /// How many made-up patients a new practice gets.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    patients: u32,
    /// The number from which a new practice is made up: the same number gives the same practice.
    #[arg(long, value_name = "S", default_value_t = 1)]
    seed: u64,
    /// Load FHIR R4 transaction bundles (*.json) from this folder instead of making up patients.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["patients", "seed"])]
    import: Option<PathBuf>,
    /// Listen on this address instead of 127.0.0.1, so that other machines reach EMR, console and health page.
    #[arg(long, value_name = "ADDR")]
    listen: Option<IpAddr>,
    /// A further host name or address for the certificates; may be repeated.
    #[arg(long = "name", value_name = "NAME", value_parser = typed::host)]
    names: Vec<String>,
    /// The name of the practice.
    #[arg(long, value_name = "TEXT", value_parser = typed::practice_name)]
    practice_name: Option<String>,
    /// The practice's time zone, for example America/New_York.
    #[arg(long, value_name = "ZONE", value_parser = typed::time_zone)]
    time_zone: Option<String>,
    #[command(flatten)]
    binaries: Binaries,
}

#[derive(Debug, Args)]
pub struct Binaries {
    /// Do not build; take the binaries beside this one.
    #[arg(long, global = true)]
    no_build: bool,
    /// Do not build; take the binaries of this folder.
    #[arg(long, value_name = "DIR", global = true)]
    bin_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show a user's address, password and current code again.
    Login {
        #[arg(value_name = "USER")]
        user: String,
    },
    /// Bring a lost practice back into service from its recovery kit and ONE store.
    Recover(recover::Recover),
    /// Become PROGRAM, and end when the quickstart ends.
    #[command(hide = true)]
    RunChild {
        #[arg(long)]
        parent: u32,
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        None => chain::run(&arguments.dir, arguments.start),
        Some(Command::Login { user }) => show_login(&arguments.dir, &user),
        Some(Command::Recover(recover)) => recover::run(&arguments.dir, &recover, &arguments.start.binaries),
        Some(Command::RunChild { parent, command }) => child::run(parent, &command).map(|()| ExitCode::SUCCESS),
    };
    done.unwrap_or_else(|error| {
        output::note(&format!("quickstart: {error:#}"));
        ExitCode::FAILURE
    })
}

fn show_login(dir: &std::path::Path, user: &str) -> anyhow::Result<ExitCode> {
    output::say(&login::again(&layout::Layout::new(dir)?, user)?)?;
    Ok(ExitCode::SUCCESS)
}
