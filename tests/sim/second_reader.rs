//! I13: what a simulated practice wrote, whatever happened to it, is read by the second reader, which was written from the
//! specification alone. (That this release reads the frozen repositories of earlier ones is `tests/golden.rs`.)

use crate::auditor::Verdict;
use crate::scenario::played;
use crate::shelf::Direct;
use backup_engine::{NamedStore, NoProgress, RestoreRequest, heads, restore};
use holdfast_tests::{root, skip, tree::describe};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whose stores are written out, and how many of the snapshots in each are read.
const SEEDS: [u64; 3] = [5, 11, 42];
const SNAPSHOTS: usize = 2;

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn second_reader(python: &Path, store: &Path, key: &Path, snapshot: &str, into: &Path) -> Verdict<()> {
    let mut command = Command::new(python);
    command.arg(root().join("tests/reader/holdfast_reader.py")).arg("--store").arg(store);
    let out = command.arg("--paper-key-file").arg(key).args(["restore", snapshot]).arg(into).output().map_err(text)?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

async fn read(seed: u64, python: &Path) -> Verdict<usize> {
    let scene = played(seed, false).await?;
    let temp = tempfile::tempdir().map_err(text)?;
    let key = temp.path().join("paper-key");
    fs::write(&key, scene.paper.to_text().as_bytes()).map_err(text)?;
    let mut read = 0;
    for shelf in &scene.shelves {
        let folder = temp.path().join(&shelf.name);
        for name in shelf.names() {
            let file = folder.join(&name);
            fs::create_dir_all(file.parent().ok_or("a folder")?).map_err(text)?;
            fs::write(file, shelf.get(&name).unwrap_or_default()).map_err(text)?;
        }
        let (auditor, store): (_, NamedStore) = (&scene.auditor, Direct::to(shelf));
        let found = heads(&auditor.env, auditor.open.catalog(), std::slice::from_ref(&store)).await.map_err(text)?;
        for info in found.snapshots.iter().take(SNAPSHOTS) {
            let id = info.id.to_string();
            let into = |who: &str| temp.path().join(format!("{}-{who}-{id}", shelf.name));
            let (ours, theirs) = (into("ours"), into("theirs"));
            let request = RestoreRequest { into: ours.clone(), ..RestoreRequest::default() };
            if restore(&auditor.env, &auditor.open, &store, info.id, request, &NoProgress).await.is_err() {
                // Lost at every store, as the auditor has seen.
                continue;
            }
            second_reader(python, &folder, &key, &id, &theirs)
                .map_err(|said| format!("I13: {}: {said}", shelf.name))?;
            let [ours, theirs] = [ours, theirs].map(|tree| describe(&tree.join("files")).map_err(text));
            let (ours, theirs) = (ours?, theirs?);
            if ours != theirs {
                let differing = ours.iter().find(|(name, says)| theirs.get(*name) != Some(says));
                return Err(format!("I13: the second reader restores something else: {differing:?}"));
            }
            read += ours.len();
        }
    }
    Ok(read)
}

#[test]
fn the_second_reader_restores_what_a_simulated_practice_wrote() {
    let tools = std::env::var_os("HOLDFAST_TOOLS").map_or_else(|| root().join(".tools"), PathBuf::from);
    let python = tools.join("reader/bin/python");
    if !python.exists() {
        return skip("the_second_reader_restores_what_a_simulated_practice_wrote", "its Python packages are not here");
    }
    for seed in SEEDS {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let read = runtime.expect("a runtime").block_on(read(seed, &python));
        assert!(read.as_ref().is_ok_and(|entries| *entries > 10), "seed {seed}: {read:?}");
    }
}
