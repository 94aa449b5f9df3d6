//! Sources: what is backed up, at one consistent point, with the facts that were true there.

use crate::failure;
use crate::settings::{Source, SourceKind};
use appliance_api::{
    AuditHead, Client, ClientError, Damaged, Facts, GoldenKey, GoldenQuery, Refusal, Request, Response,
};
use backup_engine::{Env, NamedStore, OpenKey, Part, PartKind, SnapshotId, SourceLease};
use backupd_api::{Failure, FailureKind};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Database parts are chunked in pages of this size, bytes. Fixed by the format of the source, not a matter of taste:
/// SQLite's page size in the EMR.
const PAGE_BYTES: u32 = 16 << 10;
/// The EMR has to answer a quiesce within this time; later, the backup gives up and the EMR thaws on its own.
const QUIESCE_TIMEOUT: Duration = Duration::from_secs(120);
/// Top-level name of backupd's own settings in a snapshot.
pub const PRACTICE_PART: &str = "practice";

/// What is sealed into a snapshot of the EMR: what was true, and what a drill asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedFacts {
    pub facts: Facts,
    pub golden_key: GoldenKey,
    pub golden: Vec<GoldenQuery>,
    /// What was broken in the original when this was taken.
    #[serde(default)]
    pub damaged: Vec<Damaged>,
    /// How many attachments were gone or did not match.
    #[serde(default)]
    pub damaged_attachments: u64,
}

/// Whether the original was damaged already when this snapshot was taken: it is whole as a snapshot, and not as records.
pub async fn is_original_damaged(env: &Env, open: &OpenKey, store: &NamedStore, snapshot: SnapshotId) -> bool {
    let facts = backup_engine::facts(env, open, store, snapshot).await.ok().flatten();
    let sealed = facts.and_then(|facts| serde_json::from_slice::<SealedFacts>(&facts).ok());
    sealed.is_some_and(|sealed| !sealed.damaged.is_empty())
}

/// A source held at one point. Dropping it lets the source go on.
pub struct Captured {
    pub parts: Vec<Part>,
    pub excludes: Vec<String>,
    /// [`SealedFacts`] as JSON, for sources that have facts.
    pub facts: Option<Vec<u8>>,
    pub write_stall_us: u64,
    /// The source said that its original is damaged. What is left was captured.
    pub damaged: bool,
    /// Something that belongs to it could not be had.
    pub incomplete: bool,
    /// Where its audit ends, for sources that have one that can be read.
    pub audit: Option<AuditHead>,
    /// Whether its audit contains where it ended before; `None` where nobody asked, or it did not say.
    pub follows: Option<bool>,
    lease: Option<Lease>,
}

struct Lease {
    client: Arc<Mutex<Client>>,
    id: String,
    /// Names of the parts that it holds still.
    parts: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("source {source_name}: {error}")]
    Appliance { source_name: String, error: ClientError },
    #[error("source {source_name}: the EMR did not reach a quiet point within {} s", QUIESCE_TIMEOUT.as_secs())]
    Stuck { source_name: String },
    #[error("source {source_name}: the folder cannot be read ({kind}): check `path` and its permissions")]
    Folder { source_name: String, kind: std::io::ErrorKind },
    #[error("source {source_name}: the facts could not be written down")]
    Facts { source_name: String },
}

impl SourceError {
    /// As the messages tell it.
    pub fn failure(&self) -> Failure {
        let kind = match self {
            error if error.no_room() => FailureKind::NoSpace,
            Self::Folder { .. } => FailureKind::Misconfigured,
            _ => FailureKind::Retry,
        };
        failure::new(kind, self.to_string())
    }

    /// It answered, and said that its data cannot be read.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Appliance { error: ClientError::Refused(Refusal::Data), .. })
    }

    /// Whether the source could be reached at all; decides between an alert about the source and one about the backup.
    pub fn no_room(&self) -> bool {
        matches!(self, Self::Appliance { error: ClientError::Refused(Refusal::NoRoom), .. })
    }
}

/// Brings a source to a consistent point. `before`: where its audit ended at an earlier one.
pub async fn capture(source: &Source, before: Option<AuditHead>) -> Result<Captured, SourceError> {
    match &source.kind {
        SourceKind::Appliance { ops_socket, .. } => {
            tokio::time::timeout(QUIESCE_TIMEOUT, capture_appliance(&source.name, ops_socket, before))
                .await
                .map_err(|_| SourceError::Stuck { source_name: source.name.clone() })?
        }
        SourceKind::Folder { path, excludes } => {
            std::fs::read_dir(path)
                .map_err(|e| SourceError::Folder { source_name: source.name.clone(), kind: e.kind() })?;
            let part = Part { name: source.name.clone(), path: path.clone(), kind: PartKind::Files };
            let parts = vec![part];
            Ok(Captured {
                parts,
                excludes: excludes.clone(),
                facts: None,
                write_stall_us: 0,
                damaged: false,
                incomplete: false,
                audit: None,
                follows: None,
                lease: None,
            })
        }
    }
}

async fn capture_appliance(name: &str, socket: &Path, before: Option<AuditHead>) -> Result<Captured, SourceError> {
    let failed = |error| SourceError::Appliance { source_name: name.to_owned(), error };
    let mut client = Client::connect(socket).await.map_err(failed)?;
    let answer = client.ask(&Request::Quiesce { follows: before }).await.map_err(failed)?;
    let Response::Quiesced(quiesced) = answer else { return Err(failed(ClientError::Malformed)) };
    let audit = quiesced.facts.audit();
    let sealed = SealedFacts {
        facts: quiesced.facts,
        golden_key: quiesced.golden_key,
        golden: quiesced.golden,
        damaged: quiesced.damaged.clone(),
        damaged_attachments: quiesced.damaged_attachments,
    };
    let facts = serde_json::to_vec(&sealed).map_err(|_| SourceError::Facts { source_name: name.to_owned() })?;
    let parts: Vec<Part> = quiesced.parts.into_iter().map(part).collect();
    let held = parts.iter().map(|part| part.name.clone()).collect();
    Ok(Captured {
        parts,
        excludes: Vec::new(),
        facts: Some(facts),
        write_stall_us: quiesced.write_stall_us,
        damaged: !quiesced.damaged.is_empty(),
        incomplete: false,
        audit,
        follows: quiesced.follows,
        lease: Some(Lease { client: Arc::new(Mutex::new(client)), id: quiesced.lease, parts: held }),
    })
}

fn part(part: appliance_api::Part) -> Part {
    let kind = match part.kind {
        appliance_api::PartKind::Pages => PartKind::Pages { page_bytes: PAGE_BYTES },
        appliance_api::PartKind::Files => PartKind::Files,
    };
    Part { name: part.name, path: part.path, kind }
}

impl Captured {
    /// Whether the source is still held when everything was read. The EMR holds it for as long as the connection stands; then the
    /// copy may have been removed while it was read.
    pub fn held(&self) -> SourceLease {
        let Some(lease) = &self.lease else { return SourceLease::default() };
        let (client, parts) = (Arc::clone(&lease.client), lease.parts.clone());
        SourceLease::on(parts, move || {
            let stands = is_open(&client);
            if !stands {
                log::warn!("snapshot.lease-expired");
            }
            stands
        })
    }

    /// Whether whoever holds the source still does.
    pub fn is_held(&self) -> bool {
        self.lease.as_ref().is_none_or(|lease| is_open(&lease.client))
    }

    /// Ends the lease, as closing the connection would.
    pub async fn thaw(mut self) {
        let Some(lease) = self.lease.take() else { return };
        let Some(client) = Arc::into_inner(lease.client) else { return };
        let mut client = client.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = client.ask(&Request::Thaw { lease: lease.id }).await {
            log::warn!(reason:% = error; "source.not-thawed");
        }
    }
}

fn is_open(client: &Mutex<Client>) -> bool {
    client.lock().unwrap_or_else(PoisonError::into_inner).is_open()
}
