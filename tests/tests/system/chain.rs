//! The complete path with the real programs: from nothing to signed restore reports, and on.

use anyhow::{Context, Result, ensure};
use holdfast_tests::http::Visitor;
use holdfast_tests::place::noise;
use holdfast_tests::{Practice, command_line, descendants, files, pause, quickstart, root, seed, steady_now, wait_for};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const STORES: [&str; 3] = ["provider-north", "provider-south", "local-folder"];

/// `--once` in a folder whose path has 150 characters proves every store, and every report verifies with openssl alone.
#[test]
fn once_proves_every_store() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let mut dir = temp.path().to_owned();
    while dir.as_os_str().len() < 150 {
        dir.push("a-rather-long-folder-name");
    }
    let out = quickstart(&dir).args(["--once", "--patients", "12", "--seed", "7"]).output()?;
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(out.status.success(), "{text}\n{}", String::from_utf8_lossy(&out.stderr));
    ensure!(text.contains("all stores are on this machine: a demonstration, not protection"), "{text}");
    for store in STORES {
        let row = text.lines().find(|l| l.contains(store)).with_context(|| format!("a row for {store} in\n{text}"))?;
        ensure!(row.contains("pass"), "{row}");
    }
    let fingerprint = text.split("--key-fingerprint ").nth(1).and_then(|t| t.split_whitespace().next());
    let fingerprint = fingerprint.context("the command that verifies a report")?;
    let reports: Vec<PathBuf> = files(&dir.join("reports"))
        .into_iter()
        .filter(|f| f.extension().is_some_and(|e| e == "json") && !f.ends_with("approval.json"))
        .collect();
    ensure!(reports.len() == 3, "{reports:?}");
    for report in &reports {
        ensure!(verify(report, Some(fingerprint))? == 0, "{} verifies", report.display());
    }
    ensure!(verify(&reports[0], None)? == 2, "without a fingerprint the signer is unknown");
    ensure!(verify(&reports[0], Some(&"0".repeat(64)))? == 2, "another fingerprint is another signer");
    let mut bytes = std::fs::read(&reports[0])?;
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&reports[0], bytes)?;
    ensure!(verify(&reports[0], Some(fingerprint))? == 1, "a changed report is refused");
    Ok(())
}

/// The exit code of the auditor's script, run by bash with nothing of ours on the path.
fn verify(report: &Path, fingerprint: Option<&str>) -> Result<i32> {
    let mut command = Command::new("bash");
    command.arg(root().join("backupd/report/verify.sh")).arg(report).env_clear().env("PATH", "/usr/bin:/bin");
    if let Some(fingerprint) = fingerprint {
        command.args(["--key-fingerprint", fingerprint]);
    }
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).status()?.code().unwrap_or(-1))
}

/// A practice that goes on: dedup, lost local state, a second start, a refused start, a clean end, a hard end.
#[test]
fn a_practice_goes_on() -> Result<()> {
    let mut practice = Practice::start(12)?;
    let runtime = tokio::runtime::Runtime::new()?;

    // An unchanged practice costs next to nothing; a changed one what has changed.
    let snapshot = |practice: &Practice| -> Result<serde_json::Value> {
        let lines = practice.backupd(&["snapshot"])?;
        lines.into_iter().rev().find(|l| l.to_string().contains("bytes_added")).context("the snapshot's answer")
    };
    let number = |value: &serde_json::Value, key: &str| find(value, key).and_then(|v| v.as_u64()).unwrap_or(u64::MAX);
    let doctor = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("doctor")?))?;
    let chart = runtime.block_on(doctor.register("Abernathy-Quill", "Zenobia"))?;
    ensure!(chart.starts_with("/patients/"), "{chart}");
    // Scans do not compress: whatever is sent again shows.
    let scan = |seed| runtime.block_on(doctor.upload(&chart, "Scan", &noise(seed, 4 << 20)));
    scan(1)?;
    let first = snapshot(&practice)?;
    ensure!(number(&first, "bytes_added") > 4 << 20, "{first}");
    let second = snapshot(&practice)?;
    ensure!(number(&second, "counter") == number(&first, "counter") + 1, "{second}");
    let little = (4 << 20) / 10;
    ensure!(number(&second, "bytes_added") < little, "an almost unchanged practice: {second}");
    scan(2)?;
    let third = number(&snapshot(&practice)?, "bytes_added");
    // Padding and the objects of a snapshot come on top; the first scan sent again would be more than twice of it.
    ensure!((4 << 20..6 << 20).contains(&third), "one more scan: {third}");

    // A second start beside a running one is refused and harms nothing.
    let refused = quickstart(&practice.dir).arg("--once").output()?;
    ensure!(!refused.status.success(), "a second quickstart on one folder must be refused");
    ensure!(!practice.backupd(&["status"])?.is_empty());

    // Ctrl-C ends every process.
    let pids = practice.pids()?;
    ensure!(pids.len() >= 7, "two S3 servers and five programs: {pids:?}");
    ensure!(practice.stop()? == 0, "asked to end, it ends well");
    for pid in pids {
        ensure!(command_line(pid).is_empty(), "{pid} still runs: {}", command_line(pid));
    }

    // The whole local state of backupd is gone; nothing is lost.
    let state = practice.dir.join("backupd/state");
    ensure!(state.exists());
    std::fs::remove_dir_all(&state)?;
    practice.resume(&[])?;
    let rebuilt = snapshot(&practice)?;
    ensure!(number(&rebuilt, "bytes_added") < little, "dedup goes on without local state: {rebuilt}");
    let rows = practice.backupd(&["snapshots"])?;
    ensure!(!rows.is_empty());
    let doctor = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    let page = runtime.block_on(doctor.page("/patients?q=Abernathy"))?;
    ensure!(page.contains("Abernathy-Quill"), "the patient of the first run is there");

    // kill -9 of quickstart ends its children.
    let pids = practice.pids()?;
    practice.kill()?;
    wait_for("the children's end", 20, || pids.iter().all(|pid| command_line(*pid).is_empty()).then_some(()))?;
    Ok(())
}

/// quickstart, among the programs that die.
const ITSELF: &str = "quickstart";

/// Each program is killed once at some moment; the message is clear, the exit code is not 0, and the next start finishes.
#[test]
fn any_program_may_die_once() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("practice");
    let victims = [
        "s3-server",
        "provider-south",
        "appliance serve",
        "backupd serve",
        "backupd verifier",
        "backupd maintain",
        "agent --config",
        "console --config",
        ITSELF,
    ];
    // How long the chain takes here, from the first program to the table.
    let started = steady_now();
    let whole = quickstart(&temp.path().join("measured")).args(["--once", "--patients", "6"]).output()?;
    ensure!(whole.status.success(), "{}", String::from_utf8_lossy(&whole.stderr));
    let chain = started.elapsed();
    let mut seed = seed();
    let mut hit = 0;
    for victim in victims {
        let mut run = quickstart(&dir)
            .args(["--once", "--patients", "6"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let quickstart_pid = i32::try_from(run.id())?;
        let is_victim = |pid: &i32| command_line(*pid).contains(victim);
        let pid = match victim {
            ITSELF => quickstart_pid,
            _ => wait_for(victim, 120, || descendants(quickstart_pid).into_iter().find(is_victim))?,
        };
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let moment = chain.mul_f64((seed % 1000) as f64 / 1700.0);
        pause(moment);
        let target = rustix::process::Pid::from_raw(pid).context("pid")?;
        let killed = rustix::process::kill_process(target, rustix::process::Signal::KILL).is_ok();
        let at_work = killed && run.try_wait()?.is_none();
        let out = run.wait_with_output()?;
        let said = String::from_utf8_lossy(&out.stderr);
        if out.status.success() {
            // It was faster than measured: the kill met a program that had been told to end.
            continue;
        }
        hit += usize::from(at_work);
        ensure!(
            victim == ITSELF || said.contains("quickstart: "),
            "{victim} killed after {moment:?}: it says what happened: {said}"
        );
    }
    ensure!(hit * 3 >= victims.len() * 2, "only {hit} programs were killed while the chain ran");
    let out = quickstart(&dir).arg("--once").output()?;
    ensure!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// The first value of `key` anywhere in `value`.
fn find<'a>(value: &'a serde_json::Value, key: &str) -> Option<&'a serde_json::Value> {
    match value {
        serde_json::Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| find(v, key))),
        serde_json::Value::Array(list) => list.iter().find_map(|v| find(v, key)),
        _ => None,
    }
}

/// Output that cannot be written ends the programs in order and is told, like every other failure.
#[test]
fn an_output_that_cannot_be_written_is_a_failure() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full")?;
    let mut run = quickstart(&temp.path().join("practice"));
    let out =
        run.args(["--once", "--patients", "4"]).stdout(full).stderr(Stdio::piped()).spawn()?.wait_with_output()?;
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(out.status.code() == Some(1), "{said}");
    ensure!(said.contains("standard output cannot be written") && !said.contains("panicked"), "{said}");
    ensure!(said.contains("every program has ended"), "{said}");
    Ok(())
}
