//! Attachments: content-addressed files beside the database, each sealed under a key of its own.
//!
//! A file's name is the BLAKE3 of what it holds (`ab/cdef...`), so files are immutable, and rot is found without a key. What it
//! holds is sealed (see [`seal`]); the key stands in the row alone. So the folder tells nothing by itself, neither contents nor
//! whether a known document is among them, and a row whose key is ended is the end of the file. The order is: temporary file,
//! fsync, rename, fsync of the folder, and only then the database row; a crash in between leaves a file without a row, never a
//! row without a file.

pub mod older;
mod rot;
pub mod seal;

use crate::clock;
use crate::db::{Connection, OptionalExtension, Row};
use crate::store::StoreError;
use crate::store::schema_version;
use seal::FileKey;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The largest attachment, bytes: a long scanned letter or a short film of a wound.
pub const ATTACHMENT_BYTES_MAX: usize = 32 << 20;

/// The folder of attachments.
#[derive(Debug, Clone)]
pub struct Attachments {
    root: PathBuf,
    looks: rot::Looks,
}

/// The schema from which on files are sealed.
const SEALED_SINCE: u32 = 12;

/// A sealed file: its name, which is the BLAKE3 of what it holds, and the key that opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    pub file: [u8; 32],
    pub key: FileKey,
}

/// How the bytes of a row are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    Sealed(Sealed),
    /// As an older release kept them, under the name of their own digest.
    Plain,
    /// The key is ended: nobody opens the file any more.
    Ended,
}

/// Bytes that are safe on disk but not yet part of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    /// Of the bytes, not of the file.
    pub digest: [u8; 32],
    pub bytes: u64,
    pub sealed: Sealed,
    /// What the bytes are, found by looking at them; never what the sender said.
    pub media_type: &'static str,
}

/// A row of the attachment table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentRow {
    /// Logical id of the `Binary`.
    pub id: String,
    /// Of the bytes, not of the file.
    pub digest: [u8; 32],
    pub bytes: u64,
    pub media_type: String,
    pub(crate) patient: i64,
    pub created_ms: i64,
    pub kept: Kept,
}

impl Attachments {
    /// `alone`: no other process writes files here.
    pub(crate) fn open(root: &Path, alone: bool) -> Result<Attachments, StoreError> {
        let temporary = incoming(root);
        fs::create_dir_all(root).map_err(StoreError::io("attachments folder"))?;
        fs::create_dir_all(&temporary).map_err(StoreError::io("attachments folder"))?;
        let leftovers = fs::read_dir(&temporary).map_err(StoreError::io("attachments folder"))?.flatten();
        for leftover in leftovers.filter(|_| alone) {
            // Of an upload that a crash interrupted; no row can point to it.
            let _ = fs::remove_file(leftover.path());
        }
        Ok(Attachments { root: root.to_owned(), looks: rot::Looks::default() })
    }

    /// An existing folder, for reading only.
    pub fn existing(root: &Path) -> Attachments {
        Attachments { root: root.to_owned(), looks: rot::Looks::default() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Writes `bytes` durably. Blocks on the disk: call it from a blocking thread.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for bytes of a kind that is not kept (see [`sniff`]), or too many of them.
    pub fn stage(&self, bytes: &[u8]) -> Result<Staged, StoreError> {
        if bytes.len() > ATTACHMENT_BYTES_MAX {
            return Err(StoreError::invalid("the file is larger than 32 MiB", "file"));
        }
        if bytes.is_empty() {
            return Err(StoreError::invalid("the file is empty", "file"));
        }
        let media_type = sniff(bytes).ok_or_else(|| {
            StoreError::invalid("only PDF, PNG, JPEG, TIFF, DICOM, audio and plain text are kept", "file")
        })?;
        let key = FileKey::new()?;
        let file = seal::seal(&key, bytes)?;
        let sealed = Sealed { file: *blake3::hash(&file).as_bytes(), key };
        self.write(&self.path(&sealed.file), &file).map_err(StoreError::io("attachment"))?;
        Ok(Staged { digest: *blake3::hash(bytes).as_bytes(), bytes: bytes.len() as u64, sealed, media_type })
    }

    /// The bytes of an attachment, checked against its digest. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file is gone or holds other bytes, [`StoreError::NotFound`] when its key is ended.
    pub fn read(&self, row: &AttachmentRow) -> Result<Vec<u8>, StoreError> {
        let file = File::open(self.path(row.file().ok_or(StoreError::NotFound)?)).map_err(missing)?;
        let mut found = Vec::new();
        let limit = seal::file_bytes(ATTACHMENT_BYTES_MAX as u64) + 1;
        file.take(limit).read_to_end(&mut found).map_err(StoreError::io("attachment"))?;
        self.opened(row, found)
    }

    /// The bytes of an attachment from what its file holds, which may have come from elsewhere.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are not those of `row`.
    pub fn opened(&self, row: &AttachmentRow, file: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        let bytes = match &row.kept {
            Kept::Sealed(sealed) => seal::open(&sealed.key, row.bytes, &file)?,
            Kept::Plain => file,
            Kept::Ended => return Err(StoreError::NotFound),
        };
        if *blake3::hash(&bytes).as_bytes() == row.digest { Ok(bytes) } else { Err(StoreError::Damaged("attachment")) }
    }

    /// Writes the file of a row anew, from its bytes: the same file, since its key and so all that it holds are the same.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are not the bytes of `row`.
    pub fn heal(&self, row: &AttachmentRow, bytes: &[u8]) -> Result<(), StoreError> {
        if *blake3::hash(bytes).as_bytes() != row.digest {
            return Err(StoreError::Damaged("attachment"));
        }
        let (file, holds) = match &row.kept {
            Kept::Sealed(sealed) => (&sealed.file, seal::seal(&sealed.key, bytes)?),
            Kept::Plain => (&row.digest, bytes.to_vec()),
            Kept::Ended => return Err(StoreError::NotFound),
        };
        self.write(&self.path(file), &holds).map_err(StoreError::io("attachment"))
    }

    /// Whether the file of a row is there, with the size that it must have.
    pub(crate) fn is_there(&self, row: &AttachmentRow) -> bool {
        let expected = match row.kept {
            Kept::Sealed(_) => seal::file_bytes(row.bytes),
            Kept::Plain | Kept::Ended => row.bytes,
        };
        row.file().and_then(|file| fs::metadata(self.path(file)).ok()).is_some_and(|found| found.len() == expected)
    }

    fn path(&self, file: &[u8; 32]) -> PathBuf {
        let name = hex::encode(file);
        let (folder, file) = name.split_at(2);
        self.root.join(folder).join(file)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        let temporary = incoming(&self.root).join(clock::new_id()?);
        let written = write_synced(&temporary, bytes).and_then(|()| {
            let folder = path.parent().unwrap_or(&self.root);
            fs::create_dir_all(folder)?;
            fs::rename(&temporary, path)?;
            File::open(folder)?.sync_all()?;
            File::open(&self.root)?.sync_all()
        });
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written
    }
}

/// Where a file is written before it gets its name: beside the attachments, because a backup that walks them while
/// somebody uploads must meet no file that vanishes.
fn incoming(root: &Path) -> PathBuf {
    root.with_extension("incoming")
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn missing(error: std::io::Error) -> StoreError {
    match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::Damaged("attachment missing"),
        _ => StoreError::io("attachment")(error),
    }
}

/// What `bytes` are, from their first bytes; `None` for kinds that are not kept. Nothing that a browser would run
/// (HTML, SVG, scripts) is kept: it is plain text here, and served as such.
pub fn sniff(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(usize, &[u8], &str); 9] = [
        (0, b"%PDF-", "application/pdf"),
        (0, b"\x89PNG\r\n\x1a\n", "image/png"),
        (0, b"\xff\xd8\xff", "image/jpeg"),
        (0, b"II*\0", "image/tiff"),
        (0, b"MM\0*", "image/tiff"),
        (128, b"DICM", "application/dicom"),
        (0, b"OggS", "audio/ogg"),
        (8, b"WAVE", "audio/wav"),
        (0, b"\x1aE\xdf\xa3", "audio/webm"),
    ];
    let found = MAGIC.iter().find(|(at, magic, _)| bytes.get(*at..).is_some_and(|rest| rest.starts_with(magic)));
    match found {
        Some((_, _, media_type)) => Some(media_type),
        None if std::str::from_utf8(bytes).is_ok_and(is_text) => Some("text/plain; charset=utf-8"),
        None => None,
    }
}

fn is_text(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}'))
}

impl AttachmentRow {
    /// The name of the file that holds the bytes; `None` when its key is ended.
    fn file(&self) -> Option<&[u8; 32]> {
        match &self.kept {
            Kept::Sealed(sealed) => Some(&sealed.file),
            Kept::Plain => Some(&self.digest),
            Kept::Ended => None,
        }
    }

    /// The same as 64 digits of hex, of which the first two name a folder.
    pub fn file_name(&self) -> Option<String> {
        self.file().map(hex::encode)
    }

    pub(crate) fn load(connection: &Connection, id: &str) -> Result<Option<AttachmentRow>, StoreError> {
        Self::load_of(connection, id, SEALED_SINCE)
    }

    /// The row in a database of some schema, which may be older than this release's.
    pub(crate) fn load_of(connection: &Connection, id: &str, schema: u32) -> Result<Option<AttachmentRow>, StoreError> {
        let sql = format!("SELECT {} FROM attachment WHERE id = ?1", columns(schema));
        Ok(connection.prepare_cached(&sql)?.query_row([id], from_row).optional()?)
    }

    /// Every row of a database of some schema whose key is not ended, in the order of the digests.
    pub(crate) fn all(connection: &Connection) -> Result<Vec<AttachmentRow>, StoreError> {
        let schema = schema_version(connection)?;
        let sql = format!("SELECT {} FROM attachment ORDER BY digest, id", columns(schema));
        let mut statement = connection.prepare(&sql)?;
        let rows = statement.query_map([], from_row)?.collect::<Result<Vec<_>, _>>()?;
        Ok(rows.into_iter().filter(|row| row.kept != Kept::Ended).collect())
    }

    pub(crate) fn insert(
        connection: &Connection,
        id: &str,
        staged: &Staged,
        patient: i64,
        created_ms: i64,
    ) -> Result<AttachmentRow, StoreError> {
        let sql = "INSERT INTO attachment (id, digest, bytes, media_type, patient, created_ms, file, key) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
        let bytes = staged.bytes.cast_signed();
        let (file, key) = (staged.sealed.file, staged.sealed.key.to_stored());
        let row = (id, staged.digest, bytes, staged.media_type, patient, created_ms, file, key);
        connection.prepare_cached(sql)?.execute(row)?;
        Ok(AttachmentRow {
            id: id.to_owned(),
            digest: staged.digest,
            bytes: staged.bytes,
            media_type: staged.media_type.to_owned(),
            patient,
            created_ms,
            kept: Kept::Sealed(staged.sealed.clone()),
        })
    }
}

fn columns(schema: u32) -> &'static str {
    match schema {
        0..SEALED_SINCE => "id, digest, bytes, media_type, patient, created_ms, NULL, NULL",
        _ => "id, digest, bytes, media_type, patient, created_ms, file, key",
    }
}

fn from_row(row: &Row<'_>) -> crate::db::Result<AttachmentRow> {
    let (file, key): (Option<[u8; 32]>, Option<[u8; 32]>) = (row.get(6)?, row.get(7)?);
    Ok(AttachmentRow {
        id: row.get(0)?,
        digest: row.get(1)?,
        bytes: row.get::<_, i64>(2)?.cast_unsigned(),
        media_type: row.get(3)?,
        patient: row.get(4)?,
        created_ms: row.get(5)?,
        kept: match (file, key) {
            (Some(file), Some(key)) => Kept::Sealed(Sealed { file, key: FileKey::stored(key) }),
            (Some(_), None) => Kept::Ended,
            (None, _) => Kept::Plain,
        },
    })
}
