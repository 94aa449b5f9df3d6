//! The command line: what a tired person types at night.

mod args;
mod ask;
mod bars;
mod failed;
mod listing;
mod location;
mod locks;
mod mark;
mod mount;
mod plan;
mod prune;
mod render;
mod repo;
mod standalone;
mod stop;
mod views;
mod warnings;

pub use bars::Bars;
pub use render::Usage;
pub use repo::{Repository, check_passphrase, new_passphrase};

use crate::recover;
use crate::settings::{MaintainSettings, ServeSettings, VerifierSettings};
use args::{Cli, Command};
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::ExitCode;
use stop::Signals;

/// Usage or configuration is wrong.
pub const EXIT_USAGE: u8 = 2;
/// The snapshot was taken, but some file could not be read.
pub const EXIT_PARTIAL: u8 = 3;

/// Runs the command; every way to fail has its exit code.
pub fn run() -> ExitCode {
    with_few_arenas();
    let cli = Cli::parse();
    allow_open_files();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell!("backupd: no threads can be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    service::tls::install_provider();
    let json = wants_json(&cli.command);
    match runtime.block_on(dispatch(cli.command)) {
        Ok(code) if code == ExitCode::SUCCESS && service::terminal::is_lost() => {
            tell!(
                "backupd: done, but not all of the answer could be written: is the disk behind standard output full?"
            );
            ExitCode::FAILURE
        }
        Ok(code) => code,
        Err(error) => {
            if json {
                say!("{}", failed::json(&error));
            }
            failed::tell(&error);
            failed::exit_code(&error)
        }
    }
}

/// The C library keeps what was freed in one arena for each thread. Two for all of them take a tenth off the peak of a
/// first snapshot and cost no time (tests/bench); the library reads that when a program begins, so this one begins again.
fn with_few_arenas() {
    const ARENAS: &str = "MALLOC_ARENA_MAX";
    let mut args = std::env::args_os();
    if let (None, Some(name), Ok(program)) = (std::env::var_os(ARENAS), args.next(), std::env::current_exe())
        // Begun by the loader, or under another name: it stays as it is.
        && program.file_name() == Path::new(&name).file_name()
    {
        // Where that is refused, it takes more memory.
        let _refused = std::process::Command::new(program).arg0(name).args(args).env(ARENAS, "2").exec();
    }
}

/// As many open files as the system lets us have: the walk keeps each folder open that it is in, and a tree may be
/// thousands of folders deep, which is more than the usual 1024.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Where that is refused, a very deep tree makes the snapshot partial, and it says so.
        let _ = setrlimit(Resource::Nofile, limit);
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
        Command::Maintain { config } => {
            service::log::init("backupd-maintain");
            crate::maintain::run(MaintainSettings::load(&config)?).await?;
            Ok(ExitCode::SUCCESS)
        }
        command => {
            warnings::show();
            let (signals, left) = (Signals::listen()?, left_by(&command));
            signals.run(one(command, &signals), left).await
        }
    }
}

/// One command that ends by itself.
async fn one(command: Command, signals: &Signals) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve { .. } | Command::Verifier { .. } | Command::Maintain { .. } => Ok(ExitCode::SUCCESS),
        Command::Init(args) if args.repo.is_some() => standalone::init(args).await,
        Command::Init(args) => recover::init(args).await,
        Command::Keys(args) => recover::keys(args).await,
        Command::Recover(args) => recover::recover(args).await,
        Command::Snapshot(args) => match args.repo.repo.clone() {
            Some(place) => standalone::snapshot(&place, args, signals).await,
            None => ask::snapshot(args).await,
        },
        Command::Snapshots(args) => match args.repo.repo.clone() {
            Some(place) => standalone::snapshots(&place, args).await,
            None => ask::snapshots(args).await,
        },
        Command::Ls(args) => match args.repo.repo.clone() {
            Some(place) => views::ls(&place, args).await,
            None => ask::ls(args).await,
        },
        Command::Diff(args) => match args.repo.repo.clone() {
            Some(place) => views::diff(&place, args).await,
            None => ask::diff(args).await,
        },
        Command::Find(args) => match args.repo.repo.clone() {
            Some(place) => views::find(&place, args).await,
            None => ask::find(args).await,
        },
        Command::Restore(args) => match args.repo.repo.clone() {
            Some(place) => standalone::restore(&place, args).await,
            None => ask::restore(args).await,
        },
        Command::Verify(args) => match args.repo.repo.clone() {
            Some(place) => standalone::verify(&place, args).await,
            None => ask::verify(args).await,
        },
        Command::Stats(args) => views::stats(args).await,
        Command::Mount(args) => mount::mount(args, signals).await,
        Command::Drill(args) => ask::drill(args).await,
        Command::Report(args) => ask::report(args).await,
        Command::Stores(args) => match &args.mark {
            Some(name) => mark::mark(name, args.ask.config.as_deref()),
            None if args.extend_locks => locks::extend(args.ask.config.as_deref(), args.ask.json).await,
            None => ask::stores(args).await,
        },
        Command::Status(args) => ask::status(args).await,
        Command::Heal(args) => ask::heal(args).await,
        Command::LookedInto(args) => ask::looked_into(args).await,
        Command::Prune(args) => match args.action {
            Some(action) => plan::act(action).await,
            None => prune::prune(args).await,
        },
    }
}

/// What a command leaves behind when it is stopped.
fn left_by(command: &Command) -> &'static str {
    match command {
        Command::Snapshot(_) => "nothing is lost, the next snapshot goes on from here",
        Command::Restore(_) => "the target is incomplete; the same restore again goes on from here",
        Command::Init(_) => "what was made so far is incomplete; begin again in an empty place",
        Command::Recover(_) => "the same command again goes on from here",
        Command::Heal(_) => "it goes on in the daemon, and `backupd status` will show what came of it",
        Command::Prune(_) => "what was deleted is no longer needed; the same command goes on from here",
        Command::Drill(_) => "the drill goes on in the daemon, and `backupd report` will list it",
        _ => "nothing was changed",
    }
}

fn wants_json(command: &Command) -> bool {
    match command {
        Command::Serve { .. } | Command::Verifier { .. } | Command::Maintain { .. } => false,
        Command::Prune(args) => args.json,
        Command::Init(args) => args.json,
        Command::Keys(args) => args.json(),
        Command::Recover(args) => args.json,
        Command::Snapshot(args) => args.ask.json,
        Command::Snapshots(args) => args.ask.json,
        Command::Ls(args) => args.ask.json,
        Command::Diff(args) => args.ask.json,
        Command::Find(args) => args.ask.json,
        Command::Restore(args) => args.ask.json,
        Command::Verify(args) => args.ask.json,
        Command::Stats(args) => args.json,
        Command::Mount(args) => args.json,
        Command::Drill(args) => args.ask.json,
        Command::Heal(args) => args.ask.json,
        Command::LookedInto(args) => args.ask.json,
        Command::Report(args) => args.ask.json,
        Command::Stores(args) => args.ask.json,
        Command::Status(args) => args.ask.json,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_verb_says_whom_it_asks_and_shows_an_example() {
        Cli::command().debug_assert();
        let daemons = ["serve", "verifier", "maintain"];
        for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let says = about.contains("(asks ");
            assert!(says || daemons.contains(&command.get_name()), "{}: {about}", command.get_name());
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(
                help.contains(&format!("Example: backupd {}", command.get_name())),
                "{}: {help}",
                command.get_name()
            );
        }
    }

    #[test]
    fn the_contract_of_the_standalone_mode_parses() {
        for line in [
            "backupd init --repo /r",
            "backupd snapshot --repo /r --tag t --exclude x /p",
            "backupd snapshot --repo /r --tag t .",
            "backupd snapshots --repo /r",
            "backupd restore --repo /r --tag t --into /d a b",
            "backupd restore --repo /r --tag t --into .",
            "backupd verify --repo /r --read-data",
            "backupd ls --repo /r --long a",
            "backupd diff --repo /r a b path",
            "backupd find --repo /r *.pdf --larger 1M",
            "backupd stats --repo /r",
            "backupd mount --repo /r --foreground /d",
            "backupd prune --repo /r --dry-run",
            "backupd prune --repo /r --keep-last 3 --keep-daily 7 --keep-within 30d --keep-tag t --now --json",
        ] {
            if let Err(error) = Cli::try_parse_from(line.split(' ')) {
                panic!("{line}: {error}");
            }
        }
    }
}
