//! Maintenance: against the real S3 server what its credentials may do, and what those of a writer may not; and the real
//! daemon on damaged stores.

use anyhow::{Context, Result, ensure};
use backup_engine::{ErrorKind, MaintenanceStore, StoreLimits, StoreLocation};
use holdfast_tests::daemons::{practice, start, with_config};
use holdfast_tests::place::{Place, ok};
use holdfast_tests::{daemons, files, json_lines, program, wait_for};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

/// One bucket and two access keys: maintenance's and a writer's.
struct Bucket {
    child: Child,
    url: String,
    _dir: tempfile::TempDir,
}

const MAINTAIN: (&str, &str) = ("maintain", "maintain-secret-0123456789");
const WRITER: (&str, &str) = ("writer", "writer-secret-0123456789");

impl Bucket {
    fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let keys = dir.path().join("keys.toml");
        let key = |(name, secret): (&str, &str), may: &str| {
            format!("[[key]]\naccess_key='{name}'\nsecret_key='{secret}'\nmay=[{may}]\n")
        };
        let all = "'read','create','overwrite','delete'";
        fs::write(&keys, key(MAINTAIN, all) + &key(WRITER, "'read','create'"))?;
        fs::set_permissions(&keys, PermissionsExt::from_mode(0o600))?;
        let mut child = Command::new(program("s3-server"))
            .args(["--listen", "127.0.0.1:0", "--bucket", "practice", "--root"])
            .arg(dir.path().join("root"))
            .arg("--access-key-file")
            .arg(&keys)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").context("an address")?.to_owned();
        Ok(Self { child, url, _dir: dir })
    }

    fn open(&self, (access_key, secret_key): (&str, &str)) -> Result<Arc<dyn MaintenanceStore>> {
        let location = StoreLocation::S3 {
            endpoint: Some(self.url.clone()),
            bucket: "practice".to_owned(),
            prefix: "emr".to_owned(),
            region: "us-east-1".to_owned(),
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            session_token: None,
            allow_http: true,
        };
        Ok(location.open_for_maintenance(StoreLimits::default())?)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn maintenance_replaces_and_deletes_where_its_credentials_let_it() -> Result<()> {
    let bucket = Bucket::start()?;
    let (maintain, writer) = (bucket.open(MAINTAIN)?, bucket.open(WRITER)?);
    writer.put("packs/ab/abc", "damaged".into()).await?;
    assert_eq!(writer.replace("packs/ab/abc", "whole".into()).await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(writer.delete("packs/ab/abc").await.unwrap_err().kind(), ErrorKind::Denied);
    assert_eq!(writer.get("packs/ab/abc").await?, "damaged");
    maintain.replace("packs/ab/abc", "whole".into()).await?;
    assert_eq!(writer.get("packs/ab/abc").await?, "whole");
    assert_eq!(maintain.list("").await?.len(), 1);
    maintain.delete("packs/ab/abc").await?;
    maintain.delete("packs/ab/abc").await?;
    assert_eq!(writer.get("packs/ab/abc").await.unwrap_err().kind(), ErrorKind::NotFound);
    assert!(maintain.list("").await?.is_empty());
    Ok(())
}

fn flip(path: &Path) -> Result<()> {
    let mut bytes = fs::read(path)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    Ok(fs::write(path, bytes)?)
}

fn objects(dir: &Path, kind: &str) -> Vec<PathBuf> {
    files(dir).into_iter().filter(|path| path.components().any(|part| part.as_os_str() == kind)).collect()
}

#[test]
fn the_daemon_heals_what_is_damaged_and_says_so() -> Result<()> {
    let place = Place::new()?;
    let dir = place.path("practice");
    practice(&dir)?;
    fs::write(dir.join("data/letter"), "Dear colleague, ".repeat(9000))?;
    let _daemons = start(&place, &dir)?;
    daemons::maintain(&dir, &daemons::folders(&dir, &["one", "two"])?)?;
    fs::write(
        dir.join("all.toml"),
        "serve = \"unix:s.sock\"\nverifier = \"unix:v.sock\"\nmaintain = \"unix:m.sock\"\n",
    )?;
    let mut started = with_config(&place, &dir, &["maintain"], "maintain.toml");
    let _maintain = daemons::Daemon(started.stderr(Stdio::null()).spawn()?);
    wait_for("the socket of maintenance", 30, || dir.join("m.sock").exists().then_some(()))?;
    ok(with_config(&place, &dir, &["snapshot"], "all.toml"))?;
    let heal = || -> Result<Vec<Value>> {
        let output = with_config(&place, &dir, &["heal", "--all", "--json"], "all.toml").output()?;
        let lines = String::from_utf8(output.stdout)?;
        let lines: Vec<Value> = lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        let done = lines.into_iter().find(|line| line["event"] == "heal-done").context("an answer")?;
        Ok(done["stores"].as_array().context("stores")?.clone())
    };
    let clean = heal()?;
    ensure!(clean.iter().all(|store| store["condition"] == "ok" && store["checked"] == store["objects"]), "{clean:?}");

    // One pack is damaged here, an index object is gone there, and what the record says names ids alone.
    let pack = objects(&dir.join("store-one"), "packs").remove(0);
    let index = objects(&dir.join("store-two"), "index").remove(0);
    let whole = (fs::read(&pack)?, fs::read(&index)?);
    flip(&pack)?;
    fs::remove_file(&index)?;
    let healed = heal()?;
    let counts = |store: &Value| ["corrupt", "missing", "healed"].map(|key| store[key].as_u64().unwrap_or(99));
    ensure!(counts(&healed[0]) == [1, 0, 1] && counts(&healed[1]) == [0, 1, 1], "{healed:?}");
    ensure!(healed.iter().all(|store| store["condition"] == "ok"), "{healed:?}");
    ensure!((fs::read(&pack)?, fs::read(&index)?) == whole);
    let said = ok(with_config(&place, &dir, &["status"], "all.toml"))?;
    let name = pack.file_name().and_then(|name| name.to_str()).context("name")?;
    ensure!(said.contains(name) && said.contains("replaced") && said.contains("healed index/"), "{said}");
    ensure!(!said.contains("letter"), "no name of a record: {said}");
    let lines = json_lines(&with_config(&place, &dir, &["status", "--json"], "all.toml").output()?)?;
    let status = lines.iter().find(|line| line["event"] == "maintain-status").context("maintenance's status")?;
    ensure!(status["healed"].as_array().is_some_and(|rows| rows.len() == 2), "{status}");

    // What no store has whole stays an alert, by its own word.
    flip(&pack)?;
    flip(&dir.join("store-two").join(pack.strip_prefix(dir.join("store-one"))?))?;
    let left = heal()?;
    ensure!(
        left.iter().all(|store| store["condition"] == "corrupt"
            && store["left"][0].as_str().is_some_and(|object| object.contains(name))),
        "{left:?}"
    );
    let refused = with_config(&place, &dir, &["heal"], "serve.toml").output()?;
    ensure!(refused.status.code() == Some(2), "it is asked where it listens");
    Ok(())
}
