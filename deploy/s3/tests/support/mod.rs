//! The real program over a folder of its own, with two keys.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// May do everything.
pub const OWNER: (&str, &str) = ("owner", "owner-secret-0123456789");
/// May read and create.
pub const WRITER: (&str, &str) = ("writer", "writer-secret-0123456789");

pub struct Server {
    pub child: Child,
    pub url: String,
    pub folder: tempfile::TempDir,
}

impl Server {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys.toml");
        let text = format!(
            "[[key]]\naccess_key='{}'\nsecret_key='{}'\nmay=['read','create','overwrite','delete']\n\
             [[key]]\naccess_key='{}'\nsecret_key='{}'\nmay=['read','create']\n",
            OWNER.0, OWNER.1, WRITER.0, WRITER.1
        );
        std::fs::write(&keys, text).unwrap();
        std::fs::set_permissions(&keys, PermissionsExt::from_mode(0o600)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_s3-server"))
            .args(["--listen", "127.0.0.1:0", "--bucket", "practice", "--root"])
            .arg(folder.path().join("root"))
            .arg("--access-key-file")
            .arg(&keys)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").expect(&line).to_owned();
        Self { child, url, folder }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
