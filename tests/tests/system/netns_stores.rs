//! Three stores on hosts of their own, each at the end of its own cable, and faults on the third one's: cut, rejected,
//! throttled, delayed, while the real daemon takes snapshots. The two others are never held back, and the third catches up.

use anyhow::{Context, Result, ensure};
use holdfast_tests::daemons::{self, Daemon, with_config};
use holdfast_tests::place::{Place, describe, noise, ok};
use holdfast_tests::servers::S3_KEY;
use holdfast_tests::{files, json_lines, program, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const STORES: [&str; 3] = ["one", "two", "three"];

/// `ip` or `tc`, which must succeed.
fn net(tool: &str, words: &str) -> Result<()> {
    let out = Command::new(tool).args(words.split(' ')).output().with_context(|| format!("{tool} of iproute2"))?;
    ensure!(out.status.success(), "{tool} {words}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(())
}

/// The practice's host and one for each store, each a network namespace; removed on drop.
struct Hosts {
    practice: String,
    stores: Vec<String>,
}

impl Hosts {
    fn new() -> Result<Self> {
        let id = std::process::id();
        let stores = (1..=STORES.len()).map(|number| format!("hfs{id}-{number}")).collect();
        let hosts = Self { practice: format!("hfp{id}"), stores };
        let here = &hosts.practice;
        net("ip", &format!("netns add {here}"))?;
        net("ip", &format!("-n {here} link set lo up"))?;
        for (at, store) in hosts.stores.iter().enumerate() {
            let number = at + 1;
            net("ip", &format!("netns add {store}"))?;
            net("ip", &format!("-n {here} link add wire{number} type veth peer name wire netns {store}"))?;
            net("ip", &format!("-n {here} addr add 10.98.{number}.1/30 dev wire{number}"))?;
            net("ip", &format!("-n {store} addr add 10.98.{number}.2/30 dev wire"))?;
            net("ip", &format!("-n {here} link set wire{number} up"))?;
            net("ip", &format!("-n {store} link set wire up"))?;
        }
        Ok(hosts)
    }

    /// The third store's cable does this from now on.
    fn fault(&self, fault: Fault) -> Result<()> {
        let (here, there) = (&self.practice, &self.stores[2]);
        let slow = |what: &str| {
            net("tc", &format!("-n {here} qdisc add dev wire3 root {what}"))?;
            net("tc", &format!("-n {there} qdisc add dev wire root {what}"))
        };
        match fault {
            // What comes is taken, and no answer ever goes back.
            Fault::Cut => net("ip", &format!("-n {there} route add blackhole 10.98.3.1/32")),
            Fault::Rejected => net("ip", &format!("-n {here} route add unreachable 10.98.3.2/32")),
            Fault::Throttled => slow("tbf rate 800kbit burst 8kb latency 400ms"),
            // Not every kernel has the one; a narrow cable with a deep queue delays as well.
            Fault::Delayed => slow("netem delay 150ms").or_else(|_| slow("tbf rate 2mbit burst 2kb latency 3s")),
        }
    }

    /// The third store's cable is as good as any other.
    fn mend(&self, fault: Fault) -> Result<()> {
        let (here, there) = (&self.practice, &self.stores[2]);
        match fault {
            Fault::Cut => net("ip", &format!("-n {there} route del blackhole 10.98.3.1/32")),
            Fault::Rejected => net("ip", &format!("-n {here} route del unreachable 10.98.3.2/32")),
            Fault::Throttled | Fault::Delayed => {
                net("tc", &format!("-n {here} qdisc del dev wire3 root"))?;
                net("tc", &format!("-n {there} qdisc del dev wire root"))
            }
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in self.stores.iter().chain([&self.practice]) {
            let _ = Command::new("ip").args(["netns", "del", host]).status();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Rejected,
    Throttled,
    Delayed,
}

/// `backupd` or another program on a host, by its full path.
fn on(host: &str, command: &Command) -> Command {
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", host]).arg(command.get_program()).args(command.get_args());
    inside.env_clear();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            inside.env(name, value);
        }
    }
    if let Some(dir) = command.get_current_dir() {
        inside.current_dir(dir);
    }
    inside.stdin(Stdio::null());
    inside
}

fn s3_server(host: &str, dir: &Path, number: usize) -> Result<Daemon> {
    fs::create_dir_all(dir)?;
    let keys = dir.join("keys.toml");
    let (access, secret) = S3_KEY;
    fs::write(&keys, format!("[[key]]\naccess_key='{access}'\nsecret_key='{secret}'\nmay=['read','create']\n"))?;
    fs::set_permissions(&keys, PermissionsExt::from_mode(0o600))?;
    let mut server = Command::new(program("s3-server"));
    server.args(["--listen", &format!("10.98.{number}.2:9000"), "--bucket", "practice", "--root"]);
    server.arg(dir.join("root")).arg("--access-key-file").arg(&keys).arg("--allow-remote");
    let mut child: Child = on(host, &server).stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
    ensure!(line.starts_with("listening on "), "the store's server says {line:?}");
    Ok(Daemon(child))
}

fn settings(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir)?;
    for (name, key) in [("access", S3_KEY.0), ("secret", S3_KEY.1)] {
        fs::write(dir.join(name), key)?;
        fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o600))?;
    }
    let store = |(at, name): (usize, &&str)| {
        format!(
            "[[store]]\nname = \"{name}\"\nkind = \"s3\"\nendpoint = \"http://10.98.{}.2:9000\"\nbucket = \"practice\"\n\
             access_key_file = \"access\"\nsecret_key_file = \"secret\"\nsite = \"site-{name}\"\nprovider = \"{name}\"\n",
            at + 1
        )
    };
    daemons::practice_with(dir, &STORES.iter().enumerate().map(store).collect::<String>())
}

fn objects(root: &Path) -> BTreeSet<PathBuf> {
    let inside = files(root).into_iter().filter_map(|path| path.strip_prefix(root).ok().map(Path::to_owned));
    inside.filter(|name| name.components().all(|part| part.as_os_str() != "probe")).collect()
}

#[test]
fn a_store_behind_a_bad_cable_holds_back_no_other_and_catches_up() -> Result<()> {
    let test = "a_store_behind_a_bad_cable_holds_back_no_other_and_catches_up";
    if !rustix::process::geteuid().is_root() {
        holdfast_tests::skip(test, "network namespaces need root");
        return Ok(());
    }
    let place = Place::new()?;
    let dir = place.path("practice");
    settings(&dir)?;
    let hosts = Hosts::new()?;
    let root = |at: usize| place.path(&format!("store-{at}"));
    let started = hosts.stores.iter().enumerate().map(|(at, host)| s3_server(host, &root(at), at + 1));
    let _servers = started.collect::<Result<Vec<Daemon>>>()?;
    let here = |words: &[&str], config: &str| on(&hosts.practice, &with_config(&place, &dir, words, config));
    ok(here(&["init", "--kit", "kit.json", "--write-paper-key", "paper.txt"], "serve.toml"))?;
    let start = |verb: &str, config: &str| -> Result<Daemon> {
        Ok(Daemon(here(&[verb], config).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    };
    let _daemons = [start("serve", "serve.toml")?, start("verifier", "verifier.toml")?];
    wait_for("the daemons", 60, || (dir.join("s.sock").exists() && dir.join("v.sock").exists()).then_some(()))?;
    let snapshot = |number: u64| -> Result<Value> {
        fs::write(dir.join("data/letter"), noise(number, 300_000))?;
        let done = json_lines(&here(&["snapshot", "--json"], "serve.toml").output()?)?;
        done.into_iter().rfind(|line| line["event"] == "snapshot-done").context("an end of the snapshot")
    };
    let durable = |done: &Value| -> Vec<bool> {
        let stores = done["stores"].as_array().cloned().unwrap_or_default();
        stores.iter().map(|store| store["durable"] == true).collect()
    };
    let done = snapshot(0)?;
    ensure!(durable(&done) == [true; 3], "on good cables: {done}");
    for (number, fault) in [Fault::Rejected, Fault::Cut, Fault::Throttled, Fault::Delayed].into_iter().enumerate() {
        hosts.fault(fault)?;
        let done = snapshot(number as u64 + 1)?;
        let there = durable(&done);
        ensure!(there.get(..2) == Some(&[true; 2]), "{fault:?} at the third store held back another: {done}");
        if matches!(fault, Fault::Rejected | Fault::Cut) {
            ensure!(there.get(2) == Some(&false), "{fault:?}, and yet: {done}");
        }
        hosts.mend(fault)?;
        wait_for("the third store to catch up", 120, || {
            let stores = json_lines(&here(&["stores", "--json"], "serve.toml").output().ok()?).ok()?;
            let stores: Vec<Value> =
                stores.iter().filter_map(|line| line["stores"].as_array().cloned()).flatten().collect();
            let third = stores.iter().find(|store| store["name"] == "three")?;
            let same = objects(&root(0)) == objects(&root(2));
            (third["condition"] == "ok" && third["lag_snapshots"] == 0 && same).then_some(())
        })
        .with_context(|| format!("after {fault:?}"))?;
    }
    ok(here(&["verify", "--read-data"], "verifier.toml"))?;
    let into = place.path("back");
    fs::create_dir(&into)?;
    let words = ["restore", "--store", "three", "--into", into.to_str().context("a path")?];
    ok(here(&words, "verifier.toml"))?;
    let tree = |dir: &Path| -> Result<_> {
        let mut tree = describe(dir, true)?;
        tree.remove(&Vec::new());
        Ok(tree)
    };
    ensure!(tree(&into.join("files"))? == tree(&dir.join("data"))?, "the third store gives back something else");
    Ok(())
}
