//! Making a plan: what would go, why the rest stays, what it costs. Changes no store.

use super::held::{self, Held};
use super::history::History;
use super::{PLAN_JOB, Pruning};
use crate::maintain::Maintain;
use crate::maintain::gaps::not_noted;
use crate::settings::{record_class, rule_text};
use crate::{clock, failure};
use backup_engine::prune::{GivenUp, Proposal, PruneRequest, Retire};
use backup_engine::retain::{Hold, HoldScope, Keep, Policy, Reason, Rule, Verdict, Zone};
use backup_engine::{ErrorKind, SnapshotInfo};
use backup_report::{
    DeletionPlan, Digest, GoingSnapshot, IdError, KeepKind, Label, OpaqueId, PlanFigures, PlanRule, PlanSchema,
    PlanTrip, ReportId,
};
use backupd_api::{Failure, FailureKind, PrunePlan, PruneRow, PruneState};
use chrono::{Offset, TimeZone};

/// Snapshots that stay, told one by one; the plan counts all.
const KEPT_TOLD: usize = 500;
/// A plan that one person has approved is not replaced by the schedule so soon.
const WAIT_FOR_SECOND_MS: i64 = 30 * 24 * 3_600_000;

impl Maintain {
    /// Makes a plan and keeps it. By the schedule only when there is something new to say.
    pub async fn make_plan(&self, scheduled: bool) -> Result<(), Failure> {
        let pruning = self.pruning()?;
        let Ok(_work) = self.work.try_lock() else { return Err(busy()) };
        let _busy = self.activity.begin(PLAN_JOB);
        let started = clock::unix_ms();
        let made = self.plan_now(pruning, scheduled).await;
        // While a plan is carried out no other is made.
        let ok = made.as_ref().err().is_none_or(|failed| failed.kind == FailureKind::Busy);
        if let Err(error) = self.jobs().finished(PLAN_JOB, started, ok) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        made
    }

    async fn plan_now(&self, pruning: &Pruning, scheduled: bool) -> Result<(), Failure> {
        let now = clock::unix_ms();
        let held = match self.records.held() {
            Some(held) => Some(held),
            None => self.found_again(pruning).await?,
        };
        if let Some(held) = &held {
            let waits = held.plan.state == PruneState::Proposed
                && held.approvals() > 0
                && now.saturating_sub(held.plan.made_unix_ms) < WAIT_FOR_SECOND_MS;
            let approved = held.plan.state == PruneState::Approved && held.plan.problem.is_none();
            if scheduled && (waits || approved) {
                return Ok(());
            }
            if held.plan.state == PruneState::Announced {
                let message = format!(
                    "plan {} is announced: it has to be carried out first; `backupd prune show` says what it waits for",
                    held.plan.id
                );
                return Err(failure::new(FailureKind::Busy, message));
            }
        }
        if let Some(mut held) = held.clone().filter(|held| held.unrecorded.is_some() || held.refusal.is_some()) {
            self.tell_log(pruning, &mut held).await;
            self.keep(&held)?;
            if !held.plan.recorded {
                let message =
                    "the log of reports has not taken yet what became of the last plan: start `backupd verifier`";
                return Err(failure::new(FailureKind::Retry, message));
            }
        }
        self.require_heads()?;
        let history = self.history(pruning).await?;
        let zone = zone_of(self.settings.zone);
        let request = request(pruning, &history, &zone, self.given_up());
        let keys = pruning.keys()?;
        let proposed = backup_engine::prune::propose(&self.env, &keys.open, &self.plain_stores(), &request).await;
        drop(keys);
        let proposal = proposed.map_err(|error| {
            let lost = matches!(error.kind(), ErrorKind::Damaged | ErrorKind::NotFound);
            let mut failed = failure::from_engine(&error);
            if lost {
                failed.message += ". What no store has whole any more, `backupd looked-into` with the name of a store gives \
                                   up: the next plan then says so, and two persons approve it";
            }
            failed
        })?;
        if proposal.announced.is_some() {
            if held.as_ref().is_some_and(|held| held.plan.state == PruneState::Approved) {
                let message =
                    "a plan is announced in the stores: it has to be carried out first, with `backupd prune execute`";
                return Err(failure::new(FailureKind::Busy, message));
            }
            if let Some(found) = self.end_announced(pruning, None).await? {
                self.keep(&found)?;
                return Err(failure::new(
                    FailureKind::Busy,
                    "the log knows a plan that two persons approved: it goes on",
                ));
            }
        }
        let document = document(pruning, &proposal, now)?;
        let same = |held: &Held| {
            matches!(held.plan.state, PruneState::Proposed | PruneState::Refused)
                && held.document().is_ok_and(|old| {
                    held::going(&old) == held::going(&document)
                        && old.rules == document.rules
                        && old.trips == document.trips
                })
        };
        if scheduled && held.as_ref().is_some_and(same) {
            return Ok(());
        }
        let _deciding = self.deciding.lock().await;
        let decided = |held: &Held| held.plan.decisions.len();
        let before = held.as_ref().map_or(0, decided);
        if self.records.held().as_ref().map_or(0, decided) > before {
            let message = "somebody has decided about the plan meanwhile: look at it before you make another";
            return Err(failure::new(FailureKind::Busy, message));
        }
        self.keep(&Held {
            plan: shown(&document, &proposal, &request.policy),
            next_unix_ms: Some(now),
            unrecorded: None,
            refusal: None,
            announced: None,
            attacked: false,
        })?;
        log::info!(
            plan = document.plan_id.as_str(), going = document.going.len(), snapshots = document.snapshots,
            packs = document.figures.packs, trips = document.trips.len(); "prune.planned"
        );
        Ok(())
    }

    /// Gives up what no plan can be made without, where none could be made. A person has looked into it; two approve the plan.
    pub(in crate::maintain) async fn give_up_lost(&self) -> Result<bool, Failure> {
        let unmade = self.jobs().last(PLAN_JOB).ok().flatten().is_some_and(|last| !last.ok);
        let stuck = self.records.held().is_some_and(|held| held.plan.problem.is_some());
        let Some(pruning) = self.pruning.as_ref().filter(|_| unmade || stuck) else { return Ok(false) };
        let Ok(_work) = self.work.try_lock() else { return Err(busy()) };
        let keys = pruning.keys()?;
        let names = backup_engine::prune::lost(&self.env, &keys.open, &self.plain_stores()).await;
        let names = names.map_err(|error| failure::from_engine(&error))?;
        for name in &names {
            log::warn!(object = name.as_str(); "prune.given-up");
        }
        self.records.let_off(&names).map_err(|error| not_noted(&error))?;
        Ok(!names.is_empty())
    }

    pub(super) fn keep(&self, held: &Held) -> Result<(), Failure> {
        self.records.hold(held).map_err(|error| {
            failure::new(FailureKind::NoSpace, format!("the plan cannot be kept in the state folder: {error}"))
        })
    }
}

pub fn busy() -> Failure {
    let message = "maintenance is running: ask again when `backupd status` shows that it has ended";
    failure::new(FailureKind::Busy, message)
}

/// Seconds east of Greenwich at a time, in the practice's zone.
pub fn zone_of(zone: chrono_tz::Tz) -> impl Fn(i64) -> i32 + Sync {
    move |unix_ms| {
        let time = chrono::DateTime::from_timestamp_millis(unix_ms).unwrap_or_default().naive_utc();
        zone.offset_from_utc_datetime(&time).fix().local_minus_utc()
    }
}

pub fn request<'z>(pruning: &Pruning, history: &History, zone: Zone<'z>, given_up: GivenUp) -> PruneRequest<'z> {
    let settings = &pruning.settings;
    PruneRequest {
        policy: settings.policy.clone(),
        zone,
        proved: history.proved.clone(),
        first_seen: history.first_seen.clone(),
        looked_at: history.looked_at(),
        store_dates: true,
        grace: settings.grace,
        retire: Retire::Silent(settings.retire_silent),
        rewrite_bytes_max: settings.rewrite_bytes_max,
        given_up,
        ..PruneRequest::default()
    }
}

fn document(pruning: &Pruning, proposal: &Proposal, now: i64) -> Result<DeletionPlan, Failure> {
    let unnamed = |error: IdError| failure::new(FailureKind::Misconfigured, format!("a source's name: {error}"));
    let going = |info: &SnapshotInfo| {
        let received = proposal.received.get(&info.id).map_or(info.taken_unix_ms, |received| received.unix_ms);
        Ok(GoingSnapshot {
            id: OpaqueId::parse(&info.id.to_string())?,
            source: Label::parse(&info.source)?,
            taken_unix_ms: info.taken_unix_ms,
            received_unix_ms: received,
        })
    };
    let trip = |trip: &backup_engine::prune::Trip| {
        Ok(PlanTrip {
            kind: held::word(trip.kind),
            source: Label::parse(&trip.source)?,
            snapshot: OpaqueId::parse(&trip.snapshot.to_string())?,
            before: trip.before,
            after: trip.after,
        })
    };
    let policy = &pruning.settings.policy;
    let mut holds: Vec<Label> = policy.holds.iter().filter_map(|hold| Label::parse(&hold.reason).ok()).collect();
    holds.sort();
    holds.dedup();
    let cost = &proposal.cost;
    Ok(DeletionPlan {
        schema: PlanSchema::V1,
        plan_id: plan_id(now)?,
        repository: pruning.repository.clone(),
        made_unix_ms: now,
        rules: policy.rules.iter().map(rule).collect(),
        holds,
        snapshots: proposal.snapshots.len() as u64,
        going: proposal.going().map(going).collect::<Result<_, _>>().map_err(unnamed)?,
        trips: proposal.trips.iter().map(trip).collect::<Result<_, _>>().map_err(unnamed)?,
        grace_ms: u64::try_from(pruning.settings.grace.as_millis()).unwrap_or(u64::MAX),
        figures: PlanFigures {
            packs: proposal.packs,
            pack_bytes: proposal.pack_bytes,
            packs_rewritten: proposal.packs_rewritten,
            rewritten_bytes: proposal.rewritten_bytes,
            indexes_merged: proposal.indexes_merged,
            bytes_freed: cost.bytes_freed,
            puts: cost.puts,
            gets: cost.gets,
            lists: cost.lists,
            deletes: cost.deletes,
            cost_millionths: millionths(cost.dollars),
            saved_millionths_per_month: millionths(cost.dollars_saved_per_month),
        },
    })
}

/// Rounded; what is no amount is 0.
fn millionths(amount: f64) -> u64 {
    (amount * 1e6).round().max(0.0) as u64
}

fn plan_id(now: i64) -> Result<ReportId, Failure> {
    let failed = |error: &dyn std::fmt::Display| failure::new(FailureKind::Retry, format!("the plan's id: {error}"));
    let random = clock::random::<10>().map_err(|e| failed(&e))?;
    let uuid = uuid::Builder::from_unix_timestamp_millis(now.unsigned_abs(), &random).into_uuid();
    ReportId::parse(&uuid.to_string()).map_err(|e| failed(&e))
}

fn rule(rule: &Rule) -> PlanRule {
    let (keep, count) = match &rule.keep {
        Keep::Last(n) => (KeepKind::Last, u64::from(*n)),
        Keep::Hourly(n) => (KeepKind::Hourly, u64::from(*n)),
        Keep::Daily(n) => (KeepKind::Daily, u64::from(*n)),
        Keep::Weekly(n) => (KeepKind::Weekly, u64::from(*n)),
        Keep::Monthly(n) => (KeepKind::Monthly, u64::from(*n)),
        Keep::Yearly(n) => (KeepKind::Yearly, u64::from(*n)),
        Keep::Within(ms) => (KeepKind::Within, *ms),
        Keep::Tagged(_) => (KeepKind::Tagged, 0),
    };
    let source = rule.source.as_deref().and_then(|source| Label::parse(source).ok());
    PlanRule { source, keep, count, record_class: record_class(rule) }
}

/// The plan as people see it. Without a snapshot that goes and without a finding nobody has to be asked.
fn shown(document: &DeletionPlan, proposal: &Proposal, policy: &Policy) -> PrunePlan {
    let row = |(info, verdict): &(SnapshotInfo, Verdict)| PruneRow {
        id: info.id.to_string(),
        source: info.source.clone(),
        taken_unix_ms: info.taken_unix_ms,
        received_unix_ms: proposal.received.get(&info.id).map_or(info.taken_unix_ms, |received| received.unix_ms),
        goes: !verdict.is_kept(),
        reasons: match proposal.lost.contains(&info.id) {
            true => vec!["no store has all of it any more".to_owned()],
            false => verdict.reasons.iter().map(|found| reason(found, policy)).collect(),
        },
    };
    let kept = proposal.snapshots.iter().filter(|(_, verdict)| verdict.is_kept()).count();
    let mut told = 0;
    let tell = |(_, verdict): &&(SnapshotInfo, Verdict)| {
        told += usize::from(verdict.is_kept());
        !verdict.is_kept() || told <= KEPT_TOLD
    };
    let bytes = document.to_bytes();
    let needed = document.approvals_needed();
    let state = match (needed, proposal.is_empty()) {
        (0, true) => PruneState::Empty,
        (0, false) => PruneState::Approved,
        _ => PruneState::Proposed,
    };
    PrunePlan {
        id: document.plan_id.as_str().to_owned(),
        state,
        made_unix_ms: document.made_unix_ms,
        sha256: Digest::sha256(&bytes).as_str().to_owned(),
        document: String::from_utf8(bytes).unwrap_or_default(),
        needed: needed as u32,
        decisions: Vec::new(),
        rows: proposal.snapshots.iter().filter(tell).map(row).collect(),
        kept: kept as u64,
        waiting: None,
        stores: Vec::new(),
        problem: None,
        recorded: false,
        notes: names_nothing(proposal, policy),
    }
}

/// Rules and holds that no snapshot fits: a source may be spelled wrong, and what should stay goes.
fn names_nothing(proposal: &Proposal, policy: &Policy) -> Vec<String> {
    let infos = || proposal.snapshots.iter().map(|(info, _)| info);
    let unknown = |source: &str| !infos().any(|info| info.source == source);
    let rules = policy.rules.iter().filter(|rule| rule.source.as_deref().is_some_and(unknown));
    let rules = rules.map(|rule| format!("the rule \"{}\" fits no snapshot", rule_text(rule)));
    let fits = |hold: &&Hold| match &hold.scope {
        HoldScope::Source(source) => !unknown(source),
        HoldScope::Tag(tag) => infos().any(|info| info.tag.as_ref() == Some(tag)),
        HoldScope::Snapshot(id) => infos().any(|info| info.id == *id),
    };
    let holds = policy.holds.iter().filter(|hold| !fits(hold));
    rules.chain(holds.map(|hold| format!("the hold {} fits no snapshot", hold.reason))).collect()
}

fn reason(reason: &Reason, policy: &Policy) -> String {
    let rule = |number: &usize| policy.rules.get(*number).map(rule_text).unwrap_or_default();
    match reason {
        Reason::Rule(number) => rule(number),
        Reason::PartialRule(number) => format!("{}, among incomplete ones", rule(number)),
        Reason::NoRule => "no rule speaks of its source".to_owned(),
        Reason::Newest => "newest".to_owned(),
        Reason::Proved(store) => format!("proved of {store}"),
        Reason::Hold(id) => format!("hold {id}"),
        Reason::Forked => "forked: look first".to_owned(),
        Reason::DoubtfulDate => "doubtful date: look first".to_owned(),
        Reason::NextPlan => "next plan".to_owned(),
        Reason::NotApproved => "not approved".to_owned(),
    }
}
