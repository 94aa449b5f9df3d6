//! The report's closed fields and its rule.

mod sample;

use backup_report::*;
use sample::{DECLARED_MS, Dice, report};
use serde_json::Value;

fn bytes_of(value: &Value) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(value).unwrap();
    bytes.push(b'\n');
    bytes
}

/// Calls `change` with every place in the value, by its JSON pointer.
fn pointers(value: &Value, at: String, found: &mut Vec<String>) {
    found.push(at.clone());
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, v)| pointers(v, format!("{at}/{name}"), found)),
        Value::Array(items) => items.iter().enumerate().for_each(|(i, v)| pointers(v, format!("{at}/{i}"), found)),
        _ => {}
    }
}

#[test]
fn the_sample_has_every_field_and_passes() {
    let report = report(1);
    let bytes = report.to_bytes();
    assert_eq!(check(&bytes).unwrap(), report);
    assert_eq!(report.verdict, Verdict::Pass);
    assert_eq!((report.rto.measured_ms, report.rpo.measured_ms), (Some(2_600), Some(150_000)));
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    let mut found = Vec::new();
    pointers(&value, String::new(), &mut found);
    for at in found {
        let v = value.pointer(&at).unwrap();
        let expected_null = at.ends_with("/reason");
        assert_eq!(v.is_null(), expected_null, "{at}: the walks below need every field filled");
    }
}

#[test]
fn no_field_takes_free_text() {
    let value: Value = serde_json::from_slice(&report(1).to_bytes()).unwrap();
    let mut found = Vec::new();
    pointers(&value, String::new(), &mut found);
    assert!(found.len() > 150, "{}", found.len());
    for at in found {
        for text in ["Jane Doe", "jane doe, born 1970-01-01", "", "Jane\u{a0}Doe", "<b>", "note: call back", "é"] {
            let mut bent = value.clone();
            *bent.pointer_mut(&at).unwrap() = Value::from(text);
            assert!(matches!(check(&bytes_of(&bent)), Err(ReportError::Malformed { .. })), "{at} took {text:?}");
        }
        for other in [Value::from(1.5), Value::from(vec!["x"]), serde_json::json!({"x": 1})] {
            let mut bent = value.clone();
            *bent.pointer_mut(&at).unwrap() = other;
            assert!(check(&bytes_of(&bent)).is_err(), "{at}");
        }
    }
}

#[test]
fn unknown_missing_and_doubled_fields_are_refused_everywhere() {
    let value: Value = serde_json::from_slice(&report(1).to_bytes()).unwrap();
    let mut found = Vec::new();
    pointers(&value, String::new(), &mut found);
    for at in found {
        let Some(Value::Object(fields)) = value.pointer(&at) else { continue };
        let mut bent = value.clone();
        bent.pointer_mut(&at).unwrap().as_object_mut().unwrap().insert("note".into(), Value::from(1));
        assert!(matches!(check(&bytes_of(&bent)), Err(ReportError::Malformed { .. })), "{at} took another field");
        for name in fields.keys() {
            let mut bent = value.clone();
            bent.pointer_mut(&at).unwrap().as_object_mut().unwrap().shift_remove(name);
            assert!(check(&bytes_of(&bent)).is_err(), "{at} did without {name}");
        }
    }
    let text = String::from_utf8(report(1).to_bytes()).unwrap();
    let doubled =
        text.replacen("  \"verdict\": \"pass\",\n", "  \"verdict\": \"pass\",\n  \"verdict\": \"pass\",\n", 1);
    assert!(matches!(check(doubled.as_bytes()), Err(ReportError::Malformed { .. })));
}

#[test]
fn a_report_has_one_byte_form() {
    let text = String::from_utf8(report(1).to_bytes()).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    for other in [
        serde_json::to_string(&value).unwrap(),
        text.trim_end().to_owned(),
        format!("{text}\n"),
        format!(" {text}"),
        text.replace('\n', "\r\n"),
        text.replacen("pass", "p\\u0061ss", 1),
    ] {
        assert_eq!(check(other.as_bytes()), Err(ReportError::NotCanonical));
    }
    let mut unsorted = report(1);
    unsorted.facts.swap(0, 1);
    assert!(matches!(check(&unsorted.to_bytes()), Err(ReportError::Contradiction(_))));
}

/// Each of these is something wrong: `fail`.
fn wrongs() -> Vec<fn(&mut Report)> {
    vec![
        |r| r.facts[3].equal = false,
        |r| r.resources[1].restored -= 1,
        |r| r.golden[0].equal -= 1,
        |r| r.integrity.as_mut().unwrap().missing = 1,
        |r| r.integrity.as_mut().unwrap().corrupt = 1,
        |r| r.audit_chain.as_mut().unwrap().ok = false,
        |r| r.other_heads[0].seen = HeadsSeen::Forked,
        |r| r.rto.objective_ms = 2_599,
        |r| r.rpo.objective_ms = 149_999,
        |r| r.rpo.canary.as_mut().unwrap().written_unix_ms = 0,
        |r| {
            r.checks[2] = CheckRun {
                check: Check::ServiceStart,
                result: CheckResult::Failed,
                reason: Some(Reason::ServiceDidNotStart),
            }
        },
    ]
}

/// Each of these is something not done: `inconclusive`.
fn gaps() -> Vec<fn(&mut Report)> {
    vec![
        |r| r.facts.truncate(Fact::ALL.len() - 1),
        |r| r.facts.clear(),
        |r| r.checks.truncate(Check::ALL.len() - 1),
        |r| r.golden[0] = GoldenCompared { asked: 2, equal: 2, ..r.golden[0].clone() },
        |r| r.golden.clear(),
        |r| r.golden.iter_mut().for_each(|g| (g.sealed, g.asked, g.equal) = (0, 0, 0)),
        |r| r.integrity = None,
        |r| r.audit_chain = None,
        |r| r.timing.first_golden_unix_ms = None,
        |r| r.rpo.canary = None,
        |r| r.rpo.canary.as_mut().unwrap().written_unix_ms = DECLARED_MS + 1,
        |r| {
            r.checks[1] = CheckRun {
                check: Check::Integrity,
                result: CheckResult::NotRun,
                reason: Some(Reason::StoreUnreachable),
            }
        },
    ]
}

#[test]
fn the_rule_gives_fail_before_inconclusive_before_pass() {
    for wrong in wrongs() {
        let mut bent = report(1);
        wrong(&mut bent);
        bent.settle().unwrap();
        assert_eq!(bent.verdict, Verdict::Fail, "{:?}", findings(&bent));
        assert_eq!(findings(&bent).len(), 1);
        for gap in gaps() {
            let mut both = report(1);
            gap(&mut both);
            wrong_if_possible(wrong, &mut both);
        }
    }
    for gap in gaps() {
        let mut bent = report(1);
        gap(&mut bent);
        bent.settle().unwrap();
        assert_eq!(bent.verdict, Verdict::Inconclusive, "{:?}", findings(&bent));
    }
}

/// A gap may have removed what the wrong would change; then there is nothing to see.
fn wrong_if_possible(wrong: fn(&mut Report), report: &mut Report) {
    let has = !report.facts.is_empty()
        && report.golden.first().is_some_and(|g| g.equal > 0)
        && report.integrity.is_some()
        && report.audit_chain.is_some()
        && report.rpo.canary.as_ref().is_some_and(|c| c.written_unix_ms < DECLARED_MS)
        && report.timing.first_golden_unix_ms.is_some();
    if has {
        wrong(report);
        report.settle().unwrap();
        assert_eq!(report.verdict, Verdict::Fail, "{:?}", findings(report));
    }
}

#[test]
fn a_forged_verdict_or_measurement_is_refused() {
    for change in wrongs().into_iter().chain(gaps()) {
        let mut bent = report(1);
        change(&mut bent);
        bent.settle().unwrap();
        let honest = bent.verdict;
        for stated in Verdict::ALL.iter().filter(|v| **v != honest) {
            bent.verdict = *stated;
            let expected = ReportError::VerdictForged { stated: *stated, recomputed: honest };
            assert_eq!(check(&bent.to_bytes()), Err(expected));
        }
    }
    let mut bent = report(1);
    bent.rto.measured_ms = Some(1);
    assert!(matches!(check(&bent.to_bytes()), Err(ReportError::Contradiction(_))));
    let mut bent = report(1);
    bent.rpo.measured_ms = None;
    assert!(matches!(check(&bent.to_bytes()), Err(ReportError::Contradiction(_))));
    let mut bent = report(1);
    bent.timing.data_done_unix_ms = Some(DECLARED_MS - 1);
    assert!(matches!(bent.settle(), Err(ReportError::Contradiction(_))));
    let mut bent = report(1);
    bent.timing.restore_started_unix_ms = None;
    assert!(matches!(bent.settle(), Err(ReportError::Contradiction(_))));
}

#[test]
fn random_bytes_never_panic() {
    let mut dice = Dice(0x5eed_0001);
    let key = sample::signer().public_key();
    let good = report(1).to_bytes();
    let proof = b"c2sp.org/tlog-proof@v1\nindex 3\n\nholdfast/log/x\n4\n".as_slice();
    for _ in 0..20_000 {
        let mut inputs = vec![dice.bytes(400)];
        for base in [good.as_slice(), proof] {
            let mut bent = base.to_vec();
            for _ in 0..1 + dice.roll() % 4 {
                let at = (dice.roll() % bent.len() as u64) as usize;
                bent[at] = (dice.roll() >> 24) as u8;
            }
            bent.truncate((dice.roll() % (bent.len() as u64 + 1)) as usize);
            inputs.push(bent);
        }
        for bytes in inputs {
            let _ = check(&bytes);
            let _ = Entry::parse(&bytes);
            let _ = Approval::parse(&bytes);
            let _ = Checkpoint::verify(&bytes, &key);
            let _ = PublicKey::from_pem(&bytes);
            let _ = ReportSigner::from_key_file(&bytes);
            if let Ok(proof) = Proof::parse(&bytes) {
                let _ = proof.verify(&good, &key);
            }
        }
    }
    let deep = [b"[".repeat(100_000), b"{\"schema\":".repeat(100_000)];
    assert!(deep.iter().all(|bytes| check(bytes).is_err() && Entry::parse(bytes).is_err()));
}

#[test]
fn renderings_say_what_happened_and_hold_nothing_foreign() {
    let pass = report(1);
    let text = render_text(&pass);
    assert!(text.contains("PASSED") && text.contains("offsite-a") && text.contains("2.6 s"), "{text}");
    let mut fail = report(2);
    fail.facts[3].equal = false;
    fail.settle().unwrap();
    let text = render_text(&fail);
    assert!(text.contains("FAILED") && text.contains("What is wrong") && text.contains("history rows"), "{text}");
    let mut open = report(3);
    open.integrity = None;
    open.settle().unwrap();
    assert!(render_text(&open).contains("What was not done"));
    for report in [pass, fail, open] {
        let html = render_html(&report);
        for foreign in ["http:", "https:", "src=", "href=", "<script", "url(", "@import"] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }
}
