//! Words and figures of stores that must be true whatever was looked at before.

use crate::practice::{Practice, wait_until, walk};
use std::fs;

#[test]
fn a_store_that_is_back_is_not_told_as_away_until_the_next_scheduled_look() {
    let p = Practice::new("");
    p.set_up_maintenance("");
    p.open_emr();
    let _serve = p.start("serve");
    let maintain = p.start("maintain");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    fs::rename(p.at("two"), p.at("two-away")).unwrap();
    let maintenance = ["--json", "--maintain", &format!("unix:{}", p.at("m"))];
    let told = p.output(&[&["heal"][..], &maintenance].concat());
    let text = String::from_utf8(told.stdout).unwrap();
    assert!(text.contains("unreachable"), "{text}");
    // Between being plugged in and the look it has lost something, too.
    let pack = walk(p.at("two-away/packs").as_ref()).pop().unwrap();
    fs::remove_file(&pack).unwrap();
    assert!(!maintain.text().contains("store.returned"));
    fs::rename(p.at("two-away"), p.at("two")).unwrap();
    wait_until(|| maintain.text().contains("store.object-healed"));
    let is_away = || {
        let status = p.output(&[&["status", "--serve", &format!("unix:{}", p.at("s"))][..], &maintenance].concat());
        let text = String::from_utf8(status.stdout).unwrap();
        let told = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let told = told.filter(|told| told["event"] == "maintain-status").collect::<Vec<_>>();
        assert_eq!(told.len(), 1, "{text}");
        told[0]["alerts"].to_string().contains("store-unreachable")
    };
    wait_until(|| !is_away());
}

#[test]
fn maintenance_that_never_saw_an_object_misses_it_and_brings_it_back() {
    let p = Practice::new("");
    p.set_up_maintenance("");
    p.open_emr();
    let _serve = p.start("serve");
    let _maintain = p.start("maintain");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    // It goes before maintenance has looked for the first time.
    let pack = walk(p.at("two/packs").as_ref()).pop().unwrap();
    let whole = fs::read(&pack).unwrap();
    fs::remove_file(&pack).unwrap();
    let heal = || {
        let done = p.output(&["heal", "--store", "two", "--json", "--maintain", &format!("unix:{}", p.at("m"))]);
        let text = String::from_utf8(done.stdout).unwrap();
        let told: serde_json::Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        (done.status.code(), told["stores"][0]["missing"].as_u64(), told["stores"][0]["healed"].as_u64())
    };
    assert_eq!(heal(), (Some(0), Some(1), Some(1)));
    assert_eq!(fs::read(&pack).unwrap(), whole);
    assert_eq!(heal(), (Some(0), Some(0), Some(0)));
    // That it was gone is told until somebody has looked into it.
    let (serve, maintain) = (format!("unix:{}", p.at("s")), format!("unix:{}", p.at("m")));
    let asked = |args: &[&str]| p.output(&[args, &["--serve", &serve, "--maintain", &maintain]].concat());
    let told = || String::from_utf8(asked(&["status"]).stdout).unwrap().contains("store-healed two");
    assert!(told());
    assert!(!asked(&["looked-into", "one"]).status.success(), "nothing was healed there");
    assert!(asked(&["looked-into", "two"]).status.success());
    assert!(!told());
    assert!(!asked(&["looked-into", "two"]).status.success(), "nothing is open");
    // What lies nowhere else is told, for as long as it is missing.
    fs::remove_file(&pack).unwrap();
    fs::remove_file(pack.to_str().unwrap().replacen(&p.at("two"), &p.at("one"), 1)).unwrap();
    assert_eq!(heal(), (Some(1), Some(1), Some(0)));
    assert_eq!(heal(), (Some(1), Some(1), Some(0)));
    // A person may know that nobody will bring it back.
    assert!(asked(&["heal", "--all"]).status.code() == Some(1));
    assert!(asked(&["looked-into", "two"]).status.success());
    assert_eq!(heal(), (Some(0), Some(0), Some(0)));
}

#[test]
fn what_every_store_lost_is_told_until_a_person_has_looked_into_it() {
    let p = Practice::new("scrub_schedule = \"* * * * *\"");
    p.open_emr();
    let mut serve = p.start("serve");
    let first = p.ask("serve", &["snapshot"]);
    assert_eq!(first["state"], "full");
    for store in ["one", "two"] {
        fs::remove_dir_all(p.at(&format!("{store}/packs"))).unwrap();
    }
    let alerts = || -> Vec<String> {
        let status = p.ask("serve", &["status"]);
        let all = status["alerts"].as_array().unwrap().iter();
        all.filter(|alert| alert["kind"] == "store-missing").map(|alert| alert["subject"].to_string()).collect()
    };
    // It reads the source again; the one after that was taken with the loss known.
    p.ask("serve", &["snapshot"]);
    let newest = p.ask("serve", &["snapshot"]);
    assert_eq!(alerts().len(), 2, "{:?}", alerts());
    let looks = || serve.text().matches("store.scrubbed").count();
    let before = looks();
    wait_until(|| looks() >= before + 2);
    assert_eq!(alerts().len(), 2, "a look through the stores does not bring it back: {}", serve.text());
    assert_eq!(p.ask("serve", &["status"])["last_durable"], newest["id"]);
    let state = |id: &serde_json::Value| {
        let rows = p.ask("serve", &["snapshots"]);
        let rows = rows["snapshots"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["id"] == *id).unwrap()["state"].clone()
    };
    assert_eq!((state(&first["id"]), state(&newest["id"])), ("sealed".into(), "full".into()));
    serve.stop();
    let _serve = p.start("serve");
    wait_until(|| alerts().len() == 2 && state(&newest["id"]) == "full");
    assert_eq!(state(&first["id"]), "sealed", "a restart brings nothing back either");
    assert!(p.output(&["looked-into", "one", "--serve", &format!("unix:{}", p.at("s"))]).status.success());
    wait_until(|| alerts().is_empty());
    assert_eq!(state(&first["id"]), "sealed", "that somebody knows of it does not make it whole");
}

/// What `serve` says of one store.
fn row(p: &Practice, at: usize) -> serde_json::Value {
    p.ask("serve", &["stores"])["stores"][at].clone()
}

#[test]
fn what_was_known_of_the_stores_outlives_a_restart_during_an_outage() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    for _ in 0..3 {
        assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    }
    // The folder is the server's own: whoever has its credentials can destroy what it holds.
    wait_until(|| row(&p, 1)["protection"] == "unprotected");
    wait_until(|| row(&p, 1)["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    fs::rename(p.at("two"), p.at("away")).unwrap();
    fs::write(p.at("data/sub/later"), vec![3; 50_000]).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "durable");
    let (before, status) = (row(&p, 1), p.ask("serve", &["status"]));
    assert_eq!((&before["condition"], &before["lag_snapshots"]), (&"unreachable".into(), &1.into()), "{before}");
    let rows = p.ask("serve", &["snapshots"]);
    // Killed, as by a power cut.
    serve.child.kill().unwrap();
    serve.child.wait().unwrap();
    let mut serve = p.start("serve");
    let compare = || {
        let now = p.ask("serve", &["status"]);
        assert_eq!(now["stores"][1], before, "{now}");
        for known in ["last_durable", "last_durable_unix_ms", "sites_apart"] {
            assert_eq!(now[known], status[known], "{known}: {now}");
        }
        assert_eq!(p.ask("serve", &["snapshots"]), rows);
        let since = |status: &serde_json::Value| {
            let alerts = status["alerts"].as_array().unwrap().iter();
            alerts.filter(|alert| alert["subject"] == "two").cloned().collect::<Vec<_>>()
        };
        assert_eq!(since(&now), since(&status), "the same alerts, since the same time");
    };
    // Before anything was asked, and after it.
    compare();
    wait_until(|| row(&p, 0)["condition"] == "ok");
    compare();
    // It is behind by what came since, and only by that.
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "durable");
    assert_eq!(row(&p, 1)["lag_snapshots"], 2);
    // Without any memory nobody knows how far it is behind, and nobody says so.
    serve.stop();
    fs::remove_dir_all(p.at("p/state")).unwrap();
    let _serve = p.start("serve");
    assert_eq!((&row(&p, 1)["known"], &row(&p, 1)["lag_snapshots"]), (&false.into(), &0.into()));
    wait_until(|| row(&p, 1)["condition"] == "unreachable");
    assert_eq!((&row(&p, 1)["known"], &row(&p, 1)["lag_snapshots"]), (&false.into(), &0.into()));
    fs::rename(p.at("away"), p.at("two")).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!((&row(&p, 1)["condition"], &row(&p, 1)["known"]), (&"ok".into(), &true.into()));
}

#[test]
fn a_late_store_says_why_for_as_long_as_it_is_late() {
    let p = Practice::new("");
    p.open_emr();
    // It takes no pack: a file stands in the way of all of them.
    fs::write(p.at("two/packs"), "").unwrap();
    let serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "durable");
    let late = row(&p, 1);
    assert_eq!(late["condition"], "late", "{late}");
    let reason = late["reason"].as_str().unwrap();
    assert!(reason.starts_with("packs/") && reason.contains("Not a directory"), "{reason}");
    assert_eq!(row(&p, 0)["reason"], serde_json::Value::Null);
    let said = String::from_utf8(p.output(&["status", "--config", &p.at("p/serve.toml")]).stdout).unwrap();
    assert!(said.contains("two: late: packs/"), "{said}");
    // What is tried by itself meanwhile fails for the same reason, and the log says so.
    wait_until(|| {
        let log = fs::read_to_string(&serve.log).unwrap();
        log.lines().any(|line| line.contains("store.not-caught-up") && line.contains("Not a directory"))
    });
    fs::remove_file(p.at("two/packs")).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(row(&p, 1)["condition"], "ok");
    assert_eq!(row(&p, 1)["reason"], serde_json::Value::Null);
}

#[test]
fn snapshots_that_only_absent_stores_hold_are_listed_after_a_restart() {
    let p = Practice::new("[spool]\npath = \"spool\"\nbytes_max = 1000000000");
    p.open_emr();
    let mut serve = p.start("serve");
    for _ in 0..2 {
        assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    }
    for store in ["one", "two"] {
        fs::rename(p.at(store), p.at(store) + "-away").unwrap();
    }
    fs::write(p.at("data/sub/later"), "entered while no store answers").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["spooled"], true);
    let rows = || p.ask("serve", &["snapshots"])["snapshots"].as_array().unwrap().clone();
    let before = rows();
    assert_eq!(before.len(), 3);
    serve.child.kill().unwrap();
    serve.child.wait().unwrap();
    let _serve = p.start("serve");
    assert_eq!(rows(), before);
    wait_until(|| p.ask("serve", &["status"])["spool"]["snapshots"] == 1);
    assert_eq!(rows(), before);
}
