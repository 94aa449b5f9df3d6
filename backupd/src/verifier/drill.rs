//! The drill: restore from one store alone, start the real EMR on it, compare, sign.
//!
//! Whatever was not run leaves the verdict `inconclusive`; a store that is damaged makes it `fail`. In both cases there
//! is a report. Only when no store knows of any snapshot is there nothing to report on.

use super::{DRILL_JOB, Verifier, compare, heads, probe, sandbox::Sandbox};
use crate::clock;
use crate::course::{Course, canary};
use crate::failure;
use crate::serve::drill_verdict;
use crate::sources::SealedFacts;
use appliance_api::{ClientError, Facts, Refusal, Request, Response};
use backup_engine::{ErrorKind, NamedStore, Rejected, RestoreRequest, SnapshotInfo, VerifyRequest};
use backup_report::{
    AuditChain, Check, CheckResult, CheckRun, Digest, Environment, Integrity, Label, OpaqueId, Program, Reason, Report,
    ReportId, Restored, Rpo, Rto, Schema, Snapshot, SourceStore, StoreKind, Timing, Verdict, Version,
};
use backupd_api::{DrillDone, Failure, FailureKind, Phase};
use zeroize::Zeroizing;

/// A drill under way: the report, filled as things are seen. Every check begins as not run.
struct Drill<'a> {
    verifier: &'a Verifier,
    store: &'a NamedStore,
    info: SnapshotInfo,
    /// Snapshots that may be newer and cannot be read in this store.
    unread: Vec<Rejected>,
    course: Course,
    report: Report,
}

/// The snapshot to prove, and what the store shows beside it.
struct Newest {
    info: SnapshotInfo,
    unread: Vec<Rejected>,
    /// Why the store shows none.
    answered: Result<(), Reason>,
}

impl Verifier {
    /// Drills one store; `None`: the one whose turn it is.
    pub async fn drill(&self, store: Option<&str>) -> Result<DrillDone, Failure> {
        let _sandbox = self.sandbox.lock().await;
        let _busy = self.activity.begin("drill");
        let started = clock::unix_ms();
        let result = self.drill_now(store).await;
        let ok = result.as_ref().is_ok_and(|done| done.verdict == backupd_api::DrillVerdict::Pass);
        if let Err(error) = self.jobs().finished(DRILL_JOB, started, ok) {
            log::error!(reason:% = error; "jobs.not-recorded");
        }
        result
    }

    async fn drill_now(&self, store: Option<&str>) -> Result<DrillDone, Failure> {
        // A drill whose result could not be written down is not worth its work.
        drop(self.reports.open().await?);
        let name = match store {
            Some(name) => name.to_owned(),
            None => self.whose_turn().await?,
        };
        let store = self.store(&name).ok_or_else(|| {
            failure::new(FailureKind::NotFound, format!("no store is named `{name}`: `backupd stores` lists them"))
        })?;
        let course = Course::declare(&self.env);
        self.activity.phase(Phase::Fetch, Some(&name));
        let Newest { info, unread, answered } = self.newest_in(store).await?;
        let mut drill =
            Drill { verifier: self, store, info, unread, report: self.blank(&name, course.timing()).await?, course };
        drill.identify().await?;
        match answered {
            Ok(()) => drill.run().await,
            Err(reason) => drill.not_run_because(reason),
        }
        let report = drill.finish().await?;
        self.publish(report).await
    }

    /// The newest whole snapshot in this store. When the store shows none, the newest that another store shows: that one
    /// should have been there.
    async fn newest_in(&self, store: &NamedStore) -> Result<Newest, Failure> {
        let newest = |heads: backup_engine::Heads| newest_by_source(&heads).into_iter().next();
        let own = backup_engine::heads(&self.env, self.open_key().catalog(), std::slice::from_ref(store)).await;
        let reason = match own {
            Ok(heads) => {
                let answered = heads.unreachable.is_empty();
                let rejected = heads.rejected.iter().any(|rejected| !rejected.missing);
                match self.with_facts(store, newest_by_source(&heads)).await {
                    Some(info) => {
                        let unread = heads.unread(info.head.source).cloned().collect();
                        return Ok(Newest { info, unread, answered: Ok(()) });
                    }
                    None if !answered => Reason::StoreUnreachable,
                    None if rejected => Reason::ObjectCorrupt,
                    None => Reason::ObjectMissing,
                }
            }
            // No listing at all: the place is not there, or does not answer, or refuses.
            Err(error) if error.kind() == ErrorKind::NotFound => Reason::StoreUnreachable,
            Err(error) => reason(error.kind()).1,
        };
        let all = backup_engine::heads(&self.env, self.open_key().catalog(), &self.stores).await;
        let known = all.ok().and_then(newest);
        let nothing = |info| Newest { info, unread: Vec::new(), answered: Err(reason) };
        known.map(nothing).ok_or_else(|| {
            failure::new(FailureKind::NotFound, "no store holds a whole snapshot yet: take one with `backupd snapshot`")
        })
    }

    /// Of the sources' newest snapshots the newest that has facts to compare: a plain folder proves less than the EMR.
    async fn with_facts(&self, store: &NamedStore, newest: Vec<SnapshotInfo>) -> Option<SnapshotInfo> {
        for info in newest.iter().filter(|_| newest.len() > 1) {
            let facts = backup_engine::facts(&self.env, &self.open_key(), store, info.id).await;
            if facts.is_ok_and(|f| f.is_some_and(|bytes| !Zeroizing::new(bytes).is_empty())) {
                return Some(info.clone());
            }
        }
        newest.into_iter().next()
    }

    /// A report in which nothing was run.
    async fn blank(&self, store: &str, timing: Timing) -> Result<Report, Failure> {
        let setting = self.settings.stores.iter().find(|s| s.name == store);
        let setting = setting.ok_or_else(|| failure::new(FailureKind::NotFound, "no such store"))?;
        let practice = Digest::sha256(format!("{}\n{}", self.repository, self.settings.practice).as_bytes());
        let none = OpaqueId::parse(&"0".repeat(32)).map_err(internal)?;
        let checks = Check::ALL.iter().map(|check| CheckRun {
            check: *check,
            result: CheckResult::NotRun,
            reason: Some(Reason::EarlierCheckFailed),
        });
        Ok(Report {
            schema: Schema::V1,
            report_id: report_id(timing.declared_unix_ms)?,
            verdict: Verdict::Inconclusive,
            practice: OpaqueId::parse(practice.as_str().get(..32).unwrap_or_default()).map_err(internal)?,
            repository: self.repository.clone(),
            snapshot: Snapshot {
                id: none.clone(),
                source: Label::slug("-"),
                incarnation: none,
                counter: 0,
                taken_unix_ms: 0,
                head_hash: Digest::of(&[0; 32]),
            },
            store: SourceStore {
                name: Label::slug(store),
                kind: match setting.kind {
                    crate::settings::StoreKind::Folder { .. } => StoreKind::Folder,
                    crate::settings::StoreKind::S3 { .. } => StoreKind::S3,
                    crate::settings::StoreKind::Azure { .. } => StoreKind::AzureBlob,
                    crate::settings::StoreKind::Gcs { .. } => StoreKind::Gcs,
                },
                site: Label::slug(&setting.site),
                provider: Label::slug(&setting.provider),
                apart: setting.site != self.settings.site,
            },
            other_heads: Vec::new(),
            timing,
            rto: Rto { objective_ms: self.settings.targets.rto_ms, measured_ms: None },
            rpo: Rpo { objective_ms: self.settings.targets.rpo_ms, measured_ms: None, canary: None },
            checks: checks.collect(),
            facts: Vec::new(),
            resources: Vec::new(),
            golden: Vec::new(),
            integrity: None,
            audit_chain: None,
            restored: Restored { files: 0, bytes: 0, bytes_fetched: 0 },
            environment: self.environment().await?,
            duties_sha256: None,
        })
    }

    async fn environment(&self) -> Result<Environment, Failure> {
        let own = Version::parse(env!("CARGO_PKG_VERSION")).map_err(internal)?;
        let stated = probe::version(&self.settings.probe).await.and_then(|v| Version::parse(&v).ok());
        let (program, network_isolated) = match &self.settings.probe {
            // The program is told to give up its network, and refuses to start when it cannot.
            crate::settings::Probe::Spawn { program } => (sha256_of(program), true),
            crate::settings::Probe::Socket { isolated, .. } => (None, *isolated),
        };
        Ok(Environment {
            same_host_as_writer: self.settings.same_host_as_writer,
            network_isolated,
            backupd: Program { version: own.clone(), sha256: sha256_of(std::path::Path::new("/proc/self/exe")) },
            appliance: Program { version: stated.unwrap_or(own), sha256: program },
        })
    }
}

impl Drill<'_> {
    /// Fills in which snapshot is meant.
    async fn identify(&mut self) -> Result<(), Failure> {
        let incarnation = self.info.incarnation.to_string();
        let source_id = self.verifier.open_key().catalog().source_id(&self.info.source).to_string();
        let mut hash = None;
        // The drilled store first; when it does not answer, another one's head of the same number.
        for store in std::iter::once(self.store).chain(&self.verifier.stores) {
            let found = heads::of_source(store, &source_id).await.unwrap_or_default();
            hash = found.into_iter().find(|h| h.incarnation == incarnation && h.counter == self.info.counter);
            if hash.is_some() {
                break;
            }
        }
        let head_hash = hash.and_then(|h| Digest::parse(&h.hash).ok()).unwrap_or(Digest::of(&[0; 32]));
        self.report.snapshot = Snapshot {
            id: OpaqueId::parse(&self.info.id.to_string()).map_err(internal)?,
            source: Label::slug(&self.info.source),
            incarnation: OpaqueId::parse(&incarnation).map_err(internal)?,
            counter: self.info.counter,
            taken_unix_ms: self.info.taken_unix_ms,
            head_hash,
        };
        Ok(())
    }

    fn set(&mut self, check: Check, result: CheckResult, reason: Option<Reason>) {
        if let Some(run) = self.report.checks.iter_mut().find(|run| run.check == check) {
            (run.result, run.reason) = (result, reason);
        }
        if let Some(reason) = reason {
            log::warn!(check:? = check, result:? = result, reason:? = reason; "drill.check");
        }
    }

    fn pass(&mut self, check: Check) {
        self.set(check, CheckResult::Passed, None);
    }

    /// The store showed no snapshot: the restore failed when the store answered, else it was not run.
    fn not_run_because(&mut self, reason: Reason) {
        let result = match reason {
            Reason::ObjectMissing | Reason::ObjectCorrupt => CheckResult::Failed,
            _ => CheckResult::NotRun,
        };
        self.set(Check::Restore, result, Some(reason));
    }

    async fn run(&mut self) {
        let sandbox = match Sandbox::make(&self.verifier.settings.sandbox_dir) {
            Ok(sandbox) => sandbox,
            Err(error) => return self.set(Check::Restore, CheckResult::NotRun, Some(no_sandbox(&error))),
        };
        let sealed = self.restore(&sandbox).await;
        if let Some(sealed) = sealed {
            self.question(&sandbox, &sealed).await;
        }
        self.integrity().await;
    }

    /// Restores everything; gives the sealed facts when that worked and there are any.
    async fn restore(&mut self, sandbox: &Sandbox) -> Option<SealedFacts> {
        let v = self.verifier;
        self.report.timing.restore_started_unix_ms = Some(self.course.now());
        let request = RestoreRequest { into: sandbox.path().to_owned(), overwrite: true, ..RestoreRequest::default() };
        let restored =
            backup_engine::restore(&v.env, &v.open_key(), self.store, self.info.id, request, &v.activity).await;
        let outcome = match restored {
            Ok(outcome) => outcome,
            Err(error) => {
                log::warn!(store = self.store.name.as_str(), reason:% = error; "drill.restore-failed");
                let (result, reason) = reason(error.kind());
                self.set(Check::Restore, result, Some(reason));
                return None;
            }
        };
        self.report.timing.data_done_unix_ms = Some(self.course.now());
        self.report.restored =
            Restored { files: outcome.files, bytes: outcome.bytes, bytes_fetched: outcome.bytes_fetched };
        self.pass(Check::Restore);
        let sealed = match backup_engine::facts(&v.env, &v.open_key(), self.store, self.info.id).await {
            Ok(Some(bytes)) => {
                let bytes = Zeroizing::new(bytes);
                serde_json::from_slice::<SealedFacts>(&bytes).map_err(|_| Reason::NothingSealed)
            }
            Ok(None) => Err(Reason::NothingSealed),
            Err(error) => Err(reason(error.kind()).1),
        };
        match sealed {
            Ok(sealed) => Some(sealed),
            Err(reason) => {
                for check in [Check::Facts, Check::Golden, Check::AuditChain] {
                    self.set(check, CheckResult::NotRun, Some(reason));
                }
                None
            }
        }
    }

    /// Starts the EMR and asks it. The first golden answer ends the recovery time; facts come after.
    async fn question(&mut self, sandbox: &Sandbox, sealed: &SealedFacts) {
        let v = self.verifier;
        v.activity.phase(Phase::Start, Some(&self.store.name));
        let run_dir = v.settings.socket.parent().unwrap_or(std::path::Path::new("/"));
        let mut emr = match probe::start(&v.settings.probe, sandbox.path(), run_dir).await {
            Ok(emr) => emr,
            Err(error) => {
                log::warn!(reason:% = error; "drill.emr-not-started");
                // Damaged data is opened too and refused when it is asked: a program that did not come up says nothing
                // about the data.
                let reason = match error {
                    probe::ProbeError::Spawn(_) | probe::ProbeError::Ended => Reason::ServiceDidNotStart,
                    probe::ProbeError::Timeout => Reason::TimeLimit,
                };
                return self.set(Check::ServiceStart, CheckResult::NotRun, Some(reason));
            }
        };
        self.report.timing.service_started_unix_ms = Some(self.course.now());
        self.pass(Check::ServiceStart);
        v.activity.phase(Phase::Compare, Some(&self.store.name));
        self.golden(&mut emr.client, sealed).await;
        self.facts(&mut emr.client, sealed).await;
    }

    async fn golden(&mut self, emr: &mut appliance_api::Client, sealed: &SealedFacts) {
        let mut answers = Vec::new();
        let mut stopped = None;
        // The first alone: a clinician waits for one answer, not for all.
        let (first, rest) = sealed.golden.split_at(sealed.golden.len().min(1));
        for group in [first, rest] {
            if group.is_empty() || stopped.is_some() {
                continue;
            }
            let questions = group.iter().map(|q| q.question.clone()).collect();
            match emr.ask(&Request::Golden { key: sealed.golden_key.clone(), questions }).await {
                Ok(Response::Golden { answers: got }) if got.len() == group.len() => {
                    let right = group.iter().zip(&got).any(|(q, a)| compare::is_right(q, a.as_ref()));
                    if right && self.report.timing.first_golden_unix_ms.is_none() {
                        self.report.timing.first_golden_unix_ms = Some(self.course.now());
                    }
                    answers.extend(got);
                }
                Ok(_) => stopped = Some((CheckResult::NotRun, Reason::InternalError)),
                Err(error) => stopped = Some(silence(&error)),
            }
        }
        self.report.golden = compare::golden(&sealed.golden, &answers);
        let right = sealed.golden.iter().zip(&answers).all(|(q, a)| compare::is_right(q, a.as_ref()));
        match stopped {
            Some((result, reason)) => self.set(Check::Golden, result, Some(reason)),
            // Of a database that could not be read as a whole nothing was asked.
            None if sealed.golden.is_empty() => {
                let reason = if sealed.damaged.is_empty() { Reason::NothingSealed } else { Reason::SourceDamaged };
                self.set(Check::Golden, CheckResult::NotRun, Some(reason))
            }
            None if right => self.pass(Check::Golden),
            None => self.set(Check::Golden, CheckResult::Failed, Some(Reason::ValueDiffers)),
        }
    }

    async fn facts(&mut self, emr: &mut appliance_api::Client, sealed: &SealedFacts) {
        let restored: Facts = match emr.ask(&Request::Facts).await {
            Ok(Response::Facts(facts)) => *facts,
            Ok(_) => return self.set(Check::Facts, CheckResult::NotRun, Some(Reason::InternalError)),
            // What was broken when the snapshot was taken came back as it was: nothing was proved, and the store did not do it.
            Err(ClientError::Refused(Refusal::Data)) if !sealed.damaged.is_empty() => return self.source_damaged(),
            Err(error) => {
                let (result, reason) = silence(&error);
                self.set(Check::AuditChain, CheckResult::NotRun, Some(Reason::EarlierCheckFailed));
                return self.set(Check::Facts, result, Some(reason));
            }
        };
        if !sealed.damaged.is_empty() {
            return self.source_damaged();
        }
        let sealed = &sealed.facts;
        self.report.facts = compare::facts(sealed, &restored);
        self.report.resources = compare::resources(sealed, &restored);
        self.report.rpo.canary = canary(restored.canary_sequence, restored.canary_unix_ms);
        match self.report.facts.iter().all(|f| f.equal) {
            true => self.pass(Check::Facts),
            false => self.set(Check::Facts, CheckResult::Failed, Some(Reason::ValueDiffers)),
        }
        // The EMR walks its chain to compute the facts: an answer means that every entry is linked.
        let ok = restored.audit_head == sealed.audit_head && restored.audit_entries == sealed.audit_entries;
        self.report.audit_chain = Some(AuditChain { entries: restored.audit_entries, ok });
        match ok {
            true => self.pass(Check::AuditChain),
            false => self.set(Check::AuditChain, CheckResult::Failed, Some(Reason::ChainBroken)),
        }
    }

    /// The source's own damage stands in the way of a comparison.
    fn source_damaged(&mut self) {
        for check in [Check::Facts, Check::AuditChain] {
            self.set(check, CheckResult::NotRun, Some(Reason::SourceDamaged));
        }
    }

    /// Re-hashes everything that the snapshot reaches in this store.
    async fn integrity(&mut self) {
        let v = self.verifier;
        let request = VerifyRequest { read_data: true, snapshot: Some(self.info.id) };
        match backup_engine::verify(&v.env, &v.open_key(), self.store, request, &v.activity).await {
            Ok(mut outcome) => {
                // The store answers for its newest snapshot, not for the newest that is left in it.
                for unread in &self.unread {
                    let found = if unread.missing { &mut outcome.missing } else { &mut outcome.corrupt };
                    found.push(unread.object.clone());
                }
                let (missing, corrupt) = (outcome.missing.len() as u64, outcome.corrupt.len() as u64);
                super::verify::log_found(&self.store.name, &outcome);
                let objects = outcome.objects.max(missing + corrupt);
                self.report.integrity = Some(Integrity { objects, missing, corrupt });
                // One snapshot without damage does not clear what a look at all of them found.
                if missing + corrupt > 0 {
                    v.remember_verify(&self.store.name, outcome.missing.first(), outcome.corrupt.first());
                }
                // Also what an earlier look found and nobody has put right since: it is looked at again.
                if v.is_damaged(&self.store.name) {
                    v.damaged().insert(self.store.name.clone());
                }
                if corrupt > 0 {
                    self.set(Check::Integrity, CheckResult::Failed, Some(Reason::ObjectCorrupt));
                } else if missing > 0 {
                    self.set(Check::Integrity, CheckResult::Failed, Some(Reason::ObjectMissing));
                } else {
                    self.pass(Check::Integrity);
                }
            }
            Err(error) => {
                let (result, reason) = reason(error.kind());
                self.set(Check::Integrity, result, Some(reason));
            }
        }
    }

    /// Looks at the other stores, asks for the duties, and states the verdict.
    async fn finish(mut self) -> Result<Report, Failure> {
        let v = self.verifier;
        v.activity.phase(Phase::Sign, Some(&self.store.name));
        let source_id = v.open_key().catalog().source_id(&self.info.source).to_string();
        let incarnation = self.info.incarnation.to_string();
        for store in v.stores.iter().filter(|s| s.name != self.store.name) {
            let heads = heads::of_source(store, &source_id).await;
            self.report.other_heads.extend(heads::seen(&store.name, &incarnation, &heads));
        }
        self.report.duties_sha256 = v.duties_sha256().await;
        self.report.timing.ended_unix_ms = self.course.now();
        self.report.settle().map_err(internal)?;
        Ok(self.report)
    }
}

/// The newest whole snapshot of each source, newest first.
fn newest_by_source(heads: &backup_engine::Heads) -> Vec<SnapshotInfo> {
    let mut newest: Vec<SnapshotInfo> = Vec::new();
    for info in heads.snapshots.iter().filter(|s| !s.partial) {
        if !newest.iter().any(|n| n.source == info.source) {
            newest.push(info.clone());
        }
    }
    newest
}

/// Why there is no place for the restored records: a full disk is told from everything else.
fn no_sandbox(error: &anyhow::Error) -> Reason {
    let full = |kind| matches!(kind, std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded);
    let found = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).any(|e| full(e.kind()));
    if found { Reason::NoSpace } else { Reason::InternalError }
}

/// How a check ended on an error of the engine: wrong bytes fail it, everything else leaves it not run.
fn reason(kind: ErrorKind) -> (CheckResult, Reason) {
    match kind {
        ErrorKind::Damaged => (CheckResult::Failed, Reason::ObjectCorrupt),
        ErrorKind::NotFound => (CheckResult::Failed, Reason::ObjectMissing),
        ErrorKind::Unreachable | ErrorKind::Retry | ErrorKind::Busy => (CheckResult::NotRun, Reason::StoreUnreachable),
        ErrorKind::Denied => (CheckResult::NotRun, Reason::StoreDenied),
        ErrorKind::NoSpace => (CheckResult::NotRun, Reason::NoSpace),
        ErrorKind::Misconfigured => (CheckResult::NotRun, Reason::KeyMissing),
        ErrorKind::Fenced | ErrorKind::Stopped => (CheckResult::NotRun, Reason::Interrupted),
    }
}

/// How a check ended when the restored EMR gave no answer: data that it cannot read fail it.
fn silence(error: &ClientError) -> (CheckResult, Reason) {
    match error {
        ClientError::Refused(Refusal::Data) => (CheckResult::Failed, Reason::ValueDiffers),
        ClientError::Refused(_) | ClientError::Malformed => (CheckResult::NotRun, Reason::InternalError),
        ClientError::Timeout => (CheckResult::NotRun, Reason::TimeLimit),
        ClientError::Connect(_) | ClientError::Socket(_) | ClientError::Closed => {
            (CheckResult::NotRun, Reason::ServiceStopped)
        }
    }
}

fn internal(error: impl std::fmt::Display) -> Failure {
    failure::new(FailureKind::Retry, format!("the report could not be made: {error}"))
}

/// A UUID of version 7.
fn report_id(unix_ms: i64) -> Result<ReportId, Failure> {
    let random = clock::random::<10>().map_err(internal)?;
    let uuid = uuid::Builder::from_unix_timestamp_millis(unix_ms.unsigned_abs(), &random).into_uuid();
    ReportId::parse(&uuid.to_string()).map_err(internal)
}

/// Whether the drill proved nothing because of what was broken at the source, and found nothing else wrong.
pub fn is_source_damaged(report: &Report) -> bool {
    report.verdict == Verdict::Inconclusive && report.checks.iter().any(|run| run.reason == Some(Reason::SourceDamaged))
}

/// Whether everything came back and was found whole, of a source that seals nothing to compare: a folder is never proved, and
/// nothing is wrong with the store.
pub fn is_nothing_sealed(report: &Report) -> bool {
    let of = |check: Check| report.checks.iter().find(move |run| run.check == check);
    let passed = |check| of(check).is_some_and(|run| run.result == CheckResult::Passed);
    let nothing = of(Check::Facts).is_some_and(|run| run.reason == Some(Reason::NothingSealed));
    report.verdict == Verdict::Inconclusive && nothing && passed(Check::Restore) && passed(Check::Integrity)
}

/// SHA-256 of a program's file.
fn sha256_of(path: &std::path::Path) -> Option<Digest> {
    std::fs::read(path).ok().map(|bytes| Digest::sha256(&bytes))
}

/// The answer to a client, from a settled report.
pub fn done(report: &Report) -> DrillDone {
    let t = &report.timing;
    let restore_ms =
        t.restore_started_unix_ms.zip(t.data_done_unix_ms).map_or(0, |(from, to)| (to - from).unsigned_abs());
    let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let sum = |f: fn(&backup_report::GoldenCompared) -> u64| {
        u32::try_from(report.golden.iter().map(f).sum::<u64>()).unwrap_or(u32::MAX)
    };
    DrillDone {
        report_id: report.report_id.as_str().to_owned(),
        store: report.store.name.as_str().to_owned(),
        verdict: drill_verdict(report.verdict),
        snapshot: report.snapshot.id.as_str().to_owned(),
        bytes: report.restored.bytes,
        restore_ms,
        rto_ms: report.rto.measured_ms,
        rpo_ms: report.rpo.measured_ms,
        facts_compared: narrow(report.facts.len()),
        facts_equal: narrow(report.facts.iter().filter(|f| f.equal).count()),
        golden_compared: sum(|g| g.asked),
        golden_equal: sum(|g| g.equal),
        not_passed: report.checks.iter().filter(|run| run.result != CheckResult::Passed).map(check_words).collect(),
    }
}

/// `object-hashes: failed, object-corrupt`
fn check_words(run: &backup_report::CheckRun) -> String {
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let (check, result) = (word(serde_json::to_value(run.check)), word(serde_json::to_value(run.result)));
    match run.reason.map(|reason| word(serde_json::to_value(reason))) {
        Some(reason) => format!("{check}: {result}, {reason}"),
        None => format!("{check}: {result}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_bytes_fail_and_absence_of_an_answer_does_not() {
        use ErrorKind::*;
        for kind in [Damaged, NotFound] {
            assert_eq!(reason(kind).0, CheckResult::Failed, "{kind:?}");
        }
        for kind in [Retry, Fenced, Misconfigured, Denied, NoSpace, Unreachable] {
            assert_eq!(reason(kind).0, CheckResult::NotRun, "{kind:?}");
        }
        assert_eq!(silence(&ClientError::Refused(Refusal::Data)).0, CheckResult::Failed);
        for error in [ClientError::Timeout, ClientError::Closed, ClientError::Malformed] {
            assert_eq!(silence(&error).0, CheckResult::NotRun);
        }
    }

    #[test]
    fn report_ids_are_of_version_7_and_differ() {
        let (one, two) = (report_id(1_795_341_600_000).unwrap(), report_id(1_795_341_600_000).unwrap());
        assert_ne!(one, two);
    }
}
