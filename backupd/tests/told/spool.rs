//! What waits in the spool while no store answers, what was lost with it, and what is so still after a restart.

use crate::practice::{Daemon, Practice, wait_until};
use crate::told::{change, health};
use serde_json::{Value, json};
use std::fs;

const SPOOL: &str = "[spool]\npath = \"spool\"\nbytes_max = 67108864";

fn is_told(p: &Practice, kind: &str) -> bool {
    let status = p.ask("serve", &["status"]);
    status["alerts"].as_array().unwrap().iter().any(|alert| alert["kind"] == kind)
}

fn set_stores(p: &Practice, from: &str, to: &str) {
    for name in ["one", "two"] {
        fs::rename(p.at(name) + from, p.at(name) + to).unwrap();
    }
}

/// One snapshot in both stores, and then one in the spool, as no store answers.
fn one_waits() -> (Practice, Daemon) {
    let p = Practice::new(SPOOL);
    p.open_emr();
    let serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    set_stores(&p, "", "-away");
    fs::write(p.at("data/sub/later"), "entered while no store answers").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["spooled"], true);
    assert_eq!(lags(&p), [1, 1]);
    (p, serve)
}

fn lags(p: &Practice) -> Vec<u64> {
    let status = p.ask("serve", &["status"]);
    status["stores"].as_array().unwrap().iter().map(|store| store["lag_snapshots"].as_u64().unwrap()).collect()
}

/// The stores are still away: nothing is said of a snapshot that is nowhere, nor that the stores lack nothing.
fn assert_lost_is_told(p: &Practice, serve: &Daemon) {
    assert!(serve.text().contains("spool.lost"), "{}", serve.text());
    let status = p.ask("serve", &["status"]);
    let last = &status["last_snapshot"];
    assert_eq!((&last["state"], &last["stores"]), (&json!("full"), &json!(["one", "two"])), "{status}");
    assert_eq!((status["last_durable"] == last["id"], lags(p)), (true, vec![1, 1]), "{status}");
    assert_eq!(p.ask("serve", &["snapshots"])["snapshots"].as_array().unwrap().len(), 1);
}

/// The stores come back; the next snapshot holds everything and ends the alert.
fn assert_is_made_good(p: &Practice) {
    set_stores(p, "-away", "");
    let done = p.ask("serve", &["snapshot"]);
    assert_eq!((&done["state"], &done["spooled"]), (&json!("full"), &json!(false)), "{done}");
    assert!(!is_told(p, "spool-lost"));
    assert_eq!(lags(p), [0, 0]);
    p.run(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("other")]);
    let back = fs::read_to_string(p.at("other/emr/attachments/sub/later")).unwrap();
    assert_eq!(back, "entered while no store answers");
}

#[test]
fn a_spool_that_is_lost_while_serve_is_stopped_is_told_while_no_store_answers() {
    let (p, mut serve) = one_waits();
    // A disk that is mounted late: what lies on it is not lost, once it is there.
    serve.stop();
    fs::rename(p.at("p/spool"), p.at("p/unmounted")).unwrap();
    serve = p.start("serve");
    wait_until(|| is_told(&p, "spool-lost"));
    serve.stop();
    fs::remove_dir(p.at("p/spool")).unwrap();
    fs::rename(p.at("p/unmounted"), p.at("p/spool")).unwrap();
    serve = p.start("serve");
    wait_until(|| !is_told(&p, "spool-lost"));
    assert_eq!(p.ask("serve", &["status"])["last_snapshot"]["state"], "sealed");
    serve.stop();
    fs::remove_dir_all(p.at("p/spool")).unwrap();
    serve = p.start("serve");
    wait_until(|| is_told(&p, "spool-lost"));
    assert_lost_is_told(&p, &serve);
    // It is told on at once, and once.
    serve.stop();
    serve = p.start("serve");
    assert!(is_told(&p, "spool-lost"));
    wait_until(|| serve.text().contains("store.unreachable"));
    assert!(is_told(&p, "spool-lost") && !serve.text().contains("spool.lost"), "{}", serve.text());
    assert_eq!(lags(&p), [1, 1]);
    assert_is_made_good(&p);
}

#[test]
fn a_spool_that_is_lost_under_a_running_serve_is_told_while_no_store_answers() {
    let (p, serve) = one_waits();
    fs::remove_dir_all(p.at("p/spool")).unwrap();
    wait_until(|| is_told(&p, "spool-lost"));
    assert_lost_is_told(&p, &serve);
    assert_is_made_good(&p);
}

#[test]
fn what_waits_and_is_sent_is_never_told_as_lost() {
    let (p, mut serve) = one_waits();
    serve.stop();
    set_stores(&p, "-away", "");
    serve = p.start("serve");
    wait_until(|| serve.text().contains("spool.sent"));
    // The stores are silent again before anybody could see where it lies.
    serve.child.kill().unwrap();
    serve.child.wait().unwrap();
    set_stores(&p, "", "-away");
    serve = p.start("serve");
    wait_until(|| serve.text().contains("store.unreachable"));
    let spooled = p.ask("serve", &["snapshot"]);
    assert_eq!(spooled["spooled"], true, "{spooled}");
    assert!(!is_told(&p, "spool-lost") && !serve.text().contains("spool.lost"), "{}", serve.text());
}

/// Bytes that no compression makes fewer.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..length / 8).flat_map(|_| next()).collect()
}

#[test]
fn a_full_spool_is_full_after_a_restart_until_something_shows_that_it_is_not() {
    let (p, mut serve) = one_waits();
    fs::write(p.at("data/sub/large"), noise(80 << 20)).unwrap();
    let refused = p.ask("serve", &["snapshot"]);
    assert_eq!(refused["event"], "failed", "{refused}");
    assert!(is_told(&p, "spool-full"));
    serve.stop();
    serve = p.start("serve");
    assert!(is_told(&p, "spool-full"), "before the first look");
    wait_until(|| serve.text().contains("store.unreachable"));
    assert!(is_told(&p, "spool-full"), "and after it");
    // With more room nobody knows that the next one does not fit.
    serve.stop();
    change(&p, "p/serve.toml", "bytes_max = 67108864", "bytes_max = 134217728");
    serve = p.start("serve");
    assert!(!is_told(&p, "spool-full"));
    assert_eq!(p.ask("serve", &["snapshot"])["spooled"], true);
    // What was removed makes room at once, whatever was counted before.
    fs::remove_dir_all(p.at("p/spool")).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["spooled"], true, "{}", serve.text());
}

#[test]
fn backups_that_wait_for_stores_wait_after_a_restart_until_these_are_back() {
    let p = Practice::new("");
    change(&p, "p/serve.toml", "quorum = 1", "quorum = 2");
    change(&p, "p/serve.toml", "site = \"two\"\nprovider = \"p\"", "site = \"two\"\nprovider = \"q\"");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    fs::rename(p.at("one"), p.at("one-away")).unwrap();
    fs::write(p.at("data/sub/later"), "entered while one store answers").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "sealed");
    let waits = |status: &Value| status["paused"].as_str().is_some_and(|why| why.contains("too few stores"));
    assert!(waits(&p.ask("serve", &["status"])));
    serve.stop();
    serve = p.start("serve");
    assert!(waits(&p.ask("serve", &["status"])) && is_told(&p, "quorum-unreachable"));
    assert_eq!(health(&p, "h")["paused"], "quorum-unreachable", "no power-off is safe");
    wait_until(|| serve.text().contains("store.unreachable"));
    assert!(waits(&p.ask("serve", &["status"])) && is_told(&p, "quorum-unreachable"));
    serve.stop();
    fs::rename(p.at("one-away"), p.at("one")).unwrap();
    let _serve = p.start("serve");
    wait_until(|| !waits(&p.ask("serve", &["status"])) && !is_told(&p, "quorum-unreachable"));
    assert_eq!(p.ask("serve", &["status"])["last_snapshot"]["state"], "full");
}

#[test]
fn a_spool_whose_folder_is_removed_is_told_and_made_anew() {
    let p = Practice::new("[spool]\npath = \"spool\"\nbytes_max = 1000000000");
    p.open_emr();
    let _serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    let stores =
        |from: &str, to: &str| ["one", "two"].map(|name| fs::rename(p.at(name) + from, p.at(name) + to).unwrap());
    stores("", "-away");
    fs::write(p.at("data/sub/later"), "entered while no store answers").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["spooled"], true);
    fs::remove_dir_all(p.at("p/spool")).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["spooled"], true, "there is room again");
    fs::remove_dir_all(p.at("p/spool")).unwrap();
    stores("-away", "");
    let back = p.ask("serve", &["snapshot"]);
    assert_eq!(back["state"], "full", "{back}");
    let status = p.ask("serve", &["status"]);
    assert!(status["alerts"].as_array().unwrap().iter().any(|alert| alert["kind"] == "spool-lost"), "{status}");
    assert_eq!(status["spool"]["bytes"], 0, "{status}");
}
