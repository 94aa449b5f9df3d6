//! Pages for what went wrong: each says what to do next, none says what is in a record.

use super::form::FormError;
use super::layout;
use crate::access::Denied;
use crate::access::accounts::AccountError;
use crate::store::StoreError;
use axum::response::{IntoResponse, Response};
use http::StatusCode;

#[derive(Debug, thiserror::Error)]
pub enum PageError {
    #[error("page not found")]
    NotFound,
    #[error("method not allowed")]
    Method,
    #[error("forbidden")]
    Forbidden,
    #[error("forged request")]
    Forged,
    #[error("the query string cannot be read")]
    Query,
    #[error("a program that is not registered, or an address that is not its own")]
    UnknownApp,
    #[error("the form belongs to another patient")]
    WrongPatient,
    #[error(transparent)]
    Form(#[from] FormError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Account(#[from] AccountError),
    #[error(transparent)]
    LookBack(#[from] crate::look_back::LookError),
    #[error("internal error: {0}")]
    Internal(&'static str),
}

impl From<Denied> for PageError {
    fn from(_: Denied) -> Self {
        Self::Forbidden
    }
}

impl PageError {
    /// Status, title and what to do.
    fn words(&self) -> (StatusCode, &'static str, String) {
        match self {
            Self::NotFound | Self::Store(StoreError::NotFound) => (
                StatusCode::NOT_FOUND,
                "Not found",
                "There is nothing at this address. It may have been moved or the link is incomplete.".into(),
            ),
            Self::Method => {
                (StatusCode::METHOD_NOT_ALLOWED, "Not possible", "This address does not answer such a request.".into())
            }
            Self::Forbidden | Self::Store(StoreError::Denied(_)) => (
                StatusCode::FORBIDDEN,
                "Your role does not permit this",
                "If you need it for your work, ask a practice administrator to change your role.".into(),
            ),
            Self::LookBack(error) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Records of then cannot be brought back now",
                format!("Nothing was changed: {error}. Who looks after the backup knows more."),
            ),
            Self::Forged => (
                StatusCode::FORBIDDEN,
                "This form is out of date",
                "The page was opened in another session, or the request came from elsewhere. Nothing was saved. Go back, \
                 reload the page and repeat."
                    .into(),
            ),
            Self::UnknownApp => (
                StatusCode::BAD_REQUEST,
                "This app is not known here",
                "The app, or the address to which it wants the answer, is not registered with this practice. Nothing was sent to it. \
                 A practice administrator registers apps under Users, Apps."
                    .into(),
            ),
            Self::WrongPatient => (
                StatusCode::CONFLICT,
                "This form belongs to another patient",
                "Nothing was saved. Open the patient's chart again and repeat the entry there.".into(),
            ),
            Self::Form(FormError::TooLarge) => {
                (StatusCode::PAYLOAD_TOO_LARGE, "Too large", format!("{}. Nothing was saved.", FormError::TooLarge))
            }
            Self::Form(error) => (StatusCode::BAD_REQUEST, "The form could not be read", format!("{error}.")),
            Self::Store(StoreError::VersionConflict { .. }) => (
                StatusCode::CONFLICT,
                "Somebody else changed this meanwhile",
                "Your change was not saved, so that theirs is not lost. Open the page again, look at the new state, and \
                 repeat your change if it is still needed."
                    .into(),
            ),
            Self::Store(StoreError::Repeated) => (
                StatusCode::CONFLICT,
                "This is saved already",
                "It was sent twice, as happens when a connection is lost, and was saved once. Nothing is missing.".into(),
            ),
            Self::Store(error @ StoreError::Taken) => {
                (StatusCode::CONFLICT, "This time is taken", format!("{error}. Nothing was saved."))
            }
            Self::Store(StoreError::Merged { .. }) | Self::Account(AccountError::Store(StoreError::Merged { .. })) => (
                StatusCode::CONFLICT,
                "This record was merged into another one",
                "Nothing was saved: nothing new is entered in a closed record. Enter it in the record that goes on. What you typed is \
                 still there when you go back."
                    .into(),
            ),
            Self::Store(error) if passes(error) => unavailable(error),
            // A login writes through the accounts, and meets a full disk like any other change.
            Self::Account(AccountError::Store(error)) if passes(error) => unavailable(error),
            Self::Account(AccountError::Database(error)) if passes(&StoreError::from(*error)) => {
                unavailable(&StoreError::from(*error))
            }
            Self::Account(AccountError::Database(
                error @ (crate::db::Error::ZeroCharacter | crate::db::Error::TooLong),
            )) => {
                (StatusCode::BAD_REQUEST, "This was not accepted", format!("{}.", StoreError::from(*error)))
            }
            Self::Query => (
                StatusCode::BAD_REQUEST,
                "This address is not complete",
                "What stands behind the question mark is not what this page expects. Open the page anew from the menu."
                    .into(),
            ),
            Self::Store(error @ StoreError::Invalid { .. }) => {
                (StatusCode::BAD_REQUEST, "This was not accepted", format!("{error}."))
            }
            Self::Account(AccountError::Store(_) | AccountError::Database(_)) | Self::Store(_) | Self::Internal(_) => (
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong",
                "The request was not carried out. Try again; if it happens again, tell your practice's IT.".into(),
            ),
            Self::Account(error) => (StatusCode::BAD_REQUEST, "This was not accepted", format!("{error}.")),
        }
    }
}

fn unavailable(error: &StoreError) -> (StatusCode, &'static str, String) {
    (StatusCode::SERVICE_UNAVAILABLE, "The records are not available right now", format!("{error}."))
}

/// Whether the same request may be answered later.
fn passes(error: &StoreError) -> bool {
    matches!(
        error,
        StoreError::Full
            | StoreError::Busy
            | StoreError::Audit
            | StoreError::Closed
            | StoreError::Unreachable
            | StoreError::Held
    )
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let (status, title, text) = self.words();
        if status.is_server_error() {
            log::error!(error:% = self; "web.request-failed");
        }
        let to = match &self {
            Self::Store(StoreError::Merged { goes_on })
            | Self::Account(AccountError::Store(StoreError::Merged { goes_on })) => {
                (format!("/patients/{goes_on}"), "Go to the record that goes on")
            }
            _ => ("/".to_owned(), "Go to the start page"),
        };
        (status, layout::message(title, &text, (&to.0, to.1))).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_and_a_server_that_is_away_are_named_wherever_they_are_met() {
        for error in [
            PageError::Store(StoreError::Full),
            PageError::Account(AccountError::Store(StoreError::Full)),
            PageError::Account(AccountError::Database(crate::db::Error::Full)),
        ] {
            let (status, _, text) = error.words();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{error}");
            assert!(text.contains("the disk is full"), "{text}");
        }
        for error in [
            PageError::Store(StoreError::Unreachable),
            PageError::Account(AccountError::Database(crate::db::Error::Unreachable)),
        ] {
            let (status, _, text) = error.words();
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{error}");
            assert!(text.contains("does not answer"), "{text}");
        }
        let other = PageError::Account(AccountError::Store(StoreError::Damaged("database")));
        assert_eq!(other.words().0, StatusCode::INTERNAL_SERVER_ERROR);
    }
}
