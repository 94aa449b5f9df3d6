//! The spool with the real daemon: two of three stores, then all of them, are gone while snapshots are taken, the daemon is
//! killed in between, and when the stores return they have everything.

use anyhow::{Context, Result, ensure};
use holdfast_tests::daemons::{self, Daemon, kill, with_config};
use holdfast_tests::place::{Place, Tree, noise, ok, tree};
use holdfast_tests::servers::S3_KEY;
use holdfast_tests::{files, json_lines, pause, program, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const STORES: [&str; 3] = ["one", "two", "three"];
const SPOOL_BYTES: u64 = 64 << 20;

/// A store that can be switched off and on again, at the same address.
struct Switched {
    dir: PathBuf,
    address: String,
    server: Option<Daemon>,
}

impl Switched {
    fn new(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir)?;
        let (access, secret) = S3_KEY;
        let keys = dir.join("keys.toml");
        fs::write(&keys, format!("[[key]]\naccess_key='{access}'\nsecret_key='{secret}'\nmay=['read','create']\n"))?;
        fs::set_permissions(&keys, PermissionsExt::from_mode(0o600))?;
        let mut store = Self { dir, address: "127.0.0.1:0".to_owned(), server: None };
        store.on()?;
        Ok(store)
    }

    fn on(&mut self) -> Result<()> {
        let mut server = Command::new(program("s3-server"));
        server.args(["--listen", &self.address, "--bucket", "practice", "--root"]).arg(self.dir.join("root"));
        server.arg("--access-key-file").arg(self.dir.join("keys.toml"));
        let mut child = server.stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        let address = line.trim().strip_prefix("listening on http://").with_context(|| format!("{line:?}"))?;
        self.address = address.trim_end_matches('/').to_owned();
        self.server = Some(Daemon(child));
        Ok(())
    }

    fn off(&mut self) {
        self.server = None;
    }

    fn objects(&self) -> BTreeSet<PathBuf> {
        let root = self.dir.join("root");
        let inside = files(&root).into_iter().filter_map(|path| path.strip_prefix(&root).ok().map(PathBuf::from));
        let inside: BTreeSet<PathBuf> = inside.collect();
        // What a killed snapshot had sent and no index names stays where it is until a prune: it belongs to nothing.
        inside.into_iter().filter(|name| !name.iter().any(|part| part == "probe" || part == "packs")).collect()
    }
}

struct Bench {
    place: Place,
    dir: PathBuf,
    stores: Vec<Switched>,
    taken: Vec<(String, Tree)>,
}

impl Bench {
    fn new() -> Result<Self> {
        let place = Place::new()?;
        let dir = place.path("practice");
        fs::create_dir_all(&dir)?;
        for (name, key) in [("access", S3_KEY.0), ("secret", S3_KEY.1)] {
            fs::write(dir.join(name), key)?;
            fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o600))?;
        }
        let stores = STORES.map(|name| Switched::new(place.path(&format!("store-{name}"))));
        let stores = stores.into_iter().collect::<Result<Vec<_>>>()?;
        let setting = |(name, store): (&&str, &Switched)| {
            format!(
                "[[store]]\nname = \"{name}\"\nkind = \"s3\"\nendpoint = \"http://{}\"\nbucket = \"practice\"\n\
                 access_key_file = \"access\"\nsecret_key_file = \"secret\"\nsite = \"site-{name}\"\nprovider = \"{name}\"\n",
                store.address
            )
        };
        daemons::practice_with(&dir, &STORES.iter().zip(&stores).map(setting).collect::<String>())?;
        let mut serve = fs::read_to_string(dir.join("serve.toml"))?;
        serve += &format!("[spool]\npath = \"spool\"\nbytes_max = {SPOOL_BYTES}\n");
        fs::write(dir.join("serve.toml"), serve)?;
        ok(with_config(&place, &dir, &["init", "--kit", "kit.json", "--write-paper-key", "paper.txt"], "serve.toml"))?;
        Ok(Self { place, dir, stores, taken: Vec::new() })
    }

    fn start(&self, verb: &str, config: &str, socket: &str) -> Result<Child> {
        let _ = fs::remove_file(self.dir.join(socket));
        let mut command = with_config(&self.place, &self.dir, &[verb], config);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        wait_for("the daemon", 60, || self.dir.join(socket).exists().then_some(()))?;
        Ok(child)
    }

    fn serve(&self) -> Result<Child> {
        self.start("serve", "serve.toml", "s.sock")
    }

    fn change(&self, number: u64, bytes: usize) -> Result<()> {
        fs::write(self.dir.join("data/letter"), format!("Letter {number}\n"))?;
        Ok(fs::write(self.dir.join(format!("data/scan-{}", number % 3)), noise(number, bytes))?)
    }

    /// The end of a snapshot, whatever its exit code.
    fn snapshot(&mut self) -> Result<Value> {
        let out = with_config(&self.place, &self.dir, &["snapshot", "--json"], "serve.toml").output()?;
        let text = String::from_utf8(out.stdout)?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let done = lines.find(|line| line["event"] == "snapshot-done");
        let done = done.with_context(|| format!("{text}{}", String::from_utf8_lossy(&out.stderr)))?;
        self.taken.push((done["id"].as_str().context("an id")?.to_owned(), tree(&self.dir.join("data"))?));
        Ok(done)
    }

    fn status(&self) -> Result<Value> {
        let out = with_config(&self.place, &self.dir, &["status", "--json"], "serve.toml").output()?;
        json_lines(&out)?.into_iter().find(|line| line["event"] == "status").context("a status")
    }

    fn restored(&self, store: &str, id: &str) -> Result<Tree> {
        let into = self.dir.join("back");
        let _ = fs::remove_dir_all(&into);
        fs::create_dir(&into)?;
        let words = ["restore", "--store", store, "--snapshot", id, "--into", "back"];
        ok(with_config(&self.place, &self.dir, &words, "verifier.toml"))?;
        tree(&into.join("files"))
    }
}

fn waits(done: &Value) -> Result<()> {
    ensure!(done["state"] == "sealed" && done["spooled"] == true, "it waits in the spool: {done}");
    Ok(())
}

#[test]
fn snapshots_wait_in_the_spool_while_stores_are_gone_and_lie_in_all_of_them_afterwards() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut serve = bench.serve()?;
    bench.change(0, 200_000)?;
    let done = bench.snapshot()?;
    ensure!(done["state"] == "full" && done["spooled"] == false, "{done}");

    // One of three is left, and two are needed.
    bench.stores[1].off();
    bench.stores[2].off();
    bench.change(1, 300_000)?;
    waits(&bench.snapshot()?)?;
    // Killed in the middle of one, which nobody acknowledges.
    bench.change(2, 3_000_000)?;
    let mut asked = with_config(&bench.place, &bench.dir, &["snapshot", "--json"], "serve.toml");
    let mut asked = asked.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    pause(Duration::from_millis(400));
    kill(serve)?;
    asked.wait()?;
    serve = bench.serve()?;
    waits(&bench.snapshot()?)?;

    // None is left.
    bench.stores[0].off();
    for number in 3..5 {
        bench.change(number, 250_000)?;
        waits(&bench.snapshot()?)?;
    }
    kill(serve)?;
    serve = bench.serve()?;
    let status = wait_for("a look at the spool", 60, || {
        bench.status().ok().filter(|status| status["spool"]["bytes"].as_u64() > Some(0))
    })?;
    let spool = &status["spool"];
    ensure!(spool["snapshots"].as_u64() >= Some(4) && spool["bytes_max"] == SPOOL_BYTES, "{status}");
    ensure!(spool["since_unix_ms"].as_i64() > Some(0) && status["last_snapshot"]["state"] == "sealed", "{status}");
    let said = ok(with_config(&bench.place, &bench.dir, &["status"], "serve.toml"))?;
    ensure!(said.contains("wait for stores") && said.contains("sealed"), "{said}");
    ensure!(
        !String::from_utf8_lossy(&spooled_bytes(&bench)?).contains("Letter "),
        "only what is sealed lies in the spool"
    );

    // What does not fit is refused with a word about the spool, and an alert tells.
    fs::write(bench.dir.join("data/large"), noise(77, 70 << 20))?;
    let refused = with_config(&bench.place, &bench.dir, &["snapshot"], "serve.toml").output()?;
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    ensure!(!refused.status.success() && why.contains("spool"), "{why}");
    let alerts = bench.status()?["alerts"].to_string();
    ensure!(alerts.contains("spool-full"), "{alerts}");
    fs::remove_file(bench.dir.join("data/large"))?;

    // They return while the daemon is killed again on its way.
    bench.stores.iter_mut().try_for_each(Switched::on)?;
    pause(Duration::from_millis(700));
    kill(serve)?;
    serve = bench.serve()?;
    wait_for("the spool to be empty and the stores to hold the same", 180, || {
        let status = bench.status().ok()?;
        let stores = status["stores"].as_array()?.iter().all(|store| store["lag_snapshots"] == 0);
        let there: Vec<_> = bench.stores.iter().map(Switched::objects).collect();
        (stores && status["spool"]["bytes"] == 0 && there.windows(2).all(|two| two[0] == two[1])).then_some(())
    })
    .with_context(|| bench.status().map(|status| status.to_string()).unwrap_or_default())?;
    bench.change(5, 100_000)?;
    let done = bench.snapshot()?;
    ensure!(done["state"] == "full" && done["spooled"] == false, "{done}");
    let alerts = bench.status()?["alerts"].to_string();
    ensure!(!alerts.contains("spool-") && !alerts.contains("quorum"), "{alerts}");

    let running = [Daemon(serve), Daemon(bench.start("verifier", "verifier.toml", "v.sock")?)];
    ok(with_config(&bench.place, &bench.dir, &["verify", "--read-data"], "verifier.toml"))?;
    for (at, (id, before)) in bench.taken.iter().enumerate() {
        let store = STORES[at % STORES.len()];
        ensure!(bench.restored(store, id)? == *before, "snapshot {id} does not come back from {store} as it was");
    }
    drop(running);
    Ok(())
}

fn spooled_bytes(bench: &Bench) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for file in files(&bench.dir.join("spool")) {
        all.extend(fs::read(file)?);
    }
    ensure!(!all.is_empty(), "the spool is empty");
    Ok(all)
}

#[test]
fn a_lost_spool_is_told_and_the_next_snapshot_reads_its_sources_again() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut serve = bench.serve()?;
    bench.change(0, 200_000)?;
    bench.snapshot()?;
    bench.stores.iter_mut().for_each(Switched::off);
    bench.change(1, 300_000)?;
    waits(&bench.snapshot()?)?;
    bench.taken.pop();
    // Noticed or not, the daemon is killed and the folder is gone.
    wait_for("the note of what waits", 90, || {
        bench.status().ok().filter(|status| status["spool"]["since_unix_ms"].as_i64() > Some(0))
    })?;
    kill(serve)?;
    fs::remove_dir_all(bench.dir.join("spool"))?;
    serve = bench.serve()?;
    bench.stores.iter_mut().try_for_each(Switched::on)?;
    let told = || bench.status().ok().filter(|status| status["alerts"].to_string().contains("spool-lost"));
    wait_for("the alert", 120, told)?;
    let done = bench.snapshot()?;
    ensure!(done["state"] == "full" && done["bytes_added"].as_u64() >= Some(300_000), "{done}");
    wait_for("the end of the alert", 90, || {
        bench.status().ok().filter(|status| !status["alerts"].to_string().contains("spool-"))
    })?;
    let running = [Daemon(serve), Daemon(bench.start("verifier", "verifier.toml", "v.sock")?)];
    ok(with_config(&bench.place, &bench.dir, &["verify", "--read-data"], "verifier.toml"))?;
    for (id, before) in &bench.taken {
        ensure!(bench.restored("two", id)? == *before, "snapshot {id} does not come back as it was");
    }
    drop(running);
    Ok(())
}
