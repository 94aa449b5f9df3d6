//! `appliance user ...`: accounts from the command line of the machine, for the first user and for scripts.

use super::accounts::{self, Account, AccountError, NewAccount};
use super::{Actor, Program, Role, lockout};
use crate::audit::{Action, Event};
use crate::clock;
use crate::store::{Store, StoreError, Tx};
use clap::Subcommand;
use service::auth::{Totp, hash_password, random_token};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// A password file larger than this is something else.
const PASSWORD_FILE_BYTES_MAX: u64 = 4096;

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a one-time link with which somebody sets up an account
    Invite {
        /// front-desk, clinician or practice-admin
        #[arg(long)]
        role: Role,
    },
    /// Create a user without asking anything, for scripts
    Create {
        /// Login name
        #[arg(long)]
        name: String,
        /// Name that colleagues see; the login name if left out
        #[arg(long)]
        display: Option<String>,
        /// front-desk, clinician or practice-admin
        #[arg(long)]
        role: Role,
        /// Id of the Practitioner resource that this user is
        #[arg(long)]
        practitioner: Option<String>,
        /// File whose first line is the password
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// New file (mode 0600) for the authenticator's secret, as JSON: name, role, totp_secret, otpauth_url
        #[arg(long, value_name = "FILE")]
        totp_out: PathBuf,
    },
    /// Show all users
    List,
    /// End a user's access and sessions
    Disable {
        /// Login name
        name: String,
    },
    /// Give a disabled user access again
    Enable {
        /// Login name
        name: String,
    },
    /// Give a user another role; their sessions end
    Role {
        /// Login name
        name: String,
        /// front-desk, clinician or practice-admin
        role: Role,
    },
    /// Let a user log in again whom failed attempts, their own or somebody else's, keep out
    Unlock {
        /// Login name
        name: String,
    },
}

#[derive(Debug, thiserror::Error)]
pub enum UserCommandError {
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error("{path}: {what}")]
    File { path: String, what: String },
    #[error("the terminal cannot be written")]
    Terminal(#[from] std::io::Error),
}

impl From<StoreError> for UserCommandError {
    fn from(error: StoreError) -> Self {
        Self::Account(AccountError::Store(error))
    }
}

/// Carries out a command and writes what a person should know to `out`. `base_url` is where browsers reach the service
/// (`https://emr.example:8443`); `practice` names the account in authenticator apps.
///
/// # Errors
/// Each names what to do; nothing is changed then.
pub fn run(
    store: &Store,
    command: UserCommand,
    base_url: &str,
    practice: &str,
    out: &mut impl Write,
) -> Result<(), UserCommandError> {
    match command {
        UserCommand::Invite { role } => {
            let token = invite(store, role)?;
            writeln!(out, "{}/invite/{token}", base_url.trim_end_matches('/'))?;
            writeln!(
                out,
                "The link works once, for {} hours, while `appliance serve` runs.",
                accounts::INVITE_S / 3600
            )?;
        }
        UserCommand::Create { name, display, role, practitioner, password_file, totp_out } => {
            let password = read_password(&password_file)?;
            let display = display.unwrap_or_else(|| name.clone());
            // The file first: a user whose secret nobody has could never log in.
            let mut file = new_private_file(&totp_out)?;
            let created = create(store, &name, &display, role, practitioner.as_deref(), &password);
            let secret = match created {
                Ok(secret) => secret,
                Err(error) => {
                    drop(file);
                    let _ = std::fs::remove_file(&totp_out);
                    return Err(error.into());
                }
            };
            let url = Totp::otpauth_url(&secret, practice, &name);
            let json = serde_json::json!({
                "name": name, "role": role.as_str(), "totp_secret": secret.as_str(), "otpauth_url": url,
            });
            writeln!(file, "{json}").and_then(|()| file.sync_all()).map_err(|e| file_error(&totp_out, &e))?;
            writeln!(out, "created {name} ({role})")?;
        }
        UserCommand::List => {
            for account in list(store)? {
                let state = if account.disabled { "disabled" } else { "active" };
                writeln!(out, "{:<20} {:<15} {:<9} {}", account.name, account.role.as_str(), state, account.display)?;
            }
        }
        UserCommand::Disable { name } => {
            set_disabled(store, &name, true)?;
            writeln!(out, "disabled {name}; its sessions have ended")?;
        }
        UserCommand::Enable { name } => {
            set_disabled(store, &name, false)?;
            writeln!(out, "enabled {name}")?;
        }
        UserCommand::Role { name, role } => {
            let changed = set_role(store, &name, role)?;
            let sentence = if changed { "and has to log in again" } else { "already; nothing was changed" };
            writeln!(out, "{name} is {role} {sentence}")?;
        }
        UserCommand::Unlock { name } => {
            unlock(store, &name)?;
            writeln!(out, "failed attempts at {name} are forgotten; whoever makes them can go on")?;
        }
    }
    Ok(())
}

/// Makes an invitation and returns its token, which is stored only as a hash.
pub fn invite(store: &Store, role: Role) -> Result<String, AccountError> {
    let (token, secret, now) = (random_token(), Totp::generate_secret(), store.clock().unix_ms() / 1000);
    let stored = token.clone();
    store.write_blocking(&command_line(), move |tx: &mut Tx<'_>| {
        accounts::insert_invite(tx.connection(), &stored, role, &secret, now)?;
        tx.note(Event::new(Action::UserChange, "invite", role.as_str()));
        Ok::<_, AccountError>(())
    })?;
    Ok(token)
}

/// Creates a user with a known password and returns the new TOTP secret (base32).
pub fn create(
    store: &Store,
    name: &str,
    display: &str,
    role: Role,
    practitioner: Option<&str>,
    password: &str,
) -> Result<Zeroizing<String>, AccountError> {
    accounts::check_password_form(password)?;
    accounts::login_name(name)?;
    let secret = Zeroizing::new(Totp::generate_secret());
    let id = clock::new_id().map_err(|error| StoreError::Io { context: "randomness", kind: error.kind() })?;
    let (name, display, practitioner) = (name.to_owned(), display.to_owned(), practitioner.map(str::to_owned));
    let (hash, stored, now) = (hash_password(password), secret.clone(), store.clock().unix_ms() / 1000);
    store.write_blocking(&command_line(), move |tx: &mut Tx<'_>| {
        let new = NewAccount {
            id: &id,
            name: &name,
            display: &display,
            role,
            practitioner: practitioner.as_deref(),
            password_hash: &hash,
            totp_secret: &stored,
            totp_step: None,
        };
        accounts::insert(tx.connection(), &new, now)?;
        tx.note(Event::new(Action::UserChange, "user", &id));
        Ok::<_, AccountError>(())
    })?;
    Ok(secret)
}

pub fn list(store: &Store) -> Result<Vec<Account>, AccountError> {
    store.internal_blocking(accounts::list)
}

pub fn set_disabled(store: &Store, name: &str, disabled: bool) -> Result<(), AccountError> {
    let (name, now) = (name.to_owned(), store.clock().unix_ms() / 1000);
    store.write_blocking(&command_line(), move |tx: &mut Tx<'_>| {
        accounts::set_disabled(tx.connection(), &name, disabled, now)?;
        let id = accounts::credentials(tx.connection(), &name)?.map(|c| c.account.id).unwrap_or_default();
        tx.note(Event::new(Action::UserChange, "user", &id));
        Ok::<_, AccountError>(())
    })
}

/// Whether the role was another one before.
pub fn set_role(store: &Store, name: &str, role: Role) -> Result<bool, AccountError> {
    let (name, now) = (name.to_owned(), store.clock().unix_ms() / 1000);
    store.write_blocking(&command_line(), move |tx: &mut Tx<'_>| {
        let changed = accounts::set_role(tx.connection(), &name, role, now)?;
        if let Some(id) = &changed {
            tx.note(Event::new(Action::UserChange, "role", id));
        }
        Ok::<_, AccountError>(changed.is_some())
    })
}

pub fn unlock(store: &Store, name: &str) -> Result<(), AccountError> {
    let name = name.to_owned();
    store.write_blocking(&command_line(), move |tx: &mut Tx<'_>| {
        let found = accounts::credentials(tx.connection(), &name)?.ok_or(AccountError::UnknownUser)?;
        lockout::lift(tx.connection(), &found.account.name)?;
        tx.note(Event::new(Action::UserChange, "unlock", &found.account.id));
        Ok::<_, AccountError>(())
    })
}

fn command_line() -> Actor {
    Actor::program(Program::CommandLine)
}

pub(super) fn file_error(path: &Path, error: &std::io::Error) -> UserCommandError {
    UserCommandError::File { path: path.display().to_string(), what: error.to_string() }
}

pub(super) fn read_password(path: &Path) -> Result<Zeroizing<String>, UserCommandError> {
    let length = std::fs::metadata(path).map_err(|e| file_error(path, &e))?.len();
    if length > PASSWORD_FILE_BYTES_MAX {
        let what = "too large for a password file".to_owned();
        return Err(UserCommandError::File { path: path.display().to_string(), what });
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| file_error(path, &e))?);
    Ok(Zeroizing::new(text.lines().next().unwrap_or("").to_owned()))
}

pub(super) fn new_private_file(path: &Path) -> Result<std::fs::File, UserCommandError> {
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    opened.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => UserCommandError::File {
            path: path.display().to_string(),
            what: "exists already; name a new file, so that no other secret is overwritten".into(),
        },
        _ => file_error(path, &error),
    })
}
