//! Passkeys and security keys (WebAuthn, level 2): the part that a second factor needs.
//!
//! The attestation is not asked for: which make of key somebody has is their own affair. So a registration proves nothing but
//! that the browser made it for this practice's own address, just now; from then on the key proves itself by its signature.
//!
//! Checked at each use: what the browser says it did (`type`), the challenge, the origin, that no frame of another site asked;
//! what the key says: for which address (hash), that a person was there (UP), its counter; and its signature over both.

mod cbor;
pub mod keys;

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cbor::Value;
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// Bytes of a credential's id, as the standard limits it.
const CREDENTIAL_ID_BYTES_MAX: usize = 1023;
/// What a browser sends of one answer.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes of a stored public key: an RSA key of 4096 bits has some 540.
const PUBLIC_KEY_BYTES_MAX: usize = 1024;

/// A person was there.
const USER_PRESENT: u8 = 1;
/// The key knew who (fingerprint, PIN).
const USER_VERIFIED: u8 = 1 << 2;
const CREDENTIAL_INCLUDED: u8 = 1 << 6;

/// Algorithms that are offered, most wanted first (numbers of COSE): ES256, EdDSA with Ed25519, RS256 (Windows).
pub const ALGORITHMS: [i64; 3] = [-7, -8, -257];

/// Why an answer is not taken. The person is told to try again; the log tells which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebauthnError {
    #[error("the answer cannot be read")]
    Malformed,
    #[error("the answer is of another kind")]
    Kind,
    #[error("the answer is to another question")]
    Challenge,
    #[error("the answer was made at another address")]
    Origin,
    #[error("the key answers for another address")]
    RelyingParty,
    #[error("nobody touched the key")]
    Absent,
    #[error("the key's kind of signature is not known here")]
    Algorithm,
    #[error("the signature is wrong")]
    Signature,
    #[error("the key's counter went back: somebody may have a copy of it")]
    Counter,
}

/// For whom a key answers: the practice's own address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelyingParty {
    /// The host of [`RelyingParty::origins`].
    pub id: String,
    /// `https://host:port`, as a browser writes it.
    pub origins: Vec<String>,
}

impl RelyingParty {
    /// From the addresses of the service, the first of which names the host. `None` where that is a number: browsers make no
    /// key for those.
    pub fn of(bases: &[String]) -> Option<RelyingParty> {
        let host = |base: &str| {
            let rest = base.strip_prefix("https://")?;
            // A literal address of IPv6 stands in brackets.
            let host = if rest.starts_with('[') { rest } else { rest.split(':').next()? };
            Some(host.to_owned())
        };
        let id = host(bases.first()?)?;
        let is_name = id.bytes().any(|byte| byte.is_ascii_alphabetic()) && !id.contains(['[', '/']);
        let origins = bases.iter().filter(|base| host(base).as_deref() == Some(&id)).cloned().collect();
        is_name.then_some(RelyingParty { id, origins })
    }
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub id: Vec<u8>,
    /// The COSE key as the authenticator wrote it.
    pub public_key: Vec<u8>,
    pub counter: u32,
    /// The key said that it knew the person when it was registered.
    pub user_verified: bool,
}

/// What a browser sends when a key was made; each field base64url.
#[derive(Debug, Deserialize)]
pub struct Registration {
    pub client_data: String,
    pub attestation: String,
}

/// What a browser sends when a key was used; each field base64url.
#[derive(Debug, Deserialize)]
pub struct Assertion {
    pub id: String,
    pub client_data: String,
    pub authenticator_data: String,
    pub signature: String,
}

impl Assertion {
    /// Which credential answers.
    pub fn credential_id(&self) -> Result<Vec<u8>, WebauthnError> {
        decoded(&self.id)
    }
}

pub fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decoded(text: &str) -> Result<Vec<u8>, WebauthnError> {
    if text.len() > ANSWER_BYTES_MAX {
        return Err(WebauthnError::Malformed);
    }
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| WebauthnError::Malformed)
}

/// Checks what came of making a key; gives the key.
///
/// # Errors
/// The first thing that is wrong.
pub fn register(party: &RelyingParty, challenge: &[u8], answer: &Registration) -> Result<Credential, WebauthnError> {
    client_data(party, "webauthn.create", challenge, &decoded(&answer.client_data)?)?;
    let attestation = decoded(&answer.attestation)?;
    let (attestation, rest) = cbor::first(&attestation).ok_or(WebauthnError::Malformed)?;
    let data = attestation.of(&Value::Text("authData".into())).and_then(Value::bytes);
    let data = AuthenticatorData::read(data.filter(|_| rest.is_empty()).ok_or(WebauthnError::Malformed)?)?;
    data.check(party)?;
    let (id, public_key) = data.credential.ok_or(WebauthnError::Malformed)?;
    // A key that could not be checked later is not taken now.
    PublicKey::read(&public_key)?;
    Ok(Credential { id, public_key, counter: data.counter, user_verified: data.flags & USER_VERIFIED != 0 })
}

/// Checks what came of using `key`; gives the counter to keep.
///
/// # Errors
/// The first thing that is wrong.
pub fn assert(
    party: &RelyingParty,
    challenge: &[u8],
    key: &Credential,
    answer: &Assertion,
) -> Result<u32, WebauthnError> {
    let client = decoded(&answer.client_data)?;
    client_data(party, "webauthn.get", challenge, &client)?;
    let raw = decoded(&answer.authenticator_data)?;
    let data = AuthenticatorData::read(&raw)?;
    data.check(party)?;
    let signed = [raw.as_slice(), Sha256::digest(&client).as_slice()].concat();
    PublicKey::read(&key.public_key)?.verify(&signed, &decoded(&answer.signature)?)?;
    // Many keys count nothing and say 0 for ever.
    if (data.counter != 0 || key.counter != 0) && data.counter <= key.counter {
        return Err(WebauthnError::Counter);
    }
    Ok(data.counter)
}

#[derive(Deserialize)]
struct ClientData {
    #[serde(rename = "type")]
    kind: String,
    challenge: String,
    origin: String,
    #[serde(rename = "crossOrigin", default)]
    cross_origin: bool,
}

fn client_data(party: &RelyingParty, kind: &str, challenge: &[u8], json: &[u8]) -> Result<(), WebauthnError> {
    let data: ClientData = serde_json::from_slice(json).map_err(|_| WebauthnError::Malformed)?;
    if data.kind != kind {
        return Err(WebauthnError::Kind);
    }
    if challenge.is_empty() || decoded(&data.challenge)? != challenge {
        return Err(WebauthnError::Challenge);
    }
    if data.cross_origin || !party.origins.contains(&data.origin) {
        return Err(WebauthnError::Origin);
    }
    Ok(())
}

struct AuthenticatorData {
    party_hash: [u8; 32],
    flags: u8,
    counter: u32,
    /// Id and COSE key of a new credential.
    credential: Option<(Vec<u8>, Vec<u8>)>,
}

impl AuthenticatorData {
    fn read(bytes: &[u8]) -> Result<AuthenticatorData, WebauthnError> {
        Self::read_or(bytes).ok_or(WebauthnError::Malformed)
    }

    fn read_or(bytes: &[u8]) -> Option<AuthenticatorData> {
        let (party_hash, rest) = bytes.split_first_chunk::<32>()?;
        let (flags, rest) = rest.split_first()?;
        let (counter, rest) = rest.split_first_chunk::<4>()?;
        let credential = match flags & CREDENTIAL_INCLUDED {
            0 => None,
            _ => {
                // Which make of key it is (16 bytes) is not asked for.
                let (_, rest) = rest.split_first_chunk::<16>()?;
                let (len, rest) = rest.split_first_chunk::<2>()?;
                let len = usize::from(u16::from_be_bytes(*len));
                let (id, rest) = rest.split_at_checked(len).filter(|_| (1..=CREDENTIAL_ID_BYTES_MAX).contains(&len))?;
                let (_, after) = cbor::first(rest)?;
                let public_key = rest.get(..rest.len() - after.len())?;
                (public_key.len() <= PUBLIC_KEY_BYTES_MAX).then(|| (id.to_vec(), public_key.to_vec()))
            }
        };
        if flags & CREDENTIAL_INCLUDED != 0 && credential.is_none() {
            return None;
        }
        Some(AuthenticatorData {
            party_hash: *party_hash,
            flags: *flags,
            counter: u32::from_be_bytes(*counter),
            credential,
        })
    }

    fn check(&self, party: &RelyingParty) -> Result<(), WebauthnError> {
        if self.party_hash.as_slice() != Sha256::digest(party.id.as_bytes()).as_slice() {
            return Err(WebauthnError::RelyingParty);
        }
        if self.flags & USER_PRESENT == 0 { Err(WebauthnError::Absent) } else { Ok(()) }
    }
}

/// A public key of COSE (RFC 9053).
enum PublicKey {
    /// The point without compression.
    P256([u8; 65]),
    Ed25519([u8; 32]),
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
}

impl PublicKey {
    fn read(cose: &[u8]) -> Result<PublicKey, WebauthnError> {
        let (map, rest) = cbor::first(cose).ok_or(WebauthnError::Malformed)?;
        if !rest.is_empty() {
            return Err(WebauthnError::Malformed);
        }
        let of = |label: i64| map.of(&Value::Int(label));
        let int = |label| of(label).and_then(Value::int);
        let fixed = |label| of(label).and_then(Value::bytes).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        // Type of key, algorithm, curve.
        Ok(match (int(1), int(3), int(-1)) {
            (Some(2), Some(-7), Some(1)) => {
                let (x, y) = fixed(-2).zip(fixed(-3)).ok_or(WebauthnError::Malformed)?;
                let mut point = [4; 65];
                let (_, coordinates) = point.split_at_mut(1);
                coordinates.copy_from_slice(&[x, y].concat());
                PublicKey::P256(point)
            }
            (Some(1), Some(-8), Some(6)) => PublicKey::Ed25519(fixed(-2).ok_or(WebauthnError::Malformed)?),
            (Some(3), Some(-257), _) => {
                let bytes = |label| of(label).and_then(Value::bytes).map(<[u8]>::to_vec);
                let (n, e) = bytes(-1).zip(bytes(-2)).ok_or(WebauthnError::Malformed)?;
                PublicKey::Rsa { n, e }
            }
            _ => return Err(WebauthnError::Algorithm),
        })
    }

    fn verify(&self, signed: &[u8], signature: &[u8]) -> Result<(), WebauthnError> {
        let fits = match self {
            PublicKey::P256(point) => {
                UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_ASN1, point).verify(signed, signature)
            }
            PublicKey::Ed25519(key) => UnparsedPublicKey::new(&signature::ED25519, key).verify(signed, signature),
            PublicKey::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&signature::RSA_PKCS1_2048_8192_SHA256, signed, signature)
            }
        };
        fits.map_err(|_| WebauthnError::Signature)
    }
}

#[cfg(test)]
mod tests;
