//! The programs that make up the system: building them, and finding them beside this one (never by PATH).

use anyhow::Context;
use indicatif::ProgressBar;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The binaries that are started; `quickstart` is among them as `run-child`.
pub const NAMES: [&str; 6] = ["appliance", "backupd", "console", "agent", "s3-server", "report-verify"];

#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
}

impl Programs {
    /// `folder`: where the binaries lie; by default beside this program.
    pub fn find(folder: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("this program's own file cannot be found")?;
        let beside = own.parent().context("this program has no folder")?;
        let folder = std::path::absolute(folder.unwrap_or(beside))?;
        for name in NAMES {
            let path = folder.join(name);
            anyhow::ensure!(
                path.is_file(),
                "{} is missing: start without --no-build, or name the folder of the binaries with --bin-dir",
                path.display()
            );
        }
        Ok(Self { folder })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// This program, by the kernel's name for it: a build may have put another one in its place meanwhile.
    pub fn own(&self) -> &Path {
        Path::new("/proc/self/exe")
    }
}

/// Whether this program lies in a cargo target directory, and so can build the others.
pub fn source_tree() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2)?;
    root.join("Cargo.lock").is_file().then(|| root.to_path_buf())
}

/// `cargo build --release --locked --bins` with a bar that shows the crate in work; the last lines of its output on failure.
pub fn build(tree: &Path, bar: &ProgressBar) -> anyhow::Result<()> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--locked", "--bins", "--message-format=short", "--color=never"]).current_dir(tree);
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    if let Some(target) = target_directory()? {
        command.env("CARGO_TARGET_DIR", target);
    }
    let mut cargo = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cargo cannot be started: install the Rust version that README.md names")?;
    bar.enable_steady_tick(Duration::from_millis(120));
    let mut tail = Vec::new();
    let mut built = 0u64;
    for line in BufReader::new(cargo.stderr.take().context("cargo has no output")?).lines() {
        let line = line.context("cargo's output cannot be read")?;
        if let Some(name) = line.trim_start().strip_prefix("Compiling ") {
            built += 1;
            bar.set_message(format!("building the programs: {built} crates, now {}", first_word(name)));
        }
        tail.push(line);
        if tail.len() > 30 {
            tail.remove(0);
        }
    }
    let status = cargo.wait()?;
    anyhow::ensure!(status.success(), "the programs cannot be built ({status}):\n{}", tail.join("\n"));
    Ok(())
}

fn first_word(text: &str) -> &str {
    text.split(' ').next().unwrap_or(text)
}

/// The target directory that this program was built in: two levels above `target/release/quickstart`. The build must go
/// there, whatever the environment says now.
fn target_directory() -> anyhow::Result<Option<PathBuf>> {
    let own = std::env::current_exe().context("this program's own file cannot be found")?;
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    let folder = own.parent().filter(|folder| folder.ends_with(profile));
    Ok(folder.and_then(Path::parent).map(Path::to_path_buf))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let message = Programs::find(Some(folder.path())).unwrap_err().to_string();
        assert!(message.contains("appliance") && message.contains("--bin-dir"), "{message}");
    }

    #[test]
    fn the_source_tree_is_found() {
        assert!(source_tree().unwrap().join("deploy/quickstart").is_dir());
    }
}
