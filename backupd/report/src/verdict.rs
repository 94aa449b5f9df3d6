//! The rule that turns what was seen into a verdict, and the strict reading of a report's bytes.

use crate::report::*;
use std::fmt;

/// A report longer than this is refused unread, bytes.
const REPORT_BYTES_MAX: usize = 1 << 20;
/// More stores than this in one report are refused.
const STORES_MAX: usize = 64;
/// Last millisecond of the year 9999.
const UNIX_MS_MAX: i64 = 253_402_300_799_999;

/// Why bytes are not a report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Too long to be a report.
    #[error("longer than a report may be (1 MiB)")]
    TooLong,
    /// Not the closed JSON of a report: an unknown, missing or doubled field, a free text, a wrong type.
    #[error("not a restore-report/1 (line {line}, column {column}): a field is unknown, missing or of another form")]
    Malformed {
        /// Line in the file, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// The same report has another byte form.
    #[error("a report, but not in its one canonical byte form: it was rewritten after it was made")]
    NotCanonical,
    /// The report contradicts itself.
    #[error("the report contradicts itself: {0}")]
    Contradiction(&'static str),
    /// The stated verdict is not the one that the rule gives.
    #[error("the report states the verdict {stated}, the rule gives {recomputed}")]
    VerdictForged {
        /// What the file says.
        stated: Verdict,
        /// What follows from its fields.
        recomputed: Verdict,
    },
}

/// Something that keeps a report from `pass`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A check failed.
    CheckFailed(Check, Option<Reason>),
    /// A fact differs.
    FactDiffers(Fact),
    /// The number of resources of a type differs.
    ResourcesDiffer(crate::ResourceType),
    /// Golden questions of a kind were answered otherwise.
    GoldenDiffers(GoldenKind),
    /// Objects of the snapshot are missing in the store.
    ObjectsMissing(u64),
    /// Objects of the snapshot are corrupt in the store.
    ObjectsCorrupt(u64),
    /// The restored audit chain is broken.
    AuditChainBroken,
    /// Another store shows a forked history.
    HistoryForked(crate::Label),
    /// Recovery took longer than the target.
    RtoMissed,
    /// More was lost than the target allows.
    RpoMissed,
    /// A check was not run.
    CheckNotRun(Check, Option<Reason>),
    /// A fact was not compared.
    FactNotCompared(Fact),
    /// Sealed golden questions of a kind were not asked.
    GoldenNotAsked(GoldenKind),
    /// No golden question was asked at all.
    NoGoldenAsked,
    /// The store's objects were not re-hashed.
    IntegrityUnknown,
    /// The audit chain was not walked.
    AuditChainUnknown,
    /// Recovery time was not measured.
    RtoUnknown,
    /// The recovery point was not measured.
    RpoUnknown,
}

impl Finding {
    /// Whether this makes the verdict `fail`; the others make it `inconclusive`.
    pub fn fails(&self) -> bool {
        use Finding::*;
        !matches!(
            self,
            CheckNotRun(..)
                | FactNotCompared(_)
                | GoldenNotAsked(_)
                | NoGoldenAsked
                | IntegrityUnknown
                | AuditChainUnknown
                | RtoUnknown
                | RpoUnknown
        )
    }
}

/// The rule. `fail`: something that ran gave a wrong result (a failed check, an unequal fact, count or answer, a
/// missing or corrupt object, a broken audit chain, a forked history, a missed target). Else `inconclusive`: something
/// was not run, asked, compared or measured. Else `pass`.
pub fn verdict(report: &Report) -> Verdict {
    let findings = findings(report);
    match findings.iter().any(Finding::fails) {
        true => Verdict::Fail,
        false if findings.is_empty() => Verdict::Pass,
        false => Verdict::Inconclusive,
    }
}

/// Everything that keeps the report from `pass`, in the order of its fields.
pub fn findings(report: &Report) -> Vec<Finding> {
    let mut found = Vec::new();
    for check in Check::ALL {
        match report.checks.iter().find(|c| c.check == *check) {
            Some(CheckRun { result: CheckResult::Passed, .. }) => {}
            Some(CheckRun { result: CheckResult::Failed, reason, .. }) => {
                found.push(Finding::CheckFailed(*check, *reason));
            }
            Some(CheckRun { reason, .. }) => found.push(Finding::CheckNotRun(*check, *reason)),
            None => found.push(Finding::CheckNotRun(*check, None)),
        }
    }
    content_findings(report, &mut found);
    for other in report.other_heads.iter().filter(|o| o.seen == HeadsSeen::Forked) {
        found.push(Finding::HistoryForked(other.store.clone()));
    }
    match report.rto_measured() {
        None => found.push(Finding::RtoUnknown),
        Some(ms) if ms > report.rto.objective_ms => found.push(Finding::RtoMissed),
        Some(_) => {}
    }
    match report.rpo_measured() {
        None => found.push(Finding::RpoUnknown),
        Some(ms) if ms > report.rpo.objective_ms => found.push(Finding::RpoMissed),
        Some(_) => {}
    }
    found
}

fn content_findings(report: &Report, found: &mut Vec<Finding>) {
    for fact in Fact::ALL {
        match report.facts.iter().find(|f| f.fact == *fact) {
            Some(f) if f.equal => {}
            Some(_) => found.push(Finding::FactDiffers(*fact)),
            None => found.push(Finding::FactNotCompared(*fact)),
        }
    }
    for count in report.resources.iter().filter(|r| r.stated != r.restored) {
        found.push(Finding::ResourcesDiffer(count.resource.clone()));
    }
    for golden in &report.golden {
        if golden.equal < golden.asked {
            found.push(Finding::GoldenDiffers(golden.kind));
        }
        if golden.asked < golden.sealed {
            found.push(Finding::GoldenNotAsked(golden.kind));
        }
    }
    if report.golden.iter().all(|g| g.asked == 0) {
        found.push(Finding::NoGoldenAsked);
    }
    match &report.integrity {
        None => found.push(Finding::IntegrityUnknown),
        Some(i) => {
            if i.missing > 0 {
                found.push(Finding::ObjectsMissing(i.missing));
            }
            if i.corrupt > 0 {
                found.push(Finding::ObjectsCorrupt(i.corrupt));
            }
        }
    }
    match &report.audit_chain {
        None => found.push(Finding::AuditChainUnknown),
        Some(chain) if !chain.ok => found.push(Finding::AuditChainBroken),
        Some(_) => {}
    }
}

/// Reads a report strictly: closed fields, its one byte form, no contradiction, and the stated verdict is the rule's.
pub fn check(bytes: &[u8]) -> Result<Report, ReportError> {
    let report: Report = read_canonical(bytes)?;
    well_formed(&report)?;
    let recomputed = verdict(&report);
    if report.verdict != recomputed {
        return Err(ReportError::VerdictForged { stated: report.verdict, recomputed });
    }
    Ok(report)
}

/// Reads a value and insists that these are the bytes which writing it gives.
pub(crate) fn read_canonical<T>(bytes: &[u8]) -> Result<T, ReportError>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    read_canonical_upto(bytes, REPORT_BYTES_MAX)
}

/// As [`read_canonical`], of at most so many bytes.
pub(crate) fn read_canonical_upto<T>(bytes: &[u8], bytes_max: usize) -> Result<T, ReportError>
where
    T: serde::Serialize + serde::de::DeserializeOwned,
{
    if bytes.len() > bytes_max {
        return Err(ReportError::TooLong);
    }
    let value: T =
        serde_json::from_slice(bytes).map_err(|e| ReportError::Malformed { line: e.line(), column: e.column() })?;
    match to_canonical(&value) == bytes {
        true => Ok(value),
        false => Err(ReportError::NotCanonical),
    }
}

/// What must hold of every report whatever its verdict: order, bounds, and measured values that follow from the times.
pub(crate) fn well_formed(report: &Report) -> Result<(), ReportError> {
    let held = |ok: bool, what: &'static str| if ok { Ok(()) } else { Err(ReportError::Contradiction(what)) };
    held(report.other_heads.len() <= STORES_MAX, "more than 64 other stores")?;
    held(ascending(&report.other_heads, |o| &o.store), "other stores are doubled or out of order")?;
    held(report.other_heads.iter().all(|o| o.store != report.store.name), "the store is listed among the others")?;
    held(ascending(&report.checks, |c| &c.check), "checks are doubled or out of order")?;
    held(ascending(&report.facts, |f| &f.fact), "facts are doubled or out of order")?;
    held(ascending(&report.resources, |r| &r.resource), "resource types are doubled or out of order")?;
    held(ascending(&report.golden, |g| &g.kind), "golden kinds are doubled or out of order")?;
    held(
        report.checks.iter().all(|c| (c.result == CheckResult::Passed) == c.reason.is_none()),
        "a check has a reason exactly when it did not pass",
    )?;
    held(
        report.golden.iter().all(|g| g.equal <= g.asked && g.asked <= g.sealed),
        "more golden answers are equal than asked, or asked than sealed",
    )?;
    held(
        report.integrity.as_ref().is_none_or(|i| i.missing.checked_add(i.corrupt).is_some_and(|n| n <= i.objects)),
        "more objects are missing or corrupt than were looked at",
    )?;
    held(timing_in_order(&report.timing), "the phases are not in order")?;
    held(in_time(report.snapshot.taken_unix_ms), "the snapshot's time is out of range")?;
    held(report.rpo.canary.as_ref().is_none_or(|c| in_time(c.written_unix_ms)), "the canary's time is out of range")?;
    held(report.rto.measured_ms == report.rto_measured(), "the measured RTO does not follow from the phases")?;
    held(report.rpo.measured_ms == report.rpo_measured(), "the measured RPO does not follow from the canary")
}

fn ascending<T, K: Ord>(list: &[T], key: impl Fn(&T) -> &K) -> bool {
    list.windows(2).all(|w| match w {
        [a, b] => key(a) < key(b),
        _ => true,
    })
}

fn in_time(unix_ms: i64) -> bool {
    (0..=UNIX_MS_MAX).contains(&unix_ms)
}

fn timing_in_order(t: &Timing) -> bool {
    let phases = [t.restore_started_unix_ms, t.data_done_unix_ms, t.service_started_unix_ms, t.first_golden_unix_ms];
    let mut last = t.declared_unix_ms;
    let mut reached = true;
    for phase in phases {
        match phase {
            Some(at) if reached && at >= last => last = at,
            Some(_) => return false,
            None => reached = false,
        }
    }
    in_time(t.declared_unix_ms) && in_time(t.ended_unix_ms) && t.ended_unix_ms >= last
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        })
    }
}
