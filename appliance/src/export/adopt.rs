//! `appliance import export DIR`: an export read back into an empty practice, whole or not at all.

use super::{AttachmentLine, Deleted, FORMAT, Manifest, PART_BYTES, PartFile, TABLES, VERSION};
use crate::access::Actor;
use crate::attachments::{ATTACHMENT_BYTES_MAX, Staged};
use crate::audit::{Action, Event};
use crate::db::Value as Cell;
use crate::fhir::types::TYPES;
use crate::store::{Adopted, Store, StoreError, Tx};
use chrono::DateTime;
use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

/// A manifest that is larger is none.
const MANIFEST_BYTES_MAX: u64 = 256 << 20;
/// The longest line: a resource with a scan inside of it.
const LINE_BYTES_MAX: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error("{0} cannot be read ({1}): give the folder of an export, unpacked")]
    Read(String, std::io::ErrorKind),
    #[error("manifest.json is none of an export")]
    Manifest,
    #[error("the export has version {0}, and this release reads up to {VERSION}: install the release that made it")]
    Newer(u32),
    #[error("the export has schema {0}, which this release does not know: install the release that made it")]
    Schema(u32),
    #[error("{0} is not what the manifest says: copy the export anew")]
    Changed(String),
    #[error("{0}, line {1}: {2}")]
    Line(String, u64, StoreError),
    #[error(
        "{0} files were missing or damaged where the export was made: restore them there, or say --without-damaged"
    )]
    Damaged(u64),
    #[error("this practice has records already: an export is read into an empty one")]
    Used,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was read.
#[derive(Debug, Default)]
pub struct Adoption {
    pub resources: u64,
    pub versions: u64,
    pub attachments: u64,
    pub postings: u64,
}

/// Reads an export into an empty practice.
pub fn adopt(store: &Store, actor: &Actor, dir: &Path, without_damaged: bool) -> Result<Adoption, AdoptError> {
    let manifest = manifest(dir)?;
    if manifest.damaged_attachments > 0 && !without_damaged {
        return Err(AdoptError::Damaged(manifest.damaged_attachments));
    }
    let unused = store.write_blocking(actor, |tx: &mut Tx<'_>| tx.is_unused())?;
    if !unused {
        return Err(AdoptError::Used);
    }
    // First everything is looked at, so that a damaged copy changes nothing.
    manifest.parts.iter().try_for_each(|part| check(dir, part))?;
    let staged = stage(store, dir, &manifest)?;
    let dir = dir.to_owned();
    store.write_blocking(actor, move |tx: &mut Tx<'_>| {
        let mut reading = Reading { dir, manifest, adoption: Adoption::default() };
        reading.resources(tx)?;
        reading.attachments(tx, staged)?;
        reading.ledger(tx)?;
        reading.tables(tx)?;
        let matches = reading.adoption.resources;
        tx.note(Event::new(Action::Import, "Practice", "").matches(matches));
        Ok(reading.adoption)
    })
}

fn manifest(dir: &Path) -> Result<Manifest, AdoptError> {
    #[derive(Deserialize)]
    struct Head {
        format: String,
        version: u32,
    }
    let failed = |error: std::io::Error| AdoptError::Read("manifest.json".into(), error.kind());
    let mut bytes = Vec::new();
    let file = fs::File::open(dir.join("manifest.json")).map_err(failed)?;
    file.take(MANIFEST_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    let head: Head = serde_json::from_slice(&bytes).map_err(|_| AdoptError::Manifest)?;
    if head.format != FORMAT {
        return Err(AdoptError::Manifest);
    }
    if head.version > VERSION {
        return Err(AdoptError::Newer(head.version));
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| AdoptError::Manifest)?;
    if manifest.schema > crate::store::SCHEMA_VERSION {
        return Err(AdoptError::Schema(manifest.schema));
    }
    let plain = |part: &PartFile| !part.path.split('/').any(|piece| piece.is_empty() || piece == "." || piece == "..");
    if manifest.parts.iter().all(plain) { Ok(manifest) } else { Err(AdoptError::Manifest) }
}

fn check(dir: &Path, part: &PartFile) -> Result<(), AdoptError> {
    let failed = |error: std::io::Error| AdoptError::Read(part.path.clone(), error.kind());
    let mut file = fs::File::open(dir.join(&part.path)).map_err(failed)?;
    let (mut hasher, mut buffer, mut bytes) = (Sha256::new(), vec![0; PART_BYTES], 0);
    loop {
        let length = file.read(&mut buffer).map_err(failed)?;
        let piece = buffer.get(..length).unwrap_or_default();
        if piece.is_empty() {
            break;
        }
        hasher.update(piece);
        bytes += length as u64;
    }
    if bytes == part.bytes && hex::encode(hasher.finalize()) == part.sha256 {
        Ok(())
    } else {
        Err(AdoptError::Changed(part.path.clone()))
    }
}

/// Puts every file where attachments are, checked against both its hashes. They belong to nobody until the rows are written.
fn stage(store: &Store, dir: &Path, manifest: &Manifest) -> Result<Vec<(AttachmentLine, Staged)>, AdoptError> {
    let mut staged = Vec::new();
    for part in manifest.parts.iter().filter(|part| part.path.starts_with("attachments-")) {
        for line in lines(dir, &part.path)? {
            let (number, line) = line?;
            let refused = |error| AdoptError::Line(part.path.clone(), number, error);
            let wrong = || StoreError::invalid("is no line of an attachment", "attachments");
            let line: AttachmentLine = serde_json::from_str(&line).map_err(|_| refused(wrong()))?;
            if line.sha256.is_empty() {
                continue;
            }
            if line.blake3.len() != 64 || !line.blake3.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(refused(wrong()));
            }
            let name = format!("attachments/{}", line.blake3);
            let failed = |error: std::io::Error| AdoptError::Read(name.clone(), error.kind());
            let mut bytes = Vec::new();
            let file = fs::File::open(dir.join(&name)).map_err(failed)?;
            file.take(ATTACHMENT_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
            let same = hex::encode(Sha256::digest(&bytes)) == line.sha256
                && blake3::hash(&bytes).to_hex().as_str() == line.blake3;
            if !same {
                return Err(AdoptError::Changed(name));
            }
            let found = store.attachments().stage(&bytes).map_err(refused)?;
            staged.push((line, found));
        }
    }
    Ok(staged)
}

type Lines = Box<dyn Iterator<Item = Result<(u64, String), AdoptError>>>;

/// The numbered lines of a part.
fn lines(dir: &Path, path: &str) -> Result<Lines, AdoptError> {
    let name = path.to_owned();
    let failed = move |error: std::io::Error| AdoptError::Read(name.clone(), error.kind());
    let file = fs::File::open(dir.join(path)).map_err(&failed)?;
    let mut reader = BufReader::new(file);
    let mut number = 0;
    Ok(Box::new(std::iter::from_fn(move || {
        let mut line = String::new();
        number += 1;
        match reader.by_ref().take(LINE_BYTES_MAX).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok((number, line.trim_end_matches('\n').to_owned()))),
            Err(error) => Some(Err(failed(error))),
        }
    })))
}

fn unix_ms(instant: &str) -> Result<i64, StoreError> {
    let at = DateTime::parse_from_rfc3339(instant);
    at.map(|at| at.timestamp_millis()).map_err(|_| StoreError::invalid("is no instant", "at"))
}

struct Reading {
    dir: PathBuf,
    manifest: Manifest,
    adoption: Adoption,
}

impl Reading {
    /// Every line of the parts whose names begin so.
    fn each(&self, prefix: &str, mut job: impl FnMut(&str) -> Result<(), StoreError>) -> Result<u64, AdoptError> {
        let mut count = 0;
        for part in self.manifest.parts.iter().filter(|part| part.path.starts_with(prefix)) {
            for line in lines(&self.dir, &part.path)? {
                let (number, line) = line?;
                job(&line).map_err(|error| match error {
                    // A full disk is no fault of a line.
                    StoreError::Full
                    | StoreError::Audit
                    | StoreError::Busy
                    | StoreError::Closed
                    | StoreError::Unreachable => AdoptError::Store(error),
                    error => AdoptError::Line(part.path.clone(), number, error),
                })?;
                count += 1;
            }
        }
        Ok(count)
    }

    fn resources(&mut self, tx: &mut Tx<'_>) -> Result<(), AdoptError> {
        // Patients come first in the table of types: what refers to them finds them.
        for kind in TYPES {
            let current =
                self.each(&format!("resources/{kind}-"), |line| version(kind, line, |adopted| tx.adopt(adopted)))?;
            let ended =
                self.each(&format!("deleted/{kind}-"), |line| version(kind, line, |adopted| tx.adopt(adopted)))?;
            self.adoption.resources += current + ended;
        }
        for kind in TYPES {
            let before = self
                .each(&format!("history/{kind}-"), |line| version(kind, line, |adopted| tx.adopt_version(adopted)))?;
            self.adoption.versions += before;
        }
        Ok(())
    }

    fn attachments(&mut self, tx: &mut Tx<'_>, staged: Vec<(AttachmentLine, Staged)>) -> Result<(), AdoptError> {
        for (line, staged) in staged {
            let patient = (!line.patient.is_empty()).then_some(line.patient.as_str());
            tx.attach_as(&line.id, &staged, patient)?;
            let sql = "UPDATE attachment SET created_ms = ?2 WHERE id = ?1";
            let at = unix_ms(&line.created)?;
            tx.connection().execute(sql, (&line.id, at)).map_err(StoreError::from)?;
            self.adoption.attachments += 1;
        }
        Ok(())
    }

    fn ledger(&mut self, tx: &mut Tx<'_>) -> Result<(), AdoptError> {
        let db = tx.connection();
        self.adoption.postings = self.each("ledger-", |line| {
            let wrong = || StoreError::invalid("is no posting whose entries sum to zero", "ledger");
            let posting: PostingLine = serde_json::from_str(line).map_err(|_| wrong())?;
            let sum = posting.entries.iter().try_fold(0i64, |sum, entry| sum.checked_add(entry.cents));
            if posting.entries.len() < 2 || sum != Some(0) {
                return Err(wrong());
            }
            let sql = "INSERT INTO ledger_posting (at_ms, actor, kind, reference) VALUES (?1, ?2, ?3, ?4)";
            let row = (unix_ms(&posting.at)?, &posting.actor, &posting.kind, &posting.reference);
            let id = db.insert("id", sql, row)?;
            let sql = "INSERT INTO ledger_entry (posting, account, patient, cents) VALUES (?1, ?2, \
                       coalesce((SELECT r.rid FROM resource r JOIN resource_type t ON t.id = r.type \
                                 WHERE t.name = 'Patient' AND r.id = ?3), 0), ?4)";
            for entry in &posting.entries {
                db.prepare_cached(sql)?.execute((id, &entry.account, &entry.patient, entry.cents))?;
            }
            Ok(())
        })?;
        Ok(())
    }

    fn tables(&mut self, tx: &mut Tx<'_>) -> Result<(), AdoptError> {
        let db = tx.connection();
        for table in TABLES {
            let known: BTreeSet<String> = db.columns(table).map_err(StoreError::from)?.into_iter().collect();
            self.each(&format!("tables/{table}-"), |line| {
                let wrong = || StoreError::invalid("is no row of this table", table);
                let row: Map<String, Value> = serde_json::from_str(line).map_err(|_| wrong())?;
                if !row.keys().all(|column| known.contains(column)) {
                    return Err(wrong());
                }
                let columns = row.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let places = (1..=row.len()).map(|at| format!("?{at}")).collect::<Vec<_>>().join(", ");
                let cells = row.values().map(|value| cell(value).ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
                let sql = format!("INSERT INTO {table} ({columns}) VALUES ({places})");
                db.prepare_cached(&sql)?.execute(crate::db::params_from_iter(cells))?;
                Ok(())
            })?;
        }
        crate::consents::decisions::redraw_all(db)?;
        Ok(())
    }
}

#[derive(Deserialize)]
struct PostingLine {
    at: String,
    actor: String,
    kind: String,
    reference: String,
    entries: Vec<EntryLine>,
}

#[derive(Deserialize)]
struct EntryLine {
    account: String,
    patient: String,
    cents: i64,
}

/// A line of `resources`, `deleted` or `history`.
fn version(kind: &str, line: &str, job: impl FnOnce(&Adopted<'_>) -> Result<(), StoreError>) -> Result<(), StoreError> {
    #[derive(Deserialize)]
    struct Head {
        id: String,
        meta: Meta,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Meta {
        version_id: String,
        last_updated: String,
    }
    if let Ok(Deleted { deleted, version, at }) = serde_json::from_str(line) {
        return job(&Adopted { kind, id: &deleted, version, updated_ms: unix_ms(&at)?, body: "" });
    }
    let wrong = || StoreError::invalid("is no resource with id, version and time", kind);
    let head: Head = serde_json::from_str(line).map_err(|_| wrong())?;
    let version = head.meta.version_id.parse().map_err(|_| wrong())?;
    job(&Adopted { kind, id: &head.id, version, updated_ms: unix_ms(&head.meta.last_updated)?, body: line })
}

fn cell(value: &Value) -> Option<Cell> {
    Some(match value {
        Value::Null => Cell::Null,
        Value::Number(number) => match number.as_i64() {
            Some(number) => Cell::Integer(number),
            None => Cell::Real(number.as_f64()?),
        },
        Value::String(text) => Cell::Text(text.clone()),
        Value::Object(bytes) => Cell::Blob(hex::decode(bytes.get("hex")?.as_str()?).ok()?),
        Value::Bool(_) | Value::Array(_) => return None,
    })
}
