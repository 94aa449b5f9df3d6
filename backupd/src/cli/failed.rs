//! How a command fails: exit code, sentence, and what to do about it.

use super::EXIT_USAGE;
use super::render::Usage;
use super::stop::Stopped;
use crate::settings::SettingsError;
use backup_engine::ErrorKind;
use backupd_api::{ClientError, EndpointError, Event, Failure, FailureKind};
use std::process::ExitCode;

/// The failure that an error stands for, if a daemon or the engine told it.
pub fn failure(error: &anyhow::Error) -> Option<Failure> {
    error.chain().find_map(|cause| match cause.downcast_ref::<ClientError>() {
        Some(ClientError::Failed(failure)) => Some(failure.clone()),
        _ => cause
            .downcast_ref::<Failure>()
            .cloned()
            .or_else(|| cause.downcast_ref::<backup_engine::Error>().map(crate::failure::from_engine)),
    })
}

/// An error as the event `failed`.
pub fn json(error: &anyhow::Error) -> String {
    let kind = if error.is::<Stopped>() { FailureKind::Retry } else { FailureKind::Misconfigured };
    let failure = failure(error).unwrap_or_else(|| Failure { kind, message: sentence(error) });
    serde_json::to_string(&Event::Failed(failure)).unwrap_or_default()
}

/// The sentence and its remedy, for a person.
pub fn tell(error: &anyhow::Error) {
    tell!("backupd: {}", sentence(error));
    if let Some(remedy) = remedy(error) {
        tell!("backupd: {remedy}");
    }
}

/// The error and its causes; a cause that the words before it tell already is left out.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |said, cause| {
        let words = cause.to_string();
        match said.as_str() {
            "" => words,
            before if before.contains(&words) => said,
            _ => format!("{said}: {words}"),
        }
    })
}

/// What to do, where the sentence itself does not say it.
fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    let message = sentence(error);
    let kind =
        error.chain().find_map(|cause| cause.downcast_ref::<backup_engine::Error>()).map(|error| error.kind())?;
    Some(match kind {
        ErrorKind::NoSpace => {
            "free space there or choose another place: what is there already stays, and the same command goes on from it"
        }
        ErrorKind::Unreachable => {
            "check the network, the address (AWS_ENDPOINT_URL) and whether the store runs; then try again"
        }
        ErrorKind::Denied if message.contains("passphrase") => {
            "check BACKUPD_PASSPHRASE (capitals, a space at its end) or type it again; the paper key opens the repository too"
        }
        ErrorKind::Denied => "check the permissions of the folder, or the access key and its policy",
        ErrorKind::Damaged => {
            "`backupd verify --read-data` tells what is damaged; another store or copy may still hold it"
        }
        ErrorKind::Retry | ErrorKind::Busy => "try again; what is stored already is not sent again",
        ErrorKind::Fenced | ErrorKind::Misconfigured | ErrorKind::NotFound | ErrorKind::Stopped => return None,
    })
}

/// Usage and settings give 2, a signal its own code, everything else 1.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(stopped) = error.downcast_ref::<Stopped>() {
        return ExitCode::from(stopped.exit_code);
    }
    let wrong = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<SettingsError>() || cause.is::<EndpointError>() || cause.is::<Usage>()
    };
    let told = failure(error).map(|failure| failure.kind);
    let misconfigured =
        error.chain().any(wrong) || matches!(told, Some(FailureKind::Misconfigured | FailureKind::WrongDaemon));
    ExitCode::from(if misconfigured { EXIT_USAGE } else { 1 })
}
