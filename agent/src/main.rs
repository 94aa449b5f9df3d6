//! `agent`: shows data-center staff the health of one host. It holds no records and no keys.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod check;
mod clock;
mod collect;
mod metrics;
mod serve;
mod settings;
mod verdict;
mod wall;

use anyhow::Context;
use clap::{Parser, Subcommand};
use collect::Collector;
use service::{say, tell};
use settings::Settings;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

/// Health of this host for data-center staff: a wall page, Prometheus metrics and a Nagios check.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// The agent's settings.
    #[arg(long, global = true, default_value = "/etc/holdfast/agent.toml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the pages (also without a word).
    Serve,
    /// Looks once and ends with a Nagios exit code: 0 ok, 1 warning, 2 critical, 3 unknown.
    Check,
}

/// How a Nagios check that could not look ends.
const UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return not_understood(&error),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.context("the runtime did not start").and_then(|runtime| match arguments.command {
        Some(Command::Check) => runtime.block_on(check(&arguments.config)),
        Some(Command::Serve) | None => runtime.block_on(serve(&arguments.config)),
    });
    let failed = if matches!(arguments.command, Some(Command::Check)) { UNKNOWN } else { 1 };
    ended.unwrap_or_else(|error| {
        // A check's answer is its standard output, also when it could not look.
        if failed == UNKNOWN {
            say!("HOLDFAST UNKNOWN - {error:#}")
        } else {
            tell!("agent: {error:#}")
        }
        ExitCode::from(failed)
    })
}

/// A mistyped check has seen nothing: clap's own code, 2, would be read as critical.
fn not_understood(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    let usage = u8::try_from(error.exit_code()).unwrap_or(1);
    let is_check = std::env::args_os().any(|word| word == "check");
    ExitCode::from(if usage > 0 && is_check { UNKNOWN } else { usage })
}

async fn serve(config: &Path) -> anyhow::Result<ExitCode> {
    service::log::init("agent");
    let settings = Settings::load(config)?;
    let tls = match (&settings.tls_cert, &settings.tls_key) {
        (Some(cert), Some(key)) => Some(service::tls::server_config(cert, key, None)?),
        _ => None,
    };
    let listen = settings.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("{listen} cannot be listened on: choose another `listen` in {}", config.display()))?;
    let router = serve::router(serve::pages(settings).await?);
    service::spawn_watchdog();
    log::info!(address:% = listen; "ready");
    service::ready();
    service::http::serve(listener, tls, router, service::http::Limits::default(), service::shutdown()).await;
    service::stopping();
    log::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

async fn check(config: &Path) -> anyhow::Result<ExitCode> {
    let settings = Settings::load(config)?;
    let health = match check::of_running(&settings).await {
        Some(health) => health,
        None => {
            let collector = Arc::new(Mutex::new(Collector::new(Path::new("/"), settings.clone())));
            serve::look(&collector, &settings).await?
        }
    };
    say!("{}", check::line(&health, &settings));
    Ok(ExitCode::from(check::exit_code(health.verdict)))
}
