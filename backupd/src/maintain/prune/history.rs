//! What the log of reports says that a plan needs: what is proved, when snapshots were first named, which plans were decided
//! about. Only what the verifier's key signed counts.

use super::{Pruning, held};
use crate::failure;
use crate::maintain::Maintain;
use crate::reports;
use backup_engine::SnapshotId;
use backup_engine::prune::Trip;
use backup_report::{DeletionDecision, DeletionPlan, Digest, Entry, SignedDecision, Verdict, View};
use backupd_api::{Failure, FailureKind};
use std::collections::{BTreeMap, BTreeSet};

/// How many entries the longest log had that was ever seen.
const LOG_SIZE: &str = "prune:log-size";

/// What the log says.
#[derive(Default)]
pub struct History {
    /// The snapshot that was last proved of each store.
    pub proved: BTreeMap<String, SnapshotId>,
    pub first_seen: BTreeMap<SnapshotId, i64>,
    /// Plans with what was decided, oldest first.
    plans: Vec<(DeletionPlan, Vec<u8>, Vec<SignedDecision>)>,
    done: BTreeSet<Digest>,
}

impl History {
    fn take(&mut self, bytes: &[u8]) {
        // An entry of a kind that a later version wrote says nothing about these.
        let Ok(entry) = Entry::parse(bytes) else { return };
        match entry {
            Entry::Report(report) => {
                let Ok(id) = report.snapshot.id.as_str().parse::<SnapshotId>() else { return };
                self.seen(id, report.timing.declared_unix_ms);
                if report.verdict == Verdict::Pass {
                    self.proved.insert(report.store.name.as_str().to_owned(), id);
                }
            }
            Entry::DeletionPlan(plan) => {
                for gone in &plan.going {
                    if let Ok(id) = gone.id.as_str().parse() {
                        self.seen(id, gone.received_unix_ms);
                    }
                }
                self.plans.push((*plan, bytes.to_vec(), Vec::new()));
            }
            Entry::DeletionDecision(decision) => {
                let about = |bytes: &[u8]| Digest::sha256(bytes) == *decision.plan_sha256();
                if let Some((.., decisions)) = self.plans.iter_mut().find(|(_, bytes, _)| about(bytes)) {
                    decisions.push(*decision);
                }
            }
            Entry::DeletionDone(done) => drop(self.done.insert(done.plan_sha256.clone())),
            Entry::Approval(_) | Entry::CorrectiveAction(_) => {}
        }
    }

    fn seen(&mut self, id: SnapshotId, unix_ms: i64) {
        let first = self.first_seen.entry(id).or_insert(unix_ms);
        *first = unix_ms.min(*first);
    }

    /// The refusal of a plan by somebody whose key `counts`.
    pub fn refusal(&self, plan: &[u8], counts: impl Fn(&SignedDecision) -> bool) -> Option<&SignedDecision> {
        let (.., decisions) = self.plans.iter().find(|(_, bytes, _)| bytes == plan)?;
        decisions.iter().find(|decision| decision.decision() == DeletionDecision::Refused && counts(decision))
    }

    /// What two persons have looked at, in plans that were carried out: it stops no later one.
    pub fn looked_at(&self) -> Vec<Trip> {
        let done = self.plans.iter().filter(|(_, bytes, _)| self.done.contains(&Digest::sha256(bytes)));
        done.flat_map(|(plan, ..)| held::trips(plan)).collect()
    }

    /// The newest plan that was decided about and of which nothing is known to be deleted: what a lost state folder knew.
    pub fn open_plan(
        self,
        counts: impl Fn(&SignedDecision) -> bool,
    ) -> Option<(DeletionPlan, Vec<u8>, Vec<SignedDecision>)> {
        let (_, bytes, _) = self.plans.last()?;
        let open = !self.done.contains(&Digest::sha256(bytes)) && self.refusal(bytes, counts).is_none();
        self.plans.into_iter().next_back().filter(|_| open)
    }
}

impl Maintain {
    /// Reads the longest valid log that a store holds. All must answer, and none may be shorter than was ever seen: without
    /// the newest reports the newest proof would not be known.
    pub(super) async fn history(&self, pruning: &Pruning) -> Result<History, Failure> {
        let (mut longest, mut any): (Option<View>, bool) = (None, false);
        for store in self.plain_stores() {
            let objects = reports::objects(&store, &pruning.report_key, &pruning.origin).await;
            let objects = objects.map_err(|e| failure::from_engine(&e.context(&store.name)))?;
            any |= !objects.is_empty();
            match View::of_objects(objects, &pruning.report_key, &pruning.origin) {
                Ok(view) if longest.as_ref().is_none_or(|l| l.leaves().len() < view.leaves().len()) => {
                    longest = Some(view);
                }
                Ok(_) => {}
                Err(error) => log::warn!(store = store.name.as_str(), reason:% = error; "store.log-not-valid"),
            }
        }
        let size = longest.as_ref().map_or(0, |view| view.leaves().len() as u64);
        let known = self.jobs().note(LOG_SIZE).ok().flatten().and_then(|text| text.parse().ok()).unwrap_or(0);
        if size < known || (size == 0 && any) {
            let message = "no store holds the log of reports whole: what is proved is not known, so nothing may be deleted; \
                           `backupd verifier` puts its log back when it runs";
            return Err(failure::new(FailureKind::Damaged, message));
        }
        if let Err(error) = self.jobs().set_note(LOG_SIZE, &size.to_string()) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        let mut history = History::default();
        let entries = longest.as_ref().map(View::entries).unwrap_or_default();
        entries.iter().for_each(|bytes| history.take(bytes));
        Ok(history)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backup_report::{DeletionDone, DoneSchema, OpaqueId, ReportSigner};

    /// A frozen report that passes.
    const REPORT: &[u8] =
        include_bytes!("../../../report/tests/vectors/restore-report-1/01912d68-783e-7a03-8467-000000000003.json");
    const DECLARED_MS: i64 = 1_795_330_890_000;

    fn report(snapshot: &str, passes: bool) -> Vec<u8> {
        let mut report = backup_report::check(REPORT).unwrap();
        report.snapshot.id = OpaqueId::parse(&snapshot.repeat(32)).unwrap();
        if !passes {
            report.rto.objective_ms = 1;
        }
        report.settle().unwrap();
        report.to_bytes()
    }

    fn plan(snapshot: &str, received_unix_ms: i64) -> Vec<u8> {
        let text = include_str!("plan.example.json");
        let received = format!("\"received_unix_ms\": {received_unix_ms}");
        let text = text.replace("SNAPSHOT", &snapshot.repeat(32)).replace("\"received_unix_ms\": -1", &received);
        DeletionPlan::parse(text.as_bytes()).unwrap().to_bytes()
    }

    fn id(text: &str) -> SnapshotId {
        text.repeat(32).parse().unwrap()
    }

    #[test]
    fn the_last_pass_of_a_store_is_its_proof_and_the_first_word_of_a_snapshot_its_date() {
        let mut history = History::default();
        for bytes in [report("aa", true), report("bb", true), report("cc", false), b"{\"schema\":\"later/1\"}".to_vec()]
        {
            history.take(&bytes);
        }
        assert_eq!(history.proved, BTreeMap::from([("offsite-a".to_owned(), id("bb"))]));
        assert_eq!(history.first_seen.get(&id("cc")), Some(&DECLARED_MS), "it was seen, whatever came of the drill");
        history.take(&plan("bb", 5_000));
        assert_eq!((history.first_seen[&id("bb")], history.first_seen[&id("aa")]), (5_000, DECLARED_MS));
    }

    #[test]
    fn a_plan_is_open_until_it_is_refused_or_carried_out() {
        let decided = |plan: &[u8], decision| {
            SignedDecision::create(&ReportSigner::from_seed(&[1; 32]), plan, decision, 7).unwrap()
        };
        let (first, second) = (plan("aa", 1), plan("bb", 2));
        let mut history = History::default();
        history.take(&first);
        history.take(&decided(&first, DeletionDecision::Approved));
        let (found, bytes, decisions) = history.open_plan(|_| true).unwrap();
        assert_eq!((bytes, decisions.len(), found.going.len()), (first.clone(), 1, 1));

        let mut refused = History::default();
        [&first, &decided(&first, DeletionDecision::Refused)].into_iter().for_each(|bytes| refused.take(bytes));
        assert!(refused.refusal(&first, |_| true).is_some() && refused.refusal(&second, |_| true).is_none());
        assert!(refused.refusal(&first, |_| false).is_none(), "somebody who is no approver ends nothing");
        assert!(refused.open_plan(|_| true).is_none());

        let mut done = History::default();
        let document = DeletionPlan::parse(&second).unwrap();
        let entry = DeletionDone {
            schema: DoneSchema::V1,
            plan_id: document.plan_id,
            plan_sha256: Digest::sha256(&second),
            done_unix_ms: 9,
            snapshots: 1,
            packs: 1,
            rescued: 0,
            stores: Vec::new(),
        };
        let approval = decided(&second, DeletionDecision::Approved);
        [&first, &second, &approval, &entry.to_bytes()].into_iter().for_each(|bytes| done.take(bytes));
        assert!(done.open_plan(|_| true).is_none(), "an older plan that nobody carried out is not taken up again");
    }
}
