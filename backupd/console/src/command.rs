//! The command line: run the console, and keep its accounts.

use crate::accounts::{self, ISSUER};
use crate::alerts::deliver;
use crate::app::App;
use crate::clock::Clock;
use crate::db::Db;
use crate::poll;
use crate::roles::Role;
use crate::routes;
use crate::settings::Settings;
use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use service::auth::Totp;
use service::http::Limits;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The remote admin console of the backup: HTTPS, its own accounts, no key and no record.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    /// Settings.
    #[arg(long, global = true, value_name = "FILE", default_value = "/etc/holdfast/console.toml")]
    config: PathBuf,
    /// Without a command the console runs and serves its pages.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make, list, disable and unlock accounts (on this machine only; the console itself cannot).
    #[command(subcommand)]
    User(User),
}

#[derive(Debug, Subcommand)]
enum User {
    /// Print a one-time address, good for 24 hours, under which a person makes their own account.
    Invite {
        /// What the person may do.
        #[arg(long, value_enum)]
        role: Role,
    },
    /// Make an account without questions.
    Create {
        /// 2 to 32 lower-case letters, digits, dots, hyphens.
        #[arg(long)]
        name: String,
        /// What the person may do.
        #[arg(long, value_enum)]
        role: Role,
        /// A file whose first line is the password.
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// Where to write the one-time-code secret as JSON (made with mode 0600; must not exist).
        #[arg(long, value_name = "FILE")]
        totp_out: PathBuf,
    },
    /// Show all accounts.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Disable an account and end its sessions.
    Disable {
        #[arg(long)]
        name: String,
    },
    /// Let a person sign in again whom failed attempts, their own or somebody else's, keep out.
    Unlock {
        #[arg(long)]
        name: String,
    },
}

/// Runs the command; the error is what the person reads.
pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    service::tls::install_provider();
    let settings = Settings::load(&arguments.config)?;
    match arguments.command {
        None => {
            service::log::init("console");
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(serve(settings, &arguments.config))
        }
        Some(Command::User(user)) => keep(&settings, user),
    }
}

async fn serve(settings: Settings, file: &Path) -> anyhow::Result<()> {
    let tls = service::tls::server_config(&settings.tls_cert, &settings.tls_key, None)
        .with_context(|| format!("{}: tls_cert, tls_key", file.display()))?;
    let listen = settings.listen;
    let (app, senders) = App::new(settings, file, Clock::Real)?;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("{}: listen: {listen} cannot be used: choose a free port", file.display()))?;
    let address = listener.local_addr()?;
    poll::start(&app);
    for sender in senders {
        tokio::spawn(deliver::run(app.clone(), sender));
    }
    log::info!(address:% = address; "console.listening");
    service::ready();
    service::spawn_watchdog();
    let limits = Limits::default();
    service::http::serve(listener, Some(tls), routes::router(app), limits, async { service::shutdown().await }).await;
    service::stopping();
    Ok(())
}

fn keep(settings: &Settings, user: User) -> anyhow::Result<()> {
    let db = Db::open(&settings.data_dir)?;
    let now_ms = Clock::Real.now_ms();
    let mut out = std::io::stdout();
    match user {
        User::Invite { role } => {
            let token = accounts::invite(&db, now_ms, role)?;
            writeln!(out, "Open this address within 24 hours, once, as {}:", role.title())?;
            writeln!(out, "{}/invite/{token}", base_url(settings))?;
        }
        User::Create { name, role, password_file, totp_out } => {
            let text = std::fs::read_to_string(&password_file)
                .map(Zeroizing::new)
                .with_context(|| format!("--password-file {}: cannot be read", password_file.display()))?;
            let password = text.lines().next().unwrap_or_default();
            create(&db, now_ms, &name, role, password, &totp_out)?;
            writeln!(out, "Made the account {name} ({}).", role.title())?;
        }
        User::List { json } => list(&db, now_ms, json)?,
        User::Disable { name } => {
            accounts::disable(&db, now_ms, &name)?;
            writeln!(out, "Disabled {name}; its sessions have ended.")?;
        }
        User::Unlock { name } => {
            accounts::unlock(&db, now_ms, &name)?;
            writeln!(out, "Failed attempts at {name} are forgotten; whoever makes them can go on.")?;
        }
    }
    Ok(())
}

fn base_url(settings: &Settings) -> String {
    match &settings.public_url {
        Some(url) => url.as_str().trim_end_matches('/').to_owned(),
        None => format!("https://{}", settings.listen),
    }
}

/// What `--totp-out` receives.
#[derive(Serialize)]
struct Secret<'a> {
    name: &'a str,
    role: Role,
    totp_secret: &'a str,
    otpauth_url: &'a str,
}

/// The file is made before the account, so that no account exists whose secret nobody has.
fn create(db: &Db, now_ms: i64, name: &str, role: Role, password: &str, totp_out: &Path) -> anyhow::Result<()> {
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(totp_out)
        .with_context(|| format!("--totp-out {}: cannot be made (it must not exist yet)", totp_out.display()))?;
    let written = accounts::create(db, now_ms, name, role, password).map_err(anyhow::Error::from).and_then(|totp| {
        let totp = Zeroizing::new(totp);
        let url = Zeroizing::new(Totp::otpauth_url(&totp, ISSUER, name));
        serde_json::to_writer(&mut file, &Secret { name, role, totp_secret: &totp, otpauth_url: &url })?;
        Ok(file.sync_all()?)
    });
    if written.is_err() {
        let _ = std::fs::remove_file(totp_out);
    }
    written
}

fn list(db: &Db, now_ms: i64, json: bool) -> anyhow::Result<()> {
    let accounts = db.write_blocking(|tx| accounts::list(tx, now_ms))?;
    let mut out = std::io::stdout();
    let state = |account: &accounts::Account| match account {
        accounts::Account { disabled: true, .. } => "disabled",
        accounts::Account { besieged: true, .. } => "besieged",
        _ => "active",
    };
    if json {
        let rows: Vec<_> = accounts
            .iter()
            .map(|a| {
                let (name, role, state, created_unix_ms) = (&a.name, a.role, state(a), a.created_ms);
                serde_json::json!({ "name": name, "role": role, "state": state, "created_unix_ms": created_unix_ms })
            })
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&rows)?)?;
        return Ok(());
    }
    if accounts.is_empty() {
        bail!("there is no account yet: `console user invite --role owner` makes the first");
    }
    for account in &accounts {
        writeln!(out, "{:<32} {:<12} {}", account.name, account.role.word(), state(account))?;
    }
    Ok(())
}
