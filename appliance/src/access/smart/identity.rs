//! Who the person is, told to a program (OpenID Connect Core, as SMART on FHIR uses it): an ID token, signed with a key of the
//! practice's own.
//!
//! The key lies with the records, as everything by which people log in does, so that a restored practice signs as before. It is
//! made when it is first asked for.

use super::Given;
use crate::db::{Connection, OptionalExtension};
use crate::store::StoreError;
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{self, KeyPair as _};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The word by which a program asks who the person is.
pub const OPENID: &str = "openid";
/// The word by which it asks for the person's own resource.
pub const FHIR_USER: &str = "fhirUser";
/// The algorithm that every client of OpenID Connect knows.
pub const ALGORITHM: &str = "RS256";
/// How long an ID token is good, seconds: it is looked at once, right away.
const TOKEN_S: i64 = 300;
/// What a program may send along to know its own request again, bytes.
pub const NONCE_BYTES_MAX: usize = 256;

const KEY: &str = "openid-signing-key";

/// The practice's key. No Debug: it signs as the practice.
#[derive(Clone)]
pub struct SigningKey(Arc<KeyPair>);

/// What a person let a program know of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Identity {
    pub openid: bool,
    pub fhir_user: bool,
}

impl Identity {
    /// What is asked in a list of scopes, within what a program is registered for. Who the person is comes before who they
    /// are in the records.
    pub fn asked(scope: &str, registered: Identity) -> Identity {
        let has = |word: &str| scope.split_whitespace().any(|own| own == word);
        let openid = has(OPENID) && registered.openid;
        Identity { openid, fhir_user: openid && has(FHIR_USER) && registered.fhir_user }
    }

    pub fn of(words: &str) -> Identity {
        Identity::asked(words, Identity { openid: true, fhir_user: true })
    }

    /// The words of the scopes.
    pub fn words(self) -> Vec<&'static str> {
        [(self.openid, OPENID), (self.fhir_user, FHIR_USER)]
            .into_iter()
            .filter(|(has, _)| *has)
            .map(|(_, word)| word)
            .collect()
    }
}

/// The practice's key, where it was made.
pub fn key(db: &Connection) -> Result<Option<SigningKey>, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    let Some(text) = db.query_row(sql, [KEY], |row| row.get::<_, String>(0)).optional()? else { return Ok(None) };
    let text = Zeroizing::new(text);
    let damaged = || StoreError::Damaged("signing key");
    let bytes = Zeroizing::new(BASE64_STANDARD_NO_PAD.decode(text.as_bytes()).map_err(|_| damaged())?);
    let pair = KeyPair::from_pkcs8(&bytes).map_err(|_| damaged())?;
    Ok(Some(SigningKey(Arc::new(pair))))
}

/// A new key, as it is stored. It takes a moment to find: never inside a transaction.
pub fn generate() -> Result<Zeroizing<String>, StoreError> {
    let failed = |_| StoreError::Closed;
    let pair = KeyPair::generate(KeySize::Rsa2048).map_err(failed)?;
    let der = pair.as_der().map_err(failed)?;
    Ok(Zeroizing::new(BASE64_STANDARD_NO_PAD.encode(der.as_ref())))
}

/// Stores a key unless there is one.
pub fn store(db: &Connection, key: &str) -> Result<(), StoreError> {
    db.execute("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO NOTHING", [KEY, key])?;
    Ok(())
}

impl SigningKey {
    /// The public half as a JSON Web Key.
    pub fn public(&self) -> Value {
        let (n, e) = numbers(self.0.public_key().as_ref()).unwrap_or_default();
        let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (n, e) = (encoded(n), encoded(e));
        // Its own digest (RFC 7638): a client that kept an older key sees that it needs this one.
        let print = aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#).as_bytes(),
        );
        json!({ "kty": "RSA", "use": "sig", "alg": ALGORITHM, "kid": encoded(print.as_ref()), "n": n, "e": e })
    }

    /// The ID token of what was given. `base` is the address of the FHIR service, which issues it.
    pub fn token(&self, base: &str, given: &Given, now_s: i64) -> Result<String, StoreError> {
        let mut claims = json!({
            "iss": base, "sub": given.account, "aud": given.grant.client, "iat": now_s, "exp": now_s + TOKEN_S,
        });
        if let Some(nonce) = given.nonce.as_deref().filter(|nonce| !nonce.is_empty()) {
            claims["nonce"] = nonce.into();
        }
        if let Some(practitioner) = given.practitioner.as_deref().filter(|_| given.identity.fhir_user) {
            claims["fhirUser"] = format!("{base}/Practitioner/{practitioner}").into();
        }
        let head = json!({ "alg": ALGORITHM, "typ": "JWT", "kid": self.public()["kid"] });
        let encoded = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let signed = format!("{}.{}", encoded(head.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let mut made = vec![0; self.0.public_modulus_len()];
        let scheme = &signature::RSA_PKCS1_SHA256;
        self.0.sign(scheme, &SystemRandom::new(), signed.as_bytes(), &mut made).map_err(|_| StoreError::Closed)?;
        Ok(format!("{signed}.{}", encoded(&made)))
    }
}

/// Modulus and exponent of a public key: `SEQUENCE { INTEGER, INTEGER }` in DER.
fn numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x30, both, _) = element(der)? else { return None };
    let (0x02, n, rest) = element(both)? else { return None };
    let (0x02, e, _) = element(rest)? else { return None };
    // A leading zero keeps a number from being negative, and is no part of it.
    let plain = |number: &'_ [u8]| number.iter().position(|byte| *byte != 0).unwrap_or(0);
    Some((n.get(plain(n)..)?, e.get(plain(e)..)?))
}

/// Tag, content and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().try_fold(0usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}
