//! Comparing what was sealed with what the restored EMR says.

use appliance_api::{Facts, GoldenQuery, GoldenQuestion};
use backup_report::{Fact, FactCompared, GoldenCompared, GoldenKind, ResourceCompared, ResourceType};
use std::collections::BTreeSet;

/// Every fact, one by one.
pub fn facts(sealed: &Facts, restored: &Facts) -> Vec<FactCompared> {
    let equal = |fact: &Fact| match fact {
        Fact::SchemaVersion => sealed.schema_version == restored.schema_version,
        Fact::Resources => sealed.resources == restored.resources,
        Fact::ResourcesDigest => sealed.resources_digest == restored.resources_digest,
        Fact::HistoryRows => sealed.history_rows == restored.history_rows,
        Fact::LedgerEntries => sealed.ledger_entries == restored.ledger_entries,
        Fact::LedgerBalance => sealed.ledger_balance_cents == restored.ledger_balance_cents,
        Fact::Attachments => sealed.attachments == restored.attachments,
        Fact::AttachmentBytes => sealed.attachment_bytes == restored.attachment_bytes,
        Fact::AttachmentsDigest => sealed.attachments_digest == restored.attachments_digest,
        Fact::AuditEntries => sealed.audit_entries == restored.audit_entries,
        Fact::AuditHead => sealed.audit_head == restored.audit_head,
        Fact::NewestRecord => sealed.newest_record_unix_ms == restored.newest_record_unix_ms,
        Fact::Canary => {
            (sealed.canary_sequence, sealed.canary_unix_ms) == (restored.canary_sequence, restored.canary_unix_ms)
        }
    };
    Fact::ALL.iter().map(|fact| FactCompared { fact: *fact, equal: equal(fact) }).collect()
}

/// Counts by type; a type outside the standard cannot stand in a report and shows in the fact `resources` alone.
pub fn resources(sealed: &Facts, restored: &Facts) -> Vec<ResourceCompared> {
    let types: BTreeSet<&String> = sealed.resources.keys().chain(restored.resources.keys()).collect();
    let count = |facts: &Facts, name: &String| facts.resources.get(name).copied().unwrap_or(0);
    types
        .into_iter()
        .filter_map(|name| {
            let resource = ResourceType::parse(name).ok()?;
            Some(ResourceCompared { resource, stated: count(sealed, name), restored: count(restored, name) })
        })
        .collect()
}

/// Golden answers by kind. `answers` holds as many as were asked, in order.
pub fn golden(queries: &[GoldenQuery], answers: &[Option<String>]) -> Vec<GoldenCompared> {
    let mut out: Vec<GoldenCompared> = Vec::new();
    for (index, query) in queries.iter().enumerate() {
        let kind = kind(&query.question);
        let row = match out.iter_mut().position(|row| row.kind == kind) {
            Some(at) => at,
            None => {
                out.push(GoldenCompared { kind, sealed: 0, asked: 0, equal: 0 });
                out.len() - 1
            }
        };
        let Some(row) = out.get_mut(row) else { continue };
        row.sealed += 1;
        if let Some(answer) = answers.get(index) {
            row.asked += 1;
            row.equal += u64::from(is_right(query, answer.as_ref()));
        }
    }
    out
}

/// Whether an answer is the sealed one.
pub fn is_right(query: &GoldenQuery, answer: Option<&String>) -> bool {
    answer == Some(&query.expected)
}

fn kind(question: &GoldenQuestion) -> GoldenKind {
    match question {
        GoldenQuestion::PatientById { .. } => GoldenKind::PatientById,
        GoldenQuestion::AppointmentsOn { .. } => GoldenKind::AppointmentsOn,
        GoldenQuestion::Note { .. } => GoldenKind::Note,
        GoldenQuestion::AttachmentDigest { .. } => GoldenKind::AttachmentDigest,
        GoldenQuestion::AuditHead => GoldenKind::AuditHead,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Facts {
        Facts {
            schema_version: 1,
            resources: [("Patient".to_owned(), 50), ("Encounter".to_owned(), 80)].into(),
            history_rows: 130,
            ledger_entries: 4,
            ledger_balance_cents: 0,
            attachments: 3,
            attachment_bytes: 1000,
            attachments_digest: "aa".to_owned(),
            resources_digest: "bb".to_owned(),
            audit_entries: 99,
            audit_head: "cc".to_owned(),
            newest_record_unix_ms: 5,
            canary_sequence: 7,
            canary_unix_ms: 6,
        }
    }

    /// Changing any one field must turn exactly its own fact, so that none is compared with another or forgotten.
    #[test]
    fn every_single_difference_is_seen() {
        type Change = fn(&mut Facts);
        let changes: [(Fact, Change); 14] = [
            (Fact::SchemaVersion, |f| f.schema_version += 1),
            (Fact::Resources, |f| {
                f.resources.insert("Patient".to_owned(), 49);
            }),
            (Fact::ResourcesDigest, |f| f.resources_digest.push('0')),
            (Fact::HistoryRows, |f| f.history_rows -= 1),
            (Fact::LedgerEntries, |f| f.ledger_entries -= 1),
            (Fact::LedgerBalance, |f| f.ledger_balance_cents += 1),
            (Fact::Attachments, |f| f.attachments -= 1),
            (Fact::AttachmentBytes, |f| f.attachment_bytes -= 1),
            (Fact::AttachmentsDigest, |f| f.attachments_digest.push('0')),
            (Fact::AuditEntries, |f| f.audit_entries -= 1),
            (Fact::AuditHead, |f| f.audit_head.push('0')),
            (Fact::NewestRecord, |f| f.newest_record_unix_ms -= 1),
            (Fact::Canary, |f| f.canary_sequence -= 1),
            (Fact::Canary, |f| f.canary_unix_ms -= 1),
        ];
        assert!(facts(&sample(), &sample()).iter().all(|f| f.equal));
        for (fact, change) in changes {
            let mut restored = sample();
            change(&mut restored);
            let compared = facts(&sample(), &restored);
            assert_eq!(compared.len(), Fact::ALL.len());
            let differing: Vec<Fact> = compared.iter().filter(|f| !f.equal).map(|f| f.fact).collect();
            assert_eq!(differing, [fact]);
        }
    }

    #[test]
    fn types_that_appeared_or_vanished_are_listed() {
        let mut restored = sample();
        restored.resources.remove("Encounter");
        restored.resources.insert("Observation".to_owned(), 2);
        let rows = resources(&sample(), &restored);
        let find = |name: &str| rows.iter().find(|r| r.resource.as_str() == name).map(|r| (r.stated, r.restored));
        assert_eq!(find("Encounter"), Some((80, 0)));
        assert_eq!(find("Observation"), Some((0, 2)));
        assert_eq!(find("Patient"), Some((50, 50)));
    }

    #[test]
    fn questions_that_were_not_asked_are_not_right() {
        let query = |question| GoldenQuery { question, expected: "e".to_owned() };
        let queries = [
            query(GoldenQuestion::PatientById { id: "a".to_owned() }),
            query(GoldenQuestion::PatientById { id: "b".to_owned() }),
            query(GoldenQuestion::AuditHead),
        ];
        let rows = golden(&queries, &[Some("e".to_owned()), None]);
        let patient = rows.iter().find(|r| r.kind == GoldenKind::PatientById).unwrap();
        assert_eq!((patient.sealed, patient.asked, patient.equal), (2, 2, 1));
        let head = rows.iter().find(|r| r.kind == GoldenKind::AuditHead).unwrap();
        assert_eq!((head.sealed, head.asked, head.equal), (1, 0, 0));
    }
}
