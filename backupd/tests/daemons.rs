//! The daemons as processes, with folder stores and an EMR that misbehaves on demand.

mod practice;
mod told;

use practice::{Fault, Practice, wait_until, walk};
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;

#[test]
fn a_lost_machine_comes_back_from_one_store_and_the_history_goes_on() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    let done = p.ask("serve", &["snapshot", "--tag", "before"]);
    assert_eq!((done["event"].as_str(), done["state"].as_str()), (Some("snapshot-done"), Some("full")));
    assert_eq!(serve.stop(), Some(0), "{}", serve.text());
    assert!(!fs::exists(p.at("s")).unwrap() && !fs::exists(p.at("h")).unwrap(), "sockets stay after the end");
    fs::remove_dir_all(p.at("p")).unwrap();
    fs::remove_dir_all(p.at("one")).unwrap();
    p.run(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("p")]);
    assert_eq!(fs::read(p.at("p/emr/attachments/Jane-Doe-1970.txt")).unwrap(), b"record of Jane");
    fs::create_dir(p.at("one")).unwrap();
    // Nobody asks: the next snapshot comes by its schedule, within a minute, and continues the history.
    let settings = fs::read_to_string(p.at("p/serve.toml")).unwrap();
    assert!(settings.contains("0 0 1 1 *"), "{settings}");
    fs::write(p.at("p/serve.toml"), settings.replace("0 0 1 1 *", "* * * * *")).unwrap();
    let _serve = p.start("serve");
    let rows = || p.ask("serve", &["snapshots"])["snapshots"].as_array().unwrap().clone();
    wait_until(|| rows().len() >= 2);
    let rows = rows();
    let (newest, oldest) = (&rows[0], &rows[rows.len() - 1]);
    assert_eq!((newest["state"].as_str(), oldest["tag"].as_str()), (Some("full"), None), "{rows:?}");
    assert!(newest["taken_unix_ms"].as_i64() > oldest["taken_unix_ms"].as_i64(), "{rows:?}");
    let refused = p.output(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("p")]);
    assert_eq!(refused.status.code(), Some(2), "it recovered over a practice");
}

#[test]
fn recover_goes_back_to_what_is_whole_and_goes_on_after_an_interruption() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    let packs = || -> std::collections::BTreeSet<String> {
        let folders = fs::read_dir(p.at("two/packs")).unwrap().map(|folder| folder.unwrap().path());
        let files = folders.flat_map(|folder| fs::read_dir(folder).unwrap());
        files.map(|file| file.unwrap().path().display().to_string()).collect()
    };
    let before = packs();
    fs::write(p.at("data/sub/later"), b"written after the first snapshot").unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(serve.stop(), Some(0), "{}", serve.text());
    let new: Vec<String> = packs().difference(&before).cloned().collect();
    assert!(!new.is_empty());
    for pack in new {
        fs::write(pack, b"rotten").unwrap();
    }
    fs::remove_dir_all(p.at("p")).unwrap();
    fs::remove_dir_all(p.at("one")).unwrap();
    // An attempt that was killed left this.
    fs::create_dir_all(p.at("p/.recovering/emr/half")).unwrap();
    let recovered = p.output(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("p")]);
    let said = String::from_utf8_lossy(&recovered.stderr).into_owned();
    assert!(recovered.status.code() == Some(3) && said.contains("going back to the one before"), "{said}");
    assert_eq!(fs::read(p.at("p/emr/attachments/Jane-Doe-1970.txt")).unwrap(), b"record of Jane");
    assert!(!fs::exists(p.at("p/emr/attachments/sub/later")).unwrap() && !fs::exists(p.at("p/.recovering")).unwrap());
}

#[test]
fn a_recovery_that_was_cut_off_at_its_very_end_is_finished_by_the_same_command() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(serve.stop(), Some(0), "{}", serve.text());
    fs::remove_dir_all(p.at("p")).unwrap();
    let recover = |store: &str| {
        let out = p.output(&["recover", "--kit", &p.at("kit"), "--store", store, "--into", &p.at("p")]);
        (out.status.code(), String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned())
    };
    let (code, first) = recover("two");
    assert!(code == Some(0) && first.contains("is back in"), "{first}");
    // Killed before it had said anything, or while it removed what it had worked with.
    for left in ["p/.recovering", "p/.recovering/emr/attachments"] {
        fs::create_dir_all(p.at(left)).unwrap();
        let (code, again) = recover("two");
        assert!(code == Some(0) && again.contains("had ended already"), "{again}");
        assert!(first.lines().all(|line| again.contains(line)), "{again}");
        assert!(!fs::exists(p.at("p/.recovering")).unwrap());
        assert_eq!(fs::read(p.at("p/emr/attachments/Jane-Doe-1970.txt")).unwrap(), b"record of Jane");
    }
    let (code, other) = recover("one");
    assert!(code == Some(2) && other.contains("recovered from store two"), "{other}");
    // Once a daemon has run on it, what came back is not its state any more.
    assert_eq!(p.start("serve").stop(), Some(0));
    let (code, in_service) = recover("two");
    assert!(
        code == Some(2) && in_service.contains("started since") && in_service.contains("backupd serve"),
        "{in_service}"
    );
}

#[test]
fn recover_puts_nothing_over_or_beside_what_somebody_else_left() {
    let p = Practice::new("");
    // As on a machine with a disk of its own for the records.
    let file = p.at("p/serve.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("data_dir = \"emr\"", &format!("data_dir = \"{}\"", p.at("elsewhere")))).unwrap();
    p.open_emr();
    p.set(Fault::Damaged);
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(serve.stop(), Some(0), "{}", serve.text());
    fs::remove_dir_all(p.at("p")).unwrap();
    // An EMR that was started on the empty disk.
    fs::create_dir_all(p.at("elsewhere/attachments")).unwrap();
    fs::write(p.at("elsewhere/attachments/other"), "not ours").unwrap();
    let recover = || {
        let out = p.output(&["recover", "--kit", &p.at("kit"), "--store", "two", "--into", &p.at("p")]);
        let said = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    for _ in 0..2 {
        let (code, said) = recover();
        assert!(code == Some(2) && said.contains("move it away"), "{said}");
        assert_eq!(fs::read_dir(p.at("elsewhere")).unwrap().count(), 1, "something was put beside it");
        assert_eq!(fs::read_to_string(p.at("elsewhere/attachments/other")).unwrap(), "not ours");
    }
    fs::rename(p.at("elsewhere"), p.at("moved")).unwrap();
    let (code, said) = recover();
    assert!(code == Some(3) && said.contains("damaged when this snapshot was taken"), "{said}");
    assert_eq!(fs::read(p.at("elsewhere/attachments/Jane-Doe-1970.txt")).unwrap(), b"record of Jane");
    assert!(!fs::exists(p.at("p/.recovering")).unwrap());
}

#[test]
fn an_emr_that_misbehaves_costs_one_snapshot_and_nothing_else() {
    let p = Practice::new("");
    let serve = p.start("serve");
    let absent = p.ask("serve", &["snapshot"]);
    assert_eq!((absent["event"].as_str(), absent["kind"].as_str()), (Some("failed"), Some("retry")), "{absent}");
    p.open_emr();
    p.set(Fault::Lost);
    assert_eq!(p.ask("serve", &["snapshot"])["event"], "failed");
    let status = p.ask("serve", &["status"]);
    let alerts = status["alerts"].as_array().unwrap();
    assert!(alerts.iter().any(|a| a["kind"] == "source-unreachable" && a["subject"] == "emr"), "{status}");
    let raised = |kind: &str| {
        let status = p.ask("serve", &["status"]);
        status["alerts"].as_array().unwrap().iter().any(|alert| alert["kind"] == kind)
    };
    p.set(Fault::Damaged);
    assert_eq!(p.ask("serve", &["snapshot"])["event"], "snapshot-done", "what is left is kept");
    assert!(raised("source-damaged") && !raised("source-unreachable"));
    p.set(Fault::None);
    assert_eq!(p.ask("serve", &["snapshot"])["event"], "snapshot-done");
    assert!(!raised("source-damaged"));
    let log = serve.text();
    assert!(!log.contains("Jane") && !log.contains("scan"), "a record's name is in the log: {log}");
}

#[test]
fn a_store_that_loses_what_is_overwritten_is_shown_as_unprotected_and_raises_an_alert() {
    let p = Practice::new("");
    p.open_emr();
    let _serve = p.start("serve");
    wait_until(|| {
        let status = p.ask("serve", &["status"]);
        let unprotected = |a: &serde_json::Value| a["kind"] == "store-unprotected" && a["subject"] == "two";
        status["alerts"].as_array().unwrap().iter().any(unprotected)
    });
    let stores = p.ask("serve", &["stores"]);
    assert!(stores["stores"].as_array().unwrap().iter().all(|s| s["protection"] == "unprotected"), "{stores}");
    assert!(!fs::exists(p.at("two/probe/sacrifice")).unwrap(), "the trial leaves nothing behind");
    let mut health = String::new();
    UnixStream::connect(p.at("h")).unwrap().read_to_string(&mut health).unwrap();
    assert!(health.contains("\"protected\":false"), "{health}");
}

#[test]
fn a_stuck_emr_does_not_keep_the_daemon_from_answering_or_ending() {
    let p = Practice::new("");
    p.open_emr();
    p.set(Fault::Stuck);
    let mut serve = p.start("serve");
    let endpoint = format!("unix:{}", p.at("s"));
    let mut waiting =
        std::process::Command::new(practice::BACKUPD).args(["snapshot", "--serve", &endpoint]).spawn().unwrap();
    wait_until(|| p.ask("serve", &["status"])["running"]["what"] == "snapshot");
    assert_eq!(p.ask("serve", &["stores"])["event"], "stores");
    assert_eq!(serve.stop(), Some(0), "{}", serve.text());
    assert!(!waiting.wait().unwrap().success());
}

#[test]
fn a_lost_socket_is_not_renewed_in_a_folder_that_everybody_may_write() {
    use std::os::unix::fs::PermissionsExt;
    let p = Practice::new("");
    p.open_emr();
    let serve = p.start("serve");
    let lost = || serve.text().matches("socket.lost").count();
    fs::set_permissions(p.dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    for socket in ["s", "h"] {
        fs::remove_file(p.at(socket)).unwrap();
    }
    wait_until(|| lost() == 2);
    assert!(serve.text().contains("everybody may write in it"), "{}", serve.text());
    assert!(!fs::exists(p.at("s")).unwrap() && !fs::exists(p.at("h")).unwrap());
    fs::set_permissions(p.dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
    wait_until(|| fs::exists(p.at("s")).unwrap() && fs::exists(p.at("h")).unwrap());
    assert_eq!(p.ask("serve", &["status"])["event"], "status");
    assert_eq!(lost(), 2, "{}", serve.text());
    // Nor does one start there.
    drop(serve);
    fs::set_permissions(p.dir.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let refused = p.output(&["serve", "--config", &p.at("p/serve.toml")]);
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("everybody may write in it"));
}

#[test]
fn a_second_daemon_and_a_full_disk_are_refused_with_a_remedy() {
    let p = Practice::new("disk_reserve_bytes = 1_000_000_000_000_000");
    p.open_emr();
    let _serve = p.start("serve");
    let second = p.output(&["serve", "--config", &p.at("p/serve.toml")]);
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("state_dir"));
    let full = p.ask("serve", &["snapshot"]);
    assert_eq!(full["kind"], "no-space", "{full}");
    assert!(full["message"].as_str().unwrap().contains("disk_reserve_bytes"), "{full}");
    let mut health = String::new();
    UnixStream::connect(p.at("h")).unwrap().read_to_string(&mut health).unwrap();
    assert!(health.contains("\"paused\":\"disk-almost-full\""), "{health}");
}

#[test]
fn a_store_that_is_away_is_unreachable_and_then_late_and_then_whole() {
    let p = Practice::new("");
    p.open_emr();
    let _serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    fs::rename(p.at("two"), p.at("away")).unwrap();
    let done = p.ask("serve", &["snapshot"]);
    assert_eq!(done["state"], "durable", "{done}");
    let condition = |p: &Practice| p.ask("serve", &["stores"])["stores"][1]["condition"].clone();
    assert_eq!(condition(&p), "unreachable");
    fs::rename(p.at("away"), p.at("two")).unwrap();
    // The next snapshot brings the store up to date.
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert_eq!(condition(&p), "ok");
    let stores = p.ask("serve", &["snapshots"])["snapshots"].clone();
    assert!(stores.as_array().unwrap().iter().all(|s| s["stores"].as_array().unwrap().len() == 2), "{stores}");
}

#[test]
fn what_could_not_be_run_is_inconclusive_and_damage_fails_with_a_report() {
    let p = Practice::new("");
    p.open_emr();
    let _serve = p.start("serve");
    let mut verifier = p.start("verifier");
    assert_eq!(p.ask("verifier", &["drill"])["kind"], "not-found", "there was nothing to drill");
    p.ask("serve", &["snapshot"]);
    // `/bin/false` ends before it answers: nothing was learned about what came back.
    let drill = p.ask("verifier", &["drill", "--store", "one"]);
    assert_eq!(drill["verdict"], "inconclusive", "{drill}");
    fs::rename(p.at("one"), p.at("away")).unwrap();
    let drill = p.ask("verifier", &["drill", "--store", "one"]);
    assert_eq!(drill["verdict"], "inconclusive", "{drill}");
    fs::rename(p.at("away"), p.at("one")).unwrap();
    let object = walk(p.at("two/packs").as_ref()).pop().unwrap();
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&object, bytes).unwrap();
    let drill = p.ask("verifier", &["drill", "--store", "two"]);
    assert_eq!(drill["verdict"], "fail", "{drill}");
    let verify = p.ask("verifier", &["verify", "--store", "two", "--read-data"]);
    let name = object.file_name().unwrap().to_str().unwrap();
    assert_eq!(verify["stores"][0]["condition"], "corrupt");
    assert!(verify["stores"][0]["damaged"][0].as_str().unwrap().ends_with(name), "{verify}");
    assert!(walk(p.at("p/sandbox").as_ref()).is_empty(), "restored records were left behind");
    // The log of reports outlives the verifier's state.
    let before = p.ask("verifier", &["report"]);
    assert_eq!(before["reports"].as_array().unwrap().len(), 3, "{before}");
    verifier.stop();
    fs::remove_dir_all(p.at("p/verifier-state")).unwrap();
    let _verifier = p.start("verifier");
    assert_eq!(p.ask("verifier", &["report"]), before);
}

#[test]
fn a_store_that_lost_everything_is_refilled_and_somebody_is_told() {
    let p = Practice::new("");
    p.open_emr();
    let mut serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    // Moved, not removed one by one: the daemon may be writing below.
    fs::create_dir(p.at("lost")).unwrap();
    for entry in fs::read_dir(p.at("two")).unwrap().collect::<Result<Vec<_>, _>>().unwrap() {
        fs::rename(entry.path(), format!("{}/{}", p.at("lost"), entry.file_name().display())).unwrap();
    }
    let told = |p: &Practice| {
        let status = p.ask("serve", &["status"]);
        let lost = |a: &serde_json::Value| a["kind"] == "store-missing" && a["subject"] == "two";
        status["alerts"].as_array().unwrap().iter().any(lost)
    };
    assert!(!told(&p));
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full", "it is whole again");
    assert!(told(&p), "and its loss is told");
    assert!(serve.text().contains("store.objects-lost"), "{}", serve.text());
    serve.stop();
    let mut serve = p.start("serve");
    assert!(told(&p), "also after a restart");
    // Whoever has looked says so; what is not there again does not close it.
    fs::rename(p.at("two"), p.at("away")).unwrap();
    assert_eq!(p.ask("serve", &["looked-into", "two"])["kind"], "retry");
    assert!(told(&p) && p.ask("serve", &["looked-into", "one"])["kind"] == "not-found");
    fs::rename(p.at("away"), p.at("two")).unwrap();
    assert_eq!(p.ask("serve", &["looked-into", "two"])["event"], "alert-closed");
    assert!(!told(&p));
    serve.stop();
    let _serve = p.start("serve");
    assert!(!told(&p), "it stays closed");
    // The next loss is another.
    fs::remove_file(walk(p.at("two/packs").as_ref()).pop().unwrap()).unwrap();
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    assert!(told(&p));
}

#[test]
fn a_loss_of_a_practice_whose_source_is_a_folder_is_answered_by_a_drill_that_brings_everything_back() {
    let p = Practice::new("");
    let settings = fs::read_to_string(p.at("p/serve.toml")).unwrap();
    let appliance = format!("kind = \"appliance\"\nops_socket = \"{}\"", p.at("o"));
    let folder = format!("kind = \"folder\"\npath = \"{}\"", p.at("data"));
    let settings = settings.replace(&appliance, &folder).replace("data_dir = \"emr\"\n", "");
    fs::write(p.at("p/serve.toml"), &settings).unwrap();
    let _serve = p.start("serve");
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    for entry in fs::read_dir(p.at("two")).unwrap() {
        fs::remove_dir_all(entry.unwrap().path()).unwrap();
    }
    assert_eq!(p.ask("serve", &["snapshot"])["state"], "full");
    let told = |alert: &str| {
        let [serve, verifier] = ["s", "v"].map(|socket| format!("unix:{}", p.at(socket)));
        p.run(&["status", "--serve", &serve, "--verifier", &verifier]).contains(&format!("{alert} two"))
    };
    let _verifier = p.start("verifier");
    assert!(told("critical: store-missing"));
    let drill = p.ask("verifier", &["drill", "--store", "two"]);
    assert_eq!(drill["verdict"], "inconclusive", "a folder seals nothing to compare: {drill}");
    wait_until(|| !told("store-missing"));
    assert!(!told("drill-failed"), "nothing is wrong with the store");
}

fn flip(file: &std::path::Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn damage_that_the_verifier_finds_is_healed_without_a_person_or_a_snapshot() {
    let p = Practice::new("");
    let verifier = p.at("p/verifier.toml");
    let text = fs::read_to_string(&verifier).unwrap();
    let serve = format!("sandbox_dir = \"sandbox\"\nserve = \"unix:{}\"", p.at("s"));
    fs::write(&verifier, text.replace("sandbox_dir = \"sandbox\"", &serve)).unwrap();
    p.open_emr();
    let (_serve, _verifier) = (p.start("serve"), p.start("verifier"));
    p.ask("serve", &["snapshot"]);
    p.ask("verifier", &["drill", "--store", "one"]);
    for folder in ["two/packs", "two/log/entries"] {
        flip(&walk(p.at(folder).as_ref()).pop().unwrap());
    }
    fs::remove_file(walk(p.at("two/index").as_ref()).pop().unwrap()).unwrap();
    let verify = p.ask("verifier", &["verify", "--store", "two", "--read-data"]);
    // Each by its own word: what is gone is not damaged.
    let begins = |list: &str, with: &str| {
        let objects = verify["stores"][0][list].as_array().unwrap();
        objects.iter().filter(|object| object.as_str().unwrap().starts_with(with)).count()
    };
    assert_eq!((begins("damaged", "log/"), begins("damaged", "")), (1, 1), "{verify}");
    assert_eq!((begins("missing", "index/"), begins("missing", "")), (1, 1), "{verify}");
    wait_until(|| p.ask("verifier", &["verify", "--store", "two", "--read-data"])["stores"][0]["condition"] == "ok");
    wait_until(|| p.ask("serve", &["stores"])["stores"].as_array().unwrap().iter().all(|s| s["condition"] == "ok"));
    let snapshots = p.ask("serve", &["snapshots"]);
    assert_eq!(snapshots["snapshots"].as_array().unwrap().len(), 1, "no snapshot was needed: {snapshots}");
}

#[test]
fn a_socket_that_a_cleaner_removed_is_bound_anew() {
    let p = Practice::new("");
    let mut serve = p.start("serve");
    for socket in ["s", "h"] {
        fs::remove_file(p.at(socket)).unwrap();
    }
    wait_until(|| ["s", "h"].iter().all(|socket| std::path::Path::new(&p.at(socket)).exists()));
    assert_eq!(p.ask("serve", &["status"])["practice"], "P");
    assert_eq!(serve.stop(), Some(0));
    assert!(!std::path::Path::new(&p.at("s")).exists());
}

/// Reads the u32 of the epoch in the clear header of every snapshot object of a store.
fn epochs_of(store: &std::path::Path) -> std::collections::BTreeSet<u8> {
    walk(&store.join("snapshots")).iter().map(|path| std::fs::read(path).unwrap()[8]).collect()
}

#[test]
fn a_rotation_reaches_running_daemons_the_kit_and_every_store() {
    let practice = Practice::new("");
    practice.open_emr();
    let (_serve, _verifier) = (practice.start("serve"), practice.start("verifier"));
    let newest = |done: &serde_json::Value| done["id"].as_str().unwrap().to_owned();
    let before = newest(&practice.ask("serve", &["snapshot"]));
    let (kit, config, paper) = (practice.at("kit"), practice.at("p/serve.toml"), practice.at("kit/paper-key.txt"));
    let with = |verb| vec!["keys", verb, "--config", &config, "--kit", &kit, "--paper-key-file", &paper];
    let said = practice.run(&[with("rotate"), vec!["--json"]].concat());
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((said["epoch"].as_u64(), said["updated"].as_array().unwrap().len()), (Some(2), 3), "{said}");
    std::fs::write(practice.dir.path().join("data/new"), "a record after the rotation").unwrap();
    let after = newest(&practice.ask("serve", &["snapshot"]));
    for store in ["one", "two"] {
        assert_eq!(epochs_of(&practice.dir.path().join(store)).into_iter().collect::<Vec<_>>(), [1, 2], "{store}");
    }
    // The verifier was not started anew either.
    for (id, into) in [(before, "old"), (after, "new")] {
        let done = practice.ask("verifier", &["restore", "--snapshot", &id, "--into", &practice.at(into)]);
        assert_eq!(done["event"], "restore-done", "{done}");
    }
    let rehearsed = practice.output(&with("rehearse"));
    assert!(rehearsed.status.success(), "{}", String::from_utf8_lossy(&rehearsed.stdout));
    let listed = practice.run(&["keys", "list", "--config", &config, "--kit", &kit]);
    assert!(!listed.contains("NOT OK") && listed.contains("number 2, epoch 2"), "{listed}");
}
