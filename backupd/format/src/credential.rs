//! Who holds which key: writers, readers, pruners, and the keyring that holds all. Secrets have no `Debug` and no
//! serializer but `to_bytes`.

use crate::certificate::{Authority, Certificate, Role};
use crate::error::{FormatError, Result};
use crate::ids::RepositoryId;
use crate::keys::{CatalogKey, EPOCHS_MAX, IdKey, parse_epochs, put_epochs};
use crate::letters::checksum;
use crate::seal::{OpenSeed, OpenSeeds, SEAL_KEY_BYTES, SealKey};
use crate::wire::{Reader, put_no_extensions, put_preamble};
use crate::{KEY_FILE_VERSION, MAGIC_OPEN_KEY, MAGIC_PRUNER, MAGIC_WRITER};
use ed25519_dalek::{Signer, SigningKey};
use rand_core::CryptoRng;
use zeroize::Zeroizing;

pub(crate) const CONTEXT_WRITER_CHECK: &str = "holdfast writer credential v1 2026-11 checksum";
/// Bytes of the checksum at the end of a writer credential.
pub(crate) const WRITER_CHECK_BYTES: usize = 16;

/// All that a writer holds (a file with mode 0600). It can name content, read the catalog of every epoch, seal to the
/// newest and sign; it cannot open a pack, a tree page or an inner manifest.
pub struct WriterCredential {
    id_key: IdKey,
    catalog: CatalogKey,
    seal: SealKey,
    signing: SigningKey,
    certificate: Certificate,
}

impl WriterCredential {
    /// A new writer of the repository.
    pub fn issue<R: CryptoRng + ?Sized>(rng: &mut R, secrets: &RepositorySecrets) -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        rng.fill_bytes(seed.as_mut());
        Self::with_seed(&seed, secrets)
    }

    /// The same writer with the repository's newest epoch.
    #[must_use]
    pub fn renewed(&self, secrets: &RepositorySecrets) -> Self {
        Self::with_seed(self.signing.as_bytes(), secrets)
    }

    fn with_seed(seed: &[u8; 32], secrets: &RepositorySecrets) -> Self {
        let signing = SigningKey::from_bytes(seed);
        let key = signing.verifying_key().to_bytes();
        Self {
            id_key: secrets.id_key.clone(),
            catalog: secrets.catalog(),
            seal: secrets.seal_key(),
            signing,
            certificate: secrets.authority.certify(Role::Writer, secrets.repository, key),
        }
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.catalog.repository()
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
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        // With room for every epoch at once, so that no copy of a key is left behind by growing.
        let room = 256 + SEAL_KEY_BYTES + WRITER_CHECK_BYTES + self.catalog.epochs().len() * 36;
        let mut out = Zeroizing::new(Vec::with_capacity(room));
        put_preamble(&mut out, MAGIC_WRITER, KEY_FILE_VERSION);
        out.extend_from_slice(self.repository().as_bytes());
        out.extend_from_slice(self.catalog.authority());
        out.extend_from_slice(self.id_key.expose());
        out.extend_from_slice(self.signing.as_bytes());
        out.extend_from_slice(&self.certificate.signature);
        out.extend_from_slice(&self.seal.to_bytes());
        put_epochs(&mut out, self.catalog.epochs(), |(number, _)| *number, |(_, key), out| out.extend_from_slice(key));
        let check = checksum::<WRITER_CHECK_BYTES>(CONTEXT_WRITER_CHECK, &out);
        out.extend_from_slice(&check);
        out
    }

    /// Every byte counts: with a damaged key it would seal snapshots that nobody can open, and not notice.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "writer credential";
        const DAMAGED: FormatError = FormatError::Invalid { what: "writer credential (a byte of it has changed)" };
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_WRITER, KEY_FILE_VERSION)?;
        let repository = RepositoryId(reader.array()?);
        let authority = reader.array()?;
        let id_key = IdKey::from_bytes(reader.array()?);
        let signing = SigningKey::from_bytes(&reader.array()?);
        let certificate =
            Certificate { role: Role::Writer, key: signing.verifying_key().to_bytes(), signature: reader.array()? };
        let seal = reader.take(SEAL_KEY_BYTES)?;
        let epochs = parse_epochs(&mut reader, |number, reader| Ok((number, reader.array()?)))?;
        let check = reader.array::<WRITER_CHECK_BYTES>()?;
        reader.end()?;
        certificate.check(repository, &authority, WHAT)?;
        let catalog = CatalogKey::new(repository, authority, &id_key, epochs);
        let seal = SealKey::from_bytes(catalog.newest_epoch(), seal)?;
        let (checked, _) = bytes.split_last_chunk::<WRITER_CHECK_BYTES>().ok_or(DAMAGED)?;
        if check != checksum::<WRITER_CHECK_BYTES>(CONTEXT_WRITER_CHECK, checked) {
            return Err(DAMAGED);
        }
        Ok(Self { id_key, catalog, seal, signing, certificate })
    }
}

/// The read key: opens packs, trees, inner manifests of every epoch; names content; reads the catalog. It cannot sign a
/// head.
#[derive(Clone)]
pub struct OpenKey {
    id_key: IdKey,
    catalog: CatalogKey,
    seeds: OpenSeeds,
    /// When each epoch began, Unix milliseconds.
    since: Vec<(u32, i64)>,
}

impl OpenKey {
    fn new<'a>(
        repository: RepositoryId,
        authority: [u8; 32],
        id_key: IdKey,
        epochs: impl Iterator<Item = &'a Epoch>,
    ) -> Self {
        let (mut catalogs, mut seeds, mut since) = (Vec::new(), OpenSeeds::default(), Vec::new());
        for epoch in epochs {
            catalogs.push((epoch.number, epoch.catalog_key));
            seeds.push(epoch.number, epoch.open.clone());
            since.push((epoch.number, epoch.since_unix_ms));
        }
        Self { catalog: CatalogKey::new(repository, authority, &id_key, catalogs), id_key, seeds, since }
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.catalog.repository()
    }

    #[must_use]
    pub fn id_key(&self) -> &IdKey {
        &self.id_key
    }

    #[must_use]
    pub fn catalog(&self) -> &CatalogKey {
        &self.catalog
    }

    /// The seeds of all epochs; each object's header says which one opens it.
    #[must_use]
    pub fn open_seed(&self) -> &OpenSeeds {
        &self.seeds
    }

    /// Number and beginning (Unix milliseconds) of every epoch, oldest first.
    #[must_use]
    pub fn epochs(&self) -> &[(u32, i64)] {
        &self.since
    }

    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(128 + self.since.len() * Epoch::BYTES));
        put_preamble(&mut out, MAGIC_OPEN_KEY, KEY_FILE_VERSION);
        out.extend_from_slice(self.repository().as_bytes());
        out.extend_from_slice(self.catalog.authority());
        out.extend_from_slice(self.id_key.expose());
        // Copies for writing only; each wipes itself.
        let epochs: Vec<Epoch> = self
            .since
            .iter()
            .zip(self.catalog.epochs())
            .filter_map(|(since, (number, key))| {
                let open = self.seeds.of(*number)?.clone();
                Some(Epoch { number: *number, since_unix_ms: since.1, catalog_key: *key, open })
            })
            .collect();
        Epoch::put_all(&mut out, &epochs.iter().collect::<Vec<_>>());
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, "open key file");
        reader.preamble(MAGIC_OPEN_KEY, KEY_FILE_VERSION)?;
        let repository = RepositoryId(reader.array()?);
        let authority = reader.array()?;
        let id_key = IdKey::from_bytes(reader.array()?);
        let epochs = Epoch::parse_all(&mut reader)?;
        reader.end()?;
        Ok(Self::new(repository, authority, id_key, epochs.iter()))
    }
}

/// What a pruner holds: it signs tombstones, and nothing else.
pub struct PrunerCredential {
    repository: RepositoryId,
    authority: [u8; 32],
    signing: SigningKey,
    certificate: Certificate,
}

impl PrunerCredential {
    /// A new pruner of the repository.
    pub fn issue<R: CryptoRng + ?Sized>(rng: &mut R, secrets: &RepositorySecrets) -> Self {
        let mut seed = Zeroizing::new([0u8; 32]);
        rng.fill_bytes(seed.as_mut());
        let signing = SigningKey::from_bytes(&seed);
        let key = signing.verifying_key().to_bytes();
        let certificate = secrets.authority.certify(Role::Pruner, secrets.repository, key);
        Self { repository: secrets.repository, authority: secrets.authority.public(), signing, certificate }
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    #[must_use]
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing.sign(message).to_bytes()
    }

    #[must_use]
    pub fn to_bytes(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        put_preamble(&mut out, MAGIC_PRUNER, KEY_FILE_VERSION);
        out.extend_from_slice(self.repository.as_bytes());
        out.extend_from_slice(&self.authority);
        out.extend_from_slice(self.signing.as_bytes());
        out.extend_from_slice(&self.certificate.signature);
        out
    }

    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        const WHAT: &str = "pruner credential";
        let mut reader = Reader::new(bytes, WHAT);
        reader.preamble(MAGIC_PRUNER, KEY_FILE_VERSION)?;
        let repository = RepositoryId(reader.array()?);
        let authority = reader.array()?;
        let signing = SigningKey::from_bytes(&reader.array()?);
        let certificate =
            Certificate { role: Role::Pruner, key: signing.verifying_key().to_bytes(), signature: reader.array()? };
        reader.end()?;
        certificate.check(repository, &authority, WHAT)?;
        Ok(Self { repository, authority, signing, certificate })
    }
}

/// The keys of one epoch. What is sealed while it is the newest opens with these keys for ever.
#[derive(Clone)]
pub(crate) struct Epoch {
    number: u32,
    since_unix_ms: i64,
    catalog_key: [u8; 32],
    open: OpenSeed,
}

impl Drop for Epoch {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.catalog_key);
    }
}

impl Epoch {
    pub(crate) const BYTES: usize = 4 + 8 + 32 + 32;

    fn generate<R: CryptoRng + ?Sized>(rng: &mut R, number: u32, since_unix_ms: i64) -> Self {
        let (mut catalog_key, mut seed) = ([0u8; 32], Zeroizing::new([0u8; 32]));
        rng.fill_bytes(&mut catalog_key);
        rng.fill_bytes(seed.as_mut());
        Self { number, since_unix_ms, catalog_key, open: OpenSeed::from_bytes(*seed) }
    }

    pub(crate) fn put_all(out: &mut Vec<u8>, epochs: &[&Self]) {
        put_epochs(
            out,
            epochs,
            |epoch| epoch.number,
            |epoch, out| {
                out.extend_from_slice(&epoch.since_unix_ms.to_le_bytes());
                out.extend_from_slice(&epoch.catalog_key);
                out.extend_from_slice(epoch.open.expose());
            },
        );
    }

    pub(crate) fn parse_all(reader: &mut Reader<'_>) -> Result<Vec<Self>> {
        parse_epochs(reader, |number, reader| {
            let since_unix_ms = reader.i64()?;
            Ok(Self {
                number,
                since_unix_ms,
                catalog_key: reader.array()?,
                open: OpenSeed::from_bytes(reader.array()?),
            })
        })
    }
}

/// Every secret of a repository: what the keyring protects.
pub struct RepositorySecrets {
    pub(crate) repository: RepositoryId,
    pub(crate) id_key: IdKey,
    pub(crate) authority: Authority,
    /// Oldest first.
    earlier: Vec<Epoch>,
    newest: Epoch,
}

impl RepositorySecrets {
    /// A new repository, its first epoch beginning now.
    pub fn generate<R: CryptoRng + ?Sized>(rng: &mut R, now_unix_ms: i64) -> Self {
        let mut id = [0u8; 16];
        rng.fill_bytes(&mut id);
        let mut fresh = || {
            let mut key = Zeroizing::new([0u8; 32]);
            rng.fill_bytes(key.as_mut());
            key
        };
        let (id_key, authority) = (IdKey::from_bytes(*fresh()), Authority::from_bytes(*fresh()));
        let newest = Epoch::generate(rng, 1, now_unix_ms);
        Self { repository: RepositoryId(id), id_key, authority, earlier: Vec::new(), newest }
    }

    /// Begins a further epoch. Nothing that is stored changes; it protects only what is sealed from now on.
    pub fn begin_epoch<R: CryptoRng + ?Sized>(&mut self, rng: &mut R, now_unix_ms: i64) -> Result<u32> {
        let number = self.newest.number.checked_add(1).filter(|_| self.earlier.len() + 1 < EPOCHS_MAX);
        let number = number.ok_or(FormatError::Limit { what: "list of epochs" })?;
        let before = std::mem::replace(&mut self.newest, Epoch::generate(rng, number, now_unix_ms));
        self.earlier.push(before);
        Ok(number)
    }

    #[must_use]
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }

    #[must_use]
    pub fn newest_epoch(&self) -> u32 {
        self.newest.number
    }

    fn epochs(&self) -> impl Iterator<Item = &Epoch> {
        self.earlier.iter().chain(std::iter::once(&self.newest))
    }

    /// What the keyring seals.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.id_key.expose());
        out.extend_from_slice(self.authority.expose());
        let epochs: Vec<&Epoch> = self.epochs().collect();
        Epoch::put_all(out, &epochs);
        put_no_extensions(out);
    }

    /// The most bytes that [`Self::put`] appends.
    pub(crate) fn room(&self) -> usize {
        128 + (self.earlier.len() + 1) * Epoch::BYTES
    }

    pub(crate) fn parse(repository: RepositoryId, reader: &mut Reader<'_>) -> Result<Self> {
        let id_key = IdKey::from_bytes(reader.array()?);
        let authority = Authority::from_bytes(reader.array()?);
        let mut earlier = Epoch::parse_all(reader)?;
        reader.extensions()?;
        let newest = earlier.pop().ok_or(reader.invalid())?;
        Ok(Self { repository, id_key, authority, earlier, newest })
    }

    fn catalog(&self) -> CatalogKey {
        let epochs = self.epochs().map(|epoch| (epoch.number, epoch.catalog_key)).collect();
        CatalogKey::new(self.repository, self.authority.public(), &self.id_key, epochs)
    }

    fn seal_key(&self) -> SealKey {
        self.newest.open.seal_key(self.newest.number)
    }

    /// The read key alone.
    #[must_use]
    pub fn open_key(&self) -> OpenKey {
        OpenKey::new(self.repository, self.authority.public(), self.id_key.clone(), self.epochs())
    }
}
