//! SMART on FHIR: programs that the practice registered, and their tokens.
//!
//! ```text
//! backend:  assertion ------------------------------------------------> token of five minutes
//! a person: authorize (S256) -> consent -> code -> token of five minutes [+ refresh token, new at each use]
//!           chart -> launch token -> the program -> authorize ...
//! ```
//!
//! Every token is random; the database holds its hash. What a token may do is the intersection of its scopes and of what the
//! person's role permits, at the moment of each request ([`super::authorize`]); patient scopes are bound to one compartment by
//! the store. A code or refresh token that comes back a second time, or from another program, is in wrong hands: all that
//! came of it ends.

mod assertion;
mod clients;
mod grants;
pub mod identity;

pub use clients::{
    Client, Kind, OFFLINE, Presented, Registration, authenticate, client, disable, is_browser_origin, list, origin,
    register,
};
pub use grants::{
    Allowed, CODE_S, Consent, Fresh, Given, ONLINE, Refresh, allow, end, end_of_account, exchange, given_by,
    is_challenge, launch, launched, refresh, take_launch,
};
pub use identity::Identity;

use super::grant::{Grant, Scope};
use super::{Actor, Program, Role, sessions};
use crate::db::{Connection, OptionalExtension};
use crate::store::StoreError;

/// How long an access token is good, seconds.
pub const TOKEN_S: i64 = 300;

/// Why a token is not given: the words of RFC 6749.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Client,
    /// A program that asks by a way that it is not registered for.
    Unauthorized,
    Grant,
    Scope,
    Request,
}

impl Refused {
    pub fn as_str(self) -> &'static str {
        match self {
            Refused::Client => "invalid_client",
            Refused::Unauthorized => "unauthorized_client",
            Refused::Grant => "invalid_grant",
            Refused::Scope => "invalid_scope",
            Refused::Request => "invalid_request",
        }
    }
}

/// The scopes of a text; `None` when a word is none.
fn scopes(text: &str) -> Option<Vec<Scope>> {
    text.split_whitespace().map(Scope::parse).collect()
}

/// The scopes as they are stored and told.
pub fn scopes_text(scopes: &[Scope]) -> String {
    scopes.iter().map(Scope::to_string).collect::<Vec<_>>().join(" ")
}

/// What of `asked` lies within `own`; `None` when something does not, or nothing is asked.
fn within(asked: &str, own: &[Scope]) -> Option<Vec<Scope>> {
    let asked = scopes(asked)?;
    let covered = !asked.is_empty() && asked.iter().all(|asked| own.iter().any(|own| own.covers(asked)));
    covered.then_some(asked)
}

fn hash(token: &str) -> [u8; 32] {
    service::auth::token_hash(token)
}

/// Gives a program that acts by itself a token.
pub fn client_credentials(
    db: &Connection,
    client: &Client,
    scope: &str,
    token: &str,
    now_ms: i64,
) -> Result<Result<Grant, Refused>, StoreError> {
    if client.kind != Kind::Backend {
        return Ok(Err(Refused::Unauthorized));
    }
    let Some(scopes) = within(scope, &client.scopes) else { return Ok(Err(Refused::Scope)) };
    let grant = Grant { client: client.id.clone(), scopes, patient: None };
    issue(db, &grant, None, token, now_ms)?;
    Ok(Ok(grant))
}

/// Stores an access token, and drops those that are over.
fn issue(db: &Connection, grant: &Grant, id: Option<&str>, token: &str, now_ms: i64) -> Result<(), StoreError> {
    db.execute("DELETE FROM smart_token WHERE expires_ms < ?1", [now_ms])?;
    let sql = "INSERT INTO smart_token (token_hash, client, scopes, expires_ms, grant_id) VALUES (?1, ?2, ?3, ?4, ?5)";
    let hash = hash(token);
    let row = (hash.as_slice(), &grant.client, scopes_text(&grant.scopes), now_ms + TOKEN_S * 1000, id);
    db.prepare_cached(sql)?.execute(row)?;
    Ok(())
}

/// The condition under which a grant (`g`) of an account (`a`) holds at `?2`; `?3` is when the oldest open session began.
const GRANT_HOLDS: &str = "g.ended_ms IS NULL AND g.ends_ms > ?2 AND a.disabled IS NULL AND (g.session IS NULL OR \
     EXISTS (SELECT 1 FROM session s WHERE s.csrf = g.session AND s.account = g.account AND s.created > ?3))";

fn oldest_session_s(now_ms: i64) -> i64 {
    now_ms / 1000 - sessions::ABSOLUTE_S
}

/// Who a token speaks for; `None` when it is unknown, over, or what it came of has ended.
pub fn actor(db: &Connection, token: &str, now_ms: i64) -> Result<Option<Actor>, StoreError> {
    Ok(live(db, token, now_ms)?.map(|found| found.actor()))
}

/// A token that is good now.
struct Live {
    client: String,
    client_name: String,
    scopes: Vec<Scope>,
    expires_ms: i64,
    /// Id, name and role of the person, and the patient chosen.
    person: Option<(String, String, Role)>,
    patient: Option<String>,
    identity: Identity,
}

impl Live {
    fn actor(self) -> Actor {
        let grant = Grant { client: self.client.clone(), scopes: self.scopes, patient: self.patient };
        match self.person {
            // The role at this moment, never the emergency access that a person took for what they see themselves.
            Some((id, name, role)) => Actor::staff(id, format!("{name} by {}", self.client_name), role),
            None => {
                Actor { id: format!("app:{}", self.client), name: self.client_name, ..Actor::program(Program::App) }
            }
        }
        .with_grant(grant)
    }
}

fn live(db: &Connection, token: &str, now_ms: i64) -> Result<Option<Live>, StoreError> {
    let sql = format!(
        "SELECT c.id, c.name, t.scopes, t.expires_ms, a.id, a.name, a.role, g.patient, g.identity FROM smart_token t \
         JOIN smart_client c ON c.id = t.client LEFT JOIN smart_grant g ON g.id = t.grant_id \
         LEFT JOIN account a ON a.id = g.account \
         WHERE t.token_hash = ?1 AND t.expires_ms > ?2 AND c.disabled_ms IS NULL AND (t.grant_id IS NULL OR {GRANT_HOLDS})"
    );
    let row = |row: &crate::db::Row<'_>| {
        let scopes: String = row.get(2)?;
        let role: Option<Role> = row.get::<_, Option<String>>(6)?.and_then(|role| role.parse().ok());
        let person = match (row.get(4)?, row.get(5)?, role) {
            (Some(id), Some(name), Some(role)) => Some((id, name, role)),
            _ => None,
        };
        Ok(Live {
            client: row.get(0)?,
            client_name: row.get(1)?,
            scopes: scopes.split_whitespace().filter_map(Scope::parse).collect(),
            expires_ms: row.get(3)?,
            person,
            patient: row.get(7)?,
            identity: Identity::of(&row.get::<_, Option<String>>(8)?.unwrap_or_default()),
        })
    };
    let asked = (hash(token).as_slice().to_vec(), now_ms, oldest_session_s(now_ms));
    Ok(db.prepare_cached(&sql)?.query_row(asked, row).optional()?)
}

/// What a program is told of a token of its own (RFC 7662).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub scope: String,
    pub identity: Identity,
    pub account: Option<String>,
    pub patient: Option<String>,
    pub expires_s: i64,
    pub is_refresh: bool,
}

/// What is known of a token that is good and was given to `client`; `None` for every other.
pub fn introspect(db: &Connection, client: &Client, token: &str, now_ms: i64) -> Result<Option<Told>, StoreError> {
    if let Some(found) = live(db, token, now_ms)? {
        let told = Told {
            scope: scopes_text(&found.scopes),
            identity: found.identity,
            account: found.person.map(|(id, _, _)| id),
            patient: found.patient,
            expires_s: found.expires_ms / 1000,
            is_refresh: false,
        };
        return Ok(Some(told).filter(|_| found.client == client.id));
    }
    let sql = format!(
        "SELECT g.scopes, g.account, g.patient, r.expires_ms, g.identity FROM smart_refresh r JOIN smart_grant g ON g.id = r.grant_id \
         JOIN account a ON a.id = g.account WHERE r.token_hash = ?1 AND r.used_ms IS NULL AND r.expires_ms > ?2 \
         AND g.client = ?4 AND {GRANT_HOLDS}"
    );
    let row = |row: &crate::db::Row<'_>| {
        Ok(Told {
            scope: row.get(0)?,
            identity: Identity::of(&row.get::<_, String>(4)?),
            account: row.get(1)?,
            patient: row.get(2)?,
            expires_s: row.get::<_, i64>(3)? / 1000,
            is_refresh: true,
        })
    };
    let asked = (hash(token).as_slice().to_vec(), now_ms, oldest_session_s(now_ms), &client.id);
    Ok(db.prepare_cached(&sql)?.query_row(asked, row).optional()?)
}

/// Ends a token, whoever asks: to know it is enough. With a refresh token all that came of the same consent ends.
pub fn revoke(db: &Connection, token: &str, now_ms: i64) -> Result<(), StoreError> {
    let hash = hash(token);
    db.execute("DELETE FROM smart_token WHERE token_hash = ?1", [hash.as_slice()])?;
    let sql = "SELECT grant_id FROM smart_refresh WHERE token_hash = ?1";
    let grant: Option<String> = db.query_row(sql, [hash.as_slice()], |row| row.get(0)).optional()?;
    grant.map_or(Ok(()), |grant| grants::end_grant(db, &grant, now_ms))
}
