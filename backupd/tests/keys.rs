//! `backupd keys` on a repository without a daemon: slots, rehearsal, epochs, with the real program.

use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

struct Place {
    dir: TempDir,
}

const PASSPHRASE: (&str, &str) = ("BACKUPD_PASSPHRASE", "correct horse battery staple");

impl Place {
    fn new() -> (Self, Value) {
        let place = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(place.path("source")).unwrap();
        fs::write(place.path("source/letter.txt"), "Dear patient\n".repeat(1000)).unwrap();
        let made = place.json(&[PASSPHRASE], &["init", "--json", "--repo", "repo"]);
        (place, made[0].clone())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, secrets: &[(&str, &str)], args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_backupd"));
        command.args(args).current_dir(self.dir.path()).env_clear().env("BACKUPD_STATE", self.path("state"));
        command.envs(secrets.iter().copied()).stdin(std::process::Stdio::null()).output().unwrap()
    }

    fn ok(&self, secrets: &[(&str, &str)], args: &[&str]) -> String {
        let out = self.run(secrets, args);
        let (said, complained) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8_lossy(&out.stderr));
        assert!(out.status.success(), "{args:?}\n{said}\n{complained}");
        said
    }

    fn json(&self, secrets: &[(&str, &str)], args: &[&str]) -> Vec<Value> {
        self.ok(secrets, args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn refused(&self, secrets: &[(&str, &str)], args: &[&str]) -> String {
        let out = self.run(secrets, args);
        assert!(!out.status.success(), "{args:?}");
        String::from_utf8(out.stderr).unwrap() + &String::from_utf8(out.stdout).unwrap()
    }

    fn restores(&self, secrets: &[(&str, &str)], into: &str) {
        self.ok(secrets, &["restore", "--repo", "repo", "--into", into]);
        assert_eq!(
            fs::read(self.path(into).join("letter.txt")).unwrap(),
            fs::read(self.path("source/letter.txt")).unwrap()
        );
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn every_slot_alone_restores_and_the_last_cannot_go() {
    let (place, made) = Place::new();
    place.ok(&[PASSPHRASE], &["snapshot", "--repo", "repo", "source"]);
    let paper = [("BACKUPD_PAPER_KEY", made["paper_key"].as_str().unwrap())];
    // A passphrase is lost: the paper key makes a new one.
    let added = place.json(&paper, &["keys", "add-slot", "passphrase", "--generate", "--repo", "repo", "--json"]);
    let generated = added[0]["text"].as_str().unwrap();
    assert!(generated.bytes().filter(u8::is_ascii_alphanumeric).count() * 5 >= 80, "at least 80 bits");
    let generated = [("BACKUPD_PASSPHRASE", generated)];
    place.ok(
        &generated,
        &["keys", "add-slot", "shares", "--needed", "2", "--of", "3", "--out", "shares", "--repo", "repo"],
    );
    let share = |n: u32| fs::read_to_string(place.path(&format!("shares/share-{n}.txt"))).unwrap();
    assert_eq!(mode(&place.path("shares/share-1.txt")), 0o600);
    let two = [share(3), share(1)].map(|text| text.lines().last().unwrap().to_owned()).join(",");
    let shares = [("BACKUPD_SHARES", two.as_str())];
    place.ok(&shares, &["keys", "add-slot", "machine-key", "--out", "machine.key", "--repo", "repo"]);
    // As a unit with LoadCredentialEncrypted=machine-key:... sees it.
    fs::create_dir(place.path("credentials")).unwrap();
    fs::copy(place.path("machine.key"), place.path("credentials/machine-key")).unwrap();
    let folder = place.path("credentials");
    let machine = [("CREDENTIALS_DIRECTORY", folder.to_str().unwrap())];
    for (secrets, into) in [(&[PASSPHRASE], "a"), (&paper, "b"), (&generated, "c"), (&shares, "d"), (&machine, "e")] {
        place.restores(secrets, into);
    }
    place.refused(&[("BACKUPD_SHARES", two.split(',').next().unwrap())], &["snapshots", "--repo", "repo"]);

    let listed = place.json(&[], &["keys", "list", "--repo", "repo", "--json"]);
    let keys: Vec<&str> = listed.iter().map(|row| row["key"].as_str().unwrap()).collect();
    for kind in ["paper-key ", "passphrase ", "shares 2-of-3 ", "machine-key ", "writer credential", "keyring"] {
        assert!(keys.iter().any(|key| key.starts_with(kind)), "{kind} in {keys:?}");
    }
    // What was not given is not proved; with everything, everything is.
    let some = place.refused(&paper, &["keys", "rehearse", "--repo", "repo"]);
    assert!(some.contains("not proved") && some.contains("opens keyring"), "{some}");
    let file = place.path("generated");
    fs::write(&file, generated[0].1).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let given = [paper[0], shares[0], machine[0], PASSPHRASE];
    place.ok(&given, &["keys", "rehearse", "--repo", "repo", "--passphrase-file", "generated"]);
}

#[test]
fn a_slot_taken_out_opens_no_more_and_the_last_one_stays() {
    let (place, made) = Place::new();
    let paper = [("BACKUPD_PAPER_KEY", made["paper_key"].as_str().unwrap())];
    let ids = |kind: &str| -> Vec<String> {
        let listed = place.json(&[], &["keys", "list", "--repo", "repo", "--json"]);
        let keys = listed.iter().filter_map(|row| row["key"].as_str()).filter(|key| key.starts_with(kind));
        keys.map(|key| key.rsplit(' ').next().unwrap().to_owned()).collect()
    };
    let passphrase = ids("passphrase");
    place.ok(&paper, &["keys", "remove-slot", &passphrase[0], "--repo", "repo"]);
    assert!(place.refused(&[PASSPHRASE], &["snapshots", "--repo", "repo"]).contains("does not open"));
    let said = place.refused(&paper, &["keys", "remove-slot", &ids("paper-key")[0], "--repo", "repo"]);
    assert!(said.contains("the last slot"), "{said}");
    assert!(place.refused(&paper, &["keys", "remove-slot", "nonsense", "--repo", "repo"]).contains("keys list"));
    place.ok(&paper, &["snapshots", "--repo", "repo"]);
}

#[test]
fn a_rotation_goes_on_where_the_old_keys_were() {
    let (place, _) = Place::new();
    place.ok(&[PASSPHRASE], &["snapshot", "--repo", "repo", "--tag", "old", "source"]);
    let said = place.ok(&[PASSPHRASE], &["keys", "rotate", "--repo", "repo"]);
    assert!(said.contains("Epoch 2 has begun") && said.contains("protects the future only"), "{said}");
    fs::write(place.path("source/more.txt"), "more\n".repeat(100)).unwrap();
    // No passphrase at hand: the kept writer credential was made current.
    place.ok(&[], &["snapshot", "--repo", "repo", "--tag", "new", "source"]);
    for (tag, into) in [("old", "old"), ("new", "new")] {
        place.ok(&[PASSPHRASE], &["restore", "--repo", "repo", "--tag", tag, "--into", into]);
        assert!(place.path(into).join("letter.txt").exists());
    }
    let epochs = place.json(&[PASSPHRASE], &["keys", "epochs", "--repo", "repo", "--json"]);
    let used: Vec<(u64, bool)> =
        epochs.iter().map(|row| (row["epoch"].as_u64().unwrap(), row["bytes"].as_u64().unwrap() > 0)).collect();
    assert_eq!(used, [(1, true), (2, true)]);
    place.ok(&[PASSPHRASE], &["verify", "--repo", "repo", "--read-data"]);
    place.ok(&[PASSPHRASE], &["keys", "refresh", "--repo", "repo"]);
}
