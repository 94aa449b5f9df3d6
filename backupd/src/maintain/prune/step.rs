//! Going on with an approved plan: announce, wait for grace and writers, delete, tell the log. Whatever stops in between,
//! the next step goes on from what the stores and the state say.

use super::held::{self, Held};
use super::plan::{busy, request, zone_of};
use super::{Keys, Pruning};
use crate::maintain::Maintain;
use crate::{clock, failure};
use backup_engine::ErrorKind;
use backup_engine::prune::{
    Approved, Execution, PruneRequest, Retire, Waiting, announce, execute, retire_writers, withdraw,
};
use backup_report::{DeletionDone, Digest, DoneSchema, Label, StoreDone};
use backupd_api::{
    Failure, FailureKind, PruneDecision, PrunePlan, PruneRow, PruneState, PruneStore, PruneWaiting, Request,
};
use std::sync::atomic::Ordering;
use std::time::Duration;

pub const PRUNE_JOB: &str = "prune";
/// A plan that waits for writers, or whose last step failed, is looked at so often.
const LOOK_AGAIN: Duration = Duration::from_secs(5 * 60);
/// What a lock keeps, or a store or the tripwire refuses, is tried again so often.
const TRY_REFUSED_AGAIN: Duration = Duration::from_secs(24 * 3600);

fn after(wait: Duration) -> Option<i64> {
    Some(clock::unix_ms().saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)))
}

impl Maintain {
    /// Goes on with the plan now. On request it must be one that may go on.
    pub async fn prune_step(&self, requested: bool) -> Result<(), Failure> {
        let pruning = self.pruning()?;
        let Ok(_work) = self.work.try_lock() else { return Err(busy()) };
        let _busy = self.activity.begin(PRUNE_JOB);
        let deciding = self.deciding.lock().await;
        let mut held = match self.records.held() {
            Some(held) => held,
            // The state folder was lost: the stores and the log know whether something is under way.
            None => match self.found_again(pruning).await? {
                Some(held) => held,
                None => {
                    self.end_announced(pruning, None).await?;
                    return if requested { Err(nothing("there is no plan")) } else { Ok(()) };
                }
            },
        };
        let _carrying;
        let done = match held.plan.state {
            PruneState::Approved | PruneState::Announced | PruneState::Deleting => {
                _carrying = pruning.carrying.lock().await;
                drop(deciding);
                self.go_on(pruning, &mut held).await
            }
            PruneState::Proposed if requested => {
                let message = format!(
                    "plan {} needs {} persons' approval and has {}: `backupd prune approve` signs one",
                    held.plan.id,
                    held.plan.needed,
                    held.approvals()
                );
                return Err(failure::new(FailureKind::Denied, message));
            }
            PruneState::Proposed => {
                held.next_unix_ms = None;
                Ok(())
            }
            // Somebody refused it, maybe while it was under way.
            PruneState::Refused if held.next_unix_ms.is_some() => {
                held.next_unix_ms = None;
                let was_approved = held.approvals() >= held.plan.needed;
                match self.end_announced(pruning, Some(&held.plan.id)).await {
                    // This state is older than the log.
                    Ok(Some(found)) => return self.keep(&found),
                    Err(failed) if was_approved => Err(failed),
                    _ => Ok(()),
                }
            }
            PruneState::Done | PruneState::Refused | PruneState::Empty => {
                if requested && held.unrecorded.is_none() {
                    return Err(nothing("the last plan has ended"));
                }
                held.next_unix_ms = None;
                Ok(())
            }
        };
        held.plan.problem = done.as_ref().err().map(|failed| failed.message.clone());
        if let Err(failed) = &done {
            // What is refused, a person has to look at first.
            let refused = failed.kind == FailureKind::Denied;
            held.next_unix_ms = after(if refused { TRY_REFUSED_AGAIN } else { LOOK_AGAIN });
        }
        self.tell_log(pruning, &mut held).await;
        self.keep(&held)?;
        if requested && done.is_ok() && held.plan.state == PruneState::Refused {
            return Err(nothing("the last plan has ended"));
        }
        done
    }

    async fn go_on(&self, pruning: &Pruning, held: &mut Held) -> Result<(), Failure> {
        let document = held.document()?;
        let history = self.history(pruning).await?;
        let refusal = history.refusal(held.plan.document.as_bytes(), |decision| pruning.counts(decision));
        if let Some(refusal) = refusal.filter(|_| held.plan.state != PruneState::Deleting) {
            // The log took it, and this state is older.
            held.plan.decisions.push(pruning.told(refusal));
            (held.plan.state, held.plan.waiting, held.next_unix_ms) =
                (PruneState::Refused, None, after(Duration::ZERO));
            return Ok(());
        }
        let zone = zone_of(self.settings.zone);
        let request = request(pruning, &history, &zone, self.given_up());
        let keys = pruning.keys()?;
        if held.plan.state == PruneState::Approved {
            self.require_heads()?;
            let approved = Approved { snapshots: held::going(&document), trips: held::trips(&document) };
            match announce(&self.env, &keys.open, &keys.pruner, &self.stores, &request, &approved).await {
                Ok(Some(announced)) => {
                    (held.plan.state, held.announced) = (PruneState::Announced, Some(announced.name.number));
                }
                Ok(None) => {
                    (held.plan.state, held.next_unix_ms) = (PruneState::Done, None);
                    return Ok(());
                }
                // It was announced before the daemon was stopped.
                Err(error) if error.kind() == ErrorKind::Fenced => held.plan.state = PruneState::Announced,
                Err(error) => return Err(failure::from_engine(&error)),
            }
            self.keep(held)?;
        }
        let execution = self.execute(&keys, &request, pruning).await?;
        let is_gone = |number: u64| execution.plan.is_none_or(|plan| plan < number);
        if held.plan.state == PruneState::Announced && held.announced.is_some_and(is_gone) {
            held.plan.state = PruneState::Approved;
            return Err(failure::new(
                FailureKind::Retry,
                "no store has the announced plan any more: it is announced again",
            ));
        }
        self.take_in(held, &execution, &keys).await
    }

    /// Ends a plan in the stores that nobody carries out any more: `refused`, or one of which neither this state nor the log knows
    /// two persons who stand for it. Gives the plan that the log knows, if it does.
    pub(super) async fn end_announced(
        &self,
        pruning: &Pruning,
        refused: Option<&str>,
    ) -> Result<Option<Held>, Failure> {
        let found = self.found_again(pruning).await?;
        let goes_on = |held: &Held| held.plan.state == PruneState::Approved && refused != Some(&held.plan.id);
        if let Some(mut found) = found.filter(goes_on) {
            found.next_unix_ms = Some(clock::unix_ms());
            return Ok(Some(found));
        }
        let keys = pruning.keys()?;
        let ended = withdraw(&self.env, &keys.open, &keys.pruner, &self.stores).await;
        ended.map(|_| None).map_err(|error| failure::from_engine(&error))
    }

    async fn execute(&self, keys: &Keys, request: &PruneRequest<'_>, pruning: &Pruning) -> Result<Execution, Failure> {
        let engine = |error: backup_engine::Error| failure::from_engine(&error);
        let run = || execute(&self.env, &keys.open, &keys.pruner, &self.stores, request);
        let done = run().await.map_err(engine)?;
        if !matches!(done.waiting, Some(Waiting::Writers(_))) {
            return Ok(done);
        }
        // Chains whose writers have fallen silent end; should one come back it begins another.
        let which = Retire::Silent(pruning.settings.retire_silent);
        let retired = retire_writers(&self.env, &keys.open, &keys.pruner, &self.stores, (which, &request.given_up))
            .await
            .map_err(engine)?;
        if retired == 0 { Ok(done) } else { run().await.map_err(engine) }
    }

    async fn take_in(&self, held: &mut Held, execution: &Execution, keys: &Keys) -> Result<(), Failure> {
        held.attacked = false;
        match &execution.waiting {
            Some(Waiting::Grace { until_unix_ms }) => {
                held.plan.waiting = Some(PruneWaiting { until_unix_ms: Some(*until_unix_ms), writers: Vec::new() });
                let soon = after(LOOK_AGAIN).unwrap_or(i64::MAX);
                held.next_unix_ms = Some((*until_unix_ms).max(clock::unix_ms() + 1_000).min(soon));
                return Ok(());
            }
            Some(Waiting::Writers(blind)) => {
                let writers = blind.iter().map(|(source, _)| source.clone()).collect();
                held.plan.waiting = Some(PruneWaiting { until_unix_ms: None, writers });
                held.next_unix_ms = after(LOOK_AGAIN);
                return Ok(());
            }
            Some(Waiting::Attack(trips)) => {
                held.attacked = true;
                let found: Vec<String> =
                    trips.iter().map(|trip| format!("{:?} of {}", trip.kind, trip.source)).collect();
                let message = format!(
                    "what has come since the plan was announced looks like an attack ({}), and nothing is deleted: look at the newest \
                     snapshots, end this plan with `backupd prune refuse`, and make another one",
                    found.join(", ")
                );
                return Err(failure::new(FailureKind::Denied, message));
            }
            None => held.plan.waiting = None,
        }
        if let Ok(names) = backup_engine::condemned_objects(keys.open.catalog(), &self.plain_stores()).await {
            self.note_condemned(&names);
        }
        for done in &execution.stores {
            let found = held.plan.stores.iter().position(|row| row.store == done.store);
            let before = found.and_then(|at| held.plan.stores.get(at)).map_or((0, 0), |row| (row.objects, row.bytes));
            let row = PruneStore {
                store: done.store.clone(),
                objects: before.0 + done.objects,
                bytes: before.1 + done.bytes,
                locked: done.locked,
                locked_bytes: done.locked_bytes,
                error: done.error.as_ref().map(ToString::to_string),
            };
            match found.and_then(|at| held.plan.stores.get_mut(at)) {
                Some(old) => *old = row,
                None => held.plan.stores.push(row),
            }
        }
        let failed = execution.stores.iter().any(|store| store.error.is_some());
        let all_gone = execution.stores.iter().all(backup_engine::prune::StorePruned::is_done);
        let first = held.plan.state == PruneState::Announced;
        (held.plan.state, held.next_unix_ms) = match (all_gone, failed) {
            (true, _) => (PruneState::Done, None),
            (false, true) => (PruneState::Deleting, after(LOOK_AGAIN)),
            (false, false) => (PruneState::Deleting, after(TRY_REFUSED_AGAIN)),
        };
        if (first || all_gone) && held.plan.needed > 0 {
            held.unrecorded = Some(done_entry(held, execution)?);
        }
        log::info!(plan = held.plan.id.as_str(), state:? = held.plan.state; "prune.carried-out");
        Ok(())
    }

    /// Writes to the log what was deleted. The verifier may be down: then the next step tells.
    pub(super) async fn tell_log(&self, pruning: &Pruning, held: &mut Held) {
        let told = match (&held.refusal, &held.unrecorded) {
            (Some(refusal), _) => self.record_decision(pruning, &held.plan.document, refusal).await,
            (None, Some(done)) => self.ask_verifier(pruning, Request::RecordDeletion { done: done.clone() }).await,
            (None, None) => return,
        };
        match told {
            Ok(()) => (held.refusal, held.unrecorded) = (None, None),
            Err(failed) => {
                log::warn!(reason = failed.message.as_str(); "prune.not-recorded");
                held.next_unix_ms = held.next_unix_ms.or_else(|| after(LOOK_AGAIN));
            }
        }
        held.plan.recorded = held.refusal.is_none() && held.unrecorded.is_none();
    }

    /// What the log knows of a plan that is not carried out: its text, and who approved it. Announced or not, going on is
    /// the same.
    pub(super) async fn found_again(&self, pruning: &Pruning) -> Result<Option<Held>, Failure> {
        pruning.looked.store(true, Ordering::Relaxed);
        let Some((plan, bytes, decisions)) =
            self.history(pruning).await?.open_plan(|decision| pruning.counts(decision))
        else {
            return Ok(None);
        };
        let mut told: Vec<PruneDecision> = Vec::new();
        for decision in &decisions {
            let row = pruning.told(decision);
            if row.approver.is_some() && !told.iter().any(|other| other.fingerprint == row.fingerprint) {
                told.push(row);
            }
        }
        let needed = plan.approvals_needed() as u32;
        let state = if told.len() as u32 >= needed { PruneState::Approved } else { PruneState::Proposed };
        let rows = plan.going.iter().map(|gone| PruneRow {
            id: gone.id.as_str().to_owned(),
            source: gone.source.as_str().to_owned(),
            taken_unix_ms: gone.taken_unix_ms,
            received_unix_ms: gone.received_unix_ms,
            goes: true,
            reasons: Vec::new(),
        });
        let shown = PrunePlan {
            id: plan.plan_id.as_str().to_owned(),
            state,
            made_unix_ms: plan.made_unix_ms,
            sha256: Digest::sha256(&bytes).as_str().to_owned(),
            needed,
            decisions: told,
            rows: rows.collect(),
            kept: plan.snapshots - plan.going.len() as u64,
            waiting: None,
            stores: Vec::new(),
            problem: None,
            notes: Vec::new(),
            recorded: true,
            document: String::from_utf8(bytes).unwrap_or_default(),
        };
        log::info!(plan = shown.id.as_str(), state:? = state; "prune.found-again");
        Ok(Some(Held {
            plan: shown,
            next_unix_ms: None,
            unrecorded: None,
            refusal: None,
            announced: None,
            attacked: false,
        }))
    }
}

fn nothing(why: &str) -> Failure {
    failure::new(FailureKind::NotFound, format!("{why}: `backupd prune plan` makes one"))
}

fn done_entry(held: &Held, execution: &Execution) -> Result<String, Failure> {
    let failed =
        |error: &dyn std::fmt::Display| failure::new(FailureKind::Retry, format!("the entry of the log: {error}"));
    let document = held.document()?;
    let mut stores = Vec::new();
    for row in &held.plan.stores {
        stores.push(StoreDone {
            store: Label::parse(&row.store).map_err(|e| failed(&e))?,
            objects: row.objects,
            bytes: row.bytes,
            locked: row.locked,
        });
    }
    stores.sort_by(|a, b| a.store.cmp(&b.store));
    let done = DeletionDone {
        schema: DoneSchema::V1,
        plan_sha256: Digest::sha256(held.plan.document.as_bytes()),
        plan_id: document.plan_id,
        done_unix_ms: clock::unix_ms(),
        snapshots: execution.snapshots,
        packs: execution.packs,
        rescued: execution.rescued,
        stores,
    };
    String::from_utf8(done.to_bytes()).map_err(|e| failed(&e))
}
