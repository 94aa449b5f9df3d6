//! Maintenance against the real S3 server: what its credentials may do, and what those of a writer may not.

use anyhow::{Context, Result};
use backup_engine::{ErrorKind, MaintenanceStore, StoreLimits, StoreLocation};
use holdfast_tests::program;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
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
