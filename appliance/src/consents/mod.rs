//! Consents: versioned texts, what was signed as it was shown, and the seal that proves it.
//!
//! A record is JSON: the text, who signed, how (strokes or a typed name), when, where from, in whose presence. Its bytes are
//! hashed together with the hash before, and the hash is signed with the server's Ed25519 key. The key's public half stands
//! in each record, so that a restored practice proves them all without the private half.

pub mod decisions;
pub mod pdf;

pub use decisions::{Effect, effect, permits, replaced};

use crate::access::Governs;
use crate::db::{Connection, OptionalExtension};
use crate::store::{StoreError, Tx};
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeroize::Zeroizing;

pub const SCHEMA: &str = include_str!("schema.sql");
/// What texts govern beside reminders, and what patients decided; applied by a later migration.
pub const SCHEMA_2: &str = include_str!("schema-2.sql");
/// Where the private half of the key is kept.
const KEY: &str = "consent-signing-key";
/// Points of one signature at most.
pub const POINTS_MAX: usize = 4000;

/// One version of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub id: String,
    pub version: i64,
    pub title: String,
    pub body: String,
    pub months: i64,
    pub governs: Option<Governs>,
    /// What it governs happens only with it; otherwise unless the patient refused or withdrew it.
    pub needed: bool,
    /// Patients are asked for it in the portal.
    pub portal: bool,
    pub in_use: bool,
}

/// What was said to a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Decision {
    /// Also of records from when nothing else was signed.
    #[default]
    Agreed,
    Refused,
}

/// How somebody signed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mark {
    /// Strokes of points, in a field of 600 by 200.
    Drawn(Vec<Vec<(u16, u16)>>),
    Typed(String),
}

/// What was signed. The order of its fields is the order of the sealed bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub consent: String,
    pub text_id: String,
    pub text_version: i64,
    pub title: String,
    pub body: String,
    pub patient: String,
    pub patient_name: String,
    pub patient_birth: String,
    pub signer: String,
    /// `patient`, `parent`, `guardian` ...
    pub relation: String,
    pub mark: Mark,
    /// RFC 3339, UTC.
    pub signed_at: String,
    pub address: String,
    pub device: String,
    /// Empty where nobody of the practice was there.
    pub witness: String,
    pub witness_account: String,
    #[serde(default)]
    pub decision: Decision,
    /// Where and how it was signed, as a sentence; empty in records from before it was written down.
    #[serde(default)]
    pub circumstances: String,
}

/// A record with its seal.
#[derive(Debug, Clone, PartialEq)]
pub struct Sealed {
    pub seq: i64,
    pub record: Record,
    pub bytes: String,
    pub hash: [u8; 32],
    pub signature: [u8; 64],
    pub public_key: [u8; 32],
}

const TEXT_COLUMNS: &str = "id, version, title, body, months, governs, needed, portal, in_use";

/// The newest version of every text, those in use first.
pub fn texts(db: &Connection) -> Result<Vec<Text>, StoreError> {
    let sql = format!(
        "SELECT {TEXT_COLUMNS} FROM consent_text t \
         WHERE version = (SELECT max(version) FROM consent_text x WHERE x.id = t.id) ORDER BY in_use DESC, title"
    );
    let mut statement = db.prepare_cached(&sql)?;
    Ok(statement.query_map([], text_row)?.collect::<Result<_, _>>()?)
}

/// The newest version of one text.
pub fn text(db: &Connection, id: &str) -> Result<Option<Text>, StoreError> {
    let sql = format!("SELECT {TEXT_COLUMNS} FROM consent_text WHERE id = ?1 ORDER BY version DESC LIMIT 1");
    Ok(db.prepare_cached(&sql)?.query_row([id], text_row).optional()?)
}

fn text_row(row: &crate::db::Row<'_>) -> crate::db::Result<Text> {
    Ok(Text {
        id: row.get(0)?,
        version: row.get(1)?,
        title: row.get(2)?,
        body: row.get(3)?,
        months: row.get(4)?,
        governs: Governs::parse(&row.get::<_, String>(5)?),
        needed: row.get::<_, i64>(6)? != 0,
        portal: row.get::<_, i64>(7)? != 0,
        in_use: row.get::<_, i64>(8)? != 0,
    })
}

/// Adds a version; the first of a new text has the number 1.
pub fn add_text(tx: &Tx<'_>, text: &Text) -> Result<(), StoreError> {
    let sql = "INSERT INTO consent_text \
               (id, version, title, body, months, governs, needed, portal, in_use, account, created_ms) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    let parameters = crate::db::params![
        text.id,
        text.version,
        text.title,
        text.body,
        text.months,
        text.governs.map_or("", Governs::as_str),
        i64::from(text.needed),
        i64::from(text.portal),
        i64::from(text.in_use),
        tx.actor().id,
        tx.now_ms(),
    ];
    tx.connection().prepare_cached(sql)?.execute(parameters)?;
    Ok(())
}

/// The server's key, made when it is first needed.
fn key(db: &Connection) -> Result<SigningKey, StoreError> {
    let sql = "SELECT value FROM practice_setting WHERE key = ?1";
    let found: Option<String> = db.prepare_cached(sql)?.query_row([KEY], |row| row.get(0)).optional()?;
    let secret: Zeroizing<[u8; 32]> = match found {
        Some(text) => {
            let bytes = Zeroizing::new(hex::decode(text).map_err(|_| StoreError::Damaged("consent key"))?);
            Zeroizing::new(bytes.as_slice().try_into().map_err(|_| StoreError::Damaged("consent key"))?)
        }
        None => {
            let fresh = Zeroizing::new(crate::clock::random::<32>().map_err(StoreError::io("randomness"))?);
            db.execute("INSERT INTO practice_setting (key, value) VALUES (?1, ?2)", (KEY, hex::encode(*fresh)))?;
            fresh
        }
    };
    Ok(SigningKey::from_bytes(&secret))
}

fn chained(previous: &[u8; 32], bytes: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("holdfast appliance consent record v1");
    hasher.update(previous).update(bytes.as_bytes());
    *hasher.finalize().as_bytes()
}

/// Seals a record after the last one.
pub fn seal(db: &Connection, record: &Record) -> Result<(), StoreError> {
    let bytes =
        serde_json::to_string(record).map_err(|_| StoreError::invalid("cannot be written as JSON", "consent"))?;
    let last = db
        .prepare_cached("SELECT hash FROM consent_record ORDER BY seq DESC LIMIT 1")?
        .query_row([], |row| row.get::<_, [u8; 32]>(0))
        .optional()?;
    let previous = last.unwrap_or_default();
    let hash = chained(&previous, &bytes);
    let key = key(db)?;
    let signature = key.sign(&hash).to_bytes();
    let sql = "INSERT INTO consent_record (consent, record, previous, hash, signature, public_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let public = key.verifying_key().to_bytes();
    db.prepare_cached(sql)?.execute((&record.consent, bytes, previous, hash, signature, public))?;
    // Only a sealed consent decides anything.
    let sql =
        "SELECT r.patient FROM resource r JOIN resource_type t ON t.id = r.type WHERE t.name = 'Consent' AND r.id = ?1";
    let patient = db.prepare_cached(sql)?.query_row([&record.consent], |row| row.get(0)).optional()?;
    patient.map_or(Ok(()), |patient| decisions::redraw(db, patient))
}

/// The record of a consent, as it was signed.
pub fn record(db: &Connection, consent: &str) -> Result<Option<Sealed>, StoreError> {
    let sql = "SELECT seq, record, hash, signature, public_key FROM consent_record WHERE consent = ?1 ORDER BY seq DESC LIMIT 1";
    type Row = (i64, String, [u8; 32], [u8; 64], [u8; 32]);
    let found: Option<Row> = db
        .prepare_cached(sql)?
        .query_row([consent], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))
        .optional()?;
    let Some((seq, bytes, hash, signature, public_key)) = found else { return Ok(None) };
    let record = serde_json::from_str(&bytes).map_err(|_| StoreError::Damaged("consent record"))?;
    Ok(Some(Sealed { seq, record, bytes, hash, signature, public_key }))
}

/// The number of the first record whose hash, chain or signature is not right; `None` when all are.
pub fn broken_at(db: &Connection) -> Result<Option<i64>, StoreError> {
    let mut statement =
        db.prepare("SELECT seq, record, previous, hash, signature, public_key FROM consent_record ORDER BY seq")?;
    let mut rows = statement.query([])?;
    let (mut last, mut expected) = ([0; 32], 1);
    while let Some(row) = rows.next()? {
        let (seq, bytes): (i64, String) = (row.get(0)?, row.get(1)?);
        let (previous, hash): ([u8; 32], [u8; 32]) = (row.get(2)?, row.get(3)?);
        let (signature, public): ([u8; 64], [u8; 32]) = (row.get(4)?, row.get(5)?);
        let proved = VerifyingKey::from_bytes(&public)
            .is_ok_and(|key| key.verify_strict(&hash, &Signature::from_bytes(&signature)).is_ok());
        if seq != expected || previous != last || hash != chained(&previous, &bytes) || !proved {
            return Ok(Some(expected));
        }
        (last, expected) = (hash, seq + 1);
    }
    Ok(None)
}

/// Whether a consent was signed here: another came over the API, and nobody knows what was shown.
pub fn is_sealed(db: &Connection, consent: &str) -> Result<bool, StoreError> {
    let sql = "SELECT 1 FROM consent_record WHERE consent = ?1 LIMIT 1";
    Ok(db.prepare_cached(sql)?.query_row([consent], |_| Ok(())).optional()?.is_some())
}

/// What the version of a text governs to which a record was signed.
pub fn governs_of(db: &Connection, record: &Record) -> Result<Option<Governs>, StoreError> {
    let sql = "SELECT governs FROM consent_text WHERE id = ?1 AND version = ?2";
    let asked = (&record.text_id, record.text_version);
    let found: Option<String> = db.prepare_cached(sql)?.query_row(asked, |row| row.get(0)).optional()?;
    Ok(found.as_deref().and_then(Governs::parse))
}

/// The text that a `Consent` is to.
pub fn text_of(consent: &Value) -> Option<&str> {
    consent.pointer("/policyRule/coding/0/code")?.as_str()
}

/// What of a decision holds at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Valid,
    Refused,
    Expired,
    Withdrawn,
    /// A later decision about the same text took its place.
    Replaced,
    /// Entered in error, or a state that no page makes.
    Other,
}

/// What holds of a decision, of which [`replaced`] says whether a later one took its place.
pub fn state(consent: &Value, replaced: bool, now_ms: i64) -> State {
    let over = end_of(consent).and_then(end_ms).is_some_and(|end| end <= now_ms);
    match status(consent) {
        "active" if over => State::Expired,
        "active" if replaced => State::Replaced,
        "active" if is_refusal(consent) => State::Refused,
        "active" => State::Valid,
        "inactive" => State::Withdrawn,
        _ => State::Other,
    }
}

pub fn is_refusal(consent: &Value) -> bool {
    consent.pointer("/provision/type").and_then(Value::as_str) == Some("deny")
}

fn status(consent: &Value) -> &str {
    consent.get("status").and_then(Value::as_str).unwrap_or_default()
}

fn end_of(consent: &Value) -> Option<&str> {
    consent.pointer("/provision/period/end")?.as_str()
}

/// When a period is over: at the moment that it names, or after the day, month or year.
fn end_ms(end: &str) -> Option<i64> {
    let named = crate::fhir::date::parse(end)?;
    Some(if end.contains('T') { named.lo } else { named.hi })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn record(consent: &str) -> Record {
        Record {
            consent: consent.into(),
            text_id: "t".into(),
            text_version: 1,
            title: "Photos".into(),
            body: "I agree.".into(),
            patient: "p".into(),
            patient_name: "Doe, Jo".into(),
            patient_birth: "1960-05-06".into(),
            signer: "Jo Doe".into(),
            relation: "patient".into(),
            mark: Mark::Drawn(vec![vec![(1, 2), (3, 4)]]),
            signed_at: "2026-05-28T20:26:40Z".into(),
            address: "127.0.0.1".into(),
            device: "test".into(),
            witness: "Anna".into(),
            witness_account: "a".into(),
            decision: Decision::Agreed,
            circumstances: String::new(),
        }
    }

    #[test]
    fn a_changed_removed_or_resealed_record_is_noticed() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE practice_setting (key TEXT PRIMARY KEY, value TEXT NOT NULL);").unwrap();
        db.execute_batch("CREATE TABLE resource (id TEXT, type INTEGER, patient INTEGER);").unwrap();
        db.execute_batch("CREATE TABLE resource_type (id INTEGER, name TEXT);").unwrap();
        db.execute_batch(SCHEMA).unwrap();
        for n in 1..=3 {
            seal(&db, &record(&format!("c{n}"))).unwrap();
        }
        assert_eq!(broken_at(&db).unwrap(), None);
        assert_eq!(super::record(&db, "c2").unwrap().unwrap().record, record("c2"));
        assert!(db.execute("UPDATE consent_record SET record = '' WHERE seq = 2", []).is_err(), "nothing is changed");
        db.execute_batch("DROP TRIGGER consent_record_keep_u; DROP TRIGGER consent_record_keep_d;").unwrap();
        let change = "UPDATE consent_record SET record = replace(record, 'I agree.', 'I agree to all.') WHERE seq = 2";
        db.execute(change, []).unwrap();
        assert_eq!(broken_at(&db).unwrap(), Some(2));
        // Whoever changes the hash too lacks the key.
        let bytes: String = db.query_row("SELECT record FROM consent_record WHERE seq = 2", [], |r| r.get(0)).unwrap();
        let previous: [u8; 32] =
            db.query_row("SELECT previous FROM consent_record WHERE seq = 2", [], |r| r.get(0)).unwrap();
        db.execute("UPDATE consent_record SET hash = ?1 WHERE seq = 2", [chained(&previous, &bytes)]).unwrap();
        assert_eq!(broken_at(&db).unwrap(), Some(2));
        db.execute("DELETE FROM consent_record WHERE seq = 1", []).unwrap();
        assert_eq!(broken_at(&db).unwrap(), Some(1));
    }
}
