//! Messages to the outside world, queued in the transaction that caused them.

use super::StoreError;
use crate::db::Connection;

/// Queues `payload` for `channel`; it is sent after the commit, or never when the transaction fails.
pub(super) fn queue(connection: &Connection, channel: &str, payload: &str, now_ms: i64) -> Result<(), StoreError> {
    let sql = "INSERT INTO outbox (created_ms, channel, payload, state, tries) VALUES (?1, ?2, ?3, 'waiting', 0)";
    connection.prepare_cached(sql)?.execute((now_ms, channel, payload))?;
    Ok(())
}
