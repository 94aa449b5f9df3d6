//! Real servers for tests of stores: scripts of `tests/servers`, and our own `s3-server`.

use crate::{program, root};
use anyhow::{Context, Result, ensure};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// A server that ends with the test's process: its script watches the standard input that this holds.
pub struct Server {
    pub url: String,
    child: Child,
}

/// What a script says when what it needs is not installed.
const MISSING: i32 = 77;
/// How often a server is started at most.
const STARTS: u32 = 3;

impl Server {
    /// Starts a script of `tests/servers`; `None` where what it needs is not installed. A cluster that does not form (Ceph's
    /// daemons do not wait for each other) is begun anew.
    pub fn script(name: &str, args: &[&str]) -> Result<Option<Self>> {
        let mut tries = STARTS;
        loop {
            tries -= 1;
            match Self::try_script(name, args) {
                Err(error) if tries > 0 => eprintln!("{error}: once more"),
                started => return started,
            }
        }
    }

    fn try_script(name: &str, args: &[&str]) -> Result<Option<Self>> {
        let mut command = Command::new(root().join("tests/servers").join(name));
        let mut child = command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        if let Some(url) = line.trim().strip_prefix("listening on ") {
            return Ok(Some(Self { url: url.to_owned(), child }));
        }
        let code = child.wait()?.code();
        ensure!(code == Some(MISSING), "{name} ended with {code:?}: {line}");
        Ok(None)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It cleans up, whatever its exit code.
        let _ = self.child.wait();
    }
}

/// Our own S3 server over a folder, with one key that may do everything.
pub struct S3Server {
    pub url: String,
    child: Child,
    _folder: tempfile::TempDir,
}

pub const S3_KEY: (&str, &str) = ("owner", "owner-secret-0123456789");

impl S3Server {
    pub fn start(bucket: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let keys = folder.path().join("keys.toml");
        let text = format!(
            "[[key]]\naccess_key='{}'\nsecret_key='{}'\nmay=['read','create','overwrite','delete']\n",
            S3_KEY.0, S3_KEY.1
        );
        std::fs::write(&keys, text)?;
        std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600))?;
        let mut child = Command::new(program("s3-server"))
            .args(["--listen", "127.0.0.1:0", "--bucket", bucket, "--root"])
            .arg(folder.path().join("root"))
            .arg("--access-key-file")
            .arg(&keys)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("stdout")?).read_line(&mut line)?;
        let url = line.trim().strip_prefix("listening on ").context("its address")?.to_owned();
        Ok(Self { url, child, _folder: folder })
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
