//! S3 through `object_store`.

use super::{ListedObject, Store, StoreLimits, StoreLocation};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// An `object_store` under a prefix.
pub(super) struct ObjectStoreStore {
    inner: Arc<dyn ObjectStore>,
    prefix: String,
}

impl ObjectStoreStore {
    /// S3 with our own few retries outside and none inside, so that a dead store fails in seconds.
    pub(super) fn s3(location: &StoreLocation, limits: StoreLimits) -> Result<Self> {
        let StoreLocation::S3 { endpoint, bucket, prefix, region, access_key, secret_key, session_token, allow_http } =
            location
        else {
            return Err(Error::new(ErrorKind::Misconfigured, "not an S3 location"));
        };
        let client = ClientOptions::new()
            .with_connect_timeout(limits.connect)
            .with_timeout(limits.request)
            .with_allow_http(*allow_http);
        let retry =
            RetryConfig { max_retries: 0, retry_timeout: Duration::from_secs(1), backoff: BackoffConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_access_key_id(access_key)
            .with_secret_access_key(secret_key)
            .with_allow_http(*allow_http)
            .with_client_options(client)
            .with_retry(retry);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint).with_virtual_hosted_style_request(false);
        }
        if let Some(token) = session_token {
            builder = builder.with_token(token);
        }
        let inner = builder.build().map_err(|error| translate(error, "the S3 settings"))?;
        let prefix = prefix.trim_matches('/');
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { inner: Arc::new(inner), prefix })
    }

    fn path(&self, name: &str) -> Path {
        Path::from(format!("{}{name}", self.prefix))
    }
}

impl Store for ObjectStoreStore {
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let Err(error) = self.inner.put(&self.path(name), bytes.clone().into()).await else { return Ok(()) };
            let error = translate(error, name);
            // A key that may create but not overwrite is refused when an earlier attempt landed unseen.
            let refused = matches!(error.kind(), ErrorKind::Denied | ErrorKind::Fenced);
            if refused && self.get(name).await.is_ok_and(|there| there == bytes) { Ok(()) } else { Err(error) }
        })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let found = self.inner.get(&self.path(name)).await.map_err(|error| translate(error, name))?;
            found.bytes().await.map_err(|error| translate(error, name))
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let want = range.end.saturating_sub(range.start);
            let bytes = self.inner.get_range(&self.path(name), range).await.map_err(|error| translate(error, name))?;
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
            let under = self.path(prefix.trim_end_matches('/'));
            let mut found: Vec<ListedObject> = self
                .inner
                .list(Some(&under))
                .map(|meta| meta.map_err(|error| translate(error, what)))
                .try_filter_map(|meta| async move {
                    let full = meta.location.as_ref();
                    Ok(full
                        .strip_prefix(&self.prefix)
                        .map(|name| ListedObject { name: name.to_owned(), size: meta.size }))
                })
                .try_collect()
                .await?;
            found.sort();
            Ok(found)
        })
    }
}

fn translate(error: object_store::Error, what: &str) -> Error {
    use object_store::Error as E;
    let (kind, says) = match &error {
        E::NotFound { .. } => (ErrorKind::NotFound, "is not there"),
        E::PermissionDenied { .. } | E::Unauthenticated { .. } => {
            (ErrorKind::Denied, "is refused: check the access key and its policy")
        }
        E::AlreadyExists { .. } | E::Precondition { .. } => (ErrorKind::Fenced, "exists already"),
        E::NotSupported { .. }
        | E::NotImplemented { .. }
        | E::InvalidPath { .. }
        | E::UnknownConfigurationKey { .. } => (ErrorKind::Misconfigured, "is not possible with these settings"),
        _ if full(&error) => (ErrorKind::NoSpace, "does not fit: the store is full"),
        _ => (ErrorKind::Unreachable, "was not answered by the store"),
    };
    Error::new(kind, format!("{what} {says}")).because(error)
}

/// Whether a store's answer says that it is full (HTTP 507, or its error text).
fn full(error: &object_store::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(current) = cause {
        let text = current.to_string();
        if text.contains("507") || text.contains("No space left") || text.contains("QuotaExceeded") {
            return true;
        }
        cause = current.source();
    }
    false
}
