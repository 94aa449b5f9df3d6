//! Who holds which key. Secrets are zeroized on drop and have neither `Debug` nor any serializer but `to_bytes`.

use crate::aead::SlotKey;
use crate::error::{FormatError, Result};
use crate::ids::{ChunkId, RepositoryId, SourceId};
use crate::seal::{OpenSeed, SEAL_KEY_BYTES, SealKey};
use crate::wire::{Reader, put_preamble};
use crate::{KEY_FILE_VERSION, MAGIC_OPEN_KEY, MAGIC_WRITER};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use rand_core::CryptoRng;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const CONTEXT_DATA_ID: &str = "holdfast repository v1 2026-11 id of a data chunk";
const CONTEXT_TREE_ID: &str = "holdfast repository v1 2026-11 id of a tree page";
const CONTEXT_SOURCE_ID: &str = "holdfast repository v1 2026-11 id of a source";
const DOMAIN_CERTIFICATE: &[u8] = b"holdfast writer certificate v1\0";

/// What a chunk holds; the kinds have ids of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChunkKind {
    /// A piece of a file.
    Data,
    /// A page of the file tree.
    Tree,
}

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
            _ => Err(FormatError::Invalid { what: "chunk kind" }),
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
        let derive = |context| *blake3::Hasher::new_derive_key(context).update(&root).finalize().as_bytes();
        Self { root, data: derive(CONTEXT_DATA_ID), tree: derive(CONTEXT_TREE_ID) }
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

/// Reads the catalog: which snapshots exist, which chunk lies in which pack. No name, no content, no size of a file.
/// It also checks who may write: the authority's public key is part of it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct CatalogKey {
    #[zeroize(skip)]
    repository: RepositoryId,
    key: [u8; 32],
    authority: [u8; 32],
}

impl CatalogKey {
    #[must_use]
    pub fn new(repository: RepositoryId, key: [u8; 32], authority: [u8; 32]) -> Self {
        Self { repository, key, authority }
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    /// The key for the catalog part of one object.
    #[must_use]
    pub fn object_key(&self, context: &str, salt: &[u8; 32]) -> SlotKey {
        SlotKey::derive(context, &self.key, salt)
    }

    /// What object names show in place of a source's name.
    #[must_use]
    pub fn source_id(&self, source: &str) -> SourceId {
        let key = *blake3::Hasher::new_derive_key(CONTEXT_SOURCE_ID).update(&self.key).finalize().as_bytes();
        let hash = blake3::keyed_hash(&key, source.as_bytes());
        let mut id = [0u8; 16];
        id.copy_from_slice(hash.as_bytes().split_at(16).0);
        SourceId(id)
    }

    pub(crate) fn authority(&self) -> &[u8; 32] {
        &self.authority
    }
}

/// The authority's statement that a writer's key may sign heads of one repository.
#[derive(Clone, PartialEq, Eq)]
pub struct WriterCertificate {
    pub writer: [u8; 32],
    pub signature: [u8; 64],
}

impl WriterCertificate {
    /// Length in a file, bytes.
    pub const BYTES: usize = 96;

    fn message(repository: RepositoryId, writer: &[u8; 32]) -> Vec<u8> {
        [DOMAIN_CERTIFICATE, repository.as_bytes(), writer].concat()
    }

    /// Checks the certificate against the authority, then `signature` over `message` against the writer.
    pub fn verify(&self, catalog: &CatalogKey, message: &[u8], signature: &[u8; 64], what: &'static str) -> Result<()> {
        let bad = |_| FormatError::Signature { what };
        let authority = VerifyingKey::from_bytes(catalog.authority()).map_err(bad)?;
        let writer = VerifyingKey::from_bytes(&self.writer).map_err(bad)?;
        let certified = Self::message(catalog.repository(), &self.writer);
        authority.verify_strict(&certified, &Signature::from_bytes(&self.signature)).map_err(bad)?;
        writer.verify_strict(message, &Signature::from_bytes(signature)).map_err(bad)
    }

    pub(crate) fn parse(reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { writer: reader.array()?, signature: reader.array()? })
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.writer);
        out.extend_from_slice(&self.signature);
    }
}

/// Certifies writers. It lives in the keyring only and is used when a writer is made.
pub struct Authority(SigningKey);

impl Authority {
    #[must_use]
    pub fn from_bytes(seed: [u8; 32]) -> Self {
        Self(SigningKey::from_bytes(&seed))
    }

    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    pub(crate) fn expose(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    fn certify(&self, repository: RepositoryId, writer: [u8; 32]) -> WriterCertificate {
        let signature = self.0.sign(&WriterCertificate::message(repository, &writer)).to_bytes();
        WriterCertificate { writer, signature }
    }
}

/// All that a writer holds (a file with mode 0600). It can name content, read the catalog, seal and sign; it cannot
/// open a pack, a tree page or an inner manifest.
pub struct WriterCredential {
    id_key: IdKey,
    catalog: CatalogKey,
    seal: SealKey,
    signing: SigningKey,
    certificate: WriterCertificate,
}

impl WriterCredential {
    /// Length of the file, bytes.
    pub const BYTES: usize = 6 + 16 + 32 + 32 + 32 + SEAL_KEY_BYTES + 32 + 64;

    /// A new writer of the repository.
    pub fn issue<R: CryptoRng + ?Sized>(rng: &mut R, secrets: &RepositorySecrets) -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        rng.fill_bytes(seed.as_mut());
        let signing = SigningKey::from_bytes(&seed);
        let certificate = secrets.authority.certify(secrets.repository, signing.verifying_key().to_bytes());
        Self {
            id_key: secrets.id_key.clone(),
            catalog: secrets.catalog(),
            seal: secrets.open.seal_key(),
            signing,
            certificate,
        }
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.catalog.repository
    }

    #[must_use]
    pub fn id_key(&self) -> &IdKey {
        &self.id_key
    }

    #[must_use]
    pub fn catalog(&self) -> &CatalogKey {
        &self.catalog
    }

    #[must_use]
    pub fn seal_key(&self) -> &SealKey {
        &self.seal
    }

    #[must_use]
    pub fn certificate(&self) -> &WriterCertificate {
        &self.certificate
    }

    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(Self::BYTES));
        put_preamble(&mut out, MAGIC_WRITER, KEY_FILE_VERSION);
        out.extend_from_slice(self.catalog.repository.as_bytes());
        out.extend_from_slice(&self.catalog.key);
        out.extend_from_slice(&self.catalog.authority);
        out.extend_from_slice(self.id_key.expose());
        out.extend_from_slice(&self.seal.to_bytes());
        out.extend_from_slice(self.signing.as_bytes());
        out.extend_from_slice(&self.certificate.signature);
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "writer credential";
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_WRITER, KEY_FILE_VERSION)?;
        let repository = RepositoryId(reader.array()?);
        let catalog = CatalogKey::new(repository, reader.array()?, reader.array()?);
        let id_key = IdKey::from_bytes(reader.array()?);
        let seal = SealKey::from_bytes(reader.take(SEAL_KEY_BYTES)?)?;
        let signing = SigningKey::from_bytes(&reader.array()?);
        let signature = reader.array()?;
        reader.end()?;
        let certificate = WriterCertificate { writer: signing.verifying_key().to_bytes(), signature };
        let authority =
            VerifyingKey::from_bytes(&catalog.authority).map_err(|_| FormatError::Signature { what: WHAT })?;
        authority
            .verify_strict(
                &WriterCertificate::message(repository, &certificate.writer),
                &Signature::from_bytes(&certificate.signature),
            )
            .map_err(|_| FormatError::Signature { what: WHAT })?;
        Ok(Self { id_key, catalog, seal, signing, certificate })
    }
}

/// The read key: opens packs, trees, inner manifests; names content; reads the catalog. It cannot sign a head.
pub struct OpenKey {
    id_key: IdKey,
    catalog: CatalogKey,
    open: OpenSeed,
}

impl OpenKey {
    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.catalog.repository
    }

    #[must_use]
    pub fn id_key(&self) -> &IdKey {
        &self.id_key
    }

    #[must_use]
    pub fn catalog(&self) -> &CatalogKey {
        &self.catalog
    }

    #[must_use]
    pub fn open_seed(&self) -> &OpenSeed {
        &self.open
    }

    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(6 + 16 + 32 * 4));
        put_preamble(&mut out, MAGIC_OPEN_KEY, KEY_FILE_VERSION);
        out.extend_from_slice(self.catalog.repository.as_bytes());
        out.extend_from_slice(&self.catalog.key);
        out.extend_from_slice(&self.catalog.authority);
        out.extend_from_slice(self.id_key.expose());
        out.extend_from_slice(self.open.expose());
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "open key file");
        reader.preamble(MAGIC_OPEN_KEY, KEY_FILE_VERSION)?;
        let repository = RepositoryId(reader.array()?);
        let catalog = CatalogKey::new(repository, reader.array()?, reader.array()?);
        let id_key = IdKey::from_bytes(reader.array()?);
        let open = OpenSeed::from_bytes(reader.array()?);
        reader.end()?;
        Ok(Self { id_key, catalog, open })
    }
}

/// Every secret of a repository: what the keyring protects.
pub struct RepositorySecrets {
    pub(crate) repository: RepositoryId,
    pub(crate) id_key: IdKey,
    pub(crate) catalog_key: Zeroizing<[u8; 32]>,
    pub(crate) open: OpenSeed,
    pub(crate) authority: Authority,
}

impl RepositorySecrets {
    /// A new repository.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R) -> Self {
        let mut id = [0u8; 16];
        rng.fill_bytes(&mut id);
        let mut fresh = || {
            let mut key = Zeroizing::new([0u8; 32]);
            rng.fill_bytes(key.as_mut());
            key
        };
        Self {
            repository: RepositoryId(id),
            id_key: IdKey::from_bytes(*fresh()),
            catalog_key: fresh(),
            open: OpenSeed::from_bytes(*fresh()),
            authority: Authority::from_bytes(*fresh()),
        }
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    fn catalog(&self) -> CatalogKey {
        CatalogKey::new(self.repository, *self.catalog_key, self.authority.public())
    }

    /// The read key alone.
    #[must_use]
    pub fn open_key(&self) -> OpenKey {
        OpenKey {
            id_key: self.id_key.clone(),
            catalog: self.catalog(),
            open: OpenSeed::from_bytes(*self.open.expose()),
        }
    }
}
