//! `appliance app ...`: the programs that the practice registered. Those that act for a person are registered in the browser,
//! under Users, Apps.

use super::{Actor, Program, smart};
use crate::audit::{Action, Event};
use crate::clock;
use crate::store::{Store, StoreError, Tx};
use clap::Subcommand;
use std::io::Write;
use std::path::PathBuf;

/// A key set file larger than this is something else.
const JWKS_BYTES_MAX: u64 = 64 << 10;

#[derive(Debug, Subcommand)]
pub enum AppCommand {
    /// Register a program that gets its tokens with a key of its own (SMART Backend Services)
    Add {
        /// What people call it
        name: String,
        /// Its public keys: a JSON Web Key Set with RSA or P-384 keys
        #[arg(long, value_name = "FILE")]
        jwks: PathBuf,
        /// What it may do, such as `system/Patient.rs`; once for each
        #[arg(long, required = true)]
        scope: Vec<String>,
    },
    /// Show all programs
    List,
    /// End a program's access; its tokens are worth nothing from now on
    Disable {
        /// The id that `add` printed
        id: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum AppCommandError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{path}: cannot be read as a key set of at most 64 KiB ({kind})")]
    File { path: String, kind: std::io::ErrorKind },
    #[error("the terminal cannot be written")]
    Terminal(#[from] std::io::Error),
}

/// Carries out a command and writes what a person should know to `out`.
///
/// # Errors
/// Each names what to do; nothing is changed then.
pub fn run(store: &Store, command: AppCommand, out: &mut impl Write) -> Result<(), AppCommandError> {
    match command {
        AppCommand::Add { name, jwks, scope } => {
            let file = |kind| AppCommandError::File { path: jwks.display().to_string(), kind };
            let bytes = std::fs::metadata(&jwks).map_err(|error| file(error.kind()))?.len();
            if bytes > JWKS_BYTES_MAX {
                return Err(file(std::io::ErrorKind::FileTooLarge));
            }
            let keys = std::fs::read_to_string(&jwks).map_err(|error| file(error.kind()))?;
            let id = clock::new_id().map_err(StoreError::io("randomness"))?;
            let (own, scope) = (id.clone(), scope.join(" "));
            change(store, move |tx| {
                let new = smart::Registration::backend(&own, &name, &keys, &scope);
                smart::register(tx.connection(), &new, tx.now_ms())
            })?;
            writeln!(out, "client_id {id}")?;
        }
        AppCommand::List => {
            for app in store.internal_blocking(smart::list)? {
                let state = if app.disabled { "disabled" } else { "active" };
                let (kind, scopes) = (app.kind.as_str(), smart::scopes_text(&app.scopes));
                writeln!(out, "{} {state:<9} {kind:<10} {} ({scopes})", app.id, app.name)?;
            }
        }
        AppCommand::Disable { id } => {
            let own = id.clone();
            change(store, move |tx| smart::disable(tx.connection(), &own, tx.now_ms()))?;
            writeln!(out, "disabled {id}; its tokens have ended")?;
        }
    }
    Ok(())
}

fn change(
    store: &Store,
    job: impl FnOnce(&mut Tx<'_>) -> Result<(), StoreError> + Send + 'static,
) -> Result<(), StoreError> {
    store.write_blocking(&Actor::program(Program::CommandLine), move |tx: &mut Tx<'_>| {
        job(tx)?;
        tx.note(Event::new(Action::UserChange, "app", ""));
        Ok(())
    })
}
