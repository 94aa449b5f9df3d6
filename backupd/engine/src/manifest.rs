//! Sealing a snapshot: its manifests, and the signed head that names them.

use crate::backup::{Part, PartKind, SnapshotRequest};
use crate::chain::Link;
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::owners::named;
use crate::walk::Walked;
use backup_format::head::{Head, HeadName};
use backup_format::manifest::{InnerManifest, OuterManifest, PartRecord};
use backup_format::sealed::{PartsKind, seal_parts};
use backup_format::{ObjectHash, SnapshotId, SourceId, WriterCredential};
use bytes::Bytes;
use std::os::unix::ffi::OsStrExt;

/// Everything that a manifest says, but for its link of the chain.
pub(crate) struct Sealing<'a> {
    pub(crate) env: &'a Env,
    pub(crate) writer: &'a WriterCredential,
    pub(crate) request: &'a SnapshotRequest,
    pub(crate) walked: &'a Walked,
    pub(crate) partial: bool,
    pub(crate) taken_unix_ms: i64,
    /// Sealed bytes of packs and index objects.
    pub(crate) added: u64,
    pub(crate) plan_seen: Option<[u8; 32]>,
    /// Snapshots that hold what this machine lacks.
    pub(crate) set_back: Vec<Option<SnapshotId>>,
}

/// A snapshot object and its head, ready to be written.
pub(crate) struct SealedSnapshot {
    pub(crate) id: SnapshotId,
    pub(crate) manifest: Bytes,
    pub(crate) head_name: HeadName,
    pub(crate) head: Bytes,
}

impl Sealing<'_> {
    pub(crate) fn seal(&self, source: SourceId, link: &Link) -> Result<SealedSnapshot> {
        let manifest = self.manifest(link)?;
        let id = SnapshotId(ObjectHash::of(&manifest).0);
        let head = Head {
            source,
            incarnation: link.incarnation,
            counter: link.counter,
            snapshot: id,
            predecessor: link.predecessor.map(|(hash, _)| hash),
            seen: link.seen.clone(),
        };
        let bytes = head.sign(self.writer)?;
        Ok(SealedSnapshot { id, manifest, head_name: head.name(&bytes), head: Bytes::from(bytes) })
    }

    fn manifest(&self, link: &Link) -> Result<Bytes> {
        let root = self.walked.root.ok_or_else(|| Error::new(ErrorKind::Retry, "the source has no root"))?;
        let outer = OuterManifest {
            source: self.request.source.clone(),
            incarnation: link.incarnation,
            counter: link.counter,
            predecessor: link.predecessor.map(|(_, snapshot)| snapshot),
            taken_unix_ms: self.taken_unix_ms,
            root,
            partial: self.partial,
            files: self.walked.files,
            bytes_source: self.walked.bytes_source,
            bytes_added: self.added,
            plan_seen: self.plan_seen,
            set_back: self.set_back.clone(),
        };
        let part = |part: &Part| PartRecord {
            name: part.name.as_bytes().to_vec(),
            page_bytes: match part.kind {
                PartKind::Files => 0,
                PartKind::Pages { page_bytes } => page_bytes,
            },
            path: part.path.as_os_str().as_bytes().to_vec(),
        };
        let inner = InnerManifest {
            tag: self.request.tag.clone(),
            facts: self.request.facts.clone(),
            parts: self.request.parts.iter().map(part).collect(),
            unreadable_count: self.walked.unreadable_count,
            unreadable: self.walked.unreadable.clone(),
            owners: named(&*self.env.owner_names(), &self.walked.users, &self.walked.groups),
        };
        let keys = (self.writer.catalog(), self.writer.seal_key());
        let sealed = seal_parts(&mut self.env.rng(), PartsKind::Snapshot, keys, &outer.encode()?, &inner.encode()?)?;
        Ok(Bytes::from(sealed))
    }
}
