//! Several stores as one to read from: each object comes from the first that has it whole.

use super::{ListedObject, NamedStore, Store};
use crate::error::{Error, ErrorKind, Result};
use crate::survey::fetch;
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::ops::Range;

/// Reads from all, best first; writes nothing.
pub(crate) struct TogetherStore(Vec<NamedStore>);

impl TogetherStore {
    pub(crate) fn new(stores: &[NamedStore]) -> Self {
        Self(stores.to_vec())
    }
}

fn nowhere(name: &str) -> Error {
    Error::new(ErrorKind::NotFound, format!("no store holds {name}"))
}

impl Store for TogetherStore {
    fn put<'a>(&'a self, _name: &'a str, _bytes: Bytes) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(Error::new(ErrorKind::Misconfigured, "several stores together are only read from")) })
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let mut last = nowhere(name);
            for store in &self.0 {
                match fetch(store, name).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move {
            let mut last = nowhere(name);
            for store in &self.0 {
                match store.store.get_range(name, range.clone()).await {
                    Ok(bytes) => return Ok(bytes),
                    Err(error) => last = error,
                }
            }
            Err(last)
        })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        Box::pin(async move {
            let mut found = BTreeMap::new();
            for store in &self.0 {
                let listed = store.store.list(prefix).await?;
                found.extend(listed.into_iter().map(|object| (object.name, object.size)));
            }
            Ok(found.into_iter().map(|(name, size)| ListedObject::undated(name, size)).collect())
        })
    }
}
