//! What the whole-system tests share: a practice made by the real quickstart from the real release binaries.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

pub mod daemons;
pub mod disk;
pub mod golden;
pub mod http;
pub mod place;
pub mod servers;
pub mod tree;

/// The folder of the programs under test: `HOLDFAST_BIN_DIR`, or the profile folder that this test was built into.
pub fn bin_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("HOLDFAST_BIN_DIR") {
        return dir.into();
    }
    let test = std::env::current_exe().expect("path of the test program");
    test.ancestors().nth(2).expect("target/<profile>/deps/<test>").to_owned()
}

/// The path of one program under test.
pub fn program(name: &str) -> PathBuf {
    let path = bin_dir().join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --release` or `./tests/run build` first", path.display());
    path
}

/// Tells `tests/run` that a test did not run here, and why: it names it at the end, and with `CI=true` that is a failure.
pub fn skip(test: &str, reason: &str) {
    eprintln!("skipped: {reason}");
    let Some(path) = std::env::var_os("HOLDFAST_SKIPS") else { return };
    let noted = std::fs::OpenOptions::new().create(true).append(true).open(path);
    let noted =
        noted.and_then(|mut file| std::io::Write::write_all(&mut file, format!("{test}\t{reason}\n").as_bytes()));
    noted.expect("the list of skipped tests can be written");
}

/// The repository's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

/// A running practice. Dropping it ends quickstart and all that it started.
pub struct Practice {
    pub dir: PathBuf,
    child: Option<Child>,
    pub table: Vec<String>,
    _temp: tempfile::TempDir,
}

/// The longest that quickstart may take until the practice runs.
const START_TIMEOUT: Duration = Duration::from_secs(300);

impl Practice {
    /// Makes a practice with a few seeded patients and waits until it runs.
    pub fn start(patients: u32) -> Result<Self> {
        let temp = tempfile::Builder::new().prefix("hf").tempdir()?;
        Self::start_in(temp, patients)
    }

    /// The same in a folder that the test has made.
    pub fn start_in(temp: tempfile::TempDir, patients: u32) -> Result<Self> {
        let dir = temp.path().join("practice");
        let mut practice = Self { dir, child: None, table: Vec::new(), _temp: temp };
        practice.resume(&["--patients", &patients.to_string(), "--seed", "7"])?;
        Ok(practice)
    }

    /// Starts quickstart on the practice's folder and waits for `holdfast is running`.
    pub fn resume(&mut self, more: &[&str]) -> Result<()> {
        ensure!(self.child.is_none(), "it runs already");
        let mut child = quickstart(&self.dir).args(more).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        let stdout = child.stdout.take().context("stdout")?;
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    // Nobody listens any more; keep draining, so that quickstart never blocks on a full pipe.
                }
            }
        });
        self.child = Some(child);
        self.table.clear();
        loop {
            match lines.recv_timeout(START_TIMEOUT) {
                Ok(line) => {
                    let running = line.contains("holdfast is running");
                    self.table.push(line);
                    if running {
                        return Ok(());
                    }
                }
                Err(_) => bail!("quickstart did not come up; it said:\n{}", self.table.join("\n")),
            }
        }
    }

    /// Ends quickstart as Ctrl-C would and returns its exit code.
    pub fn stop(&mut self) -> Result<i32> {
        let mut child = self.child.take().context("it does not run")?;
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
        Ok(child.wait()?.code().unwrap_or(-1))
    }

    /// Kills quickstart with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The pid of one of the practice's programs, found among quickstart's descendants by what its command line holds.
    pub fn pid(&self, command: &str) -> Result<i32> {
        let child = self.child.as_ref().context("it does not run")?;
        descendants(i32::try_from(child.id())?)
            .into_iter()
            .find(|pid| command_line(*pid).contains(command))
            .with_context(|| format!("a process of the practice with `{command}`"))
    }

    /// The pids of all of the practice's programs.
    pub fn pids(&self) -> Result<Vec<i32>> {
        Ok(descendants(i32::try_from(self.child.as_ref().context("it does not run")?.id())?))
    }

    /// Sends a signal to one of the practice's programs.
    pub fn signal(&self, command: &str, signal: rustix::process::Signal) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(self.pid(command)?).context("pid")?;
        Ok(rustix::process::kill_process(pid, signal)?)
    }

    /// Runs `backupd` against the practice's daemons and returns its JSON lines.
    pub fn backupd(&self, args: &[&str]) -> Result<Vec<Value>> {
        json_lines(&self.backupd_output(args)?)
    }

    /// Runs `backupd` against the practice's daemons, whatever its exit code.
    pub fn backupd_output(&self, args: &[&str]) -> Result<Output> {
        Ok(Command::new(program("backupd"))
            .arg(args[0])
            .args(["--json", "--config"])
            .arg(self.dir.join("backupd/cli.toml"))
            .args(&args[1..])
            .output()?)
    }

    /// A user of `users.toml`: name, password, one-time secret.
    pub fn user(&self, name: &str) -> Result<User> {
        let text = std::fs::read_to_string(self.dir.join("users.toml"))?;
        let users: toml::Value = toml::from_str(&text)?;
        let list = users["user"].as_array().context("users")?;
        let user = list.iter().find(|u| u["name"].as_str() == Some(name)).with_context(|| format!("user {name}"))?;
        let field = |key: &str| Ok::<_, anyhow::Error>(user[key].as_str().context("a text")?.to_owned());
        let program = field("program")?;
        let port = self.port(if program == "emr" { "appliance" } else { program.as_str() })?;
        Ok(User {
            name: name.to_owned(),
            password: field("password")?,
            totp_secret: field("totp_secret")?,
            url: format!("https://localhost:{port}"),
        })
    }

    /// A port of `quickstart.toml`.
    pub fn port(&self, name: &str) -> Result<i64> {
        let text = std::fs::read_to_string(self.dir.join("quickstart.toml"))?;
        let settings: toml::Value = toml::from_str(&text)?;
        settings["ports"][name].as_integer().with_context(|| format!("port of {name}"))
    }

    /// The practice's own certificate authority, PEM.
    pub fn ca(&self) -> Result<Vec<u8>> {
        Ok(std::fs::read(self.dir.join("ca/ca.pem"))?)
    }
}

/// Somebody who can sign in.
#[derive(Clone)]
pub struct User {
    pub name: String,
    pub password: String,
    pub totp_secret: String,
    pub url: String,
}

/// All processes below `pid`.
pub fn descendants(pid: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            let (_, rest) = stat.rsplit_once(')')?;
            Some((pid, rest.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![pid];
    let mut at = 0;
    while at < found.len() {
        let this = found[at];
        found.extend(parents.iter().filter(|(_, parent)| *parent == this).map(|(child, _)| *child));
        at += 1;
    }
    found.split_off(1)
}

/// User and system time of a process so far, seconds.
pub fn cpu_s(pid: i32) -> Result<f64> {
    /// The kernel's clock ticks in /proc/PID/stat.
    const TICKS_PER_S: f64 = 100.0;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit(')').next().context("stat")?;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(str::parse::<f64>).sum::<Result<f64, _>>()?;
    Ok(ticks / TICKS_PER_S)
}

/// The command line of a process, words joined by spaces; empty when it is gone.
pub fn command_line(pid: i32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

impl Drop for Practice {
    fn drop(&mut self) {
        if self.child.is_some() {
            let _ = self.stop();
        }
    }
}

/// `quickstart` on a folder, with the programs under test.
pub fn quickstart(dir: &Path) -> Command {
    let mut command = Command::new(program("quickstart"));
    command.arg("--dir").arg(dir).arg("--no-build").arg("--bin-dir").arg(bin_dir());
    command
}

/// The JSON lines of a program that succeeded.
pub fn json_lines(output: &Output) -> Result<Vec<Value>> {
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "exit code {:?}: {stderr}", output.status.code());
    let text = std::str::from_utf8(&output.stdout)?;
    text.lines().filter(|l| !l.is_empty()).map(|l| Ok(serde_json::from_str(l)?)).collect()
}

/// Every file below `dir`, sorted.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let mut out = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() { todo.push(path) } else { out.push(path) }
        }
    }
    out.sort();
    out
}

/// Waits until `ready` gives a value; an honest failure after `seconds`.
pub fn wait_for<T>(what: &str, seconds: u64, mut ready: impl FnMut() -> Option<T>) -> Result<T> {
    for _ in 0..seconds * 5 {
        if let Some(value) = ready() {
            return Ok(value);
        }
        pause(Duration::from_millis(200));
    }
    bail!("waited {seconds} s for {what}")
}

/// A steady clock, to learn how long something takes here; never to judge it.
#[expect(clippy::disallowed_methods, reason = "a whole-system test learns how long a program runs")]
pub fn steady_now() -> std::time::Instant {
    std::time::Instant::now()
}

/// A number that differs from run to run, for moments and sizes; printed by whoever fails with it.
#[expect(clippy::disallowed_methods, reason = "only a seed")]
pub fn seed() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.as_nanos() as u64 | 1)
}

/// Lets the programs under test go on for a while.
#[expect(clippy::disallowed_methods, reason = "a whole-system test waits for other processes")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
