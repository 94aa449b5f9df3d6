//! The engine's errors as the messages tell them.

use backup_engine::ErrorKind;
use backupd_api::{Failure, FailureKind};

/// A failure of the messages from an error of the engine (whose texts hold no record content).
pub fn from_engine(error: &backup_engine::Error) -> Failure {
    Failure { kind: kind(error.kind()), message: error.to_string() }
}

fn kind(kind: ErrorKind) -> FailureKind {
    match kind {
        ErrorKind::Retry | ErrorKind::Unreachable | ErrorKind::Busy | ErrorKind::Stopped => FailureKind::Retry,
        ErrorKind::Fenced => FailureKind::Busy,
        ErrorKind::Damaged => FailureKind::Damaged,
        ErrorKind::Misconfigured => FailureKind::Misconfigured,
        ErrorKind::Denied => FailureKind::Denied,
        ErrorKind::NotFound => FailureKind::NotFound,
        ErrorKind::NoSpace => FailureKind::NoSpace,
    }
}

pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
    Failure { kind, message: message.into() }
}
