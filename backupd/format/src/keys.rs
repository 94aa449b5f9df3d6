//! Keys that name content and read the catalog. Secrets are zeroized on drop and have neither `Debug` nor a serializer.

use crate::aead::SlotKey;
use crate::error::{FormatError, Result};
use crate::ids::{ChunkId, RepositoryId, SourceId};
use crate::wire::{Reader, put_varint};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The most epochs of a repository: one a month for more than eighty years.
pub const EPOCHS_MAX: usize = 1024;

pub(crate) const CONTEXT_DATA_ID: &str = "holdfast repository v1 2026-11 id of a data chunk";
pub(crate) const CONTEXT_TREE_ID: &str = "holdfast repository v1 2026-11 id of a tree page";
pub(crate) const CONTEXT_SOURCE_ID: &str = "holdfast repository v1 2026-11 id of a source";

/// What a chunk holds; the kinds have ids of their own. Kind 3 is reserved for streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkKind {
    /// A piece of a file.
    Data,
    /// A page of the file tree.
    Tree,
}

/// Numbered segments of a write-ahead log, with a lifetime of their own: a later release writes them.
pub const CHUNK_KIND_STREAM: u8 = 3;

impl ChunkKind {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Tree => 2,
        }
    }

    pub fn from_code(code: u8) -> Result<Self> {
        match code {
            1 => Ok(Self::Data),
            2 => Ok(Self::Tree),
            0 => Err(FormatError::Invalid { what: "chunk kind" }),
            kind => Err(FormatError::UnknownKind { what: "chunk", kind }),
        }
    }
}

/// Names content. Constant for a repository generation, so that rotation does not end deduplication.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IdKey {
    root: [u8; 32],
    data: [u8; 32],
    tree: [u8; 32],
}

impl IdKey {
    #[must_use]
    pub fn from_bytes(root: [u8; 32]) -> Self {
        Self { root, data: derive(CONTEXT_DATA_ID, &root), tree: derive(CONTEXT_TREE_ID, &root) }
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        &self.root
    }

    /// The id of a chunk.
    #[must_use]
    pub fn chunk_id(&self, kind: ChunkKind, content: &[u8]) -> ChunkId {
        let key = match kind {
            ChunkKind::Data => &self.data,
            ChunkKind::Tree => &self.tree,
        };
        ChunkId(*blake3::keyed_hash(key, content).as_bytes())
    }
}

fn derive(context: &str, key: &[u8; 32]) -> [u8; 32] {
    *blake3::Hasher::new_derive_key(context).update(key).finalize().as_bytes()
}

/// Reads the catalog of every epoch: which snapshots exist, which chunk lies in which pack. No name, no content, no size
/// of a file. It also checks who may write: the authority's public key is part of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CatalogKey {
    #[zeroize(skip)]
    repository: RepositoryId,
    authority: [u8; 32],
    /// Names sources; from the id key, so that rotation does not rename them.
    sources: [u8; 32],
    /// By epoch, ascending.
    epochs: Vec<(u32, [u8; 32])>,
    /// Hashes of certificates that were found good: thousands of heads carry the same few. Nothing secret.
    #[zeroize(skip)]
    certified: Arc<Mutex<HashSet<[u8; 32]>>>,
}

/// So many certificates are remembered.
const CERTIFIED_MAX: usize = 256;

impl CatalogKey {
    /// `epochs` must ascend.
    #[must_use]
    pub fn new(repository: RepositoryId, authority: [u8; 32], id_key: &IdKey, epochs: Vec<(u32, [u8; 32])>) -> Self {
        let (sources, certified) = (derive(CONTEXT_SOURCE_ID, id_key.expose()), Arc::default());
        Self { repository, authority, sources, epochs, certified }
    }

    /// Whether the hash of a certificate is remembered as good.
    pub(crate) fn is_certified(&self, certificate: &[u8; 32]) -> bool {
        self.certified.lock().unwrap_or_else(PoisonError::into_inner).contains(certificate)
    }

    pub(crate) fn note_certified(&self, certificate: [u8; 32]) {
        let mut certified = self.certified.lock().unwrap_or_else(PoisonError::into_inner);
        if certified.len() < CERTIFIED_MAX {
            certified.insert(certificate);
        }
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The newest epoch that this key reads.
    #[must_use]
    pub fn newest_epoch(&self) -> u32 {
        self.epochs.last().map_or(0, |(number, _)| *number)
    }

    pub(crate) fn epochs(&self) -> &[(u32, [u8; 32])] {
        &self.epochs
    }

    /// The key for the catalog part of one object of the kind `what`.
    pub fn object_key(&self, epoch: u32, context: &str, salt: &[u8; 32], what: &'static str) -> Result<SlotKey> {
        let found = self.epochs.iter().find(|(number, _)| *number == epoch);
        let (_, key) = found.ok_or(FormatError::UnknownEpoch { what, epoch })?;
        Ok(SlotKey::derive(context, key, salt))
    }

    /// What object names show in place of a source's name.
    #[must_use]
    pub fn source_id(&self, source: &str) -> SourceId {
        let hash = blake3::keyed_hash(&self.sources, source.as_bytes());
        let mut id = [0u8; 16];
        id.copy_from_slice(hash.as_bytes().split_at(16).0);
        SourceId(id)
    }

    pub(crate) fn authority(&self) -> &[u8; 32] {
        &self.authority
    }
}

/// Reads a count of epochs and each epoch; their numbers begin at 1 and ascend.
pub(crate) fn parse_epochs<T>(
    reader: &mut Reader<'_>,
    mut epoch: impl FnMut(u32, &mut Reader<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = reader.count(EPOCHS_MAX)?;
    let (mut epochs, mut before) = (Vec::new(), 0);
    for _ in 0..count {
        let number = reader.u32()?;
        if number <= before {
            return Err(reader.invalid());
        }
        before = number;
        epochs.push(epoch(number, reader)?);
    }
    if epochs.is_empty() { Err(reader.invalid()) } else { Ok(epochs) }
}

/// Appends a count of epochs and each epoch.
pub(crate) fn put_epochs<T>(
    out: &mut Vec<u8>,
    epochs: &[T],
    number: impl Fn(&T) -> u32,
    rest: impl Fn(&T, &mut Vec<u8>),
) {
    put_varint(out, epochs.len() as u64);
    for epoch in epochs {
        out.extend_from_slice(&number(epoch).to_le_bytes());
        rest(epoch, out);
    }
}
