//! A practice in a temporary folder: settings, stores, the two daemons as processes, and an operations socket that can
//! be told to misbehave.
//!
//! Fault model of the socket: it never answers a quiesce (stuck), it hangs up in the middle (lost), it is not there
//! (absent). It never lies: what it hands over is a folder of real files.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const BACKUPD: &str = env!("CARGO_BIN_EXE_backupd");

/// How the operations socket behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    None,
    Stuck,
    Lost,
    /// It hangs up as soon as it has handed over the copy: it may take files of it away while they are read.
    Gone,
    /// Its records are damaged, and it says so.
    Damaged,
    /// Asked whether its records go on from an earlier snapshot, it says no. Otherwise it is of a release that knows no such
    /// question.
    SetBack,
}

pub struct Practice {
    pub dir: tempfile::TempDir,
    pub fault: Arc<Mutex<Fault>>,
}

/// A daemon; killed when dropped.
pub struct Daemon {
    pub child: Child,
    pub log: PathBuf,
}

impl Practice {
    /// Settings with two folder stores and the source `emr` behind the socket `o`.
    pub fn new(extra: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let stores = ["one", "two"].map(|name| {
            format!(
                "[[store]]\nname = \"{name}\"\nkind = \"folder\"\npath = \"{}\"\nsite = \"{name}\"\nprovider = \"p\"\n",
                at(name)
            )
        });
        fs::create_dir_all(dir.path().join("p")).unwrap();
        fs::create_dir_all(dir.path().join("data/sub")).unwrap();
        fs::write(dir.path().join("data/Jane-Doe-1970.txt"), "record of Jane").unwrap();
        fs::write(dir.path().join("data/sub/scan"), vec![7; 300_000]).unwrap();
        let serve = format!(
            "practice = \"P\"\ntime_zone = \"Europe/Berlin\"\nsite = \"here\"\nwriter_credential = \"writer.cred\"\n\
             state_dir = \"state\"\nsocket = \"{}\"\nhealth_socket = \"{}\"\nquorum = 1\nreport_key = \"report.pub\"\n\
             keep = [\"verifier.toml\"]\n{extra}\n\
             [[source]]\nname = \"emr\"\nkind = \"appliance\"\nops_socket = \"{}\"\nschedule = \"0 0 1 1 *\"\ndata_dir = \"emr\"\n{}{}",
            at("s"),
            at("h"),
            at("o"),
            stores[0],
            stores[1]
        );
        let verifier = format!(
            "practice = \"P\"\ntime_zone = \"Europe/Berlin\"\nhost = \"h\"\nsite = \"here\"\nopen_key = \"open.key\"\n\
             report_key = \"report.key\"\nstate_dir = \"verifier-state\"\nsocket = \"{}\"\ndrill_schedule = \"0 0 1 1 *\"\n\
             sandbox_dir = \"sandbox\"\nsame_host_as_writer = true\n[probe]\nmode = \"spawn\"\nprogram = \"/bin/false\"\n{}{}",
            at("v"),
            stores[0],
            stores[1]
        );
        fs::write(dir.path().join("p/serve.toml"), serve).unwrap();
        fs::write(dir.path().join("p/verifier.toml"), verifier).unwrap();
        let fault = Arc::new(Mutex::new(Fault::None));
        let it = Self { dir, fault };
        it.run(&["init", "--config", &it.at("p/serve.toml"), "--kit", &it.at("kit")]);
        it
    }

    /// Settings of a maintenance that looks by itself once a year, with these lines besides.
    pub fn set_up_maintenance(&self, more: &str) {
        let store = |name| {
            let path = self.at(name);
            format!(
                "[[store]]\nname = \"{name}\"\nkind = \"folder\"\npath = \"{path}\"\nsite = \"{name}\"\nprovider = \"p\"\n"
            )
        };
        let settings = format!(
            "practice = \"P\"\ntime_zone = \"Europe/Berlin\"\nstate_dir = \"maintain-state\"\nsocket = \"{}\"\n\
             maintain_schedule = \"0 6 1 1 *\"\n{more}\n{}{}",
            self.at("m"),
            store("one"),
            store("two")
        );
        fs::write(self.at("p/maintain.toml"), settings).unwrap();
    }

    pub fn at(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    /// Runs the command line to success and gives its standard output.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.output(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub fn output(&self, args: &[&str]) -> Output {
        let mut command = Command::new(BACKUPD);
        command.args(args).env_remove("BACKUPD_CONFIG").env_remove("BACKUPD_PASSPHRASE").stdin(Stdio::null());
        command.output().unwrap()
    }

    /// The last line of what `args --json` answers.
    pub fn ask(&self, daemon: &str, args: &[&str]) -> Value {
        let endpoint = format!("unix:{}", self.at(if daemon == "serve" { "s" } else { "v" }));
        let option = format!("--{daemon}");
        let mut all = args.to_vec();
        all.extend([option.as_str(), &endpoint, "--json"]);
        let output = self.output(&all);
        let text = String::from_utf8(output.stdout).unwrap();
        let last = text.lines().last().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        serde_json::from_str(last).unwrap()
    }

    pub fn start(&self, daemon: &str) -> Daemon {
        let log = self.dir.path().join(format!("{daemon}.log"));
        let child = Command::new(BACKUPD)
            .args([daemon, "--config", &self.at(&format!("p/{daemon}.toml"))])
            .env_remove("JOURNAL_STREAM")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut daemon = Daemon { child, log };
        wait_until(|| daemon.text().contains("ready") || daemon.child.try_wait().unwrap().is_some());
        daemon
    }

    /// Answers the operations socket in threads, as the fault says at the time of each quiesce.
    pub fn open_emr(&self) {
        let listener = UnixListener::bind(self.dir.path().join("o")).unwrap();
        let (fault, data) = (self.fault.clone(), self.dir.path().join("data"));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (fault, data) = (fault.clone(), data.clone());
                std::thread::spawn(move || emr(stream, &fault, &data));
            }
        });
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
    }
}

impl Daemon {
    pub fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGTERM, and the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_until(|| self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every file below a folder.
pub fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => files.extend(walk(&entry.path())),
            false => files.push(entry.path()),
        }
    }
    files
}

/// Looks again every 30 ms, for two minutes at most.
pub fn wait_until(mut done: impl FnMut() -> bool) {
    for _ in 0..4000 {
        if done() {
            return;
        }
        std::thread::park_timeout(Duration::from_millis(30));
    }
    panic!("it did not happen within two minutes");
}

fn emr(stream: std::os::unix::net::UnixStream, fault: &Mutex<Fault>, data: &Path) {
    let mut out = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        let ask: Value = serde_json::from_str(&line).unwrap();
        let answer = match ask["ask"].as_str().unwrap() {
            "hello" => r#"{"answer":"hello","protocol":1,"app_version":"0.1.0","schema_version":1}"#.to_owned(),
            "quiesce" => match *fault.lock().unwrap() {
                Fault::Stuck => loop {
                    std::thread::park();
                },
                Fault::Lost => return,
                Fault::Gone => {
                    let _ = out.write_all(format!("{}\n", quiesced(data, &[], None)).as_bytes());
                    return;
                }
                Fault::None => quiesced(data, &[], None),
                Fault::Damaged => quiesced(data, &["audit-chain"], None),
                Fault::SetBack => quiesced(data, &[], ask.get("follows").map(|_| false)),
            },
            _ => r#"{"answer":"thawed"}"#.to_owned(),
        };
        if out.write_all(format!("{answer}\n").as_bytes()).is_err() {
            return;
        }
    }
}

fn quiesced(data: &Path, damaged: &[&str], follows: Option<bool>) -> String {
    let mut answer = serde_json::json!({
        "answer": "quiesced", "lease": "l", "thaw_in_ms": 30000, "write_stall_us": 5,
        "parts": [{"name": "attachments", "path": data, "kind": "files"}],
        "facts": {
            "schema_version": 1, "resources": {"Patient": 1}, "history_rows": 1, "ledger_entries": 0,
            "ledger_balance_cents": 0, "attachments": 2, "attachment_bytes": 3, "attachments_digest": "a",
            "resources_digest": "b", "audit_entries": 1, "audit_head": "c", "newest_record_unix_ms": 1,
            "canary_sequence": 1, "canary_unix_ms": 1
        },
        "damaged": damaged, "golden_key": "0".repeat(64), "golden": []
    });
    if let Some(follows) = follows {
        answer["follows"] = follows.into();
    }
    answer.to_string()
}
