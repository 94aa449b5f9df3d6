//! What tests on real object stores share: one Ceph for a test program, and signed requests to prepare buckets with.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod proxy;

use anyhow::{Context, Result, ensure};
use backup_engine::StoreLocation;
use bytes::Bytes;
use holdfast_tests::servers::Server;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, ReqwestConnector};
use std::sync::OnceLock;

/// Two users of the gateway: who owns the buckets, and whose credentials the writer has.
pub const OWNER: (&str, &str) = ("OWNERKEY", "owner-secret-0123456789");
pub const WRITER: (&str, &str) = ("WRITERKEY", "writer-secret-0123456789");

/// The one Ceph of this test program; it ends with the program. `None`: it is not installed.
pub fn ceph(test: &str) -> Option<&'static str> {
    static CEPH: OnceLock<Option<Server>> = OnceLock::new();
    let users = ["owner", OWNER.0, OWNER.1, "writer", WRITER.0, WRITER.1];
    let server = CEPH.get_or_init(|| Server::script("ceph", &users).expect("Ceph starts"));
    if server.is_none() {
        holdfast_tests::skip(test, "Ceph is not installed");
    }
    server.as_ref().map(|server| server.url.as_str())
}

pub fn http() -> HttpClient {
    ReqwestConnector::default().connect(&ClientOptions::new().with_allow_http(true)).expect("an HTTP client")
}

/// Sends a request and returns what came back.
pub async fn send(
    mut request: http::request::Builder,
    body: Bytes,
    sign: impl FnOnce(&mut HttpRequest),
) -> Result<(StatusCode, Bytes)> {
    request = request.header(http::header::CONTENT_LENGTH, body.len());
    let mut request = request.body(body.into())?;
    sign(&mut request);
    let answer = http().execute(request).await?;
    let status = answer.status();
    Ok((status, answer.into_body().bytes().await?))
}

/// A signed S3 request to `url`, which must succeed.
pub async fn s3(key: (&str, &str), method: Method, url: &str, headers: &[(&str, &str)], body: &str) -> Result<Bytes> {
    let credential = AwsCredential { key_id: key.0.to_owned(), secret_key: key.1.to_owned(), token: None };
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_str(value)?);
    }
    let body = Bytes::copy_from_slice(body.as_bytes());
    let sign = |request: &mut HttpRequest| {
        AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(request, None).expect("it is signed");
    };
    let (status, answer) = send(request, body, sign).await?;
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&answer));
    Ok(answer)
}

/// A new bucket of the owner's on the gateway.
pub async fn bucket(url: &str, name: &str, headers: &[(&str, &str)]) -> Result<()> {
    s3(OWNER, Method::PUT, &format!("{url}/{name}"), headers, "").await.context("the bucket is made").map(|_| ())
}

pub fn s3_location(url: &str, bucket: &str, key: (&str, &str)) -> StoreLocation {
    StoreLocation::S3 {
        endpoint: Some(url.to_owned()),
        bucket: bucket.to_owned(),
        prefix: "holdfast".to_owned(),
        region: "us-east-1".to_owned(),
        access_key: key.0.to_owned(),
        secret_key: key.1.to_owned(),
        session_token: None,
        allow_http: true,
    }
}
