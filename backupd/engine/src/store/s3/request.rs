//! One signed request and its answer.

use super::super::retry::{Backoff, Jitter, attempts};
use super::super::{StoreLimits, StoreLocation, address, object, seed};
use super::xml;
use crate::error::{Error, ErrorKind, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, ReqwestConnector};
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// A bucket that can be asked.
pub(super) struct Client {
    http: HttpClient,
    credential: AwsCredential,
    /// Scheme, host and, where it stands in the path, the bucket.
    base: String,
    region: String,
    backoff: Backoff,
    jitter: Jitter,
}

/// What is asked. Nothing of it is sent unless it is signed.
pub(super) struct Question<'a> {
    method: Method,
    /// `None`: about the bucket.
    key: Option<String>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: Bytes,
    /// For error messages.
    what: &'a str,
}

/// What came back, when it is a success.
pub(super) struct Answer {
    pub(super) body: Bytes,
}

impl<'a> Question<'a> {
    pub(super) fn new(method: Method, key: Option<String>, what: &'a str) -> Self {
        Self { method, key, query: Vec::new(), headers: Vec::new(), body: Bytes::new(), what }
    }

    pub(super) fn query(mut self, name: &'static str, value: &str) -> Self {
        self.query.push((name, value.to_owned()));
        self
    }

    pub(super) fn version(self, version: Option<&str>) -> Self {
        match version {
            Some(version) => self.query("versionId", version),
            None => self,
        }
    }

    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: Bytes) -> Self {
        self.body = body;
        self
    }
}

/// Keeps what S3 leaves as it is, and in a key also the slash.
fn encoded(text: &str, is_key: bool) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        let plain = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || (is_key && byte == b'/');
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

impl Client {
    pub(super) fn new(location: &StoreLocation, limits: StoreLimits) -> Result<Self> {
        address::check(location)?;
        let StoreLocation::S3 { endpoint, bucket, region, access_key, secret_key, session_token, allow_http, .. } =
            location
        else {
            return Err(Error::new(ErrorKind::Misconfigured, "not the place of an S3 bucket"));
        };
        let http = ReqwestConnector::default()
            .connect(&object::client_options(limits, *allow_http && object::is_http(endpoint.as_ref())))
            .map_err(|error| object::not_made(error, "the S3 settings"))?;
        let base = match endpoint {
            Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
        };
        let credential =
            AwsCredential { key_id: access_key.clone(), secret_key: secret_key.clone(), token: session_token.clone() };
        let (backoff, jitter) = (Backoff::of(limits.attempts), Jitter::seeded(seed()));
        Ok(Self { http, credential, base, region: region.clone(), backoff, jitter })
    }

    /// Asks, a few times where that may help: every question here may be asked twice.
    pub(super) async fn ask(&self, question: Question<'_>, bytes_max: usize) -> Result<Answer> {
        attempts(self.backoff, &self.jitter, || self.ask_once(&question, bytes_max)).await
    }

    fn signed(&self, question: &Question<'_>) -> Option<HttpRequest> {
        let mut url = self.base.clone();
        url.push('/');
        url.push_str(&encoded(question.key.as_deref().unwrap_or_default(), true));
        for (at, (name, value)) in question.query.iter().enumerate() {
            let _ = write!(url, "{}{name}={}", if at == 0 { '?' } else { '&' }, encoded(value, false));
        }
        let mut request = http::Request::builder().method(question.method.clone()).uri(url);
        for (name, value) in &question.headers {
            request = request.header(HeaderName::from_static(name), HeaderValue::from_str(value).ok()?);
        }
        let digest = Sha256::digest(&question.body);
        if question.method == Method::PUT {
            // A store takes locks and holds only with a checksum of what says so.
            request = request
                .header("x-amz-checksum-sha256", STANDARD.encode(digest))
                .header(http::header::CONTENT_LENGTH, question.body.len());
        }
        let mut request = request.body(question.body.clone().into()).ok()?;
        AwsAuthorizer::new(&self.credential, "s3", &self.region).try_authorize(&mut request, Some(&digest)).ok()?;
        Some(request)
    }

    async fn ask_once(&self, question: &Question<'_>, bytes_max: usize) -> Result<Answer> {
        let what = question.what;
        let request = self
            .signed(question)
            .ok_or_else(|| Error::new(ErrorKind::Misconfigured, format!("{what}: its request cannot be signed")))?;
        let answer = self.http.execute(request).await.map_err(|error| {
            Error::new(ErrorKind::Unreachable, format!("{what} was not answered by the store")).because(error)
        })?;
        let status = answer.status();
        let mut stream = answer.into_body().bytes_stream();
        let mut body = BytesMut::new();
        while let Some(part) = stream.next().await {
            let cut = |error| {
                let message = format!("{what}: the answer was cut off");
                Error::new(ErrorKind::Unreachable, message).because(error)
            };
            body.extend_from_slice(&part.map_err(cut)?);
            if body.len() > bytes_max {
                return Err(Error::new(ErrorKind::Damaged, format!("{what}: the answer is larger than it can be")));
            }
        }
        let body = body.freeze();
        if status.is_success() { Ok(Answer { body }) } else { Err(refusal(what, status, &body)) }
    }
}

/// A refusal keeps the store's own code for it.
#[derive(Debug, thiserror::Error)]
#[error("{status} {code}")]
struct Refusal {
    status: StatusCode,
    code: String,
}

/// The store's code for why it refused.
pub(super) fn code(error: &Error) -> Option<&str> {
    let refusal = std::error::Error::source(error)?.downcast_ref::<Refusal>()?;
    Some(&refusal.code)
}

fn refusal(what: &str, status: StatusCode, body: &[u8]) -> Error {
    let code = xml::error_code(body).unwrap_or_default();
    let (kind, says) = match (status.as_u16(), code.as_str()) {
        (_, "ExpiredToken" | "RequestExpired") => (ErrorKind::Denied, "is refused: the credentials have expired"),
        (_, "RequestTimeTooSkewed") => (ErrorKind::Denied, "is refused: this machine's clock is wrong"),
        (_, "NoSuchObjectLockConfiguration") => (ErrorKind::NotFound, "has no lock"),
        (429 | 503, _) | (_, "SlowDown" | "Throttling" | "TooManyRequests") => {
            (ErrorKind::Busy, "has to wait: the store asks to slow down")
        }
        (401 | 403, _) => (ErrorKind::Denied, "is refused: a lock, the access key or its policy forbids it"),
        (404, _) => (ErrorKind::NotFound, "is not there"),
        (409 | 412, _) => (ErrorKind::Fenced, "exists already, or is in another state"),
        (507, _) | (_, "QuotaExceeded") => (ErrorKind::NoSpace, "does not fit: the store is full"),
        (500..=599, _) if status != StatusCode::NOT_IMPLEMENTED => {
            (ErrorKind::Unreachable, "was not answered by the store")
        }
        _ => (ErrorKind::Misconfigured, "is not possible at this store"),
    };
    Error::new(kind, format!("{what} {says}")).because(Refusal { status, code })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_queries_are_encoded_as_s3_signs_them() {
        assert_eq!(encoded("packs/a b+c%ü~.-_", true), "packs/a%20b%2Bc%25%C3%BC~.-_");
        assert_eq!(encoded("packs/a", false), "packs%2Fa");
    }

    #[test]
    fn a_refusal_says_what_to_do_next_and_keeps_the_stores_code() {
        let said = |status: u16, code: &str| {
            let body = format!("<Error><Code>{code}</Code></Error>");
            let error = refusal("packs/aa", StatusCode::from_u16(status).unwrap(), body.as_bytes());
            assert_eq!(super::code(&error), Some(code));
            error.kind()
        };
        assert_eq!(said(403, "AccessDenied"), ErrorKind::Denied);
        assert_eq!(said(400, "ExpiredToken"), ErrorKind::Denied);
        assert_eq!(said(404, "NoSuchVersion"), ErrorKind::NotFound);
        assert_eq!(said(503, "SlowDown"), ErrorKind::Busy);
        assert_eq!(said(429, "TooManyRequests"), ErrorKind::Busy);
        assert_eq!(said(500, "InternalError"), ErrorKind::Unreachable);
        assert_eq!(said(501, "NotImplemented"), ErrorKind::Misconfigured);
        assert_eq!(said(400, "InvalidRequest"), ErrorKind::Misconfigured);
        assert_eq!(said(507, "InsufficientStorage"), ErrorKind::NoSpace);
        let no_xml = refusal("packs/aa", StatusCode::BAD_GATEWAY, b"\xff<html>");
        assert_eq!((no_xml.kind(), super::code(&no_xml)), (ErrorKind::Unreachable, Some("")));
    }
}
