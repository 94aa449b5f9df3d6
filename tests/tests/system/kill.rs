//! The command line on one repository, killed at any moment, on full disks, with a state that cannot be written.

use anyhow::{Context, Result, ensure};
use holdfast_tests::disk::SmallDisk;
use holdfast_tests::{pause, steady_now};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

/// How often a snapshot is killed; the nightly run asks for more.
fn kills() -> u64 {
    std::env::var("HOLDFAST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100)
}

/// A repository, its state, and a source that changes from a seed.
struct Bench {
    dir: tempfile::TempDir,
    seed: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let bench = Self { dir: tempfile::Builder::new().prefix("hfkill").tempdir()?, seed: 20_261_125 };
        fs::create_dir_all(bench.source().join("letters"))?;
        for at in 0..150 {
            fs::write(bench.source().join(format!("letters/{at}.txt")), format!("Letter {at}\n").repeat(at * 7 + 1))?;
        }
        Ok(bench)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn source(&self) -> PathBuf {
        self.at("source")
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    fn noise(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.random().to_le_bytes()).take(len).collect()
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(holdfast_tests::program("backupd"));
        command
            .args([verb, "--repo"])
            .arg(self.at("repo"))
            .env("BACKUPD_PASSPHRASE", "a passphrase of this test")
            .env("BACKUPD_STATE", self.at("state"))
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    fn run(&self, command: &mut Command) -> Result<Output> {
        let output = command.output()?;
        ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(output)
    }

    fn snapshot(&self, tag: &str) -> Command {
        let mut command = self.command("snapshot");
        command.args(["--tag", tag]).arg(self.source()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }

    /// Some letters are rewritten, one file of noise is new, another one goes.
    fn change(&mut self) -> Result<()> {
        for _ in 0..5 {
            let (at, times) = (self.random() % 150, self.random() % 900);
            fs::write(self.source().join(format!("letters/{at}.txt")), format!("{times} ").repeat(times as usize))?;
        }
        let (slot, len) = (self.random() % 6, 200_000 + self.random() as usize % 3_000_000);
        let noise = self.noise(len);
        fs::write(self.source().join(format!("scan-{slot}")), noise)?;
        let gone = self.random() % 6;
        let _ = fs::remove_file(self.source().join(format!("scan-{gone}")));
        Ok(())
    }

    fn restored_as(&self, tag: &str) -> Result<BTreeMap<PathBuf, String>> {
        let into = self.at("restored");
        let _ = fs::remove_dir_all(&into);
        fs::create_dir(&into)?;
        self.run(self.command("restore").args(["--tag", tag, "--into"]).arg(&into))?;
        describe(&into)
    }

    fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for top in ["repo", "state"] {
            below(&self.at(top), &mut |path| {
                if path.extension().is_some_and(|ending| ending == "part") {
                    found.push(path.to_owned());
                }
            });
        }
        found
    }
}

fn below(dir: &Path, see: &mut dyn FnMut(&Path)) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            below(&path, see);
        }
        see(&path);
    }
}

/// Content, mode and time of every entry.
fn describe(root: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    below(root, &mut |path| {
        let Ok(meta) = fs::symlink_metadata(path) else { return };
        let content = fs::read(path).map(|bytes| blake3::hash(&bytes).to_string()).unwrap_or_default();
        let says = format!("{:o} {} {} {content}", meta.permissions().mode(), meta.mtime(), meta.mtime_nsec());
        let name = path.strip_prefix(root).unwrap_or(path).to_owned();
        found.insert(name, says);
    });
    ensure!(found.keys().all(|name| !name.as_os_str().as_bytes().is_empty()), "a name is empty");
    Ok(found)
}

#[test]
fn a_snapshot_killed_at_any_moment_costs_nothing_but_itself() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.run(&mut bench.command("init"))?;
    bench.change()?;
    let started = steady_now();
    bench.run(&mut bench.snapshot("whole"))?;
    let whole = started.elapsed().max(Duration::from_millis(30));
    let mut completed = BTreeMap::from([("whole".to_owned(), describe(&bench.source())?)]);
    let mut killed = 0u64;
    for round in 0..kills() {
        bench.change()?;
        let tag = format!("round-{round}");
        let mut child = bench.snapshot(&tag).spawn()?;
        pause(whole.mul_f64(bench.random() as f64 % 1000.0 / 900.0));
        child.kill()?;
        if child.wait()?.success() {
            completed.insert(tag, describe(&bench.source())?);
        } else {
            killed += 1;
        }
        let mut verify = bench.command("verify");
        if round % 10 == 9 {
            verify.arg("--read-data");
        }
        bench.run(&mut verify).with_context(|| format!("after kill {round}"))?;
        if round % 10 == 9 {
            let tag = format!("after-{round}");
            bench.run(&mut bench.snapshot(&tag)).with_context(|| format!("the run after kill {round}"))?;
            let now = describe(&bench.source())?;
            ensure!(bench.restored_as(&tag)? == now, "the snapshot after kill {round} is not what the source was");
            ensure!(bench.leftovers().is_empty(), "left behind after kill {round}: {:?}", bench.leftovers());
            completed.insert(tag, now);
        }
    }
    ensure!(killed >= kills() / 4, "only {killed} of {} runs were killed before they ended", kills());
    for (tag, before) in &completed {
        ensure!(bench.restored_as(tag)? == *before, "snapshot {tag} does not come back as it was");
    }
    println!("extra: {killed} of {} snapshots were killed, {} completed and came back", kills(), completed.len());
    Ok(())
}

#[test]
fn a_full_store_is_said_and_the_next_run_with_room_goes_on() -> Result<()> {
    let mut bench = Bench::new()?;
    let _small = SmallDisk::mount(&bench.at("repo"), "size=12m")?;
    bench.run(&mut bench.command("init"))?;
    bench.run(&mut bench.snapshot("fits"))?;
    let fits = describe(&bench.source())?;
    let noise = bench.noise(30_000_000);
    fs::write(bench.source().join("large"), noise)?;
    let full = bench.snapshot("too-much").output()?;
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    ensure!(full.status.code() == Some(1), "exit code {:?}: {said}", full.status.code());
    ensure!(said.contains("full") || said.contains("No space"), "it does not say that the store is full: {said}");
    ensure!(!said.contains("large"), "a file's name is in the message: {said}");
    bench.run(&mut bench.command("verify"))?;
    ensure!(bench.restored_as("fits")? == fits, "the earlier snapshot has suffered");
    fs::remove_file(bench.source().join("large"))?;
    fs::write(bench.source().join("small"), "small")?;
    // What the full disk took of the last run is no obstacle: there is room for a small one.
    bench.run(&mut bench.snapshot("fits-again"))?;
    ensure!(bench.restored_as("fits-again")? == describe(&bench.source())?);
    ensure!(bench.leftovers().is_empty(), "{:?}", bench.leftovers());
    Ok(())
}

#[test]
fn a_state_that_is_full_or_read_only_stops_no_backup() -> Result<()> {
    let bench = Bench::new()?;
    bench.run(&mut bench.command("init"))?;
    bench.run(&mut bench.snapshot("before"))?;
    let kept = bench.at("kept");
    fs::rename(bench.at("state"), &kept)?;
    for options in ["size=400k", "ro,size=4m"] {
        let small = SmallDisk::mount(&bench.at("state"), &options.replace("ro,", ""))?;
        let copied =
            Command::new("cp").arg("-a").arg(format!("{}/.", kept.display())).arg(bench.at("state")).status()?;
        ensure!(copied.success() || options.starts_with("size"), "the state cannot be copied");
        if options.starts_with("ro") {
            let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(bench.at("state")).status()?;
            ensure!(remount.success());
        }
        let tag = options.chars().take(2).collect::<String>();
        bench.run(&mut bench.snapshot(&tag)).with_context(|| options.to_owned())?;
        ensure!(bench.restored_as(&tag)? == describe(&bench.source())?);
        drop(small);
    }
    bench.run(bench.command("verify").arg("--read-data"))?;
    Ok(())
}
