//! Errors on the wire: every refusal is an `OperationOutcome`.

use super::http::MEDIA_TYPE;
use crate::access::Denied;
use crate::store::StoreError;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refusal with its HTTP status.
#[derive(Debug)]
pub struct Outcome {
    status: StatusCode,
    code: &'static str,
    diagnostics: String,
    expression: Option<String>,
}

impl Outcome {
    pub fn new(status: StatusCode, code: &'static str, diagnostics: impl Into<String>) -> Outcome {
        Outcome { status, code, diagnostics: diagnostics.into(), expression: None }
    }

    pub fn too_large() -> Outcome {
        Outcome::new(StatusCode::PAYLOAD_TOO_LARGE, "too-long", "the body is too large, or it was cut off")
    }

    fn json(&self) -> Value {
        let mut issue = json!({ "severity": "error", "code": self.code, "diagnostics": self.diagnostics });
        if let (Some(path), Some(issue)) = (&self.expression, issue.as_object_mut()) {
            issue.insert("expression".into(), json!([path]));
        }
        json!({ "resourceType": "OperationOutcome", "issue": [issue] })
    }
}

impl From<StoreError> for Outcome {
    fn from(error: StoreError) -> Outcome {
        let (status, code) = match &error {
            StoreError::Denied(Denied::NotLoggedIn) => (StatusCode::UNAUTHORIZED, "login"),
            StoreError::Denied(Denied::NotPermitted | Denied::Withheld) => (StatusCode::FORBIDDEN, "forbidden"),
            StoreError::NotFound => (StatusCode::NOT_FOUND, "not-found"),
            StoreError::Gone { .. } => (StatusCode::GONE, "deleted"),
            StoreError::Referred => (StatusCode::CONFLICT, "conflict"),
            StoreError::Several => (StatusCode::PRECONDITION_FAILED, "multiple-matches"),
            StoreError::VersionConflict { .. } => (StatusCode::PRECONDITION_FAILED, "conflict"),
            StoreError::Taken | StoreError::Repeated => (StatusCode::CONFLICT, "conflict"),
            StoreError::Merged { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "business-rule"),
            StoreError::VersionRequired => (StatusCode::BAD_REQUEST, "required"),
            StoreError::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid"),
            StoreError::Full => (StatusCode::INSUFFICIENT_STORAGE, "no-store"),
            StoreError::Busy | StoreError::InUse | StoreError::Held => (StatusCode::SERVICE_UNAVAILABLE, "lock-error"),
            StoreError::Closed | StoreError::Audit | StoreError::Unreachable => {
                (StatusCode::SERVICE_UNAVAILABLE, "transient")
            }
            StoreError::Newer { .. }
            | StoreError::Older { .. }
            | StoreError::Damaged(_)
            | StoreError::Lost
            | StoreError::NoDatabase
            | StoreError::NotItsFolder
            | StoreError::TwoDatabases
            | StoreError::Server(_)
            | StoreError::Io { .. }
            | StoreError::Database(_) => (StatusCode::INTERNAL_SERVER_ERROR, "exception"),
        };
        let expression = match &error {
            StoreError::Invalid { what } if !what.path.is_empty() => Some(what.path.clone()),
            _ => None,
        };
        if status.is_server_error() {
            log::error!(error = error.to_string().as_str(); "fhir.failed");
        }
        let diagnostics = match &error {
            StoreError::Merged { goes_on } => format!("{error}: Patient/{goes_on}"),
            error => error.to_string(),
        };
        Outcome { status, code, diagnostics, expression }
    }
}

impl IntoResponse for Outcome {
    fn into_response(self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE)),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        ];
        (self.status, headers, self.json().to_string()).into_response()
    }
}
