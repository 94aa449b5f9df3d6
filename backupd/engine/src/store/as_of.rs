//! A store as it was at an instant: past overwrites and delete markers, as far as its versions go back.

use super::versions::VersionedStore;
use super::{ListedObject, Store};
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Reads the versions that were the newest at an instant. It takes nothing new: the past is over.
pub struct AsOfStore {
    versions: Arc<dyn VersionedStore>,
    /// Version and size of each object that was there.
    objects: BTreeMap<String, (String, u64)>,
}

impl AsOfStore {
    /// Lists every version once. The instant is judged by the store's own clock, which writes the versions' times.
    pub async fn open(versions: Arc<dyn VersionedStore>, at_unix_ms: i64) -> Result<Self> {
        let mut objects = BTreeMap::new();
        let mut decided = None;
        // The newest of a name comes first, so the first that is old enough decides.
        for version in versions.versions("").await? {
            if version.written_unix_ms > at_unix_ms || decided.as_ref() == Some(&version.name) {
                continue;
            }
            if !version.is_delete_marker {
                objects.insert(version.name.clone(), (version.id, version.size));
            }
            decided = Some(version.name);
        }
        Ok(Self { versions, objects })
    }

    fn version(&self, name: &str) -> Result<&str> {
        let version = self.objects.get(name).map(|(version, _)| version.as_str());
        version.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{name} was not there at that time")))
    }
}

impl Store for AsOfStore {
    fn put<'a>(&'a self, name: &'a str, _: Bytes) -> BoxFuture<'a, Result<()>> {
        let refused = format!("{name}: a store as of a time takes nothing new");
        Box::pin(std::future::ready(Err(Error::new(ErrorKind::Misconfigured, refused))))
    }

    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move { self.versions.get_version(name, self.version(name)?).await })
    }

    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>> {
        Box::pin(async move { self.versions.get_version_range(name, self.version(name)?, range).await })
    }

    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>> {
        let from = self.objects.range(prefix.to_owned()..);
        let under = from.take_while(|(name, _)| name.starts_with(prefix));
        let listed = under.map(|(name, (_, size))| ListedObject::undated(name.clone(), *size)).collect();
        Box::pin(std::future::ready(Ok(listed)))
    }
}
