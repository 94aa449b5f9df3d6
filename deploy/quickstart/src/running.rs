//! `run.json`: the processes of a start, so that the next start after a kill can wait until they are gone.

use crate::ambient;
use crate::files;
use anyhow::Context;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Programs that lost their quickstart end by themselves; this is how long they may take.
const END_TIME: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(100);

/// Process ids by program name.
pub type Running = BTreeMap<String, u32>;

pub fn save(file: &Path, running: &Running) -> anyhow::Result<()> {
    files::write_private(file, serde_json::to_string_pretty(running)?.as_bytes())
}

/// Waits until the programs of an earlier start have ended; one that does not is named.
pub async fn wait_for_earlier(file: &Path, folder: &Path) -> anyhow::Result<()> {
    let Ok(text) = std::fs::read_to_string(file) else { return Ok(()) };
    let running: Running = serde_json::from_str(&text).unwrap_or_default();
    let until = ambient::instant() + END_TIME;
    for (name, pid) in running {
        while runs_for(pid, folder) {
            anyhow::ensure!(
                ambient::instant() < until,
                "{name} of an earlier start still runs as process {pid}: end it with `kill {pid}`, then start again"
            );
            tokio::time::sleep(LOOK).await;
        }
    }
    std::fs::remove_file(file).or_else(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error).context("run.json cannot be removed"),
    })
}

/// Whether the process lives and its command line names the practice's folder: the id may belong to another by now.
fn runs_for(pid: u32, folder: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt;
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let folder = folder.as_os_str().as_bytes();
    !folder.is_empty() && line.windows(folder.len()).any(|part| part == folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[tokio::test]
    async fn waits_for_the_programs_of_the_folder_only() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("run.json");
        let script = format!("sleep 0.4; : {}", folder.path().display());
        let mut ours = Command::new("sh").args(["-c", &script]).spawn().unwrap();
        let running = Running::from([("ours".to_owned(), ours.id()), ("other".to_owned(), std::process::id())]);
        save(&file, &running).unwrap();
        assert!(runs_for(ours.id(), folder.path()) && !runs_for(std::process::id(), folder.path()));
        let reap = std::thread::spawn(move || ours.wait().unwrap());
        wait_for_earlier(&file, folder.path()).await.unwrap();
        assert!(reap.join().unwrap().success());
        assert!(!file.exists());
        wait_for_earlier(&file, folder.path()).await.unwrap();
    }
}
