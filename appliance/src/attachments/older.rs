//! Files that an older release left as they came: sealed at the upgrade, and laid open again where the upgrade is undone.
//!
//! A file at a time: the sealed file is on the disk before the row names it, and the row names it before the plain file is
//! removed. So whenever this is interrupted, every row has a file that opens, and the next run goes on.

use super::{AttachmentRow, Attachments, Kept, Sealed, seal};
use crate::db::{Connection, OptionalExtension};
use crate::store::StoreError;
use seal::FileKey;
use std::collections::BTreeSet;
use std::fs;

/// Says in `meta` that no plain file is left.
pub const DONE_KEY: &str = "attachments-sealed";
/// Rows whose change is committed together: each commit waits for the disk.
const TOGETHER: usize = 32;

/// Whether plain files may be left in a database of this release's schema.
pub fn are_left(db: &Connection) -> Result<bool, StoreError> {
    let sql = "SELECT value FROM meta WHERE key = ?1";
    Ok(db.query_row(sql, [DONE_KEY], |_| Ok(())).optional()?.is_none())
}

/// Seals every plain file; gives how many. One that is missing or damaged stays what it is: it is told, and a restore may
/// bring it back. Nobody else may use the folder meanwhile.
///
/// # Errors
/// As the disk and the database; what was done stays done.
pub fn seal_all(db: &Connection, attachments: &Attachments) -> Result<u64, StoreError> {
    let rows = AttachmentRow::all(db)?;
    let plain: Vec<&AttachmentRow> = rows.iter().filter(|row| row.kept == Kept::Plain).collect();
    let mut done = 0;
    for together in plain.chunks(TOGETHER) {
        let mut sealed = Vec::new();
        for row in together {
            match attachments.read(row) {
                Ok(bytes) => sealed.push((row.id.as_str(), seal_one(attachments, &bytes)?)),
                Err(StoreError::Damaged(_)) => log::error!("attachment.not-sealed"),
                Err(error) => return Err(error),
            }
        }
        let transaction = db.transaction()?;
        for (id, sealed) in &sealed {
            let sql = "UPDATE attachment SET file = ?2, key = ?3 WHERE id = ?1 AND file IS NULL";
            transaction.prepare_cached(sql)?.execute((id, sealed.file, sealed.key.to_stored()))?;
        }
        transaction.commit()?;
        done += sealed.len() as u64;
    }
    remove_plain(db, attachments)?;
    let sql = "INSERT INTO meta (key, value) VALUES (?1, '1') ON CONFLICT (key) DO NOTHING";
    db.execute(sql, [DONE_KEY])?;
    Ok(done)
}

fn seal_one(attachments: &Attachments, bytes: &[u8]) -> Result<Sealed, StoreError> {
    let key = FileKey::new()?;
    let file = seal::seal(&key, bytes)?;
    let sealed = Sealed { file: *blake3::hash(&file).as_bytes(), key };
    attachments.write(&attachments.path(&sealed.file), &file).map_err(StoreError::io("attachment"))?;
    Ok(sealed)
}

/// Removes the plain files of rows that are sealed. Files that no row names are not touched: another database, put back
/// later, may name them.
fn remove_plain(db: &Connection, attachments: &Attachments) -> Result<(), StoreError> {
    let rows = AttachmentRow::all(db)?;
    let needed: BTreeSet<&[u8; 32]> = rows.iter().filter_map(AttachmentRow::file).collect();
    let sealed = rows.iter().filter(|row| matches!(row.kept, Kept::Sealed(_)));
    let over: BTreeSet<&[u8; 32]> = sealed.map(|row| &row.digest).filter(|digest| !needed.contains(digest)).collect();
    for digest in over {
        match fs::remove_file(attachments.path(digest)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("attachment")(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Writes the plain files that the rows of `older` name, from the sealed ones of `newer`. One that cannot be opened was lost
/// before.
pub fn lay_open(older: &Connection, newer: &Connection, attachments: &Attachments) -> Result<(), StoreError> {
    for row in AttachmentRow::all(older)?.into_iter().filter(|row| row.kept == Kept::Plain) {
        if attachments.is_there(&row) {
            continue;
        }
        let Some(sealed) = AttachmentRow::load(newer, &row.id)? else { continue };
        match attachments.read(&sealed) {
            Ok(bytes) => attachments.heal(&row, &bytes)?,
            Err(StoreError::Damaged(_) | StoreError::NotFound) => log::error!("attachment.not-laid-open"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
