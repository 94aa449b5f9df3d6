//! What one daemon finds, the others heed; what a store lacks is told also by whoever looks at it alone.

use crate::practice::{Practice, wait_until, walk};
use std::fs;
use std::process::Command;

#[test]
fn a_store_that_was_set_back_is_late_also_for_verify() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert!(Command::new("cp").args(["-a", &p.at("two"), &p.at("two-before")]).status().unwrap().success());
    fs::write(p.at("data/sub/later"), vec![3; 50_000]).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    serve.stop();
    let _verifier = p.start("verifier");
    let conditions = |store: &[&str]| {
        let done = p.ask("verifier", &[&["verify", "--read-data"], store].concat());
        let rows = done["stores"].as_array().unwrap().iter();
        rows.map(|row| (row["condition"].clone(), row["reason"].clone())).collect::<Vec<_>>()
    };
    assert!(conditions(&[]).iter().all(|(condition, _)| condition == "ok"), "{:?}", conditions(&[]));
    fs::rename(p.at("two"), p.at("two-after")).unwrap();
    fs::rename(p.at("two-before"), p.at("two")).unwrap();
    let late = |seen: &(serde_json::Value, serde_json::Value)| {
        seen.0 == "late" && seen.1.as_str().unwrap().contains("newest snapshot")
    };
    assert!(conditions(&[])[0].0 == "ok" && late(&conditions(&[])[1]), "{:?}", conditions(&[]));
    assert!(late(&conditions(&["--store", "two"])[0]), "asked alone, too");
}

#[test]
fn no_snapshot_rests_on_what_maintenance_found_damaged_everywhere() {
    // Each of serve's own looks reads a part of the stores.
    let p = Practice::new("scrub_schedule = \"* * * * *\"\nscrub_bytes_max = 1");
    p.set_up_maintenance(&format!("serve = \"unix:{}\"", p.at("s")));
    p.open_emr();
    let mut serve = p.start("serve");
    let _maintain = p.start("maintain");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    let packs = walk(p.at("one/packs").as_ref());
    for pack in &packs {
        for store in ["one", "two"] {
            let path = pack.to_str().unwrap().replacen(&p.at("one"), &p.at(store), 1);
            let mut bytes = fs::read(&path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        }
    }
    let durable = || p.ask("serve", &["status"])["last_durable"].clone();
    let healed = p.output(&["heal", "--all", "--json", "--maintain", &format!("unix:{}", p.at("m"))]);
    assert_eq!(healed.status.code(), Some(1), "nobody has it whole");
    assert!(durable().is_null(), "what belongs to the damaged packs serve cannot tell");
    let taken = p.ask("serve", &["snapshot"]);
    let whole = walk(p.at("one/packs").as_ref()).len() - packs.len();
    assert!(whole > 0, "the source was not read again: {taken}");
    let told = || {
        let status = p.ask("serve", &["status"]);
        let corrupt =
            |alert: &serde_json::Value| alert["kind"] == "store-corrupt" && alert["subject"].as_str() == Some("one");
        status["alerts"].as_array().unwrap().iter().any(corrupt)
    };
    assert!(told());
    // A look at another part of the store is no reason to think that it is whole.
    let looks = || serve.text().matches("store.scrubbed").count();
    let before = looks();
    wait_until(|| looks() >= before + 2);
    assert!(told(), "{}", serve.text());
    // What was taken with the damage known rests on none of it, also after a restart.
    assert_eq!(durable(), taken["id"]);
    serve.stop();
    let _serve = p.start("serve");
    assert!(told());
    wait_until(|| durable() == taken["id"]);
    // Which snapshots further damage belongs to nobody knows.
    let mut later = walk(p.at("one/packs").as_ref());
    later.retain(|pack| !packs.contains(pack));
    for store in ["one", "two"] {
        let path = later[0].to_str().unwrap().replacen(&p.at("one"), &p.at(store), 1);
        let mut bytes = fs::read(&path).unwrap();
        bytes[700] ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let healed = p.output(&["heal", "--all", "--json", "--maintain", &format!("unix:{}", p.at("m"))]);
    assert_eq!(healed.status.code(), Some(1));
    assert!(durable().is_null());
    let taken = p.ask("serve", &["snapshot"]);
    assert_eq!(durable(), taken["id"]);
}
