//! Facts: what is true of the data, recomputed from its rows.

use super::golden;
use crate::attachments::{AttachmentRow, Attachments};
use crate::db::Connection;
use crate::store::{StoreError, body_digest, schema_version};
use crate::{audit, clock};
use appliance_api::{Damaged, Facts, GoldenKey, GoldenQuery};
use std::collections::{BTreeMap, BTreeSet};

/// Where an attachment's digest comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// The digest recorded when it was stored: what the bytes were. Used at snapshot time, where reading every scan again
    /// each few minutes would load the disk; only those that look changed are (see [`Attachments::look_for_rot`]).
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
    /// How many attachments are gone or do not match.
    pub damaged_attachments: u64,
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
    let schema = schema_version(db)?;
    let records = resources(db, schema)?;
    if records.damaged {
        if depth == Depth::Rehashed {
            return Err(StoreError::Damaged("resource body"));
        }
        damaged.insert(Damaged::Records);
    }
    let files = files(db, attachments, depth)?;
    if files.damaged > 0 {
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
        schema_version: schema,
        resources: records.counts,
        history_rows: number("SELECT count(*) FROM history")?.cast_unsigned(),
        ledger_entries: number("SELECT count(*) FROM ledger_entry")?.cast_unsigned(),
        ledger_balance_cents: number(receivable)?,
        attachments: files.count,
        attachment_bytes: files.bytes,
        attachments_digest: files.digest,
        resources_digest: records.digest,
        audit_entries: head.seq,
        audit_head: hex::encode(head.hash),
        newest_record_unix_ms: records.newest_ms,
        canary_sequence: number("SELECT coalesce(max(sequence), 0) FROM canary")?.cast_unsigned(),
        canary_unix_ms: number("SELECT coalesce((SELECT at_ms FROM canary ORDER BY sequence DESC LIMIT 1), 0)")?,
    };
    for what in &damaged {
        log::error!(what:? = what; "records.damaged");
    }
    Ok(Computed { facts, damaged, damaged_attachments: files.damaged })
}

/// Facts and golden questions of a copy that was just taken. A database that cannot be read as a whole gets neither, and
/// is backed up all the same: what is left, and what is still being written, is in no other place.
pub fn examine(
    db: &Connection,
    attachments: &Attachments,
) -> Result<(Computed, GoldenKey, Vec<GoldenQuery>), StoreError> {
    let asked = compute(db, attachments, Depth::Recorded)
        .and_then(|computed| golden::choose(db, attachments).map(|(key, golden)| (computed, key, golden)));
    match asked {
        // The facts read neither accounts nor sessions; a broken page of those is as much an end of service.
        Ok((mut computed, key, golden)) => {
            if !pages_are_whole(db) {
                log::error!(what:? = Damaged::Database; "records.damaged");
                computed.damaged.insert(Damaged::Database);
            }
            Ok((computed, key, golden))
        }
        Err(error @ (StoreError::Damaged(_) | StoreError::Database(_) | StoreError::NotFound)) => {
            log::error!(what:? = error; "records.damaged");
            let computed = Computed {
                facts: Facts::default(),
                damaged: BTreeSet::from([Damaged::Database]),
                damaged_attachments: 0,
            };
            let key = clock::random::<32>().map_err(StoreError::io("randomness"))?;
            Ok((computed, GoldenKey::new(key), Vec::new()))
        }
        Err(error) => Err(error),
    }
}

/// Whether every page of the copy is one of a database. The copy is the backup's own: nobody waits for this.
fn pages_are_whole(db: &Connection) -> bool {
    let verdict = db.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0));
    verdict.is_ok_and(|verdict| verdict == "ok")
}

#[derive(Default)]
struct Records {
    /// By type.
    counts: BTreeMap<String, u64>,
    /// Over all current resources and deletions.
    digest: String,
    newest_ms: i64,
    /// A body is not what was written.
    damaged: bool,
}

fn resources(db: &Connection, schema: u32) -> Result<Records, StoreError> {
    let digest = if schema < 2 { "NULL" } else { "r.digest" };
    let sql = format!(
        "SELECT t.name, r.id, r.version, r.updated_ms, r.body, {digest}, r.deleted FROM resource r \
         JOIN resource_type t ON t.id = r.type ORDER BY r.type, r.id"
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut found = Records::default();
    let mut hasher = blake3::Hasher::new();
    while let Some(row) = rows.next()? {
        let text = |index: usize| {
            row.get_ref(index).map_err(StoreError::from)?.as_str().map_err(|_| StoreError::Damaged("column"))
        };
        let (kind, id, body) = (text(0)?, text(1)?, text(4)?);
        let (version, updated_ms): (u32, i64) = (row.get(2)?, row.get(3)?);
        let written: Option<[u8; 16]> = row.get(5)?;
        found.damaged |= written.is_some_and(|written| written != body_digest(body));
        for part in [kind, id, body] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        hasher.update(&version.to_le_bytes());
        found.newest_ms = found.newest_ms.max(updated_ms);
        // A deletion is part of the digest, and no record any more.
        if row.get::<_, i64>(6)? != 0 {
            continue;
        }
        match found.counts.get_mut(kind) {
            Some(count) => *count += 1,
            None => drop(found.counts.insert(kind.to_owned(), 1)),
        }
    }
    drop(rows);
    beside(db, schema, &mut hasher)?;
    found.digest = hasher.finalize().to_hex().to_string();
    Ok(found)
}

/// What a practice keeps beside its resources, with the column that orders it and the schema from which on it is told: data
/// of an older schema is told as the older release told it. Sessions, holds, codes, tokens and failed logins end by
/// themselves and prove nothing; who is busy is drawn from the appointments, what patients decided from their consents.
const BESIDE: [(&str, &str, u32); 17] = [
    ("account", "id", 6),
    ("appointment_link", "token_hash", 6),
    ("break_glass", "id", 6),
    ("calendar_feed", "token_hash", 6),
    ("consent_record", "seq", 6),
    ("consent_text", "id, version", 6),
    ("downtime_access", "token_hash", 11),
    ("imported_row", "source, kind, number", 10),
    ("outbox", "id", 6),
    ("phrase", "account, name", 6),
    ("portal_account", "id", 9),
    ("portal_proxy", "id", 14),
    ("practice_setting", "key", 6),
    ("recovery_code", "account, code_hash", 6),
    ("smart_client", "id", 8),
    ("smart_grant", "id", 8),
    ("webauthn_key", "id", 13),
];

/// Hashes every row of the tables beside the resources.
fn beside(db: &Connection, schema: u32, hasher: &mut blake3::Hasher) -> Result<(), StoreError> {
    for (table, order, _) in BESIDE.into_iter().filter(|(_, _, since)| *since <= schema) {
        let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY {order}"))?;
        let columns = statement.column_names().len();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            hasher.update(table.as_bytes());
            for column in 0..columns {
                let value: crate::db::Value = row.get(column)?;
                let shown = format!("{value:?}");
                hasher.update(&(shown.len() as u64).to_le_bytes());
                hasher.update(shown.as_bytes());
            }
        }
    }
    Ok(())
}

struct Files {
    count: u64,
    bytes: u64,
    digest: String,
    damaged: u64,
}

fn files(db: &Connection, attachments: &Attachments, depth: Depth) -> Result<Files, StoreError> {
    // Equal bytes count once, in whatever files they are, sealed or as older releases kept them.
    let mut found = BTreeSet::new();
    let rows = AttachmentRow::all(db)?;
    let damaged = match depth {
        Depth::Recorded => attachments.look_for_rot(&rows).len() as u64,
        Depth::Rehashed => 0,
    };
    for row in rows {
        found.insert(match depth {
            Depth::Recorded => (row.digest, row.bytes),
            Depth::Rehashed => {
                let bytes = attachments.read(&row)?;
                (*blake3::hash(&bytes).as_bytes(), bytes.len() as u64)
            }
        });
    }
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
        let store = Store::open(dir.path(), Clock::manual(1_700_000_000_000), Mode::New).unwrap();
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
        db.execute_batch("UPDATE resource SET body = replace(body, 'Abel', 'Obel')").unwrap();
        let broken = compute(&db, &attachments, Depth::Recorded).unwrap();
        assert_eq!(broken.damaged, BTreeSet::from([Damaged::AuditChain, Damaged::Records]));
        db.execute_batch("UPDATE resource SET body = replace(body, 'Obel', 'Abel')").unwrap();
        // One byte that is no text.
        db.execute_batch("UPDATE audit SET actor_name = CAST(x'ff' AS TEXT) WHERE seq = 2").unwrap();
        let (broken, _, _) = examine(&db, &attachments).unwrap();
        assert_eq!(broken.damaged, BTreeSet::from([Damaged::AuditChain]));
        db.execute_batch("UPDATE audit SET actor_name = 'u' WHERE seq = 2").unwrap();
        compute(&db, &attachments, Depth::Rehashed).unwrap();
        let odd = "INSERT INTO ledger_entry (posting, account, patient, cents) VALUES (1, 'receivable', 1, 5)";
        db.execute_batch(&format!("PRAGMA foreign_keys = 0; {odd}")).unwrap();
        let broken = compute(&db, &attachments, Depth::Recorded).unwrap();
        assert_eq!(broken.damaged, BTreeSet::from([Damaged::Ledger]));
        assert!(matches!(compute(&db, &attachments, Depth::Rehashed), Err(StoreError::Damaged("ledger"))));
    }

    #[tokio::test]
    async fn a_database_with_broken_pages_is_told_and_copied() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::manual(1_700_000_000_000), Mode::New).unwrap();
        let actor = Actor::staff("u", "u", Role::Clinician);
        for number in 0..200 {
            let family = format!("Abel{number}").repeat(20);
            let body = serde_json::json!({ "resourceType": "Patient", "name": [{ "family": family }] });
            store.write::<_, StoreError, _>(&actor, move |tx: &mut Tx<'_>| tx.create("Patient", body)).await.unwrap();
        }
        let attachments = store.attachments().clone();
        drop(store);
        let path = dir.path().join(DATABASE_FILE);
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let (whole, _, golden) = examine(&db, &attachments).unwrap();
        assert!(whole.damaged.is_empty() && whole.facts.resources["Patient"] == 200 && !golden.is_empty());
        drop(db);
        let mut bytes = std::fs::read(&path).unwrap();
        let from = bytes.len() / 4;
        bytes[from..].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let (broken, _, golden) = examine(&Connection::open(&path).unwrap(), &attachments).unwrap();
        assert_eq!((broken.damaged, golden.len()), (BTreeSet::from([Damaged::Database]), 0));
    }
    #[tokio::test]
    async fn a_broken_page_that_no_fact_reads_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path(), Clock::manual(1_700_000_000_000), Mode::New).unwrap();
        let attachments = store.attachments().clone();
        drop(store);
        let path = dir.path().join(DATABASE_FILE);
        let db = Connection::open(&path).unwrap();
        db.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").unwrap();
        let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'session'";
        let root: u32 = db.query_row(root, [], |row| row.get(0)).unwrap();
        let page: u32 = db.query_row("PRAGMA page_size", [], |row| row.get(0)).unwrap();
        let (whole, _, _) = examine(&db, &attachments).unwrap();
        assert_eq!(whole.damaged, BTreeSet::new());
        drop(db);
        let mut bytes = std::fs::read(&path).unwrap();
        let at = |number: u32| (number * page) as usize;
        bytes[at(root - 1)..at(root)].fill(0xff);
        std::fs::write(&path, bytes).unwrap();
        let (broken, _, _) = examine(&Connection::open(&path).unwrap(), &attachments).unwrap();
        assert_eq!((broken.damaged, broken.facts), (BTreeSet::from([Damaged::Database]), whole.facts));
    }
}
