//! What must not look like health because nobody knows it any more: after a restart, and in a store whose newest snapshot cannot be
//! read.

use super::{has_alert, health, recover};
use crate::practice::{Fault, Practice, wait_until};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn damaged_records_are_told_after_a_restart_too() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    p.set(Fault::Damaged);
    let told = p.output(&["snapshot", "--serve", &format!("unix:{}", p.at("s"))]);
    assert!(told.status.code() == Some(3) && String::from_utf8_lossy(&told.stdout).contains("DAMAGED"), "{told:?}");
    serve.stop();
    let mut serve = p.start("serve");
    assert!(has_alert(&p.ask("serve", &["status"]), "source-damaged", "emr"));
    assert_eq!(health(&p, "h")["doubts"], json!(["source-damaged"]), "no power-off is safe");
    p.set(Fault::Lost);
    assert_ne!(p.ask("serve", &["snapshot"])["event"], "snapshot-done");
    serve.stop();
    let _serve = p.start("serve");
    assert!(has_alert(&p.ask("serve", &["status"]), "source-unreachable", "emr"));
    assert_eq!(health(&p, "h")["paused"], "source-unreachable");
    p.set(Fault::None);
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    let status = p.ask("serve", &["status"]);
    assert!(!has_alert(&status, "source-unreachable", "emr") && !has_alert(&status, "source-damaged", "emr"));
}

#[test]
fn a_note_of_the_kit_that_is_gone_is_no_kit_that_fits() {
    let p = Practice::new("");
    let is_told = || {
        let status = p.ask("serve", &["status"]);
        let alerts = status["alerts"].as_array().unwrap();
        alerts.iter().any(|alert| alert["kind"] == "kit-stale" && alert["subject"].is_null())
    };
    let mut serve = p.start("serve");
    wait_until(|| p.ask("serve", &["status"])["stores"][0]["condition"] == "ok");
    assert!(!is_told());
    serve.stop();
    fs::remove_file(p.at("p/kit.note")).unwrap();
    let _serve = p.start("serve");
    wait_until(is_told);
}

/// The one file of a folder whose name begins so, wherever below it.
fn find(dir: &Path, begins: &str) -> PathBuf {
    let mut work = vec![dir.to_owned()];
    while let Some(dir) = work.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            match entry.file_name().unwrap().to_string_lossy().starts_with(begins) {
                true if entry.is_file() => return entry,
                _ if entry.is_dir() => work.push(entry),
                _ => {}
            }
        }
    }
    panic!("nothing begins with {begins}");
}

#[test]
fn a_store_whose_newest_snapshot_cannot_be_read_proves_nothing_and_a_recovery_says_so() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    let before = p.ask("serve", &["snapshot"]);
    let newest = p.ask("serve", &["snapshot"]);
    serve.stop();
    let _verifier = p.start("verifier");
    let drill = || p.ask("verifier", &["drill", "--store", "two"])["verdict"].as_str().unwrap().to_owned();
    assert_eq!(drill(), "inconclusive", "no EMR is started here");
    let two = PathBuf::from(p.at("two"));
    let id = newest["id"].as_str().unwrap();
    for (file, into) in
        [(find(&two.join("heads"), "0000000000000002"), "head"), (find(&two.join("snapshots"), id), "manifest")]
    {
        let whole = fs::read(&file).unwrap();
        let mut bytes = whole.clone();
        bytes[60] ^= 1;
        fs::write(&file, bytes).unwrap();
        let object = file.strip_prefix(&two).unwrap().to_str().unwrap();
        let told: Value = recover(&p, into, &[]);
        assert_eq!((&told["snapshots"], &told["unread"]), (&json!([before["id"]]), &json!([object])), "{into} {told}");
        assert_eq!(drill(), "fail", "{into}");
        fs::write(&file, whole).unwrap();
    }
    // An older one that is damaged is no newer one.
    let file = find(&two.join("heads"), "0000000000000001");
    let mut bytes = fs::read(&file).unwrap();
    bytes[60] ^= 1;
    fs::write(&file, bytes).unwrap();
    let told = recover(&p, "whole", &[]);
    assert_eq!((&told["snapshots"], &told["unread"]), (&json!([newest["id"]]), &json!([])), "{told}");
    assert_eq!(drill(), "inconclusive");
}

#[test]
fn a_store_that_was_emptied_is_not_verified_as_whole() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    serve.stop();
    fs::rename(p.at("one"), p.at("away")).unwrap();
    fs::create_dir(p.at("one")).unwrap();
    let _verifier = p.start("verifier");
    let verified = p.ask("verifier", &["verify"]);
    let conditions: Vec<&Value> = verified["stores"].as_array().unwrap().iter().map(|s| &s["condition"]).collect();
    assert_eq!(conditions, ["late", "ok"], "{verified}");
    let told = p.output(&["verify", "--verifier", &format!("unix:{}", p.at("v"))]);
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.code() == Some(1) && said.contains("other stores do"), "{said}");
}
