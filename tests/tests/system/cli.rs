//! The command line on one repository without a daemon, with the real program: contract, exit codes, what goes wrong at
//! night, and looking into snapshots.

use anyhow::{Context, Result, ensure};
use holdfast_tests::daemons::{practice, start, with_config};
use holdfast_tests::place::{Place, awkward, describe, fails, last, noise, ok, said, signal};
use holdfast_tests::{files, json_lines, program, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[test]
fn what_was_taken_comes_back_at_the_top_of_the_target() -> Result<()> {
    let place = Place::made()?;
    awkward(&place.source())?;
    let before = describe(&place.source(), true)?;
    let taken = place.snapshot("monday")?;
    ensure!(taken["partial"] == false && taken["state"] == "full", "{taken}");
    let unchanged = place.snapshot("tuesday")?;
    ensure!(unchanged["bytes_added"] == 0, "nothing changed, nothing is added: {unchanged}");

    // As the benchmark does it: in an empty folder, into `.`.
    let back = place.path("back");
    fs::create_dir(&back)?;
    let mut restore = place.backupd(&["restore", "--tag", "monday", "--into", "."]);
    restore.current_dir(&back);
    ok(restore)?;
    ensure!(describe(&back, true)? == before, "the restored tree is another one");
    ok(place.backupd(&["verify", "--read-data"]))?;

    // A part, by the path that `ls` shows; what is there already is never replaced.
    let part = place.path("part");
    let one = ["restore", "--tag", "monday", "--into", part.to_str().context("path")?, "letters/2026/letter-7.txt"];
    ok(place.backupd(&one))?;
    ensure!(files(&part) == [part.join("letters/2026/letter-7.txt")]);
    fails(place.backupd(&one), 2, &["already holds", "empty folder"])?;
    let letter = part.join("letters/2026/letter-7.txt");
    fs::write(&letter, b"spoilt")?;
    ok(place.backupd(&[&one[..], &["--overwrite"]].concat()))?;
    ensure!(fs::read(&letter)? == fs::read(place.source().join("letters/2026/letter-7.txt"))?);
    let absent = ["restore", "--tag", "monday", "--into", part.to_str().context("path")?, "letters/1999"];
    fails(place.backupd(&absent), 1, &["not in the snapshot"])?;
    Ok(())
}

/// What a full disk takes of the words never ends the work; that an answer is lost shows in the exit code.
#[test]
fn a_full_disk_behind_the_terminal_ends_no_command() -> Result<()> {
    let place = Place::made()?;
    fs::write(place.source().join("ledger.csv"), noise(4, 200_000))?;
    let full = || fs::OpenOptions::new().write(true).open("/dev/full");
    let code = |arguments: &[&str], out: Stdio| -> Result<Option<i32>> {
        Ok(place.backupd(arguments).stdout(out).stderr(full()?).status()?.code())
    };
    ensure!(code(&["snapshot", "--tag", "one", "ledger.csv"], Stdio::null())? == Some(0));
    ensure!(code(&["ls", "--tag", "one"], full()?.into())? == Some(1), "an answer is lost, and nobody hears of it");
    ensure!(code(&["ls", "--tag", "none"], Stdio::null())? == Some(1));
    // Warnings of the engine: its state lies where nothing can be written.
    let mut stateless = place.backupd(&["snapshot", "--tag", "two", "ledger.csv"]);
    let stateless = stateless.env("BACKUPD_STATE", "/proc/holdfast").stdout(Stdio::null()).stderr(full()?).status()?;
    ensure!(stateless.code() != Some(101), "{stateless}");
    ok(place.backupd(&["verify", "--read-data"]))?;
    Ok(())
}

#[test]
fn one_file_is_a_snapshot_too() -> Result<()> {
    let place = Place::made()?;
    fs::write(place.source().join("ledger.csv"), noise(4, 200_000))?;
    last(place.json(&["snapshot", "--tag", "one", "ledger.csv"])?, "snapshot-done")?;
    ensure!(ok(place.backupd(&["ls", "--tag", "one"]))? == "ledger.csv\n");
    let back = place.path("back");
    ok(place.backupd(&["restore", "--tag", "one", "--into", back.to_str().context("path")?]))?;
    ensure!(fs::read(back.join("ledger.csv"))? == fs::read(place.source().join("ledger.csv"))?);
    Ok(())
}

#[test]
fn wrong_usage_is_told_in_one_sentence_with_its_remedy() -> Result<()> {
    let place = Place::made()?;
    for (args, words) in [
        (vec!["snapshot", "--repo", "az://box/x", "."], "AZURE_STORAGE_KEY"),
        (vec!["verify", "--repo", "gs://box/x"], "GOOGLE_APPLICATION_CREDENTIALS"),
        (vec!["ls", "--repo", "s3://"], "bucket is missing"),
        (vec!["ls", "--repo", "s3://bucket/x"], "AWS_ACCESS_KEY_ID"),
        (vec!["snapshots", "--repo", "/no/such/place"], "backupd init"),
        (vec!["find", "--repo", "x", "--larger", "huge"], "is no size"),
        (vec!["find", "--repo", "x", "--newer", "soon"], "is no time"),
        (vec!["snapshot", "--repo", "x"], "name the folder or file"),
    ] {
        let said = fails(place.bare(&args), 2, &[words])?;
        ensure!(said.trim_end().lines().count() == 1, "{args:?} is told in more than a sentence: {said}");
    }
    fails(place.backupd(&["snapshot", "no-such-folder"]), 2, &["check the path"])?;
    fails(place.backupd(&["restore", "--into", "/dev/null"]), 2, &["/dev/null", "is no folder"])?;
    fs::write(place.source().join("file"), b"content")?;
    fails(place.backupd(&["snapshot", "--tag", "two\nlines", "."]), 2, &["the tag", "one line"])?;
    fails(place.backupd(&["init"]), 2, &["already holds a repository"])?;
    for verb in ["init", "snapshot", "snapshots", "ls", "diff", "find", "restore", "verify", "stats", "mount", "prune"]
    {
        let help = ok(place.bare(&[verb, "--help"]))?;
        ensure!(help.contains(&format!("Example: backupd {verb}")), "{help}");
    }
    Ok(())
}

#[test]
fn keys_that_do_not_fit_and_repositories_of_another_release() -> Result<()> {
    let place = Place::made()?;
    fs::write(place.source().join("file"), b"content")?;
    let mut wrong = place.backupd(&["snapshots"]);
    wrong.env("BACKUPD_PASSPHRASE", "another");
    fails(wrong, 1, &["does not open", "check BACKUPD_PASSPHRASE"])?;
    let mut none = place.backupd(&["snapshots"]);
    none.env_remove("BACKUPD_PASSPHRASE");
    fails(none, 2, &["set BACKUPD_PASSPHRASE"])?;
    // The writer's own credential is enough for a snapshot: no passphrase, no slow derivation.
    let mut kept = place.backupd(&["snapshot", "."]);
    kept.env_remove("BACKUPD_PASSPHRASE");
    ok(kept)?;
    let credential = files(&place.path("state")).into_iter().find(|file| file.ends_with("writer.cred"));
    let mode = credential.context("the writer's credential")?.metadata()?.mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");
    // Without any state the passphrase makes another writer, and everything is still there.
    fs::remove_dir_all(place.path("state"))?;
    ok(place.backupd(&["snapshot", "."]))?;
    let rows = last(place.json(&["snapshots"])?, "snapshots")?;
    ensure!(rows["snapshots"].as_array().map(Vec::len) == Some(2), "{rows}");
    // Another repository at the same place: the credential of the old one is not used for it.
    fs::remove_dir_all(place.repo())?;
    let elsewhere = place.path("elsewhere");
    let mut again = place.backupd(&["init"]);
    again.env("BACKUPD_STATE", &elsewhere);
    ok(again)?;
    place.snapshot("fresh")?;
    ok(place.backupd(&["verify", "--read-data"]))?;

    let keyring = files(&place.repo().join("keyring")).pop().context("a keyring")?;
    let mut bytes = fs::read(&keyring)?;
    bytes[5] = 9;
    fs::remove_file(&keyring)?;
    fs::write(keyring.with_file_name(format!("0000000000000001-{}", blake3::hash(&bytes).to_hex())), bytes)?;
    fails(place.backupd(&["snapshots"]), 2, &["version 9.0", "use the release"])?;
    Ok(())
}

/// Unreadable files make the snapshot partial: exit code 3, counts by reason, and names only with the key.
#[test]
fn a_partial_snapshot_has_its_own_exit_code_and_tells_no_names() -> Result<()> {
    let place = Place::new()?;
    // Root reads everything: then a user without rights takes the snapshot.
    let root = rustix::process::geteuid().is_root();
    let own = place.path("backupd");
    fs::copy(program("backupd"), &own)?;
    let command = |args: &[&str]| {
        let mut command = Command::new(&own);
        command.args(&args[..1]).arg("--repo").arg(place.repo()).args(&args[1..]).current_dir(place.source());
        command.env_clear().env("BACKUPD_PASSPHRASE", "correct horse").env("BACKUPD_STATE", place.path("state"));
        if root {
            command.uid(65534).gid(65534);
        }
        command
    };
    fs::write(place.source().join("open"), b"readable")?;
    fs::write(place.source().join("the-secret-diary"), b"not readable")?;
    fs::create_dir(place.source().join("the-closed-folder"))?;
    for name in ["the-secret-diary", "the-closed-folder"] {
        fs::set_permissions(place.source().join(name), fs::Permissions::from_mode(0o0))?;
    }
    for dir in [place.dir.path(), &place.source()] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o777))?;
    }
    ok(command(&["init"]))?;
    let taken = command(&["snapshot", "--tag", "t", "."]).output()?;
    ensure!(taken.status.code() == Some(3), "{:?} {}", taken.status.code(), said(&taken));
    let words = said(&taken);
    ensure!(words.contains("PARTIAL") && words.contains("2 may not be read"), "{words}");
    ensure!(!words.contains("diary") && !words.contains("closed"), "names are record content: {words}");
    let told = command(&["snapshot", "--json", "."]).output()?;
    let done =
        String::from_utf8_lossy(&told.stdout).lines().last().map(serde_json::from_str::<Value>).context("a line")??;
    ensure!(done["partial"] == true && done["unreadable"]["denied"] == 2, "{done}");
    let listed = ok(command(&["ls", "--tag", "t", "--unreadable"]))?;
    ensure!(listed.contains("the-secret-diary") && listed.contains("denied"), "{listed}");
    fails(command(&["restore", "--into", "/nonexistent"]), 1, &["no whole snapshot"])?;
    for name in ["the-secret-diary", "the-closed-folder"] {
        fs::set_permissions(place.source().join(name), fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[test]
fn listings_differences_and_finds() -> Result<()> {
    let place = Place::made()?;
    let source = place.source();
    awkward(&source)?;
    let first = place.snapshot("before")?;
    fs::write(source.join("letters/2026/letter-3.txt"), b"other words")?;
    fs::remove_file(source.join("letters/2026/letter-4.txt"))?;
    fs::write(source.join("letters/2026/added.txt"), b"new")?;
    fs::set_permissions(source.join("letters/2026/letter-5.txt"), fs::Permissions::from_mode(0o600))?;
    fs::remove_file(source.join("dangling"))?;
    fs::create_dir(source.join("dangling"))?;
    let second = place.snapshot("after")?;

    let shown = ok(place.backupd(&["diff", "before", "after"]))?;
    let marks: Vec<&str> = shown.lines().filter(|line| !line.starts_with('1')).collect();
    let expected = [
        "T dangling/",
        "+ letters/2026/added.txt",
        "M letters/2026/letter-3.txt",
        "- letters/2026/letter-4.txt",
        "P letters/2026/letter-5.txt",
    ];
    ensure!(marks == expected, "{shown}");
    let lines = place.json(&["diff", "before", "after", "letters"])?;
    let done = &lines.last().context("a line")?["done"];
    ensure!(done["added"] == 1 && done["modified"] == 1 && done["bytes_modified"] == 11, "{done}");
    let id = |row: &Value| row["id"].as_str().unwrap_or_default()[..10].to_owned();
    let same = ok(place.backupd(&["diff", &id(&first), &id(&first)]))?;
    ensure!(same.starts_with("0 added"), "{same}");
    fails(place.backupd(&["diff", "before", "never"]), 1, &["backupd snapshots"])?;

    // No name moves the cursor, and every entry is one line.
    let listed = ok(place.backupd(&["ls", "--tag", "before", "--long"]))?;
    ensure!(!listed.contains('\x1b') && listed.contains("new\\nline \\x1b[31m"), "{listed}");
    ensure!(listed.contains("not-\\xff-utf8") && listed.contains("this-year -> letters/2026"), "{listed}");
    ensure!(listed.contains("-rws--x--x") && listed.contains("drwxr-x---"), "{listed}");
    let rows: usize =
        place.json(&["ls", "--tag", "before"])?.iter().map(|l| l["entries"].as_array().map_or(0, Vec::len)).sum();
    ensure!(rows == listed.lines().count() && rows == describe(&source, true)?.len() - 1, "{rows}");
    ensure!(ok(place.backupd(&["ls", "--tag", "before", "--depth", "1", "letters"]))?.lines().count() == 3);
    fails(place.backupd(&["ls", "letters/none"]), 1, &["not in the snapshot"])?;

    let found = ok(place.backupd(&["find", "letter-3.txt"]))?;
    ensure!(found.lines().count() == 2, "both versions: {found}");
    let both = place.json(&["find", "letter-7.txt"])?;
    ensure!(both[0]["entries"][0]["snapshots"].as_array().map(Vec::len) == Some(2), "{both:?}");
    ensure!(ok(place.backupd(&["find", "--larger", "1M", "--type", "f", "--tag", "after"]))?.lines().count() == 3);
    ensure!(ok(place.backupd(&["find", "LETTER-3*", "-i", "--tag", "after"]))?.lines().count() == 11);
    ensure!(ok(place.backupd(&["find", "--older", "1990-01-01"]))?.is_empty());
    ensure!(ok(place.backupd(&["find", "letters/**/added.txt"]))?.contains(&id(&second)[..8]));

    let stats = place.stats()?;
    ensure!(stats["snapshots"].as_array().map(Vec::len) == Some(2) && stats["packs_unnamed"] == 0, "{stats}");
    let on_disk: u64 = files(&place.repo()).iter().map(|file| file.metadata().map_or(0, |meta| meta.len())).sum();
    ensure!(stats["bytes"] == on_disk, "{stats}");
    ensure!(ok(place.backupd(&["stats"]))?.contains("Sharing saves"));
    Ok(())
}

#[test]
fn what_is_excluded_is_not_taken() -> Result<()> {
    let place = Place::made()?;
    for path in ["keep/a.txt", "keep/cache/b", "cache/c", "deep/down/d", "deep/other"] {
        let file = place.source().join(path);
        fs::create_dir_all(file.parent().context("parent")?)?;
        fs::write(file, path)?;
    }
    let absolute = place.source().join("keep/a.txt");
    let absolute = absolute.to_str().context("path")?;
    ok(place.backupd(&["snapshot", "--exclude", "cache", "--exclude", "./deep/down", "--exclude", absolute, "."]))?;
    ensure!(ok(place.backupd(&["ls"]))? == "deep\ndeep/other\nkeep\n");
    let patterns = ["snapshot", "--exclude", "*.txt", "--exclude", "deep/**/d", "--exclude", "[x-z]*", "."];
    ok(place.backupd(&patterns))?;
    ensure!(
        ok(place.backupd(&["ls"]))? == "cache\ncache/c\ndeep\ndeep/down\ndeep/other\nkeep\nkeep/cache\nkeep/cache/b\n"
    );
    Ok(())
}

/// A name without a folder is a place too; one that cannot be written is refused before anything is made.
#[test]
fn init_writes_every_file_or_makes_nothing() -> Result<()> {
    let place = Place::new()?;
    let dir = place.path("practice");
    practice(&dir)?;
    fs::create_dir(place.path("run"))?;
    let init = |paper: &str| {
        let mut command = place.bare(&["init", "--config"]);
        command.arg(dir.join("serve.toml")).args(["--kit", "kit.json", "--write-paper-key", paper]);
        command.current_dir(place.path("run"));
        command
    };
    fs::write(place.path("a-file"), b"")?;
    let below = place.path("a-file/paper.txt");
    fails(init(below.to_str().context("path")?), 2, &["choose a folder", "nothing was changed"])?;
    let stores = [files(&dir.join("store-one")), files(&dir.join("store-two"))].concat();
    ensure!(stores.is_empty() && !dir.join("writer.cred").exists(), "nothing was made: {stores:?}");
    let said = ok(init("paper.txt"))?;
    ensure!(said.contains("paper.txt"), "{said}");
    let paper = place.path("run/paper.txt");
    ensure!(paper.metadata()?.mode() & 0o777 == 0o600 && fs::read_to_string(&paper)?.trim().len() > 40);
    ensure!(place.path("run/kit.json").is_file() && dir.join("writer.cred").is_file());
    Ok(())
}

/// `ls`, `diff` and `find` are answered by the verifier for its own repository, with the open key that it holds.
#[test]
fn the_verifier_answers_for_its_own_repository() -> Result<()> {
    let place = Place::new()?;
    let dir = place.path("p");
    practice(&dir)?;
    fs::create_dir(dir.join("data/letters"))?;
    for at in 0..20 {
        fs::write(dir.join(format!("data/letters/letter-{at}.txt")), noise(at, 3000))?;
    }
    let run = |args: &[&str], config: &str| with_config(&place, &dir, args, config);
    let _daemons = start(&place, &dir)?;
    ok(run(&["snapshot", "--tag", "first"], "serve.toml"))?;
    fs::write(dir.join("data/letters/letter-3.txt"), b"other words")?;
    fs::write(dir.join("data/letters/added.txt"), b"new")?;
    holdfast_tests::pause(std::time::Duration::from_millis(80));
    ok(run(&["snapshot", "--tag", "second"], "serve.toml"))?;
    let ask = |args: &[&str]| ok(run(args, "verifier.toml"));
    let listed = ask(&["ls", "--tag", "first", "--long"])?;
    ensure!(
        listed.lines().count() == 24 && listed.contains("-rw-") && listed.contains("letters/letter-7.txt"),
        "{listed}"
    );
    let rows = json_lines(&run(&["snapshots", "--json"], "verifier.toml").output()?)?;
    let ids: Vec<&str> =
        rows[0]["snapshots"].as_array().context("rows")?.iter().filter_map(|r| r["id"].as_str()).collect();
    let [after, before] = ids[..] else { anyhow::bail!("two snapshots: {rows:?}") };
    let shown = ask(&["diff", before, after])?;
    ensure!(shown.contains("letters/added.txt") && shown.contains("M ") && shown.contains("1 added"), "{shown}");
    let found = ask(&["find", "letter-3.txt"])?;
    ensure!(found.lines().count() == 2, "{found}");
    ensure!(ask(&["find", "*.txt", "--larger", "2k", "--tag", "second"])?.lines().count() == 19);
    ensure!(ask(&["ls", "--unreadable"])?.contains("every file as it was"));
    fails(run(&["diff", before, "0123456789"], "verifier.toml"), 1, &["backupd snapshots"])?;
    // The writer cannot answer: it holds no key that reads.
    let mut wrong = place.bare(&["ls", "--verifier"]);
    wrong.arg(format!("unix:{}", dir.join("s.sock").display()));
    fails(wrong, 2, &["backupd verifier"])?;
    Ok(())
}

fn leftovers(place: &Place) -> Vec<PathBuf> {
    let all = [place.repo(), place.path("state"), std::env::temp_dir()].into_iter().flat_map(|dir| files(&dir));
    all.filter(|file| file.to_string_lossy().ends_with(".part")).collect()
}

fn packs(place: &Place) -> usize {
    files(&place.repo().join("packs")).iter().filter(|file| !file.to_string_lossy().ends_with(".part")).count()
}

/// Ctrl-C in the middle: exit 130, no temporary files, and the next run sends nothing twice.
#[test]
fn ctrl_c_ends_cleanly_and_the_next_snapshot_goes_on() -> Result<()> {
    let place = Place::made()?;
    for at in 0..12u64 {
        fs::write(place.source().join(format!("scan-{at}")), noise(at + 1, 32 << 20))?;
    }
    let before = leftovers(&place);
    let child =
        place.backupd(&["snapshot", "--tag", "stopped", "."]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    wait_for("some packs", 120, || (packs(&place) >= 4).then_some(()))?;
    signal(&child, Signal::INT)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.code() == Some(130), "{:?} {}", output.status.code(), said(&output));
    ensure!(said(&output).contains("goes on from here"), "{}", said(&output));
    ensure!(leftovers(&place) == before, "temporary files are left: {:?}", leftovers(&place));
    let kept = packs(&place);
    let done = place.snapshot("finished")?;
    let stats = place.stats()?;
    ensure!(stats["packs_unnamed"] == 0, "every pack of the stopped run is known: {stats}");
    ensure!(stats["chunks_twice"] == 0, "nothing was sent twice: {stats}");
    let added = done["bytes_added"].as_u64().context("bytes")?;
    ensure!(added < (384 << 20) - kept as u64 * (8 << 20), "{kept} packs were there, yet {added} bytes were added");
    ok(place.backupd(&["verify", "--read-data"]))?;
    Ok(())
}

/// Two at once on one machine: the second is told to wait. From two machines both succeed.
#[test]
fn two_snapshots_at_once() -> Result<()> {
    let place = Place::made()?;
    for at in 0..8u64 {
        fs::write(place.source().join(format!("scan-{at}")), noise(at + 1, 32 << 20))?;
    }
    let first = place.backupd(&["snapshot", "--tag", "first", "."]).stdout(Stdio::null()).spawn()?;
    wait_for("the first one to run", 60, || (packs(&place) >= 1).then_some(()))?;
    fails(place.backupd(&["snapshot", "--tag", "second", "."]), 1, &["wait"])?;
    let mut other = place.backupd(&["snapshot", "--tag", "third", "."]);
    other.env("BACKUPD_STATE", place.path("state-of-another-machine"));
    ok(other)?;
    ensure!(first.wait_with_output()?.status.success());
    let rows = last(place.json(&["snapshots"])?, "snapshots")?;
    let tags: Vec<&str> =
        rows["snapshots"].as_array().context("rows")?.iter().filter_map(|r| r["tag"].as_str()).collect();
    ensure!(tags.len() == 2 && tags.contains(&"first") && tags.contains(&"third"), "{rows}");
    ok(place.backupd(&["verify", "--read-data"]))?;
    Ok(())
}

/// A state folder that cannot be written costs time, not the snapshot.
#[test]
fn without_local_state_a_snapshot_goes_on_and_says_so() -> Result<()> {
    let place = Place::made()?;
    fs::write(place.source().join("file"), noise(8, 500_000))?;
    fs::write(place.path("a-file"), b"")?;
    for run in ["one", "two"] {
        let mut command = place.backupd(&["snapshot", "--tag", run, "."]);
        command.env("BACKUPD_STATE", place.path("a-file/below"));
        let output = command.output()?;
        let words = said(&output);
        ensure!(output.status.success(), "{words}");
        ensure!(words.contains("state folder cannot be written") && words.contains("set BACKUPD_STATE"), "{words}");
    }
    let stats = place.stats()?;
    ensure!(stats["snapshots"].as_array().map(Vec::len) == Some(2) && stats["chunks_twice"] == 0, "{stats}");
    Ok(())
}

/// A mounted file system that goes away with the test.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
    }
}

#[test]
fn a_full_target_is_told_and_goes_on_when_there_is_room() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        holdfast_tests::skip(
            "a_full_target_is_told_and_goes_on_when_there_is_room",
            "only root may mount a file system",
        );
        return Ok(());
    }
    let place = Place::new()?;
    fs::create_dir(place.repo())?;
    let mount =
        |options: &str| Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(place.repo()).status();
    ensure!(mount("size=8m")?.success());
    let _mounted = Mount(place.repo());
    ok(place.backupd(&["init"]))?;
    fs::write(place.source().join("scan"), noise(9, 24 << 20))?;
    let words = fails(place.backupd(&["snapshot", "."]), 1, &["free space"])?;
    ensure!(!words.contains("scan"), "{words}");
    ensure!(files(&place.repo()).iter().all(|file| !file.to_string_lossy().ends_with(".part")), "no unfinished object");
    ensure!(mount("remount,size=64m")?.success());
    place.snapshot("with-room")?;
    ok(place.backupd(&["verify", "--read-data"]))?;
    Ok(())
}

/// The same verbs over the S3 protocol, with the usual variables and with a profile.
#[test]
fn a_bucket_is_a_repository_too() -> Result<()> {
    let place = Place::new()?;
    awkward(&place.source())?;
    let before = describe(&place.source(), true)?;
    let keys = place.path("keys.toml");
    let key = "[[key]]\naccess_key = \"AKTEST\"\nsecret_key = \"a-secret-of-this-test\"\nmay = [\"read\", \"create\", \"overwrite\", \"delete\"]\n";
    fs::write(&keys, key)?;
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o600))?;
    let mut server = Command::new(program("s3-server"))
        .args(["--listen", "127.0.0.1:0", "--bucket", "practice", "--root"])
        .arg(place.path("s3"))
        .arg("--access-key-file")
        .arg(&keys)
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(server.stdout.take().context("stdout")?), &mut line)?;
    let port: u16 =
        line.trim().rsplit(|c: char| !c.is_ascii_digit()).find_map(|p| p.parse().ok()).context(line.clone())?;
    let endpoint = format!("http://127.0.0.1:{port}");
    let backupd = |verb: &str, rest: &[&str]| {
        let mut command = place.bare(&[verb, "--repo", "s3://practice/n/x"]);
        command.args(rest).env("AWS_ENDPOINT_URL", &endpoint);
        command
    };
    let with_keys = |verb: &str, rest: &[&str]| {
        let mut command = backupd(verb, rest);
        command.env("AWS_ACCESS_KEY_ID", "AKTEST").env("AWS_SECRET_ACCESS_KEY", "a-secret-of-this-test");
        command
    };
    let tested = (|| {
        fails(backupd("snapshots", &[]), 2, &["AWS_ACCESS_KEY_ID"])?;
        fails(with_keys("snapshots", &[]), 2, &["backupd init"])?;
        ok(with_keys("init", &[]))?;
        ok(with_keys("snapshot", &["--tag", "t", "."]))?;
        fs::create_dir(place.path(".aws"))?;
        let profile = "[other]\naws_access_key_id = X\n[practice]\naws_access_key_id = AKTEST\naws_secret_access_key = a-secret-of-this-test\n";
        fs::write(place.path(".aws/credentials"), profile)?;
        let mut by_profile = backupd("verify", &["--read-data"]);
        by_profile.env("AWS_PROFILE", "practice");
        ok(by_profile)?;
        let back = place.path("back");
        ok(with_keys("restore", &["--tag", "t", "--into", back.to_str().context("path")?]))?;
        ensure!(describe(&back, true)? == before, "the restored tree is another one");
        let mut wrong = with_keys("snapshots", &[]);
        wrong.env("AWS_SECRET_ACCESS_KEY", "another");
        fails(wrong, 1, &["access key"])?;
        Ok(())
    })();
    signal(&server, Signal::TERM)?;
    server.wait()?;
    tested?;
    fails(with_keys("snapshots", &[]), 1, &["AWS_ENDPOINT_URL"])?;
    Ok(())
}

/// With --json every line is JSON and nothing else is on standard output; progress has its lines too.
#[test]
fn json_lines_are_all_that_is_on_standard_output() -> Result<()> {
    let place = Place::new()?;
    awkward(&place.source())?;
    for args in [
        &["init"][..],
        &["snapshot", "--tag", "t", "."],
        &["snapshots"],
        &["ls", "--tag", "t"],
        &["diff", "t", "t"],
        &["find", "*.txt"],
        &["stats"],
        &["verify", "--read-data"],
        &["restore", "--tag", "t", "--into", "../back"],
    ] {
        let output = place.backupd(args).arg("--json").output()?;
        ensure!(output.status.success() && output.stderr.is_empty(), "{args:?}: {}", said(&output));
        let lines = json_lines(&output)?;
        ensure!(!lines.is_empty() && lines.iter().all(|line| line["event"].is_string()), "{args:?}: {lines:?}");
        if args[0] == "snapshot" {
            ensure!(lines.iter().any(|line| line["event"] == "progress"), "{lines:?}");
        }
    }
    let failed = place.backupd(&["ls", "--tag", "never", "--json"]).output()?;
    let line: Value = serde_json::from_slice(&failed.stdout)?;
    ensure!(failed.status.code() == Some(1) && line["event"] == "failed" && line["kind"] == "not-found", "{line}");
    Ok(())
}
