//! The keyring after a rotation: in the kit, in the stores, and in what is told of both.

use super::has_alert;
use crate::practice::{Practice, wait_until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

fn rotate(p: &Practice, with_kit: bool) -> String {
    let (config, kit, paper) = (p.at("p/serve.toml"), p.at("kit"), p.at("kit/paper-key.txt"));
    let more: &[&str] = if with_kit { &["--kit", &kit] } else { &[] };
    p.run(&[&["keys", "rotate", "--config", &config, "--paper-key-file", &paper][..], more].concat())
}

fn newest_keyring(store: &str) -> PathBuf {
    let keyrings = fs::read_dir(Path::new(store).join("keyring")).unwrap().map(|entry| entry.unwrap().path());
    keyrings.max().unwrap()
}

fn flip_a_byte(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

fn kit_row(p: &Practice) -> String {
    let rows = p.run(&["keys", "list", "--kit", &p.at("kit"), "--json"]);
    let mut rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    rows.find(|row| row["place"] == "kit").unwrap()["note"].as_str().unwrap().to_owned()
}

#[test]
fn the_kits_keyring_is_enough_where_the_stores_newest_is_damaged_or_gone_and_older_ones_are_whole() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    p.ask("serve", &["snapshot"]);
    serve.stop();
    rotate(&p, true);
    let note: Value = serde_json::from_slice(&fs::read(p.at("p/kit.note")).unwrap()).unwrap();
    assert_eq!(note["keyring"], 2, "the kit was at hand");
    fs::write(p.at("data/sub/later"), "entered after the rotation").unwrap();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    serve.stop();
    let newest = newest_keyring(&p.at("two"));
    let whole = fs::read(&newest).unwrap();
    for into in ["flipped", "gone"] {
        match into {
            "flipped" => flip_a_byte(&newest),
            _ => fs::remove_file(&newest).unwrap(),
        }
        p.run(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at(into)]);
        let later = fs::read_to_string(p.at(into) + "/emr/attachments/sub/later").unwrap();
        assert_eq!(later, "entered after the rotation", "{into}");
        assert_eq!(fs::read(&newest).unwrap(), whole, "{into}: it is put back");
    }
    // The other way round the store's is the newer one, and it opens what the kit's does not.
    rotate(&p, false);
    fs::write(p.at("data/sub/last"), "entered after the next rotation").unwrap();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    serve.stop();
    p.run(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("store")]);
    assert!(fs::exists(p.at("store/emr/attachments/sub/last")).unwrap());
}

#[test]
fn a_kit_of_before_a_rotation_is_told_until_it_is_made_current() {
    let p = Practice::new("");
    let said = rotate(&p, false);
    assert!(said.contains("keys kit --config serve.toml --kit PATH"), "{said}");
    assert!(kit_row(&p).contains("number 1 of 2"));
    let _serve = p.start("serve");
    let is_told = || {
        let status = p.ask("serve", &["status"]);
        assert!(!has_alert(&status, "kit-stale", "one") && !has_alert(&status, "kit-stale", "two"), "{status}");
        let alerts = status["alerts"].as_array().unwrap();
        alerts.iter().any(|alert| alert["kind"] == "kit-stale" && alert["subject"].is_null())
    };
    wait_until(is_told);
    let renew = ["keys", "kit", "--config", &p.at("p/serve.toml"), "--kit", &p.at("kit")];
    let kit = fs::read(p.at("kit/kit.json")).unwrap();
    for store in ["one", "two"] {
        fs::rename(p.at(store), p.at(store) + "-away").unwrap();
    }
    let refused = p.output(&renew);
    let complained = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && complained.contains("the kit stays as it is"), "{complained}");
    assert_eq!(fs::read(p.at("kit/kit.json")).unwrap(), kit);
    // One store is enough to tell.
    fs::rename(p.at("two-away"), p.at("two")).unwrap();
    let said = p.run(&renew);
    assert!(said.contains("is current"), "{said}");
    fs::rename(p.at("one-away"), p.at("one")).unwrap();
    assert_eq!(kit_row(&p), "number 2, epoch 2");
    let kit: Value = serde_json::from_slice(&fs::read(p.at("kit/kit.json")).unwrap()).unwrap();
    assert!(kit["slots"][0].as_str().unwrap().starts_with("paper-key "), "{}", kit["slots"]);
    wait_until(|| !is_told());
}

#[test]
fn a_note_that_nobody_can_read_says_nothing_of_the_kit() {
    let p = Practice::new("");
    fs::write(p.at("p/kit.note"), "{").unwrap();
    let _serve = p.start("serve");
    wait_until(|| {
        let status = p.ask("serve", &["status"]);
        let alerts = status["alerts"].as_array().unwrap();
        alerts.iter().any(|alert| alert["kind"] == "kit-stale" && alert["subject"].is_null())
    });
    p.run(&["keys", "kit", "--config", &p.at("p/serve.toml"), "--kit", &p.at("kit")]);
    let note: Value = serde_json::from_slice(&fs::read(p.at("p/kit.note")).unwrap()).unwrap();
    assert_eq!(note["keyring"], 1);
}

#[test]
fn a_keyring_that_somebody_else_put_into_a_store_stops_no_rotation_and_is_named() {
    let (p, other) = (Practice::new(""), Practice::new(""));
    rotate(&other, false);
    rotate(&other, false);
    let foreign = newest_keyring(&other.at("one"));
    let planted = PathBuf::from(p.at("one")).join("keyring").join(foreign.file_name().unwrap());
    fs::copy(&foreign, &planted).unwrap();
    rotate(&p, true);
    assert_eq!(kit_number(&p), 2);
    let (config, paper) = (p.at("p/serve.toml"), p.at("kit/paper-key.txt"));
    let listed = p.output(&["keys", "list", "--config", &config]);
    let rows = String::from_utf8(listed.stdout).unwrap();
    assert!(!listed.status.success() && rows.contains("somebody else writes into the store"), "{rows}");
    assert!(rows.contains("keyring at one: number 2, epoch 2"), "{rows}");
    let rehearsed = p.output(&["keys", "rehearse", "--kit", &p.at("kit"), "--paper-key-file", &paper]);
    let rows = String::from_utf8(rehearsed.stdout).unwrap();
    assert!(!rehearsed.status.success() && rows.contains("somebody else writes into the store"), "{rows}");
    assert!(rows.contains("at one: opens keyring 2") && !rows.contains("does not open"), "{rows}");
    // A slot that was taken out opens an older keyring still, which must not become the newest again.
    p.run(&["keys", "add-slot", "paper-key", "--config", &config, "--paper-key-file", &paper, "--out", &p.at("new")]);
    let slots: Value = serde_json::from_slice(&fs::read(p.at("kit/kit.json")).unwrap()).unwrap();
    let first = slots["slots"][0].as_str().unwrap().rsplit(' ').next().unwrap().to_owned();
    p.run(&["keys", "remove-slot", &first, "--config", &config, "--paper-key-file", &p.at("new")]);
    let refused = p.output(&["keys", "rotate", "--config", &config, "--paper-key-file", &paper]);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("does not open this repository's keyring"), "{said}");
    p.run(&["keys", "rotate", "--config", &config, "--paper-key-file", &p.at("new")]);
}

#[test]
fn a_machine_that_was_set_back_to_before_a_rotation_hears_of_what_it_cannot_read() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    let readable = p.ask("serve", &["snapshot"])["id"].as_str().unwrap().to_owned();
    serve.stop();
    assert!(std::process::Command::new("cp").args(["-a", &p.at("p"), &p.at("image")]).status().unwrap().success());
    rotate(&p, true);
    let mut serve = p.start("serve");
    fs::write(p.at("data/sub/later"), "entered after the rotation").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    serve.stop();
    fs::remove_dir_all(p.at("p")).unwrap();
    fs::rename(p.at("image"), p.at("p")).unwrap();
    let _serve = p.start("serve");
    p.ask("serve", &["snapshot"]);
    let mut named = super::set_back(&p);
    named.sort();
    let mut expected = vec!["emr".to_owned(), readable];
    expected.sort();
    assert_eq!(named, expected, "there are newer ones than the one that is named");
}

fn kit_number(p: &Practice) -> u64 {
    let note: Value = serde_json::from_slice(&fs::read(p.at("p/kit.note")).unwrap()).unwrap();
    note["keyring"].as_u64().unwrap()
}
