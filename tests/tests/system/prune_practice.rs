//! Deletion in a practice with the real daemons: a plan by the rules, two persons who sign, grace and writers, deletion; and
//! that nothing goes before, whatever is killed in between.

use anyhow::{Context, Result, ensure};
use holdfast_tests::daemons::{Daemon, practice, serve_and_verify, with_config};
use holdfast_tests::place::{Place, describe, fails, last, noise, ok, signal};
use holdfast_tests::{files, json_lines, pause, program, wait_for};
use rustix::process::Signal;
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const STORES: [&str; 2] = ["one", "two"];
const PEOPLE: [&str; 3] = ["oakley", "ira", "stranger"];

/// A practice with history, whose maintenance prunes.
struct Practice {
    place: Place,
    dir: PathBuf,
    daemons: [Daemon; 2],
    maintain: Option<Daemon>,
    /// What each snapshot took, by its id.
    taken: RefCell<BTreeMap<String, BTreeMap<Vec<u8>, String>>>,
}

impl Practice {
    fn new(rules: &str) -> Result<Self> {
        let place = Place::new()?;
        let dir = place.path("practice");
        practice(&dir)?;
        let mut approvers = String::new();
        for name in PEOPLE {
            ok(openssl(&["genpkey", "-algorithm", "ed25519", "-out"], &dir.join(format!("{name}.pem"))))?;
            if name != "stranger" {
                let shown = ok(report_verify(&["fingerprint"], &dir.join(format!("{name}.pem"))))?;
                approvers += &format!("[[prune.approver]]\nname = \"{name}\"\nfingerprint = \"{}\"\n", shown.trim());
            }
        }
        let stores: String = STORES
            .iter()
            .map(|name| {
                format!(
                    "[[store]]\nname = \"{name}\"\nkind = \"folder\"\npath = \"store-{name}\"\nsite = \"site-{name}\"\nprovider = \"{name}\"\n"
                )
            })
            .collect();
        let maintain = format!(
            "practice = \"Names\"\ntime_zone = \"UTC\"\nstate_dir = \"state/maintain\"\nsocket = \"m.sock\"\n\
             maintain_schedule = \"0 6 * * *\"\n[prune]\nopen_key = \"open.key\"\npruner_credential = \"pruner.cred\"\n\
             report_key = \"report.pub\"\nverifier = \"unix:v.sock\"\nplan_schedule = \"0 7 * * *\"\ngrace = \"1s\"\n\
             {rules}{approvers}{stores}"
        );
        fs::write(dir.join("maintain.toml"), maintain)?;
        fs::write(
            dir.join("all.toml"),
            "serve = \"unix:s.sock\"\nverifier = \"unix:v.sock\"\nmaintain = \"unix:m.sock\"\n",
        )?;
        ok(with_config(&place, &dir, &["init", "--kit", "kit.json", "--write-paper-key", "paper.txt"], "serve.toml"))?;
        ensure!(dir.join("pruner.cred").exists(), "init makes the pruner's credential");
        let daemons = serve_and_verify(&place, &dir)?;
        let mut made = Self { place, dir, daemons, maintain: None, taken: RefCell::default() };
        made.start()?;
        Ok(made)
    }

    fn start(&mut self) -> Result<()> {
        let _ = fs::remove_file(self.dir.join("m.sock"));
        let log = fs::File::options().create(true).append(true).open(self.dir.join("maintain.log"))?;
        let mut command = with_config(&self.place, &self.dir, &["maintain"], "maintain.toml");
        self.maintain = Some(Daemon(command.stdout(Stdio::null()).stderr(log).spawn()?));
        let socket = self.dir.join("m.sock");
        wait_for("the socket of maintenance", 60, || socket.exists().then_some(()))?;
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        if let Some(daemon) = &mut self.maintain {
            signal(&daemon.0, Signal::KILL)?;
            daemon.0.wait()?;
        }
        Ok(())
    }

    fn backupd(&self, args: &[&str]) -> Command {
        let mut command = self.place.bare(args);
        command.env("BACKUPD_CONFIG", self.dir.join("all.toml")).current_dir(&self.dir);
        command
    }

    fn snapshot(&self, number: u64) -> Result<()> {
        fs::write(self.dir.join("data/now"), noise(number, 700_000))?;
        pause(Duration::from_millis(80));
        let done = last(json_lines(&self.backupd(&["snapshot", "--json"]).output()?)?, "snapshot-done")?;
        let id = done["id"].as_str().context("an id")?.to_owned();
        self.taken.borrow_mut().insert(id, describe(&self.dir.join("data"), true)?);
        Ok(())
    }

    /// The status that a verb of `prune` answers.
    fn prune(&self, args: &[&str]) -> Result<Value> {
        let output = self.backupd(&[&["prune"], args, &["--json"]].concat()).output()?;
        let lines = json_lines(&output)?;
        lines.into_iter().rfind(|line| line["event"] == "prune").with_context(|| format!("prune {args:?}: {output:?}"))
    }

    fn plan(&self) -> Result<Value> {
        Ok(self.prune(&["show"])?["plan"].clone())
    }

    fn approve(&self, id: &str, who: &str) -> Command {
        self.backupd(&["prune", "approve", id, "--key", &format!("{who}.pem")])
    }

    /// Goes on until the plan is in this state; `look` is done in between.
    fn until(&self, state: &str, look: impl Fn() -> Result<()>) -> Result<Value> {
        let mut said = String::new();
        for _ in 0..120 {
            let plan = self.plan()?;
            if plan["state"] == state {
                return Ok(plan);
            }
            look()?;
            said = String::from_utf8_lossy(&self.backupd(&["prune", "execute"]).output()?.stderr).into_owned();
            pause(Duration::from_millis(250));
        }
        anyhow::bail!(
            "the plan never was {state}: {}\n{said}\n{}",
            self.plan()?,
            fs::read_to_string(self.dir.join("maintain.log"))?
        )
    }

    fn store(&self, name: &str) -> PathBuf {
        self.dir.join(format!("store-{name}"))
    }

    /// Names and bytes of what a store holds, without the log of reports.
    fn objects(&self, name: &str) -> Vec<PathBuf> {
        let all = files(&self.store(name)).into_iter();
        all.filter(|path| !path.components().any(|part| part.as_os_str() == "log")).collect()
    }

    /// Ids of the snapshots that are there. The verifier looks; what `backupd serve` tells is from its last look.
    fn snapshots(&self) -> Result<Vec<String>> {
        let asked = with_config(&self.place, &self.dir, &["snapshots", "--json"], "verifier.toml").output()?;
        let listed = last(json_lines(&asked)?, "snapshots")?;
        let rows = listed["snapshots"].as_array().context("snapshots")?;
        Ok(rows.iter().filter_map(|row| row["id"].as_str().map(str::to_owned)).collect())
    }

    /// Every store alone gives back every snapshot that is left, as it was taken.
    fn assert_restores(&self) -> Result<()> {
        let into = self.dir.join("back");
        for id in self.snapshots()? {
            let taken = self.taken.borrow();
            let whole = taken.get(&id).context("a snapshot of this test")?;
            for store in STORES {
                let _ = fs::remove_dir_all(&into);
                let target = into.to_str().context("a path")?;
                ok(self.backupd(&["restore", "--snapshot", &id, "--store", store, "--into", target]))?;
                ensure!(describe(&into.join("files"), true)? == *whole, "{store} gives back something else of {id}");
            }
        }
        Ok(())
    }
}

fn openssl(args: &[&str], out: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.args(args).arg(out);
    command
}

fn report_verify(args: &[&str], file: &Path) -> Command {
    let mut command = Command::new(program("report-verify"));
    command.args(args).arg(file);
    command
}

/// What a look at every object of every store finds.
fn heal(practice: &Practice) -> Result<Vec<Value>> {
    // It fails where something is left.
    let told = practice.backupd(&["heal", "--all", "--json"]).output()?.stdout;
    let told = String::from_utf8(told)?;
    let lines = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let done = lines.into_iter().find(|line| line["event"] == "heal-done").context("an answer")?;
    Ok(done["stores"].as_array().context("stores")?.clone())
}

const LAST_TWO: &str = "[[prune.keep]]\nlast = 2\nrecord_class = \"demo\"\nstatute = \"a test\"\n";

#[test]
fn two_persons_sign_and_what_no_rule_keeps_goes() -> Result<()> {
    let practice = Practice::new(LAST_TWO)?;
    for number in 0..5 {
        practice.snapshot(number)?;
    }
    // A look before, so that what goes later is known to have been here.
    heal(&practice)?;
    let before = practice.objects("one").len();
    let planned = practice.prune(&["plan"])?;
    let plan = &planned["plan"];
    ensure!(plan["state"] == "proposed" && plan["needed"] == 2, "{plan}");
    let rows = plan["rows"].as_array().context("rows")?;
    ensure!(rows.iter().filter(|row| row["goes"] == true).count() == 3 && rows.len() == 5, "{plan}");
    let why = rows[0]["reasons"].to_string();
    ensure!(why.contains("last 2 (demo, a test)") && why.contains("newest"), "{why}");
    let shown = ok(practice.backupd(&["prune", "show"]))?;
    for word in ["GOES", "3 of 5 snapshots go", "deletions", "0 of 2 persons"] {
        ensure!(shown.contains(word), "`{word}` is missing in: {shown}");
    }
    let id = plan["id"].as_str().context("id")?.to_owned();

    // One person is not enough, nor one person twice, nor a stranger, nor another plan's name.
    fails(practice.backupd(&["prune", "execute"]), 1, &["needs 2 persons"])?;
    fails(practice.approve("00000000", "oakley"), 2, &["look at it"])?;
    fails(practice.approve(&id, "stranger"), 1, &["none of those that may decide"])?;
    ok(practice.approve(&id, "oakley"))?;
    fails(practice.approve(&id, "oakley"), 1, &["a second, different person"])?;
    fails(practice.backupd(&["prune", "execute"]), 1, &["needs 2 persons", "has 1"])?;
    ensure!(practice.objects("one").len() == before && practice.snapshots()?.len() == 5, "nothing may be deleted yet");

    // The second signs elsewhere, over the plan's text, and hands the decision in.
    ok(practice.backupd(&["prune", "show", "--out", "plan.json"]))?;
    let mut decide = report_verify(&["decide"], &practice.dir.join("plan.json"));
    decide.args(["--decision", "approved", "--key"]).arg(practice.dir.join("ira.pem")).arg("--out");
    ok({
        decide.arg(practice.dir.join("decision.json"));
        decide
    })?;
    ok(practice.backupd(&["prune", "decide", "decision.json"]))?;
    let number = Cell::new(10);
    let done = practice.until("done", || {
        number.set(number.get() + 1);
        practice.snapshot(number.get())
    })?;
    ensure!(done["recorded"] == true, "{done}");
    ensure!(done["decisions"].as_array().map_or(0, Vec::len) == 2, "{done}");
    let deleted = |store: &Value| store["objects"].as_u64().unwrap_or(0);
    ensure!(done["stores"].as_array().is_some_and(|stores| stores.iter().all(|store| deleted(store) > 6)), "{done}");

    practice.assert_restores()?;
    ok(practice.backupd(&["verify", "--read-data"]))?;
    // Maintenance misses nothing of what went, and brings nothing back.
    let after: Vec<Vec<PathBuf>> = STORES.iter().map(|store| practice.objects(store)).collect();
    let healed = heal(&practice)?;
    ensure!(healed.iter().all(|store| store["condition"] == "ok" && store["missing"] == 0), "{healed:?}");
    ensure!(STORES.iter().zip(&after).all(|(store, objects)| practice.objects(store) == *objects));
    let tombs = after[0].iter().filter(|path| path.components().any(|p| p.as_os_str() == "tombstones")).count();
    // Three heads, one run.
    ensure!(tombs == 1, "{tombs} tombstones");
    log_holds(&practice)
}

#[test]
fn what_every_store_lost_is_given_up_by_two_persons_and_the_rest_is_pruned() -> Result<()> {
    let practice = Practice::new(LAST_TWO)?;
    for number in 0..5 {
        practice.snapshot(number)?;
    }
    let all = practice.snapshots()?;
    // Newest first: one that the rule keeps. Maintenance has never looked at it.
    let lost = all.get(1).context("five snapshots")?.clone();
    for store in STORES {
        fs::remove_file(practice.store(store).join("snapshots").join(&lost))?;
    }
    fails(practice.backupd(&["prune", "plan"]), 1, &["heal it before pruning", "looked-into"])?;
    let alerts = || -> Result<bool> {
        let told = practice.backupd(&["status", "--json"]).output()?.stdout;
        Ok(String::from_utf8_lossy(&told).contains("\"prune-failed\""))
    };
    ensure!(alerts()?, "that nothing can be pruned is an alert");
    ok(practice.backupd(&["looked-into", "one"]))?;

    let plan = practice.prune(&["plan"])?["plan"].clone();
    ensure!(plan["state"] == "proposed" && plan["needed"] == 2 && !alerts()?, "{plan}");
    let rows = plan["rows"].as_array().context("rows")?;
    let row = rows.iter().find(|row| row["id"] == lost.as_str()).context("the lost one is told")?;
    ensure!(row["goes"] == true && row["reasons"].to_string().contains("no store has all of it"), "{row}");
    let id = plan["id"].as_str().context("id")?.to_owned();
    for who in ["oakley", "ira"] {
        ok(practice.approve(&id, who))?;
    }
    let number = Cell::new(10);
    practice.until("done", || {
        number.set(number.get() + 1);
        practice.snapshot(number.get())
    })?;
    let left = practice.snapshots()?;
    ensure!(!left.contains(&lost) && left.contains(all.first().context("the newest")?), "{left:?}");
    practice.assert_restores()?;
    ok(practice.backupd(&["verify", "--read-data"]))?;
    let healed = heal(&practice)?;
    ensure!(healed.iter().all(|store| store["condition"] == "ok" && store["missing"] == 0), "{healed:?}");
    Ok(())
}

/// Plan, decisions and what was deleted stand in the log of every store, under the verifier's signature.
fn log_holds(practice: &Practice) -> Result<()> {
    let checkpoint = files(&practice.store("one").join("log"))
        .into_iter()
        .find(|path| path.to_string_lossy().contains("checkpoint"))
        .context("a checkpoint")?;
    let origin = fs::read_to_string(checkpoint)?.lines().next().context("an origin")?.to_owned();
    let mut check = Command::new(program("report-verify"));
    check.arg("log").args(STORES.map(|store| practice.store(store).join("log")));
    check.arg("--pub").arg(practice.dir.join("report.pub")).args(["--origin", &origin]);
    fails(check, 2, &["1 deletion plans, 2 decisions"]).map(drop)
}

#[test]
fn one_person_ends_a_plan_in_its_grace_and_the_next_one_goes_on() -> Result<()> {
    let mut practice = Practice::new(LAST_TWO)?;
    let config = practice.dir.join("maintain.toml");
    let text = fs::read_to_string(&config)?;
    fs::write(&config, text.replace("grace = \"1s\"", "grace = \"365d\""))?;
    practice.kill()?;
    practice.start()?;
    for number in 0..4 {
        practice.snapshot(number)?;
    }
    let id = practice.prune(&["plan"])?["plan"]["id"].as_str().context("id")?.to_owned();
    ok(practice.approve(&id, "oakley"))?;
    ok(practice.approve(&id, "ira"))?;
    practice.until("announced", || Ok(()))?;
    practice.snapshot(4)?;
    let there = practice.snapshots()?;
    ensure!(there.len() == 5);
    fails(practice.approve(&id, "ira"), 1, &["approved this plan already"])?;
    fails(practice.backupd(&["prune", "refuse", &id, "--key", "stranger.pem"]), 1, &["none of those"])?;
    // Who approved thinks better of it: it counts while a store is away and the verifier does not answer.
    signal(&practice.daemons[1].0, Signal::STOP)?;
    fs::rename(practice.store("two"), practice.dir.join("away"))?;
    ok(practice.backupd(&["prune", "refuse", &id, "--key", "ira.pem"]))?;
    ensure!(practice.plan()?["state"] == "refused");
    fs::rename(practice.dir.join("away"), practice.store("two"))?;
    signal(&practice.daemons[1].0, Signal::CONT)?;
    // Killed before it came to the stores.
    practice.kill()?;
    practice.start()?;
    wait_for("the plan's end in the stores", 60, || {
        let plan = practice.plan().ok()?;
        let orders = |store: &str| files(&practice.store(store).join("condemned")).len();
        (plan["state"] == "refused" && orders("one") == 2 && orders("two") == 2).then_some(())
    })?;
    ensure!(practice.snapshots()? == there, "nothing went");
    fs::write(&config, text)?;
    practice.kill()?;
    practice.start()?;
    let id = practice.prune(&["plan"])?["plan"]["id"].as_str().context("id")?.to_owned();
    ok(practice.approve(&id, "oakley"))?;
    ok(practice.approve(&id, "ira"))?;
    let number = Cell::new(10);
    practice.until("done", || {
        number.set(number.get() + 1);
        practice.snapshot(number.get())
    })?;
    ensure!(there.iter().filter(|id| practice.snapshots().is_ok_and(|left| left.contains(id))).count() < 3);
    practice.assert_restores()
}

#[test]
fn a_maintenance_that_is_killed_goes_on_and_a_refusal_ends_a_plan() -> Result<()> {
    let mut practice = Practice::new(LAST_TWO)?;
    for number in 0..6 {
        practice.snapshot(number)?;
    }
    let refused = practice.prune(&["plan"])?["plan"]["id"].as_str().context("id")?.to_owned();
    ok(practice.backupd(&["prune", "refuse", &refused, "--key", "ira.pem"]))?;
    ensure!(practice.plan()?["state"] == "refused");
    fails(practice.approve(&refused, "oakley"), 1, &["no plan waits"])?;
    fails(practice.backupd(&["prune", "execute"]), 1, &["prune plan"])?;

    let id = practice.prune(&["plan"])?["plan"]["id"].as_str().context("id")?.to_owned();
    ok(practice.approve(&id, "oakley"))?;
    practice.kill()?;
    // What one person signed stands in the log: a lost state folder does not ask them again.
    fs::remove_dir_all(practice.dir.join("state/maintain"))?;
    practice.start()?;
    let again = wait_for("the plan", 60, || practice.plan().ok().filter(|plan| plan["id"] == id.as_str()))?;
    ensure!(again["decisions"].as_array().map_or(0, Vec::len) == 1 && again["state"] == "proposed", "{again}");
    ok(practice.approve(&id, "ira"))?;
    // Killed again and again, at whatever it does, and each time the state folder stays or goes.
    for round in 0..6u64 {
        pause(Duration::from_millis(60 + 140 * round));
        // One that is done by now leaves nothing to be found again.
        let is_done = practice.plan().is_ok_and(|plan| plan["state"] == "done");
        practice.kill()?;
        if round == 3 && !is_done {
            fs::remove_dir_all(practice.dir.join("state/maintain"))?;
        }
        practice.snapshot(20 + round)?;
        practice.start()?;
    }
    let number = Cell::new(40);
    practice.until("done", || {
        number.set(number.get() + 1);
        practice.snapshot(number.get())
    })?;
    practice.assert_restores()?;
    ok(practice.backupd(&["verify", "--read-data"]))?;
    let (one, two) = (practice.objects("one"), practice.objects("two"));
    let names = |all: &[PathBuf], store: &str| -> Vec<PathBuf> {
        all.iter().filter_map(|path| path.strip_prefix(practice.store(store)).ok().map(Path::to_owned)).collect()
    };
    ensure!(names(&one, "one") == names(&two, "two"), "the stores agree at the end");
    Ok(())
}
