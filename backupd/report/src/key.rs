//! Ed25519 keys: the report signing key, public keys as stock openssl reads them, and fingerprints for people.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha256};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Length of a detached signature file.
pub const SIGNATURE_BYTES: usize = 64;
/// DER of `SubjectPublicKeyInfo { id-Ed25519, 32-byte key }` before the key (RFC 8410).
const SPKI_HEAD: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// DER of `PrivateKeyInfo { id-Ed25519, 32-byte seed }` before the seed (RFC 8410), as `openssl genpkey` writes it.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PEM_HEAD: &str = "-----BEGIN PUBLIC KEY-----";
const PEM_TAIL: &str = "-----END PUBLIC KEY-----";
const PEM_PRIVATE_HEAD: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_PRIVATE_TAIL: &str = "-----END PRIVATE KEY-----";

/// Why a key cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not the PEM form of an Ed25519 public key.
    #[error("not an Ed25519 public key in PEM form (`openssl pkey -pubout` writes one)")]
    NotPem,
    /// The 32 bytes are no usable key.
    #[error("not a usable Ed25519 public key")]
    NotAKey,
    /// Not a private key that we read.
    #[error(
        "not an Ed25519 private key: expected `openssl genpkey -algorithm ed25519` output, 32 bytes, or 64 hex digits"
    )]
    NotPrivate,
    /// Not 64 hex digits.
    #[error("not a fingerprint: expected 64 hex digits, hyphens allowed")]
    NotAFingerprint,
    /// The signature file has another length.
    #[error("a signature file has 64 bytes")]
    SignatureLength,
    /// The signature does not fit the bytes and the key.
    #[error("the signature does not belong to these bytes and this key")]
    WrongSignature,
}

/// An Ed25519 signing key. Zeroized on drop; no Debug, no Serialize.
pub struct ReportSigner(SigningKey);

impl ReportSigner {
    /// The key of a 32-byte seed.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// Reads a key file: PKCS#8 PEM as openssl writes it, 32 raw bytes, or 64 hex digits.
    pub fn from_key_file(bytes: &[u8]) -> Result<Self, KeyError> {
        if let Ok(seed) = bytes.try_into() {
            return Ok(Self::from_seed(seed));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| KeyError::NotPrivate)?.trim();
        let mut seed = Zeroizing::new([0u8; 32]);
        if hex::decode_to_slice(text, seed.as_mut_slice()).is_ok() {
            return Ok(Self::from_seed(&seed));
        }
        let body = text.strip_prefix(PEM_PRIVATE_HEAD).and_then(|t| t.strip_suffix(PEM_PRIVATE_TAIL));
        let mut der = Zeroizing::new(STANDARD.decode(body.ok_or(KeyError::NotPrivate)?.trim()).unwrap_or_default());
        let key = der.strip_prefix(&PKCS8_HEAD).and_then(|seed| <&[u8; 32]>::try_from(seed).ok()).map(Self::from_seed);
        der.zeroize();
        key.ok_or(KeyError::NotPrivate)
    }

    /// The detached signature over exactly these bytes: the content of a `.sig` file.
    pub fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.0.sign(bytes).to_bytes()
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }
}

/// An Ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// The key of 32 bytes (RFC 8032); small-order keys are refused.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::NotAKey)?;
        match key.is_weak() || key.as_bytes() != bytes {
            true => Err(KeyError::NotAKey),
            false => Ok(Self(key)),
        }
    }

    /// Reads the PEM form (`SubjectPublicKeyInfo`), surrounding white space allowed.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let text = std::str::from_utf8(pem).map_err(|_| KeyError::NotPem)?.trim();
        let body = text.strip_prefix(PEM_HEAD).and_then(|t| t.strip_suffix(PEM_TAIL)).ok_or(KeyError::NotPem)?;
        let der = STANDARD.decode(body.trim()).map_err(|_| KeyError::NotPem)?;
        let key = der.strip_prefix(&SPKI_HEAD).and_then(|key| <&[u8; 32]>::try_from(key).ok());
        Self::from_bytes(key.ok_or(KeyError::NotPem)?)
    }

    /// The PEM form, byte for byte what `openssl pkey -pubout` writes.
    pub fn to_pem(&self) -> String {
        format!("{PEM_HEAD}\n{}\n{PEM_TAIL}\n", STANDARD.encode(self.to_der()))
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// What people compare: SHA-256 of the DER form.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(self.to_der()).into())
    }

    /// Checks a detached signature over exactly these bytes.
    pub fn verify(&self, bytes: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        let signature = <&[u8; SIGNATURE_BYTES]>::try_from(signature).map_err(|_| KeyError::SignatureLength)?;
        self.0.verify_strict(bytes, &Signature::from_bytes(signature)).map_err(|_| KeyError::WrongSignature)
    }

    fn to_der(&self) -> Vec<u8> {
        [SPKI_HEAD.as_slice(), self.0.as_bytes()].concat()
    }
}

/// SHA-256 of a public key's DER form. Shown as 16 groups of four hex digits; hyphens, colons, spaces and case do not
/// matter when reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl std::str::FromStr for Fingerprint {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let digits: String = text.chars().filter(|c| !matches!(c, '-' | ':' | ' ')).collect();
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| KeyError::NotAFingerprint)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, pair) in self.0.chunks(2).enumerate() {
            if i > 0 {
                f.write_str("-")?;
            }
            f.write_str(&hex::encode(pair))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const PUBLIC: &str = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
    const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                             085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";

    #[test]
    fn signs_as_the_standard_does() {
        let signer = ReportSigner::from_key_file(SEED.as_bytes()).unwrap();
        assert_eq!(hex::encode(signer.public_key().as_bytes()), PUBLIC);
        assert_eq!(hex::encode(signer.sign(&[0x72])), SIGNATURE);
        assert!(signer.public_key().verify(&[0x72], &hex::decode(SIGNATURE).unwrap()).is_ok());
        assert!(signer.public_key().verify(&[0x73], &hex::decode(SIGNATURE).unwrap()).is_err());
    }

    #[test]
    fn pem_and_fingerprint_survive_a_round_trip() {
        let key = ReportSigner::from_seed(&[7; 32]).public_key();
        assert_eq!(PublicKey::from_pem(key.to_pem().as_bytes()).unwrap(), key);
        let shown = key.fingerprint().to_string();
        assert_eq!(shown.len(), 79);
        assert_eq!(shown.to_uppercase().replace('-', ":").parse::<Fingerprint>().unwrap(), key.fingerprint());
        assert!("12".parse::<Fingerprint>().is_err());
    }

    #[test]
    fn keys_of_small_order_are_refused() {
        let mut identity = [0; 32];
        identity[0] = 1;
        assert_eq!(PublicKey::from_bytes(&identity), Err(KeyError::NotAKey));
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::NotAKey));
    }
}
