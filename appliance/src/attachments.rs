//! Attachments: content-addressed files beside the database.
//!
//! A file's name is the BLAKE3 of its bytes (`ab/cdef...`), so files are immutable and equal ones are stored once. The
//! order is: temporary file, fsync, rename, fsync of the folder, and only then the database row; a crash in between
//! leaves a file without a row, never a row without a file.

use crate::clock;
use crate::store::StoreError;
use rusqlite::{Connection, OptionalExtension};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// The largest attachment, bytes: a long scanned letter or a short film of a wound.
pub const ATTACHMENT_BYTES_MAX: usize = 32 << 20;

/// The folder of attachments.
#[derive(Debug, Clone)]
pub struct Attachments {
    root: PathBuf,
}

/// Bytes that are safe on disk but not yet part of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Staged {
    pub digest: [u8; 32],
    pub bytes: u64,
    /// What the bytes are, found by looking at them; never what the sender said.
    pub media_type: &'static str,
}

/// A row of the attachment table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttachmentRow {
    /// Logical id of the `Binary`.
    pub id: String,
    pub digest: [u8; 32],
    pub bytes: u64,
    pub media_type: String,
    pub(crate) patient: i64,
    pub created_ms: i64,
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
        Ok(Attachments { root: root.to_owned() })
    }

    /// An existing folder, for reading only.
    pub fn existing(root: &Path) -> Attachments {
        Attachments { root: root.to_owned() }
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
        let digest = *blake3::hash(bytes).as_bytes();
        let staged = Staged { digest, bytes: bytes.len() as u64, media_type };
        let path = self.path(&digest);
        // Equal bytes are there already, unless the file has rotted: then this copy heals it.
        if self.rehash(&digest).is_ok_and(|found| found == (digest, staged.bytes)) {
            return Ok(staged);
        }
        self.write(&path, bytes).map_err(StoreError::io("attachment"))?;
        Ok(staged)
    }

    /// The bytes of an attachment, checked against its digest. Blocks on the disk.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when the file is gone or holds other bytes.
    pub fn read(&self, row: &AttachmentRow) -> Result<Vec<u8>, StoreError> {
        let file = File::open(self.path(&row.digest)).map_err(missing)?;
        let mut bytes = Vec::new();
        let limit = ATTACHMENT_BYTES_MAX as u64 + 1;
        file.take(limit).read_to_end(&mut bytes).map_err(StoreError::io("attachment"))?;
        if *blake3::hash(&bytes).as_bytes() != row.digest {
            return Err(StoreError::Damaged("attachment"));
        }
        Ok(bytes)
    }

    /// The bytes of an attachment from what its file holds, which came from elsewhere.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are not those of `row`.
    pub fn opened(&self, row: &AttachmentRow, file: &[u8]) -> Result<Vec<u8>, StoreError> {
        match *blake3::hash(file).as_bytes() == row.digest {
            true => Ok(file.to_vec()),
            false => Err(StoreError::Damaged("attachment")),
        }
    }

    /// The digest of what the file with this name really holds, and its size.
    pub(crate) fn rehash(&self, digest: &[u8; 32]) -> Result<([u8; 32], u64), StoreError> {
        let mut file = File::open(self.path(digest)).map_err(missing)?;
        let mut hasher = blake3::Hasher::new();
        let bytes = std::io::copy(&mut file, &mut hasher).map_err(StoreError::io("attachment"))?;
        Ok((*hasher.finalize().as_bytes(), bytes))
    }

    /// Size of the file with this name; `None` when it is not there.
    pub(crate) fn size(&self, digest: &[u8; 32]) -> Option<u64> {
        fs::metadata(self.path(digest)).ok().map(|found| found.len())
    }

    fn path(&self, digest: &[u8; 32]) -> PathBuf {
        let name = hex::encode(digest);
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
    /// The row in a database of an older schema.
    pub(crate) fn load_of(
        connection: &Connection,
        id: &str,
        _schema: u32,
    ) -> Result<Option<AttachmentRow>, StoreError> {
        AttachmentRow::load(connection, id)
    }

    pub(crate) fn load(connection: &Connection, id: &str) -> Result<Option<AttachmentRow>, StoreError> {
        let sql = "SELECT id, digest, bytes, media_type, patient, created_ms FROM attachment WHERE id = ?1";
        let row = connection.prepare_cached(sql)?.query_row([id], |row| {
            Ok(AttachmentRow {
                id: row.get(0)?,
                digest: row.get(1)?,
                bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                media_type: row.get(3)?,
                patient: row.get(4)?,
                created_ms: row.get(5)?,
            })
        });
        Ok(row.optional()?)
    }

    pub(crate) fn insert(
        connection: &Connection,
        id: &str,
        staged: &Staged,
        patient: i64,
        created_ms: i64,
    ) -> Result<AttachmentRow, StoreError> {
        let sql = "INSERT INTO attachment (id, digest, bytes, media_type, patient, created_ms) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
        let bytes = staged.bytes.cast_signed();
        connection.prepare_cached(sql)?.execute((id, staged.digest, bytes, staged.media_type, patient, created_ms))?;
        Ok(AttachmentRow {
            id: id.to_owned(),
            digest: staged.digest,
            bytes: staged.bytes,
            media_type: staged.media_type.to_owned(),
            patient,
            created_ms,
        })
    }
}
