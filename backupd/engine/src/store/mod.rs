//! Stores: flat names to bytes. Decorators are named by what they add.

pub mod address;
mod as_of;
mod direct;
mod fault;
mod folder;
mod limit;
mod locking;
mod maintain;
pub(crate) mod moves;
mod object;
mod pace;
mod probe;
mod removable;
mod renew;
mod retry;
pub mod s3;
mod together;
mod uplink;
pub mod versions;

pub use as_of::AsOfStore;
pub use fault::{Fault, FaultStore};
pub use limit::LimitStore;
pub use locking::{LockRule, LockingStore};
pub use maintain::{MaintenanceStore, NamedMaintenanceStore};
pub use pace::PaceStore;
pub use probe::Protection;
pub use removable::mark_removable;
pub use renew::RenewStore;
pub use retry::RetryStore;
pub(crate) use together::TogetherStore;

use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::spool::Spool;
use bytes::Bytes;
use futures::future::BoxFuture;
use rand_core::Rng;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use versions::VersionedStore;

/// One object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedObject {
    pub name: String,
    pub size: u64,
    /// When the store took it, by the store's own clock; `None`: it does not tell.
    pub modified_unix_ms: Option<i64>,
}

impl ListedObject {
    /// Without a date.
    #[must_use]
    pub fn undated(name: impl Into<String>, size: u64) -> Self {
        Self { name: name.into(), size, modified_unix_ms: None }
    }
}

/// A store. Names are slash-separated opaque ids; an object, once written, never changes.
pub trait Store: Send + Sync {
    /// Writes an object durably: when this returns `Ok`, the object survives a power cut of the store.
    /// Writing a name that exists already with the same bytes succeeds.
    fn put<'a>(&'a self, name: &'a str, bytes: Bytes) -> BoxFuture<'a, Result<()>>;
    /// The whole object. A name that is not there is `ErrorKind::NotFound`.
    fn get<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Bytes>>;
    /// Bytes `range` of the object; a shorter answer is an error.
    fn get_range<'a>(&'a self, name: &'a str, range: Range<u64>) -> BoxFuture<'a, Result<Bytes>>;
    /// Every object whose name begins with `prefix` (`""` or a folder ending with `/`), in name order.
    fn list<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Vec<ListedObject>>>;
}

/// A store with the name that the operator gave it.
#[derive(Clone)]
pub struct NamedStore {
    pub name: String,
    pub store: Arc<dyn Store>,
    /// Whether it counts for the quorum. A folder that the writer owns does not.
    pub counts_for_quorum: bool,
    /// What may be lost as one, e.g. a site of a provider; stores of one domain count as one for the quorum. None: the store is
    /// apart from all others.
    pub(crate) domain: Option<String>,
    /// The writer's spool, which holds only what is new, if it is that.
    pub(crate) spool: Option<Spool>,
}

impl NamedStore {
    #[must_use]
    pub fn new(name: impl Into<String>, store: Arc<dyn Store>, counts_for_quorum: bool) -> Self {
        Self { name: name.into(), store, counts_for_quorum, domain: None, spool: None }
    }

    /// The same store in a failure domain.
    #[must_use]
    pub fn in_domain(self, domain: String) -> Self {
        Self { domain: Some(domain), ..self }
    }

    /// The domain in which it counts for the quorum, if it does.
    pub(crate) fn counts_in(&self) -> Option<&str> {
        self.counts_for_quorum.then_some(self.domain.as_deref().unwrap_or(&self.name))
    }

    pub(crate) fn is_spool(&self) -> bool {
        self.spool.is_some()
    }
}

/// How many failure domains count for the quorum among these stores.
pub(crate) fn domains<'a>(stores: impl Iterator<Item = &'a NamedStore>) -> usize {
    stores.filter_map(NamedStore::counts_in).collect::<BTreeSet<&str>>().len()
}

/// Where a store is, and what opens it.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreLocation {
    Folder {
        path: PathBuf,
    },
    /// A folder on a disk or share that comes and goes. It is there when the marker in it carries this name.
    Removable {
        path: PathBuf,
        name: String,
    },
    S3 {
        endpoint: Option<String>,
        bucket: String,
        prefix: String,
        region: String,
        access_key: String,
        secret_key: String,
        session_token: Option<String>,
        allow_http: bool,
    },
    /// Azure Blob.
    Azure {
        /// `None`: the account's own endpoint.
        endpoint: Option<String>,
        account: String,
        container: String,
        prefix: String,
        access: AzureAccess,
    },
    /// Google Cloud Storage.
    Gcs {
        endpoint: Option<String>,
        bucket: String,
        prefix: String,
        /// The JSON key of a service account; `None` asks without credentials.
        service_account: Option<String>,
    },
}

/// What lets in to an Azure container.
#[derive(Clone, PartialEq, Eq)]
pub enum AzureAccess {
    /// The storage account's key, base64: it may do everything.
    AccountKey(String),
    /// A shared access signature, as the query of an address: it may do what it was made for.
    Signature(String),
}

/// No object is larger: what claims to be is damaged, and is not read into memory. A sealed plan is a little longer than
/// the largest pack.
pub(crate) const READ_BYTES_MAX: u64 = (backup_format::sealed::OBJECT_BYTES_MAX as u64) + (1 << 20);

/// A store that does not list within this time counts as unreachable; what it has listed meanwhile earns it more.
pub(crate) const LISTING_LIMIT: Duration = Duration::from_secs(20);

/// A store that lists more objects makes them up: even 16 TB are a million packs.
pub(crate) const LISTED_MAX: usize = 2 << 20;

/// How long a store may take before it counts as unreachable.
#[derive(Debug, Clone, Copy)]
pub struct StoreLimits {
    pub connect: Duration,
    /// One request from first to last byte; an upload that has a slow line for itself may take longer.
    pub request: Duration,
    /// Attempts of one operation, the first included.
    pub attempts: u32,
    /// Operations under way at once.
    pub concurrency: usize,
    /// Uploads use no more than this on average; downloads are never held back, because a restore is in a hurry.
    pub upload_bytes_per_s: Option<u64>,
    /// How each new object is locked; `None`: as the bucket does it by itself, or not at all.
    pub lock: Option<LockRule>,
}

impl Default for StoreLimits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            request: Duration::from_secs(60),
            attempts: 3,
            concurrency: 8,
            upload_bytes_per_s: None,
            lock: None,
        }
    }
}

impl StoreLocation {
    /// The store with limits and retries around it. Opening does no network request.
    pub fn open(&self) -> Result<Arc<dyn Store>> {
        self.open_with(StoreLimits::default())
    }

    pub fn open_with(&self, limits: StoreLimits) -> Result<Arc<dyn Store>> {
        let bare: Arc<dyn Store> = self.bare(limits)?;
        Ok(around(bare, limits, self.is_remote()))
    }

    pub(super) fn is_remote(&self) -> bool {
        matches!(self, Self::S3 { .. } | Self::Azure { .. } | Self::Gcs { .. })
    }

    /// The store alone. It can do all that maintenance may; what a caller holds of it decides what it can do.
    fn bare(&self, limits: StoreLimits) -> Result<Arc<dyn MaintenanceStore>> {
        let bare: Arc<dyn MaintenanceStore> = match self {
            Self::Folder { path } => Arc::new(folder::FolderStore::new(path.clone())),
            Self::Removable { path, name } => Arc::new(folder::FolderStore::removable(path.clone(), name)),
            Self::S3 { .. } | Self::Azure { .. } | Self::Gcs { .. } => {
                Arc::new(object::ObjectStoreStore::open(self, limits)?)
            }
        };
        match (limits.lock, self.open_versions(limits)?) {
            (None, _) => Ok(bare),
            (Some(rule), Some(versions)) => Ok(Arc::new(locking::LockingStore::new(bare, versions, rule, Env::real()))),
            (Some(_), None) => {
                let message = "only S3 stores lock objects: leave out the lock, or set it at the provider";
                Err(Error::new(ErrorKind::Misconfigured, message))
            }
        }
    }

    /// Versions and locks of the store, where it is of a kind that has them. Opening does no network request.
    pub fn open_versions(&self, limits: StoreLimits) -> Result<Option<Arc<dyn VersionedStore>>> {
        match self {
            Self::S3 { .. } => Ok(Some(Arc::new(s3::S3Versions::open(self, limits)?))),
            _ => Ok(None),
        }
    }
}

/// A number that no other process has: real stores are opened by real processes only.
fn seed() -> u64 {
    Env::real().rng().next_u64()
}

/// The store with limits, retries and a rate around it. Waiting for the rate uses up no patience and keeps no download.
fn around<S: Store + ?Sized>(
    bare: Arc<S>,
    limits: StoreLimits,
    is_remote: bool,
) -> Arc<PaceStore<RetryStore<LimitStore<S>>>> {
    let limited = LimitStore::new(bare, limits.concurrency);
    let limited = if is_remote { limited.with_uplink(limits.request, limits.concurrency) } else { limited };
    let retried = RetryStore::new(Arc::new(limited), limits.attempts).with_jitter(seed());
    Arc::new(PaceStore::new(Arc::new(retried), limits.upload_bytes_per_s))
}
