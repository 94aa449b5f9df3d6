//! Certificates: the authority's statement that a key may sign heads, or tombstones.

use crate::error::{FormatError, Result};
use crate::ids::RepositoryId;
use crate::keys::CatalogKey;
use crate::wire::Reader;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

/// What a certified key may sign. The roles have messages of their own, so that one certificate never serves for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Signs heads.
    Writer,
    /// Signs tombstones.
    Pruner,
}

impl Role {
    fn domain(self) -> &'static [u8] {
        match self {
            Self::Writer => b"holdfast writer certificate v1\0",
            Self::Pruner => b"holdfast pruner certificate v1\0",
        }
    }
}

/// The authority's statement that a key may act in a role in one repository.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub role: Role,
    pub key: [u8; 32],
    pub signature: [u8; 64],
}

impl Certificate {
    /// Length in a file, bytes.
    pub const BYTES: usize = 96;

    fn message(role: Role, repository: RepositoryId, key: &[u8; 32]) -> Vec<u8> {
        [role.domain(), repository.as_bytes(), key].concat()
    }

    /// Checks the authority's signature.
    pub(crate) fn check(&self, repository: RepositoryId, authority: &[u8; 32], what: &'static str) -> Result<()> {
        verify(authority, &Self::message(self.role, repository, &self.key), &self.signature, what)
    }

    /// Checks the certificate against the authority, then `signature` over `message` against the certified key.
    pub fn verify(&self, catalog: &CatalogKey, message: &[u8], signature: &[u8; 64], what: &'static str) -> Result<()> {
        let mine = blake3::Hasher::new()
            .update(&Self::message(self.role, catalog.repository(), &self.key))
            .update(&self.signature)
            .finalize();
        if !catalog.is_certified(mine.as_bytes()) {
            self.check(catalog.repository(), catalog.authority(), what)?;
            catalog.note_certified(*mine.as_bytes());
        }
        verify(&self.key, message, signature, what)
    }

    pub(crate) fn parse(role: Role, reader: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { role, key: reader.array()?, signature: reader.array()? })
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.key);
        out.extend_from_slice(&self.signature);
    }
}

/// Checks strictly: no small-order keys, no second form of a signature.
pub(crate) fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64], what: &'static str) -> Result<()> {
    VerifyingKey::from_bytes(key)
        .and_then(|key| key.verify_strict(message, &Signature::from_bytes(signature)))
        .map_err(|_| FormatError::Signature { what })
}

/// Certifies writers and pruners and signs keyrings. It lives in the keyring only.
#[derive(Clone)]
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

    pub(crate) fn certify(&self, role: Role, repository: RepositoryId, key: [u8; 32]) -> Certificate {
        let signature = self.sign(&Certificate::message(role, repository, &key));
        Certificate { role, key, signature }
    }

    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}
