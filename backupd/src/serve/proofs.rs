//! What the drills proved, from the reports that the verifier copies to every store. Only the verifier's signature
//! counts: a store cannot claim that it was proved.

use super::Daemon;
use crate::reports::{PREFIX, objects};
use crate::stores::Proof;
use crate::verifier::{is_nothing_sealed, is_source_damaged};
use backup_report::{Entry, OpaqueId, Origin, Report, Verdict, View};
use backupd_api::{DrillVerdict, StoreCondition};
use std::collections::{BTreeMap, BTreeSet};

impl Daemon {
    /// Which log the reports of this repository stand in.
    pub(super) fn log_origin(&self) -> Option<Origin> {
        let repository = OpaqueId::parse(&self.writer().repository().to_string()).ok()?;
        Some(Origin::of_repository(&repository))
    }

    /// Reads the longest valid log that a store holds and notes the drills in it. `names_before`: the names at the last
    /// look; when they are the same, nothing is read.
    pub async fn read_proofs(&self, names_before: &mut Option<BTreeSet<String>>) {
        let Some(key) = &self.report_key else { return };
        let Some(origin) = self.log_origin() else { return };
        let mut names = BTreeSet::new();
        for store in &self.stores {
            names.extend(store.store.list(PREFIX).await.unwrap_or_default().into_iter().map(|o| o.name));
        }
        if names_before.as_ref() == Some(&names) {
            return;
        }
        *names_before = Some(names);
        let mut longest: Option<View> = None;
        for store in &self.stores {
            let Ok(objects) = objects(store, key, &origin).await else { continue };
            match View::of_objects(objects, key, &origin) {
                Ok(view) if longest.as_ref().is_none_or(|l| l.leaves().len() < view.leaves().len()) => {
                    longest = Some(view)
                }
                Ok(_) => {}
                Err(error) => log::warn!(store = store.name.as_str(), reason:% = error; "store.log-not-valid"),
            }
        }
        let Some(log) = longest else { return };
        let mut proofs: BTreeMap<String, Proof> = BTreeMap::new();
        for bytes in log.entries() {
            if let Ok(Entry::Report(report)) = Entry::parse(bytes) {
                note(&mut proofs, &report);
            }
        }
        let mut view = self.view();
        for (store, proof) in proofs {
            if self.settings.store(&store).is_some() {
                view.stores.entry(store).or_default().proof = Some(proof);
            }
        }
    }
}

pub fn drill_verdict(verdict: Verdict) -> DrillVerdict {
    match verdict {
        Verdict::Pass => DrillVerdict::Pass,
        Verdict::Fail => DrillVerdict::Fail,
        Verdict::Inconclusive => DrillVerdict::Inconclusive,
    }
}

fn note(proofs: &mut BTreeMap<String, Proof>, report: &Report) {
    let at = report.timing.ended_unix_ms;
    let verdict = drill_verdict(report.verdict);
    let proof = proofs.entry(report.store.name.as_str().to_owned()).or_insert(Proof {
        verdict,
        source_damaged: None,
        nothing_sealed: false,
        whole_unix_ms: None,
        damaged: None,
        passed_unix_ms: None,
        proved: Vec::new(),
    });
    proof.verdict = verdict;
    proof.source_damaged = is_source_damaged(report).then(|| report.snapshot.source.as_str().to_owned());
    proof.damaged = match &report.integrity {
        Some(found) if found.corrupt > 0 => Some(StoreCondition::Corrupt),
        Some(found) if found.missing > 0 => Some(StoreCondition::Missing),
        Some(_) => None,
        None => proof.damaged,
    };
    proof.nothing_sealed = is_nothing_sealed(report);
    if proof.nothing_sealed || report.verdict == Verdict::Pass {
        proof.whole_unix_ms = Some(at);
    }
    if report.verdict == Verdict::Pass {
        proof.passed_unix_ms = Some(at);
        proof.proved.push(report.snapshot.id.as_str().to_owned());
    }
}
