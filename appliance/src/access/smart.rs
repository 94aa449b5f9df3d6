//! Programs that the practice registered, and their tokens: SMART Backend Services.
//!
//! A program proves itself by a JWT that it signed with its own key (`private_key_jwt`), each good once and for five minutes at
//! most. It gets an opaque token of five minutes; the database holds its hash. Disabling a program ends its tokens at once.

use super::grant::{Grant, Scope};
use super::{Actor, Program};
use crate::store::StoreError;
use aws_lc_rs::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rusqlite::{Connection, OptionalExtension};
use serde_json::Value;

/// How long an access token is good, seconds.
pub const TOKEN_S: i64 = 300;
/// The longest life of an assertion, seconds: R4's profile of SMART says five minutes.
const ASSERTION_S: i64 = 300;
const ASSERTION_BYTES_MAX: usize = 16 << 10;

/// Why a token is not given: the words of RFC 6749.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Client,
    Scope,
    Request,
}

impl Refused {
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Client => "invalid_client",
            Refused::Scope => "invalid_scope",
            Refused::Request => "invalid_request",
        }
    }
}

/// A registered program.
#[derive(Debug, Clone)]
pub struct Client {
    pub id: String,
    pub name: String,
    pub scopes: Vec<Scope>,
    pub disabled: bool,
    keys: Vec<Key>,
}

/// A public key of a program's key set.
#[derive(Debug, Clone)]
struct Key {
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

/// Registers a program; its key set (`{"keys": [...]}`) lies here, so that nothing is ever fetched from an address.
///
/// # Errors
/// [`StoreError::Invalid`] for a scope that is none, or a key set without a usable key.
pub fn register(
    db: &Connection,
    id: &str,
    name: &str,
    jwks: &str,
    scopes: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    if keys(jwks).is_empty() {
        return Err(StoreError::invalid("holds no RSA (2048 bits or more) or P-384 key for RS384 or ES384", "jwks"));
    }
    let parsed: Option<Vec<Scope>> = scopes.split_whitespace().map(Scope::parse).collect();
    if parsed.is_none_or(|scopes| scopes.is_empty() || !scopes.iter().all(Scope::is_system)) {
        return Err(StoreError::invalid("must be system scopes such as system/Patient.rs", "scope"));
    }
    let sql = "INSERT INTO smart_client (id, name, jwks, scopes, created_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.execute(sql, (id, name, jwks, scopes, now_ms))?;
    Ok(())
}

/// All registered programs.
pub fn list(db: &Connection) -> Result<Vec<Client>, StoreError> {
    let mut statement = db.prepare("SELECT id, name, jwks, scopes, disabled_ms FROM smart_client ORDER BY name, id")?;
    Ok(statement.query_map([], client)?.collect::<Result<_, _>>()?)
}

/// Ends a program's access; its tokens are worth nothing from now on.
pub fn disable(db: &Connection, id: &str, now_ms: i64) -> Result<(), StoreError> {
    db.execute("DELETE FROM smart_token WHERE client = ?1", [id])?;
    let sql = "UPDATE smart_client SET disabled_ms = ?2 WHERE id = ?1 AND disabled_ms IS NULL";
    if db.execute(sql, (id, now_ms))? == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// Gives a token for a good assertion. `audiences` are the addresses of the token endpoint.
pub fn token(
    db: &Connection,
    (assertion, scope): (&str, &str),
    audiences: &[String],
    token: &str,
    now_ms: i64,
) -> Result<Result<Grant, Refused>, StoreError> {
    let Some(claims) = Assertion::parse(assertion) else { return Ok(Err(Refused::Request)) };
    let sql = "SELECT id, name, jwks, scopes, disabled_ms FROM smart_client WHERE id = ?1";
    let found = db.query_row(sql, [&claims.issuer], client).optional()?.filter(|client| !client.disabled);
    let Some(client) = found else { return Ok(Err(Refused::Client)) };
    if !claims.is_good(&client, audiences, now_ms / 1000) {
        return Ok(Err(Refused::Client));
    }
    db.execute("DELETE FROM smart_assertion WHERE expires_ms < ?1", [now_ms])?;
    db.execute("DELETE FROM smart_token WHERE expires_ms < ?1", [now_ms])?;
    let sql = "INSERT OR IGNORE INTO smart_assertion (client, jti, expires_ms) VALUES (?1, ?2, ?3)";
    if db.execute(sql, (&client.id, &claims.jti, claims.expires_s.saturating_mul(1000)))? == 0 {
        // Used before: whoever sends it again may have overheard it.
        return Ok(Err(Refused::Client));
    }
    let asked: Option<Vec<Scope>> = scope.split_whitespace().map(Scope::parse).collect();
    let granted = asked.filter(|asked| {
        !asked.is_empty() && asked.iter().all(|asked| client.scopes.iter().any(|own| own.covers(asked)))
    });
    let Some(scopes) = granted else { return Ok(Err(Refused::Scope)) };
    let text = scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ");
    let sql = "INSERT INTO smart_token (token_hash, client, scopes, expires_ms) VALUES (?1, ?2, ?3, ?4)";
    let hash = service::auth::token_hash(token);
    db.execute(sql, (hash.as_slice(), &client.id, text, now_ms + TOKEN_S * 1000))?;
    Ok(Ok(Grant { client: client.id, scopes, patient: None }))
}

/// Who a token speaks for; `None` when it is unknown, over, or its program is disabled.
pub fn actor(db: &Connection, token: &str, now_ms: i64) -> Result<Option<Actor>, StoreError> {
    let sql = "SELECT c.id, c.name, t.scopes FROM smart_token t JOIN smart_client c ON c.id = t.client \
               WHERE t.token_hash = ?1 AND t.expires_ms > ?2 AND c.disabled_ms IS NULL";
    let hash = service::auth::token_hash(token);
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
    let found: Option<(String, String, String)> =
        db.prepare_cached(sql)?.query_row((hash.as_slice(), now_ms), row).optional()?;
    Ok(found.map(|(id, name, scopes)| {
        let scopes = scopes.split_whitespace().filter_map(Scope::parse).collect();
        let grant = Grant { client: id.clone(), scopes, patient: None };
        Actor { id: format!("app:{id}"), name, ..Actor::program(Program::App) }.with_grant(grant)
    }))
}

/// Ends a token, whoever asks: to know it is enough.
pub fn revoke(db: &Connection, token: &str) -> Result<(), StoreError> {
    db.execute("DELETE FROM smart_token WHERE token_hash = ?1", [service::auth::token_hash(token).as_slice()])?;
    Ok(())
}

fn client(row: &rusqlite::Row<'_>) -> rusqlite::Result<Client> {
    let (jwks, scopes): (String, String) = (row.get(2)?, row.get(3)?);
    Ok(Client {
        id: row.get(0)?,
        name: row.get(1)?,
        scopes: scopes.split_whitespace().filter_map(Scope::parse).collect(),
        disabled: row.get::<_, Option<i64>>(4)?.is_some(),
        keys: keys(&jwks),
    })
}

/// The usable keys of a key set.
fn keys(jwks: &str) -> Vec<Key> {
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
struct Assertion {
    signed: String,
    signature: Vec<u8>,
    algorithm: String,
    key: Option<String>,
    issuer: String,
    subject: String,
    audience: Vec<String>,
    jti: String,
    expires_s: i64,
}

impl Assertion {
    fn parse(text: &str) -> Option<Assertion> {
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

    fn is_good(&self, client: &Client, audiences: &[String], now_s: i64) -> bool {
        let timely = self.expires_s > now_s && self.expires_s <= now_s + ASSERTION_S;
        let for_us = self.audience.iter().any(|audience| audiences.contains(audience));
        let mut candidates = client.keys.iter().filter(|key| self.key.is_none() || key.id == self.key);
        timely && for_us && self.subject == client.id && candidates.any(|key| self.is_signed_by(key))
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
