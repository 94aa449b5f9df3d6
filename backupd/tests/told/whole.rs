//! What is not whole, and is not taken for whole; and what is whole and can be had all the same.

use crate::practice::{Fault, Practice};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

#[test]
fn a_source_that_moved_on_while_it_was_read_leaves_a_partial_snapshot_and_is_never_taken_for_whole() {
    let p = Practice::new("");
    p.open_emr();
    let _serve = p.start("serve");
    let _verifier = p.start("verifier");
    let whole = p.ask("serve", &["snapshot"]);
    p.set(Fault::Gone);
    let moved = p.ask("serve", &["snapshot"]);
    assert_eq!((&whole["partial"], &moved["partial"]), (&json!(false), &json!(true)), "{moved}");
    for daemon in ["serve", "verifier"] {
        let told = p.ask(daemon, &["snapshots"]);
        let partial = |done: &Value| {
            let row = told["snapshots"].as_array().unwrap().iter().find(|row| row["id"] == done["id"]).unwrap();
            row["partial"].clone()
        };
        assert_eq!((partial(&whole), partial(&moved)), (json!(false), json!(true)), "{daemon}: {told}");
    }
    let back = p.output(&["restore", "--into", &p.at("back"), "--verifier", &format!("unix:{}", p.at("v")), "--json"]);
    assert!(back.status.success(), "the newest whole one: {back:?}");
    let moved = moved["id"].as_str().unwrap();
    let verifier = format!("unix:{}", p.at("v"));
    let back = p.output(&["restore", "--snapshot", moved, "--into", &p.at("again"), "--verifier", &verifier]);
    assert!(back.status.code() == Some(3) && String::from_utf8_lossy(&back.stdout).contains("PARTIAL"), "{back:?}");
    let unread = p.ask("verifier", &["ls", "--unreadable", "--snapshot", moved]);
    assert!(
        unread["count"] == 1 && unread["files"][0].to_string().contains("changed"),
        "what may lack is named: {unread}"
    );
    let back = p.output(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("new"), "--json"]);
    let told = String::from_utf8(back.stdout).unwrap();
    let whole = whole["id"].as_str().unwrap();
    assert!(back.status.code() == Some(3) && told.contains(whole), "the whole one before it comes back: {told}");
}

/// Refuses everything, as a store does whose key was revoked.
fn refusing() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let body = "<Error><Code>AccessDenied</Code></Error>";
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    address
}

#[test]
fn a_store_that_refuses_or_is_damaged_keeps_nobody_from_what_the_others_hold() {
    let p = Practice::new("");
    p.open_emr();
    let _serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    for key in ["access", "secret"] {
        fs::write(p.at(&format!("p/{key}")), key).unwrap();
        fs::set_permissions(p.at(&format!("p/{key}")), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let third = format!(
        "[[store]]\nname = \"three\"\nkind = \"s3\"\nendpoint = \"{}\"\nbucket = \"b\"\nregion = \"r\"\n\
         access_key_file = \"access\"\nsecret_key_file = \"secret\"\nsite = \"t\"\nprovider = \"p\"\n",
        refusing()
    );
    let settings = fs::read_to_string(p.at("p/verifier.toml")).unwrap();
    fs::write(p.at("p/verifier.toml"), settings + &third).unwrap();
    let verifier = p.start("verifier");
    let verified = p.ask("verifier", &["verify", "--read-data"]);
    let said: Vec<&str> =
        verified["stores"].as_array().unwrap().iter().map(|row| row["condition"].as_str().unwrap()).collect();
    assert_eq!(said, ["ok", "ok", "unreachable"], "{verified} {}", verifier.text());
    assert!(verified["stores"][2]["reason"].as_str().unwrap().contains("refused"), "{verified}");
    for pack in walk(Path::new(&p.at("one/packs"))) {
        fs::write(pack, b"rotten").unwrap();
    }
    assert_eq!(p.ask("verifier", &["ls"])["entries"].as_array().map(Vec::is_empty), Some(false));
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
