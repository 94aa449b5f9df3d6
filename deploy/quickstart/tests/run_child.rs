//! A program that the quickstart starts ends with it, also when the quickstart is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const QUICKSTART: &str = env!("CARGO_BIN_EXE_quickstart");

/// Running, as opposed to gone or a zombie that nobody has waited for.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z') && !rest.starts_with('X'))
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test waits for another process")]
fn a_child_ends_when_its_parent_is_killed() {
    let script = format!("'{QUICKSTART}' run-child --parent $$ -- sleep 300 & echo $!; wait");
    let mut parent = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let child: u32 = line.trim().parse().unwrap();
    let name = format!("/proc/{child}/comm");
    let until = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(&name).unwrap_or_default().trim() != "sleep" {
        assert!(Instant::now() < until, "the program was not started");
        std::thread::sleep(Duration::from_millis(20));
    }
    parent.kill().unwrap();
    parent.wait().unwrap();
    while runs(child) {
        assert!(Instant::now() < until, "the child outlived its parent");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_child_of_another_parent_does_not_start() {
    let output = Command::new(QUICKSTART).args(["run-child", "--parent", "1", "--", "true"]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("has ended"));
}

#[test]
fn a_missing_program_is_named() {
    let own = std::process::id().to_string();
    let output =
        Command::new(QUICKSTART).args(["run-child", "--parent", &own, "--", "/nonexistent/program"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/program"));
}
