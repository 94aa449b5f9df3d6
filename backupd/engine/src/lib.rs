//! The Holdfast repository engine: source -> chunks -> index -> segments -> packs -> stores -> heads, and back.
//!
//! One file per stage, in flow order. Clock, randomness, local files and threads come in through [`Env`] only.
//! No error, log line or progress event holds a path, a file name, a tag or content.

pub mod env;
pub mod store;

mod backup;
mod catalog;
mod chain;
mod chunker;
mod commit;
mod error;
mod heads;
mod keys;
mod pack;
mod progress;
mod read;
mod remembered;
mod replicate;
mod restore;
mod run;
mod scout;
mod send;
pub mod source;
mod state;
mod survey;
mod target;
mod verify;
mod walk;

pub use backup::{Part, PartKind, SnapshotOutcome, SnapshotRequest, Stop, StoreOutcome, snapshot};
pub use backup_format::{
    CatalogKey, FormatError, IncarnationId, ObjectHash, OpenKey, PaperKey, Passphrase, RepositoryId, SnapshotId,
    WriterCredential,
};
pub use env::Env;
pub use error::{Error, ErrorKind, Result};
pub use heads::{Heads, SnapshotInfo, heads, heads_with_tags};
pub use keys::{InitOptions, Initialized, UnlockWith, init, keyring, recover_writer, unlock};
pub use progress::{NoProgress, Phase, Progress, ProgressEvent};
pub use read::{Entry, EntryKind, facts, ls};
pub use replicate::{StoreCatchUp, replicate};
pub use restore::{RestoreOutcome, RestoreRequest, restore};
pub use store::{ListedObject, NamedStore, Store, StoreLimits, StoreLocation};
pub use verify::{ObjectName, VerifyOutcome, VerifyRequest, verify, verify_keyless};
