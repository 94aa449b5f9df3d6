//! What people allowed programs: launch, consent, code, refresh token.

use super::clients::Client;
use super::identity::Identity;
use super::{GRANT_HOLDS, Refused, hash, issue, oldest_session_s, scopes_text, within};
use crate::access::grant::{Grant, Scope};
use crate::db::{Connection, OptionalExtension};
use crate::store::StoreError;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

/// How long a code is good, seconds: a program trades it in at once.
pub const CODE_S: i64 = 60;
/// How long a launch from a chart waits for the program, seconds.
const LAUNCH_S: i64 = 300;
/// A refresh token that nobody used for so long is over, seconds.
const REFRESH_S: i64 = 30 * 86_400;
/// After so long a program that stays connected asks the person again, seconds.
const OFFLINE_S: i64 = 90 * 86_400;

/// The word by which a program asks to stay connected as long as the person's session.
pub const ONLINE: &str = "online_access";

/// Whether a program gets new access tokens, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refresh {
    None,
    /// As long as this session, which is known by the token of its forms: that stays over an unlock.
    Online {
        session: String,
        ends_ms: i64,
    },
    Offline,
}

impl Refresh {
    fn word(&self) -> &'static str {
        match self {
            Refresh::None => "none",
            Refresh::Online { .. } => "online",
            Refresh::Offline => "offline",
        }
    }
}

/// What a person allows.
#[derive(Debug, Clone)]
pub struct Consent {
    pub client: String,
    pub account: String,
    pub patient: Option<String>,
    pub scopes: Vec<Scope>,
    pub identity: Identity,
    /// What the program sent along for its ID token; may be empty.
    pub nonce: String,
    pub refresh: Refresh,
    pub redirect: String,
    /// The S256 challenge, as the program sent it.
    pub challenge: String,
}

/// Begins a launch of a program from a patient's chart.
pub fn launch(
    db: &Connection,
    (client, account, patient): (&str, &str, &str),
    token: &str,
    now_ms: i64,
) -> Result<(), StoreError> {
    db.execute("DELETE FROM smart_launch WHERE expires_ms < ?1", [now_ms])?;
    let sql = "INSERT INTO smart_launch (token_hash, client, account, patient, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)";
    db.execute(sql, (hash(token).as_slice(), client, account, patient, now_ms + LAUNCH_S * 1000))?;
    Ok(())
}

/// The patient of a launch that this person began for this program.
pub fn launched(
    db: &Connection,
    (client, account): (&str, &str),
    token: &str,
    now_ms: i64,
) -> Result<Option<String>, StoreError> {
    let sql =
        "SELECT patient FROM smart_launch WHERE token_hash = ?1 AND client = ?2 AND account = ?3 AND expires_ms > ?4";
    Ok(db.query_row(sql, (hash(token).as_slice(), client, account, now_ms), |row| row.get(0)).optional()?)
}

/// Uses a launch up; whether it was there.
pub fn take_launch(db: &Connection, token: &str) -> Result<bool, StoreError> {
    Ok(db.execute("DELETE FROM smart_launch WHERE token_hash = ?1", [hash(token).as_slice()])? == 1)
}

/// Writes down what a person allowed, under a new id, and the code that the program gets.
pub fn allow(db: &Connection, id: &str, consent: &Consent, code: &str, now_ms: i64) -> Result<(), StoreError> {
    db.execute("DELETE FROM smart_code WHERE expires_ms < ?1", [now_ms - REFRESH_S * 1000])?;
    let (session, ends_ms) = match &consent.refresh {
        Refresh::None => (None, now_ms + (CODE_S + super::TOKEN_S) * 1000),
        Refresh::Online { session, ends_ms } => (Some(session.as_str()), *ends_ms),
        Refresh::Offline => (None, now_ms + OFFLINE_S * 1000),
    };
    let sql = "INSERT INTO smart_grant (id, client, account, patient, scopes, refresh, session, began_ms, ends_ms, identity) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let (scopes, word, identity) =
        (scopes_text(&consent.scopes), consent.refresh.word(), consent.identity.words().join(" "));
    let row =
        (id, &consent.client, &consent.account, &consent.patient, scopes, word, session, now_ms, ends_ms, identity);
    db.execute(sql, row)?;
    let sql = "INSERT INTO smart_code (code_hash, grant_id, redirect, challenge, expires_ms, nonce) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let expires_ms = now_ms + CODE_S * 1000;
    let Consent { redirect, challenge, nonce, .. } = consent;
    db.execute(sql, (hash(code).as_slice(), id, redirect, challenge, expires_ms, nonce))?;
    Ok(())
}

/// Whether a text can be an S256 challenge: 32 bytes in base64url.
pub fn is_challenge(text: &str) -> bool {
    text.len() == 43 && BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

fn verifies(verifier: &str, challenge: &str) -> bool {
    let named = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    let own = BASE64_URL_SAFE_NO_PAD.encode(hash(verifier));
    (43..=128).contains(&verifier.len())
        && verifier.bytes().all(named)
        && service::auth::constant_time_eq(own.as_bytes(), challenge.as_bytes())
}

/// What a program gets.
#[derive(Debug, Clone)]
pub struct Given {
    pub grant: Grant,
    /// The word of the scope by which the refresh token that was offered is good; `None` where it is not.
    pub refresh: Option<&'static str>,
    /// What the program is told of the person, in an ID token, where a code was traded.
    pub identity: Identity,
    pub account: String,
    /// The `Practitioner` who the person is.
    pub practitioner: Option<String>,
    /// `None` where no code was traded: then there is no ID token.
    pub nonce: Option<String>,
}

impl Given {
    /// What a program gets that acts by itself.
    pub fn alone(grant: Grant) -> Self {
        let (identity, account) = (Identity::default(), String::new());
        Self { grant, refresh: None, identity, account, practitioner: None, nonce: None }
    }
}

struct Held {
    id: String,
    client: String,
    patient: Option<String>,
    scopes: String,
    refresh: String,
    ends_ms: i64,
    identity: Identity,
    account: String,
    practitioner: Option<String>,
    holds: bool,
    /// Of the code or refresh token itself.
    used: bool,
    expires_ms: i64,
}

/// The grant behind a code or a refresh token. `token` names its table and key.
fn held(db: &Connection, token: (&str, &str), secret: &str, now_ms: i64) -> Result<Option<Held>, StoreError> {
    let (table, key) = token;
    let sql = format!(
        "SELECT g.id, g.client, g.patient, g.scopes, g.refresh, g.ends_ms, ({GRANT_HOLDS}), t.used_ms, t.expires_ms, \
         g.identity, g.account, a.practitioner \
         FROM {table} t JOIN smart_grant g ON g.id = t.grant_id JOIN account a ON a.id = g.account WHERE t.{key} = ?1"
    );
    let row = |row: &crate::db::Row<'_>| {
        Ok(Held {
            id: row.get(0)?,
            client: row.get(1)?,
            patient: row.get(2)?,
            scopes: row.get(3)?,
            refresh: row.get(4)?,
            ends_ms: row.get(5)?,
            holds: row.get(6)?,
            used: row.get::<_, Option<i64>>(7)?.is_some(),
            expires_ms: row.get(8)?,
            identity: Identity::of(&row.get::<_, String>(9)?),
            account: row.get(10)?,
            practitioner: row.get(11)?,
        })
    };
    let asked = (hash(secret).as_slice().to_vec(), now_ms, oldest_session_s(now_ms));
    Ok(db.prepare_cached(&sql)?.query_row(asked, row).optional()?)
}

const CODES: (&str, &str) = ("smart_code", "code_hash");
const REFRESHES: (&str, &str) = ("smart_refresh", "token_hash");

fn use_up(db: &Connection, (table, key): (&str, &str), secret: &str, now_ms: i64) -> Result<(), StoreError> {
    let sql = format!("UPDATE {table} SET used_ms = ?2 WHERE {key} = ?1");
    db.execute(&sql, (hash(secret).as_slice(), now_ms))?;
    Ok(())
}

/// The fresh tokens that an exchange may give out.
#[derive(Debug, Clone)]
pub struct Fresh {
    pub access: String,
    pub refresh: String,
}

impl Fresh {
    pub fn random() -> Self {
        Self { access: service::auth::random_token(), refresh: service::auth::random_token() }
    }
}

/// Trades a code for tokens. A code that comes back wrong in any way is in wrong hands: what it stands for ends.
pub fn exchange(
    db: &Connection,
    client: &Client,
    (code, redirect, verifier): (&str, &str, &str),
    fresh: &Fresh,
    now_ms: i64,
) -> Result<Result<Given, Refused>, StoreError> {
    let Some(held) = held(db, CODES, code, now_ms)? else { return Ok(Err(Refused::Grant)) };
    let sql = "SELECT redirect, challenge, nonce FROM smart_code WHERE code_hash = ?1";
    let (to, challenge, nonce): (String, String, String) =
        db.query_row(sql, [hash(code).as_slice()], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let right = !held.used
        && held.holds
        && held.expires_ms > now_ms
        && held.client == client.id
        && to == redirect
        && verifies(verifier, &challenge);
    use_up(db, CODES, code, now_ms)?;
    if !right {
        end_grant(db, &held.id, now_ms)?;
        return Ok(Err(Refused::Grant));
    }
    let scopes = super::scopes(&held.scopes).unwrap_or_default();
    let given = give(db, &held, scopes, fresh, now_ms)?;
    Ok(Ok(Given { nonce: Some(nonce), ..given }))
}

/// Trades a refresh token for new tokens, for the same scopes or fewer. One that was used before ends all of them: either this
/// program or somebody else holds a copy.
pub fn refresh(
    db: &Connection,
    client: &Client,
    (token, scope): (&str, &str),
    fresh: &Fresh,
    now_ms: i64,
) -> Result<Result<Given, Refused>, StoreError> {
    let Some(held) = held(db, REFRESHES, token, now_ms)? else { return Ok(Err(Refused::Grant)) };
    if held.used || held.client != client.id {
        end_grant(db, &held.id, now_ms)?;
        return Ok(Err(Refused::Grant));
    }
    if !held.holds || held.expires_ms <= now_ms {
        return Ok(Err(Refused::Grant));
    }
    let all = super::scopes(&held.scopes).unwrap_or_default();
    let data: Vec<&str> =
        scope.split_whitespace().filter(|word| word.contains('/') && !word.starts_with("launch/")).collect();
    let scopes = match data.is_empty() {
        true => all,
        false => match within(&data.join(" "), &all) {
            Some(scopes) => scopes,
            None => return Ok(Err(Refused::Scope)),
        },
    };
    use_up(db, REFRESHES, token, now_ms)?;
    give(db, &held, scopes, fresh, now_ms).map(Ok)
}

fn give(db: &Connection, held: &Held, scopes: Vec<Scope>, fresh: &Fresh, now_ms: i64) -> Result<Given, StoreError> {
    let grant = Grant { client: held.client.clone(), scopes, patient: held.patient.clone() };
    issue(db, &grant, Some(&held.id), &fresh.access, now_ms)?;
    let refresh = match held.refresh.as_str() {
        "online" => Some(ONLINE),
        "offline" => Some(super::OFFLINE),
        _ => None,
    };
    if refresh.is_some() {
        db.execute("DELETE FROM smart_refresh WHERE expires_ms < ?1", [now_ms])?;
        let expires_ms = held.ends_ms.min(now_ms + REFRESH_S * 1000);
        let sql = "INSERT INTO smart_refresh (token_hash, grant_id, expires_ms) VALUES (?1, ?2, ?3)";
        db.execute(sql, (hash(&fresh.refresh).as_slice(), &held.id, expires_ms))?;
    }
    let (identity, account, practitioner) = (held.identity, held.account.clone(), held.practitioner.clone());
    Ok(Given { grant, refresh, identity, account, practitioner, nonce: None })
}

/// Ends a grant and all tokens that came of it. Used codes and refresh tokens stay known until they are over.
pub(super) fn end_grant(db: &Connection, id: &str, now_ms: i64) -> Result<(), StoreError> {
    db.execute("UPDATE smart_grant SET ended_ms = ?2 WHERE id = ?1 AND ended_ms IS NULL", (id, now_ms))?;
    db.execute("DELETE FROM smart_token WHERE grant_id = ?1", [id])?;
    Ok(())
}

/// Ends every grant whose `column` (client or account) is this.
pub(super) fn end_all(db: &Connection, column: &str, id: &str, now_ms: i64) -> Result<(), StoreError> {
    let sql = format!("DELETE FROM smart_token WHERE grant_id IN (SELECT id FROM smart_grant WHERE {column} = ?1)");
    db.execute(&sql, [id])?;
    let sql = format!("UPDATE smart_grant SET ended_ms = ?2 WHERE {column} = ?1 AND ended_ms IS NULL AND ends_ms > ?2");
    db.execute(&sql, (id, now_ms))?;
    Ok(())
}

/// Ends all that a person allowed: a new password, an account that was ended.
pub fn end_of_account(db: &Connection, account: &str, now_ms: i64) -> Result<(), StoreError> {
    end_all(db, "account", account, now_ms)
}

/// A grant as its giver sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowed {
    pub id: String,
    pub program: String,
    pub scopes: String,
    pub patient: Option<String>,
    pub offline: bool,
    pub began_ms: i64,
    pub ends_ms: i64,
}

/// What a person allowed and has not ended.
pub fn given_by(db: &Connection, account: &str, now_ms: i64) -> Result<Vec<Allowed>, StoreError> {
    let sql = format!(
        "SELECT g.id, c.name, g.scopes, g.patient, g.refresh = 'offline', g.began_ms, g.ends_ms FROM smart_grant g \
         JOIN smart_client c ON c.id = g.client JOIN account a ON a.id = g.account \
         WHERE g.account = ?1 AND {GRANT_HOLDS} ORDER BY g.began_ms DESC"
    );
    let row = |row: &crate::db::Row<'_>| {
        Ok(Allowed {
            id: row.get(0)?,
            program: row.get(1)?,
            scopes: row.get(2)?,
            patient: row.get(3)?,
            offline: row.get(4)?,
            began_ms: row.get(5)?,
            ends_ms: row.get(6)?,
        })
    };
    let mut statement = db.prepare_cached(&sql)?;
    let asked = (account, now_ms, oldest_session_s(now_ms));
    Ok(statement.query_map(asked, row)?.collect::<Result<_, _>>()?)
}

/// Ends one grant of a person's.
pub fn end(db: &Connection, account: &str, id: &str, now_ms: i64) -> Result<(), StoreError> {
    let sql = "SELECT 1 FROM smart_grant WHERE id = ?1 AND account = ?2";
    if db.query_row(sql, (id, account), |_| Ok(())).optional()?.is_none() {
        return Err(StoreError::NotFound);
    }
    end_grant(db, id, now_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7636, appendix B.
    #[test]
    fn the_challenge_is_that_of_the_standard() {
        let (verifier, challenge) =
            ("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        assert!(is_challenge(challenge) && verifies(verifier, challenge));
        assert!(!verifies(challenge, challenge), "plain is not S256");
        assert!(!verifies(&verifier[1..], challenge) && !verifies("", challenge));
        for bad in ["", "plain", &challenge[1..], &format!("{challenge}A"), &challenge.replace('-', "+")] {
            assert!(!is_challenge(bad), "{bad}");
        }
    }
}
