//! The record of what people did in the console: append-only, each entry's hash over the one before it, so that a
//! changed or removed entry shows. Subjects are account names and opaque ids; nothing else is recorded.

use rusqlite::{Connection, OptionalExtension};
use sha2::{Digest, Sha256};

/// What was done. Closed, so that no free text enters the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    AccountCreated,
    AccountDisabled,
    AccountUnlocked,
    AccountInvited,
    SignIn,
    SignInRefused,
    SignOut,
    BackupStarted,
    BackupEnded,
    DrillStarted,
    DrillEnded,
    AlertAcknowledged,
    AlertTested,
    EvidenceDownloaded,
    ApprovalKeyEnrolled,
    ReportApproved,
    ApprovalRefused,
    PlanStarted,
    PlanEnded,
    DeletionDecided,
    DecisionRefused,
}

impl Act {
    pub fn word(self) -> &'static str {
        match self {
            Self::AccountCreated => "account-created",
            Self::AccountDisabled => "account-disabled",
            Self::AccountUnlocked => "account-unlocked",
            Self::AccountInvited => "account-invited",
            Self::SignIn => "sign-in",
            Self::SignInRefused => "sign-in-refused",
            Self::SignOut => "sign-out",
            Self::BackupStarted => "backup-started",
            Self::BackupEnded => "backup-ended",
            Self::DrillStarted => "drill-started",
            Self::DrillEnded => "drill-ended",
            Self::AlertAcknowledged => "alert-acknowledged",
            Self::AlertTested => "alert-tested",
            Self::EvidenceDownloaded => "evidence-downloaded",
            Self::ApprovalKeyEnrolled => "approval-key-enrolled",
            Self::ReportApproved => "report-approved",
            Self::ApprovalRefused => "approval-refused",
            Self::PlanStarted => "plan-started",
            Self::PlanEnded => "plan-ended",
            Self::DeletionDecided => "deletion-decided",
            Self::DecisionRefused => "decision-refused",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub seq: i64,
    pub at_ms: i64,
    pub who: String,
    pub act: String,
    pub subject: String,
    pub hash: Vec<u8>,
}

/// Appends inside the caller's transaction: an act whose entry cannot be written does not happen.
pub fn append(db: &Connection, at_ms: i64, who: &str, act: Act, subject: &str) -> rusqlite::Result<()> {
    let last: Option<(i64, Vec<u8>)> = db
        .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let (seq, before) = last.map_or((1, Vec::new()), |(seq, hash)| (seq + 1, hash));
    let hash = hash(&before, seq, at_ms, who, act.word(), subject);
    db.execute(
        "INSERT INTO audit (seq, at_ms, who, act, subject, hash) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        (seq, at_ms, who, act.word(), subject, &hash),
    )?;
    Ok(())
}

/// Newest first.
pub fn page(db: &Connection, before_seq: i64, limit: u32) -> rusqlite::Result<Vec<Entry>> {
    db.prepare_cached(
        "SELECT seq, at_ms, who, act, subject, hash FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2",
    )?
    .query_map((before_seq, limit), entry)?
    .collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chain {
    Whole {
        entries: i64,
        head: Vec<u8>,
    },
    /// The first entry that does not follow from the one before it.
    BrokenAt(i64),
}

/// Recomputes every hash from the first entry on.
pub fn check(db: &Connection) -> rusqlite::Result<Chain> {
    let mut statement = db.prepare_cached("SELECT seq, at_ms, who, act, subject, hash FROM audit ORDER BY seq")?;
    let (mut before, mut seq) = (Vec::new(), 0);
    for row in statement.query_map([], entry)? {
        let row = row?;
        seq += 1;
        if row.seq != seq || row.hash != hash(&before, seq, row.at_ms, &row.who, &row.act, &row.subject) {
            return Ok(Chain::BrokenAt(seq));
        }
        before = row.hash;
    }
    Ok(Chain::Whole { entries: seq, head: before })
}

fn entry(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        seq: row.get(0)?,
        at_ms: row.get(1)?,
        who: row.get(2)?,
        act: row.get(3)?,
        subject: row.get(4)?,
        hash: row.get(5)?,
    })
}

/// SHA-256 over the previous hash and the fields, each with its length before it.
fn hash(before: &[u8], seq: i64, at_ms: i64, who: &str, act: &str, subject: &str) -> Vec<u8> {
    let mut digest = Sha256::new();
    for field in [before, &seq.to_be_bytes(), &at_ms.to_be_bytes(), who.as_bytes(), act.as_bytes(), subject.as_bytes()]
    {
        digest.update((field.len() as u64).to_be_bytes());
        digest.update(field);
    }
    digest.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::Db;

    #[test]
    fn a_changed_or_removed_entry_shows() {
        let folder = tempfile::tempdir().unwrap();
        let db = Db::open(folder.path()).unwrap();
        db.write_blocking(|tx| {
            for at in 1..=4 {
                append(tx, at, "anna", Act::SignIn, "")?;
            }
            assert!(matches!(check(tx)?, Chain::Whole { entries: 4, .. }));
            tx.execute_batch("DROP TRIGGER audit_keeps_rows; DROP TRIGGER audit_keeps_words")
        })
        .unwrap();
        db.write_blocking(|tx| {
            tx.execute("UPDATE audit SET who = 'eve' WHERE seq = 3", [])?;
            assert_eq!(check(tx)?, Chain::BrokenAt(3));
            tx.execute("UPDATE audit SET who = 'anna' WHERE seq = 3", [])?;
            tx.execute("DELETE FROM audit WHERE seq = 2", [])?;
            assert_eq!(check(tx)?, Chain::BrokenAt(2));
            Ok::<_, rusqlite::Error>(())
        })
        .unwrap();
    }
}
