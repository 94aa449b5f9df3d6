//! `private_key_jwt`: a program proves itself by a JWT that it signed with its own key, good once and for five minutes at most.

use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::Value;

/// The longest life of an assertion, seconds: R4's profile of SMART says five minutes.
const ASSERTION_S: i64 = 300;
const ASSERTION_BYTES_MAX: usize = 16 << 10;

/// A public key of a program's key set.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    kind: KeyKind,
}

#[derive(Debug, Clone)]
enum KeyKind {
    /// RS384.
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// ES384: the uncompressed point.
    P384(Vec<u8>),
}

/// The usable keys of a key set.
pub(super) fn keys(jwks: &str) -> Vec<Key> {
    let set: Value = serde_json::from_str(jwks).unwrap_or_default();
    let all = set.get("keys").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|key| {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| BASE64_URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let kind = match (text("kty")?, text("crv")) {
            ("RSA", _) => KeyKind::Rsa { n: bytes("n").filter(|n| n.len() >= 256)?, e: bytes("e")? },
            ("EC", Some("P-384")) => {
                let (x, y) = (bytes("x").filter(|x| x.len() == 48)?, bytes("y").filter(|y| y.len() == 48)?);
                KeyKind::P384([vec![4], x, y].concat())
            }
            _ => return None,
        };
        Some(Key { id: text("kid").map(str::to_owned), kind })
    })
    .collect()
}

/// A JWT taken apart, not yet believed.
pub(super) struct Assertion {
    signed: String,
    signature: Vec<u8>,
    algorithm: String,
    key: Option<String>,
    pub(super) issuer: String,
    subject: String,
    audience: Vec<String>,
    pub(super) jti: String,
    pub(super) expires_s: i64,
}

impl Assertion {
    pub(super) fn parse(text: &str) -> Option<Assertion> {
        if text.len() > ASSERTION_BYTES_MAX {
            return None;
        }
        let (signed, signature) = text.rsplit_once('.')?;
        let (head, claims) = signed.split_once('.')?;
        let json = |part: &str| serde_json::from_slice::<Value>(&BASE64_URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        let (head, claims) = (json(head)?, json(claims)?);
        let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).map(str::to_owned);
        let audience = match claims.get("aud")? {
            Value::String(one) => vec![one.clone()],
            Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => return None,
        };
        Some(Assertion {
            signed: signed.to_owned(),
            signature: BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?,
            algorithm: text(&head, "alg")?,
            key: text(&head, "kid"),
            issuer: text(&claims, "iss")?,
            subject: text(&claims, "sub")?,
            audience,
            jti: text(&claims, "jti").filter(|jti| (1..=256).contains(&jti.len()))?,
            expires_s: claims.get("exp")?.as_i64()?,
        })
    }

    /// Whether it was made by `client`, with one of `keys`, for one of these addresses, and now.
    pub(super) fn is_good(&self, client: &str, keys: &[Key], audiences: &[String], now_s: i64) -> bool {
        let timely = self.expires_s > now_s && self.expires_s <= now_s + ASSERTION_S;
        let for_us = self.audience.iter().any(|audience| audiences.contains(audience));
        let mut candidates = keys.iter().filter(|key| self.key.is_none() || key.id == self.key);
        timely
            && for_us
            && self.issuer == client
            && self.subject == client
            && candidates.any(|key| self.is_signed_by(key))
    }

    /// The algorithm follows from the key: a head that names another one is refused, `none` above all.
    fn is_signed_by(&self, key: &Key) -> bool {
        let message = self.signed.as_bytes();
        match (&key.kind, self.algorithm.as_str()) {
            (KeyKind::Rsa { n, e }, "RS384") => RsaPublicKeyComponents { n, e }
                .verify(&signature::RSA_PKCS1_2048_8192_SHA384, message, &self.signature)
                .is_ok(),
            (KeyKind::P384(point), "ES384") => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, point)
                .verify(message, &self.signature)
                .is_ok(),
            _ => false,
        }
    }
}
