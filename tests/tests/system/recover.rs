//! The building burned: the practice folder is gone; the recovery kit and ONE store are left.

use anyhow::{Context, Result, ensure};
use backup_format::WriterCredential;
use backup_format::head::{Head, HeadName};
use holdfast_tests::daemons::Daemon;
use holdfast_tests::http::Visitor;
use holdfast_tests::{Practice, bin_dir, files, program, wait_for};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

#[test]
fn the_kit_and_one_store_bring_the_practice_back() -> Result<()> {
    let mut practice = Practice::start(8)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let desk = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    runtime.block_on(desk.register("Survivorson", "Phoebe"))?;
    practice.backupd(&["snapshot"])?;
    let before = taken(&practice)?;
    ensure!(practice.stop()? == 0);

    let kept = tempfile::tempdir()?;
    copy(&practice.dir.join("recovery-kit"), &kept.path().join("kit"))?;
    copy(&practice.dir.join("stores/provider-south"), &kept.path().join("provider-south"))?;
    let users = std::fs::read(practice.dir.join("users.toml"))?;
    std::fs::remove_dir_all(&practice.dir)?;

    // What a person has left: the kit, the store, and their own password and authenticator.
    let kit = files(&kept.path().join("kit")).into_iter().find(|f| f.extension().is_some_and(|e| e == "json"));
    let kit = kit.unwrap_or_else(|| kept.path().join("kit"));
    let out = Command::new(program("quickstart"))
        .args(["recover", "--store", "provider-south", "--no-build", "--kit"])
        .arg(&kit)
        .arg("--store-folder")
        .arg(kept.path().join("provider-south"))
        .arg("--dir")
        .arg(&practice.dir)
        .arg("--bin-dir")
        .arg(bin_dir())
        .output()?;
    ensure!(out.status.success(), "{}\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    if !practice.dir.join("users.toml").exists() {
        std::fs::write(practice.dir.join("users.toml"), users)?;
    }
    practice.resume(&[])?;
    let desk = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    let page = runtime.block_on(desk.page("/patients?q=Survivorson"))?;
    ensure!(page.contains("Survivorson"), "the patient is back");
    let after = taken(&practice)?;
    ensure!(before.is_subset(&after) && after.last() > before.last(), "the history goes on: {before:?} {after:?}");
    ensure!(practice.stop()? == 0);
    Ok(())
}

/// Nobody takes a snapshot after `backupd recover`: the schedule does, and it names the head from before.
#[test]
fn the_next_scheduled_snapshot_continues_the_history() -> Result<()> {
    let mut practice = Practice::start(6)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let desk = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    runtime.block_on(desk.register("Scheduledson", "Phoebe"))?;
    practice.backupd(&["snapshot"])?;
    ensure!(practice.stop()? == 0);
    let kept = tempfile::tempdir()?;
    copy(&practice.dir.join("recovery-kit"), &kept.path().join("kit"))?;
    copy(&practice.dir.join("stores/local-folder"), &kept.path().join("store"))?;
    std::fs::remove_dir_all(&practice.dir)?;
    let before = heads(&kept.path().join("store"))?;
    let last = before.iter().max_by_key(|head| head.counter).copied().context("a head from before")?;
    ensure!(before.iter().all(|head| head.incarnation == last.incarnation), "one writer so far: {before:?}");

    let recovered = Command::new(program("backupd"))
        .args(["recover", "--store", "local-folder", "--kit"])
        .arg(kept.path().join("kit"))
        .arg("--paper-key-file")
        .arg(kept.path().join("kit/paper-key.txt"))
        .arg("--path")
        .arg(kept.path().join("store"))
        .arg("--into")
        .arg(&practice.dir)
        .output()?;
    ensure!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));
    // The store that is left goes on in its place; the other two are empty.
    copy(&kept.path().join("store"), &practice.dir.join("stores/local-folder"))?;
    let (programs, sockets) = started_by_hand(&practice, kept.path())?;
    let desk = wait_for("the EMR", 120, || {
        runtime.block_on(Visitor::sign_in(&practice.ca().ok()?, &practice.user("desk").ok()?)).ok()
    })?;
    ensure!(runtime.block_on(desk.page("/patients?q=Scheduledson"))?.contains("Scheduledson"), "the patient is back");
    let first = wait_for("the scheduled snapshot", 180, || {
        let heads = heads(&practice.dir.join("stores/local-folder")).ok()?;
        heads.into_iter().find(|head| head.incarnation != last.incarnation && head.counter == 1)
    })?;
    let writer = WriterCredential::from_bytes(&std::fs::read(practice.dir.join("backupd/writer.cred"))?)?;
    let bytes = std::fs::read(practice.dir.join("stores/local-folder").join(first.to_string()))?;
    let head = Head::open(&bytes, writer.catalog())?;
    ensure!(head.seen.contains(&last.hash), "it names the newest head from before: {head:?}");
    let rows = practice.backupd(&["snapshots"])?;
    let rows = rows.iter().find_map(|line| line["snapshots"].as_array()).context("a list of snapshots")?;
    ensure!(rows.len() > before.len(), "both histories are one: {rows:?}");
    drop(programs);
    Ok(std::fs::remove_dir_all(sockets)?)
}

/// EMR, backup and providers of a recovered practice, each started as its unit would; a snapshot every five seconds.
/// Gives them and the folder of their sockets.
fn started_by_hand(practice: &Practice, place: &Path) -> Result<(Vec<Daemon>, PathBuf)> {
    let file = practice.dir.join("backupd/serve.toml");
    let text = std::fs::read_to_string(&file)?;
    let often = text.replacen("schedule = \"*/5 * * * *\"", "schedule = \"*/5 * * * * *\"", 1);
    ensure!(often != text, "the schedule stands in serve.toml: {text}");
    std::fs::write(&file, &often)?;
    let settings: toml::Value = toml::from_str(&often)?;
    let socket = PathBuf::from(settings["socket"].as_str().context("socket")?);
    let sockets = socket.parent().context("the sockets' folder")?.to_owned();
    std::fs::create_dir_all(&sockets)?;
    let mut started = Vec::new();
    for store in settings["store"].as_array().context("stores")? {
        let field = |key: &str| store.get(key).and_then(toml::Value::as_str);
        let Some(endpoint) = field("endpoint") else { continue };
        let name = field("name").context("a name")?;
        let secret = |key: &str| -> Result<String> {
            Ok(std::fs::read_to_string(practice.dir.join("backupd").join(field(key).context("a key file")?))?)
        };
        let keys = place.join(format!("{name}.keys"));
        let (access, secret) = (secret("access_key_file")?, secret("secret_key_file")?);
        std::fs::write(
            &keys,
            format!("[[key]]\naccess_key='{access}'\nsecret_key='{secret}'\nmay=['read','create','overwrite']\n"),
        )?;
        std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600))?;
        let mut server = Command::new(program("s3-server"));
        server.args([
            "--listen",
            endpoint.trim_start_matches("http://"),
            "--bucket",
            field("bucket").context("bucket")?,
        ]);
        server.arg("--root").arg(place.join(name)).arg("--access-key-file").arg(&keys);
        started.push(Daemon(server.stdout(Stdio::null()).spawn()?));
    }
    for (name, config) in [("appliance", "appliance/appliance.toml"), ("backupd", "backupd/serve.toml")] {
        let mut daemon = Command::new(program(name));
        daemon.args(["serve", "--config"]).arg(practice.dir.join(config));
        started.push(Daemon(daemon.stdout(Stdio::null()).spawn()?));
    }
    Ok((started, sockets))
}

/// The names of a folder store's heads.
fn heads(store: &Path) -> Result<Vec<HeadName>> {
    let names = files(&store.join("heads")).into_iter().map(|file| {
        let name = file.strip_prefix(store)?.to_string_lossy().into_owned();
        Ok(name.parse::<HeadName>()?)
    });
    names.collect()
}

#[test]
fn a_recovery_that_went_back_past_damage_goes_on_in_every_store() -> Result<()> {
    let mut practice = Practice::start(4)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = practice.dir.join("stores/provider-south");
    let packs = |dir: &Path| -> Vec<PathBuf> {
        files(dir).into_iter().filter(|file| file.components().any(|part| part.as_os_str() == "packs")).collect()
    };
    let early = packs(&store);
    let desk = runtime.block_on(Visitor::sign_in(&practice.ca()?, &practice.user("desk")?))?;
    runtime.block_on(desk.register("Lostinlastpack", "Phoebe"))?;
    practice.backupd(&["snapshot"])?;
    ensure!(practice.stop()? == 0);

    let kept = tempfile::tempdir()?;
    copy(&practice.dir.join("recovery-kit"), &kept.path().join("kit"))?;
    let mut damaged = 0;
    for pack in packs(&store).into_iter().filter(|pack| !early.contains(pack)) {
        let mut bytes = std::fs::read(&pack)?;
        // All of it: one byte may lie in what fills the pack up, which no restore reads.
        bytes.iter_mut().for_each(|byte| *byte ^= 1);
        std::fs::write(&pack, bytes)?;
        damaged += 1;
    }
    ensure!(damaged > 0, "the second snapshot added packs");
    copy(&store, &kept.path().join("provider-south"))?;
    let users = std::fs::read(practice.dir.join("users.toml"))?;
    std::fs::remove_dir_all(&practice.dir)?;
    let kit = files(&kept.path().join("kit")).into_iter().find(|f| f.extension().is_some_and(|e| e == "json"));
    let out = Command::new(program("quickstart"))
        .args(["recover", "--store", "provider-south", "--no-build", "--kit"])
        .arg(kit.unwrap_or_else(|| kept.path().join("kit")))
        .arg("--store-folder")
        .arg(kept.path().join("provider-south"))
        .arg("--dir")
        .arg(&practice.dir)
        .arg("--bin-dir")
        .arg(bin_dir())
        .output()?;
    let said = format!("{}\n{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    ensure!(out.status.code() == Some(3), "a script goes by the exit code: {said}");
    ensure!(
        said.matches("no longer has 1 newer snapshot whole").count() == 2,
        "it is told before and at the end: {said}"
    );
    if !practice.dir.join("users.toml").exists() {
        std::fs::write(practice.dir.join("users.toml"), users)?;
    }
    practice.resume(&[])?;
    let taken = practice.backupd(&["snapshot"])?;
    let stores = taken.iter().find_map(|line| line["stores"].as_array()).cloned().unwrap_or_default();
    ensure!(stores.len() == 3 && stores.iter().all(|store| store["durable"] == true), "{stores:?}");
    for store in ["provider-north", "provider-south"] {
        let drilled = practice.backupd(&["drill", "--store", store])?;
        ensure!(drilled.iter().any(|line| line["verdict"] == "pass"), "{store}: {drilled:?}");
    }
    ensure!(practice.stop()? == 0);
    Ok(())
}

/// When each snapshot was taken.
fn taken(practice: &Practice) -> Result<std::collections::BTreeSet<i64>> {
    let lines = practice.backupd(&["snapshots"])?;
    let rows = lines.iter().find_map(|line| line["snapshots"].as_array());
    let rows = rows.ok_or_else(|| anyhow::anyhow!("no list of snapshots"))?;
    let taken = rows.iter().filter_map(|row| row["taken_unix_ms"].as_i64()).collect::<std::collections::BTreeSet<_>>();
    ensure!(!taken.is_empty(), "no snapshot is listed");
    Ok(taken)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from)?);
        std::fs::create_dir_all(target.parent().unwrap_or(to))?;
        // An S3 server finds its buckets by links.
        match std::fs::read_link(&file) {
            Ok(link) => std::os::unix::fs::symlink(link, &target)?,
            Err(_) => drop(std::fs::copy(&file, &target)?),
        }
    }
    ensure!(!files(to).is_empty(), "{} holds files", from.display());
    Ok(())
}
