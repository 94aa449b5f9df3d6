//! Registered programs, and how each proves itself.

use super::assertion::{Assertion, Key, keys};
use super::identity::{FHIR_USER, Identity, OPENID};
use super::{Refused, grants, hash};
use crate::access::grant::Scope;
use crate::db::{Connection, OptionalExtension};
use crate::store::StoreError;

/// The word by which a program asks to stay connected while nobody is there.
pub const OFFLINE: &str = "offline_access";
const NAME_CHARS_MAX: usize = 80;
const REDIRECTS_MAX: usize = 10;
const URL_BYTES_MAX: usize = 500;

/// What a program is, which decides how it proves itself and by which way it gets tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Acts by itself; signs with its own key.
    Backend,
    /// Acts for a person and can keep no secret: a page in the browser, a program on a phone.
    Public,
    /// Acts for a person; has a secret.
    Symmetric,
    /// Acts for a person; signs with its own key.
    Asymmetric,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Public, Kind::Symmetric, Kind::Asymmetric, Kind::Backend];

    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Backend => "backend",
            Kind::Public => "public",
            Kind::Symmetric => "symmetric",
            Kind::Asymmetric => "asymmetric",
        }
    }

    pub fn parse(word: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    fn has_keys(self) -> bool {
        matches!(self, Kind::Backend | Kind::Asymmetric)
    }
}

/// A registered program.
#[derive(Debug, Clone)]
pub struct Client {
    pub id: String,
    pub name: String,
    pub kind: Kind,
    pub scopes: Vec<Scope>,
    /// Whether it may stay connected while nobody is there.
    pub offline: bool,
    /// What it may be told of the person.
    pub identity: Identity,
    pub redirects: Vec<String>,
    /// Where it is started from a chart; empty for nowhere.
    pub launch_url: String,
    pub disabled: bool,
    secret_hash: Option<Vec<u8>>,
    keys: Vec<Key>,
}

/// A program as the practice registers it.
#[derive(Debug, Clone, Copy)]
pub struct Registration<'a> {
    pub id: &'a str,
    pub name: &'a str,
    pub kind: Kind,
    /// Its key set (`{"keys": [...]}`); it lies here, so that nothing is ever fetched from an address.
    pub jwks: &'a str,
    /// A fresh random secret, for [`Kind::Symmetric`].
    pub secret: &'a str,
    /// What it may be granted at most, divided by spaces; with `offline_access` where it may stay connected, and `openid fhirUser`
    /// where it may be told who the person is.
    pub scopes: &'a str,
    /// Where an answer may go, divided by white space.
    pub redirects: &'a str,
    pub launch_url: &'a str,
}

impl<'a> Registration<'a> {
    /// A program that acts by itself.
    pub fn backend(id: &'a str, name: &'a str, jwks: &'a str, scopes: &'a str) -> Self {
        Self { id, name, kind: Kind::Backend, jwks, secret: "", scopes, redirects: "", launch_url: "" }
    }
}

/// Registers a program.
///
/// # Errors
/// [`StoreError::Invalid`] with the field that cannot be so.
pub fn register(db: &Connection, new: &Registration<'_>, now_ms: i64) -> Result<(), StoreError> {
    if new.name.trim().is_empty() || new.name.chars().count() > NAME_CHARS_MAX {
        return Err(StoreError::invalid("must have 1 to 80 characters", "name"));
    }
    if new.kind.has_keys() && keys(new.jwks).is_empty() {
        return Err(StoreError::invalid("holds no RSA (2048 bits or more) or P-384 key for RS384 or ES384", "jwks"));
    }
    let (data, offline, identity) = split(new.scopes);
    let parsed = super::scopes(&data).filter(|scopes| !scopes.is_empty());
    let fit = |scopes: &Vec<Scope>| scopes.iter().all(|scope| scope.is_system() == (new.kind == Kind::Backend));
    if parsed.filter(fit).is_none() || (offline || identity.openid) && new.kind == Kind::Backend {
        let remedy = match new.kind {
            Kind::Backend => "must be system scopes such as system/Patient.rs",
            _ => "must be patient and user scopes such as patient/Observation.rs",
        };
        return Err(StoreError::invalid(remedy, "scope"));
    }
    let redirects: Vec<&str> = new.redirects.split_whitespace().collect();
    let backend = new.kind == Kind::Backend;
    if backend != redirects.is_empty() || redirects.len() > REDIRECTS_MAX || !redirects.iter().all(|to| is_redirect(to))
    {
        let remedy = "must be one to ten addresses: https, http to this machine (127.0.0.1), or a scheme with a dot";
        return Err(StoreError::invalid(remedy, "redirect"));
    }
    if !new.launch_url.is_empty() && (backend || !is_page(new.launch_url)) {
        return Err(StoreError::invalid("must be an https address, or http to this machine", "launch"));
    }
    let secret = (new.kind == Kind::Symmetric).then(|| hash(new.secret).to_vec());
    let sql = "INSERT INTO smart_client (id, name, jwks, scopes, created_ms, kind, secret_hash, redirects, launch_url) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)";
    let jwks = if new.kind.has_keys() { new.jwks } else { "" };
    let (redirects, kind) = (redirects.join(" "), new.kind.as_str());
    let row = (new.id, new.name.trim(), jwks, new.scopes.trim(), now_ms, kind, secret, redirects, new.launch_url);
    db.execute(sql, row)?;
    Ok(())
}

/// The scopes on records, whether the program may stay connected, and what it may be told of the person.
fn split(text: &str) -> (String, bool, Identity) {
    let (words, data): (Vec<&str>, Vec<&str>) =
        text.split_whitespace().partition(|word| [OFFLINE, OPENID, FHIR_USER].contains(word));
    (data.join(" "), words.contains(&OFFLINE), Identity::of(text))
}

/// What may stand in an address that we send browsers to and name in a header.
fn is_plain(url: &str) -> bool {
    let allowed = |b: u8| {
        b.is_ascii_graphic()
            && !matches!(
                b,
                b'"' | b'\'' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' | b',' | b';' | b'#' | b'*'
            )
    };
    url.len() <= URL_BYTES_MAX && url.bytes().all(allowed)
}

/// The part of an address behind the scheme, up to the path.
fn authority(rest: &str) -> &str {
    rest.split(['/', '?']).next().unwrap_or_default()
}

/// The origin of a registered address, as a content policy or the header `Origin` names it: scheme, host and port, or the
/// private scheme alone.
pub fn origin(url: &str) -> &str {
    match url.split_once("://") {
        Some((scheme, rest)) => url.get(..scheme.len() + 3 + authority(rest).len()).unwrap_or_default(),
        None => url.split_inclusive(':').next().unwrap_or_default(),
    }
}

/// A page on the web, or one of this very machine.
fn is_page(url: &str) -> bool {
    let own = |host: &str| matches!(host, "127.0.0.1" | "localhost" | "[::1]");
    let host_of = |authority: &str| match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => host.to_owned(),
        _ => authority.to_owned(),
    };
    let good = match (url.strip_prefix("https://"), url.strip_prefix("http://")) {
        (Some(rest), _) => !authority(rest).is_empty() && !authority(rest).contains('@'),
        (_, Some(rest)) => own(&host_of(authority(rest))),
        _ => false,
    };
    good && is_plain(url)
}

/// Where a code may be sent: a page, or the private scheme of a program on the same device (RFC 8252, 7.1).
fn is_redirect(url: &str) -> bool {
    let private = |url: &str| {
        let Some((scheme, rest)) = url.split_once(':') else { return false };
        let named = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+'));
        named && scheme.contains('.') && scheme.starts_with(|c: char| c.is_ascii_lowercase()) && !rest.is_empty()
    };
    is_page(url) || private(url) && is_plain(url)
}

const COLUMNS: &str = "id, name, jwks, scopes, disabled_ms, kind, secret_hash, redirects, launch_url";

fn row(row: &crate::db::Row<'_>) -> crate::db::Result<Client> {
    let (jwks, scopes, redirects): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(7)?);
    let (data, offline, identity) = split(&scopes);
    Ok(Client {
        id: row.get(0)?,
        name: row.get(1)?,
        kind: Kind::parse(&row.get::<_, String>(5)?).unwrap_or(Kind::Backend),
        scopes: data.split_whitespace().filter_map(Scope::parse).collect(),
        offline,
        identity,
        redirects: redirects.split_whitespace().map(str::to_owned).collect(),
        launch_url: row.get(8)?,
        disabled: row.get::<_, Option<i64>>(4)?.is_some(),
        secret_hash: row.get(6)?,
        keys: keys(&jwks),
    })
}

/// All registered programs.
pub fn list(db: &Connection) -> Result<Vec<Client>, StoreError> {
    let mut statement = db.prepare(&format!("SELECT {COLUMNS} FROM smart_client ORDER BY name, id"))?;
    Ok(statement.query_map([], row)?.collect::<Result<_, _>>()?)
}

/// A program that has not been disabled.
pub fn client(db: &Connection, id: &str) -> Result<Option<Client>, StoreError> {
    let sql = format!("SELECT {COLUMNS} FROM smart_client WHERE id = ?1 AND disabled_ms IS NULL");
    Ok(db.prepare_cached(&sql)?.query_row([id], row).optional()?)
}

/// Whether pages of this origin belong to a public program: they ask from the browser itself.
pub fn is_browser_origin(db: &Connection, origin: &str) -> Result<bool, StoreError> {
    let mut statement =
        db.prepare_cached("SELECT redirects FROM smart_client WHERE kind = 'public' AND disabled_ms IS NULL")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let redirects = row.get_ref(0)?.as_str().map_err(|_| StoreError::Damaged("smart_client"))?;
        if redirects.split(' ').any(|url| url.starts_with("http") && self::origin(url) == origin) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Ends a program's access; its tokens are worth nothing from now on.
pub fn disable(db: &Connection, id: &str, now_ms: i64) -> Result<(), StoreError> {
    grants::end_all(db, "client", id, now_ms)?;
    db.execute("DELETE FROM smart_token WHERE client = ?1", [id])?;
    let sql = "UPDATE smart_client SET disabled_ms = ?2 WHERE id = ?1 AND disabled_ms IS NULL";
    if db.execute(sql, (id, now_ms))? == 0 { Err(StoreError::NotFound) } else { Ok(()) }
}

/// By what a program says who it is.
#[derive(Debug, Clone, Default)]
pub struct Presented {
    pub client: String,
    pub secret: Option<String>,
    pub assertion: Option<String>,
}

/// The program that proved itself, in the way that it is registered for and in no other. `audiences` are the addresses that
/// an assertion may be made for.
pub fn authenticate(
    db: &Connection,
    presented: &Presented,
    audiences: &[String],
    now_ms: i64,
) -> Result<Result<Client, Refused>, StoreError> {
    let claims = match &presented.assertion {
        Some(text) => match Assertion::parse(text) {
            Some(claims) => Some(claims),
            None => return Ok(Err(Refused::Request)),
        },
        None => None,
    };
    if claims.is_some() && presented.secret.is_some() {
        return Ok(Err(Refused::Request));
    }
    let id = claims.as_ref().map_or(presented.client.as_str(), |claims| claims.issuer.as_str());
    let Some(found) = client(db, id)? else { return Ok(Err(Refused::Client)) };
    let named = presented.client.is_empty() || presented.client == found.id;
    let proved = match (found.kind, &claims, &presented.secret) {
        (Kind::Public, None, None) => true,
        (Kind::Symmetric, None, Some(secret)) => {
            let own = found.secret_hash.as_deref().unwrap_or_default();
            !own.is_empty() && service::auth::constant_time_eq(own, &hash(secret))
        }
        (Kind::Backend | Kind::Asymmetric, Some(claims), None) => {
            claims.is_good(&found.id, &found.keys, audiences, now_ms / 1000) && is_first(db, &found.id, claims, now_ms)?
        }
        _ => false,
    };
    Ok(if named && proved { Ok(found) } else { Err(Refused::Client) })
}

/// Whether an assertion is used for the first time: whoever sends it again may have overheard it.
fn is_first(db: &Connection, client: &str, claims: &Assertion, now_ms: i64) -> Result<bool, StoreError> {
    db.execute("DELETE FROM smart_assertion WHERE expires_ms < ?1", [now_ms])?;
    let sql = "INSERT INTO smart_assertion (client, jti, expires_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    Ok(db.execute(sql, (client, &claims.jti, claims.expires_s.saturating_mul(1000)))? == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_go_to_pages_and_private_schemes_alone() {
        for good in [
            "https://app.example/callback",
            "https://app.example:8443/callback?x=1",
            "http://127.0.0.1:4000/back",
            "http://localhost/back",
            "http://[::1]:4000/back",
            "com.example.growth:/back",
        ] {
            assert!(is_redirect(good), "{good}");
        }
        for bad in [
            "",
            "http://app.example/callback",
            "http://127.0.0.1.evil.example/",
            "http://localhost@evil.example/",
            "https://user@evil.example/",
            "https://",
            "javascript:alert(1)",
            "data:text/html,x",
            "https://app.example/#fragment",
            "https://app.example/a;b",
            "https://*.example/",
            "https://app.example/\u{e9}",
        ] {
            assert!(!is_redirect(bad), "{bad}");
        }
        assert_eq!(origin("https://app.example:8443/callback?x=1"), "https://app.example:8443");
        assert_eq!(origin("com.example.growth:/back"), "com.example.growth:");
        assert!(!is_page("com.example.growth:/launch"), "a chart opens pages");
    }
}
