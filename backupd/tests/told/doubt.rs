//! What one daemon finds, the others heed; what a store lacks is told also by whoever looks at it alone.

use crate::practice::{Practice, walk};
use std::fs;

/// A whole copy of a folder.
fn copy(from: &str, to: &str) {
    for file in walk(from.as_ref()) {
        let target = file.to_str().unwrap().replacen(from, to, 1);
        fs::create_dir_all(std::path::Path::new(&target).parent().unwrap()).unwrap();
        fs::copy(&file, target).unwrap();
    }
}

#[test]
fn a_store_that_was_set_back_is_late_also_for_verify() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    copy(&p.at("two"), &p.at("two-before"));
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
    let p = Practice::new("");
    let stores = ["one", "two"].map(|name| {
        let path = p.at(name);
        format!(
            "[[store]]\nname = \"{name}\"\nkind = \"folder\"\npath = \"{path}\"\nsite = \"{name}\"\nprovider = \"p\"\n"
        )
    });
    let settings = format!(
        "practice = \"P\"\ntime_zone = \"Europe/Berlin\"\nstate_dir = \"maintain-state\"\nsocket = \"{}\"\nserve = \"unix:{}\"\n\
         maintain_schedule = \"0 6 1 1 *\"\n{}",
        p.at("m"),
        p.at("s"),
        stores.concat()
    );
    fs::write(p.at("p/maintain.toml"), settings).unwrap();
    p.open_emr();
    let _serve = p.start("serve");
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
    let healed = p.output(&["heal", "--all", "--json", "--maintain", &format!("unix:{}", p.at("m"))]);
    assert_eq!(healed.status.code(), Some(1), "nobody has it whole");
    let taken = p.ask("serve", &["snapshot"]);
    let whole = walk(p.at("one/packs").as_ref()).len() - packs.len();
    assert!(whole > 0, "the source was not read again: {taken}");
    let status = p.ask("serve", &["status"]);
    let told = |alert: &serde_json::Value| alert["kind"] == "store-corrupt" && alert["subject"] == "one";
    assert!(status["alerts"].as_array().unwrap().iter().any(told), "{status}");
}
