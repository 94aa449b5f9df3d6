//! A form that a browser sends twice, because it never heard of the first time, is saved once.

use super::StoreError;
use crate::access::Once;
use crate::db::Connection;

/// A browser that has not asked again by then has given up.
const KEPT_MS: i64 = 24 * 3_600_000;

/// Notes inside the transaction that saves that this request does so.
///
/// # Errors
/// [`StoreError::Repeated`] when another request did it before.
pub(super) fn claim(db: &Connection, once: &Once, now_ms: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO form_sent (once, request, at_ms) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
    let added = db.prepare_cached(sql)?.execute((once.form, once.request, now_ms))?;
    if added == 1 {
        db.prepare_cached("DELETE FROM form_sent WHERE at_ms < ?1")?.execute([now_ms - KEPT_MS])?;
        return Ok(());
    }
    let sql = "SELECT request = ?2 FROM form_sent WHERE once = ?1";
    // The same request may save in several steps.
    match db.prepare_cached(sql)?.query_row((once.form, once.request), |row| row.get(0))? {
        true => Ok(()),
        false => Err(StoreError::Repeated),
    }
}
