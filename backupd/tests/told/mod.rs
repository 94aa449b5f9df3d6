//! What must be told and not only be so: kept files that are gone, a second machine, a kit that is out of date, snapshots that lack
//! files, a state folder that somebody removed.

mod doubt;
mod gaps;
mod keyring;
mod spool;
mod stores;
mod unknown;
mod whole;

use crate::practice::{self, Fault, Practice, wait_until};
use serde_json::Value;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;

fn has_alert(status: &Value, kind: &str, subject: &str) -> bool {
    status["alerts"].as_array().unwrap().iter().any(|alert| alert["kind"] == kind && alert["subject"] == subject)
}

fn change(p: &Practice, file: &str, from: &str, to: &str) {
    let text = fs::read_to_string(p.at(file)).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(p.at(file), text.replace(from, to)).unwrap();
}

fn health(p: &Practice, socket: &str) -> Value {
    let mut text = String::new();
    UnixStream::connect(p.at(socket)).unwrap().read_to_string(&mut text).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_kept_file_that_is_gone_is_told_and_travels_on() {
    let p = Practice::new("");
    fs::create_dir(p.at("p/ca")).unwrap();
    fs::write(p.at("p/ca/practice-ca.key"), "the key of the practice's authority").unwrap();
    change(&p, "p/serve.toml", "keep = [\"verifier.toml\"]", "keep = [\"verifier.toml\", \"ca\"]");
    p.open_emr();
    let mut serve = p.start("serve");
    let whole = p.ask("serve", &["snapshot"]);
    assert_eq!((whole["partial"].as_bool(), whole["kept_gone"].as_array().unwrap().len()), (Some(false), 0), "{whole}");
    fs::remove_file(p.at("p/ca/practice-ca.key")).unwrap();
    for _ in 0..2 {
        let done = p.ask("serve", &["snapshot"]);
        assert_eq!((done["state"].as_str(), done["partial"].as_bool()), (Some("full"), Some(false)), "{done}");
        assert_eq!(done["kept_gone"], serde_json::json!([{ "kind": "key", "carried": true }]));
    }
    assert!(has_alert(&p.ask("serve", &["status"]), "kept-missing", "key"));
    assert_eq!(health(&p, "h")["doubts"], serde_json::json!(["kept-missing"]), "no power-off is safe");
    // The practice's own file is named on its own machine, where somebody has to find it, and nowhere else.
    assert!(
        serve.text().contains("ca/practice-ca.key") && !p.ask("serve", &["status"]).to_string().contains("practice-ca")
    );
    // It comes back from the newest snapshot.
    p.run(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("other")]);
    let key = fs::read_to_string(p.at("other/ca/practice-ca.key")).unwrap();
    assert_eq!(key, "the key of the practice's authority");
    // Without any copy the practice could not be brought back from the snapshot alone; the records are backed up all the same.
    fs::remove_file(p.at("p/verifier.toml")).unwrap();
    fs::remove_dir_all(p.at("p/state/kept")).unwrap();
    let durable = p.ask("serve", &["status"])["last_durable"].clone();
    let done = p.ask("serve", &["snapshot"]);
    assert_eq!((done["event"].as_str(), done["partial"].as_bool()), (Some("snapshot-done"), Some(true)), "{done}");
    let status = p.ask("serve", &["status"]);
    assert!(has_alert(&status, "kept-missing", "verifier-settings") && has_alert(&status, "snapshot-partial", "emr"));
    assert_eq!(status["last_durable"], durable, "it does not count");
    // At the next start it is told before any snapshot.
    serve.stop();
    let _serve = p.start("serve");
    wait_until(|| has_alert(&p.ask("serve", &["status"]), "kept-missing", "verifier-settings"));
    fs::write(p.at("p/verifier.toml"), "").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["partial"], false);
    let status = p.ask("serve", &["status"]);
    assert!(!has_alert(&status, "kept-missing", "verifier-settings") && status["last_durable"] != durable, "{status}");
}

#[test]
fn a_kept_file_that_cannot_be_read_travels_on_as_it_was() {
    let p = Practice::new("");
    fs::create_dir(p.at("p/ca")).unwrap();
    fs::write(p.at("p/ca/practice-ca.key"), "the key of the practice's authority").unwrap();
    // As tools that renew certificates lay them out.
    fs::write(p.at("p/newest.pem"), "the certificate").unwrap();
    std::os::unix::fs::symlink("../newest.pem", p.at("p/ca/server.pem")).unwrap();
    change(&p, "p/serve.toml", "keep = [\"verifier.toml\"]", "keep = [\"verifier.toml\", \"ca\"]");
    p.open_emr();
    let _serve = p.start("serve");
    // What a tool is just writing is no kept file.
    fs::write(p.at("p/ca/server.pem.new"), "half a certif").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["kept_gone"], serde_json::json!([]));
    fs::remove_file(p.at("p/ca/server.pem.new")).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["kept_gone"], serde_json::json!([]));
    // It opens, and reading it fails as that of a bad sector does.
    fs::remove_file(p.at("p/ca/practice-ca.key")).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", p.at("p/ca/practice-ca.key")).unwrap();
    for _ in 0..2 {
        let done = p.ask("serve", &["snapshot"]);
        assert_eq!((done["state"].as_str(), done["partial"].as_bool()), (Some("full"), Some(false)), "{done}");
        assert_eq!(done["kept_gone"], serde_json::json!([{ "kind": "key", "carried": true }]));
    }
    assert!(has_alert(&p.ask("serve", &["status"]), "kept-missing", "key"));
    // A file where the folder was: the records are backed up all the same, and what was in it travels on.
    fs::rename(p.at("p/ca"), p.at("p/ca-away")).unwrap();
    fs::write(p.at("p/ca"), "something else").unwrap();
    let done = p.ask("serve", &["snapshot"]);
    assert_eq!((done["event"].as_str(), done["partial"].as_bool()), (Some("snapshot-done"), Some(false)), "{done}");
    assert_eq!(done["kept_gone"].as_array().unwrap().len(), 2, "{done}");
    p.run(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("other")]);
    assert_eq!(fs::read_to_string(p.at("other/ca/practice-ca.key")).unwrap(), "the key of the practice's authority");
    assert_eq!(fs::read_to_string(p.at("other/ca/server.pem")).unwrap(), "the certificate");
}

/// Asks a daemon of the second machine.
fn ask_other(p: &Practice, args: &[&str]) -> Value {
    let endpoint = format!("unix:{}", p.at("s2"));
    let output = p.output(&[args, &["--serve", &endpoint, "--json"]].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    serde_json::from_str(text.lines().last().unwrap()).unwrap()
}

fn start_other(p: &Practice) -> practice::Daemon {
    let log = p.dir.path().join("other.log");
    let child = std::process::Command::new(practice::BACKUPD)
        .args(["serve", "--config", &p.at("q/serve.toml")])
        .env_remove("JOURNAL_STREAM")
        .stdin(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let daemon = practice::Daemon { child, log };
    wait_until(|| daemon.text().contains("ready"));
    daemon
}

#[test]
fn the_old_machine_that_wakes_after_a_recovery_is_told_and_counts_for_nothing() {
    let p = Practice::new("");
    p.open_emr();
    let mut old = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    old.stop();
    // The new machine: the same settings and keys, no state, sockets of its own.
    fs::create_dir(p.at("q")).unwrap();
    for file in ["serve.toml", "verifier.toml", "writer.cred", "report.pub", "kit.note"] {
        fs::copy(p.at("p").to_owned() + "/" + file, p.at("q").to_owned() + "/" + file).unwrap();
    }
    for socket in ["s", "h"] {
        change(&p, "q/serve.toml", &format!("{}\"", p.at(socket)), &format!("{}2\"", p.at(socket)));
    }
    let _new = start_other(&p);
    let first = ask_other(&p, &["snapshot"]);
    assert_eq!(first["state"], "full", "{first}");
    let status = ask_other(&p, &["status"]);
    assert!(!has_alert(&status, "second-writer", "emr"), "a recovery is no second machine: {status}");
    assert_eq!(status["last_durable"], first["id"]);
    assert!(!status.to_string().contains("source-set-back"), "{status}");
    // Both go on for a while, each on the same state, and nobody is alarmed by a restart.
    let _old = p.start("serve");
    fs::write(p.at("data/sub/later"), "entered on the old machine").unwrap();
    let intruder = p.ask("serve", &["snapshot"]);
    assert_eq!(intruder["event"], "snapshot-done", "{intruder}");
    let own = ask_other(&p, &["snapshot"]);
    let status = ask_other(&p, &["status"]);
    assert!(has_alert(&status, "second-writer", "emr"), "{status}");
    assert_eq!(status["last_durable"], own["id"]);
    let rows = ask_other(&p, &["snapshots"]);
    let foreign: Vec<&Value> =
        rows["snapshots"].as_array().unwrap().iter().filter(|r| r["other_machine"] == true).collect();
    assert_eq!(foreign.len(), 1, "{rows}");
    assert_eq!(foreign[0]["id"], intruder["id"]);
    assert!(health(&p, "h2")["doubts"].as_array().unwrap().iter().any(|doubt| doubt == "second-writer"));
    // The old machine sees that it is not alone either; its own age does not profit from the other's.
    p.ask("serve", &["snapshot"]);
    let status = p.ask("serve", &["status"]);
    assert!(has_alert(&status, "second-writer", "emr"), "{status}");
    // The newest of all is the old machine's: whoever recovers hears of the other's.
    let told = recover(&p, "recovered", &[]);
    assert_eq!(told["beside"].as_array().unwrap().len(), 1, "{told}");
    assert_eq!(told["beside"][0]["id"], own["id"], "{told}");
}

#[test]
fn a_lost_state_or_another_source_is_no_second_machine() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    for _ in 0..2 {
        assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    }
    serve.stop();
    fs::remove_dir_all(p.at("p/state")).unwrap();
    let _serve = p.start("serve");
    for _ in 0..2 {
        assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
        assert!(!has_alert(&p.ask("serve", &["status"]), "second-writer", "emr"));
    }
    assert_eq!(set_back(&p), Vec::<String>::new(), "a lost state is no earlier one");
    let told = recover(&p, "other", &[]);
    assert_eq!((&told["beside"], &told["unread"]), (&serde_json::json!([]), &serde_json::json!([])), "{told}");
    let rows = p.ask("serve", &["snapshots"]);
    let incarnations: std::collections::BTreeSet<&str> =
        rows["snapshots"].as_array().unwrap().iter().map(|row| row["incarnation"].as_str().unwrap()).collect();
    assert_eq!(incarnations.len(), 2, "{rows}");
}

/// What the open alerts `source-set-back` name.
fn set_back(p: &Practice) -> Vec<String> {
    let status = p.ask("serve", &["status"]);
    let alerts = status["alerts"].as_array().unwrap().iter();
    let named = alerts.filter(|alert| alert["kind"] == "source-set-back");
    named.map(|alert| alert["subject"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_machine_that_was_set_back_is_told_until_somebody_has_looked() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    serve.stop();
    let image = std::process::Command::new("cp").args(["-a", &p.at("p/state"), &p.at("image")]).status().unwrap();
    assert!(image.success());
    let mut serve = p.start("serve");
    fs::write(p.at("data/sub/later"), "entered after the image was made").unwrap();
    p.ask("serve", &["snapshot"]);
    let newest = p.ask("serve", &["snapshot"])["id"].as_str().unwrap().to_owned();
    assert_eq!(set_back(&p), Vec::<String>::new());
    serve.stop();
    // The image comes back, and the stores stay as they are.
    fs::remove_file(p.at("data/sub/later")).unwrap();
    fs::remove_dir_all(p.at("p/state")).unwrap();
    fs::rename(p.at("image"), p.at("p/state")).unwrap();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(set_back(&p), [newest.as_str()]);
    assert_eq!(health(&p, "h")["doubts"], serde_json::json!(["source-set-back"]), "no power-off is safe");
    let told = p.run(&["status", "--serve", &format!("unix:{}", p.at("s"))]);
    assert!(told.contains(&format!("`backupd looked-into {newest}`")), "{told}");
    // Neither later snapshots nor a restart close it, and nothing but its own name does.
    p.ask("serve", &["snapshot"]);
    serve.stop();
    let mut serve = p.start("serve");
    assert_eq!(set_back(&p), [newest.as_str()]);
    assert_eq!(p.ask("serve", &["looked-into", "emr"])["kind"], "not-found");
    assert_eq!(set_back(&p), [newest.as_str()]);
    // It outlives the state, because the snapshots say it too, and the machine: whoever recovers is told.
    serve.stop();
    fs::remove_dir_all(p.at("p/state")).unwrap();
    let mut serve = p.start("serve");
    p.ask("serve", &["snapshot"]);
    assert_eq!(set_back(&p), [newest.as_str()]);
    let told = recover(&p, "newest", &[]);
    assert_eq!(told["set_back"][0]["lacks"], serde_json::json!([newest]), "{told}");
    // What is missing here comes back from the named one.
    let told = recover(&p, "other", &["--snapshot", &newest]);
    assert_eq!(told["set_back"], serde_json::json!([]), "{told}");
    assert!(std::path::Path::new(&p.at("other/emr/attachments/sub/later")).exists());
    assert_eq!(p.ask("serve", &["looked-into", &newest])["event"], "alert-closed");
    assert_eq!(set_back(&p), Vec::<String>::new());
    serve.stop();
    let _serve = p.start("serve");
    p.ask("serve", &["snapshot"]);
    assert_eq!(set_back(&p), Vec::<String>::new());
    assert_eq!(health(&p, "h")["doubts"], serde_json::json!([]));
}

#[test]
fn records_that_were_set_back_are_told_once_for_each_snapshot_that_holds_more() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    let snapshot = || p.ask("serve", &["snapshot"]);
    let id = |done: &Value| done["id"].as_str().unwrap().to_owned();
    // The first is asked nothing, and an EMR that does not know the question says nothing.
    p.set(Fault::SetBack);
    assert_eq!(snapshot()["state"], "full");
    p.set(Fault::None);
    let newest = id(&snapshot());
    assert_eq!(set_back(&p), Vec::<String>::new());
    serve.stop();
    let mut serve = p.start("serve");
    // It is noted before anything is sent, and not again when that failed, whatever somebody said meanwhile.
    p.set(Fault::SetBack);
    let move_stores = |from: &str, to: &str| {
        ["one", "two"].iter().for_each(|store| fs::rename(p.at(store) + from, p.at(store) + to).unwrap());
    };
    move_stores("", "-away");
    assert_eq!(snapshot()["event"], "failed");
    assert_eq!(set_back(&p), [newest.as_str()]);
    snapshot();
    assert_eq!(set_back(&p), [newest.as_str()]);
    assert_eq!(p.ask("serve", &["looked-into", &newest])["event"], "alert-closed");
    serve.stop();
    let mut serve = p.start("serve");
    assert_eq!(snapshot()["event"], "failed");
    assert_eq!(set_back(&p), Vec::<String>::new());
    // A try leaves folders where a store was.
    ["one", "two"].iter().for_each(|store| fs::remove_dir_all(p.at(store)).unwrap_or_default());
    move_stores("-away", "");
    let own = snapshot();
    assert_eq!(own["state"], "full", "{own}");
    assert_eq!(set_back(&p), Vec::<String>::new());
    // Once more, and it is another snapshot that holds more.
    assert_eq!(snapshot()["state"], "full");
    assert_eq!(set_back(&p), [id(&own)]);
    assert_eq!(health(&p, "h")["doubts"], serde_json::json!(["source-set-back"]), "no power-off is safe");
    // Without memory nothing is asked; what is open stands in the snapshots.
    serve.stop();
    fs::remove_dir_all(p.at("p/state")).unwrap();
    let _serve = p.start("serve");
    assert_eq!(snapshot()["state"], "full");
    assert_eq!(set_back(&p), [id(&own)]);
}

#[test]
fn a_daemon_that_is_killed_in_a_snapshot_was_not_set_back() {
    let p = Practice::new("");
    p.open_emr();
    let count = |folder: &str| fs::read_dir(p.at(folder)).map_or(0, Iterator::count);
    for folder in ["p", "one/packs", "one/snapshots", "one/heads", "two/heads"] {
        let before = count(folder);
        let serve = p.start("serve");
        let mut asked = std::process::Command::new(practice::BACKUPD)
            .args(["snapshot", "--json", "--serve", &format!("unix:{}", p.at("s"))])
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        wait_until(|| folder == "p" || count(folder) > before || asked.try_wait().unwrap().is_some());
        drop(serve);
        asked.wait().unwrap();
    }
    let _serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(set_back(&p), Vec::<String>::new());
}

#[test]
fn a_kit_that_no_longer_opens_a_store_is_told_until_it_is_made_current() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    wait_until(|| p.ask("serve", &["status"])["stores"][0]["condition"] == "ok");
    assert!(!has_alert(&p.ask("serve", &["status"]), "kit-stale", "two"));
    serve.stop();
    fs::rename(p.at("two"), p.at("moved")).unwrap();
    let [before, after] = ["two", "moved"].map(|name| format!("path = \"{}\"", p.at(name)));
    change(&p, "p/serve.toml", &before, &after);
    change(&p, "p/verifier.toml", &before, &after);
    let _serve = p.start("serve");
    wait_until(|| has_alert(&p.ask("serve", &["status"]), "kit-stale", "two"));
    assert!(!has_alert(&p.ask("serve", &["status"]), "kit-stale", "one"));
    let note = fs::read_to_string(p.at("p/kit.note")).unwrap();
    assert!(!note.contains("moved") && !note.contains(&p.at("one")), "{note}");
    let said = p.run(&["keys", "kit", "--config", &p.at("p/serve.toml"), "--kit", &p.at("kit")]);
    assert!(said.contains("it opens one, two"), "{said}");
    wait_until(|| !has_alert(&p.ask("serve", &["status"]), "kit-stale", "two"));
    // And it does.
    p.ask("serve", &["snapshot"]);
    p.run(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("other")]);
}

/// Recovers from store `two`, and what the command says of it.
fn recover(p: &Practice, into: &str, more: &[&str]) -> Value {
    let (kit, into) = (p.at("kit"), p.at(into));
    let done = p.output(&[&["recover", "--json", "--kit", &kit, "--store", "two", "--into", &into][..], more].concat());
    let said = String::from_utf8(done.stdout).unwrap();
    let told: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    let is_empty = |lack: &&str| told[*lack] == serde_json::json!([]);
    let lacks = ["partial", "kept_absent", "damaged_originals", "set_back", "skipped", "unread", "beside"];
    let expected = if lacks.iter().all(is_empty) { 0 } else { 3 };
    assert_eq!(done.status.code(), Some(expected), "a script goes by the exit code: {told}");
    told
}

#[test]
fn a_kept_file_that_no_snapshot_has_is_named_after_a_recovery() {
    let p = Practice::new("");
    change(&p, "p/serve.toml", "keep = [\"verifier.toml\"]", "keep = [\"verifier.toml\", \"never-there.toml\"]");
    p.open_emr();
    let mut serve = p.start("serve");
    p.ask("serve", &["snapshot"]);
    let newest = p.ask("serve", &["snapshot"]);
    assert_eq!(newest["partial"], true, "{newest}");
    serve.stop();
    fs::remove_dir_all(p.at("p")).unwrap();
    let recovered = p.output(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("p")]);
    let said = String::from_utf8(recovered.stdout).unwrap();
    assert_eq!(recovered.status.code(), Some(3), "{said}");
    assert!(said.contains("Make them anew") && said.contains(&p.at("p/never-there.toml")), "{said}");
    assert!(!said.contains("LACKS records"), "{said}");
    assert_eq!(fs::read(p.at("p/emr/attachments/Jane-Doe-1970.txt")).unwrap(), b"record of Jane");
    let told = recover(&p, "again", &[]);
    assert_eq!(told["kept_absent"], serde_json::json!([p.at("again/never-there.toml")]), "{told}");
    assert_eq!((&told["snapshots"], &told["partial"]), (&serde_json::json!([newest["id"]]), &serde_json::json!([])));
}

#[test]
fn the_newest_records_come_back_and_the_key_that_their_snapshot_lacks_from_an_older_one() {
    let p = Practice::new("");
    fs::create_dir(p.at("p/ca")).unwrap();
    fs::write(p.at("p/ca/practice-ca.key"), "the key of the practice's authority").unwrap();
    change(&p, "p/serve.toml", "keep = [\"verifier.toml\"]", "keep = [\"verifier.toml\", \"ca\"]");
    p.open_emr();
    let mut serve = p.start("serve");
    let whole = p.ask("serve", &["snapshot"]);
    // Gone, and no copy of it either.
    fs::remove_dir_all(p.at("p/ca")).unwrap();
    fs::remove_dir_all(p.at("p/state/kept")).unwrap();
    fs::write(p.at("data/letter"), "entered since").unwrap();
    let newest = p.ask("serve", &["snapshot"]);
    assert_eq!((&whole["partial"], &newest["partial"]), (&false.into(), &true.into()), "{newest}");
    serve.stop();
    let told = recover(&p, "other", &[]);
    assert_eq!(told["snapshots"], serde_json::json!([newest["id"]]), "{told}");
    let filled = &told["filled"][0];
    assert_eq!((&filled["id"], &filled["from"]["id"]), (&newest["id"], &whole["id"]), "{told}");
    assert_eq!(filled["files"], serde_json::json!(["ca/practice-ca.key"]), "{told}");
    assert_eq!((&told["skipped"], &told["kept_absent"]), (&serde_json::json!([]), &serde_json::json!([])), "{told}");
    assert_eq!(fs::read_to_string(p.at("other/emr/attachments/letter")).unwrap(), "entered since");
    let key = fs::read_to_string(p.at("other/ca/practice-ca.key")).unwrap();
    assert_eq!(key, "the key of the practice's authority");
    // The older one is what comes back when it is asked for.
    let id = whole["id"].as_str().unwrap();
    let told = recover(&p, "asked", &["--snapshot", &id[..12]]);
    assert_eq!((&told["snapshots"], &told["filled"]), (&serde_json::json!([id]), &serde_json::json!([])), "{told}");
    assert!(!std::path::Path::new(&p.at("asked/emr/attachments/letter")).exists());
}

#[test]
fn a_key_comes_back_from_an_older_snapshot_that_lacks_something_else() {
    let p = Practice::new("");
    fs::create_dir(p.at("p/ca")).unwrap();
    fs::write(p.at("p/ca/practice-ca.key"), "the key").unwrap();
    let keep = "keep = [\"verifier.toml\", \"ca\", \"never-there.toml\"]";
    change(&p, "p/serve.toml", "keep = [\"verifier.toml\"]", keep);
    p.open_emr();
    let mut serve = p.start("serve");
    let older = p.ask("serve", &["snapshot"]);
    fs::remove_dir_all(p.at("p/ca")).unwrap();
    fs::remove_dir_all(p.at("p/state/kept")).unwrap();
    let newest = [p.ask("serve", &["snapshot"]), p.ask("serve", &["snapshot"])];
    serve.stop();
    let told = recover(&p, "other", &[]);
    assert_eq!((&told["snapshots"][0], &told["filled"][0]["from"]["id"]), (&newest[1]["id"], &older["id"]), "{told}");
    assert_eq!(told["kept_absent"], serde_json::json!([p.at("other/never-there.toml")]), "{told}");
    assert_eq!(fs::read_to_string(p.at("other/ca/practice-ca.key")).unwrap(), "the key");
}

#[test]
fn a_key_that_was_lost_together_with_the_state_comes_back_from_before() {
    let p = Practice::new("");
    fs::create_dir(p.at("p/ca")).unwrap();
    for file in ["practice-ca.key", "practice-ca.pem"] {
        fs::write(p.at("p/ca/") + file, file).unwrap();
    }
    change(&p, "p/serve.toml", "keep = [\"verifier.toml\"]", "keep = [\"verifier.toml\", \"ca\"]");
    p.open_emr();
    let mut serve = p.start("serve");
    p.ask("serve", &["snapshot"]);
    let before = p.ask("serve", &["snapshot"]);
    serve.stop();
    fs::remove_file(p.at("p/ca/practice-ca.key")).unwrap();
    fs::remove_dir_all(p.at("p/state")).unwrap();
    let mut serve = p.start("serve");
    let newest = p.ask("serve", &["snapshot"]);
    assert_eq!(newest["partial"], false, "nobody knows of it any more");
    serve.stop();
    let told = recover(&p, "other", &[]);
    assert_eq!((&told["snapshots"][0], &told["filled"][0]["from"]["id"]), (&newest["id"], &before["id"]), "{told}");
    assert_eq!(told["filled"][0]["files"], serde_json::json!(["ca/practice-ca.key"]), "{told}");
    assert_eq!(fs::read_to_string(p.at("other/ca/practice-ca.key")).unwrap(), "practice-ca.key");
}

#[test]
fn a_state_folder_that_is_removed_under_running_daemons_costs_no_drill() {
    let p = Practice::new("");
    p.open_emr();
    let (_serve, verifier) = (p.start("serve"), p.start("verifier"));
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    let drill = p.ask("verifier", &["drill", "--store", "one"]);
    assert_eq!(drill["event"], "drill-done", "{drill}");
    fs::remove_dir_all(p.at("p/state")).unwrap();
    fs::remove_dir_all(p.at("p/verifier-state")).unwrap();
    let drill = p.ask("verifier", &["drill", "--store", "two"]);
    assert_eq!(drill["event"], "drill-done", "{drill} {}", verifier.text());
    let reports = p.ask("verifier", &["report"]);
    assert_eq!(reports["reports"].as_array().unwrap().len(), 2, "{reports}");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
}
