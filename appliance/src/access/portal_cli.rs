//! `appliance portal ...`: accounts of the portal from the command line, for demonstrations, scripts and whoever is locked out.
//! Patients are invited from their chart.

use super::accounts::{self, AccountError};
use super::cli::{UserCommandError, file_error, new_private_file, read_password};
use super::{Actor, Program, portal};
use crate::audit::{Action, Event};
use crate::clock;
use crate::store::{Query, Store, StoreError, Tx, View};
use clap::Subcommand;
use service::auth::{Totp, hash_password};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum PortalCommand {
    /// Create a patient's account without asking anything, with an authenticator as second factor
    Create {
        /// Id of the patient; the first one of the records if left out
        #[arg(long)]
        patient: Option<String>,
        /// Mail address, with which the patient logs in
        #[arg(long)]
        mail: String,
        /// File whose first line is the password
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        /// New file (mode 0600) for the authenticator's secret, as JSON: name, totp_secret, otpauth_url
        #[arg(long, value_name = "FILE")]
        totp_out: PathBuf,
    },
    /// Let somebody log in again whom failed attempts, their own or somebody else's, keep out
    Unlock {
        /// Mail address, with which the person logs in
        mail: String,
    },
}

/// Carries out a command and writes what a person should know to `out`; `practice` names the account in authenticator apps.
///
/// # Errors
/// Each names what to do; nothing is changed then.
pub fn run(
    store: &Store,
    command: PortalCommand,
    practice: &str,
    out: &mut impl Write,
) -> Result<(), UserCommandError> {
    let (patient, mail, password_file, totp_out) = match command {
        PortalCommand::Create { patient, mail, password_file, totp_out } => (patient, mail, password_file, totp_out),
        PortalCommand::Unlock { mail } => {
            unlock(store, &mail)?;
            writeln!(out, "failed attempts at {} are forgotten; whoever makes them can go on", mail.trim())?;
            return Ok(());
        }
    };
    let password = read_password(&password_file)?;
    // The file first: an account whose secret nobody has could never log in.
    let mut file = new_private_file(&totp_out)?;
    let secret = match create(store, patient, &mail, &password) {
        Ok(secret) => secret,
        Err(error) => {
            drop(file);
            let _ = std::fs::remove_file(&totp_out);
            return Err(error.into());
        }
    };
    let url = Totp::otpauth_url(&secret, practice, &mail);
    let json = serde_json::json!({ "name": mail, "totp_secret": secret, "otpauth_url": url });
    writeln!(file, "{json}").and_then(|()| file.sync_all()).map_err(|e| file_error(&totp_out, &e))?;
    writeln!(out, "created {mail}")?;
    Ok(())
}

/// Forgets the failed attempts at an address.
pub fn unlock(store: &Store, mail: &str) -> Result<(), AccountError> {
    let mail = mail.to_owned();
    store.write_blocking(&Actor::program(Program::CommandLine), move |tx: &mut Tx<'_>| {
        let found = portal::credentials(tx.connection(), &mail)?.ok_or(AccountError::UnknownMail)?.account;
        portal::unlock(tx.connection(), &found)?;
        let patient = found.patient.as_deref().unwrap_or_default();
        tx.note(Event::new(Action::UserChange, "unlock", &found.id).of_patient(patient));
        Ok::<_, AccountError>(())
    })
}

/// The one who was asked for, or the first.
fn whom(store: &Store, patient: Option<String>) -> Result<String, AccountError> {
    let actor = Actor::program(Program::Probe);
    let read = move |view: &View<'_>| match patient {
        Some(id) => Ok(view.read("Patient", &id)?.id),
        None => {
            let first = view.search(&Query::all("Patient")?.first(1, "_id")?)?.resources.into_iter().next();
            first.map(|found| found.id).ok_or(StoreError::NotFound)
        }
    };
    store.view_blocking::<_, StoreError, _>(&actor, read).map_err(AccountError::Store)
}

fn create(store: &Store, patient: Option<String>, mail: &str, password: &str) -> Result<String, AccountError> {
    accounts::check_password_form(password)?;
    let patient = whom(store, patient)?;
    let id = clock::new_id().map_err(|error| StoreError::Io { context: "randomness", kind: error.kind() })?;
    let (secret, hash, mail) = (Totp::generate_secret(), hash_password(password), mail.to_owned());
    let stored = secret.clone();
    store.write_blocking(&Actor::program(Program::CommandLine), move |tx: &mut Tx<'_>| {
        let new = portal::NewAccount {
            id: &id,
            patient: &patient,
            mail: &mail,
            password_hash: &hash,
            totp_secret: Some(&stored),
            totp_step: None,
            birth: None,
        };
        portal::set_up(tx.connection(), &new, tx.now_ms() / 1000)?;
        tx.note(Event::new(Action::UserChange, "portal", "").of_patient(&patient));
        Ok::<_, AccountError>(())
    })?;
    Ok(secret)
}
