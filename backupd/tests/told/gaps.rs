//! Snapshots that somebody took out of the history.

use super::health;
use crate::practice::{Practice, wait_until};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs;

/// What the open alerts `head-gap` name.
fn gaps(p: &Practice) -> BTreeSet<String> {
    let status = p.ask("serve", &["status"]);
    let alerts = status["alerts"].as_array().unwrap().iter();
    alerts.filter(|alert| alert["kind"] == "head-gap").map(|a| a["subject"].as_str().unwrap().to_owned()).collect()
}

/// Takes the head of this number out of every store.
fn take_out(p: &Practice, counter: u64) {
    for store in ["one", "two"] {
        let found = walk(&p.at(&format!("{store}/heads")));
        let wanted = format!("{counter:016x}");
        let heads: Vec<&String> =
            found.iter().filter(|path| path.rsplit('/').next().unwrap().starts_with(&wanted)).collect();
        assert_eq!(heads.len(), 1, "{found:?}");
        fs::remove_file(heads[0]).unwrap();
    }
}

fn walk(dir: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    let each = entries.flat_map(|entry| {
        let path = entry.path().to_str().unwrap().to_owned();
        if entry.path().is_dir() { walk(&path) } else { vec![path] }
    });
    each.collect()
}

#[test]
fn snapshots_that_were_taken_away_are_named_until_somebody_has_looked() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    for _ in 0..5 {
        assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    }
    assert_eq!(gaps(&p), BTreeSet::new());
    serve.stop();
    take_out(&p, 2);
    let mut serve = p.start("serve");
    wait_until(|| !gaps(&p).is_empty());
    let chain = p.ask("serve", &["snapshots"])["snapshots"][0]["incarnation"].as_str().unwrap().to_owned();
    let second = format!("emr/{chain}/2");
    assert_eq!(gaps(&p), BTreeSet::from([second.clone()]));
    assert_eq!(health(&p, "h")["doubts"], json!(["history-broken"]), "no power-off is safe");
    let told = p.run(&["status", "--serve", &format!("unix:{}", p.at("s"))]);
    assert!(told.contains(&format!("`backupd looked-into {second}`")), "{told}");
    // No store is to blame for it: what a verification says of the stores stays right, and it goes on naming the gap.
    let mut verifier = p.start("verifier");
    let verified = p.ask("verifier", &["verify", "--read-data"]);
    assert!(verified["stores"].as_array().unwrap().iter().all(|store| store["condition"] == "ok"), "{verified}");
    assert!(verified["gaps"][0].as_str().unwrap().ends_with("/0000000000000002"), "{verified}");
    let failed = p.output(&["verify", "--verifier", &format!("unix:{}", p.at("v"))]);
    assert!(
        failed.status.code() == Some(1) && String::from_utf8_lossy(&failed.stdout).contains("nobody signed for it")
    );
    let told = p.ask("verifier", &["status"]);
    assert!(!told.to_string().contains("store-missing"), "{told}");
    verifier.stop();
    assert_eq!(p.ask("serve", &["looked-into", "emr"])["kind"], "not-found");
    assert_eq!(p.ask("serve", &["looked-into", &second])["event"], "alert-closed");
    assert_eq!((gaps(&p), health(&p, "h")["doubts"].clone()), (BTreeSet::new(), json!([])));
    // It stays closed; what goes next is another.
    serve.stop();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(gaps(&p), BTreeSet::new());
    serve.stop();
    take_out(&p, 4);
    let _serve = p.start("serve");
    wait_until(|| !gaps(&p).is_empty());
    assert_eq!(gaps(&p), BTreeSet::from([format!("emr/{chain}/4")]));
}

/// What maintenance says of each store, and how the command ended that was asked for it.
fn healed(p: &Practice) -> (Option<i32>, Vec<String>) {
    let done = p.output(&["heal", "--json", "--maintain", &format!("unix:{}", p.at("m"))]);
    let text = String::from_utf8(done.stdout).unwrap();
    let told: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
    let stores = told["stores"].as_array().unwrap().iter();
    (done.status.code(), stores.map(|store| store["condition"].as_str().unwrap().to_owned()).collect())
}

#[test]
fn what_was_looked_into_is_missed_by_maintenance_no_longer_and_what_goes_later_is() {
    let p = Practice::new("");
    p.set_up_maintenance("");
    p.open_emr();
    let _maintain = p.start("maintain");
    let mut serve = p.start("serve");
    for _ in 0..5 {
        p.ask("serve", &["snapshot"]);
    }
    assert_eq!(healed(&p), (Some(0), vec!["ok".to_owned(); 2]));
    serve.stop();
    take_out(&p, 2);
    let mut serve = p.start("serve");
    wait_until(|| !gaps(&p).is_empty());
    assert_eq!(healed(&p), (Some(1), vec!["missing".to_owned(); 2]));
    let subject = gaps(&p).into_iter().next().unwrap();
    let (serve_at, maintain_at) = (format!("unix:{}", p.at("s")), format!("unix:{}", p.at("m")));
    let looked = |subject: &str| {
        p.output(&["looked-into", subject, "--serve", &serve_at, "--maintain", &maintain_at]).status.code()
    };
    let (before, _number) = subject.rsplit_once('/').unwrap();
    let chain = before.strip_prefix("emr/").unwrap();
    for nobody in [format!("other/{chain}/2"), format!("{before}/1-99"), format!("{before}/3"), "no/such/1".to_owned()]
    {
        assert_eq!(looked(&nobody), Some(1), "no alert has this name");
    }
    assert_eq!((gaps(&p).len(), healed(&p).0), (1, Some(1)), "nothing was let off");
    assert_eq!(looked(&subject), Some(0));
    assert_eq!((gaps(&p), healed(&p)), (BTreeSet::new(), (Some(0), vec!["ok".to_owned(); 2])));
    assert_eq!(looked(&subject), Some(0), "it is closed: whoever says it once more is not mistaken");
    serve.stop();
    take_out(&p, 4);
    let _serve = p.start("serve");
    assert_eq!(healed(&p).1, vec!["missing".to_owned(); 2]);
}
