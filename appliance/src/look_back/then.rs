//! What a borrowed database held about one patient. Only tables that every schema had are read, so records of any older
//! release are looked at as they are.

use super::LookError;
use crate::attachments::AttachmentRow;
use crate::db::{Connection, OptionalExtension, sqlite};
use crate::store::{SCHEMA_VERSION, StoreError, body_digest, schema_version};
use std::path::Path;

/// Bytes of one record: a long life of notes has a few.
const RECORD_BYTES_MAX: usize = 128 << 20;

/// A resource as it was.
#[derive(Debug, Clone)]
pub struct Old {
    pub kind: String,
    pub id: String,
    pub version: u32,
    pub updated_ms: i64,
    pub body: String,
    /// The body is not what was written: it is shown, and not copied back.
    pub damaged: bool,
}

/// A file as it was.
#[derive(Debug, Clone)]
pub struct OldFile {
    pub row: AttachmentRow,
    /// The row that keeps the same bytes today, where they can be read.
    pub today: Option<AttachmentRow>,
    /// The bytes, where they do not and the snapshot held them.
    pub lent: Option<Vec<u8>>,
}

/// One patient's record as it was.
#[derive(Debug, Clone, Default)]
pub struct Then {
    /// Not deleted then; the patient first.
    pub resources: Vec<Old>,
    pub files: Vec<OldFile>,
}

impl OldFile {
    pub fn is_whole_today(&self) -> bool {
        self.today.is_some()
    }
}

impl Then {
    pub fn resource(&self, kind: &str, id: &str) -> Option<&Old> {
        self.resources.iter().find(|old| old.kind == kind && old.id == id)
    }

    pub fn file(&self, id: &str) -> Option<&OldFile> {
        self.files.iter().find(|file| file.row.id == id)
    }
}

/// Reads the record of `patient` from a database that nothing changes.
pub fn read(database: &Path, patient: &str) -> Result<Then, LookError> {
    let db = sqlite::open_immutable(database).map_err(StoreError::from)?;
    let schema = schema_version(&db)?;
    if schema > SCHEMA_VERSION {
        return Err(StoreError::Newer { found: schema, known: SCHEMA_VERSION }.into());
    }
    let sql =
        "SELECT r.rid FROM resource r JOIN resource_type t ON t.id = r.type WHERE t.name = 'Patient' AND r.id = ?1";
    let found: Option<i64> = db.query_row(sql, [patient], |row| row.get(0)).optional().map_err(StoreError::from)?;
    let rid = found.ok_or(LookError::NoPatient)?;
    let resources = resources(&db, schema, rid)?;
    let files = files(&db, schema, rid)?;
    Ok(Then { resources, files })
}

fn resources(db: &Connection, schema: u32, rid: i64) -> Result<Vec<Old>, LookError> {
    let digest = if schema < 2 { "NULL" } else { "r.digest" };
    let sql = format!(
        "SELECT t.name, r.id, r.version, r.updated_ms, r.body, {digest} FROM resource r \
         JOIN resource_type t ON t.id = r.type WHERE (r.patient = ?1 OR r.rid = ?1) AND r.deleted = 0 \
         ORDER BY r.rid <> ?1, t.name, r.updated_ms, r.id"
    );
    let mut statement = db.prepare(&sql).map_err(StoreError::from)?;
    let mut rows = statement.query([rid]).map_err(StoreError::from)?;
    let (mut found, mut bytes) = (Vec::new(), 0usize);
    while let Some(row) = rows.next().map_err(StoreError::from)? {
        let old = old(&row).map_err(StoreError::from)?;
        bytes = bytes.saturating_add(old.body.len());
        if bytes > RECORD_BYTES_MAX {
            return Err(LookError::TooLarge);
        }
        found.push(old);
    }
    Ok(found)
}

fn old(row: &crate::db::Row<'_>) -> crate::db::Result<Old> {
    let body: String = row.get(4)?;
    let written: Option<[u8; 16]> = row.get(5)?;
    Ok(Old {
        kind: row.get(0)?,
        id: row.get(1)?,
        version: row.get(2)?,
        updated_ms: row.get(3)?,
        damaged: written.is_some_and(|written| written != body_digest(&body)),
        body,
    })
}

fn files(db: &Connection, schema: u32, rid: i64) -> Result<Vec<OldFile>, StoreError> {
    let mut statement = db.prepare("SELECT id FROM attachment WHERE patient = ?1 ORDER BY created_ms, id")?;
    let ids = statement.query_map([rid], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let mut found = Vec::new();
    for id in ids {
        let Some(row) = AttachmentRow::load_of(db, &id, schema)? else { continue };
        found.push(OldFile { row, today: None, lent: None });
    }
    Ok(found)
}
