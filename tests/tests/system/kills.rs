//! `backupd serve` on three stores with `backupd maintain` beside it, killed at any moment: what was acknowledged is there,
//! everywhere, bit for bit.

use anyhow::{Context, Result, ensure};
use holdfast_tests::daemons::{self, Daemon, kill, with_config};
use holdfast_tests::place::{Place, Tree, noise, ok, tree};
use holdfast_tests::{files, json_lines, pause, steady_now, wait_for};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const STORES: [&str; 3] = ["one", "two", "three"];

/// How often the daemons are killed; the nightly run asks for more.
fn kills() -> u64 {
    std::env::var("HOLDFAST_DAEMON_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(50)
}

struct Bench {
    place: Place,
    dir: PathBuf,
    random: u64,
}

impl Bench {
    fn new() -> Result<Self> {
        let place = Place::new()?;
        let dir = place.path("practice");
        fs::create_dir_all(&dir)?;
        let stores = daemons::folders(&dir, &STORES)?;
        daemons::practice_with(&dir, &stores)?;
        daemons::maintain(&dir, &stores)?;
        let ends = "serve = \"unix:s.sock\"\nverifier = \"unix:v.sock\"\nmaintain = \"unix:m.sock\"\n";
        fs::write(dir.join("all.toml"), ends)?;
        for at in 0..60 {
            fs::write(dir.join(format!("data/letter-{at}")), format!("Letter {at}\n").repeat(at * 9 + 1))?;
        }
        let made = ["init", "--kit", "kit.json", "--write-paper-key", "paper.txt"];
        ok(with_config(&place, &dir, &made, "serve.toml"))?;
        Ok(Self { place, dir, random: 20_261_126 })
    }

    fn next(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % end
    }

    /// Starts a daemon and waits until it listens.
    fn start(&self, verb: &str) -> Result<Child> {
        let (config, socket) = match verb {
            "serve" => ("serve.toml", "s.sock"),
            "verifier" => ("verifier.toml", "v.sock"),
            _ => ("maintain.toml", "m.sock"),
        };
        let socket = self.dir.join(socket);
        let _ = fs::remove_file(&socket);
        let mut command = with_config(&self.place, &self.dir, &[verb], config);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        for _ in 0..3000 {
            if socket.exists() {
                return Ok(child);
            }
            pause(Duration::from_millis(10));
        }
        anyhow::bail!("`backupd {verb}` does not listen")
    }

    fn change(&mut self) -> Result<()> {
        for _ in 0..3 {
            let (at, times) = (self.next(60), self.next(700));
            fs::write(self.dir.join(format!("data/letter-{at}")), format!("{times} ").repeat(times as usize))?;
        }
        let (slot, len) = (self.next(4), 50_000 + self.next(800_000));
        Ok(fs::write(self.dir.join(format!("data/scan-{slot}")), noise(self.random, len as usize))?)
    }

    /// Asks for a snapshot; the answer comes later, or never.
    fn ask(&self) -> Result<Child> {
        let mut command = with_config(&self.place, &self.dir, &["snapshot", "--json"], "all.toml");
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    }

    /// The snapshot that an answer acknowledges as durable.
    fn acknowledged(asked: Child) -> Result<Option<String>> {
        let output = asked.wait_with_output()?;
        if !output.status.success() {
            return Ok(None);
        }
        let lines = json_lines(&output)?;
        let done = lines.into_iter().rfind(|line| line["event"] == "snapshot-done").context("an end")?;
        Ok(Some(done["id"].as_str().context("an id")?.to_owned()))
    }

    fn restored(&self, store: &str, id: &str) -> Result<Tree> {
        let into = self.dir.join("back");
        let _ = fs::remove_dir_all(&into);
        fs::create_dir(&into)?;
        let words = ["restore", "--store", store, "--snapshot", id, "--into", "back"];
        ok(with_config(&self.place, &self.dir, &words, "verifier.toml"))?;
        // The one part of the source; beside it lie the practice's kept files.
        tree(&into.join("files"))
    }

    fn objects(&self, store: &str) -> BTreeSet<PathBuf> {
        let root = self.dir.join(format!("store-{store}"));
        let inside = files(&root).into_iter().filter_map(|path| path.strip_prefix(&root).ok().map(Path::to_owned));
        // What a killed snapshot had sent and no index names stays where it is until a prune: it belongs to nothing.
        inside.filter(|name| !name.starts_with("probe") && !name.starts_with("packs")).collect()
    }
}

#[test]
fn daemons_killed_at_any_moment_lose_nothing_that_they_acknowledged() -> Result<()> {
    let mut bench = Bench::new()?;
    let (mut serve, mut maintain) = (bench.start("serve")?, bench.start("maintain")?);
    let started = steady_now();
    let mut kept: BTreeMap<String, Tree> = BTreeMap::new();
    let first = Bench::acknowledged(bench.ask()?)?.context("the first snapshot")?;
    let whole = started.elapsed().max(Duration::from_millis(50));
    kept.insert(first, tree(&bench.dir.join("data"))?);
    let mut unanswered = 0;
    for round in 0..kills() {
        bench.change()?;
        let now = tree(&bench.dir.join("data"))?;
        let asked = bench.ask()?;
        let mut healing = None;
        if round % 2 == 0 {
            let mut heal = with_config(&bench.place, &bench.dir, &["heal", "--all"], "all.toml");
            healing = Some(heal.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        }
        pause(whole.mul_f64(bench.next(1200) as f64 / 1000.0));
        kill(serve)?;
        if round % 3 != 1 {
            kill(maintain)?;
            maintain = bench.start("maintain")?;
        }
        match Bench::acknowledged(asked)? {
            Some(id) => drop(kept.insert(id, now)),
            None => unanswered += 1,
        }
        if let Some(mut healing) = healing {
            healing.wait()?;
        }
        serve = bench.start("serve")?;
    }
    let running = [Daemon(serve), Daemon(maintain), Daemon(bench.start("verifier")?)];
    let last = Bench::acknowledged(bench.ask()?)?.context("a snapshot in peace")?;
    kept.insert(last, tree(&bench.dir.join("data"))?);
    wait_for("all stores to hold the same", 120, || {
        let there = STORES.map(|store| bench.objects(store));
        (there[0] == there[1] && there[1] == there[2]).then_some(())
    })
    .with_context(|| {
        let there = STORES.map(|store| bench.objects(store));
        let apart: Vec<_> =
            there[0].symmetric_difference(&there[1]).chain(there[1].symmetric_difference(&there[2])).collect();
        format!("{apart:?}")
    })?;
    ok(with_config(&bench.place, &bench.dir, &["verify", "--read-data"], "verifier.toml"))?;
    for (at, (id, before)) in kept.iter().enumerate() {
        let store = STORES[at % STORES.len()];
        ensure!(bench.restored(store, id)? == *before, "snapshot {id} does not come back from {store} as it was");
    }
    let heal = || with_config(&bench.place, &bench.dir, &["heal", "--all", "--json"], "all.toml").output();
    // What a killed snapshot left at one store alone is copied to the others, once.
    heal()?;
    let healed = heal()?;
    let lines = String::from_utf8(healed.stdout)?;
    let mut done = lines.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done = done.next().context("an answer of maintenance")?;
    let fine = |store: &Value| store["condition"] == "ok" && store["healed"] == 0;
    ensure!(done["stores"].as_array().is_some_and(|stores| stores.iter().all(fine)), "{done}");
    ensure!(unanswered >= kills() / 5, "only {unanswered} of {} kills came before the answer", kills());
    println!("extra: {} kills, {unanswered} before the answer, {} snapshots came back", kills(), kept.len());
    drop(running);
    Ok(())
}
