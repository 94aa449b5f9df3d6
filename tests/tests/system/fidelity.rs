//! The command line and what a bad day brings, with the real program: disks that cannot read, damaged local state, two at
//! once, trees deeper than usual; and what a person sees on a terminal meanwhile.

use anyhow::{Context, Result, ensure};
use holdfast_tests::daemons::{Daemon, practice, serve_and_verify, start, with_config};
use holdfast_tests::place::{Place, awkward, describe, fails, last, noise, ok, said};
use holdfast_tests::{files, json_lines, pause, skip, wait_for};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The same command, run by another program that takes it as its last words.
fn through(program: &str, words: &[&OsStr], command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer.args(words).arg(command.get_program()).args(command.get_args());
    outer.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    outer.current_dir(command.get_current_dir().unwrap_or(Path::new("/"))).stdin(Stdio::null());
    outer
}

/// A command whose reads of these files fail as those of a broken disk do.
fn with_broken_disk(files: &[&Path], command: &Command) -> Command {
    let words = ["-f", "-o", "/dev/null", "-e", "trace=pread64", "-e", "inject=pread64:error=EIO"].map(OsStr::new);
    let files = files.iter().flat_map(|file| [OsStr::new("-P"), file.as_os_str()]);
    through("strace", &words.into_iter().chain(files).collect::<Vec<_>>(), command)
}

fn has_strace(test: &str) -> bool {
    let there = Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    if !there {
        skip(test, "strace is not installed: it makes reads fail");
    }
    there
}

fn restored(place: &Place, tag: &str) -> Result<PathBuf> {
    let into = place.path(&format!("back-{tag}"));
    ok(place.backupd(&["restore", "--tag", tag, "--into", into.to_str().context("path")?]))?;
    Ok(into)
}

#[test]
fn a_source_that_the_disk_cannot_read_makes_the_snapshot_partial() -> Result<()> {
    if !has_strace("a_source_that_the_disk_cannot_read_makes_the_snapshot_partial") {
        return Ok(());
    }
    let place = Place::made()?;
    awkward(&place.source())?;
    let bad = ["scan.bin", "letters/same-scan.bin"].map(|name| place.source().join(name));
    pause(Duration::from_millis(80));
    let taken =
        with_broken_disk(&[&bad[0], &bad[1]], &place.backupd(&["snapshot", "--tag", "broken", "."])).output()?;
    ensure!(taken.status.code() == Some(3), "{:?} {}", taken.status.code(), said(&taken));
    ensure!(said(&taken).contains("PARTIAL") && said(&taken).contains("by the disk"), "{}", said(&taken));
    ensure!(!said(&taken).contains("scan"), "names are record content: {}", said(&taken));
    let listed = ok(place.backupd(&["ls", "--tag", "broken", "--unreadable"]))?;
    // The file has two names.
    ensure!(listed.matches("input-output").count() == 2 && listed.contains("scan.bin"), "{listed}");
    fails(place.backupd(&["restore", "--into", "/nonexistent"]), 1, &["no whole snapshot"])?;
    // Everything else is there, and with a disk that reads, so is this; nothing was remembered wrongly.
    let rest = place.path("back-broken");
    let told = place.backupd(&["restore", "--tag", "broken", "--into", rest.to_str().context("path")?]).output()?;
    ensure!(told.status.code() == Some(3) && said(&told).contains("PARTIAL"), "what it lacks is told: {}", said(&told));
    ensure!(!rest.join("scan.bin").exists() && rest.join("letters/2026/letter-7.txt").exists());
    let before = describe(&place.source(), true)?;
    let well = place.snapshot("well")?;
    ensure!(well["partial"] == false, "{well}");
    ensure!(describe(&restored(&place, "well")?, true)? == before, "the restored tree is another one");
    Ok(())
}

#[test]
fn a_store_that_the_disk_cannot_read_is_named_and_leaves_nothing_half_written() -> Result<()> {
    if !has_strace("a_store_that_the_disk_cannot_read_is_named_and_leaves_nothing_half_written") {
        return Ok(());
    }
    let place = Place::made()?;
    awkward(&place.source())?;
    fs::write(place.source().join("large"), noise(5, 9_000_000))?;
    place.snapshot("t")?;
    // Which of the large packs holds the small files, their names decide: each one is tried.
    let packs = files(&place.repo().join("packs"));
    let size = |pack: &PathBuf| pack.metadata().map_or(0, |meta| meta.len());
    let largest = packs.iter().map(size).max().context("a pack")?;
    let bad: Vec<_> = packs.iter().filter(|pack| size(pack) == largest).collect();
    let mut most = 0;
    for pack in &bad {
        most = most.max(around_a_pack_that_the_disk_cannot_read(&place, pack)?);
    }
    ensure!(most > 5, "whichever of {} packs cannot be read, {most} files come back at most", bad.len());
    Ok(())
}

/// Restores with a pack that fails to read, then without: how many files the first one gave back.
fn around_a_pack_that_the_disk_cannot_read(place: &Place, bad: &Path) -> Result<usize> {
    let name = bad.file_name().and_then(OsStr::to_str).context("name")?;
    let into = place.path(&format!("back-{name}"));
    let restore =
        || Ok::<_, anyhow::Error>(place.backupd(&["restore", "--tag", "t", "--into", into.to_str().context("path")?]));
    let output = with_broken_disk(&[bad], &restore()?).output()?;
    let words = said(&output);
    ensure!(output.status.code() == Some(1), "{:?} {words}", output.status.code());
    for word in ["at store repo", name, "is corrupt", "verify --read-data", "another store"] {
        ensure!(words.contains(word), "`{word}` is missing in: {words}");
    }
    ensure!(!words.contains("large") && !words.contains("scan"), "names are record content: {words}");
    let (mut whole, mut absent) = (0, 0);
    for file in files(&place.source()).into_iter().filter(|file| file.is_file()) {
        match fs::read(into.join(file.strip_prefix(place.source())?)) {
            Err(_) => absent += 1,
            Ok(bytes) => {
                ensure!(bytes == fs::read(&file)?, "a file is half-written");
                whole += 1;
            }
        }
    }
    ensure!(absent > 0, "nothing is absent");
    let verify = with_broken_disk(&[bad], &place.backupd(&["verify", "--read-data"])).output()?;
    ensure!(verify.status.code() == Some(1) && said(&verify).contains(name), "{}", said(&verify));
    // The disk reads again: the same restore goes on from there.
    ok(restore()?)?;
    ensure!(describe(&into, true)? == describe(&place.source(), true)?, "the restored tree is another one");
    Ok(whole)
}

fn flip(file: &Path, at: usize) -> Result<bool> {
    let mut bytes = fs::read(file)?;
    let Some(byte) = bytes.get_mut(at) else { return Ok(false) };
    *byte ^= 0x21;
    fs::write(file, bytes)?;
    Ok(true)
}

/// Every file of the local state, damaged at many places: a snapshot is whole all the same, and everything verifies.
#[test]
fn damage_anywhere_in_the_local_state_costs_no_snapshot() -> Result<()> {
    let place = Place::made()?;
    awkward(&place.source())?;
    place.snapshot("before")?;
    let (mut damaged, mut tags) = (0, Vec::new());
    for (round, part) in [0, 3, 30, 50, 90, 99].into_iter().enumerate() {
        for file in files(&place.path("state")) {
            let len = usize::try_from(file.metadata()?.len())?;
            damaged += usize::from(flip(&file, (len * part / 100).min(len.saturating_sub(1)))?);
        }
        fs::write(place.source().join("latest"), format!("round {round}"))?;
        let tag = format!("round-{round}");
        pause(Duration::from_millis(80));
        let words = said(&place.backupd(&["snapshot", "--tag", &tag, "."]).output()?);
        ensure!(words.contains("durable") && !words.contains("PARTIAL"), "{words}");
        ensure!(words.contains("are damaged") && words.contains("new ones are made"), "{words}");
        tags.push(tag);
    }
    ensure!(damaged > 20, "{damaged} places were damaged");
    // Damage in the writer's keys alone, at a place that only a checksum knows.
    let keys = files(&place.path("state")).into_iter().find(|file| file.ends_with("writer.cred")).context("keys")?;
    ensure!(flip(&keys, 700)?);
    fails(no_passphrase(&place), 2, &["are damaged", "set BACKUPD_PASSPHRASE"])?;
    place.snapshot("after")?;
    ensure!(ok(no_passphrase(&place))?.contains("durable"), "the new keys are kept");
    ok(place.backupd(&["verify", "--read-data"]))?;
    ensure!(describe(&restored(&place, "after")?, true)? == describe(&place.source(), true)?);
    for (round, tag) in tags.iter().enumerate() {
        ensure!(fs::read_to_string(restored(&place, tag)?.join("latest"))? == format!("round {round}"));
    }
    // And none of it at all.
    fs::remove_dir_all(place.path("state"))?;
    let taken = place.snapshot("without")?;
    ensure!(taken["bytes_added"].as_u64().is_some_and(|added| added < 300_000), "what is stored is known: {taken}");
    Ok(())
}

/// A practice's writer credential with one changed bit: the daemon does not start with it, and `keys refresh` makes another.
#[test]
fn a_damaged_writer_credential_is_told_and_made_again() -> Result<()> {
    let place = Place::new()?;
    let dir = place.path("p");
    practice(&dir)?;
    fs::write(dir.join("data/letter.txt"), b"Dear patient")?;
    drop(start(&place, &dir)?);
    // In the id key, where every value looks right; in the seal key some changes are malformed before they are changes.
    ensure!(flip(&dir.join("writer.cred"), 70)?);
    let words =
        fails(with_config(&place, &dir, &["serve"], "serve.toml"), 1, &["has changed", "backupd keys refresh"])?;
    ensure!(words.contains("writer_credential"), "{words}");
    let mut refresh = place.bare(&["keys", "refresh", "--config", "serve.toml", "--paper-key-file", "paper.txt"]);
    refresh.env_remove("BACKUPD_PASSPHRASE").current_dir(&dir);
    ensure!(ok(refresh)?.contains("a new writer"));
    let _daemons = serve_and_verify(&place, &dir)?;
    ok(with_config(&place, &dir, &["snapshot", "--tag", "t"], "serve.toml"))?;
    ok(with_config(&place, &dir, &["restore", "--tag", "t", "--into", "../back"], "verifier.toml"))?;
    ensure!(fs::read(place.path("back/files/letter.txt"))? == b"Dear patient");
    Ok(())
}

fn no_passphrase(place: &Place) -> Command {
    let mut command = place.backupd(&["snapshot", "."]);
    command.env_remove("BACKUPD_PASSPHRASE");
    command
}

/// Both begin in the same moment, again and again: from two machines both succeed; on one machine one of them may be told to
/// wait, and no snapshot is harmed.
#[test]
fn two_snapshots_in_the_same_moment() -> Result<()> {
    let place = Place::made()?;
    awkward(&place.source())?;
    let (mut taken, mut told) = (Vec::new(), 0);
    for round in 0..4 {
        for same in [true, false] {
            // The first time there is nothing in the repository, and the second machine has no state either.
            fs::write(place.source().join("latest"), noise(round * 2 + u64::from(same), 3_000_000))?;
            pause(Duration::from_millis(80));
            let run = |name: &str, state: &str| {
                let tag = format!("{name}-{round}-{same}");
                let mut command = place.backupd(&["snapshot", "--tag", &tag, "."]);
                command.env("BACKUPD_STATE", place.path(state)).stdout(Stdio::piped()).stderr(Stdio::piped());
                Ok::<_, anyhow::Error>((tag, command.spawn()?))
            };
            let both = [run("a", "state")?, run("b", if same { "state" } else { "state-of-another-machine" })?];
            let content = fs::read(place.source().join("latest"))?;
            let mut succeeded = 0;
            for (tag, child) in both {
                let output = child.wait_with_output()?;
                if output.status.success() {
                    succeeded += 1;
                    taken.push((tag, content.clone()));
                } else {
                    let words = said(&output);
                    ensure!(output.status.code() == Some(1) && words.contains("another backup"), "{words}");
                    ensure!(same && words.contains("wait for it"), "from two machines both succeed: {words}");
                    told += 1;
                }
            }
            ensure!(succeeded >= if same { 1 } else { 2 }, "round {round}: {succeeded}");
        }
    }
    println!("extra: {told} of 4 were told to wait");
    ok(place.backupd(&["verify", "--read-data"]))?;
    let stats = place.stats()?;
    ensure!(stats["snapshots"].as_array().map(Vec::len) == Some(taken.len()), "{stats}");
    for (tag, content) in &taken {
        ensure!(fs::read(restored(&place, tag)?.join("latest"))? == *content, "{tag}");
    }
    Ok(())
}

/// A tree deeper than a process may usually have files open: it is taken whole all the same.
#[test]
fn a_tree_deeper_than_the_usual_limit_of_open_files() -> Result<()> {
    const LEVELS: usize = 400;
    let place = Place::made()?;
    let down = |top: &Path, make: bool| -> Result<OwnedFd> {
        let mut at = OwnedFd::from(File::open(top)?);
        for _ in 0..LEVELS {
            if make {
                rustix::fs::mkdirat(&at, "a-folder-in-a-folder", Mode::RWXU)?;
            }
            at = rustix::fs::openat(&at, "a-folder-in-a-folder", OFlags::DIRECTORY, Mode::empty())?;
        }
        Ok(at)
    };
    let bottom = down(&place.source(), true)?;
    let file = rustix::fs::openat(&bottom, "deep", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR)?;
    rustix::io::write(&file, b"at the bottom")?;
    pause(Duration::from_millis(80));
    let few =
        |command: Command| through("sh", &["-c", "ulimit -Sn 100 && exec \"$0\" \"$@\""].map(OsStr::new), &command);
    let words = ok(few(place.backupd(&["snapshot", "--tag", "t", "."])))?;
    ensure!(words.contains("holds 1 files"), "{words}");
    ok(few(place.backupd(&["verify", "--read-data"])))?;
    let back = place.path("back");
    ok(few(place.backupd(&["restore", "--tag", "t", "--into", back.to_str().context("path")?])))?;
    let file = rustix::fs::openat(down(&back, false)?, "deep", OFlags::RDONLY, Mode::empty())?;
    let mut content = String::new();
    File::from(file).read_to_string(&mut content)?;
    ensure!(content == "at the bottom");
    Ok(())
}

/// What a command writes on a terminal of its own.
fn on_a_terminal(mut command: Command) -> Result<String> {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
    grantpt(&terminal)?;
    unlockpt(&terminal)?;
    tcsetwinsize(&terminal, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 })?;
    let name = ptsname(&terminal, Vec::new())?;
    let other = File::options().read(true).write(true).open(OsStr::from_bytes(name.to_bytes()))?;
    command.env("TERM", "xterm").stdout(other.try_clone()?).stderr(other);
    let mut child = command.spawn()?;
    // The command holds the terminal's other side; when it has ended, reading here fails.
    drop(command);
    let (mut seen, mut piece) = (Vec::new(), [0u8; 4096]);
    let mut terminal = File::from(terminal);
    while let Ok(len @ 1..) = terminal.read(&mut piece) {
        seen.extend_from_slice(piece.get(..len).unwrap_or_default());
    }
    let seen = String::from_utf8_lossy(&seen).into_owned();
    ensure!(child.wait()?.success(), "{seen}");
    Ok(seen)
}

/// Whether a bar of this kind of work was drawn with bytes, rate and the time left: `3.00 MiB/9.00 MiB 60.1 MiB/s 2s`.
fn has_bar(seen: &str, work: &str) -> bool {
    let left = |text: &str| text.strip_suffix(['s', 'm', 'h']).is_some_and(|number| number.parse::<u32>().is_ok());
    seen.split(work).skip(1).any(|bar| {
        let bar = bar.split(['\r', '\n', '\u{1b}']).next().unwrap_or_default();
        let words: Vec<&str> = bar.split_whitespace().collect();
        let rate = words.iter().position(|word| word.ends_with("B/s"));
        let total = bar.contains("iB/") && (bar.contains('█') || bar.contains('░'));
        total && rate.and_then(|at| words.get(at + 1)).is_some_and(|word| left(word))
    })
}

#[test]
fn a_terminal_shows_bars_with_rate_and_time_left_and_a_pipe_shows_none() -> Result<()> {
    let place = Place::made()?;
    let (mut taken, mut back) = (String::new(), String::new());
    // As long as it takes until something is drawn meanwhile: how fast it is here is not judged.
    for size in [128, 256, 512, 1024] {
        fs::write(place.source().join("scan"), noise(size, (size as usize) << 20))?;
        let tag = format!("of-{size}");
        taken = on_a_terminal(place.backupd(&["snapshot", "--tag", &tag, "."]))?;
        let into = place.path(&tag);
        back = on_a_terminal(place.backupd(&["restore", "--tag", &tag, "--into", into.to_str().context("path")?]))?;
        fs::remove_dir_all(into)?;
        if has_bar(&taken, "reading and sealing") && has_bar(&back, "reading from the store") {
            break;
        }
    }
    ensure!(has_bar(&taken, "reading and sealing"), "no bar with rate and time left: {taken:?}");
    ensure!(has_bar(&back, "reading from the store"), "no bar with rate and time left: {back:?}");
    ensure!(taken.contains("Snapshot") && back.contains("Restored"), "{taken:?} {back:?}");
    // In a pipe there is the answer and nothing else; with --json there are lines of progress with the same figures.
    let piped = place.backupd(&["snapshot", "."]).output()?;
    ensure!(piped.status.success() && piped.stderr.is_empty() && !said(&piped).contains('█'), "{}", said(&piped));
    let into = place.path("json");
    let lines = json_lines(&place.backupd(&["restore", "--json", "--into", into.to_str().context("path")?]).output()?)?;
    let progress = lines.iter().rfind(|line| line["event"] == "progress").context("progress")?;
    ensure!(progress["phase"] == "fetch" && progress["total_bytes"].as_u64() > Some(1 << 20), "{progress}");
    Ok(())
}

/// The verifier restores over what is there, from one store or from the one that gives it whole.
#[test]
fn the_verifier_restores_in_place() -> Result<()> {
    let place = Place::new()?;
    let dir = place.path("p");
    practice(&dir)?;
    awkward(&dir.join("data"))?;
    let _daemons = start(&place, &dir)?;
    ok(with_config(&place, &dir, &["snapshot", "--tag", "first"], "serve.toml"))?;
    let before = describe(&dir.join("data"), true)?;
    let restore = |more: &[&str]| {
        with_config(
            &place,
            &dir,
            &[&["restore", "--tag", "first", "--into", "../back"], more].concat(),
            "verifier.toml",
        )
    };
    ok(restore(&[]))?;
    let back = place.path("back/files");
    ensure!(describe(&back, true)? == before, "the restored tree is another one");
    fs::write(back.join("letters/2026/letter-7.txt"), b"spoilt")?;
    fs::remove_file(back.join("scan.bin"))?;
    fails(restore(&[]), 2, &["already holds", "--overwrite"])?;
    ensure!(fs::read(back.join("letters/2026/letter-7.txt"))? == b"spoilt", "a refused restore changes nothing");
    let done = last(json_lines(&restore(&["--overwrite", "--json"]).output()?)?, "restore-done")?;
    let written = done["bytes"].as_u64().context("bytes")?;
    ensure!(0 < written && written < 3_100_000, "only what differs is written: {done}");
    // The directories' times are set after what was made in them.
    ensure!(describe(&back, true)? == before, "the restored tree is another one");

    let packs = files(&dir.join("store-one/packs")).into_iter();
    let bad = packs.max_by_key(|pack| pack.metadata().map_or(0, |meta| meta.len())).context("a pack")?;
    let len = usize::try_from(bad.metadata()?.len())?;
    for at in (0..len).step_by(5000) {
        flip(&bad, at)?;
    }
    fs::remove_dir_all(place.path("back"))?;
    fails(restore(&["--store", "one"]), 1, &["at store one", "another store"])?;
    fs::remove_dir_all(place.path("back"))?;
    ok(restore(&[]))?;
    ensure!(describe(&back, true)? == before, "the other store gives it whole");
    Ok(())
}

/// Two `backupd serve` on the same stores: with one state folder the second one says so and ends; with two, both take
/// snapshots in the same moment.
#[test]
fn two_daemons_on_one_repository() -> Result<()> {
    let place = Place::new()?;
    let dir = place.path("p");
    practice(&dir)?;
    awkward(&dir.join("data"))?;
    let _daemons = start(&place, &dir)?;
    let settings = fs::read_to_string(dir.join("serve.toml"))?.replace("s.sock", "second.sock");
    fs::write(dir.join("same-state.toml"), &settings)?;
    fails(with_config(&place, &dir, &["serve"], "same-state.toml"), 1, &["another backupd", "state_dir"])?;
    fs::write(dir.join("second.toml"), settings.replace("state/serve", "state/second"))?;
    let serve =
        with_config(&place, &dir, &["serve"], "second.toml").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let _second = Daemon(serve);
    wait_for("the second daemon", 60, || dir.join("second.sock").exists().then_some(()))?;
    for round in 0..3 {
        fs::write(dir.join("data/latest"), noise(round, 2_000_000))?;
        pause(Duration::from_millis(80));
        let both = ["serve.toml", "second.toml"].map(|config| {
            let tag = format!("{config}-{round}");
            with_config(&place, &dir, &["snapshot", "--tag", &tag], config)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
        });
        for child in both {
            let output = child?.wait_with_output()?;
            ensure!(output.status.success(), "{}", said(&output));
        }
    }
    let before = describe(&dir.join("data"), true)?;
    for config in ["serve.toml", "second.toml"] {
        let (tag, into) = (format!("{config}-2"), place.path(config));
        let words = ["restore", "--tag", &tag, "--into", into.to_str().context("path")?];
        ok(with_config(&place, &dir, &words, "verifier.toml"))?;
        ensure!(describe(&into.join("files"), true)? == before, "{config}: the restored tree is another one");
    }
    ok(with_config(&place, &dir, &["verify", "--read-data"], "verifier.toml"))?;
    let rows = json_lines(&with_config(&place, &dir, &["snapshots", "--json"], "verifier.toml").output()?)?;
    ensure!(rows[0]["snapshots"].as_array().map(Vec::len) == Some(6), "{rows:?}");
    Ok(())
}
