//! Which snapshots are kept, and why. Rules are data; nothing here reads a clock, a store or a key.
//!
//! Age is what somebody else than the writer saw: a writer that lies about its clock moves no other snapshot out. Rules
//! count among the snapshots of one source, and `within` counts from the newest of them, so that where no new snapshot
//! comes none goes.

mod dates;
mod statutes;
#[cfg(test)]
mod tests;

pub use dates::{Received, received};
pub use statutes::{STATUTES, Start, Statute};

use crate::heads::SnapshotInfo;
use backup_format::SnapshotId;
use dates::Period;
use std::collections::{BTreeMap, BTreeSet};

/// What a rule keeps of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The newest so many.
    Last(u32),
    /// The last snapshot of each of so many hours, days, weeks, months or years that have one.
    Hourly(u32),
    Daily(u32),
    Weekly(u32),
    Monthly(u32),
    Yearly(u32),
    /// All that came at most so many milliseconds before the newest.
    Within(u64),
    /// All that carry this tag.
    Tagged(String),
}

impl Keep {
    fn period(&self) -> Option<(Period, u32)> {
        match *self {
            Self::Hourly(count) => Some((Period::Hour, count)),
            Self::Daily(count) => Some((Period::Day, count)),
            Self::Weekly(count) => Some((Period::Week, count)),
            Self::Monthly(count) => Some((Period::Month, count)),
            Self::Yearly(count) => Some((Period::Year, count)),
            Self::Last(_) | Self::Within(_) | Self::Tagged(_) => None,
        }
    }
}

/// One rule. Rules add up: a snapshot goes only when none keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The source that it is about; `None`: each source.
    pub source: Option<String>,
    pub keep: Keep,
    /// Why the rule is there: record class and statute, for whoever reads the plan.
    pub basis: Option<Basis>,
}

impl Rule {
    /// A rule for every source.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        Self { source: None, keep, basis: None }
    }
}

/// What a rule rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Basis {
    pub record_class: String,
    pub statute: String,
}

/// What a hold is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldScope {
    Source(String),
    Tag(String),
    Snapshot(SnapshotId),
}

/// Somebody's order to delete nothing of something, until it is taken off the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub scope: HoldScope,
    /// The case or matter, as the practice numbers it.
    pub reason: String,
    pub placed_by: String,
    pub placed_unix_ms: i64,
}

/// What is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    pub rules: Vec<Rule>,
    pub holds: Vec<Hold>,
}

/// A snapshot as retention sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: SnapshotId,
    pub source: String,
    /// Known only to whoever holds the open key.
    pub tag: Option<String>,
    pub partial: bool,
    pub forked: bool,
    pub received: Received,
    /// Stores whose newest proved snapshot this is.
    pub proved_at: BTreeSet<String>,
}

impl Candidate {
    /// Without a proof, and with the writer's own date.
    #[must_use]
    pub fn of(snapshot: &SnapshotInfo) -> Self {
        Self {
            id: snapshot.id,
            source: snapshot.source.clone(),
            tag: snapshot.tag.clone(),
            partial: snapshot.partial,
            forked: snapshot.forked,
            received: received(snapshot.taken_unix_ms, None, &[]),
            proved_at: BTreeSet::new(),
        }
    }
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The rule of this number, from 0, counted it.
    Rule(usize),
    /// The rule counted it among the partial ones, which fill no place of a complete one.
    PartialRule(usize),
    /// No rule speaks of its source.
    NoRule,
    /// It is the newest complete one of its source, or newer than that.
    Newest,
    /// It is what was last proved of this store.
    Proved(String),
    /// A hold, by its reason.
    Hold(String),
    /// Two heads claim its place: a person has to look first.
    Forked,
    /// Nobody can say when it came: a person has to look first.
    DoubtfulDate,
    /// One plan has no room for more.
    NextPlan,
    /// Nobody has agreed that it goes.
    NotApproved,
}

/// A snapshot and why it is kept; without a reason it may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub id: SnapshotId,
    pub reasons: BTreeSet<Reason>,
}

impl Verdict {
    #[must_use]
    pub fn is_kept(&self) -> bool {
        !self.reasons.is_empty()
    }
}

/// Seconds east of Greenwich at a time: where a day begins.
pub type Zone<'a> = &'a (dyn Fn(i64) -> i32 + Sync);

/// Coordinated universal time.
#[must_use]
pub fn utc(_unix_ms: i64) -> i32 {
    0
}

/// Judges every snapshot. `candidates` are those of all sources, newest first; so are the verdicts.
#[must_use]
pub fn decide(candidates: &[Candidate], policy: &Policy, zone: Zone<'_>) -> Vec<Verdict> {
    let mut verdicts: Vec<Verdict> = candidates
        .iter()
        .map(|candidate| Verdict { id: candidate.id, reasons: own_reasons(candidate, policy) })
        .collect();
    let mut sources: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, candidate) in candidates.iter().enumerate() {
        sources.entry(&candidate.source).or_default().push(at);
    }
    for (source, all) in sources {
        let mut give = |at: usize, reason: Reason| {
            if let Some(verdict) = verdicts.get_mut(at) {
                verdict.reasons.insert(reason);
            }
        };
        let is = |at: usize, wish: fn(&Candidate) -> bool| candidates.get(at).is_some_and(wish);
        // Up to and with the newest complete one; where there is none, the newest alone.
        let complete = all.iter().position(|at| is(*at, |candidate| !candidate.partial));
        let newest = complete.map_or(1, |at| at + 1);
        all.iter().take(newest).for_each(|at| give(*at, Reason::Newest));
        let rules = || policy.rules.iter().enumerate().filter(|(_, rule)| applies(rule, source));
        if rules().next().is_none() {
            all.iter().for_each(|at| give(*at, Reason::NoRule));
        }
        // What has no date that can be believed takes no place from what has one.
        let dated = |at: &&usize| is(**at, |candidate| !candidate.received.doubtful);
        let (partial, whole): (Vec<usize>, Vec<usize>) =
            all.iter().filter(dated).copied().partition(|at| is(*at, |candidate| candidate.partial));
        for (number, rule) in rules() {
            chosen(candidates, &whole, &rule.keep, zone).into_iter().for_each(|at| give(at, Reason::Rule(number)));
            let among = chosen(candidates, &partial, &rule.keep, zone);
            among.into_iter().for_each(|at| give(at, Reason::PartialRule(number)));
        }
    }
    verdicts
}

fn applies(rule: &Rule, source: &str) -> bool {
    rule.source.as_ref().is_none_or(|wanted| wanted == source)
}

/// The reasons that rest on the snapshot alone.
fn own_reasons(candidate: &Candidate, policy: &Policy) -> BTreeSet<Reason> {
    let mut reasons: BTreeSet<Reason> = candidate.proved_at.iter().cloned().map(Reason::Proved).collect();
    let held = |hold: &&Hold| match &hold.scope {
        HoldScope::Source(source) => *source == candidate.source,
        HoldScope::Tag(tag) => candidate.tag.as_ref() == Some(tag),
        HoldScope::Snapshot(id) => *id == candidate.id,
    };
    reasons.extend(policy.holds.iter().filter(held).map(|hold| Reason::Hold(hold.reason.clone())));
    if candidate.forked {
        reasons.insert(Reason::Forked);
    }
    if candidate.received.doubtful {
        reasons.insert(Reason::DoubtfulDate);
    }
    reasons
}

/// Which of `among`, newest first, a rule keeps.
fn chosen(candidates: &[Candidate], among: &[usize], keep: &Keep, zone: Zone<'_>) -> Vec<usize> {
    let dated = || among.iter().filter_map(|at| Some((*at, candidates.get(*at)?)));
    if let Some((period, count)) = keep.period() {
        // Snapshots come in order of their links, which need not be that of their dates: periods are sorted.
        let mut last: BTreeMap<i64, usize> = BTreeMap::new();
        for (at, candidate) in dated() {
            last.entry(period.of(candidate.received.unix_ms, zone)).or_insert(at);
        }
        return last.into_values().rev().take(count as usize).collect();
    }
    match keep {
        Keep::Last(count) => among.iter().take(*count as usize).copied().collect(),
        Keep::Within(ms) => {
            let newest = dated().map(|(_, candidate)| candidate.received.unix_ms).max().unwrap_or(0);
            let since = newest.saturating_sub_unsigned(*ms);
            dated().filter(|(_, candidate)| candidate.received.unix_ms >= since).map(|(at, _)| at).collect()
        }
        Keep::Tagged(tag) => {
            dated().filter(|(_, candidate)| candidate.tag.as_ref() == Some(tag)).map(|(at, _)| at).collect()
        }
        _ => Vec::new(),
    }
}
