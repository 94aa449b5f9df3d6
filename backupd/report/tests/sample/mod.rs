//! A report with every optional field filled, as a drill makes it.

#![allow(dead_code, reason = "each test file uses a part")]

use backup_report::*;

pub const DECLARED_MS: i64 = 1_795_330_890_000;
pub const SEED: [u8; 32] = [42; 32];

pub fn signer() -> ReportSigner {
    ReportSigner::from_seed(&SEED)
}

pub fn origin() -> Origin {
    Origin::of_repository(&OpaqueId::parse("0191aa00").unwrap())
}

/// Passes. `n` makes it another report.
pub fn report(n: u32) -> Report {
    let digest = |byte: u8| Digest::of(&[byte; 32]);
    let label = |text: &str| Label::parse(text).unwrap();
    let program = || Program { version: Version::parse("0.1.0").unwrap(), sha256: Some(digest(5)) };
    let golden = |kind| GoldenCompared { kind, sealed: 3, asked: 3, equal: 3 };
    let resource =
        |name, count| ResourceCompared { resource: ResourceType::parse(name).unwrap(), stated: count, restored: count };
    let mut report = Report {
        schema: Schema::V1,
        report_id: ReportId::parse(&format!("01912d68-783e-7a03-8467-{n:012x}")).unwrap(),
        verdict: Verdict::Inconclusive,
        practice: OpaqueId::parse("0191bb00").unwrap(),
        repository: OpaqueId::parse("0191aa00").unwrap(),
        snapshot: Snapshot {
            id: OpaqueId::parse("0191cc00-1").unwrap(),
            source: label("emr"),
            incarnation: OpaqueId::parse("0191dd00").unwrap(),
            counter: 17,
            taken_unix_ms: DECLARED_MS - 120_000,
            head_hash: digest(1),
        },
        store: SourceStore {
            name: label("offsite-a"),
            kind: StoreKind::S3,
            site: label("site-2"),
            provider: label("provider-1"),
            apart: true,
        },
        other_heads: ["offsite-b", "local"]
            .map(|name| OtherHeads {
                store: label(name),
                seen: HeadsSeen::Read,
                newest_counter: Some(17),
                newest_hash: Some(digest(1)),
            })
            .to_vec(),
        timing: Timing {
            declared_unix_ms: DECLARED_MS,
            restore_started_unix_ms: Some(DECLARED_MS + 100),
            data_done_unix_ms: Some(DECLARED_MS + 1_500),
            service_started_unix_ms: Some(DECLARED_MS + 2_500),
            first_golden_unix_ms: Some(DECLARED_MS + 2_600),
            ended_unix_ms: DECLARED_MS + 4_000,
        },
        rto: Rto { objective_ms: 4 * 3_600_000, measured_ms: None },
        rpo: Rpo {
            objective_ms: 15 * 60_000,
            measured_ms: None,
            canary: Some(Canary { sequence: 4711, written_unix_ms: DECLARED_MS - 150_000 }),
        },
        checks: Check::ALL
            .iter()
            .map(|check| CheckRun { check: *check, result: CheckResult::Passed, reason: None })
            .collect(),
        facts: Fact::ALL.iter().map(|fact| FactCompared { fact: *fact, equal: true }).collect(),
        resources: vec![resource("Patient", 50), resource("Appointment", 120)],
        golden: GoldenKind::ALL.iter().map(|kind| golden(*kind)).collect(),
        integrity: Some(Integrity { objects: 40, missing: 0, corrupt: 0 }),
        audit_chain: Some(AuditChain { entries: 900, ok: true }),
        restored: Restored { files: 21, bytes: 31_700_000, bytes_fetched: 7_600_000 },
        environment: Environment {
            same_host_as_writer: true,
            network_isolated: true,
            backupd: program(),
            appliance: program(),
        },
        duties_sha256: Some(digest(6)),
    };
    report.settle().unwrap();
    report
}

/// A small deterministic generator: a failure can be repeated.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn bytes(&mut self, max: u64) -> Vec<u8> {
        let length = self.roll() % (max + 1);
        (0..length).map(|_| (self.roll() >> 32) as u8).collect()
    }
}
