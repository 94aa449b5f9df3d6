//! Everything that a practice has, in formats that other programs read: no lock-in.
//!
//! ```text
//! resources/Patient-0001.ndjson ...    current versions, a resource a line (the format of FHIR Bulk Data)
//! history/  deleted/                   superseded versions; what was deleted, by id and version
//! attachments-0001.ndjson ...          a line for each file: whose, what, its hashes; the file itself is attachments/BLAKE3
//! ledger-0001.ndjson  tables/  audit/  people.ndjson
//! manifest.json                        size and SHA-256 of each of these, and the facts; written last
//! ```
//!
//! One read transaction, parts of a bounded size one after the other: the memory does not grow with the practice.
//! [`adopt`] reads the same back into an empty practice.

pub mod adopt;
pub mod patient;
mod zip;

pub use zip::Zip;

use crate::access::{self, Actor, Object};
use crate::attachments::{AttachmentRow, Attachments};
use crate::audit::{self, Action, Event};
use crate::clock;
use crate::db::Connection;
use crate::db::ValueRef;
use crate::fhir::types::TYPES;
use crate::ops::facts::{self, Depth};
use crate::store::{Store, StoreError, Tx};
use appliance_api::Facts;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

pub const FORMAT: &str = "holdfast-export";
pub const VERSION: u32 = 1;
/// A part is closed when it has reached this, so that neither writer nor reader holds more.
const PART_BYTES: usize = 4 << 20;

/// What a practice decides and keeps beside its resources, and may take along. Accounts, links and tokens are secrets of this
/// installation and stay.
pub const TABLES: [&str; 5] = ["consent_text", "consent_record", "phrase", "practice_setting", "imported_row"];
/// Settings but for secrets, and for which accounts followed a merged record.
const OPEN_SETTINGS: &str = "key NOT LIKE '%-key' AND key NOT LIKE '%-secret' AND key NOT LIKE 'merged %' \
     AND key NOT LIKE 'key-copied %'";

/// Where the files of an export go, in order.
pub trait Sink {
    /// Writes one file; `path` is ASCII, with `/`, and nothing of a record stands in it.
    fn file(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), StoreError>;
}

/// A new folder.
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Makes the folder.
    ///
    /// # Errors
    /// [`StoreError::Io`] when something is there already.
    pub fn create(root: &Path) -> Result<Folder, StoreError> {
        fs::create_dir(root).map_err(StoreError::io("folder of the export"))?;
        Ok(Folder { root: root.to_owned() })
    }
}

impl Sink for Folder {
    fn file(&mut self, path: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let failed = StoreError::io("folder of the export");
        let path = self.root.join(path);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(path.parent().unwrap_or(&self.root))?;
            let mut file = fs::File::create_new(&path)?;
            file.write_all(&bytes)?;
            file.sync_all()
        };
        write().map_err(failed)
    }
}

/// One part of an export.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PartFile {
    pub path: String,
    pub bytes: u64,
    pub lines: u64,
    pub sha256: String,
}

/// What an export holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Manifest {
    pub format: String,
    pub version: u32,
    pub schema: u32,
    pub taken: String,
    pub practice: String,
    /// Files that could not be exported because they are missing or damaged; each is marked in its line.
    pub damaged_attachments: u64,
    pub facts: Facts,
    pub parts: Vec<PartFile>,
}

/// A line of `attachments-*.ndjson`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AttachmentLine {
    /// The `Binary` to which resources refer.
    pub id: String,
    /// Logical id of the patient; empty for none.
    pub patient: String,
    pub media_type: String,
    pub bytes: u64,
    pub created: String,
    pub blake3: String,
    /// Empty where the file is missing or damaged.
    pub sha256: String,
    pub file: String,
}

/// A version of a resource that says that it was deleted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Deleted {
    pub deleted: String,
    pub version: u32,
    pub at: String,
}

/// Exports everything. The access record tells of it before the first file is written.
///
/// # Errors
/// [`StoreError::Denied`] for who may not, and whatever the sink refuses, which ends the export.
pub fn everything(
    store: &Store,
    actor: &Actor,
    practice: &str,
    sink: &mut dyn Sink,
    mut progress: impl FnMut(u64),
) -> Result<Manifest, StoreError> {
    access::authorize(actor, access::Action::Read, Object::Practice)?;
    store.write_blocking(actor, |tx: &mut Tx<'_>| {
        tx.note(Event::new(Action::Export, "Practice", ""));
        Ok::<_, StoreError>(())
    })?;
    let taken = clock::instant(store.clock().unix_ms());
    let attachments = store.attachments().clone();
    let practice = practice.to_owned();
    store.internal_blocking(|db| {
        let mut parts = Parts { sink, done: Vec::new(), open: Vec::new(), lines: 0, name: String::new(), number: 0 };
        parts.sink.file("README.txt", README.as_bytes().to_vec())?;
        resources(db, &mut parts)?;
        ledger(db, &mut parts)?;
        for table in TABLES {
            rows(db, table, &mut parts)?;
        }
        people(db, &mut parts)?;
        access_record(db, &mut parts)?;
        let damaged_attachments = files(db, &attachments, &mut parts, &mut progress)?;
        let facts = facts::compute(db, &attachments, Depth::Recorded)?.facts;
        let Parts { sink, done, .. } = parts;
        let manifest = Manifest {
            format: FORMAT.to_owned(),
            version: VERSION,
            schema: facts.schema_version,
            taken,
            practice,
            damaged_attachments,
            facts,
            parts: done,
        };
        let bytes = serde_json::to_vec_pretty(&manifest).map_err(|_| StoreError::Damaged("manifest"))?;
        sink.file("manifest.json", bytes)?;
        Ok(manifest)
    })
}

const README: &str = "\
Everything that this practice has in its EMR.

resources/    current records, one FHIR R4 resource a line, a file or more for each type
history/      earlier versions of the same
deleted/      records that were deleted: id, version, time
attachments-*.ndjson, attachments/    scans and letters; each line says whose, and the file's name is the BLAKE3 of its bytes
ledger-*.ndjson    the journal of money, double entry, in cents
tables/       consent texts, signed consents with their seals, phrases, settings
people.ndjson, audit/    who worked here, and who looked at what
manifest.json      size and SHA-256 of each file above (check with sha256sum), and counts

`appliance import export DIR` reads it into an empty practice. Other programs read resources/ as FHIR Bulk Data.
";

/// Lines, divided into files of a bounded size.
struct Parts<'a> {
    sink: &'a mut dyn Sink,
    done: Vec<PartFile>,
    open: Vec<u8>,
    lines: u64,
    /// Of the open part, without its number.
    name: String,
    number: u32,
}

impl Parts<'_> {
    fn line(&mut self, name: &str, line: &str) -> Result<(), StoreError> {
        if self.name != name {
            self.close()?;
            self.name = name.to_owned();
            self.number = 0;
        }
        self.open.extend_from_slice(line.as_bytes());
        self.open.push(b'\n');
        self.lines += 1;
        if self.open.len() >= PART_BYTES { self.close() } else { Ok(()) }
    }

    fn value(&mut self, name: &str, value: &impl Serialize) -> Result<(), StoreError> {
        let line = serde_json::to_string(value).map_err(|_| StoreError::Damaged("row"))?;
        self.line(name, &line)
    }

    fn close(&mut self) -> Result<(), StoreError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.open);
        self.number += 1;
        let path = format!("{}-{:04}.ndjson", self.name, self.number);
        let part = PartFile {
            path: path.clone(),
            bytes: bytes.len() as u64,
            lines: std::mem::take(&mut self.lines),
            sha256: hex::encode(Sha256::digest(&bytes)),
        };
        self.done.push(part);
        self.sink.file(&path, bytes)
    }
}

fn resources(db: &Connection, parts: &mut Parts<'_>) -> Result<(), StoreError> {
    let of = "r.type = (SELECT id FROM resource_type WHERE name = ?1)";
    let current = format!("SELECT r.id, r.version, r.updated_ms, r.body FROM resource r WHERE {of} ORDER BY r.rid");
    let before = format!(
        "SELECT r.id, h.version, h.updated_ms, h.body FROM resource r JOIN history h ON h.rid = r.rid \
         WHERE {of} ORDER BY r.rid, h.version"
    );
    for kind in TYPES {
        // What was deleted comes apart, so that the first folder is what another program expects.
        for (folder, sql, deleted) in
            [("resources", &current, false), ("deleted", &current, true), ("history", &before, false)]
        {
            let name = format!("{folder}/{kind}");
            let mut statement = db.prepare_cached(sql)?;
            let mut found = statement.query([kind])?;
            while let Some(row) = found.next()? {
                let (version, at): (u32, i64) = (row.get(1)?, row.get(2)?);
                let text = |index| row.get_ref(index)?.as_str();
                let (id, body) = (text(0)?, text(3)?);
                let ended = Deleted { deleted: id.to_owned(), version, at: clock::instant(at) };
                match (body.is_empty(), folder) {
                    (false, _) if !deleted => parts.line(&name, body)?,
                    (true, "history") => parts.value(&name, &ended)?,
                    (true, _) if deleted => parts.value(&name, &ended)?,
                    _ => {}
                }
            }
        }
    }
    parts.close()
}

fn ledger(db: &Connection, parts: &mut Parts<'_>) -> Result<(), StoreError> {
    let mut postings = db.prepare("SELECT id, at_ms, actor, kind, reference FROM ledger_posting ORDER BY id")?;
    let sql = "SELECT e.account, coalesce(p.id, ''), e.cents FROM ledger_entry e LEFT JOIN resource p ON p.rid = e.patient \
               WHERE e.posting = ?1 ORDER BY e.id";
    let mut entries = db.prepare(sql)?;
    let mut rows = postings.query([])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let sides = entries.query_map([id], |row| {
            let (account, patient, cents): (String, String, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(json!({"account": account, "patient": patient, "cents": cents}))
        })?;
        let sides = sides.collect::<Result<Vec<_>, _>>()?;
        let (actor, kind, reference): (String, String, String) = (row.get(2)?, row.get(3)?, row.get(4)?);
        let at = clock::instant(row.get(1)?);
        let posting = json!({"at": at, "actor": actor, "kind": kind, "reference": reference, "entries": sides});
        parts.value("ledger", &posting)?;
    }
    parts.close()
}

/// The rows of a table as they are; bytes as `{"hex": ...}`.
fn rows(db: &Connection, table: &str, parts: &mut Parts<'_>) -> Result<(), StoreError> {
    let only = if table == "practice_setting" { OPEN_SETTINGS } else { "true" };
    let mut statement = db.prepare(&format!("SELECT * FROM {table} WHERE {only}"))?;
    let columns = statement.column_names();
    let mut found = statement.query([])?;
    let name = format!("tables/{table}");
    while let Some(row) = found.next()? {
        let mut object = Map::new();
        for (index, column) in columns.iter().enumerate() {
            let value = match row.get_ref(index)? {
                ValueRef::Null => Value::Null,
                ValueRef::Integer(number) => number.into(),
                ValueRef::Real(number) => number.into(),
                ValueRef::Text(text) => std::str::from_utf8(text).map_err(|_| StoreError::Damaged("column"))?.into(),
                ValueRef::Blob(bytes) => json!({"hex": hex::encode(bytes)}),
            };
            object.insert(column.clone(), value);
        }
        parts.value(&name, &object)?;
    }
    parts.close()
}

/// Who worked here: what the access record's ids mean. No password, no second factor.
fn people(db: &Connection, parts: &mut Parts<'_>) -> Result<(), StoreError> {
    let mut statement = db.prepare("SELECT id, name, display, role, practitioner FROM account ORDER BY id")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let text = |index| row.get::<_, Option<String>>(index);
        let (id, name, display, role) = (text(0)?, text(1)?, text(2)?, text(3)?);
        let person = json!({"id": id, "name": name, "display": display, "role": role, "practitioner": text(4)?});
        parts.value("people", &person)?;
    }
    parts.close()
}

fn access_record(db: &Connection, parts: &mut Parts<'_>) -> Result<(), StoreError> {
    let mut before = None;
    loop {
        let entries = audit::page(db, before, 1000)?;
        for entry in &entries {
            let line = json!({
                "seq": entry.seq, "at": clock::instant(entry.at_ms), "actor": entry.actor, "name": entry.actor_name,
                "capacity": entry.capacity, "action": entry.action, "kind": entry.kind, "object": entry.object,
                "patient": entry.patient, "outcome": entry.outcome, "matches": entry.matches, "hash": hex::encode(entry.hash),
            });
            parts.value("audit/audit", &line)?;
        }
        match entries.last() {
            Some(last) => before = Some(last.seq),
            None => return parts.close(),
        }
    }
}

/// The files, each once, and a line for each row; gives how many rows are without their file.
fn files(
    db: &Connection,
    attachments: &Attachments,
    parts: &mut Parts<'_>,
    progress: &mut dyn FnMut(u64),
) -> Result<u64, StoreError> {
    let sql = "SELECT a.id, coalesce(p.id, '') FROM attachment a LEFT JOIN resource p ON p.rid = a.patient ORDER BY a.digest, a.id";
    let mut statement = db.prepare(sql)?;
    let mut found = statement.query([])?;
    let (mut last, mut damaged, mut done) = (None, 0, 0);
    while let Some(row) = found.next()? {
        let (id, patient): (String, String) = (row.get(0)?, row.get(1)?);
        let row = AttachmentRow::load(db, &id)?.ok_or(StoreError::NotFound)?;
        let name = hex::encode(row.digest);
        let file = format!("attachments/{name}");
        // Rows with the same bytes follow each other.
        let sha256 = match last.take_if(|(digest, _)| *digest == row.digest) {
            Some((_, sha256)) => sha256,
            None => match attachments.read(&row) {
                Ok(bytes) => {
                    let sha256 = hex::encode(Sha256::digest(&bytes));
                    parts.sink.file(&file, bytes)?;
                    sha256
                }
                Err(StoreError::Damaged(_)) => String::new(),
                Err(error) => return Err(error),
            },
        };
        damaged += u64::from(sha256.is_empty());
        last = Some((row.digest, sha256.clone()));
        let line = AttachmentLine {
            id: row.id,
            patient,
            media_type: row.media_type,
            bytes: row.bytes,
            created: clock::instant(row.created_ms),
            blake3: name,
            sha256,
            file,
        };
        parts.value("attachments", &line)?;
        done += 1;
        progress(done);
    }
    parts.close()?;
    Ok(damaged)
}
