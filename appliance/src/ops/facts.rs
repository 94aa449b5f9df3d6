//! Facts: what is true of the data, recomputed from its rows.

use crate::attachments::Attachments;
use crate::audit;
use crate::store::{StoreError, schema_version};
use appliance_api::{Damaged, Facts};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

/// Where an attachment's digest comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The digest recorded when it was stored: what the bytes were. Used at snapshot time, where reading every scan again
    /// each few minutes would load the disk; a file that rotted since then is found by the restore.
    Recorded,
    /// The digest of the bytes on disk now. Used on restored data.
    Rehashed,
}

/// Facts, and what was found broken while they were computed.
#[derive(Debug, PartialEq, Eq)]
pub struct Computed {
    pub facts: Facts,
    /// Always empty for [`Depth::Rehashed`], which is refused instead.
    pub damaged: BTreeSet<Damaged>,
}

/// Computes the facts of an open database and its attachments. Walks the audit chain and reads every resource.
///
/// # Errors
/// With [`Depth::Rehashed`], [`StoreError::Damaged`] when the ledger does not balance, the audit's chain is broken or a
/// file is gone. A damaged original is the very moment when a snapshot matters: it is taken, the damage is told, and
/// every drill of the snapshot fails.
pub fn compute(db: &Connection, attachments: &Attachments, depth: Depth) -> Result<Computed, StoreError> {
    let mut damaged = BTreeSet::new();
    let number = |sql: &str| -> Result<i64, StoreError> { Ok(db.query_row(sql, [], |row| row.get(0))?) };
    let head = match (audit::walk(db), depth) {
        (Err(StoreError::Damaged(_)), Depth::Recorded) => {
            damaged.insert(Damaged::AuditChain);
            audit::head(db)?
        }
        (head, _) => head?,
    };
    let (resources, resources_digest, newest) = resources(db)?;
    let files = files(db, attachments, depth)?;
    if files.damaged {
        damaged.insert(Damaged::Attachments);
    }
    if number("SELECT coalesce(sum(cents), 0) FROM ledger_entry")? != 0 {
        if depth == Depth::Rehashed {
            return Err(StoreError::Damaged("ledger"));
        }
        damaged.insert(Damaged::Ledger);
    }
    let receivable = "SELECT coalesce(sum(cents), 0) FROM ledger_entry WHERE account = 'receivable'";
    let facts = Facts {
        schema_version: schema_version(db)?,
        resources,
        history_rows: number("SELECT count(*) FROM history")?.cast_unsigned(),
        ledger_entries: number("SELECT count(*) FROM ledger_entry")?.cast_unsigned(),
        ledger_balance_cents: number(receivable)?,
        attachments: files.count,
        attachment_bytes: files.bytes,
        attachments_digest: files.digest,
        resources_digest,
        audit_entries: head.seq,
        audit_head: hex::encode(head.hash),
        newest_record_unix_ms: newest,
        canary_sequence: number("SELECT coalesce(max(sequence), 0) FROM canary")?.cast_unsigned(),
        canary_unix_ms: number("SELECT coalesce((SELECT at_ms FROM canary ORDER BY sequence DESC LIMIT 1), 0)")?,
    };
    for what in &damaged {
        log::error!(what:? = what; "records.damaged");
    }
    Ok(Computed { facts, damaged })
}

/// Counts by type, the digest over all current resources, and the time of the newest change.
fn resources(db: &Connection) -> Result<(BTreeMap<String, u64>, String, i64), StoreError> {
    let sql = "SELECT t.name, r.id, r.version, r.updated_ms, r.body FROM resource r \
               JOIN resource_type t ON t.id = r.type WHERE r.deleted = 0 ORDER BY r.type, r.id";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    let mut counts = BTreeMap::<String, u64>::new();
    let mut hasher = blake3::Hasher::new();
    let mut newest = 0;
    while let Some(row) = rows.next()? {
        let text = |index: usize| {
            row.get_ref(index).map_err(StoreError::from)?.as_str().map_err(|_| StoreError::Damaged("column"))
        };
        let (kind, id, body) = (text(0)?, text(1)?, text(4)?);
        let (version, updated_ms): (u32, i64) = (row.get(2)?, row.get(3)?);
        for part in [kind, id, body] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&version.to_le_bytes());
        newest = newest.max(updated_ms);
        match counts.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(counts.insert(kind.to_owned(), 1)),
        }
    }
    Ok((counts, hasher.finalize().to_hex().to_string(), newest))
}

struct Files {
    count: u64,
    bytes: u64,
    digest: String,
    damaged: bool,
}

fn files(db: &Connection, attachments: &Attachments, depth: Depth) -> Result<Files, StoreError> {
    let mut statement = db.prepare("SELECT DISTINCT digest, bytes FROM attachment")?;
    let rows = statement.query_map([], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, i64>(1)?)))?;
    let mut found = Vec::new();
    let mut damaged = false;
    for row in rows {
        let (digest, bytes) = row?;
        found.push(match depth {
            Depth::Recorded => {
                damaged |= attachments.size(&digest) != Some(bytes.cast_unsigned());
                (digest, bytes.cast_unsigned())
            }
            Depth::Rehashed => attachments.rehash(&digest)?,
        });
    }
    found.sort_unstable();
    let mut hasher = blake3::Hasher::new();
    for (digest, _) in &found {
        hasher.update(digest);
    }
    let bytes = found.iter().map(|(_, bytes)| bytes).sum();
    Ok(Files { count: found.len() as u64, bytes, digest: hasher.finalize().to_hex().to_string(), damaged })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Actor, Role};
    use crate::clock::Clock;
    use crate::store::{DATABASE_FILE, Mode, Store, Tx};

    #[tokio::test]
    async fn damage_stops_no_snapshot_and_fails_every_drill() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::manual(1_700_000_000_000), Mode::Exclusive).unwrap();
        let actor = Actor::staff("u", "u", Role::Clinician);
        for family in ["Abel", "Brandt"] {
            let body = serde_json::json!({ "resourceType": "Patient", "name": [{ "family": family }] });
            store.write::<_, StoreError, _>(&actor, move |tx: &mut Tx<'_>| tx.create("Patient", body)).await.unwrap();
        }
        let attachments = store.attachments().clone();
        let db = Connection::open(dir.path().join(DATABASE_FILE)).unwrap();
        let whole = compute(&db, &attachments, Depth::Recorded).unwrap();
        assert_eq!((audit::broken_at(&db).unwrap(), &whole.damaged), (None, &BTreeSet::new()));
        db.execute_batch("DROP TRIGGER audit_keep_u; UPDATE audit SET actor_name = 'nobody' WHERE seq = 2").unwrap();
        assert_eq!(audit::broken_at(&db).unwrap(), Some(2));
        let broken = compute(&db, &attachments, Depth::Recorded).unwrap();
        assert_eq!((broken.facts, broken.damaged), (whole.facts, BTreeSet::from([Damaged::AuditChain])));
        assert!(matches!(compute(&db, &attachments, Depth::Rehashed), Err(StoreError::Damaged("audit chain"))));
        db.execute_batch("UPDATE audit SET actor_name = 'u' WHERE seq = 2").unwrap();
        compute(&db, &attachments, Depth::Rehashed).unwrap();
        let odd = "INSERT INTO ledger_entry (posting, account, patient, cents) VALUES (1, 'receivable', 1, 5)";
        db.execute_batch(&format!("PRAGMA foreign_keys = 0; {odd}")).unwrap();
        let broken = compute(&db, &attachments, Depth::Recorded).unwrap();
        assert_eq!(broken.damaged, BTreeSet::from([Damaged::Ledger]));
        assert!(matches!(compute(&db, &attachments, Depth::Rehashed), Err(StoreError::Damaged("ledger"))));
    }
}
