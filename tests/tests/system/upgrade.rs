//! Records of an older release under this one's programs: a snapshot first, then the upgrade, and the way back.

use crate::clinic::{Clinic, schema_of};
use anyhow::{Context, Result, ensure};
use holdfast_tests::place::{fails, last};
use std::fs;

/// Some schema of the past.
const OLD: u32 = 5;

#[test]
fn older_records_are_upgraded_after_a_snapshot_of_them() -> Result<()> {
    let clinic = Clinic::make()?;
    clinic.left_by(OLD)?;
    let database = clinic.data().join("records.sqlite");
    let untouched = fs::read(&database)?;

    // Nothing but the service itself upgrades.
    fails(clinic.emr(&["seed"]), 1, &["older release", "appliance serve"])?;
    clinic.settings(false, "")?;
    fails(clinic.emr(&["serve"]), 1, &["serve_socket", "upgrade_without_snapshot", "Nothing was changed"])?;
    ensure!(fs::read(&database)? == untouched, "a refused upgrade touches nothing");

    // The daemon takes the snapshot although the EMR's pages do not answer yet.
    clinic.settings(true, "")?;
    let daemons = clinic.backup()?;
    let emr = clinic.serve()?;
    let snapshots = clinic.snapshots()?;
    ensure!(snapshots.len() == 1, "{snapshots:?}");
    let tag = snapshots[0]["tag"].as_str().context("a tag")?;
    ensure!(tag.starts_with("before-schema-"), "{tag}");
    let new: u32 = tag.trim_start_matches("before-schema-").parse()?;
    // What is in every store is the older records, and a drill proves that they can be taken over.
    let drill = clinic.backupd(&["drill", "--store", "one"])?;
    let verdict = drill.iter().find_map(|line| line["verdict"].as_str());
    ensure!(verdict == Some("pass"), "{drill:?}");
    ensure!(schema_of(&clinic.data().join("before-upgrade/records.sqlite"))? == OLD);

    drop(emr);
    ensure!(schema_of(&database)? == new && new > OLD);
    let emr = clinic.serve()?;
    ensure!(clinic.snapshots()?.len() == 1, "an upgraded practice is not upgraded again");
    // The audit goes on over the upgrade: what the earlier snapshot ended with is in it.
    let taken = last(clinic.backupd(&["snapshot"])?, "snapshot-done")?;
    let status = last(clinic.backupd(&["status"])?, "status")?;
    ensure!(taken["state"] == "full" && !status["alerts"].to_string().contains("source-set-back"), "{taken} {status}");
    fails(clinic.emr(&["upgrade", "undo"]), 1, &["stop `appliance serve`"])?;
    drop(emr);
    let told = clinic.run(&["upgrade", "undo"])?;
    ensure!(told.contains(&format!("schema {OLD}")) && told.contains("given-up.sqlite"), "{told}");
    ensure!(schema_of(&database)? == OLD);

    // And once more, without the daemons.
    drop(daemons);
    clinic.settings(true, "upgrade_without_snapshot = true\n")?;
    let emr = clinic.serve()?;
    drop(emr);
    ensure!(schema_of(&database)? == new);
    ensure!(clinic.run(&["upgrade", "keep"])?.contains("removed") && !clinic.data().join("before-upgrade").exists());
    fails(clinic.emr(&["upgrade", "undo"]), 1, &["no older database"])?;
    Ok(())
}

/// A disk that is not mounted looks like a practice without records. Were one begun on it, its emptiness would be backed up.
#[test]
fn a_practice_begins_only_when_somebody_says_so() -> Result<()> {
    let clinic = Clinic::make()?;
    let remedies = ["no database", "mount the disk", "backupd recover", "appliance init"];
    for command in [&["serve"][..], &["seed"], &["user", "list"], &["export", "elsewhere"]] {
        fails(clinic.emr(command), 1, &remedies)?;
    }
    ensure!(!clinic.data().exists(), "a refusal makes nothing");
    ensure!(clinic.run(&["init"])?.contains("new practice"));
    drop(clinic.serve()?);
    clinic.user("doctor", "clinician")?;
    ensure!(clinic.run(&["init"])?.contains("nothing was changed"), "said again, it changes nothing");
    ensure!(clinic.run(&["user", "list"])?.contains("doctor"));
    // The disk is gone: what is left is its mount point.
    fs::rename(clinic.data(), clinic.dir.join("unmounted"))?;
    fs::create_dir(clinic.data())?;
    fails(clinic.emr(&["serve"]), 1, &remedies)?;
    ensure!(fs::read_dir(clinic.data())?.next().is_none(), "a refusal writes nothing");
    fs::remove_dir(clinic.data())?;
    fs::rename(clinic.dir.join("unmounted"), clinic.data())?;
    drop(clinic.serve()?);
    ensure!(clinic.run(&["user", "list"])?.contains("doctor"));
    Ok(())
}

#[test]
fn a_snapshot_of_something_else_is_none() -> Result<()> {
    let clinic = Clinic::make()?;
    clinic.left_by(OLD)?;
    let serve = clinic.dir.join("serve.toml");
    fs::create_dir(clinic.dir.join("other"))?;
    let text = fs::read_to_string(&serve)?;
    fs::write(
        &serve,
        text.replace("kind = \"appliance\"\nops_socket = \"ops.sock\"", "kind = \"folder\"\npath = \"other\""),
    )?;
    let _daemons = clinic.backup()?;
    fails(clinic.emr(&["serve"]), 1, &["snapshot of something else", "[[source]]"])?;
    ensure!(schema_of(&clinic.data().join("records.sqlite"))? == OLD);
    Ok(())
}
