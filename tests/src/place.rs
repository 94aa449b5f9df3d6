//! A folder for one repository and what tests of the command line need around it.

use crate::{json_lines, pause, program};
use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// A folder for a repository, its local state and what is backed up.
pub struct Place {
    pub dir: tempfile::TempDir,
}

impl Place {
    pub fn new() -> Result<Self> {
        let place = Self { dir: tempfile::Builder::new().prefix("hfcli").tempdir()? };
        fs::create_dir(place.source())?;
        Ok(place)
    }

    /// With a repository.
    pub fn made() -> Result<Self> {
        let place = Self::new()?;
        ok(place.backupd(&["init"]))?;
        Ok(place)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn source(&self) -> PathBuf {
        self.path("source")
    }

    pub fn repo(&self) -> PathBuf {
        self.path("repo")
    }

    /// `backupd VERB --repo REPO ...` in the source's folder.
    pub fn backupd(&self, args: &[&str]) -> Command {
        let mut command = self.bare(&args[..1]);
        command.arg("--repo").arg(self.repo()).args(&args[1..]);
        command
    }

    /// `backupd ...` with this place's state, and nothing of the tester's own surroundings.
    pub fn bare(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program("backupd"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", self.dir.path());
        command.env("BACKUPD_PASSPHRASE", "a passphrase of this test").env("BACKUPD_STATE", self.path("state"));
        command.args(args).current_dir(self.source()).stdin(Stdio::null());
        command
    }

    /// The answer's JSON lines.
    pub fn json(&self, args: &[&str]) -> Result<Vec<Value>> {
        json_lines(&self.backupd(args).arg("--json").output()?)
    }

    pub fn snapshot(&self, tag: &str) -> Result<Value> {
        // A file that changed within the clock's tick is not taken for unchanged.
        pause(std::time::Duration::from_millis(80));
        last(self.json(&["snapshot", "--tag", tag, "."])?, "snapshot-done")
    }

    pub fn stats(&self) -> Result<Value> {
        last(self.json(&["stats"])?, "stats")
    }
}

pub fn last(lines: Vec<Value>, event: &str) -> Result<Value> {
    lines.into_iter().rfind(|line| line["event"] == event).with_context(|| format!("no line with the event {event}"))
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub fn ok(mut command: Command) -> Result<String> {
    let output = command.output()?;
    let code = output.status.code();
    ensure!(output.status.success(), "{:?}: exit code {code:?}: {}", command.get_args(), said(&output));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The command must fail with this code, and say these words.
pub fn fails(mut command: Command, code: i32, words: &[&str]) -> Result<String> {
    let output = command.output()?;
    let said = said(&output);
    ensure!(output.status.code() == Some(code), "exit code {:?}, not {code}: {said}", output.status.code());
    for word in words {
        ensure!(said.contains(word), "`{word}` is missing in: {said}");
    }
    Ok(said)
}

pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.extend_from_slice(&state.to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A small tree with everything awkward in it that needs no privilege.
pub fn awkward(source: &Path) -> Result<()> {
    fs::create_dir_all(source.join("letters/2026"))?;
    fs::create_dir(source.join("empty-folder"))?;
    for at in 0..40 {
        let text = format!("Dear patient {at}, your next appointment is on day {at}.\n").repeat(40 + at);
        fs::write(source.join(format!("letters/2026/letter-{at}.txt")), text)?;
    }
    fs::write(source.join("scan.bin"), noise(3, 3_000_000))?;
    fs::write(source.join("nothing"), b"")?;
    fs::hard_link(source.join("scan.bin"), source.join("letters/same-scan.bin"))?;
    symlink("letters/2026", source.join("this-year"))?;
    symlink("nowhere/at/all", source.join("dangling"))?;
    fs::write(source.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8")), b"bytes")?;
    fs::write(source.join("new\nline \x1b[31m"), b"newline")?;
    let sparse = fs::File::create(source.join("sparse"))?;
    sparse.write_all_at(b"in the middle", 5_000_000)?;
    sparse.set_len(9_000_000)?;
    let set = rustix::fs::setxattr(source.join("nothing"), "user.note", b"a \0 value", rustix::fs::XattrFlags::empty());
    ensure!(set.is_ok(), "the temporary folder must take extended attributes");
    fs::set_permissions(source.join("scan.bin"), fs::Permissions::from_mode(0o4711))?;
    fs::set_permissions(source.join("letters"), fs::Permissions::from_mode(0o750))?;
    fs::set_permissions(source, fs::Permissions::from_mode(0o711))?;
    Ok(())
}

/// What `describe` says of each entry.
pub type Tree = BTreeMap<Vec<u8>, String>;

/// What is in a folder; the folder itself is another one after a restore.
pub fn tree(dir: &Path) -> Result<Tree> {
    let mut tree = describe(dir, true)?;
    tree.remove(&Vec::new());
    Ok(tree)
}

/// What two trees must agree on. `names` counts the names of a file; a mount does not know the number.
pub fn describe(root: &Path, names: bool) -> Result<Tree> {
    let mut found = BTreeMap::new();
    let mut links: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata()?;
        let name = path.strip_prefix(root)?.as_os_str().as_bytes().to_vec();
        let mut says =
            format!("{:o} {}:{} {}.{} ", meta.mode(), meta.uid(), meta.gid(), meta.mtime(), meta.mtime_nsec());
        if meta.is_dir() {
            let mut below: Vec<PathBuf> =
                fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
            below.sort();
            todo.extend(below.into_iter().rev());
        } else if meta.is_symlink() {
            says += &format!("{:?}", fs::read_link(&path)?);
        } else {
            let first = links.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
            let content = fs::read(&path)?;
            let sum = content.iter().fold(7u64, |sum, byte| sum.wrapping_mul(0x100_0000_01b3) ^ u64::from(*byte));
            let mut note = [0; 64];
            let note = rustix::fs::lgetxattr(&path, "user.note", &mut note[..]).map(|len| note[..len].to_vec()).ok();
            says += &format!("{} {sum:x} {first:?} {note:?}", meta.len());
            if names {
                says += &format!(" {}", meta.nlink());
            }
        }
        found.insert(name, says);
    }
    Ok(found)
}

/// Sends a signal to a program that the test has started.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    Ok(rustix::process::kill_process(Pid::from_child(child), signal)?)
}
