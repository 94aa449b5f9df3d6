//! The practice's money: an append-only double-entry journal in integer cents.

use super::{StoreError, resource};
use crate::db::Connection;

/// One side of a posting; positive cents are a debit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// `receivable`, `revenue`, `cash` ...
    pub account: String,
    pub cents: i64,
}

/// Entries that belong together and sum to zero.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Posting {
    /// `charge`, `payment`, `reversal` ...
    pub kind: String,
    /// What it is for, as `Type/id`.
    pub reference: String,
    /// Logical id of the patient whose account it is; empty for none.
    pub patient: String,
    pub entries: Vec<Entry>,
}

pub(super) fn post(connection: &Connection, actor: &str, posting: &Posting, now_ms: i64) -> Result<(), StoreError> {
    let sum = posting.entries.iter().try_fold(0i64, |sum, entry| sum.checked_add(entry.cents));
    if posting.entries.len() < 2 || sum != Some(0) {
        return Err(StoreError::invalid("the entries of a posting must sum to zero", "entries"));
    }
    let patient = match posting.patient.as_str() {
        "" => 0,
        id => resource::patient_rid(connection, id)?.ok_or(StoreError::NotFound)?,
    };
    let sql = "INSERT INTO ledger_posting (at_ms, actor, kind, reference) VALUES (?1, ?2, ?3, ?4)";
    let id = connection.insert("id", sql, (now_ms, actor, &posting.kind, &posting.reference))?;
    let sql = "INSERT INTO ledger_entry (posting, account, patient, cents) VALUES (?1, ?2, ?3, ?4)";
    for entry in &posting.entries {
        connection.prepare_cached(sql)?.execute((id, &entry.account, patient, entry.cents))?;
    }
    Ok(())
}
