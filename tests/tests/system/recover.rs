//! The building burned: the practice folder is gone; the recovery kit and ONE store are left.

use anyhow::{Result, ensure};
use holdfast_tests::http::Visitor;
use holdfast_tests::{Practice, bin_dir, files, program};
use std::process::Command;

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
    practice.backupd(&["snapshot"])?;
    let after = taken(&practice)?;
    ensure!(before.is_subset(&after) && after.last() > before.last(), "the history goes on: {before:?} {after:?}");
    ensure!(practice.stop()? == 0);
    Ok(())
}

#[test]
fn a_recovery_that_went_back_past_damage_goes_on_in_every_store() -> Result<()> {
    let mut practice = Practice::start(4)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let store = practice.dir.join("stores/provider-south");
    let packs = |dir: &std::path::Path| -> Vec<std::path::PathBuf> {
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
    ensure!(out.status.success(), "{said}");
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

fn copy(from: &std::path::Path, to: &std::path::Path) -> Result<()> {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from)?);
        std::fs::create_dir_all(target.parent().unwrap_or(to))?;
        std::fs::copy(&file, &target)?;
    }
    ensure!(!files(to).is_empty(), "{} holds files", from.display());
    Ok(())
}
