//! S3, Azure Blob and Google Cloud Storage through `object_store`.

use super::moves::Listed;
use super::uplink;
use super::{
    AzureAccess, LISTED_MAX, ListedObject, MaintenanceStore, READ_BYTES_MAX, Store, StoreLimits, StoreLocation, address,
};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::azure::{AzureConfigKey, MicrosoftAzure, MicrosoftAzureBuilder};
use object_store::gcp::{GcpCredential, GoogleCloudStorage, GoogleCloudStorageBuilder};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig, StaticCredentialProvider};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// No object has this name.
const NEVER_WRITTEN: &str = "probe/never-written";

/// An `object_store` under a prefix.
pub(super) struct ObjectStoreStore {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
}

impl ObjectStoreStore {
    /// Opens it with our own few retries outside and none inside, so that a dead store fails in seconds.
    pub(super) fn open(location: &StoreLocation, limits: StoreLimits) -> Result<Self> {
        address::check(location)?;
        let (inner, prefix): (Arc<dyn ObjectStore>, &str) = match location {
            StoreLocation::S3 { prefix, .. } => (Arc::new(s3(location, limits)?), prefix),
            StoreLocation::Azure { prefix, .. } => (Arc::new(azure(location, limits)?), prefix),
            StoreLocation::Gcs { prefix, .. } => (Arc::new(gcs(location, limits)?), prefix),
            StoreLocation::Folder { .. } | StoreLocation::Removable { .. } => return Err(not_this("object store")),
        };
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { inner, prefix })
    }

    /// What answers everything alike, as a portal or a proxy between does, lists nothing and would pass for an empty store. A store
    /// has no object of a name that nobody ever writes.
    async fn is_a_store(&self) -> Result<()> {
        if self.inner.get(&self.path(NEVER_WRITTEN)?).await.is_err() {
            return Ok(());
        }
        let what = "what answers there is no object store: it has every object that it is asked for. Is a portal or a proxy between?";
        Err(Error::new(ErrorKind::Unreachable, what))
    }

    /// The name as it is: nothing in it is encoded once more.
    fn path(&self, name: &str) -> Result<Path> {
        Path::parse(format!("{}{name}", self.prefix))
            .map_err(|error| Error::new(ErrorKind::Misconfigured, "an object name is malformed").because(error))
    }
}

fn not_this(kind: &str) -> Error {
    Error::new(ErrorKind::Misconfigured, format!("not the place of an {kind}"))
}

pub(super) fn client_options(limits: StoreLimits, plain: bool) -> ClientOptions {
    // Where nothing is encrypted nobody's certificate is looked at: a machine that knows no authorities can ask all the same.
    ClientOptions::new()
        .with_connect_timeout(limits.connect)
        .with_timeout(limits.request * uplink::ALONE)
        .with_allow_http(plain)
        .with_no_system_certificates(plain)
}

/// Why a client could not be made. That a machine knows no authorities is said in the error's text alone.
pub(super) fn not_made(error: object_store::Error, what: &str) -> Error {
    if !format!("{error:?}").contains("No CA certificates") {
        return translate(error, what);
    }
    let remedy = "this machine knows no certificate authorities: install its package ca-certificates";
    Error::new(ErrorKind::Misconfigured, remedy).because(error)
}

fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(1), backoff: BackoffConfig::default() }
}

/// Whether an endpoint is asked without encryption, because the settings say so.
pub(super) fn is_http(endpoint: Option<&String>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

fn s3(location: &StoreLocation, limits: StoreLimits) -> Result<AmazonS3> {
    let StoreLocation::S3 { endpoint, bucket, region, access_key, secret_key, session_token, allow_http, .. } =
        location
    else {
        return Err(not_this("S3 bucket"));
    };
    let plain = *allow_http && is_http(endpoint.as_ref());
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region)
        .with_access_key_id(access_key)
        .with_secret_access_key(secret_key)
        .with_allow_http(plain)
        .with_client_options(client_options(limits, plain))
        .with_retry(no_retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
    }
    if let Some(token) = session_token {
        builder = builder.with_token(token);
    }
    builder.build().map_err(|error| not_made(error, "the S3 settings"))
}

fn azure(location: &StoreLocation, limits: StoreLimits) -> Result<MicrosoftAzure> {
    let StoreLocation::Azure { endpoint, account, container, access, .. } = location else {
        return Err(not_this("Azure container"));
    };
    let allow_http = is_http(endpoint.as_ref());
    let mut builder = MicrosoftAzureBuilder::new()
        .with_account(account)
        .with_container_name(container)
        .with_allow_http(allow_http)
        .with_client_options(client_options(limits, allow_http))
        .with_retry(no_retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    builder = match access {
        AzureAccess::AccountKey(key) => builder.with_access_key(key),
        AzureAccess::Signature(query) => builder.with_config(AzureConfigKey::SasKey, query),
    };
    builder.build().map_err(|error| not_made(error, "the Azure settings"))
}

fn gcs(location: &StoreLocation, limits: StoreLimits) -> Result<GoogleCloudStorage> {
    let StoreLocation::Gcs { endpoint, bucket, service_account, .. } = location else {
        return Err(not_this("Google Cloud Storage bucket"));
    };
    let allow_http = is_http(endpoint.as_ref());
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(bucket)
        .with_client_options(client_options(limits, allow_http))
        .with_retry(no_retries());
    if let Some(endpoint) = endpoint {
        builder = builder.with_base_url(endpoint);
    }
    builder = match service_account {
        Some(key) => builder.with_service_account_key(key),
        // Nothing of the machine's own surroundings may step in for credentials that were not given.
        None => builder
            .with_credentials(Arc::new(StaticCredentialProvider::new(GcpCredential { bearer: String::new() })))
            .with_skip_signature(true),
    };
    builder.build().map_err(|error| not_made(error, "the settings for Google Cloud Storage"))
}

impl Store for ObjectStoreStore {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Err(error) = self.inner.put(&self.path(name)?, bytes.clone().into()).await else { return Ok(()) };
            let error = translate(error, name);
            // A key that may create but not overwrite is refused when an earlier attempt landed unseen.
            let refused = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Fenced);
            if refused && self.get(name).await.is_ok_and(|there| there == bytes) { Ok(()) } else { Err(error) }
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let found = self.inner.get(&self.path(name)?).await.map_err(|error| translate(error, name))?;
            if found.meta.size > READ_BYTES_MAX {
                return Err(Error::new(ErrorKind::Damaged, format!("object {name} is larger than any object")));
            }
            found.bytes().await.map_err(|error| translate(error, name))
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let want = range.end.saturating_sub(range.start);
            let bytes = self.inner.get_range(&self.path(name)?, range).await.map_err(|error| translate(error, name))?;
            if bytes.len() as u64 == want {
                Ok(bytes)
            } else {
                Err(Error::new(ErrorKind::Damaged, format!("object {name} is shorter than its index says")))
            }
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(async move {
            let what = if prefix.is_empty() { "the listing" } else { prefix };
            let under = self.path(prefix.trim_end_matches('/'))?;
            let mut listing = self.inner.list(Some(&under));
            let (mut found, mut shown, listed) = (Vec::new(), 0, Listed::current());
            while let Some(meta) = listing.next().await {
                let meta = meta.map_err(|error| translate(error, what))?;
                listed.add(1);
                // What is none of ours takes time as well.
                shown += 1;
                if shown > LISTED_MAX {
                    return Err(Error::new(ErrorKind::Damaged, "the store lists more objects than there can be"));
                }
                found.extend(meta.location.as_ref().strip_prefix(&self.prefix).map(|name| ListedObject {
                    name: name.to_owned(),
                    size: meta.size,
                    modified_unix_ms: Some(meta.last_modified.timestamp_millis()),
                }));
            }
            if found.is_empty() {
                self.is_a_store().await?;
            }
            found.sort();
            Ok(found)
        })
    }
}

impl MaintenanceStore for ObjectStoreStore {
    fn replace<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        // A bucket with versions keeps the damaged one beside it.
        self.put(name, bytes)
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            match self.inner.delete(&self.path(name)?).await {
                Err(object_store::Error::NotFound { .. }) => Ok(()),
                deleted => deleted.map_err(|error| translate(error, name)),
            }
        })
    }
}

fn translate(error: object_store::Error, what: &str) -> Error {
    use object_store::Error as E;
    const NOT_LET_IN: &str = "is refused: check the access key and its policy";
    let (kind, what_is) = match &error {
        // Not one object is missing, and none is known to be.
        _ if says(&error, &NO_BUCKET) => {
            (ErrorKind::Unreachable, "cannot be asked for: the store has no such bucket or container: check its name")
        }
        E::NotFound { .. } => (ErrorKind::NotFound, "is not there"),
        _ if says(&error, &EXPIRED) => (ErrorKind::Denied, "is refused: the credentials have expired"),
        _ if says(&error, &ARCHIVED) => (
            ErrorKind::Denied,
            "was moved to an archive tier, from where nothing is read at once: take out the lifecycle rule",
        ),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => (ErrorKind::Denied, NOT_LET_IN),
        E::AlreadyExists { .. } | E::Precondition { .. } => (ErrorKind::Fenced, "exists already"),
        E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => (ErrorKind::Misconfigured, "is not possible with these settings"),
        _ if says(&error, &TOO_LONG) => {
            (ErrorKind::Misconfigured, "has a longer name than this store keeps: use a shorter prefix, or none")
        }
        _ if says(&error, &SHORTER) => (ErrorKind::Damaged, "is shorter than its index says"),
        _ if says(&error, &FULL) => (ErrorKind::NoSpace, "does not fit: the store is full"),
        _ if says(&error, &BUSY) => (ErrorKind::Busy, "has to wait: the store asks to slow down"),
        _ if says(&error, &REFUSED) => (ErrorKind::Denied, NOT_LET_IN),
        _ => (ErrorKind::Unreachable, "was not answered by the store"),
    };
    Error::new(kind, format!("{what} {what_is}")).because(error)
}

/// What a store says when it is full, and when the credentials are not good for the request. Names are hexadecimal, so
/// a bare number would be found in them too.
const FULL: [&str; 3] = ["status code: 507", "No space left", "QuotaExceeded"];
const REFUSED: [&str; 5] =
    ["status code: 401", "status code: 403", "SignatureDoesNotMatch", "InvalidAccessKeyId", "AccessDenied"];

const TOO_LONG: [&str; 1] = ["KeyTooLong"];

/// A range was asked for that the object does not have.
const SHORTER: [&str; 4] = [
    "status code: 416",
    "Wanted range starting at",
    "Requested ",
    "Received non-partial response when range requested",
];

const ARCHIVED: [&str; 2] = ["InvalidObjectState", "BlobArchived"];
/// As S3, Azure and Google say it.
const NO_BUCKET: [&str; 3] = ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist"];
const EXPIRED: [&str; 2] = ["ExpiredToken", "RequestExpired"];
const BUSY: [&str; 4] = ["status code: 429", "status code: 503", "SlowDown", "ServerBusy"];

/// Whether an error, or one of its causes, says one of these words.
fn says(error: &object_store::Error, words: &[&str]) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        let text = current.to_string();
        if words.iter().any(|word| text.contains(word)) {
            return true;
        }
        cause = current.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// A server that answers everything with the same page.
    fn portal() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let page = "<html><body>Welcome</body></html>";
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nETag: \"x\"\r\nLast-Modified: Thu, 26 Nov 2026 10:00:00 GMT\r\nConnection: close\r\n\
                     Content-Length: {}\r\n\r\n{page}",
                    page.len()
                );
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        address
    }

    #[tokio::test]
    async fn a_portal_between_is_no_empty_store() {
        let location = StoreLocation::S3 {
            endpoint: Some(portal()),
            bucket: "practice".to_owned(),
            prefix: "emr".to_owned(),
            region: "us-east-1".to_owned(),
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
            session_token: None,
            allow_http: true,
        };
        let store = ObjectStoreStore::open(&location, StoreLimits::default()).unwrap();
        let error = store.list("heads/").await.unwrap_err();
        assert!(error.kind() == ErrorKind::Unreachable && error.to_string().contains("no object store"), "{error}");
    }
}
