//! The Holdfast repository engine: source -> chunks -> index -> segments -> packs -> stores -> heads, and back.
//!
//! One file per stage, in flow order. Clock, randomness, local files and threads come in through [`Env`] only.
//! No error, log line or progress event holds a path, a file name, a tag or content.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod env;
pub mod store;

mod ahead;
mod backup;
mod beside;
mod candidate;
mod catalog;
mod chain;
mod chunker;
mod class;
mod commit;
mod condemned;
mod damage;
mod descend;
mod diff;
mod epochs;
mod error;
mod find;
mod gaps;
mod glob;
mod gone;
mod heads;
mod heal;
mod held;
mod keyring;
mod keys;
mod lease;
mod list;
mod locations;
mod locks;
mod manifest;
mod memory_state;
mod order;
mod owners;
mod pack;
mod plan;
mod progress;
pub mod prune;
mod read;
mod recent;
mod remembered;
mod replicate;
mod restore;
pub mod retain;
mod room;
mod run;
mod scout;
mod scrub;
mod send;
mod set_back;
pub mod source;
mod spool;
mod state;
mod stats;
mod survey;
mod target;
mod unfinished;
mod verify;
mod view;
mod walk;

pub use backup::{Part, PartKind, SnapshotOutcome, SnapshotRequest, Stop, StoreOutcome, UnreadableCounts, snapshot};
pub use backup_format::head::HeadName;
pub use backup_format::manifest::{Owners, UnreadableReason};
pub use backup_format::tree::{Node, NodeKind, Page};
pub use backup_format::{
    CatalogKey, FormatError, IncarnationId, MachineKey, ObjectHash, OpenKey, PaperKey, Passphrase, PrunerCredential,
    RepositoryId, Share, SlotId, SlotKind, SnapshotId, SourceId, WriterCredential,
};
pub use beside::{Listings, list_all, unnamed_packs};
pub use candidate::{candidate_of, put_over_damage};
pub use chain::{OwnChain, foreign, own_chains};
pub use condemned::condemned_objects;
pub use damage::{Doubts, doubts, note_damage};
pub use diff::{Change, DiffSummary, Difference, VisitDifference, diff};
pub use env::Env;
pub use epochs::{EpochUse, epochs};
pub use error::{Error, ErrorKind, Result};
pub use find::{Found, VisitFound, Wanted, find};
pub use gaps::Gap;
pub use glob::Glob;
pub use gone::close_gone;
pub use heads::{Heads, KnownHeads, Rejected, SnapshotInfo, heads, heads_since, heads_with_tags};
pub use heal::{HealOutcome, Healed, HealedBy, heal};
pub use held::{Loss, losses};
pub use keyring::{foreign_keyrings, is_keyring, keyring, keyring_for, newest_keyring, signed_keyring};
pub use keys::{
    InitOptions, Initialized, Rewritten, SlotInfo, UnlockWith, add_shares, add_slot, describe_keyring, in_force, init,
    issue_pruner, put_back_keyring, recover_writer, rehearse, remove_slot, repository_of, rotate, unlock, unlock_by,
};
pub use lease::SourceLease;
pub use list::{Visit, kind_and_size, list};
pub use locks::{LockOutcome, LockWish, extend_locks};
pub use memory_state::{Held, MemoryStates};
pub use progress::{NoProgress, Phase, Progress, ProgressEvent};
pub use read::{Entry, EntryKind, facts, ls};
pub use replicate::{StoreCatchUp, replicate, replicate_until};
pub use restore::{OwnersBy, RestoreOutcome, RestoreRequest, restore};
pub use scrub::{ScrubRequest, StoreScrub, scrub};
pub use set_back::{SetBack, close_set_back, note_set_back, set_back};
pub use spool::{SPOOL, Spool, Spooled};
pub use stats::{Stats, stats};
pub use store::{
    AzureAccess, ListedObject, LockRule, MaintenanceStore, NamedMaintenanceStore, NamedStore, Protection, Store,
    StoreLimits, StoreLocation, mark_removable,
};
pub use verify::{ObjectName, VerifyOutcome, VerifyRequest, is_damaged_still, is_whole, verify, verify_keyless};
pub use view::{Leaves, Tree, Unreadable, View, unreadable};
