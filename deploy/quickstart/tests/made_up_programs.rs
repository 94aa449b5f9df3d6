//! The quickstart beside programs that do next to nothing: what it does by itself.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const QUICKSTART: &str = env!("CARGO_BIN_EXE_quickstart");
const NAMES: [&str; 6] = ["appliance", "backupd", "console", "agent", "s3-server", "report-verify"];

/// A folder of programs that all are this shell script.
fn programs(folder: &Path, script: &str) -> PathBuf {
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    for name in NAMES {
        std::fs::write(bin.join(name), format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(bin.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    }
    bin
}

/// Bit 0 of a mask of `/proc/PID/status`: SIGHUP.
fn hangup_in(pid: u32, mask: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(mask)).unwrap();
    u64::from_str_radix(value.trim(), 16).unwrap() & 1 == 1
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
fn a_hangup_that_was_ignored_at_the_start_stays_ignored() {
    let temp = tempfile::tempdir().unwrap();
    let bin = programs(temp.path(), "exec sleep 300");
    for ignored in [true, false] {
        let dir = temp.path().join(format!("practice-{ignored}"));
        let trap = if ignored { "trap '' HUP; " } else { "" };
        let mut run = Command::new("sh")
            .args(["-c", &format!("{trap}exec \"$0\" \"$@\""), QUICKSTART, "--bin-dir"])
            .arg(&bin)
            .arg("--dir")
            .arg(&dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Written once the first program runs, by when signals are listened to.
        let until = Instant::now() + Duration::from_secs(60);
        while !dir.join("run.json").exists() {
            assert!(run.try_wait().unwrap().is_none() && Instant::now() < until, "no program was started");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert_eq!(hangup_in(run.id(), "SigIgn:"), ignored);
        assert_eq!(hangup_in(run.id(), "SigCgt:"), !ignored);
        let asked = Command::new("kill").arg(run.id().to_string()).status().unwrap();
        assert!(asked.success() && run.wait().unwrap().success());
        let settings = std::fs::read_to_string(dir.join("quickstart.toml")).unwrap();
        let sockets = settings.lines().find_map(|line| line.strip_prefix("run_dir = ")).unwrap();
        assert!(!Path::new(sockets.trim_matches('"')).exists(), "the folder of sockets stays behind");
    }
}

#[test]
fn the_message_of_a_failed_recovery_names_a_log_that_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let bin = programs(temp.path(), "echo 'the store is torn' >&2; exit 1");
    let (kit, store) = (temp.path().join("kit"), temp.path().join("store"));
    std::fs::create_dir(&kit).unwrap();
    std::fs::create_dir(&store).unwrap();
    std::fs::write(kit.join("paper-key.txt"), "x").unwrap();
    std::fs::write(kit.join("kit.json"), r#"{"stores":[{"name":"local-folder","s3":null}]}"#).unwrap();
    let run = Command::new(QUICKSTART)
        .args(["recover", "--store", "local-folder", "--kit"])
        .arg(&kit)
        .arg("--store-folder")
        .arg(&store)
        .arg("--bin-dir")
        .arg(&bin)
        .arg("--dir")
        .arg(temp.path().join("practice"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("the store is torn"), "{said}");
    let log = said.split("the end of ").nth(1).and_then(|rest| rest.split(":\n").next()).unwrap();
    assert!(std::fs::read_to_string(log).unwrap().contains("the store is torn"), "{said}");
    std::fs::remove_dir_all(Path::new(log).ancestors().nth(2).unwrap()).unwrap();
}
